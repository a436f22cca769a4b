//! Remote execution, the agent's side: an event names a job that lies among the keys; the agent acknowledges it, runs it, and puts
//! what it says and how it ends there, too. Layout and words are Consul's, so that either program's `exec` drives either's
//! agents. Off unless `disable_remote_exec` is false.
//!
//! All keys are written with the job's session: when whoever asked is gone, so is its session, and nothing more is
//! written. The job itself runs to its end, as in Consul: half a job is worse than one that nobody reads.

use std::cell::Cell;
use std::ffi::OsString;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::config::Config;
use crate::health::tls::TlsConfigs;
use crate::runtime::publish::Published;
use crate::runtime::{fs, process, random, task, time};
use crate::watch::gotext::encoded;
use crate::watch::own::{self, Line, Own, Request};

/// The name of events that ask for it (Consul: `remoteExecName`).
pub const EVENT_NAME: &str = "_rexec";

/// Jobs at a time; further ones are not acknowledged.
const JOBS_MAX: usize = 64;
/// Bytes of output in a key (Consul: `remoteExecOutputSize`).
const OUTPUT_SIZE: usize = 4 * 1024;
/// What is shorter is written so long after its first byte (Consul: `remoteExecOutputDeadline`, after its last one).
const OUTPUT_IDLE: Duration = Duration::from_millis(500);
/// The shortest time between signs of life of a job that says nothing.
const HEARTBEAT_MIN: Duration = Duration::from_millis(100);
/// How long one request may take.
const REQUEST_MAX: Duration = Duration::from_secs(15);
/// How often a write that failed is tried again, and how long after: a change of leader is no reason to lose output.
const TRIES_MAX: u32 = 8;
const TRY_AGAIN: Duration = Duration::from_millis(250);
/// The exit code of what could not be run (Consul).
const NOT_RUN: i32 = 255;

/// What the event says.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Call {
    prefix: String,
    session: String,
}

/// The job.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
struct Job {
    command: String,
    args: Option<Vec<String>>,
    /// base64.
    script: Option<String>,
    /// Nanoseconds.
    wait: i64,
}

/// Runs jobs.
pub struct RemoteExec {
    config: Published<Config>,
    configs: TlsConfigs,
    running: Cell<usize>,
}

impl RemoteExec {
    /// For an agent of this configuration.
    pub fn new(config: Published<Config>) -> Rc<RemoteExec> {
        Rc::new(RemoteExec { config, configs: TlsConfigs::default(), running: Cell::new(0) })
    }

    /// An event that asks for a job has come.
    pub fn called(self: &Rc<RemoteExec>, event_id: &str, payload: &[u8]) {
        let config = self.config.load_full();
        if config.disable_remote_exec {
            tracing::info!(event_name = EVENT_NAME, event_id, "ignoring remote exec event, disabled.");
            return;
        }
        tracing::debug!(event_id, "received remote exec event");
        let call: Call = match serde_json::from_slice(payload) {
            Ok(call) => call,
            Err(why) => {
                tracing::error!(error = %why, "failed to decode remote exec event");
                return;
            }
        };
        let Some(own) = Own::of(&config) else {
            tracing::error!(
                "a remote exec event is passed over: the agent serves no HTTP, over which it would write"
            );
            return;
        };
        if self.running.get() >= JOBS_MAX {
            tracing::error!("a remote exec event is passed over: {JOBS_MAX} jobs run already");
            return;
        }
        self.running.set(self.running.get() + 1);
        let (exec, folder) = (self.clone(), joined(&[&call.prefix, &call.session]));
        let own_folder = joined(&[&folder, &config.node_name]);
        task::spawn(async move {
            let _place = Place(exec.clone());
            let mut desk = Desk { exec, own, line: None, session: call.session, folder, own_folder };
            desk.serve().await;
        })
        .detach();
    }
}

/// A job's place among the running ones.
struct Place(Rc<RemoteExec>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
    }
}

/// Where one job is read from and written to.
struct Desk {
    exec: Rc<RemoteExec>,
    own: Own,
    line: Option<Line>,
    session: String,
    /// The job's keys.
    folder: String,
    /// Those that this agent writes.
    own_folder: String,
}

