//! What the leader measures for sessions: the time to live of each, and the lock-delays of keys. No clock, no task: time comes in as a
//! value, and what is to be written comes out.
//!
//! A session's time counts from when its creation was seen here or its last renewal arrived, whichever leader is here anew counts all of
//! them from its own beginning. Time in which this process did not run does not count: renewals that came
//! meanwhile lie in its sockets. So the end comes late, never early; and a leader that was replaced without knowing it cannot
//! end anything ([`SessionOp::Expire`] says what its writer had seen).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::store::State;
use crate::store::command::{DelayEnd, SessionOp};

/// How often [`Timers::turn`] is to be called while there is something to measure.
pub const TURN: Duration = Duration::from_millis(100);
/// Turns that come later than this were held up: the time beyond does not count.
const LATE: Duration = Duration::from_millis(300);
/// Clocks run at different rates. NTP allows 500 ppm; this is thirty times as much.
const RATE_PART: u32 = 64;
/// The least that is waited beyond what was asked for, so that a renewal that is sent in time and takes its time on the way counts.
const SLACK: Duration = Duration::from_millis(250);
/// Sessions, or delays, that share a write at most.
const BATCH_MAX: usize = 1024;
/// Pause before a write that failed is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// What becomes of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Whoever asked may be told that it counts.
    Granted,
    /// Whoever asked may be told that there is no such session.
    Gone,
    /// Another server may lead, and measure without knowing of this renewal: a barrier must be passed, and this be asked again
    /// if this server still leads then.
    Unsure,
    /// The session's end is written already, and whether it will come is not known yet: to be asked again in a moment.
    Ending,
}

/// The time that is left to everything that has one.
#[derive(Debug, Default)]
pub struct Timers {
    leads: bool,
    /// When the last turn was.
    turned: Duration,
    /// The sessions' index that was followed to.
    index: Option<u64>,
    lives: BTreeMap<Arc<str>, Life>,
    ends: BTreeSet<(Duration, Arc<str>)>,
    delays: BTreeMap<Arc<[u8]>, Delay>,
}

#[derive(Clone, Copy, Debug)]
struct Life {
    /// Its whole time, slack included.
    length: Duration,
    end: Duration,
    /// Its end is proposed.
    ending: bool,
}

#[derive(Clone, Copy, Debug)]
struct Delay {
    since: u64,
    end: Duration,
    ending: bool,
}

impl Timers {
    /// Of a server that does not lead.
    pub fn new() -> Timers {
        Timers::default()
    }

    /// This server leads, and `state` has all that earlier leaders committed: everything is counted from now.
    pub fn begin(&mut self, now: Duration, state: &State) {
        *self = Timers { leads: true, turned: now, ..Timers::default() };
        self.follow(now, state);
    }

    /// It leads no longer.
    pub fn end(&mut self) {
        *self = Timers::default();
    }

    /// Whether it counts for a leader.
    pub fn leads(&self) -> bool {
        self.leads
    }

    /// How many sessions have a time to live.
    pub fn len(&self) -> usize {
        self.lives.len()
    }

    /// Whether there is nothing to measure.
    pub fn is_empty(&self) -> bool {
        self.lives.is_empty() && self.delays.is_empty()
    }

    /// A renewal came in. `sure`: it is certain that no other server led when it came (a lease holds now, or a barrier was passed
    /// since). It counts from here in any case; that does no harm.
    pub fn renew(&mut self, now: Duration, id: &str, state: &State, sure: bool) -> Renewal {
        let found = state.session(id);
        if let Some(row) = found
            && let Some(life) = self.lives.get_mut(&*row.id)
        {
            if life.ending {
                return Renewal::Ending;
            }
            let id: Arc<str> = row.id.as_str().into();
            self.ends.remove(&(life.end, id.clone()));
            // A turn that is overdue will put all ends off by as much as it is late.
            life.end = now.min(self.turned + LATE) + life.length;
            self.ends.insert((life.end, id));
        }
        match found {
            _ if !sure => Renewal::Unsure,
            Some(_) => Renewal::Granted,
            None => Renewal::Gone,
        }
    }

