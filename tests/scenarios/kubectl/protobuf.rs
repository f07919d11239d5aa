//! Programs that write protobuf, as those may that are built with the types of Kubernetes.

use khufu_test_servers::kubernetes::{Builder, Cluster};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::rough::tls;
use super::{Desk, one};
use crate::support::{Lab, PATIENCE, Site};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A field that has a length of less than 128.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(value.len()).expect("it is short")], value].concat()
}

fn entry(name: &str, value: &str) -> Vec<u8> {
    [field(1, name.as_bytes()), field(2, value.as_bytes())].concat()
}

fn sent(kind: &str, raw: &[u8]) -> Vec<u8> {
    [b"k8s\0".to_vec(), field(1, &entry("v1", kind)), field(2, raw)].concat()
}

fn map(name: &str, annotations: &[(&str, &str)], value: &str) -> Vec<u8> {
    let annotations = annotations.iter().flat_map(|(name, value)| field(12, &entry(name, value)));
    let meta = [field(1, name.as_bytes()), annotations.collect()].concat();
    sent("ConfigMap", &[field(1, &meta), field(2, &entry("a", value))].concat())
}

/// Sends and reads protobuf; the status and the body.
async fn ask(site: &Site, token: &str, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Accept: application/vnd.kubernetes.protobuf\r\nContent-Type: application/vnd.kubernetes.protobuf\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = tls(site).await;
    stream.write_all(&[head.as_bytes(), body].concat()).await.expect("it is sent");
    let mut answer = Vec::new();
    // It may be closed without a word at the end.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is answered");
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n").expect("a head");
    let code = String::from_utf8_lossy(&answer[9..12]).parse().expect("a status");
    (code, answer[end + 4..].to_vec())
}

/// The same bytes but for this, which is as long.
fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|part| part == from.as_bytes()).expect("it is there");
    [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_as_protobuf_is_not_written_past_a_replicant() {
    let Some([cluster]) = Builder::start_all([Cluster::builder("paris")]) else { return };
    let lab = Lab::new();
    let site = one(&lab, &cluster).await;
    let desk = Desk { cluster: &cluster, site: &site };
    let ask = async |method: &str, path: &str, body: &[u8]| ask(&site, cluster.admin_token(), method, path, body).await;
    let desired = async |name: &str| -> Value {
        site.view(&format!("kubernetes:default:configmaps:{name}")).await["desired"].clone()
    };

    // Made with the annotation, and with a scope in the path.
    let scope = [("khufu.dev/scope", "paris"), ("khufu.dev/drift", "ignore")];
    assert_eq!(ask("POST", MAPS, &map("settings", &scope, "before")).await.0, 201);
    assert_eq!(ask("POST", &format!("/scope/paris{MAPS}"), &map("removed", &[], "before")).await.0, 201);
    for name in ["settings", "removed"] {
        assert_eq!(desired(name).await["data"], json!({"a": "before"}), "{name}");
    }

    // A try that the API server would take for a write.
    for query in ["%", "All%zz", "All;x", "all"] {
        let path = format!("{MAPS}/settings?dryRun={query}");
        for (method, body) in [("PUT", map("settings", &scope, "past")), ("DELETE", vec![])] {
            assert_eq!(ask(method, &path, &body).await.0, 400, "{method} {query}");
        }
    }
    assert_eq!(desk.has(&["configmap", "settings"], "{.data.a}"), "before");

    // Read, and sent back with another value: that is what changes, and once only.
    let (code, read) = ask("GET", &format!("{MAPS}/settings"), b"").await;
    assert_eq!(code, 200);
    let other = replaced(&read, "before", "after!");
    assert_eq!(ask("PUT", &format!("{MAPS}/settings"), &other).await.0, 200);
    assert_eq!(desired("settings").await["data"], json!({"a": "after!"}));
    assert_eq!(desk.has(&["configmap", "settings"], "{.data.a}"), "after!");
    assert_eq!(ask("PUT", &format!("{MAPS}/settings"), &other).await.0, 409, "it was read before");
    // What is left out by whoever has not read it is taken back.
    assert_eq!(ask("PUT", &format!("{MAPS}/settings"), &map("settings", &scope[..1], "mine")).await.0, 200);
    let view = site.view("kubernetes:default:configmaps:settings").await;
    assert_eq!((&view["desired"]["data"], &view["policy"]["drift"]), (&json!({"a": "mine"}), &json!("report")));

    // What somebody has removed past Khufu is not made past it, either.
    let output = cluster.kubectl(&["delete", "configmap", "removed"]);
    assert!(output.status.success(), "{output:?}");
    let (code, said) = ask("POST", MAPS, &map("removed", &[], "other")).await;
    let said = String::from_utf8_lossy(&said);
    assert!(code == 409 && said.contains("apply it to have it made again"), "{code} {said}");
    assert_eq!(desk.has(&["configmap", "removed"], "{.data.a}"), "");
    // What is no replicant's passes.
    assert_eq!(ask("POST", MAPS, &map("own", &[], "mine")).await.0, 201);

    // Deleted with what is said of that.
    let options = sent("DeleteOptions", &field(5, b"All"));
    assert_eq!(ask("DELETE", &format!("{MAPS}/settings"), &options).await.0, 200);
    assert_eq!(desk.has(&["configmap", "settings"], "{.data.a}"), "mine", "it was only tried");
    let options = sent("DeleteOptions", &field(4, b"Foreground"));
    assert_eq!(ask("DELETE", &format!("{MAPS}/settings"), &options).await.0, 200);
    let view = site.view("kubernetes:default:configmaps:settings").await;
    assert!(!view["deleted"].is_null(), "{view}");
    assert_eq!(view["policy"]["options"]["propagation"], "foreground");
}
