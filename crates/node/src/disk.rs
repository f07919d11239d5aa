//! One thread between the runner and the store, so that neither waits for the other.
//!
//! Batches that have piled up are written as one: a slow disk makes batches larger, not queues longer. After a batch
//! that failed nothing more is written, so that what is on disk never has a hole. After one for which there was no space,
//! nothing is written until the engine has forgotten all that was not ([`Disk::forgotten`]) and there is space again.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use khufu_crdt::ReplicantId;
use khufu_engine::{Damaged, Engine, Input, Record, Token, Write};
use khufu_store::{MAX_BATCH_WRITES, Stats, Store, StoreError};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use crate::metrics::Metrics;

/// Batches are joined up to so many bytes.
const JOINED_BYTES: usize = 4 << 20;
/// What nobody waits for leaves the disk alone for as long after a batch as that batch took, this at most; then it is stored
/// together with all that has come by then.
const LEISURE: Duration = Duration::from_millis(3);
/// A full disk is looked at again so often.
const FULL_PAUSE: Duration = Duration::from_millis(500);
/// A disk that was full counts as such until there is space for so much, so that it is not full again at once.
const ROOM_BYTES: u64 = 2 << 20;

enum Job {
    Persist { token: Option<Token>, writes: Vec<Write>, urgent: bool, since: Instant },
    Forgotten,
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
        doubtful: bool,
        metrics: Metrics,
        inputs: UnboundedSender<Input>,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let thread = std::thread::Builder::new().name("khufu-disk".into()).spawn(move || {
            let (unconfirmed, state, rests_until) = (doubtful, State::Works, Instant::now());
            Writer { store, doubtful, unconfirmed, metrics, inputs, state, rests_until }.run(&queue)
        })?;
        Ok(Self { jobs, thread })
    }

    /// Answers [`Input::Stored`] or [`Input::StoreFailed`], or [`Input::StoreFull`] for all that were not answered.
    /// A batch that is not `urgent` is stored a little later, to go to the disk together with what follows.
    pub(crate) fn persist(&self, token: Token, writes: Vec<Write>, urgent: bool) {
        self.put(Some(token), writes, urgent);
    }

    /// Stores what nobody waits for.
    pub(crate) fn note(&self, writes: Vec<Write>) {
        self.put(None, writes, false);
    }

    fn put(&self, token: Option<Token>, writes: Vec<Write>, urgent: bool) {
        // The thread ends before the runner only by a panic, which then shows as requests without an answer.
        let _ = self.jobs.send(Job::Persist { token, writes, urgent, since: Instant::now() });
    }

    /// What was handed in before [`Input::StoreFull`] counts no longer.
    pub(crate) fn forgotten(&self) {
        let _ = self.jobs.send(Job::Forgotten);
    }

    /// Answers [`Input::Loaded`], with all that was handed in before, or [`Input::Unread`].
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

/// How the disk is.
enum State {
    Works,
    /// It is full, and the engine may not know yet: what is handed in is forgotten.
    Full {
        wanted: u64,
    },
    /// It is full, and the engine knows: there must be space for so much.
    Waits {
        wanted: u64,
        looked: Instant,
    },
    Failed(String),
}

struct Writer {
    store: Arc<dyn Store>,
    doubtful: bool,
    /// What the engine makes of a recovered store is not stored yet: its first batch says.
    unconfirmed: bool,
    metrics: Metrics,
    inputs: UnboundedSender<Input>,
    state: State,
    /// What nobody waits for is not stored sooner.
    rests_until: Instant,
}

