//! Transactions: operations that all take place under one index, or none.
//!
//! They run one after another on a clone of the state, which costs a handful of reference counts. The clone becomes the state
//! if no operation failed. Each sees what those before it did, failed ones included, so that an answer names
//! every operation that fails.

use rkyv::vec::ArchivedVec;

use super::apply::thaw;
use super::catalog::Name;
use super::command::{
    Applied, ArchivedKvOp, ArchivedTxnOp, Failure, Found, Look, RowVerb, TxnOp, TxnOutcome,
};
use super::model::{Check, Node, Service};
use super::quote::quoted;
use super::state::State;
use super::topic::fold;
use super::touched::Touched;

impl State {
    /// Runs a transaction whose operations only look. A write among them fails, as it cannot take place here.
    ///
    /// # Errors
    /// The operations that failed.
    pub fn look_at_all(&self, ops: &[TxnOp]) -> TxnOutcome {
        gather(ops.iter().map(|op| match op {
            TxnOp::Look(look) => self.look(look),
            _ => Err("a write among reads".to_owned()),
        }))
    }

    pub(super) fn apply_txn(
        &mut self,
        index: u64,
        ops: &ArchivedVec<ArchivedTxnOp>,
        touched: &mut Touched,
    ) -> TxnOutcome {
        self.refuse_delayed(ops)?;
        let (mut draft, mut marks) = (self.clone(), Touched::new());
        let found = gather(ops.iter().map(|op| draft.apply_txn_op(index, op, &mut marks)))?;
        *self = draft;
        touched.merge(marks);
        Ok(found)
    }

