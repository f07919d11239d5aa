//! Fields that were set concurrently, and choosing between what they were set to.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::author::Message;
use super::closing::kept_in;
use super::edit::Edit;
use super::state::placements;
use super::{Author, ChangeHash, EditError, Replicant};
use crate::desired::edit::Editor;
use crate::desired::view::{Node, Raw, Reader, Slot};
use crate::{Hlc, Placement, SiteName};

use automerge::ReadDoc;
use automerge::transaction::Transactable;

/// One step into a document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(untagged)]
pub enum PathPart {
    /// A field of a map.
    Key(String),
    /// An element of a list as it is read, from 0.
    Index(usize),
}

impl fmt::Display for PathPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => f.write_str(&key.replace('~', "~0").replace('/', "~1")),
            Self::Index(index) => write!(f, "{index}"),
        }
    }
}

/// A field for which several values were set concurrently. One of them counts everywhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Conflict {
    /// Where it is, from the root of the document: `desired`, `spec`, `replicas`. As text it is a JSON pointer.
    #[serde(serialize_with = "write_pointer", deserialize_with = "read_pointer")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub path: Vec<PathPart>,
    /// The values: the one that counts, then the others, the latest first; equal ones once.
    pub values: Vec<ConflictValue>,
}

/// One of the values of a conflict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConflictValue {
    /// The value.
    pub value: Value,
    /// Whether it is the one that counts.
    pub winner: bool,
    /// The site at which it was set, if its author said so.
    pub by: Option<SiteName>,
    /// Who set it.
    pub who: String,
    /// When it was set.
    pub at: Hlc,
    /// The change that set it; what [`Replicant::pick`] is told.
    pub change: ChangeHash,
}

impl Conflict {
    /// The path as a JSON pointer (RFC 6901), such as `/desired/spec/replicas`.
    #[must_use]
    pub fn pointer(&self) -> String {
        self.path.iter().map(|part| format!("/{part}")).collect()
    }
}

fn write_pointer<S: Serializer>(path: &[PathPart], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.iter().map(|part| format!("/{part}")).collect::<String>())
}

/// A part made of digits only reads as an index: as text the two are the same.
fn read_pointer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathPart>, D::Error> {
    Ok(parts(&String::deserialize(deserializer)?))
}

fn parts(pointer: &str) -> Vec<PathPart> {
    let part = |part: &str| part.parse().map_or_else(|_| PathPart::Key(unescape(part)), PathPart::Index);
    pointer.split('/').skip(1).map(part).collect()
}

/// The roots of a document that can be set twice. A second deletion is no conflict.
const ROOTS: [&str; 7] = ["kind", "scope", "placement", "policy", "desired", "overrides", "operations"];

impl Replicant {
    /// Every field that has concurrent values which differ, in the order of the document.
    ///
    /// Maps that were created concurrently are laid together and do not conflict by themselves, their fields may.
    /// Placements conflict where they name other sites, not by when they were decided.
    #[must_use]
    pub fn conflicts(&self) -> Vec<Conflict> {
        let keys = self.list_keys();
        let mut found = Vec::new();
        // What was read anyway says whether there is anything to look for.
        let contested = self.reading.get().is_none_or(|reading| reading.contested);
        for root in ROOTS.into_iter().filter(|_| contested) {
            let reader = self.reader(root, &keys);
            if root == "operations" && !reader.is_contested(root) {
                continue;
            }
            if let Some(slot) = reader.root(root) {
                self.collect(&reader, &mut vec![PathPart::Key(root.to_owned())], &slot, &mut found);
            }
        }
        for (pointer, values) in self.kept() {
            if !found.iter().any(|conflict| conflict.pointer() == pointer) {
                found.push(Conflict { path: parts(&pointer), values: values.clone() });
            }
        }
        found
    }

    /// Conflicts of closed epochs that nobody has settled since: nothing was written there, and nobody has picked.
    fn kept(&self) -> Vec<(String, &Vec<ConflictValue>)> {
        let Some(closing) = self.closing().filter(|closing| !closing.conflicts.is_empty()) else { return Vec::new() };
        let Some(map) = kept_in(&self.doc, &closing.cut) else { return Vec::new() };
        let unsettled = |pointer: &str, values: &[ConflictValue]| {
            let Some(place) = self.place(pointer, &self.list_keys()) else { return false };
            let untouched = match place.slot.raws.as_slice() {
                [only] => self.doc.hash_for_opid(&only.id).is_some_and(|hash| hash.0 == closing.change.0),
                _ => false,
            };
            let stands = place.slot.node.json();
            untouched && values.iter().any(|value| value.winner && value.value == stands)
        };
        closing
            .conflicts
            .iter()
            .filter(|(pointer, _)| matches!(self.doc.get(&map, pointer.as_str()), Ok(Some(_))))
            .filter(|(pointer, values)| unsettled(pointer, values))
            .map(|(pointer, values)| (pointer.clone(), values))
            .collect()
    }

