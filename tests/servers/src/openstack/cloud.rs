//! A cloud that runs.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::{self, Answer};
use super::install::Installed;
use crate::PATIENCE;
use crate::process::Process;

/// How often it is asked whether a service is ready.
const INTERVAL: Duration = Duration::from_millis(50);
/// How long a service may take to end what it is at, once it is asked to stop.
const GRACE: Duration = Duration::from_secs(2);
/// The password of the user `admin`.
const PASSWORD: &str = "secret";
/// How often others may take the ports that were free a moment before.
const ATTEMPTS: usize = 10;

/// A service of a cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Users, projects and the catalog. It always runs.
    Keystone,
    /// Images.
    Glance,
    /// What Nova asks where there is room.
    Placement,
    /// Servers, on a hypervisor that only says that it runs them.
    Nova,
    /// Networks, without any agent.
    Neutron,
}

impl Service {
    /// All of them: what it takes to start a server.
    pub const ALL: &[Self] = &[Self::Glance, Self::Placement, Self::Neutron, Self::Nova];

    fn name(self) -> &'static str {
        match self {
            Self::Keystone => "keystone",
            Self::Glance => "glance",
            Self::Placement => "placement",
            Self::Nova => "nova",
            Self::Neutron => "neutron",
        }
    }

    fn offset(self) -> u16 {
        match self {
            Self::Keystone => 0,
            Self::Glance => 1,
            Self::Placement => 2,
            Self::Nova => 3,
            Self::Neutron => 4,
        }
    }

    /// What paths begin with.
    fn root(self) -> &'static str {
        match self {
            Self::Keystone => "/v3",
            Self::Glance => "/v2",
            Self::Placement => "",
            Self::Nova => "/v2.1",
            Self::Neutron => "/v2.0",
        }
    }
}

/// A cloud on loopback. Everything about it lies in a temporary directory. Dropping it ends all of its processes; where
/// `setpriv` is there, they end as well if the test is killed.
#[derive(Debug)]
pub struct Cloud {
    name: String,
    installed: Installed,
    port: u16,
    token: Mutex<Option<String>>,
    // They end before the directory goes.
    running: BTreeMap<Service, Process>,
    dir: TempDir,
}

impl Cloud {
    /// Starts Keystone and these services, and waits until they serve. None, with the reason printed, where they are not
    /// installed.
    ///
    /// # Panics
    /// If one does not start, with the end of what it said, or if `KHUFU_REQUIRE_SERVERS` is set and they are not installed.
    pub fn start(name: &str, services: &[Service]) -> Option<Self> {
        Self::start_with(name, services, Duration::from_secs(3600))
    }

    /// The same, with tokens that are good for so long.
    ///
    /// # Panics
    /// As [`Cloud::start`] does.
    pub fn start_with(name: &str, services: &[Service], lifetime: Duration) -> Option<Self> {
        let installed = Installed::required()?;
        // Keys and passwords are in it.
        let own = Permissions::from_mode(0o700);
        let dir = tempfile::Builder::new().prefix("khufu-openstack-").permissions(own).tempdir();
        let dir = dir.expect("a temporary directory can be made");
        let state = dir.path().join("cloud");
        copy(&installed.cloud, &state).expect("the cloud can be copied");
        let token = Mutex::default();
        let mut cloud = Self { name: name.to_owned(), installed, port: 0, token, running: BTreeMap::new(), dir };
        for attempt in 1.. {
            cloud.port = in_a_row();
            cloud.settle(lifetime, services);
            if cloud.run(Service::Keystone) && cloud.run_all(services) {
                break;
            }
            cloud.running.clear();
            assert!(attempt < ATTEMPTS, "others have taken unused ports {ATTEMPTS} times");
        }
        std::fs::write(cloud.clouds_yaml(), cloud.yaml()).expect("a file can be written");
        Some(cloud)
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("cloud")
    }

