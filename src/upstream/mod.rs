//! The way from an agent to the servers: one connection to one of them, on which any number of requests are under way.
//!
//! A request is an HTTP request that the server's own HTTP edge answers; so whatever a server answers, an agent can ask. The
//! connection lives on one core ([`Dialler`]); [`Upstream`] is the handle for all cores. Which server is asked is drawn at
//! random and changes now and then, so that the agents spread over the servers; one that breaks off, leaves or says nothing
//! is left at once. What only reads is asked again elsewhere then; anything else only if nothing of it was sent.
//!
//! Nothing here is global: one process may hold any number of them.

mod call;
mod dialler;
mod error;
mod greet;
mod limits;
mod line;
pub mod parcels;
pub mod views;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use muster_protocol::entry::ServerId;
use muster_protocol::http::{Headers, Method};

use crate::membership::{Member, MemberStatus, Roster};
use crate::metrics::{self, Counter};
use crate::runtime::mesh::{self, Full};
use call::{Call, Part};
pub use dialler::Dialler;
pub use error::UpstreamError;
use limits::{CALLS_WAITING_MAX, PARTS_MAX};

/// A handle to ask the servers, on any core. Clones share the connection.
#[derive(Clone)]
pub struct Upstream(Arc<Handle>);

struct Handle {
    calls: mesh::Sender<Call>,
    servers: Servers,
    counts: Arc<Counts>,
}

/// The servers that are known and take part, as of now.
pub type Servers = Arc<dyn Fn() -> Vec<ServerAddress> + Send + Sync>;

/// A server that may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// Who it is.
    pub id: ServerId,
    /// Name of its node.
    pub name: Arc<str>,
    /// Where it takes agents.
    pub address: SocketAddr,
    /// Whether somebody got no answer from it lately: it is asked after the others.
    pub is_suspected: bool,
}

/// The agent that asks.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of its node.
    pub node: String,
    /// ID of its node.
    pub id: String,
    /// Its datacenter.
    pub datacenter: String,
    /// The address of this host to ask from; `None` leaves it to the kernel.
    pub from: Option<IpAddr>,
}

/// How many requests are let through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// A second; `None` is any number.
    pub per_second: Option<f64>,
    /// So many more at once.
    pub burst: usize,
}

/// A request.
pub struct Ask {
    /// The method.
    pub method: Method,
    /// Path and query, escaped.
    pub target: String,
    /// Headers beside those of the connection and of the body.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Payload,
}

/// A request's body.
pub enum Payload {
    /// All of it; empty is none.
    Whole(Bytes),
    /// Pieces as they come, `length` bytes together. Such a request goes to one server only.
    Pieces {
        /// Bytes of all pieces.
        length: u64,
        /// Its end before the length ends the request.
        pieces: mesh::Receiver<Bytes>,
    },
}

/// An answer, whose body may still be on its way. Dropping it tells the server that nobody wants the rest.
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// The headers.
    pub headers: Headers,
    /// The body.
    pub body: AnswerBody,
}

/// The body of an answer.
pub struct AnswerBody {
    first: Bytes,
    /// `None` once all has come.
    parts: Option<mesh::Receiver<Part>>,
}

/// What was asked over all connections so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests.
    pub requests: u64,
    /// Connections made.
    pub connections: u64,
    /// Bytes written to sockets.
    pub bytes_out: u64,
    /// Bytes read from sockets.
    pub bytes_in: u64,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    connections: AtomicU64,
    bytes_out: AtomicU64,
    bytes_in: AtomicU64,
}

/// The servers of a roster that agents of a datacenter may ask. One that has failed is among them: gossip may be wrong, and where
/// all have failed they are the ones that come back.
pub fn servers_of(roster: &Roster, datacenter: &str) -> Vec<ServerAddress> {
    let here = |member: &&Arc<Member>| {
        matches!(member.status, MemberStatus::Alive | MemberStatus::Failed)
            && member.datacenter() == datacenter
    };
    let servers = roster.servers().filter(here);
    let address = |member: &Arc<Member>| {
        Some(ServerAddress {
            id: member.id,
            name: member.name.clone(),
            address: member.server_address()?,
            is_suspected: !member.is_alive() || member.is_suspected(),
        })
    };
    servers.filter_map(address).collect()
}

