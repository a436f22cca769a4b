//! The programs that are started: commands after a file has changed, and the one that lives as long as this program.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Duration, Instant};

use super::Event;
use super::settings::{Command, Environment, Exec};
use crate::runtime::child::{Child, Setup, Stdin};
use crate::runtime::random::Rng;

/// How often somebody who waits for a command looks whether this program is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs a command to its end. The error says why it counts as failed.
pub fn run(command: &Command, is_ending: &AtomicBool) -> Result<(), String> {
    let shown = shown(command);
    if is_ending.load(Ordering::Relaxed) {
        return Err(format!("{shown}: not started, because this program ends"));
    }
    let child = Child::start(&setup(command, Stdin::Nothing)).map_err(|why| format!("{shown}: {why}"))?;
    let deadline = command.timeout.map(|timeout| Instant::now() + timeout);
    loop {
        if let Some(exit) = child.wait(Some(LOOK_EVERY)) {
            return if exit.is_success() { Ok(()) } else { Err(format!("{shown}: {exit}")) };
        }
        if is_ending.load(Ordering::Relaxed) {
            child.stop(command.kill_signal, command.kill_timeout);
            return Err(format!("{shown}: stopped, because this program is"));
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            child.stop(command.kill_signal, command.kill_timeout);
            let timeout = command.timeout.unwrap_or_default();
            return Err(format!("{shown}: did not return within {timeout:?}"));
        }
    }
}

/// A command as it is written.
pub fn shown(command: &Command) -> String {
    match command.argv.as_slice() {
        [shell, flag, text] if shell == "/bin/sh" && flag == "-c" => format!("{text:?}"),
        words => format!("{:?}", words.join(" ")),
    }
}

fn setup(command: &Command, stdin: Stdin) -> Setup {
    let argv = command.argv.iter().map(OsString::from).collect();
    Setup { argv, stdin, env: variables(&command.environment), pristine: true, ..Setup::default() }
}

/// All variables that a program gets; of two with one name, the later one.
fn variables(environment: &Environment) -> Vec<(OsString, OsString)> {
    let matches = |patterns: &[String], name: &str| patterns.iter().any(|pattern| fits(pattern, name));
    let is_inherited = |name: &OsString| {
        let name = name.to_string_lossy();
        let is_allowed = environment.allowed.is_empty() || matches(&environment.allowed, &name);
        !environment.pristine && is_allowed && !matches(&environment.denied, &name)
    };
    let ours = std::env::vars_os().filter(|(name, _)| is_inherited(name));
    let custom = environment.custom.iter().map(|(name, value)| (name.into(), value.into()));
    ours.chain(custom).collect()
}

/// Whether a name fits a pattern in which `*` stands for any characters and `?` for one.
fn fits(pattern: &str, name: &str) -> bool {
    match (pattern.chars().next(), name.chars().next()) {
        (None, None) => true,
        (Some('*'), _) => {
            let rest = &pattern[1..];
            name.char_indices().map(|(at, _)| at).chain([name.len()]).any(|at| fits(rest, &name[at..]))
        }
        (Some('?'), Some(c)) => fits(&pattern[1..], &name[c.len_utf8()..]),
        (Some(a), Some(b)) if a == b => fits(&pattern[a.len_utf8()..], &name[b.len_utf8()..]),
        _ => false,
    }
}

/// The program that lives as long as this one. None of its calls waits: who waits for its end or for a splay hears no signals.
pub struct Ward {
    exec: Exec,
    to: SyncSender<Event>,
    running: Option<Arc<Child>>,
    /// How often it was started: the end of an earlier one is no news.
    starts: u64,
    /// When it is told of a change.
    due: Option<Instant>,
    is_stopping: bool,
}

impl Ward {
    /// Not started yet.
    pub fn new(exec: Exec, to: SyncSender<Event>) -> Ward {
        Ward { exec, to, running: None, starts: 0, due: None, is_stopping: false }
    }

