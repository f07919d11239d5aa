//! Epochs over several sites: history stays short, nothing is lost, and who was away catches up.

use std::collections::BTreeSet;
use std::time::Duration;

use khufu_crdt::{EpochRule, OperationId, Status};
use khufu_engine::harness::World;
use khufu_engine::{Config, Operate, Request, RequestError, Response};
use serde_json::json;

use crate::{file_policy, id, rescope, view};

const THREE: [&str; 3] = ["nantes", "paris", "rennes"];

fn short(config: &mut Config) {
    config.epochs = EpochRule { changes: 5, age_ms: u64::MAX, aged_changes: usize::MAX };
    config.archives = 3;
}

fn epochs(world: &World) -> u64 {
    world.sites.values().filter_map(|site| site.engine()).map(|engine| engine.metrics().epochs).sum()
}

#[test]
fn history_stays_short_and_everybody_goes_on_with_the_same() {
    for seed in 0..4 {
        let mut world = World::configured(seed, short);
        world.sites(&THREE);
        world.put_with("paris", "log", "all", &file_policy());
        let mut expected = String::new();
        for number in 0..40 {
            let site = THREE[number % 3];
            let (op_type, word) = (if number % 7 == 3 { "set" } else { "add" }, format!("<{number}>"));
            world.operate(site, "log", op_type, &word).unwrap();
            expected = if op_type == "set" { word } else { expected + &word };
            world.settle();
        }
        let end = world.now() + Duration::from_secs(10);
        let view = loop {
            let view = view(&mut world, "paris", "log");
            if view.status == Status::Applied || world.now() > end {
                break view;
            }
            world.run_for(Duration::from_millis(50));
        };
        let closings = world.stored_document("paris", &id("log")).unwrap().id().closings();
        assert!(closings >= 4, "only {closings} epochs were closed");
        for site in THREE {
            assert_eq!(world.text(site, "log").unwrap(), expected);
            assert_eq!(world.stored_documents(site, "log"), 1, "the old ones are gone from the disk");
        }
        assert_eq!(view.status, Status::Applied, "{:#?}\n{}", view.sites, world.describe("log"));
        assert!(view.bytes < 8_000, "{} bytes", view.bytes);
        let rebuilds: u64 = world.sites.values().map(|site| site.engine().unwrap().metrics().rebuilds).sum();
        // All that ran has been run once; only a replacing operation starts a replica over.
        assert!(rebuilds <= 3 * 6, "{rebuilds} rebuilds");
    }
}

#[test]
fn writers_that_never_wait_for_each_other_are_brought_together_when_they_pause() {
    let mut world = World::configured(3, short);
    world.sites(&THREE);
    world.put_with("paris", "log", "all", &file_policy());
    world.settle();
    let mut asked = BTreeSet::new();
    for number in 0..30 {
        for site in THREE {
            let operation = OperationId::new(format!("{site}-{number}")).unwrap();
            let payload = json!(format!("<{operation}>"));
            asked.insert(operation.clone());
            let operate =
                Operate { id: id("log"), operation: Some(operation), op_type: "add".into(), payload, wait_ms: 0 };
            world.ask(site, Request::Operate(operate));
        }
        world.run_for(Duration::from_millis(20));
    }
    world.settle();
    world.run_for(Duration::from_secs(5));
    world.settle();
    let joins: u64 = world.sites.values().map(|site| site.engine().unwrap().metrics().joins).sum();
    assert!(joins > 0 && epochs(&world) >= 3, "{joins} joins, {} epochs", epochs(&world));
    let view = view(&mut world, "nantes", "log");
    let there: BTreeSet<_> = view.operations.iter().map(|view| view.operation.id.clone()).collect();
    assert_eq!(there, asked);
}

#[test]
fn a_silent_site_holds_epochs_up_and_comes_back_to_all_of_them() {
    let mut world = World::configured(4, short);
    world.sites(&THREE);
    world.put_with("paris", "log", "all", &file_policy());
    world.settle();
    world.isolate("rennes");
    for number in 0..12 {
        world.operate("paris", "log", "add", &format!("p{number};")).unwrap();
        world.operate("rennes", "log", "add", &format!("r{number};")).unwrap();
        world.run_for(Duration::from_millis(300));
    }
    assert_eq!(epochs(&world), 0, "what a silent site may still send is not closed over");
    world.heal();
    world.settle();
    world.run_for(Duration::from_secs(20));
    world.settle();
    assert!(epochs(&world) >= 3);
    let text = world.text("nantes", "log").unwrap();
    for number in 0..12 {
        assert_eq!(text.matches(&format!("p{number};")).count(), 1);
        assert_eq!(text.matches(&format!("r{number};")).count(), 1);
    }
    assert_eq!(world.text("rennes", "log").unwrap(), text);
}

