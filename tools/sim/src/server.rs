//! One server: the real replica with a disk, a clock and parked queries of its own. What `consensus::Runner` and the edges
//! do around a replica in the agent, this does in virtual time, in the same order.

use std::collections::{BTreeMap, VecDeque};

use histories::{Answer, Ask, Key, Promise, Row};
use muster::consensus::replica::{CONTRADICTS, Done, Effect, Input, Outcome, Published, Replica};
use muster::consensus::{AdminOp, Consistency, Encoded, ProposeError, Standing};
use muster::store::command::Applied;
use muster::store::{Section, State, WatchId, Watchers};
use muster_protocol::entry::ServerId;
use muster_protocol::log::{FileName, SnapshotMeta, SnapshotReader};
use muster_protocol::raft;
use muster_protocol::rpc::PeerMessage;

use crate::clients::{Mode, command_of, name_of, topic_of, value_of};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::life::state_of;
use crate::locks::{DUTY, Leading, REQUEST};
use crate::queue::{MICRO, MILLI, SECOND, Time};
use crate::trace;
use crate::world::{Event, World};

/// A server: its process, if it runs, and what outlives it.
pub struct Server {
    /// Who it is.
    pub id: ServerId,
    /// Its disk.
    pub disk: Disk,
    /// Its clock.
    pub clock: Clock,
    /// How often it was started.
    pub run: u32,
    /// Number of this run among all runs of all servers.
    pub copy: u32,
    /// It stands still until then.
    pub paused_until: Time,
    /// What has come to it meanwhile.
    pub backlog: Vec<Event>,
    /// Since when its machine sleeps, if it does: then its clock stands still too.
    pub asleep_since: Option<Time>,
    /// It was taken out for good.
    pub gone: bool,
    /// Its disk was refused: why.
    pub refused: Option<String>,
    /// What runs.
    pub process: Option<Process>,
    /// When an `Event::Wake` is on its way for.
    pub wake_at: Time,
}

/// What a process holds in memory.
pub struct Process {
    replica: Replica,
    published: State,
    /// Index in the log of the newest entry in `published`.
    applied: u64,
    standing: Standing,
    parked: Watchers<usize>,
    sections: BTreeMap<u64, VecDeque<Section>>,
    /// Work off the control core: what is fed back when it ends.
    work: BTreeMap<u64, Input>,
    /// What the leader said last: when it came in, and how much it called committed.
    heard: VecDeque<(Time, u64)>,
    /// What it does for sessions while it leads.
    pub leading: Leading,
}

impl Process {
    /// A process that has just started.
    pub fn new(replica: Replica, published: State, applied: u64) -> Process {
        Process {
            replica,
            published,
            applied,
            standing: Standing::default(),
            parked: Watchers::new(),
            sections: BTreeMap::new(),
            work: BTreeMap::new(),
            heard: VecDeque::new(),
            leading: Leading::default(),
        }
    }

    /// The state that it shows.
    pub fn published(&self) -> &State {
        &self.published
    }

    /// Its parked queries, which its end cuts off.
    pub fn cut_off(mut self) -> Vec<usize> {
        let mut parked = Vec::new();
        self.parked.wake_all(&mut parked);
        parked
    }
}

/// Words of leaders that are remembered.
const WORDS_MAX: usize = 256;

/// A message between two servers.
#[derive(Clone, Debug)]
pub struct Letter {
    /// What it says.
    pub message: PeerMessage,
}

impl Letter {
    /// Whether it must not arrive twice nor overtake, as its link is a stream.
    pub fn once(&self) -> bool {
        !matches!(self.message, PeerMessage::Raft(_))
    }
}

impl Server {
    /// A blank server that was never started.
    pub fn new(id: ServerId, disk: Disk, clock: Clock) -> Server {
        Server {
            id,
            disk,
            clock,
            run: 0,
            copy: 0,
            paused_until: 0,
            backlog: Vec::new(),
            asleep_since: None,
            gone: false,
            refused: None,
            process: None,
            wake_at: Time::MAX,
        }
    }

    /// Its machine runs again, if it slept.
    pub fn end_sleep(&mut self, now: Time) {
        if let Some(since) = self.asleep_since.take() {
            self.clock.slept(since, now);
        }
    }

    /// Whether its process runs.
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// How it stands, if it runs.
    pub fn standing(&self) -> Option<&Standing> {
        self.process.as_ref().map(|process| &process.standing)
    }

