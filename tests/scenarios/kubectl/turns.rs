//! Writes to the same objects at the same time.

use khufu_test_servers::kubernetes::Cluster;
use serde_json::json;

use super::Alone;
use super::rough::said;

const ROUNDS: usize = 8;
const OBJECTS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_with_all_others_does_not_come_back_by_a_write_under_way() {
    let Some(alone) = Alone::start(Cluster::builder("paris")).await else { return };
    let (cluster, site, desk) = alone.parts();
    let all = "/api/v1/namespaces/default/configmaps";
    let ask = async |method: &str, path: &str, kind: &str, body: &str| {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/{kind}\r\nContent-Length: {}\r\n\r\n{body}",
            cluster.admin_token(),
            body.len()
        );
        let answer = said(site, request.as_bytes(), usize::MAX).await;
        let code = answer.split(' ').nth(1).unwrap_or_default().to_owned();
        (code, answer)
    };
    for round in 0..ROUNDS {
        for number in 0..OBJECTS {
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("map-{number}"), "labels": {"x": "y"}}});
            let (code, answer) = ask("POST", &format!("/scope/paris{all}"), "json", &map.to_string()).await;
            assert_eq!(code, "201", "{answer}");
        }
        // Each is written again and again until it is gone.
        let write = async |number: usize| {
            for count in 0.. {
                let patch = json!({"data": {"count": count.to_string()}}).to_string();
                let (code, answer) = ask("PATCH", &format!("{all}/map-{number}"), "merge-patch+json", &patch).await;
                match code.as_str() {
                    "200" => {}
                    "404" => return,
                    _ => panic!("round {round}: {answer}"),
                }
            }
        };
        let delete = async {
            let (code, answer) = ask("DELETE", &format!("{all}?labelSelector=x%3Dy"), "json", "").await;
            assert_eq!(code, "200", "{answer}");
        };
        tokio::join!(delete, write(0), write(1), write(2), write(3));
        for number in 0..OBJECTS {
            let name = format!("map-{number}");
            let view = site.view(&format!("kubernetes:default:configmaps:{name}")).await;
            assert!(!view["deleted"].is_null(), "round {round}: {view}");
            assert_eq!(desk.has(&["configmap", &name], "{.metadata.name}"), "", "round {round}");
        }
    }
}
