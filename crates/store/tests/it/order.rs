//! What is acknowledged was synced before, and what was synced had been handed to the system before.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};

use khufu_store::{DiskSteps, Options, SledStore, Store, StoreError, SyncFiles, Write};

#[derive(Debug, Default)]
struct Recorder {
    files: SyncFiles,
    events: Mutex<Vec<String>>,
    needle: Mutex<Vec<u8>>,
}

impl Recorder {
    fn note(&self, event: impl Into<String>) {
        self.events.lock().unwrap().push(event.into());
    }

    /// Notes whether what was put last is in a file.
    fn find(&self, place: &str, path: &Path) {
        let needle = self.needle.lock().unwrap().clone();
        let written = std::fs::read(path).unwrap().windows(needle.len().max(1)).any(|part| part == needle);
        self.note(format!("{}{place}", if written { "" } else { "not " }));
    }
}

impl DiskSteps for Recorder {
    fn flushed(&self, dir: &Path) {
        self.find("in the log", &dir.join("db"));
    }
    fn sync(&self, dir: &Path) -> io::Result<()> {
        self.note("sync");
        self.files.sync(dir)?;
        self.note("synced");
        Ok(())
    }
    fn sync_journal(&self, path: &Path, journal: &File) -> io::Result<()> {
        self.find("in the journal", path);
        self.note("sync");
        self.files.sync_journal(path, journal)?;
        self.note("synced");
        Ok(())
    }
    fn acknowledged(&self, batches: usize) {
        self.note(format!("acknowledge {batches}"));
    }
}

#[test]
fn written_then_synced_then_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let steps = Arc::new(Recorder::default());
    let store = SledStore::open(dir.path(), Options::default().steps(steps.clone())).unwrap();
    for round in 0..20 {
        // Small ones are in the journal, large ones are sled's alone.
        let (filler, place) = if round % 4 == 3 { (9000, "in the log") } else { (10, "in the journal") };
        let needle = format!("the needle of round {round}");
        let value = format!("{}{needle}", "-".repeat(filler));
        *steps.needle.lock().unwrap() = needle.into_bytes();
        steps.events.lock().unwrap().clear();
        let noted = steps.clone();
        let (tell, told) = std::sync::mpsc::channel();
        store.submit(
            vec![Write::put("key", value)],
            Box::new(move |result| {
                noted.note("done");
                tell.send(result).unwrap();
            }),
        );
        told.recv().unwrap().unwrap();
        let events = steps.events.lock().unwrap().clone();
        let done = events.iter().position(|event| event == "done").unwrap();
        let written = events.iter().position(|event| event == place).unwrap();
        assert!(written < done, "{events:?}");
        assert_eq!(events[written..written + 3], [place, "sync", "synced"]);
        assert_eq!(events[done - 1], "acknowledge 1");
        assert!(done > written + 3, "{events:?}");
    }
}

#[derive(Debug, Default)]
struct Gate {
    files: SyncFiles,
    closed: Mutex<bool>,
    changed: Condvar,
    waiting: AtomicUsize,
}

impl Gate {
    fn set(&self, closed: bool) {
        *self.closed.lock().unwrap() = closed;
        self.changed.notify_all();
    }
}

impl Gate {
    fn pass(&self) {
        let mut closed = self.closed.lock().unwrap();
        self.waiting.fetch_add(1, SeqCst);
        self.changed.notify_all();
        while *closed {
            closed = self.changed.wait(closed).unwrap();
        }
    }
}

impl DiskSteps for Gate {
    fn sync(&self, dir: &Path) -> io::Result<()> {
        self.pass();
        self.files.sync(dir)
    }
    fn sync_journal(&self, path: &Path, journal: &File) -> io::Result<()> {
        self.pass();
        self.files.sync_journal(path, journal)
    }
}

#[test]
fn what_waits_is_committed_together_and_acknowledged_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    let store = SledStore::open(dir.path(), Options::default().steps(gate.clone())).unwrap();
    let before = store.stats();
    gate.set(true);
    let opened = gate.waiting.load(SeqCst);
    let order = Arc::new(Mutex::new(Vec::new()));
    let submit = |n: u32| {
        let order = order.clone();
        let done = Box::new(move |result: Result<(), StoreError>| order.lock().unwrap().push((n, result.is_ok())));
        // One of them is refused; it keeps its place.
        let key = if n == 30 { String::new() } else { format!("key/{n:03}") };
        store.submit(vec![Write::put(key, "x")], done);
    };
    submit(0);
    let mut closed = gate.closed.lock().unwrap();
    while gate.waiting.load(SeqCst) == opened {
        closed = gate.changed.wait(closed).unwrap();
    }
    drop(closed);
    (1..=100).for_each(submit);
    assert_eq!(*order.lock().unwrap(), [], "nothing is acknowledged before the sync");
    gate.set(false);
    store.commit(vec![Write::put("last", "x")]).unwrap();
    assert_eq!(*order.lock().unwrap(), (0..=100).map(|n| (n, n != 30)).collect::<Vec<_>>());
    let after = store.stats();
    assert_eq!(after.commits - before.commits, 101);
    assert_eq!(after.writes - before.writes, 101);
    assert!(after.syncs - before.syncs <= 3, "{after:?}");
    assert_eq!(store.scan(b"key/").unwrap().records.len(), 100);
}

