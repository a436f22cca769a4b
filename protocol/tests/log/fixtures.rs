//! Folders that released versions wrote, and that every later one must read: never write one anew, add the next version's beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_protocol::entry::{Configuration, Entry, EntryKind, ServerId};
use muster_protocol::log::{File, FileName, Log, Recovered, SnapshotEncoder, SnapshotMeta, recover};

use crate::disk::Disk;
use crate::world::{configuration, options};

fn folder(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/log-v{version}"))
}

/// What version 1's folder holds.
fn entries() -> Vec<Entry> {
    let command = |index: u64, term: u64, length: usize| Entry {
        term,
        index,
        kind: EntryKind::Command,
        version: 1,
        body: (0..length).map(|at| (index as usize * 7 + at) as u8).collect::<Vec<u8>>().into(),
    };
    let servers = configuration(true).encode();
    let mut entries = vec![
        Entry {
            term: 1,
            index: 1,
            kind: EntryKind::Configuration,
            version: Configuration::VERSION,
            body: servers,
        },
        Entry { term: 2, index: 2, kind: EntryKind::Noop, version: 0, body: Default::default() },
    ];
    entries.extend(
        [0, 1, 15, 16, 17, 600, 5000, 64, 64].iter().zip(3..).map(|(length, at)| command(at, 2, *length)),
    );
    entries
}

fn meta() -> SnapshotMeta {
    SnapshotMeta {
        index: 6,
        term: 2,
        configuration_index: 1,
        configuration: configuration(true),
        state_version: 1,
    }
}

const SECTIONS: [(u16, u16, &[u8]); 2] = [(1, 1, b"the first section"), (9, 2, &[0; 40])];

#[test]
fn the_folder_that_version_1_wrote_is_read() {
    let mut files = Vec::new();
    for there in fs::read_dir(folder(1)).expect("the fixture") {
        let there = there.expect("a file");
        let name = FileName::parse(&there.file_name().to_string_lossy()).expect("a file of the log");
        let bytes = fs::read(there.path()).expect("a file");
        // Zeros at the end of segments were left off.
        let size = match name {
            FileName::Segment(_) => options(true).segment_bytes,
            _ => bytes.len() as u64,
        };
        files.push(File { name, size, bytes: bytes.into() });
    }
    let recovered = recover(options(true), files).expect("version 1 is readable for ever");
    let Recovered { term, vote, repair_until, snapshot, entries: found, configurations, notes, log } =
        recovered;
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(found, entries());
    assert_eq!((term, vote, repair_until), (3, Some(ServerId([2; 16])), 11));
    assert_eq!(configurations, [(1, configuration(true))]);
    assert_eq!((log.first_index(), log.last_index(), log.last_term()), (1, 11, 2));
    let snapshot = snapshot.expect("a snapshot");
    assert_eq!(snapshot.meta(), &meta());
    for (number, (kind, version, bytes)) in SECTIONS.into_iter().enumerate() {
        let section = snapshot.section(number).expect("whole");
        assert_eq!((section.kind, section.version, &section.bytes[..]), (kind, version, bytes));
    }
}

/// Writes the fixture of the current version. Only for a version that has none yet:
/// `cargo test -p muster-protocol --test log write_the_fixture -- --ignored`.
#[test]
#[ignore = "writes into the source tree"]
fn write_the_fixture() {
    let mut log = recover(options(true), Vec::new()).expect("new").log;
    let mut disk = Disk::default();
    log.save_vote(3, Some(ServerId([2; 16])));
    log.set_repair_until(11);
    let entries = entries();
    log.append(&entries[..2]);
    drain(&mut log, &mut disk);
    // Replaced by the next frame.
    let stale = Entry { term: 1, index: 2, ..entries[4].clone() };
    log.append(&[stale]);
    drain(&mut log, &mut disk);
    log.append(&entries[1..7]);
    drain(&mut log, &mut disk);
    log.append(&entries[7..]);
    drain(&mut log, &mut disk);
    let (mut encoder, header) = SnapshotEncoder::new(&meta());
    log.snapshot_begin(6, 2);
    log.snapshot_write(header);
    for (kind, version, bytes) in SECTIONS {
        encoder
            .section(kind, version, bytes.into())
            .iter()
            .for_each(|piece| log.snapshot_write(piece.clone()));
    }
    log.snapshot_write(encoder.finish());
    log.snapshot_end();
    drain(&mut log, &mut disk);
    fs::create_dir_all(folder(1)).expect("a folder");
    for file in disk.files() {
        let whole = file.bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let kept = if matches!(file.name, FileName::Segment(_)) { whole } else { file.bytes.len() };
        fs::write(folder(1).join(file.name.to_string()), &file.bytes[..kept]).expect("a file");
    }
}

fn drain(log: &mut Log, disk: &mut Disk) {
    loop {
        let mut requests = Vec::new();
        log.poll(Duration::ZERO, &mut requests);
        if requests.is_empty() {
            return;
        }
        for request in requests {
            log.complete(disk.obey(&request), &mut Vec::new()).expect("no fault");
        }
    }
}
