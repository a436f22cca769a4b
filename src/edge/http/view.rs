//! What client agents keep ([`crate::upstream::views`]), from the server's side: the rows of a service or a node that
//! have changed since an index, as an ordinary blocking read. Agents at the same index ask in the same words, so they share
//! one answer, however many they are. And the name of an address, which no agent keeps.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use muster_protocol::http::Method;

use super::Edge;
use super::area::name_of_query;
use super::exchange::{Handled, Outcome, Read, ReadOptions, Request, Response, Wait};
use super::query;
use super::router::Route;
use crate::edge::dns::lookup::{Named, name_of};
use crate::store::topic::Topic;
use crate::store::{State, VIEW_FORMAT, View};
use crate::upstream::views::HISTORY_HEADER;

/// The area's routes. They are for agents only.
pub const ROUTES: &[Route] = &[
    Route::new("/v1/internal/rpc/view/service", &[Method::Get], service),
    Route::new("/v1/internal/rpc/view/node", &[Method::Get], node),
    Route::new("/v1/internal/rpc/view/names", &[Method::Get], names),
    Route::new("/v1/internal/rpc/address", &[Method::Get], address),
];

/// A server without a word of its leader for so long tells agents that it is behind, within [`BEHIND_WAIT_NS`], rather than nothing for
/// long.
const BEHIND_AFTER: Duration = Duration::from_secs(2);
/// See [`BEHIND_AFTER`].
const BEHIND_WAIT_NS: i64 = 5_000_000_000;

fn service(edge: &Rc<Edge>, request: &Request) -> Handled {
    let name = name_of_query(request, "name")?;
    view(edge, request, View::service(&name))
}

fn node(edge: &Rc<Edge>, request: &Request) -> Handled {
    let name = name_of_query(request, "name")?;
    view(edge, request, View::node(&name))
}

fn names(edge: &Rc<Edge>, request: &Request) -> Handled {
    view(edge, request, View::Names)
}

fn view(edge: &Rc<Edge>, request: &Request, view: View) -> Handled {
    let options = query::read_options(&edge.config(), request)?;
    if request.query.get("format").and_then(|format| format.parse().ok()) != Some(VIEW_FORMAT) {
        let text = format!("This server tells what is in the catalog in format {VIEW_FORMAT} only");
        return Err(Response::bad_request(text));
    }
    let since = request.query.filled("since").map_or(Some(0), |since| since.parse().ok());
    let since: u64 = since.ok_or_else(|| Response::bad_request("Invalid since"))?;
    let history = history(edge);
    // An index of another history says nothing here, and waiting for it to pass would be waiting for nothing.
    let is_ours = request.query.get("history") == Some(&history);
    let (since, wait) = if is_ours { (since, options.wait) } else { (0, None) };
    let contact = edge.leadership().contact();
    let is_behind = !contact.leads && contact.last.is_none_or(|age| age >= BEHIND_AFTER);
    let wait = wait.map(|wait| if is_behind { Wait { wait_ns: BEHIND_WAIT_NS, ..wait } } else { wait });
    let topic = view.topic();
    let render = move |state: &State| {
        let bytes = bytes::Bytes::from_owner(state.view_since(&view, since));
        Response::with_type(200, "application/octet-stream", bytes).header(HISTORY_HEADER, history.clone())
    };
    Ok(Outcome::Read(Read::new(topic, ReadOptions { wait, ..options }, render)))
}

/// What indexes of this server mean something to: its cluster; before it has one, and where it keeps nothing, its own life.
fn history(edge: &Edge) -> String {
    let roster = edge.roster();
    let Some(own) = roster.named(&edge.config().node_name) else { return String::new() };
    match own.server.as_ref().and_then(|server| server.cluster) {
        Some(cluster) => cluster.to_string(),
        None => format!("{}-{}", own.id, own.incarnation),
    }
}

/// Whose an address is: `node NAME`, `service NAME`, or nothing.
fn address(edge: &Rc<Edge>, request: &Request) -> Handled {
    let options = query::read_options(&edge.config(), request)?;
    let ip = request.query.get("ip").and_then(|ip| ip.parse::<IpAddr>().ok());
    let ip = ip.ok_or_else(|| Response::bad_request("Invalid ip"))?;
    let render = move |state: &State| {
        let text = match name_of(state, ip) {
            Some(Named::Node(name)) => format!("node {name}"),
            Some(Named::Service(name)) => format!("service {name}"),
            None => String::new(),
        };
        Response::text(200, text)
    };
    Ok(Outcome::Read(Read::new(Topic::Catalog, options, render)))
}
