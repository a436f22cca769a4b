//! `/v1/status/...`: who leads, and who votes.

use std::rc::Rc;

use muster_protocol::http::Method;

use super::Edge;
use super::area::reply;
use super::exchange::{Handled, Request};
use super::query;
use super::router::Route;

/// The area's routes.
pub const ROUTES: &[Route] = &[
    Route::new("/v1/status/leader", &[Method::Get], leader),
    Route::new("/v1/status/peers", &[Method::Get], peers),
];

/// The leader's server address, empty while there is none.
fn leader(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    query::known_datacenter(&config, request)?;
    edge.require_server()?;
    let leader = edge.proposals().status().leader.unwrap_or_default();
    Ok(reply(query::pretty(&config, request), &leader).into())
}

fn peers(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    query::known_datacenter(&config, request)?;
    edge.require_server()?;
    Ok(reply(query::pretty(&config, request), &edge.proposals().status().peers[..]).into())
}
