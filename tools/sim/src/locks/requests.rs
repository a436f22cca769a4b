//! What clients of locks ask of servers, on its way there and back.

use bytes::Bytes;
use muster::consensus::replica::{Done, Input, Outcome};
use muster::consensus::{Encoded, ProposeError};
use muster::store::command::{
    Applied, CatalogOp, Command, Deregister, KvOp, Look, Register, SessionOp, TxnOp,
};
use muster::store::model::{Check, KvEntry, Node, Session as Row, Status};

use super::names::{CHECK, STEADY, lock_name, node_name, session_name};
use super::{LockPlan, REQUEST};
use crate::clients::bytes_of;
use crate::queue::{MICRO, MILLI, Time};
use crate::trace;
use crate::world::{Event, World};

/// Where the renewals of a server's own clients wait, apart from those that other servers send on.
pub const WAITS_HERE: u64 = 1 << 40;

/// What is asked for.
#[derive(Clone, Debug)]
pub enum Wish {
    /// A session.
    Create { session: usize, node: String, checks: bool },
    /// More time for a session.
    Renew { session: usize },
    /// The end of a session.
    Destroy { session: usize },
    /// Locks, all or none. `spoilt`: together with something that fails.
    Acquire { session: usize, keys: Vec<u32>, by_txn: bool, spoilt: bool },
    /// To be rid of a lock.
    Release { session: usize, key: u32, by_txn: bool },
    /// Rows of the catalog.
    Catalog(Vec<CatalogOp>),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It took place, at this index of the state.
    Done(u64),
    /// It did not, and changed nothing.
    No,
    /// There is no such session.
    Gone,
    /// It was not taken.
    Refused,
    /// Nobody knows.
    Lost,
}

/// A request.
pub struct Request {
    /// Whose; nobody's in particular.
    pub holder: Option<usize>,
    /// Of which of its lives.
    pub life: u32,
    /// What.
    pub wish: Wish,
    /// When it was sent.
    pub sent: Time,
    /// Whether somebody waits for it.
    pub open: bool,
    /// The server that took it in, and its run.
    pub server: Option<(usize, u32)>,
    /// On its way back.
    pub reply: Option<Reply>,
}

impl Request {
    /// Whether the end of the run sent it.
    pub fn probes(&self) -> bool {
        matches!(self.wish, Wish::Create { .. } | Wish::Acquire { .. })
    }
}

impl Wish {
    /// The nodes as they are at first.
    pub fn first_rows(plan: &LockPlan) -> Wish {
        let nodes = (0..plan.nodes).map(|node| register(&node_name(node), Status::Passing));
        Wish::Catalog(nodes.chain([register(STEADY, Status::Passing)]).collect())
    }

    /// Something happens to a node.
    pub fn of_node(node: usize, kind: u64) -> Wish {
        let name = node_name(node);
        Wish::Catalog(vec![match kind {
            0 => CatalogOp::Deregister(Deregister { node: name, ..Deregister::default() }),
            1 => CatalogOp::Deregister(Deregister {
                node: name,
                check_id: CHECK.to_owned(),
                ..Deregister::default()
            }),
            2 => register(&name, Status::Critical),
            _ => register(&name, Status::Passing),
        }])
    }

    /// The session that it is about.
    pub fn session(&self) -> Option<usize> {
        match self {
            Wish::Create { session, .. }
            | Wish::Renew { session }
            | Wish::Destroy { session }
            | Wish::Acquire { session, .. }
            | Wish::Release { session, .. } => Some(*session),
            Wish::Catalog(_) => None,
        }
    }
}

fn register(name: &str, status: Status) -> CatalogOp {
    let node = Node { node: name.to_owned(), address: "10.0.0.1".to_owned(), ..Node::default() };
    let check = Check {
        node: name.to_owned(),
        check_id: CHECK.to_owned(),
        name: CHECK.to_owned(),
        status,
        ..Check::default()
    };
    CatalogOp::Register(Box::new(Register { node, checks: vec![check], ..Register::default() }))
}

