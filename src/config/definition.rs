//! Services and checks as operators define them: in configuration files (snake_case) and in bodies of the HTTP API
//! (camel case, names compared as Go's JSON decoder does).
//!
//! Both ways end in the same two types; [`ServiceDefinition::validate`] and [`CheckDefinition::validate`] say, in
//! Consul's words, what is wrong with a value that could be decoded.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::decode::{self, Style};
use crate::store::model::{ServiceAddress, Status, StringMap, Weights};

/// A service as defined, before the agent gives it defaults that depend on the node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceDefinition {
    /// Kind; empty for ordinary services.
    pub kind: String,
    /// ID; empty when not given: see [`ServiceDefinition::effective_id`].
    pub id: String,
    /// Service name.
    pub name: String,
    /// Tags.
    pub tags: Vec<String>,
    /// Own address; empty to use the node's.
    pub address: String,
    /// Addresses by tag.
    pub tagged_addresses: BTreeMap<String, ServiceAddress>,
    /// Operator metadata.
    pub meta: StringMap,
    /// Port; 0 when it has none.
    pub port: i64,
    /// Checks of the service, `check` first, then `checks`.
    pub checks: Vec<CheckDefinition>,
    /// DNS SRV weights; `None` when not given.
    pub weights: Option<Weights>,
    /// ACL token used to register it.
    pub token: String,
    /// Whether anti-entropy leaves tags that others changed alone.
    pub enable_tag_override: bool,
    /// Mesh proxy block, stored and echoed only.
    pub proxy: Option<Value>,
    /// Mesh block, stored and echoed only.
    pub connect: Option<Value>,
}

/// A check as defined. Lengths of time are signed nanoseconds as given; 0 is unset.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CheckDefinition {
    /// ID (`CheckID` inside a service); empty when not given.
    pub id: String,
    /// Display name.
    pub name: String,
    /// Operator's note.
    pub notes: String,
    /// ID of the service it belongs to, for checks defined outside one.
    pub service_id: String,
    /// ACL token used to register it.
    pub token: String,
    /// First status as written; empty when not given. See [`CheckDefinition::initial_status`].
    pub status: String,
    /// Command line for the shell (our own, from the days before `args`; files only).
    pub script: String,
    /// Program and arguments of a script or docker check.
    pub args: Vec<String>,
    /// URL of an HTTP check.
    pub http: String,
    /// Method of an HTTP check; empty is GET.
    pub method: String,
    /// Headers of an HTTP check.
    pub header: BTreeMap<String, Vec<String>>,
    /// Body of an HTTP check.
    pub body: String,
    /// HTTP checks take the first answer, redirect or not.
    pub disable_redirects: bool,
    /// `host:port` of a TCP check.
    pub tcp: String,
    /// TCP checks speak TLS.
    pub tcp_use_tls: bool,
    /// `host:port` of a UDP check.
    pub udp: String,
    /// `host:port[/service]` of a gRPC check.
    pub grpc: String,
    /// gRPC over TLS.
    pub grpc_use_tls: bool,
    /// `host:port` of an HTTP/2 ping check.
    pub h2ping: String,
    /// HTTP/2 ping over TLS; `None` is the default (on).
    pub h2ping_use_tls: Option<bool>,
    /// systemd unit of an OS service check.
    pub os_service: String,
    /// Container of a docker check.
    pub docker_container_id: String,
    /// Shell of a docker check.
    pub shell: String,
    /// Node an alias check follows; empty is this one.
    pub alias_node: String,
    /// Service an alias check follows; empty is the node itself.
    pub alias_service: String,
    /// Name expected in the certificate of a TLS check.
    pub tls_server_name: String,
    /// Certificates are not verified.
    pub tls_skip_verify: bool,
    /// Pause between runs.
    pub interval_ns: i64,
    /// Patience with one run.
    pub timeout_ns: i64,
    /// Time after which a TTL check that heard nothing is critical.
    pub ttl_ns: i64,
    /// Critical this long: its service is deregistered.
    pub deregister_critical_service_after_ns: i64,
    /// Bytes of output kept; 0 takes the agent's limit.
    pub output_max_size: i64,
    /// Good runs in a row before it passes.
    pub success_before_passing: i64,
    /// Bad runs in a row before it warns.
    pub failures_before_warning: i64,
    /// Bad runs in a row before it is critical.
    pub failures_before_critical: i64,
}

/// What a check does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckKind {
    /// Follows another service or node.
    Alias,
    /// Waits to be told.
    Ttl,
    /// Runs a program (`args`, or `script` through the shell).
    Script,
    /// Runs a program in a container.
    Docker,
    /// Asks a URL.
    Http,
    /// Connects.
    Tcp,
    /// Sends a datagram.
    Udp,
    /// Asks the gRPC health service.
    Grpc,
    /// Sends an HTTP/2 ping.
    H2Ping,
    /// Asks systemd.
    OsService,
}

