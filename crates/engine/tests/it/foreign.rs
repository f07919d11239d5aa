//! What another node sends, as it is on the wire, for what no honest node says.

use std::collections::BTreeMap;

use khufu_crdt::{ChangeHash, DocumentId, ReplicantId, Report};
use khufu_engine::harness::{SimulatedKeys, World};
use khufu_engine::{Input, Keys, NodeId};
use serde::Serialize;
use serde_bytes::ByteBuf;

#[derive(Serialize)]
pub(crate) enum Frame {
    Members { records: Vec<Signed> },
    Push(Push),
    NotHolder { document: DocumentId, heads: Vec<ChangeHash>, knows: Vec<ChangeHash> },
    Ask { nonce: u64, who: String, here: String, ask: Ask },
}

#[derive(Serialize)]
pub(crate) enum Ask {
    Holdings(Vec<ReplicantId>),
}

#[derive(Serialize)]
pub(crate) struct Push {
    pub(crate) document: DocumentId,
    pub(crate) changes: Vec<ByteBuf>,
    pub(crate) heads: Vec<ChangeHash>,
    pub(crate) reports: Vec<Said>,
}

#[derive(Serialize)]
pub(crate) enum Said {
    #[serde(rename = "w")]
    Whole(Report),
}

#[derive(Serialize)]
pub(crate) struct Signed {
    body: ByteBuf,
    signature: ByteBuf,
}

#[derive(Serialize)]
struct Record {
    site: String,
    node: String,
    labels: BTreeMap<String, String>,
    addresses: Vec<String>,
    kinds: Vec<String>,
    version: String,
    seq: u64,
}

pub(crate) fn node(site: &str) -> NodeId {
    NodeId(format!("node-{site}"))
}

fn encode<T: Serialize>(version: u8, value: &T) -> Vec<u8> {
    let mut bytes = vec![version];
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

/// The genuine record of a site, which may not exist.
pub(crate) fn record(site: &str, seq: u64) -> Signed {
    let record = Record {
        site: site.into(),
        node: node(site).0,
        labels: BTreeMap::new(),
        addresses: vec![],
        kinds: vec!["text".into()],
        version: "1".into(),
        seq,
    };
    let body = encode(1, &record);
    let signature = SimulatedKeys(node(site)).sign(&body);
    Signed { body: ByteBuf::from(body), signature: ByteBuf::from(signature) }
}

/// Has a site get a frame from another.
pub(crate) fn hand(world: &mut World, to: &str, from: &str, frame: &Frame) {
    world.hand(to, Input::Frame { from: node(from), bytes: encode(2, frame) });
}
