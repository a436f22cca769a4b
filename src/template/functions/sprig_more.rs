//! Functions of the sprig library that are seldom used, those that are the same under another name, and those that cannot be
//! here.

use super::decode::to_json;
use super::sprig_math::decimals;
use super::{Call, Function, Outcome, Param, fixed, open, text::hex, url};
use crate::template::float;
use crate::template::value::Value;

/// Other names of functions. Here every function fails where sprig has one that does and one that does not, unless said
/// otherwise at the function.
pub const ALIASES: &[(&str, &str)] = &[
    ("sprig_mustAppend", "sprig_append"),
    ("sprig_mustChunk", "sprig_chunk"),
    ("sprig_mustCompact", "sprig_compact"),
    ("sprig_mustDeepCopy", "sprig_deepCopy"),
    ("sprig_mustFirst", "sprig_first"),
    ("sprig_mustHas", "sprig_has"),
    ("sprig_mustInitial", "sprig_initial"),
    ("sprig_mustLast", "sprig_last"),
    ("sprig_mustMerge", "sprig_merge"),
    ("sprig_mustMergeOverwrite", "sprig_mergeOverwrite"),
    ("sprig_mustPrepend", "sprig_prepend"),
    ("sprig_mustPush", "sprig_push"),
    ("sprig_mustRegexFind", "sprig_regexFind"),
    ("sprig_mustRegexFindAll", "sprig_regexFindAll"),
    ("sprig_mustRegexReplaceAll", "sprig_regexReplaceAll"),
    ("sprig_mustRegexReplaceAllLiteral", "sprig_regexReplaceAllLiteral"),
    ("sprig_mustRegexSplit", "sprig_regexSplit"),
    ("sprig_mustRest", "sprig_rest"),
    ("sprig_mustReverse", "sprig_reverse"),
    ("sprig_mustSlice", "sprig_slice"),
    ("sprig_mustUniq", "sprig_uniq"),
    ("sprig_mustWithout", "sprig_without"),
    ("sprig_osBase", "sprig_base"),
    ("sprig_osClean", "sprig_clean"),
    ("sprig_osDir", "sprig_dir"),
    ("sprig_osExt", "sprig_ext"),
    ("sprig_osIsAbs", "sprig_isAbs"),
    ("sprig_trimall", "sprig_trimAll"),
];

