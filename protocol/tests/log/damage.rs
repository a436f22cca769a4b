//! Everything that can be wrong with one sector, everywhere in a small data folder: either nothing that was promised is missing, or the
//! damage is named, or (with peers) the server knows that it must fetch what is missing before it votes. Never silently less.

use std::ops::ControlFlow;

use muster_protocol::log::{FileName, OnDamage, Options, recover};

use crate::disk::{Disk, Random};
use crate::world::{Promises, World, options};

const SECTOR: usize = 512;
const BLOCK: usize = 4096;

/// A folder after a workload that filled some segments and saved two snapshots, every write finished.
fn folder(peers: bool) -> (Disk, Promises) {
    for seed in 0.. {
        let mut world = World::new(seed, peers);
        let _ = world.run(110, &mut |_, _, _| ControlFlow::Continue(()));
        let names = world.disk.names();
        let count = |wanted: fn(&FileName) -> bool| names.iter().filter(|name| wanted(name)).count();
        let segments = count(|name| matches!(name, FileName::Segment(_)));
        let snapshots = count(|name| matches!(name, FileName::Snapshot { .. }));
        // Few and small, so that every byte can be damaged; two of each, so that every rule applies.
        if (2..=4).contains(&segments)
            && snapshots == 2
            && world.log.last_index() > world.log.snapshot().unwrap().0 + 3
        {
            return (world.disk, world.promises);
        }
    }
    unreachable!("some seed gives such a folder")
}

/// How the tests went, to show that none of the outcomes is empty.
#[derive(Debug, Default)]
struct Outcomes {
    whole: u64,
    refused: u64,
    repaired: u64,
}

/// Recovers what was damaged, and requires that nothing is silently wrong.
fn examine(
    disk: &Disk,
    promises: &Promises,
    peers: bool,
    damaged: FileName,
    outcomes: &mut Outcomes,
    what: &str,
) {
    let recovered = match recover(options(peers), disk.files()) {
        Ok(recovered) => recovered,
        Err(refused) => {
            assert!(!peers || refused.file == FileName::Vote, "{what}: peers have it: {refused}");
            let text = refused.to_string();
            assert!(text.contains(&format!("{}", refused.file)) && text.contains("offset"), "{text}");
            // A hole may show elsewhere first, but in the same room of the folder. What a missing file held shows where others end.
            let kind = std::mem::discriminant::<FileName>;
            let missing = !disk.names().contains(&damaged);
            assert!(missing || kind(&refused.file) == kind(&damaged), "{what}: {refused}");
            outcomes.refused += 1;
            let accepting = Options { on_damage: OnDamage::AcceptLoss, ..options(peers) };
            let accepted = recover(accepting, disk.files());
            assert!(accepted.is_ok() || damaged == FileName::Vote, "{what}: an operator can go on");
            return;
        }
    };
    match promises.verdict(&recovered) {
        Ok(()) => {
            // Noise where the next frame would be may have been a frame: then the server asks its peers in vain.
            assert!(recovered.repair_until == 0 || peers, "{what}: nothing is missing");
            outcomes.whole += 1;
        }
        Err(why) => {
            assert!(peers, "{what}: silently wrong: {why}");
            let last = recovered.log.last_index();
            assert!(recovered.repair_until > last, "{what}: silently wrong: {why}");
            assert!(
                recovered.repair_until >= promises.last(),
                "{what}: all that may have been promised: {why}"
            );
            outcomes.repaired += 1;
        }
    }
}

/// After the repairs the folder is in order, and the next start finds nothing to do.
fn mend(disk: Disk, peers: bool, what: &str) {
    let Ok(recovered) = recover(options(peers), disk.files()) else { return };
    let (last, repair_until) = (recovered.log.last_index(), recovered.repair_until);
    let mut world = World::after(recovered, disk, Promises::default(), 1, peers);
    let _ = world.drain(u64::MAX, &mut |_, _, _| ControlFlow::Continue(()));
    let again = recover(options(peers), world.disk.files());
    let again = again.unwrap_or_else(|refused| panic!("{what}: after the repair: {refused}"));
    assert_eq!(
        (again.log.last_index(), again.repair_until),
        (last, repair_until),
        "{what}: after the repair"
    );
    assert_eq!(again.notes, Vec::<String>::new(), "{what}: after the repair");
}

type Hurt = fn(&mut [u8], &mut Random);

/// What may happen to the bytes of a sector or block.
const HURTS: [(&str, Hurt); 4] = [
    ("zeros", |bytes, _| bytes.fill(0)),
    ("unreadable", |bytes, _| bytes.fill(0xEB)),
    ("noise", |bytes, random| bytes.fill_with(|| random.next() as u8)),
    ("a flipped bit", |bytes, random| {
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << random.below(8);
    }),
];

