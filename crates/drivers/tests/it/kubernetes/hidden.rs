//! Kinds that a server has and does not say, or does not list, for a while: what is of them is there all the same.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::made_up::{self, Answer, Asked, resource, web};
use super::paged::marked;
use super::*;

pub(super) const GROUP: &str = "hidden.example.org";
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// Config maps and wells in the namespace `shop`. Wells are another group's, which may say nothing.
#[derive(Default)]
pub(super) struct Made {
    objects: BTreeMap<String, Value>,
    hidden: bool,
    /// It has just started: other groups than the first are not told of yet.
    starting: bool,
}

type Shared = Arc<Mutex<Made>>;

fn well(name: &str) -> Value {
    let mut well = marked("Well", name, false);
    well["apiVersion"] = json!(format!("{GROUP}/v1"));
    well
}

fn path(kind: &str, name: &str) -> String {
    match kind {
        "Well" => format!("/apis/{GROUP}/v1/namespaces/shop/wells/{name}"),
        _ => format!("/api/v1/namespaces/shop/configmaps/{name}"),
    }
}

impl Made {
    pub(super) fn answer(&mut self, asked: &Asked) -> (u16, Value) {
        let status = |code: u16, reason: &str| {
            (code, json!({"kind": "Status", "status": "Failure", "reason": reason, "code": code, "message": reason}))
        };
        let resources = |group: &str, all: Value| {
            (200, json!({"kind": "APIResourceList", "groupVersion": group, "resources": all}))
        };
        let version = json!({"groupVersion": format!("{GROUP}/v1"), "version": "v1"});
        match (asked.method.as_str(), asked.path.as_str()) {
            (_, "/readyz") if self.starting => status(500, "InternalError"),
            (_, "/readyz") => (200, json!("ok")),
            (_, "/apis") if self.starting => (200, json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})),
            (_, "/api") => (200, json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})),
            (_, "/apis") => {
                let groups = json!([{"name": GROUP, "versions": [version], "preferredVersion": version}]);
                (200, json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
            }
            (_, path) if path.contains(GROUP) && self.hidden => status(503, "ServiceUnavailable"),
            (_, "/api/v1") => resources("v1", json!([resource("configmaps", "ConfigMap", true)])),
            (_, path) if path == format!("/apis/{GROUP}/v1") => {
                resources(&format!("{GROUP}/v1"), json!([resource("wells", "Well", true)]))
            }
            ("PATCH", path) => {
                let mut object: Value = serde_json::from_slice(&asked.body).unwrap();
                object["metadata"]["uid"] = json!(path);
                self.objects.insert(path.to_owned(), object.clone());
                (200, object)
            }
            ("DELETE", path) => match self.objects.remove(path) {
                Some(object) => (200, object),
                None => status(404, "NotFound"),
            },
            (_, path) if path.contains("/shop/") => match self.objects.get(path) {
                Some(object) => (200, object.clone()),
                None => status(404, "NotFound"),
            },
            (_, path) => {
                let kind = if path.ends_with("wells") { "Well" } else { "ConfigMap" };
                let all: Vec<_> = self.objects.values().filter(|object| object["kind"] == kind).collect();
                let list = json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                    "metadata": {"resourceVersion": "1"}, "items": all});
                (200, list)
            }
        }
    }
}

/// A server, and how it is reached.
async fn server(made: Made) -> (Shared, tempfile::TempDir, std::path::PathBuf) {
    let made: Shared = Arc::new(Mutex::new(made));
    let server = made.clone();
    let (folder, kubeconfig) = made_up::asked(move |asked| {
        let answer: Answer = server.lock().unwrap().answer(&asked).into();
        Box::pin(async { answer })
    })
    .await;
    (made, folder, kubeconfig)
}

/// What a server has that has a well of the replicant `web`.
pub(super) fn with_well(hidden: bool) -> Made {
    Made { objects: BTreeMap::from([(path("Well", "deep"), well("deep"))]), hidden, starting: false }
}

/// A server that hides its well; and a driver that has just started.
async fn hidden() -> (Shared, KubernetesDriver, tempfile::TempDir) {
    let (made, folder, kubeconfig) = server(with_well(true)).await;
    let driver = KubernetesDriver::hurried(&kubeconfig, 128, EVERY).await.unwrap();
    (made, driver, folder)
}

