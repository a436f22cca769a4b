//! What gossip tells: it goes into the roster and into the log.

use std::fmt::Write;
use std::rc::Rc;
use std::sync::Arc;

use muster_protocol::entry::ServerId;
use muster_protocol::gossip::events::UserEvent;
use muster_protocol::gossip::{self, Change, Claim, Conflict, Effect, Level, Party, Status};

use super::driver::Inner;
use super::events::Event;
use super::facts::ServerFacts;
use super::roster::{Evidence, Member, MemberStatus};
use crate::metrics::{self, Counter};
use crate::runtime::mesh::OneSender;
use crate::runtime::time;

/// Queries that wait for the next event.
const LISTENERS_MAX: usize = 4096;

/// A line of the log under the name that operators know from Consul, of a server or of a client.
macro_rules! log {
    ($inner:expr, $level:ident, serf, $($text:tt)*) => {
        if $inner.settings.server {
            tracing::$level!(target: "agent.server.serf.lan", $($text)*)
        } else {
            tracing::$level!(target: "agent.client.serf.lan", $($text)*)
        }
    };
    ($inner:expr, $level:ident, memberlist, $($text:tt)*) => {
        if $inner.settings.server {
            tracing::$level!(target: "agent.server.memberlist.lan", $($text)*)
        } else {
            tracing::$level!(target: "agent.client.memberlist.lan", $($text)*)
        }
    };
}
pub(super) use log;

/// Takes what is not for the driver itself.
pub(super) fn take(inner: &Rc<Inner>, effect: Effect) {
    match effect {
        Effect::Member { change, member } => inner.take_change(&change, &member),
        Effect::Conflict(conflict) => {
            log!(inner, error, serf, "{}", conflict_text(&conflict));
        }
        Effect::Log { level, text } => match level {
            Level::Warn => log!(inner, warn, memberlist, "memberlist: {text}"),
            Level::Info => log!(inner, info, memberlist, "memberlist: {text}"),
            Level::Debug => log!(inner, debug, memberlist, "memberlist: {text}"),
        },
        _ => {}
    }
}

impl Inner {
    /// Begins with this agent alone.
    pub fn begin(&self) {
        let own = self.core.borrow().own().clone();
        self.roster.borrow_mut().insert(self.member(&own, None, None));
        self.log_change(&Change::Joined, &own);
        self.publish();
    }

    /// Shows all cores who the members are.
    pub fn publish(&self) {
        let roster = self.roster.borrow().clone();
        (self.changed)(&roster);
        self.published.store(roster);
        self.moved.ring();
        self.nearer.ring();
    }

    /// Keeps an event that this agent heeds, and tells who waits for one.
    pub fn take_event(&self, heard: &UserEvent) {
        metrics::count(Counter::SerfEvents, 1);
        let Some(event) = Event::read(heard) else {
            log!(
                self,
                debug,
                serf,
                "serf: an event '{}' of a kind that is not known is passed over",
                heard.name
            );
            return;
        };
        if !(self.settings.heed)(&event) {
            return;
        }
        tracing::debug!("agent: new event: event_name={} event_id={}", event.name, ServerId(event.id));
        self.events.update(|log| {
            let mut log = log.clone();
            log.push(event.clone());
            log
        });
        for listener in self.listeners.borrow_mut().drain(..) {
            let _ = listener.send(true);
        }
    }

    /// Tells when an event has come that is not among the `seen` ones. At the limit it is told at once that it must not wait here.
    pub fn await_event(&self, seen: u64, reply: OneSender<bool>) {
        let mut listeners = self.listeners.borrow_mut();
        listeners.retain(|listener| !listener.is_closed());
        let news = self.events.load().count() != seen;
        if news || listeners.len() >= LISTENERS_MAX {
            let _ = reply.send(news);
        } else {
            listeners.push(reply);
        }
    }

    /// Keeps the roster's word about this agent up to date. Whether it was not.
    pub fn keep_own(&self) -> bool {
        let core = self.core.borrow();
        let own = core.own();
        let mut roster = self.roster.borrow_mut();
        let before = roster.named(&own.name).filter(|before| before.incarnation != own.incarnation).cloned();
        let Some(before) = before else { return false };
        let now = self.member(own, Some(&before), before.evidence.clone());
        roster.insert(now);
        true
    }

    fn take_change(&self, change: &Change, member: &gossip::Member) {
        self.log_change(change, member);
        let mut roster = self.roster.borrow_mut();
        if *change == Change::Reaped {
            roster.remove(&member.name);
            return;
        }
        let before = roster.named(&member.name).filter(|before| before.name == member.name).cloned();
        let evidence = self.evidence(change, before.as_deref());
        let now = self.member(member, before.as_deref(), evidence);
        roster.insert(now);
    }

