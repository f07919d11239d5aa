//! Older formats are upgraded, newer ones refused.

use std::path::Path;

use khufu_store::{Options, SledStore, Store, StoreError};

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
fn format_0_becomes_format_1() {
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
    set(2);
    for error in [
        SledStore::open(dir.path(), Options::default()).unwrap_err(),
        SledStore::open_or_recover(dir.path(), Options::default()).map(|_| ()).unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::TooNew { found: 2, known: 1, .. }), "{error}");
    }
    set(1);
    assert_eq!(crate::open(dir.path()).get(b"a").unwrap(), Some(b"1".to_vec()));
}
