//! What a whole configuration becomes: tables over keys, errors, merges and flags.

use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::build::Host;
use super::flags;
use super::keys::{KEYS, Key, Kind, Support};
use super::sources::{Sources, agent_flags};
use super::*;
use crate::runtime::interfaces::InterfaceAddr;

/// A host with one private address.
fn host() -> Host {
    let addr = |name: &str, addr: &str| InterfaceAddr {
        name: name.to_owned(),
        addr: addr.parse().expect("address"),
        up: true,
    };
    Host { name: "box\n".to_owned(), interfaces: vec![addr("lo", "127.0.0.1"), addr("eth0", "10.1.1.1")] }
}

/// Loads a command line of words between blanks.
fn agent(line: &[&str]) -> Result<Config, ConfigError> {
    let words: Vec<String> = line.iter().map(|w| (*w).to_owned()).collect();
    let parsed = flags::parse(&agent_flags(), &words).expect("flags parse");
    Sources::from_flags(&parsed)?.load_on(&host())
}

/// Writes files into a folder of their own and loads them with some flags before.
fn files(contents: &[(&str, &str)], flags: &[&str]) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().expect("folder");
    let data = format!("-data-dir={}", dir.path().join("data").display());
    let mut paths = Vec::new();
    for (name, text) in contents {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("file");
        paths.push(format!("-config-file={}", path.display()));
    }
    let mut line = vec![data.as_str()];
    line.extend(paths.iter().map(String::as_str));
    line.extend(flags);
    let strip = |e: ConfigError| ConfigError(e.0.replace(&format!("{}/", dir.path().display()), ""));
    agent(&line).map_err(strip)
}

/// Loads one JSON file.
fn json_file(value: &Value) -> Result<Config, ConfigError> {
    files(&[("t.json", &value.to_string())], &[])
}

/// The error of one JSON file.
fn error_of(value: &Value) -> String {
    json_file(value).expect_err(&value.to_string()).to_string()
}

/// A value of the right type for every key, so that the whole file is valid.
fn sample(path: &str, kind: Kind) -> Value {
    match (path, kind) {
        ("domain" | "alt_domain", _) => json!("x.test."),
        ("bind_addr" | "client_addr" | "serf_lan" | "serf_wan", _) => json!("127.0.0.1"),
        (path, _) if path.starts_with("addresses.") => json!("127.0.0.1"),
        (path, _) if path.starts_with("advertise_addr") && path.ends_with("v6") => json!("fd00::1"),
        (path, _) if path.starts_with("advertise_addr") => json!("10.0.0.1"),
        ("node_id", _) => json!("aaaaaaaa-0000-4000-8000-000000000001"),
        ("encrypt", _) => json!("Z29sZGVuLWtleXJpbmc9PQ=="),
        ("serf_lan_allowed_cidrs", _) => json!(["10.0.0.0/8"]),
        ("recursors", _) => json!(["8.8.8.8"]),
        ("http_config.allow_write_http_from", _) => json!(["10.0.0.0/8"]),
        ("log_level", _) => json!("WARN"),
        ("syslog_facility", _) => json!("local3"),
        ("unix_sockets.mode", _) => json!("0700"),
        ("dns_config.recursor_strategy", _) => json!("random"),
        ("data_dir", _) => json!("/nonexistent/muster"),
        ("raft_protocol", _) => json!(3),
        (_, Kind::Bool) => json!(true),
        (_, Kind::Int) => json!(7),
        (_, Kind::Float) => json!(1.5),
        (_, Kind::Text) => json!("x"),
        (_, Kind::Duration) => json!("10s"),
        (_, Kind::Texts) => json!(["x"]),
        (_, Kind::TextMap) => json!({"k": "v"}),
        (_, Kind::DurationMap) => json!({"k": "1s"}),
        (_, Kind::Object) => json!({"k": 1}),
        (_, Kind::Objects) => json!([{"k": 1}]),
        ("service", Kind::Services) => json!({"name": "s"}),
        (_, Kind::Services) => json!([{"name": "s"}]),
        ("check", Kind::Checks) => json!({"name": "c", "ttl": "1s"}),
        (_, Kind::Checks) => json!([{"name": "c", "ttl": "1s"}]),
    }
}

