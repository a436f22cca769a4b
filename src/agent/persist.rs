//! Registrations on disk, in Consul's own files, so that an existing data folder loads: `services/MD5(id)`,
//! `checks/MD5(id)`, `checks/state/MD5(id)`. This is the text of the files; [`super::files`] reads and writes them.
//!
//! Numbers that are lengths of time are nanoseconds; a state's `Expires` is Unix seconds.

use std::collections::BTreeMap;

use md5::{Digest, Md5};
use serde_json::{Map, Value, json};

use super::local::{LocalService, Source};
use crate::config::definition::CheckDefinition;
use crate::store::model::{Check, Service, ServiceAddress, Status, StringMap, Weights};

/// A persisted check.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredCheck {
    /// Its row.
    pub row: Check,
    /// What it does; none for maintenance.
    pub definition: Option<CheckDefinition>,
    /// Token used to register it.
    pub token: String,
    /// Where it came from.
    pub source: Source,
}

/// A persisted service.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredService {
    /// Its row.
    pub row: Service,
    /// Token used to register it.
    pub token: String,
    /// Where it came from.
    pub source: Source,
}

/// The state of a TTL check.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredState {
    /// The check.
    pub check_id: String,
    /// Its last output.
    pub output: String,
    /// Its last status.
    pub status: Status,
    /// When it expires, Unix seconds.
    pub expires_unix: i64,
}

