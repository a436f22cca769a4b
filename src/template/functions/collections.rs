//! Functions about lists and maps, and the scratchpad.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Call, Function, Outcome, Param, fixed, light, open};
use crate::template::run::Run;
use crate::template::value::{ENTRY_BYTES, Key, Keys, Kind, Map, Text, Value};

/// All of them.
pub const ALL: &[Function] = &[
    fixed("scratch", &[], |call| Ok(Value::Scratch(Rc::clone(&call.run.scratch)))),
    fixed("in", &[Param::Any, Param::Any], |call| holds_value(call, 0, 1)),
    fixed("contains", &[Param::Any, Param::Any], |call| holds_value(call, 1, 0)),
    fixed("containsAll", &[Param::List, Param::Any], |call| meets(call, false).map(|odd| Value::Bool(!odd))),
    fixed("containsAny", &[Param::List, Param::Any], |call| meets(call, true).map(Value::Bool)),
    fixed("containsNone", &[Param::List, Param::Any], |call| meets(call, true).map(|any| Value::Bool(!any))),
    fixed("containsNotAll", &[Param::List, Param::Any], |call| meets(call, false).map(Value::Bool)),
    open("loop", &[Param::Any], Param::Any, counted),
    fixed("mergeMap", &[Param::Map, Param::Map], |call| {
        merged(call.map(0)?, call.map(1)?, false, 0, &mut 0).map(Value::map)
    }),
    fixed("mergeMapWithOverride", &[Param::Map, Param::Map], |call| {
        merged(call.map(0)?, call.map(1)?, true, 0, &mut 0).map(Value::map)
    }),
];

/// The methods of lists: those of tags.
pub const LIST: &[Function] = &[fixed("Contains", &[Param::Text], |call| holds_value(call, 0, 1))];

/// The methods of the scratchpad, which is their first argument.
pub const SCRATCH: &[Function] = &[
    fixed("Key", &[Param::Text], |call| {
        Ok(Value::Bool(call.run.scratch.borrow().contains_key(&call.text(1))))
    }),
    fixed("Get", &[Param::Text], |call| {
        Ok(call.run.scratch.borrow().get(&call.text(1)).cloned().unwrap_or_default())
    }),
    light(fixed("Set", &[Param::Text, Param::Any], |call| {
        call.run.make(ENTRY_BYTES)?;
        call.run.scratch.borrow_mut().insert(call.text(1), call.args[2].clone());
        Ok(Value::text(""))
    })),
    light(fixed("SetX", &[Param::Text, Param::Any], |call| {
        call.run.make(ENTRY_BYTES)?;
        call.run.scratch.borrow_mut().entry(call.text(1)).or_insert_with(|| call.args[2].clone());
        Ok(Value::text(""))
    })),
    light(fixed("MapSet", &[Param::Text, Param::Text, Param::Any], |call| map_set(call, true))),
    light(fixed("MapSetX", &[Param::Text, Param::Text, Param::Any], |call| map_set(call, false))),
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
    call.run.make(ENTRY_BYTES)?;
    let scratch = Rc::clone(&call.run.scratch);
    let mut scratch = scratch.borrow_mut();
    let map = scratch.entry(name.clone()).or_insert_with(|| Value::map(BTreeMap::new()));
    match map {
        Value::Map(map) if map.elem == Kind::Any => {
            if overwrites || !map.items.borrow().contains_key(&key) {
                put(call.run, map, key, value)?;
            }
            Ok(Value::text(""))
        }
        _ => Err(format!("{:?} is not a map", name.lossy())),
    }
}

/// Sets an entry of a map that a template made. A map within itself would have no end.
pub fn put(run: &mut Run<'_>, map: &Rc<Map>, key: Key, value: Value) -> Result<(), String> {
    if map.elem != Kind::Any || map.keys != Keys::Text {
        return Err(format!(
            "wrong type for value; expected map[string]interface {{}}; got {}",
            Value::Map(Rc::clone(map)).type_name()
        ));
    }
    let mut seen = 0;
    if holds(&value, map, 0, &mut seen) {
        return Err("a map cannot hold itself".to_owned());
    }
    run.step(seen)?;
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

/// Whether the one argument has the other.
fn holds_value(call: &mut Call<'_, '_, '_>, all: usize, wanted: usize) -> Outcome {
    let (all, wanted) = (&call.args[all], &call.args[wanted]);
    call.run.step(search_cost(all, wanted))?;
    Ok(Value::Bool(contains(all, wanted)))
}

/// Whether one of the first list is in the second argument, or with `met` false, whether one is not.
fn meets(call: &mut Call<'_, '_, '_>, met: bool) -> Result<bool, String> {
    for item in call.list(0) {
        call.run.step(search_cost(&call.args[1], item))?;
        if contains(&call.args[1], item) == met {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Bytes that are compared in one step.
const COMPARED_PER_STEP: usize = 32;

/// Steps that a search takes at most.
fn search_cost(all: &Value, wanted: &Value) -> usize {
    let one = 1 + wanted.length() / COMPARED_PER_STEP;
    match (all, wanted) {
        (Value::List(list), _) => list.items.len().saturating_mul(one),
        (Value::Text(text), Value::Text(part)) if are_unicode(text, part) => text.len() / COMPARED_PER_STEP,
        (Value::Text(text), _) => text.len().saturating_mul(one),
        _ => 1,
    }
}

fn are_unicode(text: &Text, part: &Text) -> bool {
    [text, part].iter().all(|text| std::str::from_utf8(text.as_bytes()).is_ok())
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
