//! Writes to keys.

use std::sync::Arc;

use super::command::{Applied, ArchivedKvOp};
use super::keys::Burial;
use super::model::{ArchivedKvEntry, KvEntry};
use super::state::State;
use super::touched::Touched;

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
        }
    }

    /// Writes value and flags. A write of what is there already changes nothing, indexes included; a lock stays
    /// with its holder.
    fn kv_set(&mut self, index: u64, entry: &ArchivedKvEntry, touched: &mut Touched) {
        let flags = entry.flags.to_native();
        let mut row = KvEntry {
            key: entry.key.to_vec(),
            value: entry.value.to_vec(),
            flags,
            create_index: index,
            modify_index: index,
            ..KvEntry::default()
        };
        if let Some(old) = self.keys.get(&entry.key) {
            if old.flags == flags && old.value == *entry.value {
                return;
            }
            row.create_index = old.create_index;
            row.lock_index = old.lock_index;
            row.session = old.session.clone();
        }
        touched.key(&row.key);
        self.keys.put(Arc::new(row));
        self.at.keys = index;
    }

    fn kv_delete(&mut self, index: u64, key: &[u8], touched: &mut Touched) {
        if self.keys.get(key).is_none() {
            return;
        }
        self.keys.bury(key, index, Burial::Own);
        touched.key(key);
        self.at.keys = index;
    }

    fn kv_delete_tree(&mut self, index: u64, prefix: &[u8], touched: &mut Touched) {
        let doomed: Vec<Arc<KvEntry>> = self.keys.under(prefix).cloned().collect();
        if doomed.is_empty() {
            return;
        }
        for entry in &doomed {
            self.keys.bury(&entry.key, index, Burial::Tree);
            touched.key(&entry.key);
        }
        self.keys.bury(prefix, index, Burial::Own);
        self.at.keys = index;
    }
}
