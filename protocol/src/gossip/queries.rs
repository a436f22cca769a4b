//! Queries: a question to all members, or to some, and the answers of those who have one.
//!
//! Rules, texts and constants are serf's. A query spreads like an event; answers go straight back to the asker, and on request
//! through a few other members, too, in case the straight way is broken. A query is recognised by its Lamport time and a number that the
//! asker draws. Whether the member's name is among those that are asked is decided here; whether its tags match is for
//! the driver, who has the regular expressions.
//!
//! Beyond serf: a query names its asker and no address. Answers go to where the answering member knows the asker to
//! be, so nobody can make a whole fleet send to a stranger. What is remembered has an end.

mod message;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::clock::{Clock, Time};
use super::keyring;
use super::settings::NAME_LENGTH_MAX;
use crate::entry::Now;
use crate::random::Random;
use crate::wire::WireError;

pub use message::{Filters, Query, Reply};

/// A query as a message, bytes (serf: `QuerySizeLimit`).
pub const QUERY_LENGTH_MAX: usize = 1024;

/// An answer as a message, bytes (serf: `QueryResponseSizeLimit`).
pub const REPLY_LENGTH_MAX: usize = 1024;

/// Any of this module's messages, bytes: a relayed answer is the longest.
pub const MESSAGE_LENGTH_MAX: usize = 1 + NAME_LENGTH_MAX + REPLY_LENGTH_MAX;

/// So many of the last Lamport times are remembered (serf: `QueryBuffer`).
const WINDOW: u64 = 512;

/// Queries that are remembered, whatever their times. Beyond, the oldest time is forgotten, and its queries are too old from then on.
const SEEN_MAX: usize = 16 << 10;

/// Queries of others that wait for this member's answer. Beyond, the one that ends first is given up.
const HELD_MAX: usize = 1024;

/// Own queries under way. More are refused.
const ASKED_MAX: usize = 256;

/// Members that may relay an answer (Consul: `relay-factor`).
pub const RELAYS_MAX: u8 = 5;

/// The longest that a query stays open. Who asks for more gets this.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// See [`default_timeout`] (serf: `QueryTimeoutMult`).
const TIMEOUT_MULT: u32 = 16;

const _: () = assert!(QUERY_LENGTH_MAX <= MESSAGE_LENGTH_MAX && REPLY_LENGTH_MAX <= MESSAGE_LENGTH_MAX);

/// How long a query stays open if its asker does not say: in a pool of so many members, all are reached by then, with time to
/// spare (serf: `DefaultQueryTimeout`).
pub fn default_timeout(members: usize, gossip_interval: Duration) -> Duration {
    // The decimal logarithm of one more, rounded up.
    let digits = members.checked_ilog10().map_or(0, |log| log + 1);
    gossip_interval * TIMEOUT_MULT * digits
}

/// Names a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueryId {
    /// When it was asked, on the clock of queries.
    pub ltime: Time,
    /// Drawn by the asker.
    pub number: u32,
}

/// What is to be asked.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// What it is about.
    pub name: String,
    /// The question.
    pub payload: Bytes,
    /// Whom it is for.
    pub filters: Filters,
    /// Whether who is asked is to say at once that it has the question.
    pub ack: bool,
    /// Members that relay each answer: at most [`RELAYS_MAX`].
    pub relays: u8,
    /// How long answers are taken; `None`: see [`default_timeout`].
    pub timeout: Option<Duration>,
}

/// Why a query is not asked, or not answered. The texts are serf's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// The query is too long to be told to everybody.
    QueryTooLong,
    /// Too many own queries are under way.
    TooMany,
    /// The answer is too long.
    ReplyTooLong,
    /// It was answered, it is over, or it never was there.
    Over,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QueryError::QueryTooLong => write!(f, "query exceeds limit of {QUERY_LENGTH_MAX} bytes"),
            QueryError::TooMany => write!(f, "{ASKED_MAX} queries are under way: try again later"),
            QueryError::ReplyTooLong => write!(f, "response exceeds limit of {REPLY_LENGTH_MAX} bytes"),
            QueryError::Over => f.write_str("response is past the deadline"),
        }
    }
}

impl std::error::Error for QueryError {}

/// What is to be done about a query.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Spread this body of a query.
    Spread(Bytes),
    /// Send this body of an answer to a member; if it is this one, it is to [hear](Queries::on_reply) it itself.
    Answer {
        /// Who has asked.
        to: Arc<str>,
        /// The body.
        body: Bytes,
    },
    /// Send this body of a relayed answer to so many live members that are drawn, neither this one nor the asker; to
    /// nobody when there are not as many.
    Relay {
        /// How many.
        count: u8,
        /// Who has asked.
        asker: Arc<str>,
        /// The body.
        body: Bytes,
    },
    /// The question is for this member, if its tags match. An answer is expected by a [`respond`](Queries::respond).
    Deliver(Box<Query>),
    /// A request to this member's keyring. The answer goes the same way.
    Keyring {
        /// The query.
        id: QueryId,
        /// What is to be done.
        request: keyring::Request,
    },
    /// A member has an own query.
    Acked {
        /// The query.
        id: QueryId,
        /// Who.
        from: Arc<str>,
    },
    /// A member has answered an own query.
    Replied {
        /// The query.
        id: QueryId,
        /// Who.
        from: Arc<str>,
        /// The answer.
        payload: Bytes,
    },
    /// An own query is over: there will be no more answers.
    Closed {
        /// The query.
        id: QueryId,
    },
}

