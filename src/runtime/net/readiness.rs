//! Token mode: one task (a reactor) that is told which of its many sockets have news.

use crate::runtime::reactor::{self, HANGUP, Io, READABLE, WRITABLE};
use crate::runtime::time::{self, Sleep};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Instant;

/// News of one source. Edge-triggered: read (write, accept) until it says "would block", or the rest is not told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// As given at registration.
    pub token: u64,
    /// Input arrived, or its end, or an error.
    pub readable: bool,
    /// There is room to write again, or an error.
    pub writable: bool,
    /// The other side closed at least its sending half, or the socket failed.
    pub hangup: bool,
}

/// Something that can be registered with a [`Readiness`]: [`super::Socket`], [`super::Listener`], [`super::Udp`].
pub trait Pollable {
    /// For the runtime only.
    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn io(&self) -> &Io;
}

/// The news of one owner's sources on one core. Each source reports at most once until it is fetched.
pub struct Readiness {
    tokens: Rc<Tokens>,
}

/// Sources with news, and who wants to know.
#[derive(Default)]
pub(in crate::runtime) struct Tokens {
    /// Keys of sources whose gathered flags are not zero: at most one entry for each source.
    news: RefCell<Vec<u64>>,
    notified: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Tokens {
    pub(in crate::runtime) fn push(&self, key: u64) {
        self.news.borrow_mut().push(key);
    }

    pub(in crate::runtime) fn take_waker(&self) -> Option<Waker> {
        self.waker.borrow_mut().take()
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Readiness::new()
    }
}

impl Readiness {
    /// Without sources.
    pub fn new() -> Readiness {
        Readiness { tokens: Rc::default() }
    }

    /// Reports the source's events under `token` from now on; what is ready already is reported at once. UDP
    /// sockets report input only. A source that is dropped deregisters itself.
    ///
    /// # Errors
    /// The kernel has no room for another watch (fs.epoll.max_user_watches).
    pub fn register(&self, source: &impl Pollable, token: u64) -> io::Result<()> {
        source.io().register_token(&self.tokens, token)
    }

    /// No more events from this source, not even those that happened already.
    pub fn deregister(&self, source: &impl Pollable) {
        source.io().deregister();
    }

    /// A handle that makes `ready` return, for tasks of the same core.
    pub fn notifier(&self) -> Notifier {
        Notifier { tokens: self.tokens.clone() }
    }

    /// Waits until there are events, a notification, or the deadline has come; `out` is cleared and filled.
    pub async fn ready(&self, out: &mut Vec<Event>, deadline: Option<Instant>) {
        out.clear();
        if self.fetch(out) {
            return;
        }
        if deadline.is_some_and(|deadline| deadline <= time::now()) {
            // Even a reactor with nothing but past deadlines must let the others run.
            super::super::task::yield_now().await;
            self.fetch(out);
            return;
        }
        let mut sleep = pin!(deadline.map(Sleep::until));
        std::future::poll_fn(|cx| {
            if self.fetch(out) {
                return Poll::Ready(());
            }
            if let Some(sleep) = sleep.as_mut().as_pin_mut()
                && sleep.poll(cx).is_ready()
            {
                return Poll::Ready(());
            }
            self.tokens.waker.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Moves the news to `out`. True when there was anything, even if only a notification.
    fn fetch(&self, out: &mut Vec<Event>) -> bool {
        let notified = self.tokens.notified.take();
        let mut news = self.tokens.news.borrow_mut();
        reactor::with(|core| {
            for key in news.drain(..) {
                // A source that was closed meanwhile has no news.
                let Some((token, flags)) = core.fetch_token(key) else { continue };
                out.push(Event {
                    token,
                    readable: flags & READABLE != 0,
                    writable: flags & WRITABLE != 0,
                    hangup: flags & HANGUP != 0,
                });
            }
        });
        notified || !out.is_empty()
    }
}

/// Makes the [`Readiness::ready`] it came from return, now or when it is next awaited. Notifications do not add up.
#[derive(Clone)]
pub struct Notifier {
    tokens: Rc<Tokens>,
}

impl Notifier {
    /// Notifies.
    pub fn notify(&self) {
        if !self.tokens.notified.replace(true)
            && let Some(waker) = self.tokens.take_waker()
        {
            waker.wake();
        }
    }
}
