//! A client that asks one thing after another, of any server, and writes down what it saw.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use histories::{Answer, Ask, Key, Operation, Promise, Row, Value};

use super::support::http::{Connection, Reply, Request};

/// How long a client waits for an answer: longer than a server waits for a leader.
const PATIENCE: Duration = Duration::from_secs(10);
/// Keys that are asked about at one time. Few, so that clients meet.
pub const KEYS_AT_ONCE: u64 = 4;
/// Operations after which the next keys are taken: searches through histories of one key stay short.
const OPERATIONS_PER_KEY: u64 = 300;
/// Pause behind a server that is not there; its connections would be refused a thousand times a second.
const NOBODY_PAUSE: Duration = Duration::from_millis(5);

/// What the clients of a run have in common.
pub struct Field {
    pub start: Instant,
    pub stop: AtomicBool,
    /// HTTP ports of the servers.
    pub ports: Vec<u16>,
    /// The run of each server, as [`super::cluster::Server::run`] says.
    pub runs: Vec<AtomicU32>,
    pub counts: Counts,
}

/// How much was done. Read by whoever waits for progress.
#[derive(Debug, Default)]
pub struct Counts {
    pub asked: AtomicU64,
    pub writes: AtomicU64,
    pub conditions: AtomicU64,
    pub reads: AtomicU64,
    pub lost: AtomicU64,
    pub refused: AtomicU64,
}

impl Field {
    pub fn new(ports: Vec<u16>) -> Field {
        let runs = ports.iter().map(|_| AtomicU32::new(0)).collect();
        Field { start: Instant::now(), stop: AtomicBool::new(false), ports, runs, counts: Counts::default() }
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// The newest keys. Older ones are not written any more.
    pub fn epoch(&self) -> u64 {
        self.counts.asked.load(Ordering::Relaxed) / (OPERATIONS_PER_KEY * KEYS_AT_ONCE)
    }
}

pub fn key_name(key: Key) -> String {
    format!("durability/{:03}/{}", u64::from(key) / KEYS_AT_ONCE, u64::from(key) % KEYS_AT_ONCE)
}

/// A value as it is written: its number, and behind it as many letters as the number says, so that values of many lengths
/// are under way and each shows whether it is whole.
fn text_of(value: Value) -> String {
    let letters = (value.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize;
    format!("{value}:{}", "x".repeat(letters))
}

fn value_of(text: &str) -> Value {
    let value = text.split(':').next().and_then(|number| number.parse().ok()).expect("one of our values");
    assert_eq!(text, text_of(value), "a value is whole");
    value
}

pub struct Client<'f> {
    field: &'f Field,
    /// A client that got no answer may still have its write under way: the next one goes by another number.
    number: u32,
    values: u64,
    random: u64,
    connections: Vec<Option<Connection>>,
    /// What it saw last of each key.
    seen: BTreeMap<Key, Option<Row>>,
    pub history: Vec<Operation>,
}

impl Client<'_> {
    pub fn new(field: &Field, number: u32, seed: u64) -> Client<'_> {
        let connections = field.ports.iter().map(|_| None).collect();
        let random = seed ^ (u64::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Client { field, number, values: 0, random, connections, seen: BTreeMap::new(), history: Vec::new() }
    }

