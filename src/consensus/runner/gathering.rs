//! When many write at once, the writes of a moment are taken together: each batch costs a write to the disk, a message to each
//! server and a waking of several threads, however few are in it. A batch waits at most as long as the disk takes for one, so
//! that no write takes more than about twice the time; when few write, none waits.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::Proposal;
use crate::runtime::time::Sleep;

/// From how many in a batch on the next one is waited for. With fewer writers there is little to be gathered.
const MANY: usize = 4;
/// The longest wait: on slow disks enough writes come together by themselves.
const WAIT_MAX: Duration = Duration::from_micros(500);

/// Until when the next batch is gathered.
#[derive(Default)]
pub(super) struct Gathering {
    until: Option<Pin<Box<Sleep>>>,
}

impl Gathering {
    /// Ready when a batch may be taken.
    pub fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        if let Some(until) = &mut self.until
            && until.deadline() > now
            && until.as_mut().poll(cx).is_pending()
        {
            return Poll::Pending;
        }
        self.until = None;
        Poll::Ready(())
    }

    /// A batch was taken. `write` is the time that the disk took for the last one; alone, a server takes no batch before that is over, so
    /// the wait comes on top of it.
    pub fn took(&mut self, jobs: usize, now: Instant, write: Duration, alone: bool) {
        if jobs >= MANY {
            let wait = write.min(WAIT_MAX);
            let until = now + wait + if alone { write } else { Duration::ZERO };
            self.until = Some(Box::pin(Sleep::until(until)));
        }
    }
}

/// How long writes of agents are gathered behind the first: nobody waits for them as somebody waits for a key, and when a
/// thousand agents have something to tell at once, that is a handful of batches.
const LAZY_WAIT: Duration = Duration::from_millis(50);

/// Writes of agents, which are taken at once when there was none for a while, and together with those of the next moment else.
/// It holds as many as the runner lets in.
#[derive(Default)]
pub(super) struct Lazy {
    held: Vec<Proposal>,
    /// When those that are held are taken; while it is set, more are held.
    until: Option<Pin<Box<Sleep>>>,
}

impl Lazy {
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Takes a write in; gives it back if it is to be taken at once.
    pub fn take(&mut self, cx: &mut Context<'_>, proposal: Proposal, now: Instant) -> Option<Proposal> {
        if self.until.is_some() {
            self.held.push(proposal);
            return None;
        }
        self.wait(cx, now);
        Some(proposal)
    }

    /// Those whose time has come.
    pub fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Vec<Proposal> {
        let Some(until) = &mut self.until else { return Vec::new() };
        if until.deadline() > now && until.as_mut().poll(cx).is_pending() {
            return Vec::new();
        }
        self.until = None;
        let due = std::mem::take(&mut self.held);
        if !due.is_empty() {
            self.wait(cx, now);
        }
        due
    }

    fn wait(&mut self, cx: &mut Context<'_>, now: Instant) {
        let mut until = Box::pin(Sleep::until(now + LAZY_WAIT));
        // To be woken then.
        let _ = until.as_mut().poll(cx);
        self.until = Some(until);
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::FutureExt;

    use super::*;
    use crate::runtime::cores::{self, Driver};
    use crate::runtime::time;

    #[test]
    fn only_many_writers_wait_for_each_other_and_not_for_long() {
        cores::run(Driver::Epoll, 1, |_| {
            async {
                let mut gathering = Gathering::default();
                let begun = time::now();
                gathering.took(MANY - 1, begun, Duration::from_secs(1), true);
                assert!(std::future::poll_fn(|cx| Poll::Ready(gathering.poll(cx, begun))).await.is_ready());
                gathering.took(MANY, begun, Duration::from_secs(1), false);
                assert!(std::future::poll_fn(|cx| Poll::Ready(gathering.poll(cx, begun))).await.is_pending());
                std::future::poll_fn(|cx| gathering.poll(cx, time::now())).await;
                let waited = time::now() - begun;
                assert!(waited >= WAIT_MAX && waited < Duration::from_secs(1), "{waited:?}");
            }
            .boxed_local()
        })
        .expect("the core runs to its end");
    }
}
