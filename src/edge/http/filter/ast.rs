//! The syntax tree of a filter expression, and its canonical text.

use std::fmt;

use super::quote::literal;

/// A boolean expression. `and` and `or` are flat: never directly inside themselves, never shorter than two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Any of these.
    Or(Vec<Expr>),
    /// All of these.
    And(Vec<Expr>),
    /// The opposite; never directly inside itself.
    Not(Box<Expr>),
    /// A test of one field.
    Match(Match),
}

/// A test of one field against a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Path to the field, such as `Service`, `Meta`, `env`; never empty.
    pub selector: Vec<String>,
    /// The test.
    pub op: Op,
    /// What to compare with; `None` for the tests of emptiness.
    pub value: Option<String>,
}

/// The tests. `contains` is `in` with its sides swapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `in`, `contains`
    In,
    /// `not in`, `not contains`
    NotIn,
    /// `is empty`
    IsEmpty,
    /// `is not empty`
    IsNotEmpty,
    /// `matches`
    Matches,
    /// `not matches`
    NotMatches,
}

impl Op {
    /// The name go-bexpr uses in its error texts.
    pub fn name(self) -> &'static str {
        match self {
            Op::Equal => "Equal",
            Op::NotEqual => "Not Equal",
            Op::In => "In",
            Op::NotIn => "Not In",
            Op::IsEmpty => "Is Empty",
            Op::IsNotEmpty => "Is Not Empty",
            Op::Matches => "Matches",
            Op::NotMatches => "Not Matches",
        }
    }

    /// Whether the test is the opposite of another one.
    pub fn negated(self) -> bool {
        matches!(self, Op::NotEqual | Op::NotIn | Op::IsNotEmpty | Op::NotMatches)
    }

    fn symbol(self) -> &'static str {
        match self {
            Op::Equal => "==",
            Op::NotEqual => "!=",
            Op::In => "contains",
            Op::NotIn => "not contains",
            Op::IsEmpty => "is empty",
            Op::IsNotEmpty => "is not empty",
            Op::Matches => "matches",
            Op::NotMatches => "not matches",
        }
    }
}

impl Expr {
    /// Joins two or more terms with `or`, flattening.
    pub fn or(terms: Vec<Expr>) -> Expr {
        let mut flat = Vec::with_capacity(terms.len());
        for term in terms {
            match term {
                Expr::Or(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        if flat.len() == 1 { flat.remove(0) } else { Expr::Or(flat) }
    }

    /// Joins two or more terms with `and`, flattening.
    pub fn and(terms: Vec<Expr>) -> Expr {
        let mut flat = Vec::with_capacity(terms.len());
        for term in terms {
            match term {
                Expr::And(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        if flat.len() == 1 { flat.remove(0) } else { Expr::And(flat) }
    }

    /// The opposite; two in a row cancel out.
    pub fn negate(self) -> Expr {
        match self {
            Expr::Not(inner) => *inner,
            other => Expr::Not(Box::new(other)),
        }
    }
}

/// Canonical text: parsing it gives the same tree again.
impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Or(terms) => join(f, terms, " or "),
            Expr::And(terms) => join(f, terms, " and "),
            Expr::Not(inner) => {
                f.write_str("not ")?;
                operand(f, inner)
            }
            Expr::Match(test) => write!(f, "{test}"),
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, part) in self.selector.iter().enumerate() {
            match (position, identifier(part)) {
                (0, _) => f.write_str(part)?,
                (_, true) => write!(f, ".{part}")?,
                (_, false) => write!(f, "[{}]", literal(part))?,
            }
        }
        write!(f, " {}", self.op.symbol())?;
        match &self.value {
            Some(value) => write!(f, " {}", literal(value)),
            None => Ok(()),
        }
    }
}

fn join(f: &mut fmt::Formatter<'_>, terms: &[Expr], word: &str) -> fmt::Result {
    for (position, term) in terms.iter().enumerate() {
        if position > 0 {
            f.write_str(word)?;
        }
        operand(f, term)?;
    }
    Ok(())
}

fn operand(f: &mut fmt::Formatter<'_>, term: &Expr) -> fmt::Result {
    match term {
        Expr::Or(_) | Expr::And(_) => write!(f, "({term})"),
        Expr::Not(_) | Expr::Match(_) => write!(f, "{term}"),
    }
}

/// Whether a selector part may be written without brackets.
fn identifier(part: &str) -> bool {
    part.starts_with(|c: char| c.is_ascii_alphabetic())
        && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