impl World {
    /// Sends a request.
    pub fn request(&mut self, holder: Option<usize>, server: usize, wish: Wish) -> usize {
        let now = self.now;
        let locks = self.locks();
        let number = locks.requests.len();
        let life = holder.map_or(0, |holder| locks.holders[holder].life);
        locks.requests.push(Request {
            holder,
            life,
            wish: wish.clone(),
            sent: now,
            open: true,
            server: None,
            reply: None,
        });
        trace!(self, "holder {holder:?} asks s{server} @{number} {wish:?}");
        self.tally.one("lock requests");
        let delay = self.random.within(50 * MICRO, 3 * MILLI);
        self.queue.push(self.now + delay, Event::LockArrives { request: number, server });
        self.queue.push(self.now + self.plan.patience, Event::LockGivesUp { request: number });
        number
    }

    /// A request comes in at a server.
    pub fn lock_arrives(&mut self, number: usize, server: usize) {
        if !self.locks().requests[number].open {
            return;
        }
        if !self.servers[server].is_up() {
            return self.lock_reply(number, Reply::Refused);
        }
        let run = self.servers[server].run;
        let request = &mut self.locks().requests[number];
        request.server = Some((server, run));
        let wish = request.wish.clone();
        self.trace.mix(self.now, [5, number as u64, server as u64]);
        if let Wish::Renew { session } = wish {
            let id = session_name(session);
            self.note_reached(server, WAITS_HERE | number as u64, &id);
            return self.place_renewal(server, number, &id);
        }
        let command = self.command_of_wish(&wish, number);
        let body = Encoded::of(&command).bytes().clone();
        self.step(server, vec![Input::Propose { token: REQUEST | number as u64, body }]);
    }

    fn command_of_wish(&mut self, wish: &Wish, number: usize) -> Command {
        let entry = |session: usize, key: u32| KvEntry {
            key: lock_name(key),
            value: bytes_of(number as u64 + 1, 8),
            session: session_name(session),
            ..KvEntry::default()
        };
        match wish {
            Wish::Create { session, node, checks } => {
                let of = &self.locks().judge.sessions[*session];
                Command::Session(SessionOp::Create(Box::new(Row {
                    id: session_name(*session),
                    node: node.clone(),
                    lock_delay_ns: of.delay as i64,
                    behavior: of.behavior,
                    ttl_ns: of.ttl as i64,
                    node_checks: checks.then(|| vec![CHECK.to_owned()]),
                    ..Row::default()
                })))
            }
            Wish::Destroy { session } => Command::Session(SessionOp::Destroy { id: session_name(*session) }),
            Wish::Acquire { session, keys, by_txn: false, .. } => {
                Command::Kv(KvOp::Acquire(entry(*session, keys[0])))
            }
            Wish::Acquire { session, keys, spoilt, .. } => {
                let mut ops: Vec<TxnOp> =
                    keys.iter().map(|key| TxnOp::Kv(KvOp::Acquire(entry(*session, *key)))).collect();
                if *spoilt {
                    ops.push(TxnOp::Look(Look::Key(b"l/none".to_vec())));
                }
                Command::Txn(ops)
            }
            Wish::Release { session, key, by_txn: false } => {
                Command::Kv(KvOp::Release(entry(*session, *key)))
            }
            Wish::Release { session, key, .. } => {
                Command::Txn(vec![TxnOp::Kv(KvOp::Release(entry(*session, *key)))])
            }
            Wish::Catalog(ops) => Command::CatalogBatch(ops.clone()),
            Wish::Renew { .. } => unreachable!("a renewal is no write"),
        }
    }

