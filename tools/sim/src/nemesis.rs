//! Faults while a run goes on, and what keeps them within the contract.
//!
//! The contract for damage: at no time have more than a minority of the voters lost what they promised, counted from the
//! damage until the server has been started again and been given back what it lost. The atlas here keeps that count.

use std::collections::BTreeMap;

use muster::consensus::replica::Input;
use muster_protocol::entry::Configuration;

use crate::disk::{self, DiskMood};
use crate::plan::Fault;
use crate::queue::{MILLI, SECOND, Time};
use crate::random::Random;
use crate::trace;
use crate::world::{Event, World};

/// Whoever breaks things.
pub struct Nemesis {
    /// Its own randomness.
    pub random: Random,
    /// Servers with damage that is not healed yet.
    pub hurt: BTreeMap<usize, Hurt>,
    /// When a clock leapt last.
    pub leapt_at: Time,
}

const HOUR: Time = 3600 * SECOND;

/// How far the healing of a damaged server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hurt {
    /// It has not noticed yet.
    Latent,
    /// It was started again, and is whole once it has applied this entry.
    Heals {
        /// Index in the log.
        until: u64,
    },
}

/// What ends a fault.
pub enum Mend {
    /// Directions of links are whole again.
    Links(Vec<(usize, usize)>),
    /// A disk is as before.
    Disk { server: usize, mood: DiskMood },
    /// Clogged links open one after another.
    Unclog { from: usize, to: usize },
}

impl World {
    /// Puts in one fault and plans the next.
    pub fn fault(&mut self) {
        if self.healed {
            return;
        }
        let pause = exponential(&mut self.nemesis.random, self.plan.fault_pause);
        self.queue.push(self.now + pause, Event::Fault);
        let kinds = self.plan.faults.clone();
        if kinds.is_empty() {
            return;
        }
        let kind = *self.nemesis.random.one(&kinds);
        let length = exponential(&mut self.nemesis.random, self.plan.fault_length) + MILLI;
        if let Some(name) = self.inflict(kind, length) {
            trace!(self, "FAULT {kind:?} for {} ms", length / MILLI);
            self.tally.one(name);
            self.tally.one("faults");
        }
    }

