//! The functions that Go's templates have of themselves.

use std::cmp::Ordering;

use super::super::{format, quote};
use super::{Call, Function, Outcome, Param, fixed, light, open};
use crate::template::value::{Keys, Value};

/// All of them but `and` and `or`, which decide themselves what they evaluate.
pub const ALL: &[Function] = &[
    light(fixed("not", &[Param::Any], |call| Ok(Value::Bool(!call.is(0))))),
    light(fixed("len", &[Param::Any], len)),
    light(open("index", &[Param::Any], Param::Any, index)),
    light(open("slice", &[Param::Any], Param::Any, slice)),
    open("print", &[], Param::Any, |call| printed(call, false)),
    open("println", &[], Param::Any, println),
    open("printf", &[Param::Text], Param::Any, printf),
    open("html", &[], Param::Any, html),
    open("js", &[], Param::Any, js),
    open("urlquery", &[], Param::Any, urlquery),
    open("call", &[Param::Any], Param::Any, call),
    open("eq", &[Param::Any], Param::Any, eq),
    fixed("ne", &[Param::Any, Param::Any], |call| Ok(Value::Bool(!equal(&call.args[0], &call.args[1])?))),
    fixed("lt", &[Param::Any, Param::Any], |call| compared(call, Ordering::is_lt)),
    fixed("le", &[Param::Any, Param::Any], |call| compared(call, Ordering::is_le)),
    fixed("gt", &[Param::Any, Param::Any], |call| compared(call, Ordering::is_gt)),
    fixed("ge", &[Param::Any, Param::Any], |call| compared(call, Ordering::is_ge)),
];

fn len(call: &mut Call<'_, '_, '_>) -> Outcome {
    let length = match &call.args[0] {
        Value::Text(text) => text.len(),
        Value::List(list) => list.items.len(),
        Value::Map(map) => map.items.borrow().len(),
        Value::Nil => return Err("len of nil pointer".to_owned()),
        // Nobody has sent anything into the channel that Go would have here.
        Value::Counter(..) => 0,
        other => return Err(format!("len of type {}", other.type_name())),
    };
    Ok(Value::Int(length as i64))
}

fn index(call: &mut Call<'_, '_, '_>) -> Outcome {
    let mut item = call.args[0].clone();
    if matches!(item, Value::Nil) {
        return Err("index of untyped nil".to_owned());
    }
    for index in &call.args[1..] {
        item = match &item {
            Value::List(list) => {
                let at = position(index, list.items.len())?;
                let found = list.items.get(at);
                found.cloned().ok_or_else(|| format!("index out of range: {at}"))?
            }
            Value::Text(text) => {
                let at = position(index, text.len())?;
                let byte = text.as_bytes().get(at);
                byte.map(|b| Value::Int(i64::from(*b))).ok_or_else(|| format!("index out of range: {at}"))?
            }
            Value::Map(map) => {
                let fits = matches!(
                    (map.keys, index),
                    (Keys::Text, Value::Text(_))
                        | (Keys::Int, Value::Int(_) | Value::Uint(_))
                        | (Keys::Any, _)
                );
                let key = index.as_key().filter(|_| fits).ok_or_else(|| match index {
                    Value::Nil => format!("value is nil; should be of type {}", key_type(map.keys)),
                    _ => format!("value has type {}; should be {}", index.type_name(), key_type(map.keys)),
                })?;
                map.items.borrow().get(&key).cloned().unwrap_or_else(|| map.elem.zero())
            }
            Value::Nil => return Err("index of nil pointer".to_owned()),
            other => return Err(format!("can't index item of type {}", other.type_name())),
        };
    }
    Ok(item)
}

fn key_type(keys: Keys) -> &'static str {
    match keys {
        Keys::Text => "string",
        Keys::Int => "int",
        Keys::Any => "interface {}",
    }
}

/// An index within so many; the length itself is for slices.
fn position(index: &Value, length: usize) -> Result<usize, String> {
    let number = match index {
        Value::Int(_) | Value::Uint(_) => index.as_int().unwrap_or(i64::MAX),
        Value::Nil => return Err("cannot index slice/array with nil".to_owned()),
        other => return Err(format!("cannot index slice/array with type {}", other.type_name())),
    };
    let at = usize::try_from(number).ok().filter(|at| *at <= length);
    at.ok_or_else(|| format!("index out of range: {number}"))
}

fn slice(call: &mut Call<'_, '_, '_>) -> Outcome {
    let (item, indexes) = (&call.args[0], &call.args[1..]);
    let length = match item {
        Value::Nil => return Err("slice of untyped nil".to_owned()),
        Value::Text(_) if indexes.len() == 3 => return Err("cannot 3-index slice a string".to_owned()),
        Value::Text(text) => text.len(),
        Value::List(list) => list.items.len(),
        other => return Err(format!("can't slice item of type {}", other.type_name())),
    };
    if indexes.len() > 3 {
        return Err(format!("too many slice indexes: {}", indexes.len()));
    }
    let mut bounds = [0, length, length];
    for (bound, index) in bounds.iter_mut().zip(indexes) {
        *bound = position(index, length)?;
    }
    let [from, to, cap] = bounds;
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    if indexes.len() == 3 && to > cap {
        return Err(format!("invalid slice index: {to} > {cap}"));
    }
    Ok(match item {
        Value::Text(text) => Value::text(&text.as_bytes()[from..to]),
        Value::List(list) => Value::list_of(list.elem, list.items[from..to].to_vec()),
        other => other.clone(),
    })
}

