//! The disk of one server: obeys requests strictly in order, one at a time, and forgets at a crash what it had not
//! promised to keep.
//!
//! A sector of 512 bytes is written whole or not at all; nothing more is atomic but a rename. A write that was under way
//! at a crash, one that failed, or one that was never synced leaves each of its sectors old or new, by chance. What was
//! reported as durable stays, unless a fault of its own kind damages it later.

use std::collections::{BTreeMap, VecDeque};

use muster_protocol::entry;
use muster_protocol::log::{Completion, DiskError, File, FileName, Request};
use rkyv::util::AlignedVec;

use crate::queue::{MICRO, MILLI, SECOND, Time};
use crate::random::Random;

/// What the hardware writes whole or not at all, bytes.
pub const SECTOR: usize = 512;
/// What a misdirected write hits, bytes.
pub const BLOCK: usize = 4096;

/// How quick and how whole the disk is.
#[derive(Clone, Debug)]
pub struct DiskMood {
    /// Mean time of a write that is to last.
    pub write_mean: Time,
    /// Mean time of all else.
    pub other_mean: Time,
    /// Nothing ends before.
    pub stalled_until: Time,
    /// No file can be made or grow.
    pub full: bool,
    /// How many of the next changes fail; `u64::MAX`: all.
    pub failures: u64,
}

impl DiskMood {
    /// Draws a disk between a fast SSD and a slow spindle.
    pub fn draw(random: &mut Random) -> DiskMood {
        let write_mean = random.log_within(20 * MICRO, 20 * MILLI);
        DiskMood { write_mean, other_mean: write_mean / 2 + 1, stalled_until: 0, full: false, failures: 0 }
    }
}

/// One disk with its files. Outlives the process that uses it.
pub struct Disk {
    /// How it is now.
    pub mood: DiskMood,
    files: BTreeMap<FileName, Content>,
    jobs: VecDeque<Request>,
    busy: bool,
    /// When the running request ends.
    ends: Time,
    random: Random,
    /// Writes that were left half done.
    pub torn: u64,
}

#[derive(Clone, Debug, Default)]
struct Content {
    size: u64,
    /// What was written; zeros follow up to `size`.
    bytes: Vec<u8>,
    /// Written and not synced: place and what was there before.
    unsynced: Vec<(usize, Vec<u8>)>,
}

impl Disk {
    /// An empty disk.
    pub fn new(mood: DiskMood, random: Random) -> Disk {
        Disk { mood, files: BTreeMap::new(), jobs: VecDeque::new(), busy: false, ends: 0, random, torn: 0 }
    }

    /// Queues a request.
    pub fn submit(&mut self, request: Request) {
        self.jobs.push_back(request);
    }

    /// Starts the next job if there is one and none runs; says when it ends.
    pub fn start(&mut self, now: Time) -> Option<Time> {
        if self.busy {
            return None;
        }
        let job = self.jobs.front()?;
        self.busy = true;
        let mean = match job {
            Request::Read { .. } | Request::Write { durable: false, .. } => self.mood.other_mean,
            _ => self.mood.write_mean,
        };
        let time = mean / 4 + (mean as f64 * 0.75 * -(1.0 - self.random.unit()).ln()) as Time;
        self.ends = (now + time + 1).max(self.mood.stalled_until);
        Some(self.ends)
    }

    /// A stall is over before its time: when the running request ends now, if there is one.
    pub fn hurry(&mut self, now: Time) -> Option<Time> {
        self.mood.stalled_until = 0;
        self.ends = self.ends.min(now + MILLI).max(now);
        self.busy.then_some(self.ends)
    }

