//! What the log's core costs: appends of small writes in groups, from entries to the bytes of a frame and back; and recovery.

#![allow(missing_docs)] // criterion's macro makes a public function

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use muster_protocol::entry::{Entry, EntryKind};
use muster_protocol::log::{Completion, File, FileName, Log, Options, Request, recover};

/// Body of a PUT of 64 bytes as the command that is proposed.
const BODY_BYTES: usize = 176;

fn settled() -> Log {
    let mut log = recover(Options::default(), Vec::new()).expect("a new log").log;
    obey(&mut log);
    log
}

/// A disk that does all at once; the bytes that went into segments.
fn obey(log: &mut Log) -> u64 {
    let (mut requests, mut notices, mut bytes) = (Vec::new(), Vec::new(), 0);
    loop {
        log.poll(Duration::ZERO, &mut requests);
        if requests.is_empty() {
            return bytes;
        }
        for request in requests.drain(..) {
            if let Request::Write { file: FileName::Segment(_), bytes: written, .. } = &request {
                bytes += written.len() as u64;
            }
            log.complete(Completion::Done { id: request.id() }, &mut notices).expect("no fault");
        }
        notices.clear();
    }
}

fn entries(first: u64, count: u64, body: &Bytes) -> Vec<Entry> {
    let entry = |index| Entry { term: 1, index, kind: EntryKind::Command, version: 1, body: body.clone() };
    (first..first + count).map(entry).collect()
}

fn append(criterion: &mut Criterion) {
    let body = Bytes::from(vec![7; BODY_BYTES]);
    for count in [1, 16, 256] {
        let mut group = criterion.benchmark_group(format!("append/{count} in a frame"));
        group.throughput(Throughput::Elements(count));
        let mut log = settled();
        let (mut next, mut bytes) = (1, 0);
        group.bench_function("entries", |bencher| {
            bencher.iter_batched(
                || {
                    let entries = entries(next, count, &body);
                    next += count;
                    entries
                },
                |entries| {
                    log.append(black_box(&entries));
                    bytes += obey(&mut log);
                },
                BatchSize::PerIteration,
            );
        });
        println!("{} bytes of disk an entry", bytes / (next - 1));
        group.finish();
    }
}

/// Opens a segment of 16 MiB of frames of 16 entries.
fn recovery(criterion: &mut Criterion) {
    let body = Bytes::from(vec![7; BODY_BYTES]);
    let mut log = settled_with(16 << 20);
    let mut next = 1;
    while log.1.len() < 15 << 20 {
        log.0.append(&entries(next, 16, &body));
        next += 16;
        keep(&mut log);
    }
    let segment = Bytes::from(log.1);
    let vote = Bytes::from(log.2);
    let mut group = criterion.benchmark_group("recover");
    group.throughput(Throughput::Bytes(segment.len() as u64));
    group.sample_size(20);
    group.bench_function("a segment", |bencher| {
        bencher.iter(|| {
            let file = |name, bytes: &Bytes| File { name, size: bytes.len() as u64, bytes: bytes.clone() };
            let files = vec![file(FileName::Segment(1), &segment), file(FileName::Vote, &vote)];
            black_box(recover(Options::default(), files).expect("in order").log.last_index())
        });
    });
    group.finish();
}

/// A log and what it wrote into its first segment and its vote file.
type Kept = (Log, Vec<u8>, Vec<u8>);

fn settled_with(bytes: u64) -> Kept {
    let options = Options { segment_bytes: bytes, ..Options::default() };
    let log = recover(options, Vec::new()).expect("a new log").log;
    let mut kept = (log, Vec::new(), Vec::new());
    keep(&mut kept);
    kept
}

fn keep((log, segment, vote): &mut Kept) {
    let (mut requests, mut notices) = (Vec::new(), Vec::new());
    loop {
        log.poll(Duration::ZERO, &mut requests);
        if requests.is_empty() {
            return;
        }
        for request in requests.drain(..) {
            if let Request::Write { file, offset, bytes, .. } = &request {
                let target = match file {
                    FileName::Segment(1) => &mut *segment,
                    FileName::Vote => &mut *vote,
                    _ => continue,
                };
                let end = *offset as usize + bytes.len();
                target.resize(target.len().max(end), 0);
                target[*offset as usize..end].copy_from_slice(bytes);
            }
            log.complete(Completion::Done { id: request.id() }, &mut notices).expect("no fault");
        }
    }
}

criterion_group!(benches, append, recovery);
criterion_main!(benches);
