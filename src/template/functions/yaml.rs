//! YAML: reading it into values and writing values as it, both as Go's `yaml.v2` does.

use std::collections::BTreeMap;

use yaml_rust2::parser::{Event, MarkedEventReceiver, Parser, Tag};
use yaml_rust2::scanner::{Marker, TScalarStyle};

use super::json::key_text;
use crate::template::float;
use crate::template::sink::Sink;
use crate::template::value::{Key, Keys, Kind, Value};

/// Deepest nesting that is read or written.
const NESTING_MAX: usize = 100;
/// Values that aliases may stand for in one text: a few lines can name more than memory holds.
const ALIASED_MAX: usize = 100_000;

/// Reads the first document of a text.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut builder = Builder::default();
    // The parser calls itself for each level, so the text is held against the limit before.
    if deepest(text) > NESTING_MAX {
        return Err(format!("yaml: nested deeper than {NESTING_MAX}"));
    }
    Parser::new_from_str(text).load(&mut builder, false).map_err(|why| format!("yaml: {why}"))?;
    if let Some(why) = builder.mistake {
        return Err(format!("yaml: {why}"));
    }
    Ok(builder.root.unwrap_or_default())
}

/// No document nests deeper than this: brackets that open, and the columns of its deepest line.
fn deepest(text: &str) -> usize {
    let mut open = 0usize;
    let mut deepest = 0;
    for line in text.lines() {
        let indent = line.len() - line.trim_start_matches([' ', '-', '?']).len();
        for byte in line.bytes() {
            match byte {
                b'[' | b'{' => open += 1,
                b']' | b'}' => open = open.saturating_sub(1),
                _ => {}
            }
            deepest = deepest.max(open);
        }
        let dashes = line[..indent].bytes().filter(|b| *b != b' ').count();
        deepest = deepest.max(open + dashes);
    }
    deepest
}

/// Makes a value of the parser's events.
#[derive(Default)]
struct Builder {
    root: Option<Value>,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Value>,
    aliased: usize,
    mistake: Option<String>,
}

/// A list or a map that is not closed yet.
struct Open {
    anchor: usize,
    /// The key whose value comes next.
    key: Option<Key>,
    group: Group,
}

enum Group {
    List(Vec<Value>),
    Map(BTreeMap<Key, Value>),
}

impl MarkedEventReceiver for Builder {
    fn on_event(&mut self, event: Event, at: Marker) {
        if self.mistake.is_some() {
            return;
        }
        let result = self.event(event);
        if let Err(why) = result {
            self.mistake = Some(format!("line {}: {why}", at.line()));
        }
    }
}

impl Builder {
    fn event(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(&text, style, tag.as_ref());
                self.put(value, anchor)
            }
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor).cloned().ok_or("unknown anchor")?;
                self.aliased += size(&value, 0);
                if self.aliased > ALIASED_MAX {
                    return Err("document contains excessive aliasing".to_owned());
                }
                self.put(value, 0)
            }
            Event::SequenceStart(anchor, _) => self.enter(anchor, Group::List(Vec::new())),
            Event::MappingStart(anchor, _) => self.enter(anchor, Group::Map(BTreeMap::new())),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                let value = match open.group {
                    Group::List(items) => Value::list(items),
                    Group::Map(entries) => Value::map_of(Kind::Any, Keys::Any, entries),
                };
                self.put(value, open.anchor)
            }
            _ => Ok(()),
        }
    }

    fn enter(&mut self, anchor: usize, group: Group) -> Result<(), String> {
        if self.open.len() >= NESTING_MAX {
            return Err(format!("nested deeper than {NESTING_MAX}"));
        }
        self.open.push(Open { anchor, key: None, group });
        Ok(())
    }

    fn put(&mut self, value: Value, anchor: usize) -> Result<(), String> {
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root.get_or_insert(value);
            return Ok(());
        };
        match &mut open.group {
            Group::List(items) => items.push(value),
            Group::Map(entries) => match open.key.take() {
                None => {
                    let key = value.as_key().ok_or("a list or a map cannot be a key")?;
                    open.key = Some(key);
                }
                Some(key) if key == Key::from("<<") => merge(entries, &value)?,
                Some(key) => {
                    entries.insert(key, value);
                }
            },
        }
        Ok(())
    }
}

/// `<<`: what the map itself says wins.
fn merge(entries: &mut BTreeMap<Key, Value>, value: &Value) -> Result<(), String> {
    match value {
        Value::Map(map) => {
            for (key, value) in map.items.borrow().iter() {
                entries.entry(key.clone()).or_insert_with(|| value.clone());
            }
            Ok(())
        }
        Value::List(list) => list.items.iter().try_for_each(|item| match item {
            Value::Map(_) => merge(entries, item),
            _ => Err("map merge requires map or sequence of maps as the value".to_owned()),
        }),
        _ => Err("map merge requires map or sequence of maps as the value".to_owned()),
    }
}

