//! What the leader does about the servers of its cluster without being told: new ones join as learners and get a vote
//! once they are stable, dead ones and those that left go. Pure: facts in, steps out.
//!
//! The rules are Consul's (`agent/consul/autopilot`): a dead server is removed while fewer than half of the voters are dead
//! and `min_quorum` of them stay. One change of the servers is under way at a time (Ongaro's thesis, section 4.1),
//! so each look at the facts gives one step at most.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use muster_protocol::entry::{Server, ServerId, Suffrage};

use super::health::ClusterHealth;
use crate::consensus::Standing;
use crate::membership::{Member, MemberStatus, Roster, ServerFacts};
use crate::store::model::AutopilotConfig;

/// How long a server that failed keeps its place: about what one takes to start again with a million keys, twice over.
const PLACE_KEPT: Duration = Duration::from_secs(10);

/// A server that answered the leader more recently than this is not dead, whatever membership believes.
pub const SILENCE_OF_THE_DEAD: Duration = Duration::from_secs(2);

/// One change of the cluster's servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A server came, or is reached at another address.
    Add(Server),
    /// A learner is fit to vote.
    Promote(ServerId),
    /// A voter says of itself now that it shall not vote.
    Demote(ServerId),
    /// A server left.
    RemoveLeft(Server),
    /// Another server has its address now.
    RemoveReplaced(Server),
    /// A server is dead. Membership forgets it too.
    RemoveDead(Server),
}

/// The facts, on a leader.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The replicated configuration.
    pub rules: &'a AutopilotConfig,
    /// The servers of the cluster, and how far they are.
    pub standing: &'a Standing,
    /// The members.
    pub roster: &'a Roster,
    /// The last judgement.
    pub health: &'a ClusterHealth,
    /// Servers that an operator took out of the cluster while they were alive: not let in again at once.
    pub expelled: &'a BTreeMap<ServerId, Instant>,
    /// The time since 1970.
    pub now: Duration,
    /// Whether it is time to look for dead servers.
    pub prune: bool,
}

