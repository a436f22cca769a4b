//! Numbers, characters and quoted text as Go writes them.

use super::ast::ExprKind;

/// A number. The error is for people.
pub fn number(text: &str) -> Result<ExprKind, String> {
    let bad = || format!("bad number syntax: {text:?}");
    let (negative, digits) = match text.as_bytes()[0] {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if digits.ends_with('i') && !is_hex(digits) {
        return Err(format!("imaginary numbers are not supported: {text:?}"));
    }
    if !underscores_fit(digits) {
        return Err(bad());
    }
    let plain: String = digits.chars().filter(|c| *c != '_').collect();
    if let Some(whole) = whole(&plain) {
        let Ok(magnitude) = whole else { return Err(format!("integer overflow: {text:?}")) };
        let number = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
        return Ok(i64::try_from(number).map_or(ExprKind::Huge, ExprKind::Int));
    }
    // Digits that are none of their base.
    if !plain.contains(['.', 'e', 'E', 'p', 'P']) || (plain.starts_with("0b") || plain.starts_with("0o")) {
        return Err(bad());
    }
    let float = if is_hex(&plain) { hex_float(&plain) } else { decimal_float(&plain) }.ok_or_else(bad)?;
    Ok(ExprKind::Float(if negative { -float } else { float }))
}

fn is_hex(digits: &str) -> bool {
    digits.starts_with("0x") || digits.starts_with("0X")
}

/// Go's rule: underscores stand between digits, or behind the prefix of a base.
fn underscores_fit(digits: &str) -> bool {
    if !digits.contains('_') {
        return true;
    }
    let has_base = digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_alphabetic();
    let rest = if has_base { &digits[2..] } else { digits };
    let bytes = rest.as_bytes();
    bytes.iter().enumerate().filter(|(_, byte)| **byte == b'_').all(|(at, _)| {
        let before = if at == 0 { has_base } else { bytes[at - 1].is_ascii_hexdigit() };
        before && bytes.get(at + 1).is_some_and(u8::is_ascii_hexdigit)
    })
}

/// A whole number of any base; `None` when it is not one, an error when it is too large.
fn whole(digits: &str) -> Option<Result<u64, ()>> {
    let lower = digits.to_ascii_lowercase();
    let (base, rest) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, &lower[..]),
    };
    if rest.is_empty() || !rest.chars().all(|c| c.is_digit(base)) {
        return None;
    }
    Some(u64::from_str_radix(rest, base).map_err(|_| ()))
}

fn decimal_float(text: &str) -> Option<f64> {
    let is_number = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    let float: f64 = if is_number { text.parse().ok()? } else { return None };
    float.is_finite().then_some(float)
}

/// `0x1.8p3`: a binary exponent is required.
fn hex_float(text: &str) -> Option<f64> {
    let lower = text[2..].to_ascii_lowercase();
    let (mantissa, exponent) = lower.split_once('p')?;
    let exponent: i32 = exponent.parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    // More digits than a float can hold are not worth a rounding of our own.
    if digits.is_empty() || digits.len() > 13 || exponent.unsigned_abs() > 1_100 {
        return None;
    }
    let value = u64::from_str_radix(&digits, 16).ok()? as f64;
    let exponent = exponent - 4 * fraction.len() as i32;
    // In two steps: the scale of a very small number is none itself.
    Some(value * 2f64.powi(exponent / 2) * 2f64.powi(exponent - exponent / 2))
}

/// A character in single quotes.
pub fn rune(text: &str) -> Option<i64> {
    let inside = text.strip_prefix('\'')?.strip_suffix('\'')?;
    let mut chars = inside.chars();
    let first = chars.next()?;
    if first != '\\' {
        return chars.next().is_none().then_some(i64::from(u32::from(first)));
    }
    let (escape, rest) = escaped(&inside[1..], '\'')?;
    rest.is_empty().then_some(match escape {
        Escape::Byte(byte) => i64::from(byte),
        Escape::Char(char) => i64::from(u32::from(char)),
    })
}

/// Text in double quotes or backquotes.
pub fn text(text: &str) -> Option<Vec<u8>> {
    if let Some(raw) = text.strip_prefix('`') {
        // Go takes carriage returns out of raw text.
        return Some(raw.strip_suffix('`')?.bytes().filter(|b| *b != b'\r').collect());
    }
    let mut rest = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut out = Vec::with_capacity(rest.len());
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let (escape, after) = escaped(&rest[at + 1..], '"')?;
        match escape {
            Escape::Byte(byte) => out.push(byte),
            Escape::Char(char) => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        rest = after;
    }
    out.extend_from_slice(rest.as_bytes());
    Some(out)
}

/// What an escape stands for.
enum Escape {
    Byte(u8),
    Char(char),
}

/// The escape behind a backslash, and what follows it.
fn escaped(text: &str, quote: char) -> Option<(Escape, &str)> {
    let first = text.chars().next()?;
    let rest = &text[first.len_utf8()..];
    let char = |c| Some((Escape::Char(c), rest));
    let digits = |from: &'_ str, count: usize, base| {
        let digits = from.get(..count)?;
        digits.chars().all(|c| c.is_digit(base)).then(|| u32::from_str_radix(digits, base).ok()).flatten()
    };
    match first {
        'a' => char('\x07'),
        'b' => char('\x08'),
        'f' => char('\x0c'),
        'n' => char('\n'),
        'r' => char('\r'),
        't' => char('\t'),
        'v' => char('\x0b'),
        '\\' => char('\\'),
        c if c == quote => char(c),
        'x' => Some((Escape::Byte(u8::try_from(digits(rest, 2, 16)?).ok()?), &rest[2..])),
        '0'..='7' => Some((Escape::Byte(u8::try_from(digits(text, 3, 8)?).ok()?), &text[3..])),
        'u' => Some((Escape::Char(char::from_u32(digits(rest, 4, 16)?)?), &rest[4..])),
        'U' => Some((Escape::Char(char::from_u32(digits(rest, 8, 16)?)?), &rest[8..])),
        _ => None,
    }
}