fn every_piece(peers: bool, piece: usize) -> Outcomes {
    let (disk, promises) = folder(peers);
    let mut random = Random(piece as u64);
    let mut outcomes = Outcomes::default();
    for file in disk.names() {
        let length = disk.clone().bytes_mut(file).len();
        for at in (0..length).step_by(piece) {
            for (name, hurt) in HURTS {
                let mut disk = disk.clone();
                let bytes = disk.bytes_mut(file);
                let before = bytes[at..(at + piece).min(length)].to_vec();
                hurt(&mut bytes[at..(at + piece).min(length)], &mut random);
                if bytes[at..(at + piece).min(length)] == before[..] {
                    continue;
                }
                let what = format!("{name} in raft/{file} at {at}");
                examine(&disk, &promises, peers, file, &mut outcomes, &what);
                if random.one_in(4) {
                    mend(disk, peers, &what);
                }
            }
        }
    }
    outcomes
}

#[test]
fn no_damaged_sector_of_a_lone_server_is_silently_wrong() {
    let outcomes = every_piece(false, SECTOR);
    assert!(outcomes.whole > 0 && outcomes.refused > 0 && outcomes.repaired == 0, "{outcomes:?}");
}

#[test]
fn no_damaged_sector_stops_a_server_with_peers_or_is_silently_wrong() {
    let outcomes = every_piece(true, SECTOR);
    assert!(outcomes.whole > 0 && outcomes.repaired > 0 && outcomes.refused == 0, "{outcomes:?}");
}

#[test]
fn no_damaged_block_is_silently_wrong() {
    for peers in [false, true] {
        let outcomes = every_piece(peers, BLOCK);
        assert!(outcomes.whole > 0, "{outcomes:?}");
    }
}

#[test]
fn misdirected_and_stale_blocks_are_told_from_what_belongs_there() {
    for peers in [false, true] {
        let (disk, promises) = folder(peers);
        let mut random = Random(9);
        let mut outcomes = Outcomes::default();
        let files = disk.names();
        for target in files.iter().copied() {
            let length = disk.clone().bytes_mut(target).len();
            for at in (0..length).step_by(BLOCK) {
                let mut hurt = disk.clone();
                let from = files[random.below(files.len() as u64) as usize];
                let source = hurt.bytes_mut(from).clone();
                let blocks = (source.len().div_ceil(BLOCK)) as u64;
                let begin = random.below(blocks) as usize * BLOCK;
                let source = &source[begin..(begin + BLOCK).min(source.len())];
                let there = hurt.bytes_mut(target);
                let end = (at + source.len()).min(there.len());
                if there[at..end] == source[..end - at] {
                    continue;
                }
                there[at..end].copy_from_slice(&source[..end - at]);
                let what = format!("raft/{from} at {begin} written to raft/{target} at {at}");
                // The vote file's two slots are one block each: one of them is always left.
                examine(&hurt, &promises, peers, target, &mut outcomes, &what);
                mend(hurt, peers, &what);
            }
        }
        assert!(outcomes.whole > 0, "{outcomes:?}");
    }
}

/// Every bit of every file: some of them by default, all with `MUSTER_DAMAGE_ALL=1` (a minute in a release build).
#[test]
fn no_flipped_bit_is_silently_wrong() {
    let all = std::env::var_os("MUSTER_DAMAGE_ALL").is_some();
    for peers in [false, true] {
        let (disk, promises) = folder(peers);
        let mut outcomes = Outcomes::default();
        let mut random = Random(3);
        for file in disk.names() {
            let mut hurt = disk.clone();
            for at in 0..hurt.bytes_mut(file).len() {
                let empty = hurt.bytes_mut(file)[at..].iter().take(64).all(|byte| *byte == 0);
                let chance = if empty { 4096 } else { 96 };
                if !all && !random.one_in(chance) {
                    continue;
                }
                for bit in if all { 0..8 } else { at % 8..at % 8 + 1 } {
                    hurt.bytes_mut(file)[at] ^= 1 << bit;
                    let what = format!("bit {bit} of raft/{file} at {at}");
                    examine(&hurt, &promises, peers, file, &mut outcomes, &what);
                    hurt.bytes_mut(file)[at] ^= 1 << bit;
                }
            }
        }
        assert!(outcomes.whole > 0, "{outcomes:?}");
    }
}

#[test]
fn a_missing_file_is_told() {
    for peers in [false, true] {
        let (disk, promises) = folder(peers);
        let mut outcomes = Outcomes::default();
        for file in disk.names() {
            let mut files = disk.files();
            files.retain(|there| there.name != file);
            let mut left = Disk::default();
            left.restore(files);
            examine(&left, &promises, peers, file, &mut outcomes, &format!("raft/{file} is missing"));
        }
    }
}