    /// The plain value at a JSON pointer.
    pub(crate) fn value_at(&self, pointer: &str) -> Option<Value> {
        self.place(pointer, &self.list_keys()).map(|place| place.slot.node.json())
    }

    fn place(&self, path: &str, keys: &[String]) -> Option<Place> {
        let mut parts = path.strip_prefix('/')?.split('/').map(unescape);
        let root = parts.next().filter(|root| ROOTS.contains(&root.as_str()))?;
        let top = self.reader(&root, keys).root(&root)?;
        let mut slot = &top;
        let mut maps = vec![automerge::ROOT];
        let mut last = root.clone();
        for part in parts {
            let (objects, next) = match &slot.node {
                Node::Map(map) => (map.objects.clone(), map.fields.get(&part)),
                Node::List(list) => (Vec::new(), part.parse().ok().and_then(|i: usize| list.elements.get(i))),
                Node::Scalar(_) => (Vec::new(), None),
            };
            (slot, maps, last) = (next?, objects, part);
        }
        Some(Place { root, maps, key: last, slot: slot.clone() })
    }

    fn reader<'a>(&'a self, root: &str, keys: &'a [String]) -> Reader<'a> {
        match root {
            "desired" | "overrides" => Reader::merging(&self.doc, None, keys),
            "policy" => Reader::merging(&self.doc, None, &[]),
            _ => Reader::whole(&self.doc, None),
        }
    }

    fn collect(&self, reader: &Reader<'_>, path: &mut Vec<PathPart>, slot: &Slot, found: &mut Vec<Conflict>) {
        let values = self.competing(reader, slot);
        if values.len() > 1 && !(path.len() == 1 && same_sites(path, &values)) {
            found.push(Conflict { path: path.clone(), values });
        }
        let mut within = |part, slot| {
            path.push(part);
            self.collect(reader, path, slot, found);
            path.pop();
        };
        match &slot.node {
            Node::Scalar(_) => {}
            Node::Map(map) => map.fields.iter().for_each(|(key, slot)| within(PathPart::Key(key.clone()), slot)),
            Node::List(list) => list.elements.iter().enumerate().for_each(|(i, slot)| within(PathPart::Index(i), slot)),
        }
    }

    fn competing(&self, reader: &Reader<'_>, slot: &Slot) -> Vec<ConflictValue> {
        let Some((winner, losers)) = slot.raws.split_last().filter(|(_, losers)| !losers.is_empty()) else {
            return Vec::new();
        };
        let mut values: Vec<ConflictValue> = Vec::new();
        values.extend(self.conflict_value(winner, slot.node.json(), true));
        for loser in losers.iter().rev().filter(|loser| !slot.node.objects().contains(&loser.id)) {
            let value = reader.alone(loser).json();
            if !values.iter().any(|known| known.value == value) {
                values.extend(self.conflict_value(loser, value, false));
            }
        }
        values
    }

    fn conflict_value(&self, raw: &Raw, value: Value, winner: bool) -> Option<ConflictValue> {
        let hash = self.doc.hash_for_opid(&raw.id)?;
        let meta = self.doc.get_change_meta_by_hash(&hash)?;
        let author = meta.message.as_deref().and_then(Message::parse).map(|message| message.author);
        let (by, who, at) = author.map_or((None, String::new(), Hlc::default()), |a| (Some(a.site), a.who, a.at));
        Some(ConflictValue { value, winner, by, who, at, change: hash.into() })
    }

    /// Chooses one value of a conflict: that which `change` set at the path, a JSON pointer as conflicts name it. It is
    /// written in place of all, so that the conflict is gone wherever this arrives. Two who choose the same at once, or
    /// one of whom chooses what counts anyway, end it too; two who choose two others have a new one between these.
    /// Of placements, whoever only those named that are not chosen counts as leaving.
    ///
    /// # Errors
    /// [`EditError::NoSuchPath`], [`EditError::NoSuchValue`], or that the replicant is not created or deleted.
    pub fn pick(&mut self, author: &Author, path: &str, change: &ChangeHash) -> Edit {
        self.pick_knowing(author, path, change, &BTreeSet::new())
    }

    /// [`pick`](Self::pick) by somebody who knows which sites have cleaned up: of placements, these do not leave once more.
    ///
    /// # Errors
    /// As for [`pick`](Self::pick).
    pub fn pick_knowing(
        &mut self,
        author: &Author,
        path: &str,
        change: &ChangeHash,
        cleaned: &BTreeSet<SiteName>,
    ) -> Edit {
        self.editable()?;
        match self.choice(path, change, Some(cleaned))? {
            Some(choice) => self.make(author, "pick", None, 0, |tx| choice.write(tx)),
            None => Ok(None),
        }
    }

