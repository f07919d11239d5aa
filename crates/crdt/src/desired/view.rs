//! A document's contents as a tree that knows where each value stands and what it competes with.
//!
//! Automerge keeps, for one key, every value that was written concurrently, and calls the latest the winner. A view goes
//! one step further: maps that were created concurrently for one key are *laid together*, field by field, the later
//! value winning where both have one; so are lists whose elements carry a merge key, and elements of such a list that
//! were added concurrently with the same key. Which maps those are follows from the changes alone, so all who hold the
//! same changes read the same.

use std::borrow::Cow;
use std::collections::BTreeMap;

use automerge::iter::DocItem;
use automerge::{Automerge, ChangeHash, ObjId, ObjType, Prop, ReadDoc, ValueRef};
use serde_json::Value;

use crate::document::json::{from_owned_scalar, from_scalar};

/// Foreign implementations may nest as they like; what is deeper is read as null, so that nobody's stack overflows.
const MAX_READ_DEPTH: usize = 128;

/// How deep below the overrides a list is a patch: there is one value for each site.
const PATCH_DEPTH: usize = 1;

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

/// A value, to be read in one of two ways.
enum ValueOf<'a> {
    Scalar(Cow<'a, Value>),
    Object(ObjType),
}

impl RawValue {
    fn borrowed(&self) -> ValueOf<'_> {
        match self {
            Self::Scalar(value) => ValueOf::Scalar(Cow::Borrowed(value)),
            Self::Object(kind) => ValueOf::Object(*kind),
        }
    }
}

/// What stands at one key or element.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// All values written for it, the winner last.
    pub(crate) raws: Vec<Raw>,
    /// What it is read as.
    pub(crate) node: Node,
}

impl Slot {
    /// Whether it is one of several lists that could not be laid together as they are. An edit inside the one might
    /// make it so, and bring the others in.
    pub(crate) fn is_divided(&self) -> bool {
        let Node::List(list) = &self.node else { return false };
        let others = self.raws.iter().filter(|raw| matches!(raw.value, RawValue::Object(ObjType::List)));
        others.count() > list.objects.len()
    }

    /// Whether several values stand here, or anywhere within what this is read as.
    pub(crate) fn has_several(&self) -> bool {
        self.raws.len() > 1
            || match &self.node {
                Node::Scalar(_) => false,
                Node::Map(map) => map.fields.values().any(Self::has_several),
                Node::List(list) => list.elements.iter().any(Self::has_several),
            }
    }
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
    /// It is one value, that is written whole and never laid together: the steps of a patch mean nothing one by one.
    pub(crate) is_one: bool,
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

/// The contents of objects, collected in one pass: to seek them one by one takes ten times as long.
struct Survey<'a>(BTreeMap<ObjId, Vec<Entry<'a>>>);

struct Entry<'a> {
    prop: Prop,
    id: ObjId,
    value: ValueRef<'a>,
    conflict: bool,
}

impl<'a> Survey<'a> {
    /// All that is below these values. What lost against others is not in it, and read the slow way.
    fn below(doc: &'a Automerge, heads: Option<&[ChangeHash]>, raws: &[Raw]) -> Self {
        let mut found: BTreeMap<ObjId, Vec<Entry<'a>>> = BTreeMap::new();
        for raw in raws.iter().filter(|raw| matches!(raw.value, RawValue::Object(ObjType::Map | ObjType::List))) {
            found.entry(raw.id.clone()).or_default();
            for item in doc.iter_at(&raw.id, heads) {
                let entry = match item.item {
                    DocItem::Map(item) => Entry {
                        prop: Prop::from(&*item.key),
                        id: item.id(),
                        conflict: item.conflict,
                        value: item.value,
                    },
                    DocItem::List(item) => {
                        Entry { prop: Prop::Seq(item.index), id: item.id(), conflict: item.conflict, value: item.value }
                    }
                    DocItem::Text(_) => continue,
                };
                if matches!(entry.value, ValueRef::Object(ObjType::Map | ObjType::List)) {
                    found.entry(entry.id.clone()).or_default();
                }
                match found.get_mut(&*item.obj) {
                    Some(entries) => entries.push(entry),
                    None => _ = found.insert((*item.obj).clone(), vec![entry]),
                }
            }
        }
        Self(found)
    }
}

/// Reads views of one document, now or as it was at some heads.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    survey: Option<&'a Survey<'a>>,
    doc: &'a Automerge,
    heads: Option<&'a [ChangeHash]>,
    keys: &'a [String],
    together: bool,
    /// What is read are the overrides: a list that stands for a site is a JSON patch.
    patches: bool,
}

