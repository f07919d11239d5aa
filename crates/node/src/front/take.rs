//! Writes of what others have set here. The driver leaves what others have set alone; whoever writes it through the front
//! takes it, with his own rights, as he would at the API server: it is as he has written it, and the driver's from then on.

use hyper::body::Bytes;
use hyper::http::Method;
use khufu_crdt::Policy;
use khufu_drivers::kubernetes::{MANAGER, cleaned, taken};
use khufu_engine::ReplicantView;
use serde_json::{Map, Value};

use super::answer::Refusal;
use super::capture::{Captured, json_type};
use super::keys::Keys;
use super::remembered::{self, Fields};
use super::rest::at;
use super::target::Verb;
use super::upstream::{Answer, Question};
use super::{Front, marks};

/// A write to an object that is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taking<'a> {
    pub(super) view: &'a ReplicantView,
    /// The policy that counts from now on.
    pub(super) policy: &'a Policy,
    /// What was asked for, and what is from now on.
    pub(super) was: &'a Value,
    pub(super) wanted: &'a Value,
    /// The object as it is.
    pub(super) live: &'a Value,
    /// The fields in which it differs from what the API server would make of it.
    pub(super) touched: &'a Fields,
}

impl Taking<'_> {
    /// Whether the write is about what the driver would leave alone.
    pub(super) fn is_needed(&self) -> bool {
        let asked = |object: &Value| remembered::fields(&cleaned(object), Keys::default());
        let nothing = |fields: &Fields| fields.as_object().is_none_or(Map::is_empty);
        let of_others = remembered::without(&remembered::without(self.touched, &asked(self.was)), &asked(self.wanted));
        !nothing(self.touched)
            && (self.is_asked_for()
                || !nothing(&of_others)
                || remembered::others_have(self.live, self.touched, MANAGER))
    }

    /// Whether it asks for nothing else than what is asked for.
    pub(super) fn is_asked_for(&self) -> bool {
        cleaned(self.was) == cleaned(self.wanted)
    }

    /// What the driver would apply to the object as it is, with the values that it has after the write.
    pub(super) fn applied(&self, front: &Front, live: &Value, after: &Value) -> Result<Value, Refusal> {
        let options = &self.policy.options;
        taken(self.wanted, live, after, &self.view.id, front.handle.site(), options)
            .map_err(|error| Refusal::invalid(error.to_string()))
    }

    /// The write itself. None where it would take away whose the object is.
    pub(super) async fn as_asked(
        &self,
        front: &Front,
        captured: &Captured,
        live: &Value,
        after: &Value,
    ) -> Result<Option<Answer>, Refusal> {
        if captured.verb == Verb::Update {
            let mut whole = at(after.clone(), live);
            marks::as_in(&mut whole, live);
            if let Some(metadata) = whole.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
            let question = Question {
                method: Method::PUT,
                path: captured.path(&captured.query),
                from: &captured.headers,
                body: Some((json_type(), Bytes::from(whole.to_string()))),
                accept: None,
            };
            return front.upstream.ask(question).await.map(Some);
        }
        if marks::may_be_in(&captured.body) {
            return Ok(None);
        }
        front.write_it(captured, captured.body.clone(), &captured.query).await.map(Some)
    }
}
