//! What every driver does.

use async_trait::async_trait;
use khufu_crdt::{Capabilities, Health, Operation, OperationId, ReplicantId, SiteName};
use serde_json::{Map, Value};
use tokio::sync::{broadcast, watch};

use crate::DriverError;

/// The replica that is worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// The replicant that it is a replica of.
    pub id: ReplicantId,
    /// The site that has it: the one whose platform this driver works on.
    pub site: SiteName,
    /// What the platform called it when it last said so.
    pub local_id: Option<String>,
    /// The digest of the contents that were last applied; drift is measured against it if the driver does not remember
    /// better.
    pub expected: Option<String>,
    /// What the policy of the replicant tells the driver.
    pub options: Map<String, Value>,
    /// When it is observed, or an operation is run on it: the desired state that was last applied, if nothing else is wanted
    /// since.
    pub written: Option<Value>,
}

impl Replica {
    /// A replica of which nothing is known yet.
    #[must_use]
    pub fn new(id: ReplicantId, site: SiteName) -> Self {
        Self { id, site, local_id: None, expected: None, options: Map::new(), written: None }
    }
}

/// Something to do with a replica.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// Make the replica match this value, whatever it was before and whatever operations did to it. Can be repeated.
    Desired(Value),
    /// Run the operation on the replica as it is.
    Operation(Operation),
    /// Make the replica as new: what [`Driver::reset`] does.
    Reset,
}

/// What came of some work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// What the platform said, for people.
    pub output: String,
    /// What the platform calls the replica, if that is known.
    pub local_id: Option<String>,
    /// The [digest](crate::digest()) of the contents afterwards; none if there is no replica or they cannot be told.
    pub digest: Option<String>,
    /// How the replica is doing, if the platform says.
    pub health: Option<Health>,
}

/// What a look at the platform showed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// Whether there is a replica.
    pub exists: bool,
    /// The [digest](crate::digest()) of its contents.
    pub digest: Option<String>,
    /// How it differs from what was last applied, in words, if somebody changed it by hand.
    pub drift: Option<String>,
    /// The contents for people to see, at most some tens of kilobytes.
    pub contents: Option<Value>,
    /// What the platform calls it.
    pub local_id: Option<String>,
    /// The operation that ran last, if the platform can tell. After a crash this is how an operation that must not run
    /// twice is looked up: it ran if it is named here, and did not if another one or none is.
    pub marker: Option<OperationId>,
    /// An operation that was begun, and of which not even the platform can say how far it came. It is not run again on these
    /// contents: they are made anew, if that is possible.
    pub unsettled: Option<OperationId>,
    /// How the replica is doing, if the platform says.
    pub health: Option<Health>,
}

/// A stream of replicants whose replica may have changed by hand. A receiver that is too slow
/// ([`Lagged`](broadcast::error::RecvError::Lagged)) should look at all of them.
pub type Changes = broadcast::Receiver<ReplicantId>;

/// The code that applies what has been agreed on to one kind of platform.
///
/// Calls for one replica come one after the other, those for different replicas at once. A future may be dropped (a
/// time limit, the end of the process) at any point: what was asked is then done or not, and [`observe`](Self::observe)
/// tells. Two sites that run the same work must end with the same contents.
#[async_trait]
pub trait Driver: Send + Sync + 'static {
    /// The word that replicants name it by, such as `files`.
    fn kind(&self) -> &str;

    /// What it can do. Does not change while the driver lives.
    fn capabilities(&self) -> Capabilities;

    /// Looks at the replica. Changes nothing.
    ///
    /// # Errors
    /// If the platform cannot be asked. That there is no replica is no error.
    async fn observe(&self, replica: &Replica) -> Result<Observed, DriverError>;

    /// Does some work; makes the replica if there is none.
    ///
    /// # Errors
    /// The contents are then what they were; of a desired state with several parts, some may be written. Whatever is wanted
    /// then is written again.
    async fn apply(&self, replica: &Replica, work: Work) -> Result<Done, DriverError>;

    /// Takes back the operation that ran last. Only called if [`Capabilities::undo`] says so.
    ///
    /// # Errors
    /// The contents are then what they were.
    async fn undo(&self, replica: &Replica, operation: &Operation) -> Result<Done, DriverError> {
        let _ = (replica, operation);
        Err(DriverError::Unsupported { kind: self.kind().to_owned(), what: "take an operation back" })
    }

    /// Makes the replica as new, as if nothing had ever been applied. Only called if [`Capabilities::reset`] says so.
    ///
    /// # Errors
    /// The contents are then what they were.
    async fn reset(&self, replica: &Replica) -> Result<Done, DriverError> {
        let _ = replica;
        Err(DriverError::Unsupported { kind: self.kind().to_owned(), what: "reset a replica" })
    }

    /// Takes the replica away, and all that is remembered of it. Can be repeated.
    ///
    /// # Errors
    /// The replica may then still be there.
    async fn delete(&self, replica: &Replica) -> Result<Done, DriverError>;

    /// What some work, done in this order, would change: a unified diff or other text for people, empty if nothing.
    /// Changes nothing. Only called if [`Capabilities::dry_run`] says so.
    ///
    /// # Errors
    /// The error with which the work would fail, as far as that can be foreseen.
    async fn diff(&self, replica: &Replica, work: &[Work]) -> Result<String, DriverError> {
        let _ = (replica, work);
        Err(DriverError::Unsupported { kind: self.kind().to_owned(), what: "say what it would do" })
    }

    /// The fields by which the elements of lists in a desired state are told apart, in the order in which they are to be
    /// tried, given what the policy tells the driver. Empty if the driver knows nothing better than `name`. Asked when a replicant
    /// is made whose policy names none; whoever asks does not wait long, so a platform that does not answer is not waited for.
    async fn list_keys(&self, desired: &Value, options: &Map<String, Value>) -> Vec<String> {
        let _ = (desired, options);
        Vec::new()
    }

    /// Tells of replicas that may have been changed by hand, from now on. None if the driver cannot: then they have to
    /// be observed now and then.
    fn watch(&self) -> Option<Changes> {
        None
    }

    /// Whether the platform can be reached, and when that changes: nothing before that was asked for the first time. While it
    /// cannot, or nobody knows, nobody believes what was last seen of it. None if the driver cannot tell.
    fn reachable(&self) -> Option<watch::Receiver<Option<bool>>> {
        None
    }
}
