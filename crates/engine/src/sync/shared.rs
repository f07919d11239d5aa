//! What this node shares with each other site, ready to be compared, and kept for as long as it differs and nothing changes.

use std::collections::BTreeMap;

use khufu_crdt::SiteName;
use negentropy::{Id, NegentropyStorageVector};

use crate::replicant::Index;

/// Equal for two nodes that hold the same versions of all that they share.
pub(crate) type SharedDigest = [u8; 16];

#[derive(Default)]
pub(crate) struct Shared(BTreeMap<SiteName, Kept>);

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Shared").field(&self.0.len()).finish()
    }
}

/// The replicants shared with one site.
struct Kept {
    /// That of the index when this was made.
    version: u64,
    items: NegentropyStorageVector,
}

impl Shared {
    /// What is shared with a site, sorted.
    pub(crate) fn with(&mut self, index: &Index, site: &SiteName) -> Option<&NegentropyStorageVector> {
        if self.0.get(site).is_none_or(|kept| kept.version != index.version()) {
            self.0.insert(site.clone(), Kept::new(index, site)?);
        }
        self.0.get(site).map(|kept| &kept.items)
    }

    /// Both have the same, so that nothing is to be compared.
    pub(crate) fn is_same(&mut self, site: &SiteName) {
        self.0.remove(site);
    }

    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }
}

impl Kept {
    fn new(index: &Index, site: &SiteName) -> Option<Self> {
        let mut items = NegentropyStorageVector::new();
        for (id, entry) in index.iter().filter(|(_, entry)| entry.is_shared_with(site)) {
            items.insert(0, Id::from_byte_array(entry.item(id))).ok()?;
        }
        // Sorts them.
        items.seal().ok()?;
        Some(Self { version: index.version(), items })
    }
}
