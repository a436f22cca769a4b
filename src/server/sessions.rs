//! The time of sessions and of lock-delays, which the leader alone measures: it renews sessions without a write, expires
//! those that were not renewed, and ends lock-delays. Apply reads no clock, so both ends are commands.
//!
//! A client counts its session as alive until its TTL after it *sent* the last renewal that was answered (or the
//! creation). What keeps the two apart:
//! - the time begins anew when a renewal *arrives*, and the renewal is answered only once a majority has confirmed after that
//!   that this server still leads: whoever leads next begins later, with whole TTLs;
//! - a session whose end was proposed is not renewed any more: the renewal waits until it is gone;
//! - a proposed end counts for nothing once another leader has come ([`SessionOp::Expire`]), so none that waits in a queue or
//!   in a log somewhere can meet a session that the next leader has renewed;
//! - time in which this process did not run does not count ([`timers`]), and before anything is expired the lead is confirmed.

pub mod timers;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use self::timers::Timers;
use crate::consensus::{Consistency, Proposals, ProposeError};
use crate::runtime::publish::Published;
use crate::runtime::time;
use crate::store::State;
use crate::store::command::{Applied, Command, SessionOp};
use crate::store::model::Session;

/// How often the leader looks at the clock while it measures anything.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// The same while it measures nothing. The time of the first session begins that much late at most.
const IDLE_INTERVAL: Duration = Duration::from_millis(500);
/// How often a server looks whether it leads now.
const LEAD_INTERVAL: Duration = Duration::from_millis(250);
/// How often a renewal looks again that cannot be decided yet, and for how long it does.
const RENEW_PAUSE: Duration = Duration::from_millis(20);
const RENEW_LIMIT: Duration = Duration::from_secs(5);
/// Sessions, or keys, that one command ends at most; and how many bytes its keys may have together.
const ENDED_MAX: usize = 512;
const ENDED_BYTES_MAX: usize = 1 << 20;

/// See the module. Clones are handles to the same.
#[derive(Clone)]
pub struct Sessions(Rc<Shared>);

struct Shared {
    state: Published<State>,
    proposals: Proposals,
    /// While this server leads: its term, and what it measures.
    lead: RefCell<Option<Lead>>,
}

struct Lead {
    term: u64,
    timers: Timers,
}

/// Why a session was not renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unrenewed {
    /// This server does not lead.
    NotLeader,
    /// It is being expired, and nobody knows yet whether that comes true.
    Undecided,
}

impl Sessions {
    /// From what the control core has.
    pub fn new(state: Published<State>, proposals: Proposals) -> Sessions {
        Sessions(Rc::new(Shared { state, proposals, lead: RefCell::default() }))
    }

    /// Measures whenever this server leads, for as long as it is polled.
    pub async fn run(self) {
        loop {
            if !self.0.proposals.standing().leads() {
                time::sleep(LEAD_INTERVAL).await;
                continue;
            }
            let led = self.0.measure().await;
            *self.0.lead.borrow_mut() = None;
            match led {
                Ok(()) => {}
                Err(ProposeError::Stopping) => return,
                Err(_) => time::sleep(LOOK_INTERVAL).await,
            }
        }
    }

    /// Renews a session, which lives on for its whole TTL from the moment of this call; `None` if there is no such session.
    ///
    /// # Errors
    /// Nobody can tell; the session was not renewed then, or its owner must not count on it.
    pub async fn renew(&self, id: &str) -> Result<Option<Arc<Session>>, Unrenewed> {
        let until = time::now() + RENEW_LIMIT;
        loop {
            match self.0.try_renew(id).await? {
                Renewal::Done(session) => return Ok(session),
                Renewal::Again if time::now() < until => time::sleep(RENEW_PAUSE).await,
                Renewal::Again => return Err(Unrenewed::Undecided),
            }
        }
    }
}

enum Renewal {
    Done(Option<Arc<Session>>),
    Again,
}

