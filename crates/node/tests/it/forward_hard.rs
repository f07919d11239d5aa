//! HTTP requests between sites, where something is not as it mostly is.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use khufu_node::{Body, boxed, full};
use khufu_p2p::Psk;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use crate::client::{PATIENCE, eventually};
use crate::forward::{Guard, ask, body, get, name, serve, text};
use crate::sites::{alive, site, two};

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_does_not_look_whole_whatever_the_version() {
    let (paris, rennes) = two().await;
    serve(&rennes, "old", async |_, _| {
        let pieces = [Ok(Frame::data(Bytes::from_static(b"half"))), Err(io::Error::other("the backend has gone"))];
        let mut answer = Response::new(boxed(StreamBody::new(futures::stream::iter(pieces))));
        *answer.version_mut() = Version::HTTP_10;
        answer
    });
    let answer = ask(&paris, "rennes", "old", get("/")).await;
    let broken = match answer {
        Ok(answer) => timeout(PATIENCE, answer.into_body().collect()).await.unwrap().is_err(),
        Err(_) => true,
    };
    assert!(broken, "half of it was taken for all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_does_not_read_ends_with_the_connection() {
    let (paris, rennes) = two().await;
    let (begun, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (of_handler, guard) = (begun.clone(), ended.clone());
    serve(&rennes, "stuck", move |_, request| {
        of_handler.store(true, Ordering::SeqCst);
        let guard = Guard(guard.clone());
        async move {
            let _kept = (guard, request);
            std::future::pending::<Response<Body>>().await
        }
    });
    let (send, sent) = body();
    let forward = paris.node.forward().clone();
    let asking = tokio::spawn(async move {
        let request = Request::post("/").body(sent).unwrap();
        forward.to(&name("rennes"), "stuck", request, PATIENCE).await.map(drop)
    });
    for _ in 0..2 {
        send.send(Bytes::from(vec![7; 32 << 10])).await.unwrap();
    }
    eventually("the work has begun", || async { begun.load(Ordering::SeqCst) }).await;
    // The HTTP server has something to hand on, so it does not look at the connection.
    sleep(Duration::from_millis(300)).await;
    paris.api().put("/v1/faults", json!({"cut": ["rennes"]})).await;
    eventually("the work has ended", || async { ended.load(Ordering::SeqCst) }).await;
    asking.await.unwrap().unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn also_the_body_of_a_get_comes_there() {
    let (paris, rennes) = two().await;
    for fixture in [&paris, &rennes] {
        serve(fixture, "echo", async |_, request| Response::new(request.into_body()));
    }
    for to in ["rennes", "paris"] {
        let (send, sent) = body();
        tokio::spawn(async move { send.send(Bytes::from_static(b"search for this")).await });
        let answer = ask(&paris, to, "echo", Request::get("/").body(sent).unwrap()).await.unwrap();
        assert_eq!(text(answer).await, "search for this", "{to}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_becomes_another_protocol_here_and_there() {
    let (paris, rennes) = two().await;
    for fixture in [&paris, &rennes] {
        serve(fixture, "shout", async |_, mut request| {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgrade.await.unwrap());
                let mut word = [0; 4];
                stream.read_exact(&mut word).await.unwrap();
                word.make_ascii_uppercase();
                stream.write_all(&word).await.unwrap();
                stream.shutdown().await.unwrap();
            });
            let answer = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
            answer.header("connection", "upgrade").header("upgrade", "shout").body(full("")).unwrap()
        });
    }
    for to in ["rennes", "paris"] {
        let request = Request::get("/").header("connection", "upgrade").header("upgrade", "shout");
        let mut answer = ask(&paris, to, "shout", request.body(full("")).unwrap()).await.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.headers()["upgrade"]), (101, &"shout".parse().unwrap()), "{to}");
        let mut stream = TokioIo::new(timeout(PATIENCE, hyper::upgrade::on(&mut answer)).await.unwrap().unwrap());
        stream.write_all(b"word").await.unwrap();
        stream.flush().await.unwrap();
        let mut back = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut back)).await.unwrap().unwrap();
        assert_eq!(back, b"WORD", "{to}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_is_asked_itself_as_another_is() {
    let (paris, _rennes) = two().await;
    serve(&paris, "headers", async |_, request: Request<Body>| {
        let leaked = request.headers().contains_key("khufu-service");
        let answer =
            Response::builder().header("khufu-refused", "no").header("connection", "x-hop").header("x-hop", "1");
        answer.body(full(leaked.to_string())).unwrap()
    });
    serve(&paris, "slow", async |_, _| std::future::pending().await);
    let answer = ask(&paris, "paris", "headers", get("/")).await.unwrap();
    assert!(!answer.headers().contains_key("khufu-refused") && !answer.headers().contains_key("x-hop"));
    assert_eq!(text(answer).await, "false");
    let site = name("paris");
    let late = paris.node.forward().to(&site, "slow", get("/"), Duration::from_millis(300));
    let late = timeout(PATIENCE, late).await.unwrap().unwrap_err();
    assert!(late.may_have_been_seen() && late.status() == StatusCode::GATEWAY_TIMEOUT, "{late}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_of_whoever_sends_is_none_of_the_site() {
    let (paris, rennes) = two().await;
    serve(&rennes, "echo", async |_, request| {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(full(body))
    });
    let (send, sent) = body();
    tokio::spawn(async move {
        for piece in ["one", "two"] {
            send.send(Bytes::from_static(piece.as_bytes())).await.unwrap();
            sleep(Duration::from_secs(3)).await;
        }
    });
    let within = Duration::from_secs(1);
    let site = name("rennes");
    let asked = paris.node.forward().to(&site, "echo", Request::post("/").body(sent).unwrap(), within);
    let answer = timeout(PATIENCE, asked).await.unwrap().unwrap();
    assert_eq!(text(answer).await, "onetwo");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_nodes_the_one_that_serves_it_answers_also_at_the_own_site() {
    let psk = Psk::generate();
    let paris = site("paris", psk, &[], |builder| builder).await;
    let bootstrap = paris.node.addresses();
    let one = site("rennes", psk, &bootstrap, |builder| builder).await;
    let other = site("rennes", psk, &bootstrap, |builder| builder).await;
    serve(&one, "a", async |_, _| Response::new(full("one")));
    serve(&other, "b", async |_, _| Response::new(full("other")));
    paris.api().until("/v1/sites", |answer| alive(answer, "rennes")).await;
    for (from, to) in [(&paris, 2), (&one, 2), (&other, 2)] {
        eventually("they are connected", || async { from.node.peers().await.len() == to }).await;
    }
    for from in [&paris, &one, &other] {
        for (service, text_of) in [("a", "one"), ("b", "other")] {
            let answered = || async {
                match ask(from, "rennes", service, get("/")).await {
                    Ok(answer) => text(answer).await == text_of,
                    Err(error) => {
                        assert!(!error.may_have_been_seen(), "{error}");
                        false
                    }
                }
            };
            // Records take a moment to go round.
            eventually("it is answered", answered).await;
        }
    }
    let nobody = ask(&paris, "rennes", "c", get("/")).await.unwrap_err();
    assert!(matches!(nobody, khufu_node::ForwardError::UnknownService { .. }), "{nobody}");
}
