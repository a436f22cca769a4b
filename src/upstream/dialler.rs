//! Which server is asked: drawn at random, left when it breaks off, leaves or falls silent, and drawn again now and then.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::{Duration, Instant};

use muster_protocol::entry::ServerId;

use super::call::{self, Call};
use super::error::UpstreamError;
use super::greet::{self, Greeted};
use super::limits::{
    CALLS_MAX, GREETING_LIMITS, GRUDGE, LOOK_INTERVAL, REBALANCES_PER_SECOND, REUSE_MIN, SILENCE_LIMITS,
};
use super::line::{Fate, Line};
use super::{Counts, Rate, ServerAddress, Servers, Settings};
use crate::runtime::bell::Turns;
use crate::runtime::mesh::Receiver;
use crate::runtime::random::Rng;
use crate::runtime::task::{self, Task};
use crate::runtime::time::{self, Sleep};

/// What must run on one core: it makes connections and carries requests. Dropping its future ends them all.
pub struct Dialler {
    settings: Settings,
    servers: Servers,
    calls: Receiver<Call>,
    counts: Arc<Counts>,
    members: Box<dyn Fn() -> usize + Send>,
    rate: Box<dyn Fn() -> Rate + Send>,
    reuse_min: Duration,
}

impl Dialler {
    pub(super) fn new(
        settings: Settings,
        servers: Servers,
        calls: Receiver<Call>,
        counts: Arc<Counts>,
    ) -> Dialler {
        let rate = || Rate { per_second: None, burst: 0 };
        Dialler {
            settings,
            servers,
            calls,
            counts,
            members: Box::new(|| 1),
            rate: Box::new(rate),
            reuse_min: REUSE_MIN,
        }
    }

    /// How many agents there are: the more, the more rarely each draws another server.
    #[must_use]
    pub fn among(mut self, members: impl Fn() -> usize + Send + 'static) -> Dialler {
        self.members = Box::new(members);
        self
    }

    /// How many requests are let through, by the configuration as it is.
    #[must_use]
    pub fn limited(mut self, rate: impl Fn() -> Rate + Send + 'static) -> Dialler {
        self.rate = Box::new(rate);
        self
    }

    /// How long a connection is kept at least before another server is drawn.
    #[must_use]
    pub fn keeping(self, reuse_min: Duration) -> Dialler {
        Dialler { reuse_min, ..self }
    }

    /// The agent says who it is; what was said when it was made is replaced.
    #[must_use]
    pub fn named(mut self, node: String, id: String) -> Dialler {
        self.settings.node = node;
        self.settings.id = id;
        self
    }

    /// Runs until all handles are gone.
    pub async fn run(self) {
        self.run_telling(|| {}).await;
    }

    /// The same, and tells when a server is asked that never was before, or after none could be reached: what it holds may be
    /// other than what is believed.
    pub async fn run_telling(mut self, met: impl Fn() + 'static) {
        let mut shared = Shared::new(self.settings, self.servers, self.counts, Box::new(met));
        shared.reuse_min = self.reuse_min;
        let shared = Rc::new(shared);
        let mut bucket = Bucket::default();
        let mut tasks: Vec<Task<()>> = Vec::new();
        let mut look = Box::pin(Sleep::until(time::now() + LOOK_INTERVAL));
        loop {
            let call = std::future::poll_fn(|cx| {
                if let Poll::Ready(call) = self.calls.poll_recv(cx) {
                    return Poll::Ready(Some(call));
                }
                look.as_mut().poll(cx).map(|()| None)
            });
            match call.await {
                Some(Some(call)) => {
                    if tasks.len() >= CALLS_MAX {
                        tasks.retain(|task| !task.is_done());
                    }
                    if tasks.len() >= CALLS_MAX {
                        call.refuse(UpstreamError::TooBusy);
                    } else if !bucket.allows((self.rate)(), time::now()) {
                        call.refuse(UpstreamError::RateExceeded);
                    } else {
                        tasks.push(task::spawn(call::serve(shared.clone(), call)));
                    }
                }
                Some(None) => return,
                None => {
                    look = Box::pin(Sleep::until(time::now() + LOOK_INTERVAL));
                    tasks.retain(|task| !task.is_done());
                    shared.look((self.members)());
                }
            }
        }
    }
}

/// Lets so many through, as `golang.org/x/time/rate` does for Consul.
#[derive(Default)]
struct Bucket {
    /// What has run in since, tokens.
    level: f64,
    looked: Option<Instant>,
}

impl Bucket {
    fn allows(&mut self, rate: Rate, now: Instant) -> bool {
        let Some(per_second) = rate.per_second else { return true };
        let passed = self.looked.replace(now).map(|before| now.saturating_duration_since(before));
        let run_in = passed.map_or(f64::INFINITY, |passed| passed.as_secs_f64() * per_second);
        self.level = (self.level + run_in).min(rate.burst as f64);
        let allowed = self.level >= 1.0;
        self.level -= if allowed { 1.0 } else { 0.0 };
        allowed
    }
}

