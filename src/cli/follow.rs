//! A question that is followed: asked with the index of the last answer, so that the server answers when there is
//! something new, over one connection that is kept. `watch`, `lock` and `template` follow this way.
//!
//! Whose thread calls [`Follower::wait`] is told the first answer at once, each change once, and each failure as it
//! comes; [`Course`] decides which. Another thread may end it ([`Stopper`]).

use std::io::{BufRead, BufReader};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::client::{Client, failed};
use super::transport::{self, Head, Outgoing, Reader, Socket, error_text};
use crate::config::duration;
use crate::runtime::random::Rng;
pub use crate::watch::course::{Answer, Indexes};
use crate::watch::course::{Course, Mark, Next};

/// How long a server waits when nothing else is asked for (Consul: `defaultQueryTime`).
const WAIT_DEFAULT: Duration = Duration::from_secs(300);
/// Servers wait up to this fraction longer, so that not all come back together (Consul: `jitterFraction`).
const JITTER_FRACTION: u32 = 16;
/// An answer that is so late does not come.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may take to be accepted, and a write to be taken.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// Path, not encoded.
    pub path: String,
    /// Parameters, not encoded.
    pub query: Vec<(String, String)>,
    /// How long the server waits for something new; Consul's five minutes when not given.
    pub wait: Option<Duration>,
    /// What the indexes of its answers mean.
    pub indexes: Indexes,
}

impl Question {
    /// A question about the catalog or the keys.
    pub fn new(path: impl Into<String>, query: &[(&str, &str)]) -> Question {
        let query = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Question { path: path.into(), query: query.collect(), wait: None, indexes: Indexes::Grow }
    }
}

/// What there is to say.
#[derive(Clone, Debug)]
pub enum Event {
    /// The first answer, or one that differs from the last.
    Changed(Answer),
    /// The question failed. It is asked again by the next call, after the rest that it names.
    Failed(Failure),
    /// Somebody has stopped it: nothing comes any more.
    Stopped,
}

/// Why a question failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In Consul's words.
    pub why: String,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// How long the next call rests before it asks again.
    pub rest: Duration,
}

impl Failure {
    /// The question itself is wrong, or not allowed: it will fail until something else is done.
    pub fn is_refusal(&self) -> bool {
        self.status.is_some_and(|status| (400..500).contains(&status) && status != 429)
    }
}

/// One question that is followed.
pub struct Follower {
    client: Arc<Client>,
    question: Question,
    course: Course,
    line: Option<Line>,
    rest: Duration,
    stop: Arc<Stop>,
}

/// Ends a [`Follower`] from another thread.
#[derive(Clone)]
pub struct Stopper(Arc<Stop>);

impl Stopper {
    /// Ends it: whatever [`Follower::wait`] waits for, it returns at once (but for up to ten seconds in which a
    /// connection is being opened).
    pub fn stop(&self) {
        let mut state = self.0.lock();
        state.stopped = true;
        if let Some(socket) = state.socket.take() {
            socket.cut();
        }
        self.0.bell.notify_all();
    }
}

impl Follower {
    /// Follows a question; nothing is asked before [`Follower::wait`].
    pub fn new(client: Arc<Client>, question: Question) -> Follower {
        let course = Course::new(question.indexes, Rng::seeded());
        Follower { client, question, course, line: None, rest: Duration::ZERO, stop: Arc::default() }
    }

