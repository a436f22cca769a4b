//! What the agent knows of its own services beyond their rows: what of them the catalog lacks, and what time will do to them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Registry;
use crate::agent::local::Source;
use crate::health::plan::Probe;
use crate::store::model::Check;

/// One of the agent's services.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Its ID.
    pub id: String,
    /// Where it came from.
    pub source: Source,
    /// What of it the catalog does not hold as it is here, as far as the agent knows.
    pub lacking: Vec<String>,
    /// Its checks and those of the node, by ID.
    pub checks: Vec<KnownCheck>,
}

/// A check of one of the agent's services, or of its node.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownCheck {
    /// Its row.
    pub row: Arc<Check>,
    /// How often it is run; nothing for those that are told.
    pub every: Option<Duration>,
    /// How much longer it may go untold.
    pub ttl_left: Option<Duration>,
    /// How long it has been critical.
    pub critical_for: Option<Duration>,
    /// How long it may be before its service is removed.
    pub deregister_after: Option<Duration>,
}

impl Registry {
    /// The services of this name, by ID.
    pub fn explain(&self, now: Instant, name: &str) -> Vec<Known> {
        let named = self.services.iter().filter(|(_, entry)| entry.local.row.name.eq_ignore_ascii_case(name));
        named.map(|(id, _)| self.explain_service(now, id)).collect()
    }

    fn explain_service(&self, now: Instant, id: &str) -> Known {
        let entry = &self.services[id];
        let mut lacking = Vec::new();
        if !entry.sync.is_synced() {
            lacking.push("the service".to_owned());
        }
        let of = |service: &str| self.checks_by_service.get(service).into_iter().flatten();
        let mut checks = Vec::new();
        for check in of(id).chain(of("")) {
            let Some(entry) = self.checks.get(check) else { continue };
            if !entry.sync.is_synced() {
                lacking.push(format!("check {check}"));
            }
            let plan = entry.plan.as_ref();
            checks.push(KnownCheck {
                row: entry.local.row.clone(),
                every: plan.filter(|plan| plan.probe.is_scheduled()).map(|plan| plan.interval),
                ttl_left: plan
                    .filter(|plan| matches!(plan.probe, Probe::Ttl { .. }))
                    .and(entry.ttl_deadline)
                    .map(|deadline| deadline.saturating_duration_since(now)),
                critical_for: entry.critical_since.map(|since| now.saturating_duration_since(since)),
                deregister_after: entry.deregister_after,
            });
        }
        Known { id: id.to_owned(), source: entry.local.source, lacking, checks }
    }
}
