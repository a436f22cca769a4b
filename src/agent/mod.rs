//! The agent's own services and checks: registration, status, anti-entropy, persistence.

pub mod error;
pub mod local;

pub use error::AgentError;
pub use local::{Aggregate, LocalCheck, LocalService, LocalState, Source};
