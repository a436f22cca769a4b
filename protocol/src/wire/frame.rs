//! One frame: its header, how it is made, what may be wrong with it.

use std::fmt;

use super::limits::{FRAME_ALIGNMENT, FRAME_HEADER_LENGTH, PAYLOAD_LENGTH_MAX};

/// What a payload is. Numbers are for good; each protocol has a range of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(pub u8);

impl Kind {
    /// Who dials a link between servers.
    pub const LINK_HELLO: Kind = Kind(1);
    /// Who was dialled, or why not.
    pub const LINK_WELCOME: Kind = Kind(2);
    /// The first list of servers, to those who are in it.
    pub const BOOTSTRAP: Kind = Kind(10);
    /// The answer to it.
    pub const BOOTSTRAPPED: Kind = Kind(11);
    /// Who dials a server as an agent.
    pub const RPC_HELLO: Kind = Kind(16);
    /// Who was dialled, or why not.
    pub const RPC_WELCOME: Kind = Kind(17);
    /// Bytes of a stream between agent and server.
    pub const RPC_STREAM: Kind = Kind(18);
    /// More of a stream is taken.
    pub const RPC_WINDOW: Kind = Kind(19);
    /// A sign of life is asked for.
    pub const RPC_PING: Kind = Kind(20);
    /// The sign of life.
    pub const RPC_PONG: Kind = Kind(21);
    /// No new streams are taken.
    pub const RPC_GOAWAY: Kind = Kind(22);
    /// First kind of the messages between servers (`rpc`).
    pub const RPC_FIRST: u8 = 32;
}

/// Why bytes from a peer are not believed. The connection they came on is of no use any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireError {
    /// A checksum does not match.
    Damaged(&'static str),
    /// A length is above the limit for it.
    TooLong {
        /// Of what.
        what: &'static str,
        /// As told, bytes or items.
        length: usize,
        /// The limit.
        max: usize,
    },
    /// A payload of a later version of this program.
    NewerVersion {
        /// Kind of the frame.
        kind: Kind,
        /// Version of the payload.
        version: u8,
        /// The latest that this program reads.
        known: u8,
    },
    /// A kind of a later version of this program.
    UnknownKind(Kind),
    /// The payload does not say what one of its kind says.
    Malformed(&'static str),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::Damaged(what) => {
                write!(
                    f,
                    "the checksum of a {what} does not match: bytes were damaged on the way, or the other side is not Muster"
                )
            }
            WireError::TooLong { what, length, max } => {
                write!(f, "a {what} of length {length}, where at most {max} is sent")
            }
            WireError::NewerVersion { kind, version, known } => write!(
                f,
                "a message of kind {} in version {version}, of which this program reads versions up to {known}: upgrade this server first",
                kind.0
            ),
            WireError::UnknownKind(kind) => {
                write!(
                    f,
                    "a message of kind {}, which this program does not know: upgrade this server first",
                    kind.0
                )
            }
            WireError::Malformed(what) => write!(f, "a message that is not as it should be: {what}"),
        }
    }
}

impl std::error::Error for WireError {}

/// Appends one frame; `write` appends its payload, whose first byte is at a multiple of [`FRAME_ALIGNMENT`] from the frame's
/// start. `out` must hold whole frames only, so that they stay aligned to one another.
///
/// # Errors
/// The payload is longer than [`PAYLOAD_LENGTH_MAX`]; nothing was appended. Senders close batches long before.
pub fn encode_frame(
    out: &mut Vec<u8>,
    kind: Kind,
    version: u8,
    flags: u16,
    write: impl FnOnce(&mut Vec<u8>),
) -> Result<(), WireError> {
    let start = out.len();
    debug_assert!(start.is_multiple_of(FRAME_ALIGNMENT), "frames follow one another without gaps");
    out.resize(start + FRAME_HEADER_LENGTH, 0);
    write(out);
    let length = out.len() - start - FRAME_HEADER_LENGTH;
    if length > PAYLOAD_LENGTH_MAX {
        out.truncate(start);
        return Err(WireError::TooLong { what: "message", length, max: PAYLOAD_LENGTH_MAX });
    }
    out.resize(start + padded(FRAME_HEADER_LENGTH + length), 0);

    let (header, payload) = out[start..].split_at_mut(FRAME_HEADER_LENGTH);
    header[0..4].copy_from_slice(&(length as u32).to_le_bytes());
    header[4] = kind.0;
    header[5] = version;
    header[6..8].copy_from_slice(&flags.to_le_bytes());
    let crc = checksum(&header[..8], &payload[..length]);
    header[8..12].copy_from_slice(&crc.to_le_bytes());
    let guard = crc32fast::hash(&header[..12]);
    header[12..16].copy_from_slice(&guard.to_le_bytes());
    Ok(())
}

/// A length rounded up to where the next frame begins.
pub(super) fn padded(length: usize) -> usize {
    length.next_multiple_of(FRAME_ALIGNMENT)
}

/// The checksum in a header.
pub(super) fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(head);
    crc.update(payload);
    crc.finalize()
}
