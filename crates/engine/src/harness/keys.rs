//! Signatures for simulations: they bind a message to a node and keep no secret.

use sha2::{Digest, Sha256};

use crate::{Keys, NodeId};

/// Signs with a hash of the node's name. Anybody can do that: for simulations only.
#[derive(Debug, Clone)]
pub struct SimulatedKeys(pub NodeId);

fn sign(node: &NodeId, message: &[u8]) -> Vec<u8> {
    let mut digest = Sha256::new();
    digest.update(node.0.as_bytes());
    digest.update([0]);
    digest.update(message);
    digest.finalize().to_vec()
}

impl Keys for SimulatedKeys {
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        sign(&self.0, message)
    }

    fn verify(&self, node: &NodeId, message: &[u8], signature: &[u8]) -> bool {
        sign(node, message) == signature
    }
}
