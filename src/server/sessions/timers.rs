//! How long sessions have left, and lock-delays. No clock is read here.
//!
//! Time passes only while this process is seen to run: a step between two looks that is longer than [`STEP_MAX`] was a pause (of the
//! process, of its machine), in which renewals may have come that are still on their way in, or a leap of its clock, and counts for
//! nothing. Where one such step follows the other the process is just slow, and so much of each counts. And a session stays for
//! a moment behind its TTL that is longer than that, so that renewals have time to be read, and a client whose clock runs
//! a little slower than this one is not early.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::store::State;
use crate::store::command::DelayEnd;
use crate::store::model::Session;

/// The longest step that is no surprise, and as much of one counts at most: the leader looks twice a second, or more often.
pub const STEP_MAX: Duration = Duration::from_millis(600);
/// How long a session that was not renewed for its TTL lives on: this part of the TTL, but not less than that.
const GRACE_FRACTION: u32 = 20;
const GRACE_MIN: Duration = Duration::from_millis(750);
/// By which part of it a lock-delay is longer than asked for, as holders count it by clocks of their own.
const DELAY_FRACTION: u32 = 64;

const _: () = assert!(STEP_MAX.as_millis() < GRACE_MIN.as_millis());

/// See the module.
#[derive(Debug)]
pub struct Timers {
    /// Time that has passed, up to the last look.
    passed: Duration,
    looked: Instant,
    /// Whether the last step was longer than [`STEP_MAX`].
    is_slow: bool,
    /// What [`State::sessions_index`] was when the sessions were looked at.
    followed: Option<u64>,
    /// [`State::restored_at`] at the last look.
    restored_at: u64,
    /// See [`Timers::basis`].
    basis: u64,
    /// When each session with a TTL is due, in passed time.
    due: BTreeMap<Arc<str>, Duration>,
    order: BTreeSet<(Duration, Arc<str>)>,
    /// Sessions whose end was proposed.
    doomed: BTreeSet<Arc<str>>,
    /// The lock-delays by key: what began them, and when they end.
    delays: BTreeMap<Box<[u8]>, (u64, Duration)>,
}

impl Timers {
    /// Nothing is measured yet. `state` has all that earlier leaders wrote, and nothing of a later one.
    pub fn begin(now: Instant, state: &State) -> Timers {
        Timers {
            passed: Duration::ZERO,
            looked: now,
            is_slow: false,
            followed: None,
            restored_at: state.restored_at(),
            basis: state.index(),
            due: BTreeMap::new(),
            order: BTreeSet::new(),
            doomed: BTreeSet::new(),
            delays: BTreeMap::new(),
        }
    }

    /// Index of the state since which all is measured here: what [`crate::store::command::SessionOp::Expire`] has seen. Not that of
    /// a newer state: that may hold what a later leader wrote, while this server does not know of it yet.
    pub fn basis(&self) -> u64 {
        self.basis
    }

    /// A look at the clock.
    pub fn pass(&mut self, now: Instant) {
        let is_long = now.saturating_duration_since(self.looked) > STEP_MAX;
        if !is_long || self.is_slow {
            self.passed = self.passed_at(now);
        }
        // While nothing is measured the looks are rare.
        self.is_slow = is_long && !self.is_empty();
        self.looked = now;
    }

    /// Whether nothing is measured.
    pub fn is_empty(&self) -> bool {
        self.due.is_empty() && self.delays.is_empty()
    }

    /// Begins what is new in the tables, and forgets what is there no more.
    pub fn follow(&mut self, state: &State) {
        if std::mem::replace(&mut self.restored_at, state.restored_at()) != state.restored_at() {
            // Other tables, of another time: all begin anew.
            *self = Timers { passed: self.passed, ..Timers::begin(self.looked, state) };
        }
        let index = state.sessions_index();
        if self.followed.replace(index) != Some(index) {
            self.follow_sessions(state);
        }
        // Their ends move no index; while there are none, neither has any begun without a session's end.
        if !self.delays.is_empty() || state.lock_delays().next().is_some() {
            self.follow_delays(state);
        }
    }

    /// A session was renewed: its time begins anew.
    pub fn renew(&mut self, session: &Session, now: Instant) {
        if let Some(life) = life_of(session) {
            self.set(session.id.as_str().into(), self.passed_at(now) + life);
        }
    }

    /// Sessions whose time is up, at most so many; also those that are doomed already, as their end may have been lost.
    pub fn due(&self, max: usize) -> Vec<String> {
        let over = self.order.iter().take_while(|(due, _)| *due <= self.passed);
        over.take(max).map(|(_, id)| id.to_string()).collect()
    }

    /// The end of these is proposed.
    pub fn doom(&mut self, ids: &[String]) {
        self.doomed.extend(ids.iter().map(|id| id.as_str().into()));
    }