impl CheckKind {
    /// The word shown as `Type` in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            CheckKind::Alias => "alias",
            CheckKind::Ttl => "ttl",
            CheckKind::Script => "script",
            CheckKind::Docker => "docker",
            CheckKind::Http => "http",
            CheckKind::Tcp => "tcp",
            CheckKind::Udp => "udp",
            CheckKind::Grpc => "grpc",
            CheckKind::H2Ping => "h2ping",
            CheckKind::OsService => "os_service",
        }
    }
}

/// Why a definition was refused; the text is Consul's, ready to be sent with status 400 (or, from a file, to be named with
/// its key).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefinitionError(pub String);

impl std::fmt::Display for DefinitionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DefinitionError {}

impl ServiceDefinition {
    /// Decodes the body of `/v1/agent/service/register`. The error is Consul's whole text.
    pub fn from_api(body: &[u8]) -> Result<ServiceDefinition, DefinitionError> {
        decode::api(body, decode::service)
    }

    /// Decodes a block of a configuration file. The error names the key below the block.
    pub fn from_config(block: &Value) -> Result<ServiceDefinition, decode::Problem> {
        decode::service(block, Style::File)
    }

    /// The ID it is registered under: its own, or its name.
    pub fn effective_id(&self) -> &str {
        if self.id.is_empty() { &self.name } else { &self.id }
    }

    /// The ID check number `position` (from 0) gets when it has none: `service:ID`, or `service:ID:N` among several.
    pub fn check_id(&self, position: usize) -> String {
        match self.checks.get(position) {
            Some(check) if !check.id.is_empty() => check.id.clone(),
            _ if self.checks.len() > 1 => format!("service:{}:{}", self.effective_id(), position + 1),
            _ => format!("service:{}", self.effective_id()),
        }
    }

    /// Says in Consul's words what is wrong, in Consul's order.
    pub fn validate(&self) -> Result<(), DefinitionError> {
        let refuse = |text: String| Err(DefinitionError(text));
        if self.name.is_empty() {
            return refuse("Missing service name".to_owned());
        }
        if matches!(self.address.as_str(), "0.0.0.0" | "::" | "[::]") {
            return refuse("Invalid service address".to_owned());
        }
        if let Some(weights) = &self.weights {
            validate_weights(weights).map_err(|e| DefinitionError(format!("Invalid Weights: {e}")))?;
        }
        validate_metadata(&self.meta).map_err(|e| DefinitionError(format!("Invalid Service Meta: {e}")))?;
        for check in &self.checks {
            check.validate().map_err(|e| DefinitionError(format!("Invalid check: {e}")))?;
        }
        if self.checks.iter().any(|check| !check.status_is_valid()) {
            return refuse("Status for checks must 'passing', 'warning', 'critical'".to_owned());
        }
        Ok(())
    }
}

impl CheckDefinition {
    /// Decodes the body of `/v1/agent/check/register`. The error is Consul's whole text.
    pub fn from_api(body: &[u8]) -> Result<CheckDefinition, DefinitionError> {
        decode::api(body, decode::check)
    }

    /// Decodes a block of a configuration file. The error names the key below the block.
    pub fn from_config(block: &Value) -> Result<CheckDefinition, decode::Problem> {
        decode::check(block, Style::File)
    }

    /// The ID it is registered under: its own, or its name.
    pub fn effective_id(&self) -> &str {
        if self.id.is_empty() { &self.name } else { &self.id }
    }

    /// What the check does. Called on validated definitions; one that names several things does the first of Consul's
    /// order.
    pub fn kind(&self) -> CheckKind {
        if self.ttl_ns > 0 {
            CheckKind::Ttl
        } else if !self.http.is_empty() {
            CheckKind::Http
        } else if !self.tcp.is_empty() {
            CheckKind::Tcp
        } else if !self.udp.is_empty() {
            CheckKind::Udp
        } else if !self.grpc.is_empty() {
            CheckKind::Grpc
        } else if !self.h2ping.is_empty() {
            CheckKind::H2Ping
        } else if !self.os_service.is_empty() {
            CheckKind::OsService
        } else if !self.docker_container_id.is_empty() {
            CheckKind::Docker
        } else if self.is_script() {
            CheckKind::Script
        } else {
            CheckKind::Alias
        }
    }

    /// Whether it runs a program, here or in a container.
    pub fn is_script(&self) -> bool {
        !self.args.is_empty() || !self.script.is_empty()
    }

    /// Whether it follows another service or node.
    pub fn is_alias(&self) -> bool {
        !self.alias_node.is_empty() || !self.alias_service.is_empty()
    }

    /// Whether no field was given at all: Consul drops such checks of a service silently.
    pub fn is_empty(&self) -> bool {
        *self == CheckDefinition::default()
    }

