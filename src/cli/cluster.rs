//! `members`, `info`, `maint`, `monitor`, `reload`, `leave`: the agent and its cluster.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::client::{Client, Reply};
use super::kv::connecting;
use super::usage::Command;
use super::{Outcome, Program, switch, table, value};
use crate::config::flags::Parsed;
use crate::runtime::time;

/// `members`.
pub const MEMBERS: Program = Program {
    command: Command {
        name: "members",
        summary: "Lists the members of a Consul cluster",
        usage: "members [options]",
        text: "Lists the members that the agent knows. Exits with 2 when none matches.",
    },
    flags: &[
        switch("detailed", "Show all tags of every member."),
        value("segment", "Only members of this network segment."),
        value("status", "Only members whose status matches this regular expression."),
        switch("wan", "Ask a server for the members of the WAN pool."),
    ],
    run: members,
};

/// `info`.
pub const INFO: Program = Program {
    command: Command {
        name: "info",
        summary: "Provides debugging information for operators.",
        usage: "info [options]",
        text: "Shows the agent's statistics.",
    },
    flags: &[],
    run: info,
};

/// `maint`.
pub const MAINT: Program = Program {
    command: Command {
        name: "maint",
        summary: "Controls node or service maintenance mode",
        usage: "maint [options]",
        text: "Takes the node, or with -service one service, out of all discovery answers and back in. Maintenance survives a restart of the agent.\n\nWithout flags, shows what is under maintenance: nothing when nothing is.",
    },
    flags: &[
        switch("disable", "Disable maintenance mode."),
        switch("enable", "Enable maintenance mode."),
        value("reason", "Text that says why."),
        value("service", "ID of the service meant instead of the node."),
    ],
    run: maint,
};

/// `monitor`.
pub const MONITOR: Program = Program {
    command: Command {
        name: "monitor",
        summary: "Stream logs from a Consul agent",
        usage: "monitor [options]",
        text: "Shows the agent's log lines as they come, until interrupted. The level may be lower than the agent's own.",
    },
    flags: &[
        switch("log-json", "Show JSON lines."),
        value("log-level", "Least level shown: TRACE, DEBUG, INFO, WARN or ERR. The default is INFO."),
    ],
    run: monitor,
};

/// `reload`.
pub const RELOAD: Program = Program {
    command: Command {
        name: "reload",
        summary: "Triggers the agent to reload configuration files",
        usage: "reload",
        text: "Makes the agent read its configuration files again, as SIGHUP does.",
    },
    flags: &[],
    run: reload,
};

/// `leave`.
pub const LEAVE: Program = Program {
    command: Command {
        name: "leave",
        summary: "Gracefully leaves the Consul cluster and shuts down",
        usage: "leave [options]",
        text: "Makes the agent leave the cluster and stop.",
    },
    flags: &[],
    run: leave,
};

/// A member as the API answers it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Member {
    name: String,
    addr: String,
    port: u16,
    tags: BTreeMap<String, String>,
    status: i64,
    evidence: Option<Evidence>,
}

/// On what grounds a member is suspected or has failed.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Evidence {
    suspected_by: Option<String>,
    confirmed_by: Vec<String>,
    declared_by: Option<String>,
    last_ack_unix_ms: Option<u64>,
    #[serde(rename = "LastRTT")]
    last_rtt: Option<String>,
}

impl Evidence {
    /// In one cell; `now` is the time since 1970.
    fn text(&self, now: Duration) -> String {
        let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "unknown".to_owned());
        let mut parts = vec![format!("suspected_by={}", name(&self.suspected_by))];
        if !self.confirmed_by.is_empty() {
            parts.push(format!("confirmed_by={}", self.confirmed_by.join("+")));
        }
        parts.extend(self.declared_by.as_ref().map(|by| format!("declared_by={by}")));
        parts.push(match self.last_ack_unix_ms {
            Some(at) => {
                let ago = now.saturating_sub(Duration::from_millis(at)).as_secs_f64();
                format!("last_ack={ago:.1}s_ago")
            }
            None => "last_ack=never".to_owned(),
        });
        parts.extend(self.last_rtt.as_ref().map(|rtt| format!("rtt={rtt}")));
        parts.join(",")
    }
}

impl Member {
    /// The word for its status.
    fn status(&self) -> &'static str {
        match self.status {
            1 => "alive",
            2 => "leaving",
            3 => "left",
            4 => "failed",
            _ => "none",
        }
    }

    /// Address and port.
    fn socket(&self) -> String {
        if self.addr.contains(':') {
            format!("[{}]:{}", self.addr, self.port)
        } else {
            format!("{}:{}", self.addr, self.port)
        }
    }

    /// A tag, empty when absent.
    fn tag(&self, name: &str) -> &str {
        self.tags.get(name).map_or("", String::as_str)
    }
}

