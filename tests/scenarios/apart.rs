//! Sites that are cut off from each other, stopped, or started again, and what they agree on afterwards.

use serde_json::{Value, json};

use crate::support::{Lab, until};

/// Appends of all sites are kept, in the order of their rank.
fn appends() -> Value {
    json!({"resolutions": [{"before": "add", "after": "add", "result": "take-both-keep-order"}]})
}

#[tokio::test]
async fn edits_made_apart_all_count_and_what_contradicts_is_shown_until_somebody_picks() {
    let lab = Lab::new();
    let [paris, rennes, nantes] = lab.three().await;
    let sites = [&paris, &rennes, &nantes];
    let desired = json!({"image": "nginx:1", "replicas": 1, "color": "red"});
    let body = json!({"kind": "files", "scope": "paris & rennes & nantes", "policy": appends(), "desired": desired});
    paris.put("/v1/replicants/web", body).await.ok();
    lab.converged("web", &sites).await;

    lab.cut(&sites, &[("nantes", "paris"), ("nantes", "rennes")]).await;
    paris.patch("/v1/replicants/web/desired", json!({"image": "nginx:2"})).await.ok();
    rennes.patch("/v1/replicants/web/desired", json!({"color": "green"})).await.ok();
    nantes.patch("/v1/replicants/web/desired", json!({"replicas": 4})).await.ok();
    // Both sides go on driving their platforms.
    paris.operate("web", "add", json!({"append": "# of paris\n"})).await;
    nantes.operate("web", "add", json!({"append": "# of nantes\n"})).await;
    lab.same_document("web", &[&paris, &rennes]).await;
    let merged = "color: green\nimage: nginx:2\nreplicas: 1\n# of paris\n";
    until("paris has what both on its side asked for", || async {
        let file = paris.file("web");
        if file.as_deref() == Some(merged) { Ok(()) } else { Err(format!("{file:?}")) }
    })
    .await;
    let own = "color: red\nimage: nginx:1\nreplicas: 4\n# of nantes\n";
    until("nantes has what was asked of it", || async {
        let file = nantes.file("web");
        if file.as_deref() == Some(own) { Ok(()) } else { Err(format!("{file:?}")) }
    })
    .await;
    let report = rennes.get("/v1/verify").await.ok();
    assert_eq!((&report["same"], &report["unknown"]), (&json!(false), &json!(["nantes"])), "{report}");
    // Asked for an operation with a wait, a site that is cut off is named as the one that has not spoken.
    let body = json!({"type": "add", "payload": {"append": "# waited\n"}, "wait": "1s"});
    let answer = rennes.post("/v1/replicants/web/operations", body).await;
    assert_eq!((answer.status, &answer.body["complete"]), (202, &json!(false)), "{answer:?}");
    assert_eq!(answer.body["sites"]["nantes"]["status"], "pending", "{answer:?}");
    assert_eq!(answer.body["sites"]["paris"]["status"], "applied", "{answer:?}");

    // It is restarted in order while it is cut off, knows everything, and goes on.
    let nantes = nantes.terminate().await.start().await;
    let sites = [&paris, &rennes, &nantes];
    assert_eq!(nantes.file("web").as_deref(), Some(own));
    let view = nantes.patch("/v1/replicants/web/desired", json!({"color": "blue"})).await.ok();
    assert_eq!(view["desired"], json!({"image": "nginx:1", "replicas": 4, "color": "blue"}));

    lab.cut(&sites, &[]).await;
    let contents = lab.converged("web", &sites).await;
    let lines: Vec<&str> = contents.lines().collect();
    let [color, image, replicas, rest @ ..] = &lines[..] else {
        panic!("{contents}");
    };
    assert!(["color: green", "color: blue"].contains(color), "{contents}");
    assert_eq!((*image, *replicas), ("image: nginx:2", "replicas: 4"), "both win where they do not contradict");
    assert_eq!(rest, ["# of paris", "# of nantes", "# waited"]);
    lab.verified(&nantes).await;

    // The contradiction is shown everywhere, with both values, and settled everywhere once somebody picks.
    let mut loser = Value::Null;
    for site in sites {
        let conflicts = site.get("/v1/replicants/web/conflicts").await.ok();
        assert_eq!(conflicts.as_array().map(Vec::len), Some(1), "{conflicts}");
        assert_eq!(conflicts[0]["path"], "/desired/color");
        let values = conflicts[0]["values"].as_array().expect("values").clone();
        assert_eq!(values.len(), 2, "{conflicts}");
        loser = values.into_iter().find(|value| value["winner"] == false).expect("one lost");
    }
    let pick = json!({"path": "/desired/color", "change": loser["change"]});
    nantes.post("/v1/replicants/web/conflicts", pick).await.ok();
    let picked = lab.converged("web", &sites).await;
    assert!(picked.starts_with(&format!("color: {}\n", loser["value"].as_str().expect("a word"))), "{picked}");
    for site in sites {
        assert_eq!(site.get("/v1/replicants/web/conflicts").await.ok(), json!([]));
    }
}