    /// Its consensus, if it runs.
    pub fn replica(&self) -> Option<&Replica> {
        self.process.as_ref().map(|process| &process.replica)
    }

    /// Index in the log of the newest entry that readers see, and the state. Not every entry changes the state.
    pub fn published(&self) -> Option<(u64, &State)> {
        let process = self.process.as_ref()?;
        let all = if process.replica.holds_back() { 0 } else { process.replica.indexes().applied };
        Some((all.max(process.applied), &process.published))
    }

    /// Whether it has all that was committed up to `until`, and votes again.
    pub fn is_whole(&self, until: u64) -> bool {
        self.replica().is_some_and(|replica| {
            replica.has_started()
                && replica.raft().repairing_until().is_none()
                && replica.log().durable_index() >= until
        })
    }

    /// When its leader's words came in and what they called committed, oldest first.
    pub fn heard(&self) -> impl DoubleEndedIterator<Item = (Time, u64)> + '_ {
        self.process.iter().flat_map(|process| process.heard.iter().copied())
    }

    /// Whether its state is fresh enough for a default read at once: what an edge asks an atomic.
    pub fn leads_now(&self, now: Time) -> bool {
        let lease = self.process.as_ref().and_then(|process| process.replica.lease());
        lease.is_some_and(|until| self.clock.local(now) < until)
    }

    /// Parks a query.
    pub fn park(&mut self, topic: muster::store::topic::Topic, query: usize) -> WatchId {
        self.process.as_mut().expect("a query is parked where it was read").parked.insert(topic, query)
    }

    /// Takes a query out.
    pub fn unpark(&mut self, watch: WatchId) {
        if let Some(process) = &mut self.process {
            process.parked.remove(watch);
        }
    }
}

impl World {
    /// Hands inputs to a server's replica and does what it says.
    pub fn step(&mut self, server: usize, mut inputs: Vec<Input>) {
        let mut effects = Vec::new();
        loop {
            let this = &mut self.servers[server];
            let Some(process) = &mut this.process else { return };
            process.replica.step(this.clock.local(self.now), &mut inputs, &mut effects);
            let run = this.run;
            inputs.clear();
            for effect in effects.drain(..) {
                if self.servers[server].run != run || !self.servers[server].is_up() {
                    return;
                }
                self.obey(server, effect, &mut inputs);
            }
            if inputs.is_empty() {
                break;
            }
        }
        self.note_committed(server);
        self.plan_wake(server);
        self.watch_healing(server);
    }

    fn obey(&mut self, server: usize, effect: Effect, back: &mut Vec<Input>) {
        match effect {
            Effect::Send { to, message } => self.obey_send(server, to, message, back),
            Effect::Disk(request) => {
                trace!(self, "s{server} asks disk: {}", shorten(&format!("{request:?}")));
                self.servers[server].disk.submit(request);
                self.start_disk(server);
            }
            Effect::Publish(published) => self.publish(server, *published),
            Effect::Answers(answers) => {
                answers.into_iter().for_each(|(token, outcome)| self.written(server, token, outcome));
            }
            Effect::Barriers { tokens, result } => {
                tokens.into_iter().for_each(|token| self.barrier_passed(server, token, result));
            }
            Effect::AdminDone { token, result } => self.admin_done(token, result),
            Effect::Standing(standing) => self.stands(server, *standing),
            Effect::TakeSnapshot { id, state } => {
                self.tally.one("snapshots");
                let sections = state.sections().collect();
                self.process(server).sections.insert(id, sections);
            }
            Effect::NextSection { id } => {
                let section = self.process(server).sections.get_mut(&id).and_then(VecDeque::pop_front);
                self.work(server, Input::SnapshotSection { id, section });
            }
            Effect::DropSnapshot { id } => drop(self.process(server).sections.remove(&id)),
            Effect::LoadSnapshot { term, index } => {
                self.tally.one("snapshots installed");
                let loaded = self.load_draft(server, term, index);
                self.work(server, Input::SnapshotLoaded { term, index, loaded });
            }
            Effect::Log { text, .. } => {
                trace!(self, "s{server} says: {text}");
                // Nobody lies here, so somebody has lost what it had promised.
                if text.contains(CONTRADICTS) {
                    self.fail("no leader contradicts what is committed", format!("s{server}: {text}"));
                }
            }
            Effect::Fatal(why) => self.died(server, &why),
        }
    }

