//! The table of configuration keys: name, type, whether its feature exists here, and its flag.
//!
//! This is the one place to touch for a new key: the readers of files and flags, `unsupported_keys` and the tests
//! follow from it. What a supported key means is said in [`super::build`].

/// Type of a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// Whole number.
    Int,
    /// Number.
    Float,
    /// Text.
    Text,
    /// Text that holds a length of time.
    Duration,
    /// List of texts; files append to one another.
    Texts,
    /// Texts by name; files are merged.
    TextMap,
    /// Lengths of time by name; files are merged.
    DurationMap,
    /// Any object, handed on as it is; files are merged.
    Object,
    /// List of such objects; files append to one another.
    Objects,
    /// List of service definitions.
    Services,
    /// List of check definitions.
    Checks,
}

impl Kind {
    /// The type's name in error texts: Go's, as Consul's reader shows it.
    pub fn go_name(self) -> &'static str {
        match self {
            Kind::Bool => "bool",
            Kind::Int => "int",
            Kind::Float => "float64",
            Kind::Text | Kind::Duration => "string",
            Kind::Texts => "[]string",
            Kind::TextMap | Kind::DurationMap => "map[string]string",
            Kind::Object => "map",
            Kind::Objects | Kind::Services | Kind::Checks => "[]map",
        }
    }
}

/// Whether a key does something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It does what Consul documents.
    Here,
    /// It does for HTTPS; between agents there is no TLS yet, and the start says so.
    ForHttps,
    /// Accepted; its feature does not exist yet, and the start says so.
    Later,
    /// Accepted and without effect in Consul itself: its value is fixed.
    Fixed,
}

/// One configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Path with dots.
    pub path: &'static str,
    /// Type of its value.
    pub kind: Kind,
    /// Whether it does something here.
    pub support: Support,
    /// Flag of `agent` that sets it, without dashes.
    pub flag: Option<&'static str>,
}

impl Key {
    /// Names its flag.
    const fn flag(mut self, flag: &'static str) -> Key {
        self.flag = Some(flag);
        self
    }
}

/// A key that works.
const fn here(path: &'static str, kind: Kind) -> Key {
    Key { path, kind, support: Support::Here, flag: None }
}

/// A key that works for HTTPS alone.
const fn for_https(path: &'static str, kind: Kind) -> Key {
    Key { path, kind, support: Support::ForHttps, flag: None }
}

/// A key whose feature is still to come.
const fn later(path: &'static str, kind: Kind) -> Key {
    Key { path, kind, support: Support::Later, flag: None }
}

/// A key that Consul accepts and ignores.
const fn fixed(path: &'static str, kind: Kind) -> Key {
    Key { path, kind, support: Support::Fixed, flag: None }
}

/// Finds a key by its path, lower case.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether keys exist below `path`.
pub fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

use Kind::{
    Bool, Checks, Duration, DurationMap, Float, Int, Object, Objects, Services, Text, TextMap, Texts,
};

