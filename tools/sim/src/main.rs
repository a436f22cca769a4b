//! Deterministic simulator of whole server clusters; and, with `gossip`, of pools of members.
//!
//! Each seed is one cluster of real replicas (Raft, log and state machine as the agent runs them) over simulated disks, wires
//! and clocks, with clients, an operator and faults. First all kinds of things break and every answer is recorded;
//! then all is healed and the cluster must get on. See `docs/FAULTS.md`.

mod checks;
mod clients;
mod clock;
mod disk;
mod finish;
mod follow;
mod gossip;
mod life;
mod locks;
mod nemesis;
mod network;
mod operator;
mod plan;
mod queue;
mod random;
mod run;
mod server;
mod tally;
mod trace;
mod truth;
mod world;

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::plan::Profile;
use crate::run::{Outcome, run};
use crate::tally::Tally;

const USAGE: &str = "\
Usage: sim --seeds A..B [--profile small|large] [--threads N] [--keep-going] [--check-determinism]
       sim --seed N [--profile small|large] [--trace]
       sim locks ...        the same with clients that lock: sessions, locks, transactions, clocks that differ and leap
       sim gossip ...       pools of gossiping members instead of clusters of servers: see sim gossip --help

  --seeds A..B          runs the seeds from A up to B, B not included
  --seed N              runs one seed
  --trace               prints every event of it
  --profile             small: half a virtual minute (the default); large: ten minutes and more
  --threads N           how many seeds at a time; as many as there are cores unless given
  --keep-going          does not stop at the first seed that fails
  --check-determinism   runs each seed twice (else one in 64) and compares the hash of all events";

