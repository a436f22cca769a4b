//! `lock`: runs a command while it holds a lock, or one of the places of a semaphore.
//!
//! The first thread decides; others wait for one thing each and tell it: signals, the lock, the session (`keeper.rs`), the
//! loss of the lock, the end of the child. The child's deadline is with its guard (`runtime::child`), which needs none of them.

mod ask;
mod keeper;
mod mutex;
mod semaphore;
mod slot;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::client::Client;
use super::kv::connecting;
use super::usage::{Command, program};
use super::{Outcome, Program, int, switch, value};
use crate::config::duration;
use crate::config::flags::{Flag, FlagKind, Parsed};
use crate::runtime::child::{self, Child, Exit, Setup, Stdin};
use crate::runtime::signal::{self, Caught};
use crate::runtime::time::boot_now;
use ask::{Agent, PATIENCE, Trouble};
use keeper::{Behavior, GRACE, Keeper};
use slot::{Cleanup, Slot, Taken, Waiting};

/// Between attempts to monitor (Consul: `defaultMonitorRetryTime`).
const MONITOR_REST: Duration = Duration::from_secs(1);
/// How often a monitor asks again by default (Consul: `defaultMonitorRetry`).
const MONITOR_RETRY: i64 = 3;
/// Events that wait for the first thread; those who tell more wait.
const EVENTS_MAX: usize = 16;
/// Between attempts to make another session, and to give the lock back; and how long that is tried.
const SESSION_REST: Duration = Duration::from_secs(1);
const RELEASE_REST: Duration = Duration::from_millis(250);
const RELEASE_PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether what cannot be ended is gone.
const OUTLIVE_REST: Duration = Duration::from_secs(1);
/// What is said when the wait was in vain.
const NOT_ACQUIRED: &str = "Shutdown triggered or timeout during lock acquisition";
/// What `-child-exit-code` makes of a child that failed.
const CHILD_FAILED: u8 = 2;

/// The command.
pub const LOCK: Program = Program {
    command: Command {
        name: "lock",
        summary: "Execute a command holding a lock",
        usage: "lock [options] PREFIX CHILD...",
        text: "Waits for the lock under a prefix, runs a command while it holds it, and gives it back. The prefix must be writable. With -n above 1 so many may hold it at once; all must say the same number. \
               Other programs that use Consul's recipe for locks and semaphores on the same prefix are excluded, too.\n\n\
               The command and all of its process group get SIGTERM when the lock is lost, and SIGKILL 5 seconds later: when another has it, when the session has ended, or when no server has renewed it for 7 seconds. That holds even if this \
               program is stopped or killed: a second process (lock-guard) watches the time. So the command is dead before another can have the lock, 15 seconds after the last renewal at the earliest. Not covered are a command that becomes \
               another user, what leaves the process group for a session of its own, and both processes killed or stopped at the same moment.\n\n\
               The command finds CONSUL_LOCK_HELD=true in its environment, and in MUSTER_LOCK_INDEX (with -n=1) a number that is higher for each holder: storage that refuses writes with lower numbers than it has seen is safe from former holders in all cases.",
    },
    flags: &[
        switch(
            "child-exit-code",
            "Exit with 2 if the command fails; otherwise its exit code does not matter. The default is false.",
        ),
        int(
            "monitor-retry",
            "How often to ask again, a second later, when a server cannot tell whether the lock is held. More of it rides out longer troubles, but finds a lost lock later. The default is 3; 0 takes the first failure for the loss.",
        ),
        int("n", "How many may hold it at once; above 1 it is a semaphore. The default is 1."),
        value("name", "Name of the session. The default is made of the command and the prefix."),
        switch("pass-stdin", "The command reads our standard input; otherwise it reads nothing."),
        Flag {
            name: "shell",
            kind: FlagKind::Bool,
            help: "The command is run by a shell, that of SHELL or /bin/sh. The default is true.",
        },
        value(
            "timeout",
            "How long to wait for the lock at most, like '1s' or '3h'. The default is 0: for ever.",
        ),
        value("try", "The former name of -timeout."),
        switch("verbose", "Say what is done."),
    ],
    run: lock,
};

/// What the first thread is told. Sessions come and go while the lock is waited for: what another one tells comes late.
enum Event {
    /// A signal came.
    Signal(i32),
    /// The wait for the lock is over.
    Taken { session: String, taken: Result<Option<Taken>, Trouble> },
    /// The lock is, or may be, another's from now on; or the session has ended while it was waited for.
    Lost { session: String, why: String },
    /// The child has ended.
    Ended(Exit),
}

