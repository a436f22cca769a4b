//! The reactor of one edge core: accepts, tells connections of their events, wakes parked queries, keeps time.
//! What a connection does with its bytes is in [`super::serve`].

use std::collections::VecDeque;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use muster_protocol::http::Reject;
use rustls::{ServerConfig, ServerConnection};

use super::agents::{TRUNKS, Trunks};
use super::barriers::Barriers;
use super::budget::Budget;
use super::cache::{Cache, Group};
use super::clock::Clock;
use super::connection::{Conn, Line, Phase};
use super::exchange::Peer;
use super::park::{ConnId, Park, Parked};
use super::policy::Policy;
use super::router::Router;
use super::stream::{Inbox, News};
use super::told::{self, Errors};
use super::{Edge, limits};
use crate::metrics::routes::Meters;
use crate::runtime::cores::Shutdown;
use crate::runtime::mesh::Receiver;
use crate::runtime::net::{self, Event, Listener, Readiness, Socket};
use crate::runtime::random::Rng;
use crate::runtime::tally::Tally;
use crate::runtime::{task, time};
use crate::server::rpc::Guest;
use crate::store::Touched;

/// Tokens from here on are listeners.
const LISTENERS: u64 = 1 << 63;

/// A listener and whether it speaks TLS.
pub struct Door {
    /// The listener, of this core alone.
    pub listener: Listener,
    /// For HTTPS.
    pub tls: Option<Arc<ServerConfig>>,
}

/// One edge core's HTTP server.
pub struct Server {
    pub(super) edge: Rc<Edge>,
    pub(super) router: Rc<Router>,
    pub(super) policy: Rc<Policy>,
    cache: Cache,
    /// Answers to agents, which none of the public doors may show.
    relayed: Cache,
    pub(super) trunks: Trunks,
    /// How many of the connections are streams of agents.
    pub(super) streams: usize,
    pub(super) bodies: Budget,
    /// The same for archives, which are far larger and rare.
    pub(super) archives: Budget,
    pub(super) park: Park,
    pub(super) barriers: Barriers,
    pub(super) inbox: Inbox,
    pub(super) rng: Rng,
    pub(super) meters: Meters,
    pub(super) errors: Errors,
    pub(super) readiness: Readiness,
    guests: Option<Receiver<Guest>>,
    doors: Vec<Door>,
    pub(super) conns: Vec<Slot>,
    free: Vec<u32>,
    /// Connections of each client address, on all cores.
    clients: Tally<IpAddr>,
    /// Connections that had more to do than their turn allowed.
    pub(super) again: VecDeque<ConnId>,
    /// Queries whose topic changed, to be answered.
    pub(super) woken: VecDeque<(Rc<Group>, Vec<Parked>)>,
    pub(super) scratch: Vec<u8>,
    pub(super) clock: Clock,
    accept_rest: Option<Instant>,
    /// More clients may wait than one turn took, and no event will say so.
    accept_again: bool,
    /// When the next deadline is looked at, and the task that sees to it: a timer for each wait would cost more
    /// than all the rest of a turn.
    alarm: Option<(Instant, task::Task<()>)>,
    stopping: bool,
}

/// A place of the slab.
pub(super) struct Slot {
    serial: u32,
    pub(super) conn: Option<Conn>,
}

impl Slot {
    /// Whether the connection in it is, or was last, the one of this name.
    pub(super) fn is(&self, id: ConnId) -> bool {
        self.serial == id.serial
    }
}

impl Server {
    /// A server on this core. `clients` counts the connections of each address, and is one for the whole agent.
    pub fn new(edge: Rc<Edge>, router: Router, doors: Vec<Door>, clients: Tally<IpAddr>) -> Server {
        let readiness = Readiness::new();
        let inbox = Inbox::new(readiness.notifier());
        let policy = Rc::new(Policy::new(edge.config()));
        Server {
            edge,
            router: Rc::new(router),
            policy,
            cache: Cache::default(),
            relayed: Cache::default(),
            trunks: Trunks::default(),
            streams: 0,
            guests: None,
            bodies: Budget::new(limits::BODIES_MAX),
            archives: Budget::new(limits::ARCHIVES_IN_MEMORY_MAX),
            park: Park::default(),
            barriers: Barriers::default(),
            inbox,
            rng: Rng::seeded(),
            meters: Meters::default(),
            errors: Errors::default(),
            readiness,
            doors,
            conns: Vec::new(),
            free: Vec::new(),
            clients,
            again: VecDeque::new(),
            woken: VecDeque::new(),
            scratch: vec![0; limits::READ_BUFFER],
            clock: Clock::start(),
            accept_rest: None,
            accept_again: false,
            alarm: None,
            stopping: false,
        }
    }

