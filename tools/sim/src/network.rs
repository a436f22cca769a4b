//! The wires between servers: each direction of each pair is a link with a mood of its own.
//!
//! A link is a stream: what is sent arrives in order, late or, when the link breaks, not at all. Faults go further than
//! a stream can, to be as rude as a broken link that is set up again: single messages vanish, arrive twice or overtake.

use crate::queue::{MICRO, MILLI, SECOND, Time};
use crate::random::Random;

/// How bad the wires are, drawn per run.
#[derive(Clone, Debug)]
pub struct NetworkMood {
    /// Least time on the wire.
    pub delay_min: Time,
    /// Mean of what comes on top.
    pub delay_mean: Time,
    /// Probability of a delay from the heavy tail.
    pub tail: f64,
    /// Longest delay of the tail.
    pub tail_max: Time,
    /// Probability that a message vanishes.
    pub loss: f64,
    /// Probability that a message that may arrive twice does so.
    pub duplication: f64,
    /// Probability that a message may overtake others.
    pub overtaking: f64,
    /// Probability that a frame is damaged: the receiver resets the link and all on its way is gone.
    pub corruption: f64,
}

impl NetworkMood {
    /// Wires without faults.
    pub fn calm() -> NetworkMood {
        NetworkMood {
            delay_min: 100 * MICRO,
            delay_mean: 200 * MICRO,
            tail: 0.0,
            tail_max: MILLI,
            loss: 0.0,
            duplication: 0.0,
            overtaking: 0.0,
            corruption: 0.0,
        }
    }

    /// Draws a mood. Each kind of fault is absent in half of all runs.
    pub fn draw(random: &mut Random) -> NetworkMood {
        let mut some =
            |most: f64| if random.chance(0.5) { random.unit() * random.unit() * most } else { 0.0 };
        let (loss, duplication, overtaking) = (some(0.2), some(0.2), some(0.3));
        let (tail, corruption) = (some(0.05), some(0.01));
        NetworkMood {
            delay_min: random.log_within(20 * MICRO, 2 * MILLI),
            delay_mean: random.log_within(50 * MICRO, 20 * MILLI),
            tail,
            tail_max: random.log_within(50 * MILLI, 3 * SECOND),
            loss,
            duplication,
            overtaking,
            corruption,
        }
    }
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives then.
    Arrives(Time),
    /// It arrives at both moments.
    Twice(Time, Time),
    /// It is gone.
    Lost,
    /// It and all on its way are gone: the link was reset.
    Reset,
}

/// All links.
pub struct Network {
    /// How bad the wires are now.
    pub mood: NetworkMood,
    random: Random,
    size: usize,
    links: Vec<Link>,
}

#[derive(Clone, Default)]
struct Link {
    cuts: u32,
    clogged_until: Time,
    newest: Time,
    resets: u64,
}

impl Network {
    /// Links between `size` servers.
    pub fn new(size: usize, mood: NetworkMood, random: Random) -> Network {
        Network { mood, random, size, links: vec![Link::default(); size * size] }
    }

    /// Makes room for one more server.
    pub fn grow(&mut self) {
        let (old, size) = (self.size, self.size + 1);
        let mut links = vec![Link::default(); size * size];
        for from in 0..old {
            for to in 0..old {
                links[from * size + to] = self.links[from * old + to].clone();
            }
        }
        (self.size, self.links) = (size, links);
    }

    /// Sends a message. `once`: it must not arrive twice nor overtake.
    pub fn send(&mut self, now: Time, from: usize, to: usize, once: bool) -> Fate {
        let (mood, random) = (&self.mood, &mut self.random);
        let link = &mut self.links[from * self.size + to];
        if link.cuts > 0 || random.chance(mood.loss) {
            return Fate::Lost;
        }
        if random.chance(mood.corruption) {
            link.resets += 1;
            return Fate::Reset;
        }
        let mut delay = mood.delay_min + (mood.delay_mean as f64 * -(1.0 - random.unit()).ln()) as Time;
        if random.chance(mood.tail) {
            delay += random.log_within(mood.delay_mean.max(1), mood.tail_max.max(mood.delay_mean + 1));
        }
        let mut arrival = (now + delay).max(link.clogged_until);
        if once || !random.chance(mood.overtaking) {
            arrival = arrival.max(link.newest + 1);
            link.newest = arrival;
        }
        if !once && random.chance(mood.duplication) {
            return Fate::Twice(arrival, arrival + random.within(1, 4 * mood.delay_mean + MILLI));
        }
        Fate::Arrives(arrival)
    }

    /// How often a link was reset; what was sent before the newest reset does not arrive.
    pub fn resets(&self, from: usize, to: usize) -> u64 {
        self.links[from * self.size + to].resets
    }

    /// Whether a message that is due may come in.
    pub fn passes(&self, from: usize, to: usize, resets: u64) -> bool {
        let link = &self.links[from * self.size + to];
        link.cuts == 0 && link.resets == resets
    }

    /// Whether a direction is cut.
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.links[from * self.size + to].cuts > 0
    }

    /// Cuts one direction. Cuts are counted: as many mends make it whole.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.links[from * self.size + to].cuts += 1;
    }

    /// Takes one cut back.
    pub fn mend(&mut self, from: usize, to: usize) {
        let link = &mut self.links[from * self.size + to];
        link.cuts = link.cuts.saturating_sub(1);
    }

    /// Holds back all that is sent on a link until then.
    pub fn clog(&mut self, from: usize, to: usize, until: Time) {
        self.links[from * self.size + to].clogged_until = until;
    }

    /// Loses all that is on its way on a link.
    pub fn reset(&mut self, from: usize, to: usize) {
        self.links[from * self.size + to].resets += 1;
    }

    /// Makes all links whole and quick.
    pub fn heal(&mut self) {
        self.mood = NetworkMood::calm();
        for link in &mut self.links {
            (link.cuts, link.clogged_until, link.newest) = (0, 0, 0);
        }
    }
}
