//! Health checks: what they do ([`plan`]), when they run ([`schedule`]), one run ([`run`]), and what its result means
//! ([`threshold`], [`output`], [`alias`]). Runs on the control core; the agent drives it and owns the statuses.

pub mod alias;
pub mod connect;
pub mod docker;
pub mod http2;
pub mod http_client;
pub mod network;
pub mod output;
pub mod plan;
pub mod run;
pub mod schedule;
#[cfg(test)]
mod tests;
pub mod threshold;
pub mod tls;
