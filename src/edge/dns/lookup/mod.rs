//! From a question to the records that answer it, out of one version of the state. Nothing here waits: names
//! that only a recursor knows are listed in [`Found::wanted`], and the caller looks up again once it has them.

mod alias;
mod node;
mod ptr;
mod service;
mod zone;

use std::collections::BTreeMap;
use std::net::IpAddr;

use muster_protocol::dns::name::Name;
use muster_protocol::dns::question::Query;
use muster_protocol::dns::record::{Answer, Data, Owner, Record};
use muster_protocol::dns::{rcode, rtype};

pub use ptr::{Named, name_answer, name_of};

use super::names::{Asked, Zone, asked, zone_of};
use super::settings::DnsSettings;
use crate::store::topic::Topic;
use crate::store::{State, View};

/// How many aliases inside our domain are followed (as Consul).
const ALIASES_MAX: u8 = 3;

/// Answers of recursors to A questions, by name.
pub type External = BTreeMap<Name, Vec<Record>>;

/// Where an answer comes from.
#[derive(Debug)]
pub enum Found {
    /// From the state.
    Here(Box<Local>),
    /// Only recursors know.
    Recurse,
    /// Nobody is to be asked.
    Refused,
    /// The servers know what is at this address; a client agent does not.
    Unnamed(IpAddr),
}

/// An answer from the state, and what it rests on.
#[derive(Debug)]
pub struct Local {
    /// The answer.
    pub answer: Answer,
    /// What it rests on, for keeping it.
    pub basis: Basis,
    /// Names that recursors had to be asked for and that `external` lacked.
    pub wanted: Vec<Name>,
    /// What the state had to hold and does not, as it is a client agent's: the answer is what is left to say without.
    pub missing: Vec<View>,
    /// What it holds on a client agent because of such questions.
    pub used: Vec<View>,
}

/// What an answer rests on besides the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Basis {
    /// It is made for one question and not worth keeping, or holds what recursors said.
    Once,
    /// It changes with these topics only.
    Topics(Vec<Topic>),
    /// It may change with any write.
    Everything,
}

/// Looks up the answer to `query`.
pub fn look_up(
    query: &Query<'_>,
    settings: &DnsSettings,
    state: &State,
    external: &External,
    seed: u64,
) -> Found {
    let mut lookup = Lookup {
        settings,
        state,
        external,
        seed,
        wanted: Vec::new(),
        basis: Basis::Topics(Vec::new()),
        missing: Vec::new(),
        used: Vec::new(),
    };
    let question = Question {
        name: Name::from_wire(query.name()),
        owner: Owner::Question,
        qtype: query.qtype,
        edns: query.edns.is_some(),
        aliases_left: ALIASES_MAX,
    };
    let mut answer = match zone_of(query.name(), settings) {
        Zone::Ours(labels) => lookup.in_domain(&question, &labels),
        Zone::Reverse(Some(ip)) if state.is_mirror() => return Found::Unnamed(ip),
        Zone::Reverse(address) => match lookup.reverse(&question, address) {
            Some(answer) => answer,
            None => return Found::Recurse,
        },
        Zone::Foreign if settings.recursion_available() => return Found::Recurse,
        Zone::Foreign => return Found::Refused,
    };
    answer.recursion_available = settings.recursion_available();
    let Lookup { basis, wanted, missing, used, .. } = lookup;
    Found::Here(Box::new(Local { answer, basis, wanted, missing, used }))
}

/// The question as asked by a client, or by an alias on the way to its answer.
struct Question {
    name: Name,
    /// Whose the records of the answer are.
    owner: Owner,
    qtype: u16,
    /// Whether the client uses EDNS; aliases never do.
    edns: bool,
    /// How many more aliases may be followed.
    aliases_left: u8,
}

struct Lookup<'a> {
    settings: &'a DnsSettings,
    state: &'a State,
    external: &'a External,
    /// Random number for what is chosen once per lookup.
    seed: u64,
    wanted: Vec<Name>,
    basis: Basis,
    missing: Vec<View>,
    used: Vec<View>,
}

