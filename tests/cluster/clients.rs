//! Client agents answer from what they keep of the catalog: as fresh as the servers while there are any, and on without
//! them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::{Cluster, SOON};
use super::support::dns::Question;
use super::support::http::{self, Reply};
use super::support::ports::free_port;
use super::support::wait;

/// A flip of a check to another answer of a client's DNS, on a busy machine; without one it is a millisecond or two.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Servers and one client agent that has joined them.
pub struct Fleet {
    pub cluster: Cluster,
    pub servers: usize,
    pub client: usize,
    dns: u16,
}

impl Fleet {
    pub fn start(servers: usize) -> Fleet {
        let mut cluster = Cluster::start(servers);
        let client = cluster.add();
        let dns = free_port();
        let place = &cluster.servers[client];
        let ports = json!({
            "http": place.http, "dns": dns, "server": place.server_port, "serf_lan": place.serf_lan,
            "serf_wan": -1, "grpc": -1,
        });
        cluster.configure(client, &json!({"server": false, "ports": ports}));
        cluster.servers[client].start();
        let fleet = Fleet { cluster, servers, client, dns };
        wait::until_true("a client that has found the servers", SOON, || {
            fleet.client("/v1/status/leader").is_some_and(|reply| reply.status == 200)
        });
        fleet
    }

    fn client(&self, path: &str) -> Option<Reply> {
        self.cluster.servers[self.client].get(path)
    }

    /// Registers an instance of `web` through the catalog, with a check.
    fn register(&self, server: usize, node: &str, address: &str, status: &str) {
        let body = json!({
            "Node": node, "Address": address,
            "Service": {"ID": "web", "Service": "web", "Port": 80},
            "Check": {"CheckID": "c", "Name": "c", "ServiceID": "web", "Status": status},
        });
        wait::until_true("a write to the catalog", SOON, || {
            let port = self.cluster.servers[server].http;
            let put = http::put(port, "/v1/catalog/register", body.to_string());
            put.is_ok_and(|reply| reply.status == 200)
        });
    }

    /// What DNS says, without the owners.
    fn ask(&self, name: &str, kind: &str) -> Vec<String> {
        let message = Question::new(name, kind).ask(self.dns);
        let records =
            message.answer().iter().map(|line| line.split(' ').next_back().unwrap_or("").to_owned());
        let mut records: Vec<String> = records.collect();
        records.sort();
        records
    }

    fn await_web(&self, addresses: &[&str]) {
        wait::until("the client's DNS", SOON, || {
            let told = self.ask("web.service.consul", "A");
            (told == addresses).then_some(())
        });
    }

    fn kill_servers(&mut self) {
        self.cluster.servers[..self.servers].iter_mut().for_each(|server| server.kill());
    }

    fn start_servers(&mut self) {
        self.cluster.servers[..self.servers].iter_mut().for_each(|server| server.start());
    }
}

fn nodes(reply: &Reply) -> Vec<String> {
    let rows = reply.json();
    let rows = rows.as_array().cloned().unwrap_or_default();
    let name = |row: &Value| row["Node"]["Node"].as_str().or(row["Node"].as_str()).map(str::to_owned);
    rows.iter().filter_map(name).collect()
}

#[test]
fn a_flip_changes_what_a_client_s_dns_says_at_once() {
    let fleet = Fleet::start(1);
    fleet.register(0, "n1", "10.0.0.1", "passing");
    assert_eq!(fleet.ask("web.service.consul", "A"), ["10.0.0.1"]);
    fleet.register(0, "n2", "10.0.0.2", "passing");
    fleet.await_web(&["10.0.0.1", "10.0.0.2"]);
    let mut slowest = Duration::ZERO;
    for round in 0..10 {
        let (status, told): (_, &[&str]) = match round % 2 {
            0 => ("critical", &["10.0.0.1"]),
            _ => ("passing", &["10.0.0.1", "10.0.0.2"]),
        };
        fleet.register(0, "n2", "10.0.0.2", status);
        let flipped = Instant::now();
        fleet.await_web(told);
        slowest = slowest.max(flipped.elapsed());
    }
    println!("from the acknowledged flip to the client's DNS, the slowest of 10: {slowest:?}");
    assert!(slowest < AT_ONCE, "{slowest:?}");
    assert_eq!(fleet.ask("n1.node.consul", "A"), ["10.0.0.1"]);
    assert_eq!(fleet.ask("1.0.0.10.in-addr.arpa", "PTR"), ["n1.node.dc1.consul."]);
    assert_eq!(fleet.ask("0a000001.addr.consul", "A"), ["10.0.0.1"]);
    assert!(fleet.ask("none.service.consul", "A").is_empty());
    assert_eq!(fleet.ask("consul", "NS"), ["s0.node.dc1.consul."]);
}

