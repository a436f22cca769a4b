//! Sessions and the locks that they hold. A session goes at the wish of a client, when the leader finds that its time is
//! up, with its node, or with a check of its own that turns critical or goes; whatever the cause, the keys that it held
//! are freed or deleted by the same write, and its lock-delay, if it has one, keeps each of them from being
//! acquired until the leader says that the delay is over.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::apply::thaw;
use super::catalog::Name;
use super::command::{Applied, ArchivedDelayEnd, ArchivedSessionOp};
use super::graveyard::Graveyard;
use super::limits::NAME_GRAVES_MAX;
use super::model::{Behavior, Session, Status};
use super::state::State;
use super::topic::{Topic, fold};
use super::touched::Touched;

/// A key, shared by the maps that use it.
type Key = Arc<[u8]>;

/// The tables. All names and IDs in keys are folded.
#[derive(Clone, Debug)]
pub(super) struct Sessions {
    /// By ID.
    pub rows: OrdMap<Name, Arc<Session>>,
    /// Newest change.
    pub changed: u64,
    /// Index of the first entry of the newest leader that found any sessions.
    pub led_since: u64,
    /// Lock-delays that are not over, by key.
    pub delays: OrdMap<Key, LockDelay>,
    /// By node. The nodes without any are in `gone_nodes`.
    nodes: OrdMap<Name, OnNode>,
    /// Node, check, session.
    checks: OrdSet<(Name, Name, Name)>,
    /// Session and key of each lock that is held.
    held: OrdSet<(Name, Key)>,
    gone: Graveyard,
    gone_nodes: Graveyard,
}

/// The sessions of one node.
#[derive(Clone, Debug, Default)]
struct OnNode {
    ids: OrdSet<Name>,
    /// Newest change.
    changed: u64,
}

/// A lock-delay: nobody can acquire the key until it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LockDelay {
    /// How long it lasts, nanoseconds.
    pub length_ns: i64,
    /// Index of the write that began it.
    pub since: u64,
}

impl Sessions {
    pub(super) fn new() -> Sessions {
        Sessions {
            rows: OrdMap::new(),
            changed: 0,
            led_since: 0,
            delays: OrdMap::new(),
            nodes: OrdMap::new(),
            checks: OrdSet::new(),
            held: OrdSet::new(),
            gone: Graveyard::new(NAME_GRAVES_MAX),
            gone_nodes: Graveyard::new(NAME_GRAVES_MAX),
        }
    }

    /// Newest change of one session, alive or not.
    pub(super) fn changed_at(&self, id: &str) -> u64 {
        self.rows.get(id).map_or_else(|| self.gone.index_of(id), |row| row.modify_index)
    }

    /// Newest change of the sessions of one node.
    pub(super) fn changed_on(&self, node: &str) -> u64 {
        self.nodes.get(node).map_or_else(|| self.gone_nodes.index_of(node), |node| node.changed)
    }

    /// A new leader has come: see [`super::command::SessionOp::Expire`]. Where there are no sessions no earlier leader can have
    /// measured the time of one.
    pub(super) fn led_anew(&mut self, index: u64) {
        if !self.rows.is_empty() {
            self.led_since = index;
        }
    }

    /// A key's lock goes from one session to another; empty: nobody.
    pub(super) fn moves(&mut self, key: &[u8], from: &str, to: &str) {
        if from == to {
            return;
        }
        if !from.is_empty() {
            self.held.remove(&(from.into(), key.into()));
        }
        if !to.is_empty() {
            self.held.insert((to.into(), key.into()));
        }
    }

    /// Adds a row to all maps; its indexes are set.
    pub(super) fn link(&mut self, row: Session) {
        let (id, node): (Name, Name) = (fold(&row.id).into(), fold(&row.node).into());
        self.gone.forget(&id);
        self.gone_nodes.forget(&node);
        for check in row.check_ids() {
            self.checks.insert((node.clone(), fold(check).into(), id.clone()));
        }
        let here = self.nodes.entry(node).or_default();
        here.ids.insert(id.clone());
        here.changed = here.changed.max(row.modify_index);
        self.rows.insert(id, Arc::new(row));
    }

