//! The `muster` program: one binary for the agent and for every command that speaks to one.

fn main() {}
