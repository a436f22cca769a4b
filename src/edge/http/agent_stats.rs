//! The statistics of `/v1/agent/self`, as `consul info` shows them.

use serde_json::{Value, json};

use super::Edge;
use crate::config::{Config, duration};
use crate::consensus::{Role, Standing};
use crate::membership::{MemberStatus, PoolStats, Roster};
use crate::runtime::cores;
use crate::server::leader::COMPATIBLE_VERSION;
use muster_protocol::entry::{Server, Suffrage};

/// All groups.
pub(super) fn stats(edge: &Edge, config: &Config) -> Value {
    let local = edge.local();
    let roster = edge.roster();
    let encrypted = edge.membership().stats().encrypted;
    let mut stats = json!({
        "agent": {
            "check_monitors": local.monitors.to_string(),
            "check_ttls": local.ttls.to_string(),
            "checks": local.checks.len().to_string(),
            "services": local.services.len().to_string(),
        },
        "build": {"prerelease": "", "revision": "", "version": COMPATIBLE_VERSION},
        "runtime": {
            "arch": goarch(),
            "cpu_count": cores::available().to_string(),
            // Consul counts goroutines here; what runs for a client of ours is a check or a request.
            "goroutines": (local.monitors + local.ttls).to_string(),
            "max_procs": config.cores.unwrap_or_else(cores::available).to_string(),
            "os": std::env::consts::OS,
            "version": "rust",
        },
        "serf_lan": serf(&roster, &edge.membership().stats()),
    });
    if config.server {
        let standing = edge.proposals().standing();
        stats["consul"] = json!({
            "acl": "disabled",
            "bootstrap": (config.bootstrap && !config.dev_mode).to_string(),
            "known_datacenters": "1",
            "leader": standing.leads().to_string(),
            "leader_addr": edge.proposals().status().leader.unwrap_or_default(),
            "server": "true",
        });
        stats["raft"] = raft(&standing);
        stats["serf_wan"] = serf(&Roster::default(), &PoolStats { encrypted, ..PoolStats::default() });
    } else {
        stats["consul"] = json!({"acl": "disabled", "known_servers": "0", "server": "false"});
    }
    stats
}

fn raft(standing: &Standing) -> Value {
    let servers = &standing.configuration.servers;
    let voters = servers.iter().filter(|server| server.suffrage == Suffrage::Voter);
    let others = voters.filter(|server| Some(server.id) != standing.id).count();
    let listed: Vec<String> = servers.iter().map(listed).collect();
    json!({
        "applied_index": standing.applied_index.to_string(),
        "commit_index": standing.commit_index.to_string(),
        "fsm_pending": "0",
        "last_contact": last_contact(standing),
        "last_log_index": standing.last_log_index.to_string(),
        "last_log_term": standing.last_log_term.to_string(),
        "last_snapshot_index": standing.snapshot_index.to_string(),
        "last_snapshot_term": standing.snapshot_term.to_string(),
        "latest_configuration": format!("[{}]", listed.join(" ")),
        "latest_configuration_index": standing.configuration_index.to_string(),
        "num_peers": others.to_string(),
        "protocol_version": "3",
        "protocol_version_max": "3",
        "protocol_version_min": "0",
        "snapshot_version_max": "1",
        "snapshot_version_min": "0",
        "state": match standing.role {
            Role::Leader => "Leader",
            Role::Candidate => "Candidate",
            Role::Follower => "Follower",
        },
        "term": standing.term.to_string(),
    })
}

/// A server as Go prints the struct.
fn listed(server: &Server) -> String {
    let suffrage = match server.suffrage {
        Suffrage::Voter => "Voter",
        Suffrage::Learner | Suffrage::NonVoter => "Nonvoter",
    };
    format!("{{Suffrage:{suffrage} ID:{} Address:{}}}", server.id, server.address)
}

fn last_contact(standing: &Standing) -> String {
    match standing.last_contact {
        None => "never".to_owned(),
        Some(_) if standing.leads() => "0".to_owned(),
        Some(age) => duration::format(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX)),
    }
}

/// A pool of gossip. An agent that knows of no members is one itself.
fn serf(roster: &Roster, stats: &PoolStats) -> Value {
    let [intents, events, queries] = stats.clocks.map(|time| time.max(1).to_string());
    let with = |status| roster.members().filter(|member| member.status == status).count();
    json!({
        "coordinate_resets": "0",
        "encrypted": stats.encrypted.to_string(),
        "event_queue": "0",
        "event_time": events,
        "failed": with(MemberStatus::Failed).to_string(),
        "health_score": stats.health_score.to_string(),
        "intent_queue": "0",
        "left": with(MemberStatus::Left).to_string(),
        "member_time": intents,
        "members": roster.len().max(1).to_string(),
        "query_queue": "0",
        "query_time": queries,
    })
}

/// The processor as Go names it.
fn goarch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use muster_protocol::entry::{Configuration, ServerId};

    use super::*;

    #[test]
    fn servers_and_contact_as_go_prints_them() {
        let server = |number: u8, suffrage| Server {
            id: ServerId([number; 16]),
            name: format!("s{number}"),
            address: format!("10.0.0.{number}:8300"),
            suffrage,
        };
        let servers =
            vec![server(1, Suffrage::Voter), server(2, Suffrage::Learner), server(3, Suffrage::Voter)];
        let mut standing = Standing {
            id: Some(ServerId([1; 16])),
            configuration: Configuration::new(servers).into(),
            ..Standing::default()
        };
        let shown = raft(&standing);
        assert_eq!(shown["num_peers"], "1");
        assert_eq!(shown["last_contact"], "never");
        let listed = shown["latest_configuration"].as_str().expect("text");
        assert!(
            listed.starts_with("[{Suffrage:Voter ID:01010101-0101-0101-0101-010101010101 Address:10.0.0.1:8300} {Suffrage:Nonvoter "),
            "{listed}"
        );
        standing.last_contact = Some(Duration::from_micros(12_500));
        assert_eq!(raft(&standing)["last_contact"], "12.5ms");
        standing.role = Role::Leader;
        assert_eq!(
            (&raft(&standing)["last_contact"], &raft(&standing)["state"]),
            (&json!("0"), &json!("Leader"))
        );
    }
}
