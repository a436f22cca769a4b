//! One connection to one server: carries streams, and finds out whether the server still lives.
//!
//! One task drives it; the requests on it are other tasks of the same core, which it wakes.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_lite::io::{AsyncRead, AsyncWrite};
use muster_protocol::rpc::mux::{Input, Mux, MuxEvent, ResetReason, Side};

use super::limits::{PIECE_MAX, QUIET};
use super::{Counts, ServerAddress};
use crate::runtime::net::Stream;
use crate::runtime::time::{self, Sleep};

/// Bytes read from the socket at a time; on the stack, so that a connection that rests holds none.
const READ_LENGTH: usize = 16 << 10;
/// Reads and writes of one turn, after which others get theirs.
const STEPS_MAX: usize = 64;

/// See the module.
pub(super) struct Line {
    pub server: ServerAddress,
    mux: RefCell<Mux>,
    fate: RefCell<Fate>,
    /// Who waits for something on a stream.
    waiting: RefCell<BTreeMap<u32, Waker>>,
    resets: RefCell<BTreeMap<u32, ResetReason>>,
    /// Who waits for a sign of life.
    listening: RefCell<Vec<Waker>>,
    /// The task that drives it.
    driver: RefCell<Option<Waker>>,
    /// When the server was last heard.
    heard: Cell<Instant>,
    probe: Cell<Option<Probe>>,
    counts: Arc<Counts>,
}

/// How it stands with the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It takes requests.
    Open,
    /// New requests go elsewhere; those that wait for an answer and may be asked again do so too.
    Retired,
    /// It has ended.
    Dead,
}

/// A sign of life is waited for.
#[derive(Clone, Copy)]
struct Probe {
    /// When it is asked for, or is overdue.
    due: Instant,
    patience: Duration,
    pinged: bool,
}

/// Why a stream is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broke {
    /// The connection has ended.
    Lost,
    /// The connection is to be left; only told to who wants to know.
    Retired,
    /// The server gave the stream up.
    Reset(ResetReason),
}

impl Line {
    pub fn new(server: ServerAddress, counts: Arc<Counts>) -> Rc<Line> {
        Rc::new(Line {
            server,
            mux: RefCell::new(Mux::new(Side::Agent)),
            fate: RefCell::new(Fate::Open),
            waiting: RefCell::default(),
            resets: RefCell::default(),
            listening: RefCell::default(),
            driver: RefCell::default(),
            heard: Cell::new(time::now()),
            probe: Cell::new(None),
            counts,
        })
    }

    pub fn fate(&self) -> Fate {
        *self.fate.borrow()
    }

    /// Whether requests are under way on it.
    pub fn has_streams(&self) -> bool {
        self.mux.borrow().streams() > 0
    }

    /// Whether it can carry no new request ever again.
    pub fn is_used_up(&self) -> bool {
        self.mux.borrow().is_used_up()
    }

    /// Ends by itself once nothing is under way on it.
    pub fn retire(&self) {
        if self.fate() == Fate::Open {
            self.fate.replace(Fate::Retired);
            self.wake_all();
        }
    }

    /// Opens a stream that begins with these bytes, and says how many of them were taken. `None` when no more fit.
    pub fn open(self: &Rc<Line>, bytes: &[u8], end: bool) -> Option<(LineStream, usize)> {
        let (id, taken) = self.mux.borrow_mut().open(bytes, end)?;
        self.kick();
        Some((LineStream { line: self.clone(), id }, taken))
    }

    /// Something was asked: unless the server is heard within `patience`, it is asked for a sign of life, and given up
    /// when that does not come either.
    pub fn expect(&self, patience: Duration) {
        if self.probe.get().is_none() {
            self.probe.set(Some(Probe { due: time::now() + patience, patience, pinged: false }));
            self.kick();
        }
    }

    /// Asks for a sign of life at once.
    pub fn ask(&self, patience: Duration) {
        if self.probe.get().is_some_and(|probe| probe.pinged) {
            return;
        }
        self.mux.borrow_mut().ping(1);
        self.probe.set(Some(Probe { due: time::now() + patience, patience, pinged: true }));
        self.kick();
    }

