//! One packet in, one reply out: from the answer cache, else from the state, else later (when recursors have to be
//! asked). It never waits and does no I/O; a core has one, shared by its UDP and TCP fronts.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use muster_protocol::dns::name::Name;
use muster_protocol::dns::question::{KEY_LEN_MAX, Parsed, Query, parse};
use muster_protocol::dns::record::Answer;
use muster_protocol::dns::template::{Template, Terms, size_limit};
use muster_protocol::dns::{MESSAGE_SIZE_MAX, rcode};

use super::cache::AnswerCache;
use super::lookup::{External, Found, Local, Named, look_up, name_answer};
use super::settings::DnsSettings;
use crate::edge::fresh::Freshness;
use crate::metrics::{self, Counter, Sample};
use crate::runtime::random::Rng;
use crate::store::{State, View};

/// Notes of use that a responder keeps until they are taken; more are not worth their room.
const USED_MAX: usize = 256;

/// What becomes of a packet.
#[derive(Debug)]
pub enum Reply {
    /// The reply has this many bytes.
    Now(usize),
    /// Recursors have to be asked first.
    Later(Later),
    /// It is about the state, which has to be proven fresh first.
    Unproven,
    /// The servers have to be asked first.
    Unheld(Missing),
    /// None is due.
    Silence,
    /// The client takes more than there is room for: answer it again into [`MESSAGE_SIZE_MAX`] bytes.
    Larger,
}

/// What a client agent does not know that a question is about.
#[derive(Debug)]
pub enum Missing {
    /// Rows.
    Views(Vec<View>),
    /// What is at an address.
    Name(IpAddr),
}

/// A query that waits for recursors.
#[derive(Debug)]
pub struct Later {
    /// The packet.
    pub packet: Box<[u8]>,
    /// What to ask them: these names' addresses, or the query itself when there are none.
    pub wanted: Vec<Name>,
    /// Settings as of the question.
    pub settings: Arc<DnsSettings>,
}

/// When and over what a query came.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// Over TCP.
    pub tcp: bool,
    /// Unix time, seconds.
    pub unix_time: u32,
    /// Whether the state may be older than answers have to be: then there are none from it.
    pub unproven: bool,
}

/// How many questions were answered, since the tally was taken last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets that were looked at.
    pub packets: u64,
    /// Questions about our domain.
    pub domain: u64,
    /// Questions for the name of an address.
    pub reverse: u64,
}

/// See the module's text.
pub struct Responder {
    settings: Arc<DnsSettings>,
    cache: AnswerCache,
    random: Rng,
    tally: Tally,
    /// What answers were made from on a client agent.
    used: Vec<View>,
}

impl Responder {
    /// A responder with an empty cache.
    pub fn new(settings: DnsSettings, seed: u64) -> Responder {
        let mut random = Rng::new(seed);
        let cache = AnswerCache::new(random.next_u64());
        Responder { settings: Arc::new(settings), cache, random, tally: Tally::default(), used: Vec::new() }
    }

    /// How fresh the state must be.
    pub fn freshness(&self) -> Freshness {
        self.settings.freshness
    }

    /// The longest that a question waits for a leader.
    pub fn hold_timeout(&self) -> Duration {
        self.settings.hold_timeout
    }

    /// The numbers since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// What answers were made from on a client agent since the last call; those that were kept ready do not count.
    pub fn take_used(&mut self) -> Vec<View> {
        std::mem::take(&mut self.used)
    }

    /// Forgets the answers that are kept ready.
    pub fn forget(&mut self) {
        self.cache.clear();
    }

    /// Takes up another configuration.
    pub fn configure(&mut self, settings: DnsSettings) {
        self.settings = Arc::new(settings);
        self.cache.clear();
    }

    /// Answers `packet` into `out`, which holds at least the packet's length and a plain UDP message.
    pub fn respond(&mut self, state: &State, packet: &[u8], how: Circumstances, out: &mut [u8]) -> Reply {
        let query = match parse(packet) {
            Parsed::Query(query) => query,
            Parsed::Reject(reject) => return Reply::Now(reject.render(out)),
            Parsed::Drop => return Reply::Silence,
        };
        if size_limit(&query, how.tcp) > out.len() {
            return Reply::Larger;
        }
        let terms = terms(&self.settings, how);
        self.tally.packets += 1;
        let random = &mut self.random;
        let mut buffer = [0; KEY_LEN_MAX];
        let key = query.key(&mut buffer);
        if !how.unproven
            && let Some(template) = self.cache.get(key, state)
        {
            self.tally.answered(&query);
            return Reply::Now(template.render(&query, &terms, &mut || random.next_u64() as u32, out));
        }
        let found = look_up(&query, &self.settings, state, &External::new(), random.next_u64());
        let local = match found {
            Found::Here(_) if how.unproven => {
                self.tally.packets -= 1; // it is counted when it is answered
                return Reply::Unproven;
            }
            Found::Here(local) => *local,
            Found::Recurse if self.settings.recursion_available() => return self.later(packet, Vec::new()),
            // Reverse names: nobody else to ask.
            Found::Recurse => return Reply::Now(self.fail(&query, how, out)),
            Found::Refused => return Reply::Now(query.render_bare(rcode::REFUSED.into(), out)),
            Found::Unnamed(ip) => {
                self.tally.packets -= 1;
                return Reply::Unheld(Missing::Name(ip));
            }
        };
        if !local.missing.is_empty() {
            self.tally.packets -= 1;
            return Reply::Unheld(Missing::Views(local.missing));
        }
        self.tally.answered(&query);
        let Local { answer, basis, wanted, used, .. } = local;
        if self.used.len() < USED_MAX {
            self.used.extend(used);
        }
        if !wanted.is_empty() {
            return self.later(packet, wanted);
        }
        let compressed = !self.settings.dns.disable_compression;
        let mut template = Template::compile(&answer, query.name().len(), compressed);
        let len = template.render(&query, &terms, &mut || random.next_u64() as u32, out);
        self.cache.put(key, template, basis, state);
        Reply::Now(len)
    }

