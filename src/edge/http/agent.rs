//! `/v1/agent/...` but its services and checks: the agent itself, its membership, its life.

use std::rc::Rc;

use futures_lite::StreamExt as _;
use muster_protocol::http::Method;

use super::Edge;
use super::agent_check::change;
use super::agent_service::maintenance_parameters;
use super::exchange::{Handled, Outcome, Request, Response, Streaming};
use super::json::JsonWriter;
use super::router::Route;
use super::{agent_host, agent_self, query};
use crate::agent::door;
use crate::config::{Config, LogLevel};
use crate::logs;
use crate::metrics::show::{self, About, Span};
use crate::server::leader::COMPATIBLE_VERSION;

/// The area's routes.
pub const ROUTES: &[Route] = &[
    Route::new("/v1/agent/self", &[Method::Get], agent_self::about),
    Route::new("/v1/agent/host", &[Method::Get], agent_host::about),
    Route::new("/v1/agent/members", &[Method::Get], agent_self::members),
    Route::new("/v1/agent/version", &[Method::Get], version),
    Route::new("/v1/agent/metrics", &[Method::Get], show_metrics),
    Route::new("/v1/agent/monitor", &[Method::Get], monitor),
    Route::new("/v1/agent/maintenance", &[Method::Put], maintenance),
    Route::new("/v1/agent/reload", &[Method::Put], reload),
    Route::new("/v1/agent/leave", &[Method::Put], leave),
    Route::new("/v1/agent/join/", &[Method::Put], join),
    Route::new("/v1/agent/force-leave/", &[Method::Put], force_leave),
];

fn version(edge: &Rc<Edge>, request: &Request) -> Handled {
    let mut w = JsonWriter::new(query::pretty(&edge.config(), request));
    w.object(|w| {
        w.key("SHA").text("");
        w.key("BuildDate").text("");
        w.key("HumanVersion").text(COMPATIBLE_VERSION);
        w.key("FIPS").text("");
    });
    Ok(Response::json_bytes(w.finish()).into())
}

fn maintenance(edge: &Rc<Edge>, request: &Request) -> Handled {
    let (enable, reason) = maintenance_parameters(request)?;
    Ok(change(edge, door::Request::NodeMaintenance { enable, reason }))
}

fn reload(edge: &Rc<Edge>, _request: &Request) -> Handled {
    Ok(change(edge, door::Request::Reload))
}

fn leave(edge: &Rc<Edge>, _request: &Request) -> Handled {
    Ok(change(edge, door::Request::Leave))
}

/// Joins a pool through an address. Into the WAN pool an agent can join nobody but itself.
fn join(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let address = request.rest_str();
    let wan = request.query.has("wan");
    if wan && !config.server {
        return Err(Response::internal("Must be a server to join WAN cluster"));
    }
    let own = if wan { config.addresses.serf_wan_bind } else { Some(config.addresses.serf_lan_bind) };
    let is_own = own.is_some_and(|own| {
        let advertised = if wan { config.addresses.advertise_wan } else { config.addresses.advertise };
        let named = |ip: std::net::IpAddr| *address == *std::net::SocketAddr::new(ip, own.port()).to_string();
        named(own.ip()) || named(advertised) || *address == *advertised.to_string()
    });
    if is_own {
        return Ok(Response::empty(200).into());
    }
    if wan {
        return Err(Response::internal(format!(
            "1 error occurred:\n\t* Failed to join {address}: this agent knows no other datacenters and can join nobody but itself\n\n"
        )));
    }
    let (edge, address) = (edge.clone(), address.into_owned());
    Ok(Outcome::later(async move {
        let joined = edge.membership().join(vec![address]).await;
        joined.map(|_| Response::empty(200)).map_err(|error| Response::internal(error.to_string()))
    }))
}

fn force_leave(edge: &Rc<Edge>, request: &Request) -> Handled {
    let name = request.rest_str().into_owned();
    // This agent is alive, or it would not answer: nothing is to be done about it.
    if name.eq_ignore_ascii_case(&edge.local().node.node) {
        return Ok(Response::empty(200).into());
    }
    let (edge, prune) = (edge.clone(), request.query.has("prune"));
    Ok(Outcome::later(async move {
        match edge.membership().force_leave(&name, prune).await {
            true => Ok(Response::empty(200)),
            false => Err(Response::internal(format!("agent: No node found with name '{name}'"))),
        }
    }))
}

fn show_metrics(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    if !wants_prometheus(request) {
        let span = if request.query.get("since") == Some("start") { Span::Life } else { Span::Interval };
        let shown = show::json(&config.telemetry, &about(edge, &config), span);
        return Ok(agent_self::document(edge, request, &shown).into());
    }
    if config.telemetry.prometheus_retention_time.is_zero() {
        return Err(Response::text(
            415,
            "Prometheus is not enabled since its retention time is not positive",
        ));
    }
    let body = show::prometheus(&config.telemetry, &about(edge, &config));
    Ok(Response::with_type(200, "text/plain; version=0.0.4; charset=utf-8", body).into())
}

/// What only this agent can tell of itself.
fn about(edge: &Edge, config: &Config) -> About {
    let mut gauges = Vec::new();
    if config.server {
        let standing = edge.proposals().standing();
        gauges.push(("raft.applied_index", standing.applied_index as f64));
        gauges.push(("raft.last_index", standing.last_log_index as f64));
        if standing.leads() {
            let timed = edge.state().sessions().filter(|session| session.ttl_ns > 0).count();
            gauges.push(("session_ttl.active", timed as f64));
        }
    }
    About { node: config.node_name.clone(), gauges, server: config.server }
}

/// As Consul: by `?format`, or by an `Accept` that only Prometheus sends.
fn wants_prometheus(request: &Request) -> bool {
    if request.query.get("format") == Some("prometheus") {
        return true;
    }
    let accept = request.header("Accept").unwrap_or_default();
    accept.contains("application/openmetrics-text")
        || (accept.contains("text/plain") && accept.contains("version=0.4.0"))
}

fn monitor(_edge: &Rc<Edge>, request: &Request) -> Handled {
    let word = request.query.filled("loglevel").unwrap_or("INFO");
    let level = LogLevel::parse(word)
        .ok_or_else(|| Response::bad_request(format!("Bad request: Unknown log level: {word}")))?;
    let json = match request.query.filled("logjson").unwrap_or("false") {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
        other => {
            return Err(Response::bad_request(format!(
                "Unable to parse logjson option: strconv.ParseBool: parsing {other:?}: invalid syntax"
            )));
        }
    };
    let source = Box::pin(logs::listen(level, json).map(Ok));
    Ok(Outcome::Stream(Streaming { head: Response::empty(200), source }))
}
