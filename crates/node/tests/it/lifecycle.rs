//! Starting, what is in the way of it, drivers that misbehave, and stopping.

use std::sync::Arc;
use std::time::Duration;

use khufu_engine::{Request, RequestError, Response};
use khufu_node::{Node, Preset, StartError, Stopped};
use khufu_store::{Fault, FaultyStore, MemoryStore, Store};
use serde_json::json;

use crate::client::{Api, builder};
use crate::misbehave::{Misbehaving, Way};

#[tokio::test]
async fn a_data_directory_serves_one_node_at_a_time() {
    let data = tempfile::tempdir().unwrap();
    let files = tempfile::tempdir().unwrap();
    let start = || {
        let driver = Arc::new(khufu_drivers::FilesDriver::new(files.path()).unwrap());
        Node::builder("paris")
            .data(data.path())
            .preset(Preset::Fast)
            .driver(driver)
            .api("127.0.0.1:0".parse().unwrap())
            .start()
    };
    let node = start().await.unwrap();
    let id = node.id().clone();
    let error = start().await.unwrap_err();
    assert!(matches!(error, StartError::Store(khufu_store::StoreError::InUse { .. })), "{error}");
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    let api = Api::of(&node);
    assert_eq!(api.put("/v1/replicants/web", json!({"kind": "files", "desired": {"n": 1}})).await.status, 201);
    assert_eq!(node.shutdown().await, Stopped::Asked);

    // The directory is free as soon as the node has stopped, and all is there.
    let node = start().await.unwrap();
    assert_eq!(*node.id(), id);
    assert_eq!(Api::of(&node).get("/v1/replicants/web").await.json["desired"], json!({"n": 1}));
    node.shutdown().await;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(data.path().join("identity.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0);
    }
}

#[tokio::test]
async fn what_is_in_the_way_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = builder("paris", dir.path()).api(address).start().await.unwrap_err().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("port 0"), "{error}");
    let listen = format!("/ip4/127.0.0.1/tcp/{}", address.port());
    let error = builder("paris", dir.path()).listen(listen.clone()).start().await.unwrap_err().to_string();
    assert!(error.contains(&listen) && error.contains("taken"), "{error}");
    let error = builder("pa/ris", dir.path()).start().await.unwrap_err().to_string();
    assert!(error.contains("site") && error.contains("'/'"), "{error}");
    let error = builder("paris", dir.path()).listen("/ip4/0.0.0.0/tcp/0").start().await.unwrap_err().to_string();
    assert!(error.contains("pre-shared key"), "{error}");
    let error = builder("paris", dir.path()).bootstrap("nonsense").start().await.unwrap_err().to_string();
    assert!(error.contains("bootstrap") && error.contains("nonsense"), "{error}");
    let twice = Arc::new(khufu_drivers::FilesDriver::new(dir.path()).unwrap());
    let error = builder("paris", dir.path()).driver(twice).start().await.unwrap_err().to_string();
    assert!(error.contains("two drivers") && error.contains("files"), "{error}");
    let error = Node::builder("paris").start().await.unwrap_err();
    assert!(matches!(error, StartError::NoData), "{error}");
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Node::builder("paris").data(file.join("x")).start().await.unwrap_err();
    assert!(matches!(error, StartError::Data { .. }), "{error}");
}

#[tokio::test]
async fn a_disk_that_fails_stops_the_node_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let memory = MemoryStore::new();
    let store = Arc::new(FaultyStore::new(memory.clone()));
    let node = builder("paris", dir.path()).store(store.clone()).start().await.unwrap();
    let api = Api::of(&node);
    assert_eq!(api.put("/v1/replicants/kept", json!({"kind": "files"})).await.status, 201);
    store.fail(1, Fault::Lost);
    let answer = api.put("/v1/replicants/lost", json!({"kind": "files"})).await;
    assert!(answer.status >= 500, "{} {}", answer.status, answer.text);
    let Stopped::Failed(reason) = node.stopped().await else { panic!("it says that it was asked to stop") };
    assert!(!reason.is_empty());
    let error = node.request("test", Request::Sites).await.unwrap_err();
    assert!(matches!(&error, RequestError::Unreachable { message } if message.contains(&reason)), "{error}");
    assert_eq!(node.shutdown().await, Stopped::Failed(reason));
    assert!(!memory.scan(b"i/kept").unwrap().records.is_empty());
}

#[tokio::test]
async fn requests_and_events_without_http() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::builder("paris").store(Arc::new(MemoryStore::new())).preset(Preset::Fast);
    let node = node.driver(Arc::new(khufu_drivers::FilesDriver::new(dir.path()).unwrap())).start().await.unwrap();
    assert_eq!(node.api_address(), None);
    assert!(node.addresses().is_empty());
    let mut events = node.events();
    let Response::Sites(sites) = node.request("test", Request::Sites).await.unwrap() else { panic!("no sites") };
    assert_eq!(sites[0].site.as_str(), "paris");
    let put = khufu_engine::Put {
        id: "web".parse().unwrap(),
        kind: Some("files".into()),
        scope: None,
        policy: None,
        desired: Some(json!({"a": 1})),
        overrides: None,
        base: None,
    };
    node.request("test", Request::Put(put)).await.unwrap();
    let first = events.next().await.unwrap();
    assert!(matches!(first, khufu_node::Followed::Event(..)), "{first:?}");
    assert!(node.metrics().await.unwrap().contains("khufu_engine_replicants 1"));
    drop(node);
    tokio::time::timeout(Duration::from_secs(10), async { while events.next().await.is_some() {} })
        .await
        .expect("a node that is dropped stops");
}

