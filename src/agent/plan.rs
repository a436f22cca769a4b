//! From a definition to what the runners do.

use crate::config::definition::{CheckDefinition, CheckKind};
use crate::health::plan::{
    HttpProbe, INTERVAL_MIN, NETWORK_TIMEOUT, Plan, Probe, SCRIPT_TIMEOUT, Thresholds, TlsProbe,
};

/// The plan of a validated definition. `output_max` is the agent's limit; the definition may only lower it.
pub fn plan_of(definition: &CheckDefinition, output_max: usize) -> Plan {
    let probe = probe_of(definition);
    let scheduled = probe.is_scheduled();
    let default_timeout = match probe {
        Probe::Script { .. } | Probe::Docker { .. } => SCRIPT_TIMEOUT,
        _ => NETWORK_TIMEOUT,
    };
    let count = |n: i64| u32::try_from(n.max(0)).unwrap_or(u32::MAX);
    Plan {
        probe,
        interval: if scheduled { definition.interval().max(INTERVAL_MIN) } else { definition.interval() },
        timeout: definition.timeout().unwrap_or(default_timeout),
        thresholds: Thresholds {
            success_before_passing: count(definition.success_before_passing),
            failures_before_warning: count(definition.failures_before_warning),
            failures_before_critical: count(definition.failures_before_critical),
        },
        output_max: match usize::try_from(definition.output_max_size) {
            Ok(own) if own > 0 => own.min(output_max),
            _ => output_max,
        },
    }
}

fn probe_of(definition: &CheckDefinition) -> Probe {
    let tls =
        TlsProbe { skip_verify: definition.tls_skip_verify, server_name: definition.tls_server_name.clone() };
    match definition.kind() {
        CheckKind::Ttl => Probe::Ttl { ttl: definition.ttl().unwrap_or_default() },
        CheckKind::Http => Probe::Http(HttpProbe {
            url: definition.http.clone(),
            method: definition.method.clone(),
            header: definition.header.clone(),
            body: definition.body.clone(),
            disable_redirects: definition.disable_redirects,
            tls,
        }),
        CheckKind::Tcp => {
            Probe::Tcp { address: definition.tcp.clone(), tls: definition.tcp_use_tls.then_some(tls) }
        }
        CheckKind::Udp => Probe::Udp { address: definition.udp.clone() },
        CheckKind::Grpc => {
            let (address, service) = definition.grpc.split_once('/').unwrap_or((&definition.grpc, ""));
            Probe::Grpc {
                address: address.to_owned(),
                service: service.to_owned(),
                tls: definition.grpc_use_tls.then_some(tls),
            }
        }
        CheckKind::H2Ping => Probe::H2Ping {
            address: definition.h2ping.clone(),
            tls: definition.h2ping_use_tls.unwrap_or(true).then_some(tls),
        },
        CheckKind::OsService => Probe::OsService { name: definition.os_service.clone() },
        CheckKind::Docker => Probe::Docker {
            container: definition.docker_container_id.clone(),
            shell: definition.shell.clone(),
            args: script_args(definition),
        },
        CheckKind::Script => Probe::Script { args: script_args(definition) },
        CheckKind::Alias => {
            Probe::Alias { node: definition.alias_node.clone(), service: definition.alias_service.clone() }
        }
    }
}

/// `script` is a line for the shell, as in the days before `args`.
fn script_args(definition: &CheckDefinition) -> Vec<String> {
    if definition.args.is_empty() {
        vec!["/bin/sh".to_owned(), "-c".to_owned(), definition.script.clone()]
    } else {
        definition.args.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn intervals_and_limits_are_bounded() {
        let definition = CheckDefinition {
            tcp: "127.0.0.1:1".into(),
            interval_ns: 250_000_000,
            output_max_size: 9000,
            ..Default::default()
        };
        let plan = plan_of(&definition, 4096);
        assert_eq!((plan.interval, plan.timeout), (Duration::from_secs(1), NETWORK_TIMEOUT));
        assert_eq!(plan.output_max, 4096);
        let plan = plan_of(&CheckDefinition { output_max_size: 10, ..definition }, 4096);
        assert_eq!(plan.output_max, 10);
    }

    #[test]
    fn a_script_line_goes_through_the_shell() {
        let definition = CheckDefinition { script: "exit 1".into(), interval_ns: 1, ..Default::default() };
        let plan = plan_of(&definition, 4096);
        assert_eq!(plan.probe, Probe::Script { args: vec!["/bin/sh".into(), "-c".into(), "exit 1".into()] });
        assert_eq!(plan.timeout, SCRIPT_TIMEOUT);
    }

    #[test]
    fn the_grpc_target_names_server_and_service() {
        let definition =
            CheckDefinition { grpc: "127.0.0.1:9/pkg.Name".into(), interval_ns: 1, ..Default::default() };
        let Probe::Grpc { address, service, tls } = plan_of(&definition, 1).probe else { panic!("no gRPC") };
        assert_eq!((address.as_str(), service.as_str(), tls), ("127.0.0.1:9", "pkg.Name", None));
    }
}