fn has(made: &Shared, kind: &str, name: &str) -> bool {
    made.lock().unwrap().objects.contains_key(&path(kind, name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_remembers_is_not_called_removed_while_a_group_does_not_say_what_it_has() {
    for names in [None, Some("*".to_owned()), Some(String::new())] {
        let (made, driver, _folder) = hidden().await;
        let mut replica = web();
        replica.local_id = names;
        // Also while it is looked for again, on the word of the look before.
        let begun = Instant::now();
        while begun.elapsed() < 3 * EVERY {
            for done in [driver.delete(&replica).await, driver.reset(&replica).await] {
                let error = done.unwrap_err();
                assert!(!error.is_permanent() && error.to_string().contains(GROUP), "{error}");
            }
            tokio::time::sleep(EVERY / 10).await;
        }
        // What stays anyway, and what is known by name, is held up by nothing.
        replica.options = json!({"retain": true}).as_object().unwrap().clone();
        driver.delete(&replica).await.unwrap();
        let mut other = Replica::new("other".parse().unwrap(), "paris".parse().unwrap());
        other.local_id = Some("ConfigMap/shop/other".into());
        driver.delete(&other).await.unwrap();
        assert!(has(&made, "Well", "deep"));
        made.lock().unwrap().hidden = false;
        replica.options.clear();
        let mut said = String::new();
        until("it is removed", async || driver.delete(&replica).await.map(|done| said = done.output).is_ok()).await;
        assert_eq!(said, "1 objects removed, 0 left");
        assert!(!has(&made, "Well", "deep"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_for_no_more_and_could_not_be_seen_is_looked_for_again() {
    let (made, driver, _folder) = hidden().await;
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "shop"}});
    let mut replica = web();
    let done = driver.apply(&replica, Work::Desired(object.clone())).await.unwrap();
    assert_eq!(done.output, "1 objects: 1 created, 0 changed, 0 removed");
    replica.local_id = done.local_id;
    made.lock().unwrap().hidden = false;
    until("it is removed", async || {
        driver.apply(&replica, Work::Desired(object.clone())).await.unwrap();
        !has(&made, "Well", "deep")
    })
    .await;
    assert!(has(&made, "ConfigMap", "a"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_server_has_is_looked_for_there() {
    let (_, _folder, kubeconfig) = server(Made::default()).await;
    let driver = KubernetesDriver::hurried(&kubeconfig, 128, EVERY).await.unwrap();
    let _reachable = driver.reachable();
    assert_eq!(driver.delete(&web()).await.unwrap().output, "0 objects removed, 0 left");
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "shop"}});
    let tidy = Replica::new("web".parse().unwrap(), "paris".parse().unwrap());
    driver.apply(&tidy, Work::Desired(object.clone())).await.unwrap();
    let (made, _other_folder, other) = server(with_well(false)).await;
    std::fs::copy(other, &kubeconfig).unwrap();
    until("it is removed", async || {
        // While it is made there anew, and where it is known to be tidy elsewhere.
        let _ = driver.apply(&tidy, Work::Desired(object.clone())).await;
        !has(&made, "Well", "deep")
    })
    .await;
    made.lock().unwrap().objects.insert(path("Well", "deep"), well("deep"));
    assert_eq!(driver.delete(&web()).await.unwrap().output, "2 objects removed, 0 left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_has_just_started_is_not_believed_to_have_nothing() {
    let (made, _folder, kubeconfig) = server(with_well(false)).await;
    made.lock().unwrap().starting = true;
    let driver = KubernetesDriver::hurried(&kubeconfig, 128, EVERY).await.unwrap();
    let mut named = web();
    named.local_id = Some(format!("Well.{GROUP}/shop/deep"));
    for replica in [&web(), &named] {
        let error = driver.delete(replica).await.unwrap_err();
        assert!(!error.is_permanent() && error.to_string().contains("/readyz"), "{error}");
    }
    made.lock().unwrap().starting = false;
    until("it is removed", async || driver.delete(&web()).await.is_ok_and(|done| done.output.starts_with("1 "))).await;
}
