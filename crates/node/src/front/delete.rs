//! Deletions: a replicant of one object goes at all sites, an object of one of several is not asked for any more.

use hyper::Response;
use hyper::body::Bytes;
use hyper::http::{Method, StatusCode};
use khufu_drivers::kubernetes::owner;
use khufu_engine::{Put, Request, Response as Answered};
use serde_json::{Map, Value, json};

use super::answer::{Body, Refusal};
use super::capture::{Captured, json_type};
use super::here::{Here, Own};
use super::marks;
use super::place::{Named, Place};
use super::settled::{Settled, now_ms};
use super::target::{Target, is_true, parameters, with_parameter};
use super::upstream::{Answer, Question};
use super::{Front, annotate, protobuf, who};

/// The most objects that are deleted one by one for one request.
const MAX_OBJECTS: usize = 10_000;

/// How often it is tried again where somebody else has edited the replicant in between.
const TRIES: usize = 5;

/// One object.
pub(super) async fn delete(front: &Front, captured: &Captured) -> Result<Response<Body>, Refusal> {
    let read = front.read(captured, captured.target.path.clone()).await?;
    let live = match read.status {
        status if status.is_success() => read.json(),
        StatusCode::NOT_FOUND => return front.pass_on(captured).await,
        StatusCode::FORBIDDEN => return unseen(front, captured).await,
        _ => return Ok(read.pass()),
    };
    let own = match front.here(&live).await? {
        Here::Of(own) if !marks::is_helms_own(&live) => own,
        _ => return front.pass_on(captured).await,
    };
    let said = Said::read(captured)?;
    let tried = said.tried(front, captured).await?;
    if !tried.status.is_success() || said.is_dry() {
        return Ok(tried.pass());
    }
    said.is_possible(&own)?;
    remove(front, captured, &said, &captured.target.path, &live, *own).await?;
    if stays(front, captured, &captured.target.path, &live).await? {
        // It was there before, or is to be kept elsewhere. Here somebody wants it gone.
        let answer = said.here(front, captured, captured.target.path.clone(), &live).await?;
        return Ok(if answer.status == StatusCode::NOT_FOUND { tried.pass() } else { answer.pass() });
    }
    Ok(tried.pass())
}

/// What is said of a deletion besides that it is one: in its body, or if that is empty, in its query.
#[derive(Debug)]
struct Said(Map<String, Value>);

fn plain() -> Map<String, Value> {
    Map::from_iter([("apiVersion".to_owned(), json!("v1")), ("kind".to_owned(), json!("DeleteOptions"))])
}

impl Said {
    fn read(captured: &Captured) -> Result<Self, Refusal> {
        if !captured.body.is_empty() {
            if captured.content_type() == protobuf::PROTOBUF {
                let wrong = || Refusal::bad_request("the options of the deletion cannot be read as protobuf");
                return protobuf::delete_options(&captured.body).map(Self).ok_or_else(wrong);
            }
            return match captured.sent()? {
                Some(Value::Object(options)) => Ok(Self(options)),
                Some(_) => Err(Refusal::bad_request("a deletion is told its options as an object")),
                None => {
                    let words =
                        "the options of a deletion of what is a replicant's are read as JSON, YAML or protobuf only";
                    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", words))
                }
            };
        }
        let mut options = plain();
        let one = |name| parameters(&captured.query, name).next().filter(|value| !value.is_empty());
        if let Some(policy) = one("propagationPolicy") {
            options.insert("propagationPolicy".to_owned(), policy.into());
        }
        if let Some(text) = one("orphanDependents") {
            options.insert("orphanDependents".to_owned(), is_true(&text).into());
        }
        if let Some(text) = one("gracePeriodSeconds") {
            // Where it is wrong, the API server says so.
            let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
            options.insert("gracePeriodSeconds".to_owned(), value);
        }
        let dry: Vec<_> = parameters(&captured.query, "dryRun").filter(|value| !value.is_empty()).collect();
        if !dry.is_empty() {
            options.insert("dryRun".to_owned(), dry.into());
        }
        Ok(Self(options))
    }

    /// Whether it is only to be tried.
    fn is_dry(&self) -> bool {
        self.0.get("dryRun").is_some_and(|dry| !dry.is_null() && *dry != json!([]))
    }

