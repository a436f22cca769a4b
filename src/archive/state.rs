//! `state.bin`: a header of 16 bytes, then sections, each behind a header of 16 bytes and padded with zeros to a multiple
//! of 16, and a last header of kind 0. Numbers are little-endian.
//!
//! | header | bytes |
//! |---|---|
//! | of the file | `muster-s`, version (2), zeros (6) |
//! | of a section | kind (2), version (2), CRC-32 of its bytes (4), its length (8) |
//! | the last | zeros (4), CRC-32 of nothing (4), how many sections there were (8) |

use std::io::{self, Read};

use rkyv::util::AlignedVec;

use super::SECTION_LENGTH_MAX;
use crate::store::Section;

/// Length of every header.
const HEADER: usize = 16;
const MAGIC: &[u8; 8] = b"muster-s";
/// Version of the format above; the sections have versions of their own.
const VERSION: u16 = 1;

/// The header of the file.
pub(super) fn file_header() -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header
}

/// The header of a section.
pub(super) fn section_header(section: &Section) -> [u8; HEADER] {
    header(section.kind, section.version, crc32fast::hash(&section.bytes), section.bytes.len() as u64)
}

/// The last header.
pub(super) fn last_header(sections: u64) -> [u8; HEADER] {
    header(0, 0, 0, sections)
}

/// What follows the bytes of a section.
pub(super) fn padding(length: usize) -> &'static [u8] {
    &[0; HEADER][..length.wrapping_neg() % HEADER]
}

fn header(kind: u16, version: u16, crc: u32, number: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..2].copy_from_slice(&kind.to_le_bytes());
    header[2..4].copy_from_slice(&version.to_le_bytes());
    header[4..8].copy_from_slice(&crc.to_le_bytes());
    header[8..].copy_from_slice(&number.to_le_bytes());
    header
}

/// What `state.bin` begins with.
pub(super) enum Opening {
    /// Ours: sections follow.
    Sections,
    /// Ours, of a later version.
    Later(u16),
    /// Something else.
    Foreign,
}

/// Reads the header of the file.
///
/// # Errors
/// The source fails. A file that is too short to be ours is foreign.
pub(super) fn open(from: &mut impl Read) -> io::Result<Opening> {
    let mut header = [0; HEADER];
    match from.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Opening::Foreign),
        read => read?,
    }
    let version = u16::from_le_bytes([header[8], header[9]]);
    Ok(match &header[..8] == MAGIC {
        true if version == VERSION => Opening::Sections,
        true => Opening::Later(version),
        false => Opening::Foreign,
    })
}

/// Reads the next section; `None` behind the last, of which there are `before`.
///
/// # Errors
/// The source fails, or what it gives is no section (`InvalidData`).
pub(super) fn next_section(from: &mut impl Read, before: u64) -> io::Result<Option<Section>> {
    let mut header = [0; HEADER];
    from.read_exact(&mut header)?;
    let (kind, version) = (u16_of(&header[..2]), u16_of(&header[2..4]));
    let (crc, number) = (u32::from_le_bytes(array(&header[4..8])), u64::from_le_bytes(array(&header[8..])));
    if kind == 0 {
        return if number == before { Ok(None) } else { Err(invalid("sections are missing")) };
    }
    if number > SECTION_LENGTH_MAX {
        return Err(invalid("a section is longer than any can be"));
    }
    let length = number as usize;
    let mut bytes = AlignedVec::<16>::with_capacity(length);
    bytes.resize(length, 0);
    from.read_exact(&mut bytes)?;
    if crc32fast::hash(&bytes) != crc {
        return Err(invalid("the checksum of a section does not match"));
    }
    let mut zeros = [0; HEADER];
    from.read_exact(&mut zeros[..padding(length).len()])?;
    Ok(Some(Section { kind, version, bytes }))
}

fn u16_of(bytes: &[u8]) -> u16 {
    u16::from_le_bytes(array(bytes))
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the caller cut as many bytes as the number has")
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
