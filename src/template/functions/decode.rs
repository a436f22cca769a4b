//! Functions from and to JSON, YAML and TOML.

use super::json::{self, Style};
use super::{Call, Function, Outcome, Param, fixed, toml, yaml};
use crate::template::value::{Key, Value};

/// All of them.
pub const ALL: &[Function] = &[
    fixed("parseJSON", &[Param::Text], |call| from_json(call, &call.str(0))),
    fixed("parseYAML", &[Param::Text], |call| {
        let text = call.str(0);
        if text.is_empty() {
            return from_json(call, "");
        }
        affords_values(call, &text, b"[{,:-?\n")?;
        yaml::parse(&text)
    }),
    fixed("toJSON", &[Param::Any], |call| to_json(call, true, false)),
    fixed("toJSONPretty", &[Param::Any], |call| to_json(call, true, true)),
    fixed("toUnescapedJSON", &[Param::Any], |call| to_json(call, false, false)),
    fixed("toUnescapedJSONPretty", &[Param::Any], |call| to_json(call, false, true)),
    fixed("toYAML", &[Param::Any], |call| {
        let mut out = call.run.sink();
        yaml::write(&mut out, &call.args[0]).map_err(|why| format!("toYAML: {why}"))?;
        Ok(Value::text(out.finish()?.trim_ascii()))
    }),
    fixed("toTOML", &[Param::Any], |call| {
        let mut out = call.run.sink();
        toml::write(&mut out, &call.args[0]).map_err(|why| format!("toTOML: {why}"))?;
        Ok(Value::text(out.finish()?.trim_ascii()))
    }),
];

/// What a value takes at most while a text is read, beside its own bytes: once as the reader has it, once as ours.
const VALUE_BYTES: usize = 96;

/// Refuses a text that holds more values than there is memory for: each has one of these marks to itself.
fn affords_values(call: &Call<'_, '_, '_>, text: &str, marks: &[u8]) -> Result<(), String> {
    let marks = text.bytes().filter(|byte| marks.contains(byte));
    call.run.affords(marks.count().saturating_mul(VALUE_BYTES))
}

/// JSON as a value; numbers are floating-point numbers, as in Go.
pub fn from_json(call: &Call<'_, '_, '_>, text: &str) -> Outcome {
    if text.is_empty() {
        return Ok(Value::map(Default::default()));
    }
    affords_values(call, text, b"[{,:")?;
    let json: serde_json::Value = serde_json::from_str(text).map_err(|why| format!("invalid JSON: {why}"))?;
    Ok(value_of(&json))
}

fn value_of(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(value) => Value::Bool(*value),
        serde_json::Value::Number(number) => Value::Float(number.as_f64().unwrap_or(0.0)),
        serde_json::Value::String(text) => Value::text(text.as_str()),
        serde_json::Value::Array(items) => Value::list(items.iter().map(value_of).collect()),
        serde_json::Value::Object(entries) => Value::map(
            entries.iter().map(|(key, value)| (Key::from(key.as_str()), value_of(value))).collect(),
        ),
    }
}

/// A value as JSON.
pub fn to_json(call: &Call<'_, '_, '_>, escapes_html: bool, is_pretty: bool) -> Outcome {
    let mut out = call.run.sink();
    json::write(&mut out, &call.args[0], Style { escapes_html, is_pretty })
        .map_err(|why| format!("toJSON: {why}"))?;
    out.finish().map(Value::text)
}
