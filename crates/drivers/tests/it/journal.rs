//! The journal, looked at from outside: syncs, damage, a full disk, and what an earlier version left behind.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use khufu_drivers::{Driver, DriverError, FilesDriver, Step, Work, digest};
use serde_json::json;

use crate::disk::Chance;
use crate::{append, replica, wait, write};

/// A driver that ends without a checkpoint, as one that is killed does, and what it synced.
struct Killed {
    dir: tempfile::TempDir,
    driver: Option<FilesDriver>,
    ends: Arc<AtomicBool>,
    syncs: Arc<Mutex<Vec<PathBuf>>>,
}

impl Killed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut this = Self { dir, driver: None, ends: Arc::default(), syncs: Arc::default() };
        this.start();
        this
    }

    fn start(&mut self) {
        self.ends.store(false, SeqCst);
        let (ends, syncs) = (self.ends.clone(), self.syncs.clone());
        let driver = FilesDriver::crashing(self.dir.path(), move |step, path| {
            if step == Step::Syncing {
                syncs.lock().unwrap().push(path.to_owned());
            }
            ends.load(SeqCst)
        });
        self.driver = Some(driver.unwrap());
        self.syncs.lock().unwrap().clear();
    }

    fn kill(&mut self) {
        self.ends.store(true, SeqCst);
        self.driver = None;
    }

    fn driver(&self) -> &FilesDriver {
        self.driver.as_ref().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    fn text(&self, id: &str) -> Option<String> {
        std::fs::read_to_string(self.path(id)).ok()
    }

    fn apply(&self, id: &str, work: Work) {
        wait(self.driver().apply(&replica(id), work)).unwrap();
    }

    fn drift(&self, id: &str) -> Option<String> {
        wait(self.driver().observe(&replica(id))).unwrap().drift
    }

    fn syncs(&self) -> Vec<PathBuf> {
        std::mem::take(&mut self.syncs.lock().unwrap())
    }
}

#[test]
fn a_change_is_one_sync_and_a_checkpoint_syncs_each_replica_once() {
    let f = Killed::new();
    let journal = f.path(".khufu/journal.a");
    for work in [write("a", "x"), append("b", "y"), Work::Desired(json!(1)), Work::Reset, append("c", "z")] {
        f.apply("web", work);
        assert_eq!(f.syncs(), [journal.as_path()]);
    }
    for n in 0..100 {
        f.apply("web", append(&n.to_string(), "x"));
    }
    f.apply("db", write("a", "x"));
    wait(f.driver().delete(&replica("gone"))).unwrap();
    assert_eq!(f.syncs().len(), 101);
    wait(f.driver().checkpoint()).unwrap();
    let notes = f.path(".khufu");
    let expected = [
        f.path("db"),
        f.path("web"),
        f.path(""),
        notes.join("db.json.tmp"),
        notes.join("web.json.tmp"),
        notes,
        journal,
    ];
    assert_eq!(f.syncs(), expected);
    wait(f.driver().checkpoint()).unwrap();
    assert_eq!(f.syncs().len(), 0, "there is nothing to do");
    wait(f.driver().delete(&replica("web"))).unwrap();
    assert_eq!(f.syncs(), [f.path(".khufu/journal.b")]);
}

#[test]
fn writes_at_once_share_syncs() {
    let f = Killed::new();
    let (driver, syncs) = (f.driver(), f.syncs.clone());
    std::thread::scope(|scope| {
        for thread in 0..16 {
            scope.spawn(move || {
                for n in 0..50 {
                    wait(driver.apply(&replica(&format!("r{thread}")), append(&n.to_string(), "x"))).unwrap();
                }
            });
        }
    });
    let syncs = syncs.lock().unwrap().len();
    assert!((50..800).contains(&syncs), "{syncs} for 800 writes");
    assert!((0..16).all(|thread| f.text(&format!("r{thread}")) == Some("x".repeat(50))));
}

#[test]
fn a_large_journal_is_settled_while_the_driver_works() {
    let f = Killed::new();
    let large = "x".repeat(1 << 20);
    for n in 0..40 {
        f.apply("web", write(&n.to_string(), &large));
    }
    f.apply("web", write("last", "short"));
    let end = Instant::now() + Duration::from_secs(60);
    while !f.path(".khufu/web.json").exists() {
        assert!(Instant::now() < end, "no checkpoint");
        std::thread::sleep(Duration::from_millis(5));
    }
    for name in ["journal.a", "journal.b"] {
        let bytes = f.path(".khufu").join(name).metadata().unwrap().len();
        assert!(bytes <= 24 << 20, "{name} has {bytes} bytes");
    }
    assert_eq!((f.text("web").as_deref(), f.drift("web")), (Some("short"), None));
}

