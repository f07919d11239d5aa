//! What a site runs: the rules of planning and the traps in them, one by one.

use khufu_crdt::{
    AfterFailure, Applied, Capabilities, Operations, Outcome, Plan, Policy, Recovery, Step, TypePolicy, plan, resolve,
};

use crate::history::{id, insert, issue, policy};
use crate::machine::{Fault, Site, expected};

const RESETS: Capabilities =
    Capabilities { operations: true, undo: false, reset: true, reset_is_loss: false, observe: false, dry_run: false };
const UNDOES: Capabilities =
    Capabilities { operations: true, undo: true, reset: false, reset_is_loss: false, observe: false, dry_run: false };
const NEITHER: Capabilities =
    Capabilities { operations: true, undo: false, reset: false, reset_is_loss: false, observe: false, dry_run: false };

/// `set` replaces, `inc` commutes with itself, `double` promises nothing.
fn counter() -> Policy {
    let mut policy = policy(
        &[
            ("set", "inc", "take-both-keep-order"),
            ("inc", "set", "take-both-reverse-order"),
            ("set", "double", "take-both-keep-order"),
            ("set", "set", "take-one"),
            ("inc", "inc", "take-both-any-order"),
        ],
        &["set"],
    );
    let undo = |t: &str| TypePolicy { undo: Some(t.to_owned()), ..TypePolicy::default() };
    policy.types.insert("inc".into(), undo("dec"));
    policy.types.insert("double".into(), undo("halve"));
    policy
}

/// What a site has executed: `name`, or `name!` where it failed for good.
fn applied(names: &str) -> Applied {
    let mut applied = Applied::default();
    for name in names.split_whitespace() {
        let (name, outcome) = name.strip_suffix('!').map_or((name, Outcome::Succeeded), |name| (name, Outcome::Failed));
        applied.start(Step::Run(id(name)));
        applied.finish(outcome);
    }
    applied
}

fn forecast(applied: &Applied, operations: &Operations, policy: &Policy, capabilities: &Capabilities) -> Plan {
    plan(applied, &resolve(operations, policy), operations, policy, capabilities)
}

/// The steps as text: `+run`, `=rebase`, `-undo`, `~forget`, `reset`.
fn steps(plan: &Plan) -> String {
    let text = |step: &Step| match step {
        Step::Run(id) => format!("+{id}"),
        Step::Rebase(id) => format!("={id}"),
        Step::Undo(id) => format!("-{id}"),
        Step::Forget(id) => format!("~{id}"),
        Step::Reset => "reset".to_owned(),
    };
    plan.steps.iter().map(text).collect::<Vec<_>>().join(" ")
}

/// Concurrent operations `(name, type)` of rising rank, each at its own site.
fn concurrent(given: &[(&str, &str)]) -> Operations {
    let mut operations = Operations::new();
    for (at, (name, op_type)) in given.iter().enumerate() {
        insert(&mut operations, name, op_type, vec![], false, at as u64, "paris");
    }
    operations
}

fn named(plan: &[khufu_crdt::OperationId]) -> Vec<&str> {
    plan.iter().map(|id| id.as_str()).collect()
}

#[test]
fn the_rest_of_the_list_is_run() {
    let (policy, ops) = (policy(&[], &[]), concurrent(&[("a", "x"), ("b", "x"), ("c", "x")]));
    let plan = forecast(&applied("a"), &ops, &policy, &NEITHER);
    assert_eq!((plan.rule, plan.rebuild, steps(&plan).as_str()), (1, false, "+b +c"));
    let plan = forecast(&applied("a b c"), &ops, &policy, &NEITHER);
    assert_eq!((plan.rule, plan.steps.len()), (1, 0));
}

#[test]
fn what_is_before_the_base_is_reported_skipped() {
    let mut ops = concurrent(&[("i", "inc"), ("d", "double")]);
    insert(&mut ops, "s", "set", vec![id("d"), id("i")], false, 9, "paris");
    let plan = forecast(&applied("i s"), &ops, &counter(), &NEITHER);
    assert_eq!((plan.rule, plan.rebuild, steps(&plan).as_str()), (2, false, ""));
    assert_eq!(named(&plan.skipped), ["d"]);
    let plan = forecast(&applied("d s"), &ops, &counter(), &NEITHER);
    assert_eq!(named(&plan.skipped), ["i"]);
}