    /// The same, that serves agents too.
    #[must_use]
    pub fn with_guests(self, guests: Option<Receiver<Guest>>) -> Server {
        Server { guests, ..self }
    }

    /// What is remembered for whoever is at the other end.
    pub(super) fn cache(&mut self, peer: Peer) -> &mut Cache {
        if peer == Peer::Agent { &mut self.relayed } else { &mut self.cache }
    }

    /// Serves until `shutdown` is raised. `changes` are what the control core publishes.
    pub async fn run(mut self, changes: Receiver<Arc<Touched>>, shutdown: Shutdown) {
        let _changes = task::spawn(forward(changes, self.inbox.clone(), News::Changes));
        let guests = self.guests.take();
        let _guests = guests.map(|guests| task::spawn(forward(guests, self.inbox.clone(), News::Guest)));
        let inbox = self.inbox.clone();
        let _stop = task::spawn(async move {
            shutdown.raised().await;
            inbox.post(News::Stop);
        });
        for (number, door) in self.doors.iter().enumerate() {
            if let Err(error) = self.readiness.register(&door.listener, LISTENERS + number as u64) {
                tracing::error!("http: cannot watch {}: {error}; it is not served", door.listener.endpoint());
            }
        }
        let mut events = Vec::new();
        while !self.stopping {
            if self.has_more() {
                self.readiness.ready(&mut events, Some(self.clock.now)).await;
                task::yield_now().await;
            } else {
                self.set_alarm();
                self.readiness.ready(&mut events, None).await;
            }
            self.turn(&events);
        }
    }

    fn turn(&mut self, events: &[Event]) {
        self.clock.turn();
        self.look_at_config();
        for event in events {
            if event.token >= LISTENERS {
                self.accept((event.token - LISTENERS) as usize);
            } else if event.token >= TRUNKS {
                self.on_trunk(event);
            } else {
                self.on_event(event);
            }
        }
        self.read_trunks();
        for _ in 0..self.again.len() {
            let Some(id) = self.again.pop_front() else { break };
            self.pump(id);
        }
        while let Some(news) = self.inbox.take() {
            self.on_news(news);
        }
        self.answer_woken();
        self.answer_due();
        self.barriers.expire(self.clock.now);
        self.answer_released();
        self.begin_barriers();
        if self.clock.now >= self.clock.next_sweep {
            // What was just said must not count as refused.
            self.flush_trunks();
            self.sweep();
        }
        let rested = self.accept_rest.is_some_and(|rest| rest <= self.clock.now);
        if std::mem::take(&mut self.accept_again) || rested {
            self.accept_rest = None;
            (0..self.doors.len()).for_each(|door| self.accept(door));
        }
        self.flush_trunks();
    }

    fn has_more(&self) -> bool {
        self.accept_again
            || self.trunks.has_more()
            || !self.again.is_empty()
            || !self.woken.is_empty()
            || self.barriers.has_released()
    }

    /// Sees to it that a turn comes when the next deadline does. An alarm that rings early does no harm.
    fn set_alarm(&mut self) {
        let Some(next) = self.next_deadline() else { return };
        if self.alarm.as_ref().is_some_and(|(at, task)| *at <= next && !task.is_done()) {
            return;
        }
        let notifier = self.readiness.notifier();
        let ringing = async move {
            time::sleep_until(next).await;
            notifier.notify();
        };
        self.alarm = Some((next, task::spawn(ringing)));
    }

