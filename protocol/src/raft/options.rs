//! What a [`Raft`](super::Raft) is told once, when it starts: its timing, its limits, and what its disk holds.

use std::time::Duration;

use super::LogView;
use crate::entry::{Configuration, ServerId};

/// Timing, limits and the seed of one server.
#[derive(Clone, Debug)]
pub struct Options {
    /// This server.
    pub id: ServerId,
    /// The shortest silence of a leader after which another may be elected; the same on all servers. Timers are drawn
    /// from once to one and a half times this.
    pub election_timeout: Duration,
    /// How often a leader asks every server for a sign of life.
    pub heartbeat_interval: Duration,
    /// How long a leader may trust that there is no other after it sent a round that a quorum acknowledged. Shorter
    /// than `election_timeout` by the margin for clocks that run at different rates.
    pub lease: Duration,
    /// A leader whose disk has not finished a write for this long hands over, or steps down when it cannot.
    pub disk_stall_limit: Duration,
    /// How long a leader tries to hand over before it goes on leading.
    pub transfer_timeout: Duration,
    /// Seed of the random draws; another on each server and at each start.
    pub seed: u64,
    /// Bounds of memory and of what is under way.
    pub limits: Limits,
}

impl Options {
    /// Consul's default of `raft_multiplier`.
    pub const MULTIPLIER: u32 = 5;

    /// Timing for a `performance.raft_multiplier` (Consul: 1 to 10), with the default limits.
    pub fn new(id: ServerId, multiplier: u32, seed: u64) -> Options {
        let election_timeout = Duration::from_millis(u64::from(150 * multiplier.clamp(1, 10)).max(300));
        Options {
            id,
            election_timeout,
            heartbeat_interval: election_timeout / 10,
            // Clocks may run 10% too slow here and 10% too fast there: 0.8 / 0.9 < 1 / 1.1.
            lease: election_timeout * 4 / 5,
            disk_stall_limit: Duration::from_secs(1),
            transfer_timeout: election_timeout,
            seed,
            limits: Limits::default(),
        }
    }
}

/// Bounds of memory and of what is under way. At each, work waits or is refused; nothing is lost.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of entries in one message; one entry that is larger goes alone.
    pub message_bytes: u64,
    /// Messages with entries on their way to one server. At the limit, entries wait and then travel together.
    pub in_flight_messages: usize,
    /// Bytes of entries on their way to one server, and so what a follower with a slow disk holds at most.
    pub in_flight_bytes: u64,
    /// Bytes of a leader's entries that are not yet committed; more drafts are refused as [`Refusal::Overloaded`](super::Refusal::Overloaded).
    pub uncommitted_bytes: u64,
    /// Bytes of entries that are committed and not yet applied. Past it the driver says [`Input::Behind`](super::Input::Behind), and a
    /// follower takes no more until half of them are applied.
    pub backlog_bytes: u64,
    /// Reads that wait for a round; more fail as [`Refusal::Overloaded`](super::Refusal::Overloaded).
    pub reads_waiting: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            // Large enough that its cost per message vanishes, small enough that a heartbeat behind it is not late:
            // 5 ms on a link of 100 MB/s.
            message_bytes: 512 << 10,
            // A round trip of 64 messages hides 30 ms of delay at 2,000 messages a second.
            in_flight_messages: 64,
            in_flight_bytes: 8 << 20,
            // A second of a fast disk's writes.
            uncommitted_bytes: 64 << 20,
            // Some seconds of applying.
            backlog_bytes: 64 << 20,
            reads_waiting: 64 << 10,
        }
    }
}

/// What the disk held when this server started.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The newest term that was saved.
    pub term: u64,
    /// Whom this server voted for in it.
    pub vote: Option<ServerId>,
    /// The log, all of it durable.
    pub log: LogView,
    /// Index of the snapshot that the state machine was restored from, and so of what is known to be committed.
    pub committed: u64,
    /// The configurations of the snapshot and of the log behind it, in order of their indexes. None: a blank server,
    /// which waits to be told (by [`Input::Bootstrap`](super::Input::Bootstrap) or by a leader).
    pub configurations: Vec<(u64, Configuration)>,
    /// Damage has cost this server entries that it may have acknowledged up to this index: it neither votes nor
    /// campaigns before a leader has given it all up to there. 0: nothing is missing.
    pub repair_until: u64,
}
