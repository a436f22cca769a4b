//! An agent of the binary under test, and the questions that most tests ask it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::http::{self, Reply};
use super::support::ports::free_port;
use super::support::process::{self, Process};
use super::support::wait;

/// How long an agent may take until it answers. It takes milliseconds; a machine that builds something takes longer.
pub const START_LIMIT: Duration = Duration::from_secs(20);
/// For anything that takes a moment and has no bound of its own.
pub const SOON: Duration = Duration::from_secs(10);

/// The ports of an agent.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub http: u16,
    pub dns: u16,
    pub server: u16,
    pub serf_lan: u16,
    pub serf_wan: u16,
}

impl Ports {
    pub fn free() -> Ports {
        let [http, dns, server, serf_lan, serf_wan] = std::array::from_fn(|_| free_port());
        Ports { http, dns, server, serf_lan, serf_wan }
    }

    fn config(&self) -> Value {
        let Ports { http, dns, server, serf_lan, serf_wan } = self;
        json!({"http": http, "dns": dns, "server": server, "serf_lan": serf_lan, "serf_wan": serf_wan, "grpc": -1})
    }
}

/// A running agent. Its folder: `agent.json`, `conf.d/` for definitions, `data/`, and what it writes in `log`.
pub struct Agent {
    pub process: Process,
    pub ports: Ports,
    folder: TempDir,
    args: Vec<String>,
}

impl Agent {
    /// A dev-mode agent with script checks, ready to answer; `extra` goes into its configuration.
    pub fn dev(extra: Value) -> Agent {
        let folder = new_folder();
        write_config(folder.path(), Ports::free(), extra).run(folder, &["-dev"])
    }

    /// A single server with a data folder, ready to answer.
    pub fn server(extra: Value) -> Agent {
        let folder = new_folder();
        let data = json!({"data_dir": folder.path().join("data"), "bootstrap_expect": 1});
        write_config(folder.path(), Ports::free(), merged(data, extra)).run(folder, &["-server"])
    }

    /// A client that knows no server, with a data folder.
    pub fn client(extra: Value) -> Agent {
        let folder = new_folder();
        let data = json!({"data_dir": folder.path().join("data")});
        write_config(folder.path(), Ports::free(), merged(data, extra)).run(folder, &[])
    }

    /// Ends the agent with SIGTERM and starts it again in the same folder.
    pub fn restart(mut self) -> Agent {
        self.process.signal(libc::SIGTERM);
        assert!(self.process.wait(SOON).is_some(), "the agent does not end:\n{}", self.process.log_tail());
        let Agent { ports, folder, args, process } = self;
        drop(process);
        let process = Process::agent(folder.path(), &args).expect("starting the agent");
        let mut agent = Agent { process, ports, folder, args };
        agent.wait_ready();
        agent
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a definition file into the configuration folder.
    pub fn define(&self, name: &str, definition: &Value) -> PathBuf {
        let path = self.folder().join("conf.d").join(name);
        fs::write(&path, definition.to_string()).expect("writing a definition");
        path
    }

    pub fn get(&self, path: &str) -> Reply {
        http::get(self.ports.http, path)
            .unwrap_or_else(|error| panic!("GET {path}: {error}\n{}", self.process.log_tail()))
    }

    /// PUTs JSON and requires status 200.
    pub fn put(&self, path: &str, body: &Value) -> Reply {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let reply = http::put(self.ports.http, path, body);
        let reply = reply.unwrap_or_else(|error| panic!("PUT {path}: {error}\n{}", self.process.log_tail()));
        assert_eq!(reply.status, 200, "PUT {path}: {}", reply.text());
        reply
    }

    /// The ids of the local services.
    pub fn service_ids(&self) -> Vec<String> {
        self.get("/v1/agent/services").json().as_object().expect("an object").keys().cloned().collect()
    }

    fn wait_ready(&mut self) {
        let start = Instant::now();
        let serves = self.args.iter().any(|arg| arg == "-dev" || arg == "-server");
        let (path, sign) = match serves {
            true => ("/v1/health/service/consul", "serfHealth"),
            false => ("/v1/agent/self", "\"Member\""),
        };
        loop {
            if let Some(status) = self.process.ended() {
                panic!("the agent ended with {}\n{}", process::describe(status), self.process.log_tail());
            }
            let last = match http::get(self.ports.http, path) {
                Ok(reply) if reply.status == 200 && reply.text().contains(sign) => return,
                Ok(reply) => format!("{} {}", reply.status, reply.text()),
                Err(error) => error.to_string(),
            };
            let log = || self.process.log_tail();
            assert!(
                start.elapsed() < START_LIMIT,
                "no answer within {START_LIMIT:?} (last: {last})\n{}",
                log()
            );
            std::thread::sleep(wait::PAUSE);
        }
    }
}

/// What is written for an agent that is not yet started.
pub struct Prepared {
    ports: Ports,
}

/// Writes `agent.json` and the folder of definitions.
pub fn write_config(folder: &Path, ports: Ports, extra: Value) -> Prepared {
    let base = json!({
        "node_name": "blackbox",
        "bind_addr": "127.0.0.1",
        "client_addr": "127.0.0.1",
        "ports": ports.config(),
        "enable_script_checks": true,
        "disable_update_check": true,
    });
    fs::create_dir_all(folder.join("conf.d")).expect("a folder for definitions");
    fs::write(folder.join("agent.json"), merged(base, extra).to_string()).expect("writing the configuration");
    Prepared { ports }
}

impl Prepared {
    fn run(self, folder: TempDir, mode: &[&str]) -> Agent {
        let args = arguments(folder.path(), mode);
        let process = Process::agent(folder.path(), &args).expect("starting the agent");
        let mut agent = Agent { process, ports: self.ports, folder, args };
        agent.wait_ready();
        agent
    }
}

/// The arguments of an agent whose configuration is in `folder`.
pub fn arguments(folder: &Path, mode: &[&str]) -> Vec<String> {
    let mut args: Vec<String> = mode.iter().map(|arg| (*arg).to_owned()).collect();
    args.push(format!("-config-file={}", folder.join("agent.json").display()));
    args.push(format!("-config-dir={}", folder.join("conf.d").display()));
    args
}

pub fn new_folder() -> TempDir {
    tempfile::Builder::new().prefix("blackbox-").tempdir().expect("a temporary folder")
}

fn merged(mut base: Value, extra: Value) -> Value {
    if let (Some(base), Value::Object(extra)) = (base.as_object_mut(), extra) {
        base.extend(extra);
    }
    base
}
