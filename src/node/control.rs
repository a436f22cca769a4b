//! What the control core runs: consensus, membership, the leader's duties, the agent; and in which order they start and
//! stop.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::client::ClientRole;
use super::server::ServerRole;
use super::{Control, Plan, client, server, signals};
use crate::agent::{Agent, Catalog, Hooks, LocalFuture, Parts, identity};
use crate::config::Config;
use crate::membership::Membership;
use crate::runtime::bell::Bell;
use crate::runtime::{blocking, cores, memory, process, task, time};
use crate::store::model::Node;
use crate::watch;
use crate::watch::run::Watches;

/// So long after the start an agent has joined, elected and loaded what it will.
const SETTLED: Duration = Duration::from_secs(15);
/// How often an agent lets go of code again: a join of a thousand others, or a storm, is over by then. To find again what is
/// used takes it less than a millisecond; it runs beside the programs of its host, and should not be felt there.
const LET_GO_EVERY: Duration = Duration::from_secs(60);
/// A server that has computed for more than this part of the time since has work to do, and keeps its code.
const IDLE_PART: u32 = 50;

/// The role of this agent, once it has started; the agent's hooks hold it too.
type Role = Rc<RefCell<Option<Part>>>;

/// The watches of the configuration, which follow it.
type Watching = Rc<RefCell<Watches>>;

/// What an agent is besides an agent.
enum Part {
    Server(ServerRole),
    Client(ClientRole),
}

impl Part {
    fn take_fault(&mut self) -> LocalFuture<String> {
        match self {
            Part::Server(role) => role.take_fault(),
            Part::Client(role) => role.take_fault(),
        }
    }

    fn membership(&self) -> &Membership {
        match self {
            Part::Server(role) => role.membership(),
            Part::Client(role) => role.membership(),
        }
    }

    fn leave(&self) -> LocalFuture<()> {
        match self {
            Part::Server(role) => role.leave(),
            Part::Client(role) => role.leave(),
        }
    }

    async fn stop(self) {
        self.membership().keep().await;
        if let Part::Server(role) = self {
            role.stop();
        }
    }
}

/// Runs until the order to stop, then closes the agent's files. Start: who we are, the log and the state, links,
/// membership, leader duties, the agent; then the edges are let in.
pub(super) async fn run(plan: Plan, control: Control) {
    let _signals = task::spawn(signals::obey(plan.clone()));
    let _orphans = task::spawn(reap_orphans());
    let Control { pool, server: seat, asker, doorway, changes } = control;
    let (role, watching) = (Role::default(), Watching::default());
    // Ends with this function.
    let mut _asking = None;
    let doubt = Rc::new(Bell::default());
    let starting = async {
        let watches = watch::config::watches(&plan.config.load())?;
        let node = settle_node(&plan).await?;
        let started = match seat {
            Some(seat) => Part::Server(server::start(&plan, seat, pool, &node, changes).await?),
            None => {
                let [met, heard] = [doubt.clone(), doubt.clone()];
                _asking = asker.map(|asker| client::ask(&plan, asker, &node, changes, move || met.ring()));
                Part::Client(client::start(&plan, pool, &node, move || heard.ring()).await?)
            }
        };
        role.replace(Some(started));
        Ok((start_agent(&plan, node, &role, &watching).await?, watches))
    };
    // A disk that hangs must not keep the agent from being stopped.
    let (agent, watches) = match cores::either(starting, plan.shutdown.raised()).await {
        Ok(Ok(agent)) => agent,
        Ok(Err(why)) => {
            plan.ending.failed(why);
            plan.shutdown.raise();
            return;
        }
        Err(()) => return,
    };
    plan.ready.raise();
    tell_doors(&plan.config.load());
    watching.borrow_mut().set(&plan.config.load(), watches);
    let looking = agent.doubts();
    let _doubting = task::spawn(async move {
        loop {
            doubt.heard().await;
            looking();
        }
    });
    let is_server = matches!(&*role.borrow(), Some(Part::Server(_)));
    let _settled = task::spawn(async move {
        let mut pause = SETTLED;
        loop {
            let before = time::computed();
            time::sleep(pause).await;
            if !is_server || time::computed() - before < pause / IDLE_PART {
                memory::let_go_of_code();
            }
            pause = LET_GO_EVERY;
        }
    });
    let faulted = role.borrow_mut().as_mut().map(Part::take_fault);
    let faulted = async {
        match faulted {
            Some(faulted) => faulted.await,
            None => std::future::pending().await,
        }
    };
    // Consensus outlives its writers, so it ends before them by a fault only. Then there is nobody to write for.
    if let Err(why) = cores::either(agent.run(doorway, plan.shutdown.raised()), faulted).await {
        plan.ending.failed(why);
        plan.shutdown.raise();
    }
    if let Some(role) = role.take() {
        role.stop().await;
    }
}

