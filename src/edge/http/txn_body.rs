//! The body of `/v1/txn`, and its answers.

use std::net::IpAddr;

use super::catalog_body::{check_uuid, read_service, read_txn_check};
use super::decode::{self, Spot};
use super::exchange::Response;
use super::filter::quote::quoted;
use super::json::{Json, JsonWriter, name, raw_check, raw_service};
use crate::edge::fresh::Shown;
use crate::store::command::{Failure, Found, KvOp, Look, RowVerb, TxnOp, TxnOutcome};
use crate::store::model::{Check, KvEntry, Node, Service};

/// Most operations of one transaction: Consul's `maxTxnOps`.
const OPERATIONS_MAX: usize = 64;

/// Verbs that make a transaction with keys one that writes; any other one does not, however it is spelled.
const KV_WRITES: [&str; 7] = ["set", "cas", "lock", "unlock", "delete", "delete-cas", "delete-tree"];

/// A transaction as it was asked for.
pub struct Asked {
    /// Its operations.
    pub ops: Vec<TxnOp>,
    /// Operations that break a rule whatever the state is; if there is one, nothing takes place.
    pub failures: Vec<Failure>,
    /// Whether an operation is called one that writes.
    pub writes: bool,
}

/// What the request decides about operations.
pub struct Bounds<'c> {
    /// The longest value of a key, bytes.
    pub value_max: usize,
    /// The datacenter of nodes that name none.
    pub datacenter: &'c str,
}

/// Reads a body.
///
/// # Errors
/// 400 for what cannot be read, 413 for too much of it.
pub fn read(body: &[u8], bounds: &Bounds<'_>) -> Result<Asked, Response> {
    let unreadable = |why: String| Response::bad_request(format!("Failed to parse body: {why}"));
    let value = decode::body(body).map_err(unreadable)?;
    let items = Spot::top(&value).items("api.TxnOps").map_err(unreadable)?;
    let parts: Vec<Parts> = items.iter().map(read_op).collect::<Result<_, String>>().map_err(unreadable)?;
    if parts.len() > OPERATIONS_MAX {
        let text = format!("Transaction contains too many operations ({} > {OPERATIONS_MAX})", parts.len());
        return Err(Response::text(413, text));
    }
    let mut asked = Asked { ops: Vec::with_capacity(parts.len()), failures: Vec::new(), writes: false };
    for part in parts {
        asked.take(part, bounds)?;
    }
    Ok(asked)
}

/// What one operation names. Of several things the first in this order counts; an operation without any is none.
#[derive(Default)]
struct Parts {
    kv: Option<(String, KvEntry)>,
    node: Option<(String, Node)>,
    service: Option<(String, Service)>,
    check: Option<(String, Check)>,
}

fn read_op(spot: &Spot<'_>) -> Result<Parts, String> {
    let mut parts = Parts::default();
    for field in spot.fields("TxnOp", &["KV", "Node", "Service", "Check"])? {
        match field? {
            (_, spot) if spot.is_null() => {}
            ("KV", spot) => parts.kv = Some(read_kv(&spot)?),
            ("Node", spot) => parts.node = Some(read_row(&spot, "NodeTxnOp", "Node", read_node)?),
            ("Service", spot) => parts.service = Some(read_service_op(&spot)?),
            (_, spot) => parts.check = Some(read_row(&spot, "CheckTxnOp", "Check", read_txn_check)?),
        }
    }
    Ok(parts)
}

fn read_kv(spot: &Spot<'_>) -> Result<(String, KvEntry), String> {
    const FIELDS: &[&str] = &["Verb", "Key", "Value", "Flags", "Index", "Session", "Namespace"];
    let (mut verb, mut entry) = (String::new(), KvEntry::default());
    for field in spot.fields("KVTxnOp", FIELDS)? {
        match field? {
            ("Verb", spot) => verb = spot.text()?,
            ("Key", spot) => entry.key = spot.text()?.into_bytes(),
            ("Value", spot) => entry.value = spot.octets()?,
            ("Flags", spot) => entry.flags = spot.unsigned("uint64")?,
            ("Index", spot) => entry.modify_index = spot.unsigned("uint64")?,
            ("Session", spot) => entry.session = spot.text()?,
            (_, spot) => drop(spot.text()?),
        }
    }
    Ok((verb, entry))
}

