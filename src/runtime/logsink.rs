//! Where log lines go: stderr, a file with rotation, syslog. One thread writes them all, so that no executor ever
//! waits for a terminal or a disk.
//!
//! Lines wait in a queue of at most [`QUEUE_MAX`]; when it is full new lines are dropped, counted, and the count is
//! written as soon as there is room.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

/// Lines that may wait to be written.
pub const QUEUE_MAX: usize = 8192;
/// How long [`LogSink::flush`] waits at most.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// Socket of the system's log.
const SYSLOG_SOCKET: &str = "/dev/log";

/// A log file and when it is rotated.
#[derive(Clone, Debug)]
pub struct FileTarget {
    /// Path of the file; a folder when it ends in `/` (the file is then `consul-...log` in it).
    pub path: PathBuf,
    /// Age at which it is rotated.
    pub rotate_duration: Duration,
    /// Size at which it is rotated; 0 never.
    pub rotate_bytes: u64,
    /// Rotated files kept: 0 all, negative none.
    pub rotate_max_files: i64,
}

/// What is written to.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// Standard error.
    pub stderr: bool,
    /// A file.
    pub file: Option<FileTarget>,
    /// Number of a syslog facility.
    pub syslog: Option<u8>,
}

/// One line for all targets.
#[derive(Clone, Debug)]
pub struct SinkLine {
    /// The line with its newline.
    pub text: Bytes,
    /// Syslog severity, 0 to 7.
    pub severity: u8,
}

/// The queue to the writing thread.
#[derive(Clone)]
pub struct LogSink(Arc<Shared>);

/// What the senders and the thread share.
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The queue.
#[derive(Default)]
struct State {
    lines: VecDeque<SinkLine>,
    dropped: u64,
    /// The thread has lines in hand.
    busy: bool,
}

impl Shared {
    /// The queue; a panic elsewhere leaves it usable.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogSink {
    /// Opens the targets and starts the thread.
    ///
    /// # Errors
    /// A target that cannot be opened, by name.
    pub fn start(targets: Targets) -> io::Result<LogSink> {
        let mut outputs = Outputs::open(targets)?;
        let shared = Arc::new(Shared { state: Mutex::new(State::default()), changed: Condvar::new() });
        let theirs = shared.clone();
        thread::Builder::new()
            .name("log".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || run(&theirs, &mut outputs))?;
        Ok(LogSink(shared))
    }

    /// Queues a line; dropped and counted when the queue is full.
    pub fn write(&self, line: SinkLine) {
        let mut state = self.0.lock();
        if state.lines.len() >= QUEUE_MAX {
            state.dropped += 1;
            return;
        }
        state.lines.push_back(line);
        drop(state);
        self.0.changed.notify_all();
    }

    /// Waits until everything queued is written, two seconds at most.
    pub fn flush(&self) {
        let state = self.0.lock();
        let pending = |state: &mut State| state.busy || !state.lines.is_empty();
        drop(self.0.changed.wait_timeout_while(state, FLUSH_MAX, pending));
    }
}

/// The thread: takes all waiting lines, writes them, for ever.
fn run(shared: &Shared, outputs: &mut Outputs) {
    let mut taken = VecDeque::new();
    loop {
        let mut state = shared.lock();
        state.busy = false;
        shared.changed.notify_all();
        while state.lines.is_empty() {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut state.lines, &mut taken);
        let dropped = std::mem::take(&mut state.dropped);
        state.busy = true;
        drop(state);
        for line in taken.drain(..) {
            outputs.write(&line);
        }
        if dropped > 0 {
            let text =
                format!("[WARN]  agent: log lines were dropped, the output is too slow: count={dropped}\n");
            outputs.write(&SinkLine { text: text.into(), severity: 4 });
        }
    }
}

/// The open targets.
struct Outputs {
    stderr: bool,
    file: Option<RotatingFile>,
    syslog: Option<Syslog>,
}

impl Outputs {
    fn open(targets: Targets) -> io::Result<Outputs> {
        Ok(Outputs {
            stderr: targets.stderr,
            file: targets.file.map(RotatingFile::open).transpose()?,
            syslog: targets.syslog.map(Syslog::open).transpose()?,
        })
    }

    /// Writes to every target. A target that fails must not stop the others, and there is nobody left to tell.
    fn write(&mut self, line: &SinkLine) {
        if self.stderr {
            let mut stderr = io::stderr().lock();
            let _ = stderr.write_all(b"    ").and_then(|()| stderr.write_all(&line.text));
        }
        if let Some(file) = &mut self.file {
            let _ = file.write(&line.text);
        }
        if let Some(syslog) = &self.syslog {
            syslog.send(line);
        }
    }
}

/// A file that is put away when it is old or large: `name-UNIXNANOS.ext`, the newest `rotate_max_files` kept.
struct RotatingFile {
    target: FileTarget,
    /// Folder, name without ending, ending with its dot.
    folder: PathBuf,
    stem: String,
    ending: String,
    file: File,
    opened: Instant,
    bytes: u64,
}

