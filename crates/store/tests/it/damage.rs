//! Files that were cut, flipped or lost.

use std::collections::BTreeMap;
use std::path::Path;

use khufu_store::{Options, Recovery, SledStore, Store, StoreError, Write};
use rand::{RngExt, SeedableRng, rngs::StdRng};

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

fn fill(dir: &Path) -> Contents {
    let store = crate::open(dir);
    let mut contents = Contents::new();
    for n in 0..60_u32 {
        let batch: Vec<_> = (0..10)
            .map(|m| {
                let key = format!("doc/{:04}", n * 10 + m).into_bytes();
                let size = if m == 3 { 20_000 } else { 200 };
                let value: Vec<u8> = (0..size).map(|at: u32| (at * 31 + n * 7 + m) as u8).collect();
                contents.insert(key.clone(), value.clone());
                Write::Put { key, value }
            })
            .collect();
        store.commit(batch).unwrap();
    }
    contents
}

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Opens what is left, and checks that nothing in it is wrong, that what is missing was told, and that it can be used.
fn recovers(dir: &Path, contents: &Contents, what: &str) -> (usize, Recovery) {
    let (store, recovery) =
        SledStore::open_or_recover(dir, Options::default()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let scan = store.scan(b"").unwrap();
    for (key, value) in &scan.records {
        assert!(contents.get(key) == Some(value), "{what}: {} is wrong", key.escape_ascii());
    }
    if scan.records.len() < contents.len() {
        assert!(!recovery.is_clean(), "{what}: {} of {} and not a word", scan.records.len(), contents.len());
    }
    store.commit(vec![Write::put("doc/9999", "new"), Write::put("doc/0000", "new")]).unwrap();
    assert_eq!(store.get(b"doc/9999").unwrap(), Some(b"new".to_vec()), "{what}");
    drop(store);
    let (store, again) = SledStore::open_or_recover(dir, Options::default()).unwrap();
    assert!(again.reason.is_empty(), "{what}: {again:?}");
    assert_eq!(store.get(b"doc/0000").unwrap(), Some(b"new".to_vec()), "{what}");
    // Also a process that only comes after the one that recovered it is told, until somebody has said that it is done.
    assert_eq!(again.unconfirmed, recovery.moved_to.is_some(), "{what}: {again:?}");
    store.confirm_recovery().unwrap();
    drop(store);
    let (_, last) = SledStore::open_or_recover(dir, Options::default()).unwrap();
    assert!(!last.unconfirmed, "{what}: {last:?}");
    (scan.records.len(), recovery)
}

#[test]
fn a_record_with_a_flipped_byte_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let contents = fill(dir.path());
    {
        let db = crate::raw(dir.path());
        let tree = db.open_tree("khufu-1").unwrap();
        let mut bytes = tree.get("rdoc/0100").unwrap().unwrap().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        tree.insert("rdoc/0100", bytes).unwrap();
        // A piece of a large value, too.
        let piece = tree.scan_prefix("c").keys().next().unwrap().unwrap();
        tree.remove(piece).unwrap();
        db.flush().unwrap();
    }
    let (store, recovery) = SledStore::open_or_recover(dir.path(), Options::default()).unwrap();
    let scan = store.scan(b"doc/").unwrap();
    assert_eq!(scan.records.len(), contents.len() - 2);
    let named: Vec<_> = scan.damaged.iter().map(|damaged| String::from_utf8(damaged.key.clone()).unwrap()).collect();
    assert_eq!(named, ["doc/0003", "doc/0100"]);
    assert_eq!(recovery.damaged, scan.damaged);
    assert_eq!((recovery.moved_to, recovery.reason.as_str()), (None, ""));
    let error = store.get(b"doc/0100").unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }) && error.to_string().contains("\"doc/0100\""), "{error}");
    // Both ways out: delete it, or write it again.
    store.commit(vec![Write::delete("doc/0003"), Write::put("doc/0100", "again")]).unwrap();
    assert_eq!(store.scan(b"doc/").unwrap().damaged, []);
    assert_eq!(store.get(b"doc/0100").unwrap(), Some(b"again".to_vec()));
}

