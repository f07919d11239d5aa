//! Bytes that nobody should have sent: never a panic, never a loss.

use khufu_crdt::{Limits, OperationId, Payload, Replicant, SyncState};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;

use crate::document_sites::{Site, actor, id, two};

/// A document with something of everything, and one that has less.
fn documents() -> (Site, Site) {
    let (mut a, mut b) = two(json!({"a": {"b": [1, "x", {"name": "n"}]}, "list": [{"name": "p", "v": 1.5}]}));
    a.set(json!({"a": {"b": [2, "x"]}, "list": [{"name": "q"}, {"name": "p", "v": null}]}));
    b.set(json!({"a": {"b": [3]}, "list": [{"name": "q", "w": 1}]}));
    let at = a.author();
    a.doc.operate(&at, OperationId::new("o").unwrap(), "t", Payload::default(), vec![], false).unwrap();
    (a, b)
}

/// Whatever was tried: the document reads as before or has taken good changes, is saved and loaded, and syncs.
fn unharmed(mut doc: Replicant, with: &mut Replicant) {
    readable(&mut doc);
    let (mut a, mut b) = (SyncState::default(), SyncState::default());
    for _ in 0..20 {
        if let Some(message) = doc.sync_message(&mut a) {
            with.receive_sync(&mut b, &message).unwrap();
        }
        if let Some(message) = with.sync_message(&mut b) {
            doc.receive_sync(&mut a, &message).unwrap();
        }
    }
    assert_eq!(doc.heads(), with.heads());
    assert_eq!(doc.digest(), with.digest());
}

/// What was taken can be read, saved and loaded.
fn readable(doc: &mut Replicant) {
    _ = doc.conflicts();
    _ = doc.history();
    let saved = doc.save();
    let loaded = Replicant::load(id(), &actor(77), Some(&saved), &[]).unwrap();
    assert_eq!(loaded.damaged, Vec::<String>::new());
    assert_eq!(loaded.replicant.digest(), doc.digest());
}

fn mutate(bytes: &mut Vec<u8>, edits: &[(Index, u8, u8)]) {
    for (at, kind, value) in edits {
        if bytes.is_empty() {
            return;
        }
        let at = at.index(bytes.len());
        match kind % 4 {
            0 => bytes[at] ^= value,
            1 => bytes.truncate(at),
            2 => bytes.insert(at, *value),
            _ => _ = bytes.remove(at),
        }
    }
}

/// Makes the checksum right again, so that what is behind it is reached.
fn forge(chunk: &mut [u8]) {
    use sha2::Digest;
    if chunk.len() > 10 {
        let sum = sha2::Sha256::digest(&chunk[8..]);
        chunk[4..8].copy_from_slice(&sum[..4]);
    }
}

