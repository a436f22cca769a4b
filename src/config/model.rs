//! The validated configuration: what every room of the agent compiles against.
//!
//! A value of [`Config`] is complete (every default filled in, every address resolved) and consistent; nothing
//! behind it parses text again. Lengths of time are [`Duration`]s, sizes are bytes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::definition::{CheckDefinition, ServiceDefinition};
use super::gossip::GossipConfig;
use crate::store::model::StringMap;

/// One validated configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Development mode: a server in memory with fast timers.
    pub dev_mode: bool,
    /// Whether this agent is a server.
    pub server: bool,
    /// A single server makes itself leader.
    pub bootstrap: bool,
    /// Servers to wait for before the first election; 0 when unset.
    pub bootstrap_expect: u32,
    /// Datacenter, lower case.
    pub datacenter: String,
    /// Datacenter that holds ACLs, lower case.
    pub primary_datacenter: String,
    /// Name of this node.
    pub node_name: String,
    /// UUID of this node when configured; else it is read from or generated into the data folder.
    pub node_id: Option<String>,
    /// Whether a node without an ID takes one that is made of its machine's.
    pub host_node_id: bool,
    /// Metadata of this node.
    pub node_meta: StringMap,
    /// Network segment (always empty in the open edition), shown in the node's metadata.
    pub segment: String,
    /// Folder of durable state; `None` in development mode only.
    pub data_dir: Option<PathBuf>,
    /// File the process ID is written to.
    pub pid_file: Option<PathBuf>,
    /// Addresses of this node: what it binds and what it tells others.
    pub addresses: Addresses,
    /// Where the client surfaces listen.
    pub listen: Listen,
    /// Owner and mode of unix sockets.
    pub unix_sockets: UnixSockets,
    /// Ports as configured; `None` is off.
    pub ports: Ports,
    /// DNS surface.
    pub dns: DnsConfig,
    /// HTTP surface.
    pub http: HttpConfig,
    /// Limits of rate, connections and sizes.
    pub limits: Limits,
    /// What the agent allows and bounds in checks.
    pub check: CheckConfig,
    /// Services defined in files, their checks inside.
    pub services: Vec<ServiceDefinition>,
    /// Checks defined in files outside any service.
    pub checks: Vec<CheckDefinition>,
    /// Logs.
    pub log: LogConfig,
    /// Metrics.
    pub telemetry: TelemetryConfig,
    /// TLS files and what they are used for.
    pub tls: TlsConfig,
    /// Gossip encryption and joining.
    pub gossip: GossipConfig,
    /// Raft and leader timing.
    pub performance: Performance,
    /// The replicated log.
    pub raft: RaftConfig,
    /// What the first leader writes as autopilot's configuration.
    pub autopilot: AutopilotConfig,
    /// A server that receives the log and never votes.
    pub non_voting_server: bool,
    /// Web UI.
    pub ui: UiConfig,
    /// SIGTERM leaves the cluster before stopping.
    pub leave_on_terminate: bool,
    /// SIGINT stops without leaving the cluster.
    pub skip_leave_on_interrupt: bool,
    /// Wait of a blocking query that names none.
    pub default_query_time: Duration,
    /// Upper bound of the wait of a blocking query.
    pub max_query_time: Duration,
    /// Above zero: catalog and health reads are stale by default, up to this age.
    pub discovery_max_stale: Duration,
    /// Answer WAN addresses for nodes of other datacenters.
    pub translate_wan_addrs: bool,
    /// Network coordinates are off.
    pub disable_coordinates: bool,
    /// Least TTL of a session.
    pub session_ttl_min: Duration,
    /// Profiling and debug endpoints answer.
    pub enable_debug: bool,
    /// `consul exec` is refused.
    pub disable_remote_exec: bool,
    /// No update check (there is none: kept for what `/v1/agent/self` shows).
    pub disable_update_check: bool,
    /// Watches as configured, validated in form only.
    pub watches: Vec<serde_json::Value>,
    /// Driver of the executors.
    pub runtime: RuntimeChoice,
    /// Executor cores; `None` chooses by role (all online CPUs of a server, one of a client).
    pub cores: Option<usize>,
    /// Keys that were accepted and whose feature does not exist yet, sorted; named in one log line at start.
    pub unsupported_keys: Vec<String>,
    /// Warnings found while reading the configuration, to be logged at start.
    pub warnings: Vec<String>,
}

