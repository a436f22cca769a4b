//! What a leader does for sessions: the real timers ([`Timers`]), driven step by step as the agent's `server::sessions` drives them.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use muster::consensus::replica::{Input, Outcome};
use muster::consensus::{Consistency, Encoded, ProposeError};
use muster::server::sessions::timers::Timers;
use muster::store::command::{Command, SessionOp};
use muster_protocol::rpc::PeerMessage;

use super::requests::{Reply, question};
use super::{DUTY, names};
use crate::queue::{MILLI, Time};
use crate::server::Letter;
use crate::trace;
use crate::world::{Event, World};

/// How often the leader looks at its clock.
const LOOK: Duration = Duration::from_millis(250);
/// Sessions, or keys, that one write ends.
const ENDED_MAX: usize = 512;
/// Bytes of their keys.
const ENDED_BYTES_MAX: usize = 1 << 20;

/// Clocks in here begin anywhere; only differences count.
static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A server's part in that.
#[derive(Default)]
pub struct Leading {
    /// The term that is measured for; 0: none.
    term: u64,
    timers: Option<Timers>,
    /// What the measuring waits for.
    waits: Option<(u64, Step)>,
    renewals: BTreeMap<u64, Renewal>,
    token: u64,
}

/// A step that is under way.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A barrier, to begin.
    Begin,
    /// A barrier, before anything is expired.
    Confirm,
    /// A write.
    Write,
}

/// A renewal that waits for a barrier.
struct Renewal {
    asker: Asker,
    id: String,
    /// The term in which it was counted; none if there was no session to be seen.
    term: Option<u64>,
}

/// Who asked for more time.
#[derive(Clone, Copy, Debug)]
pub enum Asker {
    /// A client of this server.
    Client(usize),
    /// A client of another server.
    Server(usize, u64),
}

impl Leading {
    fn next_token(&mut self) -> u64 {
        self.token += 1;
        DUTY | self.token
    }

    fn reset(&mut self) {
        (self.term, self.timers, self.waits) = (0, None, None);
    }
}

impl World {
    /// A server looks after its sessions.
    pub fn session_turn(&mut self, server: usize, run: u32) {
        if self.servers[server].run != run || !self.servers[server].is_up() {
            return;
        }
        let clock = self.servers[server].clock;
        let local = clock.local(self.now);
        self.queue.push(clock.when(local + LOOK), Event::SessionTurn { server, run });
        self.measure(server);
    }

    fn measure(&mut self, server: usize) {
        let now = self.instant(server);
        let term = self.servers[server].standing().filter(|s| s.leads()).map_or(0, |s| s.term);
        let process = self.process(server);
        let state = process.published().clone();
        let leading = &mut process.leading;
        if leading.term != term {
            leading.reset();
        }
        if term == 0 || leading.waits.is_some() {
            return;
        }
        leading.term = term;
        let Some(timers) = &mut leading.timers else {
            return self.await_barrier(server, Step::Begin);
        };
        timers.pass(now);
        timers.follow(&state);
        let due = !timers.due(1).is_empty();
        let ended = timers.ended(ENDED_MAX, ENDED_BYTES_MAX);
        if due {
            self.await_barrier(server, Step::Confirm);
        } else if !ended.is_empty() {
            self.tally.add("lock-delays that ended", ended.len() as u64);
            self.await_write(server, SessionOp::EndDelays(ended));
        }
    }

    fn await_barrier(&mut self, server: usize, step: Step) {
        let leading = &mut self.process(server).leading;
        let token = leading.next_token();
        leading.waits = Some((token, step));
        trace!(self, "s{server} duty {}: {step:?} asks for a barrier", token & (DUTY - 1));
        self.step(server, vec![Input::Barrier { token, consistency: Consistency::Consistent }]);
    }

    fn await_write(&mut self, server: usize, op: SessionOp) {
        trace!(self, "s{server} wants {op:?}");
        let leading = &mut self.process(server).leading;
        let token = leading.next_token();
        leading.waits = Some((token, Step::Write));
        let body = Encoded::of(&Command::Session(op)).bytes().clone();
        self.step(server, vec![Input::Propose { token, body }]);
    }

    /// What the leader wrote because of sessions is applied, or not.
    pub fn duty_done(&mut self, server: usize, token: u64, outcome: &Outcome) {
        trace!(self, "s{server} duty {}: {outcome:?}", token & (DUTY - 1));
        let leading = &mut self.process(server).leading;
        if leading.waits.is_none_or(|(waits, _)| waits != token) {
            return;
        }
        leading.waits = None;
        if outcome.is_err() {
            leading.reset();
        }
    }

    /// A barrier is passed, or not.
    pub fn duty_barrier(&mut self, server: usize, token: u64, result: Result<(), ProposeError>) {
        trace!(self, "s{server} duty {}: barrier {result:?}", token & (DUTY - 1));
        let now = self.instant(server);
        let leading = &mut self.process(server).leading;
        if let Some(renewal) = leading.renewals.remove(&token) {
            return self.renewal_confirmed(server, &renewal, result.is_ok());
        }
        let Some((_, step)) = leading.waits.take_if(|(waits, _)| *waits == token) else { return };
        if result.is_err() {
            return leading.reset();
        }
        let term = leading.term;
        if !self.leads_in(server, term) {
            return self.process(server).leading.reset();
        }
        match step {
            Step::Begin => {
                let process = self.process(server);
                process.leading.timers = Some(Timers::begin(now, process.published()));
                self.tally.one("sessions counted anew");
                self.measure(server);
            }
            Step::Confirm => self.expire(server),
            Step::Write => {}
        }
    }