    /// A member as all cores see it.
    fn member(
        &self,
        member: &gossip::Member,
        before: Option<&Member>,
        evidence: Option<Arc<Evidence>>,
    ) -> Member {
        let status = match member.status {
            Status::Alive | Status::Suspect => MemberStatus::Alive,
            Status::Leaving => MemberStatus::Leaving,
            Status::Left => MemberStatus::Left,
            Status::Failed => MemberStatus::Failed,
        };
        // A suspect counts as alive: it is so since it came.
        let same = before.filter(|before| before.status == status && status == MemberStatus::Alive);
        let facts = || ServerFacts::of(&member.tags).map(Arc::new);
        Member {
            id: member.id,
            name: member.name.clone(),
            ip: member.address.ip(),
            serf_lan_port: member.address.port(),
            tags: member.tags.clone(),
            server: match before {
                Some(before) if before.tags == member.tags => before.server.clone(),
                _ => facts(),
            },
            incarnation: member.incarnation,
            status,
            since: same.map_or_else(|| self.unix(member.since), |same| same.since),
            evidence,
        }
    }

    fn evidence(&self, change: &Change, before: Option<&Member>) -> Option<Arc<Evidence>> {
        let unix = |at: Option<std::time::Duration>| at.map(|at| self.unix(at));
        match change {
            Change::Suspected { by } => {
                Some(Arc::new(Evidence { suspected_by: Some(by.clone()), ..Evidence::default() }))
            }
            Change::Failed(evidence) => Some(Arc::new(Evidence {
                suspected_by: evidence.suspected_by.clone(),
                confirmed_by: evidence.confirmed_by.clone(),
                declared_by: Some(evidence.declared_by.clone()),
                last_ack: unix(evidence.last_ack),
                last_rtt: evidence.last_rtt,
            })),
            Change::Updated | Change::Leaving => before.and_then(|before| before.evidence.clone()),
            Change::Joined | Change::Refuted { .. } | Change::Left | Change::Reaped => None,
        }
    }

    /// The lines that operators know from Consul, and what they could not know from it.
    fn log_change(&self, change: &Change, member: &gossip::Member) {
        let counter = match change {
            Change::Joined => Some(Counter::SerfMemberJoin),
            Change::Updated => Some(Counter::SerfMemberUpdate),
            Change::Suspected { .. } => Some(Counter::MemberlistSuspect),
            Change::Failed(_) => Some(Counter::SerfMemberFailed),
            Change::Left => Some(Counter::SerfMemberLeave),
            Change::Refuted { .. } | Change::Leaving | Change::Reaped => None,
        };
        counter.into_iter().for_each(|counter| metrics::count(counter, 1));
        let (name, ip) = (&member.name, member.address.ip());
        match change {
            Change::Joined => log!(self, info, serf, "serf: EventMemberJoin: {name} {ip}"),
            Change::Updated => log!(self, info, serf, "serf: EventMemberUpdate: {name}"),
            Change::Suspected { by } => {
                log!(self, debug, memberlist, "memberlist: Suspect {name}: no answer to {by}");
            }
            Change::Refuted { suspected_by } => {
                log!(
                    self,
                    debug,
                    memberlist,
                    "memberlist: {name} has contradicted: {suspected_by} had suspected it"
                );
            }
            Change::Failed(evidence) => {
                log!(self, info, serf, "serf: EventMemberFailed: {name} {ip}");
                log!(self, info, memberlist, "memberlist: {}", self.why_failed(name, evidence));
            }
            Change::Leaving => log!(self, debug, serf, "serf: {name} is about to leave"),
            Change::Left => log!(self, info, serf, "serf: EventMemberLeave: {name} {ip}"),
            Change::Reaped => log!(self, info, serf, "serf: EventMemberReap: {name}"),
        }
    }

    fn why_failed(&self, name: &str, evidence: &gossip::Evidence) -> String {
        let mut text = format!("Marking {name} as failed: declared_by={}", evidence.declared_by);
        // Writing to a string does not fail.
        if let Some(by) = &evidence.suspected_by {
            let _ = write!(text, " suspected_by={by}");
        }
        let _ = write!(text, " confirmed_by=[{}]", evidence.confirmed_by.join(" "));
        match evidence.last_ack {
            Some(at) => {
                let ago = time::unix_now().saturating_sub(self.unix(at));
                let _ = write!(text, " last_ack={:.1}s ago", ago.as_secs_f64());
            }
            None => text.push_str(" last_ack=never"),
        }
        if let Some(rtt) = evidence.last_rtt {
            let _ = write!(text, " rtt={rtt:?}");
        }
        text
    }
}

/// Both parties, and what to do.
fn conflict_text(conflict: &Conflict) -> String {
    let Conflict { claim, ours, theirs } = conflict;
    let party = |party: &Party| format!("'{}' (ID {}) at {}", party.name, party.id, party.address);
    match claim {
        Claim::Name => format!(
            "serf: Name conflict for '{}': {} has it, and {} claims it; give one of them another name (node_name)",
            ours.name,
            party(ours),
            party(theirs)
        ),
        Claim::Id => format!(
            "serf: Node ID conflict: {} has it, and {} claims it; give one of them a new one (remove DATA/node-id, and DATA/raft if \
             it was copied along)",
            party(ours),
            party(theirs)
        ),
    }
}
