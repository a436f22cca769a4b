//! The reactor's part in serving agents: takes their connections, gives each stream a place among its own connections, writes what
//! these have said together.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use muster_protocol::rpc::mux::{Departure, MuxEvent, ResetReason};

use super::connection::{Conn, Line, Phase};
use super::exchange::Peer;
use super::limits;
use super::park::ConnId;
use super::server::Server;
use super::trunk::{StreamEnd, Trunk};
use crate::metrics::{self, Counter};
use crate::runtime::net::Event;
use crate::server::rpc::{Arrival, GUESTS_MAX, Guest};

/// Tokens with this bit, and not the one above it, are agents' connections.
pub(super) const TRUNKS: u64 = 1 << 62;

/// Reads of one connection in one turn of a core before others get their turn.
const READS_PER_TURN: usize = 16;

/// The agents' connections of one core.
#[derive(Default)]
pub(super) struct Trunks {
    slots: Vec<Option<Rc<Trunk>>>,
    free: Vec<u32>,
    /// Those with something to write.
    dirt: Rc<RefCell<Vec<u64>>>,
    /// Those that had more to read than their turn allowed.
    again: Vec<u64>,
    /// This server leaves.
    leaving: bool,
}

impl Trunks {
    fn get(&self, token: u64) -> Option<Rc<Trunk>> {
        self.slots.get((token & !TRUNKS) as usize)?.clone()
    }

    /// How many there are.
    pub fn open(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether some have to be looked at without an event.
    pub fn has_more(&self) -> bool {
        !self.again.is_empty() || !self.dirt.borrow().is_empty()
    }
}

impl Server {
    pub(super) fn on_guest(&mut self, guest: Guest) {
        match guest {
            Guest::Agent(arrival) => self.welcome_agent(arrival),
            Guest::Leaving => {
                self.trunks.leaving = true;
                self.send_away(Departure::Leaving);
            }
            Guest::Leaderless => self.send_away(Departure::Leaderless),
        }
    }

    fn send_away(&self, why: Departure) {
        self.trunks.slots.iter().flatten().for_each(|trunk| trunk.leave(why));
    }

    fn welcome_agent(&mut self, arrival: Arrival) {
        if self.trunks.open() >= GUESTS_MAX {
            tracing::warn!(target: "agent.server", "{GUESTS_MAX} agents ask here; one more is refused");
            return;
        }
        let _ = arrival.socket.set_keepalive(limits::TCP_KEEPALIVE);
        let _ = arrival.socket.set_user_timeout(limits::WRITE_STALL_TIMEOUT);
        let slot = self.trunks.free.pop().unwrap_or_else(|| {
            self.trunks.slots.push(None);
            u32::try_from(self.trunks.slots.len() - 1).expect("a process has fewer than 2^32 descriptors")
        });
        let token = TRUNKS | u64::from(slot);
        let trunk = Rc::new(Trunk::new(arrival, token, self.trunks.dirt.clone(), self.clock.tick));
        let registered = self.readiness.register(&trunk.socket, token);
        self.trunks.slots[slot as usize] = Some(trunk.clone());
        if let Err(error) = registered {
            return self.end_trunk(token, &format!("it cannot be watched: {error}"));
        }
        self.read_trunk(token);
    }

    pub(super) fn on_trunk(&mut self, event: &Event) {
        if event.writable
            && let Some(trunk) = self.trunks.get(event.token)
        {
            self.flush_trunk(event.token, &trunk);
        }
        if event.readable {
            self.read_trunk(event.token);
        }
    }

    /// What was left from the last turn.
    pub(super) fn read_trunks(&mut self) {
        for token in std::mem::take(&mut self.trunks.again) {
            self.read_trunk(token);
        }
    }

    fn read_trunk(&mut self, token: u64) {
        for _ in 0..READS_PER_TURN {
            let Some(trunk) = self.trunks.get(token) else { return };
            let mut events = Vec::new();
            let read = trunk.socket.try_read(&mut self.scratch);
            let received = match read {
                Ok(0) => return self.end_trunk(token, ""),
                Ok(length) => trunk.receive(&self.scratch[..length], self.trunks.leaving, &mut events),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return self.end_trunk(token, &error.to_string()),
            };
            // Whoever only asks and takes nothing makes no progress.
            if !trunk.is_stuck() {
                trunk.progress.set(self.clock.tick);
            }
            self.obey(&trunk, &events);
            if let Err(ended) = received {
                return self.end_trunk(token, &ended.0);
            }
        }
        self.trunks.again.push(token);
    }

