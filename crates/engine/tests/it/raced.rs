//! Requests that say what they start from, when somebody else was faster.

use khufu_crdt::{DriftPolicy, Policy, ReplicantId};
use khufu_engine::harness::World;
use khufu_engine::{ListQuery, Put, ReplicantView, Request, RequestError, Response};
use serde_json::{Map, Value, json};

const SITES: [&str; 2] = ["paris", "rennes"];

fn id() -> ReplicantId {
    ReplicantId::new("web").unwrap()
}

/// A world with a replicant, as it is seen at rennes.
fn world(seed: u64) -> (World, ReplicantView) {
    let mut world = World::new(seed);
    world.sites(&SITES);
    world.try_put("paris", "web", "paris & rennes", Some(json!({"a": 1})), None).unwrap();
    world.settle();
    let saw = view(&mut world, "rennes");
    (world, saw)
}

fn view(world: &mut World, site: &str) -> ReplicantView {
    match world.request(site, Request::Get { id: id() }) {
        Ok(Response::Replicant(view)) => *view,
        other => panic!("{other:?}"),
    }
}

fn edit(saw: &ReplicantView, desired: Option<Value>, policy: Option<Policy>) -> Request {
    let base = Some(saw.heads.clone());
    Request::Put(Put { id: id(), kind: None, scope: None, policy, desired, overrides: None, base })
}

fn delete(saw: &ReplicantView) -> Request {
    Request::Delete { id: id(), keep: false, base: Some(saw.heads.clone()) }
}

#[test]
fn an_edit_of_what_was_deleted_meanwhile_does_not_bring_it_back() {
    let (mut world, saw) = world(970);
    world.request("paris", Request::Delete { id: id(), keep: false, base: None }).unwrap();
    world.settle();
    let answer = world.request("rennes", edit(&saw, Some(json!({"a": 2})), None));
    assert!(matches!(answer, Err(RequestError::Conflict { .. })), "{answer:?}");
    world.settle();
    for site in SITES {
        assert!(view(&mut world, site).deleted.is_some());
        assert_eq!(world.text(site, "web"), None);
    }
    // Whoever knows that it is deleted makes it again.
    let saw = view(&mut world, "rennes");
    world.request("rennes", edit(&saw, Some(json!({"a": 3})), None)).unwrap();
    world.settle();
    assert_eq!(world.text("paris", "web").as_deref(), Some("{\"a\":3}\n"));
}

#[test]
fn what_was_edited_meanwhile_is_not_deleted_by_whoever_has_not_seen_that() {
    let (mut world, saw) = world(971);
    world.patch("paris", "web", json!({"b": 2})).unwrap();
    world.settle();
    let answer = world.request("rennes", delete(&saw));
    assert!(matches!(answer, Err(RequestError::Conflict { .. })), "{answer:?}");
    let saw = view(&mut world, "rennes");
    assert!(saw.deleted.is_none());
    world.request("rennes", delete(&saw)).unwrap();
    assert!(view(&mut world, "rennes").deleted.is_some());
}

#[test]
fn a_policy_is_edited_by_what_its_author_has_changed() {
    let (mut world, saw) = world(972);
    let drift = Policy { drift: DriftPolicy::Correct, ..saw.policy.clone() };
    world.request("paris", edit(&saw, None, Some(drift.clone()))).unwrap();
    world.settle();
    let options = Map::from_iter([("force".to_owned(), json!(true))]);
    world.request("rennes", edit(&saw, None, Some(Policy { options: options.clone(), ..saw.policy.clone() }))).unwrap();
    world.settle();
    assert_eq!(view(&mut world, "paris").policy, Policy { options, ..drift });
}

#[test]
fn a_list_may_be_of_one() {
    let (mut world, _) = world(973);
    world.try_put("paris", "wea", "paris & rennes", Some(json!({})), None).unwrap();
    let mut listed = |only: &str| {
        let query = ListQuery { only: Some(only.parse().unwrap()), after: Some(id()), ..ListQuery::default() };
        match world.request("paris", Request::List(query)) {
            Ok(Response::List(page)) => page.items.into_iter().map(|item| item.id.to_string()).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(listed("web"), ["web"]);
    assert!(listed("we").is_empty() && listed("webs").is_empty());
}

#[test]
fn what_is_to_be_made_is_made_once_and_whoever_is_second_moves_nothing() {
    let mut world = World::new(975);
    world.sites(&["paris", "rennes", "nantes"]);
    let make = |scope: &str| {
        let kind = Some("text".to_owned());
        let desired = Some(json!({"from": scope}));
        let base = Some(Vec::new());
        Request::Put(Put { id: id(), kind, scope: Some(scope.into()), policy: None, desired, overrides: None, base })
    };
    let made = world.request("paris", make("paris & rennes"));
    assert!(matches!(made, Ok(Response::Created(_))), "{made:?}");
    world.settle();
    // At a site that has it, and at one that has not.
    for (site, scope) in [("rennes", "rennes"), ("nantes", "nantes & rennes")] {
        let answer = world.request(site, make(scope));
        assert!(matches!(answer, Err(RequestError::Conflict { .. })), "at {site}: {answer:?}");
    }
    world.settle();
    let now = view(&mut world, "paris");
    assert_eq!((now.scope.as_str(), &now.desired), ("paris & rennes", &json!({"from": "paris & rennes"})));
    // What is deleted is there no more.
    world.request("rennes", Request::Delete { id: id(), keep: false, base: None }).unwrap();
    world.settle();
    let again = world.request("rennes", make("rennes"));
    assert!(matches!(again, Ok(Response::Created(_))), "{again:?}");
}
