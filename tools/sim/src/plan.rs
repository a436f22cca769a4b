//! Everything about a run that its seed decides before it begins. Each knob is drawn anew for each seed, and each kind of
//! fault is left out of many runs: a fault that is always there hides what only happens without it (swarm testing,
//! Groce and others 2012).

use std::time::Duration;

use crate::disk::DiskMood;
use crate::locks::LockPlan;
use crate::network::NetworkMood;
use crate::queue::{MICRO, MILLI, SECOND, Time};
use crate::random::Random;

/// How much of everything a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Half a minute of a cluster: thousands of them say more than one long one.
    Small,
    /// Ten minutes and more of everything.
    Large,
    /// Some minutes with clients that lock.
    Locks,
}

/// A fault that is put in while a run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The servers fall into two groups.
    Split,
    /// The leader hears nobody and nobody hears it.
    IsolateLeader,
    /// One server is alone.
    IsolateOne,
    /// Some directions of some links are cut.
    OneWay,
    /// Each server sees a majority, no two the same one.
    Ring,
    /// Two groups that only one server connects.
    Bridge,
    /// Links of some servers are clogged one after another and opened in another order.
    Swizzle,
    /// A link is set up anew: what was on its way is lost.
    ResetLink,
    /// A server loses power.
    Crash,
    /// The leader loses power.
    CrashLeader,
    /// A server's process is killed.
    Kill,
    /// All servers lose power at once.
    CrashAll,
    /// A server stands still, longer than a lease lasts.
    Pause,
    /// A disk does nothing for a while.
    Stall,
    /// A disk is slow for a while.
    SlowDisk,
    /// A disk is full for a while.
    FullDisk,
    /// One change of a disk fails.
    FailOnce,
    /// All changes of a disk fail for a while.
    FailForLong,
    /// Some bits of a sector flip.
    Rot,
    /// A block is written where another one was.
    Misdirect,
    /// A server is taken out and an empty one added in its place.
    Replace,
    /// A server is added.
    Add,
    /// A server is taken out.
    Remove,
    /// A voter loses its vote.
    Demote,
    /// The lead is handed over.
    Transfer,
    /// A server is told to take a snapshot.
    Snapshot,
    /// The machine of a server sleeps: its clock stands still too.
    Sleep,
    /// The clock of a server leaps ahead by an hour.
    Leap,
}

/// All kinds.
pub const FAULTS: [Fault; 26] = [
    Fault::Split,
    Fault::IsolateLeader,
    Fault::IsolateOne,
    Fault::OneWay,
    Fault::Ring,
    Fault::Bridge,
    Fault::Swizzle,
    Fault::ResetLink,
    Fault::Crash,
    Fault::CrashLeader,
    Fault::Kill,
    Fault::CrashAll,
    Fault::Pause,
    Fault::Stall,
    Fault::SlowDisk,
    Fault::FullDisk,
    Fault::FailOnce,
    Fault::FailForLong,
    Fault::Rot,
    Fault::Misdirect,
    Fault::Replace,
    Fault::Add,
    Fault::Remove,
    Fault::Demote,
    Fault::Transfer,
    Fault::Snapshot,
];

/// Those of runs with locks, some of them more often than others.
const LOCK_FAULTS: [Fault; 20] = [
    Fault::Split,
    Fault::IsolateLeader,
    Fault::IsolateLeader,
    Fault::IsolateOne,
    Fault::OneWay,
    Fault::Bridge,
    Fault::ResetLink,
    Fault::Crash,
    Fault::CrashLeader,
    Fault::Kill,
    Fault::CrashAll,
    Fault::Pause,
    Fault::Pause,
    Fault::Stall,
    Fault::Transfer,
    Fault::Transfer,
    Fault::Snapshot,
    Fault::Sleep,
    Fault::Sleep,
    Fault::Leap,
];

/// How often clients do what, in parts of all.
#[derive(Clone, Debug)]
pub struct Mix {
    /// Reads that promise no more than a prefix.
    pub stale: u64,
    /// Reads as the leader's lease allows.
    pub default: u64,
    /// Reads that a majority confirms.
    pub consistent: u64,
    /// Writes.
    pub set: u64,
    /// Conditional writes.
    pub cas: u64,
    /// Removals.
    pub delete: u64,
    /// Conditional removals.
    pub delete_cas: u64,
    /// Removals of all keys.
    pub delete_all: u64,
}

