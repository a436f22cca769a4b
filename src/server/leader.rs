//! Duties of the leader. Today: the servers' own rows in the catalog, service `consul` and check `serfHealth`.

use std::time::Duration;

use crate::agent::sync::{SERVER_CHECK, SERVER_SERVICE};
use crate::config::Config;
use crate::consensus::{Proposals, ProposeError};
use crate::runtime::time;
use crate::store::State;
use crate::store::command::{Applied, CatalogOp, Command, Register};
use crate::store::model::{Check, Node, Service, Status, StringMap};

/// The version of Consul that clients are told; they compare it to know what they may ask for.
pub const COMPATIBLE_VERSION: &str = "1.8.7";
/// How often the rows are looked at.
pub const RECONCILE_INTERVAL: Duration = Duration::from_secs(60);
/// Pause before a failed write is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Keeps the server's own rows in the catalog, for as long as it is polled. The first write is one command, so node,
/// service and check share an index.
pub async fn run(
    config: &Config,
    node: &Node,
    state: impl Fn() -> std::sync::Arc<State>,
    proposals: &Proposals,
) {
    let wanted = rows(config, node);
    loop {
        if holds(&state(), &wanted) {
            time::sleep(RECONCILE_INTERVAL).await;
            continue;
        }
        let command = Command::Catalog(CatalogOp::Register(Box::new(wanted.clone())));
        match proposals.propose(&command).await {
            Ok(Applied::Refused(why)) => {
                tracing::error!("the catalog refused this server's own rows: {why}");
                time::sleep(RECONCILE_INTERVAL).await;
            }
            Ok(_) => tracing::info!(node = node.node, "member joined, marking health alive"),
            Err(ProposeError::Stopping) => return,
            Err(why) => {
                tracing::warn!("this server's own rows could not be written: {why}; trying again");
                time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// The rows of a live server. The node's addresses and metadata are for the agent on it to write.
fn rows(config: &Config, node: &Node) -> Register {
    let meta: StringMap = [
        ("non_voter", "false"),
        ("raft_version", "3"),
        ("serf_protocol_current", "2"),
        ("serf_protocol_max", "5"),
        ("serf_protocol_min", "1"),
        ("version", COMPATIBLE_VERSION),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    let service = Service {
        node: node.node.clone(),
        id: SERVER_SERVICE.to_owned(),
        name: SERVER_SERVICE.to_owned(),
        meta: Some(meta),
        port: i64::from(config.ports.server),
        ..Service::default()
    };
    let check = Check {
        node: node.node.clone(),
        check_id: SERVER_CHECK.to_owned(),
        name: "Serf Health Status".to_owned(),
        status: Status::Passing,
        output: "Agent alive and reachable".to_owned(),
        ..Check::default()
    };
    Register {
        node: Node { tagged_addresses: None, meta: None, ..node.clone() },
        // An existing row has more to say than ours.
        skip_node_update: true,
        service: Some(service),
        checks: vec![check],
    }
}

fn holds(state: &State, wanted: &Register) -> bool {
    let node = &wanted.node.node;
    let service = wanted.service.as_ref().is_none_or(|own| {
        let held = state.node_service(node, &own.id);
        held.is_some_and(|held| crate::agent::sync::same_service(own, held))
    });
    let same = |own: &Check| {
        let held = state.node_check(node, &own.check_id);
        held.is_some_and(|held| crate::agent::sync::same_check(own, held, false))
    };
    service && wanted.checks.iter().all(same)
}
