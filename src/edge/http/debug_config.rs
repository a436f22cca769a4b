//! `DebugConfig` of `/v1/agent/self`: the configuration under Consul's names. Programs read addresses and settings from it, so a
//! key is there, with Consul's form of its value, wherever the setting has an effect.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::{Config, ListenAddr, LogLevel, duration};
use crate::server::leader::COMPATIBLE_VERSION;

fn time(length: Duration) -> String {
    duration::format(i64::try_from(length.as_nanos()).unwrap_or(i64::MAX))
}

fn port(port: Option<u16>) -> i64 {
    port.map_or(-1, i64::from)
}

fn path(path: &Option<PathBuf>) -> String {
    path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
}

/// An address of clients, without the port, which belongs to no one listener.
fn plain(address: &ListenAddr) -> String {
    match address {
        ListenAddr::Tcp(address) => address.ip().to_string(),
        ListenAddr::Unix(_) => address.to_string(),
    }
}

/// The configuration under Consul's names; secrets are hidden.
pub fn debug_config(config: &Config, id: &str) -> Value {
    let listens = |all: &[ListenAddr]| {
        let named = all.iter().map(|at| match at {
            ListenAddr::Tcp(at) => format!("tcp://{at}"),
            ListenAddr::Unix(_) => at.to_string(),
        });
        named.collect::<Vec<_>>()
    };
    let dns: Vec<_> =
        config.listen.dns.iter().flat_map(|at| [format!("tcp://{at}"), format!("udp://{at}")]).collect();
    let mut first = json!({
        "AdvertiseAddrLAN": config.addresses.advertise.to_string(),
        "AdvertiseAddrWAN": config.addresses.advertise_wan.to_string(),
        "BindAddr": config.addresses.bind.to_string(),
        "Bootstrap": config.bootstrap,
        "BootstrapExpect": config.bootstrap_expect,
        "CheckDeregisterIntervalMin": time(config.check.deregister_interval_min),
        "CheckOutputMaxSize": config.check.output_max_size,
        "CheckReapInterval": time(config.check.reap_interval),
        "CheckUpdateInterval": time(config.check.update_interval),
        "ClientAddrs": config.addresses.client.iter().map(plain).collect::<Vec<_>>(),
        "DNSAddrs": dns,
        "DNSAllowStale": config.dns.allow_stale,
        "DNSAltDomain": config.dns.alt_domain,
        "DNSDomain": config.dns.domain,
        "DNSEnableTruncate": config.dns.enable_truncate,
        "DNSMaxStale": time(config.dns.max_stale),
        "DNSNodeTTL": time(config.dns.node_ttl),
        "DNSOnlyPassing": config.dns.only_passing,
        "DNSPort": port(config.ports.dns),
        "DNSRecursors": config.dns.recursors.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "DNSUDPAnswerLimit": config.dns.udp_answer_limit,
        "DataDir": path(&config.data_dir),
        "Datacenter": config.datacenter,
        "DefaultQueryTime": time(config.default_query_time),
        "DevMode": config.dev_mode,
        "DisableCoordinates": config.disable_coordinates,
        "DisableRemoteExec": config.disable_remote_exec,
        "DisableUpdateCheck": config.disable_update_check,
        "DiscardCheckOutput": config.check.discard_output,
        "DiscoveryMaxStale": time(config.discovery_max_stale),
    });
    let second = json!({
        "EnableDebug": config.enable_debug,
        "EnableLocalScriptChecks": config.check.enable_local_script_checks,
        "EnableRemoteScriptChecks": config.check.enable_remote_script_checks,
        "EnableUI": config.ui.enabled,
        "EncryptKey": "hidden",
        "GRPCPort": port(config.ports.grpc),
        "HTTPAddrs": listens(&config.listen.http),
        "HTTPBlockEndpoints": config.http.block_endpoints,
        "HTTPMaxConnsPerClient": config.limits.http_max_conns_per_client.unwrap_or_default(),
        "HTTPPort": port(config.ports.http),
        "HTTPResponseHeaders": config.http.response_headers,
        "HTTPSAddrs": listens(&config.listen.https),
        "HTTPSPort": port(config.ports.https),
        "HTTPUseCache": config.http.use_cache,
        "KVMaxValueSize": config.limits.kv_max_value_size,
        "KeyFile": "hidden",
        "LeaveDrainTime": time(config.performance.leave_drain_time),
        "LeaveOnTerm": config.leave_on_terminate,
    });
    let third = json!({
        "MaxQueryTime": time(config.max_query_time),
        "NodeID": id,
        "NodeMeta": config.node_meta,
        "NodeName": config.node_name,
        "PrimaryDatacenter": config.primary_datacenter,
        "RPCBindAddr": format!("tcp://{}", config.addresses.rpc_bind),
        "RPCHoldTimeout": time(config.performance.rpc_hold_timeout),
        "RetryJoinLAN": config.gossip.retry_join,
        "RetryJoinWAN": config.gossip.retry_join_wan,
        "SegmentName": config.segment,
        "SerfBindAddrLAN": format!("tcp://{}", config.addresses.serf_lan_bind),
        "SerfPortLAN": config.ports.serf_lan,
        "SerfPortWAN": port(config.ports.serf_wan),
        "ServerMode": config.server,
        "ServerPort": config.ports.server,
        "SessionTTLMin": time(config.session_ttl_min),
        "SkipLeaveOnInt": config.skip_leave_on_interrupt,
        "StartJoinAddrsLAN": config.gossip.start_join,
        "TaggedAddresses": config.addresses.tagged,
        "TranslateWANAddrs": config.translate_wan_addrs,
        "TxnMaxReqLen": config.limits.txn_max_req_len,
        "UIContentPath": config.ui.content_path,
        "UIDir": path(&config.ui.dir),
        "VerifyIncomingHTTPS": config.tls.verify_incoming_https,
        "VerifyOutgoing": config.tls.verify_outgoing,
        "Version": COMPATIBLE_VERSION,
    });
    for more in [second, third, addresses(config), rooms(config), cluster(config)] {
        if let (Value::Object(first), Value::Object(more)) = (&mut first, more) {
            first.extend(more);
        }
    }
    first
}

