//! One stream: what has come and is not read, and how much may still come and go.

use super::Input;
use super::limits::STREAM_WINDOW;
use crate::wire::WireError;

#[derive(Debug)]
pub(super) struct Stream {
    /// What has come; the first `read` bytes of it are used up.
    input: Vec<u8>,
    read: usize,
    /// Nothing more comes.
    input_ended: bool,
    /// How much more may come.
    window: u32,
    /// How much was read since the other side was last given credit.
    consumed: u32,
    /// How much more may go.
    pub credit: u32,
    /// Our last frame has gone.
    pub ended: bool,
    /// Its owner wants to know when it may go on.
    pub waits: bool,
    /// It was given up.
    is_reset: bool,
}

impl Stream {
    pub fn new() -> Stream {
        Stream {
            input: Vec::new(),
            read: 0,
            input_ended: false,
            window: STREAM_WINDOW,
            consumed: 0,
            credit: STREAM_WINDOW,
            ended: false,
            waits: false,
            is_reset: false,
        }
    }

    pub fn is_writable(&self) -> bool {
        !self.ended && !self.is_reset
    }

    /// Whether what comes is kept for a reader.
    pub fn holds_input(&self) -> bool {
        !self.is_reset
    }

    /// Whether the other side must hear of its end: one of the two may still send.
    pub fn must_be_reset(&self) -> bool {
        let is_over = self.ended && self.input_ended;
        !(self.is_reset || is_over)
    }

    pub fn unread(&self) -> usize {
        self.input.len() - self.read
    }

    /// Takes what has come.
    ///
    /// # Errors
    /// It is more than may come.
    pub fn take(&mut self, bytes: &[u8], end: bool) -> Result<(), WireError> {
        if self.is_reset {
            return Ok(());
        }
        if self.input_ended {
            return Err(WireError::Malformed("a stream goes on behind its end"));
        }
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.window = self
            .window
            .checked_sub(length)
            .ok_or(WireError::Malformed("a stream brings more than it has credit for"))?;
        if self.read >= STREAM_WINDOW as usize / 2 {
            // Whoever reads slowly never reads all there is: what was read must go all the same.
            self.input.drain(..std::mem::take(&mut self.read));
        }
        self.input.extend_from_slice(bytes);
        self.input_ended = end;
        Ok(())
    }

    pub fn read(&mut self, buffer: &mut [u8]) -> Input {
        if self.is_reset {
            return Input::Reset;
        }
        let waiting = &self.input[self.read..];
        if waiting.is_empty() {
            return if self.input_ended { Input::End } else { Input::Empty };
        }
        let length = waiting.len().min(buffer.len());
        buffer[..length].copy_from_slice(&waiting[..length]);
        self.read += length;
        self.consumed += length as u32;
        if self.read == self.input.len() {
            self.input = Vec::new();
            self.read = 0;
        }
        Input::Read(length)
    }

    /// The credit that the other side should be given now: half a window at a time.
    pub fn credit_due(&mut self) -> Option<u32> {
        if self.input_ended || self.consumed < STREAM_WINDOW / 2 {
            return None;
        }
        let credit = std::mem::take(&mut self.consumed);
        self.window += credit;
        Some(credit)
    }

    /// The other side takes more.
    ///
    /// # Errors
    /// More than any window is.
    pub fn grant(&mut self, credit: u32) -> Result<(), WireError> {
        let granted = self.credit.checked_add(credit).filter(|credit| *credit <= STREAM_WINDOW);
        self.credit = granted.ok_or(WireError::Malformed("more credit than a stream has"))?;
        Ok(())
    }

    /// Bytes of its buffer.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.input.len()
    }

    pub fn has_input(&self) -> bool {
        self.unread() > 0 || self.input_ended || self.is_reset
    }

    /// The other side hears no more. Whether it has said all it had to say.
    pub fn is_heard_out(&mut self) -> bool {
        self.ended |= self.input_ended;
        self.input_ended
    }

    /// Gives it up; returns how much of its input nobody will read.
    pub fn reset(&mut self) -> usize {
        let unread = self.unread();
        self.input = Vec::new();
        self.read = 0;
        self.is_reset = true;
        unread
    }
}
