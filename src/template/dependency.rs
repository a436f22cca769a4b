//! What a template depends on: how a template writes it, what is asked of an agent for it, and what the answer means.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use regex::{Captures, Regex};
use serde_json::Value as Json;

use super::value::{Key, Keys, Kind, StructKind, Text, Value};

/// Something outside that a template shows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependency {
    /// The names of all datacenters, perhaps only of those that answer.
    Datacenters {
        /// Whether those without a leader are left out.
        ignore_failing: bool,
    },
    /// The content of a file.
    File(String),
    /// The value of a key.
    Key {
        /// The key.
        path: String,
        /// The datacenter; empty for the agent's.
        dc: String,
    },
    /// All keys under a prefix.
    Keys {
        /// The prefix.
        prefix: String,
        /// The datacenter; empty for the agent's.
        dc: String,
    },
    /// A node and its services.
    Node {
        /// Its name; empty for the agent's own.
        name: String,
        /// The datacenter; empty for the agent's.
        dc: String,
    },
    /// All nodes.
    Nodes {
        /// The datacenter; empty for the agent's.
        dc: String,
        /// The node from which distances count; empty for none.
        near: String,
    },
    /// Instances of a service.
    Service {
        /// The service.
        name: String,
        /// The tag they must have; empty for any.
        tag: String,
        /// The datacenter; empty for the agent's.
        dc: String,
        /// The node from which distances count; empty for none.
        near: String,
        /// The states they may be in, sorted.
        states: Vec<String>,
        /// Whether proxies are asked for.
        connect: bool,
    },
    /// All services and their tags.
    Services {
        /// The datacenter; empty for the agent's.
        dc: String,
    },
}

/// What is asked of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The path.
    pub path: String,
    /// The query.
    pub query: Vec<(String, String)>,
    /// Whether the agent can hold the answer back until something has changed.
    pub blocks: bool,
}

/// A record type of consul-template.
macro_rules! record {
    ($name:ident, $go:literal, $pointer:literal, [$($field:literal: $kind:expr),* $(,)?]) => {
        static $name: StructKind =
            StructKind { name: $go, is_pointer: $pointer, fields: &[$(($field, $kind)),*] };
    };
}

const TEXT: Kind = Kind::Text;
const TEXT_MAP: Kind = Kind::Map(&Kind::Text);

record!(KEY_PAIR, "dependency.KeyPair", true, [
    "Path": TEXT, "Key": TEXT, "Value": TEXT, "CreateIndex": Kind::Uint, "ModifyIndex": Kind::Uint,
    "LockIndex": Kind::Uint, "Flags": Kind::Uint, "Session": TEXT,
]);
record!(NODE, "dependency.Node", true, [
    "ID": TEXT, "Node": TEXT, "Address": TEXT, "Datacenter": TEXT, "TaggedAddresses": TEXT_MAP, "Meta": TEXT_MAP,
]);
record!(CATALOG_NODE, "dependency.CatalogNode", true, [
    "Node": Kind::Struct(&NODE), "Services": Kind::List(&Kind::Struct(&NODE_SERVICE)),
]);
record!(NODE_SERVICE, "dependency.CatalogNodeService", true, [
    "ID": TEXT, "Service": TEXT, "Tags": Kind::Tags, "Meta": TEXT_MAP, "Port": Kind::Int, "Address": TEXT,
    "EnableTagOverride": Kind::Bool,
]);
record!(SNIPPET, "dependency.CatalogSnippet", true, ["Name": TEXT, "Tags": Kind::Tags]);
record!(ADDRESS, "api.ServiceAddress", false, ["Address": TEXT, "Port": Kind::Int]);
record!(WEIGHTS, "api.AgentWeights", false, ["Passing": Kind::Int, "Warning": Kind::Int]);
record!(CHECK, "api.HealthCheck", true, [
    "Node": TEXT, "CheckID": TEXT, "Name": TEXT, "Status": TEXT, "Notes": TEXT, "Output": TEXT,
    "ServiceID": TEXT, "ServiceName": TEXT, "ServiceTags": Kind::List(&Kind::Text), "Type": TEXT,
    "CreateIndex": Kind::Uint, "ModifyIndex": Kind::Uint,
]);
record!(HEALTH_SERVICE, "dependency.HealthService", true, [
    "Node": TEXT, "NodeID": TEXT, "NodeAddress": TEXT, "NodeTaggedAddresses": TEXT_MAP, "NodeMeta": TEXT_MAP,
    "ServiceMeta": TEXT_MAP, "Address": TEXT, "ServiceTaggedAddresses": Kind::Map(&Kind::Struct(&ADDRESS)),
    "ID": TEXT, "Name": TEXT, "Tags": Kind::Tags, "Checks": Kind::List(&Kind::Struct(&CHECK)), "Status": TEXT,
    "Port": Kind::Int, "Weights": Kind::Struct(&WEIGHTS),
]);

