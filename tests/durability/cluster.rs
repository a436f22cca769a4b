//! Servers of one cluster as processes in one temporary folder, to be killed and started again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::http;
use super::support::ports::free_port;
use super::support::process::{self, Process};
use super::support::wait;

/// How long a cluster may take until it has a leader that takes writes, all servers up. Elections take a second or
/// two; a machine that builds something else takes longer.
pub const RECOVERY_LIMIT: Duration = Duration::from_secs(60);

/// One server: its folder and ports stay when its process goes.
pub struct Server {
    pub folder: PathBuf,
    pub http: u16,
    rpc: u16,
    process: Option<Process>,
    /// Counts its processes.
    runs: AtomicU32,
}

pub struct Cluster {
    pub servers: Vec<Server>,
}

impl Cluster {
    /// Makes the folders and configurations of `count` servers below `root`; `extra` goes into each configuration.
    pub fn prepare(root: &Path, count: usize, extra: &Value) -> Cluster {
        let ports: Vec<[u16; 5]> = (0..count).map(|_| std::array::from_fn(|_| free_port())).collect();
        let join: Vec<String> = ports.iter().map(|ports| format!("127.0.0.1:{}", ports[3])).collect();
        let servers = ports.iter().enumerate().map(|(number, [http, dns, server, serf_lan, serf_wan])| {
            let folder = root.join(format!("s{number}"));
            let mut config = json!({
                "node_name": format!("s{number}"),
                "node_id": format!("aaaaaaaa-0000-4000-8000-{number:012}"),
                "datacenter": "dc1",
                "bind_addr": "127.0.0.1",
                "client_addr": "127.0.0.1",
                "ports": {
                    "http": http, "dns": dns, "server": server,
                    "serf_lan": serf_lan, "serf_wan": serf_wan, "grpc": -1,
                },
                "data_dir": folder.join("data"),
                "disable_update_check": true,
                "disable_host_node_id": true,
                "bootstrap_expect": count,
                "performance": {"raft_multiplier": 1, "rpc_hold_timeout": "2s"},
                "limits": {"http_max_conns_per_client": 1000},
                "retry_interval": "1s",
                "retry_join": if count > 1 { &join[..] } else { &[] },
            });
            if let (Some(config), Some(extra)) = (config.as_object_mut(), extra.as_object()) {
                config.extend(extra.clone());
            }
            fs::create_dir_all(&folder).expect("a folder for a server");
            fs::write(folder.join("agent.json"), config.to_string()).expect("writing a configuration");
            Server { folder, http: *http, rpc: *server, process: None, runs: AtomicU32::new(0) }
        });
        Cluster { servers: servers.collect() }
    }

    /// The same, started, with a leader.
    pub fn start(root: &Path, count: usize) -> Cluster {
        let mut cluster = Cluster::prepare(root, count, &Value::Null);
        cluster.servers.iter_mut().for_each(Server::start);
        cluster.wait_for_leader();
        cluster
    }

    /// Waits until every server knows the same leader.
    pub fn wait_for_leader(&mut self) {
        let start = Instant::now();
        while !self.agree() {
            assert!(
                start.elapsed() < RECOVERY_LIMIT,
                "the servers do not agree on a leader\n{}",
                self.logs()
            );
            std::thread::sleep(wait::PAUSE);
        }
    }

    fn agree(&mut self) -> bool {
        self.servers.iter_mut().for_each(Server::must_live);
        let said =
            |server: &Server| http::get(server.http, "/v1/status/leader").ok().map(|reply| reply.text());
        let leaders: Vec<_> = self.servers.iter().map(said).collect();
        leaders.iter().all(|leader| *leader == leaders[0])
            && leaders[0].as_ref().is_some_and(|leader| leader.contains(':'))
    }

    /// Which server leads, as the first one that is up says.
    pub fn leader(&self) -> usize {
        let asked = self.servers.iter().find(|server| server.is_up()).expect("a server that is up");
        wait::until("a leader", RECOVERY_LIMIT, || {
            let leader = http::get(asked.http, "/v1/status/leader").ok()?.json().as_str()?.to_owned();
            self.servers.iter().position(|server| leader == format!("127.0.0.1:{}", server.rpc))
        })
    }

    /// The last words of every server.
    pub fn logs(&self) -> String {
        let logs =
            self.servers.iter().map(|server| format!("== {}\n{}\n", server.folder.display(), server.log()));
        logs.collect()
    }
}

impl Server {
    /// Starts its process.
    pub fn start(&mut self) {
        let mut command = Command::new(process::binary());
        command.arg("agent");
        self.start_by(command);
    }

    /// The same by a command that is not complete without the agent's arguments (one that watches over it, say).
    pub fn start_by(&mut self, mut command: Command) {
        command.args(["-server", &format!("-config-file={}", self.folder.join("agent.json").display())]);
        if let (Ok(driver), false) = (std::env::var("MUSTER_TEST_RUNTIME"), process::is_foreign()) {
            command.arg(format!("-runtime={driver}"));
        }
        self.runs.fetch_add(1, Ordering::SeqCst);
        self.process = Some(self.spawn(command).expect("starting a server"));
    }

    fn spawn(&self, command: Command) -> io::Result<Process> {
        Process::spawn(&self.folder, command)
    }

    /// Sends its process a signal.
    pub fn signal(&self, signal: i32) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    /// Kills its process as a failing machine would; whether there was one.
    pub fn kill(&mut self) -> bool {
        self.runs.fetch_add(1, Ordering::SeqCst);
        self.process.take().is_some()
    }

    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// A number that no other process of it has; odd while one runs.
    pub fn run(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the server was started")
    }

    /// A server that ends by itself ends the test.
    pub fn must_live(&mut self) {
        let Some(process) = &mut self.process else { return };
        if let Some(status) = process.ended() {
            panic!(
                "{} ended with {}\n{}",
                self.folder.display(),
                process::describe(status),
                process.log_tail()
            );
        }
    }

    pub fn log(&self) -> String {
        self.process.as_ref().map_or_else(|| "(not running)".to_owned(), Process::log_tail)
    }
}
