//! Kinds that cannot be listed for a while, or are served in another version than they were.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::hidden::{EVERY, GROUP, Made, with_well};
use super::made_up::{self, Answer, Asked, resource, web};
use super::*;

const EXTENSIONS: &str = "apiextensions.k8s.io";

/// A server that has a well of the replicant `web`, and answers some requests in its own way.
struct Altered {
    made: Made,
    /// With which code what is asked there is refused.
    codes: BTreeMap<String, u16>,
    /// In which version wells are served.
    version: &'static str,
    /// The names of definitions of kinds that were never served.
    definitions: Vec<String>,
    /// The paths of all that was asked.
    asked: Vec<String>,
}

type Shared = Arc<Mutex<Altered>>;

impl Altered {
    fn new() -> Self {
        Self { made: with_well(false), codes: BTreeMap::new(), version: "v1", definitions: vec![], asked: vec![] }
    }

    fn answer(&mut self, mut asked: Asked) -> (u16, Value) {
        self.asked.push(asked.path.clone());
        let status = |code: u16| {
            let message = if code == 403 { "cannot list" } else { "page not found" };
            (code, json!({"kind": "Status", "status": "Failure", "reason": "", "code": code, "message": message}))
        };
        if let Some(code) = self.codes.get(&asked.path) {
            return status(*code);
        }
        let resources = |group: &str, all: Value| {
            (200, json!({"kind": "APIResourceList", "groupVersion": group, "resources": all}))
        };
        let here = format!("/apis/{GROUP}/{}", self.version);
        let defined = format!("/apis/{EXTENSIONS}/v1/customresourcedefinitions");
        match asked.path.as_str() {
            "/apis" => {
                let group = |name: &str, version: &str| {
                    let version = json!({"groupVersion": format!("{name}/{version}"), "version": version});
                    json!({"name": name, "versions": [version], "preferredVersion": version})
                };
                let all = [group(GROUP, self.version), group(EXTENSIONS, "v1")];
                (200, json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": all}))
            }
            path if path == here => {
                resources(&format!("{GROUP}/{}", self.version), json!([resource("wells", "Well", true)]))
            }
            path if path == format!("/apis/{EXTENSIONS}/v1") => {
                let all = json!([resource("customresourcedefinitions", "CustomResourceDefinition", false)]);
                resources(&format!("{EXTENSIONS}/v1"), all)
            }
            path if path == defined => {
                let named = asked.query.split("metadata.name%3D").nth(1).and_then(|rest| rest.split('&').next());
                let names = self.definitions.iter().filter(|name| named.is_none_or(|named| named == name.as_str()));
                let all: Vec<_> = names.map(|name| json!({"metadata": {"name": name}})).collect();
                (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": all}))
            }
            path => {
                if let Some(rest) = path.strip_prefix(&format!("/apis/{GROUP}/")) {
                    let Some(rest) = rest.strip_prefix(&format!("{}/", self.version)) else { return status(404) };
                    // There are none in any other namespace.
                    let rest = if rest == "namespaces/shop/wells" { "wells" } else { rest };
                    asked.path = format!("/apis/{GROUP}/v1/{rest}");
                }
                self.made.answer(&asked)
            }
        }
    }
}

async fn server(altered: Altered) -> (Shared, tempfile::TempDir, std::path::PathBuf) {
    let shared = Arc::new(Mutex::new(altered));
    let server = shared.clone();
    let (folder, kubeconfig) = made_up::asked(move |asked| {
        let answer: Answer = server.lock().unwrap().answer(asked).into();
        Box::pin(async { answer })
    })
    .await;
    (shared, folder, kubeconfig)
}

async fn hurried(altered: Altered) -> (Shared, tempfile::TempDir, KubernetesDriver) {
    let (shared, folder, kubeconfig) = server(altered).await;
    let driver = KubernetesDriver::hurried(&kubeconfig, 128, EVERY).await.unwrap();
    (shared, folder, driver)
}

fn other() -> Replica {
    Replica::new("other".parse().unwrap(), "paris".parse().unwrap())
}

fn object(api: &str, kind: &str, name: &str) -> Work {
    Work::Desired(json!({"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": "shop"}}))
}

/// Where wells are listed.
fn wells(within: &str) -> String {
    format!("/apis/{GROUP}/v1{within}/wells")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_made_something_since_does_not_count_as_all_who_have() {
    let mut altered = Altered::new();
    // Rights to one namespace only.
    altered.codes.insert(wells(""), 403);
    let (server, _folder, driver) = hurried(altered).await;
    driver.apply(&other(), object(&format!("{GROUP}/v1"), "Well", "other")).await.unwrap();
    server.lock().unwrap().codes.insert(wells("/namespaces/shop"), 500);
    let error = driver.delete(&web()).await.unwrap_err();
    assert!(!error.is_permanent() && error.to_string().contains("Well"), "{error}");
    server.lock().unwrap().codes.remove(&wells("/namespaces/shop"));
    assert_eq!(driver.delete(&web()).await.unwrap().output, "1 objects removed, 0 left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_be_listed_later_is_found() {
    let mut altered = Altered::new();
    altered.codes.insert(wells(""), 403);
    let (server, _folder, driver) = hurried(altered).await;
    assert_eq!(driver.delete(&web()).await.unwrap().output, "0 objects removed, 0 left");
    server.lock().unwrap().codes.clear();
    until("it is found", async || driver.delete(&web()).await.unwrap().output.starts_with("1 ")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_listed_any_more_holds_up_only_those_who_have_something_of_it() {
    let (server, _folder, kubeconfig) = server(Altered::new()).await;
    let driver = KubernetesDriver::from_kubeconfig(&kubeconfig, None).await.unwrap();
    driver.delete(&other()).await.unwrap();
    server.lock().unwrap().codes.insert(wells(""), 403);
    driver.delete(&other()).await.unwrap();
    for _ in 0..10 {
        let error = driver.delete(&web()).await.unwrap_err();
        assert!(error.is_permanent() && error.to_string().contains("cannot list"), "{error}");
    }
    // Each of which asks for another look at all kinds, and these do not follow each other at once.
    let looks = server.lock().unwrap().asked.iter().filter(|path| *path == "/api").count();
    assert_eq!(looks, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_found_in_the_version_that_is_served_now() {
    let mut altered = Altered::new();
    altered.version = "v1beta1";
    let (server, _folder, driver) = hurried(altered).await;
    driver.apply(&other(), object(&format!("{GROUP}/v1beta1"), "Well", "other")).await.unwrap();
    server.lock().unwrap().version = "v1";
    for replica in [other(), web()] {
        assert_eq!(driver.delete(&replica).await.unwrap().output, "1 objects removed, 0 left");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_that_is_said_to_be_served_and_is_not_is_looked_for_again() {
    let mut altered = Altered::new();
    altered.codes.insert(wells(""), 404);
    let (server, _folder, driver) = hurried(altered).await;
    let error = driver.delete(&web()).await.unwrap_err();
    assert!(!error.is_permanent() && error.to_string().contains("Well"), "{error}");
    server.lock().unwrap().codes.clear();
    until("it is removed", async || driver.delete(&web()).await.is_ok_and(|done| done.output.starts_with("1 "))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_are_not_read_again_for_each_object() {
    let mut altered = Altered::new();
    altered.definitions = (0..5).map(|n| format!("k{n}s.{GROUP}")).collect();
    let (server, _folder, driver) = hurried(altered).await;
    let mut replica = other();
    let names = (0..50).map(|n| format!("Gone.{GROUP}/shop/n{n}"));
    replica.local_id = Some(names.collect::<Vec<_>>().join(","));
    assert_eq!(driver.delete(&replica).await.unwrap().output, "0 objects removed, 0 left");
    let read = server.lock().unwrap().asked.iter().filter(|path| path.ends_with("definitions")).count();
    assert!(read < 30, "{read}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_that_has_missed_something_does_not_say_that_there_is_nothing() {
    let mut altered = Altered::new();
    altered.codes.insert(wells(""), 500);
    let (server, _folder, driver) = hurried(altered).await;
    for names in [None, Some("*".to_owned())] {
        let replica = Replica { local_id: names, ..web() };
        let error = driver.observe(&replica).await.unwrap_err();
        assert!(!error.is_permanent() && error.to_string().contains("Well"), "{error}");
    }
    // Nor that no operation has run, as long as nobody knows what was made.
    let desired = object("v1", "ConfigMap", "a");
    let done = driver.apply(&web(), desired.clone()).await.unwrap();
    assert!(driver.observe(&web()).await.is_err());
    assert!(driver.observe(&Replica { local_id: done.local_id, ..web() }).await.unwrap().exists);
    let Work::Desired(desired) = desired else { unreachable!() };
    assert!(driver.observe(&Replica { written: Some(desired), ..web() }).await.unwrap().exists);
    server.lock().unwrap().codes.clear();
    until("the well is seen", async || {
        let seen = driver.observe(&web()).await;
        seen.is_ok_and(|seen| seen.local_id.is_some_and(|names| names.contains("Well")))
    })
    .await;
}
