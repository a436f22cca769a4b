//! What the catalog does not hold yet: marks on rows, names of rows that are gone, and the batches that settle them.
//!
//! Every change gets a number. A batch remembers the numbers it carries; once it is in the catalog, rows that have not
//! changed since are settled. So a change during a write is never lost and never waits for the next full compare.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{CheckEntry, Registry};
use crate::agent::sync;
use crate::store::command::{CatalogOp, Deregister, Register};
use crate::store::model::{Check, Node, Service};

/// Most writes under way at a time; what is left goes with the next batch.
pub const BATCH_OPS_MAX: usize = 512;
/// Most bytes of check rows, roughly, in one batch; what is left goes with the next one. Far below what one command
/// may hold.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// What a check row weighs besides its texts, bytes.
const CHECK_WEIGHT: usize = 256;

/// The state of one row towards the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    change: u64,
    synced: bool,
}

impl Mark {
    /// Whether the catalog holds the row as it is here, as far as we know.
    pub fn is_synced(self) -> bool {
        self.synced
    }
}

/// IDs of the rows of one kind that the catalog lacks, in the order in which they changed.
#[derive(Default)]
struct Lacking(BTreeMap<u64, String>);

/// See the module.
#[derive(Default)]
pub struct Ledger {
    last_change: u64,
    node_synced: bool,
    node_change: u64,
    services: Lacking,
    checks: Lacking,
    services_gone: BTreeMap<String, u64>,
    /// Check IDs, with the service they belonged to.
    checks_gone: BTreeMap<String, (u64, String)>,
    /// As of the last compare that agreed: the catalog's stamp of this node, and our last change.
    agreed: Option<(u64, u64)>,
}

impl Lacking {
    /// A row changed just now, as number `change`. `old` is its mark before.
    fn changed(&mut self, change: u64, id: &str, old: Option<Mark>) -> Mark {
        self.forget(old);
        self.0.insert(change, id.to_owned());
        Mark { change, synced: false }
    }

    /// The catalog holds the row.
    fn settle(&mut self, mark: &mut Mark) {
        self.0.remove(&mark.change);
        mark.synced = true;
    }

    fn forget(&mut self, mark: Option<Mark>) {
        if let Some(mark) = mark.filter(|mark| !mark.synced) {
            self.0.remove(&mark.change);
        }
    }

    /// Takes a compare's word for a row. True when the catalog was believed to hold it and does not.
    fn judge(&mut self, last_change: &mut u64, id: &str, mark: &mut Mark, same: bool) -> bool {
        if same {
            self.settle(mark);
        } else if mark.synced {
            *last_change += 1;
            *mark = self.changed(*last_change, id, None);
            return true;
        }
        false
    }
}

impl Ledger {
    /// A mark for a service that changed just now; `old` is the one it had.
    pub(super) fn service_changed(&mut self, id: &str, old: Option<Mark>) -> Mark {
        self.last_change += 1;
        self.services.changed(self.last_change, id, old)
    }

    /// A mark for a check that changed just now; `old` is the one it had.
    pub(super) fn check_changed(&mut self, id: &str, old: Option<Mark>) -> Mark {
        self.last_change += 1;
        self.checks.changed(self.last_change, id, old)
    }

    pub(super) fn service_is_back(&mut self, id: &str) {
        self.services_gone.remove(id);
    }

    pub(super) fn service_gone(&mut self, id: &str, mark: Option<Mark>) {
        self.services.forget(mark);
        self.last_change += 1;
        self.services_gone.insert(id.to_owned(), self.last_change);
    }

    pub(super) fn check_is_back(&mut self, id: &str) {
        self.checks_gone.remove(id);
    }

    pub(super) fn check_gone(&mut self, id: &str, service_id: &str, mark: Option<Mark>) {
        self.checks.forget(mark);
        self.last_change += 1;
        self.checks_gone.insert(id.to_owned(), (self.last_change, service_id.to_owned()));
    }
}

/// Changes on their way to the catalog.
#[derive(Debug, Default)]
pub struct Batch {
    /// What to write, in order; each is a command of its own.
    pub ops: Vec<CatalogOp>,
    /// Whether more waits than one batch takes.
    pub more: bool,
    /// Rough bytes of check rows.
    weight: usize,
    node: Option<u64>,
    services: Vec<(String, u64)>,
    checks: Vec<(String, u64)>,
    services_gone: Vec<(String, u64)>,
    checks_gone: Vec<(String, u64)>,
}

/// What a full compare found, for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// The node's own row differs or is missing.
    pub node: bool,
    /// Services the catalog lacks or holds differently.
    pub services: Vec<String>,
    /// Checks the catalog lacks or holds differently.
    pub checks: Vec<String>,
    /// Services of this node that the catalog holds and the agent does not know.
    pub strange_services: Vec<String>,
    /// Checks of this node that the catalog holds and the agent does not know.
    pub strange_checks: Vec<String>,
}

