//! Clients: what they ask, of whom, and what they make of the answers.

use std::collections::BTreeMap;

use histories::watch::{End, Query};
use histories::{Answer, Ask, Key, Operation, Promise, Row, Value};
use muster::store::command::{Command, KvOp};
use muster::store::model::KvEntry;
use muster::store::topic::Topic;
use muster::watch::course::Course;

use crate::locks::names;
use crate::queue::{MICRO, MILLI, SECOND, Time};
use crate::random::Random;
use crate::trace;
use crate::world::{Event, World};

/// A client that reads and writes, one thing at a time.
pub struct Client {
    /// Its own randomness.
    pub random: Random,
    /// The operation that it waits for.
    pub waits_for: Option<usize>,
    /// The server that it asked last.
    pub server: usize,
    /// What it knows of the keys.
    pub seen: BTreeMap<Key, Option<Row>>,
}

/// How a read is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Any state.
    Stale,
    /// As fresh as the leader's lease.
    Default,
    /// A majority confirms.
    Consistent,
}

/// An operation from its call to its answer.
pub struct Op {
    /// For the history.
    pub record: Operation,
    /// How a read is asked.
    pub mode: Mode,
    /// Whether the client still waits.
    pub open: bool,
    /// The client's number; of nobody when the end of the run asks.
    pub client: usize,
    /// The server that took it in, and its run.
    pub server: Option<(usize, u32)>,
    /// On its way back.
    pub answer: Option<(Answer, Option<u64>)>,
}

/// A client that watches.
pub struct Watcher {
    /// Its own randomness.
    pub random: Random,
    /// The server that it asked last.
    pub server: usize,
    /// What it watches: a key, or all of them.
    pub key: Option<Key>,
    /// Which index it asks with, and what it is told.
    pub course: Course,
    /// The indexes at which it was told something.
    pub told: Vec<u64>,
}

/// A blocking query, parked or ended.
pub struct Parked {
    /// For the judge.
    pub query: Query,
    /// Its place in the server's registry.
    pub watch: Option<muster::store::WatchId>,
    /// Whether it waits.
    pub open: bool,
    /// Who asked.
    pub watcher: usize,
    /// Whom.
    pub server: usize,
    /// The newest change of its keys when it was parked.
    pub change_at_park: u64,
}

/// All keys begin with this, so that it is the prefix of all.
const PREFIX: &str = "k/";

/// The name of a key.
pub fn name_of(key: Key) -> Vec<u8> {
    format!("{PREFIX}{key}").into_bytes()
}

/// A value as it is stored: its number, then some bytes to make it long.
pub fn bytes_of(value: Value, length: u64) -> Vec<u8> {
    let mut bytes = value.to_be_bytes().to_vec();
    bytes.resize(length.max(8) as usize, value as u8);
    bytes
}

/// The number of a stored value.
pub fn value_of(bytes: &[u8]) -> Value {
    let head: [u8; 8] = bytes[..8].try_into().expect("every value begins with its number");
    u64::from_be_bytes(head)
}

impl World {
    /// A client does its next thing.
    pub fn client_acts(&mut self, client: usize) {
        if self.healed {
            return;
        }
        let (ask, mode) = self.choose(client);
        let wander = self.plan.wander;
        let servers = self.servers.len() as u64;
        let state = &mut self.clients[client];
        if state.random.chance(wander) {
            state.server = state.random.below(servers) as usize;
        }
        let server = state.server;
        self.ask(client, server, ask, mode);
    }

    /// Sends an operation.
    pub fn ask(&mut self, client: usize, server: usize, ask: Ask, mode: Mode) {
        let op = self.ops.len();
        trace!(self, "c{client} asks s{server} #{op} {ask:?} {mode:?}");
        self.tally.one("operations");
        let promise = match mode {
            Mode::Stale if ask.is_read() => Promise::Prefix { copy: u32::MAX },
            _ => Promise::Linearizable,
        };
        let record = Operation {
            client: client as u32,
            ask,
            promise,
            called: self.now,
            returned: Time::MAX,
            answer: Answer::Lost,
            index: None,
        };
        self.ops.push(Op { record, mode, open: true, client, server: None, answer: None });
        if let Some(state) = self.clients.get_mut(client) {
            state.waits_for = Some(op);
        }
        let delay = self.client_delay();
        self.queue.push(self.now + delay, Event::Arrives { op, server });
        self.queue.push(self.now + self.plan.patience, Event::GivesUp { op });
    }

