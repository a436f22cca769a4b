//! What becomes of what the disk was asked.

use bytes::Bytes;

use super::asked::{Asked, Pending, Reading};
use super::{Log, Spare};
use crate::entry::Entry;
use crate::log::frame::{self, BLOCK, Fault, FrameHeader};
use crate::log::{Completion, DiskError, Fatal, FileName, Notice};

impl Log {
    /// Takes what became of a request.
    ///
    /// # Errors
    /// A write or a sync failed; or it was not asked for. Nothing will be asked any more, and nothing tried again.
    pub fn complete(&mut self, completion: Completion, out: &mut Vec<Notice>) -> Result<(), Fatal> {
        let id = completion.id();
        let place = self.under_way.iter().position(|asked| asked.id == id);
        let Some(asked) = place.and_then(|place| self.under_way.remove(place)) else {
            self.failed = true;
            return Err(Fatal(format!("the disk answered request {}, which was not asked", id.0)));
        };
        match completion {
            Completion::Failed { error, .. } => self.fail(asked, error, out),
            Completion::Bytes { bytes, .. } => {
                self.take_bytes(asked, bytes, out);
                Ok(())
            }
            Completion::Done { .. } => {
                self.done(asked, out);
                Ok(())
            }
        }
    }

    fn done(&mut self, asked: Asked, out: &mut Vec<Notice>) {
        match asked.pending {
            Pending::Mend { last } => {
                self.settled |= last;
                out.extend(last.then_some(Notice::Settled));
            }
            Pending::Frame => self.frame_done(out),
            Pending::Vote { last } => {
                if last {
                    let saved = self.votes.done();
                    out.extend(saved.into_iter().map(|(term, vote)| Notice::VoteSaved { term, vote }));
                }
            }
            Pending::Spare => self.spare_done(out),
            Pending::Draft { number } => self.draft_done(number, out),
            Pending::Remove => self.removing = false,
            Pending::Mark => self.marking = false,
            // A disk that gives no bytes for a read has none.
            Pending::Read(_) | Pending::SnapshotRead { .. } => self.take_bytes(asked, Bytes::new(), out),
        }
    }

    fn frame_done(&mut self, out: &mut Vec<Notice>) {
        let Some(writing) = self.writing.take().filter(|writing| writing.live_last >= writing.first) else {
            return;
        };
        self.durable = self.durable.max(writing.live_last);
        if let Some(term) = self.held.term_at(writing.live_last) {
            out.push(Notice::Durable { index: writing.live_last, term });
        }
    }

    fn spare_done(&mut self, out: &mut Vec<Notice>) {
        self.spare = match self.spare {
            Spare::Creating(spare) => Spare::Created(spare),
            Spare::Heading(spare) => Spare::Ready(spare),
            other => other,
        };
        if self.full && matches!(self.spare, Spare::Ready(_)) {
            self.full = false;
            out.push(Notice::Room);
        }
    }

    fn draft_done(&mut self, number: u64, out: &mut Vec<Notice>) {
        let Some(saved) = self.shelf.done(number) else { return };
        if self.held.term_at(saved.index) == Some(saved.term) {
            self.held.rebase((saved.index, saved.term));
        } else {
            self.begin_anew((saved.index, saved.term));
        }
        out.push(Notice::SnapshotSaved { index: saved.index, term: saved.term, bytes: saved.bytes });
    }

    /// Begins behind a snapshot whose last entry the log does not hold. The same follows from the files at the next start.
    fn begin_anew(&mut self, base: (u64, u64)) {
        self.held.reset(base);
        self.shelf.keep_newest();
        self.durable = base.0;
        self.reset = true;
        self.waiting.clear();
        self.waiting_bytes = 0;
        if let Some(writing) = &mut self.writing {
            writing.live_last = 0;
        }
        self.end_reads_at(0);
    }

    fn fail(&mut self, asked: Asked, error: DiskError, out: &mut Vec<Notice>) -> Result<(), Fatal> {
        let full = error == DiskError::NoSpace;
        let why = format!("{} failed: {error}", asked.deed);
        match asked.pending {
            Pending::Read(_) | Pending::SnapshotRead { .. } => {
                self.read_failed(&asked.pending, Some(why), out);
                return Ok(());
            }
            Pending::Spare if full && matches!(self.spare, Spare::Creating(_)) => {
                self.spare = Spare::Refused(None);
                if !self.full {
                    self.full = true;
                    out.push(Notice::Full);
                }
                return Ok(());
            }
            Pending::Draft { number } if full => {
                let failed = self.shelf.failed(number);
                out.extend(failed.map(|index| Notice::SnapshotFailed { index, why }));
                return Ok(());
            }
            _ => {}
        }
        self.failed = true;
        Err(Fatal(format!(
            "{why}; what lies on the disk now is unknown, so the server must end. Entries up to {} are durable. Put the disk right, \
             then start the server again",
            self.durable
        )))
    }

    fn take_bytes(&mut self, asked: Asked, bytes: Bytes, out: &mut Vec<Notice>) {
        match asked.pending {
            Pending::Read(ref reading) => {
                if reading.to < reading.from {
                    return self.read_failed(&asked.pending, None, out);
                }
                match read_entries(reading, &frame::aligned(bytes)) {
                    Ok(entries) => {
                        self.reads_under_way -= 1;
                        out.push(Notice::Entries { token: reading.token, entries });
                    }
                    Err(damage) => self.read_failed(&asked.pending, Some(damage), out),
                }
            }
            Pending::SnapshotRead { token, offset } => {
                self.reads_under_way -= 1;
                out.push(Notice::SnapshotBytes { token, offset, bytes });
            }
            _ => self.done(asked, out),
        }
    }

    fn read_failed(&mut self, pending: &Pending, damage: Option<String>, out: &mut Vec<Notice>) {
        let (Pending::Read(Reading { token, .. }) | Pending::SnapshotRead { token, .. }) = pending else {
            return;
        };
        self.reads_under_way -= 1;
        out.push(Notice::ReadFailed { token: *token, damage });
    }
}

/// The entries of a read that came back, everything checked; those before the first damage if there are any.
fn read_entries(reading: &Reading, bytes: &Bytes) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    let begin = reading.frames.first().map_or(0, |frame| frame.block);
    for placed in &reading.frames {
        let at = (placed.block - begin) as usize * BLOCK;
        let bytes = bytes.slice(at.min(bytes.len())..);
        let read = FrameHeader::read(&bytes).and_then(|header| {
            if header.home != reading.home
                || header.block != placed.block
                || header.sequence != placed.sequence
            {
                return Err(Fault::Bad("another frame lies in its place"));
            }
            let (from, to) = (reading.from.max(placed.first), reading.to.min(placed.last));
            frame::entries(&header, &bytes, from, to, &mut entries)
        });
        let (Err(Fault::Bad(what)), true) = (&read, entries.is_empty()) else {
            if read.is_err() {
                break;
            }
            continue;
        };
        let file = FileName::Segment(placed.segment);
        let offset = u64::from(placed.block) * BLOCK as u64;
        return Err(format!("raft/{file} at offset {offset}: {what}"));
    }
    if entries.is_empty() {
        return Err("no entry was read back".to_string());
    }
    Ok(entries)
}
