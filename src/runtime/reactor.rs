//! One core's sources of events: a single epoll instance with sockets (edge-triggered, registered once), the
//! mailbox and the timer. The driver calls [`Core::turn`] when the instance is readable; nothing here waits.

use super::cores::CoreId;
use super::driver_epoll::RunQueue;
use super::mailbox::Mailbox;
use super::net::readiness::Tokens;
use super::timers::{TimerKey, Timers};
use super::watchdog::Pulse;
use super::{sys, time};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// Events taken from the kernel in one turn; more wait for the next.
const EVENTS_MAX: usize = 256;
const KEY_MAILBOX: u64 = u64::MAX;
const KEY_TIMER: u64 = u64::MAX - 1;

pub(super) const READABLE: u8 = 1;
pub(super) const WRITABLE: u8 = 2;
pub(super) const HANGUP: u8 = 4;

thread_local! {
    static CORE: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
    static SERIAL: Cell<u64> = const { Cell::new(0) };
}

/// Runs `f` with this thread's core, if it has one.
pub(super) fn try_with<R>(f: impl FnOnce(&Rc<Core>) -> R) -> Option<R> {
    CORE.try_with(|core| core.try_borrow().ok()?.as_ref().map(f)).ok().flatten()
}

/// Runs `f` with this thread's core.
pub(super) fn with<R>(f: impl FnOnce(&Rc<Core>) -> R) -> R {
    try_with(f).expect("sockets, timers and tasks are used inside cores::run only")
}

pub(super) fn current_serial() -> Option<u64> {
    SERIAL.try_with(Cell::get).ok().filter(|serial| *serial != 0)
}

/// What of a descriptor is watched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Interest {
    Read,
    Write,
    Both,
}

impl Interest {
    fn mask(self) -> u32 {
        let mask = match self {
            Interest::Read => libc::EPOLLIN,
            Interest::Write => libc::EPOLLOUT,
            Interest::Both => libc::EPOLLIN | libc::EPOLLOUT,
        };
        (mask | libc::EPOLLRDHUP | libc::EPOLLET) as u32
    }
}

/// Who is told of the events of a source.
enum Source {
    /// One task for each direction. The flags say what was reported and not yet used up.
    Tasks { ready: u8, read: Option<Waker>, write: Option<Waker> },
    /// A queue of tokens; `flags` gathers until they are fetched.
    Token { tokens: Rc<Tokens>, token: u64, flags: u8 },
}

struct Slot {
    generation: u32,
    source: Option<Source>,
}

/// All of one core but its tasks.
pub(super) struct Core {
    pub(super) id: CoreId,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) pulse: Arc<Pulse>,
    /// The run queue of the epoll driver; glommio has its own.
    pub(super) run_queue: Option<Rc<RunQueue>>,
    pub(super) epoll: OwnedFd,
    timer: OwnedFd,
    timers: RefCell<Timers>,
    /// When the kernel's timer fires; it may be earlier than needed, never later.
    armed: Cell<Option<Instant>>,
    /// The driver waits: a new timer must be armed at once, later it does so itself.
    waiting: Cell<bool>,
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<u32>>,
    woken: RefCell<Vec<Waker>>,
    mail: RefCell<Vec<Waker>>,
}

impl Core {
    /// Makes this thread a core until [`Core::leave`].
    pub(super) fn enter(
        id: CoreId,
        pulse: Arc<Pulse>,
        run_queue: Option<Rc<RunQueue>>,
    ) -> io::Result<Rc<Core>> {
        static SERIALS: AtomicU64 = AtomicU64::new(1);
        let serial = SERIALS.fetch_add(1, Ordering::Relaxed);
        let core = Rc::new(Core {
            id,
            mailbox: Arc::new(Mailbox::new(serial)?),
            pulse,
            run_queue,
            epoll: sys::epoll_create()?,
            timer: sys::timerfd()?,
            timers: RefCell::new(Timers::new(time::now())),
            armed: Cell::new(None),
            waiting: Cell::new(false),
            slots: RefCell::default(),
            free: RefCell::default(),
            woken: RefCell::default(),
            mail: RefCell::default(),
        });
        let level = libc::EPOLLIN as u32;
        sys::epoll_set(&core.epoll, core.mailbox.eventfd.as_raw_fd(), level, KEY_MAILBOX, false)?;
        sys::epoll_set(&core.epoll, core.timer.as_raw_fd(), level, KEY_TIMER, false)?;
        SERIAL.set(serial);
        CORE.set(Some(core.clone()));
        Ok(core)
    }

    /// Ends this thread's time as a core. Mail that comes later is dropped.
    pub(super) fn leave(&self) {
        self.mailbox.close();
        SERIAL.set(0);
        drop(CORE.take());
    }