    fn inflict(&mut self, kind: Fault, length: Time) -> Option<&'static str> {
        match kind {
            Fault::Split
            | Fault::IsolateLeader
            | Fault::IsolateOne
            | Fault::OneWay
            | Fault::Ring
            | Fault::Bridge => self.partition(kind, length),
            Fault::Swizzle => self.swizzle(length),
            Fault::ResetLink => {
                let (from, to) = self.any_pair()?;
                self.network.reset(from, to);
                self.network.reset(to, from);
                self.link_was_reset(from, to);
                Some("fault: link reset")
            }
            Fault::Crash | Fault::CrashLeader | Fault::Kill => {
                let server = if kind == Fault::CrashLeader { self.leader() } else { self.any_up() }?;
                self.stop(server, kind != Fault::Kill);
                self.queue.push(self.now + length / self.plan.restart_haste, Event::Start { server });
                Some(match kind {
                    Fault::Crash => "fault: power cut",
                    Fault::CrashLeader => "fault: power cut of the leader",
                    _ => "fault: kill",
                })
            }
            Fault::CrashAll => {
                for server in 0..self.servers.len() {
                    if self.servers[server].is_up() {
                        self.stop(server, true);
                        let wait = self.nemesis.random.below(length) + 1;
                        self.queue.push(self.now + wait, Event::Start { server });
                    }
                }
                Some("fault: power cut of all")
            }
            Fault::Pause => {
                let server = if self.nemesis.random.chance(0.5) { self.leader() } else { self.any_up() }?;
                let least = self.plan.election_timeout.as_nanos() as Time;
                let this = &mut self.servers[server];
                if this.paused_until > self.now {
                    return None;
                }
                this.paused_until = self.now + length.max(least / 2) + length;
                Some("fault: pause")
            }
            Fault::Sleep => {
                let server = if self.nemesis.random.chance(0.7) { self.leader() } else { self.any_up() }?;
                let this = &mut self.servers[server];
                if this.paused_until > self.now {
                    return None;
                }
                (this.paused_until, this.asleep_since) = (self.now + length, Some(self.now));
                Some("fault: a machine sleeps")
            }
            Fault::Leap => self.leap(),
            Fault::Stall | Fault::SlowDisk | Fault::FullDisk | Fault::FailOnce | Fault::FailForLong => {
                self.spoil_disk(kind, length)
            }
            Fault::Rot | Fault::Misdirect => self.damage(kind),
            Fault::Replace
            | Fault::Add
            | Fault::Remove
            | Fault::Demote
            | Fault::Transfer
            | Fault::Snapshot => self.operate(kind),
        }
    }

    /// The clock of one server leaps ahead. Of two at once a majority might find that the leader is silent, and no lease
    /// is safe from that: so there is time between them.
    fn leap(&mut self) -> Option<&'static str> {
        let server = if self.nemesis.random.chance(0.7) { self.leader() } else { self.any_up() }?;
        let quiet = 4 * self.plan.election_timeout.as_nanos() as Time;
        if self.servers[server].paused_until > self.now || self.now < self.nemesis.leapt_at + quiet {
            return None;
        }
        self.nemesis.leapt_at = self.now;
        self.servers[server].clock.leap(HOUR);
        self.servers[server].wake_at = Time::MAX;
        self.step(server, vec![Input::Tick]);
        Some("fault: a clock leaps an hour")
    }

    /// Lets a new leader fall soon, if that is the way of this run.
    pub fn doom(&mut self, server: usize) {
        if !self.healed && self.nemesis.random.chance(self.plan.short_reigns) {
            let wait = self.nemesis.random.below(6 * self.plan.network.delay_mean);
            let run = self.servers[server].run;
            self.queue.push(self.now + wait, Event::Fall { server, run });
        }
    }

    /// A leader falls, and now and then all who elected it.
    pub fn fall(&mut self, server: usize, run: u32) {
        if self.healed || self.servers[server].run != run || !self.servers[server].is_up() {
            return;
        }
        self.tally.one("fault: power cut of a new leader");
        self.tally.one("faults");
        let all = self.nemesis.random.chance(0.3);
        for fallen in (0..self.servers.len()).filter(|other| all || *other == server) {
            if self.servers[fallen].is_up() {
                self.stop(fallen, true);
                let length = exponential(&mut self.nemesis.random, self.plan.fault_length) + MILLI;
                self.queue.push(self.now + length, Event::Start { server: fallen });
            }
        }
    }

    fn partition(&mut self, kind: Fault, length: Time) -> Option<&'static str> {
        let size = self.servers.len();
        if size < 2 {
            return None;
        }
        let mut order: Vec<usize> = (0..size).collect();
        self.nemesis.random.shuffle(&mut order);
        let mut cut = Vec::new();
        let mut between = |from: usize, to: usize| cut.extend([(from, to), (to, from)]);
        let name = match kind {
            Fault::IsolateLeader | Fault::IsolateOne => {
                let alone = if kind == Fault::IsolateLeader { self.leader()? } else { order[0] };
                (0..size).filter(|other| *other != alone).for_each(|other| between(alone, other));
                if kind == Fault::IsolateLeader { "fault: leader isolated" } else { "fault: server isolated" }
            }
            Fault::Split => {
                let border = self.nemesis.random.within(1, size as u64 - 1) as usize;
                let (left, right) = order.split_at(border);
                left.iter().for_each(|a| right.iter().for_each(|b| between(*a, *b)));
                "fault: split"
            }
            Fault::Ring => {
                // Each sees its neighbours in a circle: with five servers a majority, each another one.
                for a in 0..size {
                    for b in a + 1..size {
                        let distance = (b - a).min(size - (b - a));
                        if distance > size.div_ceil(4) {
                            between(order[a], order[b]);
                        }
                    }
                }
                "fault: majority ring"
            }
            Fault::Bridge => {
                let (left, right) = order[1..].split_at((size - 1) / 2);
                left.iter().for_each(|a| right.iter().for_each(|b| between(*a, *b)));
                "fault: bridge"
            }
            _ => {
                let chance = self.nemesis.random.unit();
                for from in 0..size {
                    for to in 0..size {
                        if from != to && self.nemesis.random.chance(chance) {
                            cut.push((from, to));
                        }
                    }
                }
                "fault: one-way cuts"
            }
        };
        if cut.is_empty() {
            return None;
        }
        cut.iter().for_each(|(from, to)| self.network.cut(*from, *to));
        self.queue.push(self.now + length, Event::Mended(Mend::Links(cut)));
        Some(name)
    }

    /// Clogs the links of a random part of the servers one by one, and opens them in another order.
    fn swizzle(&mut self, length: Time) -> Option<&'static str> {
        let size = self.servers.len();
        if size < 2 {
            return None;
        }
        for server in 0..size {
            if self.nemesis.random.chance(0.5) {
                continue;
            }
            let until = self.now + length / 2 + self.nemesis.random.below(length);
            for other in (0..size).filter(|other| *other != server) {
                self.network.clog(server, other, until);
                self.network.clog(other, server, until);
                self.queue.push(until, Event::Mended(Mend::Unclog { from: server, to: other }));
                self.queue.push(until, Event::Mended(Mend::Unclog { from: other, to: server }));
            }
        }
        Some("fault: swizzle-clog")
    }

    fn spoil_disk(&mut self, kind: Fault, length: Time) -> Option<&'static str> {
        let server = self.any_up()?;
        let random = &mut self.nemesis.random;
        let mood = &mut self.servers[server].disk.mood;
        let before = DiskMood { stalled_until: 0, full: false, failures: 0, ..mood.clone() };
        let name = match kind {
            Fault::Stall => {
                mood.stalled_until = self.now + disk::stall(random, 4 * length);
                return Some("fault: disk stalls");
            }
            Fault::FailOnce => {
                mood.failures = 1;
                return Some("fault: EIO once");
            }
            Fault::SlowDisk => {
                mood.write_mean = random.log_within(mood.write_mean, (200 * MILLI).max(mood.write_mean));
                mood.other_mean = mood.write_mean;
                "fault: slow disk"
            }
            Fault::FullDisk => {
                mood.full = true;
                "fault: ENOSPC for a while"
            }
            _ => {
                mood.failures = u64::MAX;
                "fault: EIO for long"
            }
        };
        let mood = self.plan_mood(&before);
        self.queue.push(self.now + length, Event::Mended(Mend::Disk { server, mood }));
        Some(name)
    }

    /// A mood as it was, with the speed of the run's plan.
    fn plan_mood(&self, before: &DiskMood) -> DiskMood {
        DiskMood {
            write_mean: self.plan.disk.write_mean,
            other_mean: self.plan.disk.other_mean,
            ..before.clone()
        }
    }

    /// Damages what lies on a disk, if the contract allows one more.
    fn damage(&mut self, kind: Fault) -> Option<&'static str> {
        let configuration = self.agreed_configuration()?;
        let voters = configuration.voters().count();
        let server = self.nemesis.random.below(self.servers.len() as u64) as usize;
        let hurt = self.nemesis.hurt.len() + usize::from(!self.nemesis.hurt.contains_key(&server));
        let is_member = configuration.server(self.servers[server].id).is_some();
        if !is_member || self.servers[server].gone || hurt > (voters.max(1) - 1) / 2 || self.changes_pending()
        {
            return None;
        }
        let disk = &mut self.servers[server].disk;
        let place = if kind == Fault::Rot { disk.rot() } else { disk.misdirect() }?;
        trace!(self, "s{server} is damaged: {place}");
        self.nemesis.hurt.insert(server, Hurt::Latent);
        if self.servers[server].is_up() && self.nemesis.random.chance(0.6) {
            let power = self.nemesis.random.chance(0.5);
            self.stop(server, power);
            let wait = self.nemesis.random.within(10 * MILLI, SECOND);
            self.queue.push(self.now + wait, Event::Start { server });
        }
        Some(if kind == Fault::Rot { "fault: bit rot" } else { "fault: misdirected write" })
    }

    /// Looks whether damaged servers are whole again.
    pub fn watch_healing(&mut self, server: usize) {
        let Some(Hurt::Heals { until }) = self.nemesis.hurt.get(&server).copied() else { return };
        if self.servers[server].is_whole(until) {
            trace!(self, "s{server} is whole again");
            self.tally.one("damage healed from peers");
            self.nemesis.hurt.remove(&server);
        }
    }

    /// A fault ends.
    pub fn mended(&mut self, mend: Mend) {
        match mend {
            Mend::Links(links) => links.iter().for_each(|(from, to)| self.network.mend(*from, *to)),
            Mend::Disk { server, mood } => {
                let disk = &mut self.servers[server].disk;
                disk.mood = DiskMood { stalled_until: disk.mood.stalled_until, ..mood };
            }
            Mend::Unclog { from, to } => self.network.clog(from, to, 0),
        }
    }

    /// The configuration, if all servers that run know the same one.
    pub fn agreed_configuration(&self) -> Option<Configuration> {
        let mut known: Option<(u64, Configuration)> = None;
        for server in self.servers.iter().filter(|server| !server.gone) {
            let Some(standing) = server.standing() else { continue };
            let this = (standing.configuration_index, (*standing.configuration).clone());
            if !standing.configuration_committed || known.get_or_insert_with(|| this.clone()).0 != this.0 {
                return None;
            }
        }
        known.map(|(_, configuration)| configuration)
    }

    /// The server that leads in the newest term.
    pub fn leader(&self) -> Option<usize> {
        let leads =
            |server: &usize| self.servers[*server].standing().is_some_and(|standing| standing.leads());
        (0..self.servers.len())
            .filter(leads)
            .max_by_key(|server| self.servers[*server].standing().map(|standing| standing.term))
    }

    /// A random server that runs.
    pub fn any_up(&mut self) -> Option<usize> {
        let up: Vec<usize> = (0..self.servers.len()).filter(|server| self.servers[*server].is_up()).collect();
        (!up.is_empty()).then(|| *self.nemesis.random.one(&up))
    }

    fn any_pair(&mut self) -> Option<(usize, usize)> {
        let size = self.servers.len() as u64;
        if size < 2 {
            return None;
        }
        let from = self.nemesis.random.below(size);
        let to = (from + self.nemesis.random.within(1, size - 1)) % size;
        Some((from as usize, to as usize))
    }
}

/// A time drawn around a mean.
pub fn exponential(random: &mut Random, mean: Time) -> Time {
    (mean as f64 * -(1.0 - random.unit()).ln()) as Time
}
