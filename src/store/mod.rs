//! The replicated state machine: tables, indexes, topics. Deterministic: same commands, same bytes.
//! It reads no clock, does no I/O and never iterates in a random order.
//!
//! [`State`] holds all tables as persistent maps with shared rows, so a clone is a handful of reference counts
//! and a reader on another core keeps the version it loaded for as long as it likes. [`State::apply`] is the only
//! way to change one. A [`Touched`] gathers what a batch changed, and [`Watchers`] finds the parked
//! queries that this concerns. A snapshot is made of a state's [`Section`]s; a [`StateBuilder`] makes it a state again.

mod apply;
mod autopilot;
mod catalog;
#[allow(missing_docs)] // a helper that rkyv derives for a variant cannot carry any
pub mod command;
mod coordinates;
mod fingerprint;
mod graveyard;
mod keys;
mod kv;
mod limits;
mod mirror;
pub mod model;
pub mod quote;
mod reads;
mod rebuild;
mod restore;
mod sections;
mod sessions;
mod state;
#[cfg(test)]
mod tests;
pub mod topic;
mod touched;
mod txn;
mod view;
mod watchers;
mod write;
mod write_checks;

pub use catalog::Instance;
pub use coordinates::{Located, PARTS, parts_of};
pub use keys::KeysUnder;
pub use limits::{
    KEY_GRAVES_MAX, NAME_GRAVES_MAX, RESTORE_LENGTH_MAX, RESTORE_PART_LENGTH_MAX, SECTION_LENGTH,
};
pub use mirror::{MirrorError, OwnRows};
pub use rebuild::{SectionError, StateBuilder};
pub use sections::Section;
pub use sessions::LockDelay;
pub use state::State;
pub use touched::Touched;
pub use view::{VIEW_FORMAT, View};
pub use watchers::{WatchId, Watchers};