#[derive(Debug, Default)]
struct Failing {
    files: SyncFiles,
    error: Mutex<Option<io::ErrorKind>>,
    broken: AtomicBool,
}

impl DiskSteps for Failing {
    fn sync(&self, dir: &Path) -> io::Result<()> {
        self.fail()?;
        self.files.sync(dir)
    }
    fn sync_journal(&self, path: &Path, journal: &File) -> io::Result<()> {
        self.fail()?;
        self.files.sync_journal(path, journal)
    }
}

impl Failing {
    fn fail(&self) -> io::Result<()> {
        if let Some(kind) = self.error.lock().unwrap().take() {
            self.broken.store(true, SeqCst);
            return Err(kind.into());
        }
        Ok(())
    }
}

#[test]
fn after_a_failed_sync_nothing_is_taken_and_nothing_acknowledged_is_lost() {
    for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
        let dir = tempfile::tempdir().unwrap();
        let steps = Arc::new(Failing::default());
        let store = SledStore::open(dir.path(), Options::default().steps(steps.clone())).unwrap();
        store.commit(vec![Write::put("kept", "1")]).unwrap();
        *steps.error.lock().unwrap() = Some(kind);
        let error = store.commit(vec![Write::put("kept", "2"), Write::put("with it", "2")]).unwrap_err();
        match kind {
            io::ErrorKind::StorageFull => assert!(matches!(error, StoreError::DiskFull { .. }), "{error}"),
            _ => assert!(matches!(error, StoreError::Io { .. }), "{error}"),
        }
        let error = store.commit(vec![Write::put("later", "3")]).unwrap_err();
        assert!(matches!(error, StoreError::Poisoned { .. }) && !error.is_refusal(), "{error}");
        assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
        drop(store);
        let store = crate::open(dir.path());
        let kept = store.get(b"kept").unwrap();
        let with_it = store.get(b"with it").unwrap();
        assert!(matches!((kept.as_deref(), with_it.as_deref()), (Some(b"1"), None) | (Some(b"2"), Some(b"2"))));
        assert_eq!(store.get(b"later").unwrap(), None);
        store.commit(vec![Write::put("later", "4")]).unwrap();
    }
}

#[test]
fn a_disk_that_is_nearly_full_refuses_puts_and_takes_them_when_there_is_room_again() {
    let dir = tempfile::tempdir().unwrap();
    crate::open(dir.path()).commit(vec![Write::put("a", "1")]).unwrap();
    // More than any disk has stands for a disk without space.
    let store = SledStore::open(dir.path(), Options::default().keep_free_bytes(1 << 60)).unwrap();
    let error = store.commit(vec![Write::put("b", "2")]).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }) && error.is_refusal(), "{error}");
    assert!(error.to_string().contains(store.dir().to_str().unwrap()), "{error}");
    store.commit(vec![Write::delete("a")]).unwrap();
    drop(store);
    let store = crate::open(dir.path());
    store.commit(vec![Write::put("b", "2")]).unwrap();
    assert_eq!(store.scan(b"").unwrap().records.len(), 1);
}

#[test]
fn dropping_the_store_finishes_what_was_submitted() {
    let dir = tempfile::tempdir().unwrap();
    let store = crate::open(dir.path());
    let done = Arc::new(AtomicUsize::new(0));
    for n in 0..50 {
        let done = done.clone();
        let count = move |result: Result<(), StoreError>| {
            result.unwrap();
            done.fetch_add(1, SeqCst);
        };
        store.submit(vec![Write::put(format!("{n}"), "x")], Box::new(count));
    }
    drop(store);
    assert_eq!(done.load(SeqCst), 50);
    assert_eq!(crate::open(dir.path()).scan(b"").unwrap().records.len(), 50);
}

#[test]
fn a_callback_may_submit_and_may_panic() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(crate::open(dir.path()));
    let (tell, told) = std::sync::mpsc::channel();
    let again = store.clone();
    store.submit(
        vec![Write::put("a", "1")],
        Box::new(move |_| again.submit(vec![Write::put("b", "1")], Box::new(move |result| tell.send(result).unwrap()))),
    );
    told.recv().unwrap().unwrap();
    store.submit(vec![Write::put("c", "1")], Box::new(|_| panic!("on purpose")));
    store.commit(vec![Write::put("d", "1")]).unwrap();
    assert_eq!(store.scan(b"").unwrap().records.len(), 4);
}