/// Addresses of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Address of RPC and gossip sockets.
    pub bind: IpAddr,
    /// LAN address told to others; the node's address in the catalog.
    pub advertise: IpAddr,
    /// WAN address told to others.
    pub advertise_wan: IpAddr,
    /// Socket of server RPC.
    pub rpc_bind: SocketAddr,
    /// Socket of LAN gossip.
    pub serf_lan_bind: SocketAddr,
    /// Socket of WAN gossip; `None` when off.
    pub serf_wan_bind: Option<SocketAddr>,
    /// Extra addresses of the node: `lan`, `wan`, `lan_ipv4`, `wan_ipv4`, ... and the operator's own.
    pub tagged: StringMap,
    /// `client_addr` as resolved.
    pub client: Vec<ListenAddr>,
}

/// An address of a client surface.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenAddr {
    /// IP address and port.
    Tcp(SocketAddr),
    /// Path of a unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ListenAddr::Tcp(addr) => write!(f, "{addr}"),
            ListenAddr::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// Where the client surfaces listen; empty lists are surfaces that are off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listen {
    /// HTTP API in clear.
    pub http: Vec<ListenAddr>,
    /// HTTP API over TLS.
    pub https: Vec<ListenAddr>,
    /// DNS, UDP and TCP.
    pub dns: Vec<SocketAddr>,
}

/// Owner and mode given to unix sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnixSockets {
    /// User name or number.
    pub user: Option<String>,
    /// Group name or number.
    pub group: Option<String>,
    /// Permission bits.
    pub mode: Option<u32>,
}

/// Ports; `None` is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// DNS.
    pub dns: Option<u16>,
    /// HTTP.
    pub http: Option<u16>,
    /// HTTPS.
    pub https: Option<u16>,
    /// gRPC of the mesh: accepted, nothing listens.
    pub grpc: Option<u16>,
    /// LAN gossip.
    pub serf_lan: u16,
    /// WAN gossip.
    pub serf_wan: Option<u16>,
    /// Server RPC.
    pub server: u16,
}

/// DNS surface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsConfig {
    /// Domain answered, with the final dot, as written.
    pub domain: String,
    /// Second domain answered, with the final dot; empty when none.
    pub alt_domain: String,
    /// Servers asked for names outside the domain, in order.
    pub recursors: Vec<SocketAddr>,
    /// Patience with one recursor.
    pub recursor_timeout: Duration,
    /// Order in which recursors are asked.
    pub recursor_strategy: RecursorStrategy,
    /// Any server may answer.
    pub allow_stale: bool,
    /// Oldest stale answer.
    pub max_stale: Duration,
    /// Addresses in an A, AAAA or ANY answer at most; 0 is no limit.
    pub a_record_limit: usize,
    /// Answers in a plain UDP reply at most.
    pub udp_answer_limit: usize,
    /// Names are not compressed.
    pub disable_compression: bool,
    /// TC is set when answers were cut.
    pub enable_truncate: bool,
    /// Instances with warnings are dropped too.
    pub only_passing: bool,
    /// TTL of node answers.
    pub node_ttl: Duration,
    /// TTL of service answers by exact name.
    pub service_ttl: BTreeMap<String, Duration>,
    /// TTL of service answers by prefix (the pattern without its `*`), longest first.
    pub service_ttl_prefixes: Vec<(String, Duration)>,
    /// Node metadata goes along as TXT records.
    pub node_meta_txt: bool,
    /// Values of the SOA record.
    pub soa: Soa,
    /// Answers may come from the agent's cache.
    pub use_cache: bool,
    /// Oldest cached answer; 0 uses the cache's own rule.
    pub cache_max_age: Duration,
}

impl DnsConfig {
    /// TTL of answers for `service`: its exact entry, else the longest matching prefix, else zero.
    pub fn service_ttl_of(&self, service: &str) -> Duration {
        let by_prefix = || {
            self.service_ttl_prefixes.iter().find(|(p, _)| service.starts_with(p.as_str())).map(|(_, t)| *t)
        };
        self.service_ttl.get(service).copied().or_else(by_prefix).unwrap_or_default()
    }
}

/// Order in which recursors are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecursorStrategy {
    /// As configured.
    #[default]
    Sequential,
    /// Shuffled for every question.
    Random,
}

/// Values of the SOA record, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Soa {
    /// Refresh.
    pub refresh: u32,
    /// Retry.
    pub retry: u32,
    /// Expire.
    pub expire: u32,
    /// Minimum TTL, also the TTL of the record itself.
    pub min_ttl: u32,
}

