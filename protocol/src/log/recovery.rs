//! What the files say: pure over their bytes.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::frame::{self, BLOCK};
use super::held::Held;
use super::judge::{Rest, judge};
use super::mend::{Mend, Plan};
use super::scan::{Found as FoundFrame, Run, Scanned, runs, scan};
use super::shelf::Kept;
use super::vote::{Found, Mark, Slot};
use super::{FileName, Log, SEGMENT_BYTES, SnapshotMeta, SnapshotReader};
use crate::entry::{Configuration, Entry, EntryKind, ServerId};

/// One file of the `raft` folder as found.
#[derive(Clone, Debug)]
pub struct File {
    /// Its name.
    pub name: FileName,
    /// Its length, bytes.
    pub size: u64,
    /// Its bytes, at an address that is a multiple of 16. Zeros at the end may be left off. Sectors that the disk cannot read are to be
    /// given as bytes of 0xEB, so that they are taken for damage, never for what was not written.
    pub bytes: Bytes,
}

/// What to do about entries that were promised and cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    /// With other voters in the last known configuration: cut the log before the damage, and neither vote nor campaign until it has grown
    /// past what may have been promised. As a lone voter: refuse. What a server runs with.
    RepairFromPeers,
    /// Cut the log before the damage and go on as if nothing had been promised beyond. Only at an operator's word.
    AcceptLoss,
}

/// How to recover.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of a new segment; a multiple of 4,096.
    pub segment_bytes: u64,
    /// How long the log is idle before it notes how far it is durable: [`super::MARK_PAUSE`], or nothing for tests of just that.
    pub mark_pause: Duration,
    /// Draws the salts of new segments. Nothing that a client can know.
    pub seed: u64,
    /// What to do about damage.
    pub on_damage: OnDamage,
    /// Who this server is.
    pub id: ServerId,
    /// Whether it expects to have peers, for when no configuration can be read.
    pub expects_peers: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: SEGMENT_BYTES,
            mark_pause: Duration::ZERO,
            seed: 0,
            on_damage: OnDamage::RepairFromPeers,
            id: ServerId([0; 16]),
            expects_peers: false,
        }
    }
}

/// What the files hold.
#[derive(Debug)]
pub struct Recovered {
    /// The log; unsettled: see [`super::Notice::Settled`].
    pub log: Log,
    /// The newest term this server knows of.
    pub term: u64,
    /// Whom it voted for in that term.
    pub vote: Option<ServerId>,
    /// Unless 0: neither vote nor campaign while the log's last index is below it; then `Log::set_repair_until(0)`.
    pub repair_until: u64,
    /// The newest whole snapshot, every byte checked.
    pub snapshot: Option<SnapshotReader>,
    /// All entries that the log holds, from `log.first_index()` on: also some before the snapshot's last, if they were kept. In order,
    /// without a gap. Bodies share the segment's bytes.
    pub entries: Vec<Entry>,
    /// All configurations known, the snapshot's first, then those of entries after it, each with the index of its entry.
    pub configurations: Vec<(u64, Configuration)>,
    /// What was out of order and is being put right, for the log file; empty after a clean stop.
    pub notes: Vec<String>,
}

/// Why the files cannot be used. [`fmt::Display`] is the whole message, with the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which file.
    pub file: FileName,
    /// Where in it, bytes.
    pub offset: u64,
    /// What is wrong there, and what to do.
    pub what: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {}: {}", self.file, self.offset, self.what)
    }
}

