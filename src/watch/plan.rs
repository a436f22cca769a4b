//! What a watch asks for: its parameters, as a block of the configuration or the command's flags have them, and the
//! question that they make. Texts of mistakes are Consul's.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::course::Indexes;
use super::gotext;
use crate::config::duration;

/// How long an HTTP handler may take when it does not say (Consul: `DefaultTimeout`).
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One key.
    Key(String),
    /// All keys below a prefix.
    KeyPrefix(String),
    /// The list of services.
    Services,
    /// The list of nodes.
    Nodes,
    /// The instances of a service.
    Service {
        /// Its name.
        name: String,
        /// Only instances that have all of them.
        tags: Vec<String>,
        /// Only healthy instances.
        passing_only: bool,
    },
    /// The checks in a state.
    ChecksInState(String),
    /// The checks of a service.
    ChecksOfService(String),
    /// User events, of one name if it is not empty.
    Event(String),
    /// A service of the agent itself, by its ID.
    AgentService(String),
    /// What belongs to the service mesh: known, and watched by nobody here.
    Mesh(String),
}

/// A watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What is watched.
    pub subject: Subject,
    /// The datacenter, if not the agent's own.
    pub datacenter: String,
    /// The ACL token, if not the agent's own.
    pub token: String,
    /// Any server may answer.
    pub stale: bool,
    /// `handler_type` as given.
    pub handler_type: String,
    /// `http_handler_config`, with the handler type `http`.
    pub http: Option<HttpHandler>,
    /// The parameters that the caller keeps for itself.
    pub exempt: Map<String, Value>,
}

/// A handler that is told over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpHandler {
    /// The URL.
    pub path: String,
    /// The method.
    pub method: String,
    /// How long it may take.
    pub timeout: Duration,
    /// Headers.
    pub header: BTreeMap<String, Vec<String>>,
    /// Any certificate will do.
    pub tls_skip_verify: bool,
}

/// A question to an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Path, not encoded.
    pub path: String,
    /// Parameters, not encoded.
    pub query: Vec<(&'static str, String)>,
    /// What the indexes of its answers mean.
    pub indexes: Indexes,
}

impl Plan {
    /// Reads the parameters; those named in `exempt` are kept as they are. What was read is taken out of them: what is left
    /// when it fails stands in the messages of Consul's agent.
    ///
    /// # Errors
    /// Consul's text.
    pub fn parse(params: &mut Map<String, Value>, exempt: &[&str]) -> Result<Plan, String> {
        let datacenter = text(params, "datacenter")?;
        let token = text(params, "token")?;
        let kind = text(params, "type")?;
        if kind.is_empty() {
            return Err("Watch type must be specified".to_owned());
        }
        let handler_type = text(params, "handler_type")?;
        let http = match (handler_type.as_str(), params.get("http_handler_config")) {
            ("http", None) => {
                return Err("Handler type 'http' requires 'http_handler_config' to be set".to_owned());
            }
            ("http", Some(config)) => {
                let read = HttpHandler::read(config);
                let read = read.map_err(|why| format!("Failed to parse 'http_handler_config': {why}"))?;
                params.shift_remove("http_handler_config");
                Some(read)
            }
            _ => None,
        };
        let (subject, stale) = Subject::parse(&kind, params)?;
        let kept: Vec<(String, Value)> =
            exempt.iter().filter_map(|name| params.shift_remove_entry(*name)).collect();
        if !params.is_empty() {
            let mut names: Vec<&str> = params.keys().map(String::as_str).collect();
            names.sort_unstable();
            return Err(format!("Invalid parameters: [{}]", names.join(" ")));
        }
        Ok(Plan { subject, datacenter, token, stale, handler_type, http, exempt: kept.into_iter().collect() })
    }