fn read_row<T: Default>(
    spot: &Spot<'_>,
    owner: &'static str,
    field: &'static str,
    read: fn(&Spot<'_>) -> Result<T, String>,
) -> Result<(String, T), String> {
    let (mut verb, mut row) = (String::new(), T::default());
    for found in spot.fields(owner, &["Verb", field])? {
        match found? {
            ("Verb", spot) => verb = spot.text()?,
            (_, spot) => row = read(&spot)?,
        }
    }
    Ok((verb, row))
}

fn read_node(spot: &Spot<'_>) -> Result<Node, String> {
    const FIELDS: &[&str] =
        &["ID", "Node", "Address", "Datacenter", "TaggedAddresses", "Meta", "CreateIndex", "ModifyIndex"];
    let mut node = Node::default();
    for field in spot.fields("Node", FIELDS)? {
        match field? {
            ("ID", spot) => node.id = spot.text()?,
            ("Node", spot) => node.node = spot.text()?,
            ("Address", spot) => node.address = spot.text()?,
            ("Datacenter", spot) => node.datacenter = spot.text()?,
            ("TaggedAddresses", spot) => node.tagged_addresses = spot.text_map()?,
            ("Meta", spot) => node.meta = spot.text_map()?,
            ("ModifyIndex", spot) => node.modify_index = spot.unsigned("uint64")?,
            (_, spot) => drop(spot.unsigned("uint64")?),
        }
    }
    Ok(node)
}

fn read_service_op(spot: &Spot<'_>) -> Result<(String, Service), String> {
    let (mut verb, mut node, mut service) = (String::new(), String::new(), Service::default());
    for field in spot.fields("ServiceTxnOp", &["Verb", "Node", "Service"])? {
        match field? {
            ("Verb", spot) => verb = spot.text()?,
            ("Node", spot) => node = spot.text()?,
            (_, spot) => service = read_service(&spot)?,
        }
    }
    service.node = node;
    Ok((verb, service))
}

impl Asked {
    fn take(&mut self, parts: Parts, bounds: &Bounds<'_>) -> Result<(), Response> {
        let at = self.ops.len();
        let (op, rule) = match parts {
            Parts { kv: Some((verb, entry)), .. } => {
                if entry.value.len() > bounds.value_max {
                    let key = quoted(&String::from_utf8_lossy(&entry.key));
                    let (length, max) = (entry.value.len(), bounds.value_max);
                    let text = format!("Value for key {key} is too large ({length} > {max} bytes)");
                    return Err(Response::text(413, text));
                }
                let nameless = entry.key.is_empty() && verb != "delete-tree";
                let rule = if nameless { Err("Must provide key".to_owned()) } else { Ok(()) };
                self.writes |= KV_WRITES.contains(&verb.as_str());
                (kv_op(&verb, entry), rule)
            }
            Parts { node: Some((verb, mut node)), .. } => {
                if node.datacenter.is_empty() {
                    bounds.datacenter.clone_into(&mut node.datacenter);
                }
                let rule = complete_node(&verb, &mut node);
                self.writes |= verb != "get";
                (row_op(&verb, "Node", node, TxnOp::Node, look_at_node), rule)
            }
            Parts { service: Some((verb, mut service)), .. } => {
                let rule = complete_service(&verb, &mut service);
                self.writes |= verb != "get";
                let look = |service: Service| Look::Service { node: service.node, id: service.id };
                (row_op(&verb, "Service", service, TxnOp::Service, look), rule)
            }
            Parts { check: Some((verb, mut check)), .. } => {
                self.writes |= verb != "get";
                // What kind it is Consul does not keep here.
                check.kind.clear();
                if check.check_id.is_empty() {
                    check.check_id.clone_from(&check.name);
                }
                let look = |check: Check| Look::Check { node: check.node, id: check.check_id };
                (row_op(&verb, "Check", check, TxnOp::Check, look), Ok(()))
            }
            Parts { kv: None, node: None, service: None, check: None } => return Ok(()),
        };
        if let Err(what) = rule {
            self.failures.push(Failure { op: at, what });
        }
        self.ops.push(op);
        Ok(())
    }
}

fn kv_op(verb: &str, entry: KvEntry) -> TxnOp {
    let KvEntry { modify_index: index, .. } = entry;
    match verb {
        "set" => TxnOp::Kv(KvOp::Set(entry)),
        "cas" => TxnOp::Kv(KvOp::Cas { entry, index }),
        "lock" if !matches!(entry.session.len(), 0 | 36) => {
            let what = "failed session lookup: index error: UUID must be 36 characters";
            TxnOp::Look(Look::Nonsense(what.to_owned()))
        }
        "lock" => TxnOp::Kv(KvOp::Acquire(entry)),
        "unlock" => TxnOp::Kv(KvOp::Release(entry)),
        "delete" => TxnOp::Kv(KvOp::Delete { key: entry.key }),
        "delete-cas" => TxnOp::Kv(KvOp::DeleteCas { key: entry.key, index }),
        "delete-tree" => TxnOp::Kv(KvOp::DeleteTree { prefix: entry.key }),
        "get" => TxnOp::Look(Look::Key(entry.key)),
        "get-tree" => TxnOp::Look(Look::Tree(entry.key)),
        "check-index" => TxnOp::Look(Look::Index { key: entry.key, index }),
        "check-session" => TxnOp::Look(Look::Holder { key: entry.key, session: entry.session }),
        "check-not-exists" => TxnOp::Look(Look::Absence(entry.key)),
        other => TxnOp::Look(Look::Nonsense(format!("unknown KV verb {}", quoted(other)))),
    }
}

fn row_op<T>(verb: &str, kind: &str, row: T, write: fn(RowVerb, T) -> TxnOp, look: fn(T) -> Look) -> TxnOp {
    match verb {
        "get" => TxnOp::Look(look(row)),
        "set" => write(RowVerb::Set, row),
        "cas" => write(RowVerb::Cas, row),
        "delete" => write(RowVerb::Delete, row),
        "delete-cas" => write(RowVerb::DeleteCas, row),
        other => TxnOp::Look(Look::Nonsense(format!("unknown {kind} verb {}", quoted(other)))),
    }
}

fn look_at_node(node: Node) -> Look {
    match check_uuid(&node.id) {
        Err(why) if !node.id.is_empty() => {
            Look::Nonsense(format!("node lookup by ID failed, wrong UUID: {why} for '{}'", node.id))
        }
        _ => Look::Node { name: node.node, id: node.id },
    }
}

fn complete_node(verb: &str, node: &mut Node) -> Result<(), String> {
    if verb == "get" {
        node.id.make_ascii_lowercase();
        return Ok(());
    }
    if node.node.is_empty() {
        return Err("Must provide node".to_owned());
    }
    if !node.id.is_empty() {
        check_uuid(&node.id).map_err(|reason| format!("Bad node ID: {reason}"))?;
    }
    node.id.make_ascii_lowercase();
    Ok(())
}

fn complete_service(verb: &str, service: &mut Service) -> Result<(), String> {
    if verb == "get" {
        return Ok(());
    }
    if service.name.is_empty() && !service.id.is_empty() {
        return Err("Must provide service name with ID".to_owned());
    }
    if service.address.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified()) {
        return Err("Invalid service address".to_owned());
    }
    if service.id.is_empty() {
        service.id.clone_from(&service.name);
    }
    Ok(())
}

