//! What goes wrong with a template, and where: template, line and column.

use std::fmt;

/// What is wrong at a place of the source.
#[derive(Debug)]
pub struct Mistake {
    /// Where, in bytes.
    pub at: usize,
    /// What.
    pub text: String,
}

/// Why a template cannot be read or executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Name of the source: its path.
    pub source: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The defined template that was executed and the words that failed; `None` for one that cannot be read.
    pub context: Option<(String, String)>,
    /// What happened.
    pub text: String,
}

/// How much of the failing words is shown.
const CONTEXT_MAX: usize = 40;

impl Mistake {
    /// A mistake at a place.
    pub fn at(at: usize, text: impl Into<String>) -> Mistake {
        Mistake { at, text: text.into() }
    }
}

impl Error {
    /// Finds line and column of a place.
    pub(super) fn new(source: &str, text: &str, mistake: Mistake) -> Error {
        let before = &text[..mistake.at.min(text.len())];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Error {
            source: source.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            context: None,
            text: mistake.text,
        }
    }

    /// Says in which template and at which words.
    pub(super) fn within(mut self, template: &str, words: &str) -> Error {
        let shown: String = words.chars().take(CONTEXT_MAX).collect();
        let dots = if shown.len() < words.len() { "..." } else { "" };
        self.context = Some((template.to_owned(), format!("{shown}{dots}")));
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "template: {}:{}:{}: ", self.source, self.line, self.column)?;
        if let Some((template, words)) = &self.context {
            write!(out, "executing {template:?} at <{words}>: ")?;
        }
        out.write_str(&self.text)
    }
}

impl std::error::Error for Error {}
