//! What has to hold, and what was seen. The truth of who is up is known here; what members tell their drivers is held against it.

use std::collections::BTreeMap;

use histories::Violation;
use muster_protocol::gossip::queries::QueryId;
use muster_protocol::gossip::{Change, Effect, Evidence, Member, Status};

use super::figures::Figures;
use super::nemesis::Deed;
use super::plan::LOSS_PROMISED;
use super::wires::Cut;
use super::world::{Node, Truth, World, number};
use crate::queue::{MILLI, SECOND, Time};
use crate::tally::Tally;
use crate::trace;

/// Events whose deliveries are remembered.
const EVENTS_KEPT: usize = 4096;

/// A member has crashed, and all others are to know.
struct Watch {
    began: Time,
    first: Option<Time>,
    /// Who does not know yet.
    ignorant: Vec<bool>,
    remaining: usize,
}

/// An event was fired, and all are to be told once.
struct Fired {
    began: Time,
    /// Who was there and is not told yet.
    waiting: Vec<bool>,
    remaining: usize,
    total: usize,
    /// In which life each was told.
    told: Vec<u8>,
    /// When those were told who were there.
    times: Vec<Time>,
    /// It was measured, or cannot be.
    closed: bool,
}

/// A question and who has answered.
#[derive(Default)]
struct Asked {
    expected: usize,
    answered: BTreeMap<u32, u32>,
    delivered: BTreeMap<(u32, u32), u32>,
}

/// The judge of one run.
pub struct Judge {
    pub tally: Tally,
    pub figures: Figures,
    pub broken: Option<Violation>,
    /// Since when there are no more faults.
    pub calm_since: Option<Time>,
    /// Cuts that were healed so lately that they explain what members believe.
    pub healed: Vec<(Time, Cut)>,
    /// Until when what anybody believes may come from one who was cut off.
    pub hearsay_until: Time,
    watches: BTreeMap<u32, Watch>,
    fired: Vec<Fired>,
    asked: BTreeMap<QueryId, Asked>,
    first_false: Option<String>,
}

impl Judge {
    pub fn new(members: usize) -> Judge {
        Judge {
            tally: Tally::default(),
            figures: Figures::of(members),
            broken: None,
            calm_since: None,
            healed: Vec::new(),
            hearsay_until: 0,
            watches: BTreeMap::new(),
            fired: Vec::new(),
            asked: BTreeMap::new(),
            first_false: None,
        }
    }

    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    pub fn fail(&mut self, rule: &'static str, story: String) {
        self.broken.get_or_insert(Violation { rule, story });
    }

    /// Whether sides were lately brought together again.
    fn is_split_healed(&self) -> bool {
        self.healed.iter().any(|(_, cut)| matches!(cut, Cut::Sides { .. }))
    }

    /// A packet went to nobody.
    pub fn stray(&mut self, from: u32, to: u32) {
        self.fail("packets go to members", format!("{from} sends a packet to {to}"));
    }

    pub fn born(&mut self, n: u32) {
        if self.watches.remove(&n).is_some() {
            self.tally.one("back before all knew that it was gone");
        }
    }

    pub fn ended(&mut self, n: u32) {
        self.excuse(n);
    }

    /// Nobody waits any more for what this one learns.
    pub fn excuse(&mut self, n: u32) {
        let Judge { watches, figures, fired, .. } = self;
        watches.retain(|_, watch| {
            if std::mem::take(&mut watch.ignorant[n as usize]) {
                watch.remaining -= 1;
            }
            watch.remaining > 0
        });
        for fired in fired.iter_mut().filter(|fired| !fired.closed) {
            if std::mem::take(&mut fired.waiting[n as usize]) {
                (fired.remaining, fired.total) = (fired.remaining - 1, fired.total - 1);
                fired.close_if_done(figures);
            }
        }
    }

    /// The pool falls apart: what is under way cannot be measured.
    pub fn drop_watches(&mut self) {
        self.watches.clear();
        self.fired.iter_mut().for_each(|fired| fired.closed = true);
    }

    /// The verdict on those who were declared failed and were there.
    pub fn close(&mut self, loss: f64) {
        if let Some(story) = self.first_false.take()
            && loss <= LOSS_PROMISED
        {
            let count = self.figures.false_failures;
            self.fail("no healthy member is declared failed", format!("{count} times; first: {story}"));
        }
    }
}

impl Fired {
    fn close_if_done(&mut self, figures: &mut Figures) {
        if self.remaining == 0 && !self.closed {
            self.closed = true;
            figures.event(self.began, &mut self.times);
        }
    }
}

