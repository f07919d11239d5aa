//! Reading, around damage.

use std::collections::VecDeque;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::layout::{chunk_key, said};
use crate::record::{self, Chunks, Kind};

type Entry = (sled::IVec, sled::IVec);

/// A run of entries that cannot be read: those between two keys, both excluded (no upper key: to the end).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) after: Vec<u8>,
    pub(super) before: Option<Vec<u8>>,
    pub(super) reason: Unread,
}

/// Why something could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unread {
    /// What is there is not what was written.
    Damaged(String),
    /// The system refused to read it. It may be whole, and another attempt may succeed.
    Refused(String),
}

impl Unread {
    /// In words.
    pub(super) fn reason(self) -> String {
        match self {
            Self::Damaged(reason) | Self::Refused(reason) => reason,
        }
    }
}

impl From<sled::Error> for Unread {
    fn from(error: sled::Error) -> Self {
        match error {
            // A file that is cut short is no better the next time.
            sled::Error::Io(source) if source.kind() != std::io::ErrorKind::UnexpectedEof => {
                Self::Refused(source.to_string())
            }
            _ => Self::Damaged(error.to_string()),
        }
    }
}

impl From<&str> for Unread {
    fn from(reason: &str) -> Self {
        Self::Damaged(reason.to_owned())
    }
}

impl Gap {
    /// Whether the gap may have held a key. Its lower end counts: it is named after what could not be read itself.
    pub(super) fn holds(&self, key: &[u8]) -> bool {
        self.after.as_slice() <= key && self.before.as_deref().is_none_or(|before| key < before)
    }
}

/// So many more places are looked at inside a gap, to find what is whole between two damaged pages.
const PROBES: usize = 256;

/// Goes through all entries once, in their order, and keeps none of them.
pub(super) fn each(tree: &sled::Tree, mut see: impl FnMut(&[u8], &[u8])) -> Result<(), Unread> {
    let seen = catch_unwind(AssertUnwindSafe(|| {
        for entry in tree {
            let (key, stored) = entry?;
            see(&key, &stored);
        }
        Ok(())
    }));
    seen.unwrap_or_else(|panic| Err(Unread::Damaged(said(panic.as_ref()))))
}

/// Reads all entries from `from` on up to `to` (excluded), sorted, and the gaps between them.
pub(super) fn range(tree: &sled::Tree, from: &[u8], to: Option<&[u8]>) -> (Vec<Entry>, Vec<Gap>) {
    let upper = to.map_or(Bound::Unbounded, Bound::Excluded);
    let mut entries = Vec::new();
    let Err(reason) = pull(tree.range::<&[u8], _>((Bound::Included(from), upper)), &mut entries) else {
        return (entries, Vec::new());
    };
    // What one pass cannot reach is looked for from the other end, then in the middle of what is still missing.
    let first = Gap {
        after: entries.last().map_or_else(|| from.to_vec(), |(key, _)| key.to_vec()),
        before: to.map(<[u8]>::to_vec),
        reason,
    };
    let mut gaps = Vec::new();
    let mut open = VecDeque::from([backward(tree, first, &mut entries)]);
    for _ in 0..PROBES {
        let Some(gap) = open.pop_front() else { break };
        let Some(middle) = middle(&gap.after, gap.before.as_deref()) else {
            gaps.push(gap);
            continue;
        };
        let found = entries.len();
        let upper = gap.before.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let reached_end = pull(tree.range::<&[u8], _>((Bound::Included(&middle[..]), upper)), &mut entries).is_ok();
        let last = entries.get(found..).and_then(<[_]>::last).map(|(key, _)| key.to_vec());
        let lower = Gap { after: gap.after.clone(), before: Some(middle.clone()), reason: gap.reason.clone() };
        open.push_back(backward(tree, lower, &mut entries));
        if !reached_end {
            open.push_back(Gap { after: last.unwrap_or(middle), ..gap });
        }
    }
    gaps.extend(open);
    entries.sort();
    entries.dedup();
    gaps.sort_by(|a, b| a.after.cmp(&b.after));
    let gaps = merge(gaps, &entries);
    (entries, gaps)
}

/// Reads a gap from its end, and answers what is left of it.
fn backward(tree: &sled::Tree, gap: Gap, entries: &mut Vec<Entry>) -> Gap {
    let upper = gap.before.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let found = entries.len();
    let range = tree.range::<&[u8], _>((Bound::Excluded(&gap.after[..]), upper));
    let _ = pull(range.rev(), entries);
    match entries.get(found..).and_then(<[_]>::last) {
        Some((key, _)) => Gap { before: Some(key.to_vec()), ..gap },
        None => gap,
    }
}

