//! What the files say: pure over their bytes.

use std::fmt;

use bytes::Bytes;

use super::{FileName, Log, SEGMENT_BYTES, SnapshotReader};
use crate::entry::{Configuration, Entry, ServerId};

/// One file of the `raft` folder as found.
#[derive(Clone, Debug)]
pub struct File {
    /// Its name.
    pub name: FileName,
    /// Its length, bytes.
    pub size: u64,
    /// Its bytes, at an address that is a multiple of 16. Zeros at the end may be left off. Sectors that the disk cannot read are to be
    /// given as bytes of 0xEB, so that they are taken for damage, never for what was not written.
    pub bytes: Bytes,
}

/// What to do about entries that were promised and cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    /// With other voters in the last known configuration: cut the log before the damage, and neither vote nor campaign until it has grown
    /// past what may have been promised. As a lone voter: refuse. What a server runs with.
    RepairFromPeers,
    /// Cut the log before the damage and go on as if nothing had been promised beyond. Only at an operator's word.
    AcceptLoss,
}

/// How to recover.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of a new segment; a multiple of 4,096.
    pub segment_bytes: u64,
    /// Draws the salts of new segments. Nothing that a client can know.
    pub seed: u64,
    /// What to do about damage.
    pub on_damage: OnDamage,
    /// Whether this server expects to have peers, for when no configuration can be read.
    pub expects_peers: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: SEGMENT_BYTES,
            seed: 0,
            on_damage: OnDamage::RepairFromPeers,
            expects_peers: false,
        }
    }
}

/// What the files hold.
#[derive(Debug)]
pub struct Recovered {
    /// The log; unsettled: see [`super::Notice::Settled`].
    pub log: Log,
    /// The newest term this server knows of.
    pub term: u64,
    /// Whom it voted for in that term.
    pub vote: Option<ServerId>,
    /// Unless 0: neither vote nor campaign while the log's last index is below it; then `Log::set_repair_until(0)`.
    pub repair_until: u64,
    /// The newest whole snapshot, every byte checked.
    pub snapshot: Option<SnapshotReader>,
    /// All entries that the log holds, from `log.first_index()` on: also some before the snapshot's last, if they were kept. In order,
    /// without a gap. Bodies share the segment's bytes.
    pub entries: Vec<Entry>,
    /// All configurations known, the snapshot's first, then those of entries after it, each with the index of its entry.
    pub configurations: Vec<(u64, Configuration)>,
    /// What was out of order and is being put right, for the log file; empty after a clean stop.
    pub notes: Vec<String>,
}

/// Why the files cannot be used. [`fmt::Display`] is the whole message, with the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which file.
    pub file: FileName,
    /// Where in it, bytes.
    pub offset: u64,
    /// What is wrong there, and what to do.
    pub what: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {}: {}", self.file, self.offset, self.what)
    }
}

/// Reads the files of a `raft` folder: all whose names [`FileName::parse`] knows, in any order. No file: a new server.
///
/// # Errors
/// Something that was promised is gone and cannot be had from peers, or a later version wrote the files.
pub fn recover(options: Options, files: Vec<File>) -> Result<Recovered, Refused> {
    if let Some(file) = files.iter().find(|file| !file.bytes.is_empty()) {
        return Err(Refused { file: file.name, offset: 0, what: "files are not read back yet".into() });
    }
    Ok(Recovered {
        log: Log::blank(&options),
        term: 0,
        vote: None,
        repair_until: 0,
        snapshot: None,
        entries: Vec::new(),
        configurations: Vec::new(),
        notes: Vec::new(),
    })
}