impl Repair {
    /// Whether everything agrees.
    pub fn is_empty(&self) -> bool {
        *self == Repair::default()
    }
}

impl Registry {
    /// The number of the last change: what a waiter waits for.
    pub fn last_change(&self) -> u64 {
        self.ledger.last_change
    }

    /// Whether the catalog lacks nothing, as far as we know.
    pub fn is_synced(&self) -> bool {
        let ledger = &self.ledger;
        ledger.node_synced
            && ledger.services_gone.is_empty()
            && ledger.checks_gone.is_empty()
            && ledger.services.0.is_empty()
            && ledger.checks.0.is_empty()
    }

    /// Whether a compare can be spared: nothing has changed here or in the catalog since one that agreed. `stamp`
    /// is the index of the last change of anything that the catalog holds of this node: equal stamps are equal rows.
    pub fn agrees_with(&self, stamp: u64) -> bool {
        self.is_synced() && self.ledger.agreed == Some((stamp, self.ledger.last_change))
    }

    /// The node's row becomes another one (a reload changed its metadata).
    pub fn set_node(&mut self, node: Node) {
        if !sync::same_node(&self.view.node, &node) {
            self.view.node = Arc::new(node);
            self.changed = true;
            self.node_changed();
        }
    }

    /// The node's row has to be written (again).
    pub fn node_changed(&mut self) {
        self.ledger.last_change += 1;
        self.ledger.node_change = self.ledger.last_change;
        self.ledger.node_synced = false;
    }

    /// Gathers what the catalog lacks: removals first, then the node, then services with their checks, then checks.
    pub fn collect(&self) -> Batch {
        let node = &*self.view.node;
        let mut batch = Batch::default();
        if !self.ledger.node_synced {
            batch.node = Some(self.ledger.node_change);
            batch.ops.push(register(node, false, None, Vec::new()));
        }
        self.collect_removals(node, &mut batch);
        self.collect_services(node, &mut batch);
        self.collect_checks(node, &mut batch);
        batch
    }

    fn collect_removals(&self, node: &Node, batch: &mut Batch) {
        for (id, change) in &self.ledger.services_gone {
            if !batch.has_room() {
                return;
            }
            batch.services_gone.push((id.clone(), *change));
            batch.ops.push(deregister(node, id, ""));
        }
        for (id, (change, service_id)) in &self.ledger.checks_gone {
            if !batch.has_room() {
                return;
            }
            batch.checks_gone.push((id.clone(), *change));
            // The catalog drops the checks of a service with it.
            if service_id.is_empty() || !self.ledger.services_gone.contains_key(service_id) {
                batch.ops.push(deregister(node, "", id));
            }
        }
    }

    fn collect_services(&self, node: &Node, batch: &mut Batch) {
        for (change, id) in &self.ledger.services.0 {
            let Some(entry) = self.services.get(id) else { continue };
            if !batch.has_room() {
                return;
            }
            let checks = self.checks_by_service.get(id).into_iter().flatten();
            let checks =
                checks.filter_map(|id| self.checks.get(id)).filter(|check| !check.sync.synced).collect();
            batch.services.push((id.clone(), *change));
            let checks = batch.take(checks);
            batch.ops.push(register(node, true, Some(Service::clone(&entry.local.row)), checks));
        }
    }

    fn collect_checks(&self, node: &Node, batch: &mut Batch) {
        let mut checks = Vec::new();
        // Checks of a service that is written by this batch go with it, or wait with it for the next one.
        let lone = |check: &&CheckEntry| {
            self.services.get(&check.local.row.service_id).is_none_or(|service| service.sync.synced)
        };
        for check in self.ledger.checks.0.values().filter_map(|id| self.checks.get(id)).filter(lone) {
            if !batch.has_room() {
                break;
            }
            checks.extend(batch.take(vec![check]));
        }
        if !checks.is_empty() {
            batch.ops.push(register(node, true, None, checks));
        }
    }

    /// A batch is in the catalog: what it carried and has not changed since is settled.
    pub fn settle(&mut self, batch: &Batch) {
        if batch.node.is_some_and(|change| change == self.ledger.node_change) {
            self.ledger.node_synced = true;
        }
        for (id, change) in &batch.services {
            if let Some(entry) = self.services.get_mut(id).filter(|entry| entry.sync.change == *change) {
                self.ledger.services.settle(&mut entry.sync);
            }
        }
        for (id, change) in &batch.checks {
            if let Some(entry) = self.checks.get_mut(id).filter(|entry| entry.sync.change == *change) {
                self.ledger.checks.settle(&mut entry.sync);
            }
        }
        for (id, change) in &batch.services_gone {
            if self.ledger.services_gone.get(id) == Some(change) {
                self.ledger.services_gone.remove(id);
            }
        }
        for (id, change) in &batch.checks_gone {
            if self.ledger.checks_gone.get(id).is_some_and(|(c, _)| c == change) {
                self.ledger.checks_gone.remove(id);
            }
        }
    }

