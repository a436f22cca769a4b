//! Links between servers that live on one core, over real sockets.

use std::future::Future;
use std::time::Duration;

use futures_lite::future::FutureExt;
use futures_lite::io::{AsyncReadExt, AsyncWriteExt};
use muster_protocol::entry::{Configuration, Server, Suffrage};
use muster_protocol::rpc::{LinkHello, PREAMBLE};
use muster_protocol::wire::ClusterId;

use super::*;
use crate::consensus::Links as _;
use crate::runtime::cores::{self, Driver};
use crate::runtime::net::{Endpoint, Stream, UnixAccess, guard_bind};
use crate::runtime::time;

const CLUSTER: ClusterId = ClusterId([9; 16]);
const SOON: Duration = Duration::from_secs(20);

/// Runs `body` on one core.
fn on_a_core<F: Future<Output = ()> + 'static>(body: impl Fn() -> F + Send + Clone + 'static) {
    cores::run(Driver::Epoll, 1, move |_| body().boxed_local()).expect("the core runs to its end");
}

fn listener(address: &str) -> (Listener, String) {
    let endpoint = Endpoint::Tcp(address.parse().expect("an address"));
    let listener = guard_bind(&endpoint, 1, &UnixAccess::default()).expect("a free port").remove(0);
    let bound = match listener.endpoint() {
        Endpoint::Tcp(address) => address.to_string(),
        Endpoint::Unix(path) => panic!("{path:?}"),
    };
    (listener, bound)
}

/// A server with number `n`, and what it hears.
struct Node {
    id: ServerId,
    address: String,
    links: Links,
    heard: mesh::Receiver<PeerEvent>,
}

impl Node {
    async fn new(n: u8, at: &str, cluster: Option<ClusterId>, datacenter: &str) -> Node {
        let (listener, address) = listener(at);
        let (events, heard) = mesh::channel(EVENTS_MAX);
        let own = Own {
            id: ServerId([n; 16]),
            name: format!("s{n}"),
            datacenter: datacenter.to_owned(),
            address: address.clone(),
            handshake_timeout: SOON,
        };
        let belongs = Cluster::open(None).await.expect("nothing to read");
        if let Some(cluster) = cluster {
            belongs.adopt(cluster).await.expect("it belongs to none");
        }
        let links = Links::new(own, belongs, events);
        links.listen(listener);
        Node { id: ServerId([n; 16]), address, links, heard }
    }

    /// The next message; what else happens is passed over.
    async fn hear(&mut self) -> (ServerId, PeerMessage) {
        loop {
            match time::timeout(SOON, self.heard.recv()).await.expect("in time").expect("the links live") {
                PeerEvent::Message { from, message } => return (from, message),
                PeerEvent::Lost(_) => {}
            }
        }
    }

