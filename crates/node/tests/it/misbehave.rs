//! A driver that does not do as it should.

use std::sync::Mutex;

use async_trait::async_trait;
use khufu_crdt::{Capabilities, OperationId};
use khufu_drivers::{Done, Driver, DriverError, Observed, Replica, Work};

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Hang,
    Panic,
    /// It does as told and never says so.
    DoAndHang,
}

#[derive(Debug)]
pub(crate) struct Misbehaving {
    way: Way,
    ran: Mutex<Vec<OperationId>>,
}

impl Misbehaving {
    pub(crate) fn new(way: Way) -> Self {
        Self { way, ran: Mutex::default() }
    }

    /// The operations that were run, in that order.
    pub(crate) fn ran(&self) -> Vec<OperationId> {
        self.ran.lock().unwrap().clone()
    }
}

#[async_trait]
impl Driver for Misbehaving {
    fn kind(&self) -> &str {
        "bad"
    }

    fn capabilities(&self) -> Capabilities {
        let able = self.way == Way::DoAndHang;
        Capabilities { operations: able, observe: able, ..Capabilities::default() }
    }

    async fn observe(&self, _: &Replica) -> Result<Observed, DriverError> {
        let marker = self.ran().last().cloned();
        Ok(Observed { exists: marker.is_some(), marker, ..Observed::default() })
    }

    async fn apply(&self, _: &Replica, work: Work) -> Result<Done, DriverError> {
        if self.way == Way::DoAndHang
            && let Work::Operation(operation) = work
        {
            self.ran.lock().unwrap().push(operation.id);
        }
        match self.way {
            Way::Hang | Way::DoAndHang => std::future::pending().await,
            Way::Panic => panic!("on purpose"),
        }
    }

    async fn delete(&self, _: &Replica) -> Result<Done, DriverError> {
        Ok(Done::default())
    }
}
