//! A frame: what one write puts down. A header of 96 bytes, then records, then zeros up to the next 4 KiB.
//!
//! A frame says where it belongs (segment, salt, block) and which one it is (its number over the life of the log), so that one that
//! lies elsewhere, or twice, or is old, is told from what belongs there. It says how many of its sectors are all zeros, so that a write
//! that a power cut tore (a lost sector still reads as zeros) is told from a frame that was whole once and has rotted since.

use bytes::Bytes;
use rkyv::util::AlignedVec;

use crate::entry::{BODY_ALIGNMENT, Entry, EntryKind};

/// Unit of writing and of the places of frames, bytes: the page size, and the largest sector of common disks.
pub(super) const BLOCK: usize = 4096;
/// Unit that a disk writes whole or not at all, bytes.
pub(super) const SECTOR: usize = 512;
/// Version of frames and records that this program writes.
pub(super) const VERSION: u16 = 1;
/// Bytes of a frame's header. Its CRC is its last four bytes, in every version.
pub(super) const HEADER_BYTES: usize = 96;
/// Bytes of a record's header.
pub(super) const RECORD_BYTES: usize = 32;

const MAGIC: [u8; 4] = *b"MFRM";
/// Entries before this frame are no part of the log: a snapshot took their place.
const FLAG_RESET: u16 = 1;

const _: () =
    assert!(HEADER_BYTES.is_multiple_of(BODY_ALIGNMENT) && RECORD_BYTES.is_multiple_of(BODY_ALIGNMENT));
const _: () = assert!(BLOCK.is_multiple_of(SECTOR) && HEADER_BYTES <= SECTOR);

/// Which segment, with the number that no client can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Home {
    pub segment: u64,
    pub salt: u64,
}

/// A frame's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub reset: bool,
    pub home: Home,
    /// Where in the segment, in blocks.
    pub block: u32,
    /// Number of the frame over the life of the log.
    pub sequence: u64,
    pub first_index: u64,
    /// Term of the last record.
    pub last_term: u64,
    /// Bytes of all records.
    pub length: u32,
    pub records: u32,
    /// How many of the frame's sectors hold only zeros.
    pub zero_sectors: u32,
    /// The chain of checksums before the first record and after the last.
    pub previous: u32,
    pub chain: u32,
}

/// Why bytes are no frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No frame, or a damaged one; what is wrong.
    Bad(&'static str),
    /// Written by a later version of the program.
    Newer(String),
}

impl FrameHeader {
    /// Reads the header at the start of `bytes`.
    pub fn read(bytes: &[u8]) -> Result<FrameHeader, Fault> {
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(Fault::Bad("it is too short"));
        };
        if bytes[..4] != MAGIC {
            return Err(Fault::Bad("there is no frame's header"));
        }
        if crc32fast::hash(&bytes[..92]) != u32_at(bytes, 92) {
            return Err(Fault::Bad("the checksum of the frame's header does not match"));
        }
        let version = u16_at(bytes, 4);
        let flags = u16_at(bytes, 6);
        if version != VERSION || flags & !FLAG_RESET != 0 {
            return Err(Fault::Newer(format!("a frame of version {version} (flags {flags:#x})")));
        }
        let header = FrameHeader {
            reset: flags & FLAG_RESET != 0,
            home: Home { salt: u64_at(bytes, 8), segment: u64_at(bytes, 16) },
            sequence: u64_at(bytes, 24),
            first_index: u64_at(bytes, 32),
            last_term: u64_at(bytes, 40),
            length: u32_at(bytes, 48),
            records: u32_at(bytes, 52),
            block: u32_at(bytes, 56),
            zero_sectors: u32_at(bytes, 60),
            previous: u32_at(bytes, 64),
            chain: u32_at(bytes, 68),
        };
        if header.records == 0 || header.first_index == 0 || header.sequence == 0 {
            return Err(Fault::Bad("the frame's header names no record"));
        }
        if header.first_index.checked_add(u64::from(header.records)).is_none() {
            return Err(Fault::Bad("the frame's indexes overflow"));
        }
        Ok(header)
    }

    fn write(&self, bytes: &mut [u8]) {
        bytes[..4].copy_from_slice(&MAGIC);
        put(bytes, 4, &VERSION.to_le_bytes());
        put(bytes, 6, &(if self.reset { FLAG_RESET } else { 0 }).to_le_bytes());
        put(bytes, 8, &self.home.salt.to_le_bytes());
        put(bytes, 16, &self.home.segment.to_le_bytes());
        put(bytes, 24, &self.sequence.to_le_bytes());
        put(bytes, 32, &self.first_index.to_le_bytes());
        put(bytes, 40, &self.last_term.to_le_bytes());
        put(bytes, 48, &self.length.to_le_bytes());
        put(bytes, 52, &self.records.to_le_bytes());
        put(bytes, 56, &self.block.to_le_bytes());
        put(bytes, 60, &self.zero_sectors.to_le_bytes());
        put(bytes, 64, &self.previous.to_le_bytes());
        put(bytes, 68, &self.chain.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..92]);
        put(bytes, 92, &crc.to_le_bytes());
    }

    pub fn last_index(&self) -> u64 {
        self.first_index + u64::from(self.records) - 1
    }

    /// Bytes of the whole frame with its padding.
    pub fn frame_bytes(&self) -> u64 {
        (HEADER_BYTES as u64 + u64::from(self.length)).next_multiple_of(BLOCK as u64)
    }

    /// Where in its segment it says that it lies, bytes.
    pub fn offset(&self) -> u64 {
        u64::from(self.block) * BLOCK as u64
    }
}

