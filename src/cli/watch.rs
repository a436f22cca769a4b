//! `watch`: shows what an agent answers, or runs a program each time it changes.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde_json::{Map, Value};

use super::client::{Client, Reply};
use super::follow::{Event, Failure, Follower, Question};
use super::kv::connecting;
use super::usage::Command;
use super::{Outcome, Program, gossip, list, value};
use crate::config::duration;
use crate::config::flags::{Parsed, go_bool};
use crate::logs::timestamp;
use crate::runtime::child::{self, Child, Setup, Stdin};
use crate::runtime::signal::{self, Caught};
use crate::runtime::time;
use crate::watch::news::{News, Reader};
use crate::watch::plan::{Plan, Subject};

/// `watch`.
pub const WATCH: Program = Program {
    command: Command {
        name: "watch",
        summary: "Watch for changes in Consul",
        usage: "watch [options] [child...]",
        text: "Watches for changes of what an agent answers. A child is run for the first answer and then for each one that differs: the answer as JSON on its standard input, its index in CONSUL_INDEX. It watches until a child fails, or until it is stopped. Without a child the first answer is shown, and that is all.\n\nThe type must be given, and what belongs to it: -key for key, -prefix for keyprefix, -service for service (with -tag and -passingonly if wanted), -service or -state for checks, -name if wanted for event; services and nodes need nothing.",
    },
    flags: &[
        value("key", "The key. Only for type key."),
        value("name", "The name of events. Only for type event."),
        value("passingonly", "Only instances whose checks all pass: true or false. Only for type service."),
        value("prefix", "The prefix of keys. Only for type keyprefix."),
        value("service", "The service. For types service and checks."),
        super::switch(
            "shell",
            "Run the child by a shell, that of the variable SHELL or /bin/sh. On unless set to false.",
        ),
        value("state", "The state of checks. Only for type checks."),
        list(
            "tag",
            "Only instances with this tag; may be given several times, and all are needed then. Only for type service.",
        ),
        value("type", "What is watched: key, keyprefix, services, nodes, service, checks or event."),
    ],
    run: watch,
};

fn watch(flags: &Parsed) -> Outcome {
    let plan = match plan(flags) {
        Ok(Some(plan)) => plan,
        Ok(None) => return gossip::misused(&WATCH, &super::client::FLAGS, "Watch type must be specified"),
        Err(why) => return Err(why),
    };
    let kind = flags.value("type").unwrap_or_default().to_owned();
    if matches!(plan.subject, Subject::AgentService(_) | Subject::Mesh(_)) {
        return Err(format!("Type {kind} is not supported in the CLI tool"));
    }
    let client = Client::new(flags).map_err(connecting)?;
    client.get("/v1/agent/self", &[]).and_then(Reply::ok).map_err(querying)?;
    let child = (!flags.args.is_empty()).then(|| match flags.value("shell").and_then(go_bool) {
        Some(false) => flags.args.iter().map(Into::into).collect(),
        _ => child::shell(&flags.args.join(" ")),
    });
    // Before any thread begins, so that all signals come here.
    let signals = Caught::block().map_err(|why| format!("cannot listen for signals: {why}"))?;
    let running = Running::default();
    let watching = Watching { argv: child, running: running.clone(), kind, plan, client: Arc::new(client) };
    thread::spawn(move || {
        let code = watching.run();
        std::process::exit(code);
    });
    loop {
        match signals.next(None).map_err(|why| format!("signals are not heard any more: {why}"))? {
            Some(number) if forward(&running, number) => {}
            Some(signal::INT | signal::TERM) => return Ok(ExitCode::SUCCESS),
            Some(number) if signal::ends(number) => {
                return Ok(ExitCode::from(u8::try_from(128 + number).unwrap_or(1)));
            }
            _ => {}
        }
    }
}

/// The child that runs now.
type Running = Arc<Mutex<Option<Arc<Child>>>>;

/// Hands a signal to the child. Whether that is all: who is asked to end ends, too, and leaves the child to what it makes
/// of the signal, as Consul does.
fn forward(running: &Running, number: i32) -> bool {
    let child = running.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(child) = &*child {
        child.signal(number);
    }
    child.is_some() && !matches!(number, signal::INT | signal::TERM)
}

/// The watch that the flags describe; `None` without a type.
fn plan(flags: &Parsed) -> Result<Option<Plan>, String> {
    let mut params = Map::new();
    for name in ["type", "datacenter", "token", "key", "prefix", "service", "state", "name"] {
        if let Some(text) = flags.value(name).filter(|text| !text.is_empty()) {
            params.insert(name.to_owned(), text.into());
        }
    }
    if !params.contains_key("type") {
        return Ok(None);
    }
    let tags: Vec<Value> = flags.values("tag").into_iter().map(Value::from).collect();
    if !tags.is_empty() {
        params.insert("tag".to_owned(), tags.into());
    }
    if flags.is_on("stale") {
        params.insert("stale".to_owned(), true.into());
    }
    if let Some(text) = flags.value("passingonly").filter(|text| !text.is_empty()) {
        let wrong =
            format!("Failed to parse passingonly flag: strconv.ParseBool: parsing {text:?}: invalid syntax");
        params.insert("passingonly".to_owned(), go_bool(text).ok_or(wrong)?.into());
    }
    Plan::parse(&mut params, &[]).map(Some)
}

