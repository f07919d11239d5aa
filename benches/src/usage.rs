//! What a process uses: memory, processor, network.

use std::collections::BTreeSet;
use std::process::Command;

/// Of one process, so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Memory now, in bytes.
    pub(crate) rss: f64,
    /// Processor time, in seconds.
    pub(crate) cpu: f64,
}

pub(crate) fn of(pid: u32) -> Usage {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let rss =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).and_then(|rest| rest.split_whitespace().next());
    let rss = rss.and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() * 1024.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name, which may hold spaces: fields 14 and 15 of all, in ticks of a hundredth.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or_default();
    Usage { rss, cpu: (ticks(11) + ticks(12)) / 100.0 }
}

/// What went over the wire so far between processes, in bytes: everything that they sent, with 52 bytes of headers for
/// each segment (IPv4, TCP with time stamps). `apis` are the ports that do not count.
///
/// Asked of the kernel, by `ss` of iproute2; zero without it.
pub(crate) fn sent(pids: &[u32], apis: &BTreeSet<u16>) -> f64 {
    let output = Command::new("ss").args(["-t", "-i", "-n", "-p", "-H", "-O"]).output();
    let Ok(output) = output else { return 0.0 };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let ours = |line: &&str| pids.iter().any(|pid| line.contains(&format!("pid={pid},")));
    let port = |address: &str| address.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    let counts = |line: &&str| {
        let mut ports = line.split_whitespace().skip(3).take(2).filter_map(port);
        !ports.any(|port| apis.contains(&port))
    };
    let number = |line: &str, name: &str| {
        let found = line.split_whitespace().find_map(|word| word.strip_prefix(name));
        found.and_then(|number| number.parse::<f64>().ok()).unwrap_or_default()
    };
    text.lines()
        .filter(ours)
        .filter(counts)
        .map(|line| number(line, "bytes_sent:") + 52.0 * number(line, "segs_out:"))
        .sum()
}
