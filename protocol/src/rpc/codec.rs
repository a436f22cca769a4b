//! [`PeerMessage`] as frames.
//!
//! Each variant has a kind. Fixed fields come first; bodies begin at multiples of 16 bytes, so that they are used where
//! they lie. A body carries its own checksum beside the frame's: it is the one that lies with it in the log.

use bytes::Bytes;

use super::message::{
    ASK_LENGTH_MAX, FORWARD_MAX, ForwardAnswer, ForwardOutcome, Forwarded, PeerMessage, SNAPSHOT_CHUNK_MAX,
    SnapshotAck, SnapshotChunk,
};
use crate::wire::{
    BATCH_LENGTH_MAX, BODY_LENGTH_MAX, FRAME_ALIGNMENT, Frame, Kind, Reader, WireError, encode_frame, put_u8,
    put_u32, put_u64,
};

mod consensus;
#[cfg(test)]
mod tests;

const FORWARD: Kind = Kind(Kind::RPC_FIRST);
const FORWARD_ANSWERS: Kind = Kind(Kind::RPC_FIRST + 1);
const READ_INDEX: Kind = Kind(Kind::RPC_FIRST + 2);
const READ_INDEX_ANSWER: Kind = Kind(Kind::RPC_FIRST + 3);
const SNAPSHOT_CHUNK: Kind = Kind(Kind::RPC_FIRST + 4);
const SNAPSHOT_ACK: Kind = Kind(Kind::RPC_FIRST + 5);
const ASK: Kind = Kind(Kind::RPC_FIRST + 6);
const TOLD: Kind = Kind(Kind::RPC_FIRST + 7);
/// First kind of Raft's own messages.
const RAFT_FIRST: u8 = Kind::RPC_FIRST + 16;

/// Version of the payloads that this program writes, and the latest it reads.
const VERSION: u8 = 1;

/// Appends a message as one frame, or as several if it is a long list.
///
/// # Errors
/// It is longer than any message may be; nothing was appended.
pub fn encode(message: &PeerMessage, out: &mut Vec<u8>) -> Result<(), WireError> {
    match message {
        PeerMessage::Raft(message) => consensus::encode(message, out),
        PeerMessage::Forward(writes) => encode_forward(writes, out),
        PeerMessage::ForwardAnswers(answers) => frame(out, FORWARD_ANSWERS, |out| put_answers(out, answers)),
        PeerMessage::ReadIndex { token, consistent } => frame(out, READ_INDEX, |out| {
            put_u64(out, *token);
            put_u8(out, u8::from(*consistent));
        }),
        PeerMessage::ReadIndexAnswer { token, index } => frame(out, READ_INDEX_ANSWER, |out| {
            put_u64(out, *token);
            put_u8(out, u8::from(index.is_some()));
            put_u64(out, index.unwrap_or_default());
        }),
        PeerMessage::SnapshotChunk(chunk) => frame(out, SNAPSHOT_CHUNK, |out| put_chunk(out, chunk)),
        PeerMessage::SnapshotAck(ack) => frame(out, SNAPSHOT_ACK, |out| {
            for field in [ack.follower_term, ack.term, ack.index, ack.received] {
                put_u64(out, field);
            }
            put_u8(out, u8::from(ack.installed));
        }),
        PeerMessage::Ask { token, question } => frame(out, ASK, |out| {
            put_u64(out, *token);
            put_body(out, question);
        }),
        PeerMessage::Told { token, answer } => frame(out, TOLD, |out| {
            put_u64(out, *token);
            put_u8(out, u8::from(answer.is_some()));
            put_body(out, answer.as_deref().unwrap_or_default());
        }),
    }
}

fn frame(out: &mut Vec<u8>, kind: Kind, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), WireError> {
    encode_frame(out, kind, VERSION, 0, write)
}

/// Writes stand for themselves, so a list that is long is sent in parts.
fn encode_forward(mut writes: &[Forwarded], out: &mut Vec<u8>) -> Result<(), WireError> {
    while !writes.is_empty() {
        let mut length = 0;
        let fits = writes.iter().take(FORWARD_MAX).take_while(|write| {
            let open = length < BATCH_LENGTH_MAX;
            length += write.body.len();
            open
        });
        let (part, rest) = writes.split_at(fits.count());
        frame(out, FORWARD, |out| put_forwarded(out, part))?;
        writes = rest;
    }
    Ok(())
}

/// Reads a message. Its bodies share the frame's memory.
///
/// # Errors
/// The frame is of a later version, or not as it should be.
pub fn decode(frame: &Frame<'_>) -> Result<PeerMessage, WireError> {
    if frame.version > VERSION {
        return Err(WireError::NewerVersion { kind: frame.kind, version: frame.version, known: VERSION });
    }
    let mut reader = Reader::new(frame.payload());
    let message = match frame.kind {
        FORWARD => PeerMessage::Forward(forwarded(&mut reader, frame)?),
        FORWARD_ANSWERS => PeerMessage::ForwardAnswers(answers(&mut reader)?),
        READ_INDEX => PeerMessage::ReadIndex { token: reader.u64()?, consistent: reader.bool()? },
        READ_INDEX_ANSWER => {
            let (token, known, index) = (reader.u64()?, reader.bool()?, reader.u64()?);
            PeerMessage::ReadIndexAnswer { token, index: known.then_some(index) }
        }
        SNAPSHOT_CHUNK => PeerMessage::SnapshotChunk(chunk(&mut reader, frame)?),
        SNAPSHOT_ACK => PeerMessage::SnapshotAck(SnapshotAck {
            follower_term: reader.u64()?,
            term: reader.u64()?,
            index: reader.u64()?,
            received: reader.u64()?,
            installed: reader.bool()?,
        }),
        ASK => PeerMessage::Ask {
            token: reader.u64()?,
            question: body(&mut reader, &frame.share(), ASK_LENGTH_MAX)?,
        },
        TOLD => {
            let (token, known) = (reader.u64()?, reader.bool()?);
            let answer = body(&mut reader, &frame.share(), ASK_LENGTH_MAX)?;
            PeerMessage::Told { token, answer: known.then_some(answer) }
        }
        Kind(kind) if kind >= RAFT_FIRST => PeerMessage::Raft(consensus::decode(&mut reader, frame)?),
        kind => return Err(WireError::UnknownKind(kind)),
    };
    reader.end()?;
    Ok(message)
}

