//! A network of members in one thread, on virtual time. One seed draws everything.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::super::*;
use crate::random::Random;

/// What is on its way to a member.
#[derive(Clone, Debug)]
enum Mail {
    Packet { from: usize, bytes: Bytes },
    Request { from: usize, stream: StreamId, frame: Bytes },
    Answered { stream: StreamId, frame: Bytes },
    Failed { stream: StreamId, why: String },
}

/// One member, up or down.
pub struct Node {
    pub core: Option<Gossip>,
    pub identity: Identity,
    pub paused_until: Duration,
    /// What came while it was paused.
    inbox: Vec<Mail>,
    /// Counts its lives.
    lives: u64,
    /// What it was told to tell its driver, in order.
    pub told: Vec<(Duration, Effect)>,
}

/// The pool.
pub struct Pool {
    pub now: Duration,
    pub nodes: Vec<Node>,
    pub settings: Settings,
    pub random: Random,
    seed: u64,
    /// Lost packets, percent.
    pub loss: usize,
    /// Packets that come twice, percent.
    pub doubles: usize,
    /// Longest way of a packet.
    pub delay: Duration,
    /// From whom to whom nothing goes.
    pub cut: Vec<Vec<bool>>,
    mail: BTreeMap<(Duration, u64), (usize, Mail)>,
    sent: u64,
    pub packets: u64,
}

/// The name of a member.
pub fn name(n: usize) -> String {
    format!("n{n}")
}

/// Where a member is.
pub fn address(n: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 8301))
}

pub fn number(address: SocketAddr) -> usize {
    match address.ip() {
        std::net::IpAddr::V4(ip) => usize::from(ip.octets()[2]) << 8 | usize::from(ip.octets()[3]),
        std::net::IpAddr::V6(_) => panic!("the pool has none"),
    }
}

pub fn identity(n: usize) -> Identity {
    let mut id = [7; 16];
    id[..8].copy_from_slice(&(n as u64).to_le_bytes());
    let tags = Tags::new([("role", "node"), ("dc", "dc1")]).expect("short");
    Identity {
        name: name(n).into(),
        id: crate::entry::ServerId(id),
        address: address(n),
        tags,
        incarnation: 1,
        keyring: None,
    }
}

impl Pool {
    /// Members that do not know each other.
    pub fn strangers(count: usize, seed: u64) -> Pool {
        let node = |n| Node {
            core: None,
            identity: identity(n),
            paused_until: Duration::ZERO,
            inbox: Vec::new(),
            lives: 0,
            told: Vec::new(),
        };
        let mut pool = Pool {
            now: Duration::from_secs(1000),
            nodes: (0..count).map(node).collect(),
            settings: Settings { common_tags: vec![("dc".into(), "datacenter".into())], ..Settings::lan() },
            random: Random::new(seed),
            seed,
            loss: 0,
            doubles: 0,
            delay: Duration::from_millis(3),
            cut: vec![vec![false; count]; count],
            mail: BTreeMap::new(),
            sent: 0,
            packets: 0,
        };
        (0..count).for_each(|n| pool.start(n));
        pool
    }

    /// A pool whose members all know each other.
    pub fn joined(count: usize, seed: u64) -> Pool {
        let mut pool = Pool::strangers(count, seed);
        (1..count).for_each(|n| pool.join(n, 0));
        pool.run_until(60, |pool| (0..count).all(|n| pool.core(n).live() == count));
        pool.run(5);
        pool.forget_told();
        pool
    }

    pub fn core(&self, n: usize) -> &Gossip {
        self.nodes[n].core.as_ref().unwrap_or_else(|| panic!("{n} is up"))
    }

    /// A new life of a member.
    pub fn start(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.lives += 1;
        let seed = self.seed << 32 | (n as u64) << 8 | node.lives;
        node.core = Some(Gossip::new(self.settings.clone(), node.identity.clone(), seed, self.now));
        node.inbox.clear();
    }

    pub fn kill(&mut self, n: usize) {
        self.nodes[n].core = None;
    }

    pub fn pause(&mut self, n: usize, millis: u64) {
        self.nodes[n].paused_until = self.now + Duration::from_millis(millis);
    }

    pub fn join(&mut self, n: usize, through: usize) {
        self.step(n, Input::Join(vec![address(through)]));
    }

    /// Cuts two groups from each other.
    pub fn part(&mut self, one: &[usize], other: &[usize]) {
        for a in one {
            for b in other {
                (self.cut[*a][*b], self.cut[*b][*a]) = (true, true);
            }
        }
    }

    pub fn heal(&mut self) {
        self.cut.iter_mut().for_each(|row| row.fill(false));
    }

    /// Lets time pass.
    pub fn run(&mut self, secs: u64) {
        self.run_for(Duration::from_secs(secs));
    }

