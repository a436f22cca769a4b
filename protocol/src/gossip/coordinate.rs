//! Network coordinates: where a member is, so that the round trip between any two can be told without measuring it.
//!
//! The algorithm and its constants are those of serf's `coordinate` package, so estimates are what Consul's users know: Vivaldi
//! (Dabek and others, SIGCOMM 2004) in eight dimensions and a height, a median over the last few round trips of each
//! peer and a pull towards the origin against drift (Ledlie, Gardner and Seltzer, *Network Coordinates in the Wild*, NSDI
//! 2007), and an adjustment for what no Euclidean space can show (Lee and others, IEEE/ACM ToN 18.1, 2010).
//!
//! Beyond serf: a coordinate that no honest member can have is refused where it comes in, not only one that is not finite. In
//! serf a single peer with a negative error or a position light years away throws a member about at will.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::random::Random;
use crate::wire::{Reader, WireError, put_u8, put_u64};

/// Dimensions of the Euclidean part (serf: `Dimensionality`).
pub const DIMENSIONS: usize = 8;

/// The error of who has not measured anything, and the largest there is (serf: `VivaldiErrorMax`).
pub const ERROR_MAX: f64 = 1.5;

/// How much one observation may change a member's confidence at most (serf: `VivaldiCE`).
const ERROR_WEIGHT: f64 = 0.25;

/// How much one observation may move a member at most (serf: `VivaldiCC`).
const FORCE_WEIGHT: f64 = 0.25;

/// So many of the last observations make the adjustment (serf: `AdjustmentWindowSize`).
const ADJUSTMENT_WINDOW: usize = 20;

/// The smallest height, seconds (serf: `HeightMin`).
pub const HEIGHT_MIN: f64 = 10.0e-6;

/// So many of the last round trips to a peer are kept for their median (serf: `LatencyFilterSize`).
const LATENCY_FILTER: usize = 3;

/// The larger, the weaker the pull towards the origin (serf: `GravityRho`).
const GRAVITY_RHO: f64 = 150.0;

/// The longest round trip that is believed (serf: `maxRTT`).
pub const RTT_MAX: Duration = Duration::from_secs(10);

/// What is shorter, in seconds or without a unit, is taken for nothing (serf: `zeroThreshold`).
const ZERO: f64 = 1.0e-6;

/// The farthest from 0 that a part of a coordinate may be, seconds. Round trips of at most [`RTT_MAX`] keep all honest members within
/// a few times that of the origin: at this distance the pull alone is 0.16 s with every observation.
const REACH_MAX: f64 = 60.0;

/// A place in the space of round trips. All parts are in seconds, but `error`, which has no unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coordinate {
    /// The Euclidean part.
    pub position: [f64; DIMENSIONS],
    /// How little it is to be trusted: from 0 to [`ERROR_MAX`].
    pub error: f64,
    /// What is added to distances from and to it.
    pub adjustment: f64,
    /// The way from the member to the core of the network.
    pub height: f64,
}

impl Default for Coordinate {
    fn default() -> Coordinate {
        Coordinate { position: [0.0; DIMENSIONS], error: ERROR_MAX, adjustment: 0.0, height: HEIGHT_MIN }
    }
}

impl Coordinate {
    /// The estimated round trip between two places.
    pub fn distance_to(&self, other: &Coordinate) -> Duration {
        let raw = self.raw_distance_to(other);
        let adjusted = raw + self.adjustment + other.adjustment;
        let seconds = if adjusted > 0.0 { adjusted } else { raw };
        // Cut to whole nanoseconds, as in serf. The cast saturates, and makes nothing of what is no number.
        Duration::from_nanos((seconds * 1.0e9) as u64)
    }

    /// Whether an honest member can be there.
    pub fn is_plausible(&self) -> bool {
        let within = |part: &f64| part.is_finite() && part.abs() <= REACH_MAX;
        self.position.iter().all(within)
            && within(&self.adjustment)
            && (0.0..=ERROR_MAX).contains(&self.error)
            && (0.0..=REACH_MAX).contains(&self.height)
    }

