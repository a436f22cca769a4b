//! The network between the members: what is lost, comes twice, late or damaged, and who does not hear whom.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::queue::{MILLI, SECOND, Time};
use crate::random::Random;

/// How good all wires are.
#[derive(Clone, Copy, Debug)]
pub struct Quality {
    /// Share of packets lost.
    pub loss: f64,
    /// That come twice.
    pub doubles: f64,
    /// In which one byte is another.
    pub damage: f64,
    /// The shortest way.
    pub delay_min: Time,
    /// What is added to it, on average; so packets overtake each other.
    pub delay_mean: Time,
    /// Share of packets that take up to a second.
    pub tail: f64,
}

impl Quality {
    /// A network in one building.
    pub fn quiet() -> Quality {
        Quality {
            loss: 0.0,
            doubles: 0.0,
            damage: 0.0,
            delay_min: MILLI / 10,
            delay_mean: MILLI / 2,
            tail: 0.0,
        }
    }
}

/// Who does not hear whom.
#[derive(Clone, Debug)]
pub enum Cut {
    /// Nothing goes from those who are marked to the others; nor back, if both.
    Sides { marked: Vec<bool>, both: bool },
    /// Nothing goes from the first to the second.
    Links(BTreeSet<(u32, u32)>),
}

impl Cut {
    /// Whether what one sends does not reach the other.
    pub fn blocks(&self, from: u32, to: u32) -> bool {
        match self {
            Cut::Sides { marked, both } => match (marked[from as usize], marked[to as usize]) {
                (true, false) => true,
                (false, true) => *both,
                _ => false,
            },
            Cut::Links(links) => links.contains(&(from, to)),
        }
    }

    /// Whether it explains that one takes the other for failed.
    pub fn explains(&self, observer: u32, subject: u32) -> bool {
        match self {
            Cut::Sides { marked, .. } => marked[observer as usize] != marked[subject as usize],
            Cut::Links(links) => {
                [(observer, subject), (subject, observer)].iter().any(|link| links.contains(link))
            }
        }
    }
}

/// The wires.
pub struct Wires {
    pub quality: Quality,
    /// By a number that says which is healed.
    cuts: Vec<(u64, Cut)>,
    random: Random,
}

impl Wires {
    pub fn new(quality: Quality, random: Random) -> Wires {
        Wires { quality, cuts: Vec::new(), random }
    }

    pub fn cut(&mut self, number: u64, cut: Cut) {
        self.cuts.push((number, cut));
    }

    /// The cut that is healed, if it was not before.
    pub fn heal(&mut self, number: u64) -> Option<Cut> {
        let place = self.cuts.iter().position(|(other, _)| *other == number)?;
        Some(self.cuts.swap_remove(place).1)
    }

    /// Numbers of all cuts.
    pub fn numbers(&self) -> Vec<u64> {
        self.cuts.iter().map(|(number, _)| *number).collect()
    }

    pub fn is_cut(&self, from: u32, to: u32) -> bool {
        self.cuts.iter().any(|(_, cut)| cut.blocks(from, to))
    }

    /// Whether a cut explains that one takes the other for failed.
    pub fn explains(&self, observer: u32, subject: u32) -> bool {
        self.cuts.iter().any(|(_, cut)| cut.explains(observer, subject))
    }

    /// Whether there is a cut between sides.
    pub fn is_split(&self) -> bool {
        self.cuts.iter().any(|(_, cut)| matches!(cut, Cut::Sides { .. }))
    }

    /// The ways that copies of a packet take, if any.
    pub fn ways(&mut self, from: u32, to: u32) -> impl Iterator<Item = Time> {
        let quality = self.quality;
        let copies = 1 + usize::from(quality.doubles > 0.0 && self.random.chance(quality.doubles));
        let cut = self.is_cut(from, to);
        let mut ways = [None; 2];
        for way in ways.iter_mut().take(copies) {
            let lost = cut || quality.loss > 0.0 && self.random.chance(quality.loss);
            *way = (!lost).then(|| self.way());
        }
        ways.into_iter().flatten()
    }

    fn way(&mut self) -> Time {
        let Quality { delay_min, delay_mean, tail, .. } = self.quality;
        let spread = (-(1.0 - self.random.unit()).ln() * delay_mean as f64) as Time;
        let late = if tail > 0.0 && self.random.chance(tail) { self.random.below(SECOND) } else { 0 };
        delay_min + spread.min(10 * delay_mean) + late
    }

    /// What arrives of a packet: mostly the packet.
    pub fn carried(&mut self, packet: &Bytes) -> (Bytes, bool) {
        if self.quality.damage == 0.0 || !self.random.chance(self.quality.damage) || packet.is_empty() {
            return (packet.clone(), false);
        }
        let mut bytes = packet.to_vec();
        let place = self.random.below(bytes.len() as u64) as usize;
        bytes[place] ^= 1 << self.random.below(8);
        (bytes.into(), true)
    }

    /// How long it takes to open a stream and send something over it; what is lost is sent again, later and later.
    pub fn stream_way(&mut self) -> Time {
        let mut way = 2 * self.way();
        let mut again = 200 * MILLI;
        for _ in 0..6 {
            if self.quality.loss == 0.0 || !self.random.chance(self.quality.loss) {
                break;
            }
            (way, again) = (way + again, again * 2);
        }
        way
    }
}
