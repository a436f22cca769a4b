//! Alias checks of the registry: which follow what, and which have to be looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::Registry;
use crate::health::alias;
use crate::health::plan::{Plan, Probe};

/// An alias may follow an alias: so many rounds settle a change.
const ROUNDS_MAX: usize = 8;

/// Who follows whom.
#[derive(Default)]
pub(super) struct Aliases {
    /// By check ID: node (empty: our own) and service (empty: the node itself).
    all: BTreeMap<String, (String, String)>,
    /// Check IDs by the service of ours that they follow.
    of_service: BTreeMap<String, BTreeSet<String>>,
    /// Services of ours (empty: the node itself) that changed since their aliases were looked at.
    news: BTreeSet<String>,
}

impl Aliases {
    /// A check is registered; `plan` tells whether it is an alias. `here` is our node.
    pub(super) fn add(&mut self, id: &str, plan: &Plan, here: &str) {
        let Probe::Alias { node, service } = &plan.probe else { return };
        if is_here(node, here) {
            self.of_service.entry(service.clone()).or_default().insert(id.to_owned());
            self.news.insert(service.clone());
        }
        self.all.insert(id.to_owned(), (node.clone(), service.clone()));
    }

    /// A check is no more.
    pub(super) fn remove(&mut self, id: &str) {
        let Some((_, service)) = self.all.remove(id) else { return };
        if let Some(followers) = self.of_service.get_mut(&service) {
            followers.remove(id);
            if followers.is_empty() {
                self.of_service.remove(&service);
            }
        }
    }

    /// A service, or one of its checks, or (empty) one of the node's, changed.
    pub(super) fn heed(&mut self, service_id: &str) {
        if !self.of_service.is_empty() && !self.news.contains(service_id) {
            self.news.insert(service_id.to_owned());
        }
    }

    /// IDs of the aliases that news concern: those of the node concern all.
    fn stale(&mut self) -> Vec<String> {
        let news = std::mem::take(&mut self.news);
        if news.contains("") {
            return self.of_service.values().flatten().cloned().collect();
        }
        news.iter().filter_map(|service| self.of_service.get(service)).flatten().cloned().collect()
    }
}

impl Registry {
    /// Lets aliases of what is ours follow it.
    pub fn follow_aliases(&mut self, now: Instant) {
        for _ in 0..ROUNDS_MAX {
            let stale = self.aliases.stale();
            if stale.is_empty() {
                return;
            }
            for id in stale {
                let Some((node, service)) = self.aliases.all.get(&id) else { continue };
                let own = self.checks_by_service.get("").into_iter().flatten();
                let others = self.checks_by_service.get(service).filter(|_| !service.is_empty());
                let checks = own.chain(others.into_iter().flatten());
                let rows = checks.filter_map(|id| self.checks.get(id)).map(|entry| &*entry.local.row);
                let (itself, others): (Vec<_>, Vec<_>) = rows.partition(|row| row.check_id == id);
                let exists = self.services.contains_key(service);
                let mut finding = alias::evaluate(node, service, exists, others.into_iter());
                // As in Consul it counts itself, and so never gets better again by itself; what it says is the others' fault
                // where there is one.
                if let Some(row) = itself.first() {
                    finding = alias::with_itself(finding, row);
                }
                self.set_alias(now, &id, finding);
            }
        }
    }

    /// Aliases of what is on other nodes: ID, node, service.
    pub fn remote_aliases(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        let here = self.node_name();
        let all = self.aliases.all.iter().map(|(id, (node, service))| (&**id, &**node, &**service));
        all.filter(move |(_, node, _)| !is_here(node, here))
    }
}

fn is_here(node: &str, here: &str) -> bool {
    node.is_empty() || node.eq_ignore_ascii_case(here)
}
