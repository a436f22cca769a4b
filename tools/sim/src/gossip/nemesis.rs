//! What is done to a pool: faults, churn, operators' commands and events, drawn as the run goes on.

use std::collections::BTreeSet;

use bytes::Bytes;
use muster_protocol::gossip::queries::{self, QueryId};
use muster_protocol::gossip::{Input, Tags, events};

use super::plan::{Act, Faults};
use super::wires::Cut;
use super::world::{Event, Truth, World, name};
use crate::queue::{MILLI, SECOND, Time};
use crate::trace;

/// What was planned.
#[derive(Clone, Debug)]
pub enum Deed {
    /// The next act is drawn.
    Act,
    /// Another third of the members begins to stand still.
    Turn,
    /// One of that third stands still again.
    Nap { n: u32, until: Time },
    /// A member starts and joins.
    Start(u32),
    /// A join has reached nobody: it is tried again.
    Join { n: u32, life: u32 },
    /// A cut is healed.
    Heal(u64),
    /// A member answers a query.
    Respond { n: u32, life: u32, query: QueryId },
    /// What is overdue is judged, once a second.
    Look,
}

/// Of all members so many may be gone at a time.
const GONE_MAX: f64 = 0.34;

impl World {
    /// The faults begin.
    pub fn begin_faults(&mut self) {
        self.wires.quality = self.plan.quality;
        self.plan_deed(SECOND, Deed::Act);
        if self.plan.faults == Faults::Observers {
            self.plan_deed(0, Deed::Turn);
        }
    }

    /// All is healed, and who stands still goes on. Who is gone stays so, or is on its way back already.
    pub fn end_faults(&mut self) {
        self.judge.calm_since = Some(self.now);
        self.wires.quality = super::wires::Quality::quiet();
        for number in self.wires.numbers() {
            self.heal(number);
        }
        for n in 0..self.nodes.len() as u32 {
            let node = &mut self.nodes[n as usize];
            if node.paused_until > self.now {
                node.paused_until = self.now;
                self.arm(n);
            }
        }
        if self.plan.settings.reconnect_timeout.as_secs() < 3600 {
            // Who was cut off for longer than it is remembered is brought back by an operator only.
            (0..self.nodes.len() as u32).for_each(|n| self.join(n));
        }
    }

    fn is_calm(&self) -> bool {
        self.judge.calm_since.is_some()
    }

    pub fn plan_deed(&mut self, after: Time, deed: Deed) {
        self.queue.push(self.now + after, Event::Deed(deed));
    }

    pub fn carry_out(&mut self, deed: Deed) {
        match deed {
            Deed::Act => self.act(),
            Deed::Turn => self.turn(),
            Deed::Nap { n, until } => self.nap(n, until),
            Deed::Start(n) => {
                if !self.nodes[n as usize].is_up() {
                    self.start(n);
                    trace!(self, "{n} starts");
                    self.join(n);
                }
            }
            Deed::Join { n, life } => {
                if self.nodes[n as usize].life == life && self.nodes[n as usize].is_up() {
                    self.join(n);
                }
            }
            Deed::Heal(number) => self.heal(number),
            Deed::Respond { n, life, query } => {
                if self.nodes[n as usize].life == life {
                    self.step(n, Input::Respond { query, payload: Bytes::from_static(b"here") });
                }
            }
            Deed::Look => {
                self.look();
                self.plan_deed(SECOND, Deed::Look);
            }
        }
    }

    fn act(&mut self) {
        if self.is_calm() {
            return;
        }
        let total = self.plan.acts.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.random.below(total);
        let fits = |(_, weight): &&(Act, u64)| match drawn.checked_sub(*weight) {
            Some(rest) => {
                drawn = rest;
                false
            }
            None => true,
        };
        let act = self.plan.acts.iter().find(fits).expect("drawn below the total").0;
        trace!(self, "act: {act:?}");
        self.carry_out_act(act);
        let after = self.random.within(self.plan.between / 2, self.plan.between * 3 / 2);
        self.plan_deed(after, Deed::Act);
    }

