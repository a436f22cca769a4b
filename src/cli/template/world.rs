//! The world as templates see it: what the agent has said, files, the environment, the time.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::settings::Job;
use super::write;
use crate::config::template::expand;
use crate::runtime::interfaces;
use crate::template::{Dependency, FileToWrite, Host, Value};

/// How long a plugin may take (consul-template: 30 s).
const PLUGIN_MAX: Duration = Duration::from_secs(30);
/// How often a plugin is looked at.
const PLUGIN_POLL: Duration = Duration::from_millis(10);
/// What of a plugin's output is taken.
const PLUGIN_OUTPUT_MAX: u64 = 16 << 20;

/// The world of one execution.
pub struct World<'w> {
    /// What is known.
    pub known: &'w BTreeMap<Dependency, Value>,
    /// The template's settings.
    pub job: &'w Job,
    /// Whether it may start programs.
    pub allows_plugins: bool,
    /// Whether nothing is to be written.
    pub dry: bool,
}

impl Host for World<'_> {
    fn environment(&self, name: &str) -> Option<String> {
        std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
    }

    fn unix_time_ns(&self) -> i128 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| i128::try_from(since.as_nanos()).unwrap_or(0))
    }

    fn recall(&mut self, dependency: &Dependency) -> Option<Value> {
        self.known.get(dependency).cloned()
    }

    fn file_path(&self, path: &str) -> Result<String, String> {
        let Some(sandbox) = &self.job.sandbox else { return Ok(path.to_owned()) };
        let shown = |of: &Path, why: std::io::Error| format!("{}: {why}", of.display());
        let sandbox = sandbox.canonicalize().map_err(|why| shown(sandbox, why))?;
        let real = Path::new(path).canonicalize().map_err(|why| shown(Path::new(path), why))?;
        if !real.starts_with(&sandbox) {
            return Err(format!("'{path}' is outside of sandbox"));
        }
        Ok(real.to_string_lossy().into_owned())
    }

    fn socket_address(&self, template: &str) -> Result<String, String> {
        let all =
            interfaces::list().map_err(|why| format!("cannot list the addresses of this host: {why}"))?;
        expand(&format!("{{{{ {template} }}}}"), &all)
    }

    fn plugin(&mut self, program: &str, args: &[String]) -> Result<String, String> {
        if !self.allows_plugins {
            return Err("plugins are off: -allow-plugins permits templates to start programs".to_owned());
        }
        run_plugin(program, args)
    }

    fn write_file(&mut self, file: &FileToWrite) -> Result<(), String> {
        if self.dry { Ok(()) } else { write::write_extra(file) }
    }

    fn show(&mut self, text: &str) {
        print!("{text}");
    }
}

/// Runs a program and takes what it prints.
fn run_plugin(program: &str, args: &[String]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|why| format!("exec {program:?}: {why}"))?;
    let read = |from: Option<Box<dyn Read + Send>>| {
        let (to, result) = sync_channel(1);
        thread::spawn(move || {
            let mut out = Vec::new();
            if let Some(from) = from {
                // What could be read counts.
                let _ = from.take(PLUGIN_OUTPUT_MAX).read_to_end(&mut out);
            }
            // Nobody may wait for it any more.
            let _ = to.send(String::from_utf8_lossy(&out).into_owned());
        });
        result
    };
    let stdout = read(child.stdout.take().map(|from| Box::new(from) as Box<dyn Read + Send>));
    let stderr = read(child.stderr.take().map(|from| Box::new(from) as Box<dyn Read + Send>));
    let deadline = Instant::now() + PLUGIN_MAX;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => thread::sleep(PLUGIN_POLL),
            Ok(None) => {
                // It may have ended in between.
                let _ = (child.kill(), child.wait());
                return Err(format!("exec {program:?}: did not finish in {}s", PLUGIN_MAX.as_secs()));
            }
            Err(why) => return Err(format!("exec {program:?}: {why}")),
        }
    };
    // What it has left behind may hold its output open.
    let text = |result: Receiver<String>| {
        let left = deadline.saturating_duration_since(Instant::now());
        result.recv_timeout(left).map_err(|_| format!("exec {program:?}: its output has no end"))
    };
    let (stdout, stderr) = (text(stdout)?, text(stderr)?);
    if !status.success() {
        return Err(format!("exec {program:?}: {status}\n\nstdout:\n\n{stdout}\n\nstderr:\n\n{stderr}"));
    }
    Ok(stdout.trim().to_owned())
}
