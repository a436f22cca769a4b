//! What is said of members, and when it is believed: the rules of SWIM (4.2). Each claim names an incarnation, which only the member itself
//! moves up. Alive beats what is of a lower incarnation; a suspicion or a death beats alive of the same or a lower one; the dead come back
//! only with a higher one. Whoever hears itself accused contradicts with the next incarnation.
//!
//! Beyond SWIM: a name belongs to one address while its holder is live, and an ID to one name. Who claims what another has is not taken in,
//! and both are named; so two members of the same name never take it from each other in turns.

use std::net::SocketAddr;
use std::sync::Arc;

use super::face::{Change, Claim, Conflict, Effect, Evidence, Level, Party};
use super::graves::Grave;
use super::member::{Member, Status, Versions};
use super::message::{Alive, Call, Dead, Frame, Message, Names, Suspect};
use super::pushpull::Errand;
use super::settings::{AgreedTag, CONFIRMERS_MAX, INCARNATION_LEAP_MAX, MEMBERS_MAX, Settings};
use super::suspicion::Suspicion;
use super::table::Row;
use super::{Gossip, Lane, packet};
use crate::entry::Now;

/// How a suspicion became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// This agent got no answer itself.
    Probed,
    /// Whoever suspects it has told all.
    Told,
    /// It was in the state of another.
    Merged,
}

impl Gossip {
    /// A member is there. What is new is told to others if `retell`.
    ///
    /// # Errors
    /// It cannot be a member here; why, for both sides.
    pub(super) fn on_alive(
        &mut self,
        alive: &Alive<'_>,
        retell: bool,
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        if *alive.name == **self.table.own_name() {
            self.on_alive_self(alive, out);
            return Ok(());
        }
        let buried = self.graves.get(alive.name).map_or(0, |grave| grave.incarnation);
        let known = self.table.row(alive.name).map_or(0, |row| row.member.incarnation);
        if alive.incarnation <= buried.max(known) || leaps(known, alive.incarnation) {
            return Ok(());
        }
        self.admit(alive)?;
        self.refuse_conflict(alive, out)?;
        self.graves.open(alive.name);
        let name = if self.table.row(alive.name).is_some() {
            self.renew(alive, out)
        } else {
            self.enroll(alive, out)
        };
        if retell {
            self.retell(&name, &Message::Alive(*alive));
        }
        Ok(())
    }

    /// Whether somebody may be a member here at all.
    pub(super) fn admit(&self, alive: &Alive<'_>) -> Result<(), String> {
        let Alive { name, versions, .. } = alive;
        if Versions::OWN.common(*versions).is_none() {
            return Err(format!(
                "Member '{name}' speaks versions {} to {} of gossip, and this agent {} to {}: upgrade the older one first",
                versions.min,
                versions.max,
                Versions::OWN.min,
                Versions::OWN.max
            ));
        }
        let own = &self.table.own().member;
        for (tag, noun) in &self.settings.common_tags {
            let (theirs, ours) =
                (alive.tags.get(tag).unwrap_or_default(), own.tags.get(tag).unwrap_or_default());
            if theirs != ours {
                return Err(format!("Member '{name}' part of wrong {noun} '{theirs}': this is '{ours}'"));
            }
        }
        for AgreedTag { tag, noun, advice } in &self.settings.agreed_tags {
            if let (Some(theirs), Some(ours)) = (alive.tags.get(tag), own.tags.get(tag))
                && theirs != ours
            {
                return Err(format!(
                    "Member '{name}' is of {noun} {theirs} and '{}' of {noun} {ours}: {advice}",
                    own.name
                ));
            }
        }
        let (ip, allowed) = (alive.address.ip(), &self.settings.allowed_networks);
        if !allowed.is_empty() && !allowed.iter().any(|network| network.contains(ip)) {
            return Err(format!(
                "Member '{name}' has address {ip}, which is in none of the allowed networks"
            ));
        }
        if self.table.len() >= MEMBERS_MAX && self.table.row(name).is_none() {
            return Err(format!("Member '{name}' is one too many: {MEMBERS_MAX} are known"));
        }
        Ok(())
    }

