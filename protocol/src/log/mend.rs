//! What puts the files right after recovery, in the order that a crash in its midst allows: first the vote file with the repair marker, then
//! what is cut, last the syncs that make all that was found a promise.

use bytes::Bytes;
use rkyv::util::AlignedVec;

use super::frame::{BLOCK, Home};
use super::held::Held;
use super::recovery::VotesFound;
use super::scan::{Run, Scanned};
use super::shelf::{Kept, Shelf};
use super::tail::{Parts, Segment};
use super::vote::{MARK_OFFSET, Mark, VOTE_FILE_BYTES};
use super::votes::Votes;
use super::{FileName, Log, Options, Request, RequestId, segment};

/// Bytes of one write of zeros.
const ZEROS_BYTES: usize = 1 << 20;

/// What recovery found and decided.
pub(super) struct Plan<'a> {
    pub options: &'a Options,
    pub votes: VotesFound,
    pub vote_file: bool,
    pub repair_until: u64,
    pub mark: Mark,
    /// The frames that the log goes on from; none: it begins anew.
    pub run: Option<Run>,
    pub held: Held,
    pub reset: bool,
    pub kept: Vec<Kept>,
    pub remove: Vec<FileName>,
    pub segments: Vec<Scanned>,
    pub notes: Vec<String>,
}

/// The log, and what is being put right.
pub(super) struct Mend {
    pub log: Log,
    pub notes: Vec<String>,
}

/// Requests in order.
#[derive(Default)]
struct Steps(Vec<Request>);

impl Steps {
    fn add(&mut self, make: impl FnOnce(RequestId) -> Request) {
        let id = RequestId(self.0.len() as u64 + 1);
        self.0.push(make(id));
    }

    fn write(&mut self, file: FileName, offset: u64, bytes: Bytes) {
        self.add(|id| Request::Write { id, file, offset, bytes, durable: true });
    }

    fn remove(&mut self, file: FileName) {
        self.add(|id| Request::Remove { id, file });
    }

    fn zero(&mut self, file: FileName, from: u64, to: u64) {
        let mut zeros = AlignedVec::<BLOCK>::new();
        zeros.resize(ZEROS_BYTES.min((to - from) as usize), 0);
        let zeros = Bytes::from_owner(zeros);
        let mut at = from;
        while at < to {
            let length = (to - at).min(ZEROS_BYTES as u64);
            self.write(file, at, zeros.slice(..length as usize));
            at += length;
        }
    }
}

/// The segments that stay.
struct Stay {
    segments: Vec<Segment>,
    next_block: u64,
    spare: Option<Segment>,
}