/// All of them.
pub const ALL: &[Function] = &[
    fixed("sprig_hello", &[], |_| Ok(Value::text("Hello!"))),
    fixed("sprig_add1f", &[Param::Any], |call| {
        decimals(&[call.args[0].clone(), Value::Int(1)], |a, b| a.plus(b), |a, b| a + b)
    }),
    fixed("sprig_mustToJson", &[Param::Any], |call| to_json(call, true, false)),
    fixed("sprig_mustToPrettyJson", &[Param::Any], |call| to_json(call, true, true)),
    fixed("sprig_mustToRawJson", &[Param::Any], |call| to_json(call, false, false)),
    fixed("sprig_mustRegexMatch", &[Param::Text, Param::Text], |call| {
        let text = call.str(1);
        Ok(Value::Bool(call.run.pattern(&call.str(0), text.len())?.is_match(&text)))
    }),
    fixed("sprig_abbrevboth", &[Param::Int, Param::Int, Param::Text], |call| {
        let text = call.text(2);
        Ok(Value::text(shortened_both(call.int(0), call.int(1), text.as_bytes())))
    }),
    fixed("sprig_sha1sum", &[Param::Text], |call| Ok(Value::text(hex(&sha1(call.text(0).as_bytes()))))),
    fixed("sprig_adler32sum", &[Param::Text], |call| {
        let (mut a, mut b) = (1u32, 0u32);
        for byte in call.text(0).as_bytes() {
            a = (a + u32::from(*byte)) % ADLER;
            b = (b + a) % ADLER;
        }
        Ok(Value::text((b << 16 | a).to_string()))
    }),
    fixed("sprig_b32enc", &[Param::Text], |call| Ok(Value::text(base32(call.text(0).as_bytes())))),
    fixed("sprig_b32dec", &[Param::Text], |call| {
        let text = call.text(0);
        Ok(Value::text(from_base32(text.as_bytes()).unwrap_or_else(|why| why.into_bytes())))
    }),
    fixed("sprig_duration", &[Param::Any], duration),
    fixed("sprig_durationRound", &[Param::Any], duration_round),
    fixed("sprig_urlParse", &[Param::Text], url::parse),
    fixed("sprig_urlJoin", &[Param::Map], url::join),
    open("sprig_bcrypt", &[], Param::Any, |_| Err(no_secrets())),
    open("sprig_htpasswd", &[], Param::Any, |_| Err(no_secrets())),
    open("sprig_derivePassword", &[], Param::Any, |_| Err(no_secrets())),
    open("sprig_encryptAES", &[], Param::Any, |_| Err(no_secrets())),
    open("sprig_decryptAES", &[], Param::Any, |_| Err(no_secrets())),
    open("sprig_genPrivateKey", &[], Param::Any, |_| Err(no_secrets())),
    open("sprig_buildCustomCert", &[], Param::Any, |_| Err(no_secrets())),
    open("sprig_genCA", &[], Param::Any, |_| Err(no_secrets())),
    open("sprig_genCAWithKey", &[], Param::Any, |_| Err(no_secrets())),
    open("sprig_genSelfSignedCert", &[], Param::Any, |_| Err(no_secrets())),
    open("sprig_genSelfSignedCertWithKey", &[], Param::Any, |_| Err(no_secrets())),
    open("sprig_genSignedCert", &[], Param::Any, |_| Err(no_secrets())),
    open("sprig_genSignedCertWithKey", &[], Param::Any, |_| Err(no_secrets())),
    open("sprig_randInt", &[], Param::Any, |_| Err(no_chance())),
    open("sprig_shuffle", &[], Param::Any, |_| Err(no_chance())),
    open("sprig_ago", &[], Param::Any, |_| Err(no_dates())),
    open("sprig_toDate", &[], Param::Any, |_| Err(no_dates())),
    open("sprig_mustToDate", &[], Param::Any, |_| Err(no_dates())),
    open("sprig_mustDateModify", &[], Param::Any, |_| Err(no_dates())),
    open("sprig_must_date_modify", &[], Param::Any, |_| Err(no_dates())),
    open("sprig_unixEpoch", &[], Param::Any, |_| Err(no_dates())),
    open("sprig_semver", &[], Param::Any, |_| Err(no_versions())),
    open("sprig_semverCompare", &[], Param::Any, |_| Err(no_versions())),
];

fn no_secrets() -> String {
    "templates make no keys, certificates and passwords: make them elsewhere and read them with `file`"
        .to_owned()
}

fn no_chance() -> String {
    "not supported: a file would change each time it is rendered".to_owned()
}

fn no_dates() -> String {
    "dates are not supported: `timestamp` shows the time".to_owned()
}

fn no_versions() -> String {
    "versions are not supported".to_owned()
}

/// Largest prime below 2^16 (RFC 1950).
const ADLER: u32 = 65_521;

/// The first bytes of a text that is too long, and dots.
pub fn shortened(width: usize, text: &[u8]) -> Vec<u8> {
    if width < 4 || text.len() <= width { text.to_vec() } else { [&text[..width - 3], b"..."].concat() }
}

/// A part from the middle of a text that is too long, between dots (goutils: `AbbreviateFull`).
fn shortened_both(from: i64, width: i64, text: &[u8]) -> Vec<u8> {
    if width < 4 || from > 0 && width < 7 {
        return text.to_vec();
    }
    let width = usize::try_from(width).unwrap_or(usize::MAX);
    if text.len() <= width {
        return text.to_vec();
    }
    let from = usize::try_from(from).unwrap_or(0).min(text.len() - (width - 3));
    if from <= 4 {
        return shortened(width, text);
    }
    [b"...", shortened(width - 3, &text[from..]).as_slice()].concat()
}

