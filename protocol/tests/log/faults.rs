//! A disk that refuses: no space, errors of every kind of request. And the small promises of the face.

use std::time::Duration;

use muster_protocol::entry::{Entry, EntryKind};
use muster_protocol::log::{
    Completion, DiskError, Fatal, FileName, Log, Notice, OnDamage, Options, READS_MAX, ROOM_RETRY, Request,
    recover,
};

use crate::disk::Disk;
use crate::world::{options, snapshot_bytes};

/// A log on a disk that fails what a test says.
struct Bench {
    log: Log,
    disk: Disk,
    now: Duration,
    notices: Vec<Notice>,
    asked: Vec<Request>,
}

impl Bench {
    fn new() -> Bench {
        Bench::open(Disk::default())
    }

    fn open(disk: Disk) -> Bench {
        let log = recover(options(false), disk.files()).expect("files in order").log;
        let mut bench = Bench { log, disk, now: Duration::ZERO, notices: Vec::new(), asked: Vec::new() };
        bench.drain();
        bench
    }

    fn append(&mut self, count: u64, bytes: usize) {
        let first = self.log.last_index() + 1;
        let entries: Vec<Entry> = (first..first + count).map(|index| entry(index, 1, bytes)).collect();
        self.log.append(&entries);
    }

    fn drain(&mut self) {
        self.try_drain(|_| None).expect("no fault");
    }

    /// Lets the disk obey all, but for what `fault` says.
    fn try_drain(&mut self, fault: impl Fn(&Request) -> Option<DiskError>) -> Result<(), Fatal> {
        loop {
            let mut requests = Vec::new();
            self.log.poll(self.now, &mut requests);
            if requests.is_empty() {
                return Ok(());
            }
            for request in requests {
                let completion = match fault(&request) {
                    Some(error) => Completion::Failed { id: request.id(), error },
                    None => self.disk.obey(&request),
                };
                self.asked.push(request);
                self.log.complete(completion, &mut self.notices)?;
            }
        }
    }

    fn told(&mut self, wanted: fn(&Notice) -> bool) -> bool {
        std::mem::take(&mut self.notices).iter().any(wanted)
    }
}

fn entry(index: u64, term: u64, bytes: usize) -> Entry {
    Entry { term, index, kind: EntryKind::Command, version: 1, body: vec![index as u8; bytes].into() }
}

fn no_space_to_create(request: &Request) -> Option<DiskError> {
    matches!(request, Request::Create { .. }).then_some(DiskError::NoSpace)
}

#[test]
fn a_full_disk_is_told_before_a_write_fails_and_again_when_there_is_room() {
    let mut bench = Bench::new();
    bench.append(8, 3000);
    bench.try_drain(no_space_to_create).expect("no space for a segment is no failure");
    assert!(bench.log.is_full() && bench.told(|notice| matches!(notice, Notice::Full)));
    // What the segment has room for is still written; the rest waits.
    bench.append(3, 3000);
    bench.try_drain(no_space_to_create).expect("it fits");
    bench.append(8, 3000);
    bench.try_drain(no_space_to_create).expect("it waits");
    assert_eq!(bench.log.durable_index(), 11);
    let again = bench.log.next_deadline().expect("it will be tried again");
    assert!(again <= bench.now + ROOM_RETRY);
    bench.now = again;
    bench.try_drain(no_space_to_create).expect("still none");
    assert!(!bench.told(|notice| matches!(notice, Notice::Full | Notice::Room)), "told once");
    bench.now = bench.log.next_deadline().expect("and again");
    bench.drain();
    assert!(!bench.log.is_full() && bench.told(|notice| matches!(notice, Notice::Room)));
    assert_eq!(bench.log.durable_index(), 19);
    assert_eq!(bench.log.next_deadline(), None);
}

