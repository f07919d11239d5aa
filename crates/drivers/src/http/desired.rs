//! Desired states: what is missing is created, what differs is changed.

use reqwest::Method;
use serde_json::Value;

use super::fields::{differing, merged, patch, remove};
use super::kinds::Request;
use super::replicas::{At, Here, Replicas};
use super::service::Heard;
use super::template::Meanings;
use crate::{Done, DriverError, Replica};

impl Replicas {
    /// Makes a replica match a desired state.
    pub(super) async fn desire(&self, replica: &Replica, desired: Value) -> Result<Done, DriverError> {
        let mut at = self.at(replica).await?;
        let wanted = self.wanted(&at.options)?;
        // What operations have done elsewhere in it goes only with all of it.
        let operated = at.note.begun.is_some() || !at.note.ran.is_empty();
        if wanted.name != at.resource.name || (operated && !at.resource.update_resets) {
            at.remove().await?;
        }
        at.resource = wanted;
        at.desired = Some(desired.clone());
        let object = at.object()?;
        let (here, mut output) = match at.live().await? {
            None => {
                let here = at.create(&object).await?;
                let output = format!("created as {}", here.local_id);
                (here, output)
            }
            Some(here) => at.update(here, &object).await?,
        };
        at.note.creating = None;
        at.note.desired = Some(desired);
        at.note.object = Some(object);
        at.note.updating = false;
        (at.note.begun, at.note.ran) = (None, Vec::new());
        at.save().await?;
        if let Some(others) = at.others(&here) {
            output = format!("{output}; the service keeps other values: {others}");
        }
        Ok(at.done(output, Some(here)))
    }
}

impl At<'_> {
    /// How what the service has differs from what it is to have.
    fn difference(&self, here: &Here, object: &Value) -> Value {
        let before = self.note.object.as_ref();
        if self.note.updating {
            // What was sent then may have been taken, also where it is not shown.
            return patch(None, before, object);
        }
        let Some(before) = before else { return patch(Some(&here.object), None, object) };
        // Fields that are not compared count only if something else is asked for than before.
        let mut compared = object.clone();
        self.resource.ignore.iter().for_each(|pointer| remove(&mut compared, pointer));
        let shown = patch(Some(&here.object), None, &compared);
        let asked = patch(Some(before), Some(before), object);
        match (shown, asked) {
            (Value::Null, asked) => asked,
            (shown, Value::Null) => shown,
            (shown, asked) => merged(&shown, &asked),
        }
    }

    /// Changes what is there, if it differs.
    async fn update(&mut self, here: Here, object: &Value) -> Result<(Here, String), DriverError> {
        let difference = self.difference(&here, object);
        if difference.is_null() {
            return Ok((here, "as it should be".into()));
        }
        let Some(update) = &self.resource.update else {
            let reason = format!("{} differs, and the driver's file has no request to update it", here.local_id);
            return Err(DriverError::Failed { reason, again: false });
        };
        // Until the service has said yes it may have this and what it had before.
        self.note.object = Some(self.note.object.as_ref().map_or_else(|| object.clone(), |old| merged(old, object)));
        self.note.updating = true;
        self.save().await?;
        let key = super::name();
        let meanings =
            Meanings { object: Some(object), difference: Some(&difference), key: Some(&key), ..self.meanings() };
        let body = body(update, object, &difference);
        let ask = self.service().request(update, &meanings, Some(body))?;
        match self.service().ask(ask, self.until).await? {
            Heard::Done(_) => {
                let fields = difference.as_object().map(|fields| fields.keys().cloned().collect::<Vec<_>>().join(", "));
                let output = format!("changed {}", super::shorten(&fields.unwrap_or_default()));
                Ok((self.live().await?.unwrap_or(here), output))
            }
            Heard::Gone => Err(DriverError::Unavailable {
                reason: format!("{} was removed just now: it is created again", here.local_id),
                retry_after: None,
            }),
        }
    }

    /// The fields that the service has given other values than it was told.
    fn others(&self, here: &Here) -> Option<String> {
        let mut wanted = self.note.object.clone()?;
        self.resource.ignore.iter().for_each(|pointer| remove(&mut wanted, pointer));
        let mut found = Vec::new();
        differing(Some(&here.object), &wanted, "", &mut found);
        // What is not shown at all may be kept.
        let names: Vec<_> = found.into_iter().filter_map(|(path, value, _)| value.map(|_| path)).take(10).collect();
        (!names.is_empty()).then(|| super::shorten(&names.join(", ")))
    }
}

/// What an update has for a body unless the configuration says: the difference for a `PATCH`, all of it otherwise.
pub(super) fn body<'a>(update: &Request, object: &'a Value, difference: &'a Value) -> &'a Value {
    if update.method == Method::PATCH { difference } else { object }
}
