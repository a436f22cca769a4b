//! Writes, as values. A command is encoded once (rkyv) where it is accepted; the same bytes travel, are
//! logged, and are read in place at apply (DESIGN section 4).

use std::sync::Arc;

use rkyv::{Archive, Deserialize, Serialize};

use super::coordinates::PARTS;
use super::model::{AutopilotConfig, Check, KvEntry, Node, Service, Session};

/// A write to the replicated state.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum Command {
    /// One write to the catalog.
    Catalog(CatalogOp),
    /// Several writes to the catalog, in order, under one index: the edges of one agent or of a mass failure.
    CatalogBatch(Vec<CatalogOp>),
    /// A write to one key or one tree (`PUT` and `DELETE /v1/kv/...`).
    Kv(KvOp),
    /// A write to autopilot's configuration (`PUT /v1/operator/autopilot/configuration`).
    Autopilot(AutopilotOp),
    /// A step of replacing all tables by those of an archive (`PUT /v1/snapshot`).
    Restore(RestoreOp),
    /// Where some nodes are (`PUT /v1/coordinate/update`), many at once.
    Coordinates(Vec<Place>),
    /// A write to the sessions.
    Session(SessionOp),
    /// Operations that all take place, or none (`PUT /v1/txn`).
    Txn(Vec<TxnOp>),
}

/// Length of an archived command, which lies at the end of its bytes: those of old logs are found by it, so no variant may
/// outgrow it (box what is large), nor ask for more than the alignment.
const ARCHIVED_LENGTH: usize = 104;
const _: [(); ARCHIVED_LENGTH] = [(); size_of::<ArchivedCommand>()];
const _: [(); 8] = [(); align_of::<ArchivedCommand>()];

/// Where a node is.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Place {
    /// Its name.
    pub node: String,
    /// The network segment in which it was measured.
    pub segment: String,
    /// See [`super::parts_of`].
    pub parts: [f64; PARTS],
}

/// One write to the catalog.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum CatalogOp {
    /// Adds or updates a node, a service and checks on it (`/v1/catalog/register`), atomically.
    Register(Box<Register>),
    /// Removes a node, a service or a check (`/v1/catalog/deregister`).
    Deregister(Deregister),
}

/// See [`CatalogOp::Register`]. Indexes inside the rows are ignored; the store sets them.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Register {
    /// The node; name and address are required unless `skip_node_update`.
    pub node: Node,
    /// Leaves an existing node row as it is.
    pub skip_node_update: bool,
    /// A service on it.
    pub service: Option<Service>,
    /// Checks on it.
    pub checks: Vec<Check>,
}

/// See [`CatalogOp::Deregister`]: the service if one is named, else the check, else the whole node.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Deregister {
    /// Node name.
    pub node: String,
    /// Service ID or empty.
    pub service_id: String,
    /// Check ID or empty.
    pub check_id: String,
}

/// See [`Command::Kv`].
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum KvOp {
    /// Unconditional write.
    Set(KvEntry),
    /// Writes if the key's modify index equals `index` (0: only if absent).
    Cas {
        /// New content.
        entry: KvEntry,
        /// Expected modify index.
        index: u64,
    },
    /// Removes one key; absent is fine.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
    /// Removes one key if its modify index equals `index`.
    DeleteCas {
        /// The key.
        key: Vec<u8>,
        /// Expected modify index.
        index: u64,
    },
    /// Removes all keys under a prefix.
    DeleteTree {
        /// The prefix.
        prefix: Vec<u8>,
    },
    /// Writes if the session that the entry names can have the key's lock, or has it.
    Acquire(KvEntry),
    /// Writes and frees the key if the session that the entry names has its lock.
    Release(KvEntry),
}

/// See [`Command::Session`].
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum SessionOp {
    /// Adds one, under an ID that whoever proposes it has drawn. Its node and checks must be there, the checks not critical.
    Create(Box<Session>),
    /// Removes one, at the wish of a client; absent is fine.
    Destroy {
        /// Its ID.
        id: String,
    },
    /// Removes those whose time is up, as the leader measures it. Does nothing if another leader has come or the tables
    /// were replaced since it measured: then it is for the other to measure, from its own beginning.
    Expire {
        /// Their IDs.
        ids: Vec<String>,
        /// [`super::State::index`] when the leader began to measure.
        seen: u64,
    },
    /// Ends the lock-delay of keys, as the leader measures it.
    EndDelays(Vec<DelayEnd>),
}

