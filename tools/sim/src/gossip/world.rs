//! A pool of real members in one thread, on virtual time: what is on its way, who wakes when, and what members tell their drivers.

use std::time::Duration;

use bytes::Bytes;
use muster_protocol::entry::{Now, ServerId};
use muster_protocol::gossip::keyring::{Key, Keyring};
use muster_protocol::gossip::{
    Acquainted, Effect, Former, Gossip, Identity, Input, PACKET_LENGTH_MAX, StreamId, Tags,
};

use super::judge::Judge;
use super::nemesis::Deed;
use super::plan::Plan;
use super::wires::Wires;
use crate::queue::{MILLI, Queue, SECOND, Time};
use crate::random::Random;
use crate::trace;
use crate::trace::Trace;

/// What waits for a member that stands still; the rest is lost, as in a socket's buffer.
const INBOX_MAX: usize = 512;

/// When all runs begin, as members see it.
pub const ORIGIN: Time = 1_000 * SECOND;

/// Something that will happen.
pub enum Event {
    /// A member's deadline.
    Wake(u32),
    /// Something arrives.
    Mail { to: u32, mail: Mail },
    /// The nemesis has planned this.
    Deed(Deed),
}

/// What is on its way to a member.
#[derive(Clone)]
pub enum Mail {
    Packet { from: u32, bytes: Bytes },
    Request { from: u32, life: u32, stream: StreamId, frame: Bytes, until: Time },
    Answered { life: u32, stream: StreamId, frame: Bytes },
    Failed { life: u32, stream: StreamId, why: &'static str },
}

/// What is true of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It has never been there.
    Unborn,
    /// It is there.
    Up,
    /// It has been told to leave and is still there.
    Leaving,
    /// Its process has ended without a word.
    Crashed,
    /// It has left by its own will.
    Left,
}

/// One member, up or down.
pub struct Node {
    pub core: Option<Gossip>,
    pub identity: Identity,
    pub truth: Truth,
    /// Since when that is so.
    pub since: Time,
    /// Counts its lives.
    pub life: u32,
    /// When it has joined in this one.
    pub joined: Option<Time>,
    /// It stands still, or did, from then until then.
    pub paused_from: Time,
    pub paused_until: Time,
    /// Until when others have reasons to take it for failed though it is up: it stands still for long, or did.
    pub excused_until: Time,
    /// Until when it has reasons to take others for failed, too: it is cut off, or was.
    pub cut_until: Time,
    /// Whether an operator has said so of it lately, and until when that explains what others take it for.
    pub forced_until: Time,
    /// An operator has told all to forget it, and it has not come back since.
    pub pruned: bool,
    /// What it would find on its disk.
    pub former: Option<Former>,
    inbox: Vec<Mail>,
    wake_at: Time,
}

impl Node {
    /// Whether its process runs.
    pub fn is_up(&self) -> bool {
        self.core.is_some()
    }
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    pub packets: u64,
    pub packet_bytes: u64,
    pub streams: u64,
    pub stream_bytes: u64,
}

/// The pool and all around it.
pub struct World {
    pub now: Time,
    pub plan: Plan,
    pub nodes: Vec<Node>,
    pub wires: Wires,
    pub judge: Judge,
    pub trace: Trace,
    pub traffic: Traffic,
    /// Draws of the nemesis.
    pub random: Random,
    pub queue: Queue<Event>,
    seed: u64,
    out: Vec<Effect>,
}

/// The name of a member.
pub fn name(n: u32) -> String {
    format!("n{n:05}")
}

/// The member with a name.
pub fn number(name: &str) -> u32 {
    name[1..].parse().expect("the names of the pool")
}

/// Where a member is.
pub fn address(n: u32) -> std::net::SocketAddr {
    let [_, high, middle, low] = n.to_be_bytes();
    std::net::SocketAddr::from(([10, high, middle, low], 8301))
}

/// Who is at an address.
pub fn resident(address: std::net::SocketAddr) -> u32 {
    match address.ip() {
        std::net::IpAddr::V4(ip) => u32::from(ip) & 0x00FF_FFFF,
        std::net::IpAddr::V6(_) => panic!("the pool has none"),
    }
}

