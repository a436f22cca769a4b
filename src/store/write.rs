//! Changing rows of the catalog and all that hangs on them: the maps by other keys, the gathered instances, the
//! indexes and the touched topics.

use std::sync::Arc;

use imbl::OrdMap;

use super::catalog::{InstanceRow, Name, NodeEntry, ServiceEntry};
use super::model::{Check, Node, Service};
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
            if let Some(service) = self.gather(key, &id) {
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
            self.remove_check(index, key, &id, touched);
        }
        let Some(entry) = self.nodes.remove(key) else { return };
        self.unlink_node(key, &entry.row);
        self.gone_nodes.bury(key.clone(), index);
        self.gone_node_checks.bury(key.clone(), entry.checks_changed);
        self.at.nodes = index;
        touched.nodes();
        touched.node(key);
    }

    /// Writes a service row; one that is there already in the same words stays. A changed name goes into the checks of
    /// the service too; changed tags do not, as in Consul: a check shows the tags of the time when it was written.
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
        let relabel = old.is_some_and(|old| old.name != service.name);
        let row = Arc::new(service);
        self.node_mut(node_key).services.insert(id.clone(), row.clone());
        self.gather(node_key, &id);
        self.at.services = index;
        self.node_changed(index, node_key, touched);
        self.instances_changed(index, &name, touched);
        if relabel {
            self.relabel_checks(index, node_key, &id, &row, touched);
        }
    }

    pub(super) fn remove_service(&mut self, index: u64, node_key: &Name, id: &Name, touched: &mut Touched) {
        let Some(entry) = self.nodes.get(node_key) else { return };
        let Some(row) = entry.services.get(id).cloned() else { return };
        for check in checks_of(entry, id) {
            self.remove_check(index, node_key, &check, touched);
        }
        self.node_mut(node_key).services.remove(id);
        self.uncount_spelling(index, &row, touched);
        self.detach(index, &fold(&row.name).into(), node_key, id, touched);
        self.at.services = index;
        self.at.service_removals = index;
        self.node_changed(index, node_key, touched);
    }

    /// Writes a check row, with name and tags of its service; one that is there already in the same words stays.
    pub(super) fn write_check(
        &mut self,
        index: u64,
        node_key: &Name,
        mut check: Check,
        touched: &mut Touched,
    ) {
        let id: Name = fold(&check.check_id).into();
        let entry = self.nodes.get(node_key).expect("a registration writes the node before its checks");
        check.node.clone_from(&entry.row.node);
        check.service_name.clear();
        check.service_tags.clear();
        if let Some(service) = entry.services.get(&*fold(&check.service_id)) {
            check.service_name.clone_from(&service.name);
            check.service_tags.clone_from(&service.tags);
        }
        check.create_index = index;
        check.modify_index = index;
        let old = entry.checks.get(&id).cloned();
        if let Some(old) = &old {
            check.create_index = old.create_index;
            check.modify_index = old.modify_index;
            if **old == check {
                return;
            }
            check.modify_index = index;
        }
        let row = Arc::new(check);
        self.node_mut(node_key).checks.insert(id.clone(), row.clone());
        if let Some(old) = &old {
            self.unlink_check(index, node_key, &id, old, touched);
        }
        self.checks_in(row.status).insert((node_key.clone(), id), row.clone());
        self.check_changed(index, node_key, &row, touched);
    }

    pub(super) fn remove_check(&mut self, index: u64, node_key: &Name, id: &Name, touched: &mut Touched) {
        let Some(row) = self.nodes.get(node_key).and_then(|entry| entry.checks.get(id)).cloned() else {
            return;
        };
        self.node_mut(node_key).checks.remove(id);
        if row.service_id.is_empty() {
            self.at.node_check_removals = index;
        }
        self.unlink_check(index, node_key, id, &row, touched);
    }

    /// Takes a check out of all but the node's own map; its status and its service have changed.
    fn unlink_check(&mut self, index: u64, node_key: &Name, id: &Name, row: &Check, touched: &mut Touched) {
        self.checks_in(row.status).remove(&(node_key.clone(), id.clone()));
        self.check_changed(index, node_key, row, touched);
    }

    /// Brings the instances that `row` decides on up to date and marks what its change concerns.
    fn check_changed(&mut self, index: u64, node_key: &Name, row: &Check, touched: &mut Touched) {
        self.at.checks = index;
        self.at.states[row.status as usize] = index;
        self.node_mut(node_key).checks_changed = index;
        touched.node_checks(node_key);
        touched.state(row.status);
        if row.service_id.is_empty() {
            self.refresh_own_checks(node_key);
            for id in self.service_ids(node_key) {
                if let Some(service) = self.gather(node_key, &id) {
                    self.service_mut(&service).health_changed = index;
                    touched.health(&service);
                }
            }
        } else if let Some(service) = self.gather(node_key, &fold(&row.service_id).into()) {
            let entry = self.service_mut(&service);
            entry.health_changed = index;
            entry.checks_changed = index;
            touched.health(&service);
            touched.service_checks(&service);
        }
    }

    fn relabel_checks(
        &mut self,
        index: u64,
        node_key: &Name,
        id: &Name,
        service: &Service,
        touched: &mut Touched,
    ) {
        let Some(entry) = self.nodes.get(node_key) else { return };
        debug_assert_eq!(*fold(&service.id), **id);
        for check in checks_of(entry, id) {
            let row = self.nodes.get(node_key).and_then(|entry| entry.checks.get(&check));
            if let Some(row) = row.map(|row| Check::clone(row)) {
                self.write_check(index, node_key, row, touched);
            }
        }
    }

    fn refresh_own_checks(&mut self, node_key: &Name) {
        let entry = self.node_mut(node_key);
        entry.own_checks =
            entry.checks.values().filter(|check| check.service_id.is_empty()).cloned().collect();
    }

    /// Builds the instance row of a service on a node from what the node holds; its folded name, if it is there.
    fn gather(&mut self, node_key: &Name, id: &Name) -> Option<Name> {
        let entry = self.nodes.get(node_key)?;
        let service = entry.services.get(id)?.clone();
        let name: Name = fold(&service.name).into();
        let row = InstanceRow {
            node: entry.row.clone(),
            node_checks: entry.own_checks.clone(),
            service_checks: entry
                .checks
                .values()
                .filter(|check| *fold(&check.service_id) == **id)
                .cloned()
                .collect(),
            service,
        };
        if !self.services.contains_key(&name) {
            let entry = ServiceEntry {
                checks_changed: self.gone_service_checks.index_of(&name),
                ..ServiceEntry::default()
            };
            self.gone_services.forget(&name);
            self.services.insert(name.clone(), Arc::new(entry));
        }
        self.service_mut(&name).instances.insert((node_key.clone(), id.clone()), Arc::new(row));
        Some(name)
    }

    /// Takes an instance off a service name; the last one takes the name with it.
    fn detach(&mut self, index: u64, name: &Name, node_key: &Name, id: &Name, touched: &mut Touched) {
        let entry = self.service_mut(name);
        let gone = entry.instances.remove(&(node_key.clone(), id.clone()));
        if gone.is_some_and(|row| !row.service_checks.is_empty()) {
            entry.checks_changed = index;
            touched.service_checks(name);
        }
        self.instances_changed(index, name, touched);
        let entry = self.service_mut(name);
        if entry.instances.is_empty() {
            let checks_changed = entry.checks_changed;
            self.services.remove(name);
            self.gone_services.bury(name.clone(), index);
            self.gone_service_checks.bury(name.clone(), checks_changed);
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
    fn count_spelling(&mut self, index: u64, row: &Service, touched: &mut Touched) {
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

    fn link_node(&mut self, key: &Name, node: &Node) {
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

    fn service_ids(&self, key: &Name) -> Vec<Name> {
        self.nodes.get(key).into_iter().flat_map(|entry| entry.services.keys().cloned()).collect()
    }

    fn node_mut(&mut self, key: &Name) -> &mut NodeEntry {
        Arc::make_mut(self.nodes.get_mut(key).expect("the node was looked up by the caller"))
    }

    fn service_mut(&mut self, name: &Name) -> &mut ServiceEntry {
        Arc::make_mut(self.services.get_mut(name).expect("a service with instances has an entry"))
    }
}

/// IDs of the checks of one service on a node.
fn checks_of(entry: &NodeEntry, id: &Name) -> Vec<Name> {
    entry
        .checks
        .iter()
        .filter(|(_, check)| *fold(&check.service_id) == **id)
        .map(|(key, _)| key.clone())
        .collect()
}