/// Reads the files of a `raft` folder: all whose names [`FileName::parse`] knows, in any order. No file: a new server.
///
/// # Errors
/// Something that was promised is gone and cannot be had from peers, or a later version wrote the files.
pub fn recover(options: Options, files: Vec<File>) -> Result<Recovered, Refused> {
    let Sorted { vote: vote_file, segments, snapshots, drafts } = sort(files);
    let mut segments: Vec<Scanned> = segments
        .into_iter()
        .map(|(number, bytes, filled)| scan(number, bytes, filled))
        .collect::<Result<_, _>>()?;
    let empty = snapshots.is_empty() && segments.iter().all(|segment| segment.frames.is_empty());
    let votes = read_votes(vote_file.as_ref(), empty)?;
    let mark = match vote_file.as_ref().map(|bytes| Mark::read(bytes)) {
        Some(Found::Good(mark)) => mark,
        _ => Mark::default(),
    };
    let mut shelf = choose_snapshots(snapshots)?;
    shelf.remove.extend(drafts);
    let mut runs = runs(&segments);
    let (chosen, damage) = choose_run(&runs, &segments, &shelf, &mark);
    let mut notes = std::mem::take(&mut shelf.notes);
    let mut repair_until = votes.slot.state.repair_until;
    if let Some(damage) = &damage {
        if options.on_damage == OnDamage::RepairFromPeers {
            if !has_peers(&options, &runs, &segments, &shelf)? {
                return Err(damage.refusal());
            }
            repair_until = repair_until.max(damage.promised);
        }
        notes.push(damage.note(&options));
    }
    let run = chosen.map(|place| runs.swap_remove(place));
    let Holding { entries, held, configurations, reset } = hold(run.as_ref(), &segments, &shelf)?;
    let (term, vote) = newest_term(&votes.slot, &held);
    let plan = Plan {
        options: &options,
        votes,
        vote_file: vote_file.is_some(),
        repair_until,
        mark,
        run,
        held,
        reset,
        kept: shelf.kept(),
        remove: shelf.remove,
        segments: std::mem::take(&mut segments),
        notes,
    };
    let Mend { log, notes } = plan.carry_out();
    Ok(Recovered { log, term, vote, repair_until, snapshot: shelf.newest, entries, configurations, notes })
}

struct Sorted {
    vote: Option<Bytes>,
    /// In order of their numbers: (number, bytes, how many of them were given).
    segments: Vec<(u64, Bytes, usize)>,
    /// Newest first: (index, term, bytes).
    snapshots: Vec<(u64, u64, Bytes)>,
    drafts: Vec<FileName>,
}

fn sort(files: Vec<File>) -> Sorted {
    let mut sorted = Sorted { vote: None, segments: Vec::new(), snapshots: Vec::new(), drafts: Vec::new() };
    for File { name, size, bytes } in files {
        let filled = bytes.len();
        let bytes = frame::aligned(whole(size, bytes));
        match name {
            FileName::Vote => sorted.vote = Some(bytes),
            FileName::Segment(number) => sorted.segments.push((number, bytes, filled)),
            FileName::Snapshot { term, index } => sorted.snapshots.push((index, term, bytes)),
            FileName::SnapshotDraft { .. } => sorted.drafts.push(name),
        }
    }
    sorted.segments.sort_by_key(|segment| segment.0);
    sorted.snapshots.sort_by_key(|snapshot| std::cmp::Reverse((snapshot.0, snapshot.1)));
    sorted
}

/// The bytes with the zeros that were left off.
fn whole(size: u64, bytes: Bytes) -> Bytes {
    if bytes.len() as u64 >= size {
        return bytes;
    }
    // Pages of zeros that nobody writes to take no memory.
    let mut whole = vec![0; size as usize];
    whole[..bytes.len()].copy_from_slice(&bytes);
    Bytes::from(whole)
}

/// What the vote file says.
#[derive(Clone)]
pub(super) struct VotesFound {
    pub slot: Slot,
    /// The slot to be written first.
    pub first_slot: usize,
    /// Whether the two differ.
    pub differ: bool,
}

