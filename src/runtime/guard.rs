//! A guard: a small process between ours and a child, which ends the child's group in time even if ours cannot.
//!
//! Ours renews a *lease*; the guard sends SIGTERM when it is nearly over and SIGKILL at its end, by the clock that counts a
//! suspended machine's time, too. It needs nobody for that: our process may be stopped (SIGSTOP), or hang. If it is killed, it
//! is heard no more, and the guard ends the group at once. In all these cases the guard then runs a *testament*: a command that
//! does what ours cannot do any more, after the group's death.
//!
//! Who watches whom: the guard is the child's parent, in a process group of its own, deaf to all signals that can be
//! blocked. If it is killed, the kernel kills the child (PR_SET_PDEATHSIG) and ours kills the group; if it is stopped, ours
//! does its work a moment later.
//!
//! What is not covered: both stopped (the group lives until one goes on); both killed at once (the kernel kills the child, but
//! not what it has started); programs that change their user, which neither the kernel's word nor a signal of ours reaches;
//! and what has left the group for a session of its own.
//!
//! The guard is forked, not executed: it must not need anything that can fail. Between the fork and its end it allocates
//! nothing, takes no lock and cannot panic, so it may be forked while other threads run.

use super::child::{Exit, Fate, Setup};
use super::{signal, sys, time};
use libc::{c_char, c_int};
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

/// When a child's time is over, by [`time::boot_now`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Then it gets SIGTERM.
    pub stop_at: Duration,
    /// Then it gets SIGKILL. What lies between is its grace, also when the lease ends early.
    pub kill_at: Duration,
}

/// What a guard starts.
pub(super) struct Plan<'a> {
    /// The program's file.
    pub program: &'a Path,
    pub setup: &'a Setup,
    /// What it reads; `None` for our own standard input.
    pub stdin: Option<File>,
    pub lease: Lease,
    /// What the guard becomes after it had to end the group by itself: arguments of our own program.
    pub testament: &'a [OsString],
}

/// How often a group that was told to end is looked at, and how long it is looked at that often.
const GROUP_POLL: Duration = Duration::from_millis(10);
const GROUP_POLL_FOR: Duration = Duration::from_secs(10);
/// How often after that: it hangs in the kernel, or is not ours to kill.
const GROUP_POLL_SLOW: Duration = Duration::from_secs(1);
/// How late the guard may be before our process takes it for stopped.
const GUARD_LATE: Duration = Duration::from_millis(200);
/// How often our process looks whether it is: short enough after a suspended machine wakes.
const GUARD_POLL: Duration = Duration::from_secs(1);
/// How long a testament may take.
const TESTAMENT_SECONDS: libc::c_uint = 60;
/// Bytes of a word to the guard, and of one from it.
const ORDER: usize = 24;
const REPORT: usize = 8;

/// What is told of a child whose end nobody has seen: as of an exit with 255.
const STATUS_UNKNOWN: c_int = 255 << 8;

const EXTEND: u32 = 1;
const SIGNAL: u32 = 2;
const STOP: u32 = 3;
const STARTED: u32 = 4;
const FAILED: u32 = 5;
const ENDED: u32 = 6;
/// The child ended, and what is left of its group cannot be ended.
const LEFT: u32 = 7;
/// There is a child; whether it becomes its program is not known yet.
const FORKED: u32 = 8;

/// Our end of a guard.
pub(super) struct Warden {
    line: Arc<Line>,
}

/// What the listening thread shares with those who command.
struct Line {
    socket: OwnedFd,
    guard: u32,
    child: u32,
    /// When the group must be dead; `None` as its second half: it was told to end.
    end: Mutex<(Lease, Option<Duration>)>,
}

