//! A store whose log was cut short or has other bytes in places: it opens, and invents nothing.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use khufu_store::{Options, SledStore, Store, Write};
use libfuzzer_sys::fuzz_target;

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A store as it was, and every value that each of its keys ever had.
struct Base {
    files: Files,
    had: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
}

fn options() -> Options {
    Options::default().segment_bytes(64 << 10).keep_free_bytes(0)
}

fn scratch() -> PathBuf {
    Path::new("/dev/shm").join(format!("khufu-fuzz-{}", std::process::id()))
}

fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| {
        let dir = scratch().join("base");
        let _ = fs::remove_dir_all(&dir);
        let store = SledStore::open(&dir, options()).expect("a new store");
        let mut had = BTreeMap::<Vec<u8>, BTreeSet<Vec<u8>>>::new();
        for n in 0..60_usize {
            let (key, size) = (format!("doc/{:02}", n % 25), if n % 10 == 3 { 30_000 } else { n * 7 % 300 });
            let value = vec![n as u8; size];
            had.entry(key.clone().into_bytes()).or_default().insert(value.clone());
            let mut batch = vec![Write::put(key, value)];
            if n % 9 == 8 {
                batch.push(Write::delete(format!("doc/{:02}", n % 20)));
            }
            store.commit(batch).expect("it is stored");
        }
        // As a crash leaves it: with much that is only in the journal.
        let mut files = Files::new();
        collect(&dir, &dir, &mut files);
        files.remove(Path::new("LOCK"));
        drop(store);
        Base { files, had }
    })
}

fn collect(dir: &Path, below: &Path, files: &mut Files) {
    for entry in fs::read_dir(below).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(dir, &path, files);
        } else {
            let name = path.strip_prefix(dir).expect("it is below").to_owned();
            files.insert(name, fs::read(&path).expect("it can be read"));
        }
    }
}

/// Each part is a change of one file: where, and what is there instead. One of no length cuts it off there.
fn damage(input: &[u8], files: &mut Files) {
    let names: Vec<_> = files.keys().cloned().collect();
    for (kind, part) in khufu_fuzz::split(input).into_iter().take(8) {
        let name = match kind {
            0..=127 => Path::new("sled/db"),
            128..=191 => Path::new("journal"),
            other => &names[usize::from(other) % names.len()],
        };
        let (Some(file), Some((place, bytes))) = (files.get_mut(name), part.split_first_chunk::<4>()) else { continue };
        if file.is_empty() {
            continue;
        }
        let at = u32::from_le_bytes(*place) as usize % file.len();
        if bytes.is_empty() {
            file.truncate(at);
        }
        file.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
    }
}

fuzz_target!(|input: &[u8]| khufu_fuzz::run(|| {
    let base = base();
    let mut files = base.files.clone();
    damage(input, &mut files);
    let dir = scratch().join("run");
    let _ = fs::remove_dir_all(&dir);
    for (name, bytes) in &files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("it can be made");
        fs::write(path, bytes).expect("it can be written");
    }
    let found = match SledStore::open_or_recover(&dir, options()) {
        Ok((store, _)) => {
            let scan = store.scan(b"").expect("the store is open");
            for (key, value) in &scan.records {
                let had = base
                    .had
                    .get(key)
                    .unwrap_or_else(|| panic!("{:?} was never written", key.escape_ascii().to_string()));
                assert!(had.contains(value), "{:?} never had this value", key.escape_ascii().to_string());
            }
            for damaged in &scan.damaged {
                store
                    .commit(vec![Write::delete(damaged.key.clone())])
                    .or_else(|error| match error.is_refusal() {
                        true => Ok(()),
                        false => Err(error),
                    })
                    .expect("what is damaged can be deleted");
            }
            store.commit(vec![Write::put("after", "1")]).expect("it goes on");
            scan.records
        }
        // Told from damage: the number says that a newer version wrote it.
        Err(khufu_store::StoreError::TooNew { .. }) => return,
        Err(error) => panic!("it does not open: {error}"),
    };
    let (store, recovery) = SledStore::open_or_recover(&dir, options()).expect("it opens again");
    assert!(recovery.reason.is_empty(), "after a recovery all is well: {recovery:?}");
    let mut again = store.scan(b"").expect("the store is open").records;
    again.retain(|(key, _)| key != b"after");
    assert!(again == found, "what was found stays");
}));
