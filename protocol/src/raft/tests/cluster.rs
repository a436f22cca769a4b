//! Clusters in one thread on virtual time, and what must hold of them at every step: election safety, log matching, leader
//! completeness, state machine safety, one vote a term, reads by round and by lease.

use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use super::super::*;
use super::one::{id, voters};
use crate::entry::{Entry, EntryKind, Now};

pub(super) type Millis = u64;

pub(super) fn number(id: ServerId) -> usize {
    usize::from(id.0[0]) - 1
}

/// Draws of the test itself.
pub(super) struct Dice(u64);

impl Dice {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end.max(1)
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// What the state machine of a server is: here, all that it has applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Snapshot {
    pub at: Position,
    pub hash: u64,
    pub configuration: (u64, Configuration),
}

#[derive(Clone, Debug)]
pub(super) enum Write {
    Vote(u64, Option<ServerId>),
    Append(Vec<Entry>),
    /// A received one is told to its sender when it holds.
    Snapshot(Snapshot, Option<usize>),
    Repaired,
}

/// What survives a crash, and what is on its way there.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub term: u64,
    pub vote: Option<ServerId>,
    pub entries: BTreeMap<u64, Entry>,
    pub snapshot: Snapshot,
    pub repair_until: u64,
    pub queue: VecDeque<(Millis, Write)>,
    pub stalled_until: Millis,
    pub full: bool,
}

impl Disk {
    fn apply(&mut self, write: &Write) {
        match write {
            Write::Vote(term, vote) => (self.term, self.vote) = (*term, *vote),
            Write::Append(entries) => {
                self.entries.split_off(&entries[0].index);
                self.entries.extend(entries.iter().map(|entry| (entry.index, entry.clone())));
            }
            Write::Snapshot(snapshot, _) => {
                let at = snapshot.at;
                let keeps = self.entries.get(&at.index).is_some_and(|entry| entry.term == at.term);
                if at.index > self.snapshot.at.index {
                    self.snapshot = snapshot.clone();
                    if !keeps {
                        self.entries.clear();
                    }
                }
            }
            Write::Repaired => self.repair_until = 0,
        }
    }

    pub fn last(&self) -> u64 {
        self.entries.last_key_value().map_or(self.snapshot.at.index, |(index, _)| *index)
    }

    fn restored(&self) -> Restored {
        let mut log = LogView::new(self.snapshot.at);
        let mut configurations = Vec::new();
        if !self.snapshot.configuration.1.servers.is_empty() {
            configurations.push(self.snapshot.configuration.clone());
        }
        for entry in self.entries.range(self.snapshot.at.index + 1..).map(|(_, entry)| entry) {
            log.push(Position::new(entry.index, entry.term), entry.body.len());
            if entry.kind == EntryKind::Configuration {
                let configuration = Configuration::decode(entry.version, &entry.body).unwrap();
                configurations.push((entry.index, configuration));
            }
        }
        Restored {
            term: self.term,
            vote: self.vote,
            log,
            committed: self.snapshot.at.index,
            configurations,
            repair_until: self.repair_until,
        }
    }
}

pub(super) struct Node {
    pub raft: Option<Raft>,
    pub disk: Disk,
    /// The log as it is in memory.
    pub log: BTreeMap<u64, Entry>,
    pub state: Snapshot,
    pub paused_until: Millis,
    /// The clock runs at so many percent, from this offset.
    pub rate: u64,
    pub offset: Millis,
    pub lives: u64,
    /// Reads that were begun: token and the commit index that was known anywhere at that time.
    pub reads: BTreeMap<u64, u64>,
}

impl Node {
    fn clock(&self, now: Millis) -> Now {
        Duration::from_micros((self.offset + now) * 10 * self.rate)
    }
}

#[derive(Clone)]
pub(super) enum Parcel {
    Message(Message),
    Snapshot(u64, Snapshot),
    SnapshotDone(Option<u64>),
}

/// A parcel on its way, ordered by when it arrives: the earliest is the greatest.
pub(super) struct Flight(Millis, u64, usize, usize, Parcel);

