//! Older formats are upgraded, newer ones refused.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use khufu_store::{Options, SledStore, Store, StoreError, Write};

fn old(dir: &Path) -> sled::Db {
    crate::raw(dir)
}

fn write_format_0(dir: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let db = old(dir);
    let mut records = Vec::new();
    for n in 0..300_u32 {
        let record = (format!("doc/{n:04}").into_bytes(), vec![n as u8; if n % 50 == 0 { 50_000 } else { 100 }]);
        db.insert(&record.0, &record.1[..]).unwrap();
        records.push(record);
    }
    db.flush().unwrap();
    records
}

#[test]
fn format_0_becomes_the_present_one() {
    let dir = tempfile::tempdir().unwrap();
    let records = write_format_0(dir.path());
    let store = crate::open(dir.path());
    assert_eq!(store.opening().upgraded_from, Some(0));
    assert_eq!(store.scan(b"").unwrap().records, records);
    drop(store);
    let store = crate::open(dir.path());
    assert_eq!(store.opening().upgraded_from, None);
    assert_eq!(store.scan(b"").unwrap().records, records);
    drop(store);
    assert!(old(dir.path()).is_empty(), "the old records are still there");
}

#[test]
fn an_interrupted_upgrade_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    let records = write_format_0(dir.path());
    let db = old(dir.path());
    // Half of an upgrade: some of the new records, one that is no more, and not yet the number of the format.
    let tree = db.open_tree("khufu-1").unwrap();
    tree.insert("rdoc/0001", "half").unwrap();
    tree.insert("rgone", "half").unwrap();
    db.flush().unwrap();
    drop((tree, db));
    let store = crate::open(dir.path());
    assert_eq!(store.scan(b"").unwrap().records, records);
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    crate::open(dir.path()).commit(vec![khufu_store::Write::put("a", "1")]).unwrap();
    let set = |version: u32| {
        let db = old(dir.path());
        db.open_tree("khufu-format").unwrap().insert("version", &version.to_le_bytes()).unwrap();
        db.flush().unwrap();
    };
    set(3);
    for error in [
        SledStore::open(dir.path(), Options::default()).unwrap_err(),
        SledStore::open_or_recover(dir.path(), Options::default()).map(|_| ()).unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::TooNew { found: 3, known: 2, .. }), "{error}");
    }
    set(2);
    assert_eq!(crate::open(dir.path()).get(b"a").unwrap(), Some(b"1".to_vec()));
}

/// What the fixtures hold. Never to be changed: later versions must find just this.
fn fixture_contents() -> Vec<(Vec<u8>, Vec<u8>)> {
    (0..40_u32)
        .filter(|n| n % 7 != 3)
        .map(|n| (format!("doc/{n:04}").into_bytes(), vec![n as u8; if n % 10 == 9 { 50_000 } else { n as usize * 5 }]))
        .collect()
}

fn fixture(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/format-{format}.tar.gz"))
}

#[test]
fn stores_that_earlier_versions_wrote_are_read() {
    let formats = [1, 2];
    for format in formats {
        let dir = tempfile::tempdir().unwrap();
        let mut tar = Command::new("tar").args(["-xz", "-C"]).arg(dir.path()).stdin(Stdio::piped()).spawn().unwrap();
        tar.stdin.take().unwrap().write_all(&std::fs::read(fixture(format)).unwrap()).unwrap();
        assert!(tar.wait().unwrap().success());
        let upgraded_from = (format < 2).then_some(format);
        let (store, recovery) = SledStore::open_or_recover(dir.path(), Options::default()).unwrap();
        assert_eq!(store.opening().upgraded_from, upgraded_from);
        assert!(recovery.is_clean(), "format {format}: {recovery:?}");
        assert_eq!(store.scan(b"").unwrap().records, fixture_contents(), "format {format}");
        store.commit(vec![Write::put("doc/0009", "new"), Write::delete("doc/0019")]).unwrap();
        drop(store);
        let store = crate::open(dir.path());
        assert_eq!(store.opening().upgraded_from, None, "format {format}");
        assert_eq!(store.get(b"doc/0009").unwrap(), Some(b"new".to_vec()));
        assert_eq!(store.scan(b"").unwrap().records.len(), fixture_contents().len() - 1);
    }
}

/// Run by hand, once for each format, before the first version that has it is released.
#[test]
#[ignore = "writes the fixture of the present format"]
fn write_fixture() {
    let dir = tempfile::tempdir().unwrap();
    let store = crate::open(dir.path());
    for (key, value) in fixture_contents() {
        // What is overwritten and deleted leaves its traces.
        store.commit(vec![Write::put(key.clone(), "before"), Write::put("gone", vec![1; 20_000])]).unwrap();
        store.commit(vec![Write::put(key, value), Write::delete("gone")]).unwrap();
    }
    // As it is, with what is only in the journal.
    let fixture = fixture(2);
    assert!(!fixture.exists(), "{} is there: a fixture is never replaced", fixture.display());
    std::fs::create_dir_all(fixture.parent().unwrap()).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["-cz", "--exclude=LOCK", "--owner=0", "--group=0", "-f"])
        .arg(&fixture)
        .arg("-C")
        .arg(dir.path())
        .arg(".");
    assert!(tar.status().unwrap().success());
    drop(store);
}
