//! The rules of planning again, slow and obvious, compared with the crate over random executed sequences. Only for
//! sequences in which nothing failed: what failed is tested by its contents.

use khufu_crdt::{
    Applied, Capabilities, Combine, OperationId, Operations, Outcome, Policy, Step, frontier, plan, resolve,
};
use proptest::prelude::*;

use crate::histories::{any_policy, cases, events, play, union};

fn any_order_written(policy: &Policy, a: &str, b: &str) -> bool {
    let known = |a: &str, b: &str| {
        policy
            .resolutions
            .iter()
            .filter(|r| r.before == a && r.after == b)
            .map(|r| &r.result)
            .find(|r| !matches!(r, Combine::Unknown(_)))
    };
    let found = [known(a, b), known(b, a)];
    found.iter().any(Option::is_some) && found.iter().flatten().all(|r| **r == Combine::TakeBothAnyOrder)
}

/// The rule and the steps by the text of the design.
fn expected(
    applied: &[OperationId],
    list: &[OperationId],
    operations: &Operations,
    policy: &Policy,
    capabilities: Capabilities,
) -> (u8, Vec<Step>) {
    let run = |ids: &[OperationId]| ids.iter().cloned().map(Step::Run).collect::<Vec<_>>();
    let op_type = |o: &OperationId| operations[o].op_type.as_str();
    let absolute = |o: &OperationId| policy.types.get(op_type(o)).is_some_and(|t| t.absolute);
    if list.starts_with(applied) {
        return (1, run(&list[applied.len()..]));
    }
    let b = list.iter().rev().find(|o| absolute(o));
    let from = |sequence: &[OperationId]| match b {
        None => Some(sequence.to_vec()),
        Some(b) => sequence.iter().position(|o| o == b).map(|at| sequence[at..].to_vec()),
    };
    let needed = from(list).unwrap();
    if let Some(since) = from(applied) {
        let missing: Vec<_> = needed.iter().filter(|o| !since.contains(o)).cloned().collect();
        let then = [since.clone(), missing.clone()].concat();
        let place = |sequence: &[OperationId], o: &OperationId| sequence.iter().position(|x| x == o);
        let holds_all = since.iter().all(|o| needed.contains(o));
        if holds_all && !missing.iter().any(|o| applied.contains(o)) {
            let turned = |x: &OperationId, y: &OperationId| {
                (place(&needed, x) < place(&needed, y)) != (place(&then, x) < place(&then, y))
            };
            let fine = needed
                .iter()
                .all(|x| needed.iter().all(|y| !turned(x, y) || any_order_written(policy, op_type(x), op_type(y))));
            if fine {
                return (2, run(&missing));
            }
        }
    }
    if let Some(b) = b {
        return (3, [vec![Step::Rebase(b.clone())], run(&needed[1..])].concat());
    }
    let common = applied.iter().zip(list).take_while(|(a, b)| a == b).count();
    let can_undo = |o: &OperationId| {
        capabilities.undo && policy.types.get(op_type(o)).is_some_and(|t| t.undo.is_some() && !t.absolute)
    };
    if applied[common..].iter().all(can_undo) {
        let back: Vec<Step> = applied[common..].iter().rev().cloned().map(Step::Undo).collect();
        return (4, [back, run(&list[common..])].concat());
    }
    if capabilities.reset {
        return (5, [vec![Step::Reset], run(list)].concat());
    }
    (6, vec![])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(300), ..ProptestConfig::default() })]

    #[test]
    fn the_plan_is_the_oracles(
        events in events(30),
        policy in any_policy(),
        site in 0..5usize,
        changes in prop::collection::vec((0..30usize, 0..30usize, 0..3u8), 0..5),
        undo in any::<bool>(),
        reset in any::<bool>(),
    ) {
        let sites = play(&events, &policy);
        let all = union(&sites);
        prop_assert_eq!(frontier(&all).is_empty(), all.is_empty());
        // What one site would have run alone, and then some of it otherwise.
        let mut sequence = resolve(&sites[site], &policy).list;
        for (from, to, change) in changes {
            match change {
                0 if from < sequence.len() => drop(sequence.remove(from)),
                1 if from < sequence.len() && to < sequence.len() => sequence.swap(from, to),
                _ => {
                    let other = all.keys().nth(from % all.len().max(1)).filter(|o| !sequence.contains(o));
                    let at = to.min(sequence.len());
                    sequence.splice(at..at, other.cloned());
                }
            }
        }
        let mut applied = Applied::default();
        for id in &sequence {
            applied.start(Step::Run(id.clone()));
            applied.finish(Outcome::Succeeded);
        }
        let capabilities = Capabilities { operations: true, undo, reset, ..Capabilities::default() };
        let resolved = resolve(&all, &policy);
        let plan = plan(&applied, &resolved, &all, &policy, &capabilities);
        let (rule, steps) = expected(&sequence, &resolved.list, &all, &policy, capabilities);
        prop_assert_eq!((plan.rule, &plan.steps), (rule, &steps));
        prop_assert_eq!(plan.rebuild, (3..=5).contains(&rule));
        prop_assert_eq!(plan.needs_attention.is_some(), rule == 6);
    }
}
