//! Runs one command: as whom, with which limits, and how it ended.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use super::config::{ConfigError, Limits};
use super::output::Kept;
use super::user::Identity;
use super::words::Line;
use super::{leftover, mark};
use crate::DriverError;

/// How long what a command has written is waited for after it has ended: somebody outside of its process group may hold
/// its output open.
const GRACE: Duration = Duration::from_secs(1);

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// After this time, by us.
    OutOfTime(Duration),
}

/// A command that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) how: How,
    pub(super) stdout: Kept,
    pub(super) stderr: Kept,
}

impl Ended {
    /// What it wrote: to standard output, then to standard error.
    pub(super) fn output(&self) -> String {
        let (mut stdout, stderr) = (self.stdout.text(), self.stderr.text());
        if !stdout.is_empty() && !stdout.ends_with('\n') && !stderr.is_empty() {
            stdout.push('\n');
        }
        stdout + &stderr
    }

    /// How it ended, in words, with what it wrote.
    pub(super) fn said(&self) -> String {
        let how = match self.how {
            How::Exited(code) => format!("it ended with exit code {code}"),
            How::Signalled(signal) => format!("it was ended by signal {signal}"),
            How::OutOfTime(limit) => format!("it did not end within {} s and was ended", limit.as_secs()),
        };
        let output = self.output();
        match output.trim_end() {
            "" => how,
            output => format!("{how}: {output}"),
        }
    }
}

/// What every command is started with.
#[derive(Debug)]
pub(super) struct Launcher {
    pub(super) prlimit: PathBuf,
    pub(super) limits: Vec<String>,
    pub(super) identity: Option<Identity>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) output_limit: usize,
    /// Where private directories are, by whose names the processes of runs are known.
    pub(super) runs: PathBuf,
}

/// The arguments that make `prlimit` set these limits.
pub(super) fn arguments(limits: &Limits) -> Vec<String> {
    let given = [
        ("cpu", limits.cpu_s),
        ("as", limits.memory_bytes),
        ("fsize", limits.file_bytes),
        ("nproc", limits.processes),
        ("nofile", limits.open_files),
        // What was in memory is in the directory of somebody otherwise.
        ("core", Some(0)),
    ];
    given.into_iter().filter_map(|(name, value)| Some(format!("--{name}={0}:{0}", value?))).collect()
}

impl Launcher {
    /// Tries all that every command needs, without any command.
    pub(super) async fn probe(&self, directory: &Path) -> Result<(), ConfigError> {
        let itself = Line { program: self.prlimit.clone(), arguments: vec!["--version".into()] };
        let ended = self.run(&mark::name(), &itself, directory, Duration::from_secs(10)).await;
        let ended = ended.map_err(|error| {
            let whom = match self.identity {
                Some(Identity { uid, gid }) => format!("user {uid}, group {gid}"),
                None => "the user of the node".into(),
            };
            let reason = format!(
                "commands cannot be started as {whom} in {}, who has to get there: {error}",
                directory.display()
            );
            ConfigError::value("user", reason)
        })?;
        if ended.how != How::Exited(0) || !ended.stdout.text().contains("util-linux") {
            let reason = format!(
                "{} does not set these limits, and it is what sets them: {}. See that it is from util-linux, and that the \
                 limits are below those of the node",
                self.prlimit.display(),
                ended.said()
            );
            return Err(ConfigError::value("limits", reason));
        }
        Ok(())
    }

    /// Runs a command to its end, or until the time is over. Nothing that it has started goes on after that, nor after the
    /// future was dropped.
    ///
    /// # Errors
    /// If it could not be started. Then nothing has run.
    pub(super) async fn run(
        &self,
        run: &str,
        line: &Line,
        directory: &Path,
        limit: Duration,
    ) -> Result<Ended, DriverError> {
        let mut command = Command::new(&self.prlimit);
        command
            .args(&self.limits)
            .args(mark::argument(run))
            .arg("--")
            .arg(&line.program)
            .args(&line.arguments)
            .env_clear()
            .envs(&self.environment)
            .env(super::RUN, run)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(Identity { uid, gid }) = self.identity {
            command.uid(uid).gid(gid);
        }
        let mut child = command.spawn().map_err(|source| DriverError::io("start", &self.prlimit, source))?;
        let running = Running::new(&child, run, &self.runs);
        let (mut stdout, mut stderr) = (Kept::new(self.output_limit), Kept::new(self.output_limit));
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let how = {
            let reading = async {
                tokio::join!(read(&mut stdout, out), read(&mut stderr, err));
            };
            tokio::pin!(reading);
            let mut all_read = false;
            let waiting = async {
                loop {
                    tokio::select! {
                        status = child.wait() => break status,
                        () = &mut reading, if !all_read => all_read = true,
                    }
                }
            };
            let status = tokio::time::timeout(limit, waiting).await;
            // Whatever it has started and left behind must not go on to change the replica.
            running.end().await;
            let how = match status {
                Ok(Ok(status)) => how(status),
                Ok(Err(source)) => {
                    return Err(DriverError::Unanswered { reason: format!("cannot wait for it: {source}") });
                }
                Err(_) => {
                    let _ = tokio::time::timeout(GRACE, child.wait()).await;
                    How::OutOfTime(limit)
                }
            };
            if !all_read {
                let _ = tokio::time::timeout(GRACE, &mut reading).await;
            }
            how
        };
        Ok(Ended { how, stdout, stderr })
    }
}

async fn read(kept: &mut Kept, pipe: Option<impl tokio::io::AsyncRead + Unpin>) {
    if let Some(pipe) = pipe
        && let Err(error) = kept.read(pipe).await
    {
        tracing::warn!(%error, "cannot read what a command writes");
    }
}

fn how(status: ExitStatus) -> How {
    match (status.code(), status.signal()) {
        (Some(code), _) => How::Exited(code),
        (None, signal) => How::Signalled(signal.unwrap_or_default()),
    }
}

/// The processes of a command. All of them are ended when this is dropped.
struct Running {
    group: Option<Pid>,
    run: String,
    runs: PathBuf,
}

impl Running {
    fn new(child: &Child, run: &str, runs: &Path) -> Self {
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Self { group, run: run.to_owned(), runs: runs.to_owned() }
    }

    /// Ends all of them, and waits until they are gone.
    async fn end(mut self) {
        if let Some(rest) = self.kill() {
            let _ = tokio::task::spawn_blocking(rest).await;
        }
    }

    /// Kills the process group, once. What ends those who have left it is given back: it takes its time.
    fn kill(&mut self) -> Option<impl FnOnce() + Send + 'static> {
        // Nothing is left of it, usually. Numbers of processes are given again only after all others were.
        let _ = kill_process_group(self.group.take()?, Signal::KILL);
        let (names, runs) = ([std::mem::take(&mut self.run)], std::mem::take(&mut self.runs));
        Some(move || leftover::end(&names, &runs))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(rest) = self.kill() else { return };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(rest)),
            Err(_) => rest(),
        }
    }
}
