//! What some work would change.

use serde_json::Value;

use super::fields::project;
use super::replicas::Replicas;
use crate::text::{between, cut};
use crate::{DriverError, Replica, Work};

/// The most bytes that are shown.
const MAX_BYTES: usize = 64 << 10;

impl Replicas {
    /// What some work, done in this order, would change: the fields of a desired state that differ, and the requests of
    /// operations.
    pub(super) async fn diff(&self, replica: &Replica, work: &[Work]) -> Result<String, DriverError> {
        let mut at = self.at(replica).await?;
        let mut text = String::new();
        for (nth, work) in work.iter().enumerate() {
            match work {
                Work::Operation(operation) => text.push_str(&self.shown(&at, operation)?),
                Work::Reset => text.push_str("- removed, with all that was done to it\n"),
                Work::Desired(desired) => {
                    let is_reset = nth > 0;
                    at.resource = self.wanted(&at.options)?;
                    at.desired = Some(desired.clone());
                    let object = at.object()?;
                    let live = if is_reset { None } else { at.live().await? };
                    let name = live.as_ref().map_or("new", |here| here.local_id.as_str());
                    let before: Option<Value> = live.as_ref().map(|here| {
                        // What was wanted before is shown as going away.
                        let known = at.note.object.as_ref().map(|old| super::fields::merged(old, &object));
                        project(&here.object, known.as_ref().unwrap_or(&object))
                    });
                    let name = format!("{}/{name}", at.resource.name);
                    text.push_str(&between(&name, before.as_ref(), Some(&object)));
                }
            }
        }
        Ok(cut(&text, MAX_BYTES))
    }
}
