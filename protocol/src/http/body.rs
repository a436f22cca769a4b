//! Request bodies: by length or chunked, fed in any pieces.

/// The longest line of chunk size and extensions, and the longest trailer section, in bytes.
pub const CHUNK_LINE_MAX: usize = 4096;

/// A broken chunked body; the connection cannot be used further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// A chunk's length is not a hexadecimal number.
    ChunkLength,
    /// Data of a chunk, or a line of the framing, does not end with CR LF. Alone, either would be read in different
    /// ways by a proxy and by this server.
    ChunkEnd,
    /// A chunk line or the trailers exceed [`CHUNK_LINE_MAX`].
    LineTooLong,
}

impl BodyError {
    /// What is wrong, in the words of Go's `net/http`.
    pub fn text(self) -> &'static str {
        match self {
            BodyError::ChunkLength => "invalid byte in chunk length",
            BodyError::ChunkEnd => "malformed chunked encoding",
            BodyError::LineTooLong => "header line too long",
        }
    }
}

/// What [`Body::feed`] took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the input that belonged to the body.
    pub consumed: usize,
    /// Whether the body is complete; what follows is the next request.
    pub done: bool,
}

/// A decoder of one body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// So many bytes are still to come.
    Length(u64),
    /// Chunked.
    Chunked(Chunked),
}

impl Body {
    /// A chunked body from its start.
    pub fn chunked() -> Body {
        Body::Chunked(Chunked { state: State::Size { value: 0, digits: 0 }, line: 0 })
    }

    /// Takes what belongs to the body from `input` and appends its data to `out`.
    ///
    /// # Errors
    /// When the chunked framing is broken.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Progress, BodyError> {
        match self {
            Body::Length(left) => {
                let consumed = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                out.extend_from_slice(&input[..consumed]);
                *left -= consumed as u64;
                Ok(Progress { consumed, done: *left == 0 })
            }
            Body::Chunked(chunked) => chunked.feed(input, out),
        }
    }
}

/// The state of a chunked body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunked {
    state: State,
    /// Bytes of the current line, or of all trailers.
    line: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the digits of a length.
    Size { value: u64, digits: u8 },
    /// Behind the digits, up to the line end.
    Extension { value: u64, seen_cr: bool },
    /// In data.
    Data { left: u64 },
    /// Behind data: CR LF.
    DataEnd { seen_cr: bool },
    /// In the trailers; `empty`: nothing on the current line yet.
    Trailers { empty: bool, seen_cr: bool },
    /// Complete.
    Done,
}

