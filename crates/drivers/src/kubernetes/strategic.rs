//! Strategic merge patches of kinds that are built into API servers, by the rules with which these were described: which
//! lists merge, and by what. So all sites make the same of one, whatever version their servers are of.

use serde_json::{Map, Value};

/// What tells elements of a list apart that is merged; none if a list is replaced as a whole. `within` is the nearest list
/// that the field is in.
fn merge_key(field: &str, within: &str) -> Option<&'static str> {
    let in_container = ["containers", "initContainers", "ephemeralContainers"].contains(&within);
    Some(match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "imagePullSecrets"
        | "resourceClaims"
        | "schedulingGates"
        | "webhooks" => "name",
        "env" if in_container => "name",
        "secrets" if within.is_empty() => "name",
        "volumeMounts" if in_container => "mountPath",
        "volumeDevices" if in_container => "devicePath",
        "ports" if in_container => "containerPort",
        "ports" if within.is_empty() => "port",
        "hostAliases" => "ip",
        "topologySpreadConstraints" => "topologyKey",
        "conditions" => "type",
        "ownerReferences" => "uid",
        _ => return None,
    })
}

/// Lists of plain values that are merged and not replaced.
fn is_set(field: &str) -> bool {
    field == "finalizers"
}

/// Lays a strategic merge patch over an object.
///
/// # Errors
/// What in the patch is not understood, in words.
pub(super) fn strategic(target: &mut Value, patch: &Map<String, Value>) -> Result<(), String> {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    match target {
        Value::Object(fields) => map(fields, patch, "").map(|_| ()),
        _ => Ok(()),
    }
}

