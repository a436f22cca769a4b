//! What a handler sees and gives: a [`Request`] in, an [`Outcome`] or a [`Response`] that refuses out.
//!
//! A handler is a plain function `fn(&Rc<Edge>, &Request) -> Handled`. It never blocks and never touches the
//! connection. Refusals are early returns: `Err(Response::text(400, "Missing key name"))`, so `?` works with
//! every helper here.

use std::borrow::Cow;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use futures_lite::Stream;
use muster_protocol::http::{Headers, Method};

use super::query::Query;
use crate::edge::fresh::Freshness;
use crate::runtime::spool::Spool;
use crate::store::State;
use crate::store::topic::Topic;

/// A future that stays on its core.
pub type LocalBoxFuture<T> = Pin<Box<dyn Future<Output = T> + 'static>>;

/// The types a handler gives back: `Err` is a refusal, sent like any other answer.
pub type Handled = Result<Outcome, Response>;

/// A handler of one route.
pub type Handler = fn(&Rc<super::Edge>, &Request) -> Handled;

/// Who sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP client.
    Ip(IpAddr),
    /// A client of a Unix socket.
    Unix,
    /// An agent, for a client of its own or for itself. What this server's configuration says about clients is not for it.
    Agent,
}

/// One request, complete with its body.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path, percent-decoded (as Go's `URL.Path`): any octets.
    pub path: Bytes,
    /// The route's pattern that matched: `/v1/kv/`, `/v1/status/leader`.
    pub pattern: &'static str,
    /// The query, decoded.
    pub query: Query,
    /// The headers.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
    /// The body, where it was too large for memory; then `body` is empty.
    pub spool: Option<Spool>,
    /// Who asks.
    pub peer: Peer,
}

impl Request {
    /// What follows the route's pattern, for patterns that end in `/`: the key of `/v1/kv/KEY`.
    pub fn rest(&self) -> &[u8] {
        self.path.get(self.pattern.len()..).unwrap_or_default()
    }

    /// [`Self::rest`] as text; octets that are not UTF-8 become U+FFFD.
    pub fn rest_str(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.rest())
    }

    /// The first value of a header, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }
}

/// An answer without the headers that the server adds itself (`Date`, `Content-Length`, `Vary`, `Connection`,
/// those of `http_config.response_headers`, and for reads `X-Consul-Index` and its kin).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Headers, in the order in which they are sent.
    pub headers: Vec<(Cow<'static, str>, String)>,
    /// Body.
    pub body: Bytes,
}

impl Response {
    /// An answer without a body and without a `Content-Type`.
    pub fn empty(status: u16) -> Response {
        Response { status, headers: Vec::new(), body: Bytes::new() }
    }

    /// Plain text as Consul sends its errors: `text/plain; charset=utf-8`.
    pub fn text(status: u16, text: impl Into<String>) -> Response {
        Response::with_type(status, "text/plain; charset=utf-8", text.into())
    }

    /// 400 with a text.
    pub fn bad_request(text: impl Into<String>) -> Response {
        Response::text(400, text)
    }

    /// 500 with a text: what Consul answers when anything below the endpoint fails.
    pub fn internal(text: impl Into<String>) -> Response {
        Response::text(500, text)
    }

    /// 200 with bytes that are JSON already.
    pub fn json_bytes(body: impl Into<Bytes>) -> Response {
        Response::with_type(200, "application/json", body)
    }