    /// Status before the first run: as written, else critical.
    pub fn initial_status(&self) -> Status {
        Status::parse(&self.status).unwrap_or_default()
    }

    /// Whether the written status is one of Consul's words or absent.
    pub fn status_is_valid(&self) -> bool {
        self.status.is_empty() || Status::parse(&self.status).is_some()
    }

    /// Pause between runs; zero when unset or negative.
    pub fn interval(&self) -> Duration {
        Duration::from_nanos(self.interval_ns.max(0) as u64)
    }

    /// Patience with one run; `None` when unset.
    pub fn timeout(&self) -> Option<Duration> {
        (self.timeout_ns > 0).then(|| Duration::from_nanos(self.timeout_ns as u64))
    }

    /// TTL; `None` when it is no TTL check.
    pub fn ttl(&self) -> Option<Duration> {
        (self.ttl_ns > 0).then(|| Duration::from_nanos(self.ttl_ns as u64))
    }

    /// Critical for this long: its service is deregistered; `None` when unset.
    pub fn deregister_critical_service_after(&self) -> Option<Duration> {
        let ns = self.deregister_critical_service_after_ns;
        (ns > 0).then(|| Duration::from_nanos(ns as u64))
    }

    /// Says what is wrong, in Consul's words and order (without its `Invalid check: `).
    pub fn validate(&self) -> Result<(), DefinitionError> {
        let runs = self.is_script()
            || [&self.http, &self.tcp, &self.udp, &self.grpc, &self.h2ping, &self.os_service]
                .iter()
                .any(|target| !target.is_empty());
        let refuse = |text: &str| Err(DefinitionError(text.to_owned()));
        if self.interval_ns > 0 && self.ttl_ns > 0 {
            refuse("Interval and TTL cannot both be specified")
        } else if runs && self.interval_ns <= 0 {
            refuse("Interval must be > 0 for Script, HTTP, or TCP checks")
        } else if runs && self.is_alias() {
            refuse("Interval cannot be set for Alias checks")
        } else if self.is_alias() && self.ttl_ns > 0 {
            refuse("TTL must be not be set for Alias checks")
        } else if !runs && !self.is_alias() && self.ttl_ns <= 0 {
            refuse("TTL must be > 0 for TTL checks")
        } else if self.output_max_size < 0 {
            refuse("MaxOutputMaxSize must be positive")
        } else {
            Ok(())
        }
    }
}

/// Pairs of metadata a node or service may hold.
pub const META_PAIRS_MAX: usize = 64;
/// Characters of a metadata key.
pub const META_KEY_LEN_MAX: usize = 128;
/// Characters of a metadata value.
pub const META_VALUE_LEN_MAX: usize = 512;
/// Prefix of metadata keys kept for the product.
pub const META_KEY_PREFIX_RESERVED: &str = "consul-";
/// Largest DNS weight.
pub const WEIGHT_MAX: i64 = 65535;

/// Checks metadata of a node or service; the error is Consul's text.
pub fn validate_metadata(meta: &StringMap) -> Result<(), String> {
    if meta.len() > META_PAIRS_MAX {
        return Err(format!("Node metadata cannot contain more than {META_PAIRS_MAX} key/value pairs"));
    }
    for (key, value) in meta {
        metadata_pair(key, value)
            .map_err(|why| format!("Couldn't load metadata pair ('{key}', '{value}'): {why}"))?;
    }
    Ok(())
}

/// Checks one pair of metadata.
fn metadata_pair(key: &str, value: &str) -> Result<(), String> {
    if key.is_empty() {
        Err("Key cannot be blank".to_owned())
    } else if !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        Err("Key contains invalid characters".to_owned())
    } else if key.len() > META_KEY_LEN_MAX {
        Err(format!("Key is too long (limit: {META_KEY_LEN_MAX} characters)"))
    } else if key.starts_with(META_KEY_PREFIX_RESERVED) {
        Err(format!("Key prefix '{META_KEY_PREFIX_RESERVED}' is reserved for internal use"))
    } else if value.len() > META_VALUE_LEN_MAX {
        Err(format!("Value is too long (limit: {META_VALUE_LEN_MAX} characters)"))
    } else {
        Ok(())
    }
}

/// Checks DNS weights; the error is Consul's text.
pub fn validate_weights(weights: &Weights) -> Result<(), String> {
    if weights.passing < 1 {
        Err("Passing must be greater than 0".to_owned())
    } else if weights.warning < 0 {
        Err("Warning must be greater or equal than 0".to_owned())
    } else if weights.passing > WEIGHT_MAX || weights.warning > WEIGHT_MAX {
        Err(format!("DNS Weight must be between 0 and {WEIGHT_MAX}"))
    } else {
        Ok(())
    }
}
