//! Statuses of the registry: results of runs, words of clients, expiry, and what follows from them.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use super::{AlarmKind, CheckEntry, FileChange, Registry};
use crate::agent::error::AgentError;
use crate::agent::persist::StoredState;
use crate::health::output::told_text;
use crate::health::plan::{Finding, Probe};
use crate::health::schedule::Ticket;
use crate::store::model::{Check, Status};

/// Critical output of a TTL check that was not told in time.
const TTL_EXPIRED: &str = "TTL expired";

/// Most bytes of a check's output in the log: enough to see why.
const OUTPUT_TOLD_MAX: usize = 256;

/// Tells of another status, and why.
fn tell(id: &str, old: &Check, status: Status, entry: &CheckEntry) {
    let (from, output) = (old.status.as_str(), beginning(&entry.local.row.output));
    match status {
        Status::Critical => tracing::warn!(check = id, from, output, "Check is now critical"),
        Status::Warning => tracing::warn!(check = id, from, output, "Check is now warning"),
        Status::Passing => tracing::info!(check = id, from, "Check is now passing"),
    }
}

/// As much of an output as the log shows.
fn beginning(output: &str) -> &str {
    let output = output.trim_end();
    &output[..output.floor_char_boundary(OUTPUT_TOLD_MAX)]
}

impl Registry {
    /// A client tells the status of a TTL check. `wall` is the wall clock, for the persisted expiry.
    pub fn tell(
        &mut self,
        now: Instant,
        wall: Duration,
        id: &str,
        status: Status,
        output: String,
    ) -> Result<(), AgentError> {
        let unknown = || AgentError::failed(format!("CheckID \"{id}\" does not have associated TTL"));
        let entry = self.checks.get_mut(id).ok_or_else(unknown)?;
        let plan = entry.plan.clone().ok_or_else(unknown)?;
        let Probe::Ttl { ttl } = plan.probe else { return Err(unknown()) };
        let output = told_text(output, plan.output_max);
        entry.told.clone_from(&output);
        // An alarm that is set already looks at this deadline when it rings.
        entry.ttl_deadline = Some(now + ttl);
        if entry.ttl_alarm.is_none() {
            entry.ttl_alarm = Some(now + ttl);
            self.alarms.push(Reverse((now + ttl, AlarmKind::Ttl, id.to_owned())));
        }
        self.files.push(FileChange::PutState(StoredState {
            check_id: id.to_owned(),
            output: output.clone(),
            status,
            expires_unix: (wall + ttl).as_secs() as i64,
        }));
        self.set_status(now, id, status, output);
        Ok(())
    }

    /// Takes up the state that a TTL check had before the agent ended, unless it expired meanwhile.
    pub fn restore_state(&mut self, now: Instant, wall: Duration, state: &StoredState) {
        let Some(entry) = self.checks.get_mut(&state.check_id) else { return };
        let is_ttl = entry.ttl_deadline.is_some();
        if is_ttl && state.expires_unix > wall.as_secs() as i64 {
            entry.told.clone_from(&state.output);
            self.set_status(now, &state.check_id, state.status, state.output.clone());
        }
    }

    /// A run handed out by [`Registry::take_due`] has ended.
    pub fn finished(&mut self, now: Instant, ticket: Ticket, finding: Finding) {
        if !self.schedule.finished(now, ticket) {
            return;
        }
        let Some(id) = self.tickets.get(&ticket).cloned() else { return };
        let Some(entry) = self.checks.get_mut(&id) else { return };
        // While the thresholds hold the status, the old output stays with it.
        let status = entry.counter.take(finding.status);
        tracing::debug!(
            check = id,
            status = finding.status.as_str(),
            held = status.is_none(),
            "Check status updated"
        );
        if let Some(status) = status {
            self.set_status(now, &id, status, finding.output);
        }
    }

    /// The evaluation of an alias check.
    pub fn set_alias(&mut self, now: Instant, id: &str, finding: Finding) {
        self.set_status(now, id, finding.status, finding.output);
    }

