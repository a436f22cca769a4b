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
use crate::consensus::{Proposals, ProposeError};
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
/// A server first looks where it is after so many intervals of probes, or when it would write next.
const FIRST_LOOK_PROBES: u32 = 5;
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
    /// The place to tell, if it is another one. `alone`: there is nobody to measure the way to.
    pub fn news(&mut self, at: Option<Coordinate>, alone: bool) -> Option<Coordinate> {
        let has_measured = |at: &Coordinate| at.error < ERROR_MAX;
        // Who has not measured anything yet waits until it has; who is alone is where all begin.
        let at = at.filter(|at| has_measured(at) || alone)?;
        let stays = |before: Coordinate| {
            way(before, at) < MOVED_MIN.as_secs_f64() && has_measured(&before) == has_measured(&at)
        };
        if self.0.is_some_and(stays) {
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
    let first = GATHER_INTERVAL.min(inner.settings.pool.probe_interval * FIRST_LOOK_PROBES);
    let mut look_at = time::now() + first;
    loop {
        // Who was told something hears it at once; whether this server has moved can wait.
        let wait = time::sleep_until(look_at.min(time::now() + GATHER_INTERVAL));
        let _ = cores::either(inner.place_told.heard(), wait).await;
        if time::now() >= look_at {
            look_at = time::now() + look_interval(&inner, &mut random);
            let (at, alone) = {
                let core = inner.core.borrow();
                (core.coordinate().copied(), core.live() <= 1)
            };
            if let Some(at) = told.news(at, alone) {
                let own = &inner.settings.own;
                let segment = own.tags.get("segment").cloned().unwrap_or_default();
                let place = Place { node: own.name.to_string(), segment, parts: parts_of(&at) };
                // What finds no room is told when it has moved again.
                let _ = inner.places.borrow_mut().take(place);
            }
        }
        match write(&inner, &proposals).await {
            Ok(true) => time::sleep(GATHER_INTERVAL).await,
            Ok(false) => {}
            Err(why) => {
                tracing::debug!("agent: coordinates are not written: {why}");
                // Those of agents come again when they have moved; this server's as soon as there is a leader.
                told = Told::default();
                look_at = time::now() + first;
                time::sleep(first).await;
            }
        }
    }
}

/// Whether there was something to write.
///
/// # Errors
/// It was not written. Without a leader nobody needs it: the agents are elsewhere when there is one.
async fn write(inner: &Inner, proposals: &Proposals) -> Result<bool, ProposeError> {
    let mut any = false;
    loop {
        let batch = inner.places.borrow_mut().batch();
        if batch.is_empty() {
            return Ok(any);
        }
        any = true;
        proposals.propose(&Command::Coordinates(batch)).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_moved_tells() {
        let mut told = Told::default();
        assert_eq!(told.news(None, false), None);
        assert_eq!(told.news(Some(Coordinate::default()), false), None, "it has not measured anything");
        // A lone agent had no coordinate for ever, and `rtt` said so.
        assert!(told.news(Some(Coordinate::default()), true).is_some());
        assert_eq!(told.news(Some(Coordinate::default()), true), None, "it writes nothing at rest");
        let at = |x: f64, height: f64| {
            let mut at = Coordinate { error: 0.5, height, ..Coordinate::default() };
            at.position[0] = x;
            Some(at)
        };
        assert!(told.news(at(0.0, 0.0), false).is_some());
        assert_eq!(told.news(at(0.001, 0.0005), false), None, "jitter");
        assert_eq!(told.news(at(0.0, 0.003), false), at(0.0, 0.003));
        assert_eq!(told.news(at(0.005, 0.003), false), at(0.005, 0.003));
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
