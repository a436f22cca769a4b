//! Functions of the sprig library about lists and maps.

use std::collections::BTreeMap;

use super::collections::{WALK_MAX, merged, put};
use super::sprig_math::{is_empty, text_of, to_int};
use super::{Call, Function, Outcome, Param, fixed, light, open};
use crate::template::value::{ENTRY_BYTES, Key, Kind, Value};

/// All of them.
pub const ALL: &[Function] = &[
    light(open("sprig_list", &[], Param::Any, |call| Ok(Value::list(call.args.to_vec())))),
    light(open("sprig_tuple", &[], Param::Any, |call| Ok(Value::list(call.args.to_vec())))),
    light(fixed("sprig_first", &[Param::Any], |call| {
        Ok(items(call, 0)?.first().cloned().unwrap_or_default())
    })),
    light(fixed("sprig_last", &[Param::Any], |call| Ok(items(call, 0)?.last().cloned().unwrap_or_default()))),
    fixed("sprig_rest", &[Param::Any], |call| {
        Ok(Value::list(items(call, 0)?.iter().skip(1).cloned().collect()))
    }),
    fixed("sprig_initial", &[Param::Any], |call| {
        let all = items(call, 0)?;
        Ok(Value::list(all[..all.len().saturating_sub(1)].to_vec()))
    }),
    fixed("sprig_reverse", &[Param::Any], |call| {
        Ok(Value::list(items(call, 0)?.iter().rev().cloned().collect()))
    }),
    fixed("sprig_append", &[Param::Any, Param::Any], |call| appended(call, false)),
    fixed("sprig_push", &[Param::Any, Param::Any], |call| appended(call, false)),
    fixed("sprig_prepend", &[Param::Any, Param::Any], |call| appended(call, true)),
    open("sprig_concat", &[], Param::Any, |call| {
        let mut all = Vec::new();
        for at in 0..call.args.len() {
            all.extend_from_slice(items(call, at)?);
            call.fits(all.len() * 16)?;
        }
        Ok(Value::list(all))
    }),
    fixed("sprig_compact", &[Param::Any], |call| {
        Ok(Value::list(items(call, 0)?.iter().filter(|item| !is_empty(item)).cloned().collect()))
    }),
    fixed("sprig_uniq", &[Param::Any], |call| {
        let mut kept: Vec<Value> = Vec::new();
        for item in items(call, 0)? {
            if !among(call, &kept, item)? {
                kept.push(item.clone());
            }
        }
        Ok(Value::list(kept))
    }),
    open("sprig_without", &[Param::Any], Param::Any, |call| {
        let mut kept: Vec<Value> = Vec::new();
        for item in items(call, 0)? {
            if !among(call, &call.args[1..], item)? {
                kept.push(item.clone());
            }
        }
        Ok(Value::list(kept))
    }),
    fixed("sprig_has", &[Param::Any, Param::Any], |call| {
        let all = items(call, 1)?;
        among(call, all, &call.args[0]).map(Value::Bool)
    }),
    light(open("sprig_slice", &[Param::Any], Param::Any, |call| {
        let all = items(call, 0)?;
        let bound =
            |at: usize, or: usize| call.args.get(at).map_or(Ok(or), |value| usize::try_from(to_int(value)));
        let bounds = bound(1, 0).and_then(|from| bound(2, all.len()).map(|to| from..to));
        let part = bounds.ok().and_then(|bounds| all.get(bounds));
        part.map(|part| Value::list(part.to_vec())).ok_or_else(|| "slice bounds out of range".to_owned())
    })),
    fixed("sprig_chunk", &[Param::Int, Param::Any], |call| {
        let size = usize::try_from(call.int(0)).ok().filter(|size| *size > 0);
        let size = size.ok_or("the size of a chunk is above zero")?;
        Ok(Value::list(items(call, 1)?.chunks(size).map(|chunk| Value::list(chunk.to_vec())).collect()))
    }),
    fixed("sprig_until", &[Param::Int], |call| {
        let to = call.int(0);
        numbers(call, 0, to, if to < 0 { -1 } else { 1 })
    }),
    fixed("sprig_untilStep", &[Param::Int, Param::Int, Param::Int], |call| {
        numbers(call, call.int(0), call.int(1), call.int(2))
    }),
    open("sprig_seq", &[], Param::Int, |call| {
        let (from, step, to) = match call.args.len() {
            0 => return Ok(Value::text("")),
            1 => (1, None, call.int(0)),
            2 => (call.int(0), None, call.int(1)),
            3 => (call.int(0), Some(call.int(1)), call.int(2)),
            _ => return Ok(Value::text("")),
        };
        let step = step.unwrap_or(if to < from { -1 } else { 1 });
        let past = if step < 0 { to.saturating_sub(1) } else { to.saturating_add(1) };
        let Value::List(all) = numbers(call, from, past, step)? else { return Ok(Value::text("")) };
        let all: Vec<String> = all.items.iter().filter_map(Value::as_int).map(|n| n.to_string()).collect();
        Ok(Value::text(all.join(" ")))
    }),
    light(open("sprig_dict", &[], Param::Any, |call| {
        let mut out = BTreeMap::new();
        for pair in call.args.chunks(2) {
            let key = text_of(call, &pair[0])?;
            out.insert(key.as_str().into(), pair.get(1).cloned().unwrap_or_else(|| Value::text("")));
        }
        Ok(Value::map(out))
    })),
    light(fixed("sprig_get", &[Param::Map, Param::Text], |call| {
        let found = call.map(0)?.items.borrow().get(&Key::Text(call.text(1))).cloned();
        Ok(found.unwrap_or_else(|| Value::text("")))
    })),
    light(fixed("sprig_set", &[Param::Map, Param::Text, Param::Any], |call| {
        if let Value::Map(map) = &call.args[0] {
            call.run.make(ENTRY_BYTES)?;
            put(call.run, map, Key::Text(call.text(1)), call.args[2].clone())?;
        }
        Ok(call.args[0].clone())
    })),
    light(fixed("sprig_unset", &[Param::Map, Param::Text], |call| {
        if let Value::Map(map) = &call.args[0]
            && map.elem == Kind::Any
        {
            map.items.borrow_mut().remove(&Key::Text(call.text(1)));
        }
        Ok(call.args[0].clone())
    })),
    light(fixed("sprig_hasKey", &[Param::Map, Param::Text], |call| {
        Ok(Value::Bool(call.map(0)?.items.borrow().contains_key(&Key::Text(call.text(1)))))
    })),
    open("sprig_keys", &[], Param::Map, |call| {
        let mut out = Vec::new();
        for at in 0..call.args.len() {
            out.extend(call.map(at)?.items.borrow().keys().map(Key::value));
        }
        Ok(Value::list_of(Kind::Text, out))
    }),
    fixed("sprig_values", &[Param::Map], |call| {
        Ok(Value::list(call.map(0)?.items.borrow().values().cloned().collect()))
    }),
    open("sprig_pluck", &[Param::Text], Param::Map, |call| {
        let key = Key::Text(call.text(0));
        let mut out = Vec::new();
        for at in 1..call.args.len() {
            out.extend(call.map(at)?.items.borrow().get(&key).cloned());
        }
        Ok(Value::list(out))
    }),
    open("sprig_pick", &[Param::Map], Param::Text, |call| chosen(call, true)),
    open("sprig_omit", &[Param::Map], Param::Text, |call| chosen(call, false)),
    open("sprig_merge", &[Param::Map], Param::Map, |call| merge(call, false)),
    open("sprig_mergeOverwrite", &[Param::Map], Param::Map, |call| merge(call, true)),
    light(open("sprig_dig", &[Param::Any], Param::Any, dig)),
    fixed("sprig_deepEqual", &[Param::Any, Param::Any], |call| {
        same(call, &call.args[0], &call.args[1]).map(Value::Bool)
    }),
    fixed("sprig_deepCopy", &[Param::Any], |call| copied(call, &call.args[0].clone(), 0)),
];

