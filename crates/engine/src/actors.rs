//! Under which ids this process writes.

use khufu_crdt::Actor;
use sha2::{Digest, Sha256};

/// Gives out actor ids that nobody else writes under.
///
/// Every document gets another whenever it comes into memory. A document may be given away, or lost with the disk, and
/// come back from others without the last changes that this very process made; under the old id those would be made a
/// second time, and no site could ever take both.
#[derive(Debug)]
pub(crate) struct Actors {
    pub(crate) seed: [u8; 16],
    pub(crate) given: u64,
}

impl Actors {
    /// One that was never given out.
    pub(crate) fn next(&mut self) -> Actor {
        self.given += 1;
        let digest = Sha256::new().chain_update(self.seed).chain_update(self.given.to_be_bytes()).finalize();
        let mut id = [0; 16];
        id.copy_from_slice(digest.split_at(16).0);
        Actor::new(id)
    }
}
