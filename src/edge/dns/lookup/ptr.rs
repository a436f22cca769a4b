//! Names of addresses (`in-addr.arpa`, `ip6.arpa`): nodes first, then services with addresses of their own.

use std::net::IpAddr;

use muster_protocol::dns::name::Name;
use muster_protocol::dns::record::{Answer, Data, Owner, Record};
use muster_protocol::dns::{rcode, rtype};

use super::{Basis, Lookup, Question};
use crate::store::model::Node;

impl Lookup<'_> {
    /// The name of an address of ours, whatever type is asked (as Consul); `None` when it is not ours.
    pub(super) fn reverse(&mut self, question: &Question, address: Option<IpAddr>) -> Option<Answer> {
        self.basis = Basis::Everything;
        let name = address.and_then(|ip| self.name_of(ip))?;
        let mut answer = Answer::bare(rcode::NOERROR, true);
        answer.push(Record { owner: Owner::Question, ttl: 0, data: Data::Ptr(name) });
        if question.qtype == rtype::SOA {
            answer.authority.push(self.settings.soa());
        }
        Some(answer)
    }

    fn name_of(&self, ip: IpAddr) -> Option<Name> {
        if let Some(node) = self.node_at(ip) {
            return self.settings.node_name(&node.node);
        }
        let service = self.state.services_by_address(&ip.to_string()).next()?;
        let settings = self.settings;
        Name::parse(&format!("{}.service.{}.{}", service.name, settings.datacenter, settings.domain_text))
    }

    /// IPv4 has one spelling, so the table of addresses has it; IPv6 has many.
    fn node_at(&self, ip: IpAddr) -> Option<&Node> {
        let known = self.state.nodes_by_address(&ip.to_string()).next();
        let spelled = |node: &&_| {
            let node: &std::sync::Arc<Node> = node;
            node.address.contains(':') && node.address.parse() == Ok(ip)
        };
        let any = || if ip.is_ipv6() { self.state.nodes().find(spelled) } else { None };
        known.or_else(any).map(|node| &**node)
    }
}
