//! Reading whole files of a folder at start, from disks that may be damaged: a block that the disk cannot read is
//! given as bytes that no writer of ours makes, so that its reader finds the damage and knows the place. Blocking.

use bytes::Bytes;
use memmap2::Mmap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::sys;

/// What stands in the place of each byte that the disk cannot read.
pub const UNREADABLE: u8 = 0xEB;
/// Bytes read at once.
const BLOCK: usize = 1 << 20;
/// Of the blocks that are tried one by one after a larger one could not be read: the smallest sector.
const SECTOR: usize = 512;
/// What was never written.
static ZEROS: [u8; 4096] = [0; 4096];
/// Of the address of the bytes.
const ALIGNMENT: usize = 16;
/// Files from here on are mapped once all of them was read without a fault.
const MAPPED_MIN: u64 = 16 << 20;

/// The names of the files in a folder, in order; names that are no text are left out.
///
/// # Errors
/// Names the folder.
pub fn names(folder: &Path) -> io::Result<Vec<String>> {
    let list = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    };
    list().map_err(|error| named("cannot list", folder, &error))
}

/// Length of a file, bytes.
///
/// # Errors
/// Names the file.
pub fn length(path: &Path) -> io::Result<u64> {
    let length = fs::metadata(path).map(|about| about.len());
    length.map_err(|error| named("cannot look at", path, &error))
}

/// All bytes of a file that is still written to; whole blocks of zeros at its end are left off.
///
/// # Errors
/// Names the file.
pub fn read(path: &Path) -> io::Result<Bytes> {
    let read = File::open(path).and_then(|file| {
        // What a failed write has left in memory looks written: the disk itself is to be asked.
        file.sync_data()?;
        sys::forget_cached(&file);
        read_all(&file)
    });
    read.map_err(|error| named("cannot read", path, &error))
}

/// All bytes of a file that nobody writes to again (it may be removed). A large one is mapped, and so takes no memory that the
/// kernel could not have back.
///
/// # Errors
/// Names the file.
pub fn read_finished(path: &Path) -> io::Result<Bytes> {
    let read = File::open(path).and_then(|file| {
        let length = file.metadata()?.len();
        if length < MAPPED_MIN || !is_readable(&file, length) {
            return read_exactly(&file, length);
        }
        // SAFETY: the file has been renamed to its final name, or its writer waits for us: nobody changes its bytes any more.
        // They were just read, so that a page that cannot be had (which would kill the process) is as unlikely as can be.
        let map = unsafe { Mmap::map(&file) }?;
        Ok(Bytes::from_owner(map))
    });
    read.map_err(|error| named("cannot read", path, &error))
}

/// Makes the folder, and its name last.
///
/// # Errors
/// Names the folder.
pub fn make_folder(path: &Path) -> io::Result<()> {
    let made = fs::create_dir_all(path).and_then(|()| match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    });
    made.map_err(|error| named("cannot make", path, &error))
}

fn read_all(file: &File) -> io::Result<Bytes> {
    let bytes = read_exactly(file, file.metadata()?.len())?;
    // Block by block, as most of a fresh file is zeros.
    let blocks = bytes.chunks(ZEROS.len()).rev().take_while(|block| **block == ZEROS[..block.len()]);
    let end = bytes.len() - blocks.map(<[u8]>::len).sum::<usize>();
    Ok(bytes.slice(..end))
}

fn read_exactly(file: &File, length: u64) -> io::Result<Bytes> {
    let length = usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; length + ALIGNMENT - 1];
    let skip = bytes.as_ptr().align_offset(ALIGNMENT);
    for start in (0..length).step_by(BLOCK) {
        let block = &mut bytes[skip + start..skip + length.min(start + BLOCK)];
        if file.read_exact_at(block, start as u64).is_err() {
            read_around_damage(file, block, start as u64);
        }
    }
    Ok(Bytes::from(bytes).slice(skip..skip + length))
}

fn read_around_damage(file: &File, block: &mut [u8], start: u64) {
    for (number, sector) in block.chunks_mut(SECTOR).enumerate() {
        if file.read_exact_at(sector, start + (number * SECTOR) as u64).is_err() {
            sector.fill(UNREADABLE);
        }
    }
}

fn is_readable(file: &File, length: u64) -> bool {
    let mut block = vec![0; BLOCK];
    let mut start = 0;
    while start < length {
        let some = BLOCK.min(usize::try_from(length - start).unwrap_or(BLOCK));
        if file.read_exact_at(&mut block[..some], start).is_err() {
            return false;
        }
        start += some as u64;
    }
    true
}

fn named(action: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{action} {}: {error}", PathBuf::from(path).display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_back_aligned_and_without_the_zeros_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("sub");
        make_folder(&path).expect("it can be made");
        make_folder(&path).expect("it is there");
        let file = path.join("a");
        let mut bytes = vec![7; 3000];
        bytes.resize(100_000, 0);
        fs::write(&file, &bytes).expect("written");
        let unpadded = read(&file).expect("read");
        assert!(unpadded.len() <= 8192 && unpadded == bytes[..unpadded.len()], "{}", unpadded.len());
        assert_eq!(read_finished(&file).expect("read"), bytes);
        assert_eq!(read(&file).expect("read").as_ptr().addr() % ALIGNMENT, 0);
        assert_eq!(
            (names(&path).expect("listed"), length(&file).expect("there")),
            (vec!["a".into()], 100_000)
        );
        bytes.resize(MAPPED_MIN as usize + 5, 9);
        fs::write(&file, &bytes).expect("written");
        assert_eq!(read_finished(&file).expect("mapped"), bytes);
        assert!(read(&path.join("b")).expect_err("not there").to_string().contains("sub/b"));
    }
}
