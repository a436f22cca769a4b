//! A log, its disk, and what was promised: every input is drawn from a seed, and after a crash everything promised must be there.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use muster_protocol::entry::{Configuration, Entry, EntryKind, Server, ServerId, Suffrage};
use muster_protocol::log::{
    Log, Notice, Options, ReadToken, Recovered, Refused, Request, SnapshotEncoder, SnapshotMeta,
    SnapshotReader, recover,
};

use crate::disk::{Disk, Random};

/// Small segments: many rollovers.
pub const SEGMENT_BYTES: u64 = 48 << 10;

/// What the log was told, in order.
#[derive(Clone, Debug)]
enum Told {
    Entry(Entry),
    /// A snapshot that ends with (index, term) was saved.
    Saved(u64, u64),
}

/// What was promised.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    told: Vec<Told>,
    /// The state before `told`: last entry of the snapshot, and entries held.
    base: (u64, u64),
    held: Vec<Entry>,
    /// How many of `told` were promised.
    durable: usize,
    votes: Vec<(u64, Option<ServerId>)>,
    votes_durable: usize,
    snapshot: u64,
}

pub struct World {
    pub log: Log,
    pub disk: Disk,
    pub promises: Promises,
    pub notes: Vec<String>,
    pub repair_until: u64,
    /// What is promised once the repairs are done.
    settled: Option<Promises>,
    random: Random,
    queue: VecDeque<Request>,
    committed: u64,
    /// A snapshot of another server is being written, which may replace what is not committed.
    installing: bool,
    term: u64,
    reads: Vec<(ReadToken, u64)>,
    pub requests: u64,
    peers: bool,
}

pub fn options(peers: bool) -> Options {
    Options {
        segment_bytes: SEGMENT_BYTES,
        seed: 77,
        id: ServerId([1; 16]),
        expects_peers: peers,
        ..Options::default()
    }
}

pub fn configuration(peers: bool) -> Configuration {
    let server = |n: u8| Server {
        id: ServerId([n; 16]),
        name: format!("s{n}"),
        address: format!("10.0.0.{n}:8300"),
        suffrage: Suffrage::Voter,
    };
    Configuration::new((1..=if peers { 3 } else { 1 }).map(server).collect())
}

/// A snapshot's bytes: a function of its last entry.
pub fn snapshot_bytes(index: u64, term: u64, peers: bool) -> Vec<Bytes> {
    let meta = SnapshotMeta {
        index,
        term,
        configuration_index: 1,
        configuration: configuration(peers),
        state_version: 1,
    };
    let (mut encoder, header) = SnapshotEncoder::new(&meta);
    let mut pieces = vec![header];
    for section in 0..index % 4 {
        let bytes = vec![(index + section) as u8; (index * 37 % 3000) as usize];
        pieces.extend(encoder.section(section as u16, 1, bytes.into()));
    }
    pieces.push(encoder.finish());
    pieces
}

fn check_snapshot(reader: &SnapshotReader) {
    let (index, term) = (reader.meta().index, reader.meta().term);
    let expected: Vec<u8> = snapshot_bytes(index, term, false).concat();
    let peers: Vec<u8> = snapshot_bytes(index, term, true).concat();
    assert!(
        expected == reader.bytes()[..] || peers == reader.bytes()[..],
        "the snapshot is what was written"
    );
}

impl Promises {
    /// The last index that was promised.
    pub fn last(&self) -> u64 {
        let (base, held) = self.state(self.durable);
        held.last().map_or(base.0, |entry| entry.index.max(base.0))
    }

    /// The logical log after `count` things told.
    fn state(&self, count: usize) -> ((u64, u64), Vec<Entry>) {
        let (mut base, mut held) = (self.base, self.held.clone());
        for told in &self.told[..count] {
            step(&mut base, &mut held, told);
        }
        (base, held)
    }