#[test]
fn a_site_that_knows_none_of_the_holders_of_the_next_epoch_hears_of_it() {
    let mut world = World::configured(5, short);
    world.sites(&["brest", "lille", "rennes"]);
    world.put_with("brest", "log", "brest & rennes", &file_policy());
    world.settle();
    // Brest does not hear that rennes has what it wrote last, so it cannot end the epoch itself.
    world.cut_one_way("rennes", "brest");
    for _ in 0..6 {
        world.operate("brest", "log", "add", "one;").unwrap();
        world.run_for(Duration::from_millis(500));
    }
    world.isolate("brest");
    rescope(&mut world, "rennes", "log", "lille").unwrap();
    world.run_for(Duration::from_secs(10));
    let epoch = |world: &World, site: &str| world.stored_document(site, &id("log")).unwrap().id().epoch;
    assert!(epoch(&world, "lille") > epoch(&world, "brest"), "{}", world.describe("log"));
    assert!(!world.stores("rennes", "log"), "{}", world.describe("log"));
    rescope(&mut world, "lille", "log", "brest").unwrap();
    world.run_for(Duration::from_secs(10));
    world.heal();
    world.settle();
    assert_eq!(world.text("brest", "log").as_deref(), Some("one;".repeat(6).as_str()));
    world.until("lille forgets it", Duration::from_secs(5), |world| !world.stores("lille", "log"));
}

#[test]
fn a_node_that_was_down_while_the_last_epochs_closed_fetches_the_newest() {
    for seed in 0..3 {
        let mut world = World::configured(seed, short);
        world.sites(&THREE);
        world.put_with("paris", "log", "paris & nantes", &file_policy());
        world.settle();
        // Added late: it knows none of what was closed.
        for number in 0..20 {
            world.operate("paris", "log", "add", &format!("{number};")).unwrap();
            world.settle();
        }
        let put = khufu_engine::Put {
            id: id("log"),
            kind: None,
            scope: Some("all".into()),
            policy: None,
            desired: None,
            overrides: None,
            base: None,
        };
        world.request("paris", Request::Put(put)).unwrap();
        world.settle();
        assert_eq!(world.text("rennes", "log"), world.text("paris", "log"));
        // It has said that it has all, dies, and the others close without it.
        world.crash("rennes");
        for number in 20..40 {
            world.operate("nantes", "log", "add", &format!("{number};")).unwrap();
            world.run_for(Duration::from_millis(200));
        }
        world.start("rennes");
        world.settle();
        let text = world.text("rennes", "log").unwrap();
        assert_eq!(text, (0..40).map(|number| format!("{number};")).collect::<String>());
        // A disk that is lost is filled from the others.
        world.crash("nantes");
        world.sites.get_mut("nantes").unwrap().disk.wipe();
        world.start("nantes");
        world.settle();
        assert_eq!(world.text("nantes", "log").unwrap(), text);
    }
}

#[test]
fn a_crash_at_any_moment_of_a_closing_loses_nothing() {
    for seed in 0..12 {
        let mut world = World::configured(seed, short);
        world.sites(&THREE);
        world.put_with("paris", "log", "all", &file_policy());
        world.settle();
        let mut acknowledged = Vec::new();
        for number in 0..25 {
            let site = THREE[world.below(3) as usize];
            if world.sites[site].engine().is_some() && world.operate(site, "log", "add", &format!("{number};")).is_ok()
            {
                acknowledged.push(number);
            }
            let us = world.below(400_000);
            world.run_for(Duration::from_micros(us));
            if world.chance(25) {
                let victim = THREE[world.below(3) as usize];
                world.restart(victim);
            }
        }
        world.settle();
        let text = world.text("paris", "log").unwrap();
        for number in acknowledged {
            let times = text.split(';').filter(|word| *word == number.to_string()).count();
            assert_eq!(times, 1, "{number} in {text} (seed {seed})");
        }
    }
}

