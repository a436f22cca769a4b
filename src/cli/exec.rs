//! `exec`: runs a command on many nodes, and shows what each says. The job lies among the keys, an event tells the agents
//! of it, and they put what it says and how it ends there, too: layout and words are Consul's.

use std::collections::BTreeSet;
use std::io::Read;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::client::{Client, FLAGS, Reply};
use super::follow::{Event, Follower, Question};
use super::kv::connecting;
use super::usage::Command;
use super::{Outcome, Program, gossip, switch, value};
use crate::agent::rexec::joined;
use crate::config::duration;
use crate::config::flags::{Parsed, go_bool};
use crate::edge::http::filter::go_pattern;
use crate::runtime::signal::{self, Caught};

/// The default prefix of its keys.
const PREFIX: &str = "_rexec";
/// The name of the event.
const EVENT: &str = "_rexec";
/// The session's TTL, and how often it is renewed.
const SESSION_TTL: &str = "15s";
const RENEW_INTERVAL: Duration = Duration::from_secs(5);
/// How long to wait for word from somebody before all counts as done.
const QUIET_WAIT: Duration = Duration::from_secs(2);
/// How long to wait for servers to have the job before agents are told of it.
const REPLICATION_WAIT: Duration = Duration::from_millis(200);
/// So many failures in a row of reading what came end it.
const FAILURES_MAX: u32 = 8;
/// Words of nodes that wait to be shown.
const WORDS_MAX: usize = 128;
/// How often the value of a key is asked for, and how long after a failure.
const READS_MAX: u32 = 6;
const READ_AGAIN: Duration = Duration::from_millis(100);
/// How long it may take to tidy up for somebody who wants it to end.
const TIDY_MAX: Duration = Duration::from_secs(5);
/// How often it is looked whether it shall end while nothing comes.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// `exec`.
pub const EXEC: Program = Program {
    command: Command {
        name: "exec",
        summary: "Executes a command on Consul nodes",
        usage: "exec [options] [-|command...]",
        text: "Runs a command on the nodes of a datacenter whose agents allow it (disable_remote_exec = false), and shows what each of them says. Regular expressions for nodes, services and tags say which nodes. With '-' for a command, standard input is read to its end and is a script.\n\nIt ends with 0 if all nodes that took the job ended it with 0, and with 2 if one did not.",
    },
    flags: &[
        value("node", "Regular expression for node names."),
        value("prefix", "Prefix of the keys for requests and answers; _rexec when not given."),
        value("service", "Regular expression for names of services on the node."),
        switch("shell", "Run the command by a shell. On unless set to false."),
        value("tag", "Regular expression for tags of these services. Only with -service."),
        switch("verbose", "Show what is done on the way."),
        value("wait", "How long to wait without a word from any node before it ends; 2s when not given."),
        value(
            "wait-repl",
            "How long to wait before agents are told, so that all servers have the job; 200ms when not given.",
        ),
    ],
    run: exec,
};