#[test]
fn a_missing_entry_promises_nothing() {
    let ops = concurrent(&[("d", "double"), ("i", "inc"), ("j", "inc")]);
    assert_eq!(forecast(&applied("j"), &ops, &counter(), &RESETS).rule, 5);
    let ops = concurrent(&[("i", "inc"), ("j", "inc")]);
    assert_eq!(steps(&forecast(&applied("j"), &ops, &counter(), &RESETS)), "+i");
}

#[test]
fn what_ran_before_the_base_and_is_needed_after_it_forces_a_rebuild() {
    let ops = concurrent(&[("i", "inc"), ("s", "set")]);
    let plan = forecast(&applied("i s"), &ops, &counter(), &NEITHER);
    assert_eq!((plan.rule, steps(&plan).as_str()), (3, "=s +i"));
}

#[test]
fn without_a_base_the_last_ones_are_undone_back_to_where_the_lists_part() {
    let ops = concurrent(&[("a", "inc"), ("b", "inc"), ("d", "double"), ("e", "inc")]);
    let plan = forecast(&applied("a d e"), &ops, &counter(), &UNDOES);
    assert_eq!((plan.rule, steps(&plan).as_str()), (4, "-e -d +b +d +e"));
    let reset = forecast(&applied("a d e"), &ops, &counter(), &RESETS);
    assert_eq!((reset.rule, steps(&reset).as_str()), (5, "reset +a +b +d +e"));
    let stuck = forecast(&applied("a d e"), &ops, &counter(), &NEITHER);
    assert_eq!((stuck.rule, stuck.steps.len()), (6, 0));
    assert!(stuck.needs_attention.unwrap().contains(" e,"));
}

#[test]
fn an_undo_or_a_reset_that_failed_for_good_is_not_planned_again() {
    let ops = concurrent(&[("a", "double"), ("b", "inc")]);
    let mut site = applied("b");
    let both = Capabilities { reset: true, ..UNDOES };
    site.start(Step::Undo(id("b")));
    site.finish(Outcome::Failed);
    let plan = forecast(&site, &ops, &counter(), &both);
    assert_eq!((plan.rule, steps(&plan).as_str()), (5, "reset +a +b"));
    site.start(Step::Reset);
    site.finish(Outcome::Failed);
    assert_eq!(forecast(&site, &ops, &counter(), &both).rule, 6);
    assert_eq!(site.sequence(), [&id("b")]);
    site.retry();
    assert_eq!(forecast(&site, &ops, &counter(), &both).rule, 4);
}

#[test]
fn a_driver_that_takes_no_operations_says_so() {
    let ops = concurrent(&[("a", "x")]);
    let none = Capabilities::default();
    let plan = forecast(&applied(""), &ops, &counter(), &none);
    assert_eq!((plan.rule, plan.steps.len()), (6, 0));
    assert!(plan.needs_attention.is_some());
    assert_eq!(forecast(&applied(""), &Operations::new(), &counter(), &none), Plan { rule: 1, ..Plan::default() });
}

#[test]
fn trap_a_local_replacing_operation_that_lost() {
    let (policy, mut ops) = (counter(), Operations::new());
    issue(&mut ops, &policy, "init", "set", &[], 1, "paris");
    let mut site = Site::new(NEITHER);
    site.known = ops.clone();
    issue(&mut site.known, &policy, "mine", "set", &["init"], 2, "rennes");
    site.settle(&policy, 10);
    issue(&mut ops, &policy, "winner", "set", &["init"], 3, "paris");
    site.known.extend(ops.clone());
    site.settle(&policy, 10);
    assert_eq!(site.contents, expected(&ops, &policy));
    assert_eq!(site.applied.sequence(), [&id("winner")]);
}

#[test]
fn trap_a_common_first_operation_is_not_run_twice() {
    let (policy, mut ops) = (counter(), Operations::new());
    issue(&mut ops, &policy, "first", "inc", &[], 1, "paris");
    issue(&mut ops, &policy, "left", "inc", &["first"], 2, "paris");
    issue(&mut ops, &policy, "right", "inc", &["first"], 3, "rennes");
    assert_eq!(steps(&forecast(&applied("first right"), &ops, &policy, &NEITHER)), "+left");
    issue(&mut ops, &policy, "twice", "double", &["left", "right"], 4, "paris");
    assert_eq!(steps(&forecast(&applied("first right"), &ops, &policy, &NEITHER)), "+left +twice");
}