    /// The question whose answers are watched, without datacenter, staleness and token.
    pub fn question(&self) -> Question {
        let ask = |path: String, query: Vec<(&'static str, String)>| {
            let is_event = matches!(self.subject, Subject::Event(_));
            let indexes = if is_event { Indexes::Differ } else { Indexes::Grow };
            Question { path, query, indexes }
        };
        match &self.subject {
            Subject::Key(key) => ask(format!("/v1/kv/{}", without_slash(key)), Vec::new()),
            Subject::KeyPrefix(prefix) => {
                ask(format!("/v1/kv/{}", without_slash(prefix)), vec![("recurse", String::new())])
            }
            Subject::Services => ask("/v1/catalog/services".to_owned(), Vec::new()),
            Subject::Nodes => ask("/v1/catalog/nodes".to_owned(), Vec::new()),
            Subject::Service { name, tags, passing_only } => {
                let mut query: Vec<(&str, String)> = tags.iter().map(|tag| ("tag", tag.clone())).collect();
                if *passing_only {
                    query.push(("passing", "1".to_owned()));
                }
                ask(format!("/v1/health/service/{name}"), query)
            }
            Subject::ChecksInState(state) => ask(format!("/v1/health/state/{state}"), Vec::new()),
            Subject::ChecksOfService(service) => ask(format!("/v1/health/checks/{service}"), Vec::new()),
            Subject::Event(name) => {
                let named = Some(name).filter(|name| !name.is_empty());
                ask(
                    "/v1/event/list".to_owned(),
                    named.map(|name| ("name", name.clone())).into_iter().collect(),
                )
            }
            Subject::AgentService(id) => {
                let path = format!("/v1/agent/service/{id}");
                Question { path, query: Vec::new(), indexes: Indexes::Hashes }
            }
            Subject::Mesh(kind) => ask(mesh_path(kind), Vec::new()),
        }
    }
}

/// Where Consul has it.
fn mesh_path(kind: &str) -> String {
    format!("/v1/agent/connect/ca/{}", if kind == "connect_leaf" { "leaf" } else { "roots" })
}

/// Keys have no slash in front; Consul's client drops one.
fn without_slash(key: &str) -> &str {
    key.strip_prefix('/').unwrap_or(key)
}

impl Subject {
    /// What a type and its parameters name; and whether any server may answer.
    fn parse(kind: &str, params: &mut Map<String, Value>) -> Result<(Subject, bool), String> {
        let known = ["key", "keyprefix", "services", "nodes", "service", "checks"];
        let stale = if known.contains(&kind) { flag(params, "stale")? } else { false };
        let needed = |value: String, what: &str| match value.is_empty() {
            true => Err(format!("Must specify a single {what} to watch")),
            false => Ok(value),
        };
        let subject = match kind {
            "key" => Subject::Key(needed(text(params, "key")?, "key")?),
            "keyprefix" => Subject::KeyPrefix(needed(text(params, "prefix")?, "prefix")?),
            "services" => Subject::Services,
            "nodes" => Subject::Nodes,
            "service" => {
                let name = needed(text(params, "service")?, "service")?;
                let tags = texts(params, "tag")?;
                Subject::Service { name, tags, passing_only: flag(params, "passingonly")? }
            }
            "checks" => {
                let (service, state) = (text(params, "service")?, text(params, "state")?);
                match (service.is_empty(), state.is_empty()) {
                    (false, false) => return Err("Cannot specify service and state".to_owned()),
                    (false, true) => Subject::ChecksOfService(service),
                    (true, false) => Subject::ChecksInState(state),
                    (true, true) => Subject::ChecksInState("any".to_owned()),
                }
            }
            "event" => Subject::Event(text(params, "name")?),
            "connect_roots" => Subject::Mesh(kind.to_owned()),
            "connect_leaf" => {
                text(params, "service")?;
                Subject::Mesh(kind.to_owned())
            }
            "agent_service" => Subject::AgentService(text(params, "service_id")?),
            other => return Err(format!("Unsupported watch type: {other}")),
        };
        Ok((subject, stale))
    }
}

