//! The HTTP edge: `/v1` handlers, one file per area; blocking queries; JSON.

pub mod filter;
pub mod json;
