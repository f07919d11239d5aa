//! What a write has changed in an object, made in what is asked for of it.

use serde_json::{Map, Value};

use super::keys::{Keys, element};

/// A write, as the API server has tried it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Write<'a> {
    pub(super) before: &'a Value,
    pub(super) after: &'a Value,
    /// What was sent, where that has the shape of an object: what is new is taken as it was written there, and without
    /// what the server adds.
    pub(super) sent: Option<&'a Value>,
    pub(super) keys: Keys<'a>,
}

impl Write<'_> {
    /// Makes the same change in what is asked for, and leaves the rest of it as it is.
    pub(super) fn carry(&self, desired: &mut Value) {
        let changed = changed(Some(desired), Some(self.before), Some(self.after), self.sent, self.keys);
        *desired = changed.unwrap_or(Value::Null);
    }
}

fn set(fields: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    match value {
        Some(value) => drop(fields.insert(name.to_owned(), value)),
        None => drop(fields.remove(name)),
    }
}

fn changed(
    desired: Option<&Value>,
    before: Option<&Value>,
    after: Option<&Value>,
    sent: Option<&Value>,
    keys: Keys<'_>,
) -> Option<Value> {
    if before == after {
        return desired.cloned();
    }
    match (before, after) {
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            let known = desired.and_then(Value::as_object);
            let mut fields = known.cloned().unwrap_or_default();
            for name in before.keys().chain(after.keys().filter(|name| !before.contains_key(*name))) {
                let sent = sent.and_then(|sent| sent.get(name));
                let value = changed(fields.get(name), before.get(name), after.get(name), sent, keys);
                set(&mut fields, name, value);
            }
            (known.is_some() || !fields.is_empty()).then_some(Value::Object(fields))
        }
        (Some(Value::Object(before)), None) => {
            let mut fields = desired?.as_object()?.clone();
            for (name, old) in before {
                let value = changed(fields.get(name), Some(old), None, None, keys);
                set(&mut fields, name, value);
            }
            (!fields.is_empty()).then_some(Value::Object(fields))
        }
        (Some(Value::Array(before)), Some(Value::Array(_)) | None) => {
            let list = |value: Option<&'_ Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
            let (known, new) = (list(desired), list(after));
            match keys.of(&[&known, before, &new]) {
                Some(key) => {
                    let elements = elements(&known, before, &new, sent, key, keys);
                    (after.is_some() || !elements.is_empty()).then_some(Value::Array(elements))
                }
                None => after.map(|after| as_sent(sent, after, keys)),
            }
        }
        (None, Some(after)) => {
            let new = as_sent(sent, after, keys);
            Some(match desired {
                Some(desired) => {
                    let mut value = desired.clone();
                    overlay(&mut value, &new, keys);
                    value
                }
                None => new,
            })
        }
        (_, after) => after.map(|after| as_sent(sent, after, keys)),
    }
}

/// The same for the elements of a list.
fn elements(
    desired: &[Value],
    before: &[Value],
    after: &[Value],
    sent: Option<&Value>,
    key: &str,
    keys: Keys<'_>,
) -> Vec<Value> {
    let of = |value: &Value| value.get(key).cloned().unwrap_or_default();
    let place = |list: &[Value], name: &Value| list.iter().position(|value| of(value) == *name);
    let sent = sent.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut all = Vec::new();
    for value in desired {
        let name = of(value);
        let (old, new) = (element(before, key, &name), element(after, key, &name));
        if new.is_some() || old.is_none() {
            all.extend(changed(Some(value), old, new, element(sent, key, &name), keys));
        }
    }
    let stay: Vec<usize> = before.iter().filter_map(|value| place(after, &of(value))).collect();
    if !stay.is_sorted() {
        reorder(&mut all, |value| place(after, &of(value)));
    }
    for (at, value) in after.iter().enumerate() {
        let name = of(value);
        if place(&all, &name).is_some() {
            continue;
        }
        let old = element(before, key, &name);
        let Some(mut new) = changed(None, old, Some(value), element(sent, key, &name), keys) else { continue };
        if let Some(fields) = new.as_object_mut() {
            fields.insert(key.to_owned(), name);
        }
        // After the nearest of those before it that is there.
        let mut earlier = after.iter().take(at).rev().filter_map(|value| place(&all, &of(value)));
        let next = earlier.next().map_or(0, |at| at + 1);
        all.insert(next, new);
    }
    all
}