fn identity(n: u32, sealed: bool) -> Identity {
    let mut id = [7; 16];
    id[..4].copy_from_slice(&n.to_be_bytes());
    let tags =
        [("role", "node"), ("dc", "dc1"), ("id", "8c1f9f60-0000-4000-8000-000000000000"), ("vsn", "2")];
    let key = Key::new(&[9; 32]).expect("32 bytes");
    Identity {
        name: name(n).into(),
        id: ServerId(id),
        address: address(n),
        tags: Tags::new(tags).expect("short"),
        incarnation: 1,
        keyring: sealed.then(|| Keyring::new([key]).expect("one key")),
    }
}

impl World {
    /// The pool of a seed, before its first moment.
    pub fn new(seed: u64, plan: Plan, mut random: Random, trace: Trace) -> World {
        let node = |n| Node {
            core: None,
            identity: identity(n, plan.sealed),
            truth: Truth::Unborn,
            since: 0,
            life: 0,
            joined: None,
            paused_from: 0,
            paused_until: 0,
            excused_until: 0,
            cut_until: 0,
            forced_until: 0,
            pruned: false,
            former: None,
            inbox: Vec::new(),
            wake_at: Time::MAX,
        };
        let wires = Wires::new(super::wires::Quality::quiet(), random.fork());
        World {
            now: ORIGIN,
            nodes: (0..plan.members as u32).map(node).collect(),
            wires,
            judge: Judge::new(plan.members),
            trace,
            traffic: Traffic::default(),
            random,
            queue: Queue::new(),
            seed,
            out: Vec::new(),
            plan,
        }
    }

    /// All members, as if they had known each other for long.
    pub fn begin_acquainted(&mut self) {
        let identities = self.nodes.iter().map(|node| &node.identity);
        let pool = Acquainted::new(identities, as_now(self.now)).expect("names are unique");
        for n in 0..self.nodes.len() as u32 {
            let (settings, seed) = (self.plan.settings.clone(), self.seed_of(n));
            let node = &mut self.nodes[n as usize];
            let identity = node.identity.clone();
            node.core = Gossip::among(settings, identity, &pool, seed, as_now(self.now));
            (node.truth, node.since, node.life) = (Truth::Up, self.now, 1);
            self.arm(n);
        }
    }

    /// A new life of a member, which knows nobody yet.
    pub fn start(&mut self, n: u32) {
        let (now, remember) = (self.now, self.plan.remember);
        let node = &mut self.nodes[n as usize];
        assert!(!node.is_up(), "it has no life yet");
        node.life += 1;
        // Seconds, as the agent does; but never less than a life before had.
        node.identity.incarnation = (node.identity.incarnation + 1).max(now / SECOND);
        (node.truth, node.since) = (Truth::Up, now);
        (node.paused_until, node.pruned, node.joined) = (0, false, None);
        let (identity, former) = (node.identity.clone(), node.former.filter(|_| remember));
        let mut core = Gossip::new(self.plan.settings.clone(), identity, self.seed_of(n), as_now(now));
        if let Some(former) = former {
            core.resume(former);
        }
        self.nodes[n as usize].core = Some(core);
        self.judge.born(n);
        self.arm(n);
    }

    fn seed_of(&self, n: u32) -> u64 {
        let life = u64::from(self.nodes[n as usize].life);
        self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (u64::from(n) << 24 | life)
    }

    /// The process of a member ends, without a word or after the last one.
    pub fn end(&mut self, n: u32, truth: Truth) {
        let node = &mut self.nodes[n as usize];
        let Some(core) = node.core.take() else { return };
        node.identity.incarnation = core.own().incarnation;
        node.former = Some(core.former());
        (node.truth, node.since) = (truth, self.now);
        // Streams that it had not come to are reset.
        std::mem::take(&mut node.inbox).into_iter().for_each(|mail| self.refuse(mail));
        trace!(self, "{n} ends: {truth:?}");
        self.judge.ended(n);
    }

