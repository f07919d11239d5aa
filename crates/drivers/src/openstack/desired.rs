//! What a desired state asks for: one resource, or several with names, in the words of the APIs.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use khufu_crdt::ReplicantId;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::kinds::{KINDS, Kind};
use super::mark;
use super::options::{Options, Secrets};
use crate::DriverError;

/// The most resources of one replicant.
const MAX_RESOURCES: usize = 100;
/// The most bytes of an image that can stand in a desired state.
pub(super) const MAX_DATA_BYTES: usize = 1 << 20;
/// The longest name of a resource.
const MAX_NAME_BYTES: usize = 100;

/// A resource that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Resource {
    /// What the replicant calls it; empty if it has only one.
    pub(super) name: String,
    pub(super) kind: &'static Kind,
    /// The fields, with references as they are written.
    pub(super) fields: Map<String, Value>,
    /// What stands beside it in the request that makes it, such as `os:scheduler_hints`.
    pub(super) beside: Map<String, Value>,
    /// What has to be there before.
    pub(super) after: Vec<Reference>,
    /// The data of an image.
    pub(super) data: Option<Vec<u8>>,
}

/// What a reference names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum To {
    /// A resource of the same replicant.
    Own(String),
    /// A resource of another replicant.
    Other(ReplicantId, String),
    /// What is called so at the site, whoever made it.
    Called(String),
}

/// A reference, and the kind of what it names.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reference {
    pub(super) to: To,
    pub(super) kind: &'static Kind,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(rename = "$ref", default)]
    of: Option<String>,
    #[serde(rename = "$name", default)]
    called: Option<String>,
    #[serde(default)]
    kind: Option<String>,
}

fn invalid(field: impl Into<String>, reason: impl Into<String>) -> DriverError {
    DriverError::invalid(field, reason)
}

fn all_kinds() -> String {
    KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ")
}

/// Whether a map is a reference.
pub(super) fn is_reference(value: &Value) -> bool {
    value.as_object().is_some_and(|map| map.contains_key("$ref") || map.contains_key("$name"))
}

fn is_name(name: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.chars().all(plain)
}

/// What the desired state of a replicant asks for, in the order in which it is made.
///
/// # Errors
/// [`DriverError::Invalid`] names what is not understood.
pub(super) fn resources(desired: &Value, options: &Options) -> Result<Vec<Resource>, DriverError> {
    let whole =
        desired.as_object().ok_or_else(|| invalid("desired", "a map is wanted, such as {network: {name: shop}}"))?;
    let named: Vec<(String, &Value)> = match whole.get("resources") {
        None => vec![(String::new(), desired)],
        Some(Value::Object(resources)) if whole.len() == 1 => {
            resources.iter().map(|(name, resource)| (name.clone(), resource)).collect()
        }
        Some(_) => return Err(invalid("desired.resources", "it is the only field, and a map of resources with names")),
    };
    if named.len() > MAX_RESOURCES {
        return Err(invalid("desired.resources", format!("a replicant has at most {MAX_RESOURCES}: make several")));
    }
    let mut kinds = BTreeMap::new();
    for (name, resource) in &named {
        if !name.is_empty() && !is_name(name) {
            let reason = format!("a name has letters, digits and -_., and at most {MAX_NAME_BYTES} of them");
            return Err(invalid(format!("desired.resources.{name:?}"), reason));
        }
        kinds.insert(name.clone(), kind(name, resource)?);
    }
    let mut all = Vec::new();
    for (name, resource) in named {
        all.push(read(name, resource, &kinds, options)?);
    }
    in_order(all)
}

fn place(name: &str) -> String {
    if name.is_empty() { "desired".to_owned() } else { format!("desired.resources.{name}") }
}

fn kind(name: &str, resource: &Value) -> Result<&'static Kind, DriverError> {
    let keys = resource.as_object().into_iter().flat_map(Map::keys);
    let mut found = keys.filter_map(|key| Kind::named(key));
    match (found.next(), found.next()) {
        (Some(kind), None) => Ok(kind),
        (None, _) => Err(invalid(place(name), format!("it names no kind of resources: there are {}", all_kinds()))),
        (Some(_), Some(_)) => {
            Err(invalid(place(name), "it is of one kind only: put several under `resources`, with names"))
        }
    }
}

