//! What a write names: it is asked for from then on, also where the object is so already.

use serde_json::{Value, json};

use super::capture::Captured;
use super::target::Verb;

/// What a write names, in the shape of the object that it is about: `after` is that object as it would be, and `steps` what the
/// steps of a JSON patch name.
pub(super) fn of(captured: &Captured, sent: Option<&Value>, after: &Value, steps: Option<Value>) -> Option<Value> {
    match (captured.verb, sent) {
        (Verb::Scale, _) => after.pointer("/spec/replicas").map(|replicas| json!({"spec": {"replicas": replicas}})),
        // What was read and is sent back has an uid: it names what there was, whoever has set it.
        (Verb::Update, Some(sent)) => sent.pointer("/metadata/uid").is_none_or(Value::is_null).then(|| sent.clone()),
        (_, Some(Value::Array(_))) => steps,
        (_, sent) => sent.filter(|sent| sent.is_object()).cloned(),
    }
}

/// Takes out of what is asked for what was sent as null.
pub(super) fn without_nulls(desired: &mut Value, sent: &Value) {
    let (Some(fields), Some(sent)) = (desired.as_object_mut(), sent.as_object()) else { return };
    for (name, value) in sent {
        match (value, fields.get_mut(name)) {
            (Value::Null, _) => drop(fields.remove(name)),
            (value, Some(below)) => without_nulls(below, value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_are_taken_out() {
        let mut desired = json!({"a": 1, "b": {"c": 1, "d": 2}});
        without_nulls(&mut desired, &json!({"a": null, "b": {"c": null, "e": null}, "x": null}));
        assert_eq!(desired, json!({"b": {"d": 2}}));
    }
}
