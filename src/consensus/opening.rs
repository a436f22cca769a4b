//! From a data folder to a running server.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_lite::future::zip;
use muster_protocol::entry::{Configuration, Server, ServerId};
use muster_protocol::log::{self, FileName, OnDamage, Recovered, SnapshotMeta, SnapshotReader, recover};
use muster_protocol::raft;

use super::ask::{Asking, Event};
use super::disk::{Disk, Memory};
use super::forced::Forced;
use super::gauges::Gauges;
use super::proposals::Job;
use super::replica::{Options, Replica, Start};
use super::runner::Runner;
use crate::config::{Performance, RaftConfig};
use crate::runtime::mesh::{Receiver, Sender};
use crate::runtime::publish::Published;
use crate::runtime::{blocking, fs, random, readback};
use crate::store::{State, StateBuilder};

/// The folder in the data folder that the log and the snapshots lie in.
const FOLDER: &str = "raft";

/// An empty file by which an operator accepts that what damage has taken is lost. It holds for one start.
const ACCEPT_LOSS: &str = "accept-loss";

/// A server that has not started yet.
pub struct Opening {
    pub(super) jobs: Receiver<Job>,
    pub(super) asks: Sender<Event>,
    pub(super) asking: Asking,
    pub(super) state: Published<State>,
    pub(super) gauges: Arc<Gauges>,
}

/// Who a server is and where its log lies.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Who it is.
    pub id: ServerId,
    /// The agent's data folder; `None`: all is kept in memory, and gone when the process ends.
    pub data_dir: Option<PathBuf>,
    /// Timing.
    pub performance: Performance,
    /// Snapshots.
    pub raft: RaftConfig,
    /// Whether this server expects to have peers that could heal it, for when its files do not say.
    pub expects_peers: bool,
    /// Servers that an operator puts in the place of those in the log, and this one as it should be among them.
    pub forced: Option<(Forced, Server)>,
}

impl Opening {
    /// Reads what the folder holds. What is proposed meanwhile waits.
    ///
    /// # Errors
    /// Why the server cannot start, for the operator.
    pub async fn open(self, setup: Setup) -> Result<Runner, String> {
        let Opening { jobs, asks, asking, state: published, gauges } = self;
        let recovery = log::Options {
            seed: random::seed(),
            id: setup.id,
            expects_peers: setup.expects_peers,
            mark_pause: log::MARK_PAUSE,
            ..log::Options::default()
        };
        let folder = setup.data_dir.map(|folder| folder.join(FOLDER));
        let Opened { recovered, state, loss_accepted } = read(folder.clone(), recovery).await?;
        let disk = match folder {
            Some(folder) => {
                Disk::files(folder).map_err(|error| format!("cannot start the disk thread: {error}"))?
            }
            None => Disk::Memory(Memory::default()),
        };
        let raft = raft::Options::new(setup.id, setup.performance.raft_multiplier, random::seed());
        let options = Options {
            hold_timeout: setup.performance.rpc_hold_timeout,
            snapshot_threshold: setup.raft.snapshot_threshold,
            snapshot_interval: setup.raft.snapshot_interval,
            trailing_logs: setup.raft.trailing_logs,
            ..Options::new(raft)
        };
        gauges.set_hold(options.hold_timeout);
        if state.index() > 0 {
            published.store(state.clone());
            gauges.set_restored();
        }
        let forced =
            setup.forced.map(|(forced, own)| force(&forced, &own, &recovered)).transpose()?.flatten();
        let replica = Replica::start(gauges.now(), options, Start { recovered, state, forced });
        let mut runner = Runner::new(replica, disk, jobs, asks, asking, published, gauges);
        runner.when_started(loss_accepted);
        Ok(runner)
    }
}

/// # Errors
/// What an operator has written does not fit what the log knows.
fn force(forced: &Forced, own: &Server, recovered: &Recovered) -> Result<Option<Configuration>, String> {
    let nobody = Configuration::default();
    let known = recovered.configurations.last().map_or(&nobody, |(_, configuration)| configuration);
    let wanted = forced.over(known, own).map_err(|why| format!("recovery failed: peers.json: {why}"))?;
    // A start that was cut short has put them into the log already, and the cluster may have gone on since.
    Ok((wanted != *known).then_some(wanted))
}

/// What a folder holds.
struct Opened {
    recovered: Recovered,
    /// The state in the newest snapshot.
    state: State,
    /// The operator's word, if there was one.
    loss_accepted: Option<PathBuf>,
}

/// # Errors
/// The files cannot be read, or not be used.
async fn read(folder: Option<PathBuf>, mut options: log::Options) -> Result<Opened, String> {
    let Some(folder) = folder else {
        let recovered = recover(options, Vec::new()).map_err(|refused| refused.to_string())?;
        return Ok(Opened { recovered, state: State::new(), loss_accepted: None });
    };
    let survey = folder.clone();
    let Files { names, snapshots, newest, word } = off_the_core(move || Files::survey(&survey)).await?;
    if let Some(path) = &word {
        options.on_damage = OnDamage::AcceptLoss;
        tracing::warn!(target: "agent.server.raft", "{}: what damage has taken from the log is given up", path.display());
    }
    // Neither needs the other, and each keeps a core busy.
    let building = off_the_core({
        let newest = newest.clone();
        move || newest.as_ref().map(build).transpose()
    });
    let recovering = off_the_core(move || {
        let mut files = snapshots;
        read_rest(&folder, &names, &mut files).map_err(|error| error.to_string())?;
        recover(options, files).map_err(|refused| format!("{}: {refused}", folder.display()))
    });
    let (built, recovered) = zip(building, recovering).await;
    let recovered = recovered?;
    let state = match (&recovered.snapshot, built, newest) {
        (Some(used), built, Some(newest)) if *used.meta() == *newest.meta() => built?.unwrap_or_default(),
        // The newest one was damaged after all.
        (Some(used), ..) => {
            let used = used.clone();
            off_the_core(move || build(&used)).await?
        }
        (None, ..) => State::new(),
    };
    Ok(Opened { recovered, state, loss_accepted: word })
}