/// The text of all arguments.
fn all(call: &Call<'_, '_, '_>, indirect: bool) -> Result<Vec<u8>, String> {
    let mut sink = call.run.sink();
    format::sprint(&mut sink, call.args, indirect);
    sink.finish()
}

fn printed(call: &mut Call<'_, '_, '_>, indirect: bool) -> Outcome {
    all(call, indirect).map(Value::text)
}

fn println(call: &mut Call<'_, '_, '_>) -> Outcome {
    let mut sink = call.run.sink();
    format::sprintln(&mut sink, call.args);
    sink.finish().map(Value::text)
}

fn printf(call: &mut Call<'_, '_, '_>) -> Outcome {
    let mut sink = call.run.sink();
    format::sprintf(&mut sink, call.text(0).as_bytes(), &call.args[1..]);
    sink.finish().map(Value::text)
}

fn html(call: &mut Call<'_, '_, '_>) -> Outcome {
    let text = all(call, true)?;
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"&#34;"),
            b'\'' => out.extend_from_slice(b"&#39;"),
            b'&' => out.extend_from_slice(b"&amp;"),
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            0 => out.extend_from_slice("\u{fffd}".as_bytes()),
            byte => out.push(byte),
        }
    }
    Ok(Value::text(out))
}

fn js(call: &mut Call<'_, '_, '_>) -> Outcome {
    let text = all(call, true)?;
    let mut out = String::with_capacity(text.len());
    for char in String::from_utf8_lossy(&text).chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", u32::from(char))),
            c if c < ' ' || !c.is_ascii() && !quote::is_printable(c) => {
                out.push_str(&format!("\\u{:04X}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    Ok(Value::text(out))
}

fn urlquery(call: &mut Call<'_, '_, '_>) -> Outcome {
    let text = all(call, true)?;
    Ok(Value::text(query_escaped(&text)))
}

/// Text as a part of a URL's query.
pub fn query_escaped(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(*byte));
            }
            b' ' => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// No value is a function.
fn call(call: &mut Call<'_, '_, '_>) -> Outcome {
    match &call.args[0] {
        Value::Nil => Err("call of nil".to_owned()),
        other => Err(format!("non-function of type {}", other.type_name())),
    }
}

fn eq(call: &mut Call<'_, '_, '_>) -> Outcome {
    let (first, others) = (&call.args[0], &call.args[1..]);
    if others.is_empty() {
        return Err("missing argument for comparison".to_owned());
    }
    for other in others {
        if equal(first, other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

/// Whether two plain values are the same. Values of different types cannot be compared, but numbers with and without a
/// sign can.
pub fn equal(a: &Value, b: &Value) -> Result<bool, String> {
    Ok(match (a, b) {
        (Value::Nil, _) | (_, Value::Nil) => matches!((a, b), (Value::Nil, Value::Nil)),
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Float(a), Value::Float(b)) => a == b,
        (Value::Text(a), Value::Text(b)) => a == b,
        (Value::Int(_) | Value::Uint(_), Value::Int(_) | Value::Uint(_)) => wide(a) == wide(b),
        (Value::Struct(a), Value::Struct(b)) if a.kind.is_pointer => std::rc::Rc::ptr_eq(a, b),
        (Value::List(_) | Value::Map(_), Value::List(_) | Value::Map(_)) => {
            return Err(format!("non-comparable type {}", a.type_name()));
        }
        _ => return Err("incompatible types for comparison".to_owned()),
    })
}

/// A whole number of either kind.
fn wide(value: &Value) -> i128 {
    match value {
        Value::Int(number) => i128::from(*number),
        Value::Uint(number) => i128::from(*number),
        _ => 0,
    }
}

fn compared(call: &mut Call<'_, '_, '_>, test: fn(Ordering) -> bool) -> Outcome {
    let ordering = match (&call.args[0], &call.args[1]) {
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        (a @ (Value::Int(_) | Value::Uint(_)), b @ (Value::Int(_) | Value::Uint(_))) => {
            Some(wide(a).cmp(&wide(b)))
        }
        (
            Value::Float(_) | Value::Text(_) | Value::Int(_) | Value::Uint(_),
            Value::Float(_) | Value::Text(_) | Value::Int(_) | Value::Uint(_),
        ) => return Err("incompatible types for comparison".to_owned()),
        _ => return Err("invalid type for comparison".to_owned()),
    };
    Ok(Value::Bool(ordering.is_some_and(test)))
}
