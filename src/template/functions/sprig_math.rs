//! Functions of the sprig library about numbers, truth and types.

use super::{Call, Function, Outcome, Param, fixed, light, open};
use crate::template::value::Value;
use crate::template::{float, format};

/// All of them.
pub const ALL: &[Function] = &[
    open("sprig_add", &[], Param::Any, |call| folded(call, 0, i64::wrapping_add)),
    fixed("sprig_add1", &[Param::Any], |call| Ok(Value::Int(to_int(&call.args[0]).wrapping_add(1)))),
    fixed("sprig_sub", &[Param::Any, Param::Any], |call| {
        Ok(Value::Int(to_int(&call.args[0]).wrapping_sub(to_int(&call.args[1]))))
    }),
    fixed("sprig_div", &[Param::Any, Param::Any], |call| divided(call, "div", i64::wrapping_div)),
    fixed("sprig_mod", &[Param::Any, Param::Any], |call| divided(call, "mod", i64::wrapping_rem)),
    open("sprig_mul", &[Param::Any], Param::Any, |call| folded(call, 1, i64::wrapping_mul)),
    open("sprig_max", &[Param::Any], Param::Any, |call| folded(call, i64::MIN, i64::max)),
    open("sprig_biggest", &[Param::Any], Param::Any, |call| folded(call, i64::MIN, i64::max)),
    open("sprig_min", &[Param::Any], Param::Any, |call| folded(call, i64::MAX, i64::min)),
    open("sprig_addf", &[], Param::Any, |call| {
        decimals(&[&[Value::Int(0)], call.args].concat(), |a, b| a.plus(b), |a, b| a + b)
    }),
    open("sprig_mulf", &[Param::Any], Param::Any, |call| {
        decimals(call.args, |a, b| a.times(b), |a, b| a * b)
    }),
    open("sprig_subf", &[Param::Any], Param::Any, |call| {
        decimals(call.args, |a, b| a.plus(b.negated()?), |a, b| a - b)
    }),
    open("sprig_divf", &[Param::Any], Param::Any, |call| {
        if call.args[1..].iter().any(|by| to_float(by) == 0.0) {
            return Err("decimal division by 0".to_owned());
        }
        decimals(call.args, |a, b| a.over(b), |a, b| a / b)
    }),
    open("sprig_maxf", &[Param::Any], Param::Any, |call| {
        Ok(Value::Float(call.args.iter().map(to_float).fold(f64::NEG_INFINITY, f64::max)))
    }),
    open("sprig_minf", &[Param::Any], Param::Any, |call| {
        Ok(Value::Float(call.args.iter().map(to_float).fold(f64::INFINITY, f64::min)))
    }),
    fixed("sprig_ceil", &[Param::Any], |call| Ok(Value::Float(to_float(&call.args[0]).ceil()))),
    fixed("sprig_floor", &[Param::Any], |call| Ok(Value::Float(to_float(&call.args[0]).floor()))),
    open("sprig_round", &[Param::Any, Param::Int], Param::Any, round),
    fixed("sprig_int", &[Param::Any], |call| Ok(Value::Int(to_int(&call.args[0])))),
    fixed("sprig_int64", &[Param::Any], |call| Ok(Value::Int(to_int(&call.args[0])))),
    fixed("sprig_atoi", &[Param::Text], |call| Ok(Value::Int(call.str(0).parse().unwrap_or(0)))),
    fixed("sprig_float64", &[Param::Any], |call| Ok(Value::Float(to_float(&call.args[0])))),
    fixed("sprig_toDecimal", &[Param::Any], |call| {
        let digits = text_of(call, &call.args[0])?;
        Ok(Value::Int(i64::from_str_radix(&digits, 8).unwrap_or(0)))
    }),
    light(fixed("sprig_default", &[Param::Any, Param::Any], |call| {
        Ok(call.args[if is_empty(&call.args[1]) { 0 } else { 1 }].clone())
    })),
    light(fixed("sprig_empty", &[Param::Any], |call| Ok(Value::Bool(is_empty(&call.args[0]))))),
    light(open("sprig_coalesce", &[], Param::Any, |call| {
        Ok(call.args.iter().find(|value| !is_empty(value)).cloned().unwrap_or_default())
    })),
    open("sprig_all", &[], Param::Any, |call| Ok(Value::Bool(!call.args.iter().any(is_empty)))),
    open("sprig_any", &[], Param::Any, |call| {
        Ok(Value::Bool(call.args.iter().any(|value| !is_empty(value))))
    }),
    light(fixed("sprig_ternary", &[Param::Any, Param::Any, Param::Bool], |call| {
        Ok(call.args[if call.is(2) { 0 } else { 1 }].clone())
    })),
    fixed("sprig_fail", &[Param::Text], |call| Err(call.str(0).into_owned())),
    light(fixed("sprig_typeOf", &[Param::Any], |call| Ok(Value::text(call.args[0].type_name())))),
    fixed("sprig_typeIs", &[Param::Text, Param::Any], |call| {
        Ok(Value::Bool(call.str(0) == call.args[1].type_name()))
    }),
    fixed("sprig_typeIsLike", &[Param::Text, Param::Any], |call| {
        let name = call.args[1].type_name();
        Ok(Value::Bool(call.str(0) == name || format!("*{}", call.str(0)) == name))
    }),
    light(fixed("sprig_kindOf", &[Param::Any], |call| Ok(Value::text(kind(&call.args[0]))))),
    fixed("sprig_kindIs", &[Param::Text, Param::Any], |call| {
        Ok(Value::Bool(call.str(0) == kind(&call.args[1])))
    }),
];

