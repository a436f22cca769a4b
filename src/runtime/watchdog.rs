//! One plain thread that looks after the cores.
//!
//! *The kicker.* glommio 0.9 can put a core to sleep while tasks are ready to run. So a core that was seen to run is woken once
//! more when it rests, and one with events that lie unfetched at each look. While any of them runs looks are [`LOOK_EVERY`] apart,
//! which bounds the stall; when all are quiet the thread sleeps until one of them runs again, at most [`LOOK_QUIET`].
//! A core that was put to sleep before its very first task ran has no waker yet: a signal ends its wait.
//!
//! *The watchdog.* A core that does not answer for [`UNRESPONSIVE_AFTER`] is named in the log: some task computes
//! or blocks there.
//!
//! And since it looks around anyway, it sees when the program [has grown](Growth).

use super::mailbox::Mailbox;
use super::memory::Growth;
use super::{sys, time};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Waker;
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How often the cores are looked at while any of them runs.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often when all are quiet.
pub const LOOK_QUIET: Duration = Duration::from_secs(2);
/// After how many looks without a change the cores count as quiet.
const QUIET_LOOKS: u32 = 2;
/// When a silent core is named in the log.
pub const UNRESPONSIVE_AFTER: Duration = Duration::from_secs(2);
const STACK: usize = 128 * 1024;

/// The signs of life of one core, written by it and read by the watchdog.
#[derive(Default)]
pub(super) struct Pulse {
    steps: AtomicU64,
    asked: AtomicU64,
    answered: AtomicU64,
    /// Wakes the core's driver whatever state it is in (glommio only).
    kick: Mutex<Option<Waker>>,
    watch: Arc<Watch>,
}

