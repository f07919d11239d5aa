//! What nodes say to each other: one version byte and one CBOR value (RFC 8949) with named fields, so that a node one
//! version older or newer ignores what it does not know.

use std::collections::{BTreeMap, BTreeSet};

use khufu_crdt::{ChangeHash, DocumentId, Epoch, ReplicantId, Report, SiteName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::members::SignedRecord;
use crate::sync::{News, report, reports};
use crate::{Holding, NodeId, Request, RequestError, Response, SitePlan};

/// The version of records: those on disk, and those that nodes sign of themselves.
const RECORDS: u8 = 1;
/// The version of frames and of what is gossiped: all else that is in this file.
const FRAMES: u8 = 2;
/// The most values in one frame. Small ones take some 40 bytes of memory each, whatever the frame has; the largest change
/// of a document has half as many.
const MAX_ITEMS: usize = 2_000_000;

/// What one node says to another, in order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Frame {
    /// The first frame on a connection, and again when something changed: the sites that the sender knows.
    Members { records: Vec<SignedRecord> },
    /// A heartbeat. `sent_us` comes back untouched: with the next heartbeat of the other side as `echo`, together with
    /// how long it was held; or at once, if the sender waits for a sign of life (`waits`) or has measured no distance yet.
    /// `known` is the number of the receiver's record that the sender has, so that a record which was lost on its way is
    /// sent again.
    /// `rtt_ms` are the distances that the sender has measured, where they have changed since it last said them.
    Ping {
        #[serde(rename = "t")]
        sent_us: u64,
        #[serde(rename = "l")]
        load: f64,
        #[serde(rename = "d", default, skip_serializing_if = "is_default")]
        rtt_ms: Option<BTreeMap<SiteName, f64>>,
        #[serde(rename = "k", default, skip_serializing_if = "is_default")]
        known: u64,
        #[serde(rename = "e", default, skip_serializing_if = "is_default")]
        echo: Option<(u64, u64)>,
        #[serde(rename = "w", default, skip_serializing_if = "is_default")]
        waits: bool,
    },
    /// The answer to a heartbeat that is waited for.
    Pong { sent_us: u64 },
    /// A digest of all that the sender shares with the receiver, who compares if its own is another.
    Shared { digest: ByteBuf },
    /// A step of range-based set reconciliation over the replicants that both share.
    Reconcile { round: u64, reply: bool, message: ByteBuf },
    /// The sender lacks these replicants (the first halves of their item ids): start a session for each.
    Want { items: Vec<ByteBuf> },
    /// A step of a sync session.
    Sync(SyncFrame),
    /// The receiver is not among the holders as far as the sender knows, so it is told the heads only.
    NotHolder {
        document: DocumentId,
        heads: Vec<ChangeHash>,
        #[serde(default)]
        knows: Vec<ChangeHash>,
        /// Those on whose behalf the receiver has told of it that are none of the holders either.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        of: BTreeSet<SiteName>,
    },
    /// Changes and reports, pushed.
    Push(Push),
    /// What the sender's site has to report, gathered.
    Reports { told: Vec<Told> },
    /// A question that the receiver shall answer.
    Ask { nonce: u64, who: String, here: SiteName, ask: Ask },
    /// The answer to a question.
    Reply { nonce: u64, reply: Box<Reply> },
}

impl Frame {
    /// Whether taking it in may lead to something that must be stored.
    pub(crate) fn brings_changes(&self) -> bool {
        matches!(
            self,
            Self::Shared { .. }
                | Self::Reconcile { .. }
                | Self::Want { .. }
                | Self::Sync(_)
                | Self::NotHolder { .. }
                | Self::Push(_)
                | Self::Reports { .. }
        )
    }
}

/// A step of a sync session: one message of the Automerge sync protocol, and the reports that the other lacks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SyncFrame {
    #[serde(rename = "d")]
    pub(crate) document: DocumentId,
    /// Chosen by who began it.
    #[serde(rename = "n")]
    pub(crate) session: u64,
    /// Counts the frames of one side of a session: a gap ends it.
    #[serde(rename = "s", default, skip_serializing_if = "is_default")]
    pub(crate) seq: u32,
    /// Whether the sender began the session.
    #[serde(rename = "i", default, skip_serializing_if = "is_default")]
    pub(crate) initiator: bool,
    /// A message, or the next part of one.
    #[serde(rename = "m", default, skip_serializing_if = "is_default")]
    pub(crate) message: Option<ByteBuf>,
    /// Whether the rest of the message follows in the next frames, each when the one before was answered.
    #[serde(rename = "p", default, skip_serializing_if = "is_default")]
    pub(crate) more: bool,
    /// The numbers of the reports that the sender has, in its first frame.
    #[serde(rename = "h", default, skip_serializing_if = "is_default")]
    pub(crate) have: Option<BTreeMap<SiteName, u64>>,
    #[serde(rename = "r", default, skip_serializing_if = "is_default", with = "reports")]
    pub(crate) reports: Vec<Report>,
    /// Where the epoch before this document's was closed.
    #[serde(rename = "c", default, skip_serializing_if = "is_default")]
    pub(crate) cut: Option<ChangeHash>,
    /// The sender has all that the receiver has, and knows that the receiver has all of its own: the session is over.
    #[serde(rename = "o", default, skip_serializing_if = "is_default")]
    pub(crate) done: bool,
}