/// The elements of `[]*api.HealthCheck`, by which `AggregatedStatus` is found.
pub fn is_checks(kind: Kind) -> bool {
    kind == Kind::Struct(&CHECK)
}

/// The parts of what templates write; each may be followed only by those behind it.
const DC: &str = r"(?:@(?P<dc>[0-9A-Za-z_.\-]+))?";
const QUERY: &str = r"(?:\?(?P<query>[0-9A-Za-z_\-=&]+))?";
const NEAR: &str = r"(?:~(?P<near>[0-9A-Za-z_.\-]+))?";

static SERVICE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&format!(
        r"(?:(?P<tag>[0-9A-Za-z_=:.\-]+)\.)?(?P<name>[0-9A-Za-z_\-]+){QUERY}{DC}{NEAR}(?:\|(?P<states>[0-9A-Za-z_,]+))?"
    ))
});
static PATH: LazyLock<Regex> = LazyLock::new(|| pattern(&format!(r"/?(?P<name>[^@?]+){QUERY}{DC}")));
static NODE_NAME: LazyLock<Regex> =
    LazyLock::new(|| pattern(&format!(r"(?P<name>[0-9A-Za-z_.\-]+)?{QUERY}{DC}")));
static PLACE: LazyLock<Regex> = LazyLock::new(|| pattern(&format!("{QUERY}{DC}{NEAR}")));

fn pattern(text: &str) -> Regex {
    Regex::new(&format!(r"\A{text}\z")).expect("a pattern of this file is valid")
}

/// The named parts of what a template wrote.
struct Parts<'t>(Captures<'t>);

impl<'t> Parts<'t> {
    /// `kind` names the function in errors.
    fn of(pattern: &Regex, kind: &str, text: &'t str) -> Result<Parts<'t>, String> {
        let parts = Parts(pattern.captures(text).ok_or_else(|| format!("{kind}: invalid format: {text:?}"))?);
        for pair in parts.get("query").split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("ns" | "partition", "default" | "")) => {}
                Some((name @ ("ns" | "partition" | "peer" | "sameness-group"), value)) => {
                    return Err(format!(
                        "{kind}: {name}={value} is not supported: there is only the default"
                    ));
                }
                _ => return Err(format!("{kind}: invalid query parameter {pair:?} in {text:?}")),
            }
        }
        Ok(parts)
    }

    fn get(&self, name: &str) -> String {
        self.0.name(name).map_or("", |part| part.as_str()).to_owned()
    }
}

impl Dependency {
    /// A key, from `key "PATH@DC"`.
    pub fn key(text: &str) -> Result<Dependency, String> {
        let parts = Parts::of(&PATH, "kv.get", text)?;
        Ok(Dependency::Key { path: parts.get("name"), dc: parts.get("dc") })
    }

    /// Keys under a prefix, from `ls "PREFIX@DC"`.
    pub fn keys(text: &str) -> Result<Dependency, String> {
        let parts = Parts::of(&PATH, "kv.list", text)?;
        Ok(Dependency::Keys { prefix: parts.get("name"), dc: parts.get("dc") })
    }

    /// A node, from `node "NAME@DC"`.
    pub fn node(text: &str) -> Result<Dependency, String> {
        let parts = Parts::of(&NODE_NAME, "catalog.node", text)?;
        Ok(Dependency::Node { name: parts.get("name"), dc: parts.get("dc") })
    }

    /// All nodes, from `nodes "@DC~NEAR"`.
    pub fn nodes(text: &str) -> Result<Dependency, String> {
        let parts = Parts::of(&PLACE, "catalog.nodes", text)?;
        Ok(Dependency::Nodes { dc: parts.get("dc"), near: parts.get("near") })
    }

    /// All services, from `services "@DC"`.
    pub fn services(text: &str) -> Result<Dependency, String> {
        let parts = Parts::of(&PLACE, "catalog.services", text)?;
        if !parts.get("near").is_empty() {
            return Err(format!("catalog.services: invalid format: {text:?}"));
        }
        Ok(Dependency::Services { dc: parts.get("dc") })
    }