/// How a wait ends.
enum Waited {
    /// The lock is ours.
    Taken(Taken),
    /// The time is over.
    Over,
    /// Nobody wants it any more.
    Signalled(i32),
}

/// What the command line asks for.
struct Wish {
    prefix: String,
    words: Vec<String>,
    name: String,
    limit: i64,
    timeout: Option<Duration>,
    retries: i64,
    pass_stdin: bool,
    shell: bool,
    child_code: bool,
    verbose: bool,
}

impl Wish {
    fn of(flags: &Parsed) -> Result<Wish, String> {
        let limit = flags.int("n").unwrap_or(1);
        if limit <= 0 {
            return Err("Lock holder limit must be positive".to_owned());
        }
        let [prefix, words @ ..] = flags.args.as_slice() else {
            return Err("Key prefix and child command must be specified".to_owned());
        };
        if words.is_empty() {
            return Err("Key prefix and child command must be specified".to_owned());
        }
        let prefix = prefix.strip_prefix('/').unwrap_or(prefix).to_owned();
        let given = flags.flags.iter().rev().find(|(name, _)| matches!(*name, "timeout" | "try"));
        let timeout = given.map_or(Ok(0), |(name, text)| {
            duration::parse(text).map_err(|_| format!("invalid value {text:?} for flag -{name}: parse error"))
        })?;
        let timeout = u64::try_from(timeout).map_err(|_| "Timeout must be positive".to_owned())?;
        let retries = flags.int("monitor-retry").unwrap_or(MONITOR_RETRY);
        if retries < 0 {
            return Err("Number for 'monitor-retry' must be >= 0".to_owned());
        }
        let name = match flags.value("name").filter(|name| !name.is_empty()) {
            Some(name) => name.to_owned(),
            None => format!("Consul lock for '{}' at '{prefix}'", words.join(" ")),
        };
        Ok(Wish {
            prefix,
            words: words.to_vec(),
            name,
            limit,
            timeout: (timeout > 0).then(|| Duration::from_nanos(timeout)),
            retries,
            pass_stdin: flags.is_on("pass-stdin"),
            shell: flags.value("shell").is_none() || flags.is_on("shell"),
            child_code: flags.is_on("child-exit-code"),
            verbose: flags.is_on("verbose"),
        })
    }

    /// What to run, with a number for those who can check it.
    fn setup(&self, taken: &Taken) -> Setup {
        let mut env = vec![("CONSUL_LOCK_HELD".into(), "true".into())];
        if let Some(fence) = taken.fence {
            env.push(("MUSTER_LOCK_INDEX".into(), fence.to_string().into()));
        }
        let argv = match self.shell {
            true => child::shell(&self.words.join(" ")),
            false => self.words.iter().map(Into::into).collect(),
        };
        let stdin = if self.pass_stdin { Stdin::Ours } else { Stdin::Nothing };
        Setup { argv, env, stdin, ..Setup::default() }
    }
}

/// What is said while it goes on.
#[derive(Clone, Copy)]
struct Voice {
    /// Consul's lines of `-verbose`, to standard output.
    verbose: bool,
    /// A person waits at the terminal: they are told what we wait for.
    tells: bool,
}

impl Voice {
    fn say(self, text: &str) {
        if self.verbose {
            println!("{text}");
        }
    }

    fn tell(self, text: &str) {
        if self.tells {
            eprintln!("==> {text}");
        }
    }
}

