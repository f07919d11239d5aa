//! What a write has changed in an object, made in what is asked for of it.

use serde_json::{Map, Value};

use super::keys::{Keys, element};

/// A write, as the API server has tried it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Write<'a> {
    pub(super) before: &'a Value,
    pub(super) after: &'a Value,
    /// What was sent, where that has the shape of an object: what is new is taken as it was written there, and without
    /// what the server adds. What is null there is not asked for any more, whatever the server puts in its place.
    pub(super) sent: Option<&'a Value>,
    /// What was sent is all that is asked for: what is not in it was left out.
    pub(super) is_whole: bool,
    pub(super) keys: Keys<'a>,
}

impl Write<'_> {
    /// Makes the same change in what is asked for, and leaves the rest of it as it is.
    pub(super) fn carry(&self, desired: &mut Value) {
        let changed = self.changed(Some(desired), Some(self.before), Some(self.after), self.sent);
        *desired = changed.unwrap_or(Value::Null);
    }
}

/// What stands for a field that was left out.
const LEFT_OUT: &Value = &Value::Null;

impl Write<'_> {
    /// What was sent of a field.
    fn field<'s>(&self, sent: Option<&'s Value>, name: &str) -> Option<&'s Value> {
        let left_out = || (self.is_whole && sent.is_some_and(Value::is_object)).then_some(LEFT_OUT);
        sent.and_then(|sent| sent.get(name)).or_else(left_out)
    }

    /// What was sent of an element of a list.
    fn element<'s>(&self, sent: Option<&'s Value>, key: &str, name: &Value) -> Option<&'s Value> {
        let list = sent?.as_array()?;
        // The key itself may be what the server has put in.
        let left_out = || (self.is_whole && list.iter().all(|value| value.get(key).is_some())).then_some(LEFT_OUT);
        element(list, key, name).or_else(left_out)
    }

    fn changed(
        &self,
        desired: Option<&Value>,
        before: Option<&Value>,
        after: Option<&Value>,
        sent: Option<&Value>,
    ) -> Option<Value> {
        // What stands there then is the server's, and not asked for.
        let after = after.filter(|after| after.is_null() || sent.is_none_or(|sent| !sent.is_null()));
        // Something in it may be asked for and left out in what was sent.
        let is_looked_into = sent.is_some()
            && matches!(
                (desired, after),
                (Some(Value::Object(_)), Some(Value::Object(_))) | (Some(Value::Array(_)), Some(Value::Array(_)))
            );
        if before == after && !is_looked_into {
            return desired.cloned();
        }
        match (before, after) {
            (Some(Value::Object(before)), Some(Value::Object(after))) => {
                let known = desired.and_then(Value::as_object);
                let mut fields = known.cloned().unwrap_or_default();
                for name in before.keys().chain(after.keys().filter(|name| !before.contains_key(*name))) {
                    let sent = self.field(sent, name);
                    let value = self.changed(fields.get(name), before.get(name), after.get(name), sent);
                    set(&mut fields, name, value);
                }
                (known.is_some() || !fields.is_empty()).then_some(Value::Object(fields))
            }
            (Some(Value::Object(before)), None) => {
                let mut fields = desired?.as_object()?.clone();
                for (name, old) in before {
                    let value = self.changed(fields.get(name), Some(old), None, None);
                    set(&mut fields, name, value);
                }
                (!fields.is_empty()).then_some(Value::Object(fields))
            }
            (Some(Value::Array(before)), Some(Value::Array(_)) | None) => {
                let list = |value: Option<&'_ Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
                let (known, new) = (list(desired), list(after));
                match self.keys.of(&[&known, before, &new]) {
                    Some(key) => {
                        let elements = self.elements(&known, before, &new, sent, key);
                        let stays = (desired.is_some() && after.is_some()) || !elements.is_empty();
                        stays.then_some(Value::Array(elements))
                    }
                    None if new == *before && after.is_some() => desired.cloned(),
                    None => after.map(|after| as_sent(sent, after, self.keys)),
                }
            }
            (None, Some(after)) => {
                let new = as_sent(sent, after, self.keys);
                Some(match desired {
                    Some(desired) => {
                        let mut value = desired.clone();
                        overlay(&mut value, &new, self.keys);
                        value
                    }
                    None => new,
                })
            }
            (_, after) => after.map(|after| as_sent(sent, after, self.keys)),
        }
    }

    /// The same for the elements of a list.
    fn elements(
        &self,
        desired: &[Value],
        before: &[Value],
        after: &[Value],
        sent: Option<&Value>,
        key: &str,
    ) -> Vec<Value> {
        let of = |value: &Value| value.get(key).cloned().unwrap_or_default();
        let place = |list: &[Value], name: &Value| list.iter().position(|value| of(value) == *name);
        let is_left_out = |name: &Value| self.element(sent, key, name).is_some_and(Value::is_null);
        let mut all = Vec::new();
        for value in desired {
            let name = of(value);
            let (old, new) = (element(before, key, &name), element(after, key, &name));
            if old.is_none() || (new.is_some() && !is_left_out(&name)) {
                all.extend(self.changed(Some(value), old, new, self.element(sent, key, &name)));
            }
        }
        let stay: Vec<usize> = before.iter().filter_map(|value| place(after, &of(value))).collect();
        if !stay.is_sorted() {
            reorder(&mut all, |value| place(after, &of(value)));
        }
        for (at, value) in after.iter().enumerate() {
            let name = of(value);
            if place(&all, &name).is_some() || is_left_out(&name) {
                continue;
            }
            let old = element(before, key, &name);
            let Some(mut new) = self.changed(None, old, Some(value), self.element(sent, key, &name)) else { continue };
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
}

fn set(fields: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    match value {
        Some(value) => drop(fields.insert(name.to_owned(), value)),
        None => drop(fields.remove(name)),
    }
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
        Write { before: &before, after: &after, sent: None, is_whole: false, keys: Keys::default() }
            .carry(&mut desired);
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

    /// What an API server makes of a manifest: what is left out has a value of its own.
    fn with_defaults(value: &Value) -> Value {
        let default = |value: Option<&Value>| value.map_or(json!("default"), with_defaults);
        match value {
            Value::Object(fields) => {
                let names = ["a", "b", "c", "d"].into_iter().chain(fields.keys().map(String::as_str));
                Value::Object(names.map(|name| (name.to_owned(), default(fields.get(name)))).collect())
            }
            Value::Array(list) => Value::Array(list.iter().map(with_defaults).collect()),
            value => value.clone(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        /// Whoever sends a whole object asks for what he has sent, and for no default of the server.
        #[test]
        fn what_a_whole_object_leaves_out_is_not_asked_for(first in object(), second in object()) {
            let (before, after) = (with_defaults(&first), with_defaults(&second));
            let mut desired = first;
            let write = Write { before: &before, after: &after, sent: Some(&second), is_whole: true, keys: Keys::default() };
            write.carry(&mut desired);
            prop_assert_eq!(desired, second);
        }

        /// Whoever sends back what he has read asks for nothing else.
        #[test]
        fn what_was_read_and_is_sent_back_changes_nothing(desired in object(), other in object()) {
            for live in [with_defaults(&desired), other] {
                let mut again = desired.clone();
                let write = Write { before: &live, after: &live, sent: Some(&live), is_whole: true, keys: Keys::default() };
                write.carry(&mut again);
                prop_assert_eq!(&again, &desired);
            }
        }
    }

    #[test]
    fn what_is_null_is_not_asked_for_whatever_the_server_puts_there() {
        let carry = |desired: Value, before: Value, after: Value, sent: Value, is_whole: bool| {
            let mut desired = desired;
            let write = Write { before: &before, after: &after, sent: Some(&sent), is_whole, keys: Keys::default() };
            write.carry(&mut desired);
            desired
        };
        let spec = |replicas: u64| json!({"spec": {"replicas": replicas, "paused": true}});
        let rest = json!({"spec": {"paused": true}});
        let null = json!({"spec": {"replicas": null}});
        assert_eq!(carry(spec(3), spec(3), spec(1), null.clone(), false), rest);
        assert_eq!(carry(spec(1), spec(1), spec(1), null, false), rest, "also where it is the default");
        assert_eq!(carry(spec(3), spec(3), spec(1), json!({}), false)["spec"]["replicas"], 1);
        assert_eq!(carry(spec(1), spec(1), spec(1), rest.clone(), true), rest);
        // What is not here, since the site has a value of its own above it, was not left out.
        assert_eq!(carry(spec(1), rest.clone(), rest.clone(), rest.clone(), true), spec(1));
        let list = |names: &[&str]| json!({"l": names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()});
        let both = list(&["a", "side"]);
        assert_eq!(carry(both.clone(), both.clone(), both, list(&["a"]), true), list(&["a"]), "it is put in again");
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
        Write { before: &before, after: &after, sent: Some(&sent), is_whole: false, keys: Keys::default() }
            .carry(&mut desired);
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
