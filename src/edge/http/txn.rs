//! `/v1/txn`: several operations on keys and the catalog at once, all or none.

use std::rc::Rc;

use muster_protocol::http::Method;

use super::Edge;
use super::area::write;
use super::exchange::{Handled, Outcome, Request, Response};
use super::operator::await_fresh;
use super::query;
use super::router::{BodyLimit, Route};
use super::txn_body::{self as body, Bounds};
use crate::edge::fresh::Freshness;
use crate::store::command::{Applied, Command, Failure, TxnOp};

/// The area's routes.
pub const ROUTES: &[Route] = &[Route::new("/v1/txn", &[Method::Put], txn).body(BodyLimit::Transaction)];

fn txn(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let bounds = Bounds { value_max: config.limits.kv_max_value_size, datacenter: &config.datacenter };
    let asked = body::read(&request.body, &bounds)?;
    let pretty = query::pretty(&config, request);
    if !asked.writes {
        let freshness = query::read_options(&config, request)?.freshness;
        let ops = if asked.failures.is_empty() { Ok(asked.ops) } else { Err(asked.failures) };
        return Ok(look(edge, freshness, ops, pretty));
    }
    query::known_datacenter(&config, request)?;
    if !asked.failures.is_empty() {
        return Ok(body::answer(&Err(asked.failures), None, pretty).into());
    }
    if asked.ops.iter().all(|op| matches!(op, TxnOp::Look(_))) {
        // Some verb is none, so that it fails.
        let (edge, ops) = (edge.clone(), asked.ops);
        return Ok(Outcome::later(async move {
            await_fresh(&edge, Freshness::Leader).await?;
            Ok(body::answer(&edge.state().look_at_all(&ops), None, pretty))
        }));
    }
    Ok(write(edge, Command::Txn(asked.ops), move |applied| match applied {
        Applied::Txn(outcome) => Ok(body::answer(&outcome, None, pretty)),
        other => Err(Response::internal(format!("a transaction ended as {other:?}"))),
    }))
}

/// A transaction that only looks needs no entry of the log: it is a read, as fresh as asked.
fn look(
    edge: &Rc<Edge>,
    freshness: Freshness,
    ops: Result<Vec<TxnOp>, Vec<Failure>>,
    pretty: bool,
) -> Outcome {
    let edge = edge.clone();
    Outcome::later(async move {
        let shown = await_fresh(&edge, freshness).await?;
        let outcome = ops.and_then(|ops| edge.state().look_at_all(&ops));
        Ok(body::answer(&outcome, Some(shown), pretty))
    })
}