impl Desk {
    async fn serve(&mut self) {
        let Some(job) = self.job().await else { return };
        if let Err(why) = self.write("ack", &[]).await {
            tracing::error!(error = %why, "failed to ack remote exec job");
            return;
        }
        let code = self.run(&job).await;
        if let Err(why) = self.write("exit", code.to_string().as_bytes()).await {
            tracing::error!(error = %why, "failed to write exit code for remote exec job");
        }
    }

    /// The job. Whichever server is near is asked first: it was written a moment before the event was fired.
    async fn job(&mut self) -> Option<Job> {
        for freshness in ["stale", "consistent"] {
            let target = format!("/v1/kv/{}/job?raw&{freshness}", encoded(&self.folder, true));
            let found = match self.request("GET", &target, &[]).await {
                Ok((200, body)) => body,
                Ok((404, _)) => continue,
                Ok((status, body)) => {
                    let text = String::from_utf8_lossy(&body);
                    tracing::error!(error = %format!("{status} ({})", text.trim_end()), "failed to get remote exec job");
                    return None;
                }
                Err(why) => {
                    tracing::error!(error = %why, "failed to get remote exec job");
                    return None;
                }
            };
            return match serde_json::from_slice(&found) {
                Ok(job) => Some(job),
                Err(why) => {
                    tracing::error!(error = %why, "failed to decode remote exec spec");
                    None
                }
            };
        }
        tracing::debug!("remote exec aborted, job spec missing");
        None
    }

    /// Runs the job and writes what it says; its exit code.
    async fn run(&mut self, job: &Job) -> i32 {
        let script = job.script.as_deref().filter(|script| !script.is_empty());
        let file = match script {
            None => None,
            Some(script) => match ScriptFile::write(script).await {
                Ok(file) => Some(file),
                Err(why) => {
                    tracing::error!(error = %why, "failed to make tmp file");
                    return NOT_RUN;
                }
            },
        };
        let text = file.as_ref().map_or_else(|| job.command.clone(), |file| file.0.display().to_string());
        tracing::info!(script = %text, "remote exec script");
        let argv: Vec<OsString> = match job.args.as_deref() {
            Some(args) if !args.is_empty() => args.iter().map(OsString::from).collect(),
            _ => {
                let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
                vec![shell.unwrap_or_else(|| "/bin/sh".into()), "-c".into(), text.into()]
            }
        };
        let flow = match process::Flow::start(&process::Spec { argv, ..process::Spec::default() }) {
            Ok(flow) => flow,
            Err(why) => {
                tracing::error!(error = %why, "failed to start remote exec");
                return NOT_RUN;
            }
        };
        let heartbeat = Duration::from_nanos(u64::try_from(job.wait).unwrap_or(0)).max(HEARTBEAT_MIN);
        self.upload(flow, heartbeat).await
    }

    /// Writes a child's output as it comes, in pieces, and empty ones while it says nothing: whoever waits for word of it hears
    /// at least so often.
    async fn upload(&mut self, mut flow: process::Flow, heartbeat: Duration) -> i32 {
        let (mut waiting, mut number, mut is_read) = (Vec::new(), 0u64, true);
        let mut due = time::now() + heartbeat;
        loop {
            let piece = match time::timeout(due.saturating_duration_since(time::now()), flow.next()).await {
                None => Some(std::mem::take(&mut waiting)),
                Some(Ok(Some(bytes))) => {
                    if waiting.is_empty() {
                        due = due.min(time::now() + OUTPUT_IDLE);
                    }
                    waiting.extend_from_slice(&bytes);
                    None
                }
                Some(Ok(None)) => break,
                Some(Err(why)) => {
                    tracing::error!(error = %why, "remote exec: the child cannot be waited for");
                    return NOT_RUN;
                }
            };
            let mut pieces: Vec<Vec<u8>> = piece.into_iter().collect();
            while waiting.len() >= OUTPUT_SIZE {
                let rest = waiting.split_off(OUTPUT_SIZE);
                pieces.push(std::mem::replace(&mut waiting, rest));
            }
            if pieces.is_empty() {
                continue;
            }
            for piece in pieces {
                is_read = is_read && self.write_output(&mut number, &piece).await;
            }
            due = time::now() + if waiting.is_empty() { heartbeat } else { OUTPUT_IDLE.min(heartbeat) };
        }
        if !waiting.is_empty() {
            is_read = is_read && self.write_output(&mut number, &waiting).await;
        }
        match flow.end() {
            Ok(_) if !is_read => NOT_RUN,
            // Killed by a signal: what Go's status says then.
            Ok((code, _)) => code.unwrap_or(-1),
            Err(_) => NOT_RUN,
        }
    }

