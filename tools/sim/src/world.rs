//! One run: servers, wires, disks, clients and faults under one virtual time.

use histories::Violation;
use muster_protocol::rpc::PeerMessage;

use crate::clients::{Client, Op, Parked, Watcher};
use crate::finish::Finish;
use crate::locks::{Locks, WAITS_HERE, Wish};
use crate::nemesis::{Mend, Nemesis};
use crate::network::{Fate, Network};
use crate::operator::Operator;
use crate::plan::Plan;
use crate::queue::{MILLI, Queue, Time};
use crate::random::Random;
use crate::server::{Letter, Server};
use crate::tally::Tally;
use crate::trace;
use crate::trace::Trace;
use crate::truth::Truth;

/// Something that is going to happen.
pub enum Event {
    /// A message comes in.
    Deliver { from: usize, to: usize, resets: u64, letter: Box<Letter> },
    /// A server wanted to be woken.
    Wake { server: usize, run: u32 },
    /// A disk ends what it does.
    DiskEnds { server: usize, run: u32 },
    /// Work off the control core ends.
    WorkEnds { server: usize, run: u32, work: u64 },
    /// A client does its next thing.
    ClientActs { client: usize },
    /// A request comes in.
    Arrives { op: usize, server: usize },
    /// An answer comes back.
    Returns { op: usize },
    /// A client waits no longer.
    GivesUp { op: usize },
    /// A watching client asks.
    Asks { watcher: usize },
    /// A parked query's time is up.
    QueryEnds { query: usize },
    /// The next fault.
    Fault,
    /// A fault ends.
    Mended(Mend),
    /// A server starts.
    Start { server: usize },
    /// A leader loses power before it has said much.
    Fall { server: usize, run: u32 },
    /// A pause ends before its time.
    Resume { server: usize },
    /// A pause ends.
    PauseEnds { server: usize },
    /// A server learns that its link to another one broke.
    LinkLost { server: usize, peer: usize },
    /// The first servers are told of each other.
    Bootstrap,
    /// The operator looks what is to do.
    Operate,
    /// A client that locks does its next thing.
    HolderActs { holder: usize, life: u32 },
    /// It renews a session.
    HolderRenews { holder: usize, session: usize },
    /// A request of such a client comes in.
    LockArrives { request: usize, server: usize },
    /// Its answer comes back.
    LockReturns { request: usize },
    /// Its client waits no longer.
    LockGivesUp { request: usize },
    /// Something happens to a node of the catalog.
    HealthActs,
    /// A server looks after its sessions.
    SessionTurn { server: usize, run: u32 },
    /// The end of the faults, then regular looks at whether all is well again.
    Heal,
    /// See `Heal`.
    Look,
}

/// One run.
pub struct World {
    /// What the seed decided.
    pub plan: Plan,
    /// Virtual time.
    pub now: Time,
    /// What is going to happen.
    pub queue: Queue<Event>,
    /// Randomness of the world at large.
    pub random: Random,
    /// All servers there ever were.
    pub servers: Vec<Server>,
    /// The wires between them.
    pub network: Network,
    /// Clients that read and write.
    pub clients: Vec<Client>,
    /// Clients that watch.
    pub watchers: Vec<Watcher>,
    /// All operations; their number is their token.
    pub ops: Vec<Op>,
    /// All blocking queries.
    pub queries: Vec<Parked>,
    /// Clients that lock, in runs that have some.
    pub locks: Option<Locks>,
    /// Faults and operators.
    pub nemesis: Nemesis,
    /// What the operator wants.
    pub operator: Operator,
    /// How the end goes.
    pub finish: Finish,
    /// What must be true.
    pub truth: Truth,
    /// What was done.
    pub tally: Tally,
    /// The record.
    pub trace: Trace,
    /// The first rule that was broken.
    pub broken: Option<Violation>,
    /// Whether faults are over.
    pub healed: bool,
    /// The run is over and all is well.
    pub done: bool,
    /// How many runs of servers there were.
    pub copies: u32,
}

/// Nothing that a run needs takes so long.
const EVENTS_MAX: u64 = 20_000_000;

impl World {
    /// Runs to the end.
    pub fn run(&mut self) {
        let mut events = 0;
        while let Some((time, event)) = self.queue.pop() {
            assert!(time >= self.now, "time does not go back");
            self.now = time;
            self.happen(event);
            events += 1;
            if self.done || self.broken.is_some() {
                return;
            }
            if events > EVENTS_MAX {
                self.fail("a run ends", format!("{events} events and no end"));
            }
        }
    }

    /// Ends the run with a broken rule.
    pub fn fail(&mut self, rule: &'static str, story: String) {
        trace!(self, "BROKEN {rule}: {story}");
        if self.broken.is_none() {
            self.broken = Some(Violation { rule, story });
        }
    }

    /// Ends the run if a rule was broken.
    pub fn require(&mut self, result: Result<(), Violation>) {
        if let Err(Violation { rule, story }) = result {
            self.fail(rule, story);
        }
    }