    /// Joins through some that are up.
    pub fn join(&mut self, n: u32) {
        let up = |other: &u32| *other != n && self.nodes[*other as usize].truth == Truth::Up;
        let others: Vec<u32> = (0..self.nodes.len() as u32).filter(up).collect();
        if !others.is_empty() {
            let through = (0..3).map(|_| address(*self.random.one(&others))).collect();
            self.step(n, Input::Join(through));
        }
    }

    /// What happens next, if that is before `end`.
    pub fn advance(&mut self, end: Time) -> bool {
        if self.queue.next_time().is_none_or(|at| at >= end) {
            self.now = end;
            return false;
        }
        let (at, event) = self.queue.pop().expect("there is one");
        assert!(at >= self.now, "time does not go back");
        self.now = at;
        match event {
            Event::Wake(n) => self.wake(n),
            Event::Mail { to, mail } => self.deliver(to, mail),
            Event::Deed(deed) => self.carry_out(deed),
        }
        true
    }

    /// Lets time pass.
    pub fn run_until(&mut self, end: Time) {
        while !self.judge.is_broken() && self.advance(end) {}
    }

    fn wake(&mut self, n: u32) {
        let node = &mut self.nodes[n as usize];
        if node.wake_at != self.now {
            return; // another came before it
        }
        node.wake_at = Time::MAX;
        if node.paused_until > self.now {
            return self.arm(n);
        }
        // What waited while it stood still is taken now, or after its own deadlines.
        let inbox = std::mem::take(&mut node.inbox);
        let due = node.core.as_ref().and_then(Gossip::next_deadline).is_some_and(|at| at <= as_now(self.now));
        let first = inbox.is_empty() || self.random.chance(0.5);
        if due && first {
            self.trace.mix(self.now, [u64::from(n), 0, 0]);
            self.step(n, Input::Tick);
        }
        inbox.into_iter().for_each(|mail| self.deliver(n, mail));
        if due && !first {
            self.step(n, Input::Tick);
        }
        self.arm(n);
    }

    /// Sees to it that a member wakes in time.
    pub fn arm(&mut self, n: u32) {
        let node = &mut self.nodes[n as usize];
        let Some(core) = &node.core else { return };
        let deadline = core.next_deadline().map_or(Time::MAX, |at| at.as_nanos() as Time);
        let paused = node.paused_until > self.now;
        let at = if paused { node.paused_until } else { deadline.max(self.now) };
        if at < node.wake_at || paused && at != node.wake_at {
            node.wake_at = at;
            self.queue.push(at, Event::Wake(n));
        }
    }

    fn deliver(&mut self, to: u32, mail: Mail) {
        let node = &mut self.nodes[to as usize];
        if !node.is_up() {
            return self.refuse(mail);
        }
        if node.paused_until > self.now {
            if let Mail::Request { from, life, stream, until, .. } = mail
                && node.paused_until > until
            {
                let failed = Mail::Failed { life, stream, why: "no answer in time" };
                self.queue.push(until, Event::Mail { to: from, mail: failed });
                return;
            }
            if node.inbox.len() < INBOX_MAX {
                node.inbox.push(mail);
            }
            return;
        }
        let size = mail_size(&mail);
        self.trace.mix(self.now, [u64::from(to), 1, size]);
        let alive = node.life;
        match mail {
            Mail::Packet { from, bytes } => self.step(to, Input::Packet { from: address(from), bytes }),
            Mail::Request { from, life, stream, frame, until } => {
                self.request(to, from, (life, stream, until), frame)
            }
            Mail::Answered { life, stream, frame } if life == alive => {
                self.step(to, Input::Answered { stream, frame })
            }
            Mail::Failed { life, stream, why } if life == alive => {
                self.step(to, Input::StreamFailed { stream, why: why.to_owned() })
            }
            Mail::Answered { .. } | Mail::Failed { .. } => {}
        }
    }

    /// Nobody is there.
    fn refuse(&mut self, mail: Mail) {
        if let Mail::Request { from, life, stream, .. } = mail {
            let failed = Mail::Failed { life, stream, why: "connection refused" };
            self.queue.push(self.now + MILLI, Event::Mail { to: from, mail: failed });
        }
    }

