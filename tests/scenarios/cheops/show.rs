//! Looks at several sites: each is asked what it has now, and nothing is kept of it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::shell::builder;
use super::{Part, all, exec, lines, post, three};
use crate::support::{Lab, Site, until};

async fn show(site: &Site, id: &str, command: &str, sites: Option<&str>) -> Value {
    let mut parts: Vec<Part<'_>> = vec![("command", None, command)];
    parts.extend(sites.map(|sites| ("sites", None, sites)));
    let answer = post(site, &format!("/show/{id}"), &parts).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

fn ok(output: &str) -> Value {
    json!({"Status": "OK", "Output": output})
}

#[tokio::test]
async fn each_site_shows_what_it_has_now() {
    let lab = Lab::new();
    let [paris, rennes, nantes] = &three(&lab).await;
    assert_eq!(exec(paris, "file", "set", "echo same > file").await, all("OK"));
    let cat = "cat __ID__";
    let same = json!({"paris": ok("same\n"), "rennes": ok("same\n"), "nantes": ok("same\n")});
    // As the command line of Cheops asks, which names no sites.
    assert_eq!(show(rennes, "file", cat, None).await, same);
    // Whatever is there, whoever put it there.
    std::fs::write(rennes.replicas().join("file"), "other\n").expect("a file");
    let two = json!({"paris": ok("same\n"), "rennes": ok("other\n")});
    assert_eq!(show(paris, "file", cat, Some("paris & rennes")).await, two);
    // Also from where it does not live, and of what is no resource.
    let parts = [("command", None, "echo two > two"), ("sites", None, "paris&rennes"), ("type", None, "set")];
    assert_eq!(lines(&post(paris, "/exec/two", &parts).await).len(), 2);
    assert_eq!(show(nantes, "two", cat, None).await, json!({"paris": ok("two\n"), "rennes": ok("two\n")}));
    assert_eq!(show(nantes, "none", "echo {id}", Some("paris")).await, json!({"paris": ok("none\n")}));
    // Each says for itself what fails.
    std::fs::remove_file(rennes.replicas().join("two")).expect("it is there");
    let shown = show(nantes, "two", cat, None).await;
    assert_eq!((&shown["paris"], &shown["rennes"]["Status"]), (&ok("two\n"), &json!("KO")), "{shown}");
    assert!(shown["rennes"]["Output"].as_str().expect("text").contains("exit code 1"), "{shown}");
    // More than a site may say is not read to its end.
    let long = show(nantes, "two", "head -c 300000 /dev/zero | tr '\\0' '\\001'", Some("paris & nantes")).await;
    assert!(long.as_object().expect("sites").values().all(|shown| shown["Status"] == "OK"), "kept to its limit");
    for (path, parts, status) in [
        ("/show/file", &[][..], 400),
        ("/show/file", &[("command", None, "true"), ("sites", None, "a b")], 400),
        ("/show/none", &[("command", None, "true")], 404),
    ] {
        let answer = post(paris, path, parts).await;
        assert_eq!(answer.status, status, "{path} {parts:?}: {answer:?}");
    }
    // Whoever hangs up ends what goes on for him.
    let pid = rennes.replicas().join("pid");
    let wait = "echo $$ > pid.new; mv pid.new pid; sleep 300";
    let process = tokio::select! {
        shown = show(paris, "file", wait, Some("rennes")) => panic!("{shown}"),
        process = until("it runs", || async { std::fs::read_to_string(&pid).map_err(|error| error.to_string()) }) => process,
    };
    let since = Instant::now();
    until("it runs no more", || async {
        let gone = !std::path::Path::new("/proc").join(process.trim()).exists();
        if gone { Ok(()) } else { Err(process.clone()) }
    })
    .await;
    // Its limit of time would end it as well, after 30 s.
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_site_that_does_not_answer_is_said_and_holds_up_no_other_answer_for_ever() {
    let lab = Lab::new();
    let [paris, rennes, nantes] = three(&lab).await;
    let lyon = builder(&lab, "lyon").bootstrap(&paris).start().await;
    lab.met(&[&paris, &rennes, &nantes, &lyon]).await;
    let every = "paris & rennes & nantes & lyon & nowhere";
    rennes.freeze();
    drop(nantes);
    let begun = Instant::now();
    let shown = show(&paris, "file", "echo here", Some(every)).await;
    assert!(begun.elapsed() < Duration::from_secs(35), "{:?}", begun.elapsed());
    assert_eq!(shown["paris"], ok("here\n"));
    for dead in ["rennes", "nantes", "nowhere"] {
        assert_eq!(shown[dead]["Status"], "TIMEOUT", "{dead}: {shown}");
    }
    // One that does not serve Cheops at all.
    assert_eq!(shown["lyon"]["Status"], "KO", "{shown}");
    assert!(shown["lyon"]["Output"].as_str().expect("text").contains("does not serve"), "{shown}");
    rennes.thaw();
}
