//! Clusters of real server processes on loopback: they find one another, elect, replicate, lose servers and get them back.
//!
//! `MUSTER_TEST_BINARY` names another build (figures are of interest from a release build only), `MUSTER_TEST_RUNTIME`
//! picks the driver.

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod explain;
mod harness;
mod life;
mod locks;
mod membership;
mod operator;
mod pool;
mod relay;
mod sessions;
mod snapshot;
mod watches;
