//! What proves to clients that the front is the one they mean.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer};
use rcgen::{KeyPair, KeyUsagePurpose, date_time_ymd};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::FrontError;

/// The certificate of the own authority, which clients are given.
pub(super) const AUTHORITY: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// Reads a certificate with its chain, and its key.
pub(super) fn load(certificate: &Path, key: &Path) -> Result<ServerConfig, FrontError> {
    let wrong = |path: &Path, reason: String| FrontError::Certificate { path: path.to_owned(), reason };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong(certificate, "there is no certificate in it".into()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(certificate, error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| wrong(certificate, error.to_string()))?;
    // `kubectl exec` takes a connection over, which is a thing of HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Makes a certificate for the address, of an authority that is made once in this directory.
pub(super) fn make(dir: &Path, address: SocketAddr) -> Result<ServerConfig, FrontError> {
    std::fs::create_dir_all(dir).map_err(|source| FrontError::File { path: dir.to_owned(), source })?;
    let failed = |error: rcgen::Error| FrontError::Certificate { path: dir.to_owned(), reason: error.to_string() };
    let mut params = params("Khufu: way in for kubectl", Vec::new()).map_err(failed)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = match std::fs::read_to_string(dir.join(AUTHORITY_KEY)) {
        Ok(text) => KeyPair::from_pem(&text).map_err(|error| FrontError::Certificate {
            path: dir.join(AUTHORITY_KEY),
            reason: format!("{error}; remove it, and a new authority is made"),
        })?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = KeyPair::generate().map_err(failed)?;
            let certificate = params.self_signed(&key).map_err(failed)?;
            write(dir.join(AUTHORITY), &certificate.pem(), 0o644)?;
            // Last: where it is, all is.
            write(dir.join(AUTHORITY_KEY), &key.serialize_pem(), 0o600)?;
            key
        }
        Err(source) => return Err(FrontError::File { path: dir.join(AUTHORITY_KEY), source }),
    };
    let authority = Issuer::new(params, key);
    let server_key = KeyPair::generate().map_err(failed)?;
    let certificate = server(address).and_then(|params| params.signed_by(&server_key, &authority)).map_err(failed)?;
    write(dir.join(CERTIFICATE), &certificate.pem(), 0o644)?;
    write(dir.join(KEY), &server_key.serialize_pem(), 0o600)?;
    load(&dir.join(CERTIFICATE), &dir.join(KEY))
}

fn server(address: SocketAddr) -> Result<CertificateParams, rcgen::Error> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let own = address.ip().to_string();
    if !address.ip().is_unspecified() && !names.contains(&own) {
        names.push(own);
    }
    let mut params = params("khufu", names)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

fn params(name: &str, alternatives: Vec<String>) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(alternatives)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Writes a file that is there whole or not at all.
fn write(path: PathBuf, text: &str, mode: u32) -> Result<(), FrontError> {
    let new = path.with_extension("new");
    let written = || {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        let mut file = options.open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &path)
    };
    written().map_err(|source| FrontError::File { path: path.clone(), source })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_authority_stays_and_its_key_is_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("front");
        make(&dir, "127.0.0.1:1".parse().unwrap()).unwrap();
        let authority = std::fs::read(dir.join(AUTHORITY)).unwrap();
        let key = std::fs::read(dir.join(AUTHORITY_KEY)).unwrap();
        make(&dir, "10.0.0.1:1".parse().unwrap()).unwrap();
        assert_eq!(authority, std::fs::read(dir.join(AUTHORITY)).unwrap());
        assert_eq!(key, std::fs::read(dir.join(AUTHORITY_KEY)).unwrap());
        #[cfg(unix)]
        for name in [AUTHORITY_KEY, KEY] {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn a_file_without_a_certificate_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty.crt");
        std::fs::write(&path, "").unwrap();
        assert!(load(&path, &path).unwrap_err().to_string().contains("empty.crt"));
        let missing = dir.path().join("missing.crt");
        assert!(load(&missing, &path).unwrap_err().to_string().contains("missing.crt"));
    }
}
