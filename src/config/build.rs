//! Settings become a [`Config`]: defaults that depend on other keys, addresses, and every rule that Consul checks.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use muster_protocol::dns::name::Name;

use super::address::{Resolver, refuse_duplicates};
use super::keys::Support;
use super::model::*;
use super::settings::Settings;
use super::{ConfigError, cluster, definition};
use crate::runtime::interfaces::InterfaceAddr;
use crate::runtime::net;

/// What the host tells, so that building needs no system call.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Host name.
    pub name: String,
    /// Addresses of the interfaces.
    pub interfaces: Vec<InterfaceAddr>,
}

/// What the flags say that no key can.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choices {
    /// `-dev`.
    pub dev: bool,
    /// `-runtime`.
    pub runtime: RuntimeChoice,
    /// `-cores`.
    pub cores: Option<usize>,
}

/// What is said of an HTTPS port that nobody can use.
const NO_CERTIFICATE: &str = "the HTTPS port is on, but cert_file or key_file is not set: no client can connect to it. Set both, or \
     ports.https to -1";

/// Builds and validates the configuration.
pub fn build(
    s: &Settings,
    host: &Host,
    choices: Choices,
    mut warnings: Vec<String>,
) -> Result<Config, ConfigError> {
    for key in s.turned_on(Support::ForHttps) {
        warnings.push(format!("{key} holds for HTTPS alone: between agents there is no TLS yet"));
    }
    let resolver = Resolver { settings: s, interfaces: &host.interfaces };
    let server = s.flag("server").unwrap_or(false);
    let (bootstrap, bootstrap_expect) = cluster::bootstrap(s, server, choices.dev, &mut warnings)?;
    let datacenter =
        datacenter(s, "datacenter")?.ok_or_else(|| ConfigError("datacenter cannot be empty".to_owned()))?;
    let ports = ports(s)?;
    let listen = resolver.listen(&ports)?;
    let addresses = resolver.addresses(&ports)?;
    refuse_duplicates(&listen, &addresses, &ports)?;
    let tls = tls(s);
    if !listen.https.is_empty() && (tls.cert_file.is_none() || tls.key_file.is_none()) {
        warnings.push(NO_CERTIFICATE.to_owned());
    }
    let config = Config {
        dev_mode: choices.dev,
        server,
        bootstrap,
        bootstrap_expect,
        primary_datacenter: primary_datacenter(s, &datacenter, &mut warnings)?,
        datacenter,
        node_name: node_name(s, host, &mut warnings)?,
        node_id: node_id(s)?,
        host_node_id: !s.flag("disable_host_node_id").unwrap_or(true),
        node_meta: node_meta(s)?,
        segment: String::new(),
        data_dir: data_dir(s, choices.dev)?,
        pid_file: s.filled("pid_file").map(PathBuf::from),
        addresses,
        listen,
        unix_sockets: unix_sockets(s)?,
        ports,
        dns: dns(s, &resolver)?,
        http: http(s)?,
        limits: limits(s)?,
        check: checks(s, &mut warnings)?,
        services: s.services.clone(),
        checks: s.checks.clone(),
        log: log(s)?,
        telemetry: telemetry(s, &mut warnings),
        tls,
        gossip: super::gossip::gossip(s)?,
        performance: cluster::performance(s)?,
        raft: cluster::raft(s)?,
        autopilot: cluster::autopilot(s)?,
        non_voting_server: s.flag("non_voting_server").unwrap_or(false),
        ui: ui(s)?,
        leave_on_terminate: s.flag("leave_on_terminate").unwrap_or(!server),
        skip_leave_on_interrupt: s.flag("skip_leave_on_interrupt").unwrap_or(server),
        default_query_time: time(s, "default_query_time"),
        max_query_time: time(s, "max_query_time"),
        discovery_max_stale: time(s, "discovery_max_stale"),
        translate_wan_addrs: s.flag("translate_wan_addrs").unwrap_or(false),
        disable_coordinates: s.flag("disable_coordinates").unwrap_or(false),
        session_ttl_min: time(s, "session_ttl_min"),
        enable_debug: s.flag("enable_debug").unwrap_or(false),
        disable_remote_exec: s.flag("disable_remote_exec").unwrap_or(true),
        disable_update_check: s.flag("disable_update_check").unwrap_or(false),
        watches: s.objects("watches"),
        runtime: choices.runtime,
        cores: choices.cores,
        unsupported_keys: s.turned_on(Support::Later),
        warnings,
    };
    definitions(&config)?;
    Ok(config)
}