/// What the flags say.
struct Task {
    spec: Vec<u8>,
    prefix: String,
    filters: Vec<(&'static str, String)>,
    wait: Duration,
    replication_wait: Duration,
    verbose: bool,
}

fn exec(flags: &Parsed) -> Outcome {
    let by_shell = flags.value("shell").and_then(go_bool).unwrap_or(true);
    let wait = length(flags, "wait", QUIET_WAIT)?;
    let words = flags.args.join(" ");
    let (mut command, mut script, mut args) = (String::new(), Vec::new(), Vec::new());
    match (words.as_str(), by_shell) {
        ("-", false) => return Err("Cannot configure -shell=false when reading from stdin".to_owned()),
        ("-", true) => {
            let read = std::io::stdin().read_to_end(&mut script);
            read.map_err(|why| format!("Failed to read stdin: {why}"))?;
        }
        (_, true) => command = words,
        (_, false) => args.clone_from(&flags.args),
    }
    if command.is_empty() && script.is_empty() && args.is_empty() {
        return gossip::misused(&EXEC, &FLAGS, "Must specify a command to execute");
    }
    // Absent lists are null, as Go writes them.
    let spec = json!({
        "Command": command,
        "Args": if args.is_empty() { Value::Null } else { json!(args) },
        "Script": if script.is_empty() { Value::Null } else { json!(STANDARD.encode(&script)) },
        "Wait": u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX),
    });
    let task = Task {
        spec: spec.to_string().into_bytes(),
        prefix: flags.value("prefix").unwrap_or(PREFIX).to_owned(),
        filters: filters(flags)?,
        wait,
        replication_wait: length(flags, "wait-repl", REPLICATION_WAIT)?,
        verbose: flags.is_on("verbose"),
    };
    let client = Client::new(flags).map_err(connecting)?;
    let querying = |why| format!("Error querying Consul agent: {why}");
    let own = client.get("/v1/agent/self", &[]).and_then(Reply::ok).map_err(querying)?;
    let own: Value = serde_json::from_slice(&own).map_err(|why| querying(why.to_string()))?;
    let stop = Stop::listen()?;
    let abroad = flags.value("datacenter").filter(|dc| !dc.is_empty() && own["Config"]["Datacenter"] != **dc);
    let session = Session::create(Arc::new(client), abroad.map(|dc| (dc, &own["Config"])), task.verbose)
        .map_err(|why| format!("Failed to create session: {why}"))?;
    let code = run(&task, &session, &stop);
    session.end();
    // Only now, when no agent can write more.
    let folder = task.folder(&session);
    let _ = session.client.request("DELETE", &format!("/v1/kv/{folder}"), &[("recurse", "")], &[]);
    code
}

impl Task {
    /// The prefix of all keys of the job.
    fn folder(&self, session: &Session) -> String {
        joined(&[&self.prefix, &session.id])
    }
}

/// A length of time of a flag.
fn length(flags: &Parsed, name: &str, default: Duration) -> Result<Duration, String> {
    let Some(text) = flags.value(name) else { return Ok(default) };
    let ns =
        duration::parse(text).map_err(|_| format!("invalid value {text:?} for flag -{name}: parse error"))?;
    Ok(Duration::from_nanos(u64::try_from(ns).unwrap_or(0)))
}

/// The filters of nodes, which must be regular expressions.
fn filters(flags: &Parsed) -> Result<Vec<(&'static str, String)>, String> {
    let mut out = Vec::new();
    for name in ["node", "service", "tag"] {
        let Some(text) = flags.value(name).filter(|text| !text.is_empty()) else { continue };
        go_pattern(text).map_err(|why| format!("Failed to compile {name} filter regexp: {why}"))?;
        out.push((name, text.to_owned()));
    }
    let has = |name| out.iter().any(|(known, _)| *known == name);
    if has("tag") && !has("service") {
        return Err("Cannot provide tag filter without service filter.".to_owned());
    }
    Ok(out)
}

/// Puts the job there, tells the agents, and shows what they say.
fn run(task: &Task, session: &Session, stop: &Stop) -> Outcome {
    let verbose = |text: &str| {
        if task.verbose {
            println!("{text}");
        }
    };
    verbose(&format!("Created remote execution session: {}", session.id));
    let key = format!("{}/job", task.folder(session));
    if key.starts_with('/') {
        return Err(format!("Failed to create job file: Invalid key. Key must not begin with a '/': {key}"));
    }
    let put = session.client.put(&format!("/v1/kv/{key}"), &[("acquire", &session.id)], &task.spec);
    match put.and_then(Reply::ok) {
        Ok(body) if body.trim_ascii() == b"true" => {}
        Ok(_) => return Err(format!("Failed to create job file: failed to acquire key {key}")),
        Err(why) => return Err(format!("Failed to create job file: {why}")),
    }
    verbose("Uploaded remote execution spec");
    if stop.is_wanted(task.replication_wait) {
        return Ok(ExitCode::FAILURE);
    }
    let query: Vec<(&str, &str)> = task.filters.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let call = json!({ "Prefix": task.prefix, "Session": session.id }).to_string();
    let failed = |why: String| format!("Failed to fire event: {why}");
    let fired = session.client.put(&format!("/v1/event/fire/{EVENT}"), &query, call.as_bytes());
    let fired = fired.and_then(Reply::ok).map_err(failed)?;
    let fired: Value = serde_json::from_slice(&fired).map_err(|why| failed(why.to_string()))?;
    verbose(&format!("Fired remote execution event: {}", fired["ID"].as_str().unwrap_or_default()));
    wait_for_job(task, session, stop)
}

