//! The log as it runs: what is appended, what is durable, what the disk is asked next.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;

use super::{Completion, FileName, Options, Request, RequestId};
use crate::entry::{Entry, Now, ServerId};

/// Names a read that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadToken(pub u64);

/// What happened. In order.
#[derive(Clone, Debug)]
pub enum Notice {
    /// What recovery found is durable and put right; promises may be made from here on. Once, first.
    Settled,
    /// All entries up to this one survive a power cut.
    Durable {
        /// Of the last of them.
        index: u64,
        /// Of the last of them.
        term: u64,
    },
    /// A term and vote survive a power cut. One for each [`Log::save_vote`], in order.
    VoteSaved {
        /// As given.
        term: u64,
        /// As given.
        vote: Option<ServerId>,
    },
    /// There is no space for the next segment. What was appended is still written as far as the current one reaches; refuse new proposals.
    Full,
    /// There is space again.
    Room,
    /// Entries that were asked for: at least one, from the first index asked.
    Entries {
        /// Of which read.
        token: ReadToken,
        /// In order, without a gap.
        entries: Vec<Entry>,
    },
    /// Entries or bytes of a snapshot that were asked for cannot be had: cut or replaced since (`damage` is `None`), or damaged.
    ReadFailed {
        /// Of which read.
        token: ReadToken,
        /// Which file, where, what.
        damage: Option<String>,
    },
    /// Bytes of a snapshot file that were asked for; fewer than asked for only at its end.
    SnapshotBytes {
        /// Of which read.
        token: ReadToken,
        /// Where in the file.
        offset: u64,
        /// What lies there, unchecked: the file's own checksums are for the receiver.
        bytes: Bytes,
    },
    /// A snapshot has its name and survives a power cut. If the log did not hold its last entry, the log now begins behind it.
    SnapshotSaved {
        /// Index of its last entry.
        index: u64,
        /// Term of that entry.
        term: u64,
        /// Length of the file, bytes.
        bytes: u64,
    },
    /// A snapshot could not be written for want of space, and was dropped; the one before stands.
    SnapshotFailed {
        /// Index of its last entry.
        index: u64,
        /// Which file, why.
        why: String,
    },
}

/// Nothing can be promised any more: the process must end. What was promised is on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fatal(pub String);

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The log.
#[derive(Debug)]
pub struct Log {
    /// Runs of one term: (first index, term).
    terms: Vec<(u64, u64)>,
    first: u64,
    last: u64,
    durable: u64,
    /// Last entry of the newest snapshot: (index, term).
    snapshot: (u64, u64),
    asked: u64,
    ready: VecDeque<(Request, Notice)>,
    under_way: VecDeque<(RequestId, Notice)>,
}

impl Log {
    /// The log of a new server.
    pub(super) fn blank(_options: &Options) -> Log {
        let mut log = Log {
            terms: Vec::new(),
            first: 1,
            last: 0,
            durable: 0,
            snapshot: (0, 0),
            asked: 0,
            ready: VecDeque::new(),
            under_way: VecDeque::new(),
        };
        let id = log.id();
        log.ready.push_back((Request::SyncFolder { id }, Notice::Settled));
        log
    }

    /// Appends entries without a gap among them. If the first is not the next one, all from it on are replaced (a conflict, Raft section
    /// 5.3); entries in a snapshot cannot be. [`Notice::Durable`] tells when they are durable.
    ///
    /// # Panics
    /// A gap, a term that falls, or a body over [`super::BODY_BYTES_MAX`]: the driver must not let them through.
    pub fn append(&mut self, entries: &[Entry]) {
        let (Some(head), Some(end)) = (entries.first(), entries.last()) else { return };
        assert!(head.index > self.snapshot.0 && head.index <= self.last + 1, "entries without a gap");
        self.terms.retain(|run| run.0 < head.index);
        for entry in entries {
            if self.terms.last().is_none_or(|run| run.1 != entry.term) {
                self.terms.push((entry.index, entry.term));
            }
        }
        self.last = end.index;
        self.durable = self.durable.min(head.index - 1);
        let id = self.id();
        self.ready
            .push_back((Request::SyncFolder { id }, Notice::Durable { index: end.index, term: end.term }));
    }

    /// Saves the term and the vote; [`Notice::VoteSaved`] tells when they are durable.
    pub fn save_vote(&mut self, term: u64, vote: Option<ServerId>) {
        let id = self.id();
        self.ready.push_back((Request::SyncFolder { id }, Notice::VoteSaved { term, vote }));
    }

    /// Saves until which index this server may neither vote nor campaign; 0 when it is repaired. Durable no later than the next vote.
    pub fn set_repair_until(&mut self, _index: u64) {}

