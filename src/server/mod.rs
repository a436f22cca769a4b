//! The server role: leader duties, links to other servers, agents' connections; later other datacenters.

pub mod autopilot;
pub mod desk;
pub mod health;
pub mod leader;
pub mod leave;
pub mod links;
mod members;
pub mod recovery;
mod rest;
pub mod restore;
pub mod rpc;
pub mod sessions;
mod witness;

#[cfg(test)]
mod tests;
