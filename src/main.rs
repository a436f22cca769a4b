//! The `muster` program: one binary for the agent and for every command that speaks to one.

use std::process::ExitCode;

fn main() -> ExitCode {
    muster::cli::main(std::env::args().collect())
}
