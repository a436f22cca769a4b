//! What is going to happen, in order of time and, at one moment, in order of arrival.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Virtual time since the start of a run, nanoseconds.
pub type Time = u64;

/// One microsecond.
pub const MICRO: Time = 1_000;
/// One millisecond.
pub const MILLI: Time = 1_000_000;
/// One second.
pub const SECOND: Time = 1_000_000_000;

/// A queue of events.
pub struct Queue<E> {
    heap: BinaryHeap<Reverse<Slot<E>>>,
    arrivals: u64,
}

struct Slot<E> {
    time: Time,
    arrival: u64,
    event: E,
}

impl<E> Queue<E> {
    /// An empty one.
    pub fn new() -> Queue<E> {
        Queue { heap: BinaryHeap::new(), arrivals: 0 }
    }

    /// Puts an event in.
    pub fn push(&mut self, time: Time, event: E) {
        self.arrivals += 1;
        self.heap.push(Reverse(Slot { time, arrival: self.arrivals, event }));
    }

    /// When the next one is.
    pub fn next_time(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse(slot)| slot.time)
    }

    /// Takes the next one out.
    pub fn pop(&mut self) -> Option<(Time, E)> {
        self.heap.pop().map(|Reverse(slot)| (slot.time, slot.event))
    }
}

impl<E> Ord for Slot<E> {
    fn cmp(&self, other: &Slot<E>) -> std::cmp::Ordering {
        (self.time, self.arrival).cmp(&(other.time, other.arrival))
    }
}

impl<E> PartialOrd for Slot<E> {
    fn partial_cmp(&self, other: &Slot<E>) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Slot<E> {
    fn eq(&self, other: &Slot<E>) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<E> Eq for Slot<E> {}
