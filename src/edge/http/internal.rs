//! `/v1/internal/rpc/...`: what only agents ask of servers. There is no such path on public doors.

use std::rc::Rc;

use muster_protocol::http::Method;

use super::Edge;
use super::exchange::{Handled, Outcome, Read, Request, Response};
use super::query;
use super::router::{BodyLimit, Route};
use crate::store::State;
use crate::store::topic::Topic;
use crate::upstream::parcels::{self, Holding};

/// The area's routes.
pub const ROUTES: &[Route] = &[
    Route::new(parcels::PROPOSE, &[Method::Put], propose).body(BodyLimit::Writes),
    Route::new(parcels::STAMP, &[Method::Get], stamp),
    Route::new(parcels::NODE, &[Method::Get], node),
];

/// Type of bodies that only our own agents read.
const ARCHIVE: &str = "application/octet-stream";

/// Proposes an agent's writes, which are under way together.
fn propose(edge: &Rc<Edge>, request: &Request) -> Handled {
    let writes = parcels::take_writes(&request.body).map_err(Response::bad_request)?;
    let proposals = edge.proposals().clone();
    Ok(Outcome::later(async move {
        let outcomes = proposals.propose_lazily(writes).await;
        Ok(Response::with_type(200, ARCHIVE, parcels::put_outcomes(&outcomes)))
    }))
}

fn stamp(edge: &Rc<Edge>, request: &Request) -> Handled {
    of_node(edge, request, |state, node| Holding::stamp_of(state, node).to_le_bytes().to_vec().into())
}

fn node(edge: &Rc<Edge>, request: &Request) -> Handled {
    of_node(edge, request, |state, node| Holding::of(state, node).encode())
}

/// A read that nobody else asks, so nothing of it is remembered.
fn of_node(edge: &Rc<Edge>, request: &Request, render: fn(&State, &str) -> bytes::Bytes) -> Handled {
    let options = query::read_options(&edge.config(), request)?;
    let name = request.query.filled("node").ok_or_else(|| Response::bad_request("Missing node name"))?;
    let name: Box<str> = name.into();
    let topic = Topic::Node(name.clone());
    let read =
        Read::new(topic, options, move |state| Response::with_type(200, ARCHIVE, render(state, &name)));
    Ok(read.uncacheable().into())
}
