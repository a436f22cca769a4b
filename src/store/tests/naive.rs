//! The store again, as plainly as can be: flat maps and linear searches.

use std::collections::BTreeMap;

use super::*;

/// Rows by lower-case names.
#[derive(Default)]
pub(super) struct Naive {
    keys: BTreeMap<Vec<u8>, KvEntry>,
    nodes: BTreeMap<String, Node>,
    services: BTreeMap<(String, String), Service>,
    checks: BTreeMap<(String, String), Check>,
}

impl Naive {
    pub(super) fn apply(&mut self, index: u64, command: &Command) -> Applied {
        match command {
            Command::Kv(op) => self.kv(index, op),
            Command::Catalog(op) => self.catalog(index, op),
            Command::CatalogBatch(ops) => {
                let answers: Vec<_> = ops.iter().map(|op| self.catalog(index, op)).collect();
                answers.into_iter().find(|applied| *applied != Applied::Done).unwrap_or(Applied::Done)
            }
            Command::Autopilot(_) | Command::Restore(_) | Command::Coordinates(_) => {
                unreachable!("these have tests of their own")
            }
        }
    }

    /// Panics where the state's tables differ from these.
    pub(super) fn compare(&self, state: &State) {
        assert_eq!(
            state.kv_under(b"").map(|row| &**row).collect::<Vec<_>>(),
            self.keys.values().collect::<Vec<_>>()
        );
        assert_eq!(
            state.nodes().map(|row| &**row).collect::<Vec<_>>(),
            self.nodes.values().collect::<Vec<_>>()
        );
        assert_eq!(
            state.checks().map(|row| &**row).collect::<Vec<_>>(),
            self.checks.values().collect::<Vec<_>>()
        );
        let mut names: Vec<&str> = self.services.values().map(|row| row.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(state.services().map(|(name, _)| name).collect::<Vec<_>>(), names);
        for name in ["web", "db"] {
            let expected: Vec<_> =
                self.services.iter().filter(|(_, row)| row.name.eq_ignore_ascii_case(name)).collect();
            assert_eq!(state.instances(name).count(), expected.len());
            for (instance, ((node, id), row)) in state.instances(name).zip(expected) {
                assert_eq!((&**instance.service, &**instance.node), (row, &self.nodes[node]));
                let of = |service: &str| -> Vec<&Check> {
                    let here = self.checks.iter().filter(|((on, _), _)| on == node);
                    here.map(|(_, row)| row)
                        .filter(|row| row.service_id.eq_ignore_ascii_case(service))
                        .collect()
                };
                assert_eq!(instance.node_checks.iter().map(|row| &**row).collect::<Vec<_>>(), of(""));
                assert_eq!(instance.service_checks.iter().map(|row| &**row).collect::<Vec<_>>(), of(id));
            }
        }
        for name in ["web", "db"] {
            let expected: Vec<_> =
                self.checks.values().filter(|row| row.service_name.eq_ignore_ascii_case(name)).collect();
            assert_eq!(state.service_checks(name).map(|row| &**row).collect::<Vec<_>>(), expected);
        }
        for address in ["10.1.1.1", "10.1.1.2"] {
            let expected: Vec<_> = self.services.values().filter(|row| row.address == address).collect();
            assert_eq!(state.services_by_address(address).map(|row| &**row).collect::<Vec<_>>(), expected);
        }
        for row in self.nodes.values() {
            assert!(row.id.is_empty() || state.node_by_id(&row.id).is_some_and(|found| **found == *row));
            assert!(state.nodes_by_address(&row.address).any(|found| **found == *row));
        }
        for status in [Status::Passing, Status::Warning, Status::Critical] {
            let expected: Vec<_> = self.checks.values().filter(|row| row.status == status).collect();
            assert_eq!(state.checks_in_state(status).map(|row| &**row).collect::<Vec<_>>(), expected);
        }
    }

    fn kv(&mut self, index: u64, op: &KvOp) -> Applied {
        let modified = |naive: &Naive, key: &Vec<u8>| naive.keys.get(key).map_or(0, |row| row.modify_index);
        match op {
            KvOp::Set(entry) => {
                let row = self
                    .keys
                    .entry(entry.key.clone())
                    .or_insert_with(|| KvEntry { create_index: index, ..entry.clone() });
                if row.modify_index == 0 || row.value != entry.value {
                    row.value.clone_from(&entry.value);
                    row.modify_index = index;
                }
                Applied::Done
            }
            KvOp::Cas { entry, index: expected } if modified(self, &entry.key) == *expected => {
                self.kv(index, &KvOp::Set(entry.clone()));
                Applied::Condition(true)
            }
            KvOp::Cas { .. } => Applied::Condition(false),
            KvOp::Delete { key } => {
                self.keys.remove(key);
                Applied::Done
            }
            KvOp::DeleteCas { key, index } => {
                let matches = modified(self, key) == *index;
                let absent = !self.keys.contains_key(key);
                if matches {
                    self.keys.remove(key);
                }
                Applied::Condition(matches || absent)
            }
            KvOp::DeleteTree { prefix } => {
                self.keys.retain(|key, _| !key.starts_with(prefix));
                Applied::Done
            }
        }
    }

    fn catalog(&mut self, index: u64, op: &CatalogOp) -> Applied {
        match op {
            CatalogOp::Register(register) => match self.register(index, register) {
                Ok(()) => Applied::Done,
                Err(text) => Applied::Refused(text),
            },
            CatalogOp::Deregister(gone) => {
                let node = gone.node.to_lowercase();
                if !gone.service_id.is_empty() {
                    self.drop_service(&node, &gone.service_id);
                } else if !gone.check_id.is_empty() {
                    self.checks.remove(&(node, gone.check_id.to_lowercase()));
                } else {
                    self.drop_node(&node);
                }
                Applied::Done
            }
        }
    }

    fn register(&mut self, index: u64, register: &Register) -> Result<(), String> {
        let name = register.node.node.to_lowercase();
        let old_name = self.nodes.iter().find(|(_, row)| !row.id.is_empty() && row.id == register.node.id);
        let old_name = old_name.map(|(name, _)| name.clone());
        let current = self.nodes.get(&name).cloned();
        let same = current.as_ref().is_some_and(|row| {
            register.skip_node_update || (row.id == register.node.id && row.address == register.node.address)
        });
        if !same {
            self.name_free(&register.node, &name, old_name.as_deref())?;
        }
        for check in &register.checks {
            let id = check.service_id.to_lowercase();
            let coming = register.service.as_ref().is_some_and(|row| row.id.to_lowercase() == id);
            if !id.is_empty() && !coming && !self.services.contains_key(&(name.clone(), id)) {
                let on = &register.node.node;
                return Err(format!("failed inserting check: Missing service registration on node {on:?}"));
            }
        }
        if !same {
            let renamed = old_name.filter(|old| *old != name).map(|old| (self.nodes[&old].create_index, old));
            let create = renamed.as_ref().map(|(create, _)| *create).or(current.map(|row| row.create_index));
            if let Some((_, old)) = renamed {
                self.drop_node(&old);
            }
            let row =
                Node { create_index: create.unwrap_or(index), modify_index: index, ..register.node.clone() };
            self.nodes.insert(name.clone(), row);
        }
        if let Some(service) = &register.service {
            self.put_service(index, &name, service.clone());
        }
        for check in &register.checks {
            self.put_check(index, &name, check.clone());
        }
        Ok(())
    }

    fn name_free(&self, node: &Node, name: &str, old_name: Option<&str>) -> Result<(), String> {
        if node.id.is_empty() || old_name == Some(name) {
            return Ok(());
        }
        let Some(holder) = self.nodes.get(name).filter(|row| row.id != node.id) else { return Ok(()) };
        let serf = self.checks.get(&(name.to_string(), "serfhealth".into()));
        let alive = serf.is_some_and(|row| row.status != Status::Critical);
        if !alive || (holder.id.is_empty() && old_name.is_none()) {
            return Ok(());
        }
        let address = old_name.map(|_| format!(" ({})", node.address)).unwrap_or_default();
        Err(format!(
            "failed inserting node: Error while renaming Node ID: {:?}{address}: \
             Node name {} is reserved by node {} with name {} ({})",
            node.id, node.node, holder.id, holder.node, holder.address
        ))
    }

    fn put_service(&mut self, index: u64, name: &str, mut row: Service) {
        let at = (name.to_string(), row.id.to_lowercase());
        row.node = self.nodes[name].node.clone();
        (row.create_index, row.modify_index) = (index, index);
        if let Some(old) = self.services.get(&at) {
            (row.create_index, row.modify_index) = (old.create_index, old.modify_index);
            if *old == row {
                return;
            }
            row.modify_index = index;
        }
        self.services.insert(at, row);
    }

    fn put_check(&mut self, index: u64, name: &str, mut row: Check) {
        let at = (name.to_string(), row.check_id.to_lowercase());
        let service = self.services.get(&(name.to_string(), row.service_id.to_lowercase()));
        row.node = self.nodes[name].node.clone();
        row.service_name = service.map(|row| row.name.clone()).unwrap_or_default();
        row.service_tags = service.map(|row| row.tags.clone()).unwrap_or_default();
        (row.create_index, row.modify_index) = (index, index);
        if let Some(old) = self.checks.get(&at) {
            (row.create_index, row.modify_index) = (old.create_index, old.modify_index);
            if *old == row {
                return;
            }
            row.modify_index = index;
        }
        self.checks.insert(at, row);
    }

    fn drop_service(&mut self, node: &str, id: &str) {
        let id = id.to_lowercase();
        if self.services.remove(&(node.to_string(), id.clone())).is_some() {
            self.checks.retain(|(on, _), row| on != node || row.service_id.to_lowercase() != id);
        }
    }

    fn drop_node(&mut self, name: &str) {
        self.nodes.remove(name);
        self.services.retain(|(on, _), _| on != name);
        self.checks.retain(|(on, _), _| on != name);
    }
}