    /// Compares with what the catalog holds of this node: marks what differs, settles what agrees. No write may be in
    /// flight. `stamp` is for [`Registry::agrees_with`]. The rows that belong to the servers (service `consul`, check `serfHealth`) are left alone.
    pub fn compare(&mut self, held: &sync::Held<'_>, stamp: u64) -> Repair {
        let mut repair = Repair::default();
        let same = held.node.is_some_and(|node| sync::same_node(&self.view.node, node));
        if same {
            self.ledger.node_synced = true;
        } else if self.ledger.node_synced {
            self.node_changed();
            repair.node = true;
        }
        self.adopt_tags(held);
        self.compare_services(held, &mut repair);
        self.compare_checks(held, &mut repair);
        let agrees = repair.is_empty() && self.is_synced();
        self.ledger.agreed = agrees.then_some((stamp, self.ledger.last_change));
        repair
    }

    fn compare_services(&mut self, held: &sync::Held<'_>, repair: &mut Repair) {
        for (id, entry) in &mut self.services {
            let same =
                held.services.get(id.as_str()).is_some_and(|row| sync::same_service(&entry.local.row, row));
            let ledger = &mut self.ledger;
            if ledger.services.judge(&mut ledger.last_change, id, &mut entry.sync, same) {
                repair.services.push(id.clone());
            }
        }
        for id in held.services.keys() {
            if !self.services.contains_key(*id) && *id != sync::SERVER_SERVICE {
                self.ledger.service_gone(id, None);
                repair.strange_services.push((*id).to_owned());
            }
        }
    }

    fn compare_checks(&mut self, held: &sync::Held<'_>, repair: &mut Repair) {
        for (id, entry) in &mut self.checks {
            // Output that waits for its turn is no difference.
            let ignore_output = entry.output_due.is_some();
            let row = &entry.local.row;
            let same =
                held.checks.get(id.as_str()).is_some_and(|held| sync::same_check(row, held, ignore_output));
            let ledger = &mut self.ledger;
            if ledger.checks.judge(&mut ledger.last_change, id, &mut entry.sync, same) {
                repair.checks.push(id.clone());
            }
        }
        for (id, row) in &held.checks {
            let strange = !self.checks.contains_key(*id) && *id != sync::SERVER_CHECK;
            // Goes with its service.
            if strange && !repair.strange_services.contains(&row.service_id) {
                self.ledger.check_gone(id, &row.service_id, None);
                repair.strange_checks.push((*id).to_owned());
            }
        }
    }

    /// Services with `EnableTagOverride` take over the tags that others gave them in the catalog.
    fn adopt_tags(&mut self, held: &sync::Held<'_>) {
        let mut adopted = Vec::new();
        for (id, entry) in &self.services {
            let row = &entry.local.row;
            if let Some(theirs) = held.services.get(id.as_str())
                && row.enable_tag_override
                && entry.sync.synced
                && theirs.tags != row.tags
            {
                adopted.push((id.clone(), theirs.tags.clone()));
            }
        }
        for (id, tags) in adopted {
            let Some(entry) = self.services.get(&id) else { continue };
            let old = entry.local.clone();
            let row = Service { tags, ..Service::clone(&old.row) };
            self.insert_service(row, old.source, old.token.clone());
            if let Some(entry) = self.services.get_mut(&id) {
                self.ledger.services.settle(&mut entry.sync);
            }
        }
    }
}

impl Batch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.checks_gone.is_empty()
    }

    /// Notes the checks as carried; their rows.
    fn take(&mut self, checks: Vec<&CheckEntry>) -> Vec<Check> {
        let row = |entry: &CheckEntry| {
            self.checks.push((entry.local.row.check_id.clone(), entry.sync.change));
            self.weight += CHECK_WEIGHT + entry.local.row.output.len() + entry.local.row.notes.len();
            Check::clone(&entry.local.row)
        };
        checks.into_iter().map(row).collect()
    }

    fn has_room(&mut self) -> bool {
        let room = self.ops.len() < BATCH_OPS_MAX && self.weight < BATCH_BYTES_MAX;
        self.more |= !room;
        room
    }
}

fn register(node: &Node, skip_node_update: bool, service: Option<Service>, checks: Vec<Check>) -> CatalogOp {
    CatalogOp::Register(Box::new(Register { node: node.clone(), skip_node_update, service, checks }))
}

fn deregister(node: &Node, service_id: &str, check_id: &str) -> CatalogOp {
    CatalogOp::Deregister(Deregister {
        node: node.node.clone(),
        service_id: service_id.to_owned(),
        check_id: check_id.to_owned(),
    })
}
