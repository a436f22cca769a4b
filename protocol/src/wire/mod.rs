//! What all of our own protocols between agents share: frames, their checksums, versions and limits.
//!
//! A frame is a header of [`FRAME_HEADER_LENGTH`] bytes and a payload, together padded with zeros to a multiple of
//! [`FRAME_ALIGNMENT`]; so whatever lies aligned within a payload lies aligned in the receiver's memory. All numbers
//! are little-endian.
//!
//! ```text
//! 0  length   u32  of the payload, without padding
//! 4  kind     u8   what the payload is
//! 5  version  u8   of the payload's format
//! 6  flags    u16  of the kind
//! 8  crc      u32  CRC-32 of the first eight bytes and the payload
//! 12 guard    u32  CRC-32 of the first twelve bytes: a length is believed before its payload has come
//! ```
//!
//! Guarantees: no input makes the decoder panic, or hold more than one frame of the longest kind it was told to accept.

mod cluster;
mod decode;
mod fields;
mod frame;
mod limits;
#[cfg(test)]
mod tests;

pub use cluster::ClusterId;
pub use decode::{Decoder, Frame, split_frame};
pub use fields::{Reader, put_bytes, put_id, put_text, put_u8, put_u16, put_u32, put_u64};
pub use frame::{Kind, WireError, encode_frame};
pub use limits::{
    BATCH_LENGTH_MAX, BODY_LENGTH_MAX, FRAME_ALIGNMENT, FRAME_HEADER_LENGTH, HELLO_LENGTH_MAX,
    PAYLOAD_LENGTH_MAX, READ_LENGTH, TEXT_LENGTH_MAX,
};
