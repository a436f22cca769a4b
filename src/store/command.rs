//! Writes, as values. A command is encoded once (rkyv) where it is accepted; the same bytes travel, are
//! logged, and are read in place at apply (DESIGN section 4).

use rkyv::{Archive, Deserialize, Serialize};

use super::model::{Check, KvEntry, Node, Service};

/// A write to the replicated state.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum Command {
    /// One write to the catalog.
    Catalog(CatalogOp),
    /// Several writes to the catalog, in order, under one index: the edges of one agent or of a mass failure.
    CatalogBatch(Vec<CatalogOp>),
    /// A write to one key or one tree (`PUT` and `DELETE /v1/kv/...`).
    Kv(KvOp),
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
}

/// What a command did, for whoever proposed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Done.
    Done,
    /// A conditional write: whether it took place.
    Condition(bool),
    /// Refused by a rule of the tables; the text is Consul's where a client may match it.
    Refused(String),
}
