//! Checks of the registry: registration and removal.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{AlarmKind, CHECKS_MAX, CheckEntry, FileChange, Registry};
use crate::agent::error::AgentError;
use crate::agent::local::{LocalCheck, NODE_MAINTENANCE, Source};
use crate::agent::persist::StoredCheck;
use crate::agent::plan::plan_of;
use crate::config::definition::CheckDefinition;
use crate::health::plan::{Plan, Probe};
use crate::health::threshold::Counter;
use crate::store::model::{Check, Service, Status};

/// A check that passed validation and waits to be inserted.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Its row.
    pub row: Check,
    /// What it does; none for maintenance.
    pub plan: Option<Plan>,
    /// The definition, to be persisted.
    pub definition: Option<CheckDefinition>,
    /// How long it may be critical before its service goes.
    pub deregister_after: Option<Duration>,
    /// Token used to register it.
    pub token: String,
    /// Where it came from.
    pub source: Source,
}

/// What the file of a TTL check's state brought back.
#[derive(Clone, Debug, PartialEq)]
pub enum Restored {
    /// Nothing: the status comes from the definition, or from the same check before.
    Nothing,
    /// Status and output from before the agent ended.
    State(Status, String),
}

impl Prepared {
    /// A check that is only a row (maintenance).
    pub fn bare(row: Check) -> Prepared {
        Prepared {
            row,
            plan: None,
            definition: None,
            deregister_after: None,
            token: String::new(),
            source: Source::Local,
        }
    }
}

impl Registry {
    /// Registers a check of the node, or of a service by its ID.
    pub fn put_check(
        &mut self,
        now: Instant,
        definition: &CheckDefinition,
        source: Source,
    ) -> Result<(), AgentError> {
        validate(definition)?;
        let service = match definition.service_id.as_str() {
            "" => None,
            id => Some(
                self.services
                    .get(id)
                    .map(|entry| entry.local.row.clone())
                    .ok_or_else(|| AgentError::failed(format!("ServiceID \"{id}\" does not exist")))?,
            ),
        };
        let mut prepared =
            self.prepare(definition, definition.effective_id().to_owned(), service.as_deref(), source)?;
        if source == Source::Local {
            // Consul shows no type for checks that stand on their own in a file.
            prepared.row.kind.clear();
        }
        self.insert_check(now, prepared, Restored::Nothing);
        Ok(())
    }

    /// Whether a check would be taken; `service_exists` tells about the service it names. Changes nothing.
    pub fn admit_check(
        &self,
        definition: &CheckDefinition,
        source: Source,
        service_exists: bool,
    ) -> Result<(), AgentError> {
        validate(definition)?;
        if !service_exists {
            let id = &definition.service_id;
            return Err(AgentError::failed(format!("ServiceID \"{id}\" does not exist")));
        }
        self.prepare(definition, definition.effective_id().to_owned(), None, source).map(drop)
    }

    /// Validates what depends on the agent and makes the row. Changes nothing.
    pub fn prepare(
        &self,
        definition: &CheckDefinition,
        id: String,
        service: Option<&Service>,
        source: Source,
    ) -> Result<Prepared, AgentError> {
        let plan = plan_of(definition, self.rules.output_max);
        self.allow_script(&plan.probe, source)?;
        if !self.checks.contains_key(&id) && self.checks.len() >= CHECKS_MAX {
            return Err(AgentError::failed(format!(
                "Check {id:?} refused: this agent holds {CHECKS_MAX} checks already; deregister some"
            )));
        }
        let name = match service {
            Some(service) if definition.name.is_empty() => format!("Service '{}' check", service.name),
            _ => definition.name.clone(),
        };
        let row = Check {
            node: self.node_name().to_owned(),
            check_id: id,
            name,
            status: definition.initial_status(),
            notes: definition.notes.clone(),
            service_id: service.map(|s| s.id.clone()).unwrap_or_default(),
            service_name: service.map(|s| s.name.clone()).unwrap_or_default(),
            service_tags: service.map(|s| s.tags.clone()).unwrap_or_default(),
            kind: plan.probe.kind().to_owned(),
            ..Check::default()
        };
        Ok(Prepared {
            row,
            plan: Some(plan),
            definition: Some(definition.clone()),
            deregister_after: self.deregister_after(definition),
            token: definition.token.clone(),
            source,
        })
    }

