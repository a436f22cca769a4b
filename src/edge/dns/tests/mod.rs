//! Questions against states made by commands: what a client reads in the reply.

mod answers;
mod limits;
mod recursion;
mod sockets;
mod views;

use std::collections::BTreeMap;
use std::time::Duration;

use domain::base::iana::Rtype;
use domain::base::message::RecordSection;
use domain::base::{Message, ParsedName};
use domain::rdata::AllRecordData;
use muster_protocol::dns::MESSAGE_SIZE_MAX;
use muster_protocol::dns::name::Name;

use super::responder::{Circumstances, Reply, Responder};
use super::settings::DnsSettings;
use crate::config::{DnsConfig, RecursorStrategy, Soa};
use crate::store::command::{ArchivedCommand, CatalogOp, Command, Deregister, Register};
use crate::store::model::{Check, Node, Service, Status};
use crate::store::{State, Touched};

/// Unix time of all questions.
const NOW: u32 = 1_600_000_000;

/// A responder over a state of its own.
struct Bench {
    pub state: State,
    pub responder: Responder,
}

/// A reply as a client reads it.
#[derive(Debug)]
struct Read {
    pub bytes: Vec<u8>,
    /// `NOERROR qr aa rd`.
    pub head: String,
    /// `owner ttl class type data`.
    pub answer: Vec<String>,
    pub authority: Vec<String>,
    pub additional: Vec<String>,
    /// The client's size out of the OPT record.
    pub edns: Option<u16>,
}

pub(in crate::edge::dns) fn config() -> DnsConfig {
    DnsConfig {
        domain: "consul.".into(),
        alt_domain: String::new(),
        recursors: Vec::new(),
        recursor_timeout: Duration::from_secs(2),
        recursor_strategy: RecursorStrategy::Sequential,
        allow_stale: true,
        max_stale: Duration::from_secs(87_600 * 3600),
        a_record_limit: 0,
        udp_answer_limit: 3,
        disable_compression: false,
        enable_truncate: false,
        only_passing: false,
        node_ttl: Duration::ZERO,
        service_ttl: BTreeMap::new(),
        service_ttl_prefixes: Vec::new(),
        node_meta_txt: true,
        soa: Soa { refresh: 3600, retry: 600, expire: 86400, min_ttl: 0 },
        use_cache: false,
        cache_max_age: Duration::ZERO,
    }
}

impl Bench {
    pub fn new(config: DnsConfig) -> Bench {
        Bench { state: State::new(), responder: Responder::new(DnsSettings::from_parts(config, "dc1"), 7) }
    }

    pub fn run(&mut self, op: CatalogOp) {
        let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(&Command::Catalog(op)).unwrap();
        let archived = rkyv::access::<ArchivedCommand, rkyv::rancor::Error>(&bytes).unwrap();
        self.state.apply(self.state.index() + 1, archived, &mut Touched::new());
    }

    pub fn register(&mut self, register: Register) {
        self.run(CatalogOp::Register(Box::new(register)));
    }

    pub fn deregister(&mut self, node: &str) {
        self.run(CatalogOp::Deregister(Deregister { node: node.into(), ..Deregister::default() }));
    }

    /// A node with one service on it.
    pub fn instance(&mut self, node: &str, address: &str, service: &str, port: i64) {
        self.register(instance(node, address, service, port));
    }

    pub fn send(&mut self, packet: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let mut out = vec![0; MESSAGE_SIZE_MAX];
        let how = Circumstances { tcp, unix_time: NOW, unproven: false };
        match self.responder.respond(&self.state, packet, how, &mut out) {
            Reply::Now(len) => Some(out[..len].to_vec()),
            Reply::Silence => None,
            other => panic!("not answered at once: {other:?}"),
        }
    }

    pub fn ask(&mut self, name: &str, qtype: u16) -> Read {
        read(self.send(&packet(name, qtype, None), false).expect("a reply"))
    }

    pub fn ask_edns(&mut self, name: &str, qtype: u16, size: u16) -> Read {
        read(self.send(&packet(name, qtype, Some(size)), false).expect("a reply"))
    }

