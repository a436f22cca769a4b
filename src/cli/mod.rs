//! The command line: one file per group of commands; all but `agent` are plain blocking programs that speak HTTP to an
//! agent, or to nobody.
//!
//! Texts, formats and exit codes are Consul's, because scripts read them. Results go to standard output, errors to
//! standard error with exit code 1.

mod agent;
mod catalog;
mod client;
mod cluster;
mod debug;
mod exec;
mod explain;
mod follow;
mod gossip;
mod kv;
mod local;
mod lock;
mod operator;
mod services;
mod snapshot;
mod table;
mod template;
mod transport;
mod usage;
mod watch;

use std::process::ExitCode;

use crate::config::flags::{Flag, FlagKind, Parsed};
use crate::runtime::signal;
use usage::{Command, program};

/// The version of Consul that this program stands in for.
pub use crate::server::leader::COMPATIBLE_VERSION as CONSUL_VERSION;

/// How a command ends: its exit code, or the text of an error.
type Outcome = Result<ExitCode, String>;

/// One command.
#[derive(Clone, Copy)]
struct Program {
    command: Command,
    /// Its flags besides the shared ones.
    flags: &'static [Flag],
    run: fn(&Parsed) -> Outcome,
}

/// Commands under a common word.
struct Group {
    name: &'static str,
    summary: &'static str,
    programs: &'static [Program],
}

/// Groups under a common word.
struct Realm {
    name: &'static str,
    summary: &'static str,
    groups: &'static [Group],
}

/// The groups of commands. Their shared flags include those about a datacenter.
const GROUPS: [Group; 5] = [catalog::GROUP, explain::GROUP, kv::GROUP, services::GROUP, snapshot::GROUP];

/// The commands that speak to the agent itself.
const OF_THE_AGENT: [Program; 12] = [
    cluster::INFO,
    cluster::LEAVE,
    cluster::MAINT,
    cluster::MEMBERS,
    cluster::MONITOR,
    cluster::RELOAD,
    debug::DEBUG,
    gossip::EVENT,
    gossip::FORCE_LEAVE,
    gossip::JOIN,
    gossip::KEYRING,
    gossip::RTT,
];

/// Commands of one word whose shared flags include those about a datacenter.
const OF_A_DATACENTER: [Program; 4] = [exec::EXEC, lock::LOCK, template::TEMPLATE, watch::WATCH];

/// The commands that speak to nobody.
const LOCAL: [Program; 3] = [local::KEYGEN, local::VALIDATE, local::VERSION];

/// Runs the command that the arguments name.
pub fn main(args: Vec<String>) -> ExitCode {
    let Some((name, rest)) = args.get(1..).and_then(<[String]>::split_first) else {
        eprint!("{}", overview());
        return ExitCode::from(127);
    };
    match name.as_str() {
        "-v" | "-version" | "--version" => {
            print!("{}", local::version_text());
            return ExitCode::SUCCESS;
        }
        "-h" | "-help" | "--help" => {
            print!("{}", overview());
            return ExitCode::SUCCESS;
        }
        "agent" => return agent::main(rest),
        _ => {}
    }
    signal::die_of_closed_pipes();
    if let Some(group) = GROUPS.iter().find(|group| group.name == name) {
        return run_group(group.name, group, rest);
    }
    if name == operator::REALM.name {
        return run_realm(&operator::REALM, rest);
    }
    if let Some(program) = OF_THE_AGENT.iter().find(|p| p.command.name == name) {
        return run(program, &client::FLAGS[..client::AGENT_FLAGS], rest);
    }
    if let Some(program) = OF_A_DATACENTER.iter().find(|p| p.command.name == name) {
        return run(program, &client::FLAGS, rest);
    }
    if let Some(program) = LOCAL.iter().find(|p| p.command.name == name) {
        return run(program, &[], rest);
    }
    eprint!("{}", overview());
    ExitCode::from(127)
}

