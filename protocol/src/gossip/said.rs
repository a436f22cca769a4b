//! What members say to each other besides who is there: user events, queries and their answers, requests to the keyring, coordinates.
//! What each of them means is decided in its own file; here it meets the pool.

use std::sync::Arc;
use std::time::Duration;

use super::clock::Time;
use super::coordinate::{self, Coordinate};
use super::events::{self, Events, UserEvent};
use super::face::{Effect, Level};
use super::keyring::{Answer, Request};
use super::message::Message;
use super::queries::{self, Outcome, Queries, QueryId};
use super::seal::Sealer;
use super::settings::Settings;
use super::{Gossip, Lane, packet};
use crate::entry::Now;
use crate::wire::{Reader, WireError};

/// What was said, as far as it is remembered.
#[derive(Debug)]
pub(super) struct Said {
    events: Events,
    queries: Queries,
    /// Nothing when coordinates are off.
    place: Option<Place>,
    /// How much was spread: each piece has a key of its own, since none takes the place of another.
    spread: u64,
}

/// Where this agent is.
#[derive(Debug, Default)]
struct Place {
    client: coordinate::Client,
    /// As it goes into answers.
    encoded: Vec<u8>,
}

impl Said {
    pub fn new(own_name: Arc<str>, settings: &Settings) -> Said {
        let mut place = settings.coordinates.then(Place::default);
        place.iter_mut().for_each(Place::encode);
        Said { events: Events::new(settings.coalescing), queries: Queries::new(own_name), place, spread: 0 }
    }

    /// When something is due.
    pub fn deadline(&self) -> Option<Now> {
        [self.events.next_deadline(), self.queries.next_deadline()].into_iter().flatten().min()
    }

    /// The clocks of events and queries.
    pub fn clocks(&self) -> [Time; 2] {
        [self.events.time(), self.queries.time()]
    }

    /// Goes on where an earlier life has ended.
    pub fn resume(&mut self, events: Time, queries: Time, coordinate: Option<Coordinate>) {
        self.events.resume(events);
        self.queries.resume(queries);
        if let (Some(place), Some(coordinate)) = (&mut self.place, coordinate) {
            place.client.restore(coordinate);
            place.encode();
        }
    }

    /// The last events, for another member.
    pub fn recent_events(&self) -> Vec<u8> {
        let mut recent = Vec::new();
        self.events.encode_recent(&mut recent, packet::EVENTS_LENGTH_MAX);
        recent
    }

    /// Where this agent is, encoded; empty when coordinates are off.
    pub fn encoded_coordinate(&self) -> &[u8] {
        self.place.as_ref().map_or(&[], |place| &place.encoded)
    }

    /// Where this agent is.
    pub fn coordinate(&self) -> Option<&Coordinate> {
        self.place.as_ref().map(|place| place.client.coordinate())
    }

    /// Drops what is kept of a member that is forgotten.
    pub fn forget(&mut self, name: &str) {
        if let Some(place) = &mut self.place {
            place.client.forget(name);
        }
    }
}

impl Place {
    fn encode(&mut self) {
        self.encoded.clear();
        self.client.coordinate().encode(&mut self.encoded);
    }
}

impl Gossip {
    /// Tells all members.
    pub(super) fn on_fire(&mut self, draft: events::Draft, out: &mut Vec<Effect>) {
        let mut heard = Vec::new();
        let body = self.said.events.fire(self.now, draft, &mut heard);
        self.spread_said(Lane::Events, &Message::Event(&body));
        deliver(heard, out);
    }

    /// Another tells all members.
    pub(super) fn on_event(&mut self, body: &[u8], out: &mut Vec<Effect>) {
        let mut heard = Vec::new();
        match self.said.events.receive(self.now, body, &mut heard) {
            Ok(events::Heard::New) => self.spread_said(Lane::Events, &Message::Event(body)),
            Ok(events::Heard::Known) => {}
            Ok(events::Heard::TooOld) => {
                self.complain("old event", "an event is too old to be told from those before".into(), out);
            }
            Ok(events::Heard::Refused) => {
                let text = "an event of a time that cannot be, or one of too many, is refused";
                self.complain("event time", text.into(), out);
            }
            Err(why) => self.complain("event", format!("an event is refused: {why}"), out),
        }
        deliver(heard, out);
    }

