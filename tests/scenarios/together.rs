//! Three sites that see each other.

use reqwest::Method;
use serde_json::json;

use crate::support::{Lab, until};

#[tokio::test]
async fn what_is_created_edited_and_operated_at_any_site_is_the_same_at_all() {
    let lab = Lab::new();
    let [paris, rennes, nantes] = lab.three().await;
    let all = [&paris, &rennes, &nantes];

    // Create at one.
    let body =
        json!({"kind": "files", "scope": "paris & rennes & nantes", "desired": {"image": "nginx", "replicas": 2}});
    let created = paris.put("/v1/replicants/web", body.clone()).await;
    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!(lab.converged("web", &all).await, "image: nginx\nreplicas: 2\n");

    // Replace the desired state at the second, patch it at the third. Nothing else is touched.
    let seen = rennes.get("/v1/replicants/web").await;
    let body = json!({"desired": {"image": "nginx", "replicas": 2, "color": "blue"}}).to_string().into_bytes();
    let headers = [("content-type", "application/json"), ("if-match", seen.etag.as_str())];
    nantes.patch("/v1/replicants/web/desired", json!({"replicas": 5})).await.ok();
    let edited = rennes.client().send(Method::PUT, "/v1/replicants/web", &headers, body).await.expect("an answer");
    assert_eq!(edited.status, 200, "{edited:?}");
    assert_eq!(lab.converged("web", &all).await, "color: blue\nimage: nginx\nreplicas: 5\n");

    // Operate at the third, and wait for the last word of every site.
    let body = json!({"id": "hello", "type": "add", "payload": {"append": "# hello\n"}, "wait": "60s"});
    let answer = nantes.post("/v1/replicants/web/operations", body.clone()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body["complete"], true);
    for site in &all {
        assert_eq!(answer.body["sites"][site.name()]["status"], "applied", "{answer:?}");
    }
    let contents = "color: blue\nimage: nginx\nreplicas: 5\n# hello\n";
    assert_eq!(all.map(|site| site.file("web").expect("a file")), [contents; 3], "they said they were done");
    // Asking again with the same id is asking once; something else under that id is refused.
    assert_eq!(rennes.post("/v1/replicants/web/operations", body).await.ok()["complete"], true);
    let other = json!({"id": "hello", "type": "add", "payload": {"append": "# other\n"}});
    paris.post("/v1/replicants/web/operations", other).await.problem(409, &["hello"]);
    assert_eq!(lab.converged("web", &all).await, contents);

    // What every site reads is the same, and it says who did what, where.
    let views = [paris.view("web").await, rennes.view("web").await, nantes.view("web").await];
    for view in &views {
        assert_eq!(view["desired"], views[0]["desired"]);
        assert_eq!(view["operations"], views[0]["operations"]);
        for site in &all {
            let status = &view["sites"][site.name()];
            assert_eq!((&status["state"], &status["current"]), (&json!("alive"), &json!(true)), "{view}");
        }
    }
    let history = rennes.get("/v1/replicants/web/history").await.ok().to_string();
    for name in ["paris", "rennes", "nantes", "hello"] {
        assert!(history.contains(name), "{name} is not in {history}");
    }

    // One site differs because it is told to; that is no difference for `verify`.
    paris.put("/v1/replicants/web", json!({"overrides": {"rennes": {"replicas": 1}}})).await.ok();
    until("only rennes has one", || async {
        let ones = all.map(|site| site.file("web").is_some_and(|file| file.contains("replicas: 1\n")));
        if ones == [false, true, false] { Ok(()) } else { Err(format!("{ones:?}")) }
    })
    .await;
    let report = lab.verified(&nantes).await;
    assert_eq!(report["replicants"][0]["sites"]["rennes"]["overridden"], true, "{report}");

    // Delete: gone everywhere, and gone from every list.
    rennes.delete("/v1/replicants/web").await.ok();
    lab.gone("web", &all).await;
}

#[tokio::test]
async fn a_node_whose_site_is_not_in_the_scope_passes_everything_on() {
    let lab = Lab::new();
    let [paris, rennes, nantes] = lab.three().await;
    let both = [&paris, &rennes];
    let created = nantes
        .put("/v1/replicants/web", json!({"kind": "files", "scope": "paris & rennes", "desired": {"a": 1}}))
        .await;
    assert_eq!(created.status, 201, "{created:?}");
    nantes.patch("/v1/replicants/web/desired", json!({"b": 2})).await.ok();
    let body = json!({"type": "add", "payload": {"append": "c\n"}, "wait": "60s"});
    let answer = nantes.post("/v1/replicants/web/operations", body).await;
    assert_eq!((answer.status, &answer.body["complete"]), (200, &json!(true)), "{answer:?}");
    assert_eq!(lab.converged("web", &both).await, "a: 1\nb: 2\nc\n");
    assert_eq!(nantes.view("web").await["heads"], paris.view("web").await["heads"]);
    // It holds nothing of it itself.
    assert_eq!((nantes.file("web"), nantes.lists("web").await), (None, Ok(false)));
    let history = nantes.get("/v1/replicants/web/history").await.ok();
    assert!(history.as_array().is_some_and(|history| history.len() >= 3), "{history}");

    // Where nobody who holds it can be asked, that is what is said, and nothing is made up in its place.
    lab.cut(&[&paris, &rennes, &nantes], &[("paris", "nantes"), ("rennes", "nantes")]).await;
    let answer = nantes.get("/v1/replicants/web").await;
    assert!(matches!(answer.status, 404 | 504), "{answer:?}");
    let said = answer.body.to_string();
    assert!(said.contains("paris") && said.contains("rennes"), "it says whom it could not ask: {said}");
    assert!(nantes.patch("/v1/replicants/web/desired", json!({"b": 3})).await.status >= 400);
    lab.cut(&[&paris, &rennes, &nantes], &[]).await;

    nantes.delete("/v1/replicants/web").await.ok();
    lab.gone("web", &both).await;
    assert!(nantes.view("web").await["deleted"]["by"].is_string(), "what was deleted says so");
}

