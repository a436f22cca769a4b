//! The end of a run: all is healed, the cluster must get on, and the whole history is judged.

use histories::{Answer, Ask, Promise, linear, witness};

use crate::clients::Mode;
use crate::disk::DiskMood;
use crate::queue::{MICRO, MILLI, SECOND, Time};
use crate::trace;
use crate::world::{Event, World};

/// How the end of a run goes.
#[derive(Default)]
pub struct Finish {
    /// Servers that stay down at first: the core must do without them.
    down: Vec<usize>,
    /// When it must have got on.
    deadline: Time,
    /// Operations that prove it.
    probe: Option<usize>,
    stage: Stage,
    last_reads: Vec<usize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Faults are put in.
    #[default]
    Before,
    /// A core is whole and must take a write.
    Core,
    /// All are whole and must take a write.
    All,
    /// Every lock comes free.
    Locks,
    /// Every key is read once more.
    Reads,
    /// All servers must come to hold the same.
    Converge,
}

/// How often it is looked whether all is well.
const LOOK: Time = 50 * MILLI;

/// No client has this number.
const PROBER: usize = usize::MAX;

impl World {
    /// Faults end: a core of servers is healed.
    pub fn heal(&mut self) {
        self.healed = true;
        self.end_holders();
        self.network.heal();
        let voters = self.agreed_configuration().map_or(0, |configuration| configuration.voters().count());
        let spare = (voters.max(1) - 1) / 2;
        let mut down: Vec<usize> = self.nemesis.hurt.keys().copied().collect();
        if self.random.chance(0.4) {
            while down.len() < spare {
                let server = self.random.below(self.servers.len() as u64) as usize;
                if down.contains(&server) {
                    break;
                }
                down.push(server);
            }
            down.truncate(spare);
        } else {
            down.clear();
        }
        trace!(self, "HEAL; stay down: {down:?}");
        // An election takes some writes; a disk that needs longer for each is no healthy one.
        let quick = self.plan.election_timeout.as_nanos() as Time / 50;
        self.plan.batch_time = self.plan.batch_time.min(100 * MICRO);
        for server in 0..self.servers.len() {
            let plan = &self.plan.disk;
            let mood = &mut self.servers[server].disk.mood;
            *mood = DiskMood {
                stalled_until: 0,
                full: false,
                failures: 0,
                write_mean: plan.write_mean.min(quick),
                other_mean: plan.other_mean.min(quick),
            };
            self.hurry_disk(server);
            if down.contains(&server) {
                self.stop(server, true);
            } else {
                let wait = self.random.below(300 * MILLI);
                self.queue.push(self.now + wait, Event::Start { server });
                self.queue.push(self.now + wait, Event::Resume { server });
            }
        }
        self.finish.down = down;
        self.enter(Stage::Core);
        self.queue.push(self.now + LOOK, Event::Look);
    }

    fn enter(&mut self, stage: Stage) {
        trace!(self, "stage {stage:?}");
        // An election may take some rounds, each up to two timeouts of a slow clock; a snapshot may have to be sent.
        let timeout = self.plan.election_timeout.as_nanos() as Time;
        self.finish.stage = stage;
        self.finish.probe = None;
        self.finish.deadline = self.now + 30 * timeout + 20 * SECOND;
    }

    /// Looks whether the cluster gets on.
    pub fn look(&mut self) {
        self.queue.push(self.now + LOOK, Event::Look);
        if self.now > self.finish.deadline {
            let story = self.why_stuck();
            return self.fail("the cluster gets on after faults", story);
        }
        match self.finish.stage {
            Stage::Before => unreachable!("nobody looks before the end"),
            Stage::Core => {
                if self.random.chance(0.05) {
                    self.introduce();
                }
                if self.probed() {
                    for server in std::mem::take(&mut self.finish.down) {
                        self.queue.push(self.now, Event::Start { server });
                    }
                    self.enter(Stage::All);
                }
            }
            Stage::All => {
                if self.probed() {
                    self.enter(Stage::Locks);
                    if self.locks.is_some() {
                        self.finish.deadline += self.locks_free_by();
                    }
                }
            }
            Stage::Locks => {
                if self.all_locks_free() {
                    self.enter(Stage::Reads);
                    self.read_all();
                }
            }
            Stage::Reads => {
                if self.all_read() {
                    self.enter(Stage::Converge);
                }
            }
            Stage::Converge => {
                if self.same_everywhere() {
                    self.judge();
                    self.done = true;
                }
            }
        }
    }