/// Where others find this agent.
fn addresses(config: &Config) -> Value {
    let tcp = |address: SocketAddr| format!("tcp://{address}");
    let at = &config.addresses;
    let wan = config.ports.serf_wan.map(|port| tcp((at.advertise_wan, port).into()));
    let networks: Vec<_> =
        config.gossip.allowed_networks.iter().map(|net| format!("{}/{}", net.network, net.prefix)).collect();
    json!({
        "RPCAdvertiseAddr": tcp((at.advertise, config.ports.server).into()),
        "SerfAdvertiseAddrLAN": tcp((at.advertise, config.ports.serf_lan).into()),
        "SerfAdvertiseAddrWAN": wan.unwrap_or_default(),
        "SerfAllowedCIDRsLAN": networks,
        "SerfBindAddrWAN": at.serf_wan_bind.map(tcp).unwrap_or_default(),
        "StartJoinAddrsWAN": config.gossip.start_join_wan,
        "UnixSocketGroup": config.unix_sockets.group.clone().unwrap_or_default(),
        "UnixSocketMode": config.unix_sockets.mode.map(|mode| format!("{mode:04o}")).unwrap_or_default(),
        "UnixSocketUser": config.unix_sockets.user.clone().unwrap_or_default(),
    })
}

/// DNS, logs, telemetry, certificates and limits.
fn rooms(config: &Config) -> Value {
    let (dns, log, tls, telemetry) = (&config.dns, &config.log, &config.tls, &config.telemetry);
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let ttls: serde_json::Map<String, Value> =
        dns.service_ttl.iter().map(|(name, ttl)| (name.clone(), time(*ttl).into())).collect();
    json!({
        "CAFile": path(&tls.ca_file),
        "CAPath": path(&tls.ca_path),
        "CertFile": path(&tls.cert_file),
        "DNSARecordLimit": dns.a_record_limit,
        "DNSDisableCompression": dns.disable_compression,
        "DNSNodeMetaTXT": dns.node_meta_txt,
        "DNSRecursorTimeout": time(dns.recursor_timeout),
        "DNSSOA": {
            "Expire": dns.soa.expire, "Minttl": dns.soa.min_ttl, "Refresh": dns.soa.refresh, "Retry": dns.soa.retry,
        },
        "DNSServiceTTL": ttls,
        "EnableAgentTLSForChecks": config.check.use_agent_tls,
        "HTTPSHandshakeTimeout": time(config.limits.https_handshake_timeout),
        "Logging": {
            "EnableSyslog": log.enable_syslog,
            "LogFilePath": path(&log.file),
            "LogJSON": log.json,
            "LogLevel": level(log.level),
            "LogRotateBytes": log.rotate_bytes,
            "LogRotateDuration": time(log.rotate_duration),
            "LogRotateMaxFiles": log.rotate_max_files,
            "SyslogFacility": log.syslog_facility,
        },
        "PidFile": path(&config.pid_file),
        "RPCHandshakeTimeout": time(config.limits.rpc_handshake_timeout),
        "RPCMaxBurst": config.limits.rpc_max_burst,
        "RPCMaxConnsPerClient": config.limits.rpc_max_conns_per_client.unwrap_or_default(),
        "ServerName": text(&tls.server_name),
        "TLSCipherSuites": tls.cipher_suites,
        "TLSMinVersion": tls.min_version,
        "Telemetry": {
            "AllowedPrefixes": telemetry.allowed_prefixes,
            "BlockedPrefixes": telemetry.blocked_prefixes,
            "DisableHostname": telemetry.disable_hostname,
            "DogstatsdAddr": text(&telemetry.dogstatsd_addr),
            "DogstatsdTags": telemetry.dogstatsd_tags,
            "FilterDefault": telemetry.filter_default,
            "MetricsPrefix": telemetry.metrics_prefix,
            "PrometheusRetentionTime": time(telemetry.prometheus_retention_time),
            "StatsdAddr": text(&telemetry.statsd_address),
            "StatsiteAddr": text(&telemetry.statsite_address),
        },
        "VerifyIncomingRPC": tls.verify_incoming_rpc,
        "VerifyServerHostname": tls.verify_server_hostname,
    })
}

