//! What was asked of the disk and is not answered yet.

use crate::log::frame::Home;
use crate::log::held::Frame;
use crate::log::{FileName, ReadToken, Request, RequestId};

/// A request under way.
#[derive(Debug)]
pub(super) struct Asked {
    pub id: RequestId,
    pub pending: Pending,
    pub deed: Deed,
}

/// What a request was to do, for the message if it fails.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deed {
    Create(FileName, u64),
    Write(FileName, u64, usize),
    Read(FileName, u64, usize),
    Sync(FileName),
    SyncFolder,
    Rename(FileName, FileName),
    Remove(FileName),
}

/// Who waits for a request.
#[derive(Debug)]
pub(super) enum Pending {
    /// Recovery's repairs.
    Mend { last: bool },
    /// A frame of the log.
    Frame,
    /// A slot of the vote file.
    Vote { last: bool },
    /// The next segment.
    Spare,
    /// The snapshot that is being written.
    Draft { number: u64 },
    /// A file to be removed.
    Remove,
    /// The mark in the vote file.
    Mark,
    /// Entries for someone who lags.
    Read(Reading),
    /// Bytes of a snapshot.
    SnapshotRead { token: ReadToken, offset: u64 },
}

/// Which entries are being read.
#[derive(Debug)]
pub(super) struct Reading {
    pub token: ReadToken,
    pub home: Home,
    pub from: u64,
    pub to: u64,
    /// The frames that hold them, as they lie in one segment; the read begins at the first.
    pub frames: Vec<Frame>,
}

impl Asked {
    pub fn new(request: &Request, pending: Pending) -> Asked {
        let deed = match *request {
            Request::Create { file, size, .. } => Deed::Create(file, size),
            Request::Write { file, offset, ref bytes, .. } => Deed::Write(file, offset, bytes.len()),
            Request::Read { file, offset, length, .. } => Deed::Read(file, offset, length),
            Request::Sync { file, .. } => Deed::Sync(file),
            Request::SyncFolder { .. } => Deed::SyncFolder,
            Request::Rename { from, to, .. } => Deed::Rename(from, to),
            Request::Remove { file, .. } => Deed::Remove(file),
        };
        Asked { id: request.id(), pending, deed }
    }
}

impl std::fmt::Display for Deed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Deed::Create(file, size) => write!(f, "creating raft/{file} of {size} bytes"),
            Deed::Write(file, offset, length) => {
                write!(f, "writing {length} bytes at offset {offset} of raft/{file}")
            }
            Deed::Read(file, offset, length) => {
                write!(f, "reading {length} bytes at offset {offset} of raft/{file}")
            }
            Deed::Sync(file) => write!(f, "syncing raft/{file}"),
            Deed::SyncFolder => write!(f, "syncing the folder raft"),
            Deed::Rename(from, to) => write!(f, "renaming raft/{from} to {to}"),
            Deed::Remove(file) => write!(f, "removing raft/{file}"),
        }
    }
}
