//! `services register`, `services deregister`.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::client::{Client, Reply};
use super::kv::connecting;
use super::usage::Command;
use super::{Group, Outcome, Program, int, list, value};
use crate::config::flags::Parsed;
use crate::config::settings::Settings;
use crate::config::{CheckDefinition, ServiceDefinition, duration, source};

/// The commands of `services`.
pub const GROUP: Group =
    Group { name: "services", summary: "Interact with services", programs: &[DEREGISTER, REGISTER] };

const REGISTER: Program = Program {
    command: Command {
        name: "register",
        summary: "Register services with the local agent",
        usage: "services register [options] [FILE...]",
        text: "Registers services with the agent, from configuration files (HCL or JSON) or from flags. Whoever registers must deregister when done.",
    },
    flags: &[
        value("address", "Address of the service."),
        value("id", "ID of the service; its name when not given."),
        value("kind", "The service's kind."),
        list("meta", "Metadata, key=value. Can be specified multiple times."),
        value("name", "Name of the service."),
        int("port", "Port of the service."),
        list("tag", "Tag of the service. Can be specified multiple times."),
        list("tagged-address", "Address under a tag, tag=address. Can be specified multiple times."),
        value("namespace", "Namespaces are not available; 'default' is accepted."),
    ],
    run: register,
};

const DEREGISTER: Program = Program {
    command: Command {
        name: "deregister",
        summary: "Deregister services with the local agent",
        usage: "services deregister [options] [FILE...]",
        text: "Removes services from the agent, by -id or those that configuration files define.",
    },
    flags: &[
        value("id", "ID of the service."),
        value("namespace", "Namespaces are not available; 'default' is accepted."),
    ],
    run: deregister,
};

/// `services register`.
fn register(flags: &Parsed) -> Outcome {
    let from_flags = flags.value("id").or(flags.value("name")).is_some_and(|text| !text.is_empty());
    let services = match (flags.args.is_empty(), from_flags) {
        (true, false) => {
            return Err("Service registration requires at least one argument or flags.".to_owned());
        }
        (false, true) => return Err("Service registration requires arguments or -id, not both.".to_owned()),
        (true, true) => vec![service_of_flags(flags)?],
        (false, false) => services_of_files(&flags.args)?,
    };
    let client = Client::new(flags).map_err(connecting)?;
    for service in &services {
        let failed = |why| format!("Error registering service {:?}: {why}", service.name);
        let body = api_body(service).to_string();
        let reply = client.put("/v1/agent/service/register", &[], body.as_bytes());
        reply.and_then(Reply::ok).map_err(failed)?;
        println!("Registered service: {}", service.name);
    }
    Ok(ExitCode::SUCCESS)
}

/// `services deregister`.
fn deregister(flags: &Parsed) -> Outcome {
    let id = flags.value("id").unwrap_or_default();
    let ids: Vec<String> = match (flags.args.is_empty(), id.is_empty()) {
        (true, true) => {
            return Err("Service deregistration requires at least one argument or -id.".to_owned());
        }
        (false, false) => {
            return Err("Service deregistration requires arguments or -id, not both.".to_owned());
        }
        (true, false) => vec![id.to_owned()],
        (false, true) => {
            services_of_files(&flags.args)?.iter().map(|s| s.effective_id().to_owned()).collect()
        }
    };
    let client = Client::new(flags).map_err(connecting)?;
    for id in &ids {
        let failed = |why| format!("Error deregistering service {id:?}: {why}");
        let reply = client.put(&format!("/v1/agent/service/deregister/{id}"), &[], &[]);
        reply.and_then(Reply::ok).map_err(failed)?;
        println!("Deregistered service: {id}");
    }
    Ok(ExitCode::SUCCESS)
}

/// The service that flags describe.
fn service_of_flags(flags: &Parsed) -> Result<ServiceDefinition, String> {
    let text = |name: &str| flags.value(name).unwrap_or_default().to_owned();
    let pairs = |name: &str| {
        let pair = |text: &&str| match text.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => {
                let why = format!("Missing \"=\" value in argument: {text}");
                Err(format!("invalid value {text:?} for flag -{name}: {why}"))
            }
        };
        flags.values(name).iter().map(pair).collect::<Result<Vec<_>, _>>()
    };
    let mut out = ServiceDefinition {
        kind: text("kind"),
        id: text("id"),
        name: text("name"),
        address: text("address"),
        port: flags.int("port").unwrap_or(0),
        tags: flags.values("tag").into_iter().map(str::to_owned).collect(),
        meta: pairs("meta")?.into_iter().collect(),
        ..ServiceDefinition::default()
    };
    for (tag, address) in pairs("tagged-address")? {
        // The port of the service stands in where the address has none.
        let (address, port) = match address.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => (host.to_owned(), port.parse().unwrap_or(0)),
            _ => (address, out.port),
        };
        out.tagged_addresses.insert(tag, crate::store::model::ServiceAddress { address, port });
    }
    Ok(out)
}

/// The services that files define.
fn services_of_files(paths: &[String]) -> Result<Vec<ServiceDefinition>, String> {
    let failed = |why: &dyn std::fmt::Display| format!("Error: {why}");
    let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
    let mut settings = Settings::default();
    let mut warnings = Vec::new();
    for (path, format) in source::files(&paths, None, &mut warnings).map_err(|e| failed(&e))? {
        let value = source::read(&path, format).map_err(|e| failed(&e))?;
        settings.add(&path.display().to_string(), &value).map_err(|e| failed(&e.trim_end()))?;
    }
    warnings.iter().for_each(|warning| eprintln!("{warning}"));
    Ok(settings.services)
}

