//! The first block of a segment: which one it is, eight times over, so that a damaged sector does not matter.

use bytes::Bytes;
use rkyv::util::AlignedVec;

use super::frame::{BLOCK, Home, SECTOR, put, u16_at, u32_at, u64_at};

const MAGIC: [u8; 4] = *b"MSEG";
const VERSION: u16 = 1;
/// Bytes of one copy; its CRC is its last four, in every version.
const COPY_BYTES: usize = 64;

/// What a segment's first block says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Which segment it is.
    Good(Home),
    /// Every copy is damaged or was never written.
    Bad,
    /// A later version of the program wrote it.
    Newer(u16),
}

/// The first block.
pub(super) fn head(home: Home) -> Bytes {
    let mut block = AlignedVec::<BLOCK>::with_capacity(BLOCK);
    block.resize(BLOCK, 0);
    for copy in block.chunks_exact_mut(SECTOR) {
        copy[..4].copy_from_slice(&MAGIC);
        put(copy, 4, &VERSION.to_le_bytes());
        put(copy, 8, &home.segment.to_le_bytes());
        put(copy, 16, &home.salt.to_le_bytes());
        let crc = crc32fast::hash(&copy[..COPY_BYTES - 4]);
        put(copy, COPY_BYTES - 4, &crc.to_le_bytes());
    }
    Bytes::from_owner(block)
}

/// Reads the first block of a file.
pub(super) fn read_head(bytes: &[u8]) -> Head {
    for copy in bytes.chunks(SECTOR).take(BLOCK / SECTOR) {
        let Some(copy) = copy.first_chunk::<COPY_BYTES>() else { break };
        if copy[..4] != MAGIC || crc32fast::hash(&copy[..COPY_BYTES - 4]) != u32_at(copy, COPY_BYTES - 4) {
            continue;
        }
        return match u16_at(copy, 4) {
            VERSION => Head::Good(Home { segment: u64_at(copy, 8), salt: u64_at(copy, 16) }),
            version => Head::Newer(version),
        };
    }
    Head::Bad
}

/// The salt of a new segment (SplitMix64 over the seed and its number).
pub(super) fn salt(seed: u64, segment: u64) -> u64 {
    let mut mixed = seed.wrapping_add(segment.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