    fn carry_out_act(&mut self, act: Act) {
        self.judge.tally.one(name_of(act));
        let shortest = self.plan.suspicion_min(self.live());
        match act {
            Act::Pause => {
                let count = 1 + self.random.below(1 + self.nodes.len() as u64 / 10);
                for _ in 0..count {
                    let span = self.random.within(300 * MILLI, shortest * 8 / 10);
                    // Two pauses with next to nothing between them are one long one.
                    let now = self.now;
                    let rested = |until: Time| until == 0 || until + shortest < now;
                    let picked = self.any_up();
                    if let Some(n) = picked.filter(|n| rested(self.nodes[*n as usize].paused_until)) {
                        self.pause(n, span);
                    }
                }
            }
            Act::LongPause => {
                let span = self.random.log_within(shortest, 10 * shortest);
                if let Some(n) = self.any_up() {
                    self.disturb(n, self.now + span);
                    self.pause(n, span);
                }
            }
            Act::Crash => self.crash_some(1),
            Act::CrashMany => self.crash_some((self.nodes.len() / 20).max(2)),
            Act::Leave => self.leave(),
            Act::Split => self.split(),
            Act::Isolate => self.isolate(),
            Act::Links => self.cut_links(),
            Act::Retag => self.retag(),
            Act::Event => self.fire(),
            Act::Query => self.ask(),
            Act::ForceLeave => self.force_leave(false),
            Act::Prune => self.force_leave(true),
        }
    }

    /// Members that are there and not about to leave.
    pub fn live(&self) -> usize {
        self.nodes.iter().filter(|node| node.truth == Truth::Up).count()
    }

    fn any_up(&mut self) -> Option<u32> {
        self.any(|node| node.truth == Truth::Up)
    }

    fn any(&mut self, fits: impl Fn(&super::world::Node) -> bool) -> Option<u32> {
        let start = self.random.below(self.nodes.len() as u64) as usize;
        let places = (0..self.nodes.len()).map(|place| (start + place) % self.nodes.len());
        places.into_iter().find(|place| fits(&self.nodes[*place])).map(|place| place as u32)
    }

    /// One that nothing disturbs: what it says, it says to all.
    fn any_fit(&mut self) -> Option<u32> {
        let now = self.now;
        self.any(|node| {
            let settled = node.life == 1 || node.since + 10 * SECOND < now;
            let fit = node.excused_until.max(node.cut_until).max(node.paused_until) <= now;
            node.truth == Truth::Up && fit && settled
        })
    }

    fn may_go(&self) -> bool {
        self.live() > 3 && (self.nodes.len() - self.live()) as f64 + 1.0 <= GONE_MAX * self.nodes.len() as f64
    }

    fn pause(&mut self, n: u32, span: Time) {
        let node = &mut self.nodes[n as usize];
        if node.paused_until <= self.now {
            node.paused_from = self.now;
        }
        node.paused_until = node.paused_until.max(self.now + span);
        trace!(self, "{n} stands still for {} ms", span / MILLI);
        self.arm(n);
    }

    /// Until then and a little longer, others have reasons to take this one for failed. It has none to take them for that.
    fn disturb(&mut self, n: u32, until: Time) {
        let until = until + self.plan.grace();
        let node = &mut self.nodes[n as usize];
        node.excused_until = node.excused_until.max(until);
        self.judge.excuse(n);
    }

    fn turn(&mut self) {
        if self.is_calm() {
            return;
        }
        let span = self.random.within(60 * SECOND, 180 * SECOND);
        let mut all: Vec<u32> = (0..self.nodes.len() as u32).collect();
        self.random.shuffle(&mut all);
        for n in all.into_iter().take(self.nodes.len() / 3) {
            self.judge.tally.one("fault: observer stands still in turns");
            let until = self.now + span;
            self.nap(n, until);
        }
        self.plan_deed(span, Deed::Turn);
    }

