//! Functions about lists and maps, and the scratchpad.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Call, Function, Outcome, Param, fixed, open};
use crate::template::value::{Key, Keys, Kind, Map, Text, Value};

/// All of them.
pub const ALL: &[Function] = &[
    fixed("scratch", &[], |call| Ok(Value::Scratch(Rc::clone(&call.run.scratch)))),
    fixed("in", &[Param::Any, Param::Any], |call| Ok(Value::Bool(contains(&call.args[0], &call.args[1])))),
    fixed("contains", &[Param::Any, Param::Any], |call| {
        Ok(Value::Bool(contains(&call.args[1], &call.args[0])))
    }),
    fixed("containsAll", &[Param::List, Param::Any], |call| {
        Ok(Value::Bool(call.list(0).iter().all(|item| contains(&call.args[1], item))))
    }),
    fixed("containsAny", &[Param::List, Param::Any], |call| {
        Ok(Value::Bool(call.list(0).iter().any(|item| contains(&call.args[1], item))))
    }),
    fixed("containsNone", &[Param::List, Param::Any], |call| {
        Ok(Value::Bool(!call.list(0).iter().any(|item| contains(&call.args[1], item))))
    }),
    fixed("containsNotAll", &[Param::List, Param::Any], |call| {
        Ok(Value::Bool(!call.list(0).iter().all(|item| contains(&call.args[1], item))))
    }),
    open("loop", &[Param::Any], Param::Any, counted),
    fixed("mergeMap", &[Param::Map, Param::Map], |call| {
        merged(call.map(0)?, call.map(1)?, false, 0, &mut 0).map(Value::map)
    }),
    fixed("mergeMapWithOverride", &[Param::Map, Param::Map], |call| {
        merged(call.map(0)?, call.map(1)?, true, 0, &mut 0).map(Value::map)
    }),
];

/// The methods of lists: those of tags.
pub const LIST: &[Function] =
    &[fixed("Contains", &[Param::Text], |call| Ok(Value::Bool(contains(&call.args[0], &call.args[1]))))];

/// The methods of the scratchpad, which is their first argument.
pub const SCRATCH: &[Function] = &[
    fixed("Key", &[Param::Text], |call| {
        Ok(Value::Bool(call.run.scratch.borrow().contains_key(&call.text(1))))
    }),
    fixed("Get", &[Param::Text], |call| {
        Ok(call.run.scratch.borrow().get(&call.text(1)).cloned().unwrap_or_default())
    }),
    fixed("Set", &[Param::Text, Param::Any], |call| {
        call.run.scratch.borrow_mut().insert(call.text(1), call.args[2].clone());
        Ok(Value::text(""))
    }),
    fixed("SetX", &[Param::Text, Param::Any], |call| {
        call.run.scratch.borrow_mut().entry(call.text(1)).or_insert_with(|| call.args[2].clone());
        Ok(Value::text(""))
    }),
    fixed("MapSet", &[Param::Text, Param::Text, Param::Any], |call| map_set(call, true)),
    fixed("MapSetX", &[Param::Text, Param::Text, Param::Any], |call| map_set(call, false)),
    fixed("MapValues", &[Param::Text], |call| {
        Ok(match call.run.scratch.borrow().get(&call.text(1)) {
            Some(Value::Map(map)) => Value::list(map.items.borrow().values().cloned().collect()),
            _ => Value::Nil,
        })
    }),
];

/// Sets an entry of a map in the scratchpad.
fn map_set(call: &mut Call<'_, '_, '_>, overwrites: bool) -> Outcome {
    let (name, key, value) = (call.text(1), Key::Text(call.text(2)), call.args[3].clone());
    let mut scratch = call.run.scratch.borrow_mut();
    let map = scratch.entry(name.clone()).or_insert_with(|| Value::map(BTreeMap::new()));
    match map {
        Value::Map(map) if map.elem == Kind::Any => {
            if overwrites || !map.items.borrow().contains_key(&key) {
                put(map, key, value)?;
            }
            Ok(Value::text(""))
        }
        _ => Err(format!("{:?} is not a map", name.lossy())),
    }
}