type Kinds = BTreeMap<String, &'static Kind>;

fn read(name: String, resource: &Value, kinds: &Kinds, options: &Options) -> Result<Resource, DriverError> {
    let place = place(&name);
    let kind = kind(&name, resource)?;
    let mut beside = resource.as_object().cloned().unwrap_or_default();
    let Some(Value::Object(mut fields)) = beside.remove(kind.name) else {
        return Err(invalid(format!("{place}.{}", kind.name), "a map of its fields is wanted"));
    };
    let after = match beside.remove("after") {
        None => Vec::new(),
        Some(Value::Array(after)) => after
            .iter()
            .map(|value| reference("after", value, kind, kinds))
            .collect::<Result<_, _>>()
            .map_err(|reason| invalid(format!("{place}.after"), reason))?,
        Some(_) => return Err(invalid(format!("{place}.after"), "a list of references is wanted")),
    };
    if let Some(key) = beside.keys().find(|key| !key.contains(':')) {
        return Err(invalid(format!("{place}.{key}"), "is not known here: fields stand below the kind"));
    }
    let place = format!("{place}.{}", kind.name);
    if let Some(field) = mark::field(kind).filter(|field| fields.contains_key(*field)) {
        return Err(invalid(format!("{place}.{field}"), "is where Khufu notes whose the resource is: leave it out"));
    }
    if let Some(field) = kind.copies.iter().find(|field| fields.contains_key(**field)) {
        return Err(invalid(format!("{place}.{field}"), "is what tells a copy that a service has made: leave it out"));
    }
    if let Some(secret) = kind.secret.iter().find(|secret| fields.contains_key(**secret))
        && options.secrets == Secrets::Refuse
    {
        let reason = "is stored at all sites of the scope, and in their histories: allow it with the policy option \
                      \"secrets\": \"allow\"";
        return Err(invalid(format!("{place}.{secret}"), reason));
    }
    if kind.mark == super::kinds::Mark::Name && fields.get("name").and_then(Value::as_str).is_none_or(str::is_empty) {
        return Err(invalid(format!("{place}.name"), "is missing"));
    }
    let data = match fields.remove("data") {
        Some(data) if kind.name == "image" => {
            Some(inline(&data).map_err(|reason| invalid(format!("{place}.data"), reason))?)
        }
        Some(data) => {
            fields.insert("data".into(), data);
            None
        }
        None => None,
    };
    each(&fields, &mut |field, value| reference(field, value, kind, kinds).map(drop))
        .map_err(|(field, reason)| invalid(format!("{place}.{field}"), reason))?;
    Ok(Resource { name, kind, fields, beside, after, data })
}

/// The data of an image that stand in a desired state.
fn inline(data: &Value) -> Result<Vec<u8>, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inline {
        base64: String,
    }
    let Inline { base64 } =
        Inline::deserialize(data).map_err(|error| format!("{error}: {{base64: TEXT}} is wanted"))?;
    if base64.len() / 4 * 3 > MAX_DATA_BYTES + 3 {
        return Err(format!(
            "at most {MAX_DATA_BYTES} bytes stand in a desired state: give larger data to Glance at each site"
        ));
    }
    STANDARD.decode(&base64).map_err(|error| format!("this is no base64: {error}"))
}

/// Calls for each reference in a value, with the field that it is in.
fn each<E>(
    fields: &Map<String, Value>,
    call: &mut impl FnMut(&str, &Value) -> Result<(), E>,
) -> Result<(), (String, E)> {
    fn below<E>(
        field: &str,
        value: &Value,
        call: &mut impl FnMut(&str, &Value) -> Result<(), E>,
    ) -> Result<(), (String, E)> {
        match value {
            value if is_reference(value) => call(field, value).map_err(|error| (field.to_owned(), error)),
            Value::Object(map) => each(map, call),
            Value::Array(list) => list.iter().try_for_each(|value| below(field, value, call)),
            _ => Ok(()),
        }
    }
    fields.iter().try_for_each(|(field, value)| below(field, value, call))
}

