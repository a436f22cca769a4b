//! Changing nodes and services and all that hangs on them: the maps by other keys, the gathered instances, the
//! indexes and the touched topics. Checks: [`super::write_checks`].

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::catalog::{InstanceRow, Name, NodeEntry, ServiceEntry};
use super::model::{Node, Service};
use super::state::State;
use super::topic::fold;
use super::touched::Touched;

impl State {
    /// Writes a node row. `create_index` is that of the row it was renamed from.
    pub(super) fn write_node(
        &mut self,
        index: u64,
        key: &Name,
        mut node: Node,
        create_index: Option<u64>,
        touched: &mut Touched,
    ) {
        let old = self.nodes.get(key).map(|entry| entry.row.clone());
        node.create_index = create_index.or(old.as_ref().map(|row| row.create_index)).unwrap_or(index);
        node.modify_index = index;
        if let Some(old) = &old {
            self.unlink_node(key, old);
        }
        self.link_node(key, &node);
        let row = Arc::new(node);
        match self.nodes.get_mut(key) {
            Some(entry) => Arc::make_mut(entry).row = row,
            None => {
                let entry = NodeEntry {
                    row,
                    services: OrdMap::new(),
                    checks: OrdMap::new(),
                    checks_by_service: OrdSet::new(),
                    own_checks: Arc::new([]),
                    changed: index,
                    checks_changed: self.gone_node_checks.index_of(key),
                };
                self.gone_nodes.forget(key);
                self.nodes.insert(key.clone(), Arc::new(entry));
            }
        }
        self.at.nodes = index;
        touched.nodes();
        self.node_changed(index, key, touched);
        for id in self.service_ids(key) {
            if let Some(service) = self.gather(index, key, &id) {
                self.instances_changed(index, &service, touched);
            }
        }
    }

    pub(super) fn remove_node(&mut self, index: u64, key: &Name, touched: &mut Touched) {
        for id in self.service_ids(key) {
            self.remove_service(index, key, &id, touched);
        }
        let checks: Vec<Name> =
            self.nodes.get(key).into_iter().flat_map(|entry| entry.checks.keys().cloned()).collect();
        for id in checks {
            // No service is left to feel it.
            self.take_check(index, key, &id, touched);
        }
        self.drop_coordinates(index, key, touched);
        self.invalidate_node(index, key, touched);
        let Some(entry) = self.nodes.remove(key) else { return };
        self.unlink_node(key, &entry.row);
        self.gone_nodes.bury(key.clone(), index);
        self.gone_node_checks.bury(key.clone(), entry.checks_changed);
        self.at.nodes = index;
        touched.nodes();
        touched.node(key);
    }

    /// Writes a service row; one that is there already in the same words stays. Its checks keep the name and tags
    /// that the service had when they were written, as Consul's do.
    pub(super) fn write_service(
        &mut self,
        index: u64,
        node_key: &Name,
        mut service: Service,
        touched: &mut Touched,
    ) {
        let id: Name = fold(&service.id).into();
        let entry = self.nodes.get(node_key).expect("a registration writes the node before its service");
        service.node.clone_from(&entry.row.node);
        service.create_index = index;
        service.modify_index = index;
        let old = entry.services.get(&id).cloned();
        if let Some(old) = &old {
            service.create_index = old.create_index;
            service.modify_index = old.modify_index;
            if **old == service {
                return;
            }
            service.modify_index = index;
        }
        self.count_spelling(index, &service, touched);
        if let Some(old) = &old {
            self.uncount_spelling(index, old, touched);
        }
        let name: Name = fold(&service.name).into();
        if let Some(old) = old.as_ref().filter(|old| *fold(&old.name) != *name) {
            self.detach(index, &fold(&old.name).into(), node_key, &id, touched);
        }
        if let Some(old) = &old {
            self.unlink_service_address(node_key, &id, old);
        }
        self.link_service_address(node_key, &id, &service);
        self.node_mut(node_key).services.insert(id.clone(), Arc::new(service));
        self.gather(index, node_key, &id);
        self.at.services = index;
        self.node_changed(index, node_key, touched);
        self.instances_changed(index, &name, touched);
    }

    pub(super) fn remove_service(&mut self, index: u64, node_key: &Name, id: &Name, touched: &mut Touched) {
        let Some(entry) = self.nodes.get(node_key) else { return };
        let Some(row) = entry.services.get(id).cloned() else { return };
        for check in entry.checks_of(id) {
            self.remove_check(index, node_key, &check, touched);
        }
        self.node_mut(node_key).services.remove(id);
        self.unlink_service_address(node_key, id, &row);
        self.uncount_spelling(index, &row, touched);
        self.detach(index, &fold(&row.name).into(), node_key, id, touched);
        self.at.services = index;
        self.at.service_removals = index;
        self.node_changed(index, node_key, touched);
    }

