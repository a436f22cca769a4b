//! Functions of the sprig library about text.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256, Sha512};

use super::decode::{from_json, to_json};
use super::sprig_math::text_of;
use super::sprig_more::shortened;
use super::text::{hex, replace, replaced, split, title};
use super::{Call, Function, Outcome, Param, fixed, light, open};
use crate::template::quote;
use crate::template::value::{ENTRY_BYTES, Key, Keys, Kind, Value};

/// Functions from text to text.
macro_rules! plain {
    ($name:literal, $run:expr) => {
        fixed($name, &[Param::Text], |call| {
            let run: fn(&str) -> String = $run;
            Ok(Value::text(run(&call.str(0))))
        })
    };
}

/// All of them.
pub const ALL: &[Function] = &[
    plain!("sprig_trim", |text| text.trim().to_owned()),
    plain!("sprig_upper", str::to_uppercase),
    plain!("sprig_lower", str::to_lowercase),
    plain!("sprig_title", title),
    plain!("sprig_untitle", |text| each_word(text, |first| first.to_lowercase().collect())),
    plain!("sprig_nospace", |text| text.split_whitespace().collect()),
    plain!("sprig_initials", |text| text.split_whitespace().filter_map(|word| word.chars().next()).collect()),
    plain!("sprig_swapcase", swapped),
    plain!("sprig_snakecase", |text| joined_words(text, "_")),
    plain!("sprig_kebabcase", |text| joined_words(text, "-")),
    plain!("sprig_camelcase", camel),
    plain!("sprig_b64enc", |text| STANDARD.encode(text)),
    plain!("sprig_sha256sum", |text| hex(&Sha256::digest(text))),
    plain!("sprig_sha512sum", |text| hex(&Sha512::digest(text))),
    plain!("sprig_base", |path| path_base(path).to_owned()),
    plain!("sprig_dir", |path| path_dir(path)),
    plain!("sprig_ext", |path| {
        let base = path.rsplit('/').next().unwrap_or_default();
        base.rfind('.').map_or("", |at| &base[at..]).to_owned()
    }),
    plain!("sprig_clean", path_clean),
    plain!("sprig_regexQuoteMeta", |text| regex::escape(text).replace("\\-", "-").replace("\\#", "#")),
    fixed("sprig_isAbs", &[Param::Text], |call| Ok(Value::Bool(call.str(0).starts_with('/')))),
    fixed("sprig_b64dec", &[Param::Text], |call| {
        Ok(STANDARD
            .decode(call.text(0).as_bytes())
            .map_or_else(|why| Value::text(why.to_string()), Value::text))
    }),
    fixed("sprig_trimAll", &[Param::Text, Param::Text], |call| {
        let set = call.str(0).into_owned();
        Ok(Value::text(call.str(1).trim_matches(|c| set.contains(c))))
    }),
    fixed("sprig_trimPrefix", &[Param::Text, Param::Text], |call| {
        let (prefix, text) = (call.str(0), call.str(1));
        Ok(Value::text(text.strip_prefix(prefix.as_ref()).unwrap_or(&text)))
    }),
    fixed("sprig_trimSuffix", &[Param::Text, Param::Text], |call| {
        let (suffix, text) = (call.str(0), call.str(1));
        Ok(Value::text(text.strip_suffix(suffix.as_ref()).unwrap_or(&text)))
    }),
    fixed("sprig_contains", &[Param::Text, Param::Text], |call| {
        Ok(Value::Bool(call.str(1).contains(call.str(0).as_ref())))
    }),
    fixed("sprig_hasPrefix", &[Param::Text, Param::Text], |call| {
        Ok(Value::Bool(call.str(1).starts_with(call.str(0).as_ref())))
    }),
    fixed("sprig_hasSuffix", &[Param::Text, Param::Text], |call| {
        Ok(Value::Bool(call.str(1).ends_with(call.str(0).as_ref())))
    }),
    fixed("sprig_repeat", &[Param::Int, Param::Text], |call| {
        let (count, text) = (usize::try_from(call.int(0)).unwrap_or(0), call.text(1));
        call.fits(text.len().saturating_mul(count))?;
        Ok(Value::text(text.as_bytes().repeat(count)))
    }),
    fixed("sprig_replace", &[Param::Text, Param::Text, Param::Text], |call| {
        replace(call, &call.str(2), &call.str(0), &call.str(1), usize::MAX)
    }),
    light(fixed("sprig_substr", &[Param::Int, Param::Int, Param::Text], substr)),
    light(fixed("sprig_trunc", &[Param::Int, Param::Text], trunc)),
    fixed("sprig_abbrev", &[Param::Int, Param::Text], |call| {
        let width = usize::try_from(call.int(0)).unwrap_or(0);
        Ok(Value::text(shortened(width, call.text(1).as_bytes())))
    }),
    fixed("sprig_wrap", &[Param::Int, Param::Text], |call| wrapped(call, 1, "\n")),
    fixed("sprig_wrapWith", &[Param::Int, Param::Text, Param::Text], |call| wrapped(call, 2, &call.str(1))),
    fixed("sprig_plural", &[Param::Text, Param::Text, Param::Int], |call| {
        Ok(call.args[usize::from(call.int(2) != 1)].clone())
    }),
    fixed("sprig_indent", &[Param::Int, Param::Text], |call| indented(call, "")),
    fixed("sprig_nindent", &[Param::Int, Param::Text], |call| indented(call, "\n")),
    open("sprig_quote", &[], Param::Any, |call| {
        let shown = shown(call)?;
        let all: Vec<String> = shown.iter().map(|text| quote::double(text.as_bytes(), false)).collect();
        Ok(Value::text(all.join(" ")))
    }),
    open("sprig_squote", &[], Param::Any, |call| {
        let all: Vec<String> = shown(call)?.iter().map(|text| format!("'{text}'")).collect();
        Ok(Value::text(all.join(" ")))
    }),
    open("sprig_cat", &[], Param::Any, |call| Ok(Value::text(shown(call)?.join(" ")))),
    fixed("sprig_toString", &[Param::Any], |call| text_of(call, &call.args[0]).map(Value::text)),
    fixed("sprig_toStrings", &[Param::Any], |call| texts(call, 0).map(Value::texts)),
    fixed("sprig_join", &[Param::Text, Param::Any], |call| {
        let all = texts(call, 1)?;
        let between = call.str(0);
        let length = all.iter().map(|text| text.len() + between.len()).fold(0, usize::saturating_add);
        call.fits(length)?;
        Ok(Value::text(all.join(&between)))
    }),
    fixed("sprig_sortAlpha", &[Param::Any], |call| {
        let mut all = texts(call, 0)?;
        all.sort_unstable();
        Ok(Value::texts(all))
    }),
    fixed("sprig_splitList", &[Param::Text, Param::Text], |call| split(call, &call.str(1), &call.str(0))),
    fixed("sprig_split", &[Param::Text, Param::Text], |call| {
        let (between, text) = (call.str(0), call.str(1));
        numbered(call, text.split(between.as_ref()))
    }),
    fixed("sprig_splitn", &[Param::Text, Param::Int, Param::Text], |call| {
        let (between, text) = (call.str(0), call.str(2));
        let count = usize::try_from(call.int(1)).unwrap_or(usize::MAX);
        numbered(call, text.splitn(count, between.as_ref()))
    }),
    fixed("sprig_regexMatch", &[Param::Text, Param::Text], |call| {
        let text = call.str(1);
        // Unlike the others, it takes no notice of what is wrong with a pattern.
        let pattern = call.run.pattern(&call.str(0), text.len());
        call.run.step(0)?;
        Ok(Value::Bool(pattern.is_ok_and(|pattern| pattern.is_match(&text))))
    }),
    fixed("sprig_regexFind", &[Param::Text, Param::Text], |call| {
        let text = call.str(1);
        let pattern = call.run.pattern(&call.str(0), text.len())?;
        Ok(Value::text(pattern.find(&text).map_or("", |found| found.as_str())))
    }),
    fixed("sprig_regexFindAll", &[Param::Text, Param::Text, Param::Int], |call| {
        let text = call.str(1);
        let pattern = call.run.pattern(&call.str(0), text.len())?;
        let count = usize::try_from(call.int(2)).unwrap_or(usize::MAX);
        call.texts(pattern.find_iter(&text).take(count).map(|found| found.as_str()))
    }),
    fixed("sprig_regexReplaceAll", &[Param::Text, Param::Text, Param::Text], |call| {
        replaced(call, &call.str(0), 1, &call.str(2))
    }),
    fixed("sprig_regexReplaceAllLiteral", &[Param::Text, Param::Text, Param::Text], |call| {
        let literal = call.str(2).replace('$', "$$");
        replaced(call, &call.str(0), 1, &literal)
    }),
    fixed("sprig_regexSplit", &[Param::Text, Param::Text, Param::Int], |call| {
        let text = call.str(1);
        let pattern = call.run.pattern(&call.str(0), text.len())?;
        let count = usize::try_from(call.int(2)).unwrap_or(usize::MAX);
        call.texts(pattern.splitn(&text, count))
    }),
    fixed("sprig_toJson", &[Param::Any], |call| to_json(call, true, false)),
    fixed("sprig_toPrettyJson", &[Param::Any], |call| to_json(call, true, true)),
    fixed("sprig_toRawJson", &[Param::Any], |call| to_json(call, false, false)),
    fixed("sprig_fromJson", &[Param::Text], |call| Ok(from_json(call, &call.str(0)).unwrap_or_default())),
    fixed("sprig_mustFromJson", &[Param::Text], |call| from_json(call, &call.str(0))),
];

