//! Reads JSON as Go's decoder does and says what is wrong in its words.

use serde_json::Value;

/// The first JSON value of `body`; what follows it is not looked at, as with Go's stream decoder. The error is Go's text.
pub fn first_value(body: &[u8]) -> Result<Value, String> {
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
    match values.next() {
        None => Err("EOF".to_owned()),
        Some(Ok(value)) => Ok(value),
        Some(Err(error)) => Err(error_text(body, &error)),
    }
}

/// Go's text for an error of serde's reader.
pub fn error_text(body: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected EOF".to_owned();
    }
    let offset = offset_of(body, error.line(), error.column());
    let found = String::from_utf8_lossy(&body[offset..]).chars().next().unwrap_or(' ');
    let shown = match found {
        '\'' => r"'\''".to_owned(),
        '"' => "'\"'".to_owned(),
        c => format!("'{}'", c.escape_debug()),
    };
    format!("invalid character {shown} {}", context_of(&error.to_string()))
}

/// Byte offset of serde's line and column (both from 1; a column of 0 stands before the line).
fn offset_of(body: &[u8], line: usize, column: usize) -> usize {
    let start = match line {
        0 | 1 => 0,
        n => body.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(n - 2).map_or(0, |(at, _)| at + 1),
    };
    (start + column.saturating_sub(1)).min(body.len().saturating_sub(1))
}

/// Go's words for the place where serde stopped.
fn context_of(serde_text: &str) -> &'static str {
    match serde_text {
        t if t.starts_with("key must be a string") || t.starts_with("trailing comma") => {
            "looking for beginning of object key string"
        }
        t if t.starts_with("expected `:`") => "after object key",
        t if t.starts_with("expected `,` or `}`") => "after object key:value pair",
        t if t.starts_with("expected `,` or `]`") => "after array element",
        t if t.starts_with("control character") => "in string literal",
        t if t.starts_with("invalid escape") => "in string escape code",
        t if t.starts_with("invalid number") => "in numeric literal",
        _ => "looking for beginning of value",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_gos() {
        for (body, text) in [
            ("", "EOF"),
            ("  ", "EOF"),
            ("junk", "invalid character 'j' looking for beginning of value"),
            (r#"{"Name":"a""#, "unexpected EOF"),
            (r#"{"Name":"a",}"#, "invalid character '}' looking for beginning of object key string"),
            (r#"{"Name" 1}"#, "invalid character '1' after object key"),
            (r#"{"Name":1 2}"#, "invalid character '2' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
        ] {
            assert_eq!(first_value(body.as_bytes()), Err(text.to_owned()), "{body}");
        }
    }

    #[test]
    fn only_the_first_value_counts() {
        assert_eq!(first_value(b"{\"a\":1} x"), Ok(serde_json::json!({"a": 1})));
    }
}
