//! The snapshot file: a header, sections, a table of them and a footer, each with its checksum.

use std::fmt;

use bytes::Bytes;

use crate::entry::Configuration;

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
}

impl fmt::Display for SnapshotDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at offset {}: {}", self.offset, self.what)
    }
}

/// Makes the bytes of a snapshot file, piece by piece in order.
#[derive(Debug)]
pub struct SnapshotEncoder {
    sections: u32,
}

impl SnapshotEncoder {
    /// Begins a file; the bytes are its header.
    pub fn new(_meta: &SnapshotMeta) -> (SnapshotEncoder, Bytes) {
        (SnapshotEncoder { sections: 0 }, Bytes::new())
    }

    /// The bytes of the next section, to be written one after another. The section's own bytes are shared, not copied.
    pub fn section(&mut self, _kind: u16, _version: u16, bytes: Bytes) -> [Bytes; 3] {
        self.sections += 1;
        [Bytes::new(), bytes, Bytes::new()]
    }

    /// The end of the file: the table and the footer.
    pub fn finish(self) -> Bytes {
        Bytes::new()
    }
}

/// Reads a whole snapshot file.
#[derive(Clone, Debug)]
pub struct SnapshotReader {
    meta: SnapshotMeta,
    sections: Vec<Section>,
}

impl SnapshotReader {
    /// Checks the header, the footer and the table.
    ///
    /// # Errors
    /// They are damaged, or of a later version.
    pub fn open(_bytes: Bytes) -> Result<SnapshotReader, SnapshotDamage> {
        Err(SnapshotDamage { offset: 0, what: "it is empty".into() })
    }

    /// What the snapshot holds.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// How many sections there are.
    pub fn len(&self) -> usize {
        self.sections.len()
    }

    /// Whether there is no section.
    pub fn is_empty(&self) -> bool {
        self.sections.is_empty()
    }

    /// A section by its number, checked now.
    ///
    /// # Errors
    /// It is damaged.
    pub fn section(&self, number: usize) -> Result<Section, SnapshotDamage> {
        Ok(self.sections[number].clone())
    }

    /// Checks every byte of the file.
    ///
    /// # Errors
    /// The first damage.
    pub fn verify(&self) -> Result<(), SnapshotDamage> {
        Ok(())
    }
}
