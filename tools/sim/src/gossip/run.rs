//! One seed from its plan to its verdict: the pool comes together, is quiet for a while, lives with faults, and is healed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use histories::Violation;

use super::figures::{Figures, Load};
use super::judge::secs;
use super::nemesis::Deed;
use super::plan::{Act, Faults, Options, Plan};
use super::world::{Truth, World};
use crate::queue::{SECOND, Time};
use crate::random::Random;
use crate::tally::Tally;
use crate::trace::Trace;

/// How long traffic of a quiet pool is measured, and how long it has been quiet by then.
const QUIET: Time = 60 * SECOND;
/// How often tables are compared while they are to agree.
const COMPARED_EVERY: Time = 5 * SECOND;
/// All members of a small pool have started by then.
const STARTS_WITHIN: Time = 5 * SECOND;
/// And know each other.
const JOINED_WITHIN: Time = 180 * SECOND;

/// What a run came to.
pub struct Outcome {
    pub broken: Option<Violation>,
    pub tally: Tally,
    pub figures: Figures,
    /// The number of all events, and how many.
    pub hash: (u64, u64),
    pub tail: Vec<String>,
    pub plan: Plan,
}

/// Runs a seed.
pub fn run(seed: u64, options: &Options, lines: bool, print: bool) -> Outcome {
    let mut random = Random::new(seed);
    let plan = Plan::draw(options, &mut random);
    let mut world = World::new(seed, plan, random.fork(), Trace::new(lines, print));
    let ended = catch_unwind(AssertUnwindSafe(|| world.run()));
    if let Err(panic) = ended {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        world.judge.broken = Some(Violation { rule: "nothing panics", story: text.unwrap_or_default() });
    }
    world.judge.close(world.plan.quality.loss);
    if world.judge.broken.is_none()
        && let Some(missed) = world.was_idle()
    {
        world.judge.fail("a run is not idle", missed);
    }
    world.judge.figures.virtual_seconds = (world.now - super::world::ORIGIN) / SECOND;
    Outcome {
        broken: world.judge.broken.take(),
        tally: std::mem::take(&mut world.judge.tally),
        figures: std::mem::take(&mut world.judge.figures),
        hash: world.trace.hash(),
        tail: world.trace.tail(100).to_vec(),
        plan: world.plan,
    }
}

impl World {
    fn run(&mut self) {
        self.come_together();
        self.plan_deed(0, Deed::Look);
        self.be_quiet();
        if self.judge.is_broken() {
            return;
        }
        let (began, before, seconds) = (self.now, self.traffic, self.judge.figures.member_seconds);
        self.begin_faults();
        self.run_until(began + self.plan.span);
        self.judge.figures.busy =
            self.load_since(&before, (self.judge.figures.member_seconds - seconds) as f64);
        self.end_faults();
        self.converge();
    }

    fn come_together(&mut self) {
        if !self.plan.joined {
            return self.begin_acquainted();
        }
        let began = self.now;
        for n in 0..self.nodes.len() as u32 {
            let after = self.random.below(STARTS_WITHIN);
            self.plan_deed(after, Deed::Start(n));
        }
        self.run_until(began + STARTS_WITHIN);
        self.agree_within(JOINED_WITHIN, "all who join know each other");
        let took = self.now - began;
        self.judge.figures.joining.push(took as f64 / SECOND as f64);
    }

    fn be_quiet(&mut self) {
        self.run_until(self.now + QUIET);
        let before = self.traffic;
        self.run_until(self.now + QUIET);
        let seconds = self.nodes.len() as f64 * (QUIET / SECOND) as f64;
        self.judge.figures.idle = self.load_since(&before, seconds);
    }

    fn load_since(&self, before: &super::world::Traffic, member_seconds: f64) -> Load {
        let mut traffic = self.traffic;
        traffic.packets -= before.packets;
        traffic.packet_bytes -= before.packet_bytes;
        traffic.streams -= before.streams;
        traffic.stream_bytes -= before.stream_bytes;
        Load { traffic, member_seconds }
    }

    /// All is healed: all tables must come to say what is true, and stay so.
    fn converge(&mut self) {
        let healed = self.now;
        self.agree_within(self.plan.convergence_bound(), "tables agree once all is healed");
        if !self.judge.is_broken() {
            self.judge.figures.convergence.push(secs(self.now - healed));
            self.run_until(self.now + QUIET);
        }
    }

    fn agree_within(&mut self, bound: Time, rule: &'static str) {
        let end = self.now + bound;
        let mut first = 0;
        while !self.judge.is_broken() {
            match self.disagreement(first) {
                None if self.is_settled() => return,
                None => {}
                Some((_, story)) if self.now >= end => {
                    return self.judge.fail(rule, format!("{} s later {story}", secs(bound)));
                }
                Some((n, _)) => first = n,
            }
            self.run_until(self.now + COMPARED_EVERY);
        }
    }

    /// Nobody is on the way out.
    fn is_settled(&self) -> bool {
        self.nodes.iter().all(|node| node.truth != Truth::Leaving)
            && (!self.plan.joined || self.nodes.iter().all(|node| node.truth != Truth::Unborn))
    }

    /// What did not happen although it should have.
    fn was_idle(&self) -> Option<String> {
        let tally = &self.judge.tally;
        let acts = self.plan.span / self.plan.between;
        let planned = |act: Act| self.plan.acts.iter().any(|(other, _)| *other == act);
        let harmed = self.plan.quality.loss >= 0.05 && self.plan.span >= 600 * SECOND;
        let crashes = planned(Act::Crash) && self.plan.faults == Faults::Crashes && acts >= 10;
        let least = [
            ("events", u64::from(acts >= 150 && planned(Act::Event))),
            ("events delivered", u64::from(acts >= 150 && planned(Act::Event))),
            ("suspicions", u64::from(harmed)),
            ("crashes", u64::from(crashes)),
            ("told: failed", u64::from(crashes)),
            (
                "fault: observer stands still in turns",
                u64::from(self.plan.faults == Faults::Observers && self.nodes.len() >= 3),
            ),
        ];
        let missed = least.iter().find(|(name, least)| tally.get(name) < *least);
        let packets = self.traffic.packets;
        let seconds = (self.now - super::world::ORIGIN) / SECOND;
        if packets < seconds * self.nodes.len() as u64 / 4 {
            return Some(format!("{packets} packets in {seconds} s"));
        }
        missed.map(|(name, least)| format!("{name}: {} where at least {least} is due", tally.get(name)))
    }
}
