//! Bodies of `/v1/operator/...`, in and out.

use serde_json::Value;

use super::decode::Spot;
use super::exchange::Response;
use super::json::{JsonWriter, name};
use crate::config::duration;
use crate::consensus::Standing;
use crate::logs::civil;
use crate::server::health::{ClusterHealth, ServerHealth};
use crate::store::State;
use crate::store::model::AutopilotConfig;
use muster_protocol::entry::Suffrage;

/// Go's name of the configuration in error texts.
const OWNER: &str = "AutopilotConfiguration";
const FIELDS: [&str; 10] = [
    "CleanupDeadServers",
    "LastContactThreshold",
    "MaxTrailingLogs",
    "MinQuorum",
    "ServerStabilizationTime",
    "RedundancyZoneTag",
    "DisableUpgradeMigration",
    "UpgradeVersionTag",
    "CreateIndex",
    "ModifyIndex",
];

/// The servers of the cluster.
pub fn raft_configuration(standing: &Standing, protocol: u8, pretty: bool) -> Response {
    let mut w = JsonWriter::new(pretty);
    w.object(|w| {
        w.field(name!("Servers")).array(&standing.configuration.servers, |w, server| {
            w.object(|w| {
                w.field(name!("ID")).text(&server.id.to_string());
                let known = !server.name.is_empty();
                w.field(name!("Node")).text(if known { &server.name } else { "(unknown)" });
                w.field(name!("Address")).text(&server.address);
                w.field(name!("Leader")).flag(standing.leader == Some(server.id));
                w.field(name!("ProtocolVersion")).text(&protocol.to_string());
                w.field(name!("Voter")).flag(server.suffrage == Suffrage::Voter);
            });
        });
        // Consul has always answered 0, whatever its documentation says, and clients' tests ask for that.
        w.field(name!("Index")).number(0);
    });
    Response::json_bytes(w.finish())
}

/// What later versions answer when leadership went to another server.
pub fn success(pretty: bool) -> Response {
    let mut w = JsonWriter::new(pretty);
    w.object(|w| w.field(name!("Success")).flag(true));
    Response::json_bytes(w.finish())
}

/// Autopilot's configuration; all zero before the first leader has written one, as in Consul.
pub fn autopilot_configuration(config: Option<&AutopilotConfig>, pretty: bool) -> Response {
    let none = AutopilotConfig {
        cleanup_dead_servers: false,
        last_contact_threshold_ns: 0,
        max_trailing_logs: 0,
        server_stabilization_time_ns: 0,
        ..AutopilotConfig::default()
    };
    let config = config.unwrap_or(&none);
    let mut w = JsonWriter::new(pretty);
    w.object(|w| {
        w.field(name!("CleanupDeadServers")).flag(config.cleanup_dead_servers);
        w.field(name!("LastContactThreshold")).text(&duration::format(config.last_contact_threshold_ns));
        w.field(name!("MaxTrailingLogs")).number(config.max_trailing_logs);
        w.field(name!("MinQuorum")).number(config.min_quorum);
        w.field(name!("ServerStabilizationTime"))
            .text(&duration::format(config.server_stabilization_time_ns));
        w.field(name!("RedundancyZoneTag")).text(&config.redundancy_zone_tag);
        w.field(name!("DisableUpgradeMigration")).flag(config.disable_upgrade_migration);
        w.field(name!("UpgradeVersionTag")).text(&config.upgrade_version_tag);
        w.field(name!("CreateIndex")).number(config.create_index);
        w.field(name!("ModifyIndex")).number(config.modify_index);
    });
    Response::json_bytes(w.finish())
}

