//! Leaving, by a member's own will or an operator's word; and forgetting.
//!
//! Intents travel on a Lamport clock, apart from the incarnations: an operator's word about a member is not the member's (serf: `handleNodeLeaveIntent`,
//! `handleNodeJoinIntent`). Who is forgotten leaves a tombstone.

use std::sync::Arc;
use std::time::Duration;

use super::clock::Time;
use super::face::{Change, Effect, Level};
use super::graves::Grave;
use super::member::Status;
use super::message::{Dead, Intent, IntentKind, Message, Names};
use super::{Gossip, Lane, packet};
use crate::entry::Now;

/// How far this agent has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Departure {
    /// All are being told that it is about to.
    Announcing {
        /// No longer than this.
        until: Now,
    },
    /// All are being told that it has.
    Leaving {
        /// No longer than this.
        until: Now,
    },
    /// All were told; it still answers.
    Lingering {
        /// So long.
        until: Now,
    },
    /// It may end.
    Gone,
}

impl Departure {
    /// When it goes on at the latest.
    pub fn deadline(self) -> Option<Now> {
        match self {
            Departure::Announcing { until }
            | Departure::Leaving { until }
            | Departure::Lingering { until } => Some(until),
            Departure::Gone => None,
        }
    }
}

impl Gossip {
    /// This agent leaves the pool.
    pub(super) fn on_leave(&mut self, out: &mut Vec<Effect>) {
        if self.departure.is_some() {
            return;
        }
        let own = self.table.own_name().clone();
        if self.table.live() <= 1 {
            self.departure = Some(Departure::Gone);
            self.table.set_status(&own, Status::Left, self.now, None);
            out.push(Effect::LeaveDone);
            return;
        }
        self.table.set_status(&own, Status::Leaving, self.now, None);
        out.push(self.told(&own, Change::Leaving));
        self.announce(IntentKind::Leave);
        self.departure =
            Some(Departure::Announcing { until: self.now + self.settings.leave_broadcast_timeout });
    }

    /// Goes on leaving.
    pub(super) fn run_departure(&mut self, out: &mut Vec<Effect>) {
        let own = self.table.own_name().clone();
        match self.departure {
            Some(Departure::Announcing { until })
                if self.now >= until || !self.lanes.holds(Lane::Intents, &own) =>
            {
                self.departure =
                    Some(Departure::Leaving { until: self.now + self.settings.leave_broadcast_timeout });
                let incarnation = self.table.own().member.incarnation;
                let (suspected_by, confirmed_by) = ("", Names::default());
                let dead = Dead { name: &own, incarnation, by: &own, suspected_by, confirmed_by };
                self.retell(&own, &Message::Dead(dead));
                self.table.set_status(&own, Status::Left, self.now, None);
                out.push(self.told(&own, Change::Left));
            }
            Some(Departure::Leaving { until })
                if self.now >= until || !self.lanes.holds(Lane::Members, &own) =>
            {
                self.departure =
                    Some(Departure::Lingering { until: self.now + self.settings.leave_propagate_delay });
            }
            Some(Departure::Lingering { until }) if self.now >= until => {
                self.departure = Some(Departure::Gone);
                out.push(Effect::LeaveDone);
            }
            _ => {}
        }
    }

    /// An operator takes a member for gone.
    pub(super) fn on_force_leave(&mut self, name: &str, prune: bool, out: &mut Vec<Effect>) {
        let Some(name) = self.table.row(name).map(|row| row.member.name.clone()) else {
            let text = format!("No node found with name '{name}'");
            out.push(Effect::Log { level: Level::Warn, text });
            return;
        };
        let ltime = self.intents.clock.tick().0;
        let kind = if prune { IntentKind::Prune } else { IntentKind::Leave };
        self.on_intent(&Intent { ltime, name: &name, kind }, out);
    }

    /// A member joins or leaves, or an operator says so. What is new is told to others.
    pub(super) fn on_intent(&mut self, intent: &Intent<'_>, out: &mut Vec<Effect>) {
        if self.hear_intent(intent, out) {
            let encoded = packet::encode(&Message::Intent(*intent));
            self.broadcast(Lane::Intents, &intent.name.into(), encoded);
        }
    }