#[test]
fn cached_reads_of_a_client_are_from_memory_and_block() {
    let fleet = Fleet::start(1);
    fleet.register(0, "n1", "10.0.0.1", "passing");
    for path in
        ["/v1/health/service/web?cached", "/v1/catalog/service/web?cached", "/v1/catalog/services?cached"]
    {
        let first = fleet.client(path).expect("an answer");
        assert_eq!(
            (first.status, first.header("x-cache"), first.header("age")),
            (200, Some("MISS"), None),
            "{path}"
        );
        let second = fleet.client(path).expect("an answer");
        assert_eq!((second.header("x-cache"), second.header("age")), (Some("HIT"), Some("0")), "{path}");
        assert_eq!(second.header("x-consul-knownleader"), Some("true"));
        assert_eq!(second.header("x-consul-effective-consistency"), Some("leader"));
        let server = fleet.cluster.servers[0].get(path).expect("an answer");
        assert_eq!((second.index(), second.json()), (server.index(), server.json()), "{path}");
    }
    let index = fleet.client("/v1/health/service/web?cached").expect("an answer").index();
    let path = format!("/v1/health/service/web?cached&passing&index={index}&wait=60s");
    let flips = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| fleet.client(&path));
        std::thread::sleep(Duration::from_millis(200));
        fleet.register(0, "n1", "10.0.0.1", "critical");
        waiting.join().expect("it ends").expect("an answer")
    });
    assert!(flips.index() > index);
    assert!(nodes(&flips).is_empty());
}

