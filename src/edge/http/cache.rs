//! Reads that were asked before: plans by the exact bytes of a request's head, and the answers they share.
//!
//! A client that repeats itself sends the same bytes. So the first level maps a whole request head to a
//! [`Plan`] without parsing it, and since *all* its bytes are the key (tokens and encodings too) a hit can
//! only ever give what the handler would have given. Plans that differ in nothing but `index`, `wait` and headers
//! that do not matter share one [`Group`], which renders once for each change of its topic.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use muster_protocol::http::{DATE_LEN, Headers};

use super::exchange::{Read, Render, Wait};
use super::limits;
use super::respond::{Dress, Manner, Meta, Wire};
use crate::edge::fresh::{Freshness, Shown};
use crate::metrics::routes::Meter;
#[cfg(test)]
use crate::metrics::routes::Meters;
use crate::store::State;
use crate::store::topic::Topic;

/// What a request head asks for.
#[derive(Clone)]
pub struct Plan {
    /// The answer it shares with others.
    pub group: Rc<Group>,
    /// Its condition, if it blocks.
    pub wait: Option<Wait>,
}

/// One read, as often as it is asked.
pub struct Group {
    /// What it depends on.
    pub topic: Topic,
    /// How fresh its answers must be.
    pub freshness: Freshness,
    /// Whether answers say how they were made; those that do say it of failures too.
    pub show_consistency: bool,
    /// Whether a 404 says nothing of how it was made.
    silent_of_absence: bool,
    /// Whether an answer may be used again.
    pub cacheable: bool,
    /// Where its requests are noted.
    pub meter: Meter,
    /// The first line of the first of them.
    pub line: Box<[u8]>,
    blocking: bool,
    gzip: bool,
    render: Render,
    built: RefCell<Option<Built>>,
    held: Rc<Held>,
    /// Connections parked on it; see [`super::park`].
    pub parked: RefCell<super::park::Parking>,
}

/// An answer and what it was built from.
struct Built {
    wire: Wire,
    /// What it says of itself, unless it says that in its own way.
    meta: Option<Meta>,
    state_index: u64,
    shown_index: u64,
    change: u64,
    epoch: u64,
    date_second: u64,
}

/// What all answers built in one turn have in common.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    /// The date and the second it stands for.
    pub date: &'a [u8; DATE_LEN],
    /// Seconds since the epoch.
    pub second: u64,
    /// Header lines of all endpoints.
    pub extra: &'a [u8],
    /// Counts changes of anything but the state that answers show.
    pub epoch: u64,
}

/// Bytes that built answers hold.
#[derive(Default)]
struct Held(Cell<usize>);

impl Group {
    fn new(read: Read, gzip: bool, meter: Meter, line: &[u8], held: Rc<Held>) -> Group {
        Group {
            topic: read.topic,
            freshness: read.options.freshness,
            show_consistency: read.show_consistency,
            silent_of_absence: read.silent_of_absence,
            cacheable: read.cacheable,
            meter,
            line: line.into(),
            blocking: read.options.wait.is_some(),
            gzip,
            render: read.render,
            built: RefCell::new(None),
            held,
            parked: RefCell::default(),
        }
    }

    /// A group of nothing, for who only needs one.
    #[cfg(test)]
    pub fn for_tests() -> Rc<Group> {
        let topic = Topic::Key(b"k".as_slice().into());
        let read = Read::new(topic, Default::default(), |_| super::exchange::Response::empty(200));
        let meter = Meters::default().of("GET", "/test/group").clone();
        Rc::new(Group::new(read, false, meter, b"", Rc::default()))
    }

    /// Gives `send` the answer as of `state`, built anew only if it may have changed. How it was made is none of what it
    /// is built from: that is put into the answer there is.
    pub fn with_wire<R>(
        &self,
        state: &State,
        moment: Moment<'_>,
        shown: Shown,
        send: impl FnOnce(&Wire) -> R,
    ) -> R {
        let mut built = self.built.borrow_mut();
        let reusable =
            self.cacheable && built.as_mut().is_some_and(|built| self.still_true(built, state, moment.epoch));
        if !reusable {
            let fresh = self.build(state, moment, shown);
            self.account(built.as_ref().map_or(0, |old| old.wire.len()), fresh.wire.len());
            *built = Some(fresh);
        } else if let Some(built) = built.as_mut() {
            self.renew(built, moment, shown);
        }
        let sent = send(&built.as_ref().expect("it was built above").wire);
        if !self.cacheable {
            let dropped = built.take();
            self.account(dropped.map_or(0, |old| old.wire.len()), 0);
        }
        sent
    }