/// What a reference in a field means, or why it means nothing.
fn reference(field: &str, value: &Value, within: &Kind, kinds: &Kinds) -> Result<Reference, String> {
    let written = Written::deserialize(value).map_err(|error| format!("{error}: {{$ref: RESOURCE}} is wanted"))?;
    let said = match &written.kind {
        Some(name) => Some(Kind::named(name).ok_or_else(|| format!("{name:?} is no kind: there are {}", all_kinds()))?),
        None => None,
    };
    let known = || {
        let kind = said.or_else(|| within.referred(field));
        kind.ok_or_else(|| "say of which kind it is: {$ref: RESOURCE, kind: KIND}".to_owned())
    };
    match (&written.of, &written.called) {
        (Some(of), None) => {
            if let Some(kind) = kinds.get(of).filter(|_| !of.is_empty()) {
                return Ok(Reference { to: To::Own(of.clone()), kind });
            }
            let (replicant, name) = of.split_once('/').unwrap_or((of, ""));
            let replicant = replicant.parse().map_err(|error| format!("{replicant:?} is no replicant: {error}"))?;
            if !name.is_empty() && !is_name(name) {
                return Err(format!("{name:?} is no name of a resource"));
            }
            Ok(Reference { to: To::Other(replicant, name.to_owned()), kind: known()? })
        }
        (None, Some(called)) => Ok(Reference { to: To::Called(called.clone()), kind: known()? }),
        _ => Err("either $ref or $name is wanted".to_owned()),
    }
}

impl Resource {
    /// All references in its fields, as they are written, and what they name.
    pub(super) fn references(&self, all: &[Self]) -> Vec<(Value, Reference)> {
        let kinds: Kinds = all.iter().map(|other| (other.name.clone(), other.kind)).collect();
        let mut found = Vec::new();
        let beside = each(&self.beside, &mut |field, value| collect(field, value, self.kind, &kinds, &mut found));
        // What cannot be read was refused before.
        let _ = beside.and_then(|()| {
            each(&self.fields, &mut |field, value| collect(field, value, self.kind, &kinds, &mut found))
        });
        found
    }

    /// What has to be there before it: the names of resources of the same replicant.
    fn needs(&self, all: &[Self]) -> Vec<String> {
        let references = self.references(all).into_iter().map(|(_, reference)| reference);
        let own = references.chain(self.after.iter().cloned()).filter_map(|reference| match reference.to {
            To::Own(name) => Some(name),
            To::Other(..) | To::Called(_) => None,
        });
        own.collect()
    }
}

fn collect(
    field: &str,
    value: &Value,
    kind: &Kind,
    kinds: &Kinds,
    found: &mut Vec<(Value, Reference)>,
) -> Result<(), String> {
    found.push((value.clone(), reference(field, value, kind, kinds)?));
    Ok(())
}

/// What is needed comes before what needs it; else the kinds are in their order.
fn in_order(mut rest: Vec<Resource>) -> Result<Vec<Resource>, DriverError> {
    rest.sort_by(|a, b| (a.kind.rank(), &a.name).cmp(&(b.kind.rank(), &b.name)));
    let needs: BTreeMap<String, Vec<String>> =
        rest.iter().map(|resource| (resource.name.clone(), resource.needs(&rest))).collect();
    let mut done: Vec<Resource> = Vec::new();
    while !rest.is_empty() {
        let made = |name: &String| done.iter().any(|done| done.name == *name);
        let next =
            rest.iter().position(|resource| needs.get(&resource.name).is_none_or(|needs| needs.iter().all(made)));
        let Some(next) = next else {
            let names: Vec<_> = rest.iter().map(|resource| resource.name.as_str()).collect();
            return Err(invalid("desired.resources", format!("these need each other: {}", names.join(", "))));
        };
        done.push(rest.remove(next));
    }
    Ok(done)
}

