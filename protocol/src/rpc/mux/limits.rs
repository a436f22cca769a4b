//! Bounds of one connection between agent and server.

use crate::wire::TEXT_LENGTH_MAX;

/// Bytes of a stream in one frame: small enough that others' are not late behind it.
pub const DATA_LENGTH_MAX: usize = 32 << 10;

/// Bytes that may be under way on a stream, sent and not yet read by its receiver. A sender that has used them up waits.
pub const STREAM_WINDOW: u32 = 256 << 10;

/// Streams that are open at once; one more is refused as too busy.
pub const STREAMS_MAX: usize = 8192;

/// Bytes of all streams that have come and are not yet read, past which a stream that brings more is given up if it holds more
/// than [`INPUT_SPARED`] itself: by a server as too busy, by an agent as broken.
pub const INPUT_MAX: usize = 16 << 20;

/// Bytes that a stream may hold unread however much the others hold: those whose readers are stuck are given up, not those
/// that bring little.
pub const INPUT_SPARED: usize = 32 << 10;

/// Bytes that wait to be written, past which streams wait until the other side has taken some.
pub const OUTPUT_MAX: usize = 256 << 10;

/// Bytes of answers to what the other side does (credit, resets), beyond [`OUTPUT_MAX`]: a peer that causes more and reads
/// none of them is cut off.
pub const CONTROL_MAX: usize = 256 << 10;

/// Length of a frame's payload.
pub const FRAME_LENGTH_MAX: usize = DATA_LENGTH_MAX + 4;

const _: () = assert!(STREAM_WINDOW as usize <= INPUT_MAX, "one stream alone is never refused for its input");
const _: () = assert!(FRAME_LENGTH_MAX > TEXT_LENGTH_MAX);
