//! The second driver: a small executor that waits in `epoll_wait`, for where io_uring is forbidden.

use super::mailbox::Mailbox;
use super::reactor::{self, Core};
use super::task;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

type Boxed = Pin<Box<dyn Future<Output = ()>>>;

/// Names a task for as long as it lives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct TaskId {
    index: u32,
    generation: u32,
}

/// The tasks of one core and which of them are ready.
#[derive(Default)]
pub(super) struct RunQueue {
    tasks: RefCell<Vec<Slot>>,
    free: RefCell<Vec<u32>>,
    ready: RefCell<VecDeque<TaskId>>,
    /// Where foreign threads leave wake-ups; known once the core is entered.
    mailbox: RefCell<Option<Arc<Mailbox>>>,
    /// The core has ended: what is spawned now (by destructors) is dropped at once.
    ended: Cell<bool>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    /// Taken out while it runs.
    future: Option<Boxed>,
    waker: Option<Arc<TaskWaker>>,
}

struct TaskWaker {
    id: TaskId,
    home: Arc<Mailbox>,
    queued: AtomicBool,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if reactor::current_serial() != Some(self.home.serial) {
            super::mailbox::RemoteWaker::to(self.home.clone(), self.clone().into()).wake();
        } else if !self.queued.swap(true, Ordering::Relaxed) {
            reactor::try_with(|core| {
                if let Some(queue) = &core.run_queue {
                    queue.ready.borrow_mut().push_back(self.id);
                }
            });
        }
    }
}

impl RunQueue {
    /// Tells the queue whose it is.
    pub(super) fn settle(&self, core: &Core) {
        self.mailbox.replace(Some(core.mailbox.clone()));
    }

    pub(super) fn spawn(&self, future: Boxed) -> TaskId {
        if self.ended.get() {
            return TaskId { index: u32::MAX, generation: 0 };
        }
        let home = self.mailbox.borrow().clone().expect("tasks are spawned inside cores::run only");
        let mut tasks = self.tasks.borrow_mut();
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
            tasks.push(Slot::default());
            u32::try_from(tasks.len() - 1).expect("memory holds fewer than 2^32 tasks")
        });
        let slot = &mut tasks[index as usize];
        let id = TaskId { index, generation: slot.generation };
        slot.future = Some(future);
        slot.waker = Some(Arc::new(TaskWaker { id, home, queued: AtomicBool::new(true) }));
        self.ready.borrow_mut().push_back(id);
        id
    }

    /// Drops a task. One that cancels itself is dropped when its current step ends.
    pub(super) fn cancel(&self, id: TaskId) {
        drop(self.remove(id));
    }

    fn remove(&self, id: TaskId) -> Option<Boxed> {
        let mut tasks = self.tasks.borrow_mut();
        let slot = tasks.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)?;
        slot.generation = slot.generation.wrapping_add(1);
        slot.waker = None;
        self.free.borrow_mut().push(id.index);
        slot.future.take()
    }

    /// Runs one task for one step.
    fn step(&self, id: TaskId) {
        let Some((mut future, waker)) = self.take(id) else { return };
        waker.queued.store(false, Ordering::Relaxed);
        let waker: Waker = waker.into();
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(()) => {
                self.remove(id);
            }
            Poll::Pending => {
                let mut tasks = self.tasks.borrow_mut();
                let slot = tasks.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation);
                match slot {
                    Some(slot) => slot.future = Some(future),
                    // Cancelled meanwhile; its destructor may use the queue.
                    None => drop(tasks),
                }
            }
        }
    }

    fn take(&self, id: TaskId) -> Option<(Boxed, Arc<TaskWaker>)> {
        let mut tasks = self.tasks.borrow_mut();
        let slot = tasks.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)?;
        Some((slot.future.take()?, slot.waker.clone()?))
    }

    fn clear(&self) {
        self.ended.set(true);
        let tasks = self.tasks.take();
        self.ready.borrow_mut().clear();
        drop(tasks);
    }
}

/// Runs tasks until `entry` has ended.
pub(super) fn run(
    core: &Core,
    queue: &RunQueue,
    entry: impl Future<Output = ()> + 'static,
) -> io::Result<()> {
    let entry = task::spawn(entry);
    while !entry.is_done() {
        let round = queue.ready.borrow().len();
        for _ in 0..round {
            let Some(id) = queue.ready.borrow_mut().pop_front() else { break };
            queue.step(id);
        }
        let idle = queue.ready.borrow().is_empty() && !entry.is_done();
        if idle {
            core.prepare_wait()?;
        }
        core.turn(if idle { -1 } else { 0 })?;
    }
    queue.clear();
    Ok(())
}