    /// Refuses who claims the name or ID of another that is live.
    pub(super) fn refuse_conflict(&mut self, alive: &Alive<'_>, out: &mut Vec<Effect>) -> Result<(), String> {
        let elsewhere = |row: &&Row| row.member.is_live() && row.member.address != alive.address;
        let named = self.table.row(alive.name).filter(elsewhere).map(|row| (Claim::Name, row));
        let same_id =
            || self.table.holder(alive.id).filter(elsewhere).filter(|row| *row.member.name != *alive.name);
        let Some((claim, row)) = named.or_else(|| same_id().map(|row| (Claim::Id, row))) else {
            return Ok(());
        };
        let ours = party(&row.alive());
        let theirs = party(alive);
        let text = conflict_text(claim, &ours, &theirs);
        if self.complaints.may(&format!("conflict {} {}", theirs.id, theirs.address), self.now).is_some() {
            out.push(Effect::Conflict(Box::new(Conflict { claim, ours, theirs })));
        }
        Err(text)
    }

    /// Somebody speaks of a member with this agent's name.
    fn on_alive_self(&mut self, alive: &Alive<'_>, out: &mut Vec<Effect>) {
        let own = self.table.own().alive();
        if alive.incarnation < own.incarnation || *alive == own {
            return;
        }
        if alive.address == own.address {
            // What this agent was before it started again.
            self.move_up(alive.incarnation);
            return;
        }
        // Another has the name. To contradict would take it from there, and there it would be taken back, without end.
        let _ = self.refuse_conflict(alive, out);
    }

    /// A member that was not known.
    fn enroll(&mut self, alive: &Alive<'_>, out: &mut Vec<Effect>) -> Arc<str> {
        let member = self.newcomer(alive, Status::Alive);
        let name = member.name.clone();
        self.table.insert(member, None);
        self.prober.meet(&name, &mut self.random);
        out.push(self.told(&name, Change::Joined));
        self.take_waiting_intent(&name, out);
        name
    }

    /// A member as it is taken in.
    pub(super) fn newcomer(&self, alive: &Alive<'_>, status: Status) -> Member {
        Member {
            name: alive.name.into(),
            id: alive.id,
            address: alive.address,
            tags: alive.tags.to_owned(),
            incarnation: alive.incarnation,
            status,
            since: self.now,
            versions: alive.versions,
            last_ack: None,
            last_rtt: None,
        }
    }

    /// A member that is known says something newer of itself.
    fn renew(&mut self, alive: &Alive<'_>, out: &mut Vec<Effect>) -> Arc<str> {
        let row = self.table.row(alive.name).expect("it is known");
        let (name, status, before) = (row.member.name.clone(), row.member.status, row.alive());
        let changed = Alive { incarnation: before.incarnation, ..*alive } != before;
        self.table.restate(alive);
        if let Some(row) = self.table.row_mut(&name) {
            row.prune = false;
        }
        let suspicion = self.table.end_suspicion(&name);
        if !status.is_live() {
            self.table.set_status(&name, Status::Alive, self.now, None);
            self.prober.meet(&name, &mut self.random);
            out.push(self.told(&name, Change::Joined));
            return name;
        }
        // Who is about to leave says nothing more of itself: this one stays, whatever an operator believes.
        self.table.set_status(&name, Status::Alive, self.now, None);
        if let Some(Suspicion { by, .. }) = suspicion.map(|suspicion| *suspicion) {
            out.push(self.told(&name, Change::Refuted { suspected_by: by }));
        }
        if changed || status == Status::Leaving {
            out.push(self.told(&name, Change::Updated));
        }
        name
    }

