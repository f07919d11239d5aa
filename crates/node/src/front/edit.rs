//! Writes to an object that is there.

use hyper::Response;
use hyper::body::Bytes;
use hyper::http::StatusCode;
use khufu_crdt::{SiteName, Status};
use khufu_drivers::kubernetes::cleaned;
use khufu_engine::{Put, ReplicantView};
use serde_json::{Value, json};

use super::answer::{Body, Refusal};
use super::capture::{Captured, New, adopt_or_make, is_asked_for, keys, new, replicant};
use super::difference::{Write, empty, kept, overlay};
use super::here::{self, Here};
use super::kept::{Telling, Written};
use super::keys::Keys;
use super::marks::{self, SCOPE, annotation};
use super::place::{Named, Place};
use super::rest::{Outcome, Rest};
use super::settled::Settled;
use super::steps::Steps;
use super::take::Taking;
use super::target::{Verb, is_set};
use super::{Front, delete, named, policy, remembered, scope, steps, wanted};

/// The manager under which kubectl applies unless it is told another.
const KUBECTL: &str = "kubectl";
/// How often it is tried again where somebody else has written in between.
const TRIES: usize = 5;

/// Updates, patches, applies, scales.
pub(super) async fn edit(front: &Front, captured: &Captured) -> Result<Response<Body>, Refusal> {
    for _ in 0..TRIES {
        if let Some(response) = once(front, captured).await? {
            return Ok(response);
        }
    }
    Err(Refusal::conflict("others write to the object all the time: try again"))
}

/// Whether what was tried was not what was read: somebody has written in between, and his change is not part of this.
fn has_moved(live: &Value, tried: &Value) -> bool {
    let version =
        |object: &'_ Value| object.pointer("/metadata/resourceVersion").and_then(Value::as_str).map(str::to_owned);
    version(live).zip(version(tried)).is_some_and(|(live, tried)| live != tried)
}

/// The same once; nothing if somebody else has written in between.
async fn once(front: &Front, captured: &Captured) -> Result<Option<Response<Body>>, Refusal> {
    let read = front.read(captured, captured.target.path.clone()).await?;
    match read.status {
        status if status.is_success() => {}
        StatusCode::NOT_FOUND => return make(front, captured).await.map(Some),
        StatusCode::FORBIDDEN => return unseen(front, captured).await.map(Some),
        _ => return Ok(Some(read.pass())),
    }
    let live = read.json();
    // What is on its way out is kept by its finalizers only, and these are of this cluster.
    let going = live.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null());
    if going || marks::is_helms_own(&live) {
        return front.pass_on(captured).await.map(Some);
    }
    match front.here(&live).await? {
        Here::Of(own) => change(front, captured, &live, &own.view, &own.place).await,
        Here::Marked(id) => Err(here::refused(&id)),
        Here::Nobodys
            if captured.verb != Verb::Scale && (captured.scope.is_some() || marks::may_be_in(&captured.body)) =>
        {
            adopt(front, captured, &live).await
        }
        Here::Nobodys => front.pass_on(captured).await.map(Some),
    }
}

/// What is sent, as it is tried: what is read here is what the API server reads.
fn body(captured: &Captured, sent: Option<&Value>) -> Bytes {
    sent.map_or_else(|| captured.body.clone(), |sent| Bytes::from(sent.to_string()))
}

/// An object that is not there: an apply makes it.
async fn make(front: &Front, captured: &Captured) -> Result<Response<Body>, Refusal> {
    // Some kinds are made by an update as well.
    if !captured.is_apply() && captured.verb != Verb::Update {
        return front.pass_on(captured).await;
    }
    let sent = captured.sent()?;
    let headline = captured.headline(sent.as_ref());
    let is_meant = captured.scope.is_some() || headline.as_ref().is_some_and(|sent| annotation(sent, SCOPE).is_some());
    if is_meant || is_asked_for(front, captured, headline.as_ref()).await? {
        return new(front, captured, sent).await;
    }
    front.pass_on(captured).await
}

