//! Questions to a client agent, whose state holds what was asked for before and nothing else.

use muster_protocol::dns::rtype;

use super::*;
use crate::edge::dns::lookup::Named;
use crate::edge::dns::responder::Missing;
use crate::store::View;

/// A client agent's responder, and the state of the servers.
struct Client {
    servers: Bench,
    agent: Bench,
}

impl Client {
    fn new() -> Client {
        let agent = Bench { state: State::mirror(), ..Bench::new(config()) };
        Client { servers: Bench::new(config()), agent }
    }

    fn respond(&mut self, name: &str, qtype: u16) -> Reply {
        let mut out = vec![0; MESSAGE_SIZE_MAX];
        let how = Circumstances { tcp: false, unix_time: NOW, unproven: false };
        let packet = packet(name, qtype, None);
        self.agent.responder.respond(&self.agent.state, &packet, how, &mut out)
    }

    fn missing(&mut self, name: &str, qtype: u16) -> Vec<View> {
        match self.respond(name, qtype) {
            Reply::Unheld(Missing::Views(views)) => views,
            other => panic!("{name} is told without the servers: {other:?}"),
        }
    }

    fn learn(&mut self, views: &[View]) {
        for view in views {
            let since = self.agent.state.view_index(view);
            let bytes = self.servers.state.view_since(view, since);
            self.agent.state.put_view(view, &bytes, &mut Touched::new()).unwrap();
        }
    }
}

#[test]
fn what_is_not_held_is_asked_for_and_then_told_from_memory() {
    let mut client = Client::new();
    client.servers.instance("n1", "10.0.0.1", "web", 80);
    let web = View::service("web");
    for (name, qtype) in [("web.service.consul", rtype::A), ("_WEB._tcp.service.consul", rtype::SRV)] {
        assert_eq!(client.missing(name, qtype), std::slice::from_ref(&web));
    }
    assert_eq!(client.missing("N1.node.dc1.consul", rtype::A), [View::node("n1")]);
    client.learn(&[web.clone(), View::node("n1")]);
    assert!(client.agent.responder.take_used().is_empty());
    for _ in 0..2 {
        assert_eq!(
            client.agent.ask("web.service.consul", rtype::A).answer,
            ["web.service.consul. 0 A 10.0.0.1"]
        );
    }
    assert_eq!(client.agent.ask("n1.node.consul", rtype::A).answer, ["n1.node.consul. 0 A 10.0.0.1"]);
    assert_eq!(client.agent.responder.take_used(), [web.clone(), View::node("n1")]);
    client.servers.instance("n2", "10.0.0.2", "web", 80);
    client.learn(std::slice::from_ref(&web));
    assert_eq!(client.agent.ask("web.service.consul", rtype::A).answer.len(), 2);
    client.agent.state.drop_view(&web, &mut Touched::new());
    assert_eq!(client.missing("web.service.consul", rtype::A), [web]);
}

#[test]
fn absence_is_told_once_it_is_known() {
    let mut client = Client::new();
    let (service, node) = (View::service("web"), View::node("n1"));
    assert_eq!(client.missing("x.web.service.consul", rtype::A), std::slice::from_ref(&service));
    client.learn(&[service.clone(), node]);
    for name in ["x.web.service.consul", "n1.node.consul"] {
        assert_eq!(client.agent.ask(name, rtype::A).head, "NXDOMAIN qr aa rd");
    }
    client.agent.state.drop_view(&service, &mut Touched::new());
    assert_eq!(client.missing("x.web.service.consul", rtype::A), [service]);
}

#[test]
fn another_cluster_with_the_same_indexes_is_another_answer() {
    let mut client = Client::new();
    client.servers.instance("n1", "10.0.0.1", "web", 80);
    let web = View::service("web");
    client.learn(std::slice::from_ref(&web));
    assert_eq!(client.agent.ask("web.service.consul", rtype::A).answer, ["web.service.consul. 0 A 10.0.0.1"]);
    client.servers = Bench::new(config());
    client.servers.instance("n2", "10.0.0.2", "web", 80);
    client.agent.state.begin_history();
    let everything = client.servers.state.view_since(&web, 0);
    client.agent.state.put_view(&web, &everything, &mut Touched::new()).unwrap();
    assert_eq!(client.agent.ask("web.service.consul", rtype::A).answer, ["web.service.consul. 0 A 10.0.0.2"]);
}

#[test]
fn without_servers_the_zone_is_told_and_names_are_not_denied() {
    let mut client = Client::new();
    let servers = View::service("consul");
    assert_eq!(client.missing("consul", rtype::SOA), std::slice::from_ref(&servers));
    assert_eq!(client.missing("consul", rtype::NS), [servers]);
    let how = Circumstances { tcp: false, unix_time: NOW, unproven: false };
    let mut alone = |name: &str, qtype| {
        let Client { agent, .. } = &mut client;
        let reply = agent.responder.respond_alone(&agent.state, &packet(name, qtype, None), how);
        read(reply.expect("a reply"))
    };
    let soa = alone("consul", rtype::SOA);
    assert_eq!((soa.head.as_str(), soa.answer.len(), soa.authority.len()), ("NOERROR qr aa rd", 1, 0));
    assert_eq!(alone("web.service.consul", rtype::A).head, "SERVFAIL qr aa rd");
}

#[test]
fn names_of_addresses_are_the_servers_to_tell() {
    let mut client = Client::new();
    let name = "1.0.0.10.in-addr.arpa";
    assert!(
        matches!(client.respond(name, rtype::PTR), Reply::Unheld(Missing::Name(ip)) if ip.to_string() == "10.0.0.1")
    );
    let how = Circumstances { tcp: false, unix_time: NOW, unproven: false };
    let mut out = vec![0; MESSAGE_SIZE_MAX];
    let packet = packet(name, rtype::PTR, None);
    let mut named = |named| match client.agent.responder.respond_named(&packet, named, how, &mut out) {
        Reply::Now(len) => read(out[..len].to_vec()),
        other => panic!("not answered: {other:?}"),
    };
    assert_eq!(named(Some(Named::Node("n1"))).answer, ["1.0.0.10.in-addr.arpa. 0 PTR n1.node.dc1.consul."]);
    assert!(named(None).head.starts_with("SERVFAIL"));
}