/// Whether the map is to stay.
fn map(fields: &mut Map<String, Value>, patch: &Map<String, Value>, within: &str) -> Result<bool, String> {
    match patch.get("$patch").map(|word| word.as_str().unwrap_or_default()) {
        None | Some("merge") => {}
        Some("delete") => return Ok(false),
        Some("replace") => fields.clear(),
        Some(other) => return Err(format!("$patch is {other:?}: merge, replace or delete is wanted")),
    }
    if let Some(kept) = patch.get("$retainKeys") {
        let kept = kept.as_array().ok_or("$retainKeys is a list of names")?;
        fields.retain(|name, _| kept.iter().any(|kept| kept.as_str() == Some(name)));
    }
    for (name, value) in patch {
        if let Some(field) = name.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().ok_or_else(|| format!("{name} is a list of values"))?;
            if let Some(Value::Array(items)) = fields.get_mut(field) {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        // The order of elements of lists that merge says nothing here.
        if name == "$patch" || name == "$retainKeys" || name.starts_with("$setElementOrder/") {
            continue;
        }
        if name.starts_with('$') {
            return Err(format!("{name} is no directive that is known"));
        }
        match value {
            Value::Null => _ = fields.remove(name),
            Value::Object(patch) => {
                let slot = fields.entry(name.clone()).or_insert_with(|| Value::Object(Map::new()));
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                let stays = match slot {
                    Value::Object(below) => map(below, patch, within)?,
                    _ => true,
                };
                if !stays {
                    fields.remove(name);
                }
            }
            Value::Array(patch) => {
                let slot = fields.entry(name.clone()).or_insert_with(|| Value::Array(Vec::new()));
                list(slot, patch, name, within)?;
            }
            scalar => _ = fields.insert(name.clone(), scalar.clone()),
        }
    }
    Ok(true)
}

fn list(slot: &mut Value, patch: &[Value], field: &str, within: &str) -> Result<(), String> {
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    let Value::Array(items) = slot else { return Ok(()) };
    let Some(key) = merge_key(field, within) else {
        if is_set(field) {
            patch.iter().for_each(|value| {
                if !items.contains(value) {
                    items.push(value.clone());
                }
            });
        } else {
            *items = patch.to_vec();
        }
        return Ok(());
    };
    let directive = |element: &Value| element.get("$patch").and_then(Value::as_str).map(str::to_owned);
    // It says that the others are all there is, and nothing else, whatever it is called.
    let replaces = |element: &Value| directive(element).as_deref() == Some("replace");
    if patch.iter().any(replaces) {
        items.clear();
    }
    for element in patch.iter().filter(|element| !replaces(element)) {
        let fields = element.as_object().ok_or_else(|| format!("{field}: elements are maps"))?;
        if directive(element).is_some_and(|word| word != "delete") {
            return Err(format!("{field}: $patch of an element is delete or replace"));
        }
        let name =
            fields.get(key).ok_or_else(|| format!("{field}: an element has no {key}, by which they are told apart"))?;
        let place = items.iter().position(|item| item.get(key) == Some(name));
        let mut found =
            place.and_then(|place| items.get(place)).and_then(Value::as_object).cloned().unwrap_or_default();
        let stays = map(&mut found, fields, field)?;
        match place {
            Some(place) if !stays => _ = items.remove(place),
            Some(place) => {
                if let Some(item) = items.get_mut(place) {
                    *item = Value::Object(found);
                }
            }
            None if stays => items.push(Value::Object(found)),
            None => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        json!({"spec": {"containers": [
            {"name": "web", "image": "1", "args": ["a", "b"], "ports": [{"containerPort": 80}, {"containerPort": 443}],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
            {"name": "side", "image": "s"},
        ], "tolerations": [{"key": "a"}, {"key": "b"}]}, "metadata": {"finalizers": ["x"]}})
    }

    fn patched(patch: Value) -> Result<Value, String> {
        let mut value = pod();
        strategic(&mut value, patch.as_object().unwrap()).map(|()| value)
    }

    #[test]
    fn lists_merge_where_their_kind_says_so_and_are_replaced_where_not() {
        let value = patched(json!({"spec": {
            "containers": [{"name": "web", "image": "2", "args": ["c"], "env": [{"name": "B", "value": "3"}],
                "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 81}]}, {"name": "more"}],
            "tolerations": [{"key": "c"}]}, "metadata": {"finalizers": ["y", "x"]}}))
        .unwrap();
        let mut wanted = pod();
        let web = &mut wanted["spec"]["containers"][0];
        web["image"] = json!("2");
        web["args"] = json!(["c"]);
        web["env"][1]["value"] = json!("3");
        web["ports"] = json!([{"containerPort": 80, "name": "http"}, {"containerPort": 443}, {"containerPort": 81}]);
        wanted["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "more"}));
        wanted["spec"]["tolerations"] = json!([{"key": "c"}]);
        wanted["metadata"]["finalizers"] = json!(["x", "y"]);
        assert_eq!(value, wanted);
        // The ports of a Service are told apart by their port.
        let mut service = json!({"spec": {"ports": [{"port": 80}]}});
        let patch = json!({"spec": {"ports": [{"port": 80, "name": "http"}]}});
        strategic(&mut service, patch.as_object().unwrap()).unwrap();
        assert_eq!(service, json!({"spec": {"ports": [{"port": 80, "name": "http"}]}}));
    }

    #[test]
    fn directives_remove_and_replace() {
        let value = patched(json!({
            "spec": {"containers": [{"$patch": "delete", "name": "side"}, {"name": "web", "image": "2"}],
                "tolerations": null, "$setElementOrder/containers": [{"name": "web"}]},
            "metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}}))
        .unwrap();
        let mut web = pod()["spec"]["containers"][0].clone();
        web["image"] = json!("2");
        assert_eq!(value, json!({"spec": {"containers": [web]}, "metadata": {"finalizers": []}}));
        let value = patched(
            json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "only"}], "$retainKeys": ["containers"]},
            "metadata": {"$patch": "delete"}}),
        )
        .unwrap();
        assert_eq!(value, json!({"spec": {"containers": [{"name": "only"}]}}));
        for wrong in [
            json!({"$patch": "loose"}),
            json!({"spec": {"containers": [{"image": "x"}]}}),
            json!({"spec": {"$odd": 1}}),
            json!({"spec": {"containers": [{"name": "web", "$patch": "merge"}]}}),
        ] {
            assert!(patched(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
