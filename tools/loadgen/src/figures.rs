//! Samples and the report, as text and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::meter::Spent;

/// Samples of one thing.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Of sorted samples; 0 without any.
    fn percentiles(&self) -> [f64; 4] {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        [0.5, 0.9, 0.99, 1.0].map(|share| {
            let place = (sorted.len() as f64 * share).ceil() as usize;
            sorted.get(place.max(1) - 1).copied().unwrap_or_default()
        })
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(samples: I) -> Samples {
        Samples(samples.into_iter().collect())
    }
}

/// One part of the run.
#[derive(Clone, Debug, Default)]
pub struct Part {
    pub name: String,
    pub spent: Spent,
    /// Latency of DNS meanwhile, milliseconds, and answers lost.
    pub dns: (Samples, u64),
    /// What else was measured, with its unit in the name.
    pub samples: Vec<(&'static str, Samples)>,
    pub numbers: Vec<(&'static str, f64)>,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub load: String,
    pub servers: Vec<String>,
    pub parts: Vec<Part>,
}

impl Part {
    /// To read.
    pub fn text(&self) -> String {
        let Spent { seconds, cpu, rss_mib, rpcs, log_writes, applied, packets, bytes, own_cpu } = &self.spent;
        let mut text = format!("== {} ({seconds:.1} s)\n", self.name);
        let list = |values: &[Option<f64>], unit: &str| {
            let shown =
                |value: &Option<f64>| value.map_or("?".to_owned(), |value| format!("{value:.2}{unit}"));
            values.iter().map(shown).collect::<Vec<_>>().join(", ")
        };
        let _ = writeln!(text, "servers: CPU {} of a core; RSS {}", list(cpu, " %"), list(rss_mib, " MiB"));
        let _ = writeln!(
            text,
            "         {rpcs:.0} RPCs ({:.2}/s), {log_writes:.0} log writes, {applied:.0} commands applied",
            rpcs / seconds.max(0.001)
        );
        let _ = writeln!(
            text,
            "loopback: {packets:.0} packets/s, {bytes:.0} bytes/s; loadgen itself: CPU {own_cpu:.1} %"
        );
        for (name, samples) in [("DNS latency, ms", &self.dns.0)].into_iter().chain(self.listed()) {
            if samples.len() > 0 {
                let [p50, p90, p99, max] = samples.percentiles();
                let count = samples.len();
                let _ = writeln!(
                    text,
                    "{name}: p50 {p50:.3}, p90 {p90:.3}, p99 {p99:.3}, max {max:.3} (of {count})"
                );
            }
        }
        if self.dns.1 > 0 {
            let _ = writeln!(text, "DNS answers lost: {}", self.dns.1);
        }
        for (name, number) in &self.numbers {
            let _ = writeln!(text, "{name}: {number}");
        }
        text
    }

    fn listed(&self) -> impl Iterator<Item = (&'static str, &Samples)> {
        self.samples.iter().map(|(name, samples)| (*name, samples))
    }

    fn json(&self) -> Value {
        let Spent { seconds, cpu, rss_mib, rpcs, log_writes, applied, packets, bytes, own_cpu } = &self.spent;
        let percentiles = |samples: &Samples| {
            let [p50, p90, p99, max] = samples.percentiles();
            json!({"count": samples.len(), "p50": p50, "p90": p90, "p99": p99, "max": max})
        };
        let mut value = json!({
            "part": self.name, "seconds": seconds, "server_cpu_percent": cpu, "server_rss_mib": rss_mib,
            "rpcs": rpcs, "log_writes": log_writes, "applied": applied, "loopback_packets_per_s": packets,
            "loopback_bytes_per_s": bytes, "loadgen_cpu_percent": own_cpu,
            "dns_ms": percentiles(&self.dns.0), "dns_lost": self.dns.1,
        });
        self.listed().for_each(|(name, samples)| value[name] = percentiles(samples));
        self.numbers.iter().for_each(|(name, number)| value[*name] = json!(number));
        value
    }
}

impl Report {
    /// To read.
    pub fn text(&self) -> String {
        let parts: Vec<String> = self.parts.iter().map(Part::text).collect();
        format!("\n{}\nservers: {}\n\n{}", self.load, self.servers.join(", "), parts.join("\n"))
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let parts: Vec<Value> = self.parts.iter().map(Part::json).collect();
        json!({"load": self.load, "servers": self.servers, "parts": parts})
    }
}
