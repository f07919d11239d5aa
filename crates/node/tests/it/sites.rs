//! Several real nodes in one process, over real connections.

use std::time::Duration;

use khufu_node::{Builder, Node};
use khufu_p2p::Psk;
use serde_json::json;

use crate::client::{Answer, Api, Fixture, builder, eventually};

pub(crate) async fn site(name: &str, psk: Psk, bootstrap: &[String], more: impl FnOnce(Builder) -> Builder) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let mut builder = builder(name, dir.path()).psk(psk).listen("/ip4/127.0.0.1/tcp/0").allow_faults(true);
    for address in bootstrap {
        builder = builder.bootstrap(address);
    }
    let node = more(builder).start().await.unwrap();
    Fixture { node, dir }
}

pub(crate) async fn two() -> (Fixture, Fixture) {
    let psk = Psk::generate();
    let paris = site("paris", psk, &[], |builder| builder.label("region", "west")).await;
    let rennes = site("rennes", psk, &paris.node.addresses(), |builder| builder).await;
    for (fixture, other) in [(&paris, "rennes"), (&rennes, "paris")] {
        fixture.api().until("/v1/sites", |answer| alive(answer, other)).await;
    }
    (paris, rennes)
}

pub(crate) fn alive(answer: &Answer, name: &str) -> bool {
    answer
        .json
        .as_array()
        .is_some_and(|sites| sites.iter().any(|site| site["site"] == name && site["state"] == "alive"))
}

