//! `/v1/session/...`: who may hold locks, and for how long.

use std::rc::Rc;
use std::time::Duration;

use muster_protocol::http::Method;

use super::area::{name, refusal, reply, rows, write};
use super::decode::{self, Spot};
use super::exchange::{Handled, Outcome, Peer, Read, Request, Response};
use super::filter::quote::quoted;
use super::json::{Json, JsonWriter, name as framed};
use super::router::Route;
use super::{Edge, query};
use crate::config::{Config, duration};
use crate::runtime::{random, time};
use crate::server::desk::{self, Answer, Question};
use crate::store::command::{Applied, Command, SessionOp};
use crate::store::model::{Behavior, ServiceCheck, Session};
use crate::store::topic::Topic;

/// The area's routes.
pub const ROUTES: &[Route] = &[
    Route::new(CREATE, &[Method::Put], create),
    Route::new("/v1/session/destroy/", &[Method::Put], destroy),
    Route::new("/v1/session/renew/", &[Method::Put], renew),
    Route::new("/v1/session/info/", &[Method::Get], info),
    Route::new("/v1/session/node/", &[Method::Get], node),
    Route::new("/v1/session/list", &[Method::Get], list),
];

/// The pattern of the route that makes a session.
pub(super) const CREATE: &str = "/v1/session/create";
/// The parameter by which an agent tells a server on which node a session lives that names none.
pub(super) const AGENT_NODE: &str = "agent-node";

/// Consul's default lock-delay.
const LOCK_DELAY_NS: i64 = 15 * duration::SECOND_NS;
/// A number of a lock-delay below this is one of seconds: Consul's `lockDelayMinThreshold`.
const LOCK_DELAY_IN_SECONDS_BELOW: i64 = 1000;
/// Consul's `SessionTTLMax`.
const TTL_NS_MAX: i64 = 24 * 3600 * duration::SECOND_NS;
/// Bytes that the texts of a session may have: renewals carry all of it between servers.
const TEXTS_MAX: usize = 16 << 10;
/// How long a session waits for the row of its own node, and how often it looks for it.
const ROW_PATIENCE: Duration = Duration::from_secs(1);
const ROW_LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// The check that a session rests on which names none.
const SERF_CHECK: &str = "serfHealth";

fn create(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    query::write_options(&config, request)?;
    let mut session = Session {
        node: node_of(&config, request),
        lock_delay_ns: LOCK_DELAY_NS,
        node_checks: Some(vec![SERF_CHECK.to_owned()]),
        ..Session::default()
    };
    let mut behavior = String::new();
    if !request.body.is_empty() {
        decode::body(&request.body)
            .and_then(|value| read_session(&Spot::top(&value), &mut session, &mut behavior))
            .map_err(|why| Response::bad_request(format!("Request decode failed: {why}")))?;
    }
    if session.checks.as_ref().is_some_and(Vec::is_empty) {
        session.node_checks = Some(Vec::new());
    }
    complete(&config, &mut session, &behavior).map_err(Response::internal)?;
    session.id = random::uuid();
    let (id, pretty) = (session.id.clone(), query::pretty(&config, request));
    let own = (session.node == node_of(&config, request)).then(|| session.node.clone());
    let command = Command::Session(SessionOp::Create(Box::new(session)));
    let edge = edge.clone();
    Ok(Outcome::later(async move {
        if let Some(node) = own {
            await_row(&edge, &node).await;
        }
        match edge.proposals().propose(&command).await {
            Ok(Applied::Refused(why)) => Err(Response::internal(why)),
            Ok(_) => Ok(created(&id, pretty)),
            Err(error) => Err(refusal(&error)),
        }
    }))
}

/// Waits for the row of the agent that was asked: the leader is about to write it when the agent has just come, or the leader has
/// just been elected. If it does not come, the store says so.
async fn await_row(edge: &Edge, node: &str) {
    let until = time::now() + ROW_PATIENCE;
    while edge.state().node(node).is_none() && time::now() < until {
        time::sleep(ROW_LOOK_INTERVAL).await;
    }
}

