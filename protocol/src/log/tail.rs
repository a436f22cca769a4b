//! The log as it runs: what is appended, what is held, what is durable. What the disk is asked for it is in [`ask`], what becomes of that
//! in [`take`].

mod ask;
mod asked;
mod take;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use self::asked::{Asked, Pending, Reading};
use super::frame::{BLOCK, Building, HEADER_BYTES, Home};
use super::held::{Frame, Held};
use super::notice::ReadToken;
use super::shelf::Shelf;
use super::votes::Votes;
use super::{
    BODY_BYTES_MAX, FRAME_BYTES_MAX, FileName, READS_MAX, Request, RequestId, SNAPSHOT_READ_BYTES_MAX,
};
use crate::entry::{Entry, Now, ServerId};

/// A segment on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub home: Home,
    pub size: u64,
}

/// The next segment, made before it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spare {
    /// Not asked for yet.
    None,
    /// The disk reserves its space.
    Creating(Segment),
    /// Its space is there; its first block is to be written.
    Created(Segment),
    /// Its first block is being written.
    Heading(Segment),
    Ready(Segment),
    /// There was no space for it; asked for again at this time, which the next poll sets.
    Refused(Option<Now>),
}

/// What recovery knows, for a log to go on from.
#[derive(Debug)]
pub(super) struct Parts {
    pub held: Held,
    /// Oldest first; the last is the one that is written.
    pub segments: VecDeque<Segment>,
    /// The next free block of the last segment.
    pub next_block: u64,
    pub spare: Option<Segment>,
    /// Of the last frame.
    pub sequence: u64,
    pub chain: u32,
    pub mark: u64,
    /// The next frame does not continue what lies before it.
    pub reset: bool,
    pub votes: Votes,
    pub shelf: Shelf,
    /// What puts the files right and makes them durable, in order; at least one.
    pub mending: Vec<Request>,
    pub segment_bytes: u64,
    pub mark_pause: Duration,
    pub seed: u64,
}

/// The frame that is being written.
#[derive(Clone, Copy, Debug)]
struct Writing {
    bytes: usize,
    first: u64,
    /// The last of its entries that no later append replaced.
    live_last: u64,
}

/// The log. See [the room](super) for how it is driven.
#[derive(Debug)]
pub struct Log {
    held: Held,
    segments: VecDeque<Segment>,
    next_block: u64,
    spare: Spare,
    /// From a refusal for want of space until the next segment is ready.
    full: bool,
    /// Of the last frame placed, and the chain after it.
    sequence: u64,
    chain: u32,
    /// Frames to be written, in order; the last may take more entries.
    waiting: VecDeque<Building>,
    waiting_bytes: usize,
    writing: Option<Writing>,
    durable: u64,
    /// The frame that the mark on the disk names, or will.
    mark: u64,
    marking: bool,
    /// When the next mark is due, if the log stays idle.
    mark_at: Option<Now>,
    mark_pause: Duration,
    reset: bool,
    cut: u64,
    /// Room that the last frame took: a guess at the next one's.
    frame_guess: usize,
    votes: Votes,
    shelf: Shelf,
    reads: VecDeque<(RequestId, Request, Pending)>,
    reads_under_way: usize,
    tokens: u64,
    removing: bool,
    mending: Vec<Request>,
    settled: bool,
    failed: bool,
    asked: u64,
    under_way: VecDeque<Asked>,
    segment_bytes: u64,
    seed: u64,
}

impl Log {
    pub(super) fn new(parts: Parts) -> Log {
        assert!(
            !parts.segments.is_empty() && !parts.mending.is_empty(),
            "a segment to write and something to wait for"
        );
        let asked = parts.mending.iter().map(|request| request.id().0).max().unwrap_or(0);
        Log {
            durable: parts.held.last(),
            held: parts.held,
            segments: parts.segments,
            next_block: parts.next_block,
            spare: parts.spare.map_or(Spare::None, Spare::Ready),
            full: false,
            sequence: parts.sequence,
            chain: parts.chain,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            writing: None,
            mark: parts.mark,
            marking: false,
            mark_at: None,
            mark_pause: parts.mark_pause,
            reset: parts.reset,
            cut: 0,
            frame_guess: BLOCK,
            votes: parts.votes,
            shelf: parts.shelf,
            reads: VecDeque::new(),
            reads_under_way: 0,
            tokens: 0,
            removing: false,
            mending: parts.mending,
            settled: false,
            failed: false,
            asked,
            under_way: VecDeque::new(),
            segment_bytes: parts.segment_bytes,
            seed: parts.seed,
        }
    }

