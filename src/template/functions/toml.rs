//! Values as TOML: plain values of a table first, then its tables, each indented by its depth.

use super::json::key_text;
use crate::template::float;
use crate::template::sink::Sink;
use crate::template::value::Value;

/// Deepest nesting that is written.
const NESTING_MAX: usize = 100;

/// Writes a map or a record. The error is for people.
pub fn write(out: &mut Sink, value: &Value) -> Result<(), String> {
    table(out, value, &[])
}

/// The entries of a table in their order; `None` when it is none.
fn entries(value: &Value) -> Option<Vec<(String, Value)>> {
    match value {
        Value::Map(map) => {
            let map = map.items.borrow();
            let mut all: Vec<_> = map.iter().map(|(key, value)| (key_text(key), value.clone())).collect();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            Some(all)
        }
        Value::Struct(record) => {
            let fields = record.kind.fields.iter().zip(&record.fields);
            Some(fields.map(|((name, _), value)| ((*name).to_owned(), value.clone())).collect())
        }
        _ => None,
    }
}

fn is_table(value: &Value) -> bool {
    matches!(value, Value::Map(_) | Value::Struct(_))
}

fn is_table_list(value: &Value) -> bool {
    matches!(value, Value::List(list) if !list.items.is_empty() && list.items.iter().all(is_table))
}

fn table(out: &mut Sink, value: &Value, path: &[String]) -> Result<(), String> {
    let Some(entries) = entries(value) else {
        return Err(format!("top-level values must be maps or records, not {}", value.type_name()));
    };
    if path.len() > NESTING_MAX {
        return Err(format!("nested deeper than {NESTING_MAX}"));
    }
    let indent = 2 * path.len().saturating_sub(1);
    let own = if path.is_empty() { 0 } else { indent + 2 };
    for (key, value) in entries.iter().filter(|(_, value)| !is_table(value) && !is_table_list(value)) {
        if out.is_full() || matches!(value, Value::Nil) {
            continue;
        }
        out.repeat(b' ', own);
        out.text(&key_name(key));
        out.text(" = ");
        plain(out, value, 0)?;
        out.push(b"\n");
    }
    for (key, value) in &entries {
        if out.is_full() {
            break;
        }
        let mut inner = path.to_vec();
        inner.push(key_name(key));
        let name = inner.join(".");
        let head = |out: &mut Sink, open: &str, close: &str| {
            if !out.as_bytes().is_empty() && (path.is_empty() || open == "[[") {
                out.push(b"\n");
            }
            out.repeat(b' ', 2 * path.len());
            out.text(&format!("{open}{name}{close}\n"));
        };
        if is_table(value) {
            head(out, "[", "]");
            table(out, value, &inner)?;
        } else if let Value::List(list) = value
            && is_table_list(value)
        {
            for item in &list.items {
                head(out, "[[", "]]");
                table(out, item, &inner)?;
            }
        }
    }
    Ok(())
}

fn key_name(key: &str) -> String {
    let is_bare =
        !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if is_bare { key.to_owned() } else { quoted(key) }
}

fn plain(out: &mut Sink, value: &Value, depth: usize) -> Result<(), String> {
    if depth > NESTING_MAX {
        return Err(format!("nested deeper than {NESTING_MAX}"));
    }
    match value {
        Value::Bool(value) => out.text(&value.to_string()),
        Value::Int(number) => out.text(&number.to_string()),
        Value::Uint(number) => out.text(&number.to_string()),
        Value::Float(number) => {
            let text = match *number {
                number if number.is_nan() => "nan".to_owned(),
                number if number.is_infinite() => if number > 0.0 { "+inf" } else { "-inf" }.to_owned(),
                number => float::format(number, 'f', None),
            };
            out.text(&text);
            if number.is_finite() && !text.contains('.') {
                out.text(".0");
            }
        }
        Value::Text(text) => out.text(&quoted(&text.lossy())),
        Value::List(list) => {
            out.push(b"[");
            for (i, item) in list.items.iter().enumerate() {
                if i > 0 {
                    out.text(", ");
                }
                if out.is_full() {
                    break;
                }
                plain(out, item, depth + 1)?;
            }
            out.push(b"]");
        }
        Value::Map(_) | Value::Struct(_) => {
            out.push(b"{");
            for (i, (key, value)) in entries(value).unwrap_or_default().iter().enumerate() {
                if i > 0 {
                    out.text(", ");
                }
                if out.is_full() {
                    break;
                }
                out.text(&key_name(key));
                out.text(" = ");
                plain(out, value, depth + 1)?;
            }
            out.push(b"}");
        }
        Value::Nil => return Err("a list holds nothing where a value is needed".to_owned()),
        other => return Err(format!("unsupported type: {}", other.type_name())),
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            c if c < ' ' || c == '\x7f' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