impl Shared {
    /// Measures until another server leads.
    async fn measure(&self) -> Result<(), ProposeError> {
        // What earlier leaders wrote must be here first, and this term's first entry: so the term is read before the barrier, which
        // is then one of its own.
        let term = self.proposals.standing().term;
        self.proposals.barrier(Consistency::Consistent).await?;
        let state = self.state.load_full();
        // Behind the look at the state: it holds nothing of a later leader then.
        if !self.leads_in(term) {
            return Ok(());
        }
        *self.lead.borrow_mut() = Some(Lead { term, timers: Timers::begin(time::now(), &state) });
        drop(state);
        while self.leads_in(term) {
            let (due, idle) = {
                let state = self.state.load_full();
                self.with_timers(|timers| {
                    timers.pass(time::now());
                    timers.follow(&state);
                    (!timers.due(1).is_empty(), timers.is_empty())
                })
            };
            // What cannot be written now is tried again at the next look: what was measured stays measured.
            let expired = if due { self.expire(term).await } else { Ok(()) };
            let ended = self.end_delays().await;
            for failed in [expired, ended].into_iter().filter_map(Result::err) {
                if failed == ProposeError::Stopping {
                    return Err(failed);
                }
                tracing::warn!(target: "agent.server", "the end of sessions or lock-delays is not written: {failed}; trying again");
            }
            time::sleep(if idle { IDLE_INTERVAL } else { LOOK_INTERVAL }).await;
        }
        Ok(())
    }

    async fn end_delays(&self) -> Result<(), ProposeError> {
        let ended = self.with_timers(|timers| timers.ended(ENDED_MAX, ENDED_BYTES_MAX));
        if ended.is_empty() {
            return Ok(());
        }
        self.proposals.propose(&Command::Session(SessionOp::EndDelays(ended))).await.map(drop)
    }

    fn with_timers<T>(&self, work: impl FnOnce(&mut Timers) -> T) -> T {
        let mut lead = self.lead.borrow_mut();
        work(&mut lead.as_mut().expect("whoever measures has begun to").timers)
    }

    /// Expires what is due still when the lead is confirmed.
    async fn expire(&self, term: u64) -> Result<(), ProposeError> {
        self.proposals.barrier(Consistency::Consistent).await?;
        // Whoever was replaced passes it too, by way of the next leader.
        if !self.leads_in(term) {
            return Ok(());
        }
        let (ids, seen) = self.with_timers(|timers| {
            let due = timers.due(ENDED_MAX);
            timers.doom(&due);
            (due, timers.basis())
        });
        if ids.is_empty() {
            return Ok(());
        }
        let count = ids.len();
        let command = Command::Session(SessionOp::Expire { ids, seen });
        match self.proposals.propose(&command).await {
            Ok(Applied::Condition(false)) => {}
            Ok(_) => tracing::info!(target: "agent.server", count, "the TTL of sessions has passed"),
            Err(failed) => {
                // It was not even proposed: they can be renewed again.
                if matches!(failed, ProposeError::TooBusy | ProposeError::TooLarge { .. })
                    && let Command::Session(SessionOp::Expire { ids, .. }) = &command
                {
                    self.with_timers(|timers| timers.spare(ids));
                }
                return Err(failed);
            }
        }
        Ok(())
    }

    async fn try_renew(&self, id: &str) -> Result<Renewal, Unrenewed> {
        if !self.proposals.standing().leads() {
            return Err(Unrenewed::NotLeader);
        }
        let Some(session) = self.state.load().session(id).cloned() else {
            // Other servers may know of one that is not here yet.
            self.confirm().await?;
            let gone = self.state.load().session(id).is_none();
            return Ok(if gone { Renewal::Done(None) } else { Renewal::Again });
        };
        let term = match &mut *self.lead.borrow_mut() {
            Some(lead) if !lead.timers.is_doomed(&session.id) => {
                lead.timers.renew(&session, time::now());
                lead.term
            }
            _ => return Ok(Renewal::Again),
        };
        self.confirm().await?;
        let lives = self.state.load().session(id).is_some();
        let holds = match &*self.lead.borrow() {
            Some(lead) => lead.term == term && self.leads_in(term) && !lead.timers.is_doomed(&session.id),
            None => false,
        };
        Ok(match (lives, holds) {
            (false, _) => Renewal::Done(None),
            (true, true) => Renewal::Done(Some(session)),
            (true, false) => Renewal::Again,
        })
    }

    fn leads_in(&self, term: u64) -> bool {
        let standing = self.proposals.standing();
        standing.leads() && standing.term == term
    }

    async fn confirm(&self) -> Result<(), Unrenewed> {
        self.proposals.barrier(Consistency::Consistent).await.map_err(|_| Unrenewed::NotLeader)
    }
}
