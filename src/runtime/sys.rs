//! The system calls that neither std nor socket2 offers, as safe functions over owned descriptors.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// The signal of [`interrupt`]; nobody else sends it unasked.
const INTERRUPT: libc::c_int = libc::SIGURG;

/// Turns the -1 of a system call into the error it stands for.
pub(super) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The same for calls that return a length.
pub(super) fn check_len(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn own(fd: libc::c_int) -> io::Result<OwnedFd> {
    let fd = check(fd)?;
    // SAFETY: the kernel just returned this descriptor to us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn epoll_create() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    own(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })
}

/// Adds (or with `modify` changes) a source. `key` comes back with each of its events.
pub(super) fn epoll_set(epoll: &OwnedFd, fd: RawFd, events: u32, key: u64, modify: bool) -> io::Result<()> {
    let op = if modify { libc::EPOLL_CTL_MOD } else { libc::EPOLL_CTL_ADD };
    let mut event = libc::epoll_event { events, u64: key };
    // SAFETY: `event` is valid for the call, which copies it.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), op, fd, &mut event) }).map(drop)
}

pub(super) fn epoll_remove(epoll: &OwnedFd, fd: RawFd) {
    // SAFETY: a null event is allowed for DEL; a failure means that it was not there, which is what is wanted.
    unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) };
}

/// Waits for events; `timeout_ms` of -1 waits for ever, 0 not at all. An interrupted wait is an empty one.
pub(super) fn epoll_wait(
    epoll: &OwnedFd,
    events: &mut [libc::epoll_event],
    timeout_ms: i32,
) -> io::Result<usize> {
    let room = libc::c_int::try_from(events.len()).unwrap_or(libc::c_int::MAX);
    // SAFETY: the kernel writes at most `room` entries into the slice.
    let n = unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), room, timeout_ms) };
    match check(n) {
        Ok(n) => Ok(n.unsigned_abs() as usize),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) => Err(error),
    }
}

pub(super) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    own(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })
}

/// Adds one to an eventfd. It can only fail when its counter is full, and then it is readable anyway.
pub(super) fn eventfd_raise(fd: &OwnedFd) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: writes 8 bytes from a live array.
    unsafe { libc::write(fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}

/// Empties an eventfd or a timerfd.
pub(super) fn counter_clear(fd: &OwnedFd) {
    let mut count = [0u8; 8];
    // SAFETY: reads at most 8 bytes into a live array; "would block" means that it is empty already.
    unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
}

pub(super) fn timerfd() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    own(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) })
}

/// Arms a timerfd to fire once, `after` from now (at least one nanosecond: zero would disarm it).
pub(super) fn timerfd_arm(fd: &OwnedFd, after: Duration) -> io::Result<()> {
    let after = after.max(Duration::from_nanos(1));
    let spec = libc::itimerspec {
        it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: libc::timespec {
            tv_sec: libc::time_t::try_from(after.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: after.subsec_nanos().into(),
        },
    };
    // SAFETY: `spec` lives through the call; the old value is not asked for.
    check(unsafe { libc::timerfd_settime(fd.as_raw_fd(), 0, &spec, std::ptr::null_mut()) }).map(drop)
}

pub(super) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer; returns a descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::c_long, 0 as libc::c_long) };
    own(fd as libc::c_int)
}

/// A signalfd for signals that are already blocked in every thread.
pub(super) fn signalfd(signals: &[libc::c_int]) -> io::Result<OwnedFd> {
    let set = signal_set(signals);
    // SAFETY: `set` lives through the call.
    own(unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })
}

/// Blocks signals in the calling thread and in all that it starts.
pub(super) fn block_signals(signals: &[libc::c_int]) {
    let set = signal_set(signals);
    // SAFETY: `set` lives through the call; the call fails only for a bad first argument.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
}

/// Has a child begin with no signal blocked, whatever we keep for ourselves.
pub(super) fn unblock_in(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    let none = signal_set(&[]);
    // SAFETY: the closure calls nothing but pthread_sigmask, which is async-signal-safe, with a set that it owns.
    unsafe {
        command.pre_exec(move || {
            libc::pthread_sigmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
            Ok(())
        });
    }
}

/// Whether this process ignores a signal: whoever started it may have said so (`nohup`).
pub(super) fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: all bits zero is a valid value, and it lives through the call, which only reads the disposition.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

/// The number of the calling thread, for [`interrupt`].
pub(super) fn thread_id() -> libc::pid_t {
    // SAFETY: takes nothing.
    unsafe { libc::gettid() }
}