    /// Sends until there is a link.
    async fn tell(&self, to: ServerId, token: u64) {
        let start = time::now();
        while self.links.send(to, word(token)).is_err() {
            assert!(time::now() - start < SOON, "no link");
            time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn word(token: u64) -> PeerMessage {
    PeerMessage::ReadIndex { token, consistent: false }
}

fn introduce(nodes: &[&Node]) {
    let server = |node: &&Node| Server {
        id: node.id,
        name: String::new(),
        address: node.address.clone(),
        suffrage: Suffrage::Voter,
    };
    let configuration = Configuration::new(nodes.iter().map(server).collect());
    nodes.iter().for_each(|node| node.links.servers(&configuration));
}

#[test]
fn messages_arrive_in_order_on_both_ways() {
    on_a_core(async || {
        let mut a = Node::new(1, "127.0.0.1:0", Some(CLUSTER), "dc1").await;
        let mut b = Node::new(2, "127.0.0.1:0", Some(CLUSTER), "dc1").await;
        assert!(a.links.send(b.id, word(0)).is_err(), "nobody is linked yet");
        introduce(&[&a, &b]);
        a.tell(b.id, 0).await;
        for token in 1..1000 {
            assert!(a.links.send(b.id, word(token)).is_ok());
        }
        for token in 0..1000 {
            assert_eq!(b.hear().await, (a.id, word(token)));
        }
        b.tell(a.id, 7).await;
        assert_eq!(a.hear().await, (b.id, word(7)));
    });
}

#[test]
fn a_server_that_returns_is_linked_again_and_its_loss_is_told() {
    on_a_core(async || {
        let mut a = Node::new(1, "127.0.0.1:0", Some(CLUSTER), "dc1").await;
        let b = Node::new(2, "127.0.0.1:0", Some(CLUSTER), "dc1").await;
        introduce(&[&a, &b]);
        a.tell(b.id, 1).await;
        b.tell(a.id, 1).await;
        a.hear().await;
        let address = b.address.clone();
        b.links.close();
        drop(b);
        let lost = time::timeout(SOON, a.heard.recv()).await.expect("in time");
        assert_eq!(lost, Some(PeerEvent::Lost(ServerId([2; 16]))));
        let mut b = Node::new(2, &address, Some(CLUSTER), "dc1").await;
        introduce(&[&a, &b]);
        let start = time::now();
        // What was written before the loss was noticed is lost.
        loop {
            a.tell(b.id, 2).await;
            if time::timeout(Duration::from_millis(100), b.hear()).await == Some((a.id, word(2))) {
                break;
            }
            assert!(time::now() - start < SOON);
        }
    });
}

#[test]
fn a_blank_server_answers_whoever_takes_it_in() {
    on_a_core(async || {
        let mut a = Node::new(1, "127.0.0.1:0", Some(CLUSTER), "dc1").await;
        let mut blank = Node::new(2, "127.0.0.1:0", None, "dc1").await;
        // Only the cluster knows of the blank one.
        let server = |node: &Node| Server {
            id: node.id,
            name: String::new(),
            address: node.address.clone(),
            suffrage: Suffrage::Voter,
        };
        a.links.servers(&Configuration::new(vec![server(&a), server(&blank)]));
        a.tell(blank.id, 1).await;
        assert_eq!(blank.hear().await, (a.id, word(1)));
        assert_eq!(blank.links.0.cluster.id(), Some(CLUSTER));
        blank.tell(a.id, 2).await;
        assert_eq!(a.hear().await, (blank.id, word(2)));
    });
}

#[test]
fn servers_of_other_clusters_and_datacenters_are_refused() {
    on_a_core(async || {
        let own = Node::new(1, "127.0.0.1:0", Some(CLUSTER), "dc1").await;
        let hello = LinkHello {
            version: 1,
            version_min: 1,
            cluster: CLUSTER,
            datacenter: "dc1".into(),
            id: ServerId([2; 16]),
            to: own.id,
            name: "s2".into(),
            address: "127.0.0.1:1".into(),
        };
        assert_eq!(accept::admit(&own.links, &hello).await, Ok(()));
        for (hello, reason) in [
            (LinkHello { cluster: ClusterId([1; 16]), ..hello.clone() }, "bootstrapped apart"),
            (LinkHello { datacenter: "dc2".into(), ..hello.clone() }, "datacenter dc2"),
            (LinkHello { id: own.id, ..hello.clone() }, "same node ID"),
            (LinkHello { to: ServerId([7; 16]), ..hello.clone() }, "is not here"),
            (LinkHello { version: 9, version_min: 9, ..hello.clone() }, "upgrade"),
        ] {
            let refused = accept::admit(&own.links, &hello).await.expect_err(reason);
            assert!(refused.contains(reason), "{refused}");
        }
    });
}

#[test]
fn strangers_are_shown_the_door() {
    on_a_core(async || {
        let mut own = Node::new(1, "127.0.0.1:0", Some(CLUSTER), "dc1").await;
        let endpoint = Endpoint::Tcp(own.address.parse().expect("an address"));
        let mut long = PREAMBLE.to_vec();
        long.extend([0xff; 64]);
        for said in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &long] {
            let mut stranger = Stream::connect(&endpoint, SOON).await.expect("it listens");
            stranger.write_all(said).await.expect("it reads");
            let mut answer = Vec::new();
            // Closed with or without a reset: it had not read all.
            let _ = time::timeout(SOON, stranger.read_to_end(&mut answer)).await.expect("closed in time");
            assert!(answer.is_empty());
        }
        assert!(own.heard.try_recv().is_none());
    });
}

#[test]
fn a_peer_that_takes_nothing_costs_bounded_memory() {
    on_a_core(async || {
        let outbox = Outbox::new(ServerId([2; 16]), "127.0.0.1:1");
        assert!(!outbox.push(&word(1)), "there is no link");
        outbox.open();
        let chunk = bytes::Bytes::from(vec![0; 256 << 10]);
        let mut taken = 0;
        let large = |token| PeerMessage::Forward(vec![forwarded(token, &chunk)]);
        while outbox.push(&large(taken)) {
            taken += 1;
        }
        assert!((60..70).contains(&taken), "{taken}");
        assert!(outbox.take_lost());
    });
}

fn forwarded(token: u64, body: &bytes::Bytes) -> muster_protocol::rpc::message::Forwarded {
    muster_protocol::rpc::message::Forwarded { token, body: body.clone() }
}