    /// Instances of a service, from `service "TAG.NAME@DC~NEAR|STATES"`.
    pub fn service(text: &str, connect: bool) -> Result<Dependency, String> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')) {
            // A name alone, as nearly always: no pattern is needed.
            let (name, states) = (text.to_owned(), vec!["passing".to_owned()]);
            let [tag, dc, near] = [const { String::new() }; 3];
            return Ok(Dependency::Service { name, tag, dc, near, states, connect });
        }
        let parts = Parts::of(&SERVICE, "health.service", text)?;
        let mut states: Vec<String> = Vec::new();
        let list = parts.get("states");
        for state in list.split(',').map(str::trim).filter(|state| !state.is_empty()) {
            if !["any", "passing", "warning", "critical", "maintenance"].contains(&state) {
                return Err(format!("health.service: invalid filter: {state:?} in {text:?}"));
            }
            states.push(state.to_owned());
        }
        if states.is_empty() {
            states.push("passing".to_owned());
        }
        states.sort_unstable();
        let (name, tag, dc) = (parts.get("name"), parts.get("tag"), parts.get("dc"));
        Ok(Dependency::Service { name, tag, dc, near: parts.get("near"), states, connect })
    }

    /// What is asked of the agent; nothing for a file.
    pub fn question(&self) -> Option<Question> {
        let mut query: Vec<(String, String)> = Vec::new();
        let mut ask = |name: &str, value: &str| {
            if !value.is_empty() {
                query.push((name.to_owned(), value.to_owned()));
            }
        };
        let path = match self {
            Dependency::File(_) => return None,
            Dependency::Datacenters { .. } => "/v1/catalog/datacenters".to_owned(),
            Dependency::Key { path, dc } => {
                ask("dc", dc);
                format!("/v1/kv/{path}")
            }
            Dependency::Keys { prefix, dc } => {
                ask("dc", dc);
                ask("recurse", "true");
                format!("/v1/kv/{prefix}")
            }
            Dependency::Node { name, dc } => {
                ask("dc", dc);
                format!("/v1/catalog/node/{name}")
            }
            Dependency::Nodes { dc, near } => {
                ask("dc", dc);
                ask("near", near);
                "/v1/catalog/nodes".to_owned()
            }
            Dependency::Services { dc } => {
                ask("dc", dc);
                "/v1/catalog/services".to_owned()
            }
            Dependency::Service { name, tag, dc, near, states, connect } => {
                ask("dc", dc);
                ask("near", near);
                ask("tag", tag);
                ask("passing", if states.len() == 1 && states[0] == "passing" { "1" } else { "" });
                format!("/v1/health/{}/{name}", if *connect { "connect" } else { "service" })
            }
        };
        Some(Question { path, query, blocks: !matches!(self, Dependency::Datacenters { .. }) })
    }

    /// What an agent's answer means. `body` is that of a 200; `None` stands for a 404.
    pub fn answer(&self, body: Option<&[u8]>) -> Result<Value, String> {
        let Some(body) = body else {
            return Ok(match self {
                Dependency::Keys { .. } => Value::list_of(Kind::Struct(&KEY_PAIR), Vec::new()),
                Dependency::Node { .. } => no_node(),
                _ => Value::Nil,
            });
        };
        let json: Json = serde_json::from_slice(body)
            .map_err(|why| format!("{self}: not the answer of an agent: {why}"))?;
        let rows = json.as_array().map_or(&[][..], Vec::as_slice);
        Ok(match self {
            Dependency::File(_) => Value::Nil,
            Dependency::Datacenters { .. } => {
                let mut names: Vec<&str> = rows.iter().filter_map(Json::as_str).collect();
                names.sort_unstable();
                Value::texts(names)
            }
            Dependency::Key { .. } => rows.first().map_or(Value::Nil, |row| Value::Text(decoded(row))),
            Dependency::Keys { prefix, .. } => {
                Value::list_of(Kind::Struct(&KEY_PAIR), rows.iter().map(|row| pair(row, prefix)).collect())
            }
            Dependency::Node { .. } => catalog_node(&json),
            Dependency::Nodes { near, .. } => {
                let mut rows: Vec<&Json> = rows.iter().collect();
                if near.is_empty() {
                    rows.sort_by_key(|row| (text(row, "Node"), text(row, "Address")));
                }
                Value::list_of(Kind::Struct(&NODE), rows.into_iter().map(node).collect())
            }
            Dependency::Services { .. } => {
                let empty = serde_json::Map::new();
                let mut all: Vec<(&String, &Json)> = json.as_object().unwrap_or(&empty).iter().collect();
                all.sort_by_key(|(name, _)| *name);
                let snippet = |(name, list): (&String, &Json)| {
                    Value::record(&SNIPPET, vec![Value::text(name.as_str()), tags(list)])
                };
                Value::list_of(Kind::Struct(&SNIPPET), all.into_iter().map(snippet).collect())
            }
            Dependency::Service { near, states, .. } => instances(rows, near.is_empty(), states),
        })
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |dc: &str| if dc.is_empty() { String::new() } else { format!("@{dc}") };
        let by = |near: &str| if near.is_empty() { String::new() } else { format!("~{near}") };
        let or_bare = |name: &str, inside: String| {
            if inside.is_empty() { name.to_owned() } else { format!("{name}({inside})") }
        };
        let text = match self {
            Dependency::Datacenters { ignore_failing: false } => "catalog.datacenters".to_owned(),
            Dependency::Datacenters { ignore_failing: true } => "catalog.datacenters(answering)".to_owned(),
            Dependency::File(path) => format!("file({path})"),
            Dependency::Key { path, dc } => format!("kv.get({path}{})", at(dc)),
            Dependency::Keys { prefix, dc } => format!("kv.list({prefix}{})", at(dc)),
            Dependency::Node { name, dc } => or_bare("catalog.node", format!("{name}{}", at(dc))),
            Dependency::Nodes { dc, near } => or_bare("catalog.nodes", format!("{}{}", at(dc), by(near))),
            Dependency::Services { dc } => or_bare("catalog.services", at(dc)),
            Dependency::Service { name, tag, dc, near, states, connect } => format!(
                "health.{}({}{name}{}{}|{})",
                if *connect { "connect" } else { "service" },
                if tag.is_empty() { String::new() } else { format!("{tag}.") },
                at(dc),
                by(near),
                states.join(",")
            ),
        };
        out.write_str(&text)
    }
}

