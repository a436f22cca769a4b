//! Files, off the executor: whole files in, whole files out, and the lock of the data directory.

use super::{blocking, random};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The largest file that [`read`] takes in, in bytes.
pub const READ_MAX: u64 = 256 * 1024 * 1024;

/// How long a process that was killed may go on holding its lock: the kernel takes its io_uring apart after its end was reported.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Pause between two attempts.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A lock that this process holds until it is dropped (or the process ends, in whatever way).
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] File);

/// Takes the lock at `path`, making the file if needed, within a second. Blocking; for start-up.
///
/// # Errors
/// `WouldBlock` when another process holds it; the text names the file.
pub fn lock(path: &Path) -> io::Result<Lock> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    let file = file.map_err(|error| name("cannot open", path, &error))?;
    let patience = Instant::now() + LOCK_PATIENCE;
    let mut taken = file.try_lock();
    while matches!(taken, Err(TryLockError::WouldBlock)) && Instant::now() < patience {
        std::thread::sleep(LOCK_PAUSE);
        taken = file.try_lock();
    }
    match taken {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            format!(
                "{} is locked: another agent uses this data directory; stop it or choose another one",
                path.display()
            ),
        )),
        Err(TryLockError::Error(error)) => Err(name("cannot lock", path, &error)),
    }
}

/// Reads a whole file, of at most [`READ_MAX`] bytes.
///
/// # Errors
/// Names the file.
pub async fn read(path: impl Into<PathBuf>) -> io::Result<Vec<u8>> {
    off_the_executor(path.into(), |path| {
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(|error| name("cannot open", path, &error))?;
        file.take(READ_MAX + 1).read_to_end(&mut bytes).map_err(|error| name("cannot read", path, &error))?;
        if bytes.len() as u64 > READ_MAX {
            let error = io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {READ_MAX} bytes"));
            return Err(name("cannot read", path, &error));
        }
        Ok(bytes)
    })
    .await
}

/// Puts `bytes` in place of the file, durably: after a crash at any moment either the old or the new content is
/// there, and after success the new one. Missing directories above it are made.
///
/// # Errors
/// Names the file. The old content is untouched.
pub async fn write_atomically(path: impl Into<PathBuf>, bytes: Vec<u8>, mode: u32) -> io::Result<()> {
    off_the_executor(path.into(), move |path| {
        write_now(path, &bytes, mode).map_err(|error| name("cannot write", path, &error))
    })
    .await
}

/// Removes a file, durably; one that is not there is fine.
///
/// # Errors
/// Names the file.
pub async fn remove(path: impl Into<PathBuf>) -> io::Result<()> {
    off_the_executor(path.into(), |path| match fs::remove_file(path) {
        Ok(()) => sync_parent(path).map_err(|error| name("cannot remove", path, &error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(name("cannot remove", path, &error)),
    })
    .await
}

/// The paths in a directory, sorted; none if it does not exist. Unfinished files of [`write_atomically`] are left out.
///
/// # Errors
/// Names the directory.
pub async fn list(path: impl Into<PathBuf>) -> io::Result<Vec<PathBuf>> {
    off_the_executor(path.into(), |path| {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(name("cannot list", path, &error)),
        };
        let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
        let mut paths = paths.map_err(|error| name("cannot list", path, &error))?;
        paths.retain(|path| path.extension().is_none_or(|extension| extension != UNFINISHED));
        paths.sort();
        Ok(paths)
    })
    .await
}

/// Renames a file within its folder, durably.
///
/// # Errors
/// Names the file.
pub async fn rename(from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> io::Result<()> {
    let to = to.into();
    off_the_executor(from.into(), move |from| {
        let renamed = fs::rename(from, &to).and_then(|()| sync_parent(&to));
        renamed.map_err(|error| name("cannot rename", from, &error))
    })
    .await
}

/// Makes a folder and those above it, durably; one that is there is fine. Blocking; for start-up.
///
/// # Errors
/// Names the folder.
pub fn make_folder(path: &Path) -> io::Result<()> {
    // Whoever made it in an earlier life may have been killed before it lasted.
    let made = make_folders(path).and_then(|()| sync_parent(path));
    made.map_err(|error| name("cannot make", path, &error))
}

/// Each folder that is made lasts only once the one above it is synced.
fn make_folders(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_folders(parent)?;
    }
    match fs::create_dir(path) {
        // Another task may have made it meanwhile, and not have synced it yet.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => Err(error),
        _ => sync_parent(path),
    }
}

/// How full a file system is. What is kept for root is neither used nor free.
#[derive(Clone, Copy, Debug, Default)]
pub struct Space {
    /// Bytes in all.
    pub total: u64,
    /// Bytes in use.
    pub used: u64,
    /// Bytes free for us.
    pub free: u64,
    /// Inodes in all.
    pub inodes: u64,
    /// Inodes that are free.
    pub inodes_free: u64,
    /// The kernel's number for this kind of file system.
    pub kind: u64,
}

/// How full the file system is that a path lies on. Blocking.
///
/// # Errors
/// Names the path.
pub fn space(path: &Path) -> io::Result<Space> {
    super::sys::space(path).map_err(|error| name("cannot look at the file system of", path, &error))
}

const UNFINISHED: &str = "unfinished";

fn write_now(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        make_folders(parent)?;
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{:016x}.{UNFINISHED}", random::seed()));
    let temporary = PathBuf::from(temporary);
    let written = (|| {
        let mut file = OpenOptions::new().create_new(true).write(true).mode(mode).open(&temporary)?;
        // The mode at creation is cut by the umask.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_parent(path)
    })();
    if written.is_err() {
        // Best effort: the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

async fn off_the_executor<T: Send + 'static>(
    path: PathBuf,
    job: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    blocking::run(move || job(&path)).await.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
}

fn name(action: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{action} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_made_with_all_above_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let deep = folder.path().join("a/b/c");
        make_folder(&deep).expect("made");
        make_folder(&deep).expect("it is there");
        assert!(deep.is_dir());
        let file = deep.join("file");
        write_now(&file.join("under"), b"x", 0o600).expect("a folder of that name is made");
        let error = make_folder(&file.join("under/more")).expect_err("a file is in the way");
        assert!(error.to_string().contains("under/more"), "{error}");
    }
}
