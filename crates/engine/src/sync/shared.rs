//! What this node shares with each other site, ready to be compared, and kept for as long as nothing changes.

use std::collections::BTreeMap;

use khufu_crdt::SiteName;
use negentropy::{Id, NegentropyStorageVector};
use sha2::{Digest, Sha256};

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
    digest: SharedDigest,
}

impl Shared {
    /// What is shared with a site, sorted, and its digest.
    pub(crate) fn with(&mut self, index: &Index, site: &SiteName) -> Option<(&NegentropyStorageVector, SharedDigest)> {
        if self.0.get(site).is_none_or(|kept| kept.version != index.version()) {
            self.0.insert(site.clone(), Kept::new(index, site)?);
        }
        self.0.get(site).map(|kept| (&kept.items, kept.digest))
    }

    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }
}

impl Kept {
    fn new(index: &Index, site: &SiteName) -> Option<Self> {
        let mut ids: Vec<_> = index
            .iter()
            .filter(|(_, entry)| !entry.dropped && entry.holds(site))
            .map(|(id, entry)| entry.item(id))
            .collect();
        ids.sort_unstable();
        let (mut items, mut digest) = (NegentropyStorageVector::new(), Sha256::new());
        for id in ids {
            digest.update(id);
            items.insert(0, Id::from_byte_array(id)).ok()?;
        }
        items.seal().ok()?;
        let digest = *digest.finalize().first_chunk::<16>()?;
        Some(Self { version: index.version(), items, digest })
    }
}