    fn obey(&mut self, trunk: &Rc<Trunk>, events: &[MuxEvent]) {
        for event in events {
            match *event {
                MuxEvent::Opened(stream) => self.open_stream(trunk, stream),
                MuxEvent::Input(stream) => {
                    if let Some(id) = trunk.conn(stream)
                        && let Some(conn) = self.conn(id)
                    {
                        conn.readable = true;
                        self.pump(id);
                    }
                }
                MuxEvent::Room(stream) => {
                    if let Some(id) = trunk.conn(stream)
                        && self.conn(id).is_some_and(|conn| !conn.is_flushed())
                    {
                        self.on_writable(id);
                    }
                }
                MuxEvent::Reset(stream, _) => {
                    if let Some(id) = trunk.conn(stream) {
                        self.close(id);
                    }
                }
                MuxEvent::Pong(_) | MuxEvent::GoAway(_) => {}
            }
        }
    }

    fn open_stream(&mut self, trunk: &Rc<Trunk>, stream: u32) {
        if self.streams >= limits::STREAMS_MAX {
            return trunk.refuse(stream, ResetReason::TooBusy);
        }
        metrics::count(Counter::RpcRequest, 1);
        let end = StreamEnd::new(trunk.clone(), stream);
        let conn = Conn::new(Line::Stream(end), Peer::Agent, None, None, self.clock.tick);
        let id = self.seat(conn);
        trunk.seat(stream, id);
    }

    /// The answer on a stream was given: nothing follows on it.
    pub(super) fn end_stream(&mut self, id: ConnId) {
        if let Some(conn) = self.conn(id) {
            conn.finish_writing();
            conn.phase = Phase::Linger;
        }
        self.close(id);
    }

    /// Writes what was said in this turn.
    pub(super) fn flush_trunks(&mut self) {
        // What is written makes room, and with it some have more to say; the socket ends that.
        loop {
            let dirt = std::mem::take(&mut *self.trunks.dirt.borrow_mut());
            if dirt.is_empty() {
                return;
            }
            for token in dirt {
                if let Some(trunk) = self.trunks.get(token) {
                    self.flush_trunk(token, &trunk);
                }
            }
        }
    }

    fn flush_trunk(&mut self, token: u64, trunk: &Rc<Trunk>) {
        let mut events = Vec::new();
        let flushed = trunk.flush(self.clock.tick, &mut events);
        self.obey(trunk, &events);
        if let Err(error) = flushed {
            self.end_trunk(token, &error.to_string());
        }
    }

    /// `why` is empty where the agent just closed it.
    fn end_trunk(&mut self, token: u64, why: &str) {
        let slot = (token & !TRUNKS) as usize;
        let Some(trunk) = self.trunks.slots.get_mut(slot).and_then(Option::take) else { return };
        self.trunks.free.push(slot as u32);
        if !why.is_empty() {
            tracing::info!(target: "agent.server", "{} ended: {why}", trunk.describe());
        }
        self.readiness.deregister(&trunk.socket);
        for id in trunk.conns() {
            self.close(id);
        }
    }

    /// Ends those that take longer than they may.
    pub(super) fn sweep_trunks(&mut self, greeting: Duration) {
        for slot in 0..self.trunks.slots.len() {
            let Some(trunk) = self.trunks.slots[slot].clone() else { continue };
            let past = |limit| self.clock.is_past(trunk.progress.get(), limit);
            let token = TRUNKS | slot as u64;
            if trunk.is_greeting() && past(greeting) {
                self.end_trunk(token, "it did not say who it is in time");
            } else if trunk.is_stuck() && past(limits::WRITE_STALL_TIMEOUT) {
                self.end_trunk(token, "it takes nothing of what it asked for");
            } else if self.trunks.leaving && trunk.is_idle() {
                self.end_trunk(token, "this server leaves");
            }
        }
    }
}
