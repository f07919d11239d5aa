//! Replicants: geo-distributed resources as documents that any number of sites edit and that converge without a hub.
//!
//! This crate knows what a replicant *says*: its desired state, its operations, where it lives and by which rules. It
//! edits documents by difference, merges what sites did while they were apart, resolves the operations of all of them
//! into one list, and plans what one site still has to do. All of it is a pure function of the changes a site holds, so
//! sites with the same changes agree, whatever order these came in.
//!
//! It must never know where changes are stored, who sends them, what time it is, or what a platform makes of a plan: no
//! I/O, no clock, no randomness, no threads. Times and the bytes of actors are given from outside, changes are given out
//! to be stored and sent. It trusts no bytes: what cannot be right is refused by name, and harms nothing.
//!
//! - [`Replicant`] is one document in memory, [`State`] what it says, [`Change`] the unit that is stored and sent.
//! - [`resolve`] gives the one list of operations, [`plan`](plan()) what a site does about it.
//! - [`Report`] is what a site says of its replica: a register beside the document, one writer, the highest number wins.
//!
//! ```
//! use khufu_crdt::*;
//! use serde_json::json;
//!
//! let (paris, rennes) = (SiteName::new("paris")?, SiteName::new("rennes")?);
//! let author = |site: &SiteName, at| Author { site: site.clone(), at: Hlc::from_ms(at), who: "ann".into(), why: "".into() };
//! let id = DocumentId { replicant: ReplicantId::new("web")?, epoch: 0 };
//!
//! // Two sites begin with the same first change, which nobody has to send.
//! let mut here = Replicant::genesis(id.clone(), &Actor::new([1; 16]))?;
//! let mut there = Replicant::genesis(id, &Actor::new([2; 16]))?;
//!
//! let placement = Placement {
//!     sites: [paris.clone(), rennes.clone()].into(), leaving: [].into(), mode: Mode::Replicate, prime: None,
//!     expression: "paris & rennes".into(), decided_at: Hlc::from_ms(1), decided_by: paris.clone(),
//! };
//! let spec = Spec {
//!     kind: "files".into(), scope: "paris & rennes".into(), placement, policy: Policy::default(),
//!     desired: json!({"image": "nginx:1", "replicas": 1}), overrides: [].into(),
//! };
//! let created = here.create(&author(&paris, 1), spec)?.expect("something changed");
//! there.apply(&[created.bytes])?;
//!
//! // Apart, they edit different fields, and one field both.
//! let a = here.patch_desired(&author(&paris, 2), &json!({"image": "nginx:2", "replicas": 2}))?.expect("a change");
//! let b = there.patch_desired(&author(&rennes, 2), &json!({"tier": "front", "replicas": 3}))?.expect("a change");
//! here.apply(&[b.bytes])?;
//! there.apply(&[a.bytes])?;
//!
//! assert_eq!(here.digest(), there.digest());
//! assert_eq!(here.state().desired["image"], "nginx:2");
//! assert_eq!(here.state().desired["tier"], "front");
//!
//! // One of the two numbers counts everywhere; the other is kept until somebody picks.
//! let conflict = here.conflicts().remove(0);
//! assert_eq!(conflict.pointer(), "/desired/replicas");
//! let other = conflict.values.iter().find(|value| !value.winner).expect("another value");
//! let picked = here.pick(&author(&paris, 3), &conflict.pointer(), &other.change)?.expect("a change");
//! there.apply(&[picked.bytes])?;
//! assert_eq!(there.state().desired["replicas"], other.value);
//! assert!(there.conflicts().is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The document
//!
//! Plain Automerge maps, lists and scalars (strings as scalars), which any implementation reads:
//!
//! ```text
//! schema, id, epoch  1; the meta id; which of the replicant's documents this is
//! kind, scope        which driver; the scope as written
//! placement          {sites: {<site>: true}, leaving: {<site>: true}, mode, prime?, expression, decided_at, decided_by}
//! policy             what differs from the default
//! desired            any value
//! overrides          {<site>: a merge patch, or a JSON patch (a list), laid over desired there}
//! operations         {<id>: {type, parents: [<id>], cut, at, by, payload | blob}}
//! made               {<name>: true}: a name for each time it was made that no deletion knew of
//! deleted            {at, by, keep}: the last deletion. It counts while nothing is `made`
//! ended              {<operation id>: true}: the operations that deletions ended
//! ```
//!
//! Each change carries a message in JSON: `{site, at, who, why, what, op?}`. How concurrent edits merge: fields of maps
//! one by one, also where the maps themselves were created concurrently; elements of lists by their merge key (the
//! policy's `list_keys`, or `name`), elements of other lists by place. Where two set the same, the later counts (by
//! Automerge's order of edits, not by clocks). Removing or replacing wins over edits made meanwhile inside of what went.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod desired;
mod document;
mod hex;
mod hlc;
mod id;
mod limits;
mod operation;
mod placement;
mod plan;
mod policy;
mod report;
mod resolve;

pub use desired::overlay::{OverrideError, lay_over};
pub use document::{
    Actor, ApplyError, Author, Carried, Change, ChangeHash, Conflict, ConflictValue, Deleted, DocumentError, Edit,
    EditError, EpochRule, HistoryEntry, Loaded, MAX_AUTHOR_BYTES, ParseHashError, PathPart, Received, Replicant,
    Ripeness, SCHEMA, Spec, State, Successor, SyncState,
};
pub use hlc::{Clock, ClockAhead, Hlc};
pub use id::{DocumentId, Epoch, NameError, OperationId, ReplicantId, SiteName};
pub use limits::Limits;
pub use operation::{Operation, Operations, Payload};
pub use placement::{Mode, Placement};
pub use plan::{Applied, Capabilities, Entry, Outcome, Plan, Recovery, Step, plan};
pub use policy::{
    AfterFailure, Combine, Consistency, DriftPolicy, Policy, PolicyError, PolicyWarning, Resolution, Retry, Rule,
    TypePolicy,
};
pub use report::{Condition, Health, MAX_OUTPUT_BYTES, Observation, OperationReport, Report, Status, clip_output};
pub use resolve::{Base, Fate, Resolved, cut_after, cut_for, frontier, resolve, resolve_after};
