//! Any bytes as a stream of HTTP/1.1 requests: heads, targets, queries, bodies by length and chunked.
//!
//! A body must decode to the same data however it is cut on the way, and decoding what escaping wrote must give the
//! path back.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use muster_protocol::http::{
    Body, Framing, Head, HeadLimits, Target, clean_path, decode_query, escape_path, head_end, percent_decode,
};

const LIMITS: HeadLimits = HeadLimits { bytes: 16 * 1024, fields: 100 };

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while let Some(end) = head_end(rest, 0) {
        let Ok(head) = Head::parse(Bytes::copy_from_slice(&rest[..end]), LIMITS) else { return };
        rest = &rest[end..];
        assert!(head.headers.iter().count() <= LIMITS.fields);
        if let Target::Path { path, raw_query } = &head.target {
            target(path, raw_query);
        }
        let body = match head.framing {
            Framing::Empty => continue,
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::chunked(),
        };
        match read_body(body, rest) {
            Some(consumed) => rest = &rest[consumed..],
            None => return,
        }
    }
});

fn target(path: &[u8], raw_query: &[u8]) {
    assert_eq!(path.first(), Some(&b'/'));
    let clean = clean_path(path);
    assert_eq!(clean_path(&clean), clean, "cleaning twice changes nothing more");
    let escaped = escape_path(path);
    assert_eq!(percent_decode(escaped.as_bytes(), false).as_deref(), Some(path));
    let _ = decode_query(raw_query);
}

/// Feeds a body whole and byte by byte; the length it took if it is complete.
fn read_body(body: Body, input: &[u8]) -> Option<usize> {
    let (mut whole, mut data) = (body.clone(), Vec::new());
    let progress = whole.feed(input, &mut data);
    let (mut cut, mut pieces, mut consumed) = (body, Vec::new(), 0);
    let mut result = None;
    for byte in input {
        match cut.feed(&[*byte], &mut pieces) {
            Err(error) => {
                result = Some(Err(error));
                break;
            }
            Ok(progress) => {
                consumed += progress.consumed;
                if progress.done {
                    result = Some(Ok(()));
                    break;
                }
            }
        }
    }
    match (progress, result) {
        (Ok(progress), Some(Ok(()))) => {
            assert!(progress.done && progress.consumed == consumed && data == pieces);
            Some(consumed)
        }
        (Ok(progress), None) => {
            assert!(!progress.done || input.is_empty());
            assert_eq!(data, pieces);
            None
        }
        (Err(error), Some(Err(other))) => {
            assert_eq!(error, other);
            None
        }
        (whole, cut) => panic!("whole {whole:?}, cut {cut:?}"),
    }
}