    /// Whether what was recovered is the log after some prefix of what it was told, and no less than promised.
    pub fn verdict(&self, recovered: &Recovered) -> Result<(), String> {
        self.check_votes(recovered)?;
        let found = recovered.snapshot.as_ref().map_or((0, 0), |reader| {
            check_snapshot(reader);
            (reader.meta().index, reader.meta().term)
        });
        let log = &recovered.log;
        assert!(log.first_index() <= found.0 + 1, "no gap behind the snapshot");
        let entries = &recovered.entries;
        assert_eq!(entries.first().map_or(log.first_index(), |entry| entry.index), log.first_index());
        assert_eq!(entries.last().map_or(found.0, |entry| entry.index), log.last_index());
        let (mut base, mut held) = self.state(self.durable);
        let mut at = self.durable;
        loop {
            if same(found, entries, base, &held) {
                return Ok(());
            }
            let Some(told) = self.told.get(at) else { break };
            step(&mut base, &mut held, told);
            at += 1;
        }
        let (base, held) = self.state(self.durable);
        Err(format!(
            "recovered {}..={} (term {}) behind {found:?}, which is no state from the promised one on: {:?}..={:?} behind {base:?}; notes \
             {:?}",
            log.first_index(),
            log.last_index(),
            log.last_term(),
            held.first().map(|entry| entry.index),
            held.last().map(|entry| (entry.index, entry.term)),
            recovered.notes
        ))
    }

    /// Requires it, and that the newest snapshot promised is there.
    fn check(&self, recovered: &Recovered) {
        if let Err(why) = self.verdict(recovered) {
            panic!("{why}");
        }
        let found = recovered.snapshot.as_ref().map_or(0, |reader| reader.meta().index);
        assert!(found >= self.snapshot, "snapshot {found} of {}", self.snapshot);
    }

    fn check_votes(&self, recovered: &Recovered) -> Result<(), String> {
        if self.votes_durable == 0 && recovered.vote.is_none() {
            return Ok(());
        }
        let possible = &self.votes[self.votes_durable.saturating_sub(1)..];
        let found = (recovered.term, recovered.vote);
        let promised = self.votes_durable.checked_sub(1).map_or(0, |at| self.votes[at].0);
        let newer = recovered.vote.is_none() && promised < recovered.term;
        match possible.contains(&found) || newer {
            true => Ok(()),
            false => Err(format!("vote {found:?} of {possible:?}")),
        }
    }
}

fn step(base: &mut (u64, u64), held: &mut Vec<Entry>, told: &Told) {
    match told {
        Told::Entry(entry) => {
            let from = held.partition_point(|old| old.index < entry.index);
            held.truncate(from);
            held.push(entry.clone());
        }
        Told::Saved(index, term) => {
            let kept = *base == (*index, *term)
                || held.iter().any(|entry| (entry.index, entry.term) == (*index, *term));
            if !kept {
                held.clear();
            }
            *base = (*index, *term);
        }
    }
}

/// Whether `entries` behind the snapshot `found` are the logical log (`base`, `held`).
fn same(found: (u64, u64), entries: &[Entry], base: (u64, u64), held: &[Entry]) -> bool {
    let keeps = base == found || held.iter().any(|entry| (entry.index, entry.term) == found);
    let expected: &[Entry] = match (found.0 == 0 && base.0 == 0) || keeps {
        true => &held[held.partition_point(|entry| entry.index <= found.0)..],
        false => &[],
    };
    let after = &entries[entries.partition_point(|entry| entry.index <= found.0)..];
    let before = &entries[..entries.len() - after.len()];
    // What was kept from before the snapshot is what was there.
    let first_held = held.first().map_or(u64::MAX, |entry| entry.index);
    let known = |entry: &Entry| {
        entry.index < first_held
            || held.binary_search_by_key(&entry.index, |e| e.index).is_ok_and(|at| held[at] == *entry)
    };
    after == expected && before.iter().all(known)
}

impl World {
    /// A new server.
    pub fn new(seed: u64, peers: bool) -> World {
        let world = World::open(Disk::default(), Promises::default(), seed, peers);
        world.expect("nothing is there to be refused")
    }

    /// Opens what a crash left, and requires that it is what was promised.
    pub fn open(disk: Disk, promises: Promises, seed: u64, peers: bool) -> Result<World, Refused> {
        let recovered = recover(options(peers), disk.files())?;
        promises.check(&recovered);
        Ok(World::after(recovered, disk, promises, seed, peers))
    }

