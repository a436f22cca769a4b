//! Just enough of tar: plain files one after another, as Go's `archive/tar` writes and reads them.

use std::io::{self, Read};

use ::tar::{EntryType, Header};

/// Length of a header, and what files are padded to.
pub(super) const BLOCK: usize = 512;

/// The header of a file that only its owner reads.
pub(super) fn header(name: &str, length: u64, unix_seconds: u64) -> [u8; BLOCK] {
    let mut header = Header::new_ustar();
    header.set_path(name).expect("the names are short");
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(length);
    header.set_mtime(unix_seconds);
    header.set_entry_type(EntryType::Regular);
    header.set_cksum();
    *header.as_bytes()
}

/// What follows the bytes of a file.
pub(super) fn padding(length: u64) -> &'static [u8] {
    &[0; BLOCK][..(length.wrapping_neg() % BLOCK as u64) as usize]
}

/// What ends an archive.
pub(super) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Reads an archive file by file.
pub(super) struct Files<R> {
    from: R,
    /// Bytes of the current file not read yet.
    left: u64,
    /// Zeros behind it.
    padding: u64,
}

impl<R: Read> Files<R> {
    pub(super) fn new(from: R) -> Files<R> {
        Files { from, left: 0, padding: 0 }
    }

    /// The name of the next file, whose bytes are then read from here; `None` at the end.
    ///
    /// # Errors
    /// The source fails, or what it gives is no header (`InvalidData`).
    pub(super) fn next(&mut self) -> io::Result<Option<String>> {
        let rest = self.left + self.padding;
        if io::copy(&mut self.from.by_ref().take(rest), &mut io::sink())? < rest {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (self.left, self.padding) = (0, 0);
        let mut block = [0; BLOCK];
        if !self.block(&mut block)? {
            return Ok(None);
        }
        if block == [0; BLOCK] {
            // The end is two of these.
            return match self.block(&mut block)? {
                true if block != [0; BLOCK] => Err(no_header()),
                _ => Ok(None),
            };
        }
        let header = Header::from_byte_slice(&block);
        let summed = block[..148].iter().chain(&block[156..]).map(|byte| u32::from(*byte)).sum::<u32>();
        if header.cksum().ok() != Some(summed + 8 * u32::from(b' ')) {
            return Err(no_header());
        }
        let name = String::from_utf8_lossy(&header.path_bytes()).into_owned();
        self.left = header.size().map_err(|_| no_header())?;
        self.padding = padding(self.left).len() as u64;
        Ok(Some(name))
    }

    /// The source behind the end.
    pub(super) fn into_inner(self) -> R {
        self.from
    }

    /// Fills a block; false when the source had ended before it.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> io::Result<bool> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.from.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl<R: Read> Read for Files<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let room = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if room == 0 {
            return Ok(0);
        }
        let read = self.from.read(&mut out[..room])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}

fn no_header() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "archive/tar: invalid tar header")
}
