//! Many streams on one connection between an agent and a server: which bytes belong to which stream, and how many may be
//! under way.
//!
//! Only the agent opens streams; each carries one request there and its answer back. Bytes in, bytes out: the owner gives
//! what it has read to [`Mux::receive`] and writes what [`Mux::output`] shows. It knows no clock and no socket.
//!
//! Guarantees: the bytes of a stream arrive in order and none is lost before a reset; a stream that nobody reads holds up no
//! other one; whatever the other side sends or does not read, what is held for it is bounded (see [`limits`]).

mod frame;
pub mod limits;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

pub use frame::{Departure, MuxFrame, ResetReason};
use limits::{
    CONTROL_MAX, DATA_LENGTH_MAX, FRAME_LENGTH_MAX, INPUT_MAX, INPUT_SPARED, OUTPUT_MAX, STREAMS_MAX,
};
use stream::Stream;

use crate::wire::{FRAME_ALIGNMENT, WireError, split_frame};

/// Which side of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It opens streams.
    Agent,
    /// It takes them.
    Server,
}

/// What the other side has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MuxEvent {
    /// It has opened a stream.
    Opened(u32),
    /// There is more to read on a stream, or its end.
    Input(u32),
    /// A stream that could not be written takes more.
    Room(u32),
    /// A stream is given up. It must be closed all the same.
    Reset(u32, ResetReason),
    /// It answers a ping.
    Pong(u64),
    /// It takes no new streams.
    GoAway(Departure),
}

/// What a stream has to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// So many bytes were put into the buffer.
    Read(usize),
    /// Nothing yet.
    Empty,
    /// Nothing any more.
    End,
    /// The stream was given up, or is closed.
    Reset,
}

/// One side of a connection. See the module.
#[derive(Debug)]
pub struct Mux {
    side: Side,
    streams: BTreeMap<u32, Stream>,
    /// The lowest number that no stream had yet.
    next: u32,
    /// The beginning of a frame whose end has not come.
    partial: Vec<u8>,
    /// Whole frames, of which the first `written` bytes have left.
    out: Vec<u8>,
    written: usize,
    /// Input of all streams that is not read.
    unread: usize,
    /// Streams that wait for room in `out`, in order.
    waiting: VecDeque<u32>,
    /// The last ping that is not answered: only that one is.
    pinged: Option<u64>,
    /// We take no new streams.
    leaving: bool,
}

impl Mux {
    /// A connection on which nothing was said yet.
    pub fn new(side: Side) -> Mux {
        Mux {
            side,
            streams: BTreeMap::new(),
            next: 1,
            partial: Vec::new(),
            out: Vec::new(),
            written: 0,
            unread: 0,
            waiting: VecDeque::new(),
            pinged: None,
            leaving: false,
        }
    }

    /// How many streams are open.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Whether no stream can be opened any more: all numbers are used up.
    pub fn is_used_up(&self) -> bool {
        self.next == u32::MAX
    }

