//! The failure detector (SWIM, 3.1, 4.3): in each period one member is asked whether it is there, all of them in turn, in a new random order each
//! round. Without an answer in time, others are asked to ask it, and it is asked over a stream. Nobody's word by then: it is suspected.
//!
//! How long that takes grows with this agent's own bad health (Lifeguard, IV-A), which it learns from answers that it missed and from helpers
//! that did not even say that they are there themselves.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::claims::Heard;
use super::face::{Effect, StreamId};
use super::message::{Ack, Alive, Call, Frame, Message, Ping, PingRequest, Suspect};
use super::pushpull::Errand;
use super::settings::RELAYS_MAX;
use super::{Gossip, packet};
use crate::entry::Now;
use crate::random::Random;

/// Whom to ask next, and who is being asked.
#[derive(Debug, Default)]
pub(super) struct Prober {
    /// All members in the order of this round.
    round: Vec<Arc<str>>,
    /// How many of them were asked.
    asked: usize,
    /// When the next period begins; none while this agent is alone.
    pub next_at: Option<Now>,
    current: Option<Probe>,
    relays: Relays,
    /// When another stranger may be met.
    next_stranger_at: Now,
}

/// A member is being asked.
#[derive(Debug)]
struct Probe {
    target: Arc<str>,
    /// Of the question that was sent directly.
    token: u32,
    sent: Now,
    /// When others are to be asked; none once they are.
    indirect_at: Option<Now>,
    /// Of the questions that went through others, or over a stream.
    indirect_token: u32,
    /// Who was asked to ask and has not said a word.
    silent: Vec<SocketAddr>,
    /// How many were asked to.
    helpers: usize,
}

/// Questions that were asked for others.
#[derive(Debug, Default)]
struct Relays {
    by_token: BTreeMap<u32, Relay>,
    /// When to say that there is no answer so far; in order, since all wait equally long.
    nacks: VecDeque<(Now, u32)>,
    /// When an answer is of no use any more.
    ends: VecDeque<(Now, u32)>,
}

#[derive(Debug)]
struct Relay {
    asker: SocketAddr,
    token: u32,
}

impl Prober {
    /// A member is new, or back: it gets a random place in what is left of the round.
    pub fn meet(&mut self, name: &Arc<str>, random: &mut Random) {
        let place = self.asked + random.below(self.round.len() - self.asked + 1);
        self.round.insert(place, name.clone());
    }

    /// When something is to be done.
    pub fn deadline(&self) -> Option<Now> {
        let indirect_at = self.current.as_ref().and_then(|probe| probe.indirect_at);
        let nack = self.relays.nacks.front().map(|(at, _)| *at);
        let end = self.relays.ends.front().map(|(at, _)| *at);
        [self.next_at, indirect_at, nack, end].into_iter().flatten().min()
    }

    /// What is under way tells nothing: this agent stood still.
    pub fn abandon(&mut self) {
        self.current = None;
    }
}

impl Gossip {
    /// Begins, goes on with, and ends what is due.
    pub(super) fn run_probes(&mut self, out: &mut Vec<Effect>) {
        self.run_relays(out);
        if self.table.live() <= 1 || !self.table.own().member.is_live() {
            self.prober.next_at = None;
            self.prober.current = None;
            return;
        }
        let Some(next_at) = self.prober.next_at else {
            // Agents that start together shall not probe together.
            self.prober.next_at = Some(self.now + self.random.span(self.settings.probe_interval));
            return;
        };
        let indirect_at = self.prober.current.as_ref().and_then(|probe| probe.indirect_at);
        if self.now >= next_at {
            self.end_probe(out);
            self.begin_probe(out);
        } else if indirect_at.is_some_and(|at| self.now >= at) {
            self.probe_indirectly(out);
        }
    }

    fn begin_probe(&mut self, out: &mut Vec<Effect>) {
        self.prober.next_at = Some(self.now + self.awareness.scale(self.settings.probe_interval));
        let Some(target) = self.next_target() else { return };
        let Some(address) = self.table.row(&target).map(|row| row.member.address) else { return };
        let (token, indirect_token) = (self.random.draw() as u32, self.random.draw() as u32);
        self.ask(token, &target, address, out);
        self.prober.current = Some(Probe {
            target,
            token,
            sent: self.now,
            indirect_at: Some(self.now + self.awareness.scale(self.settings.probe_timeout)),
            indirect_token,
            silent: Vec::new(),
            helpers: 0,
        });
    }

