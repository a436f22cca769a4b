//! Bounds of the way from a writer to the state.

/// Writes that may wait for the control core. Past it they are refused as too busy.
pub const QUEUE_MAX: usize = 8192;

/// Encoded bytes that may wait for the control core. Past it writes are refused as too busy.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Encoded length of one command, bytes. Larger ones are refused.
pub const COMMAND_LENGTH_MAX: usize = 8 << 20;

/// Writes applied before their state is published, so that the first of many does not wait for the last.
pub const BATCH_MAX: usize = 1024;

/// Writes, reads and requests that the replica works at. Past it others wait in the queue. As many as the queue holds, so
/// that a batch is never smaller than what the disk and the network would take at once.
pub const UNDER_WAY_MAX: usize = QUEUE_MAX;

const _: () = assert!(COMMAND_LENGTH_MAX <= QUEUE_BYTES_MAX, "an empty queue has room for any command");
const _: () = assert!(BATCH_MAX <= QUEUE_MAX);
