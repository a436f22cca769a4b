//! One holder at a time: the key `PREFIX/.lock`, held by its session.

use super::ask::{Agent, Trouble};
use super::slot::{Cleanup, LOCK_KEY, NO_INDEX_REST, RETRY, Slot, Taken, Waiting, acquire, join, monitored};

/// Marks a key as a lock (Consul: `LockFlagValue`).
const FLAGS: u64 = 0x2ddc_cbc0_58a5_0c18;
/// What is said of a key with other flags.
const CONFLICT: &str = "Existing key does not match lock use";

/// A lock.
pub struct Mutex {
    key: String,
}

impl Mutex {
    /// The lock under a prefix.
    pub fn new(prefix: &str) -> Mutex {
        Mutex { key: join(prefix, LOCK_KEY) }
    }

    /// Its key.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl Slot for Mutex {
    fn take(&self, waiting: &Waiting<'_>) -> Result<Option<Taken>, Trouble> {
        let (agent, session) = (waiting.agent, waiting.session);
        // Whether the server wakes whoever is next; until it has said so, both ways are tried.
        let mut waits = None;
        let mut since = 0;
        while let Some(turn) = waiting.turn() {
            let seen = waiting.insist(|| {
                let wait = (since > 0).then_some((since, waiting.turn().unwrap_or(turn)));
                agent.rows(&self.key, &[], wait)
            });
            let Some((rows, index)) = seen.map_err(Trouble::of("failed to read lock"))? else { break };
            let row = rows.into_iter().next();
            let holder = match row {
                Some(row) if row.flags != FLAGS => return Err(Trouble::lasting(CONFLICT)),
                Some(row) if row.session == session => {
                    return Ok(Some(Taken { fence: Some(row.modify_index) }));
                }
                Some(row) => row.session,
                None => String::new(),
            };
            if !holder.is_empty() {
                (waiting.held_by)(std::slice::from_ref(&holder));
                if waits == Some(false) {
                    since = index;
                    if index == 0 && !waiting.rests(NO_INDEX_REST) {
                        break;
                    }
                    continue;
                }
            }
            since = 0;
            let wait = (waits != Some(false)).then_some(turn);
            let taken = waiting.insist(|| acquire(agent, &self.key, session, FLAGS, wait));
            let taken = taken.map_err(Trouble::of("failed to acquire lock"))?;
            let Some((is_taken, knows)) = taken else { break };
            waits = Some(knows);
            if is_taken {
                // Read once more, for the number of this acquisition.
                continue;
            }
            // Free, and yet it cannot be taken: it is closed for a while after its last holder's end.
            if !knows && holder.is_empty() && !waiting.rests(RETRY) {
                break;
            }
        }
        Ok(None)
    }

    fn look(&self, agent: &Agent, session: &str, since: u64) -> Result<Option<u64>, Trouble> {
        let (rows, index) = monitored(agent, &self.key, false, since)?;
        Ok(rows.first().is_some_and(|row| row.session == session).then_some(index))
    }

    fn release(&self, agent: &Agent, session: &str) -> Result<(), Trouble> {
        let flags = FLAGS.to_string();
        let query = [("release", session), ("flags", flags.as_str())];
        let released = agent.is_done("PUT", &format!("/v1/kv/{}", self.key), &query, &[]);
        released.map(drop).map_err(Trouble::of("failed to release lock"))
    }

    fn cleanup(&self, agent: &Agent) -> Result<(), Cleanup> {
        let rows = agent.rows(&self.key, &[], None).map_err(Trouble::of("failed to read lock"))?.0;
        let Some(row) = rows.first() else { return Ok(()) };
        if row.flags != FLAGS {
            return Err(Trouble::lasting(CONFLICT).into());
        }
        if !row.session.is_empty() {
            return Err(Cleanup::InUse);
        }
        let index = row.modify_index.to_string();
        let path = format!("/v1/kv/{}", self.key);
        let removed = agent.is_done("DELETE", &path, &[("cas", &index)], &[]);
        match removed.map_err(Trouble::of("failed to remove lock"))? {
            true => Ok(()),
            false => Err(Cleanup::InUse),
        }
    }

    fn testament(&self, session: &str) -> (Vec<String>, String) {
        let words = ["kv", "put", "-release", &format!("-session={session}"), &format!("-flags={FLAGS}")];
        (words.map(str::to_owned).to_vec(), self.key.clone())
    }
}
