//! What one DNS query costs between the two system calls: from the cache, for few and many instances, and when the
//! answer has to be looked up and compiled first.

#![allow(missing_docs)] // criterion's macro makes a public function

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use muster::config::{DnsConfig, RecursorStrategy, Soa};
use muster::consensus::Encoded;
use muster::edge::dns::responder::{Circumstances, Reply, Responder};
use muster::edge::dns::settings::DnsSettings;
use muster::store::command::{CatalogOp, Command, Register};
use muster::store::model::{Node, Service};
use muster::store::{State, Touched};
use muster_protocol::dns::name::Name;
use muster_protocol::dns::rtype;

const SERVICES: usize = 1_000;
const HOW: Circumstances = Circumstances { tcp: false, unix_time: 1_600_000_000, unproven: false };

fn config() -> DnsConfig {
    DnsConfig {
        domain: "consul.".into(),
        alt_domain: String::new(),
        recursors: Vec::new(),
        recursor_timeout: Duration::from_secs(2),
        recursor_strategy: RecursorStrategy::Sequential,
        allow_stale: true,
        max_stale: Duration::from_secs(10),
        a_record_limit: 0,
        udp_answer_limit: 3,
        disable_compression: false,
        enable_truncate: false,
        only_passing: false,
        node_ttl: Duration::ZERO,
        service_ttl: BTreeMap::new(),
        service_ttl_prefixes: Vec::new(),
        node_meta_txt: true,
        soa: Soa { refresh: 3600, retry: 600, expire: 86400, min_ttl: 0 },
        use_cache: false,
        cache_max_age: Duration::ZERO,
    }
}

fn state() -> State {
    let mut state = State::new();
    for count in [1, 3, 50] {
        for i in 0..count {
            register(
                &mut state,
                &format!("n-{count}-{i}"),
                &format!("10.0.{count}.{i}"),
                &format!("svc-{count}"),
            );
        }
    }
    for i in 0..SERVICES {
        register(
            &mut state,
            &format!("m-{i}"),
            &format!("10.1.{}.{}", i / 250, i % 250),
            &format!("many-{i}"),
        );
    }
    state
}

fn register(state: &mut State, node: &str, address: &str, service: &str) {
    let command = Command::Catalog(CatalogOp::Register(Box::new(Register {
        node: Node { node: node.into(), address: address.into(), ..Node::default() },
        service: Some(Service { id: service.into(), name: service.into(), port: 80, ..Service::default() }),
        ..Register::default()
    })));
    state.apply(state.index() + 1, Encoded::of(&command).command(), &mut Touched::new());
}

fn packet(name: &str, qtype: u16, edns: Option<u16>) -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, edns.is_some() as u8];
    packet.extend_from_slice(Name::parse(name).expect("a name").wire());
    packet.extend_from_slice(&qtype.to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    if let Some(size) = edns {
        packet.extend_from_slice(&[0, 0, 41, (size >> 8) as u8, size as u8, 0, 0, 0, 0, 0, 0]);
    }
    packet
}

fn answer(responder: &mut Responder, state: &State, packet: &[u8], out: &mut [u8]) -> usize {
    match responder.respond(black_box(state), black_box(packet), HOW, out) {
        Reply::Now(len) => len,
        other => panic!("not answered at once: {other:?}"),
    }
}

fn dns(criterion: &mut Criterion) {
    let state = state();
    let mut out = [0; 4096];
    let mut responder = Responder::new(DnsSettings::from_parts(config(), "dc1"), 1);
    for (kind, qtype) in [("A", rtype::A), ("SRV", rtype::SRV)] {
        for count in [1, 3, 50] {
            let edns = (count == 50).then_some(4096);
            let packet = packet(&format!("svc-{count}.service.consul"), qtype, edns);
            criterion.bench_function(&format!("dns hit {kind} {count}"), |bencher| {
                bencher.iter(|| answer(&mut responder, &state, &packet, &mut out));
            });
        }
        let packets: Vec<_> =
            (0..SERVICES).map(|i| packet(&format!("many-{i}.service.consul"), qtype, None)).collect();
        let mut next = 0;
        criterion.bench_function(&format!("dns hit {kind} of {SERVICES} services"), |bencher| {
            bencher.iter(|| {
                next = (next + 7) % SERVICES;
                answer(&mut responder, &state, &packets[next], &mut out)
            });
        });
    }
    let missing = packet("svc-3.service.consul", rtype::A, None);
    let settings = DnsSettings::from_parts(config(), "dc1");
    for count in [3, 50] {
        let packet = packet(&format!("svc-{count}.service.consul"), rtype::SRV, Some(4096));
        criterion.bench_function(&format!("dns miss SRV {count}"), |bencher| {
            bencher.iter_batched_ref(
                || Responder::new(settings.clone(), 1),
                |responder| answer(responder, &state, &packet, &mut out),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    // A write elsewhere makes the next question look at its topic, not at its records.
    let mut versions = [state.clone(), state];
    register(&mut versions[1], "elsewhere", "10.9.9.9", "elsewhere");
    let mut turn = 0;
    criterion.bench_function("dns hit A 3 after a write elsewhere", |bencher| {
        bencher.iter(|| {
            turn ^= 1;
            answer(&mut responder, &versions[turn], &missing, &mut out)
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    targets = dns
}
criterion_main!(benches);
