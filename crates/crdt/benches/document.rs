//! What documents cost: `cargo bench -p khufu-crdt --bench document`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use khufu_crdt::{
    Actor, Author, DocumentId, Hlc, Mode, OperationId, Payload, Placement, Policy, Replicant, ReplicantId, SiteName,
    Spec, SyncState,
};
use serde_json::{Value, json};

fn id() -> DocumentId {
    DocumentId { replicant: ReplicantId::new("web").unwrap(), epoch: 0 }
}

fn author(at: u64) -> Author {
    let site = SiteName::new("paris").unwrap();
    Author { site, at: Hlc::from_ms(at), who: "someone".into(), why: "because".into() }
}

/// About 2.5 kB, as people write them.
fn deployment() -> Value {
    let container = |name: &str| {
        json!({
            "name": name, "image": format!("registry.example.org/team/{name}:1.2.3"), "imagePullPolicy": "IfNotPresent",
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}, {"name": "metrics", "containerPort": 9090}],
            "env": [{"name": "LOG_LEVEL", "value": "info"}, {"name": "REGION", "value": "west"}, {"name": "MODE", "value": "x"}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "500m", "memory": "256Mi"}},
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 5, "failureThreshold": 3},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "config", "mountPath": "/etc/app"}],
        })
    };
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web", "tier": "front"}},
        "spec": {
            "replicas": 3, "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [container("web"), container("proxy"), container("log")],
                    "volumes": [{"name": "data", "emptyDir": {}}, {"name": "config", "configMap": {"name": "web"}}]},
            },
        },
    })
}

fn spec() -> Spec {
    let site = SiteName::new("paris").unwrap();
    let placement = Placement {
        sites: [site.clone()].into(),
        leaving: [].into(),
        mode: Mode::Replicate,
        prime: None,
        expression: "paris".into(),
        decided_at: Hlc::from_ms(1),
        decided_by: site,
    };
    Spec {
        kind: "kubernetes".into(),
        scope: "paris".into(),
        placement,
        policy: Policy::default(),
        desired: deployment(),
        overrides: [].into(),
    }
}

fn empty(actor: u8) -> Replicant {
    Replicant::genesis(id(), &Actor::new([actor; 16])).unwrap()
}

/// A document with so many changes besides its creation.
fn aged(changes: u64) -> Replicant {
    let mut doc = empty(1);
    doc.create(&author(1), spec()).unwrap();
    for n in 0..changes {
        if n % 2 == 0 {
            doc.patch_desired(&author(n + 2), &json!({"spec": {"replicas": n}})).unwrap();
        } else {
            let id = OperationId::new(format!("o{n}")).unwrap();
            doc.operate(&author(n + 2), id, "append", Payload::Value(json!({"append": "text"})), vec![], false)
                .unwrap();
        }
    }
    doc
}

/// The same document with one more field edited, and that change.
fn one_more(doc: &Replicant) -> Vec<u8> {
    let saved = doc.clone().save();
    let mut other = Replicant::load(id(), &Actor::new([7; 16]), Some(&saved), &[]).unwrap().replicant;
    other.patch_desired(&author(99_999_999), &json!({"spec": {"replicas": -1}})).unwrap().unwrap().bytes
}

fn documents(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("document");
    group.sample_size(20);
    group.bench_function("create", |b| {
        b.iter_batched(
            || (empty(1), spec()),
            |(mut doc, spec)| doc.create(&author(1), spec).unwrap(),
            BatchSize::SmallInput,
        );
    });
    for changes in [0, 1000] {
        let doc = aged(changes);
        let mut edited = deployment();
        edited["spec"]["template"]["spec"]["containers"][1]["image"] = json!("other:2");
        group.bench_function(format!("edit one field after {changes} changes"), |b| {
            let edit = |mut doc: Replicant| {
                doc.set_desired(&author(99_999_999), &edited, None).unwrap();
                doc
            };
            b.iter_batched(|| doc.clone(), edit, BatchSize::SmallInput);
        });
        group.bench_function(format!("add one operation after {changes} changes"), |b| {
            let edit = |mut doc: Replicant| {
                let id = OperationId::new("new").unwrap();
                doc.operate(&author(99_999_999), id, "append", Payload::default(), vec![], false).unwrap();
                doc
            };
            b.iter_batched(|| doc.clone(), edit, BatchSize::SmallInput);
        });
        let change = [one_more(&doc)];
        group.bench_function(format!("apply one remote change after {changes} changes"), |b| {
            let apply = |mut doc: Replicant| {
                assert_eq!(doc.apply(&change).unwrap().new.len(), 1);
                doc
            };
            b.iter_batched(|| doc.clone(), apply, BatchSize::SmallInput);
        });
        group.bench_function(format!("read the state after {changes} changes"), |b| {
            let mut fresh = doc.clone();
            fresh.apply(&change).unwrap();
            b.iter_batched(|| fresh.clone(), |doc| black_box(doc.digest()), BatchSize::SmallInput);
        });
        let saved = doc.clone().save();
        group.bench_function(format!("load after {changes} changes"), |b| {
            b.iter(|| Replicant::load(id(), &Actor::new([9; 16]), Some(&saved), &[]).unwrap());
        });
    }
    group.sample_size(10);
    let doc = aged(10_000);
    group.bench_function("synchronise 10,000 changes to an empty site", |b| {
        b.iter(|| {
            let mut other = empty(2);
            let (mut here, mut there) = (SyncState::default(), SyncState::default());
            let mut doc = doc.clone();
            loop {
                let to = doc.sync_message(&mut here).map(|message| other.receive_sync(&mut there, &message).unwrap());
                let from = other.sync_message(&mut there).map(|message| doc.receive_sync(&mut here, &message).unwrap());
                if to.is_none() && from.is_none() {
                    break;
                }
            }
            assert_eq!(other.heads(), doc.heads());
            other
        });
    });
    group.finish();
}

criterion_group!(benches, documents);
criterion_main!(benches);
