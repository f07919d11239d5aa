//! Resolution compared with the oracle over random histories.

use khufu_crdt::{Operations, Policy, cut_for, frontier, resolve};
use proptest::prelude::*;

use crate::histories::{any_policy, cases, events, play, union, wild};
use crate::obvious::{Oracle, Pairs, cut};

/// All pairs that follow from these.
fn closure(mut pairs: Pairs) -> Pairs {
    loop {
        let mut more = Vec::new();
        for (a, b) in &pairs {
            for (c, d) in &pairs {
                if b == c && !pairs.contains(&(a.clone(), d.clone())) {
                    more.push((a.clone(), d.clone()));
                }
            }
        }
        if more.is_empty() {
            return pairs;
        }
        pairs.extend(more);
    }
}

fn check(operations: &Operations, policy: &Policy) -> Result<(), TestCaseError> {
    let oracle = Oracle::new(operations, policy);
    prop_assert_eq!(&oracle.before, &closure(oracle.before.clone()));
    prop_assert_eq!(resolve(operations, policy), oracle.resolve());
    let ends: Vec<_> =
        operations.keys().filter(|id| !operations.keys().any(|x| oracle.is_before(id, x))).cloned().collect();
    prop_assert_eq!(frontier(operations), ends);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(150), ..ProptestConfig::default() })]

    #[test]
    fn honest_histories_give_the_oracles_list(events in events(40), policy in any_policy()) {
        let sites = play(&events, &policy);
        check(&union(&sites), &policy)?;
        for site in &sites {
            for operation in site.values() {
                prop_assert_eq!(operation.cut, cut(site, &operation.parents, &operation.op_type, &policy));
            }
        }
    }

    #[test]
    fn any_set_whatever_gives_the_oracles_list(operations in wild(24), policy in any_policy()) {
        check(&operations, &policy)?;
        let parents: Vec<_> = operations.keys().step_by(3).cloned().collect();
        for op_type in crate::histories::TYPES {
            prop_assert_eq!(
                cut_for(&operations, &parents, op_type, &policy),
                cut(&operations, &parents, op_type, &policy)
            );
        }
    }
}
