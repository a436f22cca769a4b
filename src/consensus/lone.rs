//! A lone voter in memory, for tests and benches of the rooms above: it needs no links, and leads from the start.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use muster_protocol::entry::{Configuration, Server, ServerId, Suffrage};

use super::opening::{Opening, Setup};
use super::proposals::{Proposals, door};
use super::runner::NoLinks;
use super::standing::{Role, Standing};
use crate::config::{Performance, RaftConfig};
use crate::runtime::mesh::{self, Sender};
use crate::runtime::publish::Published;
use crate::store::{State, Touched};

/// Who it is.
const ID: ServerId = ServerId([1; 16]);

/// What must run on the control core for anything to happen.
pub struct Lone {
    opening: Opening,
    configuration: Configuration,
}

/// A lone voter known by `address` (`ip:port` of its server port): the handle for writers, the state for readers, and what must
/// run.
pub fn open(address: String) -> (Proposals, Published<State>, Lone) {
    let (proposals, state, opening) = door();
    let server = Server { id: ID, name: "lone".to_owned(), address, suffrage: Suffrage::Voter };
    let configuration = Configuration::new(vec![server]);
    opening.gauges.presume_lone(Standing {
        id: Some(ID),
        role: Role::Leader,
        leader: Some(ID),
        configuration: Arc::new(configuration.clone()),
        last_contact: Some(Duration::ZERO),
        ..Standing::default()
    });
    (proposals, state, Lone { opening, configuration })
}

impl Lone {
    /// As [`super::Runner::run`].
    pub async fn run(self, edges: Vec<Sender<Arc<Touched>>>) {
        let setup = Setup {
            id: ID,
            data_dir: None,
            performance: Performance {
                leave_drain_time: Duration::ZERO,
                raft_multiplier: 1,
                rpc_hold_timeout: Duration::from_secs(7),
            },
            raft: RaftConfig {
                protocol: 3,
                snapshot_threshold: 16_384,
                snapshot_interval: Duration::from_secs(30),
                trailing_logs: 10_240,
            },
            expects_peers: false,
            forced: None,
        };
        let mut runner = self.opening.open(setup).await.expect("memory without files is always in order");
        runner.presume_lead(self.configuration);
        let (_, events) = mesh::channel(1);
        let ended = runner.run(edges, Rc::new(NoLinks), events).await;
        ended.expect("memory does not fail");
    }
}
