//! `operator raft list-peers`, `remove-peer`, `transfer-leader`; `operator autopilot get-config`, `set-config`, `state`.

use std::process::ExitCode;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::client::{Client, Reply};
use super::kv::connecting;
use super::usage::Command;
use super::{Group, Outcome, Program, Realm, table, value};
use crate::config::duration;
use crate::config::flags::{Parsed, go_bool};

/// The groups of `operator`.
pub const REALM: Realm = Realm {
    name: "operator",
    summary: "Provides cluster-level tools for Consul operators",
    groups: &[AUTOPILOT, RAFT],
};

const RAFT: Group = Group {
    name: "raft",
    summary: "Provides cluster-level tools for Consul operators",
    programs: &[LIST_PEERS, REMOVE_PEER, TRANSFER_LEADER],
};

const AUTOPILOT: Group = Group {
    name: "autopilot",
    summary: "Provides tools for modifying Autopilot configuration",
    programs: &[GET_CONFIG, SET_CONFIG, STATE],
};

const LIST_PEERS: Program = Program {
    command: Command {
        name: "list-peers",
        summary: "Display the current Raft peer configuration",
        usage: "operator raft list-peers [options]",
        text: "Lists the servers of the cluster: who leads, and who votes.",
    },
    flags: &[],
    run: list_peers,
};

const REMOVE_PEER: Program = Program {
    command: Command {
        name: "remove-peer",
        summary: "Remove a Consul server from the Raft configuration",
        usage: "operator raft remove-peer [options]",
        text: "Removes a server from the cluster for good, by -id or by -address. A server that is still known as a member goes better with 'force-leave'.",
    },
    flags: &[value("address", "Address of the server, ip:port."), value("id", "ID of the server.")],
    run: remove_peer,
};

const TRANSFER_LEADER: Program = Program {
    command: Command {
        name: "transfer-leader",
        summary: "Transfer raft leadership to another node",
        usage: "operator raft transfer-leader [options]",
        text: "Hands the lead to another server that votes: to the one named by -id, else to the one that is furthest.",
    },
    flags: &[value("id", "ID of the server that shall lead.")],
    run: transfer_leader,
};

const GET_CONFIG: Program = Program {
    command: Command {
        name: "get-config",
        summary: "Display the current Autopilot configuration",
        usage: "operator autopilot get-config [options]",
        text: "Displays the current Autopilot configuration.",
    },
    flags: &[],
    run: get_config,
};

const SET_CONFIG: Program = Program {
    command: Command {
        name: "set-config",
        summary: "Modify the current Autopilot configuration",
        usage: "operator autopilot set-config [options]",
        text: "Modifies the current Autopilot configuration: what the flags name changes, the rest stays.",
    },
    flags: &[
        value("cleanup-dead-servers", "Remove dead servers when enough others are there: true or false."),
        value("disable-upgrade-migration", "Stored and shown: true or false."),
        value("last-contact-threshold", "Longest silence of a healthy server, such as 200ms."),
        value("max-trailing-logs", "How many entries a healthy server may be behind the leader."),
        value("min-quorum", "Dead servers stay while removing them would leave fewer servers."),
        value("redundancy-zone-tag", "Stored and shown."),
        value(
            "server-stabilization-time",
            "How long a new server must be healthy before it votes, such as 10s.",
        ),
        value("upgrade-version-tag", "Stored and shown."),
    ],
    run: set_config,
};

const STATE: Program = Program {
    command: Command {
        name: "state",
        summary: "Display the current Autopilot state",
        usage: "operator autopilot state [options]",
        text: "Displays what Autopilot knows of the servers.",
    },
    flags: &[value("format", "Output format, pretty or json. The default is pretty.")],
    run: state,
};

const RAFT_CONFIGURATION: &str = "/v1/operator/raft/configuration";
const AUTOPILOT_CONFIGURATION: &str = "/v1/operator/autopilot/configuration";

/// A server as `raft/configuration` answers it.
#[derive(Deserialize)]
struct Peer {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Node")]
    node: String,
    #[serde(rename = "Address")]
    address: String,
    #[serde(rename = "Leader")]
    leader: bool,
    #[serde(rename = "ProtocolVersion")]
    protocol: String,
    #[serde(rename = "Voter")]
    voter: bool,
}

/// `operator raft list-peers`.
fn list_peers(flags: &Parsed) -> Outcome {
    #[derive(Deserialize)]
    struct Servers {
        #[serde(rename = "Servers")]
        servers: Vec<Peer>,
    }
    let failed = |why: String| format!("Error getting peers: Failed to retrieve raft configuration: {why}");
    let client = Client::new(flags).map_err(connecting)?;
    let answer: Servers = decoded(client.get(RAFT_CONFIGURATION, &[]), &failed)?;
    let mut rows =
        vec![["Node", "ID", "Address", "State", "Voter", "RaftProtocol"].map(str::to_owned).to_vec()];
    for peer in answer.servers {
        let state = if peer.leader { "leader" } else { "follower" };
        let protocol = if peer.protocol.is_empty() { "<=1".to_owned() } else { peer.protocol };
        rows.push(vec![peer.node, peer.id, peer.address, state.to_owned(), peer.voter.to_string(), protocol]);
    }
    println!("{}", table::columns(&rows));
    Ok(ExitCode::SUCCESS)
}

