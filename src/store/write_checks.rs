//! Changing checks and all that hangs on them: the lists by status and by service name, the gathered instances, the
//! indexes and the touched topics.

use std::sync::Arc;

use super::catalog::Name;
use super::model::{Check, Status};
use super::state::State;
use super::topic::fold;
use super::touched::Touched;

impl State {
    /// Writes the checks of one registration. A check of the node concerns every service on it: that is settled once
    /// for all of them.
    pub(super) fn write_checks(
        &mut self,
        index: u64,
        node_key: &Name,
        checks: Vec<Check>,
        touched: &mut Touched,
    ) {
        let mut of_node = false;
        for check in checks {
            of_node |= self.write_check(index, node_key, check, touched);
        }
        if of_node {
            self.own_checks_changed(index, node_key, touched);
        }
    }

    pub(super) fn remove_check(&mut self, index: u64, node_key: &Name, id: &Name, touched: &mut Touched) {
        if self.take_check(index, node_key, id, touched) {
            self.own_checks_changed(index, node_key, touched);
        }
    }

    /// Removes a check; true when it was one of the node, whose services the caller has to tell.
    pub(super) fn take_check(
        &mut self,
        index: u64,
        node_key: &Name,
        id: &Name,
        touched: &mut Touched,
    ) -> bool {
        let Some(row) = self.nodes.get(node_key).and_then(|entry| entry.checks.get(id)).cloned() else {
            return false;
        };
        self.node_mut(node_key).checks.remove(id);
        self.invalidate_check(index, node_key, id, touched);
        if row.service_id.is_empty() {
            self.at.node_check_removals = index;
        }
        self.at.check_writes = index;
        self.unlink_check(index, node_key, id, &row, touched);
        self.check_changed(index, node_key, &row, touched)
    }

    /// Writes a check row, with name and tags that its service has now; one that is there already in the same words
    /// stays, and only counts as a write. True when services have to be told, see [`State::take_check`].
    fn write_check(&mut self, index: u64, node_key: &Name, mut check: Check, touched: &mut Touched) -> bool {
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
        self.at.check_writes = index;
        if let Some(old) = &old {
            check.create_index = old.create_index;
            check.modify_index = old.modify_index;
            if **old == check {
                return false;
            }
            check.modify_index = index;
        }
        if check.status == Status::Critical {
            self.invalidate_check(index, node_key, &id, touched);
        }
        let row = Arc::new(check);
        self.node_mut(node_key).checks.insert(id.clone(), row.clone());
        let mut of_node = false;
        if let Some(old) = &old {
            self.unlink_check(index, node_key, &id, old, touched);
            if fold(&old.service_id) != fold(&row.service_id) {
                of_node |= self.check_changed(index, node_key, old, touched);
            }
        }
        self.link_check(index, node_key, &id, &row, touched);
        of_node | self.check_changed(index, node_key, &row, touched)
    }

    /// Enters a check into the lists by status and by service.
    pub(super) fn link_check(
        &mut self,
        index: u64,
        node_key: &Name,
        id: &Name,
        row: &Arc<Check>,
        touched: &mut Touched,
    ) {
        let here = (node_key.clone(), id.clone());
        self.checks_in(row.status).insert(here.clone(), row.clone());
        self.status_changed(index, row, touched);
        let service: Name = fold(&row.service_id).into();
        self.node_mut(node_key).checks_by_service.insert((service, id.clone()));
        if !row.service_name.is_empty() {
            let name: Name = fold(&row.service_name).into();
            self.gone_service_checks.forget(&name);
            let list = self.service_checks.entry(name.clone()).or_default();
            list.rows.insert(here, row.clone());
            list.changed = index;
            touched.service_checks(&name);
        }
    }

    /// Takes a check out of all but the node's own map.
    fn unlink_check(&mut self, index: u64, node_key: &Name, id: &Name, row: &Check, touched: &mut Touched) {
        let here = (node_key.clone(), id.clone());
        self.checks_in(row.status).remove(&here);
        self.status_changed(index, row, touched);
        let service: Name = fold(&row.service_id).into();
        self.node_mut(node_key).checks_by_service.remove(&(service, id.clone()));
        let name: Name = fold(&row.service_name).into();
        if let Some(list) = self.service_checks.get_mut(&name) {
            list.rows.remove(&here);
            list.changed = index;
            if list.rows.is_empty() {
                self.service_checks.remove(&name);
                self.gone_service_checks.bury(name.clone(), index);
            }
            touched.service_checks(&name);
        }
    }

    fn status_changed(&mut self, index: u64, row: &Check, touched: &mut Touched) {
        self.at.states[row.status as usize] = index;
        touched.state(row.status);
    }

    /// Marks what the change of a check concerns and brings the instance up to date whose health it decides. True for
    /// a check of the node.
    fn check_changed(&mut self, index: u64, node_key: &Name, row: &Check, touched: &mut Touched) -> bool {
        self.at.checks = index;
        self.node_mut(node_key).checks_changed = index;
        touched.node_checks(node_key);
        if row.service_id.is_empty() {
            return true;
        }
        if let Some(service) = self.gather(index, node_key, &fold(&row.service_id).into()) {
            self.service_mut(&service).health_changed = index;
            touched.health(&service);
        }
        false
    }

    /// A node's own checks decide the health of all its services.
    fn own_checks_changed(&mut self, index: u64, node_key: &Name, touched: &mut Touched) {
        let entry = self.node_mut(node_key);
        let own = entry.checks_of("").into_iter().filter_map(|id| entry.checks.get(&id).cloned()).collect();
        entry.own_checks = own;
        for id in self.service_ids(node_key) {
            if let Some(service) = self.gather(index, node_key, &id) {
                self.service_mut(&service).health_changed = index;
                touched.health(&service);
            }
        }
    }
}
