//! The frames of a connection between agent and server.
//!
//! ```text
//! kind    flags              payload
//! STREAM  FIRST, END         stream u32, bytes
//! STREAM  RESET              stream u32, reason u8
//! WINDOW                     stream u32, credit u32
//! PING                       token u64
//! PONG                       token u64
//! GOAWAY                     reason u8
//! ```

use super::limits::DATA_LENGTH_MAX;
use crate::wire::{Frame, Kind, Reader, WireError, encode_frame, put_u8, put_u32, put_u64};

/// Version of the payloads that this program writes, and the latest it reads.
const VERSION: u8 = 1;

/// The first frame of a stream.
const FIRST: u16 = 1;
/// The sender has no more for the stream.
const END: u16 = 2;
/// The stream is of no use any more.
const RESET: u16 = 4;

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MuxFrame<'a> {
    /// Bytes of a stream.
    Data {
        /// Which.
        stream: u32,
        /// Whether it begins here.
        first: bool,
        /// Whether these are the sender's last.
        end: bool,
        /// At most [`DATA_LENGTH_MAX`].
        bytes: &'a [u8],
    },
    /// A stream ends before its end.
    Reset {
        /// Which.
        stream: u32,
        /// Why.
        reason: ResetReason,
    },
    /// The receiver of a stream takes so many more bytes.
    Window {
        /// Which.
        stream: u32,
        /// How many.
        credit: u32,
    },
    /// To be answered by a [`MuxFrame::Pong`] with the same token.
    Ping(u64),
    /// The answer.
    Pong(u64),
    /// The sender takes no new streams; those that are open go on.
    GoAway(Departure),
}

/// Why a stream was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ResetReason {
    /// Nobody wants the answer any more.
    Cancelled = 1,
    /// The receiver is at a limit; nothing was done. To be tried again after a pause.
    TooBusy = 2,
    /// The sender of this takes no new streams; nothing was done. To be tried elsewhere.
    Leaving = 3,
    /// What was sent cannot be used, or the answer broke off.
    Broken = 4,
}

/// Why one side takes no new streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Departure {
    /// It is about to end.
    Leaving = 1,
    /// It follows no leader; another server may.
    Leaderless = 2,
}

impl ResetReason {
    fn of(code: u8) -> Result<ResetReason, WireError> {
        Ok(match code {
            1 => ResetReason::Cancelled,
            2 => ResetReason::TooBusy,
            3 => ResetReason::Leaving,
            4 => ResetReason::Broken,
            _ => return Err(WireError::Malformed("an unknown reason of a reset")),
        })
    }
}

impl Departure {
    fn of(code: u8) -> Result<Departure, WireError> {
        Ok(match code {
            1 => Departure::Leaving,
            2 => Departure::Leaderless,
            _ => return Err(WireError::Malformed("an unknown reason to go away")),
        })
    }
}

impl<'a> MuxFrame<'a> {
    /// Appends it; `out` holds whole frames only.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, flags) = match self {
            MuxFrame::Data { first, end, bytes, .. } => {
                assert!(bytes.len() <= DATA_LENGTH_MAX, "{} bytes in one frame", bytes.len());
                (Kind::RPC_STREAM, if *first { FIRST } else { 0 } | if *end { END } else { 0 })
            }
            MuxFrame::Reset { .. } => (Kind::RPC_STREAM, RESET),
            MuxFrame::Window { .. } => (Kind::RPC_WINDOW, 0),
            MuxFrame::Ping(_) => (Kind::RPC_PING, 0),
            MuxFrame::Pong(_) => (Kind::RPC_PONG, 0),
            MuxFrame::GoAway(_) => (Kind::RPC_GOAWAY, 0),
        };
        let encoded = encode_frame(out, kind, VERSION, flags, |out| match *self {
            MuxFrame::Data { stream, bytes, .. } => {
                put_u32(out, stream);
                out.extend_from_slice(bytes);
            }
            MuxFrame::Reset { stream, reason } => {
                put_u32(out, stream);
                put_u8(out, reason as u8);
            }
            MuxFrame::Window { stream, credit } => {
                put_u32(out, stream);
                put_u32(out, credit);
            }
            MuxFrame::Ping(token) | MuxFrame::Pong(token) => put_u64(out, token),
            MuxFrame::GoAway(departure) => put_u8(out, departure as u8),
        });
        encoded.expect("frames are far below the limit of a payload");
    }

    /// Reads it.
    ///
    /// # Errors
    /// The frame is of a later version, or not as it should be.
    pub fn decode(frame: &'a Frame<'_>) -> Result<MuxFrame<'a>, WireError> {
        if frame.version > VERSION {
            return Err(WireError::NewerVersion { kind: frame.kind, version: frame.version, known: VERSION });
        }
        let mut reader = Reader::new(frame.payload());
        let decoded = match frame.kind {
            Kind::RPC_STREAM => {
                let stream = reader.u32()?;
                if frame.flags & RESET != 0 {
                    MuxFrame::Reset { stream, reason: ResetReason::of(reader.u8()?)? }
                } else {
                    let bytes = reader.take(reader.remaining())?;
                    if bytes.len() > DATA_LENGTH_MAX {
                        return Err(WireError::TooLong {
                            what: "piece of a stream",
                            length: bytes.len(),
                            max: DATA_LENGTH_MAX,
                        });
                    }
                    let (first, end) = (frame.flags & FIRST != 0, frame.flags & END != 0);
                    MuxFrame::Data { stream, first, end, bytes }
                }
            }
            Kind::RPC_WINDOW => MuxFrame::Window { stream: reader.u32()?, credit: reader.u32()? },
            Kind::RPC_PING => MuxFrame::Ping(reader.u64()?),
            Kind::RPC_PONG => MuxFrame::Pong(reader.u64()?),
            Kind::RPC_GOAWAY => MuxFrame::GoAway(Departure::of(reader.u8()?)?),
            kind => return Err(WireError::UnknownKind(kind)),
        };
        reader.end()?;
        Ok(decoded)
    }
}
