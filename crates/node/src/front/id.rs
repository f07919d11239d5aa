//! The id of the replicant of an object: the same wherever it is written first.

use khufu_crdt::ReplicantId;
use sha2::{Digest as _, Sha256};

use super::answer::Refusal;

/// The most bytes of what is readable of an id that has a digest.
const READABLE: usize = 160;

/// The id for an object of a kind (`deployments.apps`), in a namespace if the kind has them.
pub(super) fn of(kind: &str, namespace: Option<&str>, name: &str) -> Result<ReplicantId, Refusal> {
    let namespace = namespace.filter(|namespace| !namespace.is_empty()).unwrap_or("_");
    let plain = format!("kubernetes:{namespace}:{kind}:{name}");
    ReplicantId::new(plain.clone())
        .or_else(|_| ReplicantId::new(digested(&plain)))
        .map_err(|error| Refusal::bad_request(format!("{plain}: {error}")))
}

/// For what is too long, or has characters that ids do not: what can be read of it, and a digest of all.
fn digested(plain: &str) -> String {
    let digest: String = Sha256::digest(plain.as_bytes()).iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    let readable = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':' | '@') { c } else { '-' };
    let text: String = plain.chars().take(READABLE).map(readable).collect();
    format!("{text}-{digest}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_object_has_one_id() {
        let web = of("deployments.apps", Some("shop"), "web").unwrap();
        assert_eq!(web.as_str(), "kubernetes:shop:deployments.apps:web");
        assert_eq!(of("namespaces", None, "shop").unwrap().as_str(), "kubernetes:_:namespaces:shop");
    }

    #[test]
    fn what_is_no_id_gets_a_digest() {
        let role = |name: &str| of("clusterroles.rbac.authorization.k8s.io", None, name).unwrap();
        assert!(role("system:viewer").as_str().ends_with(":system:viewer"));
        let one = role("a b");
        assert_ne!(one, role("a;b"));
        assert!(one.as_str().contains(":a-b-"), "{one}");
        let long = |name: usize| of(&"e".repeat(200), Some(&"n".repeat(63)), &"a".repeat(name)).unwrap();
        assert!(long(253).as_str().len() <= ReplicantId::MAX_BYTES);
        assert_ne!(long(253), long(252));
    }
}
