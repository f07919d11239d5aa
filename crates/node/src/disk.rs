//! One thread between the runner and the store, so that neither waits for the other.
//!
//! Batches that have piled up are written as one: a slow disk makes batches larger, not queues longer. After a batch
//! that failed nothing more is written, so that what is on disk never has a hole.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use khufu_crdt::ReplicantId;
use khufu_engine::{Input, Record, Token, Write};
use khufu_store::{MAX_BATCH_WRITES, Stats, Store, StoreError};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use crate::metrics::Metrics;

/// Batches are joined up to so many bytes.
const JOINED_BYTES: usize = 4 << 20;
/// A full disk is given so long before the node gives up.
const FULL_PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two attempts on a full disk.
const FULL_PAUSE: Duration = Duration::from_secs(1);

enum Job {
    Persist { token: Option<Token>, writes: Vec<Write>, since: Instant },
    Load { replicant: ReplicantId, prefix: Vec<u8> },
    Stats(oneshot::Sender<Stats>),
}

/// The thread. It ends, and the store is closed, once [`Disk::close`] is called or this is dropped.
pub(crate) struct Disk {
    jobs: mpsc::Sender<Job>,
    thread: JoinHandle<()>,
}

impl Disk {
    pub(crate) fn start(
        store: Arc<dyn Store>,
        metrics: Metrics,
        inputs: UnboundedSender<Input>,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("khufu-disk".into())
            .spawn(move || Writer { store, metrics, inputs, failed: None }.run(&queue))?;
        Ok(Self { jobs, thread })
    }

    /// Answers [`Input::Stored`] or [`Input::StoreFailed`].
    pub(crate) fn persist(&self, token: Token, writes: Vec<Write>) {
        self.put(Some(token), writes);
    }

    /// Stores what nobody waits for.
    pub(crate) fn note(&self, writes: Vec<Write>) {
        self.put(None, writes);
    }

    fn put(&self, token: Option<Token>, writes: Vec<Write>) {
        // The thread ends before the runner only by a panic, which then shows as requests without an answer.
        let _ = self.jobs.send(Job::Persist { token, writes, since: Instant::now() });
    }

    /// Answers [`Input::Loaded`], with all that was handed in before.
    pub(crate) fn load(&self, replicant: ReplicantId, prefix: Vec<u8>) {
        let _ = self.jobs.send(Job::Load { replicant, prefix });
    }

    /// Answers what the store has done, in its turn.
    pub(crate) fn stats(&self, reply: oneshot::Sender<Stats>) {
        let _ = self.jobs.send(Job::Stats(reply));
    }

    /// Waits until everything is done, and closes the store. Blocks.
    pub(crate) fn close(self) {
        drop(self.jobs);
        let _ = self.thread.join();
    }
}

struct Writer {
    store: Arc<dyn Store>,
    metrics: Metrics,
    inputs: UnboundedSender<Input>,
    failed: Option<String>,
}

impl Writer {
    fn run(mut self, queue: &mpsc::Receiver<Job>) {
        let mut next = None;
        while let Some(job) = next.take().or_else(|| queue.recv().ok()) {
            match job {
                Job::Load { replicant, prefix } => self.load(replicant, &prefix),
                Job::Stats(reply) => {
                    let _ = reply.send(self.store.stats());
                }
                Job::Persist { token, writes, since } => {
                    let mut tokens = vec![(token, since)];
                    let mut bytes = size(&writes);
                    let mut joined = writes;
                    while let Ok(job) = queue.try_recv() {
                        match job {
                            Job::Persist { token, writes, since }
                                if bytes + size(&writes) <= JOINED_BYTES
                                    && joined.len() + writes.len() <= MAX_BATCH_WRITES =>
                            {
                                bytes += size(&writes);
                                joined.extend(writes);
                                tokens.push((token, since));
                            }
                            other => {
                                next = Some(other);
                                break;
                            }
                        }
                    }
                    self.persist(&tokens, joined);
                }
            }
        }
    }

