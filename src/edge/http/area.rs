//! What the areas of the API share: JSON answers, filters, node metadata, and writes with their errors.

use std::rc::Rc;

use super::Edge;
use super::exchange::{Outcome, Request, Response};
use super::filter::schema::Field;
use super::filter::{Filter, Row};
use super::json::{self, Json, JsonWriter};
use super::query;
use crate::consensus::ProposeError;
use crate::store::command::{Applied, Command};
use crate::store::model::Node;

/// A 200 with a JSON value.
pub fn reply(pretty: bool, value: &(impl Json + ?Sized)) -> Response {
    Response::json_bytes(json::document(pretty, value))
}

/// A 200 with a JSON array of rows.
pub fn rows<T>(
    pretty: bool,
    rows: impl IntoIterator<Item = T>,
    mut row: impl FnMut(&mut JsonWriter, T),
) -> Response {
    let mut w = JsonWriter::new(pretty);
    w.array(rows, |w, value| row(w, value));
    Response::json_bytes(w.finish())
}

/// What follows the route, which must not be empty.
///
/// # Errors
/// Consul's 400: `Missing service name`.
pub fn name(request: &Request, what: &str) -> Result<Box<str>, Response> {
    match request.rest_str() {
        name if name.is_empty() => Err(Response::bad_request(format!("Missing {what}"))),
        name => Ok(name.into()),
    }
}

/// A parameter that must be there.
///
/// # Errors
/// 400: `Missing name`.
pub fn name_of_query(request: &Request, parameter: &str) -> Result<Box<str>, Response> {
    let value = request.query.filled(parameter).map(Into::into);
    value.ok_or_else(|| Response::bad_request(format!("Missing {parameter}")))
}

/// The `filter` of a request, ready for rows of one kind.
pub struct Chosen(Option<Filter>);

impl Chosen {
    /// Compiles the request's `filter`.
    ///
    /// # Errors
    /// Consul's 500, with the headers of an answer that never came.
    pub fn of(request: &Request, fields: &'static [Field]) -> Result<Chosen, Response> {
        Filter::compile(query::filter(request), fields)
            .map(Chosen)
            .map_err(|error| query::with_blank_meta(Response::internal(error.to_string())))
    }

    /// Whether the filter leaves everything in.
    pub fn all(&self) -> bool {
        self.0.is_none()
    }

    /// Whether a row stays in the answer.
    pub fn takes(&self, row: &dyn Row) -> bool {
        self.0.as_ref().is_none_or(|filter| filter.matches(row))
    }
}

/// The `node-meta` pairs of a request: all must be on the node.
pub struct NodeMeta(Vec<(String, String)>);

impl NodeMeta {
    /// Reads the pairs; of two values for one key the last counts.
    pub fn of(request: &Request) -> NodeMeta {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for raw in request.query.all("node-meta") {
            let (key, value) = raw.split_once(':').unwrap_or((raw, ""));
            pairs.retain(|(known, _)| known != key);
            pairs.push((key.to_owned(), value.to_owned()));
        }
        NodeMeta(pairs)
    }

    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a node has all the pairs.
    pub fn on(&self, node: &Node) -> bool {
        self.0.iter().all(|(key, value)| node.meta.as_ref().and_then(|meta| meta.get(key)) == Some(value))
    }
}

/// Proposes a command and answers with `done` of its result once it is applied.
pub fn write(
    edge: &Rc<Edge>,
    command: Command,
    done: impl FnOnce(Applied) -> Result<Response, Response> + 'static,
) -> Outcome {
    let proposals = edge.proposals().clone();
    Outcome::later(async move {
        match proposals.propose(&command).await {
            Ok(Applied::Refused(text)) => Err(Response::internal(text)),
            Ok(applied) => done(applied),
            Err(error) => Err(refusal(&error)),
        }
    })
}

/// The answer for a write that was not taken: the one table from consensus to HTTP.
pub fn refusal(error: &ProposeError) -> Response {
    let status = match error {
        ProposeError::NoLeader
        | ProposeError::NoServers
        | ProposeError::LeadershipLost
        | ProposeError::DiskFull => 500,
        ProposeError::TooBusy | ProposeError::Stopping => 503,
        ProposeError::TooLarge { .. } => 413,
    };
    Response::text(status, error.to_string())
}
