//! Starting and ending the cores: one thread with one executor each.

use super::preflight::{self, Refusal};
use super::reactor::{self, Core};
use super::watchdog::{Patient, Pulse, Watch, Watchdog};
use super::{driver_epoll, driver_glommio, mesh, sys};
use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::{Context, Poll};
use std::thread;

/// A future that stays on its core.
pub type LocalBoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// The number of a core, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CoreId(pub u32);

/// Who runs the tasks of a core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Driver {
    /// glommio, over io_uring.
    Glommio,
    /// Our own small executor, over epoll alone.
    Epoll,
}

impl Driver {
    /// The driver to use: the requested one, or without a request glommio if the kernel lets us, else epoll, with
    /// one line in the log that says why and what to do.
    ///
    /// # Errors
    /// glommio was requested and io_uring is refused.
    pub fn choose(requested: Option<Driver>) -> Result<Driver, StartError> {
        match (requested, preflight::probe_io_uring()) {
            (Some(Driver::Epoll), _) => Ok(Driver::Epoll),
            (_, Ok(())) => Ok(Driver::Glommio),
            (Some(Driver::Glommio), Err(refusal)) => Err(StartError::Refused(refusal)),
            (None, Err(refusal)) => {
                tracing::warn!("running on epoll because io_uring cannot be used: {refusal}");
                Ok(Driver::Epoll)
            }
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Driver::Glommio => "glommio",
            Driver::Epoll => "epoll",
        })
    }
}

/// Why the cores did not start, or ended badly.
#[derive(Debug)]
pub enum StartError {
    /// glommio was asked for and io_uring is refused.
    Refused(Refusal),
    /// glommio did not start although io_uring seemed usable.
    Glommio(String),
    /// A thread or a descriptor was refused.
    Io(io::Error),
    /// The entry task, or the driver itself, of a core panicked (which was logged).
    Panicked(CoreId),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Refused(refusal) => {
                write!(
                    f,
                    "-runtime=glommio cannot be served because io_uring cannot be used: {refusal}; or leave the flag out to run on epoll"
                )
            }
            StartError::Glommio(error) => write!(f, "glommio did not start: {error}; use -runtime=epoll"),
            StartError::Io(error) => write!(f, "cannot start the cores: {error}"),
            StartError::Panicked(core) => write!(f, "core {} ended by a panic", core.0),
        }
    }
}

impl std::error::Error for StartError {}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        StartError::Io(error)
    }
}

/// How many CPUs this process may use, at least 1; on a core, too, which is pinned to one.
pub fn available() -> usize {
    sys::allowed_cpus().len().max(1)
}

/// Runs `entry` once on each of `cores` cores (at least one) and returns when all of these futures have ended;
/// whatever other tasks are still running are then dropped.
///
/// # Errors
/// A core could not start (then none runs its entry), or its entry panicked.
pub fn run<E>(driver: Driver, cores: usize, entry: E) -> Result<(), StartError>
where
    E: Fn(CoreId) -> LocalBoxFuture<'static, ()> + Send + Clone + 'static,
{
    let cores = u32::try_from(cores.clamp(1, 1024)).expect("clamped above");
    let cpus = if cores > 1 { sys::allowed_cpus() } else { Vec::new() };
    sys::allow_interrupts()?;
    let watch = Arc::new(Watch::default());
    let (report, reports) = mpsc::sync_channel(cores as usize);
    let mut threads = Vec::new();
    for id in (0..cores).map(CoreId) {
        let cpu = if cpus.len() >= cores as usize { Some(cpus[id.0 as usize]) } else { None };
        let (go, gate) = mpsc::sync_channel(1);
        let seat = Seat { id, cpu, pulse: Arc::new(Pulse::new(&watch)), report: report.clone(), gate };
        let entry = entry.clone();
        let thread = thread::Builder::new()
            .name(format!("muster-core-{}", id.0))
            .spawn(move || seat.run(driver, entry))?;
        threads.push((id, go, thread));
    }
    drop(report);
    let watchdog = open_gates(watch, &reports, &threads);
    let ended = threads.into_iter().map(|(id, go, thread)| {
        drop(go);
        thread.join().unwrap_or(Err(StartError::Panicked(id)))
    });
    // All are joined before the first error is returned.
    let ended: Vec<Result<(), StartError>> = ended.collect();
    if let Some(watchdog) = watchdog? {
        watchdog.stop();
    }
    ended.into_iter().collect()
}

type Running = (CoreId, mpsc::SyncSender<()>, thread::JoinHandle<Result<(), StartError>>);

/// Lets the cores go when every one of them is ready; if one failed, none goes.
fn open_gates(
    watch: Arc<Watch>,
    reports: &mpsc::Receiver<Patient>,
    threads: &[Running],
) -> io::Result<Option<Watchdog>> {
    let patients: Vec<Patient> = reports.iter().take(threads.len()).collect();
    if patients.len() < threads.len() {
        return Ok(None);
    }
    let watchdog = Watchdog::start(watch, patients)?;
    for (_, go, _) in threads {
        // A core that is gone by now is reported when it is joined.
        let _ = go.send(());
    }
    Ok(Some(watchdog))
}