impl<'a> Reader<'a> {
    /// Lays together what was written concurrently; `keys` are the merge keys of lists, tried in that order.
    pub(crate) fn merging(doc: &'a Automerge, heads: Option<&'a [ChangeHash]>, keys: &'a [String]) -> Self {
        Self { survey: None, doc, heads, keys, together: true, patches: false }
    }

    /// Of values that were written concurrently one wins whole.
    pub(crate) fn whole(doc: &'a Automerge, heads: Option<&'a [ChangeHash]>) -> Self {
        Self { survey: None, doc, heads, keys: &[], together: false, patches: false }
    }

    /// What stands at a key of the root.
    pub(crate) fn root(&self, key: &str) -> Option<Slot> {
        Reader { patches: key == "overrides", ..*self }.field(&ObjId::Root, key)
    }

    /// The values written for a key of the root, the winner last, and nothing of what is in them.
    pub(crate) fn written(&self, key: &str) -> Vec<Raw> {
        let mut raws = self.all(&ObjId::Root, Prop::from(key));
        raws.sort_by(|a, b| a.id.cmp(&b.id));
        raws
    }

    /// What stands at a key of a map.
    pub(crate) fn field(&self, map: &ObjId, key: &str) -> Option<Slot> {
        let raws = self.all(map, Prop::from(key));
        if raws.is_empty() {
            return None;
        }
        let survey = Survey::below(self.doc, self.heads, &raws);
        Some(Reader { survey: Some(&survey), ..*self }.slot(raws, 0))
    }

    /// The plain value at a key of the root, where of concurrent values one wins whole, and whether anything in it was
    /// written concurrently. Without the tree, since there may be thousands of operations.
    pub(crate) fn root_json(&self, key: &str) -> Option<(Value, bool)> {
        let raws = self.all(&ObjId::Root, Prop::from(key));
        let winner = raws.last()?;
        let survey = Survey::below(self.doc, self.heads, std::slice::from_ref(winner));
        let several = raws.len() > 1 || survey.0.values().flatten().any(|entry| entry.conflict);
        let reader = Reader { survey: Some(&survey), ..*self };
        Some((reader.plain(&winner.id, winner.value.borrowed(), 0), several))
    }

