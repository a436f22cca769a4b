//! Agents ask over one connection, and are served as clients are, by real sockets on both sides.

use std::cell::RefCell;
use std::net::Ipv4Addr;

use bytes::Bytes;
use futures_lite::io::{AsyncReadExt as _, AsyncWriteExt as _};
use muster_protocol::entry::ServerId;
use muster_protocol::rpc::{RPC_PREAMBLE, RpcHello, RpcWelcome};
use muster_protocol::wire::{HELLO_LENGTH_MAX, split_frame};

use super::*;
use crate::server::rpc::{Host, Reception};
use crate::upstream::parcels::{self, Holding};
use crate::upstream::{Ask, ServerAddress, Settings, Upstream, UpstreamError};

/// Where agents dial a site.
pub(super) struct Port {
    pub server: ServerAddress,
    reception: Rc<Reception>,
    _accepting: task::Task<()>,
    /// Each connection goes through here, so that it can be broken off.
    cuts: Rc<RefCell<Vec<task::Task<()>>>>,
}

impl Port {
    pub(super) fn open(site: &Site, number: u8) -> Port {
        let endpoint = Endpoint::Tcp((Ipv4Addr::LOCALHOST, 0).into());
        let listener = guard_bind(&endpoint, 1, &UnixAccess::default()).expect("a free port").remove(0);
        let Endpoint::Tcp(address) = *listener.endpoint() else { panic!("asked for TCP") };
        let id = ServerId([number; 16]);
        let name = format!("s{number}");
        let host = Host { name: name.clone(), id: id.to_string(), datacenter: "dc1".into() };
        let reception = Rc::new(Reception::new(host, site.config.clone(), vec![site.guests.clone()]));
        let inner = guard_bind(&endpoint, 1, &UnixAccess::default()).expect("a free port").remove(0);
        let behind = inner.endpoint().clone();
        let (receiving, cuts) = (reception.clone(), Rc::new(RefCell::new(Vec::new())));
        let cutting = cuts.clone();
        let accepting = task::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.expect("accepts");
                let mut near = Stream::from(socket);
                let mut preamble = [0; 16];
                near.read_exact(&mut preamble).await.expect("a preamble");
                assert_eq!(preamble, RPC_PREAMBLE);
                let far = Stream::connect(&behind, PATIENCE).await.expect("it listens");
                let (socket, peer) = inner.accept().await.expect("it was dialled");
                receiving.receive(socket, peer.ip());
                cutting.borrow_mut().push(task::spawn(carry(near, far)));
            }
        });
        let server = ServerAddress { id, name: name.as_str().into(), address, is_suspected: false };
        Port { server, reception, _accepting: accepting, cuts }
    }

    /// Breaks all connections off.
    fn cut(&self) {
        self.cuts.borrow_mut().clear();
    }
}

/// Carries bytes both ways until one side ends.
async fn carry(mut near: Stream, mut far: Stream) {
    let (mut there, mut back) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let read = cores::either(near.read(&mut there), far.read(&mut back)).await;
        let written = match read {
            Ok(Ok(length)) if length > 0 => far.write_all(&there[..length]).await,
            Err(Ok(length)) if length > 0 => near.write_all(&back[..length]).await,
            _ => return,
        };
        if written.is_err() {
            return;
        }
    }
}

/// An agent that knows these servers.
fn agent(servers: Vec<ServerAddress>) -> (Upstream, task::Task<()>) {
    let (upstream, dialler) = Upstream::new(settings(), move || servers.clone());
    (upstream, task::spawn(dialler.run()))
}

fn settings() -> Settings {
    Settings { node: "a".into(), id: "1".into(), datacenter: "dc1".into(), from: None }
}

async fn text(upstream: &Upstream, ask: Ask) -> (u16, String) {
    let answer = upstream.request(ask).await.expect("an answer");
    let body = answer.body.whole(64 << 20).await.expect("whole");
    (answer.status, String::from_utf8_lossy(&body).into_owned())
}