/// The arguments as text, without those that are nothing.
fn shown(call: &Call<'_, '_, '_>) -> Result<Vec<String>, String> {
    let given = call.args.iter().filter(|value| !matches!(value, Value::Nil));
    let all: Vec<String> = given.map(|value| text_of(call, value)).collect::<Result<_, _>>()?;
    call.fits(all.iter().map(String::len).fold(0, usize::saturating_add))?;
    Ok(all)
}

/// The elements of a list as text; anything else is a list of one.
pub fn texts(call: &Call<'_, '_, '_>, at: usize) -> Result<Vec<String>, String> {
    let items = match &call.args[at] {
        Value::List(list) => list.items.as_slice(),
        Value::Nil => &[],
        other => std::slice::from_ref(other),
    };
    let mut length = 0usize;
    let mut out = Vec::with_capacity(items.len());
    for item in items.iter().filter(|item| !matches!(item, Value::Nil)) {
        let text = text_of(call, item)?;
        length = length.saturating_add(text.len());
        call.fits(length)?;
        out.push(text);
    }
    Ok(out)
}

/// Parts under `_0`, `_1`, and so on.
fn numbered<'t>(call: &Call<'_, '_, '_>, parts: impl Iterator<Item = &'t str>) -> Outcome {
    let mut out = BTreeMap::new();
    for (i, part) in parts.enumerate() {
        call.fits(out.len() * ENTRY_BYTES)?;
        out.insert(Key::from(format!("_{i}").as_str()), Value::text(part));
    }
    Ok(Value::map_of(Kind::Text, Keys::Text, out))
}

