//! What the disk is asked: at most one frame, one vote, one segment, one piece of a snapshot and one removal at a time.

use super::asked::{Asked, Pending};
use super::{Log, Segment, Spare, Writing};
use crate::entry::Now;
use crate::log::frame::{BLOCK, Home, RECORD_BYTES};
use crate::log::held::Frame;
use crate::log::segment;
use crate::log::shelf::Want;
use crate::log::vote::{MARK_OFFSET, Mark};
use crate::log::{FileName, ROOM_RETRY, Request};

impl Log {
    /// What the disk is to do now.
    pub fn poll(&mut self, now: Now, out: &mut Vec<Request>) {
        if self.failed {
            return;
        }
        if !self.settled {
            let last = self.mending.last().map(Request::id);
            for request in std::mem::take(&mut self.mending) {
                let pending = Pending::Mend { last: Some(request.id()) == last };
                self.ask(request, pending, out);
            }
            return;
        }
        self.poll_votes(out);
        self.poll_frames(out);
        self.poll_spare(now, out);
        self.poll_snapshot(out);
        for (_, request, pending) in std::mem::take(&mut self.reads) {
            self.ask(request, pending, out);
        }
        self.poll_removals(out);
        self.poll_mark(now, out);
    }

    fn poll_votes(&mut self, out: &mut Vec<Request>) {
        let Some(writes) = self.votes.writes() else { return };
        for (place, (offset, bytes)) in writes.into_iter().enumerate() {
            let id = self.next_id();
            let request = Request::Write { id, file: FileName::Vote, offset, bytes, durable: true };
            self.ask(request, Pending::Vote { last: place == 1 }, out);
        }
    }

    /// One frame is under way at a time: so at most one can be torn, and all that is appended meanwhile shares the next one.
    fn poll_frames(&mut self, out: &mut Vec<Request>) {
        if self.writing.is_some() {
            return;
        }
        let Some(needed) = self.waiting.front().map(|front| front.padded() as u64) else { return };
        if self.free_bytes() < needed {
            let Spare::Ready(spare) = self.spare else { return };
            self.spare = Spare::None;
            self.segments.push_back(spare);
            self.next_block = 1;
            assert!(self.free_bytes() >= needed, "a frame fits into an empty segment");
        }
        let (Some(building), Some(active)) = (self.waiting.pop_front(), self.segments.back().copied()) else {
            return;
        };
        self.sequence += 1;
        self.waiting_bytes -= building.bytes();
        self.frame_guess = (building.bytes() * 5 / 4).min(self.frame_bytes_max() + RECORD_BYTES);
        self.chain = building.chain();
        let block = self.next_block as u32;
        let (first, live_last, reset) = (building.first_index(), building.live_last, building.reset());
        let frame = Frame {
            sequence: self.sequence,
            segment: active.home.segment,
            block,
            bytes: needed as u32,
            first,
            last: building.last_index(),
        };
        let bytes = building.seal(active.home, block, self.sequence);
        self.held.place(frame, reset);
        self.next_block += needed / BLOCK as u64;
        self.writing = Some(Writing { bytes: bytes.len(), first, live_last });
        let id = self.next_id();
        let (file, offset) = (FileName::Segment(active.home.segment), u64::from(block) * BLOCK as u64);
        self.ask(Request::Write { id, file, offset, bytes, durable: true }, Pending::Frame, out);
    }

    /// The next segment is made once half of this one is used: then it is there in time, and a full disk is known long before a write
    /// would fail.
    fn poll_spare(&mut self, now: Now, out: &mut Vec<Request>) {
        if let Spare::Created(spare) = self.spare {
            self.spare = Spare::Heading(spare);
            let (id, file) = (self.next_id(), FileName::Segment(spare.home.segment));
            let bytes = segment::head(spare.home);
            return self.ask(
                Request::Write { id, file, offset: 0, bytes, durable: true },
                Pending::Spare,
                out,
            );
        }
        let wanted = match &mut self.spare {
            Spare::None => self.wants_spare(),
            Spare::Refused(at) => now >= *at.get_or_insert(now + ROOM_RETRY),
            Spare::Creating(_) | Spare::Created(_) | Spare::Heading(_) | Spare::Ready(_) => false,
        };
        let Some(active) = self.segments.back().filter(|_| wanted) else { return };
        let number = active.home.segment + 1;
        let home = Home { segment: number, salt: segment::salt(self.seed, number) };
        self.spare = Spare::Creating(Segment { home, size: self.segment_bytes });
        let (id, file) = (self.next_id(), FileName::Segment(number));
        self.ask(Request::Create { id, file, size: self.segment_bytes }, Pending::Spare, out);
    }

    fn wants_spare(&self) -> bool {
        let free = self.free_bytes();
        let size = self.segments.back().map_or(0, |active| active.size);
        free <= size / 2 || self.waiting.front().is_some_and(|front| free < front.padded() as u64)
    }

    fn poll_snapshot(&mut self, out: &mut Vec<Request>) {
        let Some((number, want)) = self.shelf.want() else { return };
        let id = self.next_id();
        let request = match want {
            Want::Create(file) => Request::Create { id, file, size: 0 },
            Want::Write { file, offset, bytes } => Request::Write { id, file, offset, bytes, durable: true },
            Want::Sync(file) => Request::Sync { id, file },
            Want::Rename { from, to } => Request::Rename { id, from, to },
        };
        self.ask(request, Pending::Draft { number }, out);
    }

    /// Whole segments go, oldest first, one at a time. Not while a frame is under way: what it replaces is part of the log until it is
    /// durable.
    fn poll_removals(&mut self, out: &mut Vec<Request>) {
        if self.removing {
            return;
        }
        let cut = self.cut.min(self.shelf.needed_from().unwrap_or(0));
        // Behind a snapshot that replaced the log, what is left of the old one is told from it by its beginning, until a frame says so.
        let begun = self.writing.is_none() && !self.held.frames().is_empty();
        if begun && self.segments.len() > 1 && self.shelf.remove.is_empty() {
            let oldest = self.segments[0].home.segment;
            if self.held.is_done_with(oldest, cut) {
                self.held.drop_through(oldest);
                self.segments.pop_front();
                self.shelf.remove.push_back(FileName::Segment(oldest));
            }
        }
        let Some(file) = self.shelf.remove.pop_front() else { return };
        self.removing = true;
        let id = self.next_id();
        self.ask(Request::Remove { id, file }, Pending::Remove, out);
    }

    /// Says on the disk, when nothing else was to do for a while, that the last frame was durable: should it rot as the last one, that is told from a
    /// write that a power cut undid. Never synced by itself: it is worth no wait.
    fn poll_mark(&mut self, now: Now, out: &mut Vec<Request>) {
        if self.marking || self.writing.is_some() || !self.waiting.is_empty() || self.mark == self.sequence {
            self.mark_at = None;
            return;
        }
        if now < *self.mark_at.get_or_insert(now + self.mark_pause) {
            return;
        }
        self.mark_at = None;
        self.marking = true;
        self.mark = self.sequence;
        let last_index = self.held.frames().back().map_or(0, |frame| frame.last);
        let bytes = Mark { sequence: self.sequence, last_index }.encode();
        let id = self.next_id();
        let request = Request::Write { id, file: FileName::Vote, offset: MARK_OFFSET, bytes, durable: false };
        self.ask(request, Pending::Mark, out);
    }

    fn ask(&mut self, request: Request, pending: Pending, out: &mut Vec<Request>) {
        self.under_way.push_back(Asked::new(&request, pending));
        out.push(request);
    }
}