/// `members`.
fn members(flags: &Parsed) -> Outcome {
    let pattern = flags.value("status").unwrap_or(".*");
    let status = regex::Regex::new(pattern).map_err(|why| {
        // The last line says what is wrong, those before show where.
        let why = why.to_string();
        let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        format!("Failed to compile status regexp: error parsing regexp: {why}: `{pattern}`")
    })?;
    let client = Client::new(flags).map_err(connecting)?;
    let wan = flags.is_on("wan");
    let segment = flags.value("segment").filter(|s| !s.is_empty()).unwrap_or("_all");
    let mut query: Vec<(&str, &str)> = if wan { vec![("wan", "1")] } else { vec![("segment", segment)] };
    if flags.is_on("detailed") {
        query.push(("evidence", "1"));
    }
    let failed = |why| format!("Error retrieving members: {why}");
    let body = client.get("/v1/agent/members", &query).and_then(Reply::ok).map_err(failed)?;
    let mut members: Vec<Member> = serde_json::from_slice(&body).map_err(|why| failed(why.to_string()))?;
    members.retain(|member| status.is_match(member.status()));
    if members.is_empty() {
        return Ok(ExitCode::from(2));
    }
    for member in &mut members {
        if member.tag("segment").is_empty() {
            let shown = if member.tag("role") == "consul" { "<all>" } else { "<default>" };
            member.tags.insert("segment".to_owned(), shown.to_owned());
        }
    }
    members.sort_by(|a, b| (a.tag("segment"), &a.name).cmp(&(b.tag("segment"), &b.name)));
    let rows = if flags.is_on("detailed") { detailed_rows(&members) } else { plain_rows(&members) };
    println!("{}", table::columns(&rows));
    Ok(ExitCode::SUCCESS)
}

