//! `join`, `force-leave`, `keyring`, `event`, `rtt`: the pool that the agent is a member of.

use std::process::ExitCode;

use muster_protocol::gossip::coordinate::Coordinate;
use serde_json::{Value, json};

use super::client::{Client, Reply};
use super::kv::connecting;
use super::usage::Command;
use super::{Outcome, Program, client, int, switch, usage, value};
use crate::config::flags::{Flag, Parsed};
use crate::edge::http::filter::go_pattern;

/// The shared flags of these commands.
const OF_AGENT: &[Flag] = client::FLAGS.split_at(client::AGENT_FLAGS).0;

/// `join`.
pub const JOIN: Program = Program {
    command: Command {
        name: "join",
        summary: "Tell Consul agent to join cluster",
        usage: "join [options] address ...",
        text: "Tells the agent to join a cluster through one or more of its members.",
    },
    flags: &[switch("wan", "Joins a server to another server in the WAN pool.")],
    run: join,
};

/// `force-leave`.
pub const FORCE_LEAVE: Program = Program {
    command: Command {
        name: "force-leave",
        summary: "Forces a member of the cluster to enter the \"left\" state",
        usage: "force-leave [options] name",
        text: "Takes a failed member for one that has left, so that nobody waits for it any more. A member that is alive says so, and stays.",
    },
    flags: &[switch("prune", "Remove the member from the list of members, too.")],
    run: force_leave,
};

/// `keyring`.
pub const KEYRING: Program = Program {
    command: Command {
        name: "keyring",
        summary: "Manages gossip layer encryption keys",
        usage: "keyring [options]",
        text: "Shows or changes the keys that gossip is encrypted with, on all members at once. To change the key while all run: install the new one, use it, remove the old one. It must be asked of a server, and ends with 0 only if all members have answered and done it.",
    },
    flags: &[
        value("install", "Install a new key on all members."),
        switch("list", "List all keys in use."),
        switch("list-primary", "List all primary keys in use."),
        switch("local-only", "Only ask the LAN pool. Only for lists."),
        int("relay-factor", "So many other members relay each answer, at most 5."),
        value("remove", "Remove a key that is not the primary one."),
        value("use", "Make an installed key the primary one, which all is encrypted with."),
    ],
    run: keyring,
};

/// `event`.
pub const EVENT: Program = Program {
    command: Command {
        name: "event",
        summary: "Fire a new event",
        usage: "event [options] [payload]",
        text: "Tells all members of a datacenter something, once. Regular expressions say which of them heed it.",
    },
    flags: &[
        value("name", "Name of the event."),
        value("node", "Regular expression for node names."),
        value("service", "Regular expression for names of services."),
        value("tag", "Regular expression for tags of these services. Only with -service."),
    ],
    run: event,
};

/// `rtt`.
pub const RTT: Program = Program {
    command: Command {
        name: "rtt",
        summary: "Estimates network round trip time between nodes",
        usage: "rtt [options] node1 [node2]",
        text: "Estimates the round trip between two nodes, or between one and the agent's own, from their network coordinates.",
    },
    flags: &[switch("wan", "Use WAN coordinates; names are NODE.DATACENTER then.")],
    run: rtt,
};

/// A mistake in the words behind the flags: the text, and how it is done.
pub fn misused(program: &Program, shared: &[Flag], text: &str) -> Outcome {
    eprintln!("{text}\n");
    let flags: Vec<_> = program.flags.iter().chain(shared).copied().collect();
    eprint!("{}", usage::help(&program.command, &flags));
    Ok(ExitCode::FAILURE)
}

fn join(flags: &Parsed) -> Outcome {
    if flags.args.is_empty() {
        return misused(&JOIN, OF_AGENT, "At least one address to join must be specified.");
    }
    let client = Client::new(flags).map_err(connecting)?;
    let query: &[(&str, &str)] = if flags.is_on("wan") { &[("wan", "1")] } else { &[] };
    let mut joined = 0;
    for address in &flags.args {
        match client.put(&format!("/v1/agent/join/{address}"), query, &[]).and_then(Reply::ok) {
            Ok(_) => joined += 1,
            Err(why) => eprintln!("Error joining address '{address}': {why}"),
        }
    }
    if joined == 0 {
        return Err("Failed to join any nodes.".to_owned());
    }
    println!("Successfully joined cluster by contacting {joined} nodes.");
    Ok(ExitCode::SUCCESS)
}

