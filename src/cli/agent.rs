//! `agent`: runs an agent in the foreground until it is told to stop.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use super::usage::{self, Command};
use crate::config::sources::{Sources, agent_flags};
use crate::config::{Config, ListenAddr, flags};
use crate::logs;
use crate::node::{self, End};
use crate::runtime::memory::SmallPages;
use crate::runtime::signal;

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
    // Before any thread starts, that of the logs too: one that does not block them would die of them, and all with it.
    signal::block_in_main();
    let sources = Sources::from_flags(parsed).map_err(|error| error.to_string())?;
    let config = sources.load().map_err(|error| error.to_string())?;
    // A client never holds so much that huge pages would pay.
    let _small = (!config.server).then(SmallPages::hold);
    let logs = logs::start(&config.log).map_err(|error| format!("cannot start the logs: {error}"))?;
    announce(&config);
    let reloaded = logs.clone();
    let reload = move || -> Result<Config, String> {
        let config = sources.load().map_err(|error| error.to_string())?;
        reloaded.set_level(config.log.level);
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
    let text = format!(
        "==> Starting Muster agent...\n           Version: '{}' (Consul {})\n         Node name: '{}'\n        \
         Datacenter: '{}'\n            Server: {} (Bootstrap: {})\n       \
         Client Addr: [{}] (HTTP: {}, HTTPS: {}, gRPC: -1, DNS: {})\n      \
         Cluster Addr: {} (LAN: {}, WAN: {})\n\n==> Log data will now stream in as it occurs:\n\n",
        env!("CARGO_PKG_VERSION"),
        super::CONSUL_VERSION,
        config.node_name,
        config.datacenter,
        config.server,
        config.bootstrap,
        client.join(" "),
        port(p.http),
        port(p.https),
        port(p.dns),
        a.advertise,
        p.serf_lan,
        port(p.serf_wan)
    );
    // Nobody may be listening: that is no reason not to start.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// The host part of a client address.
fn client_host(addr: &ListenAddr) -> String {
    match addr {
        ListenAddr::Tcp(addr) => addr.ip().to_string(),
        ListenAddr::Unix(path) => path.display().to_string(),
    }
}
