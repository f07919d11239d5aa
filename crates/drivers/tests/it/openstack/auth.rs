//! Who asks.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::PrivatePkcs8KeyDer;

use super::*;

async fn works(driver: &OpenStackDriver, id: &str) {
    let mut replica = replica(id);
    made(driver, &mut replica, &image(id)).await;
    driver.delete(&replica).await.unwrap();
}

#[tokio::test]
async fn application_credentials_and_tokens_do_as_well_as_passwords() {
    let Some(cloud) = small() else { return };
    let dir = tempfile::tempdir().unwrap();
    let user = cloud.get(Service::Keystone, "/users?name=admin")["users"][0]["id"].as_str().unwrap().to_owned();
    let body = json!({"application_credential": {"name": "khufu", "secret": "s3cret"}});
    let made = cloud.ask(Service::Keystone, "POST", &format!("/users/{user}/application_credentials"), Some(&body));
    assert_eq!(made.status, 201, "{made:?}");
    let auth = json!({"auth_url": cloud.auth_url(), "application_credential_id": made.json()["application_credential"]["id"],
        "application_credential_secret": "s3cret"});
    works(
        &described(dir.path(), json!({"auth": auth, "auth_type": "v3applicationcredential"})).await.unwrap(),
        "auth-1",
    )
    .await;
    let auth = json!({"auth_url": cloud.auth_url(), "token": cloud.token(), "project_name": "admin"});
    works(&described(dir.path(), json!({"auth": auth, "auth_type": "token"})).await.unwrap(), "auth-2").await;
}

#[tokio::test]
async fn what_is_wrong_with_a_description_is_said_and_a_new_password_is_taken_up() {
    let Some(cloud) = small() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut entry = admin(cloud);
    entry["auth"]["password"] = json!("wrong");
    let driver = described(dir.path(), entry).await.unwrap();
    let error = apply(&driver, &replica("auth-3"), &image("auth-3")).await.unwrap_err();
    assert!(!error.is_permanent() && error.to_string().contains("does not know who asks"), "{error}");
    // The driver is the same; the file is another.
    described(dir.path(), admin(cloud)).await.unwrap();
    works(&driver, "auth-4").await;
    let mut entry = admin(cloud);
    entry["region_name"] = json!("Nowhere");
    let driver = described(dir.path(), entry).await.unwrap();
    let error = apply(&driver, &replica("auth-5"), &image("auth-5")).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("Nowhere") && text.contains("public in RegionOne"), "{text}");
}

/// TLS before a port, with a certificate of an authority that nobody knows.
async fn behind_tls(port: u16) -> (u16, String) {
    let names = vec!["127.0.0.1".to_owned()];
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key.into()).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let own = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let server = tokio::net::TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await;
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut server.unwrap()).await;
            });
        }
    });
    (own, cert.pem())
}

#[tokio::test]
async fn a_private_authority_is_trusted_if_it_is_named_and_no_other() {
    let Some(cloud) = small() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (port, pem) = behind_tls(cloud.port(Service::Keystone)).await;
    let (_, other) = behind_tls(cloud.port(Service::Keystone)).await;
    let mut entry = admin(cloud);
    entry["auth"]["auth_url"] = json!(format!("https://127.0.0.1:{port}"));
    let error = |driver: OpenStackDriver| async move {
        apply(&driver, &replica("auth-6"), &image("auth-6")).await.unwrap_err().to_string()
    };
    let text = error(described(dir.path(), entry.clone()).await.unwrap()).await;
    assert!(text.contains("certificate"), "{text}");
    entry["cacert"] = json!("ca.pem");
    std::fs::write(dir.path().join("ca.pem"), &other).unwrap();
    let driver = described(dir.path(), entry.clone()).await.unwrap();
    let text = apply(&driver, &replica("auth-6"), &image("auth-6")).await.unwrap_err().to_string();
    assert!(text.contains("certificate"), "{text}");
    // Written anew, it is taken up.
    std::fs::write(dir.path().join("ca.pem"), &pem).unwrap();
    works(&driver, "auth-6").await;
    std::fs::write(dir.path().join("ca.pem"), "nothing").unwrap();
    let text = error(described(dir.path(), entry).await.unwrap()).await;
    assert!(text.contains("no certificate"), "{text}");
}
