//! Functions about text: parts, patterns, encodings, digests, numbers in it; the environment and the time.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use md5::Md5;
use sha2::{Digest, Sha256};

use super::{Call, Function, Outcome, Param, fixed, open, time};
use crate::template::value::{ENTRY_BYTES, Keys, Kind, Value};
use crate::template::{FileToWrite, float};

/// All of them.
pub const ALL: &[Function] = &[
    fixed("base64Decode", &[Param::Text], |call| decoded(call, &STANDARD, "base64Decode")),
    fixed("base64Encode", &[Param::Text], |call| Ok(Value::text(STANDARD.encode(call.text(0).as_bytes())))),
    fixed("base64URLDecode", &[Param::Text], |call| decoded(call, &URL_SAFE, "base64URLDecode")),
    fixed("base64URLEncode", &[Param::Text], |call| {
        Ok(Value::text(URL_SAFE.encode(call.text(0).as_bytes())))
    }),
    fixed("env", &[Param::Text], |call| {
        Ok(Value::text(call.run.host.environment(&call.str(0)).unwrap_or_default()))
    }),
    fixed("mustEnv", &[Param::Text], must_env),
    fixed("envOrDefault", &[Param::Text, Param::Text], |call| {
        let found = call.run.host.environment(&call.str(0));
        Ok(found.map_or_else(|| call.args[1].clone(), Value::text))
    }),
    fixed("indent", &[Param::Int, Param::Text], indent),
    fixed("join", &[Param::Text, Param::Texts], |call| joined(call, 1, 0)),
    fixed("trim", &[Param::Text, Param::Text], |call| {
        let set = call.str(0).into_owned();
        Ok(Value::text(call.str(1).trim_matches(|c| set.contains(c))))
    }),
    fixed("trimPrefix", &[Param::Text, Param::Text], |call| {
        let (prefix, text) = (call.text(0), call.text(1));
        Ok(Value::text(text.as_bytes().strip_prefix(prefix.as_bytes()).unwrap_or(text.as_bytes())))
    }),
    fixed("trimSuffix", &[Param::Text, Param::Text], |call| {
        let (suffix, text) = (call.text(0), call.text(1));
        Ok(Value::text(text.as_bytes().strip_suffix(suffix.as_bytes()).unwrap_or(text.as_bytes())))
    }),
    fixed("trimSpace", &[Param::Text], |call| Ok(Value::text(call.text(0).as_bytes().trim_ascii()))),
    fixed("parseBool", &[Param::Text], parse_bool),
    fixed("parseFloat", &[Param::Text], parse_float),
    fixed("parseInt", &[Param::Text], |call| {
        parsed(call, "parseInt", "ParseInt", |text| text.parse().ok().map(Value::Int))
    }),
    fixed("parseUint", &[Param::Text], |call| {
        parsed(call, "parseUint", "ParseUint", |text| {
            text.parse().ok().filter(|_| !text.starts_with('+')).map(Value::Uint)
        })
    }),
    open("plugin", &[Param::Text], Param::Text, plugin),
    fixed("regexReplaceAll", &[Param::Text, Param::Text, Param::Text], |call| {
        replaced(call, &call.str(0), 2, &call.str(1))
    }),
    fixed("regexMatch", &[Param::Text, Param::Text], |call| {
        let text = call.str(1);
        Ok(Value::Bool(call.run.pattern(&call.str(0), text.len())?.is_match(&text)))
    }),
    fixed("replaceAll", &[Param::Text, Param::Text, Param::Text], |call| {
        replace(call, &call.str(2), &call.str(0), &call.str(1), usize::MAX)
    }),
    fixed("sha256Hex", &[Param::Text], |call| Ok(Value::text(hex(&Sha256::digest(call.text(0).as_bytes()))))),
    fixed("md5sum", &[Param::Text], |call| Ok(Value::text(hex(&Md5::digest(call.text(0).as_bytes()))))),
    fixed("hmacSHA256Hex", &[Param::Text, Param::Text], |call| {
        Ok(Value::text(hex(&hmac_sha256(call.text(0).as_bytes(), call.text(1).as_bytes()))))
    }),
    open("timestamp", &[], Param::Text, timestamp),
    fixed("toLower", &[Param::Text], |call| Ok(Value::text(call.str(0).to_lowercase()))),
    fixed("toTitle", &[Param::Text], |call| Ok(Value::text(title(&call.str(0))))),
    fixed("toUpper", &[Param::Text], |call| Ok(Value::text(call.str(0).to_uppercase()))),
    fixed("split", &[Param::Text, Param::Text], |call| {
        let (text, between) = (call.str(1), call.str(0));
        let text = text.trim();
        if text.is_empty() { Ok(Value::texts(Vec::<&str>::new())) } else { split(call, text, &between) }
    }),
    fixed("splitN", &[Param::Text, Param::Int, Param::Text], |call| {
        let (text, between, count) = (call.str(2), call.str(0), call.int(1));
        match usize::try_from(count) {
            Ok(0) => Ok(Value::texts(Vec::<&str>::new())),
            Ok(count) => call.texts(text.splitn(count, between.as_ref())),
            Err(_) => split(call, &text, &between),
        }
    }),
    fixed("splitToMap", &[Param::Text, Param::Text, Param::Text], split_to_map),
    open("sockaddr", &[], Param::Text, |call| {
        let words: Vec<_> = (0..call.args.len()).map(|at| call.str(at)).collect();
        call.run.host.socket_address(&words.join(" ")).map(Value::text)
    }),
    open("writeToFile", &[Param::Text, Param::Text, Param::Text, Param::Text], Param::Text, write_to_file),
];

