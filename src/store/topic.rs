//! What a blocking query asked about, and what a write touched. A query parks on one [`Topic`]: while
//! [`super::State::last_change`] of it is at most the index asked with. Its `X-Consul-Index` is
//! [`super::State::topic_index`] (without `?index`) or [`super::State::blocking_index`] (with it).

use std::borrow::Cow;

/// What a read looks at. Names are compared without regard to case where Consul does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// One key.
    Key(Box<[u8]>),
    /// All keys under a prefix.
    KeyPrefix(Box<[u8]>),
    /// The list of nodes.
    Nodes,
    /// One node's row and services (`/v1/catalog/node/N`).
    Node(Box<str>),
    /// The names and tags of all services.
    Services,
    /// The instances of one service with their nodes (`/v1/catalog/service/S`).
    ServiceInstances(Box<str>),
    /// The instances of one service with their nodes and checks (`/v1/health/service/S`).
    ServiceHealth(Box<str>),
    /// The checks of one service (`/v1/health/checks/S`).
    ServiceChecks(Box<str>),
    /// The checks of one node (`/v1/health/node/N`).
    NodeChecks(Box<str>),
    /// All checks, or those in one state (`/v1/health/state/X`).
    CheckState(Option<super::model::Status>),
    /// The whole catalog (the UI's overviews).
    Catalog,
    /// Where nodes are (`/v1/coordinate/...`).
    Coordinates,
    /// One service of the local agent by ID (`/v1/agent/service/ID`), woken by its content hash.
    LocalService(Box<str>),
    /// All sessions (`/v1/session/list`).
    Sessions,
    /// One session (`/v1/session/info/ID`).
    Session(Box<str>),
    /// The sessions of one node (`/v1/session/node/N`).
    NodeSessions(Box<str>),
    /// The end of the lock-delay of a key. No read shows it, so it has no index.
    LockDelay(Box<[u8]>),
}

impl Topic {
    /// The same topic with names in the form in which the store compares them: lower case.
    pub fn folded(self) -> Topic {
        match self {
            Topic::Node(name) => Topic::Node(fold_box(name)),
            Topic::ServiceInstances(name) => Topic::ServiceInstances(fold_box(name)),
            Topic::ServiceHealth(name) => Topic::ServiceHealth(fold_box(name)),
            Topic::ServiceChecks(name) => Topic::ServiceChecks(fold_box(name)),
            Topic::NodeChecks(name) => Topic::NodeChecks(fold_box(name)),
            Topic::Session(id) => Topic::Session(fold_box(id)),
            Topic::NodeSessions(name) => Topic::NodeSessions(fold_box(name)),
            other => other,
        }
    }
}

/// The form in which names are compared: lower case. Borrowed when it is that already.
pub(super) fn fold(name: &str) -> Cow<'_, str> {
    let plain = name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
    if plain { Cow::Borrowed(name) } else { Cow::Owned(name.to_lowercase()) }
}

fn fold_box(name: Box<str>) -> Box<str> {
    if let Cow::Owned(folded) = fold(&name) {
        return folded.into();
    }
    name
}
