//! Two small pools of plain threads for what can only be done blocking. One is for files and the like. The other is for
//! name resolution alone: a resolver that hangs keeps its threads for many seconds, and checks with host names ask it
//! all the time; no registration may wait behind them to be written.

use super::mesh::{OneSender, oneshot};
use super::sys;
use super::task::panic_text;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

/// Threads of a pool at most; they are started when needed, and then stay.
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

/// Runs `job` on a thread of the pool for files. Dropping the future does not stop a job that has begun.
///
/// # Errors
/// The job panicked.
pub async fn run<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Result<T, Panicked> {
    run_on(&FILES, job, false).await
}

/// Runs a long `job` on a thread of its own that gives way to all others: beside it, requests are answered as ever. Whoever
/// waits for something of it learns of a panic by what it drops.
///
/// # Errors
/// The thread does not start; the job is dropped.
pub fn run_beside(name: &str, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let work = move || {
        sys::unpin();
        sys::give_way();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(job)) {
            tracing::error!("a job beside the others panicked: {}", panic_text(&*panic));
        }
    };
    thread::Builder::new().name(name.into()).stack_size(STACK).spawn(work).map(drop)
}

/// Runs `job` on the pool for name resolution; a job that nobody waits for any more when its turn comes is not begun.
///
/// # Errors
/// The job panicked.
pub(super) async fn resolve<T: Send + 'static>(
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Panicked> {
    run_on(&NAMES, job, true).await
}

async fn run_on<T: Send + 'static>(
    pool: &'static Pool,
    job: impl FnOnce() -> T + Send + 'static,
    only_if_awaited: bool,
) -> Result<T, Panicked> {
    let (sender, receiver) = oneshot();
    let mut job: Option<Job> = Some(Box::new(move || {
        if only_if_awaited && sender.is_closed() {
            return;
        }
        match catch_unwind(AssertUnwindSafe(job)) {
            // Nobody waits any more: the output is dropped.
            Ok(output) => drop(sender.send(output)),
            Err(panic) => tracing::error!("a blocking job panicked: {}", panic_text(&*panic)),
        }
    }));
    while let Some(waiting) = job.take() {
        let (room, freed) = oneshot();
        job = pool.offer(waiting, room);
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

impl State {
    /// Those to tell that there is room: one who still waits, or everybody when no job is left whose end could tell
    /// them later (the one told may have left meanwhile).
    fn freed(&mut self) -> VecDeque<OneSender<()>> {
        if self.jobs.is_empty() {
            return std::mem::take(&mut self.blocked);
        }
        while let Some(caller) = self.blocked.pop_front() {
            if !caller.is_closed() {
                return [caller].into();
            }
        }
        VecDeque::new()
    }
}

static FILES: Pool = Pool::new();
static NAMES: Pool = Pool::new();

impl Pool {
    const fn new() -> Pool {
        let state = State { jobs: VecDeque::new(), blocked: VecDeque::new(), threads: 0, idle: 0 };
        Pool { state: Mutex::new(state), work: Condvar::new() }
    }

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
        sys::unpin();
        loop {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            while state.jobs.is_empty() {
                state.idle += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
            let job = state.jobs.pop_front();
            let freed = state.freed();
            drop(state);
            drop(freed);
            if let Some(job) = job {
                job();
            }
        }
    }
}
