//! What the engine keeps on disk: the layout of keys.
//!
//! ```text
//! i/<id>                          index: epoch, kind, scope, placement, heads, status; read at start, all of them
//! d/<id>/<epoch>/s                snapshot of the document
//! d/<id>/<epoch>/c/<n>            raw changes since, in the order they came
//! a/<id>/<epoch>                  the last document of a closed epoch, for its history
//! d/<id>/w                        what this site has applied, and its intent
//! d/<id>/r/<site>                 the newest report of a site
//! m/...                           this node: clock, sequence numbers, sites it knows
//! ```
//! Numbers are big endian, so that keys sort as they count. Names hold no `/`.

/// A stored pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// What is stored and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// The key of a record; none where it is not known which it was.
    pub key: Option<Vec<u8>>,
    /// Which it is and what is wrong with it, for people.
    pub what: String,
}

/// One change of what is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Set a value.
    Put {
        /// Its key.
        key: Vec<u8>,
        /// The value.
        value: Vec<u8>,
    },
    /// Remove a value; nothing happens if there is none.
    Delete {
        /// Its key.
        key: Vec<u8>,
    },
}

impl Write {
    /// The key of the record.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

use khufu_crdt::{DocumentId, ReplicantId, SiteName};

pub(crate) const INDEX: &[u8] = b"i/";
pub(crate) const DOCUMENTS: &[u8] = b"d/";
pub(crate) const META: &[u8] = b"m/";
const NODE: &[u8] = b"m/node/";

pub(crate) fn index_key(id: &ReplicantId) -> Vec<u8> {
    [INDEX, id.as_str().as_bytes()].concat()
}

pub(crate) fn replicant_prefix(id: &ReplicantId) -> Vec<u8> {
    [b"d/", id.as_str().as_bytes(), b"/"].concat()
}

fn document_prefix(document: &DocumentId) -> Vec<u8> {
    [replicant_prefix(&document.replicant).as_slice(), &document.epoch.to_be_bytes(), b"/"].concat()
}

pub(crate) fn snapshot_key(document: &DocumentId) -> Vec<u8> {
    [document_prefix(document).as_slice(), b"s"].concat()
}

pub(crate) fn change_key(document: &DocumentId, number: u64) -> Vec<u8> {
    [document_prefix(document).as_slice(), b"c/", &number.to_be_bytes()].concat()
}

pub(crate) fn work_key(id: &ReplicantId) -> Vec<u8> {
    [replicant_prefix(id).as_slice(), b"w"].concat()
}

pub(crate) fn report_key(id: &ReplicantId, site: &SiteName) -> Vec<u8> {
    [replicant_prefix(id).as_slice(), b"r/", site.as_str().as_bytes()].concat()
}

/// What the keys of the archived epochs of a replicant start with.
pub(crate) fn archives_prefix(id: &ReplicantId) -> Vec<u8> {
    [b"a/", id.as_str().as_bytes(), b"/"].concat()
}

pub(crate) fn archive_key(id: &ReplicantId, epoch: u64) -> Vec<u8> {
    [archives_prefix(id).as_slice(), &epoch.to_be_bytes()].concat()
}

/// The epoch of an archived document, by what stands in its key after [`archives_prefix`].
pub(crate) fn archived_epoch(rest: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(rest.try_into().ok()?))
}

pub(crate) fn clock_key() -> Vec<u8> {
    b"m/clock".to_vec()
}

pub(crate) fn node_key(node: &str) -> Vec<u8> {
    [NODE, node.as_bytes()].concat()
}

/// What a record below [`replicant_prefix`] is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Snapshot { epoch: u64 },
    Change { epoch: u64, number: u64 },
    Work,
    Report,
}

impl Part {
    /// The epoch of the document that it is a part of.
    pub(crate) fn epoch(self) -> Option<u64> {
        match self {
            Self::Snapshot { epoch } | Self::Change { epoch, .. } => Some(epoch),
            Self::Work | Self::Report => None,
        }
    }
}

/// Tells what a record is by what stands in its key after [`replicant_prefix`].
pub(crate) fn part(rest: &[u8]) -> Option<Part> {
    if rest == b"w" {
        return Some(Part::Work);
    }
    // Tried before `r/`, which the eight bytes of an epoch could look like only if it were beyond any that is reached.
    if let Some((epoch, after)) = rest.split_first_chunk::<8>() {
        let epoch = u64::from_be_bytes(*epoch);
        if after == b"/s" {
            return Some(Part::Snapshot { epoch });
        }
        if let Some(number) = after.strip_prefix(b"/c/").and_then(|number| number.try_into().ok()) {
            return Some(Part::Change { epoch, number: u64::from_be_bytes(number) });
        }
    }
    rest.starts_with(b"r/").then_some(Part::Report)
}

/// Which replicant a record below [`DOCUMENTS`] belongs to, and the epoch of its document where the key tells.
pub(crate) fn owner(key: &[u8]) -> Option<(ReplicantId, Option<u64>)> {
    let rest = key.strip_prefix(DOCUMENTS)?;
    let end = rest.iter().position(|byte| *byte == b'/')?;
    let (name, rest) = rest.split_at(end);
    let id = ReplicantId::new(std::str::from_utf8(name).ok()?).ok()?;
    Some((id, part(rest.strip_prefix(b"/")?)?.epoch()))
}

/// Whether a record under [`META`] is that of a node.
pub(crate) fn is_node(key: &[u8]) -> bool {
    key.starts_with(NODE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart_and_sort_as_they_count() {
        let id = ReplicantId::new("web").unwrap();
        let document = DocumentId { replicant: id.clone(), epoch: 300 };
        let prefix = replicant_prefix(&id);
        let rest = |key: Vec<u8>| part(key.strip_prefix(prefix.as_slice()).unwrap());
        assert_eq!(rest(snapshot_key(&document)), Some(Part::Snapshot { epoch: 300 }));
        assert_eq!(rest(change_key(&document, 9)), Some(Part::Change { epoch: 300, number: 9 }));
        assert_eq!(rest(work_key(&id)), Some(Part::Work));
        assert_eq!(rest(report_key(&id, &SiteName::new("paris-and-more").unwrap())), Some(Part::Report));
        assert_eq!(owner(&change_key(&document, 9)), Some((id.clone(), Some(300))));
        assert_eq!(owner(&work_key(&id)), Some((id.clone(), None)));
        assert_eq!(owner(&index_key(&id)), None);
        assert!(change_key(&document, 255) < change_key(&document, 256));
        assert!(!index_key(&ReplicantId::new("web2").unwrap()).starts_with(&replicant_prefix(&id)));
    }
}
