//! The fields of what events, queries and requests to the keyring look like in a message: like those of [`wire`](crate::wire), with
//! lengths of one or two bytes, since a packet is small.

use crate::wire::{Reader, WireError, put_u8, put_u16};

/// Appends up to 255 bytes with their length in front.
pub fn put_short(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u8(out, u8::try_from(bytes.len()).expect("what is short was bounded where it came in"));
    out.extend_from_slice(bytes);
}

/// Appends up to 65,535 bytes with their length in front.
pub fn put_long(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u16(out, u16::try_from(bytes.len()).expect("what is long was bounded where it came in"));
    out.extend_from_slice(bytes);
}

/// Reads what [`put_short`] has written, of at most `max` bytes.
pub fn short<'a>(reader: &mut Reader<'a>, max: usize) -> Result<&'a [u8], WireError> {
    let length = usize::from(reader.u8()?);
    bounded(reader, length, max)
}

/// Reads what [`put_long`] has written, of at most `max` bytes.
pub fn long<'a>(reader: &mut Reader<'a>, max: usize) -> Result<&'a [u8], WireError> {
    let length = usize::from(reader.u16()?);
    bounded(reader, length, max)
}

/// Reads a short text.
pub fn text<'a>(reader: &mut Reader<'a>, max: usize) -> Result<&'a str, WireError> {
    as_text(short(reader, max)?)
}

/// Reads a text of two bytes' length.
pub fn long_text<'a>(reader: &mut Reader<'a>, max: usize) -> Result<&'a str, WireError> {
    as_text(long(reader, max)?)
}

fn bounded<'a>(reader: &mut Reader<'a>, length: usize, max: usize) -> Result<&'a [u8], WireError> {
    if length > max {
        return Err(WireError::TooLong { what: "field", length, max });
    }
    reader.take(length)
}

fn as_text(bytes: &[u8]) -> Result<&str, WireError> {
    std::str::from_utf8(bytes).map_err(|_| WireError::Malformed("a text is not UTF-8"))
}
