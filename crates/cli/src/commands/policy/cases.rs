//! Cases: operations, what they come to, and what sites that have run some of them run next.

use std::collections::{BTreeMap, BTreeSet};

use khufu_crdt::{
    Applied, Capabilities, Hlc, Operation, OperationId, Operations, Outcome, Payload, Policy, PolicyError, Resolved,
    SiteName, Step, cut_for, plan, resolve,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::exit::Failure;

/// What the driver of every site is taken to be able to do: run operations and reset, but not undo.
const CAPABILITIES: Capabilities =
    Capabilities { operations: true, undo: false, reset: true, reset_is_loss: false, observe: true, dry_run: false };

/// The file. What it holds besides is for its readers.
#[derive(Debug, Deserialize)]
pub(super) struct File {
    #[serde(default)]
    policies: BTreeMap<String, Value>,
    /// The cases.
    pub(super) cases: Vec<Case>,
}

/// One case: what is given, and what is expected.
#[derive(Debug, Deserialize)]
pub(super) struct Case {
    /// What it is about.
    pub(super) name: String,
    #[serde(default)]
    policy: Reference,
    operations: Vec<Given>,
    resolved: Option<Vec<OperationId>>,
    applied: Option<BTreeMap<SiteName, Vec<OperationId>>>,
    run: Option<BTreeMap<SiteName, Run>>,
}

/// A policy by its name in the file, or as it is.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "the name of a policy, or a policy")]
enum Reference {
    Name(String),
    Inline(Box<Policy>),
}

impl Default for Reference {
    fn default() -> Self {
        Self::Inline(Box::default())
    }
}

/// An operation as it stands in a file.
#[derive(Debug, Deserialize)]
struct Given {
    id: OperationId,
    #[serde(rename = "type")]
    op_type: String,
    #[serde(default)]
    parents: Vec<OperationId>,
    cut: Option<bool>,
    at: Hlc,
    by: SiteName,
}

/// What a case comes to.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    name: String,
    /// The list.
    pub(super) resolved: Vec<OperationId>,
    /// What each site runs; none where the case says of no site what it has run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) run: Option<BTreeMap<SiteName, Run>>,
}

/// What one site runs.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    /// Whether what was applied does not stay.
    pub(super) rebuild: bool,
    /// The operations, in order.
    pub(super) steps: Vec<OperationId>,
}

impl File {
    /// The policies of the file by name, read as a node reads those in documents: what it does not know is no entry.
    pub(super) fn policies(&self) -> Result<Vec<(String, Policy)>, Failure> {
        let read = |(name, value): (&String, &Value)| {
            let policy = Policy::deserialize(value);
            policy
                .map(|policy| (name.clone(), policy))
                .map_err(|error| Failure::Usage(format!("policy {name}: {error}")))
        };
        self.policies.iter().map(read).collect()
    }

    /// Whether a node would take the policy from an operator.
    pub(super) fn check(&self, name: &str) -> Result<(), PolicyError> {
        self.policies.get(name).map_or(Ok(()), |value| Policy::parse(value.clone()).map(drop))
    }

    fn policy(&self, case: &Case) -> Result<Policy, Failure> {
        let name = match &case.policy {
            Reference::Inline(policy) => return Ok(policy.as_ref().clone()),
            Reference::Name(name) => name,
        };
        let Some(value) = self.policies.get(name) else {
            let known: Vec<&str> = self.policies.keys().map(String::as_str).collect();
            return Err(case.wrong(&format!("no policy is called {name:?}; there are {}", known.join(", "))));
        };
        Policy::deserialize(value).map_err(|error| Failure::Usage(format!("policy {name}: {error}")))
    }
}

impl Case {
    /// Works the case out.
    pub(super) fn answer(&self, file: &File) -> Result<Answer, Failure> {
        let policy = file.policy(self)?;
        let operations = self.operations(&policy)?;
        let resolved = resolve(&operations, &policy);
        let run = self.applied.as_ref().map(|applied| {
            let site = |(site, done): (&SiteName, &Vec<OperationId>)| {
                (site.clone(), next(done, &resolved, &operations, &policy))
            };
            applied.iter().map(site).collect()
        });
        Ok(Answer { name: self.name.clone(), resolved: resolved.list, run })
    }

