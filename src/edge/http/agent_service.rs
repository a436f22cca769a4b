//! `/v1/agent/service...` and `/v1/agent/health/service/...`: the local agent's services and their health.

use std::rc::Rc;
use std::time::Duration;

use muster_protocol::http::Method;

use super::Edge;
use super::agent_check::{change, chosen, refusal};
use super::exchange::{Handled, Outcome, Request, Response};
use super::filter::schema::AGENT_SERVICE;
use super::json::{Json, JsonWriter};
use super::query;
use super::router::Route;
use crate::agent::{Aggregate, LocalService, LocalState, door};
use crate::config::definition::ServiceDefinition;
use crate::config::duration;
use crate::store::model::Check;

/// The area's routes.
pub const ROUTES: &[Route] = &[
    Route::new("/v1/agent/services", &[Method::Get], services),
    Route::new("/v1/agent/service/", &[Method::Get], service),
    Route::new("/v1/agent/service/register", &[Method::Put], register),
    Route::new("/v1/agent/service/deregister/", &[Method::Put], deregister),
    Route::new("/v1/agent/service/maintenance/", &[Method::Put], maintenance),
    Route::new("/v1/agent/health/service/id/", &[Method::Get], health_by_id),
    Route::new("/v1/agent/health/service/name/", &[Method::Get], health_by_name),
];

/// A service as the local agent shows it.
fn write_service(w: &mut JsonWriter, service: &LocalService, with_hash: bool) {
    let row = &service.row;
    w.object(|w| {
        if !row.kind.is_empty() {
            w.key("Kind").text(&row.kind);
        }
        w.key("ID").text(&row.id);
        w.key("Service").text(&row.name);
        row.tags[..].write(w.key("Tags"));
        row.meta.clone().unwrap_or_default().write(w.key("Meta"));
        w.key("Port").number(row.port);
        w.key("Address").text(&row.address);
        if let Some(tagged) = row.tagged_addresses.as_ref().filter(|tagged| !tagged.is_empty()) {
            w.key("TaggedAddresses").object(|w| tagged.iter().for_each(|(tag, at)| at.write(w.key(tag))));
        }
        row.weights.write(w.key("Weights"));
        w.key("EnableTagOverride").flag(row.enable_tag_override);
        if with_hash {
            w.key("ContentHash").text(&service.hash);
        }
    });
}

fn services(edge: &Rc<Edge>, request: &Request) -> Handled {
    query::no_namespace(request)?;
    let filter = chosen(request, AGENT_SERVICE)?;
    let local = edge.local();
    let mut w = JsonWriter::new(query::pretty(&edge.config(), request));
    w.object(|w| {
        for (id, service) in &local.services {
            if filter.as_ref().is_none_or(|filter| filter.matches(&*service.row)) {
                write_service(w.key(id), service, false);
            }
        }
    });
    Ok(Response::json_bytes(w.finish()).into())
}

/// One service; with `?hash=` of what the client knows, once it is another one or the wait is over.
fn service(edge: &Rc<Edge>, request: &Request) -> Handled {
    query::no_namespace(request)?;
    let config = edge.config();
    let id = request.rest_str().into_owned();
    let pretty = query::pretty(&config, request);
    let wait = match request.query.filled("wait") {
        Some(text) => duration::parse(text).map_err(|_| Response::bad_request("Invalid wait time"))?,
        None => 0,
    };
    let wait = match u64::try_from(wait) {
        Ok(ns) if ns > 0 => Duration::from_nanos(ns).min(config.max_query_time),
        _ => config.default_query_time,
    };
    let hash = request.query.get("hash").unwrap_or_default().to_owned();
    let local = edge.local();
    let known = local.services.get(&id).is_some_and(|service| service.hash == hash);
    if !known {
        return Ok(one_service(&local, &id, pretty).into());
    }
    let edge = edge.clone();
    Ok(Outcome::later(async move {
        let request = door::Request::AwaitService { id: id.clone(), hash, wait };
        edge.agent().ask(request).await.map_err(|refused| refusal(&refused))?;
        Ok(one_service(&edge.local(), &id, pretty))
    }))
}

fn one_service(local: &LocalState, id: &str, pretty: bool) -> Response {
    let Some(service) = local.services.get(id) else {
        return Response::text(404, format!("unknown service ID: {id}"));
    };
    let mut w = JsonWriter::new(pretty);
    write_service(&mut w, service, true);
    Response::json_bytes(w.finish()).header("X-Consul-ContentHash", service.hash.clone())
}

fn register(edge: &Rc<Edge>, request: &Request) -> Handled {
    query::no_namespace(request)?;
    let definition =
        ServiceDefinition::from_api(&request.body).map_err(|why| Response::bad_request(why.to_string()))?;
    let replace_checks = matches!(request.query.get("replace-existing-checks"), Some("" | "true"));
    Ok(change(edge, door::Request::RegisterService { definition: Box::new(definition), replace_checks }))
}

fn deregister(edge: &Rc<Edge>, request: &Request) -> Handled {
    query::no_namespace(request)?;
    Ok(change(edge, door::Request::DeregisterService { id: request.rest_str().into_owned() }))
}

