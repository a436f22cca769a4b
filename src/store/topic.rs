//! What a blocking query asked about, and what a write touched. A query parks on one [`Topic`]; its
//! `X-Consul-Index` is [`super::State::topic_index`] of it, which never goes backwards and moves
//! exactly when the topic's answer may have changed.

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
    /// One service of the local agent by ID (`/v1/agent/service/ID`), woken by its content hash.
    LocalService(Box<str>),
}
