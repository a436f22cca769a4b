//! The signals an agent obeys, as events of a core; those that a command gets, and the names of all.

use super::reactor::{Interest, Io, READABLE};
use super::sys;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// A signal of interest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// SIGHUP: reload.
    Hangup,
    /// SIGINT: stop (Ctrl-C).
    Interrupt,
    /// SIGTERM: stop.
    Terminate,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Signal::Hangup => "hangup",
            Signal::Interrupt => "interrupt",
            Signal::Terminate => "terminated",
        })
    }
}

const WATCHED: [libc::c_int; 3] = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM];

/// Lets a closed pipe end the process quietly, as it ends other programs: for commands whose output goes through
/// `head`. Not for agents, which must outlive their clients.
pub fn die_of_closed_pipes() {
    // SAFETY: sets a disposition; no handler is involved.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Keeps these signals (and SIGCHLD) from interrupting any thread, so that [`listen`] gets them. To be called in
/// `main` before any thread starts. Children that are started later have them unblocked.
pub fn block_in_main() {
    sys::block_signals(&WATCHED);
    sys::block_signals(&[libc::SIGCHLD]);
}

/// Begins to listen, on this core.
///
/// # Errors
/// No descriptor is left.
pub fn listen() -> io::Result<Signals> {
    Ok(Signals { io: Io::new(sys::signalfd(&WATCHED)?, Interest::Read) })
}

/// The signals that arrive from now on, and those that came since they were blocked.
pub struct Signals {
    io: Io,
}

impl Signals {
    /// The next signal. Equal signals that arrive while one is waiting count once.
    ///
    /// # Errors
    /// The descriptor cannot be watched.
    pub async fn next(&mut self) -> io::Result<Signal> {
        loop {
            match next_number(&self.io).await? {
                libc::SIGHUP => return Ok(Signal::Hangup),
                libc::SIGINT => return Ok(Signal::Interrupt),
                libc::SIGTERM => return Ok(Signal::Terminate),
                _ => {}
            }
        }
    }
}

/// One record of a signalfd: the number of its signal.
pub(super) async fn next_number(io: &Io) -> io::Result<libc::c_int> {
    let mut record = [0u8; size_of::<libc::signalfd_siginfo>()];
    std::future::poll_fn(|cx| io.poll_with(READABLE, cx, |fd| sys::read(fd, &mut record))).await?;
    Ok(number_of(&record))
}

/// Signals by number, for those who send them.
pub const HUP: i32 = libc::SIGHUP;
/// Ctrl-C.
pub const INT: i32 = libc::SIGINT;
/// It cannot be caught.
pub const KILL: i32 = libc::SIGKILL;
/// Please end.
pub const TERM: i32 = libc::SIGTERM;
/// Go on after a stop.
pub const CONT: i32 = libc::SIGCONT;

/// What a command gets and may have to hand on.
const CAUGHT: [libc::c_int; 7] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2, libc::SIGWINCH];

