//! Gossip: news go to a few random members at a time, and with every other packet that has room (SWIM, 4.1). While there is no news, nothing is
//! sent; the first news after a silence goes out at once.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::broadcast::{Lane, Lanes, transmit_limit};
use super::face::Effect;
use super::settings::{BURST_MAX, PACKET_LENGTH_MAX};
use super::{Gossip, packet};
use crate::entry::Now;

/// When news are spread.
#[derive(Debug, Default)]
pub(super) struct Spread {
    /// When next; none without news.
    pub at: Option<Now>,
    /// When last.
    last: Option<Now>,
}

impl Gossip {
    /// Tells all. It takes the place of what was to be told about the same.
    pub(super) fn broadcast(&mut self, lane: Lane, key: &Arc<str>, encoded: Bytes) {
        self.lanes.push(lane, key, encoded);
        if self.spread.at.is_none() {
            let soonest = self.spread.last.map_or(self.now, |last| last + self.settings.gossip_interval);
            self.spread.at = Some(soonest.max(self.now));
        }
    }

    /// Spreads news if that is due.
    pub(super) fn run_spread(&mut self, out: &mut Vec<Effect>) {
        if self.spread.at.is_none_or(|at| self.now < at) {
            return;
        }
        (self.spread.at, self.spread.last) = (None, Some(self.now));
        let now = self.now;
        let count = self.settings.gossip_nodes;
        let hears = |row: &super::table::Row| row.member.is_live() || now < row.news_until;
        let receivers = self.table.pick(&mut self.random, count, hears);
        if receivers.is_empty() {
            // Nobody is there to be told. Whoever comes gets the full state.
            self.lanes = Lanes::default();
        }
        for (_, address) in receivers {
            self.spread_to(address, out);
        }
        if !self.lanes.is_empty() {
            self.spread.at = Some(self.now + self.settings.gossip_interval);
        }
    }

    /// One packet, or a few while one does not hold it all.
    fn spread_to(&mut self, to: SocketAddr, out: &mut Vec<Effect>) {
        self.lanes.begin_burst();
        for _ in 0..BURST_MAX {
            self.packet.clear();
            let more = self.fill();
            if self.packet.is_empty() {
                return;
            }
            let packet = self.close_packet();
            out.push(Effect::Send { to, packet });
            if !more {
                return;
            }
        }
    }

    /// Sends the packet that was begun, with as much news as has room.
    pub(super) fn post(&mut self, to: SocketAddr, out: &mut Vec<Effect>) {
        self.lanes.begin_burst();
        self.fill();
        let packet = self.close_packet();
        out.push(Effect::Send { to, packet });
    }

    fn fill(&mut self) -> bool {
        let limit = transmit_limit(self.settings.retransmit_mult, self.table.live());
        self.lanes.fill(&mut self.packet, limit)
    }

    fn close_packet(&mut self) -> Bytes {
        let packet = match &mut self.sealer {
            Some(sealer) => packet::close_sealed(sealer, self.packet.body()),
            None => packet::close_plain(self.packet.body()),
        };
        assert!(packet.len() <= PACKET_LENGTH_MAX, "a packet fits a datagram");
        packet
    }

    /// A frame for a stream.
    pub(super) fn close(&mut self, body: &[u8]) -> Bytes {
        match &mut self.sealer {
            Some(sealer) => packet::close_sealed(sealer, body),
            None => packet::close_plain(body),
        }
    }
}
