//! Which records answer which question.

use std::collections::BTreeMap;

use muster_protocol::dns::rtype;

use super::*;
use crate::store::model::{ServiceAddress, Weights};

/// Two instances of `web` (one tagged), a node with metadata, and the server itself.
fn bench() -> Bench {
    bench_with(config())
}

fn bench_with(config: DnsConfig) -> Bench {
    let mut bench = Bench::new(config);
    bench.instance("server-1", "127.0.0.1", "consul", 8300);
    let mut tagged = instance("Web-1", "10.0.0.1", "web", 80);
    tagged.service.as_mut().expect("a service").tags = vec!["v1.2".into(), "Blue".into()];
    bench.register(tagged);
    let mut warm = instance("web-2", "10.0.0.2", "web", 81);
    warm.service.as_mut().expect("a service").weights = Weights { passing: 9, warning: 4 };
    warm.checks = vec![check("c", "web", Status::Warning)];
    bench.register(warm);
    bench
}

#[test]
fn addresses_of_a_service_carry_the_name_as_asked() {
    let mut bench = bench();
    for _ in 0..2 {
        let mut read = bench.ask("WEB.service.CONSUL", rtype::A);
        read.answer.sort();
        assert_eq!(read.head, "NOERROR qr aa rd");
        assert_eq!(read.answer, ["WEB.service.CONSUL. 0 A 10.0.0.1", "WEB.service.CONSUL. 0 A 10.0.0.2"]);
        assert!(read.authority.is_empty() && read.additional.is_empty());
    }
}

#[test]
fn tags_hold_dots_and_ignore_letter_case() {
    let mut bench = bench();
    for name in ["v1.2.web.service.consul", "blue.web.service.dc1.consul", "_web._blue.service.consul"] {
        assert_eq!(bench.ask(name, rtype::A).answer, [format!("{name}. 0 A 10.0.0.1")]);
    }
    let read = bench.ask("green.web.service.consul", rtype::A);
    assert_eq!((read.head.as_str(), &read.authority[..]), ("NXDOMAIN qr aa rd", &[SOA.to_owned()][..]));
}

#[test]
fn srv_tells_port_weight_and_the_address_beside_it() {
    let mut bench = bench();
    let mut read = bench.ask("_web._tcp.consul", rtype::SRV);
    read.answer.sort();
    read.additional.sort();
    assert_eq!(
        read.answer,
        [
            "_web._tcp.consul. 0 SRV 1 1 80 Web-1.node.dc1.consul.",
            "_web._tcp.consul. 0 SRV 1 4 81 web-2.node.dc1.consul."
        ]
    );
    assert_eq!(
        read.additional,
        ["Web-1.node.dc1.consul. 0 A 10.0.0.1", "web-2.node.dc1.consul. 0 A 10.0.0.2"]
    );
}

#[test]
fn critical_instances_are_left_out_at_once() {
    let mut bench = bench();
    assert_eq!(bench.ask("web.service.consul", rtype::A).answer.len(), 2);
    let mut sick = instance("web-2", "10.0.0.2", "web", 81);
    sick.checks = vec![check("c", "web", Status::Critical)];
    bench.register(sick);
    assert_eq!(bench.ask("web.service.consul", rtype::A).answer, ["web.service.consul. 0 A 10.0.0.1"]);
    bench.deregister("Web-1");
    assert_eq!(bench.ask("web.service.consul", rtype::A).head, "NXDOMAIN qr aa rd");
    bench.instance("web-3", "10.0.0.3", "web", 80);
    assert_eq!(bench.ask("web.service.consul", rtype::A).answer, ["web.service.consul. 0 A 10.0.0.3"]);
}

#[test]
fn only_passing_leaves_warnings_out() {
    let mut bench = bench_with(DnsConfig { only_passing: true, ..config() });
    assert_eq!(bench.ask("web.service.consul", rtype::A).answer, ["web.service.consul. 0 A 10.0.0.1"]);
}

#[test]
fn a_change_elsewhere_leaves_an_answer_as_it_is() {
    let mut bench = bench();
    assert_eq!(bench.ask("none.node.consul", rtype::A).head, "NXDOMAIN qr aa rd");
    bench.instance("other", "10.9.9.9", "other", 1);
    assert_eq!(bench.ask("none.node.consul", rtype::A).head, "NXDOMAIN qr aa rd");
    bench.instance("none", "10.9.9.8", "other", 1);
    assert_eq!(bench.ask("none.node.consul", rtype::A).answer, ["none.node.consul. 0 A 10.9.9.8"]);
    bench.deregister("none");
    assert_eq!(bench.ask("none.node.consul", rtype::A).head, "NXDOMAIN qr aa rd");
}