#[tokio::test]
async fn a_driver_that_hangs_or_panics_fails_its_call_only() {
    for (way, expected) in [(Way::Hang, "100 ms"), (Way::Panic, "panicked")] {
        let dir = tempfile::tempdir().unwrap();
        let driver = Arc::new(Misbehaving::new(way));
        let builder = builder("paris", dir.path()).driver(driver).driver_timeout(Duration::from_millis(100));
        let node = builder.start().await.unwrap();
        let api = Api::of(&node);
        let body = json!({"kind": "bad", "policy": {"retry": {"attempts": 1}}, "desired": {"n": 1}});
        assert_eq!(api.put("/v1/replicants/bad", body).await.status, 201);
        let failed = api.until("/v1/replicants/bad", |answer| answer.json["status"] == "failed").await;
        assert!(failed.text.contains(expected), "{}", failed.text);
        assert_eq!(api.put("/v1/replicants/good", json!({"kind": "files", "desired": {"n": 1}})).await.status, 201);
        api.until("/v1/replicants/good", |answer| answer.json["status"] == "applied").await;
        let metrics = api.get("/metrics").await.text;
        let counted = "khufu_driver_calls_total{kind=\"bad\",call=\"desired\",outcome=\"failed\"}";
        assert!(metrics.contains(counted), "{metrics}");
        node.shutdown().await;
    }
}

#[tokio::test]
async fn an_operation_that_ran_without_an_answer_is_not_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let driver = Arc::new(Misbehaving::new(Way::DoAndHang));
    let builder = builder("paris", dir.path()).driver(driver.clone()).driver_timeout(Duration::from_millis(100));
    let node = builder.start().await.unwrap();
    let api = Api::of(&node);
    assert_eq!(api.put("/v1/replicants/bad", json!({"kind": "bad"})).await.status, 201);
    let body = json!({"id": "once", "type": "add", "wait": "10s"});
    let answer = api.post("/v1/replicants/bad/operations", body).await;
    assert_eq!(answer.json["sites"]["paris"]["status"], "applied", "{}", answer.text);
    assert_eq!(driver.ran(), ["once".parse().unwrap()]);
    node.shutdown().await;
}

#[tokio::test]
async fn who_asks_and_goes_away_keeps_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let driver = Arc::new(Misbehaving::new(Way::DoAndHang));
    let builder = builder("paris", dir.path()).driver(driver).tune_engine(|config| config.requests = 2);
    let node = builder.start().await.unwrap();
    let api = Api::of(&node);
    assert_eq!(api.put("/v1/replicants/bad", json!({"kind": "bad"})).await.status, 201);
    let ask = |id: &'static str| {
        let api = api.clone();
        let body = json!({"id": id, "type": "add", "wait": "10m"});
        tokio::spawn(async move { api.post("/v1/replicants/bad/operations", body).await })
    };
    let waiting = [ask("one"), ask("two")];
    api.until("/v1/replicants", |answer| answer.status == 503).await;
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    api.until("/v1/replicants", |answer| answer.status == 200).await;
    node.shutdown().await;
}

/// Overwrites the last bytes that sled wrote, as a disk does that loses its last writes.
fn cut_off_the_end(store: &std::path::Path) {
    let log = store.join("sled/db");
    let mut bytes = std::fs::read(&log).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end.saturating_sub(3000)..=end].fill(0);
    std::fs::write(&log, bytes).unwrap();
}

#[tokio::test]
async fn a_damaged_store_is_recovered_and_what_ran_does_not_run_twice() {
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        let driver = Arc::new(khufu_drivers::FilesDriver::new(dir.path().join("files")).unwrap());
        let builder = Node::builder("paris").data(dir.path().join("data")).preset(Preset::Fast).driver(driver);
        builder.api("127.0.0.1:0".parse().unwrap()).start()
    };
    let node = start().await.unwrap();
    let api = Api::of(&node);
    let policy = json!({"types": {"add": {"absolute": false}}});
    assert_eq!(api.put("/v1/replicants/log", json!({"kind": "files", "policy": policy})).await.status, 201);
    for n in 0..12 {
        let body = json!({"type": "add", "payload": {"append": format!("{n};")}, "wait": "10s"});
        assert_eq!(api.post("/v1/replicants/log/operations", body).await.status, 200);
    }
    node.shutdown().await;
    cut_off_the_end(&dir.path().join("data/store"));

    let node = start().await.unwrap();
    assert!(dir.path().join("data/store/damaged-1").is_dir(), "nothing was damaged: this test says nothing");
    let api = Api::of(&node);
    let answer = api.until("/v1/replicants/log", |answer| answer.json["status"] == "applied").await;
    let kept = answer.json["resolved"].as_array().unwrap().len();
    assert!(kept > 0, "{}", answer.text);
    let expected: String = (0..kept).map(|n| format!("{n};")).collect();
    assert_eq!(std::fs::read_to_string(dir.path().join("files/log")).unwrap(), expected);
    node.shutdown().await;
}