    /// Takes what happened, waiting at most `timeout_ms` (-1: for ever) for the first event, and wakes the
    /// tasks concerned, as well as those whose time has come. Returns how many events there were, or tasks woken.
    pub(super) fn turn(&self, timeout_ms: i32) -> io::Result<usize> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
        let n = sys::epoll_wait(&self.epoll, &mut events, timeout_ms)?;
        self.waiting.set(false);
        self.pulse.answer();
        let mut woken = self.woken.take();
        for event in &events[..n] {
            match event.u64 {
                KEY_MAILBOX => self.collect_mail(&mut woken),
                KEY_TIMER => {
                    sys::counter_clear(&self.timer);
                    self.armed.set(None);
                }
                key => self.report(key, event.events, &mut woken),
            }
        }
        // By the clock, not by the kernel's timer: that is not armed while the driver never waits.
        self.fire_timers(&mut woken);
        let n = n.max(woken.len());
        for waker in woken.drain(..) {
            waker.wake();
        }
        self.woken.replace(woken);
        Ok(n)
    }

    /// To be called right before the driver waits: arms the kernel's timer for the next deadline.
    pub(super) fn prepare_wait(&self) -> io::Result<()> {
        self.waiting.set(true);
        self.arm()
    }

    pub(super) fn add_timer(&self, deadline: Instant, waker: Waker) -> TimerKey {
        let key = self.timers.borrow_mut().insert(time::now(), deadline, waker);
        if self.waiting.get()
            && let Err(error) = self.arm()
        {
            tracing::error!("cannot arm the timer of core {}: {error}", self.id.0);
        }
        key
    }

    pub(super) fn cancel_timer(&self, key: TimerKey) {
        self.timers.borrow_mut().cancel(key);
    }

    pub(super) fn set_timer_waker(&self, key: TimerKey, waker: &Waker) {
        self.timers.borrow_mut().set_waker(key, waker);
    }

    /// The gathered events of a token source, which are hereby used up: its token and flags.
    pub(super) fn fetch_token(&self, key: u64) -> Option<(u64, u8)> {
        let mut slots = self.slots.borrow_mut();
        match slot_of(&mut slots, key)?.source.as_mut()? {
            Source::Token { token, flags, .. } => Some((*token, std::mem::take(flags))),
            Source::Tasks { .. } => None,
        }
    }

    fn arm(&self) -> io::Result<()> {
        let Some(due) = self.timers.borrow().next_due() else { return Ok(()) };
        if self.armed.get().is_some_and(|armed| armed <= due) {
            return Ok(());
        }
        sys::timerfd_arm(&self.timer, due.saturating_duration_since(time::now()))?;
        self.armed.set(Some(due));
        Ok(())
    }

    fn collect_mail(&self, woken: &mut Vec<Waker>) {
        sys::counter_clear(&self.mailbox.eventfd);
        let mut mail = self.mailbox.collect(self.mail.take());
        woken.append(&mut mail);
        self.mail.replace(mail);
    }

    fn fire_timers(&self, woken: &mut Vec<Waker>) {
        let mut timers = self.timers.borrow_mut();
        if timers.next_due().is_some() {
            timers.take_due(time::now(), woken);
        }
    }

    fn report(&self, key: u64, events: u32, woken: &mut Vec<Waker>) {
        let flags = flags_of(events);
        let mut slots = self.slots.borrow_mut();
        match slot_of(&mut slots, key).and_then(|slot| slot.source.as_mut()) {
            Some(Source::Tasks { ready, read, write }) => {
                *ready |= flags;
                if flags & READABLE != 0 {
                    woken.extend(read.take());
                }
                if flags & WRITABLE != 0 {
                    woken.extend(write.take());
                }
            }
            Some(Source::Token { tokens, flags: gathered, .. }) => {
                if *gathered == 0 {
                    tokens.push(key);
                }
                *gathered |= flags;
                woken.extend(tokens.take_waker());
            }
            // The source was closed earlier in this same turn.
            None => {}
        }
    }

    fn register(&self, fd: BorrowedFd<'_>, interest: Interest, source: Source) -> io::Result<u64> {
        let mut slots = self.slots.borrow_mut();
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
            slots.push(Slot { generation: 0, source: None });
            u32::try_from(slots.len() - 1).expect("a process has fewer than 2^32 descriptors")
        });
        let slot = &mut slots[index as usize];
        let key = u64::from(slot.generation) << 32 | u64::from(index);
        if let Err(error) = sys::epoll_set(&self.epoll, fd.as_raw_fd(), interest.mask(), key, false) {
            self.free.borrow_mut().push(index);
            return Err(error);
        }
        slot.source = Some(source);
        Ok(key)
    }

    fn forget(&self, key: u64) {
        let source = {
            let mut slots = self.slots.borrow_mut();
            let Some(slot) = slot_of(&mut slots, key) else { return };
            // Two generations are kept free of the reserved keys by the low half: an index is never u32::MAX.
            slot.generation = slot.generation.wrapping_add(1);
            slot.source.take()
        };
        self.free.borrow_mut().push(key as u32);
        // Dropped only now: the wakers in it may run code that comes back here.
        drop(source);
    }
}