    /// Somebody got no answer from a member.
    pub(super) fn on_suspect(&mut self, suspect: &Suspect<'_>, heard: Heard, out: &mut Vec<Effect>) {
        if *suspect.name == **self.table.own_name() {
            self.contradict(suspect.incarnation, suspect.by, out);
            return;
        }
        let Some(row) = self.table.row(suspect.name) else { return };
        let known = row.member.incarnation;
        if suspect.incarnation < known || leaps(known, suspect.incarnation) || !row.member.is_live() {
            return;
        }
        let (name, by): (_, Arc<str>) = (row.member.name.clone(), suspect.by.into());
        let again = row.suspicion.is_some() && suspect.incarnation > known;
        if row.suspicion.is_some() && !again {
            // Only who is a member can have probed it; and what is merged may be the same accusation, told twice.
            let counts =
                heard != Heard::Merged && self.table.row(suspect.by).is_some_and(|row| row.member.is_live());
            if counts && self.table.confirm_suspicion(&name, suspect.by) {
                self.retell(&name, &Message::Suspect(*suspect));
            }
            return;
        }
        let leaving = row.member.status == Status::Leaving;
        let address = row.member.address;
        if again {
            // It has contradicted the suspicion before; that was missed here.
            self.table.end_suspicion(&name);
        }
        let suspicion = Suspicion::new(by.clone(), self.now, self.table.live(), &self.settings);
        self.table.begin_suspicion(&name, suspicion);
        self.set_incarnation(&name, suspect.incarnation);
        if !leaving {
            self.table.set_status(&name, Status::Suspect, self.now, None);
        }
        out.push(self.told(&name, Change::Suspected { by }));
        self.retell(&name, &Message::Suspect(*suspect));
        if heard != Heard::Told {
            // It is told first, not when gossip comes round to it (Lifeguard, IV-C, "buddy").
            self.packet.clear();
            self.push_doubt(&name);
            self.post(address, out);
        }
    }

    /// A member has failed, or left.
    pub(super) fn on_dead(&mut self, dead: &Dead<'_>, out: &mut Vec<Effect>) {
        if *dead.name == **self.table.own_name() {
            self.contradict(dead.incarnation, dead.by, out);
            return;
        }
        let Some(row) = self.table.row(dead.name) else { return };
        let (name, status, known) = (row.member.name.clone(), row.member.status, row.member.incarnation);
        if dead.incarnation < known || leaps(known, dead.incarnation) {
            return;
        }
        let left = dead.is_leave() || status == Status::Leaving || row.prune;
        let changes = status.is_live() || status == Status::Failed && left;
        if !changes {
            return;
        }
        let evidence = self.evidence(dead);
        self.table.end_suspicion(&name);
        self.set_incarnation(&name, dead.incarnation);
        self.retell(&name, &Message::Dead(*dead));
        self.set_gone(&name, if left { Change::Left } else { Change::Failed(evidence) }, out);
    }

    /// A member is gone. It gets news for a while, so that it can contradict.
    pub(super) fn set_gone(&mut self, name: &Arc<str>, change: Change, out: &mut Vec<Effect>) {
        let status = if change == Change::Left { Status::Left } else { Status::Failed };
        self.table.set_status(name, status, self.now, Some(self.now + self.memory_of(status)));
        let news_until = self.now + self.settings.gossip_to_the_dead;
        let mut prune = false;
        if let Some(row) = self.table.row_mut(name) {
            (row.news_until, prune) = (news_until, row.prune);
        }
        out.push(self.told(name, change));
        if prune {
            self.bury(name, out);
        }
    }

    /// On what grounds: what was said, and what is known here.
    fn evidence(&self, dead: &Dead<'_>) -> Evidence {
        let row = self.table.row(dead.name);
        let own = row.and_then(|row| row.suspicion.as_deref());
        let told = Some(dead.suspected_by).filter(|by| !by.is_empty()).map(Arc::from);
        let suspected_by = told.or_else(|| own.map(|own| own.by.clone()));
        let mut confirmed_by: Vec<Arc<str>> = dead.confirmed_by.iter().map(Arc::from).collect();
        for by in own.into_iter().flat_map(|own| own.confirmed_by.iter().chain([&own.by])) {
            if confirmed_by.len() < CONFIRMERS_MAX
                && !confirmed_by.contains(by)
                && suspected_by.as_ref() != Some(by)
            {
                confirmed_by.push(by.clone());
            }
        }
        Evidence {
            suspected_by,
            confirmed_by,
            declared_by: dead.by.into(),
            last_ack: row.and_then(|row| row.member.last_ack),
            last_rtt: row.and_then(|row| row.member.last_rtt),
        }
    }

