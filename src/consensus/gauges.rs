//! What every core may know of consensus without asking the control core: a few numbers, and the standing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use muster_protocol::entry::Now;

use super::replica::{Indexes, Replica};
use super::standing::Standing;
use super::status::Contact;
use crate::runtime::publish::Published;
use crate::runtime::time;

/// Written by the control core, read by all.
pub(super) struct Gauges {
    /// The origin of [`Now`] in this process.
    origin: Instant,
    /// Until when default reads need nobody, ns; 0: not at all, [`ENDLESS`]: this is the only voter.
    lease_until: AtomicU64,
    /// Whether this server leads.
    leads: AtomicBool,
    /// Whether a leader is known.
    known_leader: AtomicBool,
    /// When the leader's word came that the published state is as new as, ns; 0: never.
    contact_at: AtomicU64,
    /// The published state is that of a snapshot from an earlier life: old, but a state.
    restored: AtomicBool,
    last: AtomicU64,
    last_term: AtomicU64,
    commit: AtomicU64,
    applied: AtomicU64,
    /// How long writes and reads wait for a leader, ms.
    hold_ms: AtomicU64,
    standing: Published<Standing>,
}

const ENDLESS: u64 = u64::MAX;

/// Age of a state of which no leader was heard in this life: what Consul says then, the largest there is in its kind.
const NEVER_HEARD: Duration = Duration::from_nanos(i64::MAX as u64);

impl Gauges {
    /// Of a server that has not started.
    pub fn new(hold: Duration) -> Gauges {
        Gauges {
            origin: time::now(),
            lease_until: AtomicU64::new(0),
            leads: AtomicBool::new(false),
            known_leader: AtomicBool::new(false),
            contact_at: AtomicU64::new(0),
            restored: AtomicBool::new(false),
            last: AtomicU64::new(0),
            last_term: AtomicU64::new(0),
            commit: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            hold_ms: AtomicU64::new(hold.as_millis() as u64),
            standing: Published::new(Standing { blank: true, ..Standing::default() }),
        }
    }

    /// The clock of the replica.
    pub fn now(&self) -> Now {
        // Zero means "never" in the gauges.
        time::now().saturating_duration_since(self.origin).max(Duration::from_nanos(1))
    }

    /// A moment of the replica's clock on ours.
    pub fn instant(&self, at: Now) -> Option<Instant> {
        self.origin.checked_add(at)
    }

    /// How long a write or a read waits for a leader.
    pub fn hold(&self) -> Duration {
        Duration::from_millis(self.hold_ms.load(Ordering::Relaxed))
    }

    pub fn set_hold(&self, hold: Duration) {
        self.hold_ms.store(hold.as_millis() as u64, Ordering::Relaxed);
    }

    /// How reads stand. Reads the clock only where a lease or an age is told, and then after the caller's request came.
    pub fn contact(&self) -> Contact {
        let lease_until = self.lease_until.load(Ordering::Acquire);
        if lease_until == ENDLESS {
            let last = Some(Duration::ZERO);
            return Contact { has_server: true, known_leader: true, leads: true, alone: true, last };
        }
        let now = self.now();
        let heard = match (self.leads.load(Ordering::Relaxed), self.contact_at.load(Ordering::Relaxed)) {
            (true, _) => Some(Duration::ZERO),
            (false, 0) => self.restored.load(Ordering::Relaxed).then_some(NEVER_HEARD),
            (false, at) => Some(now.saturating_sub(Duration::from_nanos(at))),
        };
        Contact {
            has_server: true,
            known_leader: self.known_leader.load(Ordering::Relaxed),
            leads: now < Duration::from_nanos(lease_until),
            alone: false,
            last: heard,
        }
    }

    /// Whether this server is the only voter, and leads.
    pub fn is_alone(&self) -> bool {
        self.lease_until.load(Ordering::Relaxed) == ENDLESS
    }

    /// The standing as of now.
    pub fn standing(&self) -> Standing {
        let mut standing = Standing::clone(&self.standing.load());
        standing.last_log_index = self.last.load(Ordering::Relaxed);
        standing.last_log_term = self.last_term.load(Ordering::Relaxed);
        standing.commit_index = self.commit.load(Ordering::Relaxed);
        standing.applied_index = self.applied.load(Ordering::Relaxed);
        standing.last_contact = self.contact().last.filter(|age| *age < NEVER_HEARD);
        standing
    }

    pub fn set_standing(&self, standing: Standing) {
        self.standing.store(standing);
    }

    /// Before the effects of a step: a lease that has become shorter must not be seen once others may lead.
    pub fn shorten_lease(&self, replica: &Replica) {
        let until = nanos(replica.lease());
        if until < self.lease_until.load(Ordering::Relaxed) {
            self.lease_until.store(until, Ordering::Release);
        }
    }

    /// After them: the state that they published is what the numbers speak of.
    pub fn update(&self, replica: &Replica) {
        let Indexes { last, last_term, commit, applied } = replica.indexes();
        self.last.store(last, Ordering::Relaxed);
        self.last_term.store(last_term, Ordering::Relaxed);
        self.commit.store(commit, Ordering::Relaxed);
        self.applied.store(applied, Ordering::Relaxed);
        self.leads.store(replica.leads(), Ordering::Relaxed);
        self.known_leader.store(replica.leader().is_some(), Ordering::Relaxed);
        self.contact_at.store(nanos(replica.contact()), Ordering::Relaxed);
        self.lease_until.store(nanos(replica.lease()), Ordering::Release);
    }

    /// A lone voter that begins with nothing: whatever is read is as fresh as can be from the start.
    pub fn presume_lone(&self, standing: Standing) {
        self.leads.store(true, Ordering::Relaxed);
        self.known_leader.store(true, Ordering::Relaxed);
        self.set_standing(standing);
        self.lease_until.store(ENDLESS, Ordering::Release);
    }

    /// A state was read from the disk and published. Stale reads need no more: they are answered while the log is replayed, and
    /// when no leader is ever found.
    pub fn set_restored(&self) {
        self.restored.store(true, Ordering::Relaxed);
    }

    /// Nobody answers any more.
    pub fn stop(&self) {
        self.lease_until.store(0, Ordering::Release);
        self.known_leader.store(false, Ordering::Relaxed);
    }
}

fn nanos(at: Option<Now>) -> u64 {
    at.map_or(0, |at| u64::try_from(at.as_nanos()).unwrap_or(ENDLESS))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stale reads waited for a leader after each start, and failed where there was none.
    #[test]
    fn a_state_of_an_earlier_life_is_as_old_as_can_be_and_nobody_s_word() {
        let gauges = Gauges::new(Duration::from_secs(7));
        assert_eq!(gauges.contact().last, None, "a blank server knows nothing");
        gauges.set_restored();
        assert_eq!(gauges.contact().last.map(|age| age.as_millis()), Some(9_223_372_036_854));
        assert!(!gauges.contact().known_leader && !gauges.contact().leads);
        assert_eq!(gauges.standing().last_contact, None);
    }
}
