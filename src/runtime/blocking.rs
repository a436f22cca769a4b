//! A small pool of plain threads for what can only be done blocking: name resolution, files.

use super::mesh::{OneSender, oneshot};
use super::task::panic_text;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

/// Threads at most; they are started when needed, and then stay.
pub const THREADS_MAX: usize = 6;
/// Jobs that may wait for a thread; further callers wait until there is room.
pub const QUEUE_MAX: usize = 1024;
/// Name resolution of the C library wants some stack.
const STACK: usize = 512 * 1024;

/// The job panicked (which was logged), or no thread could be started for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Panicked;

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a blocking job did not finish: it panicked or no thread could be started (see the log)")
    }
}

impl std::error::Error for Panicked {}

/// Runs `job` on a thread of the pool. Dropping the future does not stop a job that has begun.
///
/// # Errors
/// The job panicked.
pub async fn run<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Result<T, Panicked> {
    let (sender, receiver) = oneshot();
    let mut job: Option<Job> = Some(Box::new(move || match catch_unwind(AssertUnwindSafe(job)) {
        // Nobody waits any more: the output is dropped.
        Ok(output) => drop(sender.send(output)),
        Err(panic) => tracing::error!("a blocking job panicked: {}", panic_text(&*panic)),
    }));
    while let Some(waiting) = job.take() {
        let (room, freed) = oneshot();
        job = POOL.offer(waiting, room);
        if job.is_some() {
            freed.await;
        }
    }
    receiver.await.ok_or(Panicked)
}

type Job = Box<dyn FnOnce() + Send>;

struct Pool {
    state: Mutex<State>,
    work: Condvar,
}

struct State {
    jobs: VecDeque<Job>,
    /// Callers that found the queue full; each is told once, by dropping its sender.
    blocked: VecDeque<OneSender<()>>,
    threads: usize,
    idle: usize,
}

static POOL: Pool = Pool {
    state: Mutex::new(State { jobs: VecDeque::new(), blocked: VecDeque::new(), threads: 0, idle: 0 }),
    work: Condvar::new(),
};

impl Pool {
    /// Gives the job back if the queue is full; then `room` is dropped when there is some.
    fn offer(&'static self, job: Job, room: OneSender<()>) -> Option<Job> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.jobs.len() >= QUEUE_MAX {
            state.blocked.push_back(room);
            return Some(job);
        }
        state.jobs.push_back(job);
        if state.idle < state.jobs.len() && state.threads < THREADS_MAX {
            let started =
                thread::Builder::new().name("muster-blocking".into()).stack_size(STACK).spawn(|| self.work());
            match started {
                Ok(_) => state.threads += 1,
                Err(error) => {
                    tracing::error!("cannot start a thread for blocking jobs: {error}");
                    if state.threads == 0 {
                        // Nobody would ever run them: dropping a job tells its caller.
                        let jobs = std::mem::take(&mut state.jobs);
                        drop(state);
                        drop(jobs);
                        return None;
                    }
                }
            }
        }
        drop(state);
        self.work.notify_one();
        None
    }

    fn work(&self) {
        loop {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            while state.jobs.is_empty() {
                state.idle += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
            let job = state.jobs.pop_front();
            let freed = state.blocked.pop_front();
            drop(state);
            drop(freed);
            if let Some(job) = job {
                job();
            }
        }
    }
}
