//! A client agent answers as a server does: it asks one, and another when that one dies, falls silent or leaves.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::clients::Fleet;
use super::harness::SOON;
use super::support::http::{self, Request};
use super::support::wait;

/// For what is to take less than a second, on a machine that may be busy with something else.
const MOVED: Duration = Duration::from_secs(3);

impl Fleet {
    fn http(&self) -> u16 {
        self.cluster.servers[self.client].http
    }

    /// The server that the client asks.
    fn asked(&self) -> usize {
        let log = self.cluster.servers[self.client].log();
        let last = log.lines().rev().find_map(|line| line.split("asking server s").nth(1));
        let number = last.expect("it has asked one").split(' ').next().expect("a number");
        number.parse().expect("a number")
    }

    fn put(&self, path: &str, body: &Value) -> u16 {
        http::put(self.http(), path, body.to_string()).expect("an answer").status
    }

    fn text(&self, path: &str) -> (u16, String) {
        let reply = http::get(self.http(), path).expect("an answer");
        (reply.status, reply.text())
    }
}

#[test]
fn every_endpoint_of_a_client_answers_as_the_server_s() {
    let fleet = Fleet::start(1);
    let server = fleet.cluster.servers[0].http;
    assert!(fleet.cluster.servers[fleet.client].try_put("a/b", "1"));
    let service = json!({"Name": "web", "Port": 80, "Check": {"TTL": "60s"}});
    assert_eq!(fleet.put("/v1/agent/service/register", &service), 200);
    let node = json!({"Node": "ext", "Address": "10.0.0.9", "Service": {"Service": "db"}});
    assert_eq!(fleet.put("/v1/catalog/register", &node), 200);
    for path in [
        "/v1/kv/a/b",
        "/v1/kv/a?keys",
        "/v1/kv/none",
        "/v1/catalog/nodes?pretty",
        "/v1/catalog/services",
        "/v1/catalog/service/web",
        "/v1/catalog/datacenters",
        "/v1/health/service/web",
        "/v1/health/service/web?passing&filter=Node.Node==nobody",
        "/v1/health/node/ext",
        "/v1/health/state/any",
        "/v1/status/leader",
        "/v1/status/peers",
        "/v1/operator/raft/configuration",
        "/v1/operator/autopilot/configuration",
        "/v1/kv/a?index=abc",
        "/v1/catalog/service/",
    ] {
        let (here, there) =
            (http::get(fleet.http(), path).expect("an answer"), http::get(server, path).expect("an answer"));
        assert_eq!((here.status, here.text()), (there.status, there.text()), "{path}");
        for header in ["content-type", "x-consul-index", "x-consul-effective-consistency", "vary"] {
            assert_eq!(here.header(header), there.header(header), "{header} of {path}");
        }
    }
    let refused = "/v1/catalog/nodes?filter=bad+x";
    let (here, there) = (fleet.text(refused), http::get(server, refused).expect("an answer"));
    assert_eq!(here, (500, format!("rpc error making call: {}", there.text())));
    // What is only between agents is on no public door.
    for port in [fleet.http(), server] {
        let reply = http::get(port, "/v1/internal/rpc/stamp?node=ext").expect("an answer");
        assert_eq!(reply.status, 404);
    }
}

#[test]
fn blocking_queries_and_archives_go_through_a_client() {
    let fleet = Fleet::start(1);
    assert!(fleet.cluster.servers[fleet.client].try_put("k", "1"));
    let index = fleet.cluster.servers[fleet.client].get("/v1/kv/k").expect("an answer").index();
    let path = format!("/v1/kv/k?raw&index={index}&wait=60s");
    let answers = thread::scope(|scope| {
        let waiting: Vec<_> = (0..20).map(|_| scope.spawn(|| fleet.text(&path))).collect();
        thread::sleep(Duration::from_millis(300));
        assert!(fleet.cluster.servers[0].try_put("k", "2"));
        waiting.into_iter().map(|waiter| waiter.join().expect("it ends")).collect::<Vec<_>>()
    });
    assert!(answers.iter().all(|answer| *answer == (200, "2".to_owned())), "{answers:?}");

    // Larger than all windows on the way.
    for n in 0..12u64 {
        let value: String =
            (0..500_000u64).map(|at| char::from(b'!' + ((at * 7919 + n) % 90) as u8)).collect();
        assert!(fleet.cluster.servers[fleet.client].try_put(&format!("big/{n}"), &value));
    }
    let archive = http::get(fleet.http(), "/v1/snapshot").expect("an archive");
    assert_eq!((archive.status, archive.header("content-type")), (200, Some("application/x-gzip")));
    assert!(archive.header("x-consul-index").is_some());
    let before = fleet.text("/v1/kv/big?recurse").1;
    assert!(before.len() > 6_000_000);
    assert_eq!(
        Request::new("DELETE", "/v1/kv/big?recurse").send(fleet.http()).expect("an answer").status,
        200
    );
    let restored = http::put(fleet.http(), "/v1/snapshot", archive.body).expect("an answer");
    assert_eq!((restored.status, restored.text()), (200, String::new()));
    let rows = |text: &str| serde_json::from_str::<Value>(text).expect("rows");
    assert_eq!(rows(&fleet.text("/v1/kv/big?recurse").1), rows(&before));
}

