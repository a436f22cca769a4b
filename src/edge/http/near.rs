//! `?near=NODE`: rows of the nearest nodes first. `_agent` is this agent's node, `_ip` the node at the client's address.
//!
//! Distances come from network coordinates. Until agents measure them, this agent knows one distance only, that to
//! itself: rows of its own node go first when they are asked near to it. Rows of nodes without a known distance
//! keep their order behind, and near to such a node all rows do, as in Consul.

use std::net::IpAddr;

use super::exchange::{Peer, Read, Request};
use crate::config::Config;

/// The node whose rows go first.
pub struct Near(Option<Box<str>>);

impl Near {
    /// Reads `?near`.
    pub fn of(config: &Config, request: &Request) -> Near {
        let own = match request.query.filled("near") {
            _ if config.disable_coordinates => false,
            Some("_agent") => true,
            Some("_ip") => client(request) == Some(config.addresses.advertise),
            Some(node) => node.eq_ignore_ascii_case(&config.node_name),
            None => false,
        };
        Near(own.then(|| config.node_name.as_str().into()))
    }

    /// Keeps an answer from clients at other addresses when it was made for the client's own.
    pub fn mark(request: &Request, read: Read) -> Read {
        if request.query.filled("near") == Some("_ip") { read.uncacheable() } else { read }
    }

    /// The rows in order of distance; `node` names the node of a row.
    pub fn order<T>(
        &self,
        rows: impl Iterator<Item = T>,
        node: impl Fn(&T) -> &str,
    ) -> impl Iterator<Item = T> {
        let (near, far, rows) = match &self.0 {
            None => (Vec::new(), Vec::new(), Some(rows)),
            Some(first) => {
                let (near, far) = rows.partition(|row| node(row).eq_ignore_ascii_case(first));
                (near, far, None)
            }
        };
        near.into_iter().chain(far).chain(rows.into_iter().flatten())
    }
}

/// The client's address: as a proxy tells it, else that of the connection.
fn client(request: &Request) -> Option<IpAddr> {
    let told = request.header("X-Forwarded-For").and_then(|text| text.split(',').next()?.trim().parse().ok());
    told.or(match request.peer {
        Peer::Ip(ip) => Some(ip),
        Peer::Unix | Peer::Agent => None,
    })
}
