//! Comparing a reply with its recording: placeholders, bindings, JSON by value, headers, DNS sections.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use regex::Regex;
use serde_json::Value;

use super::case::{Edns, Expect, Step};
use super::support::dns::{self, Message};
use super::support::http::{self, Reply};

static PLACEHOLDER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\{\{([a-z][a-z0-9_]*(?:\.[a-z_]+)?)(?::([^{}+]*))?(\+\d+)?\}\}").expect("a valid pattern")
});
static FILL: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\{\{fill:(.):(\d+)\}\}").expect("a valid pattern"));

/// What a placeholder inside a text stands for.
const KINDS: &[(&str, &str)] = &[
    ("index", r"\d+"),
    ("uuid", r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"),
    ("hash", r"[0-9a-f]+"),
    ("time", r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?: ?(?:Z|[+-]\d\d:?\d\d)(?: [A-Z]+)?)?"),
    ("duration", r"-?(?:\d+(?:\.\d+)?(?:h|ms|m|s|us|µs|ns))+"),
    ("int", r"-?\d+"),
    ("num", r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"),
    ("hex", r"[0-9a-fA-F]*"),
    ("any", r"(?s:.*)"),
    ("str", r"(?s:.*)"),
    ("line", r"[^\n]*"),
    ("word", r"\S+"),
    ("version", r"\d+\.\d+\.\d+[0-9A-Za-z.+-]*"),
    ("build", r"\d+\.\d+\.\d+[0-9A-Za-z.+-]*:[0-9a-f]*"),
    ("name", r"[A-Za-z0-9._-]+"),
    ("addr", r"[0-9.]+:\d+|\[[0-9a-fA-F:]+\]:\d+"),
];
const LABELLED: &[&str] = &["index", "uuid", "hash", "word", "name", "int", "addr"];

/// Headers whose absence in a recording is part of the contract.
const TRACKED: &[&str] = &[
    "x-consul-index",
    "x-consul-knownleader",
    "x-consul-lastcontact",
    "x-consul-effective-consistency",
    "x-consul-contenthash",
    "x-consul-translate-addresses",
    "x-consul-reason",
    "x-cache",
    "age",
    "content-encoding",
    "allow",
    "location",
];
/// Steps that the search for a fitting order of two bags may take.
const BAG_STEPS_MAX: usize = 4000;
const SHOWN_CHARS_MAX: usize = 300;

fn pattern(kind: &str) -> Option<&'static str> {
    KINDS.iter().find(|(name, _)| *name == kind).map(|(_, pattern)| *pattern)
}

/// What the placeholders of one case stand for so far.
#[derive(Clone, Debug)]
pub struct Bindings {
    /// The environment's variables: ports as numbers, folders as strings.
    pub variables: BTreeMap<String, Value>,
    /// Whether indexes of rising labels may be equal: one commit may carry what Consul wrote in several.
    pub commits_merge: bool,
    bound: BTreeMap<(String, String), String>,
}

impl Bindings {
    pub fn new(variables: BTreeMap<String, Value>) -> Bindings {
        Bindings { variables, commits_merge: false, bound: BTreeMap::new() }
    }

    fn get(&self, kind: &str, label: Option<&str>) -> Option<&String> {
        self.bound.get(&(kind.to_owned(), label?.to_owned()))
    }

    fn bind(&mut self, kind: &str, label: Option<&str>, value: &str) -> Result<(), String> {
        let Some(label) = label.filter(|label| !label.is_empty()) else { return Ok(()) };
        if let Some(known) = self.get(kind, Some(label)) {
            let same = known == value;
            return if same {
                Ok(())
            } else {
                Err(format!("{{{{{kind}:{label}}}}} was {known}, now {value}"))
            };
        }
        if kind == "index"
            && let Ok(rank) = label.parse::<u64>()
        {
            self.check_rank(rank, value)?;
        }
        self.bound.insert((kind.to_owned(), label.to_owned()), value.to_owned());
        Ok(())
    }

    /// Labels of indexes are ranked: within a case a larger label is a larger index.
    fn check_rank(&self, rank: u64, value: &str) -> Result<(), String> {
        let number: u64 = value.parse().map_err(|_| format!("{value} is no index"))?;
        for ((kind, label), other) in &self.bound {
            if let ("index", Ok(other_rank), Ok(other)) =
                (kind.as_str(), label.parse::<u64>(), other.parse::<u64>())
                && (other_rank < rank) != (other < number)
                && !(self.commits_merge && other == number)
            {
                return Err(format!(
                    "{{{{index:{rank}}}}}={value} is out of order with {{{{index:{label}}}}}={other}"
                ));
            }
        }
        Ok(())
    }

    /// Fills the placeholders of a request.
    pub fn fill(&self, text: &str) -> String {
        let text = expand_fill(text);
        PLACEHOLDER
            .replace_all(&text, |found: &regex::Captures<'_>| {
                if let Some(value) = self.variables.get(&found[1]) {
                    return plain(value);
                }
                let label = found.get(2).map(|label| label.as_str());
                match self.get(&found[1], label) {
                    None => found[0].to_owned(),
                    Some(value) => plus(value, found.get(3).map(|offset| offset.as_str())),
                }
            })
            .into_owned()
    }

    /// Fills the placeholders of a request's JSON body or of a configuration.
    pub fn fill_json(&self, value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                map.iter().map(|(key, value)| (self.fill(key), self.fill_json(value))).collect()
            }
            Value::Array(items) => items.iter().map(|item| self.fill_json(item)).collect(),
            Value::String(text) => {
                let filled = self.fill(text);
                let lone = lone(text).filter(|_| filled != *text);
                let number = lone.is_some_and(|(kind, _)| {
                    kind == "index" || self.variables.get(kind).is_some_and(Value::is_u64)
                });
                match filled.parse::<u64>() {
                    Ok(parsed) if number => parsed.into(),
                    _ => filled.into(),
                }
            }
            other => other.clone(),
        }
    }
}