#[test]
fn trap_a_hole_that_was_run_once_forces_no_rebuild_for_ever() {
    let (policy, mut ops) = (counter(), Operations::new());
    issue(&mut ops, &policy, "s", "set", &[], 1, "paris");
    issue(&mut ops, &policy, "i", "inc", &["s"], 2, "paris");
    issue(&mut ops, &policy, "j", "inc", &["s"], 3, "rennes");
    let plan = forecast(&applied("s j i"), &ops, &policy, &NEITHER);
    assert_eq!((plan.rule, plan.rebuild, plan.steps.len()), (2, false, 0));
    issue(&mut ops, &policy, "k", "inc", &["i", "j"], 4, "rennes");
    assert_eq!(steps(&forecast(&applied("s j i"), &ops, &policy, &NEITHER)), "+k");
}

#[test]
fn trap_a_failed_operation_is_not_planned_for_ever() {
    let ops = concurrent(&[("a", "x"), ("b-bad", "x"), ("c", "x")]);
    let policy = policy(&[], &[]);
    assert_eq!(steps(&forecast(&applied("a b-bad!"), &ops, &policy, &NEITHER)), "+c");
    let mut site = Site::new(RESETS);
    site.known = ops;
    site.settle(&policy, 10);
    assert_eq!(site.plan(&policy).steps, []);
}

#[test]
fn trap_an_absolute_operation_that_failed_is_not_planned_for_ever() {
    // By the letter: the failed one was taken back with what had to be undone, and then tried again.
    for capabilities in [UNDOES, RESETS, NEITHER] {
        let policy = counter();
        let mut site = Site::new(capabilities);
        site.known = concurrent(&[("x", "double")]);
        site.settle(&policy, 10);
        site.known = concurrent(&[("w-bad", "set"), ("x", "double")]);
        site.settle(&policy, 10);
        assert_eq!(site.contents, expected(&site.known, &policy), "{capabilities:?}");
    }
    // And with an earlier absolute operation to go back to: its success let the failed one be tried again.
    let mut policy = policy(&[], &["set"]);
    policy.after_failure = AfterFailure::Continue;
    let mut site = Site::new(NEITHER);
    site.known = concurrent(&[("z", "inc")]);
    site.settle(&policy, 10);
    let all = [("a", "inc"), ("b", "set"), ("i", "double"), ("j-bad", "set"), ("k", "inc"), ("z", "inc")];
    site.known = concurrent(&all);
    site.settle(&policy, 20);
    assert_eq!(site.contents, expected(&site.known, &policy));
}

#[test]
fn trap_applied_is_not_emptied_before_the_absolute_operation_has_succeeded() {
    let ops = concurrent(&[("s", "set"), ("i", "inc"), ("d", "double")]);
    let policy = counter();
    let mut site = applied("d i");
    let plan = forecast(&site, &ops, &policy, &NEITHER);
    assert_eq!((plan.rule, steps(&plan).as_str()), (3, "=s +i +d"));
    site.start(Step::Rebase(id("s")));
    assert_eq!(site.sequence(), [&id("d"), &id("i"), &id("s")], "an open intent counts as executed");
    let mut failed = site.clone();
    failed.finish(Outcome::Failed);
    assert_eq!(failed.sequence(), [&id("d"), &id("i"), &id("s")]);
    assert_eq!(failed.outcome(&id("s")), Some(Outcome::Failed));
    let mut never = site.clone();
    never.abandon_intent();
    assert_eq!(never, applied("d i"));
    site.finish(Outcome::Succeeded);
    assert_eq!(site, applied("s"));
}

#[test]
fn trap_a_crash_at_any_point_loses_nothing() {
    let policy = counter();
    let (mut before, mut after) = (Operations::new(), Operations::new());
    issue(&mut before, &policy, "s", "set", &[], 1, "paris");
    issue(&mut before, &policy, "i", "inc", &["s"], 2, "paris");
    issue(&mut before, &policy, "d", "double", &["i"], 4, "paris");
    after.extend(before.clone());
    issue(&mut after, &policy, "j", "inc", &["s"], 3, "rennes");
    issue(&mut after, &policy, "k", "double", &["j", "d"], 5, "rennes");
    let wanted = expected(&after, &policy);
    for capabilities in [UNDOES, RESETS, NEITHER] {
        for first in 0..20 {
            for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::Transient] {
                let mut site = Site::new(capabilities);
                site.known = before.clone();
                for step in 0..30 {
                    if step == 4 {
                        site.known = after.clone();
                    }
                    site.recover(&policy);
                    site.step(&policy, if step == first || step == first + 3 { fault } else { Fault::None });
                }
                site.settle(&policy, 1);
                assert_eq!(site.contents, wanted, "{fault:?} at step {first}");
            }
        }
    }
}

