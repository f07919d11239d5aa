//! How long resolution takes: one long chain, many branches at once, and beside the obvious way on small sets.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use khufu_crdt::{
    Combine, Hlc, Operation, OperationId, Operations, Payload, Policy, Resolution, SiteName, cut_for, resolve,
};

#[allow(dead_code)]
#[path = "../tests/it/obvious.rs"]
mod obvious;

const TYPES: [&str; 3] = ["set", "inc", "double"];

fn policy(entries: &[(&str, &str, &str)]) -> Policy {
    let resolution = |(before, after, result): &(&str, &str, &str)| Resolution {
        before: (*before).into(),
        after: (*after).into(),
        result: Combine::from((*result).to_owned()),
    };
    Policy { resolutions: entries.iter().map(resolution).collect(), ..Policy::default() }
}

/// As operators write it: no contradiction.
fn usual() -> Policy {
    policy(&[
        ("set", "inc", "take-both-keep-order"),
        ("set", "double", "take-both-keep-order"),
        ("double", "inc", "take-both-keep-order"),
        ("set", "set", "take-one"),
        ("inc", "inc", "take-both-any-order"),
    ])
}

/// Every pair of branches contradicts itself.
fn contradicting() -> Policy {
    policy(&[
        ("set", "inc", "take-both-keep-order"),
        ("inc", "double", "take-both-keep-order"),
        ("double", "set", "take-both-keep-order"),
        ("inc", "inc", "take-both-reverse-order"),
    ])
}

/// So many branches of so many operations each, from one first operation.
fn branches(branches: usize, length: usize) -> Operations {
    let mut operations = Operations::new();
    for branch in 0..branches {
        let mut parents = vec![];
        for n in 0..length {
            let id = OperationId::new(format!("{branch}-{n}")).unwrap();
            let op_type = TYPES[(branch + n * 2 + n / 7) % 3].to_owned();
            let by = SiteName::new(format!("s{branch}")).unwrap();
            let at = Hlc((n * branches + branch) as u64);
            let operation =
                Operation { id: id.clone(), op_type, parents, cut: false, at, by, payload: Payload::default() };
            parents = vec![id.clone()];
            operations.insert(id, operation);
        }
    }
    operations
}

fn chains(c: &mut Criterion) {
    let mut group = c.benchmark_group("one chain");
    group.sample_size(10);
    for length in [1_000, 10_000, 100_000] {
        let operations = branches(1, length);
        group.throughput(Throughput::Elements(length as u64));
        group.bench_with_input(BenchmarkId::from_parameter(length), &operations, |b, operations| {
            b.iter(|| resolve(black_box(operations), &usual()));
        });
    }
    group.finish();
}

fn concurrent(c: &mut Criterion) {
    let mut group = c.benchmark_group("branches");
    group.sample_size(10);
    for (number, length) in [(2, 500), (5, 200), (64, 20)] {
        let operations = branches(number, length);
        for (name, policy) in [("usual", usual()), ("contradicting", contradicting())] {
            let name = BenchmarkId::new(name, format!("{number}x{length}"));
            group.bench_with_input(name, &operations, |b, operations| {
                b.iter(|| resolve(black_box(operations), &policy));
            });
        }
    }
    group.finish();
}

fn beside_the_obvious_way(c: &mut Criterion) {
    let mut group = c.benchmark_group("40 operations");
    group.sample_size(10);
    let operations = branches(5, 8);
    let policy = contradicting();
    assert_eq!(resolve(&operations, &policy), obvious::Oracle::new(&operations, &policy).resolve());
    group.bench_function("crate", |b| b.iter(|| resolve(black_box(&operations), &policy)));
    group.bench_function("obvious", |b| b.iter(|| obvious::Oracle::new(black_box(&operations), &policy).resolve()));
    let ends: Vec<OperationId> = (0..5).map(|n| OperationId::new(format!("{n}-7")).unwrap()).collect();
    group.bench_function("cut of the next", |b| b.iter(|| cut_for(black_box(&operations), &ends, "set", &policy)));
    group.finish();
}

criterion_group!(benches, chains, concurrent, beside_the_obvious_way);
criterion_main!(benches);
