//! The server role: leader duties, and later RPC endpoints, forwarding, other datacenters.

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
mod witness;

#[cfg(test)]
mod tests;
