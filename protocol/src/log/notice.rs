//! What the log tells its driver.

use std::fmt;

use bytes::Bytes;

use crate::entry::{Entry, ServerId};

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
    /// A term and vote survive a power cut. One for each [`super::Log::save_vote`], in order.
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
    /// Entries or bytes of a snapshot that were asked for cannot be had: replaced since (`damage` is `None`), or damaged.
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
