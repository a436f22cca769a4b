//! Query strings, and the parameters that all reads share, with Consul's words for what is wrong with them.

use std::time::Duration;

use muster_protocol::http::decode_query;

use super::exchange::{Peer, ReadOptions, Request, Response, Wait};
use crate::config::{Config, duration};
use crate::edge::fresh::Freshness;

/// A decoded query, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Decodes; `None` if it is malformed. Octets that are not UTF-8 become U+FFFD.
    pub fn parse(raw: &[u8]) -> Option<Query> {
        let text = |octets: Vec<u8>| match String::from_utf8(octets) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        };
        let pairs = decode_query(raw)?;
        Some(Query { pairs: pairs.into_iter().map(|(key, value)| (text(key), text(value))).collect() })
    }

    /// Whether a parameter is there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|(key, _)| key == name)
    }

    /// The first value of a parameter (empty for `?name`); `None` if it is not there.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The first value of a parameter unless it is empty.
    pub fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// All values of a parameter, in order.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All pairs, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// Whether the answer's JSON is indented: `?pretty` (with any value), or always in development mode, where the client's own
/// agent runs in it.
pub fn pretty(config: &Config, request: &Request) -> bool {
    (config.dev_mode && request.peer != Peer::Agent) || request.query.has("pretty")
}

/// The `filter` expression, empty when there is none.
pub fn filter(request: &Request) -> &str {
    request.query.get("filter").unwrap_or_default()
}

/// Refuses namespaces, which the open edition does not have.
///
/// # Errors
/// Consul's 400.
pub fn no_namespace(request: &Request) -> Result<(), Response> {
    let kind = if request.header("X-Consul-Namespace").is_some_and(|name| !name.is_empty()) {
        "Invalid header: \"X-Consul-Namespace\""
    } else if request.query.filled("ns").is_some() {
        "Invalid query parameter: \"ns\""
    } else {
        return Ok(());
    };
    Err(Response::bad_request(format!("Bad request: {kind} - Namespaces are a Consul Enterprise feature")))
}

/// Everything that reads of the replicated state share: namespace, consistency, `Cache-Control`, `?wait`, `?index`
/// and `?dc`, checked in Consul's order.
///
/// # Errors
/// The answer that Consul gives.
pub fn read_options(config: &Config, request: &Request) -> Result<ReadOptions, Response> {
    no_namespace(request)?;
    let (freshness, cached) = freshness(config, request)?;
    cache_control(request)?;
    let wait = wait(request)?;
    known_datacenter(config, request)?;
    Ok(ReadOptions { wait, freshness, cached })
}

/// The same for writes, where most of it means nothing but is checked all the same.
///
/// # Errors
/// The answer that Consul gives.
pub fn write_options(config: &Config, request: &Request) -> Result<(), Response> {
    read_options(config, request).map(drop)
}

/// Refuses datacenters other than our own.
///
/// # Errors
/// Consul's 500; catalog and health endpoints add the headers of an empty answer to it.
pub fn known_datacenter(config: &Config, request: &Request) -> Result<(), Response> {
    match request.query.filled("dc") {
        Some(dc) if !dc.eq_ignore_ascii_case(&config.datacenter) => {
            Err(failed_read(request, "No path to datacenter"))
        }
        _ => Ok(()),
    }
}

/// A read that failed below the endpoint: 500 with a text, and on discovery endpoints the headers of an answer that
/// never came.
pub fn failed_read(request: &Request, text: &str) -> Response {
    failed(is_discovery(&request.path), text)
}

/// [`failed_read`] for who knows already whether the endpoint is one of discovery.
pub fn failed(discovery: bool, text: &str) -> Response {
    let response = Response::internal(text);
    if discovery { with_blank_meta(response) } else { response }
}

/// Adds what discovery endpoints show beside an error.
pub fn with_blank_meta(response: Response) -> Response {
    response
        .header("X-Consul-Index", "1")
        .header("X-Consul-KnownLeader", "false")
        .header("X-Consul-LastContact", "0")
}

fn is_discovery(path: &[u8]) -> bool {
    path.starts_with(b"/v1/catalog") || path.starts_with(b"/v1/health")
}

fn freshness(config: &Config, request: &Request) -> Result<(Freshness, bool), Response> {
    let query = &request.query;
    let consistent = query.has("consistent");
    let cached = query.has("cached") && config.http.use_cache;
    let mut stale = query.has("stale");
    // Asking for the cache counts as a choice even where the configuration has turned it off.
    let mut age_max = None;
    let mut chosen = stale || consistent || query.has("cached") || query.has("leader");
    if let Some(text) = query.filled("max_stale") {
        let age = duration::parse(text)
            .map_err(|_| Response::bad_request(format!("Invalid max_stale value {}", go_quote(text))))?;
        if age > 0 {
            stale = true;
            chosen = true;
            age_max = Some(Duration::from_nanos(age.unsigned_abs()));
        }
    }
    // An agent has said so in the request, if its own configuration does.
    if !chosen
        && request.peer != Peer::Agent
        && is_discovery(&request.path)
        && !config.discovery_max_stale.is_zero()
    {
        stale = true;
        age_max = Some(config.discovery_max_stale);
    }
    let conflict = |with: &str| {
        let text = format!("Cannot specify ?{with} with ?consistent, conflicting semantics.");
        Err(Response::bad_request(text))
    };
    match (consistent, stale, cached) {
        (true, true, _) => conflict("stale"),
        (true, _, true) => conflict("cached"),
        (true, ..) => Ok((Freshness::Consistent, cached)),
        (_, true, _) => Ok((Freshness::Stale(age_max), cached)),
        _ => Ok((Freshness::Leader, cached)),
    }
}

/// How stale an answer may be by this agent's own configuration, where the request does not say it.
pub fn own_staleness(config: &Config, request: &Request) -> Option<Duration> {
    let says = ["stale", "consistent", "cached", "leader"].iter().any(|word| request.query.has(word));
    let says = says || request.query.filled("max_stale").is_some();
    let age = config.discovery_max_stale;
    (!says && is_discovery(&request.path) && !age.is_zero()).then_some(age)
}

/// A text as a value in a query.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Text quoted as Go's `%q`.
fn go_quote(text: &str) -> String {
    super::filter::quote::quoted(text)
}

fn cache_control(request: &Request) -> Result<(), Response> {
    let Some(raw) = request.header("Cache-Control") else { return Ok(()) };
    for directive in raw.to_ascii_lowercase().split(',').map(str::trim) {
        let seconds =
            directive.strip_prefix("max-age=").or_else(|| directive.strip_prefix("stale-if-error="));
        if seconds.is_some_and(|seconds| seconds.parse::<i64>().is_err()) {
            return Err(Response::bad_request("Invalid Cache-Control header."));
        }
    }
    Ok(())
}

fn wait(request: &Request) -> Result<Option<Wait>, Response> {
    let wait_ns = match request.query.filled("wait") {
        Some(text) => duration::parse(text).map_err(|_| Response::bad_request("Invalid wait time"))?,
        None => 0,
    };
    let index = match request.query.filled("index") {
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse().map_err(|_| Response::bad_request("Invalid index"))?
        }
        Some(_) => return Err(Response::bad_request("Invalid index")),
        None => 0,
    };
    Ok((index > 0).then_some(Wait { index, wait_ns }))
}
