//! How a server leaves its cluster for good: the lead goes to another one first, then all are told, and the rest of the
//! cluster removes it (Consul's `Server.Leave`).

use std::time::Duration;

use muster_protocol::entry::Suffrage;

use crate::consensus::{AdminOp, Proposals};
use crate::runtime::time;

/// How long another server may take to have the lead.
const TRANSFER_LIMIT: Duration = Duration::from_secs(2);
/// How long the others may take to remove this server: Consul's `raftRemoveGracePeriod`.
const REMOVAL_LIMIT: Duration = Duration::from_secs(5);
/// How often is looked whether they have.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Leaves. `tell` tells the other members; requests are answered for `drain` after that, while clients turn to others.
pub async fn leave(proposals: &Proposals, drain: Duration, tell: impl Future<Output = ()>) {
    tracing::info!(target: "agent.server", "server starting leave");
    hand_over(proposals).await;
    tell.await;
    if is_alone(proposals) {
        return;
    }
    tracing::info!(target: "agent.server", drain_time = ?drain, "Waiting to drain RPC traffic");
    time::sleep(drain).await;
    let removed = async {
        while is_member(proposals) && !is_alone(proposals) {
            time::sleep(LOOK_INTERVAL).await;
        }
    };
    if time::timeout(REMOVAL_LIMIT, removed).await.is_none() {
        tracing::warn!(target: "agent.server", "failed to leave Raft configuration gracefully, timeout");
    }
}

/// Gives the lead to another voter.
async fn hand_over(proposals: &Proposals) {
    let standing = proposals.standing();
    let another = standing
        .configuration
        .servers
        .iter()
        .any(|server| server.suffrage == Suffrage::Voter && Some(server.id) != standing.id);
    if !standing.leads() || !another {
        return;
    }
    match time::timeout(TRANSFER_LIMIT, proposals.admin(AdminOp::Transfer(None))).await {
        Some(Ok(())) => tracing::info!(target: "agent.server", "another server leads now"),
        Some(Err(why)) => {
            tracing::warn!(target: "agent.server", "the lead was not handed over: {why}; the others will elect")
        }
        None => {
            tracing::warn!(target: "agent.server", "the lead was not handed over in time; the others will elect")
        }
    }
}

fn is_alone(proposals: &Proposals) -> bool {
    proposals.standing().configuration.servers.len() <= 1
}

fn is_member(proposals: &Proposals) -> bool {
    let standing = proposals.standing();
    standing.id.is_some_and(|id| standing.configuration.server(id).is_some())
}