    /// Ends the running request if its time has come. `Err`: the disk stands still; ask again then.
    pub fn end(&mut self, now: Time) -> Result<Option<Completion>, Time> {
        if !self.busy || now < self.ends {
            return Ok(None);
        }
        if self.mood.stalled_until > now {
            self.ends = self.mood.stalled_until;
            return Err(self.ends);
        }
        self.busy = false;
        let job = self.jobs.pop_front().expect("the running job is the first in the queue");
        let changes = !matches!(job, Request::Read { .. });
        if changes && self.mood.failures > 0 {
            if self.mood.failures != u64::MAX {
                self.mood.failures -= 1;
            }
            self.leave_half_done(&job);
            return Ok(Some(failed(&job, DiskError::Other("Input/output error (os error 5)".into()))));
        }
        if self.mood.full && self.needs_room(&job) {
            return Ok(Some(failed(&job, DiskError::NoSpace)));
        }
        Ok(Some(self.obey(&job)))
    }

    /// The power goes: what was not durable is kept or lost sector by sector.
    pub fn crash(&mut self) {
        if let Some(job) = self.jobs.front().cloned()
            && self.busy
        {
            self.leave_half_done(&job);
        }
        self.jobs.clear();
        self.busy = false;
        for file in self.files.values_mut() {
            for (offset, old) in std::mem::take(&mut file.unsynced).into_iter().rev() {
                mix_sectors(&mut file.bytes, offset, &old, &mut self.random);
            }
        }
    }

    /// The process is killed and the machine runs on: what was under way may be done or not, written pages stay.
    pub fn kill(&mut self) {
        if let Some(job) = self.jobs.front().cloned()
            && self.busy
        {
            self.leave_half_done(&job);
        }
        self.jobs.clear();
        self.busy = false;
    }

    /// All files as a recovery reads them: zeros at the end are left off.
    pub fn contents(&self) -> Vec<File> {
        let file = |(name, content): (&FileName, &Content)| File {
            name: *name,
            size: content.size,
            bytes: aligned(&content.bytes),
        };
        self.files.iter().map(file).collect()
    }

    /// What a file holds just now, synced or not.
    pub fn content(&self, name: FileName) -> Option<bytes::Bytes> {
        self.files.get(&name).map(|content| content.read(0, content.size as usize))
    }

    /// Flips some bits of one sector that holds data; says where.
    pub fn rot(&mut self) -> Option<String> {
        let (name, offset) = self.pick(SECTOR)?;
        let file = self.files.get_mut(&name)?;
        let end = (offset + SECTOR).min(file.bytes.len());
        for _ in 0..self.random.within(1, 8) {
            let at = self.random.within(offset as u64, end as u64 - 1) as usize;
            file.bytes[at] ^= 1 << self.random.below(8);
        }
        Some(format!("{name} at {offset}"))
    }

    /// Writes one block of a file over another one of the same file, as a misdirected write does; says where.
    pub fn misdirect(&mut self) -> Option<String> {
        let (name, to) = self.pick(BLOCK)?;
        let file = self.files.get_mut(&name)?;
        let from = self.random.below((file.bytes.len() / BLOCK).max(1) as u64) as usize * BLOCK;
        let block: Vec<u8> = file.bytes[from..(from + BLOCK).min(file.bytes.len())].to_vec();
        let end = (to + block.len()).min(file.bytes.len());
        file.bytes[to..end].copy_from_slice(&block[..end - to]);
        Some(format!("{name} at {to}, block of {from}"))
    }

    /// A place in a random file that was written to.
    fn pick(&mut self, unit: usize) -> Option<(FileName, usize)> {
        let written: Vec<FileName> =
            self.files.iter().filter(|(_, file)| !file.bytes.is_empty()).map(|(name, _)| *name).collect();
        if written.is_empty() {
            return None;
        }
        let name = *self.random.one(&written);
        let units = self.files[&name].bytes.len().div_ceil(unit);
        Some((name, self.random.below(units as u64) as usize * unit))
    }

    fn needs_room(&self, job: &Request) -> bool {
        match job {
            Request::Create { .. } => true,
            Request::Write { file, offset, bytes, .. } => {
                self.files.get(file).is_none_or(|file| file.size < offset + bytes.len() as u64)
            }
            _ => false,
        }
    }