/// SHA-1 (RFC 3174).
fn sha1(text: &[u8]) -> Vec<u8> {
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let whole = text.len() / 64 * 64;
    let mut tail = text[whole..].to_vec();
    tail.push(0x80);
    tail.resize((tail.len() + 8).next_multiple_of(64) - 8, 0);
    tail.extend_from_slice(&(text.len() as u64 * 8).to_be_bytes());
    for block in text[..whole].chunks_exact(64).chain(tail.chunks_exact(64)) {
        let mut words = [0u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        for i in 16..80 {
            words[i] = (words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (i, word) in words.iter().enumerate() {
            let (mixed, constant) = match i / 20 {
                0 => (b & c | !b & d, 0x5a82_7999),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => (b & c | b & d | c & d, 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6u32),
            };
            let sum = a.rotate_left(5).wrapping_add(mixed).wrapping_add(e);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, sum.wrapping_add(constant).wrapping_add(*word));
        }
        for (of, by) in state.iter_mut().zip([a, b, c, d, e]) {
            *of = of.wrapping_add(by);
        }
    }
    state.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// The digits of base 32 (RFC 4648).
const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

fn base32(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(5) * 8);
    for group in bytes.chunks(5) {
        let number = (0..5).fold(0u64, |sum, i| sum << 8 | u64::from(group.get(i).copied().unwrap_or(0)));
        let digits = (group.len() * 8).div_ceil(5);
        for i in 0..8 {
            let digit = char::from(DIGITS[(number >> (35 - 5 * i) & 31) as usize]);
            out.push(if i < digits { digit } else { '=' });
        }
    }
    out
}

/// The bytes; the error is what sprig gives instead.
fn from_base32(text: &[u8]) -> Result<Vec<u8>, String> {
    let text: Vec<u8> = text.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    let wrong = |at: usize| format!("illegal base32 data at input byte {at}");
    let mut out = Vec::with_capacity(text.len() / 8 * 5);
    for (i, group) in text.chunks(8).enumerate() {
        let length = group.iter().position(|byte| *byte == b'=').unwrap_or(group.len());
        let is_padded = group.len() == 8 && group[length..].iter().all(|byte| *byte == b'=');
        let is_last = (i + 1) * 8 >= text.len();
        if !is_padded || !matches!(length, 2 | 4 | 5 | 7 | 8) || length < 8 && !is_last {
            return Err(wrong(i * 8 + length));
        }
        let mut number = 0u64;
        for (at, byte) in group[..length].iter().enumerate() {
            let digit = DIGITS.iter().position(|digit| digit == byte).ok_or_else(|| wrong(i * 8 + at))?;
            number |= (digit as u64) << (35 - 5 * at);
        }
        out.extend_from_slice(&number.to_be_bytes()[3..3 + length * 5 / 8]);
    }
    Ok(out)
}

/// Seconds as a length of time.
fn duration(call: &mut Call<'_, '_, '_>) -> Outcome {
    let seconds: i64 = match &call.args[0] {
        Value::Text(text) => text.lossy().parse().unwrap_or(0),
        other => other.as_int().unwrap_or(0),
    };
    let (sign, all) = (if seconds < 0 { "-" } else { "" }, seconds.unsigned_abs());
    let (hours, minutes, seconds) = (all / 3600, all / 60 % 60, all % 60);
    Ok(Value::text(match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, _) => format!("{sign}{minutes}m{seconds}s"),
        _ => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }))
}

/// Seconds of each unit, and its sign.
const UNITS: [(f64, &str); 6] =
    [(31_536_000.0, "y"), (2_592_000.0, "mo"), (86_400.0, "d"), (3_600.0, "h"), (60.0, "m"), (1.0, "s")];

/// A length of time in its largest unit. What is exactly one of a unit is many of the smaller one.
fn duration_round(call: &mut Call<'_, '_, '_>) -> Outcome {
    let seconds = match &call.args[0] {
        Value::Text(text) => seconds_of(&text.lossy()).unwrap_or(0.0),
        other => other.as_int().unwrap_or(0) as f64 / 1e9,
    };
    let seconds = seconds.abs();
    let unit = UNITS.iter().find(|(length, _)| seconds > *length);
    Ok(Value::text(unit.map_or_else(
        || "0s".to_owned(),
        |(length, sign)| format!("{:.0}{sign}", (seconds / length).floor()),
    )))
}

/// A length of time as Go writes it, in seconds.
fn seconds_of(text: &str) -> Option<f64> {
    let mut rest = text.trim_start_matches(['+', '-']);
    if rest.is_empty() || text.len() - rest.len() > 1 {
        return None;
    }
    let mut all = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let length = match &after[..unit] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "" if text.trim_start_matches(['+', '-']) == "0" => 0.0,
            _ => return None,
        };
        all += float::parse(number)? * length;
        rest = &after[unit..];
    }
    Some(all)
}