/// Sorts those that have a rank, and leaves the others where they are.
fn reorder(all: &mut [Value], rank: impl Fn(&Value) -> Option<usize>) {
    let ranked: Vec<bool> = all.iter().map(|value| rank(value).is_some()).collect();
    let mut values: Vec<Value> = all.iter().filter(|value| rank(value).is_some()).cloned().collect();
    values.sort_by_key(&rank);
    let slots = all.iter_mut().zip(ranked).filter_map(|(slot, ranked)| ranked.then_some(slot));
    for (slot, value) in slots.zip(values) {
        *slot = value;
    }
}

fn as_sent(sent: Option<&Value>, after: &Value, keys: Keys<'_>) -> Value {
    match sent {
        Some(sent) => kept(sent, after, keys),
        None => after.clone(),
    }
}

/// What was sent, without what the API server has made nothing of: empty fields, and those that are unknown to it.
pub(super) fn kept(sent: &Value, after: &Value, keys: Keys<'_>) -> Value {
    match (sent, after) {
        (Value::Object(sent), Value::Object(after)) => {
            let both = sent.iter().filter(|(_, value)| !value.is_null());
            let both = both.filter_map(|(name, value)| Some((name.clone(), kept(value, after.get(name)?, keys))));
            Value::Object(both.collect())
        }
        (Value::Array(sent), Value::Array(after)) => match keys.of(&[sent, after]) {
            Some(key) => {
                let found = sent.iter().filter_map(|value| Some((value, element(after, key, value.get(key)?)?)));
                Value::Array(found.map(|(sent, after)| kept(sent, after, keys)).collect())
            }
            None if sent.len() == after.len() => {
                Value::Array(sent.iter().zip(after).map(|(sent, after)| kept(sent, after, keys)).collect())
            }
            None => Value::Array(after.clone()),
        },
        (Value::Object(_) | Value::Array(_), after) | (_, after @ (Value::Object(_) | Value::Array(_))) => {
            after.clone()
        }
        // What the API server writes in another way is taken as it was sent; what it has changed is not.
        (sent, after) if is_same(sent, after) => sent.clone(),
        (_, after) => after.clone(),
    }
}

/// Whether two values are the same to an API server: a quantity can be written in several ways, and so can what is a number
/// or a text.
fn is_same(sent: &Value, after: &Value) -> bool {
    let amount = |value: &Value| match value {
        Value::String(text) => quantity(text),
        Value::Number(number) => quantity(&number.to_string()),
        _ => None,
    };
    let same = |(sent, sent_parts): (i128, i128), (after, after_parts): (i128, i128)| {
        sent.checked_mul(after_parts).zip(after.checked_mul(sent_parts)).is_some_and(|(sent, after)| sent == after)
    };
    sent == after || amount(sent).zip(amount(after)).is_some_and(|(sent, after)| same(sent, after))
}

/// A quantity, as a number of parts of one, and how many of these one has.
fn quantity(text: &str) -> Option<(i128, i128)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '+' | '-' | '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{part}");
    let amount: i128 = digits.parse().ok()?;
    let one = 10_i128.checked_pow(u32::try_from(part.len()).ok()?)?;
    let tens = |power: i32| {
        let times = 10_i128.checked_pow(power.unsigned_abs())?;
        if power < 0 { Some((amount, one.checked_mul(times)?)) } else { Some((amount.checked_mul(times)?, one)) }
    };
    let twos = |power: u32| Some((amount.checked_mul(1_i128.checked_shl(power)?)?, one));
    match unit {
        "" => Some((amount, one)),
        "n" => tens(-9),
        "u" => tens(-6),
        "m" => tens(-3),
        "k" => tens(3),
        "M" => tens(6),
        "G" => tens(9),
        "T" => tens(12),
        "P" => tens(15),
        "E" => tens(18),
        "Ki" => twos(10),
        "Mi" => twos(20),
        "Gi" => twos(30),
        "Ti" => twos(40),
        "Pi" => twos(50),
        "Ei" => twos(60),
        exponent => tens(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    }
}