    /// Asks until the field says stop.
    pub fn run(mut self) -> Vec<Operation> {
        while !self.field.stop.load(Ordering::Relaxed) {
            let server = self.below(self.field.ports.len() as u64) as usize;
            let slot = self.below(KEYS_AT_ONCE);
            let key = (self.field.epoch() * KEYS_AT_ONCE + slot) as Key;
            match self.below(100) {
                0..35 => self.read(server, key, ""),
                35..50 => self.read(server, key, "?consistent"),
                50..60 => self.read(server, key, "?stale"),
                60..85 => self.write(server, key),
                _ => self.write_if(server, key),
            }
        }
        self.history
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    fn next_value(&mut self) -> Value {
        self.values += 1;
        u64::from(self.number % NUMBERS_APART) << 40 | self.values
    }

    /// Reads a key; `how` is the query.
    pub fn read(&mut self, server: usize, key: Key, how: &str) {
        let called = self.field.now();
        let run = self.field.runs[server].load(Ordering::SeqCst);
        let Ok(Some(reply)) =
            self.exchange(server, &Request::new("GET", &format!("/v1/kv/{}{how}", key_name(key))))
        else {
            return;
        };
        let row = match reply.status {
            200 => Some(row_of(&reply)),
            404 => None,
            // A read that failed says nothing.
            _ => return count(&self.field.counts.refused),
        };
        let promise = match how {
            "?stale" if self.field.runs[server].load(Ordering::SeqCst) != run => return,
            "?stale" => Promise::Prefix { copy: server as u32 | run << 8 },
            _ => Promise::Linearizable,
        };
        count(&self.field.counts.reads);
        self.seen.insert(key, row);
        let index = Some(row.map_or_else(|| reply.index(), |row| row.modified));
        self.note(Ask::Get(key), promise, called, Answer::Row(row), index);
    }

    fn write(&mut self, server: usize, key: Key) {
        let value = self.next_value();
        self.put(server, key, Ask::Set(key, value), "", value);
    }

    fn write_if(&mut self, server: usize, key: Key) {
        let value = self.next_value();
        let row = self.seen.get(&key).copied().flatten();
        let how = format!("?cas={}", row.map_or(0, |row| row.modified));
        self.put(server, key, Ask::Cas(key, row, value), &how, value);
    }

    fn put(&mut self, server: usize, key: Key, ask: Ask, how: &str, value: Value) {
        let request = Request::new("PUT", &format!("/v1/kv/{}{how}", key_name(key))).body(text_of(value));
        let called = self.field.now();
        let conditional = matches!(ask, Ask::Cas(..));
        let counts = &self.field.counts;
        let answer = match self.exchange(server, &request) {
            Err(NobodyThere) => return,
            Ok(reply) => reply.map_or(Answer::Lost, |reply| judge(&reply, conditional)),
        };
        match answer {
            Answer::Lost => count(&counts.lost),
            Answer::Refused => count(&counts.refused),
            Answer::Condition(true) => count(&counts.conditions),
            Answer::Done => count(&counts.writes),
            _ => {}
        }
        self.note(ask, Promise::Linearizable, called, answer, None);
        if answer == Answer::Lost {
            self.number += NUMBERS_APART;
        }
    }

    /// Sends a request and waits for its answer: `None` if there came none, though the request may have arrived.
    fn exchange(&mut self, server: usize, request: &Request) -> Result<Option<Reply>, NobodyThere> {
        count(&self.field.counts.asked);
        let connection = match self.connections[server].take() {
            Some(connection) => Ok(connection),
            None => Connection::open(self.field.ports[server]),
        };
        let Ok(mut connection) = connection else {
            std::thread::sleep(NOBODY_PAUSE);
            return Err(NobodyThere);
        };
        connection.set_patience(PATIENCE);
        match connection.exchange(request) {
            Ok(reply) => {
                self.connections[server] = Some(connection);
                Ok(Some(reply))
            }
            Err(_) => Ok(None),
        }
    }

    fn note(&mut self, ask: Ask, promise: Promise, called: u64, answer: Answer, index: Option<u64>) {
        let returned = self.field.now();
        self.history.push(Operation { client: self.number, ask, promise, called, returned, answer, index });
    }
}

/// No connection: certainly nothing was asked.
struct NobodyThere;

/// Numbers of one client are so far apart.
const NUMBERS_APART: u32 = 1000;

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn row_of(reply: &Reply) -> Row {
    let rows = reply.json();
    let text = rows[0]["Value"].as_str().expect("a value");
    let bytes = STANDARD.decode(text).expect("base64");
    let value = value_of(std::str::from_utf8(&bytes).expect("one of our values"));
    Row { value, modified: rows[0]["ModifyIndex"].as_u64().expect("an index") }
}

/// What the answer to a write says. Only what promises that nothing happened is taken for that.
fn judge(reply: &Reply, conditional: bool) -> Answer {
    let text = reply.text();
    match (reply.status, text.trim()) {
        (200, "true") if conditional => Answer::Condition(true),
        (200, "true") => Answer::Done,
        (200, "false") if conditional => Answer::Condition(false),
        (500, "No cluster leader") => Answer::Refused,
        (_, text) if text.starts_with("write refused: ") => Answer::Refused,
        _ => Answer::Lost,
    }
}
