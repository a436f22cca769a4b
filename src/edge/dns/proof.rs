//! Questions that wait until the state here is proven fresh. All of a core share barriers: each waits for the next one that
//! begins, so a flood of questions costs one barrier at a time.

use std::cell::{Cell, RefCell};
use std::mem;
use std::rc::Rc;
use std::time::Duration;

use crate::consensus::{Consistency, ProposeError};
use crate::edge::fresh::Leadership;
use crate::runtime::mesh::{self, OneSender};
use crate::runtime::{task, time};

/// Most questions of a core that wait; further ones fail at once (SERVFAIL).
pub const WAITING_MAX: usize = 4096;

/// Pause between a barrier that failed at once and the next one.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The barriers of a core.
pub(super) struct Proofs {
    leadership: Leadership,
    waiting: RefCell<Vec<OneSender<Result<(), ProposeError>>>>,
    /// How many wait, aboard a barrier or for the next one.
    count: Cell<usize>,
    under_way: Cell<bool>,
}

impl Proofs {
    pub(super) fn new(leadership: Leadership) -> Rc<Proofs> {
        Rc::new(Proofs {
            leadership,
            waiting: RefCell::default(),
            count: Cell::new(0),
            under_way: Cell::new(false),
        })
    }

    /// Who knows how reads stand.
    pub(super) fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// Waits for a barrier that begins after this was called; false if there was none within `patience`, or too many wait.
    pub(super) async fn prove(self: &Rc<Proofs>, patience: Duration) -> bool {
        if self.count.get() >= WAITING_MAX {
            tracing::debug!("{WAITING_MAX} DNS questions wait for the leader; one more was refused");
            return false;
        }
        let _place = Place::take(self);
        let (tell, told) = mesh::oneshot();
        self.waiting.borrow_mut().push(tell);
        if !self.under_way.replace(true) {
            task::spawn(self.clone().run()).detach();
        }
        matches!(time::timeout(patience, told).await, Some(Some(Ok(()))))
    }

    /// Passes barriers for as long as somebody waits.
    async fn run(self: Rc<Proofs>) {
        loop {
            let mut aboard = mem::take(&mut *self.waiting.borrow_mut());
            aboard.retain(|waiting| !waiting.is_closed());
            if aboard.is_empty() {
                return self.under_way.set(false);
            }
            match self.leadership.barrier(Consistency::Default).await {
                Err(ProposeError::NoLeader | ProposeError::LeadershipLost | ProposeError::TooBusy) => {
                    self.waiting.borrow_mut().append(&mut aboard);
                    time::sleep(RETRY_PAUSE).await;
                }
                result => {
                    for waiting in aboard {
                        // Who has left meanwhile does not want to know.
                        let _ = waiting.send(result);
                    }
                }
            }
        }
    }
}

/// One of those who wait.
struct Place<'a>(&'a Proofs);

impl Place<'_> {
    fn take(proofs: &Proofs) -> Place<'_> {
        proofs.count.set(proofs.count.get() + 1);
        Place(proofs)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
    }
}
