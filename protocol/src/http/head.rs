//! Request heads: the request line and the headers.

use bytes::Bytes;

use super::method::{Method, is_token};
use super::reject::Reject;
use super::target::Target;

/// Header fields that fit without an allocation while parsing.
const FIELDS_INLINE: usize = 64;

/// How large a head may be.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes, including the empty line.
    pub bytes: usize,
    /// Header fields.
    pub fields: usize,
}

/// How a body follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// None.
    Empty,
    /// So many bytes, at least one.
    Length(u64),
    /// Chunked.
    Chunked,
}

/// A parsed head.
#[derive(Clone, Debug)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// The target.
    pub target: Target,
    /// Whether the client speaks HTTP/1.0.
    pub http_1_0: bool,
    /// Whether the connection may serve another request.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue`.
    pub expects_continue: bool,
    /// Whether the client expects something else, which is answered 417.
    pub expects_unknown: bool,
    /// How the body comes.
    pub framing: Framing,
    /// The headers.
    pub headers: Headers,
}

/// The header fields of a request, sharing one buffer with it.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    raw: Bytes,
    fields: Vec<Field>,
}

#[derive(Clone, Copy, Debug)]
struct Field {
    name: (u32, u32),
    value: (u32, u32),
}

impl Headers {
    /// The first value of a field, whatever the letter case of its name; `None` too if it is not UTF-8.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next().and_then(|value| std::str::from_utf8(value).ok())
    }

    /// All values of a field, in order.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.iter()
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// All fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let slice = |(start, end): (u32, u32)| &self.raw[start as usize..end as usize];
        self.fields.iter().map(move |field| (slice(field.name), slice(field.value)))
    }

    /// Whether a comma-separated field holds a token.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name).any(|value| {
            value
                .split(|&byte| byte == b',')
                .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
        })
    }
}

/// The length of the head at the start of `buffer`, if it is complete. `searched` says how much was looked at
/// before in vain, so that a head that trickles in is searched once.
pub fn head_end(buffer: &[u8], searched: usize) -> Option<usize> {
    let mut at = searched.saturating_sub(3);
    while let Some(found) = buffer[at..].iter().position(|&byte| byte == b'\n') {
        at += found + 1;
        match buffer.get(at) {
            Some(b'\n') => return Some(at + 1),
            Some(b'\r') if buffer.get(at + 1) == Some(&b'\n') => return Some(at + 2),
            _ => {}
        }
    }
    None
}

impl Head {
    /// Parses a complete head (see [`head_end`]).
    ///
    /// # Errors
    /// The refusal to send before the connection is closed.
    pub fn parse(raw: Bytes, limits: HeadLimits) -> Result<Head, Reject> {
        if raw.len() > limits.bytes {
            return Err(Reject::HeadTooLarge);
        }
        let line_end = raw.iter().position(|&byte| byte == b'\n').ok_or(Reject::Malformed)?;
        let line = raw[..line_end].strip_suffix(b"\r").unwrap_or(&raw[..line_end]);
        let (method, target, minor) = request_line(line)?;
        let headers = parse_headers(raw.slice(line_end + 1..), limits.fields)?;
        let http_1_0 = minor == 0;
        check_host(&headers, http_1_0)?;
        let (framing, ambiguous) = framing(&headers, http_1_0)?;
        let close = headers.has_token("connection", "close");
        let keep = !http_1_0 || headers.has_token("connection", "keep-alive");
        let expect = headers.get("expect").filter(|_| !http_1_0);
        let continues = expect.is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
        Ok(Head {
            method,
            target,
            http_1_0,
            keep_alive: keep && !close && !ambiguous,
            expects_continue: continues,
            expects_unknown: expect.is_some() && !continues,
            framing,
            headers,
        })
    }
}

fn request_line(line: &[u8]) -> Result<(Method, Target, u8), Reject> {
    let mut parts = line.splitn(3, |&byte| byte == b' ');
    let (Some(method), Some(target), Some(version)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(Reject::Malformed);
    };
    let minor = match version {
        b"HTTP/1.1" => 1,
        b"HTTP/1.0" => 0,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            if *major != b'1' {
                return Err(Reject::Version);
            }
            minor - b'0'
        }
        _ => return Err(Reject::Malformed),
    };
    let method = Method::parse(method).ok_or(Reject::Malformed)?;
    let target = Target::parse(target).ok_or(Reject::Malformed)?;
    Ok((method, target, minor))
}

