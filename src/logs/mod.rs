//! Logs: events of `tracing` become Consul's lines, for the operator's targets and for whoever watches through
//! `/v1/agent/monitor`.
//!
//! Text lines read `2020-12-17T10:11:12.123Z [INFO]  agent: message: key=value`, JSON lines have `@level`, `@message`,
//! `@module`, `@timestamp` and the fields. The module is the event's target when that is not a Rust path, else it follows
//! from the path (`muster::edge::http` is `agent.http`). Spans are not used.

mod line;

use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_lite::{Stream, StreamExt};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::config::{LogConfig, LogLevel, syslog_facility_number};
use crate::runtime::logsink::{FileTarget, LogSink, SinkLine, Targets};
use crate::runtime::{mesh, time};
use line::{Record, Shown};

pub use line::{civil, timestamp};

/// Lines that may wait for one subscriber; further ones are dropped and counted.
pub const SUBSCRIBER_QUEUE_MAX: usize = 512;
/// Subscribers at a time; further ones are refused.
pub const SUBSCRIBERS_MAX: usize = 64;

/// The logs of this process. Cheap to clone, usable from every thread.
#[derive(Clone)]
pub struct Logs(Arc<Inner>);

/// What the clones share.
struct Inner {
    sink: LogSink,
    json: bool,
    /// Level of the targets, as [`LogLevel`] in order.
    level: AtomicU8,
    /// Most talkative level that anybody wants.
    widest: AtomicU8,
    subscribers: Mutex<Vec<Tap>>,
}

/// One subscriber's end on this side.
struct Tap {
    level: LogLevel,
    json: bool,
    lines: mesh::Sender<Bytes>,
    dropped: u64,
}

/// Lines for one subscriber.
pub struct Tail {
    lines: mesh::Receiver<Bytes>,
    logs: Logs,
}

impl Stream for Tail {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.lines.poll_recv(cx)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.logs.forget_the_closed();
    }
}

/// The logs once they are started.
static CURRENT: OnceLock<Logs> = OnceLock::new();

/// The logs of this process, when started.
pub fn current() -> Option<Logs> {
    CURRENT.get().cloned()
}

/// Lines of at least `level` from now on, for `/v1/agent/monitor`; empty when logs were not started or have
/// [`SUBSCRIBERS_MAX`] listeners already. Ends when it is dropped.
pub fn listen(level: LogLevel, json: bool) -> impl Stream<Item = Bytes> + 'static {
    let tail = current().and_then(|logs| logs.subscribe(level, json));
    futures_lite::stream::iter(tail).flatten()
}

/// Opens the targets and takes all events from now on.
///
/// # Errors
/// A target that cannot be opened, or that logs were started already.
pub fn start(config: &LogConfig) -> std::io::Result<Logs> {
    let file = config.file.as_ref().map(|path| FileTarget {
        path: path.clone(),
        rotate_duration: config.rotate_duration,
        rotate_bytes: config.rotate_bytes,
        rotate_max_files: config.rotate_max_files,
    });
    let facility = syslog_facility_number(&config.syslog_facility);
    let syslog = facility.filter(|_| config.enable_syslog);
    let logs = Logs(Arc::new(Inner {
        sink: LogSink::start(Targets { stderr: true, file, syslog })?,
        json: config.json,
        level: AtomicU8::new(config.level as u8),
        widest: AtomicU8::new(config.level as u8),
        subscribers: Mutex::new(Vec::new()),
    }));
    tracing::subscriber::set_global_default(logs.clone())
        .map_err(|_| std::io::Error::other("the logs of this process are started already"))?;
    Ok(CURRENT.get_or_init(|| logs).clone())
}

impl Logs {
    /// Least level written to the targets.
    pub fn level(&self) -> LogLevel {
        LEVELS[usize::from(self.0.level.load(Ordering::Relaxed))]
    }

    /// Changes that level.
    pub fn set_level(&self, level: LogLevel) {
        self.0.level.store(level as u8, Ordering::Relaxed);
        self.rewiden(&self.taps());
    }

    /// Lines of at least `level` from now on. `None` when there are [`SUBSCRIBERS_MAX`] already.
    pub fn subscribe(&self, level: LogLevel, json: bool) -> Option<Tail> {
        let mut taps = self.taps();
        taps.retain(|tap| !tap.lines.is_closed());
        if taps.len() >= SUBSCRIBERS_MAX {
            return None;
        }
        let (sender, lines) = mesh::channel(SUBSCRIBER_QUEUE_MAX);
        taps.push(Tap { level, json, lines: sender, dropped: 0 });
        self.rewiden(&taps);
        Some(Tail { lines, logs: self.clone() })
    }