/// What the cores share with the watchdog's thread.
#[derive(Default)]
pub(super) struct Watch {
    asleep: AtomicBool,
    stop: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Pulse {
    pub(super) fn new(watch: &Arc<Watch>) -> Pulse {
        Pulse { watch: watch.clone(), ..Pulse::default() }
    }

    /// A task made a step. Only the core itself writes, so no atomic addition is needed.
    pub(super) fn step(&self) {
        self.steps.store(self.steps.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        if self.watch.asleep.load(Ordering::Relaxed) {
            self.watch.rouse();
        }
    }

    /// How many steps tasks have made so far.
    pub(super) fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// The driver had its turn.
    pub(super) fn answer(&self) {
        self.answered.store(self.asked.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Keeps the driver's waker for kicks.
    pub(super) fn set_kick(&self, waker: &Waker) {
        let mut kick = self.kick.lock().unwrap_or_else(PoisonError::into_inner);
        if kick.is_none() {
            *kick = Some(waker.clone());
        }
    }

    /// Gives the driver's waker back, before its executor ends.
    pub(super) fn clear_kick(&self) {
        self.kick.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Watch {
    fn rouse(&self) {
        self.asleep.store(false, Ordering::Relaxed);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// One core as the watchdog sees it.
pub(super) struct Patient {
    pub(super) core: u32,
    /// As [`sys::interrupt`] knows it.
    pub(super) thread: libc::pid_t,
    pub(super) pulse: Arc<Pulse>,
    pub(super) mailbox: Arc<Mailbox>,
    /// Stays open until [`Watchdog::stop`] returned.
    pub(super) epoll: RawFd,
}

/// The running thread.
pub(super) struct Watchdog {
    watch: Arc<Watch>,
    thread: JoinHandle<()>,
}

impl Watchdog {
    pub(super) fn start(watch: Arc<Watch>, patients: Vec<Patient>) -> std::io::Result<Watchdog> {
        let shared = watch.clone();
        let thread = thread::Builder::new()
            .name("muster-watchdog".into())
            .stack_size(STACK)
            .spawn(move || look_after(&shared, patients))?;
        // Only this place sets it.
        let _ = watch.thread.set(thread.thread().clone());
        Ok(Watchdog { watch, thread })
    }

    pub(super) fn stop(self) {
        self.watch.stop.store(true, Ordering::Relaxed);
        self.watch.rouse();
        if self.thread.join().is_err() {
            tracing::error!("the watchdog's thread panicked");
        }
    }
}

fn look_after(watch: &Watch, patients: Vec<Patient>) {
    let mut charts: Vec<Chart> = patients.into_iter().map(Chart::new).collect();
    let mut quiet = 0;
    let mut growth = Growth::default();
    while !watch.stop.load(Ordering::Relaxed) {
        let now = time::now();
        growth.look(now);
        let moved = charts.iter_mut().fold(false, |moved, chart| chart.look(now) | moved);
        quiet = if moved { 0 } else { quiet + 1 };
        let sleep = quiet >= QUIET_LOOKS;
        watch.asleep.store(sleep, Ordering::Relaxed);
        if sleep {
            thread::park_timeout(LOOK_QUIET);
            watch.asleep.store(false, Ordering::Relaxed);
            // A rouse means that a core just began to run: look at it when it has had its time.
            if !watch.stop.load(Ordering::Relaxed) {
                thread::sleep(LOOK_EVERY);
            }
        } else {
            thread::park_timeout(LOOK_EVERY);
        }
    }
}

/// What is known of one core from look to look.
struct Chart {
    patient: Patient,
    steps: u64,
    asked: u64,
    /// Since when it owes an answer.
    owing: Option<Instant>,
    /// When it was kicked last.
    kicked: Option<Instant>,
    /// It was kicked since it came to rest.
    settled: bool,
    named: bool,
}

impl Chart {
    fn new(patient: Patient) -> Chart {
        Chart { patient, steps: 0, asked: 0, owing: None, kicked: None, settled: false, named: false }
    }

    /// Kicks the core if it may sleep with work to do. Returns whether it needs to be looked at again soon.
    fn look(&mut self, now: Instant) -> bool {
        let steps = self.patient.pulse.steps.load(Ordering::Relaxed);
        let moved = steps != self.steps;
        self.steps = steps;
        self.diagnose(now);
        let unborn = steps == 0;
        let waits = unborn || sys::is_readable(self.patient.epoll) || self.owing.is_some();
        // A quiet one now and then, too: it may have been put to sleep with its very first task not yet run, and then nothing that
        // could be seen from here ever moves.
        let rested = self.kicked.is_none_or(|kicked| now.saturating_duration_since(kicked) >= LOOK_QUIET);
        if waits || rested || !(moved || self.settled) {
            self.kick(now);
            self.kicked = Some(now);
        }
        self.settled = !moved;
        moved || waits
    }

    fn diagnose(&mut self, now: Instant) {
        if self.patient.pulse.answered.load(Ordering::Relaxed) == self.asked {
            if std::mem::take(&mut self.named) {
                tracing::warn!("core {} answers again", self.patient.core);
            }
            self.owing = None;
        } else if let Some(since) = self.owing
            && now.saturating_duration_since(since) >= UNRESPONSIVE_AFTER
            && !std::mem::replace(&mut self.named, true)
        {
            let core = self.patient.core;
            tracing::warn!(
                "core {core} has not answered for {UNRESPONSIVE_AFTER:?}: a task blocks or computes there"
            );
        }
    }

    fn kick(&mut self, now: Instant) {
        let overdue = self.owing.is_some();
        if !overdue {
            self.asked += 1;
            self.patient.pulse.asked.store(self.asked, Ordering::Relaxed);
            self.owing = Some(now);
        }
        let kick = self.patient.pulse.kick.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kick {
            Some(waker) => waker.wake_by_ref(),
            None => sys::eventfd_raise(&self.patient.mailbox.eventfd),
        }
        if kick.is_none() && self.steps == 0 && overdue {
            sys::interrupt(self.patient.thread);
        }
    }
}