/// A datacenter's name, lower case; `None` when empty or absent.
fn datacenter(s: &Settings, key: &'static str) -> Result<Option<String>, ConfigError> {
    let Some(name) = s.filled(key).map(str::to_lowercase) else { return Ok(None) };
    if name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_')) {
        return Ok(Some(name));
    }
    let text = format!("{key} cannot be {name:?}. Please use only [a-z0-9-_]");
    Err(ConfigError::of_key(s, key, &text))
}

/// The datacenter that holds ACLs.
fn primary_datacenter(
    s: &Settings,
    datacenter_name: &str,
    warnings: &mut Vec<String>,
) -> Result<String, ConfigError> {
    let old = datacenter(s, "acl_datacenter")?;
    if old.is_some() {
        let text = "The 'acl_datacenter' field is deprecated. Use the 'primary_datacenter' field instead.";
        warnings.push(text.to_owned());
    }
    Ok(datacenter(s, "primary_datacenter")?.or(old).unwrap_or_else(|| datacenter_name.to_owned()))
}

/// The node's name: as configured, else the host's.
fn node_name(s: &Settings, host: &Host, warnings: &mut Vec<String>) -> Result<String, ConfigError> {
    let name = s.text("node_name").map(str::trim).filter(|n| !n.is_empty()).unwrap_or(host.name.trim());
    if name.is_empty() {
        return Err(ConfigError("node_name cannot be empty".to_owned()));
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        warnings.push(format!(
            "Node name {name:?} will not be discoverable via DNS due to invalid characters. Valid characters include all alpha-numerics and dashes."
        ));
    } else if name.len() > 63 {
        warnings.push(format!(
            "Node name {name:?} will not be discoverable via DNS due to it being too long. Valid lengths are between 1 and 63 bytes."
        ));
    }
    Ok(name.to_owned())
}

/// The node's ID, when configured.
fn node_id(s: &Settings) -> Result<Option<String>, ConfigError> {
    let Some(id) = s.filled("node_id").map(str::to_lowercase) else { return Ok(None) };
    let plain = id.len() == 36 && uuid::Uuid::try_parse(&id).is_ok();
    let text = || format!("node_id: specified NodeID {id:?} is invalid: it must be a UUID of 36 characters");
    if plain { Ok(Some(id.clone())) } else { Err(ConfigError::of_key(s, "node_id", &text())) }
}

/// The node's metadata.
fn node_meta(s: &Settings) -> Result<BTreeMap<String, String>, ConfigError> {
    let meta = s.text_map("node_meta");
    definition::validate_metadata(&meta)
        .map_err(|why| ConfigError::of_key(s, "node_meta", &format!("node_meta invalid: {why}")))?;
    Ok(meta)
}

/// The data folder: required but in development mode, a folder when it exists.
fn data_dir(s: &Settings, dev: bool) -> Result<Option<PathBuf>, ConfigError> {
    let Some(path) = s.filled("data_dir") else {
        return if dev { Ok(None) } else { Err(ConfigError("data_dir cannot be empty".to_owned())) };
    };
    let path = PathBuf::from(path);
    match std::fs::metadata(&path) {
        Ok(about) if !about.is_dir() => {
            Err(ConfigError(format!("data_dir {:?} is not a directory", path.display().to_string())))
        }
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ConfigError(format!("Error getting info on data_dir: {}: {error}", path.display())))
        }
        _ => Ok(Some(path)),
    }
}

/// Ports: numbers below one turn a surface off.
fn ports(s: &Settings) -> Result<Ports, ConfigError> {
    let port = |key: &'static str| match s.int(key).unwrap_or(-1) {
        n @ 1..=65535 => Ok(Some(n as u16)),
        n if n <= 0 => Ok(None),
        n => Err(ConfigError::of_key(s, key, &format!("{key}: invalid port: {n}"))),
    };
    Ok(Ports {
        dns: port("ports.dns")?,
        http: port("ports.http")?,
        https: port("ports.https")?,
        grpc: port("ports.grpc")?,
        // The pools of a running agent cannot be turned off, except the WAN's.
        serf_lan: port("ports.serf_lan")?.unwrap_or(0),
        serf_wan: port("ports.serf_wan")?,
        server: port("ports.server")?.unwrap_or(0),
    })
}