/// `operator raft remove-peer`.
fn remove_peer(flags: &Parsed) -> Outcome {
    let client = Client::new(flags).map_err(connecting)?;
    let given = |name| flags.value(name).filter(|text| !text.is_empty());
    let failed = |why: String| format!("Error removing peer: {why}");
    let (name, value) = match (given("address"), given("id")) {
        (None, None) => {
            return Err(failed("an address or id is required for the peer to remove".to_owned()));
        }
        (Some(_), Some(_)) => return Err(failed("cannot give both an address and id".to_owned())),
        (Some(address), None) => ("address", address),
        (None, Some(id)) => ("id", id),
    };
    let reply = client.request("DELETE", "/v1/operator/raft/peer", &[(name, value)], &[]);
    reply.and_then(Reply::ok).map_err(failed)?;
    println!("Removed peer with {name} {value:?}");
    Ok(ExitCode::SUCCESS)
}

/// `operator raft transfer-leader`.
fn transfer_leader(flags: &Parsed) -> Outcome {
    const FAILED: &str = "Error transfering leadership: Failed to transfer leadership";
    let client = Client::new(flags).map_err(connecting)?;
    let query: Vec<(&str, &str)> =
        flags.value("id").filter(|id| !id.is_empty()).map(|id| ("id", id)).into_iter().collect();
    let failed = |why: String| format!("{FAILED} {why}");
    let reply = client.request("POST", "/v1/operator/raft/transfer-leader", &query, &[]);
    let answer: Value = decoded(reply, &failed)?;
    if answer["Success"] != json!(true) {
        return Err(FAILED.to_owned());
    }
    println!("Success");
    Ok(ExitCode::SUCCESS)
}

/// `operator autopilot get-config`.
fn get_config(flags: &Parsed) -> Outcome {
    let client = Client::new(flags).map_err(connecting)?;
    let config = current_config(&client)?;
    let shown = |name: &str| match &config[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    for name in [
        "CleanupDeadServers",
        "LastContactThreshold",
        "MaxTrailingLogs",
        "MinQuorum",
        "ServerStabilizationTime",
    ] {
        println!("{name} = {}", shown(name));
    }
    println!("RedundancyZoneTag = {:?}", shown("RedundancyZoneTag"));
    println!("DisableUpgradeMigration = {}", shown("DisableUpgradeMigration"));
    println!("UpgradeVersionTag = {:?}", shown("UpgradeVersionTag"));
    Ok(ExitCode::SUCCESS)
}

/// `operator autopilot set-config`: reads, changes what the flags name, and writes if nobody else did meanwhile.
fn set_config(flags: &Parsed) -> Outcome {
    let changes = changes(flags).map_err(|why| format!("Failed to parse args: {why}"))?;
    let client = Client::new(flags).map_err(connecting)?;
    let mut config = current_config(&client)?;
    for (field, value) in changes {
        config[field] = value;
    }
    let cas = config["ModifyIndex"].to_string();
    let failed = |why: String| format!("Error setting Autopilot configuration: {why}");
    let body = config.to_string();
    let written: bool =
        decoded(client.put(AUTOPILOT_CONFIGURATION, &[("cas", &cas)], body.as_bytes()), &failed)?;
    if written {
        println!("Configuration updated!");
        return Ok(ExitCode::SUCCESS);
    }
    println!("Configuration could not be atomically updated, please try again");
    Ok(ExitCode::FAILURE)
}

/// The fields that the flags of `set-config` change.
fn changes(flags: &Parsed) -> Result<Map<String, Value>, String> {
    let mut out = Map::new();
    let mut take = |flag: &str, field: &str, read: &dyn Fn(&str) -> Result<Value, String>| {
        if let Some(text) = flags.value(flag) {
            out.insert(field.to_owned(), read(text)?);
        }
        Ok::<(), String>(())
    };
    let flag = |name: &'static str| {
        move |text: &str| {
            let bad = || {
                format!(
                    "invalid boolean value {text:?} for -{name}: strconv.ParseBool: parsing {text:?}: invalid syntax"
                )
            };
            go_bool(text).map(Value::Bool).ok_or_else(bad)
        }
    };
    let number = |name: &'static str| {
        move |text: &str| {
            let bad = |_| {
                format!(
                    "invalid value {text:?} for flag -{name}: strconv.ParseUint: parsing {text:?}: invalid syntax"
                )
            };
            text.parse::<u64>().map(Value::from).map_err(bad)
        }
    };
    let time = |name: &'static str| {
        move |text: &str| match duration::parse(text) {
            Ok(nanos) => Ok(Value::String(duration::format(nanos))),
            Err(why) => Err(format!("invalid value {text:?} for flag -{name}: {why}")),
        }
    };
    let text = |text: &str| Ok(Value::String(text.to_owned()));
    take("cleanup-dead-servers", "CleanupDeadServers", &flag("cleanup-dead-servers"))?;
    take("disable-upgrade-migration", "DisableUpgradeMigration", &flag("disable-upgrade-migration"))?;
    take("last-contact-threshold", "LastContactThreshold", &time("last-contact-threshold"))?;
    take("max-trailing-logs", "MaxTrailingLogs", &number("max-trailing-logs"))?;
    take("min-quorum", "MinQuorum", &number("min-quorum"))?;
    take("redundancy-zone-tag", "RedundancyZoneTag", &text)?;
    take("server-stabilization-time", "ServerStabilizationTime", &time("server-stabilization-time"))?;
    take("upgrade-version-tag", "UpgradeVersionTag", &text)?;
    Ok(out)
}