    /// Whether the rules let a check run.
    pub fn allow(&self, check: &Prepared) -> Result<(), AgentError> {
        check.plan.as_ref().map_or(Ok(()), |plan| self.allow_script(&plan.probe, check.source))
    }

    /// The configuration defines a check that a file describes too: the file goes.
    pub fn forget_file_of_check(&mut self, id: &str) {
        self.files.push(FileChange::DropCheckFile(id.to_owned()));
    }

    fn allow_script(&self, probe: &Probe, source: Source) -> Result<(), AgentError> {
        if !matches!(probe, Probe::Script { .. } | Probe::Docker { .. }) {
            return Ok(());
        }
        match source {
            Source::Local if !self.rules.scripts_from_files => Err(AgentError::failed(
                "Scripts are disabled on this agent; to enable, configure \
                 'enable_script_checks' or 'enable_local_script_checks' to true",
            )),
            Source::Remote if !self.rules.scripts_from_api => Err(AgentError::failed(
                "Scripts are disabled on this agent from remote calls; to enable, configure \
                 'enable_script_checks' to true",
            )),
            _ => Ok(()),
        }
    }

    /// How long a check may be critical before its service goes.
    pub fn deregister_after(&self, definition: &CheckDefinition) -> Option<Duration> {
        let after = definition.deregister_critical_service_after()?;
        let min = self.rules.deregister_after_min;
        if after < min {
            tracing::warn!(
                check = definition.effective_id(),
                "DeregisterCriticalServiceAfter is below its minimum of {min:?}; the minimum is used"
            );
        }
        Some(after.max(min))
    }

    /// Puts a check into the tables and on the schedule. One that was there keeps its status and output.
    pub fn insert_check(&mut self, now: Instant, prepared: Prepared, restored: Restored) {
        let Prepared { mut row, plan, definition, deregister_after, token, source } = prepared;
        let id = row.check_id.clone();
        let old = self.checks.remove(&id);
        if let Some(old) = &old {
            self.unlink_check(&id, old);
        }
        self.store_check_file(&row, definition, &token, source, old.as_ref());
        match (&old, restored) {
            (Some(old), _) => {
                row.status = old.local.row.status;
                row.output = old.local.row.output.clone();
            }
            (None, Restored::State(status, output)) => (row.status, row.output) = (status, output),
            (None, Restored::Nothing) => {}
        }
        self.ledger.check_is_back(&id);
        let mut entry = CheckEntry {
            // Also when it was there already in the same words: Consul writes it again.
            sync: self.ledger.check_changed(&id, old.as_ref().map(|old| old.sync)),
            critical_since: old.as_ref().and_then(|old| old.critical_since),
            // The words of an earlier registration may be those of its expiry, which would be quoted in the next one.
            told: if old.is_some() { String::new() } else { row.output.clone() },
            counter: Counter::new(plan.as_ref().map(|p| p.thresholds).unwrap_or_default()),
            local: Arc::new(LocalCheck { row: Arc::new(row), source }),
            plan: None,
            ticket: None,
            ttl_deadline: None,
            ttl_alarm: None,
            deregister_after,
            output_due: None,
        };
        let status = entry.local.row.status;
        entry.note_critical(now, status);
        if let Some(plan) = plan {
            self.arm(now, &id, &plan, &mut entry);
            self.aliases.add(&id, &plan, &self.view.node.node);
            entry.plan = Some(Arc::new(plan));
        }
        let told = isize::from(entry.is_ttl()) - isize::from(old.is_some_and(|old| old.is_ttl()));
        let service = entry.local.row.service_id.clone();
        self.aliases.heed(&service);
        self.checks_by_service.entry(service).or_default().insert(id.clone());
        self.checks.insert(id.clone(), entry);
        self.show_check(&id);
        self.count_kinds(told);
    }

