//! How Go writes values: `fmt.Sprint`, `fmt.Sprintf` and what lies under them.

use super::float;
use super::quote;
use super::sink::Sink;
use super::value::{Kind, Struct, Text, Value};

/// Deepest nesting of lists and maps that is written out.
const NESTING_MAX: usize = 200;
/// Go's limit for widths and precisions.
const WIDTH_MAX: usize = 1_000_000;

/// The flags of one verb.
#[derive(Clone, Copy, Default)]
struct Spec {
    plus: bool,
    minus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
    /// `%+v`: names of fields.
    names: bool,
    /// `%#v`: as Go source.
    source: bool,
}

/// A value as a template writes it.
pub fn print(out: &mut Sink, value: &Value) {
    match value {
        Value::Nil => out.text("<no value>"),
        _ => any(out, value, 'v', Spec::default(), 0, true),
    }
}

/// `fmt.Sprint`: blanks between two values when neither is text. Records behind pointers are shown as such if asked.
pub fn sprint(out: &mut Sink, values: &[Value], indirect: bool) {
    for (i, value) in values.iter().enumerate() {
        let is_text = |value: &Value| matches!(value, Value::Text(_));
        if i > 0 && !is_text(value) && !is_text(&values[i - 1]) {
            out.push(b" ");
        }
        match value {
            Value::Nil if indirect => out.text("<no value>"),
            _ => any(out, value, 'v', Spec::default(), 0, indirect),
        }
    }
}

/// `fmt.Sprintln`.
pub fn sprintln(out: &mut Sink, values: &[Value]) {
    for (i, value) in values.iter().enumerate() {
        if i > 0 {
            out.push(b" ");
        }
        any(out, value, 'v', Spec::default(), 0, false);
    }
    out.push(b"\n");
}

/// `fmt.Sprintf`.
pub fn sprintf(out: &mut Sink, format: &[u8], values: &[Value]) {
    let mut printer = Printer { values, next: 0, reordered: false };
    let mut rest = format;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        out.push(&rest[..at]);
        rest = printer.verb(out, &rest[at + 1..]);
    }
    out.push(rest);
    if !printer.reordered && printer.next < values.len() {
        out.text("%!(EXTRA ");
        for (i, value) in values[printer.next..].iter().enumerate() {
            if i > 0 {
                out.text(", ");
            }
            match value {
                Value::Nil => out.text("<nil>"),
                _ => {
                    out.text(&value.type_name());
                    out.push(b"=");
                    any(out, value, 'v', Spec::default(), 0, false);
                }
            }
        }
        out.push(b")");
    }
}

/// Walks the values of one format.
struct Printer<'v> {
    values: &'v [Value],
    next: usize,
    /// Whether `%[n]` was used: then values may stay unused.
    reordered: bool,
}

