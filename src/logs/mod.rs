//! The log: lines on standard error, and listening to them while they are written, which is what `/v1/agent/monitor`
//! and the `monitor` command show.
//!
//! [`layer`] goes beside the writer into the subscriber. It costs one comparison per event while nobody listens.

mod line;

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_lite::Stream;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, dynamic_filter_fn};
use tracing_subscriber::layer::{self, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogLevel};
use crate::runtime::mesh;
use crate::runtime::publish::Published;

pub use line::{civil, line};

/// Lines that wait for one listener; what comes while so many wait is dropped for it.
pub const LINES_WAITING_MAX: usize = 512;

#[derive(Clone)]
struct Listener {
    level: LogLevel,
    json: bool,
    lines: mesh::Sender<Bytes>,
}

static LISTENERS: LazyLock<Published<Vec<Listener>>> = LazyLock::new(|| Published::new(Vec::new()));

/// Starts listening; ends when the stream is dropped.
pub fn listen(level: LogLevel, json: bool) -> impl Stream<Item = Bytes> + 'static {
    let (sender, receiver) = mesh::channel(LINES_WAITING_MAX);
    let listener = Listener { level, json, lines: sender };
    LISTENERS.update(|old| {
        let mut all: Vec<_> = old.iter().filter(|other| !other.lines.is_closed()).cloned().collect();
        all.push(listener.clone());
        all
    });
    // Events that nobody wanted so far may be wanted now.
    tracing::callsite::rebuild_interest_cache();
    Lines(receiver)
}

struct Lines(mesh::Receiver<Bytes>);

impl Stream for Lines {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.0.poll_recv(cx)
    }
}

/// Starts logging to standard error as the configuration says, and lets listeners in. Once per process.
pub fn start(config: &LogConfig) {
    let writer = Writer { json: config.json }.with_filter(level_filter(config.level));
    // A subscriber that is there already (in tests) stays.
    let _ = tracing_subscriber::registry().with(writer).with(layer()).try_init();
}

fn level_filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    }
}

struct Writer {
    json: bool,
}

impl<S: Subscriber> Layer<S> for Writer {
    fn on_event(&self, event: &Event<'_>, _context: layer::Context<'_, S>) {
        // One write per line, so that lines of different cores do not mix. A closed standard error is no reason to stop.
        let _ = io::stderr().write_all(line(event, self.json).as_bytes());
    }
}

/// The layer for the subscriber.
pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    Tap.with_filter(dynamic_filter_fn(|metadata, _| is_wanted(metadata)))
}

fn is_wanted(metadata: &Metadata<'_>) -> bool {
    LISTENERS.load().iter().any(|listener| covers(listener.level, metadata.level()))
}

fn covers(wanted: LogLevel, level: &Level) -> bool {
    let level = match *level {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warn,
        Level::INFO => LogLevel::Info,
        Level::DEBUG => LogLevel::Debug,
        Level::TRACE => LogLevel::Trace,
    };
    level >= wanted
}

struct Tap;

impl<S: Subscriber> Layer<S> for Tap {
    fn on_event(&self, event: &Event<'_>, _context: layer::Context<'_, S>) {
        let listeners = LISTENERS.load();
        let mut closed = false;
        for listener in listeners.iter().filter(|l| covers(l.level, event.metadata().level())) {
            let text = line(event, listener.json);
            closed |= matches!(listener.lines.try_send(text.into()), Err(mesh::Full::Closed(_)));
        }
        if closed {
            LISTENERS.update(|old| old.iter().filter(|l| !l.lines.is_closed()).cloned().collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::StreamExt;

    #[test]
    fn a_listener_hears_what_it_asked_for() {
        let subscriber = tracing_subscriber::registry().with(layer());
        tracing::subscriber::with_default(subscriber, || {
            let mut lines = listen(LogLevel::Warn, false);
            let mut objects = listen(LogLevel::Debug, true);
            tracing::info!("too quiet");
            tracing::warn!(check = "mem", count = 3, "loud enough");
            futures_lite::future::block_on(async {
                let line = lines.next().await.map(|b| String::from_utf8_lossy(&b).into_owned());
                let line = line.unwrap_or_default();
                assert!(line.contains(" [WARN]  logs: loud enough: check=mem count=3\n"), "{line}");
                let mut messages = Vec::new();
                for _ in 0..2 {
                    let object = objects.next().await.unwrap_or_default();
                    let object: serde_json::Value = serde_json::from_slice(&object).expect("a line of JSON");
                    messages.push(object["@message"].as_str().unwrap_or_default().to_owned());
                }
                assert_eq!(messages, ["too quiet", "loud enough"]);
            });
        });
    }
}