fn force_leave(flags: &Parsed) -> Outcome {
    let [name] = &flags.args[..] else {
        return misused(&FORCE_LEAVE, OF_AGENT, "A single node name must be specified to force leave.");
    };
    let client = Client::new(flags).map_err(connecting)?;
    let query: &[(&str, &str)] = if flags.is_on("prune") { &[("prune", "1")] } else { &[] };
    let left = client.put(&format!("/v1/agent/force-leave/{name}"), query, &[]);
    left.and_then(Reply::ok).map_err(|why| format!("Error force leaving: {why}"))?;
    Ok(ExitCode::SUCCESS)
}

fn keyring(flags: &Parsed) -> Outcome {
    let given = |name: &str| flags.value(name).filter(|key| !key.is_empty());
    let actions = [
        given("install").map(|key| ("POST", key, "Installing new gossip encryption key...")),
        given("use").map(|key| ("PUT", key, "Changing primary gossip encryption key...")),
        given("remove").map(|key| ("DELETE", key, "Removing gossip encryption key...")),
        flags.is_on("list").then_some(("GET", "Keys", "Gathering installed encryption keys...")),
        flags.is_on("list-primary").then_some((
            "GET",
            "PrimaryKeys",
            "Gathering installed primary encryption keys...",
        )),
    ];
    let mut chosen = actions.into_iter().flatten();
    let (method, what, said) = match (chosen.next(), chosen.next()) {
        (Some(action), None) => action,
        (None, _) => {
            let shared = &super::client::FLAGS[..super::client::AGENT_FLAGS];
            let all: Vec<_> = KEYRING.flags.iter().chain(shared).copied().collect();
            eprint!("{}", usage::help(&KEYRING.command, &all));
            return Ok(ExitCode::FAILURE);
        }
        (Some(_), Some(_)) => return Err("Only a single action is allowed".to_owned()),
    };
    let relays = flags.value("relay-factor").unwrap_or("0");
    if !relays.parse::<i64>().is_ok_and(|relays| (0..=5).contains(&relays)) {
        return Err("Error parsing relay factor: Relay factor must be in range: [0, 5]".to_owned());
    }
    if flags.is_on("local-only") && method != "GET" {
        return Err("Error validating local-only: local-only can only be set for list requests".to_owned());
    }
    let client = Client::new(flags).map_err(connecting)?;
    println!("==> {said}");
    let mut query = vec![("relay-factor", relays)];
    if flags.is_on("local-only") {
        query.push(("local-only", "true"));
    }
    let body = if method == "GET" { Vec::new() } else { json!({ "Key": what }).to_string().into_bytes() };
    let asked = client.request(method, "/v1/operator/keyring", &query, &body);
    let body = asked.and_then(Reply::ok).map_err(|why| format!("error: {why}"))?;
    if method == "GET" {
        let pools: Vec<Value> = serde_json::from_slice(&body).map_err(|why| format!("error: {why}"))?;
        pools.iter().for_each(|pool| show_pool(pool, what));
    }
    Ok(ExitCode::SUCCESS)
}

fn show_pool(pool: &Value, what: &str) {
    let text = |name: &str| pool[name].as_str().unwrap_or_default();
    let segment = if text("Segment").is_empty() { String::new() } else { format!(" [{}]", text("Segment")) };
    match pool["WAN"].as_bool() {
        Some(true) => println!("\nWAN:"),
        _ => println!("\n{} (LAN){segment}:", text("Datacenter")),
    }
    for (member, said) in pool["Messages"].as_object().into_iter().flatten() {
        println!("  {member}: {}", said.as_str().unwrap_or_default());
    }
    for (key, count) in pool[what].as_object().into_iter().flatten() {
        println!("  {key} [{count}/{}]", pool["NumNodes"]);
    }
}

fn event(flags: &Parsed) -> Outcome {
    let text = |name: &str| flags.value(name).unwrap_or_default();
    let (name, node, service, tag) = (text("name"), text("node"), text("service"), text("tag"));
    if name.is_empty() {
        return misused(&EVENT, OF_AGENT, "Event name must be specified");
    }
    if !tag.is_empty() && service.is_empty() {
        return Err("Cannot provide tag filter without service filter.".to_owned());
    }
    for (what, filter) in [("node", node), ("service", service), ("tag", tag)] {
        go_pattern(filter).map_err(|why| format!("Failed to compile {what} filter regexp: {why}"))?;
    }
    let payload = match &flags.args[..] {
        [] => "",
        [payload] => payload,
        _ => return misused(&EVENT, OF_AGENT, "Too many command line arguments."),
    };
    let client = Client::new(flags).map_err(connecting)?;
    let filters = [("node", node), ("service", service), ("tag", tag)];
    let query: Vec<_> = filters.into_iter().filter(|(_, filter)| !filter.is_empty()).collect();
    let failed = |why| format!("Error firing event: {why}");
    let fired = client.put(&format!("/v1/event/fire/{name}"), &query, payload.as_bytes());
    let body = fired.and_then(Reply::ok).map_err(failed)?;
    let event: Value = serde_json::from_slice(&body).map_err(|why| failed(why.to_string()))?;
    println!("Event ID: {}", event["ID"].as_str().unwrap_or_default());
    Ok(ExitCode::SUCCESS)
}

