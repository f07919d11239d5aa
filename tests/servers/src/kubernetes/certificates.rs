//! What proves to clients that an API server is the one they mean.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rcgen::{KeyUsagePurpose, date_time_ymd};

/// The first address of the services' network, under which pods would reach the API server.
const SERVICE: &str = "10.0.0.1";

/// Makes an authority for a cluster, and writes what its API server reads into a directory: `ca.crt`, `server.crt`,
/// `server.key`, and the keys `accounts.key` and `accounts.pub` for the tokens of service accounts. Returns the certificate
/// of the authority, in PEM. Each cluster has its own, so that a client cannot take one for another.
pub(super) fn make(cluster: &str, dir: &Path) -> Result<String, rcgen::Error> {
    let mut authority = params(&format!("authority of {cluster}"), &[])?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

    let mut server = params("kube-apiserver", &["127.0.0.1", "localhost", SERVICE, "kubernetes.default.svc"])?;
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &authority)?;
    let accounts = KeyPair::generate()?;

    let write = |name: &str, text: String| std::fs::write(dir.join(name), text).expect("a certificate can be written");
    write("ca.crt", authority.pem());
    write("server.crt", certificate.pem());
    write("server.key", key.serialize_pem());
    write("accounts.key", accounts.serialize_pem());
    write("accounts.pub", accounts.public_key_pem());
    Ok(authority.pem())
}

fn params(name: &str, alternatives: &[&str]) -> Result<CertificateParams, rcgen::Error> {
    let alternatives: Vec<String> = alternatives.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(alternatives)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    Ok(params)
}