/// How many values there are in one.
fn size(value: &Value, depth: usize) -> usize {
    if depth > NESTING_MAX {
        return ALIASED_MAX;
    }
    let inside: usize = match value {
        Value::List(list) => list.items.iter().map(|item| size(item, depth + 1)).sum(),
        Value::Map(map) => map.items.borrow().values().map(|item| size(item, depth + 1)).sum(),
        _ => 0,
    };
    inside.saturating_add(1)
}

fn scalar(text: &str, style: TScalarStyle, tag: Option<&Tag>) -> Value {
    let is_text = tag.is_some_and(|tag| tag.suffix == "str");
    if style != TScalarStyle::Plain || is_text { Value::text(text) } else { resolved(text) }
}

/// What plain text means: a number, a truth, nothing, or text.
fn resolved(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Nil,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Value::text(text);
    }
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    if let Some(number) = whole(&plain) {
        return number;
    }
    let is_number =
        plain.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    match plain.parse::<f64>() {
        Ok(number) if is_number && number.is_finite() => Value::Float(number),
        _ => Value::text(text),
    }
}

/// A whole number of any base.
fn whole(text: &str) -> Option<Value> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (base, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, base).ok()?;
    let number = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
    i64::try_from(number).map(Value::Int).ok().or((!negative).then_some(Value::Uint(magnitude)))
}

/// Writes a value.
pub fn write(out: &mut Sink, value: &Value) -> Result<(), String> {
    match value {
        Value::Map(_) | Value::Struct(_) if !entries(value).is_empty() => block(out, value, 0, false)?,
        Value::List(list) if !list.items.is_empty() => block(out, value, 0, false)?,
        _ => {
            inline(out, value, 0)?;
            out.push(b"\n");
        }
    }
    Ok(())
}

/// The entries of a map or a record. Go lowers the names of fields.
fn entries(value: &Value) -> Vec<(Value, Value)> {
    match value {
        Value::Map(map) => {
            let map = map.items.borrow();
            let mut all: Vec<(Value, Value)> =
                map.iter().map(|(key, value)| (key.value(), value.clone())).collect();
            all.sort_by(|a, b| natural(&key_of(&a.0), &key_of(&b.0)));
            all
        }
        Value::Struct(record) => {
            let fields = record.kind.fields.iter().zip(&record.fields);
            fields.map(|((name, _), value)| (Value::text(name.to_lowercase()), value.clone())).collect()
        }
        _ => Vec::new(),
    }
}

fn key_of(value: &Value) -> String {
    value.as_key().as_ref().map(key_text).unwrap_or_default()
}

/// The order of keys: letters after all else, and numbers in them by what they count.
fn natural(a: &str, b: &str) -> std::cmp::Ordering {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let Some(at) = a.iter().zip(&b).position(|(a, b)| a != b) else { return a.len().cmp(&b.len()) };
    let (x, y) = (a[at], b[at]);
    if x.is_alphabetic() || y.is_alphabetic() {
        return x.is_alphabetic().cmp(&y.is_alphabetic()).then(x.cmp(&y));
    }
    // A zero counts for something only behind other digits.
    let before = a[..at].iter().rev().take_while(|c| c.is_ascii_digit());
    let lead = if (x == '0' || y == '0') && before.into_iter().any(|c| *c != '0') { "1" } else { "" };
    let digits = |text: &[char]| -> String { text[at..].iter().take_while(|c| c.is_ascii_digit()).collect() };
    let (m, n) = (digits(&a), digits(&b));
    let significant = |digits: &str| format!("{lead}{digits}").trim_start_matches('0').to_owned();
    let (p, q) = (significant(&m), significant(&n));
    (p.len().cmp(&q.len()).then_with(|| p.cmp(&q))).then(m.len().cmp(&n.len())).then(x.cmp(&y))
}

/// Entries or elements, one a line. `is_continued` when the first stands behind a dash.
fn block(out: &mut Sink, value: &Value, depth: usize, is_continued: bool) -> Result<(), String> {
    if depth > NESTING_MAX {
        return Err(format!("nested deeper than {NESTING_MAX}"));
    }
    let is_first = std::cell::Cell::new(true);
    let begin = |out: &mut Sink| {
        if !(is_continued && is_first.replace(false)) {
            out.repeat(b' ', 2 * depth);
        }
    };
    if let Value::List(list) = value {
        for item in &list.items {
            if out.is_full() {
                break;
            }
            begin(out);
            out.text("- ");
            if is_block(item) {
                block(out, item, depth + 1, true)?;
            } else {
                inline(out, item, depth + 1)?;
                out.push(b"\n");
            }
        }
        return Ok(());
    }
    for (key, item) in entries(value) {
        if out.is_full() {
            break;
        }
        begin(out);
        inline(out, &key, depth)?;
        out.push(b":");
        match &item {
            // Lists stand under their key without another step to the right.
            Value::List(_) if is_block(&item) => {
                out.push(b"\n");
                block(out, &item, depth, false)?;
            }
            _ if is_block(&item) => {
                out.push(b"\n");
                block(out, &item, depth + 1, false)?;
            }
            _ => {
                out.push(b" ");
                inline(out, &item, depth + 1)?;
                out.push(b"\n");
            }
        }
    }
    Ok(())
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::List(list) => !list.items.is_empty(),
        Value::Map(map) => !map.items.borrow().is_empty(),
        Value::Struct(_) => true,
        _ => false,
    }
}

