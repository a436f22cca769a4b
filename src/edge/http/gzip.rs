//! Compression of answers for clients that ask for it.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use muster_protocol::http::Headers;

/// zlib's level: answers are made once and sent often, but the first reader waits for it.
const LEVEL: u32 = 5;

/// Whether the client takes gzip: `Accept-Encoding` names it (a `*` does not) with a quality above zero.
pub fn accepted(headers: &Headers) -> bool {
    headers.all("Accept-Encoding").any(|value| value.split(|&byte| byte == b',').any(names_gzip))
}

fn names_gzip(part: &[u8]) -> bool {
    let mut parts = part.split(|&byte| byte == b';');
    let coding = parts.next().unwrap_or_default().trim_ascii();
    if !coding.eq_ignore_ascii_case(b"gzip") {
        return false;
    }
    let quality = parts.find_map(|param| param.trim_ascii().strip_prefix(b"q="));
    let positive =
        |text: &[u8]| std::str::from_utf8(text).is_ok_and(|t| t.parse::<f32>().is_ok_and(|q| q > 0.0));
    quality.is_none_or(positive)
}

/// Compresses a body.
pub fn compress(body: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4 + 64), Compression::new(LEVEL));
    let written = encoder.write_all(body).and_then(|()| encoder.finish());
    written.expect("writing into memory does not fail").into()
}

#[cfg(test)]
mod tests {
    use muster_protocol::http::{Head, HeadLimits};

    use super::accepted;

    #[test]
    fn who_takes_gzip() {
        let limits = HeadLimits { bytes: 1000, fields: 10 };
        let asks = |value: &str| {
            let head = format!("GET / HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {value}\r\n\r\n");
            accepted(&Head::parse(head.into_bytes().into(), limits).unwrap().headers)
        };
        assert!(asks("gzip") && asks("gzip, deflate, br") && asks("br, GZIP;q=0.5"));
        assert!(!asks("deflate") && !asks("identity") && !asks("*") && !asks("gzip;q=0") && !asks("gzipped"));
    }
}