/// The end of one lock-delay.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct DelayEnd {
    /// The key.
    pub key: Vec<u8>,
    /// [`super::LockDelay::since`] of the delay that is over; another one goes on.
    pub since: u64,
}

/// One operation of a transaction. The modify index inside a row is the one that its conditional verbs expect.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum TxnOp {
    /// Looks at something; changes nothing.
    Look(Look),
    /// Writes keys.
    Kv(KvOp),
    /// Writes a node's row.
    Node(RowVerb, Node),
    /// Writes a service on the node that its row names.
    Service(RowVerb, Service),
    /// Writes a check on the node that its row names.
    Check(RowVerb, Check),
}

/// What a transaction does with a row of the catalog.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[rkyv(derive(Clone, Copy, PartialEq, Eq))]
pub enum RowVerb {
    /// Adds or updates it.
    Set,
    /// The same if its modify index is the given one (0: if there is none).
    Cas,
    /// Removes it; absent is fine.
    Delete,
    /// Removes it if its modify index is the given one.
    DeleteCas,
}

/// What a transaction looks at. It fails where the answer is not the wanted one.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum Look {
    /// A key that must be there.
    Key(Vec<u8>),
    /// The keys under a prefix.
    Tree(Vec<u8>),
    /// A key must have this modify index.
    Index {
        /// The key.
        key: Vec<u8>,
        /// The wanted index.
        index: u64,
    },
    /// A key must be held by this session.
    Holder {
        /// The key.
        key: Vec<u8>,
        /// The wanted session.
        session: String,
    },
    /// There must be no such key.
    Absence(Vec<u8>),
    /// A node that must be there: by ID if one is given, else by name.
    Node {
        /// Its name.
        name: String,
        /// Its ID, or empty.
        id: String,
    },
    /// A service that must be there.
    Service {
        /// The node's name.
        node: String,
        /// The service's ID.
        id: String,
    },
    /// A check that must be there.
    Check {
        /// The node's name.
        node: String,
        /// The check's ID.
        id: String,
    },
    /// Nothing that can be done, for this reason: fails whatever the state.
    Nonsense(String),
}

/// See [`Command::Autopilot`]. Indexes inside the row are ignored; the store sets them.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum AutopilotOp {
    /// Writes it if there is none yet: a new cluster's first.
    Init(AutopilotConfig),
    /// Unconditional write.
    Set(AutopilotConfig),
    /// Writes if the row is there and its modify index equals `index`.
    Cas {
        /// New content.
        config: AutopilotConfig,
        /// Expected modify index.
        index: u64,
    },
}

/// See [`Command::Restore`]. The parts are gathered in the state beside the tables, which stay as they are until the
/// commit replaces them at once. The term's end, another beginning or a long silence of the log's other
/// writers drops what was gathered.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum RestoreOp {
    /// Begins; what another restore has gathered is dropped.
    Begin {
        /// Names this restore; drawn at random.
        id: u64,
        /// How many sections will come.
        sections: u64,
    },
    /// The next bytes of the next section.
    Part {
        /// Which restore.
        id: u64,
        /// Counts the parts from 0, in order. One that came already is passed over.
        number: u64,
        /// Kind of the section.
        kind: u16,
        /// Version of the section's format.
        version: u16,
        /// Whether these bytes are the section's last.
        last: bool,
        /// At most [`super::RESTORE_PART_LENGTH_MAX`].
        bytes: Vec<u8>,
    },
    /// Replaces all tables by what was gathered, and wakes all queries. The index does not go back.
    Commit {
        /// Which restore.
        id: u64,
    },
    /// Drops what was gathered.
    Abort {
        /// Which restore.
        id: u64,
    },
}

/// What an operation of a transaction found or left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A key that was asked for.
    Entry(Arc<KvEntry>),
    /// A key that was written or compared: its value is not part of the answer.
    Key(Arc<KvEntry>),
    /// A node.
    Node(Arc<Node>),
    /// A service.
    Service(Arc<Service>),
    /// A check.
    Check(Arc<Check>),
}

/// Why an operation of a transaction failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its place in the transaction, from 0.
    pub op: usize,
    /// The reason, in Consul's words.
    pub what: String,
}

/// What all operations of a transaction found, or those that failed and why.
pub type TxnOutcome = Result<Vec<Found>, Vec<Failure>>;

/// What a command did, for whoever proposed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// A transaction: took place, or changed nothing.
    Txn(TxnOutcome),
    /// Done.
    Done,
    /// A conditional write: whether it took place.
    Condition(bool),
    /// Refused by a rule of the tables; the text is Consul's where a client may match it.
    Refused(String),
}
