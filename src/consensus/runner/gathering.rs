//! When many write at once, the writes of a moment are taken together: each batch costs a write to the disk, a message to each
//! server and a waking of several threads, however few are in it. A batch waits about as long as one takes to be committed, so
//! that no write takes more than about twice the time; when few write, none waits.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use muster_protocol::entry::ServerId;
use muster_protocol::rpc::message::Forwarded;

use super::{BATCH_MAX, Proposal};
use crate::runtime::time::Sleep;

/// From how many in a batch on the next one is waited for. With fewer writers there is little to be gathered.
const MANY: usize = 3;
/// The longest wait: on slow disks enough writes come together by themselves.
const WAIT_MAX: Duration = Duration::from_micros(500);
/// The shortest wait where others have to take a write in, too: to them and back it takes as long on a network of one building.
/// Measured with 32 writers and three servers, on a busy machine: a tenth to a fifth less CPU a write, and more writes a second.
const WAIT_MIN: Duration = Duration::from_micros(400);

/// Until when the next batch is gathered.
#[derive(Default)]
pub(super) struct Gathering {
    until: Option<Pin<Box<Sleep>>>,
    /// What other servers have sent on, to be taken with the next batch: what each of them has gathered would else be
    /// a batch of its own.
    forwarded: Vec<(ServerId, Vec<Forwarded>)>,
    /// How many writes that is.
    writes: usize,
}

impl Gathering {
    /// Ready when a batch may be taken.
    pub fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        if let Some(until) = &mut self.until
            && until.deadline() > now
            && self.writes < BATCH_MAX
            && until.as_mut().poll(cx).is_pending()
        {
            return Poll::Pending;
        }
        self.until = None;
        Poll::Ready(())
    }

    /// Another server has sent writes on.
    pub fn forwarded(&mut self, from: ServerId, writes: Vec<Forwarded>) {
        self.writes += writes.len();
        self.forwarded.push((from, writes));
    }

    /// What other servers have sent on since it was taken last, in order.
    pub fn take_forwarded(&mut self) -> Vec<(ServerId, Vec<Forwarded>)> {
        self.writes = 0;
        std::mem::take(&mut self.forwarded)
    }

    /// A batch was taken. `write` is the time that the disk took for the last one; alone, a server takes no batch before that is over, so
    /// the wait comes on top of it.
    pub fn took(&mut self, jobs: usize, now: Instant, write: Duration, alone: bool) {
        if jobs >= MANY {
            let wait = if alone { write.min(WAIT_MAX) + write } else { write.clamp(WAIT_MIN, WAIT_MAX) };
            let until = now + wait;
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
    fn what_others_send_waits_with_the_rest_unless_it_is_a_batch_by_itself() {
        let writes = |count| vec![Forwarded { token: 1, body: bytes::Bytes::new() }; count];
        cores::run(Driver::Epoll, 1, move |_| {
            async move {
                let mut gathering = Gathering::default();
                let begun = time::now();
                gathering.took(MANY, begun, Duration::from_secs(1), false);
                gathering.forwarded(ServerId([1; 16]), writes(2));
                assert!(std::future::poll_fn(|cx| Poll::Ready(gathering.poll(cx, begun))).await.is_pending());
                gathering.forwarded(ServerId([2; 16]), writes(BATCH_MAX));
                assert!(std::future::poll_fn(|cx| Poll::Ready(gathering.poll(cx, begun))).await.is_ready());
                let taken = gathering.take_forwarded();
                assert_eq!(taken.iter().map(|(from, _)| from.0[0]).collect::<Vec<_>>(), [1, 2]);
                assert!(gathering.take_forwarded().is_empty());
            }
            .boxed_local()
        })
        .expect("the core runs to its end");
    }

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
