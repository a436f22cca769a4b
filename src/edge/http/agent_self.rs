//! What the agent says about itself, its host and its members.

use std::net::IpAddr;
use std::rc::Rc;

use muster_protocol::gossip::coordinate::Coordinate;
use serde_json::{Map, Value, json};

use super::Edge;
use super::debug_config::debug_config;
use super::exchange::{Handled, Outcome, Request, Response};
use super::{agent_stats, query};
use crate::config::{Config, duration};
use crate::membership::{Member, MemberStatus};
use crate::runtime::{blocking, fs, time};
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

/// `/v1/agent/host`: the machine, from `/proc`.
pub(super) fn host(edge: &Rc<Edge>, request: &Request) -> Handled {
    let folder = edge.config().data_dir.clone().unwrap_or_else(|| "/".into());
    let (edge, request) = (edge.clone(), request.clone());
    Ok(Outcome::later(async move {
        let collected = blocking::run(move || {
            let space = fs::space(&folder);
            let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
            let texts =
                [read("/proc/meminfo"), read("/proc/cpuinfo"), read("/proc/uptime"), read("/proc/version")];
            (folder.display().to_string(), space, texts)
        });
        let (path, space, [memory, cpus, uptime, version]) = collected
            .await
            .map_err(|_| Response::internal("reading the state of the host failed inside the agent"))?;
        let errors = match &space {
            Ok(_) => Value::Null,
            Err(error) => json!([error.to_string()]),
        };
        let (total, free) = space.unwrap_or_default();
        let about = json!({
            "Memory": host_memory(&memory),
            "CPU": host_cpus(&cpus),
            "Host": host_facts(&uptime, &version),
            "Disk": {"path": path, "total": total, "free": free, "used": total - free},
            "CollectionTime": u64::try_from(time::unix_now().as_nanos()).unwrap_or(u64::MAX),
            "Errors": errors,
        });
        Ok(document(&edge, &request, &about))
    }))
}

/// `MemTotal:  123 kB` and its kin, under the names of Consul's library, in bytes.
fn host_memory(text: &str) -> Value {
    let bytes = |name: &str| {
        let line = text.lines().find(|line| line.split(':').next() == Some(name));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|n| n.parse::<u64>().ok());
        kib.unwrap_or_default() * 1024
    };
    let (total, available, free) = (bytes("MemTotal"), bytes("MemAvailable"), bytes("MemFree"));
    let (buffers, cached) = (bytes("Buffers"), bytes("Cached") + bytes("SReclaimable"));
    let used = total.saturating_sub(free + buffers + cached);
    json!({
        "total": total, "available": available, "used": used,
        "usedPercent": if total == 0 { 0.0 } else { used as f64 * 100.0 / total as f64 },
        "free": free, "active": bytes("Active"), "inactive": bytes("Inactive"), "buffers": buffers,
        "cached": cached, "dirty": bytes("Dirty"), "slab": bytes("Slab"),
        "swaptotal": bytes("SwapTotal"), "swapfree": bytes("SwapFree"),
    })
}

fn host_cpus(text: &str) -> Value {
    let blocks = text.split("\n\n").filter(|block| block.starts_with("processor"));
    let cpus = blocks.map(|block| {
        let value = |name: &str| {
            let line = block.lines().find(|line| line.split(':').next().map(str::trim) == Some(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim()).unwrap_or_default()
        };
        json!({
            "cpu": value("processor").parse::<u32>().unwrap_or_default(),
            "vendorId": value("vendor_id"), "family": value("cpu family"), "model": value("model"),
            "modelName": value("model name"), "mhz": value("cpu MHz").parse::<f64>().unwrap_or_default(),
            "flags": value("flags").split_whitespace().collect::<Vec<_>>(),
        })
    });
    cpus.collect()
}

fn host_facts(uptime: &str, version: &str) -> Value {
    let up = uptime.split('.').next().and_then(|seconds| seconds.parse::<u64>().ok()).unwrap_or_default();
    json!({
        "uptime": up,
        "bootTime": time::unix_now().as_secs().saturating_sub(up),
        "os": std::env::consts::OS,
        "kernelVersion": version.split_whitespace().nth(2).unwrap_or_default(),
        "kernelArch": std::env::consts::ARCH,
    })
}
