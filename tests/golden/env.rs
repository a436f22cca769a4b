//! One environment: its agents as processes in a temporary folder, and the stubs they talk to.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::case::{AgentSpec, EnvSpec, Probe};
use super::matching::Bindings;
use super::support::http::{Reply, Request};
use super::support::ports::free_port;
use super::support::process::{self, Process};
use super::support::stubs::Stubs;

const PORT_KINDS: &[&str] = &["http", "dns", "server", "serf_lan", "serf_wan"];
const PROBE_PAUSE: Duration = Duration::from_millis(50);
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// What an environment that says nothing about it is given to write its own first registrations.
const SETTLE_DEFAULT: Duration = Duration::from_millis(300);

pub struct Env {
    spec: EnvSpec,
    processes: BTreeMap<String, Process>,
    _stubs: Stubs,
    folder: TempDir,
    pub variables: BTreeMap<String, Value>,
}

impl Env {
    /// Starts the agents and waits until they are ready, at most for `limit`.
    pub fn start(spec: &EnvSpec, limit: Duration) -> Result<Env, String> {
        let start = || -> io::Result<Env> {
            let folder = tempfile::Builder::new().prefix(&format!("golden-{}-", spec.name)).tempdir()?;
            let stubs = Stubs::start()?;
            let mut variables = BTreeMap::from([
                ("stub.http".into(), stubs.http.into()),
                ("stub.dns".into(), stubs.dns.into()),
                ("stub.closed".into(), stubs.closed.into()),
            ]);
            for agent in &spec.agents {
                for kind in PORT_KINDS {
                    variables.insert(format!("{}.{kind}", agent.name), free_port().into());
                }
                let dir = folder.path().join(&agent.name).display().to_string();
                variables.insert(format!("{}.dir", agent.name), dir.into());
            }
            Ok(Env { spec: spec.clone(), processes: BTreeMap::new(), _stubs: stubs, folder, variables })
        };
        let mut env = start().map_err(|error| error.to_string())?;
        for agent in spec.agents.iter().filter(|agent| !agent.delayed) {
            env.start_agent(&agent.name).map_err(|error| format!("starting {}: {error}", agent.name))?;
        }
        env.wait_ready(limit)?;
        Ok(env)
    }

    /// Whether the catalog is filled by the agents' own configuration: they put into one commit what is due together, and
    /// how much is due by then hangs on when the first checks ran.
    pub fn registers_itself(&self) -> bool {
        let defined = |agent: &AgentSpec| agent.config.get("services").is_some();
        self.spec.agents.iter().any(defined)
    }

    pub fn port(&self, agent: &str, kind: &str) -> u16 {
        let port = self.variables.get(&format!("{agent}.{kind}")).and_then(Value::as_u64);
        port.unwrap_or_else(|| panic!("no agent {agent} in environment {}", self.spec.name)) as u16
    }

    pub fn start_agent(&mut self, name: &str) -> io::Result<()> {
        let agent =
            self.spec.agents.iter().find(|agent| agent.name == name).expect("an agent of the environment");
        let dir: PathBuf = self.folder.path().join(name);
        fs::create_dir_all(&dir)?;
        let bindings = Bindings::new(self.variables.clone());
        let config = dir.join("agent.json");
        fs::write(&config, serde_json::to_vec_pretty(&bindings.fill_json(&agent.config))?)?;
        let mut args: Vec<String> = agent.args.iter().map(|arg| bindings.fill(arg)).collect();
        args.push(format!("-config-file={}", config.display()));
        self.processes.insert(name.to_owned(), Process::agent(&dir, &args)?);
        Ok(())
    }

    pub fn stop_agent(&mut self, name: &str, signal: i32) {
        let Some(mut process) = self.processes.remove(name) else { return };
        if signal != libc::SIGKILL {
            process.signal(signal);
            process.wait(STOP_LIMIT);
        }
        process.kill();
    }

    /// The agents that have ended by themselves, and how.
    pub fn dead(&mut self) -> Vec<String> {
        let ended = self.processes.iter_mut().filter_map(|(name, process)| {
            let status = process.ended()?;
            Some(format!("agent {name} ended with {}\n{}", process::describe(status), process.log_tail()))
        });
        ended.collect()
    }

    fn wait_ready(&mut self, limit: Duration) -> Result<(), String> {
        let start = Instant::now();
        for probe in self.spec.ready.clone() {
            loop {
                if let Some(dead) = self.dead().into_iter().next() {
                    return Err(dead);
                }
                let last = match self.ask(&probe) {
                    Ok(reply) if is_ready(&probe, &reply) => break,
                    Ok(reply) => format!("{} {}", reply.status, reply.text()),
                    Err(error) => error.to_string(),
                };
                if start.elapsed() > limit {
                    let tail = self.processes.get(&probe.agent).map(Process::log_tail).unwrap_or_default();
                    return Err(format!("not ready: {} (last: {last})\n{tail}", probe.path));
                }
                std::thread::sleep(PROBE_PAUSE);
            }
        }
        std::thread::sleep(self.spec.settle_ms.map_or(SETTLE_DEFAULT, Duration::from_millis));
        Ok(())
    }

    fn ask(&self, probe: &Probe) -> io::Result<Reply> {
        let mut request = Request::new("GET", &probe.path);
        request.headers = probe.headers.clone().into_iter().collect();
        request.send(self.port(&probe.agent, "http"))
    }
}

fn is_ready(probe: &Probe, reply: &Reply) -> bool {
    if reply.status != probe.status.unwrap_or(200) || !reply.text().contains(&probe.contains) {
        return false;
    }
    let items = match serde_json::from_slice(&reply.decoded()) {
        Ok(Value::Array(items)) => items.len(),
        Ok(Value::Object(map)) => map.len(),
        Ok(Value::String(text)) => text.len(),
        Ok(_) => 0,
        Err(_) => return false,
    };
    items >= probe.min_items
}