fn inline(out: &mut Sink, value: &Value, depth: usize) -> Result<(), String> {
    match value {
        Value::Nil => out.text("null"),
        Value::Bool(value) => out.text(&value.to_string()),
        Value::Int(number) => out.text(&number.to_string()),
        Value::Uint(number) => out.text(&number.to_string()),
        Value::Float(number) => {
            let text = match *number {
                number if number.is_nan() => ".nan".to_owned(),
                number if number.is_infinite() => if number > 0.0 { ".inf" } else { "-.inf" }.to_owned(),
                number => float::format(number, 'g', None),
            };
            out.text(&text);
        }
        Value::Text(text) => string(out, &text.lossy(), depth),
        Value::List(_) => out.text("[]"),
        Value::Map(_) => out.text("{}"),
        other => return Err(format!("cannot marshal type: {}", other.type_name())),
    }
    Ok(())
}

fn string(out: &mut Sink, text: &str, depth: usize) {
    let has_odd = text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{feff}');
    if text.contains('\n') && !has_odd {
        return literal(out, text, depth);
    }
    let is_text = matches!(resolved(text), Value::Text(_)) && !looks_like_time(text) && !is_sexagesimal(text);
    if !is_text || has_odd || text.contains('\n') {
        return double(out, text);
    }
    if is_plain(text) {
        out.text(text);
    } else {
        out.text(&format!("'{}'", text.replace('\'', "''")));
    }
}

/// `|`: lines as they are.
fn literal(out: &mut Sink, text: &str, depth: usize) {
    let keeps = match (text.ends_with('\n'), text.ends_with("\n\n")) {
        (_, true) => "+",
        (true, _) => "",
        _ => "-",
    };
    // Where the lines begin cannot be seen from a first line that begins with a blank.
    let hint = if text.starts_with([' ', '\n']) { "2" } else { "" };
    out.text(&format!("|{hint}{keeps}"));
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        out.push(b"\n");
        if !line.is_empty() {
            out.repeat(b' ', 2 * depth.max(1));
            out.text(line);
        }
    }
}

fn double(out: &mut Sink, text: &str) {
    out.push(b"\"");
    for char in text.chars() {
        match char {
            '"' => out.text("\\\""),
            '\\' => out.text("\\\\"),
            '\n' => out.text("\\n"),
            '\r' => out.text("\\r"),
            '\t' => out.text("\\t"),
            '\0' => out.text("\\0"),
            '\x07' => out.text("\\a"),
            '\x08' => out.text("\\b"),
            '\x1b' => out.text("\\e"),
            c if c.is_control() && u32::from(c) < 0x100 => out.text(&format!("\\x{:02X}", u32::from(c))),
            '\u{feff}' => out.text("\\uFEFF"),
            c => out.text(c.encode_utf8(&mut [0; 4])),
        }
    }
    out.push(b"\"");
}

/// Dates are quoted so that nobody takes them for times.
fn looks_like_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 8
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && bytes[4] == b'-'
        && bytes[5..].iter().all(|b| b.is_ascii_digit() || b"-:.TtZz+ ".contains(b))
}

/// Numbers to the base of 60, which YAML 1.1 knows: `12:30`.
fn is_sexagesimal(text: &str) -> bool {
    let mut parts = text.strip_prefix(['+', '-']).unwrap_or(text).split(':');
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let first = parts.next().is_some_and(is_number);
    let rest: Vec<&str> = parts.collect();
    let Some((last, middle)) = rest.split_last() else { return false };
    let is_sixtieth = |part: &&str| is_number(part) && part.len() <= 2 && **part < *"60";
    let whole = last.split_once('.').map_or(*last, |(whole, _)| whole);
    first && middle.iter().all(is_sixtieth) && is_sixtieth(&whole)
}

/// Whether text needs no quotes.
fn is_plain(text: &str) -> bool {
    let first = text.chars().next().unwrap_or(' ');
    let starts_odd = "#,[]{}&*!|>'\"%@`".contains(first)
        || matches!(first, '-' | '?' | ':') && text[1..].chars().next().is_none_or(|c| c.is_whitespace());
    let has_odd = text.contains(": ") || text.contains(" #") || text.ends_with(':');
    let marker = text.starts_with("---") || text.starts_with("...");
    let is_edged = text.starts_with([' ', '\t']) || text.ends_with([' ', '\t']);
    !(starts_odd || has_odd || marker || is_edged)
}
