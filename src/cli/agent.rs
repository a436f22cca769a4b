//! `agent`: runs an agent in the foreground until it is told to stop.

use std::process::ExitCode;
use std::sync::Arc;

use crate::config::Config;
use crate::config::flags;
use crate::config::sources::{Sources, agent_flags};
use crate::logs;
use crate::node::{self, End};

/// Runs `agent` with its arguments.
pub fn main(args: &[String]) -> ExitCode {
    match run(args) {
        Ok(End::Graceful) => ExitCode::SUCCESS,
        Ok(End::Stopped) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("==> {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<End, String> {
    let parsed = flags::parse(&agent_flags(), args).map_err(|error| format!("{error:?}"))?;
    let sources = Sources::from_flags(&parsed).map_err(|error| error.to_string())?;
    let config = sources.load().map_err(|error| error.to_string())?;
    logs::start(&config.log);
    let reload = move || -> Result<Config, String> { sources.load().map_err(|error| error.to_string()) };
    node::run(config, Arc::new(reload)).map_err(|failure| failure.to_string())
}
