//! Lengths of time as Go writes them: `1h30m`, `250ms`, `-2.5s`, `0`.
//!
//! Values are signed nanoseconds, as in Go, because a negative length is a different mistake from an
//! unparsable one and gets its own message.

/// Nanoseconds in a second.
pub const SECOND_NS: i64 = 1_000_000_000;

/// Parses Go's duration text into nanoseconds. Errors are Go's own words.
pub fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(tail) => digits(tail),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let unit_len = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let scale =
            unit_ns(unit).ok_or_else(|| format!("time: unknown unit {unit:?} in duration {text:?}"))?;
        total += part_ns(whole, fraction, scale).ok_or_else(invalid)?;
        if total > i128::from(i64::MAX) {
            return Err(invalid());
        }
        rest = after;
    }
    let total = total as i64;
    Ok(if negative { -total } else { total })
}

/// Writes nanoseconds as Go's `Duration.String` does: `1m30s`, `1.5s`, `250ms`, `0s`.
pub fn format(ns: i64) -> String {
    if ns == 0 {
        return "0s".to_owned();
    }
    let sign = if ns < 0 { "-" } else { "" };
    let abs = ns.unsigned_abs();
    if abs < SECOND_NS as u64 {
        let (unit, scale) = match abs {
            0..=999 => ("ns", 1),
            1_000..=999_999 => ("µs", 1_000),
            _ => ("ms", 1_000_000),
        };
        return format!("{sign}{}{unit}", decimal(abs, scale));
    }
    let second = SECOND_NS as u64;
    let (hours, minutes) = (abs / second / 3600, abs / second / 60 % 60);
    let seconds = decimal(abs % (60 * second), second);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, m) => format!("{sign}{m}m{seconds}s"),
        (h, m) => format!("{sign}{h}h{m}m{seconds}s"),
    }
}

/// `value / scale` without trailing zeros; `scale` is a power of ten.
fn decimal(value: u64, scale: u64) -> String {
    let width = scale.ilog10() as usize;
    if value.is_multiple_of(scale) {
        return (value / scale).to_string();
    }
    let fraction = format!("{:0width$}", value % scale);
    format!("{}.{}", value / scale, fraction.trim_end_matches('0'))
}

/// Splits leading decimal digits off.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Nanoseconds of one number and its unit; `None` when it does not fit.
fn part_ns(whole: &str, fraction: &str, scale: i128) -> Option<i128> {
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Digits past the eighteenth cannot change a nanosecond of the largest unit.
    let fraction = &fraction[..fraction.len().min(18)];
    let part = if fraction.is_empty() {
        0
    } else {
        fraction.parse::<i128>().ok()? * scale / 10i128.pow(fraction.len() as u32)
    };
    whole.checked_mul(scale)?.checked_add(part)
}

/// Nanoseconds of a unit.
fn unit_ns(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_go_parses() {
        for (text, ns) in [
            ("0", 0),
            ("0s", 0),
            ("+5s", 5 * SECOND_NS),
            ("-1.5h", -5400 * SECOND_NS),
            ("1h30m", 5400 * SECOND_NS),
            ("250ms", 250_000_000),
            (".5s", 500_000_000),
            ("1.s", SECOND_NS),
            ("3us", 3_000),
            ("3µs", 3_000),
            ("87600h", 87600 * 3600 * SECOND_NS),
        ] {
            assert_eq!(parse(text), Ok(ns), "{text}");
        }
    }

    #[test]
    fn refuses_in_gos_words() {
        for (text, error) in [
            ("", "time: invalid duration \"\""),
            ("ten", "time: invalid duration \"ten\""),
            ("10", "time: missing unit in duration \"10\""),
            ("10x", "time: unknown unit \"x\" in duration \"10x\""),
            ("-", "time: invalid duration \"-\""),
            (".s", "time: invalid duration \".s\""),
            ("9999999999h", "time: invalid duration \"9999999999h\""),
        ] {
            assert_eq!(parse(text), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn formats_as_go_does_and_back() {
        for (ns, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (250_000_000, "250ms"),
            (1_500_000_000, "1.5s"),
            (60 * SECOND_NS, "1m0s"),
            (5400 * SECOND_NS, "1h30m0s"),
            (-10 * SECOND_NS, "-10s"),
        ] {
            assert_eq!(format(ns), text);
            assert_eq!(parse(text), Ok(ns));
        }
    }
}