    /// Starts it unless it runs.
    pub fn start(&mut self) -> Result<(), String> {
        if self.running.is_some() {
            return Ok(());
        }
        let child = Child::start(&setup(&self.exec.command, Stdin::Ours));
        let child = Arc::new(child.map_err(|why| format!("{}: {why}", shown(&self.exec.command)))?);
        self.starts += 1;
        let (number, to, waited) = (self.starts, self.to.clone(), child.clone());
        thread::spawn(move || {
            if let Some(exit) = waited.wait(None) {
                // Nobody listens any more: then nobody wants to know.
                let _ = to.send(Event::Ended(number, exit));
            }
        });
        self.running = Some(child);
        Ok(())
    }

    /// Whether it is this one that has ended, and by itself.
    pub fn is_end(&self, number: u64) -> bool {
        number == self.starts && self.running.is_some() && !self.is_stopping
    }

    /// It is to be told of a change, after a random while, so that a fleet does not do the same at once. Whatever changes in
    /// between is told with it.
    pub fn reload(&mut self) {
        // One that is about to end makes place for one that sees the change.
        if self.running.is_some() && !self.is_stopping {
            let splay = self.exec.splay.mul_f64(Rng::seeded().fraction());
            self.due.get_or_insert_with(|| Instant::now() + splay);
        }
    }

    /// When to call [`Ward::act`].
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Tells it of a change that is due.
    pub fn act(&mut self) {
        if self.due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.due = None;
        match self.exec.reload_signal {
            Some(signal) => self.signal(signal),
            None => {
                self.stop();
            }
        }
    }

    /// Hands a signal on.
    pub fn signal(&self, number: i32) {
        if let Some(child) = &self.running {
            child.signal(number);
        }
    }

    /// Begins to end it; an event comes when nothing of it is left. Whether there is something to wait for.
    pub fn stop(&mut self) -> bool {
        let Some(child) = &self.running else { return false };
        self.due = None;
        if !self.is_stopping {
            self.is_stopping = true;
            let (number, to, child) = (self.starts, self.to.clone(), child.clone());
            let (signal, grace) = (self.exec.command.kill_signal, self.exec.command.kill_timeout);
            thread::spawn(move || {
                child.stop(signal, grace);
                // Nobody listens any more: then nobody wants to know.
                let _ = to.send(Event::Stopped(number));
            });
        }
        true
    }

    /// Takes in that it was stopped; false for an earlier one.
    pub fn is_stopped(&mut self, number: u64) -> bool {
        let is_it = number == self.starts && self.is_stopping;
        if is_it {
            self.running = None;
            self.is_stopping = false;
        }
        is_it
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_stand_in_no_command_line() {
        let custom = vec![("TOKEN".to_owned(), "secret".to_owned())];
        let plain = Environment { custom, ..Environment::default() };
        let (argv, wait) = (vec!["server".to_owned()], Duration::ZERO);
        let of = |environment: Environment| {
            let command = Command {
                argv: argv.clone(),
                timeout: None,
                kill_signal: 15,
                kill_timeout: wait,
                environment,
            };
            setup(&command, Stdin::Nothing)
        };
        let all = of(plain.clone());
        assert_eq!(all.argv, ["server"]);
        let has = |setup: &Setup, name: &str| setup.env.iter().any(|(known, _)| known == name);
        assert!(has(&all, "TOKEN") && has(&all, "PATH"));
        let few = of(Environment { pristine: true, ..plain.clone() });
        assert_eq!(few.env, [("TOKEN".into(), "secret".into())]);
        let some = of(Environment { denied: vec!["PA*".to_owned()], ..plain.clone() });
        assert!(has(&some, "TOKEN") && !has(&some, "PATH"));
        let some = of(Environment { allowed: vec!["PA?H".to_owned()], ..plain });
        assert!(has(&some, "TOKEN") && has(&some, "PATH") && some.env.len() == 2);
    }
}
