//! The way in: connections that other servers dialled, and what they say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::io::{AsyncReadExt, AsyncWriteExt};
use muster_protocol::entry::{EntryKind, ServerId};
use muster_protocol::raft;
use muster_protocol::rpc::{self, LinkHello, LinkWelcome, PREAMBLE, PeerMessage, RPC_PREAMBLE};
use muster_protocol::wire::{Decoder, HELLO_LENGTH_MAX, PAYLOAD_LENGTH_MAX};

use super::{ACCEPTED_MAX, Links, SILENCE_MAX, UNDECIDED_MAX};
use crate::consensus::{Encoded, PeerEvent};
use crate::membership::AdoptError;
use crate::runtime::bell::Bell;
use crate::runtime::net::{Listener, Stream};
use crate::runtime::{cores, task, time};

/// Rest after the kernel could not give a connection out.
const REST: Duration = Duration::from_millis(100);

/// The connections that others dialled.
#[derive(Default)]
pub(super) struct Accepted {
    /// How many have not said yet what they are.
    undecided: usize,
    /// How many are being greeted or served.
    count: usize,
    /// The newest of each server, and how it is told to end.
    newest: BTreeMap<ServerId, Rc<Bell>>,
}

impl Accepted {
    /// Servers that have a connection.
    pub fn servers(&self) -> BTreeSet<ServerId> {
        self.newest.keys().copied().collect()
    }

    /// A server's connection has ended. False when a newer one has its place.
    fn forget(&mut self, id: ServerId, end: &Rc<Bell>) -> bool {
        let newest = self.newest.get(&id).is_some_and(|newest| Rc::ptr_eq(newest, end));
        if newest {
            self.newest.remove(&id);
        }
        newest
    }

    /// Ends all of them.
    pub fn close(&mut self) {
        for (_, end) in std::mem::take(&mut self.newest) {
            end.ring();
        }
    }
}

/// Takes connections until it is dropped.
pub(super) async fn run(links: Links, listener: Listener) {
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(target: "agent.server", "cannot take a link of another server: {error}");
                time::sleep(REST).await;
                continue;
            }
        };
        let Some(place) = Place::take(&links, Kind::Undecided) else {
            tracing::warn!(
                target: "agent.server",
                "{UNDECIDED_MAX} connections have not said yet what they are; one more is closed"
            );
            continue;
        };
        let links = links.clone();
        task::spawn(async move { decide(&links, socket.into(), peer.ip(), place).await }).detach();
    }
}

/// What a place is for.
#[derive(Clone, Copy)]
enum Kind {
    /// One of [`UNDECIDED_MAX`].
    Undecided,
    /// One of [`ACCEPTED_MAX`].
    Link,
}

/// A place for a connection, given back when dropped.
struct Place(Links, Kind);

impl Place {
    fn take(links: &Links, kind: Kind) -> Option<Place> {
        let mut accepted = links.0.accepted.borrow_mut();
        let (count, max) = accepted.places(kind);
        if *count >= max {
            return None;
        }
        *count += 1;
        drop(accepted);
        Some(Place(links.clone(), kind))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.0.accepted.borrow_mut().places(self.1).0 -= 1;
    }
}

impl Accepted {
    fn places(&mut self, kind: Kind) -> (&mut usize, usize) {
        match kind {
            Kind::Undecided => (&mut self.undecided, UNDECIDED_MAX),
            Kind::Link => (&mut self.count, ACCEPTED_MAX),
        }
    }
}

/// Hears from the first bytes what a connection is: another server's, an agent's, or a stranger's.
async fn decide(links: &Links, mut stream: Stream, ip: Option<IpAddr>, place: Place) {
    let mut preamble = [0; PREAMBLE.len()];
    let patience = links.0.own.handshake_timeout;
    let heard = time::timeout(patience, stream.read_exact(&mut preamble)).await;
    drop(place);
    let from = ip.map_or_else(String::new, |ip| ip.to_string());
    match heard {
        // Whoever looks whether the port is open.
        Some(Err(_)) => {}
        None => {
            tracing::warn!(target: "agent.server", "a connection from {from} to the server port did not say who it is in time");
        }
        Some(Ok(())) if preamble == PREAMBLE => match Place::take(links, Kind::Link) {
            Some(_place) => serve(links, stream, &from).await,
            None => {
                tracing::warn!(target: "agent.server", "{ACCEPTED_MAX} links are open; one more is refused");
            }
        },
        Some(Ok(())) if preamble == RPC_PREAMBLE => {
            let agents = links.0.agents.borrow().clone();
            if let Some(agents) = agents {
                agents.receive(stream.into_socket(), ip);
            }
        }
        Some(Ok(())) => tracing::warn!(
            target: "agent.server",
            "a connection from {from} is refused: it speaks another protocol than Muster's agents do with each other; agents of \
             Consul cannot be mixed with those of Muster in one cluster"
        ),
    }
}