impl Printer<'_> {
    /// One verb, of which the percent sign is read; what follows it.
    fn verb<'f>(&mut self, out: &mut Sink, mut rest: &'f [u8]) -> &'f [u8] {
        let mut spec = Spec::default();
        while let Some((flag, after)) = rest.split_first() {
            match flag {
                b'#' => spec.sharp = true,
                b'0' => spec.zero = true,
                b'+' => spec.plus = true,
                b'-' => spec.minus = true,
                b' ' => spec.space = true,
                _ => break,
            }
            rest = after;
        }
        let mut good_index = true;
        let mut after_index = self.index(&mut rest, &mut good_index);
        if let Some(after) = rest.strip_prefix(b"*") {
            rest = after;
            match self.star() {
                Some(width) => {
                    spec.minus |= width < 0;
                    spec.width = Some(width.unsigned_abs() as usize);
                }
                None => out.text("%!(BADWIDTH)"),
            }
            after_index = false;
        } else {
            spec.width = number(&mut rest);
            if after_index && spec.width.is_some() {
                good_index = false;
            }
        }
        if let Some(after) = rest.strip_prefix(b".") {
            rest = after;
            if after_index {
                good_index = false;
            }
            after_index = self.index(&mut rest, &mut good_index);
            if let Some(after) = rest.strip_prefix(b"*") {
                rest = after;
                match self.star().map(usize::try_from) {
                    Some(Ok(precision)) => spec.precision = Some(precision),
                    Some(Err(_)) => {}
                    None => out.text("%!(BADPREC)"),
                }
                after_index = false;
            } else {
                spec.precision = Some(number(&mut rest).unwrap_or(0));
            }
        }
        if !after_index {
            self.index(&mut rest, &mut good_index);
        }
        let text = String::from_utf8_lossy(&rest[..rest.len().min(4)]);
        let Some(verb) = text.chars().next() else {
            out.text("%!(NOVERB)");
            return rest;
        };
        let rest = &rest[verb.len_utf8().min(rest.len())..];
        if verb == '%' {
            out.push(b"%");
        } else if !good_index {
            out.text(&format!("%!{verb}(BADINDEX)"));
        } else if let Some(value) = self.values.get(self.next) {
            self.next += 1;
            if spec.minus {
                spec.zero = false;
            }
            if verb == 'v' {
                (spec.source, spec.sharp) = (spec.sharp, false);
                (spec.names, spec.plus) = (spec.plus, false);
            }
            any(out, value, verb, spec, 0, false);
        } else {
            out.text(&format!("%!{verb}(MISSING)"));
        }
        rest
    }

    /// `[n]`: the value to go on with.
    fn index(&mut self, rest: &mut &[u8], good: &mut bool) -> bool {
        let Some(inside) = rest.strip_prefix(b"[") else { return false };
        self.reordered = true;
        let Some(end) = inside.iter().position(|byte| *byte == b']') else {
            *good = false;
            *rest = &rest[1..];
            return false;
        };
        let digits = std::str::from_utf8(&inside[..end]).ok();
        match digits.and_then(|digits| digits.parse::<usize>().ok()) {
            Some(n) if (1..=self.values.len()).contains(&n) => self.next = n - 1,
            _ => *good = false,
        }
        *rest = &inside[end + 1..];
        true
    }

    /// A width or precision among the values.
    fn star(&mut self) -> Option<i64> {
        let value = self.values.get(self.next)?;
        self.next += 1;
        value.as_int().filter(|n| n.unsigned_abs() <= WIDTH_MAX as u64)
    }
}

/// Digits of a width or precision.
fn number(rest: &mut &[u8]) -> Option<usize> {
    let end = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    let digits = std::str::from_utf8(&rest[..end]).ok().filter(|digits| !digits.is_empty());
    *rest = &rest[end..];
    digits?.parse().ok().filter(|n| *n <= WIDTH_MAX)
}

/// Any value with any verb.
fn any(out: &mut Sink, value: &Value, verb: char, spec: Spec, depth: usize, indirect: bool) {
    if out.is_full() {
        return;
    }
    if depth > NESTING_MAX {
        return out.text("...");
    }
    match (value, verb) {
        (Value::Nil, _) if depth > 0 => out.text(if spec.source { "interface {}(nil)" } else { "<nil>" }),
        (Value::Nil, 'v') => pad(out, b"<nil>", spec),
        (Value::Nil, 'T') => pad(out, b"<nil>", spec),
        (Value::Nil, _) => out.text(&format!("%!{verb}(<nil>)")),
        (_, 'T') => pad(out, value.type_name().as_bytes(), spec),
        (Value::Bool(value), 't' | 'v') => pad(out, if *value { b"true" } else { b"false" }, spec),
        (Value::Int(number), _) => integer(out, value, number.unsigned_abs(), *number < 0, verb, spec),
        (Value::Uint(number), 'v') if spec.source => {
            integer(out, value, *number, false, 'x', Spec { sharp: true, ..spec });
        }
        (Value::Uint(number), _) => integer(out, value, *number, false, verb, spec),
        (Value::Float(number), _) => floating(out, value, *number, verb, spec),
        (Value::Text(text), _) => string(out, value, text, verb, spec),
        (Value::List(list), _) => {
            let (open, between, close) = if spec.source { ("{", ", ", "}") } else { ("[", " ", "]") };
            if spec.source {
                out.text(&value.type_name());
            }
            out.text(open);
            for (i, item) in list.items.iter().enumerate() {
                if i > 0 {
                    out.text(between);
                }
                any(out, item, verb, spec, depth + 1, false);
            }
            out.text(close);
        }
        (Value::Map(map), _) => {
            out.text(if spec.source { "" } else { "map[" });
            if spec.source {
                out.text(&value.type_name());
                out.push(b"{");
            }
            for (i, (key, item)) in map.items.borrow().iter().enumerate() {
                if i > 0 {
                    out.text(if spec.source { ", " } else { " " });
                }
                any(out, &key.value(), verb, spec, depth + 1, false);
                out.push(b":");
                any(out, item, verb, spec, depth + 1, false);
            }
            out.text(if spec.source { "}" } else { "]" });
        }
        (Value::Struct(value), _) => record(out, value, verb, spec, depth, indirect),
        (Value::Counter(..) | Value::Scratch(_), 'v') => out.text(&value.type_name()),
        _ => bad_verb(out, value, verb, spec, depth),
    }
}

