//! Numbers about ourselves: counters, gauges and samples, counted per core and added up when read.
//!
//! The names are Consul's where it has the same thing. Counting is one relaxed addition on a cell of the own core.

pub mod routes;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::TelemetryConfig;
use crate::logs;
use crate::runtime::{cores, time};

/// Cores with cells of their own; more share them.
const CORES_MAX: usize = 64;
/// Buckets of a sample: powers of two of microseconds.
const BUCKETS: usize = 32;

/// Things counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Writes applied to the replicated state.
    RaftApply,
    /// Questions answered over DNS.
    DnsQueries,
    /// Runs of checks.
    CheckRuns,
    /// Writes of this agent to the catalog.
    CatalogWrites,
    /// This server became the leader.
    RaftLeader,
    /// It asked for votes.
    RaftCandidate,
    /// It began to follow, or to wait for a leader.
    RaftFollower,
    /// Requests of this agent to servers.
    ClientRpc,
    /// Those of them that were not answered.
    ClientRpcFailed,
    /// Those of them that this agent did not let through.
    ClientRpcExceeded,
    /// Connections of agents that this server has taken.
    RpcAcceptConn,
    /// Requests of agents that this server has taken.
    RpcRequest,
    /// Members that joined, as this agent saw it.
    SerfMemberJoin,
    /// Members that left.
    SerfMemberLeave,
    /// Members that failed.
    SerfMemberFailed,
    /// Members that said something else of themselves.
    SerfMemberUpdate,
    /// Members that were suspected.
    MemberlistSuspect,
    /// User events that came.
    SerfEvents,
    /// Bytes of packets sent.
    MemberlistUdpSent,
    /// Bytes of packets received.
    MemberlistUdpReceived,
    /// Streams that others opened.
    MemberlistTcpAccept,
    /// Streams that this agent opened.
    MemberlistTcpConnect,
    /// Bytes sent on streams.
    MemberlistTcpSent,
}

/// Lengths of time sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// One registration applied.
    FsmRegister,
    /// One deregistration applied.
    FsmDeregister,
    /// One KV write applied.
    FsmKvs,
    /// One write to autopilot's configuration applied.
    FsmAutopilot,
    /// One step of a restore applied.
    FsmRestore,
    /// Applied writes of coordinates.
    FsmCoordinates,
    /// One write to the sessions applied.
    FsmSession,
    /// One transaction applied.
    FsmTxn,
    /// One run of a check.
    CheckRun,
    /// One question about our domain answered over DNS.
    DnsDomainQuery,
    /// One question for the name of an address answered over DNS.
    DnsPtrQuery,
    /// From taking a batch of writes in to having applied it.
    RaftCommitTime,
    /// One durable write of the log.
    RaftDispatchLog,
    /// One turn of consensus on the control core, all that follows from it included.
    RaftTurn,
}

const COUNTERS: [&str; Counter::MemberlistTcpSent as usize + 1] = [
    "raft.apply",
    "dns.queries",
    "agent.check.runs",
    "agent.catalog.writes",
    "raft.state.leader",
    "raft.state.candidate",
    "raft.state.follower",
    "client.rpc",
    "client.rpc.failed",
    "client.rpc.exceeded",
    "rpc.accept_conn",
    "rpc.request",
    "serf.member.join",
    "serf.member.leave",
    "serf.member.failed",
    "serf.member.update",
    "memberlist.msg.suspect",
    "serf.events",
    "memberlist.udp.sent",
    "memberlist.udp.received",
    "memberlist.tcp.accept",
    "memberlist.tcp.connect",
    "memberlist.tcp.sent",
];
const SAMPLES: [&str; Sample::RaftTurn as usize + 1] = [
    "fsm.register",
    "fsm.deregister",
    "fsm.kvs",
    "fsm.autopilot",
    "fsm.restore",
    "fsm.coordinate.batch-update",
    "fsm.session",
    "fsm.txn",
    "agent.check.run",
    "dns.domain_query",
    "dns.ptr_query",
    "raft.commitTime",
    "raft.leader.dispatchLog",
    "raft.turn",
];

/// The cells of one core, on cache lines of their own.
#[repr(align(128))]
struct Cells {
    counters: [AtomicU64; COUNTERS.len()],
    samples: [SampleCells; SAMPLES.len()],
}

