//! The scenario in which sites are known to end up apart elsewhere, with every order of healing.

use serde_json::{Value, json};

use crate::support::{Lab, Pair, Site};

const PAIRS: [Pair; 3] = [("paris", "rennes"), ("rennes", "nantes"), ("nantes", "paris")];
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

fn policy() -> Value {
    json!({
        "resolutions": [
            {"before": "set", "after": "set", "result": "take-one"},
            {"before": "set", "after": "add", "result": "take-both-keep-order"},
            {"before": "add", "after": "set", "result": "take-both-reverse-order"},
        ],
        "types": {"set": {"absolute": true}},
    })
}

/// Asks for an operation with an id of its own name, and waits until it is done at the site that was asked.
async fn operate(lab: &Lab, site: &Site, id: &str, op_type: &str, word: &str, payload: Value) {
    let body = json!({"id": word, "type": op_type, "payload": payload});
    site.post(&format!("/v1/replicants/{id}/operations"), body).await.ok();
    lab.here(id, word, site).await;
}

#[tokio::test]
async fn left_middle_and_right_come_to_the_same_with_every_order_of_healing() {
    let lab = Lab::new();
    let [paris, rennes, nantes] = lab.three().await;
    let all = [&paris, &rennes, &nantes];
    // For each order of healing, each site has its turn to write, and the write its turn to be the first, second or
    // last in time.
    for (round, order) in ORDERS.into_iter().enumerate() {
        let id = format!("text-{round}");
        let writer = round % 3;
        let [left, middle, right] = [all[(writer + 2) % 3], all[writer], all[(writer + 1) % 3]];
        let body = json!({"kind": "files", "scope": "paris & rennes & nantes", "policy": policy()});
        all[round / 2].put(&format!("/v1/replicants/{id}"), body).await.ok();
        operate(&lab, all[round / 2], &id, "set", "init", json!({"write": "init\n"})).await;
        assert_eq!(lab.converged(&id, &all).await, "init\n");

        lab.cut(&all, &PAIRS).await;
        // Each asks for one thing, and has done it, before anybody hears of the others.
        let asked = [(left, "add", "left"), (middle, "set", "middle"), (right, "add", "right")];
        let mut turns: Vec<_> = asked.iter().collect();
        turns.rotate_left(round % 3);
        for (site, op_type, word) in turns {
            let field = if *op_type == "set" { "write" } else { "append" };
            operate(&lab, site, &id, op_type, word, json!({field: format!("{word}\n")})).await;
        }
        assert_eq!(left.file(&id).as_deref(), Some("init\nleft\n"));
        assert_eq!(middle.file(&id).as_deref(), Some("middle\n"));
        assert_eq!(right.file(&id).as_deref(), Some("init\nright\n"));

        // Mended pair by pair; the two that see each other agree before the next pair does.
        for mended in 1..=3 {
            let cut: Vec<Pair> = order[mended..].iter().map(|&pair| PAIRS[pair]).collect();
            lab.cut(&all, &cut).await;
            if mended == 1 {
                let (a, b) = PAIRS[order[0]];
                let two: Vec<&Site> = all.iter().filter(|site| [a, b].contains(&site.name())).copied().collect();
                lab.same_document(&id, &two).await;
            }
        }
        let contents = lab.converged(&id, &all).await;
        // The appends follow the write whatever came first in time; among themselves they go by rank, that is time.
        let appends: Vec<&str> = {
            let mut words = ["left", "middle", "right"];
            words.rotate_left(round % 3);
            words.into_iter().filter(|word| *word != "middle").collect()
        };
        assert_eq!(contents, format!("middle\n{}\n{}\n", appends[0], appends[1]), "order {order:?}");
        for site in all {
            let view = site.view(&id).await;
            let fate = |word: &str| {
                let operations = view["operations"].as_array().expect("operations");
                operations.iter().find(|operation| operation["id"] == word).expect("it is known")["fate"].clone()
            };
            // Which write won, and over which.
            assert_eq!(fate("init"), json!({"fate": "dead", "by": "middle"}), "{view}");
            for word in ["middle", "left", "right"] {
                assert_eq!(fate(word), json!({"fate": "live"}), "{view}");
            }
            assert_eq!(view["resolved"], json!(["middle", appends[0], appends[1]]));
        }
    }
    lab.verified(&rennes).await;
}

#[tokio::test]
async fn of_three_writes_made_apart_one_wins_everywhere_and_the_others_say_so() {
    let lab = Lab::new();
    let [paris, rennes, nantes] = lab.three().await;
    let all = [&paris, &rennes, &nantes];
    let body = json!({"kind": "files", "scope": "all", "policy": policy()});
    nantes.put("/v1/replicants/text", body).await.ok();
    operate(&lab, &nantes, "text", "set", "init", json!({"write": "init\n"})).await;
    lab.converged("text", &all).await;
    lab.cut(&all, &PAIRS).await;
    for (site, word) in [(&rennes, "first"), (&nantes, "second"), (&paris, "third")] {
        operate(&lab, site, "text", "set", word, json!({"write": format!("{word}\n")})).await;
        let more = format!("after-{word}");
        operate(&lab, site, "text", "add", &more, json!({"append": format!("{more}\n")})).await;
        assert_eq!(site.file("text"), Some(format!("{word}\n{more}\n")));
    }
    lab.cut(&all, &[]).await;
    // The last write wins; what was appended to the others stays.
    assert_eq!(lab.converged("text", &all).await, "third\nafter-first\nafter-second\nafter-third\n");
    for site in all {
        let view = site.view("text").await;
        let operations = view["operations"].as_array().expect("operations");
        for word in ["first", "second"] {
            let lost = operations.iter().find(|operation| operation["id"] == word).expect("it is known");
            assert_eq!(lost["fate"]["fate"], "dropped", "{view}");
            assert_eq!(lost["fate"]["by"][0], "third", "{view}");
        }
    }
}
