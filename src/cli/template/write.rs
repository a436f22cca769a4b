//! Writes rendered files, each whole or not at all: into a new file beside it, to the disk, and then over the old one.
//!
//! Disks take many files at once in the time of a few: all that a change has touched go to the disk together.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::thread;

use super::settings::Job;
use crate::runtime::{random, users};
use crate::template::FileToWrite;

/// The mode of a file that was not there before (consul-template: `DefaultTemplateFilePerms`).
const MODE_DEFAULT: u32 = 0o644;
/// What is behind the name of a backup.
const BACKUP: &str = ".bak";

/// Links that lead to each other (the kernel's own limit).
const LINKS_MAX: usize = 40;
/// Characters of a name that its temporary file keeps.
const NAME_MAX: usize = 50;
/// How many threads wait for the disk at once.
const SYNCERS: usize = 8;

/// A file that is written beside the one that it will replace.
pub struct Pending {
    path: PathBuf,
    fresh: Fresh,
    file: File,
    backs_up: bool,
    /// Whose output it is.
    pub of: usize,
}

/// Writes a template's output beside its destination. `None`: it stands there already.
pub fn prepare(job: &Job, destination: &Path, bytes: &[u8]) -> Result<Option<Pending>, String> {
    let shown = |why: io::Error| format!("{}: {why}", destination.display());
    let path = target_of(destination).map_err(shown)?;
    let old = match fs::metadata(&path) {
        Ok(meta) if meta.is_dir() => return Err(format!("{}: is a directory", destination.display())),
        Ok(meta) => Some(meta),
        Err(why) if why.kind() == io::ErrorKind::NotFound => None,
        Err(why) => return Err(shown(why)),
    };
    let mode = job.mode.or(old.as_ref().map(|old| old.mode() & 0o7777)).unwrap_or(MODE_DEFAULT);
    let owner = job.user.as_deref().map(users::user_id).transpose().map_err(shown)?;
    let group = job.group.as_deref().map(users::group_id).transpose().map_err(shown)?;
    if let Some(old) = &old
        && fs::read(&path).is_ok_and(|there| there == bytes)
    {
        if old.mode() & 0o7777 != mode {
            fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(shown)?;
        }
        if owner.is_some_and(|owner| owner != old.uid()) || group.is_some_and(|group| group != old.gid()) {
            chown(&path, owner, group).map_err(shown)?;
        }
        return Ok(None);
    }
    let folder = folder_of(&path);
    if job.makes_folders {
        fs::create_dir_all(folder).map_err(shown)?;
    }
    let ids = (owner.or(old.as_ref().map(MetadataExt::uid)), group.or(old.as_ref().map(MetadataExt::gid)));
    let asked = (owner.is_some(), group.is_some());
    let (fresh, file) = Fresh::write(&path, bytes, mode, ids, asked).map_err(shown)?;
    Ok(Some(Pending { path, fresh, file, backs_up: job.backup && old.is_some(), of: 0 }))
}

/// What a path leads to: that is written, and links stay. They are followed one by one, as the last may lead to what is not
/// there yet.
fn target_of(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            Ok(to) => path = folder_of(&path).join(to),
            // No link, or not there: whoever opens it tells why if that is not enough.
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many levels of symbolic links"))
}

/// Brings files to the disk and puts them in their places. Whose are there is added to `done`, also when others fail.
pub fn commit(pending: Vec<Pending>, done: &mut Vec<usize>) -> Result<(), String> {
    let shown = |pending: &Pending, why: io::Error| format!("{}: {why}", pending.path.display());
    let part = pending.len().div_ceil(SYNCERS).max(1);
    thread::scope(|scope| {
        let sync = |part: &[Pending]| {
            part.iter().try_for_each(|one| one.file.sync_all().map_err(|why| shown(one, why)))
        };
        let threads: Vec<_> = pending.chunks(part).map(|part| scope.spawn(move || sync(part))).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err("a thread that waits for the disk has panicked".to_owned()))
        })
    })?;
    let mut folders = BTreeSet::new();
    for one in pending {
        if one.backs_up {
            back_up(&one.path).map_err(|why| shown(&one, why))?;
        }
        folders.insert(folder_of(&one.path).to_path_buf());
        let name = one.path.display().to_string();
        one.fresh.replace(&one.path).map_err(|why| format!("{name}: {why}"))?;
        done.push(one.of);
    }
    for folder in folders {
        sync_folder(&folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    }
    Ok(())
}