#[test]
fn an_open_intent_is_repeated_only_where_that_is_safe() {
    let (policy, ops) = (counter(), concurrent(&[("s", "set"), ("i", "inc")]));
    let after_crash = |step: Step, capabilities: &Capabilities| {
        let mut site = applied("i");
        site.start(step);
        site.recovery(&ops, &policy, capabilities)
    };
    let observes = Capabilities { observe: true, ..NEITHER };
    assert_eq!(after_crash(Step::Run(id("s")), &NEITHER), Some(Recovery::Repeat));
    assert_eq!(after_crash(Step::Rebase(id("s")), &NEITHER), Some(Recovery::Repeat));
    assert_eq!(after_crash(Step::Reset, &NEITHER), Some(Recovery::Repeat));
    assert_eq!(after_crash(Step::Run(id("i")), &observes), Some(Recovery::Observe));
    assert_eq!(after_crash(Step::Undo(id("i")), &observes), Some(Recovery::Observe));
    assert_eq!(after_crash(Step::Run(id("i")), &NEITHER), Some(Recovery::Ask));
    assert_eq!(after_crash(Step::Run(id("unknown")), &NEITHER), Some(Recovery::Ask));
    assert_eq!(applied("i").recovery(&ops, &policy, &NEITHER), None);
}

#[test]
fn what_comes_after_a_failure_waits_or_is_left_out_as_the_policy_says() {
    let ops = concurrent(&[("a", "x"), ("b", "x"), ("c", "x"), ("d", "x")]);
    let mut policy = policy(&[("x", "set", "take-both-keep-order")], &["set"]);
    assert_eq!(steps(&forecast(&applied("a b!"), &ops, &policy, &RESETS)), "+c +d");
    policy.after_failure = AfterFailure::Wait;
    let plan = forecast(&applied("a b!"), &ops, &policy, &RESETS);
    assert_eq!((steps(&plan).as_str(), named(&plan.waiting)), ("", vec!["c", "d"]));
    policy.after_failure = AfterFailure::Skip;
    let plan = forecast(&applied("a b!"), &ops, &policy, &RESETS);
    assert_eq!((steps(&plan).as_str(), named(&plan.skipped)), ("", vec!["c", "d"]));
    // An absolute operation needs nothing of what failed before it.
    for after_failure in [AfterFailure::Wait, AfterFailure::Skip] {
        policy.after_failure = after_failure;
        let mut ops = ops.clone();
        insert(&mut ops, "s", "set", vec![id("d")], false, 9, "paris");
        insert(&mut ops, "t", "x", vec![id("s")], false, 10, "paris");
        let plan = forecast(&applied("a b!"), &ops, &policy, &NEITHER);
        assert_eq!((plan.rule, steps(&plan).as_str()), (3, "=s +t"));
        assert_eq!((named(&plan.skipped), named(&plan.waiting)), (vec!["c", "d"], vec![]));
    }
}

#[test]
fn what_failed_and_was_replaced_since_needs_nobody() {
    let (policy, mut ops) = (policy(&[("x", "x", "take-one")], &[]), Operations::new());
    issue(&mut ops, &policy, "a", "x", &[], 1, "paris");
    issue(&mut ops, &policy, "b", "x", &["a"], 2, "paris");
    let plan = forecast(&applied("a!"), &ops, &policy, &NEITHER);
    assert_eq!((plan.rule, steps(&plan).as_str()), (1, "+b"));
}

#[test]
fn what_a_site_has_applied_is_stored_as_plain_text() {
    let mut site = applied("a b!");
    site.start(Step::Undo(id("a")));
    let text = serde_json::to_value(&site).unwrap();
    let expected = serde_json::json!({
        "entries": [{"id": "a", "outcome": "succeeded"}, {"id": "b", "outcome": "failed"}],
        "intent": {"step": "undo", "operation": "a"},
    });
    assert_eq!(text, expected);
    assert_eq!(serde_json::from_value::<Applied>(text).unwrap(), site);
}
