//! What `lock` takes: a mutex, or one of the places of a semaphore.
//!
//! The keys, their flags and values are those of Consul's clients, so that all of them exclude each other.

use std::time::{Duration, Instant};

use super::ask::{Agent, PATIENCE, Row, Trouble};

/// The key of the lock under its prefix (Consul: `DefaultSemaphoreKey`). A mutex has the same, so that one that is used as a
/// semaphore, too, is found out.
pub const LOCK_KEY: &str = ".lock";
/// How long servers wait at a time for a lock to be free (Consul: `DefaultLockWaitTime`).
pub const WAIT: Duration = Duration::from_secs(15);
/// Between attempts where the server cannot tell when the next one has a chance: in a lock-delay (Consul:
/// `DefaultLockRetryTime`).
pub const RETRY: Duration = Duration::from_secs(5);
/// Between questions, where answers have no index (somebody in between drops it): nothing can be waited for there.
pub const NO_INDEX_REST: Duration = Duration::from_secs(1);
/// How long the server waits for a change of what is held (Consul's default for all questions).
const LOOK: Duration = Duration::from_secs(300);

/// What is taken.
pub struct Taken {
    /// A number that is higher for each holder, where there is only one at a time: storage that remembers the highest one that
    /// it saw can refuse a former holder.
    pub fence: Option<u64>,
}

/// Why a cleanup did nothing.
pub enum Cleanup {
    /// Somebody uses it.
    InUse,
    /// It failed.
    Failed(Trouble),
}

impl From<Trouble> for Cleanup {
    fn from(trouble: Trouble) -> Cleanup {
        Cleanup::Failed(trouble)
    }
}

/// How one waits for a slot.
pub struct Waiting<'a> {
    /// The agent; halting it ends the wait.
    pub agent: &'a Agent,
    /// The session that takes it.
    pub session: &'a str,
    /// Until when.
    pub deadline: Option<Instant>,
    /// Whether the session may live still: as long as it does, failures may pass.
    pub may_live: &'a dyn Fn() -> bool,
    /// Is told who holds it, when that is looked at.
    pub held_by: &'a dyn Fn(&[String]),
}

impl Waiting<'_> {
    /// How long to wait at a time; `None` when there is no time left or nobody wants it any more.
    pub fn turn(&self) -> Option<Duration> {
        if self.agent.is_halted() {
            return None;
        }
        match self.deadline {
            None => Some(WAIT),
            // A wait of 0 would be the server's own for ever.
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now());
                (left >= Duration::from_millis(1)).then(|| left.min(WAIT))
            }
        }
    }

    /// Rests; false when the wait is over.
    pub fn rests(&self, rest: Duration) -> bool {
        let Some(left) = self.turn() else { return false };
        let rest = if self.deadline.is_some() { rest.min(left) } else { rest };
        !self.agent.rests(rest) && self.turn().is_some()
    }

    /// Does something again and again while its trouble may pass and the session may live. `None`: the wait is over.
    pub fn insist<T>(&self, attempt: impl Fn() -> Result<T, Trouble>) -> Result<Option<T>, Trouble> {
        loop {
            match attempt() {
                Ok(done) => return Ok(Some(done)),
                Err(_) if self.agent.is_halted() => return Ok(None),
                Err(trouble) if !trouble.passes || !(self.may_live)() => return Err(trouble),
                Err(_) => {}
            }
            if !self.rests(Duration::from_secs(1)) {
                return Ok(None);
            }
        }
    }
}

/// Something that a session can take.
pub trait Slot: Send + Sync {
    /// Takes it, as soon as that is possible; `None` when the wait is over. Trouble that passes has outlasted the session.
    fn take(&self, waiting: &Waiting<'_>) -> Result<Option<Taken>, Trouble>;

    /// Whether the session still has it, and the index of this answer; waits for an answer with another index.
    fn look(&self, agent: &Agent, session: &str, since: u64) -> Result<Option<u64>, Trouble>;

    /// Gives it back.
    fn release(&self, agent: &Agent, session: &str) -> Result<(), Trouble>;

    /// Removes its key if nobody uses it.
    fn cleanup(&self, agent: &Agent) -> Result<(), Cleanup>;

    /// The command that gives it back when we cannot: words after the program's name, the key last.
    fn testament(&self, session: &str) -> (Vec<String>, String);
}

/// Rows for whoever monitors: confirmed by a majority, and when `since` is not 0, when they have changed.
pub fn monitored(agent: &Agent, key: &str, recurse: bool, since: u64) -> Result<(Vec<Row>, u64), Trouble> {
    let query: &[(&str, &str)] =
        if recurse { &[("consistent", ""), ("recurse", "")] } else { &[("consistent", "")] };
    let seen = agent.rows(key, query, (since > 0).then_some((since, LOOK)))?;
    if seen.1 == 0 {
        agent.rests(NO_INDEX_REST);
    }
    Ok(seen)
}

/// Takes a key for a session. With `wait` the server may wait until it is free. Whether it was taken, and whether the server
/// knows how to wait.
pub fn acquire(
    agent: &Agent,
    key: &str,
    session: &str,
    flags: u64,
    wait: Option<Duration>,
) -> Result<(bool, bool), Trouble> {
    let flags = flags.to_string();
    let length;
    let mut query = vec![("acquire", session), ("flags", flags.as_str())];
    let mut limit = PATIENCE;
    if let Some(wait) = wait {
        length = format!("{}ms", wait.as_millis());
        query.push(("wait", &length));
        limit += wait;
    }
    let answer = agent.ask("PUT", &format!("/v1/kv/{key}"), &query, &[], limit)?;
    let waits = answer.waits;
    Ok((answer.ok()?.body.trim_ascii() == b"true", waits))
}

/// Go's `path.Join`: joined with a slash, and cleaned.
pub fn join(prefix: &str, name: &str) -> String {
    let whole = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
    let is_rooted = whole.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if is_rooted => {}
            other => parts.push(other),
        }
    }
    format!("{}{}", if is_rooted { "/" } else { "" }, parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_as_go_does() {
        for (prefix, name, whole) in [
            ("a/b", ".lock", "a/b/.lock"),
            ("a/b/", ".lock", "a/b/.lock"),
            ("a//b/./c/..", ".lock", "a/b/.lock"),
            ("", ".lock", ".lock"),
            ("../a", "x", "../a/x"),
            ("/a/../..", "x", "/x"),
        ] {
            assert_eq!(join(prefix, name), whole, "{prefix}");
        }
    }
}