/// Gossip, consensus and the leader's duties.
fn cluster(config: &Config) -> Value {
    let (gossip, autopilot, raft) = (&config.gossip, &config.autopilot, &config.raft);
    json!({
        "AutopilotCleanupDeadServers": autopilot.cleanup_dead_servers,
        "AutopilotLastContactThreshold": time(autopilot.last_contact_threshold),
        "AutopilotMaxTrailingLogs": autopilot.max_trailing_logs,
        "AutopilotMinQuorum": autopilot.min_quorum,
        "AutopilotServerStabilizationTime": time(autopilot.server_stabilization_time),
        "DisableKeyringFile": gossip.disable_keyring_file,
        "EncryptVerifyIncoming": gossip.encrypt_verify_incoming,
        "EncryptVerifyOutgoing": gossip.encrypt_verify_outgoing,
        "GossipLANGossipInterval": time(gossip.pace.gossip_interval),
        "GossipLANGossipNodes": gossip.pace.gossip_nodes,
        "GossipLANProbeInterval": time(gossip.pace.probe_interval),
        "GossipLANProbeTimeout": time(gossip.pace.probe_timeout),
        "GossipLANRetransmitMult": gossip.pace.retransmit_mult,
        "GossipLANSuspicionMult": gossip.pace.suspicion_mult,
        "NonVotingServer": config.non_voting_server,
        "RaftProtocol": raft.protocol,
        "RaftSnapshotInterval": time(raft.snapshot_interval),
        "RaftSnapshotThreshold": raft.snapshot_threshold,
        "RaftTrailingLogs": raft.trailing_logs,
        "ReconnectTimeoutLAN": time(gossip.reconnect_timeout),
        "ReconnectTimeoutWAN": time(gossip.reconnect_timeout_wan),
        "RejoinAfterLeave": gossip.rejoin_after_leave,
        "RetryJoinIntervalLAN": time(gossip.retry_interval),
        "RetryJoinIntervalWAN": time(gossip.retry_interval_wan),
        "RetryJoinMaxAttemptsLAN": gossip.retry_max,
        "RetryJoinMaxAttemptsWAN": gossip.retry_max_wan,
    })
}

fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Trace => "TRACE",
        LogLevel::Debug => "DEBUG",
        LogLevel::Info => "INFO",
        LogLevel::Warn => "WARN",
        LogLevel::Error => "ERR",
    }
}
