//! A process that is killed loses nothing that it acknowledged, and keeps no batch by half.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use khufu_store::{Options, SledStore, Store, StoreError, Write};
use rand::{RngExt, SeedableRng, rngs::StdRng};

const THREADS: u64 = 3;
/// Batches further back are deleted again.
const WINDOW: u64 = 10;

/// The contents after batch `n` of a thread are a function of `n`: this is the value of one of its records.
fn value(thread: u64, n: u64) -> Vec<u8> {
    let size = if n.is_multiple_of(7) { 40_000 } else { n * 37 % 400 };
    (0..size).map(|at| (at / 3 + n * 5 + thread) as u8).collect()
}

fn key(thread: u64, n: u64, part: &str) -> String {
    format!("{thread}/{n:08}/{part}")
}

fn batch(thread: u64, n: u64) -> Vec<Write> {
    let mut batch = vec![
        Write::put(key(thread, n, "a"), value(thread, n)),
        Write::put(key(thread, n, "b"), value(thread, n)),
        Write::put(format!("{thread}/last"), n.to_string()),
    ];
    if let Some(old) = n.checked_sub(WINDOW) {
        batch.push(Write::delete(key(thread, old, "a")));
        batch.push(Write::delete(key(thread, old, "b")));
    }
    batch
}

fn last(store: &SledStore, thread: u64) -> u64 {
    let last = store.get(format!("{thread}/last").as_bytes()).unwrap();
    last.map_or(0, |last| String::from_utf8(last).unwrap().parse().unwrap())
}

/// Not a test: what the killed process runs.
#[test]
fn child() {
    let Some(dir) = std::env::var_os("KHUFU_STORE_KILL_TEST") else { return };
    let store = crate::open(Path::new(&dir));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                for n in last(store, thread) + 1.. {
                    store.commit(batch(thread, n)).unwrap();
                    let mut out = std::io::stdout().lock();
                    // Nobody may be there any more to read it.
                    let _ = writeln!(out, "\nacknowledged {thread} {n}").and_then(|()| out.flush());
                }
            });
        }
    });
}

/// From when on the time counts after which a child is killed.
#[derive(Debug, Clone, Copy)]
enum Since {
    /// It was started: it may just be opening the store.
    Start,
    /// It has acknowledged something.
    FirstAcknowledgement,
}

/// Runs a child and kills it; answers the last batch that each thread acknowledged.
fn run_and_kill(dir: &Path, since: Since, after: Duration) -> BTreeMap<u64, u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::child", "--nocapture", "--test-threads=1"])
        .env("KHUFU_STORE_KILL_TEST", dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (tell, told) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            if let Some(rest) = line.strip_prefix("acknowledged ") {
                let (thread, n) = rest.split_once(' ').unwrap();
                let _ = tell.send((thread.parse().unwrap(), n.parse().unwrap()));
            }
        }
    });
    let mut acknowledged = BTreeMap::<u64, u64>::new();
    let end = match since {
        Since::Start => started + after,
        Since::FirstAcknowledgement => {
            let (thread, n) = told.recv_timeout(Duration::from_secs(60)).unwrap();
            acknowledged.insert(thread, n);
            Instant::now() + after
        }
    };
    while let Ok((thread, n)) = told.recv_timeout(end.saturating_duration_since(Instant::now())) {
        acknowledged.insert(thread, n);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
    acknowledged.extend(told.try_iter());
    acknowledged
}

/// The bytes and the number of all files under a directory.
fn files(dir: &Path) -> (u64, usize) {
    let (mut bytes, mut count) = (0, 0);
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        let (below, number) = if metadata.is_dir() { files(&entry.path()) } else { (metadata.len(), 1) };
        bytes += below;
        count += number;
    }
    (bytes, count)
}

/// Nothing is left in sled that belongs to no record: no piece of a large value, no note of a group under way.
fn nothing_left_over(dir: &Path, expected: &BTreeMap<String, Vec<u8>>, round: usize) {
    let db = crate::raw(dir);
    let tree = db.open_tree("khufu-1").unwrap();
    let pieces = expected.values().filter(|value| value.len() > 8 << 10).map(|value| value.len().div_ceil(16 << 10));
    assert_eq!(tree.scan_prefix("c").count(), pieces.sum::<usize>(), "round {round}: pieces");
    assert_eq!(tree.scan_prefix("r").count(), expected.len(), "round {round}: records");
    assert_eq!(tree.scan_prefix("m-pending").count(), 0, "round {round}: a group under way");
}

