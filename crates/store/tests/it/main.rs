//! What a store promises, tested from outside.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod damage;
mod faulty;
mod formats;
mod journal;
mod kill;
mod model;
mod order;
mod power;
mod strace;
mod trace;

use khufu_store::{Options, SledStore};
use std::path::Path;

fn open(dir: &Path) -> SledStore {
    SledStore::open(dir, Options::default()).unwrap()
}

/// sled's files, without the store.
fn raw(dir: &Path) -> sled::Db {
    let config = sled::Config::new().segment_size(2 << 20).flush_every_ms(None).path(dir.join("sled"));
    loop {
        match config.open() {
            Ok(db) => return db,
            // The store that had them a moment ago has not let go of them everywhere.
            Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                std::thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
    }
}
