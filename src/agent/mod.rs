//! The agent's own services and checks: registration, status, anti-entropy, persistence.
//!
//! [`registry`] is the pure heart; [`driver`] moves it on the control core; other cores read the published
//! [`LocalState`] and ask for changes through the [`Door`].

pub mod catalog;
pub mod door;
pub mod driver;
pub mod error;
pub mod files;
pub mod identity;
pub mod local;
pub mod persist;
pub mod plan;
pub mod registry;
pub mod rexec;
pub mod sync;

pub use catalog::Catalog;
pub use door::{Door, Doorway, door};
pub use driver::{Agent, Hooks, LocalFuture, Parts};
pub use error::AgentError;
pub use local::{Aggregate, LocalCheck, LocalService, LocalState, Source};