#[test]
fn requests_of_all_kinds_come_and_go() {
    with_site(|site| async move {
        let port = Port::open(&site, 1);
        let (upstream, _running) = agent(vec![port.server.clone()]);
        let put = Ask::put("/v1/kv/a", Bytes::from_static(b"1"));
        assert_eq!(text(&upstream, put).await, (200, "true".into()));
        assert_eq!(text(&upstream, Ask::get("/v1/kv/a?raw")).await, (200, "1".into()));
        assert_eq!(text(&upstream, Ask::get("/v1/kv/none?raw")).await, (404, String::new()));
        assert_eq!(text(&upstream, Ask::get("/test/later")).await, (200, "late".into()));
        assert_eq!(text(&upstream, Ask::get("/test/stream")).await, (200, "part 0\npart 1\npart 2\n".into()));
        assert_eq!(text(&upstream, Ask::get("/test/big")).await.1.len(), BIG);
        // Several at once, of which each is longer than a window.
        let body = Bytes::from(vec![b'y'; 400 << 10]);
        let asks: Vec<_> = (0..20)
            .map(|_| {
                let (upstream, body) = (upstream.clone(), body.clone());
                task::spawn(async move { text(&upstream, Ask::put("/test/echo", body)).await })
            })
            .collect();
        for asked in asks {
            assert_eq!(asked.await.expect("no panic").1.len(), body.len());
        }
        let tally = upstream.tally();
        assert_eq!((tally.requests, tally.connections), (26, 1));
    });
}

#[test]
fn what_is_for_agents_is_not_for_others_and_the_other_way_round() {
    fn guarded() -> Config {
        let mut config = config();
        config.http.block_endpoints = vec!["/v1/kv/".into()];
        config.http.response_headers.insert("X-Own".into(), "1".into());
        config
    }
    with_site_of(guarded, |site| async move {
        let port = Port::open(&site, 1);
        let (upstream, _running) = agent(vec![port.server.clone()]);
        let stamp = format!("{}?node=n", parcels::STAMP);
        let answer = upstream.request(Ask::get(stamp.as_str())).await.expect("an answer");
        assert_eq!(answer.status, 200);
        assert!(answer.headers.get("X-Own").is_none() && answer.headers.get("Vary").is_none());
        assert_eq!(answer.body.whole(8).await.expect("whole").len(), 8);
        // The same bytes from outside find nothing, however often they were answered inside.
        let mut client = site.client().await;
        client.send(format!("GET {stamp} HTTP/1.1\r\nHost: muster\r\n\r\n")).await;
        assert_eq!(client.answer().await.status, 404);
        assert_eq!(text(&upstream, Ask::get("/v1/agent/self")).await.0, 404);
        // The agent blocks its own endpoints.
        assert_eq!(text(&upstream, Ask::get("/v1/kv/a")).await.0, 404);
        assert_eq!(client.get("/v1/kv/a").await.status, 403);
        let compact = text(&upstream, Ask::get("/v1/status/peers")).await.1;
        assert!(!compact.contains('\n'), "who formats is the agent: {compact}");
        let own = client.get("/v1/status/peers").await;
        assert!(own.text().contains('\n') && own.header("X-Own") == Some("1"));
    });
}

#[test]
fn writes_of_agents_are_checked_and_told_one_by_one() {
    with_site(|site| async move {
        let port = Port::open(&site, 1);
        let (upstream, _running) = agent(vec![port.server.clone()]);
        let set = |key: &str| {
            let entry = KvEntry { key: key.into(), value: b"v".to_vec(), ..KvEntry::default() };
            consensus::Encoded::of(&Command::Kv(KvOp::Set(entry)))
        };
        let writes = [set("a"), set("b"), set("c")];
        let answer = upstream.request(Ask::put(parcels::PROPOSE, parcels::put_writes(&writes))).await;
        let body = answer.expect("an answer").body.whole(1000).await.expect("whole");
        assert_eq!(parcels::take_outcomes(&body).expect("sound").len(), 3);
        assert_eq!(text(&upstream, Ask::get("/v1/kv/c?raw")).await, (200, "v".into()));
        // About the longest there may be arrives, and more beside it.
        let set = |key: &str, length: usize| {
            let entry = KvEntry { key: key.into(), value: vec![0; length], ..KvEntry::default() };
            consensus::Encoded::of(&Command::Kv(KvOp::Set(entry)))
        };
        let writes = [set("d", consensus::COMMAND_LENGTH_MAX - (1 << 10)), set("e", 2 << 10)];
        assert_eq!(text(&upstream, Ask::put(parcels::PROPOSE, parcels::put_writes(&writes))).await.0, 200);
        let bad = Ask::put(parcels::PROPOSE, Bytes::from_static(b"\x01\0\0\0\x02\0\0\0xx"));
        assert_eq!(text(&upstream, bad).await.0, 400);
        let node = upstream.request(Ask::get(format!("{}?node=n", parcels::NODE))).await.expect("an answer");
        let holding = Holding::decode(&node.body.whole(1000).await.expect("whole")).expect("sound");
        assert_eq!(holding.node, None);
    });
}

