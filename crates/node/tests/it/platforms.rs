//! Platforms that can be reached, or not, or of which that is not known yet; and what is taken away there.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use khufu_crdt::Capabilities;
use khufu_drivers::{Done, Driver, DriverError, Observed, Replica, Work};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::client::{Answer, Api, builder};

/// A driver that says what it is told to of its platform.
struct Distant(watch::Sender<Option<bool>>);

#[async_trait]
impl Driver for Distant {
    fn kind(&self) -> &str {
        "distant"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    async fn observe(&self, _: &Replica) -> Result<Observed, DriverError> {
        Ok(Observed::default())
    }

    async fn apply(&self, _: &Replica, _: Work) -> Result<Done, DriverError> {
        Ok(Done::default())
    }

    async fn delete(&self, _: &Replica) -> Result<Done, DriverError> {
        Ok(Done::default())
    }

    fn reachable(&self) -> Option<watch::Receiver<Option<bool>>> {
        Some(self.0.subscribe())
    }
}

fn away_since(answer: &Answer) -> Option<u64> {
    answer.json[0]["away"]["distant"].as_u64()
}

#[tokio::test]
async fn a_platform_is_away_from_the_start_of_a_node_until_it_has_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (platform, _) = watch::channel(None);
    let driver = Arc::new(Distant(platform.clone()));
    let node = builder("paris", dir.path()).driver(driver).start().await.unwrap();
    let api = Api::of(&node);
    let first = api.get("/v1/sites").await;
    let began = away_since(&first).unwrap();
    assert_eq!(first.json[0]["away"]["files"], Value::Null);
    // That it does not answer is nothing new, and that it does is.
    platform.send_replace(Some(false));
    platform.send_replace(Some(true));
    api.until("/v1/sites", |answer| away_since(answer).is_none()).await;
    platform.send_replace(Some(false));
    let later = away_since(&api.until("/v1/sites", |answer| away_since(answer).is_some()).await).unwrap();
    assert!(later >= began);
    node.shutdown().await;
}

/// A driver of what others may take away: what was made there since.
#[derive(Default)]
struct Robbed(Mutex<Vec<String>>);

#[async_trait]
impl Driver for Robbed {
    fn kind(&self) -> &str {
        "robbed"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { operations: true, reset: true, reset_is_loss: true, observe: true, ..Capabilities::default() }
    }

    async fn observe(&self, _: &Replica) -> Result<Observed, DriverError> {
        Ok(Observed::default())
    }

    async fn apply(&self, replica: &Replica, work: Work) -> Result<Done, DriverError> {
        let mut made = self.0.lock().unwrap();
        match work {
            Work::Operation(_) if made.is_empty() => return Err(DriverError::Lost { place: replica.id.to_string() }),
            Work::Operation(operation) => made.push(operation.id.to_string()),
            Work::Desired(_) => *made = vec!["desired".to_owned()],
            Work::Reset => made.clear(),
        }
        Ok(Done::default())
    }

    async fn delete(&self, _: &Replica) -> Result<Done, DriverError> {
        Ok(Done::default())
    }
}

#[tokio::test]
async fn what_was_taken_away_is_made_anew_before_an_operation_is_run_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let driver = Arc::new(Robbed::default());
    let node = builder("paris", dir.path()).driver(driver.clone()).start().await.unwrap();
    let api = Api::of(&node);
    assert_eq!(api.put("/v1/replicants/r", json!({"kind": "robbed", "desired": {"n": 1}})).await.status, 201);
    for id in ["one", "two"] {
        let body = json!({"id": id, "type": "add", "wait": "10s"});
        let answer = api.post("/v1/replicants/r/operations", body).await;
        assert_eq!(answer.json["sites"]["paris"]["status"], "applied", "{}", answer.text);
        if id == "one" {
            driver.0.lock().unwrap().clear();
        }
    }
    assert_eq!(*driver.0.lock().unwrap(), ["desired", "one", "two"]);
    node.shutdown().await;
}
