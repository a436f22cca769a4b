//! `/v1/catalog/...`: the nodes and services that are registered, and registering them.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use muster_protocol::http::Method;

use super::Edge;
use super::area::{Chosen, NodeMeta, name, reply, rows, write};
use super::cached;
use super::catalog_body;
use super::exchange::{Handled, Outcome, Read, Request, Response};
use super::filter::CatalogService;
use super::filter::schema::{CATALOG_SERVICE, NODE, NODE_SERVICE};
use super::json::{Json, JsonWriter, catalog_service, name as framed};
use super::near::Near;
use super::query;
use super::router::Route;
use super::tags::Tags;
use crate::store::State;
use crate::store::command::{CatalogOp, Command};
use crate::store::model::Service;
use crate::store::topic::Topic;

/// The area's routes.
pub const ROUTES: &[Route] = &[
    Route::new("/v1/catalog/register", &[Method::Put], register),
    Route::new("/v1/catalog/deregister", &[Method::Put], deregister),
    Route::new("/v1/catalog/datacenters", &[Method::Get], datacenters),
    Route::new("/v1/catalog/nodes", &[Method::Get], nodes),
    Route::new("/v1/catalog/services", &[Method::Get], services),
    Route::new("/v1/catalog/service/", &[Method::Get], service),
    Route::new("/v1/catalog/connect/", &[Method::Get], mesh),
    Route::new("/v1/catalog/gateway-services/", &[Method::Get], gateway_services),
    Route::new("/v1/catalog/node/", &[Method::Get], node),
    Route::new("/v1/catalog/node-services/", &[Method::Get], node_services),
];

fn register(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    query::no_namespace(request)?;
    let register = catalog_body::register(&request.body, &config.datacenter)?;
    let pretty = query::pretty(&config, request);
    let command = Command::Catalog(CatalogOp::Register(Box::new(register)));
    Ok(write(edge, command, move |_| Ok(reply(pretty, &true))))
}

fn deregister(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    query::no_namespace(request)?;
    let deregister = catalog_body::deregister(&request.body, &config.datacenter)?;
    let pretty = query::pretty(&config, request);
    let command = Command::Catalog(CatalogOp::Deregister(deregister));
    Ok(write(edge, command, move |_| Ok(reply(pretty, &true))))
}

/// The known datacenters, nearest first: this one.
fn datacenters(edge: &Rc<Edge>, request: &Request) -> Handled {
    edge.require_server()?;
    let config = edge.config();
    query::no_namespace(request)?;
    let response = reply(query::pretty(&config, request), std::slice::from_ref(&config.datacenter));
    let from_cache = request.query.has("cached") && config.http.use_cache;
    Ok(if from_cache { cached::mark_response(edge, request, response) } else { response }.into())
}

fn nodes(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let options = query::read_options(&config, request)?;
    let pretty = query::pretty(&config, request);
    let chosen = Chosen::of(request, NODE)?;
    let meta = NodeMeta::of(request);
    let near = Near::of(&config, request);
    let render = move |state: &State| {
        let nodes = state.nodes().filter(|node| meta.on(node) && chosen.takes(&***node));
        rows(pretty, near.order(state, nodes, |node| &node.node), |w, node| node.write(w))
    };
    Ok(Outcome::Read(Near::mark(request, Read::new(Topic::Nodes, options, render).showing_consistency())))
}

pub(super) fn services(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let options = query::read_options(&config, request)?;
    let pretty = query::pretty(&config, request);
    let meta = NodeMeta::of(request);
    // What nodes carry decides a narrowed answer, so it changes with them too.
    let topic = if meta.is_empty() { Topic::Services } else { Topic::Catalog };
    let render = move |state: &State| {
        let mut w = JsonWriter::new(pretty);
        if meta.is_empty() {
            w.object(|w| {
                for (name, tags) in state.services() {
                    w.key(name).array(tags, |w, tag| w.text(tag));
                }
            });
        } else {
            w.object(|w| {
                for (name, tags) in services_on(state, &meta) {
                    w.key(name).array(tags, |w, tag| w.text(tag));
                }
            });
        }
        Response::json_bytes(w.finish())
    };
    Ok(Outcome::Read(cached::mark(edge, request, Read::new(topic, options, render).showing_consistency())))
}

