//! An agent starts on a machine that gives it the CPU late, too.

use std::process::Command;

use serde_json::json;

use super::agent::{self, Ports, START_LIMIT};
use super::support::http;
use super::support::process::{self, Process};
use super::support::wait;

/// The ring's first calls take 3 ms, longer than a task may run: as on a busy machine, now and then.
const LATE: &str = "inject=io_uring_enter:delay_exit=3000:when=1..6";

/// Once, an agent hung for ever at its start, one time in forty on a busy machine under strace: glommio takes a preempt timer
/// that fires before its first task ran for "nothing to do" and sleeps, and nobody could wake it yet.
#[test]
fn an_agent_starts_though_its_first_moments_are_late() {
    if process::is_foreign() {
        return; // it has no ring
    }
    let strace = |words: &[&str]| {
        Command::new("strace").args(["-f", "-q", "-o", "/dev/null", "-e", LATE]).args(words).output()
    };
    if !strace(&["true"]).is_ok_and(|run| run.status.success()) {
        println!("SKIPPED: slow system calls are made by strace, which does not work here");
        return;
    }
    let folder = agent::new_folder();
    let ports = Ports::free();
    agent::write_config(folder.path(), ports, json!({}));
    let mut command = Command::new("strace");
    command.args(["-f", "-q", "-o", "/dev/null", "-e", "trace=io_uring_enter", "-e", LATE]);
    command.arg(process::binary()).arg("agent").args(agent::arguments(folder.path(), &["-dev"]));
    let mut process = Process::spawn(folder.path(), command).expect("starting the agent under strace");
    wait::until_true("the agent answers", START_LIMIT, || {
        if let Some(status) = process.ended() {
            panic!("it ended with {}\n{}", process::describe(status), process.log_tail());
        }
        http::get(ports.http, "/v1/status/leader").is_ok_and(|reply| reply.text().contains(':'))
    });
}
