//! Checked and merged settings: what lies between the text of the sources and the typed configuration.
//!
//! Every source (a file, the flags, a fragment) is checked against the table of keys as it comes in, so that an error
//! can name where it is. Then scalars replace, lists append, maps merge.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::decode::{Fault, Problem};
use super::definition::{CheckDefinition, ServiceDefinition};
use super::duration;
use super::keys::{self, Key, Kind, Support};

/// The settings of all sources, in order.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Values by key path.
    values: BTreeMap<&'static str, Value>,
    /// The source that last set a key.
    origins: BTreeMap<&'static str, String>,
    /// Services in order.
    pub services: Vec<ServiceDefinition>,
    /// Checks in order.
    pub checks: Vec<CheckDefinition>,
}

/// Name of sources that are not the operator's.
pub const BUILT_IN: &str = "built-in";

/// The keys of one source that could not be taken.
#[derive(Debug, Default)]
struct Faults {
    /// Paths nobody knows.
    unknown: Vec<String>,
    /// Type errors.
    types: Vec<String>,
    /// Values that make no sense.
    values: Vec<String>,
}

impl Settings {
    /// Takes one source. The error is a text of several lines that names the source, its keys and what was expected.
    pub fn add(&mut self, origin: &str, source: &Value) -> Result<(), String> {
        let mut faults = Faults::default();
        match source {
            Value::Null => {}
            Value::Object(map) => self.section("", map, origin, &mut faults),
            other => {
                let found = json_name(other);
                let text = format!(
                    "failed to parse {origin}: json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
                );
                return Err(text);
            }
        }
        faults.into_result(origin)
    }

    /// Takes the keys of one object.
    fn section(&mut self, path: &str, map: &Map<String, Value>, origin: &str, faults: &mut Faults) {
        for (name, value) in map {
            let shown = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let lower = shown.to_ascii_lowercase();
            if let Some(key) = keys::find(&lower) {
                if !value.is_null() {
                    self.value(key, value, origin, faults);
                }
            } else if keys::is_section(&lower) {
                for block in blocks(value) {
                    match block {
                        Value::Null => {}
                        Value::Object(inner) => self.section(&lower, inner, origin, faults),
                        other => faults
                            .types
                            .push(format!("'{lower}' expected a map, got '{}'", go_name_of(other))),
                    }
                }
            } else {
                faults.unknown.push(shown);
            }
        }
    }

    /// Takes one value.
    fn value(&mut self, key: &'static Key, value: &Value, origin: &str, faults: &mut Faults) {
        match key.kind {
            Kind::Services => self.definitions(key, value, faults, |s, block| {
                s.services.push(ServiceDefinition::from_config(block)?);
                Ok(())
            }),
            Kind::Checks => self.definitions(key, value, faults, |s, block| {
                s.checks.push(CheckDefinition::from_config(block)?);
                Ok(())
            }),
            kind => {
                let Some(value) = typed(key, kind, value, faults) else { return };
                self.merge(key, value);
            }
        }
        self.origins.insert(key.path, origin.to_owned());
    }

    /// Takes definitions.
    fn definitions(
        &mut self,
        key: &Key,
        value: &Value,
        faults: &mut Faults,
        take: impl Fn(&mut Settings, &Value) -> Result<(), Problem>,
    ) {
        let many = matches!(key.path, "services" | "checks");
        for (i, block) in blocks(value).into_iter().enumerate() {
            let path = if many { format!("{}[{i}]", key.path) } else { key.path.to_owned() };
            if let Err(problem) = take(self, block) {
                faults.definition(&path, &problem);
            }
        }
    }

    /// Merges a checked value: scalars replace, lists append, maps merge.
    fn merge(&mut self, key: &'static Key, value: Value) {
        match (self.values.get_mut(key.path), value) {
            (Some(Value::Array(old)), Value::Array(new)) => old.extend(new),
            (Some(Value::Object(old)), Value::Object(new)) => old.extend(new),
            (_, value) => {
                self.values.insert(key.path, value);
            }
        }
    }

