//! Child processes of commands: a program that runs for a while under ours, in a process group of its own.
//!
//! All calls block, and any number of threads may make them: this is for the commands, which have no cores. What an agent
//! runs (checks, handlers) goes through [`super::process`]. Standard output and standard error are our own, but for what
//! [`collect`] runs.
//!
//! A child's group dies as a whole: [`Child::stop`] sends a signal to all of it, and after a grace SIGKILL to what is left.
//! What has left the group (daemons in a session of their own) is not the child any more, and lives on. A child that simply
//! ends leaves the rest of its group alone, too: scripts start daemons.
//!
//! [`Child::start_guarded`] puts a process in between that ends the group in time even if ours cannot (`guard`).

use super::guard::{self, Warden};
use super::{signal, sys};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub use super::guard::Lease;
pub use collect::{Bounds, Finish, Output, collect};

mod collect;

/// How often a group is looked at whose leader has ended and whose rest has been told to.
const GROUP_POLL: Duration = Duration::from_millis(10);
/// How long a killed group may take to be gone, before we stop to wait for it: it hangs in the kernel then.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// The program (looked up in PATH) and its arguments.
    pub argv: Vec<OsString>,
    /// Variables to set on top of our own environment.
    pub env: Vec<(OsString, OsString)>,
    /// Whether it gets nothing of our own environment.
    pub pristine: bool,
    /// The working directory; `None` for our own.
    pub cwd: Option<PathBuf>,
    /// What it reads.
    pub stdin: Stdin,
}

/// A child's standard input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stdin {
    /// Nothing: /dev/null.
    #[default]
    Nothing,
    /// Our own. If that is a terminal where we are in the foreground, the child is there from then on.
    Ours,
    /// These bytes.
    Bytes(Vec<u8>),
}

/// How a child ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Exit {
    /// The exit code, if it exited.
    pub code: Option<i32>,
    /// The signal, if one killed it.
    pub signal: Option<i32>,
}

impl Exit {
    /// Whether it exited with 0.
    pub fn is_success(self) -> bool {
        self.code == Some(0)
    }

    /// From what `waitpid` tells.
    pub(super) fn from_status(status: i32) -> Exit {
        let status = ExitStatus::from_raw(status);
        Exit { code: status.code(), signal: status.signal() }
    }
}

impl fmt::Display for Exit {
    /// Go's words: `exit status 3`, `signal: killed`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(out, "exit status {code}"),
            (None, Some(number)) => write!(out, "signal: {}", signal::described(number)),
            (None, None) => out.write_str("an unknown end"),
        }
    }
}

/// The arguments that have a shell run a text: the shell of `SHELL`, or /bin/sh.
pub fn shell(text: &str) -> Vec<OsString> {
    let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
    vec![shell.unwrap_or_else(|| "/bin/sh".into()), "-c".into(), text.into()]
}

/// A running child. Dropping it while it runs kills its group.
pub struct Child {
    pid: u32,
    fate: Arc<Fate>,
    warden: Option<Warden>,
}

/// The ends of what a child prints, where that comes to us.
type Pipes = (Option<ChildStdout>, Option<ChildStderr>);

/// What threads wait for.
#[derive(Default)]
pub(super) struct Fate {
    end: Mutex<Option<Exit>>,
    ended: Condvar,
    /// Something of its group could not be ended.
    left: AtomicBool,
}

