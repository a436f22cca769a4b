//! Bounds inside a replica.

use std::time::Duration;

use muster_protocol::log::SEGMENT_BYTES;

/// Bytes of applied entries kept in memory for followers that keep up; what is older comes from the disk. Twice what may be
/// on the way to one follower ([`raft::Limits::in_flight_bytes`](muster_protocol::raft::Limits)).
pub(super) const CACHE_BYTES_MAX: usize = 16 << 20;

/// Entries applied before their state is published, so that the first of many does not wait for the last.
pub(super) const BATCH_MAX: usize = crate::consensus::BATCH_MAX;

/// Bytes of entries after which a batch ends as well: some ten milliseconds of applying large ones, so that messages and the
/// disk get their turn while a server catches up.
pub(super) const BATCH_BYTES_MAX: usize = 1 << 20;

/// How long a server that catches up may keep a newer state to itself while nobody waits for just that.
pub(super) const HELD_BACK_MAX: Duration = Duration::from_millis(100);

/// Bytes of writes in one message to the leader, but at least one write. As in Raft's messages.
pub(super) const FORWARD_BYTES_MAX: usize = 512 << 10;

/// Pause before a leader that did not take a write or a question is asked again.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Time after which a question to the leader counts as lost and is asked again.
pub(super) const READ_RETRY: Duration = Duration::from_millis(500);

/// How often what waits is looked at for its time to be over.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// How often a leader's view of the others is told.
pub(super) const PEERS_REFRESH: Duration = Duration::from_millis(250);

/// Bytes of entries read from the disk for one message to a slow follower. As in Raft's messages.
pub(super) const READ_BYTES_MAX: usize = 512 << 10;

/// Chunks of a snapshot on their way to one server, unacknowledged: 1 MiB, which hides 10 ms of delay at 100 MB/s.
pub(super) const SNAPSHOT_WINDOW: u64 = 4;

/// Silence after which the chunks since the last acknowledged one are sent again.
pub(super) const SNAPSHOT_RESEND: Duration = Duration::from_secs(1);

/// Silence after which sending a snapshot counts as failed; Raft then asks for it again when the server answers.
pub(super) const SNAPSHOT_SILENCE_MAX: Duration = Duration::from_secs(10);

/// Thresholds of entries from which on a snapshot does not wait for its interval: after a burst of writes too, a start should
/// replay no more than takes about a second.
pub(super) const THRESHOLDS_HURRY: u64 = 16;

/// Thresholds of entries from which on a snapshot is due even if they are few bytes next to it: replaying them should take seconds,
/// not minutes.
pub(super) const THRESHOLDS_MAX: u64 = 64;

/// Bytes of the log from which on a snapshot is due however few entries they are, unless the snapshot is large itself: four segments.
pub(super) const LOG_BYTES_DUE: u64 = 4 * SEGMENT_BYTES;

/// A log of so many times the bytes of the snapshot makes one due, and is kept for followers at most: writing snapshots costs no
/// more than a quarter of writing the log then.
pub(super) const LOG_SNAPSHOTS_DUE: u64 = 4;

/// Bytes of the log that are kept for followers in any case, if they are no more entries than `raft_trailing_logs`: one segment.
pub(super) const TRAILING_BYTES_MIN: u64 = SEGMENT_BYTES;

/// Age of an unfinished request of the disk from which on Raft is told.
pub(super) const DISK_AGE_MIN: Duration = Duration::from_millis(500);

/// No log has so many entries: what names a later index is no snapshot of ours.
pub(super) const INDEX_MAX: u64 = 1 << 62;

/// By how much a forced configuration's entry is ahead of every term this server knows, so that no leader's entry of the
/// same index and term exists anywhere.
pub(super) const FORCED_TERM_LEAP: u64 = 1 << 20;
