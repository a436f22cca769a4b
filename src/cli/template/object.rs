//! Blocks of a configuration file, read setting by setting: what nobody has read in the end is a mistake.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::config::duration;
use crate::runtime::signal;

/// One block.
pub struct Object<'v> {
    /// Where it stands, for errors.
    name: String,
    entries: Vec<(&'v str, &'v Value)>,
    read: BTreeSet<&'v str>,
}

impl<'v> Object<'v> {
    /// The settings of a block; of several blocks of one name, all together.
    pub fn new(name: impl Into<String>, value: &'v Value) -> Result<Object<'v>, String> {
        let name = name.into();
        let mut entries = Vec::new();
        let blocks = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for block in blocks {
            let block = block.as_object().ok_or_else(|| format!("{name} is a block, in braces"))?;
            entries.extend(block.iter().map(|(key, value)| (key.as_str(), value)));
        }
        Ok(Object { name, entries, read: BTreeSet::new() })
    }

    /// A setting as it is written; the last one counts.
    pub fn value(&mut self, key: &'static str) -> Option<&'v Value> {
        self.read.insert(key);
        self.entries.iter().rev().find(|(name, _)| *name == key).map(|(_, value)| *value)
    }

    /// Text.
    pub fn text(&mut self, key: &'static str) -> Result<Option<String>, String> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(self.odd(key, "text")),
        }
    }

    /// True or false.
    pub fn bool(&mut self, key: &'static str) -> Result<Option<bool>, String> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(Value::String(text)) if text == "true" => Ok(Some(true)),
            Some(Value::String(text)) if text == "false" => Ok(Some(false)),
            Some(_) => Err(self.odd(key, "true or false")),
        }
    }

    /// A whole number.
    pub fn int(&mut self, key: &'static str) -> Result<Option<i64>, String> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => {
                let text = value.as_str().and_then(|text| text.parse().ok());
                value.as_i64().or(text).map(Some).ok_or_else(|| self.odd(key, "a whole number"))
            }
        }
    }

    /// A length of time.
    pub fn duration(&mut self, key: &'static str) -> Result<Option<Duration>, String> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        length(&text).map(Some).map_err(|why| format!("{}.{key}: {why}", self.name))
    }

    /// A signal; an empty name is none.
    pub fn signal(&mut self, key: &'static str) -> Result<Option<Option<i32>>, String> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        named_signal(&text).map(Some).map_err(|why| format!("{}.{key}: {why}", self.name))
    }

    /// A list of text; one text is a list of one.
    pub fn texts(&mut self, key: &'static str) -> Result<Option<Vec<String>>, String> {
        let items = match self.value(key) {
            None => return Ok(None),
            Some(Value::Array(items)) => items.as_slice(),
            Some(value) => std::slice::from_ref(value),
        };
        let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
        let texts: Option<Vec<String>> = texts.collect();
        texts.map(Some).ok_or_else(|| self.odd(key, "a list of text"))
    }

    /// A block within it.
    pub fn object(&mut self, key: &'static str) -> Result<Option<Object<'v>>, String> {
        let blocks: Vec<&'v Value> = {
            self.read.insert(key);
            self.entries.iter().filter(|(name, _)| *name == key).map(|(_, value)| *value).collect()
        };
        let mut out: Option<Object<'v>> = None;
        for block in blocks {
            let inner = Object::new(format!("{}.{key}", self.name), block)?;
            match &mut out {
                None => out = Some(inner),
                Some(out) => out.entries.extend(inner.entries),
            }
        }
        Ok(out)
    }

    /// All blocks of a name, each for itself.
    pub fn objects(&mut self, key: &'static str) -> Result<Vec<Object<'v>>, String> {
        self.read.insert(key);
        let values = self.entries.iter().filter(|(name, _)| *name == key).map(|(_, value)| *value);
        let blocks =
            values.flat_map(|value| value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice));
        blocks.map(|block| Object::new(key, block)).collect()
    }

    /// Refuses what was not read.
    pub fn finish(self) -> Result<(), String> {
        let odd: BTreeSet<&str> =
            self.entries.iter().map(|(name, _)| *name).filter(|name| !self.read.contains(name)).collect();
        if odd.is_empty() {
            return Ok(());
        }
        let odd: Vec<&str> = odd.into_iter().collect();
        Err(format!("{} has invalid keys: {}", self.name, odd.join(", ")))
    }

    fn odd(&self, key: &str, wanted: &str) -> String {
        format!("{}.{key} is {wanted}", self.name)
    }
}

/// A length of time that is not below zero.
pub fn length(text: &str) -> Result<Duration, String> {
    let ns = duration::parse(text)?;
    u64::try_from(ns).map(Duration::from_nanos).map_err(|_| format!("{text:?} is below zero"))
}

/// A signal by its name; an empty name is none.
pub fn named_signal(text: &str) -> Result<Option<i32>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    signal::number(text).map(Some).ok_or_else(|| format!("invalid signal {text:?}"))
}
