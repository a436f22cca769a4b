//! Exchange of full states over a stream: to join, to repair what gossip has missed, and to heal partitions (memberlist: push/pull; serf:
//! reconnect). Both sides send all they know and merge what they get.
//!
//! What another takes for failed is not believed at once: it is suspected, and can contradict (memberlist, `mergeState`). Members that are not
//! known and are failed are taken in as that, with their age: so all know of them, and forget them at about the same time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::claims::{Heard, leaps};
use super::face::{Change, Effect, Evidence, StreamId};
use super::graves::Grave;
use super::member::Status;
use super::message::{Dead, Frame, Intent, IntentKind, Known, Names, State, Suspect, Tombstone};
use super::settings::{JOIN_ADDRESSES_MAX, STREAM_PATIENCE, STREAMS_MAX, TOLD_AT_ONCE_MAX};
use super::table::Row;
use super::{Gossip, packet};
use crate::entry::Now;

/// Push/pull grows rarer in pools of more than this (memberlist: `pushPullScaleThreshold`).
const SCALE_THRESHOLD: usize = 32;

/// What a state tells is old news after this, seconds: gossip has told all by then.
const NEWS_AGE_S: u32 = 30;

/// What a stream was dialled for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Errand {
    Join { join: u64, to: SocketAddr },
    Exchange,
    Probe { token: u32 },
    Call,
}

/// Streams that were dialled, and what depends on them.
#[derive(Debug, Default)]
pub(super) struct Streams {
    dialled: BTreeMap<StreamId, Errand>,
    joins: BTreeMap<u64, Joining>,
    count: u64,
}

/// A join that is under way.
#[derive(Debug, Default)]
struct Joining {
    waiting: usize,
    contacted: usize,
    errors: Vec<(SocketAddr, String)>,
}

impl Gossip {
    /// Dials a stream for a frame and its answer. Whether one more may be under way.
    pub(super) fn dial(
        &mut self,
        to: SocketAddr,
        body: &[u8],
        patience: Duration,
        errand: Errand,
        out: &mut Vec<Effect>,
    ) -> bool {
        if self.streams.dialled.len() >= STREAMS_MAX {
            return false;
        }
        self.streams.count += 1;
        let stream = StreamId(self.streams.count);
        self.streams.dialled.insert(stream, errand);
        let frame = self.close(body);
        out.push(Effect::Dial { stream, to, frame, patience });
        true
    }

    /// Joins the pool through addresses.
    pub(super) fn on_join(&mut self, mut addresses: Vec<SocketAddr>, out: &mut Vec<Effect>) {
        self.streams.count += 1;
        let join = self.streams.count;
        let refused = addresses.split_off(addresses.len().min(JOIN_ADDRESSES_MAX));
        let mut errors: Vec<_> =
            refused.into_iter().map(|to| (to, "too many addresses".to_owned())).collect();
        let mut waiting = 0;
        for to in addresses {
            if self.dial_state(to, Errand::Join { join, to }, out) {
                waiting += 1;
            } else {
                errors.push((to, "too many streams are under way".to_owned()));
            }
        }
        self.streams.joins.insert(join, Joining { waiting, contacted: 0, errors });
        self.end_join(join, None, out);
    }

    fn dial_state(&mut self, to: SocketAddr, errand: Errand, out: &mut Vec<Effect>) -> bool {
        let body = self.encode_state(matches!(errand, Errand::Join { .. }));
        self.dial(to, &body, STREAM_PATIENCE, errand, out)
    }

    /// One address of a join has answered, or not; when it was the last, the join is done.
    fn end_join(
        &mut self,
        join: u64,
        ended: Option<(SocketAddr, Result<(), String>)>,
        out: &mut Vec<Effect>,
    ) {
        let Some(joining) = self.streams.joins.get_mut(&join) else { return };
        if let Some((to, result)) = ended {
            joining.waiting -= 1;
            match result {
                Ok(()) => joining.contacted += 1,
                Err(why) => joining.errors.push((to, why)),
            }
        }
        if joining.waiting > 0 {
            return;
        }
        let Some(Joining { contacted, errors, .. }) = self.streams.joins.remove(&join) else { return };
        if contacted > 0 {
            self.retell_own();
            self.announce_join();
        }
        out.push(Effect::JoinDone { contacted, errors });
    }

