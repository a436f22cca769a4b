//! What request bodies on their way in may take together. Each has its own limit, but many clients that send slowly
//! would add up to much more than an agent may hold.

use std::cell::Cell;
use std::rc::Rc;

use super::limits::BODIES_MAX;

/// The bytes held by one core.
#[derive(Clone, Default)]
pub struct Budget(Rc<Cell<usize>>);

/// One body's part of it, given back when dropped.
pub struct Room {
    budget: Budget,
    held: usize,
}

impl Budget {
    /// A share that holds nothing yet.
    pub fn room(&self) -> Room {
        Room { budget: self.clone(), held: 0 }
    }
}

impl Room {
    /// Says that the body takes `bytes` now; false when all bodies together take more than [`BODIES_MAX`].
    #[must_use]
    pub fn hold(&mut self, bytes: usize) -> bool {
        let total = &self.budget.0;
        total.set(total.get() - self.held + bytes);
        self.held = bytes;
        total.get() <= BODIES_MAX
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let total = &self.budget.0;
        total.set(total.get() - self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_are_given_back() {
        let budget = Budget::default();
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
