//! The session of a lock, and how long what it holds is ours.
//!
//! The rule: the lease counts from the moment, by a clock that nobody sets and that runs while the machine is suspended, at
//! which the last renewal *was sent* that succeeded. Servers count from a later moment, so they cannot give the lock to another
//! before min(TTL, lock-delay) after ours: the session is not expired before its TTL is over, and if it ends for another reason (its
//! node's health, an operator), what it held cannot be taken before the lock-delay is over. By then the child is dead.

use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::Event;
use super::ask::{Agent, PATIENCE, Trouble};
use crate::runtime::child::{Child, Lease};
use crate::runtime::time::boot_now;

/// Time to live of the session (Consul: `DefaultLockSessionTTL`).
pub const TTL: Duration = Duration::from_secs(15);
/// How long what a session held stays closed after its end (Consul's default).
pub const LOCK_DELAY: Duration = Duration::from_secs(15);
/// Between SIGTERM and SIGKILL (Consul: `lockKillGracePeriod`).
pub const GRACE: Duration = Duration::from_secs(5);
/// How long before the others may have the lock the child is killed: for clocks of different rates and for a machine that is
/// slow to kill.
const MARGIN: Duration = Duration::from_secs(3);
/// How often a holder renews: two renewals may fail before the child has to go.
const RENEW_HELD: Duration = Duration::from_secs(2);
/// How often one that waits renews (Consul renews after half the TTL, always).
const RENEW_WAITING: Duration = Duration::from_millis(7_500);
/// Between a failed renewal and the next.
const RENEW_AGAIN: Duration = Duration::from_millis(500);
/// How long a renewal may take.
const RENEW_PATIENCE: Duration = Duration::from_secs(2);

const _: () = assert!(LOCK_DELAY.as_secs() >= TTL.as_secs(), "the lease is the shorter of both");
// Ours may be a tenth too slow and the leader's a tenth too fast: we are done before it begins to think of others.
const _: () = assert!((TTL.as_millis() - MARGIN.as_millis()) * 10 / 9 <= TTL.as_millis() * 10 / 11);
const _: () = assert!(2 * RENEW_HELD.as_millis() + MARGIN.as_millis() + GRACE.as_millis() < TTL.as_millis());

/// What a session does to its keys when it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behavior {
    /// They are freed, and closed for the lock-delay. It ends with its node's health, too.
    Release,
    /// They are deleted, and nothing is closed after that: so it must not end before its TTL is over, and has no checks.
    Delete,
}

/// The lease that follows from a renewal.
fn lease_of(sent: Duration) -> Lease {
    let kill_at = sent + TTL - MARGIN;
    Lease { stop_at: kill_at - GRACE, kill_at }
}

/// Keeps a session alive, and a child with it.
pub struct Keeper {
    agent: Agent,
    /// The session.
    pub id: String,
    state: Mutex<State>,
    bell: Condvar,
    events: SyncSender<Event>,
}

struct State {
    /// When the last renewal was sent that succeeded.
    sent: Duration,
    child: Option<Arc<Child>>,
    holds: bool,
    ended: bool,
}

impl Keeper {
    /// Makes a session and begins to renew it.
    pub fn begin(
        agent: Agent,
        name: &str,
        behavior: Behavior,
        events: SyncSender<Event>,
    ) -> Result<Arc<Keeper>, Trouble> {
        #[derive(Deserialize)]
        struct Made {
            #[serde(rename = "ID")]
            id: String,
        }
        let mut wish = json!({
            "Name": name,
            "TTL": format!("{}s", TTL.as_secs()),
            "LockDelay": format!("{}s", LOCK_DELAY.as_secs()),
        });
        if behavior == Behavior::Delete {
            wish["Behavior"] = json!("delete");
            wish["NodeChecks"] = json!([]);
        }
        let sent = boot_now();
        let body = wish.to_string();
        let answer = agent.ask("PUT", "/v1/session/create", &[], body.as_bytes(), PATIENCE)?.ok()?;
        let made: Made =
            serde_json::from_slice(&answer.body).map_err(|why| Trouble::lasting(why.to_string()))?;
        let keeper = Arc::new(Keeper {
            agent,
            id: made.id,
            state: Mutex::new(State { sent, child: None, holds: false, ended: false }),
            bell: Condvar::new(),
            events,
        });
        let renewing = keeper.clone();
        thread::spawn(move || renewing.renew());
        Ok(keeper)
    }

