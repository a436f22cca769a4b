//! The parser: recursive descent, one function per rule of go-bexpr's grammar, in its order of alternatives.
//!
//! It differs in cost only: where the grammar would read an operand again to see whether an `and`, an `or` or
//! a closing parenthesis follows, this reads on from where it is, so the time is linear in the text.

use super::ast::{Expr, Match, Op};
use super::failures::Failures;
use super::quote::unquote;
use super::{FILTER_BYTES_MAX, FILTER_DEPTH_MAX};

/// Parses an expression.
///
/// # Errors
/// The message go-bexpr gives for the same text, or one that names the limit that was passed.
pub fn parse(text: &str) -> Result<Expr, String> {
    if text.len() > FILTER_BYTES_MAX {
        return Err(format!(
            "expression of {} bytes exceeds the limit of {FILTER_BYTES_MAX} bytes: split the query",
            text.len()
        ));
    }
    let mut parser = Parser { text, at: 0, depth: 0, too_deep: false, failures: Failures::default() };
    let parsed = parser.input();
    match parsed {
        _ if parser.too_deep => {
            Err(format!("expression nests deeper than {FILTER_DEPTH_MAX} levels: remove parentheses"))
        }
        Some(expr) if !parser.failures.faulty() => Ok(expr),
        _ => Err(parser.failures.message(text)),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    too_deep: bool,
    failures: Failures,
}

impl Parser<'_> {
    fn input(&mut self) -> Option<Expr> {
        self.maybe_space();
        let expr = self.or_expression()?;
        self.maybe_space();
        self.end().then_some(expr)
    }

    fn or_expression(&mut self) -> Option<Expr> {
        let mut terms = vec![self.and_expression()?];
        while let Some(term) = self.attempt(|p| {
            p.word("\"or\"")?;
            p.space()?;
            p.and_expression()
        }) {
            terms.push(term);
        }
        Some(Expr::or(terms))
    }

    fn and_expression(&mut self) -> Option<Expr> {
        let mut terms = vec![self.not_expression()?];
        while let Some(term) = self.attempt(|p| {
            p.word("\"and\"")?;
            p.space()?;
            p.not_expression()
        }) {
            terms.push(term);
        }
        Some(Expr::and(terms))
    }

    fn not_expression(&mut self) -> Option<Expr> {
        let negated = self.attempt(|p| {
            p.literal("\"not\"")?;
            p.space()?;
            p.nested(Self::not_expression)
        });
        match negated {
            Some(inner) => Some(inner.negate()),
            None => self.grouping(),
        }
    }

    fn grouping(&mut self) -> Option<Expr> {
        let grouped = self.attempt(|p| {
            p.literal("\"(\"")?;
            p.maybe_space();
            let inner = p.nested(Self::or_expression)?;
            p.maybe_space();
            if p.literal("\")\"").is_none() {
                p.failures.fault(p.text, p.at, "grouping", "Unmatched parentheses");
                return None;
            }
            Some(inner)
        });
        grouped.or_else(|| self.match_expression().map(Expr::Match))
    }

    fn match_expression(&mut self) -> Option<Match> {
        self.attempt(Self::selector_op_value)
            .or_else(|| self.attempt(Self::selector_op))
            .or_else(|| self.attempt(Self::value_op_selector))
            .or_else(|| self.attempt(Self::value_op_nothing))
    }

    fn selector_op_value(&mut self) -> Option<Match> {
        let selector = self.selector()?;
        let op = self
            .sign("\"==\"", Op::Equal)
            .or_else(|| self.sign("\"!=\"", Op::NotEqual))
            .or_else(|| self.words(&["\"contains\""], Op::In))
            .or_else(|| self.words(&["\"not\"", "\"contains\""], Op::NotIn))
            .or_else(|| self.words(&["\"matches\""], Op::Matches))
            .or_else(|| self.words(&["\"not\"", "\"matches\""], Op::NotMatches))?;
        let value = self.value()?;
        Some(Match { selector, op, value: Some(value) })
    }

    fn selector_op(&mut self) -> Option<Match> {
        let selector = self.selector()?;
        let op = self
            .attempt(|p| {
                p.word("\"is\"")?;
                p.word("\"empty\"")?;
                Some(Op::IsEmpty)
            })
            .or_else(|| {
                self.attempt(|p| {
                    p.word("\"is\"")?;
                    p.word("\"not\"")?;
                    p.word("\"empty\"")?;
                    Some(Op::IsNotEmpty)
                })
            })?;
        Some(Match { selector, op, value: None })
    }

    fn value_op_selector(&mut self) -> Option<Match> {
        let value = self.value()?;
        let op = self.membership()?;
        let selector = self.selector()?;
        Some(Match { selector, op, value: Some(value) })
    }

    /// Only reached for its message.
    fn value_op_nothing(&mut self) -> Option<Match> {
        self.value()?;
        self.membership()?;
        let start = self.at;
        self.failures.invert();
        let selector = self.selector();
        self.failures.invert();
        self.at = start;
        if selector.is_none() {
            self.failures.fault(self.text, self.at, "match", "Invalid selector");
        }
        None
    }

    fn membership(&mut self) -> Option<Op> {
        self.words(&["\"in\""], Op::In).or_else(|| self.words(&["\"not\"", "\"in\""], Op::NotIn))
    }

    fn selector(&mut self) -> Option<Vec<String>> {
        let mut selector = vec![self.identifier()?];
        loop {
            let part = self
                .attempt(|p| {
                    p.literal("\".\"")?;
                    p.identifier()
                })
                .or_else(|| self.index());
            match part {
                Some(part) => selector.push(part),
                None => return Some(selector),
            }
        }
    }

    fn identifier(&mut self) -> Option<String> {
        let start = self.at;
        self.class("[a-zA-Z]", |c| c.is_ascii_alphabetic())?;
        while self.class("[a-zA-Z0-9_]", |c| c.is_ascii_alphanumeric() || c == '_').is_some() {}
        Some(self.text[start..self.at].to_owned())
    }

    fn index(&mut self) -> Option<String> {
        let part = self.attempt(|p| {
            p.literal("\"[\"")?;
            p.maybe_space();
            let part = p.string()?;
            p.maybe_space();
            p.literal("\"]\"")?;
            Some(part)
        });
        part.or_else(|| self.attempt(Self::index_fault))
    }

    /// Only reached for its message.
    fn index_fault(&mut self) -> Option<String> {
        self.literal("\"[\"")?;
        self.maybe_space();
        let start = self.at;
        self.failures.invert();
        let part = self.string();
        self.failures.invert();
        if part.is_none() {
            self.at = start;
            self.failures.fault(self.text, self.at, "index", "Invalid index");
            return None;
        }
        self.maybe_space();
        if self.not_literal("\"]\"") {
            self.failures.fault(self.text, self.at, "index", "Unclosed index expression");
        }
        None
    }

    fn value(&mut self) -> Option<String> {
        self.attempt(|p| p.selector().map(|selector| selector.join(".")))
            .or_else(|| self.number())
            .or_else(|| self.string())
    }

    fn number(&mut self) -> Option<String> {
        let start = self.at;
        let number = self.attempt(|p| {
            let _ = p.literal("\"-\"");
            p.integer_or_float()?;
            let end = p.at;
            let ended = p.after_numbers();
            p.at = end;
            if !ended {
                p.failures.fault(p.text, p.at, "number", "Invalid number literal");
                return None;
            }
            Some(())
        });
        number.map(|()| self.text[start..self.at].to_owned())
    }

    fn after_numbers(&mut self) -> bool {
        self.space().is_some() || self.end() || self.literal("\")\"").is_some()
    }

    fn integer_or_float(&mut self) -> Option<()> {
        if self.literal("\"0\"").is_none() {
            self.class("[1-9]", |c| matches!(c, '1'..='9'))?;
            while self.class("[0-9]", |c| c.is_ascii_digit()).is_some() {}
        }
        let _ = self.attempt(|p| {
            p.literal("\".\"")?;
            p.class("[0-9]", |c| c.is_ascii_digit())?;
            while p.class("[0-9]", |c| c.is_ascii_digit()).is_some() {}
            Some(())
        });
        Some(())
    }

    fn string(&mut self) -> Option<String> {
        let start = self.at;
        for mark in ["\"`\"", "\"\\\"\""] {
            if self.literal(mark).is_none() {
                continue;
            }
            while self.not_literal(mark) && self.any() {}
            if self.literal(mark).is_none() {
                // Only the end of the text stops the loop before the closing mark.
                self.failures.fault(self.text, self.at, "string", "Unterminated string literal");
                self.at = start;
                return None;
            }
            return match unquote(&self.text[start..self.at]) {
                Some(content) => Some(content),
                None => {
                    self.failures.fault(self.text, start, "string", "invalid syntax");
                    Some(String::new())
                }
            };
        }
        None
    }

    /// An operator of signs, with optional blanks around it.
    fn sign(&mut self, sign: &'static str, op: Op) -> Option<Op> {
        self.attempt(|p| {
            p.maybe_space();
            p.literal(sign)?;
            p.maybe_space();
            Some(op)
        })
    }

    /// An operator of words, with blanks before, between and after them.
    fn words(&mut self, words: &[&'static str], op: Op) -> Option<Op> {
        self.attempt(|p| {
            for word in words {
                p.word(word)?;
            }
            p.space()?;
            Some(op)
        })
    }

    fn word(&mut self, word: &'static str) -> Option<()> {
        self.space()?;
        self.literal(word)
    }

    fn maybe_space(&mut self) {
        let _ = self.space();
    }

    fn space(&mut self) -> Option<()> {
        let blank = |c| matches!(c, ' ' | '\t' | '\r' | '\n');
        self.class("[ \\t\\r\\n]", blank)?;
        while self.class("[ \\t\\r\\n]", blank).is_some() {}
        Some(())
    }

    /// The end of the text.
    fn end(&mut self) -> bool {
        self.failures.invert();
        let start = self.at;
        let more = self.any();
        self.at = start;
        self.failures.invert();
        !more
    }

    fn any(&mut self) -> bool {
        let next = self.text[self.at..].chars().next();
        self.failures.tried(next.is_some(), self.at, ".");
        self.at += next.map_or(0, char::len_utf8);
        next.is_some()
    }

    /// Whether a literal does not stand here; moves nowhere.
    fn not_literal(&mut self, shown: &'static str) -> bool {
        let start = self.at;
        self.failures.invert();
        let found = self.literal(shown).is_some();
        self.failures.invert();
        self.at = start;
        !found
    }

    /// A fixed text, given as messages show it: in double quotes.
    fn literal(&mut self, shown: &'static str) -> Option<()> {
        let text = match shown {
            "\"\\\"\"" => "\"",
            other => &other[1..other.len() - 1],
        };
        let found = self.text[self.at..].starts_with(text);
        self.failures.tried(found, self.at, shown);
        found.then(|| self.at += text.len())
    }

    /// One character of a class, given as messages show it.
    fn class(&mut self, shown: &'static str, member: impl Fn(char) -> bool) -> Option<()> {
        let next = self.text[self.at..].chars().next().filter(|c| member(*c));
        self.failures.tried(next.is_some(), self.at, shown);
        next.map(|c| self.at += c.len_utf8())
    }

    /// Runs a rule one level deeper.
    fn nested<T>(&mut self, rule: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        if self.depth == FILTER_DEPTH_MAX {
            self.too_deep = true;
            return None;
        }
        self.depth += 1;
        let result = rule(self);
        self.depth -= 1;
        result
    }

    /// Runs a rule; if it fails, nothing has been read.
    fn attempt<T>(&mut self, rule: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let start = self.at;
        let result = if self.too_deep { None } else { rule(self) };
        if result.is_none() {
            self.at = start;
        }
        result
    }
}
