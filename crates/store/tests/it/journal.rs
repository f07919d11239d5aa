//! What is acknowledged and only in the journal.

use std::collections::BTreeMap;
use std::path::Path;

use khufu_store::{Options, SledStore, Store, StoreError, Write};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::damage::copy;

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

fn contents(store: &SledStore) -> Contents {
    let scan = store.scan(b"").unwrap();
    assert_eq!(scan.damaged, []);
    for (key, value) in &scan.records {
        assert_eq!(store.get(key).unwrap().as_ref(), Some(value));
    }
    scan.records.into_iter().collect()
}

fn random() -> StdRng {
    let seed = std::env::var("KHUFU_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("seed {seed} (set KHUFU_SEED to repeat)");
    StdRng::seed_from_u64(seed)
}

/// The directory as a process that is killed now leaves it.
fn crash(dir: &Path) -> tempfile::TempDir {
    let left = tempfile::tempdir().unwrap();
    copy(dir, left.path());
    left
}

#[test]
fn a_small_batch_costs_one_sync_and_is_there_after_a_crash() {
    let mut random = random();
    let dir = tempfile::tempdir().unwrap();
    let store = crate::open(dir.path());
    let mut model = Contents::new();
    let (mut small, mut crashes) = (0, 0);
    let begun = store.stats();
    for n in 0..600_u32 {
        let mut batch = Vec::new();
        for _ in 0..random.random_range(1..5) {
            let key = format!("key/{:02}", random.random_range(0..40)).into_bytes();
            if random.random_bool(0.8) {
                // Now and then one that is cut in pieces, in the place of a small one and the other way round.
                let size = if random.random_bool(0.01) { 20_000 } else { random.random_range(0..900) };
                let value = vec![n as u8; size];
                model.insert(key.clone(), value.clone());
                batch.push(Write::put(key, value));
            } else {
                model.remove(&key);
                batch.push(Write::delete(key));
            }
        }
        small += u64::from(batch.iter().all(|write| write.bytes() < 8000));
        store.commit(batch).unwrap();
        assert_eq!(contents(&store), model);
        if random.random_bool(0.1) {
            crashes += 1;
            let left = crash(dir.path());
            let (after, recovery) = SledStore::open_or_recover(left.path(), Options::default()).unwrap();
            assert!(recovery.is_clean(), "{recovery:?}");
            assert_eq!(contents(&after), model, "after {n}");
            // And once more, from what was made of it.
            after.commit(vec![Write::put("more", "more")]).unwrap();
            let again = crash(left.path());
            assert_eq!(contents(&crate::open(again.path())).len(), model.len() + 1);
        }
    }
    let syncs = store.stats().syncs - begun.syncs;
    // A checkpoint now and then, and three syncs for a batch with pieces.
    let large = 600 - small;
    assert!(syncs <= small + large * 4 + 12, "{syncs} syncs for {small} small and {large} large batches");
    assert!(crashes > 20);
    drop(store);
    assert_eq!(contents(&crate::open(dir.path())), model);
}

#[test]
fn damage_in_the_journal_is_told_and_loses_no_other_group() {
    let mut random = random();
    let dir = tempfile::tempdir().unwrap();
    let store = crate::open(dir.path());
    store.commit(vec![Write::put("settled", vec![1; 10_000])]).unwrap();
    let mut ends = Vec::new();
    let used = |dir: &Path| {
        let bytes = std::fs::read(dir.join("journal")).unwrap();
        bytes[..bytes.len() - 8].iter().rposition(|byte| *byte != 0).unwrap() + 1
    };
    for n in 0..20_u32 {
        store
            .commit(vec![Write::put(format!("key/{n:02}"), vec![0xff; 60]), Write::put("last", n.to_string())])
            .unwrap();
        ends.push(used(dir.path()));
    }
    for round in 0..60 {
        let left = crash(dir.path());
        let path = left.path().join("journal");
        let mut bytes = std::fs::read(&path).unwrap();
        let at = random.random_range(0..ends[19]);
        let hit = ends.iter().position(|end| at < *end).unwrap();
        let cut = round % 4 == 0;
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << random.random_range(0..8);
        }
        std::fs::write(&path, bytes).unwrap();
        let (store, recovery) = SledStore::open_or_recover(left.path(), Options::default()).unwrap();
        let hits = if cut { "cut" } else { "flipped" };
        println!("{hits} at {at}: {recovery:?}");
        let rolled_back = recovery.rolled_back.unwrap_or_else(|| panic!("{at}: {recovery:?}"));
        assert!(rolled_back.found < rolled_back.acknowledged);
        let found = contents(&store);
        for n in 0..20 {
            let there = found.contains_key(format!("key/{n:02}").as_bytes());
            assert_eq!(there, if cut { n < hit } else { n != hit }, "{n}, {at} is in {hit}, cut: {cut}");
        }
        assert_eq!(found[&b"settled"[..]].len(), 10_000);
        let last = match hit {
            0 if cut => None,
            _ if cut => Some(hit - 1),
            19 => Some(18),
            _ => Some(19),
        };
        let last = last.map(|last| last.to_string().into_bytes());
        assert_eq!(found.get(&b"last"[..]), last.as_ref());
        // It goes on, and what is written now counts.
        store.commit(vec![Write::put("last", "new")]).unwrap();
        let again = crash(left.path());
        let again = SledStore::open_or_recover(again.path(), Options::default()).unwrap().0;
        assert_eq!(again.get(b"last").unwrap(), Some(b"new".to_vec()));
    }
}

