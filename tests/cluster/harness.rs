//! A cluster of servers in temporary folders.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::http::{self, Reply};
use super::support::ports::free_port;
use super::support::process::{self, Process};
use super::support::wait;

/// For what takes a moment, on a machine that may be busy with something else.
pub const SOON: Duration = Duration::from_secs(30);

/// Servers that know where the others are.
pub struct Cluster {
    pub servers: Vec<Server>,
    _folder: TempDir,
}

/// One of them; it may run or not.
pub struct Server {
    pub name: String,
    pub http: u16,
    pub server_port: u16,
    pub serf_lan: u16,
    folder: PathBuf,
    process: Option<Process>,
}

impl Cluster {
    /// As many servers, not started, that expect one another; `extra` goes into each configuration.
    pub fn new(count: usize, extra: &Value) -> Cluster {
        let folder = tempfile::Builder::new().prefix("cluster-").tempdir().expect("a temporary folder");
        let mut cluster = Cluster { servers: Vec::new(), _folder: folder };
        for _ in 0..count {
            cluster.add();
        }
        for place in 0..count {
            let expect = json!({"bootstrap_expect": count});
            cluster.configure(place, &merged(expect, extra));
        }
        cluster
    }

    /// One more server, without a configuration; returns its place.
    pub fn add(&mut self) -> usize {
        let place = self.servers.len();
        let name = format!("s{place}");
        let folder = self._folder.path().join(&name);
        fs::create_dir_all(&folder).expect("a folder for a server");
        let [http, server_port, serf_lan] = std::array::from_fn(|_| free_port());
        self.servers.push(Server { name, http, server_port, serf_lan, folder, process: None });
        place
    }

    /// Writes a server's configuration: it joins all servers that are there.
    pub fn configure(&self, place: usize, extra: &Value) {
        let server = &self.servers[place];
        let join: Vec<String> =
            self.servers.iter().map(|other| format!("127.0.0.1:{}", other.serf_lan)).collect();
        let base = json!({
            "server": true,
            "node_name": server.name,
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "ports": {
                "http": server.http, "dns": -1, "server": server.server_port, "serf_lan": server.serf_lan,
                "serf_wan": -1, "grpc": -1,
            },
            "data_dir": server.folder.join("data"),
            "disable_host_node_id": true,
            "disable_update_check": true,
            "retry_join": join,
            "retry_interval": "1s",
        });
        let text = merged(base, extra).to_string();
        fs::write(server.folder.join("agent.json"), text).expect("writing a configuration");
    }

    /// As many running servers with one leader.
    pub fn start(count: usize) -> Cluster {
        let mut cluster = Cluster::new(count, &json!({}));
        (0..count).for_each(|place| cluster.servers[place].start());
        cluster.await_leader();
        cluster
    }

    /// Waits until all running servers name the same leader; returns its place.
    pub fn await_leader(&mut self) -> usize {
        wait::until("a leader that all servers name", SOON, || {
            self.check();
            let running = self.servers.iter().filter(|server| server.process.is_some());
            let named: Option<Vec<u16>> = running.map(Server::leader).collect();
            let named = named?;
            let port = *named.first()?;
            if named.iter().any(|other| *other != port) {
                return None;
            }
            let place = self.servers.iter().position(|server| server.server_port == port)?;
            self.servers[place].process.is_some().then_some(place)
        })
    }

    /// Fails the test if a server has ended by itself.
    pub fn check(&mut self) {
        for server in &mut self.servers {
            if let Some(status) = server.process.as_mut().and_then(Process::ended) {
                panic!("{} ended with {}\n{}", server.name, process::describe(status), server.log());
            }
        }
    }

    /// Waits until every running server has the same keys and values under `prefix` in its own copy; returns them.
    pub fn await_equal(&mut self, prefix: &str) -> Value {
        let path = format!("/v1/kv/{prefix}?recurse&stale");
        wait::until("the same state on every server", SOON, || {
            self.check();
            let running = self.servers.iter().filter(|server| server.process.is_some());
            let copies: Vec<Value> =
                running.map(|server| server.get(&path).map(|reply| reply.json())).collect::<Option<_>>()?;
            let first = copies.first()?.clone();
            copies.iter().all(|copy| *copy == first).then_some(first)
        })
    }
}

/// What the servers wrote last, for whoever looks into a failed test.
impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for server in &self.servers {
                let log = server.log();
                let lines: Vec<&str> = log.lines().collect();
                let last = &lines[lines.len().saturating_sub(25)..];
                println!("{} (running: {}):\n{}\n", server.name, server.runs(), last.join("\n"));
            }
        }
    }
}

impl Server {
    pub fn start(&mut self) {
        let args = [format!("-config-file={}", self.folder.join("agent.json").display())];
        self.process = Some(Process::agent(&self.folder, &args).expect("starting a server"));
    }

    /// SIGKILL, as a crash.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        self.process.as_ref().expect("it runs").signal(signal);
    }

    /// Waits until it ends by itself; returns its log.
    pub fn await_end(&mut self) -> String {
        let mut process = self.process.take().expect("it runs");
        assert!(process.wait(SOON).is_some(), "{} does not end:\n{}", self.name, self.log());
        process.log()
    }

    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Its `data_dir`.
    pub fn data_folder(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The answer, if it is 200.
    pub fn get(&self, path: &str) -> Option<Reply> {
        http::get(self.http, path).ok().filter(|reply| reply.status == 200)
    }

    /// The answer in JSON, sooner or later.
    pub fn ask(&self, path: &str) -> Value {
        wait::until(path, SOON, || Some(self.get(path)?.json()))
    }

    /// Whether a write was acknowledged.
    pub fn try_put(&self, key: &str, value: &str) -> bool {
        let reply = http::put(self.http, &format!("/v1/kv/{key}"), value.to_owned());
        reply.is_ok_and(|reply| reply.status == 200 && reply.text() == "true")
    }

    /// Writes, again and again until it is acknowledged; returns how long that took.
    pub fn put(&self, key: &str, value: &str) -> Duration {
        let start = Instant::now();
        wait::until_true(&format!("a write of {key} on {}", self.name), SOON, || self.try_put(key, value));
        start.elapsed()
    }

    /// Server port of the leader it knows.
    fn leader(&self) -> Option<u16> {
        let leader = self.get("/v1/status/leader")?.json();
        leader.as_str()?.rsplit_once(':')?.1.parse().ok()
    }

    /// Names and states of the members it knows, in order.
    pub fn members(&self) -> Vec<(String, u64)> {
        let members = self.ask("/v1/agent/members");
        let members = members.as_array().expect("a list").iter();
        let row = |member: &Value| Some((member["Name"].as_str()?.to_owned(), member["Status"].as_u64()?));
        members.map(|member| row(member).expect("a member")).collect()
    }

    /// The voters it knows, as `name` in order.
    pub fn voters(&self) -> Vec<String> {
        let configuration = self.ask("/v1/operator/raft/configuration");
        let servers = configuration["Servers"].as_array().cloned().unwrap_or_default();
        let voters = servers.iter().filter(|server| server["Voter"] == true);
        let mut names: Vec<String> =
            voters.map(|server| server["Node"].as_str().expect("a name").to_owned()).collect();
        names.sort();
        names
    }
}

fn merged(mut base: Value, extra: &Value) -> Value {
    if let (Some(base), Some(extra)) = (base.as_object_mut(), extra.as_object()) {
        base.extend(extra.clone());
    }
    base
}
