//! `NAME.service`: the healthy instances of a service, as addresses or as SRV records.

use std::collections::BTreeSet;
use std::net::IpAddr;

use muster_protocol::dns::name::Name;
use muster_protocol::dns::record::{Answer, Data, Group, Owner, Record};
use muster_protocol::dns::{rcode, rtype};

use super::node::{meta_records, node_address};
use super::{Lookup, Question, address_data, address_record, preferred};
use crate::store::model::{Service, Status};
use crate::store::topic::Topic;
use crate::store::{Instance, View};

/// Most records of an alias' target that a client without EDNS is told (as Consul).
const ALIAS_RECORDS_MAX: usize = 5;
/// Priority of all SRV records.
const PRIORITY: u16 = 1;

/// Where an instance is reached.
enum Place<'i> {
    /// At the address of its node, under the node's name.
    Node(IpAddr),
    /// At an address of its own, under the address spelled out.
    Own(IpAddr),
    /// Under another name.
    Named(&'i str),
    /// Nowhere.
    Unknown,
}

impl<'a> Lookup<'a> {
    pub(super) fn service(&mut self, question: &Question, name: &str, tag: Option<&str>) -> Answer {
        if !self.holds(|| View::service(name)) {
            return self.unknown();
        }
        let instances = self.healthy(name, tag);
        if instances.is_empty() {
            return self.no_such_name();
        }
        let ttl = self.settings.service_ttl(name);
        let mut answer = Answer::bare(rcode::NOERROR, true);
        answer.shuffled = true;
        answer.udp_limited = true;
        if question.qtype == rtype::SRV {
            answer.groups = self.locations(&instances, question, ttl);
        } else {
            self.addresses(&instances, question, ttl, &mut answer);
        }
        if answer.groups.is_empty() {
            answer.authority.push(self.settings.soa());
        }
        answer
    }

