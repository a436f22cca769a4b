//! The client role of an agent: membership, without consensus.

use super::heed::heed;
use super::server::id_of;
use super::{Plan, PoolSeat};
use crate::agent::LocalFuture;
use crate::membership::{Membership, Settings};
use crate::runtime::task;
use crate::store::model::Node;

/// A running client role.
pub(super) struct ClientRole {
    membership: Membership,
    /// Ends with the reason why the agent cannot go on.
    faulted: Option<LocalFuture<String>>,
}

/// Starts it.
///
/// # Errors
/// For the operator: what is wrong with what the agent says of itself.
pub(super) async fn start(plan: &Plan, pool: PoolSeat, node: &Node) -> Result<ClientRole, String> {
    let settings = Settings { heed: heed(plan), ..Settings::of(&plan.config.load(), id_of(node)?) };
    let (sockets, roster, doorway) = (pool.sockets, plan.roster.clone(), pool.doorway);
    let membership = Membership::open(settings, sockets, None, roster, doorway, |_| {}).await?;
    let running = membership.clone();
    let joining = task::spawn(async move { running.run().await });
    let fault = "membership ended by a fault; the log says which";
    let faulted: LocalFuture<String> =
        Box::pin(async move { joining.await.unwrap_or_else(|| fault.to_owned()) });
    Ok(ClientRole { membership, faulted: Some(faulted) })
}

impl ClientRole {
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
