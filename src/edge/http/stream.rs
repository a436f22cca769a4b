//! Work that goes on beside a connection: tasks for late answers and for streams, and the box into which they and
//! other cores put their news for the reactor.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use futures_lite::{FutureExt as _, StreamExt as _};

use super::connection::Timing;
use super::exchange::{Cut, LocalBoxFuture, Read, Response, Source, Streaming};
use super::park::ConnId;
use super::spooling::Spooled;
use crate::consensus::{Consistency, ProposeError};
use crate::runtime::net::Notifier;
use crate::runtime::task::{self, Task};
use crate::server::rpc::Guest;
use crate::store::Touched;

/// News for a reactor. Bounded by what it comes from: one late answer or one chunk for each connection, and the
/// channel of changes.
pub enum News {
    /// A late answer.
    Answer(ConnId, Response),
    /// A piece of a body lies in its file.
    Spooled(ConnId, Spooled),
    /// A late answer that is a stream.
    Stream(ConnId, Streaming),
    /// A read can begin, or is refused.
    Read(ConnId, Result<Read, Response>),
    /// The next chunk of a stream.
    Chunk(ConnId, Bytes),
    /// A stream ended.
    End(ConnId),
    /// A stream broke off before its end.
    Cut(ConnId),
    /// An agent came, or is to be told something.
    Guest(Guest),
    /// A barrier that reads share has ended.
    Barrier(Consistency, Result<(), ProposeError>),
    /// The control core published a state.
    Changes(Arc<Touched>),
    /// The server is to stop.
    Stop,
}

/// Where news waits; one for each reactor.
#[derive(Clone)]
pub struct Inbox {
    news: Rc<RefCell<VecDeque<News>>>,
    notifier: Notifier,
}

impl Inbox {
    /// An empty one; `notifier` wakes its reactor.
    pub fn new(notifier: Notifier) -> Inbox {
        Inbox { news: Rc::default(), notifier }
    }

    /// Puts news in.
    pub fn post(&self, news: News) {
        self.news.borrow_mut().push_back(news);
        self.notifier.notify();
    }

    /// Takes the oldest out.
    pub fn take(&self) -> Option<News> {
        self.news.borrow_mut().pop_front()
    }

    /// Starts the task of a late answer. It runs to its end even when the client leaves.
    pub fn answer_later(&self, conn: ConnId, work: LocalBoxFuture<Response>) {
        let inbox = self.clone();
        let guarded = async move {
            let response = AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| panicked());
            inbox.post(News::Answer(conn, response));
        };
        task::spawn(guarded).detach();
    }

    /// Starts the task that a read waits for. It runs to its end even when the client leaves.
    pub fn read_later(&self, conn: ConnId, work: LocalBoxFuture<Result<Read, Response>>) {
        let inbox = self.clone();
        let guarded = async move {
            let prepared = AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| Err(panicked()));
            inbox.post(News::Read(conn, prepared));
        };
        task::spawn(guarded).detach();
    }

    /// Starts the task that prepares a stream. It runs to its end even when the client leaves, if it is detached.
    pub fn stream_later(&self, conn: ConnId, work: LocalBoxFuture<Result<Streaming, Response>>) -> Task<()> {
        let inbox = self.clone();
        let guarded = async move {
            let prepared = AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| Err(panicked()));
            inbox.post(match prepared {
                Ok(streaming) => News::Stream(conn, streaming),
                Err(refusal) => News::Answer(conn, refusal),
            });
        };
        task::spawn(guarded)
    }

    /// Starts the task of a stream. It ends with its [`Flow`].
    pub fn stream(&self, conn: ConnId, source: Source, http_1_0: bool, timing: Timing) -> Flow {
        let gate = Rc::new(Gate::default());
        let (inbox, passage) = (self.clone(), gate.clone());
        let mut source = source;
        let pumping = async move {
            while let Some(chunk) = source.next().await {
                let chunk = chunk?;
                if !chunk.is_empty() {
                    inbox.post(News::Chunk(conn, chunk));
                    passage.pass().await;
                }
            }
            Ok(())
        };
        let inbox = self.clone();
        let guarded = async move {
            let ended = AssertUnwindSafe(pumping).catch_unwind().await.unwrap_or_else(|_| {
                tracing::error!("http: the source of a stream panicked; its answer is broken off");
                Err(Cut)
            });
            inbox.post(match ended {
                Ok(()) => News::End(conn),
                Err(Cut) => News::Cut(conn),
            });
        };
        Flow { _task: task::spawn(guarded), gate, timing, http_1_0, ended: false }
    }
}

/// What a client gets when a handler panicked.
pub fn panicked() -> Response {
    Response::internal("internal error: the request could not be answered; the agent's log says why")
}

/// A stream's end at its connection. Dropping it ends the source.
pub struct Flow {
    _task: Task<()>,
    gate: Rc<Gate>,
    /// What is noted when it ends.
    pub timing: Timing,
    /// Chunks go out bare.
    pub http_1_0: bool,
    /// The source ended.
    pub ended: bool,
}

impl Flow {
    /// Lets the source give its next chunk: the last one left.
    pub fn next(&self) {
        self.gate.open.set(true);
        if let Some(waker) = self.gate.waker.take() {
            waker.wake();
        }
    }
}

#[derive(Default)]
struct Gate {
    open: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Gate {
    async fn pass(&self) {
        std::future::poll_fn(|cx| {
            if self.open.replace(false) {
                return Poll::Ready(());
            }
            self.waker.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}