    /// Waits until everything logged so far is written. For the end of the process.
    pub fn flush(&self) {
        self.0.sink.flush();
    }

    /// The subscribers; a panic elsewhere leaves them usable.
    fn taps(&self) -> MutexGuard<'_, Vec<Tap>> {
        self.0.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the ends of subscribers that are gone.
    fn forget_the_closed(&self) {
        let mut taps = self.taps();
        // The one that calls is still open: its receiver goes right after. The next event or subscriber sees to it.
        taps.retain(|tap| !tap.lines.is_closed());
        self.rewiden(&taps);
    }

    /// Recomputes which events are made at all.
    fn rewiden(&self, taps: &[Tap]) {
        let own = self.0.level.load(Ordering::Relaxed);
        let widest = taps.iter().map(|tap| tap.level as u8).min().map_or(own, |n| n.min(own));
        if self.0.widest.swap(widest, Ordering::Relaxed) != widest {
            tracing::callsite::rebuild_interest_cache();
        }
    }

    /// Hands one event to everybody who wants it.
    fn deliver(&self, level: LogLevel, record: &Record) {
        let now = time::unix_now();
        let (mut text, mut json) = (None, None);
        let mut line = |as_json: bool| -> Bytes {
            let slot = if as_json { &mut json } else { &mut text };
            slot.get_or_insert_with(|| Bytes::from(record.line(now, level, as_json))).clone()
        };
        if level >= self.level() {
            let text = line(self.0.json);
            self.0.sink.write(SinkLine { text, severity: syslog_severity(level) });
        }
        let mut taps = self.taps();
        if taps.is_empty() {
            return;
        }
        for tap in taps.iter_mut().filter(|tap| level >= tap.level) {
            tap.offer(line(tap.json), now);
        }
        let before = taps.len();
        taps.retain(|tap| !tap.lines.is_closed());
        if taps.len() != before {
            self.rewiden(&taps);
        }
    }
}

impl Tap {
    /// Sends a line, with word of those that were dropped before it.
    fn offer(&mut self, line: Bytes, now: Duration) {
        if self.dropped > 0 {
            let mut record = Record { module: "agent".to_owned(), ..Record::default() };
            "Dropped logs during monitor request".clone_into(&mut record.message);
            record.fields.push(("dropped_count".to_owned(), Shown::Plain(self.dropped.to_string())));
            let notice = Bytes::from(record.line(now, LogLevel::Warn, self.json));
            if self.lines.try_send(notice).is_ok() {
                self.dropped = 0;
            }
        }
        if self.dropped > 0 || self.lines.try_send(line).is_err() {
            self.dropped += 1;
        }
    }
}

