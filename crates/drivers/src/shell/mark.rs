//! Names of runs, and the mark by which their processes are known.
//!
//! Processes inherit resource limits, and no ordinary user can raise a hard one again. So a limit of its own tells the processes
//! of a run from all others, wherever they went: in another process group or session, orphaned, in another directory, with
//! an empty environment. The limit is the one on the processor time that a real-time process takes without a pause, which is
//! never reached: the mark is the time in milliseconds, shifted, and counts as microseconds.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

/// The numbers of processes are below two to the power of this.
const PROCESS_BITS: u32 = 22;

/// The name of a run, which no other on this machine has: not in this process, not in another, not in one before.
pub(super) fn name() -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now = u64::try_from(now).unwrap_or_default();
    let next = |last: u64| now.max(last + 1);
    let last = LAST.fetch_update(Relaxed, Relaxed, |last| Some(next(last))).unwrap_or_default();
    (next(last) << PROCESS_BITS | u64::from(std::process::id())).to_string()
}

/// The mark of the run of this name; none if it is no name of a run.
pub(super) fn mark(name: &str) -> Option<u64> {
    name.parse().ok()
}

/// The argument that makes `prlimit` set the mark of a run.
pub(super) fn argument(name: &str) -> Option<String> {
    mark(name).map(|mark| format!("--rttime={mark}:{mark}"))
}

/// The mark of a process, by what `/proc` says of its limits.
pub(super) fn find(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max realtime timeout"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_two_runs_have_one_name() {
        let names: std::collections::BTreeSet<_> = (0..1000).map(|_| name()).collect();
        assert_eq!(names.len(), 1000);
        assert!(names.iter().all(|name| mark(name).is_some_and(|mark| mark < u64::MAX >> 1)), "{names:?}");
    }

    #[test]
    fn a_mark_is_the_hard_limit() {
        let line = "Max realtime timeout      5                    7505033953280005120  us        ";
        assert_eq!(find(&format!("Limit  Soft Limit  Hard Limit  Units\n{line}\n")), Some(7_505_033_953_280_005_120));
        assert_eq!(find("Max realtime timeout      unlimited            unlimited            us        \n"), None);
    }
}
