//! Child processes: run to their end or to a limit, with bounded output, leaving nothing behind.

use super::reactor::{self, Interest, Io, READABLE, WRITABLE};
use super::{signal, sys, task, time};
use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// Bytes read from a child at once.
const READ_SIZE: usize = 16 * 1024;
/// Reads in a row before other tasks get their turn.
const READS_MAX: usize = 16;

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// The program (looked up in PATH) and its arguments.
    pub argv: Vec<OsString>,
    /// Variables to set on top of the agent's own environment.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory; `None` for the agent's own.
    pub cwd: Option<PathBuf>,
    /// What the child reads from its standard input; /dev/null if empty.
    pub stdin: Vec<u8>,
    /// After this long the child and all of its group are killed; `None` for never.
    pub timeout: Option<Duration>,
    /// How many bytes of output are kept: the last ones.
    pub output_max: usize,
}

/// How it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exit {
    /// The exit code, if it exited.
    pub code: Option<i32>,
    /// The signal, if one killed it.
    pub signal: Option<i32>,
    /// It was killed because its time was over.
    pub timed_out: bool,
    /// The last bytes of its standard output and standard error, as they came.
    pub output: Vec<u8>,
    /// How many bytes of output there were in all.
    pub total: u64,
}

/// Why a program could not be started: what an [`io::Error`] of [`run`] and [`Flow::start`] carries.
#[derive(Debug)]
pub struct CannotRun {
    /// The program, as it was named.
    pub program: OsString,
    /// What the system said.
    pub why: io::Error,
}

impl fmt::Display for CannotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot run {}: {}", self.program.display(), self.why)
    }
}

impl std::error::Error for CannotRun {}

/// Runs a child in a process group of its own and waits for its end. What its own children write after that is
/// not waited for. Dropping the future kills the group.
///
/// # Errors
/// The program could not be started; the text names it.
pub async fn run(spec: Spec) -> io::Result<Exit> {
    let mut running = Running::start(&spec)?;
    let mut timed_out = false;
    let mut timeout = spec.timeout.and_then(|limit| time::now().checked_add(limit)).map(time::Sleep::until);
    std::future::poll_fn(|cx| {
        if let Some(limit) = &mut timeout
            && Pin::new(limit).poll(cx).is_ready()
        {
            timeout = None;
            timed_out = true;
            sys::kill_group(running.child.id());
        }
        running.poll(cx)
    })
    .await?;
    let status =
        running.child.try_wait()?.ok_or_else(|| io::Error::other("the child ended without a status"))?;
    forget_child(running.child.id());
    running.ended = true;
    let output = std::mem::take(&mut running.output);
    Ok(Exit {
        code: status.code(),
        signal: status.signal(),
        timed_out,
        output: output.kept.into(),
        total: output.total,
    })
}

/// A child whose output is read as it comes, by [`Flow::next`]: who reads slowly makes it wait. Dropping it kills the
/// group.
pub struct Flow(Running);

impl Flow {
    /// Starts a child. Of the specification, the time limit and the size of the output do not count here.
    ///
    /// # Errors
    /// The program could not be started; the text names it.
    pub fn start(spec: &Spec) -> io::Result<Flow> {
        Running::start(spec).map(Flow)
    }

    /// The next piece of what it writes to standard output and standard error; `None` once it has exited and all is
    /// read.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        std::future::poll_fn(|cx| self.0.poll_piece(cx)).await
    }

    /// How it ended: its exit code, or the signal that killed it.
    ///
    /// # Errors
    /// It has not ended.
    pub fn end(mut self) -> io::Result<(Option<i32>, Option<i32>)> {
        let status = self.0.child.try_wait()?;
        let status = status.ok_or_else(|| io::Error::other("the child ended without a status"))?;
        forget_child(self.0.child.id());
        self.0.ended = true;
        Ok((status.code(), status.signal()))
    }
}

/// A child with what we hold of it.
struct Running {
    child: Child,
    exit: Io,
    pipe: Option<Io>,
    stdin: Option<(Io, VecDeque<u8>)>,
    output: Output,
    /// It was reaped.
    ended: bool,
}

impl Running {
    fn start(spec: &Spec) -> io::Result<Running> {
        let (program, arguments) = spec
            .argv
            .split_first()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no program to run"))?;
        let (reader, writer) = io::pipe()?;
        sys::set_nonblocking(reader.as_fd())?;
        let mut command = Command::new(program);
        command.args(arguments).envs(spec.env.iter().map(|(name, value)| (name, value)));
        command.stdout(writer.try_clone()?).stderr(writer).process_group(0);
        command.stdin(if spec.stdin.is_empty() { Stdio::null() } else { Stdio::piped() });
        if let Some(directory) = &spec.cwd {
            command.current_dir(directory);
        }
        let mut child = spawn_known(&mut command)
            .map_err(|why| io::Error::new(why.kind(), CannotRun { program: program.clone(), why }))?;
        // Ours of the pipe's writing ends are closed here, so that its end is the children's end.
        drop(command);
        let exit = match sys::pidfd_open(child.id()) {
            Ok(exit) => exit,
            Err(error) => {
                sys::kill_group(child.id());
                // SIGKILL is on its way: this is short, and leaves no zombie.
                let _ = child.wait();
                forget_child(child.id());
                return Err(error);
            }
        };
        let stdin = child.stdin.take().map(OwnedFd::from);
        let mut running = Running {
            child,
            exit: Io::new(exit, Interest::Read),
            pipe: Some(Io::new(reader.into(), Interest::Read)),
            stdin: None,
            output: Output { kept: VecDeque::new(), max: spec.output_max, total: 0 },
            ended: false,
        };
        if let Some(stdin) = stdin {
            sys::set_nonblocking(stdin.as_fd())?;
            running.stdin = Some((Io::new(stdin, Interest::Write), spec.stdin.iter().copied().collect()));
        }
        Ok(running)
    }

