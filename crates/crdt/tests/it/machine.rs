//! Simple deterministic platforms, and sites that drive them, fail and crash.

use khufu_crdt::{
    Applied, Base, Capabilities, OperationId, Operations, Outcome, Plan, Policy, Recovery, Resolution, Step,
    TypePolicy, plan, resolve, resolve_after,
};
use proptest::prelude::*;

/// What a kind of platform does, and which promises about it are true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `write` replaces the text, `append` adds to it and fails if there is none, `touch` does nothing.
    File,
    /// `set`, `inc`, `dec` and `double` of a number.
    Counter,
}

impl Kind {
    pub(crate) fn types(self) -> &'static [&'static str] {
        match self {
            Self::File => &["write", "append", "touch"],
            Self::Counter => &["set", "inc", "dec", "double"],
        }
    }

    fn is_absolute(op_type: &str) -> bool {
        matches!(op_type, "write" | "set")
    }

    fn is_idempotent(op_type: &str) -> bool {
        matches!(op_type, "write" | "set" | "touch")
    }

    fn commute(a: &str, b: &str) -> bool {
        let sum = |t| matches!(t, "inc" | "dec");
        a == "touch" || b == "touch" || (sum(a) && sum(b)) || (a == "double" && b == "double")
    }

    /// Any matrix, but any order is only written where it is true; and promises that are true, or are not given.
    pub(crate) fn policy(self) -> impl Strategy<Value = Policy> {
        let types = self.types();
        let words = ["take-one", "take-both-keep-order", "take-both-reverse-order", "take-both-any-order", "what"];
        let entry = (0..types.len(), 0..types.len(), 0..words.len());
        let promises = (prop::bool::weighted(0.8), any::<bool>(), any::<bool>());
        (prop::collection::vec(entry, 0..16), prop::collection::vec(promises, types.len())).prop_map(
            move |(entries, promises)| Policy {
                resolutions: entries
                    .into_iter()
                    .map(|(a, b, word)| (types[a], types[b], words[word]))
                    .filter(|(a, b, word)| *word != "take-both-any-order" || Self::commute(a, b))
                    .map(|(a, b, word)| Resolution {
                        before: a.into(),
                        after: b.into(),
                        result: word.to_owned().into(),
                    })
                    .collect(),
                types: types
                    .iter()
                    .zip(promises)
                    .map(|(t, (absolute, idempotent, undo))| {
                        let promise = TypePolicy {
                            absolute: absolute && Self::is_absolute(t),
                            idempotent: idempotent && Self::is_idempotent(t),
                            undo: undo.then(|| "back".to_owned()),
                        };
                        ((*t).to_owned(), promise)
                    })
                    .collect(),
                ..Policy::default()
            },
        )
    }
}

/// What one site holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Contents(String, i128);

impl Contents {
    /// Runs an operation; false, and as before, if it fails. It fails where its id ends so, at every site.
    pub(crate) fn run(&mut self, id: &OperationId, op_type: &str) -> bool {
        if id.as_str().ends_with("-bad") {
            return false;
        }
        // A different amount for each operation, so that each shows.
        let amount: i128 = id.as_str().bytes().fold(7, |sum, b| (sum * 31 + i128::from(b)) % 1_000_003);
        match op_type {
            "write" => self.0 = format!("{id};"),
            "append" if self.0.is_empty() => return false,
            "append" => self.0.push_str(&format!("{id};")),
            "set" => self.1 = amount,
            "inc" => self.1 += amount,
            "dec" => self.1 -= amount,
            "double" => self.1 = (self.1 * 2) % 1_000_000_007_000_000_000,
            _ => {}
        }
        true
    }
}

/// What goes wrong during one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The driver fails; it will be tried again.
    Transient,
    /// The process dies after the intent was stored, before the driver did anything.
    CrashBefore,
    /// The process dies after the driver has done it, before the result was stored.
    CrashAfter,
}

