//! The stores for tests do what they say.

use std::sync::{Arc, Mutex};

use khufu_store::{Fault, FaultyStore, MemoryStore, Store, StoreError, Write};

fn put(key: &str) -> Vec<Write> {
    vec![Write::put(key, "value")]
}

#[test]
fn a_damaged_record_is_named_and_the_others_are_usable() {
    let store = MemoryStore::new();
    store.commit(vec![Write::put("a", "1"), Write::put("b", "2"), Write::put("c", "3")]).unwrap();
    assert!(store.flip(b"b", 1234));
    assert!(!store.flip(b"d", 0));
    let scan = store.scan(b"").unwrap();
    assert_eq!(scan.records.len(), 2);
    assert_eq!(scan.damaged.iter().map(|damaged| &damaged.key[..]).collect::<Vec<_>>(), [b"b"]);
    let error = store.get(b"b").unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { key, .. } if key.0 == b"b"), "{error}");
    store.commit(vec![Write::put("b", "again")]).unwrap();
    assert_eq!(store.get(b"b").unwrap(), Some(b"again".to_vec()));
}

#[test]
fn faults_hit_the_commit_they_were_meant_for() {
    let store = FaultyStore::new(MemoryStore::new());
    store.fail(2, Fault::DiskFull);
    store.fail(4, Fault::Kept);
    store.commit(put("1")).unwrap();
    assert!(matches!(store.commit(put("2")), Err(StoreError::DiskFull { .. })));
    store.commit(put("3")).unwrap();
    assert!(matches!(store.commit(put("4")), Err(StoreError::Io { .. })));
    assert!(matches!(store.commit(put("5")), Err(StoreError::Poisoned { .. })));
    let kept: Vec<_> = store.scan(b"").unwrap().records.into_iter().map(|(key, _)| key).collect();
    assert_eq!(kept, [b"1", b"3", b"4"]);

    let store = FaultyStore::new(MemoryStore::new());
    store.fail(1, Fault::Lost);
    assert!(matches!(store.commit(put("1")), Err(StoreError::Io { .. })));
    assert!(matches!(store.commit(put("2")), Err(StoreError::Poisoned { .. })));
    assert_eq!(store.stats().commits, 0);
}

#[test]
fn a_crash_keeps_a_prefix_of_what_was_not_synced() {
    let memory = MemoryStore::new();
    let store = FaultyStore::new(memory.clone());
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let submit = |n: u8| {
        let acknowledged = acknowledged.clone();
        store.submit(
            put(&n.to_string()),
            Box::new(move |result| acknowledged.lock().unwrap().push((n, result.is_ok()))),
        );
    };
    store.hold();
    (1..=2).for_each(submit);
    assert_eq!((store.held(), acknowledged.lock().unwrap().len()), (2, 0));
    store.release();
    assert_eq!(*acknowledged.lock().unwrap(), [(1, true), (2, true)]);
    store.hold();
    (3..=5).for_each(submit);
    store.crash(1);
    submit(6);
    assert_eq!(*acknowledged.lock().unwrap(), [(1, true), (2, true), (6, false)]);
    assert!(matches!(store.get(b"1"), Err(StoreError::Closed)));
    assert!(matches!(store.scan(b"1"), Err(StoreError::Closed)));
    let kept: Vec<_> = memory.scan(b"").unwrap().records.into_iter().map(|(key, _)| key).collect();
    assert_eq!(kept, [b"1", b"2", b"3"]);
}

#[test]
fn what_waits_shares_the_fate_of_the_sync_that_fails() {
    let store = FaultyStore::new(MemoryStore::new());
    let (tell, told) = std::sync::mpsc::channel();
    store.hold();
    store.submit(put("1"), Box::new(move |result| tell.send(result).unwrap()));
    store.fail(1, Fault::Lost);
    assert!(store.commit(put("2")).is_err());
    assert!(matches!(told.recv().unwrap(), Err(StoreError::Io { .. })));
    assert_eq!(store.held(), 0);
}