#[test]
fn no_space_for_a_snapshot_drops_it_and_nothing_else() {
    let mut bench = Bench::new();
    bench.append(5, 100);
    bench.drain();
    for stage in 0..3 {
        bench.log.snapshot_begin(5, 1);
        for piece in snapshot_bytes(5, 1, false) {
            bench.log.snapshot_write(piece);
        }
        bench.log.snapshot_end();
        let of_draft = |file: &FileName| matches!(file, FileName::SnapshotDraft { .. });
        bench
            .try_drain(|request| match request {
                Request::Create { file, .. } if stage == 0 && of_draft(file) => Some(DiskError::NoSpace),
                Request::Write { file, .. } if stage == 1 && of_draft(file) => Some(DiskError::NoSpace),
                Request::Rename { .. } if stage == 2 => Some(DiskError::NoSpace),
                _ => None,
            })
            .expect("no space for a snapshot is no failure");
        assert!(bench.told(|notice| matches!(notice, Notice::SnapshotFailed { index: 5, .. })));
        assert!(!bench.disk.names().iter().any(of_draft), "the draft is removed");
    }
    bench.append(1, 100);
    bench.drain();
    assert_eq!(bench.log.durable_index(), 6);
    assert_eq!(bench.log.snapshot(), None);
}

/// Every other failure ends the log at once, whatever was asked, and it asks for nothing more.
#[test]
fn a_failed_write_is_fatal_and_never_tried_again() {
    let kinds: [fn(&Request) -> bool; 7] = [
        |request| matches!(request, Request::Write { file: FileName::Segment(_), offset, .. } if *offset > 0),
        |request| matches!(request, Request::Write { file: FileName::Segment(2), offset: 0, .. }),
        |request| matches!(request, Request::Write { file: FileName::Vote, .. }),
        |request| matches!(request, Request::Create { file: FileName::Segment(_), .. }),
        |request| matches!(request, Request::Write { file: FileName::SnapshotDraft { .. }, .. }),
        |request| matches!(request, Request::Sync { .. }),
        |request| matches!(request, Request::Rename { .. } | Request::Remove { .. }),
    ];
    for kind in kinds {
        let mut bench = Bench::new();
        bench.append(20, 2000);
        bench.log.save_vote(1, None);
        bench.log.snapshot_begin(3, 1);
        for piece in snapshot_bytes(3, 1, false) {
            bench.log.snapshot_write(piece);
        }
        bench.log.snapshot_end();
        let broken = |request: &Request| kind(request).then(|| DiskError::Other("input/output error".into()));
        let fatal = bench.try_drain(broken).expect_err("it ends");
        assert!(fatal.0.contains("input/output error") && fatal.0.contains("raft"), "{fatal}");
        let mut requests = Vec::new();
        bench.log.append(&[entry(21, 1, 10)]);
        bench.log.poll(bench.now, &mut requests);
        assert!(requests.is_empty(), "nothing is asked after {fatal}");
    }
}

/// A snapshot that was dropped while it was given its name once stayed in the folder for good.
#[test]
fn a_snapshot_dropped_while_it_is_renamed_does_not_stay() {
    let mut bench = Bench::new();
    bench.append(9, 10);
    bench.drain();
    let write = |bench: &mut Bench, index: u64| {
        bench.log.snapshot_begin(index, 1);
        snapshot_bytes(index, 1, false).iter().for_each(|piece| bench.log.snapshot_write(piece.clone()));
        bench.log.snapshot_end();
    };
    write(&mut bench, 4);
    let mut requests = Vec::new();
    while !requests.iter().any(|request| matches!(request, Request::Rename { .. })) {
        for request in requests.drain(..) {
            let done = bench.disk.obey(&request);
            bench.log.complete(done, &mut bench.notices).expect("no fault");
        }
        bench.log.poll(bench.now, &mut requests);
    }
    write(&mut bench, 7);
    for request in requests {
        let done = bench.disk.obey(&request);
        bench.log.complete(done, &mut bench.notices).expect("no fault");
    }
    bench.drain();
    let snapshots = |name: &FileName| !matches!(name, FileName::Segment(_) | FileName::Vote);
    let left: Vec<FileName> = bench.disk.names().into_iter().filter(snapshots).collect();
    assert_eq!(left, [FileName::Snapshot { term: 1, index: 7 }]);
}

