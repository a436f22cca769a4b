//! The fronts on real sockets of one core.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt};
use muster_protocol::dns::rtype;

use super::*;
use crate::config::build::Host;
use crate::config::sources::{Sources, agent_flags};
use crate::config::{Config, flags};
use crate::consensus::{Consistency, Contact, ProposeError};
use crate::edge::dns::{Sockets, serve};
use crate::edge::fresh::Leadership;
use crate::edge::fresh::puppet::{FOLLOWER, LEADER, Puppet};
use crate::metrics::{Counter, counted};
use crate::runtime::cores::{self, Driver};
use crate::runtime::net::{Endpoint, Stream, Udp, UnixAccess, guard_bind, guard_bind_udp};
use crate::runtime::publish::Published;
use crate::runtime::{task, time};

const PATIENCE: Duration = Duration::from_secs(10);
/// More than the smallest answer that is too long for one datagram of ours.
const CROWD: usize = 200;

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn crowded() -> State {
    let mut bench = Bench::new(config());
    bench.instance("alone", "10.0.0.1", "web", 80);
    for number in 0..CROWD {
        bench.instance(&format!("n{number}"), &format!("10.1.0.{number}"), "crowd", 1);
    }
    bench.state
}

fn dev() -> Config {
    let words = ["-dev", "-node=n", "-bind=127.0.0.1", "-advertise=127.0.0.1"].map(str::to_owned);
    let parsed = flags::parse(&agent_flags(), &words).expect("flags");
    let host = Host { name: "n".to_owned(), interfaces: Vec::new() };
    Sources::from_flags(&parsed).expect("sources").load_on(&host).expect("a configuration")
}

/// Serves [`crowded`] on a core of the epoll driver and lets `test` talk to it: UDP address, TCP address.
fn with_server<F: Future<Output = ()> + 'static>(test: fn(SocketAddr, SocketAddr) -> F) {
    with_site(dev(), move |site| test(site.udp_at, site.tcp_at));
}

/// A server, and who plays its leader.
struct Site {
    udp_at: SocketAddr,
    tcp_at: SocketAddr,
    puppet: Rc<Puppet>,
}

fn with_site<F: Future<Output = ()> + 'static>(
    config: Config,
    test: impl Fn(Site) -> F + Clone + Send + 'static,
) {
    cores::run(Driver::Epoll, 1, move |_| {
        let (test, config) = (test.clone(), config.clone());
        async move {
            let udp = guard_bind_udp(any_port(), 1).expect("a port");
            let tcp = guard_bind(&Endpoint::Tcp(any_port()), 1, &UnixAccess::default()).expect("a port");
            let udp_at = udp[0].local_address().expect("an address");
            let Endpoint::Tcp(tcp_at) = *tcp[0].endpoint() else { panic!("not TCP") };
            let sockets = Sockets { udp, tcp };
            let puppet = Rc::new(Puppet::new(FOLLOWER));
            let leadership = Leadership::Played(puppet.clone());
            let state = Published::new(crowded());
            let service = serve(Published::new(config), state, leadership, sockets, std::future::pending());
            let _server = task::spawn(service);
            let site = Site { udp_at, tcp_at, puppet };
            time::timeout(PATIENCE, test(site)).await.expect("the test ends in time");
        }
        .boxed_local()
    })
    .expect("the core runs to its end");
}

async fn tell(stream: &mut Stream, packets: &[Vec<u8>]) {
    for packet in packets {
        stream.write_all(&(packet.len() as u16).to_be_bytes()).await.expect("sent");
        stream.write_all(packet).await.expect("sent");
    }
}

async fn hear(stream: &mut Stream) -> Read {
    let mut len = [0; 2];
    stream.read_exact(&mut len).await.expect("a length");
    let mut message = vec![0; u16::from_be_bytes(len) as usize];
    stream.read_exact(&mut message).await.expect("a message");
    read(message)
}

#[test]
fn udp_answers_many_askers_and_survives_rubbish() {
    with_server(|udp, _| async move {
        let before = counted(Counter::DnsQueries);
        let answered = Rc::new(Cell::new(0));
        let askers: Vec<_> = (0..8u16)
            .map(|asker| {
                let answered = answered.clone();
                task::spawn(async move {
                    let socket = Udp::bind(any_port(), false).expect("a port");
                    for round in 0..20u16 {
                        let mut query = packet("web.service.consul", rtype::A, None);
                        query[..2].copy_from_slice(&(asker << 8 | round).to_be_bytes());
                        socket.send_to(&[round as u8; 7], udp).await.expect("rubbish sent");
                        socket.send_to(&query, udp).await.expect("sent");
                        let mut reply = [0; 4096];
                        let (len, from) = socket.recv_from(&mut reply).await.expect("a reply");
                        assert_eq!(from, udp);
                        assert_eq!(reply[..2], query[..2], "the reply to this very question");
                        let heard = read(reply[..len].to_vec()).answer;
                        assert_eq!(heard, ["web.service.consul. 0 A 10.0.0.1"]);
                        answered.set(answered.get() + 1);
                    }
                })
            })
            .collect();
        for asker in askers {
            asker.await;
        }
        assert_eq!(answered.get(), 8 * 20);
        assert!(counted(Counter::DnsQueries) >= before + 8 * 20);
    });
}

