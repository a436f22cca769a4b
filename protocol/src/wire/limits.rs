//! Bounds of what travels between agents.

use crate::entry::BODY_ALIGNMENT;

/// Frames begin at multiples of it in a stream, bytes: what lies aligned in a payload stays so.
pub const FRAME_ALIGNMENT: usize = BODY_ALIGNMENT;

/// Length of a frame's header, bytes.
pub const FRAME_HEADER_LENGTH: usize = 16;

/// Length of one entry's body, bytes: the longest command (`COMMAND_LENGTH_MAX` of the agent) and room for its envelope.
pub const BODY_LENGTH_MAX: usize = (8 << 20) + (64 << 10);

/// Bodies of a batch, bytes, after which a sender closes it: long enough to make the price of a frame vanish, short
/// enough (10 ms at 1 Gbit/s) that heartbeats behind it are not late.
pub const BATCH_LENGTH_MAX: usize = 1 << 20;

/// Length of a payload, bytes: a batch that was closed by one longest body.
pub const PAYLOAD_LENGTH_MAX: usize = BATCH_LENGTH_MAX + BODY_LENGTH_MAX + (64 << 10);

/// Length of a payload from a peer that has not said who it is, bytes.
pub const HELLO_LENGTH_MAX: usize = 64 << 10;

/// Length of a name, an address or an error in a payload, bytes.
pub const TEXT_LENGTH_MAX: usize = 4096;

/// What is read from a socket at once, bytes. Longer frames get memory of their own.
pub const READ_LENGTH: usize = 64 << 10;

const _: () = assert!(FRAME_HEADER_LENGTH.is_multiple_of(FRAME_ALIGNMENT), "payloads begin aligned");
const _: () = assert!(PAYLOAD_LENGTH_MAX < u32::MAX as usize, "lengths fit their field");
