//! Clients that lock: sessions with a time to live, renewed by clocks that are not the servers', locks taken and given up one by one
//! and in transactions, processes that stand still or die, nodes that turn critical or go. What each of them
//! believes to have is held against all others ([`judge`]).
//!
//! The rule that holders follow: a lock is theirs while, by their own monotonic clock, less than the TTL has passed since the last
//! creation or renewal that was answered was *sent*. A session that hangs on checks can go at any time: there it is the lock-delay, if that
//! is less. A session of which something is unknown (a release without an answer) is not used any more.

mod holder;
mod judge;
mod leader;
pub mod names;
mod requests;

use std::collections::BTreeMap;

use muster::store::model::Behavior;

use crate::clock::Clock;
use crate::queue::{MILLI, SECOND, Time};
use crate::random::Random;
use crate::world::{Event, World};

pub use holder::Holder;
pub use judge::{Judge, Session};
pub use leader::{FIRST_LOOK, Leading};
pub use requests::{Request, WAITS_HERE, Wish};

/// What a seed decides about locks.
#[derive(Clone, Debug)]
pub struct LockPlan {
    /// Clients that lock.
    pub holders: usize,
    /// Locks.
    pub keys: u32,
    /// Nodes that come and go.
    pub nodes: usize,
    /// Shortest and longest time to live.
    pub ttl: (Time, Time),
    /// Longest lock-delay; none in a part of all sessions.
    pub delay: Time,
    /// Probability that a session has no lock-delay.
    pub no_delay: f64,
    /// Probability that a session hangs on a node that comes and goes.
    pub checked: f64,
    /// Probability that a session deletes its keys when it goes.
    pub deletes: f64,
    /// Probability that locks are taken or given up by a transaction.
    pub by_txn: f64,
    /// Mean pause of a holder between two things.
    pub think: Time,
    /// Probability that it stands still instead.
    pub sleeps: f64,
    /// Probability that it dies instead.
    pub dies: f64,
    /// Which part of its time to live goes by between two renewals.
    pub renews_after: f64,
    /// Mean time between two changes of nodes; none if nothing changes.
    pub health: Option<Time>,
}

impl LockPlan {
    /// Draws the plan of a seed.
    pub fn draw(random: &mut Random) -> LockPlan {
        let shortest = random.log_within(SECOND, 6 * SECOND);
        LockPlan {
            holders: random.within(2, 7) as usize,
            keys: random.within(1, 3) as u32,
            nodes: random.within(1, 2) as usize,
            ttl: (shortest, shortest * random.within(1, 2)),
            delay: random.log_within(200 * MILLI, 6 * SECOND),
            no_delay: random.unit(),
            checked: if random.chance(0.5) { 0.0 } else { random.unit() },
            deletes: if random.chance(0.5) { 0.0 } else { random.unit() },
            by_txn: if random.chance(0.3) { 0.0 } else { random.unit() },
            think: random.log_within(20 * MILLI, SECOND),
            sleeps: if random.chance(0.4) { 0.0 } else { random.unit() * 0.2 },
            dies: if random.chance(0.4) { 0.0 } else { random.unit() * 0.1 },
            renews_after: 0.15 + random.unit() * 0.6,
            health: random.chance(0.6).then(|| random.log_within(500 * MILLI, 5 * SECOND)),
        }
    }
}

/// All about locks in a run.
pub struct Locks {
    /// What the seed decided.
    pub plan: LockPlan,
    /// The clients.
    pub holders: Vec<Holder>,
    /// All requests; their number is part of their token.
    pub requests: Vec<Request>,
    /// The record.
    pub judge: Judge,
    /// Since when renewals wait in the sockets of a server that stands still.
    pub waiting: BTreeMap<(usize, u64), Time>,
    /// Randomness of all but the clients.
    pub random: Random,
    /// Whether the nodes' first rows were written.
    pub begun: bool,
    /// What the end of the run has shown to be free.
    pub freed: Vec<bool>,
    /// The session by which the end of the run looks whether locks are free.
    pub prober: Option<usize>,
}

/// Tokens of these requests at a server's replica.
pub const REQUEST: u64 = 1 << 40;
/// Tokens of what a leader writes because of sessions.
pub const DUTY: u64 = 1 << 41;