    fn expire(&mut self, server: usize) {
        let Some(timers) = &mut self.process(server).leading.timers else { return };
        let seen = timers.basis();
        let ids = timers.due(ENDED_MAX);
        timers.doom(&ids);
        if ids.is_empty() {
            return;
        }
        self.tally.add("sessions whose time was up", ids.len() as u64);
        let (now, clock) = (self.now, self.servers[server].clock);
        let result = self.locks().judge.expires(now, server, &clock, &ids);
        self.hold(result);
        self.await_write(server, SessionOp::Expire { ids, seen });
    }

    /// A server hears a renewal of one of its clients.
    pub fn place_renewal(&mut self, server: usize, number: usize, id: &str) {
        let standing = self.servers[server].standing();
        if standing.is_some_and(|standing| standing.leads()) {
            return self.renew_at(server, Asker::Client(number), id);
        }
        let leader = standing.and_then(|standing| standing.leader);
        let to = leader.and_then(|leader| self.servers.iter().position(|server| server.id == leader));
        match to.filter(|to| *to != server) {
            Some(to) => {
                let message = PeerMessage::Ask { token: number as u64, question: question(id) };
                self.send(server, to, Letter { message });
            }
            None => self.lock_reply(number, Reply::Refused),
        }
    }

    /// A question, or its answer, comes from another server.
    pub fn hear_peer(&mut self, server: usize, from: usize, message: PeerMessage) {
        match message {
            PeerMessage::Ask { token, question } => {
                let id = String::from_utf8_lossy(&question).into_owned();
                self.note_reached(server, token, &id);
                self.renew_at(server, Asker::Server(from, token), &id);
            }
            PeerMessage::Told { token, answer } => {
                let reply = match answer.as_deref() {
                    Some(b"yes") => Reply::Done(0),
                    Some(b"gone") => Reply::Gone,
                    _ => Reply::Refused,
                };
                self.lock_reply(token as usize, reply);
            }
            _ => {}
        }
    }

    /// A renewal is at the server that is said to lead.
    fn renew_at(&mut self, server: usize, asker: Asker, id: &str) {
        let now = self.instant(server);
        if !self.servers[server].standing().is_some_and(|standing| standing.leads()) {
            return self.tell(server, asker, Reply::Refused);
        }
        let process = self.process(server);
        let session = process.published().session(id).cloned();
        let leading = &mut process.leading;
        let term = match (&session, &mut leading.timers) {
            (None, _) => None,
            (Some(session), Some(timers)) if !timers.is_doomed(&session.id) => {
                timers.renew(session, now);
                Some(leading.term)
            }
            _ => return self.tell(server, asker, Reply::Refused),
        };
        let token = leading.next_token();
        leading.renewals.insert(token, Renewal { asker, id: id.to_owned(), term });
        self.step(server, vec![Input::Barrier { token, consistency: Consistency::Consistent }]);
    }

    /// It is certain that this server led after a renewal came, or not.
    fn renewal_confirmed(&mut self, server: usize, renewal: &Renewal, confirmed: bool) {
        let leads = renewal.term.is_some_and(|term| self.leads_in(server, term));
        let process = self.process(server);
        let lives = process.published().session(&renewal.id).is_some();
        let leading = &process.leading;
        let doomed = leading.timers.as_ref().is_none_or(|timers| timers.is_doomed(&renewal.id));
        let reply = match (confirmed, lives) {
            (false, _) => Reply::Refused,
            (true, false) => Reply::Gone,
            (true, true) if renewal.term == Some(leading.term) && leads && !doomed => Reply::Done(0),
            (true, true) => Reply::Refused,
        };
        self.tell(server, renewal.asker, reply);
    }

    fn tell(&mut self, server: usize, asker: Asker, reply: Reply) {
        match asker {
            Asker::Client(number) => self.lock_reply(number, reply),
            Asker::Server(to, token) => {
                let answer = match reply {
                    Reply::Done(_) => Some(Bytes::from_static(b"yes")),
                    Reply::Gone => Some(Bytes::from_static(b"gone")),
                    _ => None,
                };
                self.send(server, to, Letter { message: PeerMessage::Told { token, answer } });
            }
        }
    }

    /// A server hears a renewal, that may have waited in its sockets. `place` names where it waited.
    pub fn note_reached(&mut self, server: usize, place: u64, id: &str) {
        let (now, clock) = (self.now, self.servers[server].clock);
        let locks = self.locks();
        let at = locks.waiting.remove(&(server, place)).unwrap_or(now);
        if let Some(session) = names::session_number(id) {
            let result = locks.judge.reaches(at, server, &clock, session);
            self.hold(result);
        }
    }

    /// A renewal has come to the sockets of a server that stands still.
    pub fn note_waiting_at(&mut self, server: usize, place: u64) {
        let now = self.now;
        self.locks().waiting.entry((server, place)).or_insert(now);
    }

    fn leads_in(&self, server: usize, term: u64) -> bool {
        self.servers[server].standing().is_some_and(|standing| standing.leads() && standing.term == term)
    }

    fn instant(&self, server: usize) -> Instant {
        *BEGINNING + self.servers[server].clock.local(self.now)
    }
}

/// A server's first look at its sessions comes so soon.
pub const FIRST_LOOK: Time = MILLI;