#[test]
fn flipped_bytes_anywhere_lose_little_and_are_told() {
    let seed = std::env::var("KHUFU_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("seed {seed} (set KHUFU_SEED to repeat)");
    let mut random = StdRng::seed_from_u64(seed);
    let whole = tempfile::tempdir().unwrap();
    let contents = fill(whole.path());
    let rounds = std::env::var("KHUFU_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(12);
    let mut recovered = 0;
    for round in 0..rounds {
        let dir = tempfile::tempdir().unwrap();
        copy(whole.path(), dir.path());
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path().join("sled")).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.retain(|path| path.is_file());
        names.sort();
        let log = dir.path().join("sled/db");
        // Mostly the log, now and then one of the small files.
        let path = if random.random_bool(0.8) { &log } else { &names[random.random_range(0..names.len())] };
        let mut bytes = std::fs::read(path).unwrap();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..bytes.len());
            bytes[at] ^= 1 << random.random_range(0..8);
        }
        std::fs::write(path, bytes).unwrap();
        let (found, recovery) = recovers(dir.path(), &contents, &format!("round {round}, {path:?}"));
        assert!(found * 10 > contents.len() * 9, "round {round}: {found} of {}: {recovery:?}", contents.len());
        recovered += usize::from(!recovery.is_clean());
    }
    assert!(recovered > 0, "no flip was ever noticed");
}

#[test]
fn files_that_are_cut_or_gone_are_told() {
    let whole = tempfile::tempdir().unwrap();
    let contents = fill(whole.path());
    let cases: &[(&str, Option<f64>)] =
        &[("db", Some(0.9)), ("db", Some(0.5)), ("db", Some(0.0)), ("db", None), ("conf", Some(0.5)), ("conf", None)];
    for (name, left) in cases {
        let dir = tempfile::tempdir().unwrap();
        copy(whole.path(), dir.path());
        let path = dir.path().join("sled").join(name);
        match left {
            None => std::fs::remove_file(&path).unwrap(),
            Some(left) => {
                let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.set_len((file.metadata().unwrap().len() as f64 * left) as u64).unwrap();
            }
        }
        recovers(dir.path(), &contents, &format!("{name} {left:?}"));
    }
}

#[test]
fn a_store_that_cannot_be_opened_says_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let contents = fill(dir.path());
    std::fs::write(dir.path().join("sled/conf"), "this is not what sled wrote, by far").unwrap();
    let error = SledStore::open(dir.path(), Options::default()).unwrap_err();
    assert!(matches!(error, StoreError::CannotOpen { .. }), "{error}");
    assert!(error.to_string().contains("recovery") && error.to_string().contains(dir.path().to_str().unwrap()));
    let (found, recovery) = recovers(dir.path(), &contents, "conf");
    assert_eq!(found, contents.len(), "the records could all be read from the log: {recovery:?}");
    let moved = recovery.moved_to.unwrap();
    assert!(moved.ends_with("damaged-1") && moved.join("db").exists());
}

#[test]
fn an_interrupted_recovery_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let contents = fill(dir.path());
    // Interrupted between its two renames: the new store is there, and not in its place.
    std::fs::rename(dir.path().join("sled"), dir.path().join("sled.new")).unwrap();
    assert_eq!(crate::open(dir.path()).scan(b"").unwrap().records.len(), contents.len());
    // Interrupted before: the old one counts. So too where a new store was only being made.
    std::fs::create_dir(dir.path().join("sled.making")).unwrap();
    std::fs::create_dir(dir.path().join("sled.new")).unwrap();
    assert_eq!(crate::open(dir.path()).scan(b"").unwrap().records.len(), contents.len());
    assert!(!dir.path().join("sled.new").exists() && !dir.path().join("sled.making").exists());
}