/// Reads autopilot's configuration: what is not there is zero, for a write replaces the whole row.
///
/// # Errors
/// Go's text about the first thing that is wrong.
pub fn read_autopilot_configuration(value: &Value) -> Result<AutopilotConfig, String> {
    let mut config = AutopilotConfig {
        cleanup_dead_servers: false,
        last_contact_threshold_ns: 0,
        max_trailing_logs: 0,
        server_stabilization_time_ns: 0,
        ..AutopilotConfig::default()
    };
    let top = Spot::top(value);
    if !value.is_object() && !value.is_null() {
        return Err(top.mismatch(&format!("api.{OWNER}")));
    }
    for field in top.fields(OWNER, &FIELDS)? {
        let (name, spot) = field?;
        match name {
            "CleanupDeadServers" => config.cleanup_dead_servers = spot.flag()?,
            "LastContactThreshold" => config.last_contact_threshold_ns = spot.readable_duration()?,
            "MaxTrailingLogs" => config.max_trailing_logs = spot.unsigned("uint64")?,
            "MinQuorum" => config.min_quorum = spot.unsigned("uint")?,
            "ServerStabilizationTime" => config.server_stabilization_time_ns = spot.readable_duration()?,
            "RedundancyZoneTag" => config.redundancy_zone_tag = spot.text()?,
            "DisableUpgradeMigration" => config.disable_upgrade_migration = spot.flag()?,
            "UpgradeVersionTag" => config.upgrade_version_tag = spot.text()?,
            // Read for their type only: the store gives indexes.
            _ => drop(spot.unsigned("uint64")?),
        }
    }
    Ok(config)
}

/// The servers' health, in Consul 1.8's form.
pub fn health(health: &ClusterHealth, pretty: bool) -> Vec<u8> {
    let mut w = JsonWriter::new(pretty);
    w.object(|w| {
        w.field(name!("Healthy")).flag(health.healthy);
        w.field(name!("FailureTolerance")).number(health.failure_tolerance);
        let w = w.field(name!("Servers"));
        if health.servers.is_empty() {
            return w.null();
        }
        w.array(&health.servers, |w, server| {
            w.object(|w| {
                w.field(name!("ID")).text(&server.id.to_string());
                w.field(name!("Name")).text(&server.name);
                w.field(name!("Address")).text(&server.address);
                w.field(name!("SerfStatus")).text(server.seen.as_str());
                w.field(name!("Version")).text(&server.version);
                w.field(name!("Leader")).flag(server.leader);
                progress(w, server);
                w.field(name!("Healthy")).flag(server.healthy);
                w.field(name!("Voter")).flag(server.votes());
                w.field(name!("StableSince")).text(&rfc3339(server.stable_since_s));
            });
        });
    });
    w.finish()
}

/// The same and more, in the form of Consul 1.9 and later.
pub fn state(health: &ClusterHealth, state: &State, pretty: bool) -> Vec<u8> {
    let mut servers: Vec<(String, &ServerHealth)> =
        health.servers.iter().map(|server| (server.id.to_string(), server)).collect();
    servers.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    let ids = |suffrage: Suffrage| {
        let chosen = servers.iter().filter(move |(_, server)| server.suffrage == suffrage);
        chosen.map(|(id, _)| id.as_str()).collect::<Vec<_>>()
    };
    let mut w = JsonWriter::new(pretty);
    w.object(|w| {
        w.field(name!("Healthy")).flag(health.healthy);
        w.field(name!("FailureTolerance")).number(health.failure_tolerance);
        // A feature of the paid edition; the open one answers 0.
        w.field(name!("OptimisticFailureTolerance")).number(0u8);
        w.field(name!("Servers")).object(|w| {
            for (id, server) in &servers {
                server_state(w.key(id), id, server, state);
            }
        });
        let leader = servers.iter().find(|(_, server)| server.leader);
        w.field(name!("Leader")).text(leader.map_or("", |(id, _)| id));
        w.field(name!("Voters")).array(ids(Suffrage::Voter), |w, id| w.text(id));
        let replicas = ids(Suffrage::NonVoter);
        if !replicas.is_empty() {
            w.field(name!("ReadReplicas")).array(replicas, |w, id| w.text(id));
        }
    });
    w.finish()
}