    /// The one place where a status changes. An equal status and output is nothing at all: no write, no log line.
    fn set_status(&mut self, now: Instant, id: &str, status: Status, output: String) {
        let output = if self.rules.discard_output { String::new() } else { output };
        let update_interval = self.rules.update_interval;
        let spread = self.fraction();
        let Some(entry) = self.checks.get_mut(id) else { return };
        entry.note_critical(now, status);
        let old = entry.local.row.clone();
        if old.status == status && old.output == output {
            return;
        }
        entry.set_row(Check { status, output, ..Check::clone(&old) });
        if old.status == status && !update_interval.is_zero() {
            // Only the output is new: it can wait, and whatever comes until then goes with it.
            if entry.output_due.is_none() {
                let at = now + update_interval / 2 + update_interval.mul_f64(spread);
                entry.output_due = Some(at);
                self.alarms.push(Reverse((at, AlarmKind::Output, id.to_owned())));
            }
        } else {
            entry.output_due = None;
            entry.sync = self.ledger.check_changed(id, Some(entry.sync));
        }
        // An alias that quotes itself must not go on quoting its quotation.
        if old.status != status || !entry.is_alias() {
            self.aliases.heed(&old.service_id);
        }
        if old.status != status {
            tell(id, &old, status, entry);
        }
        self.show_check(id);
    }

    /// Lets time pass: silent TTL checks expire, deferred output becomes due, critical services are reaped.
    pub fn tick(&mut self, now: Instant) {
        while self.alarms.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            let Some(Reverse((at, kind, id))) = self.alarms.pop() else { break };
            match kind {
                AlarmKind::Ttl => self.ring_ttl(now, at, id),
                AlarmKind::Output => self.ring_output(at, &id),
            }
        }
        if now >= self.next_reap {
            self.next_reap = now + self.rules.reap_interval;
            self.reap(now);
        }
    }

    fn ring_ttl(&mut self, now: Instant, at: Instant, id: String) {
        let Some(entry) = self.checks.get_mut(&id) else { return };
        if entry.ttl_alarm != Some(at) {
            // Left over from an earlier registration of the same ID.
            return;
        }
        entry.ttl_alarm = None;
        let Some(deadline) = entry.ttl_deadline else { return };
        if deadline > now {
            // It was told meanwhile. One alarm per check, moved when it rings and not when it is told.
            entry.ttl_alarm = Some(deadline);
            self.alarms.push(Reverse((deadline, AlarmKind::Ttl, id)));
            return;
        }
        entry.ttl_deadline = None;
        let output = match entry.told.as_str() {
            "" => TTL_EXPIRED.to_owned(),
            told => format!("{TTL_EXPIRED} (last output before timeout follows): {told}"),
        };
        tracing::warn!(check = id, "Check missed TTL, is now critical");
        self.set_status(now, &id, Status::Critical, output);
    }

    fn ring_output(&mut self, at: Instant, id: &str) {
        if let Some(entry) = self.checks.get_mut(id)
            && entry.output_due == Some(at)
        {
            entry.output_due = None;
            entry.sync = self.ledger.check_changed(id, Some(entry.sync));
        }
    }

    /// Deregisters services with a check that was critical for longer than its definition allows.
    fn reap(&mut self, now: Instant) {
        let mut doomed: Vec<(String, String)> = Vec::new();
        for (id, entry) in &self.checks {
            let service = &entry.local.row.service_id;
            let (Some(after), Some(since)) = (entry.deregister_after, entry.critical_since) else { continue };
            if !service.is_empty() && now.duration_since(since) > after {
                doomed.push((service.clone(), id.clone()));
            }
        }
        for (service, check) in doomed {
            if self.services.contains_key(&service) {
                tracing::info!(
                    service,
                    check,
                    "check has been critical for too long, deregistering its service"
                );
                // It is there, so this cannot fail.
                let _ = self.remove_service(&service);
            }
        }
    }
}