    /// An answer is on its way from a server to the client of an operation. `index`: of the state.
    pub fn answer(&mut self, op: usize, answer: Answer, index: Option<u64>) {
        let state = &mut self.ops[op];
        if !state.open || state.answer.is_some() {
            return;
        }
        state.answer = Some((answer, index));
        if self.random.chance(self.plan.answer_loss) && !self.healed {
            self.tally.one("fault: answer lost");
            return;
        }
        let delay = self.client_delay();
        self.queue.push(self.now + delay, Event::Returns { op });
    }

    /// An answer is there.
    pub fn returns(&mut self, op: usize) {
        let state = &mut self.ops[op];
        if !state.open {
            return;
        }
        let (answer, index) = state.answer.expect("an answer that returns was given");
        state.open = false;
        state.record.returned = self.now;
        state.record.answer = answer;
        state.record.index = index;
        self.tally.one(match answer {
            Answer::Lost => "answers: outcome unknown",
            Answer::Refused => "answers: refused",
            Answer::Condition(false) => "answers: condition failed",
            Answer::Row(_) => "answers: read",
            Answer::Done | Answer::Condition(true) => "answers: write",
        });
        trace!(self, "#{op} answered {answer:?} at index {index:?}");
        self.learn(op);
        self.next_act(op, matches!(answer, Answer::Lost | Answer::Refused));
    }

    /// A client waits no longer: it will never know.
    pub fn gives_up(&mut self, op: usize) {
        if !self.ops[op].open {
            return;
        }
        self.ops[op].open = false;
        self.tally.one("answers: none in time");
        trace!(self, "#{op} given up");
        self.next_act(op, true);
    }

    /// A watching client asks.
    pub fn watcher_asks(&mut self, watcher: usize) {
        if self.healed {
            return;
        }
        let servers = self.servers.len() as u64;
        let wander = self.plan.wander;
        let state = &mut self.watchers[watcher];
        if state.random.chance(wander) || state.random.chance(0.05) {
            state.server = state.random.below(servers) as usize;
        }
        let (mut server, asked, key) = (state.server, state.course.index(), state.key);
        if state.course.wants_fresh() {
            let Some(newest) = self.newest_server() else {
                self.queue.push(self.now + SECOND, Event::Asks { watcher });
                return;
            };
            server = newest;
        }
        let Some((shown, change, index)) = self.look_at(server, key, asked) else {
            let pause = self.watchers[watcher].random.within(50 * MILLI, SECOND);
            self.queue.push(self.now + pause, Event::Asks { watcher });
            return;
        };
        self.tally.one("blocking queries");
        let keys = key.map_or_else(|| (0..self.plan.keys).collect(), |key| vec![key]);
        let copy = self.servers[server].copy;
        let query = Query { copy, keys, asked, arrived: self.now, ended: self.now, end: End::Cut };
        let number = self.queries.len();
        self.queries.push(Parked { query, watch: None, open: true, watcher, server, change_at_park: change });
        if change > asked {
            self.query_changed(number, index, shown);
            return;
        }
        self.queries[number].watch = Some(self.servers[server].park(topic_of(key), number));
        let wait = self.watchers[watcher].random.log_within(50 * MILLI, 20 * SECOND);
        self.queue.push(self.now + wait, Event::QueryEnds { query: number });
    }

    /// A query has an answer because something changed.
    pub fn query_changed(&mut self, number: usize, state: u64, shown: u64) {
        trace!(self, "query {number} changed: state {state}, shows {shown}");
        self.tally.one("blocking queries: changed");
        self.end_query(number, End::Changed { state, shown });
        let lost = self.random.chance(self.plan.answer_loss);
        if !lost {
            self.hear(number, shown);
        }
        let watcher = &mut self.watchers[self.queries[number].watcher];
        let pause = watcher.random.below(100 * MILLI);
        self.queue.push(self.now + pause, Event::Asks { watcher: self.queries[number].watcher });
    }

    /// A parked query's time is up.
    pub fn query_ends(&mut self, number: usize) {
        let parked = &self.queries[number];
        if !parked.open {
            return;
        }
        let server = &mut self.servers[parked.server];
        if server.paused_until > self.now {
            self.queue.push(server.paused_until, Event::QueryEnds { query: number });
            return;
        }
        if let Some(watch) = parked.watch {
            server.unpark(watch);
        }
        self.tally.one("blocking queries: timed out");
        self.end_query(number, End::TimedOut);
        self.hear_nothing_new(number);
        self.queue.push(self.now, Event::Asks { watcher: self.queries[number].watcher });
    }

