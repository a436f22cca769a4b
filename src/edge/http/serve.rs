//! What a connection does with its bytes: requests in, answers out.
//!
//! The hot path: a head that was seen before is found by its bytes in the cache, its answer is checked against the
//! newest state, and sent with one system call. Nothing is parsed or allocated.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use muster_protocol::http::{Body, Framing, Head, Method, Reject, Target, chunk, head_end, last_chunk};

use super::cache::group_key;
use super::connection::{Asking, Conn, Flushed, Phase, Receiving, Timing};
use super::exchange::{Handled, LocalBoxFuture, Outcome, Peer, Read, Response, Streaming};
use super::limits;
use super::park::ConnId;
use super::policy::{Admitted, Early, too_large};
use super::relay;
use super::remembered::answers_here;
use super::respond::{Dress, Manner, Wire};
use super::router::BodyLimit;
use super::server::Server;
use super::stream::panicked;
use super::told::{self, Asked};
use crate::metrics::routes::Meter;
use crate::runtime::time;

/// Told when request bodies on their way in take too much room together.
const NO_ROOM: &str = "Too many large requests at once: try again after a pause";

impl Server {
    /// Reads and serves what a connection has, as far as its turn goes.
    pub(super) fn pump(&mut self, id: ConnId) {
        let mut buffer = std::mem::take(&mut self.scratch);
        let more = self.pump_with(id, &mut buffer);
        self.scratch = buffer;
        if more {
            self.again.push_back(id);
        }
    }

    /// Whether there is more to do in a later turn.
    fn pump_with(&mut self, id: ConnId, buffer: &mut [u8]) -> bool {
        // What was kept while an answer was under way comes first.
        if self
            .conn(id)
            .is_some_and(|conn| !conn.input.is_empty() && conn.wants_input() && conn.searched == 0)
            && self.consume_kept(id)
        {
            return true;
        }
        let Some(conn) = self.conn(id) else { return false };
        if !conn.readable || !conn.wants_input() {
            return false;
        }
        let read = match conn.read(buffer) {
            Ok(Some(0)) => {
                self.on_eof(id);
                return false;
            }
            Ok(Some(read)) => read,
            Ok(None) => return false,
            Err(_) => {
                self.close(id);
                return false;
            }
        };
        if conn.input.is_empty() {
            let (used, more) = self.consume(id, &buffer[..read]);
            if let Some(conn) = self.conn(id)
                && used < read
            {
                conn.keep_input(&buffer[used..read]);
            }
            if more {
                return true;
            }
        } else {
            conn.keep_input(&buffer[..read]);
            if self.consume_kept(id) {
                return true;
            }
        }
        self.conn(id).is_some_and(|conn| conn.readable && conn.wants_input())
    }

    fn consume_kept(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.conn(id) else { return false };
        let mut input = std::mem::take(&mut conn.input);
        let (used, more) = self.consume(id, &input);
        if let Some(conn) = self.conn(id) {
            input.drain(..used);
            if !input.is_empty() {
                conn.input = input;
            }
        }
        more
    }