    /// Allows entries before `index` to be dropped, in whole segments, but never what the older of two snapshots needs to be of use.
    pub fn cut_before(&mut self, _index: u64) {}

    /// Begins to write a snapshot whose last entry is this one; one that is under way is dropped.
    pub fn snapshot_begin(&mut self, _index: u64, _term: u64) {}

    /// The next bytes of its file, as [`super::SnapshotEncoder`] or another server gave them.
    pub fn snapshot_write(&mut self, _bytes: Bytes) {}

    /// The file is complete (and, if it came from another server, checked): sync it, give it its name. [`Notice::SnapshotSaved`] tells.
    pub fn snapshot_end(&mut self) {}

    /// Drops the snapshot that is being written.
    pub fn snapshot_abort(&mut self) {}

    /// Bytes of the snapshot that wait for the disk; feed no more at [`super::SNAPSHOT_QUEUE_BYTES_MAX`].
    pub fn snapshot_queued_bytes(&self) -> usize {
        0
    }

    /// Asks for bytes of the newest snapshot's file; `None` if there is none, or [`super::READS_MAX`] reads are under way.
    pub fn snapshot_read(&mut self, _offset: u64, _length: usize) -> Option<ReadToken> {
        None
    }

    /// The newest snapshot: (index, term, bytes of its file).
    pub fn snapshot(&self) -> Option<(u64, u64, u64)> {
        None
    }

    /// Asks for durable entries `from..=to`, about `bytes_max` of them and at least one; `None` if `from` is not held or not durable, or
    /// [`super::READS_MAX`] reads are under way. Answered by [`Notice::Entries`] or [`Notice::ReadFailed`].
    pub fn read(&mut self, _from: u64, _to: u64, _bytes_max: usize) -> Option<ReadToken> {
        None
    }

    /// What the disk is to do now.
    pub fn poll(&mut self, _now: Now, out: &mut Vec<Request>) {
        while let Some((request, notice)) = self.ready.pop_front() {
            self.under_way.push_back((request.id(), notice));
            out.push(request);
        }
    }

    /// When to poll again though nothing completed.
    pub fn next_deadline(&self) -> Option<Now> {
        None
    }

    /// Takes what became of a request.
    ///
    /// # Errors
    /// A write or a sync failed; or it was not asked for. Nothing will be asked any more.
    pub fn complete(&mut self, completion: Completion, out: &mut Vec<Notice>) -> Result<(), Fatal> {
        let under_way = self.under_way.pop_front();
        let Some((_, notice)) = under_way.filter(|(id, _)| *id == completion.id()) else {
            return Err(Fatal("the disk answered what it was not asked".into()));
        };
        if let Completion::Failed { error, .. } = completion {
            return Err(Fatal(format!("{}: {error}", FileName::Segment(1))));
        }
        if let Notice::Durable { index, .. } = notice {
            self.durable = self.durable.max(index.min(self.last));
        }
        out.push(notice);
        Ok(())
    }

    /// The term of an entry that the log holds, or of the newest snapshot's last one.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.snapshot.0 {
            return Some(self.snapshot.1);
        }
        if index < self.first || index > self.last {
            return None;
        }
        let after = self.terms.partition_point(|run| run.0 <= index);
        after.checked_sub(1).map(|run| self.terms[run].1)
    }

    /// Runs of one term, (first index, term), from the first entry held.
    pub fn terms(&self) -> &[(u64, u64)] {
        &self.terms
    }

    /// Index of the first entry held; one past the last if there is none.
    pub fn first_index(&self) -> u64 {
        self.first
    }

    /// Index of the last entry, or of the snapshot's if there is none after it.
    pub fn last_index(&self) -> u64 {
        self.last
    }

    /// Term of that entry; 0 for none.
    pub fn last_term(&self) -> u64 {
        self.term_at(self.last).unwrap_or(0)
    }

    /// Up to which index all entries survive a power cut.
    pub fn durable_index(&self) -> u64 {
        self.durable
    }

    /// Whether [`Notice::Settled`] was given.
    pub fn is_settled(&self) -> bool {
        !self
            .ready
            .iter()
            .map(|(_, notice)| notice)
            .chain(self.under_way.iter().map(|(_, notice)| notice))
            .any(|notice| matches!(notice, Notice::Settled))
    }

    /// Whether there is no space for the next segment ([`Notice::Full`]).
    pub fn is_full(&self) -> bool {
        false
    }

    /// Bytes that wait for the disk or are being written; see [`super::QUEUE_BYTES_MAX`].
    pub fn queued_bytes(&self) -> usize {
        0
    }

    /// Bytes of all segments and snapshots, reserved space included.
    pub fn disk_bytes(&self) -> u64 {
        0
    }

    fn id(&mut self) -> RequestId {
        self.asked += 1;
        RequestId(self.asked)
    }
}
