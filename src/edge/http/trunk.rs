//! An agent's connection: many streams, each of which the HTTP server serves like a connection of its own.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use muster_protocol::rpc::mux::{Departure, Input, Mux, MuxEvent, ResetReason, Side};
use muster_protocol::rpc::{RPC_VERSION, RpcHello, RpcWelcome};
use muster_protocol::wire::{HELLO_LENGTH_MAX, split_frame};

use super::park::ConnId;
use crate::runtime::net::Socket;
use crate::runtime::tally::Share;
use crate::server::rpc::{Arrival, Host, refusal};

/// The connection. Its streams hold it too.
pub struct Trunk {
    /// The socket.
    pub socket: Socket,
    /// Where it comes from.
    pub ip: Option<IpAddr>,
    host: Arc<Host>,
    _share: Option<Share<IpAddr>>,
    /// Who is at the other end, once it has said so.
    stage: RefCell<Stage>,
    mux: RefCell<Mux>,
    /// The connections of its streams.
    conns: RefCell<BTreeMap<u32, ConnId>>,
    /// It has something to write since it was last written to.
    is_dirty: Cell<bool>,
    /// Where it stands among those that have.
    dirt: Rc<RefCell<Vec<u64>>>,
    token: u64,
    /// When it was made, or has taken something last, in ticks of the server's sweep clock.
    pub progress: Cell<u32>,
}

/// How far the greeting is.
enum Stage {
    /// What has come of the hello.
    Greeting(Vec<u8>),
    /// The agent's node.
    Greeted(String),
}

/// Why a connection ends.
pub struct Ended(pub String);

impl Trunk {
    /// A connection that is not greeted yet; `dirt` is told by `token` when it has something to write.
    pub fn new(arrival: Arrival, token: u64, dirt: Rc<RefCell<Vec<u64>>>, tick: u32) -> Trunk {
        let Arrival { socket, ip, share, host } = arrival;
        Trunk {
            socket,
            ip,
            host,
            _share: share,
            stage: RefCell::new(Stage::Greeting(Vec::new())),
            mux: RefCell::new(Mux::new(Side::Server)),
            conns: RefCell::default(),
            is_dirty: Cell::new(false),
            dirt,
            token,
            progress: Cell::new(tick),
        }
    }

    /// Whether it has not said yet who it is.
    pub fn is_greeting(&self) -> bool {
        matches!(*self.stage.borrow(), Stage::Greeting(_))
    }

    /// Whether the other side takes nothing of what waits for it.
    pub fn is_stuck(&self) -> bool {
        !self.mux.borrow().output().is_empty()
    }

    /// Whether nothing is under way on it.
    pub fn is_idle(&self) -> bool {
        self.mux.borrow().streams() == 0 && !self.is_stuck()
    }

    /// Takes bytes of the agent.
    ///
    /// # Errors
    /// It is no agent of ours, or cannot be believed.
    pub fn receive(&self, bytes: &[u8], leaving: bool, events: &mut Vec<MuxEvent>) -> Result<(), Ended> {
        let ended = |why: muster_protocol::wire::WireError| Ended(why.to_string());
        let mut stage = self.stage.borrow_mut();
        if let Stage::Greeting(heard) = &mut *stage {
            heard.extend_from_slice(bytes);
            let Some((frame, length)) = split_frame(heard, HELLO_LENGTH_MAX).map_err(ended)? else {
                return Ok(());
            };
            let hello = RpcHello::decode(&frame).map_err(ended)?;
            self.greet(&hello, leaving)?;
            let rest = heard.split_off(length);
            *stage = Stage::Greeted(hello.name);
            drop(stage);
            return if rest.is_empty() { Ok(()) } else { self.receive(&rest, leaving, events) };
        }
        drop(stage);
        let received = self.mux.borrow_mut().receive(bytes, events);
        self.soil();
        received.map_err(ended)
    }