/// Brings the names in a folder to the disk.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// A finished file beside the one that it will replace; gone when it does not.
struct Fresh {
    path: Option<PathBuf>,
}

impl Fresh {
    fn write(
        path: &Path,
        bytes: &[u8],
        mode: u32,
        ids: (Option<u32>, Option<u32>),
        asked: (bool, bool),
    ) -> io::Result<(Fresh, File)> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Longer names than this leave no room for what is added.
        let name: String = name.chars().take(NAME_MAX).collect();
        // In a folder that others may write to, nobody may be there before. What a killed process has left is in nobody's way.
        let temporary = folder_of(path).join(format!(".{name}.{:016x}.tmp", random::seed()));
        // Nobody else may read it before its mode is what it shall be.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let fresh = Fresh { path: Some(temporary.clone()) };
        file.write_all(bytes)?;
        let own = file.metadata()?;
        let (user, group) =
            (ids.0.filter(|user| *user != own.uid()), ids.1.filter(|group| *group != own.gid()));
        if user.is_some() || group.is_some() {
            let done = chown(&temporary, user, group);
            // Who is not root cannot keep another's file another's; only what was asked for must be.
            if (asked.0 && user.is_some()) || (asked.1 && group.is_some()) {
                done?;
            }
        }
        file.set_permissions(Permissions::from_mode(mode))?;
        Ok((fresh, file))
    }

    fn replace(mut self, path: &Path) -> io::Result<()> {
        let Some(temporary) = &self.path else { return Ok(()) };
        fs::rename(temporary, path)?;
        self.path = None;
        Ok(())
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // What could not be finished is of no use to anybody.
            let _ = fs::remove_file(path);
        }
    }
}

/// Keeps the file before under another name: always one, always whole.
fn back_up(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(BACKUP);
    let mut old = File::open(path)?;
    let meta = old.metadata()?;
    let mut bytes = Vec::new();
    old.read_to_end(&mut bytes)?;
    let ids = (Some(meta.uid()), Some(meta.gid()));
    let (fresh, file) = Fresh::write(Path::new(&name), &bytes, meta.mode() & 0o7777, ids, (false, false))?;
    file.sync_all()?;
    fresh.replace(Path::new(&name))
}

/// Writes a file that a template asks for beside its own.
pub fn write_extra(file: &FileToWrite) -> Result<(), String> {
    let path = Path::new(&file.path);
    let shown = |why: io::Error| format!("writeToFile: {}: {why}", file.path);
    fs::create_dir_all(folder_of(path)).map_err(shown)?;
    let is_link = |path: &Path| fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_symlink());
    if is_link(path) || is_link(folder_of(path)) {
        return Err(format!("writeToFile: refusing to write through a link: {}", file.path));
    }
    let id = |name: &str, look_up: fn(&str) -> io::Result<u32>| {
        if name.is_empty() { Ok(None) } else { look_up(name).map(Some) }
    };
    let owner = id(&file.user, users::user_id).map_err(shown)?;
    let group = id(&file.group, users::group_id).map_err(shown)?;
    if !file.appends {
        let asked = (owner.is_some(), group.is_some());
        let (fresh, file) =
            Fresh::write(path, &file.content, file.mode, (owner, group), asked).map_err(shown)?;
        return file
            .sync_all()
            .and_then(|()| fresh.replace(path))
            .and_then(|()| sync_folder(folder_of(path)))
            .map_err(shown);
    }
    let mut out = OpenOptions::new().append(true).create(true).mode(file.mode).open(path).map_err(shown)?;
    out.write_all(&file.content).map_err(shown)?;
    if owner.is_some() || group.is_some() {
        chown(path, owner, group).map_err(shown)?;
    }
    out.set_permissions(Permissions::from_mode(file.mode)).map_err(shown)
}
