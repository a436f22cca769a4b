//! One seed from its plan to its verdict.

use std::panic::{AssertUnwindSafe, catch_unwind};

use histories::Violation;

use crate::clients::{Client, Watcher};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::follow;
use crate::locks::{Locks, names};
use crate::nemesis::Nemesis;
use crate::network::Network;
use crate::operator::id_of;
use crate::plan::{Plan, Profile};
use crate::queue::{MILLI, Queue, SECOND};
use crate::random::Random;
use crate::server::Server;
use crate::tally::Tally;
use crate::trace::Trace;
use crate::truth::Truth;
use crate::world::{Event, World};

/// By how much the rates of servers' clocks differ from true time, at most: more than any quartz.
const CLOCKS_PPM: u64 = 100_000;
/// The same in runs with locks, where clients measure with clocks of their own: ten times as much as NTP allows a clock.
const LOCK_CLOCKS_PPM: u64 = 5_000;

/// What a run came to.
pub struct Outcome {
    /// The rule that was broken, if one was.
    pub broken: Option<Violation>,
    /// What was done.
    pub tally: Tally,
    /// The number of all events, and how many.
    pub hash: (u64, u64),
    /// Virtual seconds.
    pub seconds: u64,
    /// The last lines, if lines were kept.
    pub tail: Vec<String>,
    /// What was drawn.
    pub plan: Plan,
}

/// Runs a seed.
pub fn run(seed: u64, profile: Profile, lines: bool, print: bool) -> Outcome {
    let mut world = World::new(seed, profile, Trace::new(lines, print));
    let ended = catch_unwind(AssertUnwindSafe(|| world.run()));
    if let Err(panic) = ended {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        world.broken = Some(Violation { rule: "nothing panics", story: text.unwrap_or_default() });
    } else if world.broken.is_none()
        && let Some(missed) = world.was_idle()
    {
        world.tally.one("idle runs");
        if missed.contains("elections") {
            world.fail("a run is not idle", missed);
        }
    }
    world.tally.add("disk: writes left half done", world.servers.iter().map(|server| server.disk.torn).sum());
    Outcome {
        broken: world.broken.take(),
        hash: world.trace.hash(),
        seconds: world.seconds(),
        tail: world.trace.tail(80).to_vec(),
        tally: world.tally,
        plan: world.plan,
    }
}

impl World {
    /// The world of a seed before its first event.
    pub fn new(seed: u64, profile: Profile, trace: Trace) -> World {
        let mut random = Random::new(seed);
        let plan = Plan::draw(seed, profile, &mut random);
        let servers = (0..plan.servers).map(|number| {
            let mut mood = plan.disk.clone();
            mood.write_mean = random.log_within(mood.write_mean / 2 + 1, mood.write_mean * 2);
            let off = if plan.locks.is_some() { LOCK_CLOCKS_PPM } else { CLOCKS_PPM };
            let rate = random.within(1_000_000 - off, 1_000_000 + off);
            let clock = Clock::new(rate, random.below(1000 * SECOND));
            Server::new(id_of(number), Disk::new(mood, random.fork()), clock)
        });
        let servers: Vec<Server> = servers.collect();
        let clients = (0..plan.clients).map(|client| Client {
            random: random.fork(),
            waits_for: None,
            server: client % plan.servers,
            seen: Default::default(),
        });
        let clients = clients.collect();
        let watchers = (0..plan.watchers).map(|watcher| {
            let mut own = random.fork();
            let key = own.chance(0.7).then(|| own.below(u64::from(plan.keys)) as u32);
            Watcher {
                random: own,
                server: watcher % plan.servers,
                key,
                course: follow::course(),
                told: Vec::new(),
            }
        });
        let mut watchers: Vec<Watcher> = watchers.collect();
        let locks = plan.locks.clone().map(|of| Locks::new(of, plan.servers, &mut random));
        if let Some(of) = &plan.locks {
            let topics = names::watchable(of.keys, of.nodes).into_iter().enumerate();
            watchers.extend(topics.map(|(number, topic)| Watcher {
                random: random.fork(),
                server: number % plan.servers,
                key: Some(topic),
                course: follow::course(),
                told: Vec::new(),
            }));
        }
        let network = Network::new(plan.servers, plan.network.clone(), random.fork());
        let nemesis = Nemesis { random: random.fork(), hurt: Default::default(), leapt_at: 0 };
        let mut world = World {
            now: 0,
            queue: Queue::new(),
            random,
            servers,
            network,
            clients,
            watchers,
            ops: Vec::new(),
            queries: Vec::new(),
            locks,
            nemesis,
            operator: Default::default(),
            finish: Default::default(),
            truth: Truth::default(),
            tally: Tally::default(),
            trace,
            broken: None,
            healed: false,
            done: false,
            copies: 0,
            plan,
        };
        world.plan_beginning();
        world
    }

    fn plan_beginning(&mut self) {
        for server in 0..self.servers.len() {
            self.queue.push(self.random.clone().below(50 * MILLI), Event::Start { server });
        }
        self.queue.push(60 * MILLI, Event::Bootstrap);
        for client in 0..self.clients.len() {
            let at = self.random.within(100 * MILLI, SECOND);
            self.queue.push(at, Event::ClientActs { client });
        }
        for watcher in 0..self.watchers.len() {
            let at = self.random.within(100 * MILLI, SECOND);
            self.queue.push(at, Event::Asks { watcher });
        }
        self.begin_locks();
        let first = SECOND + self.random.below(2 * SECOND);
        self.queue.push(first, Event::Fault);
        self.queue.push(self.plan.duration, Event::Heal);
    }
}
