//! The watches of an agent: each is a task that follows its question at the agent's own API, and runs its handler for every
//! change, one run at a time. What changes while a handler runs is told when it is done, as one change.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::config::{Handler, Watch};
use super::course::{Answer, Course, Indexes, Mark, Next};
use super::gotext::encoded;
use super::news::Reader;
use super::own::{self, Answered, Line, Own, Request};
use super::plan::{HttpHandler, Plan};
use crate::config::{Config, duration};
use crate::health::http_client;
use crate::health::output::script_text;
use crate::health::plan::{HttpProbe, TlsProbe};
use crate::health::tls::TlsConfigs;
use crate::runtime::random::Rng;
use crate::runtime::task::{self, Task};
use crate::runtime::{mesh, process, signal, time};

/// How much of a handler's output is kept for the log (Consul: `WatchBufSize`).
const OUTPUT_MAX: usize = 4 * 1024;
/// How long the servers wait for a change (Consul: `defaultQueryTime`), and how much longer they may.
const WAIT: Duration = Duration::from_secs(300);
const WAIT_MORE: Duration = Duration::from_secs(300 / 16 + 10);

/// The running watches.
#[derive(Default)]
pub struct Watches {
    running: Vec<(Watch, Task<()>)>,
    configs: Rc<TlsConfigs>,
}

impl Watches {
    /// Has these watches run and no others. One that ran before and is still there runs on, and tells nothing twice; a handler
    /// that runs for one that is not there any more ends by itself.
    pub fn set(&mut self, config: &Config, watches: Vec<Watch>) {
        let Some(own) = Own::of(config) else { return };
        let mut before = std::mem::take(&mut self.running);
        for watch in watches {
            if let Some(at) = before.iter().position(|(running, _)| running.block == watch.block) {
                self.running.push(before.swap_remove(at));
                continue;
            }
            if matches!(watch.handler, Handler::Shell(_)) {
                tracing::warn!(
                    "The 'handler' field in watches has been deprecated and replaced with the 'args' field. See https://www.consul.io/docs/agent/watches.html"
                );
            }
            let following = Following::new(own.clone(), watch.clone(), self.configs.clone());
            self.running.push((watch, task::spawn(following.run())));
        }
    }
}

/// One watch that runs.
struct Following {
    own: Own,
    watch: Watch,
    configs: Rc<TlsConfigs>,
    indexes: Indexes,
    /// The target without index and staleness.
    target: String,
}

impl Following {
    fn new(own: Own, watch: Watch, configs: Rc<TlsConfigs>) -> Following {
        let (target, indexes) = target(&watch.plan);
        Following { own, watch, configs, indexes, target }
    }

