//! What holders of locks believe by their own clocks, held against each other and against the servers' states.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster::store::State;
use muster::store::model::{Behavior, Status};

use super::names::{lock_name, session_name, session_number};
use crate::clients::value_of;
use crate::clock::Clock;
use crate::queue::Time;

/// A broken rule and the story of how.
pub type Broken = (&'static str, String);

const FAILS: &str = "what fails changes nothing";

/// Rates of clocks differ by a few percent here; what is measured with one of them is judged with that much patience.
const RATES: f64 = 0.95;

/// A session from the day it was asked for.
pub struct Session {
    /// What it was asked to live for without a renewal, by whichever clock.
    pub ttl: Time,
    /// Its lock-delay.
    pub delay: Time,
    /// What becomes of its keys.
    pub behavior: Behavior,
    /// Whether nothing but time and its holder can end it: its node stays, and it hangs on no check.
    pub bare: bool,
    /// Until when its holder believes in it, in virtual time; nothing before the creation was answered.
    pub lease: Time,
    /// When its holder asked for its end.
    pub destroyed: Option<Time>,
    /// When a server first showed a state in which it is there, and one in which it is gone.
    pub seen: Option<Time>,
    /// See `seen`.
    pub gone: Option<Time>,
    /// When renewals of it reached each server's sockets last.
    pub reached: BTreeMap<usize, Time>,
}

/// A holder's belief that it has a lock.
#[derive(Clone, Debug)]
struct Claim {
    session: usize,
    from: Time,
    /// When the holder gave it up by itself.
    given_up: Option<Time>,
    /// The fencing number: the key's modify index when it was acquired.
    fence: u64,
}

/// A key as it was seen last.
#[derive(Clone, Debug, Default)]
struct Seen {
    session: String,
    create: u64,
    lock_index: u64,
    modify: u64,
    /// No session may have it before this moment.
    delayed_until: Time,
    delayed_by: String,
}

/// The record.
#[derive(Default)]
pub struct Judge {
    /// All sessions there ever were.
    pub sessions: Vec<Session>,
    claims: BTreeMap<u32, Vec<Claim>>,
    seen: BTreeMap<u32, Seen>,
    /// The newest state that was looked at.
    newest: u64,
    /// Requests that wrote a lock in some state, and those that were told not to have.
    wrote: BTreeSet<u64>,
    failed: BTreeSet<u64>,
    /// When a server proposed the end of a session last.
    ended: BTreeMap<(usize, usize), Time>,
}

impl Judge {
    /// A client was told that its request changed nothing.
    ///
    /// # Errors
    /// It has.
    pub fn fails(&mut self, request: u64) -> Result<(), Broken> {
        self.failed.insert(request);
        match self.wrote.contains(&request) {
            true => Err((FAILS, format!("request {request} failed and is in a lock"))),
            false => Ok(()),
        }
    }

    /// A holder was told that it has a lock.
    ///
    /// # Errors
    /// Another one believes the same, or the fencing number does not grow.
    pub fn claims(&mut self, now: Time, key: u32, session: usize, fence: u64) -> Result<(), Broken> {
        let sessions = &self.sessions;
        let list = self.claims.entry(key).or_default();
        for other in list.iter() {
            if other.session != session && end_of(sessions, other) > now {
                return Err((
                    "no two hold one lock",
                    format!(
                        "session {session} is told at {now} that it has key {key} (index {fence}), and {} believes so until {}: {other:?}",
                        other.session,
                        end_of(sessions, other)
                    ),
                ));
            }
            if other.fence >= fence {
                let story = format!("session {session} got key {key} at index {fence}, after {other:?}");
                return Err(("the fencing index grows", story));
            }
        }
        // The same session may acquire again what it has: one belief goes on in the next.
        list.retain(|other| other.session != session || other.given_up.is_some());
        list.push(Claim { session, from: now, given_up: None, fence });
        Ok(())
    }

    /// A holder believes in its session for longer.
    ///
    /// # Errors
    /// Then two believe that they have a lock; or the session has been taken from it already.
    pub fn extends(&mut self, now: Time, session: usize, lease: Time) -> Result<(), Broken> {
        let this = &mut self.sessions[session];
        this.lease = this.lease.max(lease);
        if this.bare
            && this.destroyed.is_none()
            && let Some(gone) = this.gone
            && gone < this.lease
        {
            let story =
                format!("session {session} is renewed at {now} until {lease}, and was gone at {gone}");
            return Err(("no session ends before its time", story));
        }
        let sessions = &self.sessions;
        for (key, list) in &self.claims {
            let Some(own) = list.iter().find(|claim| claim.session == session && claim.given_up.is_none())
            else {
                continue;
            };
            let end = end_of(sessions, own);
            let clash = list.iter().find(|other| {
                other.session != session && other.from < end && end_of(sessions, other) > own.from
            });
            if let Some(other) = clash {
                let story = format!(
                    "renewed at {now}, session {session} believes that it has key {key} until {end}: {other:?}"
                );
                return Err(("no two hold one lock", story));
            }
        }
        Ok(())
    }

    /// A holder gives up a lock, or all of its session.
    pub fn gives_up(&mut self, now: Time, session: usize, key: Option<u32>) {
        let lists = self.claims.iter_mut().filter(|(of, _)| key.is_none_or(|key| key == **of));
        for claim in lists.flat_map(|(_, list)| list) {
            if claim.session == session && claim.given_up.is_none() {
                claim.given_up = Some(now);
            }
        }
    }

    /// The keys that a session believes to have, as far as its lease goes.
    pub fn held_by(&self, session: usize) -> Vec<u32> {
        let holds =
            |list: &Vec<Claim>| list.iter().any(|claim| claim.session == session && claim.given_up.is_none());
        self.claims.iter().filter(|(_, list)| holds(list)).map(|(key, _)| *key).collect()
    }

    /// A server proposes the end of sessions.
    ///
    /// # Errors
    /// A renewal had reached it in time.
    pub fn expires(&mut self, now: Time, server: usize, clock: &Clock, ids: &[String]) -> Result<(), Broken> {
        for session in ids.iter().filter_map(|id| session_number(id)) {
            self.ended.insert((server, session), now);
            if let Some(reached) = self.sessions[session].reached.get(&server) {
                self.compare(server, clock, session, *reached, now)?;
            }
        }
        Ok(())
    }

    /// A server hears a renewal that reached its sockets at `at`.
    ///
    /// # Errors
    /// It has proposed the end of that session meanwhile: it was away, and did not look what waited for it.
    pub fn reaches(&mut self, at: Time, server: usize, clock: &Clock, session: usize) -> Result<(), Broken> {
        let reached = self.sessions[session].reached.entry(server).or_default();
        *reached = at.max(*reached);
        match self.ended.get(&(server, session)) {
            Some(ended) if at <= *ended => self.compare(server, clock, session, at, *ended),
            _ => Ok(()),
        }
    }

    fn compare(
        &self,
        server: usize,
        clock: &Clock,
        session: usize,
        reached: Time,
        ended: Time,
    ) -> Result<(), Broken> {
        let ttl = self.sessions[session].ttl;
        if clock.local(ended).saturating_sub(clock.local(reached)) >= Duration::from_nanos(ttl) {
            return Ok(());
        }
        let story = format!(
            "s{server} ends session {session} at {ended} (TTL {ttl}), and a renewal had reached it at {reached}"
        );
        Err(("no session ends while its renewals wait at the leader", story))
    }

    /// A server shows a state.
    ///
    /// # Errors
    /// It cannot be.
    pub fn looks_at(&mut self, now: Time, keys: u32, state: &State) -> Result<(), Broken> {
        self.check_locks(keys, state)?;
        if state.index() <= self.newest {
            return Ok(());
        }
        let next = state.index() == self.newest + 1;
        self.newest = state.index();
        self.check_sessions(state)?;
        self.note_writers(keys, state)?;
        self.note_sessions(now, state)?;
        for key in 0..keys {
            self.note_key(now, key, state, next)?;
        }
        Ok(())
    }

    /// Each lock is held by a session that is there, and each session knows what it holds.
    fn check_locks(&self, keys: u32, state: &State) -> Result<(), Broken> {
        const RULE: &str = "sessions and locks belong together";
        for key in 0..keys {
            let name = lock_name(key);
            let Some(entry) = state.kv(&name) else { continue };
            if entry.session.is_empty() {
                continue;
            }
            if state.session(&entry.session).is_none() {
                return Err((RULE, format!("key {key} is held by {}, which is gone", entry.session)));
            }
            if !state.locks_of(&entry.session).any(|held| *held == name[..]) {
                return Err((RULE, format!("session {} does not know of key {key}", entry.session)));
            }
        }
        Ok(())
    }

    /// Each session has its node, and its checks are well.
    fn check_sessions(&self, state: &State) -> Result<(), Broken> {
        for session in state.sessions() {
            let well = session.check_ids().all(|id| {
                let check = state.node_check(&session.node, id);
                check.is_some_and(|check| check.status != Status::Critical)
            });
            if state.node(&session.node).is_none() || !well {
                let story = format!("{session:?} at {}", state.index());
                return Err(("a session needs its node and well checks", story));
            }
        }
        Ok(())
    }

    /// What is in a lock was written by a request that did not fail.
    fn note_writers(&mut self, keys: u32, state: &State) -> Result<(), Broken> {
        for key in 0..keys {
            let Some(entry) = state.kv(&lock_name(key)) else { continue };
            let request = value_of(&entry.value) - 1;
            self.wrote.insert(request);
            if self.failed.contains(&request) {
                return Err((FAILS, format!("request {request} failed and is in lock {key}")));
            }
        }
        Ok(())
    }

    fn note_sessions(&mut self, now: Time, state: &State) -> Result<(), Broken> {
        for (number, session) in self.sessions.iter_mut().enumerate() {
            if session.gone.is_some() {
                continue;
            }
            match (session.seen, state.session(&session_name(number)).is_some()) {
                (None, true) => session.seen = Some(now),
                (Some(_), false) => {
                    session.gone = Some(now);
                    if session.bare && session.destroyed.is_none() && now < session.lease {
                        let story = format!(
                            "session {number} is gone at {now}, and its holder counts on it until {}",
                            session.lease
                        );
                        return Err(("no session ends before its time", story));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// `next`: nothing happened between this state and the one before. Otherwise a key may have been released before its
    /// holder went, and nothing follows from that.
    fn note_key(&mut self, now: Time, key: u32, state: &State, next: bool) -> Result<(), Broken> {
        let before = self.seen.get(&key).cloned().unwrap_or_default();
        let mut seen = before.clone();
        let entry = state.kv(&lock_name(key));
        (seen.session, seen.create, seen.lock_index, seen.modify) = entry
            .map_or_else(Default::default, |e| {
                (e.session.clone(), e.create_index, e.lock_index, e.modify_index)
            });
        let changed_hands = seen.session != before.session;
        if changed_hands && !seen.session.is_empty() {
            if seen.modify <= before.modify {
                let story = format!("key {key}: {before:?}, then {seen:?}");
                return Err(("the fencing index grows", story));
            }
            if seen.create == before.create && seen.lock_index <= before.lock_index {
                let story = format!("key {key}: {before:?}, then {seen:?}");
                return Err(("the lock index grows", story));
            }
            if now < before.delayed_until {
                let story = format!(
                    "key {key} is given to {} at {now}; {} left it with a delay until {}",
                    seen.session, before.delayed_by, before.delayed_until
                );
                return Err(("a lock-delay lasts", story));
            }
        }
        let left = next && changed_hands && !before.session.is_empty();
        if left && state.session(&before.session).is_none() {
            // Its session went while it had the key: no sooner than now anybody may have measured the delay from.
            let session = self.sessions.iter().enumerate().find(|(n, _)| session_name(*n) == before.session);
            if let Some((_, session)) = session {
                seen.delayed_until = now + (session.delay as f64 * RATES) as Time;
                seen.delayed_by = before.session.clone();
                let stays = entry.is_some();
                if stays != (session.behavior == Behavior::Release) && seen.session.is_empty() {
                    let story =
                        format!("key {key} of {}: {:?}, there: {stays}", before.session, session.behavior);
                    return Err(("keys go as their session wanted", story));
                }
                if !seen.session.is_empty() && session.delay > 0 {
                    let story = format!("key {key} went from {} to {} at once", before.session, seen.session);
                    return Err(("a lock-delay lasts", story));
                }
            }
        }
        self.seen.insert(key, seen);
        Ok(())
    }
}

/// Until when a holder believes in a claim.
fn end_of(sessions: &[Session], claim: &Claim) -> Time {
    let lease = sessions[claim.session].lease;
    claim.given_up.map_or(lease, |given_up| given_up.min(lease))
}
