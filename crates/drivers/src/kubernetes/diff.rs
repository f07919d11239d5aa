//! What desired states and operations would change.

use std::collections::BTreeSet;

use super::kinds::is_missing;
use super::manifest::{self, Key, Object};
use super::options::Options;
use super::replicas::{Replicas, inventory, mark};
use super::server::Write;
use super::shown::plain;
use super::stamp;
use crate::text::between;
use crate::{DriverError, Replica, Work};

impl Replicas {
    /// What some work would change, as a unified diff of each object.
    pub(super) async fn diff(&self, replica: &Replica, work: &[Work]) -> Result<String, DriverError> {
        let options = Options::read(&replica.options)?;
        if work.is_empty() {
            return Ok(String::new());
        }
        let (mut objects, mut keys) = (Vec::new(), BTreeSet::new());
        if let Some(Work::Operation(_)) = work.first() {
            for held in self.held(replica, &options).await? {
                match held.manifest {
                    Some(manifest) => objects.push(manifest),
                    // Nothing is done about what nobody remembers.
                    None => _ = keys.insert(held.key),
                }
            }
        }
        for work in work {
            match work {
                Work::Desired(desired) => objects = manifest::objects(desired, &options)?,
                Work::Operation(operation) => Self::foreseen(&mut objects, operation, &options)?,
                Work::Reset => objects.clear(),
            }
        }
        self.difference(replica, &options, &objects, keys).await
    }

    /// What would change if these objects were all there is, but for some that are left alone.
    async fn difference(
        &self,
        replica: &Replica,
        options: &Options,
        objects: &[Object],
        mut keys: BTreeSet<Key>,
    ) -> Result<String, DriverError> {
        let mut text = String::new();
        for object in objects {
            let wanted = match self.wanted(object, options).await {
                Ok(wanted) => wanted,
                Err(error) if is_missing(&error) => {
                    text.push_str(&format!("# {error}\n{}", between(&object.name, None, Some(&plain(&object.value)))));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let live = self.server.get(&wanted.kind, &wanted.key).await?;
            let value = Self::for_server(&wanted, live.as_ref(), mark(replica), options)?;
            let then = match self.server.apply(&wanted.kind, &wanted.key, &value, options.force, Write::Try).await {
                Ok(then) => then,
                // Its namespace may be made with it.
                Err(DriverError::Unavailable { reason, .. }) if live.is_none() => {
                    text.push_str(&format!("# {reason}\n"));
                    value
                }
                Err(error) => return Err(error),
            };
            let (before, after) = (live.as_ref().map(plain), plain(&then));
            text.push_str(&between(&wanted.key.to_string(), before.as_ref(), Some(&after)));
            keys.insert(wanted.key);
        }
        for key in inventory(replica.local_id.as_deref()).into_iter().filter(|key| !keys.contains(key)) {
            if let Some(kind) = self.server.kind_if_served(&key).await?
                && let Some(live) = self.live(&kind, &key).await?
                && stamp::is_of(&key, &live, mark(replica))
            {
                text.push_str(&between(&key.to_string(), Some(&plain(&live)), None));
            }
        }
        Ok(text)
    }
}
