//! Walks a template's tree and writes what it says.

use std::ops::Range;

use super::ast::{Block, Branch, Command, Expr, ExprKind, Node, Pipe};
use super::error::{Error, Mistake};
use super::functions::{self, Call, Function};
use super::run::Run;
use super::sink::Sink;
use super::value::Value;
use super::{Template, format};

/// Bytes of a value that are written in one step.
const BYTES_PER_STEP: usize = 256;
/// Bytes of an argument that a function reads in one step: some do much with each.
const ARGUMENT_PER_STEP: usize = 32;
/// Entries of a map that are copied in one step.
const ENTRIES_PER_STEP: usize = 8;

/// Functions that decide themselves which of their arguments are evaluated, or that execute templates.
pub fn is_special(name: &str) -> bool {
    matches!(name, "and" | "or" | "executeTemplate")
}

type Failure = Box<Error>;

/// Executes a template from its top.
pub fn execute(template: &Template, run: &mut Run<'_>) -> Result<Vec<u8>, Failure> {
    let out = Sink::new(run.limits.output_max);
    let mut machine =
        Machine { template, run, out, variables: vec![("$", Value::Nil)], base: 0, name: "", depth: 0 };
    machine.block(&Value::Nil, &template.trees.main)?;
    let failure = |text| Error::new(&template.source, &template.text, Mistake::at(0, text));
    machine.out.finish().map_err(|text| Box::new(failure(format!("the output is {text}"))))
}

/// How the nodes around go on.
#[derive(Clone, Copy, PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

struct Machine<'t, 'r, 'h> {
    template: &'t Template,
    run: &'r mut Run<'h>,
    out: Sink,
    /// All variables, the innermost last.
    variables: Vec<(&'t str, Value)>,
    /// Where those of the template begin that is being executed.
    base: usize,
    /// Its name.
    name: &'t str,
    depth: usize,
}

