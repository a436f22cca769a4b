//! The vote file: two slots with term, vote and repair marker, and the mark, which says how far the log was durable.
//!
//! A save writes one slot durably, then the other; the promise is given after both. So one damaged slot never hides a promise. The
//! slot that does not hold the newest state is always written first.

use bytes::Bytes;
use rkyv::util::AlignedVec;

use super::frame::{BLOCK, is_zero, put, u16_at, u32_at, u64_at};
use crate::entry::ServerId;

/// Bytes of the vote file: two slots, the mark, and a block that no version has used yet.
pub(super) const VOTE_FILE_BYTES: u64 = 4 * BLOCK as u64;
/// Where the mark lies.
pub(super) const MARK_OFFSET: u64 = 2 * BLOCK as u64;

const SLOT_MAGIC: [u8; 4] = *b"MVOT";
const MARK_MAGIC: [u8; 4] = *b"MMRK";
const VERSION: u16 = 1;
/// Bytes of a slot and of the mark; the CRC is the last four, in every version.
const RECORD_BYTES: usize = 96;

/// What a server must not forget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HardState {
    pub term: u64,
    pub vote: Option<ServerId>,
    pub repair_until: u64,
}

/// What a slot holds: the newer has the larger sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Slot {
    pub sequence: u64,
    pub state: HardState,
}

/// How far the log was durable when the mark was written; never more than it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// The last durable frame.
    pub sequence: u64,
    /// The last index in it.
    pub last_index: u64,
}

/// What lies where a slot or the mark belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found<T> {
    /// Nothing was ever written.
    Blank,
    /// It is damaged.
    Bad,
    /// A later version of the program wrote it.
    Newer(u16),
    /// This.
    Good(T),
}

impl Slot {
    pub fn encode(&self) -> Bytes {
        let mut record = [0; RECORD_BYTES];
        put(&mut record, 8, &self.sequence.to_le_bytes());
        put(&mut record, 16, &self.state.term.to_le_bytes());
        put(&mut record, 24, &self.state.repair_until.to_le_bytes());
        if let Some(vote) = self.state.vote {
            record[32] = 1;
            put(&mut record, 40, &vote.0);
        }
        block(SLOT_MAGIC, record)
    }

    /// Reads slot 0 or 1 of the file.
    pub fn read(file: &[u8], number: usize) -> Found<Slot> {
        read(file, number * BLOCK, SLOT_MAGIC, |record| Slot {
            sequence: u64_at(record, 8),
            state: HardState {
                term: u64_at(record, 16),
                repair_until: u64_at(record, 24),
                vote: (record[32] == 1)
                    .then(|| ServerId(*record[40..].first_chunk().expect("16 bytes of 96 after 40"))),
            },
        })
    }
}

impl Mark {
    pub fn encode(&self) -> Bytes {
        let mut record = [0; RECORD_BYTES];
        put(&mut record, 8, &self.sequence.to_le_bytes());
        put(&mut record, 16, &self.last_index.to_le_bytes());
        block(MARK_MAGIC, record)
    }

    pub fn read(file: &[u8]) -> Found<Mark> {
        read(file, MARK_OFFSET as usize, MARK_MAGIC, |record| Mark {
            sequence: u64_at(record, 8),
            last_index: u64_at(record, 16),
        })
    }
}

fn block(magic: [u8; 4], mut record: [u8; RECORD_BYTES]) -> Bytes {
    record[..4].copy_from_slice(&magic);
    put(&mut record, 4, &VERSION.to_le_bytes());
    let crc = crc32fast::hash(&record[..RECORD_BYTES - 4]);
    put(&mut record, RECORD_BYTES - 4, &crc.to_le_bytes());
    let mut block = AlignedVec::<BLOCK>::with_capacity(BLOCK);
    block.extend_from_slice(&record);
    block.resize(BLOCK, 0);
    Bytes::from_owner(block)
}

fn read<T>(
    file: &[u8],
    offset: usize,
    magic: [u8; 4],
    decode: impl FnOnce(&[u8; RECORD_BYTES]) -> T,
) -> Found<T> {
    let there = file.get(offset..).unwrap_or_default();
    let there = &there[..there.len().min(RECORD_BYTES)];
    let mut record = [0; RECORD_BYTES];
    record[..there.len()].copy_from_slice(there);
    let record = &record;
    if is_zero(record) {
        return Found::Blank;
    }
    if record[..4] != magic
        || crc32fast::hash(&record[..RECORD_BYTES - 4]) != u32_at(record, RECORD_BYTES - 4)
    {
        return Found::Bad;
    }
    match u16_at(record, 4) {
        VERSION => Found::Good(decode(record)),
        version => Found::Newer(version),
    }
}