impl World {
    /// A member tells its driver something.
    pub fn told(&mut self, n: u32, effect: Effect) {
        match effect {
            Effect::Member { change, member } => self.heard_change(n, &change, &member),
            Effect::Event(event) => self.heard_event(n, &event.name),
            Effect::Query(query) => {
                let life = self.nodes[n as usize].life;
                let asked = self.judge.asked.entry(query.id).or_default();
                let times = asked.delivered.entry((n, life)).or_default();
                *times += 1;
                if *times > 1 {
                    let story = format!("{n} is asked {:?} twice", query.id);
                    self.judge.fail("each query is asked once", story);
                }
                let after = self.random.within(0, 20 * MILLI);
                self.plan_deed(after, Deed::Respond { n, life, query: query.id });
            }
            Effect::Asked { query: Ok(id), .. } => {
                self.judge.tally.one("queries");
                self.judge.asked.entry(id).or_default().expected = self.live();
            }
            Effect::Reply { query, from, .. } => {
                let times =
                    self.judge.asked.entry(query).or_default().answered.entry(number(&from)).or_default();
                *times += 1;
                if *times > 1 {
                    self.judge.fail("each answer comes once", format!("{n} is answered twice by {from}"));
                }
            }
            Effect::QueryDone { query } => {
                if let Some(asked) = self.judge.asked.remove(&query) {
                    let share = asked.answered.len() as f64 / asked.expected.max(1) as f64;
                    self.judge.figures.query_share.push(share);
                }
            }
            Effect::JoinDone { contacted: 1.., .. } => {
                // It believes whom it joined through, who may be wrong for a while.
                let now = self.now;
                self.nodes[n as usize].joined.get_or_insert(now);
            }
            Effect::JoinDone { contacted: 0, errors } => {
                trace!(self, "{n} has joined nobody: {errors:?}");
                let life = self.nodes[n as usize].life;
                self.plan_deed(5 * SECOND, Deed::Join { n, life });
            }
            Effect::LeaveDone => self.end(n, Truth::Left),
            Effect::Conflict(conflict) => {
                self.judge.fail("names and IDs are unique here", format!("{n} says {conflict:?}"));
            }
            Effect::Log { .. } => self.judge.tally.one("lines of the log"),
            _ => {}
        }
    }

    fn heard_change(&mut self, n: u32, change: &Change, member: &Member) {
        let of = number(&member.name);
        trace!(self, "{n} takes {of} for {change:?} at {}", member.incarnation);
        if of == n {
            return;
        }
        match change {
            Change::Suspected { .. } => self.judge.tally.one("suspicions"),
            Change::Refuted { .. } => self.judge.tally.one("suspicions refuted"),
            Change::Joined => self.heard_joined(n, of),
            Change::Failed(evidence) => {
                self.learned(n, of);
                self.heard_failed(n, of, evidence);
            }
            Change::Left | Change::Reaped => {
                self.learned(n, of);
                self.judge.tally.one(if *change == Change::Left { "told: left" } else { "told: forgotten" });
                let node = &self.nodes[of as usize];
                // Who was cut off may have taken one for gone that an operator had forced out before, and tells so as its leave.
                let hearsay = self.wires.is_split() || self.judge.hearsay_until > self.now;
                let explained = hearsay || node.forced_until > self.now || self.is_explained(n, of);
                if node.truth == Truth::Up && !explained {
                    let story = format!("{n} takes {of} for {change:?} at {} s, which is up", secs(self.now));
                    self.judge.fail("nobody is said to have left who has not", story);
                }
            }
            Change::Updated | Change::Leaving => {}
        }
    }

    /// One is taken in, or back.
    fn heard_joined(&mut self, n: u32, of: u32) {
        let node = &self.nodes[of as usize];
        let gone = matches!(node.truth, Truth::Crashed | Truth::Left);
        let settled = node.since + self.plan.grace() + 2 * self.plan.detection_bound(self.nodes.len());
        if gone && settled < self.now && !self.is_explained(n, of) {
            let story = format!(
                "{n} takes {of} in at {} s, which is gone ({:?}) since {} s",
                secs(self.now),
                node.truth,
                secs(node.since)
            );
            self.judge.fail("who is gone does not come back", story);
        }
    }

    fn learned(&mut self, n: u32, of: u32) {
        let now = self.now;
        let Some(watch) = self.judge.watches.get_mut(&of) else { return };
        watch.first.get_or_insert(now);
        if !std::mem::take(&mut watch.ignorant[n as usize]) {
            return;
        }
        watch.remaining -= 1;
        if watch.remaining == 0
            && let Some(watch) = self.judge.watches.remove(&of)
        {
            let first = watch.first.unwrap_or(now);
            self.judge.figures.detected(first - watch.began, now - watch.began);
        }
    }

