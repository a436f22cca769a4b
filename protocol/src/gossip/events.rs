//! User events: something that all members are told once, such as `consul event` fires it.
//!
//! Rules, texts and constants are serf's. An event is recognised by its Lamport time, its name and its payload; what is older than
//! the last [`WINDOW`] times is not taken any more. So every member delivers an event at most once, however often and by
//! whichever way it comes, and nobody can promise that it does at all, or in which order.
//!
//! Beyond serf: the memory has an end for many events of one time, too. Serf keeps as many as it is sent.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::body;
use super::clock::{Clock, Time};
use crate::entry::Now;
use crate::wire::{Reader, WireError, put_u8};

/// Name and payload of an event together, bytes (serf: `UserEventSizeLimit`).
pub const EVENT_LENGTH_MAX: usize = 512;

/// An event as a message, bytes.
pub const BODY_LENGTH_MAX: usize = EVENT_LENGTH_MAX + 13;

/// So many of the last Lamport times are remembered (serf: `EventBuffer`).
pub const WINDOW: u64 = 512;

/// Events that are remembered, whatever their times. Beyond, the oldest time is forgotten, and its events are too old from then on.
pub const EVENTS_MAX: usize = 16 << 10;

/// Events that wait to be coalesced. At the limit all are delivered at once.
const COALESCED_MAX: usize = 4096;

const COALESCE: u8 = 1;

/// What all members are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserEvent {
    /// When it was fired, on the clock of events.
    pub ltime: Time,
    /// What it is about.
    pub name: Arc<str>,
    /// Whatever the sender wants to say.
    pub payload: Bytes,
    /// Whether of several with this name the newest will do.
    pub coalesce: bool,
}

impl UserEvent {
    /// Appends it to a message: at most [`BODY_LENGTH_MAX`] bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.ltime.encode(out);
        put_u8(out, if self.coalesce { COALESCE } else { 0 });
        body::put_long(out, self.name.as_bytes());
        body::put_long(out, &self.payload);
    }

    /// Reads what [`encode`](Self::encode) has written.
    ///
    /// # Errors
    /// It is no event, or too long for one.
    pub fn decode(bytes: &[u8]) -> Result<UserEvent, WireError> {
        let mut reader = Reader::new(bytes);
        let ltime = Time::decode(&mut reader)?;
        // Bits that a later version may set mean nothing here.
        let coalesce = reader.u8()? & COALESCE != 0;
        let name = body::long_text(&mut reader, EVENT_LENGTH_MAX)?;
        let payload = body::long(&mut reader, EVENT_LENGTH_MAX - name.len())?;
        reader.end()?;
        Ok(UserEvent { ltime, name: name.into(), payload: Bytes::copy_from_slice(payload), coalesce })
    }
}

/// An event is too long to be told to everybody. The text is serf's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventTooLong;

impl fmt::Display for EventTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user event exceeds configured limit of {EVENT_LENGTH_MAX} bytes before encoding")
    }
}

impl std::error::Error for EventTooLong {}

/// What is to be told to everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    name: Arc<str>,
    payload: Bytes,
    coalesce: bool,
}

impl Draft {
    /// See [`UserEvent`].
    ///
    /// # Errors
    /// It is too long.
    pub fn new(name: &str, payload: Bytes, coalesce: bool) -> Result<Draft, EventTooLong> {
        if name.len() + payload.len() > EVENT_LENGTH_MAX {
            return Err(EventTooLong);
        }
        Ok(Draft { name: name.into(), payload, coalesce })
    }
}

/// What has become of an event that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is new: others are to be told.
    New,
    /// It was heard before, or this member does not want to know of its time.
    Known,
    /// It is older than what is remembered: it may have been heard before.
    TooOld,
    /// Nobody can have fired it at that time, or too many have.
    Refused,
}

/// How events are coalesced (serf: `UserCoalescePeriod`, `UserQuiescentPeriod`; off by default, as in Consul).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coalescing {
    /// An event waits this long at most; zero: no event waits.
    pub period: Duration,
    /// It waits no longer when no other has come for this long.
    pub quiet: Duration,
}