/// The usual table.
fn plain_rows(members: &[Member]) -> Vec<Vec<String>> {
    let header = ["Node", "Address", "Status", "Type", "Build", "Protocol", "DC", "Segment"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for member in members {
        let kind = match member.tag("role") {
            "node" => "client",
            "consul" => "server",
            _ => "unknown",
        };
        let build = member.tag("build").split(':').next().filter(|b| !b.is_empty()).unwrap_or("< 0.3");
        let cells = [
            &member.name,
            &member.socket(),
            member.status(),
            kind,
            build,
            member.tag("vsn"),
            member.tag("dc"),
            member.tag("segment"),
        ];
        rows.push(cells.iter().map(|cell| (*cell).to_owned()).collect());
    }
    rows
}

/// The table with all tags.
fn detailed_rows(members: &[Member]) -> Vec<Vec<String>> {
    let mut rows = vec![["Node", "Address", "Status", "Tags"].map(str::to_owned).to_vec()];
    // A column of ours, where there is something to say.
    let explains = members.iter().any(|member| member.evidence.is_some());
    if explains {
        rows[0].push("Evidence".to_owned());
    }
    let now = time::unix_now();
    for member in members {
        let tags: Vec<String> = member.tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let mut row = vec![member.name.clone(), member.socket(), member.status().to_owned(), tags.join(",")];
        if explains {
            row.push(member.evidence.as_ref().map_or_else(|| "-".to_owned(), |why| why.text(now)));
        }
        rows.push(row);
    }
    rows
}

/// `info`.
fn info(flags: &Parsed) -> Outcome {
    let client = Client::new(flags).map_err(connecting)?;
    let failed = |why| format!("Error querying agent: {why}");
    let body = client.get("/v1/agent/self", &[]).and_then(Reply::ok).map_err(failed)?;
    let me: Value = serde_json::from_slice(&body).map_err(|why| failed(why.to_string()))?;
    let groups: Option<BTreeMap<String, BTreeMap<String, String>>> =
        me.get("Stats").and_then(|stats| serde_json::from_value(stats.clone()).ok());
    let Some(groups) = groups else {
        return Err("Agent did not provide stats".to_owned());
    };
    for (group, stats) in groups {
        println!("{group}:");
        stats.iter().for_each(|(name, value)| println!("\t{name} = {value}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// `maint`.
fn maint(flags: &Parsed) -> Outcome {
    let (enable, disable) = (flags.is_on("enable"), flags.is_on("disable"));
    let text = |name: &str| flags.value(name).unwrap_or_default();
    let (reason, service) = (text("reason"), text("service"));
    if enable && disable {
        return Err("Only one of -enable or -disable may be provided".to_owned());
    }
    if !enable && !reason.is_empty() {
        return Err("Reason may only be provided with -enable".to_owned());
    }
    if !enable && !disable && !service.is_empty() {
        return Err("Service requires either -enable or -disable".to_owned());
    }
    let client = Client::new(flags).map_err(connecting)?;
    if !enable && !disable {
        return show_maintenance(&client);
    }
    let (verb, done) = if enable { ("enabling", "enabled") } else { ("disabling", "disabled") };
    let switch = if enable { "true" } else { "false" };
    let mut query = vec![("enable", switch)];
    if enable {
        query.push(("reason", reason));
    }
    let (path, what) = if service.is_empty() {
        ("/v1/agent/maintenance".to_owned(), "node")
    } else {
        (format!("/v1/agent/service/maintenance/{service}"), "service")
    };
    let failed = |why| format!("Error {verb} {what} maintenance: {why}");
    client.put(&path, &query, &[]).and_then(Reply::ok).map_err(failed)?;
    if service.is_empty() {
        println!("Node maintenance is now {done}");
    } else {
        println!("Service maintenance is now {done} for {service:?}");
    }
    Ok(ExitCode::SUCCESS)
}

/// What is under maintenance.
fn show_maintenance(client: &Client) -> Outcome {
    let read = |path: &str, failed: &dyn Fn(String) -> String| -> Result<Value, String> {
        let body = client.get(path, &[]).and_then(Reply::ok).map_err(failed)?;
        serde_json::from_slice(&body).map_err(|why| failed(why.to_string()))
    };
    let me = read("/v1/agent/self", &|why| format!("Error querying Consul agent: {why}"))?;
    let node = me["Config"]["NodeName"].as_str().unwrap_or_default();
    let checks = read("/v1/agent/checks", &|why| format!("Error getting checks: {why}"))?;
    let all: BTreeMap<&String, &Value> = checks.as_object().into_iter().flatten().collect();
    for (id, check) in all {
        let reason = check["Notes"].as_str().unwrap_or_default();
        if id == "_node_maintenance" {
            println!("Node:\n  Name:   {node}\n  Reason: {reason}\n");
        } else if id.starts_with("_service_maintenance:") {
            let service = check["ServiceID"].as_str().unwrap_or_default();
            println!("Service:\n  ID:     {service}\n  Reason: {reason}\n");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `monitor`.
fn monitor(flags: &Parsed) -> Outcome {
    let client = Client::new(flags).map_err(connecting)?;
    let mut query = vec![("loglevel", flags.value("log-level").unwrap_or("INFO"))];
    if flags.is_on("log-json") {
        query.push(("logjson", "true"));
    }
    let failed = |why| format!("Error starting monitor: {why}");
    let (mut lines, _) = client.open("GET", "/v1/agent/monitor", &query, &[]).map_err(failed)?;
    if lines.status != 200 {
        let status = lines.status;
        let body = lines.bytes().map_err(failed)?;
        return Err(Reply { status, body }.ok().map_err(failed).err().unwrap_or_default());
    }
    let mut buffer = vec![0; 16 << 10];
    let mut stdout = std::io::stdout().lock();
    while let Ok(n) = lines.read(&mut buffer) {
        if n == 0 {
            break;
        }
        // A reader that went away ends the command quietly.
        if stdout.write_all(&buffer[..n]).and_then(|()| stdout.flush()).is_err() {
            return Ok(ExitCode::SUCCESS);
        }
    }
    drop(stdout);
    println!();
    println!(
        "Remote side ended the monitor! This usually means that the\nremote side has exited or crashed."
    );
    Ok(ExitCode::FAILURE)
}

/// `reload`.
fn reload(flags: &Parsed) -> Outcome {
    let client = Client::new(flags).map_err(connecting)?;
    let reply = client.put("/v1/agent/reload", &[], &[]);
    reply.and_then(Reply::ok).map_err(|why| format!("Error reloading: {why}"))?;
    println!("Configuration reload triggered");
    Ok(ExitCode::SUCCESS)
}

/// `leave`.
fn leave(flags: &Parsed) -> Outcome {
    if !flags.args.is_empty() {
        return Err(format!("Error found unexpected args: [{}]", flags.args.join(" ")));
    }
    let client = Client::new(flags).map_err(connecting)?;
    let reply = client.put("/v1/agent/leave", &[], &[]);
    reply.and_then(Reply::ok).map_err(|why| format!("Error leaving: {why}"))?;
    println!("Graceful leave complete");
    Ok(ExitCode::SUCCESS)
}