fn rtt(flags: &Parsed) -> Outcome {
    let (one, other) = match &flags.args[..] {
        [one] => (one.clone(), None),
        [one, other] => (one.clone(), Some(other.clone())),
        _ => return misused(&RTT, OF_AGENT, "One or two node names must be specified"),
    };
    let client = Client::new(flags).map_err(connecting)?;
    let read = |path: &str, what: &str| -> Result<Value, String> {
        let failed = |why: String| format!("{what}: {why}");
        let body = client.get(path, &[]).and_then(Reply::ok).map_err(failed)?;
        serde_json::from_slice(&body).map_err(|why| failed(why.to_string()))
    };
    let wan = flags.is_on("wan");
    let other = match other {
        Some(other) => other,
        None => {
            let own = read("/v1/agent/self", "Unable to look up agent info")?;
            let name = own["Config"]["NodeName"].as_str().unwrap_or_default();
            let datacenter = own["Config"]["Datacenter"].as_str().unwrap_or_default();
            if wan { format!("{name}.{datacenter}") } else { name.to_owned() }
        }
    };
    let rows = if wan {
        if ![&one, &other].into_iter().all(|name| name.split('.').count() == 2) {
            return Err("Node names must be specified as <node name>.<datacenter> with -wan".to_owned());
        }
        wan_rows(&read("/v1/coordinate/datacenters", "Error getting coordinates")?)
    } else {
        lan_rows(&read("/v1/coordinate/nodes", "Error getting coordinates")?)
    };
    let find = |name: &str| {
        let found = rows.iter().find(|(node, ..)| node == name);
        found.ok_or_else(|| format!("Could not find a coordinate for node {name:?}"))
    };
    let ((_, here), (_, there)) = (find(&one)?, find(&other)?);
    let millis = here.distance_to(there).as_secs_f64() * 1000.0;
    let source = if wan { "WAN" } else { "LAN" };
    println!("Estimated {one} <-> {other} rtt: {millis:.3} ms (using {source} coordinates)");
    Ok(ExitCode::SUCCESS)
}

fn lan_rows(nodes: &Value) -> Vec<(String, Coordinate)> {
    let rows = nodes.as_array().into_iter().flatten();
    rows.filter_map(|row| Some((row["Node"].as_str()?.to_owned(), coordinate(&row["Coord"])?))).collect()
}

fn wan_rows(datacenters: &Value) -> Vec<(String, Coordinate)> {
    let mut rows = Vec::new();
    for datacenter in datacenters.as_array().into_iter().flatten() {
        let name = datacenter["Datacenter"].as_str().unwrap_or_default();
        let nodes = lan_rows(&datacenter["Coordinates"]);
        rows.extend(nodes.into_iter().map(|(node, at)| (format!("{node}.{name}"), at)));
    }
    rows
}

fn coordinate(value: &Value) -> Option<Coordinate> {
    let parts = value["Vec"].as_array()?;
    let mut coordinate = Coordinate {
        error: value["Error"].as_f64()?,
        adjustment: value["Adjustment"].as_f64()?,
        height: value["Height"].as_f64()?,
        ..Coordinate::default()
    };
    if parts.len() != coordinate.position.len() {
        return None;
    }
    for (place, part) in coordinate.position.iter_mut().zip(parts) {
        *place = part.as_f64()?;
    }
    Some(coordinate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_worked_out_from_what_the_agent_answers() {
        let at = |x: f64| json!({"Vec": [x, 0, 0, 0, 0, 0, 0, 0], "Error": 0.1, "Adjustment": 0, "Height": 0.0005});
        let nodes = json!([
            {"Node": "a", "Segment": "", "Coord": at(0.0)}, {"Node": "b", "Segment": "", "Coord": at(0.01)},
            {"Node": "c", "Segment": "", "Coord": {"Vec": [1]}},
        ]);
        let rows = lan_rows(&nodes);
        assert_eq!(rows.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(rows[0].1.distance_to(&rows[1].1).as_micros(), 11_000);
        let wan = json!([{"Datacenter": "dc1", "AreaID": "wan", "Coordinates": nodes}]);
        assert_eq!(wan_rows(&wan)[1].0, "b.dc1");
    }
}