    pub fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while self.advance(end) {}
        self.now = end;
    }

    /// Lets time pass until something is so; how long that took.
    pub fn run_until(&mut self, most: u64, so: impl Fn(&Pool) -> bool) -> Duration {
        let (start, end) = (self.now, self.now + Duration::from_secs(most));
        while !so(self) {
            assert!(self.advance(end), "not so after {most} s");
        }
        self.now - start
    }

    /// The next thing that happens before `end`.
    fn advance(&mut self, end: Duration) -> bool {
        let mail = self.mail.first_key_value().map(|((at, _), _)| *at);
        let wake = |n: &usize| {
            let node = &self.nodes[*n];
            let deadline = node.core.as_ref()?.next_deadline()?;
            Some((deadline.max(node.paused_until).max(self.now), *n))
        };
        let timer = (0..self.nodes.len()).filter_map(|n| wake(&n)).min();
        let at = mail.into_iter().chain(timer.map(|(at, _)| at)).min();
        let Some(at) = at.filter(|at| *at < end) else { return false };
        self.now = self.now.max(at);
        if mail == Some(at) {
            if let Some((_, (to, mail))) = self.mail.pop_first() {
                self.deliver(to, mail);
            }
        } else if let Some((_, n)) = timer {
            let inbox = std::mem::take(&mut self.nodes[n].inbox);
            inbox.into_iter().for_each(|mail| self.deliver(n, mail));
            self.step(n, Input::Tick);
        }
        true
    }

    fn deliver(&mut self, to: usize, mail: Mail) {
        let node = &mut self.nodes[to];
        if node.core.is_none() {
            if let Mail::Request { from, stream, .. } = mail {
                self.post(
                    from,
                    Duration::from_millis(1),
                    Mail::Failed { stream, why: "connection refused".into() },
                );
            }
            return;
        }
        if node.paused_until > self.now {
            node.inbox.push(mail);
            return;
        }
        match mail {
            Mail::Packet { from, bytes } => self.step(to, Input::Packet { from: address(from), bytes }),
            Mail::Request { from, stream, frame } => {
                let request = Input::Request { stream, from: address(from), frame };
                self.ask(to, from, stream, request);
            }
            Mail::Answered { stream, frame } => self.step(to, Input::Answered { stream, frame }),
            Mail::Failed { stream, why } => self.step(to, Input::StreamFailed { stream, why }),
        }
    }

    fn ask(&mut self, to: usize, from: usize, stream: StreamId, request: Input) {
        let mut out = Vec::new();
        let now = self.now;
        self.nodes[to].core.as_mut().expect("it is up").step(now, request, &mut out);
        let answer = |effect: &Effect| match effect {
            Effect::Answer { frame, .. } => Some(frame.clone()),
            _ => None,
        };
        let mail = match out.iter().find_map(answer) {
            Some(frame) => Mail::Answered { stream, frame },
            None => Mail::Failed { stream, why: "closed".into() },
        };
        self.post(from, self.delay, mail);
        self.obey(to, out);
    }

    /// Gives a member an input, and does what it says.
    pub fn step(&mut self, n: usize, input: Input) {
        let mut out = Vec::new();
        let now = self.now;
        let Some(core) = &mut self.nodes[n].core else { return };
        core.step(now, input, &mut out);
        self.obey(n, out);
    }

    fn obey(&mut self, n: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, packet } => self.send(n, number(to), packet),
                Effect::Dial { stream, to, frame, patience } => {
                    let to = number(to);
                    if to >= self.nodes.len() || self.cut[n][to] || self.cut[to][n] {
                        self.post(n, patience, Mail::Failed { stream, why: "no answer".into() });
                    } else {
                        self.post(to, self.delay * 2, Mail::Request { from: n, stream, frame });
                    }
                }
                Effect::Answer { .. } => {}
                other => self.nodes[n].told.push((self.now, other)),
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, bytes: Bytes) {
        assert!(bytes.len() <= PACKET_LENGTH_MAX);
        self.packets += 1;
        let times = 1 + usize::from(self.random.below(100) < self.doubles);
        for _ in 0..times {
            if to < self.nodes.len() && !self.cut[from][to] && self.random.below(100) >= self.loss {
                let way = Duration::from_micros(100) + self.random.span(self.delay);
                self.post(to, way, Mail::Packet { from, bytes: bytes.clone() });
            }
        }
    }

    fn post(&mut self, to: usize, way: Duration, mail: Mail) {
        self.sent += 1;
        self.mail.insert((self.now + way, self.sent), (to, mail));
    }

    /// What a member takes another for.
    pub fn status(&self, n: usize, of: usize) -> Option<Status> {
        self.core(n).member(&name(of)).map(|member| member.status)
    }

    /// Whether all who are up take a member for this.
    pub fn all_hold(&self, of: usize, status: Option<Status>) -> bool {
        let up = |n: &usize| *n != of && self.nodes[*n].core.is_some();
        (0..self.nodes.len()).filter(up).all(|n| self.status(n, of) == status)
    }

    /// All changes that members have told: when, who, of whom, what.
    pub fn changes(&self) -> impl Iterator<Item = (Duration, usize, &str, &Change)> {
        self.nodes.iter().enumerate().flat_map(|(n, node)| {
            node.told.iter().filter_map(move |(at, effect)| match effect {
                Effect::Member { change, member } => Some((*at, n, &*member.name, change)),
                _ => None,
            })
        })
    }

    /// Who was declared failed, by whom.
    pub fn failures(&self) -> Vec<(usize, String)> {
        let failed = |change: &Change| matches!(change, Change::Failed(_));
        self.changes().filter(|(.., change)| failed(change)).map(|(_, n, of, _)| (n, of.to_owned())).collect()
    }

    pub fn forget_told(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.told.clear());
    }
}
