//! HAProxy before the front, with the configuration that the examples have.

use std::process::{Child, Command, Stdio};

use reqwest::Method;

use super::{Service, answered, three};
use crate::support::{Lab, missing, until};

struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_sends_what_has_a_scope_to_the_front() {
    if Command::new("haproxy").arg("-v").stdout(Stdio::null()).status().is_err() {
        return missing("haproxy");
    }
    let lab = Lab::new();
    let sites = three(&lab, Service::start("rennes").await).await;
    let listen = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let front = sites.sites[0].http_front("notes").trim_start_matches("http://").to_owned();
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/http-front.haproxy.cfg");
    let proxy = Command::new("haproxy")
        .args(["-db", "-f", example])
        .env("LISTEN", listen.to_string())
        .env("FRONT", front)
        .env("SERVICE", sites.services[0].address.to_string())
        .stderr(Stdio::null())
        .spawn();
    let _proxy = Proxy(proxy.expect("it starts"));
    let ask = |path: &str| sites.http.request(Method::GET, format!("http://{listen}{path}"));
    until("it serves", || async { ask("/").send().await.map(drop).map_err(|error| error.to_string()) }).await;
    let plain = answered(ask("/a")).await;
    assert_eq!(plain.json["site"], "paris", "{plain:?}");
    assert!(plain.json["headers"].get("via").is_none(), "it goes to the service itself: {plain:?}");
    for (request, site) in [
        (ask("/a").header("Scope", "rennes"), "rennes"),
        (ask("/a").header("X-Scope", "nantes"), "nantes"),
        (ask("/scope/rennes/a"), "rennes"),
        (ask("/a").header("X-Auth-Token", "x!SCOPE!rennes"), "rennes"),
    ] {
        let answer = answered(request.header("Host", "notes.example")).await;
        assert_eq!((&answer.json["site"], &answer.json["uri"]), (&site.into(), &"/a".into()), "{answer:?}");
        assert_eq!(answer.json["headers"]["x-forwarded-host"], "notes.example", "{answer:?}");
    }
}
