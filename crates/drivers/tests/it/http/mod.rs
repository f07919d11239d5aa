//! The driver `http` with a real service that is hard to work with.

mod asked;
mod begun;
mod desired;
mod doubt;
mod guarded;
mod lost;
mod seen;

use std::time::Duration;

use khufu_drivers::http::{Config, ConfigError};
use khufu_drivers::{Done, Driver as _, DriverError, HttpDriver, Observed, Replica, Work};
use khufu_test_servers::rest::{Fault, Rest};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{operation, replica};

/// Notes as their service wants to be spoken to.
const NOTES: &str = r#"
[resources.note]
create = { method = "POST", path = "/notes" }
read = { path = "/notes/{local_id}" }
update = { method = "PATCH", path = "/notes/{local_id}" }
delete = { path = "/notes/{local_id}" }
local_id = "/data/id"
answer = "/data"
mark = "/labels/khufu"
find = { path = "/notes?label={id}", list = "/items", next = "/next", local_id = "/id" }
ignore = ["/secret"]
settle_ms = 300
"#;

/// The same where nothing can be found again.
const BLIND: &str = r#"
[resources.note]
create = { method = "POST", path = "/notes" }
read = { path = "/notes/{local_id}" }
update = { method = "PUT", path = "/notes/{local_id}" }
delete = { path = "/notes/{local_id}" }
local_id = "Location"
answer = "/data"
"#;

/// Lines that operations add, of which nobody can say whether they were.
const LINES: &str = r#"
[[resources.note.operations]]
method = "POST"
path = "/notes/{local_id}/lines"
"#;

/// A service, and a directory for a driver that works on it.
struct Place {
    dir: TempDir,
    rest: Rest,
    top: String,
    resources: String,
}

impl Place {
    fn new(resources: impl Into<String>) -> Self {
        Self::of(Rest::builder(100).start(), resources)
    }

    fn of(rest: Rest, resources: impl Into<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, rest, top: "time_limit_s = 2\n".into(), resources: resources.into() }
    }

    /// Adds to the part of the file that is about the service.
    fn with(mut self, top: &str) -> Self {
        self.top.push_str(top);
        self
    }

    fn config(&self) -> Result<Config, ConfigError> {
        let file = self.dir.path().join("notes.toml");
        let text = format!("base = {:?}\nstate = 'state'\n{}\n{}", self.rest.url(), self.top, self.resources);
        std::fs::write(&file, text).unwrap();
        Config::read(&file)
    }

    async fn driver(&self) -> HttpDriver {
        HttpDriver::new(&self.config().unwrap()).await.unwrap()
    }

    /// The one note that there is.
    fn only(&self) -> Value {
        let notes = self.rest.notes();
        assert_eq!(notes.len(), 1, "{notes:?}");
        notes[0].clone()
    }

    fn lines(&self) -> Vec<String> {
        let only = self.only();
        let lines = only["lines"].as_array().unwrap().iter();
        lines.map(|line| line["text"].as_str().unwrap().to_owned()).collect()
    }
}

fn web() -> Replica {
    replica("web")
}

/// A replica as the engine gives it, after what was done last.
fn after(done: &Done) -> Replica {
    Replica { local_id: done.local_id.clone(), expected: done.digest.clone(), ..web() }
}

async fn desire(driver: &HttpDriver, desired: Value) -> Result<Done, DriverError> {
    driver.apply(&web(), Work::Desired(desired)).await
}

fn add(id: &str, text: &str) -> Work {
    let payload = json!({"method": "POST", "path": "/notes/{local_id}/lines", "body": {"text": text}});
    Work::Operation(operation(id, payload))
}

async fn observe(driver: &HttpDriver) -> Observed {
    driver.observe(&web()).await.unwrap()
}

/// Begins something, and breaks it off in the middle, as the end of the process would.
async fn broken_off(driver: HttpDriver, work: Work) {
    let broken = tokio::time::timeout(Duration::from_millis(150), driver.apply(&web(), work)).await;
    assert!(broken.is_err(), "it has ended: {broken:?}");
}