    /// Who was not asked yet in this round; a new round when all were.
    fn next_target(&mut self) -> Option<Arc<str>> {
        for _ in 0..2 {
            while let Some(name) = self.prober.round.get(self.prober.asked) {
                self.prober.asked += 1;
                if self.table.row(name).is_some_and(|row| row.member.is_live()) {
                    return Some(name.clone());
                }
            }
            let own = self.table.own_name();
            let others = self.table.rows().filter(|row| row.member.is_live() && row.member.name != *own);
            self.prober.round = others.map(|row| row.member.name.clone()).collect();
            self.random.shuffle(&mut self.prober.round);
            self.prober.asked = 0;
        }
        None
    }

    fn ask(&mut self, token: u32, target: &Arc<str>, address: SocketAddr, out: &mut Vec<Effect>) {
        let from = self.table.own_name().clone();
        self.packet.clear();
        self.packet.push(&Message::Ping(Ping { token, to: target, from: &from }));
        self.push_doubt(target);
        self.post(address, out);
    }

    /// No direct answer so far.
    fn probe_indirectly(&mut self, out: &mut Vec<Effect>) {
        let Some(probe) = &mut self.prober.current else { return };
        probe.indirect_at = None;
        let (target, token) = (probe.target.clone(), probe.indirect_token);
        let count = self.settings.indirect_checks;
        // Who is suspected itself may be of no help.
        let fits = |row: &super::table::Row| {
            row.member.is_live() && row.suspicion.is_none() && row.member.name != target
        };
        let helpers = self.table.pick(&mut self.random, count, fits);
        let from = self.table.own_name().clone();
        for (_, address) in &helpers {
            self.packet.clear();
            self.packet.push(&Message::PingRequest(PingRequest { token, target: &target, from: &from }));
            self.post(*address, out);
        }
        if let Some(probe) = &mut self.prober.current {
            probe.helpers = helpers.len();
            probe.silent = helpers.into_iter().map(|(_, address)| address).collect();
        }
        if self.settings.stream_probes {
            self.probe_by_stream(&target, token, out);
        }
    }

    fn probe_by_stream(&mut self, target: &Arc<str>, token: u32, out: &mut Vec<Effect>) {
        let Some(address) = self.table.row(target).map(|row| row.member.address) else { return };
        let patience = self.prober.next_at.map_or(Duration::ZERO, |at| at.saturating_sub(self.now));
        let from = self.table.own_name().clone();
        // Without a suspicion there is nothing to contradict: whoever answers is there.
        let body = packet::encode_frame(&Frame::Call(Call { to: target, from: &from, suspected: 0 }));
        self.dial(address, &body, patience, Errand::Probe { token }, out);
    }

    /// The period is over.
    fn end_probe(&mut self, out: &mut Vec<Effect>) {
        let Some(probe) = self.prober.current.take() else { return };
        let missed = if probe.helpers == 0 { 1 } else { probe.silent.len() as u32 };
        self.awareness.worsen(missed);
        let Some(row) = self.table.row(&probe.target) else { return };
        let (incarnation, own) = (row.member.incarnation, self.table.own_name().clone());
        let suspect = Suspect { name: &probe.target, incarnation, by: &own };
        self.on_suspect(&suspect, Heard::Probed, out);
    }

    /// Somebody wants to know whether this agent is there.
    pub(super) fn on_ping(&mut self, from: SocketAddr, ping: &Ping<'_>, out: &mut Vec<Effect>) {
        if *ping.to != **self.table.own_name() {
            let text = format!("{from} ('{}') takes this agent for '{}'", ping.from, ping.to);
            self.complain("ping of another", text, out);
            return;
        }
        self.packet.clear();
        self.packet.push(&Message::Ack(Ack { token: ping.token, coordinate: &[] }));
        // Who asks and is taken for failed here can say that it is there as soon as it knows.
        self.push_doubt(ping.from);
        self.post(from, out);
        self.meet_stranger(from, ping.from, out);
    }

    /// Somebody who knows this agent and is not known here: its news was missed, or this agent has started again and not joined. They exchange all
    /// they know, one stranger at a time.
    fn meet_stranger(&mut self, from: SocketAddr, name: &str, out: &mut Vec<Effect>) {
        let known = self.table.row(name).is_some() || self.graves.get(name).is_some();
        if known || self.departure.is_some() || self.now < self.prober.next_stranger_at {
            return;
        }
        self.prober.next_stranger_at = self.now + self.settings.probe_interval;
        self.exchange(from, out);
    }

