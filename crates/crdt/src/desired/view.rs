//! A document's contents as a tree that knows where each value stands and what it competes with.
//!
//! Automerge keeps, for one key, every value that was written concurrently, and calls the latest the winner. A view goes
//! one step further: maps that were created concurrently for one key are *laid together*, field by field, the later
//! value winning where both have one; so are lists whose elements carry a merge key, and elements of such a list that
//! were added concurrently with the same key. Which maps those are follows from the changes alone, so all who hold the
//! same changes read the same.

use std::collections::BTreeMap;

use automerge::{Automerge, ChangeHash, ObjId, ObjType, Prop, ReadDoc, ValueRef};
use serde_json::Value;

use crate::document::json::{from_owned_scalar, from_scalar};

/// Foreign implementations may nest as they like; what is deeper is read as null, so that nobody's stack overflows.
const MAX_READ_DEPTH: usize = 128;

/// One of the values written for a key or an element.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    /// The map or list that holds it.
    pub(crate) container: ObjId,
    /// Its key or index there.
    pub(crate) prop: Prop,
    /// The edit that wrote it; also the name of the map or list that it is. Ascending is later.
    pub(crate) id: ObjId,
    value: RawValue,
}

#[derive(Debug, Clone)]
enum RawValue {
    Scalar(Value),
    Object(ObjType),
}

/// What stands at one key or element.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// All values written for it, the winner last.
    pub(crate) raws: Vec<Raw>,
    /// What it is read as.
    pub(crate) node: Node,
}

/// What a slot is read as.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    /// A value without parts.
    Scalar(Value),
    /// One map, or several laid together.
    Map(MapNode),
    /// One list, or several laid together.
    List(ListNode),
}

/// One map, or several laid together.
#[derive(Debug, Clone)]
pub(crate) struct MapNode {
    /// The maps it consists of, the winner first.
    pub(crate) objects: Vec<ObjId>,
    /// Its fields.
    pub(crate) fields: BTreeMap<String, Slot>,
}

/// One list, or several laid together.
#[derive(Debug, Clone)]
pub(crate) struct ListNode {
    /// The lists it consists of, the winner first.
    pub(crate) objects: Vec<ObjId>,
    /// The field by which its elements are matched, if they are.
    pub(crate) key: Option<String>,
    /// Its elements, each with every place it stands at.
    pub(crate) elements: Vec<Slot>,
}

impl Node {
    /// The plain value.
    pub(crate) fn json(&self) -> Value {
        match self {
            Self::Scalar(value) => value.clone(),
            Self::Map(map) => {
                Value::Object(map.fields.iter().map(|(key, slot)| (key.clone(), slot.node.json())).collect())
            }
            Self::List(list) => Value::Array(list.elements.iter().map(|slot| slot.node.json()).collect()),
        }
    }

    pub(crate) fn as_map(&self) -> Option<&MapNode> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(crate) fn as_list(&self) -> Option<&ListNode> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }

    /// The maps or lists that were laid together.
    pub(crate) fn objects(&self) -> &[ObjId] {
        match self {
            Self::Scalar(_) => &[],
            Self::Map(map) => &map.objects,
            Self::List(list) => &list.objects,
        }
    }
}

/// The value of an element's merge key as text; none if it has none that can be compared.
pub(crate) fn key_of(element: &Value, key: &str) -> Option<String> {
    match element.as_object()?.get(key)? {
        Value::Null | Value::Array(_) | Value::Object(_) => None,
        scalar => Some(scalar.to_string()),
    }
}

/// Like [`key_of`], for an element as it is read.
pub(crate) fn node_key(node: &Node, key: &str) -> Option<String> {
    match &node.as_map()?.fields.get(key)?.node {
        Node::Scalar(Value::Null) => None,
        Node::Scalar(scalar) => Some(scalar.to_string()),
        _ => None,
    }
}

/// Reads views of one document, now or as it was at some heads.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    doc: &'a Automerge,
    heads: Option<&'a [ChangeHash]>,
    keys: &'a [String],
    together: bool,
}

impl<'a> Reader<'a> {
    /// Lays together what was written concurrently; `keys` are the merge keys of lists, tried in that order.
    pub(crate) fn merging(doc: &'a Automerge, heads: Option<&'a [ChangeHash]>, keys: &'a [String]) -> Self {
        Self { doc, heads, keys, together: true }
    }

    /// Of values that were written concurrently one wins whole.
    pub(crate) fn whole(doc: &'a Automerge, heads: Option<&'a [ChangeHash]>) -> Self {
        Self { doc, heads, keys: &[], together: false }
    }

    /// What stands at a key of the root.
    pub(crate) fn root(&self, key: &str) -> Option<Slot> {
        self.field(&ObjId::Root, key)
    }

    /// What stands at a key of a map.
    pub(crate) fn field(&self, map: &ObjId, key: &str) -> Option<Slot> {
        let raws = self.all(map, Prop::from(key));
        if raws.is_empty() { None } else { Some(self.slot(raws, 0)) }
    }

    /// One of several values, by itself.
    pub(crate) fn alone(&self, raw: &Raw) -> Node {
        self.slot(vec![raw.clone()], 0).node
    }

    fn all(&self, container: &ObjId, prop: Prop) -> Vec<Raw> {
        let values = match self.heads {
            None => self.doc.get_all(container, prop.clone()),
            Some(heads) => self.doc.get_all_at(container, prop.clone(), heads),
        };
        let raw = |(value, id): (automerge::Value<'_>, ObjId)| Raw {
            container: container.clone(),
            prop: prop.clone(),
            id,
            value: match value {
                automerge::Value::Object(kind) => RawValue::Object(kind),
                automerge::Value::Scalar(scalar) => RawValue::Scalar(from_owned_scalar(&scalar)),
            },
        };
        values.unwrap_or_default().into_iter().map(raw).collect()
    }

