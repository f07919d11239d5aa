//! Nodes of a private network, each a process of its own.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Options;
use crate::http::Client;
use crate::usage;
use crate::watch::Watch;

/// Who makes replicants at a time, and how many in one request.
const WORKERS: usize = 4;
const IN_ONE: usize = 64;

/// A running node. Dropping it kills the process.
pub(crate) struct Site {
    pub(crate) name: String,
    /// Where its API is: an address and a port.
    pub(crate) host: String,
    /// How long it took from its start until it served.
    pub(crate) began: Duration,
    /// Where its front for kubectl is, if it has one.
    pub(crate) front: Option<String>,
    /// Where its front of the service `notes` is, if it has one.
    pub(crate) http_front: Option<String>,
    listen: String,
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Site {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) async fn client(&self) -> Client {
        Client::new(&self.host).await
    }

    pub(crate) async fn watch(&self) -> Watch {
        Watch::new(&self.host, &self.name).await
    }

    /// The sum of a metric over the label values that contain `labels`.
    pub(crate) async fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.client().await.text("/metrics").await;
        let matching = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(labels)
        });
        matching.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Bytes of frames that it exchanged with others, in both directions, so far.
    pub(crate) async fn frame_bytes(&self) -> f64 {
        self.metric("khufu_p2p_frame_bytes_total", "").await
    }

    /// Waits until it is connected with so many others, and says when it was.
    pub(crate) async fn connected(&self, peers: usize) -> Instant {
        let mut client = self.client().await;
        loop {
            let there = client.get("/v1/peers").await;
            let there = there.as_array().or(there["items"].as_array()).map_or(0, Vec::len);
            if there >= peers {
                return Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Ends it in order.
    fn stop(&mut self) {
        self.stdin = None;
        let _ = self.child.wait();
    }
}

/// The nodes.
pub(crate) struct Network {
    pub(crate) sites: Vec<Site>,
    root: TempDir,
    khufu: PathBuf,
    /// What each node is told of its drivers.
    arguments: Vec<Vec<String>>,
}

impl Network {
    /// Starts so many nodes with the driver of files, and waits until all are connected with all.
    pub(crate) async fn start(options: &Options, nodes: usize) -> Self {
        let files = ["--driver", "files=replicas"].map(str::to_owned).to_vec();
        Self::start_with(options, vec![files; nodes]).await
    }

    /// The same, each node with these arguments.
    pub(crate) async fn start_with(options: &Options, arguments: Vec<Vec<String>>) -> Self {
        let root = tempfile::Builder::new().prefix("khufu-bench-").tempdir_in(&options.dir).expect("a directory");
        make_key(&root.path().join("swarm.key"));
        let nodes = arguments.len();
        let mut network = Self { sites: Vec::new(), root, khufu: options.khufu.clone(), arguments };
        for number in 0..nodes {
            let site = network.begin(number, "127.0.0.1:0", "/ip4/127.0.0.1/tcp/0");
            network.sites.push(site);
        }
        network.met().await;
        network
    }

    fn begin(&self, number: usize, api: &str, listen: &str) -> Site {
        let name = &format!("site{number}");
        let dir = self.dir(name);
        std::fs::create_dir_all(&dir).expect("a directory");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).expect("a log");
        let mut command = Command::new(&self.khufu);
        command.current_dir(&dir).args(["node", "--site", name, "--data", "data", "--api", api, "--listen", listen]);
        command.args(["--psk-file", "../swarm.key", "--allow-faults"]);
        command.args(&self.arguments[number]);
        for other in self.sites.iter().filter(|other| other.name != *name) {
            command.args(["--bootstrap", &other.listen]);
        }
        command.args(["--stop-with-stdin", "-o", "json"]).env_remove("RUST_LOG");
        let begun = Instant::now();
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().expect("the program starts");
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().expect("its output is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        let began = begun.elapsed();
        std::thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
        let serves: Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("{name} did not start: {}", self.log(name)));
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let host = text(&serves["api"]).trim_start_matches("http://").to_owned();
        let front = serves["kubernetes_front"].as_str().map(str::to_owned);
        let notes = serves["http_fronts"]["notes"].as_str();
        let http_front = notes.map(|front| front.trim_start_matches("http://").to_owned());
        let listen = text(&serves["listen"][0]);
        Site { name: name.to_owned(), host, began, front, http_front, listen, child, stdin }
    }

    /// The directory of a site.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir(name).join("log")).unwrap_or_default()
    }

    /// What a site keeps on disk, in bytes.
    pub(crate) fn on_disk(&self, name: &str) -> f64 {
        fn size(path: &Path) -> u64 {
            let Ok(metadata) = path.symlink_metadata() else { return 0 };
            if metadata.is_dir() {
                std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum()
            } else {
                metadata.len()
            }
        }
        size(&self.dir(name).join("data")) as f64
    }

    /// Waits until all are connected with all, and think each other alive.
    pub(crate) async fn met(&self) {
        let count = self.sites.len();
        for site in &self.sites {
            site.connected(count - 1).await;
            let mut client = site.client().await;
            loop {
                let sites = client.get("/v1/sites").await;
                let alive = |site: &&Value| site["state"] == "alive";
                if sites.as_array().into_iter().flatten().filter(alive).count() == count {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Stops the last node in order.
    pub(crate) fn stop_last(&mut self) -> Stopped {
        let mut site = self.sites.pop().expect("a node");
        site.stop();
        let listen = site.listen.split("/p2p/").next().unwrap_or_default().to_owned();
        Stopped { number: self.sites.len(), api: site.host.clone(), listen }
    }

    /// Starts it again, with the same data at the same place.
    pub(crate) fn start_again(&mut self, stopped: &Stopped) {
        let site = self.begin(stopped.number, &stopped.api, &stopped.listen);
        self.sites.push(site);
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.sites.iter().map(Site::pid).collect()
    }

    /// What all nodes sent to each other so far, in bytes on the wire.
    pub(crate) fn sent(&self) -> f64 {
        let port = |site: &Site| site.host.rsplit(':').next().and_then(|port| port.parse().ok());
        let apis: BTreeSet<u16> = self.sites.iter().filter_map(port).collect();
        usage::sent(&self.pids(), &apis)
    }

    /// Makes replicants `PREFIX0` and so on at the first node, for all sites, and waits until all have them.
    pub(crate) async fn create(&self, prefix: &str, count: usize, desired: &Value) {
        self.create_all("files", prefix, count, |_| desired.clone()).await;
    }

    /// The same with a desired state for each.
    pub(crate) async fn create_all(&self, kind: &str, prefix: &str, count: usize, desired: impl Fn(usize) -> Value) {
        let host = &self.sites[0].host;
        let desired = &desired;
        let body = |number| json!({"kind": kind, "scope": "all", "desired": desired(number)});
        let body = &body;
        // Of each request the node carries out so many at once as it likes to.
        let each = (0..WORKERS).map(|worker| async move {
            let mut client = Client::new(host).await;
            for first in (worker * IN_ONE..count).step_by(WORKERS * IN_ONE) {
                let put =
                    |number| json!({"method": "PUT", "path": format!("/v1/replicants/{prefix}{number}"), "body": body(number)});
                let requests: Vec<Value> = (first..count.min(first + IN_ONE)).map(put).collect();
                client.bulk(&requests).await;
            }
        });
        futures::future::join_all(each).await;
        for site in &self.sites {
            self.settled(site, prefix, count).await;
        }
    }

    /// Waits until a node holds so many replicants and all of its site's work on them is done.
    async fn settled(&self, site: &Site, prefix: &str, count: usize) {
        let mut client = site.client().await;
        let begun = Instant::now();
        let mut after = String::new();
        let mut seen = 0;
        loop {
            let page = client.get(&format!("/v1/replicants?limit=1000{after}")).await;
            let items: Vec<&Value> = page["items"].as_array().into_iter().flatten().collect();
            let done = items.iter().all(|item| item["status"] == "applied");
            if done {
                seen +=
                    items.iter().filter(|item| item["id"].as_str().is_some_and(|id| id.starts_with(prefix))).count();
                match page["next"].as_str() {
                    Some(next) => after = format!("&after={next}"),
                    None if seen >= count => return,
                    None => (after, seen) = (String::new(), 0),
                }
            }
            if !done || after.is_empty() {
                assert!(
                    begun.elapsed() < Duration::from_secs(1200),
                    "{} has {seen} of {count}; the first that is not applied: {:?}",
                    site.name,
                    items.iter().find(|item| item["status"] != "applied")
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// A key for the private network.
fn make_key(path: &Path) {
    let mut random = [0; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random_bytes| random_bytes.read_exact(&mut random))
        .expect("random bytes");
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).expect("a key file");
    writeln!(file, "/key/swarm/psk/1.0.0/\n/base16/\n{digits}").expect("a key file");
}

/// A node that was stopped.
pub(crate) struct Stopped {
    number: usize,
    api: String,
    listen: String,
}