/// Nests a value under a path with dots.
fn nested(path: &str, value: Value) -> Value {
    path.rsplit('.').fold(value, |inner, name| json!({ name: inner }))
}

#[test]
fn every_key_is_accepted_alone_and_a_wrong_type_is_refused() {
    for key in KEYS {
        let mut source = nested(key.path, sample(key.path, key.kind));
        if key.path.starts_with("bootstrap") {
            source["server"] = json!(true);
        }
        let config = json_file(&source).unwrap_or_else(|e| panic!("{}: {e}", key.path));
        let named = config.unsupported_keys.iter().any(|k| k == key.path);
        assert_eq!(named, key.support == Support::Later, "{}", key.path);
        let null = nested(key.path, Value::Null);
        let config = json_file(&null).unwrap_or_else(|e| panic!("{} null: {e}", key.path));
        assert_eq!(config.unsupported_keys, Vec::<String>::new(), "{}", key.path);
        let wrong = if matches!(key.kind, Kind::Bool) { json!("true") } else { json!(true) };
        let error = error_of(&nested(key.path, wrong));
        assert!(error.starts_with("failed to parse t.json: 1 error(s) decoding:"), "{}: {error}", key.path);
        assert!(error.contains(&format!("'{}", key.path)), "{}: {error}", key.path);
    }
}

/// The keys of Consul's documentation and of later versions, as a list of its own: none may be lost from the table.
#[test]
fn the_documented_keys_are_in_the_table() {
    let listed = include_str!("documented_keys.txt");
    assert!(listed.lines().count() > 300);
    for path in listed.lines() {
        let known = keys::find(path).is_some()
            || keys::is_section(path)
            || path.rsplit_once('.').is_some_and(|(above, _)| {
                keys::find(above).is_some_and(|k| matches!(k.kind, Kind::Object | Kind::Objects))
            });
        assert!(known, "{path}");
    }
}

#[test]
fn json_and_hcl_mean_the_same() {
    for key in KEYS {
        let value = sample(key.path, key.kind);
        let hcl = hcl_of(&nested(key.path, value.clone()));
        let parsed = hcl::parse(&hcl).unwrap_or_else(|e| panic!("{hcl}: {e}"));
        assert_eq!(parsed, nested(key.path, value), "{hcl}");
    }
    let text = |config: Config| format!("{:?}", Config { data_dir: None, ..config });
    let json = json_file(&json!({
        "server": true, "bootstrap_expect": 3, "node_meta": {"a": "b"}, "ports": {"http": 1, "dns": 2},
        "dns_config": {"service_ttl": {"*": "5s", "web": "9s"}, "soa": {"min_ttl": 60}},
        "services": [{"name": "a", "checks": [{"ttl": "1s"}, {"http": "http://x", "interval": "1s",
            "header": {"x": ["y"]}}]}, {"name": "b", "tagged_addresses": {"wan": {"address": "1.1.1.1", "port": 1}}}],
    }));
    let hcl = files(
        &[(
            "t.hcl",
            r#"server = true
               bootstrap_expect = 3
               node_meta { a = "b" }
               ports { http = 1 }
               ports { dns = 2 }
               dns_config { service_ttl { "*" = "5s" web = "9s" } soa = { min_ttl = 60 } }
               service { name = "a" check { ttl = "1s" }
                         checks = [{ http = "http://x", interval = "1s", header { x = ["y"] } }] }
               service { name = "b" tagged_addresses { wan { address = "1.1.1.1" port = 1 } } }"#,
        )],
        &[],
    );
    assert_eq!(text(json.expect("JSON")), text(hcl.expect("HCL")));
}