    /// Written past the streams: there are none yet.
    fn greet(&self, hello: &RpcHello, leaving: bool) -> Result<(), Ended> {
        let refusal = refusal(hello, &self.host, leaving);
        let welcome = RpcWelcome {
            version: hello.common_version().unwrap_or(RPC_VERSION),
            name: self.host.name.clone(),
            id: self.host.id.clone(),
            refusal: refusal.clone().unwrap_or_default(),
        };
        let mut out = Vec::new();
        welcome.encode(&mut out);
        let written = self.socket.try_write(&out);
        if let Some(why) = refusal {
            return Err(Ended(why));
        }
        match written {
            Ok(length) if length == out.len() => Ok(()),
            // The first bytes on a fresh socket always find room.
            Ok(_) => Err(Ended("it took no greeting".to_owned())),
            Err(error) => Err(Ended(error.to_string())),
        }
    }

    /// Writes what there is, as far as the socket takes it.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn flush(&self, tick: u32, events: &mut Vec<MuxEvent>) -> io::Result<()> {
        self.is_dirty.set(false);
        let mut mux = self.mux.borrow_mut();
        while !mux.output().is_empty() {
            match self.socket.try_write(mux.output()) {
                Ok(length) => {
                    self.progress.set(tick);
                    mux.sent(length, events);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes no new streams.
    pub fn leave(&self, why: Departure) {
        self.mux.borrow_mut().go_away(why);
        self.soil();
    }

    /// Refuses a stream.
    pub fn refuse(&self, stream: u32, reason: ResetReason) {
        self.mux.borrow_mut().close(stream, reason);
        self.soil();
    }

    /// The connection that serves a stream.
    pub fn conn(&self, stream: u32) -> Option<ConnId> {
        self.conns.borrow().get(&stream).copied()
    }

    /// Says which connection serves a stream.
    pub fn seat(&self, stream: u32, conn: ConnId) {
        self.conns.borrow_mut().insert(stream, conn);
    }

    /// All connections of its streams.
    pub fn conns(&self) -> Vec<ConnId> {
        self.conns.borrow().values().copied().collect()
    }

    /// Who it is, for the log.
    pub fn describe(&self) -> String {
        let ip = self.ip.map(|ip| ip.to_string()).unwrap_or_default();
        match &*self.stage.borrow() {
            Stage::Greeting(_) => format!("a connection from {ip} that began as an agent's"),
            Stage::Greeted(name) => format!("the connection of agent {name} ({ip})"),
        }
    }

    /// It has something to write.
    fn soil(&self) {
        if !self.is_dirty.replace(true) {
            self.dirt.borrow_mut().push(self.token);
        }
    }
}

/// A stream, as a connection uses it. Dropping it ends it.
pub struct StreamEnd {
    trunk: Rc<Trunk>,
    id: u32,
}

impl StreamEnd {
    /// A stream that the agent has opened.
    pub fn new(trunk: Rc<Trunk>, id: u32) -> StreamEnd {
        StreamEnd { trunk, id }
    }

    /// Reads what is there; 0 is the end.
    ///
    /// # Errors
    /// "Would block" when nothing is there yet.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut mux = self.trunk.mux.borrow_mut();
        let input = mux.read(self.id, buffer);
        let gives_credit = !mux.output().is_empty();
        drop(mux);
        if gives_credit {
            self.trunk.soil();
        }
        match input {
            Input::Read(length) => Ok(length),
            Input::End => Ok(0),
            Input::Empty => Err(io::ErrorKind::WouldBlock.into()),
            Input::Reset => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }

    /// Writes as much as there is room for.
    ///
    /// # Errors
    /// "Would block" when there is none.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.trunk.mux.borrow_mut().write(self.id, bytes, false);
        self.trunk.soil();
        if taken == 0 && !bytes.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    /// Says that nothing more will be written.
    pub fn end(&self) {
        self.trunk.mux.borrow_mut().end(self.id);
        self.trunk.soil();
    }
}

impl Drop for StreamEnd {
    fn drop(&mut self) {
        self.trunk.conns.borrow_mut().remove(&self.id);
        self.trunk.mux.borrow_mut().close(self.id, ResetReason::Broken);
        self.trunk.soil();
    }
}
