//! What others do between a look at an object and the write of it.

use std::sync::{Arc, Mutex};

use khufu_drivers::kubernetes::config;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::made_up::{self, Answer, Asked};
use super::*;

/// What is done before the next write comes in.
type Before = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// A driver that comes to the server of a scene by way of somebody who may do something first.
struct Raced {
    before: Before,
    driver: KubernetesDriver,
    _folder: tempfile::TempDir,
}

async fn passed_on(client: kube::Client, before: Before, asked: Asked) -> Answer {
    let never = Answer { after: Duration::ZERO, said: None };
    if asked.query.contains("watch=") {
        return never;
    }
    if asked.method == "PATCH" && !asked.query.contains("dryRun") {
        let first = before.lock().unwrap().take();
        if let Some(first) = first {
            block_in_place(first);
        }
    }
    let mut request = http::Request::builder().method(asked.method.as_str());
    for name in ["accept", "content-type"] {
        if let Some(value) = asked.headers.get(name) {
            request = request.header(name, value);
        }
    }
    let request = request.uri(format!("{}?{}", asked.path, asked.query)).body(asked.body).unwrap();
    match client.request_text(request).await {
        Ok(text) => (200, serde_json::from_str(&text).unwrap_or(Value::String(text))).into(),
        Err(kube::Error::Api(status)) => (status.code, serde_json::to_value(&status).unwrap()).into(),
        Err(_) => never,
    }
}

impl Raced {
    async fn new(scene: &Scene) -> Self {
        let config = config(&scene.cluster.kubeconfig(ADMIN), None).await.unwrap();
        let client = kube::Client::try_from(config).unwrap();
        let before = Before::default();
        let shared = before.clone();
        let (folder, path) =
            made_up::asked(move |asked| Box::pin(passed_on(client.clone(), shared.clone(), asked))).await;
        let driver = KubernetesDriver::from_kubeconfig(&path, None).await.unwrap();
        Self { before, driver, _folder: folder }
    }

    /// Applies, and something is done just before it is written. That it was is certain then.
    async fn apply(
        &self,
        replica: &Replica,
        desired: &Value,
        before: impl FnOnce() + Send + 'static,
    ) -> Result<Done, DriverError> {
        *self.before.lock().unwrap() = Some(Box::new(before));
        let done = self.driver.apply(replica, Work::Desired(desired.clone())).await;
        assert!(self.before.lock().unwrap().is_none(), "nothing was written: {done:?}");
        done
    }
}

/// What somebody else does by hand to an object of a scene.
fn by_hand(scene: &Scene, removes: bool, makes: Option<Value>) -> impl FnOnce() + Send + 'static {
    let kubectl = |arguments: &[&str]| {
        let mut command = scene.cluster.kubectl_command(ADMIN);
        command.args(["--namespace", &scene.namespace]).args(arguments);
        command
    };
    let remove = removes.then(|| kubectl(&["delete", "configmap", "a"]));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("object.json");
    let make = makes.map(|object| {
        std::fs::write(&path, object.to_string()).unwrap();
        kubectl(&["create", "-f", path.to_str().unwrap()])
    });
    move || {
        let _folder = folder;
        for mut command in remove.into_iter().chain(make) {
            let output = command.output().unwrap();
            assert!(output.status.success(), "{output:?}");
        }
    }
}

/// An object is as somebody else has made it, and nothing of it is Khufu's.
fn is_untouched(scene: &Scene) {
    let live = scene.get("configmap", "a").unwrap();
    assert_eq!(live["data"], json!({"theirs": "1"}));
    assert!(!live.to_string().contains("khufu"), "{live}");
}

