//! Any bytes as a DNS packet, answered with records that the same bytes choose, and answered from a small catalog.
//!
//! Every reply must fit the size the client takes, carry its id, and parse with a library that is not ours.
#![no_main]

use std::net::{Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use muster::config::Sources;
use muster::config::build::Host;
use muster::consensus::Encoded;
use muster::edge::dns::responder::{Circumstances, Reply, Responder};
use muster::edge::dns::settings::DnsSettings;
use muster::store::command::{CatalogOp, Command, Register};
use muster::store::model::{Node, Service};
use muster::store::{State, Touched};
use muster_protocol::dns::MESSAGE_SIZE_MAX;
use muster_protocol::dns::name::Name;
use muster_protocol::dns::question::{KEY_LEN_MAX, Parsed, parse};
use muster_protocol::dns::record::{Answer, Data, Group, Owner, Record, Soa};
use muster_protocol::dns::template::{Template, Terms, size_limit};

/// Most groups of one answer; more than fit a plain packet.
const GROUPS_MAX: usize = 64;

fuzz_target!(|data: &[u8]| {
    // The first bytes choose the answer, the rest is the packet.
    let Some((choice, packet)) = data.split_first_chunk::<8>() else { return };
    let mut out = vec![0; MESSAGE_SIZE_MAX];
    CATALOG.with_borrow_mut(|(responder, state)| {
        // The second time the answer comes from the cache; the last time nobody knows whether the state is fresh.
        for (tcp, unproven) in [(false, false), (false, false), (true, false), (true, true)] {
            let how = Circumstances { tcp, unix_time: 7, unproven };
            let length = match responder.respond(state, packet, how, &mut out) {
                Reply::Now(length) => length,
                Reply::Unproven => {
                    assert!(unproven, "a fresh state is answered from");
                    let failure = responder.respond_unproven(packet, how).expect("it was understood before");
                    out[..failure.len()].copy_from_slice(&failure);
                    failure.len()
                }
                Reply::Later(_) | Reply::Unheld(_) | Reply::Larger | Reply::Silence => continue,
            };
            assert_eq!(out[..2], packet[..2]);
            if let Parsed::Query(query) = parse(packet) {
                assert!(length <= size_limit(&query, tcp));
                read_back(&out[..length], &query.name().to_ascii_lowercase());
            }
        }
    });
    let query = match parse(packet) {
        Parsed::Drop => return,
        Parsed::Reject(reject) => {
            let length = reject.render(&mut out);
            assert!(length <= packet.len().max(12));
            assert_eq!(out[..2], packet[..2]);
            return;
        }
        Parsed::Query(query) => query,
    };
    let mut buffer = [0; KEY_LEN_MAX];
    assert!(query.key(&mut buffer).len() > 3);
    let answer = answer(choice);
    let mut template = Template::compile(&answer, query.name().len(), choice[0] & 1 == 0);
    let mut state = u32::from_be_bytes([choice[4], choice[5], choice[6], choice[7]]) | 1;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    for tcp in [false, true] {
        let terms = Terms { tcp, udp_answers_max: 3, mark_truncated: choice[0] & 2 == 0, serial: 7 };
        let length = template.render(&query, &terms, &mut random, &mut out);
        assert!(length <= size_limit(&query, tcp), "{length} bytes");
        assert_eq!(out[..2], packet[..2]);
        read_back(&out[..length], &query.name().to_ascii_lowercase());
    }
});

thread_local! {
    static CATALOG: std::cell::RefCell<(Responder, State)> = std::cell::RefCell::new(catalog());
}

/// A few nodes, with more instances of `web` than a plain packet holds, and one whose address is a name.
fn catalog() -> (Responder, State) {
    let mut state = State::new();
    for number in 0..40_u8 {
        let service = Service {
            id: "web".into(),
            name: "web".into(),
            tags: vec!["a".into(), format!("t{number}")],
            port: 8000 + i64::from(number),
            address: if number == 7 { "elsewhere.example".into() } else { String::new() },
            ..Service::default()
        };
        let node = Node {
            node: format!("n{number}"),
            address: if number % 5 == 0 { format!("fd00::{number}") } else { format!("10.0.0.{number}") },
            datacenter: "dc1".into(),
            meta: Some([("rack".to_owned(), "r".repeat(number.into()))].into_iter().collect()),
            ..Node::default()
        };
        let register = Register { node, service: Some(service), ..Register::default() };
        let command = Encoded::of(&Command::Catalog(CatalogOp::Register(Box::new(register))));
        state.apply(u64::from(number) + 1, command.command(), &mut Touched::default());
    }
    let mut sources = Sources::default();
    sources.dev = true;
    let config = sources.load_on(&Host { name: "fuzz".into(), ..Host::default() }).expect("the defaults are valid");
    (Responder::new(DnsSettings::new(&config), 7), state)
}

fn answer(choice: &[u8; 8]) -> Answer {
    let record = |number: usize, kind: u8| {
        let name = |text: &str| Name::parse(text).expect("a valid name");
        let host = name(&format!("host-{}.node.dc1.consul.", number % 9));
        let data = match kind % 7 {
            0 => Data::A(Ipv4Addr::from(number as u32)),
            1 => Data::Aaaa(Ipv6Addr::from(number as u128)),
            2 => Data::Cname(host.clone()),
            3 => Data::Ptr(host.clone()),
            4 => Data::Txt(vec![b'x'; number * 7].into()),
            5 => Data::Srv { priority: 1, weight: 2, port: number as u16, target: host.clone() },
            _ => Data::Ns(host.clone()),
        };
        let owner = if kind & 8 == 0 { Owner::Question } else { Owner::Name(host) };
        Record { owner, ttl: u32::from(kind), data }
    };
    let soa = Soa {
        primary: Name::parse("ns.consul.").expect("a valid name"),
        mailbox: Name::parse("hostmaster.consul.").expect("a valid name"),
        refresh: 1,
        retry: 2,
        expire: 3,
        minimum: 4,
    };
    let groups = usize::from(choice[1]) % GROUPS_MAX;
    Answer {
        rcode: choice[0] >> 4 & 3,
        authoritative: choice[0] & 4 != 0,
        shuffled: choice[0] & 8 != 0,
        groups: (0..groups)
            .map(|number| Group {
                answer: record(number, choice[2]),
                extra: (0..usize::from(choice[3] & 3)).map(|more| record(number + more, choice[3] >> 2)).collect(),
            })
            .collect(),
        groups_max: (choice[3] & 0x80 != 0).then_some(5),
        authority: if choice[0] & 0x40 == 0 {
            Vec::new()
        } else {
            vec![Record { owner: Owner::Question, ttl: 0, data: Data::Soa(soa) }]
        },
        additional: if choice[0] & 0x80 == 0 { Vec::new() } else { vec![record(3, 4)] },
        ..Answer::default()
    }
}

/// Reads a reply with the `domain` library.
fn read_back(reply: &[u8], name: &[u8]) {
    use domain::base::Message;
    use domain::rdata::AllRecordData;
    let message = Message::from_octets(reply).expect("a whole header");
    let question = message.first_question().expect("the question is echoed");
    let mut echoed = Vec::new();
    for label in question.qname().iter() {
        echoed.push(label.len() as u8);
        echoed.extend(label.as_slice().to_ascii_lowercase());
    }
    assert_eq!(echoed, name);
    for record in message.iter() {
        let (record, _) = record.expect("a record that parses");
        record.to_record::<AllRecordData<_, _>>().expect("data that parses");
    }
    let counts = message.header_counts();
    let records = u32::from(counts.ancount()) + u32::from(counts.nscount()) + u32::from(counts.arcount());
    assert_eq!(message.iter().count() as u32, records);
}
