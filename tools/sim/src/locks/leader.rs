//! What a leader does for sessions: the real timers ([`muster::server::sessions::timers`]), driven as the agent drives them.

use std::collections::BTreeMap;

use bytes::Bytes;
use muster::consensus::replica::{Input, Outcome};
use muster::consensus::{Consistency, Encoded, ProposeError};
use muster::server::sessions::timers::{Renewal, TURN, Timers};
use muster::store::command::{Command, SessionOp};
use muster_protocol::rpc::PeerMessage;

use super::requests::{Reply, question};
use super::{DUTY, names};
use crate::queue::Time;
use crate::server::Letter;
use crate::trace;
use crate::world::{Event, World};

/// A server's part in that.
#[derive(Default)]
pub struct Leading {
    timers: Timers,
    /// The term that the timers count for.
    term: u64,
    /// What waits for a barrier.
    barriers: BTreeMap<u64, Behind>,
    writes: BTreeMap<u64, SessionOp>,
    token: u64,
}

/// What waits for a barrier.
enum Behind {
    /// The timers are to begin, if this server leads in this term then.
    Begin(u64),
    /// A renewal is tried again, if this server leads then.
    Renewal { asker: Asker, id: String },
}

/// Who asked for more time.
#[derive(Clone, Copy, Debug)]
pub enum Asker {
    /// A client of this server.
    Client(usize),
    /// A client of another server.
    Server(usize, u64),
}

impl World {
    /// A server looks after its sessions.
    pub fn session_turn(&mut self, server: usize, run: u32) {
        if self.servers[server].run != run || !self.servers[server].is_up() {
            return;
        }
        let clock = self.servers[server].clock;
        let local = clock.local(self.now);
        self.queue.push(clock.when(local + TURN), Event::SessionTurn { server, run });
        let (leads, term) = self.servers[server].standing().map_or((false, 0), |s| (s.leads(), s.term));
        let process = self.process(server);
        let state = process.published().clone();
        let leading = &mut process.leading;
        if !leads {
            leading.timers.end();
            leading.term = 0;
            return;
        }
        if leading.term != term {
            leading.timers.end();
            leading.token += 1;
            let token = leading.token;
            leading.barriers.insert(token, Behind::Begin(term));
            leading.term = term;
            let input = Input::Barrier { token: DUTY | token, consistency: Consistency::Consistent };
            return self.step(server, vec![input]);
        }
        let ops = leading.timers.turn(local, &state);
        let mut inputs = Vec::new();
        for op in ops {
            self.note_duty(server, &op);
            let leading = &mut self.process(server).leading;
            leading.token += 1;
            let token = leading.token;
            leading.writes.insert(token, op.clone());
            let body = Encoded::of(&Command::Session(op)).bytes().clone();
            inputs.push(Input::Propose { token: DUTY | token, body });
        }
        if !inputs.is_empty() {
            self.step(server, inputs);
        }
    }

    fn note_duty(&mut self, server: usize, op: &SessionOp) {
        trace!(self, "s{server} wants {op:?}");
        match op {
            SessionOp::Expire { ids, .. } => {
                self.tally.add("sessions whose time was up", ids.len() as u64);
                let (now, clock) = (self.now, self.servers[server].clock);
                let result = self.locks().judge.expires(now, server, &clock, ids);
                self.hold(result);
            }
            SessionOp::EndDelays(ends) => self.tally.add("lock-delays that ended", ends.len() as u64),
            SessionOp::Create(_) | SessionOp::Destroy { .. } => {}
        }
    }

    /// What the leader wrote because of sessions is applied, or not.
    pub fn duty_done(&mut self, server: usize, token: u64, outcome: &Outcome) {
        trace!(self, "s{server} duty {}: {outcome:?}", token & (DUTY - 1));
        let local = self.servers[server].clock.local(self.now);
        let process = self.process(server);
        let state = process.published().clone();
        let leading = &mut process.leading;
        if let Some(op) = leading.writes.remove(&(token & (DUTY - 1))) {
            leading.timers.settled(local, &op, &state);
        }
    }

    /// A barrier that a duty waited for is passed, or not.
    pub fn duty_barrier(&mut self, server: usize, token: u64, result: Result<(), ProposeError>) {
        let local = self.servers[server].clock.local(self.now);
        let now_leads = self.servers[server].standing().filter(|s| s.leads()).map(|s| s.term);
        let process = self.process(server);
        let state = process.published().clone();
        let leading = &mut process.leading;
        match leading.barriers.remove(&(token & (DUTY - 1))) {
            Some(Behind::Begin(term)) => {
                let counts = result.is_ok() && now_leads == Some(term) && leading.term == term;
                if counts {
                    leading.timers.begin(local, &state);
                    self.tally.one("sessions counted anew");
                } else if leading.term == term {
                    leading.term = 0;
                }
            }
            Some(Behind::Renewal { asker, id }) => {
                let sure = result.is_ok() && now_leads.is_some();
                let reply = match self.try_renewal(server, asker, &id, sure) {
                    Renewal::Granted => Reply::Done(0),
                    Renewal::Gone => Reply::Gone,
                    Renewal::Unsure | Renewal::Ending => Reply::Refused,
                };
                self.tell(server, asker, reply);
            }
            None => {}
        }
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
                self.note_reached_id(server, &id);
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
        if !self.servers[server].standing().is_some_and(|standing| standing.leads()) {
            return self.tell(server, asker, Reply::Refused);
        }
        let sure = self.servers[server].leads_now(self.now);
        match self.try_renewal(server, asker, id, sure) {
            Renewal::Unsure => {
                let leading = &mut self.process(server).leading;
                leading.token += 1;
                let token = leading.token;
                leading.barriers.insert(token, Behind::Renewal { asker, id: id.to_owned() });
                let input = Input::Barrier { token: DUTY | token, consistency: Consistency::Default };
                self.step(server, vec![input]);
            }
            Renewal::Granted => self.tell(server, asker, Reply::Done(0)),
            Renewal::Gone => self.tell(server, asker, Reply::Gone),
            Renewal::Ending => self.tell(server, asker, Reply::Refused),
        }
    }

    fn try_renewal(&mut self, server: usize, asker: Asker, id: &str, sure: bool) -> Renewal {
        let local = self.servers[server].clock.local(self.now);
        let process = self.process(server);
        let state = process.published().clone();
        let found = process.leading.timers.renew(local, id, &state, sure);
        trace!(self, "s{server} renews {id} for {asker:?}: {found:?}");
        found
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

    /// A renewal has come to a server's sockets, whether or not it can hear it now.
    pub fn note_reached(&mut self, server: usize, session: usize) {
        let now = self.now;
        let reached = &mut self.locks().judge.sessions[session].reached;
        let at: &mut Time = reached.entry(server).or_default();
        *at = now.max(*at);
    }

    /// The same by the session's ID.
    pub fn note_reached_id(&mut self, server: usize, id: &str) {
        if let Some(session) = names::session_number(id) {
            self.note_reached(server, session);
        }
    }
}

impl Leading {
    /// Before anything was.
    pub fn new() -> Leading {
        Leading { timers: Timers::new(), ..Leading::default() }
    }
}