    /// What becomes of its dependents, as the driver calls it.
    fn propagation(&self) -> Option<String> {
        match self.0.get("orphanDependents").and_then(Value::as_bool) {
            Some(true) => Some("orphan".to_owned()),
            Some(false) => Some("background".to_owned()),
            None => self.0.get("propagationPolicy").and_then(Value::as_str).map(str::to_lowercase),
        }
    }

    /// Refuses to have the dependents of one of several objects stay: the policy that says so is of all.
    fn is_possible(&self, Own { view, place }: &Own) -> Result<(), Refusal> {
        let orphans = |propagation: Option<&str>| propagation == Some("orphan");
        let is_so = orphans(view.policy.options.get("propagation").and_then(Value::as_str));
        if *place == Place::All || is_so || !orphans(self.propagation().as_deref()) {
            return Ok(());
        }
        Err(Refusal::invalid(format!(
            "the replicant {} is of several objects, and its policy does not let their dependents stay: delete the object with \
             them, or set the option \"propagation\" of the replicant to \"orphan\" with khufu",
            view.id
        )))
    }

    /// Has the API server try it.
    async fn tried(&self, front: &Front, captured: &Captured) -> Result<Answer, Refusal> {
        let mut options = self.0.clone();
        if !self.is_dry() {
            options.insert("dryRun".to_owned(), json!(["All"]));
        }
        ask(front, captured, captured.path(&with_parameter(&captured.query, "dryRun", "All")), options).await
    }

    /// Deletes an object in this cluster, with the rights of whoever asks.
    async fn here(&self, front: &Front, captured: &Captured, path: String, live: &Value) -> Result<Answer, Refusal> {
        ask(front, captured, path, self.of(live)).await
    }

    /// The options for an object: it, and none that is made in its place. That its version is the wanted one was seen before.
    fn of(&self, live: &Value) -> Map<String, Value> {
        let mut options = self.0.clone();
        if let Some(uid) = live.pointer("/metadata/uid") {
            options.insert("preconditions".to_owned(), json!({"uid": uid}));
        }
        options
    }
}

/// Asks the API server for a deletion.
async fn ask(front: &Front, captured: &Captured, path: String, options: Map<String, Value>) -> Result<Answer, Refusal> {
    let question = Question {
        method: Method::DELETE,
        path,
        from: &captured.headers,
        body: Some((json_type(), Bytes::from(Value::Object(options).to_string()))),
        accept: None,
    };
    front.upstream.ask(question).await
}

/// What the API server says to whoever may not delete an object; nothing if he may.
pub(super) async fn forbidden(
    front: &Front,
    captured: &Captured,
    path: &str,
) -> Result<Option<Response<Body>>, Refusal> {
    let mut options = plain();
    options.insert("dryRun".to_owned(), json!(["All"]));
    let tried = ask(front, captured, format!("{path}?dryRun=All"), options).await?;
    let may = tried.status.is_success() || tried.status == StatusCode::NOT_FOUND;
    Ok((!may).then(|| tried.pass()))
}

/// An object that whoever asks may delete and not read.
async fn unseen(front: &Front, captured: &Captured) -> Result<Response<Body>, Refusal> {
    let said = Said::read(captured)?;
    let tried = said.tried(front, captured).await?;
    if !tried.status.is_success() || said.is_dry() {
        return Ok(tried.pass());
    }
    let object = tried.json();
    if Named::of(&object).is_some() && object.get("kind") != Some(&json!("Status")) && owner(&object).is_none() {
        return front.pass_on(captured).await;
    }
    Err(Refusal::forbidden("to delete what may be of a replicant takes the right to read it (get), too"))
}

/// Whether an object is there still, and nobody is about to remove it.
async fn stays(front: &Front, captured: &Captured, path: &str, live: &Value) -> Result<bool, Refusal> {
    let read = front.read(captured, path.to_owned()).await?;
    if read.status == StatusCode::NOT_FOUND {
        return Ok(false);
    }
    if !read.status.is_success() {
        return Err(Refusal::unavailable(format!("it says {}", read.status)));
    }
    let now = read.json();
    let same = now.pointer("/metadata/uid") == live.pointer("/metadata/uid");
    let going = now.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null());
    Ok(same && !going)
}

