//! The values of keys that nobody set, written as configuration.

/// Defaults of every agent.
pub const DEFAULTS: &str = r#"
    datacenter = "dc1"
    domain = "consul."
    bind_addr = "0.0.0.0"
    client_addr = "127.0.0.1"
    bootstrap = false
    bootstrap_expect = 0
    check_output_max_size = 4096
    check_update_interval = "5m"
    default_query_time = "300s"
    max_query_time = "600s"
    discovery_max_stale = "0s"
    disable_coordinates = false
    disable_host_node_id = true
    disable_remote_exec = true
    disable_update_check = false
    encrypt_verify_incoming = true
    encrypt_verify_outgoing = true
    log_level = "INFO"
    log_rotate_duration = "24h"
    protocol = 2
    primary_gateways_interval = "30s"
    reconnect_timeout = "72h"
    reconnect_timeout_wan = "72h"
    retry_interval = "30s"
    retry_interval_wan = "30s"
    server = false
    session_ttl_min = "10s"
    syslog_facility = "LOCAL0"
    tls_min_version = "tls12"
    ui_content_path = "/ui/"
    dns_config {
      allow_stale = true
      a_record_limit = 0
      udp_answer_limit = 3
      max_stale = "87600h"
      recursor_timeout = "2s"
      enable_additional_node_meta_txt = true
      node_ttl = "0s"
      cache_max_age = "0s"
      recursor_strategy = "sequential"
      soa { refresh = 3600 retry = 600 expire = 86400 min_ttl = 0 }
    }
    http_config { use_cache = true }
    limits {
      http_max_conns_per_client = 200
      https_handshake_timeout = "5s"
      rpc_handshake_timeout = "5s"
      rpc_max_burst = 1000
      rpc_max_conns_per_client = 100
      rpc_rate = -1
      kv_max_value_size = 524288
      txn_max_req_len = 524288
    }
    performance { leave_drain_time = "5s" raft_multiplier = 5 rpc_hold_timeout = "7s" }
    gossip_lan { gossip_nodes = 3 gossip_interval = "200ms" probe_interval = "1s" probe_timeout = "500ms" suspicion_mult = 4 retransmit_mult = 4 }
    ports { dns = 8600 http = 8500 https = -1 grpc = -1 serf_lan = 8301 serf_wan = 8302 server = 8300 }
    telemetry { metrics_prefix = "consul" filter_default = true prometheus_retention_time = "0s" }
"#;

/// What development mode sets before the operator's sources.
pub const DEV: &str = r#"
    bind_addr = "127.0.0.1"
    disable_anonymous_signature = true
    disable_keyring_file = true
    enable_debug = true
    ui = true
    log_level = "DEBUG"
    server = true
    connect { enabled = true }
    gossip_lan { gossip_interval = "100ms" probe_interval = "100ms" probe_timeout = "100ms" suspicion_mult = 3 }
    performance { raft_multiplier = 1 }
    ports { grpc = 8502 }
"#;