/// Makes [`interrupt`] end a wait of the kernel: the signal is ignored where nobody handles it.
pub(super) fn allow_interrupts() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: all zeros is a valid value: no flags (so that waits are not begun again), no signal blocked meanwhile.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: `action` lives through the call, and its handler, which does nothing, may run at any time.
    check(unsafe { libc::sigaction(INTERRUPT, &action, std::ptr::null_mut()) }).map(drop)
}

/// Ends what a thread of this process waits for, with "interrupted". One that does not wait does not notice.
pub(super) fn interrupt(thread: libc::pid_t) {
    // SAFETY: takes no pointer. A thread that is gone is an error, and nothing is left to be done then.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, INTERRUPT) };
}

fn signal_set(signals: &[libc::c_int]) -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set, and only then is it used.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}

pub(super) fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most the length of the live slice.
    check_len(unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) })
}

pub(super) fn write(fd: BorrowedFd<'_>, buffer: &[u8]) -> io::Result<usize> {
    // SAFETY: the kernel reads at most the length of the live slice.
    check_len(unsafe { libc::write(fd.as_raw_fd(), buffer.as_ptr().cast(), buffer.len()) })
}

/// Makes one end of a pipe non-blocking (each end has flags of its own).
pub(super) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: F_GETFL and F_SETFL take no pointer.
    unsafe {
        let flags = check(libc::fcntl(fd.as_raw_fd(), libc::F_GETFL))?;
        check(libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK)).map(drop)
    }
}

/// Kills every process of a group.
pub(super) fn kill_group(leader: u32) {
    let Ok(pid) = libc::pid_t::try_from(leader) else { return };
    // SAFETY: takes no pointer. A group that is gone is an error we do not need.
    unsafe { libc::kill(-pid, libc::SIGKILL) };
}

/// Sends a signal to every process of a group.
pub(super) fn signal_group(leader: u32, signal: libc::c_int) {
    let Ok(pid) = libc::pid_t::try_from(leader) else { return };
    // SAFETY: takes no pointer. A group that is gone is an error we do not need.
    unsafe { libc::kill(-pid, signal) };
}

/// Whether a group has processes, of ours or of others; those that wait to be reaped count.
pub(super) fn is_group(leader: u32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(leader) else { return false };
    // SAFETY: takes no pointer; signal 0 only asks.
    unsafe { libc::kill(-pid, 0) == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM) }
}

/// Sends a signal to a child of ours that is not reaped yet.
pub(super) fn kill(pid: u32, signal: libc::c_int) {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return };
    // SAFETY: takes no pointer.
    unsafe { libc::kill(pid, signal) };
}

/// Forks. The new process runs `child` on the calling thread's copy, alone, and ends with its code. All signals are blocked
/// there.
///
/// # Safety
/// `child` allocates nothing, takes no lock and does not panic: other threads of this process, which are not there any more in
/// the new one, may have been in the middle of that.
pub(super) unsafe fn fork(child: impl FnOnce() -> libc::c_int) -> io::Result<u32> {
    let mut all = std::mem::MaybeUninit::uninit();
    let mut before = std::mem::MaybeUninit::uninit();
    // SAFETY: both sets live through the calls and are written by them before they are read. The forked process has a copy of
    // all memory, and the caller keeps what `child` may do to what is sound there.
    let pid = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        let pid = libc::fork();
        if pid == 0 {
            libc::_exit(child());
        }
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
        if pid < 0 {
            return Err(error);
        }
        pid
    };
    Ok(pid.unsigned_abs())
}

/// Makes this process the parent of what its children leave behind, in the place of process 1; or no longer.
pub(super) fn adopt_orphans(adopt: bool) {
    // SAFETY: takes no pointer.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, libc::c_ulong::from(adopt)) };
}

/// Waits until a child has exited, and leaves it to be reaped.
pub(super) fn wait_exited(pid: u32) {
    let mut found = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WNOWAIT;
    // SAFETY: `found` lives through the call, which fills it. It fails when there is no such child: then nothing is waited for.
    while unsafe { libc::waitid(libc::P_PID, pid, found.as_mut_ptr(), flags) } != 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
}

/// Waits for a child that is about to exit, and reaps it.
pub(super) fn reap_now(pid: u32) {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return };
    // SAFETY: the status is not asked for.
    while unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) } < 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
}

/// Reaps one exited child that is in a group, without waiting: its number and its status.
pub(super) fn reap_of_group(leader: u32) -> Option<(u32, libc::c_int)> {
    let group = libc::pid_t::try_from(leader).ok()?;
    let mut status = 0;
    // SAFETY: writes one live number.
    let pid = unsafe { libc::waitpid(-group, &mut status, libc::WNOHANG) };
    (pid > 0).then_some((pid.unsigned_abs(), status))
}

/// Whether standard input is a terminal where this process is in the foreground.
pub(super) fn is_in_foreground() -> bool {
    // SAFETY: takes no pointer.
    unsafe { libc::tcgetpgrp(0) == libc::getpgrp() }
}