/// Forks a guard, which starts the child.
pub(super) fn start(plan: &Plan<'_>, fate: Arc<Fate>) -> io::Result<(u32, Warden)> {
    let words = Words::of(plan)?;
    let (ours, theirs) = sys::packet_pair()?;
    // The listener is there before the child: one without the other must not be.
    let (hand_over, line) = mpsc::sync_channel::<Arc<Line>>(1);
    let takes_terminal = words.takes_terminal;
    thread::Builder::new().name("guard".to_owned()).spawn(move || {
        if let Ok(line) = line.recv() {
            line.listen(&fate, takes_terminal);
        }
    })?;
    sys::adopt_orphans(true);
    // SAFETY: `watch` keeps to what it may do in a forked process.
    let guard = unsafe { sys::fork(|| watch(&words, theirs.as_raw_fd(), plan.lease)) }?;
    drop(theirs);
    let forked = hear(&ours, plan.lease);
    let Some((FORKED, child)) = forked else {
        sys::kill(guard, signal::KILL);
        sys::reap_now(guard);
        let why = forked.map(|(_, errno)| io::Error::from_raw_os_error(errno));
        return Err(why.unwrap_or_else(|| io::Error::other("the guard died before it began")));
    };
    let child = child.unsigned_abs();
    let line = Arc::new(Line { socket: ours, guard, child, end: Mutex::new((plan.lease, None)) });
    match hear(&line.socket, plan.lease) {
        Some((STARTED, _)) => {}
        Some((FAILED, errno)) => {
            sys::reap_now(guard);
            return Err(io::Error::from_raw_os_error(errno));
        }
        // Its program could not be begun in time, or the guard died.
        _ => {
            line.finish();
            sys::reap_now(guard);
            return Err(io::Error::from_raw_os_error(libc::ETIME));
        }
    }
    // The thread waits for it.
    let _ = hand_over.send(line.clone());
    Ok((child, Warden { line }))
}

/// A guard's word, within the lease.
fn hear(socket: &OwnedFd, lease: Lease) -> Option<(u32, i32)> {
    loop {
        let left = lease.kill_at.saturating_add(GUARD_LATE).saturating_sub(time::boot_now());
        let has_word = sys::wait_readable(socket.as_fd(), Some(left.min(GUARD_POLL)));
        let mut report = [0; REPORT];
        match has_word.then(|| sys::read(socket.as_fd(), &mut report)) {
            Some(Ok(REPORT)) => return Some(read_report(&report)),
            Some(Err(error)) if is_passing(&error) => {}
            Some(_) => return None,
            None if left.is_zero() => return None,
            None => {}
        }
    }
}

/// Whether a read may succeed all the same. A guard that has ended with an order unread resets the line, once, in front of its
/// last word.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionReset)
}

impl Warden {
    pub(super) fn signal(&self, number: i32) {
        self.line.order(SIGNAL, number, Duration::ZERO, Duration::ZERO);
    }

    pub(super) fn extend(&self, lease: Lease) {
        self.line.end().0 = lease;
        self.line.order(EXTEND, 0, lease.stop_at, lease.kill_at);
    }

    pub(super) fn stop(&self, signal: i32, grace: Duration) {
        let mut end = self.line.end();
        let kill_at = (time::boot_now() + grace).min(end.0.kill_at);
        end.1.get_or_insert(kill_at);
        self.line.order(STOP, signal, kill_at, kill_at);
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        // The listening thread holds the socket, too: this is what the guard hears.
        sys::hang_up(self.line.socket.as_fd());
    }
}

impl Line {
    /// How long to listen before the guard is looked after again.
    fn patience(&self) -> Duration {
        let end = self.end();
        let late = end.1.unwrap_or(end.0.kill_at).saturating_add(GUARD_LATE);
        late.saturating_sub(time::boot_now()).clamp(Duration::from_millis(1), GUARD_POLL)
    }