/// An object that whoever asks may write and not read: it cannot be told what he has changed.
async fn unseen(front: &Front, captured: &Captured) -> Result<Response<Body>, Refusal> {
    let sent = captured.sent()?;
    let tried = front.try_it(captured, body(captured, sent.as_ref())).await?;
    if !tried.status.is_success() {
        return Ok(tried.pass());
    }
    let after = tried.json();
    let is_object = captured.verb != Verb::Scale && Named::of(&after).is_some();
    if is_object && replicant(&after).is_none() && annotation(&after, SCOPE).is_none() && captured.scope.is_none() {
        return front.pass_on(captured).await;
    }
    Err(Refusal::forbidden("to write what may be of a replicant takes the right to read it (get), too"))
}

/// An object that is there, and becomes a replicant by being written with a scope.
async fn adopt(front: &Front, captured: &Captured, live: &Value) -> Result<Option<Response<Body>>, Refusal> {
    let sent = captured.sent()?;
    let tried = front.try_it(captured, body(captured, sent.as_ref())).await?;
    if !tried.status.is_success() {
        return Ok(Some(tried.pass()));
    }
    let after = captured.made(&tried)?;
    if has_moved(live, &after) {
        return Ok(None);
    }
    // What was there may be of somebody with fewer rights.
    let said = marks::newly_said(&after, &[live]);
    let scope = said.get(SCOPE).and_then(Value::as_str).map(str::to_owned).or_else(|| captured.scope.clone());
    let Some(scope) = scope else { return front.pass_on(captured).await.map(Some) };
    front.explain(&scope).await?;
    let mut manifest = match (&sent, marks::last_applied(&after)) {
        (Some(sent), _) if captured.verb == Verb::Update || captured.is_apply() => wanted::as_sent(sent, &after),
        (_, Some(applied)) => {
            let mut manifest = wanted::as_sent(&applied, &after);
            let (sent, keys) = (sent.as_ref(), Keys::default());
            let named: Vec<&Value> = sent.into_iter().chain([&applied]).collect();
            let [before, now] = [live, &after].map(|object| wanted::elsewhere(&cleaned(object), &named));
            Write { before: &before, after: &now, sent, is_whole: false, keys }.carry(&mut manifest);
            manifest
        }
        _ => wanted::as_there(&after),
    };
    marks::say_only(&mut manifest, &said);
    adopt_or_make(front, captured, &tried, New { manifest, scope: Some(scope), said, live: Some(live) }).await.map(Some)
}

