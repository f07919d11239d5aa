//! What is shared about one peer that is up: its queue, its counters, what is known of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use libp2p::Multiaddr;
use tokio::sync::mpsc;

use crate::config::Limits;
use crate::metrics::Counters;

/// Counters of one peer. All are statistics, so no ordering between them is promised.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) queued_bytes: AtomicUsize,
    pub(crate) frames_in: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) frames_out: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    counters: Counters,
}

impl Traffic {
    pub(crate) fn new(counters: Counters) -> Self {
        Self { counters, ..Self::default() }
    }

    /// A frame of the queue was handed to the connection.
    pub(crate) fn sent(&self, bytes: usize) {
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.frames_out.fetch_add(1, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
        self.counters.frame_out(bytes);
    }

    /// A frame was received.
    pub(crate) fn received(&self, bytes: usize) {
        self.frames_in.fetch_add(1, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        self.counters.frame_in(bytes);
    }
}

/// The sending end of a peer's queue.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    queue: mpsc::Sender<Vec<u8>>,
    traffic: Arc<Traffic>,
    max_bytes: usize,
}

/// Why a frame was not queued.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// With the number of frames that waited at that moment: a later look would tell of another queue.
    Full {
        frames: usize,
    },
    Gone,
}

impl Outbox {
    pub(crate) fn new(limits: &Limits, traffic: Arc<Traffic>) -> (Self, mpsc::Receiver<Vec<u8>>) {
        let (queue, receiver) = mpsc::channel(limits.send_queue_frames);
        (Self { queue, traffic, max_bytes: limits.send_queue_bytes }, receiver)
    }

    pub(crate) fn push(&self, frame: Vec<u8>) -> Result<(), Rejected> {
        let bytes = frame.len();
        let before = self.traffic.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        // One frame is always taken, or a frame above the limit could never be sent.
        let result = if before > 0 && before.saturating_add(bytes) > self.max_bytes {
            Err(Rejected::Full { frames: self.queued_frames() })
        } else {
            self.queue.try_send(frame).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => Rejected::Full { frames: self.queue.max_capacity() },
                mpsc::error::TrySendError::Closed(_) => Rejected::Gone,
            })
        };
        if result.is_err() {
            self.traffic.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        result
    }

    pub(crate) fn queued_frames(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}

/// What the handle can read of a peer that is up.
#[derive(Debug)]
pub(crate) struct PeerEntry {
    pub(crate) outbox: Outbox,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) since: SystemTime,
    pub(crate) remote: Multiaddr,
    pub(crate) outbound: bool,
    pub(crate) addresses: Vec<Multiaddr>,
    pub(crate) rtt_ms: Option<f64>,
    pub(crate) agent: Option<String>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_queue_is_bounded_in_frames_and_in_bytes() {
        let limits = Limits { send_queue_frames: 3, send_queue_bytes: 10, ..Limits::default() };
        let (outbox, mut queue) = Outbox::new(&limits, Arc::default());
        outbox.push(vec![0; 8]).unwrap();
        assert_eq!(outbox.push(vec![0; 3]), Err(Rejected::Full { frames: 1 }), "bytes");
        outbox.push(vec![0; 1]).unwrap();
        outbox.push(vec![0; 1]).unwrap();
        assert_eq!(outbox.queued_frames(), 3);
        assert_eq!(outbox.push(vec![]), Err(Rejected::Full { frames: 3 }), "frames");
        for _ in 0..3 {
            outbox.traffic.sent(queue.try_recv().unwrap().len());
        }
        outbox.push(vec![0; 100]).unwrap();
        assert_eq!(outbox.push(vec![0; 1]), Err(Rejected::Full { frames: 1 }), "one above the limit fills the queue");
        let (outbox, queue) = Outbox::new(&limits, Arc::default());
        drop(queue);
        assert_eq!(outbox.push(vec![0; 1]), Err(Rejected::Gone));
        assert_eq!(outbox.traffic.queued_bytes.load(Ordering::Relaxed), 0);
    }
}