/// An object that is to go.
pub(super) struct Going<'a> {
    captured: &'a Captured,
    path: &'a str,
    live: &'a Value,
}

impl Going<'_> {
    /// Whether it has gone, or goes.
    pub(super) async fn is_gone(&self, front: &Front) -> bool {
        !stays(front, self.captured, self.path, self.live).await.unwrap_or(true)
    }
}

/// Has an object removed at all sites, and waits until it goes here.
async fn remove(
    front: &Front,
    captured: &Captured,
    said: &Said,
    path: &str,
    live: &Value,
    mut own: Own,
) -> Result<(), Refusal> {
    let who = who::of(front, &captured.headers).await;
    captured.begun.begin()?;
    let (events, since) = (front.handle.follow(None), now_ms());
    let mut tries = 0;
    while let Err(refusal) = ask_for(front, &who, said, &own).await {
        tries += 1;
        if refusal.code != StatusCode::CONFLICT || tries == TRIES {
            return Err(refusal);
        }
        // Somebody else has edited it, or deleted it.
        let Here::Of(newer) = front.here(live).await? else { break };
        own = *newer;
        said.is_possible(&own)?;
    }
    captured.leave_place();
    match front.settled(&own.view.id, events, since, Some(Going { captured, path, live })).await? {
        Settled::Applied | Settled::Elsewhere => Ok(()),
        Settled::Failed(words) => Err(Refusal::of_driver(&words, "the deletion is kept, and goes on")),
        Settled::Late(words) => {
            let message = format!("the deletion is kept, and has not come to an end here yet: {words}");
            Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message))
        }
    }
}

/// Asks for an object no more: a conflict if its replicant is not as it was read.
async fn ask_for(front: &Front, who: &str, said: &Said, Own { view, place }: &Own) -> Result<(), Refusal> {
    let mut desired = view.desired.clone();
    let rest = *place != Place::All && place.take(&mut desired);
    let mut policy = view.policy.clone();
    if let Some(wanted) =
        said.propagation().filter(|wanted| *wanted != "background" || policy.options.contains_key("propagation"))
    {
        policy.options.insert("propagation".to_owned(), wanted.into());
    }
    // It is of other objects, too, while there are any.
    let policy = (policy != view.policy && !rest).then_some(policy);
    let put = |desired| Put {
        id: view.id.clone(),
        kind: None,
        scope: None,
        policy: policy.clone(),
        desired,
        overrides: None,
        base: Some(view.heads.clone()),
    };
    if rest {
        front.handle.request(who.to_owned(), Request::Put(put(Some(desired)))).await?;
        return Ok(());
    }
    let mut heads = view.heads.clone();
    if policy.is_some()
        && let Answered::Replicant(now) = front.handle.request(who.to_owned(), Request::Put(put(None))).await?
    {
        if now.desired != view.desired {
            return Err(Refusal::conflict(format!("{} has been edited since it was read", view.id)));
        }
        heads = now.heads;
    }
    // It may have become several objects by now.
    let delete = Request::Delete { id: view.id.clone(), keep: false, base: Some(heads) };
    front.handle.request(who.to_owned(), delete).await?;
    Ok(())
}

