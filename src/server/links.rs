//! The links between the servers of a cluster: one TCP connection each way.
//!
//! Each server dials one connection to each other server and writes its messages there; the answers come on the
//! connection that the other one dialled. All messages that come up before the writer runs go out in one write.
//!
//! Guarantees: the messages of one connection arrive in order, or not at all; what comes in was sent by a server of the
//! same cluster and datacenter, is whole, and its commands are valid. A link never holds more than its limits: what
//! finds no room, or no link, is dropped, and its sender hears of it ([`PeerEvent::Lost`]).
//!
//! It all runs on the control core. Agents dial the same port; what they dialled is handed on ([`crate::server::rpc`]).

mod accept;
mod dial;
mod outbox;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use muster_protocol::entry::{Configuration, ServerId};
use muster_protocol::rpc::PeerMessage;

use crate::consensus::{self, PeerEvent};
use crate::membership::{Cluster, Roster};
use crate::runtime::mesh;
use crate::runtime::net::Listener;
use crate::runtime::task::{self, Task};
use crate::server::rpc::Reception;
use outbox::Outbox;

/// Messages that wait for consensus. Links that find no room read no more until there is: their peers wait.
pub const EVENTS_MAX: usize = 4096;

/// Connections at once that have not said yet what they are. One more is closed; agents come again.
const UNDECIDED_MAX: usize = 1024;

/// Connections from other servers at once: one from each server of the largest cluster that makes sense, and as many
/// that are being replaced.
const ACCEPTED_MAX: usize = 64;

/// A link whose peer acknowledges nothing for so long is dialled again. Far above any round trip, and short enough that a
/// machine that died is noticed before its TCP would.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// This server as it shows itself to others.
#[derive(Clone, Debug)]
pub struct Own {
    /// Who it is.
    pub id: ServerId,
    /// Name of its node.
    pub name: String,
    /// Its datacenter.
    pub datacenter: String,
    /// Where others reach it, `ip:port`.
    pub address: String,
    /// Patience with a peer that does not say who it is.
    pub handshake_timeout: Duration,
}

/// All links of this server. Clones are handles to the same.
#[derive(Clone)]
pub struct Links(Rc<Shared>);

struct Shared {
    own: Own,
    cluster: Cluster,
    events: mesh::Sender<PeerEvent>,
    peers: RefCell<BTreeMap<ServerId, Peer>>,
    /// Servers of the configuration. Others are linked with for as long as they dial us.
    configured: RefCell<BTreeSet<ServerId>>,
    accepted: RefCell<accept::Accepted>,
    accepting: RefCell<Option<Task<()>>>,
    /// Where agents' connections go.
    agents: RefCell<Option<Rc<Reception>>>,
}

/// A server that we dial.
struct Peer {
    outbox: Rc<Outbox>,
    _dialling: Task<()>,
}

impl Links {
    /// Without links yet; what comes in goes to `events`.
    pub fn new(own: Own, cluster: Cluster, events: mesh::Sender<PeerEvent>) -> Links {
        Links(Rc::new(Shared {
            own,
            cluster,
            events,
            peers: RefCell::default(),
            configured: RefCell::default(),
            accepted: RefCell::default(),
            accepting: RefCell::default(),
            agents: RefCell::default(),
        }))
    }

    /// Hands connections of agents on, from now on; without it they are refused.
    pub fn receive_agents(&self, reception: Rc<Reception>) {
        self.0.agents.replace(Some(reception));
    }

    /// Takes links of others from now on.
    pub fn listen(&self, listener: Listener) {
        let accepting = task::spawn(accept::run(self.clone(), listener));
        self.0.accepting.replace(Some(accepting));
    }

    /// Learns where servers are that have moved.
    pub fn learn(&self, roster: &Roster) {
        let peers = self.0.peers.borrow();
        for member in roster.servers().filter(|member| member.is_alive()) {
            if let (Some(peer), Some(address)) = (peers.get(&member.id), member.server_address()) {
                peer.outbox.set_address(&address.to_string());
            }
        }
    }

    /// Ends all links.
    pub fn close(&self) {
        self.0.accepting.replace(None);
        self.0.accepted.borrow_mut().close();
        let peers = std::mem::take(&mut *self.0.peers.borrow_mut());
        drop(peers);
    }

    /// Links with a server that has dialled us, wherever it says it is: it will want answers.
    fn answer(&self, id: ServerId, address: &str) {
        if address.parse::<SocketAddr>().is_err() {
            return;
        }
        self.peer(id, address, true);
    }

    /// The server dials us no more.
    fn gone(&self, id: ServerId) {
        if !self.0.configured.borrow().contains(&id) {
            let peer = self.0.peers.borrow_mut().remove(&id);
            drop(peer);
        }
    }

    /// Makes sure that a server is dialled.
    fn peer(&self, id: ServerId, address: &str, at_once: bool) {
        if id == self.0.own.id {
            return;
        }
        if let Some(peer) = self.0.peers.borrow().get(&id) {
            peer.outbox.set_address(address);
            if at_once && !peer.outbox.is_open() {
                peer.outbox.hurry();
            }
            return;
        }
        let outbox = Rc::new(Outbox::new(id, address));
        let dialling = task::spawn(dial::run(self.clone(), outbox.clone()));
        self.0.peers.borrow_mut().insert(id, Peer { outbox, _dialling: dialling });
    }
}

impl consensus::Links for Links {
    fn send(&self, to: ServerId, message: PeerMessage) -> Result<(), PeerMessage> {
        match self.0.peers.borrow().get(&to) {
            Some(peer) if peer.outbox.push(&message) => Ok(()),
            _ => Err(message),
        }
    }

    fn servers(&self, configuration: &Configuration) {
        let configured: BTreeSet<ServerId> = configuration.servers.iter().map(|server| server.id).collect();
        let accepted = self.0.accepted.borrow().servers();
        self.0.peers.borrow_mut().retain(|id, _| configured.contains(id) || accepted.contains(id));
        let known = self.0.configured.replace(configured);
        for server in &configuration.servers {
            // The address of a server that we knew may be newer than what the log says.
            if !known.contains(&server.id) || !self.0.peers.borrow().contains_key(&server.id) {
                self.peer(server.id, &server.address, false);
            }
        }
    }
}
