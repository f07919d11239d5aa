//! Looking at objects: whether they are there, how they are doing, and what others have done to them.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _};
use serde_json::{Value, json};

use super::fields;
use super::health::{self, rolled_up};
use super::kinds::Kind;
use super::manifest::Key;
use super::operate::Held;
use super::options::Options;
use super::remove::unlooked;
use super::replicas::{AT_ONCE, Replicas, Wanted, digest_of, local_id, mark};
use super::server::MANAGER;
use super::shown::plain;
use super::stamp::{self, Mark};
use crate::text::{clipped, cut};
use crate::{DriverError, Observed, Replica};

/// The most bytes of text that say how a replica differs, of one value in it, and of contents that are shown.
const MAX_DRIFT_BYTES: usize = 1_500;
const MAX_VALUE_BYTES: usize = 200;
const MAX_SHOWN_BYTES: usize = 32 << 10;

/// An object that was looked at.
struct Seen {
    key: Key,
    kind: Option<Kind>,
    live: Option<Value>,
    part: Option<Value>,
    drift: Vec<String>,
}

fn short(value: &Value) -> String {
    clipped(&value.to_string(), MAX_VALUE_BYTES)
}

impl Replicas {
    /// Looks at all objects of a replicant.
    pub(super) async fn observe(&self, replica: &Replica) -> Result<Observed, DriverError> {
        let options = Options::read(&replica.options)?;
        let (held, missed) = self.held_and_missed(replica, &options).await?;
        let marker = held.iter().filter_map(Held::marker).max().map(|(_, id)| id);
        // Of what nobody knows how it should be, nobody can say whether it is the same elsewhere.
        let known = replica.written.is_some() || marker.is_some() || replica.local_id.is_none();
        let mut calls = Vec::<BoxFuture<'_, _>>::new();
        for held in held {
            calls.push(Box::pin(self.look(held, mark(replica), &options)));
        }
        let results: Vec<_> = stream::iter(calls).buffered(AT_ONCE).collect().await;
        let seen = results.into_iter().collect::<Result<Vec<_>, _>>()?;
        // Only now: of a look that fails nobody hears what was seen.
        for Seen { kind, live, .. } in &seen {
            if let (Some(kind), Some(live)) = (kind, live) {
                self.watcher.saw(kind, &replica.id, live);
            }
        }
        let exists = seen.iter().any(|seen| seen.live.is_some());
        // It is not to be concluded that there is nothing, or that no operation has run on what is there.
        if let Some(reason) = missed
            && (!exists || (marker.is_none() && replica.written.is_none()))
        {
            return Err(DriverError::Unavailable { reason: unlooked(replica, &reason), retry_after: None });
        }
        let parts = seen.iter().filter_map(|seen| Some((seen.key.to_string(), seen.part.clone()?)));
        let parts: BTreeMap<_, _> = parts.collect();
        let digest = (exists && known).then(|| digest_of(&parts));
        let drift: Vec<_> = seen.iter().flat_map(|seen| seen.drift.iter().map(String::as_str)).collect();
        let drift = (!drift.is_empty()).then(|| clipped(&drift.join("; "), MAX_DRIFT_BYTES));
        let doing = |seen: &Seen| seen.live.as_ref().map_or_else(health::not_found, health::of);
        let healths: Vec<_> = seen.iter().map(|seen| (&seen.key, doing(seen))).collect();
        let health = rolled_up(healths.iter().map(|(key, health)| (key, health)));
        let health = self.watcher.with_blind(health, seen.iter().map(|seen| &seen.key));
        let live: Vec<_> = seen.iter().filter_map(|seen| seen.live.as_ref()).map(plain).collect();
        let shown = cut(&json!(live).to_string(), MAX_SHOWN_BYTES);
        Ok(Observed {
            exists,
            digest,
            drift,
            contents: exists.then_some(Value::String(shown)),
            local_id: local_id(seen.into_iter().filter(|seen| seen.live.is_some()).map(|seen| seen.key)),
            marker,
            unsettled: None,
            health,
        })
    }

    async fn look(&self, held: Held, mark: Mark<'_>, options: &Options) -> Result<Seen, DriverError> {
        let part = held.part(options);
        let Held { key, kind, manifest, live } = held;
        let said = match (kind, live) {
            (None, _) => format!("{key}: its kind is not served any more"),
            (Some(_), None) => format!("{key} is gone"),
            (Some(kind), Some(live)) => {
                let mut drift = Vec::new();
                if let Some(manifest) = manifest {
                    let value = stamp::as_operated(&manifest.value, &live);
                    let wanted = Wanted { kind: kind.clone(), key: key.clone(), rank: manifest.rank(), value };
                    drift = self.drift(&wanted, &live, mark, options).await?;
                }
                return Ok(Seen { key, kind: Some(kind), part, live: Some(live), drift });
            }
        };
        Ok(Seen { key, kind: None, live: None, part: None, drift: vec![said] })
    }

    /// How an object differs from what is asked for, and who did it.
    async fn drift(
        &self,
        wanted: &Wanted,
        live: &Value,
        mark: Mark<'_>,
        options: &Options,
    ) -> Result<Vec<String>, DriverError> {
        let value = Self::for_server(wanted, Some(live), mark, options)?;
        let changed = self.changed(wanted, live, &value, options).await?;
        let key = &wanted.key;
        let said = changed.into_iter().map(|difference| {
            let by = fields::set_by(live, &difference.path, MANAGER);
            let by = by.map(|(manager, time)| format!(", set by {manager} at {time}")).unwrap_or_default();
            let path = fields::written(&difference.path);
            if key.is_secret() {
                return format!("{key}: {path} is another{by}");
            }
            let is = difference.is.map_or_else(|| "gone".to_owned(), |is| short(&is));
            if difference.wanted.is_null() {
                return format!("{key}: {path} is more than is wanted{by}");
            }
            format!("{key}: {path} is {is}{by}, wanted is {}", short(&difference.wanted))
        });
        Ok(said.collect())
    }
}
