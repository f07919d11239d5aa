//! Edits as the smallest change: from what somebody saw (the base) to what they want, applied to what stands now.
//!
//! What the base and the wish have in common is left as it stands, whoever changed it meanwhile. Fields are set and
//! removed one by one. Lists with a merge key are edited element by element; other lists by the shortest difference,
//! where an element replaced by another is edited in place. The tree is never rewritten.
//!
//! Removing a field or an element, or replacing it by a value of another kind, wins over edits made concurrently
//! *within* it: those stay in the history only. An element of a keyed list that is put elsewhere in the order is
//! removed and added again, so the same holds for it.

use std::collections::{BTreeMap, BTreeSet};

use automerge::transaction::Transactable;
use automerge::{AutomergeError, ObjId, Prop};
use serde_json::{Map, Value};

use super::diff::{Step, align, longest_increasing};
use super::view::{ListNode, MapNode, Node, Slot, key_of, node_key};
use crate::document::json::{to_hydrate, to_scalar};

type Edited = Result<(), AutomergeError>;

/// Places in lists to be removed once nothing refers to their indices any more.
type Doomed = BTreeSet<(ObjId, usize)>;

/// The edits of one change.
pub(crate) struct Editor<'a, T> {
    pub(crate) tx: &'a mut T,
    /// The merge keys of lists, in the order they are tried.
    pub(crate) keys: &'a [String],
}