#[test]
fn without_servers_a_client_goes_on_and_with_them_it_converges() {
    let mut fleet = Fleet::start(3);
    fleet.register(0, "n1", "10.0.0.1", "passing");
    fleet.register(1, "n2", "10.0.0.2", "passing");
    fleet.await_web(&["10.0.0.1", "10.0.0.2"]);
    assert_eq!(fleet.ask("n1.node.consul", "A"), ["10.0.0.1"]);
    assert_eq!(fleet.ask("1.0.0.10.in-addr.arpa", "PTR"), ["n1.node.dc1.consul."]);
    let cached = "/v1/health/service/web?cached";
    assert_eq!(nodes(&fleet.client(cached).expect("an answer")), ["n1", "n2"]);

    fleet.kill_servers();
    for _ in 0..20 {
        assert_eq!(fleet.ask("web.service.consul", "A"), ["10.0.0.1", "10.0.0.2"]);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(fleet.ask("n1.node.consul", "A"), ["10.0.0.1"]);
    assert_eq!(fleet.ask("1.0.0.10.in-addr.arpa", "PTR"), ["n1.node.dc1.consul."]);
    let unknown = Question::new("unknown.service.consul", "A").ask(fleet.dns);
    assert_eq!(unknown.rcode, "SERVFAIL");
    let aged = wait::until("an answer that tells its age", SOON, || {
        let reply = fleet.client(cached)?;
        assert_eq!((reply.status, nodes(&reply)), (200, vec!["n1".to_owned(), "n2".to_owned()]));
        (reply.header("age")? != "0").then_some(reply)
    });
    assert_eq!((aged.header("x-cache"), aged.header("x-consul-knownleader")), (Some("HIT"), Some("false")));
    let contact: u64 = aged.header("x-consul-lastcontact").and_then(|ms| ms.parse().ok()).expect("a number");
    assert!(contact >= 1000, "{contact}");
    let stale = fleet.client("/v1/health/service/web?stale").expect("an answer");
    assert_eq!((stale.status, nodes(&stale)), (200, vec!["n1".to_owned(), "n2".to_owned()]));
    assert_eq!(stale.header("x-consul-knownleader"), Some("false"));
    assert_eq!(stale.header("x-consul-effective-consistency"), Some("stale"));
    let default = http::get(fleet.cluster.servers[fleet.client].http, "/v1/health/service/web");
    assert_eq!(default.expect("an answer").status, 500);

    fleet.start_servers();
    fleet.cluster.await_leader();
    fleet.register(0, "n2", "10.0.0.2", "critical");
    fleet.register(1, "n3", "10.0.0.3", "passing");
    fleet.await_web(&["10.0.0.1", "10.0.0.3"]);
    let back = wait::until("a cached answer as new as the servers'", SOON, || {
        fleet.client(cached).filter(|reply| reply.header("x-consul-knownleader") == Some("true"))
    });
    assert_eq!((back.header("age"), nodes(&back)), (Some("0"), vec!["n1".into(), "n2".into(), "n3".into()]));
}

/// A server that is left alone answers on: as well as it can, and says so.
#[test]
fn a_client_knows_when_its_servers_follow_no_leader() {
    let mut fleet = Fleet::start(3);
    fleet.register(0, "n1", "10.0.0.1", "passing");
    fleet.await_web(&["10.0.0.1"]);
    let known_leader = |fleet: &Fleet| {
        let reply = fleet.client("/v1/health/service/web?cached")?;
        assert_eq!(nodes(&reply), ["n1"]);
        Some(reply.header("x-consul-knownleader") == Some("true"))
    };
    assert_eq!(known_leader(&fleet), Some(true));
    fleet.cluster.servers[1..3].iter_mut().for_each(|server| server.kill());
    wait::until_true("a client that knows of the loss", SOON, || known_leader(&fleet) == Some(false));
    assert_eq!(fleet.ask("web.service.consul", "A"), ["10.0.0.1"]);
    fleet.cluster.servers[1..3].iter_mut().for_each(|server| server.start());
    wait::until_true("a client that knows of the leader", SOON, || known_leader(&fleet) == Some(true));
    fleet.register(0, "n2", "10.0.0.2", "passing");
    fleet.await_web(&["10.0.0.1", "10.0.0.2"]);
}

#[test]
fn a_client_follows_whichever_servers_there_are() {
    let mut fleet = Fleet::start(3);
    fleet.register(0, "n1", "10.0.0.1", "passing");
    fleet.await_web(&["10.0.0.1"]);
    let mut slowest = Duration::ZERO;
    for round in 0..3 {
        // Each in turn: the one that the client asks, and the leader, are among them.
        fleet.cluster.servers[round].kill();
        let (status, told): (_, &[&str]) = match round % 2 {
            0 => ("passing", &["10.0.0.1", "10.0.0.2"]),
            _ => ("critical", &["10.0.0.1"]),
        };
        fleet.register((round + 1) % 3, "n2", "10.0.0.2", status);
        let written = Instant::now();
        fleet.await_web(told);
        slowest = slowest.max(written.elapsed());
        fleet.cluster.servers[round].start();
        fleet.cluster.await_leader();
    }
    println!("from a write after the loss of a server to the client's DNS, the slowest of 3: {slowest:?}");
    assert!(slowest < AT_ONCE, "{slowest:?}");
}

#[test]
fn without_servers_a_client_knows_its_own_services() {
    let mut fleet = Fleet::start(1);
    fleet.register(0, "n1", "10.0.0.1", "passing");
    let port = fleet.cluster.servers[fleet.client].http;
    let put = |path: &str, body: Value| {
        let reply = http::put(port, path, body.to_string()).expect("an answer");
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    };
    let own =
        json!({"Name": "web", "Port": 81, "Check": {"CheckID": "own", "TTL": "1h", "Status": "passing"}});
    put("/v1/agent/service/register", own);
    fleet.await_web(&["10.0.0.1", "127.0.0.1"]);
    fleet.kill_servers();
    put("/v1/agent/check/fail/own", json!(null));
    fleet.await_web(&["10.0.0.1"]);
    put("/v1/agent/check/pass/own", json!(null));
    fleet.await_web(&["10.0.0.1", "127.0.0.1"]);
    put("/v1/agent/service/register", json!({"Name": "late", "Port": 82}));
    wait::until_true("a service that no server has heard of", SOON, || {
        fleet.ask("late.service.consul", "A") == ["127.0.0.1"]
    });
    put("/v1/agent/check/fail/own", json!(null));
    fleet.start_servers();
    wait::until_true("the client's services at the servers", SOON, || {
        let passing = |name: &str| {
            let path = format!("/v1/health/service/{name}?passing");
            fleet.cluster.servers[0].get(&path).map(|reply| nodes(&reply))
        };
        passing("web") == Some(vec!["n1".to_owned()]) && passing("late") == Some(vec!["s1".to_owned()])
    });
    fleet.await_web(&["10.0.0.1"]);
    assert_eq!(fleet.ask("late.service.consul", "A"), ["127.0.0.1"]);
}
