//! Bounds of the store's own bookkeeping.

/// Tombstones of keys kept. Past it the oldest [`GRAVES_DROPPED_AT_ONCE`] are forgotten and their newest index
/// becomes the floor of every prefix: a client that was away for so many deletions may get one answer too many.
pub const KEY_GRAVES_MAX: usize = 65_536;

/// Tombstones of service names, and of node names, kept; same rule as for keys.
pub const NAME_GRAVES_MAX: usize = 16_384;

/// How many tombstones go in one sweep, so that the floor moves seldom.
pub(super) const GRAVES_DROPPED_AT_ONCE: usize = 1024;

const _: () = assert!(GRAVES_DROPPED_AT_ONCE < KEY_GRAVES_MAX && GRAVES_DROPPED_AT_ONCE < NAME_GRAVES_MAX);

/// Length at which a section of a snapshot is closed, bytes: small enough to be read, checked and sent piece by piece,
/// large enough that its own cost does not count. One row larger than this makes a section of its own.
pub const SECTION_LENGTH: usize = 1 << 20;

/// Bytes of a section that one command of a restore carries, at most: room for a whole section of the usual length, and a
/// quarter of what a command may take (`consensus::COMMAND_LENGTH_MAX`), so that other writers wait for one only shortly.
pub const RESTORE_PART_LENGTH_MAX: usize = 2 << 20;

/// Bytes that a restore may gather in the state, beside the tables. Past it the restore is refused.
pub const RESTORE_LENGTH_MAX: usize = 4 << 30;

/// Entries of the log after which a restore that sends nothing more is dropped: whoever began it is gone.
/// While one is gathered no snapshot is taken, so the log may grow by this much.
pub const RESTORE_SILENCE_MAX: u64 = 16_384;
