//! What request bodies on their way in may take together. Each has its own limit, but many clients that send slowly
//! would add up to much more than an agent may hold.

use std::cell::Cell;
use std::rc::Rc;

/// The bytes held by one core, and how many may be.
#[derive(Clone)]
pub struct Budget {
    held: Rc<Cell<usize>>,
    max: usize,
}

/// One body's part of it, given back when dropped.
pub struct Room {
    budget: Budget,
    held: usize,
}

impl Budget {
    /// Room for `max` bytes.
    pub fn new(max: usize) -> Budget {
        Budget { held: Rc::default(), max }
    }

    /// A share that holds nothing yet.
    pub fn room(&self) -> Room {
        Room { budget: self.clone(), held: 0 }
    }
}

impl Room {
    /// Says that the body takes `bytes` now; false when all bodies together take more than there is room for.
    #[must_use]
    pub fn hold(&mut self, bytes: usize) -> bool {
        let total = &self.budget.held;
        total.set(total.get() - self.held + bytes);
        self.held = bytes;
        total.get() <= self.budget.max
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let total = &self.budget.held;
        total.set(total.get() - self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::http::limits::BODIES_MAX;

    #[test]
    fn shares_add_up_and_are_given_back() {
        let budget = Budget::new(BODIES_MAX);
        let mut first = budget.room();
        assert!(first.hold(BODIES_MAX - 10));
        let mut second = budget.room();
        assert!(second.hold(10));
        assert!(!second.hold(11));
        drop(first);
        assert!(second.hold(BODIES_MAX));
        drop(second);
        assert!(budget.room().hold(BODIES_MAX));
    }
}
