//! What a batch of commands changed.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::model::Status;
use super::topic::Topic;

/// The topics whose answers a batch may have changed, each once. Changed keys stand as [`Topic::Key`] and imply
/// the prefixes over them; [`Topic::KeyPrefix`] itself is never a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    topics: BTreeSet<Topic>,
    all: bool,
}

impl Touched {
    /// Nothing touched.
    pub fn new() -> Touched {
        Touched::default()
    }

    /// Whether nothing was touched.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty() && !self.all
    }

    /// How many topics are named.
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether all tables were replaced, and with them every answer.
    pub fn is_all(&self) -> bool {
        self.all
    }

    /// Whether the answer to `topic` may have changed.
    pub fn touches(&self, topic: &Topic) -> bool {
        if self.all {
            return !matches!(topic, Topic::LocalService(_)) || self.topics.contains(topic);
        }
        let Topic::KeyPrefix(prefix) = topic else {
            return self.topics.contains(&topic.clone().folded());
        };
        let from = Topic::Key(prefix.clone());
        match self.topics.range((Bound::Included(from), Bound::Unbounded)).next() {
            Some(Topic::Key(key)) => key.starts_with(prefix),
            _ => false,
        }
    }

    /// Calls `visit` with each touched topic, in order; prefixes are for the caller to find (see
    /// [`super::Watchers`]), and so is everything else when [`Touched::is_all`].
    pub fn for_each_topic(&self, mut visit: impl FnMut(&Topic)) {
        self.topics.iter().for_each(&mut visit);
    }

    /// Adds a topic. The store adds its own; the agent adds [`Topic::LocalService`]. Names are folded.
    pub fn add(&mut self, topic: Topic) {
        debug_assert!(!matches!(topic, Topic::KeyPrefix(_)), "keys are touched, not prefixes");
        self.topics.insert(topic.folded());
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: Touched) {
        self.topics.extend(other.topics);
        self.all |= other.all;
    }

    /// Every topic of the tables: they were replaced as a whole.
    pub fn everything() -> Touched {
        Touched { all: true, ..Touched::default() }
    }

    pub(super) fn key(&mut self, key: &[u8]) {
        self.topics.insert(Topic::Key(key.into()));
    }

    pub(super) fn node(&mut self, folded: &str) {
        self.topics.insert(Topic::Node(folded.into()));
        self.topics.insert(Topic::Catalog);
    }

    pub(super) fn nodes(&mut self) {
        self.topics.insert(Topic::Nodes);
    }

    pub(super) fn services(&mut self) {
        self.topics.insert(Topic::Services);
    }

    pub(super) fn instances(&mut self, folded: &str) {
        self.topics.insert(Topic::ServiceInstances(folded.into()));
        self.health(folded);
    }

    pub(super) fn health(&mut self, folded: &str) {
        self.topics.insert(Topic::ServiceHealth(folded.into()));
    }

    pub(super) fn service_checks(&mut self, folded: &str) {
        self.topics.insert(Topic::ServiceChecks(folded.into()));
    }

    pub(super) fn node_checks(&mut self, folded: &str) {
        self.topics.insert(Topic::NodeChecks(folded.into()));
        self.topics.insert(Topic::CheckState(None));
        self.topics.insert(Topic::Catalog);
    }

    pub(super) fn session(&mut self, id: &str, node: &str) {
        self.topics.insert(Topic::Session(id.into()));
        self.topics.insert(Topic::NodeSessions(node.into()));
        self.topics.insert(Topic::Sessions);
    }

    pub(super) fn state(&mut self, status: Status) {
        self.topics.insert(Topic::CheckState(Some(status)));
    }
}