/// A failure of the first request.
fn querying(why: String) -> String {
    format!("Error querying Consul agent: {why}")
}

/// What the watching thread has.
struct Watching {
    argv: Option<Vec<std::ffi::OsString>>,
    running: Running,
    /// The type, as given.
    kind: String,
    plan: Plan,
    client: Arc<Client>,
}

impl Watching {
    /// Watches until there is nothing more to do; the exit code.
    fn run(self) -> i32 {
        let asked = self.plan.question();
        let query = asked.query.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let question = Question { path: asked.path, query, wait: None, indexes: asked.indexes };
        let mut follower = Follower::new(self.client.clone(), question);
        let mut reader = Reader::new(self.plan.subject.clone());
        loop {
            let answer = match follower.wait() {
                Event::Changed(answer) => answer,
                Event::Failed(failure) => {
                    self.complain(&failure);
                    continue;
                }
                Event::Stopped => return 0,
            };
            match (reader.read(&answer), &self.argv) {
                (Ok(None), _) => {}
                (Ok(Some(news)), None) => return show(&news),
                (Ok(Some(news)), Some(argv)) => {
                    remark(&format!("the answer is new (index {}): running {}", answer.index, shown(argv)));
                    if let Err(why) = self.tell(argv, answer.index, &news) {
                        eprintln!("{why}");
                        return 1;
                    }
                    remark("waiting for a change");
                }
                (Err(why), _) => {
                    eprintln!("Error encoding output: {why}");
                    return 1;
                }
            }
        }
    }

    /// Runs the child to its end.
    fn tell(&self, argv: &[std::ffi::OsString], index: u64, news: &News) -> Result<(), String> {
        let setup = Setup {
            argv: argv.to_vec(),
            env: vec![("CONSUL_INDEX".into(), index.to_string().into())],
            stdin: Stdin::Bytes(news.line()),
            ..Setup::default()
        };
        let child = Child::start(&setup).map_err(|why| format!("Error starting handler: {why}"))?;
        let child = Arc::new(child);
        let set = |running| *self.running.lock().unwrap_or_else(PoisonError::into_inner) = running;
        set(Some(child.clone()));
        let exit = child.wait(None);
        set(None);
        match exit {
            Some(exit) if !exit.is_success() => Err(format!("Error executing handler: {exit}")),
            _ => Ok(()),
        }
    }

    fn complain(&self, failure: &Failure) {
        let rest = duration::format(i64::try_from(failure.rest.as_nanos()).unwrap_or(i64::MAX));
        let now = timestamp(time::unix_now(), 3);
        eprintln!(
            "{now} [ERROR] watch.watch: Watch errored: type={} error={:?} retry={rest}",
            self.kind, failure.why
        );
    }
}

/// Shows an answer; the exit code.
fn show(news: &News) -> i32 {
    let mut text = news.indented();
    text.push(b'\n');
    let mut out = std::io::stdout().lock();
    match out.write_all(&text).and_then(|()| out.flush()) {
        Ok(()) => 0,
        Err(why) => {
            eprintln!("cannot write the output: {why}");
            1
        }
    }
}

/// Says how far it is, to a person who waits, and to nobody else.
fn remark(text: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("==> {text}");
    }
}

fn shown(argv: &[std::ffi::OsString]) -> String {
    argv.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(flags: &[(&'static str, &str)]) -> Result<Option<Plan>, String> {
        let flags = flags.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        plan(&Parsed { flags, args: Vec::new() })
    }

    #[test]
    fn flags_make_a_plan() {
        assert_eq!(of(&[("key", "a")]), Ok(None));
        assert_eq!(of(&[("type", "nodes"), ("key", "a")]), Err("Invalid parameters: [key]".to_owned()));
        let plan =
            of(&[("type", "service"), ("service", "web"), ("tag", "a"), ("tag", "b"), ("passingonly", "1")]);
        let subject = plan.expect("valid").expect("a type").subject;
        let tags = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(subject, Subject::Service { name: "web".into(), tags, passing_only: true });
        assert_eq!(
            of(&[("type", "service"), ("service", "web"), ("passingonly", "x")]),
            Err("Failed to parse passingonly flag: strconv.ParseBool: parsing \"x\": invalid syntax"
                .to_owned())
        );
    }
}
