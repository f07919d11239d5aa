//! What the benches share.

use khufu_engine::{Keys, NodeId, Time};

/// Signatures that cost nothing.
pub(crate) struct NoKeys;

impl Keys for NoKeys {
    fn sign(&self, _: &[u8]) -> Vec<u8> {
        Vec::new()
    }

    fn verify(&self, _: &NodeId, _: &[u8], _: &[u8]) -> bool {
        true
    }
}

/// So many microseconds after the start, in the year 2026, so that clocks have plausible values.
pub(crate) fn time(us: u64) -> Time {
    Time { monotonic_us: us, wall_ms: 1_790_000_000_000 + us / 1000 }
}
