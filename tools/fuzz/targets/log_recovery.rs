//! Any bytes as the files of a `raft` folder, and any bytes over the files that a real log wrote.
//!
//! Recovery ends, allocates in proportion, and never panics. What it accepts it also puts right: once its requests are obeyed, the next
//! recovery finds the same log and nothing to do.
#![no_main]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use muster_protocol::entry::{Configuration, Entry, EntryKind, Server, ServerId, Suffrage};
use muster_protocol::log::{
    Completion, File, FileName, Log, Notice, OnDamage, Options, Request, SnapshotEncoder, SnapshotMeta, recover,
};

/// Eight blocks: every rule about segments, few bytes to change.
const SEGMENT_BYTES: u64 = 32 << 10;

type Folder = BTreeMap<FileName, Vec<u8>>;

fuzz_target!(|data: &[u8]| {
    let Some((flags, data)) = data.split_first() else { return };
    let options = Options {
        segment_bytes: SEGMENT_BYTES,
        seed: 5,
        on_damage: if flags & 1 == 0 { OnDamage::RepairFromPeers } else { OnDamage::AcceptLoss },
        id: ServerId([1; 16]),
        expects_peers: flags & 2 != 0,
        ..Options::default()
    };
    let folder = if flags & 4 == 0 { raw(data) } else { edited(data, &options) };
    let Ok(recovered) = recover(options.clone(), files(&folder)) else { return };
    let (last, repair_until) = (recovered.log.last_index(), recovered.repair_until);
    let (entries, mut log, mut folder) = (recovered.entries, recovered.log, folder);
    assert!(obey(&mut log, &mut folder).iter().any(|notice| matches!(notice, Notice::Settled)));
    let again = recover(options, files(&folder)).expect("what was put right is in order");
    assert_eq!((again.log.last_index(), again.repair_until), (last, repair_until));
    assert_eq!(again.entries, entries);
    assert!(again.notes.is_empty(), "{:?}", again.notes);
});

/// Files as the bytes have it: a length, then as many bytes, in turn for each kind of file.
fn raw(mut data: &[u8]) -> Folder {
    let names = [
        FileName::Vote,
        FileName::Segment(1),
        FileName::Segment(2),
        FileName::Snapshot { term: 1, index: 3 },
        FileName::Snapshot { term: 1, index: 9 },
    ];
    let mut folder = Folder::new();
    for name in names {
        let Some((length, rest)) = data.split_first_chunk::<2>() else { break };
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (bytes, rest) = rest.split_at(length);
        data = rest;
        if !bytes.is_empty() {
            folder.insert(name, bytes.to_vec());
        }
    }
    folder
}

/// A log that does what the first bytes say, then changes of single bytes and sectors as the others say.
fn edited(data: &[u8], options: &Options) -> Folder {
    let (deeds, edits) = data.split_at(data.len().min(usize::from(data.first().copied().unwrap_or(0)) % 64));
    let mut folder = Folder::new();
    let mut log = recover(options.clone(), Vec::new()).expect("a new log").log;
    obey(&mut log, &mut folder);
    let mut term = 1;
    for deed in deeds {
        let size = usize::from(deed >> 3) * 130;
        match deed & 7 {
            0..=3 => append(&mut log, term, size),
            4 => {
                term += 1;
                let first = log.last_index().max(log.snapshot().map_or(0, |kept| kept.0) + 1).max(1);
                log.append(&[entry(first, term, size)]);
            }
            5 => log.save_vote(term, Some(ServerId([deed >> 3; 16]))),
            6 => snapshot(&mut log, size),
            _ => log.cut_before(log.last_index()),
        }
        if deed & 16 == 0 {
            obey(&mut log, &mut folder);
        }
    }
    obey(&mut log, &mut folder);
    for edit in edits.chunks_exact(5) {
        let names: Vec<FileName> = folder.keys().copied().collect();
        let name = names[usize::from(edit[0] & 15) % names.len()];
        let bytes = folder.get_mut(&name).expect("a name of the folder");
        if bytes.is_empty() {
            continue;
        }
        let at = usize::from(u16::from_le_bytes([edit[1], edit[2]])) % bytes.len();
        let sector = at / 512 * 512;
        let end = (sector + 512).min(bytes.len());
        match edit[0] >> 4 {
            0..=7 => bytes[at] ^= edit[3],
            8 | 9 => bytes[sector..end].fill(0),
            10 => bytes[sector..end].fill(0xEB),
            11 => bytes.truncate(at),
            12 => {
                let places = bytes.len() - (end - sector) + 1;
                bytes.copy_within(sector..end, usize::from(edit[3]) * 512 % places);
            }
            _ => bytes[at] = edit[4],
        }
    }
    folder
}

