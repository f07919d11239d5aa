//! The promise: sites with the same operations hold the same contents, whatever each ran before it learned of the
//! others, whatever failed and whenever it crashed.

use khufu_crdt::{AfterFailure, Capabilities, Operations, Outcome, Policy, cut_after, cut_for, frontier, resolve};
use proptest::prelude::*;

use crate::histories::{SITES, cases};
use crate::history::{id, insert};
use crate::machine::{Contents, Fault, Kind, Site, expected, fault};

#[derive(Debug, Clone)]
enum Event {
    Issue { site: usize, op_type: usize, at: u64, bad: bool },
    Merge { from: usize, to: usize },
    Work { site: usize, faults: Vec<Fault> },
}

fn events(kind: Kind) -> impl Strategy<Value = Vec<Event>> {
    let site = 0..SITES.len();
    let issue = (site.clone(), 0..kind.types().len(), 0..40u64, prop::bool::weighted(0.15))
        .prop_map(|(site, op_type, at, bad)| Event::Issue { site, op_type, at, bad });
    let merge = (site.clone(), site.clone()).prop_map(|(from, to)| Event::Merge { from, to });
    let work = (site, prop::collection::vec(fault(), 1..6)).prop_map(|(site, faults)| Event::Work { site, faults });
    prop::collection::vec(prop_oneof![4 => issue, 2 => merge, 5 => work], 0..60)
}

fn capabilities() -> impl Strategy<Value = Capabilities> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(undo, reset, observe)| Capabilities {
        operations: true,
        undo,
        reset,
        reset_is_loss: false,
        observe,
        dry_run: false,
    })
}

#[derive(Debug, Clone)]
struct Story {
    kind: Kind,
    policy: Policy,
    events: Vec<Event>,
    capabilities: Vec<Capabilities>,
}

fn story() -> impl Strategy<Value = Story> {
    prop_oneof![Just(Kind::File), Just(Kind::Counter)].prop_flat_map(|kind| {
        (kind.policy(), events(kind), prop::collection::vec(capabilities(), SITES.len()))
            .prop_map(move |(policy, events, capabilities)| Story { kind, policy, events, capabilities })
    })
}

fn play(story: &Story) -> Vec<Site> {
    let mut sites: Vec<Site> = story.capabilities.iter().map(|c| Site::new(*c)).collect();
    play_on(&mut sites, story, &story.events, "");
    sites
}

fn play_on(sites: &mut [Site], story: &Story, events: &[Event], prefix: &str) {
    for (number, event) in events.iter().enumerate() {
        match event {
            Event::Issue { site, op_type, at, bad } => {
                let (at_site, op_type) = (&mut sites[*site], story.kind.types()[*op_type]);
                let known = &mut at_site.known;
                let parents = frontier(known);
                let cut = cut_after(&at_site.base, known, &parents, op_type, &story.policy);
                let name = format!("{}-{prefix}{number}{}", number * 7 % 10, if *bad { "-bad" } else { "" });
                insert(known, &name, op_type, parents, cut, *at, SITES[*site]);
            }
            Event::Merge { from, to } => {
                let more = sites[*from].known.clone();
                sites[*to].known.extend(more);
            }
            Event::Work { site, faults } => {
                for fault in faults {
                    // Also right after a crash: nothing was done since.
                    sites[*site].recover(&story.policy);
                    sites[*site].step(&story.policy, *fault);
                }
            }
        }
    }
    let all: Operations = sites.iter().flat_map(|s| s.known.clone()).collect();
    sites.iter_mut().for_each(|s| s.known = all.clone());
}

