//! The rows of the replicated tables: what a catalog, a health and a KV answer are made of.
//!
//! Rows travel in commands and lie in snapshots as rkyv archives, so every field is plain data.
//! `Option<..>` on a collection keeps the difference between `null` and empty that Consul shows
//! to its clients (transcript `catalog.null-and-empty-collections`).

use std::collections::BTreeMap;

use rkyv::{Archive, Deserialize, Serialize};

/// Ordered string pairs: metadata, tagged addresses, headers.
pub type StringMap = BTreeMap<String, String>;

/// A host of the catalog.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Node {
    /// UUID, lower case, or empty for nodes registered without one.
    pub id: String,
    /// Name as given; lookups ignore letter case.
    pub node: String,
    /// IP address or host name.
    pub address: String,
    /// Datacenter of the node.
    pub datacenter: String,
    /// Extra addresses (`lan`, `wan`, `lan_ipv4`, ...).
    pub tagged_addresses: Option<StringMap>,
    /// Operator metadata.
    pub meta: Option<StringMap>,
    /// Index of the write that made the row.
    pub create_index: u64,
    /// Index of the last write that changed the row.
    pub modify_index: u64,
}

/// Address and port of a service under a tag such as `wan`.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceAddress {
    /// IP address or host name.
    pub address: String,
    /// Port.
    pub port: i64,
}

/// DNS SRV weights by health.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Weights {
    /// Weight while passing.
    pub passing: i64,
    /// Weight while warning.
    pub warning: i64,
}

impl Default for Weights {
    fn default() -> Self {
        Weights { passing: 1, warning: 1 }
    }
}

/// One instance of a service on a node.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Service {
    /// Name of the node that holds it.
    pub node: String,
    /// Kind (empty for ordinary services; mesh kinds are stored and echoed only).
    pub kind: String,
    /// ID, unique on the node.
    pub id: String,
    /// Service name.
    pub name: String,
    /// Tags.
    pub tags: Vec<String>,
    /// Own address, empty to use the node's.
    pub address: String,
    /// Addresses by tag.
    pub tagged_addresses: Option<BTreeMap<String, ServiceAddress>>,
    /// Operator metadata.
    pub meta: Option<StringMap>,
    /// Port, 0 when it has none.
    pub port: i64,
    /// DNS SRV weights.
    pub weights: Weights,
    /// Whether anti-entropy leaves tags that others changed alone.
    pub enable_tag_override: bool,
    /// Index of the write that made the row.
    pub create_index: u64,
    /// Index of the last write that changed the row.
    pub modify_index: u64,
}

/// Health of a check, from best to worst. `Maintenance` is derived, never stored.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
#[rkyv(derive(Clone, Copy, PartialEq, Eq))]
pub enum Status {
    /// Healthy.
    Passing,
    /// Still served, but the operator is told.
    Warning,
    /// Left out of discovery answers.
    #[default]
    Critical,
}

impl Status {
    /// The word of the HTTP API.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Passing => "passing",
            Status::Warning => "warning",
            Status::Critical => "critical",
        }
    }

    /// Parses the word of the HTTP API.
    pub fn parse(word: &str) -> Option<Status> {
        match word {
            "passing" => Some(Status::Passing),
            "warning" => Some(Status::Warning),
            "critical" => Some(Status::Critical),
            _ => None,
        }
    }
}

/// How a check is run, as registered: shown under `Definition`, executed only by the agent that owns it.
/// Durations are Go-style text (`10s`), empty when unset.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CheckDefinition {
    /// URL of an HTTP check.
    pub http: String,
    /// Method of an HTTP check.
    pub method: String,
    /// Headers of an HTTP check.
    pub header: BTreeMap<String, Vec<String>>,
    /// Body of an HTTP check.
    pub body: String,
    /// Skips certificate verification.
    pub tls_skip_verify: bool,
    /// Address of a TCP check.
    pub tcp: String,
    /// Interval, nanoseconds; 0 unset.
    pub interval_ns: i64,
    /// Timeout, nanoseconds; 0 unset.
    pub timeout_ns: i64,
    /// Deregistration delay, nanoseconds; 0 unset.
    pub deregister_critical_service_after_ns: i64,
}

/// One health check of a node or of a service on it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Check {
    /// Name of the node that holds it.
    pub node: String,
    /// ID, unique on the node.
    pub check_id: String,
    /// Display name.
    pub name: String,
    /// Health.
    pub status: Status,
    /// Operator's note.
    pub notes: String,
    /// Last output.
    pub output: String,
    /// ID of the service it belongs to; empty for a check of the node.
    pub service_id: String,
    /// Name of that service when the check was written (filled by the store).
    pub service_name: String,
    /// Tags of that service when the check was written (filled by the store).
    pub service_tags: Vec<String>,
    /// `http`, `tcp`, `ttl`, `script`, ...
    pub kind: String,
    /// How it is run.
    pub definition: CheckDefinition,
    /// Index of the write that made the row.
    pub create_index: u64,
    /// Index of the last write that changed the row.
    pub modify_index: u64,
}