    /// Starts the clock of a check: a schedule, or the patience of a TTL.
    fn arm(&mut self, now: Instant, id: &str, plan: &Plan, entry: &mut CheckEntry) {
        if let Probe::Ttl { ttl } = plan.probe {
            let at = now + ttl;
            (entry.ttl_deadline, entry.ttl_alarm) = (Some(at), Some(at));
            self.alarms.push(Reverse((at, AlarmKind::Ttl, id.to_owned())));
        } else if let Some(kind) = plan.probe.runs_as() {
            let part = self.fraction();
            let ticket = self.schedule.add(now, plan.interval, part, kind);
            self.tickets.insert(ticket, id.to_owned());
            entry.ticket = Some(ticket);
        }
    }

    /// Takes a check out of all but the tables.
    fn unlink_check(&mut self, id: &str, entry: &CheckEntry) {
        if let Some(ticket) = entry.ticket {
            self.schedule.remove(ticket);
            self.tickets.remove(&ticket);
        }
        let service = &entry.local.row.service_id;
        if let Some(checks) = self.checks_by_service.get_mut(service) {
            checks.remove(id);
            if checks.is_empty() {
                self.checks_by_service.remove(service);
            }
        }
        self.aliases.remove(id);
        self.aliases.heed(service);
    }

    fn store_check_file(
        &mut self,
        row: &Check,
        definition: Option<CheckDefinition>,
        token: &str,
        source: Source,
        old: Option<&CheckEntry>,
    ) {
        // Maintenance outlives a restart too; it is the one thing the agent makes itself and persists.
        if source == Source::Remote || definition.is_none() {
            self.files.push(FileChange::PutCheck(Box::new(StoredCheck {
                row: row.clone(),
                definition,
                token: token.to_owned(),
                source,
            })));
        } else if old.is_some_and(|old| old.local.source == Source::Remote) {
            self.files.push(FileChange::DropCheckFile(row.check_id.clone()));
        }
    }

    /// Removes a check. An unknown one is fine.
    pub fn remove_check(&mut self, id: &str) -> Result<(), AgentError> {
        if id.is_empty() {
            return Err(AgentError::failed("CheckID missing"));
        }
        if self.drop_check(id) {
            tracing::info!(check = id, "removed check");
        }
        Ok(())
    }

    /// Removes a check; false when there was none.
    pub(super) fn drop_check(&mut self, id: &str) -> bool {
        let Some(entry) = self.checks.remove(id) else { return false };
        self.unlink_check(id, &entry);
        self.ledger.check_gone(id, &entry.local.row.service_id, Some(entry.sync));
        // A local TTL check has a state file as well; dropping what is not there costs nothing.
        self.files.push(FileChange::DropCheck(id.to_owned()));
        self.show_check(id);
        self.count_kinds(-isize::from(entry.is_ttl()));
        true
    }

    /// Turns the node's maintenance mode on or off.
    pub fn set_node_maintenance(&mut self, now: Instant, enable: bool, reason: &str) {
        let reason = if reason.is_empty() {
            "Maintenance mode is enabled for this node, but no reason was provided. This is a default message."
        } else {
            reason
        };
        self.set_maintenance(now, NODE_MAINTENANCE.to_owned(), "Node Maintenance Mode", "", enable, reason);
    }
}

/// What can be said of a check without an agent.
fn validate(definition: &CheckDefinition) -> Result<(), AgentError> {
    if definition.name.is_empty() {
        return Err(AgentError::bad_request("Missing check name"));
    }
    if !definition.status_is_valid() {
        return Err(AgentError::bad_request("Bad check status"));
    }
    definition.validate().map_err(|e| AgentError::bad_request(format!("Invalid check: {e}")))
}
