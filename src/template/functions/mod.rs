//! The functions that templates may call: one table for each kind of them.

mod builtin;
mod collections;
mod consul;
mod debug;
mod decode;
mod json;
mod math;
mod sprig_lists;
mod sprig_math;
mod sprig_more;
mod sprig_text;
mod text;
mod time;
mod toml;
mod url;
mod yaml;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::run::Run;
use super::value::{Keys, Kind, Map, Text, Value};

/// A function, or a method of a value.
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// What its first arguments must be.
    pub params: &'static [Param],
    /// What any further arguments must be; `None` when there may be none.
    pub rest: Option<Param>,
    /// Whether its cost does not depend on how long its arguments are.
    pub is_light: bool,
    /// What it does. The error is for people.
    pub run: fn(&mut Call<'_, '_, '_>) -> Result<Value, String>,
}

/// What an argument must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Param {
    /// Anything.
    Any,
    /// Text.
    Text,
    /// A whole number.
    Int,
    /// True or false.
    Bool,
    /// A list of text.
    Texts,
    /// A list of anything.
    List,
    /// A map with text as keys.
    Map,
}

/// A call of a function: its arguments, which are what the function takes, and the execution around it.
pub struct Call<'c, 'r, 'h> {
    /// The arguments.
    pub args: &'c [Value],
    /// The execution.
    pub run: &'r mut Run<'h>,
}

/// What a function gives.
type Outcome = Result<Value, String>;

/// A function with a fixed number of arguments.
const fn fixed(
    name: &'static str,
    params: &'static [Param],
    run: fn(&mut Call<'_, '_, '_>) -> Outcome,
) -> Function {
    Function { name, params, rest: None, is_light: false, run }
}

/// A function with any number of further arguments.
const fn open(
    name: &'static str,
    params: &'static [Param],
    rest: Param,
    run: fn(&mut Call<'_, '_, '_>) -> Outcome,
) -> Function {
    Function { name, params, rest: Some(rest), is_light: false, run }
}

/// A function whose cost does not depend on how long its arguments are.
const fn light(function: Function) -> Function {
    Function { is_light: true, ..function }
}

static ALL: LazyLock<BTreeMap<&'static str, &'static Function>> = LazyLock::new(|| {
    let tables: [&'static [Function]; 11] = [
        builtin::ALL,
        collections::ALL,
        consul::ALL,
        debug::ALL,
        decode::ALL,
        math::ALL,
        sprig_lists::ALL,
        sprig_math::ALL,
        sprig_more::ALL,
        sprig_text::ALL,
        text::ALL,
    ];
    let mut all: BTreeMap<&'static str, &'static Function> =
        tables.into_iter().flatten().map(|function| (function.name, function)).collect();
    for (alias, name) in sprig_more::ALIASES {
        if let Some(function) = all.get(name).copied() {
            all.insert(alias, function);
        }
    }
    all
});

/// A function by its name.
pub fn find(name: &str) -> Option<&'static Function> {
    ALL.get(name).copied()
}

/// A method of a value by its name.
pub fn method(of: &Value, name: &str) -> Option<&'static Function> {
    let table: &'static [Function] = match of {
        Value::Scratch(_) => collections::SCRATCH,
        Value::List(list) if super::dependency::is_checks(list.elem) => consul::CHECKS,
        Value::List(_) => collections::LIST,
        _ => return None,
    };
    table.iter().find(|method| method.name == name)
}

impl Function {
    /// Holds an argument against what the function takes; some are made into it.
    pub fn accept(&self, at: usize, value: Value) -> Result<Value, String> {
        let param = self.params.get(at).copied().or(self.rest).unwrap_or(Param::Any);
        match (param, &value) {
            (Param::Any, _)
            | (Param::Text, Value::Text(_))
            | (Param::Int, Value::Int(_))
            | (Param::Bool, Value::Bool(_))
            | (Param::List, Value::List(_)) => Ok(value),
            (Param::Map, Value::Map(map)) if map.keys != Keys::Int => Ok(value),
            (Param::Int, Value::Uint(number)) => {
                i64::try_from(*number).map(Value::Int).map_err(|_| format!("{number} overflows int"))
            }
            (Param::Texts, Value::List(list))
                if list.items.iter().all(|item| matches!(item, Value::Text(_))) =>
            {
                Ok(value)
            }
            // As in Go: nothing stands for a list or a map without anything in it.
            (Param::Texts | Param::List, Value::Nil) => Ok(Value::list(Vec::new())),
            (Param::Map, Value::Nil) => Ok(Value::map(BTreeMap::new())),
            (_, Value::Nil) => Err(format!("invalid value; expected {}", param.name())),
            _ => Err(format!("wrong type for value; expected {}; got {}", param.name(), value.type_name())),
        }
    }
}

impl Param {
    fn name(self) -> &'static str {
        match self {
            Param::Any => "interface {}",
            Param::Text => "string",
            Param::Int => "int",
            Param::Bool => "bool",
            Param::Texts => "[]string",
            Param::List => "[]interface {}",
            Param::Map => "map[string]interface {}",
        }
    }
}

impl<'c> Call<'c, '_, '_> {
    /// A text among the arguments.
    fn text(&self, at: usize) -> Text {
        match self.args.get(at) {
            Some(Value::Text(text)) => text.clone(),
            _ => Text::from(""),
        }
    }

    /// The same as Unicode.
    fn str(&self, at: usize) -> Cow<'c, str> {
        match self.args.get(at) {
            Some(Value::Text(text)) => text.lossy(),
            _ => Cow::Borrowed(""),
        }
    }

    /// A whole number among the arguments.
    fn int(&self, at: usize) -> i64 {
        self.args.get(at).and_then(Value::as_int).unwrap_or(0)
    }

    /// Whether an argument is true.
    fn is(&self, at: usize) -> bool {
        self.args.get(at).is_some_and(Value::truth)
    }

    /// A list among the arguments.
    fn list(&self, at: usize) -> &'c [Value] {
        match self.args.get(at) {
            Some(Value::List(list)) => &list.items,
            _ => &[],
        }
    }

    /// A map among the arguments.
    fn map(&self, at: usize) -> Result<&'c Map, String> {
        match self.args.get(at) {
            Some(Value::Map(map)) => Ok(map),
            other => {
                let name = other.map_or_else(|| "<nil>".to_owned(), Value::type_name);
                Err(format!("wrong type for value; expected {}; got {name}", Param::Map.name()))
            }
        }
    }

    /// A list of texts; refuses more than a value may hold before they are made.
    fn texts<'t>(&self, parts: impl Iterator<Item = &'t str>) -> Outcome {
        let mut bytes = 0;
        let mut out = Vec::new();
        for part in parts {
            bytes += part.len() + size_of::<Value>();
            self.fits(bytes)?;
            out.push(Value::text(part));
        }
        Ok(Value::list_of(Kind::Text, out))
    }

    /// Refuses a result of so many bytes before it is made.
    fn fits(&self, bytes: usize) -> Result<(), String> {
        if bytes > self.run.limits.value_max {
            return Err(format!("the result is longer than {} bytes", self.run.limits.value_max));
        }
        Ok(())
    }
}

/// A time as a layout of Go shows it.
pub fn time_text(unix_time_ns: i128, layout: &str) -> String {
    time::format(unix_time_ns, layout)
}
