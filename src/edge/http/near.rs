//! `?near=NODE`: rows of the nearest nodes first, by their network coordinates. `_agent` is this agent's node, `_ip` the node at the
//! client's address.
//!
//! Rows of nodes without a known distance keep their order behind the others, as in Consul. Near to a node without a
//! coordinate nothing is ordered, but for this agent's own node: that it is nearest to itself is known without measuring.

use std::net::IpAddr;
use std::time::Duration;

use muster_protocol::gossip::coordinate::Coordinate;

use super::exchange::{Peer, Read, Request};
use crate::config::Config;
use crate::store::State;

/// The node whose rows go first.
pub struct Near {
    node: Option<Box<str>>,
    /// Or the one at this address.
    address: Option<IpAddr>,
    /// It is this agent's own.
    own: bool,
}

impl Near {
    /// Reads `?near`.
    pub fn of(config: &Config, request: &Request) -> Near {
        let asked = request.query.filled("near").filter(|_| !config.disable_coordinates);
        let own = match asked {
            Some("_agent") => true,
            Some("_ip") => client(request) == Some(config.addresses.advertise),
            Some(node) => node.eq_ignore_ascii_case(&config.node_name),
            None => false,
        };
        let (node, address) = match asked {
            _ if own => (Some(config.node_name.as_str().into()), None),
            Some("_ip") => (None, client(request)),
            node => (node.map(Into::into), None),
        };
        Near { node, address, own }
    }

    /// Has an answer made for each request when it is ordered: distances change without the rows.
    pub fn mark(request: &Request, read: Read) -> Read {
        if request.query.filled("near").is_some() { read.uncacheable() } else { read }
    }

    /// The rows in order of distance; `node` names the node of a row.
    pub fn order<T>(
        &self,
        state: &State,
        rows: impl Iterator<Item = T>,
        node: impl Fn(&T) -> &str,
    ) -> impl Iterator<Item = T> {
        let Some(first) = self.find(state) else {
            return Ordered::AsTheyAre(rows);
        };
        let mut sorted: Vec<T> = rows.collect();
        if state.coordinates_of(&first).next().is_some() {
            sorted.sort_by_cached_key(|row| distance(state, &first, node(row)));
        } else if self.own {
            sorted.sort_by_key(|row| !node(row).eq_ignore_ascii_case(&first));
        }
        Ordered::Sorted(sorted.into_iter())
    }

    fn find(&self, state: &State) -> Option<Box<str>> {
        let address = self.address.map(|address| address.to_string());
        let at = || state.nodes().find(|node| Some(&node.address) == address.as_ref());
        self.node.clone().or_else(|| at().map(|node| node.node.as_str().into()))
    }
}

/// Both orders as one type.
enum Ordered<I, T> {
    AsTheyAre(I),
    Sorted(std::vec::IntoIter<T>),
}

impl<T, I: Iterator<Item = T>> Iterator for Ordered<I, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match self {
            Ordered::AsTheyAre(rows) => rows.next(),
            Ordered::Sorted(rows) => rows.next(),
        }
    }
}

/// Between two nodes, in a segment that both know; the longest there is when there is none.
fn distance(state: &State, one: &str, other: &str) -> Duration {
    let of_other = |segment: &str| -> Option<Coordinate> {
        state.coordinates_of(other).find(|row| *row.segment == *segment).map(|row| row.coordinate)
    };
    let common = state.coordinates_of(one).find_map(|row| Some((row.coordinate, of_other(&row.segment)?)));
    common.map_or(Duration::MAX, |(one, other)| one.distance_to(&other))
}

/// The client's address: as a proxy tells it, else that of the connection.
fn client(request: &Request) -> Option<IpAddr> {
    let told = request.header("X-Forwarded-For").and_then(|text| text.split(',').next()?.trim().parse().ok());
    told.or(match request.peer {
        Peer::Ip(ip) => Some(ip),
        Peer::Unix | Peer::Agent => None,
    })
}