    /// Whether a write was taken in this stage; tries one at one server after another.
    fn probed(&mut self) -> bool {
        if let Some(probe) = self.finish.probe {
            if self.ops[probe].open {
                return false;
            }
            if self.ops[probe].record.answer == Answer::Done {
                return true;
            }
        }
        if let Some(server) = self.any_member() {
            let value = self.ops.len() as u64 + 1;
            self.finish.probe = Some(self.ops.len());
            self.ask(PROBER, server, Ask::Set(0, value), Mode::Default);
        }
        false
    }

    /// A server that runs and that the leader counts in: one that was taken out cannot answer.
    pub fn any_member(&mut self) -> Option<usize> {
        let leader = self.leader()?;
        let configuration = self.servers[leader].standing()?.configuration.clone();
        let is_up = |number: &usize| {
            let server = &self.servers[*number];
            server.is_up() && configuration.server(server.id).is_some()
        };
        let members: Vec<usize> = (0..self.servers.len()).filter(is_up).collect();
        (!members.is_empty()).then(|| *self.random.one(&members))
    }

    fn read_all(&mut self) {
        self.finish.last_reads.clear();
        for key in 0..self.plan.keys {
            if let Some(server) = self.any_member() {
                self.finish.last_reads.push(self.ops.len());
                self.ask(PROBER, server, Ask::Get(key), Mode::Consistent);
            }
        }
    }

    fn all_read(&mut self) -> bool {
        if self.finish.last_reads.iter().any(|op| self.ops[*op].open) {
            return false;
        }
        let failed = |op: &usize| !matches!(self.ops[*op].record.answer, Answer::Row(_));
        if self.finish.last_reads.iter().any(failed) {
            self.read_all();
            return false;
        }
        true
    }

    /// Whether all servers of the cluster hold the same.
    fn same_everywhere(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let Some(standing) = self.servers[leader].standing() else { return false };
        let configuration = standing.configuration.clone();
        let mut seen = None;
        configuration.servers.iter().all(|member| {
            let Some(server) = self.servers.iter().find(|server| server.id == member.id) else {
                return false;
            };
            if server.refused.is_some() {
                return true;
            }
            let Some((applied, state)) = server.published() else { return false };
            let this = (applied, state.fingerprint());
            *seen.get_or_insert(this) == this
        })
    }

    fn why_stuck(&self) -> String {
        let mut story = format!("stuck in stage {:?}:", self.finish.stage);
        for (number, server) in self.servers.iter().enumerate() {
            story += &match server.standing() {
                None => format!("\n  s{number} down, gone {}, refused {:?}", server.gone, server.refused),
                Some(standing) => {
                    let applied = server.published().map_or(0, |(applied, _)| applied);
                    let servers: Vec<String> = standing
                        .configuration
                        .servers
                        .iter()
                        .map(|server| format!("{} {:?}", server.name, server.suffrage))
                        .collect();
                    format!(
                        "\n  s{number} {:?} term {} leader {:?} last {} commit {} applied {applied} repairing {} full {} servers {servers:?}",
                        standing.role,
                        standing.term,
                        standing.leader,
                        standing.last_log_index,
                        standing.commit_index,
                        standing.repairing,
                        standing.disk_full,
                    )
                }
            };
        }
        story
    }

    /// Judges the whole history.
    fn judge(&mut self) {
        let mut history: Vec<_> = self.ops.iter().map(|op| op.record.clone()).collect();
        for op in &mut history {
            let (Answer::Lost, Ask::Set(_, value) | Ask::Cas(_, _, value)) = (op.answer, &op.ask) else {
                continue;
            };
            op.index = self.truth.place_of(*value);
        }
        for op in history.iter().filter(|op| op.answer == Answer::Refused) {
            let (Ask::Set(_, value) | Ask::Cas(_, _, value)) = &op.ask else { continue };
            if let Some(index) = self.truth.place_of(*value) {
                let story = format!("{op:?} was refused and is in the log at {index}");
                return self.fail("what is refused does not happen", story);
            }
        }
        if let Err(violation) = witness::check(&history) {
            return self.require(Err(violation));
        }
        if self.plan.seed.is_multiple_of(10) {
            self.tally.one("histories searched");
            // A read that was never asked to be linearizable is no part of the search.
            history.retain(|op| op.promise == Promise::Linearizable);
            match linear::check(&history) {
                linear::Verdict::Linearizable => {}
                linear::Verdict::Undecided => self.tally.one("histories searched: given up"),
                linear::Verdict::Not(violation) => return self.require(Err(violation)),
            }
        }
        let judge = self.truth.judge();
        let queries: Vec<_> = self
            .queries
            .iter()
            .map(|parked| {
                let mut query = parked.query.clone();
                if parked.open {
                    query.ended = self.now;
                }
                query
            })
            .collect();
        for query in queries {
            if let Err(violation) = judge.check(&query, 0) {
                return self.require(Err(violation));
            }
        }
        self.check_told();
    }
}