    /// What ends it from elsewhere.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.stop.clone())
    }

    /// Waits for the first answer, a changed one, a failure, or the end.
    pub fn wait(&mut self) -> Event {
        loop {
            if self.stop.rests(std::mem::take(&mut self.rest)) {
                self.line = None;
                return Event::Stopped;
            }
            let began = Instant::now();
            match self.ask() {
                Ok((head, body)) => {
                    match self.course.answered(
                        Mark::Index(head.index.unwrap_or(0)),
                        head.status,
                        &body,
                        began.elapsed(),
                    ) {
                        Next::Tell(answer) => return Event::Changed(answer),
                        Next::Ask(rest) => self.rest = rest,
                    }
                }
                // What a stop has cut off has not failed.
                Err(_) if self.stop.lock().stopped => {}
                Err((why, status)) => {
                    self.rest = self.course.failed();
                    return Event::Failed(Failure { why, status, rest: self.rest });
                }
            }
        }
    }

    /// Asks once.
    fn ask(&mut self) -> Result<(Head, Vec<u8>), (String, Option<u16>)> {
        let wait = self.question.wait.unwrap_or(WAIT_DEFAULT);
        let wait_text = duration::format(i64::try_from(wait.as_nanos()).unwrap_or(i64::MAX));
        let mark = self.course.parameter();
        let mut query: Vec<(&str, &str)> =
            self.question.query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if let Some((name, value)) = &mark {
            query.push((name, value));
            query.push(("wait", &wait_text));
        }
        let stale = self.client.is_stale() && !self.course.wants_fresh();
        let (path, url) = self.client.address_at(&self.question.path, &query, stale);
        let limit = wait + wait / JITTER_FRACTION + PATIENCE;
        let (head, body) = self.exchange(&path, limit).map_err(|why| (failed("GET", &url, &why), None))?;
        match head.status {
            200 => Ok((head, body)),
            // Without an index it is a path that the agent does not know.
            404 if head.index.is_some() => Ok((head, body)),
            status => {
                let text = String::from_utf8_lossy(&body);
                let why = format!("Unexpected response code: {status} ({})", text.trim_end());
                Err((why, Some(status)))
            }
        }
    }

    /// One request and its answer over the connection that is there, else over a new one.
    fn exchange(&mut self, path: &str, limit: Duration) -> Result<(Head, Vec<u8>), String> {
        let request = Outgoing { method: "GET", path, headers: self.client.headers(), body: &[] };
        let head = transport::head(self.client.target(), &request, false)?;
        if let Some(mut line) = self.line.take() {
            match line.exchange(&head, limit) {
                Ok(answer) => {
                    self.line = answer.0.keeps.then_some(line);
                    return Ok(answer);
                }
                // An agent may close what has rested, or have been started anew since: that is no failure yet.
                Err(error) if is_late(&error) => return Err("i/o timeout".to_owned()),
                Err(_) => {}
            }
        }
        let mut line = Line::open(&self.client, &self.stop)?;
        let answer = line.exchange(&head, limit).map_err(|error| match is_late(&error) {
            true => "i/o timeout".to_owned(),
            false => error_text(&error),
        })?;
        self.line = answer.0.keeps.then_some(line);
        Ok(answer)
    }
}

/// Whether a read or write took longer than it may.
fn is_late(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

/// A connection that is kept.
struct Line {
    stop: Arc<Stop>,
    reader: Reader,
}

impl Line {
    fn open(client: &Client, stop: &Arc<Stop>) -> Result<Line, String> {
        let (stream, socket) = transport::connect(client.target(), client.tls(), Some(CONNECT_MAX))?;
        let mut state = stop.lock();
        if state.stopped {
            return Err("stopped".to_owned());
        }
        state.socket = Some(socket);
        drop(state);
        Ok(Line { stop: stop.clone(), reader: BufReader::new(stream) })
    }

    fn exchange(&mut self, head: &str, limit: Duration) -> std::io::Result<(Head, Vec<u8>)> {
        if let Some(socket) = &self.stop.lock().socket {
            socket.limit(limit, CONNECT_MAX)?;
        }
        transport::write(self.reader.get_mut(), head, &[])?;
        // Go's word for a connection that ends before an answer begins.
        if self.reader.fill_buf()?.is_empty() {
            return Err(std::io::Error::other("EOF"));
        }
        let mut answer = transport::read_head(&mut self.reader)?;
        let body = transport::read_body(&mut self.reader, &mut answer.framing)?;
        Ok((answer, body))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.stop.lock().socket = None;
    }
}

/// What a follower and its stoppers share.
#[derive(Default)]
struct Stop {
    state: Mutex<StopState>,
    bell: Condvar,
}

#[derive(Default)]
struct StopState {
    stopped: bool,
    /// That of the connection, if there is one.
    socket: Option<Socket>,
}

impl Stop {
    fn lock(&self) -> MutexGuard<'_, StopState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rests so long; true at once when stopped.
    fn rests(&self, rest: Duration) -> bool {
        let waited = self.bell.wait_timeout_while(self.lock(), rest, |state| !state.stopped);
        waited.unwrap_or_else(PoisonError::into_inner).0.stopped
    }
}

#[cfg(test)]
mod tests;