/// An object of a replicant.
async fn change(
    front: &Front,
    captured: &Captured,
    live: &Value,
    view: &ReplicantView,
    place: &Place,
) -> Result<Option<Response<Body>>, Refusal> {
    let sent = captured.sent()?;
    let headline = captured.headline(sent.as_ref());
    let version = headline.as_ref().and_then(|sent| sent.pointer("/metadata/resourceVersion")).and_then(Value::as_str);
    if version.is_some_and(|version| !version.is_empty()) && !is_made(front.handle.site(), view) {
        let message = format!(
            "the last edit of {} has not been made here yet, so nothing that was read here is the newest: try again, or write \
             without a resourceVersion",
            view.id
        );
        return Err(Refusal::conflict(message));
    }
    let tried = front.try_it(captured, body(captured, sent.as_ref())).await?;
    if !tried.status.is_success() {
        return Ok(Some(tried.pass()));
    }
    let mut after = captured.made(&tried)?;
    if has_moved(live, &after) {
        return Ok(None);
    }
    let scale = captured.verb == Verb::Scale;
    if scale {
        let before = front.read(captured, captured.path("")).await?.json();
        if has_moved(live, &before) {
            return Ok(None);
        }
        after = scaled(live, &before, &after)?;
    }
    marks::tidy(&mut after);
    let mut object = place.get(&view.desired).cloned().unwrap_or_default();
    if live.get("kind") != after.get("kind") {
        return Err(Refusal::bad_request("what the API server has answered is of another kind"));
    }
    if object.get("apiVersion") != after.get("apiVersion") {
        let (is, was) = (after.get("apiVersion"), object.get("apiVersion"));
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        return Err(Refusal::invalid(format!(
            "the replicant {} asks for this object as {}, and this write is to it as {}: write to it in that version",
            view.id,
            text(was),
            text(is)
        )));
    }
    let asked: Vec<&Value> = sent.iter().chain([&object]).collect();
    let [before, now] = [live, &after].map(|object| wanted::elsewhere(&cleaned(object), &asked));
    let mut changed = Changed { before, after: now, object: object.clone() };
    let is_whole = captured.verb == Verb::Update;
    let steps = match &sent {
        Some(Value::Array(patch)) if !scale => steps::read(patch, live, &changed.after, &object, keys(&view.policy)),
        _ => Steps::default(),
    };
    let carried = match &sent {
        Some(sent) if is_whole => Some(wanted::whole(sent, &after)),
        Some(Value::Array(_)) => steps.removed,
        sent => sent.clone().filter(|sent| sent.is_object() && !scale),
    };
    let named = named::of(captured, sent.as_ref(), &changed.after, steps.named);
    changed.carry(captured, carried.as_ref(), named.as_ref(), view)?;
    object = changed.object;
    // What people say is kept as well: it is shown to them again.
    let kept = place.get(&view.desired).cloned().unwrap_or_default();
    let said = marks::newly_said(&after, &[live, &kept]);
    let unsaid = match (&headline, captured.verb) {
        (Some(sent), Verb::Update) => marks::left_out(sent, &kept),
        // What he had applied himself is gone already.
        (Some(_), Verb::Patch) if captured.is_apply() => marks::no_more(&object, &kept),
        (Some(_), Verb::Patch) => carried.as_ref().map(marks::unsaid).unwrap_or_default(),
        _ => Vec::new(),
    };
    marks::take_away(&mut object, &unsaid);
    marks::annotate(&mut object, said.clone());
    let mut policy = view.policy.clone();
    policy::take_back(&mut policy, &kept, &unsaid);
    policy::edit(&mut policy, &said)?;
    let policy_edited = policy != view.policy;
    let mut warnings = elsewhere(captured, view);
    warnings.extend(headline.as_ref().and_then(|sent| policy::not_so(sent, &said, view)));
    let scope = said.get(SCOPE).and_then(Value::as_str).map(str::to_owned);
    let scope = scope.filter(|scope| !scope::is_same(scope, &view.scope));
    if *place != Place::All && (policy_edited || scope.is_some()) {
        // Whoever may write this object may not be allowed to write the others.
        let message = format!("the replicant {} is of several objects: edit its scope and policy with khufu", view.id);
        return Err(Refusal::invalid(message));
    }
    if let Some(scope) = &scope {
        front.explain(scope).await?;
    }
    // It goes where the scope does not name any more.
    if (scope.is_some() || policy::removes_more(&view.policy, &policy))
        && let Some(refused) = delete::forbidden(front, captured, &captured.target.path).await?
    {
        return Ok(Some(refused));
    }
    let mut desired = view.desired.clone();
    place.set(&mut desired, object.clone());
    let path = if scale { captured.path("") } else { captured.target.path.clone() };
    let is_asked_for = desired == view.desired && scope.is_none() && !policy_edited;
    let leaves = scope.is_some();
    let put = Put {
        id: view.id.clone(),
        kind: None,
        scope,
        policy: policy_edited.then(|| policy.clone()),
        desired: (desired != view.desired).then_some(desired),
        overrides: None,
        base: Some(view.heads.clone()),
    };
    let [before_it, after_it] =
        [live, &after].map(|value| wanted::elsewhere(&marks::others_own(value), &[&kept, &object]));
    let touched = remembered::differing(&before_it, &after_it, Keys::default());
    // Where something of this site stands above what is asked for, it stays.
    let stands_above = view.overrides.contains_key(front.handle.site()) || !view.operations.is_empty();
    let taking = Taking { view, policy: &policy, was: &kept, wanted: &object, live, touched: &touched };
    let is_taken = !stands_above && !leaves && taking.is_needed();
    let rest = Rest { live, after: &after, keys: keys(&policy), taking: Some(taking) };
    let rest = is_taken.then_some(rest);
    if let Some(rest) = &rest {
        front.may_keep(captured, &put, &policy).await?;
        let outcome = if is_asked_for {
            captured.begun.begin()?;
            rest.alone(front, captured).await?
        } else {
            rest.tried(front, captured).await?
        };
        match outcome {
            Outcome::Done => {}
            Outcome::Moved => return Ok(None),
            Outcome::Refused(answer) => return Ok(Some(answer.pass())),
        }
    }
    let telling = Telling {
        tried: &tried,
        path,
        warnings,
        written: Some(Written {
            fields: remembered::differing(&before_it, &after_it, keys(&view.policy)),
            after: after_it,
        }),
        left: None,
    };
    if is_asked_for {
        return front.tell(captured, view, Settled::Applied, telling).await.map(Some);
    }
    front.keep(captured, put, &policy, rest, telling).await.map(Some)
}

