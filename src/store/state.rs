//! The whole replicated state at one index.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use rkyv::{Archive, Deserialize, Serialize};

use super::catalog::{Name, NodeEntry, ServiceChecks, ServiceEntry, Spelling};
use super::coordinates::Coordinates;
use super::graveyard::Graveyard;
use super::keys::KeyTree;
use super::limits::NAME_GRAVES_MAX;
use super::mirror::Mirrored;
use super::model::{AutopilotConfig, Check, Status};
use super::restore::Staged;
use super::sessions::Sessions;
use super::topic::{Topic, fold};

/// All tables at one index. A clone shares everything with the original.
#[derive(Clone, Debug)]
pub struct State {
    pub(super) index: u64,
    /// How far [`State::index`] is ahead of the log's.
    pub(super) offset: u64,
    /// Index at which a restore last replaced all tables: every answer changed then. 0: never.
    pub(super) restored_at: u64,
    /// By folded name.
    pub(super) nodes: OrdMap<Name, Arc<NodeEntry>>,
    /// Folded name by ID.
    pub(super) node_ids: OrdMap<Arc<str>, Name>,
    /// Folded names by address.
    pub(super) node_addresses: OrdMap<Arc<str>, OrdSet<Name>>,
    /// Folded node name and folded service ID by the service's own address.
    pub(super) service_addresses: OrdMap<Arc<str>, OrdSet<(Name, Name)>>,
    /// By folded name; only those with instances.
    pub(super) services: OrdMap<Name, Arc<ServiceEntry>>,
    /// Checks by the folded name of their service; only names with checks.
    pub(super) service_checks: OrdMap<Name, ServiceChecks>,
    /// Names of services as spelled.
    pub(super) spellings: OrdMap<Arc<str>, Spelling>,
    /// By status, folded node name and folded ID.
    pub(super) checks_by_status: [OrdMap<(Name, Name), Arc<Check>>; 3],
    pub(super) gone_nodes: Graveyard,
    pub(super) gone_node_checks: Graveyard,
    pub(super) gone_services: Graveyard,
    pub(super) gone_service_checks: Graveyard,
    pub(super) keys: KeyTree,
    pub(super) autopilot: Option<Arc<AutopilotConfig>>,
    pub(super) coordinates: Coordinates,
    pub(super) sessions: Sessions,
    /// What a restore has gathered so far. Not part of a snapshot.
    pub(super) staged: Option<Staged>,
    pub(super) at: TableIndexes,
    /// On a mirror, what it holds: nothing but that can be asked of it.
    pub(super) mirrored: Option<Mirrored>,
}

/// Newest change of whole tables.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct TableIndexes {
    /// Node rows.
    pub nodes: u64,
    /// Service rows.
    pub services: u64,
    /// Names of services and their tags.
    pub service_names: u64,
    /// A service name lost its last instance.
    pub extinction: u64,
    /// Check rows.
    pub checks: u64,
    /// Writes of check rows, also of those that were there already in the same words: what Consul shows.
    pub check_writes: u64,
    /// A service was removed: Consul counts that as a write to the checks too.
    pub service_removals: u64,
    /// A check of a node was removed: Consul counts that as a write to the services too.
    pub node_check_removals: u64,
    /// Check rows by status.
    pub states: [u64; 3],
    /// Keys, deletions too.
    pub keys: u64,
}

impl State {
    /// Empty tables at index 0.
    pub fn new() -> State {
        State {
            index: 0,
            offset: 0,
            restored_at: 0,
            nodes: OrdMap::new(),
            node_ids: OrdMap::new(),
            node_addresses: OrdMap::new(),
            service_addresses: OrdMap::new(),
            services: OrdMap::new(),
            service_checks: OrdMap::new(),
            spellings: OrdMap::new(),
            checks_by_status: Default::default(),
            gone_nodes: Graveyard::new(NAME_GRAVES_MAX),
            gone_node_checks: Graveyard::new(NAME_GRAVES_MAX),
            gone_services: Graveyard::new(NAME_GRAVES_MAX),
            gone_service_checks: Graveyard::new(NAME_GRAVES_MAX),
            keys: KeyTree::default(),
            autopilot: None,
            coordinates: Coordinates::default(),
            sessions: Sessions::new(),
            staged: None,
            at: TableIndexes::default(),
            mirrored: None,
        }
    }

    /// Index of the last applied command, as clients see it. Never goes back, not by a restore either: from then
    /// on it is ahead of the log's.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Index in the log of the last applied command.
    pub fn log_index(&self) -> u64 {
        self.index - self.offset
    }

    /// Whether a restore is being gathered; no snapshot of the log's is to be taken meanwhile, as the parts are only
    /// in the log.
    pub fn is_restoring(&self) -> bool {
        self.staged.is_some()
    }

