//! Each command against real nodes.

use serde_json::json;

use crate::support::{Lab, until};

const MANIFEST: &str = "kind: Deployment\nmetadata: {name: web}\nspec: {replicas: 3}\n";
const POLICY: &str = "resolutions:\n- {before: set, after: set, result: take-one}\n- {before: set, after: add, result: take-both-keep-order}\n\
                      - {before: add, after: set, result: take-both-reverse-order}\ntypes: {set: {absolute: true}}\n";

#[tokio::test]
async fn one_site_by_hand() {
    let lab = Lab::new();
    let paris = lab.site("paris").start().await;
    let dir = paris.builder().dir().to_owned();
    std::fs::write(dir.join("web.yaml"), MANIFEST).expect("a manifest");
    std::fs::write(dir.join("policy.yaml"), POLICY).expect("a policy");

    // Create, from the name in the manifest.
    let ran = paris.khufu(&["apply", "-f", "web.yaml", "--scope", "here", "--wait"]).with_code(0);
    assert!(ran.out.starts_with("web created, scope here, sites paris, applied"), "{}", ran.out);
    assert!(paris.file("web").expect("a file").contains("replicas: 3"));
    let ran = paris.khufu(&["apply", "-f", "web.yaml", "--wait", "20s"]).with_code(0);
    assert!(ran.out.starts_with("web configured"), "{}", ran.out);

    // Read.
    let list = paris.khufu(&["get", "-o", "json"]).with_code(0).json();
    assert_eq!(list["items"][0]["id"], "web");
    let table = paris.khufu(&["get", "--kind", "files", "--site", "paris"]).with_code(0).out;
    assert!(table.contains("web") && table.contains("applied"), "{table}");
    assert!(paris.khufu(&["get", "--kind", "nothing"]).with_code(0).out.contains("No replicants"));
    assert_eq!(paris.khufu(&["get", "web", "-o", "json"]).with_code(0).json()["desired"]["spec"]["replicas"], 3);
    let yaml = paris.khufu(&["get", "web", "-o", "yaml"]).with_code(0).out;
    assert!(yaml.contains("replicas: 3"), "{yaml}");
    paris.khufu(&["get", "nobody"]).with_code(3).says(&["nobody"]);
    paris.khufu(&["describe", "nobody"]).with_code(3);

    // Compare with a manifest.
    assert!(paris.khufu(&["diff", "-f", "web.yaml"]).with_code(0).out.contains("nothing"));
    std::fs::write(dir.join("more.yaml"), MANIFEST.replace('3', "5")).expect("a manifest");
    let diff = paris.khufu(&["diff", "-f", "more.yaml"]).with_code(1).out;
    assert!(diff.contains("-  replicas: 3") && diff.contains("+  replicas: 5"), "{diff}");

    // Operate.
    std::fs::write(dir.join("empty.yaml"), "{}\n").expect("a manifest");
    let apply = ["apply", "-f", "empty.yaml", "--id", "notes", "--scope", "here", "--policy", "policy.yaml"];
    paris.khufu(&apply).with_code(0);
    let operate = |op_type: &'static str, payload: &'static str, id: &'static str| {
        paris.khufu(&["op", "notes", "--type", op_type, "--payload", payload, "--wait", "20s", "--id", id])
    };
    operate("set", r#"{"write": "one\n"}"#, "w1").with_code(0);
    operate("add", r#"{"append": "two\n"}"#, "a1").with_code(0);
    // Asking twice with one id is asking once.
    operate("add", r#"{"append": "two\n"}"#, "a1").with_code(0);
    assert_eq!(paris.file("notes").as_deref(), Some("one\ntwo\n"));
    let described = paris.khufu(&["describe", "notes"]).with_code(0).out;
    for word in ["notes", "Sites", "paris", "w1", "a1", "live", "applied"] {
        assert!(described.contains(word), "{word} is not in:\n{described}");
    }
    let history = paris.khufu(&["history", "notes"]).with_code(0).out;
    assert!(history.contains("operation w1") && history.contains("paris"), "{history}");
    assert_eq!(
        paris.khufu(&["history", "notes", "--limit", "1", "-o", "json"]).json().as_array().map(Vec::len),
        Some(1)
    );
    assert!(paris.khufu(&["conflicts", "notes"]).with_code(0).out.contains("No conflicts"));

    // Look around.
    let sites = paris.khufu(&["sites"]).with_code(0).out;
    assert!(sites.contains("paris (here)") && sites.contains("files"), "{sites}");
    assert!(paris.khufu(&["peers"]).with_code(0).out.contains("No connections"));
    let verified = paris.khufu(&["verify", "-o", "json"]).with_code(0).json();
    assert_eq!((&verified["same"], &verified["checked"]), (&json!(true), &json!(2)));
    let events = paris.khufu(&["events", "--after", "0", "--count", "3", "-o", "json"]).with_code(0).out;
    assert_eq!(events.lines().count(), 3);
    let first: serde_json::Value = serde_json::from_str(events.lines().next().expect("a line")).expect("JSON");
    assert!(first["event"].is_string() && first["id"].is_string(), "{first}");
    let explained = paris.khufu(&["scope", "explain", "here", "-o", "json"]).with_code(0).json();
    assert_eq!(explained["places"][0]["sites"], json!(["paris"]));
    paris.khufu(&["scope", "explain", "pariss"]).with_code(2).says(&["paris"]);

    // Refusals.
    std::fs::write(dir.join("broken.yaml"), "a: [1\n").expect("a file");
    paris.khufu(&["apply", "-f", "broken.yaml", "--id", "x"]).with_code(2).says(&["broken.yaml", "line"]);
    paris.khufu(&["apply", "-f", "empty.yaml"]).with_code(2).says(&["metadata.name", "--id"]);
    paris.khufu(&["apply", "-f", "web.yaml", "--scope", "paris & &"]).with_code(2).says(&["&"]);
    paris.khufu(&["apply", "-f", "web.yaml", "--id", "y", "--kind", "unknown-kind"]);
    std::fs::write(dir.join("large.yaml"), format!("text: {}\n", "x".repeat(10_000_000))).expect("a file");
    paris.khufu(&["apply", "-f", "large.yaml", "--id", "large"]).with_code(4).says(&["bytes"]);
    paris.khufu(&["op", "nobody", "--type", "t"]).with_code(3);

    // Delete.
    paris.khufu(&["delete", "web"]).with_code(2).says(&["--yes"]);
    paris.khufu(&["delete", "web", "--yes", "--wait"]).with_code(0);
    assert_eq!(paris.file("web"), None);
    paris.khufu(&["delete", "notes", "--yes", "--keep"]).with_code(0);
    assert!(paris.file("notes").is_some());
    paris.stop().await;
}

#[tokio::test]
async fn a_conflict_is_shown_and_settled() {
    let lab = Lab::new();
    let paris = lab.site("paris").start().await;
    let rennes = lab.site("rennes").bootstrap(&paris).start().await;
    lab.met(&[&paris, &rennes]).await;
    let body = json!({"kind": "files", "scope": "paris & rennes", "desired": {"replicas": 1}});
    paris.put("/v1/replicants/web", body).await.ok();
    lab.same_file("web", &[&paris, &rennes]).await;

    rennes.cut(&["paris"]).await;
    until("the cut shows", || async {
        let peers = rennes.try_get("/v1/peers").await?;
        if peers.as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(peers.to_string()) }
    })
    .await;
    paris.patch("/v1/replicants/web/desired", json!({"replicas": 2})).await.ok();
    rennes.patch("/v1/replicants/web/desired", json!({"replicas": 3})).await.ok();
    // A site that is cut off is not waited for beyond the time given, and what is known is said.
    let cut_off = paris.khufu(&["op", "web", "--type", "note", "--payload", "{\"append\": \"\"}", "--wait", "300ms"]);
    assert!(matches!(cut_off.code, Some(1 | 6)), "{cut_off:?}");
    let verified = paris.khufu(&["verify"]);
    assert_eq!(verified.code, Some(1), "{verified:?}");

    rennes.cut(&[]).await;
    until("both know of the conflict", || async {
        for site in [&paris, &rennes] {
            let conflicts = site.try_get("/v1/replicants/web/conflicts").await?;
            if conflicts.as_array().is_none_or(Vec::is_empty) {
                return Err(format!("{} knows none", site.name()));
            }
        }
        Ok(())
    })
    .await;
    let table = rennes.khufu(&["conflicts", "web"]).with_code(0).out;
    assert!(table.contains("/desired/replicas") && table.contains("paris") && table.contains("rennes"), "{table}");
    let conflicts = rennes.khufu(&["conflicts", "web", "-o", "json"]).json();
    let loser = conflicts[0]["values"].as_array().expect("values").iter().find(|value| value["winner"] == false);
    let loser = loser.expect("one lost").clone();
    let pick = format!("/desired/replicas={}", &loser["change"].as_str().expect("a hash")[..12]);
    rennes.khufu(&["conflicts", "web", "--pick", "/desired/nothing=abcdef"]).with_code(3);
    rennes.khufu(&["conflicts", "web", "--pick", &pick]).with_code(0);
    until("the value picked is everywhere", || async {
        let view = paris.try_get("/v1/replicants/web").await?;
        let settled = view["conflicts"] == 0 && view["desired"]["replicas"] == loser["value"];
        if settled { Ok(()) } else { Err(view.to_string()) }
    })
    .await;
    let peers = paris.khufu(&["peers"]).with_code(0).out;
    assert!(peers.contains("rennes") && peers.contains(rennes.node()), "{peers}");
    rennes.stop().await;
    paris.stop().await;
}

#[tokio::test]
async fn where_tokens_are_needed_one_is_asked_for() {
    let lab = Lab::new();
    let builder = lab.site("paris");
    // SHA-256 of "reader" and of "writer".
    let tokens = "[[tokens]]\nname = \"ana\"\nrole = \"read\"\n\
                  sha256 = \"3d0941964aa3ebdcb00ccef58b1bb399f9f898465e9886d5aec7f31090a0fb30\"\n\
                  [[tokens]]\nname = \"ben\"\nrole = \"write\"\n\
                  sha256 = \"b93006774cbdd4b299389a03ac3d88c3a76b460d538795bc12718011a909fba5\"\n";
    std::fs::write(builder.dir().join("tokens.toml"), tokens).expect("tokens");
    std::fs::write(builder.dir().join("web.yaml"), MANIFEST).expect("a manifest");
    let paris = builder.arguments(&["--tokens", "tokens.toml"]).start().await;
    paris.khufu(&["get"]).with_code(4).says(&["--token", "KHUFU_TOKEN"]);
    paris.khufu(&["get", "--token", "wrong"]).with_code(4);
    paris.khufu(&["get", "--token", "reader"]).with_code(0);
    paris.khufu(&["apply", "-f", "web.yaml", "--token", "reader"]).with_code(4).says(&["higher role"]);
    paris.khufu(&["apply", "-f", "web.yaml", "--token", "writer"]).with_code(0);
    assert!(!paris.log().contains("reader") && !paris.log().contains("writer"), "tokens must not be logged");
    paris.stop().await;
}

#[tokio::test]
async fn events_are_followed_over_a_restart() {
    let lab = Lab::new();
    let paris = lab.site("paris").start().await;
    let mut follow = crate::support::command(lab.path());
    follow.args(["events", "--count", "1", "-o", "json", "--api", paris.api()]);
    follow.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut following = follow.spawn().expect("it runs");
    let error = following.stderr.take().expect("it is piped");
    until("it is connected", || async {
        let metrics = paris.try_get("/v1/peers").await?;
        if following_api(following.id(), paris.api()) { Ok(()) } else { Err(metrics.to_string()) }
    })
    .await;
    let paris = paris.kill_9();
    // It says that it lost the node, and comes back once there is one.
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(error), &mut line).expect("a line");
    assert!(line.contains("trying again"), "{line}");
    let paris = paris.start().await;
    let mut number = 0;
    let ended = until("an event arrives", || {
        number += 1;
        let body = json!({"kind": "files", "scope": "here", "desired": {"number": number}});
        let (paris, following) = (&paris, &mut following);
        let ended = following.try_wait().expect("it can be waited for");
        async move {
            paris.put("/v1/replicants/web", body).await.ok();
            ended.ok_or_else(|| "it still waits".to_owned())
        }
    })
    .await;
    assert!(ended.success(), "{ended}");
    paris.stop().await;
}