    fn end(&self) -> std::sync::MutexGuard<'_, (Lease, Option<Duration>)> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A guard that does not take it is dead, which the listening thread sees.
    fn order(&self, kind: u32, value: i32, a: Duration, b: Duration) {
        let mut order = [0; ORDER];
        order[..4].copy_from_slice(&kind.to_ne_bytes());
        order[4..8].copy_from_slice(&value.to_ne_bytes());
        order[8..16].copy_from_slice(&nanos(a).to_ne_bytes());
        order[16..].copy_from_slice(&nanos(b).to_ne_bytes());
        sys::send_packet(self.socket.as_fd(), &order);
    }

    /// Hears how the child ended, and does the guard's work if it does not.
    fn listen(&self, fate: &Fate, takes_terminal: bool) {
        let (exit, is_left) = self.hear_end().unwrap_or_else(|| self.finish());
        if takes_terminal {
            sys::take_terminal(self.child);
        }
        fate.tell(exit, is_left);
        // It may have become its testament, and take a while.
        sys::reap_now(self.guard);
    }

    /// How the child ended, and whether something of its group is left; `None` if the guard does not do its work.
    fn hear_end(&self) -> Option<(Exit, bool)> {
        let mut is_last = false;
        loop {
            let limit = if is_last { Duration::ZERO } else { self.patience() };
            let mut report = [0; REPORT];
            if sys::wait_readable(self.socket.as_fd(), Some(limit)) {
                match sys::read(self.socket.as_fd(), &mut report) {
                    Ok(REPORT) => match read_report(&report) {
                        (kind @ (ENDED | LEFT), status) => {
                            return Some((Exit::from_status(status), kind == LEFT));
                        }
                        _ => continue,
                    },
                    Err(error) if is_passing(&error) => continue,
                    // It is dead, and the child with it.
                    _ => return None,
                }
            }
            if is_last {
                return None;
            }
            // If we stood still ourselves, its word may lie there: one more look before we take it for stopped.
            let end = self.end();
            is_last = time::boot_now() > end.1.unwrap_or(end.0.kill_at).saturating_add(GUARD_LATE);
        }
    }

    /// Kills the guard and the group, and waits until nothing of it is left. What they leave behind falls to us.
    fn finish(&self) -> (Exit, bool) {
        sys::kill(self.guard, signal::KILL);
        sys::wait_exited(self.guard);
        let mut exit = Exit { code: None, signal: Some(signal::KILL) };
        let patience = time::boot_now() + GROUP_POLL_FOR;
        loop {
            sys::kill_group(self.child);
            while let Some((pid, status)) = sys::reap_of_group(self.child) {
                if pid == self.child {
                    exit = Exit::from_status(status);
                }
            }
            if !sys::is_group(self.child) {
                return (exit, false);
            }
            if time::boot_now() > patience {
                return (exit, true);
            }
            thread::sleep(GROUP_POLL);
        }
    }
}

fn read_report(report: &[u8; REPORT]) -> (u32, i32) {
    let [a, b, c, d, e, f, g, h] = *report;
    (u32::from_ne_bytes([a, b, c, d]), i32::from_ne_bytes([e, f, g, h]))
}

fn nanos(at: Duration) -> u64 {
    u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
}

/// All texts that the two forked processes need, with their ends and lists of pointers.
struct Words {
    program: CString,
    argv: Pointers,
    envp: Pointers,
    cwd: Option<CString>,
    testament: Option<Pointers>,
    /// -1 for our own.
    stdin: RawFd,
    /// Keeps `stdin` open.
    _stdin: Option<File>,
    takes_terminal: bool,
}

/// A list of texts as the kernel takes it.
struct Pointers {
    list: Vec<*const c_char>,
    _texts: Vec<CString>,
}

impl Pointers {
    fn of(texts: impl IntoIterator<Item = Vec<u8>>) -> io::Result<Pointers> {
        let texts: Vec<CString> = texts.into_iter().map(CString::new).collect::<Result<_, _>>()?;
        let list = texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect();
        Ok(Pointers { list, _texts: texts })
    }
}

