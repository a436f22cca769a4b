//! Who is in a pool, and who has failed: SWIM (Das, Gupta, Motivala, 2002) with Lifeguard (Dadgar, Phillips, Currey, 2018), with the timing that
//! memberlist and serf have made known, sans-IO.
//!
//! A [`Gossip`] is one member's part. Its driver feeds it [`Input`]s with the time, which never goes back, and carries out the [`Effect`]s in
//! their order. It never awaits, never reads a clock, never iterates in a random order; its randomness comes from a seed.
//!
//! What it guarantees: a member that answers, or that is back before its suspicion ends, is not declared failed; one that is gone is, by all, within
//! a time that grows with the logarithm of the pool. Who is forgotten comes back only by its own word. Whatever others send, it holds no more
//! than the limits in `settings`, and never panics.
//!
//! How it differs from memberlist: time in which this process stood still is no evidence against others; the suspected are told at once, with
//! each question and each answer; who failed is known to those who join later, and forgotten by all at the same time; tombstones keep old states
//! from bringing back who was pruned; every failure names who suspected, who confirmed, and the last answer.

mod acquainted;
mod awareness;
mod body;
mod broadcast;
mod claims;
pub mod clock;
mod complaints;
pub mod coordinate;
mod depart;
pub mod events;
mod face;
mod graves;
pub mod intents;
pub mod keyring;
mod member;
mod message;
mod packet;
mod probe;
mod pushpull;
pub mod queries;
mod said;
pub mod seal;
mod settings;
mod spread;
mod suspicion;
mod table;
#[cfg(test)]
mod tests;

pub use acquainted::Acquainted;
pub use face::{Change, Claim, Conflict, Effect, Evidence, Input, Level, Party, StreamId};
pub use member::{Member, NodeId, Status, Tags, TagsTooLong, TagsView, Versions};
pub use message::{
    Ack, Alive, Call, Dead, Frame, Intent, IntentKind, Known, Message, Names, Ping, PingRequest, State,
    Suspect, Tombstone,
};
pub use packet::{Messages, Unreadable, close_plain, encode_frame, open_plain, put_message, read_frame};
pub use settings::{
    AgreedTag, FRAME_LENGTH_MAX, INCARNATION_MAX, Identity, MEMBERS_MAX, NAME_LENGTH_MAX, Network,
    PACKET_LENGTH_MAX, Settings, TAGS_LENGTH_MAX,
};

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::entry::Now;
use crate::random::Random;
use awareness::Awareness;
use broadcast::{Lane, Lanes};
use claims::Heard;
use complaints::Complaints;
use coordinate::Coordinate;
use depart::Departure;
use graves::Graves;
use intents::Intents;
use keyring::Keyring;
use packet::PacketWriter;
use probe::Prober;
use pushpull::Streams;
use said::Said;
use seal::Sealer;
use spread::Spread;
use table::Table;

/// What a member remembers of itself over a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Former {
    /// The last times of intents, events and queries that it has heard of.
    pub clocks: [clock::Time; 3],
    /// Where it was.
    pub coordinate: Option<Coordinate>,
}

/// One member's part in a pool.
pub struct Gossip {
    settings: Settings,
    /// The time of the newest input.
    now: Now,
    random: Random,
    table: Table,
    graves: Graves,
    intents: Intents,
    lanes: Lanes,
    spread: Spread,
    awareness: Awareness,
    prober: Prober,
    streams: Streams,
    push_pull_at: Now,
    reconnect_at: Now,
    departure: Option<Departure>,
    complaints: Complaints,
    /// The packet that is being made; its memory is used again.
    packet: PacketWriter,
    said: Said,
    /// With it all is sealed.
    sealer: Option<Sealer>,
}