#[test]
fn what_was_edited_by_hand_after_the_last_change_is_left_alone() {
    let mut f = Killed::new();
    for id in ["edited", "removed", "emptied", "as-before", "made"] {
        f.apply(id, write("a", "before"));
        f.apply(id, if id == "made" { Work::Reset } else { append("b", ", after") });
    }
    f.kill();
    for id in ["edited", "made"] {
        std::fs::write(f.path(id), "by hand").unwrap();
    }
    // These cannot be told from what a power loss leaves.
    std::fs::remove_file(f.path("removed")).unwrap();
    std::fs::write(f.path("emptied"), "").unwrap();
    std::fs::write(f.path("as-before"), "before").unwrap();
    f.start();
    for id in ["edited", "made"] {
        assert_eq!(f.text(id).as_deref(), Some("by hand"));
    }
    assert!(
        f.drift("edited").unwrap().contains("edited") && f.drift("made").unwrap().contains("not written from here")
    );
    for id in ["removed", "emptied", "as-before"] {
        assert_eq!((f.text(id).as_deref(), f.drift(id)), (Some("before, after"), None), "{id}");
    }
    // What was settled is not touched again, whatever it is then.
    f.kill();
    std::fs::write(f.path("as-before"), "before").unwrap();
    f.start();
    assert_eq!(f.text("as-before").as_deref(), Some("before"));
}

#[test]
fn what_a_note_says_is_on_the_disk_and_an_edit_since_was_made_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let driver = FilesDriver::crashing(dir.path(), |step, _| step == Step::NotesSettled).unwrap();
    for (id, text) in [("a", "before"), ("b", ", after")] {
        wait(driver.apply(&replica("web"), append(id, text))).unwrap();
    }
    wait(driver.checkpoint()).unwrap_err();
    drop(driver);
    // The journal still has it all.
    std::fs::write(dir.path().join("web"), "before").unwrap();
    let driver = FilesDriver::new(dir.path()).unwrap();
    let seen = wait(driver.observe(&replica("web"))).unwrap();
    assert_eq!((seen.digest, seen.marker), (Some(digest(b"before")), Some("b".parse().unwrap())));
    assert!(seen.drift.unwrap().contains("edited"));
}

