//! The server role of an agent: what it is made of, how it starts, leaves and stops.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use muster_protocol::entry::{Server, ServerId, Suffrage};

use super::heed::heed;
use super::{Plan, PoolSeat};
use crate::agent::LocalFuture;
use crate::config::Config;
use crate::consensus::{Opening, Proposals, Setup};
use crate::membership::{Cluster, Founder, Membership, Settings};
use crate::runtime::bell::Bell;
use crate::runtime::net::Listener;
use crate::runtime::task::Task;
use crate::runtime::{mesh, task};
use crate::server::leader::Duties;
use crate::server::leave;
use crate::server::links::{self, Links};
use crate::server::recovery::Recovery;
use crate::server::rpc::{Guest, Host, Reception};
use crate::store::Touched;
use crate::store::model::Node;

/// What the control core of a server alone owns before it starts.
pub(super) struct Seat {
    pub opening: Opening,
    pub links: Listener,
    /// Where agents' connections go: one for each edge core.
    pub guests: Vec<mesh::Sender<Guest>>,
}

/// A running server role.
pub(super) struct ServerRole {
    /// How long requests are answered on after it has told that it leaves.
    drain: Duration,
    proposals: Proposals,
    membership: Membership,
    links: Links,
    reception: Rc<Reception>,
    /// Ends with the reason why the server cannot go on.
    faulted: Option<LocalFuture<String>>,
    _duties: Task<()>,
    _watching: Task<()>,
}

/// Starts it: cluster, consensus, links, membership, leader duties.
///
/// # Errors
/// For the operator: what is wrong with its files.
pub(super) async fn start(
    plan: &Plan,
    seat: Seat,
    pool: PoolSeat,
    node: &Node,
    changes: Vec<mesh::Sender<Arc<Touched>>>,
) -> Result<ServerRole, String> {
    let config = plan.config.load_full();
    let id = id_of(node)?;
    let cluster = Cluster::open(config.data_dir.as_deref()).await.map_err(|error| error.to_string())?;
    let recovery = match &config.data_dir {
        Some(folder) => Recovery::read(folder).await?,
        None => None,
    };
    let runner = seat.opening.open(setup(&config, id, recovery.as_ref())).await?;
    let (events, incoming) = mesh::channel(links::EVENTS_MAX);
    let links = Links::new(own(&config, id), cluster.clone(), events);
    let consensus = task::spawn(runner.run(changes, Rc::new(links.clone()), incoming));
    let host =
        Host { name: config.node_name.clone(), id: id.to_string(), datacenter: config.datacenter.clone() };
    let reception = Rc::new(Reception::new(host, plan.config.clone(), seat.guests));
    links.receive_agents(reception.clone());
    let (watched, standing) = (reception.clone(), plan.proposals.clone());
    let watching = task::spawn(async move { watched.watch(move || standing.contact()).await });
    links.listen(seat.links);
    if let Some(recovery) = recovery {
        let proposals = plan.proposals.clone();
        task::spawn(async move { recovery.finish(&proposals).await }).detach();
    }

    let (learning, proposals) = (links.clone(), plan.proposals.clone());
    let founder = Founder { cluster, proposals: proposals.clone(), alone: config.dev_mode };
    let settings = Settings { heed: heed(plan), ..Settings::of(&config, id) };
    let (sockets, roster, doorway) = (pool.sockets, plan.roster.clone(), pool.doorway);
    let members_changed = Rc::<Bell>::default();
    let ring = members_changed.clone();
    let learn = move |roster: &_| {
        learning.learn(roster);
        ring.ring();
    };
    let membership = Membership::open(settings, sockets, Some(founder), roster, doorway, learn).await?;
    let running = membership.clone();
    let mut joining = task::spawn(async move { running.run().await });

    let (state, roster, members) = (plan.state.clone(), plan.roster.clone(), plan.members.clone());
    let duties = Duties::new(config.clone(), state, roster, members, members_changed, proposals.clone());
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
    let drain = config.performance.leave_drain_time;
    Ok(ServerRole {
        drain,
        proposals,
        membership,
        links,
        reception,
        faulted: Some(faulted),
        _duties: duties,
        _watching: watching,
    })
}

impl ServerRole {
    /// Its part in the pool.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Ends with the reason why the server cannot go on; asked for once.
    pub fn take_fault(&mut self) -> LocalFuture<String> {
        self.faulted.take().unwrap_or_else(|| Box::pin(std::future::pending()))
    }

    /// Leaves the cluster: the lead goes to somebody else, everybody is told, and the leader takes this server out.
    pub fn leave(&self) -> LocalFuture<()> {
        let (drain, proposals, membership) = (self.drain, self.proposals.clone(), self.membership.clone());
        let reception = self.reception.clone();
        Box::pin(async move {
            reception.leave().await;
            leave::leave(&proposals, drain, membership.leave()).await;
        })
    }

    /// Ends its connections.
    pub fn stop(self) {
        self.links.close();
    }
}

/// A node's ID, which gossip and the log tell it by.
///
/// # Errors
/// For the operator: it is none.
pub(super) fn id_of(node: &Node) -> Result<ServerId, String> {
    ServerId::parse(&node.id)
        .ok_or_else(|| format!("the node ID {:?} is no UUID; correct node_id or DATA/node-id", node.id))
}

fn setup(config: &Config, id: ServerId, recovery: Option<&Recovery>) -> Setup {
    let server = Server {
        id,
        name: config.node_name.clone(),
        address: SocketAddr::new(config.addresses.advertise, config.ports.server).to_string(),
        suffrage: Suffrage::Voter,
    };
    Setup {
        id,
        data_dir: config.data_dir.clone(),
        performance: config.performance,
        raft: config.raft,
        expects_peers: !config.bootstrap && !config.dev_mode,
        forced: recovery.map(|recovery| (recovery.forced().clone(), server)),
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