    /// Calls those whose suspicion is about to end, and ends suspicions that nobody has contradicted.
    pub(super) fn end_suspicions(&mut self, out: &mut Vec<Effect>) {
        while let Some((_, name)) = self.table.next_suspicion().filter(|(at, _)| *at <= self.now) {
            let name = name.clone();
            match self.table.call(&name, self.now) {
                Some(times) => {
                    self.call(&name, Suspicion::by_stream(times), out);
                    if times.is_multiple_of(2) {
                        self.ask_around(&name, out);
                    }
                }
                None => self.declare_failed(&name, out),
            }
        }
    }

    /// Asks a suspected member to contradict, directly.
    fn call(&mut self, name: &Arc<str>, by_stream: bool, out: &mut Vec<Effect>) {
        let Some(row) = self.table.row(name) else { return };
        let (address, suspected) = (row.member.address, row.member.incarnation);
        self.packet.clear();
        self.push_doubt(name);
        self.post(address, out);
        if by_stream && self.settings.stream_probes {
            let from = self.table.own_name().clone();
            let body = packet::encode_frame(&Frame::Call(Call { to: name, from: &from, suspected }));
            self.dial(address, &body, self.settings.probe_timeout * 2, Errand::Call, out);
        }
    }

    /// Asks another about a suspected member: it may have heard the contradiction that was missed here, while the member itself is silent again.
    fn ask_around(&mut self, name: &Arc<str>, out: &mut Vec<Effect>) {
        let fits = |row: &Row| row.member.is_live() && row.suspicion.is_none() && row.member.name != *name;
        for (_, address) in self.table.pick(&mut self.random, 1, fits) {
            self.packet.clear();
            self.push_doubt(name);
            self.post(address, out);
        }
    }

    /// Whoever suspects what a member has contradicted is told so.
    pub(super) fn correct(&mut self, suspect: &Suspect<'_>, from: SocketAddr, out: &mut Vec<Effect>) {
        let Some(row) = self.table.row(suspect.name) else { return };
        let Member { incarnation, address, .. } = row.member;
        if incarnation <= suspect.incarnation || address == from || !row.member.is_live() {
            return;
        }
        let alive = packet::encode(&Message::Alive(row.alive()));
        self.packet.clear();
        match row.suspicion {
            // It is suspected again since: that, too, says that it was there.
            Some(_) => self.push_doubt(suspect.name),
            None => _ = self.packet.try_push(&alive),
        }
        self.post(from, out);
    }

    fn declare_failed(&mut self, name: &Arc<str>, out: &mut Vec<Effect>) {
        let Some(row) = self.table.row(name) else { return };
        let Some(suspicion) = &row.suspicion else { return };
        let incarnation = row.member.incarnation;
        let (suspected_by, mut confirmers) = (suspicion.by.clone(), Vec::new());
        suspicion.confirmed_by.iter().for_each(|name| packet::put_name(&mut confirmers, name));
        let by = self.table.own_name().clone();
        let confirmed_by = Names(&confirmers);
        let dead = Dead { name, incarnation, by: &by, suspected_by: &suspected_by, confirmed_by };
        self.on_dead(&dead, out);
    }

    /// Whoever has just said something against this agent is told otherwise directly, also when that was about an earlier incarnation: it
    /// has missed the newer one.
    pub(super) fn answer_accuser(&mut self, accused: &str, accuser: SocketAddr, out: &mut Vec<Effect>) {
        if *accused == **self.table.own_name() && self.departure.is_none() {
            self.packet.clear();
            self.packet.push(&Message::Alive(self.table.own().alive()));
            self.post(accuser, out);
        }
    }