/// The events that a member has heard of.
#[derive(Clone, Debug, Default)]
pub struct Events {
    clock: Clock,
    /// Nothing before this is wanted.
    oldest: Time,
    /// Nothing before this is remembered.
    forgotten: Time,
    /// What was heard, and whether it may be coalesced.
    heard: BTreeMap<(Time, Arc<str>, Bytes), bool>,
    waiting: Waiting,
}

impl Events {
    /// Without any.
    pub fn new(coalescing: Coalescing) -> Events {
        Events { waiting: Waiting { coalescing, ..Waiting::default() }, ..Events::default() }
    }

    /// Goes on after an earlier life that has seen events up to a time: they are not delivered again (serf's snapshot: `event-clock`).
    pub fn resume(&mut self, last: Time) {
        if self.clock.witness(last) {
            self.oldest = self.oldest.max(last.next());
        }
    }

    /// The time of the next event.
    pub fn time(&self) -> Time {
        self.clock.time()
    }

    /// Tells everybody: returns the body of the message to spread. This member hears it, too.
    pub fn fire(&mut self, now: Now, draft: Draft, out: &mut Vec<UserEvent>) -> Bytes {
        let Draft { name, payload, coalesce } = draft;
        let event = UserEvent { ltime: self.clock.tick(), name, payload, coalesce };
        let mut body = Vec::new();
        event.encode(&mut body);
        self.hear(now, event, out);
        body.into()
    }

    /// Takes the body of a message. When it is new, the body is to be spread as it is; `out` gets what is to be delivered.
    ///
    /// # Errors
    /// It is no event.
    pub fn receive(&mut self, now: Now, body: &[u8], out: &mut Vec<UserEvent>) -> Result<Heard, WireError> {
        Ok(self.hear(now, UserEvent::decode(body)?, out))
    }

    /// Appends what is remembered, for another member's [`merge`](Self::merge): the newest that fit into `room` bytes, oldest first.
    pub fn encode_recent(&self, out: &mut Vec<u8>, room: usize) {
        let mut bodies = Vec::new();
        let mut length = 0;
        for ((ltime, name, payload), coalesce) in self.heard.iter().rev() {
            let (name, payload) = (name.clone(), payload.clone());
            let mut body = Vec::new();
            UserEvent { ltime: *ltime, name, payload, coalesce: *coalesce }.encode(&mut body);
            length += 2 + body.len();
            if length > room {
                break;
            }
            bodies.push(body);
        }
        bodies.iter().rev().for_each(|body| body::put_long(out, body));
    }

    /// Takes what another remembers, and its clock. Who joins is not told of what was before it, if it `joins` by this.
    ///
    /// # Errors
    /// It is not well-formed; what came before that place is taken.
    pub fn merge(
        &mut self,
        now: Now,
        time: Time,
        recent: &[u8],
        joins: bool,
        out: &mut Vec<UserEvent>,
    ) -> Result<(), WireError> {
        if !self.clock.witness_clock(time) {
            return Err(WireError::Malformed("a clock of events that no member can have"));
        }
        if joins {
            self.oldest = self.oldest.max(time);
        }
        let mut reader = Reader::new(recent);
        while reader.remaining() > 0 {
            let body = body::long(&mut reader, BODY_LENGTH_MAX)?;
            self.hear(now, UserEvent::decode(body)?, out);
        }
        Ok(())
    }

    /// Delivers what has waited long enough to be coalesced.
    pub fn tick(&mut self, now: Now, out: &mut Vec<UserEvent>) {
        if self.waiting.deadline().is_some_and(|deadline| deadline <= now) {
            self.waiting.flush(out);
        }
    }

    /// When [`tick`](Self::tick) is due.
    pub fn next_deadline(&self) -> Option<Now> {
        self.waiting.deadline()
    }

