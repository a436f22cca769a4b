//! Work on snapshots that is too long for the control core: making sections of a state, and a state of sections.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_lite::future::block_on;
use muster_protocol::log::SnapshotMeta;

use crate::consensus::disk::Draft;
use crate::consensus::opening;
use crate::consensus::replica::Input;
use crate::runtime::blocking;
use crate::runtime::memory::SmallPages;
use crate::runtime::mesh::{self, Receiver};
use crate::store::{Section, State};

/// Sections that are made ahead of the disk.
const SECTIONS_AHEAD_MAX: usize = 2;

/// The sections of one snapshot, made on a thread beside the others as they are wanted. Dropping it ends the work.
pub(super) struct Sections {
    id: u64,
    /// Ends with a `None`; one that ends without has failed.
    made: Receiver<Option<Section>>,
    wanted: bool,
}

impl Sections {
    pub fn of(id: u64, state: State) -> Sections {
        let (sender, made) = mesh::channel(SECTIONS_AHEAD_MAX);
        let begun = blocking::run_beside("muster-snapshot", move || {
            let _small = SmallPages::hold();
            for section in state.sections().map(Some).chain([None]) {
                if block_on(sender.send(section)).is_err() {
                    return;
                }
            }
        });
        if let Err(error) = begun {
            tracing::error!(target: "agent.server.raft", "cannot start a thread for a snapshot: {error}");
        }
        Sections { id, made, wanted: false }
    }

    pub fn is(&self, id: u64) -> bool {
        self.id == id
    }

    pub fn want(&mut self, id: u64) {
        self.wanted |= self.id == id;
    }

    /// The next section, if it is wanted and made.
    pub fn poll(&mut self, cx: &mut Context<'_>, inputs: &mut Vec<Input>) {
        if self.wanted
            && let Poll::Ready(section) = self.made.poll_recv(cx)
        {
            self.wanted = false;
            let id = self.id;
            inputs.push(match section {
                Some(section) => Input::SnapshotSection { id, section },
                None => Input::SnapshotFailed { id },
            });
        }
    }
}

type Loaded = Result<Box<(SnapshotMeta, State)>, String>;

/// A snapshot from the leader that is being checked and loaded on a thread of the blocking pool.
pub(super) struct Loading {
    term: u64,
    index: u64,
    work: Pin<Box<dyn Future<Output = Result<Loaded, blocking::Panicked>>>>,
}

impl Loading {
    pub fn of(term: u64, index: u64, draft: Draft) -> Loading {
        let work = blocking::run(move || opening::load(draft.read()?));
        Loading { term, index, work: Box::pin(work) }
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Input> {
        self.work.as_mut().poll(cx).map(|worked| Input::SnapshotLoaded {
            term: self.term,
            index: self.index,
            loaded: worked.unwrap_or_else(|panicked| Err(panicked.to_string())),
        })
    }
}
