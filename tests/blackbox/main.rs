//! Black-box tests: real agent processes, on free loopback ports, in temporary folders, asked over the wire.
//!
//! `MUSTER_TEST_RUNTIME` picks the driver. Where a client that somebody else wrote is on the machine (curl, dig, Python's
//! web server), it is used too; where it is not, the test says so and looks with our own client.

#[path = "../support/mod.rs"]
mod support;

mod agent;
mod checks;
mod client;
mod clients;
mod demo;
mod exclusive;
mod fallback;
mod logs;
mod memory;
mod persistence;
mod published;
mod reload;
mod scripts;
mod signals;
mod slow_start;
mod snapshot;
mod storm;
mod telemetry;
mod templates;
mod wakes;
mod watches;