#[test]
fn permissions_come_back_with_the_contents() {
    use std::os::unix::fs::PermissionsExt;
    let mut f = Killed::new();
    f.apply("web", write("a", "x"));
    std::fs::set_permissions(f.path("web"), std::fs::Permissions::from_mode(0o600)).unwrap();
    f.apply("web", write("b", "y"));
    f.kill();
    std::fs::remove_file(f.path("web")).unwrap();
    f.start();
    assert_eq!(f.text("web").as_deref(), Some("y"));
    assert_eq!(f.path("web").metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_change_that_failed_after_it_was_written_down_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web");
    let (armed, ends) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let hook = {
        let (path, armed, ends) = (path.clone(), armed.clone(), ends.clone());
        move |step, _: &Path| {
            if step == Step::Journaled && armed.load(SeqCst) {
                // Somebody puts a directory there.
                std::fs::remove_file(&path).unwrap();
                std::fs::create_dir(&path).unwrap();
            }
            ends.load(SeqCst)
        }
    };
    let driver = FilesDriver::crashing(dir.path(), hook).unwrap();
    wait(driver.apply(&replica("web"), write("a", "first"))).unwrap();
    armed.store(true, SeqCst);
    let error = wait(driver.apply(&replica("web"), append("b", ", second"))).unwrap_err();
    assert!(error.to_string().contains("directory where the file belongs"), "{error}");
    armed.store(false, SeqCst);
    std::fs::remove_dir(&path).unwrap();
    assert_eq!(wait(driver.observe(&replica("web"))).unwrap().marker, Some("a".parse().unwrap()));
    ends.store(true, SeqCst);
    drop(driver);
    let driver = FilesDriver::new(dir.path()).unwrap();
    let seen = wait(driver.observe(&replica("web"))).unwrap();
    assert_eq!((seen.marker, seen.digest), (Some("a".parse().unwrap()), Some(digest(b"first"))));
    wait(driver.apply(&replica("web"), append("b", ", second"))).unwrap();
    assert_eq!(std::fs::read_to_string(path).unwrap(), "first, second");
}

#[test]
fn of_two_journals_the_older_one_does_not_bring_back_what_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let ends = Arc::new(AtomicBool::new(false));
    let (settling, is_settling) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let killed = ends.clone();
    let driver = FilesDriver::crashing(dir.path(), move |step, _| {
        if step == Step::FilesSettled {
            settling.send(()).unwrap();
            may_go_on.lock().unwrap().recv().unwrap();
        }
        killed.load(SeqCst)
    });
    let driver = driver.unwrap();
    for id in ["web", "db"] {
        wait(driver.apply(&replica(id), write("a", "old"))).unwrap();
    }
    // Changes that come while a checkpoint is made go to the other journal.
    std::thread::scope(|scope| {
        let checkpoint = scope.spawn(|| wait(driver.checkpoint()));
        is_settling.recv().unwrap();
        wait(driver.delete(&replica("web"))).unwrap();
        wait(driver.apply(&replica("db"), append("b", ", new"))).unwrap();
        ends.store(true, SeqCst);
        go_on.send(()).unwrap();
        checkpoint.join().unwrap().unwrap_err();
    });
    drop(driver);
    // Killed again and again between the two.
    for _ in 0..3 {
        let opened = FilesDriver::crashing(dir.path(), |step, _| step == Step::Retired);
        assert!(opened.is_err() || there_is_nothing(&dir.path().join(".khufu")));
        assert!(!dir.path().join("web").exists());
        assert_eq!(std::fs::read_to_string(dir.path().join("db")).unwrap(), "old, new");
    }
}

#[test]
fn a_journal_that_was_emptied_is_so_on_the_disk_before_there_is_a_newer_one() {
    let mut f = Killed::new();
    f.apply("web", write("a", "old"));
    wait(f.driver().checkpoint()).unwrap();
    f.kill();
    f.syncs();
    // The process may have been killed before it synced that.
    let syncs = f.syncs.clone();
    let driver = FilesDriver::crashing(f.dir.path(), move |step, path| {
        if step == Step::Syncing {
            syncs.lock().unwrap().push(path.to_owned());
        }
        false
    });
    assert_eq!(f.syncs(), [f.path(".khufu/journal.a")]);
    drop(driver);
}

/// Both journals are empty.
fn there_is_nothing(notes: &Path) -> bool {
    ["journal.a", "journal.b"]
        .iter()
        .all(|name| std::fs::read(notes.join(name)).unwrap().iter().take(32).all(|byte| *byte == 0))
}

/// Twenty replicas that only the journal has.
fn only_journaled() -> (tempfile::TempDir, Vec<u8>) {
    let mut f = Killed::new();
    for n in 0..20 {
        f.apply(&format!("r{n}"), write("a", &format!("contents {n}, {}", "x".repeat(n * 7))));
    }
    let bytes = std::fs::read(f.path(".khufu/journal.a")).unwrap();
    f.kill();
    for n in 0..20 {
        std::fs::remove_file(f.path(&format!("r{n}"))).unwrap();
    }
    (f.dir, bytes)
}

fn there(dir: &Path) -> Vec<usize> {
    let is_there = |n: &usize| {
        let text = std::fs::read_to_string(dir.join(format!("r{n}")));
        text.is_ok_and(|text| text == format!("contents {n}, {}", "x".repeat(n * 7)))
    };
    (0..20).filter(is_there).collect()
}

