//! Sends each task to the part that does it.

use khufu_crdt::{DocumentId, ReplicantId};

use crate::engine::Task;
use crate::{Engine, RequestError};

impl Engine {
    /// Works on a resident document.
    pub(crate) fn perform(&mut self, id: &ReplicantId, task: Task) {
        match task {
            Task::Push { .. }
            | Task::Told { .. }
            | Task::Sync { .. }
            | Task::Meet { .. }
            | Task::Catchup { .. }
            | Task::Place
                if self.is_full() => {}
            Task::Request { origin, who, request } => self.request_for(id, origin, who, request),
            Task::Push { from, push } => self.pushed(id, &from, push),
            Task::Told { from, told } => self.told(id, &from, told),
            Task::Sync { from, frame } => self.sync_step(id, &from, frame),
            Task::Meet { with } => self.begin_session(id, &with),
            Task::Catchup { node, heads, knows, epoch } => self.catch_up(id, &node, &heads, &knows, epoch),
            Task::Work => self.work(id),
            Task::Done { doing, result } => self.done(id, doing, result),
            Task::Side(side) => self.look(id, side),
            Task::Place => self.place(id),
            Task::Compact | Task::Close | Task::Report if self.is_full() => {}
            Task::Compact => self.compact(id),
            Task::Close => self.close(id),
            Task::Report => self.report_now(id),
        }
    }

    /// Works on a replicant that this node knows nothing of.
    pub(crate) fn perform_without(&mut self, id: &ReplicantId, task: Task) {
        match task {
            // Whoever tells of it thinks that it lives here. That is seen when it is complete.
            Task::Push { from, push } => {
                if self.unknown(push.document.clone(), &from) {
                    self.pushed(id, &from, push);
                }
            }
            Task::Told { from, told } => {
                if self.unknown(DocumentId { replicant: id.clone(), epoch: told.epoch }, &from) {
                    self.told(id, &from, told);
                }
            }
            Task::Sync { from, frame } => {
                if !(frame.initiator && frame.seq == 0) {
                    self.counters.ignored += 1;
                } else if self.unknown(frame.document.clone(), &from) {
                    self.sync_step(id, &from, frame);
                }
            }
            Task::Request { origin, .. } => {
                self.answer(&origin, Err(RequestError::NotFound { id: id.clone(), unreachable: Vec::new() }));
            }
            Task::Side(crate::work::Side::Verify(job)) => self.held(job, id, None),
            Task::Meet { .. }
            | Task::Catchup { .. }
            | Task::Work
            | Task::Done { .. }
            | Task::Side(_)
            | Task::Place
            | Task::Compact
            | Task::Close
            | Task::Report => {}
        }
    }
}