/// `lock`.
fn lock(flags: &Parsed) -> Outcome {
    let wish = Wish::of(flags)?;
    let client = Client::new(flags).map_err(connecting)?;
    // Before there are threads: they all inherit it.
    let caught = Caught::block().map_err(|error| format!("cannot listen to signals: {error}"))?;
    let agent = Agent::new(client);
    let querying = |why: String| format!("Error querying Consul agent: {why}");
    let reply = agent.ask("GET", "/v1/agent/self", &[], &[], PATIENCE);
    reply.and_then(ask::Answer::ok).map_err(|trouble| querying(trouble.why))?;

    let voice = Voice { verbose: wish.verbose, tells: !wish.verbose && std::io::stderr().is_terminal() };
    let (slot, behavior): (Arc<dyn Slot>, Behavior) = match wish.limit {
        1 => {
            let mutex = mutex::Mutex::new(&wish.prefix);
            voice.say(&format!("Setting up lock at path: {}", mutex.key()));
            (Arc::new(mutex), Behavior::Release)
        }
        limit => {
            voice.say(&format!("Setting up semaphore (limit {limit}) at prefix: {}", wish.prefix));
            if wish.prefix.is_empty() {
                return Err("Lock setup failed: missing prefix".to_owned());
            }
            (Arc::new(semaphore::Semaphore::new(&wish.prefix, limit)), Behavior::Delete)
        }
    };
    let (sender, events) = mpsc::sync_channel(EVENTS_MAX);
    let told = sender.clone();
    thread::spawn(move || {
        while let Ok(Some(number)) = caught.next(None) {
            if told.send(Event::Signal(number)).is_err() {
                return;
            }
        }
    });
    voice.say("Attempting lock acquisition");
    let deadline = wish.timeout.and_then(|limit| Instant::now().checked_add(limit));
    let work = Work { wish, flags, agent, slot, behavior, voice, deadline, sender, events };
    let keeper = work.session();
    let mut keeper = keeper.map_err(|why| format!("Lock acquisition failed: {}", why.why))?;
    let mut troubled = false;
    loop {
        let waited = work.wait(&keeper).and_then(|waited| match waited {
            Waited::Taken(_) if !keeper.hold() => {
                Err(Trouble { why: "the session ended when the lock was taken".to_owned(), passes: true })
            }
            other => Ok(other),
        });
        match waited {
            Ok(Waited::Taken(taken)) => return work.run(&keeper, &taken),
            // The session is gone, and nothing is held: with another one it goes on, behind the others.
            Err(why) if why.passes => {
                if !std::mem::replace(&mut troubled, true) {
                    eprintln!("Lock acquisition is in trouble and goes on: {}", why.why);
                }
                let _ = work.slot.release(&work.agent, &keeper.id);
                keeper.end();
                match work.another_session() {
                    Some(another) => keeper = another,
                    None => return Err(NOT_ACQUIRED.to_owned()),
                }
            }
            other => {
                // It may have been taken just now: given back, it is not closed to others.
                let _ = work.slot.release(&work.agent, &keeper.id);
                keeper.end();
                return match other {
                    // As the signal would have ended us, had we not something to give back.
                    Ok(Waited::Signalled(number)) if !matches!(number, signal::INT | signal::TERM) => {
                        Ok(ExitCode::from(u8::try_from(128 + number).unwrap_or(1)))
                    }
                    Ok(_) => Err(NOT_ACQUIRED.to_owned()),
                    Err(why) => Err(format!("Lock acquisition failed: {}", why.why)),
                };
            }
        }
    }
}

/// One lock, from the wait for it to its end.
struct Work<'a> {
    wish: Wish,
    flags: &'a Parsed,
    agent: Agent,
    slot: Arc<dyn Slot>,
    behavior: Behavior,
    voice: Voice,
    /// Until when the lock is waited for.
    deadline: Option<Instant>,
    sender: SyncSender<Event>,
    events: Receiver<Event>,
}