    fn still_true(&self, built: &mut Built, state: &State, epoch: u64) -> bool {
        if built.epoch != epoch {
            return false;
        }
        if built.state_index == state.index() {
            return true;
        }
        let same = built.change == state.last_change(&self.topic) && built.shown_index == self.shown(state);
        if same {
            built.state_index = state.index();
        }
        same
    }

    /// Puts into an answer that still holds what changes without the state.
    fn renew(&self, built: &mut Built, moment: Moment<'_>, shown: Shown) {
        if built.date_second != moment.second {
            built.wire.set_date(moment.date);
            built.date_second = moment.second;
        }
        let meta = built.meta.map(|_| self.meta(built.shown_index, shown));
        if meta != built.meta {
            let before = built.wire.len();
            meta.iter().for_each(|meta| built.wire.set_meta(meta));
            self.account(before, built.wire.len());
            built.meta = meta;
        }
    }

    fn meta(&self, index: u64, shown: Shown) -> Meta {
        let Shown { consistency, known_leader, last_contact_ms } = shown;
        let consistency = self.show_consistency.then_some(consistency);
        Meta { index, consistency, known_leader, last_contact_ms }
    }

    fn build(&self, state: &State, moment: Moment<'_>, shown: Shown) -> Built {
        let shown_index = self.shown(state);
        let response = (self.render)(state);
        let has_meta = response.headers.iter().any(|(name, _)| name == "X-Consul-Index")
            || (self.silent_of_absence && response.status == 404);
        let meta = (!has_meta).then(|| self.meta(shown_index, shown));
        let dress = Dress {
            manner: Manner { gzip: self.gzip, ..Manner::KEEP },
            extra: Some(moment.extra),
            meta,
            date: moment.date,
        };
        Built {
            wire: Wire::new(&response, dress),
            meta,
            state_index: state.index(),
            shown_index,
            change: state.last_change(&self.topic),
            epoch: moment.epoch,
            date_second: moment.second,
        }
    }

    fn shown(&self, state: &State) -> u64 {
        if self.blocking { state.blocking_index(&self.topic) } else { state.topic_index(&self.topic) }
    }

    /// Gives back the answer's memory; it is built again when it is asked for.
    fn forget(&self) {
        let held = self.built.take().map_or(0, |built| built.wire.len());
        self.account(held, 0);
    }

    fn account(&self, before: usize, after: usize) {
        self.held.0.set(self.held.0.get() + after - before);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let held = self.built.get_mut().as_ref().map_or(0, |built| built.wire.len());
        self.account(held, 0);
    }
}

/// The plans and groups of one core, bounded by [`limits::CACHE_MAX`].
#[derive(Default)]
pub struct Cache {
    plans: TwoGenerations<Plan>,
    groups: TwoGenerations<Rc<Group>>,
    held: Rc<Held>,
}

/// Bytes that an entry costs beside its key, about.
const ENTRY_OVERHEAD: usize = 256;

impl Cache {
    /// The plan of exactly these head bytes.
    pub fn plan(&mut self, head: &[u8]) -> Option<&Plan> {
        self.plans.get(head)
    }

    /// The plan for a read that a handler gave: shared with those who ask the same, and remembered under the
    /// head's bytes when `remember` has them. `line` is how the log names it.
    pub fn adopt(
        &mut self,
        read: Read,
        meter: &Meter,
        line: &[u8],
        key: Option<Vec<u8>>,
        gzip: bool,
        remember: Option<&[u8]>,
    ) -> Plan {
        let wait = read.options.wait;
        let key = key.filter(|_| read.cacheable);
        let group = match key.as_deref().and_then(|key| self.groups.get(key)) {
            Some(group) => group.clone(),
            None => {
                let group = Rc::new(Group::new(read, gzip, meter.clone(), line, self.held.clone()));
                if let Some(key) = key {
                    self.groups.insert(key.into(), group.clone());
                }
                group
            }
        };
        let plan = Plan { group, wait };
        if let Some(head) =
            remember.filter(|head| plan.group.cacheable && head.len() <= limits::CACHED_HEAD_MAX)
        {
            self.plans.insert(head.into(), plan.clone());
        }
        self.trim();
        plan
    }