impl View<'_> {
    /// Decides what to do next.
    ///
    /// # Errors
    /// Dead servers stay, and why; nothing else is to be done.
    pub fn next_step(&self) -> Result<Option<Step>, Stay> {
        if !self.standing.configuration_committed {
            return Ok(None);
        }
        let certain =
            self.left().map(Step::RemoveLeft).or_else(|| self.arrival()).or_else(|| self.change_of_role());
        match certain {
            Some(step) => Ok(Some(step)),
            None if !self.prune => Ok(None),
            None => self.dead().map(|server| server.map(Step::RemoveDead)),
        }
    }

    fn left(&self) -> Option<Server> {
        let gone = |server: &&Server| {
            Some(server.id) != self.standing.id
                && self.roster.server(server.id).is_some_and(|member| member.status == MemberStatus::Left)
        };
        self.standing.configuration.servers.iter().find(gone).cloned()
    }

    /// A member that is alive and not in the configuration as it says of itself. What it replaces goes first: a server
    /// that came back with another ID under the same address.
    fn arrival(&self) -> Option<Step> {
        let own = self.roster.server(self.standing.id?)?;
        let own_cluster = own.server.as_ref()?.cluster;
        let welcome = |member: &Member, facts: &ServerFacts| {
            let cluster = facts.cluster;
            // A server in bootstrap mode starts a cluster of its own, which then shows in its `cluster`.
            let stranger = cluster.is_some_and(|cluster| Some(cluster) != own_cluster)
                || (cluster.is_none() && facts.bootstrap && member.id != own.id);
            member.is_alive()
                && member.datacenter() == own.datacenter()
                && !stranger
                && !self.expelled.contains_key(&member.id)
        };
        let servers = self.roster.servers().filter_map(|member| Some((member, member.server.as_deref()?)));
        let mut welcome = servers.filter(|(member, facts)| welcome(member, facts));
        welcome.find_map(|(member, facts)| self.arrival_of(member, facts))
    }

    fn arrival_of(&self, member: &Member, facts: &ServerFacts) -> Option<Step> {
        let address = member.server_address()?.to_string();
        let configuration = &self.standing.configuration;
        let replaced = configuration.servers.iter().find(|server| {
            server.address == address
                && server.id != member.id
                && !self.roster.server(server.id).is_some_and(|member| member.is_alive())
        });
        if let Some(replaced) = replaced {
            let own = Some(replaced.id) == self.standing.id;
            return (!own).then(|| Step::RemoveReplaced(replaced.clone()));
        }
        let held = configuration.server(member.id);
        if held.is_some_and(|held| held.address == address && held.name == *member.name) {
            return None;
        }
        let new = if facts.non_voter { Suffrage::NonVoter } else { Suffrage::Learner };
        let suffrage = held.map_or(new, |held| held.suffrage);
        // What changes here of a server that is there is its address and its name.
        Some(Step::Add(Server { id: member.id, name: member.name.to_string(), address, suffrage }))
    }

    /// A server that is fit to vote and wants to, or one that votes and does not want to any more.
    fn change_of_role(&self) -> Option<Step> {
        let servers = &self.standing.configuration.servers;
        servers.iter().filter(|server| Some(server.id) != self.standing.id).find_map(|server| {
            let wants = !self.roster.server(server.id)?.server.as_ref()?.non_voter;
            let votes = server.suffrage == Suffrage::Voter;
            let is_stable =
                || self.health.server(server.id).is_some_and(|h| h.is_stable(self.rules, self.now));
            match (votes, wants) {
                (true, false) => Some(Step::Demote(server.id)),
                (false, true) if is_stable() => Some(Step::Promote(server.id)),
                _ => None,
            }
        })
    }

    /// A server that is slow, or starts again with much to read, comes back: it keeps its place for so long.
    fn is_long_ago(&self, since: Duration) -> bool {
        let threshold = Duration::from_nanos(self.rules.last_contact_threshold_ns.max(0).unsigned_abs());
        self.now.saturating_sub(since) >= PLACE_KEPT.saturating_add(threshold)
    }

    /// A server that failed, or that membership does not know, and that does not answer the leader either. (Those that
    /// left are gone before this is asked.) One that does not vote can always go.
    fn dead(&self) -> Result<Option<Server>, Stay> {
        if !self.rules.cleanup_dead_servers {
            return Ok(None);
        }
        let is_dead = |server: &&Server| {
            let member = self.roster.server(server.id);
            Some(server.id) != self.standing.id
                && member.is_none_or(|member| {
                    member.status == MemberStatus::Failed && self.is_long_ago(member.since)
                })
                && is_silent(self.standing, server.id)
        };
        let configuration = &self.standing.configuration;
        let (dead, silent): (Vec<&Server>, Vec<&Server>) = configuration
            .servers
            .iter()
            .filter(is_dead)
            .partition(|server| server.suffrage == Suffrage::Voter);
        if let Some(first) = silent.first() {
            return Ok(Some((*first).clone()));
        }
        let Some(first) = dead.first() else { return Ok(None) };
        let (count, voters, least) = (dead.len(), configuration.voters().count(), self.rules.min_quorum);
        if (voters.saturating_sub(count) as u64) < least {
            return Err(Stay::MinQuorum { dead: count, voters, least });
        }
        if count > voters.saturating_sub(1) / 2 {
            return Err(Stay::Majority { dead: count, voters });
        }
        Ok(Some((*first).clone()))
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let server = |what: &str, server: &Server| {
            format!("{what} {} (ID: {}, address: {})", server.name, server.id, server.address)
        };
        f.write_str(&match self {
            Step::Add(new) => server("adding server", new),
            Step::Promote(id) => format!("promoting server {id} to voter"),
            Step::Demote(id) => format!("taking the vote of server {id}, which is configured not to vote"),
            Step::RemoveLeft(gone) => server("removing server that left:", gone),
            Step::RemoveReplaced(gone) => server("removing server whose address another one has now:", gone),
            Step::RemoveDead(gone) => server("removing dead server", gone),
        })
    }
}

/// Why dead servers stay. The texts are Consul's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// Half of the voters, or more.
    Majority {
        /// How many are dead.
        dead: usize,
        /// How many vote.
        voters: usize,
    },
    /// Too few would be left.
    MinQuorum {
        /// How many are dead.
        dead: usize,
        /// How many vote.
        voters: usize,
        /// How many must stay.
        least: u64,
    },
}

impl std::fmt::Display for Stay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Stay::Majority { dead, voters } => {
                write!(f, "denied, because removing the majority of servers {dead}/{voters} is not safe")
            }
            Stay::MinQuorum { dead, voters, least } => write!(
                f,
                "denied, because removing {dead}/{voters} servers would leave less then minimal allowed quorum of {least} servers"
            ),
        }
    }
}

fn is_silent(standing: &Standing, id: ServerId) -> bool {
    let peer = standing.peers.iter().find(|peer| peer.id == id);
    peer.and_then(|peer| peer.last_contact).is_none_or(|since| since >= SILENCE_OF_THE_DEAD)
}
