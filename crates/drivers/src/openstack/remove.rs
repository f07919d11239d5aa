//! Removing resources, and finding those that are to be removed.

use tokio::time::Instant;

use super::api;
use super::apply::is_among;
use super::kinds::{KINDS, Kind};
use super::local::{self, Local};
use super::mark;
use super::options::Options;
use super::replicas::{PATIENCE, Pauses, Replicas, Trace, whose, words};
use super::status::{State, state};
use crate::{Done, DriverError, Replica};

impl Replicas {
    /// The resources of some kinds that carry the mark of a replicant.
    pub(super) async fn survey(
        &self,
        replica: &Replica,
        of: &(dyn Fn(&Kind) -> bool + Sync),
    ) -> Result<Vec<Local>, DriverError> {
        let prefix = whose(replica).prefix();
        let mut found = Vec::new();
        for kind in KINDS.iter().filter(|kind| of(kind)) {
            match self.session.marked(kind, &prefix).await {
                Ok(marked) => {
                    marked.iter().for_each(|live| self.came(kind, live));
                    found.extend(marked.iter().filter_map(|live| api::id(kind, live)).map(|id| Local {
                        name: String::new(),
                        kind,
                        id,
                        found: false,
                    }));
                }
                // Who may not list them, or has no such service, has made none.
                Err(DriverError::Refused { .. } | DriverError::Invalid { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Removes all resources of a replicant that is no more wanted here.
    pub(super) async fn delete(&self, replica: &Replica) -> Result<Done, DriverError> {
        // A policy that is not understood may be what keeps them.
        let options = Options::read(&replica.options)?;
        self.take_away(replica, options.retain).await
    }

    /// Removes all resources of a replicant of which no desired state names any.
    pub(super) async fn reset(&self, replica: &Replica) -> Result<Done, DriverError> {
        Options::read(&replica.options)?;
        let done = self.take_away(replica, false).await?;
        // Nothing is a part of it, until it is written again.
        Ok(Done { local_id: Some(String::new()), ..done })
    }

    async fn take_away(&self, replica: &Replica, retain: bool) -> Result<Done, DriverError> {
        let mut all = local::read(replica.local_id.as_deref());
        if retain {
            let output = format!("{} resources left", all.len());
            return Ok(Done { output, ..Done::default() });
        }
        if !matches!(self.trace(&replica.id), Some(Trace::Tidy)) {
            let found = self.survey(replica, &|_| true).await?;
            let found: Vec<_> = found.into_iter().filter(|local| !is_among(&all, local)).collect();
            all.extend(found);
        }
        let count = all.len();
        let removed = self.remove_all(replica, all).await?;
        self.nothing_is_in_doubt(replica)?;
        self.tidied(&replica.id);
        let output = format!("{removed} resources removed, {} left", count - removed);
        Ok(Done { output, ..Done::default() })
    }

    /// Removes resources, those that need others first. How many were there and ours.
    pub(super) async fn remove_all(&self, replica: &Replica, mut all: Vec<Local>) -> Result<usize, DriverError> {
        // Of one kind, what was made last goes first.
        all.reverse();
        all.sort_by_key(|local| std::cmp::Reverse(local.kind.rank()));
        let until = Instant::now() + PATIENCE;
        let mut removed = 0;
        for local in all {
            removed += usize::from(self.remove(replica, &local, until).await?);
        }
        Ok(removed)
    }

    async fn remove(&self, replica: &Replica, local: &Local, until: Instant) -> Result<bool, DriverError> {
        let Local { name, kind, id, found } = local;
        let place = words(replica, kind, name);
        let Some(live) = self.session.get(kind, id, &place).await? else { return Ok(false) };
        // Somebody may have taken the mark off, to keep it; and of what carries none, nobody can say that it is the one that
        // was made.
        if *found || mark::begins(kind, &live, &whose(replica).prefix()) != Some(true) {
            return Ok(false);
        }
        self.session.delete(kind, id, &place).await?;
        let mut pauses = Pauses::new(until);
        loop {
            let Some(live) = self.session.get(kind, id, &place).await? else { return Ok(true) };
            let status = match state(kind, &live) {
                State::Ready => String::new(),
                State::Working(status) | State::Failed(status) => format!(": {status}"),
            };
            if !pauses.pause().await {
                let reason = format!("{place} is not gone yet{status}");
                return Err(DriverError::Unavailable { reason, retry_after: None });
            }
        }
    }
}
