//! The front of an HTTP service: small requests to the service itself, through the front, and on to the service of another
//! site; and how fast a long body comes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Instant;

use futures::StreamExt as _;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::Options;
use crate::http::Client;
use crate::network::Network;
use crate::table::{Goal, Table};

/// A long body: so many pieces of so many bytes.
const PIECES: usize = 1024;
const PIECE: usize = 64 << 10;

/// The service, in this process: the nodes are what is measured.
async fn service() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).expect("a socket");
            let answer = service_fn(|request: Request<hyper::body::Incoming>| async move {
                Ok::<_, Infallible>(Response::new(if request.uri().path() == "/long" {
                    let piece = Bytes::from_static(&[7; PIECE]);
                    let pieces = (0..PIECES).map(move |_| Ok::<_, Infallible>(Frame::data(piece.clone())));
                    BodyExt::boxed(StreamBody::new(futures::stream::iter(pieces)))
                } else {
                    BodyExt::boxed(Full::new(Bytes::from_static(&[7; 200])))
                }))
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    address
}

/// How long each of so many requests took, one after the other over one connection, in milliseconds.
async fn times(client: &mut Client, path: &str, count: usize) -> Vec<f64> {
    let mut times = Vec::new();
    for _ in 0..count {
        let started = Instant::now();
        client.ask("GET", path, "").await;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times
}

/// Megabytes a second of a long body.
async fn speed(client: &mut Client, path: &str) -> f64 {
    let started = Instant::now();
    let mut body = client.send("GET", path, "").await.into_body().into_data_stream();
    let mut bytes = 0;
    while let Some(piece) = body.next().await {
        bytes += piece.expect("all of it").len();
    }
    assert_eq!(bytes, PIECES * PIECE, "{path}");
    bytes as f64 / 1e6 / started.elapsed().as_secs_f64()
}

pub(crate) async fn run(options: &Options, table: &mut Table) {
    table.begin("front");
    let address = service().await;
    let arguments = ["--http-front", &format!("notes=127.0.0.1:0,http://{address}")].map(str::to_owned).to_vec();
    let network = Network::start_with(options, vec![arguments; 2]).await;
    let front = network.sites[0].http_front.clone().expect("it has a front");
    let (mut direct, mut through) = (Client::new(&address.to_string()).await, Client::new(&front).await);
    let count = options.edits.min(5_000);
    let there = "/scope/site1/x";
    times(&mut direct, "/x", 100).await;
    times(&mut through, "/x", 100).await;
    times(&mut through, there, 100).await;
    // In turns, so that all have the same machine.
    let (mut plain, mut passed, mut forwarded) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..10 {
        plain.extend(times(&mut direct, "/x", count / 10).await);
        passed.extend(times(&mut through, "/x", count / 10).await);
        forwarded.extend(times(&mut through, there, count / 10).await);
    }
    let more = |with: &[f64]| with.iter().zip(&plain).map(|(with, plain)| with - plain).collect::<Vec<_>>();
    let (passing, forwarding) = (more(&passed), more(&forwarded));
    table.add("a small request to the service itself", "ms", Goal::None, plain);
    table.add("the same through the front", "ms", Goal::None, passed);
    table.add("... more than without it", "ms", Goal::Below(1.0), passing);
    table.add("the same to another site", "ms", Goal::None, forwarded);
    table.add("... more than without it (no distance between them)", "ms", Goal::Below(2.0), forwarding);
    let speeds = [
        ("a body of 64 MiB from the service itself", speed(&mut direct, "/long").await),
        ("the same through the front", speed(&mut through, "/long").await),
        ("the same from another site", speed(&mut through, "/scope/site1/long").await),
    ];
    for (what, speed) in speeds {
        table.add(what, "MB/s", Goal::None, vec![speed]);
    }
}