impl RotatingFile {
    fn open(target: FileTarget) -> io::Result<RotatingFile> {
        let is_folder = target.path.as_os_str().as_encoded_bytes().ends_with(b"/") || target.path.is_dir();
        let (folder, name) = if is_folder {
            (target.path.clone(), "consul.log".to_owned())
        } else {
            let name = target.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            (target.path.parent().map(Path::to_path_buf).unwrap_or_default(), name)
        };
        let (stem, ending) = match name.rsplit_once('.') {
            Some((stem, ending)) => (stem.to_owned(), format!(".{ending}")),
            None => (name.clone(), ".log".to_owned()),
        };
        let (file, bytes) = append(&folder.join(format!("{stem}{ending}")))?;
        Ok(RotatingFile { target, folder, stem, ending, file, opened: Instant::now(), bytes })
    }

    /// Appends, after putting the file away when its time or size has come.
    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let full = self.target.rotate_bytes > 0
            && self.bytes > 0
            && self.bytes + text.len() as u64 > self.target.rotate_bytes;
        if full || self.opened.elapsed() >= self.target.rotate_duration {
            self.rotate()?;
        }
        self.file.write_all(text)?;
        self.bytes += text.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let current = self.folder.join(format!("{}{}", self.stem, self.ending));
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        fs::rename(&current, self.folder.join(format!("{}-{nanos}{}", self.stem, self.ending)))?;
        (self.file, self.bytes) = append(&current)?;
        self.opened = Instant::now();
        self.remove_old()
    }

    /// Removes the oldest files beyond the number kept.
    fn remove_old(&self) -> io::Result<()> {
        let keep = match self.target.rotate_max_files {
            0 => return Ok(()),
            n => usize::try_from(n).unwrap_or(0),
        };
        let prefix = format!("{}-", self.stem);
        let is_archive = |name: &str| {
            let middle = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(&self.ending));
            middle.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
        };
        let mut archives: Vec<PathBuf> = fs::read_dir(&self.folder)?
            .flatten()
            .filter(|entry| entry.file_name().to_str().is_some_and(is_archive))
            .map(|entry| entry.path())
            .collect();
        archives.sort();
        let surplus = archives.len().saturating_sub(keep);
        archives.iter().take(surplus).try_for_each(fs::remove_file)
    }
}

/// Opens a file for appending; its size.
fn append(path: &Path) -> io::Result<(File, u64)> {
    let open = OpenOptions::new().create(true).append(true).open(path);
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("log file {}: {error}", path.display()));
    let file = open.map_err(named)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

/// The system's log.
struct Syslog {
    socket: UnixDatagram,
    facility: u8,
}

impl Syslog {
    fn open(facility: u8) -> io::Result<Syslog> {
        let socket = UnixDatagram::unbound()?;
        let connect = socket.connect(SYSLOG_SOCKET);
        connect.map_err(|e| io::Error::new(e.kind(), format!("syslog at {SYSLOG_SOCKET}: {e}")))?;
        // A stuck syslog daemon costs lines, never the log thread.
        socket.set_nonblocking(true)?;
        Ok(Syslog { socket, facility })
    }

    fn send(&self, line: &SinkLine) {
        let priority = u32::from(self.facility) * 8 + u32::from(line.severity);
        let pid = std::process::id();
        let text = String::from_utf8_lossy(&line.text);
        let _ = self.socket.send(format!("<{priority}>consul[{pid}]: {}", text.trim_end()).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> SinkLine {
        SinkLine { text: text.to_owned().into(), severity: 6 }
    }

    #[test]
    fn files_rotate_by_size_and_old_ones_go() {
        let dir = tempfile::tempdir().expect("folder");
        let file = FileTarget {
            path: dir.path().join("agent.log"),
            rotate_duration: Duration::from_secs(3600),
            rotate_bytes: 10,
            rotate_max_files: 2,
        };
        let sink = LogSink::start(Targets { file: Some(file), ..Targets::default() }).expect("opens");
        for n in 0..6 {
            sink.write(line(&format!("line {n}\n")));
        }
        sink.flush();
        let mut names: Vec<String> = fs::read_dir(dir.path())
            .expect("folder")
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names.len(), 3, "{names:?}");
        let text = |name: &str| fs::read_to_string(dir.path().join(name)).expect("file");
        assert_eq!(text("agent.log"), "line 5\n");
        assert_eq!([text(&names[0]), text(&names[1])], ["line 3\n", "line 4\n"]);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let path = PathBuf::from("/nonexistent/x.log");
        let file = FileTarget { path, rotate_duration: Duration::MAX, rotate_bytes: 0, rotate_max_files: 0 };
        let error =
            LogSink::start(Targets { file: Some(file), ..Targets::default() }).err().expect("refused");
        assert!(error.to_string().contains("/nonexistent/x.log"), "{error}");
    }
}