impl Words {
    fn of(plan: &Plan<'_>) -> io::Result<Words> {
        let bytes = |text: &OsStr| text.as_bytes().to_vec();
        let setup = plan.setup;
        let mut variables: Vec<(OsString, OsString)> =
            if setup.pristine { Vec::new() } else { std::env::vars_os().collect() };
        variables.retain(|(name, _)| !setup.env.iter().any(|(ours, _)| ours == name));
        variables.extend(setup.env.iter().cloned());
        let assignments =
            variables.iter().map(|(name, value)| [&bytes(name), &b"="[..], &bytes(value)].concat());
        let cwd = setup.cwd.as_ref().map(|path| CString::new(path.as_os_str().as_bytes())).transpose()?;
        let testament = (!plan.testament.is_empty())
            .then(|| Pointers::of(plan.testament.iter().map(|word| bytes(word))))
            .transpose()?;
        let stdin = plan.stdin.as_ref().map(File::try_clone).transpose()?;
        Ok(Words {
            program: CString::new(plan.program.as_os_str().as_bytes())?,
            argv: Pointers::of(setup.argv.iter().map(|word| bytes(word)))?,
            envp: Pointers::of(assignments)?,
            cwd,
            testament,
            stdin: stdin.as_ref().map_or(-1, AsRawFd::as_raw_fd),
            takes_terminal: stdin.is_none() && sys::is_in_foreground(),
            _stdin: stdin,
        })
    }
}

/// The guard, from its fork to its end. Nothing here may allocate, lock or panic.
fn watch(words: &Words, socket: RawFd, lease: Lease) -> c_int {
    // SAFETY: plain system calls on numbers and on memory that was made before the fork; this process has one thread, and nobody
    // else uses its descriptors.
    unsafe {
        libc::setpgid(0, 0);
        // Whoever ignores it has no children to wait for, and we inherit that.
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::prctl(libc::PR_SET_NAME, c"lock-guard".as_ptr());
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
        let guard = libc::getpid();
        let mut news = [-1; 2];
        if libc::pipe2(news.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) != 0 {
            return refuse(socket);
        }
        let child = libc::fork();
        if child < 0 {
            return refuse(socket);
        }
        if child == 0 {
            become_child(words, guard, lease, news[1]);
        }
        // Both do it, so that neither acts before it is done.
        libc::setpgid(child, child);
        libc::close(news[1]);
        let (socket, news) = keep_only(socket, news[0]);
        tell(socket, FORKED, child);
        let mut watch = Watch::new(child, socket, news, lease, words.takes_terminal);
        let end = watch.run();
        match end {
            End::NotStarted(errno) => tell(socket, FAILED, errno),
            End::Gone(status) => tell(socket, ENDED, status),
            End::Left(status) => tell(socket, LEFT, status),
        }
        let is_alone = watch.vanished || watch.expired;
        if let (End::Gone(_), true, Some(testament)) = (end, is_alone, &words.testament) {
            let none = signal_set_empty();
            libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
            libc::alarm(TESTAMENT_SECONDS);
            libc::execve(c"/proc/self/exe".as_ptr(), testament.list.as_ptr(), words.envp.list.as_ptr());
        }
        0
    }
}

/// The child, from its fork to its program. Nothing here may allocate, lock or panic.
///
/// # Safety
/// Only in a process that was forked for it, where nobody uses standard input or `news`.
unsafe fn become_child(words: &Words, guard: libc::pid_t, lease: Lease, news: RawFd) -> ! {
    // SAFETY: as in `watch`.
    unsafe {
        libc::setpgid(0, 0);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != guard {
            libc::_exit(127);
        }
        if words.takes_terminal {
            // All signals are blocked: SIGTTOU cannot stop this.
            libc::tcsetpgrp(0, libc::getpid());
        }
        let ready = (words.stdin < 0 || libc::dup2(words.stdin, 0) == 0)
            && words.cwd.as_ref().is_none_or(|cwd| libc::chdir(cwd.as_ptr()) == 0);
        let mut why = errno();
        if ready {
            let none = signal_set_empty();
            libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
            why = libc::ETIME;
            // Whoever started us may have stood still since.
            if time::boot_now() < lease.stop_at {
                libc::execve(words.program.as_ptr(), words.argv.list.as_ptr(), words.envp.list.as_ptr());
                why = errno();
            }
        }
        let why = why.to_ne_bytes();
        libc::write(news, why.as_ptr().cast(), why.len());
        libc::_exit(127)
    }
}