impl PartialEq for Flight {
    fn eq(&self, other: &Flight) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Flight {}
impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Flight) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Flight {
    fn cmp(&self, other: &Flight) -> std::cmp::Ordering {
        (other.0, other.1).cmp(&(self.0, self.1))
    }
}

pub(super) struct Cluster {
    pub seed: u64,
    pub dice: Dice,
    pub now: Millis,
    pub nodes: Vec<Node>,
    pub flights: BinaryHeap<Flight>,
    pub sent: u64,
    /// Percent of messages that are lost, and that arrive twice.
    pub loss: u64,
    pub doubles: u64,
    pub delay: Millis,
    /// Whether parcels from one reach the other.
    pub cut: Vec<Vec<bool>>,
    pub chaos: bool,
    pub damages: bool,
    pub multiplier: u32,
    pub proposed: u64,
    pub tokens: u64,

    /// Who led in a term, and the terms of what was in its log then.
    pub leaders: BTreeMap<u64, (usize, BTreeMap<u64, u64>)>,
    pub votes: BTreeMap<(u64, usize), ServerId>,
    /// All entries that ever were in a log, with the term of the one before.
    pub written: BTreeMap<(u64, u64), (u64, Entry)>,
    /// All that is committed, with the newest term in which that was known.
    pub committed: BTreeMap<u64, (u64, Entry)>,
    pub elections: u64,
    pub reads_done: u64,
    pub leases_seen: u64,
}

impl Cluster {
    pub fn new(seed: u64, count: usize, blank: usize) -> Cluster {
        let mut cluster = Cluster::stopped(seed, count, blank);
        cluster.bootstrap(count);
        cluster
    }

    pub fn bootstrap(&mut self, count: usize) {
        for n in 0..self.nodes.len() {
            self.start(n);
        }
        for n in 0..count {
            self.step(n, Input::Bootstrap { configuration: voters(count) });
        }
    }

    pub fn stopped(seed: u64, count: usize, blank: usize) -> Cluster {
        let mut dice = Dice(seed);
        let nodes = (0..count + blank).map(|_| Node {
            raft: None,
            disk: Disk::default(),
            log: BTreeMap::new(),
            state: Snapshot::default(),
            paused_until: 0,
            rate: 100,
            offset: dice.below(100_000),
            lives: 0,
            reads: BTreeMap::new(),
        });
        let nodes: Vec<Node> = nodes.collect();
        let cut = vec![vec![false; nodes.len()]; nodes.len()];
        Cluster {
            seed,
            dice,
            now: 0,
            nodes,
            flights: BinaryHeap::new(),
            sent: 0,
            loss: 0,
            doubles: 0,
            delay: 5,
            cut,
            chaos: false,
            damages: blank == 0 && seed.is_multiple_of(2),
            multiplier: 2,
            proposed: 0,
            tokens: 0,
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            written: BTreeMap::new(),
            committed: BTreeMap::new(),
            elections: 0,
            reads_done: 0,
            leases_seen: 0,
        }
    }

    pub fn start(&mut self, n: usize) {
        let seed = self.dice.below(u64::MAX);
        let rate = if self.chaos { 91 + self.dice.below(19) } else { 100 };
        let node = &mut self.nodes[n];
        node.rate = rate;
        let mut options = Options::new(id(n), self.multiplier, seed);
        options.limits.message_bytes = 600;
        options.limits.in_flight_messages = 4;
        node.lives += 1;
        node.log = node.disk.entries.clone();
        node.state = node.disk.snapshot.clone();
        node.reads.clear();
        node.disk.queue.clear();
        let clock = node.clock(self.now);
        node.raft = Some(Raft::new(clock, options, node.disk.restored()));
        let full = node.disk.full;
        self.step(n, Input::DiskFull(full));
    }

    /// What was on its way to the disk is lost from some write on.
    pub fn crash(&mut self, n: usize) {
        let kept = self.dice.below(self.nodes[n].disk.queue.len() as u64 + 1) as usize;
        let disk = &mut self.nodes[n].disk;
        for (_, write) in disk.queue.drain(..).take(kept).collect::<Vec<_>>() {
            disk.apply(&write);
        }
        self.nodes[n].raft = None;
    }