/// Names, and Go's words for what they did to a process.
const NAMES: [(&str, libc::c_int, &str); 29] = [
    ("SIGABRT", libc::SIGABRT, "aborted"),
    ("SIGALRM", libc::SIGALRM, "alarm clock"),
    ("SIGBUS", libc::SIGBUS, "bus error"),
    ("SIGCHLD", libc::SIGCHLD, "child exited"),
    ("SIGCONT", libc::SIGCONT, "continued"),
    ("SIGFPE", libc::SIGFPE, "floating point exception"),
    ("SIGHUP", libc::SIGHUP, "hangup"),
    ("SIGILL", libc::SIGILL, "illegal instruction"),
    ("SIGINT", libc::SIGINT, "interrupt"),
    ("SIGIO", libc::SIGIO, "I/O possible"),
    ("SIGKILL", libc::SIGKILL, "killed"),
    ("SIGPIPE", libc::SIGPIPE, "broken pipe"),
    ("SIGPROF", libc::SIGPROF, "profiling timer expired"),
    ("SIGPWR", libc::SIGPWR, "power failure"),
    ("SIGQUIT", libc::SIGQUIT, "quit"),
    ("SIGSEGV", libc::SIGSEGV, "segmentation fault"),
    ("SIGSTOP", libc::SIGSTOP, "stopped (signal)"),
    ("SIGSYS", libc::SIGSYS, "bad system call"),
    ("SIGTERM", libc::SIGTERM, "terminated"),
    ("SIGTRAP", libc::SIGTRAP, "trace/breakpoint trap"),
    ("SIGTSTP", libc::SIGTSTP, "stopped"),
    ("SIGTTIN", libc::SIGTTIN, "stopped (tty input)"),
    ("SIGTTOU", libc::SIGTTOU, "stopped (tty output)"),
    ("SIGURG", libc::SIGURG, "urgent I/O condition"),
    ("SIGUSR1", libc::SIGUSR1, "user defined signal 1"),
    ("SIGUSR2", libc::SIGUSR2, "user defined signal 2"),
    ("SIGVTALRM", libc::SIGVTALRM, "virtual timer expired"),
    ("SIGWINCH", libc::SIGWINCH, "window changed"),
    ("SIGXCPU", libc::SIGXCPU, "CPU time limit exceeded"),
];

/// The number of a signal by its name, with or without `SIG`, or by its number.
pub fn number(text: &str) -> Option<i32> {
    let wanted = text.trim().to_ascii_uppercase();
    let named = NAMES.iter().find(|(name, ..)| *name == wanted || name.strip_prefix("SIG") == Some(&wanted));
    named.map(|(_, number, _)| *number).or_else(|| wanted.parse().ok().filter(|n| (1..=64).contains(n)))
}

/// The name of a signal; its number if it has none.
pub fn name(number: i32) -> String {
    let named = NAMES.iter().find(|(_, n, _)| *n == number);
    named.map_or_else(|| format!("signal {number}"), |(name, ..)| (*name).to_owned())
}

/// Go's words for a signal.
pub fn described(number: i32) -> String {
    let named = NAMES.iter().find(|(_, n, _)| *n == number);
    named.map_or_else(|| format!("signal {number}"), |(.., words)| (*words).to_owned())
}

/// Whether a signal ends a process that does nothing about it.
pub fn ends(number: i32) -> bool {
    const HARMLESS: [libc::c_int; 4] = [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH];
    !HARMLESS.contains(&number)
}

/// The signals of a command, which it takes when it likes: SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH.
pub struct Caught {
    fd: OwnedFd,
}

impl Caught {
    /// Keeps them from interrupting anything. To be called in the first thread before any other starts. Those that are
    /// ignored (`nohup`) stay so.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn block() -> io::Result<Caught> {
        let heeded: Vec<libc::c_int> =
            CAUGHT.iter().copied().filter(|signal| !sys::is_ignored(*signal)).collect();
        sys::block_signals(&heeded);
        Ok(Caught { fd: sys::signalfd(&heeded)? })
    }

    /// The number of the next one; `None` when none comes within `limit`.
    ///
    /// # Errors
    /// The descriptor cannot be read.
    pub fn next(&self, limit: Option<Duration>) -> io::Result<Option<i32>> {
        let deadline = limit.and_then(|limit| std::time::Instant::now().checked_add(limit));
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(std::time::Instant::now()));
            sys::wait_readable(self.fd.as_fd(), left);
            let mut record = [0u8; size_of::<libc::signalfd_siginfo>()];
            match sys::read(self.fd.as_fd(), &mut record) {
                Ok(_) => return Ok(Some(number_of(&record))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if left.is_some_and(|left| left.is_zero()) {
                        return Ok(None);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// `ssi_signo`, the first field of a record.
fn number_of(record: &[u8; size_of::<libc::signalfd_siginfo>()]) -> libc::c_int {
    libc::c_int::from_ne_bytes([record[0], record[1], record[2], record[3]])
}