/// The kind and label when the whole text is one placeholder.
fn lone(text: &str) -> Option<(&str, Option<&str>)> {
    let found = PLACEHOLDER.captures(text)?;
    let whole = found.get(0)?;
    (whole.len() == text.len())
        .then(|| (found.get(1).map_or("", |kind| kind.as_str()), found.get(2).map(|label| label.as_str())))
}

fn expand_fill(text: &str) -> String {
    FILL.replace_all(text, |found: &regex::Captures<'_>| found[1].repeat(found[2].parse().expect("a count")))
        .into_owned()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn plus(value: &str, offset: Option<&str>) -> String {
    match offset {
        None => value.to_owned(),
        Some(offset) => {
            let number = |text: &str| text.parse::<u64>().expect("digits");
            (number(value) + number(&offset[1..])).to_string()
        }
    }
}

/// How arrays and objects are compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    pub unordered: bool,
    pub subset: bool,
    pub contains: bool,
}

impl From<&Step> for Rules {
    fn from(step: &Step) -> Rules {
        Rules { unordered: step.unordered, subset: step.subset, contains: step.contains }
    }
}

/// Compares a text that may hold placeholders.
pub fn match_text(expected: &str, actual: &str, bindings: &mut Bindings) -> Result<(), String> {
    if !expected.contains("{{") {
        return if expected == actual { Ok(()) } else { Err("differs".into()) };
    }
    let mut source = String::from("^(?:");
    let mut groups: Vec<(String, Option<String>)> = Vec::new();
    let mut at = 0;
    for found in PLACEHOLDER.captures_iter(expected) {
        let whole = found.get(0).expect("a match is whole");
        let (kind, label) = (&found[1], found.get(2).map(|label| label.as_str()));
        let piece = if let Some(value) = bindings.variables.get(kind) {
            regex::escape(&plain(value))
        } else if kind == "fill" {
            regex::escape(&expand_fill(whole.as_str()))
        } else if let Some(pattern) = pattern(kind) {
            match bindings.get(kind, label) {
                Some(known) => regex::escape(&plus(known, found.get(3).map(|offset| offset.as_str()))),
                None => {
                    groups.push((kind.to_owned(), label.map(str::to_owned)));
                    format!("({pattern})")
                }
            }
        } else {
            continue;
        };
        source += &regex::escape(&expected[at..whole.start()]);
        source += &piece;
        at = whole.end();
    }
    source += &regex::escape(&expected[at..]);
    source += ")$";
    let found = compiled(&source);
    let Some(found) = found.captures(actual) else { return Err("does not fit the pattern".into()) };
    for (number, (kind, label)) in groups.iter().enumerate() {
        bindings.bind(kind, label.as_deref(), &found[number + 1])?;
    }
    Ok(())
}

/// Patterns are used again on every retry; compiling them is what costs.
fn compiled(source: &str) -> Regex {
    thread_local! {
        static KNOWN: std::cell::RefCell<HashMap<String, Regex>> = std::cell::RefCell::default();
    }
    KNOWN.with_borrow_mut(|known| {
        let compile = || Regex::new(source).unwrap_or_else(|error| panic!("{error}"));
        known.entry(source.to_owned()).or_insert_with(compile).clone()
    })
}

fn fits_pattern(kind: &str, text: &str) -> bool {
    pattern(kind).is_some_and(|pattern| compiled(&format!("^(?:{pattern})$")).is_match(text))
}

fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...({})", &text[..end], text.len()),
    }
}