/// All objects of a kind, or those that are selected.
pub(super) async fn delete_all(front: &Front, captured: &Captured) -> Result<Response<Body>, Refusal> {
    let selected = ["labelSelector", "fieldSelector"].into_iter().filter_map(|name| {
        let value = parameters(&captured.query, name).next()?;
        Some((name, value))
    });
    let query = selected.fold(String::new(), |query, (name, value)| with_parameter(&query, name, &value));
    let read = front.read(captured, captured.path(&query)).await?;
    if !read.status.is_success() {
        // Whoever may not list cannot be told what of it is whose.
        return Ok(read.pass());
    }
    let ours: Vec<Value> = objects(&read.json()).into_iter().filter(has_label).collect();
    if ours.is_empty() {
        return front.pass_on(captured).await;
    }
    if ours.len() > MAX_OBJECTS {
        let message = format!("{} objects of replicants: at most {MAX_OBJECTS} are deleted at once", ours.len());
        return Err(Refusal::too_large(message));
    }
    let asks = |name| parameters(&captured.query, name).any(|value| !matches!(value.as_str(), "" | "0"));
    if asks("limit") || asks("continue") {
        let words = "there are objects of replicants among them, and those are not deleted in parts: leave out limit and continue";
        return Err(Refusal::bad_request(words));
    }
    let said = Said::read(captured)?;
    let tried = said.tried(front, captured).await?;
    if !tried.status.is_success() || said.is_dry() {
        return Ok(tried.pass());
    }
    for listed in &ours {
        // Before anything is deleted.
        if let Here::Of(own) = front.here(listed).await? {
            said.is_possible(&own)?;
        }
    }
    for listed in &ours {
        let Some(named) = Named::of(listed) else { continue };
        if let Some(refused) = delete_listed(front, captured, &said, listed, named).await? {
            return Ok(refused);
        }
        captured.begun.end()?;
    }
    let others = format!("!{}", khufu_drivers::kubernetes::LABEL);
    let selector = match parameters(&captured.query, "labelSelector").next().filter(|selector| !selector.is_empty()) {
        Some(selector) => format!("{selector},{others}"),
        None => others,
    };
    front.pass_body(captured, &with_parameter(&captured.query, "labelSelector", &selector), captured.body.clone()).await
}

/// One of the objects of a list, in its turn: as it is then, and unless another has taken its place. What the API server says
/// if it refuses.
async fn delete_listed(
    front: &Front,
    captured: &Captured,
    said: &Said,
    listed: &Value,
    named: Named<'_>,
) -> Result<Option<Response<Body>>, Refusal> {
    let path = path_of(&captured.target, named);
    let target = Target { name: Some(named.name.to_owned()), ..captured.target.clone() };
    let target = Target { namespace: Some(named.namespace.to_owned()).filter(|name| !name.is_empty()), ..target };
    let _turn = match target.turn() {
        Some(object) => Some(front.turns.take(object).await?),
        None => None,
    };
    let read = front.read(captured, path.clone()).await?;
    match read.status {
        StatusCode::NOT_FOUND => return Ok(None),
        status if !status.is_success() => return Ok(Some(read.pass())),
        _ => {}
    }
    let live = &read.json();
    if live.pointer("/metadata/uid") != listed.pointer("/metadata/uid") {
        return Ok(None);
    }
    // A copy has the label, and is nobody's.
    if let Here::Of(own) = front.here(live).await? {
        said.is_possible(&own)?;
        remove(front, captured, said, &path, live, *own).await?;
    }
    if stays(front, captured, &path, live).await? {
        let answer = said.here(front, captured, path, live).await?;
        if !answer.status.is_success() && answer.status != StatusCode::NOT_FOUND {
            return Ok(Some(answer.pass()));
        }
    }
    Ok(None)
}

fn has_label(object: &Value) -> bool {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    labels.is_some_and(|labels| labels.contains_key(khufu_drivers::kubernetes::LABEL))
}

/// The objects of a list, each with what it is.
fn objects(list: &Value) -> Vec<Value> {
    let Some((version, kind)) = annotate::kind_of_items(list) else { return Vec::new() };
    let items = list.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let named = items.into_iter().map(|mut item| {
        if let Some(fields) = item.as_object_mut() {
            fields.insert("apiVersion".to_owned(), version.clone().into());
            fields.insert("kind".to_owned(), kind.clone().into());
        }
        item
    });
    named.collect()
}