impl Plan<'_> {
    /// Makes the log and what it asks of the disk first.
    pub fn carry_out(mut self) -> Mend {
        let mut steps = Steps::default();
        let votes = self.mend_votes(&mut steps);
        let last = self.run.as_ref().map(|run| run.last().1.header.clone());
        let sequence = last.as_ref().map_or(0, |header| header.sequence);
        let mut mark = self.mark.sequence;
        if mark > sequence {
            mark = sequence;
            let bytes = Mark { sequence, last_index: self.held.last() }.encode();
            steps.write(FileName::Vote, MARK_OFFSET, bytes);
        }
        let Stay { segments, next_block, spare } = self.mend_segments(&mut steps);
        for file in std::mem::take(&mut self.remove) {
            steps.remove(file);
        }
        for segment in &segments {
            steps.add(|id| Request::Sync { id, file: FileName::Segment(segment.home.segment) });
        }
        steps.add(|id| Request::Sync { id, file: FileName::Vote });
        steps.add(|id| Request::SyncFolder { id });
        let log = Log::new(Parts {
            held: self.held,
            segments: segments.into(),
            next_block,
            spare,
            sequence,
            chain: last.map_or(0, |header| header.chain),
            mark,
            reset: self.reset,
            votes,
            shelf: Shelf::new(self.kept),
            mending: steps.0,
            segment_bytes: self.options.segment_bytes,
            mark_pause: self.options.mark_pause,
            seed: self.options.seed,
        });
        Mend { log, notes: self.notes }
    }

    /// Both slots hold the newest state, with the repair marker, before anything is cut.
    fn mend_votes(&mut self, steps: &mut Steps) -> Votes {
        let VotesFound { mut slot, first_slot, differ } = self.votes.clone();
        if !self.vote_file {
            steps.add(|id| Request::Create { id, file: FileName::Vote, size: VOTE_FILE_BYTES });
        } else if differ && slot.sequence > 0 {
            self.notes.push(format!("raft/{}: its two copies differ; the newer one counts", FileName::Vote));
        }
        let marker = slot.state.repair_until != self.repair_until;
        slot.state.repair_until = self.repair_until;
        let mut votes = Votes::new(&slot, first_slot);
        if marker || differ || !self.vote_file {
            for (offset, bytes) in votes.rewrite() {
                steps.write(FileName::Vote, offset, bytes);
            }
        }
        votes
    }

    /// Cuts what follows the last frame and drops segments that are of no use.
    fn mend_segments(&mut self, steps: &mut Steps) -> Stay {
        let segments = std::mem::take(&mut self.segments);
        let Some(run) = &self.run else { return self.begin_anew(&segments, steps) };
        let (from, to) = (run.first().0, run.last().0);
        let end = run.last().1.end();
        let spare = segments.get(to + 1).and_then(|next| self.spare(next, segments[to].number));
        // The last first: while a whole frame follows a gap, the next recovery sees the gap too.
        for segment in segments.iter().skip(to + 1 + usize::from(spare.is_some())).rev() {
            self.drop_segment(segment, steps);
        }
        let active = &segments[to];
        if active.data_end > end {
            let file = FileName::Segment(active.number);
            self.notes.push(format!(
                "raft/{file}: what follows the last whole frame, from offset {end} to {}, was never promised or cannot be read; it is \
                 overwritten with zeros",
                active.data_end
            ));
            steps.zero(file, end, active.data_end.next_multiple_of(BLOCK as u64));
        }
        for segment in segments.iter().take(from) {
            self.drop_segment(segment, steps);
        }
        let mut kept = Vec::new();
        for segment in &segments[from..=to] {
            let Some(home) = segment.home() else { continue };
            if !segment.head {
                let file = FileName::Segment(segment.number);
                self.notes.push(format!("raft/{file}: its first block is damaged; it is written again"));
                steps.write(file, 0, segment::head(home));
            }
            kept.push(Segment { home, size: segment.size() });
        }
        Stay { segments: kept, next_block: end / BLOCK as u64, spare }
    }

    /// A segment that was made ahead and is still as it was made.
    fn spare(&self, segment: &Scanned, active: u64) -> Option<Segment> {
        let clean = segment.head && segment.data_end <= BLOCK as u64 && segment.number == active + 1;
        let home = segment.home().filter(|_| clean && segment.size() == self.options.segment_bytes)?;
        Some(Segment { home, size: segment.size() })
    }

    fn drop_segment(&mut self, segment: &Scanned, steps: &mut Steps) {
        let file = FileName::Segment(segment.number);
        if segment.data_end > BLOCK as u64 {
            self.notes.push(format!("raft/{file}: nothing in it is part of the log; the file is removed"));
        }
        steps.remove(file);
    }

    /// All segments go and a first one is made.
    fn begin_anew(&mut self, segments: &[Scanned], steps: &mut Steps) -> Stay {
        for segment in segments.iter().rev() {
            self.drop_segment(segment, steps);
        }
        let number = segments.last().map_or(1, |last| last.number.saturating_add(1));
        let home = Home { segment: number, salt: segment::salt(self.options.seed, number) };
        let (file, size) = (FileName::Segment(number), self.options.segment_bytes);
        steps.add(|id| Request::Create { id, file, size });
        steps.write(file, 0, segment::head(home));
        Stay { segments: vec![Segment { home, size }], next_block: 1, spare: None }
    }
}
