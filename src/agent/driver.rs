//! Drives the registry on the control core: answers the door, runs checks, writes changes to the catalog, keeps files.
//!
//! One task each for the door, the clock, the catalog and the files; they share the registry by a `RefCell` that is
//! never held across an await.

mod catalog;
mod clock;
mod pace;
mod requests;
mod start;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::catalog::Catalog;
use super::door::Doorway;
use super::error::AgentError;
use super::files::Files;
use super::local::LocalState;
use super::persist::StoredState;
use super::registry::{FileChange, Registry, Rules};
use crate::config::Config;
use crate::config::definition::{CheckDefinition, ServiceDefinition};
use crate::health::alias;
use crate::health::tls::TlsConfigs;
use crate::runtime::bell::{Bell, Turns};
use crate::runtime::publish::Published;
use crate::runtime::{cores, mesh, task, time};
use crate::store::model::Node;

/// Most `?hash=` queries that wait at a time; further ones are answered at once with what there is.
pub const HASH_WAITERS_MAX: usize = 4096;
/// States of TTL checks are written in each of these as often as said below: they only matter after a restart.
const STATES_INTERVAL: Duration = Duration::from_secs(1);
/// So many writes of states in an interval are made at once.
const STATES_AT_ONCE: u32 = 8;
/// How long the end of the agent may wait for its files.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);
/// How often aliases of other nodes are looked at.
const REMOTE_ALIAS_INTERVAL: Duration = Duration::from_secs(1);

/// A future that stays on its core.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// What the agent asks of the process it lives in.
pub struct Hooks {
    /// Reads and validates the configuration again. The error is for the operator.
    pub reload: Box<dyn Fn() -> LocalFuture<Result<Arc<Config>, String>>>,
    /// Puts a configuration that was read and taken in force everywhere.
    pub publish: Box<dyn Fn(Arc<Config>)>,
    /// Leaves the cluster.
    pub leave: Box<dyn Fn() -> LocalFuture<()>>,
    /// Orders the end of the process.
    pub end: Box<dyn Fn()>,
}

/// What the agent is made of.
pub struct Parts {
    /// The configuration.
    pub config: Arc<Config>,
    /// The node's row, with its ID.
    pub node: Node,
    /// Where the view of the registry goes.
    pub local: Published<LocalState>,
    /// What the servers hold, and the way to change it.
    pub catalog: Catalog,
    /// The process around.
    pub hooks: Hooks,
}

/// A started agent. Make it with [`Agent::start`], then await [`Agent::run`].
pub struct Agent(Rc<Inner>);

/// Requests that wait for the catalog: the change they wait for, and the way back.
type CatalogWaiter = (u64, mesh::OneSender<Result<(), AgentError>>);

struct Inner {
    node: Node,
    registry: RefCell<Registry>,
    from_files: RefCell<FromFiles>,
    files: Option<Files>,
    /// Files are written by one task at a time, so that what happened last is written last.
    writing: Turns,
    local: Published<LocalState>,
    catalog: Catalog,
    hooks: Hooks,
    tls: TlsConfigs,
    /// The clock has to look at its next deadline again.
    clock: Bell,
    /// The catalog lacks something.
    dirty: Bell,
    /// The catalog may lack something, or hold too much.
    doubted: Cell<bool>,
    /// The agent leaves: what it has is not written any more.
    leaving: Cell<bool>,
    waiters: RefCell<Vec<CatalogWaiter>>,
    pace: RefCell<pace::Pace>,
    hash_waiters: RefCell<Vec<HashWaiter>>,
    states: RefCell<BTreeMap<String, StoredState>>,
    states_bell: Bell,
    /// When the catalog was last known to hold all that is here.
    synced_at: Cell<Option<Instant>>,
    ae_interval: Duration,
}

struct HashWaiter {
    id: String,
    hash: String,
    deadline: Instant,
    reply: mesh::OneSender<Result<(), AgentError>>,
}

/// What the configuration registered, to be compared with the next one.
#[derive(Default)]
struct FromFiles {
    services: BTreeMap<String, ServiceDefinition>,
    checks: BTreeMap<String, CheckDefinition>,
}

impl Agent {
    /// The view as of now.
    pub fn view(&self) -> LocalState {
        self.0.registry.borrow().view().clone()
    }

    /// To be called when the catalog may hold something else of this agent than is believed: it is compared soon, rather than at its
    /// time.
    pub fn doubts(&self) -> impl Fn() + 'static {
        let inner = Rc::downgrade(&self.0);
        move || {
            if let Some(inner) = inner.upgrade() {
                inner.doubted.set(true);
                inner.dirty.ring();
            }
        }
    }

    /// Runs until the door closes or `stop` is over, then writes what waits to be written.
    pub async fn run(self, doorway: Doorway, stop: impl Future<Output = ()>) {
        let inner = self.0;
        let mut tasks = [
            task::spawn(clock::run(inner.clone())),
            task::spawn(catalog::run(inner.clone())),
            task::spawn(write_states(inner.clone())),
            task::spawn(follow_remote_aliases(inner.clone())),
        ];
        let faulted = std::future::poll_fn(|cx| {
            let ended = tasks.iter_mut().any(|task| Pin::new(task).poll(cx).is_ready());
            if ended { Poll::Ready(()) } else { Poll::Pending }
        });
        // Each is the end: an agent without its clock, say, would show checks that nobody runs any more.
        let _ = cores::either(cores::either(requests::run(inner.clone(), doorway), faulted), stop).await;
        drop(tasks);
        if time::timeout(FLUSH_LIMIT, inner.flush_states()).await.is_none() {
            tracing::error!(
                "the states of TTL checks could not be written within {FLUSH_LIMIT:?}: the disk of the data_dir hangs"
            );
        }
    }
}