impl Work<'_> {
    /// A session, which is kept alive.
    fn session(&self) -> Result<Arc<Keeper>, Trouble> {
        let keeper = Keeper::begin(self.agent.apart(), &self.wish.name, self.behavior, self.sender.clone());
        keeper.map_err(Trouble::of("failed to create session"))
    }

    /// A session as soon as there can be one. `None`: the time is over, or nobody wants it any more.
    fn another_session(&self) -> Option<Arc<Keeper>> {
        loop {
            if let Ok(keeper) = self.session() {
                return Some(keeper);
            }
            let rest = Instant::now() + SESSION_REST;
            while let Some(left) = rest.checked_duration_since(Instant::now()) {
                match self.events.recv_timeout(left) {
                    Ok(Event::Signal(number)) if signal::ends(number) => return None,
                    _ if self.deadline.is_some_and(|at| Instant::now() >= at) => return None,
                    _ => {}
                }
            }
        }
    }

    fn run(&self, keeper: &Arc<Keeper>, taken: &Taken) -> Outcome {
        self.monitor(keeper);
        let code = match self.withdrawn(keeper) {
            Some(Event::Signal(_)) => {
                eprintln!("Shutdown triggered during lock acquisition");
                0
            }
            None => self.hold(keeper, taken)?,
            Some(_) => {
                self.voice.say("Lock lost, killing child");
                self.voice.say("No child process to kill");
                0
            }
        };
        let ended = self.give_back(keeper);
        keeper.end();
        ended?;
        Ok(if self.wish.child_code { ExitCode::from(code) } else { ExitCode::SUCCESS })
    }

    /// What came while the lock was taken and forbids to begin.
    fn withdrawn(&self, keeper: &Keeper) -> Option<Event> {
        self.events.try_iter().find(|event| match event {
            Event::Signal(number) => signal::ends(*number),
            Event::Lost { session, .. } => *session == keeper.id,
            Event::Taken { .. } | Event::Ended(_) => false,
        })
    }

    /// Gives the lock back, and removes its key if nobody uses it.
    fn give_back(&self, keeper: &Keeper) -> Result<(), String> {
        self.release(keeper).map_err(|why| format!("Lock release failed: {}", why.why))?;
        match self.slot.cleanup(&self.agent) {
            Ok(()) => self.voice.say("Cleanup succeeded"),
            Err(Cleanup::InUse) => self.voice.say("Cleanup aborted, lock in use"),
            Err(Cleanup::Failed(why)) => return Err(format!("Lock cleanup failed: {}", why.why)),
        }
        Ok(())
    }

    /// Gives the lock back; again while that fails for a moment only: else it stays closed until the session ends.
    fn release(&self, keeper: &Keeper) -> Result<(), Trouble> {
        let deadline = Instant::now() + RELEASE_PATIENCE;
        loop {
            match self.slot.release(&self.agent, &keeper.id) {
                Err(trouble) if trouble.passes && Instant::now() < deadline => {
                    self.agent.rests(RELEASE_REST);
                }
                other => return other,
            }
        }
    }

    /// Waits for the lock.
    fn wait(&self, keeper: &Arc<Keeper>) -> Result<Waited, Trouble> {
        let agent = Arc::new(self.agent.apart());
        let (asking, slot, waited) = (agent.clone(), self.slot.clone(), keeper.clone());
        let (sender, voice, deadline) = (self.sender.clone(), self.voice, self.deadline);
        thread::spawn(move || {
            let told = Mutex::new(Vec::new());
            let waiting = Waiting {
                agent: &asking,
                session: &waited.id,
                deadline,
                may_live: &|| waited.may_live(),
                held_by: &|holders| tell_holders(voice, &asking, &told, holders),
            };
            let taken = slot.take(&waiting);
            // Nobody listens if the program is about to end.
            let _ = sender.send(Event::Taken { session: waited.id.clone(), taken });
        });
        loop {
            match self.next() {
                Event::Taken { session, taken } if session == keeper.id => {
                    return Ok(taken?.map_or(Waited::Over, Waited::Taken));
                }
                Event::Signal(number) if signal::ends(number) => {
                    agent.halt();
                    return Ok(Waited::Signalled(number));
                }
                Event::Lost { session, why } if session == keeper.id => {
                    agent.halt();
                    return Err(Trouble { why, passes: true });
                }
                _ => {}
            }
        }
    }

    /// Tells when the lock is lost.
    fn monitor(&self, keeper: &Keeper) {
        let (agent, slot, id) = (self.agent.apart(), self.slot.clone(), keeper.id.clone());
        let (sender, retries) = (self.sender.clone(), self.wish.retries);
        thread::spawn(move || {
            let (mut since, mut left) = (0, retries);
            let why = loop {
                match slot.look(&agent, &id, since) {
                    Ok(Some(index)) => {
                        // An index that went back is from another history of the servers.
                        since = if index < since { 0 } else { index };
                        left = retries;
                    }
                    Ok(None) => break "it is not ours any more".to_owned(),
                    Err(trouble) if !trouble.passes || left == 0 => break trouble.why,
                    Err(_) => {
                        left -= 1;
                        since = 0;
                        agent.rests(MONITOR_REST);
                    }
                }
            };
            let _ = sender.send(Event::Lost { session: id, why });
        });
    }

    /// Runs the child until it ends or has to. The code that `-child-exit-code` wants.
    ///
    /// # Errors
    /// Something of it lives on: the lock must not be given back.
    fn hold(&self, keeper: &Keeper, taken: &Taken) -> Result<u8, String> {
        self.voice.say("Starting handler");
        if self.wish.pass_stdin {
            self.voice.say("Stdin passed to handler process");
        }
        let child = match self.start(keeper, taken) {
            Ok(child) => Arc::new(child),
            Err(why) => {
                eprintln!("Error starting handler: {why}");
                self.voice.say("Child terminated, releasing lock");
                return Ok(CHILD_FAILED);
            }
        };
        keeper.keep(child.clone());
        self.voice.tell(&format!("The lock is ours: process {} runs", child.id()));
        let (sender, watched) = (self.sender.clone(), child.clone());
        thread::spawn(move || {
            if let Some(exit) = watched.wait(None) {
                // Nobody listens if the program is about to end.
                let _ = sender.send(Event::Ended(exit));
            }
        });
        let code = self.watch(keeper, &child);
        self.outlive(keeper, &child)?;
        Ok(code)
    }

    /// Waits until the child has ended.
    fn watch(&self, keeper: &Keeper, child: &Child) -> u8 {
        loop {
            match self.next() {
                Event::Signal(number @ (signal::INT | signal::TERM)) => {
                    self.voice.say("Shutdown triggered, killing child");
                    if number != signal::TERM {
                        child.signal(number);
                    }
                    self.end(child);
                    return 0;
                }
                Event::Signal(number) => child.signal(number),
                Event::Lost { session, .. } if session != keeper.id => {}
                Event::Lost { why, .. } => {
                    self.voice.say("Lock lost, killing child");
                    self.voice.tell(&format!("The lock is lost: {why}"));
                    self.end(child);
                    return 0;
                }
                Event::Ended(exit) => {
                    if !exit.is_success() {
                        eprintln!("Error running handler: {exit}");
                    }
                    if boot_now() >= keeper.lease().stop_at {
                        self.voice.say("Lock lost, killing child");
                        self.voice.tell("The lock is lost: it could not be renewed in time");
                        return 0;
                    }
                    self.voice.say("Child terminated, releasing lock");
                    return if exit.is_success() { 0 } else { CHILD_FAILED };
                }
                Event::Taken { .. } => {}
            }
        }
    }

    /// Keeps the lock for as long as something of the child lives that cannot be ended. Whoever wants us to end all the same
    /// gets that, but the lock is not given back: it passes to another when the session has ended.
    fn outlive(&self, keeper: &Keeper, child: &Child) -> Result<(), String> {
        if !child.leaves_something() {
            return Ok(());
        }
        let group = child.id();
        eprintln!("Process group {group} cannot be ended: the lock is kept until it is gone");
        while child.leaves_something() {
            let given_up = match self.events.recv_timeout(OUTLIVE_REST) {
                Ok(Event::Signal(number)) => signal::ends(number),
                Ok(Event::Lost { session, .. }) => session == keeper.id,
                _ => false,
            };
            if given_up {
                return Err(format!("Lock not released: process group {group} is still there"));
            }
        }
        Ok(())
    }

    fn start(&self, keeper: &Keeper, taken: &Taken) -> std::io::Result<Child> {
        let (words, key) = self.slot.testament(&keeper.id);
        let shared: Vec<String> = super::client::FLAGS
            .iter()
            .filter_map(|flag| Some(format!("-{}={}", flag.name, self.flags.value(flag.name)?)))
            .filter(|word| !word.starts_with("-stale"))
            .collect();
        let testament: Vec<_> =
            [program()].into_iter().chain(words).chain(shared).chain([key]).map(Into::into).collect();
        Child::start_guarded(&self.wish.setup(taken), keeper.lease(), &testament)
    }

    /// Ends the child, as Consul's words tell it.
    fn end(&self, child: &Child) {
        let pid = child.id();
        self.voice.say(&format!("Terminating child pid {pid}"));
        let begun = boot_now();
        let exit = child.stop(signal::TERM, GRACE);
        if !exit.is_success() {
            eprintln!("Error running handler: {exit}");
        }
        if exit.signal == Some(signal::KILL) && boot_now() >= begun + GRACE {
            let grace = i64::try_from(GRACE.as_nanos()).unwrap_or(i64::MAX);
            let grace = duration::format(grace);
            self.voice.say(&format!("Child did not exit after grace period of {grace}"));
            self.voice.say(&format!("Killing child pid {pid}"));
        } else {
            self.voice.say("Child terminated");
        }
    }

    fn next(&self) -> Event {
        self.events.recv().expect("we hold a sender ourselves")
    }
}

/// Tells a person who has what they wait for, once for each change.
fn tell_holders(voice: Voice, agent: &Agent, told: &Mutex<Vec<String>>, holders: &[String]) {
    if !voice.tells {
        return;
    }
    let mut told = told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if *told == holders {
        return;
    }
    *told = holders.to_vec();
    let names: Vec<String> = holders.iter().map(|holder| named(agent, holder)).collect();
    voice.tell(&format!("Waiting for the lock, held by {}", names.join("; ")));
}

/// A session as a person knows it.
fn named(agent: &Agent, session: &str) -> String {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Info {
        name: String,
        node: String,
    }
    let answer = agent.ask("GET", &format!("/v1/session/info/{session}"), &[], &[], PATIENCE);
    let infos = answer.ok().and_then(|answer| serde_json::from_slice::<Vec<Info>>(&answer.body).ok());
    match infos.and_then(|infos| infos.into_iter().next()) {
        Some(info) => format!("{:?} on node {}", info.name, info.node),
        None => format!("session {session}"),
    }
}