impl<'t> Machine<'t, '_, '_> {
    fn block(&mut self, dot: &Value, block: &'t Block) -> Result<Flow, Failure> {
        for node in &block.nodes {
            let flow = self.node(dot, node)?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, dot: &Value, node: &'t Node) -> Result<Flow, Failure> {
        match node {
            Node::Text(range) => {
                let text = &self.template.text[range.clone()];
                self.step(range, 1 + text.len() / BYTES_PER_STEP)?;
                self.make(range, text.len())?;
                self.out.text(text);
                self.check_output(range)?;
            }
            Node::Action(pipe) => {
                let value = self.pipe(dot, pipe)?;
                if pipe.variables.is_empty() {
                    if matches!(value, Value::Counter(..) | Value::Scratch(_)) {
                        let text = format!("can't print a value of type {}", value.type_name());
                        return Err(self.failure(&pipe.span, text));
                    }
                    let before = self.out.as_bytes().len();
                    format::print(&mut self.out, &value);
                    self.check_output(&pipe.span)?;
                    let written = self.out.as_bytes().len() - before;
                    self.step(&pipe.span, written / BYTES_PER_STEP)?;
                    self.make(&pipe.span, written)?;
                }
            }
            Node::If(branch) | Node::With(branch) => {
                let outer = self.variables.len();
                let value = self.pipe(dot, &branch.pipe)?;
                let flow = if value.truth() {
                    let is_with = matches!(node, Node::With(_));
                    self.inner(if is_with { &value } else { dot }, &branch.body, &branch.pipe.span)?
                } else if let Some(otherwise) = &branch.otherwise {
                    self.inner(dot, otherwise, &branch.pipe.span)?
                } else {
                    Flow::Next
                };
                self.variables.truncate(outer);
                return Ok(flow);
            }
            Node::Range(branch) => return self.range(dot, branch),
            Node::Template(invocation) => {
                let dot = match &invocation.pipe {
                    Some(pipe) => self.pipe(dot, pipe)?,
                    None => Value::Nil,
                };
                self.template(&dot, &invocation.name, &invocation.span)?;
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    /// A block within another.
    fn inner(&mut self, dot: &Value, block: &'t Block, span: &Range<usize>) -> Result<Flow, Failure> {
        self.enter(span)?;
        let flow = self.block(dot, block);
        self.depth -= 1;
        flow
    }

    fn range(&mut self, dot: &Value, branch: &'t Branch) -> Result<Flow, Failure> {
        let outer = self.variables.len();
        let span = &branch.pipe.span;
        let over = self.pipe(dot, &branch.pipe)?;
        let mark = self.variables.len();
        let mut is_empty = true;
        let mut flow = Flow::Next;
        let mut once = |machine: &mut Self, key: Value, value: Value| -> Result<bool, Failure> {
            is_empty = false;
            machine.step(span, 1)?;
            machine.iterate(branch, mark, &key, &value);
            flow = machine.inner(&value, &branch.body, span)?;
            machine.variables.truncate(mark);
            Ok(flow != Flow::Break)
        };
        match &over {
            Value::Nil => {}
            Value::List(list) => {
                for (i, item) in list.items.iter().enumerate() {
                    if !once(self, Value::Int(i as i64), item.clone())? {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                // A copy: the body may change the map.
                self.step(span, map.items.borrow().len() / ENTRIES_PER_STEP)?;
                let items: Vec<(Value, Value)> =
                    map.items.borrow().iter().map(|(key, value)| (key.value(), value.clone())).collect();
                for (key, value) in items {
                    if !once(self, key, value)? {
                        break;
                    }
                }
            }
            Value::Counter(from, to) => {
                for (i, number) in (*from..*to).enumerate() {
                    if !once(self, Value::Int(i as i64), Value::Int(number))? {
                        break;
                    }
                }
            }
            Value::Int(_) | Value::Uint(_) if branch.pipe.variables.len() < 2 => {
                for i in 0..over.as_int().unwrap_or(i64::MAX) {
                    if !once(self, Value::Int(i), Value::Int(i))? {
                        break;
                    }
                }
            }
            Value::Int(_) | Value::Uint(_) => {
                let text = "can't use a number to iterate over more than one variable";
                return Err(self.failure(span, text.to_owned()));
            }
            other => {
                let mut shown = Sink::new(200);
                format::sprint(&mut shown, std::slice::from_ref(other), false);
                let shown = String::from_utf8_lossy(shown.as_bytes()).into_owned();
                return Err(self.failure(span, format!("range can't iterate over {shown}")));
            }
        }
        let flow = match (&branch.otherwise, is_empty) {
            // Outside the range: break and continue are those of the range around.
            (Some(otherwise), true) => self.inner(dot, otherwise, span)?,
            _ => Flow::Next,
        };
        self.variables.truncate(outer);
        Ok(flow)
    }

    /// Sets the variables of a range for one element.
    fn iterate(&mut self, branch: &'t Branch, mark: usize, key: &Value, value: &Value) {
        let names = &branch.pipe.variables;
        let values: &[&Value] = if names.len() > 1 { &[key, value] } else { &[value] };
        for (i, (name, value)) in names.iter().zip(values).enumerate() {
            if branch.pipe.assigns {
                self.set(name, (*value).clone());
            } else {
                self.variables[mark - names.len() + i].1 = (*value).clone();
            }
        }
    }

    /// Executes a defined template with a cursor; it sees no variable but `$`.
    fn template(&mut self, dot: &Value, name: &'t str, span: &Range<usize>) -> Result<(), Failure> {
        let Some(block) = self.template.trees.defined.get(name) else {
            return Err(self.failure(span, format!("template {name:?} not defined")));
        };
        self.enter(span)?;
        let outer = (self.base, self.name);
        self.base = self.variables.len();
        self.name = name;
        self.variables.push(("$", dot.clone()));
        self.block(dot, block)?;
        self.variables.truncate(self.base);
        (self.base, self.name) = outer;
        self.depth -= 1;
        Ok(())
    }

    /// The value of a pipeline; its variables are set.
    fn pipe(&mut self, dot: &Value, pipe: &'t Pipe) -> Result<Value, Failure> {
        self.enter(&pipe.span)?;
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(dot, command, value)?);
        }
        self.depth -= 1;
        let value = value.unwrap_or_default();
        for name in &pipe.variables {
            if pipe.assigns {
                self.set(name, value.clone());
            } else {
                self.variables.push((name, value.clone()));
            }
        }
        Ok(value)
    }

    fn set(&mut self, name: &str, value: Value) {
        let own = &mut self.variables[self.base..];
        if let Some(variable) = own.iter_mut().rev().find(|(known, _)| *known == name) {
            variable.1 = value;
        }
    }

    /// One stage; `last` is the value of the stage before.
    fn command(&mut self, dot: &Value, command: &'t Command, last: Option<Value>) -> Result<Value, Failure> {
        self.step(&command.span, 1)?;
        let (first, args) = (&command.words[0], &command.words[1..]);
        let has_args = !args.is_empty() || last.is_some();
        match &first.kind {
            ExprKind::Function(name) => self.function(dot, name, &command.span, args, last),
            ExprKind::Field(names) => self.fields(dot, dot.clone(), names, &first.span, args, last),
            ExprKind::Variable(name, names) if !names.is_empty() => {
                let value = self.variable(name, &first.span)?;
                self.fields(dot, value, names, &first.span, args, last)
            }
            ExprKind::Chain(inner, names) => {
                let value = self.chained(dot, inner)?;
                self.fields(dot, value, names, &first.span, args, last)
            }
            ExprKind::Nil if !has_args => Err(self.failure(&first.span, "nil is not a command".to_owned())),
            _ if has_args => {
                let word = &self.template.text[first.span.clone()];
                Err(self.failure(&first.span, format!("can't give argument to non-function {word}")))
            }
            _ => self.word(dot, first),
        }
    }

    /// What stands before fields.
    fn chained(&mut self, dot: &Value, inner: &'t Expr) -> Result<Value, Failure> {
        if let ExprKind::Nil = inner.kind {
            return Err(self.failure(&inner.span, "indirection through explicit nil".to_owned()));
        }
        self.word(dot, inner)
    }

    /// The value of one word.
    fn word(&mut self, dot: &Value, word: &'t Expr) -> Result<Value, Failure> {
        Ok(match &word.kind {
            ExprKind::Dot => dot.clone(),
            ExprKind::Nil => Value::Nil,
            ExprKind::Bool(value) => Value::Bool(*value),
            ExprKind::Int(number) => Value::Int(*number),
            ExprKind::Float(number) => Value::Float(*number),
            ExprKind::Text(text) => Value::text(text.as_slice()),
            ExprKind::Huge => {
                let text = format!("{} overflows int", &self.template.text[word.span.clone()]);
                return Err(self.failure(&word.span, text));
            }
            ExprKind::Field(names) => self.fields(dot, dot.clone(), names, &word.span, &[], None)?,
            ExprKind::Variable(name, names) => {
                let value = self.variable(name, &word.span)?;
                self.fields(dot, value, names, &word.span, &[], None)?
            }
            ExprKind::Function(name) => self.function(dot, name, &word.span, &[], None)?,
            ExprKind::Pipe(pipe) => self.pipe(dot, pipe)?,
            ExprKind::Chain(inner, names) => {
                let value = self.chained(dot, inner)?;
                self.fields(dot, value, names, &word.span, &[], None)?
            }
        })
    }

    fn variable(&mut self, name: &str, span: &Range<usize>) -> Result<Value, Failure> {
        let own = &self.variables[self.base..];
        match own.iter().rev().find(|(known, _)| *known == name) {
            Some((_, value)) => Ok(value.clone()),
            None => Err(self.failure(span, format!("undefined variable: {name}"))),
        }
    }

    /// Follows fields; the last may be a method, which gets the arguments.
    fn fields(
        &mut self,
        dot: &Value,
        mut value: Value,
        names: &'t [String],
        span: &Range<usize>,
        args: &'t [Expr],
        last: Option<Value>,
    ) -> Result<Value, Failure> {
        let Some((final_name, before)) = names.split_last() else { return Ok(value) };
        let starts_with_nil = matches!(value, Value::Nil);
        // As in Go: nothing at all has every field, but what is nothing within something has none.
        let checked = |machine: &Self, value: &Value, name: &str| match value {
            Value::Nil if !starts_with_nil => {
                Err(machine.failure(span, format!("nil pointer evaluating interface {{}}.{name}")))
            }
            _ => Ok(()),
        };
        for (i, name) in before.iter().enumerate() {
            if i > 0 {
                checked(self, &value, name)?;
            }
            value = self.field(dot, &value, name, span, &[], None)?;
        }
        checked(self, &value, final_name)?;
        self.field(dot, &value, final_name, span, args, last)
    }

    fn field(
        &mut self,
        dot: &Value,
        of: &Value,
        name: &'t str,
        span: &Range<usize>,
        args: &'t [Expr],
        last: Option<Value>,
    ) -> Result<Value, Failure> {
        if let Some(method) = functions::method(of, name) {
            let mut values = self.arguments(dot, method, span, args, last)?;
            values.insert(0, of.clone());
            return self.call(method, span, &values);
        }
        let has_args = !args.is_empty() || last.is_some();
        let text = match of {
            Value::Nil if self.template.options.missing_key_is_error => {
                format!("nil data; no entry for key {name:?}")
            }
            Value::Nil => return Ok(Value::Nil),
            Value::Struct(record) => match record.field(name) {
                Some(_) if has_args => format!("{name} has arguments but cannot be invoked as function"),
                Some(value) => return Ok(value.clone()),
                None => format!("can't evaluate field {name} in type {}", of.type_name()),
            },
            Value::Map(_) if has_args => format!("{name} is not a method but has arguments"),
            Value::Map(map) => match map.items.borrow().get(&name.into()) {
                Some(value) => return Ok(value.clone()),
                None if self.template.options.missing_key_is_error => {
                    format!("map has no entry for key {name:?}")
                }
                None => return Ok(map.elem.zero()),
            },
            _ => format!("can't evaluate field {name} in type {}", of.type_name()),
        };
        Err(self.failure(span, text))
    }

    /// Calls a function by its name.
    fn function(
        &mut self,
        dot: &Value,
        name: &'t str,
        span: &Range<usize>,
        args: &'t [Expr],
        last: Option<Value>,
    ) -> Result<Value, Failure> {
        if self.template.options.denied.iter().any(|pattern| matches_glob(pattern, name)) {
            return Err(self.failure(span, format!("error calling {name}: function is disabled")));
        }
        match name {
            "and" | "or" => return self.decide(dot, name == "or", span, args, last),
            "executeTemplate" => return self.execute_template(dot, span, args, last),
            _ => {}
        }
        let Some(function) = functions::find(name) else {
            return Err(self.failure(span, format!("{name:?} is not a defined function")));
        };
        let values = self.arguments(dot, function, span, args, last)?;
        self.call(function, span, &values)
    }

    fn call(&mut self, function: &Function, span: &Range<usize>, args: &[Value]) -> Result<Value, Failure> {
        if !function.is_light {
            let read = args.iter().map(Value::length).fold(0, usize::saturating_add);
            self.step(span, read / ARGUMENT_PER_STEP)?;
        }
        let result = (function.run)(&mut Call { args, run: self.run });
        let value =
            result.map_err(|text| self.failure(span, format!("error calling {}: {text}", function.name)))?;
        let size = match &value {
            Value::Map(map) => map.items.borrow().len() * size_of::<Value>(),
            other => other.length(),
        };
        if size > self.run.limits.value_max {
            let text = format!("error calling {}: the result is too large", function.name);
            return Err(self.failure(span, text));
        }
        self.step(span, 1 + size / BYTES_PER_STEP)?;
        self.make(span, value.own_bytes())?;
        Ok(value)
    }

    /// Evaluates arguments and holds them against what the function takes.
    fn arguments(
        &mut self,
        dot: &Value,
        function: &Function,
        span: &Range<usize>,
        args: &'t [Expr],
        last: Option<Value>,
    ) -> Result<Vec<Value>, Failure> {
        let given = args.len() + usize::from(last.is_some());
        let (want, name) = (function.params.len(), function.name);
        if function.rest.is_some() && given < want {
            let text = format!("wrong number of args for {name}: want at least {want} got {given}");
            return Err(self.failure(span, text));
        }
        if function.rest.is_none() && given != want {
            return Err(
                self.failure(span, format!("wrong number of args for {name}: want {want} got {given}"))
            );
        }
        let mut values = Vec::with_capacity(given);
        for arg in args {
            let value = self.word(dot, arg)?;
            let accepted = function.accept(values.len(), value);
            values.push(accepted.map_err(|text| self.failure(&arg.span, text))?);
        }
        if let Some(value) = last {
            let accepted = function.accept(values.len(), value);
            values.push(accepted.map_err(|text| self.failure(span, text))?);
        }
        Ok(values)
    }

    /// `and` and `or`: the first argument that decides, and no argument behind it is evaluated.
    fn decide(
        &mut self,
        dot: &Value,
        wanted: bool,
        span: &Range<usize>,
        args: &'t [Expr],
        last: Option<Value>,
    ) -> Result<Value, Failure> {
        if args.is_empty() && last.is_none() {
            let name = if wanted { "or" } else { "and" };
            let text = format!("wrong number of args for {name}: want at least 1 got 0");
            return Err(self.failure(span, text));
        }
        let mut value = Value::Nil;
        for arg in args {
            value = self.word(dot, arg)?;
            if value.truth() == wanted {
                return Ok(value);
            }
        }
        Ok(last.unwrap_or(value))
    }

    /// A defined template's output as a value.
    fn execute_template(
        &mut self,
        dot: &Value,
        span: &Range<usize>,
        args: &'t [Expr],
        last: Option<Value>,
    ) -> Result<Value, Failure> {
        let mut values = Vec::new();
        for arg in args {
            values.push(self.word(dot, arg)?);
        }
        values.extend(last);
        let (name, cursor) = match values.as_slice() {
            [Value::Text(name)] => (name, Value::Nil),
            [Value::Text(name), cursor] => (name, cursor.clone()),
            [_] | [_, _] => {
                return Err(self.failure(span, "executeTemplate: the name is text".to_owned()));
            }
            _ => {
                let count = values.len();
                let text =
                    format!("executeTemplate: wrong number of arguments, expected 1 or 2, but got {count}");
                return Err(self.failure(span, text));
            }
        };
        let name = name.lossy();
        let template = self.template;
        let Some((name, _)) = template.trees.defined.get_key_value(name.as_ref()) else {
            let text = format!("error calling executeTemplate: no template {name:?} is defined");
            return Err(self.failure(span, text));
        };
        let inner = self.run.sink();
        let outer = std::mem::replace(&mut self.out, inner);
        let result = self.template(&cursor, name, span);
        let inner = std::mem::replace(&mut self.out, outer);
        result?;
        let bytes = inner.finish().map_err(|text| self.failure(span, format!("the output is {text}")))?;
        self.make(span, bytes.len())?;
        Ok(Value::text(bytes))
    }

    fn enter(&mut self, span: &Range<usize>) -> Result<(), Failure> {
        self.depth += 1;
        if self.depth > self.run.limits.depth_max {
            let max = self.run.limits.depth_max;
            return Err(self.failure(span, format!("exceeded maximum template depth ({max})")));
        }
        Ok(())
    }

    fn step(&mut self, span: &Range<usize>, count: usize) -> Result<(), Failure> {
        self.run.step(count).map_err(|text| self.failure(span, text))
    }

    fn make(&mut self, span: &Range<usize>, bytes: usize) -> Result<(), Failure> {
        self.run.make(bytes).map_err(|text| self.failure(span, text))
    }

    fn check_output(&mut self, span: &Range<usize>) -> Result<(), Failure> {
        if self.out.is_full() {
            return Err(self.failure(span, "the output is too long".to_owned()));
        }
        Ok(())
    }

    fn failure(&self, span: &Range<usize>, text: String) -> Failure {
        let error = Error::new(&self.template.source, &self.template.text, Mistake::at(span.start, text));
        Box::new(error.within(self.name, &self.template.text[span.clone()]))
    }
}

/// Whether a name fits a pattern in which `*` stands for any characters.
fn matches_glob(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    let mut left = name;
    for part in parts {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}
