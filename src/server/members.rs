//! The members' rows in the catalog: what membership knows of them, as nodes, the check `serfHealth`, and of servers the service
//! `consul`. Pure: facts in, writes out (Consul's `agent/consul/leader.go`).
//!
//! Unlike Consul, a node leaves the catalog only when somebody saw its member leave, or be given up. Where nobody did, its check
//! turns critical and its rows stay: a server that was cut off, or has lost its memory, deletes nothing.

use muster_protocol::entry::ServerId;

use super::leader::COMPATIBLE_VERSION;
use super::witness::Witness;
use crate::agent::sync::{SERVER_CHECK, SERVER_SERVICE, same_check, same_service};
use crate::config::Config;
use crate::consensus::Standing;
use crate::membership::{Difference, Member, MemberStatus, Roster, ServerFacts};
use crate::store::State;
use crate::store::command::{CatalogOp, Deregister, Register};
use crate::store::model::{Check, Node, Service, Status, StringMap};

/// Consul's outputs of the check.
const ALIVE: &str = "Agent alive and reachable";
const DEAD: &str = "Agent not live or unreachable";
/// The output for a node whose agent is no member.
const UNKNOWN: &str = "Agent not known to any server";

/// What the rows follow from.
pub struct Facts<'a> {
    /// The configuration of this server.
    pub config: &'a Config,
    /// The catalog as it is.
    pub state: &'a State,
    /// The members.
    pub roster: &'a Roster,
    /// The servers of the cluster, and which of them this is.
    pub standing: &'a Standing,
    /// Who was seen to go.
    pub witness: &'a Witness,
}

/// The writes after which the catalog says what membership says of all members. `strangers`: nodes whose agents are no members
/// are looked at too.
pub fn differences(facts: &Facts<'_>, strangers: bool) -> Vec<CatalogOp> {
    let members = facts.roster.members().filter_map(|member| difference(facts, member));
    let strangers = strangers.then(|| facts.state.nodes().filter_map(|node| stranger(facts, node)));
    members.chain(strangers.into_iter().flatten()).collect()
}

/// The same, only of those that have changed since an earlier roster.
pub fn differences_since(facts: &Facts<'_>, earlier: &Roster) -> Vec<CatalogOp> {
    let changes = facts.roster.changes_since(earlier);
    changes
        .filter_map(|change| match change {
            Difference::Came(member) | Difference::Changed { new: member, .. } => difference(facts, member),
            Difference::Went(member) => stranger(facts, facts.state.node(&member.name)?),
        })
        .collect()
}

/// Whether the catalog's node of this name is that server.
pub fn is_of(state: &State, name: &str, id: ServerId) -> bool {
    state.node(name).is_some_and(|node| node.id.is_empty() || ServerId::parse(&node.id) == Some(id))
}

fn difference(facts: &Facts<'_>, member: &Member) -> Option<CatalogOp> {
    match member.status {
        MemberStatus::Alive => {
            let wanted = rows(facts.config, member, Status::Passing);
            if holds(facts.state, &wanted) {
                return None;
            }
            tracing::info!(target: "agent.server", member = %member.name, "member joined, marking health alive");
            Some(CatalogOp::Register(Box::new(wanted)))
        }
        MemberStatus::Failed => {
            let node = facts.state.node(&member.name).filter(|node| node.address == member.ip.to_string())?;
            let check = facts.state.node_check(&node.node, SERVER_CHECK);
            if check.is_some_and(|check| check.status == Status::Critical) {
                return None;
            }
            tracing::info!(target: "agent.server", member = %member.name, "member failed, marking health critical");
            let wanted = rows(facts.config, member, Status::Critical);
            Some(CatalogOp::Register(Box::new(Register { service: None, ..wanted })))
        }
        MemberStatus::Left => {
            // A name that another, living member has taken over is not touched.
            let own = facts.standing.id == Some(member.id);
            if own || !is_of(facts.state, &member.name, member.id) {
                return None;
            }
            tracing::info!(target: "agent.server", member = %member.name, reason = "left", "deregistering member");
            Some(deregistration(&member.name))
        }
        MemberStatus::Leaving => None,
    }
}

/// A node that an agent stood behind, but no member does now.
fn stranger(facts: &Facts<'_>, node: &Node) -> Option<CatalogOp> {
    let check = facts.state.node_check(&node.node, SERVER_CHECK)?;
    let servers = &facts.standing.configuration.servers;
    if facts.roster.named(&node.node).is_some()
        || servers.iter().any(|server| server.name.eq_ignore_ascii_case(&node.node))
    {
        return None;
    }
    if facts.witness.saw_go(&node.node, &node.id) {
        tracing::info!(target: "agent.server", member = node.node, reason = "reaped", "deregistering member");
        return Some(deregistration(&node.node));
    }
    if check.status == Status::Critical {
        return None;
    }
    tracing::warn!(
        target: "agent.server",
        "node {} is in the catalog, but no member of the pool is its agent: its health is marked critical, and its services stay. \
         If it is gone for good, deregister it (PUT /v1/catalog/deregister)",
        node.node
    );
    let check = Check { status: Status::Critical, output: UNKNOWN.to_owned(), ..Check::clone(check) };
    let (node, checks) = (Node::clone(node), vec![check]);
    Some(CatalogOp::Register(Box::new(Register { node, skip_node_update: true, service: None, checks })))
}

fn deregistration(node: &str) -> CatalogOp {
    CatalogOp::Deregister(Deregister { node: node.to_owned(), ..Deregister::default() })
}

/// The rows of a member. The node's other addresses and its metadata are for the agent on it to write.
fn rows(config: &Config, member: &Member, status: Status) -> Register {
    let service = member.server.as_ref().map(|server| server_service(config, member, server));
    let check = Check {
        node: member.name.to_string(),
        check_id: SERVER_CHECK.to_owned(),
        name: "Serf Health Status".to_owned(),
        status,
        output: if status == Status::Passing { ALIVE } else { DEAD }.to_owned(),
        ..Check::default()
    };
    let node = Node {
        id: member.id.to_string(),
        node: member.name.to_string(),
        address: member.ip.to_string(),
        datacenter: config.datacenter.clone(),
        ..Node::default()
    };
    // An existing row has more to say than ours.
    Register { node, skip_node_update: true, service, checks: vec![check] }
}

fn server_service(config: &Config, member: &Member, server: &ServerFacts) -> Service {
    let meta: StringMap = [
        ("non_voter", if server.non_voter { "true" } else { "false" }),
        ("raft_version", if config.raft.protocol == 2 { "2" } else { "3" }),
        ("serf_protocol_current", "2"),
        ("serf_protocol_max", "5"),
        ("serf_protocol_min", "1"),
        ("version", COMPATIBLE_VERSION),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    Service {
        node: member.name.to_string(),
        id: SERVER_SERVICE.to_owned(),
        name: SERVER_SERVICE.to_owned(),
        meta: Some(meta),
        port: i64::from(server.port),
        ..Service::default()
    }
}

fn holds(state: &State, wanted: &Register) -> bool {
    let node = &wanted.node.node;
    let service = wanted.service.as_ref().is_none_or(|own| {
        let held = state.node_service(node, &own.id);
        held.is_some_and(|held| same_service(own, held))
    });
    let same = |own: &Check| {
        let held = state.node_check(node, &own.check_id);
        held.is_some_and(|held| same_check(own, held, false))
    };
    service && wanted.checks.iter().all(same)
}