    fn plain(&self, id: &ObjId, value: ValueOf<'_>, depth: usize) -> Value {
        let entries = match value {
            ValueOf::Scalar(value) => return value.into_owned(),
            ValueOf::Object(_) if depth > MAX_READ_DEPTH => return Value::Null,
            ValueOf::Object(ObjType::Text) => return Value::String(self.text(id)),
            ValueOf::Object(_) => self.survey.and_then(|survey| survey.0.get(id)),
        };
        let of = |entry: &Entry<'_>| match &entry.value {
            ValueRef::Object(kind) => self.plain(&entry.id, ValueOf::Object(*kind), depth + 1),
            ValueRef::Scalar(scalar) => from_scalar(scalar),
        };
        match value {
            ValueOf::Object(ObjType::List) => Value::Array(entries.into_iter().flatten().map(of).collect()),
            _ => {
                let field = |entry: &Entry<'_>| match &entry.prop {
                    Prop::Map(key) => Some((key.clone(), of(entry))),
                    Prop::Seq(_) => None,
                };
                Value::Object(entries.into_iter().flatten().filter_map(field).collect())
            }
        }
    }

    /// Whether anything below a key of the root was written concurrently.
    pub(crate) fn is_contested(&self, key: &str) -> bool {
        let raws = self.all(&ObjId::Root, Prop::from(key));
        let survey = Survey::below(self.doc, self.heads, &raws);
        raws.len() > 1 || survey.0.values().flatten().any(|entry| entry.conflict)
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
                    let is_one = self.patches && depth == PATCH_DEPTH;
                    Node::List(self.list(self.alike(&raws, |kind| kind == ObjType::List), depth, is_one))
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
            let mut add = |key: &str, found| match raws.get_mut(key) {
                Some(raws) => raws.extend::<Vec<Raw>>(found),
                None => _ = raws.insert(key.to_owned(), found),
            };
            if let Some(entries) = self.survey.and_then(|survey| survey.0.get(object)) {
                for entry in entries {
                    let Prop::Map(key) = &entry.prop else { continue };
                    add(key, self.one(object, entry.prop.clone(), entry.id.clone(), &entry.value, entry.conflict));
                }
                continue;
            }
            let items = match self.heads {
                None => self.doc.map_range(object, ..),
                Some(heads) => self.doc.map_range_at(object, .., heads),
            };
            for item in items {
                add(&item.key, self.one(object, Prop::from(&*item.key), item.id(), &item.value, item.conflict));
            }
        }
        let fields = raws.into_iter().map(|(key, raws)| (key, self.slot(raws, depth + 1))).collect();
        MapNode { objects, fields }
    }

    fn list(&self, mut objects: Vec<ObjId>, depth: usize, is_one: bool) -> ListNode {
        let mut lists: Vec<Vec<Slot>> = objects.iter().map(|object| self.elements(object, depth)).collect();
        for key in if is_one { &[] } else { self.keys } {
            if let Some(elements) = self.by_key(&lists, key, depth) {
                let key = if elements.is_empty() { None } else { Some(key.clone()) };
                return ListNode { objects, key, elements, is_one };
            }
        }
        objects.truncate(1);
        let elements = if lists.is_empty() { Vec::new() } else { lists.swap_remove(0) };
        ListNode { objects, key: None, elements, is_one }
    }

    fn elements(&self, list: &ObjId, depth: usize) -> Vec<Slot> {
        if let Some(entries) = self.survey.and_then(|survey| survey.0.get(list)) {
            let raws =
                |entry: &Entry<'_>| self.one(list, entry.prop.clone(), entry.id.clone(), &entry.value, entry.conflict);
            return entries.iter().map(|entry| self.slot(raws(entry), depth + 1)).collect();
        }
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

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{Actor, Author, DocumentId, Hlc, Mode, Placement, Replicant, ReplicantId, SiteName, Spec};

    /// Small JSON values that meet often: few names, lists with and without a key.
    pub(crate) fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![(0..3_i64).prop_map(Value::from), Just(Value::Null)];
        leaf.prop_recursive(3, 12, 3, |inner| {
            let named = ("[pq]", inner.clone()).prop_map(|(name, x)| json!({"name": name, "x": x}));
            prop_oneof![
                prop::collection::btree_map("[ab]", inner.clone(), 0..3).prop_map(|fields| json!(fields)),
                prop::collection::vec(named, 0..3).prop_map(Value::from),
                prop::collection::vec(inner, 0..3).prop_map(Value::from),
            ]
        })
    }

    fn replicant(number: u8) -> Replicant {
        let id = DocumentId { replicant: ReplicantId::new("it").unwrap(), epoch: 0 };
        Replicant::genesis(id, &Actor::new([number; 16])).unwrap()
    }

    proptest! {
        /// The quick ways to read give what the plain way gives.
        #[test]
        fn a_survey_changes_nothing(edits in prop::collection::vec((any::<bool>(), any::<bool>(), value()), 1..10)) {
            let site = SiteName::new("paris").unwrap();
            let author = Author { site: site.clone(), at: Hlc(1), who: String::new(), why: String::new() };
            let placement = Placement {
                sites: [site.clone()].into(), leaving: [].into(), mode: Mode::Replicate, prime: None,
                expression: "paris".into(), decided_at: Hlc(1), decided_by: site,
            };
            let spec = Spec {
                kind: "files".into(), scope: "paris".into(), placement, policy: Default::default(),
                desired: json!({}), overrides: [].into(),
            };
            let (mut a, mut b) = (replicant(1), replicant(2));
            a.create(&author, spec.clone()).unwrap();
            b.create(&author, spec).unwrap();
            for (at_a, meet, value) in edits {
                let at = if at_a { &mut a } else { &mut b };
                at.set_desired(&author, &value, None).unwrap();
                if meet {
                    let bytes = |from: &Replicant| from.changes_since(&[]).into_iter().map(|c| c.bytes).collect::<Vec<_>>();
                    a.apply(&bytes(&b)).unwrap();
                    b.apply(&bytes(&a)).unwrap();
                }
                let keys = ["name".to_owned()];
                for reader in [Reader::merging(&a.doc, None, &keys), Reader::whole(&a.doc, None)] {
                    let quick = reader.root("desired").unwrap();
                    let plain = reader.slot(reader.all(&ObjId::Root, Prop::from("desired")), 0);
                    prop_assert_eq!(quick.node.json(), plain.node.json());
                    prop_assert_eq!(format!("{quick:?}"), format!("{plain:?}"));
                    if !reader.together {
                        prop_assert_eq!(reader.root_json("desired").unwrap().0, plain.node.json());
                    }
                }
            }
        }
    }
}
