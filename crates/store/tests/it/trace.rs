//! The order write, sync, acknowledge, as the system sees it: a process that stores is run under `strace`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, io};

use crate::strace::{Call, calls, synced_before};
use khufu_store::{DiskSteps, Options, SledStore, Store, Write};

const BATCHES: u32 = 25;

/// What the batch puts, so that it can be found in what is written.
fn needle(n: u32) -> String {
    format!("needle-{n:04}")
}

/// Hands everything to the system and forces nothing to the disk.
#[derive(Debug)]
struct NeverSync;

impl DiskSteps for NeverSync {
    fn sync(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn sync_journal(&self, _: &Path, _: &fs::File) -> io::Result<()> {
        Ok(())
    }
}

/// Not a test: what is traced.
#[test]
fn traced() {
    let Some(dir) = std::env::var_os("KHUFU_STORE_TRACE_TEST") else { return };
    let mut options = Options::default();
    if std::env::var_os("KHUFU_STORE_TRACE_NO_SYNC").is_some() {
        options = options.steps(std::sync::Arc::new(NeverSync));
    }
    let store = SledStore::open(Path::new(&dir), options).unwrap();
    for n in 0..BATCHES {
        // Now and then a value that is cut in pieces.
        let filler = "-".repeat(if n % 5 == 4 { 100_000 } else { 100 });
        store.commit(vec![Write::put(format!("key/{}", n % 7), format!("{filler}{}", needle(n)))]).unwrap();
        // By a file that is not buffered, so that the moment is this one.
        fs::write(Path::new(&dir).join("told"), format!("told of {}.", needle(n))).unwrap();
    }
}

/// Runs the child under `strace`. None if there is no `strace`.
fn trace(dir: &Path, sync: bool) -> Option<Vec<Call>> {
    let out = dir.join("trace");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-y", "-s", "8388608", "-e", "trace=write,pwrite64,fdatasync,fsync,sync_file_range", "-o"])
        .arg(&out)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "trace::traced", "--nocapture", "--test-threads=1"])
        .env("KHUFU_STORE_TRACE_TEST", dir.join("store"))
        .stdout(Stdio::null());
    if !sync {
        command.env("KHUFU_STORE_TRACE_NO_SYNC", "1");
    }
    match command.status() {
        Ok(status) => assert!(status.success(), "{status}"),
        Err(error) => {
            assert!(std::env::var_os("KHUFU_REQUIRE_SERVERS").is_none(), "strace: {error}");
            println!("not tried here, there is no strace: {error}");
            return None;
        }
    }
    Some(calls(&fs::read_to_string(out).unwrap()))
}

/// Whether what a batch put was written to the journal or, where that is not for it, to the log, after that forced to the disk, and after that told. If not, why.
fn in_order(calls: &[Call], needle: &str) -> Result<(), String> {
    let told = |call: &Call| call.name == "write" && call.text.contains("/told>") && call.text.contains(needle);
    let journal = |call: &Call| call.text.contains("/store/journal>") && call.text.contains(needle);
    let file = if calls.iter().any(journal) { "/store/journal>" } else { "/store/sled/db>" };
    synced_before(calls, file, needle, told)
}

#[test]
fn the_system_is_asked_to_write_then_to_sync_before_anything_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let Some(calls) = trace(dir.path(), true) else { return };
    for n in 0..BATCHES {
        in_order(&calls, &needle(n)).unwrap_or_else(|error| panic!("batch {n}: {error}"));
    }
}

#[test]
fn a_store_that_does_not_sync_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let Some(calls) = trace(dir.path(), false) else { return };
    // sled's own flush is there, and counts for nothing.
    assert!(calls.iter().any(|call| call.name == "sync_file_range"));
    for n in 0..BATCHES {
        let error = in_order(&calls, &needle(n)).unwrap_err();
        assert!(error.contains("not synced"), "batch {n}: {error}");
    }
}
