//! `/v1/internal/ui/...`: the overviews that the web page of Consul is drawn from.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use muster_protocol::http::Method;

use super::Edge;
use super::area::{Chosen, name, rows};
use super::exchange::{Handled, Outcome, Read, Request, Response};
use super::filter::schema::{NODE_INFO, SERVICE_ENTRY};
use super::filter::{NodeInfo, ServiceEntry};
use super::json::{Json, JsonWriter, name as framed};
use super::query;
use super::router::Route;
use crate::store::model::{Check, Node, Service, Status};
use crate::store::topic::Topic;
use crate::store::{Instance, State};

/// The area's routes.
pub const ROUTES: &[Route] = &[
    Route::new("/v1/internal/ui/nodes", &[Method::Get], nodes),
    Route::new("/v1/internal/ui/node/", &[Method::Get], node),
    Route::new("/v1/internal/ui/services", &[Method::Get], services),
];

fn nodes(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let options = query::read_options(&config, request)?;
    let pretty = query::pretty(&config, request);
    let chosen = Chosen::of(request, NODE_INFO)?;
    let render = move |state: &State| {
        let nodes = state.nodes().map(|node| Whole::of(state, node)).filter(|whole| {
            let Whole { node, services, checks } = whole;
            chosen.takes(&NodeInfo { node, services, checks })
        });
        rows(pretty, nodes, |w, whole| whole.write(w))
    };
    Ok(Outcome::Read(Read::new(Topic::Catalog, options, render)))
}

fn node(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let options = query::read_options(&config, request)?;
    let pretty = query::pretty(&config, request);
    let name = name(request, "node name")?;
    // Consul answers for an unknown node at once and without an index.
    if edge.state().node(&name).is_none() {
        return Err(Response::empty(404));
    }
    let render = move |state: &State| match state.node(&name) {
        None => Response::empty(404),
        Some(node) => {
            let mut w = JsonWriter::new(pretty);
            Whole::of(state, node).write(&mut w);
            Response::json_bytes(w.finish())
        }
    };
    Ok(Outcome::Read(Read::new(Topic::Catalog, options, render)))
}

fn services(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let options = query::read_options(&config, request)?;
    let pretty = query::pretty(&config, request);
    let chosen = Chosen::of(request, SERVICE_ENTRY)?;
    let render = move |state: &State| {
        let summaries = summarise(state, &chosen);
        rows(pretty, summaries, |w, (name, summary)| summary.write(w, name))
    };
    Ok(Outcome::Read(Read::new(Topic::Catalog, options, render)))
}

/// A node with all that is on it.
struct Whole<'s> {
    node: &'s Node,
    services: Vec<&'s Service>,
    checks: Vec<&'s Check>,
}

impl<'s> Whole<'s> {
    fn of(state: &'s State, node: &'s Node) -> Whole<'s> {
        Whole {
            node,
            services: state.node_services(&node.node).map(|service| &**service).collect(),
            checks: state.node_checks(&node.node).map(|check| &**check).collect(),
        }
    }

    fn write(&self, w: &mut JsonWriter) {
        w.object(|w| {
            w.field(framed!("ID")).text(&self.node.id);
            w.field(framed!("Node")).text(&self.node.node);
            w.field(framed!("Address")).text(&self.node.address);
            self.node.tagged_addresses.write(w.field(framed!("TaggedAddresses")));
            self.node.meta.write(w.field(framed!("Meta")));
            w.field(framed!("Services")).array(&self.services, |w, service| service.write(w));
            w.field(framed!("Checks")).array(&self.checks, |w, check| check.write(w));
        });
    }
}

/// What is shown of all instances of one service together.
#[derive(Default)]
struct Summary<'s> {
    kind: &'s str,
    tags: BTreeSet<&'s str>,
    nodes: Vec<&'s str>,
    sources: Vec<&'s str>,
    passing: u64,
    warning: u64,
    critical: u64,
}

impl<'s> Summary<'s> {
    fn add(&mut self, instance: &Instance<'s>) {
        let service: &'s Service = instance.service;
        self.kind = &service.kind;
        self.tags.extend(service.tags.iter().map(String::as_str));
        self.nodes.push(&instance.node.node);
        let source = service.meta.as_ref().and_then(|meta| meta.get("external-source"));
        if let Some(source) = source.filter(|source| !source.is_empty())
            && !self.sources.contains(&source.as_str())
        {
            self.sources.push(source);
        }
        for check in instance.checks() {
            match check.status {
                Status::Passing => self.passing += 1,
                Status::Warning => self.warning += 1,
                Status::Critical => self.critical += 1,
            }
        }
    }

    fn write(&self, w: &mut JsonWriter, name: &str) {
        w.object(|w| {
            if !self.kind.is_empty() {
                w.field(framed!("Kind")).text(self.kind);
            }
            w.field(framed!("Name")).text(name);
            match self.tags.is_empty() {
                true => w.field(framed!("Tags")).null(),
                false => w.field(framed!("Tags")).array(&self.tags, |w, tag| w.text(tag)),
            }
            w.field(framed!("Nodes")).array(&self.nodes, |w, node| w.text(node));
            w.field(framed!("InstanceCount")).number(self.nodes.len() as u64);
            w.field(framed!("ChecksPassing")).number(self.passing);
            w.field(framed!("ChecksWarning")).number(self.warning);
            w.field(framed!("ChecksCritical")).number(self.critical);
            match self.sources.is_empty() {
                true => w.field(framed!("ExternalSources")).null(),
                false => w.field(framed!("ExternalSources")).array(&self.sources, |w, source| w.text(source)),
            }
            w.field(framed!("GatewayConfig")).object(|_| ());
        });
    }
}

fn summarise<'s>(state: &'s State, chosen: &Chosen) -> BTreeMap<&'s str, Summary<'s>> {
    let mut summaries: BTreeMap<&str, Summary<'_>> = BTreeMap::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (spelling, _) in state.services() {
        // Spellings that differ in letter case share their instances.
        if !seen.insert(spelling.to_lowercase()) {
            continue;
        }
        for instance in state.instances(spelling) {
            let checks: Vec<&Check> = instance.checks().map(|check| &**check).collect();
            let row = ServiceEntry { node: instance.node, service: instance.service, checks: &checks };
            if chosen.takes(&row) {
                let service: &'s Service = instance.service;
                summaries.entry(&service.name).or_default().add(&instance);
            }
        }
    }
    summaries
}
