//! What the servers spend: their processes as the system sees them, and their own metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::time::Instant;

use serde_json::Value;

use crate::http::Client;

/// Ticks of a second in `/proc`.
const TICKS: f64 = 100.0;

/// A server that is watched.
pub struct Server {
    http: String,
    /// Its process, if it runs on this host.
    pid: Option<u32>,
    client: Client,
}

/// One look at all servers.
#[derive(Clone, Debug)]
pub struct Look {
    at: Instant,
    cpu_s: Vec<Option<f64>>,
    rss_mib: Vec<Option<f64>>,
    counts: Vec<BTreeMap<String, f64>>,
    /// Packets and bytes over the loopback device.
    loopback: (f64, f64),
    own_cpu_s: f64,
}

/// What was spent between two looks.
#[derive(Clone, Debug, Default)]
pub struct Spent {
    pub seconds: f64,
    /// Share of a core, percent, of each server.
    pub cpu: Vec<Option<f64>>,
    pub rss_mib: Vec<Option<f64>>,
    /// Requests of agents, all servers together.
    pub rpcs: f64,
    /// Durable writes of the log on the server that did most of them.
    pub log_writes: f64,
    /// Commands applied, on the server that applied most.
    pub applied: f64,
    /// A second, over loopback, everything.
    pub packets: f64,
    pub bytes: f64,
    /// Share of a core of this process, percent.
    pub own_cpu: f64,
}

impl Server {
    /// At `host:port` of its HTTP.
    pub fn new(http: &str) -> Server {
        let address = http.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
        let pid = address.and_then(listener_of);
        Server { http: http.to_owned(), pid, client: Client::new(http) }
    }

    /// How it is called in the report.
    pub fn name(&self) -> String {
        match self.pid {
            Some(pid) => format!("{} (process {pid})", self.http),
            None => format!("{} (its process is not found here)", self.http),
        }
    }
}

/// Looks at all.
pub fn look(servers: &mut [Server]) -> Look {
    Look {
        at: Instant::now(),
        cpu_s: servers.iter().map(|server| cpu_of(server.pid?)).collect(),
        rss_mib: servers.iter().map(|server| rss_of(server.pid?)).collect(),
        counts: servers.iter_mut().map(|server| counts(&mut server.client)).collect(),
        loopback: loopback(),
        own_cpu_s: cpu_of(std::process::id()).unwrap_or_default(),
    }
}

/// What was spent from one look to the next.
pub fn between(before: &Look, after: &Look) -> Spent {
    let seconds = (after.at - before.at).as_secs_f64();
    let cpu = before.cpu_s.iter().zip(&after.cpu_s);
    let grown = |name: &str| {
        let pairs = before.counts.iter().zip(&after.counts);
        let of = |counts: &BTreeMap<String, f64>| counts.get(name).copied().unwrap_or_default();
        pairs.map(|(before, after)| of(after) - of(before)).collect::<Vec<f64>>()
    };
    let most = |name: &str| grown(name).into_iter().fold(0.0, f64::max);
    Spent {
        seconds,
        cpu: cpu
            .map(|(before, after)| Some((after.as_ref()? - before.as_ref()?) / seconds * 100.0))
            .collect(),
        rss_mib: after.rss_mib.clone(),
        rpcs: grown("rpc.request").iter().sum(),
        log_writes: most("raft.leader.dispatchLog"),
        applied: most("raft.apply"),
        packets: (after.loopback.0 - before.loopback.0) / seconds,
        bytes: (after.loopback.1 - before.loopback.1) / seconds,
        own_cpu: (after.own_cpu_s - before.own_cpu_s) / seconds * 100.0,
    }
}

/// Counters and numbers of samples by name, without the prefix.
fn counts(client: &mut Client) -> BTreeMap<String, f64> {
    let metrics = client.get("/v1/agent/metrics?since=start").unwrap_or_default();
    let lists = ["Counters", "Samples"].into_iter().filter_map(|list| metrics[list].as_array());
    let named = |row: &Value| {
        let name = row["Name"].as_str()?.split_once('.')?.1.to_owned();
        Some((name, row["Count"].as_f64()?))
    };
    lists.flatten().filter_map(named).collect()
}

fn cpu_of(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |place: usize| fields.get(place)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS)
}

fn rss_of(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}

fn loopback() -> (f64, f64) {
    let text = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    let mut numbers = line.unwrap_or_default().split_whitespace().filter_map(|word| word.parse::<f64>().ok());
    let bytes = numbers.next().unwrap_or_default();
    (numbers.next().unwrap_or_default(), bytes)
}

/// Who listens on an address of this host.
fn listener_of(address: SocketAddr) -> Option<u32> {
    let SocketAddr::V4(address) = address else { return None };
    let of = |ip: Ipv4Addr| format!("{:08X}:{:04X}", u32::from_le_bytes(ip.octets()), address.port());
    let wanted = [of(*address.ip()), of(Ipv4Addr::UNSPECIFIED)];
    let mut inodes = BTreeSet::new();
    for line in fs::read_to_string("/proc/net/tcp").unwrap_or_default().lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let listens = words.get(3) == Some(&"0A");
        if listens && words.get(1).is_some_and(|local| wanted.iter().any(|wanted| wanted == local)) {
            inodes.extend(words.get(9).map(|inode| format!("socket:[{inode}]")));
        }
    }
    let pids = fs::read_dir("/proc").ok()?.flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find(|pid| {
        let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        links
            .filter_map(|link| fs::read_link(link.path()).ok())
            .any(|target| target.to_str().is_some_and(|target| inodes.contains(target)))
    })
}