    fn one(&self, container: &ObjId, prop: Prop, id: ObjId, value: &ValueRef<'_>, conflict: bool) -> Vec<Raw> {
        if conflict {
            return self.all(container, prop);
        }
        let value = match value {
            ValueRef::Object(kind) => RawValue::Object(*kind),
            ValueRef::Scalar(scalar) => RawValue::Scalar(from_scalar(scalar)),
        };
        vec![Raw { container: container.clone(), prop, id, value }]
    }

    /// Gives a slot its reading.
    fn slot(&self, mut raws: Vec<Raw>, depth: usize) -> Slot {
        raws.sort_by(|a, b| a.id.cmp(&b.id));
        let node = match raws.last() {
            None => Node::Scalar(Value::Null),
            Some(_) if depth > MAX_READ_DEPTH => Node::Scalar(Value::Null),
            Some(winner) => match &winner.value {
                RawValue::Scalar(value) => Node::Scalar(value.clone()),
                RawValue::Object(ObjType::Text) => Node::Scalar(Value::String(self.text(&winner.id))),
                RawValue::Object(ObjType::List) => {
                    Node::List(self.list(self.alike(&raws, |kind| kind == ObjType::List), depth))
                }
                RawValue::Object(ObjType::Map | ObjType::Table) => {
                    let maps = self.alike(&raws, |kind| matches!(kind, ObjType::Map | ObjType::Table));
                    Node::Map(self.map(maps, depth))
                }
            },
        };
        Slot { raws, node }
    }

    /// The objects among competing values that are of one kind, the latest first.
    fn alike(&self, raws: &[Raw], kind: impl Fn(ObjType) -> bool) -> Vec<ObjId> {
        let alike = raws.iter().rev().filter(|raw| matches!(raw.value, RawValue::Object(k) if kind(k)));
        alike.map(|raw| raw.id.clone()).take(if self.together { usize::MAX } else { 1 }).collect()
    }

    fn text(&self, object: &ObjId) -> String {
        let text = match self.heads {
            None => self.doc.text(object),
            Some(heads) => self.doc.text_at(object, heads),
        };
        text.unwrap_or_default()
    }

    fn map(&self, objects: Vec<ObjId>, depth: usize) -> MapNode {
        let mut raws: BTreeMap<String, Vec<Raw>> = BTreeMap::new();
        for object in &objects {
            let items = match self.heads {
                None => self.doc.map_range(object, ..),
                Some(heads) => self.doc.map_range_at(object, .., heads),
            };
            for item in items {
                let found = self.one(object, Prop::from(&*item.key), item.id(), &item.value, item.conflict);
                raws.entry(item.key.to_string()).or_default().extend(found);
            }
        }
        let fields = raws.into_iter().map(|(key, raws)| (key, self.slot(raws, depth + 1))).collect();
        MapNode { objects, fields }
    }

    fn list(&self, mut objects: Vec<ObjId>, depth: usize) -> ListNode {
        let mut lists: Vec<Vec<Slot>> = objects.iter().map(|object| self.elements(object, depth)).collect();
        for key in self.keys {
            if let Some(elements) = self.by_key(&lists, key, depth) {
                let key = if elements.is_empty() { None } else { Some(key.clone()) };
                return ListNode { objects, key, elements };
            }
        }
        objects.truncate(1);
        let elements = if lists.is_empty() { Vec::new() } else { lists.swap_remove(0) };
        ListNode { objects, key: None, elements }
    }

    fn elements(&self, list: &ObjId, depth: usize) -> Vec<Slot> {
        let items = match self.heads {
            None => self.doc.list_range(list, ..),
            Some(heads) => self.doc.list_range_at(list, .., heads),
        };
        items
            .map(|item| {
                let raws = self.one(list, Prop::Seq(item.index), item.id(), &item.value, item.conflict);
                self.slot(raws, depth + 1)
            })
            .collect()
    }

    /// Lays lists together by a key; none if an element has no such key, or if two have the same although the one who
    /// added the second saw the first: then somebody wants both.
    fn by_key(&self, lists: &[Vec<Slot>], key: &str, depth: usize) -> Option<Vec<Slot>> {
        let mut order: Vec<String> = Vec::new();
        let mut groups: BTreeMap<String, Vec<&Slot>> = BTreeMap::new();
        for slot in lists.iter().flatten() {
            let name = node_key(&slot.node, key)?;
            let group = groups.entry(name.clone()).or_default();
            if group.is_empty() {
                order.push(name);
            } else if !group.iter().all(|other| self.unseen(other, slot)) {
                return None;
            }
            group.push(slot);
        }
        let element = |name: String| {
            let group = groups.get(&name)?;
            Some(match group.as_slice() {
                [only] => (*only).clone(),
                several => self.slot(several.iter().flat_map(|slot| slot.raws.iter().cloned()).collect(), depth + 1),
            })
        };
        Some(order.into_iter().filter_map(element).collect())
    }

    /// Whether neither of two elements was there for the one who added the other.
    fn unseen(&self, a: &Slot, b: &Slot) -> bool {
        let (Some(a), Some(b)) = (a.raws.last(), b.raws.last()) else { return false };
        // Elements of lists that were themselves created concurrently.
        if a.container != b.container {
            return true;
        }
        let (Some(change_a), Some(change_b)) = (self.doc.hash_for_opid(&a.id), self.doc.hash_for_opid(&b.id)) else {
            return false;
        };
        let sees = |change: ChangeHash, id: &ObjId| {
            self.doc.list_range_at(&a.container, .., &[change]).any(|item| item.id() == *id)
        };
        change_a != change_b && !sees(change_a, &b.id) && !sees(change_b, &a.id)
    }
}