fn show(value: &Value) -> String {
    short(&value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// Compares JSON by value; the reasons why it differs, each with its path.
pub fn match_json(
    expected: &Value,
    actual: &Value,
    bindings: &mut Bindings,
    rules: Rules,
    path: &str,
) -> Vec<String> {
    let differs = |what: &str| vec![format!("{path}: want {what}, got {}", show(actual))];
    match expected {
        Value::String(text) => match_string(text, actual, bindings, path),
        Value::Null | Value::Bool(_) if expected == actual => Vec::new(),
        Value::Null | Value::Bool(_) => differs(&show(expected)),
        Value::Number(number) => match actual {
            Value::Number(other) if number == other || number.as_f64() == other.as_f64() => Vec::new(),
            _ => differs(&show(expected)),
        },
        Value::Object(expected) => match actual {
            Value::Object(actual) => match_object(expected, actual, bindings, rules, path),
            _ => differs("an object"),
        },
        Value::Array(expected) => {
            let Value::Array(actual) = actual else { return differs("an array") };
            if rules.contains {
                let rules = Rules { contains: false, ..rules };
                return match_bag(expected, actual, bindings, rules, path, false);
            }
            if expected.len() != actual.len() {
                return differs(&format!("{} items", expected.len()));
            }
            if rules.unordered {
                return match_bag(expected, actual, bindings, rules, path, true);
            }
            let pairs = expected.iter().zip(actual).enumerate();
            pairs
                .flat_map(|(at, (want, got))| {
                    match_json(want, got, bindings, rules, &format!("{path}[{at}]"))
                })
                .collect()
        }
    }
}

fn match_string(text: &str, actual: &Value, bindings: &mut Bindings, path: &str) -> Vec<String> {
    let differs = |why: &str| vec![format!("{path}: want {}, got {}{why}", short(text), show(actual))];
    if let Some((kind, label)) = lone(text) {
        if let Some(value) = bindings.variables.get(kind).filter(|value| value.is_u64()) {
            let same = value == actual || actual.as_str() == Some(&plain(value));
            return if same { Vec::new() } else { differs(&format!(" (it is {value})")) };
        }
        if !bindings.variables.contains_key(kind)
            && (pattern(kind).is_some() || matches!(kind, "obj" | "arr" | "bool"))
        {
            let whole = actual.is_i64() || actual.is_u64();
            let fits = match kind {
                "any" => true,
                "obj" => actual.is_object(),
                "arr" => actual.is_array(),
                "bool" => actual.is_boolean(),
                "num" if actual.is_number() => true,
                "int" | "index" if whole => true,
                _ => actual.as_str().is_some_and(|text| fits_pattern(kind, text)),
            };
            if !fits {
                return differs("");
            }
            if LABELLED.contains(&kind)
                && let Err(why) = bindings.bind(kind, label, &plain(actual))
            {
                return vec![format!("{path}: {why}")];
            }
            return Vec::new();
        }
    }
    let Value::String(actual_text) = actual else { return differs("") };
    match match_text(text, actual_text, bindings) {
        Ok(()) => Vec::new(),
        Err(why) => differs(&format!(" ({why})")),
    }
}

fn match_object(
    expected: &serde_json::Map<String, Value>,
    actual: &serde_json::Map<String, Value>,
    bindings: &mut Bindings,
    rules: Rules,
    path: &str,
) -> Vec<String> {
    let mut out = Vec::new();
    let mut left: BTreeSet<&str> = actual.keys().map(String::as_str).collect();
    let (patterns, plain): (Vec<_>, Vec<_>) = expected.iter().partition(|(key, _)| key.contains("{{"));
    for (key, want) in plain {
        match actual.get(key) {
            None => out.push(format!("{path}.{key}: missing (want {})", show(want))),
            Some(got) => {
                left.remove(key.as_str());
                out.extend(match_json(want, got, bindings, rules, &format!("{path}.{key}")));
            }
        }
    }
    for (key, want) in patterns {
        match left.iter().copied().find(|name| match_text(key, name, bindings).is_ok()) {
            None => out.push(format!("{path}: no key like {key}")),
            Some(name) => {
                left.remove(name);
                out.extend(match_json(want, &actual[name], bindings, rules, &format!("{path}.{name}")));
            }
        }
    }
    if !left.is_empty() && !rules.subset {
        out.push(format!("{path}: unexpected keys {}", left.into_iter().collect::<Vec<_>>().join(", ")));
    }
    out
}

fn match_bag(
    expected: &[Value],
    actual: &[Value],
    bindings: &mut Bindings,
    rules: Rules,
    path: &str,
    exact: bool,
) -> Vec<String> {
    if actual.len() < expected.len() || exact && actual.len() != expected.len() {
        let got = show(&Value::Array(actual.to_vec()));
        return vec![format!("{path}: want {} items, got {}: {got}", expected.len(), actual.len())];
    }
    let mut search = BagSearch { expected, actual, rules, path, budget: BAG_STEPS_MAX };
    if search.go(0, &mut vec![false; actual.len()], bindings) {
        return Vec::new();
    }
    // Name the first item that fits nothing.
    for (at, want) in expected.iter().enumerate() {
        let tries = actual.iter().enumerate().map(|(other, got)| {
            match_json(want, got, &mut bindings.clone(), rules, &format!("{path}[{at}~{other}]"))
        });
        let best = tries.min_by_key(Vec::len).unwrap_or_default();
        if !best.is_empty() {
            return best;
        }
    }
    vec![format!("{path}: the items do not fit together in any order")]
}

struct BagSearch<'a> {
    expected: &'a [Value],
    actual: &'a [Value],
    rules: Rules,
    path: &'a str,
    budget: usize,
}

impl BagSearch<'_> {
    fn go(&mut self, at: usize, used: &mut [bool], bindings: &mut Bindings) -> bool {
        if at == self.expected.len() {
            return true;
        }
        for other in 0..self.actual.len() {
            if used[other] || self.budget == 0 {
                continue;
            }
            self.budget -= 1;
            let before = bindings.clone();
            if match_json(&self.expected[at], &self.actual[other], bindings, self.rules, self.path).is_empty()
            {
                used[other] = true;
                if self.go(at + 1, used, bindings) {
                    return true;
                }
                used[other] = false;
            }
            *bindings = before;
        }
        false
    }
}

