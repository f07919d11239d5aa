//! How the entries of a resolution matrix are read.

use std::collections::BTreeMap;

use super::{Combine, Policy};

/// What becomes of an earlier and a later operation, once the matrix has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Only the later one stays.
    TakeOne,
    /// Both stay, neither asks to be first.
    AnyOrder,
    /// Both stay, the earlier first.
    Keep,
    /// Both stay, the later first.
    Reverse,
}

impl Rule {
    /// What an entry says of the same two types with their places exchanged.
    #[must_use]
    pub fn mirror(self) -> Self {
        match self {
            Self::Keep => Self::Reverse,
            Self::Reverse => Self::Keep,
            other => other,
        }
    }

    /// The rule that a word of the matrix stands for; none for a word that this version does not know.
    #[must_use]
    pub fn of(combine: &Combine) -> Option<Self> {
        match combine {
            Combine::TakeOne => Some(Self::TakeOne),
            Combine::TakeBothAnyOrder => Some(Self::AnyOrder),
            Combine::TakeBothKeepOrder => Some(Self::Keep),
            Combine::TakeBothReverseOrder => Some(Self::Reverse),
            Combine::Unknown(_) => None,
        }
    }
}

impl Policy {
    /// What becomes of an operation of type `before` and a later one of type `after`.
    ///
    /// The first entry for the pair counts; without one, the first entry for the pair turned round, read in a mirror;
    /// without that either, [`Rule::AnyOrder`].
    #[must_use]
    pub fn rule(&self, before: &str, after: &str) -> Rule {
        self.written_rule(before, after).unwrap_or(Rule::AnyOrder)
    }

    /// Like [`rule`](Self::rule), but none where no entry speaks of the two types in either order.
    #[must_use]
    pub fn written_rule(&self, before: &str, after: &str) -> Option<Rule> {
        self.entry(before, after).or_else(|| self.entry(after, before).map(Rule::mirror))
    }

    /// The first entry written for exactly this pair in this order whose word is known.
    pub(crate) fn entry(&self, before: &str, after: &str) -> Option<Rule> {
        self.resolutions.iter().filter(|r| r.before == before && r.after == after).find_map(|r| Rule::of(&r.result))
    }

    /// Whether the operator promises that the order of two such operations does not show in the contents: any order is
    /// written for them, and nothing else for the two turned round. A missing entry promises nothing.
    #[must_use]
    pub fn commute(&self, a: &str, b: &str) -> bool {
        self.written_rule(a, b) == Some(Rule::AnyOrder) && self.written_rule(b, a) == Some(Rule::AnyOrder)
    }

    /// Whether operations of this type make contents that do not depend on those before.
    #[must_use]
    pub fn is_absolute(&self, op_type: &str) -> bool {
        self.types.get(op_type).is_some_and(|t| t.absolute)
    }

    /// Whether running such an operation twice in a row is the same as running it once.
    #[must_use]
    pub fn is_idempotent(&self, op_type: &str) -> bool {
        // What does not depend on the contents before does not depend on having run already.
        self.types.get(op_type).is_some_and(|t| t.idempotent || t.absolute)
    }
}

/// The rules among the types that occur in one set of operations, read once and looked up often.
pub(crate) struct Matrix {
    classes: usize,
    rules: Vec<Rule>,
    written: Vec<bool>,
    replacing: Vec<bool>,
    ordering: Vec<bool>,
}

impl Matrix {
    /// Reads `policy` for operations of the given types. Returns the class of each type beside the matrix: types that
    /// the policy does not name share class 0.
    pub(crate) fn new<'a>(policy: &Policy, types: impl Iterator<Item = &'a str>) -> (Self, Vec<usize>) {
        let mut named: BTreeMap<&str, Option<usize>> =
            policy.resolutions.iter().flat_map(|r| [(r.before.as_str(), None), (r.after.as_str(), None)]).collect();
        let mut classes = 1;
        let of_types = types
            .map(|t| match named.get_mut(t) {
                None => 0,
                Some(Some(class)) => *class,
                Some(slot) => {
                    let class = classes;
                    classes += 1;
                    *slot = Some(class);
                    class
                }
            })
            .collect();
        let size = classes * classes;
        let mut entries: Vec<Option<Rule>> = vec![None; size];
        for r in &policy.resolutions {
            let place = |t: &str| named.get(t).copied().flatten();
            if let (Some(a), Some(b), Some(rule)) = (place(&r.before), place(&r.after), Rule::of(&r.result))
                && let Some(entry) = entries.get_mut(a * classes + b)
            {
                entry.get_or_insert(rule);
            }
        }
        let read = |a: usize, b: usize| entries.get(a * classes + b).copied().flatten();
        let pairs = || (0..classes).flat_map(|a| (0..classes).map(move |b| (a, b)));
        let known: Vec<Option<Rule>> = pairs().map(|(a, b)| read(a, b).or(read(b, a).map(Rule::mirror))).collect();
        let rules: Vec<Rule> = known.iter().map(|r| r.unwrap_or(Rule::AnyOrder)).collect();
        let rule = |a: usize, b: usize| rules.get(a * classes + b).copied();
        let orders = |r: Option<Rule>| matches!(r, Some(Rule::Keep | Rule::Reverse));
        let replacing = (0..classes).map(|a| (0..classes).any(|b| rule(a, b) == Some(Rule::TakeOne))).collect();
        let ordering = (0..classes).map(|a| (0..classes).any(|b| orders(rule(a, b)) || orders(rule(b, a)))).collect();
        let written = known.iter().map(Option::is_some).collect();
        (Self { classes, rules, written, replacing, ordering }, of_types)
    }

    /// The rule for an earlier operation of class `a` and a later one of class `b`.
    pub(crate) fn rule(&self, a: usize, b: usize) -> Rule {
        self.rules.get(a * self.classes + b).copied().unwrap_or(Rule::AnyOrder)
    }

    /// How many classes there are; each is below this number.
    pub(crate) fn classes(&self) -> usize {
        self.classes
    }

    /// [`Policy::commute`] for classes.
    pub(crate) fn commute(&self, a: usize, b: usize) -> bool {
        let any = |x: usize, y: usize| {
            self.written.get(x * self.classes + y) == Some(&true) && self.rule(x, y) == Rule::AnyOrder
        };
        any(a, b) && any(b, a)
    }

    /// Whether a later operation of any class drops one of class `a`.
    pub(crate) fn can_be_dropped(&self, a: usize) -> bool {
        self.replacing.get(a) == Some(&true)
    }

    /// Whether class `a` has a preference with any class.
    pub(crate) fn has_preferences(&self, a: usize) -> bool {
        self.ordering.get(a) == Some(&true)
    }
}
