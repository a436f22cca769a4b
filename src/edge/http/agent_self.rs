//! What the agent says about itself, its host and its members.

use std::net::IpAddr;
use std::rc::Rc;

use muster_protocol::gossip::coordinate::Coordinate;
use serde_json::{Map, Value, json};

use super::Edge;
use super::debug_config::debug_config;
use super::exchange::{Handled, Request, Response};
use super::{agent_stats, query};
use crate::config::{Config, duration};
use crate::membership::{Member, MemberStatus};
use crate::server::leader::COMPATIBLE_VERSION;

/// A document, laid out as the request asks for.
pub(super) fn document(edge: &Edge, request: &Request, value: &Value) -> Response {
    if !query::pretty(&edge.config(), request) {
        return Response::json_bytes(value.to_string());
    }
    let mut out = Vec::new();
    let layout = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut writer = serde_json::Serializer::with_formatter(&mut out, layout);
    match serde::Serialize::serialize(value, &mut writer) {
        Ok(()) => {
            out.push(b'\n');
            Response::json_bytes(out)
        }
        Err(error) => Response::internal(format!("the answer could not be written as JSON: {error}")),
    }
}

/// `/v1/agent/self`.
pub(super) fn about(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let node = edge.local().node.clone();
    let about = json!({
        "Config": {
            "Datacenter": config.datacenter,
            "NodeName": config.node_name,
            "NodeID": node.id,
            "Revision": "",
            "Server": config.server,
            "Version": COMPATIBLE_VERSION,
        },
        "DebugConfig": debug_config(&config, &node.id),
        "Coord": coord(&edge.membership().stats().coordinate),
        "Member": member(&config, &node.id, false),
        "Stats": agent_stats::stats(edge, &config),
        "Meta": node.meta.clone().unwrap_or_default(),
    });
    Ok(document(edge, request, &about).into())
}

/// Where this agent is.
fn coord(at: &Coordinate) -> Value {
    json!({"Vec": at.position, "Error": at.error, "Adjustment": at.adjustment, "Height": at.height})
}

/// `/v1/agent/members`: the servers that are known; on a client, and of the WAN, this agent alone until there is gossip.
pub(super) fn members(edge: &Rc<Edge>, request: &Request) -> Handled {
    if request.query.filled("segment").is_some() {
        return Err(Response::internal("Network segments are not supported in this version of Consul"));
    }
    let config = edge.config();
    let wan = request.query.filled("wan").is_some();
    let roster = edge.roster();
    let evidence = request.query.has("evidence");
    let members = match wan {
        true if !config.server => Value::Null,
        false if !roster.is_empty() => roster.members().map(|member| lan_member(member, evidence)).collect(),
        _ => json!([member(&config, &edge.local().node.id, wan)]),
    };
    Ok(document(edge, request, &members).into())
}

/// A server as gossip shows it.
fn lan_member(member: &Member, evidence: bool) -> Value {
    let tags: Map<String, Value> =
        member.shown_tags().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let mut shown = shown(&member.name, member.ip, member.serf_lan_port, tags, member.status as u8);
    if let Some(evidence) = member.evidence.as_ref().filter(|_| evidence) {
        shown["Evidence"] = json!({
            "SuspectedBy": evidence.suspected_by.as_deref(),
            "ConfirmedBy": evidence.confirmed_by.iter().map(|name| &**name).collect::<Vec<_>>(),
            "DeclaredBy": evidence.declared_by.as_deref(),
            "LastAckUnixMs": evidence.last_ack.map(|at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX)),
            "LastRTT": evidence.last_rtt.map(|rtt| duration::format(i64::try_from(rtt.as_nanos()).unwrap_or(i64::MAX))),
        });
    }
    shown
}

/// This agent as gossip shows it. Pool `wan` names it with its datacenter.
fn member(config: &Config, id: &str, wan: bool) -> Value {
    let mut tags = Map::new();
    let mut tag = |name: &str, value: String| tags.insert(name.to_owned(), value.into());
    tag("acls", "0".into());
    if config.bootstrap && !config.dev_mode {
        tag("bootstrap", "1".into());
    }
    tag("build", format!("{COMPATIBLE_VERSION}:"));
    tag("dc", config.datacenter.clone());
    if config.bootstrap_expect > 0 {
        tag("expect", config.bootstrap_expect.to_string());
    }
    if config.server {
        tag("ft_fs", "1".into());
    }
    tag("id", id.to_owned());
    if config.server {
        tag("port", config.ports.server.to_string());
        tag("raft_vsn", "3".into());
    }
    tag("role", if config.server { "consul" } else { "node" }.into());
    tag("segment", config.segment.clone());
    tag("vsn", "2".into());
    tag("vsn_max", "3".into());
    tag("vsn_min", "2".into());
    if let Some(port) = config.ports.serf_wan
        && config.server
        && !wan
    {
        tag("wan_join_port", port.to_string());
    }
    let (name, address, port) = match wan {
        true => (
            format!("{}.{}", config.node_name, config.datacenter),
            config.addresses.advertise_wan,
            config.ports.serf_wan.unwrap_or_default(),
        ),
        false => (config.node_name.clone(), config.addresses.advertise, config.ports.serf_lan),
    };
    shown(&name, address, port, tags, MemberStatus::Alive as u8)
}

fn shown(name: &str, ip: IpAddr, port: u16, tags: Map<String, Value>, status: u8) -> Value {
    json!({
        "Name": name, "Addr": ip.to_string(), "Port": port, "Tags": tags, "Status": status,
        "ProtocolMin": 1, "ProtocolMax": 5, "ProtocolCur": 2,
        "DelegateMin": 2, "DelegateMax": 5, "DelegateCur": 4,
    })
}