/// HTTP surface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpConfig {
    /// Path prefixes that answer 403.
    pub block_endpoints: Vec<String>,
    /// Networks that may write; empty lets everybody.
    pub allow_write_http_from: Vec<Cidr>,
    /// Headers added to every answer.
    pub response_headers: StringMap,
    /// `?cached` is honoured.
    pub use_cache: bool,
    /// Paths with unprintable characters are let through.
    pub disable_unprintable_char_filter: bool,
}

/// An IP network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// First address of the network.
    pub network: IpAddr,
    /// Length of the prefix, bits.
    pub prefix: u8,
}

impl Cidr {
    /// Parses `a.b.c.d/n` or `x:y::/n`. The error says what was expected.
    pub fn parse(text: &str) -> Result<Cidr, String> {
        let bad = || format!("invalid CIDR address: {text}");
        let (addr, prefix) = text.split_once('/').ok_or_else(bad)?;
        let addr: IpAddr = addr.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        if prefix > if addr.is_ipv4() { 32 } else { 128 } {
            return Err(bad());
        }
        let bits = masked(addr, prefix);
        let network = match addr {
            IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::from((bits >> 96) as u32)),
            IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::from(bits)),
        };
        Ok(Cidr { network, prefix })
    }

    /// Whether `addr` lies in the network; IPv4-mapped IPv6 addresses count as IPv4.
    pub fn contains(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
        addr.is_ipv4() == self.network.is_ipv4()
            && masked(addr, self.prefix) == masked(self.network, self.prefix)
    }
}

/// The address as the top bits of 128, all after the prefix cleared.
fn masked(addr: IpAddr, prefix: u8) -> u128 {
    let bits = match addr {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => u128::from(v6),
    };
    if prefix == 0 { 0 } else { bits & (u128::MAX << (128 - u32::from(prefix))) }
}

/// Limits of rate, connections and sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// HTTP connections of one client address; `None` is no limit.
    pub http_max_conns_per_client: Option<usize>,
    /// Patience with a TLS handshake of the HTTPS listener.
    pub https_handshake_timeout: Duration,
    /// Patience with an RPC handshake.
    pub rpc_handshake_timeout: Duration,
    /// RPC connections of one address; `None` is no limit.
    pub rpc_max_conns_per_client: Option<usize>,
    /// Requests a second to the servers; `None` is no limit.
    pub rpc_rate: Option<f64>,
    /// Burst of that rate.
    pub rpc_max_burst: usize,
    /// Bytes of a KV value.
    pub kv_max_value_size: usize,
    /// Bytes of a transaction's body.
    pub txn_max_req_len: usize,
}

/// What the agent allows and bounds in checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckConfig {
    /// Script checks from files run.
    pub enable_local_script_checks: bool,
    /// Script checks from the API run (and those from files).
    pub enable_remote_script_checks: bool,
    /// Changes of output alone are sent at most this often; zero sends at once.
    pub update_interval: Duration,
    /// Bytes of output kept.
    pub output_max_size: usize,
    /// Output is not sent to the servers.
    pub discard_output: bool,
    /// Checks use the agent's TLS files.
    pub use_agent_tls: bool,
    /// Least `DeregisterCriticalServiceAfter`.
    pub deregister_interval_min: Duration,
    /// How often services past that time are looked for.
    pub reap_interval: Duration,
}

/// A log level, in Consul's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// For those who hunt a bug.
    Debug,
    /// What happened and why.
    #[default]
    Info,
    /// What the operator should look at.
    Warn,
    /// What failed.
    Error,
}

impl LogLevel {
    /// Parses `TRACE`, `DEBUG`, `INFO`, `WARN`, `ERR` (or `ERROR`), in any case.
    pub fn parse(word: &str) -> Option<LogLevel> {
        match word.to_ascii_uppercase().as_str() {
            "TRACE" => Some(LogLevel::Trace),
            "DEBUG" => Some(LogLevel::Debug),
            "INFO" => Some(LogLevel::Info),
            "WARN" => Some(LogLevel::Warn),
            "ERR" | "ERROR" => Some(LogLevel::Error),
            _ => None,
        }
    }
}

/// Logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Least level written.
    pub level: LogLevel,
    /// JSON lines rather than text.
    pub json: bool,
    /// File (or folder, ending in `/`) written besides stderr.
    pub file: Option<PathBuf>,
    /// Age at which the file is rotated.
    pub rotate_duration: Duration,
    /// Size at which the file is rotated; 0 never.
    pub rotate_bytes: u64,
    /// Rotated files kept: 0 all, -1 none.
    pub rotate_max_files: i64,
    /// Lines go to syslog too.
    pub enable_syslog: bool,
    /// Syslog facility, upper case (`LOCAL0`).
    pub syslog_facility: String,
}

/// Metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// First part of every name.
    pub metrics_prefix: String,
    /// Gauges carry no host name.
    pub disable_hostname: bool,
    /// Names without a matching filter are kept.
    pub filter_default: bool,
    /// Prefixes allowed.
    pub allowed_prefixes: Vec<String>,
    /// Prefixes blocked.
    pub blocked_prefixes: Vec<String>,
    /// Above zero turns the Prometheus output on.
    pub prometheus_retention_time: Duration,
    /// statsd sink, `host:port`.
    pub statsd_address: Option<String>,
    /// statsite sink, `host:port`.
    pub statsite_address: Option<String>,
    /// DogStatsD sink, `host:port`.
    pub dogstatsd_addr: Option<String>,
    /// Tags sent to DogStatsD.
    pub dogstatsd_tags: Vec<String>,
}

/// TLS files and what they are used for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// Certificate authority file.
    pub ca_file: Option<PathBuf>,
    /// Folder of certificate authorities.
    pub ca_path: Option<PathBuf>,
    /// Certificate of this agent.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// Name expected of peers.
    pub server_name: Option<String>,
    /// HTTPS clients must show a certificate.
    pub verify_incoming_https: bool,
    /// RPC peers must show a certificate.
    pub verify_incoming_rpc: bool,
    /// RPC goes over TLS and certificates are verified.
    pub verify_outgoing: bool,
    /// Servers must be named `server.<dc>.<domain>`.
    pub verify_server_hostname: bool,
    /// Least version: `tls12` or `tls13`.
    pub min_version: String,
    /// Suites by name; empty uses the library's.
    pub cipher_suites: Vec<String>,
}

/// Raft and leader timing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Performance {
    /// Drain before leaving.
    pub leave_drain_time: Duration,
    /// Scales Raft's timeouts, 1 to 10.
    pub raft_multiplier: u32,
    /// Requests are retried this long while there is no leader.
    pub rpc_hold_timeout: Duration,
}

/// The replicated log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaftConfig {
    /// Consul's protocol version, 2 or 3: shown to clients, and the form of `peers.json` it expects.
    pub protocol: u8,
    /// A snapshot is taken when this many entries were applied since the last.
    pub snapshot_threshold: u64,
    /// How often that is looked at when nothing is written.
    pub snapshot_interval: Duration,
    /// Entries kept behind a snapshot for followers that lag.
    pub trailing_logs: u64,
}

/// Autopilot's configuration, until an operator changes the replicated one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutopilotConfig {
    /// Dead servers are removed from the cluster.
    pub cleanup_dead_servers: bool,
    /// A server that was silent for longer is unhealthy.
    pub last_contact_threshold: Duration,
    /// A server that is further behind the leader, entries, is unhealthy.
    pub max_trailing_logs: u64,
    /// Dead servers stay while removing them would leave fewer servers.
    pub min_quorum: u64,
    /// A new server must be healthy for this long before it votes.
    pub server_stabilization_time: Duration,
    /// Stored and shown.
    pub redundancy_zone_tag: String,
    /// Stored and shown.
    pub disable_upgrade_migration: bool,
    /// Stored and shown.
    pub upgrade_version_tag: String,
}

/// Web UI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UiConfig {
    /// Served at all.
    pub enabled: bool,
    /// Folder of static files served instead of the built-in page.
    pub dir: Option<PathBuf>,
    /// Path prefix, with both slashes.
    pub content_path: String,
}

/// Driver of the executors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RuntimeChoice {
    /// io_uring where allowed, else epoll.
    #[default]
    Auto,
    /// io_uring through glommio.
    Glommio,
    /// The small epoll executor.
    Epoll,
}

/// Number of a syslog facility; `None` for an unknown name.
pub fn syslog_facility_number(name: &str) -> Option<u8> {
    const NAMES: [&str; 24] = [
        "KERN", "USER", "MAIL", "DAEMON", "AUTH", "SYSLOG", "LPR", "NEWS", "UUCP", "CRON", "AUTHPRIV", "FTP",
        "", "", "", "", "LOCAL0", "LOCAL1", "LOCAL2", "LOCAL3", "LOCAL4", "LOCAL5", "LOCAL6", "LOCAL7",
    ];
    NAMES.iter().position(|known| !name.is_empty() && *known == name).map(|n| n as u8)
}
