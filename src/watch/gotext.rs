//! Go's way of writing values: parts of URLs, JSON, and what `%#v` shows of a configuration block in an error.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter, PrettyFormatter};
use serde_json::{Map, Value};

/// Percent-encodes a path (slashes stay) or a part of a query, as Go does.
pub fn encoded(text: &str, path: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b'/' | b'$' | b'&' | b'+' | b',' | b':' | b';' | b'=' | b'@' if path => {
                out.push(char::from(byte))
            }
            b' ' if !path => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A value as JSON on one line, with a line's end, as `json.Encoder` writes it.
pub fn line(value: &impl Serialize) -> Vec<u8> {
    let mut out = written(value, CompactFormatter);
    out.push(b'\n');
    out
}

/// A value as JSON over many lines, as `json.MarshalIndent` writes it with four blanks.
pub fn indented(value: &impl Serialize) -> Vec<u8> {
    written(value, PrettyFormatter::with_indent(b"    "))
}

fn written<F: Formatter>(value: &impl Serialize, formatter: F) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = serde_json::Serializer::with_formatter(&mut out, Escaped(formatter));
    value.serialize(&mut writer).expect("rows have text for keys, and memory takes all that is written");
    out
}

/// A formatter that escapes what Go does: the signs of HTML, and line separators.
struct Escaped<F>(F);

impl<F: Formatter> Formatter for Escaped<F> {
    fn write_string_fragment<W: Write + ?Sized>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, tail) = rest.split_at(at);
            let sign = tail.chars().next().unwrap_or_default();
            write!(out, "{plain}\\u{:04x}", u32::from(sign))?;
            rest = &tail[sign.len_utf8()..];
        }
        out.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: Write + ?Sized>(&mut self, out: &mut W, escape: CharEscape) -> io::Result<()> {
        match escape {
            CharEscape::Backspace => out.write_all(b"\\u0008"),
            CharEscape::FormFeed => out.write_all(b"\\u000c"),
            other => self.0.write_char_escape(out, other),
        }
    }

    fn begin_array<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_array(out)
    }

    fn end_array<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array(out)
    }

    fn begin_array_value<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(out, first)
    }

    fn end_array_value<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array_value(out)
    }

    fn begin_object<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object(out)
    }

    fn end_object<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object(out)
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(out, first)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object_value(out)
    }

    fn end_object_value<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object_value(out)
    }
}

/// What `%#v` shows of a `map[string]interface{}`, its keys in order.
pub fn shown(map: &Map<String, Value>) -> String {
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort();
    let pairs: Vec<String> =
        keys.into_iter().map(|key| format!("{}:{}", quoted(key), shown_value(&map[key]))).collect();
    format!("map[string]interface {{}}{{{}}}", pairs.join(", "))
}

fn shown_value(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(shown_value).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Object(map) => shown(map),
    }
}

/// Text in quotes as Go writes it; JSON's escapes but for those of HTML.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_and_queries_are_encoded_as_go_does() {
        assert_eq!(encoded("/v1/kv/a b/ü?&", true), "/v1/kv/a%20b/%C3%BC%3F&");
        assert_eq!(encoded("a b&c=/", false), "a+b%26c%3D%2F");
    }

    #[test]
    fn json_is_written_as_go_does() {
        let value = json!({"a": "<&>\u{2028}\u{8}\n", "b": [], "c": {}, "d": [1, null]});
        assert_eq!(
            String::from_utf8(line(&value)).unwrap(),
            "{\"a\":\"\\u003c\\u0026\\u003e\\u2028\\u0008\\n\",\"b\":[],\"c\":{},\"d\":[1,null]}\n"
        );
        let text = "{\n    \"a\": \"x\",\n    \"b\": [\n        1\n    ],\n    \"c\": {}\n}";
        assert_eq!(String::from_utf8(indented(&json!({"a": "x", "b": [1], "c": {}}))).unwrap(), text);
    }

    #[test]
    fn blocks_are_shown_as_go_does() {
        let Value::Object(map) = json!({"type": "key", "a": [true, 1], "b": {"c": null}}) else { panic!() };
        assert_eq!(
            shown(&map),
            "map[string]interface {}{\"a\":[]interface {}{true, 1}, \
             \"b\":map[string]interface {}{\"c\":interface {}(nil)}, \"type\":\"key\"}"
        );
    }
}
