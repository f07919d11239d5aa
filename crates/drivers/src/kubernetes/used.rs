//! Of which kinds there may be objects of replicants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use khufu_crdt::ReplicantId;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::kinds::{Kind, Name};
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

    fn may_be(&self, id: &ReplicantId) -> bool {
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
    /// Whether nobody else may have objects of it, since all that there were have been seen.
    is_whole: bool,
}

impl Used {
    /// Whether a replicant may have objects of it.
    pub(super) fn may_be_of(&self, id: &ReplicantId) -> bool {
        !self.is_whole || self.owners.may_be(id)
    }
}

/// Of which kinds all objects were seen, at one server.
#[derive(Default)]
struct Seen {
    /// See [`Server::moves`].
    moves: u64,
    listed: BTreeSet<Name>,
    /// Those of the first look that knew of all kinds which it could not list. What is no kind then is one later of which nobody
    /// had anything before.
    hidden: Option<BTreeSet<Name>>,
    /// Those of which it was said that they could not be listed.
    told: BTreeSet<Name>,
}

impl Seen {
    fn is_whole(&self, name: &Name) -> bool {
        self.listed.contains(name) || self.hidden.as_ref().is_some_and(|hidden| !hidden.contains(name))
    }

    fn add(&mut self, survey: &Survey, moves: u64) {
        if self.moves != moves {
            *self = Self { moves, ..Self::default() };
        }
        for (kind, reason) in &survey.unlisted {
            if self.told.insert(kind.named()) {
                kind.is_not_looked_for(reason);
            }
        }
        self.told.retain(|name| !survey.listed.contains(name));
        self.listed.extend(survey.listed.iter().cloned());
        if survey.knows_all {
            let hidden = || survey.unlisted.iter().map(|(kind, _)| kind.named()).collect();
            self.hidden.get_or_insert_with(hidden);
        }
    }
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
    kinds: BTreeMap<Name, Used>,
    seen: Seen,
    /// What the last look has shown; none before there was one.
    looked: Option<Looked>,
    /// The one that is under way.
    running: Option<(watch::Receiver<Option<DriverError>>, AbortHandle)>,
}

impl State {
    /// What is known of a kind, which is served as this.
    fn used(&mut self, kind: &Kind) -> &mut Used {
        let new = || Used { kind: kind.clone(), owners: Arc::default(), namespaces: BTreeSet::new(), is_whole: false };
        let used = self.kinds.entry(kind.named()).or_insert_with(new);
        if used.kind != *kind {
            used.kind.clone_from(kind);
        }
        used
    }

    /// What is known of the server that is reached now.
    fn known(&self, server: &Server) -> Option<(Vec<Used>, Looked)> {
        let looked = self.looked.clone().filter(|looked| looked.moves == server.moves())?;
        let kinds = self.kinds.iter();
        let kinds = kinds.map(|(name, used)| Used { is_whole: self.seen.is_whole(name), ..used.clone() });
        Some((kinds.collect(), looked))
    }

    fn is_due(&self, server: &Server) -> bool {
        let is_old = |looked: &Looked| {
            looked.moves != server.moves() || looked.again.is_some_and(|again| again <= Instant::now())
        };
        self.looked.as_ref().is_none_or(is_old)
    }
}

/// How much a look has seen.
#[derive(Clone)]
pub(super) struct Looked {
    /// Whether any kind could be listed.
    pub(super) listed: bool,
    /// Why one of those that may not be listed was not.
    pub(super) refused: Option<String>,
    /// Why one of those that may be listed was not: of that kind there may be objects of anybody.
    pub(super) missed: Option<String>,
    /// When it is done again, if it is to be.
    again: Option<Instant>,
    /// When it may be done again, if somebody asks for it.
    soon: Instant,
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

    /// A kind that was in use is served as this now.
    pub(super) fn is_served_as(&self, kind: &Kind) {
        self.state().used(kind);
    }

    /// What was refused may be allowed the next time. However many ask for it, one look does not follow the other at once.
    pub(super) fn look_again(&self) {
        if let Some(looked) = &mut self.state().looked {
            looked.again = Some(looked.again.map_or(looked.soon, |again| again.min(looked.soon)));
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
            let (again, soon) = (Instant::now() + pause, Instant::now() + pause / 10);
            match survey {
                Ok(survey) => {
                    state.seen.add(&survey, moves);
                    for (kind, owners) in survey.found {
                        Arc::make_mut(&mut state.used(&kind).owners).extend(owners);
                    }
                    let Survey { listed, refused, missed, .. } = survey;
                    // What cannot be listed may be some time.
                    let again = (missed.is_some() || refused.is_some()).then_some(again);
                    state.looked = Some(Looked { listed: !listed.is_empty(), refused, missed, again, soon, moves });
                }
                Err(error) => {
                    if let Some(looked) = &mut state.looked {
                        (looked.again, looked.soon) = (Some(again), soon);
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
