//! The log's disk: the files of a folder by way of the disk thread, or memory that is gone with the process.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use muster_protocol::entry::BODY_ALIGNMENT;
use muster_protocol::log::{Completion, DiskError, FileName, Request, RequestId};

use super::encoded::aligned;
use super::replica::Input;
use crate::metrics::{self, Sample};
use crate::runtime::disk::{Done, Fault, Op};
use crate::runtime::{disk, mesh, readback, time};

/// Reports of the disk that may wait for the control core. The log has one write under way and a few reads; past it the disk waits.
const REPORTS_MAX: usize = 256;

/// Where the log lies.
pub(super) enum Disk {
    Files(Files),
    Memory(Memory),
}

/// The files of a folder by way of the disk thread.
pub(super) struct Files {
    folder: PathBuf,
    disk: disk::Disk,
    done: mesh::Receiver<Done>,
    batch: Vec<disk::Request>,
    /// The log's write that is under way, and since when. There is one at most.
    writing: Option<(u64, Instant)>,
    /// How long the last one took.
    took: Duration,
}

/// A file that is whole and not yet in use, to be read on another thread.
pub(super) enum Draft {
    File(PathBuf),
    Memory(Bytes),
}

impl Draft {
    /// Its bytes. Blocking.
    ///
    /// # Errors
    /// Names the file.
    pub fn read(self) -> Result<Bytes, String> {
        match self {
            Draft::File(path) => readback::read_finished(&path).map_err(|error| error.to_string()),
            Draft::Memory(bytes) => Ok(bytes),
        }
    }
}

impl Disk {
    /// The files of a folder that is there.
    ///
    /// # Errors
    /// The thread does not start.
    pub fn files(folder: PathBuf) -> io::Result<Disk> {
        let (sender, done) = mesh::channel(REPORTS_MAX);
        let disk = disk::Disk::open(folder.clone(), sender)?;
        Ok(Disk::Files(Files { folder, disk, done, batch: Vec::new(), writing: None, took: Duration::ZERO }))
    }

    /// Takes a request; with [`Disk::flush`] it is on its way. What is done at once is added to `inputs`.
    pub fn ask(&mut self, request: Request, inputs: &mut Vec<Input>) {
        match self {
            Disk::Files(files) => {
                if let Request::Write { id, file: FileName::Segment(_), .. } = &request {
                    files.writing = Some((id.0, time::now()));
                }
                files.batch.push(translate(request));
            }
            Disk::Memory(memory) => inputs.push(Input::Disk(memory.obey(request))),
        }
    }

    /// Hands over what was asked.
    pub fn flush(&mut self) {
        if let Disk::Files(files) = self {
            files.disk.submit(&mut files.batch);
        }
    }

    /// Whether a write of the log is under way.
    pub fn is_writing(&self) -> bool {
        matches!(self, Disk::Files(files) if files.writing.is_some())
    }

    /// How long the last write of the log took.
    pub fn last_write(&self) -> Duration {
        if let Disk::Files(files) = self { files.took } else { Duration::ZERO }
    }

    /// A file that was asked to be written and whose writes are done.
    pub fn draft(&self, file: FileName) -> Draft {
        match self {
            Disk::Files(files) => Draft::File(files.folder.join(file.to_string())),
            Disk::Memory(memory) => Draft::Memory(memory.whole(file)),
        }
    }

    /// What is done, added to `inputs`.
    pub fn poll(&mut self, cx: &mut Context<'_>, inputs: &mut Vec<Input>) {
        let Disk::Files(files) = self else { return };
        while let Poll::Ready(Some(done)) = files.done.poll_recv(cx) {
            if let Some((_, since)) = files.writing.take_if(|(id, _)| *id == done.id) {
                files.took = time::now() - since;
                metrics::sample(Sample::RaftDispatchLog, files.took);
            }
            inputs.push(Input::Disk(completion(done)));
        }
    }
}

fn translate(request: Request) -> disk::Request {
    let id = request.id().0;
    let op = match request {
        Request::Create { file, size, .. } => Op::Create { file: file.to_string(), size },
        Request::Write { file, offset, bytes, durable, .. } => {
            Op::Write { file: file.to_string(), offset, bytes, durable }
        }
        Request::Read { file, offset, length, .. } => Op::Read { file: file.to_string(), offset, length },
        Request::Sync { file, .. } => Op::Sync { file: file.to_string() },
        Request::SyncFolder { .. } => Op::SyncFolder,
        Request::Rename { from, to, .. } => Op::Rename { from: from.to_string(), to: to.to_string() },
        Request::Remove { file, .. } => Op::Remove { file: file.to_string() },
    };
    disk::Request { id, op }
}