fn maintenance(edge: &Rc<Edge>, request: &Request) -> Handled {
    query::no_namespace(request)?;
    let id = request.rest_str().into_owned();
    if id.is_empty() {
        return Err(Response::bad_request("Missing service ID"));
    }
    let (enable, reason) = maintenance_parameters(request)?;
    Ok(change(edge, door::Request::ServiceMaintenance { id, enable, reason }))
}

/// `?enable` and `?reason`, for a service or for the node.
pub(super) fn maintenance_parameters(request: &Request) -> Result<(bool, String), Response> {
    let enable =
        request.query.get("enable").ok_or_else(|| Response::bad_request("Missing value for enable"))?;
    let enable = match enable {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
        other => return Err(Response::bad_request(format!("Invalid value for enable: {other:?}"))),
    };
    Ok((enable, request.query.get("reason").unwrap_or_default().to_owned()))
}

/// Whether the health is asked for as a word.
fn wants_text(request: &Request) -> bool {
    let accepts_text = || request.header("Accept") == Some("text/plain");
    match request.query.filled("format") {
        Some(format) => format == "text",
        None => accepts_text(),
    }
}

fn health_status(health: Aggregate) -> u16 {
    match health {
        Aggregate::Passing => 200,
        Aggregate::Warning => 429,
        Aggregate::Critical | Aggregate::Maintenance => 503,
    }
}

fn health_by_id(edge: &Rc<Edge>, request: &Request) -> Handled {
    query::no_namespace(request)?;
    let id = request.rest_str();
    if id.is_empty() {
        return Err(Response::internal("Bad request: Missing serviceID"));
    }
    let local = edge.local();
    let mut w = JsonWriter::new(query::pretty(&edge.config(), request));
    let Some(service) = local.services.get(&*id) else {
        let reason = format!("ServiceId {id} not found");
        if wants_text(request) {
            w.text(&reason);
        } else {
            w.object(|w| {
                w.key("AggregatedStatus").text("critical");
                w.key("Service").null();
                w.key("Checks").null();
            });
        }
        return Ok(json(404, w).header("X-Consul-Reason", reason).into());
    };
    let health = local.health_of(&id);
    let word = health.as_str();
    let response = if wants_text(request) {
        Response::with_type(health_status(health), "text/plain", word)
    } else {
        write_health(&mut w, &local, service, health);
        json(health_status(health), w)
    };
    Ok(response.header("X-Consul-Reason", word).into())
}

fn health_by_name(edge: &Rc<Edge>, request: &Request) -> Handled {
    query::no_namespace(request)?;
    let name = request.rest_str();
    if name.is_empty() {
        return Err(Response::internal("Bad request: Missing service Name"));
    }
    let local = edge.local();
    let mut instances: Vec<_> = local
        .services
        .values()
        .filter(|service| service.row.name == *name)
        .map(|service| (local.health_of(&service.row.id), service))
        .collect();
    // The worst first, as Consul gathers them.
    instances.sort_by_key(|(health, _)| std::cmp::Reverse(*health));
    let (status, reason) = match instances.first() {
        Some((worst, _)) => (health_status(*worst), worst.as_str().to_owned()),
        None => (404, format!("ServiceName {name} Not Found")),
    };
    let response = if wants_text(request) {
        Response::with_type(status, "text/plain", reason.clone())
    } else {
        let mut w = JsonWriter::new(query::pretty(&edge.config(), request));
        w.array(&instances, |w, (health, service)| write_health(w, &local, service, *health));
        json(status, w)
    };
    Ok(response.header("X-Consul-Reason", reason).into())
}

fn json(status: u16, w: JsonWriter) -> Response {
    Response::with_type(status, "application/json", w.finish())
}

fn write_health(w: &mut JsonWriter, local: &LocalState, service: &LocalService, health: Aggregate) {
    w.object(|w| {
        w.key("AggregatedStatus").text(health.as_str());
        write_service(w.key("Service"), service, false);
        w.key("Checks").array(local.checks_of(&service.row.id), |w, check| write_health_check(w, &check.row));
    });
}

/// A check without what this endpoint leaves out (tags, type), and with an unset definition spelled out.
fn write_health_check(w: &mut JsonWriter, check: &Check) {
    w.object(|w| {
        w.key("Node").text(&check.node);
        w.key("CheckID").text(&check.check_id);
        w.key("Name").text(&check.name);
        w.key("Status").text(check.status.as_str());
        w.key("Notes").text(&check.notes);
        w.key("Output").text(&check.output);
        w.key("ServiceID").text(&check.service_id);
        w.key("ServiceName").text(&check.service_name);
        w.key("ServiceTags").null();
        w.key("Type").text("");
        w.key("Definition").object(|w| {
            for unset in ["Interval", "Timeout", "DeregisterCriticalServiceAfter"] {
                w.key(unset).text("0s");
            }
            w.key("HTTP").text("");
            w.key("Header").null();
            w.key("Method").text("");
            w.key("Body").text("");
            w.key("TLSSkipVerify").flag(false);
            w.key("TCP").text("");
        });
        w.key("CreateIndex").number(0);
        w.key("ModifyIndex").number(0);
    });
}
