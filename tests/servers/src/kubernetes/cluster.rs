//! A cluster that runs.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::kubeconfig::{self, User};
use super::servers::{self, EtcdPorts};
use super::{Builder, Missing, Programs, certificates, kubectl, metrics};
use crate::process::Process;
use crate::{PATIENCE, ports};

/// The user that every cluster has, in the group `system:masters`: everything is allowed to it.
pub const ADMIN: &str = "admin";

/// How often others may take the ports that were free a moment before.
const ATTEMPTS: usize = 10;
/// How long an API server may take to end what it is at, once it is asked to stop.
const GRACE: Duration = Duration::from_secs(2);

/// A Kubernetes API server with its etcd, on loopback. Everything about it lies in a temporary directory. Dropping it ends
/// all of its processes; where `setpriv` is there, they end as well if the test is killed.
#[derive(Debug)]
pub struct Cluster {
    builder: Builder,
    programs: Programs,
    authority: String,
    port: u16,
    etcd_ports: EtcdPorts,
    // They are dropped in this order: who uses another ends first, and the directory goes last.
    controller_manager: Option<Process>,
    apiserver: Option<Process>,
    etcd: Process,
    dir: TempDir,
}

impl Cluster {
    /// A cluster to be started.
    pub fn builder(name: &str) -> Builder {
        Builder::new(name)
    }

    /// Starts a cluster without users other than [`ADMIN`]. None, with the reason printed, where the programs are not
    /// installed.
    ///
    /// # Panics
    /// As [`Builder::start`] does.
    pub fn start(name: &str) -> Option<Self> {
        Self::builder(name).start()
    }