    /// Looks what is over; to be called at least each [`TURN`], with the newest state that is given out. What comes out is to be
    /// proposed, and what became of it to be told to [`Timers::settled`].
    pub fn turn(&mut self, now: Duration, state: &State) -> Vec<SessionOp> {
        if !self.leads {
            return Vec::new();
        }
        let away = now.saturating_sub(self.turned);
        self.turned = now;
        if away > LATE {
            self.put_off(away - LATE);
        }
        if self.index != Some(state.sessions_index()) {
            self.follow(now, state);
        }
        let mut ops = Vec::new();
        let over = self.ends.range(..=(now, Arc::from("\u{10ffff}")));
        let over: Vec<Arc<str>> = over.map(|(_, id)| id.clone()).collect();
        for ids in over.chunks(BATCH_MAX) {
            for id in ids {
                if let Some(life) = self.lives.get_mut(id) {
                    life.ending = true;
                    self.ends.remove(&(life.end, id.clone()));
                }
            }
            let ids = ids.iter().map(|id| id.to_string()).collect();
            ops.push(SessionOp::Expire { ids, seen: state.index() });
        }
        let mut over = Vec::new();
        for (key, delay) in &mut self.delays {
            if !delay.ending && delay.end <= now {
                delay.ending = true;
                over.push(DelayEnd { key: key.to_vec(), since: delay.since });
            }
        }
        ops.extend(over.chunks(BATCH_MAX).map(|ends| SessionOp::EndDelays(ends.to_vec())));
        ops
    }

    /// What [`Timers::turn`] wanted is applied, or will not be, or nobody knows: what is still there then, is ended again
    /// after a pause.
    pub fn settled(&mut self, now: Duration, op: &SessionOp, state: &State) {
        match op {
            SessionOp::Expire { ids, .. } => {
                for id in ids {
                    let Some((id, life)) = self.lives.get_key_value(id.as_str()) else { continue };
                    let (id, mut life) = (id.clone(), *life);
                    if state.session(&id).is_none() {
                        self.lives.remove(&id);
                    } else if life.ending {
                        (life.ending, life.end) = (false, now + RETRY);
                        self.ends.insert((life.end, id.clone()));
                        self.lives.insert(id, life);
                    }
                }
            }
            SessionOp::EndDelays(ends) => {
                for DelayEnd { key, .. } in ends {
                    let Some(delay) = self.delays.get_mut(&key[..]) else { continue };
                    if state.lock_delay(key).is_none() {
                        self.delays.remove(&key[..]);
                    } else if delay.ending {
                        (delay.ending, delay.end) = (false, now + RETRY);
                    }
                }
            }
            SessionOp::Create(_) | SessionOp::Destroy { .. } => {}
        }
    }

    /// Takes in what has come and drops what has gone.
    fn follow(&mut self, now: Duration, state: &State) {
        self.index = Some(state.sessions_index());
        let mut lives = BTreeMap::new();
        for row in state.sessions().filter(|row| row.ttl_ns > 0) {
            let id: Arc<str> = row.id.as_str().into();
            let known = self.lives.remove(&id);
            let life = known.unwrap_or_else(|| {
                let length = with_slack(row.ttl_ns);
                let life = Life { length, end: now + length, ending: false };
                self.ends.insert((life.end, id.clone()));
                life
            });
            lives.insert(id, life);
        }
        for (id, life) in std::mem::replace(&mut self.lives, lives) {
            self.ends.remove(&(life.end, id));
        }
        let mut delays = BTreeMap::new();
        for (key, delay) in state.lock_delays() {
            let key: Arc<[u8]> = key.into();
            let known = self.delays.get(&key).filter(|known| known.since == delay.since).copied();
            let fresh =
                Delay { since: delay.since, end: now + with_slack(delay.length_ns), ending: false };
            delays.insert(key, known.unwrap_or(fresh));
        }
        self.delays = delays;
    }

    /// This process did not run for so long.
    fn put_off(&mut self, by: Duration) {
        let ends = std::mem::take(&mut self.ends);
        self.ends = ends.into_iter().map(|(end, id)| (end + by, id)).collect();
        self.lives.values_mut().for_each(|life| life.end += by);
        // A clock that leapt looks the same as a process that stood still.
        self.delays.values_mut().for_each(|delay| delay.end += by);
    }
}

/// A length that nobody's clock can find too short.
fn with_slack(ns: i64) -> Duration {
    let length = Duration::from_nanos(ns.max(0).unsigned_abs());
    length.saturating_add((length / RATE_PART).max(SLACK))
}