    fn hear(&mut self, now: Now, event: UserEvent, out: &mut Vec<UserEvent>) -> Heard {
        if !self.clock.witness(event.ltime) {
            return Heard::Refused;
        }
        if event.ltime < self.oldest {
            return Heard::Known;
        }
        self.forget_before(self.clock.time().before(WINDOW));
        if event.ltime < self.forgotten {
            return Heard::TooOld;
        }
        let key = (event.ltime, event.name.clone(), event.payload.clone());
        if self.heard.contains_key(&key) {
            return Heard::Known;
        }
        if self.heard.len() >= EVENTS_MAX && !self.make_room(event.ltime) {
            return Heard::Refused;
        }
        self.heard.insert(key, event.coalesce);
        self.waiting.take(now, event, out);
        assert!(self.heard.len() <= EVENTS_MAX, "the memory of events has an end");
        Heard::New
    }

    fn forget_before(&mut self, time: Time) {
        self.forgotten = self.forgotten.max(time);
        while self.heard.first_key_value().is_some_and(|((ltime, ..), _)| *ltime < self.forgotten) {
            self.heard.pop_first();
        }
    }

    /// Forgets the oldest time, if it is before this one.
    fn make_room(&mut self, time: Time) -> bool {
        let oldest = self.heard.first_key_value().map(|((ltime, ..), _)| *ltime);
        match oldest {
            Some(oldest) if oldest < time => self.forget_before(oldest.next()),
            _ => return false,
        }
        true
    }
}

/// Events that wait for newer ones of the same name (serf: `coalesce_user.go`).
#[derive(Clone, Debug, Default)]
struct Waiting {
    coalescing: Coalescing,
    /// The newest of each name: several when they were fired at the same time.
    newest: BTreeMap<Arc<str>, Vec<UserEvent>>,
    count: usize,
    /// When the first one has waited for the period.
    period_ends: Option<Now>,
    /// When it will have been quiet since the last one.
    quiet_at: Option<Now>,
}

impl Waiting {
    fn take(&mut self, now: Now, event: UserEvent, out: &mut Vec<UserEvent>) {
        if self.coalescing.period.is_zero() || !event.coalesce {
            return out.push(event);
        }
        self.period_ends.get_or_insert(now + self.coalescing.period);
        self.quiet_at = Some(now + self.coalescing.quiet);
        let newest = self.newest.entry(event.name.clone()).or_default();
        let ltime = newest.first().map(|newest| newest.ltime);
        if ltime < Some(event.ltime) {
            self.count -= newest.len();
            newest.clear();
        }
        if ltime <= Some(event.ltime) {
            newest.push(event);
            self.count += 1;
        }
        if self.count >= COALESCED_MAX {
            self.flush(out);
        }
    }

    fn deadline(&self) -> Option<Now> {
        Some(self.period_ends?.min(self.quiet_at?))
    }

