//! The figures as `/v1/agent/metrics` shows them: JSON of the last finished interval or, if asked for, of all since the start, and Prometheus'
//! text with totals.

use std::fmt::Write as _;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::interval::{self, SECONDS};
use super::{Figures, Kind, Name, Row, rows, shown, summaries};
use crate::config::TelemetryConfig;
use crate::logs;
use crate::runtime::time;

/// The name of this host: gauges bear it unless `telemetry.disable_hostname`.
static HOST: LazyLock<String> = LazyLock::new(|| {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
});

/// What only the one who asks knows.
#[derive(Default)]
pub struct About {
    /// This agent's node.
    pub node: String,
    /// Gauges that are not counted here.
    pub gauges: Vec<(&'static str, f64)>,
    /// Whether the agent is a server.
    pub server: bool,
}

impl About {
    fn gauges(&self, config: &TelemetryConfig) -> Vec<(String, f64)> {
        let mut all = [super::gauges(), self.gauges.clone()].concat();
        all.retain(|(gauge, _)| shown(config, gauge));
        all.sort_by_key(|(gauge, _)| *gauge);
        // As in Consul, gauges have a name there only where somebody else collects.
        let collected = !config.prometheus_retention_time.is_zero();
        let named = collected && !config.disable_hostname && !HOST.is_empty();
        let host = if named { format!("{}.", *HOST) } else { String::new() };
        all.into_iter()
            .map(|(gauge, value)| (format!("{}.{host}{gauge}", config.metrics_prefix), value))
            .collect()
    }

    /// All rows to be shown, in order.
    fn rows(&self, config: &TelemetryConfig, mut rows: Vec<Row>) -> Vec<Row> {
        if self.server {
            rows.extend(derived(&rows));
        }
        for row in &mut rows {
            if row.name.base.starts_with("dns.") && row.kind == Kind::Sample {
                row.name.label = Some(("node", self.node.clone()));
            }
        }
        rows.retain(|row| shown(config, &row.name.base));
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        rows
    }
}

/// A metric that is the sum of some routes': what Consul notes below HTTP is noted here at HTTP's door.
struct Derived {
    name: &'static str,
    kind: Kind,
    /// Beginnings of the routes' names.
    of: &'static [&'static str],
}

const DERIVED: [Derived; 8] = [
    Derived { name: "kvs.apply", kind: Kind::Sample, of: &["http.PUT.v1.kv.", "http.DELETE.v1.kv."] },
    Derived {
        name: "session.apply",
        kind: Kind::Sample,
        of: &["http.PUT.v1.session.create", "http.PUT.v1.session.destroy."],
    },
    Derived { name: "session.renew", kind: Kind::Sample, of: &["http.PUT.v1.session.renew."] },
    Derived { name: "txn.apply", kind: Kind::Sample, of: &["http.PUT.v1.txn"] },
    Derived { name: "catalog.register", kind: Kind::Sample, of: &["http.PUT.v1.catalog.register"] },
    Derived { name: "catalog.deregister", kind: Kind::Sample, of: &["http.PUT.v1.catalog.deregister"] },
    Derived { name: "rpc.query", kind: Kind::Counter, of: QUERIES },
    Derived { name: "client.rpc", kind: Kind::Counter, of: REQUESTS },
];

/// Reads of the replicated state.
const QUERIES: &[&str] = &[
    "http.GET.v1.kv.",
    "http.GET.v1.catalog.",
    "http.GET.v1.health.",
    "http.GET.v1.session.",
    "http.GET.v1.coordinate.",
    "http.GET.v1.query",
];

/// All that a server does for clients, as it does for agents.
const REQUESTS: &[&str] = &[
    "http.GET.v1.kv.",
    "http.GET.v1.catalog.",
    "http.GET.v1.health.",
    "http.GET.v1.session.",
    "http.GET.v1.coordinate.",
    "http.GET.v1.query",
    "http.GET.v1.status.",
    "http.GET.v1.operator.",
    "http.PUT.v1.kv.",
    "http.DELETE.v1.kv.",
    "http.PUT.v1.catalog.",
    "http.PUT.v1.session.",
    "http.PUT.v1.txn",
    "http.PUT.v1.event.",
    "http.PUT.v1.operator.",
];

