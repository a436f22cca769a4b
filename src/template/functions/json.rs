//! Values as JSON, byte for byte as Go's encoder writes them.

use crate::template::float;
use crate::template::sink::Sink;
use crate::template::value::{Key, Value};

/// Deepest nesting that is written.
const NESTING_MAX: usize = 200;

/// How JSON is written.
#[derive(Clone, Copy)]
pub struct Style {
    /// Whether `<`, `>` and `&` are escaped.
    pub escapes_html: bool,
    /// Whether on many lines, indented by two blanks.
    pub is_pretty: bool,
}

/// Writes a value. The error is for people.
pub fn write(out: &mut Sink, value: &Value, style: Style) -> Result<(), String> {
    element(out, value, style, 0)
}

fn element(out: &mut Sink, value: &Value, style: Style, depth: usize) -> Result<(), String> {
    if depth > NESTING_MAX {
        return Err(format!("nested deeper than {NESTING_MAX}"));
    }
    if out.is_full() {
        return Ok(());
    }
    match value {
        Value::Nil => out.text("null"),
        Value::Bool(value) => out.text(if *value { "true" } else { "false" }),
        Value::Int(number) => out.text(&number.to_string()),
        Value::Uint(number) => out.text(&number.to_string()),
        Value::Float(value) => out.text(&number(*value)?),
        Value::Text(text) => string(out, &text.lossy(), style),
        Value::List(list) => {
            let items = list.items.iter();
            group(out, style, depth, ('[', ']'), items, |out, item| element(out, item, style, depth + 1))?;
        }
        Value::Map(map) => {
            let map = map.items.borrow();
            // By their text: Go sorts the keys as they are written.
            let mut entries: Vec<(String, &Value)> =
                map.iter().map(|(key, value)| (key_text(key), value)).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            group(out, style, depth, ('{', '}'), entries.iter(), |out, (key, value)| {
                string(out, key, style);
                out.text(if style.is_pretty { ": " } else { ":" });
                element(out, value, style, depth + 1)
            })?;
        }
        Value::Struct(record) => {
            let fields = record.kind.fields.iter().zip(&record.fields);
            group(out, style, depth, ('{', '}'), fields, |out, ((name, _), value)| {
                string(out, name, style);
                out.text(if style.is_pretty { ": " } else { ":" });
                element(out, value, style, depth + 1)
            })?;
        }
        Value::Counter(..) => return Err("json: unsupported type: <-chan int64".to_owned()),
        Value::Scratch(_) => out.text("{}"),
    }
    Ok(())
}

/// Elements between brackets.
fn group<T>(
    out: &mut Sink,
    style: Style,
    depth: usize,
    brackets: (char, char),
    items: impl ExactSizeIterator<Item = T>,
    mut write: impl FnMut(&mut Sink, T) -> Result<(), String>,
) -> Result<(), String> {
    let is_empty = items.len() == 0;
    let line = |out: &mut Sink, depth: usize| {
        if style.is_pretty && !is_empty {
            out.push(b"\n");
            out.repeat(b' ', 2 * depth);
        }
    };
    out.text(brackets.0.encode_utf8(&mut [0; 4]));
    for (i, item) in items.enumerate() {
        if i > 0 {
            out.push(b",");
        }
        line(out, depth + 1);
        write(out, item)?;
    }
    line(out, depth);
    out.text(brackets.1.encode_utf8(&mut [0; 4]));
    Ok(())
}

/// A key as text.
pub fn key_text(key: &Key) -> String {
    match key {
        Key::Nil => "null".to_owned(),
        Key::Bool(value) => value.to_string(),
        Key::Int(number) => number.to_string(),
        Key::Float(_) => match key.value() {
            Value::Float(number) => float::format(number, 'g', None),
            _ => String::new(),
        },
        Key::Text(text) => text.lossy().into_owned(),
    }
}

/// A number: with an exponent only when it is very small or very large.
fn number(value: f64) -> Result<String, String> {
    if !value.is_finite() {
        return Err(format!("json: unsupported value: {}", float::format(value, 'g', None)));
    }
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-6..1e21).contains(&magnitude) {
        return Ok(float::format(value, 'f', None));
    }
    // Go's encoder writes 1e-9, not 1e-09.
    let text = float::format(value, 'e', None);
    Ok(match text.len().checked_sub(4).map(|at| text.split_at(at)) {
        Some((before, end)) if end.starts_with("e-0") => format!("{before}e-{}", &end[3..]),
        _ => text,
    })
}

fn string(out: &mut Sink, text: &str, style: Style) {
    out.push(b"\"");
    let mut done = 0;
    for (at, char) in text.char_indices() {
        let escape = match char {
            '"' => "\\\"".to_owned(),
            '\\' => "\\\\".to_owned(),
            '\n' => "\\n".to_owned(),
            '\r' => "\\r".to_owned(),
            '\t' => "\\t".to_owned(),
            '\x08' => "\\b".to_owned(),
            '\x0c' => "\\f".to_owned(),
            '<' | '>' | '&' if style.escapes_html => format!("\\u{:04x}", u32::from(char)),
            '\u{2028}' | '\u{2029}' => format!("\\u{:04x}", u32::from(char)),
            c if c < ' ' => format!("\\u{:04x}", u32::from(c)),
            _ => continue,
        };
        out.text(&text[done..at]);
        out.text(&escape);
        done = at + char.len_utf8();
    }
    out.text(&text[done..]);
    out.push(b"\"");
}
