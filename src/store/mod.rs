//! The replicated state machine: tables, indexes, topics. Deterministic: same commands, same bytes.
//! It reads no clock, does no I/O and never iterates in a random order.

pub mod command;
pub mod model;
pub mod topic;