#[test]
fn history_goes_back_into_the_epochs_that_are_kept() {
    let mut world = World::configured(9, short);
    world.sites(&["paris", "rennes"]);
    world.put_with("paris", "log", "all", &file_policy());
    for number in 0..10 {
        world.operate("paris", "log", "add", &format!("{number};")).unwrap();
        world.settle();
    }
    let history = |world: &mut World, limit| match world.request("paris", Request::History { id: id("log"), limit }) {
        Ok(Response::History(entries)) => entries,
        other => panic!("{other:?}"),
    };
    let all = history(&mut world, 1000);
    assert_eq!(all.iter().filter(|entry| entry.what == "operation").count(), 10);
    assert_eq!(all.first().unwrap().what, "create");
    assert!(all.iter().any(|entry| entry.what == "epoch"));
    assert_eq!(history(&mut world, 2).len(), 2);
    for number in 10..60 {
        world.operate("paris", "log", "add", &format!("{number};")).unwrap();
        world.settle();
    }
    let operations = history(&mut world, 1000).iter().filter(|entry| entry.what == "operation").count();
    assert!((12..40).contains(&operations), "{operations}: three epochs are kept, not all");
}

#[test]
fn an_operation_that_was_closed_over_is_not_run_again_when_it_is_asked_for_again() {
    let mut world = World::configured(10, short);
    world.sites(&["paris", "rennes"]);
    world.put_with("paris", "log", "all", &file_policy());
    let mut ask = |site: &str, name: &str, op_type: &str| {
        let operate = Operate {
            id: id("log"),
            operation: Some(OperationId::new(name).unwrap()),
            op_type: op_type.into(),
            payload: json!(format!("{name};")),
            wait_ms: 5_000,
        };
        let answer = world.request(site, Request::Operate(operate));
        world.settle();
        (answer, world.text("rennes", "log").unwrap())
    };
    for name in ["a", "b", "c"] {
        ask("paris", name, "add").0.unwrap();
    }
    ask("rennes", "s", "set").0.unwrap();
    for name in ["d", "e", "f", "g", "h", "i"] {
        ask("paris", name, "add").0.unwrap();
    }
    assert_eq!(ask("rennes", "d", "add").1, "s;d;e;f;g;h;i;");
    let (again, text) = ask("rennes", "b", "add");
    assert!(matches!(again, Err(RequestError::Conflict { .. })), "{again:?}");
    assert_eq!(text, "s;d;e;f;g;h;i;");
}

#[test]
fn what_is_deleted_and_made_anew_meanwhile_is_the_new_one_everywhere() {
    for seed in 0..10 {
        let mut world = World::configured(seed, short);
        world.sites(&THREE);
        world.put_with("paris", "log", "all", &file_policy());
        world.settle();
        for number in 0..8 {
            world.ask(
                "paris",
                Request::Operate(Operate {
                    id: id("log"),
                    operation: None,
                    op_type: "add".into(),
                    payload: json!(format!("{number};")),
                    wait_ms: 0,
                }),
            );
            if number == 4 + seed % 4 {
                world.ask("rennes", Request::Delete { id: id("log"), keep: false, base: None });
                world.run_for(Duration::from_millis(seed * 3));
                world.put_with("rennes", "log", "all", &file_policy());
            }
            let us = world.below(60_000);
            world.run_for(Duration::from_micros(us));
        }
        world.settle();
        world.operate("nantes", "log", "set", "end").unwrap();
        world.settle();
        for site in THREE {
            assert_eq!(world.text(site, "log").unwrap(), "end");
        }
    }
}

fn counted(world: &World, count: fn(&khufu_engine::Metrics) -> u64) -> Vec<u64> {
    THREE.iter().filter_map(|site| world.sites[*site].engine()).map(|engine| count(&engine.metrics())).collect()
}

