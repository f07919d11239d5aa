//! Follows the events of a node, and notes when each came.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::http::Client;

/// What a node told of one replicant.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    /// When it had which heads.
    pub(crate) changed: Vec<(Instant, Vec<String>)>,
    /// When the node's own site reported it as applied.
    pub(crate) applied: Vec<Instant>,
}

#[derive(Debug, Default)]
struct Log {
    told: HashMap<String, Told>,
    gaps: usize,
    events: usize,
}

/// A watcher of one node.
#[derive(Debug)]
pub(crate) struct Watch {
    log: Arc<Mutex<Log>>,
    news: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    /// Begins to follow the events of the node of `site`.
    pub(crate) async fn new(host: &str, site: &str) -> Self {
        let (log, news) = (Arc::<Mutex<Log>>::default(), Arc::new(Notify::new()));
        let mut client = Client::new(host).await;
        let mut body = client.send("GET", "/v1/events", "").await.into_body();
        // Only the last state is kept of what is not measured one by one.
        let task = {
            let (log, news, site) = (log.clone(), news.clone(), site.to_owned());
            tokio::spawn(async move {
                let _client = client;
                let mut buffer = Vec::<u8>::new();
                while let Some(Ok(frame)) = body.frame().await {
                    let now = Instant::now();
                    let Ok(data) = frame.into_data() else { continue };
                    buffer.extend_from_slice(&data);
                    let Some(end) = buffer.iter().rposition(|byte| *byte == b'\n') else { continue };
                    let mut log = log.lock().unwrap();
                    for line in buffer[..end].split(|byte| *byte == b'\n') {
                        if let Some(data) = line.strip_prefix(b"data: ") {
                            log.note(now, data, &site);
                        }
                    }
                    buffer.drain(..=end);
                    drop(log);
                    news.notify_waiters();
                }
            })
        };
        Self { log, news, task }
    }

    /// What was told of one replicant so far.
    pub(crate) fn told(&self, id: &str) -> Told {
        self.log.lock().unwrap().told.get(id).cloned().unwrap_or_default()
    }

    /// Forgets what was told.
    pub(crate) fn clear(&self) {
        *self.log.lock().unwrap() = Log::default();
    }

    /// Events lost because this reader was too slow, as counts of gaps, and all events.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let log = self.log.lock().unwrap();
        (log.gaps, log.events)
    }

    /// When the node had these heads of these replicants: waits until it has all.
    pub(crate) async fn has(&self, wanted: &HashMap<String, Vec<String>>, host: &str) -> Instant {
        let mut client = Client::new(host).await;
        let begun = Instant::now();
        loop {
            let news = self.news.notified();
            let (done, lost) = {
                let log = self.log.lock().unwrap();
                // Not only the last that it had: the epoch may have been closed since, which gives a document other heads.
                let had = |id: &String, heads: &Vec<String>| {
                    let mut changed = log.told.get(id)?.changed.iter().rev();
                    changed.find(|(_, now)| now == heads).map(|(at, _)| *at)
                };
                let done: Option<Vec<Instant>> = wanted.iter().map(|(id, heads)| had(id, heads)).collect();
                (done, log.gaps > 0)
            };
            if let Some(done) = done {
                return done.into_iter().max().unwrap_or(begun);
            }
            if lost {
                let mut all = true;
                for (id, heads) in wanted {
                    all &= client.heads(id).await == *heads;
                }
                if all {
                    return Instant::now();
                }
            }
            assert!(begun.elapsed() < Duration::from_secs(600), "the node at {host} never had everything");
            let _ = tokio::time::timeout(Duration::from_millis(100), news).await;
        }
    }
}

impl Log {
    fn note(&mut self, now: Instant, data: &[u8], site: &str) {
        self.events += 1;
        let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let wanted = |name: &[u8]| data.windows(name.len()).any(|window| window == name);
        if wanted(b"\"event\":\"changed\"") {
            let event: Value = serde_json::from_slice(data).expect("JSON");
            let heads = event["heads"].as_array().into_iter().flatten();
            let heads = heads.filter_map(|head| head.as_str().map(str::to_owned)).collect();
            self.told.entry(text(&event, "replicant")).or_default().changed.push((now, heads));
        } else if wanted(b"\"event\":\"reported\"") && wanted(b"\"status\":\"applied\"") {
            let event: Value = serde_json::from_slice(data).expect("JSON");
            if text(&event, "site") == site {
                self.told.entry(text(&event, "replicant")).or_default().applied.push(now);
            }
        } else if wanted(b"\"event\":\"gap\"") {
            self.gaps += 1;
        }
    }
}