#[tokio::test]
async fn a_site_that_was_stopped_catches_up_also_when_nobody_else_was_there_all_the_time() {
    let lab = Lab::new();
    let [paris, rennes, nantes] = lab.three().await;
    let body = json!({"kind": "files", "scope": "all", "policy": appends(), "desired": {"a": 1}});
    paris.put("/v1/replicants/web", body).await.ok();
    lab.converged("web", &[&paris, &rennes, &nantes]).await;
    let stopped = nantes.stop().await;
    paris.operate("web", "add", json!({"append": "1\n"})).await;
    rennes.patch("/v1/replicants/web/desired", json!({"b": 2})).await.ok();
    // New things are made and others go while it is away.
    rennes.put_files("new", "paris & rennes & nantes", json!({"made": 1})).await;
    lab.same_document("web", &[&paris, &rennes]).await;
    lab.same_document("new", &[&paris, &rennes]).await;
    // Those who wrote leave before it comes back; rennes has to tell it all.
    let away = paris.kill_9();
    let nantes = stopped.start().await;
    lab.same_document("web", &[&rennes, &nantes]).await;
    lab.same_document("new", &[&rennes, &nantes]).await;
    nantes.operate("web", "add", json!({"append": "2\n"})).await;
    let paris = away.start().await;
    let sites = [&paris, &rennes, &nantes];
    assert_eq!(lab.converged("web", &sites).await, "a: 1\nb: 2\n1\n2\n");
    assert_eq!(lab.converged("new", &sites).await, "made: 1\n");
    lab.verified(&paris).await;
}

#[tokio::test]
async fn all_sites_killed_at_once_know_everything_when_they_are_back() {
    let lab = Lab::new();
    let [paris, rennes, nantes] = lab.three().await;
    let nodes = [&paris, &rennes, &nantes].map(|site| site.node().to_owned());
    let body = json!({"kind": "files", "scope": "all", "policy": appends(), "desired": {"a": 1}});
    paris.put("/v1/replicants/web", body).await.ok();
    lab.converged("web", &[&paris, &rennes, &nantes]).await;
    // Acknowledged, and killed before anybody can have told the others.
    let apart = [("paris", "rennes"), ("rennes", "nantes"), ("nantes", "paris")];
    lab.cut(&[&paris, &rennes, &nantes], &apart).await;
    for (site, word) in [(&paris, "of paris"), (&rennes, "of rennes"), (&nantes, "of nantes")] {
        site.operate("web", "add", json!({"append": format!("{word}\n")})).await;
        site.put_files(word.rsplit(' ').next().expect("a word"), "all", json!({"by": word})).await;
    }
    let stopped = [paris.kill_9(), rennes.kill_9(), nantes.kill_9()];
    let [paris, rennes, nantes] = stopped;
    let (paris, rennes, nantes) = tokio::join!(paris.start(), rennes.start(), nantes.start());
    let sites = [&paris, &rennes, &nantes];
    assert_eq!(sites.map(|site| site.node().to_owned()), nodes);
    assert_eq!(lab.converged("web", &sites).await, "a: 1\nof paris\nof rennes\nof nantes\n");
    for id in ["paris", "rennes", "nantes"] {
        assert_eq!(lab.converged(id, &sites).await, format!("by: of {id}\n"));
    }
    lab.verified(&rennes).await;
}