/// The queries that a member has asked, has heard of, and has to answer.
#[derive(Clone, Debug)]
pub struct Queries {
    own_name: Arc<str>,
    clock: Clock,
    /// Nothing before this is remembered.
    forgotten: Time,
    seen: BTreeSet<QueryId>,
    asked: BTreeMap<QueryId, Asked>,
    held: BTreeMap<QueryId, Held>,
}

/// An own query that is open.
#[derive(Clone, Debug)]
struct Asked {
    ends: Now,
    /// More answers than this cannot come: there were as many members.
    answers_max: usize,
    acks: BTreeSet<Arc<str>>,
    replies: BTreeSet<Arc<str>>,
}

/// A query that this member may answer.
#[derive(Clone, Debug)]
struct Held {
    asker: Arc<str>,
    ends: Now,
    relays: u8,
    /// It is to be acknowledged, once its filters are known to match.
    owes_ack: bool,
}

impl Queries {
    /// Of a member of this name.
    pub fn new(own_name: Arc<str>) -> Queries {
        Queries {
            own_name,
            clock: Clock::default(),
            forgotten: Time::default(),
            seen: BTreeSet::new(),
            asked: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }

    /// Goes on after an earlier life that has seen queries up to a time: they are not delivered again (serf's snapshot: `query-clock`).
    pub fn resume(&mut self, last: Time) {
        if self.clock.witness(last) {
            self.forget_before(last.next());
        }
    }

    /// The time of the next query.
    pub fn time(&self) -> Time {
        self.clock.time()
    }

    /// Hears of another member's clock. Whether it can be.
    #[must_use]
    pub fn witness_clock(&mut self, time: Time) -> bool {
        self.clock.witness_clock(time)
    }

    /// Asks all of so many members, this one too.
    ///
    /// # Errors
    /// It is too long, or too much is being asked.
    pub fn ask(
        &mut self,
        now: Now,
        draft: Draft,
        members: usize,
        gossip_interval: Duration,
        random: &mut Random,
        out: &mut Vec<Outcome>,
    ) -> Result<QueryId, QueryError> {
        if self.asked.len() >= ASKED_MAX {
            return Err(QueryError::TooMany);
        }
        let id = QueryId { ltime: self.clock.time(), number: random.draw() as u32 };
        let timeout = draft.timeout.unwrap_or_else(|| default_timeout(members, gossip_interval));
        let query = Query {
            id,
            asker: self.own_name.clone(),
            filters: draft.filters,
            ack: draft.ack,
            relays: draft.relays.min(RELAYS_MAX),
            timeout: timeout.min(TIMEOUT_MAX),
            name: draft.name.into(),
            payload: draft.payload,
        };
        let body = query.encode().ok_or(QueryError::QueryTooLong)?;
        let _ = self.clock.tick();
        self.asked.insert(
            id,
            Asked {
                ends: now + query.timeout,
                answers_max: members,
                acks: BTreeSet::new(),
                replies: BTreeSet::new(),
            },
        );
        out.push(Outcome::Spread(body));
        self.seen.insert(id);
        self.process(now, query, out);
        Ok(id)
    }

    /// Takes the body of a query.
    ///
    /// # Errors
    /// It is none, or nobody can have asked it at that time.
    pub fn receive(&mut self, now: Now, body: &[u8], out: &mut Vec<Outcome>) -> Result<(), WireError> {
        let query = Query::decode(body)?;
        if !self.clock.witness(query.id.ltime) {
            return Err(WireError::Malformed("a query of a time that no member can have"));
        }
        self.forget_before(self.clock.time().before(WINDOW));
        if query.id.ltime < self.forgotten || self.seen.contains(&query.id) {
            return Ok(());
        }
        if self.seen.len() >= SEEN_MAX && !self.make_room(query.id.ltime) {
            return Ok(());
        }
        self.seen.insert(query.id);
        assert!(self.seen.len() <= SEEN_MAX, "the memory of queries has an end");
        out.push(Outcome::Spread(Bytes::copy_from_slice(body)));
        self.process(now, query, out);
        Ok(())
    }

    /// The driver has found that this member's tags match a query that was delivered.
    pub fn matches(&mut self, id: QueryId, out: &mut Vec<Outcome>) {
        let Some(held) = self.held.get_mut(&id) else { return };
        if std::mem::take(&mut held.owes_ack) {
            let ack = Reply { id, from: self.own_name.clone(), ack: true, payload: Bytes::new() };
            held.send(&ack, out);
        }
    }

    /// Answers a query, once.
    ///
    /// # Errors
    /// The answer is too long, or not wanted any more.
    pub fn respond(
        &mut self,
        now: Now,
        id: QueryId,
        payload: &[u8],
        out: &mut Vec<Outcome>,
    ) -> Result<(), QueryError> {
        if payload.len() > self.answer_room() {
            return Err(QueryError::ReplyTooLong);
        }
        if self.held.get(&id).is_none_or(|held| held.ends < now) {
            return Err(QueryError::Over);
        }
        self.matches(id, out);
        let held = self.held.remove(&id).expect("it was just there");
        let payload = Bytes::copy_from_slice(payload);
        held.send(&Reply { id, from: self.own_name.clone(), ack: false, payload }, out);
        Ok(())
    }

    /// The longest answer of this member, bytes.
    pub fn answer_room(&self) -> usize {
        REPLY_LENGTH_MAX - Reply::overhead(&self.own_name)
    }

    /// Takes the body of an answer. What is not to one's own open queries, or comes again, is dropped.
    ///
    /// # Errors
    /// It is none.
    pub fn on_reply(&mut self, now: Now, body: &[u8], out: &mut Vec<Outcome>) -> Result<(), WireError> {
        let Reply { id, from, ack, payload } = Reply::decode(body)?;
        let Some(asked) = self.asked.get_mut(&id).filter(|asked| now <= asked.ends) else { return Ok(()) };
        let answers = if ack { &mut asked.acks } else { &mut asked.replies };
        if answers.len() < asked.answers_max && answers.insert(from.clone()) {
            out.push(if ack { Outcome::Acked { id, from } } else { Outcome::Replied { id, from, payload } });
        }
        Ok(())
    }

    /// Takes the body of an answer that is for another member, and sends it on.
    ///
    /// # Errors
    /// It is none.
    pub fn on_relay(&self, body: &[u8], out: &mut Vec<Outcome>) -> Result<(), WireError> {
        let (to, body) = message::decode_relay(body)?;
        out.push(Outcome::Answer { to, body });
        Ok(())
    }

    /// Ends what is over.
    pub fn tick(&mut self, now: Now, out: &mut Vec<Outcome>) {
        self.held.retain(|_, held| now <= held.ends);
        self.asked.retain(|id, asked| {
            let open = now <= asked.ends;
            if !open {
                out.push(Outcome::Closed { id: *id });
            }
            open
        });
    }

    /// Gives up an own query: all is known that its asker wanted to know.
    pub fn close(&mut self, id: QueryId) {
        self.asked.remove(&id);
    }

    /// When [`tick`](Self::tick) is due.
    pub fn next_deadline(&self) -> Option<Now> {
        // Held queries end when one looks at them; they are few, and each next one makes room.
        self.asked.values().map(|asked| asked.ends + Duration::from_nanos(1)).min()
    }

    /// A query that is heard for the first time.
    fn process(&mut self, now: Now, query: Query, out: &mut Vec<Outcome>) {
        if !query.filters.may_match(&self.own_name) {
            return;
        }
        self.held.retain(|_, held| now <= held.ends);
        if self.held.len() >= HELD_MAX {
            let first = self.held.iter().min_by_key(|(id, held)| (held.ends, **id)).map(|(id, _)| *id);
            first.map(|id| self.held.remove(&id));
        }
        let (id, decided) = (query.id, query.filters.tags.is_empty());
        let (asker, ends) = (query.asker.clone(), now + query.timeout);
        self.held.insert(id, Held { asker, ends, relays: query.relays, owes_ack: query.ack });
        if decided {
            self.matches(id, out);
        }
        if &*query.name != keyring::QUERY {
            out.push(Outcome::Deliver(Box::new(query)));
            return;
        }
        match keyring::Request::decode(&query.payload) {
            Ok(request) => out.push(Outcome::Keyring { id, request }),
            Err(error) => {
                let why = format!("Failed to decode key request: {error}");
                let answer = keyring::Answer::failed(&why).encode(self.answer_room());
                self.respond(now, id, &answer, out).expect("it is short, and the query has just come");
            }
        }
    }

    fn forget_before(&mut self, time: Time) {
        self.forgotten = self.forgotten.max(time);
        while self.seen.first().is_some_and(|id| id.ltime < self.forgotten) {
            self.seen.pop_first();
        }
    }

    /// Forgets the oldest time, if it is before this one.
    fn make_room(&mut self, time: Time) -> bool {
        match self.seen.first().map(|id| id.ltime) {
            Some(oldest) if oldest < time => self.forget_before(oldest.next()),
            _ => return false,
        }
        true
    }
}

impl Held {
    /// Straight, and through others.
    fn send(&self, reply: &Reply, out: &mut Vec<Outcome>) {
        let body = reply.encode();
        if self.relays > 0 {
            let relayed = message::encode_relay(&self.asker, &body);
            out.push(Outcome::Relay { count: self.relays, asker: self.asker.clone(), body: relayed });
        }
        out.push(Outcome::Answer { to: self.asker.clone(), body });
    }
}
