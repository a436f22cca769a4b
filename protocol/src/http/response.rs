//! Heads of responses: what a server answers to a request of ours.

use bytes::Bytes;

use super::head::{HeadLimits, Headers, parse_headers};

/// A parsed head.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// Status code.
    pub status: u16,
    /// Length of the body; `None` when it comes in chunks.
    pub length: Option<u64>,
    /// The headers.
    pub headers: Headers,
}

/// What came is no head of a response whose body has an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadResponse;

impl ResponseHead {
    /// Parses a complete head (see [`super::head_end`]).
    ///
    /// # Errors
    /// It is none, or does not say where its body ends.
    pub fn parse(raw: Bytes, limits: HeadLimits) -> Result<ResponseHead, BadResponse> {
        if raw.len() > limits.bytes {
            return Err(BadResponse);
        }
        let line_end = raw.iter().position(|&byte| byte == b'\n').ok_or(BadResponse)?;
        let status = status(&raw[..line_end]).ok_or(BadResponse)?;
        let headers = parse_headers(raw.slice(line_end + 1..), limits.fields).map_err(|_| BadResponse)?;
        let length = match headers.get("content-length") {
            Some(text) => Some(text.trim().parse().map_err(|_| BadResponse)?),
            None if headers.has_token("transfer-encoding", "chunked") => None,
            None if matches!(status, 204 | 304) => Some(0),
            None => return Err(BadResponse),
        };
        Ok(ResponseHead { status, length, headers })
    }
}

fn status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let [_minor, b' ', digits @ ..] = rest else { return None };
    let digits = digits.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|status| *status >= 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 1000, fields: 100 };

    fn parse(text: &str) -> Result<ResponseHead, BadResponse> {
        ResponseHead::parse(Bytes::copy_from_slice(text.as_bytes()), LIMITS)
    }

    #[test]
    fn what_our_servers_answer() {
        let head = parse("HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nContent-Length: 12\r\n\r\n").unwrap();
        assert_eq!(
            (head.status, head.length, head.headers.get("x-consul-index")),
            (200, Some(12), Some("7"))
        );
        let head = parse("HTTP/1.1 500 Internal Server Error\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        assert_eq!((head.status, head.length), (500, None));
        assert_eq!(parse("HTTP/1.1 304 Not Modified\r\n\r\n").unwrap().length, Some(0));
    }

    #[test]
    fn what_has_no_end_or_no_meaning_is_refused() {
        for bad in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/2 200\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "SSH-2.0-x\r\n\r\n",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
