//! Writes the seeds: small inputs made of real values. `cargo run --example seeds` in this folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use khufu_engine::{Put, Request};
use khufu_fuzz::{join, two_sites};
use serde_json::{Value, json};

fn write(target: &str, name: &str, bytes: &[u8]) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    fs::create_dir_all(&dir).expect("a directory");
    fs::write(dir.join(name), bytes).expect("it can be written");
}

/// One of each kind: the first of its first bytes and its length to the next power of two.
fn kinds<'a>(parts: &'a [(u8, Vec<u8>)]) -> Vec<&'a (u8, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for part in parts {
        let head = part.1.get(..14).unwrap_or(&part.1).to_vec();
        found.entry((part.0, head, part.1.len().next_power_of_two())).or_insert(part);
    }
    found.into_values().collect()
}

fn main() {
    scopes();
    let (paris, _, came) = two_sites();
    for (n, part) in kinds(&came).into_iter().enumerate() {
        write("frames", &format!("one-{n:02}"), &join([(part.0, &part.1[..])]));
    }
    for (n, parts) in came.chunks(6).step_by(7).enumerate() {
        write("frames", &format!("talk-{n:02}"), &join(parts.iter().map(|(kind, part)| (*kind, &part[..]))));
    }

    let keys: Vec<&Vec<u8>> = paris.stored.keys().collect();
    let number =
        |key: &[u8]| keys.iter().position(|known| *known == key).and_then(|at| u8::try_from(at).ok()).unwrap_or(255);
    let parts = |which: &dyn Fn(&[u8]) -> bool| {
        join(paris.stored.iter().filter(|(key, _)| which(key)).map(|(key, value)| (number(key), &value[..])))
    };
    write("stored_engine", "all", &parts(&|_| true));
    for (name, word) in [("web", "/web"), ("log", "/log"), ("gone", "/gone"), ("meta", "m/")] {
        let word = word.as_bytes().to_vec();
        write("stored_engine", name, &parts(&|key| key.windows(word.len()).any(|part| part == word)));
    }
    let nodes: Vec<_> = paris.stored.iter().filter(|(key, _)| key.starts_with(b"m/node/")).collect();
    write("site_record", "stored", &join(nodes.iter().map(|(_, value)| (0, &value[..]))));
    for (n, part) in
        kinds(&came).into_iter().filter(|part| part.0 == 1 || part.1.windows(7).any(|w| w == b"Members")).enumerate()
    {
        write("site_record", &format!("{n:02}"), &join([(if part.0 == 1 { 1 } else { 2 }, &part.1[..])]));
    }
    documents(&paris.stored);
    records();
    policies();
    requests();
    keys_and_settings();
}

fn scopes() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/scope.md")).expect("the page");
    let mut seen = std::collections::BTreeSet::new();
    for text in page.split('`').skip(1).step_by(2).filter(|text| !text.contains('\n') && text.len() < 200) {
        if khufu_scope::parse(text).is_ok() && seen.insert(text.to_owned()) {
            write("scope", &format!("{:02}", seen.len()), text.as_bytes());
        }
    }
}

fn documents(stored: &BTreeMap<Vec<u8>, Vec<u8>>) {
    for name in ["web", "log"] {
        let prefix = format!("d/{name}/").into_bytes();
        let own = || stored.iter().filter(|(key, _)| key.starts_with(&prefix));
        let snapshot: Vec<_> =
            own().filter(|(key, _)| key.ends_with(b"/s")).map(|(_, value)| (0x80, &value[..])).collect();
        let change = |kind: u8| {
            own().filter(|(key, _)| key.windows(3).any(|part| part == b"/c/")).map(move |(_, value)| (kind, &value[..]))
        };
        write("document", &format!("{name}-snapshot"), &join(snapshot.clone()));
        write("document", &format!("{name}-stored"), &join(snapshot.iter().copied().chain(change(0x81))));
        write("document", &format!("{name}-remote"), &join(change(0x82)));
        for (n, part) in change(0x82).take(4).enumerate() {
            write("document", &format!("{name}-change-{n}"), &join([part]));
        }
        // What it says to one that has nothing.
        let id = khufu_crdt::DocumentId { replicant: "web".parse().expect("an id"), epoch: 0 };
        let actor = khufu_crdt::Actor::new([9; 16]);
        let changes: Vec<Vec<u8>> = change(0).map(|(_, value)| value.to_vec()).collect();
        let loaded =
            khufu_crdt::Replicant::load(id.clone(), &actor, snapshot.first().map(|(_, value)| *value), &changes);
        let (mut full, mut empty) =
            (loaded.expect("a document").replicant, khufu_crdt::Replicant::genesis(id, &actor).expect("a document"));
        let (mut one, mut other) = (khufu_crdt::SyncState::default(), khufu_crdt::SyncState::default());
        let mut said = Vec::new();
        for _ in 0..6 {
            if let Some(message) = full.sync_message(&mut one) {
                let _ = empty.receive_sync(&mut other, &message);
                said.push(message);
            }
            if let Some(message) = empty.sync_message(&mut other) {
                let _ = full.receive_sync(&mut one, &message);
                said.push(message);
            }
        }
        write("document", &format!("{name}-sync"), &join(said.iter().map(|message| (3, &message[..]))));
    }
}