/// Compares an HTTP reply with what was recorded.
pub fn match_reply(expected: &Expect, reply: &Reply, bindings: &mut Bindings, rules: Rules) -> Vec<String> {
    let mut out = Vec::new();
    if expected.status != Some(reply.status) {
        let want = expected.status.unwrap_or(0);
        out.push(format!("status: want {want}, got {}; body: {}", reply.status, short(&reply.text())));
    }
    match_headers(expected, reply, bindings, &mut out);
    let mut body = reply.body.clone();
    if expected.gzip {
        match http::gunzip(&body) {
            Ok(plain) => body = plain,
            Err(_) => out.push("body: not gzip".into()),
        }
    }
    let text = String::from_utf8_lossy(&body);
    if let Some(want) = &expected.json {
        match serde_json::from_slice(&body) {
            Ok(actual) => out.extend(match_json(want, &actual, bindings, rules, "$")),
            Err(_) => out.push(format!("body: not JSON: {}", short(&text))),
        }
    } else if let Some(want) = &expected.text {
        if let Err(why) = match_text(want, &text, bindings) {
            out.push(format!("body: want {}, got {} ({why})", short(want), short(&text)));
        }
    } else if let Some(wants) = &expected.lines {
        for want in wants {
            if !text.lines().any(|line| match_text(want, line, bindings).is_ok()) {
                out.push(format!("body: no line like {}", short(want)));
            }
        }
    } else if let Some(want) = &expected.b64 {
        let got = BASE64_STANDARD.encode(&body);
        if got != *want {
            out.push(format!("body: want base64 {}, got {}", short(want), short(&got)));
        }
    } else if let Some(want) = &expected.bin {
        if !body.starts_with(&dns::from_hex(&want.magic)) || body.len() < want.min {
            out.push(format!("body: want bytes starting {}, got {} bytes", want.magic, body.len()));
        }
    } else if expected.empty && !body.is_empty() {
        out.push(format!("body: want none, got {}", short(&text)));
    }
    out
}

