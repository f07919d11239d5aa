//! What a deletion ends: what was known where it was made, and nothing else.

use std::time::Duration;

use khufu_crdt::ReplicantId;
use khufu_engine::harness::World;
use khufu_engine::{Config, Put, ReplicantView, Request, Response};
use serde_json::{Value, json};

const THREE: [&str; 3] = ["nantes", "paris", "rennes"];

fn id(name: &str) -> ReplicantId {
    ReplicantId::new(name).unwrap()
}

fn delete(world: &mut World, site: &str) {
    world.request(site, Request::Delete { id: id("web"), keep: false, base: None }).unwrap();
}

fn put(world: &mut World, site: &str, kind: &str, scope: &str, desired: Value) {
    let put = Put {
        id: id("web"),
        kind: Some(kind.into()),
        scope: Some(scope.into()),
        policy: None,
        desired: Some(desired),
        overrides: None,
        base: None,
    };
    world.request(site, Request::Put(put)).unwrap();
}

/// Edits of which every site has heard: each may be where an epoch is closed.
fn grow(world: &mut World, edits: u64) {
    for number in 0..edits {
        world.patch("paris", "web", json!({"n": number})).unwrap();
        world.settle();
    }
}

fn view(world: &mut World, site: &str) -> ReplicantView {
    match world.request(site, Request::Get { id: id("web") }) {
        Ok(Response::Replicant(view)) => *view,
        other => panic!("{other:?}"),
    }
}

fn nothing(_: &mut Config) {}

/// Closes epochs after a few changes.
fn short(config: &mut Config) {
    config.epochs.changes = 5;
    config.epochs.aged_changes = 5;
}

#[test]
fn what_is_put_apart_stays_although_the_name_was_used_and_deleted_elsewhere() {
    for configure in [nothing, short] {
        for (deletions, again) in [(0, false), (1, false), (1, true), (2, true)] {
            let mut world = World::configured(900, configure);
            world.sites(&THREE);
            put(&mut world, "paris", "text", "paris & rennes", json!({"old": 0}));
            for number in 1..=deletions {
                world.settle();
                delete(&mut world, "paris");
                world.settle();
                if again || number < deletions {
                    put(&mut world, "paris", "text", "paris & rennes", json!({"old": number}));
                }
            }
            world.settle();
            world.isolate("nantes");
            world.run_for(Duration::from_secs(5));
            // Acknowledged, and made on the platform of nantes.
            put(&mut world, "nantes", "text", "nantes & paris & rennes", json!({"mine": "nantes"}));
            world.run_for(Duration::from_secs(5));
            assert_eq!(world.text("nantes", "web").as_deref(), Some("{\"mine\":\"nantes\"}\n"));
            world.heal();
            world.run_for(Duration::from_secs(60));
            world.settle();
            let mut wanted = json!({"mine": "nantes"});
            if deletions == 0 || again {
                wanted["old"] = json!(deletions);
            }
            for site in THREE {
                assert_eq!(view(&mut world, site).desired, wanted, "{deletions} {again}");
                assert_eq!(world.text(site, "web"), Some(format!("{wanted}\n")), "{deletions} {again}");
            }
        }
    }
}

#[test]
fn what_is_put_again_apart_stays_although_another_did_so_more_often() {
    for configure in [nothing, short] {
        for (times, others) in [(1, 1), (2, 1), (1, 3)] {
            let mut world = World::configured(918, configure);
            world.sites(&["paris", "rennes"]);
            put(&mut world, "paris", "text", "paris & rennes", json!({"old": 1}));
            world.settle();
            world.isolate("rennes");
            for (site, times) in [("paris", times), ("rennes", others)] {
                for number in 1..=times {
                    delete(&mut world, site);
                    world.run_for(Duration::from_millis(700 * (number - 1)));
                    put(&mut world, site, "text", "paris & rennes", json!({ site: number }));
                }
                world.run_for(Duration::from_secs(5));
            }
            world.heal();
            world.settle();
            let wanted = json!({"paris": times, "rennes": others});
            for site in ["paris", "rennes"] {
                assert_eq!(view(&mut world, site).desired, wanted);
                assert_eq!(world.text(site, "web"), Some(format!("{wanted}\n")));
            }
        }
    }
}