fn append(log: &mut Log, term: u64, size: usize) {
    let term = term.max(log.last_term());
    let first = log.last_index() + 1;
    log.append(&[entry(first, term, size), entry(first + 1, term, size / 2)]);
}

fn entry(index: u64, term: u64, size: usize) -> Entry {
    let server = |id: u8| Server {
        id: ServerId([id; 16]),
        name: format!("s{id}"),
        address: "10.0.0.1:8300".into(),
        suffrage: Suffrage::Voter,
    };
    let (kind, version, body) = match index {
        1 => {
            let servers = Configuration::new((1..=3).map(server).collect());
            (EntryKind::Configuration, Configuration::VERSION, servers.encode())
        }
        _ => (EntryKind::Command, 1, Bytes::from(vec![index as u8; size])),
    };
    Entry { term, index, kind, version, body }
}

fn snapshot(log: &mut Log, size: usize) {
    let index = log.durable_index();
    let newest = log.snapshot().map_or(0, |kept| kept.0);
    let Some(term) = log.term_at(index).filter(|_| index > newest) else { return };
    let meta =
        SnapshotMeta { index, term, configuration_index: 1, configuration: Configuration::default(), state_version: 1 };
    let (mut encoder, header) = SnapshotEncoder::new(&meta);
    log.snapshot_begin(index, term);
    log.snapshot_write(header);
    for piece in encoder.section(1, 1, vec![1; size].into()) {
        log.snapshot_write(piece);
    }
    log.snapshot_write(encoder.finish());
    log.snapshot_end();
}

fn files(folder: &Folder) -> Vec<File> {
    let file = |(name, bytes): (&FileName, &Vec<u8>)| File {
        name: *name,
        size: bytes.len() as u64,
        bytes: Bytes::copy_from_slice(bytes),
    };
    folder.iter().map(file).collect()
}

/// A disk without faults.
fn obey(log: &mut Log, folder: &mut Folder) -> Vec<Notice> {
    let (mut requests, mut notices) = (Vec::new(), Vec::new());
    loop {
        log.poll(Duration::ZERO, &mut requests);
        if requests.is_empty() {
            return notices;
        }
        for request in requests.drain(..) {
            let id = request.id();
            match request {
                Request::Create { file, size, .. } => {
                    folder.insert(file, vec![0; size as usize]);
                }
                Request::Write { file, offset, bytes, .. } => {
                    let there = folder.entry(file).or_default();
                    let end = offset as usize + bytes.len();
                    there.resize(there.len().max(end), 0);
                    there[offset as usize..end].copy_from_slice(&bytes);
                }
                Request::Rename { from, to, .. } => {
                    let bytes = folder.remove(&from).expect("it was written");
                    folder.insert(to, bytes);
                }
                Request::Remove { file, .. } => {
                    folder.remove(&file);
                }
                Request::Read { .. } | Request::Sync { .. } | Request::SyncFolder { .. } => {}
            }
            log.complete(Completion::Done { id }, &mut notices).expect("no fault");
        }
    }
}
