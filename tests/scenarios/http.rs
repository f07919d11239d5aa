//! A REST service at each of three real sites: with names of its own, and with all that goes wrong with such services.

use khufu_test_servers::rest::{Fault, Rest};
use serde_json::{Value, json};
use std::time::Duration;

use crate::support::{Lab, Site, SiteBuilder, until};

const ALL: &str = "paris & rennes & nantes";

/// A site with a service of its own.
struct Place {
    site: Site,
    rest: Rest,
}

impl Place {
    /// A site whose driver works on this service.
    fn builder(lab: &Lab, name: &str, rest: &Rest) -> SiteBuilder {
        let builder = lab.site(name).arguments(&["--driver", "http=notes.toml"]);
        let text = format!(
            "base = {:?}\nstate = 'http'\ntime_limit_s = 5\nrate = 1000\n{}",
            rest.url(),
            r#"
            [resources.note]
            create = { method = "POST", path = "/notes" }
            read = { path = "/notes/{local_id}" }
            update = { method = "PATCH", path = "/notes/{local_id}" }
            delete = { path = "/notes/{local_id}" }
            local_id = "/data/id"
            answer = "/data"
            mark = "/labels/khufu"
            find = { path = "/notes?label={id}", list = "/items", next = "/next", local_id = "/id" }
            contents = ["/title", "/size", "/lines"]
            settle_ms = 1500

            [[resources.note.operations]]
            method = "POST"
            path = "/notes/{local_id}/lines"
            mark = "/by"
            find = { path = "/notes/{local_id}/lines", list = "/items" }
            "#
        );
        std::fs::write(builder.dir().join("notes.toml"), text).expect("a file");
        builder
    }

    /// The replica of a replicant, as its service has it: none, or the one that there is.
    fn note(&self, id: &str) -> Result<Option<Value>, String> {
        let mut notes: Vec<_> = self.rest.notes().into_iter().filter(|note| note["labels"]["khufu"] == id).collect();
        if notes.len() > 1 {
            return Err(format!("{} has several of {id}: {notes:?}", self.site.name()));
        }
        Ok(notes.pop())
    }
}

/// What of a note has to be the same everywhere: its title, its size, and the texts of its lines.
fn contents(note: &Value) -> Value {
    let texts: Vec<_> = note["lines"].as_array().into_iter().flatten().map(|line| line["text"].clone()).collect();
    json!([note["title"], note["size"], texts])
}

async fn three(lab: &Lab) -> [Place; 3] {
    let rests = [100, 5_000, 70_000].map(|first| Rest::builder(first).start());
    let [paris, rennes, nantes] = rests;
    let first = Place::builder(lab, "paris", &paris).start().await;
    let second = Place::builder(lab, "rennes", &rennes).bootstrap(&first).start().await;
    let third = Place::builder(lab, "nantes", &nantes).bootstrap(&first).start().await;
    lab.met(&[&first, &second, &third]).await;
    [(first, paris), (second, rennes), (third, nantes)].map(|(site, rest)| Place { site, rest })
}

/// Lines keep their order, and a service that is often not well is given time.
fn policy() -> Value {
    json!({
        "resolutions": [{"before": "add", "after": "add", "result": "take-both-keep-order"}],
        "retry": {"attempts": 60, "backoff_ms": 20, "backoff_max_ms": 500},
    })
}

async fn put(site: &Site, id: &str, desired: Value) {
    let body = json!({"kind": "http", "scope": ALL, "policy": policy(), "desired": desired});
    site.put(&format!("/v1/replicants/{id}"), body).await.ok();
}

async fn add(site: &Site, id: &str, text: &str) {
    let payload = json!({"method": "POST", "path": "/notes/{local_id}/lines", "body": {"text": text}});
    site.operate(id, "add", payload).await;
}

/// Waits until these sites hold the same document, say that all is done, and their services have the same; gives it.
async fn same(id: &str, places: &[&Place]) -> Value {
    until(&format!("all services have the same {id}"), || async {
        let mut found = Vec::new();
        for place in places {
            let view = place.site.try_get(&format!("/v1/replicants/{id}")).await?;
            let here = &view["sites"][place.site.name()];
            if here["current"] != true || here["report"]["status"] != "applied" {
                return Err(format!("at {}: {here}", place.site.name()));
            }
            let note = place.note(id)?.ok_or_else(|| format!("{} has none", place.site.name()))?;
            let local_id = here["report"]["local_id"].as_str().and_then(|text| text.parse::<u64>().ok());
            if local_id != note["id"].as_u64() {
                return Err(format!("at {}: {local_id:?} is reported, and it is {}", place.site.name(), note["id"]));
            }
            found.push((view["heads"].clone(), contents(&note)));
        }
        let (first, rest) = found.split_first().ok_or("nobody was asked")?;
        if rest.iter().all(|other| other == first) { Ok(first.1.clone()) } else { Err(format!("{found:?}")) }
    })
    .await
}

fn nothing_was_there_twice(places: &[&Place]) {
    for place in places {
        assert!(place.rest.most_alike() <= 1, "{} had several of one replicant", place.site.name());
    }
}