    /// Takes a row out of all maps, and the keys that it holds out of theirs.
    fn unlink(&mut self, index: u64, id: &Name) -> Option<(Arc<Session>, Vec<Key>)> {
        let row = self.rows.remove(id)?;
        let node: Name = fold(&row.node).into();
        for check in row.check_ids() {
            self.checks.remove(&(node.clone(), fold(check).into(), id.clone()));
        }
        if let Some(here) = self.nodes.get_mut(&node) {
            here.ids.remove(id);
            here.changed = index;
            if here.ids.is_empty() {
                self.nodes.remove(&node);
                self.gone_nodes.bury(node, index);
            }
        }
        self.gone.bury(id.clone(), index);
        self.changed = index;
        let keys = self.held_by(id).cloned().collect();
        Some((row, keys))
    }

    fn held_by(&self, id: &Name) -> impl Iterator<Item = &Key> {
        let from: (Name, Key) = (id.clone(), Arc::from(&[][..]));
        self.held.range(from..).take_while(move |(holder, _)| holder == id).map(|(_, key)| key)
    }

    /// The memories of what is gone, in the order in which snapshots number them.
    pub(super) fn graveyards(&self) -> [&Graveyard; 2] {
        [&self.gone, &self.gone_nodes]
    }

    pub(super) fn graveyards_mut(&mut self) -> [&mut Graveyard; 2] {
        [&mut self.gone, &mut self.gone_nodes]
    }

    /// Newest change of each node's sessions, in order of name.
    pub(super) fn node_indexes(&self) -> impl Iterator<Item = (Name, u64)> + Send + use<> {
        self.nodes.clone().into_iter().map(|(name, node)| (name, node.changed))
    }

    /// How many nodes have sessions.
    pub(super) fn nodes_len(&self) -> usize {
        self.nodes.len()
    }

    /// Says when a node's sessions changed last. False if it has none.
    pub(super) fn set_node_index(&mut self, node: &str, changed: u64) -> bool {
        self.nodes.get_mut(node).map(|node| node.changed = changed).is_some()
    }

    /// What the tables take for granted of what came from outside: every lock is held by a session that is there, and no
    /// index is above `index`.
    pub(super) fn are_sane(&self, index: u64) -> bool {
        self.held.iter().all(|(id, _)| self.rows.contains_key(id))
            && self.rows.values().all(|row| row.modify_index <= index)
            && self.delays.values().all(|delay| delay.since <= index)
            && self.nodes.values().all(|node| node.changed <= index)
            && self.changed <= index
            && self.led_since <= index
    }

    /// Whether nothing was ever here. A state without is written as by programs that knew no sessions.
    pub(super) fn is_untouched(&self) -> bool {
        self.changed == 0
    }

    /// For comparing servers.
    pub(super) fn hash_into(&self, hasher: &mut impl Hasher) {
        if self.is_untouched() {
            return;
        }
        (self.changed, self.led_since).hash(hasher);
        for (id, row) in &self.rows {
            (id, row).hash(hasher);
        }
        for (key, delay) in &self.delays {
            (key, delay).hash(hasher);
        }
        for (name, node) in &self.nodes {
            (name, node.changed).hash(hasher);
            node.ids.iter().for_each(|id| id.hash(hasher));
        }
        self.checks.iter().for_each(|check| check.hash(hasher));
        self.held.iter().for_each(|lock| lock.hash(hasher));
        for graves in self.graveyards() {
            graves.floor().hash(hasher);
            graves.iter().for_each(|grave| grave.hash(hasher));
        }
    }
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions::new()
    }
}

impl State {
    /// A session by ID, in any letter case.
    pub fn session(&self, id: &str) -> Option<&Arc<Session>> {
        self.sessions.rows.get(&*fold(id))
    }

    /// All sessions, in order of ID.
    pub fn sessions(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.sessions.rows.values()
    }

    /// How many sessions there are.
    pub fn session_count(&self) -> usize {
        self.sessions.rows.len()
    }

    /// The sessions of a node (name in any letter case), in order of ID.
    pub fn node_sessions(&self, node: &str) -> impl Iterator<Item = &Arc<Session>> {
        let ids = self.sessions.nodes.get(&*fold(node)).into_iter().flat_map(|node| node.ids.iter());
        ids.filter_map(|id| self.sessions.rows.get(id))
    }

    /// The keys whose locks a session holds, in their order.
    pub fn locks_of(&self, id: &str) -> impl Iterator<Item = Key> {
        self.sessions.held_by(&fold(id).into()).cloned().collect::<Vec<_>>().into_iter()
    }

    /// The delay that keeps a key from being acquired.
    pub fn lock_delay(&self, key: &[u8]) -> Option<LockDelay> {
        self.sessions.delays.get(key).copied()
    }

