//! Operations as commands, from an allow-list.
//!
//! Nothing runs that the [`Config`] does not name, and what runs has the user, the environment, the time and the resources
//! that it names.

mod allowed;
mod config;
mod leftover;
mod mark;
mod output;
mod payload;
mod run;
mod state;
mod user;
mod words;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use khufu_crdt::{Capabilities, Operation, OperationId, ReplicantId};
use serde_json::Value;

use crate::{Done, Driver, DriverError, Observed, Replica, Work};
use allowed::Allowed;
pub use config::{Command, Config, ConfigError, Limits, Look, Removal};
use mark::name;
use payload::Asked;
use run::{Ended, How, Launcher};
use state::{Begun, Note, Private, State};
pub use user::Name;
use words::{Line, Meanings, Rules};

/// The longest time limit of an operation. Clients of Cheops wait so long and for the look that comes after the operation; a
/// node gives up a call after 60 s.
const MAX_TIME_S: u64 = 30;
/// The time limit of a look.
const LOOK_TIME: Duration = Duration::from_secs(10);
/// The most that is kept of what a command writes.
const MAX_OUTPUT_BYTES: usize = 1 << 20;
/// The most bytes of a command, with all its words: what Linux takes as one argument.
const MAX_COMMAND_BYTES: usize = 128 << 10;
/// The most files of an operation, and their bytes in all.
const MAX_FILES: usize = 64;
const MAX_FILES_BYTES: usize = 4 << 20;
/// The variable with the name of the run.
const RUN: &str = "KHUFU_RUN";

/// Runs operations as commands.
///
/// The payload of an operation is `{"command": text or [words], "files": {name: base64}}`. It runs exactly once, or nobody
/// knows how far it came; then [`observe`](Driver::observe) says so.
#[derive(Debug)]
pub struct ShellDriver {
    allowed: Allowed,
    shell: Option<PathBuf>,
    launcher: Launcher,
    directory: Option<PathBuf>,
    time_limit: Duration,
    retry: Vec<i32>,
    observe: Option<(Template, Vec<i32>)>,
    delete: Option<Template>,
    reset: Option<Template>,
    state: Arc<State>,
}

/// A command of the configuration: its program was found at the start, like those of operations.
#[derive(Debug)]
struct Template {
    command: Command,
    allowed: Allowed,
}

impl Template {
    fn new(key: &str, command: &Command, config: &Config) -> Result<Self, ConfigError> {
        let key = format!("{key}.command");
        if config.shell && matches!(command, Command::Text(_)) {
            return Ok(Self { command: command.clone(), allowed: Allowed::default() });
        }
        let words = words::split(command).map_err(|error| ConfigError::value(&key, error.to_string()))?;
        let program = words.first().ok_or_else(|| ConfigError::value(&key, "it is empty"))?;
        let allowed = Allowed::find(std::slice::from_ref(program), &config.path)
            .map_err(|error| ConfigError::value(&key, error.to_string()))?;
        Ok(Self { command: command.clone(), allowed })
    }

    fn line(&self, shell: Option<&Path>, id: &ReplicantId) -> Result<Line, DriverError> {
        let meanings = Meanings { id: id.as_str(), files: BTreeMap::new() };
        Rules { allowed: &self.allowed, shell }.line(&self.command, &meanings)
    }
}

impl ShellDriver {
    /// The longest that an operation takes, whatever the configuration: the command and the look after it.
    pub const LONGEST: Duration = Duration::from_secs(MAX_TIME_S).saturating_add(LOOK_TIME);