    /// Appends entries without a gap among them. If the first is not the next one, all from it on are replaced (a conflict, Raft section
    /// 5.3). What the newest snapshot holds is passed over. [`super::Notice::Durable`] tells when they are durable.
    ///
    /// # Panics
    /// A gap, a term that falls, or a body over [`Log::body_bytes_max`]: the driver must not let them through.
    pub fn append(&mut self, entries: &[Entry]) {
        let base = self.held.base().0;
        let entries = &entries[entries.partition_point(|entry| entry.index <= base)..];
        let Some(head) = entries.first() else { return };
        if head.index <= self.held.last() {
            self.truncate(head.index);
        }
        let frame_max = self.frame_bytes_max();
        for entry in entries {
            assert!(entry.body.len() <= self.body_bytes_max(), "bodies are refused before they get here");
            self.held.push(entry.index, entry.term);
            let open = self.waiting.back().is_some_and(|back| {
                back.last_index() + 1 == entry.index && back.bytes_with(entry.body.len()) <= frame_max
            });
            if !open {
                let chain = self.waiting.back().map_or(self.chain, Building::chain);
                let reset = std::mem::take(&mut self.reset);
                self.waiting.push_back(Building::new(chain, entry.index, reset, self.frame_guess));
                self.waiting_bytes += HEADER_BYTES;
            }
            if let Some(back) = self.waiting.back_mut() {
                let before = back.bytes();
                back.push(entry);
                self.waiting_bytes += back.bytes() - before;
            }
        }
    }

    fn truncate(&mut self, index: u64) {
        self.held.truncate(index);
        self.durable = self.durable.min(index - 1);
        while let Some(back) = self.waiting.pop_back_if(|back| back.first_index() >= index) {
            self.reset |= back.reset();
            self.waiting_bytes -= back.bytes();
        }
        for building in &mut self.waiting {
            building.live_last = building.live_last.min(index - 1);
        }
        if let Some(writing) = &mut self.writing {
            writing.live_last = writing.live_last.min(index - 1);
        }
        self.end_reads_at(index - 1);
    }

    /// Reads under way must not give entries after `last`: others took their places.
    fn end_reads_at(&mut self, last: u64) {
        let pending = self.reads.iter_mut().map(|(_, _, pending)| pending);
        for pending in pending.chain(self.under_way.iter_mut().map(|asked| &mut asked.pending)) {
            if let Pending::Read(reading) = pending {
                reading.to = reading.to.min(last);
            }
        }
    }

    /// Saves the term and the vote; [`super::Notice::VoteSaved`] tells when they are durable.
    pub fn save_vote(&mut self, term: u64, vote: Option<ServerId>) {
        self.votes.save(term, vote);
    }

    /// Saves until which index this server may neither vote nor campaign; 0 when it is repaired. Durable no later than the next vote.
    pub fn set_repair_until(&mut self, index: u64) {
        self.votes.set_repair_until(index);
    }

    /// Allows entries before `index` to be dropped, in whole segments, but never what the older of two snapshots needs to be of use.
    pub fn cut_before(&mut self, index: u64) {
        self.cut = self.cut.max(index);
    }

    /// Gives up all before the newest snapshot, the older one too: to be used where space is needed, or where a part of it cannot be read.
    pub fn cut_to_snapshot(&mut self) {
        self.cut_before(self.held.base().0 + 1);
        self.shelf.trust_newest();
    }

    /// Index of the first of the last entries that take no more than so many bytes on the disk; one past the last if there are none.
    pub fn first_within(&self, bytes: u64) -> u64 {
        let mut left = bytes;
        let fits = |frame: &&Frame| {
            let fits = left.checked_sub(u64::from(frame.bytes));
            left = fits.unwrap_or(0);
            fits.is_some()
        };
        let oldest = self.held.frames().iter().rev().take_while(fits).last();
        oldest.map_or(self.held.last() + 1, |frame| frame.first)
    }

    /// Begins to write a snapshot whose last entry is this one; one that is under way is dropped.
    ///
    /// # Panics
    /// It is older than the newest one.
    pub fn snapshot_begin(&mut self, index: u64, term: u64) {
        assert!(index > 0 && index >= self.held.base().0, "snapshots never go back");
        self.shelf.begin(index, term);
    }

    /// The next bytes of its file, as [`super::SnapshotEncoder`] or another server gave them. Without a snapshot under way they are dropped.
    pub fn snapshot_write(&mut self, bytes: impl Into<Bytes>) {
        self.shelf.write(bytes.into());
    }

    /// The file is complete (and, if it came from another server, checked): sync it, give it its name. [`super::Notice::SnapshotSaved`] tells.
    pub fn snapshot_end(&mut self) {
        self.shelf.end();
    }

    /// Drops the snapshot that is being written.
    pub fn snapshot_abort(&mut self) {
        self.shelf.abort();
    }

    /// Bytes of the snapshot that wait for the disk or are being written; at 0 all lies in its draft's file, synced. Feed no more at [`super::SNAPSHOT_QUEUE_BYTES_MAX`].
    pub fn snapshot_queued_bytes(&self) -> usize {
        self.shelf.queued()
    }

    /// Asks for bytes of the file of the snapshot that ends at `index`, at most [`SNAPSHOT_READ_BYTES_MAX`]; `None` if it is not held (the
    /// newest two are), or [`READS_MAX`] reads are under way. Answered by [`super::Notice::SnapshotBytes`] or [`super::Notice::ReadFailed`].
    pub fn snapshot_read(&mut self, index: u64, offset: u64, length: usize) -> Option<ReadToken> {
        let kept = self.shelf.kept(index)?;
        let length = length.min(SNAPSHOT_READ_BYTES_MAX);
        self.ask_read(kept.file(), offset, length, |token| Pending::SnapshotRead { token, offset })
    }