/// Go's kind of a value.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Nil => "invalid",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int",
        Value::Uint(_) => "uint64",
        Value::Float(_) => "float64",
        Value::Text(_) => "string",
        Value::List(_) => "slice",
        Value::Map(_) => "map",
        Value::Struct(record) if record.kind.is_pointer => "ptr",
        Value::Struct(_) => "struct",
        Value::Counter(..) => "chan",
        Value::Scratch(_) => "ptr",
    }
}

/// Whether sprig takes it for nothing: unlike `if`, a record is never.
pub fn is_empty(value: &Value) -> bool {
    !value.truth()
}

/// Any value as a whole number; what is none is 0.
pub fn to_int(value: &Value) -> i64 {
    match value {
        Value::Bool(value) => i64::from(*value),
        Value::Float(number) => *number as i64,
        Value::Text(text) => {
            let text = text.lossy();
            text.parse().unwrap_or_else(|_| float::parse(&text).map_or(0, |number| number as i64))
        }
        other => other.as_int().unwrap_or(0),
    }
}

fn to_float(value: &Value) -> f64 {
    match value {
        Value::Bool(value) => f64::from(u8::from(*value)),
        Value::Int(number) => *number as f64,
        Value::Uint(number) => *number as f64,
        Value::Float(number) => *number,
        Value::Text(text) => float::parse(&text.lossy()).unwrap_or(0.0),
        _ => 0.0,
    }
}

