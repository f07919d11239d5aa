//! An API server that is made up, for what a real one does too seldom or too slowly.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// What it says: a code and a body, after a while; nothing, where the connection is closed instead.
pub(super) struct Answer {
    pub(super) after: Duration,
    pub(super) said: Option<(u16, Value)>,
}

impl From<(u16, Value)> for Answer {
    fn from(said: (u16, Value)) -> Self {
        Self { after: Duration::ZERO, said: Some(said) }
    }
}

/// What it is asked.
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    /// The headers, with their names in small letters.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

type Answers = dyn Fn(Asked) -> BoxFuture<'static, Answer> + Send + Sync;

async fn serve(answers: Arc<Answers>, stream: TcpStream) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    // Whoever is gone needs no answer.
    if stream.read_line(&mut line).await.is_err() || line.is_empty() {
        return;
    }
    let (mut headers, mut header) = (BTreeMap::new(), String::new());
    while stream.read_line(&mut header).await.unwrap_or(0) > 2 {
        let (name, value) = header.split_once(':').unwrap();
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        header.clear();
    }
    let length = headers.get("content-length").map_or(0, |bytes| bytes.parse().unwrap());
    let mut body = vec![0; length];
    let _ = stream.read_exact(&mut body).await;
    let mut words = line.split(' ');
    let (method, url) = (words.next().unwrap(), words.next().unwrap());
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let [method, path, query] = [method, path.trim_end_matches('/'), query].map(str::to_owned);
    let Answer { after, said } = answers(Asked { method, path, query, headers, body }).await;
    tokio::time::sleep(after).await;
    let Some((code, value)) = said else { return };
    let body = value.to_string();
    let head = format!("HTTP/1.1 {code} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    let _ = stream.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes()).await;
}

/// Starts one that answers by the method, the path and the query alone.
pub(super) async fn server(
    answers: impl Fn(&str, &str, &str) -> Answer + Send + Sync + 'static,
) -> (tempfile::TempDir, std::path::PathBuf) {
    asked(move |asked| {
        let answer = answers(&asked.method, &asked.path, &asked.query);
        Box::pin(async { answer })
    })
    .await
}

/// Starts one that ends with the test, and writes in a folder how it is reached.
pub(super) async fn asked(
    answers: impl Fn(Asked) -> BoxFuture<'static, Answer> + Send + Sync + 'static,
) -> (tempfile::TempDir, std::path::PathBuf) {
    let answers: Arc<Answers> = Arc::new(answers);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(answers.clone(), stream));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig");
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": url}}], "users": [{"name": "it", "user": {}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}]});
    std::fs::write(&path, config.to_string()).unwrap();
    (folder, path)
}

/// A kind as a server says that it has it.
pub(super) fn resource(name: &str, kind: &str, namespaced: bool) -> Value {
    json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs":
        ["get", "list", "create", "patch", "delete"]})
}

pub(super) fn web() -> Replica {
    Replica::new("web".parse().unwrap(), "paris".parse().unwrap())
}
