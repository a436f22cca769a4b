//! What a run is: the pool, its wires, and which faults there are. All of it is drawn from the seed, but for what the command line fixes.

use std::time::Duration;

use muster_protocol::gossip::Settings;

use super::wires::Quality;
use crate::queue::{MICRO, MILLI, SECOND, Time};
use crate::random::Random;

/// Loss up to which members promise to declare nobody failed who is there.
pub const LOSS_PROMISED: f64 = 0.25;

/// Pools of up to this many are joined one by one; larger ones begin as if they had known each other for long.
const JOINED_MAX: usize = 200;

/// Which faults there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faults {
    /// None; events are fired.
    None,
    /// Members crash, alone and many at once, and start again.
    Crashes,
    /// At any time a random third of the members stands still, again and again, for up to a minute.
    Observers,
    /// What nobody who is there may be declared failed for: a quarter of packets lost, others late, twice and overtaken, and members that
    /// stand still for less than a suspicion lasts. Members crash and leave meanwhile.
    Promised,
    /// Everything, most runs with some of it only.
    Swarm,
}

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    pub members: usize,
    /// How long the faults last.
    pub span: Time,
    /// Share of packets lost; drawn unless given.
    pub loss: Option<f64>,
    pub faults: Faults,
}

/// What may be done to a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A member stands still, shorter than a suspicion lasts.
    Pause,
    /// Longer.
    LongPause,
    Crash,
    /// A twentieth of all at once.
    CrashMany,
    /// A member leaves, and may come again.
    Leave,
    /// Two sides do not hear each other, or one the other.
    Split,
    /// One member is cut off, or hears nothing, or is not heard.
    Isolate,
    /// A few links lead nowhere, in one direction.
    Links,
    /// A member says something else of itself.
    Retag,
    Event,
    Query,
    /// An operator says that a member is gone, which is true or not.
    ForceLeave,
    /// And that it is to be forgotten.
    Prune,
}

/// All of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub members: usize,
    pub span: Time,
    pub faults: Faults,
    pub quality: Quality,
    pub settings: Settings,
    /// Whether all is sealed with a key.
    pub sealed: bool,
    /// Whether they join one by one.
    pub joined: bool,
    /// Whether who starts again remembers what it knew.
    pub remember: bool,
    /// Mean time from one act to the next.
    pub between: Time,
    /// Acts and how often each is drawn.
    pub acts: Vec<(Act, u64)>,
}

impl Plan {
    /// The plan of a seed.
    pub fn draw(options: &Options, random: &mut Random) -> Plan {
        let swarm = options.faults == Faults::Swarm;
        let mut quality = Quality::quiet();
        if swarm {
            quality = quality_of_swarm(random);
        }
        if options.faults == Faults::Promised {
            quality =
                Quality { loss: LOSS_PROMISED, doubles: 0.1, tail: 0.01, delay_mean: 20 * MILLI, ..quality };
        }
        if let Some(loss) = options.loss {
            quality.loss = loss;
        }
        let mut settings = Settings::lan();
        settings.common_tags = vec![("dc".into(), "datacenter".into())];
        if swarm {
            settings.stream_probes = random.chance(0.75);
            settings.coordinates = random.chance(0.75);
            if random.chance(0.5) {
                settings.reconnect_timeout = Duration::from_secs(random.within(300, 1200));
                settings.tombstone_timeout = Duration::from_secs(random.within(300, 1200));
            }
        }
        let acts = acts(options.faults, options.members, random);
        let between = match options.faults {
            Faults::None => 20 * SECOND,
            Faults::Crashes => 30 * SECOND,
            Faults::Observers => 10 * SECOND,
            Faults::Promised => 10 * SECOND,
            Faults::Swarm => random.log_within(2 * SECOND, 20 * SECOND),
        };
        Plan {
            members: options.members,
            span: options.span,
            faults: options.faults,
            quality,
            settings,
            sealed: swarm && options.members <= 100 && random.chance(0.2),
            joined: options.members <= JOINED_MAX,
            remember: random.chance(0.5),
            between,
            acts,
        }
    }

    /// The shortest suspicion in a pool of so many: who stands still for less is not declared failed.
    pub fn suspicion_min(&self, live: usize) -> Time {
        let base = self.settings.probe_interval * self.settings.suspicion_mult;
        base.mul_f64((live.max(1) as f64).log10().max(1.0)).as_nanos() as Time
    }

    /// The time in which all know of a failure: the longest suspicion, and what probing and spreading take. Where packets are lost,
    /// members mistrust themselves and give others more time (Lifeguard, IV-A).
    pub fn detection_bound(&self, live: usize) -> Time {
        let longest = self.suspicion_min(live) * Time::from(self.settings.suspicion_max_mult) + 15 * SECOND;
        let calm = self.quality.loss == 0.0 && matches!(self.faults, Faults::None | Faults::Crashes);
        if calm { longest } else { longest * 2 }
    }

    /// How long after a fault others may still believe what was true during it.
    pub fn grace(&self) -> Time {
        2 * self.suspicion_min(self.members) + 20 * SECOND
    }

    /// How often states are exchanged.
    pub fn exchange_interval(&self) -> Time {
        let doublings = (self.members as f64 / 32.0).log2().max(0.0).ceil() as u32;
        (self.settings.push_pull_interval * (doublings + 1)).as_nanos() as Time
    }

    /// The time in which all tables agree once all is healed.
    pub fn convergence_bound(&self) -> Time {
        3 * self.exchange_interval() + 2 * self.detection_bound(self.members) + 120 * SECOND
    }
}

fn quality_of_swarm(random: &mut Random) -> Quality {
    Quality {
        loss: *random.one(&[0.0, 0.0, 0.01, 0.05, 0.1, 0.25, 0.25]),
        doubles: *random.one(&[0.0, 0.0, 0.02, 0.1]),
        damage: *random.one(&[0.0, 0.0, 0.001, 0.02]),
        delay_min: random.log_within(50 * MICRO, 5 * MILLI),
        delay_mean: random.log_within(100 * MICRO, 60 * MILLI),
        tail: *random.one(&[0.0, 0.0, 0.001, 0.01]),
    }
}

/// Most runs leave most out: what hides behind another fault shows in some.
fn acts(faults: Faults, members: usize, random: &mut Random) -> Vec<(Act, u64)> {
    let fixed: &[(Act, u64)] = match faults {
        Faults::None => &[(Act::Event, 3), (Act::Retag, 1)],
        Faults::Crashes => &[(Act::Crash, 6), (Act::CrashMany, 1), (Act::Event, 3)],
        Faults::Observers => &[(Act::Event, 1)],
        Faults::Promised => &[(Act::Pause, 6), (Act::Crash, 2), (Act::Leave, 1), (Act::Event, 3)],
        Faults::Swarm => &[],
    };
    if !fixed.is_empty() {
        return fixed.to_vec();
    }
    let kinds = [
        (Act::Pause, 8),
        (Act::LongPause, 3),
        (Act::Crash, 4),
        (Act::CrashMany, 1),
        (Act::Leave, 3),
        (Act::Split, 1),
        (Act::Isolate, 2),
        (Act::Links, 2),
        (Act::Retag, 2),
        (Act::Event, 4),
        (Act::ForceLeave, 2),
        (Act::Prune, 2),
    ];
    let mut acts: Vec<_> = kinds.into_iter().filter(|_| random.chance(0.6)).collect();
    if members <= 1000 && random.chance(0.5) {
        acts.push((Act::Query, 1));
    }
    acts.push((Act::Event, 4));
    acts
}
