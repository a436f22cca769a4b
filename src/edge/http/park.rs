//! Parked blocking queries: records, not tasks. All who wait for the same answer stand in one row of a
//! [`super::cache::Group`]; the registry of topics knows the group, once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::time::Instant;

use super::cache::Group;
use crate::metrics;
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
    since: Instant,
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

    /// When the wait began.
    pub fn since(&self) -> Instant {
        self.since
    }
}

/// The parked queries of one core.
#[derive(Default)]
pub struct Park {
    topics: Watchers<Rc<Group>>,
    /// Deadlines of all who wait, and of some who left: taking one out of the middle costs more than a wake does
    /// beside it, so they are passed over when they come to the top, and cleared out when they are the most.
    deadlines: BinaryHeap<Reverse<(Instant, u64, ConnId)>>,
    tickets: Tickets,
}

impl Park {
    /// How many queries are parked.
    pub fn len(&self) -> usize {
        self.tickets.live
    }

    /// Whether none are.
    pub fn is_empty(&self) -> bool {
        self.tickets.live == 0
    }

    /// Parks a query until its topic changes behind `index` or the deadline comes.
    pub fn park(
        &mut self,
        group: Rc<Group>,
        conn: ConnId,
        index: u64,
        now: Instant,
        deadline: Instant,
    ) -> Ticket {
        let number = self.tickets.issue();
        self.deadlines.push(Reverse((deadline, number, conn)));
        group.parked.borrow_mut().live += 1;
        self.stand(&group, Parked { conn, index, ticket: number });
        Ticket { group, number, since: now }
    }

    /// Forgets a query: it was answered, or its client left.
    pub fn leave(&mut self, ticket: &Ticket) {
        self.tickets.cancel(ticket.number);
        if self.deadlines.len() > 2 * self.tickets.live + 64 {
            let tickets = &self.tickets;
            self.deadlines.retain(|Reverse((_, number, _))| tickets.is_live(*number));
        }
        let mut parking = ticket.group.parked.borrow_mut();
        parking.live = parking.live.saturating_sub(1);
        if parking.live == 0 {
            parking.row = Vec::new();
            if let Some(watch) = parking.watch.take() {
                self.topics.remove(watch);
            }
        } else if parking.row.len() > 2 * parking.live + 16 {
            parking.row.retain(|parked| self.tickets.is_live(parked.ticket));
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

    /// The next deadline, or an earlier one of somebody who left.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.peek().map(|Reverse((deadline, ..))| *deadline)
    }

    /// A query whose time is up.
    pub fn due(&mut self, now: Instant) -> Option<(ConnId, u64)> {
        while let Some(Reverse((deadline, number, conn))) = self.deadlines.peek().copied()
            && deadline <= now
        {
            self.deadlines.pop();
            if self.tickets.is_live(number) {
                return Some((conn, number));
            }
        }
        None
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

/// Numbers of waits: a place, and above it how often the place was used. A number is never issued twice.
#[derive(Default)]
struct Tickets {
    /// How often each place was left.
    left: Vec<u32>,
    free: Vec<u32>,
    live: usize,
}

impl Tickets {
    fn issue(&mut self) -> u64 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.left.push(0);
            u32::try_from(self.left.len() - 1).expect("a process has fewer than 2^32 descriptors")
        });
        self.live += 1;
        metrics::blocking(1);
        u64::from(self.left[place as usize]) << 32 | u64::from(place)
    }

    fn is_live(&self, number: u64) -> bool {
        self.left[number as u32 as usize] == (number >> 32) as u32
    }

    fn cancel(&mut self, number: u64) {
        if self.is_live(number) {
            let place = number as u32;
            self.left[place as usize] = self.left[place as usize].wrapping_add(1);
            self.free.push(place);
            self.live -= 1;
            metrics::blocking(-1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn numbers_are_live_until_cancelled_and_do_not_come_back() {
        let mut tickets = Tickets::default();
        let (a, b) = (tickets.issue(), tickets.issue());
        tickets.cancel(a);
        let c = tickets.issue();
        assert_eq!((tickets.is_live(a), tickets.is_live(b), tickets.is_live(c)), (false, true, true));
        tickets.cancel(a);
        assert_eq!(tickets.live, 2, "who left once cannot take away another's place");
    }

    #[test]
    fn deadlines_of_those_who_left_are_passed_over_and_cleared_out() {
        let start = crate::runtime::time::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut park = Park::default();
        let group = Group::for_tests();
        let conn = |slot| ConnId { slot, serial: 1 };
        let tickets: Vec<_> =
            (0..1000).map(|n| park.park(group.clone(), conn(n), 1, start, at(u64::from(n)))).collect();
        for ticket in &tickets[..999] {
            park.leave(ticket);
            assert!(park.deadlines.len() <= 2 * park.len() + 64);
        }
        assert_eq!(park.due(at(998)), None);
        assert_eq!(park.due(at(999)), Some((conn(999), tickets[999].number())));
        park.leave(&tickets[999]);
        assert!(park.is_empty() && park.topics.is_empty());
    }
}
