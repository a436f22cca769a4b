//! One connection: its socket, what was read and not used yet, what is to be written, and where it stands.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{IpAddr, Shutdown};
use std::path::PathBuf;
use std::time::Instant;

use bytes::Bytes;
use muster_protocol::http::Body;
use rustls::ServerConnection;

use super::budget::Room;
use super::exchange::Peer;
use super::limits;
use super::park::Ticket;
use super::policy::Admitted;
use super::respond::{Manner, Wire};
use super::stream::Flow;
use super::told::Asked;
use super::trunk::StreamEnd;
use crate::metrics::routes::Meter;
use crate::runtime::net::Socket;
use crate::runtime::spool::Spool;
use crate::runtime::tally::Share;
use crate::runtime::task::Task;

/// An entry of the slab. It holds no buffer while nothing is half read or half written.
pub struct Conn {
    /// Its bytes.
    pub line: Line,
    /// TLS, on HTTPS listeners.
    pub tls: Option<Box<ServerConnection>>,
    /// Who is at the other end.
    pub peer: Peer,
    /// Its place among the connections of its client's address.
    _share: Option<Share<IpAddr>>,
    /// Where it stands.
    pub phase: Phase,
    /// Bytes read and not used: a partial head, or later requests.
    pub input: Vec<u8>,
    /// Bytes of `input` that were searched for the end of a head in vain.
    pub searched: usize,
    /// What is still to be written.
    out: VecDeque<Bytes>,
    /// The kernel may hold more input than was read.
    pub readable: bool,
    /// The client sends nothing more, as the kernel told.
    pub hangup: bool,
    /// The end of the client's input was read.
    pub eof: bool,
    /// How the answer under way is to be given.
    pub manner: Manner,
    /// The request under way as the log names it, where that is known.
    pub asked: Option<Box<Asked>>,
    /// When there was progress last, in ticks of the server's sweep clock.
    pub progress: u32,
}

/// Where the bytes of a connection come from and go to.
pub enum Line {
    /// A socket.
    Socket(Socket),
    /// A stream of an agent's connection, for one request.
    Stream(StreamEnd),
}

impl Line {
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Line::Socket(socket) => socket.try_read(buffer),
            Line::Stream(stream) => stream.try_read(buffer),
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Line::Socket(socket) => socket.try_write(bytes),
            Line::Stream(stream) => stream.try_write(bytes),
        }
    }

    fn try_writev(&self, front: &[u8], tail: &[u8]) -> io::Result<usize> {
        match self {
            Line::Socket(socket) => socket.try_writev(&[IoSlice::new(front), IoSlice::new(tail)]),
            Line::Stream(stream) => {
                let written = stream.try_write(front)?;
                if written < front.len() {
                    return Ok(written);
                }
                Ok(written + stream.try_write(tail).unwrap_or_default())
            }
        }
    }

    fn end(&self) {
        match self {
            // The client may have closed already, which is just as well.
            Line::Socket(socket) => drop(socket.shutdown(Shutdown::Write)),
            Line::Stream(stream) => stream.end(),
        }
    }
}

/// Where a connection stands.
pub enum Phase {
    /// Between requests, or within a head.
    Head,
    /// In a request's body.
    Body(Box<Receiving>),
    /// In a request's body, a piece of which is on its way into a file.
    Spooling(Box<Receiving>),
    /// In a body that nobody wants, behind its answer.
    Discard(Body),
    /// Its query is parked.
    Parked(Ticket),
    /// Its read waits for a barrier; the number of the wait.
    Waiting(u64),
    /// A task works on its answer.
    Busy(Timing),
    /// A task waits for an answer from elsewhere; it ends with the connection.
    Asking(Box<Asking>),
    /// Its answer is sent in chunks.
    Streaming(Box<Flow>),
    /// The last answer was given: waiting for the client to take it and to close.
    Linger,
}

impl Phase {
    /// What is noted when the answer comes that a task works on.
    pub fn timing(&self) -> Option<&Timing> {
        match self {
            Phase::Busy(timing) => Some(timing),
            Phase::Asking(asking) => Some(&asking.timing),
            _ => None,
        }
    }
}

/// See [`Phase::Asking`].
pub struct Asking {
    /// What is noted when the answer comes.
    pub timing: Timing,
    /// Dropping it gives the question up.
    pub _task: Task<()>,
}

/// What is noted when an answer comes that did not come at once.
pub struct Timing {
    /// Where.
    pub meter: Meter,
    /// When it was asked for.
    pub since: Instant,
}

impl Timing {
    /// Notes it.
    pub fn end(&self, now: Instant) {
        self.meter.note(now.saturating_duration_since(self.since));
    }
}

/// A request whose body is under way.
pub struct Receiving {
    /// The request.
    pub admitted: Admitted,
    /// Where in the body.
    pub body: Body,
    /// The body so far, behind what is in `spool`.
    pub data: Vec<u8>,
    /// The body's file, once it is too large for memory.
    pub spool: Option<Spool>,
    /// Where that lies; without a folder all is kept in memory.
    pub folder: Option<PathBuf>,
    /// All of it has come.
    pub done: bool,
    /// What it takes of all bodies' room.
    pub room: Room,
    /// Its raw query, for the key of its answer.
    pub raw_query: Vec<u8>,
}