impl Gossip {
    /// A member that is alone. Its deadline tells when it wants its first [`Input::Tick`].
    ///
    /// # Panics
    /// Its name is empty, too long, or not fit to be shown.
    pub fn new(settings: Settings, identity: Identity, seed: u64, now: Now) -> Gossip {
        let own = acquainted::member(&identity, now);
        let Identity { name, incarnation, keyring, .. } = identity;
        let fit = (1..=NAME_LENGTH_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
        assert!(fit, "a name of 1 to {NAME_LENGTH_MAX} bytes without control characters, not {name:?}");
        assert!(
            incarnation < settings::INCARNATION_MAX / 2,
            "incarnation {incarnation} leaves no room for others"
        );
        let mut random = Random::new(seed);
        let sealer = keyring.map(|keyring| Sealer::new(keyring, &mut random));
        // Agents that start together shall not all do the same at the same time.
        let push_pull_at =
            now + random.timeout(settings.push_pull_interval) - settings.push_pull_interval / 4;
        let reconnect_at =
            now + random.timeout(settings.reconnect_interval) - settings.reconnect_interval / 4;
        Gossip {
            said: Said::new(own.name.clone(), &settings),
            awareness: Awareness::new(settings.awareness_max),
            settings,
            now,
            random,
            table: Table::new(own),
            graves: Graves::default(),
            intents: Intents::default(),
            lanes: Lanes::default(),
            spread: Spread::default(),
            prober: Prober::default(),
            streams: Streams::default(),
            push_pull_at,
            reconnect_at,
            departure: None,
            complaints: Complaints::default(),
            packet: PacketWriter::default(),
            sealer,
        }
    }

    /// The keys; nothing when the pool is not sealed.
    pub fn keyring(&self) -> Option<&Keyring> {
        self.sealer.as_ref().map(Sealer::keyring)
    }

    /// Goes on where an earlier life has ended: what was said up to these times is not delivered again, and where it was is where it is.
    pub fn resume(&mut self, former: Former) {
        let Former { clocks: [intents, events, queries], coordinate } = former;
        // What cannot be is no memory of this program's.
        let _ = self.intents.clock.witness(intents);
        self.said.resume(events, queries, coordinate);
    }

    /// What a later life wants to know.
    pub fn former(&self) -> Former {
        let [events, queries] = self.said.clocks();
        let clocks = [self.intents.clock.time(), events, queries].map(|time| time.before(1));
        Former { clocks, coordinate: self.coordinate().copied() }
    }

    /// Where this agent is in the space of round trips; nothing when coordinates are off.
    pub fn coordinate(&self) -> Option<&Coordinate> {
        self.said.coordinate()
    }

    /// Takes one input and says what is to be done.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Vec<Effect>) {
        let due = self.next_deadline();
        self.now = self.now.max(now);
        let late = due.map_or(Duration::ZERO, |due| self.now.saturating_sub(due));
        if late >= self.settings.stall_min {
            self.on_stall(late, out);
        }
        match input {
            Input::Tick => {}
            Input::Packet { from, bytes } => self.on_packet(from, &bytes, out),
            Input::Request { stream, from, frame } => self.on_request(stream, from, &frame, out),
            Input::Answered { stream, frame } => self.on_answered(stream, &frame, out),
            Input::StreamFailed { stream, why } => self.on_stream_failed(stream, why, out),
            Input::Join(addresses) => self.on_join(addresses, out),
            Input::Leave => self.on_leave(out),
            Input::ForceLeave { name, prune } => self.on_force_leave(&name, prune, out),
            Input::SetTags(tags) => self.on_set_tags(tags, out),
            Input::Fire(draft) => self.on_fire(draft, out),
            Input::Ask { token, draft } => self.on_ask(token, draft, out),
            Input::Matches(query) => self.on_matches(query, out),
            Input::Respond { query, payload } => self.on_respond(query, &payload, out),
            Input::CloseQuery(query) => self.on_close_query(query),
            Input::KeyringSaved { query, error } => self.on_keyring_saved(query, error, out),
        }
        self.run_due(out);
    }

    /// When [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Now> {
        let suspicion = self.table.next_suspicion().map(|(at, _)| *at);
        let forgotten = self.table.next_forgotten().map(|(at, _)| *at);
        let departure = self.departure.and_then(Departure::deadline);
        let gone = self.departure == Some(Departure::Gone);
        let exchanges = Some(self.push_pull_at.min(self.reconnect_at)).filter(|_| !gone);
        [
            self.prober.deadline(),
            self.spread.at,
            suspicion,
            forgotten,
            self.graves.next_forgotten(),
            departure,
            exchanges,
            self.said.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// All members that are not forgotten, in order of their names, this agent among them.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.table.rows().map(|row| &row.member)
    }

