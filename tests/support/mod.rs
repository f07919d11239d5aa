//! What end-to-end tests share: a private network of real processes in a temporary directory, and the command line.
//!
//! ```ignore
//! let lab = Lab::new();
//! let paris = lab.site("paris").start().await;
//! let rennes = lab.site("rennes").bootstrap(&paris).start().await;
//! lab.met(&[&paris, &rennes]).await;
//! paris.put("/v1/replicants/web", json!({"kind": "files", "scope": "all", "desired": {"a": 1}})).await.ok();
//! until("it arrives", || async { rennes.file("web").ok_or("no file".into()) }).await;
//! ```
#![allow(dead_code, unused_imports, reason = "not every scenario needs every helper")]
#![allow(clippy::print_stderr, reason = "what was left out is said where it is read")]

mod answer;
mod client;
mod follow;
mod lab;
mod namespaces;
mod site;
mod tmpfs;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

pub(crate) use answer::Answer;
pub(crate) use client::{Client, http, http_builder};
pub(crate) use follow::Follow;
pub(crate) use lab::{Lab, Pair};
pub(crate) use namespaces::Network;
pub(crate) use site::{Site, SiteBuilder};
pub(crate) use tmpfs::Tmpfs;

/// The program under test.
pub(crate) const KHUFU: &str = env!("CARGO_BIN_EXE_khufu");
/// How long anything may take that is waited for. Machines that build in parallel are slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// Looks until `look` gives a value, and panics with what it gave last if that takes longer than [`PATIENCE`].
pub(crate) async fn until<T, F: Future<Output = Result<T, String>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(value) => return value,
            Err(instead) if Instant::now() >= deadline => panic!("waited in vain until {what}; instead: {instead}"),
            Err(_) => tokio::time::sleep(INTERVAL).await,
        }
    }
}

/// Something that a test needs is not there: that is a failure where `KHUFU_REQUIRE_SERVERS` is set, else it is said.
pub(crate) fn missing(what: &str) {
    assert!(
        std::env::var_os("KHUFU_REQUIRE_SERVERS").is_none(),
        "KHUFU_REQUIRE_SERVERS is set, and there is no {what}"
    );
    eprintln!("not tried here, there is no {what}");
}

/// The program with nothing of the caller's own configuration.
pub(crate) fn command(dir: &Path) -> Command {
    command_of(KHUFU, dir)
}

fn command_of(program: &str, dir: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KHUFU_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.current_dir(dir).stdin(Stdio::null());
    command
}

/// What a run of the program came to.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Its exit code; none if a signal ended it.
    pub(crate) code: Option<i32>,
    /// Its standard output.
    pub(crate) out: String,
    /// Its standard error.
    pub(crate) err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl Ran {
    /// Panics with everything it said unless it ended with this code.
    #[track_caller]
    pub(crate) fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    /// Panics unless its standard error holds all of these.
    #[track_caller]
    pub(crate) fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in:\n{}", self.err);
        }
        self
    }

    /// Its standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}:\n{}", self.out))
    }
}

/// Runs the program in `dir` to its end.
pub(crate) fn khufu(dir: &Path, arguments: &[&str]) -> Ran {
    command(dir).args(arguments).output().expect("the program runs").into()
}