#[test]
fn a_node_tells_its_metadata() {
    let mut bench = bench();
    let mut meta = instance("meta", "2001:db8::1", "m", 1);
    meta.node.meta = Some(BTreeMap::from([("k".into(), "v`".into()), ("rfc1035-x".into(), "bare".into())]));
    bench.register(meta);
    let txt = ["meta.node.consul. 0 TXT \"k=v``\"", "meta.node.consul. 0 TXT \"bare\""];
    assert_eq!(bench.ask("meta.node.consul", rtype::TXT).answer, txt);
    let read = bench.ask("meta.node.consul", rtype::A);
    assert_eq!((read.answer.len(), &read.additional[..]), (0, &txt.map(str::to_owned)[..]));
    assert_eq!(bench.ask("meta.node.consul", rtype::AAAA).answer, ["meta.node.consul. 0 AAAA 2001:db8::1"]);
    assert_eq!(bench.ask("meta.node.consul", rtype::SRV).head, "NOERROR qr aa rd");
    let mut silent = bench_with(DnsConfig { node_meta_txt: false, ..config() });
    assert!(silent.ask("web-1.node.consul", rtype::A).additional.is_empty());
}

#[test]
fn own_addresses_are_spelled_out() {
    let mut bench = bench();
    let mut own = instance("own", "10.1.0.1", "own", 7);
    let service = own.service.as_mut().expect("a service");
    service.address = "10.1.0.2".into();
    let v6 = ServiceAddress { address: "2001:db8::2".into(), port: 9 };
    service.tagged_addresses = Some(BTreeMap::from([("lan_ipv6".into(), v6)]));
    bench.register(own);
    assert_eq!(bench.ask("own.service.consul", rtype::A).answer, ["own.service.consul. 0 A 10.1.0.2"]);
    assert_eq!(
        bench.ask("own.service.consul", rtype::AAAA).answer,
        ["own.service.consul. 0 AAAA 2001:db8::2"]
    );
    let read = bench.ask("own.service.consul", rtype::SRV);
    let target = "20010db8000000000000000000000002.addr.dc1.consul.";
    assert_eq!(read.answer, [format!("own.service.consul. 0 SRV 1 1 7 {target}")]);
    assert_eq!(read.additional, [format!("{target} 0 AAAA 2001:db8::2")]);
    assert_eq!(bench.ask(target, rtype::AAAA).answer, [format!("{target} 0 AAAA 2001:db8::2")]);
}

#[test]
fn addresses_have_names() {
    let mut bench = bench();
    let mut own = instance("own", "10.1.0.1", "own", 7);
    own.service.as_mut().expect("a service").address = "10.1.0.2".into();
    bench.register(own);
    let of = |bench: &mut Bench, name: &str| bench.ask(name, rtype::PTR).answer;
    let node = of(&mut bench, "1.0.1.10.in-addr.arpa");
    assert_eq!(node, ["1.0.1.10.in-addr.arpa. 0 PTR own.node.dc1.consul."]);
    let service = of(&mut bench, "2.0.1.10.in-addr.arpa");
    assert_eq!(service, ["2.0.1.10.in-addr.arpa. 0 PTR own.service.dc1.consul."]);
    let unknown = bench.ask("3.0.1.10.in-addr.arpa", rtype::PTR);
    assert_eq!(unknown.head, "SERVFAIL qr rd ra");
}

#[test]
fn the_zone_has_soa_and_servers() {
    let mut bench = bench();
    let read = bench.ask("consul", rtype::SOA);
    assert_eq!(read.answer, [SOA]);
    assert_eq!(read.authority, ["consul. 0 NS server-1.node.dc1.consul."]);
    assert_eq!(read.additional, ["server-1.node.dc1.consul. 0 A 127.0.0.1"]);
    let read = bench.ask("anything.consul", rtype::NS);
    assert_eq!(read.answer, ["consul. 0 NS server-1.node.dc1.consul."]);
    assert_eq!(bench.ask("consul", rtype::AXFR).head, "NOTIMP qr aa rd");
    assert_eq!(bench.ask("example.com", rtype::A).head, "REFUSED qr rd");
}

