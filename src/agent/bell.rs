//! A bell between tasks of one core: rung any number of times, heard once.

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
