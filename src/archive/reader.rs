//! Reading an archive, checking all of it on the way.

use std::fmt;
use std::io::{self, Cursor, Read};

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::meta::Meta;
use super::state::{Opening, next_section, open};
use super::sums::{self, Sum};
use super::tar::Files;
use super::{META, STATE, SUMS, TEXT_LENGTH_MAX};
use crate::store::Section;

/// Why an archive is not taken. The text is Consul's where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveError(String);

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ArchiveError {}

/// What an archive holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// What it says of itself.
    pub meta: Meta,
    /// Who made it.
    pub origin: Origin,
    /// How many sections it has.
    pub sections: u64,
}

/// Who made an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// We did.
    Muster,
    /// A later version of us, with this version of the format.
    Later(u16),
    /// Consul.
    Consul,
}

impl Origin {
    /// Whether its sections can be read here.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub fn check(self) -> Result<(), ArchiveError> {
        match self {
            Origin::Muster => Ok(()),
            Origin::Later(version) => Err(ArchiveError(format!(
                "the snapshot was saved by a later version of this program (format {version}): upgrade the servers, \
                 then restore it"
            ))),
            Origin::Consul => Err(ArchiveError(
                "the snapshot is one of Consul's own, whose tables only Consul reads; nothing was changed. To move: \
                 restore it into a Consul server, take the keys out with 'consul kv export' and put them in here \
                 with 'kv import'; services and checks come by themselves when their agents join this cluster"
                    .into(),
            )),
        }
    }
}

/// Reads an archive from its first byte to its last and gives every section to `visit`, in order, each checked by itself. All of
/// them have been given before the whole is known to be undamaged: a caller that must not begin with a damaged one
/// reads it twice.
///
/// # Errors
/// It is damaged, is no archive, or `visit` wants no more.
pub fn read(
    from: impl Read,
    visit: &mut dyn FnMut(Section) -> Result<(), String>,
) -> Result<Contents, ArchiveError> {
    let unpacked =
        decompress(from).map_err(|why| ArchiveError(format!("failed to decompress snapshot: {why}")))?;
    let mut files = Files::new(unpacked);
    let contents = read_files(&mut files, visit)
        .map_err(|why| ArchiveError(format!("failed to read snapshot file: {why}")))?;
    let mut unpacked = files.into_inner();
    match io::copy(&mut unpacked, &mut io::sink()) {
        Ok(0) => Ok(contents),
        Ok(more) => Err(ArchiveError(format!("{more} unread uncompressed bytes remain"))),
        Err(error) => Err(ArchiveError(error_text(&error))),
    }
}

/// A gzip stream whose header was looked at.
type Unpacked<R> = MultiGzDecoder<io::Chain<Cursor<Vec<u8>>, R>>;

/// Looks at the header of the gzip stream.
fn decompress<R: Read>(mut from: R) -> Result<Unpacked<R>, String> {
    const HEADER: u64 = 10;
    let mut header = Vec::new();
    from.by_ref().take(HEADER).read_to_end(&mut header).map_err(|error| error_text(&error))?;
    match header.len() as u64 {
        0 => Err("EOF".into()),
        HEADER if header[..3] == [0x1f, 0x8b, 8] => Ok(MultiGzDecoder::new(Cursor::new(header).chain(from))),
        HEADER => Err("gzip: invalid header".into()),
        _ => Err("unexpected EOF".into()),
    }
}

fn read_files(
    files: &mut Files<impl Read>,
    visit: &mut dyn FnMut(Section) -> Result<(), String>,
) -> Result<Contents, String> {
    let mut contents = Contents { meta: Meta::default(), origin: Origin::Consul, sections: 0 };
    let mut sums = [(META, Hashed::nothing()), (STATE, Hashed::nothing())];
    let (mut list, mut broken) = (Vec::new(), None);
    let failed = |what: &'static str| move |error: io::Error| format!("{what}: {}", error_text(&error));
    while let Some(name) = files.next().map_err(failed("failed reading snapshot"))? {
        match name.as_str() {
            META => {
                let text = read_text(files).map_err(failed("failed to read snapshot metadata"))?;
                sums[0].1 = Sha256::digest(&text).into();
                contents.meta = serde_json::from_slice(&text).map_err(|error| {
                    let why = crate::config::gojson::error_text(&text, &error);
                    format!("failed to decode snapshot metadata: {why}")
                })?;
            }
            STATE => {
                let mut hashed = Hashed { from: &mut *files, hash: Sha256::new() };
                (contents.origin, broken) = read_state(&mut hashed, &mut contents.sections, visit)?;
                io::copy(&mut hashed, &mut io::sink())
                    .map_err(failed("failed to read or write snapshot data"))?;
                sums[1].1 = hashed.hash.finalize().into();
            }
            SUMS => list = read_text(files).map_err(failed("failed to read snapshot hashes"))?,
            other => return Err(format!("unexpected file {other:?} in snapshot")),
        }
    }
    let verified = sums::verify(&list, &sums).and(broken.map_or(Ok(()), Err));
    verified.map_err(|why| format!("failed checking integrity of snapshot: {why}"))?;
    Ok(contents)
}

/// Who made the file, and what is wrong with it if the hash of the whole, which comes later, should not tell.
fn read_state(
    from: &mut impl Read,
    sections: &mut u64,
    visit: &mut dyn FnMut(Section) -> Result<(), String>,
) -> Result<(Origin, Option<String>), String> {
    let failed = |error: io::Error| format!("failed to read or write snapshot data: {}", error_text(&error));
    match open(from).map_err(failed)? {
        Opening::Foreign => return Ok((Origin::Consul, None)),
        Opening::Later(version) => return Ok((Origin::Later(version), None)),
        Opening::Sections => {}
    }
    loop {
        match next_section(from, *sections) {
            Ok(Some(section)) => visit(section)?,
            Ok(None) => return Ok((Origin::Muster, None)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Ok((Origin::Muster, Some(format!("{STATE}: {error}"))));
            }
            Err(error) => return Err(failed(error)),
        }
        *sections += 1;
    }
}

fn read_text(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    from.take(TEXT_LENGTH_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > TEXT_LENGTH_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than any can be"));
    }
    Ok(text)
}

/// Hashes what is read through it.
struct Hashed<R> {
    from: R,
    hash: Sha256,
}

impl Hashed<()> {
    /// The hash of an empty file, for one that is not there.
    fn nothing() -> Sum {
        Sha256::digest([]).into()
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(out)?;
        self.hash.update(&out[..read]);
        Ok(read)
    }
}

/// An error in Go's words.
fn error_text(error: &io::Error) -> String {
    let text = error.to_string();
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "unexpected EOF".into(),
        _ if text.contains("checksum") => "gzip: invalid checksum".into(),
        _ if text.contains("invalid gzip header") => "gzip: invalid header".into(),
        _ if text.contains("deflate") => "flate: corrupt input".into(),
        _ => text,
    }
}