    /// Appends it to a message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_u8(out, DIMENSIONS as u8);
        let parts = self.position.iter().chain([&self.error, &self.adjustment, &self.height]);
        parts.for_each(|part| put_u64(out, part.to_bits()));
    }

    /// Reads what [`encode`](Self::encode) has written.
    ///
    /// # Errors
    /// It is cut off, has another number of dimensions, or no honest member can be there.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Coordinate, WireError> {
        if usize::from(reader.u8()?) != DIMENSIONS {
            return Err(WireError::Malformed("a coordinate has other dimensions"));
        }
        let mut part = || reader.u64().map(f64::from_bits);
        let mut coordinate = Coordinate::default();
        for dimension in &mut coordinate.position {
            *dimension = part()?;
        }
        coordinate.error = part()?;
        coordinate.adjustment = part()?;
        coordinate.height = part()?;
        if coordinate.is_plausible() {
            Ok(coordinate)
        } else {
            Err(WireError::Malformed("a coordinate where nobody can be"))
        }
    }

    fn raw_distance_to(&self, other: &Coordinate) -> f64 {
        magnitude(&difference(&self.position, &other.position)) + self.height + other.height
    }

    /// Moves away from another place, or towards it when the force is negative.
    fn apply_force(&mut self, force: f64, other: &Coordinate, random: &mut Random) {
        let (direction, distance) = direction(&self.position, &other.position, random);
        for (part, unit) in self.position.iter_mut().zip(direction) {
            *part += unit * force;
        }
        if distance > ZERO {
            let height = (self.height + other.height) * force / distance + self.height;
            self.height = height.max(HEIGHT_MIN);
        }
    }
}

/// Why an observation was not taken. The texts are serf's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// No honest member can be where the peer says it is.
    Coordinate,
    /// The round trip is longer than any that is believed.
    RoundTrip(Duration),
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rejected::Coordinate => f.write_str("coordinate is invalid"),
            Rejected::RoundTrip(rtt) => write!(
                f,
                "round trip time not in valid range, duration {rtt:?} is not a positive value less than {RTT_MAX:?}"
            ),
        }
    }
}

impl std::error::Error for Rejected {}

/// A member's own coordinate, moved by each round trip that it measures.
#[derive(Clone, Debug)]
pub struct Client {
    coordinate: Coordinate,
    /// What the last distances lacked, in a ring.
    adjustments: [f64; ADJUSTMENT_WINDOW],
    adjustment_next: usize,
    /// The last round trips by peer, oldest first; as many peers as there are members, see [`forget`](Self::forget).
    latencies: BTreeMap<String, Latencies>,
    resets: u64,
}

impl Default for Client {
    fn default() -> Client {
        Client {
            coordinate: Coordinate::default(),
            adjustments: [0.0; ADJUSTMENT_WINDOW],
            adjustment_next: 0,
            latencies: BTreeMap::new(),
            resets: 0,
        }
    }
}

impl Client {
    /// Where this member is, as far as it knows.
    pub fn coordinate(&self) -> &Coordinate {
        &self.coordinate
    }

    /// How often it has begun at the origin again, since its own coordinate had become one that nobody would believe.
    pub fn resets(&self) -> u64 {
        self.resets
    }

    /// Starts where this member was in an earlier life. What is not plausible is not taken.
    pub fn restore(&mut self, coordinate: Coordinate) {
        if coordinate.is_plausible() {
            self.coordinate = coordinate;
        }
    }

    /// Takes a round trip to a peer that says where it is.
    ///
    /// # Errors
    /// The peer or the clock tells what cannot be. Nothing has changed.
    pub fn update(
        &mut self,
        peer: &str,
        other: &Coordinate,
        rtt: Duration,
        random: &mut Random,
    ) -> Result<(), Rejected> {
        if !other.is_plausible() {
            return Err(Rejected::Coordinate);
        }
        if rtt > RTT_MAX {
            return Err(Rejected::RoundTrip(rtt));
        }
        let rtt = self.typical_latency(peer, rtt.as_secs_f64());
        self.update_position(other, rtt, random);
        self.update_adjustment(other, rtt);
        self.update_gravity(random);
        if !self.coordinate.is_plausible() {
            // Others would refuse it, too.
            self.resets += 1;
            self.coordinate = Coordinate::default();
            self.adjustments = [0.0; ADJUSTMENT_WINDOW];
        }
        Ok(())
    }

    /// Drops what is kept of a peer that is no member any more.
    pub fn forget(&mut self, peer: &str) {
        self.latencies.remove(peer);
    }

    /// The median of the last round trips to a peer, with this one.
    fn typical_latency(&mut self, peer: &str, rtt: f64) -> f64 {
        if let Some(latencies) = self.latencies.get_mut(peer) {
            latencies.push(rtt);
            return latencies.median();
        }
        self.latencies.insert(peer.to_owned(), Latencies::of(rtt));
        rtt
    }

