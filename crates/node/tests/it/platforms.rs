//! Platforms that can be reached, or not, or of which that is not known yet.

use std::sync::Arc;

use async_trait::async_trait;
use khufu_crdt::Capabilities;
use khufu_drivers::{Done, Driver, DriverError, Observed, Replica, Work};
use serde_json::Value;
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