    fn flush(&mut self, out: &mut Vec<UserEvent>) {
        out.extend(std::mem::take(&mut self.newest).into_values().flatten());
        *self = Waiting { coalescing: self.coalescing, ..Waiting::default() };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Now = Now::ZERO;

    fn body(ltime: u64, name: &str, payload: &str) -> Vec<u8> {
        event(ltime, name, payload, false)
    }

    fn event(ltime: u64, name: &str, payload: &str, coalesce: bool) -> Vec<u8> {
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        let mut body = Vec::new();
        UserEvent { ltime: Time(ltime), name: name.into(), payload, coalesce }.encode(&mut body);
        body
    }

    fn hear(events: &mut Events, body: &[u8]) -> Heard {
        events.receive(START, body, &mut Vec::new()).expect("well-formed")
    }

    fn fire(events: &mut Events, name: &str, payload: &'static str, out: &mut Vec<UserEvent>) -> Bytes {
        let draft = Draft::new(name, Bytes::from_static(payload.as_bytes()), false).expect("it is short");
        events.fire(START, draft, out)
    }

    fn times(out: &[UserEvent]) -> Vec<u64> {
        out.iter().map(|event| event.ltime.0).collect()
    }

    #[test]
    fn an_event_is_delivered_once() {
        let (mut one, mut other) = (Events::default(), Events::default());
        let mut out = Vec::new();
        let body = fire(&mut one, "deploy", "v2", &mut out);
        assert_eq!(hear(&mut one, &body), Heard::Known, "who has fired it has heard it");
        assert_eq!(other.receive(START, &body, &mut out), Ok(Heard::New));
        assert_eq!(other.receive(START, &body, &mut out), Ok(Heard::Known));
        assert_eq!(out.len(), 2);
        assert_eq!(out[0], out[1]);
        assert_eq!((one.time(), other.time()), (Time(2), Time(2)));
    }

    #[test]
    fn events_of_one_time_are_told_apart_by_name_and_payload() {
        let mut events = Events::default();
        for (name, payload) in [("a", "1"), ("a", "2"), ("b", "1")] {
            assert_eq!(hear(&mut events, &body(7, name, payload)), Heard::New);
            assert_eq!(
                hear(&mut events, &event(7, name, payload, true)),
                Heard::Known,
                "the flag tells nothing"
            );
        }
    }

    #[test]
    fn what_is_older_than_the_window_is_too_old() {
        let mut events = Events::default();
        assert_eq!(hear(&mut events, &body(1000, "new", "")), Heard::New);
        let first = 1001 - WINDOW;
        assert_eq!(hear(&mut events, &body(first - 1, "old", "")), Heard::TooOld);
        assert_eq!(hear(&mut events, &body(first, "late", "")), Heard::New);
        assert_eq!(hear(&mut events, &body(1001, "newer", "")), Heard::New);
        assert_eq!(hear(&mut events, &body(first, "late", "")), Heard::TooOld);
        assert_eq!(hear(&mut events, &body(u64::MAX, "hostile", "")), Heard::Refused);
        assert_eq!(events.time(), Time(1002));
    }

    #[test]
    fn an_event_has_a_longest_length() {
        let draft = |length: usize| Draft::new("name", vec![b'x'; length].into(), false);
        let longest = draft(508).expect("it just fits");
        assert_eq!(Events::default().fire(START, longest, &mut Vec::new()).len(), BODY_LENGTH_MAX);
        // The recorded text of Consul.
        let text = "user event exceeds configured limit of 512 bytes before encoding";
        assert_eq!(draft(509).map_err(|error| error.to_string()), Err(text.to_owned()));
        assert!(UserEvent::decode(&body(1, "name", &"x".repeat(508))).is_ok());
        assert!(UserEvent::decode(&body(1, "name", &"x".repeat(509))).is_err());
    }

    #[test]
    fn the_memory_has_an_end() {
        let mut events = Events::default();
        assert_eq!(hear(&mut events, &body(9, "oldest", "")), Heard::New);
        for count in 1..EVENTS_MAX {
            assert_eq!(hear(&mut events, &body(10, &count.to_string(), "")), Heard::New);
        }
        assert_eq!(hear(&mut events, &body(10, "one more", "")), Heard::New, "the oldest is forgotten");
        assert_eq!(hear(&mut events, &body(9, "oldest", "")), Heard::TooOld, "and does not come again");
        assert_eq!(hear(&mut events, &body(10, "too many", "")), Heard::Refused);
        assert_eq!(hear(&mut events, &body(11, "later", "")), Heard::New);
        assert_eq!(events.heard.len(), 1);
    }

    #[test]
    fn a_state_brings_what_was_missed() {
        let (mut one, mut other) = (Events::default(), Events::default());
        for (ltime, name) in [(5, "b"), (3, "a"), (8, "c")] {
            hear(&mut one, &body(ltime, name, ""));
        }
        let mut recent = Vec::new();
        one.encode_recent(&mut recent, 10_000);
        let mut out = Vec::new();
        hear(&mut other, &body(3, "a", ""));
        assert_eq!(other.merge(START, one.time(), &recent, false, &mut out), Ok(()));
        assert_eq!(times(&out), [5, 8]);
        assert_eq!(other.time(), Time(9));

        let mut few = Vec::new();
        one.encode_recent(&mut few, recent.len() - 1);
        out.clear();
        assert_eq!(Events::default().merge(START, one.time(), &few, false, &mut out), Ok(()));
        assert_eq!(times(&out), [5, 8], "the newest are told first of all");
    }

    #[test]
    fn who_joins_is_not_told_of_the_past() {
        let (mut one, mut other) = (Events::default(), Events::default());
        hear(&mut one, &body(5, "past", ""));
        let mut recent = Vec::new();
        one.encode_recent(&mut recent, 10_000);
        let mut out = Vec::new();
        assert_eq!(other.merge(START, one.time(), &recent, true, &mut out), Ok(()));
        assert_eq!(hear(&mut other, &body(5, "past", "")), Heard::Known);
        assert_eq!(out, []);
        let body = fire(&mut one, "now", "", &mut out);
        assert_eq!(hear(&mut other, &body), Heard::New);
        assert!(other.merge(START, Time(u64::MAX), &[], true, &mut out).is_err());
    }

    #[test]
    fn a_later_life_does_not_deliver_again() {
        let mut events = Events::default();
        events.resume(Time(9));
        events.resume(Time(u64::MAX));
        assert_eq!(events.time(), Time(10));
        assert_eq!(hear(&mut events, &body(9, "past", "")), Heard::Known);
        assert_eq!(hear(&mut events, &body(10, "new", "")), Heard::New);
    }

    #[test]
    fn of_events_that_may_be_coalesced_the_newest_is_delivered() {
        let ms = Duration::from_millis;
        let mut events = Events::new(Coalescing { period: ms(100), quiet: ms(30) });
        let mut out = Vec::new();
        let mut hear = |events: &mut Events, at: u64, ltime: u64, name: &str, payload: &str| {
            events.receive(ms(at), &event(ltime, name, payload, true), &mut out).expect("well-formed");
        };
        hear(&mut events, 0, 4, "a", "");
        hear(&mut events, 20, 6, "a", "x");
        hear(&mut events, 40, 6, "a", "y");
        hear(&mut events, 40, 5, "a", "");
        hear(&mut events, 40, 1, "b", "");
        assert_eq!(events.next_deadline(), Some(ms(70)), "it is quiet then");
        hear(&mut events, 65, 2, "b", "");
        hear(&mut events, 90, 3, "b", "");
        assert_eq!(events.next_deadline(), Some(ms(100)), "the first has waited for the period");
        events.tick(ms(99), &mut out);
        assert_eq!(out, []);
        events.tick(ms(100), &mut out);
        assert_eq!(times(&out), [6, 6, 3]);
        assert_eq!(events.next_deadline(), None);
        events.receive(ms(101), &body(9, "c", ""), &mut out).expect("well-formed");
        assert_eq!(times(&out), [6, 6, 3, 9], "others do not wait");
    }

    proptest! {
        #[test]
        fn events_are_read_back(ltime in any::<u64>(), name in "[a-z:]{0,40}", payload in prop::collection::vec(any::<u8>(), 0..400), coalesce in any::<bool>()) {
            let event = UserEvent { ltime: Time(ltime), name: name.into(), payload: payload.into(), coalesce };
            let mut body = Vec::new();
            event.encode(&mut body);
            prop_assert_eq!(UserEvent::decode(&body), Ok(event));
            prop_assert!(body.len() <= BODY_LENGTH_MAX);
            body.pop();
            prop_assert!(UserEvent::decode(&body).is_err());
        }

        #[test]
        fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300), time in any::<u64>()) {
            let mut events = Events::default();
            let _ = events.receive(START, &bytes, &mut Vec::new());
            let _ = events.merge(START, Time(time), &bytes, false, &mut Vec::new());
        }

        /// Whatever the order and however often: what is delivered is delivered once, and a member that hears all within the window
        /// delivers all.
        #[test]
        fn order_and_repetition_make_no_difference(order in prop::collection::vec((1u64..100, 0u8..3), 1..120)) {
            let mut events = Events::default();
            let mut out = Vec::new();
            for (ltime, name) in &order {
                events.receive(START, &body(*ltime, &name.to_string(), ""), &mut out).expect("well-formed");
            }
            let mut delivered: Vec<_> = out.iter().map(|event| (event.ltime.0, event.name.to_string())).collect();
            delivered.sort();
            let mut fired: Vec<_> = order.iter().map(|(ltime, name)| (*ltime, name.to_string())).collect();
            fired.sort();
            fired.dedup();
            prop_assert_eq!(delivered, fired);
        }
    }
}