#[test]
fn what_is_in_the_journal_is_newer_than_what_is_found_in_a_damaged_log() {
    let dir = tempfile::tempdir().unwrap();
    let store = crate::open(dir.path());
    for n in 0..100_u32 {
        store.commit(vec![Write::put(format!("key/{n:02}"), vec![b'o'; 9000])]).unwrap();
    }
    for n in 0..40_u32 {
        store.commit(vec![Write::put(format!("key/{n:02}"), "new")]).unwrap();
    }
    for n in 40..50_u32 {
        store.commit(vec![Write::delete(format!("key/{n:02}"))]).unwrap();
    }
    for name in ["sled/db", "sled/conf"] {
        let left = crash(dir.path());
        let path = left.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let half = bytes.len() / 2;
        bytes[half..].fill(0x5a);
        std::fs::write(&path, bytes).unwrap();
        let (store, recovery) = SledStore::open_or_recover(left.path(), Options::default()).unwrap();
        assert!(!recovery.is_clean(), "{name}");
        for n in 0..50_u32 {
            let key = format!("key/{n:02}").into_bytes();
            let expected = (n < 40).then(|| b"new".to_vec());
            assert_eq!(store.get(&key).unwrap(), expected, "{name}: {n}");
            assert!(!recovery.stale.contains(&key), "{name}: {n}");
        }
    }
}

#[test]
fn a_journal_of_anything_is_no_harm() {
    let mut random = random();
    let dir = tempfile::tempdir().unwrap();
    let model = Contents::from([(b"a".to_vec(), b"1".to_vec())]);
    crate::open(dir.path()).commit(vec![Write::put("a", "1")]).unwrap();
    for round in 0..20 {
        let left = crash(dir.path());
        let length = if round % 2 == 0 { 512 << 10 } else { random.random_range(0..100_000) };
        let mut bytes: Vec<u8> = (0..length).map(|_| random.random()).collect();
        // Something that begins like a group, with any length.
        bytes.splice(0..bytes.len().min(4), *b"KhJ1");
        std::fs::write(left.path().join("journal"), bytes).unwrap();
        let (store, recovery) = SledStore::open_or_recover(left.path(), Options::default()).unwrap();
        assert!(recovery.is_clean(), "{recovery:?}");
        assert_eq!(contents(&store), model);
    }
}

#[test]
fn what_was_in_the_journal_before_helps_where_the_log_has_lost_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = crate::open(dir.path());
    for n in 0..40_u32 {
        store
            .commit(vec![Write::put(format!("key/{n:02}"), vec![n as u8; 200]), Write::put("last", n.to_string())])
            .unwrap();
    }
    store.commit(vec![Write::delete("key/07")]).unwrap();
    drop(store);
    // All of it is in the log now, and the log loses it.
    let log = dir.path().join("sled/db");
    let mut bytes = std::fs::read(&log).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[1000..=end].fill(0);
    std::fs::write(&log, bytes).unwrap();
    let (store, recovery) = SledStore::open_or_recover(dir.path(), Options::default()).unwrap();
    assert!(recovery.moved_to.is_some() && recovery.rolled_back.is_some(), "{recovery:?}");
    // The first group is the one that was begun to be written over.
    for n in 1..40_u32 {
        let expected = (n != 7).then(|| vec![n as u8; 200]);
        assert_eq!(store.get(format!("key/{n:02}").as_bytes()).unwrap(), expected, "{n}");
    }
    assert_eq!(store.get(b"last").unwrap(), Some(b"39".to_vec()));
    assert!(recovery.stale.contains(&b"last"[..]), "it may be older than what the log had");
}

