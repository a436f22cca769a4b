//! Applying commands: the catalog's rules. A command is checked as a whole before anything changes, so a refused one
//! leaves no trace.

use rkyv::rancor;
use rkyv::string::ArchivedString;

use super::catalog::Name;
use super::command::{Applied, ArchivedCatalogOp, ArchivedCommand, ArchivedDeregister, ArchivedRegister};
use super::model::{Check, Node, Status};
use super::state::State;
use super::topic::fold;
use super::touched::Touched;

/// The check that tells whether a node's agent is alive.
const SERF_CHECK_ID: &str = "serfhealth";

impl State {
    /// Applies one command at its index in the log, which must be above all before. Deterministic. What changed is
    /// added to `touched`; a refused command changes nothing, and one that writes what is there already neither.
    /// Of a batch each member stands for itself: the others are applied, the answer is the first refusal.
    pub fn apply(&mut self, log_index: u64, command: &ArchivedCommand, touched: &mut Touched) -> Applied {
        let index = self.advance(log_index);
        match command {
            ArchivedCommand::Catalog(op) => self.apply_catalog(index, op, touched),
            ArchivedCommand::CatalogBatch(ops) => {
                let mut first = Applied::Done;
                for op in ops.iter() {
                    let applied = self.apply_catalog(index, op, touched);
                    if first == Applied::Done {
                        first = applied;
                    }
                }
                first
            }
            ArchivedCommand::Kv(op) => self.apply_kv(index, op, touched),
            ArchivedCommand::Autopilot(op) => self.apply_autopilot(index, op),
            ArchivedCommand::Restore(op) => self.apply_restore(log_index, op, touched),
            ArchivedCommand::Coordinates(places) => self.apply_coordinates(index, places, touched),
            ArchivedCommand::Session(op) => self.apply_session(index, op, touched),
            ArchivedCommand::Txn(ops) => Applied::Txn(self.apply_txn(index, ops, touched)),
        }
    }

    /// A new leader's first entry, at its index in the log: a restore that the old one had under way is over, as
    /// whoever sent its parts was told that the outcome is unknown. So are the times of sessions that the old one measured.
    pub fn new_term(&mut self, log_index: u64) {
        let index = self.advance(log_index);
        self.staged = None;
        self.sessions.led_anew(index);
    }

    /// The index as clients see it of the entry at `log_index`, from now on the newest.
    fn advance(&mut self, log_index: u64) -> u64 {
        let index = log_index + self.offset;
        assert!(index > self.index, "indexes rise: {index} after {}", self.index);
        self.index = index;
        if self.staged.as_ref().is_some_and(|staged| staged.is_silent_at(log_index)) {
            self.staged = None;
        }
        index
    }

    fn apply_catalog(&mut self, index: u64, op: &ArchivedCatalogOp, touched: &mut Touched) -> Applied {
        match op {
            ArchivedCatalogOp::Register(register) => match self.register(index, register, touched) {
                Ok(()) => Applied::Done,
                Err(text) => Applied::Refused(text),
            },
            ArchivedCatalogOp::Deregister(deregister) => {
                self.deregister(index, deregister, touched);
                Applied::Done
            }
        }
    }

    fn register(
        &mut self,
        index: u64,
        register: &ArchivedRegister,
        touched: &mut Touched,
    ) -> Result<(), String> {
        let node: Node = thaw(&register.node);
        let key: Name = fold(&node.node).into();
        let plan = self
            .plan_node(&node, &key, register.skip_node_update)
            .map_err(|why| format!("failed inserting node: {why}"))?;
        let mut checks: Vec<Check> = register.checks.iter().map(thaw).collect();
        self.admit_checks(&mut checks, &node, &key, register)?;

        self.carry_out(index, plan, &key, node, touched);
        if let Some(service) = register.service.as_ref() {
            self.write_service(index, &key, thaw(service), touched);
        }
        self.write_checks(index, &key, checks, touched);
        Ok(())
    }

    /// Does to the node row what was planned.
    pub(super) fn carry_out(
        &mut self,
        index: u64,
        plan: NodePlan,
        key: &Name,
        node: Node,
        touched: &mut Touched,
    ) {
        let NodePlan::Write { renamed_from } = plan else { return };
        if let Some(old) = renamed_from {
            let create_index = self.nodes.get(&old).map(|entry| entry.row.create_index);
            self.remove_node(index, &old, touched);
            self.write_node(index, key, node, create_index, touched);
        } else {
            self.write_node(index, key, node, None, touched);
        }
    }