    /// The server of a query went down.
    pub fn query_cut(&mut self, number: usize) {
        self.end_query(number, End::Cut);
        let watcher = self.queries[number].watcher;
        let pause = self.watchers[watcher].random.within(MILLI, 300 * MILLI);
        self.queue.push(self.now + pause, Event::Asks { watcher });
    }

    fn end_query(&mut self, number: usize, end: End) {
        let parked = &mut self.queries[number];
        parked.open = false;
        parked.query.ended = self.now;
        parked.query.end = end;
    }

    fn next_act(&mut self, op: usize, failed: bool) {
        let client = self.ops[op].client;
        let servers = self.servers.len() as u64;
        let think = self.plan.think;
        let Some(state) = self.clients.get_mut(client) else { return };
        state.waits_for = None;
        if failed && state.random.chance(0.7) {
            state.server = state.random.below(servers) as usize;
        }
        let pause =
            (think as f64 * -(1.0 - state.random.unit()).ln()) as Time + if failed { 20 * MILLI } else { 0 };
        self.queue.push(self.now + pause, Event::ClientActs { client });
    }

    fn client_delay(&mut self) -> Time {
        self.random.within(50 * MICRO, 3 * MILLI)
    }

    /// Remembers what an answer told about the keys.
    fn learn(&mut self, op: usize) {
        let record = &self.ops[op].record;
        let Some(client) = self.clients.get_mut(record.client as usize) else { return };
        let row = |value: Value| record.index.map(|modified| Row { value, modified });
        match (&record.ask, record.answer) {
            (Ask::Get(key), Answer::Row(row)) => drop(client.seen.insert(*key, row)),
            (Ask::Set(key, value), Answer::Done) | (Ask::Cas(key, _, value), Answer::Condition(true)) => {
                client.seen.insert(*key, row(*value));
            }
            (Ask::Delete(key), Answer::Done) | (Ask::DeleteCas(key, _), Answer::Condition(true)) => {
                client.seen.insert(*key, None);
            }
            _ => {}
        }
    }

    /// Draws what a client does next.
    fn choose(&mut self, client: usize) -> (Ask, Mode) {
        let mix = &self.plan.mix;
        let parts = [
            mix.stale,
            mix.default,
            mix.consistent,
            mix.set,
            mix.cas,
            mix.delete,
            mix.delete_cas,
            mix.delete_all,
        ];
        let value = self.ops.len() as u64 + 1;
        let state = &mut self.clients[client];
        let mut draw = state.random.below(parts.iter().sum());
        let mut kind = 0;
        while draw >= parts[kind] {
            draw -= parts[kind];
            kind += 1;
        }
        let key = state.random.below(u64::from(self.plan.keys)) as Key;
        let seen = state.seen.get(&key).copied().flatten();
        let ask = match kind {
            0 => return (Ask::Get(key), Mode::Stale),
            1 => return (Ask::Get(key), Mode::Default),
            2 => return (Ask::Get(key), Mode::Consistent),
            3 => Ask::Set(key, value),
            4 => Ask::Cas(key, seen, value),
            6 if seen.is_some() => Ask::DeleteCas(key, seen.expect("just looked")),
            7 => Ask::DeleteAll((0..self.plan.keys).collect()),
            _ => Ask::Delete(key),
        };
        (ask, Mode::Default)
    }
}

/// What a watcher of a key, or of all, looks at.
pub fn topic_of(key: Option<Key>) -> Topic {
    if let Some(topic) = key.and_then(names::topic_of) {
        return topic;
    }
    match key {
        Some(key) => Topic::Key(name_of(key).into()),
        None => Topic::KeyPrefix(PREFIX.as_bytes().into()),
    }
}

/// The command that an operation writes with.
pub fn command_of(ask: &Ask, length: u64) -> Command {
    let entry = |key: &Key, value: &Value| KvEntry {
        key: name_of(*key),
        value: bytes_of(*value, length),
        ..KvEntry::default()
    };
    Command::Kv(match ask {
        Ask::Set(key, value) => KvOp::Set(entry(key, value)),
        Ask::Cas(key, seen, value) => {
            KvOp::Cas { entry: entry(key, value), index: seen.map_or(0, |row| row.modified) }
        }
        Ask::Delete(key) => KvOp::Delete { key: name_of(*key) },
        Ask::DeleteCas(key, seen) => KvOp::DeleteCas { key: name_of(*key), index: seen.modified },
        Ask::DeleteAll(_) => KvOp::DeleteTree { prefix: PREFIX.into() },
        Ask::Get(_) | Ask::Restore(_) => unreachable!("not a write of one command"),
    })
}