impl Fate {
    pub(super) fn look(&self) -> MutexGuard<'_, Option<Exit>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell(&self, exit: Exit, is_left: bool) {
        let mut end = self.look();
        self.left.store(is_left, Ordering::Relaxed);
        *end = Some(exit);
        self.ended.notify_all();
    }

    fn wait(&self, limit: Option<Duration>) -> Option<Exit> {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut end = self.look();
        loop {
            if end.is_some() {
                return *end;
            }
            end = match deadline {
                None => self.ended.wait(end).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left =
                        deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
                    self.ended.wait_timeout(end, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl Child {
    /// Starts a program.
    ///
    /// # Errors
    /// In Go's words: the program is not there, or cannot be run.
    pub fn start(setup: &Setup) -> io::Result<Child> {
        let (child, _) = Child::launch(setup, Stdio::inherit)?;
        Ok(child)
    }

    /// Starts a program whose standard output and standard error come to us.
    fn start_piped(setup: &Setup) -> io::Result<(Child, [OwnedFd; 2])> {
        let (child, (stdout, stderr)) = Child::launch(setup, Stdio::piped)?;
        let lost = || io::Error::other("the pipe to the child is not there");
        Ok((child, [stdout.ok_or_else(lost)?.into(), stderr.ok_or_else(lost)?.into()]))
    }

    fn launch(setup: &Setup, output: fn() -> Stdio) -> io::Result<(Child, Pipes)> {
        let program = found(setup)?;
        let mut command = Command::new(&program);
        command.arg0(&setup.argv[0]).args(&setup.argv[1..]);
        sys::unblock_in(&mut command);
        if setup.pristine {
            command.env_clear();
        }
        command.envs(setup.env.iter().map(|(name, value)| (name, value))).process_group(0);
        if let Some(directory) = &setup.cwd {
            command.current_dir(directory);
        }
        command.stdin(match &setup.stdin {
            Stdin::Nothing => Stdio::null(),
            Stdin::Ours => Stdio::inherit(),
            Stdin::Bytes(bytes) => Stdio::from(file_of(bytes)?),
        });
        command.stdout(output()).stderr(output());
        sys::heed_children();
        let mut child = command.spawn().map_err(|error| not_run(&program, &error))?;
        let pid = child.id();
        let pipes = (child.stdout.take(), child.stderr.take());
        let takes_terminal = setup.stdin == Stdin::Ours && sys::give_terminal(pid);
        let fate = Arc::new(Fate::default());
        let told = fate.clone();
        // One thread for each child: commands have a handful.
        let watching = thread::Builder::new().name("child".to_owned()).spawn(move || {
            let mut child = child;
            sys::wait_exited(child.id());
            if takes_terminal {
                sys::take_terminal(child.id());
            }
            // Reaped only while nobody can send it a signal: from then on its number may be another's.
            let mut end = told.look();
            let status = child.wait();
            *end = Some(status.map_or(Exit::default(), |s| Exit { code: s.code(), signal: s.signal() }));
            told.ended.notify_all();
        });
        if let Err(error) = watching {
            sys::kill_group(pid);
            sys::reap_now(pid);
            return Err(error);
        }
        Ok((Child { pid, fate, warden: None }, pipes))
    }

    /// Starts a program under a guard, which stops it when the lease is over, or when this process is gone; in these cases the
    /// guard then runs a testament, if it is not empty: arguments of our own program.
    ///
    /// # Errors
    /// As [`Child::start`]; or the guard cannot be started.
    pub fn start_guarded(setup: &Setup, lease: Lease, testament: &[OsString]) -> io::Result<Child> {
        let program = found(setup)?;
        let stdin = match &setup.stdin {
            Stdin::Nothing => Some(File::open("/dev/null")?),
            Stdin::Ours => None,
            Stdin::Bytes(bytes) => Some(file_of(bytes)?),
        };
        let fate = Arc::new(Fate::default());
        let plan = guard::Plan { program: &program, setup, stdin, lease, testament };
        let (pid, warden) = guard::start(&plan, fate.clone()).map_err(|error| not_run(&program, &error))?;
        Ok(Child { pid, fate, warden: Some(warden) })
    }

    /// The process, which leads its group.
    pub fn id(&self) -> u32 {
        self.pid
    }

    /// Sends a signal to the whole group; to nobody once the child has ended.
    pub fn signal(&self, number: i32) {
        // The lock is held so that the child is not reaped, and its number given to another, in between.
        let end = self.fate.look();
        match &self.warden {
            _ if end.is_some() => {}
            Some(warden) => warden.signal(number),
            None => sys::signal_group(self.pid, number),
        }
    }

    /// Waits for the end; `None` when the child still runs after `limit`.
    pub fn wait(&self, limit: Option<Duration>) -> Option<Exit> {
        self.fate.wait(limit)
    }

    /// Whether the child has ended, was to end with its group, and something of that lives on: it hangs in the kernel, or
    /// belongs to another user.
    pub fn leaves_something(&self) -> bool {
        self.fate.left.load(Ordering::Relaxed) && sys::is_group(self.pid)
    }

    /// Lets a guarded child live on until another lease ends.
    pub fn extend(&self, lease: Lease) {
        if let Some(warden) = &self.warden {
            warden.extend(lease);
        }
    }

    /// Ends the group: a signal, and after `grace` SIGKILL. Returns when nothing of it is left, or
    /// when that cannot be had ([`Child::leaves_something`]).
    pub fn stop(&self, signal: i32, grace: Duration) -> Exit {
        if let Some(exit) = self.wait(Some(Duration::ZERO)) {
            return exit;
        }
        if let Some(warden) = &self.warden {
            warden.stop(signal, grace);
            return self.wait(None).unwrap_or_default();
        }
        // Who is left behind by its parent comes to us: process 1 of a container may reap nobody, and what waits to be reaped
        // is in the group still.
        sys::adopt_orphans(true);
        let deadline = Instant::now() + grace;
        self.signal(signal);
        // What was stopped could not obey.
        self.signal(signal::CONT);
        let mut exit = self.wait(Some(grace));
        // A shell dies before what it runs: that has the rest of the grace.
        if exit.is_none() || !self.is_gone_by(deadline) {
            sys::kill_group(self.pid);
            let patience = Instant::now() + KILL_PATIENCE;
            exit = exit.or_else(|| self.wait(Some(KILL_PATIENCE)));
            self.fate.left.store(!self.is_gone_by(patience), Ordering::Relaxed);
        }
        sys::adopt_orphans(false);
        exit.unwrap_or(Exit { code: None, signal: Some(signal::KILL) })
    }

    /// Waits until nothing of the group is left, whose leader has ended. False: something is, at the deadline.
    fn is_gone_by(&self, deadline: Instant) -> bool {
        loop {
            while sys::reap_of_group(self.pid).is_some() {}
            if !sys::is_group(self.pid) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(GROUP_POLL);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // A guard does what is to be done as soon as it hears no more of us.
        if self.warden.is_none() && self.fate.look().is_none() {
            sys::kill_group(self.pid);
        }
    }
}

/// The file of the program that a setup names, as Go looks for it.
fn found(setup: &Setup) -> io::Result<PathBuf> {
    let name = setup
        .argv
        .first()
        .filter(|name| !name.is_empty())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "exec: no command"))?;
    if name.as_bytes().contains(&b'/') {
        return Ok(PathBuf::from(name));
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let mut refused = false;
    for folder in std::env::split_paths(&folders) {
        let path = folder.join(name);
        match path.metadata() {
            Ok(file) if !file.is_file() => {}
            Ok(file) if file.permissions().mode() & 0o111 != 0 => return Ok(path),
            Ok(_) => refused = true,
            Err(_) => {}
        }
    }
    let (kind, why) = match refused {
        true => (io::ErrorKind::PermissionDenied, "permission denied"),
        false => (io::ErrorKind::NotFound, "executable file not found in $PATH"),
    };
    Err(io::Error::new(kind, format!("exec: {}: {why}", quoted(name))))
}

fn quoted(name: &OsStr) -> String {
    format!("{:?}", name.to_string_lossy())
}

/// Go's words for a program that could not be started.
fn not_run(program: &Path, error: &io::Error) -> io::Error {
    let why = match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ if error.raw_os_error() == Some(libc::ENOEXEC) => "exec format error".to_owned(),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("fork/exec {}: {why}", program.display()))
}

/// Bytes as a file without a name, at its beginning.
fn file_of(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(sys::memory_file()?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests;
