//! One thread that obeys requests to the files of one folder, strictly in the order in which they came, and reports
//! each as it is done. Writes that must last are `pwritev2` with `RWF_DSYNC`: they have reached the device
//! when they are reported. Those of whole pages into a file that grows go past the kernel's cache, where the file system lets them. A request that failed is reported as failed, and never tried again here.

use super::mesh::Sender;
use super::{blocking, sys};
use bytes::Bytes;
use futures_lite::future::block_on;
use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

/// Files that are held open; the one used longest ago is closed for another. A log has one segment that grows, one
/// being prepared, and a few that slow readers are in.
const OPEN_FILES_MAX: usize = 16;
/// Of the addresses of bytes that were read: archives may lie in them.
const ALIGNMENT: usize = 16;
/// How far zeros are written ahead of what a file holds; when half of that is used up, they are written again.
const ZEROS_AHEAD: u64 = 512 * 1024;
/// Zeros that go past the kernel's cache are written in pieces of so many bytes.
const ZEROS_PIECE: usize = 128 * 1024;
/// Zeros that go through it are written in pieces of a page. The kernel keeps what one call wrote as one large page, and would later write all of
/// that anew for each small change in it: 35 KiB instead of 8 for each durable write, as measured.
const PAGE: usize = 4096;
/// To be written.
static ZEROS: Zeros = Zeros([0; ZEROS_PIECE]);

#[repr(align(4096))]
struct Zeros([u8; ZEROS_PIECE]);

/// So long nothing is removed before what was removed is given back to the file system. Whoever makes names last meanwhile waits for all
/// that is given back: 27 ms for two segments of the log, as measured.
const QUIET: Duration = Duration::from_millis(500);
/// Removed files that wait for that, at most; one more is closed at once.
const REMOVED_MAX: usize = 64;
/// A removed file is given back in steps of so many bytes, with a rest between them: a durable write now and then waits for the file
/// system's journal, and so for what was given back lately. For a whole segment that was 18 ms.
const STEP: u64 = 4 << 20;
/// See [`STEP`].
const REST: Duration = Duration::from_millis(20);
/// The thread only makes system calls.
const STACK: usize = 128 * 1024;

/// A request with the number it is reported under.
#[derive(Debug)]
pub struct Request {
    /// Chosen by the caller.
    pub id: u64,
    /// What to do.
    pub op: Op,
}

/// What a disk does. Names are of files in its folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Makes a file of this size that reads as zeros, all of it allocated on the device, in the place of any of that name; lasts
    /// when done.
    Create {
        /// Name.
        file: String,
        /// Bytes.
        size: u64,
    },
    /// Writes bytes, making the file if needed (its name lasts only after a rename or a sync).
    Write {
        /// Name.
        file: String,
        /// Where in it, bytes.
        offset: u64,
        /// What.
        bytes: Bytes,
        /// Whether it lasts when done.
        durable: bool,
    },
    /// Reads bytes; fewer at the end of the file. The answer's address is a multiple of 16.
    Read {
        /// Name.
        file: String,
        /// Where in it, bytes.
        offset: u64,
        /// How many, bytes.
        length: usize,
    },
    /// Renames a file, over one that is there; lasts when done.
    Rename {
        /// Old name.
        from: String,
        /// New name.
        to: String,
    },
    /// Removes a file, if it is there; lasts when done.
    Remove {
        /// Name.
        file: String,
    },
    /// Makes all of a file last.
    Sync {
        /// Name.
        file: String,
    },
    /// Makes the names in the folder last.
    SyncFolder,
}

/// How a request ended.
#[derive(Debug)]
pub struct Done {
    /// The request's number.
    pub id: u64,
    /// The bytes of a read; of all else `None`.
    pub result: Result<Option<Bytes>, Fault>,
}

/// Why it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No space is left on the device, or the user's quota is used up.
    Full,
    /// Anything else; the text names the file.
    Failed(String),
}