/// One key of the KV store. Keys are bytes: Consul takes any percent-encoded octets.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct KvEntry {
    /// The key.
    pub key: Vec<u8>,
    /// The value, at most `limits.kv_max_value_size` bytes.
    pub value: Vec<u8>,
    /// Opaque to us.
    pub flags: u64,
    /// Counts acquisitions of its lock.
    pub lock_index: u64,
    /// Session that holds its lock, or empty.
    pub session: String,
    /// Index of the write that made the row.
    pub create_index: u64,
    /// Index of the last write that changed the row.
    pub modify_index: u64,
}

/// What becomes of the keys that a session holds when it goes.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[rkyv(derive(Clone, Copy, PartialEq, Eq))]
pub enum Behavior {
    /// They stay, free.
    #[default]
    Release,
    /// They are deleted.
    Delete,
}

impl Behavior {
    /// The word of the HTTP API.
    pub fn as_str(self) -> &'static str {
        match self {
            Behavior::Release => "release",
            Behavior::Delete => "delete",
        }
    }

    /// Parses the word of the HTTP API.
    pub fn parse(word: &str) -> Option<Behavior> {
        match word {
            "release" => Some(Behavior::Release),
            "delete" => Some(Behavior::Delete),
            _ => None,
        }
    }
}

/// A check of a service, as a session names it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceCheck {
    /// ID of the check, on the session's node.
    pub id: String,
    /// Echoed only.
    pub namespace: String,
}

/// A session: who holds locks, and what must stay well for it to go on holding them.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Session {
    /// UUID, lower case.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Name of the node it lives on.
    pub node: String,
    /// How long its keys cannot be acquired after it has gone, nanoseconds, as given. See [`Session::delay_ns`].
    pub lock_delay_ns: i64,
    /// What becomes of its keys.
    pub behavior: Behavior,
    /// How long it lives without being renewed, as given: Go-style text, or empty.
    pub ttl: String,
    /// The same, nanoseconds; 0: for ever.
    pub ttl_ns: i64,
    /// Checks of the node, by the old name of the field.
    pub checks: Option<Vec<String>>,
    /// Checks of the node.
    pub node_checks: Option<Vec<String>>,
    /// Checks of services on the node.
    pub service_checks: Option<Vec<ServiceCheck>>,
    /// Index of the write that made the row.
    pub create_index: u64,
    /// Index of the last write that changed the row.
    pub modify_index: u64,
}

impl Session {
    /// The longest lock-delay that takes effect: Consul's `MaxLockDelay`.
    pub const DELAY_NS_MAX: i64 = 60_000_000_000;

    /// The lock-delay that takes effect.
    pub fn delay_ns(&self) -> i64 {
        self.lock_delay_ns.clamp(0, Session::DELAY_NS_MAX)
    }

    /// IDs of all checks that must stay well, in the order in which Consul looks at them.
    pub fn check_ids(&self) -> impl Iterator<Item = &str> {
        let named = self.checks.iter().flatten().chain(self.node_checks.iter().flatten());
        let of_services = self.service_checks.iter().flatten().map(|check| &check.id);
        named.chain(of_services).map(String::as_str)
    }
}

/// How servers are promoted and removed (`/v1/operator/autopilot/configuration`). One row for the whole cluster.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
pub struct AutopilotConfig {
    /// Removes failed servers when a new one joins.
    pub cleanup_dead_servers: bool,
    /// Longest silence of a healthy server, nanoseconds.
    pub last_contact_threshold_ns: i64,
    /// How many entries a healthy server may be behind.
    pub max_trailing_logs: u64,
    /// Voters below which no failed server is removed; 0: no such bound.
    pub min_quorum: u64,
    /// How long a new server must be healthy before it votes, nanoseconds.
    pub server_stabilization_time_ns: i64,
    /// Stored and shown only.
    pub redundancy_zone_tag: String,
    /// Stored and shown only.
    pub disable_upgrade_migration: bool,
    /// Stored and shown only.
    pub upgrade_version_tag: String,
    /// Index of the write that made the row.
    pub create_index: u64,
    /// Index of the last write that changed the row.
    pub modify_index: u64,
}

impl Default for AutopilotConfig {
    /// Consul's defaults.
    fn default() -> AutopilotConfig {
        AutopilotConfig {
            cleanup_dead_servers: true,
            last_contact_threshold_ns: 200_000_000,
            max_trailing_logs: 250,
            min_quorum: 0,
            server_stabilization_time_ns: 10_000_000_000,
            redundancy_zone_tag: String::new(),
            disable_upgrade_migration: false,
            upgrade_version_tag: String::new(),
            create_index: 0,
            modify_index: 0,
        }
    }
}
