//! What one HTTP request costs between the two system calls: its parse, an answer from the cache, and a health
//! answer that has to be rendered first.

#![allow(missing_docs)] // criterion's macro makes a public function

use std::hint::black_box;
use std::rc::Rc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use muster::agent::{self, LocalState};
use muster::config::build::Host;
use muster::config::sources::{Sources, agent_flags};
use muster::config::{Config, flags};
use muster::consensus::{self, Encoded};
use muster::edge::fresh::Freshness;
use muster::edge::http::cache::{Cache, Moment, group_key};
use muster::edge::http::clock::Clock;
use muster::edge::http::exchange::{Outcome, Peer, Read};
use muster::edge::http::policy::Policy;
use muster::edge::http::router::Router;
use muster::edge::http::{Edge, limits, routes};
use muster::metrics::routes::Meters;
use muster::runtime::publish::Published;
use muster::store::command::{CatalogOp, Command, Register};
use muster::store::model::{Check, Node, Service, Status};
use muster::store::{State, Touched};
use muster_protocol::http::{Head, Target, head_end, http_date};

const INSTANCES: usize = 100;
const REQUEST: &[u8] = b"GET /v1/health/service/web?passing HTTP/1.1\r\nHost: 127.0.0.1:8500\r\n\
    User-Agent: Go-http-client/1.1\r\nAccept: */*\r\n\r\n";

fn config() -> Config {
    let words = ["-dev", "-node=n", "-bind=127.0.0.1", "-advertise=127.0.0.1"].map(str::to_owned);
    let parsed = flags::parse(&agent_flags(), &words).expect("flags");
    let host = Host { name: "n".to_owned(), interfaces: Vec::new() };
    let mut config = Sources::from_flags(&parsed).expect("sources").load_on(&host).expect("configuration");
    config.dev_mode = false;
    config
}

fn state() -> State {
    let mut state = State::new();
    for i in 0..INSTANCES {
        let node = format!("node-{i}");
        let service = Service {
            id: "web".into(),
            name: "web".into(),
            tags: vec!["a".into(), "b".into()],
            port: 80,
            ..Service::default()
        };
        let check = |id: &str, of: &str| Check {
            node: node.clone(),
            check_id: id.into(),
            name: id.into(),
            status: Status::Passing,
            output: "Agent alive and reachable".into(),
            service_id: of.into(),
            ..Check::default()
        };
        let register = Register {
            node: Node { node: node.clone(), address: format!("10.0.0.{i}"), ..Node::default() },
            service: Some(service),
            checks: vec![check("serfHealth", ""), check("service:web", "web")],
            ..Register::default()
        };
        let command = Encoded::of(&Command::Catalog(CatalogOp::Register(Box::new(register))));
        let index = state.index() + 1;
        state.apply(index, command.command(), &mut Touched::new());
    }
    state
}

/// The read that the handler of [`REQUEST`] gives, and the key of its group.
fn read(edge: &Rc<Edge>, policy: &Policy, router: &Router) -> (Read, Vec<u8>) {
    let head = Head::parse(Bytes::from_static(REQUEST), limits::HEAD).expect("a good request");
    let Target::Path { raw_query, .. } = head.target.clone() else { panic!("a path") };
    let Ok(admitted) = policy.admit(router, head, Peer::Unix) else { panic!("a route") };
    let request = admitted.request;
    let key = group_key(&request.path, &raw_query, &request.headers, false, false);
    match (admitted.route.handler)(edge, &request) {
        Ok(Outcome::Read(read)) => (read, key),
        _ => panic!("a health query is a read"),
    }
}

fn requests(c: &mut Criterion) {
    c.bench_function("http/parse a request", |b| {
        b.iter(|| {
            let raw = black_box(REQUEST);
            assert_eq!(head_end(raw, 0), Some(raw.len()));
            Head::parse(Bytes::from_static(raw), limits::HEAD)
        });
    });

    let state = state();
    let (proposals, published, _runner) = consensus::open(String::new());
    published.store(state.clone());
    let config = Published::new(config());
    let local = Published::new(LocalState::default());
    let edge = Rc::new(Edge::new(config.clone(), published, proposals, local, agent::door().0));
    let policy = Policy::new(config.load_full());
    let router = routes();
    let date = http_date(0);
    let moment = |epoch| Moment { date: &date, second: 0, extra: policy.extra_head(Peer::Unix), epoch };
    let shown = Freshness::Leader.confirmed();

    let mut cache = Cache::default();
    let mut clock = Clock::start();
    let (first, key) = read(&edge, &policy, &router);
    let mut meters = Meters::default();
    let meter = meters.of("GET", "/v1/health/service/");
    let plan = cache.adopt(first, meter, b"", Some(key), false, Some(REQUEST));
    let length = plan.group.with_wire(&state, moment(0), shown, muster::edge::http::respond::Wire::len);
    let mut group = c.benchmark_group(format!("http/health of {INSTANCES} instances"));
    group.throughput(Throughput::Bytes(length as u64));
    group.bench_function("from the cache", |b| {
        b.iter(|| {
            let raw = black_box(REQUEST);
            assert_eq!(head_end(raw, 0), Some(raw.len()));
            let plan = cache.plan(raw).expect("it was asked before").clone();
            plan.group.meter.note(clock.lap());
            plan.group.with_wire(&state, moment(0), shown, |wire| wire.len())
        });
    });
    let mut epoch = 0;
    group.bench_function("rendered", |b| {
        b.iter(|| {
            epoch += 1;
            plan.group.with_wire(&state, moment(epoch), shown, |wire| wire.len())
        });
    });
    group.finish();
}

criterion_group!(benches, requests);
criterion_main!(benches);
