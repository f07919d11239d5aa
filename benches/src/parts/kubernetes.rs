//! Three sites with a Kubernetes API server each.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use khufu_test_servers::kubernetes::{ADMIN, Builder, Cluster};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, PostParams};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use crate::Options;
use crate::network::Network;
use crate::table::{Goal, Table};
use crate::usage;

/// Verbs of an API server that write.
const WRITES: [&str; 5] = ["APPLY", "PATCH", "POST", "PUT", "DELETE"];

fn config_map(name: &str, number: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"},
        "data": {"number": number.to_string(), "text": "x".repeat(200)}})
}

/// How many objects each API server has.
fn counts(clusters: &[Cluster; 3], labels: &str) -> Vec<usize> {
    let count = |cluster: &Cluster| {
        let output = cluster.kubectl(&["get", "configmap", "--selector", labels, "--output=name"]);
        String::from_utf8_lossy(&output.stdout).lines().count()
    };
    clusters.iter().map(count).collect()
}

fn writes(clusters: &[Cluster; 3]) -> f64 {
    let written = |cluster: &Cluster, verb| {
        cluster.metric("apiserver_request_total", &[("verb", verb), ("resource", "configmaps")])
    };
    clusters.iter().flat_map(|cluster| WRITES.map(|verb| written(cluster, verb))).sum()
}

/// The most memory that each of these processes has had, until it is asked.
struct Peaks {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<f64>>,
}

impl Peaks {
    fn of(pids: Vec<u32>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut peaks = vec![0.0_f64; pids.len()];
            while !until.load(Ordering::Relaxed) {
                for (peak, pid) in peaks.iter_mut().zip(&pids) {
                    *peak = peak.max(usage::of(*pid).rss / 1e6);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            peaks
        });
        Self { stop, thread }
    }

    fn end(self) -> Vec<f64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a thread")
    }
}

pub(crate) async fn run(options: &Options, table: &mut Table) {
    table.begin("kubernetes");
    let builders = ["site0", "site1", "site2"].map(Cluster::builder);
    let Some(clusters) = Builder::start_all(builders) else { return };
    let driver = |cluster: &Cluster| {
        let driver = format!("kubernetes={}", cluster.kubeconfig(ADMIN).display());
        ["--driver", &driver, "--kubernetes-front", "127.0.0.1:0"].map(str::to_owned).to_vec()
    };
    let network = Network::start_with(options, clusters.iter().map(driver).collect()).await;
    applied(options, table, &clusters, &network).await;
    let count = options.objects;

    let peaks = Peaks::of(network.pids());
    let begun = Instant::now();
    network.create_all("kubernetes", "c", count, |number| config_map(&format!("c{number}"), number)).await;
    let took = begun.elapsed().as_secs_f64();
    let there = counts(&clusters, "khufu.dev/replicant");
    assert_eq!(there, [count; 3], "all say that they have applied all");
    table.add(format!("{count} replicants, until all sites have applied them"), "s", Goal::Below(60.0), vec![took]);
    table.add("memory of a node meanwhile, at most", "MB", Goal::Below(150.0), peaks.end());

    let peaks = Peaks::of(network.pids());
    let objects: Vec<_> = (0..count).map(|number| config_map(&format!("o{number}"), number)).collect();
    let begun = Instant::now();
    network.create_all("kubernetes", "together", 1, |_| json!({"objects": objects})).await;
    let took = begun.elapsed().as_secs_f64();
    table.add(format!("one replicant of {count} objects"), "s", Goal::Below(60.0), vec![took]);
    table.add("memory of a node meanwhile, at most, ", "MB", Goal::Below(150.0), peaks.end());

    // All are looked at and compared, and each replicant is written by another that is the same.
    let before = writes(&clusters);
    let mut client = network.sites[0].client().await;
    let begun = Instant::now();
    let same = client.get("/v1/verify").await;
    assert_eq!(same["same"], true, "{same}");
    table.add("all of it looked at and compared", "s", Goal::None, vec![begun.elapsed().as_secs_f64()]);
    network.create_all("kubernetes", "c", count, |number| config_map(&format!("c{number}"), number)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    table.add("writes of objects that are as they should be", "", Goal::Below(0.0), vec![writes(&clusters) - before]);
}

/// When deployments came to be at an API server, as it tells whoever watches.
struct Arrivals {
    at: Arc<Mutex<HashMap<String, Instant>>>,
    child: Child,
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Arrivals {
    fn of(cluster: &Cluster) -> Self {
        let mut command = cluster.kubectl_command(ADMIN);
        command.args(["get", "deployments", "--watch", "--output=name"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("kubectl starts");
        let lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
        let at = Arc::<Mutex<HashMap<String, Instant>>>::default();
        let seen = at.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let name = line.rsplit('/').next().unwrap_or_default().to_owned();
                seen.lock().expect("nobody panics").entry(name).or_insert_with(Instant::now);
            }
        });
        Self { at, child }
    }

    fn get(&self, name: &str) -> Option<Instant> {
        self.at.lock().expect("nobody panics").get(name).copied()
    }
}

/// Waits until all have it, and says how many milliseconds that took.
fn arrived(all: &[Arrivals], name: &str, begun: Instant) -> f64 {
    loop {
        let at: Option<Vec<_>> = all.iter().map(|arrivals| arrivals.get(name)).collect();
        if let Some(last) = at.and_then(|at| at.into_iter().max()) {
            return last.duration_since(begun).as_secs_f64() * 1e3;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{name} has not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn deployment(name: &str) -> Value {
    let labels = json!({"app": name});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "web", "image": "nginx:1"}]}}}})
}