/// Puts a group into the foreground of our terminal, if we are there. Whether it is there now.
pub(super) fn give_terminal(leader: u32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(leader) else { return false };
    if !is_in_foreground() {
        return false;
    }
    // SAFETY: takes no pointer. Who is in the foreground may give it away.
    unsafe { libc::tcsetpgrp(0, pid) };
    // It may have read in the meantime, and be stopped for that.
    signal_group(leader, libc::SIGCONT);
    true
}

/// Takes the terminal back from a group of ours that had it.
pub(super) fn take_terminal(leader: u32) {
    let Ok(pid) = libc::pid_t::try_from(leader) else { return };
    // SAFETY: takes no pointer but a live set. In the background this call raises SIGTTOU, unless that is blocked.
    unsafe {
        if libc::tcgetpgrp(0) == pid {
            let set = signal_set(&[libc::SIGTTOU]);
            let mut before = std::mem::MaybeUninit::uninit();
            libc::pthread_sigmask(libc::SIG_BLOCK, &set, before.as_mut_ptr());
            libc::tcsetpgrp(0, libc::getpgrp());
            libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
        }
    }
}

/// Lets children be waited for: who started us may ignore their ends, and that is inherited.
pub(super) fn heed_children() {
    // SAFETY: sets a disposition; no handler is involved.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Two ends of a line that keeps packets apart.
pub(super) fn packet_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: writes two live numbers.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) })?;
    Ok((own(ends[0])?, own(ends[1])?))
}

/// Sends a packet, without waiting. Nobody may be there to take it.
pub(super) fn send_packet(fd: BorrowedFd<'_>, packet: &[u8]) {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the kernel reads at most the length of the live slice.
    unsafe { libc::send(fd.as_raw_fd(), packet.as_ptr().cast(), packet.len(), flags) };
}

/// Ends a socket for all who hold it: they read its end, and so does the other side.
pub(super) fn hang_up(fd: BorrowedFd<'_>) {
    // SAFETY: takes no pointer.
    unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_RDWR) };
}

/// Waits until a descriptor has input or has ended, at most so long.
pub(super) fn wait_readable(fd: BorrowedFd<'_>, limit: Option<Duration>) -> bool {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // Rounded up: a wait for less than a millisecond must not become a busy loop.
    let limit_ms = limit.map_or(-1, |limit| {
        libc::c_int::try_from(limit.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
    });
    // SAFETY: one live entry.
    unsafe { libc::poll(&mut entry, 1, limit_ms) == 1 }
}

/// Waits until one of some descriptors has input or has ended, at most so long.
pub(super) fn wait_any_readable(fds: &[BorrowedFd<'_>], limit: Duration) {
    let entry = |fd: &BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut entries: Vec<libc::pollfd> = fds.iter().map(entry).collect();
    let limit_ms = libc::c_int::try_from(limit.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: as many live entries as are told.
    unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, limit_ms) };
}

/// A file without a name, in memory.
pub(super) fn memory_file() -> io::Result<OwnedFd> {
    // SAFETY: the name is a text with its end.
    own(unsafe { libc::memfd_create(c"input".as_ptr(), libc::MFD_CLOEXEC) })
}

/// The time since the machine started, with the time that it was suspended.
pub(super) fn boot_time() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one live value. The clock is there since Linux 2.6.39.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now) };
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// The time that all threads of this process together had a CPU.
pub(super) fn cpu_time() -> Duration {
    let mut used = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one live value. The clock is there since Linux 2.6.12.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut used) };
    Duration::new(used.tv_sec.unsigned_abs(), used.tv_nsec as u32)
}

/// Reaps one exited child, without waiting. False when it has not exited or is not ours.
pub(super) fn reap(pid: u32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return false };
    // SAFETY: the status is not asked for.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) == pid }
}

/// Whether a descriptor has input, at once.
pub(super) fn is_readable(fd: RawFd) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one live entry.
    unsafe { libc::poll(&mut poll, 1, 0) == 1 && poll.revents & libc::POLLIN != 0 }
}

/// The CPUs this process may use, in ascending order.
pub(super) fn allowed_cpus() -> Vec<usize> {
    let mut set = std::mem::MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: the kernel fills at most the given size of the zeroed set, and all-zero is a valid set. The thread asked about is the
    // first one of the process, which is never pinned.
    let set = unsafe {
        if libc::sched_getaffinity(libc::getpid(), size_of::<libc::cpu_set_t>(), set.as_mut_ptr()) != 0 {
            return Vec::new();
        }
        set.assume_init()
    };
    // SAFETY: the index stays below the size of the set.
    (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect()
}

/// Pins the calling thread to one CPU. A refusal is harmless: the thread then floats.
pub(super) fn pin_to(cpu: usize) {
    let mut set = std::mem::MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: all-zero is a valid set, `cpu` came from `allowed_cpus` and so is below its size.
    unsafe {
        libc::CPU_SET(cpu, set.assume_init_mut());
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), set.as_ptr());
    }
}