    /// A body of any type.
    pub fn with_type(status: u16, content_type: &str, body: impl Into<Bytes>) -> Response {
        Response {
            status,
            headers: vec![("Content-Type".into(), content_type.to_owned())],
            body: body.into(),
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Response {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// What becomes of a request.
pub enum Outcome {
    /// Answered at once.
    Reply(Response),
    /// A read of the replicated state: rendered now, or parked while its index has not moved past the asked one.
    Read(Read),
    /// Answered later by a task on this core (writes, calls to the agent): the connection waits as a record.
    /// The task runs to its end even when the client leaves.
    Later(LocalBoxFuture<Response>),
    /// A read that begins once a task on this core says so, or a refusal.
    LaterRead(LocalBoxFuture<Result<Read, Response>>),
    /// Sent in chunks until the source ends or the client leaves (then the source is dropped).
    Stream(Streaming),
    /// A stream that begins once a task on this core says so, or a refusal.
    LaterStream(LocalBoxFuture<Result<Streaming, Response>>),
    /// The same, asked of somebody else: the task ends when the client leaves. An answer that is whole comes as the refusal.
    Asked(LocalBoxFuture<Result<Streaming, Response>>),
}

impl From<Response> for Outcome {
    fn from(response: Response) -> Outcome {
        Outcome::Reply(response)
    }
}

impl From<Read> for Outcome {
    fn from(read: Read) -> Outcome {
        Outcome::Read(read)
    }
}

impl Outcome {
    /// A task's answer; see [`Outcome::Later`]. Both arms of the future's result are sent.
    pub fn later(work: impl Future<Output = Result<Response, Response>> + 'static) -> Outcome {
        Outcome::Later(Box::pin(async move { work.await.unwrap_or_else(|refusal| refusal) }))
    }
}

/// See [`Outcome::Stream`]. The next chunk is asked for only once the last one has left for the client.
pub struct Streaming {
    /// Status and headers; its body is sent first.
    pub head: Response,
    /// The rest of the body.
    pub source: Source,
}

/// The pieces of a body.
pub type Source = Pin<Box<dyn Stream<Item = Result<Bytes, Cut>> + 'static>>;

/// The rest of a body does not come. Its connection is broken off, so that the client does not take what it got for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut;

/// A blocking query's condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Waits while the topic's index is at most this (`?index=`, never 0).
    pub index: u64,
    /// The longest wait asked for (`?wait=`), nanoseconds; 0 when not given.
    pub wait_ns: i64,
}

/// What `?index ?wait ?stale ?consistent ?leader ?cached ?max_stale` and `Cache-Control` ask of a read.
/// Made by [`super::query::read_options`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Set for blocking queries.
    pub wait: Option<Wait>,
    /// How fresh.
    pub freshness: Freshness,
    /// `?cached` was asked for and `http_config.use_cache` allows it.
    pub cached: bool,
}

/// Renders a read from a state. Called again whenever the topic has moved.
pub type Render = Box<dyn Fn(&State) -> Response>;

/// A read of the replicated state. See [`Outcome::Read`].
pub struct Read {
    /// What it depends on: its index is the answer's `X-Consul-Index`, its changes wake the query.
    pub topic: Topic,
    /// What the client asked of it.
    pub options: ReadOptions,
    /// Whether the answer says `X-Consul-Effective-Consistency` (catalog, health and query endpoints).
    pub show_consistency: bool,
    /// Whether the same request bytes may be given the same answer while the topic's index stands still. False
    /// where the answer depends on more than the state (the local agent, the client's address).
    pub cacheable: bool,
    /// Whether a 404 says nothing of how it was made.
    pub silent_of_absence: bool,
    /// Makes the answer.
    pub render: Render,
}

impl Read {
    /// A cacheable read that does not show its consistency (as `/v1/kv/`).
    pub fn new(topic: Topic, options: ReadOptions, render: impl Fn(&State) -> Response + 'static) -> Read {
        Read {
            topic,
            options,
            show_consistency: false,
            cacheable: true,
            silent_of_absence: false,
            render: Box::new(render),
        }
    }

    /// Says `X-Consul-Effective-Consistency` in the answer.
    #[must_use]
    pub fn showing_consistency(mut self) -> Read {
        self.show_consistency = true;
        self
    }

    /// Says nothing of how it was made when it is a 404, as Consul's coordinates do.
    #[must_use]
    pub fn silent_of_absence(mut self) -> Read {
        self.silent_of_absence = true;
        self
    }

    /// Renders afresh for every request.
    #[must_use]
    pub fn uncacheable(mut self) -> Read {
        self.cacheable = false;
        self
    }
}