fn each_word(text: &str, change: fn(char) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    for char in text.chars() {
        if in_word || char.is_whitespace() {
            out.push(char);
        } else {
            out.push_str(&change(char));
        }
        in_word = !char.is_whitespace();
    }
    out
}

fn swapped(text: &str) -> String {
    let swap = |c: char| -> String {
        if c.is_lowercase() { c.to_uppercase().collect() } else { c.to_lowercase().collect() }
    };
    text.chars().map(swap).collect()
}

/// What stands between the words of a name.
fn is_between(c: char) -> bool {
    matches!(c, '_' | '-') || c.is_whitespace()
}

/// The words of a name in lower case, in new company: at blanks, marks, and where lower case turns upper.
fn joined_words(text: &str, between: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len() + 8);
    for (i, char) in chars.iter().enumerate() {
        if is_between(*char) {
            out.push_str(between);
            continue;
        }
        let before = i.checked_sub(1).map(|i| chars[i]);
        let after = chars.get(i + 1);
        let turns = char.is_uppercase()
            && (before.is_some_and(|c| c.is_lowercase() || c.is_numeric())
                || before.is_some_and(char::is_uppercase) && after.is_some_and(|c| c.is_lowercase()));
        if turns {
            out.push_str(between);
        }
        out.extend(char.to_lowercase());
    }
    out
}

