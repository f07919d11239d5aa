//! A directory that one driver works in at a time.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::checkpoint::Keeper;
use super::place::Place;
use super::replicas::Replicas;
use super::step::Hook;
use crate::DriverError;

/// Whoever is not the first is to ask again after that.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A directory, opened as soon as no other driver works in it.
#[derive(Debug)]
pub(super) struct Opening {
    place: Arc<Place>,
    keeper: OnceLock<Keeper>,
    turn: Mutex<()>,
}

impl Opening {
    pub(super) fn new(dir: &Path, hook: Hook) -> Result<Self, DriverError> {
        let place = Arc::new(Place::new(dir, hook)?);
        let opening = Self { place, keeper: OnceLock::new(), turn: Mutex::default() };
        if let Err(error) = opening.replicas()
            && !matches!(error, DriverError::Unavailable { .. })
        {
            return Err(error);
        }
        Ok(opening)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.place.dir
    }

    /// The replicas; an error while another driver has them.
    pub(super) fn replicas(&self) -> Result<&Replicas, DriverError> {
        if let Some(keeper) = self.keeper.get() {
            return Ok(keeper.replicas());
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keeper) = self.keeper.get() {
            return Ok(keeper.replicas());
        }
        let replicas = Replicas::open(&self.place)?.ok_or_else(|| {
            let dir = self.place.dir.display();
            let reason = format!("another driver works in {dir}: stop it, or name another directory");
            DriverError::Unavailable { reason, retry_after: Some(ASK_AGAIN_AFTER) }
        })?;
        let keeper = Keeper::start(Arc::new(replicas))?;
        Ok(self.keeper.get_or_init(|| keeper).replicas())
    }
}
