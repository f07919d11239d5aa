//! What has been read of a document, and what of it stays good after a change.

use std::collections::BTreeSet;

use automerge::legacy::{Key, ObjectId};
use automerge::{Automerge, ObjId, Prop, ReadDoc};
use serde_json::Value;

use super::closing::Closing;
use super::state::{State, list_keys, overrides_of, placement_of, policy_of, read_deleted, read_ended, read_operation};
use crate::desired::view::{Reader, Slot};
use crate::{OperationId, Operations};

/// What was read of a document at once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reading {
    pub(crate) state: State,
    /// Whether anything may have several values. Where this is not so, there are no conflicts but those of closed epochs.
    pub(crate) contested: bool,
}

impl Reading {
    pub(crate) fn of(doc: &Automerge, closing: Option<&Closing>) -> Self {
        let whole = Reader::whole(doc, None);
        let mut contested = false;
        let mut look = |slot: Option<Slot>| {
            contested |= slot.as_ref().is_some_and(Slot::has_several);
            slot
        };
        let text = |slot: Option<Slot>| match slot.map(|slot| slot.node.json()) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let kind = text(look(whole.root("kind")));
        let scope = text(look(whole.root("scope")));
        let placement = look(whole.root("placement")).and_then(|slot| placement_of(&whole, &slot));
        let policy = policy_of(look(Reader::merging(doc, None, &[]).root("policy")));
        let keys = list_keys(&policy);
        let merging = Reader::merging(doc, None, &keys);
        let desired = look(merging.root("desired")).map_or(Value::Null, |slot| slot.node.json());
        let overrides = overrides_of(look(merging.root("overrides")));
        let ended = read_ended(doc);
        let mut base = closing.map(|closing| closing.base.clone()).unwrap_or_default();
        base.operations.retain(|op| !ended.contains(&op.id));
        let (operations, several) = operations_of(doc, closing, &ended);
        let deleted = read_deleted(doc);
        let state = State { kind, scope, placement, policy, desired, overrides, base, operations, deleted };
        Self { state, contested: contested || several }
    }

    /// What would be read now that nothing was written but below these roots. None where all must be read anew to know
    /// whether anything still has several values.
    pub(crate) fn after(
        mut self,
        doc: &Automerge,
        closing: Option<&Closing>,
        written: &BTreeSet<Root>,
    ) -> Option<Self> {
        if self.contested {
            return None;
        }
        let keys = list_keys(&self.state.policy);
        let mut contested = false;
        let mut look = |root: &str| {
            let slot = Reader::merging(doc, None, &keys).root(root);
            contested |= slot.as_ref().is_some_and(Slot::has_several);
            slot
        };
        let mut several = false;
        for root in written {
            match root {
                Root::Desired => {
                    self.state.desired = look("desired").map_or(Value::Null, |slot| slot.node.json());
                }
                Root::Overrides => self.state.overrides = overrides_of(look("overrides")),
                Root::Operations => {
                    (self.state.operations, several) = operations_of(doc, closing, &read_ended(doc));
                }
            }
        }
        self.contested = contested || several;
        Some(self)
    }
}

fn operations_of(doc: &Automerge, closing: Option<&Closing>, ended: &BTreeSet<OperationId>) -> (Operations, bool) {
    let (entries, several) = Reader::whole(doc, None).root_json("operations").unwrap_or_default();
    let operations = match entries {
        Value::Object(entries) => entries
            .into_iter()
            .filter_map(|(id, value)| read_operation(id, value))
            // What was carried over here and closed over there counts once.
            .filter(|op| closing.is_none_or(|closing| !closing.has_operation(&op.id)))
            .filter(|op| !ended.contains(&op.id))
            .map(|op| (op.id.clone(), op))
            .collect(),
        _ => Operations::new(),
    };
    (operations, several)
}

/// The roots that are written often, and of which no other root's reading depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Root {
    Desired,
    Overrides,
    Operations,
}

impl Root {
    /// None for all others.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "desired" => Some(Self::Desired),
            "overrides" => Some(Self::Overrides),
            "operations" => Some(Self::Operations),
            _ => None,
        }
    }
}

/// Of changes with more edits than this it is not found out what they wrote to: to read all is as fast.
const MAX_EDITS: usize = 64;

