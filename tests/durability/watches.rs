//! Blocking queries at all servers while one key is written and servers die: none misses a change, none returns without
//! one, none goes back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::cluster::{Cluster, RECOVERY_LIMIT};
use super::support::http::{Connection, Reply, Request};
use super::support::ports::random;
use super::support::wait;

const KEY: &str = "/v1/kv/watched";
/// How long a query waits; short, so that its end without a change is seen too.
const WAIT: Duration = Duration::from_secs(2);
/// A server may wait a sixteenth longer, and a machine that builds something else longer still.
const PATIENCE: Duration = Duration::from_secs(20);
/// Values written between two deaths of the leader.
const WRITES: u64 = 60;
const ROUNDS: u64 = 3;
const WATCHERS_PER_SERVER: usize = 3;

struct Watched {
    ports: Vec<u16>,
    /// The newest number whose write was acknowledged.
    written: AtomicU64,
    /// Waits that ended without a change.
    timeouts: AtomicU64,
    over: AtomicBool,
}

/// What one watcher saw.
#[derive(Default)]
struct Seen {
    newest: u64,
    index: u64,
    changes: u64,
}

impl Watched {
    /// Asks again and again at one server, until it has seen the last value.
    fn watch(&self, server: usize) -> Seen {
        let mut seen = Seen::default();
        let mut connection = None;
        while !self.over.load(Ordering::SeqCst) || seen.newest < self.written.load(Ordering::SeqCst) {
            let path = match seen.index {
                0 => format!("{KEY}?raw"),
                index => format!("{KEY}?raw&index={index}&wait={}s", WAIT.as_secs()),
            };
            let (start, known) = (Instant::now(), self.written.load(Ordering::SeqCst));
            let Some(reply) = ask(self.ports[server], &mut connection, &path) else {
                thread::sleep(wait::PAUSE);
                continue;
            };
            if reply.status == 200 && seen.take(&reply, start.elapsed(), known) {
                self.timeouts.fetch_add(1, Ordering::SeqCst);
            }
        }
        seen
    }

    /// Writes the next number at any server, until one says that it is done.
    fn write(&self, number: u64) {
        let start = Instant::now();
        loop {
            let port = self.ports[random() as usize % self.ports.len()];
            let sent = Connection::open(port).and_then(|mut connection| {
                connection.set_patience(PATIENCE);
                connection.exchange(&Request::new("PUT", KEY).body(number.to_string()))
            });
            if sent.is_ok_and(|reply| reply.status == 200) {
                return self.written.store(number, Ordering::SeqCst);
            }
            assert!(start.elapsed() < RECOVERY_LIMIT, "value {number} is not taken");
            thread::sleep(wait::PAUSE);
        }
    }
}

fn ask(port: u16, connection: &mut Option<Connection>, path: &str) -> Option<Reply> {
    let mut open = connection.take().or_else(|| Connection::open(port).ok())?;
    open.set_patience(PATIENCE);
    let reply = open.exchange(&Request::new("GET", path)).ok()?;
    *connection = Some(open);
    Some(reply)
}

impl Seen {
    /// Whether it ended without a change. `known` had been acknowledged before the question was asked.
    fn take(&mut self, reply: &Reply, took: Duration, known: u64) -> bool {
        let (number, index) = (reply.text().parse().expect("one of our numbers"), reply.index());
        assert!(number >= known, "{number} is shown, but {known} was acknowledged before the question");
        assert!(
            number >= self.newest && index >= self.index,
            "{number} at {index} follows {} at {}",
            self.newest,
            self.index
        );
        let unchanged = self.index > 0 && index == self.index;
        if unchanged {
            assert_eq!(number, self.newest, "another value at the same index {index}");
            assert!(took >= WAIT, "it returned after {took:?} without a change at index {index}");
        } else {
            self.changes += 1;
        }
        (self.newest, self.index) = (number, index);
        unchanged
    }
}

#[test]
fn no_watcher_at_any_server_misses_a_change() {
    let folder = tempfile::Builder::new().prefix("durability-").tempdir().expect("a temporary folder");
    let mut cluster = Cluster::start(folder.path(), 3);
    let watched = Watched {
        ports: cluster.servers.iter().map(|server| server.http).collect(),
        written: AtomicU64::new(0),
        timeouts: AtomicU64::new(0),
        over: AtomicBool::new(false),
    };
    watched.write(1);
    let seen = thread::scope(|scope| {
        let watchers: Vec<_> = (0..watched.ports.len() * WATCHERS_PER_SERVER)
            .map(|number| {
                let watched = &watched;
                scope.spawn(move || watched.watch(number % watched.ports.len()))
            })
            .collect();
        // Also when the writer gives up.
        let over = Over(&watched.over);
        for round in 0..ROUNDS {
            for number in 1..=WRITES {
                watched.write(1 + round * WRITES + number);
            }
            let leader = cluster.leader();
            cluster.servers[leader].kill();
            watched.write(1 + (round + 1) * WRITES);
            cluster.servers[leader].start();
            cluster.wait_for_leader();
        }
        let ended = watched.timeouts.load(Ordering::SeqCst);
        wait::until_true("waits end without a change", RECOVERY_LIMIT, || {
            watched.timeouts.load(Ordering::SeqCst) >= ended + watchers.len() as u64
        });
        watched.write(2 + ROUNDS * WRITES);
        drop(over);
        let ended = watchers.into_iter().map(|watcher| watcher.join());
        ended.map(|seen| seen.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect::<Vec<_>>()
    });
    let changes: u64 = seen.iter().map(|seen| seen.changes).sum();
    let timeouts = watched.timeouts.load(Ordering::SeqCst);
    println!(
        "{} watchers saw {changes} changes of {} writes, {timeouts} waits ended without one",
        seen.len(),
        WRITES * ROUNDS
    );
    assert!(seen.iter().all(|seen| seen.newest == 2 + ROUNDS * WRITES), "each saw the last value");
    assert!(changes >= WRITES * ROUNDS && timeouts >= seen.len() as u64, "too little happened");
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
