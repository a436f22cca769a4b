//! One client that locks.

use std::time::Duration;

use muster::store::model::Behavior;

use super::names::{STEADY, node_name};
use super::requests::Reply;
use super::{Session, Wish};
use crate::clock::Clock;
use crate::queue::{MILLI, Time};
use crate::random::Random;
use crate::trace;
use crate::world::{Event, World};

/// A client's process.
pub struct Holder {
    random: Random,
    clock: Clock,
    server: usize,
    session: Option<usize>,
    /// By its own clock, until when it believes in its session.
    lease: Duration,
    /// It stands still until then.
    pub stands_until: Time,
    /// How often it died.
    pub life: u32,
}

impl Holder {
    /// One that has just begun.
    pub fn new(random: Random, clock: Clock, server: usize) -> Holder {
        Holder { random, clock, server, session: None, lease: Duration::ZERO, stands_until: 0, life: 0 }
    }

    /// It is gone, and its successor knows nothing.
    pub fn die(&mut self) {
        self.life += 1;
        self.session = None;
        self.stands_until = 0;
    }
}

impl World {
    /// A holder does its next thing.
    pub fn holder_acts(&mut self, holder: usize, life: u32) {
        let (now, healed, servers) = (self.now, self.healed, self.servers.len() as u64);
        let wander = self.plan.wander;
        let locks = self.locks();
        let plan = locks.plan.clone();
        let this = &mut locks.holders[holder];
        if healed || this.life != life {
            return;
        }
        if this.stands_until > now {
            let until = this.stands_until;
            return self.queue.push(until, Event::HolderActs { holder, life });
        }
        if this.random.chance(wander) {
            this.server = this.random.below(servers) as usize;
        }
        if this.random.chance(plan.dies) {
            return self.holder_dies(holder);
        }
        if this.random.chance(plan.sleeps) {
            let length = this.random.log_within(100 * MILLI, 3 * plan.ttl.1);
            this.stands_until = now + length;
            self.queue.push(now + length, Event::HolderActs { holder, life });
            trace!(self, "holder {holder} stands still for {} ms", length / MILLI);
            return self.tally.one("fault: a holder stands still");
        }
        let server = this.server;
        let Some(session) = this.session else {
            return self.holder_creates(holder, server);
        };
        if this.clock.local(now) >= this.lease {
            // It may be gone, and what it held with it.
            self.forget(holder, session);
            if self.locks().random.chance(0.5) {
                self.mark_destroyed(session);
                self.request(None, server, Wish::Destroy { session });
            }
            return self.acts_again(holder);
        }
        let held = locks.judge.held_by(session);
        let this = &mut locks.holders[holder];
        let by_txn = this.random.chance(plan.by_txn);
        let wish = match held.as_slice() {
            [] => {
                let key = this.random.below(u64::from(plan.keys)) as u32;
                let second = (key + 1) % plan.keys;
                let two = by_txn && second != key && this.random.chance(0.4);
                let keys = if two { vec![key, second] } else { vec![key] };
                let spoilt = by_txn && this.random.chance(0.2);
                Wish::Acquire { session, keys, by_txn, spoilt }
            }
            held => match this.random.below(10) {
                // Works under its locks.
                0..5 => return self.acts_again(holder),
                5 => Wish::Acquire { session, keys: vec![held[0]], by_txn, spoilt: false },
                6 => Wish::Destroy { session },
                _ => Wish::Release { session, key: *this.random.one(held), by_txn },
            },
        };
        match &wish {
            Wish::Release { key, .. } => self.locks().judge.gives_up(now, session, Some(*key)),
            Wish::Destroy { .. } => {
                self.mark_destroyed(session);
                self.forget(holder, session);
            }
            _ => {}
        }
        self.request(Some(holder), server, wish);
    }

    /// A holder renews its session, in time, if it can.
    pub fn holder_renews(&mut self, holder: usize, session: usize) {
        let (now, healed) = (self.now, self.healed);
        let locks = self.locks();
        let (ttl, part) = (locks.judge.sessions[session].ttl, locks.plan.renews_after);
        let this = &mut locks.holders[holder];
        if healed || this.session != Some(session) {
            return;
        }
        if this.stands_until > now {
            let until = this.stands_until;
            return self.queue.push(until, Event::HolderRenews { holder, session });
        }
        let server = this.server;
        let pause = (ttl as f64 * part) as Time;
        self.request(Some(holder), server, Wish::Renew { session });
        self.queue.push(now + pause, Event::HolderRenews { holder, session });
    }

