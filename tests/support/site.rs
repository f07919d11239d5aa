//! One site: a process of its own.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use reqwest::Method;
use serde_json::{Value, json};

use super::{Answer, Client, KHUFU, PATIENCE, Ran, command, command_of, khufu};

/// A site to be started.
#[derive(Debug, Clone)]
pub(crate) struct SiteBuilder {
    name: String,
    dir: PathBuf,
    arguments: Vec<String>,
    /// Where to serve and listen: ports of the kernel's choice at first, the same ones after a restart.
    api: String,
    listen: String,
    /// The network namespace to run in, if not that of the test.
    within: Option<String>,
    /// Where to write down the system calls, if anywhere.
    trace: Option<PathBuf>,
}

impl SiteBuilder {
    pub(super) fn new(name: &str, dir: PathBuf, psk: PathBuf) -> Self {
        let psk = psk.to_str().expect("a path in UTF-8");
        let arguments =
            ["--psk-file", psk, "--driver", "files=replicas", "--allow-faults", "--pace", "fast"].map(str::to_owned);
        Self {
            name: name.to_owned(),
            dir,
            arguments: arguments.to_vec(),
            api: "127.0.0.1:0".to_owned(),
            listen: "/ip4/127.0.0.1/tcp/0".to_owned(),
            within: None,
            trace: None,
        }
    }

    /// Runs it in a network namespace, listening on all addresses there.
    pub(crate) fn within(mut self, namespace: &str) -> Self {
        self.within = Some(namespace.to_owned());
        self.listen = "/ip4/0.0.0.0/tcp/0".to_owned();
        self
    }

    /// Writes down its system calls that matter for what is on the disk and who is told. None where there is no `strace`.
    pub(crate) fn traced(mut self, trace: &Path) -> Option<Self> {
        if std::process::Command::new("strace").arg("-V").output().is_err() {
            super::missing("strace");
            return None;
        }
        self.trace = Some(trace.to_owned());
        Some(self)
    }

    /// Looks for the network at another site.
    pub(crate) fn bootstrap(self, other: &Site) -> Self {
        let address = other.address().to_owned();
        self.arguments(&["--bootstrap", &address])
    }

    /// Adds arguments of `khufu node`.
    pub(crate) fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// The whole command line.
    pub(crate) fn command_line(&self) -> Vec<String> {
        let fixed = ["node", "--site", &self.name, "--data", "data", "--api", &self.api, "--listen", &self.listen];
        fixed.iter().map(|&argument| argument.to_owned()).chain(self.arguments.iter().cloned()).collect()
    }

    /// The directory of the site; made if it is not there.
    pub(crate) fn dir(&self) -> &Path {
        std::fs::create_dir_all(&self.dir).expect("a directory");
        &self.dir
    }

    /// Runs it to its end, for a site that cannot start.
    pub(crate) fn run(&self) -> Ran {
        let line = self.command_line();
        khufu(self.dir(), &line.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Starts it, and waits until it serves.
    pub(crate) async fn start(self) -> Site {
        let log = self.dir().join("log");
        let log_file = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log");
        let mut command = match (&self.within, &self.trace) {
            (None, None) => command(&self.dir),
            (None, Some(trace)) => {
                let mut strace = command_of("strace", &self.dir);
                strace.args(["-f", "-y", "-s", "8388608", "-e"]);
                strace
                    .arg("trace=write,pwrite64,writev,sendto,sendmsg,fdatasync,fsync")
                    .arg("-o")
                    .arg(trace)
                    .arg(KHUFU);
                strace
            }
            (Some(namespace), _) => {
                // `ip` becomes the program, so the process that is started is the one that is killed.
                let mut ip = command_of("ip", &self.dir);
                ip.args(["netns", "exec", namespace, KHUFU]);
                ip
            }
        };
        let mut child = command
            .args(self.command_line())
            .args(["--stop-with-stdin", "-o", "json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .spawn()
            .expect("the program starts");
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("its output is piped");
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = send.send(line);
        });
        let line = tokio::task::spawn_blocking(move || receive.recv_timeout(PATIENCE)).await.expect("a thread");
        let serves: Option<Value> = line.ok().and_then(|line| serde_json::from_str(&line).ok());
        let Some(serves) = serves else {
            let _ = child.kill();
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            panic!("the site {} did not start; it said:\n{log}", self.name);
        };
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let within = self.within.as_deref().map(super::namespaces::path);
        Site {
            client: Client::new(text(&serves["api"]), within),
            address: text(&serves["listen"][0]),
            node: text(&serves["node"]),
            front: serves["kubernetes_front"].as_str().map(str::to_owned),
            cheops: serves["cheops_api"].as_str().map(str::to_owned),
            http_fronts: serves["http_fronts"].clone(),
            builder: self,
            child,
            stdin,
        }
    }
}

/// A running site. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Site {
    builder: SiteBuilder,
    child: Child,
    /// The node stops when this is closed, also if the test itself is killed.
    stdin: Option<ChildStdin>,
    client: Client,
    address: String,
    node: String,
    /// Where kubectl is served, if it is.
    front: Option<String>,
    /// Where the API of Cheops is served, if it is.
    cheops: Option<String>,
    /// Where fronts of HTTP services are served, by name.
    http_fronts: Value,
}

impl Drop for Site {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Site {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.builder.name
    }