/// A frame that is being filled.
#[derive(Debug)]
pub(super) struct Building {
    bytes: AlignedVec<BLOCK>,
    reset: bool,
    first_index: u64,
    records: u32,
    last_term: u64,
    previous: u32,
    chain: u32,
    /// The last of its entries that no later append replaced; below `first_index` if none.
    pub live_last: u64,
}

impl Building {
    /// An empty frame after one that ended with the chain `previous`. `capacity` is a guess at its bytes.
    pub fn new(previous: u32, first_index: u64, reset: bool, capacity: usize) -> Building {
        let mut bytes = AlignedVec::with_capacity(capacity.max(BLOCK));
        bytes.resize(HEADER_BYTES, 0);
        Building {
            bytes,
            reset,
            first_index,
            records: 0,
            last_term: 0,
            previous,
            chain: previous,
            live_last: first_index - 1,
        }
    }

    /// Bytes that the frame would have with one more body of `length` bytes, without padding.
    pub fn bytes_with(&self, length: usize) -> usize {
        self.bytes.len() + RECORD_BYTES + length.next_multiple_of(BODY_ALIGNMENT)
    }

    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn padded(&self) -> usize {
        self.bytes.len().next_multiple_of(BLOCK)
    }

    pub fn first_index(&self) -> u64 {
        self.first_index
    }

    pub fn last_index(&self) -> u64 {
        self.first_index + u64::from(self.records) - 1
    }

    pub fn chain(&self) -> u32 {
        self.chain
    }

    pub fn reset(&self) -> bool {
        self.reset
    }

    /// Adds the next record.
    pub fn push(&mut self, entry: &Entry) {
        assert_eq!(
            entry.index,
            self.first_index + u64::from(self.records),
            "records of a frame follow one another"
        );
        let mut head = [0; RECORD_BYTES];
        put(&mut head, 0, &(entry.body.len() as u32).to_le_bytes());
        head[4] = entry.kind as u8;
        head[5] = entry.version;
        put(&mut head, 8, &entry.term.to_le_bytes());
        put(&mut head, 16, &entry.index.to_le_bytes());
        let chain = record_chain(self.chain, &head, &entry.body);
        put(&mut head, 24, &chain.to_le_bytes());
        put(&mut head, 28, &self.chain.to_le_bytes());
        self.bytes.extend_from_slice(&head);
        self.bytes.extend_from_slice(&entry.body);
        self.bytes.resize(self.bytes.len().next_multiple_of(BODY_ALIGNMENT), 0);
        self.chain = chain;
        self.records += 1;
        self.last_term = entry.term;
        self.live_last = entry.index;
    }

