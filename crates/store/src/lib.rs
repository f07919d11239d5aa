//! Durable storage of a Khufu node.
//!
//! This crate keeps bytes under keys: batches of writes are atomic, and durable (`kill -9`, power loss) once they are
//! acknowledged. It knows about files, checksums, locks, versions of its own format and what to do with damage. It
//! must never know what the bytes mean: no replicant, no document, no peer.
//!
//! [`Store`] is the promise. [`SledStore`] keeps it on a disk, [`MemoryStore`] in memory for tests and simulations, and
//! [`FaultyStore`] breaks it on purpose.
//!
//! ```
//! use khufu_store::{Options, SledStore, Store, Write};
//!
//! # fn main() -> Result<(), khufu_store::StoreError> {
//! # let folder = tempfile::tempdir().map_err(|_| khufu_store::StoreError::Closed)?;
//! # let dir = folder.path();
//! let store = SledStore::open(dir, Options::default())?;
//! store.commit(vec![Write::put("site/paris", "up"), Write::put("site/rennes", "up")])?;
//! assert_eq!(store.get(b"site/paris")?, Some(b"up".to_vec()));
//! assert_eq!(store.scan(b"site/")?.records.len(), 2);
//! # Ok(())
//! # }
//! ```

mod disk;
mod error;
mod faulty;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod memory;
mod record;

use std::sync::mpsc;

pub use disk::{DiskSteps, Opening, Options, Recovery, RolledBack, SledStore, SyncFiles};
pub use error::{Printed, StoreError};
pub use faulty::{Fault, FaultyStore};
pub use memory::MemoryStore;

/// The most bytes a key may have.
pub const MAX_KEY_BYTES: usize = 1024;
/// The most bytes a value may have: 64 MiB.
pub const MAX_VALUE_BYTES: usize = 64 << 20;
/// The most writes one batch may have.
pub const MAX_BATCH_WRITES: usize = 1 << 16;
/// The most bytes that the keys and values of one batch may have together: 128 MiB.
pub const MAX_BATCH_BYTES: usize = 128 << 20;

/// One change of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Gives a key a value, in place of the one it had.
    Put {
        /// 1 to [`MAX_KEY_BYTES`] bytes.
        key: Vec<u8>,
        /// At most [`MAX_VALUE_BYTES`] bytes.
        value: Vec<u8>,
    },
    /// Takes a key and its value away; nothing happens if there is none.
    Delete {
        /// 1 to [`MAX_KEY_BYTES`] bytes.
        key: Vec<u8>,
    },
}

impl Write {
    /// Gives a key a value.
    pub fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self::Put { key: key.into(), value: value.into() }
    }

    /// Takes a key away.
    pub fn delete(key: impl Into<Vec<u8>>) -> Self {
        Self::Delete { key: key.into() }
    }

    /// The key that is written.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    /// How many bytes key and value have together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Put { key, value } => key.len() + value.len(),
            Self::Delete { key } => key.len(),
        }
    }
}

/// What a batch's author is told: called exactly once.
pub type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// All records whose key starts with a prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// Keys and values, sorted by key (as bytes).
    pub records: Vec<(Vec<u8>, Vec<u8>)>,
    /// What should be there and cannot be read, sorted by key.
    pub damaged: Vec<Damaged>,
}

/// A record, or a run of records, that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// The key of the record, or the key before the run.
    pub key: Vec<u8>,
    /// None for one record. For a run whose keys are not known: the next key that can be read (exclusive), empty at
    /// the end of the store.
    pub until: Option<Vec<u8>>,
    /// What is wrong with it.
    pub reason: String,
}

/// What a store has done since it was opened, and its size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of all files of the store (in memory: of its records).
    pub bytes_on_disk: u64,
    /// Batches acknowledged.
    pub commits: u64,
    /// Times the files were forced to the disk. Fewer than `commits` where batches were committed together.
    pub syncs: u64,
    /// Puts and deletes in the batches acknowledged.
    pub writes: u64,
}

/// A place that keeps bytes under keys. What is acknowledged is never lost and a batch is never there by half.
pub trait Store: Send + Sync + 'static {
    /// Hands over a batch and returns. `done` is called once, with success only when the batch is durable. Batches
    /// take effect, and are acknowledged, in the order of submission; of two writes to one key in a batch the later
    /// counts.
    ///
    /// Blocks while too many batches wait (this is how a slow disk slows its user down). `done` may run on the store's own thread,
    /// or on that of whoever [commits](Self::commit): it may `submit` more, but must not block or call [`commit`](Self::commit).
    fn submit(&self, writes: Vec<Write>, done: Done);

    /// Like [`submit`](Self::submit), and waits. Concurrent calls share one forced write to the disk.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] and [`StoreError::EmptyKey`]: the batch was refused, the store goes on.
    /// [`StoreError::DiskFull`]: nothing of the batch is kept. After any other error the state of the batch is not
    /// known until the store is opened again, and every later batch is refused as [`StoreError::Poisoned`].
    fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        let (tell, told) = mpsc::sync_channel(1);
        self.submit(
            writes,
            Box::new(move |result| {
                let _ = tell.send(result);
            }),
        );
        told.recv().unwrap_or(Err(StoreError::Closed))
    }

    /// The value of a key. It may be of a batch that is applied and not acknowledged yet.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if there is a value and it cannot be read, [`StoreError::Io`] if the system refused to
    /// read it.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// All records whose key starts with `prefix`, as they were between two batches. A damaged record is named in the
    /// answer and does not hide the others.
    ///
    /// # Errors
    /// [`StoreError::Closed`] after the end of the store, [`StoreError::Io`] if the system refused to read: all may be
    /// there, and another attempt may succeed. Damage is no error here.
    fn scan(&self, prefix: &[u8]) -> Result<Scan, StoreError>;

    /// Whether there is space for a batch of so many bytes at present. Where the answer is no, it would be refused as
    /// [`StoreError::DiskFull`].
    fn has_room(&self, bytes: u64) -> bool {
        let _ = bytes;
        true
    }

    /// Whoever opened a store that had been [recovered](Recovery::unconfirmed) has stored what follows from that: whoever
    /// opens it next need not know. Does nothing where nothing was recovered.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the system refuses: the next to open it is told once more.
    fn confirm_recovery(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Counters since the store was opened, and its size.
    fn stats(&self) -> Stats;
}

/// Refuses a batch that breaks a limit.
fn check(writes: &[Write]) -> Result<(), StoreError> {
    let limit = |what, len, max| if len > max { Err(StoreError::TooLarge { what, len, max }) } else { Ok(()) };
    limit("number of writes in a batch", writes.len(), MAX_BATCH_WRITES)?;
    limit("size of a batch in bytes", writes.iter().map(Write::bytes).sum(), MAX_BATCH_BYTES)?;
    for write in writes {
        if write.key().is_empty() {
            return Err(StoreError::EmptyKey);
        }
        limit("length of a key in bytes", write.key().len(), MAX_KEY_BYTES)?;
        if let Write::Put { value, .. } = write {
            limit("length of a value in bytes", value.len(), MAX_VALUE_BYTES)?;
        }
    }
    Ok(())
}

/// Locks whatever the last holder did: all state behind these locks is consistent between any two statements.
fn lock<T: ?Sized>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
