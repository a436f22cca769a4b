//! The client role of an agent: membership, and servers that are asked; no consensus.

use std::cell::Cell;
use std::sync::Arc;

use muster_protocol::http::Method;
use serde_json::json;

use super::heed::heed;
use super::server::id_of;
use super::{Plan, PoolSeat};
use crate::agent::{LocalFuture, LocalState};
use crate::config::Config;
use crate::membership::{self, Membership, Roster, Settings};
use crate::runtime::publish::Published;
use crate::runtime::random::Rng;
use crate::runtime::task::{self, Task};
use crate::runtime::{mesh, time};
use crate::store::Touched;
use crate::store::model::Node;
use crate::upstream::views::{ANSWER_LENGTH_MAX, HISTORY_HEADER, Keeper, Own, Told};
use crate::upstream::{Answer, Ask, Dialler, Payload, Upstream, UpstreamError};

/// The longest time since a server has heard its leader for which it counts as following it, milliseconds.
const CURRENT_MS_MAX: u64 = 1000;

/// A running client role.
pub(super) struct ClientRole {
    membership: Membership,
    /// Ends with the reason why the agent cannot go on.
    faulted: Option<LocalFuture<String>>,
    _telling: Option<Task<()>>,
}

/// Starts it.
///
/// # Errors
/// For the operator: what is wrong with what the agent says of itself.
///
/// `doubted` is told when others have said of this agent that it failed, which it is not: what the catalog holds of it may have
/// gone.
pub(super) async fn start(
    plan: &Plan,
    pool: PoolSeat,
    node: &Node,
    doubted: impl Fn() + 'static,
) -> Result<ClientRole, String> {
    let (name, said) = (plan.config.load().node_name.clone(), Cell::new(None));
    // An agent says more of itself only when somebody was wrong about it, or its tags have changed.
    let heard = move |roster: &Roster| {
        let incarnation = roster.named(&name).map(|own| own.incarnation);
        if said.replace(incarnation).is_some_and(|before| Some(before) != incarnation) {
            doubted();
        }
    };
    let settings = Settings { heed: heed(plan), ..Settings::of(&plan.config.load(), id_of(node)?) };
    let (sockets, roster, doorway) = (pool.sockets, plan.roster.clone(), pool.doorway);
    let membership = Membership::open(settings, sockets, None, roster, doorway, heard).await?;
    let running = membership.clone();
    let joining = task::spawn(async move { running.run().await });
    let telling = plan.upstream.clone().map(|upstream| {
        let (config, membership) = (plan.config.load_full(), membership.clone());
        task::spawn(tell_place(membership, upstream, config))
    });
    let fault = "membership ended by a fault; the log says which";
    let faulted: LocalFuture<String> =
        Box::pin(async move { joining.await.unwrap_or_else(|| fault.to_owned()) });
    Ok(ClientRole { membership, faulted: Some(faulted), _telling: telling })
}

/// Carries what this agent asks of servers, and keeps what was asked before, for as long as the tasks are kept.
pub(super) fn ask(
    plan: &Plan,
    asker: (Dialler, Keeper),
    node: &Node,
    changes: Vec<mesh::Sender<Arc<Touched>>>,
    met: impl Fn() + 'static,
) -> Option<(Task<()>, Task<()>)> {
    let (dialler, keeper) = asker;
    let upstream = plan.upstream.clone()?;
    let dialling = task::spawn(dialler.named(node.node.clone(), node.id.clone()).run_telling(met));
    let ask = Box::new(move |target| -> LocalFuture<_> { Box::pin(follow(upstream.clone(), target)) });
    let keeping = task::spawn(keeper.run(ask, own_rows(plan.local.clone()), changes));
    Some((dialling, keeping))
}

/// Tells the servers where this agent is, when it has moved.
async fn tell_place(membership: Membership, upstream: Upstream, config: Arc<Config>) {
    let (mut random, mut told) = (Rng::seeded(), membership::Told::default());
    loop {
        time::sleep(membership.look_interval(&mut random)).await;
        let before = told;
        let Some(at) = told.news(membership.coordinate(), false) else { continue };
        let body = json!({
            "Node": config.node_name, "Segment": config.segment,
            "Coord": {"Vec": at.position, "Error": at.error, "Adjustment": at.adjustment, "Height": at.height},
        });
        let ask = Ask {
            method: Method::Put,
            target: "/v1/coordinate/update".to_owned(),
            headers: Vec::new(),
            body: Payload::Whole(body.to_string().into()),
        };
        match upstream.request(ask).await {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => tracing::debug!("agent: the coordinate is not taken: status {}", answer.status),
            Err(why) => {
                tracing::debug!("agent: the coordinate is not told: {why}");
                told = before;
            }
        }
    }
}

/// What the agent knows of its own node, whenever that has changed.
fn own_rows(local: Published<LocalState>) -> Own {
    let mut told: Option<Arc<LocalState>> = None;
    Box::new(move || {
        let local = local.load_full();
        if told.as_ref().is_some_and(|told| Arc::ptr_eq(told, &local)) {
            return None;
        }
        told = Some(local.clone());
        Some(local.rows())
    })
}

/// What a server says to a question of the keeper's; an error if none does.
async fn follow(upstream: Upstream, target: String) -> Result<Told, String> {
    match told_by(upstream, target).await {
        Ok(told) => Ok(told),
        // There are servers: it is the question that they, or this agent, do not take.
        Err(why @ (UpstreamError::TooBusy | UpstreamError::RateExceeded)) => {
            Ok(Told::refusal(503, why.to_string()))
        }
        Err(why @ (UpstreamError::Nonsense | UpstreamError::AnswerTooLong { .. })) => {
            Ok(Told::refusal(400, why.to_string()))
        }
        Err(why) => Err(why.to_string()),
    }
}

async fn told_by(upstream: Upstream, target: String) -> Result<Told, UpstreamError> {
    let Answer { status, headers, body } = upstream.request(Ask::get(target)).await?;
    let said = |name: &str| headers.get(name).unwrap_or_default().to_owned();
    let age = said("X-Consul-Lastcontact").parse::<u64>();
    let is_current = said("X-Consul-Knownleader") == "true" && age.is_ok_and(|ms| ms <= CURRENT_MS_MAX);
    let history = said(HISTORY_HEADER);
    let body = body.whole(ANSWER_LENGTH_MAX).await?;
    Ok(Told { status, history, is_current, body })
}

impl ClientRole {
    /// Its part in the pool.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Ends with the reason why the agent cannot go on; asked for once.
    pub fn take_fault(&mut self) -> LocalFuture<String> {
        self.faulted.take().unwrap_or_else(|| Box::pin(std::future::pending()))
    }

    /// Tells everybody that the agent leaves.
    pub fn leave(&self) -> LocalFuture<()> {
        let membership = self.membership.clone();
        Box::pin(async move {
            tracing::info!(target: "agent.client", "client starting leave");
            membership.leave().await;
        })
    }
}