    /// The lease as it is.
    pub fn lease(&self) -> Lease {
        lease_of(self.lock().sent)
    }

    /// Whether the session may live still, as far as we know.
    pub fn may_live(&self) -> bool {
        boot_now() < self.lock().sent + TTL
    }

    /// The lock is held now: renews at once, so that the child begins with a whole lease, and more often from now on. Whether the
    /// session lives: we may have stood still since the lock was taken.
    pub fn hold(&self) -> bool {
        let agent = self.agent.apart();
        loop {
            if let Ok(lives) = self.renew_once(&agent) {
                self.lock().holds = lives;
                self.bell.notify_all();
                return lives;
            }
            if !self.may_live() {
                return false;
            }
            agent.rests(RENEW_AGAIN);
        }
    }

    /// From now on the child's lease is extended.
    pub fn keep(&self, child: Arc<Child>) {
        let mut state = self.lock();
        child.extend(lease_of(state.sent));
        state.child = Some(child);
    }

    /// Ends the session. What it holds is closed for the lock-delay: it should hold nothing.
    pub fn end(&self) {
        self.lock().ended = true;
        self.bell.notify_all();
        self.agent.halt();
        // If nobody takes it, the session ends by itself.
        let path = format!("/v1/session/destroy/{}", self.id);
        let _ = self.agent.apart().ask("PUT", &path, &[], &[], RENEW_PATIENCE);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The renewing thread.
    fn renew(&self) {
        loop {
            let state = self.lock();
            let is_due = |state: &State| {
                let every = if state.holds { RENEW_HELD } else { RENEW_WAITING };
                (state.sent + every).saturating_sub(boot_now())
            };
            let mut rest = is_due(&state);
            if rest.is_zero() {
                rest = RENEW_AGAIN;
                if state.ended {
                    return;
                }
                drop(state);
                match self.renew_once(&self.agent) {
                    Ok(true) => continue,
                    Ok(false) => return self.tell("the session is gone"),
                    Err(_) => {}
                }
                let state = self.lock();
                if state.holds && boot_now() >= lease_of(state.sent).stop_at {
                    drop(state);
                    return self.tell("the session could not be renewed in time");
                }
                drop(self.bell.wait_timeout(state, rest));
            } else {
                // Looked at each second: the clock of the condition stands still while the machine is suspended.
                drop(self.bell.wait_timeout_while(state, rest.min(Duration::from_secs(1)), |state| {
                    !state.ended && !is_due(state).is_zero()
                }));
            }
            if self.lock().ended {
                return;
            }
        }
    }

    /// Renews; false when there is no such session any more.
    fn renew_once(&self, agent: &Agent) -> Result<bool, Trouble> {
        let sent = boot_now();
        let path = format!("/v1/session/renew/{}", self.id);
        let answer = agent.ask("PUT", &path, &[], &[], RENEW_PATIENCE)?;
        if answer.status == 404 {
            return Ok(false);
        }
        answer.ok()?;
        let mut state = self.lock();
        state.sent = state.sent.max(sent);
        if let Some(child) = &state.child {
            child.extend(lease_of(state.sent));
        }
        Ok(true)
    }

    fn tell(&self, why: &str) {
        // Nobody listens any more when the lock has been given back.
        let _ = self.events.send(Event::Lost { session: self.id.clone(), why: why.to_owned() });
    }
}