    /// Whether the file says what should come out.
    pub(super) fn expects_something(&self) -> bool {
        self.resolved.is_some() || self.run.is_some()
    }

    /// How an answer differs from what the file expects, in words.
    pub(super) fn differences(&self, answer: &Answer) -> Vec<String> {
        let mut differences = Vec::new();
        if let Some(expected) = self.resolved.as_ref().filter(|expected| **expected != answer.resolved) {
            differences.push(format!("resolved is {:?}, expected is {expected:?}", answer.resolved));
        }
        for (site, expected) in self.run.iter().flatten() {
            let run = answer.run.as_ref().and_then(|run| run.get(site));
            if run != Some(expected) {
                let found = run.map_or("nothing is known of it".to_owned(), |run| format!("it runs {run:?}"));
                differences.push(format!("site {site}: {found}, expected is {expected:?}"));
            }
        }
        differences
    }

    /// The operations, with `cut` as the node of each one's author would have set it.
    fn operations(&self, policy: &Policy) -> Result<Operations, Failure> {
        let mut waiting: BTreeMap<&OperationId, &Given> = BTreeMap::new();
        for given in &self.operations {
            if waiting.insert(&given.id, given).is_some() {
                return Err(self.wrong(&format!("two operations are called {}", given.id)));
            }
        }
        let mut operations = Operations::new();
        let mut children: BTreeMap<&OperationId, Vec<&OperationId>> = BTreeMap::new();
        let mut missing: BTreeMap<&OperationId, usize> = BTreeMap::new();
        for given in waiting.values() {
            let parents: BTreeSet<&OperationId> =
                given.parents.iter().filter(|parent| waiting.contains_key(*parent)).collect();
            missing.insert(&given.id, parents.len());
            parents.into_iter().for_each(|parent| children.entry(parent).or_default().push(&given.id));
        }
        // An operation is decided about once its past is; its author had seen nothing else.
        let mut ready: Vec<&OperationId> = missing.iter().filter(|(_, left)| **left == 0).map(|(id, _)| *id).collect();
        while let Some(id) = ready.pop() {
            let Some(given) = waiting.remove(id) else { continue };
            let cut = given.cut.unwrap_or_else(|| cut_for(&operations, &given.parents, &given.op_type, policy));
            operations.insert(id.clone(), given.operation(cut));
            for child in children.get(id).into_iter().flatten() {
                if let Some(left) = missing.get_mut(child) {
                    *left -= 1;
                    if *left == 0 {
                        ready.push(child);
                    }
                }
            }
        }
        match waiting.keys().next() {
            None => Ok(operations),
            Some(id) => Err(self.wrong(&format!("operation {id} comes after itself: its parents form a circle"))),
        }
    }

    fn wrong(&self, what: &str) -> Failure {
        Failure::Usage(format!("case {:?}: {what}", self.name))
    }
}

impl Given {
    fn operation(&self, cut: bool) -> Operation {
        let mut parents = self.parents.clone();
        parents.sort();
        Operation {
            id: self.id.clone(),
            op_type: self.op_type.clone(),
            parents,
            cut,
            at: self.at,
            by: self.by.clone(),
            payload: Payload::default(),
        }
    }
}

/// What a site runs that has executed `done`, with nothing failed.
fn next(done: &[OperationId], resolved: &Resolved, operations: &Operations, policy: &Policy) -> Run {
    let mut applied = Applied::default();
    for id in done {
        applied.start(Step::Run(id.clone()));
        applied.finish(Outcome::Succeeded);
    }
    let plan = plan(&applied, resolved, operations, policy, &CAPABILITIES);
    let executed = plan.steps.into_iter().filter_map(|step| match step {
        Step::Run(id) | Step::Rebase(id) => Some(id),
        _ => None,
    });
    Run { rebuild: plan.rebuild, steps: executed.collect() }
}