/// Writes a JSON object as HCL with blocks.
fn hcl_of(value: &Value) -> String {
    let Value::Object(map) = value else { return value.to_string() };
    let pair = |(name, value): (&String, &Value)| match value {
        Value::Object(_) => format!("{name} {{ {} }}", hcl_of(value)),
        Value::Array(items) if items.iter().all(Value::is_object) => {
            format!(
                "{name} = [{}]",
                items.iter().map(|i| format!("{{ {} }}", hcl_of(i))).collect::<Vec<_>>().join(",")
            )
        }
        other => format!("{name} = {other}"),
    };
    map.iter().map(pair).collect::<Vec<_>>().join("\n")
}

#[test]
fn errors_name_file_key_and_what_was_expected() {
    for (source, text) in [
        (json!({"foo": 1}), "failed to parse t.json: 1 error occurred:\n\t* invalid config key foo"),
        (
            json!({"ports": {"foo": 1}}),
            "failed to parse t.json: 1 error occurred:\n\t* invalid config key ports.foo",
        ),
        (
            json!({"foo": 1, "ports": {"x": 1}, "services": [{"name": "a", "y": 1}]}),
            "failed to parse t.json: 3 errors occurred:\n\t* invalid config key foo\n\t* invalid config key ports.x\n\t* invalid config key services[0].y",
        ),
        (
            json!({"ports": {"http": "x"}}),
            "failed to parse t.json: 1 error(s) decoding:\n\n* 'ports.http' expected type 'int', got unconvertible type 'string'",
        ),
        (
            json!({"ports": 5}),
            "failed to parse t.json: 1 error(s) decoding:\n\n* 'ports' expected a map, got 'int'",
        ),
        (
            json!({"recursors": "1.1.1.1"}),
            "failed to parse t.json: 1 error(s) decoding:\n\n* 'recursors': source data must be an array or slice, got string",
        ),
        (
            json!({"node_meta": {"a": 5}}),
            "failed to parse t.json: 1 error(s) decoding:\n\n* 'node_meta[a]' expected type 'string', got unconvertible type 'int'",
        ),
        (
            json!({"check_update_interval": "abc"}),
            "failed to parse t.json: 1 error occurred:\n\t* check_update_interval: invalid duration: \"abc\": time: invalid duration \"abc\"",
        ),
        (
            json!({"dns_config": {"service_ttl": {"x": "5"}}}),
            "failed to parse t.json: 1 error occurred:\n\t* dns_config.service_ttl[\"x\"]: invalid duration: \"5\": time: missing unit in duration \"5\"",
        ),
        (
            json!({"service": {"name": "a", "port": "x"}}),
            "failed to parse t.json: 1 error(s) decoding:\n\n* 'service.port' expected type 'int', got unconvertible type 'string'",
        ),
        (
            json!({"services": [{"name": "a", "check": {"ttl": "x"}}]}),
            "failed to parse t.json: 1 error occurred:\n\t* services[0].check.ttl: time: invalid duration \"x\"",
        ),
        (json!({"ports": {"http": 70000}}), "ports.http: invalid port: 70000 (set in t.json)"),
        (json!({"bind_addr": "300.1.1.1"}), "bind_addr: invalid ip address: 300.1.1.1 (set in t.json)"),
        (json!({"bind_addr": "unix:///x"}), "bind_addr cannot be a unix socket"),
        (
            json!({"bind_addr": "1.2.3.4 5.6.7.8"}),
            "bind_addr cannot contain multiple addresses. Use 'addresses.{dns,http,https}' instead.",
        ),
        (json!({"bind_addr": "::"}), "No public IPv6 address found"),
        (json!({"bind_addr": ""}), "bind_addr cannot be empty"),
        (json!({"client_addr": "abc"}), "client_addr: invalid ip address: abc (set in t.json)"),
        (json!({"addresses": {"dns": "unix:///x"}}), "DNS address cannot be a unix socket"),
        (json!({"advertise_addr": "0.0.0.0"}), "Advertise address cannot be 0.0.0.0, :: or [::]"),
        (json!({"advertise_addr_wan": "::"}), "Advertise WAN address cannot be 0.0.0.0, :: or [::]"),
        (json!({"ports": {"http": 8600}}), "HTTP address 127.0.0.1:8600 already configured for DNS"),
        (
            json!({"ports": {"server": 8301}}),
            "Serf Advertise LAN address 10.1.1.1:8301 already configured for RPC Advertise",
        ),
        (json!({"datacenter": ""}), "datacenter cannot be empty"),
        (
            json!({"datacenter": "A.b"}),
            "datacenter cannot be \"a.b\". Please use only [a-z0-9-_] (set in t.json)",
        ),
        (json!({"bootstrap": true}), "'bootstrap = true' requires 'server = true'"),
        (json!({"bootstrap_expect": 3}), "'bootstrap_expect > 0' requires 'server = true'"),
        (
            json!({"bootstrap_expect": 3, "bootstrap": true, "server": true}),
            "'bootstrap_expect > 0' and 'bootstrap = true' are mutually exclusive",
        ),
        (
            json!({"bootstrap_expect": -1}),
            "bootstrap_expect cannot be -1. Must be greater than or equal to zero",
        ),
        (
            json!({"node_meta": {"a b": "x"}}),
            "node_meta invalid: Couldn't load metadata pair ('a b', 'x'): Key contains invalid characters (set in t.json)",
        ),
        (
            json!({"log_level": "foo"}),
            "Invalid log level: foo. Valid log levels are: [TRACE DEBUG INFO WARN ERR ERROR] (set in t.json)",
        ),
        (
            json!({"http_config": {"allow_write_http_from": ["x"]}}),
            "allow_write_http_from: invalid cidr: x (set in t.json)",
        ),
        (
            json!({"performance": {"raft_multiplier": 20}}),
            "performance.raft_multiplier cannot be 20. Must be between 1 and 10 (set in t.json)",
        ),
        (
            json!({"autopilot": {"max_trailing_logs": -1}}),
            "autopilot.max_trailing_logs cannot be -1. Must be greater than or equal to zero (set in t.json)",
        ),
        (
            json!({"raft_protocol": 4}),
            "Failed to start Raft: Protocol version 4 must be >= 2 and <= 3 (set in t.json)",
        ),
        (
            json!({"dns_config": {"a_record_limit": -1}}),
            "dns_config.a_record_limit cannot be -1. Must be greater than or equal to zero (set in t.json)",
        ),
        (
            json!({"check_output_max_size": 0}),
            "check_output_max_size must be positive, to discard check output use the discard_check_output flag (set in t.json)",
        ),
        (
            json!({"ui_content_path": "x y"}),
            "ui-content-path can only contain alphanumeric, -, _, or /. received: /x y/",
        ),
        (
            json!({"services": [{"name": "a", "check": {"http": "x"}}]}),
            "Failed to register service \"a\": Invalid check: Interval must be > 0 for Script, HTTP, or TCP checks",
        ),
        (json!({"check": {"ttl": "1s"}}), "Failed to register check \"\": Missing check name"),
    ] {
        assert_eq!(error_of(&source), text);
    }
}

