//! Where other nodes were met: kept on disk, so that a node finds them again without a bootstrap address.
//!
//! ```text
//! n/<peer id>    {"addresses": [...], "seen_at": milliseconds since 1970}
//! ```

use std::collections::BTreeMap;

use khufu_engine::Write;
use serde::{Deserialize, Serialize};

/// What the keys start with. The engine uses none that does.
pub(crate) const PREFIX: &[u8] = b"n/";
/// Nodes that are remembered; those not met for the longest time are forgotten first.
const MAX_NODES: usize = 256;
/// Addresses that are remembered of one node.
const MAX_ADDRESSES: usize = 8;
/// A time of meeting is written again only after so long.
const REFRESH_MS: u64 = 3_600_000;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    addresses: Vec<String>,
    seen_at: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Book(BTreeMap<String, Entry>);

impl Book {
    /// Reads what was stored. What cannot be read is left out: it is only a help.
    pub(crate) fn restore(records: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Self {
        let entry = |(key, value): (Vec<u8>, Vec<u8>)| {
            let peer = String::from_utf8(key.strip_prefix(PREFIX)?.to_vec()).ok()?;
            Some((peer, serde_json::from_slice(&value).ok()?))
        };
        Self(records.into_iter().filter_map(entry).collect())
    }

    /// All addresses, with peer ids, those of nodes met last first.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let mut entries: Vec<&Entry> = self.0.values().collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.seen_at));
        entries.into_iter().flat_map(|entry| entry.addresses.iter().cloned()).collect()
    }

    /// Notes where a node says it is. Answers what to store; nothing if that is known already.
    pub(crate) fn note(&mut self, peer: &str, mut addresses: Vec<String>, now_ms: u64) -> Vec<Write> {
        addresses.sort();
        addresses.dedup();
        addresses.truncate(MAX_ADDRESSES);
        if addresses.is_empty() {
            return Vec::new();
        }
        let fresh = self
            .0
            .get(peer)
            .is_some_and(|known| known.addresses == addresses && now_ms.saturating_sub(known.seen_at) < REFRESH_MS);
        if fresh {
            return Vec::new();
        }
        let entry = Entry { addresses, seen_at: now_ms };
        let Ok(value) = serde_json::to_vec(&entry) else { return Vec::new() };
        self.0.insert(peer.to_owned(), entry);
        let mut writes = vec![Write::Put { key: key(peer), value }];
        while self.0.len() > MAX_NODES {
            let oldest = self.0.iter().min_by_key(|(_, entry)| entry.seen_at).map(|(peer, _)| peer.clone());
            let Some(oldest) = oldest else { break };
            self.0.remove(&oldest);
            writes.push(Write::Delete { key: key(&oldest) });
        }
        writes
    }
}

fn key(peer: &str) -> Vec<u8> {
    [PREFIX, peer.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pairs(writes: Vec<Write>) -> Vec<(Vec<u8>, Vec<u8>)> {
        let put = |write| match write {
            Write::Put { key, value } => (key, value),
            Write::Delete { .. } => panic!("a delete"),
        };
        writes.into_iter().map(put).collect()
    }

    #[test]
    fn what_is_noted_comes_back_and_is_not_written_twice() {
        let mut book = Book::default();
        let mut stored = pairs(book.note("A", vec!["/ip4/10.0.0.1/tcp/1/p2p/A".into()], 5));
        assert!(book.note("A", vec!["/ip4/10.0.0.1/tcp/1/p2p/A".into()], 6).is_empty());
        stored.extend(pairs(book.note("B", vec!["/ip4/10.0.0.2/tcp/1/p2p/B".into()], 7)));
        stored.push((b"n/C".to_vec(), b"garbage".to_vec()));
        let book = Book::restore(stored);
        assert_eq!(book.addresses(), ["/ip4/10.0.0.2/tcp/1/p2p/B", "/ip4/10.0.0.1/tcp/1/p2p/A"]);
    }

    #[test]
    fn the_book_is_bounded() {
        let mut book = Book::default();
        for n in 0..=MAX_NODES as u64 {
            let writes = book.note(&format!("peer{n}"), vec![format!("/ip4/10.0.0.1/tcp/{n}")], n);
            assert_eq!(writes.len(), if n == MAX_NODES as u64 { 2 } else { 1 });
        }
        assert_eq!(book.0.len(), MAX_NODES);
        assert!(!book.0.contains_key("peer0"));
    }
}