/// Far more steps than anything needs: the list, as often as an absolute operation of it can fail, and what is undone.
const STEPS_MAX: usize = 2_000;

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(300), ..ProptestConfig::default() })]

    #[test]
    fn sites_with_the_same_operations_hold_the_same_contents(story in story()) {
        let mut sites = play(&story);
        let wanted = expected(&sites[0].known, &story.policy);
        for (site, name) in sites.iter_mut().zip(SITES) {
            site.settle(&story.policy, STEPS_MAX);
            let plan = site.plan(&story.policy);
            if plan.needs_attention.is_some() {
                let list = resolve(&site.known, &story.policy).list;
                let base = |o: &khufu_crdt::OperationId| {
                    story.policy.is_absolute(&site.known[o].op_type) && !o.as_str().ends_with("-bad")
                };
                prop_assert!(!site.capabilities.reset && !list.iter().any(base), "{name} could go on: {plan:?}");
                continue;
            }
            prop_assert_eq!(&site.contents, &wanted, "at {}, which has {:?}", name, site.applied);
        }
    }

    /// Between phases all sites meet, work a while, and close what they have if nobody needs what is left out.
    #[test]
    fn closings_do_not_show_in_contents(
        story in story(), more in prop::collection::vec(prop::collection::vec(0..12_u8, 5), 1..4),
    ) {
        let mut sites: Vec<Site> = story.capabilities.iter().map(|c| Site::new(*c)).collect();
        let (mut all, mut ends) = (Operations::new(), Vec::new());
        let length = story.events.len().div_ceil(more.len()).max(1);
        for (phase, (events, steps)) in story.events.chunks(length).zip(&more).enumerate() {
            play_on(&mut sites, &story, events, &format!("{phase}-"));
            for (id, mut operation) in sites[0].known.clone() {
                // What comes after all that was closed says so by naming none of it.
                if operation.parents.is_empty() {
                    operation.parents.clone_from(&ends);
                }
                all.insert(id, operation);
            }
            for (site, steps) in sites.iter_mut().zip(steps) {
                site.recover(&story.policy);
                (0..*steps).for_each(|_| _ = site.step(&story.policy, Fault::None));
            }
            let (base, left_out) = sites[0].base.close(&sites[0].known, &story.policy);
            let first = base.operations.first().filter(|o| story.policy.is_absolute(&o.op_type));
            let needs = |site: &Site| match first {
                Some(first) => site.applied.outcome(&first.id) != Some(Outcome::Succeeded),
                None => site.applied.sequence().into_iter().any(|id| left_out.contains(id)),
            };
            if !sites.iter().any(needs) {
                ends = frontier(&all);
                for site in &mut sites {
                    (site.base, site.known) = (base.clone(), Operations::new());
                }
            }
        }
        let wanted = expected(&all, &story.policy);
        for (site, name) in sites.iter_mut().zip(SITES) {
            site.settle(&story.policy, STEPS_MAX);
            let plan = site.plan(&story.policy);
            if plan.needs_attention.is_none() {
                prop_assert_eq!(&site.contents, &wanted, "at {}, which has {:?} after {:?}", name, site.applied, site.base);
            } else {
                prop_assert!(!site.capabilities.reset, "{} could go on: {:?}", name, plan);
            }
        }
    }

    #[test]
    fn what_waits_or_was_left_out_does_not_show_once_all_was_replaced(story in story(), wait in any::<bool>()) {
        let mut story = story;
        story.policy.after_failure = if wait { AfterFailure::Wait } else { AfterFailure::Skip };
        let last = story.kind.types()[0];
        story.policy.types.get_mut(last).unwrap().absolute = true;
        let mut sites = play(&story);
        for site in &mut sites {
            site.settle(&story.policy, STEPS_MAX);
        }
        let parents = frontier(&sites[0].known);
        let mut all = sites[0].known.clone();
        let cut = cut_for(&all, &parents, last, &story.policy);
        insert(&mut all, "zz-last", last, parents, cut, 100, SITES[0]);
        let mut wanted = Contents::default();
        wanted.run(&id("zz-last"), last);
        for site in &mut sites {
            site.known = all.clone();
            site.settle(&story.policy, STEPS_MAX);
            prop_assert_eq!(&site.contents, &wanted);
        }
    }
}
