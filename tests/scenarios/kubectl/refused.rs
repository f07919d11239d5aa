//! What this site cannot make of what was written.

use khufu_test_servers::kubernetes::{ADMIN, Builder, Cluster};
use serde_json::json;

use super::rough::said;
use super::{Desk, all_have};
use crate::support::Lab;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_this_site_cannot_make_is_accepted_said_so_and_made_once_it_can_be() {
    let builders = [Cluster::builder("paris").user("node", &[]), Cluster::builder("rennes")];
    let Some([one, two]) = Builder::start_all(builders) else { return };
    let lab = Lab::new();
    let site = |cluster: &Cluster, user: &str| {
        let driver = format!("kubernetes={}", cluster.kubeconfig(user).display());
        lab.site(cluster.name()).arguments(&["--driver", &driver, "--kubernetes-front", "127.0.0.1:0"])
    };
    // The node of the first may do nothing but with configmaps; whoever asks may do anything.
    let by_hand = |arguments: &[&str]| {
        let output = one.kubectl(arguments);
        assert!(output.status.success(), "{output:?}");
    };
    by_hand(&["create", "clusterrole", "node", "--verb=*", "--resource=configmaps"]);
    by_hand(&["create", "clusterrolebinding", "node", "--clusterrole=node", "--user=node"]);
    let paris = site(&one, "node").start().await;
    let rennes = site(&two, ADMIN).bootstrap(&paris).start().await;
    lab.met(&[&paris, &rennes]).await;
    let [a, b] = &[(&one, &paris), (&two, &rennes)].map(|(cluster, site)| Desk { cluster, site });

    // kubectl goes on, and its user knows.
    let told = a.scoped("/scope/all", &["create", "serviceaccount", "builder"], None);
    for words in ["Warning", "is kept", "paris cannot make it now", "forbid", "tried again"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let account = ["serviceaccount", "builder"];
    assert_eq!(a.has(&account, "{.metadata.name}"), "");
    all_have(&[b], &account, "{.metadata.name}", "builder").await;
    // Programs know by the status.
    let body = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "tester"}}).to_string();
    let request = format!(
        "POST /scope/all/api/v1/namespaces/default/serviceaccounts HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Authorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        one.admin_token(),
        body.len()
    );
    let answer = said(&paris, request.as_bytes(), usize::MAX).await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    let (_, object) = answer.split_once("\r\n\r\n").expect("a body");
    let object: serde_json::Value = serde_json::from_str(object).expect("JSON");
    assert_eq!(object["metadata"]["annotations"]["khufu.dev/status"], "failed", "{object}");

    // Nothing is lost: it is made when the site can.
    by_hand(&["create", "clusterrole", "accounts", "--verb=*", "--resource=serviceaccounts"]);
    by_hand(&["create", "clusterrolebinding", "accounts", "--clusterrole=accounts", "--user=node"]);
    all_have(&[a, b], &account, "{.metadata.name}", "builder").await;
    all_have(&[a, b], &["serviceaccount", "tester"], "{.metadata.name}", "tester").await;
}
