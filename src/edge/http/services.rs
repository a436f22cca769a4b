//! `/v1/services/NAME`: the instances of a service that are fit for work, and nothing else. Rows are those of
//! `/v1/catalog/service/NAME`.

use std::rc::Rc;

use muster_protocol::http::Method;

use super::Edge;
use super::area::{Chosen, name, rows};
use super::exchange::{Handled, Outcome, Read, Request};
use super::filter::CatalogService;
use super::filter::schema::CATALOG_SERVICE;
use super::health::is_passing;
use super::json::catalog_service;
use super::query;
use super::router::Route;
use super::tags::Tags;
use crate::store::State;
use crate::store::topic::Topic;

/// The area's routes.
pub const ROUTES: &[Route] = &[Route::new("/v1/services/", &[Method::Get], healthy)];

fn healthy(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let options = query::read_options(&config, request)?;
    let pretty = query::pretty(&config, request);
    let name = name(request, "service name")?;
    let chosen = Chosen::of(request, CATALOG_SERVICE)?;
    let tags = Tags::of(request);
    let topic = Topic::ServiceHealth(name.clone());
    let render = move |state: &State| {
        let instances = state.instances(&name).filter(|instance| {
            is_passing(instance)
                && tags.on(instance.service)
                && chosen.takes(&CatalogService { node: instance.node, service: instance.service })
        });
        rows(pretty, instances, |w, instance| catalog_service(w, instance.node, instance.service))
    };
    Ok(Outcome::Read(Read::new(topic, options, render).showing_consistency()))
}