/// Waits until a blocking query of an agent waits at the server.
async fn parked(upstream: &Upstream) -> task::Task<(u16, String)> {
    let asking = upstream.clone();
    let index = upstream.request(Ask::get("/v1/kv/k")).await.expect("an answer");
    let index = index.headers.get("X-Consul-Index").expect("an index").to_owned();
    let task =
        task::spawn(
            async move { text(&asking, Ask::get(format!("/v1/kv/k?raw&index={index}&wait=60s"))).await },
        );
    // Behind it on the same connection.
    time::sleep(Duration::from_millis(20)).await;
    assert_eq!(text(upstream, Ask::get("/v1/status/leader")).await.0, 200);
    task
}

#[test]
fn a_parked_query_moves_with_its_agent() {
    with_site(|site| async move {
        site.put("k", "1").await;
        let (one, two) = (Port::open(&site, 1), Port::open(&site, 2));
        let servers = Published::new(vec![one.server.clone()]);
        let seen = servers.clone();
        let (upstream, dialler) = Upstream::new(settings(), move || seen.load().to_vec());
        let _running = task::spawn(dialler.run());
        let waiting = parked(&upstream).await;
        assert_eq!(upstream.tally().connections, 1);
        // Another server is known, and the first breaks off.
        servers.store(vec![two.server.clone(), one.server.clone()]);
        one.cut();
        site.put("k", "2").await;
        assert_eq!(waiting.await, Some((200, "2".into())));
        assert_eq!(upstream.tally().connections, 2);
    });
}

#[test]
fn now_and_then_another_server_is_drawn_and_what_waits_comes_along() {
    with_site(|site| async move {
        site.put("k", "1").await;
        let ports = [Port::open(&site, 1), Port::open(&site, 2)];
        let servers: Vec<_> = ports.iter().map(|port| port.server.clone()).collect();
        let (upstream, dialler) = Upstream::new(settings(), move || servers.clone());
        let _running = task::spawn(dialler.keeping(Duration::from_millis(1)).run());
        let waiting = parked(&upstream).await;
        while upstream.tally().connections < 2 {
            time::sleep(Duration::from_millis(10)).await;
        }
        time::sleep(Duration::from_millis(50)).await;
        site.put("k", "2").await;
        assert_eq!(waiting.await, Some((200, "2".into())));
    });
}

#[test]
fn a_server_that_leaves_takes_nothing_new() {
    with_site(|site| async move {
        site.put("k", "1").await;
        let port = Port::open(&site, 1);
        let (upstream, _running) = agent(vec![port.server.clone()]);
        assert_eq!(text(&upstream, Ask::get("/v1/kv/k?raw")).await.0, 200);
        port.reception.leave().await;
        time::sleep(Duration::from_millis(20)).await;
        let error = upstream.request(Ask::get("/v1/kv/k?raw")).await.err().expect("refused").to_string();
        assert!(error.ends_with("server s1 refuses: server s1 is leaving"), "{error}");
    });
}

#[test]
fn whoever_gives_up_leaves_nothing_behind() {
    with_site(|site| async move {
        site.put("k", "1").await;
        let port = Port::open(&site, 1);
        let (upstream, running) = agent(vec![port.server.clone()]);
        let waiting = parked(&upstream).await;
        drop(waiting);
        // A later request on the same connection comes behind the reset.
        assert_eq!(text(&upstream, Ask::get("/v1/status/leader")).await.0, 200);
        let waiting = parked(&upstream).await;
        drop(running);
        assert!(matches!(
            upstream.request(Ask::get("/v1/status/leader")).await,
            Err(UpstreamError::Stopping)
        ));
        drop(waiting);
    });
}

