//! What is not meant for a front, or is no request at all; and what only passes through.

use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::ops::Range;
use std::process::Stdio;
use std::sync::Arc;

use khufu_test_servers::kubernetes::{ADMIN, Builder, Cluster};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::{Desk, text, through};
use crate::support::{Lab, PATIENCE, Site, until};

async fn tcp(site: &Site) -> TcpStream {
    tcp_from(site, Ipv4Addr::LOCALHOST).await
}

/// From one of the addresses of this machine.
async fn tcp_from(site: &Site, address: Ipv4Addr) -> TcpStream {
    let (front, _) = site.front();
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((address, 0).into()).expect("a free port");
    let front = front.trim_start_matches("https://").parse().expect("an address");
    socket.connect(front).await.expect("it listens")
}

pub(super) async fn tls(site: &Site) -> TlsStream<TcpStream> {
    tls_from(site, Ipv4Addr::LOCALHOST).await
}

async fn tls_from(site: &Site, address: Ipv4Addr) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(site.front().1).expect("a certificate")).expect("an authority");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp_from(site, address).await)
        .await
        .expect("its certificate is good")
}

/// Sends this, and reads until the connection is closed or so much has come.
pub(super) async fn said(site: &Site, text: &[u8], most: usize) -> String {
    let mut stream = tls(site).await;
    // It may be closed before all was sent.
    let _ = stream.write_all(text).await;
    let _ = stream.flush().await;
    let mut answer = Vec::new();
    let read = async {
        let mut buffer = [0; 4096];
        while answer.len() < most {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(read) => answer.extend_from_slice(&buffer[..read]),
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("it answers or closes");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_stops_nothing_and_streams_and_other_protocols_pass() {
    let Some([cluster]) = Builder::start_all([Cluster::builder("paris")]) else { return };
    let lab = Lab::new();
    let driver = format!("kubernetes={}", cluster.kubeconfig(ADMIN).display());
    let site = lab.site("paris").arguments(&["--driver", &driver, "--kubernetes-front", "127.0.0.1:0"]).start().await;
    let desk = Desk { cluster: &cluster, site: &site };
    let token = cluster.admin_token().to_owned();

    // No TLS, a handshake that never ends, headers and bodies without an end, paths that are none.
    let mut silent = Vec::new();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 2, 0, 1, 0][..], &[0; 100_000][..]] {
        let mut stream = tcp(&site).await;
        let _ = stream.write_all(garbage).await;
        silent.push(stream);
    }
    let huge = format!("GET /api HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(200_000));
    let answer = said(&site, huge.as_bytes(), 16).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    let begin = "POST /scope/all/api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let answer = said(&site, format!("{begin}Content-Length: 100000000\r\n\r\n{{").as_bytes(), 16).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let chunk = format!("{:x}\r\n{}\r\n", 4 << 20, "x".repeat(4 << 20));
    let answer = said(&site, format!("{begin}Transfer-Encoding: chunked\r\n\r\n{chunk}").as_bytes(), 16).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");
    for path in [
        "*",
        "http://[",
        "/scope/%ff%fe/api/v1/pods",
        "/api/v1/namespaces/%2e%2e/configmaps/x",
        "/scope//api/v1/pods",
        "/api/v1/namespaces/default/configmaps/kube-root-ca.crt%2Fx",
        "/api/v1/namespaces/default/configmaps/",
        "//api/v1/pods",
    ] {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n");
        let answer = said(&site, request.as_bytes(), 16).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{path}: {answer}");
    }
    let deep = "[".repeat(100_000);
    let length = deep.len();
    let answer = said(
        &site,
        format!("{begin}Connection: close\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n{deep}")
            .as_bytes(),
        16,
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let apply = "PATCH /scope/all/api/v1/namespaces/default/configmaps/x?fieldManager=x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                 Content-Type: application/apply-patch+yaml\r\n";
    let nested = (0..20_000).map(|depth| format!("{}- \n", " ".repeat(depth % 100))).collect::<String>();
    let bomb =
        (1..40).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| format!("{text}a{n}: &a{n} [*a{0}, *a{0}]\n", n - 1));
    for text in [deep, "{a: ".repeat(50_000), nested, bomb] {
        let length = text.len();
        let request = format!("{apply}Authorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n{text}");
        let answer = said(&site, request.as_bytes(), 16).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    // Whoever is nobody cannot keep others from writing with what never comes in: not from one address, and not from many.
    let slow = format!("{begin}Content-Length: 1000\r\n\r\n{{");
    let unknown = format!("{begin}Authorization: Bearer nobody\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n");
    let (told, mut codes) = mpsc::unbounded_channel();
    let mut open = async |from: Range<u8>, each: usize, refused: usize| {
        for number in from.flat_map(|network| std::iter::repeat_n(network, each)).enumerate() {
            let (number, network) = number;
            let mut stream = tls_from(&site, Ipv4Addr::new(127, 0, 0, network)).await;
            stream.write_all(if number % 2 == 0 { &slow } else { &unknown }.as_bytes()).await.expect("it is sent");
            let told = told.clone();
            tokio::spawn(async move {
                let mut answer = [0; 12];
                let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await;
                let code = read.map(|read| read.map(|_| text(&answer[9..])));
                let _ = told.send(format!("{code:?}"));
            });
        }
        for _ in 0..refused {
            assert_eq!(codes.recv().await.expect("it is told"), "Ok(Ok(\"429\"))");
        }
    };
    open(1..2, 10, 6).await;
    open(2..12, 5, 22).await;
    desk.scoped("/scope/paris", &["create", "configmap", "meanwhile"], None);
    for _ in 0..32 {
        assert_eq!(codes.recv().await.expect("it is told"), "Ok(Ok(\"408\"))", "it does not wait for ever");
    }
    // Nor is there room for any number of those who are known, and may send as much as they like: they wait, and are told.
    let known = format!("{begin}Authorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n");
    let mut reads = JoinSet::new();
    for _ in 0..43 {
        let mut stream = tls(&site).await;
        stream.write_all(known.as_bytes()).await.expect("it is sent");
        reads.spawn(async move {
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.map(|_| text(&answer[9..]))
        });
    }
    let first = tokio::time::timeout(PATIENCE, reads.join_next()).await.expect("it is told").expect("there are some");
    assert_eq!(first.expect("it ends").expect("it is answered"), "429");
    desk.scoped("/scope/paris", &["create", "configmap", "small"], None);
    drop(reads);
    // Who says nothing of himself is nobody: the node's own rights are not his.
    let answer = said(&site, b"GET /api/v1/secrets HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 16).await;
    assert!(answer.starts_with("HTTP/1.1 40"), "{answer}");

    // A watch tells what happens when it happens.
    let (front, authority) = site.front();
    let mut watch = cluster.kubectl_command(ADMIN);
    watch.args([&format!("--server={front}"), &format!("--certificate-authority={}", authority.display())]);
    watch.args(["get", "configmaps", "--watch", "--output=name"]).stdout(Stdio::piped());
    let mut watch = watch.spawn().expect("kubectl starts");
    let out = watch.stdout.take().expect("it is piped");
    let (send, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || BufReader::new(out).lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
    for number in 0..3 {
        let name = format!("watched-{number}");
        desk.scoped("/scope/paris", &["create", "configmap", &name], None);
        until("it is told", || async {
            match lines.try_iter().any(|line| line == format!("configmap/{name}")) {
                true => Ok(()),
                false => Err("silence".to_owned()),
            }
        })
        .await;
    }
    watch.kill().expect("it runs");
    watch.wait().expect("it ends");

    // A connection that becomes another protocol: a watch over a WebSocket.
    let upgrade = format!(
        "GET /scope/paris/api/v1/namespaces/default/configmaps?watch=true HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\n\
         Authorization: Bearer {token}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let mut socket = tls(&site).await;
    socket.write_all(upgrade.as_bytes()).await.expect("it is sent");
    let mut heard = Vec::new();
    let listen = async {
        while !String::from_utf8_lossy(&heard).contains("watched-2") {
            let read = socket.read_buf(&mut heard).await.expect("it goes on");
            assert!(read > 0, "it ended: {}", String::from_utf8_lossy(&heard));
        }
    };
    tokio::time::timeout(PATIENCE, listen).await.expect("all is told");
    assert!(heard.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&heard));

    // The server is away, and back: that is said, and the front is as before.
    drop((silent, socket));
    assert_eq!(desk.kubectl(&["get", "configmap", "watched-1", "--output=name"], None).trim(), "configmap/watched-1");
    let mut cluster = cluster;
    cluster.kill();
    let away = through(&cluster, &site, ADMIN, "", &["get", "configmaps", "--request-timeout=5s"], None);
    assert!(!away.status.success());
    cluster.move_to_another_port();
    until("it is found where it is now", || async {
        let made = through(&cluster, &site, ADMIN, "/scope/paris", &["create", "configmap", "again"], None);
        if made.status.success() { Ok(()) } else { Err(format!("{made:?}")) }
    })
    .await;
    // A node with watches under way stops in order.
    let mut watch = tls(&site).await;
    let request =
        format!("GET /api/v1/configmaps?watch=True HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    watch.write_all(request.as_bytes()).await.expect("it is sent");
    let mut heard = Vec::new();
    while !heard.contains(&b'{') {
        let read = tokio::time::timeout(PATIENCE, watch.read_buf(&mut heard)).await.expect("it is told");
        assert!(read.expect("it goes on") > 0, "it ended: {}", String::from_utf8_lossy(&heard));
    }
    assert!(heard.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&heard));
    site.terminate().await;
    let end = async { while watch.read_buf(&mut heard).await.is_ok_and(|read| read > 0) {} };
    tokio::time::timeout(PATIENCE, end).await.expect("it ends with the node");
}
