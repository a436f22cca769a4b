//! The server role: leader duties, and later RPC endpoints, forwarding, other datacenters.

pub mod leader;
pub mod links;
