//! Network coordinates on their way into the catalog (Consul: `Coordinate.Update`, `sendCoordinate`).
//!
//! Each agent tells the servers where it is, but only when that has changed by something that matters: a fleet at rest sends and
//! writes nothing. A server writes what it is told at once when it has written nothing for some seconds; else it gathers for
//! that time, so that many share one entry of the log.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use muster_protocol::gossip::coordinate::{Coordinate, ERROR_MAX};

use super::driver::{Inner, Membership};
use crate::consensus::Proposals;
use crate::runtime::random::Rng;
use crate::runtime::{cores, time};
use crate::store::command::{Command, Place};
use crate::store::parts_of;

/// How long a server gathers (Consul: `CoordinateUpdatePeriod`).
const GATHER_INTERVAL: Duration = Duration::from_secs(5);
/// Nodes in one command.
const PLACES_MAX: usize = 512;
/// Nodes that wait for the next commands; more are told to come again later.
const WAITING_MAX: usize = 8192;
/// An agent looks this often whether it has moved (Consul: `SyncCoordinateIntervalMin`).
const LOOK_INTERVAL_MIN: Duration = Duration::from_secs(15);
/// In a large pool so seldom that all together tell this often a second at most (Consul: `SyncCoordinateRateTarget`).
const RATE_TARGET: f64 = 64.0;
/// Who has moved less than this is where it was: what jitter does to a coordinate within a datacenter is less.
const MOVED_MIN: Duration = Duration::from_millis(2);

/// What waits for the next command, by node and segment.
#[derive(Default)]
pub(super) struct Waiting(BTreeMap<(String, String), Place>);

/// Where this agent was when it last told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told(Option<Coordinate>);

impl Waiting {
    /// Takes a place; the newest of a node counts.
    ///
    /// # Errors
    /// Too many wait.
    pub fn take(&mut self, place: Place) -> Result<(), String> {
        let key = (place.node.to_lowercase(), place.segment.clone());
        if self.0.len() >= WAITING_MAX && !self.0.contains_key(&key) {
            return Err("too many coordinates wait to be written; try again later".to_owned());
        }
        self.0.insert(key, place);
        Ok(())
    }

    fn batch(&mut self) -> Vec<Place> {
        let keys: Vec<_> = self.0.keys().take(PLACES_MAX).cloned().collect();
        keys.iter().filter_map(|key| self.0.remove(key)).collect()
    }
}

impl Told {
    /// The place to tell, if it is another one.
    pub fn news(&mut self, at: Option<Coordinate>) -> Option<Coordinate> {
        // One that has not measured anything has nothing to tell.
        let at = at.filter(|at| at.error < ERROR_MAX)?;
        if self.0.is_some_and(|before| way(before, at) < MOVED_MIN.as_secs_f64()) {
            return None;
        }
        self.0 = Some(at);
        self.0
    }
}

/// How far it is from one place of an agent to another of the same agent, seconds.
fn way(before: Coordinate, at: Coordinate) -> f64 {
    let flat = |place: Coordinate| Coordinate { adjustment: 0.0, height: 0.0, ..place };
    let along = flat(at).distance_to(&flat(before)).as_secs_f64();
    along + (at.height - before.height).abs() + (at.adjustment - before.adjustment).abs()
}

impl Membership {
    /// Where this agent is; nothing when coordinates are off.
    pub fn coordinate(&self) -> Option<Coordinate> {
        self.0.core.borrow().coordinate().copied()
    }

    /// How long to wait until it is worth to look again whether this agent has moved.
    pub fn look_interval(&self, random: &mut Rng) -> Duration {
        look_interval(&self.0, random)
    }
}

fn look_interval(inner: &Inner, random: &mut Rng) -> Duration {
    let all = Duration::from_secs_f64(inner.core.borrow().live() as f64 / RATE_TARGET);
    let interval = LOOK_INTERVAL_MIN.max(all);
    interval + interval.mul_f64(random.fraction())
}

/// Writes what this server was told, and where it is itself.
pub(super) async fn run(inner: Rc<Inner>) {
    let Some(proposals) = inner.founder.as_ref().map(|founder| founder.proposals.clone()) else { return };
    let (mut random, mut told) = (Rng::seeded(), Told::default());
    let mut look_at = time::now() + look_interval(&inner, &mut random);
    loop {
        // Who was told something hears it at once; whether this server has moved can wait.
        let _ = cores::either(inner.place_told.heard(), time::sleep(GATHER_INTERVAL)).await;
        if time::now() >= look_at {
            look_at = time::now() + look_interval(&inner, &mut random);
            let at = inner.core.borrow().coordinate().copied();
            if let Some(at) = told.news(at) {
                let own = &inner.settings.own;
                let segment = own.tags.get("segment").cloned().unwrap_or_default();
                let place = Place { node: own.name.to_string(), segment, parts: parts_of(&at) };
                // What finds no room is told when it has moved again.
                let _ = inner.places.borrow_mut().take(place);
            }
        }
        if write(&inner, &proposals).await {
            time::sleep(GATHER_INTERVAL).await;
        }
    }
}

/// Whether there was something to write.
async fn write(inner: &Inner, proposals: &Proposals) -> bool {
    let mut any = false;
    loop {
        let batch = inner.places.borrow_mut().batch();
        if batch.is_empty() {
            return any;
        }
        any = true;
        // Without a leader nobody needs them: the agents are elsewhere when there is one.
        if let Err(why) = proposals.propose(&Command::Coordinates(batch)).await {
            tracing::debug!("agent: coordinates are not written: {why}");
            return any;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_moved_tells() {
        let mut told = Told::default();
        assert_eq!(told.news(None), None);
        assert_eq!(told.news(Some(Coordinate::default())), None, "it has not measured anything");
        let at = |x: f64, height: f64| {
            let mut at = Coordinate { error: 0.5, height, ..Coordinate::default() };
            at.position[0] = x;
            Some(at)
        };
        assert!(told.news(at(0.0, 0.0)).is_some());
        assert_eq!(told.news(at(0.001, 0.0005)), None, "jitter");
        assert_eq!(told.news(at(0.0, 0.003)), at(0.0, 0.003));
        assert_eq!(told.news(at(0.005, 0.003)), at(0.005, 0.003));
    }

    #[test]
    fn the_newest_of_a_node_counts_and_there_is_an_end() {
        let place =
            |n: usize, x: f64| Place { node: format!("N{n}"), segment: String::new(), parts: [x; 11] };
        let mut waiting = Waiting::default();
        for n in 0..WAITING_MAX {
            waiting.take(place(n, 0.0)).expect("there is room");
        }
        assert!(waiting.take(place(WAITING_MAX, 0.0)).is_err());
        waiting.take(place(0, 1.0)).expect("it waits already");
        let batch = waiting.batch();
        assert_eq!((batch.len(), batch[0].parts[0]), (PLACES_MAX, 1.0));
    }
}