    /// Stands still, then runs for a moment, again and again (Lifeguard, V: intermittent slowness).
    fn nap(&mut self, n: u32, until: Time) {
        if self.is_calm() || self.now >= until || !self.nodes[n as usize].is_up() {
            return;
        }
        let still = self.random.log_within(300 * MILLI, 60 * SECOND).min(until - self.now);
        let runs = self.random.log_within(50 * MILLI, 20 * SECOND);
        // What is shorter than a suspicion must not be taken for a failure; but many of them in a row may.
        self.disturb(n, self.now + still + runs);
        self.pause(n, still);
        self.plan_deed(still + runs, Deed::Nap { n, until });
    }

    fn crash_some(&mut self, count: usize) {
        let mut gone = Vec::new();
        for _ in 0..count {
            let Some(n) = self.any_up().filter(|_| self.may_go()) else { break };
            // All of them end at this moment: none of them is to know of the others.
            self.judge.tally.one("crashes");
            self.end(n, Truth::Crashed);
            gone.push(n);
        }
        let bound = self.plan.detection_bound(self.nodes.len());
        for n in gone {
            self.watch_crash(n);
            let soon = self.plan.faults == Faults::Swarm && self.random.chance(0.3);
            let after = if soon {
                self.random.log_within(100 * MILLI, bound)
            } else {
                bound + self.random.within(0, 120 * SECOND)
            };
            if soon || self.random.chance(0.9) {
                self.plan_deed(after, Deed::Start(n));
            }
        }
    }

    fn leave(&mut self) {
        let Some(n) = self.any_up().filter(|_| self.may_go()) else { return };
        self.nodes[n as usize].truth = Truth::Leaving;
        self.nodes[n as usize].since = self.now;
        self.judge.tally.one("leaves");
        self.judge.excuse(n);
        self.step(n, Input::Leave);
        if self.random.chance(0.7) {
            let after = self.random.within(20 * SECOND, 300 * SECOND);
            self.plan_deed(after, Deed::Start(n));
        }
    }

    fn cut(&mut self, cut: Cut, longest: Time) {
        self.judge.tally.one("fault: cut");
        let number = self.random.next();
        self.wires.cut(number, cut);
        let span = self.random.within(5 * SECOND, longest);
        self.plan_deed(span, Deed::Heal(number));
    }

    fn split(&mut self) {
        let share = self.random.unit();
        let marked: Vec<bool> = (0..self.nodes.len()).map(|_| self.random.chance(share)).collect();
        let both = self.random.chance(0.7);
        self.judge.drop_watches();
        self.cut(Cut::Sides { marked, both }, 180 * SECOND);
    }

    fn isolate(&mut self) {
        let Some(n) = self.any_up() else { return };
        // Cut off, deaf or mute.
        let kind = self.random.below(3);
        let marked = (0..self.nodes.len() as u32).map(|other| (other == n) == (kind != 1)).collect();
        self.nodes[n as usize].cut_until = Time::MAX;
        self.judge.excuse(n);
        trace!(self, "{n} is {}", ["cut off", "deaf", "mute"][kind as usize]);
        self.cut(Cut::Sides { marked, both: kind == 0 }, 120 * SECOND);
    }

    fn cut_links(&mut self) {
        let all = self.nodes.len() as u64;
        let count = 1 + self.random.below(3);
        let links: BTreeSet<(u32, u32)> =
            (0..count).map(|_| (self.random.below(all) as u32, self.random.below(all) as u32)).collect();
        self.cut(Cut::Links(links), 180 * SECOND);
    }

