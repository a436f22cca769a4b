//! Floating-point numbers as Go's `strconv.FormatFloat` writes them.

/// Digits behind which a number of 64 bits has zeros only.
const DIGITS_MAX: usize = 1_100;

/// Writes a number as `e`, `E`, `f`, `g` or `G`; without a precision, in as few digits as tell it from its neighbours.
pub fn format(number: f64, form: char, precision: Option<usize>) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if let Some(wanted) = precision
        && wanted > DIGITS_MAX
        && matches!(form, 'e' | 'E' | 'f')
    {
        let text = format(number, form, Some(DIGITS_MAX));
        let at = text.find(['e', 'E']).unwrap_or(text.len());
        let (digits, power) = text.split_at(at);
        return format!("{digits}{}{power}", "0".repeat(wanted - DIGITS_MAX));
    }
    let precision = precision.map(|precision| precision.min(DIGITS_MAX));
    match (form, precision) {
        ('f', None) => plain(number),
        ('f', Some(precision)) => format!("{number:.precision$}"),
        ('e' | 'E', None) => exponent(&format!("{number:e}"), form),
        ('e' | 'E', Some(precision)) => exponent(&format!("{number:.precision$e}"), form),
        ('x', _) => hexadecimal(number, precision),
        ('X', _) => hexadecimal(number, precision).to_uppercase(),
        _ => general(number, form, precision),
    }
}

/// `%g`: few digits, with an exponent when that is far from zero.
fn general(number: f64, form: char, precision: Option<usize>) -> String {
    let scientific = match precision {
        None => format!("{number:e}"),
        Some(precision) => format!("{number:.*e}", precision.max(1) - 1),
    };
    let (mantissa, power) = parts(&scientific);
    let mantissa =
        if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count() as i32;
    // Go's threshold: the precision, or the digits there are if those are all whole; 6 when no precision is given.
    let threshold = match precision {
        None => 6,
        Some(precision) => {
            let precision = precision.max(1) as i32;
            if precision > digits && digits > power { digits } else { precision }
        }
    };
    if power < -4 || power >= threshold {
        let letter = if form == 'G' { 'E' } else { 'e' };
        return exponent(&format!("{mantissa}e{power}"), letter);
    }
    let after = usize::try_from(digits - 1 - power).unwrap_or(0);
    format!("{number:.after$}")
}

/// The `#` flag: a point always, and for `%g` zeros up to so many digits.
pub fn with_point(text: &str, digits: usize) -> String {
    let at = text.find(['e', 'E']).unwrap_or(text.len());
    let (mantissa, power) = text.split_at(at);
    let plain = mantissa.trim_start_matches(['-', '+']);
    let significant =
        plain.chars().skip_while(|c| matches!(c, '0' | '.')).filter(char::is_ascii_digit).count();
    // A zero in front counts when there is nothing else.
    let counted = if plain == "0" { 1 } else { significant };
    let point = if mantissa.contains('.') { "" } else { "." };
    format!("{mantissa}{point}{}{power}", "0".repeat(digits.saturating_sub(counted)))
}

/// `%x`: a mantissa in hexadecimal digits and an exponent of two.
fn hexadecimal(number: f64, precision: Option<usize>) -> String {
    let bits = number.to_bits();
    let sign = if bits >> 63 == 1 { "-" } else { "" };
    let (mut exponent, mut mantissa) = ((bits >> 52 & 0x7ff) as i64, bits & ((1 << 52) - 1));
    match exponent {
        0 if mantissa == 0 => {}
        0 => {
            // Made normal: the first digit is one.
            let shift = mantissa.leading_zeros() - 11;
            mantissa = (mantissa << shift) & ((1 << 52) - 1);
            exponent = -1022 - i64::from(shift);
        }
        _ => exponent -= 1023,
    }
    let mut lead = u64::from(number != 0.0);
    let mut digits = format!("{mantissa:013x}");
    match precision {
        None => digits.truncate(digits.trim_end_matches('0').len()),
        Some(count) if count < 13 => {
            let unit = 1u64 << (52 - 4 * count);
            let (half, rest) = (unit / 2, mantissa % unit);
            let kept = (lead << 52 | mantissa) / unit;
            let kept = if rest > half || rest == half && kept % 2 == 1 { kept + 1 } else { kept };
            lead = kept >> (4 * count);
            digits = if count == 0 {
                String::new()
            } else {
                format!("{:0count$x}", kept & ((1 << (4 * count)) - 1))
            };
            if lead == 2 {
                (lead, exponent) = (1, exponent + 1);
            }
        }
        Some(count) => digits.push_str(&"0".repeat(count - 13)),
    }
    let point = if digits.is_empty() { "" } else { "." };
    let power = if exponent < 0 { '-' } else { '+' };
    format!("{sign}0x{lead}{point}{digits}p{power}{:02}", exponent.unsigned_abs())
}

/// All digits, no exponent.
fn plain(number: f64) -> String {
    format!("{number}")
}

/// Rust's `1.5e-7` as Go's `1.5e-07`.
fn exponent(scientific: &str, letter: char) -> String {
    let (mantissa, power) = parts(scientific);
    let sign = if power < 0 { '-' } else { '+' };
    format!("{mantissa}{letter}{sign}{:02}", power.unsigned_abs())
}

fn parts(scientific: &str) -> (&str, i32) {
    let (mantissa, power) = scientific.split_once('e').unwrap_or((scientific, "0"));
    (mantissa, power.parse().unwrap_or(0))
}

/// A number as Go's `strconv.ParseFloat` reads it.
pub fn parse(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_word = ["inf", "infinity", "nan"].iter().any(|word| unsigned.eq_ignore_ascii_case(word));
    let is_number =
        unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    if !is_word && !is_number {
        return None;
    }
    let number: f64 = text.parse().ok()?;
    (is_word || number.is_finite()).then_some(number)
}