    fn update_position(&mut self, other: &Coordinate, rtt: f64, random: &mut Random) {
        let distance = self.coordinate.distance_to(other).as_secs_f64();
        let rtt = rtt.max(ZERO);
        let wrongness = (distance - rtt).abs() / rtt;
        let total_error = (self.coordinate.error + other.error).max(ZERO);
        let weight = self.coordinate.error / total_error;
        let share = ERROR_WEIGHT * weight;
        self.coordinate.error = (share * wrongness + self.coordinate.error * (1.0 - share)).min(ERROR_MAX);
        self.coordinate.apply_force(FORCE_WEIGHT * weight * (rtt - distance), other, random);
    }

    fn update_adjustment(&mut self, other: &Coordinate, rtt: f64) {
        // Adjustments so far play no part in this one.
        self.adjustments[self.adjustment_next] = rtt - self.coordinate.raw_distance_to(other);
        self.adjustment_next = (self.adjustment_next + 1) % ADJUSTMENT_WINDOW;
        let sum: f64 = self.adjustments.iter().sum();
        self.coordinate.adjustment = sum / (2.0 * ADJUSTMENT_WINDOW as f64);
    }

    fn update_gravity(&mut self, random: &mut Random) {
        let origin = Coordinate::default();
        let distance = origin.distance_to(&self.coordinate).as_secs_f64();
        let pull = distance / GRAVITY_RHO;
        self.coordinate.apply_force(-(pull * pull), &origin, random);
    }
}

/// The last round trips to one peer, seconds, oldest first.
#[derive(Clone, Copy, Debug)]
struct Latencies {
    samples: [f64; LATENCY_FILTER],
    count: usize,
}

impl Latencies {
    fn of(rtt: f64) -> Latencies {
        Latencies { samples: [rtt; LATENCY_FILTER], count: 1 }
    }

    fn push(&mut self, rtt: f64) {
        if self.count == LATENCY_FILTER {
            self.samples.rotate_left(1);
            self.count -= 1;
        }
        self.samples[self.count] = rtt;
        self.count += 1;
    }