fn completion(done: Done) -> Completion {
    let id = RequestId(done.id);
    match done.result {
        Ok(Some(bytes)) => Completion::Bytes { id, bytes },
        Ok(None) => Completion::Done { id },
        Err(Fault::Full) => Completion::Failed { id, error: DiskError::NoSpace },
        Err(Fault::Failed(why)) => Completion::Failed { id, error: DiskError::Other(why) },
    }
}

/// Files that nobody else sees. What is written is shared, not copied.
#[derive(Default)]
pub(super) struct Memory(BTreeMap<FileName, BTreeMap<u64, Bytes>>);

impl Memory {
    /// Does what is asked, at once.
    pub fn obey(&mut self, request: Request) -> Completion {
        let id = request.id();
        match request {
            Request::Create { file, .. } => drop(self.0.insert(file, BTreeMap::new())),
            Request::Write { file, offset, bytes, .. } => {
                self.0.entry(file).or_default().insert(offset, bytes);
            }
            Request::Read { file, offset, length, .. } => {
                return Completion::Bytes { id, bytes: self.read(file, offset, length) };
            }
            Request::Rename { from, to, .. } => {
                if let Some(writes) = self.0.remove(&from) {
                    self.0.insert(to, writes);
                }
            }
            Request::Remove { file, .. } => drop(self.0.remove(&file)),
            Request::Sync { .. } | Request::SyncFolder { .. } => {}
        }
        Completion::Done { id }
    }

    /// All of a file.
    pub fn whole(&self, file: FileName) -> Bytes {
        let end = self.0.get(&file).and_then(|writes| writes.last_key_value());
        let length = end.map_or(0, |(offset, bytes)| *offset as usize + bytes.len());
        self.read(file, 0, length)
    }

    /// What a start would find.
    #[cfg(test)]
    pub fn files(&self) -> Vec<muster_protocol::log::File> {
        let file = |name: &FileName| {
            let bytes = self.whole(*name);
            muster_protocol::log::File { name: *name, size: bytes.len() as u64, bytes }
        };
        self.0.keys().map(file).collect()
    }

    /// Zeros where nothing was written; fewer behind the last write.
    fn read(&self, file: FileName, offset: u64, length: usize) -> Bytes {
        let Some(writes) = self.0.get(&file) else { return Bytes::new() };
        let end = offset + length as u64;
        let before = writes.range(..=offset).next_back();
        let mut out = BytesMut::with_capacity(length + BODY_ALIGNMENT);
        for (at, bytes) in before.into_iter().chain(writes.range(offset + 1..end)) {
            let skip = offset.saturating_sub(*at) as usize;
            if skip >= bytes.len() {
                continue;
            }
            let place = at.saturating_sub(offset) as usize;
            out.resize(place.max(out.len()), 0);
            let take = (bytes.len() - skip).min(length - place);
            out.truncate(place);
            out.extend_from_slice(&bytes[skip..skip + take]);
        }
        aligned(&out.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_reads_what_was_written_and_zeros_between() {
        let mut memory = Memory::default();
        let id = RequestId(1);
        let file = FileName::Segment(1);
        let mut write = |offset, bytes: &'static [u8]| {
            let bytes = Bytes::from_static(bytes);
            memory.obey(Request::Write { id, file, offset, bytes, durable: true });
        };
        write(0, b"abcd");
        write(6, b"gh");
        write(0, b"ABCD");
        assert_eq!(&memory.whole(file)[..], b"ABCD\0\0gh");
        assert_eq!(&memory.read(file, 3, 4)[..], b"D\0\0g");
        assert_eq!(&memory.read(file, 7, 9)[..], b"h");
        assert!(memory.read(file, 8, 1).is_empty());
        memory.obey(Request::Rename { id, from: file, to: FileName::Vote });
        assert!(memory.whole(file).is_empty());
        assert_eq!(memory.whole(FileName::Vote).len(), 8);
    }
}