    fn persist(&mut self, tokens: &[(Option<Token>, Instant)], writes: Vec<Write>) {
        if self.failed.is_none()
            && let Err(error) = self.commit(writes)
        {
            tracing::error!(%error, "cannot store");
            self.failed = Some(error.to_string());
        }
        for (token, since) in tokens {
            let Some(token) = *token else { continue };
            let input = match &self.failed {
                None => {
                    self.metrics.persisted(since.elapsed());
                    Input::Stored { token }
                }
                Some(error) => Input::StoreFailed { token, error: error.clone() },
            };
            let _ = self.inputs.send(input);
        }
    }

    fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        if writes.is_empty() {
            return Ok(());
        }
        let writes: Vec<_> = writes.into_iter().map(to_store).collect();
        let started = Instant::now();
        loop {
            match self.store.commit(writes.clone()) {
                Err(StoreError::DiskFull { dir, free }) if started.elapsed() < FULL_PATIENCE => {
                    tracing::error!(dir = %dir.display(), free, "the disk is full: trying again for {FULL_PATIENCE:?}");
                    std::thread::sleep(FULL_PAUSE);
                }
                other => return other,
            }
        }
    }

    fn load(&self, replicant: ReplicantId, prefix: &[u8]) {
        let started = Instant::now();
        let (records, damaged) = match self.store.scan(prefix) {
            Ok(scan) => (
                scan.records.into_iter().map(|(key, value)| Record { key, value }).collect(),
                scan.damaged
                    .iter()
                    .map(|damaged| format!("{}: {}", damaged.key.escape_ascii(), damaged.reason))
                    .collect(),
            ),
            Err(error) => (Vec::new(), vec![error.to_string()]),
        };
        self.metrics.loaded(started.elapsed());
        let _ = self.inputs.send(Input::Loaded { replicant, records, damaged });
    }
}

fn size(writes: &[Write]) -> usize {
    let one = |write: &Write| match write {
        Write::Put { key, value } => key.len() + value.len(),
        Write::Delete { key } => key.len(),
    };
    writes.iter().map(one).sum()
}

fn to_store(write: Write) -> khufu_store::Write {
    match write {
        Write::Put { key, value } => khufu_store::Write::Put { key, value },
        Write::Delete { key } => khufu_store::Write::Delete { key },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use khufu_store::{Fault, FaultyStore, MemoryStore};

    use super::*;

    fn put(key: &str) -> Vec<Write> {
        vec![Write::Put { key: key.into(), value: b"v".to_vec() }]
    }

    #[test]
    fn a_load_sees_what_was_handed_in_before() {
        let (inputs, mut told) = tokio::sync::mpsc::unbounded_channel();
        let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
        let disk = Disk::start(Arc::new(MemoryStore::new()), metrics, inputs).unwrap();
        for n in 0..10 {
            disk.persist(Token(n), put(&format!("d/a/{n}")));
        }
        disk.load(ReplicantId::new("a").unwrap(), b"d/a/".to_vec());
        disk.persist(Token(10), put("d/a/x"));
        disk.close();
        let mut stored = 0;
        while let Ok(input) = told.try_recv() {
            match input {
                Input::Stored { token } => {
                    assert_eq!(token, Token(stored));
                    stored += 1;
                }
                Input::Loaded { records, damaged, .. } => {
                    assert_eq!((records.len(), damaged.len()), (10, 0));
                    assert_eq!(stored, 10);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(stored, 11);
    }

    #[test]
    fn nothing_is_stored_after_a_failure() {
        let memory = MemoryStore::new();
        let faulty = FaultyStore::new(memory.clone());
        faulty.fail(1, Fault::Lost);
        let (inputs, mut told) = tokio::sync::mpsc::unbounded_channel();
        let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
        let disk = Disk::start(Arc::new(faulty), metrics, inputs).unwrap();
        disk.persist(Token(0), put("a"));
        disk.persist(Token(1), put("b"));
        disk.close();
        for n in 0..2 {
            assert!(matches!(told.try_recv(), Ok(Input::StoreFailed { token, .. }) if token == Token(n)));
        }
        assert!(memory.get(b"b").unwrap().is_none());
    }
}