/// Whether somebody wants it to end.
#[derive(Clone, Default)]
struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    /// Listens for signals in a thread of its own. Who asks for an end gets it: what is under way may tidy up, for some
    /// seconds or until the next signal.
    fn listen() -> Result<Stop, String> {
        let signals = Caught::block().map_err(|why| format!("cannot listen for signals: {why}"))?;
        let stop = Stop::default();
        let told = stop.clone();
        thread::spawn(move || {
            await_end(&signals, None);
            *told.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
            told.0.1.notify_all();
            await_end(&signals, Some(TIDY_MAX));
            std::process::exit(1);
        });
        Ok(stop)
    }

    /// Whether it is wanted, within so long.
    fn is_wanted(&self, wait: Duration) -> bool {
        let wanted = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_timeout_while(wanted, wait, |wanted| !*wanted);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Waits for a signal that ends, or for so long.
fn await_end(signals: &Caught, limit: Option<Duration>) {
    let until = limit.map(|limit| Instant::now() + limit);
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        match signals.next(left) {
            Ok(Some(number)) if !signal::ends(number) => {}
            _ => return,
        }
    }
}

/// What a node says.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    Acknowledged {
        node: String,
    },
    Heartbeat {
        node: String,
    },
    Output {
        node: String,
        bytes: Vec<u8>,
    },
    Exit {
        node: String,
        code: i64,
    },
    /// Nothing can be read any more.
    Failed,
}

