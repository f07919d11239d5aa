//! Nothing is left behind.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use khufu_test_servers::kubernetes::{ADMIN, Cluster, Programs};

use super::until;

/// Set for the run of this program that is killed.
const VICTIM: &str = "KHUFU_TEST_VICTIM";

fn alive(id: &str) -> bool {
    // A process that nobody waits for any more stays as a name for a while, without a program.
    Path::new("/proc").join(id).join("exe").read_link().is_ok()
}

#[test]
fn all_ends_with_a_cluster_that_is_dropped() {
    let Some(mut paris) = Cluster::start("paris") else { return };
    paris.start_controller_manager();
    let dir = paris.kubeconfig(ADMIN).parent().unwrap().to_owned();
    let processes: Vec<String> = paris.processes().into_iter().map(|(_, id)| id.to_string()).collect();
    assert!(processes.len() >= 2 && processes.iter().all(|id| alive(id)) && dir.exists());
    // Nobody else reads the tokens.
    assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    // One that is paused ends as well.
    paris.pause();
    drop(paris);
    assert!(!processes.iter().any(|id| alive(id)) && !dir.exists());
}

#[test]
#[allow(clippy::print_stdout, reason = "the run that is killed tells the other one what it started")]
fn all_ends_with_a_test_that_is_killed() {
    if std::env::var_os(VICTIM).is_some() {
        // Started by a thread that has ended: that must not end them.
        let paris = std::thread::spawn(|| Cluster::start("paris")).join().unwrap().unwrap();
        let dir = paris.kubeconfig(ADMIN).parent().unwrap().to_owned();
        let ids: Vec<String> = paris.processes().into_iter().map(|(_, id)| id.to_string()).collect();
        println!("\nvictim {} {}", dir.display(), ids.join(" "));
        loop {
            std::thread::park();
        }
    }
    if Programs::required().is_none() {
        return;
    }
    if !Command::new("setpriv").args(["--pdeathsig", "KILL", "true"]).status().is_ok_and(|status| status.success()) {
        return;
    }
    let mut victim = Command::new(std::env::current_exe().unwrap());
    victim.args(["--exact", "ends::all_ends_with_a_test_that_is_killed", "--nocapture"]).env(VICTIM, "1");
    let mut victim = victim.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.into_iter().find_map(|line| line.strip_prefix("victim ").map(str::to_owned));
    let line = line.expect("the victim starts a cluster");
    let (dir, ids) = line.split_once(' ').unwrap();
    let running = ids.split(' ').count() == 2 && ids.split(' ').all(alive);
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(running, "{line}");
    until("its servers have ended", || (!ids.split(' ').any(alive)).then_some(()));
    // A directory cannot remove itself.
    std::fs::remove_dir_all(dir).unwrap();
}