/// Writes: their number, and for each a head and its body.
fn put_forwarded(out: &mut Vec<u8>, writes: &[Forwarded]) {
    put_u32(out, writes.len() as u32);
    for write in writes {
        put_u64(out, write.token);
        put_body(out, &write.body);
    }
}

fn forwarded(reader: &mut Reader<'_>, frame: &Frame<'_>) -> Result<Vec<Forwarded>, WireError> {
    let count = reader.count(FORWARD_MAX, 16)?;
    let payload = frame.share();
    let mut writes = Vec::with_capacity(count);
    for _ in 0..count {
        writes.push(Forwarded { token: reader.u64()?, body: body(reader, &payload, BODY_LENGTH_MAX)? });
    }
    Ok(writes)
}

const ACCEPTED: u8 = 0;
const NOT_LEADER: u8 = 1;
const TOO_BUSY: u8 = 2;
const DISK_FULL: u8 = 3;

fn put_answers(out: &mut Vec<u8>, answers: &[ForwardAnswer]) {
    put_u32(out, answers.len() as u32);
    for answer in answers {
        let (outcome, index, term) = match answer.outcome {
            ForwardOutcome::Accepted { index, term } => (ACCEPTED, index, term),
            ForwardOutcome::NotLeader => (NOT_LEADER, 0, 0),
            ForwardOutcome::TooBusy => (TOO_BUSY, 0, 0),
            ForwardOutcome::DiskFull => (DISK_FULL, 0, 0),
        };
        put_u64(out, answer.token);
        put_u8(out, outcome);
        put_u64(out, index);
        put_u64(out, term);
    }
}

fn answers(reader: &mut Reader<'_>) -> Result<Vec<ForwardAnswer>, WireError> {
    let count = reader.count(usize::MAX, 25)?;
    let mut answers = Vec::with_capacity(count);
    for _ in 0..count {
        let token = reader.u64()?;
        let (outcome, index, term) = (reader.u8()?, reader.u64()?, reader.u64()?);
        let outcome = match outcome {
            ACCEPTED => ForwardOutcome::Accepted { index, term },
            NOT_LEADER => ForwardOutcome::NotLeader,
            TOO_BUSY => ForwardOutcome::TooBusy,
            DISK_FULL => ForwardOutcome::DiskFull,
            _ => return Err(WireError::Malformed("an unknown outcome of a write")),
        };
        answers.push(ForwardAnswer { token, outcome });
    }
    Ok(answers)
}

fn put_chunk(out: &mut Vec<u8>, chunk: &SnapshotChunk) {
    assert!(
        chunk.data.len() <= SNAPSHOT_CHUNK_MAX,
        "{} bytes of a snapshot in one message",
        chunk.data.len()
    );
    for field in [chunk.leader_term, chunk.term, chunk.index, chunk.total, chunk.offset] {
        put_u64(out, field);
    }
    put_body(out, &chunk.data);
}

fn chunk(reader: &mut Reader<'_>, frame: &Frame<'_>) -> Result<SnapshotChunk, WireError> {
    let (leader_term, term, index) = (reader.u64()?, reader.u64()?, reader.u64()?);
    let (total, offset) = (reader.u64()?, reader.u64()?);
    let data = body(reader, &frame.share(), SNAPSHOT_CHUNK_MAX)?;
    Ok(SnapshotChunk { leader_term, term, index, total, offset, data })
}

/// A body: length and checksum, zeros up to an aligned place, the bytes.
pub(super) fn put_body(out: &mut Vec<u8>, body: &[u8]) {
    put_u32(out, body.len() as u32);
    put_u32(out, crc32fast::hash(body));
    // Frames lie aligned in `out`, and so do payloads: aligned here is aligned there.
    out.resize(out.len().next_multiple_of(FRAME_ALIGNMENT), 0);
    out.extend_from_slice(body);
}

/// Reads a body; its bytes are a part of `payload`, the whole that `reader` reads.
pub(super) fn body(reader: &mut Reader<'_>, payload: &Bytes, max: usize) -> Result<Bytes, WireError> {
    let (length, crc) = (reader.u32()? as usize, reader.u32()?);
    if length > max {
        return Err(WireError::TooLong { what: "body", length, max });
    }
    let at = reader.position();
    reader.take(at.next_multiple_of(FRAME_ALIGNMENT) - at)?;
    let start = reader.position();
    if crc32fast::hash(reader.take(length)?) != crc {
        return Err(WireError::Damaged("body"));
    }
    Ok(payload.slice(start..start + length))
}
