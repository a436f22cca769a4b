//! How the catalog lies in memory: for each node its services and checks, for each service name its instances
//! with everything an answer needs at hand.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::model::{Check, Node, Service};

/// A name in lower case, shared by the maps that use it as key.
pub(super) type Name = Arc<str>;

/// A node with what is on it.
#[derive(Clone, Debug)]
pub(super) struct NodeEntry {
    pub row: Arc<Node>,
    /// By folded ID.
    pub services: OrdMap<Name, Arc<Service>>,
    /// By folded ID, those of services too.
    pub checks: OrdMap<Name, Arc<Check>>,
    /// Folded service ID (empty for checks of the node itself) and folded check ID.
    pub checks_by_service: OrdSet<(Name, Name)>,
    /// Checks of the node itself, in order of ID; shared by its instances.
    pub own_checks: Arc<[Arc<Check>]>,
    /// Newest change of the row or the services.
    pub changed: u64,
    /// Newest change of the checks.
    pub checks_changed: u64,
}

/// All instances of one service name.
#[derive(Clone, Debug, Default)]
pub(super) struct ServiceEntry {
    /// By folded node name and folded service ID: Consul's order of answers.
    pub instances: OrdMap<(Name, Name), Arc<InstanceRow>>,
    /// Newest change of rows of the instances or their nodes.
    pub instances_changed: u64,
    /// The same or of their checks.
    pub health_changed: u64,
    /// Newest change by which an instance may have gone. Not part of a snapshot: with a state from there it is the newest
    /// change of all.
    pub shrunk: u64,
}

/// The checks that were written for one service name. A service that takes another name leaves them here until they are
/// written again, as in Consul.
#[derive(Clone, Debug, Default)]
pub(super) struct ServiceChecks {
    /// By folded node name and folded check ID.
    pub rows: OrdMap<(Name, Name), Arc<Check>>,
    /// Newest change.
    pub changed: u64,
}

/// How often a spelling of a service name and each tag under it occur.
#[derive(Clone, Debug, Default)]
pub(super) struct Spelling {
    pub instances: usize,
    pub tags: OrdMap<Arc<str>, usize>,
}

/// The rows of one instance, gathered when written rather than when asked for.
#[derive(Clone, Debug)]
pub(super) struct InstanceRow {
    pub node: Arc<Node>,
    pub service: Arc<Service>,
    pub node_checks: Arc<[Arc<Check>]>,
    pub service_checks: Vec<Arc<Check>>,
    /// Newest change of any of these, of what belongs to them too. Not part of a snapshot, as [`ServiceEntry::shrunk`].
    pub changed: u64,
}

/// One instance of a service, with its node and the checks that decide its health.
#[derive(Clone, Copy, Debug)]
pub struct Instance<'a> {
    /// The node it is on.
    pub node: &'a Arc<Node>,
    /// Its row.
    pub service: &'a Arc<Service>,
    /// Checks of the node, in order of ID; in answers they come first.
    pub node_checks: &'a [Arc<Check>],
    /// Checks of this instance, in order of ID.
    pub service_checks: &'a [Arc<Check>],
}

impl<'a> Instance<'a> {
    /// All checks that decide its health, in the order of Consul's answers.
    pub fn checks(&self) -> impl Iterator<Item = &'a Arc<Check>> + use<'a> {
        self.node_checks.iter().chain(self.service_checks)
    }
}

impl NodeEntry {
    /// Folded IDs of the checks of one service (folded ID; empty: of the node itself), in order.
    pub(super) fn checks_of(&self, service: &str) -> Vec<Name> {
        let from: (Name, Name) = (service.into(), "".into());
        let of_service = self.checks_by_service.range(from..).take_while(|(id, _)| **id == *service);
        of_service.map(|(_, check)| check.clone()).collect()
    }
}

impl InstanceRow {
    pub(super) fn view(&self) -> Instance<'_> {
        Instance {
            node: &self.node,
            service: &self.service,
            node_checks: &self.node_checks,
            service_checks: &self.service_checks,
        }
    }
}
