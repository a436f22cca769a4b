//! Every message survives its encoding, and nothing that a peer sends does harm.

use proptest::prelude::*;

use super::*;
use crate::entry::{BODY_ALIGNMENT, Entry, EntryKind};
use crate::raft::{
    Append, AppendReply, Heal, Message, Outcome, Position, TimeoutNow, VoteReply, VoteRequest,
};
use crate::wire::{Decoder, FRAME_HEADER_LENGTH};

fn decoded(bytes: &[u8]) -> Result<Vec<PeerMessage>, WireError> {
    let mut decoder = Decoder::default();
    let mut bytes = bytes;
    let mut messages = Vec::new();
    loop {
        while let Some(frame) = decoder.next_frame()? {
            messages.push(decode(&frame)?);
        }
        if bytes.is_empty() {
            return Ok(messages);
        }
        let room = decoder.room();
        let length = room.len().min(bytes.len());
        room[..length].copy_from_slice(&bytes[..length]);
        bytes = &bytes[length..];
        decoder.filled(length);
    }
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

fn position() -> impl Strategy<Value = Position> {
    (any::<u64>(), any::<u64>()).prop_map(|(term, index)| Position { term, index })
}

fn time() -> impl Strategy<Value = std::time::Duration> {
    any::<u64>().prop_map(std::time::Duration::from_nanos)
}

fn append() -> impl Strategy<Value = Append> {
    let entries = prop::collection::vec((any::<u64>(), 0u8..3, any::<u8>(), bytes()), 0..20);
    let heal =
        prop::option::of((1..=u64::MAX, any::<u64>()).prop_map(|(damage, through)| Heal { damage, through }));
    let rest = (any::<u64>(), any::<u64>(), time(), any::<u64>(), any::<bool>());
    (any::<u64>(), any::<u64>(), 0..u64::MAX / 2, entries, rest, heal).prop_map(
        |(term, prev_term, prev_index, entries, (commit, round, round_began, epoch, answer), heal)| {
            let entry = |(place, (term, kind, version, body)): (usize, (u64, u8, u8, Bytes))| Entry {
                term,
                index: prev_index + 1 + place as u64,
                kind: EntryKind::of(kind).expect("one of three"),
                version,
                body,
            };
            let entries = entries.into_iter().enumerate().map(entry).collect();
            let prev = Position { term: prev_term, index: prev_index };
            Append { term, prev, entries, commit, round, round_began, epoch, answer, heal }
        },
    )
}

fn append_reply() -> impl Strategy<Value = AppendReply> {
    let outcome = prop_oneof![
        (any::<u64>(), any::<u64>()).prop_map(|(durable, received)| Outcome::Accepted { durable, received }),
        (any::<u64>(), position()).prop_map(|(prev, hint)| Outcome::Rejected { prev, hint }),
    ];
    let damage = prop::option::of(1..=u64::MAX);
    (any::<u64>(), any::<u64>(), time(), outcome, any::<bool>(), damage).prop_map(
        |(term, round, round_began, outcome, full, damage)| AppendReply {
            term,
            round,
            round_began,
            outcome,
            full,
            damage,
        },
    )
}

fn raft() -> impl Strategy<Value = Message> {
    let request = || {
        (any::<u64>(), position(), any::<Option<u64>>()).prop_map(|(term, last, transfer)| VoteRequest {
            term,
            last,
            transfer,
        })
    };
    let reply = || {
        (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(term, asked, granted)| VoteReply {
            term,
            asked,
            granted,
        })
    };
    let order = (any::<u64>(), any::<u64>()).prop_map(|(term, epoch)| TimeoutNow { term, epoch });
    prop_oneof![
        request().prop_map(Message::PreVote),
        reply().prop_map(Message::PreVoteReply),
        request().prop_map(Message::Vote),
        reply().prop_map(Message::VoteReply),
        append().prop_map(Message::Append),
        append_reply().prop_map(Message::AppendReply),
        order.prop_map(Message::TimeoutNow),
    ]
}

fn message() -> impl Strategy<Value = PeerMessage> {
    let forwarded = (any::<u64>(), bytes()).prop_map(|(token, body)| Forwarded { token, body });
    let outcome = prop_oneof![
        (any::<u64>(), any::<u64>()).prop_map(|(index, term)| ForwardOutcome::Accepted { index, term }),
        Just(ForwardOutcome::NotLeader),
        Just(ForwardOutcome::TooBusy),
        Just(ForwardOutcome::DiskFull),
    ];
    let answer = (any::<u64>(), outcome).prop_map(|(token, outcome)| ForwardAnswer { token, outcome });
    let five = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    prop_oneof![
        4 => raft().prop_map(PeerMessage::Raft),
        1 => prop::collection::vec(forwarded, 1..20).prop_map(PeerMessage::Forward),
        1 => prop::collection::vec(answer, 0..20).prop_map(PeerMessage::ForwardAnswers),
        1 => (any::<u64>(), any::<bool>()).prop_map(|(token, consistent)| PeerMessage::ReadIndex { token, consistent }),
        1 => (any::<u64>(), any::<Option<u64>>()).prop_map(|(token, index)| PeerMessage::ReadIndexAnswer { token, index }),
        1 => (five, bytes()).prop_map(|((leader_term, term, index, total, offset), data)| {
            PeerMessage::SnapshotChunk(SnapshotChunk { leader_term, term, index, total, offset, data })
        }),
        1 => (five, any::<bool>()).prop_map(|((follower_term, term, index, received, _), installed)| {
            PeerMessage::SnapshotAck(SnapshotAck { follower_term, term, index, received, installed })
        }),
        1 => (any::<u64>(), bytes()).prop_map(|(token, question)| PeerMessage::Ask { token, question }),
        1 => (any::<u64>(), prop::option::of(bytes())).prop_map(|(token, answer)| PeerMessage::Told { token, answer }),
    ]
}

/// The bodies in a message, which lie aligned.
fn bodies(message: &PeerMessage) -> Vec<&Bytes> {
    match message {
        PeerMessage::Raft(Message::Append(append)) => {
            append.entries.iter().map(|entry| &entry.body).collect()
        }
        PeerMessage::Forward(writes) => writes.iter().map(|write| &write.body).collect(),
        _ => Vec::new(),
    }
}

proptest! {
    #[test]
    fn messages_survive_their_encoding(messages in prop::collection::vec(message(), 1..8)) {
        let mut out = Vec::new();
        for message in &messages {
            encode(message, &mut out).expect("short");
        }
        let read = decoded(&out).expect("sound");
        for body in read.iter().flat_map(bodies) {
            prop_assert!(body.is_empty() || (body.as_ptr() as usize).is_multiple_of(BODY_ALIGNMENT));
        }
        prop_assert_eq!(read, messages);
    }

    #[test]
    fn payloads_of_any_bytes_are_read_without_harm(
        kind in any::<u8>(),
        version in 0u8..3,
        payload in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let mut out = Vec::new();
        encode_frame(&mut out, Kind(kind), version, 0, |out| out.extend_from_slice(&payload)).expect("short");
        if let Ok(messages) = decoded(&out) {
            // What is understood means the same when it is said again.
            let mut again = Vec::new();
            messages.iter().for_each(|message| encode(message, &mut again).expect("no longer than it was"));
            prop_assert_eq!(decoded(&again), Ok(messages));
        }
    }

    #[test]
    fn damage_behind_good_checksums_is_read_without_harm(
        message in message(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut out = Vec::new();
        encode(&message, &mut out).expect("short");
        let kind = Kind(out[4]);
        let length = u32::from_le_bytes([out[0], out[1], out[2], out[3]]) as usize;
        let mut payload = out[FRAME_HEADER_LENGTH..FRAME_HEADER_LENGTH + length].to_vec();
        for (place, value) in changes.iter().filter(|_| length > 0) {
            payload[place.index(length)] = *value;
        }
        let mut changed = Vec::new();
        encode_frame(&mut changed, kind, VERSION, 0, |out| out.extend_from_slice(&payload)).expect("short");
        let _ = decoded(&changed);
    }
}

#[test]
fn long_lists_of_writes_are_sent_in_parts() {
    let write = |token: u64| Forwarded { token, body: Bytes::from(vec![token as u8; 300 << 10]) };
    let writes: Vec<Forwarded> = (0..100).map(write).collect();
    let mut out = Vec::new();
    encode(&PeerMessage::Forward(writes.clone()), &mut out).expect("in parts");
    let read = decoded(&out).expect("sound");
    assert!(read.len() > 20, "{}", read.len());
    let parts = read.into_iter().flat_map(|part| match part {
        PeerMessage::Forward(writes) => writes,
        other => panic!("{other:?}"),
    });
    assert!(parts.eq(writes));
}

#[test]
fn later_versions_are_named() {
    let mut out = Vec::new();
    encode_frame(&mut out, READ_INDEX, VERSION + 1, 0, |_| ()).expect("short");
    assert_eq!(
        decoded(&out),
        Err(WireError::NewerVersion { kind: READ_INDEX, version: VERSION + 1, known: VERSION })
    );
    out.clear();
    encode_frame(&mut out, Kind(250), VERSION, 0, |_| ()).expect("short");
    assert_eq!(decoded(&out), Err(WireError::UnknownKind(Kind(250))));
}