    /// A driver for a configuration. What a crash left running is ended, and its files are removed.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key: a program that is not there, a user that commands cannot be run as, limits that
    /// cannot be set, a directory that another driver uses.
    pub async fn new(config: &Config) -> Result<Self, ConfigError> {
        config.check()?;
        let identity = user::find(config.user.as_ref(), config.group.as_ref())?;
        let prlimit = allowed::find("limits", "prlimit", &config.path)?;
        let shell = config.shell.then(|| allowed::find("shell", "sh", &config.path)).transpose()?;
        let template = |key, command: Option<&Command>| command.map(|it| Template::new(key, it, config)).transpose();
        let look = config.observe.as_ref();
        let observe = template("observe", look.map(|look| &look.command))?;
        let delete = template("delete", config.delete.as_ref().map(|removal| &removal.command))?;
        let reset = template("reset", config.reset.as_ref().map(|removal| &removal.command))?;
        let allowed = Allowed::find(&config.commands, &config.path)?;
        let state = State::open(&config.state)?;
        let runs = state.runs().to_owned();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
        if shell.is_some() && !runs.to_str().is_some_and(|path| path.chars().all(plain)) {
            let reason = "a shell is given the paths of files: use letters, digits, and . _ - only";
            return Err(ConfigError::value("state", reason));
        }
        let launcher = Launcher {
            prlimit,
            limits: run::arguments(&config.limits),
            identity,
            environment: config.environment.clone(),
            output_limit: config.output_limit_bytes,
            runs: runs.clone(),
        };
        launcher.probe(&runs).await?;
        if let Some(directory) = &config.directory {
            launcher.probe(directory).await?;
        }
        Ok(Self {
            allowed,
            shell,
            launcher,
            directory: config.directory.clone(),
            time_limit: Duration::from_secs(config.time_limit_s),
            retry: config.retry.clone(),
            observe: observe.zip(look.map(|look| look.absent.clone())),
            delete,
            reset,
            state: Arc::new(state),
        })
    }

    /// A driver for the configuration in a file.
    ///
    /// # Errors
    /// As [`Config::read`] and [`new`](Self::new).
    pub async fn from_file(path: &Path) -> Result<Self, ConfigError> {
        Self::new(&Config::read(path)?).await
    }

    /// Runs a command for somebody who only wants to see what it says, with the rules of operations. Nothing is noted of it,
    /// and nothing waits for it.
    ///
    /// # Errors
    /// As for an operation; [`DriverError::Failed`] has what the command said.
    pub async fn show(&self, id: &ReplicantId, command: &str) -> Result<String, DriverError> {
        let run = name();
        let asked = Asked::of_text(command)?;
        let line = self.line(&asked, id, &run)?;
        let private = self.private(&run, BTreeMap::new()).await?;
        let ended = self.start(&run, &line, &private, self.time_limit).await?;
        match ended.how {
            How::Exited(0) => Ok(ended.output()),
            _ => Err(DriverError::Failed { reason: ended.said(), again: true }),
        }
    }