/// The elements of a list.
fn items<'c>(call: &Call<'c, '_, '_>, at: usize) -> Result<&'c [Value], String> {
    match call.args.get(at) {
        Some(Value::List(list)) => Ok(&list.items),
        Some(Value::Nil) | None => Ok(&[]),
        Some(other) => Err(format!("a list is needed, not {}", other.type_name())),
    }
}

fn appended(call: &mut Call<'_, '_, '_>, in_front: bool) -> Outcome {
    let mut all = items(call, 0)?.to_vec();
    call.fits(all.len() * 16)?;
    all.insert(if in_front { 0 } else { all.len() }, call.args[1].clone());
    Ok(Value::list(all))
}

/// Whole numbers up to one, which is not among them.
fn numbers(call: &Call<'_, '_, '_>, from: i64, to: i64, step: i64) -> Outcome {
    let leads_on = if step < 0 { to < from } else { from < to };
    if step == 0 || !leads_on {
        return Ok(Value::list_of(Kind::Int, Vec::new()));
    }
    let count = (i128::from(to) - i128::from(from)).unsigned_abs().div_ceil(u128::from(step.unsigned_abs()));
    call.fits(usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(16))?;
    let all = (0..count).map(|i| Value::Int((i128::from(from) + i128::from(step) * i as i128) as i64));
    Ok(Value::list_of(Kind::Int, all.collect()))
}