fn read_votes(file: Option<&Bytes>, empty: bool) -> Result<VotesFound, Refused> {
    let refuse = |offset: usize, what: String| Refused { file: FileName::Vote, offset: offset as u64, what };
    let slots = [0, 1].map(|number| file.map_or(Found::Blank, |bytes| Slot::read(bytes, number)));
    if let Some(number) = slots.iter().position(|slot| matches!(slot, Found::Newer(_))) {
        let what = "a later version of the program wrote it; start that version";
        return Err(refuse(number * BLOCK, what.into()));
    }
    match slots {
        [Found::Good(a), Found::Good(b)] => {
            let first_slot = usize::from(a.sequence > b.sequence);
            let differ = a != b;
            Ok(VotesFound { slot: if first_slot == 1 { a } else { b }, first_slot, differ })
        }
        [Found::Good(slot), _] => Ok(VotesFound { slot, first_slot: 1, differ: true }),
        [_, Found::Good(slot)] => Ok(VotesFound { slot, first_slot: 0, differ: true }),
        [Found::Blank, Found::Blank] if empty => {
            Ok(VotesFound { slot: Slot::default(), first_slot: 0, differ: true })
        }
        _ => Err(refuse(
            0,
            "neither of its two copies of the term and the vote (at offsets 0 and 4096) can be read, and a server that forgot its vote \
             could vote twice. No other server has it. Restore the file from a backup of the moment the server stopped, or empty the data \
             folder and let the server join as a new one"
                .into(),
        )),
    }
}

/// The snapshots that can be used.
struct Snapshots {
    newest: Option<SnapshotReader>,
    newest_bytes: u64,
    older: Option<Kept>,
    /// Damaged ones that are newer than the one in use: (file, offset, what, last index).
    damaged: Vec<Refused>,
    damaged_index: u64,
    remove: Vec<FileName>,
    notes: Vec<String>,
}

impl Snapshots {
    fn base(&self) -> (u64, u64) {
        self.meta().map_or((0, 0), |meta| (meta.index, meta.term))
    }

    fn meta(&self) -> Option<&SnapshotMeta> {
        self.newest.as_ref().map(SnapshotReader::meta)
    }

    fn kept(&self) -> Vec<Kept> {
        let newest =
            self.meta().map(|meta| Kept { index: meta.index, term: meta.term, bytes: self.newest_bytes });
        newest.into_iter().chain(self.older).collect()
    }
}

/// The newest one of which every byte is right, and the one before it.
fn choose_snapshots(files: Vec<(u64, u64, Bytes)>) -> Result<Snapshots, Refused> {
    let mut found = Snapshots {
        newest: None,
        newest_bytes: 0,
        older: None,
        damaged: Vec::new(),
        damaged_index: 0,
        remove: Vec::new(),
        notes: Vec::new(),
    };
    for (index, term, bytes) in files {
        let (file, length) = (FileName::Snapshot { term, index }, bytes.len() as u64);
        if found.older.is_some() {
            found.remove.push(file);
            continue;
        }
        let opened = SnapshotReader::open(bytes).and_then(|reader| {
            if found.newest.is_none() {
                reader.verify()?;
            }
            reader.named(index, term)?;
            Ok(reader)
        });
        match opened {
            Ok(reader) if found.newest.is_none() => {
                found.newest = Some(reader);
                found.newest_bytes = length;
            }
            Ok(_) => found.older = Some(Kept { index, term, bytes: length }),
            Err(damage) if damage.newer => {
                return Err(Refused { file, offset: damage.offset, what: damage.what });
            }
            Err(damage) => {
                found.notes.push(format!("raft/{file} {damage}; the file is removed"));
                if found.newest.is_none() {
                    found.damaged.push(Refused { file, offset: damage.offset, what: damage.what });
                    found.damaged_index = found.damaged_index.max(index);
                }
                found.remove.push(file);
            }
        }
    }
    Ok(found)
}

/// Entries that were promised and cannot be read.
struct Damage {
    file: FileName,
    offset: u64,
    what: String,
    /// The first entry that is gone.
    first: u64,
    /// The last that may have been promised.
    promised: u64,
}

impl Damage {
    fn refusal(&self) -> Refused {
        let Damage { file, offset, what, first, promised } = self;
        Refused {
            file: *file,
            offset: *offset,
            what: format!(
                "{what}; entries {first} to {promised} may have been promised and cannot be read. This server is the only one that could \
                 have them. Restore the data folder from a backup; or empty it, start anew and restore a snapshot (muster snapshot \
                 restore); or, to go on without these entries and all after them, create an empty file named accept-loss in the folder \
                 raft and start again"
            ),
        }
    }

