//! What the leader does about the servers of its cluster without being told: new ones join as learners and get a vote
//! once they are stable, dead ones and those that left go. Pure: facts in, steps out.
//!
//! The rules are Consul's (`agent/consul/autopilot`): a dead server is removed while fewer than half of the voters are dead
//! and `min_quorum` of them stay. One change of the servers is under way at a time (Ongaro's thesis, section 4.1),
//! so each look at the facts gives one step at most.

use std::time::Duration;

use muster_protocol::entry::{Server, ServerId, Suffrage};

use super::health::ClusterHealth;
use crate::consensus::Standing;
use crate::membership::{Member, MemberStatus, Roster};
use crate::store::model::AutopilotConfig;

/// A server that answered the leader more recently than this is not dead, whatever membership believes.
pub const SILENCE_OF_THE_DEAD: Duration = Duration::from_secs(2);

/// One change of the cluster's servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A server came, or is reached at another address.
    Add(Server),
    /// A learner is fit to vote.
    Promote(ServerId),
    /// A server left.
    RemoveLeft(Server),
    /// Another server has its address now.
    RemoveReplaced(Server),
    /// A server is dead. Membership forgets it too.
    RemoveDead(Server),
}

/// Decides what to do next, on a leader. `now` is the time since 1970; dead servers go only when it is time to `prune`.
///
/// # Errors
/// Dead servers stay, and why; nothing else is to be done.
pub fn next_step(
    rules: &AutopilotConfig,
    standing: &Standing,
    roster: &Roster,
    health: &ClusterHealth,
    now: Duration,
    prune: bool,
) -> Result<Option<Step>, Stay> {
    if !standing.configuration_committed {
        return Ok(None);
    }
    let certain = left(standing, roster)
        .map(Step::RemoveLeft)
        .or_else(|| arrival(standing, roster))
        .or_else(|| promotion(rules, standing, health, now).map(Step::Promote));
    match certain {
        Some(step) => Ok(Some(step)),
        None if !prune => Ok(None),
        None => dead(rules, standing, roster).map(|server| server.map(Step::RemoveDead)),
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

fn left(standing: &Standing, roster: &Roster) -> Option<Server> {
    let gone = |server: &&Server| {
        Some(server.id) != standing.id
            && roster.member(server.id).is_some_and(|member| member.status == MemberStatus::Left)
    };
    standing.configuration.servers.iter().find(gone).cloned()
}

/// A member that is alive and not in the configuration as it says of itself. What it replaces goes first: a server that
/// came back with another ID under the same address.
fn arrival(standing: &Standing, roster: &Roster) -> Option<Step> {
    let own = roster.member(standing.id?)?;
    let welcome = |member: &&Member| {
        let cluster = member.server.cluster;
        // A server in bootstrap mode starts a cluster of its own, which then shows in its `cluster`.
        let stranger = cluster.is_some_and(|cluster| Some(cluster) != own.server.cluster)
            || (cluster.is_none() && member.server.bootstrap && member.id != own.id);
        member.is_alive() && member.datacenter == own.datacenter && !stranger
    };
    roster.members().iter().filter(welcome).find_map(|member| {
        let address = member.server_address().to_string();
        let servers = &standing.configuration.servers;
        let replaced = servers.iter().find(|server| {
            server.address == address
                && server.id != member.id
                && !roster.member(server.id).is_some_and(Member::is_alive)
        });
        if let Some(replaced) = replaced {
            return (Some(replaced.id) != standing.id).then(|| Step::RemoveReplaced(replaced.clone()));
        }
        let held = standing.configuration.server(member.id);
        if held.is_some_and(|held| held.address == address && held.name == member.name) {
            return None;
        }
        let new = if member.server.non_voter { Suffrage::NonVoter } else { Suffrage::Learner };
        let suffrage = held.map_or(new, |held| held.suffrage);
        Some(Step::Add(Server { id: member.id, name: member.name.clone(), address, suffrage }))
    })
}

fn promotion(
    rules: &AutopilotConfig,
    standing: &Standing,
    health: &ClusterHealth,
    now: Duration,
) -> Option<ServerId> {
    let fit = |server: &&Server| {
        server.suffrage == Suffrage::Learner
            && health.server(server.id).is_some_and(|health| health.is_stable(rules, now))
    };
    standing.configuration.servers.iter().find(fit).map(|server| server.id)
}

/// A server that failed, or that membership does not know, and that does not answer the leader either. (Those that left
/// are gone before this is asked.)
fn dead(rules: &AutopilotConfig, standing: &Standing, roster: &Roster) -> Result<Option<Server>, Stay> {
    if !rules.cleanup_dead_servers {
        return Ok(None);
    }
    let is_dead = |server: &&Server| {
        Some(server.id) != standing.id
            && roster.member(server.id).is_none_or(|member| member.status == MemberStatus::Failed)
            && is_silent(standing, server.id)
    };
    let servers = &standing.configuration.servers;
    let dead: Vec<&Server> = servers.iter().filter(is_dead).collect();
    let Some(first) = dead.first() else { return Ok(None) };
    let (count, voters) = (dead.len(), standing.configuration.voters().count());
    if (voters.saturating_sub(count) as u64) < rules.min_quorum {
        return Err(Stay::MinQuorum { dead: count, voters, least: rules.min_quorum });
    }
    if count > voters.saturating_sub(1) / 2 {
        return Err(Stay::Majority { dead: count, voters });
    }
    Ok(Some((*first).clone()))
}

fn is_silent(standing: &Standing, id: ServerId) -> bool {
    let peer = standing.peers.iter().find(|peer| peer.id == id);
    peer.and_then(|peer| peer.last_contact).is_none_or(|since| since >= SILENCE_OF_THE_DEAD)
}
