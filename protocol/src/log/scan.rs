//! Finds the frames in the segments, whatever else lies there.

use bytes::Bytes;

use super::frame::{self, BLOCK, Fault, FrameHeader, Home, SECTOR, is_zero};
use super::held::{Frame, Held};
use super::segment::{Head, read_head};
use super::{FileName, Refused};

/// A whole frame.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub header: FrameHeader,
    /// Where it lies, bytes.
    pub offset: u64,
    /// Runs of one term in it: (first index, term).
    pub terms: Vec<(u64, u64)>,
}

impl Found {
    fn placed(&self) -> Frame {
        Frame {
            sequence: self.header.sequence,
            segment: self.header.home.segment,
            block: self.header.block,
            bytes: self.header.frame_bytes() as u32,
            first: self.header.first_index,
            last: self.header.last_index(),
        }
    }

    pub fn end(&self) -> u64 {
        self.offset + self.header.frame_bytes()
    }
}

/// What one segment file holds.
#[derive(Debug)]
pub(super) struct Scanned {
    pub number: u64,
    pub bytes: Bytes,
    /// Whether its first block says that it is this segment.
    pub head: bool,
    /// `None` if nothing in it tells.
    pub salt: Option<u64>,
    /// Frames that lie where they belong.
    pub frames: Vec<Found>,
    /// Frames that belong elsewhere: misdirected writes.
    pub strays: Vec<Found>,
    /// Where the last block ends that is not all zeros, bytes.
    pub data_end: u64,
}

impl Scanned {
    /// Whole blocks of the file, bytes.
    pub fn size(&self) -> u64 {
        (self.bytes.len() / BLOCK * BLOCK) as u64
    }

    pub fn home(&self) -> Option<Home> {
        self.salt.map(|salt| Home { segment: self.number, salt })
    }
}

/// Looks at every sector of a segment. Behind the first `filled` bytes there are only zeros.
pub(super) fn scan(number: u64, bytes: Bytes, filled: usize) -> Result<Scanned, Refused> {
    let head = match read_head(&bytes) {
        Head::Good(home) if home.segment == number => Some(home.salt),
        Head::Good(_) | Head::Bad => None,
        Head::Newer(version) => return Err(newer(number, 0, &format!("a segment of version {version}"))),
    };
    let blocks = bytes[..filled].chunks(BLOCK).rposition(|block| !is_zero(block)).map_or(0, |last| last + 1);
    let data_end = (blocks * BLOCK).min(bytes.len()) as u64;
    let mut scanned = Scanned {
        number,
        bytes,
        head: head.is_some(),
        salt: head,
        frames: Vec::new(),
        strays: Vec::new(),
        data_end,
    };
    let mut offset = BLOCK as u64;
    while offset < data_end {
        let found = find(&scanned.bytes[offset as usize..], offset);
        let step = match found {
            Ok(found) if found.header.home.segment == number && found.header.offset() == offset => {
                let salt = *scanned.salt.get_or_insert(found.header.home.salt);
                let end = found.end();
                let own = found.header.home.salt == salt;
                if own { &mut scanned.frames } else { &mut scanned.strays }.push(found);
                if own { end - offset } else { SECTOR as u64 }
            }
            Ok(found) => {
                scanned.strays.push(found);
                SECTOR as u64
            }
            Err(Fault::Newer(what)) if offset.is_multiple_of(BLOCK as u64) => {
                return Err(newer(number, offset, &what));
            }
            Err(_) => SECTOR as u64,
        };
        offset += step;
    }
    Ok(scanned)
}

/// The frame at the start of `bytes`, all of it checked.
fn find(bytes: &[u8], offset: u64) -> Result<Found, Fault> {
    let header = FrameHeader::read(bytes)?;
    let mut terms: Vec<(u64, u64)> = Vec::new();
    let mut fell = false;
    frame::records(&header, bytes, |record| match terms.last() {
        Some(run) if run.1 == record.term => {}
        Some(run) if run.1 > record.term => fell = true,
        _ => terms.push((record.index, record.term)),
    })?;
    if fell {
        return Err(Fault::Bad("the terms in it fall"));
    }
    Ok(Found { header, offset, terms })
}

fn newer(number: u64, offset: u64, what: &str) -> Refused {
    Refused {
        file: FileName::Segment(number),
        offset,
        what: format!("{what} lies there, which a later version of the program wrote; start that version"),
    }
}

/// Frames that follow one another without a break, and what they add up to.
#[derive(Debug)]
pub(super) struct Run {
    /// (Which of the segments scanned, the frame).
    pub frames: Vec<(usize, Found)>,
    pub held: Held,
}

impl Run {
    pub fn last(&self) -> &(usize, Found) {
        self.frames.last().expect("a run is made of its first frame")
    }

    pub fn first(&self) -> &(usize, Found) {
        self.frames.first().expect("a run is made of its first frame")
    }

    fn new(segment: usize, found: Found) -> Option<Run> {
        let held = Held::new((found.header.first_index - 1, 0));
        let mut run = Run { frames: Vec::new(), held };
        run.replay(&found).then(|| {
            run.frames.push((segment, found));
            run
        })
    }

    /// Adds a frame if it follows the last one.
    fn extend(&mut self, segment: usize, found: &Found) -> bool {
        let before = &self.last().1.header;
        let follows = found.header.sequence == before.sequence + 1 && found.header.previous == before.chain;
        if !follows || !self.replay(found) {
            return false;
        }
        self.frames.push((segment, found.clone()));
        true
    }

    fn replay(&mut self, found: &Found) -> bool {
        let (first, last) = (found.header.first_index, found.header.last_index());
        let anew = found.header.reset || first < self.held.first();
        if !anew && first > self.held.last() + 1 {
            return false;
        }
        let before = if anew { 0 } else { self.held.term_at(first - 1).unwrap_or(0) };
        if found.terms.first().is_none_or(|run| run.1 < before) {
            return false;
        }
        if anew {
            self.held.reset((first - 1, 0));
        } else {
            self.held.truncate(first);
        }
        for (place, (index, term)) in found.terms.iter().enumerate() {
            let end = found.terms.get(place + 1).map_or(last, |next| next.0 - 1);
            self.held.push_run(*index, end, *term);
        }
        self.held.place(found.placed(), anew);
        true
    }
}

/// All runs in the segments (which are in order of their numbers), in order of their frames' numbers.
pub(super) fn runs(segments: &[Scanned]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (number, segment) in segments.iter().enumerate() {
        for found in &segment.frames {
            let follows = runs.last_mut().is_some_and(|run| run.extend(number, found));
            if !follows {
                runs.extend(Run::new(number, found.clone()));
            }
        }
    }
    runs.sort_by_key(|run| run.first().1.header.sequence);
    runs
}