/// Names and tags of the services on nodes with some metadata.
fn services_on<'s>(state: &'s State, meta: &NodeMeta) -> BTreeMap<&'s str, BTreeSet<&'s str>> {
    let mut services: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for node in state.nodes().filter(|node| meta.on(node)) {
        for service in state.node_services(&node.node) {
            services.entry(&service.name).or_default().extend(service.tags.iter().map(String::as_str));
        }
    }
    services
}

pub(super) fn service(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let options = query::read_options(&config, request)?;
    let pretty = query::pretty(&config, request);
    let name = name(request, "service name")?;
    let chosen = Chosen::of(request, CATALOG_SERVICE)?;
    let meta = NodeMeta::of(request);
    let tags = Tags::of(request);
    let near = Near::of(&config, request);
    let topic = Topic::ServiceInstances(name.clone());
    let render = move |state: &State| {
        let instances = state.instances(&name).filter(|instance| {
            meta.on(instance.node)
                && tags.on(instance.service)
                && chosen.takes(&CatalogService { node: instance.node, service: instance.service })
        });
        let instances = near.order(state, instances, |instance| &instance.node.node);
        rows(pretty, instances, |w, instance| catalog_service(w, instance.node, instance.service))
    };
    let read = Near::mark(request, Read::new(topic, options, render).showing_consistency());
    Ok(Outcome::Read(cached::mark(edge, request, read)))
}

/// Proxies of the service mesh for a service: there are none.
fn mesh(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let options = query::read_options(&config, request)?;
    let pretty = query::pretty(&config, request);
    let name = name(request, "service name")?;
    Chosen::of(request, CATALOG_SERVICE)?;
    let render = move |_: &State| rows(pretty, [], |w, service: &Service| service.write(w));
    Ok(Outcome::Read(cached::mark(
        edge,
        request,
        Read::new(Topic::ServiceInstances(name), options, render).showing_consistency(),
    )))
}

/// Services behind a gateway of the service mesh: there is no gateway.
fn gateway_services(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let options = query::read_options(&config, request)?;
    let pretty = query::pretty(&config, request);
    let name = name(request, "gateway name")?;
    let render = move |_: &State| reply(pretty, &None::<bool>);
    Ok(Outcome::Read(Read::new(Topic::ServiceInstances(name), options, render).showing_consistency()))
}

pub(super) fn node(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let options = query::read_options(&config, request)?;
    let pretty = query::pretty(&config, request);
    let name = name(request, "node name")?;
    let chosen = Chosen::of(request, NODE_SERVICE)?;
    let topic = Topic::Node(name.clone());
    let render = move |state: &State| {
        let mut w = JsonWriter::new(pretty);
        match state.node(&name) {
            None => w.null(),
            Some(node) => w.object(|w| {
                node.write(w.field(framed!("Node")));
                let services = state.node_services(&name).filter(|service| chosen.takes(&***service));
                let by_id: BTreeMap<&str, &Arc<Service>> =
                    services.map(|service| (service.id.as_str(), service)).collect();
                w.field(framed!("Services"))
                    .object(|w| by_id.iter().for_each(|(id, service)| service.write(w.key(id))));
            }),
        }
        Response::json_bytes(w.finish())
    };
    Ok(Outcome::Read(Read::new(topic, options, render).showing_consistency()))
}

pub(super) fn node_services(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let options = query::read_options(&config, request)?;
    let pretty = query::pretty(&config, request);
    let name = name(request, "node name")?;
    let chosen = Chosen::of(request, NODE_SERVICE)?;
    let topic = Topic::Node(name.clone());
    let render = move |state: &State| {
        let mut w = JsonWriter::new(pretty);
        w.object(|w| {
            let node = state.node(&name);
            match node {
                Some(node) => node.write(w.field(framed!("Node"))),
                None => w.field(framed!("Node")).null(),
            }
            let mut services = state.node_services(&name).peekable();
            // Consul shows a list that never was as null, and one that a filter emptied as empty.
            if services.peek().is_none() && (chosen.all() || node.is_none()) {
                w.field(framed!("Services")).null();
            } else {
                let services = services.filter(|service| chosen.takes(&***service));
                w.field(framed!("Services")).array(services, |w, service| service.write(w));
            }
        });
        Response::json_bytes(w.finish())
    };
    Ok(Outcome::Read(Read::new(topic, options, render).showing_consistency()))
}
