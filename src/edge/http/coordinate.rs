//! `/v1/coordinate/...`: where nodes are in the space of round trips.

use std::rc::Rc;

use muster_protocol::gossip::coordinate::{Coordinate, DIMENSIONS};
use muster_protocol::http::Method;
use serde_json::Value;

use super::area::{name, rows};
use super::exchange::{Handled, Outcome, Read, Request, Response};
use super::json::{Json, JsonWriter, name as framed};
use super::router::Route;
use super::{Edge, decode, query};
use crate::store::command::Place;
use crate::store::topic::Topic;
use crate::store::{Located, State, parts_of};

/// The area's routes.
pub const ROUTES: &[Route] = &[
    Route::new("/v1/coordinate/datacenters", &[Method::Get], datacenters),
    Route::new("/v1/coordinate/nodes", &[Method::Get], nodes),
    Route::new("/v1/coordinate/node/", &[Method::Get], node),
    Route::new("/v1/coordinate/update", &[Method::Put], update),
];

/// # Errors
/// They are off.
fn require(edge: &Edge) -> Result<(), Response> {
    if edge.config().disable_coordinates {
        return Err(Response::text(401, "Coordinate support disabled"));
    }
    Ok(())
}

/// The servers of the WAN pool, by datacenter: this one, alone in it.
fn datacenters(edge: &Rc<Edge>, request: &Request) -> Handled {
    require(edge)?;
    edge.require_server()?;
    let config = edge.config();
    let mut w = JsonWriter::new(query::pretty(&config, request));
    w.array([()], |w, ()| {
        w.object(|w| {
            w.field(framed!("Datacenter")).text(&config.datacenter);
            w.field(framed!("AreaID")).text("wan");
            w.field(framed!("Coordinates")).array([()], |w, ()| {
                write(w, &config.node_name, "", &Coordinate::default());
            });
        });
    });
    Ok(Response::json_bytes(w.finish()).into())
}

fn nodes(edge: &Rc<Edge>, request: &Request) -> Handled {
    require(edge)?;
    let config = edge.config();
    let (options, pretty) = (query::read_options(&config, request)?, query::pretty(&config, request));
    let segment = request.query.get("segment").map(str::to_owned);
    let render = move |state: &State| {
        let chosen = state.coordinates().filter(|row| in_segment(row, &segment));
        rows(pretty, chosen, |w, row| row.write(w))
    };
    Ok(Outcome::Read(Read::new(Topic::Coordinates, options, render)))
}

fn node(edge: &Rc<Edge>, request: &Request) -> Handled {
    require(edge)?;
    let config = edge.config();
    let (options, pretty) = (query::read_options(&config, request)?, query::pretty(&config, request));
    let name = name(request, "node name")?;
    let segment = request.query.get("segment").map(str::to_owned);
    let render = move |state: &State| {
        let mut chosen = state.coordinates_of(&name).filter(|row| in_segment(row, &segment)).peekable();
        if chosen.peek().is_none() {
            return Response::empty(404);
        }
        rows(pretty, chosen, |w, row| row.write(w))
    };
    Ok(Outcome::Read(Read::new(Topic::Coordinates, options, render).silent_of_absence()))
}

fn in_segment(row: &Located, segment: &Option<String>) -> bool {
    segment.as_ref().is_none_or(|segment| *row.segment == **segment)
}

fn update(edge: &Rc<Edge>, request: &Request) -> Handled {
    require(edge)?;
    let config = edge.config();
    let place =
        place(&request.body).map_err(|why| Response::bad_request(format!("Request decode failed: {why}")))?;
    query::write_options(&config, request)?;
    edge.require_server()?;
    let place = place.map_err(Response::internal)?;
    let edge = edge.clone();
    Ok(Outcome::later(async move {
        let taken = edge.membership().locate(place).await;
        taken.map(|()| Response::empty(200)).map_err(Response::internal)
    }))
}

/// The outer error: it is no such document; the inner one: nothing can be there.
fn place(body: &[u8]) -> Result<Result<Place, String>, String> {
    let value = decode::body(body)?;
    let Value::Object(fields) = &value else { return Err("the body is no object".to_owned()) };
    let field = |name: &str| fields.iter().find(|(given, _)| given.eq_ignore_ascii_case(name));
    let text = |name: &str| field(name).and_then(|(_, value)| value.as_str()).unwrap_or_default().to_owned();
    let coordinate = match field("Coord").map(|(_, value)| value) {
        Some(Value::Object(parts)) => parts,
        _ => return Ok(Err("invalid coordinate".to_owned())),
    };
    let part = |name: &str| coordinate.iter().find(|(given, _)| given.eq_ignore_ascii_case(name));
    let number = |name: &str| part(name).and_then(|(_, value)| value.as_f64()).unwrap_or(0.0);
    let vec = part("Vec").and_then(|(_, value)| value.as_array()).map_or(&[][..], Vec::as_slice);
    if vec.len() != DIMENSIONS {
        return Ok(Err("incompatible coordinate".to_owned()));
    }
    let mut at = Coordinate {
        error: number("Error"),
        adjustment: number("Adjustment"),
        height: number("Height"),
        ..Coordinate::default()
    };
    for (place, value) in at.position.iter_mut().zip(vec) {
        *place = value.as_f64().unwrap_or(f64::NAN);
    }
    if !at.is_plausible() {
        return Ok(Err("invalid coordinate".to_owned()));
    }
    Ok(Ok(Place { node: text("Node"), segment: text("Segment"), parts: parts_of(&at) }))
}

impl Json for Located {
    fn write(&self, w: &mut JsonWriter) {
        write(w, &self.node, &self.segment, &self.coordinate);
    }
}

fn write(w: &mut JsonWriter, node: &str, segment: &str, at: &Coordinate) {
    w.object(|w| {
        w.field(framed!("Node")).text(node);
        w.field(framed!("Segment")).text(segment);
        write_coordinate(w.field(framed!("Coord")), at);
    });
}

/// A coordinate by itself.
pub(super) fn write_coordinate(w: &mut JsonWriter, at: &Coordinate) {
    w.object(|w| {
        w.field(framed!("Vec")).array(at.position, |w, part| w.float(part));
        w.field(framed!("Error")).float(at.error);
        w.field(framed!("Adjustment")).float(at.adjustment);
        w.field(framed!("Height")).float(at.height);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_member_can_have_is_refused() {
        let read = |body: &str| place(body.as_bytes()).expect("a document");
        let taken = read(r#"{"Node":"n","Coord":{"Vec":[0.5,0,0,0,0,0,0,1],"Error":1.5,"Height":1e-05}}"#);
        let taken = taken.expect("a place");
        assert_eq!(
            (taken.node.as_str(), taken.parts[0], taken.parts[7], taken.parts[10]),
            ("n", 0.5, 1.0, 1e-5)
        );
        assert_eq!(read("{}"), Err("invalid coordinate".to_owned()));
        assert_eq!(read(r#"{"Coord":{"Vec":[1]}}"#), Err("incompatible coordinate".to_owned()));
        let far = r#"{"Coord":{"Vec":[1e300,0,0,0,0,0,0,0]}}"#;
        assert_eq!(read(far), Err("invalid coordinate".to_owned()));
        assert!(place(b"junk").is_err());
    }
}