async fn serve(links: &Links, mut stream: Stream, ip: &str) {
    let _ = stream.socket().set_keepalive(SILENCE_MAX);
    let mut decoder = Decoder::new(HELLO_LENGTH_MAX);
    let greeted = time::timeout(links.0.own.handshake_timeout, greet(links, &mut stream, &mut decoder));
    let hello = match greeted.await {
        Some(Ok(hello)) => hello,
        Some(Err(why)) => {
            tracing::warn!(target: "agent.server", "a link from {ip} is refused: {why}");
            return;
        }
        None => {
            tracing::warn!(target: "agent.server", "a connection from {ip} to the server port did not say who it is in time");
            return;
        }
    };
    let end = Rc::new(Bell::default());
    let before = links.0.accepted.borrow_mut().newest.insert(hello.id, end.clone());
    if let Some(before) = before {
        before.ring();
    }
    links.answer(hello.id, &hello.address);
    decoder.set_payload_max(PAYLOAD_LENGTH_MAX);
    let why = match cores::either(receive(links, &mut stream, &mut decoder, hello.id), end.heard()).await {
        Ok(why) => why,
        // A newer connection has its place: the server was restarted, or has dialled again.
        Err(()) => return,
    };
    tracing::info!(target: "agent.server", "server {} ({}) at {ip} ended its link: {why}", hello.name, hello.id);
    if links.0.accepted.borrow_mut().forget(hello.id, &end) {
        links.gone(hello.id);
        // Nobody to tell is nobody to care.
        let _ = links.0.events.send(PeerEvent::Lost(hello.id)).await;
    }
}

/// Hears who it is and says who we are. The error says why it was refused, to it too if it can understand that.
async fn greet(links: &Links, stream: &mut Stream, decoder: &mut Decoder) -> Result<LinkHello, String> {
    let hello = loop {
        if let Some(frame) = decoder.next_frame().map_err(|why| why.to_string())? {
            break LinkHello::decode(&frame).map_err(|why| why.to_string())?;
        }
        match stream.read(decoder.room()).await {
            Ok(0) => return Err("it closed the connection".to_owned()),
            Ok(length) => decoder.filled(length),
            Err(error) => return Err(error.to_string()),
        }
    };
    let admitted = admit(links, &hello).await;
    let own = &links.0.own;
    let refusal = admitted.as_ref().err().cloned().unwrap_or_default();
    let welcome = LinkWelcome {
        version: hello.common_version().unwrap_or_default(),
        id: own.id,
        name: own.name.clone(),
        refusal,
    };
    let mut out = Vec::new();
    welcome.encode(&mut out);
    stream.write_all(&out).await.map_err(|error| error.to_string())?;
    match admitted {
        Ok(()) => Ok(hello),
        Err(why) => Err(format!("server {} ({}): {why}", hello.name, hello.id)),
    }
}

/// Whether a server may talk to this one. The text is for both sides' logs.
pub(super) async fn admit(links: &Links, hello: &LinkHello) -> Result<(), String> {
    let own = &links.0.own;
    if hello.common_version().is_none() {
        return Err(format!(
            "server {} speaks version {} of the protocol between servers and server {} does not: upgrade the older one \
             step by step",
            hello.name, hello.version, own.name
        ));
    }
    if hello.id == own.id {
        return Err(format!(
            "servers {} and {} have the same node ID {}: give one of them a new one (remove DATA/node-id, and DATA/raft if it \
             was copied along)",
            hello.name, own.name, own.id
        ));
    }
    if hello.to != own.id {
        return Err(format!("server {} is not here, server {} ({}) is", hello.to, own.name, own.id));
    }
    if hello.datacenter != own.datacenter {
        return Err(format!(
            "server {} is of datacenter {} and server {} of {}: a cluster has one datacenter",
            hello.name, hello.datacenter, own.name, own.datacenter
        ));
    }
    match links.0.cluster.adopt(hello.cluster).await {
        Ok(()) => Ok(()),
        Err(AdoptError::Belongs(cluster)) => Err(format!(
            "server {} is of cluster {} and server {} of cluster {cluster}: they were bootstrapped apart. Keep the one whose \
             data you want, stop the servers of the other, remove their DATA/raft and start them again to join it",
            hello.name, hello.cluster, own.name
        )),
        Err(AdoptError::Disk(error)) => Err(format!("server {} cannot write: {error}", own.name)),
    }
}

/// Takes in messages until the link ends; says why it did.
async fn receive(links: &Links, stream: &mut Stream, decoder: &mut Decoder, from: ServerId) -> String {
    loop {
        loop {
            let message = match decoder.next_frame() {
                Ok(Some(frame)) => rpc::decode(&frame),
                Ok(None) => break,
                Err(why) => return why.to_string(),
            };
            let message = match message {
                Ok(message) => message,
                Err(why) => return why.to_string(),
            };
            if let Err(why) = check(&message) {
                return why;
            }
            if links.0.events.send(PeerEvent::Message { from, message }).await.is_err() {
                return "this server is stopping".to_owned();
            }
        }
        // A peer that never stops must not keep the core to itself.
        task::yield_now().await;
        match stream.read(decoder.room()).await {
            Ok(0) => return "closed".to_owned(),
            Ok(length) => decoder.filled(length),
            Err(error) => return error.to_string(),
        }
    }
}

/// Commands are checked here, where they come in, and nowhere after.
fn check(message: &PeerMessage) -> Result<(), String> {
    let valid = |bytes: &[u8]| Encoded::validate(bytes).map_err(|damaged| damaged.to_string());
    match message {
        PeerMessage::Forward(writes) => writes.iter().try_for_each(|write| valid(&write.body)),
        PeerMessage::Raft(raft::Message::Append(append)) => {
            let commands = append.entries.iter().filter(|entry| entry.kind == EntryKind::Command);
            commands.into_iter().try_for_each(|entry| valid(&entry.body))
        }
        _ => Ok(()),
    }
}
