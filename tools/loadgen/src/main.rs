//! A fleet in one process: thousands of the real agents (gossip, way to the servers, checks, anti-entropy), each at a loopback address of its
//! own, against real servers. It registers them, lets them be, makes their checks flap and storm, kills some, and tells what that cost.

mod agent;
mod args;
mod consul;
mod dns;
mod figures;
mod fleet;
mod http;
mod meter;
mod scenario;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use args::Args;
use figures::Report;
use muster::runtime::cores::{self, Driver};
use muster::runtime::preflight;

fn main() -> ExitCode {
    let args = match args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(why) => {
            eprintln!("{why}\n\n{}", args::USAGE);
            return ExitCode::from(2);
        }
    };
    preflight::raise_limits();
    let report = match &args.consul {
        Some(url) => consul::run(url, &args),
        None => run(&args),
    };
    match report {
        Ok(report) => tell(&args, &report),
        Err(why) => {
            eprintln!("\n{why}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<Report, String> {
    let outcome = Arc::new(Mutex::new(Err("the load did not run to its end".to_owned())));
    let (ended, args) = (outcome.clone(), args.clone());
    // Thousands of sockets on one core: the epoll driver has the least to set up for each.
    let ran = cores::run(Driver::Epoll, 1, move |_| {
        let (ended, args) = (ended.clone(), args.clone());
        Box::pin(async move {
            let report = scenario::run(args).await;
            *ended.lock().unwrap_or_else(PoisonError::into_inner) = report;
        })
    });
    ran.map_err(|error| error.to_string())?;
    let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::replace(&mut *outcome, Err(String::new()))
}

fn tell(args: &Args, report: &Report) -> ExitCode {
    println!("{}", report.text());
    if let Some(path) = &args.json
        && let Err(error) = std::fs::write(path, report.json().to_string() + "\n")
    {
        eprintln!("the report cannot be written to {path}: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
