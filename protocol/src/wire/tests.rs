//! Frames survive every way of being cut into pieces, and no damage gets through.

use proptest::prelude::*;

use super::*;

fn stream(payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, payload) in payloads.iter().enumerate() {
        encode_frame(&mut out, Kind(number as u8), 1, 7, |out| out.extend_from_slice(payload))
            .expect("short");
        assert!(out.len().is_multiple_of(FRAME_ALIGNMENT));
    }
    out
}

/// Feeds a stream in pieces of these lengths, over and over, and returns what came out.
fn read(decoder: &mut Decoder, mut stream: &[u8], pieces: &[usize]) -> Result<Vec<Vec<u8>>, WireError> {
    let mut frames = Vec::new();
    let mut pieces = pieces.iter().cycle();
    while !stream.is_empty() {
        let room = decoder.room();
        assert!(!room.is_empty(), "a decoder without a whole frame has room");
        let length = room.len().min(stream.len()).min(*pieces.next().expect("endless"));
        room[..length].copy_from_slice(&stream[..length]);
        stream = &stream[length..];
        decoder.filled(length);
        while let Some(frame) = decoder.next_frame()? {
            let kept = frame.share();
            assert!(kept.is_empty() || (kept.as_ptr() as usize).is_multiple_of(FRAME_ALIGNMENT));
            assert_eq!(frame.payload().as_ptr() as usize % FRAME_ALIGNMENT, 0);
            assert_eq!((frame.kind, frame.version, frame.flags), (Kind(frames.len() as u8), 1, 7));
            assert_eq!(kept, frame.payload());
            frames.push(frame.payload().to_vec());
        }
    }
    Ok(frames)
}

proptest! {
    #[test]
    fn frames_survive_any_cutting(
        payloads in prop::collection::vec(
            prop_oneof![9 => prop::collection::vec(any::<u8>(), 0..200), 1 => prop::collection::vec(any::<u8>(), 60_000..200_000)],
            0..12,
        ),
        pieces in prop::collection::vec(1usize..100_000, 1..8),
    ) {
        let mut decoder = Decoder::default();
        prop_assert_eq!(read(&mut decoder, &stream(&payloads), &pieces), Ok(payloads));
    }

    #[test]
    fn one_flipped_bit_is_always_found(
        payload in prop::collection::vec(any::<u8>(), 0..300),
        place in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let mut bytes = stream(std::slice::from_ref(&payload));
        // Padding carries nothing and is not looked at.
        let place = place.index(FRAME_HEADER_LENGTH + payload.len());
        bytes[place] ^= 1 << bit;
        let mut decoder = Decoder::default();
        prop_assert!(read(&mut decoder, &bytes, &[usize::MAX]).is_err());
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..500), piece in 1usize..64) {
        let mut decoder = Decoder::new(HELLO_LENGTH_MAX);
        let _ = read(&mut decoder, &bytes, &[piece]);
    }
}

#[test]
fn a_payload_that_is_too_long_is_not_sent() {
    let mut out = Vec::new();
    let refused = encode_frame(&mut out, Kind(0), 1, 0, |out| out.resize(PAYLOAD_LENGTH_MAX + 100, 0));
    assert!(matches!(refused, Err(WireError::TooLong { .. })) && out.is_empty());
}

#[test]
fn a_length_is_refused_before_memory_is_taken_for_it() {
    let bytes = stream(&[vec![1; 100]]);
    let refused = read(&mut Decoder::new(99), &bytes[..FRAME_HEADER_LENGTH], &[1]);
    assert_eq!(refused, Err(WireError::TooLong { what: "message", length: 100, max: 99 }));
}

#[test]
fn fields_come_back_and_their_limits_hold() {
    let mut out = Vec::new();
    put_u8(&mut out, 1);
    put_u64(&mut out, u64::MAX);
    put_text(&mut out, &"ä".repeat(TEXT_LENGTH_MAX));
    put_bytes(&mut out, b"abc");
    let mut reader = Reader::new(&out);
    assert_eq!(reader.bool(), Ok(true));
    assert_eq!(reader.u64(), Ok(u64::MAX));
    assert_eq!(reader.text().map(|text| text.len()), Ok(TEXT_LENGTH_MAX));
    assert!(reader.bytes(2).is_err());
    let mut short = Reader::new(&[200, 0, 0, 0, 1]);
    assert!(short.count(1000, 1).is_err(), "two hundred items do not fit into one byte");
}
