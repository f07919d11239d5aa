//! The front of an HTTP service: three sites, each with a node and a service of its own.

mod proxy;
mod service;

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use self::service::Service;
use crate::support::{Lab, PATIENCE, Site, SiteBuilder, until};

/// The sites, and their services.
struct Sites {
    sites: [Site; 3],
    services: [Service; 3],
    http: reqwest::Client,
}

/// What was answered.
#[derive(Debug)]
struct Answered {
    status: u16,
    headers: reqwest::header::HeaderMap,
    text: String,
    json: Value,
}

fn front(lab: &Lab, name: &str, service: &Service) -> SiteBuilder {
    lab.site(name).arguments(&["--http-front", &format!("notes=127.0.0.1:0,http://{}", service.address)])
}

async fn three(lab: &Lab, rennes: Service) -> Sites {
    let services = [Service::start("paris").await, rennes, Service::start("nantes").await];
    let paris = front(lab, "paris", &services[0]).start().await;
    let rennes = front(lab, "rennes", &services[1]).bootstrap(&paris).start().await;
    let nantes = front(lab, "nantes", &services[2]).bootstrap(&paris).start().await;
    lab.met(&[&paris, &rennes, &nantes]).await;
    let http = crate::support::http_builder().timeout(PATIENCE).build().expect("a client");
    Sites { sites: [paris, rennes, nantes], services, http }
}

impl Sites {
    /// A request to the front at paris.
    fn asks(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.sites[0].http_front("notes")))
    }

    async fn get(&self, scope: &str) -> Answered {
        answered(self.asks(Method::GET, "/").header("Scope", scope)).await
    }

    async fn post(&self, scope: &str) -> Answered {
        answered(self.asks(Method::POST, "/").header("Scope", scope).body("one")).await
    }

    async fn cut(&self, pairs: &[(&'static str, &'static str)], lab: &Lab) {
        let [paris, rennes, nantes] = &self.sites;
        lab.cut(&[paris, rennes, nantes], pairs).await;
    }

    fn requests(&self) -> [usize; 3] {
        [0, 1, 2].map(|site| self.services[site].requests())
    }
}

