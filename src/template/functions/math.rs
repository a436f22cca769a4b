//! Arithmetic over numbers of any kind. The order of the arguments is that of pipes: `10 | divide 2` is 5.

use std::cmp::Ordering;

use super::{Function, Outcome, Param, fixed};
use crate::template::value::Value;

/// All of them.
pub const ALL: &[Function] = &[
    fixed("add", &[Param::Any, Param::Any], |call| {
        calculate("add", &call.args[1], &call.args[0], i64::wrapping_add, u64::wrapping_add, |a, b| a + b)
    }),
    fixed("subtract", &[Param::Any, Param::Any], |call| {
        calculate("subtract", &call.args[1], &call.args[0], i64::wrapping_sub, u64::wrapping_sub, |a, b| {
            a - b
        })
    }),
    fixed("multiply", &[Param::Any, Param::Any], |call| {
        calculate("multiply", &call.args[1], &call.args[0], i64::wrapping_mul, u64::wrapping_mul, |a, b| {
            a * b
        })
    }),
    fixed("divide", &[Param::Any, Param::Any], |call| {
        let (a, b) = (&call.args[1], &call.args[0]);
        not_by_zero("divide", a, b)?;
        calculate("divide", a, b, i64::wrapping_div, u64::wrapping_div, |a, b| a / b)
    }),
    fixed("modulo", &[Param::Any, Param::Any], |call| {
        let (a, b) = (&call.args[1], &call.args[0]);
        not_by_zero("modulo", a, b)?;
        if let Some(float) = [b, a].iter().find(|value| matches!(value, Value::Float(_))) {
            return Err(format!("modulo: unknown type for {} ({})", shown(float), float.type_name()));
        }
        calculate("modulo", a, b, i64::wrapping_rem, u64::wrapping_rem, |a, _| a)
    }),
    fixed("minimum", &[Param::Any, Param::Any], |call| {
        chosen("minimum", &call.args[1], &call.args[0], Ordering::Less)
    }),
    fixed("maximum", &[Param::Any, Param::Any], |call| {
        chosen("maximum", &call.args[1], &call.args[0], Ordering::Greater)
    }),
];

fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("{:?}", text.lossy()),
        Value::Float(number) => number.to_string(),
        other => other.type_name(),
    }
}

/// The number a value is.
fn wide(name: &str, value: &Value) -> Result<f64, String> {
    match value {
        Value::Int(number) => Ok(*number as f64),
        Value::Uint(number) => Ok(*number as f64),
        Value::Float(number) => Ok(*number),
        other => Err(format!("{name}: unknown type for {} ({})", shown(other), other.type_name())),
    }
}

fn not_by_zero(name: &str, a: &Value, b: &Value) -> Result<(), String> {
    let are_whole = !matches!(a, Value::Float(_)) && matches!(b, Value::Int(0) | Value::Uint(0));
    if are_whole { Err(format!("{name}: division by zero")) } else { Ok(()) }
}

/// Numbers of one kind give that kind; a sign or a fraction in one of them, one that has it.
fn calculate(
    name: &str,
    a: &Value,
    b: &Value,
    ints: fn(i64, i64) -> i64,
    uints: fn(u64, u64) -> u64,
    floats: fn(f64, f64) -> f64,
) -> Outcome {
    Ok(match (a, b) {
        (Value::Int(a), Value::Int(b)) => Value::Int(ints(*a, *b)),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(uints(*a, *b)),
        (Value::Int(a), Value::Uint(b)) => Value::Int(ints(*a, *b as i64)),
        (Value::Uint(a), Value::Int(b)) => Value::Int(ints(*a as i64, *b)),
        _ => Value::Float(floats(wide(name, a)?, wide(name, b)?)),
    })
}

/// The first value if it compares as wanted with the second, else the second.
fn chosen(name: &str, a: &Value, b: &Value, wanted: Ordering) -> Outcome {
    let ordering = match (a, b) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
        _ => wide(name, a)?.partial_cmp(&wide(name, b)?),
    };
    Ok(if ordering == Some(wanted) { a.clone() } else { b.clone() })
}