/// What all requests share.
pub(super) struct Shared {
    settings: Settings,
    servers: Servers,
    counts: Arc<Counts>,
    current: RefCell<Option<Current>>,
    /// Lines that were replaced, and may carry requests yet.
    replaced: RefCell<Vec<Weak<Line>>>,
    /// One makes a connection, the others wait for it.
    dialling: Turns,
    /// When an attempt at all servers failed last, and how.
    failed: RefCell<Option<(Instant, UpstreamError)>>,
    /// Servers that could not be reached, or fell silent, lately.
    grudges: RefCell<BTreeMap<ServerId, Instant>>,
    rebalancing: RefCell<Option<Task<()>>>,
    rng: RefCell<Rng>,
    /// How many agents there are.
    members: Cell<usize>,
    /// Servers that were asked.
    met: RefCell<BTreeSet<ServerId>>,
    meeting: Box<dyn Fn()>,
    reuse_min: Duration,
}

struct Current {
    line: Rc<Line>,
    /// When another server is drawn.
    until: Instant,
    /// Lines that were replaced end with their last request.
    _driver: Task<()>,
}

impl Shared {
    fn new(settings: Settings, servers: Servers, counts: Arc<Counts>, meeting: Box<dyn Fn()>) -> Shared {
        Shared {
            settings,
            servers,
            counts,
            current: RefCell::default(),
            replaced: RefCell::default(),
            dialling: Turns::default(),
            failed: RefCell::default(),
            grudges: RefCell::default(),
            rebalancing: RefCell::default(),
            rng: RefCell::new(Rng::seeded()),
            members: Cell::new(1),
            met: RefCell::default(),
            meeting,
            reuse_min: REUSE_MIN,
        }
    }

    /// How long a server may be silent: not long, where there is another that seems well.
    pub fn patience(&self, line: &Line) -> Duration {
        let well = |server: &ServerAddress| server.id != line.server.id && !server.is_suspected;
        SILENCE_LIMITS[usize::from(!(self.servers)().iter().any(well))]
    }

    /// The connection for a new request.
    ///
    /// # Errors
    /// No server is known, or none can be reached.
    pub async fn line(self: &Rc<Shared>) -> Result<Rc<Line>, UpstreamError> {
        if let Some(line) = self.open_line() {
            return Ok(line);
        }
        let asked = time::now();
        let _turn = self.dialling.take().await;
        if let Some(line) = self.open_line() {
            return Ok(line);
        }
        if let Some((at, error)) = self.failed.borrow().as_ref()
            && *at >= asked
        {
            return Err(error.clone());
        }
        let dialled = self.dial_any().await;
        if let Err(error) = &dialled {
            self.failed.replace(Some((time::now(), error.clone())));
        }
        dialled
    }

    fn open_line(&self) -> Option<Rc<Line>> {
        let current = self.current.borrow();
        current.as_ref().map(|current| current.line.clone()).filter(|line| line.fate() == Fate::Open)
    }

    /// A server that has failed somebody is asked after the others for a while.
    pub fn resent(&self, server: ServerId) {
        self.grudges.borrow_mut().insert(server, time::now());
    }

    async fn dial_any(self: &Rc<Shared>) -> Result<Rc<Line>, UpstreamError> {
        let candidates = self.candidates();
        let patience = GREETING_LIMITS[usize::from(candidates.len() < 2)];
        let mut last = UpstreamError::NoServers;
        for server in candidates {
            match greet::connect(&self.settings, &server, patience).await {
                Ok(greeted) => return Ok(self.adopt(server, greeted)),
                Err(why) => {
                    tracing::debug!(target: "agent.client", "server {} at {}: {why}", server.name, server.address);
                    self.resent(server.id);
                    let from = self.settings.from;
                    last = UpstreamError::Unreachable { from, server: server.address, why };
                }
            }
        }
        Err(last)
    }

    /// All servers in a random order; those that are in doubt behind the others.
    fn candidates(&self) -> Vec<ServerAddress> {
        let mut servers = (self.servers)();
        self.rng.borrow_mut().shuffle(&mut servers);
        let now = time::now();
        let mut grudges = self.grudges.borrow_mut();
        grudges.retain(|_, since| now.saturating_duration_since(*since) < GRUDGE);
        let sent_away = self.current.borrow().as_ref().map(|current| current.line.clone());
        let sent_away = sent_away.filter(|line| line.fate() == Fate::Retired).map(|line| line.server.id);
        let is_last_choice = |id: ServerId| grudges.contains_key(&id) || sent_away == Some(id);
        servers.sort_by_key(|server| (is_last_choice(server.id), server.is_suspected));
        servers
    }

