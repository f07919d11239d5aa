//! Connections that become another protocol, as those of `kubectl exec` and `port-forward` do: through a real API server to
//! what it takes for a kubelet.

use std::sync::Arc;

use khufu_test_servers::kubernetes::{ADMIN, Builder, Cluster};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::rough::tls;
use super::{Desk, one};
use crate::support::{Lab, PATIENCE};

/// What goes each way: more than all buffers on the way hold.
const BYTES: usize = 32 << 20;
/// What ends what is sent back.
const BYE: &[u8] = b"bye";

/// Reads the head of a request or answer.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("it goes on").expect("it is not over"));
    }
    String::from_utf8(head).expect("it is text")
}

/// Some bytes, none of which is where another could be.
fn byte(at: usize) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}

/// Sends and reads so many of them.
async fn send(stream: &mut (impl AsyncWrite + Unpin)) {
    let mut at = 0;
    while at < BYTES {
        let part: Vec<u8> = (at..BYTES.min(at + (64 << 10))).map(byte).collect();
        stream.write_all(&part).await.expect("it is taken");
        at += part.len();
    }
    stream.flush().await.expect("it is taken");
}

async fn receive(stream: &mut (impl AsyncRead + Unpin)) {
    let (mut at, mut buffer) = (0, vec![0; 64 << 10]);
    while at < BYTES {
        let most = buffer.len().min(BYTES - at);
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer[..most])).await.expect("it goes on");
        let read = read.expect("it is not broken");
        assert!(read > 0, "it ended after {at} bytes");
        assert!(
            buffer[..read].iter().enumerate().all(|(more, is)| *is == byte(at + more)),
            "other bytes than were sent"
        );
        at += read;
    }
}

async fn ends(stream: &mut (impl AsyncRead + Unpin)) {
    let rest = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 1])).await.expect("it is told of the end");
    assert!(matches!(rest, Ok(0) | Err(_)), "{rest:?}");
}

/// What the API server takes for a kubelet: it sends and reads at once, and then one of the two ends it. Tells how each
/// connection has ended.
async fn kubelet(listener: TcpListener, told: mpsc::UnboundedSender<&'static str>) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("it is good");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, told) = (acceptor.clone(), told.clone());
        tokio::spawn(async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let asked = head(&mut stream).await;
            assert!(asked.to_lowercase().contains("upgrade: both-ways"), "{asked}");
            let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: both-ways\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.expect("it is taken");
            let (mut read, mut write) = tokio::io::split(stream);
            if asked.starts_with("GET /stays ") {
                return ends(&mut read).await;
            }
            tokio::join!(send(&mut write), receive(&mut read));
            if asked.starts_with("GET /ends-it ") {
                write.write_all(BYE).await.expect("it is taken");
                write.shutdown().await.expect("it is taken");
                told.send("ended").expect("the test waits");
            } else {
                ends(&mut read).await;
                told.send("told of the end").expect("the test waits");
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_becomes_another_protocol_carries_all_both_ways_until_either_end_has_enough() {
    let Some([cluster]) = Builder::start_all([Cluster::builder("paris").user("eve", &[])]) else { return };
    let lab = Lab::new();
    let site = one(&lab, &cluster).await;
    let desk = Desk { cluster: &cluster, site: &site };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("it has one").port();
    let (told, mut ends_of) = mpsc::unbounded_channel();
    tokio::spawn(kubelet(listener, told));
    let addresses = json!([{"type": "InternalIP", "address": "127.0.0.1"}]);
    let status = json!({"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "edge"}, "status": status});
    desk.kubectl(&["create", "-f", "-"], Some(&node.to_string()));

    let ask = |prefix: &str, path: &str, user: &str| {
        format!(
            "GET {prefix}/api/v1/nodes/edge/proxy{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
             Connection: Upgrade\r\nUpgrade: both-ways\r\n\r\n",
            cluster.token(user)
        )
    };
    // Whoever may not is told so in words, and nothing is opened.
    let mut stream = tls(&site).await;
    stream.write_all(ask("", "/ends-it", "eve").as_bytes()).await.expect("it is sent");
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 403"));

    for (prefix, path) in [("", "/ends-it"), ("/scope/paris", "/ends-it"), ("", "/waits"), ("/scope/paris", "/waits")] {
        let mut stream = tls(&site).await;
        stream.write_all(ask(prefix, path, ADMIN).as_bytes()).await.expect("it is sent");
        let answer = head(&mut stream).await.to_lowercase();
        assert!(answer.starts_with("http/1.1 101") && answer.contains("upgrade: both-ways"), "{answer}");
        let (mut read, mut write) = tokio::io::split(stream);
        tokio::join!(send(&mut write), receive(&mut read));
        if path == "/ends-it" {
            let mut last = vec![0; BYE.len()];
            tokio::time::timeout(PATIENCE, read.read_exact(&mut last)).await.expect("it goes on").expect("all comes");
            assert_eq!(last, BYE);
            ends(&mut read).await;
        } else {
            write.shutdown().await.expect("it is taken");
        }
        let how = tokio::time::timeout(PATIENCE, ends_of.recv()).await.expect("the other end is told");
        assert_eq!(how, Some(if path == "/ends-it" { "ended" } else { "told of the end" }));
    }
    // One that is open when the node stops ends.
    let mut stream = tls(&site).await;
    stream.write_all(ask("", "/stays", ADMIN).as_bytes()).await.expect("it is sent");
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 101"));
    site.terminate().await;
    ends(&mut stream).await;
}