/// The guard could not even begin.
fn refuse(socket: RawFd) -> c_int {
    tell(socket, FAILED, errno());
    1
}

/// Closes all descriptors but two, which get the numbers 3 and 4: the guard must not hold anybody's connection or pipe open.
///
/// # Safety
/// Only in a process that was forked for it, where nobody uses any other descriptor.
unsafe fn keep_only(socket: RawFd, news: RawFd) -> (RawFd, RawFd) {
    // SAFETY: plain system calls; nothing of this process uses the descriptors.
    unsafe {
        let nothing = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        for standard in 0..3 {
            libc::dup2(nothing, standard);
        }
        // First out of the way of the numbers that they shall have.
        let socket = libc::fcntl(socket, libc::F_DUPFD_CLOEXEC, 5);
        let news = libc::fcntl(news, libc::F_DUPFD_CLOEXEC, 5);
        libc::dup3(socket, 3, libc::O_CLOEXEC);
        libc::dup3(news, 4, libc::O_CLOEXEC);
        if libc::syscall(libc::SYS_close_range, 5, c_int::MAX, 0) != 0 {
            // An older kernel (before 5.9).
            for other in 5..1024 {
                libc::close(other);
            }
        }
        (3, 4)
    }
}

fn errno() -> c_int {
    // SAFETY: the place of this thread's error number, which libc keeps.
    unsafe { *libc::__errno_location() }
}

fn signal_set_empty() -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

fn tell(socket: RawFd, kind: u32, value: c_int) {
    let mut report = [0u8; REPORT];
    let (head, tail) = report.split_at_mut(4);
    head.copy_from_slice(&kind.to_ne_bytes());
    tail.copy_from_slice(&value.to_ne_bytes());
    // SAFETY: sends a live array. Nobody may be there to hear it.
    unsafe { libc::send(socket, report.as_ptr().cast(), report.len(), libc::MSG_NOSIGNAL) };
}

/// How a watch ends.
#[derive(Clone, Copy)]
enum End {
    /// The child could not become its program: why.
    NotStarted(c_int),
    /// The child's end; if its group was to end, nothing of it is left.
    Gone(c_int),
    /// The child's end; its group was to end, and something of it is left.
    Left(c_int),
}

/// The guard's watch over a child.
struct Watch {
    child: libc::pid_t,
    socket: RawFd,
    /// Tells why the child could not become its program, and ends when it has; -1 from then on.
    news: RawFd,
    takes_terminal: bool,
    timer: RawFd,
    exits: RawFd,
    lease: Lease,
    /// The group was told to end, and is killed then.
    stopping: Option<Duration>,
    /// It was killed for the first time then.
    killed: Option<Duration>,
    /// The child's own end.
    status: Option<c_int>,
    /// Nothing more is to be heard from the process that forked us.
    vanished: bool,
    /// The lease is over.
    expired: bool,
}

