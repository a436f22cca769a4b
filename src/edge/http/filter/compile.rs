//! Checks a parsed expression against the description of its rows, and runs it on them.

use std::fmt;

use regex::{Regex, RegexBuilder};

use super::FILTER_REGEX_BYTES_MAX;
use super::ast::{Expr, Match, Op};
use super::parse::parse;
use super::quote::quoted;
use super::rows::{Row, Value};
use super::schema::{Field, Kind};

/// An expression ready to run on rows of one kind.
#[derive(Debug)]
pub struct Filter {
    root: Node,
}

/// Why an expression was refused; its text is the whole message clients get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError(String);

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Failed to create boolean expression evaluator: {}", self.0)
    }
}

impl std::error::Error for FilterError {}

impl Filter {
    /// Parses and checks an expression; `None` for the empty one, which chooses every row.
    ///
    /// # Errors
    /// With go-bexpr's texts: bad syntax, an unknown selector, a test the field does not take, a value that
    /// does not fit the field, a bad regular expression.
    pub fn compile(text: &str, fields: &'static [Field]) -> Result<Option<Filter>, FilterError> {
        if text.is_empty() {
            return Ok(None);
        }
        let root = parse(text).and_then(|expr| node(&expr, fields)).map_err(FilterError)?;
        Ok(Some(Filter { root }))
    }

    /// Whether the expression chooses this row, which must be of the kind it was compiled for.
    pub fn matches(&self, row: &dyn Row) -> bool {
        self.root.holds(row)
    }
}

#[derive(Debug)]
enum Node {
    Or(Vec<Node>),
    And(Vec<Node>),
    Not(Box<Node>),
    Test(Test),
}

impl Node {
    fn holds(&self, row: &dyn Row) -> bool {
        match self {
            Node::Or(terms) => terms.iter().any(|term| term.holds(row)),
            Node::And(terms) => terms.iter().all(|term| term.holds(row)),
            Node::Not(inner) => !inner.holds(row),
            Node::Test(test) => test.descend(Value::Row(row), &test.steps, None),
        }
    }
}

/// One test: the way to the field, and what to do there.
#[derive(Debug)]
struct Test {
    steps: Vec<Step>,
    op: Op,
    operand: Operand,
}

/// One part of a selector and the kind of value it leads to.
#[derive(Debug)]
struct Step {
    name: String,
    kind: &'static Kind,
}

#[derive(Debug)]
enum Operand {
    None,
    Text(String),
    Number(i64),
    Flag(bool),
    Pattern(Regex),
}

impl Test {
    fn descend(&self, value: Value<'_>, steps: &[Step], kind: Option<&'static Kind>) -> bool {
        let Some((step, rest)) = steps.split_first() else {
            return self.leaf(&value) != self.op.negated();
        };
        match (value, kind) {
            (Value::Row(row), _) => self.descend(row.field(&step.name), rest, Some(step.kind)),
            (Value::Rows(rows), _) => rows.any(&mut |row| self.descend(Value::Row(row), steps, None)),
            (Value::Map(map), _) => match map.get(&step.name) {
                Some(value) => self.descend(value, rest, Some(step.kind)),
                None => self.absent_key(),
            },
            (Value::Zero, Some(Kind::Object(_))) => self.descend(Value::Zero, rest, Some(step.kind)),
            (Value::Zero, Some(Kind::TextMap | Kind::ObjectMap(_))) => self.absent_key(),
            // An empty list holds nothing that could pass a test; no other kind has fields.
            _ => false,
        }
    }

    /// Consul's rule for a key that a map does not hold; that `matches` holds then is how it answers.
    fn absent_key(&self) -> bool {
        !matches!(self.op, Op::Equal | Op::IsNotEmpty | Op::In)
    }

    /// The test without its negation.
    fn leaf(&self, value: &Value<'_>) -> bool {
        match (self.op, value, &self.operand) {
            (Op::IsEmpty | Op::IsNotEmpty, value, _) => match value {
                Value::Zero => true,
                Value::Texts(texts) => texts.is_empty(),
                Value::Map(map) => map.is_empty(),
                Value::Rows(rows) => rows.is_empty(),
                _ => false,
            },
            (Op::Equal | Op::NotEqual, Value::Text(text), Operand::Text(wanted)) => text == wanted,
            (Op::Equal | Op::NotEqual, Value::Number(number), Operand::Number(wanted)) => number == wanted,
            (Op::Equal | Op::NotEqual, Value::Flag(flag), Operand::Flag(wanted)) => flag == wanted,
            (Op::Equal | Op::NotEqual, Value::Zero, operand) => match operand {
                Operand::Text(wanted) => wanted.is_empty(),
                Operand::Number(wanted) => *wanted == 0,
                Operand::Flag(wanted) => !wanted,
                Operand::None | Operand::Pattern(_) => false,
            },
            (Op::In | Op::NotIn, value, Operand::Text(wanted)) => match value {
                Value::Text(text) => text.contains(wanted.as_str()),
                Value::Texts(texts) => texts.contains(wanted),
                Value::Map(map) => map.get(wanted).is_some(),
                _ => false,
            },
            (_, Value::Text(text), Operand::Pattern(pattern)) => pattern.is_match(text),
            (_, Value::Zero, Operand::Pattern(pattern)) => pattern.is_match(""),
            _ => false,
        }
    }
}

fn node(expr: &Expr, fields: &'static [Field]) -> Result<Node, String> {
    let nodes = |terms: &[Expr]| terms.iter().map(|term| node(term, fields)).collect::<Result<_, _>>();
    Ok(match expr {
        Expr::Or(terms) => Node::Or(nodes(terms)?),
        Expr::And(terms) => Node::And(nodes(terms)?),
        Expr::Not(inner) => Node::Not(Box::new(node(inner, fields)?)),
        Expr::Match(test) => Node::Test(check(test, fields)?),
    })
}