#[test]
fn killed_again_and_again() {
    // `KHUFU_KILL_CYCLES=500` is the long form.
    let cycles: usize = std::env::var("KHUFU_KILL_CYCLES").ok().and_then(|cycles| cycles.parse().ok()).unwrap_or(30);
    let seed = std::env::var("KHUFU_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("seed {seed} (set KHUFU_SEED to repeat)");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let (mut unanswered, mut early, mut largest, mut most) = (0_u64, 0_usize, 0, 0);
    let mut found_before = [0_u64; THREADS as usize];
    let began = Instant::now();
    for round in 0..cycles {
        let (since, most_us) =
            if random.random_bool(0.25) { (Since::Start, 60_000) } else { (Since::FirstAcknowledgement, 150_000) };
        let after = Duration::from_micros(random.random_range(0..most_us));
        let acknowledged = run_and_kill(dir.path(), since, after);
        early += usize::from(acknowledged.is_empty());
        let (store, recovery) = SledStore::open_or_recover(dir.path(), Options::default()).unwrap();
        assert!(recovery.is_clean(), "round {round}: {recovery:?}");
        let mut expected = BTreeMap::new();
        for (thread, before) in (0..THREADS).zip(&mut found_before) {
            let last = last(&store, thread);
            // One more may be there: it was durable, and the child was killed before it could say so.
            let promised = acknowledged.get(&thread).copied().unwrap_or(0).max(*before);
            assert!(last >= promised, "round {round}: {promised} was acknowledged, {last} is there");
            assert!(last <= promised + 1, "round {round}: {last} is more than {promised} and one");
            unanswered += last - promised;
            *before = last;
            if last > 0 {
                expected.insert(format!("{thread}/last"), last.to_string().into_bytes());
            }
            for n in last.saturating_sub(WINDOW - 1).max(1)..=last {
                expected.insert(key(thread, n, "a"), value(thread, n));
                expected.insert(key(thread, n, "b"), value(thread, n));
            }
        }
        let scan = store.scan(b"").unwrap();
        let found: BTreeMap<_, _> =
            scan.records.into_iter().map(|(key, value)| (String::from_utf8(key).unwrap(), value)).collect();
        assert!(found.keys().eq(expected.keys()), "round {round}: {:?} {:?}", found.keys(), expected.keys());
        assert_eq!(found, expected, "round {round}");
        drop(store);
        if round % 10 == 9 || round + 1 == cycles {
            nothing_left_over(dir.path(), &expected, round);
        }
        let (bytes, count) = files(dir.path());
        (largest, most) = (bytes.max(largest), count.max(most));
    }
    let total = found_before.iter().sum::<u64>();
    let (bytes, count) = files(dir.path());
    println!(
        "{cycles} kills in {:?}: {total} batches acknowledged or found, {unanswered} of them durable and unanswered, {early} \
         kills before the first acknowledgement; at the end {bytes} bytes in {count} files, at most {largest} in {most}",
        began.elapsed()
    );
    assert!(total > 3 * cycles as u64, "the children did hardly anything: {total}");
    // Under 3 MB are in use at any time; sled's log, its snapshots and what it will use again are more.
    assert!(largest < 64 << 20 && most < 40, "at most {largest} bytes in {most} files");
}

#[test]
fn a_directory_in_use_is_refused_with_its_holder() {
    let dir = tempfile::tempdir().unwrap();
    let store = crate::open(dir.path());
    store.commit(vec![Write::put("a", "1")]).unwrap();
    let files = || std::fs::read(dir.path().join("sled/db")).unwrap();
    let before = files();
    for error in [
        SledStore::open(dir.path(), Options::default()).unwrap_err(),
        SledStore::open_or_recover(dir.path(), Options::default()).map(|_| ()).unwrap_err(),
    ] {
        let StoreError::InUse { dir: named, pid } = &error else { panic!("{error}") };
        assert_eq!((named.as_path(), *pid), (dir.path(), Some(std::process::id())));
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    }
    assert!(files() == before, "sled's files were touched");
    drop(store);
    assert_eq!(crate::open(dir.path()).get(b"a").unwrap(), Some(b"1".to_vec()));
}

#[test]
fn a_full_disk_is_named_and_loses_nothing() {
    // A limit on the size of files is a disk that is full, as far as sled can see.
    let dir = tempfile::tempdir().unwrap();
    let out = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 8192; exec \"$0\" --exact kill::filler --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .env("KHUFU_STORE_FILL_TEST", dir.path())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let out = String::from_utf8(out.stdout).unwrap();
    let kept: u32 = out.lines().filter_map(|line| line.strip_prefix("acknowledged ")).count().try_into().unwrap();
    let error = out.lines().find_map(|line| line.strip_prefix("error ")).unwrap_or_else(|| panic!("{out}"));
    assert!(error.contains("is full"), "{error}");
    let error = out.lines().find_map(|line| line.strip_prefix("then ")).unwrap();
    assert!(error.contains("takes no more writes") && error.contains("is full"), "{error}");
    let (store, recovery) = SledStore::open_or_recover(dir.path(), Options::default()).unwrap();
    assert!(recovery.is_clean(), "{recovery:?}");
    for n in 0..kept {
        assert_eq!(store.get(format!("{n}").as_bytes()).unwrap().map(|value| value.len()), Some(8000), "{n} of {kept}");
    }
    assert!(kept > 20, "{kept}");
}

/// Not a test: writes until the disk is full.
#[test]
fn filler() {
    let Some(dir) = std::env::var_os("KHUFU_STORE_FILL_TEST") else { return };
    let store = SledStore::open(Path::new(&dir), Options::default()).unwrap();
    for n in 0_u32.. {
        match store.commit(vec![Write::put(n.to_string(), vec![n as u8; 8000])]) {
            Ok(()) => println!("\nacknowledged {n}"),
            Err(error) => {
                println!("\nerror {error}");
                println!("\nthen {}", store.commit(vec![Write::put("x", "y")]).unwrap_err());
                return;
            }
        }
    }
}
