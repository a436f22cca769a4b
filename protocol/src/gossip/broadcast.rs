//! News on their way to all: each piece is sent a number of times that grows with the logarithm of the pool, what was sent least first
//! (SWIM, 4.1; memberlist: `TransmitLimitedQueue`). A newer piece about the same takes the place of the older.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::packet::PacketWriter;
use super::settings::BROADCASTS_MAX;

/// Lanes are emptied in this order: who is there matters more than what is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    Members,
    Intents,
}

const LANES: usize = 2;

/// Messages that do not fit into the rest of a packet and are looked past for one that does.
const MISFITS_MAX: usize = 16;

/// How often a piece of news was sent; and when it came, the newest first.
type Place = (u32, Reverse<u64>);

#[derive(Debug)]
struct News {
    /// What it is about.
    key: Arc<str>,
    encoded: Bytes,
    /// The burst in which it was sent last.
    burst: u64,
}

#[derive(Debug, Default)]
struct Queue {
    order: BTreeMap<Place, News>,
    /// Where the news about something is.
    places: BTreeMap<Arc<str>, Place>,
}

/// All that is to be told.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    queues: [Queue; LANES],
    /// How many pieces of news there were.
    count: u64,
    /// How many bursts there were.
    bursts: u64,
    /// Places of what went into the packet that is being filled.
    taken: Vec<Place>,
}

impl Lanes {
    /// Tells all. What was still to be told about the same is told no more.
    pub fn push(&mut self, lane: Lane, key: &Arc<str>, encoded: Bytes) {
        self.count += 1;
        let place = (0, Reverse(self.count));
        self.queues[lane as usize].push(place, News { key: key.clone(), encoded, burst: 0 });
    }

    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(|queue| queue.order.is_empty())
    }

    /// Whether news about something is still to be sent.
    pub fn holds(&self, lane: Lane, key: &str) -> bool {
        self.queues[lane as usize].places.contains_key(key)
    }

    /// Packets to another receiver begin.
    pub fn begin_burst(&mut self) {
        self.bursts += 1;
    }

    /// Fills the rest of a packet with what is not yet in this burst. Each piece of news is sent `limit` times. Whether some did not fit.
    pub fn fill(&mut self, packet: &mut PacketWriter, limit: u32) -> bool {
        let mut more = false;
        for queue in &mut self.queues {
            more |= queue.fill(packet, limit, self.bursts, &mut self.taken);
        }
        more
    }
}

impl Queue {
    fn push(&mut self, place: Place, news: News) {
        if let Some(older) = self.places.insert(news.key.clone(), place) {
            self.order.remove(&older);
        }
        self.order.insert(place, news);
        if self.order.len() > BROADCASTS_MAX
            && let Some((_, dropped)) = self.order.pop_last()
        {
            self.places.remove(&dropped.key);
        }
        debug_assert_eq!(self.order.len(), self.places.len());
    }

    fn fill(&mut self, packet: &mut PacketWriter, limit: u32, burst: u64, taken: &mut Vec<Place>) -> bool {
        taken.clear();
        let mut misfits = 0;
        for (place, news) in &self.order {
            if news.burst == burst {
                continue;
            }
            if packet.try_push(&news.encoded) {
                taken.push(*place);
            } else {
                misfits += 1;
                if misfits >= MISFITS_MAX {
                    break;
                }
            }
        }
        for place in taken.drain(..) {
            self.sent(place, limit, burst);
        }
        misfits > 0
    }

    fn sent(&mut self, place: Place, limit: u32, burst: u64) {
        let Some(mut news) = self.order.remove(&place) else { return };
        news.burst = burst;
        let (times, id) = (place.0 + 1, place.1);
        if times < limit {
            self.places.insert(news.key.clone(), (times, id));
            self.order.insert((times, id), news);
        } else {
            self.places.remove(&news.key);
        }
    }
}

/// How often each piece of news is sent in a pool of so many (memberlist: `retransmitLimit`). Sent k times by all who have heard it, it is missed
/// by about one in e^k: so pools of less than ten, which memberlist gives the mult alone, get twice that.
pub(super) fn transmit_limit(mult: u32, live: usize) -> u32 {
    let scale = (live as f64 + 1.0).log10().ceil().max(2.0);
    (mult * scale as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(lanes: &mut Lanes, key: &str, length: usize) {
        lanes.push(Lane::Members, &key.into(), vec![key.as_bytes()[0]; length].into());
    }

    fn fill(lanes: &mut Lanes, limit: u32) -> String {
        let mut packet = PacketWriter::default();
        lanes.begin_burst();
        lanes.fill(&mut packet, limit);
        String::from_utf8_lossy(packet.body()).into_owned()
    }

    #[test]
    fn what_was_sent_least_goes_first_and_each_as_often_as_it_should() {
        let mut lanes = Lanes::default();
        push(&mut lanes, "a", 600);
        push(&mut lanes, "b", 600);
        push(&mut lanes, "c", 600);
        let mut times = [0; 3];
        for _ in 0..5 {
            let sent = fill(&mut lanes, 3);
            for (times, key) in times.iter_mut().zip(["a", "b", "c"]) {
                *times += sent.matches(key).count() / 600;
            }
        }
        assert_eq!(times, [3, 3, 3]);
        assert!(lanes.is_empty());
    }

    #[test]
    fn one_receiver_gets_each_piece_once_in_a_burst() {
        let mut lanes = Lanes::default();
        ["a", "b", "c"].into_iter().for_each(|key| push(&mut lanes, key, 600));
        lanes.begin_burst();
        let mut packet = PacketWriter::default();
        assert!(lanes.fill(&mut packet, 9), "two of three fit");
        packet.clear();
        assert!(!lanes.fill(&mut packet, 9));
        assert_eq!(packet.body().len(), 600, "the third");
    }

    #[test]
    fn newer_news_replaces_older_about_the_same() {
        let mut lanes = Lanes::default();
        push(&mut lanes, "a", 1);
        fill(&mut lanes, 3);
        lanes.push(Lane::Members, &"a".into(), Bytes::from_static(b"z"));
        assert!(lanes.holds(Lane::Members, "a"));
        assert_eq!(
            (fill(&mut lanes, 3), fill(&mut lanes, 3), fill(&mut lanes, 3)),
            ("z".into(), "z".into(), "z".into())
        );
        assert!(lanes.is_empty() && !lanes.holds(Lane::Members, "a"));
    }

    #[test]
    fn a_full_lane_drops_what_was_told_most() {
        let mut lanes = Lanes::default();
        push(&mut lanes, "old", 1300);
        fill(&mut lanes, 9);
        for number in 0..BROADCASTS_MAX {
            lanes.push(Lane::Members, &format!("{number}").into(), Bytes::from_static(b"x"));
        }
        assert!(!lanes.holds(Lane::Members, "old"));
        assert!(lanes.holds(Lane::Members, "0"));
    }

    #[test]
    fn the_number_of_sendings_grows_with_the_logarithm_of_the_pool() {
        assert_eq!([1, 10, 100, 10_000].map(|live| transmit_limit(4, live)), [8, 8, 12, 20]);
    }
}
