//! HTTP requests between sites, over the private network.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::{Request, Response, StatusCode};
use khufu_crdt::SiteName;
use khufu_node::{Body, ForwardError, Origin, boxed, full};
use khufu_p2p::{Config, Identity, Network, Psk};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::client::{Fixture, PATIENCE, eventually};
use crate::sites::{alive, site, two};

pub(crate) const LIMIT: Duration = Duration::from_secs(15);

pub(crate) fn name(site: &str) -> SiteName {
    SiteName::new(site).unwrap()
}

pub(crate) fn serve<R>(
    fixture: &Fixture,
    service: &str,
    handler: impl Fn(Origin, Request<Body>) -> R + Send + Sync + 'static,
) where
    R: Future<Output = Response<Body>> + Send + 'static,
{
    assert!(fixture.node.forward().serve(service, handler));
}

pub(crate) async fn ask(
    from: &Fixture,
    to: &str,
    service: &str,
    request: Request<Body>,
) -> Result<Response<Body>, ForwardError> {
    timeout(PATIENCE, from.node.forward().to(&name(to), service, request, LIMIT)).await.unwrap()
}

pub(crate) async fn text(answer: Response<Body>) -> String {
    let body = timeout(PATIENCE, answer.into_body().collect()).await.unwrap().unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(path).body(full("")).unwrap()
}

/// A body of what is sent into a channel, which takes one piece at a time.
pub(crate) fn body() -> (mpsc::Sender<Bytes>, Body) {
    let (send, receive) = mpsc::channel(1);
    let pieces = futures::stream::unfold(receive, async |mut receive: mpsc::Receiver<Bytes>| {
        receive.recv().await.map(|piece| (Ok::<_, Infallible>(Frame::data(piece)), receive))
    });
    (send, boxed(StreamBody::new(pieces)))
}

/// Sends pieces for as long as each is taken within this time, and counts them.
async fn pour(send: &mpsc::Sender<Bytes>, piece: usize, most: usize, within: Duration) -> usize {
    let piece = Bytes::from(vec![7; piece]);
    for number in 0..most {
        match timeout(within, send.send(piece.clone())).await {
            Ok(Ok(())) => {}
            _ => return number,
        }
    }
    most
}