fn fill(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_readable_of_a_damaged_journal_is_used() {
    let (dir, bytes) = only_journaled();
    let journal = dir.path().join(".khufu/journal.a");
    let records: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"Khu1")).collect();
    assert_eq!(records.len(), 20);
    let open = |bytes: &[u8]| {
        let copy = tempfile::tempdir().unwrap();
        std::fs::create_dir(copy.path().join(".khufu")).unwrap();
        fill(&copy.path().join(".khufu").join(journal.file_name().unwrap()), bytes);
        let driver = FilesDriver::new(copy.path()).unwrap();
        let there = there(copy.path());
        wait(driver.apply(&replica("after"), write("a", "it works"))).unwrap();
        drop(driver);
        let names = std::fs::read_dir(copy.path()).unwrap().count();
        // A note for each, what came after, and nothing else.
        assert_eq!(names, there.len() + 2);
        there
    };
    assert_eq!(open(&bytes).len(), 20);
    for nth in [0, 1, 7, 19] {
        let without: Vec<usize> = (0..20).filter(|n| *n != nth).collect();
        // In its mark, its length, its number, its sums, its entry, its contents.
        for at in [0, 4, 5, 6, 7, 8, 12, 16, 20, 24, 28, 60, 400] {
            let mut bytes = bytes.clone();
            let Some(byte) = bytes.get_mut(records[nth] + at) else { continue };
            if at == 400 && *byte != b'x' {
                continue;
            }
            *byte ^= 0x41;
            assert_eq!(open(&bytes), without, "{nth} {at}");
        }
        assert_eq!(open(&bytes[..records[nth]]), (0..nth).collect::<Vec<_>>());
        assert_eq!(open(&bytes[..records[nth] + 50]), (0..nth).collect::<Vec<_>>());
    }
    // Its header: nothing of it can be trusted.
    for at in [0, 9, 17, 25] {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        assert_eq!(open(&bytes).len(), 0);
    }
    // Records of another generation that lie behind its own.
    let (_dir, other) = only_journaled();
    let mixed = [&bytes[..records[5]], &other[records[5]..]].concat();
    assert_eq!(open(&mixed), (0..5).collect::<Vec<_>>());
}

