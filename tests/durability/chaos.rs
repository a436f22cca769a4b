//! A run: clients that ask, and servers that are killed and started again meanwhile.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use histories::{Key, Operation};

use super::client::{Client, Field, KEYS_AT_ONCE};
use super::cluster::{Cluster, RECOVERY_LIMIT};
use super::support::ports::random;
use super::support::wait;
use super::verdict;

/// How long a run is when nobody says.
const SECONDS: u64 = 20;
/// A run that has not done its minimum goes on for as many times its length.
const LENGTHS_MAX: u32 = 6;

/// The longest that a server is stopped: elections take less.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What is run, and what must have happened for it to prove anything.
pub struct Plan {
    pub name: &'static str,
    pub servers: usize,
    pub clients: u32,
    pub kills_min: u32,
    pub kills_of_all_min: u32,
    pub pauses_min: u32,
    pub writes_min: u64,
    pub conditions_min: u64,
    pub reads_min: u64,
}

impl Plan {
    pub fn new(name: &'static str) -> Plan {
        Plan {
            name,
            servers: 3,
            clients: 8,
            kills_min: 0,
            kills_of_all_min: 0,
            pauses_min: 0,
            writes_min: 500,
            conditions_min: 50,
            reads_min: 1000,
        }
    }

    fn is_done(&self, field: &Field, kills: &Kills) -> bool {
        let counts = &field.counts;
        kills.all >= self.kills_of_all_min
            && kills.processes >= self.kills_min
            && kills.pauses >= self.pauses_min
            && counts.writes.load(Ordering::Relaxed) >= self.writes_min
            && counts.conditions.load(Ordering::Relaxed) >= self.conditions_min
            && counts.reads.load(Ordering::Relaxed) >= self.reads_min
    }
}

#[derive(Default, Debug)]
struct Kills {
    processes: u32,
    /// Times when all servers were dead at once.
    all: u32,
    /// Times when one server was stopped for longer than its lease, and went on as if nothing had been.
    pauses: u32,
    /// The longest time without an acknowledged write.
    longest_pause: Duration,
}

/// Runs it and judges it.
pub fn run(plan: &Plan) {
    let parsed = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let length = Duration::from_secs(parsed("MUSTER_DURABILITY_SECONDS").unwrap_or(SECONDS));
    let seed = parsed("MUSTER_DURABILITY_SEED").unwrap_or_else(random);
    println!("{}: MUSTER_DURABILITY_SEED={seed}", plan.name);
    let folder = tempfile::Builder::new().prefix("durability-").tempdir().expect("a temporary folder");
    let mut cluster = Cluster::start(folder.path(), plan.servers);
    let field = Field::new(cluster.servers.iter().map(|server| server.http).collect());
    let (mut history, kills) = thread::scope(|scope| {
        let clients: Vec<_> = (0..plan.clients)
            .map(|number| {
                let client = Client::new(&field, number, seed);
                scope.spawn(move || client.run())
            })
            .collect();
        // Whatever happens here, the clients must hear that it is over.
        let stop = StopAtEnd(&field);
        let kills = Chaos { plan, cluster: &mut cluster, field: &field, random: seed | 1 }.run(length);
        drop(stop);
        let history: Vec<Operation> =
            clients.into_iter().flat_map(|client| client.join().expect("a client that ends")).collect();
        (history, kills)
    });
    history.extend(look_back(plan, &mut cluster, &field, seed));
    let done = plan.is_done(&field, &kills);
    println!("{}: {kills:?} {:?}", plan.name, field.counts);
    verdict::judge(plan.name, &history, || format!("seed {seed}\n{}", cluster.logs()));
    assert!(done, "too little happened to prove anything: {kills:?} {:?}", field.counts);
}

/// Kills all servers once more, starts them, and reads every key at each of them: what they say has to fit
/// into the history too.
fn look_back(plan: &Plan, cluster: &mut Cluster, field: &Field, seed: u64) -> Vec<Operation> {
    for server in &mut cluster.servers {
        server.kill();
    }
    cluster.servers.iter_mut().for_each(|server| server.start());
    cluster.wait_for_leader();
    let keys = ((field.epoch() + 1) * KEYS_AT_ONCE) as Key;
    let mut client = Client::new(field, plan.clients, seed);
    for server in 0..plan.servers {
        for key in 0..keys {
            let before = client.history.len();
            wait::until_true("a server answers a read", RECOVERY_LIMIT, || {
                client.read(server, key, if key % 2 == 0 { "" } else { "?consistent" });
                client.history.len() > before
            });
        }
    }
    client.history
}

