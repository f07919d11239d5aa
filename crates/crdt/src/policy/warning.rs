//! What in a policy is probably not what its author meant.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Policy, Rule};

/// Something that a policy may say but that its author probably did not mean. [`Display`](fmt::Display) says what it
/// means and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PolicyWarning {
    /// `take-one` one way round between two types, something else the other way.
    OneSidedTakeOne {
        /// Type of the one that goes when it is the earlier.
        before: String,
        /// Type of the one that stays when it is the later.
        after: String,
    },
    /// One way round the order is said not to matter, the other way round it is prescribed.
    Contradiction {
        /// The type whose order is said not to matter when it is the earlier.
        before: String,
        /// The other type.
        after: String,
    },
    /// Two entries for the same pair with different results: only the first counts.
    Repeated {
        /// Type of the earlier operation.
        before: String,
        /// Type of the later operation.
        after: String,
    },
    /// Types each of which is to come before the next, and the last before the first.
    Cycle {
        /// The types in that order, the smallest first.
        types: Vec<String>,
    },
    /// A result that this version does not know: the entry does not count.
    UnknownResult {
        /// Type of the earlier operation.
        before: String,
        /// Type of the later operation.
        after: String,
        /// The word.
        result: String,
    },
    /// Concurrent operations of one type are to be run the later first.
    ReversedSelf {
        /// The type.
        op_type: String,
    },
    /// An absolute type whose order with another is said not to matter.
    CommutingAbsolute {
        /// The absolute type.
        absolute: String,
        /// The other type, or the same.
        other: String,
    },
}

impl fmt::Display for PolicyWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneSidedTakeOne { before, after } => write!(
                f,
                "a {before:?} goes when a later {after:?} is concurrent, but an earlier {after:?} leaves it: which of the \
                 two counts then depends on clocks. Write take-one for ({after:?}, {before:?}) too, or leave that entry out"
            ),
            Self::Contradiction { before, after } => write!(
                f,
                "({before:?}, {after:?}) says that any order will do, ({after:?}, {before:?}) prescribes one. The two are \
                 taken as not commuting: leave one of the entries out"
            ),
            Self::Repeated { before, after } => write!(
                f,
                "({before:?}, {after:?}) has several entries with different results: only the first counts. Remove the \
                 others"
            ),
            Self::Cycle { types } => write!(
                f,
                "each of these is to come before the next, and the last before the first: {}. Where operations of all of \
                 them are concurrent the preference of the lowest rank is ignored. Take out one of the entries",
                types.join(", ")
            ),
            Self::UnknownResult { before, after, result } => write!(
                f,
                "the result {result:?} of ({before:?}, {after:?}) is not known here: the entry does not count at this \
                 node. Bring it to the version of the others"
            ),
            Self::ReversedSelf { op_type } => write!(
                f,
                "concurrent {op_type:?} are to be run the later first, while one that follows another replaces it. Write \
                 take-one or take-both-keep-order for ({op_type:?}, {op_type:?}) if that is not meant"
            ),
            Self::CommutingAbsolute { absolute, other } => write!(
                f,
                "{absolute:?} is absolute, so what was before it does not show; then its order with {other:?} does show, \
                 unless {other:?} changes nothing. Write an order, or take-one, for the two, or sites may end with \
                 different contents"
            ),
        }
    }
}

impl Policy {
    /// What is probably not meant, sorted. None of it keeps sites from converging on one list.
    #[must_use]
    pub fn warnings(&self) -> Vec<PolicyWarning> {
        let mut warnings = BTreeSet::new();
        // The first known entry of each pair, as the rules read it.
        let mut entries: BTreeMap<(&str, &str), Rule> = BTreeMap::new();
        for r in &self.resolutions {
            let (before, after) = (r.before.clone(), r.after.clone());
            match Rule::of(&r.result) {
                None => {
                    let result = String::from(r.result.clone());
                    warnings.insert(PolicyWarning::UnknownResult { before, after, result });
                }
                Some(rule) => {
                    if *entries.entry((&r.before, &r.after)).or_insert(rule) != rule {
                        warnings.insert(PolicyWarning::Repeated { before, after });
                    }
                }
            }
        }
        for ((before, after), rule) in &entries {
            let (a, b) = ((*before).to_owned(), (*after).to_owned());
            if before == after && *rule == Rule::Reverse {
                warnings.insert(PolicyWarning::ReversedSelf { op_type: a.clone() });
            }
            if before != after
                && let Some(turned) = entries.get(&(*after, *before))
            {
                match (rule, turned) {
                    (Rule::TakeOne, Rule::TakeOne) | (Rule::AnyOrder, Rule::AnyOrder) => {}
                    (Rule::TakeOne, _) => {
                        warnings.insert(PolicyWarning::OneSidedTakeOne { before: a.clone(), after: b.clone() });
                    }
                    (Rule::AnyOrder, Rule::Keep | Rule::Reverse) => {
                        warnings.insert(PolicyWarning::Contradiction { before: a.clone(), after: b.clone() });
                    }
                    _ => {}
                }
            }
            for (absolute, other) in [(&a, &b), (&b, &a)] {
                if self.is_absolute(absolute) && self.commute(absolute, other) {
                    let (absolute, other) = (absolute.clone(), other.clone());
                    warnings.insert(PolicyWarning::CommutingAbsolute { absolute, other });
                }
            }
        }
        warnings.extend(self.type_cycle(entries.keys().copied()).map(|types| PolicyWarning::Cycle { types }));
        warnings.into_iter().collect()
    }

    /// One cycle among the types, where one always wants to be before the other, whichever is the later.
    fn type_cycle<'a>(&'a self, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Option<Vec<String>> {
        let mut after: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (a, b) in pairs {
            for (first, second) in [(a, b), (b, a)] {
                let wants = self.rule(first, second) == Rule::Keep && self.rule(second, first) == Rule::Reverse;
                if first != second && wants {
                    after.entry(first).or_default().insert(second);
                    after.entry(second).or_default();
                }
            }
        }
        // What leads nowhere is in no cycle; once only what leads on is left, going on from any of it finds one.
        loop {
            let ends: BTreeSet<&str> = after.iter().filter(|(_, to)| to.is_empty()).map(|(t, _)| *t).collect();
            if ends.is_empty() {
                break;
            }
            after.retain(|t, _| !ends.contains(t));
            after.values_mut().for_each(|to| to.retain(|t| !ends.contains(t)));
        }
        let mut path: Vec<&str> = vec![after.keys().next()?];
        loop {
            let next = *after.get(path.last()?)?.first()?;
            if let Some(start) = path.iter().position(|t| *t == next) {
                let mut cycle = path.split_off(start);
                let smallest = cycle.iter().enumerate().min_by_key(|(_, t)| **t).map_or(0, |(i, _)| i);
                cycle.rotate_left(smallest);
                return Some(cycle.into_iter().map(str::to_owned).collect());
            }
            path.push(next);
        }
    }
}
