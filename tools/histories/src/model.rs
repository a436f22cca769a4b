//! The store as plainly as it can be written down.

use std::collections::BTreeMap;

use crate::{Answer, Ask, Key, Row};

/// A map of keys to rows, changed by one operation after another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    rows: BTreeMap<Key, Row>,
}

impl Model {
    /// What a key holds.
    pub fn get(&self, key: Key) -> Option<Row> {
        self.rows.get(&key).copied()
    }

    /// Takes over what was seen of a key.
    pub fn put(&mut self, key: Key, row: Option<Row>) {
        match row {
            Some(row) => self.rows.insert(key, row),
            None => self.rows.remove(&key),
        };
    }

    /// Does what was asked at `index` and gives the right answer.
    pub fn apply(&mut self, index: u64, ask: &Ask) -> Answer {
        match ask {
            Ask::Get(key) => Answer::Row(self.get(*key)),
            Ask::Set(key, value) => {
                self.rows.insert(*key, Row { value: *value, modified: index });
                Answer::Done
            }
            Ask::Cas(key, expected, value) => {
                let matches = self.get(*key).map(|row| row.modified) == expected.map(|row| row.modified);
                if matches {
                    self.rows.insert(*key, Row { value: *value, modified: index });
                }
                Answer::Condition(matches)
            }
            Ask::Delete(key) => {
                self.rows.remove(key);
                Answer::Done
            }
            Ask::DeleteCas(key, expected) => match self.get(*key) {
                Some(row) if row.modified != expected.modified => Answer::Condition(false),
                _ => {
                    self.rows.remove(key);
                    Answer::Condition(true)
                }
            },
            Ask::DeleteAll(keys) => {
                for key in keys {
                    self.rows.remove(key);
                }
                Answer::Done
            }
            Ask::Restore(rows) => {
                let row = |value: &u64| Row { value: *value, modified: index };
                self.rows = rows.iter().map(|(key, value)| (*key, row(value))).collect();
                Answer::Done
            }
        }
    }

    /// All rows, in order of keys.
    pub fn rows(&self) -> impl Iterator<Item = (Key, Row)> + '_ {
        self.rows.iter().map(|(key, row)| (*key, *row))
    }
}
