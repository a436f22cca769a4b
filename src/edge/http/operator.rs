//! `/v1/operator/raft/...` and `/v1/operator/autopilot/...`: the servers of the cluster, their health, and what operators
//! change about them. What only the leader knows or may do is asked of it ([`desk`]).

use std::rc::Rc;
use std::sync::Arc;

use muster_protocol::http::Method;

use super::Edge;
use super::area::{refusal, reply, write};
use super::decode;
use super::exchange::{Handled, Outcome, Request, Response};
use super::filter::quote::quoted;
use super::operator_body as body;
use super::query;
use super::router::Route;
use crate::consensus::ProposeError;
use crate::edge::fresh::{Freshness, Shown, Verdict};
use crate::runtime::time;
use crate::server::desk::{self, Answer, Question};
use crate::server::health::ClusterHealth;
use crate::store::command::{Applied, AutopilotOp, Command};

/// The area's routes.
pub const ROUTES: &[Route] = &[
    Route::new("/v1/operator/raft/configuration", &[Method::Get], raft_configuration),
    Route::new("/v1/operator/raft/peer", &[Method::Delete], raft_peer),
    Route::new("/v1/operator/raft/transfer-leader", &[Method::Post, Method::Put], transfer_leader),
    Route::new("/v1/operator/autopilot/configuration", &[Method::Get, Method::Put], autopilot_configuration),
    Route::new("/v1/operator/autopilot/health", &[Method::Get], autopilot_health),
    Route::new("/v1/operator/autopilot/state", &[Method::Get], autopilot_state),
];

fn raft_configuration(edge: &Rc<Edge>, request: &Request) -> Handled {
    let options = query::read_options(&edge.config(), request)?;
    let (edge, pretty) = (edge.clone(), query::pretty(&edge.config(), request));
    Ok(Outcome::later(async move {
        await_fresh(&edge, options.freshness).await?;
        let protocol = edge.config().raft.protocol;
        Ok(body::raft_configuration(&edge.proposals().standing(), protocol, pretty))
    }))
}

fn raft_peer(edge: &Rc<Edge>, request: &Request) -> Handled {
    let question = match (request.query.get("id"), request.query.get("address")) {
        (None, None) => {
            return Err(Response::bad_request(
                "Bad request: Must specify either ?id with the server's ID or ?address with IP:port of peer to remove",
            ));
        }
        (Some(_), Some(_)) => {
            return Err(Response::bad_request("Bad request: Must specify only one of ?id or ?address"));
        }
        (Some(id), None) => Question::RemoveId(id.to_owned()),
        (None, Some(address)) => Question::RemoveAddress(address.to_owned()),
    };
    query::known_datacenter(&edge.config(), request)?;
    let edge = edge.clone();
    Ok(Outcome::later(async move { ask(&edge, &question).await.map(|_| Response::empty(200)) }))
}

fn transfer_leader(edge: &Rc<Edge>, request: &Request) -> Handled {
    query::known_datacenter(&edge.config(), request)?;
    let question = Question::Transfer(request.query.filled("id").map(str::to_owned));
    let (edge, pretty) = (edge.clone(), query::pretty(&edge.config(), request));
    Ok(Outcome::later(async move { ask(&edge, &question).await.map(|_| body::success(pretty)) }))
}

fn autopilot_configuration(edge: &Rc<Edge>, request: &Request) -> Handled {
    if request.method == Method::Put {
        set_configuration(edge, request)
    } else {
        configuration(edge, request)
    }
}

fn configuration(edge: &Rc<Edge>, request: &Request) -> Handled {
    let options = query::read_options(&edge.config(), request)?;
    let (edge, pretty) = (edge.clone(), query::pretty(&edge.config(), request));
    Ok(Outcome::later(async move {
        await_fresh(&edge, options.freshness).await?;
        Ok(body::autopilot_configuration(edge.state().autopilot().map(Arc::as_ref), pretty))
    }))
}

fn set_configuration(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config =
        decode::body(&request.body).and_then(|value| body::read_autopilot_configuration(&value)).map_err(
            |why| Response::bad_request(format!("Bad request: Error parsing autopilot config: {why}")),
        )?;
    let op = match request.query.get("cas") {
        None => AutopilotOp::Set(config),
        Some(text) => AutopilotOp::Cas { config, index: cas(text)? },
    };
    query::known_datacenter(&edge.config(), request)?;
    let pretty = query::pretty(&edge.config(), request);
    Ok(write(edge, Command::Autopilot(op), move |applied| {
        Ok(reply(pretty, &!matches!(applied, Applied::Condition(false))))
    }))
}

fn cas(text: &str) -> Result<u64, Response> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| {
        let reason = if digits { "value out of range" } else { "invalid syntax" };
        let quoted = quoted(text);
        Response::bad_request(format!(
            "Bad request: Error parsing cas value: strconv.ParseUint: parsing {quoted}: {reason}"
        ))
    })
}

/// 429 while a server is not well, so that load balancers and scripts need not read the body.
fn autopilot_health(edge: &Rc<Edge>, request: &Request) -> Handled {
    query::read_options(&edge.config(), request)?;
    let (edge, pretty) = (edge.clone(), query::pretty(&edge.config(), request));
    Ok(Outcome::later(async move {
        let health = health(&edge).await?;
        let json = body::health(&health, pretty);
        Ok(match health.healthy {
            true => Response::json_bytes(json),
            // Consul writes this status before it knows that JSON follows.
            false => Response::with_type(429, "text/plain; charset=utf-8", json),
        })
    }))
}

fn autopilot_state(edge: &Rc<Edge>, request: &Request) -> Handled {
    query::read_options(&edge.config(), request)?;
    let (edge, pretty) = (edge.clone(), query::pretty(&edge.config(), request));
    Ok(Outcome::later(async move {
        let health = health(&edge).await?;
        Ok(Response::json_bytes(body::state(&health, &edge.state(), pretty)))
    }))
}

async fn health(edge: &Rc<Edge>) -> Result<ClusterHealth, Response> {
    match ask(edge, &Question::Health).await? {
        Answer::Health(health) => Ok(health),
        other => Err(Response::internal(format!("the leader answered something else: {other:?}"))),
    }
}

/// Asks the leader; what it refuses is a 500 with its words.
async fn ask(edge: &Rc<Edge>, question: &Question) -> Result<Answer, Response> {
    match desk::ask(edge.proposals(), question).await {
        Ok(Answer::Refused(why)) => Err(Response::internal(why)),
        Ok(answer) => Ok(answer),
        Err(why) => Err(refusal(&why)),
    }
}

/// Waits until what this server knows is as fresh as asked; what an answer then says of itself.
pub(super) async fn await_fresh(edge: &Rc<Edge>, freshness: Freshness) -> Result<Shown, Response> {
    let until = time::now() + edge.config().performance.rpc_hold_timeout;
    loop {
        let failed = match freshness.judge(&edge.leadership().contact()) {
            Verdict::Now(shown) => return Ok(shown),
            Verdict::Never(why) => return Err(refusal(&why)),
            Verdict::Behind(kind) => match edge.leadership().barrier(kind).await {
                Ok(()) => return Ok(freshness.confirmed()),
                Err(why) => why,
            },
        };
        if failed != ProposeError::LeadershipLost || time::now() >= until {
            return Err(refusal(&failed));
        }
    }
}