/// A service as the API takes it; what is unset stays out.
fn api_body(service: &ServiceDefinition) -> Value {
    let mut out = Map::new();
    put_text(&mut out, "Kind", &service.kind);
    put_text(&mut out, "ID", &service.id);
    put_text(&mut out, "Name", &service.name);
    put_text(&mut out, "Address", &service.address);
    put(&mut out, "Tags", json!(service.tags), !service.tags.is_empty());
    put(&mut out, "Meta", json!(service.meta), !service.meta.is_empty());
    put(&mut out, "Port", json!(service.port), service.port != 0);
    put(&mut out, "EnableTagOverride", json!(true), service.enable_tag_override);
    if let Some(weights) = &service.weights {
        out.insert("Weights".to_owned(), json!({"Passing": weights.passing, "Warning": weights.warning}));
    }
    let tagged: Map<String, Value> = service
        .tagged_addresses
        .iter()
        .map(|(tag, a)| (tag.clone(), json!({"Address": a.address, "Port": a.port})))
        .collect();
    put(&mut out, "TaggedAddresses", json!(tagged), !tagged.is_empty());
    let checks: Vec<Value> = service.checks.iter().map(check_body).collect();
    put(&mut out, "Checks", json!(checks), !checks.is_empty());
    for (name, block) in [("Proxy", &service.proxy), ("Connect", &service.connect)] {
        out.extend(block.clone().map(|block| (name.to_owned(), block)));
    }
    Value::Object(out)
}

/// A check of a service as the API takes it.
fn check_body(check: &CheckDefinition) -> Value {
    let mut out = Map::new();
    // The API knows programs only: the shell is one.
    let shell = || ["/bin/sh", "-c", &check.script].map(str::to_owned).to_vec();
    let args = if check.script.is_empty() { check.args.clone() } else { shell() };
    for (name, text) in [
        ("CheckID", &check.id),
        ("Name", &check.name),
        ("Notes", &check.notes),
        ("Status", &check.status),
        ("HTTP", &check.http),
        ("Method", &check.method),
        ("Body", &check.body),
        ("TCP", &check.tcp),
        ("UDP", &check.udp),
        ("GRPC", &check.grpc),
        ("H2PING", &check.h2ping),
        ("OSService", &check.os_service),
        ("DockerContainerID", &check.docker_container_id),
        ("Shell", &check.shell),
        ("AliasNode", &check.alias_node),
        ("AliasService", &check.alias_service),
        ("TLSServerName", &check.tls_server_name),
    ] {
        put_text(&mut out, name, text);
    }
    put(&mut out, "ScriptArgs", json!(args), !args.is_empty());
    put(&mut out, "Header", json!(check.header), !check.header.is_empty());
    for (name, on) in [
        ("GRPCUseTLS", check.grpc_use_tls),
        ("TCPUseTLS", check.tcp_use_tls),
        ("TLSSkipVerify", check.tls_skip_verify),
        ("DisableRedirects", check.disable_redirects),
    ] {
        put(&mut out, name, json!(true), on);
    }
    out.extend(check.h2ping_use_tls.map(|on| ("H2PingUseTLS".to_owned(), json!(on))));
    for (name, ns) in [
        ("Interval", check.interval_ns),
        ("Timeout", check.timeout_ns),
        ("TTL", check.ttl_ns),
        ("DeregisterCriticalServiceAfter", check.deregister_critical_service_after_ns),
    ] {
        put(&mut out, name, json!(duration::format(ns)), ns != 0);
    }
    for (name, n) in [
        ("OutputMaxSize", check.output_max_size),
        ("SuccessBeforePassing", check.success_before_passing),
        ("FailuresBeforeWarning", check.failures_before_warning),
        ("FailuresBeforeCritical", check.failures_before_critical),
    ] {
        put(&mut out, name, json!(n), n != 0);
    }
    Value::Object(out)
}

/// Puts a value in when it is wanted.
fn put(out: &mut Map<String, Value>, name: &str, value: Value, wanted: bool) {
    if wanted {
        out.insert(name.to_owned(), value);
    }
}

/// Puts a text in unless it is empty.
fn put_text(out: &mut Map<String, Value>, name: &str, text: &str) {
    put(out, name, json!(text), !text.is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_defines_survives_the_way_through_the_api() {
        let block = json!({
            "id": "a-1", "name": "a", "port": 1, "tags": ["x"], "meta": {"k": "v"}, "weights": {"passing": 3},
            "tagged_addresses": {"wan": {"address": "1.1.1.1", "port": 2}}, "enable_tag_override": true,
            "checks": [{"id": "c", "http": "http://x", "interval": "10s", "header": {"h": ["v"]}, "tls_skip_verify": true},
                {"args": ["/bin/true"], "interval": "1s", "timeout": "250ms", "failures_before_critical": 2},
                {"ttl": "1m30s", "status": "passing", "deregister_critical_service_after": "1h"},
                {"h2ping": "x:1", "interval": "1s", "h2ping_use_tls": false}],
        });
        let service = ServiceDefinition::from_config(&block).expect("decodes");
        let again = ServiceDefinition::from_api(api_body(&service).to_string().as_bytes());
        assert_eq!(again, Ok(service));
    }
}
