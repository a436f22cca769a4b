//! The signals an agent obeys, as events of a core.

use super::reactor::{Interest, Io, READABLE};
use super::sys;
use std::fmt;
use std::io;

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
    // ssi_signo is the first field of the record.
    Ok(libc::c_int::from_ne_bytes([record[0], record[1], record[2], record[3]]))
}
