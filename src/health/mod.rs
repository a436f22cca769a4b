//! Health checks: what they do ([`plan`]), when they run ([`schedule`]), and what their results mean
//! ([`threshold`], [`output`], [`alias`]). Runs on the control core; the agent drives it and owns the statuses.

pub mod output;
pub mod plan;
pub mod schedule;
pub mod threshold;
