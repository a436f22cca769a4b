//! Names of addresses (`in-addr.arpa`, `ip6.arpa`): nodes first, then services with addresses of their own.

use std::net::IpAddr;

use muster_protocol::dns::name::Name;
use muster_protocol::dns::record::{Answer, Data, Owner, Record};
use muster_protocol::dns::{rcode, rtype};

use super::{Basis, Lookup, Question};
use crate::edge::dns::settings::DnsSettings;
use crate::store::State;
use crate::store::model::Node;

/// What is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named<'a> {
    /// The node of this name.
    Node(&'a str),
    /// An instance of the service of this name.
    Service(&'a str),
}

impl Lookup<'_> {
    /// The name of an address of ours, whatever type is asked (as Consul); `None` when it is not ours.
    pub(super) fn reverse(&mut self, question: &Question, address: Option<IpAddr>) -> Option<Answer> {
        self.basis = Basis::Everything;
        name_answer(self.settings, question.qtype, name_of(self.state, address?)?)
    }
}

/// The answer that tells what is at an address; `None` when DNS cannot tell its name.
pub fn name_answer(settings: &DnsSettings, qtype: u16, named: Named<'_>) -> Option<Answer> {
    let name = match named {
        Named::Node(name) => settings.node_name(name)?,
        Named::Service(name) => {
            Name::parse(&format!("{name}.service.{}.{}", settings.datacenter, settings.domain_text))?
        }
    };
    let mut answer = Answer::bare(rcode::NOERROR, true);
    answer.recursion_available = settings.recursion_available();
    answer.push(Record { owner: Owner::Question, ttl: 0, data: Data::Ptr(name) });
    if qtype == rtype::SOA {
        answer.authority.push(settings.soa());
    }
    Some(answer)
}

/// What is at `ip`.
pub fn name_of(state: &State, ip: IpAddr) -> Option<Named<'_>> {
    if let Some(node) = node_at(state, ip) {
        return Some(Named::Node(&node.node));
    }
    let service = state.services_by_address(&ip.to_string()).next()?;
    Some(Named::Service(&service.name))
}

/// IPv4 has one spelling, so the table of addresses has it; IPv6 has many.
fn node_at(state: &State, ip: IpAddr) -> Option<&Node> {
    let known = state.nodes_by_address(&ip.to_string()).next();
    let spelled = |node: &&_| {
        let node: &std::sync::Arc<Node> = node;
        node.address.contains(':') && node.address.parse() == Ok(ip)
    };
    let any = || if ip.is_ipv6() { state.nodes().find(spelled) } else { None };
    known.or_else(any).map(|node| &**node)
}
