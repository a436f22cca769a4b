//! Reading the tables.

use std::ops::Bound;
use std::sync::Arc;

use super::catalog::{Instance, NodeEntry};
use super::keys::KeysUnder;
use super::model::{Check, KvEntry, Node, Service, Status};
use super::state::State;
use super::topic::fold;

impl State {
    /// One key.
    pub fn kv(&self, key: &[u8]) -> Option<&Arc<KvEntry>> {
        self.keys.get(key)
    }

    /// The keys that start with `prefix`, in key order.
    pub fn kv_under(&self, prefix: &[u8]) -> KeysUnder<'_> {
        self.keys.under(prefix)
    }

    /// How many keys there are.
    pub fn kv_count(&self) -> usize {
        self.keys.len()
    }

    /// All nodes, in order of lower-case name.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values().map(|entry| &entry.row)
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// A node by name, in any letter case.
    pub fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.entry(name).map(|entry| &entry.row)
    }

    /// A node by ID (lower case).
    pub fn node_by_id(&self, id: &str) -> Option<&Arc<Node>> {
        self.node_ids.get(id).and_then(|name| self.nodes.get(name)).map(|entry| &entry.row)
    }

    /// Nodes whose ID starts with `prefix` (lower case), in order of ID.
    pub fn nodes_by_id_prefix(&self, prefix: &str) -> impl Iterator<Item = &Arc<Node>> {
        self.node_ids
            .range::<_, str>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(id, _)| id.starts_with(prefix))
            .filter_map(|(_, name)| self.nodes.get(name).map(|entry| &entry.row))
    }

    /// Nodes whose address is exactly `address`.
    pub fn nodes_by_address(&self, address: &str) -> impl Iterator<Item = &Arc<Node>> {
        self.node_addresses
            .get(address)
            .into_iter()
            .flat_map(|names| names.iter())
            .filter_map(|name| self.nodes.get(name).map(|entry| &entry.row))
    }

    /// Names of all services, as spelled, each with the sorted union of its tags.
    pub fn services(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = &str>)> {
        self.spellings.iter().map(|(name, spelling)| (&**name, spelling.tags.keys().map(|tag| &**tag)))
    }

    /// How many instances all services have.
    pub fn instance_count(&self) -> usize {
        self.services.values().map(|entry| entry.instances.len()).sum()
    }

    /// Services on a node, in order of lower-case ID.
    pub fn node_services(&self, node: &str) -> impl Iterator<Item = &Arc<Service>> {
        self.entry(node).into_iter().flat_map(|entry| entry.services.values())
    }

    /// One service on a node.
    pub fn node_service(&self, node: &str, id: &str) -> Option<&Arc<Service>> {
        self.entry(node)?.services.get(&*fold(id))
    }

    /// Checks of a node and of the services on it, in order of lower-case ID.
    pub fn node_checks(&self, node: &str) -> impl Iterator<Item = &Arc<Check>> {
        self.entry(node).into_iter().flat_map(|entry| entry.checks.values())
    }

    /// One check on a node.
    pub fn node_check(&self, node: &str, id: &str) -> Option<&Arc<Check>> {
        self.entry(node)?.checks.get(&*fold(id))
    }

    /// Instances of a service (name in any letter case), by node and then by ID.
    pub fn instances(&self, service: &str) -> impl Iterator<Item = Instance<'_>> {
        self.services
            .get(&*fold(service))
            .into_iter()
            .flat_map(|entry| entry.instances.values())
            .map(|row| row.view())
    }

    /// Number of instances of a service.
    pub fn instances_len(&self, service: &str) -> usize {
        self.services.get(&*fold(service)).map_or(0, |entry| entry.instances.len())
    }

    /// Services that have exactly `address` of their own, by node and then by ID.
    pub fn services_by_address(&self, address: &str) -> impl Iterator<Item = &Arc<Service>> {
        self.service_addresses
            .get(address)
            .into_iter()
            .flat_map(|here| here.iter())
            .filter_map(|(node, id)| self.nodes.get(node)?.services.get(id))
    }

    /// Checks that were written for a service of this name (in any letter case), by node and then by ID.
    pub fn service_checks(&self, service: &str) -> impl Iterator<Item = &Arc<Check>> {
        self.service_checks.get(&*fold(service)).into_iter().flat_map(|list| list.rows.values())
    }

    /// All checks, by node and then by ID.
    pub fn checks(&self) -> impl Iterator<Item = &Arc<Check>> {
        self.nodes.values().flat_map(|entry| entry.checks.values())
    }

    /// All checks in one state, by node and then by ID.
    pub fn checks_in_state(&self, status: Status) -> impl Iterator<Item = &Arc<Check>> {
        self.checks_by_status[status as usize].values()
    }

    fn entry(&self, node: &str) -> Option<&Arc<NodeEntry>> {
        self.nodes.get(&*fold(node))
    }
}
