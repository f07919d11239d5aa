//! What stops a write half-way: all of it is at all sites then, or nothing is anywhere, and whoever writes again is not told
//! that it is done where it is not.

use std::panic::Location;

use hyper::Method;
use khufu_test_servers::kubernetes::{ADMIN, Builder, Cluster};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::oneshot;

use super::between::{Between, Fate};
use super::rough::{said, tls};
use super::{Desk, deployment};
use crate::support::{Lab, PATIENCE, Site, until};

const PATH: &str = "/apis/apps/v1/namespaces/default/deployments/web";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const ID: &str = "kubernetes:default:deployments.apps:web";
/// What a client sends to have what others have set, and what the driver would leave alone.
const APPLY: &[&str] = &["apply-patch"];
const MERGE: &[&str] = &["merge-patch"];
const DRY: &str = "dryRun";

/// A request of somebody, as text.
fn request(token: &str, method: &str, path: &str, kind: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/{kind}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends it, and tells the status, the warnings and the body.
async fn ask(site: &Site, request: &str) -> (u16, String, Value) {
    let answer = said(site, request.as_bytes(), usize::MAX).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    let warnings: Vec<_> = head.lines().filter(|line| line.to_lowercase().starts_with("warning:")).collect();
    (code, warnings.join("\n"), serde_json::from_str(body).unwrap_or_default())
}

/// Waits until what is held has come.
#[track_caller]
fn come(site: &Site, comes: oneshot::Receiver<()>) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move {
        let come = tokio::time::timeout(PATIENCE, comes).await;
        assert!(matches!(come, Ok(Ok(()))), "{caller}: it does not come; the site logged:\n{}", site.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_interrupted_is_kept_for_all_sites_or_for_none() {
    let Some([cluster]) = Builder::start_all([Cluster::builder("paris")
        .user("ben", &["system:masters"])
        .user("zoe", &["system:masters"])])
    else {
        return;
    };
    let lab = Lab::new();
    let between = Between::start(&lab, &cluster, ADMIN, &["ben", "zoe"]).await;
    let driver = format!("kubernetes={}", between.kubeconfig.display());
    let builder = lab.site("paris").arguments(&["--driver", &driver, "--kubernetes-front", "127.0.0.1:0"]);
    let mut site = builder.start().await;
    let token = cluster.token("ben").to_owned();
    let by_hand = |arguments: &[&str]| {
        let output = cluster.kubectl(arguments);
        assert!(output.status.success(), "{output:?}");
    };
    let has = |site: &Site, what: &[&str], path: &str| Desk { cluster: &cluster, site }.has(what, path);
    let web = ["deployment", "web"];
    let image = "{.spec.template.spec.containers[0].image}";

    let made = request(
        &token,
        "POST",
        &format!("/scope/paris{}", PATH.trim_end_matches("/web")),
        "json",
        &deployment("web", None),
    );
    assert_eq!(ask(&site, &made).await.0, 201);

    // Somebody has set a field that is asked for and one that is not, and the client writes both: with all that it has read.
    let drift = |round: &str| {
        by_hand(&["set", "image", "deployment/web", &format!("web=hand:{round}")]);
        by_hand(&["label", "deployment", "web", "--overwrite", &format!("team={round}")]);
    };
    let put = async |site: &Site, round: &str, of_version: bool| {
        let (_, _, mut read) = ask(site, &request(&token, "GET", PATH, "json", &Value::Null)).await;
        // Until the driver has made an edit, no version is the newest.
        if !of_version {
            read["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
        }
        read["spec"]["template"]["spec"]["containers"][0]["image"] = json!(format!("nginx:{round}"));
        read["metadata"]["labels"].as_object_mut().expect("labels").remove("team");
        read["metadata"]["labels"]["round"] = json!(round);
        request(&token, "PUT", PATH, "json", &read)
    };
    let is_so = async |site: &Site, round: &str| {
        until(&format!("all of the round {round} is made"), || async {
            let desired = site.view(ID).await["desired"].clone();
            let found = json!([
                desired["spec"]["template"]["spec"]["containers"][0]["image"],
                desired["metadata"]["labels"]["round"],
                has(site, &web, image),
                has(site, &web, "{.metadata.labels.team}")
            ]);
            let wanted = json!([format!("nginx:{round}"), round, format!("nginx:{round}"), ""]);
            if found == wanted { Ok(()) } else { Err(format!("{found}")) }
        })
        .await;
    };

    // The node ends: the edit is kept, and the client that comes again has the rest done, too.
    for (round, has_all) in [("apply", APPLY), ("merge", MERGE)] {
        drift(round);
        let write = put(&site, round, false).await;
        let (comes, go) = between.hold(Method::PATCH, has_all, DRY);
        let mut stream = tls(&site).await;
        stream.write_all(write.as_bytes()).await.expect("it is sent");
        come(&site, comes).await;
        let builder = site.kill_9();
        drop(go);
        site = builder.start().await;
        let kept = site.view(ID).await["desired"]["metadata"]["labels"]["round"].clone();
        assert_eq!(kept, round, "what has changed here is known to all sites");
        let write = put(&site, round, false).await;
        let (code, warnings, body) = ask(&site, &write).await;
        assert!(matches!(code, 200 | 202), "{code} {warnings} {body}");
        is_so(&site, round).await;
    }

    // The client hangs up: it is finished all the same.
    for (round, has_all) in [("gone-1", APPLY), ("gone-2", MERGE)] {
        drift(round);
        let write = put(&site, round, false).await;
        let (comes, go) = between.hold(Method::PATCH, has_all, DRY);
        let mut stream = tls(&site).await;
        stream.write_all(write.as_bytes()).await.expect("it is sent");
        come(&site, comes).await;
        drop(stream);
        go.send(()).expect("it is held");
        is_so(&site, round).await;
    }
    // While it has changed nothing, it is dropped.
    drift("dropped");
    let write = put(&site, "dropped", true).await;
    let (comes, go) = between.hold(Method::PUT, &[DRY], "");
    let mut stream = tls(&site).await;
    stream.write_all(write.as_bytes()).await.expect("it is sent");
    come(&site, comes).await;
    drop(stream);
    // Its turn is the next one's as soon as that is noticed, and the version that it has read is still the newest.
    let version = has(&site, &web, "{.metadata.resourceVersion}");
    let (code, _, body) = ask(&site, &put(&site, "next", true).await).await;
    assert_eq!((code, body["metadata"]["labels"]["round"].clone()), (200, json!("next")));
    assert_ne!(version, has(&site, &web, "{.metadata.resourceVersion}"));
    drop(go);
    is_so(&site, "next").await;

    // Another was faster between the two steps, an answer is lost, the server has no time: what is left is done again, and nothing
    // twice. A patch is not run on what it has made itself.
    let list = "/spec/template/spec/containers/0/args";
    let (code, _, _) = ask(
        &site,
        &request(&token, "PATCH", PATH, "json-patch+json", &json!([{"op": "add", "path": list, "value": ["0"]}])),
    )
    .await;
    assert_eq!(code, 200);
    let mut args = vec!["0".to_owned()];
    for (number, (has_all, fate)) in [
        (MERGE, Fate::Refused(409)),
        (MERGE, Fate::Refused(503)),
        (MERGE, Fate::Unanswered),
        (APPLY, Fate::Refused(409)),
        (APPLY, Fate::Unanswered),
    ]
    .into_iter()
    .enumerate()
    {
        let round = format!("again-{number}");
        drift(&round);
        args.push(round.clone());
        let patch = json!([{"op": "test", "path": "/metadata/labels/team", "value": round},
            {"op": "remove", "path": "/metadata/labels/team"},
            {"op": "replace", "path": "/metadata/labels/round", "value": round},
            {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": format!("nginx:{round}")},
            {"op": "add", "path": format!("{list}/-"), "value": round}]);
        between.next(Method::PATCH, has_all, DRY, fate);
        let (code, warnings, body) = ask(&site, &request(&token, "PATCH", PATH, "json-patch+json", &patch)).await;
        assert_eq!((code, warnings.as_str()), (200, ""), "{round}: {body}");
        assert!(between.has_happened(), "{round}");
        assert_eq!(body["spec"]["template"]["spec"]["containers"][0]["args"], json!(args), "{round}");
        is_so(&site, &round).await;
    }

    // Whoever asks while the API server has no time to say who he is, is told to come again, and is nobody's stranger.
    let asked =
        request(cluster.token("zoe"), "PATCH", PATH, "merge-patch+json", &json!({"metadata": {"labels": {"x": "y"}}}));
    for code in [429, 503] {
        between.next(Method::POST, &["selfsubjectaccessreviews"], "", Fate::Refused(code));
        let answer = said(&site, asked.as_bytes(), usize::MAX).await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.to_lowercase().contains("retry-after: 1"), "{answer}");
    }
    assert_eq!(ask(&site, &asked).await.0, 200);

    // What the API server refuses when it tries is no edit; what it refuses afterwards is kept, and that is said.
    drift("refused");
    let before = site.view(ID).await["desired"].clone();
    let write = put(&site, "refused", true).await;
    between.next(Method::PATCH, &["apply-patch", DRY], "", Fate::Refused(422));
    assert_eq!(ask(&site, &write).await.0, 422);
    by_hand(&["label", "deployment", "web", "--overwrite", "team=newer"]);
    assert_eq!(ask(&site, &write).await.0, 409, "it was read before");
    assert_eq!(site.view(ID).await["desired"], before);
    let write = put(&site, "kept", true).await;
    between.next(Method::PATCH, MERGE, DRY, Fate::Refused(422));
    let (code, warnings, body) = ask(&site, &write).await;
    assert_eq!(code, 202, "{body}");
    assert!(warnings.contains("is kept") && warnings.contains("refused on the way"), "{warnings}");
    assert_eq!(ask(&site, &put(&site, "kept", true).await).await.0, 200);
    is_so(&site, "kept").await;

    // The same of an object that becomes a replicant: it loses what the write takes out of it.
    by_hand(&["create", "configmap", "old", "--from-literal=a=1", "--from-literal=b=2"]);
    let old = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "old"}, "data": {"a": "1"}});
    let (comes, go) = between.hold(Method::PATCH, MERGE, DRY);
    let mut stream = tls(&site).await;
    let write = request(&token, "PUT", &format!("/scope/paris{MAPS}/old"), "json", &old);
    stream.write_all(write.as_bytes()).await.expect("it is sent");
    come(&site, comes).await;
    let kept = site.view("kubernetes:default:configmaps:old").await;
    assert_eq!(kept["desired"]["data"], json!({"a": "1"}), "it is a replicant before anything is taken away");
    drop(stream);
    go.send(()).expect("it is held");
    until("it has lost the rest", || async {
        let data = has(&site, &["configmap", "old"], "{.data}");
        if data == "{\"a\":\"1\"}" { Ok(()) } else { Err(data) }
    })
    .await;
}
