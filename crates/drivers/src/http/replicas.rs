//! Replicas at one service: what they are there, how they are created and removed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use khufu_crdt::ReplicantId;
use serde_json::Value;
use tokio::time::Instant;

use super::asking::Found;
use super::fields::{set, text_at};
use super::kinds::{Request, Resource};
use super::note::{Note, Sent};
use super::options::Options;
use super::service::{Deadline, Heard, Service, deadline};
use super::template::Meanings;
use crate::notes::Notes;
use crate::{DriverError, Replica};

/// How long is waited for what was removed to be gone.
const GONE_PATIENCE: Duration = Duration::from_secs(10);
/// How often is looked meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The replicas at one service.
pub(super) struct Replicas {
    pub(super) service: Arc<Service>,
    pub(super) kinds: BTreeMap<String, Resource>,
    pub(super) notes: Arc<Notes>,
}

/// What the service has of a replica.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Here {
    pub(super) local_id: String,
    pub(super) object: Value,
}

/// One replica while it is worked on.
pub(super) struct At<'a> {
    pub(super) replicas: &'a Replicas,
    pub(super) replica: &'a Replica,
    pub(super) options: Options,
    pub(super) resource: &'a Resource,
    pub(super) note: Note,
    /// The desired state that counts now.
    pub(super) desired: Option<Value>,
    pub(super) until: Deadline,
}

impl Replicas {
    /// What is known of a replica. What was made as one kind of resource stays that until it is removed.
    pub(super) async fn at<'a>(&'a self, replica: &'a Replica) -> Result<At<'a>, DriverError> {
        let options = Options::read(&replica.options)?;
        let note: Note = self.blocking(&replica.id, |notes, id| notes.read(id)).await?;
        let resource = match note.resource.as_ref().and_then(|name| self.kinds.get(name)) {
            Some(resource) => resource,
            None => self.wanted(&options)?,
        };
        let desired = note.desired.clone();
        Ok(At { replicas: self, replica, options, resource, note, desired, until: deadline() })
    }

    /// The kind of resource that a policy asks for.
    pub(super) fn wanted(&self, options: &Options) -> Result<&Resource, DriverError> {
        let names = || self.kinds.keys().cloned().collect::<Vec<_>>().join(", ");
        let invalid = |reason: String| DriverError::invalid("policy.options.resource", reason);
        match &options.resource {
            Some(name) => self.kinds.get(name).ok_or_else(|| {
                invalid(format!(
                    "there is no {:?} in the driver's file at this site, only {}",
                    super::shorten(name),
                    names()
                ))
            }),
            None => match self.kinds.values().collect::<Vec<_>>().as_slice() {
                [only] => Ok(only),
                _ => Err(invalid(format!("say which it is: {}", names()))),
            },
        }
    }

    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        id: &ReplicantId,
        work: impl FnOnce(&Notes, &ReplicantId) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let (notes, id) = (self.notes.clone(), id.clone());
        tokio::task::spawn_blocking(move || work(&notes, &id))
            .await
            .map_err(|error| DriverError::Unavailable { reason: error.to_string(), retry_after: None })?
    }
}