    /// Where its API is.
    pub(crate) fn api(&self) -> &str {
        self.client.base()
    }

    /// Asks it, also when it is no longer held.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Where other nodes reach it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Where kubectl is served, and the authority of its certificate.
    pub(crate) fn front(&self) -> (&str, PathBuf) {
        let front = self.front.as_deref().expect("it was started with a front");
        (front, self.builder.dir.join("data/kubernetes-front/ca.crt"))
    }

    /// Asks where the API of Cheops is served.
    pub(crate) fn cheops(&self) -> Client {
        Client::new(self.cheops.clone().expect("it was started with the API of Cheops"), None)
    }

    /// Where the front of an HTTP service is.
    pub(crate) fn http_front(&self, name: &str) -> &str {
        self.http_fronts[name].as_str().expect("it was started with that front")
    }

    /// Its node's id.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it was started with.
    pub(crate) fn builder(&self) -> &SiteBuilder {
        &self.builder
    }

    /// Where its files are made.
    pub(crate) fn replicas(&self) -> PathBuf {
        self.builder.dir.join("replicas")
    }

    /// The contents of a replica on disk, none if there is none.
    pub(crate) fn file(&self, id: &str) -> Option<String> {
        std::fs::read_to_string(self.replicas().join(id)).ok()
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.builder.dir.join("log")).unwrap_or_default()
    }

    /// Runs the command line against this site.
    pub(crate) fn khufu(&self, arguments: &[&str]) -> Ran {
        let mut line = arguments.to_vec();
        line.extend(["--api", self.api()]);
        khufu(&self.builder.dir, &line)
    }

    /// Asks, and gives an error instead of panicking if the node does not answer, or says no.
    pub(crate) async fn try_get(&self, path: &str) -> Result<Value, String> {
        let answer = self.client.ask(Method::GET, path, None).await?;
        if answer.status == 200 { Ok(answer.body) } else { Err(format!("{answer:?}")) }
    }

    /// A `GET`.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None).await
    }

    /// A `PUT`.
    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::PUT, path, Some(body)).await
    }

    /// A `PATCH`.
    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::PATCH, path, Some(body)).await
    }

    /// A `POST`.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// A `DELETE`.
    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.ask(Method::DELETE, path, None).await
    }

    /// Creates a replicant of kind `files`, or edits it.
    pub(crate) async fn put_files(&self, id: &str, scope: &str, desired: Value) -> Value {
        let body = json!({"kind": "files", "scope": scope, "desired": desired});
        self.put(&format!("/v1/replicants/{id}"), body).await.ok()
    }

    /// The replicant as this site sees it.
    pub(crate) async fn view(&self, id: &str) -> Value {
        self.get(&format!("/v1/replicants/{id}")).await.ok()
    }

    /// Whether the site holds a replicant that is not deleted.
    pub(crate) async fn lists(&self, id: &str) -> Result<bool, String> {
        let list = self.try_get("/v1/replicants?limit=1000").await?;
        Ok(list["items"].as_array().into_iter().flatten().any(|item| item["id"] == id))
    }

    /// Stops the process where it is, as a machine that hangs; its ports still take connections.
    pub(crate) fn freeze(&self) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::STOP)
            .expect("it runs");
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::CONT)
            .expect("it runs");
    }

    /// Asks for an operation without waiting for the sites.
    pub(crate) async fn operate(&self, id: &str, op_type: &str, payload: Value) -> Value {
        let path = format!("/v1/replicants/{id}/operations");
        self.post(&path, json!({"type": op_type, "payload": payload})).await.ok()
    }

    /// Cuts it off from other sites (from nobody, with an empty list), seen from its own side.
    pub(crate) async fn cut(&self, others: &[&str]) {
        self.put("/v1/faults", json!({"cut": others})).await.ok();
    }

    /// Any request.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.client
            .ask(method, path, body)
            .await
            .unwrap_or_else(|error| panic!("{path}: {error}; it logged:\n{}", self.log()))
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill_9(mut self) -> SiteBuilder {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
        self.again()
    }

    /// Asks it to stop with SIGTERM, and panics unless it ends in order.
    pub(crate) async fn terminate(mut self) -> SiteBuilder {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        self.ended_in_order().await;
        self.again()
    }

    /// Closes its standard input, and panics unless it ends in order.
    pub(crate) async fn stop(mut self) -> SiteBuilder {
        self.stdin = None;
        self.ended_in_order().await;
        self.again()
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(mut self) -> Ran {
        let status = self.status().await;
        Ran { code: status.code(), out: String::new(), err: self.log() }
    }

    async fn ended_in_order(&mut self) {
        let status = self.status().await;
        assert!(status.success(), "{status}; it logged:\n{}", self.log());
    }

    async fn status(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "{} does not stop; it logged:\n{}", self.name(), self.log());
            tokio::time::sleep(super::INTERVAL).await;
        }
    }

    /// What starts it again, with the same data and at the same ports.
    fn again(&self) -> SiteBuilder {
        let mut builder = self.builder.clone();
        builder.api = self.api().trim_start_matches("http://").to_owned();
        builder.listen = self.address.split("/p2p/").next().unwrap_or_default().to_owned();
        builder
    }
}