fn slot_of(slots: &mut [Slot], key: u64) -> Option<&mut Slot> {
    slots.get_mut(key as u32 as usize).filter(|slot| u64::from(slot.generation) == key >> 32)
}

fn flags_of(events: u32) -> u8 {
    let has = |bit: libc::c_int| events & bit as u32 != 0;
    let hangup = has(libc::EPOLLHUP) || has(libc::EPOLLERR);
    let mut flags = 0;
    if has(libc::EPOLLIN) || has(libc::EPOLLRDHUP) || hangup {
        flags |= READABLE;
    }
    if has(libc::EPOLLOUT) || hangup {
        flags |= WRITABLE;
    }
    if has(libc::EPOLLRDHUP) || hangup {
        flags |= HANGUP;
    }
    flags
}

/// A non-blocking descriptor that can be registered with the epoll instance of the core it is used on. It may be
/// made anywhere and sent to its core until then.
pub(super) struct Io {
    fd: OwnedFd,
    interest: Cell<Interest>,
    /// The serial of the core it is registered with, and its key there.
    registered: Cell<Option<(u64, u64)>>,
}

impl Io {
    pub(super) fn new(fd: OwnedFd, interest: Interest) -> Io {
        Io { fd, interest: Cell::new(interest), registered: Cell::new(None) }
    }

    /// Waits until `flag` (READABLE or WRITABLE) was reported and not yet cleared. At most one task for each.
    pub(super) fn poll_ready(&self, flag: u8, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with(|core| {
            let key = self.key_for_tasks(core, flag)?;
            let mut slots = core.slots.borrow_mut();
            let Some(Source::Tasks { ready, read, write }) =
                slot_of(&mut slots, key).and_then(|s| s.source.as_mut())
            else {
                return Poll::Ready(Err(io::Error::other(
                    "the source belongs to a Readiness and cannot be awaited",
                )));
            };
            if *ready & flag != 0 {
                return Poll::Ready(Ok(()));
            }
            let place = if flag == READABLE { read } else { write };
            match place {
                Some(known) => known.clone_from(cx.waker()),
                None => *place = Some(cx.waker().clone()),
            }
            Poll::Pending
        })
    }

    /// The call said "would block": wait for the next report.
    pub(super) fn clear_ready(&self, flag: u8) {
        try_with(|core| {
            let Some((serial, key)) = self.registered.get() else { return };
            let mut slots = core.slots.borrow_mut();
            if serial == core.mailbox.serial
                && let Some(Source::Tasks { ready, .. }) =
                    slot_of(&mut slots, key).and_then(|s| s.source.as_mut())
            {
                *ready &= !flag;
            }
        });
    }

    /// Tries `call` whenever the descriptor is ready, until it does not say "would block".
    pub(super) fn poll_with<R>(
        &self,
        flag: u8,
        cx: &mut Context<'_>,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            match call(self.fd.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.clear_ready(flag),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => return Poll::Ready(result),
            }
            std::task::ready!(self.poll_ready(flag, cx))?;
        }
    }

    pub(super) fn register_token(&self, tokens: &Rc<Tokens>, token: u64) -> io::Result<()> {
        with(|core| {
            self.deregister();
            let source = Source::Token { tokens: tokens.clone(), token, flags: 0 };
            let key = core.register(self.fd.as_fd(), self.interest.get(), source)?;
            self.registered.set(Some((core.mailbox.serial, key)));
            Ok(())
        })
    }

    pub(super) fn deregister(&self) {
        if let Some(key) = self.take_key() {
            try_with(|core| {
                sys::epoll_remove(&core.epoll, self.fd.as_raw_fd());
                core.forget(key);
            });
        }
    }

    fn key_for_tasks(&self, core: &Core, flag: u8) -> io::Result<u64> {
        let wanted = match (self.interest.get(), flag) {
            (Interest::Read, WRITABLE) | (Interest::Write, READABLE) => Interest::Both,
            (same, _) => same,
        };
        match self.registered.get() {
            Some((serial, key)) if serial == core.mailbox.serial => {
                if wanted != self.interest.replace(wanted) {
                    sys::epoll_set(&core.epoll, self.fd.as_raw_fd(), wanted.mask(), key, true)?;
                }
                Ok(key)
            }
            _ => {
                self.interest.set(wanted);
                let source = Source::Tasks { ready: 0, read: None, write: None };
                let key = core.register(self.fd.as_fd(), wanted, source)?;
                self.registered.set(Some((core.mailbox.serial, key)));
                Ok(key)
            }
        }
    }

    fn take_key(&self) -> Option<u64> {
        self.registered.take().filter(|(serial, _)| current_serial() == Some(*serial)).map(|(_, key)| key)
    }
}

impl AsFd for Io {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        // Closing the descriptor takes it out of the epoll instance; the slot must be given back by hand.
        if let Some(key) = self.take_key() {
            try_with(|core| core.forget(key));
        }
    }
}