/// Owner and mode of unix sockets.
fn unix_sockets(s: &Settings) -> Result<UnixSockets, ConfigError> {
    let mode = match s.filled("unix_sockets.mode") {
        None => None,
        Some(text) => Some(u32::from_str_radix(text, 8).ok().filter(|m| *m <= 0o7777).ok_or_else(|| {
            let text =
                format!("unix_sockets.mode: invalid mode {text:?}, expected octal digits such as \"0700\"");
            ConfigError::of_key(s, "unix_sockets.mode", &text)
        })?),
    };
    let text = |key| s.filled(key).map(str::to_owned);
    Ok(UnixSockets { user: text("unix_sockets.user"), group: text("unix_sockets.group"), mode })
}

/// The DNS surface.
fn dns(s: &Settings, resolver: &Resolver<'_>) -> Result<DnsConfig, ConfigError> {
    let mut exact = BTreeMap::new();
    let mut prefixes = Vec::new();
    for (pattern, ttl) in s.text_map("dns_config.service_ttl") {
        let ttl = super::duration::parse(&ttl).expect("checked when the source was added");
        let ttl = Duration::from_nanos(ttl.max(0) as u64);
        match pattern.strip_suffix('*') {
            Some(prefix) => prefixes.push((prefix.to_owned(), ttl)),
            None => {
                exact.insert(pattern, ttl);
            }
        }
    }
    prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
    Ok(DnsConfig {
        domain: domain(s, "domain", s.text("domain").unwrap_or("consul."))?,
        alt_domain: s
            .filled("alt_domain")
            .map(|name| domain(s, "alt_domain", name))
            .transpose()?
            .unwrap_or_default(),
        recursors: recursors(s, resolver)?,
        recursor_timeout: time(s, "dns_config.recursor_timeout"),
        recursor_strategy: recursor_strategy(s)?,
        allow_stale: s.flag("dns_config.allow_stale").unwrap_or(true),
        max_stale: time(s, "dns_config.max_stale"),
        a_record_limit: at_least_zero(s, "dns_config.a_record_limit")?,
        udp_answer_limit: at_least_zero(s, "dns_config.udp_answer_limit")?,
        disable_compression: s.flag("dns_config.disable_compression").unwrap_or(false),
        enable_truncate: s.flag("dns_config.enable_truncate").unwrap_or(false),
        only_passing: s.flag("dns_config.only_passing").unwrap_or(false),
        node_ttl: time(s, "dns_config.node_ttl"),
        service_ttl: exact,
        service_ttl_prefixes: prefixes,
        node_meta_txt: s.flag("dns_config.enable_additional_node_meta_txt").unwrap_or(true),
        soa: Soa {
            refresh: seconds(s, "dns_config.soa.refresh")?,
            retry: seconds(s, "dns_config.soa.retry")?,
            expire: seconds(s, "dns_config.soa.expire")?,
            min_ttl: seconds(s, "dns_config.soa.min_ttl")?,
        },
        use_cache: s.flag("dns_config.use_cache").unwrap_or(false),
        cache_max_age: time(s, "dns_config.cache_max_age"),
    })
}

/// The order in which recursors are asked.
fn recursor_strategy(s: &Settings) -> Result<RecursorStrategy, ConfigError> {
    const KEY: &str = "dns_config.recursor_strategy";
    match s.text(KEY).unwrap_or_default() {
        "" | "sequential" => Ok(RecursorStrategy::Sequential),
        "random" => Ok(RecursorStrategy::Random),
        other => {
            let text =
                format!("dns_config.recursor_strategy: invalid strategy: {other:?} (sequential or random)");
            Err(ConfigError::of_key(s, KEY, &text))
        }
    }
}