    /// A crash, and the end of the log cannot be read any more.
    pub fn damage(&mut self, n: usize) {
        self.crash(n);
        let disk = &mut self.nodes[n].disk;
        let (last, first) = (disk.last(), disk.snapshot.at.index + 1);
        if last >= first {
            disk.repair_until = disk.repair_until.max(last);
            let from = last - self.dice.below(last - first + 1);
            self.nodes[n].disk.entries.split_off(&from);
        }
    }

    pub fn step(&mut self, n: usize, input: Input) {
        let clock = self.nodes[n].clock(self.now);
        let Some(mut raft) = self.nodes[n].raft.take() else { return };
        let mut effects = Vec::new();
        raft.step(clock, input, &mut effects);
        self.nodes[n].raft = Some(raft);
        for effect in effects {
            self.obey(n, effect);
        }
        self.check(n);
    }

    pub fn raft(&self, n: usize) -> &Raft {
        self.nodes[n].raft.as_ref().expect("it runs")
    }

    fn obey(&mut self, n: usize, effect: Effect) {
        match effect {
            Effect::SaveVote { term, vote } => self.write(n, Write::Vote(term, vote)),
            Effect::Truncated { from } => {
                assert!(from > self.nodes[n].state.at.index, "seed {}: {n} truncates {from}", self.seed);
                self.nodes[n].log.split_off(&from);
            }
            Effect::Append { entries } => {
                for entry in &entries {
                    let before = entry.index - 1;
                    let base = self.nodes[n].state.at;
                    let log = &mut self.nodes[n].log;
                    let term = log.get(&before).map_or(base.term, |entry| entry.term);
                    log.insert(entry.index, entry.clone());
                    let written = self.written.entry((entry.index, entry.term));
                    let written = written.or_insert_with(|| (term, entry.clone()));
                    assert_eq!(written.1, *entry, "seed {}: log matching", self.seed);
                    assert_eq!(written.0, term, "seed {}: log matching before {entry:?}", self.seed);
                }
                self.write(n, Write::Append(entries));
            }
            Effect::Send { to, message } => {
                if let Message::VoteReply(VoteReply { term, granted: true, .. }) = message {
                    let first = *self.votes.entry((term, n)).or_insert(to);
                    assert_eq!(first, to, "seed {}: {n} votes twice in {term}", self.seed);
                    let disk = &self.nodes[n].disk;
                    assert!((disk.term, disk.vote) == (term, Some(to)), "seed {}: vote not saved", self.seed);
                }
                self.send(n, number(to), Parcel::Message(message));
            }
            Effect::SendEntries { to, mut append, last } => {
                let range = self.nodes[n].log.range(append.prev.index + 1..=last);
                append.entries = range.map(|(_, entry)| entry.clone()).collect();
                assert_eq!(append.entries.len() as u64, last - append.prev.index, "seed {}", self.seed);
                self.send(n, number(to), Parcel::Message(Message::Append(append)));
            }
            Effect::SendSnapshot { to, term } => {
                let snapshot = self.nodes[n].disk.snapshot.clone();
                assert!(snapshot.at.index > 0, "seed {}: a snapshot is asked for", self.seed);
                self.send(n, number(to), Parcel::Snapshot(term, snapshot));
                // The driver's own time limit.
                let later = self.now + 600;
                self.sent += 1;
                self.flights.push(Flight(later, self.sent, number(to), n, Parcel::SnapshotDone(None)));
            }
            Effect::SnapshotAccepted { index, keep_log, .. } => {
                let node = &mut self.nodes[n];
                node.state = node.disk.snapshot.clone();
                assert_eq!(node.state.at.index, index);
                if !keep_log {
                    node.log.clear();
                }
            }
            Effect::Committed { index } => self.commit(n, index),
            Effect::ReadReady { token, index } => {
                let known = self.nodes[n].reads.remove(&token).expect("it was asked");
                assert!(index >= known, "seed {}: a stale read: {index}, {known} was committed", self.seed);
                self.reads_done += 1;
            }
            Effect::ReadFailed { token, .. } => {
                self.nodes[n].reads.remove(&token);
            }
            Effect::Role { role: Role::Leader, term, .. } => self.elected(n, term),
            Effect::Repaired => self.write(n, Write::Repaired),
            Effect::Fatal { why } => panic!("{why}"),
            Effect::Contradicted { from, why } => panic!("seed {}: {n} refuses {from}: {why}", self.seed),
            _ => {}
        }
    }

