//! Processes of runs that nobody waits for any more.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::mark;

/// How long it is waited until processes that were killed are gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ends all processes of these runs, with their process groups, and waits until they are gone. A process belongs to a run if
/// it has the run's mark, has the run's name in its environment, or works in its private directory: whoever may set limits as
/// they like can lose the first.
///
/// A process that starts another and ends while this looks hides neither: the other has the higher number, and comes later.
pub(super) fn end(runs: &[String], directory: &Path) {
    if runs.is_empty() {
        return;
    }
    let names: BTreeSet<&str> = runs.iter().map(String::as_str).collect();
    let since = Instant::now();
    loop {
        let found = find(&names, directory);
        if found.is_empty() {
            return;
        }
        for (process, group) in &found {
            tracing::info!(process = process.as_raw_nonzero(), "ending a process that a run left behind");
            // It may have ended by itself meanwhile.
            let _ = kill_process(*process, Signal::KILL);
            if let Some(group) = group {
                let _ = kill_process_group(*group, Signal::KILL);
            }
        }
        if since.elapsed() > PATIENCE {
            tracing::warn!(processes = found.len(), "processes that a run left behind cannot be ended");
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The processes of runs, each with its process group if that is not one that this process belongs to.
fn find(names: &BTreeSet<&str>, directory: &Path) -> Vec<(Pid, Option<Pid>)> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let own = rustix::process::getpgrp();
    let numbers = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers
        .filter(|number| belongs(*number, names, directory))
        .filter_map(|number| {
            let process = Pid::from_raw(number)?;
            let group = rustix::process::getpgid(Some(process)).ok().filter(|group| *group != own);
            Some((process, group))
        })
        .collect()
}

/// What cannot be read is of somebody else, or has ended: a process that has is a zombie without an environment.
fn belongs(process: i32, names: &BTreeSet<&str>, directory: &Path) -> bool {
    let there = Path::new("/proc").join(process.to_string());
    let marked = fs::read_to_string(there.join("limits")).ok().and_then(|limits| mark::find(&limits));
    if marked.is_some_and(|marked| names.iter().any(|name| mark::mark(name) == Some(marked))) {
        // A zombie has limits as well, and nothing else any more.
        return fs::read(there.join("stat")).is_ok_and(|stat| !is_zombie(&stat));
    }
    let works_in = fs::read_link(there.join("cwd")).ok().and_then(|cwd| {
        let first = cwd.strip_prefix(directory).ok()?.components().next()?;
        Some(names.contains(first.as_os_str().to_str()?))
    });
    works_in == Some(true)
        || fs::read(there.join("environ")).is_ok_and(|environment| {
            environment.split(|byte| *byte == 0).any(|variable| {
                let value = std::str::from_utf8(variable).ok().and_then(|text| text.strip_prefix(super::RUN));
                value.and_then(|value| value.strip_prefix('=')).is_some_and(|name| names.contains(name))
            })
        })
}

/// By `/proc/PID/stat`: the state follows the name, which is in parentheses and may hold anything.
fn is_zombie(stat: &[u8]) -> bool {
    let after = stat.iter().rposition(|byte| *byte == b')').map_or(0, |end| end + 1);
    let state = stat.get(after..).unwrap_or_default().iter().find(|byte| !byte.is_ascii_whitespace());
    matches!(state, Some(b'Z' | b'X'))
}
