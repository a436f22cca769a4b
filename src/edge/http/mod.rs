//! The HTTP edge: `/v1` handlers, one file per area; blocking queries; JSON.
//!
//! One reactor task per edge core owns that core's connections (entries of a slab, no task each). A request
//! goes through [`policy`] (what the configuration says about it) and [`router`] to an area's handler, which gives
//! an [`exchange::Outcome`]. Answers of reads are remembered by the bytes of the request ([`cache`]).

pub mod exchange;
pub mod filter;
pub mod gzip;
pub mod json;
pub mod limits;
pub mod policy;
pub mod query;
pub mod router;

use std::sync::Arc;

use crate::config::Config;
use crate::store::State;

/// What handlers work with: one for each edge core.
pub struct Edge {
    config: Arc<Config>,
    state: Arc<State>,
}

impl Edge {
    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.config.clone()
    }

    /// The replicated state as of now. Handlers render through [`exchange::Read`] instead, which knows when to do
    /// so again.
    pub fn state(&self) -> Arc<State> {
        self.state.clone()
    }
}