    pub(super) fn new(builder: Builder, programs: Programs) -> Self {
        // Keys and tokens are in it.
        let own = Permissions::from_mode(0o700);
        let dir = tempfile::Builder::new().prefix("khufu-kubernetes-").permissions(own).tempdir();
        let dir = dir.expect("a temporary directory can be made");
        let authority = certificates::make(&builder.name, dir.path()).expect("certificates can be made");
        let write =
            |name: &str, text: String| std::fs::write(dir.path().join(name), text).expect("a file can be written");
        write("tokens.csv", kubeconfig::tokens(&builder.users));
        std::fs::create_dir(dir.path().join("home")).expect("a directory can be made");
        let (etcd_ports, etcd) = some_ports(|ports| servers::etcd(&programs, dir.path(), ports));
        let mut cluster = Self {
            builder,
            programs,
            authority,
            port: 0,
            etcd_ports,
            controller_manager: None,
            apiserver: None,
            etcd,
            dir,
        };
        cluster.start_at_some_port();
        cluster
    }

    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.builder.name
    }

    /// Where its API server is, or was before it was stopped.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The certificate of its authority, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.authority
    }

    /// The token of [`ADMIN`].
    pub fn admin_token(&self) -> &str {
        self.token(ADMIN)
    }

    /// The token of a user.
    ///
    /// # Panics
    /// If there is no such user.
    #[track_caller]
    pub fn token(&self, user: &str) -> &str {
        &self.user(user).token
    }

    /// A configuration file for a user. It stays where it is, and is written anew when the API server moves.
    ///
    /// # Panics
    /// If there is no such user.
    #[track_caller]
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.dir.path().join(format!("{}.kubeconfig", self.user(user).name))
    }

    #[track_caller]
    fn user(&self, name: &str) -> &User {
        let user = self.builder.users.iter().find(|user| user.name == name);
        user.unwrap_or_else(|| panic!("{} knows no user {name}: name it to the builder", self.name()))
    }

    /// Whether the API server runs; it may be paused.
    pub fn runs(&mut self) -> bool {
        self.apiserver.as_mut().is_some_and(|process| process.ended().is_none())
    }

    /// The processes that belong to it, by name, with their ids.
    pub fn processes(&self) -> Vec<(&'static str, u32)> {
        let all = [Some(&self.etcd), self.apiserver.as_ref(), self.controller_manager.as_ref()];
        all.into_iter().flatten().map(|process| (process.name(), process.id())).collect()
    }

    /// Asks the API server to end, and ends it if it does not within two seconds, as one does not that is
    /// being watched. What it stored stays.
    pub fn stop(&mut self) {
        if let Some(process) = self.apiserver.take() {
            process.stop(GRACE);
        }
    }

    /// Ends the API server at once, as a crash would.
    pub fn kill(&mut self) {
        self.apiserver = None;
    }

    /// Starts the API server again where it was, with all that it stored. It is stopped first if it runs.
    ///
    /// # Panics
    /// If it does not start, or if somebody else has its port and does not give it back.
    pub fn start_again(&mut self) {
        self.stop();
        let deadline = Instant::now() + PATIENCE;
        while !self.start_at(self.port) {
            let late = Instant::now() >= deadline;
            assert!(!late, "somebody else has the port {} of {}", self.port, self.name());
        }
    }

    /// Starts the API server again at a port where it was not, with all that it stored. It is stopped first if it runs.
    /// [`Cluster::kubeconfig`]s and the controller manager follow.
    ///
    /// # Panics
    /// If it does not start.
    pub fn move_to_another_port(&mut self) {
        self.stop();
        self.start_at_some_port();
        if self.controller_manager.take().is_some() {
            self.start_controller_manager();
        }
    }

    /// Stops the API server without ending it: connections stay, and nothing is answered.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    /// Goes on after [`Cluster::pause`].
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    fn signal(&mut self, signal: Signal) {
        if let Some(process) = &mut self.apiserver {
            process.signal(signal);
        }
    }

    /// Starts a controller manager, unless it runs, and waits until it works. False, with the reason printed, where it is not
    /// installed.
    ///
    /// # Panics
    /// If it does not start, or if `KHUFU_REQUIRE_SERVERS` is set and it is not installed.
    pub fn start_controller_manager(&mut self) -> bool {
        let Some(program) = &self.programs.kube_controller_manager else {
            Missing(vec!["kube-controller-manager"]).tell();
            return false;
        };
        if self.controller_manager.as_mut().is_none_or(|process| process.ended().is_some()) {
            // One of its controllers makes this at once, and makes it again if it is gone.
            let account = "/api/v1/namespaces/default/serviceaccounts/default";
            self.kubectl(&["delete", "serviceaccount", "default", "--ignore-not-found"]);
            let works = || self.answers(account);
            let kubeconfig = self.kubeconfig(ADMIN);
            self.controller_manager = Some(servers::controller_manager(program, self.dir.path(), &kubeconfig, works));
        }
        true
    }

    /// Runs kubectl as [`ADMIN`], with a home and a configuration of its own.
    ///
    /// # Panics
    /// If it takes longer than a minute.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        self.kubectl_as(ADMIN, arguments, None)
    }

    /// Runs kubectl as a user, with this as its standard input.
    ///
    /// # Panics
    /// If there is no such user, or if it takes longer than a minute.
    #[track_caller]
    pub fn kubectl_as(&self, user: &str, arguments: &[&str], input: Option<&str>) -> Output {
        let mut command = self.kubectl_command(user);
        command.args(arguments);
        kubectl::run(command, input)
    }

    /// A call of kubectl to add arguments to. It ends by itself after a minute.
    ///
    /// # Panics
    /// If there is no such user.
    #[track_caller]
    pub fn kubectl_command(&self, user: &str) -> Command {
        kubectl::command(&self.programs.kubectl, &self.kubeconfig(user), &self.dir.path().join("home"))
    }

    /// The sum of all series of a metric of the API server that carry all of these labels; zero if there is none.
    ///
    /// ```no_run
    /// # fn test(cluster: &khufu_test_servers::kubernetes::Cluster) {
    /// let writes = cluster.metric("apiserver_request_total", &[("verb", "PATCH"), ("resource", "configmaps")]);
    /// # }
    /// ```
    ///
    /// # Panics
    /// If the API server does not answer.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let output = self.kubectl(&["get", "--raw=/metrics"]);
        assert!(output.status.success(), "{} tells no metrics: {}", self.name(), kubectl::said(&output));
        let text = String::from_utf8_lossy(&output.stdout);
        metrics::sum(&text, name, labels).unwrap_or_else(|line| panic!("this is no metric: {line}"))
    }

    /// Whether there is something at a path.
    fn answers(&self, path: &str) -> bool {
        self.kubectl(&["--request-timeout=5s", "get", &format!("--raw={path}")]).status.success()
    }

    fn start_at_some_port(&mut self) {
        let before = self.port;
        some_ports(|[port]| (port != before && self.start_at(port)).then_some(()));
    }

    /// Starts the API server at a port, where kubeconfigs look for it from then on. False if somebody else has it.
    fn start_at(&mut self, port: u16) -> bool {
        self.port = port;
        self.write_kubeconfigs();
        // The namespace is made a moment after the server calls itself ready.
        let serves = || self.answers("/readyz") && self.answers("/api/v1/namespaces/default");
        let dir = self.dir.path();
        let [etcd, _] = self.etcd_ports;
        self.apiserver = servers::apiserver(&self.programs, &self.builder, dir, etcd, port, serves);
        self.apiserver.is_some()
    }

    fn write_kubeconfigs(&self) {
        let authority = self.dir.path().join("ca.crt");
        for user in &self.builder.users {
            let text = kubeconfig::kubeconfig(self.name(), &self.url(), &authority, user);
            replace(&self.kubeconfig(&user.name), &text).expect("a kubeconfig can be written");
        }
    }
}

/// Whoever reads the file meanwhile reads all of the old or all of the new.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(&new, path)
}

/// Tries unused ports until nobody else is quicker.
fn some_ports<const N: usize, T>(mut start: impl FnMut([u16; N]) -> Option<T>) -> ([u16; N], T) {
    for _ in 0..ATTEMPTS {
        let ports = ports::unused();
        if let Some(started) = start(ports) {
            return (ports, started);
        }
    }
    panic!("others have taken unused ports {ATTEMPTS} times")
}