struct Args {
    seeds: Range<u64>,
    profile: Profile,
    threads: usize,
    trace: bool,
    keep_going: bool,
    check_all: bool,
    single: bool,
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    if words.next_if(|word| word == "gossip").is_some() {
        return gossip::main(words);
    }
    let locks = words.next_if(|word| word == "locks").is_some();
    let args = match parse(words, locks) {
        Ok(args) => args,
        Err(why) => {
            eprintln!("{why}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // A panic inside a run is a finding of that run, told with its seed.
    std::panic::set_hook(Box::new(|info| {
        PANICS.with_borrow_mut(|panics| *panics = info.to_string());
    }));
    if args.single { one(&args) } else { many(&args) }
}

thread_local! {
    static PANICS: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

fn parse(mut words: impl Iterator<Item = String>, locks: bool) -> Result<Args, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut args = Args {
        seeds: 0..0,
        profile: if locks { Profile::Locks } else { Profile::Small },
        threads,
        trace: false,
        keep_going: false,
        check_all: false,
        single: false,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--seeds" => {
                let text = value()?;
                let (from, to) = text.split_once("..").ok_or("--seeds takes A..B")?;
                args.seeds = number(from)?..number(to)?;
            }
            "--seed" => {
                let seed = number(&value()?)?;
                (args.seeds, args.single) = (seed..seed + 1, true);
            }
            "--profile" => {
                args.profile = match value()?.as_str() {
                    "small" => Profile::Small,
                    "large" => Profile::Large,
                    other => return Err(format!("no profile {other}")),
                }
            }
            "--threads" => args.threads = number(&value()?)?.max(1) as usize,
            "--trace" => args.trace = true,
            "--keep-going" => args.keep_going = true,
            "--check-determinism" => args.check_all = true,
            other => return Err(format!("what is {other}?")),
        }
    }
    if args.seeds.is_empty() {
        return Err("which seeds?".into());
    }
    Ok(args)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}

fn one(args: &Args) -> ExitCode {
    let outcome = run(args.seeds.start, args.profile, true, args.trace);
    println!("{:#?}", outcome.plan);
    print_tally(&outcome.tally);
    println!("hash of {} events: {:016x}", outcome.hash.1, outcome.hash.0);
    if outcome.broken.is_some() {
        report(args, args.seeds.start, &outcome);
        return ExitCode::FAILURE;
    }
    println!("seed {}: all held, {} virtual seconds", args.seeds.start, outcome.seconds);
    ExitCode::SUCCESS
}

/// What all threads add to.
#[derive(Default)]
struct Sum {
    tally: Tally,
    seeds: u64,
    seconds: u64,
    events: u64,
    broken: BTreeMap<&'static str, Vec<u64>>,
}

fn many(args: &Args) -> ExitCode {
    let (next, stop) = (AtomicU64::new(args.seeds.start), AtomicBool::new(false));
    let sum = Mutex::new(Sum::default());
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..args.threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= args.seeds.end {
                        return;
                    }
                    let outcome = judged(args, seed);
                    add(args, &sum, seed, &outcome, began);
                    if outcome.broken.is_some() && !args.keep_going {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let sum = sum.into_inner().expect("no thread ends in the middle of a sum");
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    println!();
    print_tally(&sum.tally);
    println!(
        "{} seeds, {:.1} virtual hours, {} events in {:.1} minutes: {:.0} seeds a minute",
        sum.seeds,
        sum.seconds as f64 / 3600.0,
        sum.events,
        minutes,
        sum.seeds as f64 / minutes
    );
    let missing = idle(&sum, args.profile == Profile::Locks);
    for (rule, seeds) in &sum.broken {
        println!("BROKEN {rule}: {} seeds, the first {}", seeds.len(), seeds[0]);
    }
    for what in &missing {
        println!("IDLE: {what}");
    }
    if sum.broken.is_empty() && missing.is_empty() {
        println!("all held");
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}

/// Runs a seed, now and then twice.
fn judged(args: &Args, seed: u64) -> Outcome {
    let mut outcome = run(seed, args.profile, false, false);
    if outcome.broken.is_none() && (args.check_all || seed.is_multiple_of(64)) {
        outcome.tally.one("runs repeated");
        let again = run(seed, args.profile, false, false);
        if again.hash != outcome.hash {
            let story = format!("{:x?} and {:x?}", outcome.hash, again.hash);
            outcome.broken = Some(histories::Violation { rule: "one seed, one run", story });
        }
    }
    outcome
}

fn add(args: &Args, sum: &Mutex<Sum>, seed: u64, outcome: &Outcome, began: Instant) {
    let mut sum = sum.lock().expect("no thread ends in the middle of a sum");
    sum.tally.merge(&outcome.tally);
    sum.seeds += 1;
    sum.seconds += outcome.seconds;
    sum.events += outcome.hash.1;
    if let Some(broken) = &outcome.broken {
        let seeds = sum.broken.entry(broken.rule).or_default();
        seeds.push(seed);
        if seeds.len() == 1 {
            report(args, seed, &run(seed, args.profile, true, false));
        }
    }
    if sum.seeds.is_multiple_of(200) {
        let rate = sum.seeds as f64 / began.elapsed().as_secs_f64() * 60.0;
        let broken: usize = sum.broken.values().map(Vec::len).sum();
        eprintln!("{} seeds, {rate:.0} a minute, {broken} broken", sum.seeds);
    }
}

fn report(args: &Args, seed: u64, outcome: &Outcome) {
    for line in &outcome.tail {
        println!("  {line}");
    }
    let panics = PANICS.with_borrow(String::clone);
    if let Some(broken) = &outcome.broken {
        println!("seed {seed} BROKE a rule after {} virtual seconds\n{broken}", outcome.seconds);
        if broken.rule == "nothing panics" {
            println!("{panics}");
        }
    }
    let (kind, profile) = match args.profile {
        Profile::Small => ("", ""),
        Profile::Large => ("", " --profile large"),
        Profile::Locks => ("locks ", ""),
    };
    println!("reproduce: cargo run --release -p sim -- {kind}--seed {seed}{profile} --trace");
}

fn print_tally(tally: &Tally) {
    for (name, count) in tally.iter() {
        println!("{count:>12}  {name}");
    }
}

/// What did not happen although so many seeds should have made it happen.
fn idle(sum: &Sum, locks: bool) -> Vec<String> {
    let per_seed: &[(&str, f64)] = match locks {
        false => &[("operations", 50.0), ("answers: write", 20.0), ("elections", 1.0), ("faults", 1.0)],
        true => &[("locks taken", 20.0), ("sessions renewed", 20.0), ("elections", 1.0), ("faults", 1.0)],
    };
    let mut missing: Vec<String> = per_seed
        .iter()
        .filter(|(name, least)| (sum.tally.get(name) as f64) < least * sum.seeds as f64)
        .map(|(name, least)| {
            format!("{name}: {} in {} seeds, at least {least} each", sum.tally.get(name), sum.seeds)
        })
        .collect();
    if sum.seeds >= 500 {
        let all = [
            "snapshots",
            "snapshots installed",
            "fault: bit rot",
            "fault: power cut",
            "blocking queries: changed",
        ];
        let of_locks = [
            "snapshots installed",
            "fault: a clock leaps an hour",
            "fault: a machine sleeps",
            "fault: pause",
            "sessions whose time was up",
            "lock-delays that ended",
            "sessions lost",
        ];
        let all: &[&str] = if locks { &of_locks } else { &all };
        missing
            .extend(all.iter().filter(|name| sum.tally.get(name) == 0).map(|name| format!("{name}: never")));
    }
    missing
}
