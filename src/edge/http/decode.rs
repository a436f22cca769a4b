//! Request bodies read as Go's `encoding/json` does for Consul: names of fields without regard to letter case,
//! unknown fields refused, values of the wrong type refused, the first complaint in the order of the body, and in
//! Go's words.

use base64::engine::general_purpose::STANDARD;
use base64::{DecodeError, Engine as _};
use serde_json::Value;

use crate::config::{duration, gojson};
use crate::store::model::StringMap;

/// A value and where it stands.
pub struct Spot<'v> {
    value: &'v Value,
    /// Go's name of the object that holds it; empty for the whole body.
    owner: &'static str,
    /// Names of fields from the top, with dots.
    path: String,
}

/// The first JSON value of a body; what follows it is ignored.
///
/// # Errors
/// Go's text for what is not JSON.
pub fn body(bytes: &[u8]) -> Result<Value, String> {
    gojson::first_value(bytes)
}

impl<'v> Spot<'v> {
    /// The whole body.
    pub fn top(value: &'v Value) -> Spot<'v> {
        Spot { value, owner: "", path: String::new() }
    }

    /// Whether the value is `null`, which leaves its field unset.
    pub fn is_null(&self) -> bool {
        self.value.is_null()
    }

    /// The fields of an object of Go's type `owner`, each under its proper name. `null` has none.
    ///
    /// # Errors
    /// When it is not an object; while walking, when a field is not in `names`.
    pub fn fields<'s>(
        &'s self,
        owner: &'static str,
        names: &'s [&'static str],
    ) -> Result<impl Iterator<Item = Result<(&'static str, Spot<'v>), String>> + 's, String> {
        let object = match self.value {
            Value::Null => None,
            Value::Object(object) => Some(object),
            _ => return Err(self.mismatch(&format!("structs.{owner}"))),
        };
        Ok(object.into_iter().flatten().map(move |(given, value)| {
            let name =
                names.iter().find(|name| name.eq_ignore_ascii_case(given)).ok_or_else(|| unknown(given))?;
            let path =
                if self.path.is_empty() { (*name).to_owned() } else { format!("{}.{name}", self.path) };
            Ok((*name, Spot { value, owner, path }))
        }))
    }

    /// Those of `names` that an object has, for the few bodies in which Consul passes over other fields. The type of the whole
    /// is for the complaint about what is no object.
    ///
    /// # Errors
    /// When it is not an object.
    pub fn known_fields(
        &self,
        go_type: &str,
        owner: &'static str,
        names: &[&'static str],
    ) -> Result<Vec<(&'static str, Spot<'v>)>, String> {
        let object = match self.value {
            Value::Null => return Ok(Vec::new()),
            Value::Object(object) => object,
            _ => return Err(self.mismatch(go_type)),
        };
        let known = object.iter().filter_map(|(given, value)| {
            let name = names.iter().find(|name| name.eq_ignore_ascii_case(given))?;
            let path =
                if self.path.is_empty() { (*name).to_owned() } else { format!("{}.{name}", self.path) };
            Some((*name, Spot { value, owner, path }))
        });
        Ok(known.collect())
    }

    /// The items of an array. `null` has none.
    ///
    /// # Errors
    /// When it is not an array.
    pub fn items(&self, go_type: &str) -> Result<Vec<Spot<'v>>, String> {
        match self.value {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) => Ok(items.iter().map(|value| self.inside(value)).collect()),
            _ => Err(self.mismatch(go_type)),
        }
    }

    /// The values of a map. `null` is no map.
    ///
    /// # Errors
    /// When it is not an object.
    pub fn entries(&self, go_type: &str) -> Result<Option<Vec<(&'v str, Spot<'v>)>>, String> {
        match self.value {
            Value::Null => Ok(None),
            Value::Object(map) => {
                Ok(Some(map.iter().map(|(key, value)| (key.as_str(), self.inside(value))).collect()))
            }
            _ => Err(self.mismatch(go_type)),
        }
    }

    /// Text; empty for `null`.
    ///
    /// # Errors
    /// When it is not text.
    pub fn text(&self) -> Result<String, String> {
        match self.value {
            Value::Null => Ok(String::new()),
            Value::String(text) => Ok(text.clone()),
            _ => Err(self.mismatch("string")),
        }
    }

    /// Octets in base64; none for `null`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn octets(&self) -> Result<Vec<u8>, String> {
        let Value::String(text) = self.value else {
            return if self.is_null() { Ok(Vec::new()) } else { Err(self.mismatch("[]uint8")) };
        };
        STANDARD.decode(text).map_err(|why| {
            let at = match why {
                DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
                // Go names the beginning of the group that is not whole.
                DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => text.len() / 4 * 4,
            };
            format!("illegal base64 data at input byte {at}")
        })
    }

    /// A list of texts.
    ///
    /// # Errors
    /// When it is not one.
    pub fn texts(&self) -> Result<Vec<String>, String> {
        self.items("[]string")?.iter().map(Spot::text).collect()
    }

    /// A map from text to text; `null` is no map.
    ///
    /// # Errors
    /// When it is not one.
    pub fn text_map(&self) -> Result<Option<StringMap>, String> {
        let Some(entries) = self.entries("map[string]string")? else { return Ok(None) };
        entries
            .into_iter()
            .map(|(key, spot)| Ok((key.to_owned(), spot.text()?)))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// True or false; false for `null`.
    ///
    /// # Errors
    /// When it is neither.
    pub fn flag(&self) -> Result<bool, String> {
        match self.value {
            Value::Null => Ok(false),
            Value::Bool(flag) => Ok(*flag),
            _ => Err(self.mismatch("bool")),
        }
    }

    /// A whole number; 0 for `null`.
    ///
    /// # Errors
    /// When it is not one that 64 bits hold.
    pub fn number(&self) -> Result<i64, String> {
        match self.value {
            Value::Null => Ok(0),
            Value::Number(number) => {
                number.as_i64().ok_or_else(|| self.mismatch_of(&format!("number {number}"), "int"))
            }
            _ => Err(self.mismatch("int")),
        }
    }

    /// A whole number that is not negative, of Go's type `uint64` or such; 0 for `null`.
    ///
    /// # Errors
    /// When it is not one that 64 bits hold.
    pub fn unsigned(&self, go_type: &str) -> Result<u64, String> {
        match self.value {
            Value::Null => Ok(0),
            Value::Number(number) => {
                number.as_u64().ok_or_else(|| self.mismatch_of(&format!("number {number}"), go_type))
            }
            _ => Err(self.mismatch(go_type)),
        }
    }

    /// A length of time in nanoseconds as Consul's API client reads it (`ReadableDuration`): Go's text, or a number of
    /// nanoseconds; 0 for `null`.
    ///
    /// # Errors
    /// When it is neither.
    pub fn readable_duration(&self) -> Result<i64, String> {
        match self.value {
            Value::Null => Ok(0),
            Value::String(text) => duration::parse(text),
            Value::Number(number) => Ok(number.as_f64().unwrap_or_default() as i64),
            other => {
                let text = super::filter::quote::quoted(&other.to_string());
                Err(format!("strconv.ParseFloat: parsing {text}: invalid syntax"))
            }
        }
    }

    /// A length of time in nanoseconds as Consul reads those that it takes in several forms: Go's text, or a number; 0 for
    /// anything else.
    ///
    /// # Errors
    /// When it is text of another kind.
    pub fn lenient_duration(&self) -> Result<i64, String> {
        match self.value {
            Value::String(text) => duration::parse(text),
            Value::Number(number) => Ok(number.as_f64().unwrap_or_default() as i64),
            _ => Ok(0),
        }
    }

    /// A length of time in nanoseconds: Go's text (`10s`), or a number of nanoseconds.
    ///
    /// # Errors
    /// When it is neither.
    pub fn duration(&self) -> Result<i64, String> {
        match self.value {
            Value::String(text) if text.is_empty() => Ok(0),
            Value::String(text) => duration::parse(text),
            _ => self.number(),
        }
    }

    fn inside(&self, value: &'v Value) -> Spot<'v> {
        Spot { value, owner: self.owner, path: self.path.clone() }
    }

    /// The complaint about a value that does not fit Go's type.
    pub fn mismatch(&self, go_type: &str) -> String {
        let found = match self.value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        self.mismatch_of(found, go_type)
    }

    fn mismatch_of(&self, found: &str, go_type: &str) -> String {
        match self.owner {
            "" if self.path.is_empty() => {
                format!("json: cannot unmarshal {found} into Go value of type {go_type}")
            }
            owner => format!(
                "json: cannot unmarshal {found} into Go struct field {owner}.{} of type {go_type}",
                self.path
            ),
        }
    }
}

fn unknown(given: &str) -> String {
    let hint = match given {
        "Namespace" => " - Namespaces are a Consul Enterprise feature",
        _ => "",
    };
    format!("json: unknown field {}{hint}", super::filter::quote::quoted(given))
}