/// Any value as text.
pub fn text_of(call: &Call<'_, '_, '_>, value: &Value) -> Result<String, String> {
    let mut out = call.run.sink();
    match value {
        Value::Text(text) => out.push(text.as_bytes()),
        other => format::sprint(&mut out, std::slice::from_ref(other), false),
    }
    out.finish().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn folded(call: &Call<'_, '_, '_>, start: i64, step: fn(i64, i64) -> i64) -> Outcome {
    Ok(Value::Int(call.args.iter().map(to_int).fold(start, step)))
}

fn divided(call: &Call<'_, '_, '_>, name: &str, step: fn(i64, i64) -> i64) -> Outcome {
    match to_int(&call.args[1]) {
        0 => Err(format!("{name}: division by zero")),
        by => Ok(Value::Int(step(to_int(&call.args[0]), by))),
    }
}

/// Digits behind the point that are worth rounding to.
const DIGITS_MAX: i64 = 300;

/// Rounds to so many digits: up from a fraction on that may be said, else down. Below zero, where fractions are below it, too,
/// that is always down, as in sprig.
fn round(call: &mut Call<'_, '_, '_>) -> Outcome {
    let limit = call.args.get(2).map_or(0.5, to_float);
    let scale = 10f64.powi(call.int(1).clamp(-DIGITS_MAX, DIGITS_MAX) as i32);
    let digits = to_float(&call.args[0]) * scale;
    let rounded = if digits.fract() >= limit { digits.ceil() } else { digits.floor() };
    Ok(Value::Float(rounded / scale))
}

/// A number as a whole one and a power of ten: sums of tenths are exact.
#[derive(Clone, Copy)]
pub struct Decimal {
    digits: i128,
    power: i32,
}

/// Digits behind the point of a quotient.
const QUOTIENT_DIGITS: i32 = 16;

impl Decimal {
    /// The shortest one that means the same floating-point number.
    fn of(number: f64) -> Option<Decimal> {
        let text = format!("{number:e}");
        let (digits, power) = text.split_once('e')?;
        let behind = digits.split_once('.').map_or(0, |(_, behind)| behind.len());
        let power = power.parse::<i32>().ok()? - i32::try_from(behind).ok()?;
        Some(Decimal { digits: digits.replace('.', "").parse().ok()?, power })
    }

    fn number(self) -> Option<f64> {
        format!("{}e{}", self.digits, self.power).parse().ok()
    }

    /// Its digits with another power, which is not above its own.
    fn digits_at(self, power: i32) -> Option<i128> {
        let shift = u32::try_from(self.power - power).ok()?;
        if self.digits == 0 { Some(0) } else { self.digits.checked_mul(10i128.checked_pow(shift)?) }
    }

    /// The sum. All of these are `None` when there are too many digits.
    pub fn plus(self, other: Decimal) -> Option<Decimal> {
        let power = self.power.min(other.power);
        let digits = self.digits_at(power)?.checked_add(other.digits_at(power)?)?;
        Some(Decimal { digits, power })
    }

    fn negated(self) -> Option<Decimal> {
        Some(Decimal { digits: self.digits.checked_neg()?, ..self })
    }

    fn times(self, other: Decimal) -> Option<Decimal> {
        Some(Decimal { digits: self.digits.checked_mul(other.digits)?, power: self.power + other.power })
    }

    /// The quotient, rounded half away from zero.
    fn over(self, other: Decimal) -> Option<Decimal> {
        let shift = self.power - other.power + QUOTIENT_DIGITS;
        let scale = 10i128.checked_pow(shift.unsigned_abs())?;
        let (up, down) = if shift < 0 { (1, scale) } else { (scale, 1) };
        let (a, b) = (self.digits.checked_mul(up)?, other.digits.checked_mul(down)?);
        let (whole, rest) = (a.checked_div(b)?, a.checked_rem(b)?);
        let is_up = rest.unsigned_abs().checked_mul(2)? >= b.unsigned_abs();
        let sign = if (a < 0) == (b < 0) { 1 } else { -1 };
        Some(Decimal { digits: whole + if is_up { sign } else { 0 }, power: -QUOTIENT_DIGITS })
    }
}

/// Calculates with decimals, from the first on; with floating-point numbers where there are too many digits.
pub fn decimals(
    args: &[Value],
    step: fn(Decimal, Decimal) -> Option<Decimal>,
    float_step: fn(f64, f64) -> f64,
) -> Outcome {
    let mut numbers = args.iter().map(to_float);
    let first = numbers.next().unwrap_or(0.0);
    let exact = args[1..].iter().map(to_float).try_fold(Decimal::of(first), |sum, number| {
        let sum = sum.zip(Decimal::of(number)).and_then(|(sum, number)| step(sum, number));
        sum.map(Some)
    });
    let exact = exact.flatten().and_then(Decimal::number);
    Ok(Value::Float(exact.unwrap_or_else(|| numbers.fold(first, float_step))))
}
