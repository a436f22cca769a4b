//! String literals as Go writes and reads them: error texts quote values the way `%q` does, and expressions
//! hold literals that `strconv.Unquote` takes.

use std::fmt::Write as _;

/// The text in double quotes, escaped as Go's `%q` does.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c if c.is_control() || (c.is_whitespace() && c != ' ') => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A literal of the filter language with this content. A double quote cannot be escaped with a backslash
/// there (the grammar ends the literal at it), so it is written by number.
pub fn literal(text: &str) -> String {
    if !text.contains(['`', '\r']) {
        return format!("`{text}`");
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\x22"),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The content of a literal with its quotes, or `None` where Go's `strconv.Unquote` says `invalid syntax`.
pub fn unquote(literal: &str) -> Option<String> {
    let mark = literal.chars().next()?;
    let inner = literal.strip_prefix(mark)?.strip_suffix(mark)?;
    match mark {
        '`' => (!inner.contains('`')).then(|| inner.replace('\r', "")),
        '"' => unescape(inner),
        _ => None,
    }
}

fn unescape(inner: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        let mut utf8 = [0; 4];
        match c {
            '"' | '\n' => return None,
            '\\' => match rest.next()? {
                'a' => bytes.push(7),
                'b' => bytes.push(8),
                'f' => bytes.push(12),
                'n' => bytes.push(b'\n'),
                'r' => bytes.push(b'\r'),
                't' => bytes.push(b'\t'),
                'v' => bytes.push(11),
                '\\' => bytes.push(b'\\'),
                '"' => bytes.push(b'"'),
                'x' => bytes.push(u8::try_from(number(&mut rest, 2, 16, 0)?).ok()?),
                'u' => bytes.extend(scalar(number(&mut rest, 4, 16, 0)?)?.encode_utf8(&mut utf8).bytes()),
                'U' => bytes.extend(scalar(number(&mut rest, 8, 16, 0)?)?.encode_utf8(&mut utf8).bytes()),
                digit @ '0'..='7' => {
                    bytes.push(u8::try_from(number(&mut rest, 2, 8, digit.to_digit(8)?)?).ok()?);
                }
                _ => return None,
            },
            c => bytes.extend(c.encode_utf8(&mut utf8).bytes()),
        }
    }
    // Go keeps bytes that are not UTF-8; rows never hold such text, so replacing them changes no answer.
    Some(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

fn number(rest: &mut std::str::Chars<'_>, digits: usize, radix: u32, start: u32) -> Option<u32> {
    let mut value = start;
    for _ in 0..digits {
        value = value.checked_mul(radix)?.checked_add(rest.next()?.to_digit(radix)?)?;
    }
    Some(value)
}

fn scalar(code: u32) -> Option<char> {
    char::from_u32(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_come_back() {
        for text in ["", "plain", "tick ` quote \" back \\ line \n", "\r", "é\u{2028}"] {
            assert_eq!(unquote(&literal(text)).as_deref(), Some(text));
        }
    }

    #[test]
    fn go_escapes() {
        assert_eq!(unquote(r#""\x41\u00e9\101\t""#).as_deref(), Some("AéA\t"));
        assert_eq!(unquote(r#""a\qb""#), None);
        assert_eq!(unquote(r#""a\""#), None);
        assert_eq!(quoted("a\"b\n"), r#""a\"b\n""#);
    }
}
