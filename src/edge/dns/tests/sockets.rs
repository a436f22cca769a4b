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
use crate::edge::dns::{Sockets, serve};
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
    cores::run(Driver::Epoll, 1, move |_| {
        async move {
            let udp = guard_bind_udp(any_port(), 1).expect("a port");
            let tcp = guard_bind(&Endpoint::Tcp(any_port()), 1, &UnixAccess::default()).expect("a port");
            let udp_at = udp[0].local_address().expect("an address");
            let Endpoint::Tcp(tcp_at) = *tcp[0].endpoint() else { panic!("not TCP") };
            let sockets = Sockets { udp, tcp };
            let service =
                serve(Published::new(dev()), Published::new(crowded()), sockets, std::future::pending());
            let _server = task::spawn(service);
            time::timeout(PATIENCE, test(udp_at, tcp_at)).await.expect("the test ends in time");
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
