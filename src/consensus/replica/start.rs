//! From what the disk holds to a server that may promise: first the log settles, and only then Raft begins.

use std::collections::VecDeque;

use muster_protocol::entry::{Configuration, Entry, EntryKind, Now};
use muster_protocol::log::{Log, Recovered};
use muster_protocol::raft::{self, LogView, Position, Raft, Restored};

use super::limits::FORCED_TERM_LEAP;
use super::reads::Reads;
use super::writes::Writes;
use super::{Effect, EntryCache, Input, Options, Replica, Start, snapshot, standing};

/// What waits until the log has settled.
pub(super) struct Starting {
    restored: Restored,
    /// A configuration in the place of the log's.
    forced: Option<Configuration>,
    /// Its entry, while it is being written.
    forcing: Option<u64>,
    /// Requests that came too early.
    pub held: Vec<Input>,
    notes: Vec<String>,
}

impl Replica {
    /// A server that starts now, with what its disk holds. Nothing is done before the first [`Replica::step`].
    pub fn start(now: Now, options: Options, start: Start) -> Replica {
        let Start { recovered, state, forced } = start;
        let Recovered { log, term, vote, repair_until, snapshot, entries, configurations, notes } = recovered;
        let meta = snapshot.as_ref().map(|snapshot| snapshot.meta().clone());
        let applied = meta.as_ref().map_or((0, 0), |meta| (meta.index, meta.term));
        let applied_configuration =
            meta.map_or_else(Default::default, |meta| (meta.configuration_index, meta.configuration));
        let restored = Restored {
            term,
            vote,
            log: view(&log, &entries, applied),
            committed: applied.0,
            configurations,
            repair_until,
        };
        let size = log.snapshot().map_or(0, |(.., bytes)| bytes);
        let first_look = now + options.snapshot_interval;
        let policy = snapshot::Policy::new(size, log.first_index(), first_look);
        let mut cache = EntryCache::default();
        cache.append(entries.into_iter().filter(|entry| entry.index > applied.0).collect());
        let starting = Starting { restored, forced, forcing: None, held: Vec::new(), notes };
        // Answers to questions of an earlier life may still be under way: no number of this life is theirs.
        let first_token = options.raft.seed >> 1;
        Replica {
            // Never stepped before the log has settled; then another takes its place.
            raft: Raft::new(now, options.raft.clone(), Restored::default()),
            options,
            now,
            log,
            starting: Some(starting),
            dead: false,
            state,
            applied,
            applied_configuration,
            unpublished: Default::default(),
            cache,
            writes: Writes::new(first_token),
            reads: Reads::new(first_token),
            admins: Default::default(),
            senders: Default::default(),
            taking: None,
            taking_gives_way: false,
            receiving: None,
            snapshots: policy,
            term_start: 0,
            heard: (Now::ZERO, 0),
            contact: None,
            disk_full: false,
            behind: false,
            contradicted: None,
            under_way: VecDeque::new(),
            told: standing::Told::nothing(),
            next_sweep: Now::ZERO,
            raft_inputs: VecDeque::new(),
            raft_effects: Vec::new(),
            notices: Vec::new(),
            requests: Vec::new(),
            sends: Vec::new(),
        }
    }

    /// What was found on the disk is a promise now.
    pub(super) fn log_settled(&mut self, out: &mut Vec<Effect>) {
        let Some(starting) = &mut self.starting else { return };
        for text in starting.notes.drain(..) {
            out.push(Effect::Log { warning: true, text });
        }
        match starting.forced.take() {
            None => self.begin(out),
            Some(configuration) => self.force(configuration, out),
        }
    }

    /// Puts an operator's servers into the log, in a term of their own. See [`FORCED_TERM_LEAP`].
    fn force(&mut self, configuration: Configuration, out: &mut Vec<Effect>) {
        let Some(starting) = &mut self.starting else { return };
        let restored = &mut starting.restored;
        let last = restored.log.last();
        // Above the log's own last term, not above what was voted for since: so the longer log still wins.
        let term = last.term + FORCED_TERM_LEAP;
        restored.term = restored.term.max(term);
        restored.vote = None;
        restored.repair_until = 0;
        let entry = Entry {
            term,
            index: last.index + 1,
            kind: EntryKind::Configuration,
            version: Configuration::VERSION,
            body: configuration.encode(),
        };
        starting.forcing = Some(entry.index);
        restored.log.push(Position::new(entry.index, entry.term), entry.body.len());
        restored.configurations.push((entry.index, configuration));
        self.log.set_repair_until(0);
        self.log.save_vote(restored.term, None);
        self.log.append(std::slice::from_ref(&entry));
        self.cache.append(vec![entry]);
        let text = "the cluster's servers are those of peers.json from here on, whatever the log said";
        out.push(Effect::Log { warning: true, text: text.to_owned() });
    }

    pub(super) fn log_durable(&mut self, index: u64, term: u64, out: &mut Vec<Effect>) {
        match &self.starting {
            None => {
                self.raft_inputs.push_back(raft::Input::LogDurable { index, term });
                self.run_raft(out);
                if index >= 1
                    && let Some(token) = self.admins.bootstrap.take()
                {
                    out.push(Effect::AdminDone { token, result: Ok(()) });
                }
            }
            Some(starting) if starting.forcing.is_some_and(|forced| index >= forced) => self.begin(out),
            Some(_) => {}
        }
    }

    fn begin(&mut self, out: &mut Vec<Effect>) {
        let Some(starting) = self.starting.take() else { return };
        self.raft = Raft::new(self.now, self.options.raft.clone(), starting.restored);
        if self.disk_full {
            self.raft_inputs.push_back(raft::Input::DiskFull(true));
        }
        for input in starting.held {
            self.take(input, out);
        }
        // A lone voter need not wait for anybody.
        self.raft_inputs.push_back(raft::Input::Tick);
        self.run_raft(out);
    }
}

/// The shape of the log for Raft: all entries held, behind the snapshot or what was cut off.
fn view(log: &Log, entries: &[Entry], snapshot: (u64, u64)) -> LogView {
    let first = log.first_index();
    let base = match log.term_at(first.saturating_sub(1)) {
        _ if first <= 1 => Position::default(),
        Some(term) => Position::new(first - 1, term),
        // The term before the first entry is not known: begin with the snapshot, which lies at or behind it.
        None => Position::new(snapshot.0, snapshot.1),
    };
    let mut view = LogView::new(base);
    for entry in entries.iter().filter(|entry| entry.index > base.index) {
        view.push(Position::new(entry.index, entry.term), entry.body.len());
    }
    view
}