fn server_state(w: &mut JsonWriter, id: &str, server: &ServerHealth, state: &State) {
    let replica = server.suffrage == Suffrage::NonVoter;
    let status = match server.suffrage {
        _ if server.leader => "leader",
        Suffrage::Voter => "voter",
        Suffrage::Learner | Suffrage::NonVoter => "non-voter",
    };
    w.object(|w| {
        w.field(name!("ID")).text(id);
        w.field(name!("Name")).text(&server.name);
        w.field(name!("Address")).text(&server.address);
        w.field(name!("NodeStatus")).text(server.seen.as_str());
        w.field(name!("Version")).text(&server.version);
        progress(w, server);
        w.field(name!("Healthy")).flag(server.healthy);
        w.field(name!("StableSince")).text(&rfc3339(server.stable_since_s));
        w.field(name!("ReadReplica")).flag(replica);
        w.field(name!("Status")).text(status);
        let meta = state.node(&server.name).and_then(|node| node.meta.as_ref());
        w.field(name!("Meta")).object(|w| {
            meta.into_iter().flatten().for_each(|(key, value)| w.key(key).text(value));
        });
        w.field(name!("NodeType")).text(if replica { "read-replica" } else { "voter" });
    });
}

fn progress(w: &mut JsonWriter, server: &ServerHealth) {
    // Consul's sign for a server that was never heard of.
    let contact = server.last_contact_ns.map_or(-1, |ns| i64::try_from(ns).unwrap_or(i64::MAX));
    w.field(name!("LastContact")).text(&duration::format(contact));
    w.field(name!("LastTerm")).number(server.last_term);
    w.field(name!("LastIndex")).number(server.last_index);
}

fn rfc3339(unix_s: u64) -> String {
    let [year, month, day, hour, minute, second] = civil(unix_s);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_read_as_consul_reads_them() {
        let read = |text: &str| {
            let value = crate::edge::http::decode::body(text.as_bytes())?;
            read_autopilot_configuration(&value)
        };
        let whole = r#"{"CleanupDeadServers":true,"LastContactThreshold":"1s","maxtrailinglogs":7,"MinQuorum":3,
            "ServerStabilizationTime":200000000,"RedundancyZoneTag":"z","DisableUpgradeMigration":true,
            "UpgradeVersionTag":"v","CreateIndex":77,"ModifyIndex":1}"#;
        let config = read(whole).expect("valid");
        assert_eq!((config.last_contact_threshold_ns, config.max_trailing_logs), (1_000_000_000, 7));
        assert_eq!((config.server_stabilization_time_ns, config.create_index), (200_000_000, 0));
        let zero = read("null").expect("nothing is all zero");
        assert_eq!((zero.cleanup_dead_servers, zero.max_trailing_logs), (false, 0));
        assert_eq!(
            read(r#"{"LastContactThreshold":"-3s"}"#).expect("valid").last_contact_threshold_ns,
            -3_000_000_000
        );
        // As recorded from Consul 1.8.7.
        for (text, said) in [
            ("", "EOF"),
            ("{", "unexpected EOF"),
            (r#"{"Extra":1}"#, r#"json: unknown field "Extra""#),
            (r#"{"lastcontactthreshold":"x"}"#, r#"time: invalid duration "x""#),
            (
                r#"{"MaxTrailingLogs":-1}"#,
                "json: cannot unmarshal number -1 into Go struct field AutopilotConfiguration.MaxTrailingLogs of type uint64",
            ),
            (
                r#"{"MaxTrailingLogs":"1"}"#,
                "json: cannot unmarshal string into Go struct field AutopilotConfiguration.MaxTrailingLogs of type uint64",
            ),
            (
                r#"{"MinQuorum":1.5}"#,
                "json: cannot unmarshal number 1.5 into Go struct field AutopilotConfiguration.MinQuorum of type uint",
            ),
            ("[]", "json: cannot unmarshal array into Go value of type api.AutopilotConfiguration"),
            (r#"{"LastContactThreshold":true}"#, r#"strconv.ParseFloat: parsing "true": invalid syntax"#),
            (
                r#"{"CleanupDeadServers":"true"}"#,
                "json: cannot unmarshal string into Go struct field AutopilotConfiguration.CleanupDeadServers of type bool",
            ),
        ] {
            assert_eq!(read(text).expect_err(text), said, "{text}");
        }
    }

    #[test]
    fn times_are_whole_seconds_of_utc() {
        assert_eq!(rfc3339(1_593_077_400), "2020-06-25T09:30:00Z");
    }
}
