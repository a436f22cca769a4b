//! Reads that a client agent answers from what it keeps ([`crate::upstream::views`]) instead of asking a server: `?cached`
//! ones, and while no server answers `?stale` ones too. They run through the same handlers as on a server, over
//! a state that holds what they look at; the first question waits until it does.

use std::rc::Rc;

use super::exchange::{Handled, Outcome, Read, Request, Response};
use super::query::failed_read;
use super::{Edge, catalog, health};
use crate::consensus::ProposeError;
use crate::edge::fresh::Freshness;
use crate::runtime::time;
use crate::store::View;
use crate::upstream::views::Views;

/// The answer, if it is one to be given here.
pub fn answers_here(edge: &Rc<Edge>, request: &Request) -> Option<Handled> {
    let views = edge.leadership().views()?;
    let handler = match request.pattern {
        "/v1/health/service/" => health::service,
        "/v1/catalog/service/" => catalog::service,
        "/v1/catalog/services" => catalog::services,
        "/v1/catalog/node/" => catalog::node,
        "/v1/catalog/node-services/" => catalog::node_services,
        _ => return None,
    };
    let kept = ["/v1/health/service/", "/v1/catalog/service/", "/v1/catalog/services"];
    let cacheable = kept.contains(&request.pattern);
    let cached = cacheable && request.query.has("cached") && edge.config().http.use_cache;
    if !cached && views.contact().known_leader {
        return None;
    }
    let read = match handler(edge, request) {
        Ok(Outcome::Read(read)) => read,
        other => return Some(other),
    };
    let view = View::of(&read.topic)?;
    let fresh_enough = match read.options.freshness {
        // As in Consul, what is cached may be of any age.
        _ if cached => true,
        Freshness::Stale(max) => max.is_none_or(|max| views.contact().last.is_some_and(|age| age <= max)),
        // A default read is the servers' to answer, always.
        _ => false,
    };
    if !fresh_enough {
        return None;
    }
    if edge.state().holds(&view) {
        views.note(view);
        return Some(Ok(Outcome::Read(from_memory(read))));
    }
    cached.then(|| Ok(first_time(edge, request, views.clone(), view, read)))
}

/// Waits for the servers' first word about what is read.
fn first_time(edge: &Edge, request: &Request, views: Views, view: View, read: Read) -> Outcome {
    let patience = edge.config().performance.rpc_hold_timeout;
    let failed = |text: String| failed_read(request, &text);
    let (silent, refused) = (failed(ProposeError::NoLeader.to_string()), failed(String::new()));
    Outcome::LaterRead(Box::pin(async move {
        match time::timeout(patience, views.hold(view)).await {
            Some(Ok(())) => Ok(from_memory(read)),
            Some(Err(why)) => Err(Response { body: why.0.into(), ..refused }),
            None => Err(silent),
        }
    }))
}

fn from_memory(mut read: Read) -> Read {
    let stale = matches!(read.options.freshness, Freshness::Stale(_));
    read.options.freshness = Freshness::Remembered { stale };
    // Asked by the same words again it may be the servers' to answer.
    read.uncacheable()
}
