//! Request targets: paths and queries, percent-encoding, cleaning; as Go's `net/url` and `ServeMux` do it.

/// A request target, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `*`, which only `OPTIONS` may ask for.
    Asterisk,
    /// A path and a query; scheme and host of an absolute target are ignored.
    Path {
        /// Percent-decoded path; any octets, starts with `/`.
        path: Vec<u8>,
        /// The query as sent, without `?`.
        raw_query: Vec<u8>,
    },
}

impl Target {
    /// Parses a target; `None` if it is malformed.
    pub fn parse(raw: &[u8]) -> Option<Target> {
        if raw.is_empty() || raw.iter().any(|&byte| byte < 0x20 || byte == 0x7f) {
            return None;
        }
        if raw == b"*" {
            return Some(Target::Asterisk);
        }
        let origin = if raw[0] == b'/' { raw } else { without_authority(raw)? };
        let (path, query) = match origin.iter().position(|&byte| byte == b'?') {
            Some(at) => (&origin[..at], &origin[at + 1..]),
            None => (origin, &[][..]),
        };
        let path = if path.is_empty() { b"/".to_vec() } else { percent_decode(path, false)? };
        Some(Target::Path { path, raw_query: query.to_vec() })
    }
}

/// `http://host/path?query` to `/path?query`.
fn without_authority(raw: &[u8]) -> Option<&[u8]> {
    let colon = raw.iter().position(|&byte| byte == b':')?;
    let (scheme, rest) = raw.split_at(colon);
    let named = scheme.first()?.is_ascii_alphabetic()
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    let rest = rest.strip_prefix(b"://")?;
    let end = rest.iter().position(|&byte| byte == b'/' || byte == b'?').unwrap_or(rest.len());
    named.then(|| &rest[end..])
}

/// Decodes `%XX`, and `+` to a space if asked. `None` if a `%` is not followed by two hexadecimal digits.
pub fn percent_decode(text: &[u8], plus_is_space: bool) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'%' => {
                let high = char::from(*text.get(at + 1)?).to_digit(16)?;
                let low = char::from(*text.get(at + 2)?).to_digit(16)?;
                out.push((high << 4 | low) as u8);
                at += 2;
            }
            b'+' if plus_is_space => out.push(b' '),
            byte => out.push(byte),
        }
        at += 1;
    }
    Some(out)
}

/// Splits and decodes a query, in order. Pairs end at `&` or `;`; `None` if any part is malformed.
pub fn decode_query(raw: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut pairs = Vec::new();
    for part in raw.split(|&byte| byte == b'&' || byte == b';').filter(|part| !part.is_empty()) {
        let (key, value) = match part.iter().position(|&byte| byte == b'=') {
            Some(at) => (&part[..at], &part[at + 1..]),
            None => (part, &[][..]),
        };
        pairs.push((percent_decode(key, true)?, percent_decode(value, true)?));
    }
    Some(pairs)
}

/// Resolves `.`, `..` and doubled slashes; a trailing slash stays.
pub fn clean_path(path: &[u8]) -> Vec<u8> {
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in path.split(|&byte| byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut clean = Vec::with_capacity(path.len());
    for segment in &segments {
        clean.push(b'/');
        clean.extend_from_slice(segment);
    }
    if clean.is_empty() || path.ends_with(b"/") {
        clean.push(b'/');
    }
    clean
}

/// Percent-encodes a path for a `Location`.
pub fn escape_path(path: &[u8]) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(path.len());
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(raw: &str) -> Option<(String, String)> {
        match Target::parse(raw.as_bytes())? {
            Target::Path { path, raw_query } => {
                Some((String::from_utf8(path).unwrap(), String::from_utf8(raw_query).unwrap()))
            }
            Target::Asterisk => None,
        }
    }

    #[test]
    fn targets() {
        let pair = |path: &str, query: &str| Some((path.to_owned(), query.to_owned()));
        assert_eq!(path("/v1/kv/a%20b?x=%20&y"), pair("/v1/kv/a b", "x=%20&y"));
        assert_eq!(path("http://other.example/v1/x?q"), pair("/v1/x", "q"));
        assert_eq!(path("http://other.example?q"), pair("/", "q"));
        assert_eq!(path("/e#frag"), pair("/e#frag", ""));
        assert_eq!(Target::parse(b"*"), Some(Target::Asterisk));
        for bad in ["", "foo", "/%zz", "/%4", "/a\u{1}b", "://x/", "mailto:x"] {
            assert_eq!(Target::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn cleaning_is_go_s() {
        for (given, want) in [
            ("/v1/kv//g/lead", "/v1/kv/g/lead"),
            ("/v1/kv/g/../g/dots", "/v1/kv/g/dots"),
            ("/v1/kv/g/./dot", "/v1/kv/g/dot"),
            ("/v1/kv/g/trail/", "/v1/kv/g/trail/"),
            ("/..", "/"),
            ("//", "/"),
            ("/a/..", "/"),
            ("/a/../", "/"),
            ("/a/.", "/a"),
        ] {
            assert_eq!(String::from_utf8(clean_path(given.as_bytes())).unwrap(), want);
        }
    }

    #[test]
    fn queries_keep_order_and_refuse_bad_escapes() {
        let pairs = decode_query(b"a=1&&b;c=x+y%2b&=").unwrap();
        let text: Vec<_> = pairs
            .iter()
            .map(|(key, value)| {
                format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(value))
            })
            .collect();
        assert_eq!(text, ["a=1", "b=", "c=x y+", "="]);
        assert_eq!(decode_query(b"a=%zz"), None);
        assert_eq!(decode_query(b"%"), None);
    }

    #[test]
    fn locations_are_escaped_as_go_does() {
        assert_eq!(escape_path("/v1/kv/c?d é".as_bytes()), "/v1/kv/c%3Fd%20%C3%A9");
    }
}
