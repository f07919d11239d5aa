//! The API of Cheops as its clients use it, and its scenarios.

mod first;
mod show;
mod suite;

use reqwest::Method;
use serde_json::{Value, json};

use super::shell::{builder, finished};
use crate::support::{Answer, Lab, Site, SiteBuilder};

const ALL: &str = "paris&rennes&nantes";
/// What the file scenarios of Cheops say of writing and adding.
const MATRIX: &str = r#"{"ResolutionMatrix": [
    {"Before": "set", "After": "set", "Result": "take-one"},
    {"Before": "set", "After": "add", "Result": "take-both-keep-order"},
    {"Before": "add", "After": "set", "Result": "take-both-reverse-order"}]}"#;

/// Three sites that keep replicas as files.
async fn three(lab: &Lab) -> [Site; 3] {
    start(lab, ["paris", "rennes", "nantes"].map(|name| builder(lab, name))).await
}

/// Three sites with the API of Cheops.
async fn start(lab: &Lab, builders: [SiteBuilder; 3]) -> [Site; 3] {
    let [paris, rennes, nantes] = builders.map(|builder| builder.arguments(&["--cheops-api", "127.0.0.1:0"]));
    let paris = paris.start().await;
    let rennes = rennes.bootstrap(&paris).start().await;
    let nantes = nantes.bootstrap(&paris).start().await;
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

/// A request that is hung up on once its own site has replied: what that said.
async fn own_reply(site: &Site, path: &str, parts: &[Part<'_>]) -> Value {
    let request = crate::support::http()
        .post(format!("{}{path}", site.cheops().base()))
        .header("content-type", "multipart/form-data; boundary=limit")
        .body(form(parts));
    let mut answer = request.send().await.expect("it answers");
    let status = answer.status();
    let mut text = Vec::new();
    while let Some(more) = answer.chunk().await.expect("it goes on") {
        text.extend(more);
        let complete = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines = text[..complete].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let replies = lines.map(|line| serde_json::from_slice::<Value>(line).expect("one line of JSON"));
        if let Some(own) = replies.into_iter().find(|reply| reply["Site"] == site.name()) {
            return own;
        }
    }
    panic!("{status}: {}", String::from_utf8_lossy(&text));
}

#[tokio::test]
async fn what_one_site_has_done_is_told_while_others_are_waited_for() {
    let lab = Lab::new();
    let sites = three(&lab).await;
    let [paris, rennes, nantes] = &sites;
    let each = [paris, rennes, nantes];
    assert_eq!(exec(paris, "file", "set", "echo init > file").await, all("OK"));
    lab.cut(&each, &[("paris", "rennes"), ("paris", "nantes")]).await;
    let parts = [("command", None, "echo more >> file"), ("sites", None, ALL), ("type", None, "add")];
    // Whoever hangs up takes nothing back.
    let reply = own_reply(paris, "/exec/file", &parts).await;
    assert_eq!(reply["Status"], "OK", "{reply}");
    let mut replies = all("TIMEOUT");
    replies.iter_mut().filter(|reply| reply.0 == "paris").for_each(|reply| reply.1 = "OK".to_owned());
    assert_eq!(exec(paris, "file", "add", "echo last >> file").await, replies);
    lab.cut(&each, &[]).await;
    finished("file", 3, &each).await;
    assert_eq!(lab.same_file("file", &each).await, "init\nmore\nlast\n");
    // A look is one at this site, and says how it failed.
    let shown = post(rennes, "/show_local/file", &[("command", None, "cat __ID__")]).await;
    assert_eq!(shown.body, json!({"Status": "OK", "Output": "init\nmore\nlast\n"}));
    let failed = post(paris, "/show_local/file", &[("command", None, "echo no >&2; exit 2")]).await;
    assert_eq!((failed.status, &failed.body["Status"]), (200, &json!("KO")), "{failed:?}");
    assert!(failed.body["Output"].as_str().expect("text").contains("no"), "{failed:?}");
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