/// Says when it is dropped.
pub(crate) struct Guard(pub(crate) Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_answered_at_another_site() {
    let (paris, rennes) = two().await;
    serve(&rennes, "echo", async |origin, request| {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let names: Vec<_> = parts.headers.keys().map(|name| name.as_str().to_owned()).collect();
        let seen = json!({
            "from": origin.site, "node": origin.node, "method": parts.method.as_str(), "uri": parts.uri.to_string(),
            "host": parts.headers["host"].to_str().unwrap(), "names": names, "body": String::from_utf8_lossy(&body),
        });
        let answer = Response::builder().status(StatusCode::IM_A_TEAPOT).header("x-answer", "1");
        answer.header("connection", "x-private").header("x-private", "1").body(full(seen.to_string())).unwrap()
    });
    assert!(!rennes.node.forward().serve("echo", async |_, _| Response::new(full(""))), "the name is taken");
    let request = Request::put("/a%20b?c=d").header("host", "image.example").header("authorization", "Bearer x");
    let request = request.header("connection", "keep-alive, x-hop").header("x-hop", "1").header("khufu-service", "no");
    let answer = ask(&paris, "rennes", "echo", request.body(full("hello")).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::IM_A_TEAPOT);
    assert!(answer.headers().contains_key("x-answer") && !answer.headers().contains_key("x-private"));
    let seen: serde_json::Value = serde_json::from_str(&text(answer).await).unwrap();
    assert_eq!(seen["from"], "paris");
    assert_eq!(seen["node"], json!(paris.node.id()));
    assert_eq!((&seen["method"], &seen["uri"]), (&json!("PUT"), &json!("/a%20b?c=d")));
    assert_eq!((&seen["host"], &seen["body"]), (&json!("image.example"), &json!("hello")));
    assert_eq!(seen["names"], json!(["host", "authorization", "content-length"]));
    // A node's own services as well.
    let answer = ask(&rennes, "rennes", "echo", Request::get("/").header("host", "x").body(full("")).unwrap()).await;
    assert!(text(answer.unwrap()).await.contains(r#""from":"rennes""#));
    let metrics = paris.api().get("/metrics").await.text;
    assert!(metrics.contains(r#"khufu_forwards_total{direction="out",outcome="answered"} 1"#), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn why_there_is_no_answer_is_said_with_the_name_of_the_site() {
    let (paris, rennes) = two().await;
    serve(&rennes, "slow", async |_, _| std::future::pending().await);
    let nobody = ask(&paris, "berlin", "slow", get("/")).await.unwrap_err();
    assert!(matches!(&nobody, ForwardError::Unreachable { site, .. } if site.as_str() == "berlin"), "{nobody}");
    let unknown = ask(&paris, "rennes", "other", get("/")).await.unwrap_err();
    assert_eq!(unknown, ForwardError::UnknownService { site: name("rennes"), service: "other".into() });
    let within = Duration::from_millis(300);
    let rennes = name("rennes");
    let late = paris.node.forward().to(&rennes, "slow", get("/"), within);
    let late = timeout(PATIENCE, late).await.unwrap().unwrap_err();
    assert_eq!(late, ForwardError::NoAnswer { site: rennes, after: within, sent: true });
    for (error, status, seen) in [(&nobody, 502, false), (&unknown, 502, false), (&late, 504, true)] {
        assert_eq!((error.status().as_u16(), error.may_have_been_seen()), (status, seen), "{error}");
        assert!(error.to_string().contains("berlin") || error.to_string().contains("rennes"), "{error}");
    }
    paris.api().put("/v1/faults", json!({"cut": ["rennes"]})).await;
    eventually("no connection is left", || async { paris.node.peers().await.is_empty() }).await;
    let cut = ask(&paris, "rennes", "slow", get("/")).await.unwrap_err();
    assert!(matches!(&cut, ForwardError::Unreachable { .. }) && cut.to_string().contains("rennes"), "{cut}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_both_ways_and_wait_for_their_readers() {
    let (paris, rennes) = two().await;
    // The answer is what comes, as it comes.
    serve(&rennes, "echo", async |_, request| Response::new(request.into_body()));
    let (send, sent) = body();
    let mut answer = ask(&paris, "rennes", "echo", Request::post("/").body(sent).unwrap()).await.unwrap();
    send.send(Bytes::from_static(b"begins before the other has ended")).await.unwrap();
    let first = timeout(PATIENCE, answer.body_mut().frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "begins before the other has ended");
    // Nobody reads the answer: what is on the way stays little, and whoever sends waits.
    const PIECE: usize = 64 << 10;
    let poured = pour(&send, PIECE, 1024, Duration::from_secs(1)).await;
    assert!(poured * PIECE <= 8 << 20, "{poured} pieces of {PIECE} bytes are on the way");
    // All of it comes in the end.
    let more = tokio::spawn(async move { pour(&send, PIECE, 64, PATIENCE).await });
    let mut bytes = 0;
    let mut rest = answer.into_body().into_data_stream();
    while let Some(piece) = timeout(PATIENCE, rest.next()).await.unwrap() {
        bytes += piece.unwrap().len();
    }
    assert_eq!(more.await.unwrap(), 64);
    // One piece was given up by whoever waited to send it.
    assert_eq!(bytes, (poured + 64) * PIECE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_in_the_middle_of_a_body_is_an_error_and_no_end() {
    let (paris, rennes) = two().await;
    let ended = Arc::new(AtomicBool::new(false));
    let of_handler = ended.clone();
    serve(&rennes, "endless", move |_, _| {
        let guard = Guard(of_handler.clone());
        async move {
            let pieces = futures::stream::unfold(guard, async |guard| {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"more"))), guard))
            });
            Response::new(boxed(StreamBody::new(pieces)))
        }
    });
    let answer = ask(&paris, "rennes", "endless", get("/")).await.unwrap();
    let mut pieces = answer.into_body().into_data_stream();
    timeout(PATIENCE, pieces.next()).await.unwrap().unwrap().unwrap();
    paris.api().put("/v1/faults", json!({"cut": ["rennes"]})).await;
    let error = async {
        loop {
            match pieces.next().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error,
                None => panic!("it looks as if all had come"),
            }
        }
    };
    timeout(PATIENCE, error).await.unwrap();
    eventually("the other site stops, too", || async { ended.load(Ordering::SeqCst) }).await;
    // After the cut, it goes on as before.
    paris.api().put("/v1/faults", json!({})).await;
    eventually("they are connected again", || async { !paris.node.peers().await.is_empty() }).await;
    assert!(ask(&paris, "rennes", "endless", get("/")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_away_ends_the_work_at_the_other_site() {
    let (paris, rennes) = two().await;
    let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (of_handler, guard) = (begun.clone(), ended.clone());
    serve(&rennes, "work", move |_, _| {
        of_handler.fetch_add(1, Ordering::SeqCst);
        let guard = Guard(guard.clone());
        async move {
            std::future::pending::<()>().await;
            drop(guard);
            Response::new(full(""))
        }
    });
    let forward = paris.node.forward().clone();
    let asking = tokio::spawn(async move { forward.to(&name("rennes"), "work", get("/"), LIMIT).await.map(drop) });
    eventually("the work has begun", || async { begun.load(Ordering::SeqCst) == 1 }).await;
    assert!(!ended.load(Ordering::SeqCst));
    asking.abort();
    eventually("the work has ended", || async { ended.load(Ordering::SeqCst) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_the_key_and_no_site_is_not_served() {
    let psk = Psk::generate();
    let paris = site("paris", psk, &[], |builder| builder).await;
    serve(&paris, "secret", async |_, _| Response::new(full("secret")));
    let bootstrap = paris.node.addresses();
    let config = Config { psk: Some(psk), bootstrap, ..Config::fast(Identity::generate()) };
    let (stranger, mut events) = Network::start(config).unwrap();
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    let to = paris.node.id().to_string();
    eventually("the stranger is connected", || async { stranger.is_up(&to) }).await;
    let mut stream = timeout(PATIENCE, stranger.open_stream(&to)).await.unwrap().unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nkhufu-service: secret\r\n\r\n").await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = vec![0; 12];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, b"HTTP/1.1 403");
    // One answer, and no more.
    timeout(Duration::from_secs(5), stream.read_to_end(&mut Vec::new())).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_nodes_of_a_site_one_that_is_up_is_asked() {
    let psk = Psk::generate();
    let paris = site("paris", psk, &[], |builder| builder).await;
    let bootstrap = paris.node.addresses();
    let one = site("rennes", psk, &bootstrap, |builder| builder).await;
    let other = site("rennes", psk, &bootstrap, |builder| builder).await;
    for (fixture, text) in [(&one, "one"), (&other, "other")] {
        serve(fixture, "who", move |_, _| async move { Response::new(full(text)) });
    }
    paris.api().until("/v1/sites", |answer| alive(answer, "rennes")).await;
    eventually("both are connected", || async { paris.node.peers().await.len() == 2 }).await;
    let first = text(ask(&paris, "rennes", "who", get("/")).await.unwrap()).await;
    let (gone, left) = if first == "one" { (one, "other") } else { (other, "one") };
    gone.node.shutdown().await;
    eventually("it is gone", || async { paris.node.peers().await.len() == 1 }).await;
    assert_eq!(text(ask(&paris, "rennes", "who", get("/")).await.unwrap()).await, left);
}