    /// The frame's bytes, now that its place is known.
    pub fn seal(mut self, home: Home, block: u32, sequence: u64) -> Bytes {
        let length = (self.bytes.len() - HEADER_BYTES) as u32;
        self.bytes.resize(self.padded(), 0);
        // The first sector holds the header, so it is never zeros, though the header is not there yet.
        let zero_sectors = self.bytes[SECTOR..].chunks_exact(SECTOR).filter(|sector| is_zero(sector)).count();
        let header = FrameHeader {
            reset: self.reset,
            home,
            block,
            sequence,
            first_index: self.first_index,
            last_term: self.last_term,
            length,
            records: self.records,
            zero_sectors: zero_sectors as u32,
            previous: self.previous,
            chain: self.chain,
        };
        header.write(&mut self.bytes);
        Bytes::from_owner(self.bytes)
    }
}

/// The chain after a record: a CRC that begins where the record before ended, over the header's fields and the body.
fn record_chain(previous: u32, head: &[u8; RECORD_BYTES], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(previous);
    crc.update(&head[..24]);
    crc.update(body);
    crc.finalize()
}

/// A record as it lies in a frame.
pub(super) struct Record {
    pub term: u64,
    pub index: u64,
    pub kind: EntryKind,
    pub version: u8,
    /// Where its body lies in the frame.
    pub body: std::ops::Range<usize>,
}

/// Checks all records of the frame at the start of `bytes` and shows each.
pub(super) fn records(header: &FrameHeader, bytes: &[u8], mut each: impl FnMut(Record)) -> Result<(), Fault> {
    let end = HEADER_BYTES + header.length as usize;
    let Some(bytes) = bytes.get(..end) else { return Err(Fault::Bad("the frame is longer than the file")) };
    let (mut at, mut chain, mut index) = (HEADER_BYTES, header.previous, header.first_index);
    while at < end {
        let Some(head) = bytes[at..].first_chunk::<RECORD_BYTES>() else {
            return Err(Fault::Bad("a record is longer than its frame"));
        };
        let length = u32_at(head, 0) as usize;
        let from = at + RECORD_BYTES;
        let Some(body) = bytes.get(from..from.saturating_add(length)) else {
            return Err(Fault::Bad("a record is longer than its frame"));
        };
        if record_chain(chain, head, body) != u32_at(head, 24) || u32_at(head, 28) != chain {
            return Err(Fault::Bad("the checksum of a record does not match"));
        }
        if u64_at(head, 16) != index {
            return Err(Fault::Bad("a record has another index than its place"));
        }
        let Some(kind) = EntryKind::of(head[4]).filter(|_| u16_at(head, 6) == 0) else {
            return Err(Fault::Newer(format!("an entry of kind {}", head[4])));
        };
        each(Record { term: u64_at(head, 8), index, kind, version: head[5], body: from..from + length });
        chain = u32_at(head, 24);
        index += 1;
        at = (from + length).next_multiple_of(BODY_ALIGNMENT);
    }
    if chain != header.chain || index != header.first_index + u64::from(header.records) || at != end {
        return Err(Fault::Bad("the records are not those that the frame's header names"));
    }
    Ok(())
}

/// The entries `from..=to` of the frame at the start of `frame`, all of it checked. Bodies share its bytes.
pub(super) fn entries(
    header: &FrameHeader,
    frame: &Bytes,
    from: u64,
    to: u64,
    out: &mut Vec<Entry>,
) -> Result<(), Fault> {
    let was = out.len();
    let read = records(header, frame, |record| {
        if (from..=to).contains(&record.index) {
            let Record { term, index, kind, version, body } = record;
            out.push(Entry { term, index, kind, version, body: frame.slice(body) });
        }
    });
    if read.is_err() {
        out.truncate(was);
    }
    read
}

/// The bytes at an address that suits bodies; a copy only if they lie at another.
pub(super) fn aligned(bytes: Bytes) -> Bytes {
    if (bytes.as_ptr() as usize).is_multiple_of(BODY_ALIGNMENT) {
        return bytes;
    }
    let mut copy = AlignedVec::<BODY_ALIGNMENT>::with_capacity(bytes.len());
    copy.extend_from_slice(&bytes);
    Bytes::from_owner(copy)
}

/// Whether all bytes are zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<16>();
    chunks.iter().all(|chunk| u128::from_ne_bytes(*chunk) == 0) && rest.iter().all(|byte| *byte == 0)
}

pub(super) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
