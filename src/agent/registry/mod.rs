//! The local registry: services and checks of this agent, their statuses, their timers, and what of them the catalog
//! does not hold yet. Pure: `now` and randomness come in as values; files and the catalog are the driver's business.

mod aliases;
mod checks;
mod content_hash;
pub mod explain;
mod ledger;
mod services;
mod status;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::local::{LocalCheck, LocalService, LocalState, Source};
use crate::health::plan::{Plan, Probe};
use crate::health::schedule::{Bounds, Schedule, Ticket};
use crate::health::threshold::Counter;
use crate::store::model::{Check, Node, Status};

pub use checks::{Prepared, Restored};
pub use ledger::{Batch, Repair};

/// Most services on one agent. Further registrations are refused with a text that says so.
pub const SERVICES_MAX: usize = 16_384;
/// Most checks on one agent. Further registrations are refused with a text that says so.
pub const CHECKS_MAX: usize = 65_536;
/// Rules of the configuration that registrations and results follow.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Whether registrations of the HTTP API may run programs.
    pub scripts_from_api: bool,
    /// Whether registrations of configuration files may run programs.
    pub scripts_from_files: bool,
    /// Most bytes of output kept of a check; a definition may only lower it.
    pub output_max: usize,
    /// How long a change of nothing but the output may wait before it is written to the catalog. Zero: not at all.
    pub update_interval: Duration,
    /// Whether output is thrown away.
    pub discard_output: bool,
    /// The shortest `DeregisterCriticalServiceAfter`; shorter ones are raised to it.
    pub deregister_after_min: Duration,
    /// How often critical services are looked at for deregistration.
    pub reap_interval: Duration,
}

/// A file to write or remove, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum FileChange {
    /// A service was registered.
    PutService(Arc<LocalService>),
    /// A service is gone.
    DropService(String),
    /// A check was registered.
    PutCheck(Box<super::persist::StoredCheck>),
    /// A check is gone, and so is its state.
    DropCheck(String),
    /// A check is defined by the configuration now; its state stays.
    DropCheckFile(String),
    /// A TTL check was told.
    PutState(super::persist::StoredState),
}

/// The registry.
pub struct Registry {
    rules: Rules,
    services: BTreeMap<String, ServiceEntry>,
    checks: BTreeMap<String, CheckEntry>,
    /// Check IDs by service ID; those of the node under the empty one.
    checks_by_service: BTreeMap<String, BTreeSet<String>>,
    aliases: aliases::Aliases,
    view: LocalState,
    schedule: Schedule,
    tickets: HashMap<Ticket, String>,
    alarms: BinaryHeap<Reverse<(Instant, AlarmKind, String)>>,
    next_reap: Instant,
    ledger: ledger::Ledger,
    files: Vec<FileChange>,
    changed: bool,
    random: u64,
}

struct ServiceEntry {
    local: Arc<LocalService>,
    sync: ledger::Mark,
}

struct CheckEntry {
    local: Arc<LocalCheck>,
    plan: Option<Arc<Plan>>,
    counter: Counter,
    ticket: Option<Ticket>,
    /// TTL checks: when silence becomes critical; none once it has.
    ttl_deadline: Option<Instant>,
    /// TTL checks: the one alarm of theirs that counts.
    ttl_alarm: Option<Instant>,
    /// TTL checks: what they were told last.
    told: String,
    critical_since: Option<Instant>,
    deregister_after: Option<Duration>,
    /// When a change of nothing but the output is due to be written.
    output_due: Option<Instant>,
    sync: ledger::Mark,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum AlarmKind {
    Ttl,
    Output,
}

/// One run that is due: hand it to a runner, then call [`Registry::finished`].
#[derive(Clone, Debug)]
pub struct Run {
    /// Which registration.
    pub ticket: Ticket,
    /// What to do.
    pub plan: Arc<Plan>,
}

impl Registry {
    /// An empty registry of a node. `bounds` are for the runs of its checks, `seed` feeds the jitter.
    pub fn new(node: Node, rules: Rules, bounds: Bounds, now: Instant, seed: u64) -> Registry {
        let next_reap = now + rules.reap_interval;
        let view = LocalState { node: Arc::new(node), ..LocalState::default() };
        Registry {
            rules,
            services: BTreeMap::new(),
            checks: BTreeMap::new(),
            checks_by_service: BTreeMap::new(),
            aliases: aliases::Aliases::default(),
            view,
            schedule: Schedule::new(bounds),
            tickets: HashMap::new(),
            alarms: BinaryHeap::new(),
            next_reap,
            ledger: ledger::Ledger::default(),
            files: Vec::new(),
            changed: true,
            random: seed,
        }
    }