fn decoded(call: &Call<'_, '_, '_>, engine: &impl Engine, name: &str) -> Outcome {
    // As in Go, line ends between the characters do not count.
    let mut text = call.text(0).as_bytes().to_vec();
    text.retain(|byte| !matches!(byte, b'\r' | b'\n'));
    engine.decode(text).map(Value::text).map_err(|why| format!("{name}: illegal base64 data: {why}"))
}

fn must_env(call: &mut Call<'_, '_, '_>) -> Outcome {
    let name = call.str(0);
    match call.run.host.environment(&name) {
        Some(value) if !value.is_empty() => Ok(Value::text(value)),
        _ => Err(format!("required environment variable {name} is empty")),
    }
}

fn indent(call: &mut Call<'_, '_, '_>) -> Outcome {
    let Ok(spaces) = usize::try_from(call.int(0)) else {
        return Err("indent value must be a positive integer".to_owned());
    };
    let text = call.text(1);
    call.fits(text.len())?;
    let mut out = call.run.sink();
    for line in text.as_bytes().split_inclusive(|byte| *byte == b'\n') {
        if line != b"\n" {
            out.repeat(b' ', spaces);
        }
        out.push(line);
    }
    out.finish().map(Value::text)
}

/// The texts of a list with a text between them.
pub fn joined(call: &Call<'_, '_, '_>, list: usize, between: usize) -> Outcome {
    let mut out = call.run.sink();
    let between = call.text(between);
    for (i, item) in call.list(list).iter().enumerate() {
        if i > 0 {
            out.push(between.as_bytes());
        }
        if let Value::Text(text) = item {
            out.push(text.as_bytes());
        }
    }
    out.finish().map(Value::text)
}

