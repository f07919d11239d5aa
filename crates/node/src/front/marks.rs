//! The annotations by which people say what they want, and are told how it is.

use khufu_crdt::SiteName;
use khufu_drivers::kubernetes::LABEL;
use serde_json::{Map, Value};

use super::difference::empty;

/// Where an object shall live.
pub(super) const SCOPE: &str = "khufu.dev/scope";
/// What the driver is told, as JSON.
pub(super) const OPTIONS: &str = "khufu.dev/options";
/// What is done about changes by hand.
pub(super) const DRIFT: &str = "khufu.dev/drift";
/// Where an object lives, how it is at each site, and altogether. Only shown, never kept.
pub(super) const LIVES_AT: &str = "khufu.dev/lives-at";
pub(super) const SITES: &str = "khufu.dev/sites";
pub(super) const STATUS: &str = "khufu.dev/status";
/// What `kubectl apply` has applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Where and when an object that somebody had removed past Khufu was asked for again: kept with the desired state.
const AGAIN: &str = "khufu.dev/made-again";
/// What all annotations of Khufu begin with.
const OURS: &str = "khufu.dev/";

/// An annotation of an object.
pub(super) fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.get("metadata")?.get("annotations")?.get(name)?.as_str()
}

/// What people have said, as annotations.
pub(super) fn said(object: &Value) -> Map<String, Value> {
    let names = [SCOPE, OPTIONS, DRIFT].into_iter();
    names.filter_map(|name| Some((name.to_owned(), annotation(object, name)?.into()))).collect()
}

/// What a write says that was not said before: in the object as it is there, where somebody may have written past Khufu with
/// fewer rights, or as it was kept, which clients send back.
pub(super) fn newly_said(after: &Value, before: &[&Value]) -> Map<String, Value> {
    let is_new = |name: &String| before.iter().all(|before| annotation(before, name) != annotation(after, name));
    said(after).into_iter().filter(|(name, _)| is_new(name)).collect()
}

/// What makes another edit of one that asks for nothing new.
pub(super) fn again(site: &SiteName) -> Map<String, Value> {
    let at = jiff::Timestamp::now();
    Map::from_iter([(AGAIN.to_owned(), format!("{site} {at}").into())])
}

/// What a merging patch takes back.
pub(super) fn unsaid(patch: &Value) -> Vec<&'static str> {
    let annotations = patch.pointer("/metadata/annotations");
    let is_null = |name: &&str| annotations.and_then(|all| all.get(*name)).is_some_and(Value::is_null);
    [SCOPE, OPTIONS, DRIFT].into_iter().filter(is_null).collect()
}

/// Leaves of what people have said in an object only this.
pub(super) fn say_only(object: &mut Value, said: &Map<String, Value>) {
    if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.retain(|name, _| ![SCOPE, OPTIONS, DRIFT].contains(&name.as_str()) || said.contains_key(name));
    }
}

/// What a write of a whole object takes back of what was said, by leaving it out.
pub(super) fn left_out(sent: &Value, kept: &Value) -> Vec<&'static str> {
    let has_mark = |name: &str| annotation(sent, name).is_some();
    // What was read in a watch has the driver's marks, and not what is only shown: nobody has left anything out.
    if has_mark(LABEL) && !has_mark(LIVES_AT) {
        return Vec::new();
    }
    [SCOPE, OPTIONS, DRIFT].into_iter().filter(|name| annotation(kept, name).is_some() && !has_mark(name)).collect()
}

/// What was said in an object as it was kept, and is not in it any more.
pub(super) fn no_more(object: &Value, kept: &Value) -> Vec<&'static str> {
    let [now, before] = [object, kept].map(|object| move |name: &&str| annotation(object, name).is_some());
    [SCOPE, OPTIONS, DRIFT].into_iter().filter(|name| before(name) && !now(name)).collect()
}