struct StopAtEnd<'f>(&'f Field);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

struct Chaos<'a> {
    plan: &'a Plan,
    cluster: &'a mut Cluster,
    field: &'a Field,
    random: u64,
}

impl Chaos<'_> {
    fn run(mut self, length: Duration) -> Kills {
        let start = Instant::now();
        let mut kills = Kills::default();
        self.tell_runs();
        self.recover(&mut kills);
        while start.elapsed() < length || !self.plan.is_done(self.field, &kills) {
            if start.elapsed() > length * LENGTHS_MAX {
                break; // the caller says what is missing
            }
            // The clients are in full swing when it happens, and it takes a while until somebody notices.
            let written = self.between(20, 300);
            self.until_written(written, Duration::from_secs(2));
            if self.between(0, 4) == 0 && self.plan.pauses_min > 0 {
                self.pause(&mut kills);
                continue;
            }
            self.kill(&mut kills);
            let asked = self.between(5, 200);
            self.until_asked(asked, Duration::from_secs(2));
            for server in 0..self.cluster.servers.len() {
                if !self.cluster.servers[server].is_up() {
                    self.cluster.servers[server].start();
                }
            }
            self.tell_runs();
            // Sometimes the next blow falls before the cluster has found itself again.
            if self.between(0, 4) > 0 {
                self.recover(&mut kills);
            }
        }
        self.recover(&mut kills);
        kills
    }

    fn kill(&mut self, kills: &mut Kills) {
        let count = self.cluster.servers.len();
        let victims = match self.between(0, 10) {
            0..3 => count,
            3..5 => count / 2 + 1,
            _ => 1,
        };
        let first = self.between(0, count as u64) as usize;
        for victim in 0..victims {
            self.cluster.servers[(first + victim) % count].signal(libc::SIGKILL); // all of them before the first is buried
        }
        for victim in 0..victims {
            kills.processes += u32::from(self.cluster.servers[(first + victim) % count].kill());
        }
        kills.all += u32::from(victims == count);
        self.tell_runs();
    }

    /// Stops one server until the others have gone on without it. Then it finds questions in its sockets that came while
    /// it was still the leader, for all it knows.
    fn pause(&mut self, kills: &mut Kills) {
        let victim = self.between(0, self.cluster.servers.len() as u64) as usize;
        self.cluster.servers[victim].signal(libc::SIGSTOP);
        let written = self.between(5, 50);
        self.until_written(written, PAUSE_MAX);
        self.cluster.servers[victim].signal(libc::SIGCONT);
        kills.pauses += 1;
    }

    /// Waits until writes are acknowledged again.
    fn recover(&mut self, kills: &mut Kills) {
        let start = Instant::now();
        let before = self.written();
        let goal = before + self.between(1, 50);
        while self.written() < goal {
            self.cluster.servers.iter_mut().for_each(|server| server.must_live());
            assert!(start.elapsed() < RECOVERY_LIMIT, "no write is acknowledged\n{}", self.cluster.logs());
            thread::sleep(wait::PAUSE);
            if self.written() == before {
                kills.longest_pause = kills.longest_pause.max(start.elapsed());
            }
        }
    }

    fn until_written(&self, more: u64, limit: Duration) {
        let (start, goal) = (Instant::now(), self.written() + more);
        while self.written() < goal && start.elapsed() < limit {
            thread::sleep(wait::PAUSE);
        }
    }

    fn until_asked(&self, more: u64, limit: Duration) {
        let asked = || self.field.counts.asked.load(Ordering::Relaxed);
        let (start, goal) = (Instant::now(), asked() + more);
        while asked() < goal && start.elapsed() < limit {
            thread::sleep(wait::PAUSE);
        }
    }

    fn written(&self) -> u64 {
        let counts = &self.field.counts;
        counts.writes.load(Ordering::Relaxed) + counts.conditions.load(Ordering::Relaxed)
    }

    fn tell_runs(&self) {
        for (server, run) in self.cluster.servers.iter().zip(&self.field.runs) {
            run.store(server.run(), Ordering::SeqCst);
        }
    }

    /// A random number, at least `from` and below `to`.
    fn between(&mut self, from: u64, to: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        from + self.random % (to - from)
    }
}
