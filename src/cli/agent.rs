//! `agent`: runs an agent in the foreground until it is told to stop.

use std::process::ExitCode;
use std::sync::Arc;

use super::usage::{self, Command};
use crate::config::sources::{Sources, agent_flags};
use crate::config::{Config, ListenAddr, flags};
use crate::logs;
use crate::node::{self, End};

/// What the help says.
pub const COMMAND: Command = Command {
    name: "agent",
    summary: "Runs a Consul agent",
    usage: "agent [options]",
    text: "Starts the agent and runs until an interrupt is received. The agent represents a single node in a cluster.",
};

/// Runs `agent` with its arguments.
pub fn main(args: &[String]) -> ExitCode {
    let parsed = match usage::parse(&COMMAND, &agent_flags(), args) {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    match run(&parsed) {
        Ok(End::Graceful) => ExitCode::SUCCESS,
        Ok(End::Stopped) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("==> {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(parsed: &flags::Parsed) -> Result<End, String> {
    let sources = Sources::from_flags(parsed).map_err(|error| error.to_string())?;
    let config = sources.load().map_err(|error| error.to_string())?;
    let logs = logs::start(&config.log).map_err(|error| format!("cannot start the logs: {error}"))?;
    announce(&config);
    warn(&config);
    let reloaded = logs.clone();
    let reload = move || -> Result<Config, String> {
        let config = sources.load().map_err(|error| error.to_string())?;
        reloaded.set_level(config.log.level);
        warn(&config);
        Ok(config)
    };
    let end = node::run(config, Arc::new(reload)).map_err(|failure| failure.to_string());
    logs.flush();
    end
}

/// Says on standard output what is started, in Consul's form.
fn announce(config: &Config) {
    let port = |port: Option<u16>| port.map_or_else(|| "-1".to_owned(), |port| port.to_string());
    let client: Vec<String> = config.addresses.client.iter().map(client_host).collect();
    let (a, p) = (&config.addresses, &config.ports);
    println!("==> Starting Muster agent...");
    println!("           Version: '{}' (Consul {})", env!("CARGO_PKG_VERSION"), super::CONSUL_VERSION);
    println!("         Node name: '{}'", config.node_name);
    println!("        Datacenter: '{}'", config.datacenter);
    println!("            Server: {} (Bootstrap: {})", config.server, config.bootstrap);
    println!(
        "       Client Addr: [{}] (HTTP: {}, HTTPS: {}, gRPC: -1, DNS: {})",
        client.join(" "),
        port(p.http),
        port(p.https),
        port(p.dns)
    );
    println!("      Cluster Addr: {} (LAN: {}, WAN: {})", a.advertise, p.serf_lan, port(p.serf_wan));
    println!("\n==> Log data will now stream in as it occurs:\n");
}

/// The host part of a client address.
fn client_host(addr: &ListenAddr) -> String {
    match addr {
        ListenAddr::Tcp(addr) => addr.ip().to_string(),
        ListenAddr::Unix(path) => path.display().to_string(),
    }
}

/// Logs what is odd about a configuration, and which of its keys do nothing yet.
fn warn(config: &Config) {
    for text in &config.warnings {
        tracing::warn!(target: "agent", "{text}");
    }
    if !config.unsupported_keys.is_empty() {
        let keys = config.unsupported_keys.join(" ");
        tracing::warn!(target: "agent", keys, "These configuration keys are accepted but their features do not exist yet");
    }
}
