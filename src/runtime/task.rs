//! Tasks of the current core. A panic ends the task it happens in and nothing else.

use super::driver_epoll::{RunQueue, TaskId};
use super::reactor;
use super::watchdog::Pulse;
use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Starts `future` as a task on this core. It first runs at once or when the current task next waits, as the driver has it: hold nothing
/// that it wants to borrow.
///
/// # Panics
/// Outside of [`super::cores::run`].
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    let join = Rc::new(RefCell::new(Join { outcome: None, done: false, waiter: None }));
    let (queue, pulse) = reactor::with(|core| (core.run_queue.clone(), core.pulse.clone()));
    let guarded = Guarded { future, ending: Ending { join: join.clone() }, pulse };
    let handle = match queue {
        Some(queue) => {
            let id = queue.spawn(Box::pin(guarded));
            Handle::Epoll(queue, id)
        }
        None => Handle::Glommio(glommio::spawn_local(guarded)),
    };
    Task { join, handle: Some(handle) }
}

/// Lets every other task that is ready run once.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A running task. Awaiting it gives its output, or `None` if it panicked (which was logged); dropping it cancels
/// the task; [`Task::detach`] lets it run on.
#[must_use = "dropping a task cancels it: detach it or keep it"]
pub struct Task<T> {
    join: Rc<RefCell<Join<T>>>,
    handle: Option<Handle>,
}

impl<T> Task<T> {
    /// Lets the task run to its end by itself.
    pub fn detach(mut self) {
        if let Some(Handle::Glommio(task)) = self.handle.take() {
            drop(task.detach());
        }
    }

    /// Whether it has ended, by itself or by a panic.
    pub fn is_done(&self) -> bool {
        self.join.borrow().done
    }
}

impl<T> Future for Task<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut join = self.join.borrow_mut();
        if join.done {
            return Poll::Ready(join.outcome.take());
        }
        join.waiter = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        match self.handle.take() {
            Some(Handle::Epoll(queue, id)) => queue.cancel(id),
            // Dropping a glommio task cancels it.
            Some(Handle::Glommio(task)) => drop(task),
            None => {}
        }
    }
}

enum Handle {
    Glommio(glommio::Task<()>),
    Epoll(Rc<RunQueue>, TaskId),
}

struct Join<T> {
    outcome: Option<T>,
    done: bool,
    waiter: Option<Waker>,
}

/// Tells the waiter when the task ends, however it ends.
struct Ending<T> {
    join: Rc<RefCell<Join<T>>>,
}

impl<T> Ending<T> {
    fn end(&self, outcome: Option<T>) {
        let waiter = {
            let mut join = self.join.borrow_mut();
            if join.done {
                return;
            }
            join.done = true;
            join.outcome = outcome;
            join.waiter.take()
        };
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        self.end(None);
    }
}

/// The future of a task: counts its steps for the kicker, catches its panics, hands over its output.
struct Guarded<F, T> {
    future: F,
    ending: Ending<T>,
    pulse: Arc<Pulse>,
}

impl<T, F: Future<Output = T>> Future for Guarded<F, T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.pulse.step();
        // SAFETY: `future` is pinned with `self` and never moved out; `ending` and `pulse` are not pinned by anyone.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: as above.
        let future = unsafe { Pin::new_unchecked(&mut this.future) };
        match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => this.ending.end(Some(output)),
            Err(panic) => {
                tracing::error!("a task panicked and was ended: {}", panic_text(&*panic));
                this.ending.end(None);
            }
        }
        Poll::Ready(())
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "(no message)"
    }
}