/// Sets all fields that a value names.
pub(super) fn overlay(value: &mut Value, over: &Value, keys: Keys<'_>) {
    match (value, over) {
        (Value::Object(fields), Value::Object(over)) => {
            for (name, over) in over {
                match fields.get_mut(name) {
                    Some(value) => overlay(value, over, keys),
                    None => drop(fields.insert(name.clone(), over.clone())),
                }
            }
        }
        (Value::Array(list), Value::Array(over)) => {
            let Some(key) = keys.of(&[list, over]) else {
                list.clone_from(over);
                return;
            };
            for over in over {
                match list.iter_mut().find(|value| value.get(key) == over.get(key)) {
                    Some(value) => overlay(value, over, keys),
                    None => list.push(over.clone()),
                }
            }
        }
        (value, over) => value.clone_from(over),
    }
}

/// An empty map.
pub(super) fn empty() -> Value {
    Value::Object(Map::new())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn carry(desired: Value, before: Value, after: Value) -> Value {
        let mut desired = desired;
        Write { before: &before, after: &after, sent: None, keys: Keys::default() }.carry(&mut desired);
        desired
    }

    #[test]
    fn what_the_server_has_corrected_is_not_taken_as_it_was_sent() {
        let of =
            |sent: Value, after: Value| kept(&json!({"a": sent}), &json!({"a": after}), Keys::default())["a"].clone();
        for (sent, after) in [
            (json!("0.5"), json!("500m")),
            (json!(1), json!("1")),
            (json!("80"), json!(80)),
            (json!("1024Mi"), json!("1Gi")),
            (json!("1e3"), json!("1k")),
            (json!(0.1), json!("100m")),
        ] {
            assert_eq!(of(sent.clone(), after), sent);
        }
        for (sent, after) in [
            (json!("Always"), json!("IfNotPresent")),
            (json!(true), json!(false)),
            (json!("1"), json!("1m")),
            (json!("1Gi"), json!("1G")),
            (json!(0), json!(1)),
            (json!("99999999999999999999999999999999E"), json!("1")),
            (json!(""), json!("0")),
        ] {
            assert_eq!(of(sent, after.clone()), after);
        }
    }

    fn scalar() -> impl Strategy<Value = Value> {
        let text = prop::sample::select(vec!["", "a", "b"]).prop_map(Value::from);
        prop_oneof![(0..3).prop_map(|n: i32| json!(n)), text, any::<bool>().prop_map(Value::from)]
    }

    fn fields(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
        let name = prop::sample::select(vec!["a", "b", "c", "d"]);
        prop::collection::btree_map(name, inner, 0..4).prop_map(|map| json!(map))
    }

    /// Elements that are told apart by a name, in any order.
    fn keyed(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
        let names = Just(vec!["w", "x", "y", "z"]).prop_shuffle();
        (names, prop::collection::vec(fields(inner), 0..4)).prop_map(|(names, elements)| {
            let named = names.into_iter().zip(elements).map(|(name, mut element)| {
                element["name"] = json!(name);
                element
            });
            Value::Array(named.collect())
        })
    }

    /// Objects that look like those of Kubernetes: maps, lists with and without keys.
    fn object() -> impl Strategy<Value = Value> {
        let list = prop::collection::vec(scalar(), 0..3).prop_map(Value::Array);
        let leaf = prop_oneof![3 => scalar(), 1 => list];
        let tree = leaf.prop_recursive(4, 24, 4, |inner| prop_oneof![fields(inner.clone()), keyed(inner)]);
        fields(tree)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn made_in_what_was_before_it_gives_what_was_after(before in object(), after in object()) {
            prop_assert_eq!(carry(before.clone(), before, after.clone()), after);
        }

        #[test]
        fn what_has_not_changed_is_left_alone(desired in object(), before in object()) {
            prop_assert_eq!(carry(desired.clone(), before.clone(), before), desired);
        }

        #[test]
        fn what_only_the_desired_state_has_stays(before in object(), after in object(), own in scalar()) {
            let mut desired = before.clone();
            desired["own"] = own.clone();
            let mut wanted = after.clone();
            wanted["own"] = own;
            prop_assert_eq!(carry(desired, before, after), wanted);
        }
    }

    #[test]
    fn fields_that_the_server_has_added_do_not_come_in() {
        let desired = json!({"spec": {"containers": [{"name": "web", "image": "a:1"}]}});
        let before =
            json!({"spec": {"replicas": 1, "containers": [{"name": "web", "image": "a:1", "pull": "Always"}]}});
        let mut after = before.clone();
        after["spec"]["containers"][0]["image"] = json!("a:2");
        let changed = carry(desired.clone(), before.clone(), after);
        assert_eq!(changed, json!({"spec": {"containers": [{"name": "web", "image": "a:2"}]}}));
        let mut after = before.clone();
        after["spec"]["replicas"] = json!(3);
        let changed = carry(desired, before, after);
        assert_eq!(changed["spec"]["replicas"], 3);
    }

    #[test]
    fn a_field_of_an_element_that_is_not_asked_for_comes_with_its_key() {
        let before = json!({"list": [{"name": "a", "x": 1}, {"name": "b", "x": 1, "y": 1}]});
        let after = json!({"list": [{"name": "a", "x": 1}, {"name": "b", "x": 2, "y": 1}]});
        let changed = carry(json!({"list": [{"name": "a"}]}), before, after);
        assert_eq!(changed, json!({"list": [{"name": "a"}, {"name": "b", "x": 2}]}));
    }

    #[test]
    fn what_is_new_is_taken_as_it_was_sent() {
        let before = json!({"list": [{"name": "a", "x": 1}]});
        let after = json!({"list": [{"name": "a", "x": 1}, {"name": "b", "cpu": "500m", "default": true}]});
        let new = json!({"name": "b", "cpu": "0.5", "gone": null, "$patch": "x"});
        let sent = json!({"list": [new], "$setElementOrder/list": []});
        let mut desired = json!({"list": [{"name": "a"}]});
        Write { before: &before, after: &after, sent: Some(&sent), keys: Keys::default() }.carry(&mut desired);
        assert_eq!(desired, json!({"list": [{"name": "a"}, {"name": "b", "cpu": "0.5"}]}));
    }

    #[test]
    fn an_element_goes_to_where_it_was_put() {
        let list = |names: &[&str]| json!({"l": names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()});
        let changed = carry(list(&["own", "a", "c"]), list(&["a", "c"]), list(&["a", "b", "c"]));
        assert_eq!(changed, list(&["own", "a", "b", "c"]));
        let changed = carry(list(&["a", "own", "c"]), list(&["a", "c"]), list(&["c", "a"]));
        assert_eq!(changed, list(&["c", "own", "a"]));
        let changed = carry(list(&["own", "a", "c"]), list(&["a", "c"]), list(&["c"]));
        assert_eq!(changed, list(&["own", "c"]));
    }

    #[test]
    fn a_field_that_is_taken_out_takes_no_more_with_it_than_was_there() {
        let desired = json!({"labels": {"a": 1, "own": 2}});
        let changed = carry(desired, json!({"labels": {"a": 1}}), json!({}));
        assert_eq!(changed, json!({"labels": {"own": 2}}));
        assert_eq!(carry(json!({"labels": {"a": 1}}), json!({"labels": {"a": 1}}), json!({})), json!({}));
    }

    #[test]
    fn overlaid_lists_are_matched_by_their_keys() {
        let mut value = json!({"l": [{"name": "a", "x": 1}, {"name": "b"}], "m": [1, 2]});
        overlay(&mut value, &json!({"l": [{"name": "b", "x": 2}, {"name": "c"}], "m": [3]}), Keys::default());
        assert_eq!(value, json!({"l": [{"name": "a", "x": 1}, {"name": "b", "x": 2}, {"name": "c"}], "m": [3]}));
    }
}
