//! The catalog: writes what it lacks as soon as it lacks it, and compares all of it now and then.
//!
//! One write is in flight at a time; whatever changes meanwhile goes together with the next one. Edges within a few
//! milliseconds of each other travel together, unless a client waits.

use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_lite::future;

use super::Inner;
use crate::agent::registry::{Batch, Repair};
use crate::agent::sync::Held;
use crate::metrics::{self, Counter};
use crate::runtime::{cores, random, time};
use crate::store::State;
use crate::store::command::{Applied, Command};
use crate::store::topic::Topic;

/// Edges that follow one another faster than this share a command.
const COALESCE: Duration = Duration::from_millis(5);
/// How long one write may take before its waiters are answered without it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(7);
/// How long a server's first write waits for the leader to have registered the node.
const LEADER_PATIENCE: Duration = Duration::from_secs(5);
/// Pause before a failed write is tried again; grows up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(250);
/// Nodes up to which everything is compared at the plain interval.
const AE_NODES: usize = 128;
/// The longest such pause.
const RETRY_MAX: Duration = Duration::from_secs(15);

pub(super) async fn run(inner: Rc<Inner>) {
    inner.await_leader().await;
    let mut compare_at = time::now();
    let mut last_write: Option<Instant> = None;
    let mut pause = RETRY_MIN;
    loop {
        if time::now() >= compare_at {
            inner.compare();
            compare_at = time::now() + jittered(scaled(inner.ae_interval, inner.state.load().node_count()));
        }
        let batch = inner.registry.borrow().collect();
        if batch.is_empty() {
            inner.answer_waiters(u64::MAX);
            let _ = cores::either(time::sleep_until(compare_at), inner.dirty.heard()).await;
            continue;
        }
        let gathered_at = last_write.map_or_else(time::now, |last| last + COALESCE);
        if time::now() < gathered_at && inner.waiters.borrow().is_empty() {
            let _ = cores::either(time::sleep_until(gathered_at), inner.waited_for()).await;
            continue;
        }
        last_write = Some(time::now());
        let upto = inner.registry.borrow().last_change();
        match inner.write(batch).await {
            Ok(more) => {
                pause = RETRY_MIN;
                if !more {
                    inner.answer_waiters(upto);
                }
            }
            Err(why) => {
                tracing::warn!(
                    "the catalog does not know the latest of this agent's services and checks: {why}; \
                     trying again in {pause:?}"
                );
                // Clients are not kept waiting for servers: anti-entropy goes on trying.
                inner.answer_waiters(u64::MAX);
                let _ = cores::either(time::sleep(pause), inner.waited_for()).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
        }
    }
}

/// The more nodes compare, the less often each does: a cluster of [`AE_NODES`] at the interval, one of twice as many at
/// twice the interval, of four times as many at three times (as Consul).
fn scaled(interval: Duration, nodes: usize) -> Duration {
    let doublings = nodes.div_ceil(AE_NODES).max(1).next_power_of_two().trailing_zeros();
    interval * (1 + doublings)
}

fn jittered(interval: Duration) -> Duration {
    interval + interval.mul_f64(random::Rng::seeded().fraction() / 16.0)
}

impl Inner {
    /// On a server the leader registers the node first; so the catalog's history reads as it should.
    async fn await_leader(&self) {
        if !self.server {
            return;
        }
        let patience = time::now() + LEADER_PATIENCE;
        while self.state.load().node(&self.node.node).is_none() && time::now() < patience {
            time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends when a client waits for the catalog: its patience decides, not the pause between attempts.
    async fn waited_for(&self) {
        while self.waiters.borrow().is_empty() {
            self.dirty.heard().await;
        }
    }

    fn answer_waiters(&self, upto: u64) {
        let waiters = std::mem::take(&mut *self.waiters.borrow_mut());
        let (ready, waiting): (Vec<_>, Vec<_>) = waiters.into_iter().partition(|(change, _)| *change <= upto);
        self.waiters.borrow_mut().extend(waiting);
        for (_, reply) in ready {
            let _ = reply.send(Ok(()));
        }
    }

    /// Writes a batch. Returns whether more waits than fitted into it.
    ///
    /// Each operation has an index of its own, as in Consul; they are under way together, so all of them share the
    /// work of one write.
    async fn write(&self, mut batch: Batch) -> Result<bool, String> {
        let ops = std::mem::take(&mut batch.ops);
        let commands: Vec<_> = ops.into_iter().map(Command::Catalog).collect();
        let mut under_way: Vec<_> = commands.iter().map(|command| Box::pin(self.propose(command))).collect();
        // The first poll hands a command in: in order, and before any answer is waited for.
        let mut answers = Vec::with_capacity(under_way.len());
        for writing in &mut under_way {
            answers.push(future::poll_once(writing.as_mut()).await);
        }
        for (writing, answer) in under_way.into_iter().zip(answers) {
            let applied = match answer {
                Some(applied) => applied?,
                None => writing.await?,
            };
            if let Applied::Refused(why) = applied {
                tracing::error!("the catalog refused a write of this agent: {why}");
            }
        }
        self.registry.borrow_mut().settle(&batch);
        Ok(batch.more)
    }

    async fn propose(&self, command: &Command) -> Result<Applied, String> {
        metrics::count(Counter::CatalogWrites, 1);
        let writing = time::timeout(WRITE_TIMEOUT, self.proposals.propose(command));
        match writing.await {
            Some(Ok(applied)) => Ok(applied),
            Some(Err(why)) => Err(why.to_string()),
            None => Err(format!("no confirmation within {WRITE_TIMEOUT:?}")),
        }
    }

    /// The full compare. What differs is marked and written by the loop; the log says what and why.
    fn compare(&self) {
        let state = self.state.load_full();
        let stamp = stamp(&state, &self.node.node);
        if self.registry.borrow().agrees_with(stamp) {
            return;
        }
        let repair = self.registry.borrow_mut().compare(&held(&state, &self.node.node), stamp);
        if !repair.is_empty() {
            log_repair(&repair);
        }
        self.changed();
    }
}

/// The index of the last change of anything that the catalog holds of a node.
fn stamp(state: &State, node: &str) -> u64 {
    let [row, checks] = [Topic::Node(node.into()), Topic::NodeChecks(node.into())];
    state.last_change(&row).max(state.last_change(&checks))
}

fn held<'a>(state: &'a State, node: &str) -> Held<'a> {
    Held {
        node: state.node(node).map(AsRef::as_ref),
        services: state.node_services(node).map(|row| (row.id.as_str(), row.as_ref())).collect(),
        checks: state.node_checks(node).map(|row| (row.check_id.as_str(), row.as_ref())).collect(),
    }
}

fn log_repair(repair: &Repair) {
    if repair.node {
        tracing::info!(
            "anti-entropy: the catalog's row of this node differs or is missing, writing it again"
        );
    }
    let lists = [
        ("services the catalog lacks or holds differently are registered again", &repair.services),
        ("checks the catalog lacks or holds differently are registered again", &repair.checks),
        ("services unknown to this agent are deregistered", &repair.strange_services),
        ("checks unknown to this agent are deregistered", &repair.strange_checks),
    ];
    for (what, ids) in lists {
        if !ids.is_empty() {
            tracing::info!(?ids, "anti-entropy: {what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_become_rarer_as_the_cluster_grows() {
        let at = |nodes| scaled(Duration::from_secs(60), nodes).as_secs() / 60;
        assert_eq!([1, 128, 129, 256, 257, 512, 1000, 8192].map(at), [1, 1, 2, 2, 3, 3, 4, 7]);
        assert_eq!(at(0), 1);
    }
}