/// The servers for names outside the domain; port 53 unless told. A template may stand for several.
fn recursors(s: &Settings, resolver: &Resolver<'_>) -> Result<Vec<SocketAddr>, ConfigError> {
    let mut out: Vec<SocketAddr> = Vec::new();
    for text in s.texts("recursors") {
        for word in resolver.expand("recursors", &text)?.split_whitespace() {
            let addr = recursor(word).map_err(|why| {
                ConfigError::of_key(s, "recursors", &format!("recursors: invalid address {word:?}: {why}"))
            })?;
            if !out.contains(&addr) {
                out.push(addr);
            }
        }
    }
    Ok(out)
}

/// One recursor: an IP address or a name, with or without a port.
fn recursor(word: &str) -> Result<SocketAddr, String> {
    if let Ok(addr) = word.parse::<SocketAddr>() {
        return Ok(addr);
    }
    if let Ok(ip) = word.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, 53));
    }
    let (name, port) = match word.rsplit_once(':') {
        Some((name, port)) => (name, port.parse::<u16>().map_err(|e| format!("port {port:?}: {e}"))?),
        None => (word, 53),
    };
    let found = net::resolve_blocking(name, port).map_err(|e| e.to_string())?;
    found.into_iter().next().ok_or_else(|| "the name has no address".to_owned())
}

/// The HTTP surface.
fn http(s: &Settings) -> Result<HttpConfig, ConfigError> {
    const FROM: &str = "http_config.allow_write_http_from";
    let network = |text: &String| {
        Cidr::parse(text).map_err(|_| {
            ConfigError::of_key(s, FROM, &format!("allow_write_http_from: invalid cidr: {text}"))
        })
    };
    Ok(HttpConfig {
        block_endpoints: s.texts("http_config.block_endpoints"),
        allow_write_http_from: s.texts(FROM).iter().map(network).collect::<Result<_, _>>()?,
        response_headers: s.text_map("http_config.response_headers"),
        use_cache: s.flag("http_config.use_cache").unwrap_or(true),
        disable_unprintable_char_filter: s.flag("disable_http_unprintable_char_filter").unwrap_or(false),
    })
}

/// Limits of rate, connections and sizes.
fn limits(s: &Settings) -> Result<Limits, ConfigError> {
    let count = |key| s.int(key).filter(|n| *n > 0).map(|n| n as usize);
    Ok(Limits {
        http_max_conns_per_client: count("limits.http_max_conns_per_client"),
        https_handshake_timeout: time(s, "limits.https_handshake_timeout"),
        rpc_handshake_timeout: time(s, "limits.rpc_handshake_timeout"),
        rpc_max_conns_per_client: count("limits.rpc_max_conns_per_client"),
        rpc_rate: s.float("limits.rpc_rate").filter(|rate| *rate >= 0.0),
        rpc_max_burst: at_least_zero(s, "limits.rpc_max_burst")?,
        kv_max_value_size: at_least_zero(s, "limits.kv_max_value_size")?,
        txn_max_req_len: at_least_zero(s, "limits.txn_max_req_len")?,
    })
}

/// What the agent allows and bounds in checks.
fn checks(s: &Settings, warnings: &mut Vec<String>) -> Result<CheckConfig, ConfigError> {
    let remote = s.flag("enable_script_checks").unwrap_or(false);
    let local = s.flag("enable_local_script_checks").unwrap_or(false);
    if remote
        && !s.flag("acl.enabled").unwrap_or(false)
        && s.texts("http_config.allow_write_http_from").is_empty()
    {
        warnings.push(
            "using enable-script-checks without ACLs and without allow_write_http_from is DANGEROUS, use enable-local-script-checks instead: whoever reaches the HTTP API can run programs on this host"
                .to_owned(),
        );
    }
    let output_max_size = s.int("check_output_max_size").unwrap_or(4096);
    if output_max_size < 1 {
        let text = "check_output_max_size must be positive, to discard check output use the discard_check_output flag";
        return Err(ConfigError::of_key(s, "check_output_max_size", text));
    }
    Ok(CheckConfig {
        enable_local_script_checks: local || remote,
        enable_remote_script_checks: remote,
        update_interval: time(s, "check_update_interval"),
        output_max_size: output_max_size as usize,
        discard_output: s.flag("discard_check_output").unwrap_or(false),
        use_agent_tls: s.flag("enable_agent_tls_for_checks").unwrap_or(false),
        deregister_interval_min: Duration::from_secs(60),
        reap_interval: Duration::from_secs(30),
    })
}