fn derived(rows: &[Row]) -> Vec<Row> {
    let of = |derived: &Derived| {
        let parts = rows.iter().filter(|row| derived.of.iter().any(|part| row.name.base.starts_with(part)));
        let mut figures = Figures::default();
        parts.for_each(|row| figures.merge(&row.figures));
        if derived.kind == Kind::Counter {
            figures = Figures::ones(figures.count);
        }
        (figures.count > 0).then(|| Row { name: Name::plain(derived.name), kind: derived.kind, figures })
    };
    DERIVED.iter().filter_map(of).collect()
}

/// Of which time figures are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// Of the last interval that is over, as Consul does.
    Interval,
    /// Of all since the agent started: whoever measures two moments wants the difference.
    Life,
}

/// The body of `/v1/agent/metrics`.
pub fn json(config: &TelemetryConfig, about: &About, span: Span) -> Value {
    let now = time::unix_now().as_secs();
    let (since, rows) = match span {
        Span::Interval => interval::last(now),
        Span::Life => (now, rows(false)),
    };
    let [year, month, day, hour, minute, second] = logs::civil(since);
    let rows = about.rows(config, rows);
    let gauge = |(name, value): &(String, f64)| json!({"Name": name, "Value": number(*value), "Labels": {}});
    let of = |kinds: &[Kind]| -> Vec<Value> {
        rows.iter().filter(|row| kinds.contains(&row.kind)).map(|row| row_json(config, row, span)).collect()
    };
    json!({
        "Timestamp": format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} +0000 UTC"),
        "Gauges": about.gauges(config).iter().map(gauge).collect::<Vec<_>>(),
        "Points": [],
        "Counters": of(&[Kind::Counter, Kind::Amount]),
        "Samples": of(&[Kind::Sample]),
    })
}

fn row_json(config: &TelemetryConfig, row: &Row, span: Span) -> Value {
    let labels: Map<String, Value> =
        row.name.label.iter().map(|(key, value)| ((*key).to_owned(), value.as_str().into())).collect();
    let mut shown = json!({
        "Name": format!("{}.{}", config.metrics_prefix, row.name.base),
        "Count": row.figures.count,
        "Rate": number(row.sum() / SECONDS as f64),
        "Sum": number(row.sum()),
        "Min": number(row.min()),
        "Max": number(row.max()),
        "Mean": number(row.mean()),
        "Stddev": number(row.deviation()),
        "Labels": labels,
    });
    if span == Span::Life
        && let Some(fields) = shown.as_object_mut()
    {
        // It is one of ten seconds.
        fields.remove("Rate");
    }
    shown
}

/// As Go writes numbers: whole ones without a point.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

/// The text for Prometheus.
pub fn prometheus(config: &TelemetryConfig, about: &About) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    for (gauge, value) in about.gauges(config) {
        let name = plain(&gauge);
        let _ = writeln!(out, "# HELP {name} {name}\n# TYPE {name} gauge\n{name} {value}");
    }
    let quantiles = summaries();
    let mut told = String::new();
    for row in about.rows(config, rows(false)) {
        let name = plain(&format!("{}.{}", config.metrics_prefix, row.name.base));
        let labels: Vec<String> =
            row.name.label.iter().map(|(key, value)| format!("{key}={}", quoted(value))).collect();
        let kind = if row.kind == Kind::Sample { "summary" } else { "counter" };
        if told != name {
            let _ = writeln!(out, "# HELP {name} {name}\n# TYPE {name} {kind}");
            told.clone_from(&name);
        }
        let with = |more: &[String]| match [&labels, more].concat() {
            none if none.is_empty() => String::new(),
            some => format!("{{{}}}", some.join(",")),
        };
        if row.kind != Kind::Sample {
            let _ = writeln!(out, "{name}{} {}", with(&[]), row.sum());
            continue;
        }
        for part in [0.5, 0.9, 0.99] {
            let value = quantiles.get(&*row.name.base).and_then(|summary| summary.quantile_ms(part));
            let value = value.map_or("NaN".to_owned(), |ms| ms.to_string());
            let _ = writeln!(out, "{name}{} {value}", with(&[format!("quantile=\"{part}\"")]));
        }
        let (sum, count) = (row.sum(), row.figures.count);
        let _ = writeln!(out, "{name}_sum{} {sum}\n{name}_count{} {count}", with(&[]), with(&[]));
    }
    out
}

fn plain(name: &str) -> String {
    name.replace(['.', '-'], "_")
}

/// A label's value as Prometheus reads it.
fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
