//! What this agent knows of itself: its services and checks, as an immutable view that every core reads.
//!
//! The control core changes a copy (the maps share structure, so that is cheap) and publishes it; handlers of
//! `/v1/agent/...` answer from the view they load.

use std::sync::Arc;

use imbl::OrdMap;

use crate::store::OwnRows;
use crate::store::model::{Check, Node, Service, Status};

/// Where a registration came from: decides what a reload may replace, what is persisted and which scripts may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A configuration file, or the agent itself.
    Local,
    /// The HTTP API.
    Remote,
}

impl Source {
    /// The word in persisted files.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Local => "local",
            Source::Remote => "remote",
        }
    }

    /// Parses the word of persisted files; files of old agents have none and mean the API.
    pub fn parse(word: &str) -> Source {
        if word == "local" { Source::Local } else { Source::Remote }
    }
}

/// A registered service.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalService {
    /// The row, as the catalog should hold it.
    pub row: Arc<Service>,
    /// Where it came from.
    pub source: Source,
    /// Token used to register it; shown nowhere.
    pub token: String,
    /// Hash of the row: `ContentHash`, up to 16 hex digits.
    pub hash: String,
}

/// A registered check with its present status.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalCheck {
    /// The row, as the catalog should hold it.
    pub row: Arc<Check>,
    /// Where it came from.
    pub source: Source,
}

/// The view. Cloning shares everything.
#[derive(Clone, Debug, Default)]
pub struct LocalState {
    /// The row that this node should have in the catalog, with the node's ID.
    pub node: Arc<Node>,
    /// Services by ID.
    pub services: OrdMap<String, Arc<LocalService>>,
    /// Checks by ID.
    pub checks: OrdMap<String, Arc<LocalCheck>>,
    /// Checks that the scheduler runs (`check_monitors` in the statistics).
    pub monitors: usize,
    /// Checks that are told (`check_ttls` in the statistics).
    pub ttls: usize,
}

/// Check ID of the node's maintenance mode.
pub const NODE_MAINTENANCE: &str = "_node_maintenance";
/// Prefix of the check IDs of services' maintenance modes; the service ID follows.
pub const SERVICE_MAINTENANCE: &str = "_service_maintenance:";

/// The health of a service as `/v1/agent/health/service` puts it: maintenance counts as worse than critical.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aggregate {
    /// All checks pass.
    Passing,
    /// The worst check warns.
    Warning,
    /// The worst check is critical.
    Critical,
    /// Taken out by an operator.
    Maintenance,
}

impl Aggregate {
    /// The word in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Aggregate::Passing => "passing",
            Aggregate::Warning => "warning",
            Aggregate::Critical => "critical",
            Aggregate::Maintenance => "maintenance",
        }
    }
}

impl LocalState {
    /// The view before the agent has started: nothing but its name.
    pub fn of_node(name: &str) -> LocalState {
        let node = Node { node: name.to_owned(), ..Node::default() };
        LocalState { node: Arc::new(node), ..LocalState::default() }
    }

    /// The rows as the catalog would have them.
    pub fn rows(&self) -> OwnRows {
        let named = |check: &Arc<LocalCheck>, service: Option<&Service>| {
            let mut row = Check::clone(&check.row);
            row.node.clone_from(&self.node.node);
            if let Some(service) = service {
                row.service_name.clone_from(&service.name);
                row.service_tags.clone_from(&service.tags);
            }
            Arc::new(row)
        };
        let of = |id: &str, service: Option<&Service>| {
            let checks = self.checks.values().filter(|check| check.row.service_id == id);
            checks.map(|check| named(check, service)).collect::<Vec<_>>()
        };
        let services = self.services.values().map(|service| {
            let row = Service { node: self.node.node.clone(), ..Service::clone(&service.row) };
            let checks = of(&row.id, Some(&row));
            (Arc::new(row), checks)
        });
        OwnRows { node: self.node.clone(), node_checks: of("", None), services: services.collect() }
    }

    /// The checks that speak for a service: its own and those of the node, by check ID.
    pub fn checks_of<'a>(&'a self, service_id: &'a str) -> impl Iterator<Item = &'a Arc<LocalCheck>> {
        self.checks.values().filter(move |check| {
            let of = check.row.service_id.as_str();
            of.is_empty() || of == service_id
        })
    }

    /// The worst of the checks that speak for a service.
    pub fn health_of(&self, service_id: &str) -> Aggregate {
        self.checks_of(service_id).map(|check| aggregate(&check.row)).max().unwrap_or(Aggregate::Passing)
    }
}

fn aggregate(check: &Check) -> Aggregate {
    if check.check_id == NODE_MAINTENANCE || check.check_id.starts_with(SERVICE_MAINTENANCE) {
        return Aggregate::Maintenance;
    }
    match check.status {
        Status::Passing => Aggregate::Passing,
        Status::Warning => Aggregate::Warning,
        Status::Critical => Aggregate::Critical,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(checks: &[(&str, &str, Status)]) -> LocalState {
        let mut state = LocalState::default();
        for (id, service, status) in checks {
            let row = Check {
                check_id: id.to_string(),
                service_id: service.to_string(),
                status: *status,
                ..Check::default()
            };
            state
                .checks
                .insert(id.to_string(), Arc::new(LocalCheck { row: Arc::new(row), source: Source::Remote }));
        }
        state
    }

    #[test]
    fn the_worst_check_of_service_and_node_decides() {
        let state =
            with(&[("a", "s1", Status::Passing), ("b", "s2", Status::Critical), ("n", "", Status::Warning)]);
        assert_eq!(state.health_of("s1"), Aggregate::Warning);
        assert_eq!(state.health_of("s2"), Aggregate::Critical);
        assert_eq!(state.health_of("s3"), Aggregate::Warning);
        assert_eq!(LocalState::default().health_of("s1"), Aggregate::Passing);
    }

    #[test]
    fn maintenance_outranks_critical() {
        let state =
            with(&[("a", "s1", Status::Critical), ("_service_maintenance:s1", "s1", Status::Critical)]);
        assert_eq!(state.health_of("s1"), Aggregate::Maintenance);
        let state = with(&[(NODE_MAINTENANCE, "", Status::Critical)]);
        assert_eq!(state.health_of("any"), Aggregate::Maintenance);
    }
}