#[tokio::test]
async fn what_is_asked_for_apart_is_the_same_at_services_that_are_not_well() {
    let lab = Lab::new();
    let [paris, rennes, nantes] = three(&lab).await;
    let all = [&paris, &rennes, &nantes];
    let sites = all.map(|place| &place.site);
    for (seed, place) in all.iter().enumerate() {
        place.rest.chaos(seed as u64, 25);
    }
    put(&paris.site, "motd", json!({"title": "first", "size": 1})).await;
    put(&nantes.site, "other", json!({"title": "other"})).await;
    add(&rennes.site, "motd", "together").await;
    assert_eq!(same("motd", &all).await, json!(["first", 1, ["together"]]));
    lab.cut(&sites, &[("paris", "rennes"), ("rennes", "nantes"), ("nantes", "paris")]).await;
    add(&paris.site, "motd", "from paris").await;
    add(&rennes.site, "motd", "from rennes").await;
    add(&nantes.site, "motd", "from nantes").await;
    paris.site.patch("/v1/replicants/motd/desired", json!({"title": "second"})).await.ok();
    nantes.site.patch("/v1/replicants/motd/desired", json!({"size": 2})).await.ok();
    for (place, line) in [(&paris, "from paris"), (&rennes, "from rennes"), (&nantes, "from nantes")] {
        until("each has its own line", || async {
            let note = place.note("motd")?.ok_or("there is none")?;
            if contents(&note)[2] == json!(["together", line]) { Ok(()) } else { Err(note.to_string()) }
        })
        .await;
    }
    lab.cut(&sites, &[]).await;
    let joined = same("motd", &all).await;
    assert_eq!((&joined[0], &joined[1], joined[2].as_array().map(Vec::len)), (&json!("second"), &json!(2), Some(4)));
    assert_eq!(same("other", &all).await, json!(["other", null, []]));
    nothing_was_there_twice(&all);
    // Well again, they say themselves that they have the same.
    all.iter().for_each(|place| place.rest.chaos(0, 0));
    lab.verified(&nantes.site).await;
    paris.site.delete("/v1/replicants/motd").await.ok();
    until("it is gone everywhere", || async {
        let left = all.iter().filter_map(|place| place.note("motd").transpose()).collect::<Vec<_>>();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_node_that_is_killed_while_its_service_works_does_nothing_twice() {
    let lab = Lab::new();
    let [paris, mut rennes, nantes] = three(&lab).await;
    let slow = || Duration::from_millis(800);
    for (nth, fault) in [Fault::SlowAfter(slow()), Fault::SlowBefore(slow())].into_iter().enumerate() {
        let id = format!("note{nth}");
        let before = rennes.rest.count("POST", "/notes");
        rennes.rest.next("POST", "/notes", fault.clone());
        put(&paris.site, &id, json!({"title": "a"})).await;
        until("the service of rennes is at it", || async {
            if rennes.rest.count("POST", "/notes") > before { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
        rennes.site = rennes.site.kill_9().start().await;
        assert_eq!(same(&id, &[&paris, &rennes, &nantes]).await, json!(["a", null, []]));
        assert_eq!(rennes.rest.created(), nth + 1, "{fault:?}");
        // The same with a line.
        let before = rennes.rest.count("POST", "/lines");
        rennes.rest.next("POST", "/lines", fault);
        add(&nantes.site, &id, "once").await;
        until("the service of rennes is at it", || async {
            if rennes.rest.count("POST", "/lines") > before { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
        rennes.site = rennes.site.kill_9().start().await;
        assert_eq!(same(&id, &[&paris, &rennes, &nantes]).await, json!(["a", null, ["once"]]));
        assert_eq!(rennes.rest.created(), nth + 1);
    }
    nothing_was_there_twice(&[&paris, &rennes, &nantes]);
}

#[tokio::test]
async fn a_service_that_was_away_is_brought_up_to_date() {
    let lab = Lab::new();
    let [paris, mut rennes, nantes] = three(&lab).await;
    put(&paris.site, "motd", json!({"title": "first"})).await;
    same("motd", &[&paris, &rennes, &nantes]).await;
    rennes.rest.stop();
    for text in ["one", "two"] {
        add(&nantes.site, "motd", text).await;
    }
    paris.site.patch("/v1/replicants/motd/desired", json!({"size": 3})).await.ok();
    until("the others have it, and know that rennes is away", || async {
        let sites = paris.site.try_get("/v1/sites").await?;
        let view = paris.site.try_get("/v1/replicants/motd").await?;
        let done =
            |site: &str| view["sites"][site]["report"]["status"] == "applied" && view["sites"][site]["current"] == true;
        let away =
            sites.as_array().into_iter().flatten().any(|it| it["site"] == "rennes" && it["away"]["http"].is_u64());
        if done("paris") && done("nantes") && away { Ok(()) } else { Err(format!("{sites} {}", view["sites"])) }
    })
    .await;
    rennes.rest.start_again();
    assert_eq!(same("motd", &[&paris, &rennes, &nantes]).await, json!(["first", 3, ["one", "two"]]));
    nothing_was_there_twice(&[&paris, &rennes, &nantes]);
}
