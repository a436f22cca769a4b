//! Who waits for a lock on this core: `PUT /v1/kv/KEY?acquire=ID&wait=30s`.
//!
//! Consul's clients wait for a key and, when it is freed, all try to acquire it. Here those who wait for the same key stand in
//! a line, and only the first looks at it; the next one is woken when the first has got the lock or has left. The lines
//! of different cores and servers know nothing of each other: each first waits a random moment and looks again, so that
//! mostly one of them tries, and none is always the first.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Edge;
use super::area::refusal;
use super::exchange::Response;
use super::limits;
use super::operator::await_fresh;
use crate::consensus::ProposeError;
use crate::edge::fresh::Freshness;
use crate::runtime::bell::Bell;
use crate::runtime::random::Rng;
use crate::runtime::{cores, time};
use crate::store::command::{Applied, Command, KvOp};
use crate::store::model::KvEntry;
use crate::store::topic::Topic;
use crate::store::{State, Touched, WatchId, Watchers};

/// The random moment is below this: a few times what a write takes.
const MOMENT_MAX: Duration = Duration::from_millis(20);
/// How long the first of a line rests after an attempt that failed for want of a leader.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How often those who are not the first look whether their sessions are still there, or have the lock.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Told when the values of those who wait take too much room together.
const NO_ROOM: &str = "Too many wait for locks with large values: try again after a pause";

/// The lines of one core.
#[derive(Default)]
pub struct LockQueues(Rc<RefCell<Queues>>);

#[derive(Default)]
struct Queues {
    lines: BTreeMap<Rc<[u8]>, Line>,
    watchers: Watchers<Rc<[u8]>>,
    /// Drawn from when the first line is made.
    rng: Option<Rng>,
    numbers: u64,
    /// Bytes of all who wait.
    bytes: usize,
}

struct Line {
    waiting: VecDeque<(u64, Rc<Bell>)>,
    watches: [WatchId; 2],
}

/// A place in a line, until it is dropped.
struct Place {
    queues: Rc<RefCell<Queues>>,
    key: Rc<[u8]>,
    number: u64,
    bytes: usize,
    bell: Rc<Bell>,
}

impl LockQueues {
    /// The first of each line that a change concerns looks at its key.
    pub(super) fn wake(&self, touched: &Touched) {
        let queues = &mut *self.0.borrow_mut();
        let mut woken = Vec::new();
        queues.watchers.wake(touched, &mut woken);
        woken.sort_unstable();
        woken.dedup();
        for key in woken {
            let Some(line) = queues.lines.get_mut(&key) else { continue };
            for watch in line.watches {
                queues.watchers.remove(watch);
            }
            line.watches = watch(&mut queues.watchers, &key);
            line.call();
        }
    }

    /// `None`: there is no room.
    fn join(&self, key: &[u8], value: usize) -> Option<Place> {
        let queues = &mut *self.0.borrow_mut();
        let bytes = key.len() + value;
        if queues.bytes + bytes > limits::LOCK_BYTES_MAX {
            return None;
        }
        queues.bytes += bytes;
        queues.numbers += 1;
        let (number, bell) = (queues.numbers, Rc::new(Bell::default()));
        let key: Rc<[u8]> = key.into();
        let line = queues
            .lines
            .entry(key.clone())
            .or_insert_with(|| Line { waiting: VecDeque::new(), watches: watch(&mut queues.watchers, &key) });
        line.waiting.push_back((number, bell.clone()));
        Some(Place { queues: self.0.clone(), key, number, bytes, bell })
    }
}

fn watch(watchers: &mut Watchers<Rc<[u8]>>, key: &Rc<[u8]>) -> [WatchId; 2] {
    [Topic::Key((**key).into()), Topic::LockDelay((**key).into())]
        .map(|topic| watchers.insert(topic, key.clone()))
}

impl Line {
    fn call(&self) {
        if let Some((_, bell)) = self.waiting.front() {
            bell.ring();
        }
    }
}

impl Place {
    fn is_first(&self) -> bool {
        let queues = self.queues.borrow();
        queues.lines.get(&self.key).and_then(|line| line.waiting.front()).map(|first| first.0)
            == Some(self.number)
    }

    fn moment(&self) -> Duration {
        let mut queues = self.queues.borrow_mut();
        MOMENT_MAX.mul_f64(queues.rng.get_or_insert_with(Rng::seeded).fraction())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let queues = &mut *self.queues.borrow_mut();
        queues.bytes -= self.bytes;
        let Some(line) = queues.lines.get_mut(&self.key) else { return };
        if line.waiting.front().is_some_and(|(first, _)| *first == self.number) {
            line.waiting.pop_front();
            line.call();
        } else {
            // Those behind have larger numbers.
            let place = line.waiting.binary_search_by_key(&self.number, |(number, _)| *number);
            place.map(|place| line.waiting.remove(place)).ok();
        }
        if !line.waiting.is_empty() {
            return;
        }
        for watch in line.watches {
            queues.watchers.remove(watch);
        }
        queues.lines.remove(&self.key);
    }
}

