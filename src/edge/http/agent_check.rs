//! `/v1/agent/check...`: the local agent's checks.

use std::rc::Rc;

use muster_protocol::http::Method;

use super::Edge;
use super::decode::{self, Spot};
use super::exchange::{Handled, Outcome, Request, Response};
use super::filter::Filter;
use super::filter::schema::HEALTH_CHECK;
use super::json::{Json, JsonWriter};
use super::query;
use super::router::Route;
use crate::agent::{AgentError, door};
use crate::config::definition::CheckDefinition;
use crate::store::model::Status;

/// The area's routes.
pub const ROUTES: &[Route] = &[
    Route::new("/v1/agent/checks", &[Method::Get], checks),
    Route::new("/v1/agent/check/register", &[Method::Put], register),
    Route::new("/v1/agent/check/deregister/", &[Method::Put], deregister),
    Route::new("/v1/agent/check/pass/", &[Method::Put], pass),
    Route::new("/v1/agent/check/warn/", &[Method::Put], warn),
    Route::new("/v1/agent/check/fail/", &[Method::Put], fail),
    Route::new("/v1/agent/check/update/", &[Method::Put], update),
];

/// A change of the local agent: an empty 200, or its refusal.
pub(super) fn change(edge: &Rc<Edge>, request: door::Request) -> Outcome {
    let agent = edge.agent().clone();
    Outcome::later(async move {
        agent.ask(request).await.map(|()| Response::empty(200)).map_err(|refused| refusal(&refused))
    })
}

/// The answer for a refusal of the agent.
pub(super) fn refusal(refused: &AgentError) -> Response {
    Response::text(refused.status, refused.text.clone())
}

/// The `filter` of a request to the local agent. Its errors carry no headers of the replicated state.
pub(super) fn chosen(
    request: &Request,
    fields: &'static [super::filter::schema::Field],
) -> Result<Option<Filter>, Response> {
    Filter::compile(query::filter(request), fields).map_err(|error| Response::internal(error.to_string()))
}

fn checks(edge: &Rc<Edge>, request: &Request) -> Handled {
    query::no_namespace(request)?;
    let filter = chosen(request, HEALTH_CHECK)?;
    let local = edge.local();
    let mut w = JsonWriter::new(query::pretty(&edge.config(), request));
    w.object(|w| {
        for (id, check) in &local.checks {
            if filter.as_ref().is_none_or(|filter| filter.matches(&*check.row)) {
                check.row.write(w.key(id));
            }
        }
    });
    Ok(Response::json_bytes(w.finish()).into())
}

fn register(edge: &Rc<Edge>, request: &Request) -> Handled {
    query::no_namespace(request)?;
    let definition =
        CheckDefinition::from_api(&request.body).map_err(|why| Response::bad_request(why.to_string()))?;
    Ok(change(edge, door::Request::RegisterCheck { definition: Box::new(definition) }))
}

fn deregister(edge: &Rc<Edge>, request: &Request) -> Handled {
    query::no_namespace(request)?;
    Ok(change(edge, door::Request::DeregisterCheck { id: request.rest_str().into_owned() }))
}

fn pass(edge: &Rc<Edge>, request: &Request) -> Handled {
    tell(edge, request, Status::Passing)
}

fn warn(edge: &Rc<Edge>, request: &Request) -> Handled {
    tell(edge, request, Status::Warning)
}

fn fail(edge: &Rc<Edge>, request: &Request) -> Handled {
    tell(edge, request, Status::Critical)
}

fn tell(edge: &Rc<Edge>, request: &Request, status: Status) -> Handled {
    query::no_namespace(request)?;
    let output = request.query.get("note").unwrap_or_default().to_owned();
    let check_id = request.rest_str().into_owned();
    Ok(change(edge, door::Request::UpdateTtl { check_id, status, output }))
}

fn update(edge: &Rc<Edge>, request: &Request) -> Handled {
    query::no_namespace(request)?;
    let (word, output) = update_body(&request.body)
        .map_err(|why| Response::bad_request(format!("Request decode failed: {why}")))?;
    let status = Status::parse(&word)
        .ok_or_else(|| Response::bad_request(format!("Invalid check status: '{word}'")))?;
    let check_id = request.rest_str().into_owned();
    Ok(change(edge, door::Request::UpdateTtl { check_id, status, output }))
}

fn update_body(body: &[u8]) -> Result<(String, String), String> {
    let value = decode::body(body)?;
    let (mut status, mut output) = (String::new(), String::new());
    for field in Spot::top(&value).fields("checkUpdate", &["Status", "Output"])? {
        match field? {
            ("Status", spot) => status = spot.text()?,
            (_, spot) => output = spot.text()?,
        }
    }
    Ok((status, output))
}