    /// Takes the clocks and the events of another's state.
    pub(super) fn merge_said(
        &mut self,
        clocks: [Time; 2],
        recent: &[u8],
        joins: bool,
        out: &mut Vec<Effect>,
    ) -> Result<(), WireError> {
        let mut heard = Vec::new();
        let merged = self.said.events.merge(self.now, clocks[0], recent, joins, &mut heard);
        deliver(heard, out);
        if !self.said.queries.witness_clock(clocks[1]) {
            return Err(WireError::Malformed("a clock of queries that no member can have"));
        }
        merged
    }

    /// Asks the pool.
    pub(super) fn on_ask(&mut self, token: u64, draft: queries::Draft, out: &mut Vec<Effect>) {
        let (members, interval) = (self.table.live(), self.settings.gossip_interval);
        let mut outcomes = Vec::new();
        let asked =
            self.said.queries.ask(self.now, draft, members, interval, &mut self.random, &mut outcomes);
        out.push(Effect::Asked { token, query: asked });
        self.carry_out(outcomes, out);
    }

    /// Another asks the pool.
    pub(super) fn on_query(&mut self, body: &[u8], out: &mut Vec<Effect>) {
        let mut outcomes = Vec::new();
        let heard = self.said.queries.receive(self.now, body, &mut outcomes);
        self.finish_said("query", heard, outcomes, out);
    }

    /// An answer to a query of this agent.
    pub(super) fn on_reply(&mut self, body: &[u8], out: &mut Vec<Effect>) {
        let mut outcomes = Vec::new();
        let heard = self.said.queries.on_reply(self.now, body, &mut outcomes);
        self.finish_said("answer", heard, outcomes, out);
    }

    /// An answer that this agent is to send on.
    pub(super) fn on_relay(&mut self, body: &[u8], out: &mut Vec<Effect>) {
        let mut outcomes = Vec::new();
        let heard = self.said.queries.on_relay(body, &mut outcomes);
        self.finish_said("relayed answer", heard, outcomes, out);
    }

    /// The tags of this agent match a query.
    pub(super) fn on_matches(&mut self, query: QueryId, out: &mut Vec<Effect>) {
        let mut outcomes = Vec::new();
        self.said.queries.matches(query, &mut outcomes);
        self.carry_out(outcomes, out);
    }

    /// This agent's answer.
    pub(super) fn on_respond(&mut self, query: QueryId, payload: &[u8], out: &mut Vec<Effect>) {
        let mut outcomes = Vec::new();
        if let Err(why) = self.said.queries.respond(self.now, query, payload, &mut outcomes) {
            let text = format!("a query is not answered: {why}");
            out.push(Effect::Log { level: Level::Warn, text });
        }
        self.carry_out(outcomes, out);
    }

    /// All is known that the asker wanted to know.
    pub(super) fn on_close_query(&mut self, query: QueryId) {
        self.said.queries.close(query);
    }

    /// The file of the keyring is written, or not: now the answer may go.
    pub(super) fn on_keyring_saved(&mut self, query: QueryId, error: Option<String>, out: &mut Vec<Effect>) {
        let answer = error.map_or_else(Answer::done, |why| Answer::failed(&why));
        let payload = answer.encode(self.said.queries.answer_room());
        self.on_respond(query, &payload, out);
    }

    /// Delivers and ends what is due.
    pub(super) fn run_said(&mut self, out: &mut Vec<Effect>) {
        if self.said.deadline().is_none_or(|at| self.now < at) {
            return;
        }
        let mut heard = Vec::new();
        self.said.events.tick(self.now, &mut heard);
        deliver(heard, out);
        let mut outcomes = Vec::new();
        self.said.queries.tick(self.now, &mut outcomes);
        self.carry_out(outcomes, out);
    }