fn records() {
    use khufu_store::fuzzing::write_record;
    for (name, key, payload) in [("short", "rkey", &b"value"[..]), ("empty", "r", b""), ("piece", "c", &[7; 64])] {
        write("stored_record", name, &[&[1], &write_record(key.as_bytes(), payload)[..]].concat());
    }
    let group = [&[0; 16][..], &[4, 0], b"rkey", &[1, 0], b"r"].concat();
    write("stored_record", "group", &[&[0], &group[..]].concat());
    write("stored_record", "pieces", &[&[0][..], &[3; 20]].concat());
    for (n, (kind, place, bytes)) in
        [(0, 4096_u32, &b"\x01\x02"[..]), (0, 70_000, b""), (200, 3, b"x"), (9, 100_000, &[0; 512])]
            .into_iter()
            .enumerate()
    {
        let part = [&place.to_le_bytes()[..], bytes].concat();
        write("store_log", &format!("{n}"), &join([(kind, &part[..])]));
    }
}

fn policies() {
    let vectors = include_str!("../../crates/crdt/tests/data/convergence-vectors.json");
    let all: Value = serde_json::from_str(vectors).expect("the vectors");
    for (name, policy) in all["policies"].as_object().expect("policies") {
        write("policy", name, policy.to_string().as_bytes());
    }
    let yaml = "default: take-both-keep-order\nretry: {attempts: 3, backoff_ms: 50, backoff_max_ms: 1000}\ndrift: correct\n\
                types:\n  set: {absolute: true, idempotent: true}\nresolutions:\n- {before: set, after: add, result: take-one}\n";
    write("policy", "yaml", yaml.as_bytes());
    for (n, case) in all["cases"].as_array().expect("cases").iter().enumerate() {
        let used = case["policy"].as_str().expect("a name");
        let file = json!({"policies": {used: all["policies"][used]}, "cases": [case]});
        write("vectors", &format!("{n:02}"), file.to_string().as_bytes());
    }
    let yaml = "policies:\n  counter: {resolutions: [{before: set, after: set, result: take-one}]}\ncases:\n- name: two\n  policy: counter\n  \
                operations:\n  - {id: s1, type: set, parents: [], at: 1, by: paris}\n  - {id: s2, type: set, parents: [], at: 2, by: rennes}\n  \
                resolved: [s2]\n  applied: {paris: [s1]}\n  run: {paris: {rebuild: true, steps: [s2]}}\n";
    write("vectors", "yaml", yaml.as_bytes());
}

fn requests() {
    let id = || "web".parse().expect("an id");
    let put = |scope: &str| {
        Request::Put(Put {
            id: id(),
            kind: Some("text".into()),
            scope: Some(scope.into()),
            policy: Some(khufu_crdt::Policy::default()),
            desired: Some(json!({"a": [1, {"b": null}]})),
            overrides: Some([("paris".parse().expect("a site"), json!({"a": 2}))].into()),
            base: None,
        })
    };
    let all = [
        ("put", put("paris & rennes")),
        ("scope", put("here")),
        ("patch", Request::Patch { id: id(), patch: json!({"a": null, "b": {"c": 1}}) }),
        ("get", Request::Get { id: id() }),
        ("history", Request::History { id: id(), limit: 10 }),
        ("conflicts", Request::Conflicts { id: id() }),
        ("plan", Request::Plan { id: id() }),
        ("delete", Request::Delete { id: id(), keep: true, base: None }),
        ("sites", Request::Sites),
        ("verify", Request::Verify { id: None }),
        ("explain", Request::Explain { scope: "2 of all".into() }),
        ("list", Request::List(khufu_engine::ListQuery { limit: 3, ..Default::default() })),
        (
            "operate",
            Request::Operate(khufu_engine::Operate {
                id: "log".parse().expect("an id"),
                operation: "op-9".parse().ok(),
                op_type: "add".into(),
                payload: json!("x"),
                wait_ms: 10,
            }),
        ),
    ];
    for (name, request) in all {
        write("request", name, &join([(0, serde_json::to_string(&request).expect("JSON").as_bytes())]));
    }
}

fn keys_and_settings() {
    let key = format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", "0123456789abcdef".repeat(4));
    write("psk", "key", key.as_bytes());
    write("psk", "address", b"/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWGRUVh7VVbcXHnYJgUXzqEGxCEwsfjxMQrLGWRKdZ4DmK");
    let toml = "site = 'paris'\ndata = 'data'\nlisten = ['/ip4/0.0.0.0/tcp/1']\napi = '127.0.0.1:7780'\npsk_file = 'swarm.key'\n\
                bootstrap = '/dns/rennes/tcp/1'\ntokens = 't'\nmdns = true\nallow_faults = false\nopen_network = false\npace = 'fast'\n\
                [drivers]\nfiles = 'replicas'\n[labels]\ncountry = 'fr'\n";
    write("config", "file", toml.as_bytes());
    write(
        "config",
        "environment",
        b"site = 'paris'\0paris\0a=b,c=d\0true\0production\0/ip4/1.2.3.4/tcp/1\0127.0.0.1:80\x0010s",
    );
    write("stream", "frames", &[&[0, 0, 0, 3][..], b"abc", &[0, 0, 0, 1, 9]].concat());
    write("stream", "large", &[0, 0, 4, 1, 1]);
}