/// Gives an object those marks of Khufu that another has, and no others.
pub(super) fn as_in(object: &mut Value, other: &Value) {
    for field in ["labels", "annotations"] {
        let of = |object: &Value| object.pointer(&format!("/metadata/{field}")).and_then(Value::as_object).cloned();
        let mut all = of(object).unwrap_or_default();
        all.retain(|name, _| !name.starts_with(OURS));
        all.extend(of(other).unwrap_or_default().into_iter().filter(|(name, _)| name.starts_with(OURS)));
        let metadata = object.as_object_mut().map(|fields| fields.entry("metadata").or_insert_with(empty));
        if let Some(metadata) = metadata.and_then(Value::as_object_mut) {
            metadata.insert(field.to_owned(), Value::Object(all));
        }
    }
}

/// Takes annotations away.
pub(super) fn take_away(object: &mut Value, names: &[&str]) {
    if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.retain(|name, _| !names.contains(&name.as_str()));
    }
}

/// Adds annotations.
pub(super) fn annotate(object: &mut Value, more: Map<String, Value>) {
    if more.is_empty() {
        return;
    }
    let Some(object) = object.as_object_mut() else { return };
    let Some(metadata) = object.entry("metadata").or_insert_with(empty).as_object_mut() else { return };
    let annotations = metadata.entry("annotations").or_insert_with(empty);
    if annotations.is_null() {
        *annotations = empty();
    }
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.extend(more);
    }
}

/// An object without what is only shown.
pub(super) fn without_shown(object: &mut Value) {
    let annotations = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
    if let Some(annotations) = annotations {
        annotations.retain(|name, _| name != SITES && name != STATUS && name != LIVES_AT);
    }
}

/// Takes out of what `kubectl` says that was applied last what only the front shows, and what the driver has written:
/// `kubectl replace` puts all of the object there.
pub(super) fn tidy(object: &mut Value) {
    let Some(mut applied) = last_applied(object) else { return };
    let before = applied.clone();
    let kept = [SCOPE, OPTIONS, DRIFT];
    for marks in ["/metadata/annotations", "/metadata/labels"] {
        if let Some(marks) = applied.pointer_mut(marks).and_then(Value::as_object_mut) {
            marks.retain(|name, _| !name.starts_with(OURS) || kept.contains(&name.as_str()));
        }
    }
    if applied != before
        && let Some(annotation) = object.pointer_mut("/metadata/annotations").and_then(|all| all.get_mut(LAST_APPLIED))
    {
        *annotation = format!("{applied}\n").into();
    }
}

/// Whether a text may have one of Khufu's annotations: looked at before it is read.
pub(super) fn may_be_in(text: &[u8]) -> bool {
    // In a JSON patch the slash is written in another way.
    let begin = OURS.trim_end_matches('/').as_bytes();
    text.windows(begin.len()).any(|window| window == begin)
}

/// An object without Khufu's marks, to be compared with another: one that has no other marks is not one that has none.
pub(super) fn others_own(object: &Value) -> Value {
    let mut object = khufu_drivers::kubernetes::cleaned(object);
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["labels", "annotations"] {
            metadata.entry(field).or_insert_with(empty);
        }
    }
    object
}

/// What `kubectl apply` has applied last, if it has.
pub(super) fn last_applied(object: &Value) -> Option<Value> {
    serde_json::from_str(annotation(object, LAST_APPLIED)?).ok().filter(Value::is_object)
}

