//! Reads what `strace -f -y -s MANY -o FILE` wrote.

use std::collections::BTreeMap;

/// A system call that has returned.
pub(crate) struct Call {
    pub(crate) name: String,
    /// With its arguments and what it returned.
    pub(crate) text: String,
    /// The lines of the trace where it began and ended.
    began: usize,
    ended: usize,
}

/// Reads what `strace -f -y` wrote. Calls of different threads overlap.
pub(crate) fn calls(trace: &str) -> Vec<Call> {
    let mut open = BTreeMap::<&str, (usize, String)>::new();
    let mut calls = Vec::new();
    for (at, line) in trace.lines().enumerate() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
            open.insert(pid, (at, begun.to_owned()));
            continue;
        }
        let (began, text) = match rest.strip_prefix("<... ").and_then(|rest| rest.split_once("resumed>")) {
            Some((_, end)) => {
                let Some((began, begun)) = open.remove(pid) else { continue };
                (began, begun + end)
            }
            None => (at, rest.to_owned()),
        };
        let name = text.split('(').next().unwrap_or_default().to_owned();
        calls.push(Call { name, text, began, ended: at });
    }
    calls
}

/// Whether `needle` was written to a file whose name ends like `log`, after that this file was forced to the disk, and
/// only after that something was told. If not, why.
pub(crate) fn synced_before(
    calls: &[Call],
    log: &str,
    needle: &str,
    told: impl Fn(&Call) -> bool,
) -> Result<(), String> {
    let of_log = |call: &&Call| call.text.contains(log);
    let told = calls.iter().find(|call| told(call)).ok_or("nobody was told")?;
    let written = calls
        .iter()
        .filter(of_log)
        .find(|call| matches!(call.name.as_str(), "write" | "pwrite64") && call.text.contains(needle))
        .ok_or("it was not written")?;
    let synced = |call: &Call| matches!(call.name.as_str(), "fdatasync" | "fsync") && call.text.ends_with("= 0");
    calls
        .iter()
        .filter(of_log)
        .find(|call| synced(call) && call.began > written.ended && call.ended < told.began)
        .map(|_| ())
        .ok_or_else(|| format!("written on line {}, told on line {}, not synced between", written.ended, told.began))
}