/// The configuration as the API answers it, an object.
fn current_config(client: &Client) -> Result<Value, String> {
    let failed = |why: String| format!("Error querying Autopilot configuration: {why}");
    let config: Value = decoded(client.get(AUTOPILOT_CONFIGURATION, &[]), &failed)?;
    if config.is_object() { Ok(config) } else { Err(failed(format!("the answer is no object: {config}"))) }
}

/// `operator autopilot state`.
fn state(flags: &Parsed) -> Outcome {
    let client = Client::new(flags).map_err(connecting)?;
    let failed = |why: String| format!("Error querying Autopilot state: {why}");
    let state: Value = decoded(client.get("/v1/operator/autopilot/state", &[]), &failed)?;
    match flags.value("format").unwrap_or("pretty") {
        "pretty" => println!("{}", pretty(&state)),
        "json" => {
            let mut out = Vec::new();
            let layout = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            let mut writer = serde_json::Serializer::with_formatter(&mut out, layout);
            serde::Serialize::serialize(&state, &mut writer).map_err(|why| why.to_string())?;
            println!("{}", String::from_utf8_lossy(&out));
        }
        other => return Err(format!("Unknown format: {other}")),
    }
    Ok(ExitCode::SUCCESS)
}

/// The layout of later Consul versions.
fn pretty(state: &Value) -> String {
    let shown = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut out = String::new();
    for (title, field) in [
        ("Healthy:", "Healthy"),
        ("Failure Tolerance:", "FailureTolerance"),
        ("Optimistic Failure Tolerance:", "OptimisticFailureTolerance"),
        ("Leader:", "Leader"),
    ] {
        out.push_str(&format!("{title:<30}{}\n", shown(&state[field])));
    }
    for (title, field) in [("Voters", "Voters"), ("Read Replicas", "ReadReplicas")] {
        let ids: Vec<&Value> = state[field].as_array().into_iter().flatten().collect();
        if field == "Voters" || !ids.is_empty() {
            out.push_str(&format!("{title}:\n"));
        }
        ids.into_iter().for_each(|id| out.push_str(&format!("   {}\n", shown(id))));
    }
    out.push_str("Servers:\n");
    let mut servers: Vec<(&String, &Value)> = state["Servers"].as_object().into_iter().flatten().collect();
    servers.sort_unstable_by_key(|(id, _)| *id);
    for (_, server) in servers {
        out.push_str(&format!("   {}\n", shown(&server["ID"])));
        for (title, field) in [
            ("Name:", "Name"),
            ("Address:", "Address"),
            ("Version:", "Version"),
            ("Status:", "Status"),
            ("Node Type:", "NodeType"),
            ("Node Status:", "NodeStatus"),
            ("Healthy:", "Healthy"),
            ("Last Contact:", "LastContact"),
            ("Last Term:", "LastTerm"),
            ("Last Index:", "LastIndex"),
        ] {
            out.push_str(&format!("      {title:<17}{}\n", shown(&server[field])));
        }
        if server["ReadReplica"] == json!(true) {
            out.push_str("      Read Replica:    true\n");
        }
        let meta = server["Meta"].as_object().filter(|meta| !meta.is_empty());
        if let Some(meta) = meta {
            out.push_str("      Meta\n");
            meta.iter().for_each(|(key, value)| {
                out.push_str(&format!("         {key:?}: {:?}\n", shown(value)));
            });
        }
    }
    out
}

/// The JSON of a 200.
fn decoded<T: serde::de::DeserializeOwned>(
    reply: Result<Reply, String>,
    failed: &dyn Fn(String) -> String,
) -> Result<T, String> {
    let body = reply.and_then(Reply::ok).map_err(failed)?;
    serde_json::from_slice(&body).map_err(|why| failed(why.to_string()))
}