fn text<'j>(row: &'j Json, name: &str) -> &'j str {
    row[name].as_str().unwrap_or_default()
}

fn text_value(row: &Json, name: &str) -> Value {
    Value::text(text(row, name))
}

fn int(row: &Json, name: &str) -> Value {
    Value::Int(row[name].as_i64().unwrap_or(0))
}

fn uint(row: &Json, name: &str) -> Value {
    Value::Uint(row[name].as_u64().unwrap_or(0))
}

fn map(row: &Json, name: &str, elem: Kind, value: impl Fn(&Json) -> Value) -> Value {
    let entries = row[name].as_object().into_iter().flatten();
    let entries: BTreeMap<Key, Value> = entries.map(|(k, v)| (k.as_str().into(), value(v))).collect();
    Value::map_of(elem, Keys::Text, entries)
}

fn text_map(row: &Json, name: &str) -> Value {
    map(row, name, TEXT, |value| Value::text(value.as_str().unwrap_or_default()))
}

/// Tags, sorted.
fn tags(list: &Json) -> Value {
    let mut tags: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    tags.sort_unstable();
    Value::list_of(Kind::Tags, tags.into_iter().map(Value::text).collect())
}

/// The value of a key.
fn decoded(row: &Json) -> Text {
    let encoded = text(row, "Value");
    STANDARD.decode(encoded).map_or_else(|_| encoded.into(), Text::from)
}

fn pair(row: &Json, prefix: &str) -> Value {
    let path = text(row, "Key");
    let key = path.strip_prefix(prefix).unwrap_or(path).trim_start_matches('/');
    Value::record(
        &KEY_PAIR,
        vec![
            Value::text(path),
            Value::text(key),
            Value::Text(decoded(row)),
            uint(row, "CreateIndex"),
            uint(row, "ModifyIndex"),
            uint(row, "LockIndex"),
            uint(row, "Flags"),
            text_value(row, "Session"),
        ],
    )
}

/// A pair as before, but under another key.
pub fn renamed_pair(pair: &super::value::Struct, key: &str) -> Value {
    let mut fields = pair.fields.clone();
    fields[1] = Value::text(key);
    Value::record(&KEY_PAIR, fields)
}

/// What a map of pairs holds.
pub fn pair_kind() -> Kind {
    Kind::Struct(&KEY_PAIR)
}

fn node(row: &Json) -> Value {
    let mut fields: Vec<Value> =
        ["ID", "Node", "Address", "Datacenter"].iter().map(|name| text_value(row, name)).collect();
    fields.push(text_map(row, "TaggedAddresses"));
    fields.push(text_map(row, "Meta"));
    Value::record(&NODE, fields)
}