/// The callers' side. Dropping it lets the thread finish what waits, and end.
pub struct Disk(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    requests: VecDeque<Request>,
    /// The thread waits to be told.
    asleep: bool,
    closed: bool,
}

impl Disk {
    /// Starts the thread for the files of `folder`, which is there. Each request is reported through `done`; the thread
    /// waits while that is full. The caller bounds how many requests are under way.
    ///
    /// # Errors
    /// The thread does not start.
    pub fn open(folder: PathBuf, done: Sender<Done>) -> io::Result<Disk> {
        let shared = Arc::new(Shared { state: Mutex::default(), work: Condvar::new() });
        let theirs = shared.clone();
        let work = move || {
            let (files, growing) = (Files::default(), BTreeMap::new());
            Worker { folder, files, growing, direct: Direct::None, removed: None, done }.work(&theirs);
        };
        thread::Builder::new().name("muster-disk".into()).stack_size(STACK).spawn(work)?;
        Ok(Disk(shared))
    }

    /// Hands over requests, in order, leaving the buffer empty.
    pub fn submit(&self, requests: &mut Vec<Request>) {
        if requests.is_empty() {
            return;
        }
        let mut state = self.0.lock();
        state.requests.extend(requests.drain(..));
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        if asleep {
            self.0.work.notify_one();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.work.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next request and whether another waits behind it; `None` when there will be none.
    fn next(&self) -> Option<(Request, bool)> {
        let mut state = self.lock();
        loop {
            if let Some(request) = state.requests.pop_front() {
                return Some((request, !state.requests.is_empty()));
            }
            if state.closed {
                return None;
            }
            state.asleep = true;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The thread's side.
struct Worker {
    folder: PathBuf,
    files: Files,
    /// Files made here with room to grow.
    growing: BTreeMap<String, Growing>,
    direct: Direct,
    /// To whom closes what was removed, once something was.
    removed: Option<mpsc::SyncSender<File>>,
    done: Sender<Done>,
}

/// The growing file that was written last, open a second time for writes past the kernel's cache. Nobody reads the log while it grows but servers
/// that are behind, so a copy of it in memory is work for nothing: half of the CPU of a write of 36 KiB with its zeros, a fifth of one of 4 KiB, as measured.
enum Direct {
    None,
    Open(String, File),
    /// The file system does not do it, or not for pages.
    Refused,
}

/// A file that is written from its start to its end. Allocated space counts as unwritten for the file system until something is
/// written there, and then each durable write would also have to make that change last: one write to the device more, and
/// with a journal several. So zeros go ahead, not durable, and the durable write finds nothing to change.
#[derive(Clone, Copy)]
struct Growing {
    size: u64,
    /// Nothing was written past here.
    written: u64,
    /// Zeros were written up to here, or more than zeros.
    zeroed: u64,
}

impl Growing {
    /// The zeros that are due: where they begin and where they end, bytes.
    fn due(&self) -> Option<(u64, u64)> {
        let begin = self.zeroed.max(self.written);
        let enough = begin >= self.written + ZEROS_AHEAD / 2 || begin >= self.size || self.written == 0;
        (!enough).then(|| (begin, (self.written + ZEROS_AHEAD).min(self.size)))
    }
}

impl Worker {
    fn work(mut self, shared: &Shared) {
        sys::unpin();
        let mut reports = Vec::new();
        while let Some((Request { id, op }, more)) = shared.next() {
            let result = self.obey(&op).map_err(|error| fault(&op, &error));
            reports.push(Done { id, result });
            // Nobody waits for a write that promises nothing: its report can go with the next one.
            if more && matches!(op, Op::Write { durable: false, .. }) {
                continue;
            }
            for report in reports.drain(..) {
                // When nobody hears of it any more, what was asked before the end is still done.
                let _ = block_on(self.done.send(report));
            }
            if let Op::Write { file, durable: true, .. } = &op {
                self.write_zeros_ahead(file);
            }
        }
    }

    fn write_zeros_ahead(&mut self, name: &str) {
        let Some((begin, end)) = self.growing.get(name).and_then(Growing::due) else { return };
        let pages = begin.is_multiple_of(PAGE as u64) && end.is_multiple_of(PAGE as u64);
        let written = if let Some(file) = self.direct(name).filter(|_| pages) {
            (begin..end).step_by(ZEROS_PIECE).try_for_each(|at| {
                let length = (end - at).min(ZEROS_PIECE as u64) as usize;
                file.write_all_at(&ZEROS.0[..length], at)
            })
        } else {
            self.open(name, false).and_then(|file| {
                for page in (begin..end).step_by(PAGE) {
                    let length = (end - page).min(PAGE as u64) as usize;
                    file.write_all_at(&ZEROS.0[..length], page)?;
                }
                sys::start_writing_out(file, begin, end - begin)
            })
        };
        match (written, self.growing.get_mut(name)) {
            (Ok(()), Some(growing)) => growing.zeroed = end,
            // They only save time. An error of the device itself shows up at the next durable write.
            _ => self.end_growing(name),
        }
    }

    fn obey(&mut self, op: &Op) -> io::Result<Option<Bytes>> {
        match op {
            Op::Create { file, size } => self.create(file, *size)?,
            Op::Write { file, offset, bytes, durable } => {
                self.write(file, *offset, bytes, *durable)?;
                if let Some(growing) = self.growing.get_mut(file) {
                    growing.written = growing.written.max(offset + bytes.len() as u64);
                }
            }
            Op::Read { file, offset, length } => return self.read(file, *offset, *length).map(Some),
            Op::Rename { from, to } => {
                self.forget(from);
                self.forget(to);
                fs::rename(self.folder.join(from), self.folder.join(to))?;
                self.sync_folder()?;
            }
            Op::Remove { file } => {
                self.remove(file)?;
                self.sync_folder()?;
            }
            Op::Sync { file } => self.open(file, false)?.sync_all()?,
            Op::SyncFolder => self.sync_folder()?,
        }
        Ok(None)
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &[u8], durable: bool) -> io::Result<()> {
        let pages = [offset, bytes.len() as u64, bytes.as_ptr() as u64];
        if durable
            && pages.iter().all(|place| place.is_multiple_of(PAGE as u64))
            && let Some(file) = self.direct(name)
        {
            match sys::write_all_at(file, bytes, offset, true) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.direct = Direct::Refused,
                done => return done,
            }
        }
        sys::write_all_at(self.open(name, true)?, bytes, offset, durable)
    }

    /// A growing file for writes past the kernel's cache.
    fn direct(&mut self, name: &str) -> Option<&File> {
        if matches!(self.direct, Direct::Refused) || self.growing.get(name)?.size <= ZEROS_AHEAD {
            return None;
        }
        if !matches!(&self.direct, Direct::Open(open, _) if open == name) {
            let mut options = OpenOptions::new();
            options.write(true).custom_flags(libc::O_DIRECT);
            self.direct = match options.open(self.folder.join(name)) {
                Ok(file) => Direct::Open(name.to_owned(), file),
                // Whatever it is, a write that goes the other way tells.
                Err(_) => Direct::Refused,
            };
        }
        match &self.direct {
            Direct::Open(_, file) => Some(file),
            Direct::None | Direct::Refused => None,
        }
    }

    /// A file of that name is another one from then on: somebody may still read the old one, or have it mapped. One that could not be made
    /// whole is taken away again: a full disk must not be filled by attempts.
    fn create(&mut self, name: &str, size: u64) -> io::Result<()> {
        self.remove(name)?;
        let file = self.open(name, true)?;
        let made = sys::allocate(file, size).and_then(|()| file.sync_all());
        if let Err(error) = made {
            self.files.forget(name);
            // The first error is the one to tell.
            let _ = fs::remove_file(self.folder.join(name));
            return Err(error);
        }
        self.growing.insert(name.to_owned(), Growing { size, written: 0, zeroed: 0 });
        self.sync_folder()
    }

    /// What a file took is given back when it is closed last. For a large one that takes tens of milliseconds, in which this thread would
    /// wait, or whatever else changes the file system: so it is closed elsewhere, and later.
    fn remove(&mut self, name: &str) -> io::Result<()> {
        let path = self.folder.join(name);
        self.end_growing(name);
        let held = self.files.take(name).or_else(|| File::open(&path).ok());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if let Some(file) = held {
            self.close_later(file);
        }
        Ok(())
    }

    fn close_later(&mut self, file: File) {
        let file = match &self.removed {
            Some(removed) => match removed.try_send(file) {
                Ok(()) => return,
                Err(mpsc::TrySendError::Full(file)) => return drop(file),
                Err(mpsc::TrySendError::Disconnected(file)) => file,
            },
            None => file,
        };
        let (removed, files) = mpsc::sync_channel(REMOVED_MAX);
        // Without a thread it is closed here and now.
        if removed.try_send(file).is_ok()
            && blocking::run_beside("muster-close", move || close_all(&files)).is_ok()
        {
            self.removed = Some(removed);
        }
    }

    fn forget(&mut self, name: &str) {
        self.files.forget(name);
        self.end_growing(name);
    }

    fn end_growing(&mut self, name: &str) {
        self.growing.remove(name);
        if matches!(&self.direct, Direct::Open(open, _) if open == name) {
            self.direct = Direct::None;
        }
    }

    fn read(&mut self, name: &str, offset: u64, length: usize) -> io::Result<Bytes> {
        let file = self.open(name, false)?;
        let mut bytes = vec![0; length + ALIGNMENT - 1];
        let skip = bytes.as_ptr().align_offset(ALIGNMENT);
        let mut filled = 0;
        while filled < length {
            match file.read_at(&mut bytes[skip + filled..skip + length], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Bytes::from(bytes).slice(skip..skip + filled))
    }

    fn open(&mut self, name: &str, create: bool) -> io::Result<&File> {
        if !self.files.touch(name) {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(create).truncate(false).mode(0o600);
            let file = options.open(self.folder.join(name))?;
            self.files.insert(name, file);
        }
        Ok(self.files.get(name))
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}

/// Closes files that were removed, each when nothing was removed for a while.
fn close_all(files: &mpsc::Receiver<File>) {
    let mut waiting = VecDeque::new();
    loop {
        match files.recv_timeout(if waiting.is_empty() { Duration::MAX } else { QUIET }) {
            Ok(file) => waiting.push_back(file),
            Err(mpsc::RecvTimeoutError::Timeout) => waiting.pop_front().into_iter().for_each(give_back),
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Gives back what a removed file takes. If somebody else still has it open or mapped, the last one to let go of it does so, at once.
fn give_back(file: File) {
    let mut left = file.metadata().map_or(0, |found| found.len());
    while left > 0 && sys::is_open_here_alone(&file) {
        left = left.saturating_sub(STEP);
        if file.set_len(left).is_err() {
            return;
        }
        thread::sleep(REST);
    }
}

fn fault(op: &Op, error: &io::Error) -> Fault {
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return Fault::Full;
    }
    let (action, name) = match op {
        Op::Create { file, .. } => ("make", file),
        Op::Write { file, .. } => ("write", file),
        Op::Read { file, .. } => ("read", file),
        Op::Rename { from, .. } => ("rename", from),
        Op::Remove { file } => ("remove", file),
        Op::Sync { file } => ("sync", file),
        Op::SyncFolder => return Fault::Failed(format!("cannot sync the folder: {error}")),
    };
    Fault::Failed(format!("cannot {action} {name}: {error}"))
}

/// Open files with the turn in which each was last used.
#[derive(Default)]
struct Files {
    open: BTreeMap<String, (File, u64)>,
    turn: u64,
}

impl Files {
    /// Whether the file is open; it counts as used now.
    fn touch(&mut self, name: &str) -> bool {
        self.turn += 1;
        self.open.get_mut(name).map(|(_, used)| *used = self.turn).is_some()
    }

    fn insert(&mut self, name: &str, file: File) {
        if self.open.len() >= OPEN_FILES_MAX {
            let oldest = self.open.iter().min_by_key(|(_, (_, used))| *used).map(|(name, _)| name.clone());
            oldest.iter().for_each(|name| self.forget(name));
        }
        self.open.insert(name.to_owned(), (file, self.turn));
    }

    fn get(&self, name: &str) -> &File {
        &self.open.get(name).expect("it was touched or inserted just now").0
    }

    fn forget(&mut self, name: &str) {
        self.open.remove(name);
    }

    fn take(&mut self, name: &str) -> Option<File> {
        self.open.remove(name).map(|(file, _)| file)
    }
}

#[cfg(test)]
mod tests {
    use super::super::mesh;
    use super::*;

    fn obeyed(folder: &std::path::Path, ops: Vec<Op>) -> Vec<Result<Option<Bytes>, Fault>> {
        let (done, mut reports) = mesh::channel(1);
        let disk = Disk::open(folder.to_owned(), done).expect("a thread");
        let count = ops.len();
        let mut requests: Vec<_> =
            ops.into_iter().enumerate().map(|(id, op)| Request { id: id as u64, op }).collect();
        disk.submit(&mut requests);
        (0..count as u64)
            .map(|id| {
                let report = block_on(reports.recv()).expect("each request is reported");
                assert_eq!(report.id, id, "in order");
                report.result
            })
            .collect()
    }

    #[test]
    fn requests_are_obeyed_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = || "a".to_owned();
        let write = |offset, bytes: &'static [u8]| Op::Write {
            file: file(),
            offset,
            bytes: Bytes::from_static(bytes),
            durable: true,
        };
        let results = obeyed(
            folder.path(),
            vec![
                Op::Create { file: file(), size: 8192 },
                write(4096, b"xy"),
                write(4097, b"z"),
                Op::Read { file: file(), offset: 4095, length: 4 },
                Op::Rename { from: file(), to: "b".to_owned() },
                Op::Read { file: file(), offset: 0, length: 1 },
                Op::Read { file: "b".to_owned(), offset: 8190, length: 10 },
                Op::Sync { file: "b".to_owned() },
                Op::SyncFolder,
                Op::Remove { file: "b".to_owned() },
                Op::Remove { file: "b".to_owned() },
            ],
        );
        assert_eq!(results[3], Ok(Some(Bytes::from_static(b"\0xz\0"))));
        let Err(Fault::Failed(text)) = &results[5] else { panic!("there is no such file: {results:?}") };
        assert!(text.starts_with("cannot read a: "), "{text}");
        assert_eq!(results[6], Ok(Some(Bytes::from_static(&[0, 0]))));
        assert!(
            results.iter().enumerate().all(|(place, result)| place == 5 || result.is_ok()),
            "{results:?}"
        );
        assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0);
    }

    /// Bytes under a mapping must not go: whoever reads them would be killed.
    #[test]
    fn a_file_that_is_mapped_is_not_shortened() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        fs::write(&path, [7; 3 * PAGE]).expect("a small file");
        let open = || OpenOptions::new().read(true).write(true).open(&path).expect("it is there");
        let reader = File::open(&path).expect("it is there");
        // SAFETY: nobody changes the file, which is what is tested.
        let mapped = unsafe { memmap2::Mmap::map(&reader) }.expect("a mapping");
        drop(reader);
        give_back(open());
        assert_eq!(fs::metadata(&path).expect("it is there").len(), 3 * PAGE as u64);
        assert!(mapped.iter().all(|byte| *byte == 7));
        drop(mapped);
        give_back(open());
        assert_eq!(fs::metadata(&path).expect("it is there").len(), 0);
    }

    #[test]
    fn more_files_than_may_be_open_are_no_matter() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = |n: usize| format!("f{n}");
        let write = |n| Op::Write { file: name(n), offset: 0, bytes: name(n).into(), durable: n % 2 == 0 };
        let mut ops: Vec<_> = (0..2 * OPEN_FILES_MAX).map(write).collect();
        ops.extend((0..2 * OPEN_FILES_MAX).map(|n| Op::Read { file: name(n), offset: 0, length: 9 }));
        let results = obeyed(folder.path(), ops);
        for (n, read) in results[2 * OPEN_FILES_MAX..].iter().enumerate() {
            assert_eq!(*read, Ok(Some(Bytes::from(name(n)))));
        }
    }

    /// Zeros are written ahead of what is there, never over it.
    #[test]
    fn what_was_written_is_not_written_over_by_zeros() {
        let folder = tempfile::tempdir().expect("a folder");
        let (name, size) = ("a".to_owned(), 2 * ZEROS_AHEAD);
        let step = 24 * 1024;
        let mut ops = vec![Op::Create { file: name.clone(), size }];
        // Every other write promises nothing: no zeros follow it.
        ops.extend((0..size / step).map(|n| Op::Write {
            file: name.clone(),
            offset: n * step,
            bytes: vec![n as u8 + 1; step as usize].into(),
            durable: n % 2 == 0,
        }));
        assert!(obeyed(folder.path(), ops).iter().all(Result::is_ok));
        let bytes = fs::read(folder.path().join(&name)).expect("the file");
        assert_eq!(bytes.len() as u64, size);
        let whole = (size / step * step) as usize;
        assert!(bytes[..whole].chunks(step as usize).zip(1..).all(|(part, n)| part.iter().all(|b| *b == n)));
        assert!(bytes[whole..].iter().all(|byte| *byte == 0));
    }

    /// Whole pages go past the kernel's cache, the rest through it, and readers see both.
    #[test]
    fn writes_past_the_cache_and_through_it_make_one_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let (name, size) = ("a".to_owned(), 2 * ZEROS_AHEAD);
        let pages = Bytes::from_owner(Pages([5; 3 * PAGE]));
        let write = |offset, bytes: &Bytes| Op::Write {
            file: "a".to_owned(),
            offset,
            bytes: bytes.clone(),
            durable: true,
        };
        let read = |offset| Op::Read { file: "a".to_owned(), offset, length: 3 * PAGE };
        let mut ops = vec![Op::Create { file: name.clone(), size }];
        for turn in 0..40 {
            let at = turn * 6 * PAGE as u64;
            ops.extend([
                write(at, &pages),
                read(at + PAGE as u64),
                write(at + 3 * PAGE as u64, &Bytes::from_static(b"x")),
            ]);
            ops.push(read(at + 2 * PAGE as u64));
        }
        let results = obeyed(folder.path(), ops);
        for turn in results[1..].chunks(4) {
            let (Ok(Some(before)), Ok(Some(after))) = (&turn[1], &turn[3]) else { panic!("{turn:?}") };
            assert!(
                before[..2 * PAGE].iter().all(|byte| *byte == 5)
                    && before[2 * PAGE..].iter().all(|byte| *byte == 0)
            );
            assert!(after[..PAGE].iter().all(|byte| *byte == 5) && after[PAGE..].starts_with(b"x\0"));
        }
        assert_eq!(fs::metadata(folder.path().join("a")).expect("the file").len(), size);
    }

    #[repr(align(4096))]
    struct Pages([u8; 3 * PAGE]);

    impl AsRef<[u8]> for Pages {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    /// A snapshot begins as an empty file; the kernel refuses to allocate none, and the server ended.
    #[test]
    fn an_empty_file_can_be_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let results = obeyed(folder.path(), vec![Op::Create { file: "a".to_owned(), size: 0 }]);
        assert!(results[0].is_ok(), "{results:?}");
        assert_eq!(fs::metadata(folder.path().join("a")).map(|file| file.len()).ok(), Some(0));
    }
}