    fn obey(&mut self, job: &Request) -> Completion {
        let id = job.id();
        let no_file = || failed(job, DiskError::Other("No such file or directory (os error 2)".into()));
        match job {
            Request::Create { file, size, .. } => {
                self.files.insert(*file, Content { size: *size, ..Content::default() });
            }
            Request::Write { file, offset, bytes, durable, .. } => {
                let Some(content) = self.files.get_mut(file) else { return no_file() };
                let old = content.write(*offset as usize, bytes);
                if !durable {
                    content.unsynced.push((*offset as usize, old));
                }
            }
            Request::Read { file, offset, length, .. } => {
                let Some(content) = self.files.get(file) else { return no_file() };
                let bytes = content.read(*offset as usize, *length);
                return Completion::Bytes { id, bytes };
            }
            Request::Rename { from, to, .. } => {
                let Some(content) = self.files.remove(from) else { return no_file() };
                self.files.insert(*to, content);
            }
            Request::Remove { file, .. } => {
                self.files.remove(file);
            }
            Request::Sync { file, .. } => {
                let Some(content) = self.files.get_mut(file) else { return no_file() };
                content.unsynced.clear();
            }
            Request::SyncFolder { .. } => {}
        }
        Completion::Done { id }
    }

    /// Does some of a job that will not end.
    fn leave_half_done(&mut self, job: &Request) {
        match job {
            Request::Write { file, offset, bytes, .. } => {
                let Some(content) = self.files.get_mut(file) else { return };
                let old = content.write(*offset as usize, bytes);
                mix_sectors(&mut content.bytes, *offset as usize, &old, &mut self.random);
                self.torn += 1;
            }
            // A sync that fails has lost what it was to keep: the pages count as clean from now on.
            Request::Sync { file, .. } => {
                let Some(content) = self.files.get_mut(file) else { return };
                for (offset, old) in std::mem::take(&mut content.unsynced).into_iter().rev() {
                    mix_sectors(&mut content.bytes, offset, &old, &mut self.random);
                }
            }
            Request::Create { .. } | Request::Rename { .. } | Request::Remove { .. } => {
                if self.random.chance(0.5) {
                    self.obey(job);
                }
            }
            Request::Read { .. } | Request::SyncFolder { .. } => {}
        }
    }
}

impl Content {
    /// Writes and gives back what was there.
    fn write(&mut self, offset: usize, bytes: &[u8]) -> Vec<u8> {
        let end = offset + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.size = self.size.max(end as u64);
        let old = self.bytes[offset..end].to_vec();
        self.bytes[offset..end].copy_from_slice(bytes);
        old
    }

    fn read(&self, offset: usize, length: usize) -> bytes::Bytes {
        let end = (offset + length).min(self.size as usize);
        let held = self.bytes.len().min(end);
        let mut out = AlignedVec::<{ entry::BODY_ALIGNMENT }>::with_capacity(end.saturating_sub(offset));
        if offset < held {
            out.extend_from_slice(&self.bytes[offset..held]);
        }
        out.resize(end.saturating_sub(offset), 0);
        entry::body(out)
    }
}

fn aligned(bytes: &[u8]) -> bytes::Bytes {
    let mut out = AlignedVec::<{ entry::BODY_ALIGNMENT }>::with_capacity(bytes.len());
    out.extend_from_slice(bytes);
    entry::body(out)
}

fn failed(job: &Request, error: DiskError) -> Completion {
    Completion::Failed { id: job.id(), error }
}

/// Puts each sector of `old` back, or not: all of one kind in some cases, as that is what happens most.
fn mix_sectors(bytes: &mut [u8], offset: usize, old: &[u8], random: &mut Random) {
    let lost = *random.one(&[0.0, 1.0, 0.5, 0.1, 0.9]);
    let mut at = 0;
    while at < old.len() {
        // Sectors are aligned to the file, not to the write.
        let next = (SECTOR - (offset + at) % SECTOR).min(old.len() - at);
        if random.chance(lost) {
            bytes[offset + at..offset + at + next].copy_from_slice(&old[at..at + next]);
        }
        at += next;
    }
}

/// A stall as long as the fault list asks for: 0.1 to 60 seconds, mostly short.
pub fn stall(random: &mut Random, longest: Time) -> Time {
    random.log_within(100 * MILLI, longest.clamp(200 * MILLI, 60 * SECOND))
}