#[test]
fn servers_start_with_consuls_autopilot_and_log() {
    let config = json_file(&json!({"raft_snapshot_threshold": -1})).expect("valid");
    let pilot = &config.autopilot;
    assert!(pilot.cleanup_dead_servers);
    assert_eq!((pilot.max_trailing_logs, pilot.min_quorum), (250, 0));
    assert_eq!(pilot.last_contact_threshold.as_millis(), 200);
    assert_eq!(pilot.server_stabilization_time.as_secs(), 10);
    let raft = config.raft;
    assert_eq!((raft.protocol, raft.snapshot_threshold, raft.trailing_logs), (3, 16_384, 10_240));
    let config = json_file(&json!({
        "raft_protocol": 2, "raft_trailing_logs": 9, "non_voting_server": true,
        "autopilot": {"max_trailing_logs": 0, "server_stabilization_time": "0s"},
    }));
    let config = config.expect("valid");
    assert_eq!((config.raft.protocol, config.raft.trailing_logs, config.non_voting_server), (2, 9, true));
    assert_eq!(
        (config.autopilot.max_trailing_logs, config.autopilot.server_stabilization_time.as_secs()),
        (0, 0)
    );
}

#[test]
fn broken_files_say_where() {
    let error = |name: &str, text: &str| files(&[(name, text)], &[]).expect_err(text).to_string();
    assert_eq!(error("t.json", "{\"ports\":{"), "failed to parse t.json: unexpected end of JSON input");
    assert_eq!(
        error("t.json", "{\"a\":1,}"),
        "failed to parse t.json: At 1:8: invalid character '}' looking for beginning of object key string"
    );
    assert_eq!(
        error("t.json", "[]"),
        "failed to parse t.json: json: cannot unmarshal array into Go value of type map[string]interface {}"
    );
    assert_eq!(error("t.hcl", "server = yes"), "failed to parse t.hcl: At 1:10: Unknown token: IDENT yes");
    let missing = agent(&["-config-file=/nonexistent/x.json"]).expect_err("missing file").to_string();
    assert_eq!(
        missing,
        "config: Open failed on /nonexistent/x.json. open /nonexistent/x.json: no such file or directory"
    );
    assert_eq!(agent(&[]).expect_err("no data").to_string(), "data_dir cannot be empty");
    assert!(agent(&["-dev", "extra"]).is_err_and(|e| e.0 == "Unexpected extra arguments: [extra]"));
    assert!(agent(&["-dev", "-config-format=xml"]).is_err_and(|e| e.0.contains("-config-format must be")));
}

