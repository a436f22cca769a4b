//! The server role of an agent: what it is made of, how it starts, leaves and stops.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use muster_protocol::entry::ServerId;
use muster_protocol::rpc::Card;

use super::Plan;
use super::doors::ServerDoors;
use crate::agent::LocalFuture;
use crate::config::Config;
use crate::consensus::{AdminOp, Opening, Proposals, Setup};
use crate::membership::{Cluster, Doorway, MemberStatus, Membership, Settings};
use crate::runtime::task::Task;
use crate::runtime::{mesh, task, time};
use crate::server::leader::Duties;
use crate::server::links::{self, Links};
use crate::store::Touched;
use crate::store::model::Node;

/// How long a leader that leaves waits for another one to take over.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(2);
/// How long a server that leaves waits to be taken out of the cluster, as Consul's `raftRemoveGracePeriod`.
const REMOVAL_LIMIT: Duration = Duration::from_secs(5);
/// How often it looks whether that has happened.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What the control core of a server alone owns before it starts.
pub(super) struct Seat {
    pub opening: Opening,
    pub doors: ServerDoors,
    pub doorway: Doorway,
}

/// A running server role.
pub(super) struct ServerRole {
    id: ServerId,
    proposals: Proposals,
    membership: Membership,
    links: Links,
    /// Ends with the reason why the server cannot go on.
    faulted: Option<LocalFuture<String>>,
    _duties: Task<()>,
}

/// Starts it: cluster, consensus, links, membership, leader duties.
///
/// # Errors
/// For the operator: what is wrong with its files.
pub(super) async fn start(
    plan: &Plan,
    seat: Seat,
    node: &Node,
    changes: Vec<mesh::Sender<Arc<Touched>>>,
) -> Result<ServerRole, String> {
    let config = plan.config.load_full();
    let id = ServerId::parse(&node.id).ok_or_else(|| {
        format!(
            "the node ID {:?} is no UUID, which a server's must be; correct node_id or DATA/node-id",
            node.id
        )
    })?;
    let cluster = Cluster::open(config.data_dir.as_deref()).await.map_err(|error| error.to_string())?;
    let runner = seat.opening.open(setup(&config, id)).await?;
    let (events, incoming) = mesh::channel(links::EVENTS_MAX);
    let links = Links::new(own(&config, id), cluster.clone(), events);
    let consensus = task::spawn(runner.run(changes, Rc::new(links.clone()), incoming));
    links.listen(seat.doors.links);

    let settings = Settings {
        own: card(&config, id),
        alone: config.dev_mode,
        default_port: config.ports.serf_lan,
        gossip: config.gossip.clone(),
    };
    let learning = links.clone();
    let proposals = plan.proposals.clone();
    let roster = plan.roster.clone();
    let membership =
        Membership::new(settings, cluster, proposals.clone(), roster, move |roster| learning.learn(roster));
    let running = membership.clone();
    let (introductions, doorway) = (seat.doors.introductions, seat.doorway);
    let mut joining = task::spawn(async move { running.run(introductions, doorway).await });

    let duties = Duties::new(config.clone(), plan.state.clone(), plan.roster.clone(), proposals.clone());
    let duties = task::spawn(duties.run());
    let mut consensus = consensus;
    let faulted = Box::pin(async move {
        std::future::poll_fn(|cx| {
            if let Poll::Ready(ended) = Pin::new(&mut consensus).poll(cx) {
                let fault = "consensus ended by a fault; the log says which".to_owned();
                return Poll::Ready(ended.and_then(Result::err).unwrap_or(fault));
            }
            Pin::new(&mut joining).poll(cx).map(|why| {
                why.unwrap_or_else(|| "membership ended by a fault; the log says which".to_owned())
            })
        })
        .await
    });
    Ok(ServerRole { id, proposals, membership, links, faulted: Some(faulted), _duties: duties })
}

impl ServerRole {
    /// Ends with the reason why the server cannot go on; asked for once.
    pub fn take_fault(&mut self) -> LocalFuture<String> {
        self.faulted.take().unwrap_or_else(|| Box::pin(std::future::pending()))
    }

    /// Leaves the cluster: the lead goes to somebody else, everybody is told, and the leader takes this server out.
    pub fn leave(&self) -> LocalFuture<()> {
        let (id, proposals, membership) = (self.id, self.proposals.clone(), self.membership.clone());
        Box::pin(async move {
            let others = |proposals: &Proposals| {
                let configuration = proposals.standing().configuration;
                configuration.server(id).is_some() && configuration.voters().any(|voter| voter != id)
            };
            if proposals.standing().leads() && others(&proposals) {
                match time::timeout(HAND_OVER_LIMIT, proposals.admin(AdminOp::Transfer(None))).await {
                    Some(Ok(())) => {}
                    Some(Err(why)) => {
                        tracing::warn!(target: "agent.server", "the lead was not handed over: {why}")
                    }
                    None => tracing::warn!(target: "agent.server", "the lead was not handed over in time"),
                }
            }
            membership.leave().await;
            let give_up = time::now() + REMOVAL_LIMIT;
            while others(&proposals) && time::now() < give_up {
                time::sleep(LOOK_INTERVAL).await;
            }
            if others(&proposals) {
                tracing::warn!(target: "agent.server", "failed to leave raft configuration gracefully, timeout");
            }
        })
    }

    /// Ends its connections.
    pub fn stop(self) {
        self.links.close();
    }
}

fn setup(config: &Config, id: ServerId) -> Setup {
    Setup {
        id,
        data_dir: config.data_dir.clone(),
        performance: config.performance,
        raft: config.raft,
        expects_peers: !config.bootstrap && !config.dev_mode,
        forced: None,
    }
}

fn own(config: &Config, id: ServerId) -> links::Own {
    links::Own {
        id,
        name: config.node_name.clone(),
        datacenter: config.datacenter.clone(),
        address: SocketAddr::new(config.addresses.advertise, config.ports.server).to_string(),
        handshake_timeout: config.limits.rpc_handshake_timeout,
    }
}

fn card(config: &Config, id: ServerId) -> Card {
    Card {
        id,
        name: config.node_name.clone(),
        datacenter: config.datacenter.clone(),
        segment: config.segment.clone(),
        ip: config.addresses.advertise,
        serf_lan_port: config.ports.serf_lan,
        server_port: config.ports.server,
        wan_join_port: config.ports.serf_wan,
        bootstrap: config.bootstrap && !config.dev_mode,
        expect: config.bootstrap_expect,
        non_voter: config.non_voting_server,
        cluster: None,
        has_log: false,
        started_ms: u64::try_from(time::unix_now().as_millis()).unwrap_or(u64::MAX),
        status: MemberStatus::Alive as u8,
    }
}