impl HttpHandler {
    /// Reads the block. HCL writes it, and the headers in it, as a list of one.
    fn read(config: &Value) -> Result<HttpHandler, String> {
        let block = only(config).as_object();
        let block = block.ok_or_else(|| format!("'' expected a map, got '{}'", go_kind(config)))?;
        let mut out = HttpHandler {
            path: String::new(),
            method: String::new(),
            timeout: HTTP_TIMEOUT,
            header: BTreeMap::new(),
            tls_skip_verify: false,
        };
        for (name, value) in block {
            match name.to_ascii_lowercase().as_str() {
                "path" => out.path = plain_text("path", value)?,
                "method" => out.method = plain_text("method", value)?,
                "timeout" => match plain_text("timeout", value)?.as_str() {
                    "" => {}
                    given => {
                        let ns = duration::parse(given)
                            .map_err(|why| format!("Failed to parse timeout: {why}"))?;
                        out.timeout = Duration::from_nanos(u64::try_from(ns).unwrap_or(0));
                    }
                },
                "header" => {
                    let fields = only(value).as_object();
                    let fields = fields.ok_or_else(|| unexpected("header", "map", value))?;
                    for (name, values) in fields {
                        out.header.insert(name.clone(), header_values(values)?);
                    }
                }
                "tls_skip_verify" => match value {
                    Value::Bool(flag) => out.tls_skip_verify = *flag,
                    Value::Null => {}
                    other => return Err(unexpected("tls_skip_verify", "bool", other)),
                },
                // Consul's reader passes over the rest.
                _ => {}
            }
        }
        if out.path.is_empty() {
            return Err("Requires 'path' to be set".to_owned());
        }
        if out.method.is_empty() {
            "POST".clone_into(&mut out.method);
        }
        Ok(out)
    }
}

/// A list of one is what it holds.
fn only(value: &Value) -> &Value {
    match value {
        Value::Array(items) if items.len() == 1 => &items[0],
        other => other,
    }
}

fn header_values(values: &Value) -> Result<Vec<String>, String> {
    match values {
        Value::Array(items) => items.iter().map(|item| plain_text("header", item)).collect(),
        one => Ok(vec![plain_text("header", one)?]),
    }
}

/// Text.
fn plain_text(name: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Null => Ok(String::new()),
        other => Err(unexpected(name, "string", other)),
    }
}

fn unexpected(name: &str, expected: &str, value: &Value) -> String {
    decoding(&format!("'{name}' expected type '{expected}', got unconvertible type '{}'", go_kind(value)))
}

/// The frame that Consul's reader puts around what it found.
fn decoding(fault: &str) -> String {
    format!("1 error(s) decoding:\n\n* {fault}")
}

/// Go's name for the type of a value that was read from a file.
fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Takes a text out of the parameters; empty when it is not there.
fn text(params: &mut Map<String, Value>, name: &str) -> Result<String, String> {
    match params.get(name) {
        None => Ok(String::new()),
        Some(Value::String(_)) => match params.shift_remove(name) {
            Some(Value::String(text)) => Ok(text),
            _ => Ok(String::new()),
        },
        Some(_) => Err(format!("Expecting {name} to be a string")),
    }
}

/// Takes a flag out of the parameters; off when it is not there.
fn flag(params: &mut Map<String, Value>, name: &str) -> Result<bool, String> {
    match params.get(name) {
        None => Ok(false),
        Some(Value::Bool(flag)) => {
            let flag = *flag;
            params.shift_remove(name);
            Ok(flag)
        }
        Some(_) => Err(format!("Expecting {name} to be a boolean")),
    }
}

/// Takes one text or a list of texts out of the parameters.
fn texts(params: &mut Map<String, Value>, name: &str) -> Result<Vec<String>, String> {
    let found = match params.get(name) {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(items)) => {
            let text = |(i, item): (usize, &Value)| match item {
                Value::String(text) => Ok(text.clone()),
                _ => Err(format!("Index {i} of {name} expected to be string")),
            };
            items.iter().enumerate().map(text).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(format!("Expecting {name} to be a string or []string")),
    };
    params.shift_remove(name);
    Ok(found)
}

