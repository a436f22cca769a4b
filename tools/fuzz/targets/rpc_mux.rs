//! Any bytes as one side of a connection between agent and server: whatever it says, what is held for it stays bounded.
//!
//! The first byte says which side listens, and whether the rest are the bytes of the stream or frames whose checksums are made
//! right: kind, flags, length, payload, again and again. Streams that are opened are read, written and closed as the bytes of
//! the payloads would have it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster_protocol::rpc::mux::limits::{CONTROL_MAX, DATA_LENGTH_MAX, OUTPUT_MAX, STREAMS_MAX};
use muster_protocol::rpc::mux::{Input, Mux, MuxEvent, ResetReason, Side};
use muster_protocol::wire::{Kind, encode_frame};

fuzz_target!(|data: &[u8]| {
    let [first, rest @ ..] = data else { return };
    let side = if first & 1 == 0 { Side::Server } else { Side::Agent };
    let mut mux = Mux::new(side);
    if side == Side::Agent {
        for _ in 0..4 {
            assert!(mux.open(b"GET / HTTP/1.1\r\n\r\n", first & 4 != 0).is_some());
        }
    }
    let bytes = if first & 2 == 0 { rest.to_vec() } else { forge(rest) };
    let piece = usize::from(first >> 3) * 64 + 1;
    for part in bytes.chunks(piece) {
        let mut events = Vec::new();
        if mux.receive(part, &mut events).is_err() {
            return;
        }
        events.iter().for_each(|event| react(&mut mux, *event));
        assert!(mux.streams() <= STREAMS_MAX);
        assert!(mux.output().len() <= OUTPUT_MAX + CONTROL_MAX + 2 * DATA_LENGTH_MAX);
        if part.len() % 3 == 0 {
            let half = mux.output().len() / 2;
            mux.sent(half, &mut Vec::new());
        }
    }
});

fn react(mux: &mut Mux, event: MuxEvent) {
    let mut buffer = [0; 300];
    match event {
        MuxEvent::Opened(id) | MuxEvent::Room(id) => {
            mux.write(id, &[7; 40_000], id % 2 == 0);
        }
        MuxEvent::Input(id) if id % 3 == 0 => while let Input::Read(_) = mux.read(id, &mut buffer) {},
        MuxEvent::Input(id) if id % 3 == 1 => drop(mux.read(id, &mut buffer)),
        MuxEvent::Reset(id, _) => {
            mux.close(id, ResetReason::Broken);
            assert_eq!(mux.read(id, &mut buffer), Input::Reset);
        }
        MuxEvent::Input(_) | MuxEvent::Pong(_) | MuxEvent::GoAway(_) => {}
    }
}

/// Sound frames of what may be unsound payloads.
fn forge(mut rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let [kind, flags, length, payload @ ..] = rest {
        let (payload, later) = payload.split_at(payload.len().min(usize::from(*length)));
        let write = |out: &mut Vec<u8>| out.extend_from_slice(payload);
        encode_frame(&mut out, Kind(18 + kind % 6), 1, u16::from(*flags), write).expect("short");
        rest = later;
    }
    out
}
