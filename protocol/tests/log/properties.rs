//! What holds for all snapshots, and for all ways to hand in entries.

use bytes::Bytes;
use muster_protocol::entry::{Entry, EntryKind, ServerId};
use muster_protocol::log::{FileName, SnapshotEncoder, SnapshotMeta, SnapshotReader, recover};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::disk::Disk;
use crate::world::{configuration, options};

fn encode(meta: &SnapshotMeta, sections: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let (mut encoder, header) = SnapshotEncoder::new(meta);
    let mut file = header.to_vec();
    for (kind, bytes) in sections {
        encoder
            .section(*kind, 3, bytes.clone().into())
            .iter()
            .for_each(|piece| file.extend_from_slice(piece));
    }
    file.extend_from_slice(&encoder.finish());
    file
}

fn meta(index: u64) -> SnapshotMeta {
    SnapshotMeta {
        index,
        term: 7,
        configuration_index: 3,
        configuration: configuration(true),
        state_version: 9,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_snapshot_gives_back_its_sections(index in 1..u64::MAX, sections in vec((any::<u16>(), vec(any::<u8>(), 0..200)), 0..6)) {
        let file = encode(&meta(index), &sections);
        let reader = SnapshotReader::open(file.into()).expect("whole");
        prop_assert_eq!(reader.meta(), &meta(index));
        prop_assert_eq!(reader.verify(), Ok(()));
        prop_assert_eq!(reader.len(), sections.len());
        for (number, (kind, bytes)) in sections.iter().enumerate() {
            let section = reader.section(number).expect("whole");
            prop_assert_eq!((section.kind, section.version, &section.bytes[..]), (*kind, 3, &bytes[..]));
        }
    }

    /// However entries are handed in and wherever the disk is behind, they come back as they were.
    #[test]
    fn entries_come_back_as_they_were(sizes in vec((0_usize..9000, any::<bool>()), 1..60)) {
        let mut log = recover(options(false), Vec::new()).expect("new").log;
        let mut disk = Disk::default();
        let mut entries: Vec<Entry> = Vec::new();
        let mut from = 0;
        for (place, (size, flush)) in sizes.iter().enumerate() {
            let body = Bytes::from(vec![place as u8; *size]);
            let index = place as u64 + 1;
            entries.push(Entry { term: 1 + index / 9, index, kind: EntryKind::Command, version: 4, body });
            if *flush {
                log.append(&entries[from..]);
                from = entries.len();
                step(&mut log, &mut disk, 1);
            }
        }
        log.append(&entries[from..]);
        step(&mut log, &mut disk, usize::MAX);
        prop_assert_eq!(log.durable_index(), entries.len() as u64);
        let recovered = recover(options(false), disk.files()).expect("in order");
        prop_assert_eq!(recovered.log.terms(), log.terms());
        prop_assert_eq!(recovered.entries, entries);
    }

    #[test]
    fn votes_come_back_as_they_were(term in any::<u64>(), vote in any::<Option<[u8; 16]>>()) {
        let mut log = recover(options(false), Vec::new()).expect("new").log;
        let mut disk = Disk::default();
        log.save_vote(term, vote.map(ServerId));
        step(&mut log, &mut disk, usize::MAX);
        let recovered = recover(options(false), disk.files()).expect("in order");
        prop_assert_eq!((recovered.term, recovered.vote), (term, vote.map(ServerId)));
    }
}

fn step(log: &mut muster_protocol::log::Log, disk: &mut Disk, rounds: usize) {
    for _ in 0..rounds {
        let mut requests = Vec::new();
        log.poll(std::time::Duration::ZERO, &mut requests);
        if requests.is_empty() {
            return;
        }
        for request in requests {
            log.complete(disk.obey(&request), &mut Vec::new()).expect("no fault");
        }
    }
}

#[test]
fn no_damaged_bit_and_no_missing_end_of_a_snapshot_passes() {
    let file = encode(&meta(12), &[(1, vec![5; 70]), (2, Vec::new()), (3, (0..=255).collect())]);
    for at in 0..file.len() * 8 {
        let mut hurt = file.clone();
        hurt[at / 8] ^= 1 << (at % 8);
        let read = SnapshotReader::open(hurt.into()).and_then(|reader| reader.verify());
        let damage = read.expect_err("no bit is unguarded");
        assert!(damage.to_string().contains("offset"), "{damage}");
    }
    for length in 0..file.len() {
        let read = SnapshotReader::open(Bytes::copy_from_slice(&file[..length]));
        assert!(read.is_err(), "the first {length} bytes");
    }
}

#[test]
fn later_versions_are_refused_by_name() {
    let mut disk = Disk::default();
    let mut log = recover(options(false), Vec::new()).expect("new").log;
    log.append(&[Entry { term: 1, index: 1, kind: EntryKind::Noop, version: 0, body: Bytes::new() }]);
    step(&mut log, &mut disk, usize::MAX);
    // (file, where its record begins, bytes that its checksum at the end covers)
    let records = [(FileName::Vote, 0, 92), (FileName::Segment(1), 0, 60), (FileName::Segment(1), 4096, 92)];
    for (file, at, covered) in records {
        let mut later = disk.clone();
        let bytes = later.bytes_mut(file);
        bytes[at + 4] = 2;
        let crc = crc32fast::hash(&bytes[at..at + covered]);
        bytes[at + covered..at + covered + 4].copy_from_slice(&crc.to_le_bytes());
        let refused = recover(options(true), later.files()).expect_err("a later version");
        assert_eq!((refused.file, refused.offset), (file, at as u64));
        assert!(refused.what.contains("later version"), "{refused}");
    }
}
