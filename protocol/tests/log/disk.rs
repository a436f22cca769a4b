//! A disk in memory that can lose its power: what was not synced is then lost, torn at sectors or reordered, as a seed says.

use std::collections::BTreeMap;

use bytes::Bytes;
use muster_protocol::log::{Completion, File, FileName, Request};
use rkyv::util::AlignedVec;

const SECTOR: usize = 512;

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn one_in(&mut self, chance: u64) -> bool {
        self.below(chance) == 0
    }
}

/// A write whose sectors the power cut may lose one by one.
#[derive(Clone, Debug)]
struct Unsynced {
    file: FileName,
    offset: usize,
    bytes: Bytes,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// What a process sees.
    files: BTreeMap<FileName, Vec<u8>>,
    /// What a power cut leaves at least.
    durable: BTreeMap<FileName, Vec<u8>>,
    unsynced: Vec<Unsynced>,
    /// Bytes written, for figures.
    pub written: u64,
}

impl Disk {
    /// Does what is asked, wholly.
    pub fn obey(&mut self, request: &Request) -> Completion {
        let id = request.id();
        match request {
            Request::Create { file, size, .. } => {
                self.unsynced.retain(|write| write.file != *file);
                self.files.insert(*file, vec![0; *size as usize]);
                self.durable.insert(*file, vec![0; *size as usize]);
            }
            Request::Write { file, offset, bytes, durable, .. } => {
                self.written += bytes.len() as u64;
                let write = Unsynced { file: *file, offset: *offset as usize, bytes: bytes.clone() };
                put(&mut self.files, *file, write.offset, bytes);
                if *durable {
                    self.supersede(&write);
                    put(&mut self.durable, *file, write.offset, bytes);
                } else {
                    self.unsynced.push(write);
                }
            }
            Request::Read { file, offset, length, .. } => {
                let bytes = self.files.get(file).map_or(&[][..], |bytes| bytes);
                let from = (*offset as usize).min(bytes.len());
                let to = (from + length).min(bytes.len());
                return Completion::Bytes { id, bytes: aligned(&bytes[from..to]) };
            }
            Request::Sync { file, .. } => {
                for write in self.unsynced.extract_if(.., |write| write.file == *file) {
                    put(&mut self.durable, write.file, write.offset, &write.bytes);
                }
            }
            Request::SyncFolder { .. } => {}
            Request::Rename { from, to, .. } => {
                for files in [&mut self.files, &mut self.durable] {
                    let bytes = files.remove(from).expect("a file that was written");
                    files.insert(*to, bytes);
                }
                for write in self.unsynced.iter_mut().filter(|write| write.file == *from) {
                    write.file = *to;
                }
            }
            Request::Remove { file, .. } => {
                self.files.remove(file);
                self.durable.remove(file);
                self.unsynced.retain(|write| write.file != *file);
            }
        }
        Completion::Done { id }
    }

    /// What an earlier write left unsynced where this one writes is gone: it was replaced in the same pages.
    fn supersede(&mut self, by: &Unsynced) {
        let (from, to) = (by.offset, by.offset + by.bytes.len());
        for old in std::mem::take(&mut self.unsynced) {
            let (begin, end) = (old.offset, old.offset + old.bytes.len());
            if old.file != by.file || end <= from || begin >= to {
                self.unsynced.push(old);
                continue;
            }
            if begin < from {
                let bytes = old.bytes.slice(..from - begin);
                self.unsynced.push(Unsynced { bytes, ..old.clone() });
            }
            if end > to {
                self.unsynced.push(Unsynced { offset: to, bytes: old.bytes.slice(to - begin..), ..old });
            }
        }
    }

    /// What is left when the power goes while `request` is under way.
    pub fn cut_power(&self, request: &Request, random: &mut Random) -> Disk {
        let mut left = self.clone();
        match request {
            Request::Write { file, offset, bytes, .. } => {
                left.unsynced.push(Unsynced { file: *file, offset: *offset as usize, bytes: bytes.clone() });
            }
            Request::Create { file, size, .. } => {
                // Not there, there without its space, with some of it, or done.
                let length = [None, Some(0), Some(size / 2), Some(*size)][random.below(4) as usize];
                if let Some(length) = length {
                    left.durable.insert(*file, vec![0; length as usize]);
                }
            }
            Request::Rename { .. } | Request::Remove { .. } => {
                if random.one_in(2) {
                    left.obey(request);
                }
            }
            Request::Read { .. } | Request::Sync { .. } | Request::SyncFolder { .. } => {}
        }
        for write in std::mem::take(&mut left.unsynced) {
            let sectors = write.bytes.len().div_ceil(SECTOR).max(1) as u64;
            // How much of it survives, and which part.
            let shape = random.below(7);
            let bound = random.below(sectors);
            for (number, sector) in write.bytes.chunks(SECTOR).enumerate() {
                let number64 = number as u64;
                let survives = match shape {
                    0 => false,
                    1 => true,
                    2 => number64 < bound,
                    3 => number64 >= bound,
                    4 => number64 != bound,
                    5 => number64 == bound,
                    _ => random.one_in(2),
                };
                if survives && left.durable.contains_key(&write.file) {
                    put(&mut left.durable, write.file, write.offset + number * SECTOR, sector);
                }
            }
        }
        left.files = left.durable.clone();
        left
    }

    /// What is left when only the process is killed: everything it wrote, synced or not.
    pub fn kill(&self, request: &Request, random: &mut Random) -> Disk {
        let mut left = self.clone();
        if let Request::Write { file, offset, bytes, .. } = request {
            let write = Unsynced { file: *file, offset: *offset as usize, bytes: bytes.clone() };
            let pages = random.below(bytes.len().div_ceil(4096) as u64 + 1) as usize * 4096;
            let bytes = write.bytes.slice(..pages.min(bytes.len()));
            put(&mut left.files, *file, write.offset, &bytes);
            left.unsynced.push(Unsynced { bytes, ..write });
        }
        left
    }

    /// All files, as recovery takes them.
    pub fn files(&self) -> Vec<File> {
        self.files
            .iter()
            .map(|(name, bytes)| File { name: *name, size: bytes.len() as u64, bytes: aligned(bytes) })
            .collect()
    }

    /// Files as they were somewhere.
    pub fn restore(&mut self, files: Vec<File>) {
        self.files = files.into_iter().map(|file| (file.name, file.bytes.to_vec())).collect();
        self.durable = self.files.clone();
    }

    pub fn names(&self) -> Vec<FileName> {
        self.files.keys().copied().collect()
    }

    /// A file's bytes, to be damaged.
    pub fn bytes_mut(&mut self, file: FileName) -> &mut Vec<u8> {
        self.files.get_mut(&file).expect("a file that is there")
    }
}

fn put(files: &mut BTreeMap<FileName, Vec<u8>>, file: FileName, offset: usize, bytes: &[u8]) {
    let there = files.get_mut(&file).unwrap_or_else(|| panic!("{file} is written and was never created"));
    if there.len() < offset + bytes.len() {
        there.resize(offset + bytes.len(), 0);
    }
    there[offset..offset + bytes.len()].copy_from_slice(bytes);
}

fn aligned(bytes: &[u8]) -> Bytes {
    let mut copy = AlignedVec::<4096>::with_capacity(bytes.len());
    copy.extend_from_slice(bytes);
    Bytes::from_owner(copy)
}