    /// What a holder makes of a reply.
    pub fn holder_hears(&mut self, holder: usize, life: u32, number: usize, reply: Reply) {
        let (now, servers) = (self.now, self.servers.len() as u64);
        let locks = self.locks();
        let (wish, sent) = (locks.requests[number].wish.clone(), locks.requests[number].sent);
        let this = &mut locks.holders[holder];
        if this.life != life {
            return;
        }
        let failed = matches!(reply, Reply::Lost | Reply::Refused);
        if failed && this.random.chance(0.7) {
            this.server = this.random.below(servers) as usize;
        }
        let current = this.session == wish.session();
        match (&wish, reply) {
            (Wish::Create { session, .. }, Reply::Done(_)) => {
                let session = *session;
                // What it believed of an earlier session says nothing of this one.
                (this.session, this.lease) = (Some(session), Duration::ZERO);
                self.extend(holder, session, sent);
                self.holder_renews(holder, session);
            }
            (Wish::Renew { session }, Reply::Done(_)) if current => {
                let session = *session;
                self.tally.one("sessions renewed");
                self.extend(holder, session, sent);
            }
            (Wish::Acquire { session, keys, .. }, Reply::Done(fence))
                if current && this.clock.local(now) < this.lease =>
            {
                let session = *session;
                for key in keys.clone() {
                    self.tally.one("locks taken");
                    let result = self.locks().judge.claims(now, key, session, fence);
                    self.hold(result);
                }
            }
            (Wish::Renew { session }, Reply::Gone | Reply::No)
            | (Wish::Acquire { session, .. }, Reply::Gone)
                if current =>
            {
                self.tally.one("sessions lost");
                self.forget(holder, *session);
            }
            // What was not answered may still take place, later than what is asked next.
            (Wish::Acquire { session, .. } | Wish::Release { session, .. }, Reply::Lost) if current => {
                self.forget(holder, *session);
            }
            _ => {}
        }
        if !matches!(wish, Wish::Renew { .. }) {
            self.acts_again(holder);
        }
    }

    fn holder_creates(&mut self, holder: usize, server: usize) {
        let locks = self.locks();
        let plan = locks.plan.clone();
        let random = &mut locks.holders[holder].random;
        let checks = random.chance(plan.checked);
        let node =
            if checks { node_name(random.below(plan.nodes as u64) as usize) } else { STEADY.to_owned() };
        let ttl = random.within(plan.ttl.0, plan.ttl.1);
        let delay = if random.chance(plan.no_delay) { 0 } else { random.within(1, plan.delay) };
        let behavior = if random.chance(plan.deletes) { Behavior::Delete } else { Behavior::Release };
        let session = locks.judge.sessions.len();
        locks.judge.sessions.push(Session {
            ttl,
            delay,
            behavior,
            bare: !checks,
            lease: 0,
            destroyed: None,
            seen: None,
            gone: None,
            reached: Default::default(),
        });
        self.tally.one("sessions asked for");
        self.request(Some(holder), server, Wish::Create { session, node, checks });
    }

    /// A creation or renewal that was sent then counts.
    fn extend(&mut self, holder: usize, session: usize, sent: Time) {
        let now = self.now;
        let locks = self.locks();
        let of = &locks.judge.sessions[session];
        let length = if of.bare { of.ttl } else { of.ttl.min(of.delay) };
        let this = &mut locks.holders[holder];
        let until = this.clock.local(sent) + Duration::from_nanos(length);
        this.lease = if this.session == Some(session) { this.lease.max(until) } else { until };
        let result = locks.judge.extends(now, session, this.clock.when(until));
        self.hold(result);
    }

    /// A holder does not use a session any more.
    fn forget(&mut self, holder: usize, session: usize) {
        let now = self.now;
        let locks = self.locks();
        locks.judge.gives_up(now, session, None);
        let this = &mut locks.holders[holder];
        if this.session == Some(session) {
            this.session = None;
            this.lease = Duration::ZERO;
        }
    }

    fn mark_destroyed(&mut self, session: usize) {
        let now = self.now;
        self.locks().judge.sessions[session].destroyed.get_or_insert(now);
    }

    fn holder_dies(&mut self, holder: usize) {
        let now = self.now;
        let locks = self.locks();
        if let Some(session) = locks.holders[holder].session {
            locks.judge.gives_up(now, session, None);
        }
        locks.holders[holder].die();
        trace!(self, "holder {holder} dies");
        self.tally.one("fault: a holder dies");
        self.acts_again(holder);
    }

    fn acts_again(&mut self, holder: usize) {
        let now = self.now;
        let locks = self.locks();
        let mean = locks.plan.think;
        let this = &mut locks.holders[holder];
        let life = this.life;
        let pause = this.random.log_within(mean / 4, mean * 2);
        self.queue.push(now + pause, Event::HolderActs { holder, life });
    }
}
