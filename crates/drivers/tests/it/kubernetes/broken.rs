//! API servers that go away, hang and come back.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_waited_for_and_its_changes_are_heard_of_again() {
    let Some(mut cluster) = Cluster::start("broken") else { return };
    let driver = KubernetesDriver::from_kubeconfig(&cluster.kubeconfig(ADMIN), None).await.unwrap();
    let replica = Replica::new("web".parse().unwrap(), "paris".parse().unwrap());
    let object = |x: &str| {
        let metadata = json!({"name": "a", "namespace": "default"});
        Work::Desired(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"x": x}}))
    };
    driver.apply(&replica, object("1")).await.unwrap();
    let mut changes = driver.watch().unwrap();
    cluster.kill();
    let error = driver.apply(&replica, object("2")).await.unwrap_err();
    assert!(!error.is_permanent(), "{error}");
    assert!(matches!(driver.observe(&replica).await, Err(DriverError::Unavailable { .. })));
    cluster.start_again();
    until("it is written", async || driver.apply(&replica, object("2")).await.is_ok()).await;
    // The watch is begun anew.
    until("a change is told", async || {
        let at = format!("at={:?}", Instant::now());
        assert!(cluster.kubectl(&["annotate", "configmap", "a", "--overwrite", &at]).status.success());
        tokio::time::timeout(Duration::from_secs(1), changes.recv()).await.is_ok()
    })
    .await;
    // One that hangs fails a call in time, and whether it was written is not known.
    cluster.pause();
    let begun = Instant::now();
    let error = driver.apply(&replica, object("3")).await.unwrap_err();
    assert!(!error.is_permanent() && begun.elapsed() < Duration::from_secs(40), "{error} after {:?}", begun.elapsed());
    cluster.resume();
    until("it is written", async || driver.apply(&replica, object("4")).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_served_by_something_broken_holds_up_nothing_else() {
    let Some(cluster) = Cluster::start("partly") else { return };
    // Nobody is there.
    let service = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1.broken.example.org"},
        "spec": {"group": "broken.example.org", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": true, "service": {"name": "nobody", "namespace": "default", "port": 443}}});
    let made = cluster.kubectl_as(ADMIN, &["create", "-f", "-"], Some(&service.to_string()));
    assert!(made.status.success(), "{made:?}");
    let every = Duration::from_secs(1);
    let driver = KubernetesDriver::hurried(&cluster.kubeconfig(ADMIN), 128, every).await.unwrap();
    let mut replica = Replica::new("web".parse().unwrap(), "paris".parse().unwrap());
    let metadata = json!({"name": "a", "namespace": "default"});
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
    until("the group is announced", async || {
        cluster.kubectl(&["get", "--raw", "/apis"]).stdout.windows(18).any(|part| part == b"broken.example.org")
    })
    .await;
    replica.local_id = driver.apply(&replica, Work::Desired(object)).await.unwrap().local_id;
    let metadata = json!({"name": "w", "namespace": "default"});
    let other = json!({"apiVersion": "broken.example.org/v1", "kind": "Well", "metadata": metadata});
    let wells = Replica::new("wells".parse().unwrap(), "paris".parse().unwrap());
    let error = driver.apply(&wells, Work::Desired(other)).await.unwrap_err();
    assert!(!error.is_permanent(), "{error}");
    driver.delete(&replica).await.unwrap();
    assert!(!driver.observe(&replica).await.unwrap().exists);
    // But for that of which nothing is remembered: it may be of a kind of that group, for as long as there is one.
    let error = driver.delete(&wells).await.unwrap_err();
    assert!(!error.is_permanent() && error.to_string().contains("broken.example.org"), "{error}");
    let gone = cluster.kubectl(&["delete", "apiservice", "v1.broken.example.org"]);
    assert!(gone.status.success(), "{gone:?}");
    until("it is removed", async || driver.delete(&wells).await.is_ok()).await;
}