impl<T: Transactable> Editor<'_, T> {
    /// Brings one field of a map (or of maps laid together, the winner first) to `new`. Without a base, whatever
    /// stands there is new to the author, and theirs is laid over it.
    pub(crate) fn field(
        &mut self,
        maps: &[ObjId],
        key: &str,
        base: Option<&Node>,
        now: Option<&Slot>,
        new: &Value,
    ) -> Edited {
        if base.is_some_and(|base| base.json() == *new) {
            return Ok(());
        }
        match now {
            Some(slot) if self.within(base, slot, new)? => Ok(()),
            _ => self.write_field(maps, key, now, new),
        }
    }

    /// Edits inside a value, if that is how to get to `new`.
    fn within(&mut self, base: Option<&Node>, now: &Slot, new: &Value) -> Result<bool, AutomergeError> {
        match (&now.node, new) {
            (Node::Map(now), Value::Object(new)) => self.map(base.and_then(Node::as_map), now, new)?,
            (Node::List(list), Value::Array(new)) => {
                return if list.is_one || now.is_divided() {
                    Ok(list.elements.iter().map(|slot| slot.node.json()).eq(new.iter().cloned()))
                } else {
                    self.list(base.and_then(Node::as_list), list, new)
                };
            }
            (now, new) => return Ok(now.json() == *new),
        }
        Ok(true)
    }

    /// Brings a map to `new`.
    pub(crate) fn map(&mut self, base: Option<&MapNode>, now: &MapNode, new: &Map<String, Value>) -> Edited {
        if let Some(base) = base {
            for key in base.fields.keys().filter(|key| !new.contains_key(*key)) {
                if let Some(slot) = now.fields.get(key) {
                    self.remove_field(slot)?;
                }
            }
        }
        for (key, value) in new {
            let base = base.and_then(|base| base.fields.get(key)).map(|slot| &slot.node);
            self.field(&now.objects, key, base, now.fields.get(key), value)?;
        }
        Ok(())
    }

    /// Writes a field whole; nothing competes with it afterwards.
    pub(crate) fn write_field(&mut self, maps: &[ObjId], key: &str, now: Option<&Slot>, new: &Value) -> Edited {
        let Some(target) = maps.first() else { return Ok(()) };
        self.write(target, Prop::from(key), new)?;
        let others: BTreeSet<&ObjId> = now.iter().flat_map(|slot| &slot.raws).map(|raw| &raw.container).collect();
        for other in others.into_iter().filter(|other| *other != target) {
            self.tx.delete(other, key)?;
        }
        Ok(())
    }

    /// Removes a field from every map it stands in.
    pub(crate) fn remove_field(&mut self, slot: &Slot) -> Edited {
        let containers: BTreeMap<&ObjId, &Prop> = slot.raws.iter().map(|raw| (&raw.container, &raw.prop)).collect();
        for (container, prop) in containers {
            self.tx.delete(container, prop.clone())?;
        }
        Ok(())
    }

    fn write(&mut self, container: &ObjId, prop: Prop, value: &Value) -> Edited {
        match to_scalar(value) {
            Some(scalar) => self.tx.put(container, prop, scalar),
            None => self.tx.batch_create_object(container, prop, &to_hydrate(value), false).map(|_| ()),
        }
    }

    /// Brings a list to `new`, unless that takes writing it whole.
    fn list(&mut self, base: Option<&ListNode>, now: &ListNode, new: &[Value]) -> Result<bool, AutomergeError> {
        let mut doomed = Doomed::new();
        let steps = match self.keys.iter().find(|key| keyed(base, now, new, key)) {
            Some(key) => self.by_key(&key.clone(), base, now, new, &mut doomed)?,
            // Without a key it would fall apart into what was laid together.
            None if now.objects.len() > 1 || now.elements.iter().any(|slot| places(slot).len() > 1) => {
                return Ok(now.elements.iter().map(|slot| slot.node.json()).eq(new.iter().cloned()));
            }
            None => self.by_place(base.unwrap_or(now), now, new, &mut doomed)?,
        };
        self.rearrange(now, &steps, doomed)?;
        Ok(true)
    }

    /// Writes an element whole, where it won; its other places go.
    pub(crate) fn write_element(&mut self, slot: &Slot, new: &Value, doomed: &mut Doomed) -> Edited {
        let Some(winner) = slot.raws.last() else { return Ok(()) };
        self.write(&winner.container, winner.prop.clone(), new)?;
        doomed.extend(
            places(slot)
                .into_iter()
                .filter(|place| place.0 != winner.container || Some(place.1) != winner.prop.as_index()),
        );
        Ok(())
    }

    fn element(&mut self, base: Option<&Node>, now: &Slot, new: &Value, doomed: &mut Doomed) -> Edited {
        if base.is_some_and(|base| base.json() == *new) || self.within(base, now, new)? {
            return Ok(());
        }
        self.write_element(now, new, doomed)
    }

    /// Elements are matched by their merge key.
    fn by_key(
        &mut self,
        key: &str,
        base: Option<&ListNode>,
        now: &ListNode,
        new: &[Value],
        doomed: &mut Doomed,
    ) -> Result<Vec<Placed>, AutomergeError> {
        let base = index(base, key);
        let stands = index(Some(now), key);
        let wanted: Vec<(String, &Value)> = new.iter().filter_map(|value| Some((key_of(value, key)?, value))).collect();
        let names: BTreeSet<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
        for name in base.keys().filter(|name| !names.contains(name.as_str())) {
            if let Some((_, slot)) = stands.get(name) {
                doomed.extend(places(slot));
            }
        }
        let moved = moved(&base, &stands, &wanted);
        let mut steps = Vec::new();
        for (name, value) in wanted {
            let base = base.get(&name).map(|(_, slot)| &slot.node);
            match stands.get(&name) {
                Some((_, slot)) if moved.contains(&name) => {
                    doomed.extend(places(slot));
                    let base = base.map(Node::json);
                    steps.push(Placed::New(three_way(base.as_ref(), &slot.node.json(), value, &[])));
                }
                Some((place, slot)) => {
                    self.element(base, slot, value, doomed)?;
                    steps.push(Placed::Old(*place));
                }
                // Removed by others, and this author did not touch it.
                None if base.is_some_and(|base| base.json() == *value) => {}
                None => steps.push(Placed::New(value.clone())),
            }
        }
        Ok(steps)
    }

    /// Elements are matched by the shortest difference.
    fn by_place(
        &mut self,
        base: &ListNode,
        now: &ListNode,
        new: &[Value],
        doomed: &mut Doomed,
    ) -> Result<Vec<Placed>, AutomergeError> {
        let saw: Vec<Value> = base.elements.iter().map(|slot| slot.node.json()).collect();
        let stands =
            if std::ptr::eq(base, now) { (0..saw.len()).map(Some).collect() } else { same_elements(base, now) };
        let at = |i: usize| {
            let place = stands.get(i).copied().flatten()?;
            Some((place, now.elements.get(place)?))
        };
        let mut steps = Vec::new();
        for step in align(&saw, new) {
            match step {
                Step::Same(i) => steps.extend(at(i).map(|(place, _)| Placed::Old(place))),
                Step::Remove(i) => doomed.extend(at(i).into_iter().flat_map(|(_, slot)| places(slot))),
                Step::Change(i, j) => match (at(i), new.get(j)) {
                    (Some((place, slot)), Some(value)) => {
                        self.element(base.elements.get(i).map(|slot| &slot.node), slot, value, doomed)?;
                        steps.push(Placed::Old(place));
                    }
                    (None, Some(value)) => steps.push(Placed::New(value.clone())),
                    (_, None) => {}
                },
                Step::Add(j) => steps.extend(new.get(j).map(|value| Placed::New(value.clone()))),
            }
        }
        Ok(steps)
    }

    /// Adds what is new after what it follows, in the list that this stands in, then removes the doomed. Indices shift
    /// with every edit, so a model of each list says where its old elements are.
    fn rearrange(&mut self, now: &ListNode, steps: &[Placed], doomed: Doomed) -> Edited {
        let mut models: Vec<Model<'_>> = now.objects.iter().map(|list| Model::new(list, now)).collect();
        let (mut at, mut cursor) = (0, 0);
        let mut run: Vec<automerge::hydrate::Value> = Vec::new();
        for step in steps.iter().map(Some).chain([None]) {
            if let Some(Placed::New(value)) = step {
                run.push(to_hydrate(value));
                continue;
            }
            if !run.is_empty()
                && let Some(model) = models.get_mut(at)
            {
                let added = run.len();
                self.tx.splice(model.list, cursor, 0, std::mem::take(&mut run))?;
                model.elements.splice(cursor..cursor, std::iter::repeat_n(None, added));
                cursor += added;
            }
            let Some(Placed::Old(place)) = step else { continue };
            let Some(places) = now.elements.get(*place).map(places) else { continue };
            // Where it is read: in the first of the lists, at the first of its places there.
            let first = models.iter().enumerate().find_map(|(i, model)| {
                let (_, old) = places.iter().find(|(list, _)| list == model.list)?;
                Some((i, model.position(*old)?))
            });
            if let Some((list, position)) = first {
                (at, cursor) = (list, position + 1);
            }
        }
        for (list, old) in doomed.into_iter().rev() {
            match models.iter_mut().find(|model| *model.list == list) {
                Some(model) => {
                    if let Some(position) = model.position(old) {
                        self.tx.delete(&list, position)?;
                        model.elements.remove(position);
                    }
                }
                None => self.tx.delete(&list, old)?,
            }
        }
        Ok(())
    }

    /// Removes elements that nothing refers to any more.
    pub(crate) fn remove_elements(&mut self, doomed: Doomed) -> Edited {
        for (list, index) in doomed.into_iter().rev() {
            self.tx.delete(&list, index)?;
        }
        Ok(())
    }
}