#[tokio::test]
async fn what_two_sites_make_under_one_name_while_apart_becomes_one() {
    let lab = Lab::new();
    let [paris, rennes, nantes] = lab.three().await;
    let sites = [&paris, &rennes, &nantes];
    lab.cut(&sites, &[("paris", "rennes"), ("rennes", "nantes"), ("nantes", "paris")]).await;
    // The same scope, written at both; different scopes that share a site; scopes that share none.
    paris.put_files("same", "paris & nantes", json!({"of": "paris", "a": 1})).await;
    nantes.put_files("same", "paris & nantes", json!({"of": "nantes", "b": 2})).await;
    paris.put_files("shared", "paris & rennes", json!({"a": 1})).await;
    nantes.put_files("shared", "nantes & rennes", json!({"b": 2})).await;
    paris.put_files("own", "paris", json!({"a": 1})).await;
    nantes.put_files("own", "nantes", json!({"b": 2})).await;
    lab.cut(&sites, &[]).await;
    let contents = lab.converged("same", &[&paris, &nantes]).await;
    assert!(["a: 1\nb: 2\nof: nantes\n", "a: 1\nb: 2\nof: paris\n"].contains(&contents.as_str()), "{contents}");
    // Scopes that share no site name two things, of which neither site need ever hear; until one names the other.
    assert_eq!((paris.file("own").as_deref(), nantes.file("own").as_deref()), (Some("a: 1\n"), Some("b: 2\n")));
    nantes.put("/v1/replicants/own", json!({"scope": "nantes & paris"})).await.ok();
    for id in ["shared", "own"] {
        until(&format!("{id} is one, where its placement says"), || async {
            let mut views = Vec::new();
            for site in sites {
                views.push(site.try_get(&format!("/v1/replicants/{id}")).await?);
            }
            let placed = views[0]["placement"]["sites"].clone();
            let files: Vec<_> = sites.iter().map(|site| (site.name(), site.file(id))).collect();
            let one = views.iter().all(|view| view["heads"] == views[0]["heads"])
                && files.iter().all(|(name, file)| {
                    let lives = placed.as_array().is_some_and(|placed| placed.iter().any(|site| site == name));
                    file.as_deref() == lives.then_some("a: 1\nb: 2\n")
                });
            let scopes: Vec<_> = views.iter().map(|view| view["scope"].to_string()).collect();
            if one { Ok(()) } else { Err(format!("{scopes:?}, placed at {placed}, {files:?}")) }
        })
        .await;
    }
    lab.verified(&rennes).await;
}

#[tokio::test]
async fn a_line_that_is_slow_and_loses_things_delays_and_loses_nothing_in_the_end() {
    let lab = Lab::new();
    let [paris, rennes, nantes] = lab.three().await;
    let sites = [&paris, &rennes, &nantes];
    let body = json!({"kind": "files", "scope": "all", "policy": appends(), "desired": {"a": 1}});
    paris.put("/v1/replicants/web", body).await.ok();
    lab.converged("web", &sites).await;
    for site in sites {
        site.put("/v1/faults", json!({"delay_ms": 60, "loss": 0.3})).await.ok();
    }
    let mut expected = Vec::new();
    for number in 0..5 {
        for site in sites {
            let word = format!("{number} of {}", site.name());
            site.operate("web", "add", json!({"append": format!("{word}\n")})).await;
            expected.push(word);
        }
    }
    let contents = lab.converged("web", &sites).await;
    let mut found: Vec<&str> = contents.lines().skip(1).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    lab.verified(&nantes).await;
}
