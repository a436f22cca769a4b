//! `/v1/snapshot`: the whole state as an archive, and back.

use std::rc::Rc;

use bytes::Bytes;
use futures_lite::stream;
use muster_protocol::entry::Suffrage;
use muster_protocol::http::Method;

use super::Edge;
use super::area::refusal;
use super::exchange::{Cut, Handled, Outcome, Request, Response, Streaming};
use super::query;
use super::router::{BodyLimit, Route};
use crate::archive::{Facts, Server, Writer};
use crate::edge::fresh::{Freshness, Shown, Verdict};
use crate::runtime::{blocking, time};
use crate::server::restore::{self, Archive, RestoreError};

/// The area's routes.
pub const ROUTES: &[Route] =
    &[Route::new("/v1/snapshot", &[Method::Get, Method::Put], snapshot).body(BodyLimit::Archive)];

fn snapshot(edge: &Rc<Edge>, request: &Request) -> Handled {
    match request.method {
        Method::Put => put(edge, request),
        _ => get(edge, request),
    }
}

/// Everything is made off the core, a piece at a time, as fast as the client takes it.
fn get(edge: &Rc<Edge>, request: &Request) -> Handled {
    let options = query::read_options(&edge.config(), request)?;
    edge.require_server()?;
    let edge = edge.clone();
    Ok(Outcome::LaterStream(Box::pin(async move {
        let shown = admitted(&edge, options.freshness).await?;
        let state = edge.state();
        let facts = facts(&edge);
        let writer = blocking::run(move || Writer::new(&state, facts)).await;
        let writer = writer.map_err(|error| Response::internal(error.to_string()))?;
        let head = Response::with_type(200, "application/x-gzip", Bytes::new())
            .header("X-Consul-Index", writer.meta().index.to_string())
            .header("X-Consul-KnownLeader", shown.known_leader.to_string())
            .header("X-Consul-LastContact", shown.last_contact_ms.to_string());
        let source = stream::unfold(Some(writer), async |writer| {
            let mut writer = writer?;
            let work = blocking::run(move || writer.next_piece().map(|piece| (Ok(piece), Some(writer))));
            work.await.unwrap_or(Some((Err(Cut), None)))
        });
        Ok(Streaming { head, source: Box::pin(source) })
    })))
}

/// Waits until the state here may answer.
async fn admitted(edge: &Edge, freshness: Freshness) -> Result<Shown, Response> {
    let leadership = edge.leadership();
    match freshness.judge(&leadership.contact()) {
        Verdict::Now(shown) => Ok(shown),
        Verdict::Behind(kind) => match leadership.barrier(kind).await {
            Ok(()) => Ok(freshness.confirmed()),
            Err(error) => Err(refusal(&error)),
        },
        Verdict::Never(error) => Err(refusal(&error)),
    }
}

/// What the archive says of the cluster.
fn facts(edge: &Edge) -> Facts {
    let standing = edge.proposals().standing();
    let servers = standing.configuration.servers.iter().map(|server| Server {
        suffrage: match server.suffrage {
            Suffrage::Voter => 0,
            Suffrage::NonVoter => 1,
            Suffrage::Learner => 2,
        },
        id: server.id.to_string(),
        address: server.address.clone(),
    });
    Facts {
        term: standing.term,
        servers: servers.collect(),
        configuration_index: standing.configuration_index,
        unix_ms: u64::try_from(time::unix_now().as_millis()).unwrap_or(u64::MAX),
    }
}

fn put(edge: &Rc<Edge>, request: &Request) -> Handled {
    query::write_options(&edge.config(), request)?;
    if request.query.has("stale") {
        return Err(Response::internal("stale not allowed for restore"));
    }
    edge.require_server()?;
    let turn = restore::Turn::take().ok_or_else(|| {
        Response::internal("a snapshot is being restored already: try again when that has ended")
    })?;
    let proposals = edge.proposals().clone();
    let archive = match &request.spool {
        Some(spool) => Archive::File(spool.clone()),
        None => Archive::Memory(request.body.clone()),
    };
    Ok(Outcome::later(async move {
        let _turn = turn;
        match restore::restore(&proposals, archive).await {
            Ok(()) => Ok(Response::empty(200)),
            Err(RestoreError::Archive(text)) => Err(Response::internal(text)),
            Err(RestoreError::Propose(error)) => Err(refusal(&error)),
        }
    }))
}
