//! What the catalog does not hold yet: marks on rows, names of rows that are gone, and the batches that settle them.
//!
//! Every change gets a number. A batch remembers the numbers it carries; once it is in the catalog, rows that have not
//! changed since are settled. So a change during a write is never lost and never waits for the next full compare.

use std::collections::BTreeMap;

use super::{CheckEntry, Registry};
use crate::agent::sync;
use crate::store::command::{CatalogOp, Deregister, Register};
use crate::store::model::{Check, Node, Service};

/// Most operations in one command; what is left goes with the next one.
pub const BATCH_OPS_MAX: usize = 512;

/// The state of one row towards the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    change: u64,
    synced: bool,
}

/// See the module.
#[derive(Default)]
pub struct Ledger {
    last_change: u64,
    node_synced: bool,
    node_change: u64,
    services_gone: BTreeMap<String, u64>,
    /// Check IDs, with the service they belonged to.
    checks_gone: BTreeMap<String, (u64, String)>,
}

impl Ledger {
    /// A mark for a row that changed just now.
    pub fn changed(&mut self) -> Mark {
        self.last_change += 1;
        Mark { change: self.last_change, synced: false }
    }

    /// Takes a compare's word for a row. True when the catalog was believed to hold it and does not.
    fn judge(&mut self, mark: &mut Mark, same: bool) -> bool {
        let surprise = mark.synced && !same;
        if surprise {
            *mark = self.changed();
        } else if same {
            mark.synced = true;
        }
        surprise
    }

    pub(super) fn service_is_back(&mut self, id: &str) {
        self.services_gone.remove(id);
    }

    pub(super) fn service_gone(&mut self, id: &str) {
        self.last_change += 1;
        self.services_gone.insert(id.to_owned(), self.last_change);
    }

    pub(super) fn check_is_back(&mut self, id: &str) {
        self.checks_gone.remove(id);
    }

    pub(super) fn check_gone(&mut self, id: &str, service_id: &str) {
        self.last_change += 1;
        self.checks_gone.insert(id.to_owned(), (self.last_change, service_id.to_owned()));
    }
}

/// Changes on their way to the catalog.
#[derive(Debug, Default)]
pub struct Batch {
    /// What to write, in order.
    pub ops: Vec<CatalogOp>,
    /// Whether more waits than one command takes.
    pub more: bool,
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
        self.ledger.node_synced
            && self.ledger.services_gone.is_empty()
            && self.ledger.checks_gone.is_empty()
            && self.services.values().all(|entry| entry.sync.synced)
            && self.checks.values().all(|entry| entry.sync.synced)
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
        for (id, entry) in self.services.iter().filter(|(_, entry)| !entry.sync.synced) {
            if !batch.has_room() {
                return;
            }
            let of_service = |check: &&CheckEntry| check.local.row.service_id == *id;
            let checks = self.take_checks(of_service, batch);
            batch.services.push((id.clone(), entry.sync.change));
            batch.ops.push(register(node, true, Some(Service::clone(&entry.local.row)), checks));
        }
    }

    fn collect_checks(&self, node: &Node, batch: &mut Batch) {
        if !batch.has_room() {
            return;
        }
        let services: std::collections::BTreeSet<_> =
            batch.services.iter().map(|(id, _)| id.clone()).collect();
        // Checks of a service that waits for the next command wait with it.
        let checks = self.take_checks(
            |check| {
                let service = &check.local.row.service_id;
                !services.contains(service) && self.services.get(service).is_none_or(|s| s.sync.synced)
            },
            batch,
        );
        if !checks.is_empty() {
            batch.ops.push(register(node, true, None, checks));
        }
    }

    fn take_checks(&self, wanted: impl Fn(&&CheckEntry) -> bool, batch: &mut Batch) -> Vec<Check> {
        let waiting = self.checks.values().filter(|check| !check.sync.synced).filter(wanted);
        waiting
            .map(|entry| {
                batch.checks.push((entry.local.row.check_id.clone(), entry.sync.change));
                Check::clone(&entry.local.row)
            })
            .collect()
    }

    /// A batch is in the catalog: what it carried and has not changed since is settled.
    pub fn settle(&mut self, batch: &Batch) {
        if batch.node.is_some_and(|change| change == self.ledger.node_change) {
            self.ledger.node_synced = true;
        }
        for (id, change) in &batch.services {
            if let Some(entry) = self.services.get_mut(id).filter(|entry| entry.sync.change == *change) {
                entry.sync.synced = true;
            }
        }
        for (id, change) in &batch.checks {
            if let Some(entry) = self.checks.get_mut(id).filter(|entry| entry.sync.change == *change) {
                entry.sync.synced = true;
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
    /// flight. The rows that belong to the servers (service `consul`, check `serfHealth`) are left alone.
    pub fn compare(&mut self, held: &sync::Held<'_>) -> Repair {
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
        repair
    }

    fn compare_services(&mut self, held: &sync::Held<'_>, repair: &mut Repair) {
        for (id, entry) in &mut self.services {
            let same =
                held.services.get(id.as_str()).is_some_and(|row| sync::same_service(&entry.local.row, row));
            if self.ledger.judge(&mut entry.sync, same) {
                repair.services.push(id.clone());
            }
        }
        for id in held.services.keys() {
            if !self.services.contains_key(*id) && *id != sync::SERVER_SERVICE {
                self.ledger.service_gone(id);
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
            if self.ledger.judge(&mut entry.sync, same) {
                repair.checks.push(id.clone());
            }
        }
        for (id, row) in &held.checks {
            let strange = !self.checks.contains_key(*id) && *id != sync::SERVER_CHECK;
            // Goes with its service.
            if strange && !repair.strange_services.contains(&row.service_id) {
                self.ledger.check_gone(id, &row.service_id);
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
            let (old, sync) = (entry.local.clone(), entry.sync);
            let row = Service { tags, ..Service::clone(&old.row) };
            self.insert_service(row, old.source, old.token.clone());
            if let Some(entry) = self.services.get_mut(&id) {
                entry.sync = sync;
            }
        }
    }
}

impl Batch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.checks_gone.is_empty()
    }

    fn has_room(&mut self) -> bool {
        let room = self.ops.len() < BATCH_OPS_MAX;
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
