//! Files without a name, for what is too large for memory and of no use after a crash: the kernel takes them back when
//! they are closed, however that comes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// Bytes in such a file. Clones are handles to the same file. All of it blocks.
#[derive(Clone, Debug)]
pub struct Spool {
    file: Arc<File>,
    length: u64,
}

impl Spool {
    /// An empty one on the file system of `folder`, which is there.
    ///
    /// # Errors
    /// Names the folder.
    pub fn create(folder: &Path) -> io::Result<Spool> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_TMPFILE)
            .open(folder)
            .map_err(|error| {
                let text = format!("cannot make a file without a name in {}: {error}", folder.display());
                io::Error::new(error.kind(), text)
            })?;
        Ok(Spool { file: Arc::new(file), length: 0 })
    }

    /// How many bytes there are.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// The disk is full, or fails. Nothing was added then.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.length)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// All bytes from the first on. Each reader has a place of its own.
    pub fn reader(&self) -> impl Read + Send + use<> {
        Reader { spool: self.clone(), at: 0 }
    }
}

struct Reader {
    spool: Spool,
    at: u64,
}

impl Read for Reader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.spool.length - self.at).unwrap_or(usize::MAX);
        let room = out.len().min(left);
        let read = self.spool.file.read_at(&mut out[..room], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_read_by_each_reader_from_the_first_byte_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::create(folder.path()).expect("a file");
        spool.append(b"one ").expect("written");
        spool.append(b"two").expect("written");
        for _ in 0..2 {
            let mut text = String::new();
            spool.reader().read_to_string(&mut text).expect("read");
            assert_eq!(text, "one two");
        }
        assert_eq!(spool.length(), 7);
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0, "it has no name");
        let error = Spool::create(&folder.path().join("none")).expect_err("there is no folder");
        assert!(error.to_string().contains("none"), "{error}");
    }
}
