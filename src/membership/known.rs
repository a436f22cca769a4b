//! Whom this agent knows, as a table: what it hears goes in, whom to talk to next comes out. It reads no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use muster_protocol::entry::ServerId;
use muster_protocol::rpc::{CARDS_MAX, Card, Introduction};

use super::facts::ServerFacts;
use super::roster::{Member, MemberStatus, Roster};

/// How often each member is talked to.
pub const TALK_INTERVAL: Duration = Duration::from_secs(1);
/// How often a member that does not answer is tried.
const FAILED_INTERVAL: Duration = Duration::from_secs(5);
/// News are told no more often than this.
const NEWS_INTERVAL: Duration = Duration::from_millis(100);
/// So many attempts in a row without an answer are a failure.
const MISSES_MAX: u32 = 3;

/// The table.
pub struct Known {
    own: ServerId,
    members: BTreeMap<ServerId, Acquaintance>,
    /// Where others said that somebody is whom we have not met.
    hearsay: BTreeSet<SocketAddr>,
    /// Others took this server for gone, though it runs: what it says of itself counts from here on only. 0: nobody did.
    refuted_ms: u64,
}

/// Another server.
struct Acquaintance {
    card: Card,
    status: MemberStatus,
    since: Duration,
    misses: u32,
    /// When to talk to it next.
    next: Instant,
    /// When it was last talked to.
    last: Instant,
    talking: bool,
    /// Whom it knows alive, itself too.
    view: BTreeSet<ServerId>,
}

/// The time, on both clocks.
#[derive(Clone, Copy)]
pub struct Time {
    /// For deadlines.
    pub now: Instant,
    /// Since 1970.
    pub unix: Duration,
}

/// What hearing somebody changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing that others need to know.
    None,
    /// The roster.
    Roster,
}

impl Known {
    /// Nobody but oneself.
    pub fn new(own: ServerId) -> Known {
        Known { own, members: BTreeMap::new(), hearsay: BTreeSet::new(), refuted_ms: 0 }
    }

    /// Hears what a server says about itself and others.
    ///
    /// # Errors
    /// It cannot be a member here; why, for both sides.
    pub fn hear(&mut self, own: &Card, said: &Introduction, time: Time) -> Result<News, String> {
        let card = &said.own;
        if card.id == self.own {
            // Of this process, perhaps from before it refuted its end.
            let itself = card.started_ms == own.started_ms
                || (self.refuted_ms > 0 && card.started_ms <= own.started_ms);
            return if itself { Ok(News::None) } else { Err(same_id(own, card)) };
        }
        if card.datacenter != own.datacenter {
            return Err(format!(
                "Member '{}' part of wrong datacenter '{}': this is '{}'",
                card.name, card.datacenter, own.datacenter
            ));
        }
        if let (Some(ours), Some(theirs)) = (own.cluster, card.cluster)
            && ours != theirs
        {
            return Err(format!(
                "server '{}' is of cluster {theirs} and server '{}' of cluster {ours}: they were bootstrapped apart. Keep the one \
                 whose data you want, stop the servers of the other, remove their DATA/raft and start them again to join it",
                card.name, own.name
            ));
        }
        self.refuse_same_name(own, card)?;
        for other in &said.others {
            self.hear_of(own, other, time);
        }
        Ok(self.meet(said, time))
    }

    fn refuse_same_name(&self, own: &Card, card: &Card) -> Result<(), String> {
        let mut alive = self.members.values().filter(|member| member.status == MemberStatus::Alive);
        let named = alive.find(|member| member.card.id != card.id && member.card.name == card.name);
        let other = match named {
            Some(member) => &member.card,
            None if own.name == card.name => own,
            None => return Ok(()),
        };
        Err(format!(
            "node name '{}' is taken by the server with ID {} at {}: give the one with ID {} another name (node_name)",
            card.name,
            other.id,
            SocketAddr::new(other.ip, other.serf_lan_port),
            card.id
        ))
    }