/// Where clients are let in from now on.
fn tell_doors(config: &Config) {
    let listen = &config.listen;
    let doors = [
        ("DNS", address_texts(&listen.dns)),
        ("HTTP", address_texts(&listen.http)),
        ("HTTPS", address_texts(&listen.https)),
    ];
    for (kind, addresses) in doors {
        for address in addresses {
            tracing::info!("agent: Started {kind} server: address={address}");
        }
    }
    tracing::info!("agent: Consul agent running!");
}

fn address_texts<T: ToString>(addresses: &[T]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

async fn settle_node(plan: &Plan) -> Result<Node, String> {
    let config = plan.config.load_full();
    let id = identity::node_id(&config).await;
    let id = id.map_err(|error| format!("cannot settle the node's ID: {error}"))?;
    Ok(identity::node_row(&config, id))
}

async fn start_agent(plan: &Plan, node: Node, role: &Role, watching: &Watching) -> Result<Agent, String> {
    let agent = Agent::start(Parts {
        config: plan.config.load_full(),
        node,
        local: plan.local.clone(),
        catalog: match &plan.upstream {
            None => Catalog::Local { proposals: plan.proposals.clone(), state: plan.state.clone() },
            Some(upstream) => Catalog::Remote { upstream: upstream.clone(), roster: plan.roster.clone() },
        },
        hooks: hooks(plan, role, watching),
    });
    agent.await
}

fn hooks(plan: &Plan, role: &Role, watching: &Watching) -> Hooks {
    let (reload, published) = (plan.reload.clone(), plan.config.clone());
    let (publishing, ending) = (plan.config.clone(), plan.clone());
    let (role, watching) = (role.clone(), watching.clone());
    Hooks {
        reload: Box::new(move || {
            let (reload, published) = (reload.clone(), published.clone());
            Box::pin(async move {
                let read = blocking::run(move || reload()).await.map_err(|panicked| panicked.to_string())?;
                let (config, held) = published.load().reloaded(read?);
                watch::config::watches(&config).map_err(|why| format!("Failed reloading watches: {why}"))?;
                if !held.is_empty() {
                    tracing::warn!("agent: changed, but only a restart applies it: {}", held.join(", "));
                }
                Ok(Arc::new(config))
            })
        }),
        publish: Box::new(move |config: Arc<Config>| {
            publishing.store_arc(config.clone());
            // What the reload has found right stays right.
            if let Ok(watches) = watch::config::watches(&config) {
                watching.borrow_mut().set(&config, watches);
            }
        }),
        leave: Box::new(move || {
            let role = role.clone();
            Box::pin(async move {
                let left = role.borrow().as_ref().map(Part::leave);
                if let Some(left) = left {
                    left.await;
                }
            })
        }),
        end: Box::new(move || {
            ending.ending.graceful();
            ending.shutdown.raise();
        }),
    }
}

/// In a container the agent may be process 1, and what its checks leave behind becomes its own child.
async fn reap_orphans() {
    if let Err(error) = process::reap_orphans().await {
        tracing::warn!(
            "agent: processes that others left to this one (it is process 1) stay as zombies: {error}"
        );
    }
}