    /// [`pick`](Self::pick), carried over from an earlier epoch: the value as it is. None if there is nothing to choose.
    pub(crate) fn pick_as(
        &mut self,
        actor: &automerge::ActorId,
        message: &Message,
        path: &str,
        change: &ChangeHash,
    ) -> Edit {
        match self.choice(path, change, None)? {
            Some(choice) => self.make_as(actor, message, |tx| choice.write(tx)).map(Some),
            None => Ok(None),
        }
    }

    fn choice(
        &self,
        path: &str,
        change: &ChangeHash,
        cleaned: Option<&BTreeSet<SiteName>>,
    ) -> Result<Option<Choice>, EditError> {
        let nowhere = || EditError::NoSuchPath { path: path.to_owned() };
        let keys = self.list_keys();
        let place = self.place(path, &keys).ok_or_else(nowhere)?;
        let kept = self.kept().into_iter().find(|(pointer, _)| pointer == path);
        if let Some(value) = kept.and_then(|(_, values)| values.iter().find(|value| value.change == *change)) {
            let value = value.clone();
            let map = self.closing().and_then(|closing| kept_in(&self.doc, &closing.cut));
            return Ok(map.map(|map| Choice {
                value: (!value.winner).then_some(value.value),
                place,
                kept: Some((map, path.to_owned())),
            }));
        }
        let reader = self.reader(&place.root, &keys);
        let slot = &place.slot;
        let chosen =
            slot.raws.iter().rev().find(|raw| self.doc.hash_for_opid(&raw.id).is_some_and(|hash| hash.0 == change.0));
        let wrong = || EditError::NoSuchValue { path: path.to_owned(), change: *change };
        let chosen = chosen.ok_or_else(wrong)?;
        let value =
            if slot.node.objects().contains(&chosen.id) { slot.node.json() } else { reader.alone(chosen).json() };
        if self.competing(&reader, slot).len() < 2 {
            return Ok(None);
        }
        let value = match cleaned {
            Some(cleaned) if path == "/placement" => with_leaving(value, &placements(&self.doc), cleaned),
            _ => value,
        };
        Ok(Some(Choice { value: Some(value), place, kept: None }))
    }
}

/// Where a field or an element stands.
struct Place {
    root: String,
    maps: Vec<automerge::ObjId>,
    key: String,
    slot: Slot,
}

/// One value of a conflict, to be written in place of all.
struct Choice {
    place: Place,
    /// None if it stands there already.
    value: Option<Value>,
    /// The conflict was kept from an earlier epoch: here, under this name.
    kept: Option<(automerge::ObjId, String)>,
}

impl Choice {
    fn write(&self, tx: &mut automerge::transaction::Transaction<'_>) -> Result<(), automerge::AutomergeError> {
        if let Some((map, pointer)) = &self.kept {
            tx.delete(map, pointer.as_str())?;
        }
        let Some(value) = &self.value else { return Ok(()) };
        let place = &self.place;
        pick(&mut Editor { tx, keys: &[] }, &place.maps, &place.key, &place.slot, value)
    }
}

impl Conflict {
    /// Whether it goes on in the next epoch. Placements that compete are laid together there.
    pub(crate) fn can_be_kept(&self) -> bool {
        let root = self.path.first();
        !["placement", "operations"].iter().any(|no| root == Some(&PathPart::Key((*no).to_owned())))
    }
}

fn pick<T: Transactable>(
    editor: &mut Editor<'_, T>,
    maps: &[automerge::ObjId],
    key: &str,
    slot: &Slot,
    value: &Value,
) -> Result<(), automerge::AutomergeError> {
    if !maps.is_empty() {
        return editor.write_field(maps, key, Some(slot), value);
    }
    let mut doomed = Default::default();
    editor.write_element(slot, value, &mut doomed)?;
    editor.remove_elements(doomed)
}

fn unescape(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

/// A placement that is chosen: whoever only the others named has something to clean up still.
fn with_leaving(mut chosen: Value, all: &[Placement], cleaned: &BTreeSet<SiteName>) -> Value {
    let stays = |site: &str| chosen.get("sites").and_then(|sites| sites.get(site)).is_some();
    let gone = |site: &SiteName| cleaned.contains(site);
    let leaves = all.iter().flat_map(Placement::holders).filter(|site| !stays(site.as_str()) && !gone(site));
    let leaving = leaves.map(|site| (site.to_string(), Value::Bool(true))).collect();
    if let Some(fields) = chosen.as_object_mut() {
        fields.insert("leaving".to_owned(), Value::Object(leaving));
    }
    chosen
}

/// Whether competing placements come to the same.
fn same_sites(path: &[PathPart], values: &[ConflictValue]) -> bool {
    if path != [PathPart::Key("placement".to_owned())] {
        return false;
    }
    let essence = |value: &ConflictValue| ["sites", "mode", "prime"].map(|key| value.value.get(key).cloned());
    values.windows(2).all(|pair| matches!(pair, [a, b] if essence(a) == essence(b)))
}
