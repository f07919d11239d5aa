//! What is read back of a journal, whatever happened to it.

#![allow(clippy::unwrap_used)]
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;

use super::*;
use crate::files::note;
use crate::files::record::Kind;

struct Fixture {
    _dir: tempfile::TempDir,
    place: Place,
    journal: Journal,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path(), Hook::default()).unwrap();
        let journal = Journal::new(Files::open(&place).unwrap().unwrap(), 1).unwrap();
        Self { _dir: dir, place, journal }
    }
}

fn entry(id: &str) -> Entry {
    let state = note::State::default();
    Entry { id: id.parse().unwrap(), number: 1, kind: Kind::Written, found: None, mode: None, state }
}

#[test]
fn all_who_wait_share_the_next_sync_and_its_failure() {
    for fails in [false, true] {
        let f = Fixture::new();
        let syncs = AtomicU64::new(0);
        let (begun, has_begun) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let good = std::thread::scope(|scope| {
            let (journal, syncs) = (&f.journal, &syncs);
            let first = scope.spawn(move || {
                journal.append_by(&entry("first"), b"x", |_| {
                    begun.send(()).unwrap();
                    may_go_on.recv().map_err(io::Error::other)
                })
            });
            has_begun.recv().unwrap();
            let later: Vec<_> = (0..8)
                .map(|n| {
                    scope.spawn(move || {
                        journal.append_by(&entry(&format!("later-{n}")), b"x", |file| {
                            syncs.fetch_add(1, SeqCst);
                            if fails { Err(io::Error::other("no")) } else { file.sync_data() }
                        })
                    })
                })
                .collect();
            while journal.state().in_line < 9 {
                std::thread::yield_now();
            }
            go_on.send(()).unwrap();
            first.join().unwrap().unwrap();
            later.into_iter().map(|thread| thread.join().unwrap()).filter(Result::is_ok).count()
        });
        assert_eq!((good, syncs.into_inner()), (if fails { 0 } else { 8 }, 1));
        // After a failure nobody knows what is on the disk: nothing is written any more.
        let next = f.journal.append(&entry("next"), b"x");
        let over = f.journal.turn_over();
        if fails {
            let error = next.unwrap_err().to_string();
            assert!(error.contains("cannot sync") && error.contains("journal.a: no"), "{error}");
            assert!(over.is_err() && f.journal.retire().is_err());
        } else {
            next.unwrap();
            assert_eq!(over.unwrap().unwrap().len(), 10);
        }
    }
}

#[test]
fn a_driver_that_has_ended_holds_up_no_other_though_a_process_that_is_started_still_has_its_files() {
    let f = Fixture::new();
    let inherited = f.journal.files.files[0].try_clone().unwrap();
    assert!(Files::open(&f.place).unwrap().is_none());
    let Fixture { _dir: dir, place, journal } = f;
    drop(journal);
    assert!(Files::open(&place).unwrap().is_some());
    drop((inherited, dir));
}

#[test]
fn what_is_answered_was_synced_after_it_was_written() {
    let f = Fixture::new();
    let path = f.place.own("journal.a");
    let durable = Mutex::new(Vec::new());
    let turns = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (journal, path, durable, turns) = (&f.journal, &path, &durable, &turns);
            scope.spawn(move || {
                for n in 0..50 {
                    let text = format!("<{thread} {n}>");
                    let sync = |_: &File| {
                        turns.fetch_add(1, SeqCst);
                        *durable.lock().unwrap() = std::fs::read(path)?;
                        Ok(())
                    };
                    journal.append_by(&entry(&format!("r{thread}")), text.as_bytes(), sync).unwrap();
                    let durable = durable.lock().unwrap();
                    assert!(durable.windows(text.len()).any(|some| some == text.as_bytes()), "{text}");
                }
            });
        }
    });
    assert!(turns.into_inner() <= 400);
}

#[test]
fn a_checkpoint_is_due_by_bytes_replicas_or_time() {
    let f = Fixture::new();
    let due = || f.journal.state().due_in();
    assert_eq!(due(), None);
    f.journal.append(&entry("web"), b"x").unwrap();
    assert!(due().unwrap() > WANTS_AFTER / 2 && due().unwrap() <= WANTS_AFTER);
    f.journal.state().since = Instant::now().checked_sub(WANTS_AFTER);
    assert_eq!(due(), Some(Duration::ZERO));
    f.journal.turn_over().unwrap().unwrap();
    f.journal.retire().unwrap();
    assert_eq!(due(), None);
    f.journal.append(&entry("web"), &vec![b'x'; WANTS_BYTES as usize]).unwrap();
    assert_eq!(due(), Some(Duration::ZERO));
    f.journal.turn_over().unwrap().unwrap();
    f.journal.state().touched = (0..WANTS_REPLICAS).map(|n| format!("r{n}").parse().unwrap()).collect();
    assert_eq!(due(), Some(Duration::ZERO));
}

#[test]
fn who_finds_no_room_waits_or_is_told_why() {
    let f = Fixture::new();
    let large = vec![b'x'; WAIT_BYTES as usize];
    f.journal.append(&entry("web"), &large).unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| f.journal.wait_for_room());
        f.journal.turn_over().unwrap().unwrap();
        waits.join().unwrap().unwrap();
    });
    for _ in 0..3 {
        f.journal.append(&entry("web"), &large).unwrap();
    }
    f.journal.is_stuck(DriverError::invalid("space", "there is none"));
    assert!(f.journal.wait_for_room().unwrap_err().to_string().contains("there is none"));
    let error = f.journal.append(&entry("web"), &large).unwrap_err();
    assert!(matches!(error, DriverError::Unavailable { .. }), "{error}");
    assert!(f.place.own("journal.b").metadata().unwrap().len() <= MAX_BYTES);
}
