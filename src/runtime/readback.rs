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

/// All bytes of a file that nobody writes to again (it may be removed). A large one is mapped: its bytes are not copied, and
/// the kernel can have their memory back.
///
/// # Errors
/// Names the file.
pub fn read_finished(path: &Path) -> io::Result<Bytes> {
    let read = File::open(path).and_then(|file| {
        let length = file.metadata()?.len();
        match length >= MAPPED_MIN && is_readable(&file, 0, length) {
            true => map(&file),
            false => copy(&file, length).map(|(bytes, _)| bytes),
        }
    });
    read.map_err(|error| named("cannot read", path, &error))
}

/// The same for a file of which only the first and the last MiB will be looked at: no more is read now.
///
/// # Errors
/// Names the file.
pub fn read_ends(path: &Path) -> io::Result<Bytes> {
    let read = File::open(path).and_then(|file| {
        let length = file.metadata()?.len();
        let tail = length.saturating_sub(BLOCK as u64);
        let ends =
            length >= MAPPED_MIN && is_readable(&file, 0, BLOCK as u64) && is_readable(&file, tail, length);
        match ends {
            true => map(&file),
            false => copy(&file, length).map(|(bytes, _)| bytes),
        }
    });
    read.map_err(|error| named("cannot read", path, &error))
}

fn read_all(file: &File) -> io::Result<Bytes> {
    let (bytes, written) = copy(file, file.metadata()?.len())?;
    // Block by block, as most of what follows the last frame is zeros.
    let blocks = bytes[..written].chunks(ZEROS.len()).rev();
    let zeros = blocks.take_while(|block| **block == ZEROS[..block.len()]).map(<[u8]>::len).sum::<usize>();
    Ok(bytes.slice(..written - zeros))
}

/// A copy of a file, and where the last part of it ends that was ever written. The rest is not read: it takes neither time nor memory.
fn copy(file: &File, length: u64) -> io::Result<(Bytes, usize)> {
    let size = usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
    // Zeroed memory is no memory until it is touched.
    let mut bytes = vec![0; size + ALIGNMENT - 1];
    let skip = bytes.as_ptr().align_offset(ALIGNMENT);
    let mut written = 0;
    while let Some((begin, end)) = sys::written_part(file, written as u64, length) {
        let (begin, end) = (begin as usize, end as usize);
        for start in (begin..end).step_by(BLOCK) {
            let block = &mut bytes[skip + start..skip + end.min(start + BLOCK)];
            if file.read_exact_at(block, start as u64).is_err() {
                read_around_damage(file, block, start as u64);
            }
        }
        written = end;
    }
    Ok((Bytes::from(bytes).slice(skip..skip + size), written))
}

fn map(file: &File) -> io::Result<Bytes> {
    // SAFETY: nobody changes the bytes of the file any more: a snapshot has its final name or its writer waits for us, and what is
    // looked at of a segment, its frames, is written once. They were just read without a fault, so that a page that
    // cannot be had later (which would kill the process) is as unlikely as can be.
    let map = unsafe { Mmap::map(file) }?;
    Ok(Bytes::from_owner(map))
}

fn read_around_damage(file: &File, block: &mut [u8], start: u64) {
    for (number, sector) in block.chunks_mut(SECTOR).enumerate() {
        if file.read_exact_at(sector, start + (number * SECTOR) as u64).is_err() {
            sector.fill(UNREADABLE);
        }
    }
}

/// Whether the disk gives all bytes of `from..to`; leaves them in the page cache.
fn is_readable(file: &File, from: u64, to: u64) -> bool {
    let mut block = vec![0; BLOCK];
    let mut start = from;
    while start < to {
        let some = BLOCK.min(usize::try_from(to - start).unwrap_or(BLOCK));
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
        fs::create_dir(&path).expect("made");
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
        let ends = read_ends(&file).expect("mapped");
        assert_eq!(
            (ends.len(), &ends[..8], &ends[ends.len() - 8..]),
            (bytes.len(), &bytes[..8], &[9; 8][..])
        );
        assert!(read(&path.join("b")).expect_err("not there").to_string().contains("sub/b"));
    }

    /// A segment is reserved as a whole and written from its beginning; a write that went astray may lie anywhere in it.
    #[test]
    fn what_was_never_written_reads_as_zeros_wherever_it_lies() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        let length = 3 * MAPPED_MIN;
        let file = File::options().create(true).truncate(true).write(true).open(&path).expect("made");
        assert!(read(&path).expect("an empty one").is_empty());
        sys::allocate(&file, length).expect("reserved");
        assert!(read(&path).expect("all zeros").is_empty());
        file.write_all_at(&[7; 5000], 0).expect("written");
        file.write_all_at(&[8; 10], 2 * MAPPED_MIN + 4096).expect("written");
        let bytes = read(&path).expect("read");
        let end = 2 * MAPPED_MIN as usize + 4096;
        assert_eq!((&bytes[..5000], &bytes[end..end + 10]), (&[7; 5000][..], &[8; 10][..]));
        assert!(bytes[5000..end].iter().chain(&bytes[end + 10..]).all(|byte| *byte == 0));
        assert!(bytes.len() <= end + 4096, "{}", bytes.len());
        assert_eq!(sys::written_part(&file, length, length), None);
    }
}