#[test]
fn events_are_followed_also_if_the_first_request_gets_no_answer() {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    let lab = Lab::new();
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let api = port.local_addr().expect("an address").to_string();
    let mut follow = crate::support::command(lab.path());
    follow.args(["events", "--count", "1", "--api", &api]);
    follow.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut following = follow.spawn().expect("it runs");
    // The connection is taken, the request is read, and that is all: so a node looks that is killed just then.
    let request = |port: &TcpListener| {
        let (stream, _) = port.accept().expect("a connection");
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert!(reader.read_line(&mut line).expect("a line") > 0, "the request ended early");
        }
        reader.into_inner()
    };
    drop(request(&port));
    let mut line = String::new();
    BufReader::new(following.stderr.take().expect("it is piped")).read_line(&mut line).expect("a line");
    assert!(line.contains("lost the node") && line.contains("trying again"), "{line}");
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nid: 7-1\nevent: site\ndata: {\"at\":0}\n\n";
    request(&port).write_all(answer.as_bytes()).expect("it listens");
    let ran: crate::support::Ran = following.wait_with_output().expect("it ends").into();
    assert!(ran.with_code(0).out.contains("site"));
}

/// Whether a process has a connection to the port of an API: its sockets are among those of the table.
fn following_api(pid: u32, api: &str) -> bool {
    let port: u16 = api.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    let inodes: Vec<String> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        // Fields: local, remote, state 01 (established), and the inode as the tenth.
        .filter(|fields| fields.len() > 9 && fields[2].ends_with(&format!(":{port:04X}")) && fields[3] == "01")
        .map(|fields| format!("socket:[{}]", fields[9]))
        .collect();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut links = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.any(|link| inodes.iter().any(|inode| link.to_str() == Some(inode)))
}