    /// A server has spoken itself.
    fn meet(&mut self, said: &Introduction, time: Time) -> News {
        let (card, leaving) = (&said.own, said.own.status == MemberStatus::Left as u8);
        let mut view: BTreeSet<ServerId> = alive(&said.others).map(|other| other.id).collect();
        view.insert(card.id);
        self.hearsay.remove(&SocketAddr::new(card.ip, card.serf_lan_port));
        // Who was reinstalled, or renamed, comes with another ID or name: what it was is gone.
        self.members.retain(|id, member| {
            *id == card.id || member.card.name != card.name || member.status == MemberStatus::Alive
        });
        let known = self.members.len();
        let Some(member) = self.members.get_mut(&card.id) else {
            if known >= CARDS_MAX {
                return News::None;
            }
            let status = if leaving { MemberStatus::Left } else { MemberStatus::Alive };
            let (card, next, last) = (card.clone(), time.now, time.now);
            let new =
                Acquaintance { card, status, since: time.unix, misses: 0, next, last, talking: false, view };
            self.members.insert(new.card.id, new);
            return News::Roster;
        };
        // A word that was under way while it left.
        if member.status == MemberStatus::Left && card.started_ms <= member.card.started_ms {
            return News::None;
        }
        member.misses = 0;
        member.view = view;
        let status = if leaving { MemberStatus::Left } else { MemberStatus::Alive };
        if member.card == *card && member.status == status {
            return News::None;
        }
        if member.status != status {
            member.since = time.unix;
            member.next = time.now;
        }
        (member.card, member.status) = (card.clone(), status);
        News::Roster
    }

    /// Somebody spoke of somebody else.
    fn hear_of(&mut self, own: &Card, card: &Card, time: Time) {
        if card.id == self.own && own.status == MemberStatus::Alive as u8 {
            let given_up = card.status == MemberStatus::Left as u8 && card.started_ms >= own.started_ms;
            if given_up {
                self.refuted_ms = card.started_ms.saturating_add(1);
            }
            return;
        }
        if card.id == self.own || card.datacenter != own.datacenter {
            return;
        }
        let left = card.status == MemberStatus::Left as u8;
        match self.members.get_mut(&card.id) {
            // It left while we could not hear it, or an operator has given it up.
            Some(member)
                if left
                    && member.status == MemberStatus::Failed
                    && card.started_ms >= member.card.started_ms =>
            {
                (member.status, member.since) = (MemberStatus::Left, time.unix);
            }
            Some(_) => {}
            None if card.status == MemberStatus::Alive as u8 && self.hearsay.len() < CARDS_MAX => {
                self.hearsay.insert(SocketAddr::new(card.ip, card.serf_lan_port));
            }
            None => {}
        }
    }

    /// A server did not answer.
    pub fn miss(&mut self, id: ServerId, time: Time) -> News {
        let Some(member) = self.members.get_mut(&id) else { return News::None };
        member.misses = member.misses.saturating_add(1);
        if member.status != MemberStatus::Alive || member.misses < MISSES_MAX {
            return News::None;
        }
        (member.status, member.since) = (MemberStatus::Failed, time.unix);
        News::Roster
    }

    /// Whom to talk to now. Each one is not named again before [`Known::talked`].
    pub fn due(&mut self, now: Instant, out: &mut Vec<(Option<ServerId>, SocketAddr)>) {
        for (id, member) in &mut self.members {
            if member.talking || member.status == MemberStatus::Left || now < member.next {
                continue;
            }
            member.talking = true;
            member.last = now;
            let alive = member.status == MemberStatus::Alive;
            member.next = now + if alive { TALK_INTERVAL } else { FAILED_INTERVAL };
            out.push((Some(*id), SocketAddr::new(member.card.ip, member.card.serf_lan_port)));
        }
        out.extend(std::mem::take(&mut self.hearsay).into_iter().map(|address| (None, address)));
    }

    /// Members may be at these addresses.
    pub fn look_for(&mut self, addresses: &[SocketAddr]) {
        self.hearsay.extend(addresses.iter().take(CARDS_MAX));
    }

    /// A talk is over.
    pub fn talked(&mut self, id: ServerId) {
        if let Some(member) = self.members.get_mut(&id) {
            member.talking = false;
        }
    }