    /// A frame on a stream that was accepted.
    pub(super) fn on_request(
        &mut self,
        stream: StreamId,
        from: SocketAddr,
        bytes: &Bytes,
        out: &mut Vec<Effect>,
    ) {
        let Some(body) = self.open(from, bytes, out) else { return };
        match packet::read_frame(&body) {
            Ok(Frame::Call(call)) => self.on_call(stream, &call, out),
            Ok(Frame::State(state)) => {
                let answer = match self.merge(&state, false, out) {
                    Ok(()) => self.encode_state(false),
                    Err(why) => packet::encode_frame(&Frame::Refused(&why)),
                };
                let frame = self.close(&answer);
                out.push(Effect::Answer { stream, frame });
            }
            Ok(Frame::Here(_) | Frame::Refused(_)) => {}
            Err(why) => self.complain("frame", format!("a frame from {from} is refused: {why}"), out),
        }
    }

    /// The answer on a stream that was dialled.
    pub(super) fn on_answered(&mut self, stream: StreamId, bytes: &Bytes, out: &mut Vec<Effect>) {
        let Some(errand) = self.streams.dialled.remove(&stream) else { return };
        let opened = self.unseal(bytes);
        let read = opened.as_ref().map_err(ToString::to_string);
        let frame = read.and_then(|body| packet::read_frame(body).map_err(|why| why.to_string()));
        match (errand, frame) {
            (Errand::Probe { token }, Ok(Frame::Here(alive))) => self.on_here(Some(token), &alive, out),
            (Errand::Call, Ok(Frame::Here(alive))) => self.on_here(None, &alive, out),
            (Errand::Probe { .. } | Errand::Call, _) => {}
            (Errand::Exchange, frame) => {
                if let Err(why) = self.merge_answer(frame, false, out) {
                    self.complain("exchange", format!("the state of another is refused: {why}"), out);
                }
            }
            (Errand::Join { join, to }, frame) => {
                let result = self.merge_answer(frame, true, out);
                self.end_join(join, Some((to, result)), out);
            }
        }
    }

    fn merge_answer(
        &mut self,
        frame: Result<Frame<'_>, String>,
        joins: bool,
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        match frame? {
            Frame::State(state) => self.merge(&state, joins, out),
            Frame::Refused(why) => Err(why.to_owned()),
            Frame::Call(_) | Frame::Here(_) => Err("the answer is none to a state".to_owned()),
        }
    }

    /// A stream that was dialled has ended without an answer.
    pub(super) fn on_stream_failed(&mut self, stream: StreamId, why: String, out: &mut Vec<Effect>) {
        match self.streams.dialled.remove(&stream) {
            Some(Errand::Join { join, to }) => self.end_join(join, Some((to, Err(why))), out),
            Some(Errand::Exchange) => {
                self.complain("exchange failed", format!("no exchange of states: {why}"), out)
            }
            // Packets may still bring an answer.
            Some(Errand::Probe { .. } | Errand::Call) | None => {}
        }
    }

    /// Exchanges states if that is due.
    pub(super) fn run_exchanges(&mut self, out: &mut Vec<Effect>) {
        if self.now >= self.push_pull_at {
            self.push_pull_at = self.now + self.exchange_interval();
            let picked = self.table.pick(&mut self.random, 1, |row| row.member.is_live());
            if let [(_, address)] = picked[..] {
                self.exchange(address, out);
            }
        }
        if self.now >= self.reconnect_at {
            self.reconnect_at = self.now + self.settings.reconnect_interval;
            self.reconnect(out);
        }
    }

    /// How often states are exchanged in a pool like this.
    pub(super) fn exchange_interval(&self) -> Duration {
        push_pull_interval(self.settings.push_pull_interval, self.table.live())
    }

    /// Exchanges states with whoever is at an address.
    pub(super) fn exchange(&mut self, to: SocketAddr, out: &mut Vec<Effect>) {
        self.dial_state(to, Errand::Exchange, out);
    }

    /// Tries one of the failed: all agents together try about one of each at a time (serf, `reconnect`).
    fn reconnect(&mut self, out: &mut Vec<Effect>) {
        let (failed, live) = (self.table.failed(), self.table.live());
        if failed == 0 || self.random.below(live.max(1)) >= failed || !self.table.own().member.is_live() {
            return;
        }
        let picked = self.table.pick(&mut self.random, 1, |row| row.member.status == Status::Failed);
        if let [(_, address)] = picked[..] {
            self.exchange(address, out);
        }
    }

