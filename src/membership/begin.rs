//! Begins a cluster, or takes part in the beginning of one.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use muster_protocol::entry::Configuration;
use muster_protocol::rpc::{Card, Founding};
use muster_protocol::wire::ClusterId;

use super::cluster::AdoptError;
use super::driver::Inner;
use super::founding::{self, Decision, decide};
use super::known::News;
use super::talk;
use crate::consensus::{AdminError, AdminOp};
use crate::runtime::{cores, random, task, time};

/// How often the situation is looked at when nothing is heard.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How often is looked whether it is known what the disk holds.
const SETTLE_INTERVAL: Duration = Duration::from_millis(10);

/// Runs until this server belongs to a cluster and its log says so, then tells everybody.
pub(super) async fn run(inner: Rc<Inner>) {
    belong(&inner).await;
    inner.react(News::Roster);
}

async fn belong(inner: &Rc<Inner>) {
    let mut said = String::new();
    while inner.proposals.standing().id.is_none() {
        time::sleep(SETTLE_INTERVAL).await;
    }
    let settled = time::now();
    loop {
        // A list that was taken before a crash is taken again.
        if let Some(founding) = inner.cluster.founding() {
            let lost = lost_log(inner, time::now() - settled);
            let begun = match lost {
                Some(why) => Err(why),
                None => begin_log(inner, &founding).await,
            };
            match begun {
                Ok(()) => return,
                Err(why) if said != why => {
                    tracing::warn!(target: "agent.server", "the log does not begin yet: {why}");
                    said = why;
                }
                Err(_) => {}
            }
        } else if inner.cluster.id().is_some() || !inner.proposals.standing().blank {
            // It was taken in by a leader.
            return;
        } else {
            let own = inner.card();
            let own = Card { bootstrap: own.bootstrap || inner.settings.alone, ..own };
            let decision = decide(&own, inner.known.borrow().views());
            match decision {
                Decision::Found(configuration) => {
                    found(inner, configuration).await;
                    continue;
                }
                Decision::Wait(why) | Decision::Join(why) if said != why => {
                    tracing::info!(target: "agent.server", "{why}");
                    said = why;
                }
                Decision::Wait(_) | Decision::Join(_) => {}
            }
        }
        let _ = cores::either(inner.nearer.heard(), time::sleep(LOOK_INTERVAL)).await;
    }
}

/// Makes a cluster of these servers: writes it down here, then tells the others at the same time. One that does not hear
/// it is blank, and takes the list from the leader's log.
async fn found(inner: &Rc<Inner>, configuration: Configuration) {
    let peers: Vec<&str> = configuration.servers.iter().map(|server| server.address.as_str()).collect();
    tracing::info!(
        target: "agent.server", "Found expected number of peers, attempting bootstrap: peers={}",
        peers.join(",")
    );
    let mut id = [0; 16];
    random::fill(&mut id);
    // A random UUID, as RFC 4122 marks them.
    (id[6], id[8]) = (id[6] & 0x0f | 0x40, id[8] & 0x3f | 0x80);
    let founding = Founding { cluster: ClusterId(id), configuration };
    if let Err(why) = inner.cluster.found(founding.cluster, founding.configuration.clone()).await {
        tracing::error!(target: "agent.server", "Failed to bootstrap cluster: error={:?}", refusal(why));
        time::sleep(LOOK_INTERVAL).await;
        return;
    }
    let cards = inner.known.borrow().cards();
    let founders = cards.into_iter().filter(|card| founding.configuration.server(card.id).is_some());
    for card in founders {
        let founding = founding.clone();
        task::spawn(async move {
            let to = SocketAddr::new(card.ip, card.serf_lan_port);
            if let Err(why) = talk::found(to, &founding).await {
                tracing::warn!(
                    target: "agent.server", "server {} did not take the new cluster's servers: {why}",
                    card.name
                );
            }
        })
        .detach();
    }
}

/// Another server has made a cluster with this one in it.
///
/// # Errors
/// This server takes no part; why, for both sides.
pub(super) async fn take(inner: &Rc<Inner>, founding: Founding) -> Result<(), String> {
    let own = &inner.settings.own;
    if founding.configuration.server(own.id).is_none() {
        return Err(format!("server {} is not in the list of the first servers", own.name));
    }
    if inner.cluster.id().is_none() && !inner.proposals.standing().blank {
        return Err(format!("server {} has a log already", own.name));
    }
    inner.cluster.found(founding.cluster, founding.configuration).await.map_err(refusal)?;
    inner.nearer.ring();
    Ok(())
}

/// Why a server whose log is gone does not begin it anew now.
fn lost_log(inner: &Inner, looked_for: Duration) -> Option<String> {
    let standing = inner.proposals.standing();
    if !standing.blank {
        return None;
    }
    let known = inner.known.borrow();
    founding::waits_for_log(standing.term, looked_for, known.views().map(|(card, _)| card))
}

async fn begin_log(inner: &Rc<Inner>, founding: &Configuration) -> Result<(), String> {
    if !inner.proposals.standing().blank {
        return Ok(());
    }
    match inner.proposals.admin(AdminOp::Bootstrap(founding.clone())).await {
        Ok(()) => Ok(()),
        // The leader's log was quicker.
        Err(AdminError::Refused(_)) if !inner.proposals.standing().blank => Ok(()),
        Err(why) => Err(why.to_string()),
    }
}

fn refusal(why: AdoptError) -> String {
    match why {
        AdoptError::Belongs(cluster) => format!("it belongs to cluster {cluster}"),
        AdoptError::Disk(error) => error.to_string(),
    }
}
