//! The snapshot file: a header, sections, a table of them and a footer, each with its checksum.

use std::fmt;

use bytes::Bytes;

use super::frame::{put, u16_at, u32_at, u64_at};
use crate::entry::{BODY_ALIGNMENT, Configuration};

/// Version of the file that this program writes.
const VERSION: u16 = 1;
const HEADER_MAGIC: [u8; 4] = *b"MSNP";
const SECTION_MAGIC: [u8; 4] = *b"MSEC";
const FOOTER_MAGIC: [u8; 4] = *b"MEND";
/// Bytes of the header before the configuration; its CRC, the last four, covers the configuration too.
const HEADER_BYTES: usize = 96;
/// Bytes before each section, of each row of the table.
const ROW_BYTES: usize = 32;
const FOOTER_BYTES: usize = 32;

/// What a snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// Index of the last entry in it.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
    /// Index of the entry that made `configuration`.
    pub configuration_index: u64,
    /// The cluster's servers as of `index`.
    pub configuration: Configuration,
    /// Version of the state machine that wrote it; for the state machine to judge.
    pub state_version: u32,
}

/// A section of a snapshot, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it is; the state machine's own number.
    pub kind: u16,
    /// Version of its format.
    pub version: u16,
    /// Its bytes, at an address that is a multiple of 16 if the file's are.
    pub bytes: Bytes,
}

/// Why a snapshot cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotDamage {
    /// Where in the file, bytes.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
    /// Nothing is: a later version of the program wrote it.
    pub newer: bool,
}

impl fmt::Display for SnapshotDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at offset {}: {}", self.offset, self.what)
    }
}

fn damage(offset: usize, what: &str) -> SnapshotDamage {
    SnapshotDamage { offset: offset as u64, what: what.to_string(), newer: false }
}

/// Makes the bytes of a snapshot file, piece by piece in order.
#[derive(Debug)]
pub struct SnapshotEncoder {
    table: Vec<u8>,
    written: u64,
    crc: crc32fast::Hasher,
}

impl SnapshotEncoder {
    /// Begins a file; the bytes are its header.
    pub fn new(meta: &SnapshotMeta) -> (SnapshotEncoder, Bytes) {
        let configuration = meta.configuration.encode();
        let mut header = vec![0; HEADER_BYTES];
        header[..4].copy_from_slice(&HEADER_MAGIC);
        put(&mut header, 4, &VERSION.to_le_bytes());
        header[6] = Configuration::VERSION;
        put(&mut header, 8, &meta.index.to_le_bytes());
        put(&mut header, 16, &meta.term.to_le_bytes());
        put(&mut header, 24, &meta.configuration_index.to_le_bytes());
        put(&mut header, 32, &(configuration.len() as u32).to_le_bytes());
        put(&mut header, 36, &meta.state_version.to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&header[..HEADER_BYTES - 4]);
        crc.update(&configuration);
        put(&mut header, HEADER_BYTES - 4, &crc.finalize().to_le_bytes());
        header.extend_from_slice(&configuration);
        header.resize(header.len().next_multiple_of(BODY_ALIGNMENT), 0);
        let mut encoder = SnapshotEncoder { table: Vec::new(), written: 0, crc: crc32fast::Hasher::new() };
        encoder.count(&header);
        (encoder, header.into())
    }

    /// The bytes of the next section, to be written one after another. The section's own bytes are shared, not copied.
    pub fn section(&mut self, kind: u16, version: u16, bytes: Bytes) -> [Bytes; 3] {
        let mut row = [0; ROW_BYTES];
        row[..4].copy_from_slice(&SECTION_MAGIC);
        put(&mut row, 4, &kind.to_le_bytes());
        put(&mut row, 6, &version.to_le_bytes());
        put(&mut row, 8, &(self.written + ROW_BYTES as u64).to_le_bytes());
        put(&mut row, 16, &(bytes.len() as u64).to_le_bytes());
        put(&mut row, 24, &crc32fast::hash(&bytes).to_le_bytes());
        let crc = crc32fast::hash(&row[..ROW_BYTES - 4]);
        put(&mut row, ROW_BYTES - 4, &crc.to_le_bytes());
        self.table.extend_from_slice(&row);
        let padding = Bytes::from_static(&[0; BODY_ALIGNMENT])
            .slice(..bytes.len().next_multiple_of(BODY_ALIGNMENT) - bytes.len());
        self.count(&row);
        self.count(&bytes);
        self.count(&padding);
        [Bytes::copy_from_slice(&row), bytes, padding]
    }

    /// The end of the file: the table and the footer.
    pub fn finish(self) -> Bytes {
        let mut end = self.table;
        let mut crc = self.crc;
        crc.update(&end);
        let mut footer = [0; FOOTER_BYTES];
        footer[..4].copy_from_slice(&FOOTER_MAGIC);
        put(&mut footer, 4, &VERSION.to_le_bytes());
        put(&mut footer, 8, &self.written.to_le_bytes());
        put(&mut footer, 16, &((end.len() / ROW_BYTES) as u32).to_le_bytes());
        put(&mut footer, 20, &crc32fast::hash(&end).to_le_bytes());
        put(&mut footer, 24, &crc.finalize().to_le_bytes());
        let crc = crc32fast::hash(&footer[..FOOTER_BYTES - 4]);
        put(&mut footer, FOOTER_BYTES - 4, &crc.to_le_bytes());
        end.extend_from_slice(&footer);
        end.into()
    }

