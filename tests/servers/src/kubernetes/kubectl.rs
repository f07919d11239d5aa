//! kubectl, with nothing of the configuration of whoever runs the tests.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

/// How long one call may take, in seconds.
const LIMIT: u32 = 60;
/// What `timeout` ends with when it had to end something, or to kill it.
const TIMED_OUT: [i32; 2] = [124, 137];

/// A call that ends by itself: `timeout` of coreutils watches over it.
pub(super) fn command(kubectl: &Path, kubeconfig: &Path, home: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=1", &LIMIT.to_string()]).arg(kubectl);
    command.current_dir(home).env_clear().env("HOME", home).env("KUBECONFIG", kubeconfig);
    // Plugins are looked up there, and run there.
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.stdin(Stdio::null());
    command
}

/// Runs a call to its end.
///
/// # Panics
/// If it takes too long.
#[track_caller]
pub(super) fn run(mut command: Command, input: Option<&str>) -> Output {
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    let stdin = child.stdin.take();
    let output = thread::scope(|scope| {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // One that ends without having read all of it has its reasons, and says them.
            scope.spawn(move || stdin.write_all(input.as_bytes()).ok());
        }
        child.wait_with_output().expect("a child can be waited for")
    });
    let out_of_time = output.status.code().is_none_or(|code| TIMED_OUT.contains(&code));
    assert!(!out_of_time, "{command:?} took longer than {LIMIT} s; it said:\n{}", said(&output));
    output
}

/// Everything that a call printed.
pub(super) fn said(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}
