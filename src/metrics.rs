//! Numbers about ourselves: counters, gauges and samples, counted per core and added up when read.
//!
//! The names are Consul's where it has the same thing. Counting is one relaxed addition on a cell of the own core. What is
//! shown of them, and of which time, is said in [`interval`] and [`show`].

pub mod interval;
pub mod routes;
pub mod show;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::config::TelemetryConfig;
use crate::runtime::cores;

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
    /// Streams that others opened.
    MemberlistTcpAccept,
    /// Streams that this agent opened.
    MemberlistTcpConnect,
}

/// Amounts counted: each time some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Bytes of packets sent.
    MemberlistUdpSent,
    /// Bytes of packets received.
    MemberlistUdpReceived,
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
    /// One write of any kind applied.
    RaftFsmApply,
    /// One durable write of the log.
    RaftDispatchLog,
    /// One turn of consensus on the control core, all that follows from it included.
    RaftTurn,
}

const COUNTERS: [&str; Counter::MemberlistTcpConnect as usize + 1] = [
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
    "memberlist.tcp.accept",
    "memberlist.tcp.connect",
];
const AMOUNTS: [&str; Amount::MemberlistTcpSent as usize + 1] =
    ["memberlist.udp.sent", "memberlist.udp.received", "memberlist.tcp.sent"];
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
    "raft.fsm.apply",
    "raft.leader.dispatchLog",
    "raft.turn",
];

/// The cells of one core, on cache lines of their own.
#[repr(align(128))]
struct Cells {
    counters: [AtomicU64; COUNTERS.len()],
    blocking: AtomicI64,
    amounts: [SampleCells; AMOUNTS.len()],
    samples: [SampleCells; SAMPLES.len()],
}

