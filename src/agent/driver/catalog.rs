//! The catalog: writes what it lacks as soon as it lacks it, and compares all of it now and then.
//!
//! One write is in flight at a time; whatever changes meanwhile goes together with the next one. Edges within a few
//! milliseconds of each other travel together, unless a client waits.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Inner;
use crate::agent::catalog::{Catalog, TIMEOUT};
use crate::agent::local::LocalState;
use crate::agent::registry::{Batch, Repair};
use crate::agent::sync::Held;
use crate::runtime::{cores, random, time};
use crate::store::command::{Applied, CatalogOp, Command};
use crate::upstream::parcels::Holding;

/// Edges that follow one another faster than this share a command.
const COALESCE: Duration = Duration::from_millis(5);
/// How long a server's first write waits for the leader to have registered the node.
const LEADER_PATIENCE: Duration = Duration::from_secs(5);
/// Pause before a failed write is tried again; grows up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(250);
/// Within this time what is in doubt is compared: many agents come to doubt at the same time.
const DOUBT_SPREAD: Duration = Duration::from_secs(3);
/// Within this time a write of unknown outcome has been applied, or never is.
const LATE_MAX: Duration = TIMEOUT.saturating_add(Duration::from_secs(1));
/// How often an agent that knows no server looks for one.
const SERVERS_INTERVAL: Duration = Duration::from_millis(200);
/// Nodes up to which everything is compared at the plain interval.
const AE_NODES: usize = 128;
/// The longest such pause.
const RETRY_MAX: Duration = Duration::from_secs(15);

/// How long a client that is new waits for the leader to have registered its node, and how often it looks.
const FIRST_ROWS_PATIENCE: Duration = Duration::from_secs(1);
const FIRST_ROWS_LOOK: Duration = Duration::from_millis(50);