/// What is as it is by itself, as most is most of the time, is neither sent nor stored.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What a site reports on one replicant.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Told {
    #[serde(rename = "i")]
    pub(crate) replicant: ReplicantId,
    #[serde(rename = "e", default)]
    pub(crate) epoch: Epoch,
    /// Where the epoch before this document's was closed.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub(crate) cut: Option<ChangeHash>,
    #[serde(rename = "r")]
    pub(crate) what: What,
}

/// A report, whole or in part.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum What {
    /// All of it.
    #[serde(rename = "w", with = "report")]
    Whole(Box<Report>),
    /// What is new since the one that the receiver was told before. Without that one it begins a session.
    #[serde(rename = "n")]
    News(Box<News>),
}

/// Changes and reports of one document.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Push {
    pub(crate) document: DocumentId,
    /// Raw Automerge changes; none where they are only announced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) changes: Vec<ByteBuf>,
    /// The heads that the sender has, so that a receiver sees what it lacks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) heads: Vec<ChangeHash>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "reports")]
    pub(crate) reports: Vec<Report>,
    /// Where the epoch before this document's was closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cut: Option<ChangeHash>,
    /// How many sites that have given it away have passed it on.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) passed: u8,
    /// The sites that the sender, who has given it away, has it from.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) behalf: BTreeSet<SiteName>,
}

/// What one node asks another.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "there is one for each frame, on its way in or out")]
pub(crate) enum Ask {
    /// Do you hold this replicant?
    Locate(ReplicantId),
    /// Answer this for a user of mine.
    Request(Request),
    /// What would you do with this replicant?
    Plan(ReplicantId),
    /// What do you hold of these, looked at now?
    Holdings(Vec<ReplicantId>),
}

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Whether the replicant is held there.
    Located(bool),
    /// The answer for a user.
    Answer(Result<Response, RequestError>),
    /// What the site would do.
    Plan(Result<SitePlan, RequestError>),
    /// What the site holds.
    Holdings(BTreeMap<ReplicantId, Holding>),
}

/// What is gossiped: signed by its author, since it comes by way of others.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Signed {
    pub(crate) author: NodeId,
    pub(crate) body: ByteBuf,
    pub(crate) signature: ByteBuf,
}

/// The body of what is gossiped.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Gossip {
    /// A site has something new to say about itself.
    Member(SignedRecord),
    /// A document changed or a site reported.
    Push(Push),
}

/// Why bytes from the network were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("an empty frame")]
    Empty,
    #[error("version {found} is not understood here (only {expected}): update the older of the two nodes")]
    Version { found: u8, expected: u8 },
    #[error("a malformed frame: {0}")]
    Malformed(String),
    #[error("a frame of more than {MAX_ITEMS} values")]
    TooMany,
}

/// The bytes of a record.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    encode_as(RECORDS, value)
}

/// The bytes of a frame, or of what is gossiped.
pub(crate) fn encode_frame<T: Serialize>(value: &T) -> Vec<u8> {
    encode_as(FRAMES, value)
}

fn encode_as<T: Serialize>(version: u8, value: &T) -> Vec<u8> {
    let mut bytes = vec![version];
    // Writing into memory fails only for values that cannot be written at all, of which there are none above.
    if let Err(error) = ciborium::into_writer(value, &mut bytes) {
        tracing::error!(%error, "a frame could not be encoded");
    }
    bytes
}

/// Reads a record.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    decode_as(RECORDS, bytes)
}

/// Reads a frame, or what was gossiped.
pub(crate) fn decode_frame<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    decode_as(FRAMES, bytes)
}

fn decode_as<T: DeserializeOwned>(expected: u8, bytes: &[u8]) -> Result<T, WireError> {
    let (found, rest) = bytes.split_first().ok_or(WireError::Empty)?;
    if *found != expected {
        return Err(WireError::Version { found: *found, expected });
    }
    if has_too_many(rest) {
        return Err(WireError::TooMany);
    }
    let mut left = rest;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut left, 200)
        .map_err(|error| WireError::Malformed(error.to_string()))?;
    if left.is_empty() { Ok(value) } else { Err(WireError::Malformed(format!("{} bytes too many", left.len()))) }
}