    /// The reply to a query whose aliases recursors have answered for: `external` holds what they said.
    pub fn respond_with(
        &mut self,
        state: &State,
        later: &Later,
        external: &External,
        how: Circumstances,
    ) -> Option<Vec<u8>> {
        let Parsed::Query(query) = parse(&later.packet) else { return None };
        let mut out = vec![0; MESSAGE_SIZE_MAX];
        let len = match look_up(&query, &later.settings, state, external, self.random.next_u64()) {
            Found::Here(local) => self.send_once(&local.answer, &query, &later.settings, how, &mut out),
            Found::Recurse | Found::Refused | Found::Unnamed(_) => self.fail(&query, how, &mut out),
        };
        out.truncate(len);
        Some(out)
    }

    /// Answers a question about an address of which the servers know this.
    pub fn respond_named(
        &mut self,
        packet: &[u8],
        named: Option<Named<'_>>,
        how: Circumstances,
        out: &mut [u8],
    ) -> Reply {
        let Parsed::Query(query) = parse(packet) else { return Reply::Silence };
        let settings = self.settings.clone();
        self.tally.packets += 1;
        match named.and_then(|named| name_answer(&settings, query.qtype, named)) {
            Some(answer) => {
                self.tally.answered(&query);
                Reply::Now(self.send_once(&answer, &query, &settings, how, out))
            }
            None if settings.recursion_available() => self.later(packet, Vec::new()),
            None => Reply::Now(self.fail(&query, how, out)),
        }
    }

    /// Answers a question with what is left to say when the servers do not answer.
    pub fn respond_alone(&mut self, state: &State, packet: &[u8], how: Circumstances) -> Option<Vec<u8>> {
        let Parsed::Query(query) = parse(packet) else { return None };
        let mut out = vec![0; MESSAGE_SIZE_MAX];
        let settings = self.settings.clone();
        let found = look_up(&query, &settings, state, &External::new(), self.random.next_u64());
        let len = match found {
            Found::Here(local) => self.send_once(&local.answer, &query, &settings, how, &mut out),
            Found::Recurse | Found::Refused | Found::Unnamed(_) => self.fail(&query, how, &mut out),
        };
        out.truncate(len);
        Some(out)
    }

    /// The reply to a question about a state that could not be proven fresh.
    pub fn respond_unproven(&mut self, packet: &[u8], how: Circumstances) -> Option<Vec<u8>> {
        let Parsed::Query(query) = parse(packet) else { return None };
        let mut out = vec![0; MESSAGE_SIZE_MAX];
        let settings = self.settings.clone();
        let recursion_available = settings.recursion_available();
        let answer = Answer { recursion_available, ..Answer::bare(rcode::SERVFAIL, true) };
        let len = self.send_once(&answer, &query, &settings, how, &mut out);
        out.truncate(len);
        Some(out)
    }

    /// The reply to a query that no recursor could answer.
    pub fn respond_failure(&mut self, later: &Later, how: Circumstances) -> Option<Vec<u8>> {
        let Parsed::Query(query) = parse(&later.packet) else { return None };
        let mut out = vec![0; MESSAGE_SIZE_MAX];
        let len = self.fail(&query, how, &mut out);
        out.truncate(len);
        Some(out)
    }

    fn later(&self, packet: &[u8], wanted: Vec<Name>) -> Reply {
        Reply::Later(Later { packet: packet.into(), wanted, settings: self.settings.clone() })
    }

    /// SERVFAIL, as one who would recurse.
    fn fail(&mut self, query: &Query<'_>, how: Circumstances, out: &mut [u8]) -> usize {
        let answer = Answer { recursion_available: true, ..Answer::bare(rcode::SERVFAIL, false) };
        let settings = self.settings.clone();
        self.send_once(&answer, query, &settings, how, out)
    }

    fn send_once(
        &mut self,
        answer: &Answer,
        query: &Query<'_>,
        settings: &DnsSettings,
        how: Circumstances,
        out: &mut [u8],
    ) -> usize {
        let compressed = !settings.dns.disable_compression;
        let random = &mut self.random;
        let mut template = Template::compile(answer, query.name().len(), compressed);
        template.render(query, &terms(settings, how), &mut || random.next_u64() as u32, out)
    }
}

impl Tally {
    fn answered(&mut self, query: &Query<'_>) {
        const ARPA: &[u8] = b"\x04arpa\0";
        let name = query.name();
        let tail = &name[name.len().saturating_sub(ARPA.len())..];
        if tail.eq_ignore_ascii_case(ARPA) {
            self.reverse += 1;
        } else {
            self.domain += 1;
        }
    }

    /// Puts the numbers where they are read; `took` is for all the packets.
    pub fn publish(self, took: Duration) {
        metrics::count(Counter::DnsQueries, self.packets);
        let packets = u32::try_from(self.packets).unwrap_or(u32::MAX).max(1);
        let share = |n: u64| took / packets * u32::try_from(n).unwrap_or(u32::MAX);
        metrics::samples(Sample::DnsDomainQuery, self.domain, share(self.domain));
        metrics::samples(Sample::DnsPtrQuery, self.reverse, share(self.reverse));
    }
}

fn terms(settings: &DnsSettings, how: Circumstances) -> Terms {
    Terms {
        tcp: how.tcp,
        udp_answers_max: settings.dns.udp_answer_limit,
        mark_truncated: settings.dns.enable_truncate,
        serial: how.unix_time,
    }
}
