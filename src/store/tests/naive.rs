//! The store again, as plainly as can be: flat maps and linear searches.

use std::collections::BTreeMap;

use super::*;

/// Rows by lower-case names.
#[derive(Clone, Default)]
pub(super) struct Naive {
    keys: BTreeMap<Vec<u8>, KvEntry>,
    nodes: BTreeMap<String, Node>,
    services: BTreeMap<(String, String), Service>,
    checks: BTreeMap<(String, String), Check>,
    sessions: BTreeMap<String, Session>,
    /// Length and beginning by key.
    delays: BTreeMap<Vec<u8>, (i64, u64)>,
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
            Command::Session(op) => self.session(index, op),
            Command::Txn(ops) => {
                let mut draft = self.clone();
                let failed = ops.iter().filter(|op| !draft.txn_op(index, op)).count() > 0;
                if !failed {
                    *self = draft;
                }
                Applied::Condition(!failed)
            }
            Command::Autopilot(_) | Command::Restore(_) | Command::Coordinates(_) => {
                unreachable!("these have tests of their own")
            }
        }
    }

    fn txn_op(&mut self, index: u64, op: &TxnOp) -> bool {
        match op {
            TxnOp::Kv(op) => !matches!(self.kv(index, op), Applied::Refused(_) | Applied::Condition(false)),
            TxnOp::Look(Look::Key(key)) => self.keys.contains_key(key),
            _ => unreachable!("these have tests of their own"),
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
        assert_eq!(
            state.sessions().map(|row| &**row).collect::<Vec<_>>(),
            self.sessions.values().collect::<Vec<_>>()
        );
        for node in ["a", "b", "c"] {
            let here = self.sessions.values().filter(|row| row.node.eq_ignore_ascii_case(node));
            let expected: Vec<_> = here.collect();
            assert_eq!(state.node_sessions(node).map(|row| &**row).collect::<Vec<_>>(), expected);
        }
        for id in self.sessions.keys() {
            let held = self.keys.values().filter(|row| row.session == *id).map(|row| row.key.clone());
            assert_eq!(
                state.locks_of(id).map(|key| key.to_vec()).collect::<Vec<_>>(),
                held.collect::<Vec<_>>()
            );
        }
        // What the rows promise: no lock without its session, no session without its node and well checks.
        for row in self.keys.values().filter(|row| !row.session.is_empty()) {
            assert!(self.sessions.contains_key(&row.session), "{row:?}");
        }
        for row in self.sessions.values() {
            assert!(self.nodes.contains_key(&row.node.to_lowercase()), "{row:?}");
            assert_eq!(self.unfit(row), None);
        }
        let delays = state.lock_delays().map(|(key, it)| (key.to_vec(), (it.length_ns, it.since)));
        assert_eq!(delays.collect::<BTreeMap<_, _>>(), self.delays);
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
                let session = self.keys.get(&entry.key).map(|old| old.session.clone()).unwrap_or_default();
                self.put_key(index, KvEntry { session, lock_index: 0, ..entry.clone() });
                Applied::Done
            }
            KvOp::Acquire(entry) if self.delays.contains_key(&entry.key) => Applied::Condition(false),
            KvOp::Acquire(entry) | KvOp::Release(entry) if entry.session.is_empty() => {
                Applied::Refused("missing session".into())
            }
            KvOp::Acquire(entry) if !self.sessions.contains_key(&entry.session) => {
                Applied::Refused(format!("invalid session {:?}", entry.session))
            }
            KvOp::Acquire(entry) => {
                let (holder, count) = match self.keys.get(&entry.key) {
                    Some(old) => (old.session.clone(), old.lock_index),
                    None => Default::default(),
                };
                let free = holder.is_empty();
                if free || holder == entry.session {
                    self.put_key(index, KvEntry { lock_index: count + u64::from(free), ..entry.clone() });
                }
                Applied::Condition(free || holder == entry.session)
            }
            KvOp::Release(entry) => {
                let old = self.keys.get(&entry.key).filter(|old| old.session == entry.session).cloned();
                if let Some(old) = &old {
                    let row = KvEntry { lock_index: old.lock_index, session: String::new(), ..entry.clone() };
                    self.put_key(index, row);
                }
                Applied::Condition(old.is_some())
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

    /// Writes a row unless it is there in the same words.
    fn put_key(&mut self, index: u64, row: KvEntry) {
        let old = self.keys.get(&row.key);
        let create_index = old.map_or(index, |old| old.create_index);
        let mut row = KvEntry { create_index, modify_index: index, ..row };
        if let Some(old) = old {
            let as_before = KvEntry { modify_index: old.modify_index, ..row.clone() };
            if as_before == *old {
                row = as_before;
            }
        }
        self.keys.insert(row.key.clone(), row);
    }

    fn session(&mut self, index: u64, op: &SessionOp) -> Applied {
        match op {
            SessionOp::Create(row) => {
                if self.sessions.contains_key(&row.id) {
                    return Applied::Refused(format!("session {} is there already", row.id));
                }
                if !self.nodes.contains_key(&row.node.to_lowercase()) {
                    return Applied::Refused("Missing node registration".into());
                }
                if let Some(why) = self.unfit(row) {
                    return Applied::Refused(why);
                }
                let row = Session { create_index: index, modify_index: index, ..(**row).clone() };
                self.sessions.insert(row.id.clone(), row);
                Applied::Done
            }
            SessionOp::Destroy { id } => {
                self.end(index, id);
                Applied::Done
            }
            SessionOp::Expire { ids, .. } => {
                ids.iter().for_each(|id| self.end(index, id));
                Applied::Condition(true)
            }
            SessionOp::EndDelays(ended) => {
                let over =
                    |key: &Vec<u8>, since| ended.iter().any(|end| end.key == *key && end.since == since);
                self.delays.retain(|key, (_, since)| !over(key, *since));
                Applied::Done
            }
        }
    }

    /// Why a session could not be, by its checks.
    fn unfit(&self, row: &Session) -> Option<String> {
        let node = row.node.to_lowercase();
        row.check_ids().find_map(|id| match self.checks.get(&(node.clone(), id.to_lowercase())) {
            None => Some(format!("Missing check '{id}' registration")),
            Some(row) if row.status == Status::Critical => Some(format!("Check '{id}' is in critical state")),
            Some(_) => None,
        })
    }

    /// Whatever a command did to nodes and checks: the sessions that cannot be any more go.
    fn invalidate(&mut self, index: u64) {
        let fit =
            |row: &Session| self.nodes.contains_key(&row.node.to_lowercase()) && self.unfit(row).is_none();
        let doomed: Vec<String> =
            self.sessions.values().filter(|row| !fit(row)).map(|row| row.id.clone()).collect();
        doomed.iter().for_each(|id| self.end(index, id));
    }

    fn end(&mut self, index: u64, id: &str) {
        let Some(session) = self.sessions.remove(id) else { return };
        let held: Vec<KvEntry> = self.keys.values().filter(|row| row.session == id).cloned().collect();
        for row in held {
            if session.delay_ns() > 0 {
                self.delays.insert(row.key.clone(), (session.delay_ns(), index));
            }
            match session.behavior {
                Behavior::Delete => drop(self.keys.remove(&row.key)),
                Behavior::Release => self.put_key(index, KvEntry { session: String::new(), ..row }),
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
                self.invalidate(index);
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
                self.invalidate(index);
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
            self.invalidate(index);
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
