//! The programs that are started: commands after a file has changed, and the one that lives as long as this program.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Duration, Instant};

use super::Event;
use super::settings::{Command, Environment, Exec};
use crate::runtime::child::{Child, Exit, Setup, Stdin};
use crate::runtime::random::Rng;

/// How often somebody who waits for a command looks whether this program is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs a command to its end. The error says why it counts as failed.
pub fn run(command: &Command, is_ending: &AtomicBool) -> Result<(), String> {
    let shown = shown(command);
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
    let mut argv: Vec<OsString> = environment_words(&command.environment);
    argv.extend(command.argv.iter().map(OsString::from));
    Setup { argv, stdin, ..Setup::default() }
}

/// What makes a program's environment other than ours: `env` with all that it shall have.
fn environment_words(environment: &Environment) -> Vec<OsString> {
    if *environment == Environment::default() {
        return Vec::new();
    }
    let matches = |patterns: &[String], name: &str| patterns.iter().any(|pattern| fits(pattern, name));
    let mut words: Vec<OsString> = vec!["/usr/bin/env".into(), "-i".into()];
    for (name, value) in std::env::vars_os() {
        let shown = name.to_string_lossy();
        let is_allowed = environment.allowed.is_empty() || matches(&environment.allowed, &shown);
        if !environment.pristine && is_allowed && !matches(&environment.denied, &shown) {
            let mut word = name.clone();
            word.push("=");
            word.push(value);
            words.push(word);
        }
    }
    words.extend(environment.custom.iter().map(OsString::from));
    words
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

/// The program that lives as long as this one.
pub struct Ward {
    exec: Exec,
    to: SyncSender<Event>,
    running: Option<Arc<Child>>,
    /// How often it was started: the end of an earlier one is no news.
    starts: u64,
}

impl Ward {
    /// Not started yet.
    pub fn new(exec: Exec, to: SyncSender<Event>) -> Ward {
        Ward { exec, to, running: None, starts: 0 }
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

    /// Whether it is this one that has ended, and not an earlier one.
    pub fn is_end(&self, number: u64) -> bool {
        number == self.starts && self.running.is_some()
    }

    /// Tells it of a change.
    pub fn reload(&mut self) -> Result<(), String> {
        let Some(child) = &self.running else { return Ok(()) };
        self.rest();
        match self.exec.reload_signal {
            Some(signal) => {
                child.signal(signal);
                Ok(())
            }
            None => {
                self.stop();
                self.start()
            }
        }
    }

    /// Hands a signal on.
    pub fn signal(&self, number: i32) {
        if let Some(child) = &self.running {
            child.signal(number);
        }
    }

    /// Ends it.
    pub fn stop(&mut self) -> Option<Exit> {
        let child = self.running.take()?;
        Some(child.stop(self.exec.command.kill_signal, self.exec.command.kill_timeout))
    }

    /// Waits a random while, so that a fleet does not do the same at once.
    fn rest(&self) {
        let splay = self.exec.splay;
        if !splay.is_zero() {
            thread::sleep(splay.mul_f64(Rng::seeded().fraction()));
        }
    }
}