/// What a seed decides.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Servers at the start.
    pub servers: usize,
    /// Until when faults are put in.
    pub duration: Time,
    /// See `muster_protocol::raft::Options`.
    pub election_timeout: Duration,
    /// See there.
    pub heartbeat_interval: Duration,
    /// See there.
    pub disk_stall_limit: Duration,
    /// How long a write waits for a leader.
    pub hold_timeout: Duration,
    /// Entries between two snapshots.
    pub snapshot_threshold: u64,
    /// Entries that are kept behind a snapshot.
    pub trailing: u64,
    /// Entries that are applied before their state is published.
    pub batch_max: usize,
    /// How long a server that has more to apply takes for one batch of it.
    pub batch_time: Time,
    /// Bytes of a segment of the log.
    pub segment_bytes: u64,
    /// Bytes of entries in one message.
    pub message_bytes: u64,
    /// Messages with entries on their way to one server.
    pub in_flight: usize,
    /// Clients that read and write.
    pub clients: usize,
    /// Clients that only watch.
    pub watchers: usize,
    /// Keys.
    pub keys: u32,
    /// Mean pause of a client between two operations.
    pub think: Time,
    /// How long a client waits for an answer.
    pub patience: Time,
    /// Longest value, bytes.
    pub value_bytes: u64,
    /// What clients do.
    pub mix: Mix,
    /// Probability that a client asks another server than last time.
    pub wander: f64,
    /// Probability that an answer does not reach its client.
    pub answer_loss: f64,
    /// The wires while faults are put in.
    pub network: NetworkMood,
    /// The disks at the start.
    pub disk: DiskMood,
    /// The kinds of faults of this run.
    pub faults: Vec<Fault>,
    /// Probability that a new leader loses power before it has said much.
    pub short_reigns: f64,
    /// By how much sooner than other faults end a server is started again.
    pub restart_haste: u64,
    /// How often the operator asks for the next thing before the one before is done.
    pub haste: f64,
    /// Mean time between two faults.
    pub fault_pause: Time,
    /// Mean time that one lasts.
    pub fault_length: Time,
    /// Clients that lock.
    pub locks: Option<LockPlan>,
}

impl Plan {
    /// Draws the plan of a seed.
    pub fn draw(seed: u64, profile: Profile, random: &mut Random) -> Plan {
        let servers = *random.one(&[1, 3, 3, 3, 3, 3, 5, 5]);
        let election_timeout = random.log_within(150 * MILLI, 1500 * MILLI);
        let duration = match profile {
            Profile::Small => random.within(10, 40) * SECOND,
            Profile::Large => random.within(300, 1200) * SECOND,
            Profile::Locks => random.within(30, 90) * SECOND,
        };
        let most = if random.chance(0.2) { FAULTS.len() } else { random.within(1, 8) as usize };
        let mut kinds = FAULTS.to_vec();
        random.shuffle(&mut kinds);
        kinds.truncate(most);
        kinds.sort_unstable();
        let plan = Plan {
            seed,
            servers,
            duration,
            election_timeout: Duration::from_nanos(election_timeout),
            heartbeat_interval: Duration::from_nanos(election_timeout / random.within(3, 10)),
            disk_stall_limit: Duration::from_nanos(random.log_within(100 * MILLI, 2 * SECOND)),
            hold_timeout: Duration::from_nanos(random.log_within(200 * MILLI, 7 * SECOND)),
            snapshot_threshold: random.log_within(8, 400),
            trailing: random.log_within(1, 200),
            batch_max: if random.chance(0.3) { random.log_within(1, 8) as usize } else { 1024 },
            batch_time: random.log_within(MICRO, 10 * MILLI),
            segment_bytes: random.log_within(4, 64) * 4096,
            message_bytes: random.log_within(200, 512 << 10),
            in_flight: random.log_within(1, 64) as usize,
            clients: random.within(3, 10) as usize,
            watchers: random.within(1, 4) as usize,
            keys: random.log_within(1, 12) as u32,
            think: random.log_within(5 * MILLI, 400 * MILLI),
            patience: random.log_within(SECOND, 8 * SECOND),
            value_bytes: random.log_within(8, 2000),
            mix: Mix::draw(random),
            wander: if random.chance(0.5) { 0.05 } else { random.unit() },
            answer_loss: if random.chance(0.5) { 0.0 } else { random.unit() * 0.1 },
            network: NetworkMood::draw(random),
            disk: DiskMood::draw(random),
            faults: kinds,
            short_reigns: 0.0,
            restart_haste: 1,
            haste: 0.2,
            fault_pause: random.log_within(200 * MILLI, 4 * SECOND),
            fault_length: random.log_within(100 * MILLI, 4 * SECOND),
            locks: None,
        };
        if profile == Profile::Locks {
            return plan.with_locks(random);
        }
        match random.below(24) {
            0 | 1 => plan.with_churn(random),
            2 => plan.with_naps(random),
            3 | 6 => plan.with_deaths(random),
            4 => plan.with_transfers(random),
            5 => plan.with_haste(random),
            7 => plan.with_damage(random),
            8 => plan.with_backlogs(random),
            _ => plan,
        }
    }