    fn heal(&mut self, number: u64) {
        let Some(cut) = self.wires.heal(number) else { return };
        trace!(self, "a cut is healed");
        let until = self.now + self.plan.grace() + 2 * self.plan.detection_bound(self.nodes.len());
        let Cut::Sides { marked, .. } = &cut else { return self.judge.healed.push((until, cut)) };
        self.judge.hearsay_until = self.judge.hearsay_until.max(until);
        let count = marked.iter().filter(|marked| **marked).count();
        let single = [count, marked.len() - count].contains(&1);
        if single {
            let odd = count == 1;
            let place = marked.iter().position(|marked| *marked == odd).expect("there is one");
            self.nodes[place].cut_until = until;
        } else {
            self.judge.healed.push((until, cut));
        }
    }

    fn retag(&mut self) {
        let Some(n) = self.any_up() else { return };
        let number = self.random.below(1_000_000).to_string();
        let tags = [("role", "node"), ("dc", "dc1"), ("build", number.as_str())];
        let tags = Tags::new(tags).expect("short");
        self.nodes[n as usize].identity.tags = tags.clone();
        self.step(n, Input::SetTags(tags));
    }

    fn fire(&mut self) {
        let fit = self.any_fit();
        let Some(n) = fit.or_else(|| self.any_up()) else { return };
        let number = self.begin_event(fit.is_some());
        let draft = events::Draft::new(&number.to_string(), Bytes::from_static(b"payload"), false);
        trace!(self, "{n} fires {number}");
        self.step(n, Input::Fire(draft.expect("short")));
    }

    fn ask(&mut self) {
        let Some(n) = self.any_fit() else { return };
        let relays = self.random.below(3) as u8;
        let draft = queries::Draft {
            name: "question".into(),
            ack: self.random.chance(0.5),
            relays,
            ..queries::Draft::default()
        };
        self.step(n, Input::Ask { token: u64::from(n), draft });
    }

    /// An operator says that a member is gone: mostly one that is, now and then one that is not.
    fn force_leave(&mut self, prune: bool) {
        let truly = self.random.chance(0.8);
        let gone = |node: &super::world::Node| matches!(node.truth, Truth::Crashed | Truth::Left);
        let of = if truly { self.any(gone) } else { self.any_up() };
        let (Some(of), Some(operator)) = (of, self.any_fit()) else { return };
        if of == operator || self.wires.is_split() {
            return;
        }
        let grace = self.plan.grace() + self.plan.detection_bound(self.nodes.len());
        let forgets = prune && truly && self.is_known_alike(of);
        let node = &mut self.nodes[of as usize];
        node.forced_until = self.now + grace;
        node.pruned |= forgets;
        trace!(self, "{operator} is told that {of} is gone, prune {prune}");
        self.judge.tally.one(if truly { "operator: gone" } else { "operator: gone, who is not" });
        self.step(operator, Input::ForceLeave { name: name(of), prune });
    }
}

impl World {
    /// Whether all who know a member that is gone know the same last word of it: no later one can be told after it is forgotten.
    fn is_known_alike(&self, of: u32) -> bool {
        let name = &self.nodes[of as usize].identity.name;
        let cores = self.nodes.iter().filter_map(|node| node.core.as_ref());
        let mut known = cores.filter_map(|core| core.member(name));
        let Some(first) = known.next() else { return false };
        known.all(|member| member.incarnation == first.incarnation)
    }
}

fn name_of(act: Act) -> &'static str {
    match act {
        Act::Pause => "fault: pause",
        Act::LongPause => "fault: long pause",
        Act::Crash => "fault: crash",
        Act::CrashMany => "fault: many crash",
        Act::Leave => "churn: leave",
        Act::Split => "fault: split",
        Act::Isolate => "fault: isolation",
        Act::Links => "fault: links",
        Act::Retag => "churn: tags",
        Act::Event => "load: event",
        Act::Query => "load: query",
        Act::ForceLeave => "operator: force-leave",
        Act::Prune => "operator: prune",
    }
}