/// A list while it is edited: for each element its index before, none for a new one.
struct Model<'a> {
    list: &'a ObjId,
    elements: Vec<Option<usize>>,
}

impl<'a> Model<'a> {
    fn new(list: &'a ObjId, now: &ListNode) -> Self {
        let indices = now.elements.iter().flat_map(places).filter(|(of, _)| of == list).map(|(_, index)| index + 1);
        Self { list, elements: (0..indices.max().unwrap_or(0)).map(Some).collect() }
    }

    fn position(&self, old: usize) -> Option<usize> {
        self.elements.iter().position(|element| *element == Some(old))
    }
}

/// An element of the list as it shall be.
enum Placed {
    /// The element that stands at this place of the view.
    Old(usize),
    /// A new one.
    New(Value),
}

fn places(slot: &Slot) -> BTreeSet<(ObjId, usize)> {
    slot.raws.iter().filter_map(|raw| Some((raw.container.clone(), raw.prop.as_index()?))).collect()
}

/// Whether a key tells apart the elements of all three lists.
fn keyed(base: Option<&ListNode>, now: &ListNode, new: &[Value], key: &str) -> bool {
    let fits = |list: &ListNode| list.elements.is_empty() || list.key.as_deref() == Some(key);
    let mut seen = BTreeSet::new();
    fits(now)
        && base.is_none_or(fits)
        && new.iter().all(|value| key_of(value, key).is_some_and(|name| seen.insert(name)))
}

fn index<'n>(list: Option<&'n ListNode>, key: &str) -> BTreeMap<String, (usize, &'n Slot)> {
    let elements = list.into_iter().flat_map(|list| list.elements.iter().enumerate());
    elements.filter_map(|(i, slot)| Some((node_key(&slot.node, key)?, (i, slot)))).collect()
}