/// A node that is not there.
fn no_node() -> Value {
    let services = Value::list_of(Kind::Struct(&NODE_SERVICE), Vec::new());
    Value::record(&CATALOG_NODE, vec![Value::Nil, services])
}

fn catalog_node(json: &Json) -> Value {
    if json["Node"].is_null() {
        return no_node();
    }
    let mut rows: Vec<&Json> =
        json["Services"].as_object().into_iter().flatten().map(|(_, row)| row).collect();
    rows.sort_by_key(|row| (text(row, "Service"), text(row, "ID")));
    let service = |row: &Json| {
        Value::record(
            &NODE_SERVICE,
            vec![
                text_value(row, "ID"),
                text_value(row, "Service"),
                tags(&row["Tags"]),
                text_map(row, "Meta"),
                int(row, "Port"),
                text_value(row, "Address"),
                Value::Bool(row["EnableTagOverride"].as_bool().unwrap_or(false)),
            ],
        )
    };
    let services = Value::list_of(Kind::Struct(&NODE_SERVICE), rows.into_iter().map(service).collect());
    Value::record(&CATALOG_NODE, vec![node(&json["Node"]), services])
}

/// The instances in states that are wanted, by node and ID unless they come by distance.
fn instances(rows: &[Json], sorts: bool, states: &[String]) -> Value {
    let mut kept: Vec<(&Json, &'static str)> = rows
        .iter()
        .map(|row| (row, status(row["Checks"].as_array().map_or(&[], Vec::as_slice))))
        .filter(|(_, status)| states.iter().any(|state| state == "any" || state == status))
        .collect();
    if sorts {
        kept.sort_by_key(|(row, _)| (text(&row["Node"], "Node"), text(&row["Service"], "ID")));
    }
    let items = kept.into_iter().map(|(row, status)| instance(row, status)).collect();
    Value::list_of(Kind::Struct(&HEALTH_SERVICE), items)
}

fn instance(row: &Json, status: &str) -> Value {
    let (node, service) = (&row["Node"], &row["Service"]);
    let address = match text(service, "Address") {
        "" => text(node, "Address"),
        address => address,
    };
    let tagged = map(service, "TaggedAddresses", Kind::Struct(&ADDRESS), |value| {
        Value::record(&ADDRESS, vec![text_value(value, "Address"), int(value, "Port")])
    });
    let checks = row["Checks"].as_array().into_iter().flatten().map(check).collect();
    let weights = &service["Weights"];
    Value::record(
        &HEALTH_SERVICE,
        vec![
            text_value(node, "Node"),
            text_value(node, "ID"),
            text_value(node, "Address"),
            text_map(node, "TaggedAddresses"),
            text_map(node, "Meta"),
            text_map(service, "Meta"),
            Value::text(address),
            tagged,
            text_value(service, "ID"),
            text_value(service, "Service"),
            tags(&service["Tags"]),
            Value::list_of(Kind::Struct(&CHECK), checks),
            Value::text(status),
            int(service, "Port"),
            Value::record(&WEIGHTS, vec![int(weights, "Passing"), int(weights, "Warning")]),
        ],
    )
}

fn check(row: &Json) -> Value {
    let names = ["Node", "CheckID", "Name", "Status", "Notes", "Output", "ServiceID", "ServiceName"];
    let mut fields: Vec<Value> = names.iter().map(|name| text_value(row, name)).collect();
    let list = row["ServiceTags"].as_array().into_iter().flatten();
    fields.push(Value::texts(list.filter_map(Json::as_str)));
    fields.push(text_value(row, "Type"));
    fields.push(uint(row, "CreateIndex"));
    fields.push(uint(row, "ModifyIndex"));
    Value::record(&CHECK, fields)
}

/// The state of an instance: maintenance before all, then the worst of its checks.
fn status(checks: &[Json]) -> &'static str {
    worst(checks.iter().map(|check| (text(check, "CheckID"), text(check, "Status"))))
}

/// The worst of checks, given as IDs and states.
pub fn worst<'c>(checks: impl Iterator<Item = (&'c str, &'c str)>) -> &'static str {
    let mut worst = 0;
    for (id, status) in checks {
        let grade = match status {
            _ if id == "_node_maintenance" || id.starts_with("_service_maintenance:") => 3,
            "passing" => 0,
            "warning" => 1,
            "critical" => 2,
            _ => continue,
        };
        worst = grade.max(worst);
    }
    ["passing", "warning", "critical", "maintenance"][worst]
}