    /// Makes a connection the one for new requests. What waits on the one before it comes over if it can.
    fn adopt(self: &Rc<Shared>, server: ServerAddress, greeted: Greeted) -> Rc<Line> {
        self.counts.connections.fetch_add(1, Relaxed);
        tracing::info!(target: "agent.client", "asking server {} at {} from now on", server.name, server.address);
        let line = Line::new(server, self.counts.clone());
        let none_answered = self.failed.take().is_some();
        if self.met.borrow_mut().insert(line.server.id) || none_answered {
            (self.meeting)();
        }
        // What is shared holds this task: the other way round it must not, or both live for ever.
        let (running, shared) = (line.clone(), Rc::downgrade(self));
        let driver = task::spawn(async move {
            let line = running.clone();
            let why = running.run(greeted.stream, greeted.rest).await;
            if !why.is_empty() {
                tracing::warn!(target: "agent.client", "the connection to server {} broke: {why}", line.server.name);
                if let Some(shared) = shared.upgrade() {
                    shared.resent(line.server.id);
                }
            }
        });
        let until = time::now() + self.reuse();
        let before = self.current.replace(Some(Current { line: line.clone(), until, _driver: driver }));
        if let Some(Current { line, _driver: driver, .. }) = before {
            line.retire();
            self.replaced.borrow_mut().push(Rc::downgrade(&line));
            driver.detach();
        }
        line
    }

    /// How long a connection is kept before another server is drawn; as Consul's.
    fn reuse(&self) -> Duration {
        let servers = (self.servers)().len().max(1) as f64;
        let least = self.reuse_min + self.reuse_min.mul_f64(self.rng.borrow_mut().fraction() / 2.0);
        least.max(Duration::from_secs_f64(self.members.get() as f64 / (REBALANCES_PER_SECOND * servers)))
    }

    /// Looks at the connection, and whether it is time for another.
    fn look(self: &Rc<Shared>, members: usize) {
        self.members.set(members);
        let servers = (self.servers)();
        let watch = |line: &Line| {
            let known = servers.iter().find(|server| server.id == line.server.id);
            if known.is_none_or(|server| server.is_suspected) && line.fate() != Fate::Dead {
                line.ask(self.patience(line));
            }
        };
        self.replaced.borrow_mut().retain(|line| {
            let line = line.upgrade().filter(|line| line.fate() != Fate::Dead);
            line.inspect(|line| watch(line)).is_some()
        });
        let mut current = self.current.borrow_mut();
        let Some(Current { line, until, .. }) = current.as_mut() else { return };
        watch(line);
        let due = time::now() >= *until || (line.fate() == Fate::Retired && line.has_streams());
        let others = servers.iter().any(|server| server.id != line.server.id);
        if due && others && self.rebalancing.borrow().as_ref().is_none_or(Task::is_done) {
            *until = time::now() + self.reuse();
            let (shared, leaves) = (self.clone(), line.server.id);
            let retired = line.fate() == Fate::Retired;
            // A task may run at once.
            drop(current);
            let drawing = task::spawn(async move { shared.rebalance(leaves, retired).await });
            self.rebalancing.replace(Some(drawing));
        }
    }

    /// Draws a server; if it is another one than now, goes over to it. What cannot be reached is not gone over to.
    async fn rebalance(self: &Rc<Shared>, now_at: ServerId, must: bool) {
        let drawn = self.candidates().into_iter().find(|server| !must || server.id != now_at);
        let Some(server) = drawn.filter(|server| server.id != now_at) else { return };
        let _turn = self.dialling.take().await;
        let still = self.current.borrow().as_ref().is_some_and(|current| current.line.server.id == now_at);
        if !still {
            return;
        }
        match greet::connect(&self.settings, &server, GREETING_LIMITS[0]).await {
            Ok(greeted) => drop(self.adopt(server, greeted)),
            Err(_) => self.resent(server.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_the_rate() {
        let mut bucket = Bucket::default();
        let rate = Rate { per_second: Some(10.0), burst: 5 };
        let start = time::now();
        let allowed = |bucket: &mut Bucket, ms: u64| {
            (0..100).filter(|_| bucket.allows(rate, start + Duration::from_millis(ms))).count()
        };
        assert_eq!(allowed(&mut bucket, 0), 5);
        assert_eq!(allowed(&mut bucket, 250), 2);
        assert_eq!(allowed(&mut bucket, 10_000), 5);
        let none = Rate { per_second: None, burst: 0 };
        assert!((0..1000).all(|_| bucket.allows(none, start)));
        let closed = Rate { per_second: Some(0.0), burst: 0 };
        assert!(!Bucket::default().allows(closed, start));
    }

    #[test]
    fn replaced_connections_are_watched_while_they_live() {
        let server = |number, is_suspected| ServerAddress {
            id: ServerId([number; 16]),
            name: "s".into(),
            address: ([127, 0, 0, 1], 1).into(),
            is_suspected,
        };
        let settings = Settings { node: "a".into(), id: "1".into(), datacenter: "dc1".into(), from: None };
        let known = move || vec![server(1, false), server(2, true)];
        let shared =
            Rc::new(Shared::new(settings, Arc::new(known), Arc::new(Counts::default()), Box::new(|| {})));
        let lines = [1, 2, 3].map(|number| Line::new(server(number, false), Arc::default()));
        for line in &lines {
            line.retire();
            shared.replaced.borrow_mut().push(Rc::downgrade(line));
        }
        shared.look(1);
        let asked = lines.each_ref().map(|line| line.is_asked());
        assert_eq!(asked, [false, true, true], "the suspected and the unknown one");
        drop(lines);
        shared.look(1);
        assert!(shared.replaced.borrow().is_empty());
    }
}