impl Inner {
    /// After each change of the registry: evaluates aliases, publishes the view, wakes whoever has to act.
    fn changed(&self) {
        let view = {
            let mut registry = self.registry.borrow_mut();
            registry.follow_aliases(time::now());
            registry.take_view()
        };
        if let Some(view) = view {
            self.local.store(view);
            self.answer_hash_waiters();
        }
        self.clock.ring();
        self.dirty.ring();
    }

    fn answer_hash_waiters(&self) {
        let now = time::now();
        let mut waiters = self.hash_waiters.borrow_mut();
        if waiters.is_empty() {
            return;
        }
        let registry = self.registry.borrow();
        let (waiting, done): (Vec<_>, Vec<_>) = waiters.drain(..).partition(|waiter| {
            let present = registry.view().services.get(&waiter.id).map(|service| service.hash.as_str());
            present == Some(waiter.hash.as_str()) && waiter.deadline > now && !waiter.reply.is_closed()
        });
        *waiters = waiting;
        for waiter in done {
            let _ = waiter.reply.send(Ok(()));
        }
    }

    /// Writes what the registry wants written. States of TTL checks are gathered and written now and then.
    async fn persist(&self) -> Result<(), String> {
        let _turn = self.writing.take().await;
        let changes = self.registry.borrow_mut().take_files();
        let Some(files) = &self.files else { return Ok(()) };
        let mut now = Vec::new();
        for change in changes {
            match change {
                FileChange::PutState(state) => {
                    self.states.borrow_mut().insert(state.check_id.clone(), state);
                    self.states_bell.ring();
                }
                FileChange::DropCheck(id) => {
                    self.states.borrow_mut().remove(&id);
                    now.push(FileChange::DropCheck(id));
                }
                other => now.push(other),
            }
        }
        files.apply(now).await
    }

    async fn flush_state(&self, check: &str) {
        let _turn = self.writing.take().await;
        let state = self.states.borrow_mut().remove(check);
        if let (Some(files), Some(state)) = (&self.files, state) {
            // A failure is in the log.
            let _ = files.apply(vec![FileChange::PutState(state)]).await;
        }
    }

    async fn flush_states(&self) {
        let _turn = self.writing.take().await;
        let states = std::mem::take(&mut *self.states.borrow_mut());
        if let Some(files) = &self.files {
            // No registration is among them; a failure is in the log.
            let _ = files.apply(states.into_values().map(FileChange::PutState).collect()).await;
        }
    }
}

/// At once while there are few, so that a crash right behind an update does not forget it; then once in an interval.
async fn write_states(inner: Rc<Inner>) {
    let (mut since, mut writes) = (time::now(), 0);
    loop {
        inner.states_bell.heard().await;
        inner.flush_states().await;
        if time::now() >= since + STATES_INTERVAL {
            (since, writes) = (time::now(), 0);
        }
        writes += 1;
        if writes >= STATES_AT_ONCE {
            time::sleep_until(since + STATES_INTERVAL).await;
        }
    }
}

/// Aliases of other nodes follow the catalog.
async fn follow_remote_aliases(inner: Rc<Inner>) {
    let mut seen = BTreeMap::new();
    loop {
        time::sleep(REMOTE_ALIAS_INTERVAL).await;
        let aliases: Vec<_> = {
            let registry = inner.registry.borrow();
            let all = registry.remote_aliases();
            all.map(|(id, node, service)| (id.to_owned(), node.to_owned(), service.to_owned())).collect()
        };
        if aliases.is_empty() || !inner.catalog.is_known() {
            continue;
        }
        let mut changed = false;
        for (id, node, service) in aliases {
            // What cannot be learned now stays as it was last known.
            let Ok(stamp) = inner.catalog.stamp(&node).await else { continue };
            let key = (id, node, service);
            if seen.get(&key) == Some(&stamp) {
                continue;
            }
            let (id, node, service) = &key;
            let Ok(held) = inner.catalog.holding(node).await else { continue };
            let exists = held.services.iter().any(|row| row.id == *service);
            let finding = alias::evaluate(node, service, exists, held.checks.iter());
            inner.registry.borrow_mut().set_alias(time::now(), id, finding);
            seen.insert(key, stamp);
            changed = true;
        }
        if changed {
            inner.changed();
        }
    }
}

/// The rules of a configuration.
pub fn rules(config: &Config) -> Rules {
    let check = &config.check;
    Rules {
        scripts_from_api: check.enable_remote_script_checks,
        scripts_from_files: check.enable_local_script_checks || check.enable_remote_script_checks,
        output_max: check.output_max_size,
        update_interval: check.update_interval,
        discard_output: check.discard_output,
        deregister_after_min: check.deregister_interval_min,
        reap_interval: check.reap_interval,
    }
}