    /// The end of these was not proposed after all.
    pub fn spare(&mut self, ids: &[String]) {
        self.doomed.retain(|doomed| !ids.iter().any(|id| **id == **doomed));
    }

    /// Whether the end of a session was proposed; nobody renews it then.
    pub fn is_doomed(&self, id: &str) -> bool {
        self.doomed.contains(id)
    }

    /// Lock-delays that are over, at most so many, with so many bytes of keys, but one in any case.
    pub fn ended(&self, max: usize, bytes_max: usize) -> Vec<DelayEnd> {
        let over = self.delays.iter().filter(|(_, (_, end))| *end <= self.passed);
        let mut bytes = 0;
        let over = over.take_while(|(key, _)| {
            let first = bytes == 0;
            bytes += key.len();
            first || bytes <= bytes_max
        });
        over.take(max).map(|(key, (since, _))| DelayEnd { key: key.to_vec(), since: *since }).collect()
    }

    /// At most so much has passed.
    fn passed_at(&self, now: Instant) -> Duration {
        self.passed + now.saturating_duration_since(self.looked).min(STEP_MAX)
    }

    fn set(&mut self, id: Arc<str>, due: Duration) {
        if let Some(old) = self.due.insert(id.clone(), due) {
            self.order.remove(&(old, id.clone()));
        }
        self.order.insert((due, id));
    }

    fn follow_sessions(&mut self, state: &State) {
        let gone: Vec<Arc<str>> = self.due.keys().filter(|id| state.session(id).is_none()).cloned().collect();
        for id in gone {
            if let Some(due) = self.due.remove(&id) {
                self.order.remove(&(due, id.clone()));
            }
            self.doomed.remove(&id);
        }
        for session in state.sessions() {
            if let Some(life) = life_of(session)
                && !self.due.contains_key(session.id.as_str())
            {
                self.set(session.id.as_str().into(), self.passed + life);
            }
        }
    }

    fn follow_delays(&mut self, state: &State) {
        let goes_on = |key: &[u8], since| state.lock_delay(key).is_some_and(|delay| delay.since == since);
        self.delays.retain(|key, (since, _)| goes_on(key, *since));
        for (key, delay) in state.lock_delays() {
            if !self.delays.contains_key(key) {
                let length = Duration::from_nanos(u64::try_from(delay.length_ns).unwrap_or(0));
                let end = self.passed + length + length / DELAY_FRACTION;
                self.delays.insert(key.into(), (delay.since, end));
            }
        }
    }
}

