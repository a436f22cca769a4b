//! `sim gossip`: whole pools of the real members (`protocol::gossip`) in one thread, on virtual time, with loss, duplication, overtaking, damage,
//! one-way cuts, members that stand still, and churn. A seed decides everything. See `docs/FAULTS.md`.

mod figures;
mod judge;
mod nemesis;
mod plan;
mod run;
mod wires;
mod world;

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use self::figures::Figures;
use self::plan::{Faults, Options};
use self::run::{Outcome, run};
use crate::queue::{SECOND, Time};
use crate::tally::Tally;

pub const USAGE: &str = "\
Usage: sim gossip --members N [--hours H | --minutes M] --seeds A..B | --seed N
                  [--faults swarm|promised|observers|crashes|none] [--loss PERCENT] [--threads N] [--keep-going]
                  [--check-determinism] [--json] [--trace]

  --members N           how many, from 3 to 16,384. Each knows all: 10,000 need about 10 GB, and more the longer they run
  --hours, --minutes    how long each seed's faults last, virtual; 10 minutes unless given
  --faults              swarm: everything, most seeds with some of it only (the default)
                        promised: a quarter of packets lost, others late and twice; short pauses, crashes, leaves
                        observers: at any time a random third of the members stands still, again and again
                        crashes: members crash, alone and many at once, and start again
                        none: events are fired, and nothing else happens
  --loss PERCENT        of all packets; unless given, 25 with promised, drawn by the swarm, else none
  --keep-going          does not stop at the first seed that fails
  --check-determinism   runs each seed twice (else one in 64) and compares the hash of all events
  --json                ends with the figures as one line of JSON
  --trace               prints every event of one seed";

struct Args {
    options: Options,
    seeds: Range<u64>,
    threads: usize,
    keep_going: bool,
    check_all: bool,
    json: bool,
    trace: bool,
    single: bool,
}