/// The entries whose keys are named, or those whose are not.
fn chosen(call: &mut Call<'_, '_, '_>, named: bool) -> Outcome {
    let keys: Vec<Key> = (1..call.args.len()).map(|at| Key::Text(call.text(at))).collect();
    let map = call.map(0)?;
    let items = map.items.borrow();
    let kept = items.iter().filter(|(key, _)| keys.contains(key) == named);
    Ok(Value::map(kept.map(|(key, value)| (key.clone(), value.clone())).collect()))
}

/// Merges maps into the first, which changes.
fn merge(call: &mut Call<'_, '_, '_>, overrides: bool) -> Outcome {
    let first = call.map(0)?;
    for at in 1..call.args.len() {
        let mut seen = 0;
        let all = merged(first, call.map(at)?, overrides, 0, &mut seen)?;
        call.run.step(seen)?;
        call.run.make(seen.saturating_mul(ENTRY_BYTES))?;
        let Value::Map(map) = &call.args[0] else { continue };
        for (key, value) in all {
            put(call.run, map, key, value)?;
        }
    }
    Ok(call.args[0].clone())
}

/// A value deep in a map: keys, then what stands for it when it is not there, then the map.
fn dig(call: &mut Call<'_, '_, '_>) -> Outcome {
    let [keys @ .., default, map] = call.args else {
        return Err("dig needs at least three arguments".to_owned());
    };
    if keys.is_empty() {
        return Err("dig needs at least three arguments".to_owned());
    }
    let mut value = map.clone();
    for key in keys {
        let inner = match (&value, key) {
            (Value::Map(map), Value::Text(key)) => map.items.borrow().get(&Key::Text(key.clone())).cloned(),
            _ => None,
        };
        match inner {
            Some(inner) => value = inner,
            None => return Ok(default.clone()),
        }
    }
    Ok(value)
}

/// Deepest nesting that is compared or copied.
const NESTING_MAX: usize = 30;

/// Whether a list has a value.
fn among(call: &mut Call<'_, '_, '_>, all: &[Value], wanted: &Value) -> Result<bool, String> {
    for item in all {
        if same(call, item, wanted)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Bytes that are compared in one step.
const COMPARED_PER_STEP: usize = 32;

/// Whether two values are the same all through. What is nested deeper than can be looked through is not.
fn same(call: &mut Call<'_, '_, '_>, a: &Value, b: &Value) -> Result<bool, String> {
    let mut seen = 0;
    let is_same = alike(a, b, 0, &mut seen);
    call.run.step(seen)?;
    Ok(is_same)
}

fn alike(a: &Value, b: &Value, depth: usize, seen: &mut usize) -> bool {
    *seen += 1;
    match (a, b) {
        _ if depth > NESTING_MAX || *seen > WALK_MAX => false,
        (Value::Nil, Value::Nil) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Uint(a), Value::Uint(b)) => a == b,
        (Value::Float(a), Value::Float(b)) => a == b,
        (Value::Text(a), Value::Text(b)) => {
            *seen += a.len().min(b.len()) / COMPARED_PER_STEP;
            a == b
        }
        (Value::List(a), Value::List(b)) => {
            let pairs = a.items.iter().zip(&b.items);
            std::rc::Rc::ptr_eq(a, b)
                || a.items.len() == b.items.len()
                    && pairs.into_iter().all(|(a, b)| alike(a, b, depth + 1, seen))
        }
        (Value::Map(a), Value::Map(b)) => {
            if std::rc::Rc::ptr_eq(a, b) {
                return true;
            }
            let (a, b) = (a.items.borrow(), b.items.borrow());
            a.len() == b.len()
                && a.iter().zip(b.iter()).all(|(a, b)| a.0 == b.0 && alike(a.1, b.1, depth + 1, seen))
        }
        (Value::Struct(a), Value::Struct(b)) => {
            a.kind == b.kind && a.fields.iter().zip(&b.fields).all(|(a, b)| alike(a, b, depth + 1, seen))
        }
        _ => false,
    }
}

fn copied(call: &mut Call<'_, '_, '_>, value: &Value, depth: usize) -> Outcome {
    call.run.step(1)?;
    if depth > NESTING_MAX {
        return Err("nested too deeply".to_owned());
    }
    Ok(match value {
        Value::List(list) => {
            let items = list.items.iter().map(|item| copied(call, item, depth + 1));
            Value::list_of(list.elem, items.collect::<Result<_, _>>()?)
        }
        Value::Map(map) => {
            let items = map.items.borrow();
            let copies = items.iter().map(|(key, value)| Ok((key.clone(), copied(call, value, depth + 1)?)));
            Value::map_of(map.elem, map.keys, copies.collect::<Result<BTreeMap<_, _>, String>>()?)
        }
        other => other.clone(),
    })
}