#[test]
fn what_is_not_here_does_not_exist() {
    let mut bench = bench();
    for name in [
        "consul",
        "web.service.dc9.consul",
        "web-1.node.dc9.consul",
        "web.service.dc1.more.consul",
        "q.query.consul",
        "web.connect.consul",
        "web.consul",
    ] {
        let read = bench.ask(name, rtype::A);
        assert_eq!((read.head.as_str(), &read.authority[..]), ("NXDOMAIN qr aa rd", &[SOA.to_owned()][..]));
    }
    let nothing = bench.ask("web.service.consul", rtype::AAAA);
    assert_eq!((nothing.head.as_str(), &nothing.authority[..]), ("NOERROR qr aa rd", &[SOA.to_owned()][..]));
}

#[test]
fn ttls_are_those_of_the_configuration() {
    let seconds = Duration::from_secs;
    let mut bench = bench_with(DnsConfig {
        node_ttl: seconds(7),
        service_ttl: BTreeMap::from([("web".into(), seconds(9))]),
        service_ttl_prefixes: vec![("con".into(), seconds(11)), (String::new(), seconds(5))],
        soa: Soa { refresh: 1, retry: 2, expire: 3, min_ttl: 60 },
        ..config()
    });
    assert!(bench.ask("WEB.service.consul", rtype::A).answer[0].starts_with("WEB.service.consul. 9 A "));
    assert!(bench.ask("consul.service.consul", rtype::A).answer[0].contains(" 11 A "));
    assert!(bench.ask("web-2.node.consul", rtype::A).answer[0].contains(" 7 A "));
    let read = bench.ask("none.service.consul", rtype::A);
    assert_eq!(read.authority, ["consul. 60 SOA ns.consul. hostmaster.consul. 1 2 3 60"]);
}

#[test]
fn a_second_domain_is_answered_under_its_own_name() {
    let mut bench = bench_with(DnsConfig { alt_domain: "Alt.Test.".into(), ..config() });
    assert_eq!(bench.ask("web-1.node.alt.test", rtype::A).answer, ["web-1.node.alt.test. 0 A 10.0.0.1"]);
    let srv = bench.ask("_web._blue.alt.test", rtype::SRV).answer;
    assert_eq!(srv, ["_web._blue.alt.test. 0 SRV 1 1 80 Web-1.node.dc1.consul."]);
    let spelled = bench.ask("7f000001.addr.ALT.test", rtype::A).answer;
    assert_eq!(spelled, ["7f000001.addr.consul. 0 A 127.0.0.1"]);
}

#[test]
fn aliases_inside_the_domain_are_followed_three_times() {
    let mut bench = bench();
    for (name, address) in [("c1", "c2"), ("c2", "c3"), ("c3", "c4"), ("c4", "c5")] {
        let mut named = instance(name, "10.1.1.1", name, 2);
        named.service.as_mut().expect("a service").address = format!("{address}.service.consul");
        bench.register(named);
    }
    bench.instance("c5", "10.1.1.5", "c5", 2);
    let alias = |from: &str, to: &str| format!("{from}.service.consul. 0 CNAME {to}.service.consul.");
    let chain = [alias("c1", "c2"), alias("c2", "c3"), alias("c3", "c4"), alias("c4", "c5")];
    assert_eq!(bench.ask_edns("c1.service.consul", rtype::A, 1232).answer, chain);
    assert_eq!(bench.ask("c1.service.consul", rtype::SRV).additional, chain[1..]);
    let end = [alias("c4", "c5"), "c5.service.consul. 0 A 10.1.1.5".into()];
    assert_eq!(bench.ask("c4.service.consul", rtype::A).answer, end);
}

#[test]
fn a_service_that_names_itself_is_at_its_node() {
    let mut bench = bench();
    let mut own = instance("self", "10.1.1.1", "me", 2);
    own.service.as_mut().expect("a service").address = "me.service.consul".into();
    bench.register(own);
    assert_eq!(bench.ask("me.service.consul", rtype::A).answer, ["me.service.consul. 0 A 10.1.1.1"]);
}

#[test]
fn labels_with_dots_in_them_are_no_names_of_ours() {
    let mut bench = bench();
    bench.instance("a b", "10.2.2.2", "with space", 1);
    let mut query = packet("x.service.consul", rtype::A, None);
    query.splice(12..14, *b"\x0awith space");
    assert_eq!(read(bench.send(&query, false).expect("a reply")).head, "NXDOMAIN qr aa rd");
}
