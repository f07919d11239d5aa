//! The driver `shell` with real processes. As root, they run as nobody.

mod allowed;
mod broken;
mod files;
mod limits;
mod looks;
mod users;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use khufu_crdt::Payload;
use khufu_drivers::shell::{Command, Config, Limits, Look, Name, Removal};
use khufu_drivers::{Done, Driver as _, DriverError, Replica, ShellDriver, Work};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{operation, replica};

/// A directory that the user who runs commands can write to, and a configuration for it.
struct Place {
    dir: TempDir,
    config: Config,
}

impl Place {
    /// With these programs, as nobody if that is possible.
    fn new(commands: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let work = dir.path().join("work");
        fs::create_dir(&work).unwrap();
        fs::set_permissions(&work, fs::Permissions::from_mode(0o777)).unwrap();
        let root = rustix::process::geteuid().is_root();
        let config = Config {
            state: dir.path().join("state"),
            commands: commands.iter().map(ToString::to_string).collect(),
            shell: false,
            user: root.then(|| Name::Text("nobody".into())),
            group: None,
            directory: Some(work),
            path: ["/usr/bin", "/bin"].map(PathBuf::from).to_vec(),
            environment: [].into(),
            time_limit_s: 20,
            output_limit_bytes: 4096,
            retry: Vec::new(),
            limits: Limits::default(),
            observe: None,
            delete: None,
            reset: None,
        };
        Self { dir, config }
    }

    /// With a shell, which may do anything.
    fn with_shell() -> Self {
        let mut place = Self::new(&[]);
        place.config.shell = true;
        place
    }

    /// Whose replicas are files in the working directory.
    fn of_files() -> Self {
        let mut place = Self::with_shell();
        let words = |words: &[&str]| Command::Words(words.iter().map(ToString::to_string).collect());
        place.config.observe = Some(Look { command: words(&["cat", "./{id}"]), absent: vec![1] });
        place.config.reset = Some(Removal { command: words(&["rm", "-f", "./{id}"]) });
        place.config.delete = place.config.reset.clone();
        place
    }

    async fn driver(&self) -> ShellDriver {
        ShellDriver::new(&self.config).await.unwrap()
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// What is in the working directory's file.
    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.work().join(name)).ok()
    }

    /// The private directories that there are.
    fn private(&self) -> Vec<PathBuf> {
        entries(&self.dir.path().join("state/run"))
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn asked(id: &str, payload: Value) -> Work {
    Work::Operation(operation(id, payload))
}

fn command(id: &str, command: impl Into<Value>) -> Work {
    asked(id, json!({ "command": command.into() }))
}

fn web() -> Replica {
    replica("web")
}

async fn run(driver: &ShellDriver, text: impl Into<Value>) -> Result<Done, DriverError> {
    driver.apply(&web(), command("op", text)).await
}

/// Waits for something that happens soon.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The number that a command has written to a file in the working directory, once it is there.
async fn number(place: &Place, name: &str) -> i32 {
    until("the number is there", || place.read(name).is_some_and(|text| text.ends_with('\n'))).await;
    place.read(name).unwrap().trim().parse().unwrap()
}

/// Whether a process runs; a zombie does not.
fn runs(process: i32) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}

#[tokio::test]
async fn what_a_command_writes_is_told_with_its_success() {
    let place = Place::new(&["printf"]);
    let driver = place.driver().await;
    assert_eq!(run(&driver, "printf '%s-%s' 'a b' \"$HOME\"").await.unwrap().output, "a b-$HOME");
    assert_eq!(run(&driver, json!(["printf", "%s", "{id} __ID__"])).await.unwrap().output, "web web");
}

#[tokio::test]
async fn a_failure_is_the_last_word_unless_its_exit_code_says_otherwise() {
    let mut place = Place::with_shell();
    place.config.retry = vec![75];
    let driver = place.driver().await;
    let error = run(&driver, "echo out; echo err >&2; exit 3").await.unwrap_err();
    assert!(error.is_permanent());
    assert_eq!(error.to_string(), "it ended with exit code 3: out\nerr");
    let error = run(&driver, "exit 75").await.unwrap_err();
    assert!(!error.is_permanent(), "{error}");
    // What a signal has ended may have done anything.
    let error = run(&driver, "kill -TERM $$").await.unwrap_err();
    assert!(matches!(error, DriverError::Unanswered { .. }), "{error:?}");
}

#[tokio::test]
async fn payloads_that_make_no_sense_are_refused_by_field() {
    let driver = Place::new(&["true"]).driver().await;
    let wrong = [
        (json!("true"), "payload"),
        (json!({}), "payload.command"),
        (json!({"command": 7}), "payload.command"),
        (json!({"command": ["true", 7]}), "payload.command"),
        (json!({"command": ""}), "payload.command"),
        (json!({"command": ["true", "a\0b"]}), "payload.command"),
        (json!({"command": "true", "shell": true}), "payload.shell"),
        (json!({"command": "true", "files": []}), "payload.files"),
        (json!({"command": "true", "files": {"../a": ""}}), "payload.files.../a"),
        (json!({"command": "true", "files": {"id": ""}}), "payload.files.id"),
        (json!({"command": "true", "files": {"a": "?"}}), "payload.files.a"),
        (json!({"command": "x".repeat(129 << 10)}), "payload.command"),
    ];
    for (payload, place) in wrong {
        let error = driver.apply(&web(), asked("op", payload.clone())).await.unwrap_err();
        let DriverError::Invalid { field, .. } = &error else { panic!("{payload}: {error:?}") };
        assert_eq!(field, place, "{error}");
    }
    let mut elsewhere = operation("op", json!(null));
    elsewhere.payload = Payload::Blob("0".repeat(64));
    assert!(driver.apply(&web(), Work::Operation(elsewhere)).await.unwrap_err().is_permanent());
    assert!(driver.apply(&web(), Work::Desired(json!({"a": 1}))).await.unwrap_err().is_permanent());
}