    fn obey_send(&mut self, from: usize, to: ServerId, message: PeerMessage, back: &mut Vec<Input>) {
        let Some(to) = self.servers.iter().position(|server| server.id == to) else {
            return back.push(Input::Unsent { to, message });
        };
        trace!(self, "s{from} -> s{to} {}", describe(&message));
        if self.network.is_cut(from, to) && self.random.chance(0.5) {
            let id = self.servers[to].id;
            return back.push(Input::Unsent { to: id, message });
        }
        self.send(from, to, Letter { message });
    }

    /// Notes how a server stands.
    pub fn set_standing(&mut self, server: usize, standing: Standing) {
        self.process(server).standing = standing;
    }

    /// Hands a request of the operator to a server.
    pub fn administer(&mut self, server: usize, token: u64, op: AdminOp) {
        if self.servers[server].is_up() && self.servers[server].paused_until <= self.now {
            self.step(server, vec![Input::Admin { token, op }]);
        }
    }

    /// A server's process, which is known to run.
    pub fn process(&mut self, server: usize) -> &mut Process {
        self.servers[server].process.as_mut().expect("only a server that runs has effects")
    }

    /// Begins work off the control core, whose result comes back after a while.
    fn work(&mut self, server: usize, result: Input) {
        let number = self.random.next();
        let time = self.random.log_within(10 * MICRO, 50 * MILLI);
        self.process(server).work.insert(number, result);
        let run = self.servers[server].run;
        self.queue.push(self.now + time, Event::WorkEnds { server, run, work: number });
    }

    /// Work off the control core ends.
    pub fn work_ends(&mut self, server: usize, run: u32, work: u64) {
        if self.servers[server].run != run || !self.servers[server].is_up() {
            return;
        }
        if let Some(result) = self.process(server).work.remove(&work) {
            self.step(server, vec![result]);
        }
    }

    fn load_draft(
        &mut self,
        server: usize,
        term: u64,
        index: u64,
    ) -> Result<Box<(SnapshotMeta, State)>, String> {
        let name = FileName::SnapshotDraft { term, index };
        let bytes = self.servers[server].disk.content(name).ok_or_else(|| format!("{name}: no such file"))?;
        let reader = SnapshotReader::open(bytes).map_err(|damage| damage.to_string())?;
        state_of(&reader).map(Box::new)
    }

    fn start_disk(&mut self, server: usize) {
        if let Some(end) = self.servers[server].disk.start(self.now) {
            trace!(self, "s{server} disk is busy until {}.{:06}", end / SECOND, end % SECOND / MICRO);
            let run = self.servers[server].run;
            self.queue.push(end, Event::DiskEnds { server, run });
        }
    }

    /// A disk that stood still goes on.
    pub fn hurry_disk(&mut self, server: usize) {
        if let Some(end) = self.servers[server].disk.hurry(self.now) {
            let run = self.servers[server].run;
            self.queue.push(end, Event::DiskEnds { server, run });
        }
    }

    /// A disk ends what it does.
    pub fn disk_ends(&mut self, server: usize, run: u32) {
        if self.servers[server].run != run || !self.servers[server].is_up() {
            return;
        }
        match self.servers[server].disk.end(self.now) {
            Err(later) => self.queue.push(later, Event::DiskEnds { server, run }),
            Ok(None) => {}
            Ok(Some(completion)) => {
                trace!(self, "s{server} disk: {completion:?}");
                self.start_disk(server);
                self.step(server, vec![Input::Disk(completion)]);
            }
        }
    }

    /// A server wanted to be woken.
    pub fn wake(&mut self, server: usize, run: u32) {
        let this = &mut self.servers[server];
        if this.run != run || this.wake_at > self.now {
            return;
        }
        this.wake_at = Time::MAX;
        let Some(process) = &this.process else { return };
        let due =
            process.replica.next_deadline().is_some_and(|deadline| this.clock.local(self.now) >= deadline);
        if due {
            self.step(server, vec![Input::Tick]);
        } else {
            self.plan_wake(server);
        }
    }

    /// Sees to it that a server is woken when it wants to be. An earlier wake on its way finds out that it is early.
    fn plan_wake(&mut self, server: usize) {
        let this = &mut self.servers[server];
        let Some(process) = &this.process else { return };
        let Some(deadline) = process.replica.next_deadline() else { return };
        let indexes = process.replica.indexes();
        let busy = if indexes.applied < indexes.commit { self.plan.batch_time } else { 1 };
        let at = this.clock.when(deadline).max(self.now + busy);
        if at < this.wake_at {
            this.wake_at = at;
            self.queue.push(at, Event::Wake { server, run: this.run });
        }
    }