async fn off_the_core<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    blocking::run(job).await.map_err(|panicked| panicked.to_string())?
}

/// The files of a folder, of which only the snapshots have been read.
struct Files {
    names: Vec<FileName>,
    snapshots: Vec<log::File>,
    /// The newest snapshot, if all of it can be used.
    newest: Option<SnapshotReader>,
    /// The operator's.
    word: Option<PathBuf>,
}

impl Files {
    /// # Errors
    /// The folder cannot be made or read.
    fn survey(folder: &Path) -> Result<Files, String> {
        fs::make_folder(folder).map_err(|error| error.to_string())?;
        let names = readback::names(folder).map_err(|error| error.to_string())?;
        let names = names.iter().filter_map(|name| FileName::parse(name)).collect();
        let word = Some(folder.join(ACCEPT_LOSS)).filter(|path| readback::length(path).is_ok());
        let mut files = Files { names, snapshots: Vec::new(), newest: None, word };
        files.read_snapshots(folder).map_err(|error| error.to_string())?;
        Ok(files)
    }

    /// Of those before the newest whole one only the ends are read: they are looked at again when they are needed.
    fn read_snapshots(&mut self, folder: &Path) -> io::Result<()> {
        let mut snapshots: Vec<(u64, u64)> = self.names.iter().filter_map(snapshot_of).collect();
        snapshots.sort_unstable();
        for (index, term) in snapshots.into_iter().rev() {
            let name = FileName::Snapshot { term, index };
            let path = folder.join(name.to_string());
            let bytes = match self.newest {
                None => readback::read_finished(&path)?,
                Some(_) => readback::read_ends(&path)?,
            };
            if self.newest.is_none() {
                let named =
                    |reader: &SnapshotReader| (reader.meta().index, reader.meta().term) == (index, term);
                let opened = SnapshotReader::open(bytes.clone()).ok();
                self.newest = opened.filter(|reader| named(reader) && reader.verify().is_ok());
            }
            self.snapshots.push(log::File { name, size: bytes.len() as u64, bytes });
        }
        Ok(())
    }
}

fn snapshot_of(name: &FileName) -> Option<(u64, u64)> {
    match name {
        FileName::Snapshot { term, index } => Some((*index, *term)),
        _ => None,
    }
}

/// Segments that a write could have failed in: the one that is written and the next, made ahead. To those before it nothing is written any
/// more once the next one has a frame, and what was written is durable, or the server would have ended.
const SEGMENTS_WRITTEN: usize = 2;

fn read_rest(folder: &Path, names: &[FileName], files: &mut Vec<log::File>) -> io::Result<()> {
    let segments = names.iter().filter(|name| matches!(name, FileName::Segment(_)));
    let mut finished = segments.count().saturating_sub(SEGMENTS_WRITTEN);
    // Names are in order, and so are the numbers in them.
    for name in names {
        let path = folder.join(name.to_string());
        let bytes = match name {
            FileName::Snapshot { .. } => continue,
            // What is unfinished is removed, whatever it holds.
            FileName::SnapshotDraft { .. } => bytes::Bytes::new(),
            FileName::Segment(_) if finished > 0 => {
                finished -= 1;
                readback::read_finished(&path)?
            }
            FileName::Vote | FileName::Segment(_) => readback::read(&path)?,
        };
        files.push(log::File { name: *name, size: readback::length(&path)?, bytes });
    }
    Ok(())
}

/// The state in a snapshot.
///
/// # Errors
/// It is damaged, or written by a later version.
pub(super) fn build(snapshot: &SnapshotReader) -> Result<State, String> {
    let meta = snapshot.meta();
    let name = FileName::Snapshot { term: meta.term, index: meta.index };
    let mut builder = StateBuilder::new();
    for number in 0..snapshot.len() {
        let section = snapshot.section(number).map_err(|damage| format!("{name}: {damage}"))?;
        builder
            .section(section.kind, section.version, &section.bytes)
            .map_err(|error| format!("{name}, section {number}: {error}"))?;
    }
    builder.finish().map_err(|error| format!("{name}: {error}"))
}

/// The state in the bytes of a snapshot that came from the leader, all of them checked.
///
/// # Errors
/// It is damaged, or written by a later version.
pub(super) fn load(bytes: bytes::Bytes) -> Result<Box<(SnapshotMeta, State)>, String> {
    let snapshot = SnapshotReader::open(bytes).map_err(|damage| damage.to_string())?;
    snapshot.verify().map_err(|damage| damage.to_string())?;
    let state = build(&snapshot)?;
    Ok(Box::new((snapshot.meta().clone(), state)))
}