    /// Drops the older half if there is too much. Also called now and then without a new question: answers are
    /// built behind [`Self::adopt`], and the last one may be the largest.
    pub fn trim(&mut self) {
        if self.plans.young_bytes + self.groups.young_bytes + self.held.0.get() > limits::CACHE_MAX / 2 {
            self.age();
        }
    }

    /// Forgets all: the configuration changed.
    pub fn clear(&mut self) {
        self.age();
        self.age();
    }

    /// Bytes that answers and keys hold now.
    pub fn bytes(&self) -> usize {
        [&self.plans.young_bytes, &self.plans.old_bytes, &self.groups.young_bytes, &self.groups.old_bytes]
            .into_iter()
            .sum::<usize>()
            + self.held.0.get()
    }

    fn age(&mut self) {
        // Parked queries keep their groups alive, but need no answer before they are woken.
        self.plans.old.values().for_each(|plan| plan.group.forget());
        self.groups.old.values().for_each(|group| group.forget());
        self.plans.age();
        self.groups.age();
    }
}

/// A map that forgets what was not asked for since it was last aged twice.
struct TwoGenerations<V> {
    young: HashMap<Box<[u8]>, V>,
    old: HashMap<Box<[u8]>, V>,
    /// Bytes that the young entries' keys cost, those that were asked for again after ageing too: else a client that
    /// keeps asking for all it ever asked for would grow the map without end.
    young_bytes: usize,
    old_bytes: usize,
}

impl<V> Default for TwoGenerations<V> {
    fn default() -> Self {
        TwoGenerations { young: HashMap::new(), old: HashMap::new(), young_bytes: 0, old_bytes: 0 }
    }
}

impl<V> TwoGenerations<V> {
    fn get(&mut self, key: &[u8]) -> Option<&V> {
        if !self.old.is_empty()
            && let Some((key, value)) = self.old.remove_entry(key)
        {
            self.old_bytes -= key.len() + ENTRY_OVERHEAD;
            self.insert(key, value);
        }
        self.young.get(key)
    }

    fn insert(&mut self, key: Box<[u8]>, value: V) {
        let cost = key.len() + ENTRY_OVERHEAD;
        if self.young.insert(key, value).is_none() {
            self.young_bytes += cost;
        }
    }

    fn age(&mut self) {
        self.old = std::mem::take(&mut self.young);
        self.old_bytes = std::mem::take(&mut self.young_bytes);
    }
}

/// The key of a read's group: its target without `index` and `wait`, and the headers that change answers.
pub fn group_key(path: &[u8], raw_query: &[u8], headers: &Headers, gzip: bool, blocking: bool) -> Vec<u8> {
    let mut key = Vec::with_capacity(path.len() + raw_query.len() + 16);
    key.extend_from_slice(&[u8::from(gzip), u8::from(blocking)]);
    // The path may hold any octet, so its length says where it ends.
    key.extend_from_slice(&(path.len() as u64).to_le_bytes());
    key.extend_from_slice(path);
    // Pairs end where `decode_query` ends them: what follows `index=1;` is a parameter of its own.
    for part in raw_query.split(|&byte| byte == b'&' || byte == b';') {
        if !part.starts_with(b"index=") && !part.starts_with(b"wait=") {
            key.extend_from_slice(part);
            key.push(b'&');
        }
    }
    for (name, value) in headers.iter().filter(|(name, _)| !is_neutral(name)) {
        key.push(0);
        key.extend(name.iter().map(u8::to_ascii_lowercase));
        key.push(b':');
        key.extend_from_slice(value);
    }
    key
}

/// Headers that no handler of a read looks at.
fn is_neutral(name: &[u8]) -> bool {
    const NEUTRAL: [&str; 8] = [
        "host",
        "user-agent",
        "connection",
        "accept-encoding",
        "accept-language",
        "content-type",
        "content-length",
        "keep-alive",
    ];
    NEUTRAL.iter().any(|neutral| name.eq_ignore_ascii_case(neutral.as_bytes()))
}

#[cfg(test)]
mod tests {
    use muster_protocol::http::Headers;

    use super::*;
    use crate::edge::http::exchange::{ReadOptions, Response};

    fn key(path: &str, query: &str) -> Vec<u8> {
        group_key(path.as_bytes(), query.as_bytes(), &Headers::default(), false, true)
    }