#[test]
fn empty_and_null_files_are_fine() {
    for (name, text) in
        [("a.json", ""), ("a.hcl", ""), ("a.json", "null"), ("a.json", "{}"), ("a.hcl", "# x\n")]
    {
        files(&[(name, text)], &[]).unwrap_or_else(|e| panic!("{text}: {e}"));
    }
}

#[test]
fn later_sources_win_lists_append_maps_merge() {
    let config = files(
        &[
            ("b.json", r#"{"node_name":"one","recursors":["1.1.1.1"],"node_meta":{"a":"1","b":"1"},"service":{"name":"x"}}"#),
            ("a.hcl", r#"node_name = "two" recursors = ["2.2.2.2"] node_meta { b = "2" } services = [{name = "y"}]"#),
        ],
        &["-node=three", "-recursor=3.3.3.3", "-node-meta=c:3", "-hcl", "datacenter = \"dc9\"", "-datacenter=dc8"],
    )
    .expect("loads");
    assert_eq!((config.node_name.as_str(), config.datacenter.as_str()), ("three", "dc9"));
    // Lists of flags come first, as in Consul.
    let recursors: Vec<String> = config.dns.recursors.iter().map(ToString::to_string).collect();
    assert_eq!(recursors, ["3.3.3.3:53", "1.1.1.1:53", "2.2.2.2:53"]);
    let meta: Vec<String> = config.node_meta.iter().map(|(k, v)| format!("{k}{v}")).collect();
    assert_eq!(meta, ["a1", "b2", "c3"]);
    let services: Vec<&str> = config.services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(services, ["x", "y"]);
}

#[test]
fn folders_are_read_in_lexical_order_and_only_known_endings() {
    let dir = tempfile::tempdir().expect("folder");
    for (name, text) in [
        ("20.json", r#"{"node_name":"late"}"#),
        ("10.hcl", r#"node_name = "early" datacenter = "x""#),
        ("30.txt", "not read"),
    ] {
        std::fs::write(dir.path().join(name), text).expect("file");
    }
    std::fs::create_dir(dir.path().join("40.json")).expect("folder");
    let line = format!("-config-dir={}", dir.path().display());
    let config = agent(&["-dev", &line]).expect("loads");
    assert_eq!((config.node_name.as_str(), config.datacenter.as_str()), ("late", "x"));
    assert!(agent(&["-dev", &line, "-config-format=hcl"]).is_err());
}

#[test]
fn development_mode_gives_way_to_files() {
    let config = agent(&["-dev"]).expect("loads");
    assert!(config.server && config.dev_mode && config.ui.enabled && config.enable_debug);
    assert_eq!(config.addresses.bind, "127.0.0.1".parse::<IpAddr>().expect("address"));
    assert_eq!((config.data_dir, config.log.level), (None, LogLevel::Debug));
    assert_eq!(config.unsupported_keys, Vec::<String>::new());
    let config =
        files(&[("a.json", r#"{"log_level":"err","ports":{"grpc":-1}}"#)], &["-dev"]).expect("loads");
    assert_eq!((config.log.level, config.ports.grpc), (LogLevel::Error, None));
    assert_eq!(config.unsupported_keys, Vec::<String>::new(), "a key that turns a feature off is not named");
}

#[test]
fn addresses_are_chosen_as_consul_does() {
    let config = json_file(&json!({
        "tagged_addresses": {"lan": "9.9.9.9", "x": "host"}, "advertise_addr": "10.0.0.1",
        "advertise_addr_ipv6": "fd00::9", "advertise_addr_wan": "1.1.1.1", "addresses": {"http": "unix:///a 127.0.0.2"},
        "client_addr": "127.0.0.1 ::1", "recursors": ["[::1]:53", "1.2.3.4"],
    }))
    .expect("loads");
    let tagged: Vec<String> = config.addresses.tagged.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        tagged,
        [
            "lan=10.0.0.1",
            "lan_ipv4=10.0.0.1",
            "lan_ipv6=fd00::9",
            "wan=1.1.1.1",
            "wan_ipv4=1.1.1.1",
            "wan_ipv6=fd00::9",
            "x=host"
        ]
    );
    let http: Vec<String> = config.listen.http.iter().map(ToString::to_string).collect();
    assert_eq!(http, ["unix:///a", "127.0.0.2:8500"]);
    assert_eq!(config.listen.dns.len(), 2);
    let config = json_file(&json!({})).expect("loads");
    assert_eq!(config.addresses.advertise.to_string(), "10.1.1.1");
    assert_eq!(config.node_name, "box");
    let line = ["-data-dir=/nonexistent/muster"];
    let parsed = flags::parse(&agent_flags(), &line.map(str::to_owned)).expect("parses");
    let mut two = host();
    two.interfaces.push(InterfaceAddr {
        name: "eth1".to_owned(),
        addr: "192.168.0.1".parse().expect("address"),
        up: true,
    });
    let error = Sources::from_flags(&parsed).expect("flags").load_on(&two).expect_err("two addresses");
    assert_eq!(
        error.to_string(),
        "Multiple private IPv4 addresses found. Please configure one with 'bind' and/or 'advertise'."
    );
}

#[test]
fn ttls_by_name_then_longest_prefix() {
    let ttl = json!({"*": "5s", "web": "9s", "db-*": "11s", "db-main": "0s"});
    let config = json_file(&json!({"dns_config": {"service_ttl": ttl}})).expect("loads");
    for (service, seconds) in [("web", 9), ("db-x", 11), ("db-main", 0), ("other", 5)] {
        assert_eq!(config.dns.service_ttl_of(service).as_secs(), seconds, "{service}");
    }
}

#[test]
fn roles_decide_how_signals_end_the_agent() {
    let client = json_file(&json!({})).expect("loads");
    let server = json_file(&json!({"server": true})).expect("loads");
    assert_eq!((client.leave_on_terminate, client.skip_leave_on_interrupt), (true, false));
    assert_eq!((server.leave_on_terminate, server.skip_leave_on_interrupt), (false, true));
}

/// Four keys were called working, and nothing read them.
#[test]
fn what_is_called_working_is_read() {
    // Nobody looks for updates here, so nobody signs the question.
    const HOLD_BY_THEMSELVES: &[&str] = &["disable_anonymous_signature"];
    let readers = [
        include_str!("address.rs"),
        include_str!("build.rs"),
        include_str!("cluster.rs"),
        include_str!("gossip.rs"),
        include_str!("settings.rs"),
        include_str!("source.rs"),
        include_str!("sources.rs"),
    ];
    // Definitions are read by their kind.
    let named = |key: &&Key| !matches!(key.kind, Kind::Services | Kind::Checks);
    for key in KEYS.iter().filter(|key| key.support == Support::Here).filter(named) {
        let quoted = format!("\"{}\"", key.path);
        let is_read = readers.iter().any(|reader| reader.contains(&quoted));
        assert!(is_read || HOLD_BY_THEMSELVES.contains(&key.path), "{} is read by nobody", key.path);
    }
}

/// Nothing said that half of it is not there, or that all of it is not although the other half is.
#[test]
fn what_holds_for_https_alone_is_said_so() {
    let said = |json: Value| {
        let config = json_file(&json).expect("loads");
        assert!(config.unsupported_keys.is_empty() && config.tls.verify_incoming_https);
        config.warnings
    };
    let warning = "verify_incoming holds for HTTPS alone: between agents there is no TLS yet";
    assert_eq!(said(json!({"verify_incoming": true})), [warning]);
    assert_eq!(
        said(json!({"tls": {"defaults": {"verify_incoming": true}}})),
        [format!("tls.defaults.{warning}")]
    );
    assert!(
        said(json!({"tls": {"https": {"verify_incoming": true, "tls_min_version": "tls13"}}})).is_empty()
    );
}

#[test]
fn every_flag_sets_its_key() {
    for key in KEYS {
        let Some(flag) = key.flag else { continue };
        let text = match sample(key.path, key.kind) {
            Value::Bool(_) => format!("-{flag}"),
            Value::Array(items) => format!("--{flag}={}", items[0].as_str().unwrap_or_default()),
            Value::Object(_) => format!("-{flag}=k:v"),
            Value::String(text) => format!("-{flag}={text}"),
            other => format!("-{flag}={other}"),
        };
        let line = ["-server", "-data-dir=/nonexistent/muster", &text];
        let config = agent(&line).unwrap_or_else(|e| panic!("{text}: {e}"));
        let named = config.unsupported_keys.iter().any(|k| k == key.path);
        assert_eq!(named, key.support == Support::Later, "{text}");
    }
    let config = agent(&["-dev", "-runtime=epoll", "-cores=3", "-config-dir", "/nonexistent"]);
    assert!(config.is_err_and(|e| e.0.contains("Open failed")));
    let config = agent(&["-dev", "-runtime=epoll", "-cores=3"]).expect("loads");
    assert_eq!((config.runtime, config.cores), (RuntimeChoice::Epoll, Some(3)));
    assert!(agent(&["-dev", "-runtime=tokio"]).is_err());
    assert!(agent(&["-dev", "-cores=0"]).is_err());
}

#[test]
fn a_bare_file_of_unknown_ending_is_left_out_with_a_warning() {
    let config = files(&[("x.txt", "junk")], &[]).expect("loads");
    assert!(config.warnings.iter().any(|w| w.starts_with("skipping file x.txt") || w.contains("x.txt")));
    assert!(config.data_dir.is_some_and(|d| d.ends_with(PathBuf::from("data"))));
}

#[test]
fn a_domain_is_a_dns_name() {
    for (key, name) in
        [("domain", "x".repeat(64)), ("alt_domain", "a..b".to_owned()), ("domain", "a.".repeat(200))]
    {
        let error = error_of(&json!({ key: name }));
        assert!(error.starts_with(&format!("{key} cannot be ")), "{error}");
    }
    let config = json_file(&json!({"domain": ".Corp.example"})).expect("a domain");
    assert_eq!(config.dns.domain, "Corp.example.");
}