    /// There are news for everybody.
    pub fn spread(&mut self, now: Instant) {
        for member in self.members.values_mut().filter(|member| member.status == MemberStatus::Alive) {
            member.next = member.next.min(now.max(member.last + NEWS_INTERVAL));
        }
    }

    /// When [`Known::due`] has something next.
    pub fn next_deadline(&self) -> Option<Instant> {
        let idle =
            self.members.values().filter(|member| !member.talking && member.status != MemberStatus::Left);
        idle.map(|member| member.next).min()
    }

    /// Gives a member up that does not answer, as an operator asks. `None` when there is none of this name.
    pub fn give_up(&mut self, name: &str, unix: Duration) -> Option<News> {
        let mut named =
            self.members.values_mut().filter(|member| member.card.name.eq_ignore_ascii_case(name));
        let member = named.next()?;
        if member.status != MemberStatus::Failed {
            return Some(News::None);
        }
        (member.status, member.since) = (MemberStatus::Left, unix);
        Some(News::Roster)
    }

    /// Forgets those that have not been there for longer than `age`.
    pub fn forget(&mut self, unix: Duration, age: Duration) -> News {
        let before = self.members.len();
        let gone = |member: &Acquaintance| {
            member.status != MemberStatus::Alive && unix.saturating_sub(member.since) > age
        };
        self.members.retain(|_, member| !gone(member));
        if self.members.len() < before { News::Roster } else { News::None }
    }

    /// Where all those are that may be talked to.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let there = self.members.values().filter(|member| member.status != MemberStatus::Left);
        there.map(|member| SocketAddr::new(member.card.ip, member.card.serf_lan_port)).collect()
    }

    /// Whether somebody else answers.
    pub fn is_alone(&self) -> bool {
        !self.members.values().any(|member| member.status == MemberStatus::Alive)
    }

    /// The least [`Card::started_ms`] with which this server is believed to be there.
    pub fn refuted_ms(&self) -> u64 {
        self.refuted_ms
    }

    /// The others, as they are told of.
    pub fn cards(&self) -> Vec<Card> {
        let card = |member: &Acquaintance| Card { status: member.status as u8, ..member.card.clone() };
        self.members.values().map(card).collect()
    }

    /// Whom this server knows alive, itself too, and each of them likewise.
    pub fn views(&self) -> impl Iterator<Item = (&Card, &BTreeSet<ServerId>)> + Clone {
        let alive = self.members.values().filter(|member| member.status == MemberStatus::Alive);
        alive.map(|member| (&member.card, &member.view))
    }

    /// All members, with oneself.
    pub fn roster(&self, own: &Card, started: Duration) -> Roster {
        let mut members = vec![member(own, MemberStatus::Alive, started)];
        members.extend(self.members.values().map(|other| member(&other.card, other.status, other.since)));
        Roster::new(members)
    }
}

fn alive(cards: &[Card]) -> impl Iterator<Item = &Card> {
    cards.iter().filter(|card| card.status == MemberStatus::Alive as u8)
}

fn same_id(own: &Card, other: &Card) -> String {
    format!(
        "servers '{}' and '{}' have the same node ID {}: give one of them a new one (remove DATA/node-id, and DATA/raft if it was \
         copied along)",
        own.name, other.name, own.id
    )
}

fn member(card: &Card, status: MemberStatus, since: Duration) -> Member {
    let facts = ServerFacts {
        port: card.server_port,
        wan_join_port: card.wan_join_port,
        bootstrap: card.bootstrap,
        expect: card.expect,
        non_voter: card.non_voter,
        cluster: card.cluster,
        has_log: card.has_log,
        knows: None,
    };
    Member {
        id: card.id,
        name: card.name.as_str().into(),
        ip: card.ip,
        serf_lan_port: card.serf_lan_port,
        tags: facts.tags(&card.datacenter, &card.segment, card.id),
        server: Some(facts.into()),
        incarnation: card.started_ms,
        status,
        since,
        evidence: None,
    }
}

#[cfg(test)]
mod tests;
