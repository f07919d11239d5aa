//! Scopes that change, and deletion.

use serde_json::json;

use crate::support::{Lab, until};

#[tokio::test]
async fn a_site_that_is_added_gets_everything_and_one_that_is_taken_out_cleans_up() {
    let lab = Lab::new();
    let [paris, rennes, nantes] = lab.three().await;
    let edit_scope = |scope: &str| json!({"scope": scope});
    paris.put_files("web", "paris & rennes", json!({"a": 1})).await;
    paris.operate("web", "add", json!({"append": "one\n"})).await;
    lab.converged("web", &[&paris, &rennes]).await;
    assert_eq!(nantes.file("web"), None);

    // Added, by one that holds it; it gets the state, the operations and the history.
    rennes.put("/v1/replicants/web", edit_scope("paris & rennes & nantes")).await.ok();
    assert_eq!(lab.converged("web", &[&paris, &rennes, &nantes]).await, "a: 1\none\n");
    assert!(nantes.lists("web").await.expect("a list"));
    assert!(nantes.get("/v1/replicants/web/history").await.ok().as_array().is_some_and(|entries| entries.len() >= 3));

    // Taken out: its file goes, the document goes, the others keep theirs, and it still finds it through them.
    nantes.put("/v1/replicants/web", edit_scope("paris & nantes")).await.ok();
    lab.gone("web", &[&rennes]).await;
    assert_eq!(lab.converged("web", &[&paris, &nantes]).await, "a: 1\none\n");
    assert_eq!(rennes.view("web").await["scope"], "paris & nantes");
    lab.verified(&paris).await;

    // Taken out while it is cut off, with something to say that nobody has heard: nothing of that is lost.
    let sites = [&paris, &rennes, &nantes];
    lab.cut(&sites, &[("nantes", "paris"), ("nantes", "rennes")]).await;
    let body = json!({"id": "late", "type": "add", "payload": {"append": "late\n"}});
    nantes.post("/v1/replicants/web/operations", body).await.ok();
    lab.here("web", "late", &nantes).await;
    paris.put("/v1/replicants/web", edit_scope("paris & rennes")).await.ok();
    lab.same_document("web", &[&paris, &rennes]).await;
    assert_eq!(nantes.file("web").as_deref(), Some("a: 1\none\nlate\n"), "it has heard of nothing");
    lab.cut(&sites, &[]).await;
    lab.gone("web", &[&nantes]).await;
    until("what was said late is there", || async {
        let files = [paris.file("web"), rennes.file("web")];
        if files.iter().all(|file| file.as_deref() == Some("a: 1\none\nlate\n")) {
            Ok(())
        } else {
            Err(format!("{files:?}"))
        }
    })
    .await;
    lab.converged("web", &[&paris, &rennes]).await;

    // Taken out while it is down.
    let down = rennes.kill_9();
    paris.put("/v1/replicants/web", edit_scope("paris & nantes")).await.ok();
    lab.same_document("web", &[&paris, &nantes]).await;
    assert!(down.dir().join("replicas/web").exists(), "nobody cleans up for it");
    let rennes = down.start().await;
    lab.gone("web", &[&rennes]).await;
    assert_eq!(lab.converged("web", &[&paris, &nantes]).await, "a: 1\none\nlate\n");

    // Taken in again, it has all of it again.
    rennes.put("/v1/replicants/web", edit_scope("all")).await.ok();
    assert_eq!(lab.converged("web", &[&paris, &rennes, &nantes]).await, "a: 1\none\nlate\n");
    lab.verified(&nantes).await;
}

#[tokio::test]
async fn what_is_deleted_goes_everywhere_also_where_nobody_heard_of_it_at_first() {
    let lab = Lab::new();
    let [paris, rennes, nantes] = lab.three().await;
    for id in ["gone", "kept", "again"] {
        paris.put_files(id, "paris & rennes & nantes", json!({"old": id})).await;
        paris.operate(id, "add", json!({"append": "old\n"})).await;
    }
    for id in ["gone", "kept", "again"] {
        assert_eq!(lab.converged(id, &[&paris, &rennes, &nantes]).await, format!("old: {id}\nold\n"));
    }

    // One site is down, another cut off.
    let down = rennes.kill_9();
    lab.cut(&[&paris, &nantes], &[("paris", "nantes")]).await;
    paris.delete("/v1/replicants/gone").await.ok();
    paris.delete("/v1/replicants/kept?keep=true").await.ok();
    paris.delete("/v1/replicants/again").await.ok();
    lab.gone("gone", &[&paris]).await;
    lab.gone("again", &[&paris]).await;
    until("it is no longer held", || async {
        if paris.lists("kept").await? { Err("it is listed".to_owned()) } else { Ok(()) }
    })
    .await;
    assert_eq!(paris.file("kept").as_deref(), Some("old: kept\nold\n"));
    // What is deleted takes no more edits, and says so.
    let refused = paris.patch("/v1/replicants/gone/desired", json!({"old": "no"})).await;
    assert!(matches!(refused.status, 404 | 409), "{refused:?}");
    // Put again before the others have heard: something new, with nothing of what was known of the old.
    paris.put_files("again", "paris & rennes & nantes", json!({"new": 1})).await;
    assert_eq!(nantes.file("gone").as_deref(), Some("old: gone\nold\n"), "it has heard of nothing");
    // The one that is cut off goes on with it, which nobody knew of who deleted.
    nantes.operate("again", "add", json!({"append": "late\n"})).await;

    let rennes = down.start().await;
    lab.cut(&[&paris, &rennes, &nantes], &[]).await;
    let sites = [&paris, &rennes, &nantes];
    lab.gone("gone", &sites).await;
    assert_eq!(lab.converged("again", &sites).await, "new: 1\nlate\n");
    until("it is no longer held anywhere", || async {
        for site in sites {
            if site.lists("kept").await? {
                return Err(format!("{} lists it", site.name()));
            }
        }
        Ok(())
    })
    .await;
    assert_eq!(sites.map(|site| site.file("kept")), ["old: kept\nold\n"; 3].map(|text| Some(text.to_owned())));

    // What was kept can be taken over by something new of the same name.
    nantes.put_files("kept", "all", json!({"new": 2})).await;
    assert_eq!(lab.converged("kept", &sites).await, "new: 2\n");
    lab.verified(&rennes).await;
}

#[tokio::test]
async fn a_failover_adds_a_site_and_ends_when_the_first_is_back() {
    let lab = Lab::new();
    let [paris, rennes, nantes] = lab.three().await;
    paris.put_files("web", "nantes & (paris | rennes)", json!({"a": 1})).await;
    lab.converged("web", &[&paris, &nantes]).await;
    assert_eq!(rennes.file("web"), None);
    let down = paris.kill_9();
    lab.same_document("web", &[&nantes, &rennes]).await;
    assert!(down.dir().join("replicas/web").exists(), "the silent one keeps its replica");
    let placed = rennes.view("web").await["placement"]["sites"].clone();
    assert_eq!(placed, json!(["nantes", "paris", "rennes"]), "it is added, and nobody is taken out");
    rennes.patch("/v1/replicants/web/desired", json!({"b": 2})).await.ok();
    let paris = down.start().await;
    lab.gone("web", &[&rennes]).await;
    assert_eq!(lab.converged("web", &[&paris, &nantes]).await, "a: 1\nb: 2\n");
}
