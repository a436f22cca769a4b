//! Mail for a core from other threads: wakers to wake over there, rung in by an eventfd that lies in the core's
//! epoll instance. A task's waker is woken only on its own core: drivers are cheapest and safest there.

use super::{reactor, sys};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

/// One per core; held by every channel end and every job that may have to wake a task there.
pub(super) struct Mailbox {
    /// Unique among all cores ever started in this process.
    pub(super) serial: u64,
    pub(super) eventfd: OwnedFd,
    /// At most one waker per waiting task and source. `None` once the core has ended.
    waiting: Mutex<Option<Vec<Waker>>>,
}

impl Mailbox {
    pub(super) fn new(serial: u64) -> io::Result<Mailbox> {
        Ok(Mailbox { serial, eventfd: sys::eventfd()?, waiting: Mutex::new(Some(Vec::new())) })
    }

    fn post(&self, waker: Waker) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.as_mut() {
            Some(wakers) => {
                wakers.push(waker);
                if wakers.len() == 1 {
                    sys::eventfd_raise(&self.eventfd);
                }
            }
            // The core is gone, and with it the executor that this waker would call into. Leaking is safe.
            None => std::mem::forget(waker),
        }
    }

    /// Takes all mail, leaving `spare` (empty, with its capacity) in its place.
    pub(super) fn collect(&self, spare: Vec<Waker>) -> Vec<Waker> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.as_mut() {
            Some(wakers) => std::mem::replace(wakers, spare),
            None => spare,
        }
    }

    pub(super) fn close(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The waker of a task with the core it lives on; may be woken from any thread.
pub(super) struct RemoteWaker {
    home: Option<Arc<Mailbox>>,
    waker: Waker,
}

impl RemoteWaker {
    /// For the current task. Outside of any core (a test's `block_on`) the waker is woken where it is.
    pub(super) fn here(waker: &Waker) -> RemoteWaker {
        RemoteWaker { home: reactor::try_with(|core| core.mailbox.clone()), waker: waker.clone() }
    }

    /// For a task that is known to live on `home`.
    pub(super) fn to(home: Arc<Mailbox>, waker: Waker) -> RemoteWaker {
        RemoteWaker { home: Some(home), waker }
    }

    /// Replaces the content of `slot` unless it wakes the same task already.
    pub(super) fn set(slot: &mut Option<RemoteWaker>, waker: &Waker) {
        if !slot.as_ref().is_some_and(|known| known.waker.will_wake(waker)) {
            *slot = Some(RemoteWaker::here(waker));
        }
    }

    pub(super) fn wake(self) {
        match &self.home {
            Some(home) if reactor::current_serial() != Some(home.serial) => home.post(self.waker),
            _ => self.waker.wake(),
        }
    }
}
