//! Parked blocking queries: records, not tasks. All who wait for the same answer stand in one row of a
//! [`super::cache::Group`]; the registry of topics knows the group, once.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Instant;

use super::cache::Group;
use crate::store::{State, Touched, WatchId, Watchers};

/// Names a connection: its place, and how often the place was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// Index in the slab.
    pub slot: u32,
    /// Counts the connections that had the slot.
    pub serial: u32,
}

impl ConnId {
    /// As an event token.
    pub fn token(self) -> u64 {
        u64::from(self.serial) << 32 | u64::from(self.slot)
    }

    /// From an event token.
    pub fn from_token(token: u64) -> ConnId {
        ConnId { slot: token as u32, serial: (token >> 32) as u32 }
    }
}

/// One parked query.
#[derive(Clone, Copy, Debug)]
pub struct Parked {
    /// Whose it is.
    pub conn: ConnId,
    /// It waits while the topic's last change is at most this.
    pub index: u64,
    /// Tells this wait from later ones of the same connection.
    pub ticket: u64,
}

/// A group's row of parked queries.
#[derive(Default)]
pub struct Parking {
    row: Vec<Parked>,
    /// How many tickets of it are out; more may stand in the row, of those who left before they were woken.
    live: usize,
    watch: Option<WatchId>,
}

/// What a connection keeps of its own parked query.
pub struct Ticket {
    group: Rc<Group>,
    number: u64,
    deadline: Instant,
}

impl Ticket {
    /// What it waits for.
    pub fn group(&self) -> &Rc<Group> {
        &self.group
    }

    /// Distinguishes it from other waits of its connection.
    pub fn number(&self) -> u64 {
        self.number
    }
}

/// The parked queries of one core.
#[derive(Default)]
pub struct Park {
    topics: Watchers<Rc<Group>>,
    deadlines: BTreeSet<(Instant, u64, ConnId)>,
    tickets: u64,
}

impl Park {
    /// How many queries are parked.
    pub fn len(&self) -> usize {
        self.deadlines.len()
    }

    /// Whether none are.
    pub fn is_empty(&self) -> bool {
        self.deadlines.is_empty()
    }

    /// Parks a query until its topic changes behind `index` or the deadline comes.
    pub fn park(&mut self, group: Rc<Group>, conn: ConnId, index: u64, deadline: Instant) -> Ticket {
        self.tickets += 1;
        let number = self.tickets;
        self.deadlines.insert((deadline, number, conn));
        group.parked.borrow_mut().live += 1;
        self.stand(&group, Parked { conn, index, ticket: number });
        Ticket { group, number, deadline }
    }

    /// Forgets a query: it was answered, or its client left.
    pub fn leave(&mut self, ticket: &Ticket, conn: ConnId) {
        self.deadlines.remove(&(ticket.deadline, ticket.number, conn));
        let mut parking = ticket.group.parked.borrow_mut();
        parking.live = parking.live.saturating_sub(1);
        if parking.live == 0 {
            parking.row = Vec::new();
            if let Some(watch) = parking.watch.take() {
                self.topics.remove(watch);
            }
        } else if parking.row.len() > 2 * parking.live + 16 {
            let deadlines = &self.deadlines;
            let waiting: BTreeSet<u64> = deadlines.iter().map(|(_, number, _)| *number).collect();
            parking.row.retain(|parked| waiting.contains(&parked.ticket));
        }
    }

    /// The groups that a batch of changes concerns, with those of their queries that it answers. Queries that
    /// asked for a later index go on waiting.
    pub fn wake(&mut self, touched: &Touched, state: &State, woken: &mut Vec<(Rc<Group>, Vec<Parked>)>) {
        let mut groups = Vec::new();
        self.topics.wake(touched, &mut groups);
        self.sort_out(groups, state, woken);
    }

    /// The same for every group: changes were missed, or the state was replaced.
    pub fn wake_all(&mut self, state: &State, woken: &mut Vec<(Rc<Group>, Vec<Parked>)>) {
        let mut groups = Vec::new();
        self.topics.wake_all(&mut groups);
        self.sort_out(groups, state, woken);
    }

    /// The next deadline.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, ..)| *deadline)
    }

    /// A query whose time is up.
    pub fn due(&self, now: Instant) -> Option<(ConnId, u64)> {
        let (deadline, number, conn) = self.deadlines.first()?;
        (*deadline <= now).then_some((*conn, *number))
    }

    fn sort_out(&mut self, groups: Vec<Rc<Group>>, state: &State, woken: &mut Vec<(Rc<Group>, Vec<Parked>)>) {
        for group in groups {
            let row = {
                let mut parking = group.parked.borrow_mut();
                parking.watch = None;
                std::mem::take(&mut parking.row)
            };
            let change = state.last_change(&group.topic);
            let (answered, waiting): (Vec<_>, Vec<_>) =
                row.into_iter().partition(|parked| parked.index < change);
            for parked in waiting {
                self.stand(&group, parked);
            }
            if !answered.is_empty() {
                woken.push((group, answered));
            }
        }
    }

    fn stand(&mut self, group: &Rc<Group>, parked: Parked) {
        let mut parking = group.parked.borrow_mut();
        parking.row.push(parked);
        if parking.watch.is_none() {
            parking.watch = Some(self.topics.insert(group.topic.clone(), group.clone()));
        }
    }
}