    /// Ready when the child has exited and all that it wrote is read.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_stdin(cx);
        let exited = self.exit.poll_ready(READABLE, cx)?.is_ready();
        match self.poll_output(cx) {
            // Still more: come again, even after the exit, but let others run first.
            Poll::Ready(true) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            _ if exited => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }

    /// Ready with what it has written, or with `None` when it has exited and all is read.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Vec<u8>>>> {
        self.poll_stdin(cx);
        let exited = self.exit.poll_ready(READABLE, cx)?.is_ready();
        if let Some(pipe) = &self.pipe {
            let mut buffer = [0; READ_SIZE];
            match pipe.poll_with(READABLE, cx, |fd| sys::read(fd, &mut buffer)) {
                Poll::Ready(Ok(n)) if n > 0 => return Poll::Ready(Ok(Some(buffer[..n].to_vec()))),
                Poll::Ready(_) => self.pipe = None,
                Poll::Pending => {}
            }
        }
        if exited { Poll::Ready(Ok(None)) } else { Poll::Pending }
    }

    /// Reads what there is. Ready(true) when there may be more at once, Ready(false) at the end.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let Some(pipe) = &self.pipe else { return Poll::Ready(false) };
        let mut buffer = [0; READ_SIZE];
        for _ in 0..READS_MAX {
            match std::task::ready!(pipe.poll_with(READABLE, cx, |fd| sys::read(fd, &mut buffer))) {
                Ok(0) | Err(_) => {
                    self.pipe = None;
                    return Poll::Ready(false);
                }
                Ok(n) => self.output.push(&buffer[..n]),
            }
        }
        Poll::Ready(true)
    }

    fn poll_stdin(&mut self, cx: &mut Context<'_>) {
        while let Some((pipe, rest)) = &mut self.stdin {
            let (front, _) = rest.as_slices();
            match pipe.poll_with(WRITABLE, cx, |fd| sys::write(fd, front)) {
                Poll::Pending => return,
                Poll::Ready(Ok(n)) if n < rest.len() => drop(rest.drain(..n)),
                // All written, or the child does not read (any more): that is its own business.
                Poll::Ready(_) => self.stdin = None,
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let pid = self.child.id();
        sys::kill_group(pid);
        if sys::reap(pid) {
            forget_child(pid);
        } else if reactor::try_with(|_| ()).is_some() {
            task::spawn(async move {
                while !sys::reap(pid) {
                    time::sleep(Duration::from_millis(10)).await;
                }
                forget_child(pid);
            })
            .detach();
        }
    }
}

/// The last bytes of a child's output.
#[derive(Default)]
struct Output {
    kept: VecDeque<u8>,
    max: usize,
    total: u64,
}

impl Output {
    fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let bytes = &bytes[bytes.len().saturating_sub(self.max)..];
        let over = (self.kept.len() + bytes.len()).saturating_sub(self.max);
        self.kept.drain(..over);
        self.kept.extend(bytes);
    }
}

/// Children whose status [`run`] will ask for; [`reap_orphans`] must leave them alone.
static CHILDREN: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Starts a child and notes it, with no moment in between.
fn spawn_known(command: &mut Command) -> io::Result<Child> {
    let mut known = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
    let child = command.spawn()?;
    known.insert(child.id());
    Ok(child)
}

/// Kills every child that [`run`] has not reaped, with its group: for the end of the process, when the cores that
/// would do so are gone. An unreaped child keeps its number, so nobody else can be hit.
pub fn kill_all() {
    let known = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
    known.iter().for_each(|pid| sys::kill_group(*pid));
}

fn forget_child(pid: u32) {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
}

/// For an agent that is process 1 of a container: reaps the processes that others left to it. Runs for ever; ends
/// at once if we are not process 1. Needs [`signal::block_in_main`].
///
/// # Errors
/// No descriptor is left.
pub async fn reap_orphans() -> io::Result<()> {
    if std::process::id() != 1 {
        return Ok(());
    }
    let exits = Io::new(sys::signalfd(&[libc::SIGCHLD])?, Interest::Read);
    loop {
        reap_unknown();
        signal::next_number(&exits).await?;
    }
}

/// Reaps every exited child that nobody here started.
fn reap_unknown() {
    let known = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
    for child in children() {
        if !known.contains(&child) {
            sys::reap(child);
        }
    }
}

/// The children of all threads of this process.
fn children() -> BTreeSet<u32> {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return BTreeSet::new() };
    let lists =
        threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .collect()
}
