//! The HTTP edge: `/v1` handlers, one file per area; blocking queries; JSON.
//!
//! One reactor task per edge core owns that core's connections (entries of a slab, no task each). A request
//! goes through [`policy`] (what the configuration says about it) and [`router`] to an area's handler, which gives
//! an [`exchange::Outcome`]. Answers of reads are remembered by the bytes of the request ([`cache`]).

pub mod agent_check;
pub mod agent_service;
pub mod area;
pub mod cached;
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

use crate::agent::{Door, LocalState};
use crate::config::Config;
use crate::consensus::Proposals;
use crate::runtime::publish::Published;
use crate::store::State;

/// What handlers work with: one for each edge core.
pub struct Edge {
    config: Arc<Config>,
    state: Arc<State>,
    proposals: Proposals,
    local: Published<LocalState>,
    agent: Door,
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

    /// What the local agent knows of itself.
    pub fn local(&self) -> Arc<LocalState> {
        self.local.load_full()
    }

    /// The door to the local agent.
    pub fn agent(&self) -> &Door {
        &self.agent
    }

    /// The door for writes.
    pub fn proposals(&self) -> &Proposals {
        &self.proposals
    }
}
