//! An API server that is away, moves, or is another afterwards.

use std::collections::BTreeSet;

use super::*;

async fn made(driver: &KubernetesDriver, name: &str) -> Replica {
    let mut replica = Replica::new(name.parse().unwrap(), "paris".parse().unwrap());
    let metadata = json!({"name": name, "namespace": "default"});
    let desired = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"x": "1"}});
    replica.local_id = driver.apply(&replica, Work::Desired(desired.clone())).await.unwrap().local_id;
    replica.written = Some(desired);
    replica
}

fn kubectl(cluster: &Cluster, arguments: &[&str]) {
    let output = cluster.kubectl(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// All that is told of until nothing more is for a while.
async fn told(changes: &mut khufu_drivers::Changes) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    while let Ok(Ok(id)) = tokio::time::timeout(Duration::from_secs(2), changes.recv()).await {
        all.insert(id.to_string());
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_goes_away_is_said_to_and_what_happened_meanwhile_is_seen_where_it_is_then() {
    let Some(mut cluster) = Cluster::start("away") else { return };
    let driver = KubernetesDriver::from_kubeconfig(&cluster.kubeconfig(ADMIN), None).await.unwrap();
    let (mut changes, mut reachable) = (driver.watch().unwrap(), driver.reachable().unwrap());
    // Nobody knows before it was asked.
    assert_eq!(*reachable.borrow(), None);
    tokio::time::timeout(Duration::from_secs(60), reachable.wait_for(Option::is_some)).await.unwrap().unwrap();
    assert_eq!(*reachable.borrow(), Some(true));
    let names = ["changed", "gone", "same"];
    for name in names {
        made(&driver, name).await;
    }
    // The watch runs once it tells of something; what Khufu has written itself is nothing to tell of.
    let mut number = 0;
    while !told(&mut changes).await.contains("same") {
        number += 1;
        kubectl(&cluster, &["annotate", "configmap", "same", "--overwrite", &format!("number={number}")]);
    }
    for name in names {
        made(&driver, name).await;
    }
    assert_eq!(told(&mut changes).await, BTreeSet::new());

    cluster.kill();
    tokio::time::timeout(Duration::from_secs(60), reachable.wait_for(|reachable| *reachable == Some(false)))
        .await
        .unwrap()
        .unwrap();
    // It is somewhere else, where the file says.
    cluster.move_to_another_port();
    kubectl(&cluster, &["annotate", "configmap", "changed", "at=night"]);
    kubectl(&cluster, &["delete", "configmap", "gone"]);
    tokio::time::timeout(Duration::from_secs(60), reachable.wait_for(|reachable| *reachable == Some(true)))
        .await
        .unwrap()
        .unwrap();
    let mut seen = BTreeSet::new();
    until("both changes are told of", async || {
        seen.extend(told(&mut changes).await);
        seen.len() >= 2
    })
    .await;
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["changed", "gone"]);
    made(&driver, "after").await;

    // One that neither answers nor ends is away as well.
    cluster.pause();
    tokio::time::timeout(Duration::from_secs(60), reachable.wait_for(|reachable| *reachable == Some(false)))
        .await
        .unwrap()
        .unwrap();
    cluster.resume();
    tokio::time::timeout(Duration::from_secs(60), reachable.wait_for(|reachable| *reachable == Some(true)))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_only_named_is_read_again_when_it_is_written_anew() {
    let Some(cluster) = cluster() else { return };
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    // Another authority than that of the server.
    write("ca.crt", &rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap().cert.pem());
    write("token", cluster.admin_token());
    let it = json!({"server": cluster.url(), "certificate-authority": "ca.crt"});
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": it}], "users": [{"name": "it", "user": {"tokenFile": "token"}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}]});
    write("config", &config.to_string());
    let driver = KubernetesDriver::from_kubeconfig(&folder.path().join("config"), None).await.unwrap();
    let mut reachable = driver.reachable().unwrap();
    let within = Duration::from_secs(60);
    tokio::time::timeout(within, reachable.wait_for(|now| *now == Some(false))).await.unwrap().unwrap();
    write("ca.crt", cluster.ca_pem());
    tokio::time::timeout(within, reachable.wait_for(|now| *now == Some(true))).await.unwrap().unwrap();
    made(&driver, "renewed").await;
}