/// Whether a frame would be refused for the number of its values.
pub(crate) fn has_too_many(bytes: &[u8]) -> bool {
    bytes.len() > MAX_ITEMS && items(bytes) > MAX_ITEMS
}

/// How many values there are in some CBOR, those inside of others counted, up to the first that is cut off.
fn items(mut bytes: &[u8]) -> usize {
    let mut items = 0;
    while let Some((head, rest)) = bytes.split_first() {
        // The upper three bits are the kind; the lower ones the number that belongs to it, or in how many bytes it follows.
        let (kind, low) = (head >> 5, head & 0x1f);
        let follow = match low {
            24..=27 => 1_usize << (low - 24),
            _ => 0,
        };
        let Some((number, rest)) = rest.split_at_checked(follow) else { return items };
        let number = number.iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
        let number = if follow == 0 { u64::from(low) } else { number };
        // Of strings the content follows, unless it comes in pieces (31), each with a head of its own.
        let skip = if matches!(kind, 2 | 3) && low < 28 { number } else { 0 };
        let Some(rest) = usize::try_from(skip).ok().and_then(|skip| rest.get(skip..)) else { return items };
        bytes = rest;
        items += 1;
    }
    items
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let frame = Frame::Ping { sent_us: 7, load: 0.5, rtt_ms: None, known: 0, echo: None, waits: false };
        let decoded: Frame = decode_frame(&encode_frame(&frame)).unwrap();
        assert!(matches!(decoded, Frame::Ping { sent_us: 7, .. }));
        assert_eq!(decode_frame::<Frame>(&[9, 1]).unwrap_err(), WireError::Version { found: 9, expected: FRAMES });
        assert!(matches!(decode_frame::<Frame>(&encode(&frame)), Err(WireError::Version { .. })));
        assert_eq!(decode_frame::<Frame>(&[]).unwrap_err(), WireError::Empty);
        let longer = [encode_frame(&frame).as_slice(), &[0]].concat();
        assert!(matches!(decode_frame::<Frame>(&longer), Err(WireError::Malformed(_))));
    }

    #[test]
    fn values_are_counted_before_they_are_read() {
        let value = serde_json::json!({"a": [1, 300, 70_000, 5_000_000_000_u64, -1, 1.5, null, true], "b": {"c": "x".repeat(300)}});
        // The map, its two keys, the list and its eight values, the map within, its key and value.
        assert_eq!(items(&encode(&value)[1..]), 1 + 2 + 9 + 3);
        assert_eq!(items(&[0x82, 0x01]), 2);
        assert_eq!(items(&[0x5f, 0x41, 0xff, 0xff]), 3);
        assert_eq!(items(&[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), 0);
        let many = encode(&vec![0; MAX_ITEMS]);
        assert_eq!(decode::<Vec<u8>>(&many).unwrap_err(), WireError::TooMany);
    }

    #[test]
    fn hashes_are_bytes_on_the_wire_and_text_for_people() {
        let hash = "0123456789abcdef".repeat(4);
        let report = Report {
            replicant: ReplicantId::new("web").unwrap(),
            epoch: 0,
            site: SiteName::new("paris").unwrap(),
            seq: 1,
            status: khufu_crdt::Status::Applied,
            heads: vec![hash.clone(), "no hash".into(), hash.to_uppercase()],
            applied: Vec::new(),
            desired: None,
            operations: BTreeMap::new(),
            local_id: None,
            observed: Some(khufu_crdt::Observation { at: 1, digest: Some(hash.clone()), drift: None, health: None }),
            decided_at: None,
            decided_by: None,
        };
        let bytes = encode(&report);
        assert!(!bytes.windows(64).any(|part| part == hash.as_bytes()));
        assert_eq!(decode::<Report>(&bytes).unwrap(), report);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["heads"][0], hash);
        assert_eq!(serde_json::from_value::<Report>(json.clone()).unwrap(), report);
        // As it was written before.
        assert_eq!(decode::<Report>(&encode(&json)).unwrap(), report);
        let heads: Vec<ChangeHash> = vec![hash.parse().unwrap()];
        assert_eq!(decode::<Vec<ChangeHash>>(&encode(&heads)).unwrap(), heads);
        assert_eq!(decode::<Vec<ChangeHash>>(&encode(&vec![hash.clone()])).unwrap(), heads);
        assert!(decode::<Vec<ChangeHash>>(&encode(&vec!["0".repeat(63)])).is_err());
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() { *first = FRAMES; }
            assert!(items(&bytes) <= bytes.len());
            let _ = decode_frame::<Frame>(&bytes);
            let _ = decode_frame::<Signed>(&bytes);
            let _ = decode_frame::<Gossip>(&bytes);
        }
    }
}
