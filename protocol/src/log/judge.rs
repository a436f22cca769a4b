//! What lies behind the last whole frame: nothing, a write that a power cut tore, or something that was whole once.
//!
//! One frame is written at a time into space that reads as zeros, and a disk writes a sector whole or not at all. So a torn frame is
//! one whose every bad sector is all zeros. Any other is no work of a power cut.

use super::frame::{BLOCK, FrameHeader, RECORD_BYTES, SECTOR, is_zero};
use super::scan::Scanned;

/// Sectors with no more bytes than this that are not zero, alone in empty space, are taken for bits that flipped there: a frame's first
/// sector has more than 20.
const STRAY_BYTES_MAX: usize = 4;

/// What lies at a place where the next frame would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing.
    Clean,
    /// What a power cut left of a write that was never promised, or flipped bits where nothing was written.
    Torn,
    /// A frame that may have been promised.
    Suspect {
        /// Its last index, or no less.
        last_index: u64,
        what: &'static str,
    },
}

/// Judges the space of a segment from `start` on. `sequence` and `last` are those of the last whole frame.
pub(super) fn judge(segment: &Scanned, start: u64, sequence: u64, last: u64) -> Rest {
    let end = segment.data_end as usize;
    let Some(space) = segment.bytes.get(start as usize..end).filter(|space| !is_zero(space)) else {
        return Rest::Clean;
    };
    // Were it all records without bodies, there could be no more of them.
    let most = last.saturating_add((space.len() / RECORD_BYTES) as u64);
    let first_sector = &space[..space.len().min(SECTOR)];
    if is_zero(first_sector) {
        return Rest::Torn;
    }
    let header = match FrameHeader::read(space) {
        Ok(header) => header,
        Err(_) => {
            let few = first_sector.iter().filter(|byte| **byte != 0).count() <= STRAY_BYTES_MAX;
            if few && is_zero(&space[first_sector.len()..]) {
                return Rest::Torn;
            }
            return Rest::Suspect { last_index: most, what: "the header of the last frame is damaged" };
        }
    };
    let in_place = Some(header.home) == segment.home() && header.offset() == start;
    if !in_place || header.sequence != sequence + 1 {
        let what = "a frame lies there that belongs elsewhere";
        return Rest::Suspect { last_index: header.last_index().max(most), what };
    }
    let length = header.frame_bytes() as usize;
    let (frame, beyond) = space.split_at(space.len().min(length));
    // What the file's zero end hides of the frame is zeros too.
    let hidden = (length - frame.len()) / SECTOR;
    let zeros = frame.chunks(SECTOR).filter(|sector| is_zero(sector)).count() + hidden;
    let last_index = header.last_index();
    if zeros <= header.zero_sectors as usize {
        return Rest::Suspect { last_index, what: "the last frame is damaged, and no power cut does that" };
    }
    if !is_zero(beyond) {
        return Rest::Suspect {
            last_index: last_index.max(most),
            what: "more lies there than one torn write",
        };
    }
    debug_assert!(start.is_multiple_of(BLOCK as u64));
    Rest::Torn
}