    /// Goes on from what was recovered. It is promised once the repairs are done; until then the old promises stand.
    pub fn after(recovered: Recovered, disk: Disk, promises: Promises, seed: u64, peers: bool) -> World {
        let snapshot =
            recovered.snapshot.as_ref().map_or((0, 0), |reader| (reader.meta().index, reader.meta().term));
        let settled = Promises {
            base: snapshot,
            held: recovered.entries,
            votes: vec![(recovered.term, recovered.vote)],
            snapshot: snapshot.0,
            ..Promises::default()
        };
        World {
            committed: snapshot.0,
            installing: false,
            term: recovered.term.max(recovered.log.last_term()).max(1),
            log: recovered.log,
            disk,
            promises,
            settled: Some(settled),
            random: Random(seed),
            queue: VecDeque::new(),
            reads: Vec::new(),
            requests: 0,
            notes: recovered.notes,
            repair_until: recovered.repair_until,
            peers,
        }
    }

    /// Runs `inputs` inputs, and lets the disk obey some requests after each, all after the last. `before` sees each request before the disk
    /// obeys it, and may stop the run.
    pub fn run(
        &mut self,
        inputs: u64,
        before: &mut dyn FnMut(&Disk, &Promises, &Request) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.drain(u64::MAX, before)?;
        for _ in 0..inputs {
            self.input();
            let some = self.random.below(4);
            self.drain(some, before)?;
        }
        self.drain(u64::MAX, before)
    }

