//! Following what happens.

use futures::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Api, PATIENCE, node};

/// One server-sent event.
#[derive(Debug, Clone)]
struct Sent {
    id: String,
    name: String,
    data: Value,
}

/// Reads events until one is as wanted; answers all.
async fn follow(api: &Api, last: Option<&str>, wanted: impl Fn(&Sent) -> bool) -> Vec<Sent> {
    let mut request = api.request(Method::GET, "/v1/events");
    if let Some(last) = last {
        request = request.header("Last-Event-ID", last);
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut stream = response.bytes_stream();
    let mut text = String::new();
    let mut events: Vec<Sent> = Vec::new();
    tokio::time::timeout(PATIENCE, async {
        loop {
            while let Some((block, rest)) = text.split_once("\n\n") {
                let field = |name: &str| {
                    block.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
                };
                let data = field("data:");
                if !data.is_empty() {
                    let data = serde_json::from_str(&data).unwrap();
                    events.push(Sent { id: field("id:"), name: field("event:"), data });
                }
                text = rest.to_owned();
            }
            if events.iter().any(&wanted) {
                return events;
            }
            let chunk = stream.next().await.expect("the stream goes on").unwrap();
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    })
    .await
    .expect("the event comes in time")
}

#[tokio::test]
async fn a_reader_that_was_away_gets_what_it_missed_once() {
    let fixture = node().await;
    let api = fixture.api();
    api.put("/v1/replicants/a", json!({"kind": "files", "desired": {"n": 1}})).await;
    let all = follow(&api, Some("0"), |event| event.name == "reported" && event.data["status"] == "applied").await;
    assert!(all.iter().any(|event| event.name == "placed" && event.data["replicant"] == "a"), "{all:?}");
    let last = all.last().unwrap().clone();
    let (process, number) = last.id.split_once('-').unwrap();
    let number: u64 = number.parse().unwrap();

    // While nobody reads.
    api.put("/v1/replicants/b", json!({"kind": "files", "desired": {"n": 2}})).await;
    let missed = follow(&api, Some(&last.id), |event| event.name == "placed" && event.data["replicant"] == "b").await;
    for (offset, event) in missed.iter().enumerate() {
        assert_eq!(event.id, format!("{process}-{}", number + 1 + offset as u64));
        assert_ne!(event.name, "gap");
        assert_eq!(event.data["event"], event.name.as_str());
    }
    // The same for those who cannot set headers.
    let response = api.request(Method::GET, &format!("/v1/events?after={}", last.id)).send().await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn a_place_of_an_earlier_process_is_a_gap() {
    let fixture = node().await;
    let api = fixture.api();
    let events = follow(&api, Some("abc-7"), |event| event.name == "gap").await;
    assert_eq!(events[0].name, "gap");
    assert!(events[0].data["message"].as_str().unwrap().contains("lost"));
    let answer = api.send(api.request(Method::GET, "/v1/events").header("Last-Event-ID", "x")).await;
    answer.problem(400);
}

#[tokio::test]
async fn readers_are_bounded_and_leave_with_the_node() {
    let fixture = node().await;
    let api = fixture.api();
    let mut readers = Vec::new();
    let refused = loop {
        let response = api.request(Method::GET, "/v1/events").send().await.unwrap();
        if response.status() != 200 {
            break response;
        }
        readers.push(response);
        assert!(readers.len() < 1000, "readers are not bounded");
    };
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    // One that leaves makes room.
    drop(readers.pop());
    crate::client::eventually("there is room for another reader", || async {
        api.request(Method::GET, "/v1/events").send().await.unwrap().status() == 200
    })
    .await;
    let reader = readers.pop().unwrap();
    let ended = tokio::spawn(async move { reader.bytes().await });
    fixture.node.shutdown().await;
    tokio::time::timeout(PATIENCE, ended).await.expect("the stream ends with the node").unwrap().unwrap();
}
