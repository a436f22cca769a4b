//! The fields of payloads: numbers, texts, bytes.

use super::frame::WireError;
use super::limits::TEXT_LENGTH_MAX;
use crate::entry::ServerId;

/// Appends a number.
pub fn put_u8(out: &mut Vec<u8>, value: u8) {
    out.push(value);
}

/// Appends a number.
pub fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a number.
pub fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a number.
pub fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a server's ID.
pub fn put_id(out: &mut Vec<u8>, id: ServerId) {
    out.extend_from_slice(&id.0);
}

/// Appends bytes with their length in front.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, bytes.len() as u32);
    out.extend_from_slice(bytes);
}

/// Appends a text with its length in front, cut to [`TEXT_LENGTH_MAX`] at a character.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    let end = text.floor_char_boundary(TEXT_LENGTH_MAX);
    put_bytes(out, &text.as_bytes()[..end]);
}

/// Reads the fields of a payload in order.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

const SHORT: WireError = WireError::Malformed("it ends too early");

impl<'a> Reader<'a> {
    /// From the first byte.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// How far it has read, bytes.
    pub fn position(&self) -> usize {
        self.at
    }

    /// How much is left, bytes.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `length` bytes.
    ///
    /// # Errors
    /// There are not as many.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len()).ok_or(SHORT)?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// A number.
    ///
    /// # Errors
    /// The payload has ended.
    pub fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }

    /// A number.
    ///
    /// # Errors
    /// The payload has ended.
    pub fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_le_bytes)
    }

    /// A number.
    ///
    /// # Errors
    /// The payload has ended.
    pub fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    /// A number.
    ///
    /// # Errors
    /// The payload has ended.
    pub fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A truth value.
    ///
    /// # Errors
    /// The payload has ended, or holds something else.
    pub fn bool(&mut self) -> Result<bool, WireError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Malformed("a truth value is neither 0 nor 1")),
        }
    }

    /// A server's ID.
    ///
    /// # Errors
    /// The payload has ended.
    pub fn id(&mut self) -> Result<ServerId, WireError> {
        self.array().map(ServerId)
    }

    /// Bytes with their length in front, of at most `max`.
    ///
    /// # Errors
    /// The payload has ended, or they are more.
    pub fn bytes(&mut self, max: usize) -> Result<&'a [u8], WireError> {
        let length = self.u32()? as usize;
        if length > max {
            return Err(WireError::TooLong { what: "field", length, max });
        }
        self.take(length)
    }

    /// A text with its length in front.
    ///
    /// # Errors
    /// The payload has ended, or it is too long or no text.
    pub fn text(&mut self) -> Result<String, WireError> {
        let bytes = self.bytes(TEXT_LENGTH_MAX)?;
        let text = std::str::from_utf8(bytes).map_err(|_| WireError::Malformed("a text is not UTF-8"))?;
        Ok(text.to_owned())
    }

    /// How many items follow: at most `max`, and not more than fit into what is left at `each` bytes or more.
    ///
    /// # Errors
    /// There cannot be as many.
    pub fn count(&mut self, max: usize, each: usize) -> Result<usize, WireError> {
        let count = self.u32()? as usize;
        if count > max {
            return Err(WireError::TooLong { what: "list", length: count, max });
        }
        if count.saturating_mul(each) > self.remaining() {
            return Err(SHORT);
        }
        Ok(count)
    }

    /// Requires that all was read.
    ///
    /// # Errors
    /// More follows.
    pub fn end(self) -> Result<(), WireError> {
        if self.remaining() == 0 { Ok(()) } else { Err(WireError::Malformed("it goes on past its end")) }
    }
}
