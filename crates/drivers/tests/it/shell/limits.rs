//! Nothing that a command does takes more than it may.

use std::time::{Duration, Instant};

use khufu_drivers::{Driver as _, DriverError};
use serde_json::json;

use super::{Place, command, number, run, runs, until, web};

#[tokio::test]
async fn what_does_not_end_in_time_is_ended_with_all_that_it_started() {
    let mut place = Place::with_shell();
    place.config.time_limit_s = 1;
    let driver = place.driver().await;
    // One in its process group, one that has left it, and one that has left even its directory.
    let text = "sleep 300 & echo $! > one; setsid sleep 300 & echo $! > two; (cd /; exec setsid sleep 300) & echo $! > three; \
                echo begun; sleep 300";
    let since = Instant::now();
    let error = run(&driver, text).await.unwrap_err();
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
    let DriverError::Unanswered { reason } = &error else { panic!("{error:?}") };
    assert!(reason.contains("within 1 s") && reason.contains("begun"), "{reason}");
    for name in ["one", "two", "three"] {
        let process = number(&place, name).await;
        until("it is ended", || !runs(process)).await;
    }
}

/// Until the process that was started last has a session of its own.
macro_rules! gone {
    ($text:literal) => {
        concat!($text, "; until [ \"$(cut -d' ' -f6 /proc/$!/stat)\" = $! ]; do sleep 0.01; done")
    };
}

/// Whatever goes on after them: in the process group; in a session of its own; that and in another directory, with nothing in its
/// environment; and as a service does that is started twice over, with nothing of what it was started with.
const ESCAPES: [(&str, &str); 4] = [
    ("group", "sleep 300 & echo $! > group"),
    ("session", gone!("setsid sleep 300 & echo $! > session")),
    ("bare", gone!("(cd /; exec env -i setsid sleep 300) & echo $! > bare")),
    (
        "service",
        "w=$PWD; (cd /; exec env -i setsid sh -c \"sleep 300 >/dev/null 2>&1 & echo \\$! > $w/service\") & wait",
    ),
];

#[tokio::test]
async fn nothing_goes_on_after_a_command_that_ended_well() {
    let place = Place::with_shell();
    let driver = place.driver().await;
    for (name, text) in ESCAPES {
        let since = Instant::now();
        assert_eq!(run(&driver, format!("{text}; echo done")).await.unwrap().output, "done\n", "{name}");
        assert!(since.elapsed() < Duration::from_secs(15), "{name}: {:?}", since.elapsed());
        // It is over when it is said, so nothing of it can change the replica beside the next operation.
        let process = number(&place, name).await;
        assert!(!runs(process), "{name}");
        // Also where somebody only looks.
        driver.show(&web().id, text).await.unwrap();
        assert!(!runs(number(&place, name).await), "{name}");
    }
}

#[tokio::test]
async fn nothing_goes_on_after_a_look_that_nobody_waits_for() {
    let place = Place::with_shell();
    let driver = place.driver().await;
    for (name, text) in ESCAPES {
        let (id, text) = (web().id, format!("{text}; sleep 300"));
        let process = tokio::select! {
            result = driver.show(&id, &text) => panic!("it ended: {result:?}"),
            process = number(&place, name) => process,
        };
        until("it is ended", || !runs(process)).await;
    }
}

#[tokio::test]
async fn what_a_crash_left_running_is_found_by_its_mark_alone() {
    let place = Place::with_shell();
    drop(place.driver().await);
    let run = "7505033953280004242";
    std::fs::create_dir(place.dir.path().join("state/run").join(run)).unwrap();
    let mark = format!("--rttime={run}:{run}");
    let mut left = std::process::Command::new("prlimit")
        .args([mark.as_str(), "--", "env", "-i", "setsid", "sleep", "300"])
        .current_dir("/")
        .spawn()
        .unwrap();
    let limits = format!("/proc/{}/limits", left.id());
    until("it is marked", || std::fs::read_to_string(&limits).is_ok_and(|limits| limits.contains(run))).await;
    place.driver().await;
    let process = i32::try_from(left.id()).unwrap();
    until("it is ended", || !runs(process)).await;
    left.wait().unwrap();
}