/// Where an object of a kind is, in the version in which all of it were asked for.
fn path_of(target: &Target, named: Named<'_>) -> String {
    let text = |text| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    let begin = if target.group.is_empty() {
        format!("/api/{}", target.version)
    } else {
        format!("/apis/{}/{}", target.group, target.version)
    };
    let namespace =
        if named.namespace.is_empty() { String::new() } else { format!("/namespaces/{}", text(named.namespace)) };
    format!("{begin}{namespace}/{}/{}", target.resource, text(named.name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hyper::http::{HeaderMap, HeaderValue};

    use super::super::target::Verb;
    use super::*;

    fn captured(query: &str, body: &str) -> Captured {
        let target = Target::read("/apis/apps/v1/namespaces/shop/deployments").unwrap().unwrap();
        let (headers, body) = (HeaderMap::new(), Bytes::from(body.to_owned()));
        Captured {
            target,
            verb: Verb::DeleteAll,
            method: Method::DELETE,
            query: query.into(),
            headers,
            scope: None,
            body,
            place: Default::default(),
            begun: Default::default(),
        }
    }

    #[test]
    fn what_is_said_of_a_deletion_is_in_its_body_or_in_its_query() {
        let read = |query, body| Said::read(&captured(query, body)).unwrap();
        let of = |query, body| read(query, body).propagation();
        assert_eq!(of("propagationPolicy=Orphan", "").as_deref(), Some("orphan"));
        let foreground = "{\"propagationPolicy\":\"Foreground\"}";
        assert_eq!(of("propagationPolicy=Orphan", foreground).as_deref(), Some("foreground"));
        assert_eq!(of("", ""), None);
        assert_eq!(of("", "{\"orphanDependents\":true}").as_deref(), Some("orphan"));
        assert_eq!(of("orphanDependents=true", "").as_deref(), Some("orphan"));
        assert!(read("", "{\"dryRun\":[\"All\"]}").is_dry() && read("dryRun=All", "").is_dry());
        assert!(!read("dryRun=All", foreground).is_dry(), "an API server does not read the query then");
        let with_uid = read("", foreground).of(&json!({"metadata": {"uid": "1"}}));
        assert_eq!(Value::Object(with_uid), json!({"propagationPolicy": "Foreground", "preconditions": {"uid": "1"}}));
    }

    #[test]
    fn dependents_of_one_of_several_objects_stay_only_if_the_policy_says_so() {
        let of = |place: Place, options: Value, query: &str| {
            let view = serde_json::from_value(json!({
                "id": "web", "epoch": 0, "kind": "kubernetes", "scope": "paris", "placement": null, "policy": {"options": options},
                "desired": {}, "overrides": {}, "resolved": [], "operations": [], "deleted": null, "heads": [],
                "conflicts": 0, "status": "pending", "sites": {}, "bytes": 1, "warnings": [],
            }));
            let own = Own { view: std::sync::Arc::new(view.unwrap()), place };
            Said::read(&captured(query, "")).unwrap().is_possible(&own).map_err(|refusal| refusal.code.as_u16())
        };
        let (one, orphan) = (|| Place::Named("a".to_owned()), "propagationPolicy=Orphan");
        assert_eq!(of(one(), json!({}), orphan), Err(422));
        assert_eq!(of(one(), json!({}), "propagationPolicy=Background"), Ok(()));
        assert_eq!(of(one(), json!({"propagation": "orphan"}), orphan), Ok(()));
        assert_eq!(of(Place::All, json!({}), orphan), Ok(()));
    }

    #[test]
    fn what_is_said_of_a_deletion_and_cannot_be_read_is_refused() {
        let refused = |body: &str, kind: &'static str| {
            let mut captured = captured("", body);
            captured.headers.insert("content-type", HeaderValue::from_static(kind));
            Said::read(&captured).unwrap_err().code.as_u16()
        };
        assert_eq!(refused("k8s", "application/cbor"), 415);
        assert_eq!(refused("k8s", protobuf::PROTOBUF), 400);
        assert_eq!(refused("{", "application/json"), 400);
        assert_eq!(refused("[]", "application/json"), 400);
    }

    #[test]
    fn the_objects_of_a_list_are_found_again() {
        let list = json!({"kind": "DeploymentList", "apiVersion": "apps/v1", "items": [
            {"metadata": {"name": "web", "namespace": "shop", "labels": {khufu_drivers::kubernetes::LABEL: "x"}}},
            {"metadata": {"name": "other", "namespace": "shop"}}]});
        let all = objects(&list);
        assert_eq!(all.iter().map(has_label).collect::<Vec<_>>(), [true, false]);
        let path = path_of(&captured("", "").target, Named::of(&all[0]).unwrap());
        assert_eq!(path, "/apis/apps/v1/namespaces/shop/deployments/web");
    }
}
