//! The Raft log on disk: sans-IO. It asks a disk ([`Request`]) and is told what became of it ([`Completion`]); `docs/STORAGE.md` holds
//! the bytes, the limits and the crash cases.
//!
//! What it guarantees: a [`Notice::Durable`] or [`Notice::VoteSaved`] is given only for what survives a power cut and any one bad
//! sector is told from it; what [`recover`] gives back is what was promised, or a [`Refused`] that names the file, the offset and
//! the way out. What it never does: read a clock, try a failed write again, or overwrite what it promised.
//!
//! How it is driven: [`recover`] from the files' bytes; [`Log::poll`] and [`Log::complete`] until [`Notice::Settled`] (repairs and the
//! syncs that make what was found a promise); then inputs, `poll`, completions.

mod disk;
mod frame;
mod held;
mod judge;
mod mend;
mod notice;
mod recovery;
mod scan;
mod segment;
mod shelf;
mod snapshot;
mod tail;
mod vote;
mod votes;

pub use disk::{Completion, DiskError, FileName, Request, RequestId};
pub use notice::{Fatal, Notice, ReadToken};
pub use recovery::{File, OnDamage, Options, Recovered, Refused, recover};
pub use snapshot::{Section, SnapshotDamage, SnapshotEncoder, SnapshotMeta, SnapshotReader};
pub use tail::Log;

/// Bytes of a segment file unless the options say otherwise: large enough that a new one is rare, small enough that cutting frees space.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// Most bytes of one entry's body. A transaction of 64 operations on values of 512 KiB is the largest command.
pub const BODY_BYTES_MAX: usize = 33 << 20;

/// A frame is closed once it holds this many bytes: a write of this size still takes about a millisecond.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Bytes that may wait for the disk before the driver should refuse new proposals: a second of a slow disk.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Bytes of a snapshot that may wait for the disk; the driver feeds no further section until there are fewer.
pub const SNAPSHOT_QUEUE_BYTES_MAX: usize = 4 << 20;

/// Most bytes of a snapshot that one read gives: what one message carries to a follower, and little enough not to keep the log's writes waiting.
pub const SNAPSHOT_READ_BYTES_MAX: usize = 256 << 10;

/// Reads that may be under way at once.
pub const READS_MAX: usize = 64;

/// How long a log is idle before it notes in the vote file how far it is durable: under load that would be a write more for each frame,
/// and what it guards against (rot of the very last frame) takes longer than this.
pub const MARK_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// How long after a refusal for want of space the next segment is asked for again.
pub const ROOM_RETRY: std::time::Duration = std::time::Duration::from_secs(1);