    /// Leaders fall one after another, each with little of what it wanted to say said: entries travel one by one and slowly.
    fn with_churn(self, random: &mut Random) -> Plan {
        let timeout = self.election_timeout.as_nanos() as Time;
        let mut network = self.network;
        network.delay_mean = random.within(timeout / 60, timeout / 15);
        let mut disk = self.disk;
        if random.chance(0.5) {
            // What is said before it is durable is heard before it is durable.
            disk.write_mean = network.delay_mean * random.within(1, 6);
        }
        Plan {
            disk,
            servers: *random.one(&[3, 3, 5]),
            message_bytes: 1,
            short_reigns: random.unit(),
            in_flight: random.within(1, 2) as usize,
            faults: vec![
                *random.one(&[Fault::CrashLeader, Fault::IsolateLeader, Fault::CrashAll]),
                Fault::CrashLeader,
            ],
            fault_pause: random.within(timeout, 4 * timeout),
            fault_length: random.within(timeout / 2, 4 * timeout),
            think: self.think.min(40 * MILLI),
            network,
            ..self
        }
    }

    /// Servers that stand still for longer than a lease while much is on the wires, and clients that read what was just written.
    fn with_naps(self, random: &mut Random) -> Plan {
        let timeout = self.election_timeout.as_nanos() as Time;
        let mut network = self.network.clone();
        network.delay_mean = random.within(timeout / 60, timeout / 8);
        Plan {
            servers: *random.one(&[3, 3, 5]),
            faults: vec![Fault::Pause],
            fault_pause: random.within(2 * timeout, 4 * timeout),
            fault_length: timeout,
            network,
            ..self.with_readers()
        }
    }

    /// Voters die and are back at once, while a leader that only some of them hear counts on what they said.
    fn with_deaths(self, random: &mut Random) -> Plan {
        let timeout = self.election_timeout.as_nanos() as Time;
        Plan {
            servers: 3,
            faults: vec![Fault::Bridge, Fault::Kill, Fault::Kill, Fault::Kill],
            fault_pause: random.within(timeout / 3, timeout),
            fault_length: random.within(3 * timeout, 6 * timeout),
            restart_haste: random.within(100, 1000),
            // A candidate must have all of the log: so few writes, and few signs of life that would tell of the leader.
            heartbeat_interval: self.election_timeout / 3,
            mix: Mix {
                stale: 0,
                default: 40,
                consistent: 0,
                set: 1,
                cas: 0,
                delete: 0,
                delete_cas: 0,
                delete_all: 0,
            },
            disk: DiskMood { write_mean: self.disk.write_mean.min(MILLI), ..self.disk.clone() },
            ..self.with_readers()
        }
    }