/// Logs.
fn log(s: &Settings) -> Result<LogConfig, ConfigError> {
    let word = s.filled("log_level").unwrap_or("INFO");
    let level = LogLevel::parse(word).ok_or_else(|| {
        let text =
            format!("Invalid log level: {word}. Valid log levels are: [TRACE DEBUG INFO WARN ERR ERROR]");
        ConfigError::of_key(s, "log_level", &text)
    })?;
    let rotate_duration = time(s, "log_rotate_duration");
    let facility = s.filled("syslog_facility").unwrap_or("LOCAL0").to_ascii_uppercase();
    if super::model::syslog_facility_number(&facility).is_none() {
        let text = format!("syslog_facility: invalid syslog facility: {facility}");
        return Err(ConfigError::of_key(s, "syslog_facility", &text));
    }
    Ok(LogConfig {
        level,
        json: s.flag("log_json").unwrap_or(false),
        file: s.filled("log_file").map(PathBuf::from),
        rotate_duration: if rotate_duration.is_zero() {
            Duration::from_secs(86_400)
        } else {
            rotate_duration
        },
        rotate_bytes: at_least_zero(s, "log_rotate_bytes")? as u64,
        rotate_max_files: s.int("log_rotate_max_files").unwrap_or(0),
        enable_syslog: s.flag("enable_syslog").unwrap_or(false),
        syslog_facility: facility,
    })
}

/// Metrics.
fn telemetry(s: &Settings, warnings: &mut Vec<String>) -> TelemetryConfig {
    let (mut allowed, mut blocked) = (Vec::new(), Vec::new());
    for rule in s.texts("telemetry.prefix_filter") {
        if let Some(prefix) = rule.strip_prefix('+') {
            allowed.push(prefix.to_owned());
        } else if let Some(prefix) = rule.strip_prefix('-') {
            blocked.push(prefix.to_owned());
        } else if rule.is_empty() {
            warnings.push("Cannot have empty filter rule in prefix_filter".to_owned());
        } else {
            warnings.push(format!("Filter rule must begin with either '+' or '-': {rule:?}"));
        }
    }
    let text = |key| s.filled(key).map(str::to_owned);
    TelemetryConfig {
        metrics_prefix: s.text("telemetry.metrics_prefix").unwrap_or("consul").to_owned(),
        disable_hostname: s.flag("telemetry.disable_hostname").unwrap_or(false),
        filter_default: s.flag("telemetry.filter_default").unwrap_or(true),
        allowed_prefixes: allowed,
        blocked_prefixes: blocked,
        prometheus_retention_time: time(s, "telemetry.prometheus_retention_time"),
        statsd_address: text("telemetry.statsd_address"),
        statsite_address: text("telemetry.statsite_address"),
        dogstatsd_addr: text("telemetry.dogstatsd_addr"),
        dogstatsd_tags: s.texts("telemetry.dogstatsd_tags"),
    }
}