    /// Keys of the operator's sources with this support. A key that turns its feature off does not count.
    pub fn turned_on(&self, support: Support) -> Vec<String> {
        let counts = |path: &&str| {
            let key = keys::find(path).expect("only keys of the table are stored");
            key.support == support
                && self.origins.get(*path).is_some_and(|origin| origin != BUILT_IN)
                && !self.values.get(*path).is_some_and(turns_off)
        };
        self.origins.keys().filter(|path| counts(path)).map(|path| (*path).to_owned()).collect()
    }

    /// The source that set a key, for messages.
    pub fn origin(&self, path: &str) -> Option<&str> {
        self.origins.get(path).map(String::as_str).filter(|origin| *origin != BUILT_IN)
    }

    /// Text of a key; `None` when absent.
    pub fn text(&self, path: &'static str) -> Option<&str> {
        self.get(path, &[Kind::Text]).and_then(Value::as_str)
    }

    /// Text of a key; `None` when absent or empty.
    pub fn filled(&self, path: &'static str) -> Option<&str> {
        self.text(path).filter(|text| !text.is_empty())
    }

    /// Boolean of a key.
    pub fn flag(&self, path: &'static str) -> Option<bool> {
        self.get(path, &[Kind::Bool]).and_then(Value::as_bool)
    }

    /// Whole number of a key.
    pub fn int(&self, path: &'static str) -> Option<i64> {
        self.get(path, &[Kind::Int]).and_then(|v| v.as_i64().or_else(|| v.as_f64().map(|f| f as i64)))
    }

    /// Number of a key.
    pub fn float(&self, path: &'static str) -> Option<f64> {
        self.get(path, &[Kind::Float]).and_then(Value::as_f64)
    }

    /// Nanoseconds of a key.
    pub fn nanos(&self, path: &'static str) -> Option<i64> {
        let text = self.get(path, &[Kind::Duration])?.as_str()?;
        Some(duration::parse(text).expect("checked when the source was added"))
    }

    /// Texts of a key.
    pub fn texts(&self, path: &'static str) -> Vec<String> {
        let items = self.get(path, &[Kind::Texts]).and_then(Value::as_array);
        items.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// Texts by name of a key.
    pub fn text_map(&self, path: &'static str) -> BTreeMap<String, String> {
        let pairs = self.get(path, &[Kind::TextMap, Kind::DurationMap]).and_then(Value::as_object);
        let text = |(k, v): (&String, &Value)| Some((k.clone(), v.as_str()?.to_owned()));
        pairs.into_iter().flatten().filter_map(text).collect()
    }

    /// Objects of a key.
    pub fn objects(&self, path: &'static str) -> Vec<Value> {
        self.get(path, &[Kind::Objects]).and_then(Value::as_array).cloned().unwrap_or_default()
    }

    /// The value of a key that must be in the table with one of these kinds.
    fn get(&self, path: &'static str, kinds: &[Kind]) -> Option<&Value> {
        let key = keys::find(path).expect("the configuration reads only keys of the table");
        assert!(kinds.contains(&key.kind), "{path} is read as another type than the table says");
        self.values.get(path)
    }
}

impl Faults {
    /// Files a fault of a definition under its path.
    fn definition(&mut self, path: &str, problem: &Problem) {
        let shown = match problem.key.as_str() {
            "" => path.to_owned(),
            key if key.starts_with('[') => format!("{path}{key}"),
            key => format!("{path}.{key}"),
        };
        match &problem.fault {
            Fault::Unknown => self.unknown.push(shown),
            Fault::Type { expected, found } => self
                .types
                .push(format!("'{shown}' expected type '{expected}', got unconvertible type '{found}'")),
            Fault::Value(text) => self.values.push(format!("{shown}: {text}")),
        }
    }

