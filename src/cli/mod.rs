//! The command line: one file per command; all but `agent` speak HTTP to an agent.

mod agent;

use std::process::ExitCode;

/// Runs the command that the arguments name.
pub fn main(args: Vec<String>) -> ExitCode {
    match args.get(1).map(String::as_str) {
        Some("agent") => agent::main(&args[2..]),
        _ => {
            eprintln!("Usage: muster agent [options]");
            ExitCode::from(127)
        }
    }
}
