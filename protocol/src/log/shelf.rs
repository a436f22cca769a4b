//! Snapshots on the disk: the newest two, and the one that is being written.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::FileName;

/// A snapshot is written in durable pieces of no more than this many bytes: the log's own writes wait for one such piece at most, and the sync at the end
/// finds little left.
const PIECE_BYTES: usize = 256 << 10;

/// A whole snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub index: u64,
    pub term: u64,
    pub bytes: u64,
}

impl Kept {
    pub fn file(&self) -> FileName {
        FileName::Snapshot { term: self.term, index: self.index }
    }
}

/// What a draft wants of the disk next.
#[derive(Debug)]
pub(super) enum Want {
    Create(FileName),
    Write { file: FileName, offset: u64, bytes: Bytes },
    Sync(FileName),
    Rename { from: FileName, to: FileName },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    New,
    Writing,
    Synced,
    Renaming,
}

/// A snapshot that is being written.
#[derive(Debug)]
struct Draft {
    index: u64,
    term: u64,
    stage: Stage,
    gathered: VecDeque<Bytes>,
    /// Bytes in `gathered`.
    waiting: usize,
    written: u64,
    /// Bytes of the piece that is under way.
    writing: usize,
    ending: bool,
    busy: bool,
    /// Tells completions of this draft from those of one that was dropped.
    number: u64,
}

impl Draft {
    /// Takes the next bytes that wait, as many as may go together. Of a long section they are shared; only what lies around its ends is
    /// copied, so that no step of the log takes long.
    fn next_piece(&mut self) -> Bytes {
        let length = self.waiting.min(PIECE_BYTES);
        self.waiting -= length;
        let shared = self.gathered.front_mut().filter(|first| first.len() >= length);
        let piece = shared.map(|first| first.split_to(length)).unwrap_or_else(|| {
            let mut piece = BytesMut::with_capacity(length);
            for bytes in &mut self.gathered {
                let part = bytes.len().min(length - piece.len());
                piece.extend_from_slice(&bytes[..part]);
                bytes.advance(part);
            }
            piece.freeze()
        });
        while self.gathered.front().is_some_and(Bytes::is_empty) {
            self.gathered.pop_front();
        }
        piece
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// Newest first; at most two.
    kept: Vec<Kept>,
    draft: Option<Draft>,
    drafts: u64,
    /// The newest stands for all before it, though there is no older one: the space was needed.
    lone: bool,
    /// Files that are to go.
    pub remove: VecDeque<FileName>,
}

impl Shelf {
    pub fn new(kept: Vec<Kept>) -> Shelf {
        Shelf { kept, ..Shelf::default() }
    }

    pub fn newest(&self) -> Option<Kept> {
        self.kept.first().copied()
    }

    pub fn kept(&self, index: u64) -> Option<Kept> {
        self.kept.iter().find(|kept| kept.index == index).copied()
    }

    /// From which index on the log must be held for the older snapshot to be of use; `None`: all.
    pub fn needed_from(&self) -> Option<u64> {
        let oldest = if self.lone { self.kept.first() } else { self.kept.get(1) };
        oldest.map(|kept| kept.index + 1)
    }

    pub fn bytes(&self) -> u64 {
        let draft = self.draft.as_ref().map_or(0, |draft| draft.written);
        self.kept.iter().map(|kept| kept.bytes).sum::<u64>() + draft
    }

    pub fn begin(&mut self, index: u64, term: u64) {
        self.abort();
        self.drafts += 1;
        self.draft = Some(Draft {
            index,
            term,
            stage: Stage::New,
            gathered: VecDeque::new(),
            waiting: 0,
            written: 0,
            writing: 0,
            ending: false,
            busy: false,
            number: self.drafts,
        });
    }

    pub fn write(&mut self, bytes: Bytes) {
        if let Some(draft) = self.draft.as_mut().filter(|draft| !draft.ending && !bytes.is_empty()) {
            draft.waiting += bytes.len();
            draft.gathered.push_back(bytes);
        }
    }

    pub fn end(&mut self) {
        if let Some(draft) = &mut self.draft {
            draft.ending = true;
        }
    }

    pub fn abort(&mut self) {
        let Some(Draft { term, index, stage, .. }) = self.draft.take() else { return };
        self.remove.push_back(FileName::SnapshotDraft { term, index });
        // If it is being renamed, it has its name by the time that this is removed. One of that name that was kept is replaced by its like.
        let named = FileName::Snapshot { term, index };
        if stage == Stage::Renaming && self.kept.iter().all(|kept| kept.file() != named) {
            self.remove.push_back(named);
        }
    }

    pub fn queued(&self) -> usize {
        self.draft.as_ref().map_or(0, |draft| draft.waiting + draft.writing)
    }

    /// The next thing to do for the draft, unless one is under way, and the draft's number.
    pub fn want(&mut self) -> Option<(u64, Want)> {
        let draft = self.draft.as_mut().filter(|draft| !draft.busy)?;
        let file = FileName::SnapshotDraft { term: draft.term, index: draft.index };
        let want = match draft.stage {
            Stage::New => {
                // A dropped draft of the same name is replaced, and must not be removed after.
                self.remove.retain(|gone| *gone != file);
                Want::Create(file)
            }
            Stage::Writing if !draft.gathered.is_empty() => {
                let bytes = draft.next_piece();
                let offset = draft.written;
                draft.written += bytes.len() as u64;
                draft.writing = bytes.len();
                Want::Write { file, offset, bytes }
            }
            Stage::Writing if draft.ending => {
                draft.stage = Stage::Synced;
                Want::Sync(file)
            }
            Stage::Writing => return None,
            Stage::Synced | Stage::Renaming => {
                draft.stage = Stage::Renaming;
                let to = FileName::Snapshot { term: draft.term, index: draft.index };
                self.remove.retain(|gone| *gone != to);
                Want::Rename { from: file, to }
            }
        };
        draft.busy = true;
        Some((draft.number, want))
    }

    /// Takes a completion of draft `number`; gives the snapshot if it now is whole and has its name.
    pub fn done(&mut self, number: u64) -> Option<Kept> {
        let draft = self.draft.as_mut().filter(|draft| draft.number == number)?;
        draft.busy = false;
        draft.writing = 0;
        if draft.stage == Stage::New {
            draft.stage = Stage::Writing;
        }
        if draft.stage != Stage::Renaming {
            return None;
        }
        let saved = Kept { index: draft.index, term: draft.term, bytes: draft.written };
        self.draft = None;
        self.lone = false;
        self.kept.retain(|kept| kept.file() != saved.file());
        self.kept.insert(0, saved);
        while self.kept.len() > 2 {
            self.remove.extend(self.kept.pop().map(|old| old.file()));
        }
        Some(saved)
    }

    /// Drops draft `number` for want of space; gives its index if it was not dropped before.
    pub fn failed(&mut self, number: u64) -> Option<u64> {
        let index = self.draft.as_ref().filter(|draft| draft.number == number)?.index;
        self.abort();
        Some(index)
    }

    /// The older snapshot, and the log behind it, are given up for their space.
    pub fn trust_newest(&mut self) {
        self.keep_newest();
        self.lone = true;
    }

    /// The log no longer reaches back to older snapshots: they are of no use.
    pub fn keep_newest(&mut self) {
        self.remove.extend(self.kept.drain(1.min(self.kept.len())..).map(|old| old.file()));
    }
}