    /// A message comes in.
    pub fn deliver(&mut self, from: usize, to: usize, resets: u64, letter: Letter) {
        if !self.network.passes(from, to, resets) || !self.servers[to].is_up() {
            return;
        }
        self.trace.mix(self.now, [1, (from * 64 + to) as u64, weigh(&letter.message)]);
        trace!(self, "s{to} <- s{from} {}", describe(&letter.message));
        self.note_word(to, &letter.message);
        if let PeerMessage::Ask { .. } | PeerMessage::Told { .. } = letter.message {
            return self.hear_peer(to, from, letter.message);
        }
        let from = self.servers[from].id;
        self.step(to, vec![Input::Peer { from, message: letter.message }]);
    }

    /// Remembers what makes a server's state fresh, once it holds what that calls for: a leader's word, or, while it leads itself, that
    /// of a follower.
    fn note_word(&mut self, server: usize, message: &PeerMessage) {
        let now = self.now;
        let process = self.process(server);
        let word = match message {
            PeerMessage::Raft(raft::Message::Append(append)) => (now, append.commit),
            PeerMessage::Raft(raft::Message::AppendReply(_)) if process.replica.leads() => {
                // What earlier leaders have committed, it may know to be committed only with the first entry of its own.
                let raft = process.replica.raft();
                let own = process.replica.log().terms().iter().find(|(_, term)| *term == raft.term());
                (now, raft.commit_index().max(own.map_or(0, |(first, _)| *first)))
            }
            _ => return,
        };
        process.heard.push_back(word);
        if process.heard.len() > WORDS_MAX {
            process.heard.pop_front();
        }
    }

    /// Both ends of a link learn that it broke, if the news gets through.
    pub fn link_was_reset(&mut self, from: usize, to: usize) {
        self.tell_lost_link(from, to);
        self.tell_lost_link(to, from);
    }

    /// A server learns that its link to another one broke.
    pub fn tell_lost_link(&mut self, server: usize, peer: usize) {
        let at = self.now + self.random.log_within(10 * MICRO, 20 * MILLI);
        self.queue.push(at, Event::LinkLost { server, peer });
    }

    /// A link broke.
    pub fn link_lost(&mut self, server: usize, peer: usize) {
        if self.servers[server].is_up() {
            let peer = self.servers[peer].id;
            self.step(server, vec![Input::PeerLost(peer)]);
        }
    }

    /// A request comes in.
    pub fn arrives(&mut self, op: usize, server: usize) {
        if !self.ops[op].open {
            return;
        }
        if !self.servers[server].is_up() {
            return self.answer(op, Answer::Refused, None);
        }
        self.ops[op].server = Some((server, self.servers[server].run));
        let (token, mode) = (op as u64, self.ops[op].mode);
        if !self.ops[op].record.ask.is_read() {
            let length = self.random.within(8, self.plan.value_bytes);
            let body = Encoded::of(&command_of(&self.ops[op].record.ask, length)).bytes().clone();
            return self.step(server, vec![Input::Propose { token, body }]);
        }
        let fresh = match mode {
            Mode::Stale => true,
            Mode::Default => self.servers[server].leads_now(self.now),
            Mode::Consistent => false,
        };
        if fresh {
            return self.read(server, op);
        }
        let consistency =
            if mode == Mode::Consistent { Consistency::Consistent } else { Consistency::Default };
        self.step(server, vec![Input::Barrier { token, consistency }]);
    }

    /// Answers a read from what is published.
    fn read(&mut self, server: usize, op: usize) {
        let copy = self.servers[server].copy;
        let record = &mut self.ops[op].record;
        if let Promise::Prefix { copy: of } = &mut record.promise {
            *of = copy;
        }
        let Ask::Get(key) = record.ask else { unreachable!("only reads are read") };
        let state = &self.process(server).published;
        let (row, index) = (row_of(state, key), state.index());
        if self.ops[op].mode == Mode::Stale {
            self.check_age(server);
        }
        self.answer(op, Answer::Row(row), Some(index));
    }

    fn barrier_passed(&mut self, server: usize, token: u64, result: Result<(), ProposeError>) {
        if token & DUTY != 0 {
            return self.duty_barrier(server, token, result);
        }
        let op = token as usize;
        match result {
            Ok(()) => self.read(server, op),
            Err(_) => self.answer(op, Answer::Refused, None),
        }
    }

