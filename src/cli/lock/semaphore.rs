//! Several holders at a time: each has a key `PREFIX/SESSION`, and `PREFIX/.lock` lists who holds a place.
//!
//! A holder whose session has ended has no key any more: whoever wants a place takes it off the list.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::ask::{Agent, Row, Trouble};
use super::slot::{Cleanup, LOCK_KEY, NO_INDEX_REST, Slot, Taken, Waiting, acquire, join, monitored};

/// Marks keys as those of a semaphore (Consul: `SemaphoreFlagValue`).
const FLAGS: u64 = 0xe0f6_9a2b_aa41_4de0;
/// What is said of a list with other flags.
const CONFLICT: &str = "Existing key does not match semaphore use";

/// A semaphore.
pub struct Semaphore {
    prefix: String,
    limit: i64,
}

/// The value of the list.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct List {
    limit: i64,
    /// Sessions; Go's null is an empty map.
    holders: Option<BTreeMap<String, bool>>,
}

/// What was read of a semaphore.
struct Seen {
    /// The index of the list's last write; 0 when there is none.
    written: u64,
    flags: u64,
    limit: i64,
    holders: BTreeMap<String, bool>,
}

impl Semaphore {
    /// The semaphore under a prefix with so many places.
    pub fn new(prefix: &str, limit: i64) -> Semaphore {
        Semaphore { prefix: prefix.to_owned(), limit }
    }

    fn list_key(&self) -> String {
        join(&self.prefix, LOCK_KEY)
    }

    /// Reads the list in a row.
    fn list(&self, row: Option<&Row>) -> Result<Seen, Trouble> {
        let mut seen = Seen { written: 0, flags: FLAGS, limit: self.limit, holders: BTreeMap::new() };
        let Some(row) = row else { return Ok(seen) };
        (seen.written, seen.flags) = (row.modify_index, row.flags);
        let Some(value) = row.value.as_deref().filter(|value| !value.is_empty()) else { return Ok(seen) };
        let undecoded = |why: String| Trouble::lasting(format!("lock decoding failed: {why}"));
        let bytes = STANDARD.decode(value).map_err(|why| undecoded(why.to_string()))?;
        let list: List = serde_json::from_slice(&bytes).map_err(|why| undecoded(why.to_string()))?;
        seen.limit = list.limit;
        seen.holders = list.holders.unwrap_or_default();
        Ok(seen)
    }

    /// Reads all rows under the prefix: the list, without those whose session has ended.
    fn seen(&self, rows: &[Row]) -> Result<Seen, Trouble> {
        let key = self.list_key();
        let mut seen = self.list(rows.iter().find(|row| row.key == key))?;
        seen.holders.retain(|holder, _| rows.iter().any(|row| row.session == *holder));
        Ok(seen)
    }

    /// Replaces the list, if nobody else has meanwhile.
    fn write(&self, agent: &Agent, seen: &Seen) -> Result<bool, Trouble> {
        let list = List { limit: seen.limit, holders: Some(seen.holders.clone()) };
        let body = serde_json::to_vec(&list).map_err(|why| Trouble::lasting(why.to_string()))?;
        let (index, flags) = (seen.written.to_string(), FLAGS.to_string());
        let query = [("cas", index.as_str()), ("flags", flags.as_str())];
        agent.is_done("PUT", &format!("/v1/kv/{}", self.list_key()), &query, &body)
    }
}

impl Slot for Semaphore {
    fn take(&self, waiting: &Waiting<'_>) -> Result<Option<Taken>, Trouble> {
        let (agent, session) = (waiting.agent, waiting.session);
        let contender = join(&self.prefix, session);
        let made = waiting.insist(|| acquire(agent, &contender, session, FLAGS, None));
        let making = "failed to make contender entry";
        match made.map_err(Trouble::of(making))? {
            Some((true, _)) => {}
            Some((false, _)) => return Err(Trouble::lasting(format!("{making}: <nil>"))),
            None => return Ok(None),
        }
        let mut since = 0;
        while let Some(turn) = waiting.turn() {
            let rows = waiting.insist(|| {
                let wait = (since > 0).then_some((since, waiting.turn().unwrap_or(turn)));
                agent.rows(&self.prefix, &[("recurse", "")], wait)
            });
            let Some((rows, index)) = rows.map_err(Trouble::of("failed to read prefix"))? else { break };
            let mut seen = self.seen(&rows)?;
            if seen.flags != FLAGS {
                return Err(Trouble::lasting(CONFLICT));
            }
            if seen.limit != self.limit {
                let limits = format!("(lock: {}, local: {})", seen.limit, self.limit);
                return Err(Trouble::lasting(format!("semaphore limit conflict {limits}")));
            }
            // An attempt whose answer was lost may have succeeded.
            if seen.holders.contains_key(session) {
                return Ok(Some(Taken { fence: None }));
            }
            if i64::try_from(seen.holders.len()).is_ok_and(|holders| holders >= self.limit) {
                (waiting.held_by)(&seen.holders.keys().cloned().collect::<Vec<_>>());
                since = index;
                if index == 0 && !waiting.rests(NO_INDEX_REST) {
                    break;
                }
                continue;
            }
            since = 0;
            seen.holders.insert(session.to_owned(), true);
            let written = waiting.insist(|| self.write(agent, &seen));
            match written.map_err(Trouble::of("failed to update lock"))? {
                Some(true) => return Ok(Some(Taken { fence: None })),
                // Somebody was faster: look again.
                Some(false) => {}
                None => break,
            }
        }
        Ok(None)
    }

    fn look(&self, agent: &Agent, session: &str, since: u64) -> Result<Option<u64>, Trouble> {
        let (rows, index) = monitored(agent, &self.prefix, true, since)?;
        let seen = self.seen(&rows)?;
        Ok(seen.holders.contains_key(session).then_some(index))
    }

    fn release(&self, agent: &Agent, session: &str) -> Result<(), Trouble> {
        loop {
            let (rows, _) = agent.rows(&self.list_key(), &[], None)?;
            let mut seen = self.list(rows.first())?;
            if seen.holders.remove(session).is_none() {
                break;
            }
            if self.write(agent, &seen).map_err(Trouble::of("failed to update lock"))? {
                break;
            }
        }
        let contender = format!("/v1/kv/{}", join(&self.prefix, session));
        agent.is_done("DELETE", &contender, &[], &[]).map(drop)
    }

    fn cleanup(&self, agent: &Agent) -> Result<(), Cleanup> {
        let rows = agent.rows(&self.prefix, &[("recurse", "")], None);
        let (rows, _) = rows.map_err(Trouble::of("failed to read prefix"))?;
        let seen = self.seen(&rows)?;
        if seen.written == 0 {
            return Ok(());
        }
        if seen.flags != FLAGS {
            return Err(Trouble::lasting(CONFLICT).into());
        }
        if !seen.holders.is_empty() {
            return Err(Cleanup::InUse);
        }
        let path = format!("/v1/kv/{}", self.list_key());
        let removed = agent.is_done("DELETE", &path, &[("cas", &seen.written.to_string())], &[]);
        match removed.map_err(Trouble::of("failed to remove semaphore"))? {
            true => Ok(()),
            false => Err(Cleanup::InUse),
        }
    }

    /// Without its key it is nobody's place any more.
    fn testament(&self, session: &str) -> (Vec<String>, String) {
        (vec!["kv".to_owned(), "delete".to_owned()], join(&self.prefix, session))
    }
}
