//! `/v1/health/...`: checks by node, service and state; instances with all that decides their health.

use std::rc::Rc;

use muster_protocol::http::Method;

use super::Edge;
use super::area::{Chosen, NodeMeta, name, rows};
use super::cached;
use super::exchange::{Handled, Outcome, Read, Request, Response};
use super::filter::ServiceEntry;
use super::filter::schema::{HEALTH_CHECK, SERVICE_ENTRY};
use super::json::{Json, service_entry};
use super::near::Near;
use super::query;
use super::router::Route;
use super::tags::Tags;
use crate::config::flags::go_bool;
use crate::store::model::{Check, Status};
use crate::store::topic::Topic;
use crate::store::{Instance, State};

/// The area's routes.
pub const ROUTES: &[Route] = &[
    Route::new("/v1/health/node/", &[Method::Get], node),
    Route::new("/v1/health/checks/", &[Method::Get], service_checks),
    Route::new("/v1/health/state/", &[Method::Get], state),
    Route::new("/v1/health/service/", &[Method::Get], service),
    Route::new("/v1/health/connect/", &[Method::Get], mesh),
    Route::new("/v1/health/ingress/", &[Method::Get], mesh),
];

fn node(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let options = query::read_options(&config, request)?;
    let pretty = query::pretty(&config, request);
    let name = name(request, "node name")?;
    let chosen = Chosen::of(request, HEALTH_CHECK)?;
    let topic = Topic::NodeChecks(name.clone());
    let render = move |state: &State| {
        let checks = state.node_checks(&name).filter(|check| chosen.takes(&***check));
        rows(pretty, checks, |w, check| check.write(w))
    };
    Ok(Outcome::Read(Read::new(topic, options, render).showing_consistency()))
}

fn service_checks(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let options = query::read_options(&config, request)?;
    let pretty = query::pretty(&config, request);
    let name = name(request, "service name")?;
    let chosen = Chosen::of(request, HEALTH_CHECK)?;
    let meta = NodeMeta::of(request);
    let near = Near::of(&config, request);
    // What nodes carry decides a narrowed answer, so it changes with them too.
    let topic = if meta.is_empty() { Topic::ServiceChecks(name.clone()) } else { Topic::Catalog };
    let render = move |state: &State| {
        let checks = state.service_checks(&name);
        let checks = checks.filter(|check| on(state, &meta, check) && chosen.takes(&***check));
        rows(pretty, near.order(state, checks, |check| &check.node), |w, check| check.write(w))
    };
    Ok(Outcome::Read(Near::mark(request, Read::new(topic, options, render).showing_consistency())))
}

fn state(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let options = query::read_options(&config, request)?;
    let pretty = query::pretty(&config, request);
    let word = name(request, "check state")?;
    let chosen = Chosen::of(request, HEALTH_CHECK)?;
    let meta = NodeMeta::of(request);
    let status = Status::parse(&word);
    // A word that names no state is a state nobody is in.
    let nobody = status.is_none() && &*word != "any";
    let near = Near::of(&config, request);
    // What nodes carry decides a narrowed answer, so it changes with them too.
    let topic = if meta.is_empty() { Topic::CheckState(status) } else { Topic::Catalog };
    let render = move |state: &State| {
        let stays = |check: &&std::sync::Arc<Check>| on(state, &meta, check) && chosen.takes(&***check);
        match status {
            Some(status) => {
                let checks =
                    near.order(state, state.checks_in_state(status).filter(stays), |check| &check.node);
                rows(pretty, checks, |w, check| check.write(w))
            }
            None if nobody => rows(pretty, [], |w, check: &Check| check.write(w)),
            None => {
                let checks = near.order(state, state.checks().filter(stays), |check| &check.node);
                rows(pretty, checks, |w, check| check.write(w))
            }
        }
    };
    Ok(Outcome::Read(Near::mark(request, Read::new(topic, options, render).showing_consistency())))
}

pub(super) fn service(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let options = query::read_options(&config, request)?;
    let pretty = query::pretty(&config, request);
    let name = name(request, "service name")?;
    let chosen = Chosen::of(request, SERVICE_ENTRY)?;
    let passing = only_passing(request)?;
    let meta = NodeMeta::of(request);
    let tags = Tags::of(request);
    let near = Near::of(&config, request);
    let topic = Topic::ServiceHealth(name.clone());
    let render = move |state: &State| {
        let instances = state.instances(&name).filter(|instance| {
            meta.on(instance.node)
                && tags.on(instance.service)
                && (!passing || is_passing(instance))
                && takes(&chosen, instance)
        });
        rows(pretty, near.order(state, instances, |instance| &instance.node.node), |w, instance| {
            service_entry(w, instance.node, instance.service, instance.checks().map(|check| &**check));
        })
    };
    let read = Near::mark(request, Read::new(topic, options, render).showing_consistency());
    Ok(Outcome::Read(cached::mark(edge, request, read)))
}

/// Instances of the service mesh: there are none.
fn mesh(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let options = query::read_options(&config, request)?;
    let pretty = query::pretty(&config, request);
    let name = name(request, "service name")?;
    Chosen::of(request, SERVICE_ENTRY)?;
    only_passing(request)?;
    let render = move |_: &State| rows(pretty, [], |w, check: &Check| check.write(w));
    Ok(Outcome::Read(cached::mark(
        edge,
        request,
        Read::new(Topic::ServiceHealth(name), options, render).showing_consistency(),
    )))
}

/// Whether all checks of an instance and of its node pass.
pub fn is_passing(instance: &Instance<'_>) -> bool {
    instance.checks().all(|check| check.status == Status::Passing)
}

fn takes(chosen: &Chosen, instance: &Instance<'_>) -> bool {
    if chosen.all() {
        return true;
    }
    let checks: Vec<&Check> = instance.checks().map(|check| &**check).collect();
    chosen.takes(&ServiceEntry { node: instance.node, service: instance.service, checks: &checks })
}

fn on(state: &State, meta: &NodeMeta, check: &Check) -> bool {
    meta.is_empty() || state.node(&check.node).is_some_and(|node| meta.on(node))
}

/// `?passing`, with or without a value.
fn only_passing(request: &Request) -> Result<bool, Response> {
    match request.query.get("passing") {
        None => Ok(false),
        Some("") => Ok(true),
        Some(text) => go_bool(text).ok_or_else(|| Response::bad_request("Invalid value for ?passing")),
    }
}