    fn write(&mut self, n: usize, write: Write) {
        let delay = 1 + self.dice.below(10);
        let disk = &mut self.nodes[n].disk;
        let after = disk.queue.back().map_or(self.now, |(at, _)| *at).max(disk.stalled_until);
        disk.queue.push_back((after + delay, write));
    }

    fn written(&mut self, n: usize) {
        let Some((_, write)) = self.nodes[n].disk.queue.pop_front() else { return };
        self.nodes[n].disk.apply(&write);
        match write {
            Write::Vote(term, vote) => self.step(n, Input::VoteSaved { term, vote }),
            Write::Append(entries) => {
                let last = entries.last().expect("an append is not empty").index;
                let replaced = self.nodes[n].disk.queue.iter().filter_map(|(_, write)| match write {
                    Write::Append(entries) => Some(entries[0].index - 1),
                    _ => None,
                });
                let index = replaced.fold(last, u64::min);
                if let Some(entry) = self.nodes[n].disk.entries.get(&index) {
                    let term = entry.term;
                    self.step(n, Input::LogDurable { index, term });
                }
            }
            Write::Snapshot(snapshot, None) => {
                let index = snapshot.at.index;
                let first_kept = index.saturating_sub(self.dice.below(8)).max(1);
                let base = self.nodes[n].log.first_key_value().map_or(index + 1, |(first, _)| *first);
                let first_kept = first_kept.max(base).min(index + 1);
                let kept = self.nodes[n].log.split_off(&first_kept);
                self.nodes[n].log = kept;
                self.step(n, Input::SnapshotTaken { index, first_kept });
            }
            Write::Snapshot(snapshot, Some(from)) => {
                let (configuration_index, configuration) = snapshot.configuration;
                let Position { index, term } = snapshot.at;
                self.step(n, Input::SnapshotInstalled { index, term, configuration_index, configuration });
                self.send(n, from, Parcel::SnapshotDone(Some(index)));
            }
            Write::Repaired => {}
        }
    }

    fn send(&mut self, from: usize, to: usize, parcel: Parcel) {
        if to >= self.nodes.len() || self.cut[from][to] || self.dice.percent(self.loss) {
            return;
        }
        let copies = 1 + u64::from(self.dice.percent(self.doubles));
        for _ in 0..copies {
            let late = if self.dice.percent(self.loss) { self.dice.below(400) } else { 0 };
            let at = self.now + 1 + self.dice.below(self.delay) + late;
            self.sent += 1;
            self.flights.push(Flight(at, self.sent, from, to, parcel.clone()));
        }
    }

    fn arrive(&mut self, from: usize, to: usize, parcel: Parcel) {
        match parcel {
            Parcel::Message(message) => self.step(to, Input::Message { from: id(from), message }),
            Parcel::Snapshot(term, snapshot) => {
                let Some(raft) = &self.nodes[to].raft else { return };
                if term >= raft.term() && snapshot.at.index > raft.commit_index() {
                    self.write(to, Write::Snapshot(snapshot, Some(from)));
                }
            }
            Parcel::SnapshotDone(index) => {
                self.step(to, Input::SnapshotSent { to: id(from), index });
            }
        }
    }

