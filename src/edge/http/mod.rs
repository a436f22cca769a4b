//! The HTTP edge: `/v1` handlers, one file per area; blocking queries; JSON.
//!
//! One reactor task per edge core owns that core's connections (entries of a slab, no task each). A request
//! goes through [`policy`] (what the configuration says about it) and [`router`] to an area's handler, which gives
//! an [`exchange::Outcome`]. Answers of reads are remembered by the bytes of the request ([`cache`]).

pub mod acl;
pub mod agent;
pub mod agent_check;
mod agent_host;
mod agent_self;
pub mod agent_service;
mod agent_stats;
mod agents;
pub mod area;
#[cfg(test)]
mod area_tests;
mod barriers;
mod budget;
pub mod cache;
pub mod cached;
pub mod catalog;
mod catalog_body;
pub mod clock;
pub mod connection;
pub mod coordinate;
mod debug_config;
mod decode;
pub mod event;
pub mod exchange;
pub mod explain;
pub mod filter;
pub mod gzip;
pub mod health;
pub mod index;
mod internal;
pub mod json;
pub mod keyring;
pub mod kv;
pub mod limits;
mod locks;
mod near;
pub mod operator;
mod operator_body;
pub mod park;
pub mod policy;
pub mod query;
mod reading;
mod relay;
pub mod remembered;
pub mod respond;
pub mod router;
mod serve;
pub mod server;
pub mod services;
pub mod session;
pub mod snapshot;
mod spooling;
pub mod status;
pub mod stream;
mod tags;
#[cfg(test)]
mod tests;
pub mod tls;
mod told;
mod trunk;
pub mod txn;
mod txn_body;
pub mod ui;
pub mod view;

use std::sync::Arc;

use crate::agent::{Door, LocalState};
use crate::config::Config;
use crate::consensus::{Proposals, ProposeError};
use crate::edge::fresh::Leadership;
use crate::membership::{self, Roster};
use crate::runtime::publish::Published;
use crate::store::State;
use crate::upstream::Upstream;

use locks::LockQueues;
use router::{Router, Scope};

/// What handlers work with: one for each edge core.
pub struct Edge {
    config: Published<Config>,
    state: Published<State>,
    proposals: Proposals,
    local: Published<LocalState>,
    agent: Door,
    leadership: Leadership,
    roster: Published<Roster>,
    membership: membership::Door,
    upstream: Option<Upstream>,
    locks: LockQueues,
}

impl Edge {
    /// For one core, from what the control core publishes.
    pub fn new(
        config: Published<Config>,
        state: Published<State>,
        proposals: Proposals,
        local: Published<LocalState>,
        agent: Door,
    ) -> Edge {
        let leadership = Leadership::Real(proposals.clone());
        let (roster, membership) = (Published::new(Roster::default()), membership::Door::closed());
        let locks = LockQueues::default();
        Edge { config, state, proposals, local, agent, leadership, roster, membership, upstream: None, locks }
    }

    /// The same, of an agent that takes part in a membership.
    #[must_use]
    pub fn with_members(self, roster: Published<Roster>, membership: membership::Door) -> Edge {
        Edge { roster, membership, ..self }
    }

    /// The same, of an agent that is no server and asks those.
    #[must_use]
    pub fn with_upstream(self, upstream: Option<Upstream>) -> Edge {
        Edge { upstream, ..self }
    }

    /// The way to the servers, on an agent that is none.
    pub fn upstream(&self) -> Option<&Upstream> {
        self.upstream.as_ref()
    }

    /// The same, with others to tell how the state stands: a client agent's is made of what it keeps.
    #[must_use]
    pub fn with_leadership(self, leadership: Leadership) -> Edge {
        Edge { leadership, ..self }
    }

    /// The members that are known; none on an agent that takes no part in a membership.
    pub fn roster(&self) -> Arc<Roster> {
        self.roster.load_full()
    }

    /// The door to the membership.
    pub fn membership(&self) -> &membership::Door {
        &self.membership
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// The replicated state as of now. Handlers render through [`exchange::Read`] instead, which knows when to do
    /// so again.
    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
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

    /// Who tells how reads stand to the leader.
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// Who waits for locks.
    fn locks(&self) -> &LockQueues {
        &self.locks
    }

    /// Refuses what only servers can answer on an agent that is none and knows none, as Consul's clients without
    /// servers do.
    fn require_server(&self) -> Result<(), exchange::Response> {
        if self.proposals.has_server() { Ok(()) } else { Err(area::refusal(&ProposeError::NoServers)) }
    }
}

/// The table of all areas.
pub fn routes() -> Router {
    let mut router = Router::new();
    let local = [
        acl::ROUTES,
        agent::ROUTES,
        agent_check::ROUTES,
        agent_service::ROUTES,
        event::LIST,
        explain::ROUTES,
        index::ROUTES,
        keyring::ROUTES,
        ui::ROUTES,
    ];
    let servers = [
        catalog::ROUTES,
        coordinate::ROUTES,
        event::FIRE,
        health::ROUTES,
        kv::ROUTES,
        operator::ROUTES,
        services::ROUTES,
        session::ROUTES,
        snapshot::ROUTES,
        status::ROUTES,
        txn::ROUTES,
    ];
    let internal = [internal::ROUTES, view::ROUTES];
    local.into_iter().for_each(|area| router.add(area, Scope::Local));
    servers.into_iter().for_each(|area| router.add(area, Scope::Server));
    internal.into_iter().for_each(|area| router.add(area, Scope::Internal));
    router
}
