//! What was measured, in one run or in many, as text and as JSON.

use std::fmt::Write;

use super::world::Traffic;
use crate::queue::{SECOND, Time};

/// Samples of one thing, and their percentiles.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

/// Traffic of members over a time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    pub traffic: Traffic,
    pub member_seconds: f64,
}

impl Load {
    fn add(&mut self, other: &Load) {
        self.traffic.packets += other.traffic.packets;
        self.traffic.packet_bytes += other.traffic.packet_bytes;
        self.traffic.streams += other.traffic.streams;
        self.traffic.stream_bytes += other.traffic.stream_bytes;
        self.member_seconds += other.member_seconds;
    }

    fn per(&self, count: u64) -> f64 {
        count as f64 / self.member_seconds.max(1.0)
    }
}

/// All that was measured.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// From a crash to the first who declares it.
    pub first_detection: Samples,
    /// From a crash until all know.
    pub full_detection: Samples,
    /// From the first who declares it until all know.
    pub failure_spread: Samples,
    /// From firing an event until half, 99 %, 99.99 % and all have it.
    pub event_half: Samples,
    pub event_99: Samples,
    pub event_9999: Samples,
    pub event_all: Samples,
    /// From the end of all faults until all tables agree.
    pub convergence: Samples,
    /// From the first start until all know all.
    pub joining: Samples,
    /// Share of those who were there that answered a query in time.
    pub query_share: Samples,
    pub idle: Load,
    pub busy: Load,
    pub false_failures: u64,
    /// Time that members were there, and there without a fault of their own.
    pub member_seconds: u64,
    pub healthy_member_seconds: u64,
    pub virtual_seconds: u64,
    pub members: usize,
}

impl Figures {
    pub fn of(members: usize) -> Figures {
        Figures { members, ..Figures::default() }
    }

    /// A crash is known to all.
    pub fn detected(&mut self, first: Time, all: Time) {
        self.first_detection.push(secs(first));
        self.full_detection.push(secs(all));
        self.failure_spread.push(secs(all - first));
    }

    /// All who were there have got an event, at these times.
    pub fn event(&mut self, began: Time, times: &mut Vec<Time>) {
        times.sort_unstable();
        let at = |share: f64| {
            let place = (times.len() as f64 * share).ceil() as usize;
            times.get(place.max(1) - 1).map(|at| secs(at - began))
        };
        for (samples, share) in [
            (&mut self.event_half, 0.5),
            (&mut self.event_99, 0.99),
            (&mut self.event_9999, 0.9999),
            (&mut self.event_all, 1.0),
        ] {
            at(share).into_iter().for_each(|took| samples.push(took));
        }
        *times = Vec::new();
    }

    pub fn merge(&mut self, other: &Figures) {
        for ((_, mine), (_, theirs)) in self.samples_mut().into_iter().zip(other.samples()) {
            mine.0.extend_from_slice(&theirs.0);
        }
        self.idle.add(&other.idle);
        self.busy.add(&other.busy);
        self.false_failures += other.false_failures;
        self.member_seconds += other.member_seconds;
        self.healthy_member_seconds += other.healthy_member_seconds;
        self.virtual_seconds += other.virtual_seconds;
        self.members = other.members;
    }