fn created(id: &str, pretty: bool) -> Response {
    let mut w = JsonWriter::new(pretty);
    w.object(|w| w.field(framed!("ID")).text(id));
    Response::json_bytes(w.finish())
}

/// The node of the agent that was asked first.
fn node_of(config: &Config, request: &Request) -> String {
    let told = request.query.filled(AGENT_NODE).filter(|_| request.peer == Peer::Agent);
    told.unwrap_or(&config.node_name).to_owned()
}

/// Checks what the servers' endpoint checks.
fn complete(config: &Config, session: &mut Session, behavior: &str) -> Result<(), String> {
    if session.node.is_empty() {
        return Err("Must provide Node".into());
    }
    let texts = texts_of(session);
    if texts > TEXTS_MAX {
        return Err(format!(
            "the session has {texts} bytes of texts, more than the {TEXTS_MAX} that one may have"
        ));
    }
    session.behavior = match behavior {
        "" => Behavior::Release,
        word => Behavior::parse(word).ok_or_else(|| format!("Invalid Behavior setting '{word}'"))?,
    };
    if session.ttl.is_empty() {
        return Ok(());
    }
    let ttl = duration::parse(&session.ttl)
        .map_err(|why| format!("Session TTL '{}' invalid: {why}", session.ttl))?;
    let min = i64::try_from(config.session_ttl_min.as_nanos()).unwrap_or(i64::MAX);
    if ttl != 0 && !(min..=TTL_NS_MAX).contains(&ttl) {
        let (min, max) = (duration::format(min), duration::format(TTL_NS_MAX));
        return Err(format!("Invalid Session TTL '{ttl}', must be between [{min}={max}]"));
    }
    session.ttl_ns = ttl;
    Ok(())
}

fn texts_of(session: &Session) -> usize {
    /// What an entry of a list takes beside its text.
    const ENTRY: usize = 16;
    let checks = session.check_ids().map(|id| id.len() + ENTRY).sum::<usize>();
    let namespaces = session.service_checks.iter().flatten().map(|check| check.namespace.len() + ENTRY);
    session.name.len() + session.node.len() + session.ttl.len() + checks + namespaces.sum::<usize>()
}

fn read_session(top: &Spot<'_>, session: &mut Session, behavior: &mut String) -> Result<(), String> {
    const FIELDS: &[&str] = &[
        "ID",
        "Name",
        "Node",
        "LockDelay",
        "Behavior",
        "TTL",
        "NodeChecks",
        "ServiceChecks",
        "Checks",
        "CreateIndex",
        "ModifyIndex",
    ];
    const GO_TYPE: &str = "struct { LockDelay interface {}; *structs.Alias }";
    for (name, spot) in top.known_fields(GO_TYPE, "", FIELDS)? {
        match name {
            "Name" => session.name = spot.text()?,
            "Node" if !spot.is_null() => session.node = spot.text()?,
            "LockDelay" if !spot.is_null() => session.lock_delay_ns = lock_delay(&spot)?,
            "Behavior" => *behavior = spot.text()?,
            "TTL" => session.ttl = spot.text()?,
            "NodeChecks" => session.node_checks = texts(&spot)?,
            // Here `null` is as good as an empty list.
            "Checks" => session.checks = Some(spot.texts()?),
            "ServiceChecks" if spot.is_null() => session.service_checks = None,
            "ServiceChecks" => {
                let items = spot.items("[]structs.ServiceCheck")?;
                session.service_checks = Some(items.iter().map(service_check).collect::<Result<_, _>>()?);
            }
            "CreateIndex" | "ModifyIndex" => drop(spot.unsigned("uint64")?),
            // The servers draw the ID.
            "ID" => drop(spot.text()?),
            _ => {}
        }
    }
    Ok(())
}

fn texts(spot: &Spot<'_>) -> Result<Option<Vec<String>>, String> {
    if spot.is_null() { Ok(None) } else { spot.texts().map(Some) }
}