#[test]
fn udp_sends_a_reply_that_no_batch_holds_alone() {
    with_server(|udp, _| async move {
        let socket = Udp::bind(any_port(), false).expect("a port");
        let query = packet("crowd.service.consul", rtype::SRV, Some(60_000));
        socket.send_to(&query, udp).await.expect("sent");
        let mut reply = vec![0; 65_536];
        let (len, _) = socket.recv_from(&mut reply).await.expect("a reply");
        assert!(len > crate::runtime::net::DATAGRAM_MAX, "{len} bytes");
        assert_eq!(read(reply[..len].to_vec()).answer.len(), CROWD);
    });
}

#[test]
fn tcp_answers_questions_sent_ahead_in_order_and_in_full() {
    with_server(|_, tcp| async move {
        let mut stream = Stream::connect(&Endpoint::Tcp(tcp), PATIENCE).await.expect("connected");
        let asked = ["web.service.consul", "crowd.service.consul", "alone.node.consul"];
        let packets: Vec<_> = asked.iter().map(|name| packet(name, rtype::A, None)).collect();
        tell(&mut stream, &packets).await;
        let mut answers = Vec::new();
        for _ in asked {
            answers.push(hear(&mut stream).await);
        }
        let counts: Vec<_> = answers.iter().map(|read| read.answer.len()).collect();
        assert_eq!(counts, [1, CROWD, 1]);
        // Rubbish gets no answer and does not end the conversation.
        tell(&mut stream, &[vec![0; 3], packets[0].clone()]).await;
        assert_eq!(hear(&mut stream).await.answer, ["web.service.consul. 0 A 10.0.0.1"]);
    });
}

/// A server whose answers have to be fresh.
fn with_fresh_site<F: Future<Output = ()> + 'static>(test: fn(Site) -> F) {
    let mut config = dev();
    config.dns.allow_stale = false;
    with_site(config, test);
}

async fn ask(client: &Udp, to: SocketAddr, name: &str) {
    client.send_to(&packet(name, rtype::A, None), to).await.expect("sent");
}

async fn told(client: &Udp) -> Read {
    let mut buffer = [0; 512];
    let (len, _) = client.recv_from(&mut buffer).await.expect("a reply");
    read(buffer[..len].to_vec())
}

#[test]
fn answers_that_have_to_be_fresh_wait_for_the_leader() {
    with_fresh_site(|site: Site| async move {
        let client = Udp::bind(any_port(), false).expect("a port");
        for _ in 0..2 {
            ask(&client, site.udp_at, "web.service.consul").await;
            site.puppet.end(&[Consistency::Default], Ok(())).await;
            assert_eq!(told(&client).await.answer, ["web.service.consul. 0 A 10.0.0.1"]);
        }
        // Nobody has to be asked about what is not in the state.
        ask(&client, site.udp_at, "example.com").await;
        assert_eq!(told(&client).await.head, "REFUSED qr rd");
        // Many share one.
        ask(&client, site.udp_at, "web.service.consul").await;
        while site.puppet.idles() {
            task::yield_now().await;
        }
        for _ in 0..20 {
            ask(&client, site.udp_at, "web.service.consul").await;
        }
        let mut stream = Stream::connect(&Endpoint::Tcp(site.tcp_at), PATIENCE).await.expect("connects");
        tell(&mut stream, &[packet("web.service.consul", rtype::A, None)]).await;
        ask(&client, site.udp_at, "example.com").await;
        assert_eq!(told(&client).await.head, "REFUSED qr rd", "all before it have been read");
        site.puppet.end(&[Consistency::Default], Err(ProposeError::LeadershipLost)).await;
        site.puppet.end(&[Consistency::Default], Ok(())).await;
        for _ in 0..21 {
            assert_eq!(told(&client).await.answer.len(), 1);
        }
        let mut length = [0; 2];
        while !site.puppet.idles() {
            site.puppet.end(&[Consistency::Default], Ok(())).await;
        }
        stream.read_exact(&mut length).await.expect("a reply");
        // The leader itself asks nobody.
        site.puppet.contact.set(LEADER);
        ask(&client, site.udp_at, "web.service.consul").await;
        assert_eq!(told(&client).await.answer.len(), 1);
        assert!(site.puppet.idles());
    });
}

#[test]
fn stale_answers_are_given_without_a_leader_until_they_are_too_old() {
    let mut config = dev();
    config.dns.max_stale = Duration::from_secs(5);
    config.performance.rpc_hold_timeout = Duration::from_millis(100);
    with_site(config, |site: Site| async move {
        let client = Udp::bind(any_port(), false).expect("a port");
        let orphan =
            |seconds| Contact { known_leader: false, last: Some(Duration::from_secs(seconds)), ..FOLLOWER };
        site.puppet.contact.set(orphan(5));
        ask(&client, site.udp_at, "web.service.consul").await;
        assert_eq!(told(&client).await.answer.len(), 1);
        site.puppet.contact.set(orphan(6));
        ask(&client, site.udp_at, "web.service.consul").await;
        assert_eq!(told(&client).await.head, "SERVFAIL qr aa rd");
    });
}