    #[test]
    fn only_index_and_wait_are_left_out_of_the_key() {
        assert_eq!(key("/v1/kv/a", "index=1&raw&wait=1s"), key("/v1/kv/a", "raw&index=7"));
        assert_eq!(key("/v1/kv/a", "index=1;raw"), key("/v1/kv/a", "index=2&raw"));
        for other in ["index=1;raw", "wait=1s;keys&index=1", "indexes=1&index=1"] {
            assert_ne!(key("/v1/kv/a", "index=1"), key("/v1/kv/a", other), "{other}");
        }
        assert_ne!(key("/v1/kv/a\0raw&", "index=1"), key("/v1/kv/a", "raw&index=1"));
    }

    #[test]
    fn answers_that_only_parked_queries_hold_are_forgotten() {
        let mut cache = Cache::default();
        let topic = Topic::Key(b"k".as_slice().into());
        let read =
            Read::new(topic, ReadOptions::default(), |_| Response::text(200, "x".repeat(limits::CACHE_MAX)));
        let meter = Meters::default().of("GET", "/test/cache").clone();
        let parked = cache.adopt(read, &meter, b"", Some(b"key".to_vec()), false, Some(b"head")).group;
        let date = muster_protocol::http::http_date(0);
        let moment = Moment { date: &date, second: 0, extra: b"", epoch: 0 };
        let shown = Freshness::Leader.confirmed();
        assert!(parked.with_wire(&State::new(), moment, shown, Wire::len) > limits::CACHE_MAX);
        (0..2).for_each(|_| cache.trim());
        assert_eq!(cache.bytes(), 0);
        assert!(parked.with_wire(&State::new(), moment, shown, Wire::len) > limits::CACHE_MAX);
    }

    #[test]
    fn how_an_answer_was_made_is_told_afresh_without_rendering_it_again() {
        let renders = Rc::new(Cell::new(0));
        let counted = renders.clone();
        let topic = Topic::Key(b"k".as_slice().into());
        let read = Read::new(topic, ReadOptions::default(), move |_| {
            counted.set(counted.get() + 1);
            Response::text(200, "body")
        });
        let meter = Meters::default().of("GET", "/test/cache").clone();
        let mut cache = Cache::default();
        let group =
            cache.adopt(read.showing_consistency(), &meter, b"", Some(b"key".to_vec()), false, None).group;
        let before = cache.bytes();
        for (second, age) in [(0, 0), (0, 7), (1, 12_345), (1, 3), (2, 3)] {
            let date = muster_protocol::http::http_date(second);
            let moment = Moment { date: &date, second, extra: b"", epoch: 0 };
            let shown = Shown { consistency: "stale", known_leader: age > 3, last_contact_ms: age };
            let text = group.with_wire(&State::new(), moment, shown, |wire| wire.front().to_vec());
            let text = String::from_utf8(text).expect("text");
            let date = std::str::from_utf8(&date).expect("text");
            let made = format!(
                "X-Consul-Effective-Consistency: stale\r\nX-Consul-Index: 1\r\nX-Consul-Knownleader: {}\r\n\
                 X-Consul-Lastcontact: {age}\r\nDate: {date}\r\nContent-Length: 4\r\n\r\nbody",
                age > 3
            );
            assert!(text.ends_with(&made), "{text}");
            assert_eq!(cache.bytes() - before, text.len());
        }
        assert_eq!(renders.get(), 1);
    }

    #[test]
    fn keys_stay_within_the_bound_even_when_all_are_asked_for_again() {
        let meter = Meters::default().of("GET", "/test/cache").clone();
        let mut cache = Cache::default();
        let head = |n: usize| format!("{n:0>2000}").into_bytes();
        for n in 0..4 * limits::CACHE_MAX / 2000 {
            let topic = Topic::Key(b"k".as_slice().into());
            let read = Read::new(topic, ReadOptions::default(), |_| Response::empty(404));
            cache.adopt(read, &meter, b"", Some(head(n)), false, Some(&head(n)));
            // The client goes back to what it asked long ago.
            for before in [n / 2, n / 4, n.saturating_sub(limits::CACHE_MAX / 8000)] {
                cache.plan(&head(before));
            }
            assert!(cache.bytes() <= limits::CACHE_MAX + 2 * (2000 + ENTRY_OVERHEAD), "{}", cache.bytes());
        }
    }
}