    /// A member has answered a ping, and says where it is.
    pub(super) fn observe(&mut self, peer: &Arc<str>, rtt: Duration, encoded: &[u8], out: &mut Vec<Effect>) {
        let coordinate =
            if encoded.is_empty() { None } else { Some(Coordinate::decode(&mut Reader::new(encoded))) };
        let coordinate = match coordinate.transpose() {
            Ok(coordinate) => coordinate,
            Err(why) => {
                self.complain("coordinate", format!("the coordinate of '{peer}' is refused: {why}"), out);
                None
            }
        };
        if let (Some(place), Some(coordinate)) = (&mut self.said.place, &coordinate) {
            match place.client.update(peer, coordinate, rtt, &mut self.random) {
                Ok(()) => place.encode(),
                Err(why) => {
                    self.complain("coordinate", format!("a round trip to '{peer}' is refused: {why}"), out)
                }
            }
        }
        out.push(Effect::Rtt { peer: peer.clone(), rtt, coordinate });
    }

    fn finish_said(
        &mut self,
        what: &'static str,
        heard: Result<(), WireError>,
        outcomes: Vec<Outcome>,
        out: &mut Vec<Effect>,
    ) {
        if let Err(why) = heard {
            self.complain(what, format!("a {what} is refused: {why}"), out);
        }
        self.carry_out(outcomes, out);
    }

    fn carry_out(&mut self, outcomes: Vec<Outcome>, out: &mut Vec<Effect>) {
        for outcome in outcomes {
            match outcome {
                Outcome::Spread(body) => self.spread_said(Lane::Queries, &Message::Query(&body)),
                Outcome::Answer { to, body } if to == *self.table.own_name() => self.on_reply(&body, out),
                Outcome::Answer { to, body } => self.send_answer(&to, &body, out),
                Outcome::Relay { count, asker, body } => self.send_relays(count, &asker, &body, out),
                Outcome::Keyring { id, request } => self.on_keyring(id, &request, out),
                Outcome::Deliver(query) => out.push(Effect::Query(query)),
                Outcome::Acked { id, from } => out.push(Effect::Acked { query: id, from }),
                Outcome::Replied { id, from, payload } => {
                    out.push(Effect::Reply { query: id, from, payload })
                }
                Outcome::Closed { id } => out.push(Effect::QueryDone { query: id }),
            }
        }
    }

    fn on_keyring(&mut self, query: QueryId, request: &Request, out: &mut Vec<Effect>) {
        let (answer, changed) = request.carry_out(self.sealer.as_mut().map(Sealer::keyring_mut));
        match &self.sealer {
            Some(sealer) if changed => {
                // What was changed and cannot be written is lost at the next start: the operator is to know.
                let keys = sealer.keyring().keys().cloned().collect();
                out.push(Effect::SaveKeyring { query, keys });
            }
            _ => {
                let payload = answer.encode(self.said.queries.answer_room());
                self.on_respond(query, &payload, out);
            }
        }
    }

    /// To where the asker is known to be. Who is not known gets nothing: nobody can make this agent send to a stranger.
    fn send_answer(&mut self, to: &str, body: &[u8], out: &mut Vec<Effect>) {
        if let Some(address) = self.table.row(to).map(|row| row.member.address) {
            self.packet.clear();
            self.packet.push(&Message::Reply(body));
            self.post(address, out);
        }
    }

    fn send_relays(&mut self, count: u8, asker: &str, body: &[u8], out: &mut Vec<Effect>) {
        let count = usize::from(count);
        let fits = |row: &super::table::Row| row.member.is_live() && *row.member.name != *asker;
        let relays = self.table.pick(&mut self.random, count, fits);
        if relays.len() < count {
            // In so small a pool they are not worth it (serf: `relayResponse`).
            return;
        }
        for (_, address) in relays {
            self.packet.clear();
            self.packet.push(&Message::Relay(body));
            self.post(address, out);
        }
    }

    fn spread_said(&mut self, lane: Lane, message: &Message<'_>) {
        self.said.spread += 1;
        let key = self.said.spread.to_string().into();
        self.broadcast(lane, &key, packet::encode(message));
    }
}

fn deliver(heard: Vec<UserEvent>, out: &mut Vec<Effect>) {
    out.extend(heard.into_iter().map(Effect::Event));
}
