//! Anti-entropy's eyes: what the catalog holds of this node, and whether a row there says what it should.

use std::collections::BTreeMap;

use crate::store::model::{Check, Node, Service};

/// ID of the service that the servers register for themselves.
pub const SERVER_SERVICE: &str = "consul";
/// ID of the check that the leader keeps for every node.
pub const SERVER_CHECK: &str = "serfHealth";

/// What the catalog holds of this node.
#[derive(Default)]
pub struct Held<'a> {
    /// The node's row.
    pub node: Option<&'a Node>,
    /// Services by ID.
    pub services: BTreeMap<&'a str, &'a Service>,
    /// Checks by ID.
    pub checks: BTreeMap<&'a str, &'a Check>,
}

/// Whether the node's row says what the agent says of itself.
pub fn same_node(own: &Node, held: &Node) -> bool {
    own.id == held.id
        && own.address == held.address
        && own.tagged_addresses == held.tagged_addresses
        && own.meta == held.meta
}

/// Whether a service's row is as registered. Empty and absent collections are the same to the agent.
pub fn same_service(own: &Service, held: &Service) -> bool {
    let tagged = |s: &Service| s.tagged_addresses.clone().unwrap_or_default();
    let meta = |s: &Service| s.meta.clone().unwrap_or_default();
    own.kind == held.kind
        && own.id == held.id
        && own.name == held.name
        && own.tags == held.tags
        && own.address == held.address
        && own.port == held.port
        && own.weights == held.weights
        && own.enable_tag_override == held.enable_tag_override
        && tagged(own) == tagged(held)
        && meta(own) == meta(held)
}

/// Whether a check's row is as the agent sees it. Name and tags of the service are the store's own.
pub fn same_check(own: &Check, held: &Check, ignore_output: bool) -> bool {
    own.check_id == held.check_id
        && own.name == held.name
        && own.status == held.status
        && own.notes == held.notes
        && (ignore_output || own.output == held.output)
        && own.service_id == held.service_id
        && own.kind == held.kind
        && own.definition == held.definition
}