/// The first letter of every part in upper case, the rest in lower case, the marks between them gone.
fn camel(text: &str) -> String {
    let inner = text.trim_matches(is_between);
    let start = text.len() - text.trim_start_matches(is_between).len();
    let mut out = text[..start].to_owned();
    for part in inner.split(is_between) {
        let mut chars = part.chars();
        out.extend(chars.next().into_iter().flat_map(char::to_uppercase));
        out.extend(chars.flat_map(char::to_lowercase));
    }
    out.push_str(&text[(start + inner.len()).min(text.len())..]);
    out
}

fn path_base(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" if path.is_empty() => ".",
        "" => "/",
        path => path.rsplit('/').next().unwrap_or(path),
    }
}

fn path_dir(path: &str) -> String {
    path_clean(path.rfind('/').map_or("", |at| &path[..=at]))
}

/// The shortest path that means the same.
fn path_clean(path: &str) -> String {
    let is_rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if is_rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (is_rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

fn substr(call: &mut Call<'_, '_, '_>) -> Outcome {
    let (text, from, to) = (call.text(2), call.int(0), call.int(1));
    let bytes = text.as_bytes();
    let from = usize::try_from(from).unwrap_or(0).min(bytes.len());
    let to = usize::try_from(to).map_or(bytes.len(), |to| to.min(bytes.len()));
    Ok(Value::text(bytes.get(from..to).unwrap_or_default()))
}

/// The first bytes, or the last when the number is below zero.
fn trunc(call: &mut Call<'_, '_, '_>) -> Outcome {
    let (count, text) = (call.int(0), call.text(1));
    let bytes = text.as_bytes();
    let length = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX).min(bytes.len());
    Ok(Value::text(if count < 0 { &bytes[bytes.len() - length..] } else { &bytes[..length] }))
}

fn indented(call: &mut Call<'_, '_, '_>, before: &str) -> Outcome {
    let (spaces, text) = (usize::try_from(call.int(0)).unwrap_or(0), call.text(1));
    let mut out = call.run.sink();
    out.text(before);
    for (i, line) in text.as_bytes().split(|byte| *byte == b'\n').enumerate() {
        if i > 0 {
            out.push(b"\n");
        }
        out.repeat(b' ', spaces);
        out.push(line);
    }
    out.finish().map(Value::text)
}

/// Words in lines of so many characters.
fn wrapped(call: &Call<'_, '_, '_>, at: usize, between: &str) -> Outcome {
    let (width, text) = (usize::try_from(call.int(0)).unwrap_or(0), call.str(at));
    call.fits(text.len().saturating_mul(between.len().max(1)))?;
    let mut out = call.run.sink();
    // Characters of the last line.
    let mut length = 0usize;
    for word in text.split_whitespace() {
        let own = word.chars().count();
        if length > 0 && length.saturating_add(1).saturating_add(own) > width {
            out.text(between);
            length = 0;
        } else if length > 0 {
            out.push(b" ");
            length += 1;
        }
        out.text(word);
        length += own;
    }
    out.finish().map(Value::text)
}