    fn samples(&self) -> [(&'static str, &Samples); 10] {
        [
            ("crash to the first who declares it, s", &self.first_detection),
            ("crash until all know, s", &self.full_detection),
            ("first who declares it until all know, s", &self.failure_spread),
            ("event until half have it, s", &self.event_half),
            ("event until 99 % have it, s", &self.event_99),
            ("event until 99.99 % have it, s", &self.event_9999),
            ("event until all have it, s", &self.event_all),
            ("faults healed until all tables agree, s", &self.convergence),
            ("first start until all know all, s", &self.joining),
            ("share that answers a query", &self.query_share),
        ]
    }

    fn samples_mut(&mut self) -> [(&'static str, &mut Samples); 10] {
        [
            ("first_detection_s", &mut self.first_detection),
            ("full_detection_s", &mut self.full_detection),
            ("failure_spread_s", &mut self.failure_spread),
            ("event_half_s", &mut self.event_half),
            ("event_99_s", &mut self.event_99),
            ("event_9999_s", &mut self.event_9999),
            ("event_all_s", &mut self.event_all),
            ("convergence_s", &mut self.convergence),
            ("joining_s", &mut self.joining),
            ("query_share", &mut self.query_share),
        ]
    }

    fn loads(&self) -> [(&'static str, &Load); 2] {
        [("idle", &self.idle), ("under faults and churn", &self.busy)]
    }

    /// How many healthy members were declared failed, for each hour that one was there.
    pub fn false_rate(&self) -> f64 {
        self.false_failures as f64 / (self.healthy_member_seconds as f64 / 3600.0).max(1e-9)
    }

    /// To read.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let _ =
            writeln!(text, "{:44} {:>7} {:>9} {:>9} {:>9} {:>9}", "", "count", "p50", "p90", "p99", "max");
        for (name, samples) in self.samples() {
            let sorted = samples.sorted();
            if !sorted.is_empty() {
                let p = |share| percentile(&sorted, share);
                let [p50, p90, p99, max] = [p(0.5), p(0.9), p(0.99), p(1.0)];
                let count = sorted.len();
                let _ = writeln!(text, "{name:44} {count:>7} {p50:>9.3} {p90:>9.3} {p99:>9.3} {max:>9.3}");
            }
        }
        for (name, load) in self.loads() {
            let Traffic { packets, packet_bytes, streams, stream_bytes } = load.traffic;
            let _ = writeln!(
                text,
                "{name}: {:.2} packets and {:.0} bytes, {:.4} streams and {:.0} bytes per member and second",
                load.per(packets),
                load.per(packet_bytes),
                load.per(streams),
                load.per(stream_bytes)
            );
        }
        let _ = writeln!(
            text,
            "{} members, {:.2} virtual hours, {:.0} member-hours ({:.0} without a fault of their own): {} false failures, {:.6} per member-hour",
            self.members,
            self.virtual_seconds as f64 / 3600.0,
            self.member_seconds as f64 / 3600.0,
            self.healthy_member_seconds as f64 / 3600.0,
            self.false_failures,
            self.false_rate()
        );
        text
    }

    /// For programs.
    pub fn json(&mut self) -> String {
        let mut parts = Vec::new();
        let numbers = [
            ("members", self.members as f64),
            ("virtual_hours", self.virtual_seconds as f64 / 3600.0),
            ("member_hours", self.member_seconds as f64 / 3600.0),
            ("healthy_member_hours", self.healthy_member_seconds as f64 / 3600.0),
            ("false_failures", self.false_failures as f64),
            ("false_failures_per_member_hour", self.false_rate()),
        ];
        parts.extend(numbers.iter().map(|(name, number)| format!("\"{name}\":{number}")));
        for (name, load) in ["idle", "busy"].into_iter().zip([self.idle, self.busy]) {
            let Traffic { packets, packet_bytes, streams, stream_bytes } = load.traffic;
            let [a, b, c, d] = [packets, packet_bytes, streams, stream_bytes].map(|count| load.per(count));
            parts.push(format!(
                "\"{name}_per_member_second\":{{\"packets\":{a:.4},\"packet_bytes\":{b:.1},\"streams\":{c:.5},\"stream_bytes\":{d:.1}}}"
            ));
        }
        for (name, samples) in self.samples_mut() {
            let sorted = samples.sorted();
            if !sorted.is_empty() {
                let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|share| percentile(&sorted, share));
                parts.push(format!(
                    "\"{name}\":{{\"count\":{},\"p50\":{p50:.6},\"p90\":{p90:.6},\"p99\":{p99:.6},\"max\":{max:.6}}}",
                    sorted.len()
                ));
            }
        }
        format!("{{{}}}", parts.join(","))
    }
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted[place.clamp(1, sorted.len()) - 1]
}

fn secs(time: Time) -> f64 {
    time as f64 / SECOND as f64
}