    /// Builds the instance row of a service on a node from what the node holds; its folded name, if it is there.
    pub(super) fn gather(&mut self, index: u64, node_key: &Name, id: &Name) -> Option<Name> {
        let entry = self.nodes.get(node_key)?;
        let service = entry.services.get(id)?.clone();
        let name: Name = fold(&service.name).into();
        let row = InstanceRow {
            node: entry.row.clone(),
            node_checks: entry.own_checks.clone(),
            service_checks: entry
                .checks_of(id)
                .into_iter()
                .filter_map(|check| entry.checks.get(&check).cloned())
                .collect(),
            service,
            changed: index,
        };
        if !self.services.contains_key(&name) {
            self.gone_services.forget(&name);
            // What was here before has gone, whenever that was.
            let entry = ServiceEntry { shrunk: index, ..ServiceEntry::default() };
            self.services.insert(name.clone(), Arc::new(entry));
        }
        self.service_mut(&name).instances.insert((node_key.clone(), id.clone()), Arc::new(row));
        Some(name)
    }

    /// Takes an instance off a service name; the last one takes the name with it.
    fn detach(&mut self, index: u64, name: &Name, node_key: &Name, id: &Name, touched: &mut Touched) {
        let entry = self.service_mut(name);
        entry.instances.remove(&(node_key.clone(), id.clone()));
        entry.shrunk = index;
        self.instances_changed(index, name, touched);
        if self.service_mut(name).instances.is_empty() {
            self.services.remove(name);
            self.gone_services.bury(name.clone(), index);
            self.at.extinction = index;
        }
    }

    fn instances_changed(&mut self, index: u64, name: &Name, touched: &mut Touched) {
        let entry = self.service_mut(name);
        entry.instances_changed = index;
        entry.health_changed = index;
        touched.instances(name);
    }

    fn node_changed(&mut self, index: u64, key: &Name, touched: &mut Touched) {
        self.node_mut(key).changed = index;
        touched.node(key);
    }

    /// Counts a service under its name as spelled and its tags; a first one changes the list of services.
    pub(super) fn count_spelling(&mut self, index: u64, row: &Service, touched: &mut Touched) {
        let spelling = self.spellings.entry(row.name.as_str().into()).or_default();
        spelling.instances += 1;
        let mut news = spelling.instances == 1;
        for tag in &row.tags {
            let count = spelling.tags.entry(tag.as_str().into()).or_default();
            *count += 1;
            news |= *count == 1;
        }
        self.mark_names(news, index, touched);
    }

    fn uncount_spelling(&mut self, index: u64, row: &Service, touched: &mut Touched) {
        let spelling = self.spellings.get_mut(row.name.as_str()).expect("each service row is counted");
        spelling.instances -= 1;
        let mut news = spelling.instances == 0;
        for tag in &row.tags {
            let count = spelling.tags.get_mut(tag.as_str()).expect("each tag of a row is counted");
            *count -= 1;
            if *count == 0 {
                spelling.tags.remove(tag.as_str());
                news = true;
            }
        }
        if spelling.instances == 0 {
            self.spellings.remove(row.name.as_str());
        }
        self.mark_names(news, index, touched);
    }

    fn mark_names(&mut self, news: bool, index: u64, touched: &mut Touched) {
        if news {
            self.at.service_names = index;
            touched.services();
        }
    }

    pub(super) fn link_node(&mut self, key: &Name, node: &Node) {
        if !node.id.is_empty() {
            self.node_ids.insert(node.id.as_str().into(), key.clone());
        }
        self.node_addresses.entry(node.address.as_str().into()).or_default().insert(key.clone());
    }

    fn unlink_node(&mut self, key: &Name, node: &Node) {
        if self.node_ids.get(node.id.as_str()) == Some(key) {
            self.node_ids.remove(node.id.as_str());
        }
        if let Some(names) = self.node_addresses.get_mut(node.address.as_str()) {
            names.remove(key);
            if names.is_empty() {
                self.node_addresses.remove(node.address.as_str());
            }
        }
    }

    pub(super) fn link_service_address(&mut self, node_key: &Name, id: &Name, row: &Service) {
        if !row.address.is_empty() {
            let here = self.service_addresses.entry(row.address.as_str().into()).or_default();
            here.insert((node_key.clone(), id.clone()));
        }
    }

    fn unlink_service_address(&mut self, node_key: &Name, id: &Name, row: &Service) {
        if let Some(here) = self.service_addresses.get_mut(row.address.as_str()) {
            here.remove(&(node_key.clone(), id.clone()));
            if here.is_empty() {
                self.service_addresses.remove(row.address.as_str());
            }
        }
    }

    pub(super) fn service_ids(&self, key: &Name) -> Vec<Name> {
        self.nodes.get(key).into_iter().flat_map(|entry| entry.services.keys().cloned()).collect()
    }

    pub(super) fn node_mut(&mut self, key: &Name) -> &mut NodeEntry {
        Arc::make_mut(self.nodes.get_mut(key).expect("the node was looked up by the caller"))
    }

    pub(super) fn service_mut(&mut self, name: &Name) -> &mut ServiceEntry {
        Arc::make_mut(self.services.get_mut(name).expect("a service with instances has an entry"))
    }
}
