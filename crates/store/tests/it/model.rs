//! Any history of batches and restarts leaves what a map would hold.

use std::collections::BTreeMap;

use khufu_store::{
    MAX_BATCH_WRITES, MAX_KEY_BYTES, MAX_VALUE_BYTES, MemoryStore, Options, SledStore, Store, StoreError, Write,
};
use proptest::prelude::*;

use crate::open;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Write>),
    Restart,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (0_u8..40).prop_map(|n| format!("doc/{:02}", n).into_bytes()),
        1 => prop::collection::vec(prop_oneof![Just(0_u8), Just(255), any::<u8>()], 1..4),
        1 => Just(vec![b'k'; MAX_KEY_BYTES]),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    // Around the sizes at which a value is kept in one piece, and at which pieces end.
    let size =
        prop_oneof![8 => 0_usize..200, 1 => 8190_usize..8195, 1 => 16380_usize..16390, 1 => 30_000_usize..70_000];
    (size, any::<u8>()).prop_map(|(size, byte)| (0..size).map(|at| byte.wrapping_add((at / 7) as u8)).collect())
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        3 => (key(), value()).prop_map(|(key, value)| Write::Put { key, value }),
        1 => key().prop_map(|key| Write::Delete { key }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec(write(), 0..6).prop_map(Step::Commit),
        1 => Just(Step::Restart),
    ]
}

fn follow(model: &mut Model, writes: &[Write]) {
    for write in writes {
        match write.clone() {
            Write::Put { key, value } => model.insert(key, value),
            Write::Delete { key } => model.remove(&key),
        };
    }
}

fn agree(store: &impl Store, model: &Model) -> Result<(), TestCaseError> {
    let scan = store.scan(b"").unwrap();
    prop_assert_eq!(&scan.damaged, &vec![]);
    prop_assert_eq!(scan.records, model.clone().into_iter().collect::<Vec<_>>());
    for prefix in [&b"doc/"[..], b"doc/1", &[255], &[0], b"nothing"] {
        let expected: Vec<_> = model.clone().into_iter().filter(|(key, _)| key.starts_with(prefix)).collect();
        prop_assert_eq!(store.scan(prefix).unwrap().records, expected);
    }
    for (key, value) in model {
        prop_assert_eq!(store.get(key).unwrap(), Some(value.clone()));
    }
    prop_assert_eq!(store.get(b"never there").unwrap(), None);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn on_disk(steps in prop::collection::vec(step(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let mut model = Model::new();
        let mut store = open(dir.path());
        for step in steps {
            match step {
                Step::Commit(writes) => {
                    follow(&mut model, &writes);
                    store.commit(writes).unwrap();
                }
                Step::Restart => {
                    agree(&store, &model)?;
                    drop(store);
                    store = open(dir.path());
                    prop_assert_eq!(store.opening().rolled_back, None);
                }
            }
        }
        agree(&store, &model)?;
        drop(store);
        let (store, recovery) = SledStore::open_or_recover(dir.path(), Options::default()).unwrap();
        prop_assert!(recovery.is_clean(), "{recovery:?}");
        agree(&store, &model)?;
    }

    #[test]
    fn in_memory(steps in prop::collection::vec(step(), 1..40)) {
        let mut model = Model::new();
        let mut store = MemoryStore::new();
        for step in steps {
            match step {
                Step::Commit(writes) => {
                    follow(&mut model, &writes);
                    store.commit(writes).unwrap();
                }
                Step::Restart => {
                    let fork = store.fork();
                    store.commit(vec![Write::put("only in the other one", "")]).unwrap();
                    store = fork;
                }
            }
        }
        agree(&store, &model)?;
    }
}

#[test]
fn limits_are_named_and_leave_the_store_usable() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(dir.path());
    let memory = MemoryStore::new();
    for store in [&disk as &dyn Store, &memory] {
        let too_large = |writes: Vec<Write>| {
            let error = store.commit(writes).unwrap_err();
            assert!(matches!(error, StoreError::TooLarge { .. }) && error.is_refusal(), "{error}");
        };
        too_large(vec![Write::put("good", "x"), Write::put(vec![b'k'; MAX_KEY_BYTES + 1], "x")]);
        too_large(vec![Write::put("k", vec![0; MAX_VALUE_BYTES + 1])]);
        too_large(vec![Write::delete("k"); MAX_BATCH_WRITES + 1]);
        assert!(matches!(store.commit(vec![Write::put("", "x")]), Err(StoreError::EmptyKey)));
        assert_eq!(store.get(b"good").unwrap(), None, "a refused batch leaves nothing");
        store.commit(vec![Write::put("good", "y")]).unwrap();
        assert_eq!(store.get(b"good").unwrap(), Some(b"y".to_vec()));
    }
}

#[test]
fn a_large_value_comes_back_and_its_pieces_go_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n * 7 / 5) as u8).collect();
    // Twice in one group: the pieces of the first must go.
    store.commit(vec![Write::put("large", &large[1..]), Write::put("large", &large[..])]).unwrap();
    assert_eq!(store.get(b"large").unwrap().as_deref(), Some(&large[..]));
    assert!(std::fs::read_dir(dir.path().join("sled/blobs")).unwrap().next().is_none(), "sled made a blob");
    drop(store);
    let pieces = || {
        let db = crate::raw(dir.path());
        db.open_tree("khufu-1").unwrap().scan_prefix(b"c").count()
    };
    assert_eq!(pieces(), large.len().div_ceil(16 << 10));
    open(dir.path()).commit(vec![Write::delete("large")]).unwrap();
    assert_eq!(pieces(), 0);
}