    /// Serves the requests in `input`: how many bytes were used, and whether the turn ended before the input did.
    fn consume(&mut self, id: ConnId, input: &[u8]) -> (usize, bool) {
        let mut used = 0;
        let mut requests = 0;
        // Behind the moment at which the requests were there: see `edge::fresh`.
        self.clock.contact = self.edge.leadership().contact();
        loop {
            let tick = self.clock.tick;
            let Some(conn) = self.conn(id) else { return (input.len(), false) };
            if used == input.len() || !conn.wants_input() {
                return (used, false);
            }
            let rest = &input[used..];
            match &mut conn.phase {
                Phase::Head => {
                    let Some(end) = head_end(rest, conn.searched) else {
                        if conn.searched == 0 {
                            conn.progress = tick;
                        }
                        conn.searched = rest.len();
                        if rest.len() > limits::HEAD.bytes {
                            self.reject(id, Reject::HeadTooLarge);
                            return (input.len(), false);
                        }
                        return (used, false);
                    };
                    if requests == limits::REQUESTS_PER_TURN {
                        return (used, true);
                    }
                    requests += 1;
                    conn.searched = 0;
                    conn.progress = tick;
                    used += end;
                    self.on_head(id, &rest[..end]);
                }
                Phase::Body(receiving) => {
                    conn.progress = tick;
                    let max = receiving.admitted.body_max;
                    let fed = receiving.body.feed(rest, &mut receiving.data);
                    let size = receiving.size();
                    let fits = receiving.room.hold(receiving.data.len());
                    match fed {
                        Ok(_) if !fits => {
                            self.answer_and_close(id, &Response::text(503, NO_ROOM));
                            return (input.len(), false);
                        }
                        Ok(progress) => {
                            used += progress.consumed;
                            if size > max {
                                self.body_too_large(id, progress.done);
                            } else if receiving.is_to_be_spooled(progress.done) {
                                self.spool(id, progress.done);
                            } else if progress.done {
                                self.on_body(id);
                            }
                        }
                        Err(error) => {
                            self.answer_and_close(id, &Response::bad_request(error.text()));
                            return (input.len(), false);
                        }
                    }
                }
                Phase::Discard(body) => {
                    let mut unwanted = Vec::new();
                    match body.feed(rest, &mut unwanted) {
                        Ok(progress) => {
                            used += progress.consumed;
                            if progress.done {
                                conn.phase = Phase::Head;
                            }
                        }
                        Err(_) => {
                            self.linger(id);
                            return (input.len(), false);
                        }
                    }
                }
                Phase::Linger => return (input.len(), false),
                Phase::Spooling(_)
                | Phase::Parked(_)
                | Phase::Waiting(_)
                | Phase::Busy(_)
                | Phase::Asking(_)
                | Phase::Streaming(_) => {
                    return (used, false);
                }
            }
        }
    }

