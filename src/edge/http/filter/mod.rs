//! Filter expressions (`?filter=Service.Port == 80 and "a" in Service.Tags`): the grammar of hashicorp/go-bexpr
//! v0.1.2, its precedence and its error texts.
//!
//! An expression is parsed ([`parse`]), checked once against a static description of the rows it is to choose
//! from ([`schema`]), and then run on typed rows ([`Filter::matches`]) without building any intermediate
//! document. It reads nothing but its arguments. Both its length and its nesting are bounded, which the
//! original leaves open (an unclosed `((((...` costs it exponential time).

pub mod ast;
pub mod compile;
mod failures;
pub mod parse;
pub use crate::store::quote;
pub mod rows;
pub mod schema;

pub use compile::{Filter, FilterError, go_pattern};
pub use rows::{CatalogService, NodeInfo, Row, Rows, ServiceEntry, Value};

/// Longest accepted expression, bytes.
pub const FILTER_BYTES_MAX: usize = 16 * 1024;

/// Deepest accepted nesting of parentheses and `not`.
pub const FILTER_DEPTH_MAX: usize = 64;

/// Largest compiled form of one regular expression in `matches`, bytes.
pub const FILTER_REGEX_BYTES_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests;