#[tokio::test]
async fn a_file_that_was_edited_by_hand_is_reported_and_put_back_only_if_the_policy_says_so() {
    let lab = Lab::new();
    let paris = lab.site("paris").start().await;
    let rennes = lab.site("rennes").bootstrap(&paris).start().await;
    let both = [&paris, &rennes];
    lab.met(&both).await;
    let scope = "paris & rennes";
    paris.put_files("told", scope, json!({"a": 1})).await;
    let body = json!({"kind": "files", "scope": scope, "policy": {"drift": "correct"}, "desired": {"a": 1}});
    paris.put("/v1/replicants/mended", body).await.ok();
    paris.operate("mended", "add", json!({"append": "b\n"})).await;
    lab.converged("told", &both).await;
    let contents = lab.converged("mended", &both).await;
    lab.verified(&paris).await;

    std::fs::write(rennes.replicas().join("told"), "by hand\n").expect("a file");
    std::fs::write(rennes.replicas().join("mended"), "by hand\n").expect("a file");
    // Both sites hear of it.
    for site in both {
        until("the drift is reported", || async {
            let view = site.try_get("/v1/replicants/told").await?;
            let seen = &view["sites"]["rennes"]["report"]["observed"]["drift"];
            if seen.is_string() { Ok(()) } else { Err(view["sites"].to_string()) }
        })
        .await;
    }
    until("what is to be mended is mended", || async {
        let found = rennes.file("mended");
        if found.as_ref() == Some(&contents) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    assert_eq!(rennes.file("told").as_deref(), Some("by hand\n"), "it is reported and left alone");
    assert_eq!(paris.file("told").as_deref(), Some("a: 1\n"), "it spreads to nobody");

    // `verify` names the site and the replicant that are not the same.
    let report = paris.get("/v1/verify").await.ok();
    assert_eq!(report["same"], false);
    let entry = |id: &str| {
        let entries = report["replicants"].as_array().expect("entries");
        entries.iter().find(|entry| entry["id"] == id).expect("an entry").clone()
    };
    assert_eq!(entry("told")["same"], false);
    assert!(entry("told")["differences"].to_string().contains("rennes was changed by hand"), "{report}");

    // The next edit writes it anew.
    paris.patch("/v1/replicants/told/desired", json!({"a": 2})).await.ok();
    assert_eq!(lab.converged("told", &both).await, "a: 2\n");
    lab.verified(&rennes).await;
    assert_eq!(paris.get("/v1/verify?id=told").await.ok()["checked"], 1);
}

#[tokio::test]
async fn events_go_on_where_they_were_left() {
    let lab = Lab::new();
    let paris = lab.site("paris").start().await;
    let rennes = lab.site("rennes").bootstrap(&paris).start().await;
    lab.met(&[&paris, &rennes]).await;
    let (here, there) = (paris.client(), rennes.client());
    let mut events = there.follow(None).await;
    paris.put_files("one", "paris & rennes", json!({"a": 1})).await;
    // A change made at one site is told at the other.
    let first = events.until(|told| told.event == "changed" && told.data["replicant"] == "one").await;
    let last = first.last().expect("an event").clone();
    assert!(last.data["at"].is_u64(), "{last:?}");
    drop(events);

    // Things happen while nobody listens.
    paris.put_files("two", "paris & rennes", json!({"a": 1})).await;
    lab.converged("two", &[&paris, &rennes]).await;
    rennes.delete("/v1/replicants/one").await.ok();
    lab.gone("one", &[&paris, &rennes]).await;

    // Whoever comes back gets all of it once, in order, and then what comes next.
    let mut events = there.follow(Some(&last.id)).await;
    let missed = events.until(|told| told.event == "deleted" && told.data["replicant"] == "one").await;
    let number = |id: &str| id.rsplit('-').next().and_then(|number| number.parse::<u64>().ok()).expect("a number");
    let numbers: Vec<u64> = missed.iter().map(|told| number(&told.id)).collect();
    let expected: Vec<u64> = (number(&last.id) + 1..).take(numbers.len()).collect();
    assert_eq!(numbers, expected, "{missed:?}");
    assert!(missed.iter().any(|told| told.event == "changed" && told.data["replicant"] == "two"), "{missed:?}");
    paris.put_files("three", "paris & rennes", json!({"a": 1})).await;
    let seen = events.until(|told| told.event == "changed" && told.data["replicant"] == "three").await;

    // After a restart what was told before is gone, and that is said.
    let seen = seen.last().expect("an event");
    let rennes = rennes.kill_9().start().await;
    let again = rennes.client().follow(Some(&seen.id)).await.next().await;
    assert_eq!(again.event, "gap", "{again:?}");
    let refused = here.ask(Method::GET, "/v1/events?after=nonsense", None).await.expect("an answer");
    refused.problem(400, &["nonsense"]);
}