/// Whether an object is what helm keeps for itself: a Secret, or a ConfigMap where it is told so, for each release and revision.
/// It says what this helm has done here, and all values are in it.
pub(super) fn is_helms_own(object: &Value) -> bool {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    match text("/kind") {
        "Secret" => text("/type") == "helm.sh/release.v1",
        "ConfigMap" => {
            text("/metadata/labels/owner") == "helm" && text("/metadata/name").starts_with("sh.helm.release.v1.")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn annotations_are_added_and_what_is_shown_is_taken_out() {
        let mut object = json!({"metadata": {"annotations": null}});
        annotate(&mut object, Map::from_iter([(SITES.to_owned(), json!("{}")), (SCOPE.to_owned(), json!("all"))]));
        assert_eq!(annotation(&object, SITES), Some("{}"));
        without_shown(&mut object);
        assert_eq!(object["metadata"]["annotations"], json!({SCOPE: "all"}));
        assert_eq!(said(&object), Map::from_iter([(SCOPE.to_owned(), json!("all"))]));
    }

    #[test]
    fn what_was_applied_last_has_nothing_that_is_only_shown() {
        let applied =
            json!({"metadata": {"annotations": {SITES: "{}", SCOPE: "all"}, "labels": {"khufu.dev/replicant": "x"}}});
        let mut object = json!({"metadata": {"annotations": {LAST_APPLIED: applied.to_string()}}});
        tidy(&mut object);
        let tidied = json!({"metadata": {"annotations": {SCOPE: "all"}, "labels": {}}});
        assert_eq!(last_applied(&object), Some(tidied));
        let as_it_is = json!({"metadata": {"annotations": {LAST_APPLIED: "{ }"}}});
        object = as_it_is.clone();
        tidy(&mut object);
        assert_eq!(object, as_it_is);
    }

    #[test]
    fn only_what_a_write_says_anew_counts() {
        let object = |annotations: Value| json!({"metadata": {"annotations": annotations}});
        let after = object(json!({SCOPE: "a", OPTIONS: "{}", DRIFT: "correct", "x": "y"}));
        let new = |live: Value, stored: Value| newly_said(&after, &[&object(live), &object(stored)]);
        assert_eq!(new(json!({}), json!({})), said(&after));
        let of_others = new(json!({OPTIONS: "{}"}), json!({SCOPE: "a"}));
        assert_eq!(of_others, Map::from_iter([(DRIFT.to_owned(), json!("correct"))]));
        assert_eq!(unsaid(&object(json!({OPTIONS: null, SCOPE: "a", "x": null}))), [OPTIONS]);
        let mut kept = after.clone();
        say_only(&mut kept, &of_others);
        assert_eq!(kept, object(json!({DRIFT: "correct", "x": "y"})));
        take_away(&mut kept, &[DRIFT]);
        assert_eq!(kept, object(json!({"x": "y"})));
    }

    #[test]
    fn what_a_whole_object_leaves_out_is_taken_back_unless_it_was_never_seen() {
        let object = |annotations: Value| json!({"metadata": {"annotations": annotations, "labels": {LABEL: "x"}}});
        let kept = object(json!({OPTIONS: "{}", SCOPE: "all"}));
        let left_out = |annotations: Value| left_out(&object(annotations), &kept);
        assert_eq!(left_out(json!({SCOPE: "all"})), [OPTIONS], "a manifest");
        assert_eq!(left_out(json!({LABEL: "web", LIVES_AT: "all", OPTIONS: "{}"})), [SCOPE], "it was shown");
        assert_eq!(left_out(json!({LABEL: "web"})), [""; 0], "it was read in a watch");
        let mut other = object(json!({"a": "b", SITES: "{}"}));
        as_in(&mut other, &object(json!({LABEL: "web"})));
        assert_eq!(other, object(json!({"a": "b", LABEL: "web"})));
    }

    #[test]
    fn what_helm_keeps_for_itself_is_known() {
        let own = |kind: &str, of: &str, name: &str| {
            is_helms_own(&json!({"kind": kind, "type": of, "metadata": {"name": name, "labels": {"owner": "helm"}}}))
        };
        let name = "sh.helm.release.v1.web.v1";
        assert!(own("Secret", "helm.sh/release.v1", name) && own("ConfigMap", "", name));
        assert!(!own("Secret", "Opaque", name) && !own("ConfigMap", "", "web") && !own("Service", "", name));
    }

    #[test]
    fn annotations_are_seen_also_in_a_json_patch() {
        assert!(may_be_in(b"[{\"op\": \"add\", \"path\": \"/metadata/annotations/khufu.dev~1scope\"}]"));
        assert!(!may_be_in(b"khufu"));
    }
}