    /// Whether somebody still wants more.
    async fn write_output(&mut self, number: &mut u64, piece: &[u8]) -> bool {
        let name = format!("out/{number:05x}");
        *number += 1;
        match self.write(&name, piece).await {
            Ok(()) => true,
            Err(why) => {
                tracing::error!(error = %why, "failed to write output for remote exec job");
                false
            }
        }
    }

    /// Writes one of this agent's keys, with the session of the job.
    async fn write(&mut self, name: &str, value: &[u8]) -> Result<(), String> {
        let key = encoded(&joined(&[&self.own_folder, name]), true);
        let target = format!("/v1/kv/{key}?acquire={}", encoded(&self.session, false));
        let mut tries = 0;
        loop {
            let why = match self.request("PUT", &target, value).await {
                Ok((200, body)) if body.trim_ascii() == b"true" => return Ok(()),
                Ok((200, _)) => return Err("write failed".to_owned()),
                Ok((status, body)) => {
                    let text = String::from_utf8_lossy(&body).trim_end().to_owned();
                    // The session is gone, and so is whoever asked.
                    if status < 500 || text.contains("session") {
                        return Err(text);
                    }
                    text
                }
                Err(why) => why,
            };
            tries += 1;
            if tries >= TRIES_MAX {
                return Err(why);
            }
            time::sleep(TRY_AGAIN * tries).await;
        }
    }

    async fn request(&mut self, method: &str, target: &str, body: &[u8]) -> Result<(u16, Vec<u8>), String> {
        let request = Request { method, target, body, token: "", limit: REQUEST_MAX };
        let answered = own::ask(&self.own, &mut self.line, &self.exec.configs, &request).await?;
        Ok((answered.status, answered.body))
    }
}

/// A script on disk, removed at its end.
struct ScriptFile(PathBuf);

impl ScriptFile {
    /// Writes a script that only this agent's user and group may read and run.
    async fn write(script: &str) -> Result<ScriptFile, String> {
        let bytes = STANDARD.decode(script).map_err(|why| why.to_string())?;
        let path = std::env::temp_dir().join(format!("rexec{}", random::uuid()));
        let file = ScriptFile(path.clone());
        fs::write_atomically(path, bytes, 0o750).await.map_err(|error| error.to_string())?;
        Ok(file)
    }
}

impl Drop for ScriptFile {
    fn drop(&mut self) {
        // A file that stays behind in the folder for such files does no harm.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Parts of a key as Go's `path.Join` puts them together.
pub fn joined(parts: &[&str]) -> String {
    let mut out: Vec<&str> = Vec::new();
    let is_rooted = parts.iter().find(|part| !part.is_empty()).is_some_and(|part| part.starts_with('/'));
    for word in parts.iter().flat_map(|part| part.split('/')) {
        match word {
            "" | "." => {}
            ".." if out.last().is_some_and(|last| *last != "..") => drop(out.pop()),
            ".." if is_rooted => {}
            word => out.push(word),
        }
    }
    format!("{}{}", if is_rooted { "/" } else { "" }, out.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_joined_as_go_does() {
        assert_eq!(joined(&["_rexec", "id", "job"]), "_rexec/id/job");
        assert_eq!(joined(&["a//b/", "./c", "../d"]), "a/b/d");
        assert_eq!(joined(&["", "id"]), "id");
        assert_eq!(joined(&["/a", "../../b"]), "/b");
    }

    #[test]
    fn jobs_are_read_as_consul_writes_them() {
        let job: Job =
            serde_json::from_str(r#"{"Command":"uptime","Args":null,"Script":null,"Wait":2000000000}"#)
                .unwrap();
        assert_eq!(job, Job { command: "uptime".into(), wait: 2_000_000_000, ..Job::default() });
        let job: Job =
            serde_json::from_str(r#"{"Command":"","Args":["a","b"],"Script":"eA==","Wait":1}"#).unwrap();
        assert_eq!(job.args.as_deref(), Some(&["a".to_owned(), "b".to_owned()][..]));
    }
}