    fn next_deadline(&self) -> Option<Instant> {
        let sweep =
            (self.free.len() < self.conns.len() || self.trunks.open() > 0).then_some(self.clock.next_sweep);
        [self.park.next_deadline(), self.barriers.next_deadline(), sweep, self.accept_rest]
            .into_iter()
            .flatten()
            .min()
    }

    /// Answers show the configuration too: what was built under another is not used again.
    fn look_at_config(&mut self) {
        let config = self.edge.config();
        if !Arc::ptr_eq(&config, &self.policy.config) {
            self.policy = Rc::new(Policy::new(config));
            self.clock.epoch += 1;
            self.cache.clear();
            self.relayed.clear();
        }
    }

    fn accept(&mut self, door: usize) {
        if self.accept_rest.is_some() {
            return;
        }
        for _ in 0..limits::ACCEPTS_PER_TURN {
            match self.doors[door].listener.try_accept() {
                Ok(Some((socket, peer))) => self.welcome(door, socket, peer),
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!("http: cannot accept a connection: {error}; trying again shortly");
                    self.accept_rest = Some(self.clock.now + limits::ACCEPT_REST);
                    return;
                }
            }
        }
        self.accept_again = true;
    }

    fn welcome(&mut self, door: usize, socket: Socket, peer: net::Peer) {
        let peer = peer.ip().map_or(Peer::Unix, |ip| Peer::Ip(ip.to_canonical()));
        if self.open() - self.streams >= limits::CONNECTIONS_MAX {
            return;
        }
        let max = self.policy.config.limits.http_max_conns_per_client;
        let share = match peer {
            Peer::Ip(ip) => self.clients.take(ip, max),
            Peer::Unix | Peer::Agent => None,
        };
        if share.is_none() && peer != Peer::Unix {
            // The client's request is not read: whatever it is, this is the answer.
            let _ = socket.try_write(TOO_MANY_CONNECTIONS);
            return;
        }
        let tls = match self.doors[door].tls.clone().map(ServerConnection::new).transpose() {
            Ok(tls) => tls.map(Box::new),
            Err(error) => {
                tracing::error!("http: cannot begin TLS: {error}");
                return;
            }
        };
        // A refusal leaves a dead client to the idle timeout.
        let _ = socket.set_keepalive(limits::TCP_KEEPALIVE);
        let conn = Conn::new(Line::Socket(socket), peer, share, tls, self.clock.tick);
        let id = self.seat(conn);
        let registered = match self.conns[id.slot as usize].conn.as_ref().map(|conn| &conn.line) {
            Some(Line::Socket(socket)) => self.readiness.register(socket, id.token()),
            _ => Ok(()),
        };
        if let Err(error) = registered {
            tracing::warn!("http: cannot watch a connection: {error}; it is closed");
            return self.close(id);
        }
        // Its first request is often there already.
        self.pump(id);
    }

    /// Gives a connection a place.
    pub(super) fn seat(&mut self, conn: Conn) -> ConnId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.conns.push(Slot { serial: 0, conn: None });
            u32::try_from(self.conns.len() - 1).expect("a process has fewer than 2^32 descriptors")
        });
        let place = &mut self.conns[slot as usize];
        place.serial = (place.serial + 1) & SERIAL_MASK;
        self.streams += usize::from(matches!(conn.line, Line::Stream(_)));
        place.conn = Some(conn);
        ConnId { slot, serial: place.serial }
    }

    /// How many connections there are, streams of agents among them.
    pub(super) fn open(&self) -> usize {
        self.conns.len() - self.free.len()
    }

    /// The connection of this name, unless it is gone.
    pub(super) fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(id.slot as usize).filter(|slot| slot.serial == id.serial)?.conn.as_mut()
    }

    /// Closes a connection and forgets all that waited for it.
    pub(super) fn close(&mut self, id: ConnId) {
        let Some(slot) = self.conns.get_mut(id.slot as usize).filter(|slot| slot.serial == id.serial) else {
            return;
        };
        let Some(conn) = slot.conn.take() else { return };
        told::cancelled(&conn);
        self.free.push(id.slot);
        self.streams -= usize::from(matches!(conn.line, Line::Stream(_)));
        if let Phase::Parked(ticket) = &conn.phase {
            self.park.leave(ticket);
        }
    }

    fn on_event(&mut self, event: &Event) {
        let id = ConnId::from_token(event.token);
        let Some(conn) = self.conn(id) else { return };
        conn.readable |= event.readable;
        conn.hangup |= event.hangup;
        let waits = matches!(
            conn.phase,
            Phase::Parked(_) | Phase::Waiting(_) | Phase::Asking(_) | Phase::Streaming(_) | Phase::Linger
        );
        if event.hangup && waits {
            return self.close(id);
        }
        if event.writable && !conn.is_flushed() {
            return self.on_writable(id);
        }
        if event.readable {
            self.pump(id);
        }
    }

    fn on_news(&mut self, news: News) {
        match news {
            News::Answer(id, response) => self.late_answer(id, &response),
            News::Spooled(id, spooled) => self.spooled(id, spooled),
            News::Stream(id, streaming) => self.late_stream(id, streaming),
            News::Read(id, read) => self.late_read(id, read),
            News::Chunk(id, chunk) => self.stream_chunk(id, &chunk),
            News::End(id) => self.stream_end(id),
            News::Cut(id) => self.stream_cut(id),
            News::Guest(guest) => self.on_guest(guest),
            News::Changes(touched) => {
                self.edge.locks().wake(&touched);
                let state = self.edge.state();
                let mut woken = Vec::new();
                self.park.wake(&touched, &state, &mut woken);
                self.woken.extend(woken);
            }
            News::Barrier(kind, ended) => self.barriers.ended(kind, ended, self.clock.now),
            News::Stop => self.stopping = true,
        }
    }

    /// Ends what takes longer than it may.
    fn sweep(&mut self) {
        self.clock.next_sweep = self.clock.now + limits::SWEEP_INTERVAL;
        self.cache.trim();
        self.relayed.trim();
        self.sweep_trunks(self.policy.config.limits.rpc_handshake_timeout);
        // Zero leaves a handshake to the timeout of idle connections.
        let handshake = match self.policy.config.limits.https_handshake_timeout {
            time if time.is_zero() => limits::IDLE_TIMEOUT,
            time => time,
        };
        for slot in 0..self.conns.len() {
            let Slot { serial, conn: Some(conn) } = &self.conns[slot] else { continue };
            let id = ConnId { slot: slot as u32, serial: *serial };
            let past = |limit| self.clock.is_past(conn.progress, limit);
            let (overdue, answer) = match &conn.phase {
                // Whoever has not shown who they are (with `verify_incoming_https`) holds no connection for long.
                _ if conn.is_handshaking() => (past(handshake), false),
                _ if !conn.is_flushed() => (past(limits::WRITE_STALL_TIMEOUT), false),
                Phase::Head if conn.input.is_empty() => (past(limits::IDLE_TIMEOUT), false),
                Phase::Head => (past(limits::HEAD_TIMEOUT), true),
                Phase::Body(_) => (past(limits::BODY_STALL_TIMEOUT), true),
                Phase::Discard(_) | Phase::Linger => (past(limits::LINGER_TIMEOUT), false),
                Phase::Spooling(_)
                | Phase::Parked(_)
                | Phase::Waiting(_)
                | Phase::Busy(_)
                | Phase::Asking(_)
                | Phase::Streaming(_) => (false, false),
            };
            if overdue && answer {
                self.reject(id, Reject::Timeout);
            } else if overdue {
                self.close(id);
            }
        }
    }
}

/// Bits of a slot's serial that fit into an event token below the listeners' bit and that of agents' connections.
const SERIAL_MASK: u32 = u32::MAX >> 2;

/// As go-connlimit answers for later Consul versions.
const TOO_MANY_CONNECTIONS: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain\r\n\
    Content-Length: 80\r\nConnection: close\r\n\r\n\
    Your IP is issuing too many concurrent connections, please rate limit your calls";

/// Brings what the control core sends to the reactor.
async fn forward<T: Send>(mut sent: Receiver<T>, inbox: Inbox, news: fn(T) -> News) {
    while let Some(message) = sent.recv().await {
        inbox.post(news(message));
    }
}