    /// Takes the rules of a new configuration; they hold for what is registered and told from now on.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// The rules in force.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Whether the view changed since [`Registry::take_view`].
    pub fn has_news(&self) -> bool {
        self.changed
    }

    /// The view to publish, if it changed since the last call.
    pub fn take_view(&mut self) -> Option<LocalState> {
        std::mem::take(&mut self.changed).then(|| self.view.clone())
    }

    /// The view.
    pub fn view(&self) -> &LocalState {
        &self.view
    }

    /// Files to write, in order.
    pub fn take_files(&mut self) -> Vec<FileChange> {
        std::mem::take(&mut self.files)
    }

    /// When to call [`Registry::tick`] and [`Registry::take_due`] next.
    pub fn next_deadline(&self) -> Instant {
        let alarm = self.alarms.peek().map(|Reverse((at, ..))| *at);
        [alarm, self.schedule.next_deadline()].into_iter().flatten().fold(self.next_reap, Instant::min)
    }

    /// Appends the runs to start now.
    pub fn take_due(&mut self, now: Instant, out: &mut Vec<Run>) {
        let mut due = Vec::new();
        self.schedule.take_due(now, &mut due);
        for ticket in due {
            let plan =
                self.tickets.get(&ticket).and_then(|id| self.checks.get(id)).and_then(|c| c.plan.clone());
            match plan {
                Some(plan) => out.push(Run { ticket, plan }),
                None => {
                    self.schedule.finished(now, ticket);
                }
            }
        }
    }

    /// Where a service came from.
    pub fn service_source(&self, id: &str) -> Option<Source> {
        self.services.get(id).map(|entry| entry.local.source)
    }

    /// Runs skipped because the one before was not over.
    pub fn runs_skipped(&self) -> u64 {
        self.schedule.skipped()
    }

    /// A random fraction in 0..1 (splitmix64).
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn show_check(&mut self, id: &str) {
        self.changed = true;
        match self.checks.get(id) {
            Some(entry) => {
                self.view.checks.insert(id.to_owned(), entry.local.clone());
            }
            None => {
                self.view.checks.remove(id);
            }
        }
    }

    /// The node's name.
    fn node_name(&self) -> &str {
        &self.view.node.node
    }

    /// The numbers of the statistics; `told` is the change in the number of TTL checks.
    fn count_kinds(&mut self, told: isize) {
        self.view.monitors = self.schedule.len();
        self.view.ttls = self.view.ttls.saturating_add_signed(told);
    }
}

impl CheckEntry {
    fn is_ttl(&self) -> bool {
        matches!(self.plan.as_deref(), Some(Plan { probe: Probe::Ttl { .. }, .. }))
    }

    fn is_alias(&self) -> bool {
        matches!(self.plan.as_deref(), Some(Plan { probe: Probe::Alias { .. }, .. }))
    }

    fn set_row(&mut self, row: Check) {
        self.local = Arc::new(LocalCheck { row: Arc::new(row), source: self.local.source });
    }

    fn note_critical(&mut self, now: Instant, status: Status) {
        match status {
            Status::Critical => {
                self.critical_since.get_or_insert(now);
            }
            Status::Passing | Status::Warning => self.critical_since = None,
        }
    }
}
