//! The cases that any implementation must give.

use std::collections::BTreeMap;

use khufu_crdt::{Applied, Capabilities, Operations, Outcome, Policy, Step, plan, resolve};
use serde::Deserialize;
use serde_json::Value;

use crate::history::{id, issue, list};

#[derive(Deserialize)]
struct Vectors {
    policies: BTreeMap<String, Value>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    policy: String,
    operations: Vec<Given>,
    resolved: Vec<String>,
    #[serde(default)]
    applied: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    run: BTreeMap<String, Run>,
}

#[derive(Deserialize)]
struct Given {
    id: String,
    #[serde(rename = "type")]
    op_type: String,
    parents: Vec<String>,
    at: u64,
    by: String,
}

#[derive(Deserialize)]
struct Run {
    rebuild: bool,
    steps: Vec<String>,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../data/convergence-vectors.json")).unwrap()
}

/// The examples of the page for operators.
fn documented() -> Vec<Vectors> {
    let page = include_str!("../../../../docs/convergence.md");
    let blocks = page.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.map(|block| serde_json::from_str(block).unwrap()).collect()
}

/// The operations, issued so that each comes after its parents.
fn issued(case: &Case, policy: &Policy) -> Operations {
    let mut operations = Operations::new();
    let mut left: Vec<&Given> = case.operations.iter().collect();
    while !left.is_empty() {
        let before = left.len();
        left.retain(|given| {
            let parents: Vec<&str> = given.parents.iter().map(String::as_str).collect();
            let ready = parents.iter().all(|p| operations.contains_key(&id(p)));
            if ready {
                issue(&mut operations, policy, &given.id, &given.op_type, &parents, given.at, &given.by);
            }
            !ready
        });
        assert!(left.len() < before, "{}: parents that are missing", case.name);
    }
    operations
}

fn check_lists(vectors: &Vectors) {
    for case in &vectors.cases {
        let policy = Policy::parse(vectors.policies[&case.policy].clone()).unwrap();
        let operations = issued(case, &policy);
        assert_eq!(list(&operations, &policy), case.resolved.join(" "), "{}", case.name);
    }
}

/// How many were checked.
fn check_runs(vectors: &Vectors) -> usize {
    let mut runs = 0;
    let capabilities = Capabilities { operations: true, reset: true, ..Capabilities::default() };
    for case in &vectors.cases {
        let policy = Policy::parse(vectors.policies[&case.policy].clone()).unwrap();
        let operations = issued(case, &policy);
        let resolved = resolve(&operations, &policy);
        for (site, executed) in &case.applied {
            let mut applied = Applied::default();
            for name in executed {
                applied.start(Step::Run(id(name)));
                applied.finish(Outcome::Succeeded);
            }
            let plan = plan(&applied, &resolved, &operations, &policy, &capabilities);
            let expected = &case.run[site];
            let steps: Vec<&str> = plan.steps.iter().filter_map(|s| s.operation().map(|id| id.as_str())).collect();
            assert_eq!(plan.rebuild, expected.rebuild, "{} at {site}", case.name);
            assert_eq!(steps, expected.steps, "{} at {site}", case.name);
            runs += 1;
        }
    }
    runs
}

#[test]
fn the_list_is_the_given_one() {
    assert!(!vectors().cases.is_empty());
    check_lists(&vectors());
}

#[test]
fn what_a_site_runs_is_the_given_steps() {
    assert!(check_runs(&vectors()) >= 4, "the file has cases with something applied");
}

#[test]
fn the_documented_examples_are_right() {
    let examples = documented();
    assert!(examples.len() >= 4);
    examples.iter().for_each(check_lists);
    assert!(examples.iter().map(check_runs).sum::<usize>() >= 5);
}