    /// Instances with the tag whose checks allow them into answers.
    pub(super) fn healthy(&mut self, name: &str, tag: Option<&str>) -> Vec<Instance<'a>> {
        self.rests_on(Topic::ServiceHealth(name.into()));
        let worst = if self.settings.dns.only_passing { Status::Passing } else { Status::Warning };
        self.state
            .instances(name)
            .filter(|instance| tag.is_none_or(|tag| has_tag(instance.service, tag)))
            .filter(|instance| instance.checks().all(|check| check.status <= worst))
            .collect()
    }

    /// A, AAAA, ANY and TXT: one record for each address. An alias is told only when there is no address.
    fn addresses(&mut self, instances: &[Instance<'_>], question: &Question, ttl: u32, answer: &mut Answer) {
        let mut seen = BTreeSet::new();
        let mut name = None;
        for instance in instances {
            match place(instance, question) {
                Place::Node(ip) | Place::Own(ip) => {
                    let record = address_record(&question.owner, question.qtype, ip, ttl);
                    if let Some(record) = record.filter(|_| seen.insert(ip)) {
                        answer.push(record);
                    }
                }
                Place::Named(target) => name = name.or(Some(target)),
                Place::Unknown => {}
            }
        }
        if let (true, Some(target)) = (answer.groups.is_empty(), name) {
            answer.shuffled = false;
            self.alias_within_limit(target, question, ttl).into_iter().for_each(|record| answer.push(record));
        } else if self.settings.dns.a_record_limit > 0 {
            answer.groups_max = Some(self.settings.dns.a_record_limit);
        }
    }

    fn alias_within_limit(&mut self, target: &str, question: &Question, ttl: u32) -> Vec<Record> {
        let mut records = self.alias_records(target, question, ttl);
        if !question.edns {
            records.truncate(1 + ALIAS_RECORDS_MAX);
        }
        records.iter_mut().for_each(|record| record.ttl = ttl);
        records
    }

    /// SRV: one record for each instance, with what its target means beside it.
    fn locations(&mut self, instances: &[Instance<'_>], question: &Question, ttl: u32) -> Vec<Group> {
        let mut seen = BTreeSet::new();
        let mut groups = Vec::new();
        for instance in instances {
            let service = instance.service;
            if seen.insert((&instance.node.node, service_address(service, rtype::ANY), service.port)) {
                groups.extend(self.location(instance, question, ttl));
            }
        }
        groups
    }

    fn location(&mut self, instance: &Instance<'_>, question: &Question, ttl: u32) -> Option<Group> {
        let node_name = self.settings.node_name(&instance.node.node);
        let (target, mut extra) = match place(instance, question) {
            Place::Node(ip) => {
                let target = node_name.clone()?;
                let record = Record { owner: Owner::Name(target.clone()), ttl, data: address_data(ip) };
                (target, vec![record])
            }
            Place::Own(ip) => {
                let target = self.spelled_name(ip)?;
                let record = Record { owner: Owner::Name(target.clone()), ttl, data: address_data(ip) };
                (target, vec![record])
            }
            Place::Named(name) => {
                let target = Name::parse(name)?;
                let mut extra = self.follow(&target, question.aliases_left);
                if !question.edns {
                    extra.truncate(ALIAS_RECORDS_MAX);
                }
                extra.iter_mut().for_each(|record| record.ttl = ttl);
                (target, extra)
            }
            Place::Unknown => return None,
        };
        if let (true, Some(name)) = (self.settings.dns.node_meta_txt, node_name) {
            extra.extend(meta_records(instance.node, &Owner::Name(name), ttl));
        }
        let data = Data::Srv {
            priority: PRIORITY,
            weight: weight(instance),
            port: instance.service.port.clamp(0, u16::MAX.into()) as u16,
            target,
        };
        Some(Group { answer: Record { owner: question.owner.clone(), ttl, data }, extra })
    }

    /// `HEX.addr.DC.DOMAIN`.
    fn spelled_name(&self, ip: IpAddr) -> Option<Name> {
        let octets = match ip.to_canonical() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let digits: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        Name::parse(&format!("{digits}.addr.{}.{}", self.settings.datacenter, self.settings.domain_text))
    }
}

/// Where `instance` is reached by a client that asks `question`.
fn place<'i>(instance: &Instance<'i>, question: &Question) -> Place<'i> {
    let own = service_address(instance.service, question.qtype);
    let of_node = node_address(instance.node, question.qtype);
    let node_ip = of_node.parse::<IpAddr>().ok();
    match (own.parse::<IpAddr>(), node_ip) {
        (Ok(ip), _) => Place::Own(ip),
        // The node's name means its main address only.
        (Err(_), Some(ip)) if own.is_empty() && of_node != instance.node.address => Place::Own(ip),
        (Err(_), Some(ip)) if own.is_empty() => Place::Node(ip),
        (Err(_), None) if own.is_empty() && of_node.is_empty() => Place::Unknown,
        (Err(_), None) if own.is_empty() => Place::Named(of_node),
        // A service that names itself as its address is at its node.
        (Err(_), Some(ip)) if Name::parse(own).is_some_and(|name| name == question.name) => Place::Node(ip),
        _ => Place::Named(own),
    }
}

fn service_address(service: &Service, qtype: u16) -> &str {
    let tagged = service.tagged_addresses.as_ref();
    preferred(qtype, &service.address, |tag| {
        tagged.and_then(|all| all.get(tag)).map(|at| at.address.as_str())
    })
}

fn has_tag(service: &Service, tag: &str) -> bool {
    service.tags.iter().any(|own| own.eq_ignore_ascii_case(tag))
}

/// The SRV weight by the worst of the instance's checks.
fn weight(instance: &Instance<'_>) -> u16 {
    let worst = instance.checks().map(|check| check.status).max().unwrap_or(Status::Passing);
    let weights = &instance.service.weights;
    let weight = match worst {
        Status::Passing => weights.passing,
        Status::Warning => weights.warning,
        Status::Critical => 0,
    };
    weight.clamp(0, u16::MAX.into()) as u16
}
