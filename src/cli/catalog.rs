//! `catalog datacenters`, `catalog nodes`, `catalog services`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde::Deserialize;

use super::client::{Client, Reply};
use super::kv::connecting;
use super::usage::Command;
use super::{Group, Outcome, Program, list, switch, table, value};
use crate::config::flags::Parsed;

/// The commands of `catalog`.
pub const GROUP: Group = Group {
    name: "catalog",
    summary: "Interact with the catalog",
    programs: &[DATACENTERS, NODES, SERVICES],
};

const DATACENTERS: Program = Program {
    command: Command {
        name: "datacenters",
        summary: "Lists all known datacenters",
        usage: "catalog datacenters [options]",
        text: "Lists the datacenters that the agent's servers know.",
    },
    flags: &[],
    run: datacenters,
};

const NODES: Program = Program {
    command: Command {
        name: "nodes",
        summary: "Lists all nodes in the given datacenter",
        usage: "catalog nodes [options]",
        text: "Lists the nodes of a datacenter.",
    },
    flags: &[
        switch("detailed", "Show whole IDs, tagged addresses and metadata."),
        value("filter", "Filter expression of the request."),
        value("near", "Sort by round-trip time from this node; '_agent' is the agent's own."),
        list(
            "node-meta",
            "Only nodes with this key=value in their metadata. Can be specified multiple times.",
        ),
        value("service", "Only nodes that provide this service."),
    ],
    run: nodes,
};

const SERVICES: Program = Program {
    command: Command {
        name: "services",
        summary: "Lists all registered services in a datacenter",
        usage: "catalog services [options]",
        text: "Lists the services of a datacenter by name.",
    },
    flags: &[
        value("node", "Only services of this node (its ID or name)."),
        list(
            "node-meta",
            "Only services on nodes with this key=value in their metadata. Can be specified multiple times.",
        ),
        switch("tags", "Show each service's tags."),
        value("namespace", "Namespaces are not available; 'default' is accepted."),
    ],
    run: services,
};

/// A node as the catalog answers it, alone or with a service.
#[derive(Deserialize)]
struct Node {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Node")]
    node: String,
    #[serde(rename = "Address")]
    address: String,
    #[serde(rename = "Datacenter")]
    datacenter: String,
    #[serde(rename = "TaggedAddresses")]
    tagged_addresses: Option<BTreeMap<String, String>>,
    #[serde(rename = "Meta", alias = "NodeMeta")]
    meta: Option<BTreeMap<String, String>>,
}

/// What a node offers.
#[derive(Deserialize)]
struct NodeServices {
    #[serde(rename = "Services")]
    services: BTreeMap<String, NodeService>,
}

/// One service of a node.
#[derive(Deserialize)]
struct NodeService {
    #[serde(rename = "Service")]
    service: String,
    #[serde(rename = "Tags")]
    tags: Option<Vec<String>>,
}

/// `catalog datacenters`.
fn datacenters(flags: &Parsed) -> Outcome {
    no_arguments(flags)?;
    let client = Client::new(flags).map_err(connecting)?;
    let failed = |why| format!("Error listing datacenters: {why}");
    let names: Vec<String> = decoded(client.get("/v1/catalog/datacenters", &[]), &failed)?;
    names.iter().for_each(|name| println!("{name}"));
    Ok(ExitCode::SUCCESS)
}

/// `catalog nodes`.
fn nodes(flags: &Parsed) -> Outcome {
    no_arguments(flags)?;
    let client = Client::new(flags).map_err(connecting)?;
    let mut query = node_meta(flags)?;
    for name in ["near", "filter"] {
        query.extend(flags.value(name).filter(|v| !v.is_empty()).map(|v| (name, v.to_owned())));
    }
    let query: Vec<(&str, &str)> = query.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let failed = |why| format!("Error listing nodes: {why}");
    let path = match flags.value("service").filter(|s| !s.is_empty()) {
        Some(service) => format!("/v1/catalog/service/{service}"),
        None => "/v1/catalog/nodes".to_owned(),
    };
    let mut found: Vec<Node> = decoded(client.get(&path, &query), &failed)?;
    // A node with several instances of the service counts once.
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|node| seen.insert((node.node.clone(), node.id.clone())));
    if found.is_empty() {
        eprintln!("No nodes match the given query - try expanding your search.");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}", table::columns(&node_rows(&found, flags.is_on("detailed"))));
    Ok(ExitCode::SUCCESS)
}