    /// All lock-delays, in order of key.
    pub fn lock_delays(&self) -> impl Iterator<Item = (&[u8], LockDelay)> {
        self.sessions.delays.iter().map(|(key, delay)| (&**key, *delay))
    }

    /// Index at which a restore last replaced all tables; 0: never.
    pub fn restored_at(&self) -> u64 {
        self.restored_at
    }

    /// What the table of sessions changed by last: whoever follows the sessions looks again when it has moved.
    pub fn sessions_index(&self) -> u64 {
        self.sessions.changed.max(self.restored_at)
    }

    pub(super) fn apply_session(
        &mut self,
        index: u64,
        op: &ArchivedSessionOp,
        touched: &mut Touched,
    ) -> Applied {
        match op {
            ArchivedSessionOp::Create(session) => {
                match self.session_create(index, thaw(&**session), touched) {
                    Ok(()) => Applied::Done,
                    Err(text) => Applied::Refused(text),
                }
            }
            ArchivedSessionOp::Destroy { id } => {
                self.session_destroy(index, id, touched);
                Applied::Done
            }
            ArchivedSessionOp::Expire { ids, seen } => {
                let counts = seen.to_native() >= self.sessions.led_since.max(self.restored_at);
                for id in ids.iter().filter(|_| counts) {
                    self.session_destroy(index, id, touched);
                }
                Applied::Condition(counts)
            }
            ArchivedSessionOp::EndDelays(ended) => {
                self.end_delays(ended, touched);
                Applied::Done
            }
        }
    }

    /// Adds a session.
    ///
    /// # Errors
    /// Its node or one of its checks is not there, or a check is critical. The texts are Consul's.
    pub(super) fn session_create(
        &mut self,
        index: u64,
        mut session: Session,
        touched: &mut Touched,
    ) -> Result<(), String> {
        if session.id.is_empty() {
            return Err("Missing session ID".into());
        }
        session.id = fold(&session.id).into_owned();
        if self.session(&session.id).is_some() {
            return Err(format!("session {} is there already", session.id));
        }
        let node = self.nodes.get(&*fold(&session.node)).ok_or("Missing node registration")?;
        for id in session.check_ids() {
            match node.checks.get(&*fold(id)) {
                None => return Err(format!("Missing check '{id}' registration")),
                Some(check) if check.status == Status::Critical => {
                    return Err(format!("Check '{id}' is in critical state"));
                }
                Some(_) => {}
            }
        }
        session.create_index = index;
        session.modify_index = index;
        touched.session(&session.id, &fold(&session.node));
        self.sessions.link(session);
        self.sessions.changed = index;
        Ok(())
    }

    /// Removes a session; its keys are freed or deleted, and each is under its lock-delay from here.
    pub(super) fn session_destroy(&mut self, index: u64, id: &str, touched: &mut Touched) {
        let Some((session, keys)) = self.sessions.unlink(index, &fold(id).into()) else { return };
        touched.session(&session.id, &fold(&session.node));
        for key in keys {
            match session.behavior {
                Behavior::Release => self.kv_free(index, &key, touched),
                Behavior::Delete => self.kv_delete(index, &key, touched),
            }
            if session.delay_ns() > 0 {
                let delay = LockDelay { length_ns: session.delay_ns(), since: index };
                self.sessions.delays.insert(key, delay);
            }
        }
    }

    /// A check turned critical or is gone.
    pub(super) fn invalidate_check(&mut self, index: u64, node: &Name, check: &Name, touched: &mut Touched) {
        let from = (node.clone(), check.clone(), Name::from(""));
        let mine = self.sessions.checks.range(from..).take_while(|(on, of, _)| on == node && of == check);
        let doomed: Vec<Name> = mine.map(|(_, _, id)| id.clone()).collect();
        doomed.iter().for_each(|id| self.session_destroy(index, id, touched));
    }

    /// A node is gone.
    pub(super) fn invalidate_node(&mut self, index: u64, node: &Name, touched: &mut Touched) {
        let here = self.sessions.nodes.get(node).map(|node| node.ids.clone()).unwrap_or_default();
        here.iter().for_each(|id| self.session_destroy(index, id, touched));
    }

    fn end_delays(&mut self, ended: &[ArchivedDelayEnd], touched: &mut Touched) {
        for end in ended {
            let key = &end.key[..];
            if self.sessions.delays.get(key).is_some_and(|delay| delay.since == end.since.to_native()) {
                self.sessions.delays.remove(key);
                touched.add(Topic::LockDelay(key.into()));
            }
        }
    }
}
