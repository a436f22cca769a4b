//! The first driver: glommio runs the tasks; its ring waits for the core's epoll instance.

use super::cores::StartError;
use super::reactor::Core;
use super::{task, time};
use futures_lite::io::AsyncRead;
use glommio::net::TcpStream;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};
use std::future::Future;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How long tasks may run before glommio looks at its rings, where only kicks come from: [`drive`] looks for all else among the
/// tasks' turns. Its default is 100 ms. Shorter costs system calls, and makes it likelier that a thread loses its CPU for as
/// long between glommio's arming of this timer and its first task, and is then put to sleep with tasks ready (see `watchdog`).
const PREEMPT_AFTER: Duration = Duration::from_millis(10);
/// Registered memory for glommio's own file I/O, which we do not use. Its default is 10 MiB, pinned.
const IO_MEMORY: usize = 64 * 1024;
const RING_DEPTH: usize = 128;
/// A sleep through the ring costs a dozen system calls, one in the epoll instance itself a single one. So while events follow
/// each other within this time, a core sleeps there until it has passed without one.
const BRISK: Duration = Duration::from_millis(1);
/// The longest of these sleeps. glommio's own affairs (a kick, its timers) wait for it; its preempt timer cuts it short, too.
const NAP_MS: i32 = 1;
/// How often all other tasks have their turn before events are looked for again, at most.
const ROUNDS_MAX: u32 = 4;
/// How often a core looks for events while no descriptor is left to wait with.
const LOOK_WITHOUT_DESCRIPTOR: Duration = Duration::from_millis(1);

/// An executor for the calling thread.
pub(super) fn make() -> Result<LocalExecutor, StartError> {
    LocalExecutorBuilder::new(Placement::Unbound)
        .preempt_timer(PREEMPT_AFTER)
        .io_memory(IO_MEMORY)
        .ring_depth(RING_DEPTH)
        .make()
        .map_err(|error| StartError::Glommio(error.to_string()))
}

/// Runs tasks until `entry` has ended.
pub(super) fn run(
    executor: &LocalExecutor,
    core: &Rc<Core>,
    entry: impl Future<Output = ()> + 'static,
) -> io::Result<()> {
    let core = core.clone();
    executor.run(async move {
        let mut entry = pin!(task::spawn(entry));
        let mut drive = pin!(drive(&core));
        std::future::poll_fn(|cx| {
            core.pulse.set_kick(cx.waker());
            if let Poll::Ready(result) = drive.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            entry.as_mut().poll(cx).map(|_| Ok(()))
        })
        .await
    })
}

/// Takes events while there are any, giving the tasks their turn in between, else waits: first for a moment in the
/// epoll instance itself if events are coming thick, then through the ring.
async fn drive(core: &Core) -> io::Result<()> {
    let mut pace = Pace { last: time::now(), brisk: false };
    loop {
        let idle = run_others(core).await;
        let napping = idle && pace.is_brisk();
        if napping {
            core.prepare_wait()?;
        }
        if core.turn(if napping { NAP_MS } else { 0 })? > 0 {
            pace.event();
        } else if idle && !napping {
            wait_through_ring(core).await?;
        }
    }
}

/// How quickly events follow each other.
struct Pace {
    last: Instant,
    brisk: bool,
}

impl Pace {
    fn event(&mut self) {
        let now = time::now();
        self.brisk = now.saturating_duration_since(self.last) < BRISK;
        self.last = now;
    }

    /// Whether the next event is likely to come soon.
    fn is_brisk(&self) -> bool {
        self.brisk && time::now().saturating_duration_since(self.last) < BRISK
    }
}

/// Gives every other task its turn until all wait, or have had several. Says whether all wait.
async fn run_others(core: &Core) -> bool {
    for _ in 0..ROUNDS_MAX {
        let steps = core.pulse.steps();
        // The queue is first in, first out: who is ready now runs before this returns.
        task::yield_now().await;
        if core.pulse.steps() == steps {
            return true;
        }
    }
    false
}

async fn wait_through_ring(core: &Core) -> io::Result<()> {
    core.prepare_wait()?;
    let Ok(mut readable) = EpollReadable::new(core) else {
        // Every descriptor the process may have is taken, by clients perhaps. They will be closed; until then
        // this core looks around now and then instead of ending, and the agent with it.
        glommio::timer::sleep(LOOK_WITHOUT_DESCRIPTOR).await;
        return Ok(());
    };
    let mut asked = false;
    std::future::poll_fn(|cx| {
        if readable.poll(cx).is_ready() {
            return Poll::Ready(io::Result::Ok(()));
        }
        // Woken for another reason, such as a kick: look, but keep the handle if there is nothing. Giving it up
        // cancels its request, and that would wake this task again, and so on for ever.
        if std::mem::replace(&mut asked, true) {
            if core.turn(0)? > 0 {
                return Poll::Ready(io::Result::Ok(()));
            }
            core.prepare_wait()?;
        }
        Poll::Pending
    })
    .await
}

/// Says when the core's epoll instance is readable.
struct EpollReadable {
    /// glommio has no public way to wait for a descriptor, but its streams ask the ring for readiness as soon as
    /// they are made. The stream is only a handle for that: it is never read, because the one read that would
    /// follow readiness fails (an epoll instance is not a socket), and that error is what we take for "ready".
    stream: TcpStream,
}

impl EpollReadable {
    fn new(core: &Core) -> io::Result<EpollReadable> {
        let copy = core.epoll.try_clone()?;
        // SAFETY: the stream becomes the only owner of the copy.
        let stream = unsafe { TcpStream::from_raw_fd(copy.into_raw_fd()) };
        Ok(EpollReadable { stream })
    }
    /// To be polled until it is ready, and then no more.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.stream).poll_read(cx, &mut [0]).map(drop)
    }
}