#[test]
fn damage_in_the_journal_brings_nothing_back_that_was_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let store = crate::open(dir.path());
    // More than one record has room for the names of.
    let key = |n: u32| format!("{n:04}/{}", "k".repeat(60));
    for n in 0..400 {
        store.commit(vec![Write::put(key(n), "old")]).unwrap();
    }
    for n in 0..400 {
        store.commit(vec![Write::delete(key(n))]).unwrap();
    }
    drop(store);
    let store = crate::open(dir.path());
    for n in 0..3 {
        store.commit(vec![Write::put(format!("new/{n}"), "new")]).unwrap();
    }
    let damaged = |name: &str, places: &dyn Fn(usize) -> std::ops::Range<usize>| {
        let left = crash(dir.path());
        let path = left.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let end = bytes[..bytes.len() - 8].iter().rposition(|byte| *byte != 0).unwrap();
        bytes[places(end)].fill(0x5a);
        std::fs::write(&path, bytes).unwrap();
        let (store, recovery) = SledStore::open_or_recover(left.path(), Options::default()).unwrap();
        assert!(!recovery.is_clean(), "{name}");
        let found = contents(&store);
        let back = found.keys().filter(|key| !key.starts_with(b"new/")).count();
        (back, found.len() - back)
    };
    // The second of the three groups; sled has all that it had.
    assert_eq!(damaged("journal", &|_| 60..64), (0, 2));
    // The end of the log.
    let (back, new) = damaged("sled/db", &|end| end - 200..end);
    assert!(back <= 4, "{back} are back");
    assert_eq!(new, 3);
}

#[test]
fn a_store_is_opened_on_a_full_disk_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let store = crate::open(dir.path());
    for n in 0..30_u32 {
        store.commit(vec![Write::put(format!("key/{n:02}"), vec![n as u8; 100])]).unwrap();
    }
    let left = crash(dir.path());
    // More than any disk has stands for a disk without space.
    {
        let full = SledStore::open(left.path(), Options::default().keep_free_bytes(1 << 60)).unwrap();
        assert_eq!(contents(&full).len(), 30);
        assert!(matches!(full.commit(vec![Write::put("a", "1")]), Err(StoreError::DiskFull { .. })));
        full.commit(vec![Write::delete("key/00")]).unwrap();
        full.commit(vec![Write::put("key/00", vec![0; 100])]).unwrap_err();
        let again = crash(left.path());
        assert_eq!(contents(&crate::open(again.path())).len(), 29);
        std::mem::forget(full);
        let next = crash(left.path());
        let (store, recovery) = SledStore::open_or_recover(next.path(), Options::default()).unwrap();
        assert!(recovery.is_clean(), "{recovery:?}");
        store.commit(vec![Write::put("b", "2")]).unwrap();
        assert_eq!(contents(&store).len(), 30);
    }
}

#[test]
fn many_who_commit_and_submit_at_once_are_all_told() {
    let dir = tempfile::tempdir().unwrap();
    let told = std::sync::atomic::AtomicUsize::new(0);
    let told = std::sync::Arc::new(told);
    for round in 0..5 {
        let store = crate::open(dir.path());
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (store, told) = (&store, told.clone());
                scope.spawn(move || {
                    for n in 0..120_u32 {
                        let key = format!("{round}/{thread}/{n:03}");
                        if thread % 2 == 0 {
                            store.commit(vec![Write::put(key.clone(), vec![7; 700])]).unwrap();
                            assert!(store.get(key.as_bytes()).unwrap().is_some());
                            told.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        } else {
                            let told = told.clone();
                            let count = move |result: Result<(), StoreError>| {
                                result.unwrap();
                                told.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                            };
                            store.submit(vec![Write::put(key, vec![7; 700])], Box::new(count));
                        }
                    }
                });
            }
        });
        // Some still wait.
        drop(store);
        assert_eq!(told.load(std::sync::atomic::Ordering::SeqCst), (round + 1) * 480);
    }
    assert_eq!(contents(&crate::open(dir.path())).len(), 5 * 480);
}
