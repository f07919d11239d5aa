//! Where a replicant lives: the value that its scope had when it was decided.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{Hlc, SiteName};

/// How the sites of a placement share a replicant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Every site has a replica of its own.
    #[default]
    Replicate,
    /// One resource spans the sites; the prime holds it.
    Cross,
}

/// A decided scope. Written as one value: of two concurrent decisions one wins whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Placement {
    /// The sites where it lives. Which of them have a replica, says [`Placement::has_replica`].
    pub sites: BTreeSet<SiteName>,
    /// Sites that were taken out and have yet to remove their replica. They belong to the replica set until they
    /// report that they did. A site that a losing concurrent decision named is among them.
    #[serde(default)]
    pub leaving: BTreeSet<SiteName>,
    /// How they share.
    #[serde(default)]
    pub mode: Mode,
    /// The site that holds a resource that spans several.
    #[serde(default)]
    pub prime: Option<SiteName>,
    /// The expression that this is the value of.
    pub expression: String,
    /// When it was decided.
    pub decided_at: Hlc,
    /// The site whose node decided it.
    pub decided_by: SiteName,
}

impl Placement {
    /// Whether a site is to hold the document: as a member, or until it has cleaned up.
    #[must_use]
    pub fn holds(&self, site: &SiteName) -> bool {
        self.sites.contains(site) || self.leaving.contains(site)
    }

    /// Whether a site of the placement has, or shall have, a replica of its own. Of what spans sites there is one, at the
    /// prime, or at the first site by name where none of them is named as that.
    #[must_use]
    pub fn has_replica(&self, site: &SiteName) -> bool {
        let holds_all = match self.mode {
            Mode::Replicate => return self.sites.contains(site),
            Mode::Cross => self.prime.as_ref().filter(|prime| self.sites.contains(*prime)),
        };
        holds_all.or(self.sites.first()) == Some(site)
    }

    /// All sites that are to hold the document, those that leave included.
    pub fn holders(&self) -> impl Iterator<Item = &SiteName> {
        self.sites.union(&self.leaving)
    }
}
