//! Recursors, played by sockets of the test's own core.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use futures_lite::FutureExt;
use muster_protocol::dns::record::{Data, Owner};
use muster_protocol::dns::{flag, rtype};

use super::*;
use crate::edge::dns::lookup::External;
use crate::edge::dns::recursion::{addresses, forward};
use crate::runtime::cores::{self, Driver};
use crate::runtime::net::Udp;
use crate::runtime::task;

/// Runs `body` on one core.
fn on_core<F: Future<Output = ()> + 'static>(body: impl Fn() -> F + Send + Clone + 'static) {
    cores::run(Driver::Epoll, 1, move |_| body().boxed_local()).expect("the core runs to its end");
}

fn settings(recursors: Vec<SocketAddr>, timeout: Duration) -> DnsSettings {
    DnsSettings::from_parts(DnsConfig { recursors, recursor_timeout: timeout, ..config() }, "dc1")
}

/// A recursor that answers every question with `code` and, if that is 0, the address 192.0.2.1.
fn recursor(code: u8) -> (SocketAddr, Rc<RefCell<usize>>) {
    let socket = Udp::bind((Ipv4Addr::LOCALHOST, 0).into(), false).expect("a port");
    let address = socket.local_address().expect("an address");
    let asked = Rc::new(RefCell::new(0));
    let count = asked.clone();
    task::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (len, from) = socket.recv_from(&mut buffer).await.expect("a query");
            *count.borrow_mut() += 1;
            let mut reply = buffer[..len].to_vec();
            reply[2..4].copy_from_slice(&(flag::QR | flag::RD | flag::RA | u16::from(code)).to_be_bytes());
            if code == 0 {
                reply[7] = 1;
                reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 77, 0, 4, 192, 0, 2, 1]);
            }
            // A forged reply first: it must be passed over.
            let mut forged = reply.clone();
            forged[0] ^= 0xff;
            socket.send_to(&forged, from).await.expect("sent");
            socket.send_to(&reply, from).await.expect("sent");
        }
    })
    .detach();
    (address, asked)
}

#[test]
fn the_first_good_recursor_answers() {
    on_core(|| async {
        let (refusing, refused) = recursor(5);
        let (good, _) = recursor(0);
        let settings = settings(vec![refusing, good], Duration::from_secs(5));
        let query = packet("WWW.example.com", rtype::A, None);
        let reply = forward(&query, &settings, false).await.expect("a reply");
        assert_eq!(reply[..2], query[..2]);
        let read = read(reply);
        assert_eq!(read.head, "NOERROR qr rd ra");
        assert_eq!(read.answer, ["WWW.example.com. 77 A 192.0.2.1"]);
        assert_eq!(*refused.borrow(), 1);
    });
}

#[test]
fn silence_and_errors_of_all_recursors_are_a_failure() {
    on_core(|| async {
        let deaf = Udp::bind((Ipv4Addr::LOCALHOST, 0).into(), false).expect("a port");
        let (failing, _) = recursor(2);
        let silent = deaf.local_address().expect("an address");
        let settings = settings(vec![silent, failing], Duration::from_millis(20));
        assert_eq!(forward(&packet("example.com", rtype::A, None), &settings, false).await, None);
    });
}

#[test]
fn named_addresses_are_looked_up() {
    on_core(|| async {
        let (good, _) = recursor(0);
        let settings = settings(vec![good], Duration::from_secs(5));
        let name = Name::parse("www.example.com").expect("a name");
        let records = addresses(&name, &settings).await;
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].owner, Owner::Name(name));
        assert_eq!(records[0].data, Data::A(Ipv4Addr::new(192, 0, 2, 1)));
    });
}

#[test]
fn an_alias_to_the_outside_waits_for_what_recursors_say() {
    let recursors = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 9))];
    let mut bench = Bench::new(DnsConfig { recursors, ..config() });
    bench.instance("ext", "www.example.com", "ext", 443);
    let query = packet("ext.service.consul", rtype::A, None);
    let how = Circumstances { tcp: false, unix_time: NOW, unproven: false };
    let reply = bench.responder.respond(&bench.state, &query, how, &mut [0; 4096]);
    let Reply::Later(later) = reply else { panic!("answered at once: {reply:?}") };
    let name = Name::parse("www.example.com").expect("a name");
    assert_eq!(later.wanted, std::slice::from_ref(&name));
    let data = Data::A(Ipv4Addr::new(192, 0, 2, 1));
    let record = muster_protocol::dns::record::Record { owner: Owner::Name(name.clone()), ttl: 77, data };
    let external = External::from([(name, vec![record])]);
    let reply = bench.responder.respond_with(&bench.state, &later, &external, how).expect("a reply");
    let read = read(reply);
    assert_eq!(read.head, "NOERROR qr aa rd ra");
    assert_eq!(
        read.answer,
        ["ext.service.consul. 0 CNAME www.example.com.", "www.example.com. 0 A 192.0.2.1"]
    );
}
