//! Bounds of the store's own bookkeeping.

/// Tombstones of keys kept. Past it the oldest [`GRAVES_DROPPED_AT_ONCE`] are forgotten and their newest index
/// becomes the floor of every prefix: a client that was away for so many deletions may get one answer too many.
pub const KEY_GRAVES_MAX: usize = 65_536;

/// Tombstones of service names, and of node names, kept; same rule as for keys.
pub const NAME_GRAVES_MAX: usize = 16_384;

/// How many tombstones go in one sweep, so that the floor moves seldom.
pub(super) const GRAVES_DROPPED_AT_ONCE: usize = 1024;

const _: () = assert!(GRAVES_DROPPED_AT_ONCE < KEY_GRAVES_MAX && GRAVES_DROPPED_AT_ONCE < NAME_GRAVES_MAX);
