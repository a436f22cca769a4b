//! Agents as child processes.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::wait::PAUSE;

/// The binary under test: the one cargo built, unless `MUSTER_TEST_BINARY` names another build of it (a release build,
/// say) or `MUSTER_GOLDEN_BINARY` another program (a real Consul).
pub fn binary() -> PathBuf {
    let named = std::env::var_os("MUSTER_GOLDEN_BINARY").or_else(|| std::env::var_os("MUSTER_TEST_BINARY"));
    named.map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_muster")), PathBuf::from)
}

/// The binary under test, to be run as from a terminal: a hangup that whoever runs the tests ignores is not ignored.
pub fn command() -> Command {
    let mut command = Command::new("env");
    command.arg("--default-signal=HUP").arg(binary());
    command
}

/// Whether the binary under test is somebody else's.
pub fn is_foreign() -> bool {
    std::env::var_os("MUSTER_GOLDEN_BINARY").is_some()
}

/// A running agent; killed with its process group when dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Runs `BINARY agent ARGS` in `dir`, its output in `dir/log`. Variables that would change an agent's behaviour are
    /// taken out of the environment; `MUSTER_TEST_RUNTIME` picks our runtime's driver.
    pub fn agent(dir: &Path, args: &[String]) -> io::Result<Process> {
        let mut command = Command::new(binary());
        command.arg("agent").args(args);
        if let (Ok(driver), false) = (std::env::var("MUSTER_TEST_RUNTIME"), is_foreign()) {
            command.arg(format!("-runtime={driver}"));
        }
        Process::spawn(dir, command)
    }

    /// Runs any command in `dir`, its output in `dir/log`.
    pub fn spawn(dir: &Path, mut command: Command) -> io::Result<Process> {
        let path = dir.join("log");
        let log = File::options().create(true).append(true).open(&path)?;
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_lowercase();
            if text.starts_with("consul_") || text == "http_proxy" || text == "https_proxy" {
                command.env_remove(&name);
            }
        }
        command.current_dir(dir).stdin(Stdio::null()).stderr(log.try_clone()?).stdout(log).process_group(0);
        // SAFETY: prctl is async-signal-safe and touches nothing but the child itself. It makes the agent die with the
        // thread that started it, so that an aborted test run leaves no agents behind.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        Ok(Process { child: command.spawn()?, log: path })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Some if the process has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("waiting for our own child")
    }

    /// Sends `signal` to the process alone.
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill with a pid of our own, not yet reaped child.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Waits for the end, at most `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            match self.ended() {
                None if start.elapsed() < limit => std::thread::sleep(PAUSE),
                other => return other,
            }
        }
    }

    /// Kills the whole process group at once.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            // SAFETY: the child leads a group of its own; it is not reaped yet, so its id is still its own.
            unsafe { libc::kill(-(self.child.id() as i32), libc::SIGKILL) };
            let _ = self.child.wait();
        }
    }

    /// What the process has written so far.
    pub fn log(&self) -> String {
        let mut text = Vec::new();
        let _ = File::open(&self.log).and_then(|mut file| file.read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The last lines of [`Process::log`].
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Bytes of memory resident in RAM.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0) * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One line about how a process ended.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        _ => "an unknown end".into(),
    }
}
