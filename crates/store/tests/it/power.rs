//! A power loss: of what was written since the last sync, any pages may have reached the disk and any not.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use khufu_store::{DiskSteps, Options, SledStore, Store, Write};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

const PAGE: usize = 4096;

type Files = BTreeMap<PathBuf, Vec<u8>>;
type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

fn read(dir: &Path) -> Files {
    let mut files = Files::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                files.insert(path.strip_prefix(dir).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// A state that the disk may be in when the power fails after some of the writes that lead from one to the other.
fn torn(random: &mut StdRng, synced: &Files, written: &Files) -> Files {
    let mut torn = Files::new();
    let names: std::collections::BTreeSet<_> = synced.keys().chain(written.keys()).collect();
    // Names of one directory come and go in the order in which that was asked for: sled gives a new snapshot its name before
    // it removes the old one.
    let has_come = random.random::<bool>();
    let has_gone = has_come && random.random();
    for name in names {
        let is_snapshot = name.to_string_lossy().starts_with("sled/snap.");
        let (old, new) = match (synced.get(name), written.get(name)) {
            (Some(old), Some(new)) => (&old[..], &new[..]),
            (Some(_), None) if is_snapshot && has_gone => continue,
            (None, Some(_)) if is_snapshot && !has_come => continue,
            (Some(one), None) | (None, Some(one)) if is_snapshot => (&[][..], &one[..]),
            // A name that came or went since: either may have happened.
            (Some(one), None) | (None, Some(one)) => {
                if random.random() {
                    continue;
                }
                (&[][..], &one[..])
            }
            (None, None) => continue,
        };
        // Of this file alone sled makes sure itself, before it gives it its name.
        if is_snapshot {
            torn.insert(name.clone(), if new.is_empty() { old.to_vec() } else { new.to_vec() });
            continue;
        }
        // The length is one or the other; a page that never came is what it was, or zeros.
        let length = if random.random() { old.len() } else { new.len() };
        let mut bytes = old.to_vec();
        bytes.resize(length, 0);
        let often = random.random_range(0.0..=1.0);
        for (n, page) in bytes.chunks_mut(PAGE).enumerate() {
            let from = new.get(n * PAGE..).unwrap_or_default();
            if random.random_bool(often) {
                let len = page.len().min(from.len());
                page[..len].copy_from_slice(&from[..len]);
            }
        }
        torn.insert(name.clone(), bytes);
    }
    torn
}

#[derive(Debug)]
struct PowerLoss {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    random: StdRng,
    synced: Files,
    before: Contents,
    after: Contents,
    segment_bytes: usize,
    tried: u32,
    failures: Vec<String>,
}

impl DiskSteps for PowerLoss {
    fn sync(&self, dir: &Path) -> io::Result<()> {
        if !dir.ends_with("sled") {
            // Before it is in its place, a power loss is no harm.
            let made = read(dir).into_iter().map(|(name, bytes)| (Path::new("sled").join(name), bytes));
            self.state.lock().unwrap().synced.extend(made);
            return Ok(());
        }
        self.lose_power(dir.parent().unwrap(), |name| name.starts_with("sled"))
    }
    fn sync_journal(&self, path: &Path, _: &File) -> io::Result<()> {
        self.lose_power(path.parent().unwrap(), |name| name == Path::new("journal"))
    }
    fn acknowledged(&self, _: usize) {
        let mut state = self.state.lock().unwrap();
        state.before = state.after.clone();
    }
}

impl PowerLoss {
    /// Sees now and then what would be there if the power failed now, instead of the sync of some of the files.
    fn lose_power(&self, dir: &Path, synced: impl Fn(&Path) -> bool) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let state = &mut *state;
        let mut written = read(dir);
        written.retain(|name, _| name.starts_with("sled") || name == Path::new("journal"));
        if let Some(journal) = written.get(Path::new("journal")) {
            // It was made as a whole, and synced, before anything was written to it.
            state.synced.entry("journal".into()).or_insert_with(|| vec![0; journal.len()]);
        }
        if state.random.random_bool(0.2) {
            state.tried += 1;
            let image = tempfile::tempdir()?;
            for (name, bytes) in torn(&mut state.random, &state.synced, &written) {
                let path = image.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap())?;
                std::fs::write(path, bytes)?;
            }
            std::fs::create_dir_all(image.path().join("sled/blobs"))?;
            let options = Options::default().segment_bytes(state.segment_bytes);
            match SledStore::open_or_recover(image.path(), options) {
                Ok((store, recovery)) => {
                    let found: Contents = store.scan(b"").unwrap().records.into_iter().collect();
                    if !recovery.is_clean() {
                        // Recovery is for disks that break their word. A power loss must not need it.
                        state.failures.push(format!("{recovery:?}"));
                    }
                    if found != state.before && found != state.after {
                        let lost = state.before.iter().filter(|(key, value)| {
                            found.get(*key) != Some(value) && state.after.get(*key) == Some(value)
                        });
                        state.failures.push(format!("lost {} records; {recovery:?}", lost.count()));
                    }
                }
                Err(error) => state.failures.push(error.to_string()),
            }
        }
        state.synced.retain(|name, _| !synced(name));
        state.synced.extend(written.into_iter().filter(|(name, _)| synced(name)));
        Ok(())
    }
}