impl<'a> At<'a> {
    pub(super) fn service(&self) -> &'a Service {
        &self.replicas.service
    }

    pub(super) fn id(&self) -> &'a str {
        self.replica.id.as_str()
    }

    /// What holes are filled with, but for those of one request.
    pub(super) fn meanings(&self) -> Meanings<'_> {
        Meanings {
            id: self.id(),
            site: self.replica.site.as_str(),
            local_id: self.note.local_id.as_deref(),
            desired: self.desired.as_ref(),
            ..Meanings::default()
        }
    }

    /// Writes down what is known, durably.
    pub(super) async fn save(&mut self) -> Result<(), DriverError> {
        self.note.resource = Some(self.resource.name.clone());
        let note = self.note.clone();
        self.replicas.blocking(&self.replica.id, move |notes, id| notes.write(id, &note)).await
    }

    /// Forgets all.
    pub(super) async fn forget(self) -> Result<(), DriverError> {
        self.replicas.blocking(&self.replica.id, Notes::forget).await
    }

    /// What the service has, if it has anything: what it calls so, or what has the mark.
    pub(super) async fn live(&mut self) -> Result<Option<Here>, DriverError> {
        let mut found = self.look().await?;
        if found.is_none()
            && let Some(sent) = self.creating()
        {
            // The service may still be at it.
            let pause = sent.may_go_on(self.resource.settle);
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
                found = self.look().await?;
            }
        }
        self.note.local_id = found.as_ref().map(|here| here.local_id.clone());
        Ok(found)
    }

    async fn look(&self) -> Result<Option<Here>, DriverError> {
        let known = match &self.resource.local_id {
            None => Some(self.id().to_owned()),
            Some(_) => self.note.local_id.clone().or_else(|| self.replica.local_id.clone()),
        };
        if let (Some(read), Some(known)) = (&self.resource.read, &known)
            && let Some(object) = self.read(read, known).await?
            && self.is_ours(&object)
        {
            return Ok(Some(Here { local_id: known.clone(), object }));
        }
        self.found(known.as_deref()).await
    }

    /// Services that lost their memory give out the same names again.
    fn is_ours(&self, object: &Value) -> bool {
        let marked = self.resource.mark.as_deref().and_then(|pointer| text_at(object, pointer));
        marked.is_none_or(|marked| marked == self.id())
    }

    async fn read(&self, read: &Request, local_id: &str) -> Result<Option<Value>, DriverError> {
        let meanings = Meanings { local_id: Some(local_id), ..self.meanings() };
        let ask = self.service().request(read, &meanings, None)?;
        match self.service().ask(ask, self.until).await? {
            Heard::Done(answer) => {
                // What is no JSON has its text for contents.
                let object = self.resource.object_in(&answer);
                Ok(Some(object.unwrap_or_else(|| String::from_utf8_lossy(&answer.body).into())))
            }
            Heard::Gone => Ok(None),
        }
    }

    /// Looks for it among all that there is.
    async fn found(&self, known: Option<&str>) -> Result<Option<Here>, DriverError> {
        let Some(find) = &self.resource.find else { return Ok(None) };
        let mut found = self.service().find(find, &self.meanings(), self.until).await?;
        if found.len() > 1 {
            let all = found.iter().filter_map(|one| one.local_id.clone()).collect::<Vec<_>>().join(", ");
            found.retain(|one| one.local_id.is_some() && one.local_id.as_deref() == known);
            if found.len() != 1 {
                return Err(DriverError::Refused {
                    place: format!("{} {}", self.resource.name, self.id()),
                    reason: format!("there are several of it ({}): remove all but one", super::shorten(&all)),
                });
            }
        }
        let Some(Found { local_id, element }) = found.pop() else {
            return Ok(None);
        };
        let local_id = match &self.resource.local_id {
            None => self.id().to_owned(),
            Some(_) => local_id.ok_or_else(|| DriverError::Failed {
                reason: format!("what was found by {} does not say what it is called", find.field),
                again: false,
            })?,
        };
        let object = match &self.resource.read {
            None => element,
            Some(read) => match self.read(read, &local_id).await? {
                Some(object) => object,
                None => return Ok(None),
            },
        };
        Ok(Some(Here { local_id, object }))
    }

    /// A creation of which nobody knows what became of it.
    fn creating(&self) -> Option<&Sent> {
        let begun = self.note.begun.as_ref().filter(|begun| begun.creates);
        self.note.creating.as_ref().or(begun.map(|begun| &begun.sent))
    }

    /// What the service is to have for the desired state.
    pub(super) fn object(&self) -> Result<Value, DriverError> {
        let mut object = self.resource.object.fill(&self.meanings())?;
        if let Some(pointer) = &self.resource.mark
            && !set(&mut object, pointer, self.id().into())
        {
            let reason = format!("it has no place for {pointer}, by which the service's object is found again");
            return Err(DriverError::invalid("desired", reason));
        }
        Ok(object)
    }

    /// Creates it. There is none, as far as anybody can see.
    pub(super) async fn create(&mut self, object: &Value) -> Result<Here, DriverError> {
        let resource = self.resource;
        let Some(create) = &resource.create else {
            let reason = format!("there is no {}, and the driver's file has no request to create one", resource.name);
            return Err(DriverError::Failed { reason, again: true });
        };
        let before = self.note.creating.clone();
        let key = match &before {
            // The service knows by its key, or by its place, that it is the same.
            Some(sent) if create.repeatable => sent.key.clone(),
            Some(_) if resource.find.is_none() && !resource.create_again => return Err(self.maybe_created()),
            _ => super::name(),
        };
        let meanings = Meanings { object: Some(object), difference: Some(object), key: Some(&key), ..self.meanings() };
        let ask = self.service().request(create, &meanings, Some(object))?;
        self.note.creating = Some(Sent::now(key.clone()));
        self.save().await?;
        let heard = self.service().ask(ask, self.until).await;
        let answer = match heard {
            Ok(Heard::Done(answer)) => answer,
            Err(error @ (DriverError::Timeout { .. } | DriverError::Unanswered { .. })) => {
                // From now on it is waited for what the service may still do.
                self.note.creating = Some(Sent::now(key));
                self.save().await?;
                return Err(error);
            }
            refused => {
                // This one has done nothing. What became of one before it is as unknown as it was.
                self.note.creating = before;
                self.save().await?;
                return Err(match refused {
                    Err(error) => error,
                    _ => DriverError::Failed {
                        reason: format!("there is no place for a {}: its path is gone", resource.name),
                        again: true,
                    },
                });
            }
        };
        let said = resource.local_id_in(&answer, self.id());
        let here = match said {
            Some(local_id) => {
                self.note.local_id = Some(local_id.clone());
                let object = resource.object_in(&answer).unwrap_or_else(|| object.clone());
                Here { local_id, object }
            }
            None => self.live().await?.ok_or_else(|| DriverError::Unanswered {
                reason: "the answer to its creation does not say what it is called, and it is not found".into(),
            })?,
        };
        self.note.creating = None;
        self.save().await?;
        // A service may know more of it, or not know it at once.
        Ok(self.live().await.ok().flatten().unwrap_or(here))
    }

    /// What a person has to find out.
    pub(super) fn maybe_created(&self) -> DriverError {
        DriverError::Refused {
            place: format!("{} {}", self.resource.name, self.id()),
            reason: format!(
                "its creation was sent and not answered, and the service offers no way to find out whether there is one now: \
                 see to it, then remove {}",
                self.replicas.notes.path(&self.replica.id).display()
            ),
        }
    }

    /// Whether there may be one that nobody can find.
    pub(super) fn may_be_lost(&self) -> bool {
        self.note.creating.is_some() && self.resource.find.is_none() && self.resource.local_id.is_some()
    }

    /// Removes it, and waits until it is gone. Whether there was one.
    pub(super) async fn remove(&mut self) -> Result<bool, DriverError> {
        let resource = self.resource;
        let Some(here) = self.live().await? else {
            self.start_over().await?;
            return Ok(false);
        };
        let Some(delete) = &resource.delete else {
            return Err(DriverError::Unsupported {
                kind: "http".to_owned(),
                what: "remove a replica: give a request for it, `delete`",
            });
        };
        let ask = self.service().request(delete, &self.meanings(), None)?;
        self.service().ask(ask, self.until).await?;
        if let Some(read) = &resource.read {
            let end = self.until.min(Instant::now() + GONE_PATIENCE);
            while let Some(object) = self.read(read, &here.local_id).await?
                && self.is_ours(&object)
            {
                if Instant::now() >= end {
                    let reason = format!("{} was told to go, and is still there", here.local_id);
                    return Err(DriverError::Unavailable { reason, retry_after: None });
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        self.start_over().await?;
        Ok(true)
    }

    /// There is nothing any more. A creation that may have left something stays noted.
    async fn start_over(&mut self) -> Result<(), DriverError> {
        let cannot_be_found = self.resource.find.is_none() && self.resource.local_id.is_some();
        let creating = self.creating().filter(|_| cannot_be_found).cloned();
        self.note = Note { creating, ..Note::default() };
        self.save().await
    }
}
