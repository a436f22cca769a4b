//! The clock: runs checks when they are due, lets TTL checks expire, answers waits that are over.

use std::rc::Rc;
use std::time::Instant;

use super::Inner;
use crate::agent::registry::Run;
use crate::health;
use crate::metrics::{self, Counter, Sample};
use crate::runtime::{cores, task, time};

pub(super) async fn run(inner: Rc<Inner>) {
    let mut due = Vec::new();
    loop {
        let now = time::now();
        let changed = {
            let mut registry = inner.registry.borrow_mut();
            let before = registry.last_change();
            registry.tick(now);
            registry.take_due(now, &mut due);
            // A new output under the status of before is for the view alone, as long as it may wait for the catalog.
            registry.has_news() || registry.last_change() != before
        };
        for run in due.drain(..) {
            task::spawn(run_once(inner.clone(), run)).detach();
        }
        if changed {
            inner.changed();
            // What failed is in the log.
            let _ = inner.persist().await;
        }
        inner.answer_hash_waiters();
        let deadline = next_deadline(&inner);
        // Whichever comes first; a ring means that the deadline may have moved.
        let _ = cores::either(time::sleep_until(deadline), inner.clock.heard()).await;
    }
}

fn next_deadline(inner: &Inner) -> Instant {
    let deadline = inner.registry.borrow().next_deadline();
    let hashes = inner.hash_waiters.borrow().iter().map(|waiter| waiter.deadline).min();
    hashes.map_or(deadline, |at| at.min(deadline))
}

async fn run_once(inner: Rc<Inner>, run: Run) {
    // A run that panics must give its slot back, else the scheduler runs dry.
    let slot = Slot { inner: inner.clone(), ticket: run.ticket, finding: None };
    let started = time::now();
    let finding = health::run::run(&run.plan, &inner.tls).await;
    metrics::count(Counter::CheckRuns, 1);
    metrics::sample(Sample::CheckRun, time::now() - started);
    let mut slot = slot;
    slot.finding = Some(finding);
}

struct Slot {
    inner: Rc<Inner>,
    ticket: health::schedule::Ticket,
    finding: Option<health::plan::Finding>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let finding = self.finding.take().unwrap_or_else(|| {
            health::plan::Finding::critical("running the check failed inside the agent; its log says where")
        });
        let mut registry = self.inner.registry.borrow_mut();
        let before = (registry.last_change(), registry.has_news());
        registry.finished(time::now(), self.ticket, finding);
        let quiet = (registry.last_change(), registry.has_news()) == before;
        drop(registry);
        if quiet {
            // A healthy check costs nothing; only its slot may let another one run.
            self.inner.clock.ring();
        } else {
            self.inner.changed();
        }
    }
}
