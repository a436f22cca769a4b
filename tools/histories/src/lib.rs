//! What clients of a key-value store saw, and whether it can be true.
//!
//! A history is a list of [`Operation`]s: what was asked, when it was asked and answered, and what the answer was. Three
//! checkers judge it; none of them knows anything of the program that made the answers.
//!
//! - [`witness`]: each answer carries the index of the log at which it was true. Sorted by that index, a plain model
//!   must give the same answers, and the order of indexes must respect real time. O(n log n), explains what
//!   it finds, takes the indexes at their word.
//! - [`linear`]: a search, key by key, for any order that respects real time and explains the values. Trusts
//!   no index, so it also finds an index that lies. For samples: its worst case is exponential.
//! - [`watch`]: blocking queries return when, and only when, what they asked about has changed.
//!
//! Values are unique in one history, so that a value tells which write made it.

pub mod linear;
pub mod model;
pub mod watch;
pub mod witness;

use std::fmt;

/// A moment on the one clock that all operations were recorded with, nanoseconds.
pub type Time = u64;

/// A key; the recorder numbers the names.
pub type Key = u32;

/// What a key holds. Never written twice in one history.
pub type Value = u64;

/// The value of a key and the index of the write that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// What was written.
    pub value: Value,
    /// Index of that write.
    pub modified: u64,
}

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Reads a key.
    Get(Key),
    /// Writes a key.
    Set(Key, Value),
    /// Writes a key if it still is what the client saw (`None`: absent).
    Cas(Key, Option<Row>, Value),
    /// Removes a key; absent is fine.
    Delete(Key),
    /// Removes a key if it still is what the client saw; absent is fine and answers true.
    DeleteCas(Key, Row),
    /// Removes several keys at once.
    DeleteAll(Vec<Key>),
    /// Replaces the whole store.
    Restore(Vec<(Key, Value)>),
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Of a read.
    Row(Option<Row>),
    /// Of a write.
    Done,
    /// Of a conditional write: whether it took place.
    Condition(bool),
    /// Certainly nothing happened.
    Refused,
    /// No answer, or one that says that nobody knows: it may have happened, or may yet.
    Lost,
}

/// What a read promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// As if there were one copy (all writes too).
    Linearizable,
    /// Some state that was true once; this one copy never goes back.
    Prefix {
        /// The copy: one run of one server.
        copy: u32,
    },
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asked. A client asks one thing at a time.
    pub client: u32,
    /// What.
    pub ask: Ask,
    /// How a read was asked.
    pub promise: Promise,
    /// When it was sent.
    pub called: Time,
    /// When the answer was there; without meaning if it was lost.
    pub returned: Time,
    /// The answer.
    pub answer: Answer,
    /// Index of the log at which the answer was true. A lost write may have one too: if it is known that and where it
    /// happened.
    pub index: Option<u64>,
}

impl Ask {
    /// Whether it changes nothing.
    pub fn is_read(&self) -> bool {
        matches!(self, Ask::Get(_))
    }

    /// Whether it looks at or may change `key`.
    pub fn concerns(&self, key: Key) -> bool {
        match self {
            Ask::Get(k) | Ask::Set(k, _) | Ask::Cas(k, ..) | Ask::Delete(k) | Ask::DeleteCas(k, _) => {
                *k == key
            }
            Ask::DeleteAll(keys) => keys.contains(&key),
            Ask::Restore(_) => true,
        }
    }
}

/// A history that cannot be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Name of the rule, for tables.
    pub rule: &'static str,
    /// What was seen and what would have been right.
    pub story: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.rule, self.story)
    }
}

impl std::error::Error for Violation {}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An operation of client 0 between two moments.
    pub(crate) fn op(called: Time, returned: Time, ask: Ask, answer: Answer, index: u64) -> Operation {
        let promise = Promise::Linearizable;
        Operation { client: 0, ask, promise, called, returned, answer, index: Some(index) }
    }

    /// A write without an answer.
    pub(crate) fn lost(called: Time, ask: Ask) -> Operation {
        let promise = Promise::Linearizable;
        Operation { client: 1, ask, promise, called, returned: called, answer: Answer::Lost, index: None }
    }

    pub(crate) fn row(value: Value, modified: u64) -> Option<Row> {
        Some(Row { value, modified })
    }

    pub(crate) fn saw(value: Value, modified: u64) -> Answer {
        Answer::Row(row(value, modified))
    }
}
