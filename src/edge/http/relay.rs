//! What an agent that is no server does with requests about the cluster: it asks a server, and passes the answer on.
//!
//! The request goes on as it came, but for what this agent knows better than the server: which node `_agent` is, who the client
//! is, how stale answers may be by its own configuration. The answer comes back as the server gave it; errors say that they
//! come from there, as Consul's do.

use std::rc::Rc;

use bytes::Bytes;
use futures_lite::stream;
use muster_protocol::http::escape_path;

use super::Edge;
use super::exchange::{Cut, Outcome, Peer, Read, Request, Response, Streaming};
use super::policy::Admitted;
use super::query::{self, failed};
use super::router::Scope;
use super::session;
use crate::runtime::spool::Spool;
use crate::runtime::{blocking, mesh, task};
use crate::upstream::{Answer, Ask, Payload, Upstream, UpstreamError};

/// Answers up to this length are passed on in one piece.
const WHOLE_MAX: u64 = 1 << 20;
/// Bytes of a spooled body that are read at a time.
const PIECE_LENGTH: usize = 256 << 10;
/// Pieces of a spooled body that are read ahead.
const PIECES_MAX: usize = 2;

/// Headers of a request that mean something to servers.
const RELAYED: [&str; 5] =
    ["X-Consul-Token", "Authorization", "X-Consul-Namespace", "Cache-Control", "X-Forwarded-For"];

/// Headers of an answer that are each connection's own.
const OWN: [&str; 6] = ["date", "content-length", "transfer-encoding", "connection", "vary", "keep-alive"];

/// Whom to ask, where this agent does not answer itself.
pub(super) fn upstream<'a>(edge: &'a Edge, admitted: &Admitted) -> Option<&'a Upstream> {
    edge.upstream().filter(|_| admitted.route.scope == Scope::Server)
}

/// Asks a server and passes its answer on.
pub(super) fn relay(edge: &Rc<Edge>, upstream: &Upstream, admitted: &Admitted, raw_query: &[u8]) -> Outcome {
    let ask = ask_of(edge, &admitted.request, raw_query);
    let (edge, upstream) = (edge.clone(), upstream.clone());
    let (request, handler) = (admitted.request.clone(), admitted.route.handler);
    // Archives come over a connection of their own in Consul, whose errors say nothing of calls.
    let named = request.pattern != "/v1/snapshot";
    Outcome::Asked(Box::pin(async move {
        match upstream.request(ask).await {
            Ok(answer) => pass_on(answer, named).await,
            // The endpoint knows what it refuses without asking, and how its failures look.
            Err(error) => Err(match handler(&edge, &request) {
                Err(refused) if refused.status < 500 => refused,
                Ok(Outcome::Read(Read { show_consistency, .. })) => refusal(show_consistency, &error),
                _ => refusal(false, &error),
            }),
        }
    }))
}

fn refusal(discovery: bool, error: &UpstreamError) -> Response {
    match error {
        UpstreamError::RateExceeded => Response::text(429, error.to_string()),
        UpstreamError::TooBusy | UpstreamError::Stopping => Response::text(503, error.to_string()),
        _ => failed(discovery, &error.to_string()),
    }
}

fn ask_of(edge: &Edge, request: &Request, raw_query: &[u8]) -> Ask {
    let config = edge.config();
    let mut target = escape_path(&request.path);
    let mut separator = '?';
    let mut add = |text: &str| {
        target.push(std::mem::replace(&mut separator, '&'));
        target.push_str(text);
    };
    let raw_query = String::from_utf8_lossy(raw_query);
    for part in raw_query.split(['&', ';']).filter(|part| !part.is_empty()) {
        if part == "near=_agent" {
            add(&format!("near={}", query::escape(&config.node_name)));
        } else {
            add(part);
        }
    }
    if request.pattern == session::CREATE {
        add(&format!("{}={}", session::AGENT_NODE, query::escape(&config.node_name)));
    }
    if let Some(age) = query::own_staleness(&config, request) {
        add(&format!("max_stale={}ns", age.as_nanos()));
    }
    let relayed =
        RELAYED.iter().filter_map(|name| Some(((*name).to_owned(), request.header(name)?.to_owned())));
    let mut headers: Vec<(String, String)> = relayed.collect();
    if let Peer::Ip(ip) = request.peer
        && request.query.get("near") == Some("_ip")
        && request.header("X-Forwarded-For").is_none()
    {
        headers.push(("X-Forwarded-For".to_owned(), ip.to_string()));
    }
    let body = match &request.spool {
        Some(spool) => pieces(spool),
        None => Payload::Whole(request.body.clone()),
    };
    Ask { method: request.method.clone(), target, headers, body }
}

/// A body that lies in a file, read as fast as the server takes it.
fn pieces(spool: &Spool) -> Payload {
    let (sender, pieces) = mesh::channel(PIECES_MAX);
    let (length, reader) = (spool.length(), spool.reader());
    let reading = async move {
        let mut reader: Box<dyn std::io::Read + Send> = Box::new(reader);
        loop {
            let work = move || {
                let mut piece = Vec::with_capacity(PIECE_LENGTH);
                let read = std::io::Read::read_to_end(
                    &mut std::io::Read::take(&mut reader, PIECE_LENGTH as u64),
                    &mut piece,
                );
                (reader, read.map(|_| Bytes::from(piece)))
            };
            // A file that cannot be read ends the body early, which its reader finds.
            let Ok((back, Ok(piece))) = blocking::run(work).await else { return };
            if piece.is_empty() || sender.send(piece).await.is_err() {
                return;
            }
            reader = back;
        }
    };
    task::spawn(reading).detach();
    Payload::Pieces { length, pieces }
}

async fn pass_on(answer: Answer, named: bool) -> Result<Streaming, Response> {
    let mut head = Response::empty(answer.status);
    for (name, value) in answer.headers.iter() {
        let name = String::from_utf8_lossy(name).into_owned();
        if !OWN.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            head = head.header(name, String::from_utf8_lossy(value));
        }
    }
    let length = answer.headers.get("content-length").and_then(|length| length.parse::<u64>().ok());
    if length.is_some_and(|length| length <= WHOLE_MAX) {
        let body = answer.body.whole(WHOLE_MAX as usize).await;
        head.body = body.map_err(|error| refusal(false, &error))?;
        return Err(if named { from_server(head) } else { head });
    }
    let source = stream::unfold(Some(answer.body), async |body| {
        let mut body = body?;
        match body.next().await? {
            Ok(piece) => Some((Ok(piece), Some(body))),
            Err(_) => Some((Err(Cut), None)),
        }
    });
    Ok(Streaming { head, source: Box::pin(source) })
}

/// An error says that it comes from a server, in Consul's words.
fn from_server(mut answer: Response) -> Response {
    let is_text = answer
        .headers
        .iter()
        .any(|(name, value)| name.eq_ignore_ascii_case("Content-Type") && value.starts_with("text/plain"));
    if answer.status == 500 && is_text {
        answer.body = [b"rpc error making call: ", &answer.body[..]].concat().into();
    }
    answer
}
