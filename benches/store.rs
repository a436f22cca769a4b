//! What the store costs: writes, indexes, the walk that answers a query, and waking few among many.

#![allow(missing_docs)] // criterion's macro makes a public function

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use muster::consensus::Encoded;
use muster::store::command::{CatalogOp, Command, KvOp, Register};
use muster::store::model::{Check, KvEntry, Node, Service, Status};
use muster::store::topic::Topic;
use muster::store::{State, StateBuilder, Touched, Watchers};

const INSTANCES: usize = 1_000;
const KEYS: usize = 100_000;
const PARKED: usize = 100_000;
const KEYS_OF_A_SNAPSHOT: usize = 1_000_000;

fn register(number: usize, output: &str) -> Command {
    let node = format!("node-{number}");
    let check = |id: &str, service_id: &str| Check {
        check_id: id.into(),
        name: id.into(),
        service_id: service_id.into(),
        status: Status::Passing,
        output: output.into(),
        ..Check::default()
    };
    let service = Service {
        id: "web".into(),
        name: "web".into(),
        port: 80,
        tags: vec!["v1".into()],
        ..Service::default()
    };
    Command::Catalog(CatalogOp::Register(Box::new(Register {
        node: Node { node, address: format!("10.0.{}.{}", number / 250, number % 250), ..Node::default() },
        service: Some(service),
        checks: vec![check("serfHealth", ""), check("service:web", "web")],
        ..Register::default()
    })))
}

fn set(number: usize, value: &str) -> Command {
    let key = format!("apps/{}/settings/{number}", number % 100);
    Command::Kv(KvOp::Set(KvEntry { key: key.into(), value: value.into(), ..KvEntry::default() }))
}

fn apply(state: &mut State, encoded: &Encoded) -> Touched {
    let mut touched = Touched::new();
    state.apply(state.index() + 1, encoded.command(), &mut touched);
    touched
}

fn filled() -> State {
    let mut state = State::new();
    for number in 0..INSTANCES {
        apply(&mut state, &Encoded::of(&register(number, "")));
    }
    for number in 0..KEYS {
        apply(&mut state, &Encoded::of(&set(number, "value")));
    }
    state
}

/// Applies batches of 100 as the control core does: on a copy of what is published.
fn writes(c: &mut Criterion, state: &State) {
    let batches = [
        (
            "apply/100 changed checks",
            (0..100).map(|n| Encoded::of(&register(n, "new output"))).collect::<Vec<_>>(),
        ),
        (
            "apply/100 registers that say nothing new",
            (0..100).map(|n| Encoded::of(&register(n, ""))).collect(),
        ),
        ("apply/100 kv sets", (0..100).map(|n| Encoded::of(&set(n * 997, "other"))).collect()),
    ];
    for (name, batch) in &batches {
        c.bench_function(name, |b| {
            b.iter_batched(
                || state.clone(),
                |mut state| {
                    for encoded in batch {
                        black_box(apply(&mut state, encoded));
                    }
                    state
                },
                BatchSize::SmallInput,
            )
        });
    }
    let command = register(1, "some output of a check");
    c.bench_function("encode/register", |b| b.iter(|| Encoded::of(black_box(&command))));
}

fn reads(c: &mut Criterion, state: &State) {
    let topics = [
        ("topic_index/key", Topic::Key(b"apps/50/settings/50"[..].into())),
        ("topic_index/prefix of 1,000", Topic::KeyPrefix(b"apps/50/"[..].into())),
        ("topic_index/prefix of 100,000", Topic::KeyPrefix(b"apps/"[..].into())),
        ("topic_index/service health", Topic::ServiceHealth("web".into())),
    ];
    for (name, topic) in &topics {
        c.bench_function(name, |b| b.iter(|| state.topic_index(black_box(topic))));
    }
    c.bench_function("instances/walk 1,000 with their checks", |b| {
        b.iter(|| {
            state
                .instances(black_box("web"))
                .filter(|it| it.checks().all(|check| check.status != Status::Critical))
                .map(|it| it.node.address.len() + it.service.port as usize)
                .sum::<usize>()
        })
    });
    c.bench_function("kv/walk a prefix of 1,000", |b| {
        b.iter(|| state.kv_under(black_box(b"apps/50/")).map(|row| row.value.len()).sum::<usize>())
    });
    c.bench_function("clone", |b| b.iter(|| state.clone()));
}

fn wakes(c: &mut Criterion) {
    let mut watchers = Watchers::new();
    for number in 0..PARKED {
        let topic = match number % 3 {
            0 => Topic::Key(format!("apps/{number}/key").into_bytes().into()),
            1 => Topic::KeyPrefix(format!("apps/{number}/").into_bytes().into()),
            _ => Topic::ServiceHealth(format!("service-{number}").into()),
        };
        watchers.insert(topic, number);
    }
    let mut touched = Touched::new();
    touched.add(Topic::Key(b"apps/1/key"[..].into()));
    touched.add(Topic::Key(b"apps/3/key"[..].into()));
    touched.add(Topic::ServiceHealth("service-2".into()));
    let mut woken = Vec::new();
    c.bench_function("wake/3 of 100,000 and park them again", |b| {
        b.iter(|| {
            watchers.wake(&touched, &mut woken);
            assert_eq!(woken.len(), 3);
            watchers.insert(Topic::KeyPrefix(b"apps/1/"[..].into()), 1);
            watchers.insert(Topic::Key(b"apps/3/key"[..].into()), 3);
            watchers.insert(Topic::ServiceHealth("service-2".into()), 2);
            woken.clear();
        })
    });
}

/// What a snapshot costs whoever takes one, and a restart: all keys of 64-byte values as sections, and back.
fn snapshots(c: &mut Criterion) {
    let mut state = State::new();
    let value = "v".repeat(64);
    for number in 0..KEYS_OF_A_SNAPSHOT {
        apply(&mut state, &Encoded::of(&set(number, &value)));
    }
    let mut group = c.benchmark_group("snapshot");
    group.sample_size(10);
    group.bench_function("1,000,000 keys as sections", |b| {
        b.iter(|| state.sections().map(|section| section.bytes.len()).sum::<usize>())
    });
    let sections: Vec<_> = state.sections().collect();
    drop(state);
    group.bench_function("1,000,000 keys from sections", |b| {
        b.iter_with_large_drop(|| {
            let mut builder = StateBuilder::new();
            for section in &sections {
                builder.section(section.kind, section.version, &section.bytes).expect("our own bytes");
            }
            builder.finish().expect("our own sections")
        })
    });
    group.finish();
}

fn store(c: &mut Criterion) {
    let state = filled();
    writes(c, &state);
    reads(c, &state);
    wakes(c);
    snapshots(c);
}

criterion_group!(benches, store);
criterion_main!(benches);