/// Every key, by section.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    // Identity and role.
    here("datacenter", Text).flag("datacenter"),
    later("primary_datacenter", Text),
    here("node_name", Text).flag("node"),
    here("node_id", Text).flag("node-id"),
    here("node_meta", TextMap).flag("node-meta"),
    here("data_dir", Text).flag("data-dir"),
    here("pid_file", Text).flag("pid-file"),
    here("server", Bool).flag("server"),
    here("bootstrap", Bool).flag("bootstrap"),
    here("bootstrap_expect", Int).flag("bootstrap-expect"),
    here("disable_host_node_id", Bool).flag("disable-host-node-id"),
    here("leave_on_terminate", Bool),
    here("skip_leave_on_interrupt", Bool),

    // Addresses and ports.
    here("bind_addr", Text).flag("bind"),
    here("advertise_addr", Text).flag("advertise"),
    here("advertise_addr_ipv4", Text),
    here("advertise_addr_ipv6", Text),
    here("advertise_addr_wan", Text).flag("advertise-wan"),
    here("advertise_addr_wan_ipv4", Text),
    here("advertise_addr_wan_ipv6", Text),
    here("client_addr", Text).flag("client"),
    here("tagged_addresses", TextMap),
    here("translate_wan_addrs", Bool),
    here("addresses.dns", Text),
    here("addresses.http", Text),
    here("addresses.https", Text),
    later("addresses.grpc", Text),
    here("ports.dns", Int).flag("dns-port"),
    here("ports.http", Int).flag("http-port"),
    here("ports.https", Int).flag("https-port"),
    later("ports.grpc", Int).flag("grpc-port"),
    later("ports.grpc_tls", Int),
    here("ports.serf_lan", Int).flag("serf-lan-port"),
    here("ports.serf_wan", Int).flag("serf-wan-port"),
    here("ports.server", Int).flag("server-port"),
    later("ports.proxy_min_port", Int),
    later("ports.proxy_max_port", Int),
    later("ports.sidecar_min_port", Int),
    later("ports.sidecar_max_port", Int),
    later("ports.expose_min_port", Int),
    later("ports.expose_max_port", Int),
    here("unix_sockets.user", Text),
    here("unix_sockets.group", Text),
    here("unix_sockets.mode", Text),

    // HTTP and queries.
    here("http_config.block_endpoints", Texts),
    here("http_config.allow_write_http_from", Texts).flag("allow-write-http-from"),
    here("http_config.response_headers", TextMap),
    here("http_config.use_cache", Bool),
    later("http_config.max_header_bytes", Int),
    here("disable_http_unprintable_char_filter", Bool),
    here("default_query_time", Duration).flag("default-query-time"),
    here("max_query_time", Duration).flag("max-query-time"),
    here("discovery_max_stale", Duration),
    later("enable_debug", Bool),
    later("ui", Bool).flag("ui"),
    later("ui_dir", Text).flag("ui-dir"),
    later("ui_content_path", Text).flag("ui-content-path"),
    later("ui_config.enabled", Bool),
    later("ui_config.dir", Text),
    later("ui_config.content_path", Text),
    later("ui_config.metrics_provider", Text),
    later("ui_config.metrics_provider_files", Texts),
    later("ui_config.metrics_provider_options_json", Text),
    later("ui_config.metrics_proxy", Object),
    later("ui_config.dashboard_url_templates", TextMap),

    // DNS.
    here("domain", Text).flag("domain"),
    here("alt_domain", Text).flag("alt-domain"),
    here("recursors", Texts).flag("recursor"),
    here("dns_config.allow_stale", Bool),
    here("dns_config.a_record_limit", Int),
    here("dns_config.disable_compression", Bool),
    here("dns_config.enable_truncate", Bool),
    here("dns_config.max_stale", Duration),
    here("dns_config.node_ttl", Duration),
    here("dns_config.only_passing", Bool),
    here("dns_config.recursor_timeout", Duration),
    here("dns_config.recursor_strategy", Text),
    here("dns_config.service_ttl", DurationMap),
    here("dns_config.udp_answer_limit", Int),
    here("dns_config.enable_additional_node_meta_txt", Bool),
    here("dns_config.soa.refresh", Int),
    here("dns_config.soa.retry", Int),
    here("dns_config.soa.expire", Int),
    here("dns_config.soa.min_ttl", Int),
    here("dns_config.use_cache", Bool),
    here("dns_config.cache_max_age", Duration),
    later("dns_config.prefer_namespace", Bool),

    // Services, checks, watches.
    here("service", Services),
    here("services", Services),
    here("check", Checks),
    here("checks", Checks),
    here("watches", Objects),
    here("enable_script_checks", Bool).flag("enable-script-checks"),
    here("enable_local_script_checks", Bool).flag("enable-local-script-checks"),
    later("enable_agent_tls_for_checks", Bool),
    here("check_update_interval", Duration),
    here("check_output_max_size", Int).flag("check_output_max_size"),
    here("discard_check_output", Bool),

    // Limits and timing.
    here("limits.http_max_conns_per_client", Int),
    here("limits.https_handshake_timeout", Duration),
    here("limits.rpc_handshake_timeout", Duration),
    later("limits.rpc_client_timeout", Duration),
    here("limits.rpc_max_burst", Int),
    here("limits.rpc_max_conns_per_client", Int),
    here("limits.rpc_rate", Float),
    later("limits.request_limits.mode", Text),
    later("limits.request_limits.read_rate", Float),
    later("limits.request_limits.write_rate", Float),
    here("limits.kv_max_value_size", Int),
    here("limits.txn_max_req_len", Int),
    here("performance.leave_drain_time", Duration),
    here("performance.raft_multiplier", Int),
    here("performance.rpc_hold_timeout", Duration),
    later("performance.grpc_keepalive_interval", Duration),
    later("performance.grpc_keepalive_timeout", Duration),
    here("session_ttl_min", Duration),

    // Logs and metrics.
    here("log_level", Text).flag("log-level"),
    here("log_json", Bool).flag("log-json"),
    here("log_file", Text).flag("log-file"),
    here("log_rotate_duration", Duration).flag("log-rotate-duration"),
    here("log_rotate_bytes", Int).flag("log-rotate-bytes"),
    here("log_rotate_max_files", Int).flag("log-rotate-max-files"),
    here("enable_syslog", Bool).flag("syslog"),
    here("syslog_facility", Text),
    here("telemetry.disable_hostname", Bool),
    here("telemetry.filter_default", Bool),
    here("telemetry.prefix_filter", Texts),
    here("telemetry.metrics_prefix", Text),
    here("telemetry.prometheus_retention_time", Duration),
    later("telemetry.statsd_address", Text),
    later("telemetry.statsite_address", Text),
    later("telemetry.dogstatsd_addr", Text),
    later("telemetry.dogstatsd_tags", Texts),
    later("telemetry.circonus_api_app", Text),
    later("telemetry.circonus_api_token", Text),
    later("telemetry.circonus_api_url", Text),
    later("telemetry.circonus_broker_id", Text),
    later("telemetry.circonus_broker_select_tag", Text),
    later("telemetry.circonus_check_display_name", Text),
    later("telemetry.circonus_check_force_metric_activation", Text),
    later("telemetry.circonus_check_id", Text),
    later("telemetry.circonus_check_instance_id", Text),
    later("telemetry.circonus_check_search_tag", Text),
    later("telemetry.circonus_check_tags", Text),
    later("telemetry.circonus_submission_interval", Text),
    later("telemetry.circonus_submission_url", Text),
    later("telemetry.enable_host_metrics", Bool),
    later("telemetry.retry_failed_connection", Bool),
    later("telemetry.disable_per_tenancy_usage_metrics", Bool),

    // Joining and gossip.
    here("start_join", Texts).flag("join"),
    later("start_join_wan", Texts).flag("join-wan"),
    here("retry_join", Texts).flag("retry-join"),
    later("retry_join_wan", Texts).flag("retry-join-wan"),
    here("retry_interval", Duration).flag("retry-interval"),
    later("retry_interval_wan", Duration).flag("retry-interval-wan"),
    here("retry_max", Int).flag("retry-max"),
    later("retry_max_wan", Int).flag("retry-max-wan"),
    here("rejoin_after_leave", Bool).flag("rejoin"),
    here("reconnect_timeout", Duration),
    later("reconnect_timeout_wan", Duration),
    here("encrypt", Text).flag("encrypt"),
    here("encrypt_verify_incoming", Bool),
    here("encrypt_verify_outgoing", Bool),
    here("disable_keyring_file", Bool).flag("disable-keyring-file"),
    here("disable_coordinates", Bool),
    here("serf_lan", Text).flag("serf-lan-bind"),
    later("serf_wan", Text).flag("serf-wan-bind"),
    here("serf_lan_allowed_cidrs", Texts).flag("serf-lan-allowed-cidrs"),
    later("serf_wan_allowed_cidrs", Texts).flag("serf-wan-allowed-cidrs"),
    here("gossip_lan.gossip_nodes", Int),
    here("gossip_lan.gossip_interval", Duration),
    here("gossip_lan.probe_interval", Duration),
    here("gossip_lan.probe_timeout", Duration),
    here("gossip_lan.suspicion_mult", Int),
    here("gossip_lan.retransmit_mult", Int),
    later("gossip_wan.gossip_nodes", Int),
    later("gossip_wan.gossip_interval", Duration),
    later("gossip_wan.probe_interval", Duration),
    later("gossip_wan.probe_timeout", Duration),
    later("gossip_wan.suspicion_mult", Int),
    later("gossip_wan.retransmit_mult", Int),

    // Servers: Raft, autopilot, RPC.
    later("protocol", Int).flag("protocol"),
    here("raft_protocol", Int).flag("raft-protocol"),
    here("raft_snapshot_threshold", Int),
    here("raft_snapshot_interval", Duration),
    here("raft_trailing_logs", Int),
    later("raft_logstore.backend", Text),
    later("raft_logstore.disable_log_cache", Bool),
    later("raft_logstore.boltdb", Object),
    later("raft_logstore.wal", Object),
    later("raft_logstore.verification", Object),
    later("raft_boltdb", Object),
    here("autopilot.cleanup_dead_servers", Bool),
    here("autopilot.last_contact_threshold", Duration),
    here("autopilot.max_trailing_logs", Int),
    here("autopilot.min_quorum", Int),
    here("autopilot.server_stabilization_time", Duration),
    here("autopilot.disable_upgrade_migration", Bool),
    here("autopilot.redundancy_zone_tag", Text),
    here("autopilot.upgrade_version_tag", Text),
    here("non_voting_server", Bool).flag("non-voting-server"),
    later("use_streaming_backend", Bool),
    later("rpc.enable_streaming", Bool),
    later("cache.entry_fetch_max_burst", Int),
    later("cache.entry_fetch_rate", Float),

    // TLS.
    here("ca_file", Text),
    later("ca_path", Text),
    here("cert_file", Text),
    here("key_file", Text),
    later("server_name", Text),
    here("tls_min_version", Text),
    later("tls_cipher_suites", Text),
    later("tls_prefer_server_cipher_suites", Bool),
    for_https("verify_incoming", Bool),
    here("verify_incoming_https", Bool),
    later("verify_incoming_rpc", Bool),
    later("verify_outgoing", Bool),
    later("verify_server_hostname", Bool),
    here("tls.defaults.ca_file", Text),
    later("tls.defaults.ca_path", Text),
    here("tls.defaults.cert_file", Text),
    here("tls.defaults.key_file", Text),
    here("tls.defaults.tls_min_version", Text),
    later("tls.defaults.tls_cipher_suites", Text),
    for_https("tls.defaults.verify_incoming", Bool),
    later("tls.defaults.verify_outgoing", Bool),
    later("tls.defaults.verify_server_hostname", Bool),
    here("tls.https.ca_file", Text),
    later("tls.https.ca_path", Text),
    here("tls.https.cert_file", Text),
    here("tls.https.key_file", Text),
    here("tls.https.tls_min_version", Text),
    later("tls.https.tls_cipher_suites", Text),
    here("tls.https.verify_incoming", Bool),
    later("tls.https.verify_outgoing", Bool),
    later("tls.internal_rpc.ca_file", Text),
    later("tls.internal_rpc.ca_path", Text),
    later("tls.internal_rpc.cert_file", Text),
    later("tls.internal_rpc.key_file", Text),
    later("tls.internal_rpc.tls_min_version", Text),
    later("tls.internal_rpc.tls_cipher_suites", Text),
    later("tls.internal_rpc.verify_incoming", Bool),
    later("tls.internal_rpc.verify_outgoing", Bool),
    later("tls.internal_rpc.verify_server_hostname", Bool),
    later("tls.grpc", Object),
    later("auto_encrypt.tls", Bool),
    later("auto_encrypt.allow_tls", Bool),
    later("auto_encrypt.dns_san", Texts),
    later("auto_encrypt.ip_san", Texts),
    later("auto_config.enabled", Bool),
    later("auto_config.intro_token", Text),
    later("auto_config.intro_token_file", Text),
    later("auto_config.server_addresses", Texts),
    later("auto_config.dns_sans", Texts),
    later("auto_config.ip_sans", Texts),
    later("auto_config.authorization.enabled", Bool),
    later("auto_config.authorization.static.allow_reuse", Bool),
    later("auto_config.authorization.static.claim_assertions", Texts),
    later("auto_config.authorization.static.jwt_supported_algs", Texts),
    later("auto_config.authorization.static.bound_audiences", Texts),
    later("auto_config.authorization.static.claim_mappings", TextMap),
    later("auto_config.authorization.static.list_claim_mappings", TextMap),
    later("auto_config.authorization.static.oidc_discovery_url", Text),
    later("auto_config.authorization.static.oidc_discovery_ca_cert", Text),
    later("auto_config.authorization.static.jwks_url", Text),
    later("auto_config.authorization.static.jwks_ca_cert", Text),
    later("auto_config.authorization.static.jwt_validation_pub_keys", Texts),
    later("auto_config.authorization.static.bound_issuer", Text),
    later("auto_config.authorization.static.expiration_leeway", Duration),
    later("auto_config.authorization.static.not_before_leeway", Duration),
    later("auto_config.authorization.static.clock_skew_leeway", Duration),

    // ACLs, new and old names.
    later("acl.enabled", Bool),
    later("acl.enable_token_replication", Bool),
    later("acl.policy_ttl", Duration),
    later("acl.role_ttl", Duration),
    later("acl.token_ttl", Duration),
    later("acl.down_policy", Text),
    later("acl.default_policy", Text),
    later("acl.enable_key_list_policy", Bool),
    later("acl.enable_token_persistence", Bool),
    later("acl.disabled_ttl", Duration),
    later("acl.msp_disable_bootstrap", Bool),
    later("acl.tokens.master", Text),
    later("acl.tokens.initial_management", Text),
    later("acl.tokens.replication", Text),
    later("acl.tokens.agent_master", Text),
    later("acl.tokens.agent_recovery", Text),
    later("acl.tokens.default", Text),
    later("acl.tokens.agent", Text),
    later("acl.tokens.dns", Text),
    later("acl.tokens.config_file_service_registration", Text),
    later("acl.tokens.managed_service_provider", Objects),
    later("acl_agent_master_token", Text),
    later("acl_agent_token", Text),
    later("acl_datacenter", Text),
    later("acl_default_policy", Text),
    later("acl_down_policy", Text),
    later("acl_enable_key_list_policy", Bool),
    later("acl_master_token", Text),
    later("acl_replication_token", Text),
    later("acl_ttl", Duration),
    later("acl_token", Text),
    later("enable_acl_replication", Bool),

    // The service mesh.
    later("connect.enabled", Bool),
    later("connect.ca_provider", Text),
    later("connect.ca_config", Object),
    later("connect.enable_mesh_gateway_wan_federation", Bool),
    later("connect.test_ca_leaf_root_change_spread", Duration),
    later("config_entries.bootstrap", Objects),
    later("enable_central_service_config", Bool),
    later("primary_gateways", Texts).flag("primary-gateway"),
    later("primary_gateways_interval", Duration),
    later("default_intention_policy", Text),
    later("peering", Object),
    later("xds.update_max_per_second", Float),

    // Odds and ends.
    here("disable_update_check", Bool),
    here("disable_anonymous_signature", Bool),
    here("disable_remote_exec", Bool),
    later("auto_reload_config", Bool),

    // The enterprise edition.
    later("audit.enabled", Bool),
    later("audit.sink", Object),
    later("segment", Text).flag("segment"),
    later("segments", Objects),
    later("partition", Text),
    later("license_path", Text),
    later("reporting", Object),
    later("cloud", Object),
    later("locality", Object),
    fixed("snapshot_agent", Object),

    // Fixed in Consul.
    fixed("acl_disabled_ttl", Duration),
    fixed("ae_interval", Duration),
    fixed("check_deregister_interval_min", Duration),
    fixed("check_reap_interval", Duration),
    fixed("consul.update_batch_size", Int),
    fixed("consul.update_max_batches", Int),
    fixed("consul.update_period", Duration),
    fixed("consul.election_timeout", Duration),
    fixed("consul.heartbeat_timeout", Duration),
    fixed("consul.leader_lease_timeout", Duration),
    fixed("consul.health_interval", Duration),
    fixed("revision", Text),
    fixed("segment_limit", Int),
    fixed("segment_name_limit", Int),
    fixed("sync_coordinate_interval_min", Duration),
    fixed("sync_coordinate_rate_target", Float),
    fixed("version", Text),
    fixed("version_prerelease", Text),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_flags_are_unique_and_no_key_is_a_section() {
        for (i, key) in KEYS.iter().enumerate() {
            assert!(!is_section(key.path), "{} is a section too", key.path);
            assert!(KEYS[..i].iter().all(|k| k.path != key.path), "{} twice", key.path);
            let same_flag = |k: &&Key| k.flag.is_some() && k.flag == key.flag;
            assert!(KEYS[..i].iter().find(same_flag).is_none(), "-{:?} twice", key.flag);
        }
    }
}
