//! The order of what a node asks of the system: nobody is told of a change that is not on the disk.

use serde_json::json;

use crate::strace::{Call, calls, synced_before};
use crate::support::Lab;

/// System calls by which answers leave.
const SENDS: [&str; 4] = ["write", "writev", "sendto", "sendmsg"];

#[tokio::test]
async fn a_user_is_told_only_after_the_disk_was_forced() {
    let lab = Lab::new();
    let trace = lab.path().join("trace");
    let Some(builder) = lab.site("paris").traced(&trace) else { return };
    let paris = builder.start().await;
    let needle = |number: usize| format!("needle-{number:03}");
    for number in 0..20 {
        let body = json!({"kind": "files", "scope": "here", "desired": {"text": needle(number)}});
        assert_eq!(paris.put(&format!("/v1/replicants/r{number}"), body).await.status, 201);
        // Only asked for, so that the answer has the words of no other.
        paris.operate("r0", "note", json!({"append": format!("{}\n", needle(100 + number))})).await;
    }
    paris.stop().await;
    let calls = calls(&std::fs::read_to_string(trace).expect("a trace"));
    for number in (0..20).chain(100..120) {
        let needle = needle(number);
        let told = |call: &Call| {
            SENDS.contains(&call.name.as_str()) && call.text.contains("HTTP/1.1 20") && call.text.contains(&needle)
        };
        synced_before(&calls, "/store/journal>", &needle, told).unwrap_or_else(|error| panic!("{needle}: {error}"));
    }
}