    /// A member.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.table.row(name).map(|row| &row.member)
    }

    /// This agent.
    pub fn own(&self) -> &Member {
        &self.table.own().member
    }

    /// How many take part, this agent too.
    pub fn live(&self) -> usize {
        self.table.live()
    }

    /// How far this agent mistrusts itself; 0 is healthy (Lifeguard; serf: `health_score`).
    pub fn health_score(&self) -> u32 {
        self.awareness.score()
    }

    /// The settings that it was started with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    fn run_due(&mut self, out: &mut Vec<Effect>) {
        self.end_suspicions(out);
        self.run_probes(out);
        self.run_exchanges(out);
        self.forget(out);
        self.run_said(out);
        self.run_spread(out);
        self.run_departure(out);
    }

    /// This process stood still, or its machine did. What it did not hear meanwhile may well have been said.
    fn on_stall(&mut self, late: Duration, out: &mut Vec<Effect>) {
        self.table.delay_suspicions(late);
        self.prober.abandon();
        self.awareness.worsen(1);
        if late >= self.settings.probe_interval * self.settings.suspicion_mult && self.departure.is_none() {
            // Others may have declared anything meanwhile, of this agent too.
            self.push_pull_at = self.now;
        }
        let text = format!(
            "this agent stood still for {late:?}: what others did not say meanwhile is not held against them"
        );
        self.complain("stall", text, out);
    }

    fn on_set_tags(&mut self, tags: Tags, out: &mut Vec<Effect>) {
        let own = self.table.own();
        if own.member.tags == tags || self.departure.is_some() {
            return;
        }
        let (name, incarnation) = (own.member.name.clone(), own.member.incarnation);
        if let Some(row) = self.table.row_mut(&name) {
            row.member.tags = tags;
        }
        self.move_up(incarnation);
        out.push(self.told(&name, Change::Updated));
    }

    fn on_packet(&mut self, from: SocketAddr, bytes: &Bytes, out: &mut Vec<Effect>) {
        let Some(body) = self.open(from, bytes, out) else { return };
        for message in Messages::new(&body) {
            match message {
                Ok(message) => self.on_message(from, &message, out),
                Err(why) => self.complain("packet", format!("a packet from {from} is refused: {why}"), out),
            }
        }
    }

    /// The body of a packet or frame that may be believed.
    fn open(&mut self, from: SocketAddr, bytes: &Bytes, out: &mut Vec<Effect>) -> Option<Bytes> {
        let opened = self.unseal(bytes);
        opened.map_err(|why| self.complain("head", format!("what {from} sends is refused: {why}"), out)).ok()
    }

    fn unseal(&self, bytes: &Bytes) -> Result<Bytes, Unreadable> {
        let plain = || open_plain(bytes).map(|body| bytes.slice_ref(body));
        let Some(sealer) = &self.sealer else { return plain() };
        let mut opened = Vec::new();
        match packet::open_sealed(sealer, bytes, &mut opened) {
            Ok(()) => Ok(Bytes::from(opened).slice(packet::HEAD_LENGTH..)),
            Err(why) if self.settings.verify_incoming => Err(why),
            Err(why) => plain().map_err(|_| why),
        }
    }

    fn on_message(&mut self, from: SocketAddr, message: &Message<'_>, out: &mut Vec<Effect>) {
        match message {
            Message::Ping(ping) => self.on_ping(from, ping, out),
            Message::PingRequest(request) => self.on_ping_request(from, request, out),
            Message::Ack(ack) => self.on_ack(ack, out),
            Message::Nack { token } => self.on_nack(from, *token),
            Message::Alive(alive) => {
                if let Err(why) = self.on_alive(alive, true, out) {
                    self.complain("member", why, out);
                }
            }
            Message::Suspect(suspect) => {
                self.on_suspect(suspect, Heard::Told, out);
                self.answer_accuser(suspect.name, from, out);
                self.correct(suspect, from, out);
            }
            Message::Dead(dead) => {
                self.on_dead(dead, out);
                self.answer_accuser(dead.name, from, out);
            }
            Message::Intent(intent) => self.on_intent(intent, out),
            Message::Event(body) => self.on_event(body, out),
            Message::Query(body) => self.on_query(body, out),
            Message::Reply(body) => self.on_reply(body, out),
            Message::Relay(body) => self.on_relay(body, out),
        }
    }

    /// Tells the operator what others do wrong, once in a while.
    fn complain(&mut self, reason: &'static str, text: String, out: &mut Vec<Effect>) {
        let Some(untold) = self.complaints.may(reason, self.now) else { return };
        let text = if untold == 0 { text } else { format!("{text} (and {untold} more of the kind before)") };
        out.push(Effect::Log { level: Level::Warn, text });
    }
}