impl Locks {
    /// What a seed makes of it.
    pub fn new(plan: LockPlan, servers: usize, random: &mut Random) -> Locks {
        let holders = (0..plan.holders).map(|number| {
            let clock = Clock::new(random.within(995_000, 1_005_000), random.below(1000 * SECOND));
            Holder::new(random.fork(), clock, number % servers)
        });
        let holders = holders.collect();
        let freed = vec![false; plan.keys as usize];
        Locks {
            holders,
            requests: Vec::new(),
            judge: Judge::default(),
            waiting: BTreeMap::new(),
            random: random.fork(),
            begun: false,
            freed,
            prober: None,
            plan,
        }
    }
}

impl World {
    /// What there is of locks in this run, which is known to have some.
    pub fn locks(&mut self) -> &mut Locks {
        self.locks.as_mut().expect("what speaks of locks comes only from runs with locks")
    }

    /// The clients that lock begin.
    pub fn begin_locks(&mut self) {
        let Some(locks) = &mut self.locks else { return };
        for holder in 0..locks.holders.len() {
            let at = locks.random.within(100 * MILLI, 2 * SECOND);
            self.queue.push(at, Event::HolderActs { holder, life: 0 });
        }
        self.queue.push(100 * MILLI, Event::HealthActs);
    }

    /// A rule about locks was kept, or not.
    pub fn hold(&mut self, result: Result<(), judge::Broken>) {
        if let Err((rule, story)) = result {
            self.fail(rule, story);
        }
    }

    /// Holds a state that a server shows against what is known of locks.
    pub fn check_locks(&mut self, server: usize) {
        let (now, Some(locks)) = (self.now, &mut self.locks) else { return };
        let Some((_, state)) = self.servers[server].published() else { return };
        let result = locks.judge.looks_at(now, locks.plan.keys, state);
        self.hold(result);
    }

    /// Nodes turn critical, well again, go and come back.
    pub fn health_acts(&mut self) {
        if self.healed {
            return;
        }
        let Some(locks) = &mut self.locks else { return };
        let servers = self.servers.len() as u64;
        let mean = locks.plan.health.unwrap_or(2 * SECOND);
        let server = locks.random.below(servers) as usize;
        let wish = if !locks.begun {
            Some(Wish::first_rows(&locks.plan))
        } else if locks.plan.health.is_some() {
            let node = locks.random.below(locks.plan.nodes as u64) as usize;
            let kind = locks.random.below(6);
            Some(Wish::of_node(node, kind))
        } else {
            None
        };
        let pause = locks.random.log_within(mean / 4, mean * 2);
        let again = if locks.begun { pause } else { 200 * MILLI };
        self.queue.push(self.now + again, Event::HealthActs);
        if let Some(wish) = wish {
            self.request(None, server, wish);
        }
    }

    /// Who locked is dead now; their locks must come free.
    pub fn end_holders(&mut self) {
        let now = self.now;
        let Some(locks) = &mut self.locks else { return };
        for holder in &mut locks.holders {
            holder.die();
        }
        for session in 0..locks.judge.sessions.len() {
            locks.judge.gives_up(now, session, None);
        }
    }

    /// By when all locks must be free once all is healed.
    pub fn locks_free_by(&self) -> Time {
        let plan = &self.locks.as_ref().expect("only runs with locks ask").plan;
        // Clocks of servers may be slow, and the leader may have been another one until a moment ago.
        (2 * plan.ttl.1 + plan.delay) / 10 * 11
    }

    /// Whether every lock was free for somebody who comes now. Tries again and again.
    pub fn all_locks_free(&mut self) -> bool {
        let Some(locks) = &self.locks else { return true };
        if locks.freed.iter().all(|free| *free) {
            return true;
        }
        let open =
            locks.requests.iter().any(|request| request.open && request.holder.is_none() && request.probes());
        if open {
            return false;
        }
        let Some(server) = self.any_member() else { return false };
        let locks = self.locks();
        let wish = match locks.prober {
            Some(session) => {
                let key = locks.freed.iter().position(|free| !free).unwrap_or_default() as u32;
                Wish::Acquire { session, keys: vec![key], by_txn: false, spoilt: false }
            }
            None => {
                let session = locks.judge.sessions.len();
                locks.judge.sessions.push(Session {
                    ttl: 0,
                    delay: 0,
                    behavior: Behavior::Release,
                    bare: true,
                    lease: 0,
                    destroyed: None,
                    seen: None,
                    gone: None,
                    reached: Default::default(),
                });
                Wish::Create { session, node: names::STEADY.to_owned(), checks: false }
            }
        };
        self.request(None, server, wish);
        false
    }
}
