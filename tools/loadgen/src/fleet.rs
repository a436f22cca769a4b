//! All agents of the load, and what is asked of many of them at once.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use muster::agent::Door;
use muster::runtime::task::{self, Task};
use muster::runtime::time;
use muster::store::model::Status;

use crate::agent::{self, Load, Running};
use crate::figures::Samples;

/// The fleet.
pub struct Fleet {
    load: Load,
    ids: Vec<String>,
    agents: Vec<Option<Running>>,
}

/// What the fleet asked of servers so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    pub requests: u64,
    pub bytes_out: u64,
    pub bytes_in: u64,
}

impl Fleet {
    /// Of agents that are not started yet.
    pub fn new(count: u32, load: Load) -> Fleet {
        let ids = (0..count).map(|_| agent::new_id()).collect();
        Fleet { load, ids, agents: (0..count).map(|_| None).collect() }
    }

    pub fn count(&self) -> u32 {
        self.agents.len() as u32
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.agents.iter().flatten().count()
    }

    /// Starts those of these that do not run, spread over a time.
    ///
    /// # Errors
    /// One could not start.
    pub async fn start(&mut self, which: impl Iterator<Item = u32>, ramp: Duration) -> Result<(), String> {
        let which: Vec<u32> = which.filter(|n| self.agents[*n as usize].is_none()).collect();
        let began = time::now();
        for (place, n) in which.iter().enumerate() {
            time::sleep_until(began + ramp.mul_f64(place as f64 / which.len() as f64)).await;
            let started = agent::start(*n, &self.load, &self.ids[*n as usize]).await;
            self.agents[*n as usize] = Some(started.map_err(|why| format!("agent {n}: {why}"))?);
        }
        Ok(())
    }

    /// Ends one without a word.
    pub fn kill(&mut self, n: u32) {
        self.agents[n as usize] = None;
    }

    fn door(&self, n: u32) -> Option<Door> {
        self.agents[n as usize].as_ref().map(|agent| agent.door.clone())
    }

    /// A check of an agent changes after a while; how long it took until the catalog had it goes to the samples (seconds).
    pub fn flip(
        &self,
        n: u32,
        check: usize,
        after: Duration,
        status: Status,
        into: Rc<RefCell<Taken>>,
    ) -> Task<()> {
        let door = self.door(n);
        task::spawn(async move {
            let Some(door) = door else { return };
            time::sleep(after).await;
            let began = time::now();
            let output = format!("told by the load at {n}");
            let told = door.update_ttl(agent::check(check), status, output).await;
            let mut into = into.borrow_mut();
            match told {
                Ok(()) => into.samples.push(began.elapsed().as_secs_f64()),
                Err(_) => into.refused += 1,
            }
        })
    }

    /// How many see a pool of at least so many that take part.
    pub fn aware(&self, members: usize) -> usize {
        let aware = |agent: &&Running| agent.roster.load().len() >= members;
        self.agents.iter().flatten().filter(aware).count()
    }

    /// How many still take one of these for alive.
    pub fn believers(&self, gone: &[u32]) -> usize {
        let names: Vec<String> = gone.iter().map(|n| agent::name(*n)).collect();
        let believes = |agent: &&Running| {
            let roster = agent.roster.load();
            names.iter().any(|name| roster.named(name).is_some_and(|member| member.is_alive()))
        };
        self.agents.iter().flatten().filter(believes).count()
    }

    /// Whom anybody takes for failed who runs.
    pub fn slandered(&self) -> usize {
        let running: Vec<String> =
            (0..self.count()).filter(|n| self.agents[*n as usize].is_some()).map(agent::name).collect();
        let Some(agent) = self.agents.iter().flatten().next() else { return 0 };
        let roster = agent.roster.load();
        running.iter().filter(|name| roster.named(name).is_some_and(|member| !member.is_alive())).count()
    }

    /// What was asked of servers so far.
    pub fn asked(&self) -> Asked {
        self.agents.iter().flatten().fold(Asked::default(), |sum, agent| {
            let tally = agent.upstream.tally();
            Asked {
                requests: sum.requests + tally.requests,
                bytes_out: sum.bytes_out + tally.bytes_out,
                bytes_in: sum.bytes_in + tally.bytes_in,
            }
        })
    }
}

/// How long changes took, and how many were not taken.
#[derive(Default)]
pub struct Taken {
    pub samples: Samples,
    pub refused: u64,
}

/// Waits until something is so, for so long at most; how long it took.
pub async fn until(patience: Duration, mut so: impl AsyncFnMut() -> bool) -> Option<Duration> {
    let began: Instant = time::now();
    while !so().await {
        if began.elapsed() > patience {
            return None;
        }
        time::sleep(Duration::from_millis(200)).await;
    }
    Some(began.elapsed())
}
