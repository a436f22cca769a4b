//! What watchers make of their answers: each has the real `watch::course`, which the commands and the agents' own watches
//! follow by. It asks any server, also those that are behind (`?stale`), and the newest when it doubts.

use std::time::Duration;

use muster::runtime::random::Rng;
use muster::watch::course::{Course, Indexes, Mark, Next};

use crate::clients::topic_of;
use crate::server::row_of;
use crate::world::World;

/// As long as an answer takes that waited for its change.
const WAITED: Duration = Duration::from_secs(1);

/// A watcher that was told nothing yet.
pub fn course() -> Course {
    // Its randomness is that of rests, which the world draws itself.
    Course::new(Indexes::Grow, Rng::new(0))
}

impl World {
    /// A watcher has its answer.
    pub fn hear(&mut self, query: usize, shown: u64) {
        let (watcher, server) = (self.queries[query].watcher, self.queries[query].server);
        let Some(body) = self.body_at(server, watcher) else { return };
        self.tell_watcher(watcher, shown, &body);
    }

    /// A watcher's question ended without a change: its answer shows what the server has, which may be older.
    pub fn hear_nothing_new(&mut self, query: usize) {
        let (watcher, server) = (self.queries[query].watcher, self.queries[query].server);
        let asked = self.queries[query].query.asked;
        if let Some((shown, ..)) = self.look_at(server, self.watchers[watcher].key, asked) {
            self.hear(query, shown);
        }
        if self.watchers[watcher].course.wants_fresh() {
            self.tally.one("watchers: answers of servers that are behind");
        }
    }

    fn tell_watcher(&mut self, watcher: usize, shown: u64, body: &[u8]) {
        let state = &mut self.watchers[watcher];
        let known = state.course.last_told().is_some_and(|told| told == body);
        let told = state.course.answered(Mark::Index(shown), 200, body, WAITED);
        let before = state.told.last().copied();
        if let Next::Tell(answer) = told {
            self.tally.one("watchers: told");
            self.watchers[watcher].told.push(answer.index);
            if known {
                let story = format!("watcher {watcher} was told the same at {before:?} and {}", answer.index);
                self.fail("watchers are told nothing twice", story);
            }
            if before.is_some_and(|before| before >= answer.index) {
                let story = format!("watcher {watcher} was told of {before:?}, and then of {}", answer.index);
                self.fail("watchers are told nothing old after something new", story);
            }
        }
    }

    /// A server that holds all that is committed: what the leader would answer by.
    pub fn newest_server(&self) -> Option<usize> {
        let newest = self.truth.newest_committed();
        (0..self.servers.len()).find(|server| {
            let server = &self.servers[*server];
            server.paused_until <= self.now
                && server.published().is_some_and(|(applied, _)| applied >= newest)
        })
    }

    /// What a server answers to a watcher: the row of a key, else what changed last.
    fn body_at(&self, server: usize, watcher: usize) -> Option<Vec<u8>> {
        let (_, state) = self.servers[server].published()?;
        let key = self.watchers[watcher].key;
        let row = key.and_then(|key| row_of(state, key));
        Some(
            match row {
                Some(row) => format!("{} at {}", row.value, row.modified),
                None => format!("changed at {}", state.last_change(&topic_of(key))),
            }
            .into_bytes(),
        )
    }

    /// At the end of a run each watcher asks once more, and then knows what is.
    pub fn check_told(&mut self) {
        let Some(server) = self.newest_server() else { return };
        for watcher in 0..self.watchers.len() {
            let asked = self.watchers[watcher].course.index();
            let key = self.watchers[watcher].key;
            let (Some((shown, change, _)), Some(body)) =
                (self.look_at(server, key, asked), self.body_at(server, watcher))
            else {
                return;
            };
            if change > asked {
                self.tell_watcher(watcher, shown, &body);
            }
            let state = &self.watchers[watcher];
            let knows = state.course.last_told().is_some_and(|told| *told == *body);
            if change > 0 && !knows {
                let story = format!(
                    "watcher {watcher} of {key:?} asks with {asked}, changed at {change}, shown {shown}"
                );
                return self.fail("watchers end with what is", story);
            }
        }
    }
}