    fn note(&self, options: &Options) -> String {
        let Damage { file, offset, what, first, promised } = self;
        let then = match options.on_damage {
            OnDamage::RepairFromPeers => {
                "the log is cut there and the entries are fetched from other servers; no vote until then"
            }
            OnDamage::AcceptLoss => "the log is cut there and the entries are given up, as the operator said",
        };
        format!(
            "raft/{file} at offset {offset}: {what}; entries {first} to {promised} may have been promised: {then}"
        )
    }
}

/// The run that the log goes on from, and what is missing behind it.
fn choose_run(
    runs: &[Run],
    segments: &[Scanned],
    snapshots: &Snapshots,
    mark: &Mark,
) -> (Option<usize>, Option<Damage>) {
    let base = snapshots.base().0;
    let usable = |run: &Run| run.held.first() <= base + 1 || run.held.last() <= base;
    let chosen = runs.iter().rposition(usable);
    let sequence = chosen.map_or(0, |place| runs[place].last().1.header.sequence);
    let last = chosen.map_or(base, |place| runs[place].held.last().max(base));
    let promised = evidence(runs, segments, snapshots, mark, sequence);
    let (file, offset) = match chosen {
        Some(place) => {
            let (segment, found) = runs[place].last();
            (FileName::Segment(segments[*segment].number), found.end())
        }
        None => (FileName::Segment(segments.first().map_or(1, |segment| segment.number)), BLOCK as u64),
    };
    let damage = |what: &str, promised: u64| Damage {
        file,
        offset,
        what: what.to_string(),
        first: last.saturating_add(1),
        promised: promised.max(last.saturating_add(1)),
    };
    if let Some(bad) = snapshots.damaged.first().filter(|_| snapshots.damaged_index > last) {
        let promised = promised.unwrap_or(0).max(snapshots.damaged_index);
        return (chosen, Some(Damage { file: bad.file, offset: bad.offset, ..damage(&bad.what, promised) }));
    }
    if let Some(promised) = promised {
        let what = match chosen {
            Some(_) => "the log is damaged: whole frames that were written later follow, or were durable",
            None => "the log is damaged: it does not reach back to the snapshot",
        };
        return (chosen, Some(damage(what, promised)));
    }
    let suspect = suspect_rest(chosen.map(|place| &runs[place]), segments, sequence, last);
    let found =
        suspect.map(|(file, offset, last_index, what)| Damage { file, offset, ..damage(what, last_index) });
    (chosen, found)
}

/// The last index of whatever proves that frames after `sequence` were written once and durable.
fn evidence(
    runs: &[Run],
    segments: &[Scanned],
    snapshots: &Snapshots,
    mark: &Mark,
    sequence: u64,
) -> Option<u64> {
    let later = runs.iter().flat_map(|run| run.frames.iter().map(|(_, found)| found));
    // A frame that lies where it does not belong counts if it is one of this log, which only its salt tells.
    let homes: Vec<_> = segments.iter().filter_map(Scanned::home).collect();
    let strays = segments.iter().flat_map(|segment| &segment.strays);
    let strays = strays.filter(|found| homes.contains(&found.header.home));
    let frames = later.chain(strays).filter(|found| found.header.sequence > sequence);
    let frames = frames.map(|found| found.header.last_index());
    let marked = (mark.sequence > sequence).then_some(mark.last_index);
    // What the snapshot holds is not lost, whatever became of the frames.
    frames.chain(marked).filter(|promised| *promised > snapshots.base().0).max()
}

/// Looks behind the last frame of the log, and at the segments after it, for what may have been promised.
fn suspect_rest(
    run: Option<&Run>,
    segments: &[Scanned],
    sequence: u64,
    last: u64,
) -> Option<(FileName, u64, u64, &'static str)> {
    let (from, end) = run.map_or((0, BLOCK as u64), |run| (run.last().0, run.last().1.end()));
    let mut torn = false;
    for (place, segment) in segments.iter().enumerate().skip(from) {
        let start = if place == from { end } else { BLOCK as u64 };
        let file = FileName::Segment(segment.number);
        match judge(segment, start, sequence, last) {
            Rest::Clean => {}
            Rest::Torn if torn => {
                return Some((
                    file,
                    start,
                    last.saturating_add(1),
                    "two writes are torn, and one was under way",
                ));
            }
            Rest::Torn => torn = true,
            Rest::Suspect { last_index, what } => return Some((file, start, last_index, what)),
        }
    }
    None
}

