//! The world as templates see it: what the agent has said, files, the environment, the time.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Display;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::settings::Job;
use super::write;
use crate::config::template::expand;
use crate::runtime::child::{Bounds, Finish, Setup, collect};
use crate::runtime::interfaces;
use crate::template::{Dependency, FileToWrite, Host, Value};

/// How long a plugin may take (consul-template: 30 s).
const PLUGIN_MAX: Duration = Duration::from_secs(30);
/// How much a plugin may print.
const PLUGIN_OUTPUT_MAX: usize = 16 << 20;

/// The world of one execution.
pub struct World<'w> {
    /// What is known.
    pub known: &'w BTreeMap<Dependency, Value>,
    /// The template's settings.
    pub job: &'w Job,
    /// Variables that stand over those of the environment.
    pub variables: &'w [(String, String)],
    /// Whether it may start programs.
    pub allows_plugins: bool,
    /// Whether nothing is to be written.
    pub dry: bool,
    /// Whether this program is to end.
    pub is_ending: &'w AtomicBool,
}

impl Host for World<'_> {
    fn environment(&self, name: &str) -> Option<String> {
        if let Some((_, value)) = self.variables.iter().find(|(known, _)| known == name) {
            return Some(value.clone());
        }
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
        run_plugin(program, args, self.is_ending)
    }

    fn write_file(&mut self, file: &FileToWrite) -> Result<(), String> {
        if self.dry { Ok(()) } else { write::write_extra(file) }
    }

    fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }

    fn show(&mut self, text: &str) {
        print!("{text}");
    }
}

/// Runs a program and takes what it prints.
fn run_plugin(program: &str, args: &[String], is_ending: &AtomicBool) -> Result<String, String> {
    let argv = std::iter::once(program).chain(args.iter().map(String::as_str)).map(OsString::from).collect();
    let setup = Setup { argv, ..Setup::default() };
    let is_unwanted = || is_ending.load(Ordering::Relaxed);
    let bounds = Bounds { time: PLUGIN_MAX, bytes: PLUGIN_OUTPUT_MAX, is_unwanted: &is_unwanted };
    let failed = |why: &dyn Display| format!("exec {program:?}: {why}");
    let (finish, output) = collect(&setup, &bounds).map_err(|why| failed(&why))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match finish {
        Finish::Ended(exit) if exit.is_success() => Ok(text(&output.stdout).trim().to_owned()),
        Finish::Ended(exit) => {
            let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
            Err(failed(&format_args!("{exit}\n\nstdout:\n\n{stdout}\n\nstderr:\n\n{stderr}")))
        }
        Finish::Late => Err(failed(&format_args!("did not finish in {}s", PLUGIN_MAX.as_secs()))),
        Finish::Flooded => Err(failed(&format_args!("prints more than {PLUGIN_OUTPUT_MAX} bytes"))),
        Finish::Unwanted => Err(failed(&"ended, because this program is")),
    }
}
