//! What is carried over into a later epoch is the same whoever carries it over, whatever else they know.

use std::collections::{BTreeMap, BTreeSet};

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, ObjType, ROOT, ReadDoc};
use khufu_crdt::{Author, ChangeHash, Payload, Replicant, Spec, frontier};
use serde_json::{Value, json};

use crate::document_sites::{Site, actor, author, id, placement, site, spec, take, two, two_with};
use crate::epoch_documents::{closed, files, ids, only_head, op, operate};

/// Numbers that are the same for the same seed.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % bound
    }
}

/// The changes of a document by their names: who says that he made them, and which one of theirs.
fn named(doc: &Replicant) -> BTreeMap<(String, u64), ChangeHash> {
    doc.history().into_iter().map(|entry| ((entry.actor, entry.seq), entry.hash)).collect()
}

#[test]
fn an_operation_is_carried_over_alike_where_another_program_has_put_another_map_in_place_of_all() {
    let (mut a, b) = two_with(Spec { policy: files(), ..spec(json!({"k": 0})) });
    let cut = only_head(&a.doc);
    operate(&mut a.doc, "paris", 2001, "x", "add");
    let mut foreign = Automerge::load(&b.doc.clone().save()).unwrap().with_actor(ActorId::from(vec![9; 16]));
    let mut tx = foreign.transaction();
    tx.put_object(ROOT, "operations", ObjType::Map).unwrap();
    let (hash, _) = tx.commit_with(CommitOptions::default());
    let change = foreign.get_change_by_hash(&hash.unwrap()).unwrap().raw_bytes().to_vec();
    let alone = a.doc.clone();
    assert!(a.doc.apply(&[change]).unwrap().rejected.is_empty());
    let (one, mut both) = (closed(&alone, &cut, 11), closed(&a.doc, &cut, 12));
    assert_eq!(ids(&one.state().resolved().list), ["x"]);
    let (of_one, of_both) = (named(&one), named(&both));
    assert!(of_one.iter().all(|(name, hash)| of_both.get(name).is_none_or(|other| other == hash)));
    let bytes: Vec<_> = one.changes_since(&both.heads()).into_iter().map(|change| change.bytes).collect();
    assert_eq!(both.apply(&bytes).unwrap().rejected, Vec::<String>::new());
}

/// Who has seen what is closed over, and what a stranger made of the same name besides, has seen both.
#[test]
fn an_edit_that_saw_what_is_closed_and_a_stranger_stands_above_both() {
    for knows_the_cut in [true, false] {
        let (mut a, _) = two(json!({"k": 0}));
        a.set(json!({"k": 4}));
        let behind = a.doc.clone();
        if !knows_the_cut {
            a.set(json!({"k": 4, "more": true}));
        }
        let cut = only_head(&a.doc);
        let mut next = closed(&a.doc, &cut, 11);
        let mut stranger = Site::new("nantes", 3);
        let by = stranger.author();
        stranger.doc.create(&by, spec(json!({"s": 1}))).unwrap().unwrap();
        let mut away = Replicant::genesis(id(), &actor(4)).unwrap();
        take(&mut away, &behind.changes_since(&[]));
        take(&mut away, &stranger.doc.changes_since(&[]));
        let mut wanted = away.state().desired.clone();
        wanted["k"] = json!("mine");
        away.set_desired(&author("lyon", 9000), &wanted, None).unwrap().unwrap();
        away.carry_into(&mut next, &[]).unwrap();
        assert_eq!(next.state().desired["k"], "mine", "{knows_the_cut}");
        assert!(!next.conflicts().iter().any(|conflict| conflict.pointer() == "/desired/k"));
    }
}

#[test]
fn what_waits_behind_what_is_carried_over_waits_on() {
    for number in 0..12 {
        let (mut a, _) = two(json!({"k": 0}));
        let cut = only_head(&a.doc);
        a.set(json!({"w": number}));
        a.set(json!({"w": number, "x": number}));
        let before = a.doc.clone();
        a.set(json!({"w": number, "x": number, "y": number}));
        let all = closed(&a.doc, &cut, 11);
        let changes = all.changes_since(&[]);
        // The second and third wait for the first.
        let mut next = Replicant::genesis(all.id().clone(), &actor(12)).unwrap();
        take(&mut next, &changes[..2]);
        take(&mut next, &changes[3..]);
        assert_eq!(next.queued().len(), 2);
        before.carry_into(&mut next, &[]).unwrap();
        assert_eq!((next.queued().len(), next.heads()), (0, all.heads()), "{number}");
    }
}

fn value(random: &mut Random, depth: u32) -> Value {
    match random.below(if depth == 0 { 3 } else { 6 }) {
        0 => json!(random.below(4)),
        1 => Value::Null,
        2 => json!(["a", "b"][random.below(2)]),
        3 => json!({ "p": value(random, depth - 1), ["q", "r"][random.below(2)]: value(random, depth - 1) }),
        4 => json!((0..random.below(4)).map(|_| value(random, depth - 1)).collect::<Vec<_>>()),
        _ => {
            let names = ["p", "q", "r"].into_iter().filter(|_| random.below(2) == 0).collect::<Vec<_>>();
            let item = |name| json!({"name": name, "key": random.below(3), "x": value(random, depth - 1)});
            Value::Array(names.into_iter().map(item).collect())
        }
    }
}