/// The elements that the author put elsewhere: as few as bring the others into the order they want.
fn moved(
    base: &BTreeMap<String, (usize, &Slot)>,
    now: &BTreeMap<String, (usize, &Slot)>,
    new: &[(String, &Value)],
) -> BTreeSet<String> {
    let saw: Vec<usize> = new.iter().filter_map(|(name, _)| Some(base.get(name)?.0)).collect();
    if saw.is_sorted() {
        return BTreeSet::new();
    }
    let both: Vec<(&String, usize)> = new.iter().filter_map(|(name, _)| Some((name, now.get(name)?.0))).collect();
    let stay = longest_increasing(&both.iter().map(|(_, place)| *place).collect::<Vec<_>>());
    both.into_iter().enumerate().filter(|(i, _)| !stay.contains(i)).map(|(_, (name, _))| name.clone()).collect()
}

/// For each element of `base`, where it stands now: the same edit wrote it, or it is what stands in its place between
/// two that are the same.
fn same_elements(base: &ListNode, now: &ListNode) -> Vec<Option<usize>> {
    let by_id: BTreeMap<&ObjId, usize> =
        now.elements.iter().enumerate().flat_map(|(i, slot)| slot.raws.iter().map(move |raw| (&raw.id, i))).collect();
    let mut found: Vec<Option<usize>> =
        base.elements.iter().map(|slot| slot.raws.iter().find_map(|raw| by_id.get(&raw.id).copied())).collect();
    let mut gap = 0..0;
    let mut next = 0;
    for i in 0..=base.elements.len() {
        let here = found.get(i).copied().unwrap_or(Some(now.elements.len()));
        let Some(place) = here else {
            gap.end = i + 1;
            continue;
        };
        if place >= next && place - next == gap.len() {
            for (offset, lost) in gap.clone().enumerate() {
                if let Some(found) = found.get_mut(lost) {
                    *found = Some(next + offset);
                }
            }
        }
        next = next.max(place + 1);
        gap = i + 1..i + 1;
    }
    found
}

/// The three-way merge of plain values: what the author changed between `base` and `new`, done to `now`. Lists whose
/// elements all have one of the `keys` are merged by it; another list that was changed is the author's.
pub(crate) fn three_way(base: Option<&Value>, now: &Value, new: &Value, keys: &[String]) -> Value {
    match (base, now, new) {
        (Some(base), _, _) if base == new => now.clone(),
        (Some(base), _, _) if base == now => new.clone(),
        (base, Value::Object(now), Value::Object(new)) => {
            let base = base.and_then(Value::as_object);
            let mut merged = now.clone();
            merged.retain(|key, _| new.contains_key(key) || !base.is_some_and(|base| base.contains_key(key)));
            for (key, value) in new {
                let base = base.and_then(|base| base.get(key));
                match now.get(key) {
                    Some(now) => _ = merged.insert(key.clone(), three_way(base, now, value, keys)),
                    None if base == Some(value) => {}
                    None => _ = merged.insert(key.clone(), value.clone()),
                }
            }
            Value::Object(merged)
        }
        (base, Value::Array(now), Value::Array(new)) => {
            let base = base.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let merged = keys
                .iter()
                .find_map(|key| Some(merge_by_key(&by_key(base, key)?, &by_key(now, key)?, &by_key(new, key)?, keys)));
            Value::Array(merged.unwrap_or_else(|| new.clone()))
        }
        (_, _, new) => new.clone(),
    }
}

/// The elements of a list by their key, in order; none if one has none, or two have the same.
fn by_key<'v>(list: &'v [Value], key: &str) -> Option<Vec<(String, &'v Value)>> {
    let mut seen = BTreeSet::new();
    let keyed: Option<Vec<_>> = list.iter().map(|value| Some((key_of(value, key)?, value))).collect();
    keyed.filter(|keyed| keyed.iter().all(|(name, _)| seen.insert(name.clone())))
}

/// In the author's order, then what others added.
fn merge_by_key(
    base: &[(String, &Value)],
    now: &[(String, &Value)],
    new: &[(String, &Value)],
    keys: &[String],
) -> Vec<Value> {
    let find =
        |list: &[(String, &Value)], name: &str| list.iter().find(|(of, _)| of == name).map(|(_, v)| (*v).clone());
    let mut merged = Vec::new();
    for (name, value) in new {
        let base = find(base, name);
        match find(now, name) {
            Some(now) => merged.push(three_way(base.as_ref(), &now, value, keys)),
            None if base.as_ref() == Some(value) => {}
            None => merged.push((*value).clone()),
        }
    }
    let added = now.iter().filter(|(name, _)| find(new, name).is_none() && find(base, name).is_none());
    merged.extend(added.map(|(_, value)| (*value).clone()));
    merged
}