/// TLS files and their use; the newer `tls` block wins over the flat keys.
fn tls(s: &Settings) -> TlsConfig {
    let text = |names: [&'static str; 3]| names.into_iter().find_map(|key| s.filled(key)).map(str::to_owned);
    let file = |names| text(names).map(PathBuf::from);
    let flag = |names: [&'static str; 3]| names.into_iter().find_map(|key| s.flag(key)).unwrap_or(false);
    let suites = text(["tls.https.tls_cipher_suites", "tls.defaults.tls_cipher_suites", "tls_cipher_suites"]);
    TlsConfig {
        ca_file: file(["tls.https.ca_file", "tls.defaults.ca_file", "ca_file"]),
        ca_path: file(["tls.https.ca_path", "tls.defaults.ca_path", "ca_path"]),
        cert_file: file(["tls.https.cert_file", "tls.defaults.cert_file", "cert_file"]),
        key_file: file(["tls.https.key_file", "tls.defaults.key_file", "key_file"]),
        server_name: s.filled("server_name").map(str::to_owned),
        verify_incoming_https: flag([
            "tls.https.verify_incoming",
            "verify_incoming_https",
            "verify_incoming",
        ]) || s.flag("tls.defaults.verify_incoming").unwrap_or(false),
        verify_incoming_rpc: flag([
            "tls.internal_rpc.verify_incoming",
            "verify_incoming_rpc",
            "verify_incoming",
        ]) || s.flag("tls.defaults.verify_incoming").unwrap_or(false),
        verify_outgoing: flag([
            "tls.internal_rpc.verify_outgoing",
            "tls.defaults.verify_outgoing",
            "verify_outgoing",
        ]),
        verify_server_hostname: flag([
            "tls.internal_rpc.verify_server_hostname",
            "tls.defaults.verify_server_hostname",
            "verify_server_hostname",
        ]),
        min_version: text(["tls.https.tls_min_version", "tls.defaults.tls_min_version", "tls_min_version"])
            .unwrap_or_else(|| "tls12".to_owned()),
        cipher_suites: suites
            .map(|all| all.split(',').map(|suite| suite.trim().to_owned()).collect())
            .unwrap_or_default(),
    }
}

/// The web UI.
fn ui(s: &Settings) -> Result<UiConfig, ConfigError> {
    let enabled = s.flag("ui_config.enabled").or_else(|| s.flag("ui")).unwrap_or(false);
    let dir = s.filled("ui_config.dir").or_else(|| s.filled("ui_dir")).map(PathBuf::from);
    // Development mode's own `ui` gives way to a folder.
    if enabled && dir.is_some() && (s.origin("ui").is_some() || s.origin("ui_config.enabled").is_some()) {
        return Err(ConfigError(
            "Both the ui and ui-dir flags were specified, please provide only one.\n\
             If trying to use your own web UI resources, use the ui-dir flag.\n\
             The web UI is included in the binary so use ui to enable it"
                .to_owned(),
        ));
    }
    let path = s.filled("ui_config.content_path").or_else(|| s.filled("ui_content_path")).unwrap_or("/ui/");
    let content_path = format!("/{}/", path.trim_matches('/')).replace("//", "/");
    if !content_path.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'/')) {
        let text =
            format!("ui-content-path can only contain alphanumeric, -, _, or /. received: {content_path}");
        return Err(ConfigError(text));
    }
    Ok(UiConfig { enabled: enabled || dir.is_some(), dir, content_path })
}

/// Checks every definition: a bad one stops the start.
fn definitions(config: &Config) -> Result<(), ConfigError> {
    for service in &config.services {
        service.validate().map_err(|why| {
            ConfigError(format!("Failed to register service {:?}: {why}", service.effective_id()))
        })?;
    }
    for check in &config.checks {
        let id = check.effective_id();
        let fail = |why: &str| Err(ConfigError(format!("Failed to register check {id:?}: {why}")));
        if check.name.is_empty() {
            return fail("Missing check name");
        }
        if !check.status_is_valid() {
            return fail("Bad check status");
        }
        if let Err(why) = check.validate() {
            return fail(&format!("Invalid check: {why}"));
        }
    }
    Ok(())
}

/// A length of time; negative ones count as zero.
pub(super) fn time(s: &Settings, key: &'static str) -> Duration {
    Duration::from_nanos(s.nanos(key).unwrap_or(0).max(0) as u64)
}

/// A whole number that may not be negative.
pub(super) fn at_least_zero(s: &Settings, key: &'static str) -> Result<usize, ConfigError> {
    let n = s.int(key).unwrap_or(0);
    let text = || format!("{key} cannot be {n}. Must be greater than or equal to zero");
    usize::try_from(n).map_err(|_| ConfigError::of_key(s, key, &text()))
}

/// Seconds of a DNS field.
fn seconds(s: &Settings, key: &'static str) -> Result<u32, ConfigError> {
    let n = s.int(key).unwrap_or(0);
    let text = || format!("{key} cannot be {n}. Must be between 0 and {}", u32::MAX);
    u32::try_from(n).map_err(|_| ConfigError::of_key(s, key, &text()))
}

/// A domain with one dot at its end. What is no DNS name is refused: no question could end in it.
fn domain(s: &Settings, key: &'static str, name: &str) -> Result<String, ConfigError> {
    let name = format!("{}.", name.trim_matches('.'));
    if Name::parse(&name).is_some() {
        return Ok(name);
    }
    let text = format!("{key} cannot be {name:?}. A domain has labels of 1 to 63 bytes, 253 bytes together");
    Err(ConfigError::of_key(s, key, &text))
}