    /// The newest snapshot: (index, term, bytes of its file).
    pub fn snapshot(&self) -> Option<(u64, u64, u64)> {
        self.shelf.newest().map(|kept| (kept.index, kept.term, kept.bytes))
    }

    /// Asks for durable entries `from..=to`, about `bytes_max` of them and at least one; `None` if `from` is not held or not durable, or
    /// [`READS_MAX`] reads are under way. Answered by [`super::Notice::Entries`] or [`super::Notice::ReadFailed`].
    pub fn read(&mut self, from: u64, to: u64, bytes_max: usize) -> Option<ReadToken> {
        let to = to.min(self.durable);
        if from < self.held.first() || from > to {
            return None;
        }
        let frames = self.held.frames();
        let head = self.held.frame_of(from)?;
        let mut end = head;
        while let Some(next) = frames.get(end + 1) {
            if next.segment != frames[head].segment || next.first > to {
                break;
            }
            let blocks = u64::from(next.block - frames[head].block);
            if blocks * BLOCK as u64 + u64::from(next.bytes) > bytes_max as u64 {
                break;
            }
            end += 1;
        }
        let chosen: Vec<Frame> = frames.range(head..=end).copied().collect();
        let (begin, last) = (chosen[0], chosen[chosen.len() - 1]);
        let home = self.segments.iter().find(|segment| segment.home.segment == begin.segment)?.home;
        let length = (last.block - begin.block) as usize * BLOCK + last.bytes as usize;
        let offset = u64::from(begin.block) * BLOCK as u64;
        self.ask_read(FileName::Segment(begin.segment), offset, length, |token| {
            Pending::Read(Reading { token, home, from, to, frames: chosen })
        })
    }

    fn ask_read(
        &mut self,
        file: FileName,
        offset: u64,
        length: usize,
        pending: impl FnOnce(ReadToken) -> Pending,
    ) -> Option<ReadToken> {
        if self.reads_under_way == READS_MAX {
            return None;
        }
        self.reads_under_way += 1;
        self.tokens += 1;
        let id = self.next_id();
        let token = ReadToken(self.tokens);
        self.reads.push_back((id, Request::Read { id, file, offset, length }, pending(token)));
        Some(token)
    }

    /// When to poll again though nothing completed.
    pub fn next_deadline(&self) -> Option<Now> {
        let room = match self.spare {
            Spare::Refused(at) => at,
            _ => None,
        };
        room.into_iter().chain(self.mark_at).min()
    }

    /// The term of an entry that the log holds, or of the newest snapshot's last one.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        self.held.term_at(index)
    }

    /// Runs of one term, (first index, term), from the first entry held.
    pub fn terms(&self) -> &[(u64, u64)] {
        self.held.terms()
    }

    /// Index of the first entry held; one past the last if there is none.
    pub fn first_index(&self) -> u64 {
        self.held.first()
    }

    /// Index of the last entry, or of the snapshot's if there is none after it.
    pub fn last_index(&self) -> u64 {
        self.held.last()
    }

    /// Term of that entry; 0 for none.
    pub fn last_term(&self) -> u64 {
        self.held.term_at(self.held.last()).unwrap_or(0)
    }

    /// Up to which index all entries survive a power cut. Falls when entries are replaced.
    pub fn durable_index(&self) -> u64 {
        self.durable
    }

    /// Whether [`super::Notice::Settled`] was given.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether there is no space for the next segment ([`super::Notice::Full`]).
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Bytes that wait for the disk or are being written; see [`super::QUEUE_BYTES_MAX`].
    pub fn queued_bytes(&self) -> usize {
        self.waiting_bytes + self.writing.map_or(0, |writing| writing.bytes)
    }

    /// Bytes of all segments and snapshots, reserved space included.
    pub fn disk_bytes(&self) -> u64 {
        let spare = match self.spare {
            Spare::Created(spare) | Spare::Heading(spare) | Spare::Ready(spare) => spare.size,
            Spare::None | Spare::Creating(_) | Spare::Refused(_) => 0,
        };
        self.segments.iter().map(|segment| segment.size).sum::<u64>() + spare + self.shelf.bytes()
    }

    /// Most bytes of an entry's body: [`BODY_BYTES_MAX`], or what fits into a segment that is smaller.
    pub fn body_bytes_max(&self) -> usize {
        BODY_BYTES_MAX.min(self.segment_bytes as usize - 2 * BLOCK)
    }

    fn frame_bytes_max(&self) -> usize {
        FRAME_BYTES_MAX.min(self.segment_bytes as usize - BLOCK)
    }

    /// Bytes of the last segment that no frame has taken.
    fn free_bytes(&self) -> u64 {
        let size = self.segments.back().map_or(0, |segment| segment.size);
        size.saturating_sub(self.next_block * BLOCK as u64)
    }

    fn next_id(&mut self) -> RequestId {
        self.asked += 1;
        RequestId(self.asked)
    }
}