fn wait_for_job(task: &Task, session: &Session, stop: &Stop) -> Outcome {
    let began = Instant::now();
    let (words, heard) = sync_channel(WORDS_MAX);
    let folder = format!("{}/", task.folder(session));
    let (client, wait) = (session.client.clone(), task.wait);
    thread::spawn(move || stream(&client, &folder, wait, &words));
    let (mut acknowledged, mut ended, mut failed) = (0, 0, 0);
    loop {
        // Who is known to work on may take longer.
        let patience = if acknowledged > ended { task.wait * 2 } else { task.wait };
        match next_word(&heard, stop, patience) {
            Heard::Word(Word::Acknowledged { node }) => {
                acknowledged += 1;
                if task.verbose {
                    said(true, &node, "acknowledged");
                }
            }
            Heard::Word(Word::Heartbeat { node }) => {
                if task.verbose {
                    said(true, &node, "heartbeat received");
                }
            }
            Heard::Word(Word::Output { node, bytes }) => said(false, &node, &String::from_utf8_lossy(&bytes)),
            Heard::Word(Word::Exit { node, code }) => {
                ended += 1;
                failed += usize::from(code != 0);
                said(true, &node, &format!("finished with exit code {code}"));
            }
            Heard::Word(Word::Failed) | Heard::Stop => return Ok(ExitCode::FAILURE),
            Heard::Silence => break,
        }
    }
    println!("{ended} / {acknowledged} node(s) completed / acknowledged");
    if task.verbose {
        println!("Completed in {:.2} seconds", began.elapsed().as_secs_f64());
    }
    let all_well = failed == 0 && ended >= acknowledged;
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// What there was while waiting for a word.
enum Heard {
    Word(Word),
    Silence,
    Stop,
}

fn next_word(heard: &Receiver<Word>, stop: &Stop, patience: Duration) -> Heard {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match heard.recv_timeout(left.min(LOOK_INTERVAL)) {
            Ok(word) => return Heard::Word(word),
            Err(RecvTimeoutError::Disconnected) => return Heard::Stop,
            Err(RecvTimeoutError::Timeout) if stop.is_wanted(Duration::ZERO) => return Heard::Stop,
            Err(RecvTimeoutError::Timeout) if Instant::now() >= until => return Heard::Silence,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Shows what a node says, each line with its name.
fn said(by_us: bool, node: &str, text: &str) {
    let arrow = if by_us { "==>" } else { "   " };
    let lines: Vec<String> = text.split('\n').map(|line| format!("{arrow} {node}: {line}")).collect();
    println!("{}", lines.join("\n").trim_end());
}

/// Follows the keys of the job, and tells what they hold, each once.
fn stream(client: &Arc<Client>, folder: &str, wait: Duration, words: &SyncSender<Word>) {
    let mut question = Question::new(format!("/v1/kv/{folder}"), &[("keys", ""), ("separator", "")]);
    question.wait = Some(wait);
    let mut follower = Follower::new(client.clone(), question);
    let (mut seen, mut failures) = (BTreeSet::new(), 0);
    loop {
        let keys: Vec<String> = match follower.wait() {
            Event::Changed(answer) if answer.status == 200 => {
                serde_json::from_slice(&answer.body).unwrap_or_default()
            }
            Event::Changed(_) => Vec::new(),
            Event::Failed(failure) => {
                failures += 1;
                if failures >= FAILURES_MAX || failure.is_refusal() {
                    eprintln!("Failed to read results: {}", failure.why);
                    let _ = words.send(Word::Failed);
                    return;
                }
                continue;
            }
            Event::Stopped => return,
        };
        failures = 0;
        // How a node ended is told behind what it said.
        let (ends, others): (Vec<String>, Vec<String>) =
            keys.into_iter().partition(|key| key.ends_with("/exit"));
        for key in others.into_iter().chain(ends) {
            let Some(name) = key.strip_prefix(folder).filter(|_| !seen.contains(&key)) else { continue };
            match word(client, &key, name) {
                Ok(None) => {}
                Ok(Some(word)) => {
                    if words.send(word).is_err() {
                        return;
                    }
                }
                Err(why) => eprintln!("{why}"),
            }
            seen.insert(key);
        }
    }
}

/// What a key of the job says; `None` for the job itself.
fn word(client: &Client, key: &str, name: &str) -> Result<Option<Word>, String> {
    let value = || -> Result<Vec<u8>, String> {
        let mut tries = 0;
        loop {
            tries += 1;
            match client.get(&format!("/v1/kv/{key}"), &[("raw", "")]).and_then(Reply::ok) {
                Ok(bytes) => return Ok(bytes),
                Err(why) if tries >= READS_MAX => return Err(format!("Failed to read key '{key}': {why}")),
                // The leader may be changing.
                Err(_) => thread::sleep(READ_AGAIN * tries),
            }
        }
    };
    if name == "job" {
        return Ok(None);
    }
    if let Some(node) = name.strip_suffix("/ack") {
        return Ok(Some(Word::Acknowledged { node: node.to_owned() }));
    }
    if let Some(node) = name.strip_suffix("/exit") {
        let text = String::from_utf8_lossy(&value()?).into_owned();
        let code = text.parse().map_err(|_| format!("Failed to parse exit code '{text}'"))?;
        return Ok(Some(Word::Exit { node: node.to_owned(), code }));
    }
    match name.rsplit_once("/out/") {
        Some((node, _)) => {
            let (node, bytes) = (node.to_owned(), value()?);
            Ok(Some(if bytes.is_empty() { Word::Heartbeat { node } } else { Word::Output { node, bytes } }))
        }
        None => Err(format!("Unknown key '{name}', ignoring.")),
    }
}

/// The session that all keys of the job belong to.
struct Session {
    client: Arc<Client>,
    id: String,
}

impl Session {
    /// Creates it, and renews it from then on. Abroad it is bound to a server there, for our own node is not known.
    fn create(client: Arc<Client>, abroad: Option<(&str, &Value)>, verbose: bool) -> Result<Session, String> {
        let mut entry = json!({ "Name": "Remote Exec", "Behavior": "delete", "TTL": SESSION_TTL });
        if let Some((datacenter, own)) = abroad {
            let text = |name: &str| own[name].as_str().unwrap_or_default();
            let found = client.get("/v1/health/service/consul", &[("passing", "1")]).and_then(Reply::ok);
            let missing = "Failed to find Consul server in remote datacenter";
            let found = found.map_err(|why| format!("{missing}: {why}"))?;
            let found: Value = serde_json::from_slice(&found).map_err(|why| format!("{missing}: {why}"))?;
            let node = found[0]["Node"]["Node"].as_str().ok_or(missing)?;
            if verbose {
                println!("Remote exec in foreign datacenter, using Session TTL");
                println!("Binding session to remote node {node}@{datacenter}");
            }
            entry["Name"] = json!(format!("Remote Exec via {}@{}", text("NodeName"), text("Datacenter")));
            entry["Node"] = json!(node);
            entry["Checks"] = json!([]);
        }
        let made = client.put("/v1/session/create", &[], entry.to_string().as_bytes()).and_then(Reply::ok)?;
        let made: Value = serde_json::from_slice(&made).map_err(|why| why.to_string())?;
        let id = made["ID"].as_str().ok_or("no session ID in the answer")?.to_owned();
        let session = Session { client, id };
        let (client, path) = (session.client.clone(), format!("/v1/session/renew/{}", session.id));
        // It ends with the process.
        thread::spawn(move || {
            loop {
                thread::sleep(RENEW_INTERVAL);
                match client.put(&path, &[], &[]) {
                    Ok(Reply { status: 200, .. }) => {}
                    // Destroyed: all is over.
                    Ok(Reply { status: 404, .. }) => return,
                    Ok(reply) => drop(reply.ok().map_err(|why| eprintln!("Session renew failed: {why}"))),
                    Err(why) => eprintln!("Session renew failed: {why}"),
                }
            }
        });
        Ok(session)
    }

    /// Destroys it, and with it the right of agents to write.
    fn end(&self) {
        // If it cannot be destroyed it expires.
        let _ = self.client.put(&format!("/v1/session/destroy/{}", self.id), &[], &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_words_of_nodes() {
        let flags = Parsed { flags: vec![("http-addr", "127.0.0.1:1".to_owned())], args: Vec::new() };
        let client = Client::new(&flags).expect("a client");
        let of = |name: &str| word(&client, name, name);
        assert_eq!(of("job"), Ok(None));
        assert_eq!(of("a/ack"), Ok(Some(Word::Acknowledged { node: "a".to_owned() })));
        assert_eq!(of("a/what"), Err("Unknown key 'a/what', ignoring.".to_owned()));
        assert!(of("a/out/00000").is_err_and(|why| why.starts_with("Failed to read key 'a/out/00000'")));
    }

    #[test]
    fn filters_must_be_regular_expressions() {
        let of = |flags: Vec<(&'static str, String)>| filters(&Parsed { flags, args: Vec::new() });
        assert_eq!(
            of(vec![("tag", "a".to_owned())]),
            Err("Cannot provide tag filter without service filter.".to_owned())
        );
        assert!(
            of(vec![("node", "(".to_owned())])
                .is_err_and(|why| why.starts_with("Failed to compile node filter regexp: "))
        );
        let good = vec![("node", "a".to_owned()), ("service", "b".to_owned())];
        assert_eq!(of(good.clone()), Ok(good));
    }
}
