//! What a person sees who waits, and what the log says.

use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr};
use std::time::{SystemTime, UNIX_EPOCH};

use super::settings::Level;
use crate::template::Dependency;

/// How many dependencies are named.
const NAMED_MAX: usize = 3;

/// The terminal, if there is one, and the log.
pub struct Progress {
    level: Level,
    is_terminal: bool,
    /// What stands on the last line, which is written over.
    line: String,
}

impl Progress {
    /// Shows what is at least as grave as `level`.
    pub fn new(level: Level) -> Progress {
        Progress { level, is_terminal: stderr().is_terminal(), line: String::new() }
    }

    /// A line of the log.
    pub fn log(&mut self, level: Level, text: impl Display) {
        if level > self.level {
            return;
        }
        let name = match level {
            Level::Error => "ERR",
            Level::Warn => "WARN",
            Level::Info => "INFO",
            Level::Debug => "DEBUG",
        };
        let text =
            if self.is_terminal { format!("[{name}] {text}") } else { format!("{} [{name}] {text}", now()) };
        self.print(&text);
    }

    /// Something was done that a person wants to see.
    pub fn done(&mut self, text: impl Display) {
        if self.is_terminal {
            self.print(&text.to_string());
        } else {
            self.log(Level::Info, text);
        }
    }

    /// How far it is: what is rendered of how many, and what is missing.
    pub fn state(&mut self, rendered: usize, all: usize, missing: &[&Dependency], watched: usize) {
        if !self.is_terminal {
            return;
        }
        let line = if rendered == all {
            format!("{all} rendered, watching {watched}")
        } else {
            let named: Vec<String> = missing.iter().take(NAMED_MAX).map(|d| d.to_string()).collect();
            let more = missing.len().saturating_sub(NAMED_MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{rendered} of {all} rendered, waiting for {}{more}", named.join(", "))
        };
        if line != self.line {
            // Whether it is seen is nobody's business here.
            let _ = write!(stderr(), "\r\x1b[K{line}");
            let _ = stderr().flush();
            self.line = line;
        }
    }

    fn print(&mut self, text: &str) {
        let clear = if self.line.is_empty() { "" } else { "\r\x1b[K" };
        let _ = writeln!(stderr(), "{clear}{text}");
        if !self.line.is_empty() {
            let _ = write!(stderr(), "{}", self.line);
        }
        let _ = stderr().flush();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            let _ = writeln!(stderr());
        }
    }
}

/// The time as logs have it.
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ns = since.map_or(0, |since| i128::try_from(since.as_nanos()).unwrap_or(0));
    crate::template::time_text(ns, "2006-01-02T15:04:05.000Z07:00")
}
