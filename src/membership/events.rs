//! User events: what all members are told once (`/v1/event`), with the filters that say who heeds it.

use std::sync::Arc;

use bytes::Bytes;
use muster_protocol::gossip::events::{Draft, EventTooLong, UserEvent};

use crate::runtime::random;

/// Events that are kept, the newest (Consul: 256 in `UserEvents`).
pub const KEPT_MAX: usize = 256;

/// Version of the encoding.
const VERSION: u8 = 1;

/// An event as clients see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Who it is: a random UUID.
    pub id: [u8; 16],
    /// What it is about.
    pub name: String,
    /// Whatever the sender wants to say.
    pub payload: Bytes,
    /// Who heeds it.
    pub filters: EventFilters,
    /// When it was fired, on the Lamport clock of events.
    pub ltime: u64,
}

/// Regular expressions that say who heeds an event; an empty one fits all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilters {
    /// For the node's name.
    pub node: String,
    /// For the name of one of its services.
    pub service: String,
    /// For a tag of that service.
    pub tag: String,
}

/// The newest events that this agent heeds, oldest first.
#[derive(Clone, Debug, Default)]
pub struct EventLog {
    events: Vec<Arc<Event>>,
    /// Counts all that ever came.
    count: u64,
}

impl EventLog {
    /// The events.
    pub fn events(&self) -> &[Arc<Event>] {
        &self.events
    }

    /// How many ever came: moves with each.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Takes one more; the oldest makes room.
    pub(super) fn push(&mut self, event: Event) {
        if self.events.len() >= KEPT_MAX {
            self.events.remove(0);
        }
        self.events.push(Arc::new(event));
        self.count += 1;
    }
}

impl Event {
    /// A new one.
    pub fn new(name: String, payload: Bytes, filters: EventFilters) -> Event {
        let mut id = [0; 16];
        random::fill(&mut id);
        // A random UUID, as RFC 4122 marks them.
        (id[6], id[8]) = (id[6] & 0x0f | 0x40, id[8] & 0x3f | 0x80);
        Event { id, name, payload, filters, ltime: 0 }
    }

    /// What all members are told.
    ///
    /// # Errors
    /// It is too long.
    pub(super) fn draft(&self) -> Result<Draft, EventTooLong> {
        let mut body = vec![VERSION];
        body.extend_from_slice(&self.id);
        for filter in [&self.filters.node, &self.filters.service, &self.filters.tag] {
            let length = u16::try_from(filter.len()).map_err(|_| EventTooLong)?;
            body.extend_from_slice(&length.to_le_bytes());
            body.extend_from_slice(filter.as_bytes());
        }
        body.extend_from_slice(&self.payload);
        Draft::new(&self.name, body.into(), false)
    }

    /// Reads what another agent has fired; `None` when it is no event of this kind.
    pub(super) fn read(heard: &UserEvent) -> Option<Event> {
        let (version, rest) = heard.payload.split_first()?;
        let (id, mut rest) = rest.split_first_chunk::<16>().filter(|_| *version == VERSION)?;
        let mut filter = || {
            let (length, after) = rest.split_first_chunk()?;
            let (text, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
            rest = after;
            Some(std::str::from_utf8(text).ok()?.to_owned())
        };
        let filters = EventFilters { node: filter()?, service: filter()?, tag: filter()? };
        let (id, payload) = (*id, heard.payload.slice_ref(rest));
        Some(Event { id, name: heard.name.to_string(), payload, filters, ltime: heard.ltime.0 })
    }

    /// The index that clients wait with: it differs from one event to another, and says nothing else (Consul: `uuidToUint64`).
    pub fn index(&self) -> u64 {
        let (high, low) = self.id.split_at(8);
        let number = |bytes: &[u8]| bytes.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        number(high) ^ number(low)
    }
}

#[cfg(test)]
mod tests {
    use muster_protocol::gossip::clock::Time;

    use super::*;

    fn heard(event: &Event) -> UserEvent {
        let mut events = muster_protocol::gossip::events::Events::default();
        let mut out = Vec::new();
        events.fire(std::time::Duration::ZERO, event.draft().expect("short"), &mut out);
        out.remove(0)
    }

    #[test]
    fn an_event_is_read_as_it_was_fired() {
        let filters = EventFilters { node: "n.*".into(), service: "web".into(), tag: String::new() };
        let event = Event::new("deploy".into(), Bytes::from_static(b"x"), filters);
        let read = Event::read(&heard(&event)).expect("an event");
        assert_eq!((read.ltime, Event { ltime: 0, ..read }), (1, event));
        for payload in [&b""[..], b"\x02", b"\x01short", &[1; 18]] {
            let (name, payload) = ("x".into(), Bytes::copy_from_slice(payload));
            assert_eq!(Event::read(&UserEvent { ltime: Time(1), name, payload, coalesce: false }), None);
        }
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut log = EventLog::default();
        for n in 0..300 {
            log.push(Event { ltime: n, ..Event::default() });
        }
        assert_eq!((log.events().len(), log.count(), log.events()[0].ltime), (KEPT_MAX, 300, 44));
    }

    #[test]
    fn the_index_is_that_of_consul() {
        let mut id = [0; 16];
        (id[7], id[8], id[15]) = (1, 0x80, 3);
        assert_eq!(Event { id, ..Event::default() }.index(), 0x8000_0000_0000_0002);
    }
}
