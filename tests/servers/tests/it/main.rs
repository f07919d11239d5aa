//! Whether the servers do what tests of drivers count on.

mod cluster;
mod controllers;
mod ends;
mod openstack;
mod redis;

use std::process::Output;
use std::time::{Duration, Instant};

use khufu_test_servers::PATIENCE;
use khufu_test_servers::kubernetes::Cluster;

/// Looks until something is there.
#[track_caller]
fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, look)
}

/// The same, for at most so long.
#[track_caller]
fn until_within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What kubectl printed.
#[track_caller]
fn good(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Why kubectl failed.
#[track_caller]
fn bad(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The value `a` of the ConfigMap `web`.
#[track_caller]
fn web(cluster: &Cluster) -> String {
    good(&cluster.kubectl(&["get", "configmap", "web", "--output=jsonpath={.data.a}"]))
}

/// Makes the ConfigMap `web`.
#[track_caller]
fn put_web(cluster: &Cluster, value: &str) {
    good(&cluster.kubectl(&["create", "configmap", "web", &format!("--from-literal=a={value}")]));
}