impl Lookup<'_> {
    fn in_domain(&mut self, question: &Question, labels: &[String]) -> Answer {
        match question.qtype {
            rtype::SOA => self.zone_soa(),
            rtype::NS => self.zone_servers(),
            rtype::AXFR => Answer::bare(rcode::NOTIMP, true),
            _ => self.dispatch(question, labels),
        }
    }

    /// Answers a question whose name has `labels` before the domain.
    fn dispatch(&mut self, question: &Question, labels: &[String]) -> Answer {
        match asked(labels, question.qtype) {
            Asked::Node { name, datacenter } if self.is_here(datacenter.as_deref()) => {
                self.node(question, &name)
            }
            Asked::Service { name, tag, datacenter } if self.is_here(datacenter.as_deref()) => {
                self.service(question, &name, tag.as_deref())
            }
            // Only nodes' addresses are ever asked of a node: the datacenter is not looked at for other types.
            Asked::Node { .. } if !node::has_type(question.qtype) => Answer::bare(rcode::NOERROR, true),
            Asked::Address(ip) => self.spelled_address(labels, ip),
            Asked::NoAddress => {
                self.basis = Basis::Once;
                Answer::bare(rcode::NOERROR, true)
            }
            // Other datacenters, prepared queries and the mesh are not here (yet): their names do not exist.
            Asked::Node { .. }
            | Asked::Service { .. }
            | Asked::Query { .. }
            | Asked::Mesh
            | Asked::Invalid => self.no_such_name(),
        }
    }

    /// Whether the state can tell of `view`; on a client agent it may have to be asked for first.
    fn holds(&mut self, view: impl FnOnce() -> View) -> bool {
        if !self.state.is_mirror() {
            return true;
        }
        let view = view();
        let holds = self.state.holds(&view);
        let list = if holds { &mut self.used } else { &mut self.missing };
        list.push(view);
        holds
    }

    /// "There is none" would be a guess, and resolvers would remember it.
    fn unknown(&mut self) -> Answer {
        self.basis = Basis::Once;
        Answer::bare(rcode::SERVFAIL, true)
    }

    fn is_here(&self, datacenter: Option<&str>) -> bool {
        datacenter.is_none_or(|name| name.eq_ignore_ascii_case(&self.settings.datacenter))
    }

    /// NXDOMAIN with the zone's SOA.
    fn no_such_name(&self) -> Answer {
        let mut answer = Answer::bare(rcode::NXDOMAIN, true);
        answer.authority.push(self.settings.soa());
        answer
    }

    /// `HEX.addr`: owned by the name in lower case under the main domain, as Consul.
    fn spelled_address(&mut self, labels: &[String], ip: IpAddr) -> Answer {
        self.basis = Basis::Once;
        let mut answer = Answer::bare(rcode::NOERROR, true);
        let owner = Name::parse(&format!("{}.{}", labels.join("."), self.settings.domain_text));
        if let Some(owner) = owner {
            answer.push(Record {
                owner: Owner::Name(owner),
                ttl: self.settings.node_ttl(),
                data: address_data(ip),
            });
        }
        answer
    }

    fn rests_on(&mut self, topic: Topic) {
        if let Basis::Topics(topics) = &mut self.basis {
            topics.push(topic);
        }
    }
}

/// The record of an address, when the question's type takes one of its family.
fn address_record(owner: &Owner, qtype: u16, ip: IpAddr, ttl: u32) -> Option<Record> {
    let data = address_data(ip);
    let fits = match qtype {
        rtype::SRV | rtype::ANY | rtype::NS | rtype::TXT => true,
        rtype::A => matches!(data, Data::A(_)),
        rtype::AAAA => matches!(data, Data::Aaaa(_)),
        _ => false,
    };
    fits.then(|| Record { owner: owner.clone(), ttl, data })
}

/// IPv4 addresses mapped into IPv6 are IPv4 addresses.
fn address_data(ip: IpAddr) -> Data {
    match ip.to_canonical() {
        IpAddr::V4(ip) => Data::A(ip),
        IpAddr::V6(ip) => Data::Aaaa(ip),
    }
}

/// Which of an entry's addresses a question of `qtype` is told: the tagged one of its family, else the main one. Where
/// the type takes both families, IPv6 goes first (as Consul).
fn preferred<'s>(qtype: u16, main: &'s str, tagged: impl Fn(&str) -> Option<&'s str>) -> &'s str {
    let of = |tag: &str| tagged(tag).filter(|address| !address.is_empty());
    let v6 = if qtype == rtype::A { None } else { of("lan_ipv6") };
    let v4 = if qtype == rtype::AAAA { None } else { of("lan_ipv4") };
    v6.or(v4).unwrap_or(main)
}
