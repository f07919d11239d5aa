//! Frames made by hand, as another implementation would make them: nothing here uses the engine's own types.

use ciborium::Value;
use ciborium::cbor;
use sha2::{Digest, Sha256};

/// The version that frames of today begin with.
pub(crate) const VERSION: u8 = 2;
/// The same of records.
const RECORD: u8 = 1;

/// A frame with this content.
pub(crate) fn frame(content: &Value) -> Vec<u8> {
    versioned(VERSION, content)
}

/// The same with another version.
pub(crate) fn versioned(version: u8, content: &Value) -> Vec<u8> {
    let mut bytes = vec![version];
    ciborium::into_writer(content, &mut bytes).unwrap();
    bytes
}

/// What a frame says; none if it is none.
pub(crate) fn read(frame: &[u8]) -> Option<Value> {
    let (version, content) = frame.split_first()?;
    (*version == VERSION).then(|| ciborium::from_reader(content).ok()).flatten()
}

/// A field of a map.
pub(crate) fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let (_, found) = value.as_map()?.iter().find(|(key, _)| key.as_text() == Some(name))?;
    Some(found)
}

/// A field within fields.
pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| field(value, name))
}

pub(crate) fn bytes(bytes: impl Into<Vec<u8>>) -> Value {
    Value::Bytes(bytes.into())
}

pub(crate) fn document(id: &str, epoch: u64) -> Value {
    cbor!({"replicant" => id, "epoch" => epoch}).unwrap()
}

/// A hash that no change has.
pub(crate) fn unknown_head(number: u64) -> Value {
    Value::Text(Sha256::digest(number.to_be_bytes()).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What half of the item id of a replicant names it.
pub(crate) fn prefix(id: &str) -> Value {
    bytes(&Sha256::digest(id)[..16])
}

pub(crate) fn push_content(
    id: &str,
    epoch: u64,
    changes: Vec<Vec<u8>>,
    heads: Vec<Value>,
    reports: Vec<Value>,
) -> Value {
    let changes = Value::Array(changes.into_iter().map(Value::Bytes).collect());
    cbor!({
        "document" => document(id, epoch), "changes" => changes, "heads" => Value::Array(heads),
        "reports" => Value::Array(reports),
    })
    .unwrap()
}

pub(crate) fn push(id: &str, epoch: u64, changes: Vec<Vec<u8>>, heads: Vec<Value>, reports: Vec<Value>) -> Vec<u8> {
    frame(&cbor!({"Push" => push_content(id, epoch, changes, heads, reports)}).unwrap())
}

/// The same with where the epoch before is said to end.
pub(crate) fn with_cut(push: &[u8], cut: &str) -> Vec<u8> {
    let mut said = read(push).unwrap();
    let content = &mut said.as_map_mut().unwrap()[0].1;
    content.as_map_mut().unwrap().push(("cut".into(), cut.into()));
    frame(&said)
}

pub(crate) fn report(id: &str, site: &str, seq: u64, status: &str, heads: &[String]) -> Value {
    let whole = cbor!({
        "replicant" => id, "epoch" => 0, "site" => site, "seq" => seq, "status" => status, "heads" => heads,
        "applied" => Value::Array(Vec::new()), "operations" => Value::Map(Vec::new()),
    });
    cbor!({"w" => whole.unwrap()}).unwrap()
}

/// A step of a sync session.
pub(crate) struct Step<'a> {
    pub(crate) id: &'a str,
    pub(crate) epoch: u64,
    pub(crate) session: u64,
    pub(crate) seq: u64,
    pub(crate) initiator: bool,
    pub(crate) message: Option<Vec<u8>>,
    pub(crate) reports: Vec<Value>,
}

impl<'a> Step<'a> {
    /// The first of a session that the sender begins.
    pub(crate) fn first(id: &'a str, epoch: u64) -> Self {
        Self { id, epoch, session: 1, seq: 0, initiator: true, message: None, reports: Vec::new() }
    }

    pub(crate) fn frame(self) -> Vec<u8> {
        let message = self.message.map_or(Value::Null, Value::Bytes);
        let content = cbor!({
            "d" => document(self.id, self.epoch), "n" => self.session, "s" => self.seq, "i" => self.initiator,
            "m" => message, "h" => Value::Map(Vec::new()), "r" => Value::Array(self.reports),
        });
        frame(&cbor!({"Sync" => content.unwrap()}).unwrap())
    }
}

pub(crate) fn ask(nonce: u64, ask: Value) -> Vec<u8> {
    ask_as(nonce, "somebody", ask)
}

pub(crate) fn ask_as(nonce: u64, who: &str, ask: Value) -> Vec<u8> {
    frame(&cbor!({"Ask" => {"nonce" => nonce, "who" => who, "here" => "wolf", "ask" => ask}}).unwrap())
}

pub(crate) fn request(request: Value) -> Value {
    cbor!({"Request" => request}).unwrap()
}

pub(crate) fn reconcile(round: u64, reply: bool, message: Vec<u8>) -> Vec<u8> {
    frame(&cbor!({"Reconcile" => {"round" => round, "reply" => reply, "message" => Value::Bytes(message)}}).unwrap())
}

/// A message of a comparison that says: everything is different, in one range without end.
pub(crate) fn all_is_different(salt: u64) -> Vec<u8> {
    let mut message = vec![0x61, 0, 0, 1];
    message.extend(&Sha256::digest(salt.to_be_bytes())[..16]);
    message
}

/// The body of a site record.
pub(crate) fn record(site: &str, node: &str, seq: u64, labels: Value) -> Vec<u8> {
    versioned(
        RECORD,
        &cbor!({
            "site" => site, "node" => node, "labels" => labels, "addresses" => Value::Array(Vec::new()),
            "kinds" => ["text"], "version" => "0.1.0", "seq" => seq,
        })
        .unwrap(),
    )
}

pub(crate) fn signed(body: Vec<u8>, signature: Vec<u8>) -> Value {
    cbor!({"body" => Value::Bytes(body), "signature" => Value::Bytes(signature)}).unwrap()
}

pub(crate) fn members(records: Vec<Value>) -> Vec<u8> {
    frame(&cbor!({"Members" => {"records" => Value::Array(records)}}).unwrap())
}

/// A gossiped message.
pub(crate) fn gossip(author: &str, body: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let body = frame(body);
    let signature = sign(&body);
    frame(&cbor!({"author" => author, "body" => Value::Bytes(body), "signature" => Value::Bytes(signature)}).unwrap())
}
