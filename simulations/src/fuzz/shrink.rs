//! Makes a failing scenario smaller: leaves out deeds while the same invariant still breaks (Zeller's `ddmin`, 2002).

use super::plan::Plan;
use super::run::run;

/// A scenario with fewer deeds in which the invariant of this name breaks as well, found in at most `runs` runs.
#[must_use]
pub fn shrink(plan: &Plan, invariant: &str, runs: usize) -> Plan {
    let breaks = |steps: &[_]| {
        let outcome = run(&plan.with_steps(steps.to_vec()), false);
        outcome.broken.is_some_and(|broken| broken.name() == invariant)
    };
    plan.with_steps(fewer(plan.steps.clone(), runs, breaks))
}

/// As few of them as are found to be enough, in at most so many tries.
fn fewer<T: Clone>(mut all: Vec<T>, mut tries: usize, is_enough: impl Fn(&[T]) -> bool) -> Vec<T> {
    let mut size = all.len().div_ceil(2);
    while size > 0 {
        let (mut at, mut removed) = (0, false);
        while at < all.len() {
            let Some(left) = tries.checked_sub(1) else { return all };
            tries = left;
            let mut rest = all.clone();
            rest.drain(at..(at + size).min(all.len()));
            if is_enough(&rest) {
                all = rest;
                removed = true;
            } else {
                at += size;
            }
        }
        // One at a time until nothing more can go: what is gone may have been the only reason for another.
        size = if size == 1 && removed { 1 } else { size / 2 };
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_what_is_needed_and_nothing_else() {
        let needs = |needed: &'static [u32]| move |some: &[u32]| needed.iter().all(|one| some.contains(one));
        assert_eq!(fewer((0..80).collect(), 1000, needs(&[3, 40, 41, 79])), [3, 40, 41, 79]);
        assert_eq!(fewer((0..80).collect(), 1000, needs(&[])), Vec::<u32>::new());
        assert_eq!(fewer((0..80).collect(), 0, needs(&[1])).len(), 80);
    }
}