    fn request(&mut self, to: u32, from: u32, dialled: (u32, StreamId, Time), frame: Bytes) {
        let (life, stream, until) = dialled;
        let mut out = std::mem::take(&mut self.out);
        let core = self.nodes[to as usize].core.as_mut().expect("it is up");
        core.step(as_now(self.now), Input::Request { stream, from: address(from), frame }, &mut out);
        let answer = out.iter().find_map(|effect| match effect {
            Effect::Answer { frame, .. } => Some(frame.clone()),
            _ => None,
        });
        let (mut at, mut mail) =
            (self.now + MILLI, Mail::Failed { life, stream, why: "closed without an answer" });
        if let Some(frame) = answer {
            self.traffic.stream_bytes += frame.len() as u64;
            (at, mail) = (self.now + self.wires.stream_way(), Mail::Answered { life, stream, frame });
        }
        if at > until || self.wires.is_cut(to, from) {
            (at, mail) =
                (until.max(self.now), Mail::Failed { life, stream, why: "the answer came too late" });
        }
        self.queue.push(at, Event::Mail { to: from, mail });
        self.obey(to, &mut out);
        self.out = out;
        self.arm(to);
    }

    /// Gives a member an input, and does what it says.
    pub fn step(&mut self, n: u32, input: Input) {
        let Some(core) = &mut self.nodes[n as usize].core else { return };
        let mut out = std::mem::take(&mut self.out);
        core.step(as_now(self.now), input, &mut out);
        self.obey(n, &mut out);
        self.out = out;
        self.arm(n);
    }

    fn obey(&mut self, n: u32, out: &mut Vec<Effect>) {
        for effect in out.drain(..) {
            match effect {
                Effect::Send { to, packet } => self.send(n, resident(to), &packet),
                Effect::Dial { stream, to, frame, patience } => {
                    self.dial(n, resident(to), stream, frame, patience)
                }
                Effect::Answer { .. } | Effect::Rtt { .. } => {}
                other => self.told(n, other),
            }
        }
    }

    fn send(&mut self, from: u32, to: u32, packet: &Bytes) {
        assert!(packet.len() <= PACKET_LENGTH_MAX, "a packet fits a datagram");
        self.traffic.packets += 1;
        self.traffic.packet_bytes += packet.len() as u64;
        if to as usize >= self.nodes.len() {
            return self.judge.stray(from, to); // a damaged address that passed the checksum
        }
        let (now, mut damaged) = (self.now, false);
        let ways: [Option<Time>; 2] = {
            let mut ways = self.wires.ways(from, to);
            [ways.next(), ways.next()]
        };
        for way in ways.into_iter().flatten() {
            let (bytes, hurt) = self.wires.carried(packet);
            damaged |= hurt;
            self.queue.push(now + way, Event::Mail { to, mail: Mail::Packet { from, bytes } });
        }
        if damaged {
            self.judge.tally.one("packets damaged");
        }
    }

    fn dial(&mut self, from: u32, to: u32, stream: StreamId, frame: Bytes, patience: Duration) {
        self.traffic.streams += 1;
        self.traffic.stream_bytes += frame.len() as u64;
        let life = self.nodes[from as usize].life;
        let until = self.now + patience.as_nanos() as Time;
        let cut =
            to as usize >= self.nodes.len() || self.wires.is_cut(from, to) || self.wires.is_cut(to, from);
        let at = self.now + self.wires.stream_way();
        if cut || at > until {
            let failed = Mail::Failed { life, stream, why: "no answer" };
            self.queue.push(until, Event::Mail { to: from, mail: failed });
        } else {
            self.queue.push(at, Event::Mail { to, mail: Mail::Request { from, life, stream, frame, until } });
        }
    }
}

/// Virtual time as members see it.
pub fn as_now(time: Time) -> Now {
    Duration::from_nanos(time)
}

fn mail_size(mail: &Mail) -> u64 {
    match mail {
        Mail::Packet { bytes, .. } => bytes.len() as u64,
        Mail::Request { frame, .. } | Mail::Answered { frame, .. } => 1 << 32 | frame.len() as u64,
        Mail::Failed { .. } => 2 << 32,
    }
}
