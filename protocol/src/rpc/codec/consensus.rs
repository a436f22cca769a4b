//! Raft's own messages as frames.
//!
//! An entry travels as its place, kind, version and body. Its command is read in place where it lies in the frame.

use std::time::Duration;

use super::{RAFT_FIRST, body, frame, put_body};
use crate::entry::{Entry, EntryKind};
use crate::raft::{
    Append, AppendReply, Heal, Message, Outcome, Position, TimeoutNow, VoteReply, VoteRequest,
};
use crate::wire::{BODY_LENGTH_MAX, Frame, Kind, Reader, WireError, put_u8, put_u32, put_u64};

const PRE_VOTE: Kind = Kind(RAFT_FIRST);
const PRE_VOTE_REPLY: Kind = Kind(RAFT_FIRST + 1);
const VOTE: Kind = Kind(RAFT_FIRST + 2);
const VOTE_REPLY: Kind = Kind(RAFT_FIRST + 3);
const APPEND: Kind = Kind(RAFT_FIRST + 4);
const APPEND_REPLY: Kind = Kind(RAFT_FIRST + 5);
const TIMEOUT_NOW: Kind = Kind(RAFT_FIRST + 6);

/// Entries of one message at most: a batch of the least entries that fills a message.
const ENTRIES_MAX: usize = 1 << 17;

/// What an entry takes at least, bytes: term, index, kind, version, length, checksum.
const ENTRY_LENGTH_MIN: usize = 26;

pub(super) fn encode(message: &Message, out: &mut Vec<u8>) -> Result<(), WireError> {
    match message {
        Message::PreVote(request) => frame(out, PRE_VOTE, |out| put_request(out, request)),
        Message::PreVoteReply(reply) => frame(out, PRE_VOTE_REPLY, |out| put_reply(out, reply)),
        Message::Vote(request) => frame(out, VOTE, |out| put_request(out, request)),
        Message::VoteReply(reply) => frame(out, VOTE_REPLY, |out| put_reply(out, reply)),
        Message::Append(append) => frame(out, APPEND, |out| put_append(out, append)),
        Message::AppendReply(reply) => frame(out, APPEND_REPLY, |out| put_append_reply(out, reply)),
        Message::TimeoutNow(order) => frame(out, TIMEOUT_NOW, |out| {
            put_u64(out, order.term);
            put_u64(out, order.epoch);
        }),
    }
}

pub(super) fn decode(reader: &mut Reader<'_>, frame: &Frame<'_>) -> Result<Message, WireError> {
    Ok(match frame.kind {
        PRE_VOTE => Message::PreVote(request(reader)?),
        PRE_VOTE_REPLY => Message::PreVoteReply(reply(reader)?),
        VOTE => Message::Vote(request(reader)?),
        VOTE_REPLY => Message::VoteReply(reply(reader)?),
        APPEND => Message::Append(append(reader, frame)?),
        APPEND_REPLY => Message::AppendReply(append_reply(reader)?),
        TIMEOUT_NOW => Message::TimeoutNow(TimeoutNow { term: reader.u64()?, epoch: reader.u64()? }),
        kind => return Err(WireError::UnknownKind(kind)),
    })
}

fn put_request(out: &mut Vec<u8>, request: &VoteRequest) {
    put_u64(out, request.term);
    put_position(out, request.last);
    put_u8(out, u8::from(request.transfer.is_some()));
    put_u64(out, request.transfer.unwrap_or_default());
}

fn request(reader: &mut Reader<'_>) -> Result<VoteRequest, WireError> {
    let (term, last) = (reader.u64()?, position(reader)?);
    let (asked, epoch) = (reader.bool()?, reader.u64()?);
    Ok(VoteRequest { term, last, transfer: asked.then_some(epoch) })
}

fn put_reply(out: &mut Vec<u8>, reply: &VoteReply) {
    put_u64(out, reply.term);
    put_u64(out, reply.asked);
    put_u8(out, u8::from(reply.granted));
}

fn reply(reader: &mut Reader<'_>) -> Result<VoteReply, WireError> {
    Ok(VoteReply { term: reader.u64()?, asked: reader.u64()?, granted: reader.bool()? })
}