fn file(fixture: &Fixture, id: &str) -> String {
    std::fs::read_to_string(fixture.dir.path().join(id)).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_hold_the_same() {
    let (paris, rennes) = two().await;
    let (api, other) = (paris.api(), rennes.api());
    let put =
        api.put("/v1/replicants/web", json!({"kind": "files", "scope": "paris & rennes", "desired": {"n": 1}})).await;
    assert_eq!(put.status, 201, "{}", put.text);
    other.until("/v1/replicants/web", |answer| answer.json["status"] == "applied").await;
    let patched = other.patch("/v1/replicants/web/desired", json!({"m": 2})).await;
    assert_eq!(patched.json["desired"], json!({"n": 1, "m": 2}));
    api.until("/v1/replicants/web", |answer| answer.json["desired"]["m"] == 2 && answer.json["status"] == "applied")
        .await;
    eventually("both files hold both fields", || async {
        [&paris, &rennes].iter().all(|fixture| file(fixture, "web").contains("m: 2"))
    })
    .await;
    assert_eq!(file(&paris, "web"), file(&rennes, "web"));
    let verify = api.until("/v1/verify", |answer| answer.json["same"] == true).await;
    assert_eq!(verify.json["checked"], 1);

    let operation = json!({"type": "write", "payload": {"write": "both"}, "wait": "20s"});
    let answer = api.post("/v1/replicants/web/operations", operation).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["sites"]["rennes"]["status"], "applied", "{}", answer.text);
    assert_eq!((file(&paris, "web").as_str(), file(&rennes, "web").as_str()), ("both", "both"));

    let peers = api.get("/v1/peers").await;
    assert_eq!(peers.json[0]["node"], rennes.node.id().to_string(), "{}", peers.text);
    let explain = other.get("/v1/scope/explain?scope=%5Bregion%3Dwest%5D").await;
    assert_eq!(explain.json["places"][0]["sites"], json!(["paris"]), "{}", explain.text);
    let metrics = api.get("/metrics").await.text;
    assert!(metrics.contains("khufu_p2p_peers 1") && metrics.contains("khufu_engine_connected_nodes 1"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_parts_two_sites_and_heals() {
    let (paris, rennes) = two().await;
    let (api, other) = (paris.api(), rennes.api());
    let scope = json!({"kind": "files", "scope": "paris & rennes", "desired": {"n": 1}});
    api.put("/v1/replicants/web", scope).await;
    other.until("/v1/replicants/web", |answer| answer.json["status"] == "applied").await;

    assert!(api.put("/v1/faults", json!({"cut": ["paris"]})).await.problem(400).contains("itself"));
    api.put("/v1/faults", json!({"loss": 1.5})).await.problem(400);
    let cut = api.put("/v1/faults", json!({"cut": ["rennes"]})).await;
    assert_eq!((cut.status, &cut.json), (200, &json!({"cut": ["rennes"], "delay_ms": 0, "loss": 0.0})));
    assert_eq!(api.get("/v1/faults").await.json, cut.json);
    eventually("no connection is left", || async {
        paris.node.peers().await.is_empty() && rennes.node.peers().await.is_empty()
    })
    .await;
    api.patch("/v1/replicants/web/desired", json!({"left": 1})).await;
    other.patch("/v1/replicants/web/desired", json!({"right": 1})).await;
    assert_eq!(api.get("/v1/replicants/web").await.json["desired"], json!({"n": 1, "left": 1}));

    assert_eq!(api.put("/v1/faults", json!({})).await.status, 200);
    for api in [&api, &other] {
        api.until("/v1/replicants/web", |answer| {
            answer.json["desired"] == json!({"n": 1, "left": 1, "right": 1}) && answer.json["status"] == "applied"
        })
        .await;
    }
    assert_eq!(file(&paris, "web"), file(&rennes, "web"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_agree_through_loss_and_delay() {
    let (paris, rennes) = two().await;
    let (api, other) = (paris.api(), rennes.api());
    for api in [&api, &other] {
        assert_eq!(api.put("/v1/faults", json!({"delay_ms": 30, "loss": 0.2})).await.status, 200);
    }
    let body = json!({"kind": "files", "scope": "paris & rennes", "desired": {"n": 1}});
    assert_eq!(api.put("/v1/replicants/web", body).await.status, 201);
    for n in 0..10 {
        api.patch("/v1/replicants/web/desired", json!({"n": n})).await;
    }
    // A session that lost a frame is only given up after ten seconds, and the next may lose one, too.
    let agreed = async {
        while other.get("/v1/replicants/web").await.json["desired"]["n"] != 9 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(180), agreed).await.expect("they agree in the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_finds_the_others_by_itself() {
    let psk = Psk::generate();
    let data = tempfile::tempdir().unwrap();
    let start = |bootstrap: Vec<String>| {
        let builder = Node::builder("rennes").data(data.path()).psk(psk).preset(khufu_node::Preset::Fast);
        let builder = builder.api("127.0.0.1:0".parse().unwrap()).listen("/ip4/127.0.0.1/tcp/0");
        bootstrap.into_iter().fold(builder, Builder::bootstrap).start()
    };
    let paris = site("paris", psk, &[], |builder| builder).await;
    let rennes = start(paris.node.addresses()).await.unwrap();
    let id = rennes.id().clone();
    // Both have met, and it is noted where.
    Api::of(&rennes).until("/v1/sites", |answer| alive(answer, "paris")).await;
    eventually("the address is known", || async { rennes.peers().await.iter().any(|peer| !peer.addresses.is_empty()) })
        .await;
    rennes.shutdown().await;
    paris.api().until("/v1/peers", |answer| answer.json == json!([])).await;
    let rennes = start(Vec::new()).await.unwrap();
    assert_eq!(*rennes.id(), id);
    eventually("they have met again", || async { !rennes.peers().await.is_empty() }).await;
    rennes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_sites_apart_end_with_one_contents() {
    let psk = Psk::generate();
    let paris = site("paris", psk, &[], |builder| builder).await;
    let rennes = site("rennes", psk, &paris.node.addresses(), |builder| builder).await;
    let nantes = site("nantes", psk, &paris.node.addresses(), |builder| builder).await;
    let sites = [("paris", &paris), ("rennes", &rennes), ("nantes", &nantes)];
    let others = |name: &str| sites.iter().map(|(other, _)| *other).filter(|other| *other != name).collect::<Vec<_>>();
    for (name, fixture) in sites {
        for other in others(name) {
            fixture.api().until("/v1/sites", |answer| alive(answer, other)).await;
        }
    }
    let matrix =
        [("set", "set", "take-one"), ("set", "add", "take-both-keep-order"), ("add", "set", "take-both-reverse-order")];
    let resolutions: Vec<_> = matrix
        .into_iter()
        .map(|(before, after, result)| json!({"before": before, "after": after, "result": result}))
        .collect();
    let policy = json!({"resolutions": resolutions, "types": {"set": {"absolute": true}}});
    let body = json!({"kind": "files", "scope": "paris & rennes & nantes", "policy": policy});
    assert_eq!(paris.api().put("/v1/replicants/notes", body).await.status, 201);
    let operate = async |fixture: &Fixture, op_type: &str, payload: serde_json::Value, wait: u64| {
        let body = json!({"type": op_type, "payload": payload, "wait": wait});
        fixture.api().post("/v1/replicants/notes/operations", body).await
    };
    let answer = operate(&paris, "set", json!({"write": "init"}), 20_000).await;
    assert_eq!(answer.status, 200, "{}", answer.text);

    for (name, fixture) in sites {
        assert_eq!(fixture.api().put("/v1/faults", json!({"cut": others(name)})).await.status, 200);
        eventually("it is alone", || async { fixture.node.peers().await.is_empty() }).await;
    }
    assert_eq!(operate(&paris, "add", json!({"append": " left"}), 0).await.status, 202);
    assert_eq!(operate(&rennes, "set", json!({"write": "middle"}), 0).await.status, 202);
    assert_eq!(operate(&nantes, "add", json!({"append": " right"}), 0).await.status, 202);
    for (text, fixture) in [("init left", &paris), ("middle", &rennes), ("init right", &nantes)] {
        eventually(text, || async { file(fixture, "notes") == text }).await;
    }
    // First rennes and nantes meet, then paris joins.
    rennes.api().put("/v1/faults", json!({"cut": ["paris"]})).await;
    nantes.api().put("/v1/faults", json!({"cut": ["paris"]})).await;
    eventually("two of three agree", || async { file(&rennes, "notes") == file(&nantes, "notes") }).await;
    for (_, fixture) in sites {
        fixture.api().put("/v1/faults", json!({})).await;
    }
    paris.api().until("/v1/verify", |answer| answer.json["same"] == true && answer.json["unknown"] == json!([])).await;
    let contents = file(&paris, "notes");
    assert!(contents.starts_with("middle"), "{contents:?}");
    assert_eq!((&contents, &contents), (&file(&rennes, "notes"), &file(&nantes, "notes")));
}
