//! Any bytes as gossip: packets and frames that a small pool's member hears in turn.
//!
//! What is understood must mean the same when it is said again. The member must neither panic, nor send a packet or frame that is too long, nor
//! forget itself. The first byte of each piece says what it is, whether its checksum is made right, so that what is behind it is reached, and how
//! much later it comes.
#![no_main]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use muster_protocol::entry::ServerId;
use muster_protocol::gossip::{
    Effect, FRAME_LENGTH_MAX, Frame, Gossip, Identity, Input, MEMBERS_MAX, Messages, PACKET_LENGTH_MAX,
    Settings, StreamId, Tags, close_plain, encode_frame, open_plain, put_message, read_frame,
};

/// Most that one piece is, bytes.
const PIECE_LENGTH_MAX: usize = 512;

fuzz_target!(|data: &[u8]| {
    let identity = Identity {
        name: "own".into(),
        id: ServerId([1; 16]),
        address: SocketAddr::from(([10, 0, 0, 1], 8301)),
        tags: Tags::new([("dc", "dc1")]).expect("short"),
        incarnation: 1,
        keyring: None,
    };
    let mut now = Duration::from_secs(1000);
    let settings = Settings { common_tags: vec![("dc".into(), "datacenter".into())], ..Settings::lan() };
    let mut member = Gossip::new(settings, identity, 7, now);
    let mut dialled: Vec<StreamId> = Vec::new();
    let mut rest = data;
    while let [kind, length, after @ ..] = rest {
        let length = (usize::from(*length) * 2).min(after.len()).min(PIECE_LENGTH_MAX);
        let (piece, after) = after.split_at(length);
        rest = after;
        say_again(piece);
        let bytes = if kind & 1 == 0 { close_plain(piece) } else { Bytes::copy_from_slice(piece) };
        now += Duration::from_millis(u64::from(kind >> 4) * 100);
        let from = SocketAddr::from(([10, 0, 0, 2 + (kind & 2)], 8301));
        let input = match kind >> 2 & 3 {
            0 => Input::Packet { from, bytes },
            1 => Input::Request { stream: StreamId(1), from, frame: bytes },
            2 => match dialled.pop() {
                Some(stream) => Input::Answered { stream, frame: bytes },
                None => Input::Join(vec![from]),
            },
            _ => Input::Tick,
        };
        step(&mut member, now, input, &mut dialled);
    }
});

fn step(member: &mut Gossip, now: Duration, input: Input, dialled: &mut Vec<StreamId>) {
    let mut effects = Vec::new();
    member.step(now, input, &mut effects);
    for effect in effects {
        match effect {
            Effect::Send { packet, .. } => {
                assert!(packet.len() <= PACKET_LENGTH_MAX);
                let body = open_plain(&packet).expect("its own packet");
                assert!(Messages::new(body).all(|message| message.is_ok()));
            }
            Effect::Dial { stream, frame, .. } => {
                check(&frame);
                dialled.push(stream);
            }
            Effect::Answer { frame, .. } => check(&frame),
            _ => {}
        }
    }
    assert!((1..=MEMBERS_MAX).contains(&member.members().count()));
    assert_eq!(&*member.own().name, "own");
}

fn check(frame: &[u8]) {
    assert!(frame.len() <= FRAME_LENGTH_MAX);
    read_frame(open_plain(frame).expect("its own frame")).expect("its own frame");
}

fn say_again(bytes: &[u8]) {
    let mut again = Vec::new();
    for message in Messages::new(bytes).map_while(Result::ok) {
        again.clear();
        put_message(&mut again, &message);
        assert_eq!(Messages::new(&again).collect::<Vec<_>>(), [Ok(message)]);
    }
    if let Ok(frame) = read_frame(bytes) {
        let again = encode_frame(&frame);
        let read: Frame<'_> = read_frame(&again).expect("said by us");
        assert_eq!(read, frame);
    }
}
