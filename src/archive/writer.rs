//! Making an archive.

use std::io::Write;

use bytes::Bytes;
use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};

use super::meta::{Meta, Server, Servers, peers};
use super::sums::{self, Sum};
use super::{META, STATE, SUMS, state, tar};
use crate::store::{Section, State};

/// zlib's level: most of an archive's time is spent here, and more saves little.
const LEVEL: u32 = 3;

/// Bytes that [`Writer::next_piece`] gathers before it hands them out.
const PIECE: usize = 256 << 10;

/// What an archive says of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Term of the leader.
    pub term: u64,
    /// The servers.
    pub servers: Vec<Server>,
    /// Index of the entry that made them.
    pub configuration_index: u64,
    /// Now, in milliseconds of Unix time.
    pub unix_ms: u64,
}

/// Makes an archive of a state, piece by piece. The sections are made twice, as `meta.json` and the header of `state.bin` tell
/// their length before they come: that is cheaper than to keep them.
pub struct Writer {
    sections: Box<dyn Iterator<Item = Section> + Send>,
    step: Step,
    meta: Meta,
    sum: Sum,
    count: u64,
    unix_seconds: u64,
    out: flate2::write::GzEncoder<Vec<u8>>,
}

enum Step {
    Begin,
    Sections,
    Ended,
}

impl Writer {
    /// Goes through the whole state once: takes a while.
    pub fn new(state: &State, facts: Facts) -> Writer {
        let mut hash = Sha256::new();
        let mut size = 0;
        let mut count = 0;
        let mut add = |bytes: &[u8]| {
            hash.update(bytes);
            size += bytes.len() as u64;
        };
        add(&state::file_header());
        for section in state.sections() {
            add(&state::section_header(&section));
            add(&section.bytes);
            add(state::padding(section.bytes.len()));
            count += 1;
        }
        add(&state::last_header(count));
        let index = state.index();
        let meta = Meta {
            version: 1,
            id: format!("{}-{index}-{}", facts.term, facts.unix_ms),
            index,
            term: facts.term,
            peers: Some(peers(&facts.servers)),
            configuration: Servers { servers: Some(facts.servers) },
            configuration_index: facts.configuration_index,
            size,
        };
        Writer {
            sections: Box::new(state.sections()),
            step: Step::Begin,
            meta,
            sum: hash.finalize().into(),
            count,
            unix_seconds: facts.unix_ms / 1000,
            // What Go's writer puts there: an unknown system.
            out: GzBuilder::new().operating_system(255).write(Vec::new(), Compression::new(LEVEL)),
        }
    }

    /// What the archive says of itself.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The next bytes; `None` behind the last. Takes up to some tens of milliseconds.
    pub fn next_piece(&mut self) -> Option<Bytes> {
        while self.out.get_ref().len() < PIECE {
            match self.step {
                Step::Begin => self.begin(),
                Step::Sections => match self.sections.next() {
                    Some(section) => self.section(&section),
                    None => self.end(),
                },
                Step::Ended => {
                    let last = std::mem::take(self.out.get_mut());
                    return (!last.is_empty()).then(|| last.into());
                }
            }
        }
        Some(std::mem::take(self.out.get_mut()).into())
    }

    fn begin(&mut self) {
        let meta = self.meta.encode();
        self.file_head(META, meta.len() as u64);
        self.put(&meta);
        self.put(tar::padding(meta.len() as u64));
        self.file_head(STATE, self.meta.size);
        self.put(&state::file_header());
        self.step = Step::Sections;
    }

    fn section(&mut self, section: &Section) {
        self.put(&state::section_header(section));
        self.put(&section.bytes);
        self.put(state::padding(section.bytes.len()));
    }

    fn end(&mut self) {
        self.put(&state::last_header(self.count));
        self.put(tar::padding(self.meta.size));
        let sums = sums::encode(&[(STATE, self.sum), (META, Sha256::digest(self.meta.encode()).into())]);
        self.file_head(SUMS, sums.len() as u64);
        self.put(&sums);
        self.put(tar::padding(sums.len() as u64));
        self.put(&tar::END);
        self.out.try_finish().expect("memory takes all");
        self.step = Step::Ended;
    }

    fn file_head(&mut self, name: &str, length: u64) {
        let header = tar::header(name, length, self.unix_seconds);
        self.put(&header);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.out.write_all(bytes).expect("memory takes all");
    }
}