    fn happen(&mut self, event: Event) {
        let place = place_of(&event);
        if let Some(server) = place
            && let Some(until) = self.paused(server)
        {
            self.note_waiting(&event);
            return self.put_off(server, event, until);
        }
        if let Some(server) = place {
            self.servers[server].end_sleep(self.now);
        }
        match event {
            Event::Deliver { from, to, resets, letter } => self.deliver(from, to, resets, *letter),
            Event::Wake { server, run } => self.wake(server, run),
            Event::DiskEnds { server, run } => self.disk_ends(server, run),
            Event::WorkEnds { server, run, work } => self.work_ends(server, run, work),
            Event::ClientActs { client } => self.client_acts(client),
            Event::Arrives { op, server } => self.arrives(op, server),
            Event::Returns { op } => self.returns(op),
            Event::GivesUp { op } => self.gives_up(op),
            Event::Asks { watcher } => self.watcher_asks(watcher),
            Event::QueryEnds { query } => self.query_ends(query),
            Event::Fault => self.fault(),
            Event::Mended(mend) => self.mended(mend),
            Event::Start { server } => self.start(server),
            Event::Fall { server, run } => self.fall(server, run),
            Event::Resume { server } => self.resume(server),
            Event::PauseEnds { server } => self.pause_ends(server),
            Event::LinkLost { server, peer } => self.link_lost(server, peer),
            Event::Bootstrap => self.bootstrap(),
            Event::Operate => self.operate_on(),
            Event::HolderActs { holder, life } => self.holder_acts(holder, life),
            Event::HolderRenews { holder, session } => self.holder_renews(holder, session),
            Event::LockArrives { request, server } => self.lock_arrives(request, server),
            Event::LockReturns { request } => self.lock_returns(request),
            Event::LockGivesUp { request } => self.lock_gives_up(request),
            Event::HealthActs => self.health_acts(),
            Event::SessionTurn { server, run } => self.session_turn(server, run),
            Event::Heal => self.heal(),
            Event::Look => self.look(),
        }
    }

    /// What comes to a process that stands still waits until it goes on.
    fn put_off(&mut self, server: usize, event: Event, until: Time) {
        let backlog = &mut self.servers[server].backlog;
        backlog.push(event);
        if backlog.len() == 1 {
            self.queue.push(until, Event::PauseEnds { server });
        }
    }

    fn pause_ends(&mut self, server: usize) {
        match self.paused(server) {
            Some(until) => self.queue.push(until, Event::PauseEnds { server }),
            None => self.take_up(server),
        }
    }

    /// What has waited for a process that stood still comes to it now, or to nobody if it was ended.
    pub fn take_up(&mut self, server: usize) {
        for event in std::mem::take(&mut self.servers[server].backlog) {
            let order = self.order_after_pause(&event);
            self.queue.push(self.now + order, event);
        }
    }

    /// A process that goes on after a pause finds much before it at once, and takes its sources in any order; what came over
    /// one connection stays in order.
    fn order_after_pause(&self, event: &Event) -> Time {
        let source = match event {
            Event::Deliver { from, .. } => *from as u64,
            Event::Arrives { op, .. } => 1000 + *op as u64,
            Event::LockArrives { request, .. } => 1 << 30 | *request as u64,
            Event::Wake { .. } => 100,
            Event::SessionTurn { .. } => 300,
            _ => 200,
        };
        Random::new(self.now ^ source << 40).below(2 * MILLI)
    }

    /// Until when a server stands still, if it does.
    fn paused(&self, server: usize) -> Option<Time> {
        let until = self.servers[server].paused_until;
        (until > self.now && self.servers[server].is_up()).then_some(until)
    }

    /// What comes to a process that stands still waits in its sockets.
    fn note_waiting(&mut self, event: &Event) {
        if self.locks.is_none() {
            return;
        }
        match event {
            Event::Deliver { to, letter, .. } => {
                if let PeerMessage::Ask { token, .. } = &letter.message {
                    self.note_waiting_at(*to, *token);
                }
            }
            Event::LockArrives { request, server } => {
                let of = &self.locks().requests[*request];
                if matches!(of.wish, Wish::Renew { .. }) && of.open {
                    self.note_waiting_at(*server, WAITS_HERE | *request as u64);
                }
            }
            _ => {}
        }
    }

    /// Sends a message between servers.
    pub fn send(&mut self, from: usize, to: usize, letter: Letter) {
        self.tally.one("messages");
        let once = letter.once();
        match self.network.send(self.now, from, to, once) {
            Fate::Lost => self.tally.one("fault: message lost"),
            Fate::Reset => {
                self.tally.one("fault: corrupt frame, link reset");
                self.link_was_reset(from, to);
            }
            Fate::Arrives(at) => self.in_flight(at, from, to, letter),
            Fate::Twice(first, second) => {
                self.tally.one("fault: message duplicated");
                self.in_flight(first, from, to, letter.clone());
                self.in_flight(second, from, to, letter);
            }
        }
    }

    fn in_flight(&mut self, at: Time, from: usize, to: usize, letter: Letter) {
        let resets = self.network.resets(from, to);
        self.queue.push(at, Event::Deliver { from, to, resets, letter: Box::new(letter) });
    }
}

/// The server that has to run for an event.
fn place_of(event: &Event) -> Option<usize> {
    match event {
        Event::Deliver { to, .. } => Some(*to),
        Event::Wake { server, .. }
        | Event::WorkEnds { server, .. }
        | Event::Arrives { server, .. }
        | Event::LockArrives { server, .. }
        | Event::SessionTurn { server, .. }
        | Event::DiskEnds { server, .. }
        | Event::LinkLost { server, .. } => Some(*server),
        _ => None,
    }
}
