//! One server's copy of everything: Raft, the log, the state, and what waits for them, in one sans-IO core.
//!
//! A [`Replica`] is driven by [`super::Runner`] over real files and links, and by the simulator over invented ones. It never
//! awaits, blocks, reads a clock or iterates in a random order; its randomness comes from a seed. Each [`Replica::step`]
//! takes a batch of [`Input`]s and gives [`Effect`]s in the order in which they must happen.
//!
//! What it guarantees: a write is answered as done only when a majority holds it durably and the state that shows it has been
//! given out ([`Effect::Publish`] comes before [`Effect::Answers`]); a barrier is passed only when that state holds everything that was
//! acknowledged before it was asked. A write whose fate is unknown is never said to be done or undone.

mod admin;
mod apply;
mod cache;
mod face;
mod forward;
mod limits;
mod reads;
mod receive;
mod send;
mod snapshot;
mod standing;
mod start;
#[cfg(test)]
mod tests;
mod writes;

use std::collections::{BTreeMap, VecDeque};

use muster_protocol::entry::{Configuration, Entry, EntryKind, Now, ServerId};
use muster_protocol::log::{Completion, Log, Notice, Request, RequestId};
use muster_protocol::raft::{self, Raft, Role};
use muster_protocol::rpc::PeerMessage;

use super::encoded::aligned;
use super::{COMMAND_VERSION, Standing};
use crate::store::State;

use admin::Admins;
use cache::EntryCache;
pub use face::{CONTRADICTS, Done, Effect, Indexes, Input, Kinds, Options, Outcome, Published, Start};
use limits::{CACHE_BYTES_MAX, DISK_AGE_MIN, SWEEP_INTERVAL};
use reads::Reads;
use receive::Receiving;
use send::Senders;
use snapshot::Taking;
use writes::Writes;

/// See the [module](self).
pub struct Replica {
    options: Options,
    now: Now,
    raft: Raft,
    log: Log,
    /// None once the log has settled: from then on Raft may promise.
    starting: Option<start::Starting>,
    /// Set when the disk failed: nothing is done any more.
    dead: bool,
    state: State,
    /// Index and term of the newest entry in `state`.
    applied: (u64, u64),
    /// The configuration as of `applied`, with the index of its entry.
    applied_configuration: (u64, Configuration),
    /// What `state` holds and nobody was given yet.
    unpublished: apply::Unpublished,
    cache: EntryCache,
    writes: Writes,
    reads: Reads,
    admins: Admins,
    senders: Senders,
    taking: Option<Taking>,
    /// The leader's snapshot has taken the place of ours in the log's hands; the driver does not know yet.
    taking_gives_way: bool,
    receiving: Option<Receiving>,
    snapshots: snapshot::Policy,
    /// This server's own first entry of the term that it leads: with it applied, everything of earlier terms is.
    term_start: u64,
    /// When the leader was last heard, and all up to here it had committed then.
    heard: (Now, u64),
    /// When the leader's word came that `state` is as new as.
    contact: Option<Now>,
    disk_full: bool,
    /// See [`Replica::watch_backlog`].
    behind: bool,
    /// Whose message was refused last, and why.
    contradicted: Option<(ServerId, String)>,
    /// Requests to the disk that are not done, and since when.
    under_way: VecDeque<(RequestId, Now)>,
    told: standing::Told,
    next_sweep: Now,
    raft_inputs: VecDeque<raft::Input>,
    raft_effects: Vec<raft::Effect>,
    notices: Vec<Notice>,
    requests: Vec<Request>,
    sends: Vec<(ServerId, PeerMessage)>,
}

impl Replica {
    /// Takes a batch of inputs, in order, leaving the buffer empty; what is to be done is added to `out`. The first call, after
    /// [`Replica::start`], needs no input.
    pub fn step(&mut self, now: Now, inputs: &mut Vec<Input>, out: &mut Vec<Effect>) {
        self.now = self.now.max(now);
        for input in inputs.drain(..) {
            if self.dead {
                continue;
            }
            match input {
                Input::Disk(completion) => self.disk(completion, out),
                input if self.starting.is_some() => self.hold(input),
                input => self.take(input, out),
            }
        }
        if !self.dead {
            self.settle(out);
        }
    }