    fn on_eof(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id) else { return };
        match conn.phase {
            Phase::Busy(_) => {}
            _ if !conn.is_flushed() => {}
            _ => self.close(id),
        }
    }

    fn on_head(&mut self, id: ConnId, raw: &[u8]) {
        let Some(peer) = self.conn(id).map(|conn| conn.peer) else { return };
        if let Some(plan) = self.cache(peer).plan(raw) {
            let plan = plan.clone();
            if let Some(conn) = self.conn(id) {
                conn.manner = Manner::KEEP;
                if told::is_wanted() && peer != Peer::Agent {
                    conn.asked = Some(Asked::new(raw, time::now()));
                }
            }
            return self.serve_plan(id, &plan);
        }
        let head = match Head::parse(Bytes::copy_from_slice(raw), limits::HEAD) {
            Ok(head) => head,
            Err(reject) => return self.reject(id, reject),
        };
        let manner = Manner::of(&head);
        let now = self.clock.now;
        let Some(conn) = self.conn(id) else { return };
        conn.manner = manner;
        conn.asked = (peer != Peer::Agent).then(|| Asked::new(raw, now));
        let (framing, expects_continue) = (head.framing, head.expects_continue);
        let raw_query = match &head.target {
            Target::Path { raw_query, .. } => raw_query.clone(),
            Target::Asterisk => Vec::new(),
        };
        let policy = self.policy.clone();
        let admitted = match policy.admit(&self.router, head, peer) {
            Ok(admitted) => admitted,
            Err(early) => return self.answer_early(id, &early, framing, expects_continue),
        };
        let body = match framing {
            Framing::Empty => return self.dispatch(id, &admitted, &raw_query, Some(raw)),
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::chunked(),
        };
        let budget = if admitted.route.body == BodyLimit::Archive { &self.archives } else { &self.bodies };
        let room = budget.room();
        let folder = policy.config.data_dir.clone();
        let Some(conn) = self.conn(id) else { return };
        let (data, spool) = (Vec::new(), None);
        let receiving = Receiving { admitted, body, data, spool, folder, done: false, room, raw_query };
        conn.phase = Phase::Body(Box::new(receiving));
        if expects_continue {
            conn.push(Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n"));
            if conn.flush() == Flushed::Broken {
                self.close(id);
            }
        }
    }

    pub(super) fn on_body(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id) else { return };
        if let Phase::Body(receiving) = std::mem::replace(&mut conn.phase, Phase::Head) {
            let Receiving { mut admitted, data, spool, raw_query, .. } = *receiving;
            admitted.request.body = data.into();
            admitted.request.spool = spool;
            self.dispatch(id, &admitted, &raw_query, None);
        }
    }

    fn body_too_large(&mut self, id: ConnId, done: bool) {
        let Some(conn) = self.conn(id) else { return };
        if let Phase::Body(receiving) = std::mem::replace(&mut conn.phase, Phase::Head) {
            let Admitted { body_max, body_key, .. } = receiving.admitted;
            let response = too_large(None, body_max, body_key);
            conn.manner.keep_alive &= done;
            let Admitted { request, route, .. } = &receiving.admitted;
            let meter = self.meter(&request.method, route.pattern);
            self.answer(id, &response, true);
            meter.note(self.clock.lap());
        }
    }

    /// Asks the handler and does as it says. `raw` is the request's head when its bytes alone say what it asks.
    fn dispatch(&mut self, id: ConnId, admitted: &Admitted, raw_query: &[u8], raw: Option<&[u8]>) {
        let request = &admitted.request;
        let meter = self.meter(&request.method, admitted.route.pattern);
        let edge = self.edge.clone();
        let handler = || match (answers_here(&edge, request), relay::upstream(&edge, admitted)) {
            (Some(handled), _) => handled,
            (None, Some(upstream)) => Ok(relay::relay(&edge, upstream, admitted, raw_query)),
            (None, None) => (admitted.route.handler)(&edge, request),
        };
        let handled = catch_unwind(AssertUnwindSafe(handler));
        let handled: Handled = handled.unwrap_or_else(|_| Err(panicked()));
        match handled {
            Err(response) | Ok(Outcome::Reply(response)) => {
                self.answer(id, &response, true);
                meter.note(self.clock.lap());
            }
            Ok(Outcome::Later(work)) => {
                let timing = Timing { meter, since: self.clock.now };
                if let Some(conn) = self.conn(id) {
                    conn.phase = Phase::Busy(timing);
                    self.inbox.answer_later(id, work);
                }
            }
            Ok(Outcome::Stream(streaming)) => self.start_stream(id, streaming, meter),
            Ok(Outcome::LaterStream(work)) => {
                let timing = Timing { meter, since: self.clock.now };
                if let Some(conn) = self.conn(id) {
                    conn.phase = Phase::Busy(timing);
                    self.inbox.stream_later(id, work).detach();
                }
            }
            Ok(Outcome::Asked(work)) => self.ask(id, work, meter),
            Ok(Outcome::LaterRead(work)) => {
                let timing = Timing { meter, since: self.clock.now };
                if let Some(conn) = self.conn(id) {
                    conn.phase = Phase::Busy(timing);
                    self.inbox.read_later(id, work);
                }
            }
            Ok(Outcome::Read(read)) => {
                let Some(manner) = self.conn(id).map(|conn| conn.manner) else { return };
                // Only requests whose answer is the same for all who send these bytes are remembered.
                let shared = request.method == Method::Get && request.body.is_empty();
                let blocking = read.options.wait.is_some();
                let key = shared
                    .then(|| group_key(&request.path, raw_query, &request.headers, manner.gzip, blocking));
                let asked = || request.rest_str().into_owned();
                let meter = self.meters.about_service(meter, request.pattern, asked);
                let plain = Manner { gzip: false, ..manner } == Manner::KEEP;
                let remember = raw.filter(|_| shared && plain);
                let line = told::first_line(raw.unwrap_or_default());
                let plan = self.cache(request.peer).adopt(read, &meter, line, key, manner.gzip, remember);
                self.serve_plan(id, &plan);
            }
        }
    }

    /// Starts a task that asks elsewhere, unless the client has left.
    fn ask(&mut self, id: ConnId, work: LocalBoxFuture<Result<Streaming, Response>>, meter: Meter) {
        let timing = Timing { meter, since: self.clock.now };
        let inbox = self.inbox.clone();
        let Some(conn) = self.conn(id) else { return };
        if conn.hangup && conn.input.is_empty() {
            return self.close(id);
        }
        conn.phase = Phase::Asking(Box::new(Asking { timing, _task: inbox.stream_later(id, work) }));
    }

    fn meter(&mut self, method: &Method, pattern: &'static str) -> Meter {
        self.meters.of(method_name(method), pattern).clone()
    }

    /// Sends a finished answer.
    pub(super) fn answer(&mut self, id: ConnId, response: &Response, endpoint: bool) {
        if response.status >= 500 {
            self.tell_failure(id, response);
        }
        let policy = self.policy.clone();
        let date = self.clock.date;
        let Some(conn) = self.conn(id) else { return };
        let extra = endpoint.then_some(policy.extra_head(conn.peer));
        let wire = Wire::new(response, Dress { manner: conn.manner, extra, meta: None, date: &date });
        let flushed = conn.send(&wire);
        self.after_answer(id, flushed);
    }

    /// An answer given before the body: the body is skipped, or the connection closes if that would be too much.
    fn answer_early(&mut self, id: ConnId, early: &Early, framing: Framing, expects_continue: bool) {
        let skip = match framing {
            Framing::Empty => None,
            Framing::Length(length) => Some((Body::Length(length), length <= limits::UNWANTED_BODY_MAX)),
            Framing::Chunked => Some((Body::chunked(), false)),
        };
        let Some(conn) = self.conn(id) else { return };
        let skippable = skip.as_ref().is_none_or(|(_, short)| *short && !expects_continue);
        conn.manner.keep_alive &= skippable && !early.close;
        // What no endpoint is asked is no request to Consul's log either.
        conn.asked.take_if(|_| early.route.is_none());
        self.answer(id, &early.response, early.endpoint);
        if let Some((method, pattern)) = &early.route {
            self.meter(method, pattern).note(self.clock.lap());
        }
        if let Some((body, true)) = skip
            && let Some(conn) = self.conn(id)
            && matches!(conn.phase, Phase::Head)
        {
            conn.phase = Phase::Discard(body);
        }
    }

    pub(super) fn answer_and_close(&mut self, id: ConnId, response: &Response) {
        if let Some(conn) = self.conn(id) {
            conn.manner.keep_alive = false;
            conn.phase = Phase::Head;
        }
        self.answer(id, response, true);
    }

    /// Answers what is no request, and closes.
    pub(super) fn reject(&mut self, id: ConnId, reject: Reject) {
        let Some(conn) = self.conn(id) else { return };
        conn.phase = Phase::Head;
        conn.manner.keep_alive = false;
        conn.push(reject.bytes().into());
        let flushed = conn.flush();
        self.after_answer(id, flushed);
    }

    /// A task's answer has come.
    pub(super) fn late_answer(&mut self, id: ConnId, response: &Response) {
        let now = self.clock.now;
        let Some(conn) = self.conn(id) else { return };
        if let Some(timing) = conn.phase.timing() {
            timing.end(now);
            conn.phase = Phase::Head;
            self.answer(id, response, true);
            self.resume(id);
        }
    }

    /// What a read had to wait for is there, or will not be.
    pub(super) fn late_read(&mut self, id: ConnId, read: Result<Read, Response>) {
        let read = match read {
            Ok(read) => read,
            Err(refusal) => return self.late_answer(id, &refusal),
        };
        let Some(conn) = self.conn(id) else { return };
        let gzip = conn.manner.gzip;
        if let Phase::Busy(timing) = std::mem::replace(&mut conn.phase, Phase::Head) {
            let plan = self.cache(Peer::Unix).adopt(read, &timing.meter, b"", None, gzip, None);
            self.clock.contact = self.edge.leadership().contact();
            self.serve_plan(id, &plan);
            self.resume(id);
        }
    }

    /// A task's answer has come, and is a stream.
    pub(super) fn late_stream(&mut self, id: ConnId, streaming: Streaming) {
        let Some(conn) = self.conn(id) else { return };
        if let Some(meter) = conn.phase.timing().map(|timing| timing.meter.clone()) {
            conn.phase = Phase::Head;
            self.start_stream(id, streaming, meter);
        }
    }

    /// What follows an answer: the next request, or the end of the connection.
    pub(super) fn after_answer(&mut self, id: ConnId, flushed: Flushed) {
        let tick = self.clock.tick;
        let Some(conn) = self.conn(id) else { return };
        conn.progress = tick;
        told::finished(conn);
        match flushed {
            Flushed::Broken => self.close(id),
            Flushed::Blocked => {}
            Flushed::All if conn.is_stream() => self.end_stream(id),
            Flushed::All if !conn.manner.keep_alive => self.linger(id),
            Flushed::All => {}
        }
    }

    /// Ends our half of the connection and waits a little for the client to end its own: closing at once could
    /// destroy the answer on its way.
    fn linger(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id) else { return };
        conn.finish_writing();
        conn.input = Vec::new();
        conn.phase = Phase::Linger;
        if conn.hangup || conn.eof {
            self.close(id);
        }
    }

    /// Goes on with what the connection has after an answer that did not come at once.
    pub(super) fn resume(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id) else { return };
        if conn.eof && conn.input.is_empty() && conn.is_flushed() {
            return self.close(id);
        }
        if (conn.readable || !conn.input.is_empty()) && conn.wants_input() {
            self.again.push_back(id);
        }
    }

    /// The socket takes bytes again.
    pub(super) fn on_writable(&mut self, id: ConnId) {
        let tick = self.clock.tick;
        let Some(conn) = self.conn(id) else { return };
        conn.progress = tick;
        let flushed = conn.flush();
        match (flushed, &conn.phase) {
            (Flushed::Broken, _) => self.close(id),
            (Flushed::Blocked, _)
            | (_, Phase::Linger | Phase::Parked(_) | Phase::Waiting(_) | Phase::Busy(_) | Phase::Asking(_)) =>
                {}
            (_, Phase::Streaming(flow)) if flow.ended => self.stream_done(id),
            (_, Phase::Streaming(flow)) => flow.next(),
            // A request's body is still to come behind `100 Continue`.
            (_, Phase::Body(_) | Phase::Spooling(_)) => self.resume(id),
            _ if conn.is_stream() => self.end_stream(id),
            _ if !conn.manner.keep_alive => self.linger(id),
            _ => self.resume(id),
        }
    }

    fn start_stream(&mut self, id: ConnId, streaming: Streaming, meter: Meter) {
        let timing = Timing { meter, since: self.clock.now };
        let policy = self.policy.clone();
        let date = self.clock.date;
        let inbox = self.inbox.clone();
        let Some(conn) = self.conn(id) else { return };
        let Streaming { head, source } = streaming;
        if conn.manner.http_1_0 {
            conn.manner.keep_alive = false;
        }
        let extra = Some(policy.extra_head(conn.peer));
        let wire = Wire::streamed(&head, Dress { manner: conn.manner, extra, meta: None, date: &date });
        let flow = inbox.stream(id, source, conn.manner.http_1_0, timing);
        conn.phase = Phase::Streaming(Box::new(flow));
        let sent = conn.send(&wire);
        if sent == Flushed::Broken {
            return self.close(id);
        }
        if !head.body.is_empty() {
            self.stream_chunk(id, &head.body);
        }
    }

    /// A stream gave a chunk.
    pub(super) fn stream_chunk(&mut self, id: ConnId, data: &Bytes) {
        let tick = self.clock.tick;
        let Some(conn) = self.conn(id) else { return };
        let Phase::Streaming(flow) = &conn.phase else { return };
        if flow.http_1_0 {
            conn.push(data.clone());
        } else {
            let mut framed = Vec::with_capacity(data.len() + 16);
            chunk(&mut framed, data);
            conn.push(framed.into());
        }
        conn.progress = tick;
        match (conn.flush(), &conn.phase) {
            (Flushed::All, Phase::Streaming(flow)) => flow.next(),
            (Flushed::Broken, _) => self.close(id),
            _ => {}
        }
    }

    /// A stream has no more.
    pub(super) fn stream_end(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id) else { return };
        let Phase::Streaming(flow) = &mut conn.phase else { return };
        flow.ended = true;
        if !flow.http_1_0 {
            conn.push(Bytes::from_static(last_chunk()));
        }
        match conn.flush() {
            Flushed::All => self.stream_done(id),
            Flushed::Blocked => {}
            Flushed::Broken => self.close(id),
        }
    }

    /// A stream broke off: so does its connection.
    pub(super) fn stream_cut(&mut self, id: ConnId) {
        if self.conn(id).is_some_and(|conn| matches!(conn.phase, Phase::Streaming(_))) {
            self.close(id);
        }
    }

    fn stream_done(&mut self, id: ConnId) {
        let now = self.clock.now;
        if let Some(conn) = self.conn(id)
            && let Phase::Streaming(flow) = std::mem::replace(&mut conn.phase, Phase::Head)
        {
            flow.timing.end(now);
        }
        self.after_answer(id, Flushed::All);
        self.resume(id);
    }
}

pub(super) fn send_as(conn: &mut Conn, wire: &Wire) -> Flushed {
    let Manner { http_1_0, keep_alive, .. } = conn.manner;
    if keep_alive && !http_1_0 { conn.send(wire) } else { conn.send(&wire.for_manner(conn.manner)) }
}

/// A method as metrics name it; clients cannot make up names.
fn method_name(method: &Method) -> &'static str {
    match method {
        Method::Get => "GET",
        Method::Put => "PUT",
        Method::Post => "POST",
        Method::Delete => "DELETE",
        Method::Head => "HEAD",
        Method::Options => "OPTIONS",
        Method::Patch => "PATCH",
        Method::Other(_) => "OTHER",
    }
}