/// Consul's text for a block of the configuration that cannot be read.
pub fn unreadable(left: &Map<String, Value>, why: &str) -> String {
    format!("Failed to parse watch ({}): {why}", gotext::shown(left))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(params: Value) -> Result<Plan, String> {
        let Value::Object(mut params) = params else { panic!("an object") };
        Plan::parse(&mut params, &["handler", "args"])
    }

    fn target(params: Value) -> String {
        let question = parse(params).expect("valid").question();
        let query: Vec<String> =
            question.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{}?{}", question.path, query.join("&"))
    }

    #[test]
    fn each_type_asks_its_question() {
        for (params, expected) in [
            (json!({"type": "key", "key": "/a/b"}), "/v1/kv/a/b?"),
            (json!({"type": "keyprefix", "prefix": "a/"}), "/v1/kv/a/?recurse="),
            (json!({"type": "services"}), "/v1/catalog/services?"),
            (json!({"type": "nodes", "stale": true}), "/v1/catalog/nodes?"),
            (
                json!({"type": "service", "service": "web", "tag": ["a", "b"], "passingonly": true}),
                "/v1/health/service/web?tag=a&tag=b&passing=1",
            ),
            (json!({"type": "service", "service": "web", "tag": "a"}), "/v1/health/service/web?tag=a"),
            (json!({"type": "checks"}), "/v1/health/state/any?"),
            (json!({"type": "checks", "state": "critical"}), "/v1/health/state/critical?"),
            (json!({"type": "checks", "service": "web"}), "/v1/health/checks/web?"),
            (json!({"type": "event", "name": "x"}), "/v1/event/list?name=x"),
            (json!({"type": "event"}), "/v1/event/list?"),
            (json!({"type": "agent_service", "service_id": "w1"}), "/v1/agent/service/w1?"),
        ] {
            assert_eq!(target(params.clone()), expected, "{params}");
        }
        let plan =
            parse(json!({"type": "nodes", "stale": true, "datacenter": "dc2", "token": "t", "args": ["x"]}));
        let plan = plan.expect("valid");
        assert!(plan.stale && plan.datacenter == "dc2" && plan.token == "t");
        assert_eq!(plan.exempt["args"], json!(["x"]));
    }

    #[test]
    fn mistakes_are_consuls() {
        for (params, text) in [
            (json!({}), "Watch type must be specified"),
            (json!({"type": 1}), "Expecting type to be a string"),
            (json!({"type": "nope"}), "Unsupported watch type: nope"),
            (json!({"type": "key"}), "Must specify a single key to watch"),
            (json!({"type": "keyprefix"}), "Must specify a single prefix to watch"),
            (json!({"type": "service"}), "Must specify a single service to watch"),
            (json!({"type": "service", "service": "a", "tag": [1]}), "Index 0 of tag expected to be string"),
            (
                json!({"type": "service", "service": "a", "tag": 1}),
                "Expecting tag to be a string or []string",
            ),
            (json!({"type": "nodes", "stale": "yes"}), "Expecting stale to be a boolean"),
            (json!({"type": "checks", "service": "a", "state": "b"}), "Cannot specify service and state"),
            (json!({"type": "nodes", "key": "a", "b": 1}), "Invalid parameters: [b key]"),
            (
                json!({"type": "nodes", "handler_type": "http"}),
                "Handler type 'http' requires 'http_handler_config' to be set",
            ),
            (
                json!({"type": "nodes", "handler_type": "http", "http_handler_config": {}}),
                "Failed to parse 'http_handler_config': Requires 'path' to be set",
            ),
            (
                json!({"type": "nodes", "handler_type": "http", "http_handler_config": "x"}),
                "Failed to parse 'http_handler_config': '' expected a map, got 'string'",
            ),
            (
                json!({"type": "nodes", "handler_type": "http", "http_handler_config": {"path": 5}}),
                "Failed to parse 'http_handler_config': 1 error(s) decoding:\n\n\
                 * 'path' expected type 'string', got unconvertible type 'float64'",
            ),
            (
                json!({"type": "nodes", "handler_type": "http", "http_handler_config": {"path": "x", "timeout": "z"}}),
                "Failed to parse 'http_handler_config': Failed to parse timeout: time: invalid duration \"z\"",
            ),
        ] {
            assert_eq!(parse(params.clone()).expect_err("a mistake"), text, "{params}");
        }
    }

    #[test]
    fn http_handlers_are_read_as_json_and_hcl_write_them() {
        let config = json!({"path": "http://h/", "method": "PUT", "timeout": "3s", "tls_skip_verify": true,
            "header": {"x-a": ["1", "2"]}});
        for config in [config.clone(), json!([config])] {
            let plan = parse(json!({"type": "nodes", "handler_type": "http", "http_handler_config": config}));
            let http = plan.expect("valid").http.expect("a handler");
            assert_eq!((http.path.as_str(), http.method.as_str()), ("http://h/", "PUT"));
            assert_eq!((http.timeout, http.tls_skip_verify), (Duration::from_secs(3), true));
            assert_eq!(http.header["x-a"], ["1", "2"]);
        }
        let least =
            json!({"type": "nodes", "handler_type": "http", "http_handler_config": {"path": "http://h/"}});
        let http = parse(least).expect("valid").http.expect("a handler");
        assert_eq!((http.method.as_str(), http.timeout), ("POST", HTTP_TIMEOUT));
    }
}