fn service_check(spot: &Spot<'_>) -> Result<ServiceCheck, String> {
    let mut check = ServiceCheck::default();
    for (name, spot) in spot.known_fields("structs.ServiceCheck", "", &["ID", "Namespace"])? {
        match name {
            "ID" => check.id = spot.text()?,
            _ => check.namespace = spot.text()?,
        }
    }
    Ok(check)
}

/// Go's text, or a number: of seconds if it is low, else of nanoseconds.
fn lock_delay(spot: &Spot<'_>) -> Result<i64, String> {
    let given = spot.lenient_duration()?;
    Ok(if given < LOCK_DELAY_IN_SECONDS_BELOW { given.wrapping_mul(duration::SECOND_NS) } else { given })
}

fn destroy(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    query::write_options(&config, request)?;
    let id = id_of(request)?;
    let pretty = query::pretty(&config, request);
    let command = Command::Session(SessionOp::Destroy { id });
    Ok(write(edge, command, move |_| Ok(reply(pretty, &true))))
}

/// Answered by the leader, without a write.
fn renew(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    query::write_options(&config, request)?;
    let id = id_of(request)?;
    let (edge, pretty) = (edge.clone(), query::pretty(&config, request));
    Ok(Outcome::later(async move {
        match desk::ask(edge.proposals(), &Question::Renew(id.clone())).await {
            Ok(Answer::Session(Some(session))) => Ok(rows(pretty, [session], |w, session| session.write(w))),
            Ok(Answer::Session(None)) => Err(Response::text(404, format!("Session id '{id}' not found"))),
            Ok(Answer::Refused(why)) => Err(Response::internal(why)),
            Ok(other) => Err(Response::internal(format!("the leader answered something else: {other:?}"))),
            Err(why) => Err(refusal(&why)),
        }
    }))
}

fn info(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let (options, pretty) = (query::read_options(&config, request)?, query::pretty(&config, request));
    let id = id_of(request)?;
    let topic = Topic::Session(id.as_str().into());
    Ok(Read::new(topic, options, move |state| rows(pretty, state.session(&id), |w, row| row.write(w))).into())
}

fn node(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let (options, pretty) = (query::read_options(&config, request)?, query::pretty(&config, request));
    let name = name(request, "node name")?;
    let topic = Topic::NodeSessions(name.clone());
    let render =
        move |state: &crate::store::State| rows(pretty, state.node_sessions(&name), |w, row| row.write(w));
    Ok(Read::new(topic, options, render).into())
}

fn list(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let (options, pretty) = (query::read_options(&config, request)?, query::pretty(&config, request));
    let render = move |state: &crate::store::State| rows(pretty, state.sessions(), |w, row| row.write(w));
    Ok(Read::new(Topic::Sessions, options, render).into())
}

fn id_of(request: &Request) -> Result<String, Response> {
    let id = name(request, "session")?;
    check_id(&id)?;
    Ok(id.into())
}

/// Refuses what cannot be the ID of a session, as Consul's index of them does.
///
/// # Errors
/// Consul's 500.
pub(super) fn check_id(id: &str) -> Result<(), Response> {
    let failed = |why: &str| Response::internal(format!("failed session lookup: index error: {why}"));
    if id.len() != 36 {
        return Err(failed("UUID must be 36 characters"));
    }
    let hyphens = id.bytes().filter(|byte| *byte == b'-').count();
    if hyphens > 4 {
        return Err(failed(&format!("UUID should have maximum of 4 \"-\"; got {hyphens}")));
    }
    if !hyphens.is_multiple_of(2) {
        return Err(failed("Input (without hyphens) must be even length"));
    }
    match id.bytes().find(|byte| *byte != b'-' && !byte.is_ascii_hexdigit()) {
        None => Ok(()),
        Some(byte) => {
            let shown = quoted(&char::from(byte).to_string());
            let shown = shown.trim_matches('"');
            Err(failed(&format!("Invalid UUID: encoding/hex: invalid byte: U+{byte:04X} '{shown}'")))
        }
    }
}
