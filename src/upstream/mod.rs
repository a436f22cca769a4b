//! A client agent's way to the servers.

pub mod views;