/// The table of nodes.
fn node_rows(nodes: &[Node], detailed: bool) -> Vec<Vec<String>> {
    let mut header = vec!["Node", "ID", "Address", "DC"];
    if detailed {
        header.extend(["TaggedAddresses", "Meta"]);
    }
    let mut rows = vec![header.into_iter().map(str::to_owned).collect()];
    let pairs = |map: &Option<BTreeMap<String, String>>| {
        let pairs = map.iter().flatten().map(|(k, v)| format!("{k}={v}"));
        pairs.collect::<Vec<_>>().join(", ")
    };
    for node in nodes {
        let short = node.id.split('-').next().unwrap_or_default();
        let id = if detailed { node.id.as_str() } else { short };
        let mut row = vec![node.node.clone(), id.to_owned(), node.address.clone(), node.datacenter.clone()];
        if detailed {
            row.extend([pairs(&node.tagged_addresses), pairs(&node.meta)]);
        }
        rows.push(row);
    }
    rows
}

/// `catalog services`.
fn services(flags: &Parsed) -> Outcome {
    no_arguments(flags)?;
    let client = Client::new(flags).map_err(connecting)?;
    let meta = node_meta(flags)?;
    let query: Vec<(&str, &str)> = meta.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let mut found: BTreeMap<String, Vec<String>> = match flags.value("node").filter(|n| !n.is_empty()) {
        None => {
            let failed = |why| format!("Error listing services: {why}");
            decoded(client.get("/v1/catalog/services", &query), &failed)?
        }
        Some(node) => {
            let failed = |why| format!("Error listing services for node: {why}");
            let reply = client.get(&format!("/v1/catalog/node/{node}"), &query);
            let node: Option<NodeServices> = decoded(reply, &failed)?;
            let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for service in node.into_iter().flat_map(|n| n.services.into_values()) {
                by_name.entry(service.service).or_default().extend(service.tags.unwrap_or_default());
            }
            by_name
        }
    };
    if found.is_empty() {
        eprintln!("No services match the given query - try expanding your search.");
        return Ok(ExitCode::SUCCESS);
    }
    if !flags.is_on("tags") {
        found.keys().for_each(|name| println!("{name}"));
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<(String, String)> = found
        .iter_mut()
        .map(|(name, tags)| {
            tags.sort();
            tags.dedup();
            (name.clone(), tags.join(","))
        })
        .collect();
    println!("{}", table::pairs(&rows));
    Ok(ExitCode::SUCCESS)
}

/// The query of `-node-meta`.
fn node_meta(flags: &Parsed) -> Result<Vec<(&'static str, String)>, String> {
    let pair = |text: &str| match text.split_once('=') {
        Some((key, value)) => Ok(("node-meta", format!("{key}:{value}"))),
        None => Err(format!(
            "invalid value {text:?} for flag -node-meta: Missing \"=\" value in argument: {text}"
        )),
    };
    flags.values("node-meta").into_iter().map(pair).collect()
}

/// The decoded body of a 200.
fn decoded<T: for<'a> Deserialize<'a>>(
    reply: Result<Reply, String>,
    failed: &dyn Fn(String) -> String,
) -> Result<T, String> {
    let body = reply.and_then(Reply::ok).map_err(failed)?;
    serde_json::from_slice(&body).map_err(|why| failed(why.to_string()))
}

/// Refuses words after the flags.
fn no_arguments(flags: &Parsed) -> Result<(), String> {
    match flags.args.len() {
        0 => Ok(()),
        n => Err(format!("Too many arguments (expected 0, got {n})")),
    }
}