pub(super) async fn run(inner: Rc<Inner>) {
    inner.await_leader().await;
    let mut compare_at = time::now();
    let mut last_write: Option<Instant> = None;
    let mut pause = RETRY_MIN;
    // A write may be applied yet, behind newer ones.
    let mut is_unknown = false;
    // An agent that has just started is not to wait long for servers that were too busy for its first question.
    let mut unseen = RETRY_MIN;
    loop {
        inner.await_servers().await;
        if inner.leaving.get() {
            // Who leaves is taken out of the catalog: it is not to put itself back.
            inner.answer_waiters(u64::MAX);
            let _ = cores::either(inner.dirty.heard(), inner.waited_for()).await;
            continue;
        }
        if inner.doubted.take() {
            compare_at = compare_at.min(time::now() + DOUBT_SPREAD.mul_f64(random::Rng::seeded().fraction()));
        }
        if time::now() >= compare_at {
            let pause = match inner.compare().await {
                Ok(()) => {
                    unseen = RETRY_MIN;
                    scaled(inner.ae_interval, inner.catalog.nodes())
                }
                Err(why) => {
                    tracing::warn!("the catalog's view of this agent cannot be looked at: {why}");
                    let now = unseen;
                    unseen = (unseen * 2).min(RETRY_MAX);
                    now
                }
            };
            compare_at = time::now() + jittered(pause);
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
                if std::mem::take(&mut is_unknown) {
                    let spread = DOUBT_SPREAD.mul_f64(random::Rng::seeded().fraction());
                    compare_at = compare_at.min(time::now() + LATE_MAX + spread);
                }
                if !more {
                    inner.answer_waiters(upto);
                }
            }
            Err(why) => {
                is_unknown = true;
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
    /// The leader registers the node first; so the catalog's history reads as it should.
    async fn await_leader(&self) {
        let Catalog::Local { state, .. } = &self.catalog else { return self.await_first_rows().await };
        let patience = time::now() + LEADER_PATIENCE;
        while state.load().node(&self.node.node).is_none() && time::now() < patience {
            time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The same on a client, whose node the leader knows by gossip.
    async fn await_first_rows(&self) {
        self.await_servers().await;
        let patience = time::now() + FIRST_ROWS_PATIENCE;
        while time::now() < patience && self.catalog.stamp(&self.node.node).await == Ok(0) {
            time::sleep(FIRST_ROWS_LOOK).await;
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
    async fn write(&self, mut batch: Batch) -> Result<bool, String> {
        let ops = std::mem::take(&mut batch.ops);
        let commands: Vec<_> = ops.into_iter().map(Command::Catalog).collect();
        for (command, applied) in commands.iter().zip(self.catalog.write(&commands).await?) {
            let Command::Catalog(op) = command else { continue };
            match applied {
                Applied::Refused(why) => {
                    tracing::error!("the catalog refused a write of this agent: {}: {why}", about(op));
                }
                _ => tell_synced(op),
            }
        }
        self.registry.borrow_mut().settle(&batch);
        self.note_synced();
        Ok(batch.more)
    }

    /// The full compare. What differs is marked and written by the loop; the log says what and why.
    async fn compare(&self) -> Result<(), String> {
        let stamp = self.catalog.stamp(&self.node.node).await?;
        if self.registry.borrow().agrees_with(stamp) {
            tell_in_sync(self.registry.borrow().view());
            self.note_synced();
            return Ok(());
        }
        let holding = self.catalog.holding(&self.node.node).await?;
        let repair = self.registry.borrow_mut().compare(&held(&holding), holding.stamp);
        if !repair.is_empty() {
            log_repair(&repair);
        } else if self.registry.borrow().is_synced() {
            tell_in_sync(self.registry.borrow().view());
        }
        self.note_synced();
        self.changed();
        Ok(())
    }

    fn note_synced(&self) {
        if self.registry.borrow().is_synced() {
            self.synced_at.set(Some(time::now()));
        }
    }

    /// Waits until a server is known. Clients are not kept waiting meanwhile.
    async fn await_servers(&self) {
        if self.catalog.is_known() {
            return;
        }
        tracing::warn!(
            "No known Consul servers: this agent's services and checks are registered once there is one"
        );
        while !self.catalog.is_known() {
            self.answer_waiters(u64::MAX);
            let _ = cores::either(time::sleep(SERVERS_INTERVAL), self.waited_for()).await;
        }
    }
}

fn held(holding: &Holding) -> Held<'_> {
    Held {
        node: holding.node.as_ref(),
        services: holding.services.iter().map(|row| (row.id.as_str(), row)).collect(),
        checks: holding.checks.iter().map(|row| (row.check_id.as_str(), row)).collect(),
    }
}

/// What a write is about.
fn about(op: &CatalogOp) -> String {
    match op {
        CatalogOp::Register(row) => match &row.service {
            Some(service) => format!("service {:?}", service.id),
            None if !row.checks.is_empty() => format!("{} checks", row.checks.len()),
            None => "the node".to_owned(),
        },
        CatalogOp::Deregister(row) => format!("removal of {:?}", [&row.service_id, &row.check_id]),
    }
}

/// The catalog has taken a write.
fn tell_synced(op: &CatalogOp) {
    match op {
        CatalogOp::Register(row) => {
            if !row.skip_node_update {
                tracing::info!("Synced node info");
            }
            if let Some(service) = &row.service {
                tracing::info!(service = service.id, "Synced service");
            }
            for check in &row.checks {
                // Those that go with their service are told of with it.
                match &row.service {
                    Some(_) => tracing::debug!(check = check.check_id, "Check in sync"),
                    None => tracing::info!(check = check.check_id, "Synced check"),
                }
            }
        }
        CatalogOp::Deregister(row) if row.check_id.is_empty() => {
            tracing::info!(service = row.service_id, "Deregistered service");
        }
        CatalogOp::Deregister(row) => tracing::info!(check = row.check_id, "Deregistered check"),
    }
}

/// All that is here is in the catalog, as a compare has found.
fn tell_in_sync(view: &LocalState) {
    tracing::debug!("Node info in sync");
    if tracing::enabled!(tracing::Level::DEBUG) {
        for service in view.services.keys() {
            tracing::debug!(service, "Service in sync");
        }
        for check in view.checks.keys() {
            tracing::debug!(check, "Check in sync");
        }
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
