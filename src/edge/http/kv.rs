//! `/v1/kv/`: keys are octets, values are opaque, writes are ordered by consensus.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use muster_protocol::http::Method;

use super::Edge;
use super::area::{reply, rows, write};
use super::exchange::{Handled, Outcome, Read, Request, Response};
use super::filter::quote::quoted;
use super::json::JsonWriter;
use super::router::{BodyLimit, Route};
use super::session::check_id;
use super::{locks, query};
use crate::config::duration;
use crate::store::State;
use crate::store::command::{Applied, Command, KvOp};
use crate::store::model::KvEntry;
use crate::store::topic::Topic;

/// The area's routes.
pub const ROUTES: &[Route] =
    &[Route::new("/v1/kv/", &[Method::Get, Method::Put, Method::Delete], kv).body(BodyLimit::KvValue)];

/// Says in an answer to `?acquire=..&wait=..` that the server waited as long as was asked for. Consul does not, and answers
/// at once.
pub const WAITS_HEADER: &str = "X-Muster-Waits";
/// The longest wait for a lock, as for blocking queries.
const WAIT_MAX: Duration = Duration::from_secs(600);

fn kv(edge: &Rc<Edge>, request: &Request) -> Handled {
    match request.method {
        Method::Put => put(edge, request),
        Method::Delete => delete(edge, request),
        _ => get(edge, request),
    }
}

fn get(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let options = query::read_options(&config, request)?;
    let pretty = query::pretty(&config, request);
    if request.query.has("keys") {
        let prefix = request.rest().to_vec();
        let separator =
            request.query.get("separator").or_else(|| request.query.get("seperator")).unwrap_or_default();
        let separator = separator.as_bytes().to_vec();
        let topic = Topic::KeyPrefix(prefix.clone().into());
        return Ok(Read::new(topic, options, move |state| keys(state, &prefix, &separator, pretty)).into());
    }
    if request.query.has("recurse") {
        let prefix = request.rest().to_vec();
        let topic = Topic::KeyPrefix(prefix.clone().into());
        return Ok(Read::new(topic, options, move |state| tree(state, &prefix, pretty)).into());
    }
    let key = key(request)?;
    let raw = request.query.has("raw");
    let topic = Topic::Key(key.clone().into());
    Ok(Read::new(topic, options, move |state| match state.kv(&key) {
        None => Response::empty(404),
        Some(entry) if raw => content(entry),
        Some(entry) => reply(pretty, std::slice::from_ref(&**entry)),
    })
    .into())
}

/// The value as it is. A browser must neither guess its type nor run it, for anybody may have written it.
fn content(entry: &KvEntry) -> Response {
    Response::with_type(200, "text/plain", Bytes::copy_from_slice(&entry.value))
        .header("X-Content-Type-Options", "nosniff")
        .header("Content-Security-Policy", "sandbox")
}

fn tree(state: &State, prefix: &[u8], pretty: bool) -> Response {
    let mut entries = state.kv_under(prefix).peekable();
    if entries.peek().is_none() {
        return Response::empty(404);
    }
    rows(pretty, entries, |w, entry| super::json::Json::write(&**entry, w))
}

/// Names of keys; with a separator only up to its first occurrence after the prefix, each once.
fn keys(state: &State, prefix: &[u8], separator: &[u8], pretty: bool) -> Response {
    let mut w = JsonWriter::new(pretty);
    let mut last: Option<&[u8]> = None;
    let mut names = state.kv_under(prefix).filter_map(|entry| {
        let name = folder(&entry.key, prefix.len(), separator);
        (last.replace(name) != Some(name)).then_some(name)
    });
    let first = names.next();
    // An empty store has an empty root; any other empty prefix does not exist.
    if first.is_none() && !prefix.is_empty() {
        return Response::empty(404);
    }
    w.array(first.into_iter().chain(names), |w, name| w.octets(name));
    Response::json_bytes(w.finish())
}

fn folder<'k>(key: &'k [u8], prefix: usize, separator: &[u8]) -> &'k [u8] {
    if separator.is_empty() {
        return key;
    }
    let rest = &key[prefix..];
    match rest.windows(separator.len()).position(|window| window == separator) {
        Some(at) => &key[..prefix + at + separator.len()],
        None => key,
    }
}