#[tokio::test]
async fn a_demo_that_is_killed_leaves_no_process() {
    use std::io::{BufReader, Read as _};

    let lab = Lab::new();
    let mut demo = crate::support::command(lab.path());
    demo.args(["demo", "--keep", "--json", "--sites", "2"]).env("TMPDIR", lab.path());
    let mut demo =
        demo.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().expect("it runs");
    // The report is one JSON value; after it the demo stays up.
    let output = BufReader::new(demo.stdout.take().expect("it is piped"));
    let report = serde_json::Deserializer::from_reader(output.take(1 << 20)).into_iter::<serde_json::Value>().next();
    let report = report.expect("a report").expect("JSON");
    assert_eq!(report["ok"], true, "{report}");
    let apis =
        report["network"]["sites"].as_array().expect("sites").iter().map(|site| site["api"].as_str().expect("api"));
    let apis: Vec<&str> = apis.collect();
    assert_eq!(apis.len(), 2);
    crate::support::khufu(lab.path(), &["verify", "--api", apis[0]]).with_code(0);
    demo.kill().expect("it runs");
    demo.wait().expect("it ends");
    for api in apis {
        until("the site is gone", || async {
            let ran = crate::support::khufu(lab.path(), &["sites", "--api", api]);
            if ran.code == Some(5) { Ok(()) } else { Err(format!("{ran:?}")) }
        })
        .await;
    }
}

#[test]
fn the_demo_is_true_and_leaves_nothing() {
    let lab = Lab::new();
    let output = crate::support::command(lab.path()).args(["demo", "--json"]).env("TMPDIR", lab.path()).output();
    let ran: crate::support::Ran = output.expect("it runs").into();
    let ran = ran.with_code(0);
    let report = ran.json();
    assert_eq!(report["ok"], true);
    let claims = report["claims"].as_array().expect("claims");
    assert!(claims.len() >= 7 && claims.iter().all(|claim| claim["true"] == true), "{report}");
    assert!(report["measurements"]["applied_ms"]["nantes"].is_number(), "{report}");
    let left: Vec<_> =
        std::fs::read_dir(lab.path()).expect("a directory").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["swarm.key"], "the demo removes its directory");
}