    fn heard_failed(&mut self, n: u32, of: u32, evidence: &Evidence) {
        self.judge.tally.one("told: failed");
        if evidence.declared_by.is_empty() {
            self.judge.fail("a failure names who declared it", format!("{n} of {of}: {evidence:?}"));
        }
        let node = &self.nodes[of as usize];
        if node.truth != Truth::Up || self.is_explained(n, of) {
            return;
        }
        // Who was cut off took all others for failed, and tells so when it is back; they contradict.
        let declarer = number(&evidence.declared_by);
        if self.is_explained(declarer, of) {
            return self.judge.tally.one("told: failed, by one who was cut off");
        }
        self.judge.figures.false_failures += 1;
        let story = format!(
            "{n} takes {of} for failed at {} s, which is up since {} s and stood still until {} s: {evidence:?}",
            secs(self.now),
            secs(node.since),
            secs(node.paused_until)
        );
        trace!(self, "FALSE: {story}");
        self.judge.first_false.get_or_insert(story);
    }

    /// Whether faults explain that one takes the other for gone, which is up.
    fn is_explained(&self, n: u32, of: u32) -> bool {
        let (observer, subject) = (&self.nodes[n as usize], &self.nodes[of as usize]);
        // Who stood still hears late what was right when it was said.
        let woke = observer.paused_until + self.plan.grace() > self.now;
        let late = woke && observer.paused_from < subject.excused_until;
        late || self.is_young(of)
            || self.is_young(n)
            || subject.excused_until > self.now
            || subject.cut_until > self.now
            || observer.cut_until > self.now
            || self.wires.explains(n, of)
            || self.judge.healed.iter().any(|(_, cut)| cut.explains(n, of))
    }

    /// Whether a member has been somebody else until lately.
    fn is_young(&self, n: u32) -> bool {
        let node = &self.nodes[n as usize];
        node.life > 1 && node.joined.is_none_or(|at| at + self.plan.grace() > self.now)
    }

    /// A member has crashed: from now on it counts how long others take to know.
    pub fn watch_crash(&mut self, of: u32) {
        if self.wires.is_split() || self.judge.is_split_healed() {
            return self.judge.tally.one("crashes that were not measured");
        }
        let name = &self.nodes[of as usize].identity.name;
        let believes = |n: u32| {
            let core = self.nodes[n as usize].core.as_ref();
            core.and_then(|core| core.member(name)).is_some_and(Member::is_live)
        };
        let fit: Vec<u32> = (0..self.nodes.len() as u32).filter(|n| *n != of && self.is_fit(*n)).collect();
        if !fit.iter().all(|n| believes(*n)) {
            return self.judge.tally.one("crashes that were not measured");
        }
        let mut ignorant = vec![false; self.nodes.len()];
        fit.into_iter().for_each(|n| ignorant[n as usize] = true);
        let remaining = ignorant.iter().filter(|ignorant| **ignorant).count();
        if remaining > 0 {
            let watch = Watch { began: self.now, first: None, ignorant, remaining };
            self.judge.watches.insert(of, watch);
        }
    }

    fn is_fit(&self, n: u32) -> bool {
        let node = &self.nodes[n as usize];
        let excused_until = node.excused_until.max(node.cut_until);
        node.truth == Truth::Up && excused_until <= self.now && !self.is_young(n)
    }

    /// An event is about to be fired; its number. It can be measured only if nothing disturbs who fires it.
    pub fn begin_event(&mut self, fit: bool) -> usize {
        self.judge.tally.one("events");
        // Who has joined does not want events of before, and takes one for that whose sender's clock is behind: see `events::oldest`.
        let span = 2 * self.plan.exchange_interval();
        let settled = |node: &Node| node.life == 1 || node.joined.is_some_and(|at| at + span < self.now);
        let waiting: Vec<bool> =
            self.nodes.iter().zip(0..).map(|(node, n)| self.is_fit(n) && settled(node)).collect();
        let total = waiting.iter().filter(|waiting| **waiting).count();
        let closed = !fit || self.wires.is_split() || self.judge.is_split_healed() || total == 0;
        let told = vec![0; self.nodes.len()];
        let times = Vec::with_capacity(total);
        let fired = Fired { began: self.now, waiting, remaining: total, total, told, times, closed };
        self.judge.fired.push(fired);
        if let Some(old) = self.judge.fired.len().checked_sub(EVENTS_KEPT) {
            let old = &mut self.judge.fired[old];
            (old.told, old.waiting) = (Vec::new(), Vec::new());
        }
        self.judge.fired.len() - 1
    }

