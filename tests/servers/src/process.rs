//! Server processes that end with the test, however that ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How often it is looked whether a process has ended.
const INTERVAL: Duration = Duration::from_millis(10);
/// How much of the end of a log is shown, in bytes.
const TAIL: u64 = 4_000;

/// A request to start a program, and where the answer goes.
type Order = (Command, Sender<io::Result<Child>>);

/// A thread that lives as long as this process and starts all others. The kernel ends a child that asks for it when the
/// *thread* that started it ends, and threads of tests end early.
static STARTER: LazyLock<Sender<Order>> = LazyLock::new(|| {
    let (sender, orders) = mpsc::channel::<Order>();
    let serve = move || {
        for (mut command, answer) in orders {
            // Nobody waits for it any more if this fails; the child is dropped, but not lost: it ends with this process.
            let _ = answer.send(command.spawn());
        }
    };
    std::thread::Builder::new().name("starts servers".to_owned()).spawn(serve).expect("a thread can be started");
    sender
});

/// Whether `setpriv` of util-linux is there, which asks the kernel to end a child with its parent. It then becomes the
/// program that it is given, under the same process id.
static TIED: LazyLock<bool> = LazyLock::new(|| {
    let mut probe = Command::new("setpriv");
    probe.args(["--pdeathsig", "KILL", "--", "true"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
});

/// A running program whose output goes to a log. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
    /// Where its part of the log begins: another run may have written before.
    begins: u64,
}

impl Process {
    /// Starts a program in a directory, with nothing of the environment of the test but PATH. What it says is added to
    /// `NAME.log` there.
    pub(crate) fn start(name: &'static str, program: &Path, arguments: &[String], dir: &Path) -> Self {
        let log = dir.join(format!("{name}.log"));
        let out = OpenOptions::new().create(true).append(true).open(&log).expect("a log can be written");
        let begins = out.metadata().expect("the log is there").len();
        let mut command = if *TIED {
            let mut setpriv = Command::new("setpriv");
            setpriv.args(["--pdeathsig", "KILL", "--"]).arg(program);
            setpriv
        } else {
            Command::new(program)
        };
        command.args(arguments).current_dir(dir).env_clear().env("HOME", dir);
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.stdin(Stdio::null()).stdout(out.try_clone().expect("a file can be shared")).stderr(out);
        let (answer, started) = mpsc::channel();
        STARTER.send((command, answer)).expect("the starter lives as long as the process");
        let child = started.recv().expect("the starter answers");
        let child = child.unwrap_or_else(|error| panic!("{} cannot be started: {error}", program.display()));
        Self { name, child, log, begins }
    }

    /// The name it was started under.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Sends a signal, unless it has ended.
    pub(crate) fn signal(&mut self, signal: Signal) {
        // It has not been waited for then, so that nobody else can have its id.
        if self.ended().is_none() {
            kill_process(Pid::from_child(&self.child), signal).expect("an own child can be signalled");
        }
    }

    /// Asks it to end, also if it is paused, and ends it if it has not after that time.
    pub(crate) fn stop(mut self, patience: Duration) {
        self.signal(Signal::TERM);
        self.signal(Signal::CONT);
        let deadline = Instant::now() + patience;
        while self.ended().is_none() && Instant::now() < deadline {
            std::thread::sleep(INTERVAL);
        }
    }

    /// The end of what it has said.
    pub(crate) fn said(&self) -> String {
        tail(&self.log, self.begins).unwrap_or_else(|error| format!("{}: {error}", self.log.display()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tail(log: &Path, begins: u64) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(begins.max(length.saturating_sub(TAIL))))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(dir: &Path, script: &str) -> Process {
        Process::start("shell", Path::new("sh"), &["-c".to_owned(), script.to_owned()], dir)
    }

    #[track_caller]
    fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + crate::PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "waited in vain until {what}");
            std::thread::sleep(INTERVAL);
        }
    }

    #[test]
    fn it_outlives_the_thread_that_asked_for_it_and_ends_when_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().to_owned();
        let asks = move || {
            let process = shell(&place, "trap 'echo asked' TERM; echo here; while :; do sleep 0.1; done");
            // It has asked to end with whoever started it by then.
            until("it says so", || process.said() == "here\n");
            process
        };
        let mut process = std::thread::spawn(asks).join().unwrap();
        process.signal(Signal::TERM);
        until("it is still there, and answers", || process.said() == "here\nasked\n" || process.ended().is_some());
        assert_eq!(process.ended(), None);
        let id = Path::new("/proc").join(process.id().to_string());
        assert!(id.exists());
        drop(process);
        assert!(!id.exists());
    }

    #[test]
    fn it_is_asked_to_end_also_if_paused_and_is_ended_if_it_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut willing = shell(dir.path(), "trap 'echo asked; exit' TERM; echo here; while :; do sleep 0.1; done");
        until("it says so", || willing.said() == "here\n");
        willing.signal(Signal::STOP);
        willing.stop(crate::PATIENCE);
        assert_eq!(tail(&dir.path().join("shell.log"), 0).unwrap(), "here\nasked\n");
        let mut stubborn = shell(dir.path(), "trap '' TERM; echo there; while :; do sleep 0.1; done");
        until("it says so", || stubborn.said() == "there\n");
        let id = Path::new("/proc").join(stubborn.id().to_string());
        assert!(stubborn.ended().is_none());
        stubborn.stop(Duration::from_millis(50));
        assert!(!id.exists());
    }
}