    /// Whether an intent is new.
    pub(super) fn hear_intent(&mut self, intent: &Intent<'_>, out: &mut Vec<Effect>) -> bool {
        let Intent { ltime, name, kind } = *intent;
        let ltime = Time(ltime);
        if !self.intents.clock.witness(ltime) {
            return false;
        }
        let Some(row) = self.table.row(name) else {
            let gone = self.graves.get(name).is_some();
            return ltime > Time(0) && !gone && self.intents.hear(self.now, ltime, name, kind);
        };
        if ltime <= row.ltime {
            return false;
        }
        let (name, status) = (row.member.name.clone(), row.member.status);
        if name == *self.table.own_name() {
            if kind != IntentKind::Join && self.departure.is_none() {
                // It is here, whatever an operator believes.
                self.announce_join();
            }
            return false;
        }
        if let Some(row) = self.table.row_mut(&name) {
            row.ltime = ltime;
        }
        match kind {
            IntentKind::Join => self.stay(&name, status, out),
            IntentKind::Leave => self.take_for_gone(&name, status, false, out),
            IntentKind::Prune => self.take_for_gone(&name, status, true, out),
        }
        true
    }

    /// A member that was about to leave takes part again.
    fn stay(&mut self, name: &Arc<str>, status: Status, out: &mut Vec<Effect>) {
        let Some(row) = self.table.row_mut(name) else { return };
        row.prune = false;
        if status == Status::Leaving {
            let now = if row.suspicion.is_some() { Status::Suspect } else { Status::Alive };
            self.table.set_status(name, now, self.now, None);
            out.push(self.told(name, Change::Updated));
        }
    }

    fn take_for_gone(&mut self, name: &Arc<str>, status: Status, prune: bool, out: &mut Vec<Effect>) {
        if let Some(row) = self.table.row_mut(name) {
            row.prune |= prune;
        }
        match status {
            Status::Alive | Status::Suspect => {
                self.table.set_status(name, Status::Leaving, self.now, None);
                out.push(self.told(name, Change::Leaving));
            }
            Status::Failed => self.set_gone(name, Change::Left, out),
            Status::Left if prune => self.bury(name, out),
            Status::Leaving | Status::Left => {}
        }
    }

    /// The intent that came before its member.
    pub(super) fn take_waiting_intent(&mut self, name: &Arc<str>, out: &mut Vec<Effect>) {
        if let Some((ltime, kind)) = self.intents.take(self.now, name) {
            self.hear_intent(&Intent { ltime: ltime.0, name, kind }, out);
        }
    }

    /// Tells all that this agent takes part: no older word that it leaves counts.
    pub(super) fn announce_join(&mut self) {
        self.announce(IntentKind::Join);
    }

    fn announce(&mut self, kind: IntentKind) {
        let (name, ltime) = (self.table.own_name().clone(), self.intents.clock.tick());
        if let Some(row) = self.table.row_mut(&name) {
            row.ltime = ltime;
        }
        let intent = Intent { ltime: ltime.0, name: &name, kind };
        self.broadcast(Lane::Intents, &name, packet::encode(&Message::Intent(intent)));
    }

    /// Forgets who was gone for long enough.
    pub(super) fn forget(&mut self, out: &mut Vec<Effect>) {
        while let Some((_, name)) = self.table.next_forgotten().filter(|(at, _)| *at <= self.now) {
            let name = name.clone();
            self.bury(&name, out);
        }
        self.graves.forget(self.now);
    }

    /// Forgets a member. Only a higher incarnation brings it back.
    pub(super) fn bury(&mut self, name: &Arc<str>, out: &mut Vec<Effect>) {
        let Some(member) = self.table.remove(name) else { return };
        let forget_at = self.now + self.settings.reconnect_timeout.max(Duration::from_secs(1));
        self.graves.dig(name, Grave { incarnation: member.incarnation, forget_at });
        out.push(Effect::Member { change: Change::Reaped, member: Box::new(member) });
    }
}
