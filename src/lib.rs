//! Muster: service discovery, health monitoring and configuration for fleets of hosts, in one binary that
//! answers Consul's HTTP API, DNS names, configuration files and command line.
//!
//! `ARCHITECTURE.md` is the map.

pub mod agent;
pub mod archive;
pub mod cli;
pub mod config;
pub mod consensus;
pub mod edge;
pub mod health;
pub mod logs;
pub mod membership;
pub mod metrics;
pub mod node;
pub mod runtime;
pub mod server;
pub mod store;
pub mod template;
pub mod upstream;
pub mod watch;