#[test]
fn garbage_in_the_place_of_a_journal_does_no_harm() {
    let mut chance = Chance(7);
    let (_dir, good) = only_journaled();
    for round in 0..60 {
        let mut bytes = good.clone();
        match round % 3 {
            0 => bytes = (0..chance.below(9000)).map(|_| chance.below(256) as u8).collect(),
            // Huge lengths and numbers behind a good header, with sums that are right.
            1 => {
                bytes.truncate(32);
                for _ in 0..200 {
                    let length = [0, 3, 4, 1 << 20, 16 << 20, u32::MAX][chance.below(6)];
                    let mut head =
                        [b"Khu1".as_slice(), &length.to_le_bytes(), &u64::MAX.to_le_bytes(), &[0; 4]].concat();
                    let seed = &good[16..24];
                    let sum = crc32fast::hash(&[seed, &head].concat());
                    head.extend(sum.to_le_bytes());
                    bytes.extend(head);
                    bytes.extend(vec![0xff; 8 * chance.below(9)]);
                }
            }
            _ => {
                for _ in 0..40 {
                    let at = chance.below(6000);
                    bytes[at] = chance.below(256) as u8;
                }
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        std::fs::create_dir_all(inner.join(".khufu")).unwrap();
        fill(&inner.join(".khufu").join(["journal.a", "journal.b"][chance.below(2)]), &bytes);
        let driver = FilesDriver::new(&inner).unwrap_or_else(|error| panic!("round {round}: {error}"));
        wait(driver.apply(&replica("web"), append("new", "x"))).unwrap();
        assert_eq!(std::fs::read_to_string(inner.join("web")).unwrap(), "x");
        drop(driver);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

#[test]
fn an_id_that_leads_elsewhere_is_no_record() {
    let (dir, bytes) = only_journaled();
    // The same length, and a sum that is right.
    let records: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"Khu1")).collect();
    let (from, to) = (records[3], records[4]);
    let mut bytes = bytes;
    let at = from + bytes[from..to].windows(4).position(|some| some == b"\"r3\"").unwrap();
    bytes[at + 1..at + 3].copy_from_slice(b"..");
    let length = u32::from_le_bytes(bytes[from + 4..from + 8].try_into().unwrap()) as usize;
    let sum = crc32fast::hash(&bytes[from + 24..from + 24 + length]);
    bytes[from + 16..from + 20].copy_from_slice(&sum.to_le_bytes());
    let sum = crc32fast::hash(&[&bytes[16..24], &bytes[from..from + 20]].concat());
    bytes[from + 20..from + 24].copy_from_slice(&sum.to_le_bytes());
    fill(&dir.path().join(".khufu/journal.a"), &bytes);
    drop(FilesDriver::new(dir.path()).unwrap());
    assert_eq!(there(dir.path()), (0..20).filter(|n| *n != 3).collect::<Vec<_>>());
}

#[test]
fn what_is_no_file_is_no_journal() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    std::fs::write(&outside, "secret").unwrap();
    for name in ["journal.a", "journal.b"] {
        let inner = dir.path().join("inner");
        let journal = inner.join(".khufu").join(name);
        std::fs::create_dir_all(journal.parent().unwrap()).unwrap();
        let refused = || {
            let error = FilesDriver::new(&inner).unwrap_err();
            assert!(matches!(error, DriverError::Refused { .. }) && error.to_string().contains(name), "{error}");
        };
        std::os::unix::fs::symlink(&outside, &journal).unwrap();
        refused();
        std::fs::remove_file(&journal).unwrap();
        std::fs::create_dir(&journal).unwrap();
        refused();
        std::fs::remove_dir_all(&inner).unwrap();
    }
    assert_eq!(std::fs::read_to_string(outside).unwrap(), "secret");
}

#[test]
fn a_note_that_is_in_the_way_holds_up_nobody_else() {
    let f = Killed::new();
    f.apply("web", write("a", "x"));
    f.apply("db", write("a", "x"));
    std::fs::create_dir(f.path(".khufu/db.json")).unwrap();
    wait(f.driver().checkpoint()).unwrap();
    assert!(f.path(".khufu/web.json").exists());
    let error = wait(f.driver().observe(&replica("db"))).unwrap_err();
    assert!(error.to_string().contains("db.json"), "{error}");
}

#[test]
fn a_directory_of_the_version_before_opens() {
    let dir = tempfile::tempdir().unwrap();
    let notes = dir.path().join(".khufu");
    std::fs::create_dir(&notes).unwrap();
    let state = |text: Option<&str>, last: Option<&str>| json!({"last": last, "digest": text.map(|text| digest(text.as_bytes())), "edited": false});
    let note = |id: &str, before, after| {
        let note = json!({"version": 1, "number": 7, "before": before, "after": after});
        std::fs::write(notes.join(format!("{id}.json")), note.to_string()).unwrap();
    };
    let file = |id: &str, text: &str| std::fs::write(dir.path().join(id), text).unwrap();
    let (old, new) = (state(Some("old"), Some("a")), state(Some("new"), Some("b")));
    note("done", old.clone(), new.clone());
    file("done", "new");
    std::fs::write(notes.join("done.6.next"), "older").unwrap();
    note("pending", old.clone(), new.clone());
    file("pending", "old");
    std::fs::write(notes.join("pending.7.next"), "new").unwrap();
    note("first", state(None, None), new);
    std::fs::write(notes.join("first.7.next"), "new").unwrap();
    std::fs::write(notes.join("first.json.tmp"), "{").unwrap();
    note("removing", old.clone(), state(None, Some("b")));
    file("removing", "old");
    note("removed", old, state(None, Some("b")));
    note("not-ours", json!({"last": null, "digest": "", "edited": false}), state(None, None));
    file("not-ours", "by hand");
    let check = |driver: &FilesDriver| {
        for (id, text, marker) in [
            ("done", Some("new"), Some("b")),
            ("pending", Some("old"), Some("a")),
            ("first", None, None),
            ("removing", Some("old"), Some("a")),
            ("removed", None, Some("b")),
        ] {
            let seen = wait(driver.observe(&replica(id))).unwrap();
            assert_eq!(seen.digest, text.map(|text| digest(text.as_bytes())), "{id}");
            assert_eq!((seen.marker.map(String::from).as_deref(), seen.drift), (marker, None), "{id}");
        }
        assert!(wait(driver.observe(&replica("not-ours"))).unwrap().drift.unwrap().contains("not written from here"));
    };
    for _ in 0..2 {
        let driver = FilesDriver::new(dir.path()).unwrap();
        check(&driver);
        let names: Vec<_> = std::fs::read_dir(&notes).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let is_left =
            |name: &&std::ffi::OsString| [".next", ".tmp"].iter().any(|end| name.to_string_lossy().ends_with(end));
        assert!(!names.iter().any(|name| is_left(&name)), "{names:?}");
    }
    // A file that somebody makes now is not taken for the one that was removed.
    file("removed", "old");
    let driver = FilesDriver::new(dir.path()).unwrap();
    assert!(wait(driver.observe(&replica("removed"))).unwrap().drift.is_some());
    wait(driver.apply(&replica("pending"), append("c", ", and more"))).unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("pending")).unwrap(), "old, and more");
}
