//! Random histories and policies.

use khufu_crdt::{Operations, Policy, Resolution, TypePolicy, cut_for, frontier};
use proptest::prelude::*;

use crate::history::{id, insert};

/// Types of operations; the last is one that no policy names.
pub(crate) const TYPES: [&str; 5] = ["a", "b", "c", "d", "e"];
pub(crate) const SITES: [&str; 5] = ["paris", "rennes", "nantes", "lyon", "brest"];

const WORDS: [&str; 5] =
    ["take-one", "take-both-any-order", "take-both-keep-order", "take-both-reverse-order", "take-two"];

/// How many cases a property is tried on: `PROPTEST_CASES`, or else so many.
pub(crate) fn cases(otherwise: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

/// Something that happens at a site.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Issue { site: usize, op_type: usize, at: u64 },
    Merge { from: usize, to: usize },
}

pub(crate) fn events(most: usize) -> impl Strategy<Value = Vec<Event>> {
    let site = 0..SITES.len();
    // Clocks are wrong as often as not.
    let issue =
        (site.clone(), 0..TYPES.len(), 0..30u64).prop_map(|(site, op_type, at)| Event::Issue { site, op_type, at });
    let merge = (site.clone(), site).prop_map(|(from, to)| Event::Merge { from, to });
    prop::collection::vec(prop_oneof![3 => issue, 2 => merge], 0..most)
}

/// What each site knows in the end.
pub(crate) fn play(events: &[Event], policy: &Policy) -> Vec<Operations> {
    play_on(&Operations::new(), "", events, policy)
}

/// What each site knows in the end, where all of them knew the same in the beginning. The names of what is issued have
/// `part` in them.
pub(crate) fn play_on(known: &Operations, part: &str, events: &[Event], policy: &Policy) -> Vec<Operations> {
    let mut sites = vec![known.clone(); SITES.len()];
    for (number, event) in events.iter().enumerate() {
        match event {
            Event::Issue { site, op_type, at } => {
                let known = &mut sites[*site];
                let parents = frontier(known);
                let cut = cut_for(known, &parents, TYPES[*op_type], policy);
                // Ids in another order than the one in which they were issued.
                let name = format!("{}-{part}{number}", number * 7 % 10);
                insert(known, &name, TYPES[*op_type], parents, cut, *at, SITES[*site]);
            }
            Event::Merge { from, to } => {
                let more = sites[*from].clone();
                sites[*to].extend(more);
            }
        }
    }
    sites
}

pub(crate) fn union(sites: &[Operations]) -> Operations {
    sites.iter().flat_map(|s| s.clone()).collect()
}

/// Any set of operations whatever, also one that no honest nodes would make.
pub(crate) fn wild(most: usize) -> impl Strategy<Value = Operations> {
    let operation = (
        0..TYPES.len(),
        prop::collection::vec(0..most, 0..4),
        any::<bool>(),
        prop_oneof![0..9u64, Just(u64::MAX)],
        0..SITES.len(),
    );
    (prop::collection::vec(operation, 0..most), any::<bool>()).prop_map(|(given, cycles)| {
        let mut operations = Operations::new();
        for (number, (op_type, parents, cut, at, site)) in given.into_iter().enumerate() {
            let parents = parents.into_iter().filter(|p| cycles || *p < number).map(|p| id(&format!("o{p:02}")));
            let parents = parents.collect();
            insert(&mut operations, &format!("o{number:02}"), TYPES[op_type], parents, cut, at, SITES[site]);
        }
        operations
    })
}

/// Any matrix: inconsistent, one-sided, with cycles, with words that nobody knows.
pub(crate) fn matrix() -> impl Strategy<Value = Vec<Resolution>> {
    let named = 0..TYPES.len() - 1;
    let entry = (named.clone(), named, 0..WORDS.len()).prop_map(|(before, after, word)| Resolution {
        before: TYPES[before].into(),
        after: TYPES[after].into(),
        result: WORDS[word].to_owned().into(),
    });
    prop::collection::vec(entry, 0..14)
}

/// Any policy at all.
pub(crate) fn any_policy() -> impl Strategy<Value = Policy> {
    let of_type = (prop::bool::weighted(0.3), any::<bool>()).prop_map(|(absolute, undo)| TypePolicy {
        absolute,
        undo: undo.then(|| "back".to_owned()),
        ..TypePolicy::default()
    });
    (matrix(), prop::collection::vec(of_type, TYPES.len())).prop_map(|(resolutions, types)| Policy {
        resolutions,
        types: TYPES.iter().map(|t| (*t).to_owned()).zip(types).collect(),
        ..Policy::default()
    })
}