fn pull(range: impl Iterator<Item = sled::Result<Entry>>, entries: &mut Vec<Entry>) -> Result<(), Unread> {
    let pulled = catch_unwind(AssertUnwindSafe(|| {
        for entry in range {
            entries.push(entry?);
        }
        Ok(())
    }));
    pulled.unwrap_or_else(|panic| Err(Unread::Damaged(said(panic.as_ref()))))
}

/// Joins gaps with nothing readable between them.
fn merge(gaps: Vec<Gap>, entries: &[Entry]) -> Vec<Gap> {
    let mut out: Vec<Gap> = Vec::new();
    for gap in gaps {
        if let Some(last) = out.last_mut() {
            let from = entries.partition_point(|(key, _)| key.as_ref() <= &last.after[..]);
            let apart = entries.get(from).is_some_and(|(key, _)| key.as_ref() <= &gap.after[..]);
            if !apart {
                last.before = gap.before;
                continue;
            }
        }
        out.push(gap);
    }
    out
}

/// A key about half way between two.
fn middle(after: &[u8], before: Option<&[u8]>) -> Option<Vec<u8>> {
    let common = before.map_or(0, |before| after.iter().zip(before).take_while(|(a, b)| a == b).count());
    let window = |key: &[u8]| {
        let mut bytes = [0; 8];
        for (to, from) in bytes.iter_mut().zip(key.iter().skip(common)) {
            *to = *from;
        }
        u64::from_be_bytes(bytes)
    };
    let (low, high) = (window(after), before.map_or(u64::MAX, window));
    let half = low + high.checked_sub(low)? / 2;
    let mut key = after.get(..common)?.to_vec();
    key.extend_from_slice(&half.to_be_bytes());
    (half > low && half < high).then_some(key)
}

/// The first key after all that start with `prefix`; none if there is no such key.
pub(super) fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix.get(..=last)?.to_vec();
    *end.last_mut()? += 1;
    Some(end)
}

/// The value in a record, wherever it is.
pub(super) fn value(tree: &sled::Tree, key: &[u8], bytes: &[u8]) -> Result<Vec<u8>, Unread> {
    let record = record::decode(key, bytes)?;
    match record.kind {
        Kind::Inline => Ok(record.payload.to_vec()),
        Kind::Chunked => {
            let chunks = Chunks::decode(record.payload).ok_or("it does not say where its pieces are")?;
            pieces(tree, chunks)
        }
    }
}

fn pieces(tree: &sled::Tree, chunks: Chunks) -> Result<Vec<u8>, Unread> {
    let mut out = Vec::new();
    for index in 0..chunks.count {
        let key = chunk_key(chunks.id, index);
        let piece = catch_unwind(AssertUnwindSafe(|| tree.get(&key)))
            .unwrap_or_else(|panic| Err(sled::Error::ReportableBug(said(panic.as_ref()))))
            .map_err(|error| match error.into() {
                Unread::Damaged(why) => Unread::Damaged(format!("its piece {index} cannot be read: {why}")),
                Unread::Refused(why) => Unread::Refused(format!("its piece {index} cannot be read: {why}")),
            })?
            .ok_or_else(|| Unread::Damaged(format!("its piece {index} is missing")))?;
        let piece =
            record::decode(&key, &piece).map_err(|reason| Unread::Damaged(format!("its piece {index}: {reason}")))?;
        out.extend_from_slice(piece.payload);
    }
    if out.len() != chunks.bytes as usize || crc32fast::hash(&out) != chunks.crc {
        return Err("its pieces do not fit together".into());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_end_of_a_prefix() {
        assert_eq!(end_of(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(end_of(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(end_of(b"\xff"), None);
        assert_eq!(end_of(b""), None);
    }

    #[test]
    fn a_middle_lies_between() {
        for (low, high) in [(&b"a"[..], Some(&b"b"[..])), (b"", None), (b"doc/0001", Some(b"doc/0002")), (b"a", None)] {
            let middle = middle(low, high).unwrap();
            assert!(low < &middle[..] && high.is_none_or(|high| &middle[..] < high), "{low:?} {middle:?} {high:?}");
        }
        assert_eq!(middle(b"a", Some(b"a\0")), None);
    }
}