    /// This agent is accused, and says that it is there.
    pub(super) fn contradict(&mut self, incarnation: u64, by: &str, out: &mut Vec<Effect>) {
        let own = self.table.own().member.incarnation;
        if self.departure.is_some() || incarnation < own || leaps(own, incarnation) {
            return;
        }
        // Who is accused was too slow, perhaps (Lifeguard, IV-A).
        self.awareness.worsen(1);
        self.move_up(incarnation);
        let text = format!(
            "'{by}' got no answer from this agent and suspects it to have failed; it is told otherwise"
        );
        out.push(Effect::Log { level: Level::Warn, text });
    }

    /// Whatever was said of an incarnation of this agent is past.
    pub(super) fn move_up(&mut self, past: u64) {
        let own = self.table.own().member.incarnation;
        if self.departure.is_some() || past < own || leaps(own, past) {
            return;
        }
        let name = self.table.own_name().clone();
        self.set_incarnation(&name, past + 1);
        self.retell_own();
    }

    fn set_incarnation(&mut self, name: &str, incarnation: u64) {
        if let Some(row) = self.table.row_mut(name) {
            assert!(incarnation >= row.member.incarnation, "incarnations never go back");
            row.member.incarnation = incarnation;
        }
    }

    /// Tells all what this agent says of itself.
    pub(super) fn retell_own(&mut self) {
        let encoded = packet::encode(&Message::Alive(self.table.own().alive()));
        let name = self.table.own_name().clone();
        self.broadcast(Lane::Members, &name, encoded);
    }

    /// Tells all about a member.
    pub(super) fn retell(&mut self, name: &Arc<str>, message: &Message<'_>) {
        self.broadcast(Lane::Members, name, packet::encode(message));
    }

    /// What is known against a member goes into the packet, so that it learns of it whatever else is lost.
    pub(super) fn push_doubt(&mut self, name: &str) {
        let own = self.table.own_name();
        let dead = |incarnation| {
            let (suspected_by, confirmed_by) = ("", Names::default());
            Message::Dead(Dead { name, incarnation, by: own, suspected_by, confirmed_by })
        };
        if let Some(row) = self.table.row(name) {
            let incarnation = row.member.incarnation;
            match &row.suspicion {
                Some(suspicion) => {
                    self.packet.push(&Message::Suspect(Suspect { name, incarnation, by: &suspicion.by }))
                }
                None if row.member.is_live() => {}
                None => self.packet.push(&dead(incarnation)),
            }
        } else if let Some(Grave { incarnation, .. }) = self.graves.get(name) {
            self.packet.push(&dead(*incarnation));
        }
    }

    /// How long the gone are remembered.
    pub(super) fn memory_of(&self, status: Status) -> Now {
        let Settings { reconnect_timeout, tombstone_timeout, .. } = self.settings;
        if status == Status::Failed { reconnect_timeout } else { tombstone_timeout }
    }

    /// A change, with a copy of the member.
    pub(super) fn told(&self, name: &str, change: Change) -> Effect {
        let member = self.table.row(name).expect("it is known").member.clone();
        Effect::Member { change, member: Box::new(member) }
    }
}

/// No member moves its incarnation up so far at once.
pub(super) fn leaps(known: u64, incarnation: u64) -> bool {
    incarnation > known.saturating_add(INCARNATION_LEAP_MAX)
}

fn party(alive: &Alive<'_>) -> Party {
    Party { name: alive.name.into(), id: alive.id, address: alive.address }
}

fn conflict_text(claim: Claim, ours: &Party, theirs: &Party) -> String {
    match claim {
        Claim::Name => format!(
            "node name '{}' is taken by the agent with ID {} at {}: give the one with ID {} at {} another name (node_name)",
            ours.name, ours.id, ours.address, theirs.id, theirs.address
        ),
        Claim::Id => format!(
            "Member '{}' at {} has conflicting node ID '{}' with member '{}' at {}: give one of them another (node_id, or \
             remove its DATA/node-id)",
            theirs.name, theirs.address, ours.id, ours.name, ours.address
        ),
    }
}