    /// All that is known here, as a frame.
    fn encode_state(&mut self, join: bool) -> Vec<u8> {
        // What does not fit shall not be the same each time.
        let skip = self.random.below(self.table.len());
        let own = self.table.own();
        let others = self.table.rows().skip(skip).chain(self.table.rows().take(skip));
        let others = others.filter(|row| row.member.name != own.member.name);
        let members = [own].into_iter().chain(others).map(|row| self.known(row)).collect();
        let gone = |(name, grave): (&'_ Arc<str>, &Grave)| (name.clone(), *grave);
        let graves: Vec<_> = self.graves.iter().map(gone).collect();
        let tombstones = graves.iter().map(|(name, grave)| Tombstone {
            name,
            incarnation: grave.incarnation,
            age_s: self.age(grave.forget_at, self.settings.reconnect_timeout),
        });
        let [events, queries] = self.said.clocks();
        let clocks = [self.intents.clock.time().0, events.0, queries.0];
        let (recent, tombstones) = (self.said.recent_events(), tombstones.collect());
        packet::encode_frame(&Frame::State(State { join, clocks, events: &recent, members, tombstones }))
    }

    fn known<'a>(&self, row: &'a Row) -> Known<'a> {
        let status = row.member.status;
        let age_s = match row.forget_at() {
            Some(at) => self.age(at, self.memory_of(status)),
            None => self.now.saturating_sub(row.member.since).as_secs() as u32,
        };
        Known { alive: row.alive(), status, age_s, ltime: row.ltime.0 }
    }

    /// How long ago something began that is forgotten at a time, seconds.
    fn age(&self, forget_at: Now, memory: Duration) -> u32 {
        memory.saturating_sub(forget_at.saturating_sub(self.now)).as_secs() as u32
    }

    /// Takes in what another knows.
    fn merge(&mut self, state: &State<'_>, joins: bool, out: &mut Vec<Effect>) -> Result<(), String> {
        let Some(sender) = state.members.first() else { return Err("a state of nobody".to_owned()) };
        self.admit(&sender.alive)?;
        self.refuse_conflict(&sender.alive, out)?;
        let [intents, events, queries] = state.clocks.map(super::clock::Time);
        if !self.intents.clock.witness_clock(intents) {
            return Err("its clock is so far ahead that it cannot be one of a pool".to_owned());
        }
        self.merge_said([events, queries], state.events, joins, out).map_err(|why| why.to_string())?;
        for tombstone in &state.tombstones {
            self.merge_tombstone(tombstone, sender.alive.name, out);
        }
        // Who was alone has nobody to tell of others that are in what it just got, but for what is so new that it may still be going round.
        let alone = self.table.live() <= 1;
        let mut accused = 0;
        for known in &state.members {
            let retell = !alone || known.age_s < NEWS_AGE_S;
            self.merge_known(known, sender.alive.name, retell, &mut accused, out);
        }
        Ok(())
    }

    fn merge_known(
        &mut self,
        known: &Known<'_>,
        sender: &str,
        retell: bool,
        accused: &mut usize,
        out: &mut Vec<Effect>,
    ) {
        let alive = &known.alive;
        let own = *alive.name == **self.table.own_name();
        if known.status.is_live() {
            if let Err(why) = self.on_alive(alive, retell, out) {
                self.complain("member", why, out);
                return;
            }
        } else if !own && self.table.row(alive.name).is_none() {
            self.take_in_gone(known, sender, out);
            return;
        }
        let here = !own && self.table.row(alive.name).is_some_and(|row| row.member.is_live());
        match known.status {
            Status::Alive | Status::Leaving => {}
            Status::Left if here => {
                // By its own word, or by an operator's beyond a partition: a state does not tell. It is taken to be leaving, and asked: who has
                // left is silent, and who is there says so.
                let intent = Intent { ltime: known.ltime, name: alive.name, kind: IntentKind::Leave };
                self.on_intent(&intent, out);
                self.accuse(known, sender, accused, out);
            }
            Status::Suspect | Status::Failed => self.accuse(known, sender, accused, out),
            Status::Left => {
                let (suspected_by, confirmed_by) = ("", Names::default());
                let (name, incarnation) = (alive.name, alive.incarnation);
                self.on_dead(&Dead { name, incarnation, by: name, suspected_by, confirmed_by }, out);
            }
        }
        let leaves = matches!(known.status, Status::Leaving | Status::Left);
        let kind = if leaves { IntentKind::Leave } else { IntentKind::Join };
        self.hear_intent(&Intent { ltime: known.ltime, name: alive.name, kind }, out);
    }

    /// Suspects whom another takes for gone, unless it is suspected already.
    fn accuse(&mut self, known: &Known<'_>, sender: &str, accused: &mut usize, out: &mut Vec<Effect>) {
        let Known { alive, .. } = known;
        let heard = if *accused < TOLD_AT_ONCE_MAX { Heard::Merged } else { Heard::Told };
        let new = self.table.row(alive.name).is_some_and(|row| row.suspicion.is_none());
        if new || *alive.name == **self.table.own_name() {
            *accused += 1;
            let suspect = Suspect { name: alive.name, incarnation: alive.incarnation, by: sender };
            self.on_suspect(&suspect, heard, out);
        }
    }

    /// A member that is gone already when it is first heard of.
    fn take_in_gone(&mut self, known: &Known<'_>, sender: &str, out: &mut Vec<Effect>) {
        let alive = &known.alive;
        let memory = self.memory_of(known.status);
        let left = memory.saturating_sub(Duration::from_secs(known.age_s.into()));
        let buried = self.graves.get(alive.name).is_some_and(|grave| alive.incarnation <= grave.incarnation);
        let holder = self.table.holder(alive.id).is_some_and(|row| row.member.is_live());
        if buried || holder || left.is_zero() || leaps(0, alive.incarnation) || self.admit(alive).is_err() {
            return;
        }
        let member = self.newcomer(alive, known.status);
        self.table.insert(member, Some(self.now + left));
        if let Some(row) = self.table.row_mut(alive.name) {
            row.ltime = super::clock::Time(known.ltime);
        }
        let change = match known.status {
            Status::Left => Change::Left,
            _ => Change::Failed(Evidence {
                suspected_by: None,
                confirmed_by: Vec::new(),
                declared_by: sender.into(),
                last_ack: None,
                last_rtt: None,
            }),
        };
        out.push(self.told(alive.name, change));
    }

    /// Another was told to forget a member, or has forgotten it in time.
    fn merge_tombstone(&mut self, tombstone: &Tombstone<'_>, sender: &str, out: &mut Vec<Effect>) {
        let Tombstone { name, incarnation, age_s } = *tombstone;
        if *name == **self.table.own_name() {
            self.move_up(incarnation);
            return;
        }
        let left = self.settings.reconnect_timeout.saturating_sub(Duration::from_secs(age_s.into()));
        let Some(row) = self.table.row(name) else {
            let deeper = self.graves.get(name).is_none_or(|grave| grave.incarnation < incarnation);
            if deeper && !left.is_zero() {
                self.graves.dig(&name.into(), Grave { incarnation, forget_at: self.now + left });
            }
            return;
        };
        if incarnation < row.member.incarnation || leaps(row.member.incarnation, incarnation) {
            return;
        }
        let (name, live) = (row.member.name.clone(), row.member.is_live());
        if let Some(row) = self.table.row_mut(&name) {
            row.prune = true;
        }
        if live {
            // It may be there after all; then it contradicts, and is forgotten nowhere.
            self.on_suspect(&Suspect { name: &name, incarnation, by: sender }, Heard::Merged, out);
        } else {
            self.bury(&name, out);
        }
    }
}

/// How often states are exchanged in a pool of so many (memberlist: `pushPullScale`).
fn push_pull_interval(interval: Duration, live: usize) -> Duration {
    if live <= SCALE_THRESHOLD {
        return interval;
    }
    let doublings = (live as f64).log2() - (SCALE_THRESHOLD as f64).log2();
    interval * (doublings.ceil() as u32 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_exchanged_less_often_in_large_pools() {
        let secs = |live| push_pull_interval(Duration::from_secs(30), live).as_secs();
        assert_eq!([1, 32, 33, 64, 65, 10_000].map(secs), [30, 30, 60, 60, 90, 300]);
    }
}