    async fn run(self) {
        let mut course = Course::new(self.indexes, Rng::seeded());
        let mut reader = Reader::new(self.watch.plan.subject.clone());
        let mut line = None;
        loop {
            let began = time::now();
            let rest = match self.ask(&mut line, &course).await {
                Ok(Answered { status, index, hash, body }) => {
                    let mark = hash.map_or(Mark::Index(index.unwrap_or(0)), Mark::Hash);
                    match course.answered(mark, status, &body, time::now() - began) {
                        Next::Tell(answer) => {
                            self.tell(&mut reader, &answer).await;
                            Duration::ZERO
                        }
                        Next::Ask(rest) => rest,
                    }
                }
                Err(why) => {
                    let rest = course.failed();
                    let retry = duration::format(i64::try_from(rest.as_nanos()).unwrap_or(i64::MAX));
                    let kind = self.watch.block["type"].as_str().unwrap_or_default();
                    tracing::error!(target: "agent.watch.watch", r#type = %kind, error = %why, retry = %retry, "Watch errored");
                    rest
                }
            };
            if !rest.is_zero() {
                time::sleep(rest).await;
            }
        }
    }

    async fn ask(&self, line: &mut Option<Line>, course: &Course) -> Result<Answered, String> {
        let mut target = self.target.clone();
        let mut add = |name: &str, value: &str| {
            let joint = if target.contains('?') { '&' } else { '?' };
            target.push_str(&format!("{joint}{name}={value}"));
        };
        if self.watch.plan.stale && !course.wants_fresh() {
            add("stale", "");
        }
        if let Some((name, value)) = course.parameter() {
            add(name, &encoded(&value, false));
            add("wait", &format!("{}s", WAIT.as_secs()));
        }
        let token = &self.watch.plan.token;
        let request = Request { method: "GET", target: &target, body: &[], token, limit: WAIT + WAIT_MORE };
        let answered = own::ask(&self.own, line, &self.configs, &request).await?;
        match answered.status {
            200 => Ok(answered),
            404 if answered.index.is_some() => Ok(answered),
            status => {
                let text = String::from_utf8_lossy(&answered.body);
                Err(format!("Unexpected response code: {status} ({})", text.trim_end()))
            }
        }
    }

    async fn tell(&self, reader: &mut Reader, answer: &Answer) {
        let news = match reader.read(answer) {
            Ok(Some(news)) => news,
            Ok(None) => return,
            Err(why) => {
                tracing::error!(target: "agent", error = %why, "Failed to encode data for watch");
                return;
            }
        };
        let (handler, index, line) = (self.watch.handler.clone(), answer.index, news.line());
        let configs = self.configs.clone();
        // By itself, so that it comes to its end even if the watch does not.
        let (done, over) = mesh::oneshot::<()>();
        task::spawn(async move {
            run_handler(&handler, index, line, &configs).await;
            drop(done);
        })
        .detach();
        let _ = over.await;
    }
}

/// The target of a watch without index and staleness, and what the indexes of its answers mean.
fn target(plan: &Plan) -> (String, Indexes) {
    let question = plan.question();
    let mut target = encoded(&question.path, true);
    let mut joint = '?';
    let mut add = |name: &str, value: &str| {
        target.push_str(&format!("{joint}{name}={}", encoded(value, false)));
        joint = '&';
    };
    question.query.iter().for_each(|(name, value)| add(name, value));
    if !plan.datacenter.is_empty() {
        add("dc", &plan.datacenter);
    }
    (target, question.indexes)
}

/// Tells a handler, and the log what it said.
async fn run_handler(handler: &Handler, index: u64, line: Vec<u8>, configs: &TlsConfigs) {
    let shown = handler.shown();
    match (handler, handler.argv()) {
        (Handler::Http(http), _) => tell_over_http(http, index, &line, configs).await,
        (_, None) => {}
        (_, Some(argv)) => {
            let env = vec![("CONSUL_INDEX".into(), index.to_string().into())];
            let spec =
                process::Spec { argv, env, cwd: None, stdin: line, timeout: None, output_max: OUTPUT_MAX };
            match process::run(spec).await {
                Ok(exit) => {
                    if exit.code != Some(0) {
                        let why = match (exit.code, exit.signal) {
                            (Some(code), _) => format!("exit status {code}"),
                            (None, number) => {
                                format!("signal: {}", signal::described(number.unwrap_or_default()))
                            }
                        };
                        tracing::error!(target: "agent", watch_handler = %shown, error = %why, "Failed to run watch handler");
                    }
                    let output = script_text(&exit.output, exit.total);
                    tracing::debug!(target: "agent", watch_handler = %shown, output = %output, "watch handler output");
                }
                Err(why) => {
                    tracing::error!(target: "agent", watch_handler = %shown, error = %why, "Failed to run watch handler");
                }
            }
        }
    }
}

/// Tells a URL.
async fn tell_over_http(http: &HttpHandler, index: u64, line: &[u8], configs: &TlsConfigs) {
    let mut header: BTreeMap<String, Vec<String>> = [
        ("Content-Type", "application/json".to_owned()),
        ("X-Consul-Index", index.to_string()),
        // What Go's client calls itself, and not the name of a check's.
        ("User-Agent", "Go-http-client/1.1".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), vec![value]))
    .into();
    for (name, values) in &http.header {
        let known = header.keys().find(|known| known.eq_ignore_ascii_case(name)).cloned();
        header.entry(known.unwrap_or_else(|| name.clone())).or_default().extend(values.iter().cloned());
    }
    let probe = HttpProbe {
        url: http.path.clone(),
        method: http.method.clone(),
        header,
        body: String::from_utf8_lossy(line).into_owned(),
        disable_redirects: false,
        tls: TlsProbe { skip_verify: http.tls_skip_verify, server_name: String::new() },
    };
    let asked =
        time::timeout(http.timeout, http_client::ask(&probe, configs, http.timeout, OUTPUT_MAX)).await;
    let answer = match asked.unwrap_or_else(|| Err("context deadline exceeded".to_owned())) {
        Ok(answer) => answer,
        Err(why) => {
            tracing::error!(target: "agent", watch = %http.path, error = %why, "Failed to invoke http watch handler");
            return;
        }
    };
    let (total, kept) = (answer.body.total(), answer.body.into_bytes());
    let output = script_text(&kept, total);
    if (200..300).contains(&answer.status) {
        tracing::trace!(target: "agent", watch = %http.path, output = %output, "http watch handler output");
    } else {
        let status = format!("{} {}", answer.status, answer.reason);
        tracing::error!(target: "agent", watch = %http.path, status = %status, output = %output, "http watch handler failed with output");
    }
}
