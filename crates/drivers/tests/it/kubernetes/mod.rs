//! The driver `kubernetes` with a real API server. Each test has a namespace of its own.

mod away;
mod blind;
mod broken;
mod definitions;
mod drift;
mod hidden;
mod kinds;
mod made_up;
mod many_kinds;
mod merge_keys;
mod operate;
mod owned;
mod paged;
mod put_back;
mod raced;
mod rbac;
mod remove;
mod strangers;
mod unlisted;
mod watch;
mod write;

use std::ops::Deref;
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use khufu_drivers::{Done, Driver as _, DriverError, KubernetesDriver, Observed, Replica, Work};
use khufu_test_servers::kubernetes::{ADMIN, Cluster};
use serde_json::{Value, json};

/// The user who may do nothing.
const NOBODY: &str = "nobody";
/// Service accounts as an API server names them, to whom tests give roles.
const ACCOUNTS: [&str; 2] = ["system:serviceaccount:accounts:whole", "system:serviceaccount:narrow:parts"];

/// The user who has rights in single namespaces.
const NARROW: &str = "narrow";

/// Users whose rights grow.
const LATE: &str = "late";
const WIDER: &str = "wider";

/// The user whose rights are taken away.
const TAKEN: &str = "taken";

/// The cluster that tests share; none where there are no servers. It lives in a thread of its own, since it ends with the
/// thread that has started it.
fn cluster() -> Option<&'static Cluster> {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    CLUSTER
        .get_or_init(|| {
            let (sender, receiver) = mpsc::channel();
            std::thread::spawn(move || {
                let builder = Cluster::builder("paris")
                    .user(NOBODY, &[])
                    .user(NARROW, &[])
                    .user(LATE, &[])
                    .user(WIDER, &[])
                    .user(TAKEN, &[]);
                let builder = ACCOUNTS.into_iter().fold(builder, |builder, account| builder.user(account, &[]));
                sender.send(builder.start()).unwrap();
                loop {
                    std::thread::park();
                }
            });
            receiver.recv().unwrap()
        })
        .as_ref()
}

/// The cluster that tests share, or one of a test that breaks what others need.
enum Place {
    Shared(&'static Cluster),
    Own(Box<Cluster>),
}

impl Deref for Place {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        match self {
            Self::Shared(cluster) => cluster,
            Self::Own(cluster) => cluster,
        }
    }
}

/// A namespace, and a driver that works there.
struct Scene {
    cluster: Place,
    namespace: String,
    driver: KubernetesDriver,
}

impl Scene {
    async fn new(namespace: &str) -> Option<Self> {
        Some(Self::within(Place::Shared(cluster()?), namespace).await)
    }

    /// In a cluster of its own.
    async fn alone(namespace: &str) -> Option<Self> {
        Some(Self::within(Place::Own(Box::new(Cluster::start(namespace)?)), namespace).await)
    }

    async fn within(cluster: Place, namespace: &str) -> Self {
        let made = cluster.kubectl(&["create", "namespace", namespace]);
        assert!(made.status.success(), "{made:?}");
        let driver = KubernetesDriver::from_kubeconfig(&cluster.kubeconfig(ADMIN), None).await.unwrap();
        Self { cluster, namespace: namespace.to_owned(), driver }
    }

    fn replica(&self, id: &str) -> Replica {
        self.told(id, json!({}))
    }

    /// A replica of whose policy the driver is told something.
    fn told(&self, id: &str, options: Value) -> Replica {
        let mut replica = Replica::new(id.parse().unwrap(), "paris".parse().unwrap());
        replica.options = options.as_object().unwrap().clone();
        replica
    }

    fn config_map(&self, name: &str, data: Value) -> Value {
        let metadata = json!({"name": name, "namespace": self.namespace});
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    }

    async fn apply(&self, replica: &Replica, desired: &Value) -> Result<Done, DriverError> {
        self.driver.apply(replica, Work::Desired(desired.clone())).await
    }

    /// Applies, and remembers what it was called last, as the engine does.
    async fn made(&self, replica: &mut Replica, desired: &Value) -> Done {
        let done = self.apply(replica, desired).await.unwrap();
        if done.local_id.is_some() {
            replica.local_id.clone_from(&done.local_id);
        }
        replica.written = Some(desired.clone());
        done
    }

    async fn look(&self, replica: &Replica) -> Observed {
        self.driver.observe(replica).await.unwrap()
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.cluster.kubectl(&[&["--namespace", &self.namespace], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn apply_by_hand(&self, object: &Value) {
        let output = self.cluster.kubectl_as(ADMIN, &["create", "-f", "-"], Some(&object.to_string()));
        assert!(output.status.success(), "{output:?}");
    }

    /// An object as kubectl sees it; none if it is not there.
    fn get(&self, what: &str, name: &str) -> Option<Value> {
        let text = self.kubectl(&["get", what, name, "--ignore-not-found", "--output", "json"]);
        (!text.is_empty()).then(|| serde_json::from_str(&text).unwrap())
    }
}

fn deployment(scene: &Scene, name: &str) -> Value {
    let labels = json!({"app": name});
    let container = json!({"name": "web", "image": "nginx:1", "ports": [{"containerPort": 80}],
        "resources": {"limits": {"cpu": "0.5", "memory": "1024Mi"}}});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": scene.namespace},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}}})
}

/// Waits for something, and says for what if it does not come.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so().await {
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