fn is_tried_again(done: Result<Done, DriverError>) {
    let error = done.unwrap_err();
    assert!(!error.is_permanent() && error.to_string().contains("somebody has made"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_makes_just_before_it_is_made_here_is_not_taken_over() {
    let Some(scene) = Scene::new("raced").await else { return };
    let raced = Raced::new(&scene).await;
    let theirs = scene.config_map("a", json!({"theirs": "1"}));
    // Also where fields would be taken from others, and where both set the same field.
    for (options, data) in [(json!({}), "ours"), (json!({"force": true}), "ours"), (json!({}), "theirs")] {
        let replica = scene.told("raced", options);
        let desired = scene.config_map("a", json!({data: "2"}));
        is_tried_again(raced.apply(&replica, &desired, by_hand(&scene, false, Some(theirs.clone()))).await);
        is_untouched(&scene);
        let error = raced.driver.apply(&replica, Work::Desired(desired)).await.unwrap_err();
        assert!(error.is_permanent() && error.to_string().contains("adopt"), "{error}");
        is_untouched(&scene);
        scene.kubectl(&["delete", "configmap", "a"]);
    }
    // What may be taken over is, as what was there before.
    let mut replica = scene.told("raced", json!({"adopt": "keep"}));
    let desired = scene.config_map("a", json!({"ours": "2"}));
    is_tried_again(raced.apply(&replica, &desired, by_hand(&scene, false, Some(theirs))).await);
    scene.made(&mut replica, &desired).await;
    scene.driver.delete(&replica).await.unwrap();
    assert_eq!(scene.get("configmap", "a").unwrap()["data"], json!({"ours": "2", "theirs": "1"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_puts_in_the_place_of_an_object_is_not_taken_for_it() {
    let Some(scene) = Scene::new("replaced").await else { return };
    let raced = Raced::new(&scene).await;
    let mut replica = scene.replica("replaced");
    let desired = |x: &str| scene.config_map("a", json!({"x": x}));
    scene.made(&mut replica, &desired("1")).await;
    let theirs = scene.config_map("a", json!({"theirs": "1"}));
    is_tried_again(raced.apply(&replica, &desired("2"), by_hand(&scene, true, Some(theirs))).await);
    is_untouched(&scene);
    let error = scene.apply(&replica, &desired("2")).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("adopt"), "{error}");
    is_untouched(&scene);
    // Where there is nothing any more, it is made.
    scene.kubectl(&["delete", "configmap", "a"]);
    scene.made(&mut replica, &desired("1")).await;
    let done = raced.apply(&replica, &desired("2"), by_hand(&scene, true, None)).await;
    assert!(done.as_ref().map_or_else(|error| !error.is_permanent(), |_| true), "{done:?}");
    scene.made(&mut replica, &desired("2")).await;
    assert_eq!(scene.get("configmap", "a").unwrap()["data"], json!({"x": "2"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_sites_that_make_one_object_at_once_one_has_it() {
    let Some(scene) = Scene::new("at-once").await else { return };
    let raced = Raced::new(&scene).await;
    let paris = scene.replica("at-once");
    let mut rennes = paris.clone();
    rennes.site = "rennes".parse().unwrap();
    let desired = scene.config_map("a", json!({"x": "1"}));
    let other = KubernetesDriver::from_kubeconfig(&scene.cluster.kubeconfig(ADMIN), None).await.unwrap();
    let (theirs, handle) = (desired.clone(), Handle::current());
    let before = move || drop(handle.block_on(other.apply(&rennes, Work::Desired(theirs))).unwrap());
    is_tried_again(raced.apply(&paris, &desired, before).await);
    let error = scene.apply(&paris, &desired).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("at the site rennes"), "{error}");
    let annotations = &scene.get("configmap", "a").unwrap()["metadata"]["annotations"];
    assert_eq!(annotations["khufu.dev/site"], "rennes");
}

#[tokio::test]
async fn what_a_server_takes_no_condition_for_is_made_all_the_same() {
    let Some(scene) = Scene::new("service").await else { return };
    let mut replica = scene.replica("service");
    let service = |ports: Value| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": scene.namespace},
            "spec": {"selector": {"app": "s"}, "ports": ports}})
    };
    let done = scene.made(&mut replica, &service(json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]))).await;
    assert_eq!(done.output, "1 objects: 1 created, 0 changed, 0 removed");
    scene.made(&mut replica, &service(json!([{"name": "a", "port": 80}]))).await;
    assert_eq!(scene.get("service", "s").unwrap()["spec"]["ports"].as_array().unwrap().len(), 1);
}
