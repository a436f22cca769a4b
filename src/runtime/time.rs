//! The only clock, and sleeping by it.

use super::timers::TimerKey;
use super::{reactor, sys};
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The monotonic clock, for deadlines.
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock, since 1970 in UTC; zero if the machine's clock is set before that.
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The monotonic clock that also counts the time while the machine is suspended, since its start: for promises to others,
/// who do not sleep meanwhile.
pub fn boot_now() -> Duration {
    sys::boot_time()
}

/// How long this process has computed, on all CPUs together.
pub fn computed() -> Duration {
    sys::cpu_time()
}

/// Does nothing for a while: for programs without cores, whose only thread may wait.
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Sleeps for a time. Sleeps above 50 ms end up to 1 ms late, above 1 s up to 10 ms, above 60 s up to 100 ms:
/// they are gathered into slots. They never end early.
pub async fn sleep(duration: Duration) {
    match now().checked_add(duration) {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Sleeps until a moment; see [`sleep`].
pub async fn sleep_until(deadline: Instant) {
    Sleep::until(deadline).await;
}

/// Runs `future` for at most `limit`; `None` when that is over first (the future is dropped).
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut sleep = pin!(now().checked_add(limit).map(Sleep::until));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        match sleep.as_mut().as_pin_mut() {
            Some(sleep) => sleep.poll(cx).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await
}

/// A sleep as a value, for those who poll by hand. Dropping it cancels it.
pub struct Sleep {
    deadline: Instant,
    /// The timer and the core that has it.
    timer: Option<(u64, TimerKey)>,
}

impl Sleep {
    /// Ends at `deadline`.
    pub fn until(deadline: Instant) -> Sleep {
        Sleep { deadline, timer: None }
    }

    /// When it ends.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if now() >= self.deadline {
            return Poll::Ready(());
        }
        let deadline = self.deadline;
        reactor::with(|core| match self.timer {
            Some((_, key)) => core.set_timer_waker(key, cx.waker()),
            None => self.timer = Some((core.mailbox.serial, core.add_timer(deadline, cx.waker().clone()))),
        });
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some((serial, key)) = self.timer.take()
            && reactor::current_serial() == Some(serial)
        {
            reactor::try_with(|core| core.cancel_timer(key));
        }
    }
}