/// Its TTL with the moment behind it; `None`: it lives until somebody ends it.
fn life_of(session: &Session) -> Option<Duration> {
    let ttl = u64::try_from(session.ttl_ns).ok().filter(|ns| *ns > 0).map(Duration::from_nanos)?;
    Some(ttl + (ttl / GRACE_FRACTION).max(GRACE_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::Encoded;
    use crate::runtime::time;
    use crate::store::Touched;
    use crate::store::command::{CatalogOp, Command, KvOp, Register, SessionOp};
    use crate::store::model::{KvEntry, Node};

    const TTL: Duration = Duration::from_secs(10);
    const TICK: Duration = Duration::from_millis(250);

    struct Bench {
        state: State,
        timers: Timers,
        now: Instant,
    }

    impl Bench {
        fn new() -> Bench {
            let now = time::now();
            let state = State::new();
            let mut bench = Bench { timers: Timers::begin(now, &state), state, now };
            let node = Node { node: "n".into(), address: "a".into(), ..Node::default() };
            bench.apply(&Command::Catalog(CatalogOp::Register(Box::new(Register {
                node,
                ..Register::default()
            }))));
            bench
        }

        fn apply(&mut self, command: &Command) {
            let index = self.state.log_index() + 1;
            self.state.apply(index, Encoded::of(command).command(), &mut Touched::new());
        }

        fn session(&mut self, id: &str, ttl: Duration) {
            let session = Session {
                id: id.into(),
                node: "n".into(),
                ttl_ns: ttl.as_nanos() as i64,
                lock_delay_ns: 3_000_000_000,
                ..Session::default()
            };
            self.apply(&Command::Session(SessionOp::Create(Box::new(session))));
        }

        /// Looks at the clock every so often.
        fn run(&mut self, time: Duration) {
            for _ in 0..time.as_nanos() / TICK.as_nanos() {
                self.now += TICK;
                self.timers.pass(self.now);
                self.timers.follow(&self.state);
            }
        }

        fn renew(&mut self, id: &str) {
            let session = self.state.session(id).expect("it is there").clone();
            self.timers.renew(&session, self.now);
        }

        fn due(&self) -> Vec<String> {
            self.timers.due(9)
        }
    }

    #[test]
    fn a_session_is_due_shortly_after_its_ttl_unless_it_was_renewed() {
        let mut bench = Bench::new();
        bench.session("a", TTL);
        bench.session("b", TTL);
        bench.session("for-ever", Duration::ZERO);
        bench.run(TTL);
        assert!(bench.due().is_empty());
        bench.renew("b");
        bench.run(Duration::from_secs(1));
        assert_eq!(bench.due(), ["a"]);
        bench.apply(&Command::Session(SessionOp::Destroy { id: "a".into() }));
        bench.run(TTL - Duration::from_secs(1));
        assert!(bench.due().is_empty());
        bench.run(Duration::from_secs(1));
        assert_eq!(bench.due(), ["b"]);
        assert!(!bench.timers.is_doomed("b"));
        bench.timers.doom(&bench.due());
        assert!(bench.timers.is_doomed("b"));
        assert_eq!(bench.due(), ["b"], "its end may have been lost");
        bench.timers.spare(&bench.due());
        assert!(!bench.timers.is_doomed("b"), "or refused at once");
    }

    #[test]
    fn a_renewal_before_the_first_look_counts_from_then() {
        let mut bench = Bench::new();
        bench.session("a", TTL);
        bench.renew("a");
        bench.run(TTL);
        assert!(bench.due().is_empty());
        bench.run(Duration::from_secs(1));
        assert_eq!(bench.due(), ["a"]);
    }

    /// The process stood still: renewals of that time lie in the buffers of its sockets.
    #[test]
    fn a_pause_counts_for_nothing() {
        let mut bench = Bench::new();
        bench.session("a", TTL);
        bench.run(TTL);
        bench.now += Duration::from_secs(3600);
        bench.timers.pass(bench.now);
        bench.timers.follow(&bench.state);
        assert!(bench.due().is_empty());
        bench.renew("a");
        bench.run(TTL);
        assert!(bench.due().is_empty());
        bench.run(Duration::from_secs(1));
        assert_eq!(bench.due(), ["a"]);
    }

    /// The machine is busy: each look comes late.
    #[test]
    fn a_slow_process_ends_sessions_all_the_same() {
        let mut bench = Bench::new();
        bench.session("a", TTL);
        bench.run(TICK);
        for _ in 0..25 {
            bench.now += STEP_MAX + TICK;
            bench.timers.pass(bench.now);
        }
        assert_eq!(bench.due(), ["a"]);
    }

    #[test]
    fn a_leap_of_the_clock_shortens_no_lock_delay() {
        let mut bench = Bench::new();
        bench.session("a", Duration::ZERO);
        let entry = KvEntry { key: "k".into(), session: "a".into(), ..KvEntry::default() };
        bench.apply(&Command::Kv(KvOp::Acquire(entry)));
        bench.apply(&Command::Session(SessionOp::Destroy { id: "a".into() }));
        bench.run(TICK);
        bench.now += Duration::from_secs(3600);
        bench.timers.pass(bench.now);
        bench.run(Duration::from_secs(3) - TICK);
        assert!(bench.timers.ended(9, usize::MAX).is_empty());
        bench.run(2 * TICK);
        assert_eq!(bench.timers.ended(9, usize::MAX).len(), 1);
    }

    #[test]
    fn a_lock_delay_ends_when_all_of_it_has_passed() {
        let mut bench = Bench::new();
        bench.session("a", Duration::ZERO);
        let entry = KvEntry { key: "k".into(), session: "a".into(), ..KvEntry::default() };
        bench.apply(&Command::Kv(KvOp::Acquire(entry)));
        bench.apply(&Command::Session(SessionOp::Destroy { id: "a".into() }));
        bench.run(TICK);
        bench.run(Duration::from_secs(3) - TICK);
        assert!(bench.timers.ended(9, 1 << 20).is_empty() && !bench.timers.is_empty());
        // A holder's clock may be a little slower.
        bench.run(2 * TICK);
        let ended = bench.timers.ended(9, 1 << 20);
        assert_eq!(ended, [DelayEnd { key: "k".into(), since: bench.state.index() }]);
        bench.apply(&Command::Session(SessionOp::EndDelays(ended)));
        bench.run(TICK);
        assert!(bench.timers.ended(9, 1 << 20).is_empty() && bench.timers.is_empty());
    }

    /// The delays of a few keys of a megabyte each did not fit into a command, and all that was measured began anew, again and again.
    #[test]
    fn the_ends_of_long_keys_are_told_one_by_one() {
        let mut bench = Bench::new();
        bench.session("a", TTL);
        for key in ["x", "y", "z"] {
            let entry = KvEntry { key: key.repeat(100).into(), session: "a".into(), ..KvEntry::default() };
            bench.apply(&Command::Kv(KvOp::Acquire(entry)));
        }
        bench.apply(&Command::Session(SessionOp::Destroy { id: "a".into() }));
        bench.run(TTL);
        let ended = |max, bytes_max| bench.timers.ended(max, bytes_max).len();
        assert_eq!([ended(9, 1), ended(9, 200), ended(9, 1000), ended(2, 1000)], [1, 2, 3, 2]);
    }
}