impl Watch {
    fn new(child: libc::pid_t, socket: RawFd, news: RawFd, lease: Lease, takes_terminal: bool) -> Watch {
        // SAFETY: plain system calls; the set lives through its call. Without a timer or a signalfd (no memory in the kernel) the
        // descriptors are -1, which poll passes over, and its time limit does their work.
        let (timer, exits) = unsafe {
            let mut set = signal_set_empty();
            libc::sigaddset(&mut set, libc::SIGCHLD);
            let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
            (
                libc::timerfd_create(libc::CLOCK_BOOTTIME, flags),
                libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK),
            )
        };
        Watch {
            child,
            socket,
            news,
            takes_terminal,
            timer,
            exits,
            lease,
            stopping: None,
            killed: None,
            status: None,
            vanished: false,
            expired: false,
        }
    }

    /// Ends with the child; and, if it was to end, with its group.
    fn run(&mut self) -> End {
        loop {
            // Orders first: if this process itself was stopped, a longer lease may lie there.
            self.hear();
            self.reap();
            if let Some(errno) = self.learn() {
                return End::NotStarted(errno);
            }
            let now = time::boot_now();
            if let Some(status) = self.status {
                if self.stopping.is_none() && libc::WIFSIGNALED(status) {
                    // Killed from outside (for want of memory, say): what it ran is not left without it. Who exits may leave
                    // daemons behind.
                    self.end(libc::SIGTERM, self.early(now));
                }
                if self.stopping.is_none() || !self.is_group() {
                    return End::Gone(status);
                }
                if self.killed.is_some_and(|at| now > at.saturating_add(GROUP_POLL_FOR)) {
                    return End::Left(status);
                }
            }
            if now >= self.stopping.unwrap_or(self.lease.kill_at) {
                self.kill(libc::SIGKILL);
                self.killed.get_or_insert(now);
                self.expired |= self.stopping.is_none();
                self.stopping.get_or_insert(now);
            } else if self.stopping.is_none() && now >= self.lease.stop_at {
                self.expired = true;
                self.end(libc::SIGTERM, self.lease.kill_at);
            }
            let soon = match (self.killed, self.status, self.stopping) {
                (Some(at), ..) if now > at.saturating_add(GROUP_POLL_FOR) => {
                    now.saturating_add(GROUP_POLL_SLOW)
                }
                (Some(_), ..) => now.saturating_add(GROUP_POLL),
                (None, Some(_), Some(kill_at)) => now.saturating_add(GROUP_POLL).min(kill_at),
                (None, None, Some(kill_at)) => kill_at,
                (None, _, None) => self.lease.stop_at,
            };
            self.sleep_until(soon);
        }
    }

    /// When a group is killed that is told to end now, before its lease ends.
    fn early(&self, now: Duration) -> Duration {
        let grace = self.lease.kill_at.saturating_sub(self.lease.stop_at);
        now.saturating_add(grace).min(self.lease.kill_at)
    }

    /// Learns whether the child has become its program: `Some` with the reason if it could not.
    fn learn(&mut self) -> Option<c_int> {
        if self.news < 0 {
            return None;
        }
        let mut why = [0u8; 4];
        // SAFETY: the kernel writes at most the length of the live array.
        match unsafe { libc::read(self.news, why.as_mut_ptr().cast(), why.len()) } {
            4 => {
                // SAFETY: it is about to exit; its status is not asked for.
                unsafe { libc::waitpid(self.child, std::ptr::null_mut(), 0) };
                return Some(c_int::from_ne_bytes(why));
            }
            -1 if matches!(errno(), libc::EAGAIN | libc::EINTR) => {}
            _ => {
                // SAFETY: our own descriptor, which is not used from here on.
                unsafe { libc::close(self.news) };
                self.news = -1;
                tell(self.socket, STARTED, self.child);
            }
        }
        None
    }

    /// Obeys all orders that wait.
    fn hear(&mut self) {
        while !self.vanished {
            let mut order = [0u8; ORDER];
            // SAFETY: the kernel writes at most the length of the live array.
            let n = unsafe {
                libc::recv(self.socket, order.as_mut_ptr().cast(), order.len(), libc::MSG_DONTWAIT)
            };
            match n {
                -1 if errno() == libc::EINTR => {}
                -1 if errno() == libc::EAGAIN => return,
                24 => self.obey(&order),
                _ => {
                    self.vanished = true;
                    self.end(libc::SIGTERM, self.early(time::boot_now()));
                }
            }
        }
    }

    fn obey(&mut self, order: &[u8; ORDER]) {
        let [k0, k1, k2, k3, v0, v1, v2, v3, a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7] =
            *order;
        let value = c_int::from_ne_bytes([v0, v1, v2, v3]);
        let first = Duration::from_nanos(u64::from_ne_bytes([a0, a1, a2, a3, a4, a5, a6, a7]));
        let second = Duration::from_nanos(u64::from_ne_bytes([b0, b1, b2, b3, b4, b5, b6, b7]));
        match u32::from_ne_bytes([k0, k1, k2, k3]) {
            EXTEND => self.lease = Lease { stop_at: first, kill_at: second },
            SIGNAL => self.kill(value),
            STOP => self.end(value, first),
            _ => {}
        }
    }

    /// Tells the group to end. The first word counts, but for an earlier death.
    fn end(&mut self, signal: c_int, kill_at: Duration) {
        if self.stopping.is_none() {
            self.kill(signal);
            // What was stopped could not obey.
            self.kill(libc::SIGCONT);
        }
        self.stopping = Some(self.stopping.map_or(kill_at, |earlier| earlier.min(kill_at)));
    }

    /// Reaps the child, and whatever else it left to us.
    fn reap(&mut self) {
        loop {
            let mut status = 0;
            // SAFETY: writes one live number.
            match unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG | libc::WUNTRACED) } {
                pid if pid > 0 && libc::WIFSTOPPED(status) => {
                    // Ctrl-Z where the child has the terminal: whoever started us is not the shell that could continue it.
                    if pid == self.child && self.takes_terminal && libc::WSTOPSIG(status) == libc::SIGTSTP {
                        self.kill(libc::SIGCONT);
                    }
                }
                pid if pid == self.child => self.status = Some(status),
                pid if pid > 0 => {}
                // Somebody else has reaped it: from now on its number may be a stranger's.
                -1 if self.status.is_none() && errno() == libc::ECHILD => {
                    self.status = Some(STATUS_UNKNOWN);
                    self.stopping = None;
                    return;
                }
                _ => return,
            }
        }
    }

    fn kill(&self, signal: c_int) {
        // SAFETY: takes no pointer.
        unsafe { libc::kill(self.child.saturating_neg(), signal) };
    }

    fn is_group(&self) -> bool {
        // SAFETY: takes no pointer; signal 0 only asks. One that is not ours to signal is there, too.
        unsafe { libc::kill(self.child.saturating_neg(), 0) == 0 || errno() == libc::EPERM }
    }

    /// Sleeps until a moment, an order, or the end of a child.
    fn sleep_until(&self, at: Duration) {
        let spec = libc::itimerspec {
            it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: libc::timespec {
                tv_sec: at.as_secs().min(i32::MAX as u64) as libc::time_t,
                tv_nsec: libc::c_long::from(at.subsec_nanos().max(1) as i32),
            },
        };
        let heard = if self.vanished { -1 } else { self.socket };
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut entries = [entry(heard), entry(self.timer), entry(self.exits), entry(self.news)];
        // Two seconds at most: should the kernel have no timer for us, deadlines are met nearly as well.
        let limit_ms = if self.timer < 0 || self.exits < 0 { 10 } else { 2000 };
        let mut scratch = [0u8; 256];
        // SAFETY: `spec`, `entries` and `scratch` live through the calls, which take their lengths.
        unsafe {
            libc::timerfd_settime(self.timer, libc::TFD_TIMER_ABSTIME, &spec, std::ptr::null_mut());
            libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, limit_ms);
            libc::read(self.timer, scratch.as_mut_ptr().cast(), 8);
            while libc::read(self.exits, scratch.as_mut_ptr().cast(), scratch.len()) > 0 {}
        }
    }
}