pub(super) fn parse_headers(raw: Bytes, max: usize) -> Result<Headers, Reject> {
    let mut inline = [httparse::EMPTY_HEADER; FIELDS_INLINE];
    let fields = match httparse::parse_headers(&raw, &mut inline) {
        Err(httparse::Error::TooManyHeaders) if max > FIELDS_INLINE => {
            let mut many = vec![httparse::EMPTY_HEADER; max];
            fields_of(&raw, httparse::parse_headers(&raw, &mut many))?
        }
        parsed => fields_of(&raw, parsed)?,
    };
    Ok(Headers { raw, fields })
}

fn fields_of(
    raw: &[u8],
    parsed: httparse::Result<(usize, &[httparse::Header<'_>])>,
) -> Result<Vec<Field>, Reject> {
    let base = raw.as_ptr().addr();
    let range = |part: &[u8]| {
        let start = part.as_ptr().addr() - base;
        (start as u32, (start + part.len()) as u32)
    };
    match parsed {
        Ok(httparse::Status::Complete((_, headers))) => Ok(headers
            .iter()
            .map(|header| Field { name: range(header.name.as_bytes()), value: range(header.value) })
            .collect()),
        Ok(httparse::Status::Partial) => Err(Reject::Malformed),
        Err(httparse::Error::TooManyHeaders) => Err(Reject::HeadTooLarge),
        Err(httparse::Error::HeaderValue) => Err(Reject::HeaderValue),
        Err(_) => Err(bad_name(raw)),
    }
}

/// Go tells a line without a colon from a name that is not a token.
fn bad_name(raw: &[u8]) -> Reject {
    for line in raw.split(|&byte| byte == b'\n') {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { return Reject::Malformed };
        if colon == 0 || !line[..colon].iter().all(|&byte| is_token(byte)) {
            return Reject::HeaderName;
        }
    }
    Reject::Malformed
}

fn check_host(headers: &Headers, http_1_0: bool) -> Result<(), Reject> {
    let mut hosts = headers.all("host");
    match (hosts.next(), hosts.next()) {
        (None, _) if http_1_0 => Ok(()),
        (None, _) => Err(Reject::MissingHost),
        (Some(_), Some(_)) => Err(Reject::ManyHosts),
        (Some(host), None) if host.iter().all(|&byte| is_host(byte)) => Ok(()),
        (Some(_), None) => Err(Reject::BadHost),
    }
}

/// Octets of a host and port, an IP literal or a registered name (RFC 3986).
fn is_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=[]_~".contains(&byte)
}

/// The framing, and whether a length stood beside `chunked` (then nothing behind the body can be trusted).
fn framing(headers: &Headers, http_1_0: bool) -> Result<(Framing, bool), Reject> {
    let length = content_length(headers)?;
    let mut codings = headers.all("transfer-encoding");
    match (codings.next(), codings.next()) {
        (Some(coding), None) if !http_1_0 => {
            if coding.eq_ignore_ascii_case(b"chunked") {
                Ok((Framing::Chunked, length.is_some()))
            } else {
                Err(Reject::TransferCoding)
            }
        }
        (Some(_), _) => Err(Reject::TransferCoding),
        (None, _) => match length {
            None | Some(0) => Ok((Framing::Empty, false)),
            Some(length) => Ok((Framing::Length(length), false)),
        },
    }
}

fn content_length(headers: &Headers) -> Result<Option<u64>, Reject> {
    let mut length = None;
    for value in headers.all("content-length") {
        let value = value.trim_ascii();
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(Reject::Malformed);
        }
        let text = std::str::from_utf8(value).map_err(|_| Reject::Malformed)?;
        let number = text.parse::<u64>().map_err(|_| Reject::Malformed)?;
        if length.replace(number).is_some_and(|before| before != number) {
            return Err(Reject::Malformed);
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 1 << 20, fields: 1000 };

    fn parse(text: &str) -> Result<Head, Reject> {
        assert_eq!(head_end(text.as_bytes(), 0), Some(text.len()), "{text:?}");
        Head::parse(Bytes::copy_from_slice(text.as_bytes()), LIMITS)
    }

    fn refused(text: &str) -> Reject {
        parse(text).err().unwrap_or_else(|| panic!("accepted {text:?}"))
    }

    #[test]
    fn a_typical_request() {
        let head = parse("GET /v1/kv/a%2Fb?raw HTTP/1.1\r\nHost: x\r\nACCEPT: a, b\r\n\r\n").unwrap();
        assert_eq!(head.method, Method::Get);
        assert_eq!(head.target, Target::Path { path: b"/v1/kv/a/b".to_vec(), raw_query: b"raw".to_vec() });
        assert_eq!(head.framing, Framing::Empty);
        assert!(head.keep_alive && !head.http_1_0 && !head.expects_continue);
        assert_eq!(head.headers.get("Accept"), Some("a, b"));
        assert!(head.headers.has_token("accept", "B"));
        assert_eq!(head.headers.get("absent"), None);
    }

    #[test]
    fn lone_line_feeds_end_lines_too() {
        assert_eq!(parse("GET / HTTP/1.1\nHost: x\n\n").unwrap().headers.get("host"), Some("x"));
    }

    #[test]
    fn connections_stay_or_close() {
        let keeps = |text: &str| parse(text).unwrap().keep_alive;
        assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
        assert!(keeps("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.1\r\nHost: x\r\nConnection: x, Close\r\n\r\n"));
        assert!(keeps("GET / HTTP/1.2\r\nHost: x\r\n\r\n"));
        let both = "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(!keeps(both));
        assert_eq!(parse(both).unwrap().framing, Framing::Chunked);
    }

    #[test]
    fn refusals_are_go_s() {
        let with = |header: &str| refused(&format!("PUT / HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n"));
        assert_eq!(refused("GET / HTTP/1.1\r\n\r\n"), Reject::MissingHost);
        assert_eq!(refused("NONSENSE\r\n\r\n"), Reject::Malformed);
        assert_eq!(refused("GET  / HTTP/1.1\r\nHost: x\r\n\r\n"), Reject::Malformed);
        assert_eq!(refused("GET / HTTP/9.9\r\nHost: x\r\n\r\n"), Reject::Version);
        assert_eq!(refused("GET / HTTX/1.1\r\nHost: x\r\n\r\n"), Reject::Malformed);
        assert_eq!(refused("GET foo HTTP/1.1\r\nHost: x\r\n\r\n"), Reject::Malformed);
        assert_eq!(refused("GET / HTTP/1.1\r\nHost: x y\r\n\r\n"), Reject::BadHost);
        assert_eq!(with("Host: y"), Reject::ManyHosts);
        assert_eq!(with("Bad Header: y"), Reject::HeaderName);
        assert_eq!(with("X-A : y"), Reject::HeaderName);
        assert_eq!(with("NoColon"), Reject::Malformed);
        assert_eq!(with("A: \u{1}"), Reject::HeaderValue);
        assert_eq!(with("Content-Length: abc"), Reject::Malformed);
        assert_eq!(with("Content-Length: -1"), Reject::Malformed);
        assert_eq!(with("Content-Length: 1\r\nContent-Length: 2"), Reject::Malformed);
        assert_eq!(with("Transfer-Encoding: bogus"), Reject::TransferCoding);
        let many = "A: b\r\n".repeat(1001);
        assert_eq!(with(many.trim_end()), Reject::HeadTooLarge);
        let text = String::from_utf8(Reject::MissingHost.bytes()).unwrap();
        assert!(text.starts_with("HTTP/1.1 400 Bad Request: missing required Host header\r\nContent-Type: "));
        assert!(text.ends_with("\r\nConnection: close\r\n\r\n400 Bad Request: missing required Host header"));
    }

    #[test]
    fn many_fields_within_the_limit_are_taken() {
        let text = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(500));
        assert_eq!(parse(&text).unwrap().headers.all("a").count(), 500);
    }

    proptest! {
        #[test]
        fn the_end_is_found_from_any_pieces(cuts in prop::collection::vec(1usize..9, 0..60)) {
            let text = b"GET /v1/kv/x HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\nrest\r\n\r\n";
            let whole = head_end(text, 0).unwrap();
            let (mut have, mut searched) = (0, 0);
            for cut in cuts.into_iter().chain([text.len()]) {
                have = (have + cut).min(text.len());
                if let Some(end) = head_end(&text[..have], searched) {
                    prop_assert_eq!(end, whole);
                    return Ok(());
                }
                prop_assert!(have < whole);
                searched = have;
            }
        }

        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = head_end(&noise, 0);
            let _ = Head::parse(Bytes::from(noise), LIMITS);
        }

        #[test]
        fn near_requests_never_panic(
            method in "[A-Z ]{0,5}", target in "[/%a-f0-9?*: ]{0,20}", header in "[A-Za-z :,\r\n]{0,40}",
        ) {
            let text = format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n");
            if let Some(end) = head_end(text.as_bytes(), 0) {
                let _ = Head::parse(Bytes::copy_from_slice(&text.as_bytes()[..end]), LIMITS);
            }
        }
    }
}
