//! The node's identity as the engine needs it.

use khufu_engine::{Keys, NodeId};
use khufu_p2p::Identity;

pub(crate) struct NodeKeys(pub(crate) Identity);

impl Keys for NodeKeys {
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message)
    }

    fn verify(&self, node: &NodeId, message: &[u8], signature: &[u8]) -> bool {
        khufu_p2p::verify(&node.0, message, signature)
    }
}