fn record(out: &mut Sink, value: &Struct, verb: char, spec: Spec, depth: usize, indirect: bool) {
    if value.kind.is_pointer && !indirect && depth == 0 {
        out.push(b"&");
    }
    if spec.source {
        out.text(value.kind.name);
    }
    out.push(b"{");
    for (i, ((name, kind), field)) in value.kind.fields.iter().zip(&value.fields).enumerate() {
        if i > 0 {
            out.text(if spec.source { ", " } else { " " });
        }
        if spec.names || spec.source {
            out.text(name);
            out.push(b":");
        }
        match (field, kind) {
            (Value::Nil, Kind::Struct(_)) => out.text("<nil>"),
            _ => any(out, field, verb, spec, depth + 1, false),
        }
    }
    out.push(b"}");
}

fn bad_verb(out: &mut Sink, value: &Value, verb: char, spec: Spec, depth: usize) {
    out.text(&format!("%!{verb}({}=", value.type_name()));
    any(out, value, 'v', spec, depth, false);
    out.push(b")");
}

/// Writes text in its width.
fn pad(out: &mut Sink, bytes: &[u8], spec: Spec) {
    let Some(width) = spec.width else { return out.push(bytes) };
    let missing = width.saturating_sub(String::from_utf8_lossy(bytes).chars().count());
    let fill = if spec.zero && !spec.minus { b'0' } else { b' ' };
    if spec.minus {
        out.push(bytes);
        out.repeat(b' ', missing);
    } else {
        out.repeat(fill, missing);
        out.push(bytes);
    }
}

fn integer(out: &mut Sink, value: &Value, magnitude: u64, negative: bool, verb: char, spec: Spec) {
    let (digits, prefix) = match verb {
        'v' | 'd' => (magnitude.to_string(), ""),
        'b' => (format!("{magnitude:b}"), if spec.sharp { "0b" } else { "" }),
        'o' | 'O' => (format!("{magnitude:o}"), if spec.sharp { "0" } else { "" }),
        'x' => (format!("{magnitude:x}"), if spec.sharp { "0x" } else { "" }),
        'X' => (format!("{magnitude:X}"), if spec.sharp { "0X" } else { "" }),
        'c' | 'q' | 'U' => return character(out, magnitude, negative, verb, spec),
        _ => return bad_verb(out, value, verb, spec, 0),
    };
    if spec.precision == Some(0) && magnitude == 0 {
        return pad(out, b"", Spec { zero: false, ..spec });
    }
    let sign = match negative {
        true => "-",
        false if spec.plus => "+",
        false if spec.space => " ",
        false => "",
    };
    let is_padded = spec.zero && !spec.minus && spec.width.is_some();
    let length = match (spec.precision, spec.width) {
        (Some(precision), _) => precision,
        // Zeros fill up to the width, the sign counted; the prefix stands before them.
        (None, Some(width)) if is_padded => width.saturating_sub(sign.len()),
        _ => 0,
    };
    let zeros = "0".repeat(length.saturating_sub(digits.len()).min(WIDTH_MAX));
    // An octal number that begins with zero anyway needs no other.
    let prefix = if prefix == "0" && !zeros.is_empty() { "" } else { prefix };
    let octal = if verb == 'O' { "0o" } else { "" };
    let text = format!("{sign}{octal}{prefix}{zeros}{digits}");
    pad(out, text.as_bytes(), Spec { zero: false, ..spec });
}