impl Subscriber for Logs {
    fn register_callsite(&self, meta: &'static Metadata<'static>) -> Interest {
        // Libraries are heard from a warning on: their everyday talk is not the operator's.
        if !is_ours(meta.target()) && *meta.level() > Level::WARN {
            return Interest::never();
        }
        if self.enabled(meta) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, meta: &Metadata<'_>) -> bool {
        !meta.is_span() && level_of(meta.level()) as u8 >= self.0.widest.load(Ordering::Relaxed)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match LEVELS[usize::from(self.0.widest.load(Ordering::Relaxed))] {
            LogLevel::Trace => LevelFilter::TRACE,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Error => LevelFilter::ERROR,
        })
    }

    fn event(&self, event: &Event<'_>) {
        let meta = event.metadata();
        let mut record = Record { module: module_of(meta.target()), ..Record::default() };
        event.record(&mut record);
        record.drop_speaker();
        self.deliver(level_of(meta.level()), &record);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Levels by their number.
const LEVELS: [LogLevel; 5] =
    [LogLevel::Trace, LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error];

/// Our level of one of `tracing`.
fn level_of(level: &Level) -> LogLevel {
    match *level {
        Level::TRACE => LogLevel::Trace,
        Level::DEBUG => LogLevel::Debug,
        Level::INFO => LogLevel::Info,
        Level::WARN => LogLevel::Warn,
        Level::ERROR => LogLevel::Error,
    }
}

/// Syslog's number of a level.
fn syslog_severity(level: LogLevel) -> u8 {
    match level {
        LogLevel::Trace | LogLevel::Debug => 7,
        LogLevel::Info => 6,
        LogLevel::Warn => 4,
        LogLevel::Error => 3,
    }
}

/// Whether a target is of this program.
fn is_ours(target: &str) -> bool {
    ["muster", "agent"].iter().any(|own| {
        target.strip_prefix(own).is_some_and(|rest| {
            rest.is_empty() || rest.starts_with("::") || rest.starts_with('.') || rest.starts_with('_')
        })
    })
}

/// The module shown for a target.
fn module_of(target: &str) -> String {
    let Some(path) = target.strip_prefix("muster::") else {
        return if target == "muster" { "agent".to_owned() } else { target.replace("::", ".") };
    };
    let room = path.strip_prefix("edge::").unwrap_or(path).split("::").next().unwrap_or_default();
    match room {
        "http" | "dns" | "runtime" | "config" | "health" => format!("agent.{room}"),
        "consensus" | "store" => format!("agent.server.{room}"),
        _ => "agent".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(dir: &std::path::Path, level: LogLevel) -> Logs {
        let file = FileTarget {
            path: dir.join("x.log"),
            rotate_duration: Duration::MAX,
            rotate_bytes: 0,
            rotate_max_files: 0,
        };
        Logs(Arc::new(Inner {
            sink: LogSink::start(Targets { file: Some(file), ..Targets::default() }).expect("opens"),
            json: false,
            level: AtomicU8::new(level as u8),
            widest: AtomicU8::new(level as u8),
            subscribers: Mutex::new(Vec::new()),
        }))
    }

    #[test]
    fn events_become_consuls_lines_and_levels_filter() {
        let dir = tempfile::tempdir().expect("folder");
        let logs = logs(dir.path(), LogLevel::Info);
        let mut tail = logs.subscribe(LogLevel::Debug, true).expect("room");
        tracing::subscriber::with_default(logs.clone(), || {
            tracing::info!(target: "agent", service = "a b", count = 3, "Synced service");
            tracing::debug!(target: "muster::edge::http::router", url = "/v1/x", "Request finished");
            tracing::trace!("unseen");
            tracing::info!(target: "h2::proto", "library talk");
        });
        logs.flush();
        let text = std::fs::read_to_string(dir.path().join("x.log")).expect("log");
        let after_time = |line: &str| line[25..].to_owned();
        assert_eq!(
            text.lines().map(after_time).collect::<Vec<_>>(),
            ["[INFO]  agent: Synced service: service=\"a b\" count=3"]
        );
        let first = futures_lite::future::block_on(tail.next()).expect("line");
        let first: serde_json::Value = serde_json::from_slice(&first).expect("JSON");
        assert_eq!((&first["@level"], &first["count"]), (&"info".into(), &3.into()));
        let second = futures_lite::future::block_on(tail.next()).expect("line");
        assert!(String::from_utf8_lossy(&second).contains("\"@module\":\"agent.http\""), "{second:?}");
    }

    #[test]
    fn a_slow_subscriber_loses_lines_and_is_told() {
        let dir = tempfile::tempdir().expect("folder");
        let logs = logs(dir.path(), LogLevel::Error);
        let mut tail = logs.subscribe(LogLevel::Info, false).expect("room");
        let record = Record { module: "agent".to_owned(), message: "m".to_owned(), ..Record::default() };
        for _ in 0..SUBSCRIBER_QUEUE_MAX + 5 {
            logs.deliver(LogLevel::Info, &record);
        }
        for _ in 0..2 {
            futures_lite::future::block_on(tail.next()).expect("line");
        }
        logs.deliver(LogLevel::Info, &record);
        let mut last = Bytes::new();
        for _ in 0..SUBSCRIBER_QUEUE_MAX - 1 {
            last = futures_lite::future::block_on(tail.next()).expect("line");
        }
        assert!(String::from_utf8_lossy(&last).contains("dropped_count=5"), "{last:?}");
        drop(tail);
        logs.deliver(LogLevel::Info, &record);
        assert!(logs.taps().is_empty());
        assert_eq!(logs.0.widest.load(Ordering::Relaxed), LogLevel::Error as u8);
    }

    #[test]
    fn levels_change_while_running() {
        let dir = tempfile::tempdir().expect("folder");
        let logs = logs(dir.path(), LogLevel::Warn);
        assert_eq!(logs.max_level_hint(), Some(LevelFilter::WARN));
        logs.set_level(LogLevel::Trace);
        assert_eq!((logs.level(), logs.max_level_hint()), (LogLevel::Trace, Some(LevelFilter::TRACE)));
    }

    #[test]
    fn modules_follow_from_paths() {
        for (target, module) in [
            ("agent.http", "agent.http"),
            ("muster::edge::dns::server", "agent.dns"),
            ("muster::agent::registry", "agent"),
            ("muster::consensus", "agent.server.consensus"),
            ("glommio::executor", "glommio.executor"),
        ] {
            assert_eq!(module_of(target), module);
        }
    }
}