/// Sets an entry of a map that a template made. A map within itself would have no end.
pub fn put(map: &Rc<Map>, key: Key, value: Value) -> Result<(), String> {
    if map.elem != Kind::Any || map.keys != Keys::Text {
        return Err(format!(
            "wrong type for value; expected map[string]interface {{}}; got {}",
            Value::Map(Rc::clone(map)).type_name()
        ));
    }
    if holds(&value, map, 0, &mut 0) {
        return Err("a map cannot hold itself".to_owned());
    }
    map.items.borrow_mut().insert(key, value);
    Ok(())
}

/// Values that one look passes: what is shared counts as often as it is met.
pub const WALK_MAX: usize = 1_000_000;
/// Deepest nesting that is looked through.
const NESTING_MAX: usize = 30;

/// Whether a value holds a map. What is nested deeper than can be looked through counts as if it did.
fn holds(value: &Value, map: &Rc<Map>, depth: usize, seen: &mut usize) -> bool {
    *seen += 1;
    let is_far = depth > NESTING_MAX || *seen > WALK_MAX;
    let inside = |value: &Value| holds(value, map, depth + 1, seen);
    match value {
        _ if is_far => true,
        Value::Map(other) => Rc::ptr_eq(other, map) || other.items.borrow().values().any(inside),
        Value::List(list) => list.items.iter().any(inside),
        _ => false,
    }
}

/// Whether a list has an element, or a text a part.
fn contains(all: &Value, wanted: &Value) -> bool {
    match (all, wanted) {
        (Value::List(list), _) => list.items.iter().any(|item| match (item, wanted) {
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::Float(a), Value::Float(b)) => a == b,
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::Uint(a), Value::Uint(b)) => a == b,
            _ => false,
        }),
        (Value::Text(text), Value::Text(part)) => has_part(text, part),
        _ => false,
    }
}

fn has_part(text: &Text, part: &Text) -> bool {
    match (std::str::from_utf8(text.as_bytes()), std::str::from_utf8(part.as_bytes())) {
        (Ok(text), Ok(part)) => text.contains(part),
        _ => part.is_empty() || text.as_bytes().windows(part.len()).any(|window| window == part.as_bytes()),
    }
}

fn counted(call: &mut Call<'_, '_, '_>) -> Outcome {
    let number = |value: &Value| match value {
        Value::Int(_) | Value::Uint(_) => value.as_int().ok_or_else(|| "loop: number too large".to_owned()),
        Value::Text(text) if text.is_empty() => Ok(0),
        Value::Text(text) => {
            text.lossy().parse::<i64>().map_err(|_| format!("loop: {:?} is not a number", text.lossy()))
        }
        other => Err(format!("loop: bad argument type: {}", other.type_name())),
    };
    match call.args {
        [to] => Ok(Value::Counter(0, number(to)?)),
        [from, to] => Ok(Value::Counter(number(from)?, number(to)?)),
        _ => {
            let count = call.args.len();
            Err(format!("loop: wrong number of arguments, expected 1 or 2, but got {count}"))
        }
    }
}

/// Entries of two maps; maps in both are merged, too. Else the first wins, or the second if it overrides.
pub fn merged(
    first: &Map,
    second: &Map,
    overrides: bool,
    depth: usize,
    seen: &mut usize,
) -> Result<BTreeMap<Key, Value>, String> {
    *seen = seen.saturating_add(1 + first.items.borrow().len() + second.items.borrow().len());
    if depth > NESTING_MAX || *seen > WALK_MAX {
        return Err("the maps are nested too deeply".to_owned());
    }
    let mut out = first.items.borrow().clone();
    for (key, value) in second.items.borrow().iter() {
        let merged = match (out.get(key), value) {
            (Some(Value::Map(old)), Value::Map(new)) => {
                Value::map_of(old.elem, old.keys, merged(old, new, overrides, depth + 1, seen)?)
            }
            // What is empty counts as not there.
            (Some(old), _) if old.truth() && !(overrides && value.truth()) => continue,
            _ => value.clone(),
        };
        out.insert(key.clone(), merged);
    }
    Ok(out)
}