/// The answer to a transaction. `shown` is there when it only looked, and says how.
pub fn answer(outcome: &TxnOutcome, shown: Option<Shown>, pretty: bool) -> Response {
    let mut w = JsonWriter::new(pretty);
    w.object(|w| {
        match outcome {
            Ok(found) => w.field(name!("Results")).array(found, row),
            Err(_) => w.field(name!("Results")).null(),
        }
        match outcome {
            Ok(_) => w.field(name!("Errors")).null(),
            Err(failures) => w.field(name!("Errors")).array(failures, |w, failure| {
                w.object(|w| {
                    w.field(name!("OpIndex")).number(failure.op as u64);
                    w.field(name!("What")).text(&failure.what);
                });
            }),
        }
        if let Some(shown) = shown {
            w.field(name!("Index")).number(0);
            w.field(name!("LastContact")).number(i128::from(shown.last_contact_ms) * 1_000_000);
            w.field(name!("KnownLeader")).flag(shown.known_leader);
            w.field(name!("ConsistencyLevel")).text("");
        }
    });
    let status = if outcome.is_ok() { 200 } else { 409 };
    let response = Response::with_type(status, "application/json", w.finish());
    match shown {
        Some(shown) => response
            .header("X-Consul-KnownLeader", shown.known_leader.to_string())
            .header("X-Consul-LastContact", shown.last_contact_ms.to_string()),
        None => response,
    }
}

fn row(w: &mut JsonWriter, found: &Found) {
    w.object(|w| match found {
        Found::Entry(entry) => entry.write(w.field(name!("KV"))),
        Found::Key(entry) => {
            let entry = KvEntry { value: Vec::new(), ..KvEntry::clone(entry) };
            entry.write(w.field(name!("KV")));
        }
        Found::Node(node) => node.write(w.field(name!("Node"))),
        Found::Service(service) => raw_service(w.field(name!("Service")), service),
        Found::Check(check) => raw_check(w.field(name!("Check")), check),
    });
}