#[test]
fn a_client_whose_server_dies_goes_on_with_another_at_once() {
    let mut fleet = Fleet::start(3);
    assert!(fleet.cluster.servers[fleet.client].try_put("k", "1"));
    let index = fleet.cluster.servers[fleet.client].get("/v1/kv/k").expect("an answer").index();
    let asked = fleet.asked();
    let port = fleet.http();
    let path = format!("/v1/kv/k?raw&stale&index={index}&wait=60s");
    let waiting = thread::spawn(move || {
        let reply = Request::new("GET", &path).send(port).expect("an answer");
        (reply.status, reply.text())
    });
    thread::sleep(Duration::from_millis(300));
    fleet.cluster.servers[asked].kill();
    let killed = Instant::now();
    assert_eq!(fleet.text("/v1/kv/k?raw&stale"), (200, "1".into()));
    let took = killed.elapsed();
    println!("the first answer behind the death of its server: {took:?}");
    assert!(took < MOVED, "{took:?}");
    assert_ne!(fleet.asked(), asked);
    // The others elect a leader if they must; the query that waited waits there.
    wait::until_true("a write", SOON, || fleet.cluster.servers[fleet.client].try_put("k", "2"));
    assert_eq!(waiting.join().expect("it ends"), (200, "2".to_owned()));
}

#[test]
fn a_client_whose_server_stands_still_goes_on_with_another_within_a_second() {
    let fleet = Fleet::start(3);
    assert!(fleet.cluster.servers[fleet.client].try_put("k", "1"));
    let asked = fleet.asked();
    // Long enough that the connection is quiet.
    thread::sleep(Duration::from_millis(500));
    fleet.cluster.servers[asked].signal(libc::SIGSTOP);
    let stopped = Instant::now();
    assert_eq!(fleet.text("/v1/kv/k?raw&stale"), (200, "1".into()));
    let took = stopped.elapsed();
    println!("the first answer behind the standstill of its server: {took:?}");
    assert!(took < MOVED, "{took:?}");
    assert_ne!(fleet.asked(), asked);
    fleet.cluster.servers[asked].signal(libc::SIGCONT);
}

#[test]
fn a_write_is_not_sent_to_a_server_that_stands_still() {
    let fleet = Fleet::start(3);
    assert!(fleet.cluster.servers[fleet.client].try_put("k", "1"));
    let asked = fleet.asked();
    thread::sleep(Duration::from_millis(500));
    fleet.cluster.servers[asked].signal(libc::SIGSTOP);
    // The leader may be the one that stands still: then the others elect one first.
    wait::until_true("a write", SOON, || fleet.cluster.servers[fleet.client].try_put("once", "1"));
    fleet.cluster.servers[asked].signal(libc::SIGCONT);
    let rows = fleet.cluster.servers[fleet.client].ask("/v1/kv/once");
    assert_eq!(rows[0]["CreateIndex"], rows[0]["ModifyIndex"], "it took place once: {rows}");
}

#[test]
fn a_server_that_leaves_hands_its_clients_over() {
    let mut fleet = Fleet::start(3);
    assert!(fleet.cluster.servers[fleet.client].try_put("k", "1"));
    let asked = fleet.asked();
    assert_eq!(
        http::put(fleet.cluster.servers[asked].http, "/v1/agent/leave", "").expect("taken").status,
        200
    );
    let end = Instant::now() + Duration::from_secs(5);
    let mut worst = Duration::ZERO;
    while Instant::now() < end {
        let begun = Instant::now();
        assert_eq!(fleet.text("/v1/kv/k?raw&stale"), (200, "1".into()));
        worst = worst.max(begun.elapsed());
    }
    println!("the slowest answer while its server left: {worst:?}");
    assert!(worst < MOVED, "{worst:?}");
    assert_ne!(fleet.asked(), asked);
    fleet.cluster.servers[asked].await_end();
}

#[test]
fn a_client_s_services_come_back_when_the_servers_have_lost_them() {
    let fleet = Fleet::start(1);
    let service = json!({"Name": "web", "Port": 80});
    assert_eq!(fleet.put("/v1/agent/service/register", &service), 200);
    let name = fleet.cluster.servers[fleet.client].name.clone();
    let listed = |fleet: &Fleet| {
        let rows = fleet.cluster.servers[0].ask("/v1/catalog/service/web");
        rows.as_array().is_some_and(|rows| rows.iter().any(|row| row["Node"] == name.as_str()))
    };
    wait::until_true("the service in the catalog", SOON, || listed(&fleet));
    // It is not written again while nothing changes.
    let index = fleet.cluster.servers[0].get("/v1/catalog/service/web").expect("an answer").index();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(fleet.cluster.servers[0].get("/v1/catalog/service/web").expect("an answer").index(), index);
    let gone = json!({"Node": name, "ServiceID": "web"});
    let reply = http::put(fleet.http(), "/v1/catalog/deregister", gone.to_string()).expect("an answer");
    assert_eq!(reply.status, 200);
    assert!(!listed(&fleet));
    let changed = json!({"Name": "web", "Port": 81});
    assert_eq!(fleet.put("/v1/agent/service/register", &changed), 200);
    wait::until_true("the service again", SOON, || listed(&fleet));
}