/// Any edit. One that is refused changes nothing.
fn edit(doc: &mut Replicant, random: &mut Random, by: &Author) {
    let _ = match random.below(15) {
        0..=5 => {
            let mut desired = doc.state().desired.clone();
            if desired.is_object() {
                desired[["a", "b", "c"][random.below(3)]] = value(random, 3);
            }
            doc.set_desired(by, &desired, None)
        }
        6 => doc.set_overrides(by, &[(site("paris"), value(random, 2))].into()),
        7 | 8 => {
            // Several sites are asked for what has the same id.
            let (name, parents) = (op(&format!("op-{}", random.below(5))), frontier(&doc.state().operations));
            let payload = Payload::Value(value(random, 2));
            doc.operate(by, name, ["add", "set"][random.below(2)], payload, parents, false)
        }
        9 => {
            let mut policy = doc.state().policy.clone();
            policy.list_keys = [vec![], vec!["key".to_owned()]][random.below(2)].clone();
            doc.set_policy(by, &policy, None)
        }
        10 => {
            let sites: &[&str] = [&["paris"][..], &["paris", "rennes"], &["rennes"]][random.below(3)];
            let mut placement = placement(sites, by.site.as_str(), by.at.ms());
            placement.leaving = [site("nantes")].into();
            doc.set_scope(by, &placement.expression.clone(), &placement)
        }
        11 => doc.delete(by, random.below(2) == 0),
        12 => doc.create(by, Spec { policy: files(), ..spec(json!({ "a": value(random, 3) })) }),
        13 => doc.join(by),
        _ => match doc.conflicts().first() {
            Some(conflict) => {
                let chosen = &conflict.values[random.below(conflict.values.len())];
                doc.pick(by, &conflict.pointer(), &chosen.change)
            }
            None => Ok(None),
        },
    };
}

fn meet(docs: &mut [Replicant], random: &mut Random) {
    let (one, other) = (random.below(docs.len()), random.below(docs.len()));
    let (first, second) = (docs[one].clone(), docs[other].clone());
    take(&mut docs[one], &second.changes_since(&first.heads()));
    take(&mut docs[other], &first.changes_since(&second.heads()));
}

fn meet_all(docs: &mut [Replicant]) {
    let all: Vec<_> = docs.iter().flat_map(|doc| doc.changes_since(&[])).collect();
    docs.iter_mut().for_each(|doc| take(doc, &all));
}

/// Sites close one epoch while each knows of other edits after the cut, carry over what the others have, and no two of them
/// give one name to two changes.
#[test]
fn no_two_sites_give_one_name_to_two_changes() {
    let seeds = std::env::var("KHUFU_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(60);
    let (mut carried, mut names) = (0, BTreeSet::new());
    for seed in 1..=seeds {
        let random = &mut Random::new(seed);
        let (a, b) = two_with(Spec { policy: files(), ..spec(json!({"a": [{"name": "p", "x": 1}], "b": {"p": 1}})) });
        let mut third = Replicant::genesis(id(), &actor(3)).unwrap();
        take(&mut third, &a.doc.changes_since(&[]));
        let mut docs = vec![a.doc, b.doc, third];
        let mut at = 2000;
        let mut live = |docs: &mut [Replicant], random: &mut Random, edits: usize, kept: &mut Vec<Replicant>| {
            for _ in 0..edits {
                at += 1;
                let who = random.below(docs.len());
                edit(&mut docs[who], random, &author(["paris", "rennes", "nantes"][who], at));
                if random.below(4) == 0 {
                    meet(docs, random);
                }
                if random.below(4) == 0 {
                    kept.push(docs[random.below(docs.len())].clone());
                }
            }
        };
        let edits = random.below(12);
        live(&mut docs, random, edits, &mut Vec::new());
        meet_all(&mut docs);
        docs[0].join(&author("paris", 3000)).unwrap();
        meet_all(&mut docs);
        let cut = only_head(&docs[0]);
        if random.below(3) == 0 {
            let mut stranger = Replicant::genesis(id(), &actor(4)).unwrap();
            stranger.create(&author("lyon", 1500), spec(json!({ "a": value(random, 3) }))).unwrap();
            take(&mut docs[1], &stranger.changes_since(&[]));
        }
        let (edits, mut kept) = (4 + random.below(14), Vec::new());
        live(&mut docs, random, edits, &mut kept);
        kept.extend(docs.iter().cloned());
        meet_all(&mut docs);
        kept.push(docs[0].clone());
        let mut next: Vec<_> = (50..).zip(&kept).map(|(number, doc)| closed(doc, &cut, number)).collect();
        for _ in 0..4 {
            let (from, into) = (random.below(kept.len()), random.below(next.len()));
            kept[from].carry_into(&mut next[into], &[]).unwrap();
        }
        let mut known = BTreeMap::new();
        for doc in &next {
            carried += doc.history().iter().filter(|entry| entry.carried.is_some()).count();
            for (name, hash) in named(doc) {
                assert_eq!(*known.entry(name.clone()).or_insert(hash), hash, "seed {seed}, {name:?}");
                names.insert(name);
            }
        }
        // And so all of them come together.
        meet_all(&mut next);
        assert!(next.iter().all(|doc| doc.heads() == next[0].heads()), "seed {seed}");
    }
    assert!(carried > names.len() * 2, "{carried} were carried over, {} of them different", names.len());
}