/// Noise in the last, partial block of a segment that was cut short was once left there, and found again at each start.
#[test]
fn a_segment_that_was_cut_short_is_put_right() {
    let mut bench = Bench::new();
    bench.append(2, 100);
    bench.drain();
    let bytes = bench.disk.bytes_mut(FileName::Segment(1));
    bytes.truncate(4 * 4096 + 106);
    bytes[3 * 4096 + 17] = 1;
    bytes[4 * 4096 + 100] = 1;
    bench.log = recover(options(false), bench.disk.files()).expect("nothing is missing").log;
    bench.drain();
    let again = recover(options(false), bench.disk.files()).expect("in order");
    assert_eq!((again.log.last_index(), again.notes), (2, Vec::<String>::new()));
}

#[test]
fn an_unasked_answer_is_fatal() {
    let mut bench = Bench::new();
    let stray = Completion::Done { id: muster_protocol::log::RequestId(9999) };
    assert!(bench.log.complete(stray, &mut bench.notices).is_err());
}

#[test]
fn a_read_that_fails_or_finds_damage_is_told_and_not_fatal() {
    let mut bench = Bench::new();
    bench.append(4, 3000);
    bench.drain();
    bench.notices.clear();
    let token = bench.log.read(1, 4, 1 << 20).expect("durable");
    bench
        .try_drain(|request| {
            matches!(request, Request::Read { .. }).then(|| DiskError::Other("input/output error".into()))
        })
        .expect("not fatal");
    let told = |notices: &[Notice]| match notices {
        [Notice::ReadFailed { token, damage: Some(damage) }] => (*token, damage.clone()),
        other => panic!("{other:?}"),
    };
    let (failed, why) = told(&std::mem::take(&mut bench.notices));
    assert!(failed == token && why.contains("log-0000000000000001.seg"), "{why}");
    bench.disk.bytes_mut(FileName::Segment(1))[5000] ^= 1;
    let token = bench.log.read(1, 4, 1 << 20).expect("durable");
    bench.drain();
    let (failed, why) = told(&std::mem::take(&mut bench.notices));
    assert!(failed == token && why.contains("offset 4096"), "{why}");
    assert_eq!(bench.log.read(5, 9, 1), None, "not there");
    assert_eq!(bench.log.read(0, 9, 1), None, "never there");
    assert!((0..READS_MAX).all(|_| bench.log.read(1, 1, 1).is_some()));
    assert_eq!(bench.log.read(1, 1, 1), None, "at the limit");
}

#[test]
fn what_is_appended_while_a_write_is_under_way_shares_the_next_one() {
    let mut bench = Bench::new();
    let mut requests = Vec::new();
    bench.append(1, 100);
    bench.log.poll(bench.now, &mut requests);
    for _ in 0..256 {
        bench.append(1, 100);
        bench.log.poll(bench.now, &mut requests);
    }
    let is_frame = |request: &&Request| {
        matches!(request, Request::Write { file: FileName::Segment(_), offset: 1.., .. })
    };
    assert_eq!(requests.iter().filter(is_frame).count(), 1, "one write is under way");
    for request in requests {
        let done = bench.disk.obey(&request);
        bench.log.complete(done, &mut bench.notices).expect("no fault");
    }
    bench.asked.clear();
    bench.drain();
    let frames: Vec<&Request> = bench.asked.iter().filter(is_frame).collect();
    assert_eq!(frames.len(), 1, "and all others are the next");
    assert!(matches!(bench.notices.last(), Some(Notice::Durable { index: 257, .. })));
}

