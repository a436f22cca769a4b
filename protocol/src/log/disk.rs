//! What the log asks of a disk, and what the disk answers.

use std::fmt;

use bytes::Bytes;

/// A file of the data folder's `raft` folder. [`fmt::Display`] gives its name, [`FileName::parse`] reads one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileName {
    /// Term, vote and repair marker.
    Vote,
    /// A segment of the log, by its number; the first is 1.
    Segment(u64),
    /// A whole snapshot.
    Snapshot {
        /// Term of the last entry in it.
        term: u64,
        /// Index of the last entry in it.
        index: u64,
    },
    /// A snapshot that is being written.
    SnapshotDraft {
        /// Term of the last entry in it.
        term: u64,
        /// Index of the last entry in it.
        index: u64,
    },
}

impl FileName {
    /// The file that has this name; `None` for files that are none of the log's.
    pub fn parse(name: &str) -> Option<FileName> {
        if name == "vote" {
            return Some(FileName::Vote);
        }
        if let Some(number) = name.strip_prefix("log-").and_then(|rest| rest.strip_suffix(".seg")) {
            return Some(FileName::Segment(hexadecimal(number)?));
        }
        let rest = name.strip_prefix("snapshot-")?;
        let (numbers, draft) = match rest.strip_suffix(".snap.tmp") {
            Some(numbers) => (numbers, true),
            None => (rest.strip_suffix(".snap")?, false),
        };
        let (term, index) = numbers.split_once('-')?;
        let (term, index) = (hexadecimal(term)?, hexadecimal(index)?);
        Some(match draft {
            true => FileName::SnapshotDraft { term, index },
            false => FileName::Snapshot { term, index },
        })
    }
}

/// Sixteen digits, as [`FileName`] writes them.
fn hexadecimal(text: &str) -> Option<u64> {
    let canonical = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != 16 || !text.bytes().all(canonical) {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileName::Vote => f.write_str("vote"),
            FileName::Segment(number) => write!(f, "log-{number:016x}.seg"),
            FileName::Snapshot { term, index } => write!(f, "snapshot-{term:016x}-{index:016x}.snap"),
            FileName::SnapshotDraft { term, index } => {
                write!(f, "snapshot-{term:016x}-{index:016x}.snap.tmp")
            }
        }
    }
}

/// Which request a completion belongs to. Grows by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// One thing for the disk to do. The disk obeys strictly in order, one after another, and gives one [`Completion`] for each, in order.
#[derive(Clone, Debug)]
pub enum Request {
    /// Make a file of `size` bytes that reads as zeros, in place of any of that name: create or truncate it, reserve its space, sync it,
    /// sync the folder. One that fails leaves no file.
    Create {
        /// For the completion.
        id: RequestId,
        /// Which file.
        file: FileName,
        /// Bytes to reserve; 0 for a file that grows.
        size: u64,
    },
    /// Write all of `bytes`; a short write is continued by the disk.
    Write {
        /// For the completion.
        id: RequestId,
        /// Which file.
        file: FileName,
        /// Where in it. A multiple of 4,096 in segments and the vote file.
        offset: u64,
        /// What; a multiple of 4,096 bytes at such an address in segments and the vote file.
        bytes: Bytes,
        /// Whether the completion promises that it survives a power cut (`RWF_DSYNC`, or a write and `fdatasync`).
        durable: bool,
    },
    /// Read up to `length` bytes; fewer only at the end of the file. The answer's address is a multiple of 16.
    Read {
        /// For the completion.
        id: RequestId,
        /// Which file.
        file: FileName,
        /// Where in it.
        offset: u64,
        /// How much, bytes.
        length: usize,
    },
    /// Make all of a file durable (`fsync`).
    Sync {
        /// For the completion.
        id: RequestId,
        /// Which file.
        file: FileName,
    },
    /// Make the names in the folder durable (`fsync` of the folder).
    SyncFolder {
        /// For the completion.
        id: RequestId,
    },
    /// Rename a file over any of the new name, then sync the folder.
    Rename {
        /// For the completion.
        id: RequestId,
        /// Its name now.
        from: FileName,
        /// Its name then.
        to: FileName,
    },
    /// Remove a file if it is there, then sync the folder.
    Remove {
        /// For the completion.
        id: RequestId,
        /// Which file.
        file: FileName,
    },
}

impl Request {
    /// For the completion.
    pub fn id(&self) -> RequestId {
        match self {
            Request::Create { id, .. }
            | Request::Write { id, .. }
            | Request::Read { id, .. }
            | Request::Sync { id, .. }
            | Request::SyncFolder { id }
            | Request::Rename { id, .. }
            | Request::Remove { id, .. } => *id,
        }
    }
}

/// What became of a request.
#[derive(Clone, Debug)]
pub enum Completion {
    /// It is done.
    Done {
        /// Of which request.
        id: RequestId,
    },
    /// A read's bytes.
    Bytes {
        /// Of which request.
        id: RequestId,
        /// At an address that is a multiple of 16.
        bytes: Bytes,
    },
    /// It failed. The disk must not have tried again by itself: after a failed sync nobody knows what lies on the disk.
    Failed {
        /// Of which request.
        id: RequestId,
        /// Why.
        error: DiskError,
    },
}

impl Completion {
    /// Of which request.
    pub fn id(&self) -> RequestId {
        match self {
            Completion::Done { id } | Completion::Bytes { id, .. } | Completion::Failed { id, .. } => *id,
        }
    }
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// No space is left on the device, or a quota is used up (`ENOSPC`, `EDQUOT`).
    NoSpace,
    /// Anything else, in the system's words.
    Other(String),
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskError::NoSpace => f.write_str("no space left on device"),
            DiskError::Other(why) => f.write_str(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_others_are_left_alone() {
        let all = [
            FileName::Vote,
            FileName::Segment(0x1f),
            FileName::Snapshot { term: 3, index: u64::MAX },
            FileName::SnapshotDraft { term: 3, index: 77 },
        ];
        for name in all {
            assert_eq!(FileName::parse(&name.to_string()), Some(name));
        }
        for foreign in
            ["", "peers.json", "log-1.seg", "log-000000000000001F.seg", "vote.tmp", "snapshot-1-2.snap"]
        {
            assert_eq!(FileName::parse(foreign), None, "{foreign}");
        }
    }
}
