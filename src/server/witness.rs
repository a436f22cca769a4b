//! Who was seen to go: the only ground on which the leader takes a node out of the catalog that no member stands behind.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_protocol::entry::ServerId;

use crate::membership::{Difference, Roster};

/// Of so many it is remembered; the one that went first is forgotten. Each takes well under 200 bytes, and it is of use only until
/// its node has left the catalog.
const GONE_MAX: usize = 8192;

/// What one server has seen, whether it leads or not: it may lead later.
#[derive(Default)]
pub struct Witness {
    seen: Arc<Roster>,
    /// The members that are not known any more, by name in lower case (the catalog takes names in any), and as the how many-th each
    /// of them went.
    gone: BTreeMap<String, (ServerId, u64)>,
    count: u64,
}

impl Witness {
    /// Looks at the roster of now.
    pub fn look(&mut self, roster: &Arc<Roster>) {
        if Arc::ptr_eq(&self.seen, roster) {
            return;
        }
        let seen = std::mem::replace(&mut self.seen, roster.clone());
        for change in roster.changes_since(&seen) {
            match change {
                Difference::Came(member) => {
                    self.gone.remove(&member.name.to_lowercase());
                }
                Difference::Changed { .. } => {}
                Difference::Went(member) => {
                    self.count += 1;
                    self.gone.insert(member.name.to_lowercase(), (member.id, self.count));
                }
            }
        }
        while self.gone.len() > GONE_MAX {
            let first = self.gone.iter().min_by_key(|(_, (_, turn))| *turn).map(|(name, _)| name.clone());
            first.and_then(|name| self.gone.remove(&name));
        }
    }

    /// Whether the agent of this node was seen to go. A node without an ID is known by its name.
    pub fn saw_go(&self, node: &str, id: &str) -> bool {
        let gone = self.gone.get(&node.to_lowercase());
        gone.is_some_and(|(gone, _)| id.is_empty() || ServerId::parse(id) == Some(*gone))
    }
}