    /// What a query without `?index` shows as `X-Consul-Index`, as Consul computes it: for some topics
    /// coarser than [`State::last_change`] (an absent key shows the newest write to any key), in
    /// two corners behind it (an absent node shows 1; keys that went with a tree over the prefix asked do not count).
    /// At least 1.
    pub fn topic_index(&self, topic: &Topic) -> u64 {
        if let Some(mirrored) = &self.mirrored {
            return mirrored.indexes(topic).0.max(1);
        }
        let index = match topic {
            Topic::Key(key) => self.keys.get(key).map_or(self.at.keys, |entry| entry.modify_index),
            Topic::KeyPrefix(prefix) => {
                let sums = self.keys.sums_under(prefix);
                if sums.solid { sums.shown } else { self.at.keys }
            }
            Topic::Node(name) => self.nodes.get(&*fold(name)).map_or(1, |node| node.changed),
            Topic::ServiceInstances(name) => match self.services.get(&*fold(name)) {
                // Consul has one index for both questions.
                Some(entry) => entry.health_changed,
                None => self.absent_service_index(self.at.nodes.max(self.at.services)),
            },
            Topic::ServiceHealth(name) => match self.services.get(&*fold(name)) {
                Some(entry) => entry.health_changed,
                None => self.absent_service_index(self.catalog_index()),
            },
            Topic::ServiceChecks(_) | Topic::NodeChecks(_) | Topic::CheckState(_) => {
                self.at.check_writes.max(self.at.service_removals)
            }
            Topic::Services => self.at.service_names.max(self.at.node_check_removals),
            Topic::Sessions | Topic::Session(_) | Topic::NodeSessions(_) => self.sessions.changed,
            Topic::Nodes
            | Topic::Catalog
            | Topic::Coordinates
            | Topic::LocalService(_)
            | Topic::LockDelay(_) => self.last_change(topic),
        };
        index.max(self.restored_at).max(1)
    }

    /// The index at which the answer to `topic` last changed; exact but for what the bounded memory of deletions has
    /// forgotten, and never backwards. A query asked with index N parks while this is at most N.
    pub fn last_change(&self, topic: &Topic) -> u64 {
        if let Some(mirrored) = &self.mirrored {
            return mirrored.indexes(topic).1;
        }
        let index = match topic {
            Topic::Key(key) => self.keys.changed_at(key),
            Topic::KeyPrefix(prefix) => self.keys.sums_under(prefix).changed,
            Topic::Nodes => self.at.nodes,
            Topic::Node(name) => {
                let name = fold(name);
                self.nodes.get(&*name).map_or_else(|| self.gone_nodes.index_of(&name), |node| node.changed)
            }
            Topic::Services => self.at.service_names,
            Topic::ServiceInstances(name) => self.service_change(name, |entry| entry.instances_changed),
            Topic::ServiceHealth(name) => self.service_change(name, |entry| entry.health_changed),
            Topic::ServiceChecks(name) => {
                let name = fold(name);
                let gone = self.gone_service_checks.index_of(&name);
                self.service_checks.get(&*name).map_or(gone, |list| list.changed)
            }
            Topic::NodeChecks(name) => {
                let name = fold(name);
                let gone = self.gone_node_checks.index_of(&name);
                self.nodes.get(&*name).map_or(gone, |node| node.checks_changed)
            }
            Topic::CheckState(None) => self.at.checks,
            Topic::CheckState(Some(status)) => self.at.states[*status as usize],
            Topic::Catalog => self.catalog_index(),
            Topic::Coordinates => self.coordinates.changed,
            Topic::Sessions => self.sessions.changed,
            Topic::Session(id) => self.sessions.changed_at(&fold(id)),
            Topic::NodeSessions(name) => self.sessions.changed_on(&fold(name)),
            Topic::LocalService(_) | Topic::LockDelay(_) => return 0,
        };
        index.max(self.restored_at)
    }

    /// What a query with `?index` shows as `X-Consul-Index`: never behind the last change, so that the next question
    /// asked with it parks.
    pub fn blocking_index(&self, topic: &Topic) -> u64 {
        self.topic_index(topic).max(self.last_change(topic))
    }

    pub(super) fn checks_in(&mut self, status: Status) -> &mut OrdMap<(Name, Name), Arc<Check>> {
        &mut self.checks_by_status[status as usize]
    }

    /// The memories of names that are gone, in the order in which snapshots number them.
    pub(super) fn graveyards(&self) -> [&Graveyard; 4] {
        [&self.gone_nodes, &self.gone_node_checks, &self.gone_services, &self.gone_service_checks]
    }

    pub(super) fn graveyards_mut(&mut self) -> [&mut Graveyard; 4] {
        [
            &mut self.gone_nodes,
            &mut self.gone_node_checks,
            &mut self.gone_services,
            &mut self.gone_service_checks,
        ]
    }

    fn catalog_index(&self) -> u64 {
        self.at.nodes.max(self.at.services).max(self.at.checks)
    }

    /// Consul shows the last extinction of any service, and before the first one the newest write to `tables`.
    fn absent_service_index(&self, tables: u64) -> u64 {
        if self.at.extinction > 0 { self.at.extinction } else { tables }
    }

    fn service_change(&self, name: &str, of: impl Fn(&ServiceEntry) -> u64) -> u64 {
        let name = fold(name);
        match self.services.get(&*name) {
            Some(entry) => of(entry),
            None => self.gone_services.index_of(&name),
        }
    }
}

impl Default for State {
    fn default() -> State {
        State::new()
    }
}

const _: () = assert!(Status::Passing as usize == 0 && Status::Critical as usize == 2);
