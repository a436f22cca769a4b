//! How servers start, stop and die.

use std::time::Duration;

use histories::Answer;
use muster::consensus::replica::{Input, Options, Replica, Start};
use muster::store::{State, StateBuilder};
use muster_protocol::log::{self, SnapshotMeta, SnapshotReader};
use muster_protocol::raft;

use crate::locks::FIRST_LOOK;
use crate::nemesis::Hurt;
use crate::queue::{MILLI, Time};
use crate::server::Process;
use crate::trace;
use crate::world::{Event, World};

impl World {
    /// Starts a server with what its disk holds.
    pub fn start(&mut self, server: usize) {
        let this = &self.servers[server];
        if this.is_up() || this.gone || this.refused.is_some() {
            return;
        }
        let files = this.disk.contents();
        let options = log::Options {
            id: self.servers[server].id,
            segment_bytes: self.plan.segment_bytes,
            seed: self.random.next(),
            expects_peers: self.plan.servers > 1,
            ..log::Options::default()
        };
        let recovered = match log::recover(options, files) {
            Ok(recovered) => recovered,
            Err(refused) => return self.was_refused(server, refused.to_string()),
        };
        for note in &recovered.notes {
            trace!(self, "s{server} recovery: {note}");
        }
        let state = match recovered.snapshot.as_ref().map(state_of) {
            None => State::new(),
            Some(Ok((_, state))) => state,
            Some(Err(why)) => {
                return self.fail("a checked snapshot can be loaded", format!("s{server}: {why}"));
            }
        };
        self.tally.one("starts");
        if recovered.repair_until > 0 {
            self.tally.one("starts in repair");
        }
        self.copies += 1;
        let applied = recovered.snapshot.as_ref().map_or(0, |snapshot| snapshot.meta().index);
        let options = self.replica_options(server);
        let now = self.servers[server].clock.local(self.now);
        let published = state.clone();
        let replica = Replica::start(now, options, Start { recovered, state, forced: None });
        let this = &mut self.servers[server];
        (this.run, this.copy, this.wake_at, this.paused_until) = (this.run + 1, self.copies, Time::MAX, 0);
        this.process = Some(Process::new(replica, published, applied));
        trace!(self, "s{server} starts, run {}, snapshot {applied}", self.servers[server].run);
        let copy = self.servers[server].copy;
        let index = self.servers[server].published().map_or(0, |(_, state)| state.index());
        self.truth.shown.push((copy, self.now, index));
        self.check_started(server);
        if self.locks.is_some() {
            let run = self.servers[server].run;
            self.queue.push(self.now + FIRST_LOOK, Event::SessionTurn { server, run });
        }
        if let Some(hurt) = self.nemesis.hurt.get_mut(&server) {
            *hurt = Hurt::Heals { until: self.truth.newest_committed() };
        }
        self.step(server, Vec::new());
    }

    fn was_refused(&mut self, server: usize, why: String) {
        trace!(self, "s{server} refuses its disk: {why}");
        self.tally.one("starts refused");
        if self.nemesis.hurt.contains_key(&server) {
            self.servers[server].refused = Some(why);
        } else {
            self.fail("a disk without damage is accepted", format!("s{server}: {why}"));
        }
    }

    /// Ends a server's process: by a power cut, or by a kill that leaves written pages in the machine.
    pub fn stop(&mut self, server: usize, power: bool) {
        let requests = self.requests_at(server);
        self.cut_lock_requests(server);
        self.servers[server].end_sleep(self.now);
        let Some(process) = self.servers[server].process.take() else { return };
        trace!(self, "s{server} stops{}", if power { " without power" } else { "" });
        let this = &mut self.servers[server];
        this.paused_until = 0;
        if power {
            this.disk.crash()
        } else {
            this.disk.kill()
        }
        self.take_up(server);
        for query in process.cut_off() {
            self.query_cut(query);
        }
        for op in requests {
            self.answer(op, Answer::Lost, None);
        }
        for other in 0..self.servers.len() {
            if other != server {
                self.network.reset(server, other);
                self.network.reset(other, server);
                if self.random.chance(0.8) {
                    self.tell_lost_link(other, server);
                }
            }
        }
    }

    /// A process that stood still goes on.
    pub fn resume(&mut self, server: usize) {
        let this = &mut self.servers[server];
        if this.paused_until > self.now {
            this.end_sleep(self.now);
            (this.paused_until, this.wake_at) = (0, Time::MAX);
            self.take_up(server);
            self.hurry_disk(server);
            self.step(server, vec![Input::Tick]);
        }
    }

    /// A process ends by itself.
    pub fn died(&mut self, server: usize, why: &str) {
        trace!(self, "s{server} ends: {why}");
        self.tally.one("servers that ended by themselves");
        let disk_failed = why.contains("os error 5") || why.contains("o space");
        if !disk_failed && !self.nemesis.hurt.contains_key(&server) {
            return self.fail("a server ends only when its disk fails", format!("s{server}: {why}"));
        }
        self.stop(server, false);
        let pause = self.random.within(100 * MILLI, 2000 * MILLI);
        self.queue.push(self.now + pause, Event::Start { server });
    }

    fn replica_options(&mut self, server: usize) -> Options {
        let plan = &self.plan;
        let seed = self.random.next();
        let raft = raft::Options {
            id: self.servers[server].id,
            election_timeout: plan.election_timeout,
            heartbeat_interval: plan.heartbeat_interval,
            lease: plan.election_timeout * 4 / 5,
            disk_stall_limit: plan.disk_stall_limit,
            transfer_timeout: plan.election_timeout,
            seed,
            limits: raft::Limits {
                message_bytes: plan.message_bytes,
                in_flight_messages: plan.in_flight,
                // A few messages: with less, a follower would wait more often than it works.
                backlog_bytes: plan.message_bytes * 4,
                ..raft::Limits::default()
            },
        };
        Options {
            raft,
            hold_timeout: plan.hold_timeout,
            snapshot_threshold: plan.snapshot_threshold,
            snapshot_interval: Duration::ZERO,
            trailing_logs: plan.trailing,
            batch_max: plan.batch_max,
        }
    }
}

/// The state in a snapshot, every byte of which is checked.
pub fn state_of(reader: &SnapshotReader) -> Result<(SnapshotMeta, State), String> {
    reader.verify().map_err(|damage| damage.to_string())?;
    let mut builder = StateBuilder::new();
    for number in 0..reader.len() {
        let section = reader.section(number).map_err(|damage| damage.to_string())?;
        builder.section(section.kind, section.version, &section.bytes).map_err(|why| why.to_string())?;
    }
    let state = builder.finish().map_err(|why| why.to_string())?;
    Ok((reader.meta().clone(), state))
}