    /// Whether a sign of life is waited for.
    #[cfg(test)]
    pub fn is_asked(&self) -> bool {
        self.probe.get().is_some_and(|probe| probe.pinged)
    }

    /// Whether the server was heard lately, or is when it is asked.
    pub async fn confirm(&self, patience: Duration) -> bool {
        if time::now().saturating_duration_since(self.heard.get()) < QUIET {
            return true;
        }
        self.ask(patience);
        std::future::poll_fn(|cx| {
            if self.fate() == Fate::Dead || self.probe.get().is_none() {
                return Poll::Ready(self.fate() != Fate::Dead);
            }
            self.listening.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Carries bytes until the connection ends; says why it did. `rest` has come with the greeting.
    pub async fn run(self: Rc<Line>, mut stream: Stream, rest: Vec<u8>) -> String {
        let mut events = Vec::new();
        let received = self.mux.borrow_mut().receive(&rest, &mut events);
        self.tell(events);
        let why = match received {
            Err(why) => why.to_string(),
            Ok(()) => {
                let mut alarm = None;
                std::future::poll_fn(|cx| self.poll(cx, &mut stream, &mut alarm)).await
            }
        };
        self.fate.replace(Fate::Dead);
        self.wake_all();
        why
    }

    fn poll(
        &self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        alarm: &mut Option<Pin<Box<Sleep>>>,
    ) -> Poll<String> {
        self.driver.replace(Some(cx.waker().clone()));
        if self.poll_probe(cx, alarm) {
            return Poll::Ready("it gave no sign of life".to_owned());
        }
        for step in 0.. {
            if step == STEPS_MAX {
                cx.waker().wake_by_ref();
                break;
            }
            let moved = match self.poll_write(cx, stream) {
                Ok(wrote) => self.poll_read(cx, stream).map(|read| wrote || read),
                Err(error) => Err(error),
            };
            match moved {
                Ok(true) => {}
                Ok(false) => break,
                Err(why) => return Poll::Ready(why),
            }
        }
        let mux = self.mux.borrow();
        let done = self.fate() == Fate::Retired && mux.streams() == 0 && mux.output().is_empty();
        if done { Poll::Ready(String::new()) } else { Poll::Pending }
    }

    fn poll_write(&self, cx: &mut Context<'_>, stream: &mut Stream) -> Result<bool, String> {
        let mut mux = self.mux.borrow_mut();
        if mux.output().is_empty() {
            return Ok(false);
        }
        match Pin::new(stream).poll_write(cx, mux.output()) {
            Poll::Pending => Ok(false),
            Poll::Ready(Err(error)) => Err(error.to_string()),
            Poll::Ready(Ok(length)) => {
                let mut events = Vec::new();
                mux.sent(length, &mut events);
                drop(mux);
                self.counts.bytes_out.fetch_add(length as u64, Relaxed);
                self.tell(events);
                Ok(true)
            }
        }
    }

    fn poll_read(&self, cx: &mut Context<'_>, stream: &mut Stream) -> Result<bool, String> {
        let mut buffer = [0; READ_LENGTH];
        match Pin::new(stream).poll_read(cx, &mut buffer) {
            Poll::Pending => Ok(false),
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Poll::Ready(Err(error)) => Err(error.to_string()),
            Poll::Ready(Ok(0)) => Err("EOF".to_owned()),
            Poll::Ready(Ok(length)) => {
                self.heard.set(time::now());
                self.counts.bytes_in.fetch_add(length as u64, Relaxed);
                let mut events = Vec::new();
                let received = self.mux.borrow_mut().receive(&buffer[..length], &mut events);
                self.tell(events);
                if self.probe.take().is_some() {
                    wake(&mut self.listening.borrow_mut());
                }
                received.map(|()| true).map_err(|why| why.to_string())
            }
        }
    }

    /// Whether the server is to be given up.
    fn poll_probe(&self, cx: &mut Context<'_>, alarm: &mut Option<Pin<Box<Sleep>>>) -> bool {
        while let Some(probe) = self.probe.get() {
            let due = probe.due;
            let set = alarm.get_or_insert_with(|| Box::pin(Sleep::until(due)));
            if set.deadline() != due {
                *set = Box::pin(Sleep::until(due));
            }
            if set.as_mut().poll(cx).is_pending() {
                return false;
            }
            *alarm = None;
            if probe.pinged {
                return true;
            }
            self.mux.borrow_mut().ping(1);
            self.probe.set(Some(Probe { due: time::now() + probe.patience, pinged: true, ..probe }));
        }
        *alarm = None;
        false
    }

    fn tell(&self, events: Vec<MuxEvent>) {
        for event in events {
            match event {
                MuxEvent::Input(id) | MuxEvent::Room(id) => self.wake(id),
                MuxEvent::Reset(id, reason) => {
                    self.resets.borrow_mut().insert(id, reason);
                    self.wake(id);
                }
                MuxEvent::GoAway(_) => self.retire(),
                MuxEvent::Opened(_) | MuxEvent::Pong(_) => {}
            }
        }
    }

    fn wake(&self, id: u32) {
        let waker = self.waiting.borrow_mut().remove(&id);
        waker.into_iter().for_each(Waker::wake);
    }

    fn wake_all(&self) {
        let waiting = self.waiting.take();
        waiting.into_values().for_each(Waker::wake);
        wake(&mut self.listening.borrow_mut());
        self.kick();
    }

    /// The driver has something to do.
    fn kick(&self) {
        let driver = self.driver.borrow().clone();
        driver.into_iter().for_each(|driver| driver.wake_by_ref());
    }
}

fn wake(listening: &mut Vec<Waker>) {
    listening.drain(..).for_each(Waker::wake);
}

/// A stream of a line. Dropping it gives it up.
pub(super) struct LineStream {
    line: Rc<Line>,
    id: u32,
}

impl LineStream {
    /// Writes all of it. False when the server has something to say before it has heard all.
    ///
    /// # Errors
    /// The stream is of no use any more.
    pub async fn write(&mut self, bytes: &[u8], end: bool) -> Result<bool, Broke> {
        let mut taken = 0;
        std::future::poll_fn(|cx| {
            self.check()?;
            taken += self.line.mux.borrow_mut().write(self.id, &bytes[taken..], end);
            self.line.kick();
            if taken == bytes.len() {
                return Poll::Ready(Ok(true));
            }
            if self.line.mux.borrow().has_input(self.id) {
                return Poll::Ready(Ok(false));
            }
            self.wait(cx);
            Poll::Pending
        })
        .await
    }

    /// Adds what has come to `out`; false at the end. `leave`: gives up when the line is retired.
    ///
    /// # Errors
    /// The stream is of no use any more.
    pub async fn read(&mut self, out: &mut Vec<u8>, leave: bool) -> Result<bool, Broke> {
        std::future::poll_fn(|cx| self.poll_read(cx, out, leave)).await
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
        leave: bool,
    ) -> Poll<Result<bool, Broke>> {
        let before = out.len();
        let mut buffer = [0; READ_LENGTH];
        let mut mux = self.line.mux.borrow_mut();
        while out.len() - before < PIECE_MAX {
            match mux.read(self.id, &mut buffer) {
                Input::Read(length) => out.extend_from_slice(&buffer[..length]),
                Input::End if out.len() == before => return Poll::Ready(Ok(false)),
                _ => break,
            }
        }
        let credit = !mux.output().is_empty();
        drop(mux);
        if credit {
            self.line.kick();
        }
        if out.len() > before {
            return Poll::Ready(Ok(true));
        }
        self.check()?;
        if leave && self.line.fate() == Fate::Retired {
            return Poll::Ready(Err(Broke::Retired));
        }
        self.wait(cx);
        Poll::Pending
    }

    fn check(&self) -> Result<(), Broke> {
        if let Some(reason) = self.line.resets.borrow().get(&self.id) {
            return Err(Broke::Reset(*reason));
        }
        if self.line.fate() == Fate::Dead { Err(Broke::Lost) } else { Ok(()) }
    }

    fn wait(&self, cx: &Context<'_>) {
        self.line.waiting.borrow_mut().insert(self.id, cx.waker().clone());
    }
}

impl Drop for LineStream {
    fn drop(&mut self) {
        self.line.mux.borrow_mut().close(self.id, ResetReason::Cancelled);
        self.line.waiting.borrow_mut().remove(&self.id);
        self.line.resets.borrow_mut().remove(&self.id);
        self.line.kick();
    }
}
