//! `/v1/event/...`: user events, which all members are told once.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use muster_protocol::entry::ServerId;
use muster_protocol::http::Method;

use super::area::{name, reply};
use super::exchange::{Handled, Outcome, Request, Response, Wait};
use super::json::{Json, JsonWriter, name as framed};
use super::operator::await_fresh;
use super::router::Route;
use super::{Edge, limits, query};
use crate::config::Config;
use crate::edge::http::filter::go_pattern;
use crate::membership::{Event, EventFilters};
use crate::runtime::random::Rng;
use crate::runtime::{cores, time};

/// Firing: a server does it.
pub const FIRE: &[Route] = &[Route::new("/v1/event/fire/", &[Method::Put], fire)];

/// What this agent has heeded.
pub const LIST: &[Route] = &[Route::new("/v1/event/list", &[Method::Get], list)];

/// Version of the event's document.
const VERSION: u64 = 1;

/// So long rests who cannot be told of the next event, since too many wait for it, before it looks again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

fn fire(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let options = query::read_options(&config, request)?;
    edge.require_server()?;
    let name = name(request, "name")?;
    let filter = |parameter: &str| request.query.get(parameter).unwrap_or_default().to_owned();
    let filters = EventFilters { node: filter("node"), service: filter("service"), tag: filter("tag") };
    check(&filters).map_err(Response::internal)?;
    let event = Event::new(name.into_string(), request.body.clone(), filters);
    let (edge, pretty) = (edge.clone(), query::pretty(&config, request));
    Ok(Outcome::later(async move {
        // As in Consul: a cluster that has lost its leader says so, rather than that all is well.
        await_fresh(&edge, options.freshness).await?;
        let fired = edge.membership().fire(event.clone()).await;
        fired.map(|()| reply(pretty, &event)).map_err(|why| {
            let segment = "error broadcasting event to segment \"\"";
            Response::internal(format!("1 error occurred:\n\t* {segment}: {why}\n\n"))
        })
    }))
}

fn check(filters: &EventFilters) -> Result<(), String> {
    if !filters.tag.is_empty() && filters.service.is_empty() {
        return Err("Cannot provide tag filter without service filter".to_owned());
    }
    for (what, filter) in [("node", &filters.node), ("service", &filters.service), ("tag", &filters.tag)] {
        go_pattern(filter).map_err(|why| format!("Invalid {what} filter: {why}"))?;
    }
    Ok(())
}

/// The newest events that this agent heeds. Waits while the newest one is the one that the client knows: indexes of events do not grow.
fn list(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let options = query::read_options(&config, request)?;
    let wanted = request.query.get("name").unwrap_or_default().to_owned();
    let (edge, pretty) = (edge.clone(), query::pretty(&config, request));
    Ok(Outcome::later(async move {
        let until = options.wait.as_ref().map(|wait| time::now() + patience(&config, wait));
        loop {
            let log = edge.membership().events();
            let events: Vec<Arc<Event>> = log
                .events()
                .iter()
                .filter(|event| wanted.is_empty() || event.name == wanted)
                .cloned()
                .collect();
            // Not 0, with which a client would ask again at once.
            let index = events.last().map_or(1, |event| event.index());
            if let (Some(wait), Some(until)) = (&options.wait, until)
                && wait.index == index
                && time::now() < until
            {
                let next = async {
                    if !edge.membership().next_event(log.count()).await {
                        time::sleep(LOOK_AGAIN).await;
                    }
                };
                let _ = cores::either(next, time::sleep_until(until)).await;
                continue;
            }
            return Ok(reply(pretty, &events[..]).header("X-Consul-Index", index.to_string()));
        }
    }))
}

/// How long a query waits: what it asked for within bounds, and up to a sixteenth more.
fn patience(config: &Config, wait: &Wait) -> Duration {
    let asked = match wait.wait_ns {
        ns if ns > 0 => Duration::from_nanos(ns.unsigned_abs()).min(config.max_query_time),
        _ => config.default_query_time,
    };
    asked + (asked / limits::WAIT_JITTER_FRACTION).mul_f64(Rng::seeded().fraction())
}

impl Json for Event {
    fn write(&self, w: &mut JsonWriter) {
        w.object(|w| {
            w.field(framed!("ID")).text(&ServerId(self.id).to_string());
            w.field(framed!("Name")).text(&self.name);
            let w = w.field(framed!("Payload"));
            if self.payload.is_empty() {
                w.null()
            } else {
                w.base64(&self.payload)
            }
            w.field(framed!("NodeFilter")).text(&self.filters.node);
            w.field(framed!("ServiceFilter")).text(&self.filters.service);
            w.field(framed!("TagFilter")).text(&self.filters.tag);
            w.field(framed!("Version")).number(VERSION);
            w.field(framed!("LTime")).number(self.ltime);
        });
    }
}

impl<T: Json> Json for Arc<T> {
    fn write(&self, w: &mut JsonWriter) {
        T::write(self, w);
    }
}
