//! Agents' connections, from the port that they share with other servers' links to the edge cores that serve them.
//!
//! The control core reads only the first bytes of a connection, which say what it is ([`super::links`]); one of an agent goes to
//! an edge core, in turn. There its streams are served as connections of the HTTP edge are.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_protocol::rpc::{RPC_VERSION, RpcHello};

use crate::config::Config;
use crate::consensus::Contact;
use crate::metrics::{self, Counter};
use crate::runtime::mesh::{self, Full};
use crate::runtime::net::Socket;
use crate::runtime::publish::Published;
use crate::runtime::tally::{Share, Tally};
use crate::runtime::time;

/// Connections of agents that wait to be taken by one edge core; one more is closed, and its agent comes again.
pub const GUESTS_WAITING_MAX: usize = 1024;

/// Connections of agents on one edge core; one more is refused, and its agent tries another server.
pub const GUESTS_MAX: usize = 16_384;

/// How long a server follows no leader before its agents are to try others: two elections that come to nothing, at the default timing.
pub const LEADERLESS_AFTER: Duration = Duration::from_secs(5);
/// How often it is looked.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// How often the log is told of connections that are closed.
const MENTION_EVERY: Duration = Duration::from_secs(60);

/// Something for an edge core.
pub enum Guest {
    /// An agent that has begun to speak.
    Agent(Arrival),
    /// This server leaves: agents are to ask others.
    Leaving,
    /// It follows no leader: those that are here are to try others. Who comes again is served.
    Leaderless,
}

/// A connection whose first bytes were an agent's.
pub struct Arrival {
    /// The connection, behind those bytes.
    pub socket: Socket,
    /// Where it comes from.
    pub ip: Option<IpAddr>,
    /// Its place among the connections of that address.
    pub share: Option<Share<IpAddr>>,
    /// Who is greeted.
    pub host: Arc<Host>,
}

/// This server, as agents are greeted.
#[derive(Clone, Debug)]
pub struct Host {
    /// Name of its node.
    pub name: String,
    /// ID of its node.
    pub id: String,
    /// Its datacenter.
    pub datacenter: String,
}

/// Hands connections of agents out to the edge cores. On the control core.
pub struct Reception {
    host: Arc<Host>,
    config: Published<Config>,
    edges: Vec<mesh::Sender<Guest>>,
    next: Cell<usize>,
    clients: Tally<IpAddr>,
    /// When the log was last told of one that was closed.
    mentioned: Cell<Option<Instant>>,
}

impl Reception {
    /// For these edge cores.
    pub fn new(host: Host, config: Published<Config>, edges: Vec<mesh::Sender<Guest>>) -> Reception {
        Reception {
            host: Arc::new(host),
            config,
            edges,
            next: Cell::new(0),
            clients: Tally::new(),
            mentioned: Cell::new(None),
        }
    }

    /// Takes a connection, or closes it: as many as one address may have are there, or all cores are behind.
    pub fn receive(&self, socket: Socket, ip: Option<IpAddr>) {
        let max = self.config.load().limits.rpc_max_conns_per_client;
        let share = match ip.map(|ip| self.clients.take(ip, max)) {
            Some(None) => {
                let ip = ip.map(|ip| ip.to_string()).unwrap_or_default();
                return self.mention(&format!(
                    "an agent's connection from {ip} is closed: that address has as many as limits.rpc_max_conns_per_client allows"
                ));
            }
            Some(share) => share,
            None => None,
        };
        metrics::count(Counter::RpcAcceptConn, 1);
        let mut guest = Guest::Agent(Arrival { socket, ip, share, host: self.host.clone() });
        for _ in 0..self.edges.len() {
            let edge = &self.edges[self.next.get() % self.edges.len()];
            self.next.set(self.next.get().wrapping_add(1));
            match edge.try_send(guest) {
                Ok(()) => return,
                Err(Full::Full(back) | Full::Closed(back)) => guest = back,
            }
        }
        self.mention("an agent's connection is closed: all cores are too busy to take one");
    }

    /// Agents that are refused come again, each of them: the log hears of it now and then.
    fn mention(&self, why: &str) {
        let now = time::now();
        if self.mentioned.get().is_none_or(|before| now.saturating_duration_since(before) >= MENTION_EVERY) {
            self.mentioned.set(Some(now));
            tracing::warn!(target: "agent.server", "{why}");
        }
    }

    /// Sends agents to other servers each time this one has heard of no leader for [`LEADERLESS_AFTER`]: what it would tell them is
    /// old, and grows older, while others may go on. `contact` says how it stands.
    pub async fn watch(&self, contact: impl Fn() -> Contact) {
        let mut sent = false;
        loop {
            time::sleep(WATCH_INTERVAL).await;
            let contact = contact();
            let is_behind = contact.last.is_some_and(|age| age >= LEADERLESS_AFTER) && !contact.leads;
            if is_behind && !std::mem::replace(&mut sent, true) {
                tracing::warn!(
                    target: "agent.server",
                    "no leader was heard for {LEADERLESS_AFTER:?}: agents that ask here are sent to other servers"
                );
                self.tell(|| Guest::Leaderless).await;
            }
            sent &= is_behind;
        }
    }

    /// Tells all agents that this server leaves.
    pub async fn leave(&self) {
        self.tell(|| Guest::Leaving).await;
    }

    async fn tell(&self, guest: impl Fn() -> Guest) {
        for edge in &self.edges {
            // A core that has ended serves nobody.
            let _ = edge.send(guest()).await;
        }
    }
}

/// Why an agent is not served; `None` if it is. The text is for its log.
pub fn refusal(hello: &RpcHello, host: &Host, leaving: bool) -> Option<String> {
    if hello.common_version().is_none() {
        return Some(format!(
            "agent {} speaks version {} of the protocol between agents and servers and server {} version {RPC_VERSION}: \
             upgrade the older one step by step",
            hello.name, hello.version, host.name
        ));
    }
    if hello.datacenter != host.datacenter {
        return Some(format!(
            "agent {} is of datacenter {} and server {} of {}",
            hello.name, hello.datacenter, host.name, host.datacenter
        ));
    }
    leaving.then(|| format!("server {} is leaving", host.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_of_other_datacenters_and_versions_are_refused() {
        let hello = RpcHello {
            version: 1,
            version_min: 1,
            datacenter: "dc1".into(),
            name: "a".into(),
            id: String::new(),
        };
        let host = Host { name: "s".into(), id: String::new(), datacenter: "dc1".into() };
        assert_eq!(refusal(&hello, &host, false), None);
        let text = |hello: RpcHello, leaving| refusal(&hello, &host, leaving).expect("refused");
        assert!(text(hello.clone(), true).contains("leaving"));
        assert!(text(RpcHello { datacenter: "dc2".into(), ..hello.clone() }, false).contains("dc2"));
        assert!(text(RpcHello { version: 9, version_min: 9, ..hello }, false).contains("upgrade"));
    }
}
