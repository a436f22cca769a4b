//! Any bytes as a stream from another server: frames, messages between servers, lists of first servers, hellos.
//!
//! The first byte says in which pieces the stream comes in. What is understood must mean the same when it is said again, and
//! its bodies must lie aligned. With the second byte odd, the checksums of the first frame are made right, so that what is
//! behind them is reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster_protocol::entry::BODY_ALIGNMENT;
use muster_protocol::raft::Message;
use muster_protocol::rpc::{self, Founding, LinkHello, LinkWelcome, PeerMessage};
use muster_protocol::wire::{Decoder, FRAME_HEADER_LENGTH, Frame, Kind, PAYLOAD_LENGTH_MAX, WireError, encode_frame};

fuzz_target!(|data: &[u8]| {
    let [pieces, sound, stream @ ..] = data else { return };
    let mut forged = Vec::new();
    let stream = match (sound % 2, stream) {
        (1, [kind, version, payload @ ..]) => {
            let forge = |out: &mut Vec<u8>| out.extend_from_slice(payload);
            encode_frame(&mut forged, Kind(*kind), *version, 0, forge).expect("inputs are short");
            &forged
        }
        _ => stream,
    };
    let _ = read(stream, usize::from(*pieces) + 1);
});

fn read(mut stream: &[u8], piece: usize) -> Result<(), WireError> {
    let mut decoder = Decoder::default();
    loop {
        while let Some(frame) = decoder.next_frame()? {
            look_at(&frame);
        }
        if stream.is_empty() {
            return Ok(());
        }
        let room = decoder.room();
        assert!(!room.is_empty() && room.len() <= FRAME_HEADER_LENGTH + PAYLOAD_LENGTH_MAX + BODY_ALIGNMENT);
        let length = room.len().min(stream.len()).min(piece);
        room[..length].copy_from_slice(&stream[..length]);
        stream = &stream[length..];
        decoder.filled(length);
    }
}

fn look_at(frame: &Frame<'_>) {
    let _ = LinkHello::decode(frame);
    let _ = LinkWelcome::decode(frame);
    let _ = Founding::decode_answer(frame);
    let _ = Founding::decode(frame);
    let Ok(message) = rpc::decode(frame) else { return };
    let bodies: Vec<_> = match &message {
        PeerMessage::Raft(Message::Append(append)) => append.entries.iter().map(|entry| &entry.body).collect(),
        PeerMessage::Forward(writes) => writes.iter().map(|write| &write.body).collect(),
        _ => Vec::new(),
    };
    assert!(bodies.iter().all(|body| body.is_empty() || (body.as_ptr() as usize).is_multiple_of(BODY_ALIGNMENT)));
    let mut again = Vec::new();
    rpc::encode(&message, &mut again).expect("no longer than it was");
    let mut decoder = Decoder::default();
    let mut rest = &again[..];
    while !rest.is_empty() {
        let room = decoder.room();
        let length = room.len().min(rest.len());
        room[..length].copy_from_slice(&rest[..length]);
        decoder.filled(length);
        rest = &rest[length..];
        match decoder.next_frame().expect("our own frame") {
            Some(frame) => assert_eq!(rpc::decode(&frame), Ok(message.clone())),
            None => assert!(!rest.is_empty(), "our own frame is whole"),
        }
    }
}