fn check(test: &Match, fields: &'static [Field]) -> Result<Test, String> {
    let steps = resolve(&test.selector, fields)?;
    let selector = quoted(&test.selector.join("."));
    let kind = steps.last().expect("a parsed selector has a part").kind;
    if !kind.supports(test.op) {
        return Err(format!("Invalid match operator \"{}\" for selector {selector}", test.op.name()));
    }
    let operand = match &test.value {
        None => Operand::None,
        Some(value) if matches!(test.op, Op::Matches | Op::NotMatches) => Operand::Pattern(pattern(value)?),
        Some(value) => coerce(value, kind).map_err(|reason| {
            format!("Failed to coerce value {} for selector {selector}: {reason}", quoted(value))
        })?,
    };
    Ok(Test { steps, op: test.op, operand })
}

fn resolve(selector: &[String], fields: &'static [Field]) -> Result<Vec<Step>, String> {
    let mut steps = Vec::with_capacity(selector.len());
    let mut level = Level::Fields(fields);
    for (position, name) in selector.iter().enumerate() {
        let kind = level
            .find(name)
            .ok_or_else(|| format!("Selector {} is not valid", quoted(&selector[..=position].join("."))))?;
        steps.push(Step { name: name.clone(), kind });
        level = Level::of(kind);
    }
    Ok(steps)
}

/// What may follow a part of a selector.
enum Level {
    Fields(&'static [Field]),
    AnyKey(&'static Kind),
    Nothing,
}

static TEXT: Kind = Kind::Text;

impl Level {
    fn of(kind: &'static Kind) -> Level {
        match kind {
            Kind::Object(fields) | Kind::Objects(fields) => Level::Fields(fields),
            Kind::TextMap => Level::AnyKey(&TEXT),
            Kind::ObjectMap(object) => Level::AnyKey(object),
            Kind::Text | Kind::Number | Kind::Flag | Kind::Texts => Level::Nothing,
        }
    }

    fn find(&self, name: &str) -> Option<&'static Kind> {
        match self {
            Level::Fields(fields) => fields.iter().find(|field| field.name == name).map(|field| &field.kind),
            Level::AnyKey(kind) => Some(kind),
            Level::Nothing => None,
        }
    }
}

fn pattern(value: &str) -> Result<Regex, String> {
    go_pattern(value).map_err(|why| format!("Failed to compile regular expression {}: {why}", quoted(value)))
}

/// A regular expression from outside.
///
/// # Errors
/// In the words of Go's `regexp`, as far as they are known here.
pub fn go_pattern(value: &str) -> Result<Regex, String> {
    RegexBuilder::new(value).size_limit(FILTER_REGEX_BYTES_MAX).build().map_err(|reason| {
        // The library's message spans lines and draws arrows; its last line says what is wrong.
        let reason = reason.to_string();
        let last = reason.lines().last().unwrap_or_default();
        let said = GO_REGEX_WORDS.iter().find(|(ours, _)| last.contains(ours)).map_or(last, |(_, go)| go);
        let said = said.trim_start_matches("error: ");
        // Go shows the operator alone.
        let operator = value.get(..1).filter(|_| said == "missing argument to repetition operator");
        format!("error parsing regexp: {said}: `{}`", operator.unwrap_or(value))
    })
}

/// The commonest mistakes in the words of Go's `regexp`.
const GO_REGEX_WORDS: &[(&str, &str)] = &[
    ("unclosed group", "missing closing )"),
    ("unopened group", "unexpected )"),
    ("unclosed character class", "missing closing ]"),
    ("repetition operator missing expression", "missing argument to repetition operator"),
    ("unrecognized escape sequence", "invalid escape sequence"),
    ("incomplete escape sequence", "trailing backslash at end of expression"),
    ("exceeds size limit", "expression too large"),
];

/// The value as the field's kind needs it, or Go's complaint.
fn coerce(value: &str, kind: &Kind) -> Result<Operand, String> {
    match kind {
        Kind::Number => match whole_number(value) {
            Ok(number) => Ok(Operand::Number(number)),
            Err(reason) => Err(format!("strconv.ParseInt: parsing {}: {reason}", quoted(value))),
        },
        Kind::Flag => match value {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Operand::Flag(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Operand::Flag(false)),
            _ => Err(format!("strconv.ParseBool: parsing {}: invalid syntax", quoted(value))),
        },
        _ => Ok(Operand::Text(value.to_owned())),
    }
}

/// Go's `strconv.ParseInt(value, 0, 64)`: a sign, a prefix for the base, underscores between digits.
fn whole_number(value: &str) -> Result<i64, &'static str> {
    let (negative, digits) = match value.as_bytes().first() {
        Some(b'-') => (true, &value[1..]),
        Some(b'+') => (false, &value[1..]),
        _ => (false, value),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, &lower[..]),
    };
    let based = radix != 10;
    let misplaced = digits.contains("__")
        || digits.ends_with('_')
        || (!based && digits.starts_with('_'))
        || digits.is_empty();
    if misplaced || !digits.chars().all(|c| c == '_' || c.is_digit(radix)) {
        return Err("invalid syntax");
    }
    let magnitude = digits
        .chars()
        .filter_map(|c| c.to_digit(radix))
        .try_fold(0i128, |sum, digit| {
            let sum = sum * i128::from(radix) + i128::from(digit);
            (sum <= i128::from(u64::MAX)).then_some(sum)
        })
        .ok_or("value out of range")?;
    i64::try_from(if negative { -magnitude } else { magnitude }).map_err(|_| "value out of range")
}