    /// Consul's leader looks at lock-delays before anything else.
    fn refuse_delayed(&self, ops: &ArchivedVec<ArchivedTxnOp>) -> Result<(), Vec<Failure>> {
        let mut failures = Vec::new();
        for (op, asked) in ops.iter().enumerate() {
            if let ArchivedTxnOp::Kv(ArchivedKvOp::Acquire(entry)) = asked
                && self.lock_delay(&entry.key).is_some()
            {
                let what = format!("failed to lock key {} due to lock delay", key_text(&entry.key));
                failures.push(Failure { op, what });
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    fn apply_txn_op(
        &mut self,
        index: u64,
        op: &ArchivedTxnOp,
        touched: &mut Touched,
    ) -> Result<Vec<Found>, String> {
        match op {
            ArchivedTxnOp::Look(look) => self.look(&thaw(look)),
            ArchivedTxnOp::Kv(op) => self.txn_kv(index, op, touched),
            ArchivedTxnOp::Node(verb, row) => self.txn_node(index, thaw(verb), thaw(row), touched),
            ArchivedTxnOp::Service(verb, row) => self.txn_service(index, thaw(verb), thaw(row), touched),
            ArchivedTxnOp::Check(verb, row) => self.txn_check(index, thaw(verb), thaw(row), touched),
        }
    }

    fn look(&self, look: &Look) -> Result<Vec<Found>, String> {
        match look {
            Look::Key(key) => match self.keys.get(key) {
                Some(entry) => Ok(vec![Found::Entry(entry.clone())]),
                None => Err(format!("key {} doesn't exist", key_text(key))),
            },
            Look::Tree(prefix) => Ok(self.keys.under(prefix).cloned().map(Found::Entry).collect()),
            Look::Index { key, index } => match self.keys.get(key) {
                None => Err(format!("failed to check index, key {} doesn't exist", key_text(key))),
                Some(entry) if entry.modify_index != *index => Err(format!(
                    "failed index check for key {}, current modify index {} != {index}",
                    key_text(key),
                    entry.modify_index
                )),
                Some(entry) => Ok(vec![Found::Key(entry.clone())]),
            },
            Look::Holder { key, session } => match self.keys.get(key) {
                None => Err(format!("failed to check session, key {} doesn't exist", key_text(key))),
                Some(entry) if entry.session != *session => Err(format!(
                    "failed session check for key {}, current session {} != {}",
                    key_text(key),
                    quoted(&entry.session),
                    quoted(session)
                )),
                Some(entry) => Ok(vec![Found::Key(entry.clone())]),
            },
            Look::Absence(key) => match self.keys.get(key) {
                Some(_) => Err(format!("key {} exists", key_text(key))),
                None => Ok(Vec::new()),
            },
            Look::Node { name, id } => {
                let row = if id.is_empty() { self.node(name) } else { self.node_by_id(id) };
                let row = row.ok_or_else(|| format!("node {} doesn't exist", quoted(name)))?;
                Ok(vec![Found::Node(row.clone())])
            }
            Look::Service { node, id } => {
                let missing = || format!("service {} on node {} doesn't exist", quoted(id), quoted(node));
                Ok(vec![Found::Service(self.node_service(node, id).ok_or_else(missing)?.clone())])
            }
            Look::Check { node, id } => {
                let missing = || format!("check {} on node {} doesn't exist", quoted(id), quoted(node));
                Ok(vec![Found::Check(self.node_check(node, id).ok_or_else(missing)?.clone())])
            }
            Look::Nonsense(what) => Err(what.clone()),
        }
    }

    fn txn_kv(&mut self, index: u64, op: &ArchivedKvOp, touched: &mut Touched) -> Result<Vec<Found>, String> {
        let (key, refusal) = match op {
            ArchivedKvOp::Set(entry) => (&entry.key, String::new()),
            ArchivedKvOp::Cas { entry, .. } => {
                (&entry.key, format!("failed to set key {}, index is stale", key_text(&entry.key)))
            }
            ArchivedKvOp::DeleteCas { key, .. } => {
                (key, format!("failed to delete key {}, index is stale", key_text(key)))
            }
            ArchivedKvOp::Acquire(entry) => {
                (&entry.key, format!("failed to lock key {}, lock is already held", key_text(&entry.key)))
            }
            ArchivedKvOp::Release(entry) => (
                &entry.key,
                format!(
                    "failed to unlock key {}, lock isn't held, or is held by another session",
                    key_text(&entry.key)
                ),
            ),
            ArchivedKvOp::Delete { key } => (key, String::new()),
            ArchivedKvOp::DeleteTree { prefix } => (prefix, String::new()),
        };
        let deletes = matches!(
            op,
            ArchivedKvOp::Delete { .. } | ArchivedKvOp::DeleteCas { .. } | ArchivedKvOp::DeleteTree { .. }
        );
        match self.apply_kv(index, op, touched) {
            Applied::Refused(what) => Err(what),
            Applied::Condition(false) => Err(refusal),
            _ if deletes => Ok(Vec::new()),
            _ => Ok(self.keys.get(key).cloned().map(Found::Key).into_iter().collect()),
        }
    }

    fn txn_node(
        &mut self,
        index: u64,
        verb: RowVerb,
        row: Node,
        touched: &mut Touched,
    ) -> Result<Vec<Found>, String> {
        let key: Name = fold(&row.node).into();
        let there = self.nodes.get(&key).map(|entry| entry.row.modify_index);
        admit(verb, there, row.modify_index, || format!("node {}", quoted(&row.node)))?;
        if let RowVerb::Delete | RowVerb::DeleteCas = verb {
            self.remove_node(index, &key, touched);
            return Ok(Vec::new());
        }
        let plan = self.plan_node(&row, &key, false)?;
        self.carry_out(index, plan, &key, row, touched);
        Ok(self.nodes.get(&key).map(|entry| Found::Node(entry.row.clone())).into_iter().collect())
    }

    fn txn_service(
        &mut self,
        index: u64,
        verb: RowVerb,
        row: Service,
        touched: &mut Touched,
    ) -> Result<Vec<Found>, String> {
        if row.id.is_empty() {
            return Err("failed inserting service: object missing primary index".to_owned());
        }
        let (node, id): (Name, Name) = (fold(&row.node).into(), fold(&row.id).into());
        let there = self.node_service(&row.node, &row.id).map(|row| row.modify_index);
        let named = || format!("service {} on node {}", quoted(&row.id), quoted(&row.node));
        admit(verb, there, row.modify_index, named)?;
        if let RowVerb::Delete | RowVerb::DeleteCas = verb {
            self.remove_service(index, &node, &id, touched);
            return Ok(Vec::new());
        }
        if !self.nodes.contains_key(&node) {
            return Err("Missing node registration".to_owned());
        }
        self.write_service(index, &node, row, touched);
        let row = self.nodes.get(&node).and_then(|entry| entry.services.get(&id));
        Ok(row.cloned().map(Found::Service).into_iter().collect())
    }

    fn txn_check(
        &mut self,
        index: u64,
        verb: RowVerb,
        row: Check,
        touched: &mut Touched,
    ) -> Result<Vec<Found>, String> {
        let (node, id): (Name, Name) = (fold(&row.node).into(), fold(&row.check_id).into());
        let there = self.node_check(&row.node, &row.check_id).map(|row| row.modify_index);
        let named = || format!("check {} on node {}", quoted(&row.check_id), quoted(&row.node));
        admit(verb, there, row.modify_index, named)?;
        if let RowVerb::Delete | RowVerb::DeleteCas = verb {
            self.remove_check(index, &node, &id, touched);
            return Ok(Vec::new());
        }
        let Some(entry) = self.nodes.get(&node) else { return Err("Missing node registration".to_owned()) };
        if row.check_id.is_empty() {
            return Err("failed inserting check: object missing primary index".to_owned());
        }
        if !row.service_id.is_empty() && !entry.services.contains_key(&*fold(&row.service_id)) {
            return Err("Missing service registration".to_owned());
        }
        self.write_checks(index, &node, vec![row], touched);
        let row = self.nodes.get(&node).and_then(|entry| entry.checks.get(&id));
        Ok(row.cloned().map(Found::Check).into_iter().collect())
    }
}

/// Whether a verb may go ahead on a row that is there with an index, or is not there.
fn admit(verb: RowVerb, there: Option<u64>, expected: u64, named: impl Fn() -> String) -> Result<(), String> {
    match verb {
        RowVerb::Cas if there.unwrap_or(0) != expected => {
            Err(format!("failed to set {}, index is stale", named()))
        }
        RowVerb::DeleteCas if there != Some(expected) => {
            Err(format!("failed to delete {}, index is stale", named()))
        }
        _ => Ok(()),
    }
}

/// Keys of transactions come as JSON text, so all that a message can lose is what no client sent.
fn key_text(key: &[u8]) -> String {
    quoted(&String::from_utf8_lossy(key))
}

/// All that was found, unless something failed.
fn gather(results: impl Iterator<Item = Result<Vec<Found>, String>>) -> TxnOutcome {
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for (op, result) in results.enumerate() {
        match result {
            Ok(rows) => found.extend(rows),
            Err(what) => failures.push(Failure { op, what }),
        }
    }
    if failures.is_empty() { Ok(found) } else { Err(failures) }
}
