//! Starting and stopping a node.

use std::net::TcpListener;

use crate::support::{Lab, command, khufu};

#[test]
fn a_key_that_nobody_knows_in_the_file_is_refused_with_its_line() {
    let lab = Lab::new();
    std::fs::write(lab.path().join("khufu.toml"), "site = 'paris'\nbootstraps = []\n").expect("a file");
    khufu(lab.path(), &["node"]).with_code(2).says(&["khufu.toml", "line 2", "bootstraps"]);
    std::fs::write(lab.path().join("other.toml"), "site = 'paris'\n\napi = 7\n").expect("a file");
    khufu(lab.path(), &["node", "--config", "other.toml"]).with_code(2).says(&["other.toml", "line 3"]);
    khufu(lab.path(), &["node", "--config", "missing.toml"]).with_code(2).says(&["missing.toml"]);
}

#[test]
fn a_node_without_a_site_says_how_to_name_one() {
    let lab = Lab::new();
    khufu(lab.path(), &["node"]).with_code(2).says(&["--site", "KHUFU_SITE", "khufu init"]);
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let lab = Lab::new();
    let node = |arguments: &[&str]| {
        let fixed =
            ["node", "--site", "paris", "--data", "d", "--api", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"];
        khufu(lab.path(), &[&fixed[..], arguments].concat())
    };
    node(&["--site", "a/b"]).with_code(2);
    node(&["--driver", "ftp=x"]).with_code(2).says(&["ftp", "files=DIR"]);
    node(&["--psk-file", "missing.key"]).with_code(2).says(&["missing.key"]);
    node(&["--tokens", "missing.toml"]).with_code(2).says(&["missing.toml"]);
    khufu(lab.path(), &["node", "--site", "paris", "--data", "d", "--api", "nonsense"]).with_code(2).says(&["IP:PORT"]);
    khufu(lab.path(), &["node", "--site", "paris", "--data", "d", "--api", "0.0.0.0:0"]).with_code(2).says(&["token"]);
    let beyond = ["node", "--site", "paris", "--data", "d", "--api", "127.0.0.1:0", "--listen", "/ip4/0.0.0.0/tcp/0"];
    assert_ne!(khufu(lab.path(), &beyond).code, Some(0), "without a key nobody listens beyond loopback");
}

#[tokio::test]
async fn the_first_place_that_speaks_of_a_value_wins() {
    let lab = Lab::new();
    let builder = lab.site("paris").arguments(&["--label", "from=argument"]);
    let text = "site = 'elsewhere'\napi = '127.0.0.1:1'\nmdns = false\n[labels]\nfrom = 'file'\n";
    std::fs::write(builder.dir().join("khufu.toml"), text).expect("a file");
    let site = builder.start().await;
    let log = site.log();
    for line in [
        "site = \"paris\" (argument)",
        "api = \"127.0.0.1:0\" (argument)",
        "labels = {\"from\":\"argument\"} (argument)",
        "mdns = false (file)",
        "open_network = false (default)",
    ] {
        assert!(log.contains(line), "{line} is not in:\n{log}");
    }
    let key = std::fs::read_to_string(lab.psk()).expect("a key");
    assert!(!log.contains(key.lines().nth(2).expect("three lines")), "the key must not be shown");
    site.stop().await;
}

#[test]
fn the_environment_goes_before_the_file() {
    let lab = Lab::new();
    std::fs::write(lab.path().join("khufu.toml"), "site = 'paris'\napi = 'from the file'\n").expect("a file");
    let output = command(lab.path()).arg("node").env("KHUFU_API_LISTEN", "from the environment").output();
    let error = String::from_utf8_lossy(&output.expect("it runs").stderr).into_owned();
    assert!(error.contains("api = \"from the environment\" (environment)"), "{error}");
    let output = command(lab.path()).arg("node").env("KHUFU_ALLOW_FAULTS", "perhaps").output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("KHUFU_ALLOW_FAULTS"));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let lab = Lab::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let site = lab.site("paris").arguments(&["--stop-with-stdin"]);
    let mut line = site.command_line();
    let at = line.iter().position(|argument| argument == "--api").expect("--api is given");
    line[at + 1] = address.clone();
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    khufu(site.dir(), &line).with_code(4).says(&[&address]);

    let mut line = site.command_line();
    let at = line.iter().position(|argument| argument == "--listen").expect("--listen is given");
    let port = taken.local_addr().expect("an address").port().to_string();
    line[at + 1] = format!("/ip4/127.0.0.1/tcp/{port}");
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    khufu(site.dir(), &line).with_code(4).says(&[&port]);
}

#[tokio::test]
async fn a_data_directory_that_is_in_use_is_left_alone() {
    let lab = Lab::new();
    let site = lab.site("paris").start().await;
    lab.site("paris").run().with_code(4).says(&["use"]);
    // The first one goes on as if nothing had happened.
    site.get("/readyz").await.ok();
    site.stop().await;
}

#[tokio::test]
async fn a_node_that_is_asked_to_stop_ends_in_order_and_keeps_everything() {
    let lab = Lab::new();
    let site = lab.site("paris").start().await;
    let body = serde_json::json!({"kind": "files", "scope": "here", "desired": {"a": 1}});
    site.put("/v1/replicants/web", body).await.ok();
    let node = site.node().to_owned();
    let site = site.terminate().await.start().await;
    assert_eq!(site.node(), node, "the identity stays");
    assert_eq!(site.get("/v1/replicants/web").await.ok()["desired"]["a"], 1);
    let site = site.kill_9().start().await;
    assert_eq!(site.get("/v1/replicants/web").await.ok()["desired"]["a"], 1);
    site.stop().await;
}

#[test]
fn what_init_made_can_be_started() {
    let lab = Lab::new();
    let init = ["init", "--site", "paris", "--dir", "s", "--listen", "/ip4/127.0.0.1/tcp/0"];
    khufu(lab.path(), &[&init[..], &["--api", "127.0.0.1:0"]].concat()).with_code(0);
    // Its standard input is closed, so it stops as soon as it serves.
    let ran = khufu(lab.path(), &["node", "--config", "s/khufu.toml", "--stop-with-stdin"]).with_code(0);
    assert!(ran.out.starts_with("khufu: site paris serves http://127.0.0.1:"), "{}", ran.out);
    assert!(ran.out.contains(", listens on /ip4/127.0.0.1/tcp/") && ran.out.contains("/p2p/12D3Koo"), "{}", ran.out);
    assert!(lab.path().join("s/data").is_dir() && ran.out.lines().count() == 1);
}