    fn heard_event(&mut self, n: u32, name: &str) {
        let (now, life) = (self.now, self.nodes[n as usize].life as u8);
        let remember = self.plan.remember;
        self.judge.tally.one("events delivered");
        let Judge { fired, figures, .. } = &mut self.judge;
        let Some(fired) = name.parse().ok().and_then(|number: usize| fired.get_mut(number)) else { return };
        let Some(told) = fired.told.get_mut(n as usize) else { return };
        let before = std::mem::replace(told, life);
        if std::mem::take(&mut fired.waiting[n as usize]) {
            fired.times.push(now);
            fired.remaining -= 1;
            fired.close_if_done(figures);
        }
        if before == life || before > 0 && remember {
            let story = format!("{n} is told event {name} in its life {before} and again in {life}");
            self.judge.fail("each event is delivered once", story);
        }
    }

    /// What is overdue, once a second.
    pub fn look(&mut self) {
        let now = self.now;
        self.judge.healed.retain(|(until, _)| *until > now);
        let up = self.nodes.iter().filter(|node| node.is_up()).count() as u64;
        let fit = (0..self.nodes.len() as u32).filter(|n| self.is_fit(*n)).count() as u64;
        self.judge.figures.member_seconds += up;
        self.judge.figures.healthy_member_seconds += fit;
        let bound = self.plan.detection_bound(self.nodes.len());
        if let Some((of, watch)) = self.judge.watches.iter().find(|(_, watch)| now > watch.began + bound) {
            let who: Vec<usize> = (0..watch.ignorant.len()).filter(|n| watch.ignorant[*n]).take(5).collect();
            let story = format!(
                "{of} has crashed at {} s; at {} s {} do not know, {who:?} among them",
                secs(watch.began),
                secs(now),
                watch.remaining
            );
            self.judge.fail("a crash is known to all in time", story);
        }
        let repaired = 4 * self.plan.exchange_interval() + 60 * SECOND;
        let overdue = |fired: &&mut Fired| !fired.closed && now > fired.began + repaired;
        if let Some(fired) = self.judge.fired.iter_mut().rev().take(EVENTS_KEPT - 1).find(overdue) {
            let who: Vec<usize> = (0..fired.waiting.len()).filter(|n| fired.waiting[*n]).take(5).collect();
            let story = format!(
                "of one fired at {} s {} of {} are not told at {} s, {who:?} among them",
                secs(fired.began),
                fired.remaining,
                fired.total,
                secs(now)
            );
            self.judge.fail("an event reaches all", story);
        }
    }

    /// Who has a wrong table, and what is wrong: beginning with a member, since the last one that was wrong is likely still so.
    pub fn disagreement(&self, begin: u32) -> Option<(u32, String)> {
        let all = self.nodes.len() as u32;
        let order = (0..all).map(|step| (begin + step) % all);
        order.into_iter().find_map(|n| self.wrong_in(n).map(|story| (n, story)))
    }

    fn wrong_in(&self, n: u32) -> Option<String> {
        let node = &self.nodes[n as usize];
        let core = node.core.as_ref().filter(|_| node.truth == Truth::Up)?;
        let mut held = core.members().peekable();
        for of in 0..self.nodes.len() as u32 {
            // Names are in order of numbers.
            let member = held.next_if(|member| number(&member.name) == of);
            if let Some(why) = self.wrong_about(of, member) {
                return Some(format!("{n} holds {of} for {:?}: {why}", member.map(|member| member.status)));
            }
        }
        None
    }

    fn wrong_about(&self, of: u32, member: Option<&Member>) -> Option<&'static str> {
        let node = &self.nodes[of as usize];
        let status = member.map(|member| member.status);
        match node.truth {
            Truth::Unborn => status.map(|_| "it was never there"),
            Truth::Up => {
                let own = node.core.as_ref().map(|core| core.own());
                let (Some(member), Some(own)) = (member, own) else { return Some("it is up") };
                let same = member.incarnation == own.incarnation && member.tags == own.tags;
                let right = member.status == Status::Alive && same;
                (!right).then_some("it is up, and says other things of itself")
            }
            Truth::Leaving => None,
            Truth::Crashed | Truth::Left if node.pruned => status.map(|_| "it was to be forgotten"),
            Truth::Crashed | Truth::Left => {
                status.is_some_and(Status::is_live).then_some("it is gone, and counts as there")
            }
        }
    }
}

/// Virtual time for stories.
pub fn secs(time: Time) -> f64 {
    (time / MILLI) as f64 / 1000.0
}
