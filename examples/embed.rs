//! A service that embeds a node, with a driver of its own: what this platform holds is a map in memory.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use khufu::drivers::{Done, DriverError, Observed, Replica, Work, digest};
use khufu::{Capabilities, Driver, Node, ReplicantId, Request};
use serde_json::{Value, json};

#[derive(Default)]
struct Board(Mutex<BTreeMap<ReplicantId, Value>>);

impl Board {
    fn held(&self) -> MutexGuard<'_, BTreeMap<ReplicantId, Value>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Driver for Board {
    fn kind(&self) -> &str {
        "board"
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities { observe: true, ..Capabilities::default() }
    }
    async fn observe(&self, replica: &Replica) -> Result<Observed, DriverError> {
        let digest = self.held().get(&replica.id).map(|value| digest(value.to_string().as_bytes()));
        Ok(Observed { exists: digest.is_some(), digest, ..Observed::default() })
    }
    async fn apply(&self, replica: &Replica, work: Work) -> Result<Done, DriverError> {
        let Work::Desired(value) = work else { return Ok(Done::default()) };
        let digest = Some(digest(value.to_string().as_bytes()));
        self.held().insert(replica.id.clone(), value);
        Ok(Done { digest, ..Done::default() })
    }
    async fn delete(&self, replica: &Replica) -> Result<Done, DriverError> {
        self.held().remove(&replica.id);
        Ok(Done::default())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (dir, board) = (tempfile::tempdir()?, Arc::new(Board::default()));
    let node = Node::builder("paris").data(dir.path()).driver(board.clone()).start().await?;
    let mut events = node.events();
    let motd = json!({"id": "motd", "kind": "board", "desired": {"text": "good morning"}});
    node.request("ana", Request::Put(serde_json::from_value(motd)?)).await?;
    while board.held().is_empty() {
        println!("{:?}", events.next().await.ok_or("the node has stopped")?);
    }
    println!("the board holds {:?}", board.held());
    node.shutdown().await;
    Ok(())
}