/// A number as a character.
fn character(out: &mut Sink, magnitude: u64, negative: bool, verb: char, spec: Spec) {
    let code = u32::try_from(magnitude).ok().filter(|_| !negative);
    let char = code.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
    let text = match verb {
        'c' => char.to_string(),
        'q' => quote::rune(char, spec.plus),
        _ => {
            let name = if spec.sharp { format!(" '{char}'") } else { String::new() };
            let digits = spec.precision.unwrap_or(4).clamp(4, 64);
            format!("U+{magnitude:0digits$X}{name}")
        }
    };
    pad(out, text.as_bytes(), Spec { zero: spec.zero && verb == 'c', ..spec });
}

fn floating(out: &mut Sink, value: &Value, number: f64, verb: char, spec: Spec) {
    let (form, precision) = match verb {
        'v' => ('g', spec.precision),
        'g' | 'G' => (verb, spec.precision),
        'e' | 'E' | 'f' => (verb, Some(spec.precision.unwrap_or(6))),
        'F' => ('f', Some(spec.precision.unwrap_or(6))),
        'x' | 'X' => (verb, spec.precision),
        _ => return bad_verb(out, value, verb, spec, 0),
    };
    let mut text = float::format(number, form, precision);
    if spec.sharp && number.is_finite() {
        let zeros = if matches!(form, 'g' | 'G') { precision.unwrap_or(6) } else { 0 };
        text = float::with_point(&text, zeros);
    }
    let is_negative = text.starts_with('-');
    let digits = text.trim_start_matches('-').trim_start_matches('+');
    let sign = match is_negative {
        true => "-",
        false if spec.plus => "+",
        false if spec.space => " ",
        false if text.starts_with('+') => "+",
        false => "",
    };
    if spec.zero && !spec.minus && number.is_finite() {
        let zeros = spec.width.unwrap_or(0).saturating_sub(sign.len() + digits.len());
        out.text(sign);
        out.repeat(b'0', zeros);
        return out.text(digits);
    }
    pad(out, format!("{sign}{digits}").as_bytes(), Spec { zero: false, ..spec });
}

fn string(out: &mut Sink, value: &Value, text: &Text, verb: char, spec: Spec) {
    let bytes = text.as_bytes();
    match verb {
        'v' if spec.source => pad(out, quote::double(bytes, false).as_bytes(), spec),
        'v' | 's' => pad(out, truncated(bytes, spec.precision), spec),
        'q' => {
            let cut = truncated(bytes, spec.precision);
            let plain = std::str::from_utf8(cut).ok().filter(|text| spec.sharp && quote::fits_raw(text));
            let quoted = match plain {
                Some(text) => format!("`{text}`"),
                None => quote::double(cut, spec.plus),
            };
            pad(out, quoted.as_bytes(), spec);
        }
        'x' | 'X' => {
            let cut = &bytes[..bytes.len().min(spec.precision.unwrap_or(usize::MAX))];
            let mut hex = String::new();
            for (i, byte) in cut.iter().enumerate() {
                if spec.space && i > 0 {
                    hex.push(' ');
                }
                if spec.sharp && (spec.space || i == 0) {
                    hex.push_str(if verb == 'x' { "0x" } else { "0X" });
                }
                hex.push_str(&if verb == 'x' { format!("{byte:02x}") } else { format!("{byte:02X}") });
            }
            pad(out, hex.as_bytes(), spec);
        }
        _ => bad_verb(out, value, verb, spec, 0),
    }
}

/// The first characters of a text.
fn truncated(bytes: &[u8], count: Option<usize>) -> &[u8] {
    let Some(count) = count else { return bytes };
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            let end = text.char_indices().nth(count).map_or(text.len(), |(at, _)| at);
            &bytes[..end]
        }
        Err(_) => &bytes[..bytes.len().min(count)],
    }
}