/// Runs a command of a group of groups.
fn run_realm(realm: &Realm, args: &[String]) -> ExitCode {
    let name = args.first().map(String::as_str).unwrap_or_default();
    if let Some(group) = realm.groups.iter().find(|group| group.name == name) {
        return run_group(&format!("{} {name}", realm.name), group, &args[1..]);
    }
    let groups: Vec<(&str, &str)> = realm.groups.iter().map(|group| (group.name, group.summary)).collect();
    show_words(realm.name, realm.summary, &groups, name)
}

/// Runs a command of a group; `words` lead to the group.
fn run_group(words: &str, group: &Group, args: &[String]) -> ExitCode {
    let name = args.first().map(String::as_str).unwrap_or_default();
    if let Some(program) = group.programs.iter().find(|p| p.command.name == name) {
        return run(program, &client::FLAGS, &args[1..]);
    }
    let commands: Vec<(&str, &str)> =
        group.programs.iter().map(|p| (p.command.name, p.command.summary)).collect();
    show_words(words, group.summary, &commands, name)
}

/// Says which words may follow; an error unless that was asked.
fn show_words(words: &str, summary: &str, next: &[(&str, &str)], asked: &str) -> ExitCode {
    let text = format!(
        "Usage: {} {words} <subcommand> [options] [args]\n\n  {summary}.\n\nSubcommands:\n{}",
        program(),
        listed(next, 4)
    );
    if matches!(asked, "-h" | "-help" | "--help") {
        print!("{text}");
        return ExitCode::SUCCESS;
    }
    eprint!("{text}");
    ExitCode::FAILURE
}

/// Runs a command with its flags and the shared ones.
fn run(program: &Program, shared: &[Flag], args: &[String]) -> ExitCode {
    let flags: Vec<Flag> = program.flags.iter().chain(shared).copied().collect();
    let parsed = match usage::parse(&program.command, &flags, args) {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    if let Some(namespace) = parsed.value("namespace").filter(|n| !matches!(*n, "" | "default")) {
        eprintln!("Namespaces are not available: got -namespace={namespace}");
        return ExitCode::FAILURE;
    }
    (program.run)(&parsed).unwrap_or_else(|why| {
        eprintln!("{why}");
        ExitCode::FAILURE
    })
}

/// The list of all commands.
fn overview() -> String {
    let mut all: Vec<(&str, &str)> = vec![(agent::COMMAND.name, agent::COMMAND.summary)];
    all.extend(GROUPS.iter().map(|group| (group.name, group.summary)));
    all.push((operator::REALM.name, operator::REALM.summary));
    all.extend(
        OF_THE_AGENT
            .iter()
            .chain(&OF_A_DATACENTER)
            .chain(&LOCAL)
            .map(|p| (p.command.name, p.command.summary)),
    );
    all.sort_unstable();
    format!(
        "Usage: {} [--version] [--help] <command> [<args>]\n\nAvailable commands are:\n{}\n",
        program(),
        listed(&all, 4)
    )
}

/// Names and what they do, one a line.
fn listed(all: &[(&str, &str)], gap: usize) -> String {
    let width = all.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + gap;
    all.iter().map(|(name, summary)| format!("    {name:<width$}{summary}\n")).collect()
}

/// A flag without a value.
const fn switch(name: &'static str, help: &'static str) -> Flag {
    Flag { name, kind: FlagKind::Bool, help }
}

/// A flag with a value.
const fn value(name: &'static str, help: &'static str) -> Flag {
    Flag { name, kind: FlagKind::Value, help }
}

/// A flag with a whole number.
const fn int(name: &'static str, help: &'static str) -> Flag {
    Flag { name, kind: FlagKind::Int, help }
}

/// A flag that may be repeated.
const fn list(name: &'static str, help: &'static str) -> Flag {
    Flag { name, kind: FlagKind::List, help }
}
