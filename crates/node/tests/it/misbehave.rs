//! A driver that does not do as it should.

use async_trait::async_trait;
use khufu_crdt::Capabilities;
use khufu_drivers::{Done, Driver, DriverError, Observed, Replica, Work};

/// How.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    Hang,
    Panic,
}

#[derive(Debug)]
pub(crate) struct Misbehaving(pub(crate) Way);

#[async_trait]
impl Driver for Misbehaving {
    fn kind(&self) -> &str {
        "bad"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    async fn observe(&self, _: &Replica) -> Result<Observed, DriverError> {
        Ok(Observed::default())
    }

    async fn apply(&self, _: &Replica, _: Work) -> Result<Done, DriverError> {
        match self.0 {
            Way::Hang => std::future::pending().await,
            Way::Panic => panic!("on purpose"),
        }
    }

    async fn delete(&self, _: &Replica) -> Result<Done, DriverError> {
        Ok(Done::default())
    }
}