fn edits() -> impl Strategy<Value = Vec<(Index, u8, u8)>> {
    prop::collection::vec((any::<Index>(), any::<u8>(), any::<u8>()), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(100), ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_refused(noise in prop::collection::vec(any::<u8>(), 0..200), magic: bool) {
        let mut bytes = if magic { vec![0x85, 0x6f, 0x4a, 0x83] } else { vec![] };
        bytes.extend(noise);
        let (mut a, _) = documents();
        let before = a.doc.digest();
        let received = a.doc.apply(std::slice::from_ref(&bytes)).unwrap();
        prop_assert_eq!((received.new.len(), received.rejected.len()), (0, 1));
        _ = a.doc.receive_sync(&mut SyncState::default(), &bytes);
        prop_assert_eq!(a.doc.digest(), before);
        let loaded = Replicant::load(id(), &actor(5), Some(&bytes), std::slice::from_ref(&bytes)).unwrap();
        prop_assert!(!loaded.damaged.is_empty());
    }

    #[test]
    fn a_changed_change_is_refused_or_harmless(which: Index, edits in edits(), forged: bool) {
        let (mut a, b) = documents();
        let theirs = b.doc.changes_since(&a.doc.heads());
        let all = b.doc.changes_since(&[]);
        let mut bytes = which.get(&all).bytes.clone();
        mutate(&mut bytes, &edits);
        if forged {
            forge(&mut bytes);
        }
        _ = a.doc.apply(&[bytes.clone()]).unwrap();
        _ = a.doc.state();
        _ = a.doc.conflicts();
        // Together with good ones it costs none of these, whichever comes first.
        let mut batch = vec![bytes];
        batch.extend(theirs.iter().map(|change| change.bytes.clone()));
        _ = a.doc.apply(&batch).unwrap();
        readable(&mut a.doc);
        // A good forgery takes the place of the change it was made from: only signatures could tell.
        if !forged {
            for change in theirs {
                prop_assert!(a.doc.has(&change.hash));
            }
            let mut fresh = Replicant::genesis(id(), &actor(8)).unwrap();
            unharmed(a.doc, &mut fresh);
        }
    }

    #[test]
    fn a_changed_snapshot_is_refused_or_harmless(edits in edits(), forged: bool) {
        let (mut a, b) = documents();
        let mut bytes = a.doc.save();
        mutate(&mut bytes, &edits);
        if forged {
            forge(&mut bytes);
        }
        let mut loaded = Replicant::load(id(), &actor(5), Some(&bytes), &[]).unwrap().replicant;
        readable(&mut loaded);
        let mut with = b.doc;
        unharmed(loaded, &mut with);
    }

    #[test]
    fn a_changed_message_is_refused_or_harmless(edits in edits(), later: bool) {
        let (a, mut b) = documents();
        let (mut of_a, mut of_b) = (SyncState::default(), SyncState::default());
        let mut message = a.doc.sync_message(&mut of_a).unwrap();
        if later {
            b.doc.receive_sync(&mut of_b, &message).unwrap();
            let mut a = a.doc.clone();
            let answer = b.doc.sync_message(&mut of_b).unwrap();
            a.receive_sync(&mut of_a, &answer).unwrap();
            message = a.sync_message(&mut of_a).unwrap();
        }
        mutate(&mut message, &edits);
        _ = b.doc.receive_sync(&mut of_b, &message);
        _ = b.doc.sync_message(&mut of_b);
        _ = b.doc.state();
        let mut with = a.doc;
        unharmed(b.doc, &mut with);
    }
}

fn cases(default: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(default)
}

#[test]
fn a_change_that_stands_for_too_much_is_refused_before_it_is_unpacked() {
    let (mut a, mut b) = two(json!([]));
    b.set(json!(vec![0; 5000]));
    let large = b.doc.changes_since(&a.doc.heads()).remove(0);
    a.doc = a.doc.with_limits(Limits { max_change_ops: 1000, ..Limits::default() });
    let received = a.doc.apply(std::slice::from_ref(&large.bytes)).unwrap();
    assert!(received.rejected[0].contains("1000"), "{received:?}");
    a.doc = a.doc.with_limits(Limits::default());
    a.doc.apply(&[large.bytes]).unwrap();
    assert_eq!(a.desired(), b.desired());
}

#[test]
fn what_waits_is_bounded() {
    let (mut a, mut b) = two(json!({"n": 0}));
    a.doc = a.doc.with_limits(Limits { max_queued: 3, ..Limits::default() });
    for n in 1..8 {
        b.set(json!({ "n": n }));
    }
    let news = b.doc.changes_since(&a.doc.heads());
    let tail: Vec<Vec<u8>> = news[1..].iter().map(|change| change.bytes.clone()).collect();
    let received = a.doc.apply(&tail).unwrap();
    assert_eq!((received.new.len(), received.rejected.len()), (3, 3));
    assert!(received.rejected[0].contains("no room"), "{received:?}");
    let mut with = b.doc;
    unharmed(a.doc, &mut with);
}

/// Some of these Automerge takes, and cannot load again once it has saved them.
#[test]
fn a_forgery_that_is_taken_does_not_spoil_what_is_saved() {
    let (a, b) = documents();
    let good = b.doc.change(&b.doc.heads()[0]).unwrap().bytes;
    let (mut taken, mut refused) = (0, 0);
    for at in 8..good.len() {
        for bit in [0x01, 0x40] {
            let mut doc = a.doc.clone();
            let mut bytes = good.clone();
            bytes[at] ^= bit;
            forge(&mut bytes);
            let received = doc.apply(&[bytes]).unwrap();
            taken += received.new.len();
            refused += received.rejected.len();
            readable(&mut doc);
        }
    }
    assert!(taken > 10 && refused > 10, "{taken} {refused}");
}
