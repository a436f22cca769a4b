//! Frames out of a stream of bytes that comes in pieces.

use bytes::Bytes;
use rkyv::util::AlignedVec;

use super::frame::{Kind, WireError, checksum, padded};
use super::limits::{FRAME_ALIGNMENT, FRAME_HEADER_LENGTH, PAYLOAD_LENGTH_MAX, READ_LENGTH};

type Buffer = AlignedVec<FRAME_ALIGNMENT>;

/// Reads a stream: fill [`Decoder::room`], tell [`Decoder::filled`], take [`Decoder::next_frame`] until there is none.
pub struct Decoder {
    payload_max: usize,
    /// Where short frames are read, many at a time. Frames begin at aligned places of it.
    buffer: Buffer,
    /// What is not yet taken: `buffer[start..end]`.
    start: usize,
    end: usize,
    /// A frame that is longer than the buffer, and how much of it has come.
    long: Option<(Buffer, usize)>,
}

/// A whole frame whose checksums are right, as it lies in the decoder's memory.
#[derive(Clone, Debug)]
pub struct Frame<'a> {
    /// What the payload is.
    pub kind: Kind,
    /// Version of its format.
    pub version: u8,
    /// Flags of the kind.
    pub flags: u16,
    place: Place<'a>,
}

#[derive(Clone, Debug)]
enum Place<'a> {
    /// In the buffer that is read into again.
    Lent(&'a [u8]),
    /// In memory of its own.
    Own(Bytes),
}

impl Frame<'_> {
    /// The payload. A [`Decoder`]'s begins at a multiple of [`FRAME_ALIGNMENT`].
    pub fn payload(&self) -> &[u8] {
        match &self.place {
            Place::Lent(payload) => payload,
            Place::Own(payload) => payload,
        }
    }

    /// The payload to keep, at an aligned address. A short one is copied, once; a long one has memory of its own.
    pub fn share(&self) -> Bytes {
        match &self.place {
            Place::Own(payload) => payload.clone(),
            Place::Lent(payload) => {
                let mut copy = Buffer::with_capacity(payload.len());
                copy.extend_from_slice(payload);
                Bytes::from_owner(copy)
            }
        }
    }
}

/// A header that has been believed.
struct Head {
    length: usize,
    kind: Kind,
    version: u8,
    flags: u16,
    crc: u32,
}

impl Head {
    fn total(&self) -> usize {
        padded(FRAME_HEADER_LENGTH + self.length)
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder::new(PAYLOAD_LENGTH_MAX)
    }
}

impl Decoder {
    /// Accepts payloads of at most `payload_max` bytes.
    pub fn new(payload_max: usize) -> Decoder {
        let mut buffer = Buffer::with_capacity(READ_LENGTH);
        buffer.resize(READ_LENGTH, 0);
        Decoder { payload_max, buffer, start: 0, end: 0, long: None }
    }

    /// Accepts longer payloads from now on: the peer has said who it is.
    pub fn set_payload_max(&mut self, payload_max: usize) {
        self.payload_max = payload_max;
    }

    /// Where to put what comes next; never empty after [`Decoder::next_frame`] has said that there is none.
    pub fn room(&mut self) -> &mut [u8] {
        match &mut self.long {
            Some((long, filled)) => &mut long[*filled..],
            None => &mut self.buffer[self.end..],
        }
    }

    /// How many bytes were put there.
    pub fn filled(&mut self, length: usize) {
        match &mut self.long {
            Some((long, filled)) => *filled = (*filled + length).min(long.len()),
            None => self.end = (self.end + length).min(self.buffer.len()),
        }
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    /// The stream cannot be believed any more.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, WireError> {
        if let Some((long, filled)) = &self.long {
            return if *filled < long.len() { Ok(None) } else { self.take_long().map(Some) };
        }
        let waiting = &self.buffer[self.start..self.end];
        let head = match read_head(waiting, self.payload_max)? {
            Some(head) if waiting.len() >= head.total() => head,
            Some(head) if head.total() > self.buffer.len() => {
                self.begin_long(&head);
                return Ok(None);
            }
            _ => {
                self.make_room();
                return Ok(None);
            }
        };
        let start = self.start;
        self.start += head.total();
        let (header, rest) = self.buffer[start..self.start].split_at(FRAME_HEADER_LENGTH);
        let payload = verified(&head, header, rest)?;
        let Head { kind, version, flags, .. } = head;
        Ok(Some(Frame { kind, version, flags, place: Place::Lent(payload) }))
    }

    /// Moves the beginning of a frame to the buffer's start.
    fn make_room(&mut self) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
    }

    fn begin_long(&mut self, head: &Head) {
        let begun = &self.buffer[self.start..self.end];
        let mut long = Buffer::with_capacity(head.total());
        long.extend_from_slice(begun);
        let filled = long.len();
        long.resize(head.total(), 0);
        self.long = Some((long, filled));
        (self.start, self.end) = (0, 0);
    }

    fn take_long(&mut self) -> Result<Frame<'_>, WireError> {
        // Read again: the decoder that began it may have been told other limits since, and the bytes are here anyway.
        let Some((long, _)) = self.long.take() else { return Err(WireError::Damaged("frame")) };
        let head = read_head(&long, PAYLOAD_LENGTH_MAX)?.ok_or(WireError::Damaged("frame"))?;
        let (header, rest) = long.split_at(FRAME_HEADER_LENGTH);
        verified(&head, header, rest)?;
        let Head { length, kind, version, flags, .. } = head;
        let payload = Bytes::from_owner(long).slice(FRAME_HEADER_LENGTH..FRAME_HEADER_LENGTH + length);
        Ok(Frame { kind, version, flags, place: Place::Own(payload) })
    }
}

/// The frame at the beginning of `bytes` and its length with all that belongs to it, once it is whole. It stays where it lies,
/// so its payload may lie at any address: for frames that hold no archives.
///
/// # Errors
/// The stream cannot be believed any more.
pub fn split_frame(bytes: &[u8], payload_max: usize) -> Result<Option<(Frame<'_>, usize)>, WireError> {
    let Some(head) = read_head(bytes, payload_max)? else { return Ok(None) };
    let Some(whole) = bytes.get(..head.total()) else { return Ok(None) };
    let (header, rest) = whole.split_at(FRAME_HEADER_LENGTH);
    let payload = verified(&head, header, rest)?;
    let Head { kind, version, flags, .. } = head;
    Ok(Some((Frame { kind, version, flags, place: Place::Lent(payload) }, whole.len())))
}

fn read_head(bytes: &[u8], payload_max: usize) -> Result<Option<Head>, WireError> {
    let Some(header) = bytes.first_chunk::<FRAME_HEADER_LENGTH>() else { return Ok(None) };
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if crc32fast::hash(&header[..12]) != word(12) {
        return Err(WireError::Damaged("frame's header"));
    }
    let length = word(0) as usize;
    if length > payload_max {
        return Err(WireError::TooLong { what: "message", length, max: payload_max });
    }
    let flags = u16::from_le_bytes([header[6], header[7]]);
    Ok(Some(Head { length, kind: Kind(header[4]), version: header[5], flags, crc: word(8) }))
}

/// The payload, if the checksum is right.
fn verified<'a>(head: &Head, header: &[u8], rest: &'a [u8]) -> Result<&'a [u8], WireError> {
    let payload = &rest[..head.length];
    if checksum(&header[..8], payload) != head.crc {
        return Err(WireError::Damaged("frame"));
    }
    Ok(payload)
}