    fn written(&mut self, server: usize, token: u64, outcome: Outcome) {
        if token & DUTY != 0 {
            return self.duty_done(server, token, &outcome);
        }
        let op = token as usize;
        let shown = self.process(server).published.index();
        if let Ok(done) = &outcome
            && done.index > shown
        {
            let story = format!("s{server} answers #{op} of index {} and shows {shown}", done.index);
            return self.fail("what is answered can be read", story);
        }
        if token & REQUEST != 0 {
            return self.lock_written(token, outcome);
        }
        let (answer, index) = match outcome {
            Ok(Done { index, applied: Applied::Done }) => (Answer::Done, Some(index)),
            Ok(Done { index, applied: Applied::Condition(held) }) => (Answer::Condition(held), Some(index)),
            Ok(Done { applied: applied @ (Applied::Refused(_) | Applied::Txn(_)), .. }) => {
                return self.fail("writes to keys are not refused", format!("#{op}: {applied:?}"));
            }
            Err(ProposeError::LeadershipLost | ProposeError::Stopping) => (Answer::Lost, None),
            Err(_) => (Answer::Refused, None),
        };
        self.answer(op, answer, index);
    }

    /// What a watcher sees at a server: the index it is shown, that of the last change, and that of the state.
    pub fn look_at(&mut self, server: usize, key: Option<Key>, asked: u64) -> Option<(u64, u64, u64)> {
        let this = &self.servers[server];
        if this.paused_until > self.now {
            return None;
        }
        let (_, state) = this.published()?;
        let topic = topic_of(key);
        let shown = if asked > 0 { state.blocking_index(&topic) } else { state.topic_index(&topic) };
        // A question without an index is answered at once; here it only tells where to begin.
        Some((shown, state.last_change(&topic), state.index()))
    }

    fn publish(&mut self, server: usize, published: Published) {
        let Published { state, touched, applied, .. } = published;
        let before = std::mem::replace(&mut self.process(server).applied, applied);
        let old = std::mem::replace(&mut self.process(server).published, state);
        self.check_published(server, before, applied, &old);
        self.check_locks(server);
        let (copy, index) = (self.servers[server].copy, self.process(server).published.index());
        self.truth.shown.push((copy, self.now, index));
        self.trace.mix(self.now, [2, server as u64, index]);
        let mut woken = Vec::new();
        self.process(server).parked.wake(&touched, &mut woken);
        for query in woken {
            self.query_woken(server, query, touched.is_all());
        }
    }

    fn query_woken(&mut self, server: usize, number: usize, all: bool) {
        let parked = &self.queries[number];
        let asked = parked.query.asked;
        let topic = topic_of(self.watchers[parked.watcher].key);
        let state = &self.process(server).published;
        let (change, shown, index) = (state.last_change(&topic), state.blocking_index(&topic), state.index());
        if change > asked {
            return self.query_changed(number, index, shown);
        }
        // It asked for an index that this server has not reached: as the edge does, it goes on waiting.
        if !all && change <= self.queries[number].change_at_park {
            let story = format!(
                "query {number} at s{server} was woken at {index}, its keys changed last at {change}"
            );
            return self.fail("no wake without a change", story);
        }
        self.queries[number].watch = Some(self.process(server).parked.insert(topic, number));
        self.queries[number].change_at_park = change;
    }

    /// Operations that wait at a server's present run.
    pub fn requests_at(&self, server: usize) -> Vec<usize> {
        let here = Some((server, self.servers[server].run));
        let open =
            |op: &usize| self.ops[*op].open && self.ops[*op].answer.is_none() && self.ops[*op].server == here;
        (0..self.ops.len()).filter(open).collect()
    }
}

/// A row as the checkers see it.
pub fn row_of(state: &State, key: Key) -> Option<Row> {
    let entry = state.kv(&name_of(key))?;
    Some(Row { value: value_of(&entry.value), modified: entry.modify_index })
}

/// A message in a few words.
fn describe(message: &PeerMessage) -> String {
    shorten(&format!("{message:?}"))
}

fn shorten(text: &str) -> String {
    text.chars().take(400).collect()
}

/// A number that tells most messages apart.
fn weigh(message: &PeerMessage) -> u64 {
    match message {
        PeerMessage::Raft(message) => match message {
            raft::Message::Append(append) => {
                append.prev.index << 20 ^ append.entries.len() as u64 ^ append.commit << 40
            }
            other => other.term() << 8 | 1,
        },
        PeerMessage::Forward(list) => list.first().map_or(2, |first| first.token << 8 | 2),
        _ => 3,
    }
}