/// All zero at first, so that what is never used takes no memory.
struct SampleCells {
    count: AtomicU64,
    /// Microseconds, or what an amount is counted in.
    sum: AtomicU64,
    /// Sum of the squares; it may wrap, since only differences are looked at.
    squares: AtomicU64,
    /// The least of this interval and 1; 0: none yet.
    least: AtomicU64,
    /// The most of this interval and 1.
    most: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl SampleCells {
    const fn new() -> SampleCells {
        SampleCells {
            count: AtomicU64::new(0),
            sum: AtomicU64::new(0),
            squares: AtomicU64::new(0),
            least: AtomicU64::new(0),
            most: AtomicU64::new(0),
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }

    /// Notes `n` that came to `sum` together.
    fn note(&self, n: u64, sum: u64) {
        let each = sum / n;
        self.count.fetch_add(n, Relaxed);
        self.sum.fetch_add(sum, Relaxed);
        self.squares.fetch_add(each.wrapping_mul(each).wrapping_mul(n), Relaxed);
        self.buckets[bucket(each)].fetch_add(n, Relaxed);
        self.stretch(each);
    }

    /// Two threads at once may forget one of two extremes, which only few share a cell for.
    fn stretch(&self, each: u64) {
        let mark = each.saturating_add(1);
        let least = self.least.load(Relaxed);
        if least == 0 || mark < least {
            self.least.store(mark, Relaxed);
        }
        if mark > self.most.load(Relaxed) {
            self.most.store(mark, Relaxed);
        }
    }

    /// The figures. `taken`: the extremes begin anew.
    fn figures(&self, taken: bool) -> Figures {
        let extreme = |cell: &AtomicU64| match cell.load(Relaxed) {
            some if some > 0 && taken => cell.swap(0, Relaxed),
            some => some,
        };
        Figures {
            count: self.count.load(Relaxed),
            sum: self.sum.load(Relaxed),
            squares: self.squares.load(Relaxed),
            least: extreme(&self.least),
            most: extreme(&self.most),
        }
    }
}

static CELLS: [Cells; CORES_MAX] = [const {
    Cells {
        counters: [const { AtomicU64::new(0) }; COUNTERS.len()],
        blocking: AtomicI64::new(0),
        amounts: [const { SampleCells::new() }; AMOUNTS.len()],
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

/// Counts an amount.
pub fn amount(amount: Amount, n: u64) {
    cells().amounts[amount as usize].note(1, n);
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
    cells().samples[sample as usize].note(n, us);
}

/// Where a length of time is counted.
fn bucket(us: u64) -> usize {
    ((u64::BITS - us.leading_zeros()) as usize).min(BUCKETS - 1)
}

/// The sum over all cores.
pub fn counted(counter: Counter) -> u64 {
    CELLS.iter().map(|cells| cells.counters[counter as usize].load(Relaxed)).sum()
}

/// What something is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    /// Without the prefix that the configuration gives.
    base: Cow<'static, str>,
    /// A label and its value.
    label: Option<(&'static str, String)>,
}

impl Name {
    fn plain(base: impl Into<Cow<'static, str>>) -> Name {
        Name { base: base.into(), label: None }
    }
}

/// How something is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Amount,
    /// Lengths of time, shown in milliseconds.
    Sample,
}

/// Figures of one thing over all cores, in the unit of its cells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Figures {
    count: u64,
    sum: u64,
    squares: u64,
    /// And 1; 0: none.
    least: u64,
    /// And 1.
    most: u64,
}

impl Figures {
    /// So many times one.
    fn ones(n: u64) -> Figures {
        let one = if n == 0 { 0 } else { 2 };
        Figures { count: n, sum: n, squares: n, least: one, most: one }
    }

    fn merge(&mut self, other: &Figures) {
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
        self.squares = self.squares.wrapping_add(other.squares);
        self.least = match (self.least, other.least) {
            (0, some) | (some, 0) => some,
            (a, b) => a.min(b),
        };
        self.most = self.most.max(other.most);
    }

    /// What has come since; the extremes are those of that time already.
    fn since(&self, before: &Figures) -> Figures {
        Figures {
            count: self.count.saturating_sub(before.count),
            sum: self.sum.wrapping_sub(before.sum),
            squares: self.squares.wrapping_sub(before.squares),
            ..*self
        }
    }
}

/// One thing as it is shown.
#[derive(Clone, Debug)]
struct Row {
    name: Name,
    kind: Kind,
    figures: Figures,
}

impl Row {
    fn scaled(&self, figure: f64) -> f64 {
        if self.kind == Kind::Sample { figure / 1000.0 } else { figure }
    }

    fn sum(&self) -> f64 {
        self.scaled(self.figures.sum as f64)
    }

    fn min(&self) -> f64 {
        self.scaled(self.figures.least.saturating_sub(1) as f64)
    }

    fn max(&self) -> f64 {
        self.scaled(self.figures.most.saturating_sub(1) as f64)
    }

    fn mean(&self) -> f64 {
        self.sum() / self.figures.count.max(1) as f64
    }

    /// As Consul's sinks reckon it: of the sample, not of the population.
    fn deviation(&self) -> f64 {
        let Figures { count, sum, squares, .. } = self.figures;
        if count < 2 {
            return 0.0;
        }
        let (count, sum) = (count as f64, sum as f64);
        let spread = (squares as f64 - sum * sum / count) / (count - 1.0);
        self.scaled(spread.max(0.0).sqrt())
    }
}

/// All that is counted, over all cores. `taken`: the extremes begin anew.
fn rows(taken: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for (index, counter) in COUNTERS.iter().enumerate() {
        let total: u64 = CELLS.iter().map(|cells| cells.counters[index].load(Relaxed)).sum();
        rows.push(Row { name: Name::plain(*counter), kind: Kind::Counter, figures: Figures::ones(total) });
    }
    let mut add = |name: &'static str, kind: Kind, cells: &dyn Fn(&'static Cells) -> &'static SampleCells| {
        let mut figures = Figures::default();
        CELLS.iter().for_each(|core| figures.merge(&cells(core).figures(taken)));
        rows.push(Row { name: Name::plain(name), kind, figures });
    };
    for (index, amount) in AMOUNTS.iter().enumerate() {
        add(amount, Kind::Amount, &|core| &core.amounts[index]);
    }
    for (index, sample) in SAMPLES.iter().enumerate() {
        add(sample, Kind::Sample, &|core| &core.samples[index]);
    }
    rows.extend(routes::rows(taken));
    rows
}

/// The lengths of time of one thing over all cores, by buckets.
#[derive(Clone, Debug, Default)]
struct Summary {
    count: u64,
    buckets: [u64; BUCKETS],
}

impl Summary {
    fn add(&mut self, cells: &SampleCells) {
        self.count += cells.count.load(Relaxed);
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
}

/// All samples by their names.
fn summaries() -> BTreeMap<String, Summary> {
    let mut all = routes::summaries();
    for (index, sample) in SAMPLES.iter().enumerate() {
        let summary = all.entry((*sample).to_owned()).or_default();
        CELLS.iter().for_each(|cells| summary.add(&cells.samples[index]));
    }
    all
}

/// What a leader last told of its cluster; a server that never led tells of one voter that answers.
static AUTOPILOT_HEALTHY: AtomicBool = AtomicBool::new(true);
static AUTOPILOT_FAILURE_TOLERANCE: AtomicU64 = AtomicU64::new(0);

/// Notes what the leader knows of its cluster: whether all servers are healthy, and how many may fail.
pub fn autopilot(healthy: bool, failure_tolerance: u64) {
    AUTOPILOT_HEALTHY.store(healthy, Relaxed);
    AUTOPILOT_FAILURE_TOLERANCE.store(failure_tolerance, Relaxed);
}

/// Notes that so many queries more (or fewer) wait for a change.
pub fn blocking(n: i64) {
    cells().blocking.fetch_add(n, Relaxed);
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
        ("rpc.queries_blocking", CELLS.iter().map(|cells| cells.blocking.load(Relaxed)).sum::<i64>() as f64),
        ("autopilot.healthy", f64::from(u8::from(AUTOPILOT_HEALTHY.load(Relaxed)))),
        ("autopilot.failure_tolerance", AUTOPILOT_FAILURE_TOLERANCE.load(Relaxed) as f64),
    ]
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
    fn figures_are_those_of_their_samples() {
        let cells = SampleCells::new();
        let row = |taken| Row { name: Name::plain("x"), kind: Kind::Sample, figures: cells.figures(taken) };
        [2000, 4000, 9000].into_iter().for_each(|us| cells.note(1, us));
        let first = row(true);
        assert_eq!((first.sum(), first.min(), first.max(), first.mean()), (15.0, 2.0, 9.0, 5.0));
        assert!((first.deviation() - 13f64.sqrt()).abs() < 1e-9, "{}", first.deviation());
        cells.note(1, 3000);
        let second = row(true);
        let second = Row { figures: second.figures.since(&first.figures), ..second };
        assert_eq!((second.figures.count, second.sum(), second.deviation()), (1, 3.0, 0.0));
        assert_eq!((second.min(), second.max()), (3.0, 3.0), "of its own time");
        let mut both = Figures::default();
        [&first.figures, &Figures::default(), &second.figures].into_iter().for_each(|one| both.merge(one));
        assert_eq!((both.count, both.least, both.most), (4, 2001, 9001));
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
        let figures =
            || rows(false).into_iter().find(|row| row.name.base == "dns.ptr_query").unwrap().figures;
        let (before, bucket) = (figures(), || summaries()["dns.ptr_query"].buckets[2]);
        let filled = bucket();
        samples(Sample::DnsPtrQuery, 10, Duration::from_micros(30));
        let after = figures();
        assert!(after.count >= before.count + 10 && after.sum >= before.sum + 30);
        assert!(bucket() >= filled + 10, "3 us each");
    }

    #[test]
    fn counts_are_added_up() {
        let before = counted(Counter::DnsQueries);
        count(Counter::DnsQueries, 2);
        count(Counter::DnsQueries, 3);
        assert!(counted(Counter::DnsQueries) >= before + 5);
    }
}
