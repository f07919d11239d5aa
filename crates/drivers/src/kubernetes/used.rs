//! Of which kinds there may be objects of replicants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use khufu_crdt::ReplicantId;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::kinds::Kind;
use super::server::Server;
use super::stamp;
use super::survey::Survey;
use crate::DriverError;

/// The longest that a look at all kinds may take.
const LIMIT: Duration = Duration::from_secs(600);

/// The most replicants of which it is remembered that they may have objects of one kind.
const MAX_OWNERS: usize = 100_000;

/// Who may have objects of a kind: those of whom there were some when all of them were listed, and those who have made one since.
#[derive(Clone, Default)]
pub(super) struct Owners {
    numbers: BTreeSet<u64>,
    /// There are more than are remembered, or such of whom nothing is known.
    anybody: bool,
}

impl Owners {
    /// One more, by the number of its label.
    pub(super) fn add(&mut self, number: Option<u64>) {
        match number {
            Some(number) if self.numbers.len() < MAX_OWNERS => _ = self.numbers.insert(number),
            _ => self.anybody = true,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_empty() && !self.anybody
    }

    pub(super) fn may_be(&self, id: &ReplicantId) -> bool {
        self.anybody || stamp::number(&stamp::label(id)).is_none_or(|number| self.numbers.contains(&number))
    }

    fn extend(&mut self, other: Self) {
        self.anybody |= other.anybody;
        other.numbers.into_iter().for_each(|number| self.add(Some(number)));
    }
}

/// A kind of which there may be objects of replicants.
#[derive(Clone)]
pub(super) struct Used {
    pub(super) kind: Kind,
    pub(super) owners: Arc<Owners>,
    /// Where they were made since this process has begun.
    pub(super) namespaces: BTreeSet<String>,
}

/// The kinds in use: what an earlier process has made is looked for once, in all kinds. Such a look goes on though whoever
/// has asked for it has given up, so that it comes to its end however many kinds there are.
pub(super) struct InUse {
    /// What could not be looked for is looked for again after so long.
    again: Duration,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    kinds: BTreeMap<(String, String), Used>,
    /// What the last look has shown; none before there was one.
    looked: Option<Looked>,
    /// The one that is under way.
    running: Option<(watch::Receiver<Option<DriverError>>, AbortHandle)>,
}

impl State {
    fn used(&mut self, kind: &Kind) -> &mut Used {
        let name = (kind.resource.group.clone(), kind.resource.kind.clone());
        let new = || Used { kind: kind.clone(), owners: Arc::default(), namespaces: BTreeSet::new() };
        self.kinds.entry(name).or_insert_with(new)
    }

    /// What is known of the server that is reached now.
    fn known(&self, server: &Server) -> Option<(Vec<Used>, Looked)> {
        let looked = self.looked.clone().filter(|looked| looked.moves == server.moves())?;
        Some((self.kinds.values().cloned().collect(), looked))
    }

    fn is_due(&self, server: &Server) -> bool {
        let is_old = |looked: &Looked| {
            looked.moves != server.moves() || looked.again.is_some_and(|again| again <= Instant::now())
        };
        self.looked.as_ref().is_none_or(is_old)
    }
}

/// How much a look has seen.
#[derive(Clone, Default)]
pub(super) struct Looked {
    /// Whether any kind could be listed.
    pub(super) listed: bool,
    /// Why one of those that may not be listed was not.
    pub(super) refused: Option<String>,
    /// Why one of those that may be listed was not: of that kind there may be objects of anybody.
    pub(super) missed: Option<String>,
    /// When it is done again, if it is to be.
    again: Option<Instant>,
    /// Which server was looked at; see [`Server::moves`].
    moves: u64,
}

impl InUse {
    pub(super) fn new(again: Duration) -> Self {
        Self { again, state: Arc::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        state(&self.state)
    }

    /// All of them, and how much the look that this is known from has seen. While one is repeated, what was known before counts,
    /// so whoever concludes from it that something is not there has to ask whether it has missed anything.
    pub(super) async fn all(&self, server: &Arc<Server>) -> Result<(Vec<Used>, Looked), DriverError> {
        let mut running = {
            let mut state = self.state();
            let is_due = state.is_due(server);
            let running = state.running.take().filter(|(running, _)| running.has_changed().is_ok());
            state.running = if is_due { Some(running.unwrap_or_else(|| self.look(server.clone()))) } else { running };
            match (state.known(server), &state.running) {
                (Some(known), _) => return Ok(known),
                (None, running) => running.as_ref().map(|(running, _)| running.clone()),
            }
        };
        if let Some(running) = &mut running
            && let Ok(said) = running.wait_for(Option::is_some).await
            && let Some(error) = &*said
        {
            return Err(error.clone());
        }
        self.state().known(server).ok_or_else(|| {
            let reason = "the look at all kinds has ended without saying anything".to_owned();
            DriverError::Unavailable { reason, retry_after: None }
        })
    }

    /// A kind is in use from now on, by this replicant.
    pub(super) fn add(&self, kind: &Kind, namespace: &str, id: &ReplicantId) {
        let mut state = self.state();
        let used = state.used(kind);
        if !used.owners.may_be(id) {
            Arc::make_mut(&mut used.owners).add(stamp::number(&stamp::label(id)));
        }
        if !namespace.is_empty() && !used.namespaces.contains(namespace) {
            used.namespaces.insert(namespace.to_owned());
        }
    }

    /// What was refused may be allowed the next time.
    pub(super) fn look_again(&self) {
        if let Some(looked) = &mut self.state().looked {
            looked.again = Some(Instant::now());
        }
    }

    /// Looks at all kinds, in a task of its own. Its receiver hears of an error, or that the sender is gone.
    fn look(&self, server: Arc<Server>) -> (watch::Receiver<Option<DriverError>>, AbortHandle) {
        let (sender, receiver) = watch::channel(None);
        let (shared, pause) = (self.state.clone(), self.again);
        let task = tokio::spawn(async move {
            let moves = server.moves();
            let survey = tokio::time::timeout(LIMIT, server.survey(stamp::REPLICANT)).await;
            let survey = survey.unwrap_or_else(|_| {
                let reason = format!("not all kinds could be looked at within {} s", LIMIT.as_secs());
                Err(DriverError::Unavailable { reason, retry_after: None })
            });
            let mut state = state(&shared);
            state.running = None;
            let again = Instant::now() + pause;
            match survey {
                Ok(survey) => {
                    for (kind, owners) in survey.found {
                        Arc::make_mut(&mut state.used(&kind).owners).extend(owners);
                    }
                    let Survey { listed, refused, missed, .. } = survey;
                    let again = missed.is_some().then_some(again);
                    state.looked = Some(Looked { listed, refused, missed, again, moves });
                }
                Err(error) => {
                    if let Some(looked) = &mut state.looked {
                        looked.again = Some(again);
                    }
                    let _ = sender.send(Some(error));
                }
            }
        });
        (receiver, task.abort_handle())
    }
}

fn state(shared: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for InUse {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.state().running {
            task.abort();
        }
    }
}