struct SampleCells {
    count: AtomicU64,
    sum_us: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl SampleCells {
    const fn new() -> SampleCells {
        SampleCells {
            count: AtomicU64::new(0),
            sum_us: AtomicU64::new(0),
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }
}

static CELLS: [Cells; CORES_MAX] = [const {
    Cells {
        counters: [const { AtomicU64::new(0) }; COUNTERS.len()],
        samples: [const { SampleCells::new() }; SAMPLES.len()],
    }
}; CORES_MAX];

fn cells() -> &'static Cells {
    // Threads that are no core share the first one's.
    &CELLS[cores::try_current().map_or(0, |core| core.0 as usize) % CORES_MAX]
}

/// Counts `n` more.
pub fn count(counter: Counter, n: u64) {
    cells().counters[counter as usize].fetch_add(n, Relaxed);
}

/// Notes how long something took.
pub fn sample(sample: Sample, took: Duration) {
    samples(sample, 1, took);
}

/// Notes how long each of `n` things took that were timed together: `took` for all of them.
pub fn samples(sample: Sample, n: u64, took: Duration) {
    if n == 0 {
        return;
    }
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let cell = &cells().samples[sample as usize];
    cell.count.fetch_add(n, Relaxed);
    cell.sum_us.fetch_add(us, Relaxed);
    cell.buckets[bucket(us / n)].fetch_add(n, Relaxed);
}

/// Where a length of time is counted.
fn bucket(us: u64) -> usize {
    ((u64::BITS - us.leading_zeros()) as usize).min(BUCKETS - 1)
}

/// The sum over all cores.
pub fn counted(counter: Counter) -> u64 {
    CELLS.iter().map(|cells| cells.counters[counter as usize].load(Relaxed)).sum()
}

/// One sample over all cores.
#[derive(Clone, Debug, Default)]
struct Summary {
    count: u64,
    sum_us: u64,
    buckets: [u64; BUCKETS],
}

impl Summary {
    fn of(index: usize) -> Summary {
        let mut all = Summary::default();
        for cells in &CELLS {
            all.add(&cells.samples[index]);
        }
        all
    }

    fn add(&mut self, cells: &SampleCells) {
        self.count += cells.count.load(Relaxed);
        self.sum_us += cells.sum_us.load(Relaxed);
        for (sum, bucket) in self.buckets.iter_mut().zip(&cells.buckets) {
            *sum += bucket.load(Relaxed);
        }
    }

    /// Milliseconds below which that part of the samples lies; the upper end of a bucket. `None` without samples.
    fn quantile_ms(&self, part: f64) -> Option<f64> {
        let wanted = (self.count as f64 * part).ceil().max(1.0) as u64;
        let mut seen = 0;
        let at = self.buckets.iter().position(|n| {
            seen += n;
            seen >= wanted
        })?;
        Some((1u64 << at) as f64 / 1000.0)
    }

    fn sum_ms(&self) -> f64 {
        self.sum_us as f64 / 1000.0
    }
}

/// What a leader last told of its cluster; a server that never led tells of one voter that answers.
static AUTOPILOT_HEALTHY: AtomicBool = AtomicBool::new(true);
static AUTOPILOT_FAILURE_TOLERANCE: AtomicU64 = AtomicU64::new(0);

/// Notes what the leader knows of its cluster: whether all servers are healthy, and how many may fail.
pub fn autopilot(healthy: bool, failure_tolerance: u64) {
    AUTOPILOT_HEALTHY.store(healthy, Relaxed);
    AUTOPILOT_FAILURE_TOLERANCE.store(failure_tolerance, Relaxed);
}

/// Gauges, read when asked for.
fn gauges() -> Vec<(&'static str, f64)> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next()).and_then(|n| n.parse::<f64>().ok());
        number.unwrap_or_default()
    };
    vec![
        ("runtime.alloc_bytes", line("RssAnon:") * 1024.0),
        ("runtime.sys_bytes", line("VmRSS:") * 1024.0),
        ("runtime.num_threads", line("Threads:")),
        ("autopilot.healthy", f64::from(u8::from(AUTOPILOT_HEALTHY.load(Relaxed)))),
        ("autopilot.failure_tolerance", AUTOPILOT_FAILURE_TOLERANCE.load(Relaxed) as f64),
    ]
}

/// All samples that the configuration lets through.
fn summaries(config: &TelemetryConfig) -> Vec<(String, Summary)> {
    let fixed = SAMPLES.iter().enumerate().map(|(index, sample)| ((*sample).to_owned(), Summary::of(index)));
    fixed.chain(routes::summaries()).filter(|(name, _)| shown(config, name)).collect()
}

/// Whether the configuration lets a name (without its prefix) through.
fn shown(config: &TelemetryConfig, name: &str) -> bool {
    let full = format!("{}.{name}", config.metrics_prefix);
    let longest =
        |prefixes: &[String]| prefixes.iter().filter(|p| full.starts_with(p.as_str())).map(|p| p.len()).max();
    match (longest(&config.allowed_prefixes), longest(&config.blocked_prefixes)) {
        (Some(allowed), Some(blocked)) => allowed > blocked,
        (Some(_), None) => true,
        (None, Some(_)) => false,
        (None, None) => config.filter_default,
    }
}

