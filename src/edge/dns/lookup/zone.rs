//! The zone itself: its SOA and its name servers, which are this datacenter's servers.

use muster_protocol::dns::name::Name;
use muster_protocol::dns::record::{Answer, Data, Group, Owner, Record};
use muster_protocol::dns::{rcode, rtype};

use super::{Basis, Lookup, Question};
use crate::store::View;
use crate::store::model::Node;

/// Service under which servers are registered.
const SERVER_SERVICE: &str = "consul";
/// Most name servers in one answer (as Consul).
const SERVERS_MAX: usize = 3;

impl Lookup<'_> {
    /// The SOA record, with the name servers beside it.
    pub(super) fn zone_soa(&mut self) -> Answer {
        let mut answer = Answer::bare(rcode::NOERROR, true);
        answer.push(self.settings.soa());
        let mut servers = self.servers();
        if !servers.is_empty() {
            let start = (self.seed % servers.len() as u64) as usize;
            servers.rotate_left(start);
        }
        for server in servers.into_iter().take(SERVERS_MAX) {
            answer.authority.push(server.answer);
            answer.additional.extend(server.extra);
        }
        answer
    }

    /// The name servers, at most [`SERVERS_MAX`] at random.
    pub(super) fn zone_servers(&mut self) -> Answer {
        let mut answer = Answer::bare(rcode::NOERROR, true);
        answer.groups = self.servers();
        answer.shuffled = true;
        answer.groups_max = Some(SERVERS_MAX);
        answer
    }

    fn servers(&mut self) -> Vec<Group> {
        if !self.holds(|| View::service(SERVER_SERVICE)) {
            self.basis = Basis::Once;
            return Vec::new();
        }
        let healthy = self.healthy(SERVER_SERVICE, None);
        let ttl = self.settings.node_ttl();
        let mut servers = Vec::new();
        for instance in healthy {
            let host = server_name(&instance.node.node).and_then(|name| self.settings.node_name(&name));
            let Some(host) = host else { continue };
            let extra = self.glue(instance.node, &host, ttl);
            let answer =
                Record { owner: Owner::Name(self.settings.domain.clone()), ttl, data: Data::Ns(host) };
            servers.push(Group { answer, extra });
        }
        servers
    }

    fn glue(&mut self, node: &Node, host: &Name, ttl: u32) -> Vec<Record> {
        let question = Question {
            name: host.clone(),
            owner: Owner::Name(host.clone()),
            qtype: rtype::ANY,
            edns: false,
            aliases_left: super::ALIASES_MAX,
        };
        self.node_records(node, &question, ttl)
    }
}

/// The name in lower case; servers whose names are no host names are not told.
fn server_name(node: &str) -> Option<String> {
    let is_host_name = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
    node.bytes().all(is_host_name).then(|| node.to_ascii_lowercase())
}