    /// Tells the copy where it is, and what its catalog lists.
    fn settle(&self, lifetime: Duration, services: &[Service]) {
        let mut command = Command::new(&self.installed.python);
        command.arg(&self.installed.program).arg("settle").arg(self.state());
        command.args([self.port.to_string(), lifetime.as_secs().to_string()]).stdin(Stdio::null());
        command.args(services.iter().map(|service| service.name()));
        let output = command.output().expect("Python can be started");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts several at once. False if somebody else has taken the port of one.
    fn run_all(&mut self, services: &[Service]) -> bool {
        // Nova asks Placement when it starts.
        let (last, first): (Vec<Service>, Vec<Service>) =
            services.iter().partition(|service| **service == Service::Nova);
        for services in [first, last] {
            for service in &services {
                self.begin(*service);
            }
            for service in services {
                if !self.ready(service) {
                    return false;
                }
            }
        }
        true
    }

    fn begin(&mut self, service: Service) {
        let words = [
            &*self.installed.program.to_string_lossy(),
            "serve",
            service.name(),
            &self.state().to_string_lossy(),
            &self.port.to_string(),
        ]
        .map(str::to_owned);
        let process = Process::start(service.name(), &self.installed.python, &words, self.dir.path());
        self.running.insert(service, process);
    }

    fn run(&mut self, service: Service) -> bool {
        self.begin(service);
        self.ready(service)
    }

    /// Waits until a service serves. False if somebody else has its port.
    fn ready(&mut self, service: Service) -> bool {
        let port = self.port + service.offset();
        let deadline = Instant::now() + PATIENCE;
        let process = self.running.get_mut(&service).expect("it was begun");
        loop {
            if let Some(status) = process.ended() {
                let said = process.said();
                assert!(
                    said.contains("Address already in use"),
                    "{} ended with {status}; it said:\n{said}",
                    service.name()
                );
                return false;
            }
            // Whoever answers has loaded all of itself.
            if client::ask(port, "GET", "/", None, None).is_some() {
                return true;
            }
            let late = Instant::now() >= deadline;
            assert!(!late, "{} is not ready after {PATIENCE:?}; it said:\n{}", service.name(), process.said());
            std::thread::sleep(INTERVAL);
        }
    }

    /// The name it was given, and that it has in [`Cloud::clouds_yaml`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where Keystone is, with its version.
    pub fn auth_url(&self) -> String {
        format!("http://127.0.0.1:{}/v3", self.port)
    }

    /// The port of a service.
    pub fn port(&self, service: Service) -> u16 {
        self.port + service.offset()
    }

    /// A file that describes the cloud under its name, with the rights of its administrator.
    pub fn clouds_yaml(&self) -> PathBuf {
        self.dir.path().join("clouds.yaml")
    }

    fn yaml(&self) -> String {
        // JSON is YAML.
        let auth = json!({"auth_url": self.auth_url(), "username": "admin", "password": PASSWORD, "project_name": "admin",
            "user_domain_id": "default", "project_domain_id": "default"});
        json!({"clouds": {&self.name: {"auth": auth, "region_name": "RegionOne"}}}).to_string()
    }

    /// What runs, with its process ids.
    pub fn processes(&self) -> Vec<(&'static str, u32)> {
        self.running.values().map(|process| (process.name(), process.id())).collect()
    }

    /// Asks a service to end, and ends it if it does not within two seconds. What it stored stays.
    pub fn stop(&mut self, service: Service) {
        if let Some(process) = self.running.remove(&service) {
            process.stop(GRACE);
        }
    }

    /// Ends a service at once, as a crash would.
    pub fn kill(&mut self, service: Service) {
        self.running.remove(&service);
    }

    /// Starts a service where it was, with all that it stored. It is stopped first if it runs.
    ///
    /// # Panics
    /// If it does not start, or if somebody else has its port and does not give it back.
    pub fn start_again(&mut self, service: Service) {
        self.stop(service);
        let deadline = Instant::now() + PATIENCE;
        while !self.run(service) {
            assert!(Instant::now() < deadline, "somebody else has the port of {}", service.name());
        }
    }

    /// Stops a service without ending it: connections stay, and nothing is answered.
    pub fn pause(&mut self, service: Service) {
        self.signal(service, Signal::STOP);
    }

    /// Goes on after [`Cloud::pause`].
    pub fn resume(&mut self, service: Service) {
        self.signal(service, Signal::CONT);
    }

    fn signal(&mut self, service: Service, signal: Signal) {
        if let Some(process) = self.running.get_mut(&service) {
            process.signal(signal);
        }
    }

    /// Makes all tokens worthless that were given out so far: Keystone has other keys from now on.
    ///
    /// # Panics
    /// If the keys cannot be made.
    pub fn forget_tokens(&self) {
        let keys = self.state().join("etc/fernet-keys");
        std::fs::remove_dir_all(&keys).expect("the keys can be removed");
        let owner = std::fs::metadata(self.state()).expect("the directory is there");
        let mut command = Command::new(self.installed.program("keystone-manage"));
        command.arg("--config-file").arg(self.state().join("etc/keystone/keystone.conf")).arg("fernet_setup");
        command.arg(format!("--keystone-user={}", owner.uid())).arg(format!("--keystone-group={}", owner.gid()));
        let output = command.stdin(Stdio::null()).output().expect("keystone-manage can be started");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        *self.token.lock().expect("no test has panicked here") = None;
    }

    /// A token of the administrator.
    ///
    /// # Panics
    /// If Keystone gives none.
    #[track_caller]
    pub fn token(&self) -> String {
        let mut token = self.token.lock().expect("no test has panicked here");
        if let Some(token) = &*token {
            return token.clone();
        }
        let user = json!({"name": "admin", "domain": {"id": "default"}, "password": PASSWORD});
        let scope = json!({"project": {"name": "admin", "domain": {"id": "default"}}});
        let identity = json!({"methods": ["password"], "password": {"user": user}});
        let body = json!({"auth": {"identity": identity, "scope": scope}});
        let answer = client::ask(self.port, "POST", "/v3/auth/tokens", None, Some(&body)).expect("Keystone answers");
        let new = answer.token.clone().unwrap_or_else(|| panic!("{answer:?}"));
        *token = Some(new.clone());
        new
    }

    /// Asks a service as the administrator; the path begins after the version of its API.
    ///
    /// # Panics
    /// If it does not answer.
    #[track_caller]
    pub fn ask(&self, service: Service, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let body = body.map(Value::to_string).unwrap_or_default();
        self.send(service, method, path, "application/json", body.as_bytes())
    }

    /// The same, with a body of any type.
    ///
    /// # Panics
    /// If it does not answer.
    #[track_caller]
    pub fn send(&self, service: Service, method: &str, path: &str, content_type: &str, body: &[u8]) -> Answer {
        let (token, path) = (self.token(), format!("{}{path}", service.root()));
        let answer = client::send(self.port(service), method, &path, Some(&token), content_type, body);
        answer.unwrap_or_else(|| panic!("{} does not answer", service.name()))
    }

    /// What is at a path.
    ///
    /// # Panics
    /// If there is nothing.
    #[track_caller]
    pub fn get(&self, service: Service, path: &str) -> Value {
        let answer = self.ask(service, "GET", path, None);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }
}

/// Copies a directory with all that is in it.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false => _ = std::fs::copy(entry.path(), target)?,
        }
    }
    Ok(())
}

/// The first of as many ports in a row as a cloud has, on which nobody listens now.
fn in_a_row() -> u16 {
    let free = |port: u16| std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port)).is_ok();
    loop {
        // The kernel gives the ports above to connections, of which there are many, and would soon take one of five.
        let first = rand::random_range(10_000..32_000);
        if (0..5).all(|offset| free(first + offset)) {
            return first;
        }
    }
}
