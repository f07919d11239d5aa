//! Stands between a node and its API server, and does to what a client writes there what a test says.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use khufu_test_servers::kubernetes::Cluster;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::Lab;

type AnyError = Box<dyn Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What happens to one request.
#[derive(Debug)]
pub(super) enum Fate {
    /// It is not passed on, and answered with this status.
    Refused(u16),
    /// It is passed on, and the answer is lost with the connection.
    Unanswered,
    /// It is told of, and passed on when that is said.
    Held(oneshot::Sender<()>, oneshot::Receiver<()>),
}

/// Which request that is: the next one of these clients that has all of this in its first line and its type.
#[derive(Debug)]
struct Rule {
    method: Method,
    has: &'static [&'static str],
    has_not: &'static str,
    fate: Fate,
}

#[derive(Debug)]
struct Inner {
    upstream: String,
    authority: String,
    clients: Vec<String>,
    rule: Mutex<Option<Rule>>,
}

/// The other end of what the node takes for its API server.
#[derive(Debug, Clone)]
pub(super) struct Between {
    inner: Arc<Inner>,
    /// For the node, with the rights of its user.
    pub(super) kubeconfig: PathBuf,
}

fn boxed<B>(body: B) -> Body
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Error + Send + Sync + 'static,
{
    body.map_err(io::Error::other).boxed_unsync()
}

impl Between {
    /// Begins to stand between a node, with the rights of one user, and an API server to which others write.
    pub(super) async fn start(lab: &Lab, cluster: &Cluster, node: &str, clients: &[&str]) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it has one");
        let own = lab.path().join("between.crt");
        std::fs::write(&own, cert.pem()).expect("a file");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "between",
            "clusters": [{"name": "between", "cluster": {"server": format!("https://{address}"), "certificate-authority": own}}],
            "users": [{"name": "node", "user": {"token": cluster.token(node)}}],
            "contexts": [{"name": "between", "context": {"cluster": "between", "user": "node"}}],
        });
        let kubeconfig = lab.path().join("between.kubeconfig");
        std::fs::write(&kubeconfig, config.to_string()).expect("a file");
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .expect("it is good");
        let inner = Arc::new(Inner {
            upstream: cluster.url().trim_start_matches("https://").to_owned(),
            authority: cluster.ca_pem().to_owned(),
            clients: clients.iter().map(|client| format!("Bearer {}", cluster.token(client))).collect(),
            rule: Mutex::default(),
        });
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), inner.clone()));
        Self { inner, kubeconfig }
    }

    /// Says what happens to the next request of the clients that has all this, and not that.
    pub(super) fn next(&self, method: Method, has: &'static [&'static str], has_not: &'static str, fate: Fate) {
        *self.inner.rule.lock().expect("nobody panics") = Some(Rule { method, has, has_not, fate });
    }

    /// Holds it. What is given first is told when it has come, and says with the second that it is passed on.
    pub(super) fn hold(
        &self,
        method: Method,
        has: &'static [&'static str],
        has_not: &'static str,
    ) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        let ((told, comes), (go, wait)) = (oneshot::channel(), oneshot::channel());
        self.next(method, has, has_not, Fate::Held(told, wait));
        (comes, go)
    }

    /// Whether what was said has happened.
    pub(super) fn has_happened(&self) -> bool {
        self.inner.rule.lock().expect("nobody panics").is_none()
    }
}

impl Inner {
    /// What happens to a request, if it is the one.
    fn fate(&self, request: &Request<Incoming>) -> Option<Fate> {
        let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let whole = format!("{} {}", request.uri(), text(header::CONTENT_TYPE));
        let is = |rule: &Rule| {
            *request.method() == rule.method
                && self.clients.iter().any(|client| client == text(header::AUTHORIZATION))
                && rule.has.iter().all(|has| whole.contains(has))
                && (rule.has_not.is_empty() || !whole.contains(rule.has_not))
        };
        let mut rule = self.rule.lock().expect("nobody panics");
        if rule.as_ref().is_some_and(is) { rule.take().map(|rule| rule.fate) } else { None }
    }

    async fn pass(&self, request: Request<Incoming>) -> Result<Response<Body>, AnyError> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes())?)?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(&self.upstream).await?;
        let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("127.0.0.1")?, stream).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?.map(boxed))
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, AnyError> {
        match self.fate(&request) {
            None => self.pass(request).await,
            Some(Fate::Unanswered) => {
                let answer = self.pass(request).await?;
                let (parts, body) = answer.into_parts();
                body.collect().await?;
                Err(format!("{} is lost", parts.status).into())
            }
            Some(Fate::Held(told, wait)) => {
                told.send(()).map_err(|()| "the test waits")?;
                let _ = wait.await;
                self.pass(request).await
            }
            Some(Fate::Refused(code)) => {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                    "reason": "Unknown", "message": "refused on the way"});
                let body = boxed(Full::new(Bytes::from(status.to_string())));
                let answer = Response::builder().status(code).header(header::CONTENT_TYPE, "application/json");
                Ok(answer.body(body)?)
            }
        }
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, inner: Arc<Inner>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, inner) = (acceptor.clone(), inner.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| {
                let inner = inner.clone();
                let answer: BoxFuture<'static, _> =
                    Box::pin(async move { inner.answer(request).await.map_err(io::Error::other) });
                answer
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
