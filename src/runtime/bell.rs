//! Between tasks of one core: a bell, rung any number of times, heard once; and turns, taken one at a time.

use std::cell::{Cell, RefCell};
use std::task::{Poll, Waker};

/// See the module. One task listens.
#[derive(Default)]
pub struct Bell {
    rung: Cell<bool>,
    listener: RefCell<Option<Waker>>,
}

impl Bell {
    /// Rings.
    pub fn ring(&self) {
        self.rung.set(true);
        if let Some(waker) = self.listener.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Waits until it has been rung since the last time it was heard.
    pub async fn heard(&self) {
        std::future::poll_fn(|cx| {
            if self.rung.take() {
                return Poll::Ready(());
            }
            *self.listener.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// One task at a time has the turn; the others wait for it.
#[derive(Default)]
pub struct Turns {
    taken: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

/// The turn, until it is dropped.
pub struct Turn<'a>(&'a Turns);

impl Turns {
    /// Waits for the turn.
    pub async fn take(&self) -> Turn<'_> {
        std::future::poll_fn(|cx| {
            if self.taken.replace(true) {
                self.waiting.borrow_mut().push(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(Turn(self))
        })
        .await
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.taken.set(false);
        // All of them: the first may be gone by now, and they are few.
        self.0.waiting.take().into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once, yield_now, zip};

    /// A registration and the deregistration after it were written by two tasks at once, and the older one could
    /// come last: the service was back after a restart.
    #[test]
    fn turns_do_not_overlap_and_a_waiter_that_leaves_holds_up_nobody() {
        let (turns, log) = (Turns::default(), RefCell::new(Vec::new()));
        let work = |name: &'static str| {
            let (turns, log) = (&turns, &log);
            async move {
                let _turn = turns.take().await;
                log.borrow_mut().push(name);
                yield_now().await;
                log.borrow_mut().push(name);
            }
        };
        block_on(async {
            let first = turns.take().await;
            let mut leaving = Box::pin(turns.take());
            assert!(poll_once(&mut leaving).await.is_none());
            drop(leaving);
            drop(first);
            zip(work("a"), work("b")).await;
        });
        assert_eq!(*log.borrow(), ["a", "a", "b", "b"]);
    }
}
