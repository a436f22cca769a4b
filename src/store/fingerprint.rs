//! One number for a whole state: equal for states that answer alike now and after any further commands.

use std::hash::{Hash, Hasher};

use super::state::State;

impl State {
    /// Deterministic over processes and machines; covers all rows, all indexes, the memory of deletions and what a
    /// restore has gathered. Walks the whole state. For comparing servers, not a defence against forgery.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = Fnv::default();
        (self.index, self.offset, self.restored_at, self.at).hash(&mut hasher);
        self.hash_catalog(&mut hasher);
        self.hash_names(&mut hasher);
        for row in self.keys.under(b"") {
            row.hash(&mut hasher);
        }
        for grave in self.keys.graves() {
            grave.hash(&mut hasher);
        }
        self.keys.floor().hash(&mut hasher);
        self.autopilot.hash(&mut hasher);
        self.coordinates.hash_into(&mut hasher);
        self.sessions.hash_into(&mut hasher);
        if let Some(staged) = &self.staged {
            (staged.id, staged.next).hash(&mut hasher);
            staged.builder.hash_into(&mut hasher);
            staged.rest.iter().for_each(|bytes| bytes.hash(&mut hasher));
        }
        hasher.finish()
    }

    fn hash_catalog(&self, hasher: &mut Fnv) {
        for (name, entry) in &self.nodes {
            (name, &entry.row, entry.changed, entry.checks_changed).hash(hasher);
            for (id, row) in &entry.services {
                (id, row).hash(hasher);
            }
            for (id, row) in &entry.checks {
                (id, row).hash(hasher);
            }
            for pair in &entry.checks_by_service {
                pair.hash(hasher);
            }
            for row in entry.own_checks.iter() {
                row.check_id.hash(hasher);
            }
        }
        for (id, name) in &self.node_ids {
            (id, name).hash(hasher);
        }
        for (address, names) in &self.node_addresses {
            address.hash(hasher);
            names.iter().for_each(|name| name.hash(hasher));
        }
        for (address, names) in &self.service_addresses {
            address.hash(hasher);
            names.iter().for_each(|name| name.hash(hasher));
        }
    }

    fn hash_names(&self, hasher: &mut Fnv) {
        for (name, entry) in &self.services {
            (name, entry.instances_changed, entry.health_changed).hash(hasher);
            for (place, row) in &entry.instances {
                (place, row.node.modify_index, row.service.modify_index).hash(hasher);
                for check in row.view().checks() {
                    (&check.check_id, check.modify_index).hash(hasher);
                }
            }
        }
        for (name, list) in &self.service_checks {
            (name, list.changed).hash(hasher);
            list.rows.iter().for_each(|(place, row)| (place, row.modify_index).hash(hasher));
        }
        for (name, spelling) in &self.spellings {
            (name, spelling.instances).hash(hasher);
            spelling.tags.iter().for_each(|tag| tag.hash(hasher));
        }
        for rows in &self.checks_by_status {
            rows.iter().for_each(|(place, row)| (place, row.modify_index).hash(hasher));
        }
        for graves in self.graveyards() {
            graves.floor().hash(hasher);
            graves.iter().for_each(|grave| grave.hash(hasher));
        }
    }
}

/// FNV-1a over words of eight bytes (Fowler, Noll, Vo), with a final mix.
pub(super) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.word(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last) ^ (bytes.len() as u64) << 56);
    }

    fn write_u64(&mut self, number: u64) {
        self.word(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.word(number as u64);
    }

    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ self.0 >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 29
    }
}