    /// A write was applied, or not.
    pub fn lock_written(&mut self, token: u64, outcome: Outcome) {
        let number = (token & (REQUEST - 1)) as usize;
        let reply = match outcome {
            Ok(Done { index, applied: Applied::Done | Applied::Condition(true) | Applied::Txn(Ok(_)) }) => {
                Reply::Done(index)
            }
            Ok(Done { applied: Applied::Condition(false), .. }) => Reply::No,
            Ok(Done { applied: Applied::Refused(why), .. }) => {
                if why.contains("invalid session") {
                    Reply::Gone
                } else {
                    Reply::No
                }
            }
            Ok(Done { applied: Applied::Txn(Err(failures)), .. }) => {
                let gone = failures.iter().any(|failure| failure.what.contains("invalid session"));
                if gone { Reply::Gone } else { Reply::No }
            }
            Err(ProposeError::LeadershipLost | ProposeError::Stopping) => Reply::Lost,
            Err(_) => Reply::Refused,
        };
        self.lock_reply(number, reply);
    }

    /// A reply is on its way back.
    pub fn lock_reply(&mut self, number: usize, reply: Reply) {
        let request = &mut self.locks().requests[number];
        if !request.open || request.reply.is_some() {
            return;
        }
        request.reply = Some(reply);
        if self.random.chance(self.plan.answer_loss) && !self.healed {
            self.tally.one("fault: answer lost");
            return;
        }
        let delay = self.random.within(50 * MICRO, 3 * MILLI);
        self.queue.push(self.now + delay, Event::LockReturns { request: number });
    }

    /// A reply is there.
    pub fn lock_returns(&mut self, number: usize) {
        let request = &self.locks().requests[number];
        let (holder, life) = (request.holder, request.life);
        if !request.open {
            return;
        }
        let reply = request.reply.clone().expect("a reply that returns was given");
        if let Some(holder) = holder {
            let until = self.locks().holders[holder].stands_until;
            if until > self.now {
                return self.queue.push(until, Event::LockReturns { request: number });
            }
        }
        self.locks().requests[number].open = false;
        trace!(self, "@{number} answered {reply:?}");
        self.tally.one(match reply {
            Reply::Done(_) => "lock requests: done",
            Reply::No => "lock requests: not now",
            Reply::Gone => "lock requests: no such session",
            Reply::Refused => "lock requests: refused",
            Reply::Lost => "lock requests: outcome unknown",
        });
        if let (Reply::No | Reply::Gone, Wish::Acquire { .. } | Wish::Release { .. }) =
            (&reply, &self.locks().requests[number].wish)
        {
            let result = self.locks().judge.fails(number as u64);
            self.hold(result);
        }
        match holder {
            Some(holder) => self.holder_hears(holder, life, number, reply),
            None => self.nobody_hears(number, reply),
        }
    }

    /// A client waits no longer.
    pub fn lock_gives_up(&mut self, number: usize) {
        let request = &mut self.locks().requests[number];
        if !request.open {
            return;
        }
        request.open = false;
        let (holder, life) = (request.holder, request.life);
        trace!(self, "@{number} given up");
        self.tally.one("lock requests: none in time");
        if let Some(holder) = holder {
            self.holder_hears(holder, life, number, Reply::Lost);
        }
    }

    /// Requests that wait at a server's present run are cut off.
    pub fn cut_lock_requests(&mut self, server: usize) {
        let Some(locks) = &self.locks else { return };
        let here = Some((server, self.servers[server].run));
        let cut = |request: &&usize| {
            let request = &locks.requests[**request];
            request.open && request.reply.is_none() && request.server == here
        };
        let all: Vec<usize> = (0..locks.requests.len()).collect();
        let cut: Vec<usize> = all.iter().filter(cut).copied().collect();
        for number in cut {
            self.lock_reply(number, Reply::Lost);
        }
    }

    fn nobody_hears(&mut self, number: usize, reply: Reply) {
        let healed = self.healed;
        let locks = self.locks();
        let done = matches!(reply, Reply::Done(_));
        match &locks.requests[number].wish {
            Wish::Catalog(_) => locks.begun |= done,
            Wish::Create { session, .. } if healed && done => locks.prober = Some(*session),
            Wish::Acquire { keys, .. } if healed && done => locks.freed[keys[0] as usize] = true,
            _ => {}
        }
    }
}

/// A question for the leader: more time for a session.
pub fn question(id: &str) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}
