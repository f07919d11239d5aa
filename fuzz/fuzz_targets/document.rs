//! Documents: what is loaded from the disk, changes and sync messages of others.
#![no_main]

use std::sync::OnceLock;

use khufu_crdt::{Actor, DocumentId, Replicant, SiteName, SyncState};
use khufu_fuzz::{split, two_sites};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};

fn id() -> DocumentId {
    DocumentId { replicant: "web".parse().expect("an id"), epoch: 0 }
}

fn snapshot() -> &'static [u8] {
    static SNAPSHOT: OnceLock<Vec<u8>> = OnceLock::new();
    SNAPSHOT.get_or_init(|| {
        let stored = two_sites().0.stored;
        let found = stored.into_iter().find(|(key, _)| key.starts_with(b"d/web/") && key.ends_with(b"/s"));
        found.expect("a snapshot").1
    })
}

/// Makes the checksums of the chunks right, so that what lies behind that check is reached.
fn mend(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + 9) {
        let kind = header[8];
        let (mut length, mut shift, mut end) = (0_usize, 0, at + 9);
        loop {
            let Some(byte) = bytes.get(end) else { return };
            length |= usize::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            (shift, end) = (shift + 7, end + 1);
            if byte & 0x80 == 0 || shift > 28 {
                break;
            }
        }
        let Some(whole) = end.checked_add(length).and_then(|last| bytes.get(at + 8..last)) else { return };
        if kind != 2 {
            let hash = Sha256::digest(whole);
            bytes[at + 4..at + 8].copy_from_slice(&hash[..4]);
        }
        at = end + length;
    }
}

/// Looks at everything that a document shows.
fn look(doc: &Replicant) {
    let state = doc.state();
    let _ = doc.effective(&SiteName::new("paris").expect("a name"));
    let _ = khufu_crdt::resolve(&state.operations, &state.policy);
    let _ = (doc.conflicts(), doc.history(), doc.missing(), doc.queued(), doc.heads());
}

fuzz_target!(|input: &[u8]| khufu_fuzz::run(|| {
    let (mut stored, mut changes, mut remote, mut messages) = (None, Vec::new(), Vec::new(), Vec::new());
    for (kind, part) in split(input).into_iter().take(64) {
        let mut bytes = part.to_vec();
        if kind & 0x80 != 0 {
            mend(&mut bytes);
        }
        match kind & 0x03 {
            0 => stored = Some(bytes),
            1 => changes.push(bytes),
            2 => remote.push(bytes),
            _ => messages.push(bytes),
        }
    }
    let (actor, other) = (Actor::new([1; 16]), Actor::new([2; 16]));
    let loaded = Replicant::load(id(), &actor, stored.as_deref(), &changes).expect("damage is named, not refused");
    let mut doc = loaded.replicant;
    look(&doc);
    let _ = doc.apply(&remote);
    look(&doc);
    let mut sync = SyncState::default();
    for message in &messages {
        let _ = doc.sync_message(&mut sync);
        if doc.receive_sync(&mut sync, message).is_err() {
            sync = SyncState::default();
        }
    }
    look(&doc);
    // What is saved is what there is.
    let (saved, queued) = (doc.save(), doc.queued());
    let queued: Vec<_> = queued.into_iter().map(|change| change.bytes).collect();
    let again = Replicant::load(id(), &other, Some(&saved), &queued).expect("it can be loaded");
    assert_eq!(again.damaged, Vec::<String>::new());
    assert_eq!((again.replicant.heads(), again.replicant.digest()), (doc.heads(), doc.digest()));
    // It comes together with the document of another.
    let mut theirs = Replicant::load(id(), &other, Some(snapshot()), &[]).expect("it can be loaded").replicant;
    let (mut ours_state, mut theirs_state) = (SyncState::default(), SyncState::default());
    for _ in 0..20 {
        let to_them = doc.sync_message(&mut ours_state);
        let to_us = theirs.sync_message(&mut theirs_state);
        if to_them.is_none() && to_us.is_none() {
            break;
        }
        for message in to_them.iter() {
            theirs.receive_sync(&mut theirs_state, message).expect("our own message is one");
        }
        for message in to_us.iter() {
            doc.receive_sync(&mut ours_state, message).expect("their message is one");
        }
    }
    look(&theirs);
}));
