//! The processes of a cluster: what they are told, and when they are ready.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Builder, Programs};
use crate::PATIENCE;
use crate::process::Process;

/// How often it is asked whether a server is ready.
const INTERVAL: Duration = Duration::from_millis(50);
/// How long one such question may take.
const ANSWER: Duration = Duration::from_secs(2);
/// How much of an answer is read, in bytes.
const MOST: u64 = 100_000;

/// The ports of an etcd: for its clients, and for members that it never has.
pub(super) type EtcdPorts = [u16; 2];

/// Starts an etcd, and waits until it serves. None if somebody else has taken a port.
pub(super) fn etcd(programs: &Programs, dir: &Path, [clients, peers]: EtcdPorts) -> Option<Process> {
    // If another etcd has taken a port, that one must not be taken for this one.
    let name = format!("etcd-{:032x}", rand::random::<u128>());
    let [clients_url, peers_url] = [clients, peers].map(|port| format!("http://127.0.0.1:{port}"));
    let arguments = [
        format!("--name={name}"),
        "--data-dir=etcd".to_owned(),
        format!("--listen-client-urls={clients_url}"),
        format!("--advertise-client-urls={clients_url}"),
        format!("--listen-peer-urls={peers_url}"),
        format!("--initial-advertise-peer-urls={peers_url}"),
        format!("--initial-cluster={name}={peers_url}"),
        // What a crash of the machine would lose is lost to the tests anyway.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    let mut process = Process::start("etcd", &programs.etcd, &arguments, dir);
    ready(&mut process, || {
        let own = get(peers, "/members").is_some_and(|members| members.contains(&name));
        own && get(clients, "/health").is_some_and(|health| health.contains(r#""health":"true""#))
    })
    .then_some(process)
}

/// Starts an API server; `serves` says whether it does. None if somebody else has taken its port.
pub(super) fn apiserver(
    programs: &Programs,
    builder: &Builder,
    dir: &Path,
    etcd: u16,
    port: u16,
    serves: impl Fn() -> bool,
) -> Option<Process> {
    let fixed = [
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        "--cert-dir=.",
        "--tls-cert-file=server.crt",
        "--tls-private-key-file=server.key",
        "--client-ca-file=ca.crt",
        "--token-auth-file=tokens.csv",
        "--authorization-mode=RBAC",
        "--service-account-key-file=accounts.pub",
        "--service-account-signing-key-file=accounts.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-cluster-ip-range=10.0.0.0/24",
        // There is no network in which its address could be reached.
        "--endpoint-reconciler-type=none",
        // Pods are accepted also where no controller manager makes service accounts.
        "--disable-admission-plugins=ServiceAccount",
        "--profiling=false",
        "--v=1",
    ];
    let mut arguments = vec![format!("--etcd-servers=http://127.0.0.1:{etcd}"), format!("--secure-port={port}")];
    arguments.extend(fixed.map(str::to_owned));
    arguments.extend(builder.arguments.iter().cloned());
    let mut process = Process::start("kube-apiserver", &programs.kube_apiserver, &arguments, dir);
    // Asking takes a process: only once somebody listens.
    ready(&mut process, || connect(port).is_some() && serves()).then_some(process)
}

/// Starts a controller manager; `works` says whether it does.
pub(super) fn controller_manager(program: &Path, dir: &Path, kubeconfig: &Path, works: impl Fn() -> bool) -> Process {
    let mut arguments = vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        "--service-account-private-key-file=accounts.key".to_owned(),
        "--root-ca-file=ca.crt".to_owned(),
        "--leader-elect=false".to_owned(),
        // It is asked nothing, and several must not meet at one port.
        "--secure-port=0".to_owned(),
        "--v=1".to_owned(),
    ];
    // Until 1.23 there is a second port, without TLS, and it is open by default.
    let help = std::process::Command::new(program).arg("--help").output();
    if help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains(" --port int")) {
        arguments.push("--port=0".to_owned());
    }
    let mut process = Process::start("kube-controller-manager", program, &arguments, dir);
    assert!(ready(&mut process, works), "the controller manager wants a port; it said:\n{}", process.said());
    process
}

/// Waits until a server is ready; whether it is: if not, it has ended since another has its port.
///
/// # Panics
/// If it ends for another reason, or takes longer than [`PATIENCE`], with the end of what it said.
fn ready(process: &mut Process, mut is: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = process.ended() {
            let said = process.said();
            assert!(said.contains("address already in use"), "{} ended, {status}; it said:\n{said}", process.name());
            return false;
        }
        if is() {
            return true;
        }
        let late = Instant::now() >= deadline;
        assert!(!late, "{} is not ready after {PATIENCE:?}; it said:\n{}", process.name(), process.said());
        std::thread::sleep(INTERVAL);
    }
}

fn connect(port: u16) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), ANSWER).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    Some(stream)
}

/// What is there, headers included. None if nobody answers.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = connect(port)?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::ports;

    #[test]
    fn an_etcd_without_its_ports_is_none_also_if_another_etcd_has_them() {
        let Some(programs) = Programs::required() else { return };
        let dirs = [(); 4].map(|()| tempfile::tempdir().unwrap());
        let [own, first, second, both] = dirs.each_ref().map(|dir| dir.path());
        let taken @ [clients, peers] = ports::unused();
        let one = etcd(&programs, own, taken).expect("nobody else has them");
        let [other_clients, other_peers] = ports::unused();
        assert!(etcd(&programs, first, [clients, other_peers]).is_none());
        assert!(etcd(&programs, second, [other_clients, peers]).is_none());
        assert!(etcd(&programs, both, taken).is_none());
        drop(one);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, clients)).unwrap();
        assert!(etcd(&programs, first, taken).is_none());
        drop(listener);
        assert!(etcd(&programs, first, taken).is_some());
    }
}
