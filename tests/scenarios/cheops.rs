//! The API of Cheops as its clients use it, and its scenarios with files.

mod first;

use reqwest::Method;
use serde_json::{Value, json};

use super::shell::{builder, finished};
use crate::support::{Answer, Lab, Site};

const ALL: &str = "paris&rennes&nantes";
/// What the file scenarios of Cheops say of writing and adding.
const MATRIX: &str = r#"{"ResolutionMatrix": [
    {"Before": "set", "After": "set", "Result": "take-one"},
    {"Before": "set", "After": "add", "Result": "take-both-keep-order"},
    {"Before": "add", "After": "set", "Result": "take-both-reverse-order"}]}"#;

async fn three(lab: &Lab) -> [Site; 3] {
    let with = |name: &str| builder(lab, name).arguments(&["--cheops-api", "127.0.0.1:0"]);
    let paris = with("paris").start().await;
    let rennes = with("rennes").bootstrap(&paris).start().await;
    let nantes = with("nantes").bootstrap(&paris).start().await;
    lab.met(&[&paris, &rennes, &nantes]).await;
    [paris, rennes, nantes]
}

/// A part of a form: its name, the name of a file if it is one, and its contents.
type Part<'a> = (&'a str, Option<&'a str>, &'a str);

fn form(parts: &[Part<'_>]) -> Vec<u8> {
    let mut body = String::new();
    for (name, file, contents) in parts {
        let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        body += &format!("--limit\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{contents}\r\n");
    }
    (body + "--limit--\r\n").into_bytes()
}

async fn post(site: &Site, path: &str, parts: &[Part<'_>]) -> Answer {
    let headers = [("content-type", "multipart/form-data; boundary=limit")];
    site.cheops().send(Method::POST, path, &headers, form(parts)).await.expect("it answers")
}

/// The lines of an answer.
fn lines(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{answer:?}");
    match &answer.body {
        Value::String(text) => text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect(),
        one => vec![one.clone()],
    }
}

/// What each site replied to a command, by site.
async fn exec(site: &Site, id: &str, of: &str, command: &str) -> Vec<(String, String)> {
    let parts = [("command", None, command), ("sites", None, ALL), ("type", None, of), ("config", None, MATRIX)];
    let replies = lines(&post(site, &format!("/exec/{id}"), &parts).await);
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let mut found: Vec<_> = replies.iter().map(|reply| (text(&reply["Site"]), text(&reply["Status"]))).collect();
    found.sort();
    found
}

fn all(status: &str) -> Vec<(String, String)> {
    ["nantes", "paris", "rennes"].map(|site| (site.to_owned(), status.to_owned())).to_vec()
}

#[tokio::test]
async fn commands_asked_for_one_after_the_other_end_alike() {
    let lab = Lab::new();
    let sites = three(&lab).await;
    let [paris, rennes, nantes] = &sites;
    assert_eq!(exec(paris, "file", "set", "echo init > file").await, all("OK"));
    assert_eq!(exec(paris, "file", "add", "echo left >> file").await, all("OK"));
    assert_eq!(exec(rennes, "file", "set", "echo middle > file").await, all("OK"));
    assert_eq!(exec(nantes, "file", "add", "echo right >> file").await, all("OK"));
    for site in &sites {
        let shown = post(site, "/show_local/file", &[("command", None, "cat __ID__")]).await;
        assert_eq!(shown.body, json!({"Status": "OK", "Output": "middle\nright\n"}), "at {}", site.name());
    }
    let failed = post(paris, "/show_local/file", &[("command", None, "echo no >&2; exit 2")]).await;
    assert_eq!((failed.status, &failed.body["Status"]), (200, &json!("KO")), "{failed:?}");
    assert!(failed.body["Output"].as_str().expect("text").contains("no"), "{failed:?}");
}

#[tokio::test]
async fn commands_asked_for_while_apart_end_alike_also_where_one_fails() {
    let lab = Lab::new();
    let sites = three(&lab).await;
    let [paris, rennes, nantes] = &sites;
    let each = [paris, rennes, nantes];
    for (id, right, expected) in [
        ("fine", "echo right >> fine", "middle\nleft\nright\n"),
        ("failing", "echo right >> failing/below", "middle\nleft\n"),
    ] {
        assert_eq!(exec(paris, id, "set", &format!("echo init > {id}")).await, all("OK"));
        lab.cut(&each, &[("paris", "rennes"), ("rennes", "nantes"), ("nantes", "paris")]).await;
        let (left, middle) = (format!("echo left >> {id}"), format!("echo middle > {id}"));
        // Each is told of its own site at once, and of the others that they do not answer.
        let replies = tokio::join!(
            exec(paris, id, "add", &left),
            async {
                // Later than the one of paris by the clocks, which is what decides.
                lab.here_is(id, "init\nleft\n", paris).await;
                exec(rennes, id, "set", &middle).await
            },
            async {
                lab.here_is(id, "middle\n", rennes).await;
                exec(nantes, id, "add", right).await
            },
        );
        let own = |site: &str, status: &str| {
            let mut replies = all("TIMEOUT");
            replies.iter_mut().filter(|reply| reply.0 == site).for_each(|reply| reply.1 = status.to_owned());
            replies
        };
        let last = if id == "fine" { "OK" } else { "KO" };
        assert_eq!(replies, (own("paris", "OK"), own("rennes", "OK"), own("nantes", last)));
        lab.cut(&each, &[]).await;
        finished(id, 4, &each).await;
        assert_eq!(lab.same_file(id, &each).await, expected);
    }
    // What this site has done is told while the others are still waited for.
    lab.cut(&each, &[("paris", "rennes"), ("paris", "nantes")]).await;
    let parts = [("command", None, "echo more >> fine"), ("sites", None, ALL), ("type", None, "add")];
    let request = reqwest::Client::new()
        .post(format!("{}/exec/fine", paris.cheops().base()))
        .header("content-type", "multipart/form-data; boundary=limit")
        .body(form(&parts));
    let mut answer = request.send().await.expect("it answers");
    let first = answer.chunk().await.expect("it goes on").expect("a line");
    let reply: Value = serde_json::from_slice(&first).expect("one line of JSON");
    assert_eq!((&reply["Site"], &reply["Status"]), (&json!("paris"), &json!("OK")), "{reply}");
    // Whoever hangs up takes nothing back.
    drop(answer);
    lab.cut(&each, &[]).await;
    finished("fine", 5, &each).await;
    assert_eq!(lab.same_file("fine", &each).await, "middle\nleft\nright\nmore\n");
}

#[tokio::test]
async fn resources_live_where_their_first_request_said() {
    let lab = Lab::new();
    let [paris, rennes, nantes] = &three(&lab).await;
    let ask =
        |sites: &'static str| [("command", None, "mkdir __ID__"), ("sites", None, sites), ("type", None, "mkdir")];
    let first = lines(&post(paris, "/exec/one", &ask("paris & rennes")).await);
    assert_eq!(first.len(), 2, "{first:?}");
    let reply = &first[0];
    assert_eq!(reply["Locations"], json!(["paris", "rennes"]));
    assert_eq!((&reply["ResourceId"], &reply["Input"]), (&json!("one"), &json!("mkdir __ID__")));
    assert_eq!((&reply["Type"], &reply["Output"]), (&json!("REPLY"), &json!("")));
    assert!(reply["ExecutionTime"].as_str().is_some_and(|time| time.starts_with("20")), "{reply}");
    assert_eq!(reply["RequestId"], first[1]["RequestId"]);
    assert!(rennes.replicas().join("one").is_dir() && !nantes.replicas().join("one").exists());
    assert_eq!(lines(&post(rennes, "/exec/two", &ask("rennes&nantes")).await).len(), 2);
    assert!(nantes.replicas().join("two").is_dir() && !paris.replicas().join("two").exists());
    // A file of the request is where the command is told.
    let with_file = [
        ("command", None, "cat {a.txt} > from-file"),
        ("sites", None, "paris"),
        ("sites", None, "rennes"),
        ("type", None, "set"),
        ("a.txt", Some("x/other.txt"), "hello"),
        ("a.txt", Some("second.txt"), "not me"),
    ];
    let replies = lines(&post(paris, "/exec/three", &with_file).await);
    assert!(replies.iter().all(|reply| reply["Status"] == "OK"), "{replies:?}");
    assert_eq!((paris.file("from-file"), rennes.file("from-file")), (Some("hello".into()), Some("hello".into())));
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_as_cheops_does() {
    let lab = Lab::new();
    let paris = builder(&lab, "paris").arguments(&["--cheops-api", "127.0.0.1:0"]).start().await;
    let (command, sites, of) = (("command", None, "true"), ("sites", None, "paris"), ("type", None, "t"));
    let refused: &[(&str, &[Part<'_>], &str)] = &[
        ("/exec/a%2Fb", &[command, sites, of], "bad request"),
        ("/exec/web", &[sites, of], "bad request"),
        ("/exec/web", &[command, command, sites, of], "bad request"),
        ("/exec/web", &[command, of], "bad request"),
        ("/exec/web", &[command, sites], "bad request"),
        ("/exec/web", &[command, sites, of, ("config", None, "{")], "bad request"),
        ("/exec/web", &[command, ("sites", None, "rennes&nantes"), of], "Site is not in locations"),
        ("/exec/web", &[("command", None, " "), sites, of], "bad request"),
        ("/show_local/web", &[], "bad request"),
    ];
    for (path, parts, said) in refused {
        let answer = post(&paris, path, parts).await;
        assert_eq!(answer.status, 400, "{path} {parts:?}: {answer:?}");
        assert!(answer.body.as_str().is_some_and(|text| text.contains(said)), "{path} {parts:?}: {answer:?}");
    }
    // A page in a browser may send forms anywhere, and may not run commands.
    for header in [("origin", "http://example.org"), ("sec-fetch-site", "cross-site")] {
        let headers = [("content-type", "multipart/form-data; boundary=limit"), header];
        let sent = paris.cheops().send(Method::POST, "/show_local/web", &headers, form(&[command])).await;
        assert_eq!(sent.expect("it answers").status, 403, "{header:?}");
    }
    let plain = paris.cheops().send(Method::POST, "/exec/web", &[("content-type", "text/plain")], Vec::new()).await;
    assert_eq!(plain.expect("it answers").status, 400);
    assert!(!paris.lists("web").await.expect("it answers"));
    // What is of another kind is left alone.
    paris.put_files("page", "paris", json!({"a": 1})).await;
    assert_eq!(post(&paris, "/exec/page", &[command, sites, of]).await.status, 400);
}

#[test]
fn nobody_beyond_this_machine_runs_commands_unless_that_is_said() {
    let lab = Lab::new();
    let site = builder(&lab, "paris").arguments(&["--cheops-api", "0.0.0.0:0"]);
    std::fs::create_dir_all(site.dir().join("replicas")).expect("a directory");
    site.run().with_code(2).says(&["token", "run commands"]);
    lab.site("rennes").arguments(&["--cheops-api", "127.0.0.1:0"]).run().with_code(2).says(&["--driver shell=FILE"]);
}
