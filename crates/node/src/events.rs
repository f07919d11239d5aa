//! What happened lately: a ring of numbered events that any number of readers follow at their own pace.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use futures::Stream;
use khufu_engine::Event;
use tokio::sync::watch;

/// How many events are kept for readers that come late or back.
pub const EVENTS_KEPT: usize = 10_000;

/// The place of an event in what one process told. Written `<process>-<number>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Told apart from earlier processes of the same node, which numbered their own events.
    pub process: u64,
    /// Counts the events of the process, from 1.
    pub number: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.process, self.number)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let wrong = || CursorError(text.to_owned());
        let (process, number) = text.split_once('-').ok_or_else(wrong)?;
        Ok(Self {
            process: u64::from_str_radix(process, 16).map_err(|_| wrong())?,
            number: number.parse().map_err(|_| wrong())?,
        })
    }
}

/// A text is not the id of an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the id of an event: hand in the last one that was received, or none")]
pub struct CursorError(String);

/// What a reader gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Followed {
    /// The next event.
    Event(Cursor, Arc<Event>),
    /// Events that came before the next one are lost: the reader was too slow, or they are of an earlier process.
    /// Whoever keeps a copy of something should read it anew.
    Gap(Cursor),
}

struct Ring {
    events: VecDeque<Arc<Event>>,
    /// The number of the first one in the ring.
    first: u64,
}

/// The ring, shared by the runner that writes and the readers.
pub(crate) struct EventLog {
    process: u64,
    ring: Mutex<Ring>,
    last: watch::Sender<u64>,
}

impl EventLog {
    pub(crate) fn new(process: u64) -> Arc<Self> {
        Arc::new(Self {
            process,
            ring: Mutex::new(Ring { events: VecDeque::new(), first: 1 }),
            last: watch::Sender::new(0),
        })
    }

    /// Comes before the first event.
    pub(crate) fn start(&self) -> Cursor {
        Cursor { process: self.process, number: 0 }
    }

    pub(crate) fn push(&self, event: Event) {
        let number = {
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            if ring.events.len() == EVENTS_KEPT {
                ring.events.pop_front();
                ring.first += 1;
            }
            ring.events.push_back(Arc::new(event));
            ring.first + ring.events.len() as u64 - 1
        };
        self.last.send_replace(number);
    }

    /// Follows from now on, or from after an event that was received before. Ends when `closed` says so or its sender
    /// is gone.
    pub(crate) fn follow(self: &Arc<Self>, after: Option<Cursor>, closed: watch::Receiver<bool>) -> Events {
        let last = self.last.subscribe();
        let now = *last.borrow();
        let (next, gap) = match after {
            None => (now + 1, false),
            Some(cursor) if cursor.process == self.process && cursor.number <= now => (cursor.number + 1, false),
            Some(_) => (1, true),
        };
        Events { log: self.clone(), last, closed, next, gap }
    }

    fn read(&self, number: u64) -> Read {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if number < ring.first {
            return Read::Gone { first: ring.first };
        }
        usize::try_from(number - ring.first)
            .ok()
            .and_then(|at| ring.events.get(at).cloned())
            .map_or(Read::Later, Read::Event)
    }
}

enum Read {
    Event(Arc<Event>),
    Gone { first: u64 },
    Later,
}

/// Follows the events of a node. Made by [`crate::Node::events`].
pub struct Events {
    log: Arc<EventLog>,
    last: watch::Receiver<u64>,
    closed: watch::Receiver<bool>,
    next: u64,
    gap: bool,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Events {
    /// The next event, as soon as there is one. None once the node has stopped. Cancel safe.
    pub async fn next(&mut self) -> Option<Followed> {
        loop {
            if std::mem::take(&mut self.gap) {
                return Some(Followed::Gap(self.cursor(self.next.saturating_sub(1))));
            }
            self.last.borrow_and_update();
            match self.log.read(self.next) {
                Read::Event(event) => {
                    let cursor = self.cursor(self.next);
                    self.next += 1;
                    return Some(Followed::Event(cursor, event));
                }
                Read::Gone { first } => {
                    self.next = first;
                    self.gap = true;
                }
                Read::Later => {
                    tokio::select! {
                        changed = self.last.changed() => changed.ok()?,
                        _ = self.closed.wait_for(|closed| *closed) => return None,
                    }
                }
            }
        }
    }

    /// The same as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Followed> + Send {
        futures::stream::unfold(self, |mut events| async move { events.next().await.map(|item| (item, events)) })
    }

    fn cursor(&self, number: u64) -> Cursor {
        Cursor { process: self.log.process, number }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use khufu_engine::Happening;

    use super::*;

    fn event(at: u64) -> Event {
        Event { at, what: Happening::Warning { replicant: None, message: String::new() } }
    }

    async fn at(events: &mut Events) -> u64 {
        match events.next().await.unwrap() {
            Followed::Event(_, event) => event.at,
            Followed::Gap(_) => panic!("a gap"),
        }
    }

    #[tokio::test]
    async fn a_reader_resumes_where_it_was() {
        let log = EventLog::new(7);
        let close = watch::Sender::new(false);
        for n in 1..=5 {
            log.push(event(n));
        }
        let cursor: Cursor = "7-3".parse().unwrap();
        assert_eq!(cursor.to_string(), "7-3");
        let mut events = log.follow(Some(cursor), close.subscribe());
        assert_eq!(at(&mut events).await, 4);
        assert_eq!(at(&mut events).await, 5);
        let mut fresh = log.follow(None, close.subscribe());
        log.push(event(6));
        assert_eq!(at(&mut events).await, 6);
        assert_eq!(at(&mut fresh).await, 6);
        close.send_replace(true);
        assert_eq!(events.next().await, None);
    }

    #[tokio::test]
    async fn what_is_lost_is_said() {
        let log = EventLog::new(7);
        let close = watch::Sender::new(false);
        let mut slow = log.follow(None, close.subscribe());
        for n in 1..=EVENTS_KEPT as u64 + 10 {
            log.push(event(n));
        }
        assert_eq!(slow.next().await.unwrap(), Followed::Gap(Cursor { process: 7, number: 10 }));
        assert_eq!(at(&mut slow).await, 11);
        let mut other = log.follow(Some(Cursor { process: 6, number: 2 }), close.subscribe());
        assert!(matches!(other.next().await.unwrap(), Followed::Gap(_)));
        let mut ahead = log.follow(Some(Cursor { process: 7, number: 99_999 }), close.subscribe());
        assert!(matches!(ahead.next().await.unwrap(), Followed::Gap(_)));
        assert!("garbage".parse::<Cursor>().is_err());
    }
}