    /// Somebody wants another to be asked.
    pub(super) fn on_ping_request(
        &mut self,
        from: SocketAddr,
        request: &PingRequest<'_>,
        out: &mut Vec<Effect>,
    ) {
        let target = self.table.row(request.target).filter(|row| row.member.is_live());
        let Some(target) = target.map(|row| (row.member.name.clone(), row.member.address)) else {
            // It is not known here, so it cannot be asked; the asker's own health is none the worse for that.
            return self.nack(from, request.token, out);
        };
        if self.prober.relays.by_token.len() >= RELAYS_MAX {
            return;
        }
        let token = self.random.draw() as u32;
        self.prober.relays.by_token.insert(token, Relay { asker: from, token: request.token });
        // In time to be back before the asker's period ends (Lifeguard, IV-A: at 80 % of the timeout).
        self.prober.relays.nacks.push_back((self.now + self.settings.probe_timeout * 4 / 5, token));
        self.prober.relays.ends.push_back((self.now + self.settings.probe_interval, token));
        self.ask(token, &target.0, target.1, out);
    }

    fn nack(&mut self, to: SocketAddr, token: u32, out: &mut Vec<Effect>) {
        self.packet.clear();
        self.packet.push(&Message::Nack { token });
        self.post(to, out);
    }

    fn run_relays(&mut self, out: &mut Vec<Effect>) {
        while let Some((_, token)) = self.prober.relays.nacks.pop_front_if(|(at, _)| *at <= self.now) {
            if let Some(relay) = self.prober.relays.by_token.get(&token) {
                let (asker, token) = (relay.asker, relay.token);
                self.nack(asker, token, out);
            }
        }
        while let Some((_, token)) = self.prober.relays.ends.pop_front_if(|(at, _)| *at <= self.now) {
            self.prober.relays.by_token.remove(&token);
        }
    }

    /// Somebody is there.
    pub(super) fn on_ack(&mut self, ack: &Ack<'_>, out: &mut Vec<Effect>) {
        if let Some(relay) = self.prober.relays.by_token.remove(&ack.token) {
            self.packet.clear();
            self.packet.push(&Message::Ack(Ack { token: relay.token, coordinate: &[] }));
            self.post(relay.asker, out);
            return;
        }
        let token = ack.token;
        let asked = |probe: &mut Probe| probe.token == token || probe.indirect_token == token;
        let Some(probe) = self.prober.current.take_if(asked) else { return };
        self.awareness.improve();
        if probe.token != token {
            return;
        }
        let rtt = self.now - probe.sent;
        if let Some(row) = self.table.row_mut(&probe.target) {
            (row.member.last_ack, row.member.last_rtt) = (Some(self.now), Some(rtt));
        }
        let coordinate = Bytes::copy_from_slice(ack.coordinate);
        out.push(Effect::Rtt { peer: probe.target, rtt, coordinate });
    }

    /// A helper has got no answer, and is there itself.
    pub(super) fn on_nack(&mut self, from: SocketAddr, token: u32) {
        if let Some(probe) = &mut self.prober.current
            && probe.indirect_token == token
        {
            probe.silent.retain(|helper| *helper != from);
        }
    }

    /// A call over a stream, before a member is suspected or before it counts as failed.
    pub(super) fn on_call(&mut self, stream: StreamId, call: &Call<'_>, out: &mut Vec<Effect>) {
        if *call.to != **self.table.own_name() {
            return;
        }
        if call.suspected > 0 {
            self.contradict(call.suspected, call.from, out);
        }
        let body = packet::encode_frame(&Frame::Here(self.table.own().alive()));
        let frame = self.close(&body);
        out.push(Effect::Answer { stream, frame });
    }

    /// The answer to a call. A question that goes with it is answered, too.
    pub(super) fn on_here(&mut self, token: Option<u32>, alive: &Alive<'_>, out: &mut Vec<Effect>) {
        let target = self.prober.current.as_ref().map(|probe| &*probe.target);
        if let Some(token) = token
            && target == Some(alive.name)
        {
            self.on_ack(&Ack { token, coordinate: &[] }, out);
        }
        if let Err(why) = self.on_alive(alive, true, out) {
            self.complain("member", why, out);
        }
    }
}