#[test]
fn who_was_away_for_thousands_of_changes_does_not_close_one_epoch_after_the_other() {
    let mut world = World::configured(11, |config| config.archives = 2);
    world.sites(&THREE);
    world.put("paris", "page", "all", json!({"text": "", "edits": {}}));
    world.settle();
    world.isolate("rennes");
    for number in 0..3_200_u32 {
        let site = if number % 50 == 0 { "nantes" } else { "paris" };
        let patch = json!({"text": format!("{number}"), "edits": {format!("e{}", number % 100): number}});
        world.ask(site, Request::Patch { id: id("page"), patch });
        world.run_for(Duration::from_millis(if number % 50 < 2 { 200 } else { 2 }));
    }
    world.run_for(Duration::from_secs(2));
    assert_eq!(counted(&world, |metrics| metrics.epochs), [0, 0, 0], "one site has nothing of it");
    let before = view(&mut world, "paris", "page");
    world.heal();
    world.until("all is closed", Duration::from_secs(60), |world| {
        counted(world, |metrics| metrics.epochs).iter().all(|epochs| *epochs > 0)
    });
    world.settle();
    let (epochs, carried) = (counted(&world, |metrics| metrics.epochs), counted(&world, |metrics| metrics.carried));
    assert!(epochs.iter().all(|epochs| *epochs <= 2), "{epochs:?}");
    assert!(carried.iter().all(|carried| *carried <= 500), "{carried:?}");
    assert_eq!(counted(&world, |metrics| metrics.epochs_changed), [0, 0, 0]);
    for site in THREE {
        let view = view(&mut world, site, "page");
        assert_eq!(view.desired, before.desired);
        assert!(view.conflicts == 0 && view.bytes < 200_000, "{} bytes", view.bytes);
        assert!(world.text(site, "page").unwrap().contains(r#""text":"3199""#));
        assert_eq!(world.stored_documents(site, "page"), 1);
    }
}

/// Settings under which sites close the same epoch at different changes, as they otherwise do if they know different
/// amounts at the moment at which they look.
fn at_odds(config: &mut Config) {
    short(config);
    config.epochs.changes += config.site.as_str().len();
}

#[test]
fn sites_that_close_one_epoch_at_different_changes_end_with_the_same() {
    let (mut far, mut changed) = (0, 0);
    for seed in 0..5 {
        let mut world = World::configured(seed, at_odds);
        world.sites(&THREE);
        world.put_with("paris", "log", "all", &file_policy());
        world.put("paris", "page", "all", json!({}));
        world.settle();
        let mut asked = 0;
        for round in 0..5 {
            // Somebody hears nothing of a burst of changes, and then of all at once, or from one of the others only.
            let away = THREE[world.below(3) as usize];
            world.isolate(away);
            let site = THREE.into_iter().find(|site| *site != away).unwrap();
            for _ in 0..5 + world.below(40) {
                let operation = Some(OperationId::new(format!("o{asked}")).unwrap());
                let payload = json!(format!("<{asked}>"));
                let operate = Operate { id: id("log"), operation, op_type: "add".into(), payload, wait_ms: 0 };
                world.ask(site, Request::Operate(operate));
                world.ask(site, Request::Patch { id: id("page"), patch: json!({ "last": asked }) });
                asked += 1;
                let us = world.below(20_000);
                world.run_for(Duration::from_micros(us));
            }
            world.heal();
            let (one, two) = (THREE[world.below(3) as usize], THREE[world.below(3) as usize]);
            if one != two {
                world.cut_one_way(one, two);
            }
            for number in 0..world.below(8) {
                // Each at its own field, into whichever document there is by now.
                for site in THREE {
                    let patch = json!({ site: format!("{round}.{number}") });
                    world.ask(site, Request::Patch { id: id("page"), patch });
                }
                let ms = world.below(150);
                world.run_for(Duration::from_millis(ms));
            }
            world.heal();
            world.settle();
            let page = view(&mut world, "paris", "page");
            assert_eq!(page.desired["last"], json!(asked - 1), "seed {seed}");
            assert_eq!(page.conflicts, 0, "seed {seed}: what was carried over on two ways is beside itself");
        }
        world.run_for(Duration::from_secs(5));
        world.settle();
        far += counted(&world, |metrics| metrics.epochs_far).iter().sum::<u64>();
        changed += counted(&world, |metrics| metrics.epochs_changed).iter().sum::<u64>();
        let text = world.text("paris", "log").unwrap();
        for number in 0..asked {
            assert_eq!(text.matches(&format!("<{number}>")).count(), 1, "{number} in {text} (seed {seed})");
        }
        for site in THREE {
            assert_eq!(world.text(site, "log").unwrap(), text, "seed {seed}");
            assert_eq!(world.stored_documents(site, "log"), 1, "seed {seed}");
        }
        let epochs: BTreeSet<_> = THREE.map(|site| view(&mut world, site, "log").epoch).into();
        assert_eq!(epochs.len(), 1, "{epochs:?} (seed {seed})");
    }
    assert!(far > 4, "epochs were closed far on only {far} times");
    assert!(changed > 4, "only {changed} times the document of another was taken for the one begun here");
}
