//! The recorded cases as typed values. Unknown fields are refused: what the replayer does not understand it must not
//! silently leave out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// One recorded case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    pub area: String,
    pub env: String,
    pub steps: Vec<Step>,
    /// Leaves the agents in a state that the next case must not see.
    #[serde(default)]
    pub dirty: bool,
}

/// One step: exactly one of the kinds, and its modifiers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub http: Option<Http>,
    pub raw: Option<Raw>,
    pub dns: Option<Dns>,
    pub start: Option<Value>,
    pub lead_ms: Option<u64>,
    #[serde(rename = "await")]
    pub wait: Option<Value>,
    pub sleep_ms: Option<u64>,
    pub agent_stop: Option<String>,
    pub signal: Option<String>,
    pub agent_start: Option<String>,
    pub expect: Option<Expect>,
    #[serde(default)]
    pub retry_ms: u64,
    pub elapsed_ms: Option<(u64, u64)>,
    #[serde(default)]
    pub unordered: bool,
    #[serde(default)]
    pub subset: bool,
    #[serde(default)]
    pub contains: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    pub method: String,
    pub path: String,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    pub agent: Option<String>,
    pub body: Option<Body>,
    #[serde(default)]
    pub chunked: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Body {
    Json(Value),
    Text(String),
    B64(String),
    Fill(String, usize),
    JsonFill(String, String, usize),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    pub text: String,
    pub methods: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    pub name: Option<String>,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub class: Option<String>,
    pub transport: Option<String>,
    pub rd: Option<bool>,
    #[serde(default)]
    pub cd: bool,
    #[serde(default)]
    pub ad: bool,
    #[serde(default)]
    pub opcode: u16,
    pub edns: Option<Edns>,
    pub agent: Option<String>,
    pub timeout_ms: Option<u64>,
    pub raw: Option<String>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Edns {
    pub size: Option<u16>,
    #[serde(default)]
    pub version: u8,
    #[serde(default, rename = "do")]
    pub dnssec_ok: bool,
    #[serde(default)]
    pub ext_rcode: u8,
    #[serde(default)]
    pub options: Vec<EdnsOption>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct EdnsOption {
    pub code: u16,
    pub hex: String,
}

/// What is expected of a reply: of an HTTP reply, of a DNS message, or of the replies to raw bytes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    pub status: Option<u16>,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "present")]
    pub json: Option<Value>,
    pub text: Option<String>,
    pub b64: Option<String>,
    pub lines: Option<Vec<String>>,
    pub bin: Option<Bin>,
    #[serde(default)]
    pub empty: bool,
    #[serde(default)]
    pub gzip: bool,
    /// A remark for readers.
    #[serde(rename = "seen")]
    pub _seen: Option<Value>,

    pub rcode: Option<String>,
    #[serde(default)]
    pub opcode: u16,
    #[serde(default)]
    pub flags: Vec<String>,
    #[serde(default)]
    pub question: Vec<String>,
    #[serde(default = "no_records")]
    pub answer: Value,
    #[serde(default = "no_records")]
    pub authority: Value,
    #[serde(default = "no_records")]
    pub additional: Value,
    pub edns: Option<Edns>,
    pub max_size: Option<usize>,
    #[serde(default)]
    pub ordered: Vec<String>,
    #[serde(default)]
    pub timeout: bool,
    #[serde(default)]
    pub lenient: bool,

    #[serde(default)]
    pub replies: Vec<Option<Expect>>,
    #[serde(default)]
    pub closed: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bin {
    #[serde(default)]
    pub magic: String,
    #[serde(default)]
    pub min: usize,
}

/// A DNS section that the recording does not mention is empty; one that it does is an array of lines or a placeholder.
fn no_records() -> Value {
    Value::Array(Vec::new())
}

/// `"json": null` expects a null, which is not the same as no expectation.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

/// An environment: which agents to start, and when they are ready.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvSpec {
    pub name: String,
    #[serde(rename = "about")]
    pub _about: String,
    #[serde(rename = "token")]
    pub _token: Option<String>,
    pub agents: Vec<AgentSpec>,
    #[serde(default)]
    pub ready: Vec<Probe>,
    pub settle_ms: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSpec {
    pub name: String,
    #[serde(default)]
    pub args: Vec<String>,
    pub config: Value,
    #[serde(default)]
    pub delayed: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    pub agent: String,
    pub path: String,
    pub status: Option<u16>,
    #[serde(default)]
    pub min_items: usize,
    #[serde(default)]
    pub contains: String,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// The folder with the recordings.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn read(name: &str) -> String {
    let path = folder().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()))
}

/// The cases of one area, in the order in which they were recorded.
pub fn cases(area: &str) -> Vec<Case> {
    let parse = |line: &str| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{area}.jsonl: {error}: {line:.100}"))
    };
    read(&format!("{area}.jsonl")).lines().filter(|line| !line.trim().is_empty()).map(parse).collect()
}

/// All environments by name.
pub fn environments() -> BTreeMap<String, EnvSpec> {
    let specs: Vec<EnvSpec> =
        serde_json::from_str(&read("envs.json")).expect("envs.json has the known shape");
    specs.into_iter().map(|spec| (spec.name.clone(), spec)).collect()
}

/// A case that is known not to pass.
#[derive(Clone, Debug)]
pub struct Skipped {
    /// The step that is known to differ; the steps before it have to match. None: the agents do not even start.
    pub step: Option<usize>,
    pub reason: String,
}

/// The cases that are known not to pass: lines `case name@step: reason`.
pub fn skipped() -> BTreeMap<String, Skipped> {
    listed("SKIPPED.txt")
        .into_iter()
        .map(|(key, reason)| {
            let (name, step) =
                key.split_once('@').map_or((key.as_str(), None), |(name, step)| (name, Some(step)));
            let step = step.map(|step| step.parse().unwrap_or_else(|_| panic!("not a step: {key}")));
            (name.to_owned(), Skipped { step, reason })
        })
        .collect()
}

fn listed(file: &str) -> Vec<(String, String)> {
    read(file)
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (key, reason) =
                line.split_once(": ").unwrap_or_else(|| panic!("{file}: no reason in: {line}"));
            (key.to_owned(), reason.trim().to_owned())
        })
        .collect()
}