/// A server that greets and then says nothing.
async fn mute(number: u8) -> (ServerAddress, task::Task<()>) {
    let endpoint = Endpoint::Tcp((Ipv4Addr::LOCALHOST, 0).into());
    let listener = guard_bind(&endpoint, 1, &UnixAccess::default()).expect("a free port").remove(0);
    let Endpoint::Tcp(address) = *listener.endpoint() else { panic!("asked for TCP") };
    let id = ServerId([number; 16]);
    let welcome = RpcWelcome { version: 1, name: "mute".into(), id: id.to_string(), refusal: String::new() };
    let task = task::spawn(async move {
        let mut held = Vec::new();
        loop {
            let (socket, _) = listener.accept().await.expect("accepts");
            let mut stream = Stream::from(socket);
            let mut heard = vec![0; 16];
            stream.read_exact(&mut heard).await.expect("a preamble");
            let mut frame = Vec::new();
            let mut buffer = [0; 512];
            while split_frame(&frame, HELLO_LENGTH_MAX).expect("sound").is_none() {
                let read = stream.read(&mut buffer).await.expect("a hello");
                frame.extend_from_slice(&buffer[..read]);
            }
            let (hello, _) = split_frame(&frame, HELLO_LENGTH_MAX).expect("sound").expect("whole");
            assert_eq!(RpcHello::decode(&hello).expect("a hello").name, "a");
            let mut out = Vec::new();
            welcome.encode(&mut out);
            stream.write_all(&out).await.expect("it listens");
            held.push(stream);
        }
    });
    (ServerAddress { id, name: "mute".into(), address, is_suspected: false }, task)
}

#[test]
fn a_server_that_says_nothing_is_left_within_a_second() {
    with_site(|site| async move {
        site.put("k", "1").await;
        let port = Port::open(&site, 1);
        let (silent, _mute) = mute(2).await;
        // Whichever is drawn first, a request takes less than a second; and with a few agents some begin at the silent one.
        for _ in 0..6 {
            let (upstream, _running) = agent(vec![silent.clone(), port.server.clone()]);
            let begun = time::now();
            assert_eq!(text(&upstream, Ask::get("/v1/kv/k?raw")).await, (200, "1".into()));
            assert!(time::now() - begun < Duration::from_secs(1), "{:?}", time::now() - begun);
        }
    });
}

#[test]
fn without_servers_and_without_any_that_listens_it_is_told_at_once() {
    with_site(|_site| async move {
        let (upstream, _running) = agent(Vec::new());
        assert!(!upstream.has_servers());
        assert_eq!(upstream.request(Ask::get("/")).await.err(), Some(UpstreamError::NoServers));
        let address = "127.0.0.1:1".parse().expect("an address");
        let closed = ServerAddress { id: ServerId([1; 16]), name: "s".into(), address, is_suspected: false };
        let (upstream, _running) = agent(vec![closed]);
        let error = upstream.request(Ask::get("/")).await.err().expect("nobody listens").to_string();
        assert_eq!(
            error,
            "rpc error getting client: failed to get conn: dial tcp <nil>->127.0.0.1:1: connect: connection refused"
        );
    });
}

#[test]
fn strangers_on_the_agents_port_are_shown_the_door() {
    with_site(|site| async move {
        let port = Port::open(&site, 1);
        let endpoint = Endpoint::Tcp(port.server.address);
        let mut wrong = Vec::new();
        RpcHello {
            version: 1,
            version_min: 1,
            datacenter: "dc2".into(),
            name: "far".into(),
            id: String::new(),
        }
        .encode(&mut wrong);
        for said in [&[0xff; 64][..], &wrong] {
            let mut stranger = Stream::connect(&endpoint, PATIENCE).await.expect("it listens");
            stranger.write_all(&RPC_PREAMBLE).await.expect("it reads");
            stranger.write_all(said).await.expect("it reads");
            let mut answer = Vec::new();
            let _ = time::timeout(PATIENCE, stranger.read_to_end(&mut answer)).await.expect("closed");
            if said == wrong {
                let (frame, _) = split_frame(&answer, HELLO_LENGTH_MAX).expect("sound").expect("whole");
                assert!(RpcWelcome::decode(&frame).expect("a welcome").refusal.contains("dc2"));
            } else {
                assert!(answer.is_empty());
            }
        }
    });
}
