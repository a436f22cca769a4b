//! Writes to keys.

use std::sync::Arc;

use super::command::{Applied, ArchivedKvOp};
use super::keys::Burial;
use super::model::{ArchivedKvEntry, KvEntry};
use super::state::State;
use super::topic::fold;
use super::touched::Touched;

/// Consul's words.
const NO_SESSION: &str = "missing session";

impl State {
    pub(super) fn apply_kv(&mut self, index: u64, op: &ArchivedKvOp, touched: &mut Touched) -> Applied {
        match op {
            ArchivedKvOp::Set(entry) => {
                self.kv_set(index, entry, touched);
                Applied::Done
            }
            ArchivedKvOp::Cas { entry, index: expected } => {
                let current = self.keys.get(&entry.key).map_or(0, |row| row.modify_index);
                let matches = current == expected.to_native();
                if matches {
                    self.kv_set(index, entry, touched);
                }
                Applied::Condition(matches)
            }
            ArchivedKvOp::Delete { key } => {
                self.kv_delete(index, key, touched);
                Applied::Done
            }
            ArchivedKvOp::DeleteCas { key, index: expected } => match self.keys.get(key) {
                None => Applied::Condition(true),
                Some(row) if row.modify_index != expected.to_native() => Applied::Condition(false),
                Some(_) => {
                    self.kv_delete(index, key, touched);
                    Applied::Condition(true)
                }
            },
            ArchivedKvOp::DeleteTree { prefix } => {
                self.kv_delete_tree(index, prefix, touched);
                Applied::Done
            }
            ArchivedKvOp::Acquire(entry) => condition(self.kv_acquire(index, entry, touched)),
            ArchivedKvOp::Release(entry) => condition(self.kv_release(index, entry, touched)),
        }
    }

    /// Writes value and flags. A lock stays with its holder, but the count of its acquisitions begins anew, as in Consul.
    pub(super) fn kv_set(&mut self, index: u64, entry: &ArchivedKvEntry, touched: &mut Touched) {
        self.kv_write(index, entry, None, touched);
    }

    /// Gives the lock of a key to the session that the entry names, with value and flags; false if it cannot have it now.
    ///
    /// # Errors
    /// There is no such session.
    pub(super) fn kv_acquire(
        &mut self,
        index: u64,
        entry: &ArchivedKvEntry,
        touched: &mut Touched,
    ) -> Result<bool, String> {
        // Consul's leader looks at this before anything else.
        if self.lock_delay(&entry.key).is_some() {
            return Ok(false);
        }
        if entry.session.is_empty() {
            return Err(NO_SESSION.into());
        }
        let session = self.session(&entry.session).map(|row| row.id.clone());
        let session = session.ok_or_else(|| format!("invalid session {:?}", entry.session.as_str()))?;
        let lock_index = match self.keys.get(&entry.key) {
            None => 1,
            Some(old) if old.session == session => old.lock_index,
            Some(old) if old.session.is_empty() => old.lock_index.saturating_add(1),
            Some(_) => return Ok(false),
        };
        self.kv_write(index, entry, Some((session, lock_index)), touched);
        Ok(true)
    }

    /// Frees a key, with value and flags, if the session that the entry names has its lock; otherwise false.
    ///
    /// # Errors
    /// No session is named.
    pub(super) fn kv_release(
        &mut self,
        index: u64,
        entry: &ArchivedKvEntry,
        touched: &mut Touched,
    ) -> Result<bool, String> {
        if entry.session.is_empty() {
            return Err(NO_SESSION.into());
        }
        let held = self.keys.get(&entry.key).filter(|old| *old.session == *fold(&entry.session));
        let Some(lock_index) = held.map(|old| old.lock_index) else { return Ok(false) };
        self.kv_write(index, entry, Some((String::new(), lock_index)), touched);
        Ok(true)
    }

    /// Frees a key whose holder has gone.
    pub(super) fn kv_free(&mut self, index: u64, key: &[u8], touched: &mut Touched) {
        let Some(old) = self.keys.get(key) else { return };
        let holder = old.session.clone();
        let row = KvEntry { session: String::new(), modify_index: index, ..KvEntry::clone(old) };
        self.kv_put(index, row, &holder, touched);
    }

    /// Writes a row; one that is there already in the same words stays, indexes included. `lock` is who has the lock from here and
    /// the count of its acquisitions; without, it stays with its holder.
    fn kv_write(
        &mut self,
        index: u64,
        entry: &ArchivedKvEntry,
        lock: Option<(String, u64)>,
        touched: &mut Touched,
    ) {
        let flags = entry.flags.to_native();
        let old = self.keys.get(&entry.key);
        let holder = old.map(|old| old.session.clone()).unwrap_or_default();
        let (session, lock_index) = lock.unwrap_or_else(|| (holder.clone(), 0));
        let same = |old: &Arc<KvEntry>| {
            old.lock_index == lock_index
                && old.flags == flags
                && old.session == session
                && old.value == *entry.value
        };
        if old.is_some_and(same) {
            return;
        }
        let row = KvEntry {
            key: entry.key.to_vec(),
            value: entry.value.to_vec(),
            flags,
            lock_index,
            session,
            create_index: old.map_or(index, |old| old.create_index),
            modify_index: index,
        };
        self.kv_put(index, row, &holder, touched);
    }

    fn kv_put(&mut self, index: u64, row: KvEntry, holder: &str, touched: &mut Touched) {
        self.sessions.moves(&row.key, holder, &row.session);
        touched.key(&row.key);
        self.keys.put(Arc::new(row));
        self.at.keys = index;
    }

    pub(super) fn kv_delete(&mut self, index: u64, key: &[u8], touched: &mut Touched) {
        let Some(old) = self.keys.get(key) else { return };
        self.sessions.moves(key, &old.session, "");
        self.keys.bury(key, index, Burial::Own);
        touched.key(key);
        self.at.keys = index;
    }

    pub(super) fn kv_delete_tree(&mut self, index: u64, prefix: &[u8], touched: &mut Touched) {
        let doomed: Vec<Arc<KvEntry>> = self.keys.under(prefix).cloned().collect();
        if doomed.is_empty() {
            return;
        }
        for entry in &doomed {
            self.sessions.moves(&entry.key, &entry.session, "");
            self.keys.bury(&entry.key, index, Burial::Tree);
            touched.key(&entry.key);
        }
        self.keys.bury(prefix, index, Burial::Own);
        self.at.keys = index;
    }
}

fn condition(done: Result<bool, String>) -> Applied {
    match done {
        Ok(done) => Applied::Condition(done),
        Err(text) => Applied::Refused(text),
    }
}