/// Acquires a lock: at once if it is free, else as soon as it is, for as long as `wait` says; whether it was acquired.
///
/// # Errors
/// The answer for an attempt that was refused, or failed.
pub(super) async fn acquire(edge: &Rc<Edge>, entry: KvEntry, wait: Duration) -> Result<bool, Response> {
    let command = Command::Kv(KvOp::Acquire(entry));
    let Command::Kv(KvOp::Acquire(entry)) = &command else { return Ok(false) };
    if !wait.is_zero() {
        return wait_for(edge, &command, entry, time::now() + wait).await;
    }
    // What is not to be had needs no write, but has to be true of what was acknowledged before.
    if Chance::of(&edge.state(), entry) == Chance::None {
        await_fresh(edge, Freshness::Leader).await?;
        if Chance::of(&edge.state(), entry) == Chance::None {
            return Ok(false);
        }
    }
    propose(edge, &command).await.map_err(|error| refusal(&error))?
}

/// Stands in line, and tries whenever it is the first and the lock seems free; false when the time is up.
async fn wait_for(
    edge: &Rc<Edge>,
    command: &Command,
    entry: &KvEntry,
    until: Instant,
) -> Result<bool, Response> {
    let place = edge.locks().join(&entry.key, entry.value.len());
    let place = place.ok_or_else(|| Response::text(503, NO_ROOM))?;
    loop {
        let chance = Chance::of(&edge.state(), entry);
        let tries = match chance {
            Chance::None => false,
            Chance::Free => place.is_first() && has_waited_its_moment(edge, &place, entry).await,
            Chance::Certain => true,
        };
        if tries {
            match propose(edge, command).await {
                Ok(Ok(false)) => {}
                Ok(tried) => return tried,
                // Whatever became of it: a session that has the lock acquires it again.
                Err(ProposeError::NoLeader | ProposeError::LeadershipLost | ProposeError::TooBusy) => {
                    time::sleep(RETRY_PAUSE).await;
                }
                Err(error) => return Err(refusal(&error)),
            }
        }
        let now = time::now();
        if now >= until {
            return Ok(false);
        }
        if !(place.is_first() && Chance::of(&edge.state(), entry) == Chance::Free) {
            hear(&place.bell, until.min(now + LOOK_INTERVAL)).await;
        }
    }
}

/// Lets others go first by chance; false if one of them has.
async fn has_waited_its_moment(edge: &Rc<Edge>, place: &Place, entry: &KvEntry) -> bool {
    if !edge.leadership().contact().alone {
        time::sleep(place.moment()).await;
    }
    Chance::of(&edge.state(), entry) != Chance::None
}

async fn hear(bell: &Bell, until: Instant) {
    let _ = cores::either(bell.heard(), time::sleep_until(until)).await;
}

/// What an attempt would come to as things stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chance {
    /// It would fail.
    None,
    /// Nobody has the lock.
    Free,
    /// The session has the lock already; or is not known here, of which the write itself tells.
    Certain,
}

impl Chance {
    fn of(state: &State, entry: &KvEntry) -> Chance {
        let Some(session) = state.session(&entry.session) else { return Chance::Certain };
        let holder = state.kv(&entry.key).map_or("", |row| &row.session);
        if state.lock_delay(&entry.key).is_some() {
            Chance::None
        } else if holder == session.id {
            Chance::Certain
        } else if holder.is_empty() {
            Chance::Free
        } else {
            Chance::None
        }
    }
}

/// The inner error is the refusal of the tables.
async fn propose(edge: &Rc<Edge>, command: &Command) -> Result<Result<bool, Response>, ProposeError> {
    Ok(match edge.proposals().propose(command).await? {
        Applied::Refused(text) => Err(Response::internal(text)),
        applied => Ok(applied != Applied::Condition(false)),
    })
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    fn heard(place: &Place) -> bool {
        block_on(poll_once(place.bell.heard())).is_some()
    }

    fn touched(topic: Topic) -> Touched {
        let mut touched = Touched::new();
        touched.add(topic);
        touched
    }

    #[test]
    fn only_the_first_of_a_line_is_woken_and_the_next_one_when_it_leaves() {
        let queues = LockQueues::default();
        let join = |key: &[u8]| queues.join(key, 10).expect("there is room");
        let (first, second, third, elsewhere) = (join(b"k"), join(b"k"), join(b"k"), join(b"other"));
        assert!(first.is_first() && !second.is_first() && elsewhere.is_first());
        for topic in [Topic::Key(b"k"[..].into()), Topic::LockDelay(b"k"[..].into())] {
            queues.wake(&touched(topic));
            assert!(heard(&first) && !heard(&second) && !heard(&third) && !heard(&elsewhere));
        }
        drop(second);
        assert!(!heard(&first));
        drop(first);
        assert!(third.is_first() && heard(&third));
        queues.wake(&touched(Topic::Key(b"kk"[..].into())));
        assert!(!heard(&third));
        drop((third, elsewhere));
        let left = queues.0.borrow();
        assert!(left.lines.is_empty() && left.watchers.is_empty() && left.bytes == 0);
    }

    #[test]
    fn large_values_find_no_room_at_last() {
        let queues = LockQueues::default();
        let places: Vec<Place> = std::iter::from_fn(|| queues.join(b"k", 1 << 20)).take(1000).collect();
        assert_eq!(places.len(), limits::LOCK_BYTES_MAX / ((1 << 20) + 1));
        assert!(queues.join(b"k", 0).is_some());
        drop(places);
        assert!(queues.join(b"k", 1 << 20).is_some());
    }
}