/// Whether another server could have what is missing here.
fn has_peers(
    options: &Options,
    runs: &[Run],
    segments: &[Scanned],
    snapshots: &Snapshots,
) -> Result<bool, Refused> {
    let mut newest = snapshots.meta().map(|meta| (meta.configuration_index, meta.configuration.clone()));
    for (place, found) in runs.iter().flat_map(|run| &run.frames) {
        let mut entries = Vec::new();
        let frame = segments[*place].bytes.slice(found.offset as usize..);
        if frame::entries(&found.header, &frame, 0, u64::MAX, &mut entries).is_err() {
            continue;
        }
        for entry in &entries {
            if let Some(read) = configuration_of(entry, found)?
                .filter(|_| newest.as_ref().is_none_or(|it| it.0 <= entry.index))
            {
                newest = Some((entry.index, read));
            }
        }
    }
    Ok(match newest {
        Some((_, configuration)) => configuration.voters().any(|voter| voter != options.id),
        None => options.expects_peers,
    })
}

/// The configuration in an entry of this frame, if it is one.
fn configuration_of(entry: &Entry, found: &FoundFrame) -> Result<Option<Configuration>, Refused> {
    if entry.kind != EntryKind::Configuration {
        return Ok(None);
    }
    let read = Configuration::decode(entry.version, &entry.body);
    read.map(Some).map_err(|why| Refused {
        file: FileName::Segment(found.header.home.segment),
        offset: found.offset,
        what: format!("entry {}: {why}; start the version of the program that wrote it", entry.index),
    })
}

/// What the log begins with.
struct Holding {
    entries: Vec<Entry>,
    held: Held,
    configurations: Vec<(u64, Configuration)>,
    /// The next frame must say that it does not continue what lies before it.
    reset: bool,
}

/// What the chosen run holds beside the snapshot.
fn hold(run: Option<&Run>, segments: &[Scanned], snapshots: &Snapshots) -> Result<Holding, Refused> {
    let base = snapshots.base();
    let known = snapshots.meta().map(|meta| (meta.configuration_index, meta.configuration.clone()));
    let mut holding = Holding {
        entries: Vec::new(),
        held: Held::new(base),
        configurations: known.into_iter().collect(),
        reset: true,
    };
    let Some(run) = run else { return Ok(holding) };
    let covered = run.held.last() < base.0;
    let conflicts = run.held.first() <= base.0 && run.held.term_at(base.0) != Some(base.1);
    if covered || conflicts {
        return Ok(holding);
    }
    holding.reset = false;
    holding.held = run.held.clone();
    holding.held.rebase(base);
    for placed in holding.held.frames() {
        let at = run.frames.partition_point(|(_, found)| found.header.sequence < placed.sequence);
        let (segment, found) = &run.frames[at];
        let bytes = segments[*segment].bytes.slice(found.offset as usize..);
        let read_before = holding.entries.len();
        // Checked when it was found.
        let read = frame::entries(&found.header, &bytes, placed.first, placed.last, &mut holding.entries);
        assert!(read.is_ok(), "a frame that was whole stays whole in memory");
        for entry in holding.entries[read_before..].iter().filter(|entry| entry.index > base.0) {
            let read = configuration_of(entry, found)?;
            holding.configurations.extend(read.map(|read| (entry.index, read)));
        }
    }
    Ok(holding)
}

/// Entries of a later term than the saved one were written before the term was: then nobody was voted for in it.
fn newest_term(slot: &Slot, held: &Held) -> (u64, Option<ServerId>) {
    let last_term = held.term_at(held.last()).unwrap_or(0);
    match slot.state.term >= last_term {
        true => (slot.state.term, slot.state.vote),
        false => (last_term, None),
    }
}
