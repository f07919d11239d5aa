//! Looks at the platform that are asked for beside the work: for drift, for what a change would do, for a comparison.

use khufu_crdt::{Condition, DriftPolicy, Health, Observation, ReplicantId, clip_output};

use super::Side;
use crate::timers::Due;
use crate::{DriverDone, DriverFailure, Engine, Happening};

/// The longest pause before a platform is looked at again that could not be looked at.
const MAX_LOOK_MS: u64 = 300_000;
/// The longest pause before a replica is put back again that is changed by hand ever again; and how long it must have been
/// left alone for that to be over.
const MAX_CORRECT_MS: u64 = 300_000;
const CALM_MS: u64 = 2 * MAX_CORRECT_MS;
/// After so many times in a row it is said that somebody fights.
const FIGHT: u32 = 3;
/// The most looks at one replica that wait for its driver.
const MAX_SIDE: usize = 64;

impl Engine {
    /// Looks at the platform for somebody, as soon as the driver is free.
    pub(crate) fn look(&mut self, id: &ReplicantId, side: Side) {
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        // What the driver is just doing may have been seen before the change that is told of: it is looked again afterwards.
        let nothing = side == Side::Drift && resident.work.is_blank();
        if nothing || resident.side.contains(&side) {
            return;
        }
        if resident.side.len() >= MAX_SIDE {
            let message = "too many look at this replica: ask again later".to_owned();
            let failure =
                DriverFailure { message, permanent: false, retry_after_ms: None, unknown: false, lost: false };
            return self.side_answer(id, side, Err(failure));
        }
        let known = self.config.kinds.contains_key(&resident.doc.state().kind);
        if !known || resident.provisional {
            return self.side_answer(id, side, Ok(DriverDone::default()));
        }
        resident.side.push_back(side);
        self.work(id);
    }

    pub(super) fn side_done(&mut self, id: &ReplicantId, side: Side, result: Result<DriverDone, DriverFailure>) {
        match &result {
            _ if matches!(side, Side::Diff(_)) => {}
            Ok(done) => self.looked(id, done),
            Err(failure) if side == Side::Drift => self.not_seen(id, failure),
            Err(_) => {}
        }
        if let Some(resident) = self.replicants.resident.get_mut(id) {
            resident.looked_last = true;
        }
        self.side_answer(id, side, result);
    }

    /// The platform was looked at.
    fn looked(&mut self, id: &ReplicantId, done: &DriverDone) {
        let at = self.now.wall_ms;
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        resident.work.unseen = 0;
        let before = resident.work.observed.as_ref().and_then(|seen| seen.drift.clone());
        let policy = resident.doc.state().policy.drift;
        let said = resident.work.knows_contents() && policy != DriftPolicy::Ignore;
        // While it is not known what was done here, nobody can tell whose doing it is. The driver will not tell of it again.
        resident.missed_drift |= done.drift.is_some() && !said && policy != DriftPolicy::Ignore;
        let drift = done.drift.clone().filter(|_| said);
        let (digest, health) = (done.digest.clone(), done.health.clone());
        resident.work.observed = Some(Observation { at, digest, drift: drift.clone(), health });
        let Some(drift) = drift else { return };
        if before.as_ref() != Some(&drift) {
            let message = format!("somebody changed the replica by hand: {drift}");
            self.event(Happening::Warning { replicant: Some(id.clone()), message });
        }
        if policy == DriftPolicy::Correct {
            self.correct(id);
        }
    }

    /// Has a replica put back, after a pause if that is done ever again: whoever changes it may be a program that puts it
    /// back, too.
    fn correct(&mut self, id: &ReplicantId) {
        if !self.can_begin_anew(id) {
            return;
        }
        let Some((times, left)) = self.put_back(id) else { return };
        if times >= FIGHT {
            let message = format!(
                "the replica was put back {times} times in a row, and is changed again: have whoever does so leave it alone, \
                 or let the policy ignore these fields; the next attempt is in {} s",
                left.div_ceil(1000)
            );
            self.warn(Some(id.clone()), message);
        }
        self.look_again(id, left);
    }

    /// Has a replica made anew that somebody has changed. If that was done just now, how often in a row and how many
    /// milliseconds are to pass before it is done again.
    pub(super) fn put_back(&mut self, id: &ReplicantId) -> Option<(u32, u64)> {
        let at = self.now.wall_ms;
        let resident = self.replicants.resident.get_mut(id)?;
        let (times, last) = resident.work.corrected;
        let since = at.saturating_sub(last);
        // A clock that was ahead is set right one day.
        let times = if since >= CALM_MS || last > at { 0 } else { times };
        let pause = if times == 0 { 0 } else { (1000 << (times - 1).min(20)).min(MAX_CORRECT_MS) };
        if since < pause {
            return Some((times, pause - since));
        }
        resident.work.corrected = (times.saturating_add(1), at);
        let known = !resident.work.rebuild || resident.work.put_back;
        (resident.work.rebuild, resident.work.put_back) = (true, known);
        None
    }

    pub(super) fn look_again(&mut self, id: &ReplicantId, pause_ms: u64) {
        let pause_us = pause_ms.saturating_mul(1000);
        let jitter = self.jitter(id.as_str(), pause_us / 4);
        self.timers.set(Due::Look(id.clone()), self.now.monotonic_us.saturating_add(pause_us).saturating_add(jitter));
    }

    /// The platform could not be looked at, though something may have happened there: nobody knows how the replica is doing
    /// until somebody could.
    fn not_seen(&mut self, id: &ReplicantId, failure: &DriverFailure) {
        let at = self.now.wall_ms;
        let Some(resident) = self.replicants.resident.get_mut(id) else { return };
        let work = &mut resident.work;
        let health = work.observed.as_mut().and_then(|seen| Some((&mut seen.at, seen.health.as_mut()?)));
        if let Some((seen_at, health)) = health
            && health.condition != Condition::Unknown
        {
            let message = format!("the platform cannot be looked at: {}", failure.message);
            *health = Health { condition: Condition::Unknown, message: clip_output(&message) };
            *seen_at = at;
        }
        let pause = 1000 << work.unseen.min(20);
        work.unseen = work.unseen.saturating_add(1);
        let pause = pause.min(MAX_LOOK_MS).max(failure.retry_after_ms.unwrap_or(0).min(MAX_LOOK_MS));
        self.look_again(id, pause);
    }

    fn side_answer(&mut self, id: &ReplicantId, side: Side, result: Result<DriverDone, DriverFailure>) {
        match side {
            Side::Drift => {}
            Side::Verify(job) => {
                let holding = self.holding(id, result.err().map(|failure| failure.message));
                self.held(job, id, Some(holding));
            }
            Side::Diff(origin) => self.planned(id, &origin, result),
        }
    }
}