    fn rules(&self) -> Rules<'_> {
        Rules { allowed: &self.allowed, shell: self.shell.as_deref() }
    }

    /// What an operation comes to, with the files where a run of this name has them.
    fn line(&self, asked: &Asked, id: &ReplicantId, run: &str) -> Result<Line, DriverError> {
        let dir = self.launcher.runs.join(run);
        let files = asked.files.keys().map(|name| (name.as_str(), dir.join(name))).collect();
        self.rules().line(&asked.command, &Meanings { id: id.as_str(), files })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&State) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let state = self.state.clone();
        tokio::task::spawn_blocking(move || work(&state))
            .await
            .map_err(|error| DriverError::Unavailable { reason: error.to_string(), retry_after: None })?
    }

    /// The note on a replica, once nothing of an earlier run goes on.
    async fn quiet_note(&self, id: &ReplicantId) -> Result<Note, DriverError> {
        let (id, runs) = (id.clone(), self.launcher.runs.clone());
        self.blocking(move |state| {
            let note = state.note(&id)?;
            if let Some(begun) = &note.begun {
                leftover::end(std::slice::from_ref(&begun.run), &runs);
            }
            Ok(note)
        })
        .await
    }

    async fn write_note(&self, id: &ReplicantId, note: Note) -> Result<(), DriverError> {
        let id = id.clone();
        self.blocking(move |state| state.write_note(&id, &note)).await
    }

    async fn private(&self, run: &str, files: BTreeMap<String, Vec<u8>>) -> Result<Private, DriverError> {
        let (run, identity) = (run.to_owned(), self.launcher.identity);
        self.blocking(move |state| {
            let files = files.iter().map(|(name, contents)| (name.as_str(), contents.as_slice()));
            state.make_private(&run, identity, files)
        })
        .await
    }

    async fn start(&self, run: &str, line: &Line, private: &Private, limit: Duration) -> Result<Ended, DriverError> {
        let directory = self.directory.as_deref().unwrap_or(private.path());
        self.launcher.run(run, line, directory, limit).await
    }

    /// Runs something that changes a replica. That it was begun is durable before it is started, and that it has ended
    /// before that is answered.
    async fn change(
        &self,
        id: &ReplicantId,
        before: Note,
        operation: Option<OperationId>,
        (run, line, files): (String, Line, BTreeMap<String, Vec<u8>>),
    ) -> Result<Ended, DriverError> {
        let private = self.private(&run, files).await?;
        let begun = Some(Begun { operation: operation.clone(), run: run.clone() });
        self.write_note(id, Note { marker: before.marker.clone(), begun }).await?;
        let ended = match self.start(&run, &line, &private, self.time_limit).await {
            Ok(ended) => ended,
            Err(error @ DriverError::Unanswered { .. }) => return Err(error),
            Err(error) => {
                self.write_note(id, before).await?;
                return Err(error);
            }
        };
        let after = match ended.how {
            How::Exited(0) => Note { marker: operation, begun: None },
            How::Exited(_) => Note { marker: before.marker, begun: None },
            How::Signalled(_) | How::OutOfTime(_) => return Err(DriverError::Unanswered { reason: ended.said() }),
        };
        if let Err(error) = self.write_note(id, after).await {
            // Should the process end before somebody else has noted it, it counts as not known.
            tracing::warn!(%id, %error, "cannot note how a command ended");
        }
        match ended.how {
            How::Exited(0) => Ok(ended),
            How::Exited(code) => Err(DriverError::Failed { reason: ended.said(), again: self.retry.contains(&code) }),
            How::Signalled(_) | How::OutOfTime(_) => Err(DriverError::Unanswered { reason: ended.said() }),
        }
    }

    async fn operate(&self, replica: &Replica, operation: &Operation) -> Result<Done, DriverError> {
        let asked = Asked::of(operation)?;
        let run = name();
        let line = self.line(&asked, &replica.id, &run)?;
        let before = self.quiet_note(&replica.id).await?;
        let ended = self.change(&replica.id, before, Some(operation.id.clone()), (run, line, asked.files)).await?;
        Ok(self.done(replica, &ended).await)
    }

    /// Runs a command that takes a replica away.
    async fn take_away(&self, replica: &Replica, template: &Template) -> Result<Ended, DriverError> {
        let line = template.line(self.shell.as_deref(), &replica.id)?;
        // A note that cannot be read is of no matter any more.
        let before = self.quiet_note(&replica.id).await.unwrap_or_default();
        let ended = self.change(&replica.id, before, None, (name(), line, BTreeMap::new())).await?;
        Ok(ended)
    }

    /// What a command that ended well has done. It has, also if the replica cannot be looked at.
    async fn done(&self, replica: &Replica, ended: &Ended) -> Done {
        let digest = match self.look(&replica.id).await {
            Ok(Some(looked)) => looked.digest,
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(id = %replica.id, %error, "cannot look at a replica that was changed");
                None
            }
        };
        Done { output: ended.output(), digest, ..Done::default() }
    }

    /// Looks at a replica; none if nobody said how.
    async fn look(&self, id: &ReplicantId) -> Result<Option<Looked>, DriverError> {
        let Some((template, absent)) = &self.observe else { return Ok(None) };
        let run = name();
        let line = template.line(self.shell.as_deref(), id)?;
        let private = self.private(&run, BTreeMap::new()).await?;
        let ended = self.start(&run, &line, &private, LOOK_TIME).await?;
        match ended.how {
            How::Exited(0) => {
                let contents = ended.stdout.text();
                Ok(Some(Looked { digest: Some(ended.stdout.digest()), contents: Some(contents) }))
            }
            How::Exited(code) if absent.contains(&code) => Ok(Some(Looked { digest: None, contents: None })),
            _ => {
                Err(DriverError::Failed { reason: format!("the command to look at it: {}", ended.said()), again: true })
            }
        }
    }
}