    fn count(&mut self, bytes: &[u8]) {
        self.crc.update(bytes);
        self.written += bytes.len() as u64;
    }
}

/// Reads a whole snapshot file.
#[derive(Clone, Debug)]
pub struct SnapshotReader {
    bytes: Bytes,
    meta: SnapshotMeta,
    table: usize,
    sections: usize,
}

impl SnapshotReader {
    /// Checks the header, the footer and the table.
    ///
    /// # Errors
    /// They are damaged, or of a later version.
    pub fn open(bytes: Bytes) -> Result<SnapshotReader, SnapshotDamage> {
        let meta = read_header(&bytes)?;
        let (table, sections) = read_footer(&bytes)?;
        Ok(SnapshotReader { bytes, meta, table, sections })
    }

    /// What the snapshot holds.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// The whole file.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// How many sections there are.
    pub fn len(&self) -> usize {
        self.sections
    }

    /// Whether there is no section.
    pub fn is_empty(&self) -> bool {
        self.sections == 0
    }

    /// A section by its number, checked now.
    ///
    /// # Errors
    /// It is damaged.
    ///
    /// # Panics
    /// There is none of that number.
    pub fn section(&self, number: usize) -> Result<Section, SnapshotDamage> {
        assert!(number < self.sections, "a section that the table names");
        let row = &self.bytes[self.table + number * ROW_BYTES..][..ROW_BYTES];
        let (offset, length) = (u64_at(row, 8), u64_at(row, 16));
        let end = offset.checked_add(length).filter(|end| *end <= self.table as u64);
        let Some(end) = end else {
            return Err(damage(self.table + number * ROW_BYTES, "a section lies outside the file"));
        };
        let bytes = self.bytes.slice(offset as usize..end as usize);
        if crc32fast::hash(&bytes) != u32_at(row, 24) {
            return Err(damage(offset as usize, "the checksum of a section does not match"));
        }
        Ok(Section { kind: u16_at(row, 4), version: u16_at(row, 6), bytes })
    }

    /// Checks every byte of the file.
    ///
    /// # Errors
    /// The first damage.
    pub fn verify(&self) -> Result<(), SnapshotDamage> {
        let end = self.table + self.sections * ROW_BYTES;
        if crc32fast::hash(&self.bytes[..end]) == u32_at(&self.bytes, end + 24) {
            return Ok(());
        }
        for number in 0..self.sections {
            self.section(number)?;
        }
        Err(damage(0, "the checksum of the file does not match"))
    }

    /// Checks that the file has the name of the snapshot in it.
    pub(super) fn named(&self, index: u64, term: u64) -> Result<(), SnapshotDamage> {
        match (self.meta.index, self.meta.term) == (index, term) {
            true => Ok(()),
            false => Err(damage(0, "another snapshot lies in it than its name says")),
        }
    }
}

fn read_header(bytes: &[u8]) -> Result<SnapshotMeta, SnapshotDamage> {
    let header = bytes.first_chunk::<HEADER_BYTES>().filter(|header| header[..4] == HEADER_MAGIC);
    let Some(header) = header else { return Err(damage(0, "there is no snapshot's header")) };
    let length = u32_at(header, 32) as usize;
    let Some(configuration) = bytes.get(HEADER_BYTES..HEADER_BYTES.saturating_add(length)) else {
        return Err(damage(0, "the header is longer than the file"));
    };
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[..HEADER_BYTES - 4]);
    crc.update(configuration);
    if crc.finalize() != u32_at(header, HEADER_BYTES - 4) {
        return Err(damage(0, "the checksum of the header does not match"));
    }
    let newer = |what: String| SnapshotDamage { offset: 0, what, newer: true };
    let version = u16_at(header, 4);
    if version != VERSION {
        return Err(newer(format!(
            "a snapshot of version {version}, which a later version of the program wrote; start that version"
        )));
    }
    let configuration = Configuration::decode(header[6], configuration)
        .map_err(|why| newer(format!("{why}; start the version of the program that wrote it")))?;
    Ok(SnapshotMeta {
        index: u64_at(header, 8),
        term: u64_at(header, 16),
        configuration_index: u64_at(header, 24),
        configuration,
        state_version: u32_at(header, 36),
    })
}

/// Where the table begins, and how many sections it names.
fn read_footer(bytes: &[u8]) -> Result<(usize, usize), SnapshotDamage> {
    let at = bytes.len().saturating_sub(FOOTER_BYTES);
    let footer = bytes.last_chunk::<FOOTER_BYTES>().filter(|footer| footer[..4] == FOOTER_MAGIC);
    let Some(footer) = footer else { return Err(damage(at, "there is no footer; the file is not whole")) };
    if crc32fast::hash(&footer[..FOOTER_BYTES - 4]) != u32_at(footer, FOOTER_BYTES - 4) {
        return Err(damage(at, "the checksum of the footer does not match"));
    }
    let sections = u32_at(footer, 16) as usize;
    let begin = at.checked_sub(sections.saturating_mul(ROW_BYTES));
    let begin = begin.filter(|begin| *begin as u64 == u64_at(footer, 8));
    let Some(begin) = begin else {
        return Err(damage(at, "the table of sections is not where it should be"));
    };
    if crc32fast::hash(&bytes[begin..at]) != u32_at(footer, 20) {
        return Err(damage(begin, "the checksum of the table of sections does not match"));
    }
    Ok((begin, sections))
}
