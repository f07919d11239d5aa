//! API servers that have many kinds, or kinds that do not answer; and answers that do not come.

use super::made_up::{self, Answer, resource, web};
use super::*;

/// A server of these kinds, which list nothing after a while, and of a group that never says what it has.
async fn server(kinds: usize, each: Duration, hangs: bool) -> (tempfile::TempDir, std::path::PathBuf) {
    made_up::server(move |method, path, _| {
        let group = json!({"name": "slow.example.org", "versions": [{"groupVersion": "slow.example.org/v1", "version": "v1"}],
            "preferredVersion": {"groupVersion": "slow.example.org/v1", "version": "v1"}});
        let groups = if hangs { json!([group]) } else { json!([]) };
        let never = Duration::from_secs(3_600);
        match (method, path) {
            (_, "/readyz") => (200, json!("ok")).into(),
            (_, "/api") => (200, json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})).into(),
            (_, "/apis") => (200, json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})).into(),
            (_, "/apis/slow.example.org/v1") => Answer { after: never, said: None },
            (_, "/api/v1") => {
                let all: Vec<_> = (0..kinds).map(|n| resource(&format!("k{n}s"), &format!("K{n}"), true)).collect();
                (200, json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": all})).into()
            }
            // Whatever is written, nobody hears of it.
            ("PATCH", _) => Answer { after: Duration::ZERO, said: None },
            (_, path) if path.contains("/namespaces/shop/") => {
                let status = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404});
                (404, status).into()
            }
            _ => {
                let list = json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                    "metadata": {"resourceVersion": "1"}, "items": []});
                Answer { after: each, said: Some((200, list)) }
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_at_all_kinds_comes_to_its_end_though_whoever_asked_has_given_up() {
    let (_folder, path) = server(40, Duration::from_millis(300), false).await;
    let driver = KubernetesDriver::from_kubeconfig(&path, None).await.unwrap();
    let mut calls = 0;
    let done = loop {
        calls += 1;
        assert!(calls <= 20, "it never ends");
        if let Ok(done) = tokio::time::timeout(Duration::from_millis(1_000), driver.delete(&web())).await {
            break done.unwrap();
        }
    };
    assert_eq!(done.output, "0 objects removed, 0 left");
    // Several were asked of at once: else it would have taken 12 s.
    assert!(calls > 1 && calls <= 8, "{calls}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_hangs_holds_up_only_the_first_look() {
    let (_folder, path) = server(1, Duration::ZERO, true).await;
    let every = Duration::from_secs(1);
    let driver = KubernetesDriver::hurried(&path, 128, every).await.unwrap();
    let mut replica = web();
    replica.local_id = Some("K0/shop/a".into());
    driver.delete(&replica).await.unwrap();
    // By now all is looked at once more, and then again.
    let begun = Instant::now();
    while begun.elapsed() < 3 * every {
        let call = Instant::now();
        driver.delete(&replica).await.unwrap();
        // One of which nothing is remembered is told as quickly that nobody knows.
        assert!(matches!(driver.delete(&web()).await, Err(DriverError::Unavailable { .. })));
        assert!(call.elapsed() < Duration::from_secs(5), "{:?}", call.elapsed());
        tokio::time::sleep(every / 10).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_answer_is_lost_may_have_been_done() {
    let (_folder, path) = server(1, Duration::ZERO, false).await;
    let driver = KubernetesDriver::from_kubeconfig(&path, None).await.unwrap();
    let object = json!({"apiVersion": "v1", "kind": "K0", "metadata": {"name": "a", "namespace": "shop"}});
    let error = driver.apply(&web(), Work::Desired(object)).await.unwrap_err();
    assert!(matches!(error, DriverError::Unanswered { .. }), "{error:?}");
}