fn put(edge: &Rc<Edge>, request: &Request) -> Handled {
    query::write_options(&edge.config(), request)?;
    let key = key(request)?;
    no_conflict(request, &["cas", "acquire", "release"])?;
    let (lock, release) = (request.query.get("acquire"), request.query.get("release"));
    let entry = KvEntry {
        key,
        value: request.body.to_vec(),
        flags: unsigned(request, "flags")?.unwrap_or_default(),
        session: lock.or(release).unwrap_or_default().to_owned(),
        ..KvEntry::default()
    };
    let pretty = query::pretty(&edge.config(), request);
    if lock.or(release) == Some("") {
        return Err(Response::internal("missing session"));
    }
    if let Some(session) = lock {
        check_id(session)?;
        return acquire(edge, request, entry);
    }
    if release.is_some() {
        return Ok(write(edge, Command::Kv(KvOp::Release(entry)), move |applied| {
            Ok(outcome(pretty, &applied))
        }));
    }
    let op = match unsigned(request, "cas")? {
        Some(index) => KvOp::Cas { entry, index },
        None => KvOp::Set(entry),
    };
    Ok(write(edge, Command::Kv(op), move |applied| Ok(outcome(pretty, &applied))))
}

fn delete(edge: &Rc<Edge>, request: &Request) -> Handled {
    query::write_options(&edge.config(), request)?;
    no_conflict(request, &["recurse", "cas"])?;
    let pretty = query::pretty(&edge.config(), request);
    let op = if request.query.has("recurse") {
        KvOp::DeleteTree { prefix: request.rest().to_vec() }
    } else {
        let key = key(request)?;
        match unsigned(request, "cas")? {
            Some(index) => KvOp::DeleteCas { key, index },
            None => KvOp::Delete { key },
        }
    };
    Ok(write(edge, Command::Kv(op), move |applied| Ok(outcome(pretty, &applied))))
}

fn outcome(pretty: bool, applied: &Applied) -> Response {
    reply(pretty, &!matches!(applied, Applied::Condition(false)))
}

fn key(request: &Request) -> Result<Vec<u8>, Response> {
    match request.rest() {
        [] => Err(Response::bad_request("Missing key name")),
        key => Ok(key.to_vec()),
    }
}

/// Ends with the request's client: nobody waits for a lock that nobody wants.
fn acquire(edge: &Rc<Edge>, request: &Request, entry: KvEntry) -> Handled {
    let pretty = query::pretty(&edge.config(), request);
    let wait = match request.query.filled("wait") {
        Some(text) => duration::parse(text).map_err(|_| Response::bad_request("Invalid wait time"))?,
        None => 0,
    };
    let waits = wait > 0;
    let wait = Duration::from_nanos(u64::try_from(wait).unwrap_or(0)).min(WAIT_MAX);
    let edge = edge.clone();
    Ok(Outcome::Asked(Box::pin(async move {
        let acquired = locks::acquire(&edge, entry, wait).await;
        // Whole answers come as refusals here.
        Err(acquired.map_or_else(
            |refusal| refusal,
            |acquired| {
                let answer = reply(pretty, &acquired);
                if waits { answer.header(WAITS_HEADER, "1") } else { answer }
            },
        ))
    })))
}

/// Refuses two of `names` together; the text shows the whole query in canonical form.
fn no_conflict(request: &Request, names: &[&str]) -> Result<(), Response> {
    if names.iter().filter(|name| request.query.has(name)).count() < 2 {
        return Ok(());
    }
    let mut pairs: Vec<(&str, &str)> = request.query.iter().collect();
    pairs.sort_by_key(|(name, _)| *name);
    let shown: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
    Err(Response::bad_request(format!("Conflicting flags: {}", shown.join("&"))))
}

/// Percent-encodes as Go's `url.QueryEscape`.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// A parameter that must be an unsigned number when it is there.
fn unsigned(request: &Request, name: &str) -> Result<Option<u64>, Response> {
    let Some(text) = request.query.get(name) else { return Ok(None) };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).map(Some).ok_or_else(|| {
        let reason = if digits { "value out of range" } else { "invalid syntax" };
        Response::internal(format!("strconv.ParseUint: parsing {}: {reason}", quoted(text)))
    })
}
