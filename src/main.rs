//! The `muster` program: one binary for the agent and for every command that speaks to one.

use std::process::ExitCode;

/// A connection's request is a dozen short-lived allocations, and a command lives and dies on different cores: both cost the
/// C library's allocator several times as much, and a static build's (musl) far more than that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    muster::cli::main(std::env::args().collect())
}
