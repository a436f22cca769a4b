//! From a data folder to a running server.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
use crate::runtime::{blocking, random, readback};
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
        let reading = folder.clone();
        let read = blocking::run(move || read(reading.as_deref(), recovery)).await;
        let (recovered, state, loss_accepted) = read.map_err(|panicked| panicked.to_string())??;
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
            trailing_logs: setup.raft.trailing_logs,
            ..Options::new(raft)
        };
        gauges.set_hold(options.hold_timeout);
        if state.index() > 0 {
            published.store(state.clone());
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

/// What the files hold, the state in the newest snapshot, and the operator's word if there was one.
///
/// # Errors
/// The files cannot be read, or not be used.
fn read(
    folder: Option<&Path>,
    mut options: log::Options,
) -> Result<(Recovered, State, Option<PathBuf>), String> {
    let mut word = None;
    let files = match folder {
        Some(folder) => {
            readback::make_folder(folder).map_err(|error| error.to_string())?;
            word = Some(folder.join(ACCEPT_LOSS)).filter(|path| readback::length(path).is_ok());
            read_files(folder).map_err(|error| error.to_string())?
        }
        None => Vec::new(),
    };
    if let Some(path) = &word {
        options.on_damage = OnDamage::AcceptLoss;
        tracing::warn!(target: "agent.server.raft", "{}: what damage has taken from the log is given up", path.display());
    }
    let recovered = recover(options, files).map_err(|refused| match folder {
        Some(folder) => format!("{}: {refused}", folder.display()),
        None => refused.to_string(),
    })?;
    let state = match &recovered.snapshot {
        Some(snapshot) => build(snapshot)?,
        None => State::new(),
    };
    Ok((recovered, state, word))
}

fn read_files(folder: &Path) -> io::Result<Vec<log::File>> {
    let mut files = Vec::new();
    for text in readback::names(folder)? {
        let Some(name) = FileName::parse(&text) else { continue };
        let path = folder.join(text);
        let bytes = match name {
            FileName::Snapshot { .. } => readback::read_finished(&path)?,
            // What is unfinished is removed, whatever it holds.
            FileName::SnapshotDraft { .. } => bytes::Bytes::new(),
            FileName::Vote | FileName::Segment(_) => readback::read(&path)?,
        };
        files.push(log::File { name, size: readback::length(&path)?, bytes });
    }
    Ok(files)
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