/// Fields with local ids in the places of references.
pub(super) fn resolved(value: &Value, id: &impl Fn(&Value) -> Option<String>) -> Value {
    match value {
        value if is_reference(value) => id(value).map_or(Value::Null, Value::String),
        Value::Object(map) => map.iter().map(|(field, value)| (field.clone(), resolved(value, id))).collect(),
        Value::Array(list) => list.iter().map(|value| resolved(value, id)).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(desired: Value) -> Result<Vec<Resource>, DriverError> {
        resources(&desired, &Options::default())
    }

    #[test]
    fn one_resource_is_written_as_the_api_takes_it() {
        let one = read(
            json!({"server": {"name": "web", "imageRef": {"$ref": "image-1"}}, "os:scheduler_hints": {"group": "g"}}),
        );
        let one = &one.unwrap()[0];
        assert_eq!((one.name.as_str(), one.kind.name), ("", "server"));
        assert_eq!(one.beside["os:scheduler_hints"], json!({"group": "g"}));
        let all = std::slice::from_ref(one);
        let [(written, reference)] = one.references(all).try_into().unwrap();
        assert_eq!(written, json!({"$ref": "image-1"}));
        let other = To::Other("image-1".parse().unwrap(), String::new());
        assert_eq!((reference.to, reference.kind.name), (other, "image"));
    }

    #[test]
    fn several_are_made_in_the_order_of_what_they_need() {
        let all = read(json!({"resources": {
            "a-web": {"server": {"networks": [{"port": {"$ref": "door"}}]}, "after": [{"$ref": "sub"}]},
            "door": {"port": {"network_id": {"$ref": "net"}, "security_groups": [{"$ref": "wall"}]}},
            "net": {"network": {}},
            "sub": {"subnet": {"network_id": {"$ref": "net"}}},
            "wall": {"security_group": {}},
            "hole": {"security_group_rule": {"security_group_id": {"$ref": "wall"}, "remote_group_id": {"$ref": "other/x"}}},
        }}))
        .unwrap();
        let names: Vec<_> = all.iter().map(|resource| resource.name.as_str()).collect();
        assert_eq!(names, ["net", "wall", "hole", "sub", "door", "a-web"]);
        let group = all[2].references(&all).into_iter().find_map(|(_, reference)| match reference.to {
            To::Other(id, name) => Some((id.to_string(), name)),
            _ => None,
        });
        assert_eq!(group, Some(("other".to_owned(), "x".to_owned())));
        let ids = |written: &Value| written["$ref"].as_str().map(|name| format!("id of {name}"));
        let door = resolved(&Value::Object(all[4].fields.clone()), &ids);
        assert_eq!(door, json!({"network_id": "id of net", "security_groups": ["id of wall"]}));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_place() {
        for (desired, place) in [
            (json!([]), "desired"),
            (json!({"cat": {}}), "network"),
            (json!({"network": {}, "subnet": {}}), "one kind only"),
            (json!({"network": {}, "name": "x"}), "desired.name"),
            (json!({"network": 3}), "desired.network"),
            (json!({"network": {"description": "mine"}}), "desired.network.description"),
            (json!({"resources": {"a b": {"network": {}}}}), "a b"),
            (json!({"resources": {}, "more": 1}), "desired.resources"),
            (json!({"subnet": {"cidr": {"$ref": "x"}}}), "desired.subnet.cidr"),
            (json!({"subnet": {"network_id": {"$ref": "x", "kind": "cat"}}}), "cat"),
            (json!({"subnet": {"network_id": {"$ref": "x", "$name": "y"}}}), "desired.subnet.network_id"),
            (json!({"subnet": {"network_id": {"$ref": "x y"}}}), "no replicant"),
            (json!({"user": {"name": "eve", "password": "p"}}), "secrets"),
            (json!({"keypair": {"public_key": "k"}}), "desired.keypair.name"),
            (json!({"image": {"data": {"base64": "*"}}}), "desired.image.data"),
            (json!({"image": {"data": {"base64": "A".repeat(2 << 20)}}}), "at each site"),
            (
                json!({"resources": {"a": {"project": {"parent_id": {"$ref": "b"}}}, "b": {"project": {"parent_id": {"$ref": "a"}}}}}),
                "need each other",
            ),
        ] {
            let error = read(desired.clone()).unwrap_err();
            assert!(error.is_permanent() && error.to_string().contains(place), "{desired}: {error}");
        }
        let allowed = Options { secrets: Secrets::Allow, ..Options::default() };
        assert!(resources(&json!({"user": {"name": "eve", "password": "p"}}), &allowed).is_ok());
        let called = read(json!({"server": {"flavorRef": {"$name": "small"}}})).unwrap();
        assert_eq!(called[0].references(&called)[0].1.to, To::Called("small".to_owned()));
        let image = read(json!({"image": {"data": {"base64": "YWJj"}}})).unwrap();
        assert_eq!(image[0].data.as_deref(), Some(&b"abc"[..]));
    }
}
