//! The HTTP edge: `/v1` handlers, one file per area; blocking queries; JSON.
//!
//! One reactor task per edge core owns that core's connections (entries of a slab, no task each). A request
//! goes through [`policy`] (what the configuration says about it) and [`router`] to an area's handler, which gives
//! an [`exchange::Outcome`]. Answers of reads are remembered by the bytes of the request ([`cache`]).

pub mod area;
pub mod catalog;
mod catalog_body;
mod decode;
pub mod exchange;
pub mod filter;
pub mod gzip;
pub mod health;
pub mod json;
pub mod kv;
pub mod limits;
pub mod policy;
pub mod query;
pub mod router;
pub mod services;
pub mod status;
mod tags;
pub mod ui;

use std::sync::Arc;

use crate::config::Config;
use crate::consensus::Proposals;
use crate::store::State;

/// What handlers work with: one for each edge core.
pub struct Edge {
    config: Arc<Config>,
    state: Arc<State>,
    proposals: Proposals,
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

    /// The door for writes.
    pub fn proposals(&self) -> &Proposals {
        &self.proposals
    }
}