/// What a core's thread is given.
struct Seat {
    id: CoreId,
    cpu: Option<usize>,
    pulse: Arc<Pulse>,
    report: mpsc::SyncSender<Patient>,
    gate: mpsc::Receiver<()>,
}

impl Seat {
    fn run<E>(self, driver: Driver, entry: E) -> Result<(), StartError>
    where
        E: Fn(CoreId) -> LocalBoxFuture<'static, ()> + 'static,
    {
        if let Some(cpu) = self.cpu {
            sys::pin_to(cpu);
        }
        let id = self.id;
        let panicked = Rc::new(Cell::new(true));
        let flag = panicked.clone();
        let main = async move {
            entry(id).await;
            flag.set(false);
        };
        match driver {
            Driver::Glommio => {
                let executor = driver_glommio::make()?;
                let Some(core) = self.enter(None)? else { return Ok(()) };
                let result = driver_glommio::run(&executor, &core, main);
                core.pulse.clear_kick();
                drop(executor);
                core.leave();
                result?;
            }
            Driver::Epoll => {
                let queue = Rc::new(driver_epoll::RunQueue::default());
                let Some(core) = self.enter(Some(queue.clone()))? else { return Ok(()) };
                queue.settle(&core);
                let result = driver_epoll::run(&core, &queue, main);
                core.leave();
                result?;
            }
        }
        if panicked.get() { Err(StartError::Panicked(id)) } else { Ok(()) }
    }

    /// Becomes a core and waits until all others did. `None` when one of them failed.
    fn enter(self, queue: Option<Rc<driver_epoll::RunQueue>>) -> io::Result<Option<Rc<Core>>> {
        let core = Core::enter(self.id, self.pulse, queue)?;
        let epoll: RawFd = core.epoll.as_raw_fd();
        let patient = Patient {
            core: self.id.0,
            thread: sys::thread_id(),
            pulse: core.pulse.clone(),
            mailbox: core.mailbox.clone(),
            epoll,
        };
        // A failed start drops the receiver, and then the gate says so too.
        let _ = self.report.send(patient);
        drop(self.report);
        if self.gate.recv().is_err() {
            core.leave();
            return Ok(None);
        }
        Ok(Some(core))
    }
}

/// The core this is called on.
///
/// # Panics
/// Outside of [`run`].
pub fn current() -> CoreId {
    reactor::with(|core| core.id)
}

/// This core, or `None` on a thread that is none.
pub fn try_current() -> Option<CoreId> {
    reactor::try_with(|core| core.id)
}

/// One value for each core, made before they start and taken by them.
pub struct PerCore<T>(Arc<Mutex<Vec<Option<T>>>>);

impl<T> PerCore<T> {
    /// The first value is for core 0, and so on.
    pub fn new(values: impl IntoIterator<Item = T>) -> PerCore<T> {
        PerCore(Arc::new(Mutex::new(values.into_iter().map(Some).collect())))
    }

    /// This core's value; `None` if there is none or it was taken before.
    pub fn take(&self, core: CoreId) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(core.0 as usize)?.take()
    }
}

impl<T> Clone for PerCore<T> {
    fn clone(&self) -> Self {
        PerCore(self.0.clone())
    }
}

/// A flag that is raised once and that any task on any core can await: the order to stop.
#[derive(Clone, Default)]
pub struct Shutdown(Arc<Mutex<ShutdownState>>);

#[derive(Default)]
struct ShutdownState {
    raised: bool,
    /// One for each task that waits; gone when it drops its wait.
    waiting: Vec<mesh::OneSender<()>>,
}

impl Shutdown {
    /// A flag that is down.
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    /// Raises the flag and wakes all who wait for it.
    pub fn raise(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.raised = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        // Dropping a sender wakes its receiver.
        drop(waiting);
    }

    /// Whether it was raised.
    pub fn is_raised(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).raised
    }

    /// Waits until it is raised.
    pub async fn raised(&self) {
        let receiver = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if state.raised {
                return;
            }
            state.waiting.retain(|waiting| !waiting.is_closed());
            let (sender, receiver) = mesh::oneshot();
            state.waiting.push(sender);
            receiver
        };
        receiver.await;
    }
}

/// Waits for whichever ends first; the other is dropped. `Err` is the second one's output.
pub async fn either<A: Future, B: Future>(first: A, second: B) -> Result<A::Output, B::Output> {
    let mut first = std::pin::pin!(first);
    let mut second = std::pin::pin!(second);
    std::future::poll_fn(|cx: &mut Context<'_>| {
        if let Poll::Ready(output) = first.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        second.as_mut().poll(cx).map(Err)
    })
    .await
}