fn run(seed: u64, segment_bytes: usize, batches: u32, sizes: &[usize]) -> u32 {
    println!("seed {seed} (set KHUFU_SEED to repeat)");
    let mut random = StdRng::seed_from_u64(seed);
    let steps = Arc::new(PowerLoss {
        state: Mutex::new(State {
            random: StdRng::seed_from_u64(random.next_u64()),
            synced: Files::new(),
            before: Contents::new(),
            after: Contents::new(),
            segment_bytes,
            tried: 0,
            failures: Vec::new(),
        }),
    });
    let dir = tempfile::tempdir().unwrap();
    let options = Options::default().segment_bytes(segment_bytes).steps(steps.clone());
    let mut store = SledStore::open(dir.path(), options.clone()).unwrap();
    for n in 0..batches {
        let writes: Vec<_> = (0..random.random_range(1..6))
            .map(|_| {
                let key = format!("key/{:03}", random.random_range(0..200));
                let size = sizes[random.random_range(0..sizes.len())];
                if random.random_bool(0.8) { Write::put(key, vec![n as u8; size]) } else { Write::delete(key) }
            })
            .collect();
        {
            let mut state = steps.state.lock().unwrap();
            assert_eq!(state.before, state.after);
            for write in &writes {
                match write.clone() {
                    Write::Put { key, value } => state.after.insert(key, value),
                    Write::Delete { key } => state.after.remove(&key),
                };
            }
        }
        store.commit(writes).unwrap();
        if random.random_bool(0.01) {
            drop(store);
            store = SledStore::open(dir.path(), options.clone()).unwrap();
        }
    }
    drop(store);
    let state = steps.state.lock().unwrap();
    assert_eq!(state.failures, Vec::<String>::new(), "of {} images, seed {seed}", state.tried);
    state.tried
}

fn seed() -> u64 {
    std::env::var("KHUFU_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random)
}

#[test]
fn small_records_in_small_segments() {
    // Small segments are filled and used again all the time.
    assert!(run(seed(), 64 << 10, 250, &[10, 100, 1000]) > 20);
}

#[test]
fn large_values_in_segments_as_they_are() {
    assert!(run(seed(), 2 << 20, 40, &[100, 8000, 100_000, 700_000]) > 6);
}

#[test]
fn whole_turns_of_the_journal_in_segments_as_they_are() {
    assert!(run(seed(), 2 << 20, 500, &[20, 200, 1500, 7000]) > 40);
}