    /// Opens a stream that begins with these bytes, of which it takes as many as [`Mux::write`] would. `None` at the limit of
    /// open ones, or when all numbers are used up: then only a new connection helps.
    pub fn open(&mut self, bytes: &[u8], end: bool) -> Option<(u32, usize)> {
        assert_eq!(self.side, Side::Agent, "only agents open streams");
        if self.streams.len() >= STREAMS_MAX {
            return None;
        }
        let id = self.next;
        self.next = id.checked_add(1)?;
        self.streams.insert(id, Stream::new());
        // Streams begin in the order of their numbers, so this first frame goes whether there is room or not.
        let length = bytes.len().min(DATA_LENGTH_MAX).min(self.room());
        let (head, rest) = bytes.split_at(length);
        let whole = end && rest.is_empty();
        MuxFrame::Data { stream: id, first: true, end: whole, bytes: head }.encode(&mut self.out);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.credit -= length as u32;
            stream.ended = whole;
        }
        Some((id, length + if whole { 0 } else { self.write(id, rest, end) }))
    }

    fn room(&self) -> usize {
        OUTPUT_MAX.saturating_sub(self.out.len() - self.written)
    }

    /// Takes as many of the bytes as there is room for, and says how many. With fewer than all, [`MuxEvent::Room`] tells when
    /// to go on. `end`: nothing follows, if all are taken. A stream that was given up takes everything.
    pub fn write(&mut self, id: u32, bytes: &[u8], end: bool) -> usize {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.is_writable()) else {
            return bytes.len();
        };
        let mut taken = 0;
        loop {
            let room = OUTPUT_MAX.saturating_sub(self.out.len() - self.written);
            let left = &bytes[taken..];
            let length = left.len().min(DATA_LENGTH_MAX).min(stream.credit as usize).min(room);
            let end = end && length == left.len();
            if length == 0 && !end {
                break;
            }
            MuxFrame::Data { stream: id, first: false, end, bytes: &left[..length] }.encode(&mut self.out);
            stream.credit -= length as u32;
            stream.ended |= end;
            taken += length;
            if end {
                break;
            }
        }
        if taken < bytes.len() && !std::mem::replace(&mut stream.waits, true) && stream.credit > 0 {
            self.waiting.push_back(id);
        }
        taken
    }

    /// Says that nothing more will be written to a stream.
    pub fn end(&mut self, id: u32) {
        self.write(id, &[], true);
    }

    /// Reads what has come on a stream.
    pub fn read(&mut self, id: u32, buffer: &mut [u8]) -> Input {
        let Some(stream) = self.streams.get_mut(&id) else { return Input::Reset };
        let input = stream.read(buffer);
        if let Input::Read(length) = input {
            self.unread -= length;
            if let Some(credit) = stream.credit_due() {
                MuxFrame::Window { stream: id, credit }.encode(&mut self.out);
            }
        }
        input
    }

    /// Whether there is something to read on a stream, or its end.
    pub fn has_input(&self, id: u32) -> bool {
        self.streams.get(&id).is_none_or(Stream::has_input)
    }

    /// Forgets a stream; the other side is told if it may still expect something of it.
    pub fn close(&mut self, id: u32, reason: ResetReason) {
        let Some(stream) = self.streams.remove(&id) else { return };
        self.unread -= stream.unread();
        if stream.waits {
            self.waiting.retain(|waiting| *waiting != id);
        }
        if stream.must_be_reset() {
            MuxFrame::Reset { stream: id, reason }.encode(&mut self.out);
        }
    }

    /// Asks for a sign of life.
    pub fn ping(&mut self, token: u64) {
        MuxFrame::Ping(token).encode(&mut self.out);
    }

    /// Takes no new streams from now on.
    pub fn go_away(&mut self, departure: Departure) {
        if !std::mem::replace(&mut self.leaving, true) {
            MuxFrame::GoAway(departure).encode(&mut self.out);
        }
    }

    /// Takes bytes of the other side; what follows from them is put behind `events`.
    ///
    /// # Errors
    /// What it says cannot be believed, or it takes nothing: the connection is of no use any more.
    pub fn receive(&mut self, bytes: &[u8], events: &mut Vec<MuxEvent>) -> Result<(), WireError> {
        if self.partial.is_empty() {
            let used = self.take_frames(bytes, events)?;
            self.partial.extend_from_slice(&bytes[used..]);
        } else {
            let mut partial = std::mem::take(&mut self.partial);
            partial.extend_from_slice(bytes);
            let used = self.take_frames(&partial, events)?;
            if used < partial.len() {
                partial.drain(..used);
                self.partial = partial;
            }
        }
        if let Some(token) = self.pinged.take() {
            MuxFrame::Pong(token).encode(&mut self.out);
        }
        if self.output().len() > OUTPUT_MAX + CONTROL_MAX {
            return Err(WireError::Malformed("it asks for much and reads nothing"));
        }
        Ok(())
    }

    /// What is to be written.
    pub fn output(&self) -> &[u8] {
        &self.out[self.written..]
    }

    /// So many bytes of [`Mux::output`] have left. Streams that waited for room are told.
    pub fn sent(&mut self, length: usize, events: &mut Vec<MuxEvent>) {
        self.written += length;
        assert!(self.written <= self.out.len(), "more has left than there was");
        if self.written == self.out.len() {
            // A connection that rests holds no memory.
            self.out = Vec::new();
            self.written = 0;
        } else if self.written > OUTPUT_MAX / 2 {
            // What remains stays aligned.
            let whole = self.written - self.written % FRAME_ALIGNMENT;
            self.out.drain(..whole);
            self.written -= whole;
        }
        if self.output().len() <= OUTPUT_MAX / 2 {
            for id in std::mem::take(&mut self.waiting) {
                self.wake(id, events);
            }
        }
    }

    fn wake(&mut self, id: u32, events: &mut Vec<MuxEvent>) {
        if let Some(stream) = self.streams.get_mut(&id)
            && std::mem::take(&mut stream.waits)
        {
            events.push(MuxEvent::Room(id));
        }
    }

    /// How many bytes were used: whole frames.
    fn take_frames(&mut self, bytes: &[u8], events: &mut Vec<MuxEvent>) -> Result<usize, WireError> {
        let mut used = 0;
        while let Some((frame, length)) = split_frame(&bytes[used..], FRAME_LENGTH_MAX)? {
            used += length;
            self.obey(MuxFrame::decode(&frame)?, events)?;
        }
        Ok(used)
    }

    fn obey(&mut self, frame: MuxFrame<'_>, events: &mut Vec<MuxEvent>) -> Result<(), WireError> {
        match frame {
            MuxFrame::Data { stream, first, end, bytes } => {
                self.on_data(stream, first, end, bytes, events)?
            }
            MuxFrame::Reset { stream: id, reason } => {
                let is_answer = self.side == Side::Agent;
                let Some(stream) = self.known(id)? else { return Ok(()) };
                if is_answer && stream.is_heard_out() {
                    // The answer was given, whole, before all of the question was heard: it stays. A server that hears so has nobody left to
                    // answer: a question that waits for its answer is over.
                    events.push(MuxEvent::Input(id));
                } else {
                    self.unread -= stream.reset();
                    events.push(MuxEvent::Reset(id, reason));
                }
            }
            MuxFrame::Window { stream: id, credit } => {
                if let Some(stream) = self.known(id)? {
                    let had = stream.credit > 0;
                    stream.grant(credit)?;
                    // Who waits for room as well as for credit is in line already.
                    if !had {
                        self.wake(id, events);
                    }
                }
            }
            MuxFrame::Ping(token) => self.pinged = Some(token),
            MuxFrame::Pong(token) => events.push(MuxEvent::Pong(token)),
            MuxFrame::GoAway(departure) => events.push(MuxEvent::GoAway(departure)),
        }
        Ok(())
    }

    /// An open stream; `None` if it is closed here, and the other side does not know that yet.
    fn known(&mut self, id: u32) -> Result<Option<&mut Stream>, WireError> {
        if id == 0 || id >= self.next {
            return Err(WireError::Malformed("a stream that nobody has opened"));
        }
        Ok(self.streams.get_mut(&id))
    }

    fn on_data(
        &mut self,
        id: u32,
        first: bool,
        end: bool,
        bytes: &[u8],
        events: &mut Vec<MuxEvent>,
    ) -> Result<(), WireError> {
        if first && !self.admit(id, events)? {
            return Ok(());
        }
        let unread = self.unread;
        // An agent has asked already, and something may have been done.
        let reason = if self.side == Side::Agent { ResetReason::Broken } else { ResetReason::TooBusy };
        let Some(stream) = self.known(id)? else { return Ok(()) };
        stream.take(bytes, end)?;
        let held = stream.holds_input();
        if held && unread + bytes.len() > INPUT_MAX && stream.unread() > INPUT_SPARED {
            // Its owner is told as if the other side had given it up.
            let reset = stream.reset();
            self.unread -= reset - bytes.len();
            MuxFrame::Reset { stream: id, reason }.encode(&mut self.out);
            events.push(MuxEvent::Reset(id, reason));
        } else if held {
            self.unread += bytes.len();
            events.push(MuxEvent::Input(id));
        }
        Ok(())
    }

    /// Takes a new stream, or refuses it.
    fn admit(&mut self, id: u32, events: &mut Vec<MuxEvent>) -> Result<bool, WireError> {
        if self.side == Side::Agent {
            return Err(WireError::Malformed("a server does not open streams"));
        }
        if id < self.next {
            return Err(WireError::Malformed("a stream that was opened before"));
        }
        let Some(next) = id.checked_add(1) else {
            return Err(WireError::Malformed("the numbers of streams are used up"));
        };
        self.next = next;
        let refusal = match () {
            _ if self.leaving => ResetReason::Leaving,
            _ if self.streams.len() >= STREAMS_MAX => ResetReason::TooBusy,
            _ => {
                self.streams.insert(id, Stream::new());
                events.push(MuxEvent::Opened(id));
                return Ok(true);
            }
        };
        MuxFrame::Reset { stream: id, reason: refusal }.encode(&mut self.out);
        Ok(false)
    }
}