/// The body of `/v1/agent/metrics`.
pub fn json(config: &TelemetryConfig) -> Vec<u8> {
    let name = |name: &str| format!("{}.{name}", config.metrics_prefix);
    let [year, month, day, hour, minute, second] = logs::civil(time::unix_now().as_secs() / 10 * 10);
    let gauges: Vec<Value> = gauges()
        .into_iter()
        .filter(|(gauge, _)| shown(config, gauge))
        .map(|(gauge, value)| json!({"Name": name(gauge), "Value": value, "Labels": {}}))
        .collect();
    let counters: Vec<Value> = COUNTERS
        .iter()
        .enumerate()
        .filter(|(_, counter)| shown(config, counter))
        .map(|(index, counter)| {
            let total: u64 = CELLS.iter().map(|cells| cells.counters[index].load(Relaxed)).sum();
            json!({"Name": name(counter), "Count": total, "Rate": 0, "Sum": total, "Min": 1, "Max": 1,
                   "Mean": 1, "Stddev": 0, "Labels": {}})
        })
        .collect();
    let samples: Vec<Value> =
        summaries(config).into_iter().map(|(sample, summary)| sample_json(name(&sample), &summary)).collect();
    let timestamp = format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} +0000 UTC");
    json!({"Timestamp": timestamp, "Gauges": gauges, "Points": [], "Counters": counters, "Samples": samples})
        .to_string()
        .into_bytes()
}

fn sample_json(name: String, summary: &Summary) -> Value {
    let mean = if summary.count == 0 { 0.0 } else { summary.sum_ms() / summary.count as f64 };
    json!({"Name": name, "Count": summary.count, "Rate": 0, "Sum": summary.sum_ms(),
           "Min": summary.quantile_ms(0.0).unwrap_or_default(),
           "Max": summary.quantile_ms(1.0).unwrap_or_default(), "Mean": mean, "Stddev": 0, "Labels": {}})
}

/// The text for Prometheus.
pub fn prometheus(config: &TelemetryConfig) -> String {
    let mut out = String::new();
    let name = |name: &str| format!("{}_{name}", config.metrics_prefix).replace(['.', '-'], "_");
    for (gauge, value) in gauges() {
        if shown(config, gauge) {
            let name = name(gauge);
            out.push_str(&format!("# HELP {name} {name}\n# TYPE {name} gauge\n{name} {value}\n"));
        }
    }
    for (index, counter) in COUNTERS.iter().enumerate() {
        if shown(config, counter) {
            let name = name(counter);
            let total: u64 = CELLS.iter().map(|cells| cells.counters[index].load(Relaxed)).sum();
            out.push_str(&format!("# HELP {name} {name}\n# TYPE {name} counter\n{name} {total}\n"));
        }
    }
    for (sample, summary) in summaries(config) {
        let name = name(&sample);
        out.push_str(&format!("# HELP {name} {name}\n# TYPE {name} summary\n"));
        for part in [0.5, 0.9, 0.99] {
            let value = summary.quantile_ms(part).map_or("NaN".to_owned(), |ms| ms.to_string());
            out.push_str(&format!("{name}{{quantile=\"{part}\"}} {value}\n"));
        }
        out.push_str(&format!("{name}_sum {}\n{name}_count {}\n", summary.sum_ms(), summary.count));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_upper_ends_of_buckets() {
        let mut summary = Summary { count: 100, ..Summary::default() };
        summary.buckets[3] = 60;
        summary.buckets[10] = 40;
        assert_eq!(summary.quantile_ms(0.5), Some(0.008));
        assert_eq!(summary.quantile_ms(0.99), Some(1.024));
        assert_eq!(Summary::default().quantile_ms(0.5), None);
    }

    #[test]
    fn names_are_filtered_by_the_longest_prefix() {
        let config = |allowed: &[&str], blocked: &[&str], filter_default| TelemetryConfig {
            metrics_prefix: "consul".into(),
            disable_hostname: false,
            filter_default,
            allowed_prefixes: allowed.iter().map(ToString::to_string).collect(),
            blocked_prefixes: blocked.iter().map(ToString::to_string).collect(),
            prometheus_retention_time: Duration::ZERO,
            statsd_address: None,
            statsite_address: None,
            dogstatsd_addr: None,
            dogstatsd_tags: Vec::new(),
        };
        assert!(shown(&config(&[], &[], true), "raft.apply"));
        assert!(!shown(&config(&[], &[], false), "raft.apply"));
        assert!(shown(&config(&["consul.raft"], &["consul"], false), "raft.apply"));
        assert!(!shown(&config(&["consul"], &["consul.raft"], true), "raft.apply"));
    }

    #[test]
    fn what_is_timed_together_counts_each() {
        samples(Sample::DnsPtrQuery, 0, Duration::from_secs(1));
        let before = Summary::of(Sample::DnsPtrQuery as usize);
        samples(Sample::DnsPtrQuery, 10, Duration::from_micros(30));
        let after = Summary::of(Sample::DnsPtrQuery as usize);
        assert!(after.count >= before.count + 10 && after.sum_us >= before.sum_us + 30);
        assert!(after.buckets[2] >= before.buckets[2] + 10, "3 us each");
    }

    #[test]
    fn counts_are_added_up() {
        let before = counted(Counter::DnsQueries);
        count(Counter::DnsQueries, 2);
        count(Counter::DnsQueries, 3);
        assert!(counted(Counter::DnsQueries) >= before + 5);
    }
}