async fn answered(request: RequestBuilder) -> Answered {
    let answer = request.send().await.expect("it answers");
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let text = answer.text().await.expect("a whole answer");
    let json = serde_json::from_str(&text).unwrap_or_default();
    Answered { status, headers, text, json }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_to_the_site_that_its_scope_names() {
    let lab = Lab::new();
    let sites = three(&lab, Service::start("rennes").await).await;
    let through = format!("{}/a%2Fb?c=d", sites.sites[0].http_front("notes"));

    // Without a scope: to the service of this site, as it is but for what a proxy says.
    let request = sites.http.put(&through).header("authorization", "Bearer secret-token").body("hello");
    let request = request.header("host", "notes.localhost").header("connection", "x-own, x-forwarded-for, via");
    let here = answered(request.header("x-own", "1")).await;
    assert_eq!(here.status, 200, "{here:?}");
    assert_eq!((&here.json["site"], &here.json["method"]), (&"paris".into(), &"PUT".into()));
    assert_eq!((&here.json["uri"], &here.json["start"]), (&"/a%2Fb?c=d".into(), &"hello".into()));
    let headers = &here.json["headers"];
    assert_eq!(headers["authorization"], "Bearer secret-token");
    assert_eq!(headers["host"], sites.services[0].address.to_string());
    assert_eq!(
        (&headers["x-forwarded-host"], &headers["x-forwarded-for"]),
        (&"notes.localhost".into(), &"127.0.0.1".into())
    );
    assert!(
        headers["via"].as_str().expect("a text").contains("notes-paris") && headers.get("x-own").is_none(),
        "{headers}"
    );
    assert!(here.headers.contains_key("x-of-service") && !here.headers.contains_key("x-hop"), "{here:?}");

    // With one, wherever it stands; the service never sees it.
    let plain = |name: &'static str, value: &'static str| sites.http.get(&through).header(name, value);
    let prefixed = format!("{}/scope/rennes/a%2Fb?c=d", sites.sites[0].http_front("notes"));
    for (request, site) in [
        (plain("Scope", "rennes"), "rennes"),
        (plain("Scope", "here"), "paris"),
        (plain("Scope", "notes: rennes, other: paris"), "rennes"),
        (plain("Scope", "notes: nantes, rennes"), "nantes"),
        (plain("Scope", "other: rennes"), "paris"),
        (plain("Scope", "rennes & nantes & paris"), "paris"),
        (plain("Scope", "around(paris, 10s)"), "paris"),
        (plain("X-Scope", r#"{"notes": "nantes", "image": "rennes"}"#), "nantes"),
        (plain("X-Auth-Token", r#"secret-token!SCOPE!{"notes": "rennes"}"#), "rennes"),
        (sites.http.get(&prefixed), "rennes"),
    ] {
        let answer = answered(request).await;
        assert_eq!((answer.status, &answer.json["site"]), (200, &site.into()), "{answer:?}");
        assert_eq!(answer.json["uri"], "/a%2Fb?c=d");
        assert!(!answer.json.to_string().to_lowercase().contains("scope"), "{answer:?}");
        let token = answer.json["headers"].get("x-auth-token").cloned();
        assert!(token.is_none_or(|token| token == "secret-token"), "{answer:?}");
    }
    let there = sites.get("rennes").await;
    let headers = &there.json["headers"];
    assert_eq!(headers["host"], sites.services[1].address.to_string());
    assert!(headers.get("khufu-service").is_none() && there.headers["x-of-service"] == "rennes", "{there:?}");

    // What cannot be done is said, and not done.
    let before = sites.requests();
    for (scope, status, words) in
        [("paris &", 400, "\n"), ("berlin", 400, "berlin"), ("image: rennes, notes: lion", 400, "lion")]
    {
        let answer = sites.get(scope).await;
        assert!(
            answer.status == status && answer.json["detail"].as_str().is_some_and(|text| text.contains(words)),
            "{answer:?}"
        );
    }
    let several = sites.post("paris & rennes").await;
    assert!(several.status == 501 && several.text.contains("khufu op"), "{several:?}");
    assert_eq!(sites.requests(), before);
    // A page that was loaded from a name which now leads here; it has no say in what its browser sends for a host.
    for path in ["/", "/scope/rennes/"] {
        let page = sites.asks(Method::GET, path).header("host", "evil.example:8090");
        let page = answered(page.header("Scope", "rennes").header("sec-fetch-site", "same-origin")).await;
        assert!(page.status == 421 && page.text.contains("evil.example"), "{page:?}");
    }
    let form = answered(sites.asks(Method::POST, "/scope/rennes/").header("origin", "http://evil.example")).await;
    assert!(form.status == 403 && form.headers["khufu-front"] == "unseen", "{form:?}");
    assert_eq!(sites.requests(), before);
    for site in &sites.sites {
        assert!(!site.log().contains("secret-token"), "{}", site.log());
    }
    let metrics = sites.sites[0].client().send(Method::GET, "/metrics", &[], Vec::new()).await.expect("metrics");
    let metrics = metrics.body.as_str().expect("a text").to_owned();
    assert!(metrics.contains(r#"khufu_http_front_requests_total{front="notes",status="501"} 1"#), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_alternatives_the_first_that_answers() {
    let lab = Lab::new();
    let sites = three(&lab, Service::start("rennes").await).await;
    assert_eq!(sites.get("rennes | nantes").await.json["site"], "rennes");
    sites.cut(&[("paris", "rennes")], &lab).await;
    for answer in [sites.get("rennes | nantes").await, sites.post("rennes | nantes").await] {
        assert_eq!(answer.json["site"], "nantes", "{answer:?}");
    }
    // A body whose length nobody knows is sent once, to the first that can be reached.
    let pieces = futures::stream::iter((0..20).map(|_| Ok::<_, std::io::Error>(vec![7_u8; 64 << 10])));
    let request = sites.asks(Method::POST, "/").header("Scope", "rennes | nantes");
    let long = answered(request.body(reqwest::Body::wrap_stream(pieces))).await;
    assert_eq!((&long.json["site"], &long.json["bytes"]), (&"nantes".into(), &(20 * (64 << 10)).into()), "{long:?}");
    let alone = sites.get("rennes").await;
    assert!(alone.status == 502 && alone.text.contains("rennes"), "{alone:?}");
    sites.cut(&[], &lab).await;
    until("rennes is asked again", || async {
        let answer = sites.get("rennes | nantes").await;
        if answer.json["site"] == "rennes" { Ok(()) } else { Err(answer.text) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_done_is_not_done_elsewhere() {
    let lab = Lab::new();
    let sites = three(&lab, Service::breaking("rennes").await).await;
    let answer = sites.get("rennes | nantes").await;
    assert_eq!(answer.json["site"], "nantes", "{answer:?}");
    let before = sites.requests();
    let answer = sites.post("rennes | nantes").await;
    assert!(answer.status == 502 && answer.text.contains("rennes"), "{answer:?}");
    assert_eq!(sites.requests(), [before[0], before[1] + 1, before[2]], "once, and at one site");

    // Where nobody listens nobody has seen it.
    let Sites { sites: [paris, rennes, nantes], services: [a, gone, c], http } = sites;
    drop(gone);
    let services = [a, Service::start("unused").await, c];
    let sites = Sites { sites: [paris, rennes, nantes], services, http };
    let answer = until("its service is gone", || async {
        let answer = sites.post("rennes | nantes").await;
        if answer.status == 200 { Ok(answer) } else { Err(answer.text) }
    })
    .await;
    assert_eq!(answer.json["site"], "nantes", "{answer:?}");
    let alone = sites.get("rennes").await;
    assert!(alone.status == 502 && alone.text.contains("the site rennes"), "{alone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_and_break_with_the_network() {
    const BYTES: usize = 2 << 20;
    let lab = Lab::new();
    let sites = three(&lab, Service::start("rennes").await).await;
    for scope in ["here", "rennes"] {
        let request = sites.asks(Method::POST, "/upload").header("Scope", scope);
        let up = answered(request.body(vec![7; BYTES])).await;
        assert_eq!(up.json["bytes"], BYTES, "{scope}: {up:?}");
        // Also where it comes with a read, and nobody knows how long it gets.
        let pieces = futures::stream::iter(["not ", "lost"].map(Ok::<_, std::convert::Infallible>));
        let request = sites.asks(Method::GET, "/search").header("Scope", scope).header("transfer-encoding", "chunked");
        let read = answered(request.body(reqwest::Body::wrap_stream(pieces))).await;
        assert_eq!(read.json["start"], "not lost", "{scope}: {read:?}");
        let request = sites.asks(Method::GET, &format!("/bytes/{BYTES}")).header("Scope", scope);
        let down = request.send().await.expect("it answers").bytes().await.expect("all of it");
        assert!(down.len() == BYTES && down.iter().all(|byte| *byte == 7), "{scope}: {}", down.len());
    }
    let rennes = &sites.services[1];
    let is_open = |open: usize| async move {
        if rennes.open() == open { Ok(()) } else { Err(format!("{} answers are being given", rennes.open())) }
    };
    // Who goes away ends the work at the other site.
    let endless = || sites.asks(Method::GET, "/endless").header("Scope", "rennes").send();
    let answer = endless().await.expect("it answers");
    until("it is being answered", || is_open(1)).await;
    drop(answer);
    until("nobody answers any more", || is_open(0)).await;
    // A cut in the middle is no end.
    let mut answer = endless().await.expect("it answers");
    answer.chunk().await.expect("a piece");
    sites.cut(&[("paris", "rennes")], &lab).await;
    let read = async {
        loop {
            match answer.chunk().await {
                Ok(Some(_)) => {}
                other => return other,
            }
        }
    };
    let end = tokio::time::timeout(Duration::from_secs(30), read).await.expect("it ends");
    assert!(end.is_err(), "it looks as if all had come: {end:?}");
    until("nobody answers any more", || is_open(0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_before_itself_is_found_out_and_an_open_one_needs_plain_words() {
    let lab = Lab::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let itself = format!("notes={free},http://{free}");
    let site = lab.site("paris").arguments(&["--http-front", &itself]).start().await;
    let http = crate::support::http_builder().timeout(PATIENCE).build().expect("a client");
    let answer = answered(http.get(site.http_front("notes"))).await;
    assert_eq!(answer.status, 508, "{answer:?}");
    for (argument, words) in [
        ("notes=0.0.0.0:0,http://127.0.0.1:1", "plain words"),
        ("all=127.0.0.1:0,http://127.0.0.1:1", "a name has letters"),
        ("notes=127.0.0.1:0", "NAME=IP:PORT,URL"),
        ("notes=127.0.0.1:0,https://127.0.0.1:1", "http://HOST:PORT"),
    ] {
        let ran = lab.site("rennes").arguments(&["--http-front", argument]).run();
        assert!(ran.code == Some(2) && ran.err.contains(words), "{argument}: {ran:?}");
    }
    let open = ["--http-front", "notes=0.0.0.0:0,http://127.0.0.1:1", "--http-front-open"];
    let site = lab.site("nantes").arguments(&open).start().await;
    let other = answered(http.get(site.http_front("notes")).header("host", "notes.example")).await;
    assert_eq!(other.status, 502, "it serves any host: {other:?}");
}