pub(crate) fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![4 => Just(Fault::None), 1 => Just(Fault::Transient), 1 => Just(Fault::CrashBefore), 1 => Just(Fault::CrashAfter)]
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Site {
    /// What was closed.
    pub(crate) base: Base,
    pub(crate) known: Operations,
    pub(crate) applied: Applied,
    pub(crate) contents: Contents,
    pub(crate) capabilities: Capabilities,
    /// The contents before each operation that ran with success since the base.
    undo: Vec<(OperationId, Contents)>,
    /// Whether the last step that was started really happened.
    happened: Option<Outcome>,
}

impl Site {
    pub(crate) fn new(capabilities: Capabilities) -> Self {
        Self { capabilities, ..Self::default() }
    }

    fn all(&self) -> Operations {
        let closed = self.base.operations.iter().map(|o| (o.id.clone(), o.clone()));
        closed.chain(self.known.clone()).collect()
    }

    pub(crate) fn plan(&self, policy: &Policy) -> Plan {
        plan(&self.applied, &resolve_after(&self.base, &self.known, policy), &self.all(), policy, &self.capabilities)
    }

    /// Does one step, as far as the fault lets it; false if there is nothing to do.
    pub(crate) fn step(&mut self, policy: &Policy, fault: Fault) -> bool {
        let Some(step) = self.plan(policy).steps.first().cloned() else { return false };
        self.applied.start(step.clone());
        if !step.calls_driver() {
            assert_eq!(self.applied.intent(), None);
            return true;
        }
        self.happened = None;
        match fault {
            Fault::None => {
                let outcome = self.drive(&step);
                self.applied.finish(outcome);
            }
            Fault::Transient => self.applied.abandon_intent(),
            Fault::CrashBefore => {}
            Fault::CrashAfter => self.happened = Some(self.drive(&step)),
        }
        if matches!(fault, Fault::CrashBefore | Fault::CrashAfter) {
            // What was stored is all that is left.
            self.applied = serde_json::from_str(&serde_json::to_string(&self.applied).unwrap()).unwrap();
        }
        true
    }

    /// After a crash, before anything else: finds out what became of the open intent.
    pub(crate) fn recover(&mut self, policy: &Policy) {
        match self.applied.recovery(&self.all(), policy, &self.capabilities) {
            None => {}
            Some(Recovery::Repeat) => {
                let step = self.applied.intent().unwrap().clone();
                let outcome = self.drive(&step);
                self.applied.finish(outcome);
            }
            Some(Recovery::Observe | Recovery::Ask) => match self.happened {
                Some(outcome) => self.applied.finish(outcome),
                None => self.applied.abandon_intent(),
            },
        }
    }

    fn drive(&mut self, step: &Step) -> Outcome {
        match step {
            Step::Run(id) | Step::Rebase(id) => {
                let before = self.contents.clone();
                let again = self.happened == Some(Outcome::Succeeded);
                let op_type = self.all()[id].op_type.clone();
                if !self.contents.run(id, &op_type) {
                    return Outcome::Failed;
                }
                if !again {
                    self.undo.push((id.clone(), before));
                }
            }
            Step::Undo(id) => {
                assert!(self.capabilities.undo);
                let (last, before) = self.undo.pop().expect("nothing is undone that did not run");
                assert_eq!(last, *id, "only what ran last can be undone");
                self.contents = before;
            }
            Step::Reset => {
                assert!(self.capabilities.reset);
                self.contents = Contents::default();
                self.undo.clear();
            }
            Step::Forget(_) => unreachable!("not for the driver"),
        }
        Outcome::Succeeded
    }

    /// Works until there is nothing to do; how many steps that took.
    pub(crate) fn settle(&mut self, policy: &Policy, most: usize) -> usize {
        self.recover(policy);
        for steps in 0..most {
            if !self.step(policy, Fault::None) {
                return steps;
            }
        }
        panic!("never done: {:?} of {:?}", self.plan(policy), self.applied);
    }
}

/// What the whole list comes to on a replica as new.
pub(crate) fn expected(known: &Operations, policy: &Policy) -> Contents {
    let mut contents = Contents::default();
    for id in resolve(known, policy).list {
        contents.run(&id, &known[&id].op_type);
    }
    contents
}