fn match_headers(expected: &Expect, reply: &Reply, bindings: &mut Bindings, out: &mut Vec<String>) {
    let mut known = BTreeSet::new();
    for (name, want) in &expected.headers {
        let lower = name.to_ascii_lowercase();
        let Some(got) = reply.header(&lower) else {
            out.push(format!("header {name}: missing (want {want})"));
            known.insert(lower);
            continue;
        };
        let (want, got) = match lower.as_str() {
            "content-type" => (media_type(want), media_type(got)),
            _ => (want.clone(), got.to_owned()),
        };
        if let Err(why) = match_text(&want, &got, bindings) {
            out.push(format!("header {name}: want {want}, got {got} ({why})"));
        }
        known.insert(lower);
    }
    for name in TRACKED {
        if let (Some(value), false) = (reply.header(name), known.contains(*name)) {
            out.push(format!("header {name}: unexpected ({value})"));
        }
    }
}

fn media_type(text: &str) -> String {
    text.split(';').map(str::trim_start).collect::<Vec<_>>().join("; ").to_lowercase()
}

/// Compares a DNS reply with what was recorded; None: no reply came. `id` is what the question carried.
pub fn match_dns(
    expected: &Expect,
    message: Option<&Message>,
    bindings: &mut Bindings,
    id: Option<u16>,
) -> Vec<String> {
    let excused = ["FORMERR", "NOTIMP", "REFUSED"];
    if expected.lenient && message.is_none_or(|message| excused.contains(&message.rcode.as_str())) {
        return Vec::new(); // a malformed question: silence or an error is as good as what was recorded
    }
    let Some(message) = message else {
        return if expected.timeout { Vec::new() } else { vec!["no DNS reply".into()] };
    };
    if expected.timeout {
        return vec![format!("want no reply, got {message:?}")];
    }
    let mut out = Vec::new();
    let mut compare = |what: &str, want: String, got: String| {
        if want != got {
            out.push(format!("{what}: want {want}, got {got}"));
        }
    };
    compare("rcode", expected.rcode.clone().unwrap_or_default(), message.rcode.clone());
    compare("opcode", expected.opcode.to_string(), message.opcode.to_string());
    let sorted = |mut flags: Vec<String>| {
        flags.sort();
        flags.join(" ")
    };
    let got = message.flags.iter().map(|flag| (*flag).to_owned()).collect();
    compare("flags", sorted(expected.flags.clone()), sorted(got));
    compare("question", expected.question.join(", "), message.question.join(", "));
    compare(
        "edns",
        format!("{:?}", expected.edns),
        format!("{:?}", message.edns.as_ref().map(recorded_edns)),
    );
    if let Some(id) = id {
        compare("id", id.to_string(), message.id.to_string());
    }
    if let Some(max) = expected.max_size.filter(|max| message.size > *max) {
        out.push(format!("size: want at most {max}, got {}", message.size));
    }
    let sections = [
        ("answer", &expected.answer),
        ("authority", &expected.authority),
        ("additional", &expected.additional),
    ];
    for ((name, want), got) in sections.into_iter().zip(&message.sections) {
        let rules =
            Rules { unordered: !expected.ordered.iter().any(|ordered| ordered == name), ..Rules::default() };
        out.extend(match_json(want, &Value::from(got.clone()), bindings, rules, name));
    }
    out
}

/// A reply's OPT record as the recordings spell it.
fn recorded_edns(edns: &dns::Edns) -> Edns {
    Edns {
        size: Some(edns.size),
        version: edns.version,
        dnssec_ok: edns.dnssec_ok,
        ext_rcode: edns.rcode_high,
        options: edns
            .options
            .iter()
            .map(|(code, data)| super::case::EdnsOption { code: *code, hex: dns::to_hex(data) })
            .collect(),
    }
}