fn parse_bool(call: &mut Call<'_, '_, '_>) -> Outcome {
    let text = call.str(0);
    Ok(Value::Bool(match text.as_ref() {
        "" | "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
        "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
        _ => return Err(format!("parseBool: strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }))
}

fn parse_float(call: &mut Call<'_, '_, '_>) -> Outcome {
    let text = call.str(0);
    if text.is_empty() {
        return Ok(Value::Float(0.0));
    }
    float::parse(&text)
        .map(Value::Float)
        .ok_or_else(|| format!("parseFloat: strconv.ParseFloat: parsing {text:?}: invalid syntax"))
}

fn parsed(
    call: &Call<'_, '_, '_>,
    name: &str,
    of_go: &str,
    parse: impl Fn(&str) -> Option<Value>,
) -> Outcome {
    let text = call.str(0);
    if text.is_empty() {
        return Ok(parse("0").unwrap_or_default());
    }
    parse(&text).ok_or_else(|| {
        let digits = text.trim_start_matches(['-', '+']);
        let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let why = if is_number { "value out of range" } else { "invalid syntax" };
        format!("{name}: strconv.{of_go}: parsing {text:?}: {why}")
    })
}

fn plugin(call: &mut Call<'_, '_, '_>) -> Outcome {
    let program = call.str(0);
    if program.is_empty() {
        return Ok(Value::text(""));
    }
    let args = (1..call.args.len()).map(|at| call.str(at).trim().to_owned());
    let args: Vec<String> = args.filter(|arg| !arg.is_empty()).collect();
    call.run.host.plugin(&program, &args).map(Value::text)
}

/// Text with what fits a pattern replaced; `$1` and `${name}` stand for parts of it.
pub fn replaced(call: &mut Call<'_, '_, '_>, pattern: &str, at: usize, by: &str) -> Outcome {
    let text = call.str(at);
    let pattern = call.run.pattern(pattern, text.len())?;
    let mut out = call.run.sink();
    let mut end = 0;
    for found in pattern.captures_iter(&text) {
        let Some(all) = found.get(0) else { break };
        // The piece is made as a whole: it must fit before.
        call.fits(by.matches('$').count().saturating_mul(all.len()).saturating_add(by.len()))?;
        out.text(&text[end..all.start()]);
        let mut piece = String::new();
        found.expand(by, &mut piece);
        out.text(&piece);
        end = all.end();
        if out.is_full() {
            break;
        }
    }
    out.text(&text[end..]);
    out.finish().map(Value::text)
}

/// Text with a part replaced so many times.
pub fn replace(call: &Call<'_, '_, '_>, text: &str, part: &str, by: &str, count: usize) -> Outcome {
    let found = text.matches(part).take(count).count();
    call.fits(text.len().saturating_add(found.saturating_mul(by.len())))?;
    Ok(Value::text(text.replacen(part, by, count)))
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes of a block of SHA-256 (RFC 2104).
const BLOCK: usize = 64;

fn hmac_sha256(message: &[u8], key: &[u8]) -> Vec<u8> {
    let mut block = [0u8; BLOCK];
    if key.len() > BLOCK {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let padded = |pad: u8| block.map(|byte| byte ^ pad);
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().to_vec()
}

fn timestamp(call: &mut Call<'_, '_, '_>) -> Outcome {
    let now = call.run.host.unix_time_ns();
    match call.args.len() {
        0 => Ok(Value::text(time::format(now, "2006-01-02T15:04:05Z07:00"))),
        1 if call.str(0) == "unix" => Ok(Value::text((now.div_euclid(1_000_000_000)).to_string())),
        1 => Ok(Value::text(time::format(now, &call.str(0)))),
        count => Err(format!("timestamp: wrong number of arguments, expected 0 or 1, but got {count}")),
    }
}

/// Text with the first letter of each word in upper case.
pub fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    for char in text.chars() {
        if in_word {
            out.push(char);
        } else {
            out.extend(char.to_uppercase());
        }
        in_word = char.is_alphanumeric() || matches!(char, '_' | '\'');
    }
    out
}

/// The parts between a text; its characters when that is empty.
pub fn split(call: &Call<'_, '_, '_>, text: &str, between: &str) -> Outcome {
    if between.is_empty() {
        return call.texts(text.char_indices().map(|(at, char)| &text[at..at + char.len_utf8()]));
    }
    call.texts(text.split(between))
}

fn split_to_map(call: &mut Call<'_, '_, '_>) -> Outcome {
    let (items, pairs, text) = (call.str(0), call.str(1), call.str(2));
    let mut out = BTreeMap::new();
    for item in text.trim().split(items.as_ref()) {
        call.fits(out.len() * ENTRY_BYTES)?;
        if let Some((key, value)) = item.split_once(pairs.as_ref()) {
            out.insert(key.into(), Value::text(value));
        }
    }
    Ok(Value::map_of(Kind::Text, Keys::Text, out))
}

fn write_to_file(call: &mut Call<'_, '_, '_>) -> Outcome {
    let (flags, content) = match call.args.len() {
        5 => (Cow::Borrowed(""), call.text(4)),
        6 => (call.str(4), call.text(5)),
        count => {
            return Err(format!("writeToFile: wrong number of arguments, expected 5 or 6, but got {count}"));
        }
    };
    let permissions = call.str(3);
    let mode = u32::from_str_radix(&permissions, 8)
        .map_err(|_| format!("writeToFile: {permissions:?} is not a mode such as 0644"))?;
    let mut content = content.as_bytes().to_vec();
    if flags.contains("newline") {
        content.push(b'\n');
    }
    // A file of what is not known yet is nobody's wish.
    if call.run.missing.is_empty() {
        call.run.host.write_file(&FileToWrite {
            path: call.str(0).into_owned(),
            user: call.str(1).into_owned(),
            group: call.str(2).into_owned(),
            mode,
            appends: flags.contains("append"),
            content,
        })?;
    }
    Ok(Value::text(""))
}