    /// Lets the disk obey up to `most` requests.
    pub fn drain(
        &mut self,
        most: u64,
        before: &mut dyn FnMut(&Disk, &Promises, &Request) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for _ in 0..most {
            let mut asked = Vec::new();
            self.log.poll(Duration::ZERO, &mut asked);
            self.queue.extend(asked);
            let Some(request) = self.queue.pop_front() else { break };
            before(&self.disk, &self.promises, &request)?;
            self.requests += 1;
            let mut notices = Vec::new();
            let completion = self.disk.obey(&request);
            self.log.complete(completion, &mut notices).expect("a disk without faults");
            for notice in notices {
                self.notice(notice);
            }
        }
        ControlFlow::Continue(())
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Settled => {
                let settled = self.settled.take().expect("the log settles once");
                let told = std::mem::take(&mut self.promises.told);
                assert!(told.is_empty() || self.requests > 0);
                self.promises = Promises { votes_durable: 1, ..settled };
            }
            Notice::Durable { index, term } => {
                let is = |told: &Told| matches!(told, Told::Entry(entry) if (entry.index, entry.term) == (index, term));
                let at = self.promises.told.iter().rposition(is);
                // None: promised before the last reset of the list.
                self.promises.durable = self.promises.durable.max(at.map_or(0, |at| at + 1));
                assert_eq!(self.log.term_at(index), Some(term), "only what is part of the log is promised");
            }
            Notice::VoteSaved { term, vote } => {
                let at = self.promises.votes.iter().position(|saved| *saved == (term, vote));
                self.promises.votes_durable = at.expect("a vote that was to be saved") + 1;
            }
            Notice::SnapshotSaved { index, term, .. } => {
                self.promises.told.push(Told::Saved(index, term));
                self.promises.durable = self.promises.durable.max(match self.log.last_index() == index {
                    true => self.promises.told.len(),
                    false => 0,
                });
                self.promises.snapshot = index;
                self.committed = self.committed.max(index);
                self.installing = false;
                self.fold();
            }
            Notice::Entries { token, entries } => {
                let at =
                    self.reads.iter().position(|read| read.0 == token).expect("a read that was asked for");
                let (_, from) = self.reads.swap_remove(at);
                let ((_, _), held) = self.promises.state(self.promises.told.len());
                for (place, entry) in entries.iter().enumerate() {
                    assert_eq!(entry.index, from + place as u64);
                    assert_eq!(entry.body.as_ptr() as usize % 16, 0);
                    assert!(held.contains(entry), "what is read back is what was appended");
                }
            }
            Notice::ReadFailed { token, damage } => {
                assert_eq!(damage, None);
                self.reads.retain(|read| read.0 != token);
            }
            Notice::Full | Notice::Room | Notice::SnapshotBytes { .. } | Notice::SnapshotFailed { .. } => {
                panic!("not asked for")
            }
        }
    }

    /// Keeps the list of what was told short: all that is promised and will not be replaced goes into the state before it.
    fn fold(&mut self) {
        let count = self.promises.durable;
        let (base, held) = self.promises.state(count);
        self.promises.told.drain(..count);
        self.promises.durable = 0;
        self.promises.base = base;
        self.promises.held = held;
    }

    fn input(&mut self) {
        let durable = self.log.durable_index();
        if !self.installing {
            self.committed += self.random.below(durable.saturating_sub(self.committed) + 1);
        }
        match self.random.below(100) {
            0..=54 => self.append(self.log.last_index() + 1),
            55..=58 => {
                self.term += 1;
                self.append(self.log.last_index() + 1);
            }
            // A leader whose snapshot is under way replaces nothing that the snapshot holds.
            59..=66 if !self.installing => {
                self.term += 1;
                let choices = self.log.last_index() - self.committed + 1;
                let at = self.committed + 1 + self.random.below(choices);
                self.append(at);
            }
            67..=74 => {
                self.term += self.random.below(2);
                let last = self.promises.votes.last().copied().unwrap_or((0, None));
                let vote = match last {
                    (term, Some(vote)) if term == self.term => Some(vote),
                    _ => (!self.random.one_in(3)).then(|| ServerId([self.random.below(3) as u8; 16])),
                };
                self.promises.votes.push((self.term, vote));
                self.log.save_vote(self.term, vote);
            }
            75..=78 => {
                let index = self.committed;
                let newest = self.log.snapshot().map_or(0, |newest| newest.0);
                if let Some(term) = self.log.term_at(index).filter(|_| index > newest) {
                    self.write_snapshot(index, term);
                }
            }
            79..=84 => self.log.cut_before(self.random.below(self.committed + 1)),
            85 => {
                self.term += 1;
                let index = self.committed + 1 + self.random.below(40);
                self.write_snapshot(index, self.term);
            }
            _ => {
                let held = durable.saturating_sub(self.log.first_index()) + 1;
                let from = self.log.first_index() + self.random.below(held);
                let (to, bytes) = (from + self.random.below(50), 1 << self.random.below(17));
                if let Some(token) = self.log.read(from, to, bytes) {
                    self.reads.push((token, from));
                }
            }
        }
    }

    fn write_snapshot(&mut self, index: u64, term: u64) {
        self.installing = self.log.term_at(index) != Some(term);
        self.log.snapshot_begin(index, term);
        for piece in snapshot_bytes(index, term, self.peers) {
            self.log.snapshot_write(piece);
        }
        self.log.snapshot_end();
    }

    pub fn append(&mut self, first: u64) {
        let count = 1 + self.random.below(8);
        let entries: Vec<Entry> = (first..first + count).map(|index| self.entry(index)).collect();
        self.promises.told.extend(entries.iter().cloned().map(Told::Entry));
        self.log.append(&entries);
    }

    fn entry(&mut self, index: u64) -> Entry {
        let length = match self.random.below(20) {
            0 => 0,
            1 => self.random.below(30_000),
            2..=4 => self.random.below(4000),
            _ => self.random.below(300),
        };
        // Some bodies hold long runs of zeros, which a torn sector looks like.
        let zeros = self.random.one_in(5);
        let tag = self.random.next();
        let body = (0..length)
            .map(|at| if zeros && at > 20 { 0 } else { (tag >> (at % 7)) as u8 })
            .collect::<Vec<u8>>();
        let (kind, version, body) = match index {
            1 => (EntryKind::Configuration, Configuration::VERSION, configuration(self.peers).encode()),
            _ => (EntryKind::Command, 1, body.into()),
        };
        Entry { term: self.term, index, kind, version, body }
    }
}