/// The roots that changes, which are in the document, wrote to or below. None if there may be others than [`Root`]s.
pub(crate) fn written_by(doc: &Automerge, changes: &[automerge::Change]) -> Option<BTreeSet<Root>> {
    if changes.iter().map(automerge::Change::len).sum::<usize>() > MAX_EDITS {
        return None;
    }
    let mut roots = BTreeSet::new();
    let mut known: Vec<(ObjId, Root)> = Vec::new();
    for change in changes {
        for edit in change.decode().operations {
            let root = match (edit.obj, edit.key) {
                (ObjectId::Root, Key::Map(key)) => Root::named(&key)?,
                (ObjectId::Root, Key::Seq(_)) => return None,
                (ObjectId::Id(id), _) => {
                    // The last part is a hint, for speed.
                    let object = ObjId::Id(id.counter(), id.actor().clone(), 0);
                    match known.iter().find(|(known, _)| *known == object) {
                        Some((_, root)) => *root,
                        None => {
                            let top = doc.parents(&object).ok()?.last()?;
                            let Prop::Map(name) = top.prop else { return None };
                            let root = Root::named(&name).filter(|_| top.obj == ObjId::Root)?;
                            known.push((object, root));
                            root
                        }
                    }
                }
            };
            roots.insert(root);
        }
    }
    Some(roots)
}
#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::desired::view::tests::value;
    use crate::document::{Actor, Author, Replicant, Spec};
    use crate::{DocumentId, Hlc, Mode, Payload, Placement, Policy, ReplicantId, SiteName};

    #[derive(Debug, Clone)]
    enum Edit {
        Desired(Value),
        Overrides(Value),
        Operate(u8),
        Keys(bool),
        Scope(bool),
        Delete,
        Create,
    }

    fn edit() -> impl Strategy<Value = Edit> {
        prop_oneof![
            8 => value().prop_map(Edit::Desired),
            3 => value().prop_map(Edit::Overrides),
            4 => (0..6_u8).prop_map(Edit::Operate),
            1 => any::<bool>().prop_map(Edit::Keys),
            1 => any::<bool>().prop_map(Edit::Scope),
            1 => Just(Edit::Delete),
            1 => Just(Edit::Create),
        ]
    }

    fn placement() -> Placement {
        let site = SiteName::new("paris").unwrap();
        Placement {
            sites: [site.clone()].into(),
            leaving: [].into(),
            mode: Mode::Replicate,
            prime: None,
            expression: "paris".into(),
            decided_at: Hlc(1),
            decided_by: site,
        }
    }

    fn make(replicant: &mut Replicant, author: &Author, edit: Edit) {
        let overrides = |value: Value| BTreeMap::from([(author.site.clone(), value)]);
        // Some are refused: then all is as it was.
        let _ = match edit {
            Edit::Desired(value) => replicant.set_desired(author, &value, None),
            Edit::Overrides(value) => replicant.set_overrides(author, &overrides(value)),
            Edit::Operate(number) => {
                let id = OperationId::new(format!("op-{number}")).unwrap();
                let value = json!({"n": author.at, "parts": [1, {"a": 2}]});
                replicant.operate(author, id, "append", Payload::Value(value), Vec::new(), false)
            }
            Edit::Keys(other) => {
                let list_keys = if other { vec!["x".to_owned()] } else { Vec::new() };
                replicant.set_policy(author, &Policy { list_keys, ..Policy::default() }, None)
            }
            Edit::Scope(other) => replicant.set_scope(author, if other { "paris" } else { "all" }, &placement()),
            Edit::Delete => replicant.delete(author, false),
            Edit::Create => replicant.create(
                author,
                Spec {
                    kind: "files".into(),
                    scope: "paris".into(),
                    placement: placement(),
                    policy: Policy::default(),
                    desired: json!({"a": {"b": 1}}),
                    overrides: BTreeMap::new(),
                },
            ),
        };
    }

    proptest! {
        /// What is read of a part and known of the rest is what is read of the whole.
        #[test]
        fn what_was_read_stays_good_but_for_what_was_written(
            edits in prop::collection::vec((any::<bool>(), 0..4_u8, edit()), 1..25),
        ) {
            let site = SiteName::new("paris").unwrap();
            let id = DocumentId { replicant: ReplicantId::new("it").unwrap(), epoch: 0 };
            let mut both = [1, 2].map(|number| Replicant::genesis(id.clone(), &Actor::new([number; 16])).unwrap());
            for replicant in &mut both {
                let author = Author { site: site.clone(), at: Hlc(1), who: String::new(), why: String::new() };
                make(replicant, &author, Edit::Create);
            }
            for (number, (first, meet, edit)) in edits.into_iter().enumerate() {
                let author = Author { site: site.clone(), at: Hlc(2 + number as u64), who: String::new(), why: String::new() };
                both.iter().for_each(|replicant| _ = replicant.state());
                make(&mut both[usize::from(first)], &author, edit);
                if meet == 0 {
                    let changes = |from: &Replicant| from.changes_since(&[]).into_iter().map(|change| change.bytes).collect::<Vec<_>>();
                    let [a, b] = &mut both;
                    let (of_a, of_b) = (changes(a), changes(b));
                    a.apply(&of_b).unwrap();
                    b.apply(&of_a).unwrap();
                }
                for replicant in &both {
                    let anew = Reading::of(&replicant.doc, replicant.closing());
                    prop_assert_eq!(replicant.reading.get().unwrap_or(&anew), &anew);
                }
            }
        }
    }

    #[test]
    fn edits_that_come_often_are_told_apart_from_others() {
        let site = SiteName::new("paris").unwrap();
        let id = DocumentId { replicant: ReplicantId::new("it").unwrap(), epoch: 0 };
        let [mut a, mut b] = [1, 2].map(|number| Replicant::genesis(id.clone(), &Actor::new([number; 16])).unwrap());
        let mut send = |edit: Edit, at: u64| {
            let author = Author { site: site.clone(), at: Hlc(at), who: String::new(), why: String::new() };
            let before = a.heads();
            make(&mut a, &author, edit);
            let known = a.reading.get().is_some();
            let _ = a.state();
            b.apply(&a.changes_since(&before).into_iter().map(|change| change.bytes).collect::<Vec<_>>()).unwrap();
            let both = (known, b.reading.get().is_some());
            let _ = b.state();
            both
        };
        send(Edit::Create, 1);
        assert_eq!(send(Edit::Desired(json!({"a": {"b": 2, "c": [1, {"name": "x"}]}})), 2), (true, true));
        assert_eq!(send(Edit::Desired(json!({"a": {"b": 2, "c": [1, {"name": "y"}]}})), 3), (true, true));
        assert_eq!(send(Edit::Overrides(json!({"a": 1})), 4), (true, true));
        assert_eq!(send(Edit::Operate(1), 5), (true, true));
        assert_eq!(send(Edit::Keys(true), 6), (false, false));
        assert_eq!(send(Edit::Delete, 7), (false, false));
    }
}