    pub fn ask_tcp(&mut self, name: &str, qtype: u16) -> Read {
        read(self.send(&packet(name, qtype, None), true).expect("a reply"))
    }
}

fn instance(node: &str, address: &str, service: &str, port: i64) -> Register {
    Register {
        node: Node { node: node.into(), address: address.into(), ..Node::default() },
        service: Some(Service { id: service.into(), name: service.into(), port, ..Service::default() }),
        ..Register::default()
    }
}

fn check(id: &str, service: &str, status: Status) -> Check {
    Check { check_id: id.into(), name: id.into(), service_id: service.into(), status, ..Check::default() }
}

/// The zone's SOA record as [`Read`] shows it.
const SOA: &str = "consul. 0 SOA ns.consul. hostmaster.consul. 3600 600 86400 0";

fn packet(name: &str, qtype: u16, edns: Option<u16>) -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, edns.is_some() as u8];
    packet.extend_from_slice(Name::parse(name).expect("a name").wire());
    packet.extend_from_slice(&qtype.to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    if let Some(size) = edns {
        packet.extend_from_slice(&[0, 0, 41, (size >> 8) as u8, size as u8, 0, 0, 0, 0, 0, 0]);
    }
    packet
}

fn read(bytes: Vec<u8>) -> Read {
    let message = Message::from_octets(&bytes[..]).expect("a message");
    let (header, counts) = (message.header(), message.header_counts());
    let mut head = header.rcode().to_string();
    let flags = header.flags();
    let named = [
        (flags.qr, " qr"),
        (flags.aa, " aa"),
        (flags.tc, " tc"),
        (flags.rd, " rd"),
        (flags.ra, " ra"),
        (flags.cd, " cd"),
    ];
    named.iter().filter(|(set, _)| *set).for_each(|(_, name)| head.push_str(name));
    let (_, answer, authority, additional) = message.sections().expect("sections");
    let mut edns = None;
    let answer = lines(answer, &mut edns);
    let authority = lines(authority, &mut edns);
    let additional = lines(additional, &mut edns);
    let told = [answer.len(), authority.len(), additional.len() + edns.is_some() as usize];
    assert_eq!(told, [counts.ancount(), counts.nscount(), counts.arcount()].map(usize::from));
    Read { head, answer, authority, additional, edns, bytes: bytes.clone() }
}

fn lines(section: RecordSection<'_, &[u8]>, edns: &mut Option<u16>) -> Vec<String> {
    let mut lines = Vec::new();
    for record in section {
        let record = record.expect("a record");
        if record.rtype() == Rtype::OPT {
            *edns = Some(record.class().to_int());
            continue;
        }
        let record = record.into_record::<AllRecordData<_, ParsedName<_>>>().expect("data").expect("data");
        let (owner, ttl, kind) = (record.owner(), record.ttl().as_secs(), record.rtype());
        lines.push(format!("{owner}. {ttl} {kind} {}", show(record.data())));
    }
    lines
}

fn show(data: &AllRecordData<&[u8], ParsedName<&[u8]>>) -> String {
    match data {
        AllRecordData::Txt(txt) => {
            let text: Vec<u8> = txt.iter().flatten().copied().collect();
            format!("{:?}", String::from_utf8_lossy(&text))
        }
        AllRecordData::Soa(soa) => {
            assert_eq!(soa.serial().into_int(), NOW);
            format!(
                "{}. {}. {} {} {} {}",
                soa.mname(),
                soa.rname(),
                soa.refresh().as_secs(),
                soa.retry().as_secs(),
                soa.expire().as_secs(),
                soa.minimum().as_secs()
            )
        }
        AllRecordData::Srv(srv) => {
            format!("{} {} {} {}.", srv.priority(), srv.weight(), srv.port(), srv.target())
        }
        AllRecordData::Cname(alias) => format!("{}.", alias.cname()),
        AllRecordData::Ptr(name) => format!("{}.", name.ptrdname()),
        AllRecordData::Ns(name) => format!("{}.", name.nsdname()),
        other => other.to_string(),
    }
}