    /// The lead goes from one to the next while wires are slow or cut.
    fn with_transfers(self, random: &mut Random) -> Plan {
        let timeout = self.election_timeout.as_nanos() as Time;
        let mut network = self.network.clone();
        network.delay_mean = random.within(timeout / 100, timeout / 15);
        (network.tail, network.tail_max) = (random.unit() * 0.1, timeout);
        Plan {
            servers: *random.one(&[3, 3, 5]),
            faults: vec![Fault::Transfer, Fault::Transfer, *random.one(&[Fault::OneWay, Fault::Transfer])],
            fault_pause: random.within(timeout / 2, timeout),
            fault_length: random.within(timeout / 4, timeout),
            network,
            ..self.with_readers()
        }
    }

    /// Servers are replaced in haste while leaders are cut off.
    fn with_haste(self, random: &mut Random) -> Plan {
        let timeout = self.election_timeout.as_nanos() as Time;
        Plan {
            servers: 3,
            haste: 1.0,
            faults: vec![Fault::Replace, Fault::IsolateLeader],
            fault_pause: random.within(timeout, 4 * timeout),
            fault_length: random.within(timeout, 4 * timeout),
            ..self.with_readers()
        }
    }

    /// One disk after another is damaged while one server after another is away.
    fn with_damage(self, random: &mut Random) -> Plan {
        let timeout = self.election_timeout.as_nanos() as Time;
        let away = *random.one(&[Fault::IsolateOne, Fault::IsolateLeader, Fault::Crash]);
        Plan {
            servers: 3,
            faults: vec![
                Fault::Rot,
                Fault::Rot,
                Fault::Misdirect,
                away,
                Fault::IsolateLeader,
                Fault::CrashLeader,
            ],
            fault_pause: random.within(timeout / 2, 3 * timeout),
            fault_length: random.within(timeout, 4 * timeout),
            snapshot_threshold: 400,
            ..self
        }
    }

    /// New leaders that hold much that they have not applied yet, and clients that read at once.
    fn with_backlogs(self, random: &mut Random) -> Plan {
        let timeout = self.election_timeout.as_nanos() as Time;
        Plan {
            servers: *random.one(&[3, 3, 5]),
            batch_max: random.within(1, 3) as usize,
            batch_time: random.within(timeout / 200, timeout / 20),
            faults: vec![
                Fault::Transfer,
                *random.one(&[Fault::CrashLeader, Fault::IsolateLeader, Fault::Pause]),
                *random.one(&[Fault::Kill, Fault::CrashAll]),
            ],
            fault_pause: random.within(timeout, 4 * timeout),
            fault_length: random.within(timeout / 2, 3 * timeout),
            snapshot_threshold: 400,
            ..self.with_readers()
        }
    }

    /// Clients that lock, few others, and faults that last long enough for sessions to go.
    fn with_locks(self, random: &mut Random) -> Plan {
        let most = random.within(1, 5) as usize;
        let mut kinds = LOCK_FAULTS.to_vec();
        random.shuffle(&mut kinds);
        kinds.truncate(most);
        kinds.sort_unstable();
        Plan {
            servers: *random.one(&[1, 3, 3, 3, 3, 5]),
            clients: 1,
            watchers: 1,
            think: self.think.max(200 * MILLI),
            // Most states are looked at one by one then.
            batch_max: if random.chance(0.7) { 1 } else { self.batch_max },
            faults: kinds,
            fault_pause: random.log_within(SECOND, 10 * SECOND),
            fault_length: random.log_within(200 * MILLI, 10 * SECOND),
            locks: Some(LockPlan::draw(random)),
            // A machine that sleeps keeps its lease longer than others think: what rests on leases alone is not judged here.
            mix: Mix { default: 0, consistent: self.mix.consistent + 4, ..self.mix },
            ..self
        }
    }

    /// Many clients that read what was just written, anywhere.
    fn with_readers(self) -> Plan {
        Plan {
            keys: self.keys.min(3),
            clients: 10,
            wander: 0.3,
            mix: Mix { default: 20, set: 12, ..self.mix },
            think: self.think.min(20 * MILLI),
            ..self
        }
    }
}

impl Mix {
    fn draw(random: &mut Random) -> Mix {
        let mut part = |most: u64| if random.chance(0.3) { 0 } else { random.within(1, most) };
        Mix {
            stale: part(8),
            default: part(12) + 1,
            consistent: part(6),
            set: part(12) + 2,
            cas: part(8),
            delete: part(3),
            delete_cas: part(3),
            delete_all: part(1),
        }
    }
}
