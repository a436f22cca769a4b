//! One run of one check: does what the plan says, within its timeout, and words the result as Consul does.

use std::io;
use std::time::Duration;

use super::connect::system_text;
use super::output::{Tail, script_text};
use super::plan::{Finding, HttpProbe, Plan, Probe};
use super::tls::TlsConfigs;
use super::{docker, http_client, http2, network};
use crate::config::duration;
use crate::runtime::{process, time};
use crate::store::model::Status;

/// Runs a scheduled check once. Never fails: what goes wrong is a critical finding.
pub async fn run(plan: &Plan, configs: &TlsConfigs) -> Finding {
    match &plan.probe {
        Probe::Script { args } => script(args, plan.timeout, plan.output_max).await,
        probe => match time::timeout(plan.timeout, probe_once(probe, plan, configs)).await {
            Some(finding) => finding,
            None => timed_out(probe, plan.timeout),
        },
    }
}

async fn probe_once(probe: &Probe, plan: &Plan, configs: &TlsConfigs) -> Finding {
    match probe {
        Probe::Http(http) => ask_http(http, plan, configs).await,
        Probe::Tcp { address, tls } => network::tcp(address, tls.as_ref(), plan.timeout, configs).await,
        Probe::Udp { address } => network::udp(address, plan.timeout).await,
        Probe::Grpc { address, service, tls } => {
            http2::grpc(address, service, tls.as_ref(), plan.timeout, configs).await
        }
        Probe::H2Ping { address, tls } => http2::ping(address, tls.as_ref(), plan.timeout, configs).await,
        Probe::OsService { name } => os_service(name, plan.timeout).await,
        Probe::Docker { container, shell, args } => {
            docker::exec(container, shell, args, plan.timeout, plan.output_max).await
        }
        // These have a runner or an evaluation of their own.
        Probe::Script { .. } | Probe::Ttl { .. } | Probe::Alias { .. } => {
            Finding::critical("this kind of check is not run on a schedule")
        }
    }
}

fn timed_out(probe: &Probe, limit: Duration) -> Finding {
    Finding::critical(match probe {
        Probe::Http(http) => format!(
            "{} \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            http_client::capitalised(if http.method.is_empty() { "GET" } else { &http.method }),
            http.url
        ),
        Probe::Tcp { address, .. } => format!("dial tcp {address}: i/o timeout"),
        Probe::Grpc { .. } => "context deadline exceeded".to_owned(),
        _ => format!("Timed out ({}) running check", go_text(limit)),
    })
}

async fn ask_http(http: &HttpProbe, plan: &Plan, configs: &TlsConfigs) -> Finding {
    let answer = match http_client::ask(http, configs, plan.timeout, plan.output_max).await {
        Ok(answer) => answer,
        Err(why) => return Finding::critical(why),
    };
    let status = match answer.status {
        200..=299 => Status::Passing,
        429 => Status::Warning,
        _ => Status::Critical,
    };
    let method = if http.method.is_empty() { "GET" } else { &http.method };
    let output = format!(
        "HTTP {method} {}: {} {} Output: {}",
        http.url,
        answer.status,
        answer.reason,
        answer.body.text()
    );
    Finding { status, output }
}

async fn script(args: &[String], timeout: Duration, output_max: usize) -> Finding {
    let exit = match run_program(args, timeout, output_max).await {
        Ok(exit) => exit,
        Err(why) => return Finding::critical(not_started(&why)),
    };
    if exit.timed_out {
        let mut output = format!("Timed out ({}) running check", go_text(timeout));
        if !exit.output.is_empty() {
            output.push_str("\n\n");
            output.push_str(&script_text(&exit.output, exit.total));
        }
        return Finding::critical(output);
    }
    let status = match exit.code {
        Some(0) => Status::Passing,
        Some(1) => Status::Warning,
        _ => Status::Critical,
    };
    Finding { status, output: script_text(&exit.output, exit.total) }
}

/// Why a program did not start, in Go's words.
fn not_started(error: &io::Error) -> String {
    let cannot = error.get_ref().and_then(|cause| cause.downcast_ref::<process::CannotRun>());
    let Some(process::CannotRun { program, why }) = cannot else { return system_text(error) };
    let program = program.to_string_lossy();
    if why.kind() == io::ErrorKind::NotFound && !program.contains('/') {
        return format!("exec: {program:?}: executable file not found in $PATH");
    }
    format!("fork/exec {program}: {}", system_text(why))
}

async fn os_service(name: &str, timeout: Duration) -> Finding {
    let argv = ["systemctl", "is-active", "--", name].map(str::to_owned);
    match run_program(&argv, timeout, 256).await {
        Ok(exit) if exit.timed_out => {
            Finding::critical(format!("Timed out ({}) running check", go_text(timeout)))
        }
        Ok(exit) => {
            let mut said = Tail::new(256);
            said.push(&exit.output);
            match (exit.code, said.text().trim()) {
                (Some(0), _) => Finding::passing(format!("Service \"{name}\" is healthy")),
                // Not there yet, or not any more: worth a look, not yet a failure.
                (_, word @ ("activating" | "reloading" | "deactivating")) => {
                    Finding { status: Status::Warning, output: format!("Service \"{name}\" is {word}") }
                }
                (_, word) => Finding::critical(format!("Service \"{name}\" is not healthy: {word}")),
            }
        }
        Err(why) => Finding::critical(format!(
            "Service \"{name}\" cannot be looked at: running systemctl failed: {why}; OS service checks need systemd"
        )),
    }
}

async fn run_program(
    args: &[String],
    timeout: Duration,
    output_max: usize,
) -> std::io::Result<process::Exit> {
    let argv = args.iter().map(Into::into).collect();
    let spec = process::Spec { argv, timeout: Some(timeout), output_max, ..process::Spec::default() };
    process::run(spec).await
}

/// A length of time as Go writes it: `400ms`, `1.5s`, `1m0s`.
pub fn go_text(length: Duration) -> String {
    duration::format(i64::try_from(length.as_nanos()).unwrap_or(i64::MAX))
}