/// Lets the calling thread run wherever the process may: a thread inherits the CPU of the core that starts it. A refusal is harmless.
pub(super) fn unpin() {
    let mut set = std::mem::MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: the kernel fills at most the given size of the zeroed set, which is whole whatever it fills, and then only reads it. The
    // thread asked about is the first one of the process, which is never pinned.
    unsafe {
        if libc::sched_getaffinity(libc::getpid(), size_of::<libc::cpu_set_t>(), set.as_mut_ptr()) == 0 {
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), set.as_ptr());
        }
    }
}

/// Lets the calling thread give way to all others of the process. It cannot be taken back. A refusal is harmless.
pub(super) fn give_way() {
    // SAFETY: takes no pointer. On Linux it holds for the calling thread alone.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
}

/// Whether nobody else, in this process or another, has a file open or mapped now: then the kernel gives a lease for writing. Where it gives
/// none (to a file of somebody else, or on a file system of the network), the answer is no.
pub(super) fn is_open_here_alone(file: &std::fs::File) -> bool {
    // SAFETY: takes no pointer, and the descriptor is open. It ends with the file.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) == 0 }
}

/// Size and free bytes of the file system that a path lies on.
pub(super) fn space(path: &std::path::Path) -> io::Result<super::fs::Space> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let mut found = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: `path` ends with a zero byte and `found` is valid for writing, both for the call.
    check(unsafe { libc::statfs(path.as_ptr(), found.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, and all bytes were zeroed before it.
    let found = unsafe { found.assume_init() };
    let unit = u64::try_from(found.f_frsize).unwrap_or_default();
    Ok(super::fs::Space {
        total: found.f_blocks * unit,
        used: found.f_blocks.saturating_sub(found.f_bfree) * unit,
        free: found.f_bavail * unit,
        inodes: found.f_files,
        inodes_free: found.f_ffree,
        kind: found.f_type as u64,
    })
}

/// Writes all of `bytes` at `offset`. If `durable`, they have reached the device when this returns.
pub(super) fn write_all_at(
    file: &std::fs::File,
    mut bytes: &[u8],
    mut offset: u64,
    durable: bool,
) -> io::Result<()> {
    let flags = if durable { libc::RWF_DSYNC } else { 0 };
    while !bytes.is_empty() {
        let part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let at = libc::off_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: the one part is a live slice that the kernel only reads.
        let written = check_len(unsafe { libc::pwritev2(file.as_raw_fd(), &part, 1, at, flags) });
        match written {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Has the device begin to write what was written there. Promises nothing.
pub(super) fn start_writing_out(file: &std::fs::File, offset: u64, length: u64) -> io::Result<()> {
    let place =
        |bytes| libc::off64_t::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let (offset, length) = (place(offset)?, place(length)?);
    // SAFETY: takes no pointer.
    check(unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) })
        .map(drop)
}

/// Allocates `size` bytes for an empty file, which read as zeros.
pub(super) fn allocate(file: &std::fs::File, size: u64) -> io::Result<()> {
    if size == 0 {
        // The kernel refuses to allocate nothing.
        return Ok(());
    }
    let size = libc::off_t::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    loop {
        // SAFETY: takes no pointer.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, size) } {
            0 => return Ok(()),
            libc::EINTR => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// Makes the next reads of a file come from its disk. A hint: what cannot be let go stays in memory.
pub(super) fn forget_cached(file: &std::fs::File) {
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call takes numbers only.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

/// The first part of a file at or behind `from` that may hold more than zeros: where it begins and where it ends. `None`: nothing
/// behind `from` was ever written. Where the file system cannot tell, all of the file was.
pub(super) fn written_part(file: &std::fs::File, from: u64, length: u64) -> Option<(u64, u64)> {
    let seek = |from: u64, whence| {
        let from = libc::off_t::try_from(from).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: takes no pointer; nobody here reads or writes at a file's own position.
        let place = unsafe { libc::lseek(file.as_raw_fd(), from, whence) };
        u64::try_from(place).map_err(|_| io::Error::last_os_error())
    };
    if from >= length {
        return None;
    }
    let begin = match seek(from, libc::SEEK_DATA) {
        Ok(begin) => begin,
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return None,
        Err(_) => return Some((from, length)),
    };
    let end = seek(begin, libc::SEEK_HOLE).unwrap_or(length);
    (begin < length).then_some((begin, end.clamp(begin, length)))
}