#[test]
fn a_site_that_gave_a_replicant_away_does_not_have_another_of_that_name_deleted() {
    for (configure, patches) in [(nothing as fn(&mut Config), 0), (short, 0), (short, 30)] {
        let mut world = World::configured(901, configure);
        world.sites(&THREE);
        put(&mut world, "paris", "text", "paris & rennes", json!({"old": 1}));
        world.settle();
        delete(&mut world, "paris");
        put(&mut world, "paris", "text", "paris & rennes", json!({"old": 2}));
        world.settle();
        grow(&mut world, patches);
        put(&mut world, "paris", "text", "rennes", json!({"old": 3}));
        world.settle();
        assert_eq!(world.text("paris", "web"), None);
        world.isolate("nantes");
        world.run_for(Duration::from_secs(5));
        put(&mut world, "nantes", "text", "nantes & paris", json!({"mine": "nantes"}));
        world.run_for(Duration::from_secs(5));
        world.heal();
        world.run_for(Duration::from_secs(60));
        world.settle();
        let placed = view(&mut world, "rennes").placement.unwrap().sites;
        let texts: Vec<_> = THREE.iter().map(|site| world.text(site, "web")).collect();
        for (site, text) in THREE.iter().zip(&texts) {
            let here = placed.iter().any(|placed| placed.as_str() == *site);
            let wanted = here.then_some("{\"mine\":\"nantes\",\"old\":3}\n");
            assert_eq!(text.as_deref(), wanted, "{site}: {texts:?} {placed:?}");
        }
    }
}

#[test]
fn what_a_site_put_apart_conflicts_with_what_was_closed_meanwhile() {
    let mut world = World::configured(905, |config| {
        short(config);
        let text = config.kinds.get("text").copied().unwrap();
        config.kinds.insert("other".into(), text);
    });
    world.sites(&THREE);
    put(&mut world, "paris", "text", "paris & rennes", json!({"old": 1}));
    world.settle();
    grow(&mut world, 30);
    world.isolate("nantes");
    world.run_for(Duration::from_secs(5));
    put(&mut world, "nantes", "other", "nantes & paris & rennes", json!({"old": 2, "n": -1}));
    world.run_for(Duration::from_secs(5));
    world.heal();
    world.settle();
    for site in THREE {
        let Ok(Response::Conflicts(conflicts)) = world.request(site, Request::Conflicts { id: id("web") }) else {
            panic!("no answer")
        };
        let fields: Vec<_> = conflicts.iter().map(|of| of.pointer()).collect();
        for field in ["/kind", "/desired/old", "/desired/n"] {
            assert!(fields.iter().any(|of| of == field), "{site}: {fields:?}");
        }
    }
}

#[test]
fn what_nobody_can_take_in_is_offered_less_and_less_often_and_kept() {
    let mut world = World::configured(907, short);
    world.sites(&THREE);
    put(&mut world, "paris", "text", "paris & rennes", json!({"old": 1}));
    world.settle();
    grow(&mut world, 120);
    world.isolate("nantes");
    world.run_for(Duration::from_secs(5));
    put(&mut world, "nantes", "text", "nantes & paris & rennes", json!({"mine": 2}));
    world.run_for(Duration::from_secs(5));
    world.heal();
    let refused = |world: &World| {
        let of = |site: &str| world.sites[site].engine().unwrap().metrics().refused;
        of("paris") + of("rennes")
    };
    world.run_for(Duration::from_secs(120));
    let before = refused(&world);
    assert!(before > 0, "nothing was offered");
    world.run_for(Duration::from_secs(240));
    assert!(refused(&world) - before <= 4, "{} offers in four minutes", refused(&world) - before);
    assert_eq!(world.text("nantes", "web").as_deref(), Some("{\"mine\":2}\n"));
    // The way out that the warning names.
    world.try_put("paris", "web", "nantes & paris & rennes", None, None).unwrap();
    world.settle();
    for site in THREE {
        assert_eq!(world.text(site, "web").as_deref(), Some("{\"mine\":2,\"n\":119,\"old\":1}\n"));
    }
}

#[test]
fn what_was_deleted_takes_no_room_when_it_is_put_again() {
    let small: fn(&mut Config) = |config| config.limits.max_bytes = 20_000;
    let small_and_short: fn(&mut Config) = |config| {
        short(config);
        config.limits.max_bytes = 20_000;
    };
    for configure in [small, small_and_short] {
        let mut world = World::configured(908, configure);
        world.sites(&THREE);
        let large =
            |world: &mut World| (0..12_000).map(|_| char::from(b'!' + world.below(90) as u8)).collect::<String>();
        for number in 0..4 {
            let value = json!({"number": number, "large": large(&mut world)});
            put(&mut world, "paris", "text", "all", value.clone());
            world.settle();
            for site in THREE {
                assert_eq!(view(&mut world, site).desired, value);
            }
            delete(&mut world, "rennes");
            world.settle();
        }
    }
}

#[test]
fn a_deletion_ends_what_was_deleted_also_where_it_is_put_again_as_another_kind() {
    let mut world = World::configured(902, |config| {
        let text = config.kinds.get("text").copied().unwrap();
        config.kinds.insert("other".into(), text);
    });
    world.sites(&THREE);
    put(&mut world, "paris", "text", "all", json!({"old": 1}));
    world.settle();
    world.isolate("nantes");
    delete(&mut world, "paris");
    put(&mut world, "paris", "other", "all", json!({"new": 1}));
    world.run_for(Duration::from_secs(5));
    world.heal();
    world.settle();
    for site in THREE {
        assert_eq!(view(&mut world, site).kind, "other");
        assert_eq!(world.text(site, "web").as_deref(), Some("{\"new\":1}\n"), "{site}");
    }
}
