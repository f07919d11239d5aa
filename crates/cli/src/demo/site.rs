//! One site of the demo: a process of this same program, with its own directory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use super::DemoError;
use crate::client::Client;

/// How long a node may take to serve.
const START: Duration = Duration::from_secs(30);
/// How long a node may take to stop before it is killed.
const STOP: Duration = Duration::from_secs(10);
/// How much of a log is shown when something went wrong.
const LOG_LINES: usize = 15;

/// A running site. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Site {
    /// Its name.
    pub(crate) name: &'static str,
    /// A client of its node.
    pub(crate) client: Client,
    /// Where its API is.
    pub(crate) api: String,
    /// Its node.
    pub(crate) node: String,
    /// Where other nodes reach it.
    pub(crate) address: String,
    /// The files that it made.
    pub(crate) replicas: PathBuf,
    dir: PathBuf,
    child: Child,
    /// The node stops when this is closed, also if this process is killed: nothing is left running.
    stdin: Option<ChildStdin>,
}

/// The line that a node prints once it serves.
#[derive(Debug, Deserialize)]
struct Serves {
    node: String,
    api: String,
    listen: Vec<String>,
}

impl Site {
    /// Starts a site under `root`, and waits until it serves.
    ///
    /// # Errors
    /// [`DemoError`] with the end of its log if it does not.
    pub(crate) async fn start(
        name: &'static str,
        root: &Path,
        psk: &Path,
        bootstrap: Option<&str>,
    ) -> Result<Self, DemoError> {
        let dir = root.join(name);
        let replicas = dir.join("replicas");
        let io = |what: &str| {
            let what = format!("{what} for the site {name}");
            move |source| DemoError::Io { what, source }
        };
        std::fs::create_dir_all(&dir).map_err(io("make a directory"))?;
        let log = File::create(dir.join("log")).map_err(io("make a log"))?;
        let program = std::env::current_exe().map_err(io("find this program"))?;
        let mut command = Command::new(program);
        // Nothing of the caller's own configuration may reach the demo.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KHUFU_")) {
            command.env_remove(name);
        }
        command.current_dir(&dir).args(["node", "--site", name, "--data", "data", "--api", "127.0.0.1:0"]);
        command.args(["--listen", "/ip4/127.0.0.1/tcp/0", "--driver", "files=replicas", "--pace", "fast"]);
        command.arg("--psk-file").arg(psk).args(["--allow-faults", "--stop-with-stdin", "--output", "json"]);
        if let Some(address) = bootstrap {
            command.args(["--bootstrap", address]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        // Ctrl-C in a terminal is for the demo, which then stops its sites in order.
        let mut child = command.process_group(0).spawn().map_err(io("start a process"))?;
        let stdin = child.stdin.take();

        let failed = |what: String| DemoError::Site { site: name.to_owned(), what, log: tail(&dir) };
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            let mut stdout = BufReader::new(stdout);
            let read = tokio::time::timeout(START, stdout.read_line(&mut line)).await;
            read.map_err(|_| failed(format!("did not serve within {} s", START.as_secs())))?
                .map_err(io("read the output of the process"))?;
        }
        let serves: Serves = serde_json::from_str(&line).map_err(|_| failed("did not start".into()))?;
        let address = serves.listen.into_iter().next().ok_or_else(|| failed("listens nowhere".into()))?;
        let client = Client::new(&serves.api, None)?;
        Ok(Self { name, client, api: serves.api, node: serves.node, address, replicas, dir, child, stdin })
    }

    /// The contents of a replica as they are on disk, none if there is no file.
    pub(crate) fn contents(&self, id: &str) -> Option<String> {
        std::fs::read_to_string(self.replicas.join(id)).ok()
    }

    /// Whether the process still runs; if not, why not.
    pub(crate) fn runs(&mut self) -> Result<(), DemoError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failed(format!("ended by itself ({status})"))),
            Err(source) => Err(DemoError::Io { what: format!("look after the site {}", self.name), source }),
        }
    }

    /// Stops the node in order, and kills it if it does not.
    ///
    /// # Errors
    /// If it had to be killed, or ended with an error.
    pub(crate) async fn stop(mut self) -> Result<(), DemoError> {
        self.stdin = None;
        match tokio::time::timeout(STOP, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(self.failed(format!("did not stop in order ({status})"))),
            Ok(Err(source)) => Err(DemoError::Io { what: format!("wait for the site {}", self.name), source }),
            Err(_) => {
                // It may have ended meanwhile.
                let _ = self.child.kill().await;
                Err(self.failed(format!("did not stop within {} s and was killed", STOP.as_secs())))
            }
        }
    }

    fn failed(&self, what: String) -> DemoError {
        DemoError::Site { site: self.name.to_owned(), what, log: tail(&self.dir) }
    }
}

/// The last lines of a site's log.
fn tail(dir: &Path) -> String {
    let log = std::fs::read(dir.join("log")).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default().join("\n")
}