    fn commit(&mut self, n: usize, index: u64) {
        let term = self.raft(n).term();
        for at in self.nodes[n].state.at.index + 1..=index {
            let entry = self.nodes[n].log.get(&at).unwrap_or_else(|| panic!("seed {}: no {at}", self.seed));
            let entry = entry.clone();
            let known = self.committed.entry(at).or_insert_with(|| (term, entry.clone()));
            assert_eq!(known.1, entry, "seed {}: two entries committed at {at}", self.seed);
            let known_in = known.0;
            for (led, (_, log)) in self.leaders.range(known_in + 1..) {
                let held = log.get(&at) == Some(&entry.term)
                    || log.first_key_value().is_none_or(|(first, _)| *first > at);
                assert!(held, "seed {}: leader of {led} lacks {at}", self.seed);
            }
            let state = &mut self.nodes[n].state;
            state.at = Position::new(at, entry.term);
            let bits = entry.body.iter().fold(at, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
            state.hash = state.hash.wrapping_mul(0x100_0000_01B3) ^ bits;
            if entry.kind == EntryKind::Configuration {
                let configuration = Configuration::decode(entry.version, &entry.body).unwrap();
                state.configuration = (at, configuration);
            }
        }
        let state = &self.nodes[n].state;
        if state.at.index >= self.nodes[n].disk.snapshot.at.index + 40 {
            let snapshot = state.clone();
            assert_eq!(self.raft(n).configuration_at(state.at.index), Some(&state.configuration));
            if !self.nodes[n].disk.queue.iter().any(|(_, write)| matches!(write, Write::Snapshot(..))) {
                self.write(n, Write::Snapshot(snapshot, None));
            }
        }
    }

    fn elected(&mut self, n: usize, term: u64) {
        self.elections += 1;
        let base = self.nodes[n].log.first_key_value().map_or(0, |(first, _)| first - 1);
        let log = self.nodes[n].log.values().map(|entry| (entry.index, entry.term)).collect();
        for (at, (known_in, entry)) in self.committed.range(base + 1..) {
            let held = self.nodes[n].log.get(at) == Some(entry) || self.nodes[n].state.at.index >= *at;
            assert!(held || *known_in >= term, "seed {}: leader {n} of {term} lacks {at}", self.seed);
        }
        let first = self.leaders.entry(term).or_insert((n, log)).0;
        assert_eq!(first, n, "seed {}: two leaders in term {term}", self.seed);
    }

    /// A leader with a lease has all that is committed anywhere.
    fn check(&mut self, n: usize) {
        let clock = self.nodes[n].clock(self.now);
        let raft = self.raft(n);
        if raft.lease_until().is_some_and(|until| until > clock) {
            let newest = self.committed.last_key_value().map_or(0, |(index, _)| *index);
            assert!(
                raft.commit_index() >= newest,
                "seed {}: {n} has a lease in term {} at {} and {newest} is committed",
                self.seed,
                raft.term(),
                raft.commit_index()
            );
            self.leases_seen += 1;
        }
    }

    /// The next thing that happens, if it is before `end`.
    fn advance(&mut self, end: Millis) -> bool {
        let flight = self.flights.peek().map(|flight| flight.0);
        let disk = |node: &Node| node.raft.as_ref().and(node.disk.queue.front()).map(|(at, _)| *at);
        let tick = |node: &Node| {
            let deadline = node.raft.as_ref()?.next_deadline()?.as_micros() as u64;
            Some(deadline.div_ceil(10 * node.rate).saturating_sub(node.offset).max(self.now))
        };
        let after_pause = |node: &Node, at: Millis| at.max(node.paused_until).max(self.now);
        let events = self.nodes.iter().enumerate().flat_map(|(n, node)| {
            let disk = disk(node).map(|at| (after_pause(node, at), 0, n));
            disk.into_iter().chain(tick(node).map(|at| (after_pause(node, at), 1, n)))
        });
        let own = events.min();
        let flight_first = match (flight, own) {
            (Some(flight), Some((own, ..))) => flight <= own,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let at = if flight_first { flight } else { own.map(|(at, ..)| at) };
        let Some(at) = at.filter(|at| *at <= end) else {
            self.now = end;
            return false;
        };
        self.now = self.now.max(at);
        if !flight_first {
            let (_, what, n) = own.expect("it is the next");
            if what == 0 {
                self.written(n)
            } else {
                self.step(n, Input::Tick)
            }
            return true;
        }
        let Flight(_, number, from, to, parcel) = self.flights.pop().expect("it is the next");
        let paused = self.nodes[to].paused_until;
        if paused > self.now {
            self.flights.push(Flight(paused, number, from, to, parcel));
        } else {
            self.arrive(from, to, parcel);
        }
        true
    }

    pub fn run(&mut self, time: Millis) {
        let end = self.now + time;
        while self.advance(end) {}
    }
}