/// Deployments as an API server serves them, for a program that keeps its connection.
async fn deployments(mut kubeconfig: Kubeconfig, through: Option<(&str, &Path)>) -> Api<DynamicObject> {
    if let Some((server, authority)) = through {
        let cluster = kubeconfig.clusters[0].cluster.as_mut().expect("a kubeconfig has a cluster");
        cluster.server = Some(server.to_owned());
        cluster.certificate_authority = Some(authority.display().to_string());
    }
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let client = kube::Client::try_from(config.expect("a kubeconfig")).expect("a client");
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment"));
    let api = Api::namespaced_with(client, "default", &kind);
    // The connection is there from now on.
    api.get_opt("none").await.expect("the API server answers");
    api
}

/// What a captured `kubectl apply` takes until all have the object, beside a plain one, and the way without kubectl.
async fn applied(options: &Options, table: &mut Table, clusters: &[Cluster; 3], network: &Network) {
    let times = if options.quick { 5 } else { 30 };
    let all: Vec<_> = clusters.iter().map(Arrivals::of).collect();
    let site = &network.sites[0];
    let server = format!("{}/scope/all", site.front.as_deref().expect("a front"));
    let authority = network.dir(&site.name).join("data/kubernetes-front/ca.crt");
    let kubeconfig = Kubeconfig::read_from(clusters[0].kubeconfig(ADMIN)).expect("a kubeconfig");
    let direct = deployments(kubeconfig.clone(), None).await;
    let front = deployments(kubeconfig, Some((&server, &authority))).await;
    let create = async |api: &Api<DynamicObject>, name: &str| {
        let object = serde_json::from_value(deployment(name)).expect("an object");
        api.create(&PostParams::default(), &object).await.expect("it is created");
    };
    let server = format!("--server={server}");
    let authority = format!("--certificate-authority={}", authority.display());
    let through = [server.as_str(), &authority, "apply", "-f", "-"];
    let kubectl = |arguments: &[&str], name: &str| {
        let output = clusters[0].kubectl_as(ADMIN, arguments, Some(&deployment(name).to_string()));
        assert!(output.status.success(), "{output:?}");
    };
    let (mut plain, mut captured, mut put) = (Vec::new(), Vec::new(), Vec::new());
    let (mut created, mut created_through) = (Vec::new(), Vec::new());
    let mut client = site.client().await;
    // In turns, since the machine is not always as quick.
    for number in 0..times {
        let name = format!("plain{number}");
        let begun = Instant::now();
        kubectl(&["apply", "-f", "-"], &name);
        plain.push(arrived(&all[..1], &name, begun));

        let name = format!("put{number}");
        let begun = Instant::now();
        let body = json!({"kind": "kubernetes", "scope": "all", "desired": deployment(&name)}).to_string();
        client.ask("PUT", &format!("/v1/replicants/{name}"), body).await;
        put.push(arrived(&all, &name, begun));

        let name = format!("captured{number}");
        let begun = Instant::now();
        kubectl(&through, &name);
        captured.push(arrived(&all, &name, begun));

        let name = format!("created{number}");
        let begun = Instant::now();
        create(&direct, &name).await;
        created.push(arrived(&all[..1], &name, begun));

        let name = format!("through{number}");
        let begun = Instant::now();
        create(&front, &name).await;
        created_through.push(arrived(&all, &name, begun));
    }
    let ratios = (0..times).map(|n| captured[n] / (plain[n] + put[n])).collect();
    table.add("kubectl apply of a new deployment, plain, until it is there", "ms", Goal::None, plain);
    table.add("the same put at one site, until it is at three", "ms", Goal::None, put);
    table.add_both("kubectl apply, captured, until it is at three", "ms", (Goal::None, Goal::Below(150.0)), captured);
    table.add("the last, as a part of the first two together", "", Goal::Below(1.5), ratios);
    // What `kubectl` itself takes, most of all to start, is not in these.
    table.add("a program's request to create one, plain, until it is there", "ms", Goal::None, created);
    let goals = (Goal::None, Goal::Below(150.0));
    table.add_both("the same, captured, until it is at three", "ms", goals, created_through);
}