    fn median(&self) -> f64 {
        let mut sorted = self.samples;
        let sorted = &mut sorted[..self.count];
        sorted.sort_unstable_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

/// The unit vector that points from `from` to `at`, and their distance. Where they are the same, a random one, and 0.
fn direction(
    at: &[f64; DIMENSIONS],
    from: &[f64; DIMENSIONS],
    random: &mut Random,
) -> ([f64; DIMENSIONS], f64) {
    let mut vector = difference(at, from);
    let distance = magnitude(&vector);
    if distance > ZERO {
        return (vector.map(|part| part * (1.0 / distance)), distance);
    }
    vector.fill_with(|| unit(random) - 0.5);
    let length = magnitude(&vector);
    if length > ZERO {
        return (vector.map(|part| part * (1.0 / length)), 0.0);
    }
    vector = [0.0; DIMENSIONS];
    vector[0] = 1.0;
    (vector, 0.0)
}

/// A draw from 0 to 1.
fn unit(random: &mut Random) -> f64 {
    (random.draw() >> 11) as f64 / (1u64 << 53) as f64
}

fn difference(one: &[f64; DIMENSIONS], other: &[f64; DIMENSIONS]) -> [f64; DIMENSIONS] {
    std::array::from_fn(|part| one[part] - other[part])
}

fn magnitude(vector: &[f64; DIMENSIONS]) -> f64 {
    vector.iter().map(|part| part * part).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(position: &[f64]) -> Coordinate {
        let mut coordinate = Coordinate { height: 0.0, ..Coordinate::default() };
        coordinate.position[..position.len()].copy_from_slice(position);
        coordinate
    }

    fn close(one: f64, other: f64) {
        assert!((one - other).abs() < ZERO, "{one} is not {other}");
    }

    /// Serf's own figures (coordinate_test.go).
    #[test]
    fn distances_are_those_of_serf() {
        let (mut one, mut other) = (at(&[-0.5, 1.3, 2.4]), at(&[1.2, -2.3, 3.4]));
        let check = |one: &Coordinate, other: &Coordinate, seconds: f64| {
            close(one.distance_to(other).as_secs_f64(), seconds);
            assert_eq!(one.distance_to(other), other.distance_to(one));
        };
        check(&one, &one, 0.0);
        check(&one, &other, 4.104_875_150_354_758);
        one.adjustment = -1.0e6;
        check(&one, &other, 4.104_875_150_354_758);
        (one.adjustment, other.adjustment) = (0.1, 0.2);
        check(&one, &other, 4.104_875_150_354_758 + 0.3);
        (one.height, other.height) = (0.7, 0.1);
        check(&one, &other, 4.104_875_150_354_758 + 0.3 + 0.8);
    }

    /// Serf's own figures (coordinate_test.go).
    #[test]
    fn forces_are_those_of_serf() {
        let mut random = Random::new(1);
        let above = Coordinate { height: HEIGHT_MIN, ..at(&[0.0, 0.0, 2.9]) };
        let mut moved = Coordinate::default();
        moved.apply_force(5.3, &above, &mut random);
        close(moved.position[2], -5.3);
        assert!((moved.height - (HEIGHT_MIN + 2.0 * HEIGHT_MIN * 5.3 / 2.9)).abs() < 1.0e-12);
        moved.apply_force(2.0, &at(&[3.4, 0.0, -5.3]), &mut random);
        close(moved.position[0], -2.0);
        close(moved.position[2], -5.3);

        let mut pulled = Coordinate::default();
        pulled.apply_force(-5.3, &above, &mut random);
        close(pulled.position[2], 5.3);
        assert_eq!(pulled.height, HEIGHT_MIN, "the smallest height is kept");

        let mut apart = at(&[]);
        apart.apply_force(1.0, &at(&[]), &mut random);
        close(magnitude(&apart.position), 1.0);

        let ([x, y, z, ..], _) =
            direction(&at(&[1.0, 2.0, 3.0]).position, &at(&[0.5, 0.6, 0.7]).position, &mut random);
        close(x, 0.182_574_185_835_055_36);
        close(y, 0.511_207_720_338_155);
        close(z, 0.839_841_254_841_254_6);
    }

    /// Serf's own figures (client_test.go).
    #[test]
    fn a_glitch_never_gets_past_the_median() {
        let mut client = Client::default();
        let samples = [0.201, 0.200, 0.207, 1.9, 0.203, 0.199, 0.211];
        let medians = [0.201, 0.201, 0.201, 0.207, 0.207, 0.203, 0.203];
        for (sample, median) in samples.into_iter().zip(medians) {
            assert_eq!(client.typical_latency("alice", sample), median);
        }
        assert_eq!(client.typical_latency("bob", 0.310), 0.310, "peers are apart");
        client.forget("alice");
        assert_eq!(client.typical_latency("alice", 0.888), 0.888);
    }

    #[test]
    fn a_member_moves_away_from_who_is_farther_than_thought() {
        let mut client = Client::default();
        let other = at(&[0.0, 0.0, 0.001]);
        client.update("a", &other, Duration::from_millis(2), &mut Random::new(3)).expect("it is plausible");
        assert!(client.coordinate().position[2] < 0.0);
    }

    /// Figures of serf's client, worked out apart from this code: bit by bit, since all of it is IEEE 754 in one order.
    #[test]
    fn sixty_observations_lead_where_they_lead_serf() {
        let near = [0.010, -0.003, 0.0, 0.002, 0.0, 0.0, 0.0, 0.001];
        let near = Coordinate { position: near, error: 0.4, adjustment: 0.000_1, height: 0.000_5 };
        let far = [-0.004, 0.020, 0.001, 0.0, 0.0, -0.003, 0.0, 0.0];
        let far = Coordinate { position: far, error: 1.1, adjustment: -0.000_2, height: 0.000_02 };
        let (mut client, mut random) = (Client::default(), Random::new(1));
        for turn in 0..30 {
            let rtt = Duration::from_nanos(13_000_000 + turn * 17_123);
            client.update("near", &near, rtt, &mut random).expect("it is plausible");
            let rtt = Duration::from_micros(if turn == 7 { 900_000 } else { 31_500 });
            client.update("far", &far, rtt, &mut random).expect("it is plausible");
        }
        let there = client.coordinate();
        let position = [
            2.719_463_666_171_112_8e-5,
            -0.006_857_372_113_415_139,
            -0.000_364_319_878_851_947_9,
            -0.000_286_016_975_749_215_96,
            0.0,
            0.001_092_959_636_555_844_2,
            0.0,
            -0.000_143_008_487_874_607_98,
        ];
        assert_eq!(there.position, position);
        assert_eq!(there.error, 0.072_290_264_392_159_92);
        assert_eq!((there.adjustment, there.height), (0.001_488_274_285_570_463, 9.386_340_990_301_036e-5));
        let distances = [&near, &far].map(|other| there.distance_to(other).as_nanos());
        assert_eq!(distances, [13_236_358, 28_902_186]);
    }

    #[test]
    fn what_cannot_be_changes_nothing() {
        let mut client = Client::default();
        let mut random = Random::new(3);
        let before = *client.coordinate();
        let none = Coordinate::default();
        let long = RTT_MAX + Duration::from_nanos(1);
        assert_eq!(client.update("a", &none, long, &mut random), Err(Rejected::RoundTrip(long)));
        for hostile in [
            at(&[f64::NAN]),
            at(&[0.0, f64::NEG_INFINITY]),
            at(&[1.0e300]),
            Coordinate { error: -ERROR_MAX, ..none },
            Coordinate { error: f64::NAN, ..none },
            Coordinate { height: -1.0, ..none },
            Coordinate { adjustment: f64::INFINITY, ..none },
        ] {
            let refused = client.update("a", &hostile, Duration::from_millis(1), &mut random);
            assert_eq!(refused, Err(Rejected::Coordinate), "{hostile:?}");
            client.restore(hostile);
        }
        assert_eq!(*client.coordinate(), before);
        assert!(client.latencies.is_empty());
    }

    #[test]
    fn a_broken_state_begins_at_the_origin_again() {
        let mut client = Client::default();
        client.coordinate.position[0] = f64::NAN;
        client
            .update("a", &Coordinate::default(), Duration::from_millis(250), &mut Random::new(3))
            .expect("it is plausible");
        assert_eq!((*client.coordinate(), client.resets()), (Coordinate::default(), 1));
    }

    /// A net of members in a plane, each behind an access link of its own, with jitter; everyone measures a random other.
    #[test]
    fn estimates_come_near_to_a_known_net() {
        const MEMBERS: usize = 30;
        let mut random = Random::new(42);
        let places: Vec<[f64; 3]> =
            (0..MEMBERS).map(|_| [0.08, 0.08, 0.004].map(|side| side * unit(&mut random))).collect();
        let rtt = |one: usize, other: usize| {
            let [a, b] = [places[one], places[other]];
            (a[0] - b[0]).hypot(a[1] - b[1]) + a[2] + b[2] + 0.000_2
        };
        let mut clients = vec![Client::default(); MEMBERS];
        for _ in 0..600 {
            for one in 0..MEMBERS {
                let other = (one + 1 + random.below(MEMBERS - 1)) % MEMBERS;
                let jitter = if random.below(50) == 0 { 5.0 } else { 1.0 + unit(&mut random) * 0.05 };
                let measured = Duration::from_secs_f64(rtt(one, other) * jitter);
                let there = *clients[other].coordinate();
                clients[one]
                    .update(&other.to_string(), &there, measured, &mut random)
                    .expect("honest members are believed");
            }
        }
        let mut errors = Vec::new();
        for one in 0..MEMBERS {
            for other in 0..one {
                let estimated = clients[one].coordinate().distance_to(clients[other].coordinate());
                errors.push((estimated.as_secs_f64() - rtt(one, other)).abs() / rtt(one, other));
            }
        }
        errors.sort_by(f64::total_cmp);
        let (median, worst_tenth) = (errors[errors.len() / 2], errors[errors.len() * 9 / 10]);
        assert!(median < 0.06 && worst_tenth < 0.20, "median {median}, nine of ten below {worst_tenth}");
        assert!(clients.iter().all(|client| client.resets() == 0 && client.coordinate().error < 0.3));
        let centre: f64 = clients.iter().map(|client| client.coordinate().position[0]).sum();
        assert!((centre / MEMBERS as f64).abs() < 0.1, "all together they stay near the origin");
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_plausible(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(coordinate) = Coordinate::decode(&mut Reader::new(&bytes)) {
                prop_assert!(coordinate.is_plausible());
            }
        }

        #[test]
        fn whatever_peers_say_the_own_coordinate_stays_plausible(
            seed in any::<u64>(),
            said in prop::collection::vec((prop::array::uniform11(-REACH_MAX..REACH_MAX), 0u64..20_000_000_000), 1..60),
        ) {
            let mut client = Client::default();
            let mut random = Random::new(seed);
            for (parts, rtt) in said {
                let mut other = at(&parts[..DIMENSIONS]);
                (other.error, other.adjustment, other.height) = (parts[8].abs() % ERROR_MAX, parts[9], parts[10].abs());
                let _ = client.update("a", &other, Duration::from_nanos(rtt), &mut random);
                prop_assert!(client.coordinate().is_plausible());
                let mut bytes = Vec::new();
                client.coordinate().encode(&mut bytes);
                let mut reader = Reader::new(&bytes);
                prop_assert_eq!(Coordinate::decode(&mut reader), Ok(*client.coordinate()));
                prop_assert_eq!(reader.remaining(), 0);
            }
        }
    }
}