#[tokio::test]
async fn what_is_broken_off_is_ended_with_all_that_it_started() {
    let place = Place::with_shell();
    let driver = place.driver().await;
    let replica = web();
    let call = driver.apply(&replica, command("op", "sleep 300 & echo $! > one; echo $$ > two; wait"));
    let begun = async { (number(&place, "one").await, number(&place, "two").await) };
    let (one, two) = tokio::select! {
        result = call => panic!("it ended: {result:?}"),
        numbers = begun => numbers,
    };
    until("both are ended", || !runs(one) && !runs(two)).await;
    until("its files are removed", || place.private().is_empty()).await;
}

#[tokio::test]
async fn of_a_flood_the_begin_is_kept_and_the_rest_counted() {
    let place = Place::with_shell();
    let driver = place.driver().await;
    let bytes: u64 = 256 << 20;
    let before = peak();
    let output = run(&driver, format!("echo begin; head -c {bytes} /dev/zero | tr '\\0' x")).await.unwrap().output;
    assert!(output.len() < 4200, "{} bytes", output.len());
    assert!(output.starts_with("begin\nxxx"), "{output}");
    assert!(output.ends_with(&format!("x\n[{} more bytes]", bytes + 6 - 4096)), "{output}");
    let grown = peak().saturating_sub(before);
    assert!(grown < 200 << 10, "{grown} KiB");
    // Where nobody reads on, the command does not wait for it.
    let error = run(&driver, "yes | head -c 1000000 >&2; exit 1").await.unwrap_err().to_string();
    assert!(error.len() < 4300 && error.contains("[995904 more bytes]"), "{error}");
}

/// The most memory that this process has had, in KiB: some pages less now and then, since the system adds up lazily.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn no_command_takes_more_than_its_limits() {
    let mut place = Place::with_shell();
    let limits = &mut place.config.limits;
    limits.cpu_s = Some(1);
    limits.memory_bytes = Some(100 << 20);
    limits.file_bytes = Some(1 << 20);
    limits.open_files = Some(20);
    limits.processes = None;
    let driver = place.driver().await;
    let error = run(&driver, "while :; do :; done").await.unwrap_err();
    assert!(matches!(&error, DriverError::Unanswered { reason } if reason.contains("signal")), "{error:?}");
    let error = run(&driver, "dd if=/dev/zero of=/dev/null bs=200M count=1").await.unwrap_err().to_string();
    assert!(error.contains("memory"), "{error}");
    run(&driver, "head -c 2000000 /dev/zero > large").await.unwrap_err();
    assert_eq!(std::fs::metadata(place.work().join("large")).unwrap().len(), 1 << 20);
    let shown = run(&driver, "ulimit -n; ulimit -c; ulimit -t").await.unwrap().output;
    assert_eq!(shown, "20\n0\n1\n");
}

#[tokio::test]
async fn no_command_starts_more_processes_than_it_may() {
    let mut place = Place::with_shell();
    if rustix::process::geteuid().is_root() {
        // A user whom nobody else here runs anything as.
        place.config.user = Some(khufu_drivers::shell::Name::Number(64_203));
        place.config.group = Some(khufu_drivers::shell::Name::Number(64_203));
        place.config.limits.processes = Some(5);
        let driver = place.driver().await;
        let error =
            run(&driver, "for n in 1 2 3 4 5 6 7 8; do sleep 300 & done; exit 0").await.unwrap_err().to_string();
        assert!(error.contains("fork"), "{error}");
    } else {
        place.config.limits.processes = Some(100_000);
        assert_eq!(run(&place.driver().await, "ulimit -u || ulimit -p").await.unwrap().output, "100000\n");
    }
}

#[tokio::test]
async fn nothing_of_the_environment_of_the_node_is_passed_on() {
    let mut place = Place::new(&["env", "cat"]);
    place.config.environment.insert("LANG".into(), "C.UTF-8".into());
    let driver = place.driver().await;
    let mut lines: Vec<_> = run(&driver, "env").await.unwrap().output.lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("KHUFU_RUN=") && lines[1] == "LANG=C.UTF-8", "{lines:?}");
    // Nor its input.
    assert_eq!(run(&driver, json!(["cat"])).await.unwrap().output, "");
}