/// Whether a site has made what is asked for now.
fn is_made(site: &SiteName, view: &ReplicantView) -> bool {
    let status = view.sites.get(site).filter(|status| status.current);
    let report = status.and_then(|status| status.report.as_ref());
    report.is_some_and(|report| !matches!(report.status, Status::Pending | Status::Failed | Status::NeedsAttention))
}

/// An object as it would be with another number of replicas.
fn scaled(live: &Value, before: &Value, scale: &Value) -> Result<Value, Refusal> {
    let replicas = |value: &Value| value.pointer("/spec/replicas").cloned();
    let (Some(wanted), true) = (replicas(scale), replicas(live).is_some() && replicas(live) == replicas(before)) else {
        let message = "the number of replicas of this kind is not at spec.replicas: change the field itself";
        return Err(Refusal::invalid(message));
    };
    let mut after = live.clone();
    if let Some(replicas) = after.pointer_mut("/spec/replicas") {
        *replicas = wanted;
    }
    Ok(after)
}

/// What a write changes in what is asked for.
pub(super) struct Changed {
    pub(super) before: Value,
    pub(super) after: Value,
    pub(super) object: Value,
}

impl Changed {
    pub(super) fn carry(
        &mut self,
        captured: &Captured,
        sent: Option<&Value>,
        named: Option<&Value>,
        view: &ReplicantView,
    ) -> Result<(), Refusal> {
        let keys = keys(&view.policy);
        let mut applied = remembered::read(&self.object);
        // What is remembered must be understood also when the policy is another.
        let differing = remembered::differing(&self.before, &self.after, Keys::default());
        let manager = captured.manager();
        if captured.is_apply() && !is_set(&captured.query, "force") {
            let others = applied.iter().filter(|(other, _)| **other != manager && **other != remembered::OTHERWISE);
            refuse_conflicts(&differing, others)?;
        }
        // What was asked for before anybody applied it, and is not changed by this, is not of whoever applies it alone.
        let otherwise = remembered::without(&remembered::applied(&self.object), &differing);
        // An API server writes there, too, what is applied now.
        let client_side = marks::last_applied(&self.object);
        let is_whole = captured.verb == Verb::Update;
        Write { before: &self.before, after: &self.after, sent, is_whole, keys }.carry(&mut self.object);
        if let Some(named) = named.filter(|_| !captured.is_apply()) {
            named::without_nulls(&mut self.object, named);
            overlay(&mut self.object, &kept(&cleaned(named), &self.after, keys), keys);
        }
        // Whoever sets a field has it from then on.
        for set in applied.values_mut() {
            *set = remembered::without(set, &differing);
        }
        if let Some(sent) = sent.filter(|_| captured.is_apply()) {
            let now = remembered::applied(sent);
            let earlier = remembered::read(&self.object).remove(&manager);
            // kubectl takes over what it has applied in the other way.
            let client_side = client_side.filter(|_| manager == KUBECTL);
            let earlier = earlier.or_else(|| Some(remembered::applied(&client_side?)));
            let earlier = earlier.unwrap_or_else(empty);
            let mut gone = remembered::without(&earlier, &now);
            let new = remembered::without(&now, &earlier);
            remembered::keep_others(&mut applied, &manager, &remembered::in_both(&new, &otherwise));
            for (other, set) in &applied {
                if *other != manager {
                    gone = remembered::without(&gone, set);
                }
            }
            remembered::take_out(&mut self.object, &gone);
            overlay(&mut self.object, &kept(&cleaned(sent), &self.after, keys), keys);
            applied.insert(manager, now);
        }
        remembered::write(&mut self.object, &applied);
        Ok(())
    }
}