fn put_append(out: &mut Vec<u8>, append: &Append) {
    put_u64(out, append.term);
    put_position(out, append.prev);
    put_u64(out, append.commit);
    put_u64(out, append.round);
    put_time(out, append.round_began);
    put_u64(out, append.epoch);
    put_u8(out, u8::from(append.answer));
    put_u64(out, append.heal.map_or(0, |heal| heal.damage));
    put_u64(out, append.heal.map_or(0, |heal| heal.through));
    put_u32(out, append.entries.len() as u32);
    for entry in &append.entries {
        put_u64(out, entry.term);
        put_u64(out, entry.index);
        put_u8(out, entry.kind as u8);
        put_u8(out, entry.version);
        put_body(out, &entry.body);
    }
}

fn append(reader: &mut Reader<'_>, frame: &Frame<'_>) -> Result<Append, WireError> {
    let (term, prev, commit, round) = (reader.u64()?, position(reader)?, reader.u64()?, reader.u64()?);
    let (round_began, epoch, answer) = (time(reader)?, reader.u64()?, reader.bool()?);
    let (damage, through) = (reader.u64()?, reader.u64()?);
    let heal = (damage > 0).then_some(Heal { damage, through });
    let count = reader.count(ENTRIES_MAX, ENTRY_LENGTH_MIN)?;
    let mut entries = Vec::with_capacity(count);
    if count > 0 {
        let payload = frame.share();
        for _ in 0..count {
            entries.push(entry(reader, &payload)?);
        }
    }
    let mut places = entries.iter().map(|entry| entry.index);
    if !(1..=count as u64).all(|step| prev.index.checked_add(step) == places.next()) {
        return Err(WireError::Malformed("entries that do not follow one another"));
    }
    Ok(Append { term, prev, entries, commit, round, round_began, epoch, answer, heal })
}

fn entry(reader: &mut Reader<'_>, payload: &bytes::Bytes) -> Result<Entry, WireError> {
    let (term, index) = (reader.u64()?, reader.u64()?);
    let kind = EntryKind::of(reader.u8()?);
    let kind =
        kind.ok_or(WireError::Malformed("an entry of a kind that this program does not know: upgrade it"))?;
    let version = reader.u8()?;
    Ok(Entry { term, index, kind, version, body: body(reader, payload, BODY_LENGTH_MAX)? })
}

const ACCEPTED: u8 = 0;
const REJECTED: u8 = 1;

fn put_append_reply(out: &mut Vec<u8>, reply: &AppendReply) {
    put_u64(out, reply.term);
    put_u64(out, reply.round);
    put_time(out, reply.round_began);
    put_u8(out, u8::from(reply.full));
    put_u64(out, reply.damage.unwrap_or(0));
    match reply.outcome {
        Outcome::Accepted { durable, received } => {
            put_u8(out, ACCEPTED);
            put_u64(out, durable);
            put_u64(out, received);
        }
        Outcome::Rejected { prev, hint } => {
            put_u8(out, REJECTED);
            put_u64(out, prev);
            put_position(out, hint);
        }
    }
}

fn append_reply(reader: &mut Reader<'_>) -> Result<AppendReply, WireError> {
    let (term, round, round_began) = (reader.u64()?, reader.u64()?, time(reader)?);
    let (full, damage) = (reader.bool()?, Some(reader.u64()?).filter(|damage| *damage > 0));
    let outcome = match reader.u8()? {
        ACCEPTED => Outcome::Accepted { durable: reader.u64()?, received: reader.u64()? },
        REJECTED => Outcome::Rejected { prev: reader.u64()?, hint: position(reader)? },
        _ => return Err(WireError::Malformed("an unknown outcome of an append")),
    };
    Ok(AppendReply { term, round, round_began, outcome, full, damage })
}

fn put_position(out: &mut Vec<u8>, position: Position) {
    put_u64(out, position.term);
    put_u64(out, position.index);
}

fn position(reader: &mut Reader<'_>) -> Result<Position, WireError> {
    Ok(Position { term: reader.u64()?, index: reader.u64()? })
}

/// Nanoseconds since its server's origin, which 64 bits count for 584 years.
fn put_time(out: &mut Vec<u8>, time: Duration) {
    put_u64(out, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}

fn time(reader: &mut Reader<'_>) -> Result<Duration, WireError> {
    reader.u64().map(Duration::from_nanos)
}