#[test]
fn a_replaced_entry_is_never_told_durable_by_the_write_that_held_it() {
    let mut bench = Bench::new();
    bench.log.append(&[entry(1, 1, 10), entry(2, 1, 10), entry(3, 1, 10)]);
    let mut requests = Vec::new();
    bench.log.poll(bench.now, &mut requests);
    bench.log.append(&[entry(2, 2, 10)]);
    assert_eq!((bench.log.durable_index(), bench.log.last_index(), bench.log.last_term()), (0, 2, 2));
    bench.notices.clear();
    for request in requests {
        let done = bench.disk.obey(&request);
        bench.log.complete(done, &mut bench.notices).expect("no fault");
    }
    assert!(matches!(bench.notices[..], [Notice::Durable { index: 1, term: 1 }]), "{:?}", bench.notices);
    bench.notices.clear();
    bench.drain();
    assert!(matches!(bench.notices[..], [Notice::Durable { index: 2, term: 2 }]), "{:?}", bench.notices);
}

#[test]
fn votes_that_wait_share_a_save_and_each_is_told() {
    let mut bench = Bench::new();
    bench.asked.clear();
    for term in 1..=3 {
        bench.log.save_vote(term, None);
        let mut requests = Vec::new();
        bench.log.poll(bench.now, &mut requests);
        for request in requests {
            bench.asked.push(request);
        }
    }
    let first: Vec<Request> = bench
        .asked
        .drain(..)
        .filter(|request| matches!(request, Request::Write { file: FileName::Vote, .. }))
        .collect();
    assert_eq!(first.len(), 2, "one save: two slots");
    for request in first {
        let done = bench.disk.obey(&request);
        bench.log.complete(done, &mut bench.notices).expect("no fault");
    }
    bench.notices.retain(|notice| matches!(notice, Notice::VoteSaved { .. }));
    assert!(matches!(bench.notices[..], [Notice::VoteSaved { term: 1, .. }]));
    bench.notices.clear();
    bench.drain();
    assert!(matches!(
        bench.notices[..],
        [Notice::VoteSaved { term: 2, .. }, Notice::VoteSaved { term: 3, .. }]
    ));
}

#[test]
fn a_repair_marker_stays_until_it_is_lifted() {
    let mut bench = Bench::new();
    bench.log.set_repair_until(70);
    bench.drain();
    let recovered = recover(options(false), bench.disk.files()).expect("in order");
    assert_eq!(recovered.repair_until, 70);
    let mut again = Bench::open(bench.disk);
    again.log.set_repair_until(0);
    again.drain();
    assert_eq!(recover(options(false), again.disk.files()).expect("in order").repair_until, 0);
}

#[test]
fn an_operator_may_give_up_what_is_damaged() {
    let mut bench = Bench::new();
    for _ in 0..6 {
        bench.append(1, 100);
        bench.drain();
    }
    // The fourth of six frames.
    bench.disk.bytes_mut(FileName::Segment(1))[4096 * 4 + 100] ^= 1;
    let refused = recover(options(false), bench.disk.files()).expect_err("a lone server");
    assert_eq!((refused.file, refused.offset), (FileName::Segment(1), 4096 * 4));
    let text = refused.to_string();
    for needed in ["log-0000000000000001.seg", "offset 16384", "entries 4 to 6", "accept-loss", "backup"] {
        assert!(text.contains(needed), "{needed}: {text}");
    }
    let accepting = Options { on_damage: OnDamage::AcceptLoss, ..options(false) };
    let recovered = recover(accepting, bench.disk.files()).expect("the operator said so");
    assert_eq!((recovered.log.last_index(), recovered.repair_until), (3, 0));
    assert_eq!(recovered.notes.len(), 2, "{:?}", recovered.notes);
    bench.log = recovered.log;
    bench.drain();
    bench.append(2, 100);
    bench.drain();
    let again = recover(options(false), bench.disk.files()).expect("in order");
    assert_eq!((again.log.last_index(), again.notes.len()), (5, 0), "{:?}", again.notes);
}