/// What an API server says where several managers apply different values.
fn refuse_conflicts<'a>(
    differing: &Value,
    others: impl Iterator<Item = (&'a String, &'a Value)>,
) -> Result<(), Refusal> {
    let mut causes = Vec::new();
    for (other, set) in others {
        for field in remembered::common(set, differing) {
            let message = format!("conflict with \"{other}\"");
            causes.push(json!({"reason": "FieldManagerConflict", "message": message, "field": field}));
        }
    }
    if causes.is_empty() {
        return Ok(());
    }
    let text = |cause: &Value, field: &str| cause.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let list: Vec<_> =
        causes.iter().map(|cause| format!("{}: {}", text(cause, "message"), text(cause, "field"))).collect();
    let number = causes.len();
    let message =
        format!("Apply failed with {number} conflict{}: {}", if number == 1 { "" } else { "s" }, list.join("\n"));
    Err(Refusal { causes, ..Refusal::conflict(message) })
}

/// What whoever writes should know: the scope of the path is not that of the replicant.
pub(super) fn elsewhere(captured: &Captured, view: &ReplicantView) -> Vec<String> {
    let other = captured.scope.iter().filter(|scope| !scope::is_same(scope, &view.scope));
    let warning = |scope: &String| {
        format!("{} lives at {}, and not at {scope}: to move it, set its annotation {SCOPE}", view.id, view.scope)
    };
    other.map(warning).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use hyper::http::{HeaderMap, HeaderValue, Method, header};

    use super::super::capture::APPLY;
    use super::super::target::Target;

    use super::*;

    #[test]
    fn only_what_is_at_spec_replicas_is_scaled() {
        let with = |replicas: u64| json!({"spec": {"replicas": replicas}});
        assert_eq!(scaled(&with(1), &with(1), &with(3)).unwrap(), with(3));
        assert!(scaled(&with(1), &with(2), &with(3)).is_err(), "another field is scaled");
        assert!(scaled(&json!({"spec": {"size": 1}}), &with(1), &with(3)).is_err());
        let at = |version: &str| json!({"metadata": {"resourceVersion": version}});
        assert!(has_moved(&at("1"), &at("2")) && !has_moved(&at("1"), &at("1")));
    }

    #[test]
    fn what_was_asked_for_before_stays_when_it_is_applied_no_more() {
        let view: ReplicantView = serde_json::from_value(json!({
            "id": "web", "epoch": 0, "kind": "kubernetes", "scope": "paris", "placement": null, "policy": {},
            "desired": {}, "overrides": {}, "resolved": [], "operations": [], "deleted": null, "heads": [],
            "conflicts": 0, "status": "pending", "sites": {}, "bytes": 1, "warnings": [],
        }))
        .unwrap();
        let map =
            |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data});
        let mut object = map(json!({"a": "1"}));
        let mut apply = |data: Value, after: Value| {
            let sent = map(data);
            let captured = Captured {
                target: Target::read("/api/v1/namespaces/x/configmaps/a").unwrap().unwrap(),
                verb: Verb::Patch,
                method: Method::PATCH,
                query: "fieldManager=ci".into(),
                headers: HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(APPLY))]),
                scope: None,
                body: Bytes::from(sent.to_string()),
                place: Default::default(),
                begun: Default::default(),
            };
            let before = map(object["data"].clone());
            let mut changed = Changed { before, after: map(after), object: object.clone() };
            changed.carry(&captured, Some(&sent), None, &view).unwrap();
            object = changed.object;
            object["data"].clone()
        };
        let both = json!({"a": "1", "b": "2"});
        assert_eq!(apply(both.clone(), both.clone()), both);
        assert_eq!(apply(json!({"b": "2"}), both.clone()), both);
        assert_eq!(apply(json!({"c": "3"}), json!({"a": "1", "b": "2", "c": "3"})), json!({"a": "1", "c": "3"}));
    }

    #[test]
    fn conflicts_are_told_as_an_api_server_does() {
        let differing = json!({"f:spec": {"f:replicas": {}, "f:x": {}}});
        let applied = BTreeMap::from([("ci".to_owned(), json!({"f:spec": {"f:replicas": {}}}))]);
        let refusal = refuse_conflicts(&differing, applied.iter()).unwrap_err();
        assert_eq!(refusal.message, "Apply failed with 1 conflict: conflict with \"ci\": .spec.replicas");
        assert_eq!(refusal.causes.len(), 1);
        assert!(refuse_conflicts(&json!({"f:spec": {"f:x": {}}}), applied.iter()).is_ok());
    }
}