impl Upstream {
    /// The handle, and what must run on one core for it to be of use.
    pub fn new(
        settings: Settings,
        servers: impl Fn() -> Vec<ServerAddress> + Send + Sync + 'static,
    ) -> (Upstream, Dialler) {
        let (calls, called) = mesh::channel(CALLS_WAITING_MAX);
        let servers: Servers = Arc::new(servers);
        let counts = Arc::<Counts>::default();
        let dialler = Dialler::new(settings, servers.clone(), called, counts.clone());
        (Upstream(Arc::new(Handle { calls, servers, counts })), dialler)
    }

    /// Whether any server is known.
    pub fn has_servers(&self) -> bool {
        !(self.0.servers)().is_empty()
    }

    /// What was asked so far.
    pub fn tally(&self) -> Tally {
        let counts = &self.0.counts;
        Tally {
            requests: counts.requests.load(Relaxed),
            connections: counts.connections.load(Relaxed),
            bytes_out: counts.bytes_out.load(Relaxed),
            bytes_in: counts.bytes_in.load(Relaxed),
        }
    }

    /// Asks; resolves once the answer has begun. Dropping the future gives the request up.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn request(&self, ask: Ask) -> Result<Answer, UpstreamError> {
        metrics::count(Counter::ClientRpc, 1);
        let answer = self.request_uncounted(ask).await;
        match &answer {
            Ok(_) => {}
            Err(UpstreamError::RateExceeded) => metrics::count(Counter::ClientRpcExceeded, 1),
            Err(_) => metrics::count(Counter::ClientRpcFailed, 1),
        }
        answer
    }

    async fn request_uncounted(&self, ask: Ask) -> Result<Answer, UpstreamError> {
        if !self.has_servers() {
            return Err(UpstreamError::NoServers);
        }
        self.0.counts.requests.fetch_add(1, Relaxed);
        let (parts, mut answered) = mesh::channel(PARTS_MAX);
        match self.0.calls.try_send(Call { ask, parts }) {
            Ok(()) => {}
            Err(Full::Full(_)) => return Err(UpstreamError::TooBusy),
            Err(Full::Closed(_)) => return Err(UpstreamError::Stopping),
        }
        match answered.recv().await {
            Some(Part::Head { head, first, ended }) => {
                let parts = (!ended).then_some(answered);
                let (status, headers) = (head.status, head.headers);
                Ok(Answer { status, headers, body: AnswerBody { first, parts } })
            }
            Some(Part::Failed(error)) => Err(error),
            Some(Part::Data(_) | Part::End) | None => Err(UpstreamError::Stopping),
        }
    }
}

impl Ask {
    /// A read.
    pub fn get(target: impl Into<String>) -> Ask {
        let body = Payload::Whole(Bytes::new());
        Ask { method: Method::Get, target: target.into(), headers: Vec::new(), body }
    }

    /// A write with a body.
    pub fn put(target: impl Into<String>, body: Bytes) -> Ask {
        let body = Payload::Whole(body);
        Ask { method: Method::Put, target: target.into(), headers: Vec::new(), body }
    }
}

impl Payload {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        matches!(self, Payload::Whole(body) if body.is_empty())
    }
}

impl AnswerBody {
    /// The next bytes; `None` when all have come.
    pub async fn next(&mut self) -> Option<Result<Bytes, UpstreamError>> {
        if !self.first.is_empty() {
            return Some(Ok(std::mem::take(&mut self.first)));
        }
        match self.parts.as_mut()?.recv().await {
            Some(Part::Data(data)) => Some(Ok(data)),
            Some(Part::End) => {
                self.parts = None;
                None
            }
            Some(Part::Failed(error)) => {
                self.parts = None;
                Some(Err(error))
            }
            Some(Part::Head { .. }) | None => {
                self.parts = None;
                Some(Err(UpstreamError::Stopping))
            }
        }
    }

    /// All of it.
    ///
    /// # Errors
    /// It broke off, or is longer than `max` bytes.
    pub async fn whole(mut self, max: usize) -> Result<Bytes, UpstreamError> {
        let Some(first) = self.next().await.transpose()? else { return Ok(Bytes::new()) };
        let Some(second) = self.next().await.transpose()? else { return Ok(first) };
        let mut whole = [&first[..], &second[..]].concat();
        while let Some(piece) = self.next().await.transpose()? {
            if whole.len() + piece.len() > max {
                return Err(UpstreamError::AnswerTooLong { max });
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.into())
    }
}