impl Writer {
    fn run(mut self, queue: &mpsc::Receiver<Job>) {
        let mut next = None;
        while let Some(job) = next.take().or_else(|| self.wait(queue)) {
            match job {
                Job::Forgotten => {
                    if let State::Full { wanted } = self.state {
                        self.state = State::Waits { wanted, looked: Instant::now() };
                    }
                }
                Job::Load { replicant, prefix } => self.load(replicant, &prefix),
                Job::Stats(reply) => {
                    let _ = reply.send(self.store.stats());
                }
                Job::Persist { token, writes, mut urgent, since } => {
                    let mut tokens = vec![(token, since)];
                    let mut bytes = size(&writes);
                    let mut joined = writes;
                    let no_later_than = self.rests_until.min(since + LEISURE);
                    while let Some(job) = more(queue, urgent, no_later_than) {
                        match job {
                            Job::Persist { token, writes, urgent: hurry, since }
                                if bytes + size(&writes) <= JOINED_BYTES
                                    && joined.len() + writes.len() <= MAX_BATCH_WRITES =>
                            {
                                bytes += size(&writes);
                                joined.extend(writes);
                                tokens.push((token, since));
                                urgent |= hurry;
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

    /// The next job; none at the end. While the disk is full, it is looked at again and again.
    fn wait(&mut self, queue: &mpsc::Receiver<Job>) -> Option<Job> {
        while let State::Waits { wanted, looked } = self.state {
            let left = FULL_PAUSE.saturating_sub(looked.elapsed());
            match queue.recv_timeout(left) {
                Ok(job) if !left.is_zero() => return Some(job),
                Err(mpsc::RecvTimeoutError::Disconnected) => return None,
                job => {
                    self.look_for_room(wanted);
                    if let Ok(job) = job {
                        return Some(job);
                    }
                }
            }
        }
        queue.recv().ok()
    }

    fn look_for_room(&mut self, wanted: u64) {
        if !self.store.has_room(wanted) {
            self.state = State::Waits { wanted, looked: Instant::now() };
            return;
        }
        tracing::warn!("the disk has room again");
        match restore(self.store.as_ref(), self.doubtful) {
            Ok(restore) => {
                self.state = State::Works;
                let _ = self.inputs.send(Input::StoreRoom { restore });
            }
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &StoreError) {
        tracing::error!(%error, "cannot store");
        self.state = State::Failed(error.to_string());
    }

    fn persist(&mut self, tokens: &[(Option<Token>, Instant)], writes: Vec<Write>) {
        if matches!(self.state, State::Works) && !writes.is_empty() {
            let wanted = u64::try_from(size(&writes)).unwrap_or(u64::MAX).max(ROOM_BYTES);
            let begun = Instant::now();
            let stored = self.store.commit(writes.into_iter().map(to_store).collect());
            self.rests_until = Instant::now() + begun.elapsed().min(LEISURE);
            match stored {
                Err(error @ StoreError::DiskFull { .. }) => self.full(&error, wanted),
                Err(error) => self.fail(&error),
                Ok(()) => self.confirm(tokens),
            }
        }
        for (token, since) in tokens {
            let Some(token) = *token else { continue };
            let input = match &self.state {
                State::Works => {
                    self.metrics.persisted(since.elapsed());
                    Input::Stored { token }
                }
                State::Full { .. } | State::Waits { .. } => continue,
                State::Failed(error) => Input::StoreFailed { token, error: error.clone() },
            };
            let _ = self.inputs.send(input);
        }
    }

    /// A batch is stored. The first of the engine says which replicants are to be looked at again.
    fn confirm(&mut self, tokens: &[(Option<Token>, Instant)]) {
        if !self.unconfirmed || tokens.iter().all(|(token, _)| token.is_none()) {
            return;
        }
        match self.store.confirm_recovery() {
            Ok(()) => self.unconfirmed = false,
            Err(error) => tracing::warn!(%error, "the next start looks at everything again"),
        }
    }

    /// There was no space for a batch: the engine is told what there is.
    fn full(&mut self, error: &StoreError, wanted: u64) {
        tracing::error!(%error, "nothing can be stored");
        match restore(self.store.as_ref(), self.doubtful) {
            Ok(restore) => {
                self.state = State::Full { wanted };
                let _ = self.inputs.send(Input::StoreFull { error: error.to_string(), restore });
            }
            Err(error) => self.fail(&error),
        }
    }

    fn load(&self, replicant: ReplicantId, prefix: &[u8]) {
        let started = Instant::now();
        let mut scanned = self.store.scan(prefix);
        if scanned.as_ref().is_ok_and(|scan| !scan.damaged.is_empty()) {
            // What is found damaged is replaced: no misreading is to do that.
            scanned = self.store.scan(prefix);
        }
        let input = match scanned {
            Ok(scan) => Input::Loaded {
                replicant,
                prefix: prefix.to_vec(),
                records: scan.records.into_iter().map(|(key, value)| Record { key, value }).collect(),
                damaged: scan.damaged.into_iter().map(damage).collect(),
            },
            Err(error) => Input::Unread { replicant, prefix: prefix.to_vec(), error: error.to_string() },
        };
        self.metrics.loaded(started.elapsed());
        let _ = self.inputs.send(input);
    }
}

fn damage(damaged: khufu_store::Damaged) -> Damaged {
    let what = format!("{}: {}", damaged.key.escape_ascii(), damaged.reason);
    // Of a run of records the key is that of the one before it.
    Damaged { key: damaged.until.is_none().then_some(damaged.key), what }
}

/// What is to be stored together with what there is already: what waits, and where that is not urgent, what comes by a
/// moment.
fn more(queue: &mpsc::Receiver<Job>, urgent: bool, no_later_than: Instant) -> Option<Job> {
    let left = no_later_than.saturating_duration_since(Instant::now());
    if urgent || left.is_zero() { queue.try_recv().ok() } else { queue.recv_timeout(left).ok() }
}

/// What an engine starts from: all but documents. `doubtful` says that the store was recovered from damage.
pub(crate) fn restore(store: &dyn Store, doubtful: bool) -> Result<Vec<Record>, StoreError> {
    let mut records = Vec::new();
    for prefix in Engine::RESTORE_PREFIXES {
        let scan = store.scan(prefix)?;
        for damaged in &scan.damaged {
            let (key, reason) = (damaged.key.escape_ascii(), &damaged.reason);
            tracing::error!(%key, reason, "a record is damaged: what it said comes back from other sites");
        }
        records.extend(scan.records.into_iter().map(|(key, value)| Record { key, value }));
    }
    if doubtful {
        let scan = store.scan(Engine::RECOVERY_PREFIX)?;
        records.extend(scan.records.into_iter().map(|(key, _)| Record { key, value: Vec::new() }));
    }
    Ok(records)
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
        let disk = Disk::start(Arc::new(MemoryStore::new()), false, metrics, inputs).unwrap();
        for n in 0..10 {
            disk.persist(Token(n), put(&format!("d/a/{n}")), true);
        }
        disk.load(ReplicantId::new("a").unwrap(), b"d/a/".to_vec());
        disk.persist(Token(10), put("d/a/x"), true);
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
    fn what_nobody_waits_for_is_stored_with_what_follows_and_soon() {
        let (inputs, mut told) = tokio::sync::mpsc::unbounded_channel();
        let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
        let store = MemoryStore::new();
        let disk = Disk::start(Arc::new(store.clone()), false, metrics, inputs).unwrap();
        disk.persist(Token(0), put("a"), false);
        assert!(matches!(told.blocking_recv(), Some(Input::Stored { token: Token(0) })), "nothing need follow");
        for n in 1..10 {
            disk.persist(Token(n), if n % 2 == 0 { Vec::new() } else { put("a") }, n % 3 == 0);
        }
        disk.close();
        for n in 1..10 {
            assert!(matches!(told.try_recv(), Ok(Input::Stored { token }) if token == Token(n)));
        }
        assert_eq!(store.get(b"a").unwrap().as_deref(), Some(&b"v"[..]));
    }

    #[test]
    fn nothing_is_stored_after_a_failure() {
        let memory = MemoryStore::new();
        let faulty = FaultyStore::new(memory.clone());
        faulty.fail(1, Fault::Lost);
        let (inputs, mut told) = tokio::sync::mpsc::unbounded_channel();
        let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
        let disk = Disk::start(Arc::new(faulty), false, metrics, inputs).unwrap();
        disk.persist(Token(0), put("a"), true);
        disk.persist(Token(1), put("b"), true);
        disk.close();
        for n in 0..2 {
            assert!(matches!(told.try_recv(), Ok(Input::StoreFailed { token, .. }) if token == Token(n)));
        }
        assert!(memory.get(b"b").unwrap().is_none());
    }

    #[test]
    fn what_could_not_be_read_is_not_called_damaged_or_missing() {
        let faulty = FaultyStore::new(MemoryStore::new());
        faulty.fail_scans(1);
        let (inputs, mut told) = tokio::sync::mpsc::unbounded_channel();
        let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
        let disk = Disk::start(Arc::new(faulty), false, metrics, inputs).unwrap();
        disk.persist(Token(0), put("d/a/s"), true);
        for _ in 0..2 {
            disk.load(ReplicantId::new("a").unwrap(), b"d/a/".to_vec());
        }
        disk.close();
        assert!(matches!(told.try_recv(), Ok(Input::Stored { .. })));
        assert!(matches!(told.try_recv(), Ok(Input::Unread { error, .. }) if error.contains("cannot read")));
        let Ok(Input::Loaded { records, damaged, .. }) = told.try_recv() else { panic!("it was not read") };
        assert_eq!((records.len(), damaged.len()), (1, 0));
    }

    #[test]
    fn after_a_full_disk_nothing_is_stored_that_was_handed_in_before_the_engine_knew() {
        let memory = MemoryStore::new();
        let faulty = FaultyStore::new(memory.clone());
        faulty.fail(2, Fault::DiskFull);
        let (inputs, mut told) = tokio::sync::mpsc::unbounded_channel();
        let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
        let disk = Disk::start(Arc::new(faulty), false, metrics, inputs).unwrap();
        disk.persist(Token(0), put("i/a"), true);
        assert!(matches!(told.blocking_recv(), Some(Input::Stored { token: Token(0) })));
        disk.persist(Token(1), put("i/b"), true);
        let Some(Input::StoreFull { error, restore }) = told.blocking_recv() else { panic!("it was stored") };
        assert!(error.contains("full"), "{error}");
        assert_eq!(restore.iter().map(|record| &record.key[..]).collect::<Vec<_>>(), [b"i/a"]);
        disk.persist(Token(2), put("i/c"), true);
        disk.load(ReplicantId::new("a").unwrap(), b"d/a/".to_vec());
        assert!(matches!(told.blocking_recv(), Some(Input::Loaded { .. })), "reading goes on");
        disk.forgotten();
        assert!(matches!(told.blocking_recv(), Some(Input::StoreRoom { restore }) if restore.len() == 1));
        disk.persist(Token(3), put("i/d"), true);
        assert!(matches!(told.blocking_recv(), Some(Input::Stored { token: Token(3) })));
        disk.close();
        assert!(told.blocking_recv().is_none());
        let found: Vec<_> = memory.scan(b"i/").unwrap().records.into_iter().map(|(key, _)| key).collect();
        assert_eq!(found, [b"i/a", b"i/d"]);
    }
}
