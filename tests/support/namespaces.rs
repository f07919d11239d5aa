//! Hosts that are really apart: a network namespace for each, joined by a bridge in one of its own.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Namespaces of one test, named after its process. Dropping them removes them, also after a panic.
#[derive(Debug)]
pub(crate) struct Network {
    prefix: String,
    hosts: Vec<String>,
}

impl Network {
    /// Hosts with these names at 10.77.0.1, 10.77.0.2 and so on. None, with the reason printed, where the test may not
    /// make namespaces; a panic instead if `KHUFU_REQUIRE_SERVERS` demands them.
    pub(crate) fn new(hosts: &[&str]) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Dropped, and so removed, if only part of it can be made.
        let mut network = Self { prefix: format!("khufu-{}-{number}", std::process::id()), hosts: Vec::new() };
        match network.build(hosts) {
            Ok(()) => Some(network),
            Err(reason) => {
                super::missing(&format!("network namespaces ({reason}); root and iproute2 are needed"));
                None
            }
        }
    }

    fn build(&mut self, hosts: &[&str]) -> Result<(), String> {
        let hub = self.namespace("hub");
        ip(&["netns", "add", &hub])?;
        self.hosts.push("hub".to_owned());
        ip(&["-n", &hub, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "bridge", "up"])?;
        for (at, host) in hosts.iter().enumerate() {
            let name = self.namespace(host);
            ip(&["netns", "add", &name])?;
            self.hosts.push((*host).to_owned());
            ip(&["link", "add", "eth0", "netns", &name, "type", "veth", "peer", "name", host, "netns", &hub])?;
            ip(&["-n", &hub, "link", "set", host, "master", "bridge", "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            ip(&["-n", &name, "address", "add", &format!("10.77.0.{}/24", at + 1), "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
            // Multicast has to know where to go.
            ip(&["-n", &name, "route", "add", "default", "dev", "eth0"])?;
        }
        Ok(())
    }

    /// The name of the namespace of a host.
    pub(crate) fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// Pulls the plug of a host, or puts it in again.
    pub(crate) fn plug(&self, host: &str, inside: bool) {
        let state = if inside { "up" } else { "down" };
        ip(&["-n", &self.namespace("hub"), "link", "set", host, state]).expect("a link can be set");
    }

    /// Loses every packet that a host sends; it still gets all that others send. `false` ends it.
    pub(crate) fn mute(&self, host: &str, muted: bool) {
        let hub = self.namespace("hub");
        let table = format!("mute-{host}");
        let rules = if muted {
            format!(
                "table bridge {table} {{ chain forward {{ type filter hook forward priority 0; iifname {host} drop; }}; }}"
            )
        } else {
            format!("delete table bridge {table}")
        };
        run(Command::new("ip").args(["netns", "exec", &hub, "nft", &rules])).expect("a rule can be set");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Links and bridges go with their namespaces.
        for host in &self.hosts {
            if let Err(error) = ip(&["netns", "delete", &self.namespace(host)]) {
                eprintln!("a namespace is left behind: {error}");
            }
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    run(Command::new("ip").args(arguments))
}

fn run(command: &mut Command) -> Result<(), String> {
    let Output { status, stderr, .. } = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {}", String::from_utf8_lossy(&stderr).trim())) }
}

/// Where a namespace can be entered.
pub(super) fn path(namespace: &str) -> PathBuf {
    Path::new("/run/netns").join(namespace)
}

/// Runs something in a namespace. The thread belongs to it from then on.
pub(super) fn run_within<T>(namespace: &Path, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let opened = File::open(namespace).map_err(|error| format!("{}: {error}", namespace.display()))?;
    move_into_link_name_space(opened.as_fd(), Some(LinkNameSpaceType::Network)).map_err(|error| error.to_string())?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(work)
}