    /// Decides what becomes of the node row, or why it cannot.
    pub(super) fn plan_node(&self, node: &Node, key: &Name, skip_update: bool) -> Result<NodePlan, String> {
        if self.nodes.get(key).is_some_and(|entry| skip_update || same_node(&entry.row, node)) {
            return Ok(NodePlan::Keep);
        }
        if node.id.is_empty() {
            return Ok(NodePlan::Write { renamed_from: None });
        }
        let Some(old) = self.node_ids.get(&*node.id) else {
            self.refuse_taken_name(node, key, true)
                .map_err(|why| format!("Error while renaming Node ID: {:?}: {why}", node.id))?;
            return Ok(NodePlan::Write { renamed_from: None });
        };
        if old == key {
            return Ok(NodePlan::Write { renamed_from: None });
        }
        self.refuse_taken_name(node, key, false).map_err(|why| {
            format!("Error while renaming Node ID: {:?} ({}): {why}", node.id, node.address)
        })?;
        Ok(NodePlan::Write { renamed_from: Some(old.clone()) })
    }

    /// A name belongs to the node that holds it as long as its agent is alive (a `serfHealth` check that is not
    /// critical). `allow_without_id` lets a node with an ID take over the row of the same name that has none.
    fn refuse_taken_name(&self, node: &Node, key: &Name, allow_without_id: bool) -> Result<(), String> {
        let Some(holder) = self.nodes.get(key).filter(|holder| holder.row.id != node.id) else {
            return Ok(());
        };
        let alive = holder.checks.get(SERF_CHECK_ID).is_some_and(|check| check.status != Status::Critical);
        if !alive || (allow_without_id && holder.row.id.is_empty()) {
            return Ok(());
        }
        let row = &holder.row;
        Err(format!(
            "Node name {} is reserved by node {} with name {} ({})",
            node.node, row.id, row.node, row.address
        ))
    }

    /// Checks must name this node and a service that is there once the command is applied.
    fn admit_checks(
        &self,
        checks: &mut [Check],
        node: &Node,
        key: &Name,
        register: &ArchivedRegister,
    ) -> Result<(), String> {
        let coming = register.service.as_ref().map(|service| fold(&service.id));
        let there = self.nodes.get(key);
        for check in checks {
            if check.node.is_empty() {
                check.node.clone_from(&node.node);
            } else if fold(&check.node) != **key {
                return Err(format!("check node {:?} does not match node {:?}", check.node, node.node));
            }
            if check.service_id.is_empty() {
                continue;
            }
            let id = fold(&check.service_id);
            let known =
                coming.as_ref() == Some(&id) || there.is_some_and(|entry| entry.services.contains_key(&*id));
            if !known {
                return Err(format!(
                    "failed inserting check: Missing service registration on node {:?}",
                    check.node
                ));
            }
        }
        Ok(())
    }

    fn deregister(&mut self, index: u64, deregister: &ArchivedDeregister, touched: &mut Touched) {
        let key: Name = fold(&deregister.node).into();
        if !deregister.service_id.is_empty() {
            self.remove_service(index, &key, &folded(&deregister.service_id), touched);
        } else if !deregister.check_id.is_empty() {
            self.remove_check(index, &key, &folded(&deregister.check_id), touched);
        } else {
            self.remove_node(index, &key, touched);
        }
    }
}

/// What a registration does to the node row.
pub(super) enum NodePlan {
    /// Nothing.
    Keep,
    /// Writes it; the node of that ID leaves its old name, with all that was on it.
    Write { renamed_from: Option<Name> },
}

fn folded(name: &ArchivedString) -> Name {
    fold(name).into()
}

/// Whether a registration leaves the node row as it is. The spelling of the name does not count.
fn same_node(row: &Node, new: &Node) -> bool {
    row.id == new.id
        && row.address == new.address
        && row.datacenter == new.datacenter
        && row.tagged_addresses == new.tagged_addresses
        && row.meta == new.meta
}

/// Copies a row out of an archive.
pub(super) fn thaw<T>(archived: &T::Archived) -> T
where
    T: rkyv::Archive,
    T::Archived: rkyv::Deserialize<T, rkyv::api::high::HighDeserializer<rancor::Error>>,
{
    rkyv::deserialize::<T, rancor::Error>(archived)
        .expect("rows hold no shared pointers that could fail to thaw")
}