    /// The text for the operator, worst kind of fault first, as Consul orders them.
    fn into_result(self, origin: &str) -> Result<(), String> {
        let lines = |all: &[String], bullet: &str| {
            all.iter().map(|l| format!("{bullet}{l}")).collect::<Vec<_>>().join("\n")
        };
        if !self.types.is_empty() {
            let n = self.types.len();
            return Err(format!(
                "failed to parse {origin}: {n} error(s) decoding:\n\n{}",
                lines(&self.types, "* ")
            ));
        }
        let unknown = self.unknown.iter().map(|key| format!("invalid config key {key}"));
        let all: Vec<String> = unknown.chain(self.values).collect();
        let errors = if all.len() == 1 { "1 error" } else { &format!("{} errors", all.len()) };
        if all.is_empty() {
            return Ok(());
        }
        Err(format!("failed to parse {origin}: {errors} occurred:\n{}\n", lines(&all, "\t* ")))
    }
}

/// The blocks of a value: HCL writes one as an object and several as a list.
fn blocks(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().filter(|v| !v.is_null()).collect(),
        one => vec![one],
    }
}

/// Checks a value against its kind and brings it into the form the getters expect; `None` when it was refused.
fn typed(key: &Key, kind: Kind, value: &Value, faults: &mut Faults) -> Option<Value> {
    let mut refuse = |at: String, expected: &str, found: &Value| {
        let found = go_name_of(found);
        faults.types.push(format!("'{at}' expected type '{expected}', got unconvertible type '{found}'"));
        None
    };
    match (kind, value) {
        (Kind::Bool, Value::Bool(_)) | (Kind::Int | Kind::Float, Value::Number(_)) => Some(value.clone()),
        (Kind::Text, Value::String(_)) => Some(value.clone()),
        (Kind::Duration, Value::String(text)) => match duration::parse(text) {
            Ok(_) => Some(value.clone()),
            Err(why) => {
                faults.values.push(format!("{}: invalid duration: {text:?}: {why}", key.path));
                None
            }
        },
        (Kind::Texts, Value::Array(items)) => {
            let bad = items.iter().enumerate().find(|(_, item)| !item.is_string());
            match bad {
                Some((i, item)) => refuse(format!("{}[{i}]", key.path), "string", item),
                None => Some(value.clone()),
            }
        }
        (Kind::Texts, other) => {
            let found = go_name_of(other);
            let text = format!("'{}': source data must be an array or slice, got {found}", key.path);
            faults.types.push(text);
            None
        }
        (Kind::TextMap | Kind::DurationMap | Kind::Object, _) => object(key, kind, value, faults),
        (Kind::Objects, _) if blocks(value).iter().all(|b| b.is_object()) => {
            Some(Value::Array(blocks(value).into_iter().cloned().collect()))
        }
        _ => refuse(key.path.to_owned(), kind.go_name(), value),
    }
}

/// Checks a map and its values; several blocks of one name are merged.
fn object(key: &Key, kind: Kind, value: &Value, faults: &mut Faults) -> Option<Value> {
    let mut out = Map::new();
    for block in blocks(value) {
        let Value::Object(map) = block else {
            faults.types.push(format!("'{}' expected a map, got '{}'", key.path, go_name_of(block)));
            return None;
        };
        for (name, value) in map {
            match (kind, value) {
                (Kind::Object, _) | (Kind::TextMap, Value::String(_)) => {}
                (_, Value::Null) => continue,
                (Kind::DurationMap, Value::String(text)) => {
                    if let Err(why) = duration::parse(text) {
                        let text = format!("{}[{name:?}]: invalid duration: {text:?}: {why}", key.path);
                        faults.values.push(text);
                    }
                }
                (_, other) => {
                    let found = go_name_of(other);
                    faults.types.push(format!(
                        "'{}[{name}]' expected type 'string', got unconvertible type '{found}'",
                        key.path
                    ));
                }
            }
            out.insert(name.clone(), value.clone());
        }
    }
    Some(Value::Object(out))
}

/// Whether a value is the "off" of its type.
fn turns_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(n) => n.as_f64().is_some_and(|f| f <= 0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Go's name of a decoded JSON value's type.
fn go_name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

/// JSON's name of a value's type.
fn json_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