impl Chunked {
    fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Progress, BodyError> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if let State::Data { left } = self.state {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - at);
                out.extend_from_slice(&input[at..at + take]);
                at += take;
                let left = left - take as u64;
                self.state = if left == 0 { State::DataEnd { seen_cr: false } } else { State::Data { left } };
            } else {
                self.byte(input[at])?;
                at += 1;
            }
        }
        Ok(Progress { consumed: at, done: self.state == State::Done })
    }

    fn byte(&mut self, byte: u8) -> Result<(), BodyError> {
        self.line += 1;
        if self.line > CHUNK_LINE_MAX {
            return Err(BodyError::LineTooLong);
        }
        self.state = match (self.state, byte) {
            (State::Size { value, digits }, _) => self.size(value, digits, byte)?,
            (State::Extension { value, seen_cr: true }, b'\n') => self.after_size(value),
            (State::Extension { value, seen_cr: false }, b'\r') => State::Extension { value, seen_cr: true },
            // A proxy in front may take a lone CR or LF for part of the extension and see other chunks than we.
            (State::Extension { seen_cr: true, .. }, _) | (State::Extension { .. }, b'\n') => {
                return Err(BodyError::ChunkEnd);
            }
            (state @ State::Extension { .. }, _) => state,
            (State::DataEnd { seen_cr: false }, b'\r') => State::DataEnd { seen_cr: true },
            (State::DataEnd { seen_cr: true }, b'\n') => {
                self.line = 0;
                State::Size { value: 0, digits: 0 }
            }
            (State::DataEnd { .. }, _) => return Err(BodyError::ChunkEnd),
            (State::Trailers { empty: true, seen_cr: true }, b'\n') => State::Done,
            (State::Trailers { seen_cr: true, .. }, b'\n') => State::Trailers { empty: true, seen_cr: false },
            (State::Trailers { empty, seen_cr: false }, b'\r') => State::Trailers { empty, seen_cr: true },
            (State::Trailers { seen_cr: true, .. }, _) | (State::Trailers { .. }, b'\n') => {
                return Err(BodyError::ChunkEnd);
            }
            (State::Trailers { .. }, _) => State::Trailers { empty: false, seen_cr: false },
            (state @ (State::Data { .. } | State::Done), _) => state,
        };
        Ok(())
    }

    fn size(&mut self, value: u64, digits: u8, byte: u8) -> Result<State, BodyError> {
        if let Some(digit) = char::from(byte).to_digit(16) {
            if digits == 16 {
                return Err(BodyError::ChunkLength);
            }
            return Ok(State::Size { value: value << 4 | u64::from(digit), digits: digits + 1 });
        }
        match byte {
            _ if digits == 0 => Err(BodyError::ChunkLength),
            b'\r' => Ok(State::Extension { value, seen_cr: true }),
            b';' | b' ' | b'\t' => Ok(State::Extension { value, seen_cr: false }),
            b'\n' => Err(BodyError::ChunkEnd),
            _ => Err(BodyError::ChunkLength),
        }
    }

    fn after_size(&mut self, value: u64) -> State {
        self.line = 0;
        if value == 0 { State::Trailers { empty: true, seen_cr: false } } else { State::Data { left: value } }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::encode::{chunk, last_chunk};
    use super::*;

    fn feed_all(body: &mut Body, pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), BodyError> {
        let (mut out, mut used, mut done) = (Vec::new(), 0, false);
        for piece in pieces {
            let progress = body.feed(piece, &mut out)?;
            used += progress.consumed;
            done = progress.done;
            if done {
                break;
            }
        }
        Ok((out, used, done))
    }

    #[test]
    fn refuses_broken_framing() {
        let broken = |text: &str| Body::chunked().feed(text.as_bytes(), &mut Vec::new()).err();
        assert_eq!(broken("zz\r\n"), Some(BodyError::ChunkLength));
        assert_eq!(broken("\r\n"), Some(BodyError::ChunkLength));
        assert_eq!(broken("11111111111111111\r\n"), Some(BodyError::ChunkLength));
        assert_eq!(broken("1\r\nab"), Some(BodyError::ChunkEnd));
        for bare in [
            "2\nab\r\n",
            "2;x\nab\r\n",
            "2\r\nab\n0\r\n\r\n",
            "0\r\n\n",
            "0\r\nT: v\n\r\n",
            "2\rab",
            "2;a\rb",
        ] {
            assert_eq!(broken(bare), Some(BodyError::ChunkEnd), "{bare:?}");
        }
        let long = format!("1;{}", "x".repeat(CHUNK_LINE_MAX));
        assert_eq!(broken(&long), Some(BodyError::LineTooLong));
    }

    #[test]
    fn extensions_and_trailers_are_skipped() {
        let text = b"2;a=b\r\nok\r\n0\r\nX-T: 1\r\nY: 2\r\n\r\nGET";
        let (out, used, done) = feed_all(&mut Body::chunked(), &[text]).unwrap();
        assert_eq!((out.as_slice(), used, done), (&b"ok"[..], text.len() - 3, true));
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_from_any_pieces(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..8),
            cuts in prop::collection::vec(1usize..20, 0..40),
        ) {
            let mut wire = Vec::new();
            for data in &chunks {
                chunk(&mut wire, data);
            }
            wire.extend_from_slice(last_chunk());
            let length = wire.len();
            wire.extend_from_slice(b"next");
            let mut pieces = Vec::new();
            let mut rest = &wire[..];
            for cut in cuts {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = tail;
            }
            pieces.push(rest);
            let (out, used, done) = feed_all(&mut Body::chunked(), &pieces).unwrap();
            prop_assert_eq!(out, chunks.concat());
            prop_assert_eq!(used, length);
            prop_assert!(done);
        }

        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Body::chunked().feed(&noise, &mut Vec::new());
        }
    }
}