    /// When [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Now> {
        if self.dead {
            return None;
        }
        if self.starting.is_some() {
            return self.log.next_deadline();
        }
        let waits = self.writes.any_wait() || self.reads.any_wait() || self.admins.any_wait();
        let sweep = (waits || self.senders.any() || self.receiving.is_some()).then_some(self.next_sweep);
        let backlog = (self.applied.0 < self.raft.commit_index()).then_some(self.now);
        let peers = self.peers_due();
        let retry = self.writes.retry_due(self.now).into_iter().chain(self.reads.retry_due(self.now)).min();
        let snapshot = self.snapshot_due();
        [self.raft.next_deadline(), self.log.next_deadline(), sweep, backlog, peers, retry, snapshot]
            .into_iter()
            .flatten()
            .min()
    }

    /// The state as of the newest applied entry.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Raft, to be looked at.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The log, to be looked at.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Numbers of the log.
    pub fn indexes(&self) -> Indexes {
        let last = self.raft.last();
        Indexes {
            last: last.index,
            last_term: last.term,
            commit: self.raft.commit_index(),
            applied: self.applied.0,
        }
    }

    /// Until when the state, once published, is fresh enough for default reads without asking anybody: this server leads, its lease
    /// holds, and the state holds all of earlier terms and all that is committed: followers are told of that first, and may have
    /// answered for it. [`Now::MAX`]: for ever, as it is the only voter.
    pub fn lease(&self) -> Option<Now> {
        let leads = self.starting.is_none() && self.raft.role() == Role::Leader;
        let ready = leads && self.term_start > 0 && self.applied.0 >= self.term_start;
        if ready && self.applied.0 >= self.raft.commit_index() { self.raft.lease_until() } else { None }
    }

    /// When the leader's word came that the state is as new as; on others than the leader.
    pub fn contact(&self) -> Option<Now> {
        self.contact
    }

    /// Whether this server leads.
    pub fn leads(&self) -> bool {
        self.starting.is_none() && self.raft.role() == Role::Leader
    }

    /// The leader, when one is known.
    pub fn leader(&self) -> Option<ServerId> {
        if self.starting.is_some() { None } else { self.raft.leader() }
    }

    /// Whether what the disk held is put right, and Raft has begun.
    pub fn has_started(&self) -> bool {
        self.starting.is_none()
    }

    /// This server.
    pub fn id(&self) -> ServerId {
        self.options.raft.id
    }

    fn take(&mut self, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Tick => self.tick(),
            Input::Peer { from, message } => self.hear(from, message, out),
            Input::PeerLost(peer) => self.peer_lost(peer, out),
            Input::Unsent { to, message } => self.unsent(to, message),
            Input::Propose { token, body } => self.writes.hold(token, body, self.now),
            Input::Barrier { token, consistency } => self.reads.hold(token, consistency, self.now),
            Input::Admin { token, op } => self.administer(token, op, out),
            Input::Disk(_) => unreachable!("completions are taken before"),
            Input::SnapshotSection { id, section } => self.take_section(id, section),
            Input::SnapshotFailed { id } => self.sections_failed(id, out),
            Input::SnapshotLoaded { term, index, loaded } => self.snapshot_loaded(term, index, loaded, out),
        }
        self.run_raft(out);
    }

    /// What is said before the log has settled: our own writers and readers wait, those of other servers are told to ask again,
    /// and all else will be said again.
    fn hold(&mut self, input: Input) {
        match input {
            Input::Peer { from, message: PeerMessage::Forward(writes) } => self.give_back(from, writes),
            Input::Peer { from, message: PeerMessage::ReadIndex { token, .. } } => {
                self.sends.push((from, PeerMessage::ReadIndexAnswer { token, index: None }));
            }
            Input::Propose { token, body } => self.writes.hold(token, body, self.now),
            Input::Barrier { token, consistency } => self.reads.hold(token, consistency, self.now),
            Input::Admin { .. } => {
                if let Some(starting) = &mut self.starting {
                    starting.held.push(input);
                }
            }
            _ => {}
        }
    }

    fn tick(&mut self) {
        if self.raft.next_deadline().is_some_and(|due| due <= self.now) {
            self.raft_inputs.push_back(raft::Input::Tick);
        }
        if let Some((_, since)) = self.under_way.front() {
            let age = self.now.saturating_sub(*since);
            if age >= DISK_AGE_MIN {
                self.raft_inputs.push_back(raft::Input::DiskPending { age });
            }
        }
    }

    /// What follows from all inputs of a step together.
    fn settle(&mut self, out: &mut Vec<Effect>) {
        if self.starting.is_none() {
            self.propose(out);
            self.ask(out);
        }
        self.poll_log(out);
        self.flush_sends(out);
        if self.starting.is_some() {
            return;
        }
        self.apply(out);
        self.watch_backlog(out);
        self.pass_reads(out);
        self.run_snapshots(out);
        self.tell_cut(out);
        self.sweep(out);
        self.cache.shrink(CACHE_BYTES_MAX, self.applied.0.min(self.log.durable_index()));
        self.stand(out);
        // Applying may have asked for a snapshot, and reading for answers.
        self.poll_log(out);
        self.flush_sends(out);
    }

    fn poll_log(&mut self, out: &mut Vec<Effect>) {
        self.log.poll(self.now, &mut self.requests);
        for request in self.requests.drain(..) {
            self.under_way.push_back((request.id(), self.now));
            out.push(Effect::Disk(request));
        }
    }

    fn flush_sends(&mut self, out: &mut Vec<Effect>) {
        self.flush_answers();
        out.extend(self.sends.drain(..).map(|(to, message)| Effect::Send { to, message }));
    }

    fn sweep(&mut self, out: &mut Vec<Effect>) {
        if self.now < self.next_sweep {
            return;
        }
        self.next_sweep = self.now + SWEEP_INTERVAL;
        self.expire_writes(out);
        self.expire_reads(out);
        self.sweep_senders(out);
        self.sweep_receiving();
        self.run_raft(out);
    }

    /// A message of another server, of whose bytes only the frame was checked.
    fn hear(&mut self, from: ServerId, message: PeerMessage, out: &mut Vec<Effect>) {
        match message {
            PeerMessage::Raft(message) => self.hear_raft(from, message, out),
            PeerMessage::Forward(writes) => self.take_forwarded(from, writes),
            PeerMessage::ForwardAnswers(answers) => self.take_answers(from, answers, out),
            PeerMessage::ReadIndex { token, consistent } => self.read_for(from, token, consistent),
            PeerMessage::ReadIndexAnswer { token, index } => self.read_answered(from, token, index),
            PeerMessage::SnapshotChunk(chunk) => self.take_chunk(from, chunk),
            PeerMessage::SnapshotAck(ack) => self.take_ack(from, ack),
            // For the rooms above, who get it from the driver.
            PeerMessage::Ask { .. } | PeerMessage::Told { .. } => {}
        }
    }

    fn hear_raft(&mut self, from: ServerId, mut message: raft::Message, out: &mut Vec<Effect>) {
        if let raft::Message::Append(append) = &mut message {
            if let Err(why) = append.entries.iter_mut().try_for_each(admit) {
                let text = format!("entries of {from} were not taken: {why}");
                out.push(Effect::Log { warning: true, text });
                return;
            }
            if append.term >= self.raft.term() {
                self.heard = (self.now, append.commit);
            }
        }
        self.raft_inputs.push_back(raft::Input::Message { from, message });
        self.run_raft(out);
        self.watch_backlog(out);
    }

    /// Takes no more entries while so many are committed and not applied, until half of them are: a state machine on a slow
    /// processor would else be buried under what a quick leader and a quick disk bring.
    fn watch_backlog(&mut self, out: &mut Vec<Effect>) {
        let backlog = self.raft.committed_bytes_after(self.applied.0);
        let most = self.options.raft.limits.backlog_bytes;
        let limit = if self.behind { most / 2 } else { most };
        if self.behind != (backlog > limit) {
            self.behind = !self.behind;
            self.raft_inputs.push_back(raft::Input::Behind(self.behind));
            self.run_raft(out);
        }
    }

    /// Somebody has broken the rules, or lost what it had promised: said once for each thing that it says.
    fn contradicted(&mut self, from: ServerId, why: String, out: &mut Vec<Effect>) {
        if self.contradicted.as_ref().is_some_and(|(who, what)| (*who, what) == (from, &why)) {
            return;
        }
        let text = format!(
            "server {from} {CONTRADICTS}, and is not heard: {why}. It has lost data or was tampered with: stop it, remove its DATA/raft and \
             let it join again"
        );
        out.push(Effect::Log { warning: true, text });
        self.contradicted = Some((from, why));
    }

    /// Lets Raft work through what was put before it.
    fn run_raft(&mut self, out: &mut Vec<Effect>) {
        while let Some(input) = self.raft_inputs.pop_front() {
            let mut effects = std::mem::take(&mut self.raft_effects);
            self.raft.step(self.now, input, &mut effects);
            for effect in effects.drain(..) {
                self.obey(effect, out);
            }
            self.raft_effects = effects;
        }
    }

    fn obey(&mut self, effect: raft::Effect, out: &mut Vec<Effect>) {
        use raft::Effect as Raft;
        match effect {
            Raft::Fatal { why } => {
                self.dead = true;
                out.push(Effect::Fatal(why));
            }
            Raft::SaveVote { term, vote } => self.log.save_vote(term, vote),
            Raft::Append { entries } => self.append(entries),
            Raft::Send { to, message } => self.sends.push((to, PeerMessage::Raft(message))),
            Raft::SendEntries { to, append, last } => self.send_entries(to, append, last),
            Raft::SendSnapshot { to, term } => self.send_snapshot(to, term),
            Raft::SnapshotAccepted { index, term, keep_log } => {
                self.snapshot_accepted(index, term, keep_log, out);
            }
            Raft::SnapshotIgnored { index } => self.snapshot_ignored(index),
            Raft::Role { role, .. } => self.role_changed(role),
            Raft::SteppedDown { why } => self.stepped_down(why, out),
            Raft::Truncated { from } => self.truncated(from, out),
            // What is committed is applied when all inputs of the step have been taken.
            Raft::Committed { .. } => {}
            Raft::Configuration { .. } => self.told.stale = true,
            Raft::Repaired => {
                self.log.set_repair_until(0);
                self.told.stale = true;
                let text = "what damage had cost this server was given back by its peers; it votes again";
                out.push(Effect::Log { warning: false, text: text.to_owned() });
            }
            Raft::ReadReady { token, index } => self.read_ready(token, Some(index)),
            Raft::ReadFailed { token, .. } => self.read_ready(token, None),
            Raft::Refused { drafts, why } => self.refused(drafts, &why, out),
            Raft::BootstrapRefused { why } => self.bootstrap_refused(why, out),
            Raft::ChangeRefused { why, .. } => self.change_refused(why, out),
            Raft::Contradicted { from, why } => self.contradicted(from, why, out),
            Raft::TransferDone { result } => self.transfer_done(result, out),
        }
    }

    fn append(&mut self, entries: Vec<Entry>) {
        self.log.append(&entries);
        if self.raft.role() == Role::Leader {
            for entry in &entries {
                match entry.kind {
                    EntryKind::Noop => self.term_start = entry.index,
                    EntryKind::Command => self.placed(entry.index, entry.term),
                    EntryKind::Configuration => self.admins.placed(entry.index, entry.term),
                }
            }
        }
        self.cache.append(entries);
    }

    fn role_changed(&mut self, role: Role) {
        if role != Role::Leader {
            self.term_start = 0;
        }
        self.told.stale = true;
        self.writes.leader_changed(self.now);
        self.reads.leader_changed();
        self.senders.leader_changed(&self.raft);
    }

    fn stepped_down(&mut self, why: raft::StepDown, out: &mut Vec<Effect>) {
        self.term_start = 0;
        self.admins.lead_lost(self.raft.commit_index(), out);
        let reason = match why {
            raft::StepDown::NewerTerm => "another server has a newer term",
            raft::StepDown::QuorumLost => "a majority of the voters was not heard in time",
            raft::StepDown::DiskStalled => "its disk does not finish its writes",
            raft::StepDown::Removed => "the cluster's servers were changed and it votes no more",
        };
        out.push(Effect::Log { warning: true, text: format!("this server leads no more: {reason}") });
    }

    fn disk(&mut self, completion: Completion, out: &mut Vec<Effect>) {
        let id = completion.id();
        if self.under_way.front().is_some_and(|(first, _)| *first == id) {
            self.under_way.pop_front();
        }
        let mut notices = std::mem::take(&mut self.notices);
        if let Err(fatal) = self.log.complete(completion, &mut notices) {
            self.dead = true;
            out.push(Effect::Fatal(fatal.to_string()));
            return;
        }
        for notice in notices.drain(..) {
            self.notice(notice, out);
            self.run_raft(out);
        }
        self.notices = notices;
    }

    fn notice(&mut self, notice: Notice, out: &mut Vec<Effect>) {
        match notice {
            Notice::Settled => self.log_settled(out),
            Notice::Durable { index, term } => self.log_durable(index, term, out),
            Notice::VoteSaved { term, vote } => {
                if self.starting.is_none() {
                    self.raft_inputs.push_back(raft::Input::VoteSaved { term, vote });
                }
            }
            Notice::Full => self.set_full(true, out),
            Notice::Room => self.set_full(false, out),
            Notice::Entries { token, entries } => self.entries_read(token, entries),
            Notice::ReadFailed { token, damage } => self.read_failed(token, damage, out),
            Notice::SnapshotBytes { token, offset, bytes } => self.snapshot_read(token, offset, bytes),
            Notice::SnapshotSaved { index, term, bytes } => self.snapshot_saved(index, term, bytes, out),
            Notice::SnapshotFailed { index, why } => self.snapshot_failed(index, why, out),
        }
    }

    fn set_full(&mut self, full: bool, out: &mut Vec<Effect>) {
        self.disk_full = full;
        self.told.stale = true;
        if full {
            // A snapshot may be all that is needed for the log before it to go; the older snapshot then goes, too.
            self.snapshots.want_instead_of_log();
        }
        if self.starting.is_none() {
            self.raft_inputs.push_back(raft::Input::DiskFull(full));
        }
        let text = match full {
            true => {
                "the disk of the data_dir is full: writes are refused, reads go on; free some space, the rest happens by itself"
            }
            false => "the disk of the data_dir has room again: writes are taken",
        };
        out.push(Effect::Log { warning: full, text: text.to_owned() });
    }
}

/// Takes an entry of another server, whose archives were validated where they came in: its version must be known, and its body
/// lie where an archive can be read.
fn admit(entry: &mut Entry) -> Result<(), String> {
    match entry.kind {
        EntryKind::Noop => Ok(()),
        EntryKind::Configuration => Configuration::decode(entry.version, &entry.body).map(drop),
        EntryKind::Command if entry.version != COMMAND_VERSION => Err(newer_version(entry)),
        EntryKind::Command => {
            entry.body = aligned(&entry.body);
            Ok(())
        }
    }
}

fn newer_version(entry: &Entry) -> String {
    format!(
        "entry {} of the log has version {}, and this program knows {COMMAND_VERSION}: it was written by a newer one, start that",
        entry.index, entry.version
    )
}

/// Answers that go to other servers together.
type Outbox<T> = BTreeMap<ServerId, Vec<T>>;