/// What a look showed.
struct Looked {
    digest: Option<String>,
    contents: Option<String>,
}

#[async_trait]
impl Driver for ShellDriver {
    fn kind(&self) -> &str {
        "shell"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            operations: true,
            undo: false,
            reset: self.reset.is_some(),
            reset_is_loss: false,
            observe: self.observe.is_some(),
            dry_run: true,
        }
    }

    async fn observe(&self, replica: &Replica) -> Result<Observed, DriverError> {
        let note = self.quiet_note(&replica.id).await?;
        let unsettled = note.begun.and_then(|begun| begun.operation);
        let Some(looked) = self.look(&replica.id).await? else {
            return Ok(Observed {
                exists: note.marker.is_some(),
                marker: note.marker,
                unsettled,
                ..Observed::default()
            });
        };
        let drift = match (&replica.expected, &looked.digest) {
            (Some(expected), Some(digest)) if expected != digest => {
                Some("its contents are not what was made of it".to_owned())
            }
            (Some(_), None) => Some("there is no replica any more".to_owned()),
            _ => None,
        };
        Ok(Observed {
            exists: looked.digest.is_some(),
            digest: looked.digest,
            drift,
            contents: looked.contents.map(Value::from),
            marker: note.marker,
            unsettled,
            ..Observed::default()
        })
    }

    async fn apply(&self, replica: &Replica, work: Work) -> Result<Done, DriverError> {
        match work {
            Work::Operation(operation) => self.operate(replica, &operation).await,
            Work::Reset => self.reset(replica).await,
            Work::Desired(_) => Err(no_desired_state()),
        }
    }

    async fn reset(&self, replica: &Replica) -> Result<Done, DriverError> {
        let Some(template) = &self.reset else {
            return Err(DriverError::Unsupported {
                kind: "shell".to_owned(),
                what: "reset a replica: name a command for it",
            });
        };
        let ended = self.take_away(replica, template).await?;
        Ok(self.done(replica, &ended).await)
    }

    async fn delete(&self, replica: &Replica) -> Result<Done, DriverError> {
        let output = match &self.delete {
            Some(template) => self.take_away(replica, template).await?.output(),
            None => "no command to remove it is configured: what was made of it stays".to_owned(),
        };
        let id = replica.id.clone();
        self.blocking(move |state| state.forget(&id)).await?;
        Ok(Done { output, ..Done::default() })
    }

    async fn diff(&self, replica: &Replica, work: &[Work]) -> Result<String, DriverError> {
        let mut text = String::new();
        for work in work {
            let line = match work {
                Work::Operation(operation) => self.line(&Asked::of(operation)?, &replica.id, "RUN")?,
                Work::Reset => match &self.reset {
                    Some(template) => template.line(self.shell.as_deref(), &replica.id)?,
                    None => continue,
                },
                Work::Desired(_) => return Err(no_desired_state()),
            };
            let program = line.program.to_string_lossy();
            let words = std::iter::once(program.as_ref()).chain(line.arguments.iter().map(String::as_str));
            let quoted = words.map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" ");
            text.push_str(&format!("+ run {quoted}\n"));
        }
        Ok(crate::text::cut(&text, 64 << 10))
    }
}

fn no_desired_state() -> DriverError {
    DriverError::Unsupported { kind: "shell".to_owned(), what: "write a desired state: ask for operations" }
}