/// The name of a file: MD5 of the ID, lower-case hex.
pub fn file_name(id: &str) -> String {
    let digest: [u8; 16] = Md5::digest(id.as_bytes()).into();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The text of a service's file.
pub fn encode_service(service: &LocalService) -> Vec<u8> {
    let row = &service.row;
    let mut body = Map::new();
    if !row.kind.is_empty() {
        body.insert("Kind".into(), json!(row.kind));
    }
    body.insert("ID".into(), json!(row.id));
    body.insert("Service".into(), json!(row.name));
    body.insert("Tags".into(), json!(row.tags));
    body.insert("Address".into(), json!(row.address));
    if let Some(tagged) = row.tagged_addresses.as_ref().filter(|tagged| !tagged.is_empty()) {
        let tagged: Map<_, _> = tagged
            .iter()
            .map(|(tag, at)| (tag.clone(), json!({"Address": at.address, "Port": at.port})))
            .collect();
        body.insert("TaggedAddresses".into(), Value::Object(tagged));
    }
    body.insert("Meta".into(), json!(row.meta));
    body.insert("Port".into(), json!(row.port));
    body.insert("Weights".into(), json!({"Passing": row.weights.passing, "Warning": row.weights.warning}));
    body.insert("EnableTagOverride".into(), json!(row.enable_tag_override));
    body.insert("Proxy".into(), json!({"MeshGateway": {}, "Expose": {}}));
    body.insert("Connect".into(), json!({}));
    body.insert("CreateIndex".into(), json!(0));
    body.insert("ModifyIndex".into(), json!(0));
    let file = json!({"Token": service.token, "Service": body, "Source": service.source.as_str()});
    file.to_string().into_bytes()
}

/// The text of a check's file.
pub fn encode_check(check: &StoredCheck) -> Vec<u8> {
    let row = &check.row;
    let file = json!({
        "Check": {
            "Node": row.node,
            "CheckID": row.check_id,
            "Name": row.name,
            "Status": row.status.as_str(),
            "Notes": row.notes,
            "Output": row.output,
            "ServiceID": row.service_id,
            "ServiceName": row.service_name,
            "ServiceTags": row.service_tags,
            "Type": row.kind,
            "Definition": {},
            "CreateIndex": 0,
            "ModifyIndex": 0,
        },
        "ChkType": check.definition.as_ref().map(encode_definition),
        "Token": check.token,
        "Source": check.source.as_str(),
    });
    file.to_string().into_bytes()
}

/// The text of a TTL check's state file.
pub fn encode_state(state: &StoredState) -> Vec<u8> {
    let file = json!({
        "CheckID": state.check_id,
        "Output": state.output,
        "Status": state.status.as_str(),
        "Expires": state.expires_unix,
    });
    file.to_string().into_bytes()
}

fn encode_definition(d: &CheckDefinition) -> Value {
    json!({
        "CheckID": d.id, "Name": d.name, "Status": d.status, "Notes": d.notes,
        "Script": d.script, "ScriptArgs": d.args,
        "HTTP": d.http, "Header": d.header, "Method": d.method, "Body": d.body,
        "DisableRedirects": d.disable_redirects,
        "TCP": d.tcp, "TCPUseTLS": d.tcp_use_tls, "UDP": d.udp, "Interval": d.interval_ns,
        "AliasNode": d.alias_node, "AliasService": d.alias_service,
        "DockerContainerID": d.docker_container_id, "Shell": d.shell,
        "GRPC": d.grpc, "GRPCUseTLS": d.grpc_use_tls,
        "H2PING": d.h2ping, "H2PingUseTLS": d.h2ping_use_tls, "OSService": d.os_service,
        "TLSServerName": d.tls_server_name, "TLSSkipVerify": d.tls_skip_verify,
        "Timeout": d.timeout_ns, "TTL": d.ttl_ns,
        "SuccessBeforePassing": d.success_before_passing,
        "FailuresBeforeWarning": d.failures_before_warning,
        "FailuresBeforeCritical": d.failures_before_critical,
        "ProxyHTTP": "", "ProxyGRPC": "",
        "DeregisterCriticalServiceAfter": d.deregister_critical_service_after_ns,
        "OutputMaxSize": d.output_max_size,
    })
}

/// Reads a service's file. The error says what is wrong with it.
pub fn decode_service(bytes: &[u8]) -> Result<StoredService, String> {
    let file = parse(bytes)?;
    // The oldest files hold the bare service.
    let body = file.get("Service").filter(|v| v.is_object()).unwrap_or(&file);
    let row = Service {
        kind: text(body, "Kind"),
        id: text(body, "ID"),
        name: text(body, "Service"),
        tags: texts(body, "Tags"),
        address: text(body, "Address"),
        tagged_addresses: tagged_addresses(body),
        meta: string_map(body, "Meta"),
        port: number(body, "Port"),
        weights: weights(body),
        enable_tag_override: flag(body, "EnableTagOverride"),
        ..Service::default()
    };
    if row.id.is_empty() || row.name.is_empty() {
        return Err("it names no service".to_owned());
    }
    Ok(StoredService { row, token: text(&file, "Token"), source: Source::parse(&text(&file, "Source")) })
}

/// Reads a check's file. The error says what is wrong with it.
pub fn decode_check(bytes: &[u8]) -> Result<StoredCheck, String> {
    let file = parse(bytes)?;
    let body = file.get("Check").filter(|v| v.is_object()).ok_or("it holds no \"Check\"")?;
    let row = Check {
        node: text(body, "Node"),
        check_id: text(body, "CheckID"),
        name: text(body, "Name"),
        status: Status::parse(&text(body, "Status")).unwrap_or_default(),
        notes: text(body, "Notes"),
        output: text(body, "Output"),
        service_id: text(body, "ServiceID"),
        service_name: text(body, "ServiceName"),
        service_tags: texts(body, "ServiceTags"),
        kind: text(body, "Type"),
        ..Check::default()
    };
    if row.check_id.is_empty() {
        return Err("it names no check".to_owned());
    }
    let definition = file.get("ChkType").filter(|v| v.is_object()).map(decode_definition);
    Ok(StoredCheck {
        row,
        definition,
        token: text(&file, "Token"),
        source: Source::parse(&text(&file, "Source")),
    })
}

/// Reads a state file. The error says what is wrong with it.
pub fn decode_state(bytes: &[u8]) -> Result<StoredState, String> {
    let file = parse(bytes)?;
    let status = text(&file, "Status");
    Ok(StoredState {
        check_id: text(&file, "CheckID"),
        output: text(&file, "Output"),
        status: Status::parse(&status).ok_or_else(|| format!("it has the status {status:?}"))?,
        expires_unix: number(&file, "Expires"),
    })
}

fn decode_definition(v: &Value) -> CheckDefinition {
    CheckDefinition {
        id: text(v, "CheckID"),
        name: text(v, "Name"),
        notes: text(v, "Notes"),
        status: text(v, "Status"),
        script: text(v, "Script"),
        args: texts(v, "ScriptArgs"),
        http: text(v, "HTTP"),
        method: text(v, "Method"),
        header: header(v),
        body: text(v, "Body"),
        disable_redirects: flag(v, "DisableRedirects"),
        tcp: text(v, "TCP"),
        tcp_use_tls: flag(v, "TCPUseTLS"),
        udp: text(v, "UDP"),
        grpc: text(v, "GRPC"),
        grpc_use_tls: flag(v, "GRPCUseTLS"),
        h2ping: text(v, "H2PING"),
        h2ping_use_tls: v.get("H2PingUseTLS").and_then(Value::as_bool),
        os_service: text(v, "OSService"),
        docker_container_id: text(v, "DockerContainerID"),
        shell: text(v, "Shell"),
        alias_node: text(v, "AliasNode"),
        alias_service: text(v, "AliasService"),
        tls_server_name: text(v, "TLSServerName"),
        tls_skip_verify: flag(v, "TLSSkipVerify"),
        interval_ns: number(v, "Interval"),
        timeout_ns: number(v, "Timeout"),
        ttl_ns: number(v, "TTL"),
        deregister_critical_service_after_ns: number(v, "DeregisterCriticalServiceAfter"),
        output_max_size: number(v, "OutputMaxSize"),
        success_before_passing: number(v, "SuccessBeforePassing"),
        failures_before_warning: number(v, "FailuresBeforeWarning"),
        failures_before_critical: number(v, "FailuresBeforeCritical"),
        ..CheckDefinition::default()
    }
}

fn parse(bytes: &[u8]) -> Result<Value, String> {
    if bytes.is_empty() {
        return Err("it is empty".to_owned());
    }
    let value: Value = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if value.is_object() { Ok(value) } else { Err("it holds no JSON object".to_owned()) }
}

fn text(v: &Value, key: &str) -> String {
    v.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn flag(v: &Value, key: &str) -> bool {
    v.get(key).and_then(Value::as_bool).unwrap_or_default()
}

/// Whole numbers; later Consul versions write lengths of time as text (`10s`).
fn number(v: &Value, key: &str) -> i64 {
    match v.get(key) {
        Some(Value::Number(n)) => n.as_i64().unwrap_or_default(),
        Some(Value::String(s)) => crate::config::duration::parse(s).unwrap_or_default(),
        _ => 0,
    }
}

fn texts(v: &Value, key: &str) -> Vec<String> {
    let items = v.get(key).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn string_map(v: &Value, key: &str) -> Option<StringMap> {
    let map = v.get(key)?.as_object()?;
    Some(map.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect())
}

fn header(v: &Value) -> BTreeMap<String, Vec<String>> {
    let Some(map) = v.get("Header").and_then(Value::as_object) else { return BTreeMap::new() };
    map.keys().map(|name| (name.clone(), texts(&v["Header"], name))).collect()
}

fn tagged_addresses(v: &Value) -> Option<BTreeMap<String, ServiceAddress>> {
    let map = v.get("TaggedAddresses")?.as_object()?;
    let at = |v: &Value| ServiceAddress { address: text(v, "Address"), port: number(v, "Port") };
    Some(map.iter().map(|(tag, v)| (tag.clone(), at(v))).collect())
        .filter(|map: &BTreeMap<_, _>| !map.is_empty())
}

fn weights(v: &Value) -> Weights {
    match v.get("Weights").filter(|w| w.is_object()) {
        Some(w) => Weights { passing: number(w, "Passing"), warning: number(w, "Warning") },
        None => Weights::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Written by Consul 1.8.7.
    const CONSUL_SERVICE: &str = r#"{"Token":"","Service":{"ID":"web-1","Service":"web","Tags":["a"],"Address":"10.0.0.1","TaggedAddresses":{"lan_ipv4":{"Address":"10.0.0.1","Port":80},"wan_ipv4":{"Address":"10.0.0.1","Port":80}},"Meta":{"k":"v"},"Port":80,"Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,"Proxy":{"MeshGateway":{},"Expose":{}},"Connect":{},"CreateIndex":0,"ModifyIndex":0},"Source":"remote"}"#;
    const CONSUL_CHECK: &str = r#"{"Check":{"Node":"golden-a","CheckID":"service:web-1:2","Name":"Service 'web' check","Status":"critical","Notes":"","Output":"","ServiceID":"web-1","ServiceName":"web","ServiceTags":["a"],"Type":"http","Definition":{},"CreateIndex":0,"ModifyIndex":0},"ChkType":{"CheckID":"","Name":"","Status":"","Notes":"","ScriptArgs":null,"HTTP":"http://127.0.0.1:38500/","Header":{"a":["b"]},"Method":"","Body":"","TCP":"","Interval":10000000000,"AliasNode":"","AliasService":"","DockerContainerID":"","Shell":"","GRPC":"","GRPCUseTLS":false,"TLSSkipVerify":false,"Timeout":0,"TTL":0,"SuccessBeforePassing":0,"FailuresBeforeCritical":0,"ProxyHTTP":"","ProxyGRPC":"","DeregisterCriticalServiceAfter":0,"OutputMaxSize":0},"Token":"","Source":"remote"}"#;

    #[test]
    fn the_file_names_are_consuls() {
        assert_eq!(file_name("web-1"), "a2e3a94e0befb3546bfea8a1cb24ac48");
        assert_eq!(file_name("service:web-1:2"), "c59b38a58713fa28bd4a03134f9f7254");
    }

    #[test]
    fn a_service_file_of_consul_is_read_and_written_byte_for_byte() {
        let stored = decode_service(CONSUL_SERVICE.as_bytes()).unwrap();
        assert_eq!((stored.row.id.as_str(), stored.row.port), ("web-1", 80));
        assert_eq!(stored.source, Source::Remote);
        let local = LocalService {
            row: Arc::new(stored.row),
            source: stored.source,
            token: stored.token,
            hash: String::new(),
        };
        assert_eq!(String::from_utf8(encode_service(&local)).unwrap(), CONSUL_SERVICE);
    }

    #[test]
    fn a_check_file_of_consul_is_read_and_survives_the_round() {
        let stored = decode_check(CONSUL_CHECK.as_bytes()).unwrap();
        let definition = stored.definition.as_ref().unwrap();
        assert_eq!(definition.http, "http://127.0.0.1:38500/");
        assert_eq!(definition.interval_ns, 10_000_000_000);
        assert_eq!(definition.header["a"], ["b"]);
        assert_eq!(decode_check(&encode_check(&stored)).unwrap(), stored);
    }

    #[test]
    fn a_state_survives_the_round() {
        let text = r#"{"CheckID":"nodechk","Output":"hello","Status":"passing","Expires":1795362961}"#;
        let state = decode_state(text.as_bytes()).unwrap();
        assert_eq!((state.status, state.expires_unix), (Status::Passing, 1_795_362_961));
        assert_eq!(encode_state(&state), text.as_bytes());
    }

    #[test]
    fn damaged_files_are_refused_with_a_reason() {
        for bytes in [&b""[..], b"{", b"[]", b"{}", b"\xff\x00", &CONSUL_SERVICE.as_bytes()[..99]] {
            assert!(decode_service(bytes).is_err());
            assert!(decode_check(bytes).is_err());
            assert!(decode_state(bytes).is_err());
        }
    }
}