/// The command.
pub fn main(words: impl Iterator<Item = String>) -> ExitCode {
    match parse(words) {
        Ok(args) if args.single => one(&args),
        Ok(args) => many(&args),
        Err(why) => {
            eprintln!("{why}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let options = Options { members: 0, span: 600 * SECOND, loss: None, faults: Faults::Swarm };
    let mut args = Args {
        options,
        seeds: 0..0,
        threads,
        keep_going: false,
        check_all: false,
        json: false,
        trace: false,
        single: false,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--members" => args.options.members = number::<usize>(&value()?)?,
            "--hours" => args.options.span = span(&value()?, 3600 * SECOND)?,
            "--minutes" => args.options.span = span(&value()?, 60 * SECOND)?,
            "--loss" => {
                let percent = number::<f64>(value()?.trim_end_matches('%'))?;
                if !(0.0..=90.0).contains(&percent) {
                    return Err("--loss takes 0 to 90".into());
                }
                args.options.loss = Some(percent / 100.0);
            }
            "--faults" => {
                args.options.faults = match value()?.as_str() {
                    "swarm" => Faults::Swarm,
                    "promised" => Faults::Promised,
                    "observers" => Faults::Observers,
                    "crashes" => Faults::Crashes,
                    "none" => Faults::None,
                    other => return Err(format!("no faults {other}")),
                }
            }
            "--seeds" => {
                let text = value()?;
                let (from, to) = text.split_once("..").ok_or("--seeds takes A..B")?;
                args.seeds = number(from)?..number(to)?;
            }
            "--seed" => {
                let seed = number(&value()?)?;
                (args.seeds, args.single) = (seed..seed + 1, true);
            }
            "--threads" => args.threads = number::<usize>(&value()?)?.max(1),
            "--keep-going" => args.keep_going = true,
            "--check-determinism" => args.check_all = true,
            "--json" => args.json = true,
            "--trace" => args.trace = true,
            other => return Err(format!("what is {other}?")),
        }
    }
    if !(3..=16_384).contains(&args.options.members) {
        return Err("--members takes 3 to 16384".into());
    }
    if args.seeds.is_empty() {
        return Err("which seeds?".into());
    }
    Ok(args)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}

fn span(text: &str, unit: Time) -> Result<Time, String> {
    Ok((number::<f64>(text)? * unit as f64) as Time)
}

/// What all threads add to.
#[derive(Default)]
struct Sum {
    tally: Tally,
    figures: Figures,
    seeds: u64,
    events: u64,
    broken: BTreeMap<&'static str, Vec<u64>>,
}

fn one(args: &Args) -> ExitCode {
    let mut outcome = run(args.seeds.start, &args.options, true, args.trace);
    println!("{:#?}", outcome.plan);
    print_tally(&outcome.tally);
    print!("{}", outcome.figures.text());
    if args.json {
        println!("{}", outcome.figures.json());
    }
    println!("hash of {} events: {:016x}", outcome.hash.1, outcome.hash.0);
    if outcome.broken.is_some() {
        report(args, args.seeds.start, &outcome);
        return ExitCode::FAILURE;
    }
    println!("seed {}: all held", args.seeds.start);
    ExitCode::SUCCESS
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
                    add(args, &sum, seed, &outcome);
                    if outcome.broken.is_some() && !args.keep_going {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut sum = sum.into_inner().expect("no thread ends in the middle of a sum");
    conclude(args, &mut sum, began.elapsed().as_secs_f64())
}

fn conclude(args: &Args, sum: &mut Sum, took: f64) -> ExitCode {
    print_tally(&sum.tally);
    print!("{}", sum.figures.text());
    println!(
        "{} seeds, {} events in {:.1} minutes: {:.0} virtual seconds a second",
        sum.seeds,
        sum.events,
        took / 60.0,
        sum.figures.virtual_seconds as f64 / took
    );
    if args.json {
        println!("{}", sum.figures.json());
    }
    for (rule, seeds) in &sum.broken {
        println!("BROKEN {rule}: {} seeds, the first {}", seeds.len(), seeds[0]);
    }
    if sum.broken.is_empty() {
        println!("all held");
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}

/// Runs a seed, now and then twice.
fn judged(args: &Args, seed: u64) -> Outcome {
    let mut outcome = run(seed, &args.options, false, false);
    if outcome.broken.is_none() && (args.check_all || seed.is_multiple_of(64)) {
        outcome.tally.one("runs repeated");
        let again = run(seed, &args.options, false, false);
        if again.hash != outcome.hash {
            let story = format!("{:x?} and {:x?}", outcome.hash, again.hash);
            outcome.broken = Some(histories::Violation { rule: "one seed, one run", story });
        }
    }
    outcome
}

fn add(args: &Args, sum: &Mutex<Sum>, seed: u64, outcome: &Outcome) {
    let mut sum = sum.lock().expect("no thread ends in the middle of a sum");
    sum.tally.merge(&outcome.tally);
    sum.figures.merge(&outcome.figures);
    sum.seeds += 1;
    sum.events += outcome.hash.1;
    if let Some(broken) = &outcome.broken {
        let seeds = sum.broken.entry(broken.rule).or_default();
        seeds.push(seed);
        if seeds.len() == 1 {
            report(args, seed, outcome);
        }
    }
}

fn report(args: &Args, seed: u64, outcome: &Outcome) {
    for line in &outcome.tail {
        println!("  {line}");
    }
    if let Some(broken) = &outcome.broken {
        println!(
            "seed {seed} BROKE a rule after {} virtual seconds\n{broken}",
            outcome.figures.virtual_seconds
        );
    }
    let Options { members, span, loss, faults } = &args.options;
    let loss = loss.map(|loss| format!(" --loss {}", loss * 100.0)).unwrap_or_default();
    println!(
        "reproduce: cargo run --release -p sim -- gossip --members {members} --minutes {} --faults {}{loss} --seed {seed} --trace",
        *span as f64 / (60 * SECOND) as f64,
        format!("{faults:?}").to_lowercase()
    );
}

fn print_tally(tally: &Tally) {
    for (name, count) in tally.iter() {
        println!("{count:>12}  {name}");
    }
}
