//! `explain service`: why an instance is, or is not, in the answers, and what will remove it.

use std::process::ExitCode;

use serde_json::Value;

use super::client::{Client, Reply};
use super::kv::connecting;
use super::usage::Command;
use super::{Group, Outcome, Program, value};
use crate::config::duration;
use crate::config::flags::Parsed;

/// The commands of `explain`.
pub const GROUP: Group =
    Group { name: "explain", summary: "Explain what the agent and the catalog hold", programs: &[SERVICE] };

const SERVICE: Program = Program {
    command: Command {
        name: "service",
        summary: "Say why a service is, or is not, in the answers",
        usage: "explain service [options] NAME [ID]",
        text: "Says of each instance of a service which agent owns it, whether the catalog has it as it is there, which checks decide its health, whether DNS and ?passing answer with it, and what will remove it and when. The agent that owns an instance knows most; any other tells what the catalog and gossip know.",
    },
    flags: &[value("format", "Output format, pretty or json. The default is pretty.")],
    run: service,
};

fn service(flags: &Parsed) -> Outcome {
    let (name, id) = match &flags.args[..] {
        [name] => (name, None),
        [name, id] => (name, Some(id.as_str())),
        _ => return Err("Usage: explain service [options] NAME [ID]".to_owned()),
    };
    let json = match flags.value("format").unwrap_or("pretty") {
        "json" => true,
        "pretty" | "" => false,
        other => return Err(format!("Invalid format {other:?}: must be \"pretty\" or \"json\"")),
    };
    let client = Client::new(flags).map_err(connecting)?;
    let failed = |why: String| format!("Error explaining service {name:?}: {why}");
    let mut query = vec![("pretty", "")];
    query.extend(id.map(|id| ("id", id)));
    let body = client.get(&format!("/v1/agent/explain/service/{name}"), &query).and_then(Reply::ok);
    let body = body.map_err(failed)?;
    let answer: Value = serde_json::from_slice(&body).map_err(|why| failed(why.to_string()))?;
    if json {
        print!("{}", String::from_utf8_lossy(&body));
    } else {
        print!("{}", told(&answer));
    }
    let none = answer["Instances"].as_array().is_none_or(Vec::is_empty);
    Ok(if none { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The answer in words.
fn told(answer: &Value) -> String {
    let mut out = String::new();
    let name = word(&answer["Service"]);
    if let Some(doubt) = answer["Doubt"].as_str() {
        out += &format!("The catalog could not be asked ({doubt}): this is what is kept here.\n\n");
    }
    let instances = answer["Instances"].as_array().map(Vec::as_slice).unwrap_or_default();
    if instances.is_empty() {
        return out + &format!("{name}: neither the catalog nor this agent knows such an instance\n");
    }
    for (number, instance) in instances.iter().enumerate() {
        if number > 0 {
            out.push('\n');
        }
        tell(&mut out, instance);
    }
    out
}

fn tell(out: &mut String, instance: &Value) {
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    let port = instance["Port"].as_i64().filter(|port| *port != 0).map(|port| format!(":{port}"));
    let at = match word(&instance["Address"]) {
        "" => String::new(),
        address => format!("  {address}{}", port.unwrap_or_default()),
    };
    line(format!(
        "{}  {} on {}{at}",
        word(&instance["Service"]),
        word(&instance["ID"]),
        word(&instance["Node"])
    ));
    line(format!("  Owner     {}", owner(&instance["Owner"])));
    line(format!("  Catalog   {}", catalog(instance)));
    let answers = &instance["Answers"];
    for (label, key) in [("DNS", "DNS"), ("?passing", "Passing")] {
        let included = if answers[key]["Included"] == true { "yes" } else { "no" };
        line(format!("  {label:<9} {included}: {}", word(&answers[key]["Why"])));
    }
    let checks = instance["Checks"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (number, check) in checks.iter().enumerate() {
        let label = if number == 0 { "Checks" } else { "" };
        line(format!("  {label:<9} {}", told_check(check)));
    }
    let removal = instance["Removal"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (number, removal) in removal.iter().enumerate() {
        let label = if number == 0 { "Removal" } else { "" };
        let when = match removal["InSeconds"].as_u64() {
            Some(0) => " now".to_owned(),
            Some(left) => format!(" in {}", seconds(left)),
            None => " when".to_owned(),
        };
        line(format!("  {label:<9} {}{when}: {}", word(&removal["What"]), word(&removal["Why"])));
    }
    if removal.is_empty() {
        line("  Removal   only by whoever registered it".to_owned());
    }
}

fn owner(owner: &Value) -> String {
    let agent = word(&owner["Agent"]);
    if owner["Here"] == true {
        return format!("{agent}, this agent");
    }
    if owner["Member"] != true {
        return format!("no agent: {agent} is no member that is known here");
    }
    let mut text = format!("{agent}, {}", word(&owner["Status"]));
    if let Some(since) = owner["SinceSeconds"].as_u64() {
        text += &format!(" for {}", seconds(since));
    }
    if let Some(evidence) = owner["Evidence"].as_str() {
        text += &format!(" ({evidence})");
    }
    text
}

fn catalog(instance: &Value) -> String {
    let held = match instance["ModifyIndex"].as_u64() {
        Some(index) => format!("changed last at index {index}"),
        None => "does not have it".to_owned(),
    };
    let sync = &instance["Sync"];
    if sync.is_null() {
        return held;
    }
    if sync["Registered"] != true {
        return format!("{held}, though this agent does not know it");
    }
    let lacking: Vec<&str> =
        sync["Lacking"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let state = match lacking.as_slice() {
        [] => "as it is here".to_owned(),
        lacking => format!("still to be written: {}", lacking.join(", ")),
    };
    match sync["LastSyncSecondsAgo"].as_u64() {
        Some(ago) => format!("{held}, {state}; last in sync {} ago", seconds(ago)),
        None => format!("{held}, {state}; never in sync since this agent began"),
    }
}

fn told_check(check: &Value) -> String {
    let mut text = format!("{:<8} {}", word(&check["Status"]), word(&check["CheckID"]));
    if check["Of"] == "node" {
        text += " (of the node)";
    }
    if check["Decides"] == true {
        text += ", decides";
    }
    if let Some(every) = check["Every"].as_str() {
        text += &format!(", run every {every}");
    }
    if let Some(critical) = check["CriticalSeconds"].as_u64() {
        text += &format!(", critical for {}", seconds(critical));
    }
    let output = word(&check["Output"]).lines().next().unwrap_or_default();
    if !output.is_empty() {
        text += &format!(": {output}");
    }
    text
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn seconds(seconds: u64) -> String {
    duration::format(i64::try_from(seconds).unwrap_or_default().saturating_mul(1_000_000_000))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_instance_that_is_going_is_told_in_words() {
        let answer = json!({"Service": "web", "Doubt": null, "Instances": [{
            "Node": "n2", "ID": "web-1", "Service": "web", "Address": "10.0.0.2", "Port": 80,
            "InCatalog": true, "ModifyIndex": 12, "Sync": null,
            "Owner": {"Agent": "n2", "Here": false, "Member": true, "Status": "failed", "SinceSeconds": 90,
                      "Evidence": "n1 got no answer"},
            "Checks": [{"CheckID": "serfHealth", "Status": "critical", "Of": "node", "Decides": true,
                        "Output": "Agent not live or unreachable\n", "Every": null, "CriticalSeconds": null}],
            "Answers": {"DNS": {"Included": false, "Why": "serfHealth is critical"},
                        "Passing": {"Included": false, "Why": "serfHealth is critical"}},
            "Removal": [{"What": "is deregistered with its node", "InSeconds": 259_110, "Why": "n2 failed"}],
        }]});
        let expected = "\
web  web-1 on n2  10.0.0.2:80
  Owner     n2, failed for 1m30s (n1 got no answer)
  Catalog   changed last at index 12
  DNS       no: serfHealth is critical
  ?passing  no: serfHealth is critical
  Checks    critical serfHealth (of the node), decides: Agent not live or unreachable
  Removal   is deregistered with its node in 71h58m30s: n2 failed
";
        assert_eq!(told(&answer), expected);
    }

    #[test]
    fn what_nobody_knows_is_said() {
        let answer = json!({"Service": "web", "Doubt": "No cluster leader", "Instances": []});
        let text = told(&answer);
        assert!(text.contains("No cluster leader") && text.ends_with("knows such an instance\n"), "{text}");
    }
}