/// How far an attempt to write came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// All is written.
    All,
    /// The socket is full.
    Blocked,
    /// The connection is broken.
    Broken,
}

impl Conn {
    /// A fresh connection.
    pub fn new(
        line: Line,
        peer: Peer,
        share: Option<Share<IpAddr>>,
        tls: Option<Box<ServerConnection>>,
        tick: u32,
    ) -> Conn {
        Conn {
            line,
            tls,
            peer,
            _share: share,
            phase: Phase::Head,
            input: Vec::new(),
            searched: 0,
            out: VecDeque::new(),
            readable: true,
            hangup: false,
            eof: false,
            manner: Manner::KEEP,
            asked: None,
            progress: tick,
        }
    }

    /// Whether nothing waits to be written.
    pub fn is_flushed(&self) -> bool {
        self.out.is_empty() && !self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Whether its TLS handshake is not over.
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Whether it may take input now: it is not in the middle of an answer.
    pub fn wants_input(&self) -> bool {
        let open = matches!(self.phase, Phase::Head | Phase::Body(_) | Phase::Discard(_) | Phase::Linger);
        open && self.out.is_empty()
    }

    /// Reads once. `readable` falls when the kernel has no more.
    ///
    /// # Errors
    /// The connection is broken. "Would block" is `Ok(None)`.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let read = match &mut self.tls {
            None => self.line.try_read(buffer),
            Some(tls) => read_tls(tls, &self.line, buffer),
        };
        match read {
            Ok(0) => {
                self.eof = true;
                self.readable = false;
                Ok(Some(0))
            }
            Ok(n) => {
                // A short read emptied the socket; the end of input is told by its own event. A stream's is not.
                let is_socket = matches!(self.line, Line::Socket(_));
                if n < buffer.len() && is_socket && self.tls.is_none() && !self.hangup {
                    self.readable = false;
                }
                Ok(Some(n))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes an answer, or keeps what the socket does not take now.
    pub fn send(&mut self, wire: &Wire) -> Flushed {
        if !self.is_flushed() || self.tls.is_some() {
            self.push(Bytes::copy_from_slice(wire.front()));
            self.push(wire.tail().clone());
            return self.flush();
        }
        let written = if wire.tail().is_empty() {
            self.line.try_write(wire.front())
        } else {
            self.line.try_writev(wire.front(), wire.tail())
        };
        let written = match written {
            Ok(written) => written,
            Err(error) if is_temporary(&error) => 0,
            Err(_) => return Flushed::Broken,
        };
        if written == wire.len() {
            return Flushed::All;
        }
        let front = wire.front().len();
        if written < front {
            self.push(Bytes::copy_from_slice(&wire.front()[written..]));
        }
        self.push(wire.tail().slice(written.saturating_sub(front)..));
        Flushed::Blocked
    }

    /// Queues bytes behind what is to be written.
    pub fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.out.push_back(bytes);
        }
    }

    /// Writes what is queued.
    pub fn flush(&mut self) -> Flushed {
        let flushed = self.flush_out();
        if flushed == Flushed::All && self.out.capacity() > 0 {
            self.out = VecDeque::new();
        }
        flushed
    }

    fn flush_out(&mut self) -> Flushed {
        loop {
            if let Some(tls) = &mut self.tls {
                match drain_tls(tls, &self.line) {
                    Flushed::All => {}
                    other => return other,
                }
            }
            let Some(front) = self.out.front_mut() else { return Flushed::All };
            let written = match &mut self.tls {
                None => self.line.try_write(front),
                Some(tls) => tls.writer().write(front),
            };
            match written {
                Ok(written) if written < front.len() => *front = front.slice(written..),
                Ok(_) => drop(self.out.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Flushed::Blocked,
                Err(_) => return Flushed::Broken,
            }
        }
    }

    /// Says that nothing more will be written.
    pub fn finish_writing(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            drain_tls(tls, &self.line);
        }
        self.line.end();
    }

    /// Whether it is a stream of an agent's connection, for one request.
    pub fn is_stream(&self) -> bool {
        matches!(self.line, Line::Stream(_))
    }

    /// Keeps unused input for later.
    pub fn keep_input(&mut self, rest: &[u8]) {
        self.input.extend_from_slice(rest);
    }

    /// Whether the buffer of later requests is full.
    pub fn is_overfull(&self) -> bool {
        self.input.len() > limits::PIPELINE_MAX && !matches!(self.phase, Phase::Head)
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// A line as rustls wants it.
struct Raw<'a>(&'a Line);

impl io::Read for Raw<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl io::Write for Raw<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.try_write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn read_tls(tls: &mut ServerConnection, line: &Line, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match tls.reader().read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // A client that just closes without a goodbye has sent all it wanted: requests have their own framing.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
            read => return read,
        }
        if tls.read_tls(&mut Raw(line))? == 0 {
            return Ok(0);
        }
        let processed = tls.process_new_packets();
        drain_tls(tls, line);
        processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    }
}

/// Writes the records that are ready.
fn drain_tls(tls: &mut ServerConnection, line: &Line) -> Flushed {
    while tls.wants_write() {
        match tls.write_tls(&mut Raw(line)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Flushed::Blocked,
            Err(_) => return Flushed::Broken,
        }
    }
    Flushed::All
}
